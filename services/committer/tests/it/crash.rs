//! A fault at every port call: for n = 1, 2, … the process dies at its n-th call (before or after
//! its effect), or that call fails; then a new process starts on the same durable doubles. What
//! was published must have ended exactly once, be committed, and be projected once.

use ledger_core::Hash32;

use crate::doubles::{Fault, Mode, World, case_append, case_open, message, run_until};

/// More calls than any of these runs makes.
const CALLS_MAX: usize = 400;

fn world() -> World {
    let mut world = World::new();
    (world.submit.batch_operations_max, world.submit.batches_in_flight_max) = (4, 2);
    world.project.blocks_per_fetch = 2;
    world
}

/// Fourteen messages: good ones, a repeat, a conflict, a rejection, and three kinds of poison.
fn publish(world: &World) {
    world.ledger.call_malformed(6);
    world.publish_evidence(7);
    world.publish(&world.evidence(2, 2));
    world.publish(&world.evidence(3, 33));
    world.queue.publish(0, b"poison".to_vec());
    world.publish(&world.evidence_of("ten_nobody", 8, 8));
    let mut differs = world.evidence(9, 9);
    differs.request_digest = Hash32([10; 32]);
    world.publish(&differs);
    world.publish(&message(case_open(world.ledger.chain_id(), 20)));
    world.publish(&message(case_append(world.ledger.chain_id(), 21, 20, 1)));
}

fn check_submitted(world: &World) {
    assert!(world.queue.is_done());
    assert_eq!(world.queue.dead_offsets(), [5, 9, 11]);
    [1, 2, 3, 4, 5, 7, 8, 20, 21].into_iter().for_each(|op| world.check_ended_once(op));
    [6, 9].into_iter().for_each(|op| assert_eq!(world.ledger.times_decided(&Hash32([op; 32])), 0));
    assert!(world.store.row(&Hash32([3; 32])).unwrap().conflicted);
    assert!(!world.store.row(&Hash32([2; 32])).unwrap().conflicted);
}

fn check_projected(world: &World) {
    let projected = world.store.projected();
    let heights: Vec<u64> = projected.iter().map(|block| block.height).collect();
    assert_eq!(heights, (1..=world.ledger.height()).collect::<Vec<u64>>());
    for block in &projected {
        let shown = world.ledger.block_at(block.height).block;
        assert_eq!((block.hash, block.operations.len()), (shown.header.hash(), shown.verdicts.len()));
    }
}

/// Runs a loop with a fault; gives whether the fault struck. A dead process is dropped.
async fn run_with_fault<F>(fault: &Fault, run: F) -> bool
where
    F: Future<Output = Result<(), chopmark_committer::CommitterError>>,
{
    tokio::select! {
        result = run => result.unwrap(),
        () = fault.killed() => (),
    }
    fault.struck()
}

async fn submit_with_fault(world: &World, fault: &Fault) -> bool {
    let submit = world.faulty_submit_loop(fault, world.queue.consumer([0]));
    run_with_fault(fault, run_until(|stop| submit.run(stop), || world.queue.is_done())).await
}

async fn project_with_fault(world: &World, fault: &Fault) -> bool {
    let project = world.faulty_project_loop(fault);
    run_with_fault(fault, run_until(|stop| project.run(stop), || world.is_projected())).await
}

#[tokio::test(start_paused = true)]
async fn submitting_survives_a_fault_at_every_call() {
    for mode in Mode::ALL {
        let mut calls = 0;
        for at in 1..=CALLS_MAX {
            let world = world();
            publish(&world);
            if !submit_with_fault(&world, &Fault::new(mode, at)).await {
                check_submitted(&world);
                break;
            }
            world.submit_all().await;
            check_submitted(&world);
            calls = at;
        }
        assert!((15..CALLS_MAX).contains(&calls), "{mode:?}: {calls} calls");
    }
}

#[tokio::test(start_paused = true)]
async fn submitting_survives_a_kill_after_every_kill() {
    for mode in [Mode::KillBefore, Mode::KillAfter] {
        let world = world();
        publish(&world);
        let mut lives = 0;
        // Every life is one call longer than the last, so each gets a little further.
        while !world.queue.is_done() {
            lives += 1;
            submit_with_fault(&world, &Fault::new(mode, lives)).await;
            assert!(lives < CALLS_MAX);
        }
        check_submitted(&world);
    }
}

#[tokio::test(start_paused = true)]
async fn projecting_survives_a_fault_at_every_call() {
    for mode in Mode::ALL {
        let mut calls = 0;
        for at in 1..=CALLS_MAX {
            let world = world();
            publish(&world);
            world.submit_all().await;
            (100..105).for_each(|op| world.decide_evidence([op]));
            if !project_with_fault(&world, &Fault::new(mode, at)).await {
                check_projected(&world);
                break;
            }
            world.project_all().await;
            check_projected(&world);
            calls = at;
        }
        assert!((15..CALLS_MAX).contains(&calls), "{mode:?}: {calls} calls");
    }
}

#[tokio::test(start_paused = true)]
async fn projecting_survives_a_kill_after_every_kill() {
    for mode in [Mode::KillBefore, Mode::KillAfter] {
        let world = world();
        (1..=12).for_each(|op| world.decide_evidence([op]));
        let mut lives = 0;
        while !world.is_projected() {
            lives += 1;
            project_with_fault(&world, &Fault::new(mode, lives)).await;
            assert!(lives < CALLS_MAX);
        }
        check_projected(&world);
    }
}

/// Both loops of one process, and a fault anywhere in it.
#[tokio::test(start_paused = true)]
async fn a_whole_committer_survives_a_fault_at_every_call() {
    for mode in Mode::ALL {
        let mut calls = 0;
        for at in 1..=CALLS_MAX {
            let world = world();
            publish(&world);
            let fault = Fault::new(mode, at);
            let done = || world.queue.is_done() && world.is_projected();
            let submit = world.faulty_submit_loop(&fault, world.queue.consumer([0]));
            let project = world.faulty_project_loop(&fault);
            let both = async {
                let (submitted, projected) =
                    tokio::join!(run_until(|stop| submit.run(stop), done), run_until(|stop| project.run(stop), done));
                submitted.and(projected)
            };
            let struck = run_with_fault(&fault, both).await;
            world.submit_all().await;
            world.project_all().await;
            check_submitted(&world);
            check_projected(&world);
            if !struck {
                break;
            }
            calls = at;
        }
        assert!((30..CALLS_MAX).contains(&calls), "{mode:?}: {calls} calls");
    }
}
