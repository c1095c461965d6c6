//! A queue in memory. It audits every commit: whatever is passed over must have its outcome in
//! the ledger or stand in the dead letters.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use chopmark_domain::{
    message::QueueMessage,
    ports::{Delivery, PoisonMessage, PortResult, QueueConsumer, QueuePosition},
};

use super::Ledger;

pub(crate) struct MemoryQueue {
    ledger: Arc<Ledger>,
    inner: Mutex<Inner>,
}

struct Inner {
    partitions: Vec<Vec<Vec<u8>>>,
    /// The next position of each partition.
    committed: Vec<u64>,
    dead: Vec<(QueuePosition, Vec<u8>, String)>,
    /// Every commit in order.
    commits: Vec<Vec<QueuePosition>>,
}

impl MemoryQueue {
    pub(crate) fn new(ledger: Arc<Ledger>, partitions: usize) -> Arc<Self> {
        let inner = Inner {
            partitions: vec![Vec::new(); partitions],
            committed: vec![0; partitions],
            dead: Vec::new(),
            commits: Vec::new(),
        };
        Arc::new(Self { ledger, inner: Mutex::new(inner) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub(crate) fn publish(&self, partition: usize, bytes: Vec<u8>) {
        self.lock().partitions[partition].push(bytes);
    }

    /// Whether every message is passed over.
    pub(crate) fn is_done(&self) -> bool {
        let inner = self.lock();
        inner.partitions.iter().zip(&inner.committed).all(|(messages, next)| messages.len() as u64 == *next)
    }

    /// The next position to be delivered after a restart.
    pub(crate) fn committed(&self, partition: usize) -> u64 {
        self.lock().committed[partition]
    }

    pub(crate) fn commits(&self) -> Vec<Vec<QueuePosition>> {
        self.lock().commits.clone()
    }

    pub(crate) fn dead(&self) -> Vec<(QueuePosition, Vec<u8>, String)> {
        self.lock().dead.clone()
    }

    /// Positions in the dead letters, each once.
    pub(crate) fn dead_offsets(&self) -> Vec<u64> {
        let mut offsets: Vec<u64> = self.lock().dead.iter().map(|(position, _, _)| position.offset).collect();
        offsets.sort_unstable();
        offsets.dedup();
        offsets
    }

    /// A member of the group that holds `partitions`, from the committed positions on.
    pub(crate) fn consumer(self: &Arc<Self>, partitions: impl IntoIterator<Item = u32>) -> Consumer {
        let inner = self.lock();
        let next = partitions.into_iter().map(|at| (at, inner.committed[at as usize])).collect();
        drop(inner);
        Consumer { queue: Arc::clone(self), next, polled: 0 }
    }

    fn audit(&self, inner: &Inner, position: QueuePosition) {
        let bytes = &inner.partitions[position.partition as usize][usize::try_from(position.offset).unwrap()];
        if inner.dead.iter().any(|(dead, _, _)| *dead == position) {
            return;
        }
        let message = QueueMessage::decode(bytes).expect("poison was passed over and not put aside");
        assert!(self.ledger.outcome(&message.op).is_some(), "{position:?} was passed over without an outcome");
    }
}

pub(crate) struct Consumer {
    queue: Arc<MemoryQueue>,
    next: BTreeMap<u32, u64>,
    /// Messages delivered so far.
    pub(crate) polled: usize,
}

impl Consumer {
    fn read(&mut self, max: usize, deliveries: &mut Vec<Delivery>) {
        let inner = self.queue.lock();
        for (partition, next) in &mut self.next {
            for bytes in inner.partitions[*partition as usize].iter().skip(usize::try_from(*next).unwrap()) {
                if deliveries.len() == max {
                    return;
                }
                let position = QueuePosition { partition: *partition, offset: *next };
                let message = QueueMessage::decode(bytes)
                    .map_err(|error| PoisonMessage { bytes: bytes.clone(), reason: error.to_string() });
                deliveries.push(Delivery { position, message });
                *next += 1;
                self.polled += 1;
            }
        }
    }
}

#[async_trait]
impl QueueConsumer for Consumer {
    async fn poll(&mut self, max: usize, linger: Duration) -> PortResult<Vec<Delivery>> {
        let mut deliveries = Vec::new();
        self.read(max, &mut deliveries);
        if deliveries.len() < max && !linger.is_zero() {
            tokio::time::sleep(linger).await;
            self.read(max, &mut deliveries);
        }
        Ok(deliveries)
    }

    async fn commit(&mut self, upto: &[QueuePosition]) -> PortResult<()> {
        let mut inner = self.queue.lock();
        for position in upto {
            let at = position.partition as usize;
            for offset in inner.committed[at]..=position.offset {
                self.queue.audit(&inner, QueuePosition { partition: position.partition, offset });
            }
            inner.committed[at] = inner.committed[at].max(position.offset + 1);
        }
        inner.commits.push(upto.to_vec());
        Ok(())
    }

    async fn dead_letter(&mut self, position: QueuePosition, bytes: &[u8], reason: &str) -> PortResult<()> {
        self.queue.lock().dead.push((position, bytes.to_vec(), reason.to_owned()));
        Ok(())
    }

    async fn lag(&self) -> PortResult<u64> {
        let inner = self.queue.lock();
        let behind = |(at, next): (&u32, &u64)| inner.partitions[*at as usize].len() as u64 - next;
        Ok(self.next.iter().map(behind).sum())
    }
}
