//! One member of four lies. The others are real processes; the liar is the test's own, with the
//! member's keys and the real engine. Whatever it says, the others decide, agree, publish nothing of
//! it, and keep what proves that it signed two histories.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use chopmark_consensus::byzantine::Misbehaviour;
use chopmark_tests::{
    byzantine::{ByzantineMember, Lie, Orders, Proposed},
    long,
    members::{KEYED_TENANT, Load, Network, key},
    seeded, tally,
};
use ledger_core::{Hash32, equivocation::EquivocationKind};
use rand::RngExt as _;

const LIAR: usize = 3;
/// What an order may take, in steps of [`STEP`], before a test gives up.
const STEPS_MAX: usize = 3000;
const STEP: Duration = Duration::from_millis(20);

/// Three members as processes and a liar, which is honest so far.
async fn network_with_a_liar(random: &mut impl rand::Rng) -> (Network, ByzantineMember) {
    let mut network = Network::make(4, &[LIAR]).await.unwrap();
    let mut liar = ByzantineMember::new(&network, LIAR, random.random()).unwrap();
    liar.start(None).unwrap();
    network.start_members().await.unwrap();
    let tenant_key = key(&network.members[0].folder, "statement").unwrap().verifying_key();
    let keyed = network.approved_tenant(KEYED_TENANT, Some(Hash32(tenant_key.to_bytes()))).unwrap();
    network.submit(keyed).await.unwrap();
    liar.orders.replays(network.approved_tenant(chopmark_tests::members::TENANT, None).unwrap());
    (network, liar)
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..STEPS_MAX {
        if holds().await {
            return;
        }
        tokio::time::sleep(STEP).await;
    }
    panic!("{what}: not in time");
}

async fn height(network: &Network, member: usize) -> u64 {
    network.status(member).await.map_or(0, |status| status["height"].as_u64().unwrap())
}

/// Orders a lie until it was told in `turns` proposals that `counts` and their heights were decided.
async fn lies_in_turns(
    network: &Network,
    orders: &Orders,
    lie: Lie,
    turns: usize,
    reader: usize,
    counts: impl Fn(&Proposed) -> bool,
) {
    let told = || -> Vec<Proposed> {
        orders.proposed().into_iter().filter(|proposed| proposed.lie == lie && counts(proposed)).collect()
    };
    let before = told().len();
    orders.lie(lie);
    until(&format!("{lie:?} in {turns} turns"), async || told().len() >= before + turns).await;
    orders.lie(Lie::None);
    let last = told().last().unwrap().height;
    until(&format!("height {last} after {lie:?}"), async || height(network, reader).await >= last).await;
}

/// Of the proposals that the liar made, those that were decided.
async fn decided(network: &Network, orders: &Orders) -> Vec<Proposed> {
    let (mut found, mut hashes) = (Vec::new(), BTreeMap::new());
    for proposed in orders.proposed() {
        if let Entry::Vacant(unknown) = hashes.entry(proposed.height) {
            let block = network.block(0, proposed.height).await.unwrap();
            unknown.insert(block.map(|block| block["hash"].clone()));
        }
        if hashes[&proposed.height].as_ref().is_some_and(|hash| *hash == proposed.value.to_string()) {
            found.push(proposed);
        }
    }
    found
}

/// Nothing that it lied was decided, and what it said honestly was: it did take part.
async fn only_honest_proposals_decided(network: &Network, orders: &Orders) -> String {
    let (all, decided) = (orders.proposed(), decided(network, orders).await);
    let lies: Vec<_> = decided.iter().filter(|proposed| !proposed.is_sound).collect();
    assert!(lies.is_empty(), "lies were decided: {lies:?}");
    assert!(!decided.is_empty(), "the liar's honest proposals were decided");
    // Twice what a validator allows: it may have judged late.
    let far: Vec<_> = decided.iter().filter(|proposed| proposed.ahead_ms > 4_000).collect();
    assert!(far.is_empty(), "blocks walked ahead of the true time: {far:?}");
    let told = all.iter().filter(|proposed| !proposed.is_sound).count();
    format!("{told} proposals that lied, {} honest ones decided; {}", decided.len(), network.tally())
}

async fn still_sound(network: &mut Network) {
    network.check().await.unwrap();
    network.check_nothing_invented().await.unwrap();
    for member in network.present() {
        assert!(network.is_running(*member), "{}", network.log(*member));
        assert!(network.status(*member).await.unwrap()["failure"].is_null(), "{}", network.log(*member));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn proposals_that_lie_are_never_decided() {
    let mut random = seeded("proposals_that_lie_are_never_decided");
    let (mut network, mut liar) = network_with_a_liar(&mut random).await;
    let (orders, load) = (Arc::clone(&liar.orders), Load::default());
    let (rounds, turns) = if long() { (20, 3) } else { (1, 1) };
    let lies = async {
        // So that a decided block shows that the liar's proposals reach the others at all.
        lies_in_turns(&network, &orders, Lie::None, 2, 0, |_| true).await;
        for _ in 0..rounds {
            for lie in Lie::PROPOSALS {
                lies_in_turns(&network, &orders, lie, turns, 0, |_| true).await;
            }
        }
        lies_in_turns(&network, &orders, Lie::TimeCreep, if long() { 30 } else { 5 }, 0, |_| true).await;
        load.stop();
    };
    tokio::join!(load.run(&network, 4), lies);
    still_sound(&mut network).await;
    let tallied = only_honest_proposals_decided(&network, &orders).await;
    assert!((0..3).any(|member| network.has_logged(member, "a proposal is ahead of the clock")));
    tally("proposals_that_lie_are_never_decided", &tallied);
    liar.stop().unwrap();
    network.stop_and_check_files().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_in_later_rounds_while_the_quorum_needs_the_liar() {
    let mut random = seeded("lies_in_later_rounds_while_the_quorum_needs_the_liar");
    let (mut network, mut liar) = network_with_a_liar(&mut random).await;
    let (orders, load) = (Arc::clone(&liar.orders), Load::default());
    lies_in_turns(&network, &orders, Lie::None, 1, 0, |_| true).await;
    // Its turn is the next one at the heights of the member that is away.
    network.kill(2);
    let turns = if long() { 20 } else { 1 };
    let lies = async {
        for lie in [Lie::TimeAheadLocked, Lie::TimeAhead, Lie::Root, Lie::OtherBatch] {
            lies_in_turns(&network, &orders, lie, turns, 0, |proposed| proposed.round > 0).await;
        }
        load.stop();
    };
    tokio::join!(load.run(&network, 4), lies);
    network.spawn(2).unwrap();
    still_sound(&mut network).await;
    let tallied = only_honest_proposals_decided(&network, &orders).await;
    tally("lies_in_later_rounds_while_the_quorum_needs_the_liar", &tallied);
    liar.stop().unwrap();
    network.stop_and_check_files().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_streams_and_messages_stop_nobody() {
    let mut random = seeded("floods_of_streams_and_messages_stop_nobody");
    let (mut network, mut liar) = network_with_a_liar(&mut random).await;
    let (orders, load) = (Arc::clone(&liar.orders), Load::default());
    let (messages, records) = if long() { (50_000, 300) } else { (150, 5) };
    let mut sent = 0;
    let committed = || network.told.lock().unwrap().committed.len();
    let floods = async {
        lies_in_turns(&network, &orders, Lie::ReversedParts, 2, 0, |_| true).await;
        for lie in Lie::FLOODS.into_iter().chain([Lie::UnsignedVotes]) {
            let refused = network.metric(0, "chopmark_node_streams_refused_total").await;
            let (before, messages) = (committed(), if lie == Lie::UnsignedVotes { 20 } else { messages });
            orders.lie(lie);
            until(&format!("{messages} messages of {lie:?}"), async || orders.sent() >= messages).await;
            until(&format!("records through {lie:?}"), async || committed() >= before + records).await;
            sent += orders.sent();
            if matches!(lie, Lie::OtherTurns | Lie::BrokenStreams) {
                until(&format!("streams of {lie:?} are refused"), async || {
                    network.metric(0, "chopmark_node_streams_refused_total").await > refused
                })
                .await;
            }
        }
        orders.lie(Lie::None);
        load.stop();
    };
    tokio::join!(load.run(&network, 4), floods);
    // Nothing to decide on, and calls without end: blocks come at a pace of the others' own.
    let before = height(&network, 0).await;
    orders.lie(Lie::Wakes);
    until("calls for blocks", async || orders.sent() >= 1000).await;
    let (calls, blocks) = (orders.sent(), height(&network, 0).await - before);
    eprintln!("{calls} calls, {blocks} blocks");
    assert!(blocks * 20 < calls, "{calls} calls made {blocks} blocks");
    orders.lie(Lie::None);
    still_sound(&mut network).await;
    let tallied = only_honest_proposals_decided(&network, &orders).await;
    let reversed = decided(&network, &orders).await;
    assert!(reversed.iter().any(|proposed| proposed.lie == Lie::ReversedParts), "parts may come in any order");
    tally("floods_of_streams_and_messages_stop_nobody", &format!("{sent} messages and parts; {tallied}"));
    liar.stop().unwrap();
    network.stop_and_check_files().unwrap();
}

/// Waits until every honest member keeps evidence of this kind against the liar.
async fn proven(network: &Network, kind: EquivocationKind) {
    for member in network.present() {
        until(&format!("evidence of {kind:?} at {member}"), async || {
            let found = network.evidence(*member).unwrap();
            let liar = &network.members[LIAR].domain;
            assert!(found.iter().all(|one| one.member == *liar), "an honest member is accused: {found:?}");
            found.iter().any(|one| one.kind == kind)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_signed_twice_is_kept_as_evidence() {
    let mut random = seeded("what_was_signed_twice_is_kept_as_evidence");
    let (mut network, mut liar) = network_with_a_liar(&mut random).await;
    let orders = Arc::clone(&liar.orders);
    network.notarize(900_000).await.unwrap();
    for member in network.present() {
        assert!(network.evidence(*member).unwrap().is_empty(), "so far it was honest");
    }
    orders.lie(Lie::SecondRoot);
    proven(&network, EquivocationKind::Checkpoint).await;
    orders.lie(Lie::None);
    still_sound(&mut network).await;

    let flip = |value: Hash32| Hash32(value.0.map(|byte| !byte));
    let votes = Misbehaviour { second_vote: Some(Arc::new(flip)), ..Misbehaviour::default() };
    let rounds = if long() { 10 } else { 1 };
    let mut next = 0;
    for _ in 0..rounds {
        for (kind, misbehaviour) in [
            (Some(EquivocationKind::Vote), votes.clone()),
            (Some(EquivocationKind::Proposal), liar.second_proposals()),
            (None, Misbehaviour { withholds_votes: true, withholds_proposals: true, ..Misbehaviour::default() }),
        ] {
            liar.stop().unwrap();
            liar.start(Some(misbehaviour)).unwrap();
            let load = Load::from(next);
            let goal = async {
                lies_in_turns(&network, &orders, Lie::None, 3, 0, |_| true).await;
                if let Some(kind) = kind {
                    proven(&network, kind).await;
                }
                load.stop();
            };
            tokio::join!(load.run(&network, 4), goal);
            next = load.next.load(std::sync::atomic::Ordering::Relaxed);
            still_sound(&mut network).await;
        }
    }
    let mut report = std::process::Command::new(chopmark_tests::binary());
    report.args(["network", "status", "--json", "--data"]).arg(&network.members[0].folder);
    let report = String::from_utf8(report.output().unwrap().stdout).unwrap();
    assert!(report.contains("equivocations were seen"), "{report}");
    let kept: usize = network.present().iter().map(|member| network.evidence(*member).unwrap().len()).sum();
    tally("what_was_signed_twice_is_kept_as_evidence", &format!("{kept} equivocations kept; {}", network.tally()));
    liar.stop().unwrap();
    network.stop_and_fsck().unwrap();
}
