//! Builders and small observations that the tests share.

use std::path::Path;
use std::time::{Duration, Instant};

use chopmark_domain::message::QueueMessage;
use chopmark_domain::ports::{Delivery, QueueConsumer, QueuePosition};
use chopmark_queue::{Config, EmbeddedQueue};
use ledger_core::hash::Hash32;

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Message number `serial` of an order key, with an operation of `bytes` bytes.
pub(crate) fn message(key: u64, serial: u64, bytes: usize) -> QueueMessage {
    let mut operation = serial.to_be_bytes().to_vec();
    operation.resize(bytes.max(8), 0xa5);
    QueueMessage {
        network: "sandbox".to_owned(),
        tenant: "t".to_owned(),
        op: Hash32([7; 32]),
        request_digest: Hash32([8; 32]),
        order_key: key.to_be_bytes().to_vec(),
        trace: String::new(),
        operation,
        sealed_private: Vec::new(),
        external_index: None,
    }
}

/// Key and serial of a message made by [`message`].
pub(crate) fn identity(delivery: &Delivery) -> (u64, u64) {
    let message = delivery.message.as_ref().expect("a message");
    let number = |bytes: &[u8]| u64::from_be_bytes(bytes[..8].try_into().unwrap());
    (number(&message.order_key), number(&message.operation))
}

pub(crate) fn serials(deliveries: &[Delivery]) -> Vec<u64> {
    deliveries.iter().map(|delivery| identity(delivery).1).collect()
}

/// Polls until `count` messages were delivered.
pub(crate) async fn take(consumer: &mut dyn QueueConsumer, count: usize) -> Vec<Delivery> {
    let (mut taken, until) = (Vec::new(), Instant::now() + PATIENCE);
    while taken.len() < count {
        assert!(Instant::now() < until, "only {} of {count} messages were delivered", taken.len());
        taken.extend(consumer.poll(count - taken.len(), Duration::from_millis(50)).await.unwrap());
    }
    taken
}

/// Takes what must be there, and asserts that there is nothing more.
pub(crate) async fn take_all(consumer: &mut dyn QueueConsumer, count: usize) -> Vec<Delivery> {
    let taken = take(consumer, count).await;
    let more = drain(consumer).await;
    assert!(more.is_empty(), "{more:?}");
    taken
}

/// Polls until a poll finds nothing. A consumer on Kafka may find nothing at first.
pub(crate) async fn drain(consumer: &mut dyn QueueConsumer) -> Vec<Delivery> {
    let mut taken = Vec::new();
    loop {
        let deliveries = consumer.poll(1000, Duration::from_millis(100)).await.unwrap();
        if deliveries.is_empty() {
            return taken;
        }
        taken.extend(deliveries);
    }
}

/// The newest position of each partition.
pub(crate) fn newest(deliveries: &[Delivery]) -> Vec<QueuePosition> {
    let mut newest = std::collections::BTreeMap::new();
    for Delivery { position, .. } in deliveries {
        let offset = newest.entry(position.partition).or_insert(position.offset);
        *offset = position.offset.max(*offset);
    }
    newest.into_iter().map(|(partition, offset)| QueuePosition { partition, offset }).collect()
}

/// Small bounds, so that tests reach them: segments of 64 KiB, a log of 400 KiB.
pub(crate) fn small() -> Config {
    Config {
        segment_bytes_max: 64 << 10,
        log_bytes_max: 400 << 10,
        waiting_bytes_max: 64 << 10,
        retained_messages: 0,
        ..Config::new("sandbox")
    }
}

pub(crate) fn open(directory: &Path) -> EmbeddedQueue {
    EmbeddedQueue::open(directory, Config::new("sandbox")).unwrap()
}
