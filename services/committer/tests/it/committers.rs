//! Several committers at once on one queue, one database and one ledger.

use std::{sync::Arc, time::Duration};

use chopmark_domain::ports::ProjectionStore as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::doubles::{Fault, World, run_until};

#[tokio::test(start_paused = true)]
async fn two_committers_share_the_partitions() {
    let mut world = World::with(1, 4);
    world.submit.batch_operations_max = 5;
    for op in 1..=200 {
        world.queue.publish(usize::from(op % 4), world.evidence(op, op).encode());
    }
    let run = |partitions: [u32; 2]| {
        let consumer = world.queue.consumer(partitions);
        let submit = world.faulty_submit_loop(&Fault::none(), consumer);
        run_until(|stop| submit.run(stop), || world.queue.is_done())
    };
    let (one, two) = tokio::join!(run([0, 1]), run([2, 3]));
    one.and(two).unwrap();
    (1..=200).for_each(|op| world.check_ended_once(op));
}

/// After a rebalance two committers may hold the same messages for a while.
#[tokio::test(start_paused = true)]
async fn two_committers_with_the_same_messages_make_one_entry_each() {
    let mut world = World::new();
    world.submit.batch_operations_max = 3;
    world.publish_evidence(40);
    world.queue.publish(0, b"poison".to_vec());
    (1..=20).for_each(|op| world.ledger.slow_down(2 * op, Duration::from_millis(u64::from(op) * 13 % 50)));
    let run = || {
        let submit = world.submit_loop();
        run_until(|stop| submit.run(stop), || world.queue.is_done())
    };
    let (one, two) = tokio::join!(run(), run());
    one.and(two).unwrap();
    (1..=40).for_each(|op| world.check_ended_once(op));
    assert_eq!(world.queue.dead_offsets(), [40]);
}

#[tokio::test(start_paused = true)]
async fn two_project_loops_project_every_block_once() {
    let mut world = World::new();
    world.project.blocks_per_fetch = 3;
    (1..=30).for_each(|op| world.decide_evidence([op]));
    let more = async {
        for op in 31..=60 {
            tokio::time::sleep(Duration::from_millis(40)).await;
            world.decide_evidence([op]);
        }
    };
    let done = || world.ledger.height() == 61 && world.is_projected();
    let run = || {
        let project = world.project_loop();
        run_until(|stop| project.run(stop), done)
    };
    let (one, two, ()) = tokio::join!(run(), run(), more);
    one.and(two).unwrap();
    let heights: Vec<u64> = world.store.projected().iter().map(|block| block.height).collect();
    assert_eq!(heights, (1..=61).collect::<Vec<u64>>());
}

#[tokio::test(start_paused = true)]
async fn everything_at_once() {
    let mut world = World::with(4, 2);
    world.submit.batch_operations_max = 7;
    for op in 1..=150 {
        world.queue.publish(usize::from(op % 2), world.evidence(op, op).encode());
    }
    let done = || world.queue.is_done() && world.is_projected();
    let submit = |partition: u32| {
        let submit = world.faulty_submit_loop(&Fault::none(), world.queue.consumer([partition]));
        run_until(|stop| submit.run(stop), done)
    };
    let project = || {
        let project = world.project_loop();
        run_until(|stop| project.run(stop), done)
    };
    let results = tokio::join!(submit(0), submit(1), project(), project());
    results.0.and(results.1).and(results.2).and(results.3).unwrap();
    (1..=150).for_each(|op| world.check_ended_once(op));
    assert_eq!(world.store.rows(), 151, "and the tenant");
}

#[tokio::test(start_paused = true)]
async fn a_reset_read_model_is_projected_anew() {
    let world = World::new();
    (1..=9).for_each(|op| world.decide_evidence([op]));
    let reset = async {
        while !world.is_projected() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let store = Arc::clone(&world.store);
        store.reset("sandbox").await.unwrap();
        world.decide_evidence([10]);
    };
    let done = || world.ledger.height() == 11 && world.is_projected();
    let project = world.project_loop();
    let (result, ()) = tokio::join!(run_until(|stop| project.run(stop), done), reset);
    result.unwrap();
    assert_eq!(world.store.projected().len(), 11);
}

/// Real threads and real time, and every loop a task of its own, as the binary runs them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everything_at_once_on_threads() {
    let mut world = World::with(4, 2);
    world.submit.batch_operations_max = 7;
    for op in 1..=150 {
        world.queue.publish(usize::from(op % 2), world.evidence(op, op).encode());
    }
    let stop = CancellationToken::new();
    let mut loops = JoinSet::new();
    for partition in [0, 1] {
        let submit = world.faulty_submit_loop(&Fault::none(), world.queue.consumer([partition]));
        loops.spawn(submit.run(stop.clone()));
        loops.spawn(world.project_loop().run(stop.clone()));
    }
    while !(world.queue.is_done() && world.is_projected()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.cancel();
    loops.join_all().await.into_iter().for_each(Result::unwrap);
    (1..=150).for_each(|op| world.check_ended_once(op));
    assert_eq!(world.store.rows(), 151);
}
