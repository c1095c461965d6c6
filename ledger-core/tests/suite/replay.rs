//! Random histories: executed twice, replayed from the genesis, and looked over as a whole.

use std::collections::{BTreeMap, BTreeSet};

use ledger_core::{
    Hash32,
    batch::Batch,
    entry::ENTRY_BYTES_MAX,
    execute::{Executed, Parent, execute, execute_genesis},
    json::Value,
    merkle::{Frontier, root_at},
    operation::{Operation, SignedOperation, TenantStatus},
    outcome::{Verdict, outcomes_root},
    state::{StateDigest, apply_changes, changes_digest, members, operation_record},
};
use proptest::prelude::*;

use crate::support::{Ledger, MemberKeys, changed_keys, consortium, genesis_of, id, public, signing_key};

/// One step: what kind of operation, and three small numbers that fill it.
type Step = (u8, u8, u8, u8);

const TENANTS: [&str; 4] = ["ten_a", "ten_b", "ten_c", "ten_d"];

/// What `step` asks for; `made` are the kinds and ids of the operations before it.
fn operation(ledger: &Ledger, label: &str, (kind, a, b, c): Step, made: &[(u8, Hash32)]) -> SignedOperation {
    let tenant = TENANTS[usize::from(a) % 4];
    // Mostly one of the right kind, sometimes any.
    let pick = |right: std::ops::RangeInclusive<u8>, at: u8| {
        let fit: Vec<Hash32> = made
            .iter()
            .filter(|(kind, _)| at.is_multiple_of(7) || right.contains(&(kind % 10)))
            .map(|(_, op)| *op)
            .collect();
        fit.get(usize::from(at) % fit.len().max(1)).copied().unwrap_or_default()
    };
    let approvals = usize::from(c) % (ledger.members.len() + 1);
    let own = signing_key(tenant);
    let signed = |operation: SignedOperation| match c % 3 {
        0 => operation,
        _ => ledger.signed_by_tenant(operation, &own),
    };
    match kind % 10 {
        0..=2 => signed(ledger.evidence(label, tenant)),
        3 => signed(ledger.case_open(label, tenant)),
        4 | 5 => signed(ledger.case_append(label, tenant, pick(3..=3, b), pick(0..=2, c))),
        6 => signed(ledger.redigest(label, tenant, pick(0..=2, b))),
        7 => {
            let change = ledger.tenant_change(label, tenant, |o| {
                o.tier = 1 + b % 3;
                o.status = if b & 8 == 0 { TenantStatus::Active } else { TenantStatus::Suspended };
                o.key = (b & 16 != 0).then(|| public(&own));
                o.expires = ledger.parent.height + u64::from(c % 4);
            });
            ledger.approved(change, approvals)
        }
        8 => {
            ledger.approved(ledger.policy_change(label, |o| o.policy.transfers_per_item_per_day = b.into()), approvals)
        }
        _ => ledger.approved(ledger.members_change(label, &consortium(1 + b % 5)), approvals),
    }
}

/// Runs a history; every block is executed twice.
fn run(steps: &[Vec<Step>]) -> (Ledger, Vec<Executed>) {
    let mut ledger = Ledger::with_tenant(3);
    let (mut made, mut done): (Vec<(u8, Hash32)>, Vec<Executed>) = (Vec::new(), Vec::new());
    for (height, block) in steps.iter().enumerate() {
        let operations: Vec<SignedOperation> = block
            .iter()
            .enumerate()
            .map(|(at, step)| operation(&ledger, &format!("{height} {at}"), *step, &made))
            .collect();
        made.extend(block.iter().enumerate().map(|(at, step)| (step.0, id(&format!("{height} {at}")))));
        // Whoever is in force now submits, or a new set that takes over in this block.
        let in_force: Vec<MemberKeys> = consortium(6);
        let mut executed = None;
        for submitter in &in_force {
            ledger.members[0] = submitter.clone();
            if let Ok(first) = ledger.attempt(&ledger.batch_of(operations.clone())) {
                let again = ledger.attempt(&ledger.batch_of(operations.clone())).expect("the same again");
                assert_eq!(
                    (&first.header, &first.entries, &first.changes),
                    (&again.header, &again.entries, &again.changes)
                );
                executed = Some(ledger.block(operations.clone()));
                break;
            }
        }
        done.push(executed.expect("some member submits"));
        let count = u8::try_from(members(&ledger.state).expect("members").len()).expect("few members");
        ledger.members = consortium(count);
    }
    (ledger, done)
}

fn state_digest(state: &BTreeMap<Vec<u8>, Vec<u8>>) -> Hash32 {
    let mut digest = StateDigest::default();
    state.iter().for_each(|(key, value)| digest.update(key, value));
    digest.finish()
}

fn check(steps: &[Vec<Step>]) {
    let (ledger, done) = run(steps);

    // The blocks alone rebuild the state, the log and every header.
    let genesis = genesis_of(&consortium(3));
    let first = execute_genesis(&genesis);
    let mut state = BTreeMap::new();
    let mut parent =
        Parent { height: 0, time: genesis.time, hash: first.header.hash(), frontier: first.frontier.clone() };
    apply_changes(&mut state, first.changes);
    for (batch, header) in &ledger.blocks {
        let executed = execute(&state, &parent, &ledger.chain, batch, header.time, None).expect("a decided batch");
        assert_eq!(executed.header, *header);
        assert_eq!(header.previous, parent.hash);
        apply_changes(&mut state, executed.changes);
        parent = Parent { height: header.height, time: header.time, hash: header.hash(), frontier: executed.frontier };
    }
    assert_eq!((&state, state_digest(&state)), (&ledger.state, ledger.state_digest()));
    assert_eq!(parent, ledger.parent);

    // The log is the tree over all entries, each of them canonical and named once.
    let Ok(root) = root_at(ledger.parent.frontier.size(), ledger.leaves.as_slice());
    assert_eq!(root, ledger.parent.frontier.root());
    assert_eq!(
        Frontier::load(ledger.parent.frontier.size(), ledger.leaves.as_slice()),
        Ok(ledger.parent.frontier.clone())
    );
    let mut ops = BTreeSet::new();
    for entry in &ledger.entries {
        let value = Value::parse(entry).expect("a canonical entry");
        assert!(entry.len() <= ENTRY_BYTES_MAX);
        assert!(value.get("op").is_none_or(|op| ops.insert(op.as_str().expect("an id").to_owned())));
    }

    // Every operation has one outcome; a rejection changes nothing but its own record.
    for (executed, (batch, _)) in done.iter().zip(&ledger.blocks[1..]) {
        let batch = Batch::decode(batch).expect("a batch");
        assert_eq!(executed.outcomes.len(), batch.operations().count());
        assert_eq!(executed.header.outcomes, outcomes_root(&executed.outcomes));
        assert_eq!(executed.header.changes, changes_digest(&executed.changes));
        for (outcome, signed) in executed.outcomes.iter().zip(batch.operations()) {
            let common = Operation::parse(&signed.operation).expect("an operation").common();
            assert_eq!((outcome.op, outcome.request), (common.op, common.request));
            let record = operation_record(&ledger.state, &outcome.op).expect("readable").expect("recorded");
            match outcome.verdict {
                Verdict::Committed { index, .. } => assert_eq!(record.result, Ok(index)),
                Verdict::Rejected(code) => assert_eq!(record.result, Err(code)),
            }
        }
        let rejected = |outcome: &&ledger_core::outcome::Outcome| matches!(outcome.verdict, Verdict::Rejected(_));
        if executed.outcomes.iter().all(|outcome| rejected(&outcome)) {
            let mut own: Vec<String> = executed.outcomes.iter().map(|outcome| format!("o{}", outcome.op)).collect();
            own.sort();
            let others: Vec<String> =
                changed_keys(&executed.changes).into_iter().filter(|key| !own.contains(key)).collect();
            // Only members that take over change the state beside the records.
            assert!(others.is_empty() || others == ["m", "n"], "{others:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_history_replays_to_the_same_state(
        steps in prop::collection::vec(prop::collection::vec(any::<Step>(), 0..6), 1..14),
    ) {
        check(&steps);
    }

    #[test]
    fn leaving_out_a_rejected_operation_changes_only_records(
        block in prop::collection::vec(any::<Step>(), 1..10), before in prop::collection::vec(any::<Step>(), 0..8),
    ) {
        let made: Vec<_> = before.iter().enumerate().map(|(at, step)| (step.0, id(&format!("0 {at}")))).collect();
        let (ledger, _) = run(&[before]);
        let operations: Vec<_> = block.iter().enumerate()
            .map(|(at, step)| operation(&ledger, &format!("1 {at}"), *step, &made)).collect();
        let whole = ledger.attempt(&ledger.batch_of(operations.clone())).unwrap();
        let kept: Vec<_> = operations.into_iter().zip(&whole.outcomes)
            .filter(|(_, outcome)| matches!(outcome.verdict, Verdict::Committed { .. })).map(|(operation, _)| operation).collect();
        let without = ledger.attempt(&ledger.batch_of(kept)).unwrap();
        prop_assert_eq!(&whole.entries, &without.entries);
        let mut changes = whole.changes.clone();
        for outcome in &whole.outcomes {
            if matches!(outcome.verdict, Verdict::Rejected(_)) {
                prop_assert!(changes.remove(&ledger_core::state::key::operation(&outcome.op)).is_some());
            }
        }
        prop_assert_eq!(changes, without.changes);
    }
}
