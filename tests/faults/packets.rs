//! Packets that are lost or refused between the members, by what they are and whom they come from.
//! Only with `LONG=1`, and only where the kernel gives a namespace to whoever asks.
//!
//! The seed decides which faults come, around whom and for how long; which packet it is that is lost
//! at random, the kernel decides.

use std::time::Duration;

use chopmark_tests::{
    cables::{MEMBERS, addresses, at, between, connections, inside, rule},
    members::{Load, Network},
    seeded, tally,
};
use rand::{RngExt as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use tokio::time::{sleep, timeout};

use super::pause;

/// How long the network may take to get on by itself once a quorum is back.
const PATIENCE: Duration = Duration::from_secs(40);

/// What has to be true while a fault lasts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meanwhile {
    /// A quorum meets undisturbed, or nearly so.
    GoesOn,
    /// No quorum meets.
    StandsStill,
    Either,
}
use Meanwhile::{Either, GoesOn, StandsStill};

/// What befalls packets, one thing after the other.
struct Fault {
    phases: Vec<(Vec<String>, &'static str, Duration)>,
    meanwhile: Meanwhile,
}

const LOST: &str = "drop";
const REFUSED: &str = "reject with tcp reset";

impl Fault {
    fn new(matching: Vec<String>, end: &'static str, lasts: Duration, meanwhile: Meanwhile) -> Self {
        Self { phases: vec![(matching, end, lasts)], meanwhile }
    }
}

/// Both ways between some members and the others.
fn both_ways(left: &[usize], right: &[usize], what: &str) -> Vec<String> {
    [(left, right), (right, left)].map(|(from, to)| format!("{} {what}", between(from, to))).to_vec()
}

fn shuffled(random: &mut ChaCha8Rng) -> [usize; MEMBERS] {
    let mut members = [0, 1, 2, 3];
    members.shuffle(random);
    members
}

/// What the members have to say, and how their connections are, for whoever has to find out what went
/// wrong.
async fn said(network: &Network) -> String {
    let mut said = String::new();
    for member in 0..MEMBERS {
        let status = network.status(member).await;
        let connections = connections(member).unwrap_or_else(|error| error.to_string());
        said.push_str(&format!("\nmember {member}: {status:?}\n{connections}\n{}", network.log(member)));
    }
    said
}

/// Starts members, lets each fault befall them under load, and looks at everything after each.
async fn befall(test: &str, mut random: ChaCha8Rng, faults: &[&dyn Fn(&mut ChaCha8Rng) -> Fault], rounds: usize) {
    let mut network = Network::make_direct(&addresses()).await.unwrap();
    for member in 0..MEMBERS {
        network.spawn_by(at(member), member).unwrap();
    }
    network.register_tenant().await.unwrap();
    let mut order: Vec<usize> = (0..faults.len() * rounds).map(|number| number % faults.len()).collect();
    order.shuffle(&mut random);
    let mut met = 0;
    for (round, number) in (0..).zip(order) {
        let fault = faults[number](&mut random);
        tally(test, &format!("round {round}: fault {number}"));
        let load = Load::from(10_000 * round);
        let own = 3_000_000 + 10 * round;
        let befallen = async {
            sleep(pause(&mut random, 100, 800)).await;
            let mut met = 0;
            let pass = async {
                for (matching, end, lasts) in &fault.phases {
                    met += rule(matching, end).unwrap();
                    sleep(*lasts).await;
                }
            };
            let record = network.notarize(own);
            match fault.meanwhile {
                Either => pass.await,
                GoesOn => {
                    let (recorded, ()) = tokio::join!(timeout(PATIENCE, record), pass);
                    let went_on = matches!(recorded, Ok(Ok(_)));
                    assert!(went_on, "fault {number} stopped a quorum: {recorded:?} {}", said(&network).await);
                }
                StandsStill => {
                    // Submitted when the rules are in force.
                    let record = async {
                        sleep(Duration::from_millis(200)).await;
                        record.await
                    };
                    let recorded = tokio::select! {
                        recorded = record => Some(recorded),
                        () = pass => None,
                    };
                    assert!(recorded.is_none(), "no quorum met, and yet: {recorded:?}");
                }
            }
            met += rule(&[], LOST).unwrap();
            let resumed = timeout(PATIENCE, network.notarize(own + 1)).await;
            let goes_on = matches!(resumed, Ok(Ok(_)));
            assert!(goes_on, "fault {number} is over: {resumed:?} {}", said(&network).await);
            load.stop();
            met
        };
        let ((), of_this) = tokio::join!(load.run(&network, 3), befallen);
        assert!(of_this > 0, "fault {number} met no packet");
        met += of_this;
        let checked = timeout(PATIENCE, network.check()).await;
        let sound = matches!(checked, Ok(Ok(_)));
        assert!(sound, "after fault {number}: {checked:?} {}", said(&network).await);
    }
    tally(test, &format!("{} faults, {met} packets; {}", faults.len() * rounds, network.tally()));
    network.stop_and_check_files().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_packet_lost_between_parts_of_the_network() {
    const TEST: &str = "packets::every_packet_lost_between_parts_of_the_network";
    if !inside(TEST).unwrap() {
        return;
    }
    let lost = |matching, random: &mut ChaCha8Rng, meanwhile| {
        Fault::new(matching, LOST, pause(random, 2_000, 10_000), meanwhile)
    };
    let halves = |random: &mut ChaCha8Rng| {
        let [a, b, c, d] = shuffled(random);
        lost(both_ways(&[a, b], &[c, d], ""), random, StandsStill)
    };
    let one_alone = |random: &mut ChaCha8Rng| {
        let [a, b, c, d] = shuffled(random);
        lost(both_ways(&[a], &[b, c, d], ""), random, GoesOn)
    };
    let all_alone = |random: &mut ChaCha8Rng| lost(vec![between(&[0, 1, 2, 3], &[0, 1, 2, 3])], random, StandsStill);
    let half_to_half = |random: &mut ChaCha8Rng| {
        let [a, b, c, d] = shuffled(random);
        lost(vec![between(&[a, b], &[c, d])], random, Either)
    };
    let one_is_deaf = |random: &mut ChaCha8Rng| {
        let [a, b, c, d] = shuffled(random);
        lost(vec![between(&[b, c, d], &[a])], random, GoesOn)
    };
    let one_is_mute = |random: &mut ChaCha8Rng| {
        let [a, b, c, d] = shuffled(random);
        lost(vec![between(&[a], &[b, c, d])], random, GoesOn)
    };
    let flapping = |random: &mut ChaCha8Rng| {
        let mut phases = Vec::new();
        for _ in 0..8 {
            let members = shuffled(random);
            let (left, right) = members.split_at(random.random_range(1..3));
            phases.push((both_ways(left, right, ""), LOST, pause(random, 100, 900)));
            phases.push((Vec::new(), LOST, pause(random, 100, 900)));
        }
        Fault { phases, meanwhile: Either }
    };
    let faults: [&dyn Fn(&mut ChaCha8Rng) -> Fault; 7] =
        [&halves, &one_alone, &all_alone, &half_to_half, &one_is_deaf, &one_is_mute, &flapping];
    befall(TEST, seeded(TEST), &faults, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_lost_at_random() {
    const TEST: &str = "packets::packets_lost_at_random";
    if !inside(TEST).unwrap() {
        return;
    }
    let percent = |percent: u32, random: &mut ChaCha8Rng, meanwhile| {
        let matching = format!("numgen random mod 100 < {percent}");
        Fault::new(vec![matching], LOST, pause(random, 5_000, 15_000), meanwhile)
    };
    let five = |random: &mut ChaCha8Rng| percent(5, random, GoesOn);
    let twenty = |random: &mut ChaCha8Rng| percent(20, random, Either);
    let forty = |random: &mut ChaCha8Rng| percent(40, random, Either);
    befall(TEST, seeded(TEST), &[&five, &twenty, &forty], 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_or_new_connections_lost() {
    const TEST: &str = "packets::acknowledgements_or_new_connections_lost";
    if !inside(TEST).unwrap() {
        return;
    }
    // Without data: header lengths only, options and all.
    const BARE_ACK: &str = "tcp flags == ack ip length < 100";
    const SYN: &str = "tcp flags & (syn | ack) == syn";
    let acks_of_one = |random: &mut ChaCha8Rng| {
        let [a, b, c, d] = shuffled(random);
        let matching = format!("{} {BARE_ACK}", between(&[a], &[b, c, d]));
        Fault::new(vec![matching], LOST, pause(random, 3_000, 10_000), GoesOn)
    };
    let all_acks =
        |random: &mut ChaCha8Rng| Fault::new(vec![BARE_ACK.to_owned()], LOST, pause(random, 3_000, 10_000), Either);
    // Every connection is refused once, and cannot be made again.
    let syns_of_one = |random: &mut ChaCha8Rng| {
        let [a, b, c, d] = shuffled(random);
        let refused = both_ways(&[a], &[b, c, d], "meta l4proto tcp");
        let phases = vec![
            (refused, REFUSED, Duration::from_secs(1)),
            (both_ways(&[a], &[b, c, d], SYN), LOST, pause(random, 3_000, 10_000)),
        ];
        Fault { phases, meanwhile: GoesOn }
    };
    let all_syns = |random: &mut ChaCha8Rng| {
        let phases = vec![
            (vec!["meta l4proto tcp".to_owned()], REFUSED, Duration::from_secs(1)),
            (vec![SYN.to_owned()], LOST, pause(random, 3_000, 10_000)),
        ];
        Fault { phases, meanwhile: Either }
    };
    befall(TEST, seeded(TEST), &[&acks_of_one, &all_acks, &syns_of_one, &all_syns], 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn storms_of_resets() {
    const TEST: &str = "packets::storms_of_resets";
    if !inside(TEST).unwrap() {
        return;
    }
    let around_one = |random: &mut ChaCha8Rng| {
        let [a, b, c, d] = shuffled(random);
        let matching = both_ways(&[a], &[b, c, d], "meta l4proto tcp");
        Fault::new(matching, REFUSED, pause(random, 2_000, 8_000), GoesOn)
    };
    let now_and_then = |random: &mut ChaCha8Rng| {
        let matching = "meta l4proto tcp numgen random mod 100 < 3".to_owned();
        Fault::new(vec![matching], REFUSED, pause(random, 2_000, 8_000), Either)
    };
    let everywhere = |random: &mut ChaCha8Rng| {
        let matching = "meta l4proto tcp".to_owned();
        Fault::new(vec![matching], REFUSED, pause(random, 2_000, 8_000), StandsStill)
    };
    befall(TEST, seeded(TEST), &[&around_one, &now_and_then, &everywhere], 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_packets_lost() {
    const TEST: &str = "packets::large_packets_lost";
    if !inside(TEST).unwrap() {
        return;
    }
    // A way that carries less than it promises, and does not say so.
    let around_one = |random: &mut ChaCha8Rng| {
        let [a, b, c, d] = shuffled(random);
        let matching = both_ways(&[a], &[b, c, d], "ip length > 1000");
        Fault::new(matching, LOST, pause(random, 3_000, 10_000), GoesOn)
    };
    let everywhere = |random: &mut ChaCha8Rng| {
        Fault::new(vec!["ip length > 1000".to_owned()], LOST, pause(random, 3_000, 10_000), Either)
    };
    befall(TEST, seeded(TEST), &[&around_one, &everywhere], 3).await;
}
