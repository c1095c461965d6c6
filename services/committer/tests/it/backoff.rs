//! Dependencies that are away, full or broken.

use std::time::Duration;

use chopmark_committer::CommitterError;
use chopmark_domain::ports::PortError;
use tokio::time::Instant;

use crate::doubles::{World, run_until};

const HOUR: Duration = Duration::from_secs(3_600);

fn full() -> PortError {
    PortError::Full("ledger")
}

fn away() -> PortError {
    PortError::Unavailable { port: "database", reason: "away".to_owned() }
}

fn broken(port: &'static str) -> PortError {
    PortError::Broken { port, reason: "invariant".to_owned() }
}

#[tokio::test(start_paused = true)]
async fn a_full_ledger_is_asked_again_after_growing_pauses() {
    let world = World::new();
    world.publish_evidence(3);
    world.ledger.refuse((0..6).map(|_| full()));
    let started = Instant::now();
    world.submit_all().await;
    // 25 + 50 + 100 + 200 + 400 + 800 ms, each at most doubled by jitter.
    let pauses = Duration::from_millis(1_575);
    let took = started.elapsed();
    assert!(took >= pauses && took < 2 * pauses + Duration::from_millis(200), "took {took:?}");
    assert_eq!(world.ledger.submissions(), [3; 7]);
    (1..=3).for_each(|op| world.check_ended_once(op));
}

#[tokio::test(start_paused = true)]
async fn an_hour_without_ledger_loses_nothing_and_asks_rarely() {
    let mut world = World::new();
    (world.submit.batch_operations_max, world.submit.batches_in_flight_max) = (4, 2);
    world.publish_evidence(100);
    world.ledger.away_for(HOUR);
    let started = Instant::now();
    world.submit_all().await;
    assert!(started.elapsed() >= HOUR);
    assert!(started.elapsed() < HOUR + Duration::from_secs(20), "took {:?}", started.elapsed());
    (1..=100).for_each(|op| world.check_ended_once(op));
    // Two batches under way, each asking every 5 to 10 s, and 25 good submissions.
    let asked = world.ledger.submissions().len();
    assert!((2 * 360..2 * 760 + 25).contains(&asked), "asked {asked} times");
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_never_answers_is_asked_again() {
    let world = World::new();
    world.publish_evidence(2);
    world.ledger.stall(true);
    let stalled_for = Duration::from_secs(150);
    let unstall = async {
        tokio::time::sleep(stalled_for).await;
        world.ledger.stall(false);
    };
    tokio::join!(world.submit_all(), unstall);
    assert_eq!(world.ledger.submissions(), [2; 3], "once a minute");
    (1..=2).for_each(|op| world.check_ended_once(op));
}

#[tokio::test(start_paused = true)]
async fn a_database_that_is_away_stops_nothing_for_good() {
    let world = World::new();
    world.publish_evidence(3);
    world.store.refuse((0..8).map(|_| away()));
    world.submit_all().await;
    (1..=3).for_each(|op| world.check_ended_once(op));
    world.store.refuse((0..8).map(|_| away()));
    world.project_all().await;
    assert_eq!(world.store.projected().len() as u64, world.ledger.height());
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_waited_for() {
    let world = World::new();
    world.publish_evidence(1);
    world.store.refuse([PortError::DiskFull("database")]);
    world.ledger.refuse([PortError::DiskFull("ledger")]);
    world.submit_all().await;
    world.check_ended_once(1);
}

#[tokio::test(start_paused = true)]
async fn a_broken_port_stops_the_loop_and_commits_nothing() {
    for port in ["ledger", "database"] {
        let world = World::new();
        world.publish_evidence(3);
        if port == "ledger" {
            world.ledger.refuse([broken(port)])
        } else {
            world.store.refuse([broken(port)])
        }
        let result = run_until(|stop| world.submit_loop().run(stop), || false).await;
        assert!(matches!(result, Err(CommitterError::Port(PortError::Broken { .. }))), "{result:?}");
        assert_eq!(world.queue.committed(0), 0);
        // A new loop with a new consumer goes on where it was.
        world.submit_all().await;
        (1..=3).for_each(|op| world.check_ended_once(op));
    }
}

#[tokio::test(start_paused = true)]
async fn a_broken_database_stops_the_projection() {
    let world = World::new();
    world.store.refuse([broken("database")]);
    let result = run_until(|stop| world.project_loop().run(stop), || false).await;
    assert!(matches!(result, Err(CommitterError::Port(PortError::Broken { .. }))), "{result:?}");
    assert!(world.store.projected().is_empty());
    world.project_all().await;
}
