//! Nodes that lie: one test for every check. Each loop must stop, and project nothing.

use std::sync::Arc;

use chopmark_committer::{CheckError, CommitterError, ProjectLoop};
use ledger_core::{
    Hash32,
    merkle::TreeSize,
    operation::{Operation, SignedOperation},
    outcome::{Outcome, RejectionCode, Verdict, outcomes_root},
    verify::{Check, Missing, Verdict as Verification},
    vote::CertificateError,
};

use crate::doubles::{GENESIS_TIME, Lying, World, certify, genesis, members_of, run_until, signed_checkpoint};

/// Height of the block that is tampered with: evidence 1 to 3, between other blocks.
const TAMPERED: u64 = 3;

fn world() -> World {
    let world = World::with(4, 1);
    world.decide_evidence([9]);
    world.decide_evidence([1, 2, 3]);
    world.decide_evidence([4]);
    world
}

/// Follows a lying node; gives the height and the check that stopped the loop.
async fn stopped_by(lie: impl FnOnce(Lying) -> Lying) -> (u64, CheckError) {
    let world = world();
    let result = follow(&world, lie(Lying::new(&world.ledger))).await;
    assert!(world.store.projected().is_empty(), "nothing may be projected");
    let Err(CommitterError::Check { height, check }) = result else { panic!("{result:?}") };
    (height, check)
}

async fn follow(world: &World, reader: Lying) -> Result<(), CommitterError> {
    let genesis = world.ledger.genesis.clone();
    let project = ProjectLoop::new(Arc::new(reader), world.store.clone(), genesis, world.project.clone());
    run_until(|stop| project.run(stop), || world.is_projected()).await
}

/// Changes the tampered block and, as a colluding quorum would, signs the new header.
async fn stopped_with_quorum(
    change: impl Fn(&mut chopmark_domain::ports::LedgerBlock) + Send + Sync + 'static,
) -> CheckError {
    let lie = |node: Lying| {
        node.block(TAMPERED, move |ledger, block| {
            change(block);
            certify(&ledger.chain_id(), &mut block.block, &ledger.members_at(TAMPERED));
        })
    };
    let (height, check) = stopped_by(lie).await;
    assert_eq!(height, TAMPERED);
    check
}

/// Changes the tampered block and leaves the certificate.
async fn stopped_without_quorum(
    change: impl Fn(&mut chopmark_domain::ports::LedgerBlock) + Send + Sync + 'static,
) -> CheckError {
    let (height, check) = stopped_by(|node| node.block(TAMPERED, move |_, block| change(block))).await;
    assert_eq!(height, TAMPERED);
    check
}

#[tokio::test(start_paused = true)]
async fn an_honest_node_is_followed() {
    let world = world();
    follow(&world, Lying::new(&world.ledger)).await.unwrap();
    assert_eq!(world.store.projected().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_flipped_previous_header() {
    let check = stopped_with_quorum(|block| block.block.header.previous.0[7] ^= 1).await;
    assert_eq!(check, CheckError::Previous);
}

#[tokio::test(start_paused = true)]
async fn a_replayed_old_height() {
    let replay = |node: Lying| node.block(TAMPERED, |ledger, block| *block = ledger.block_at(TAMPERED - 1));
    assert_eq!(stopped_by(replay).await, (TAMPERED, CheckError::Height(TAMPERED - 1)));
}

#[tokio::test(start_paused = true)]
async fn a_skipped_height() {
    let skip = |node: Lying| node.blocks(|_, blocks| drop(blocks.remove(1)));
    assert_eq!(stopped_by(skip).await, (2, CheckError::Height(3)));
}

/// Blocks beyond the checkpoint, good as they are, are not covered by it.
#[tokio::test(start_paused = true)]
async fn more_blocks_than_asked_for() {
    let more = |node: Lying| {
        node.status(|ledger, status| *status = ledger.status_at(2, &ledger.members_at(2)))
            .blocks(|ledger, blocks| blocks.push(ledger.block_at(3)))
    };
    assert_eq!(stopped_by(more).await, (1, CheckError::Height(3)));
}

#[tokio::test(start_paused = true)]
async fn another_chain() {
    assert_eq!(stopped_with_quorum(|block| block.block.header.chain = Hash32::ZERO).await, CheckError::Chain);
    // A ledger with the same members and another genesis.
    let world = world();
    let mut other = genesis(members_of(1..=4));
    other.time = GENESIS_TIME - 1;
    let project = ProjectLoop::new(world.ledger.clone(), world.store.clone(), other, world.project.clone());
    let error = run_until(|stop| project.run(stop), || false).await.unwrap_err();
    assert_eq!(error.label(), "previous");
    assert!(world.store.projected().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_time_that_runs_backwards() {
    let check = stopped_with_quorum(|block| block.block.header.time = GENESIS_TIME).await;
    assert_eq!(check, CheckError::Time);
}

#[tokio::test(start_paused = true)]
async fn other_members() {
    let check = stopped_with_quorum(|block| block.block.header.members = members_of(5..=8).hash()).await;
    assert_eq!(check, CheckError::Members);
    let check = stopped_with_quorum(|block| block.block.header.next_members = members_of(5..=8).hash()).await;
    assert_eq!(check, CheckError::Members);
}

#[tokio::test(start_paused = true)]
async fn a_certificate_of_another_header() {
    let check = stopped_without_quorum(|block| block.block.header.changes.0[0] ^= 1).await;
    assert_eq!(check, CheckError::Certificate(CertificateError::Subject));
    let other = |node: Lying| {
        node.block(TAMPERED, |ledger, block| block.block.certificate = ledger.block_at(4).block.certificate)
    };
    assert_eq!(stopped_by(other).await, (TAMPERED, CheckError::Certificate(CertificateError::Subject)));
}

#[tokio::test(start_paused = true)]
async fn a_certificate_of_other_validators() {
    let others = |node: Lying| {
        node.block(TAMPERED, |ledger, block| certify(&ledger.chain_id(), &mut block.block, &members_of(5..=8)))
    };
    assert_eq!(stopped_by(others).await, (TAMPERED, CheckError::Certificate(CertificateError::Validator)));
}

#[tokio::test(start_paused = true)]
async fn a_certificate_with_a_wrong_signature() {
    let check = stopped_without_quorum(|block| {
        let signatures = &mut block.block.certificate.signatures;
        signatures[0].signature = signatures[1].signature.clone();
    });
    assert_eq!(check.await, CheckError::Certificate(CertificateError::Signature));
}

#[tokio::test(start_paused = true)]
async fn a_certificate_without_quorum() {
    let check = stopped_without_quorum(|block| block.block.certificate.signatures.truncate(2)).await;
    assert_eq!(check, CheckError::Certificate(CertificateError::Quorum));
    let check = stopped_without_quorum(|block| {
        let signatures = &mut block.block.certificate.signatures;
        *signatures = vec![signatures[0].clone(); 4];
    });
    assert_eq!(check.await, CheckError::Certificate(CertificateError::Validator), "one vote four times");
}

#[tokio::test(start_paused = true)]
async fn another_batch() {
    let check = stopped_without_quorum(|block| {
        let text = b"4711";
        let at = block.block.batch.windows(4).position(|window| window == text).unwrap();
        block.block.batch[at] = b'5';
    });
    assert_eq!(check.await, CheckError::Batch);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_outcomes_root() {
    let check = stopped_with_quorum(|block| block.block.header.outcomes.0[31] ^= 1).await;
    assert_eq!(check, CheckError::Outcomes);
}

#[tokio::test(start_paused = true)]
async fn other_verdicts() {
    let rejected = Verdict::Rejected(RejectionCode::TenantSuspended);
    let check = stopped_without_quorum(move |block| block.block.verdicts[1] = rejected).await;
    assert_eq!(check, CheckError::Outcomes);
    let check = stopped_without_quorum(|block| block.block.verdicts.swap(0, 1)).await;
    assert_eq!(check, CheckError::Outcomes);
    let check = stopped_without_quorum(|block| block.block.verdicts.truncate(2)).await;
    assert_eq!(check, CheckError::Outcomes);
    let check = stopped_without_quorum(move |block| block.block.verdicts.push(rejected)).await;
    assert_eq!(check, CheckError::Outcomes);
}

#[tokio::test(start_paused = true)]
async fn a_changed_entry() {
    let check = stopped_without_quorum(|block| block.entries[1].push(b' ')).await;
    assert_eq!(check, CheckError::Entry(5));
    let check = stopped_without_quorum(|block| block.entries.swap(0, 2)).await;
    assert_eq!(check, CheckError::Entry(4));
}

#[tokio::test(start_paused = true)]
async fn a_verdict_with_another_index() {
    let check = stopped_with_quorum(|block| {
        let block = &mut block.block;
        if let Verdict::Committed { index, .. } = &mut block.verdicts[1] {
            *index += 1;
        }
        let batch = block.decode_batch().unwrap();
        let outcome = |(signed, verdict): (&SignedOperation, &Verdict)| {
            let common = Operation::parse(&signed.operation).unwrap().common();
            Outcome { op: common.op, request: common.request, verdict: *verdict }
        };
        let outcomes: Vec<Outcome> = batch.operations().zip(&block.verdicts).map(outcome).collect();
        block.header.outcomes = outcomes_root(&outcomes);
    });
    assert_eq!(check.await, CheckError::Entry(6));
}

#[tokio::test(start_paused = true)]
async fn an_extra_or_missing_entry() {
    let check = stopped_without_quorum(|block| block.entries.push(block.entries[0].clone())).await;
    assert_eq!(check, CheckError::Entries);
    let check = stopped_without_quorum(|block| drop(block.entries.pop())).await;
    assert_eq!(check, CheckError::Entries);
}

#[tokio::test(start_paused = true)]
async fn another_root_or_tree_size() {
    assert_eq!(stopped_with_quorum(|block| block.block.header.root.0[0] ^= 1).await, CheckError::Root);
    assert_eq!(stopped_with_quorum(|block| block.block.header.tree_size += 1).await, CheckError::Root);
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_is_no_note() {
    let lie = |node: Lying| node.status(|_, status| status.checkpoint = "nonsense".to_owned());
    let (_, check) = stopped_by(lie).await;
    assert_eq!(check, CheckError::Checkpoint(Verification::Invalid(Check::Checkpoint)));
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_says_something_else_than_the_status() {
    let (_, check) = stopped_by(|node| node.status(|_, status| status.root.0[0] ^= 1)).await;
    assert_eq!(check, CheckError::Status);
    let (_, check) = stopped_by(|node| node.status(|_, status| status.size = TreeSize(status.size.0 + 1))).await;
    assert_eq!(check, CheckError::Status);
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_with_another_root() {
    let lie = |node: Lying| {
        node.status(|ledger, status| {
            status.root = Hash32([6; 32]);
            status.checkpoint =
                signed_checkpoint(&ledger.genesis.origin, status.size, status.root, &ledger.members_at(4));
        })
    };
    assert_eq!(stopped_by(lie).await, (4, CheckError::CheckpointRoot));
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_of_another_log() {
    let lie = |node: Lying| {
        node.status(|ledger, status| {
            status.checkpoint = signed_checkpoint("other.example/log", status.size, status.root, &ledger.members_at(4));
        })
    };
    let (_, check) = stopped_by(lie).await;
    assert_eq!(check, CheckError::Checkpoint(Verification::Invalid(Check::Origin)));
}

/// Keeps the first `keep` signature lines of the note; four members have eight.
fn keep_lines(note: &str, keep: usize) -> String {
    let (text, lines) = note.split_once("\n\n").unwrap();
    let kept: String = lines.lines().take(keep).flat_map(|line| [line, "\n"]).collect();
    format!("{text}\n\n{kept}")
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_without_quorum() {
    let (_, check) =
        stopped_by(|node| node.status(|_, status| status.checkpoint = keep_lines(&status.checkpoint, 4))).await;
    assert_eq!(check, CheckError::Checkpoint(Verification::Incomplete(Missing::Quorum)));
    let strangers = |node: Lying| node.status(|ledger, status| *status = ledger.status_at(4, &members_of(5..=8)));
    let (_, check) = stopped_by(strangers).await;
    assert_eq!(check, CheckError::Checkpoint(Verification::Incomplete(Missing::Log)));
}

#[tokio::test(start_paused = true)]
async fn three_of_four_are_a_quorum() {
    let world = world();
    let reader = Lying::new(&world.ledger)
        .status(|_, status| status.checkpoint = keep_lines(&status.checkpoint, 6))
        .blocks(|_, blocks| blocks.iter_mut().for_each(|block| block.block.certificate.signatures.truncate(3)));
    follow(&world, reader).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_with_a_wrong_signature() {
    let lie = |node: Lying| {
        node.status(|ledger, status| {
            let other = ledger.status_at(2, &ledger.members_at(2)).checkpoint;
            let text = status.checkpoint.split_once("\n\n").unwrap().0;
            status.checkpoint = format!("{text}\n\n{}", other.split_once("\n\n").unwrap().1);
        })
    };
    let (_, check) = stopped_by(lie).await;
    assert_eq!(check, CheckError::Checkpoint(Verification::Invalid(Check::Signature)));
}

/// A checkpoint at the projected height with another root, after everything was projected.
#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_contradicts_what_is_projected() {
    let world = world();
    world.project_all().await;
    let reader = Lying::new(&world.ledger).status(|_, status| status.root = Hash32([6; 32]));
    let genesis = world.ledger.genesis.clone();
    let project = ProjectLoop::new(Arc::new(reader), world.store.clone(), genesis, world.project.clone());
    let result = run_until(|stop| project.run(stop), || false).await;
    assert!(
        matches!(result, Err(CommitterError::Check { height: 4, check: CheckError::CheckpointRoot })),
        "{result:?}"
    );
    assert_eq!(world.store.projected().len(), 4);
}

/// What was projected before the lie stays, and an honest node is followed from there.
#[tokio::test(start_paused = true)]
async fn after_a_lie_an_honest_node_is_followed() {
    let mut world = world();
    world.project.blocks_per_fetch = 1;
    let reader = Lying::new(&world.ledger).block(TAMPERED, |_, block| block.entries[0].push(b' '));
    follow(&world, reader).await.unwrap_err();
    assert_eq!(world.store.cursor_height(), TAMPERED - 1);
    world.project_all().await;
    assert_eq!(world.store.projected().len(), 4);
}
