//! The submit loop in good and in ordinary times.

use std::time::Duration;

use chopmark_committer::CommitterError;
use chopmark_domain::{ports::PortError, record::OperationState};
use ledger_core::{Hash32, operation::operation_hash, outcome::RejectionCode};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::doubles::{Fault, Mode, World, run_until};

#[tokio::test(start_paused = true)]
async fn every_message_ends_once_with_its_row_and_private_part() {
    let world = World::new();
    world.publish_evidence(10);
    world.submit_all().await;
    for op in 1..=10 {
        world.check_ended_once(op);
        let (message, id) = (world.evidence(op, op), Hash32([op; 32]));
        let row = world.store.row(&id).unwrap();
        assert_eq!((row.request, row.state), (message.request_digest, OperationState::Accepted));
        assert_eq!(row.operation_hash, operation_hash(&message.operation));
        assert!(world.store.has_private(&id, &row.operation_hash));
        assert!(!row.conflicted);
    }
    assert_eq!(world.queue.committed(0), 10);
    assert!(world.queue.dead().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_rejection_is_an_outcome() {
    let world = World::new();
    world.publish(&world.evidence_of("ten_nobody", 1, 1));
    world.submit_all().await;
    let outcome = world.ledger.outcome(&Hash32([1; 32])).unwrap();
    assert_eq!(outcome.result, Err(RejectionCode::TenantUnknown));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_gives_full_batches_at_once() {
    let mut world = World::new();
    world.submit.batch_operations_max = 4;
    world.publish_evidence(10);
    let started = Instant::now();
    world.submit_all().await;
    assert_eq!(world.ledger.submissions(), [4, 4, 2]);
    assert!(started.elapsed() < Duration::from_millis(200), "took {:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_submission_is_bounded_in_bytes_and_never_empty() {
    let mut world = World::new();
    let bytes = world.evidence(1, 1).operation.len();
    world.submit.submission_bytes_max = 2 * bytes;
    world.publish_evidence(5);
    world.submit_all().await;
    assert_eq!(world.ledger.submissions(), [2, 2, 1]);

    world.submit.submission_bytes_max = 1;
    (11..=13).for_each(|op| world.publish(&world.evidence(op, op)));
    world.submit_all().await;
    assert_eq!(world.ledger.submissions()[3..], [1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_message_delivered_twice_in_one_batch_is_submitted_once() {
    let world = World::new();
    (0..3).for_each(|_| world.publish(&world.evidence(1, 1)));
    world.publish_evidence(2);
    world.submit_all().await;
    assert_eq!(world.ledger.submissions(), [2]);
    world.check_ended_once(1);
    assert!(!world.store.row(&Hash32([1; 32])).unwrap().conflicted);
}

#[tokio::test(start_paused = true)]
async fn positions_are_committed_in_order_though_later_batches_end_first() {
    let mut world = World::new();
    world.submit.batch_operations_max = 2;
    world.publish_evidence(6);
    world.ledger.slow_down(1, Duration::from_secs(1));
    let early = run_until(
        |stop| world.submit_loop().run(stop),
        || {
            let later_ended = world.ledger.outcome(&Hash32([6; 32])).is_some();
            let first_ended = world.ledger.outcome(&Hash32([1; 32])).is_some();
            assert!(first_ended || world.queue.committed(0) == 0, "a later batch was committed first");
            later_ended && world.queue.is_done()
        },
    );
    early.await.unwrap();
    let commits = world.queue.commits();
    assert_eq!(commits.len(), 1, "what had landed is committed together: {commits:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stalled_ledger_leaves_the_load_in_the_queue() {
    let mut world = World::new();
    (world.submit.batch_operations_max, world.submit.batches_in_flight_max) = (4, 3);
    world.publish_evidence(100);
    world.ledger.stall(true);
    let started = Instant::now();
    let filled = || started.elapsed() > Duration::from_secs(30);
    // Stopping gives up on what is under way after the drain time.
    run_until(|stop| world.submit_loop().run(stop), filled).await.unwrap();
    assert_eq!(world.ledger.submissions(), [4, 4, 4]);
    assert_eq!(world.queue.committed(0), 0);

    world.ledger.stall(false);
    world.submit_all().await;
    (1..=100).for_each(|op| world.check_ended_once(op));
}

#[tokio::test(start_paused = true)]
async fn bytes_under_way_are_bounded() {
    let mut world = World::new();
    (world.submit.batch_operations_max, world.submit.in_flight_bytes_max) = (1, 1);
    world.publish_evidence(3);
    world.ledger.stall(true);
    let started = Instant::now();
    run_until(|stop| world.submit_loop().run(stop), || started.elapsed() > Duration::from_secs(5)).await.unwrap();
    assert_eq!(world.ledger.submissions(), [1]);
}

#[tokio::test(start_paused = true)]
async fn stopping_finishes_and_commits_what_is_under_way() {
    let world = World::new();
    world.publish_evidence(3);
    world.ledger.slow_down(1, Duration::from_secs(2));
    let (started, stop) = (Instant::now(), CancellationToken::new());
    let stopper = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.publish(&world.evidence(9, 9));
        stop.cancel();
    };
    let (result, ()) = tokio::join!(world.submit_loop().run(stop.clone()), stopper);
    result.unwrap();
    assert!(started.elapsed() < Duration::from_millis(2_100), "took {:?}", started.elapsed());
    assert_eq!(world.queue.committed(0), 3, "what is under way is committed, nothing more is taken");
}

#[tokio::test(start_paused = true)]
async fn stopping_does_not_wait_for_ever() {
    let world = World::new();
    world.publish_evidence(3);
    world.ledger.stall(true);
    let started = Instant::now();
    run_until(|stop| world.submit_loop().run(stop), || started.elapsed() > Duration::from_secs(1)).await.unwrap();
    let limit = world.submit.drain_timeout + Duration::from_millis(1_100);
    assert!(started.elapsed() < limit, "took {:?}", started.elapsed());
    assert_eq!(world.queue.committed(0), 0);
}

#[tokio::test(start_paused = true)]
async fn two_requests_under_one_id_in_one_batch_conflict() {
    let world = World::new();
    let id = Hash32([1; 32]);
    [5, 6, 6, 7].into_iter().for_each(|request| world.publish(&world.evidence(1, request)));
    world.submit_all().await;
    world.check_ended_once(1);
    assert_eq!(world.ledger.outcome(&id).unwrap().request, Hash32([5; 32]), "the first in the queue wins");
    let row = world.store.row(&id).unwrap();
    assert_eq!((row.request, row.conflicted), (Hash32([5; 32]), true));
    for request in [5, 6, 7] {
        let hash = operation_hash(&world.evidence(1, request).operation);
        assert!(world.store.has_private(&id, &hash), "the private part of every attempt is kept until projection");
    }
    // And after projection too.
    world.project_all().await;
    assert!(world.store.row(&id).unwrap().conflicted);
}

#[tokio::test(start_paused = true)]
async fn another_attempt_at_the_same_request_is_no_conflict() {
    let world = World::new();
    world.publish(&world.evidence(1, 1));
    let mut again = world.evidence(1, 1);
    let text = String::from_utf8(again.operation).unwrap().replace("4711", "4712");
    again.operation = text.into_bytes();
    world.publish(&again);
    world.submit_all().await;
    world.check_ended_once(1);
    assert!(!world.store.row(&Hash32([1; 32])).unwrap().conflicted);
}

/// The winner came another way and its row by projection, before the loser was seen.
#[tokio::test(start_paused = true)]
async fn a_loser_after_the_winners_projection_is_marked() {
    let world = World::new();
    world.decide_evidence([1]);
    world.project_all().await;
    world.publish(&world.evidence(1, 99));
    world.submit_all().await;
    let row = world.store.row(&Hash32([1; 32])).unwrap();
    assert_eq!((row.request, row.conflicted), (Hash32([1; 32]), true));
}

/// The loser's row is there first; projection makes it the winner's without marking it, while
/// the loser waits for its outcome.
#[tokio::test(start_paused = true)]
async fn a_loser_overtaken_by_the_winners_projection_is_marked() {
    let world = World::new();
    world.decide_evidence([1]);
    world.publish(&world.evidence(1, 99));
    world.ledger.slow_down(1, Duration::from_secs(5));
    let id = Hash32([1; 32]);
    let project = async {
        while world.store.row(&id).is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(world.store.row(&id).unwrap().request, Hash32([99; 32]));
        world.project_all().await;
        let row = world.store.row(&id).unwrap();
        assert_eq!((row.request, row.conflicted), (Hash32([1; 32]), false), "this double does not mark");
    };
    tokio::join!(world.submit_all(), project);
    let row = world.store.row(&id).unwrap();
    assert_eq!((row.request, row.conflicted), (Hash32([1; 32]), true));
}

/// The loser has its outcome before the winner is projected.
#[tokio::test(start_paused = true)]
async fn a_loser_before_the_winners_projection_is_marked() {
    let world = World::new();
    world.decide_evidence([1]);
    world.publish(&world.evidence(1, 99));
    world.submit_all().await;
    assert!(world.store.row(&Hash32([1; 32])).unwrap().conflicted);
    world.project_all().await;
    let row = world.store.row(&Hash32([1; 32])).unwrap();
    assert_eq!((row.request, row.conflicted), (Hash32([1; 32]), true));
}

/// Projection comes between the two insertions that mark the conflict.
#[tokio::test(start_paused = true)]
async fn a_projection_in_the_middle_of_marking_escapes_nothing() {
    let world = World::new();
    world.decide_evidence([1]);
    world.publish(&world.evidence(1, 99));
    // The first insertion is the loser's own; the second and the third mark.
    world.store.slow_insert(3, Duration::from_secs(5));
    let project = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.project_all().await;
    };
    tokio::join!(world.submit_all(), project);
    let row = world.store.row(&Hash32([1; 32])).unwrap();
    assert_eq!((row.request, row.conflicted), (Hash32([1; 32]), true));
}

/// A poll that hangs may hold messages: the loop must end, or a later commit could lose them.
#[tokio::test(start_paused = true)]
async fn a_poll_that_hangs_ends_the_loop() {
    for at in [1, 2] {
        let world = World::new();
        world.publish_evidence(3);
        let submit = world.faulty_submit_loop(&Fault::new(Mode::KillBefore, at), world.queue.consumer([0]));
        let result = run_until(|stop| submit.run(stop), || false).await;
        assert!(matches!(result, Err(CommitterError::Port(PortError::Broken { port: "queue", .. }))), "{result:?}");
        assert_eq!(world.queue.committed(0), 0);
        world.submit_all().await;
        (1..=3).for_each(|op| world.check_ended_once(op));
    }
}
