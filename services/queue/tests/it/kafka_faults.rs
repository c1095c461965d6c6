//! A broker that is killed, a long outage, consumers that die and share: nothing that was acknowledged
//! is lost, and each key keeps its order.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write, stdout};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{env, thread};

use chopmark_domain::ports::{PortError, Queue, QueueConsumer};
use chopmark_queue::{KafkaConsumer, KafkaQueue, KafkaSettings};
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::task::JoinHandle;

use crate::common::{identity, message, newest, serials, take, take_all};
use crate::kafka::{Broker, network, own_broker, share_broker};

const SEED: u64 = 20_261_122;
const KEYS: u64 = 8;
/// After the faults, everything must have been delivered within this.
const RECOVERY: Duration = Duration::from_secs(60);
/// Beyond the delivery time-out and the session of the tests; with LONG=1 what operators fear.
const OUTAGE: Duration = Duration::from_secs(8);
const OUTAGE_LONG: Duration = Duration::from_secs(60);

fn is_long() -> bool {
    env::var_os("LONG").is_some()
}

/// What happened, seen from outside the queue.
#[derive(Default)]
struct Story {
    acknowledged: Mutex<BTreeSet<(u64, u64)>>,
    /// In the order in which they were delivered, by whichever consumer.
    delivered: Mutex<Vec<(u64, u64)>>,
    refused: AtomicU64,
    stop: AtomicBool,
}

impl Story {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Publishers, one a key, that publish the same again until it is acknowledged.
    fn publish(self: &Arc<Self>, queue: &KafkaQueue) -> Vec<JoinHandle<()>> {
        let publisher = |key| {
            let (story, queue) = (Arc::clone(self), queue.clone());
            tokio::spawn(async move {
                let mut serial = 0;
                while !story.is_over() {
                    let count = 1 + (serial + key) % 4;
                    let batch: Vec<_> = (serial..serial + count).map(|serial| message(key, serial, 300)).collect();
                    while let Err(error) = queue.publish(batch.clone()).await {
                        assert!(matches!(error, PortError::Unavailable { .. }), "{error:?}");
                        story.refused.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    story.acknowledged.lock().extend((serial..serial + count).map(|serial| (key, serial)));
                    serial += count;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
        };
        (0..KEYS).map(publisher).collect()
    }

    /// Polls and commits until the end of the story and of the queue, as a committer does.
    async fn consume(self: Arc<Self>, mut consumer: KafkaConsumer, leave: Arc<AtomicBool>) {
        while !leave.load(Ordering::Relaxed) {
            let deliveries = match consumer.poll(100, Duration::from_millis(20)).await {
                Ok(deliveries) => deliveries,
                Err(error) => {
                    assert!(matches!(error, PortError::Unavailable { .. }), "{error:?}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            self.delivered.lock().extend(deliveries.iter().map(identity));
            while let Err(error) = consumer.commit(&newest(&deliveries)).await {
                assert!(matches!(error, PortError::Unavailable { .. }), "{error:?}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    fn missing(&self) -> usize {
        let delivered: BTreeSet<_> = self.delivered.lock().iter().copied().collect();
        self.acknowledged.lock().difference(&delivered).count()
    }

    async fn wait_until_delivered(&self) {
        let until = Instant::now() + RECOVERY;
        while self.missing() > 0 {
            assert!(Instant::now() < until, "{} acknowledged messages are lost", self.missing());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Each key's messages came first in order; what came again is not counted.
    fn check_order(&self) -> String {
        let (mut next, mut again) = (BTreeMap::new(), 0);
        let delivered = self.delivered.lock();
        for (key, serial) in delivered.iter() {
            let expected: &mut u64 = next.entry(*key).or_default();
            assert!(serial <= expected, "key {key}: {serial} came, and {expected} did not come before");
            if serial == expected { *expected += 1 } else { again += 1 }
        }
        let (acknowledged, refused) = (self.acknowledged.lock().len(), self.refused.load(Ordering::Relaxed));
        assert!(acknowledged > 0);
        format!("{acknowledged} acknowledged, {refused} publishes refused, {again} delivered again, 0 lost")
    }
}

fn settings(broker: &Broker) -> KafkaSettings {
    KafkaSettings { delivery_timeout_ms: 3_000, ..broker.settings() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_dies_and_stays_away_loses_nothing() {
    let Some(broker) = Broker::find() else { return };
    let _lock = own_broker().await;
    let queue = KafkaQueue::open(&network(), settings(&broker)).await.unwrap();
    let (story, leave) = (Arc::new(Story::default()), Arc::new(AtomicBool::new(false)));
    let consumer = queue.consumer().await.unwrap();
    let consumer = tokio::spawn(Arc::clone(&story).consume(consumer, Arc::clone(&leave)));
    let publishers = story.publish(&queue);

    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let outage = if is_long() { OUTAGE_LONG } else { OUTAGE };
    let kills = if is_long() { 6 } else { 2 };
    for kill in 0..kills {
        tokio::time::sleep(Duration::from_millis(random.random_range(200..1500))).await;
        broker.kill();
        if kill == 0 {
            tokio::time::sleep(outage).await;
            assert!(story.refused.load(Ordering::Relaxed) > 0, "an outage beyond the time-out refused nothing");
        }
        let broker = broker.clone();
        tokio::task::spawn_blocking(move || broker.start()).await.unwrap();
        // Publishing resumes by itself.
        let before = story.acknowledged.lock().len();
        let until = Instant::now() + RECOVERY;
        while story.acknowledged.lock().len() == before {
            assert!(Instant::now() < until, "nothing is acknowledged after the broker is back");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    story.stop.store(true, Ordering::Relaxed);
    for publisher in publishers {
        publisher.await.unwrap();
    }
    story.wait_until_delivered().await;
    leave.store(true, Ordering::Relaxed);
    consumer.await.unwrap();
    eprintln!("seed {SEED}: {kills} kills of the broker, one outage of {outage:?}: {}", story.check_order());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go_and_nothing_is_lost() {
    let Some(broker) = Broker::find() else { return };
    let _lock = share_broker().await;
    let queue = KafkaQueue::open(&network(), settings(&broker)).await.unwrap();
    let story = Arc::new(Story::default());
    let publishers = story.publish(&queue);
    let mut members = Vec::new();
    // Two at a time, and each pair has one member in common with the next.
    for _ in 0..4 {
        let (consumer, leave) = (queue.consumer().await.unwrap(), Arc::new(AtomicBool::new(false)));
        let task = tokio::spawn(Arc::clone(&story).consume(consumer, Arc::clone(&leave)));
        members.push((task, leave));
        tokio::time::sleep(Duration::from_millis(700)).await;
        if members.len() > 2 {
            let (task, leave) = members.remove(0);
            leave.store(true, Ordering::Relaxed);
            task.await.unwrap();
        }
    }
    story.stop.store(true, Ordering::Relaxed);
    for publisher in publishers {
        publisher.await.unwrap();
    }
    story.wait_until_delivered().await;
    for (task, leave) in members {
        leave.store(true, Ordering::Relaxed);
        task.await.unwrap();
    }
    eprintln!("4 members came and 2 went: {}", story.check_order());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_members_share_the_partitions() {
    let Some(broker) = Broker::find() else { return };
    let _lock = share_broker().await;
    let queue = KafkaQueue::open(&network(), settings(&broker)).await.unwrap();
    let mut first = queue.consumer().await.unwrap();
    assert_eq!(first.partitions().len(), 3);
    queue.publish((0..60).map(|serial| message(serial % 20, serial, 50)).collect()).await.unwrap();
    let taken = take(&mut first, 60).await;
    let mut second = tokio::spawn({
        let queue = queue.clone();
        async move { queue.consumer().await.unwrap() }
    });
    // Shares move within polls, so both have to go on polling.
    let until = Instant::now() + RECOVERY;
    let mut second = loop {
        assert!(first.poll(10, Duration::from_millis(20)).await.unwrap().is_empty());
        match tokio::time::timeout(Duration::from_millis(1), &mut second).await {
            Ok(second) => break second.unwrap(),
            Err(_) => assert!(Instant::now() < until),
        }
    };
    let mut again = Vec::new();
    while second.partitions().is_empty() {
        assert!(Instant::now() < until, "the second member has no share");
        assert!(first.poll(10, Duration::from_millis(20)).await.unwrap().is_empty());
        again.extend(second.poll(10, Duration::from_millis(20)).await.unwrap());
    }
    let (ours, theirs) = (first.partitions(), second.partitions());
    assert_eq!(ours.len() + theirs.len(), 3, "{ours:?} {theirs:?}");

    // The first commits all that it got: what it still has, and not what is the other's now.
    first.commit(&newest(&taken)).await.unwrap();
    let moved = taken.iter().filter(|delivery| theirs.contains(&delivery.position.partition)).count();
    again.extend(take_all(&mut second, moved - again.len()).await);
    assert_eq!(first.lag().await.unwrap(), 0);
    second.commit(&newest(&again)).await.unwrap();
    assert_eq!(second.lag().await.unwrap(), 0);
}

const NETWORK: &str = "CHOPMARK_QUEUE_TEST_NETWORK";

/// Not a test: the child of the one below. Commits a third of what it takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by a_consumer_killed_before_its_commit_loses_nothing"]
async fn take_and_wait_to_be_killed() {
    let Ok(network) = env::var(NETWORK) else { return };
    let broker = Broker::find().unwrap();
    let queue = KafkaQueue::open(&network, broker.settings()).await.unwrap();
    let mut consumer = queue.consumer().await.unwrap();
    let taken = take(&mut consumer, 90).await;
    consumer.commit(&newest(&taken[..30])).await.unwrap();
    stdout().write_all(b"\ntaken\n").unwrap();
    thread::sleep(RECOVERY);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_killed_before_its_commit_loses_nothing() {
    let Some(broker) = Broker::find() else { return };
    let (_lock, network) = (share_broker().await, network());
    let queue = KafkaQueue::open(&network, broker.settings()).await.unwrap();
    queue.publish((0..90).map(|serial| message(1, serial, 50)).collect()).await.unwrap();
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["kafka_faults::take_and_wait_to_be_killed", "--exact", "--ignored", "--nocapture"])
        .env(NETWORK, &network)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    lines.find(|line| line == "taken").expect("the child takes and commits");
    child.kill().unwrap();
    child.wait().unwrap();
    // Its session has to end first.
    let mut consumer = queue.consumer().await.unwrap();
    assert_eq!(serials(&take(&mut consumer, 60).await), (30..90).collect::<Vec<_>>());
}
