//! The embedded queue under the contract, and what it promises beyond that.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chopmark_domain::ports::{PortError, Queue, QueueConsumer, QueuePosition};
use chopmark_queue::EmbeddedQueue;
use segment_log::{Options, SegmentLog};
use tempfile::TempDir;

use crate::common::{drain, message, newest, open, serials, small, take};
use crate::contract::Subject;

struct Embedded {
    scratch: TempDir,
    queue: Option<EmbeddedQueue>,
}

impl Embedded {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let queue = Some(open(scratch.path()));
        Self { scratch, queue }
    }

    fn open(&self) -> &EmbeddedQueue {
        self.queue.as_ref().unwrap()
    }
}

#[async_trait]
impl Subject for Embedded {
    fn queue(&self) -> Arc<dyn Queue> {
        Arc::new(self.open().clone())
    }

    async fn consumer(&self) -> Box<dyn QueueConsumer> {
        Box::new(self.open().consumer().unwrap())
    }

    async fn restart(&mut self) {
        self.queue = None;
        self.queue = Some(open(self.scratch.path()));
    }

    async fn inject(&mut self, bytes: &[u8]) {
        self.queue = None;
        let (mut log, _) = SegmentLog::open(self.scratch.path().join("log"), Options::default()).unwrap();
        log.append(&[bytes]).unwrap();
        drop(log);
        self.queue = Some(open(self.scratch.path()));
    }

    async fn dead_letters(&self) -> Vec<(QueuePosition, Vec<u8>, String)> {
        let letters = self.open().dead_letters(0, 1000).unwrap();
        letters.into_iter().map(|letter| (letter.position, letter.bytes, letter.reason)).collect()
    }
}

contract_tests!(Some(Embedded::new()));

#[tokio::test]
async fn there_is_one_consumer_at_a_time() {
    let scratch = tempfile::tempdir().unwrap();
    let queue = open(scratch.path());
    let consumer = queue.consumer().unwrap();
    assert!(matches!(queue.consumer(), Err(PortError::Unavailable { .. })));
    drop(consumer);
    queue.consumer().unwrap();
}

#[tokio::test]
async fn a_directory_has_one_queue() {
    let scratch = tempfile::tempdir().unwrap();
    let queue = open(scratch.path());
    let second = EmbeddedQueue::open(scratch.path(), small());
    assert!(matches!(second, Err(PortError::Unavailable { .. })), "{second:?}");
    drop(queue);
    open(scratch.path());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_publishers_share_appends() {
    let scratch = tempfile::tempdir().unwrap();
    let queue = open(scratch.path());
    let publishers: Vec<_> = (0..64)
        .map(|key| {
            let queue = queue.clone();
            tokio::spawn(async move {
                for serial in 0..20 {
                    queue.publish(vec![message(key, serial, 400)]).await.unwrap();
                }
            })
        })
        .collect();
    for publisher in publishers {
        publisher.await.unwrap();
    }
    let stats = queue.stats();
    assert_eq!(stats.next, 64 * 20);
    assert!(stats.appends < stats.next / 2, "{} appends for {} publishes", stats.appends, stats.next);
    assert_eq!(drain(&mut queue.consumer().unwrap()).await.len(), 64 * 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_and_disk_are_bounded() {
    let scratch = tempfile::tempdir().unwrap();
    let queue = EmbeddedQueue::open(scratch.path(), small()).unwrap();

    // More at once than may wait.
    let much: Vec<_> = (0..10).map(|serial| message(1, serial, 10_000)).collect();
    assert!(matches!(queue.publish(much).await, Err(PortError::Full("queue"))));
    assert_eq!(queue.stats().next, 0);

    // More than may lie on the disk; and a queue that is drained takes messages again.
    let mut consumer = queue.consumer().unwrap();
    let (mut published, mut delivered) = (0, Vec::new());
    for _ in 0..3 {
        loop {
            match queue.publish(vec![message(1, published, 10_000)]).await {
                Ok(()) => published += 1,
                Err(PortError::Full("queue")) => break,
                Err(error) => panic!("{error}"),
            }
            assert!(published < 1000, "no bound in force");
        }
        assert!(queue.stats().log_bytes <= small().log_bytes_max);
        let taken = drain(&mut consumer).await;
        consumer.commit(&newest(&taken)).await.unwrap();
        delivered.extend(serials(&taken));
        let until = std::time::Instant::now() + crate::common::PATIENCE;
        while queue.stats().log_bytes > 130_000 {
            assert!(std::time::Instant::now() < until, "nothing was deleted");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    assert_eq!(delivered, (0..published).collect::<Vec<_>>());
    assert!(published > 90, "{published}");
}

#[tokio::test]
async fn a_message_too_long_for_the_log_fails_alone() {
    let scratch = tempfile::tempdir().unwrap();
    let queue = open(scratch.path());
    let answer = queue.publish(vec![message(1, 0, 100_000)]).await;
    assert!(matches!(answer, Err(PortError::Broken { .. })), "{answer:?}");
    queue.publish(vec![message(1, 1, 100)]).await.unwrap();
}

/// Commits at every place of segments of a few messages each, and reopens.
#[tokio::test]
async fn truncation_keeps_what_is_not_committed() {
    let scratch = tempfile::tempdir().unwrap();
    let config = chopmark_queue::Config { segment_bytes_max: 2000, retained_messages: 3, ..small() };
    let mut done = 0;
    for round in 0..40_u64 {
        let queue = EmbeddedQueue::open(scratch.path(), config.clone()).unwrap();
        let messages = (0..5).map(|at| message(1, round * 5 + at, 400)).collect();
        queue.publish(messages).await.unwrap();
        let mut consumer = queue.consumer().unwrap();
        let taken = drain(&mut consumer).await;
        assert_eq!(serials(&taken), (done..(round + 1) * 5).collect::<Vec<_>>());
        let upto = usize::try_from(round % 7).unwrap().min(taken.len());
        consumer.commit(&newest(&taken[..upto])).await.unwrap();
        done += upto as u64;
        drop((consumer, queue));

        let (log, recovery) = SegmentLog::open(scratch.path().join("log"), Options::default()).unwrap();
        assert!(recovery.first_sequence <= done.saturating_sub(3), "{recovery:?}, {done} done");
        // At most the segment in which they begin is kept beside the retained ones.
        assert!(recovery.first_sequence + 12 >= done, "{recovery:?}, {done} done");
        drop(log);
    }
}

/// The consumer follows a log that grows over many segments, in small and large polls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_consumer_follows_over_segments() {
    let scratch = tempfile::tempdir().unwrap();
    let queue = EmbeddedQueue::open(scratch.path(), small()).unwrap();
    let mut consumer = queue.consumer().unwrap();
    let mut expected = 0;
    for round in 0..60_u64 {
        queue.publish((0..20).map(|at| message(1, round * 20 + at, 900)).collect()).await.unwrap();
        let count =
            usize::try_from(1 + round * 11 % 30).unwrap().min(usize::try_from(queue.stats().next - expected).unwrap());
        let taken = take(&mut consumer, count).await;
        assert_eq!(serials(&taken), (expected..expected + count as u64).collect::<Vec<_>>());
        expected += count as u64;
        consumer.commit(&newest(&taken)).await.unwrap();
    }
}
