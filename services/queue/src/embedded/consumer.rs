//! The one consumer of the queue.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use chopmark_domain::message::QueueMessage;
use chopmark_domain::ports::{Delivery, PoisonMessage, PortError, PortResult, QueueConsumer, QueuePosition};
use segment_log::{Record, Records};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::committed::{CommittedFile, Mark};
use super::failure::{broken, from_log, unavailable};
use super::files::from_io;
use super::queue::{Inner, PARTITION};
use super::shared::Tail;
use crate::bounds::POLL_BYTES_MAX;

/// Reads the queue from the committed offset on. Dropping it makes room for another.
///
/// Every method may be dropped at any await: what a poll had read is then read again, and a commit
/// or dead letter under way is finished or not.
#[derive(Debug)]
pub struct EmbeddedConsumer {
    inner: Arc<Inner>,
    tail: watch::Receiver<Tail>,
    /// Offset that is delivered next.
    position: u64,
    /// Stands at `position`, and belongs to the opening beside it.
    records: Option<(u64, Records)>,
}

impl EmbeddedConsumer {
    /// The caller has made sure that there is no other.
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        let position = inner.shared.committed.load(Ordering::Acquire);
        let tail = inner.tail.clone();
        Self { inner, tail, position, records: None }
    }

    /// One past the newest of `upto`; `None` if it is empty.
    fn committed_by(&self, upto: &[QueuePosition]) -> PortResult<Option<u64>> {
        for position in upto {
            if position.partition != PARTITION || position.offset >= self.position {
                return Err(broken(format!(
                    "commit of {position:?}, and only messages below {} were delivered",
                    self.position
                )));
            }
        }
        Ok(upto.iter().map(|position| position.offset + 1).max())
    }
}

impl Drop for EmbeddedConsumer {
    fn drop(&mut self) {
        self.inner.has_consumer.store(false, Ordering::Release);
    }
}

#[async_trait]
impl QueueConsumer for EmbeddedConsumer {
    /// A poll also ends at 16 MiB of messages. With fewer than `max` waiting it ends after
    /// `linger`, however many bytes they have.
    async fn poll(&mut self, max: usize, linger: Duration) -> PortResult<Vec<Delivery>> {
        let wanted = self.position.saturating_add(max as u64);
        if let Ok(Err(_)) = timeout(linger, self.tail.wait_for(|tail| tail.next >= wanted)).await {
            return Err(broken("the writer has ended"));
        }
        let tail = self.tail.borrow_and_update().clone();
        if max == 0 || tail.next <= self.position {
            return Ok(Vec::new());
        }
        let records = match self.records.take() {
            Some((opening, records)) if opening == tail.opening => records,
            _ => tail.reader.iter_from(self.position),
        };
        // Dropped here, this leaves `records` empty and `position` where it was.
        let read = spawn_blocking(move || read_batch(records, max)).await;
        let (records, deliveries) = read.map_err(|error| unavailable(format!("reading: {error}")))??;
        self.position = records.next_sequence();
        self.records = Some((tail.opening, records));
        Ok(deliveries)
    }

    async fn commit(&mut self, upto: &[QueuePosition]) -> PortResult<()> {
        let Some(committed) = self.committed_by(upto)? else { return Ok(()) };
        let log_end = self.tail.borrow().next;
        let inner = Arc::clone(&self.inner);
        let write = spawn_blocking(move || inner.commit(Mark { committed, log_end })).await;
        write.map_err(|error| unavailable(format!("committing: {error}")))?
    }

    /// The same message may be put aside more than once.
    async fn dead_letter(&mut self, position: QueuePosition, bytes: &[u8], reason: &str) -> PortResult<()> {
        tracing::warn!(?position, reason, bytes = bytes.len(), "a message is put aside");
        let (inner, bytes, reason) = (Arc::clone(&self.inner), bytes.to_vec(), reason.to_owned());
        let put = spawn_blocking(move || inner.dead_letters.put(position, &bytes, &reason)).await;
        put.map_err(|error| unavailable(format!("putting aside: {error}")))?
    }

    async fn lag(&self) -> PortResult<u64> {
        Ok(self.inner.shared.lag())
    }
}

impl Inner {
    fn commit(&self, mark: Mark) -> PortResult<()> {
        let mut file = self.committed.lock();
        file.advance(mark).map_err(|error| from_io("write", &CommittedFile::path(&self.directory), &error))?;
        // Durable now: only from here on may the writer delete what lies below.
        self.shared.committed.store(file.mark().committed, Ordering::Release);
        drop(file);
        self.shared.metrics.depth(self.shared.lag());
        self.wake_writer();
        Ok(())
    }
}

/// Reads until `max` messages, the bound in bytes, or the end. An error is kept for the next call
/// if there is something to deliver before it.
fn read_batch(mut records: Records, max: usize) -> Result<(Records, Vec<Delivery>), PortError> {
    let (mut deliveries, mut bytes) = (Vec::new(), 0);
    while deliveries.len() < max && bytes < POLL_BYTES_MAX {
        match records.next() {
            None => break,
            Some(Ok(record)) => {
                bytes += record.payload.len();
                deliveries.push(delivery(record));
            }
            Some(Err(error)) if deliveries.is_empty() => return Err(from_log(&error)),
            Some(Err(_)) => break,
        }
    }
    Ok((records, deliveries))
}

fn delivery(record: Record) -> Delivery {
    let position = QueuePosition { partition: PARTITION, offset: record.sequence };
    let message = QueueMessage::decode(&record.payload)
        .map_err(|error| PoisonMessage { bytes: record.payload, reason: error.to_string() });
    Delivery { position, message }
}
