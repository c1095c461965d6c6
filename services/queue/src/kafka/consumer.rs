//! One member of the consumers' group.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chopmark_domain::ports::{Delivery, PortResult, QueueConsumer, QueuePosition};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};

use super::group::Group;
use super::producer::Inner;
use super::reader::{Gone, Reader};
use crate::failure::{broken, unavailable};

/// Longest wait for a share of the partitions. A member that died is counted until its session ends,
/// and another one has its session's time to answer.
const JOIN_SESSIONS: u32 = 3;

/// Reads its share of the queue from the committed offsets on. Dropping it gives the share to others.
///
/// Every method may be dropped at any await: what a poll had read is then delivered by the next one,
/// and a commit or dead letter under way is finished or not.
pub struct KafkaConsumer {
    inner: Arc<Inner>,
    /// `None` only while dropping.
    group: Option<Arc<Group>>,
    seat: Seat,
}

/// Where the reader is. One call at a time has it, on a thread that may block.
enum Seat {
    Here(Option<Box<Reader>>),
    Away(JoinHandle<Box<Reader>>),
}

impl KafkaConsumer {
    pub(super) async fn join(inner: Arc<Inner>) -> PortResult<Self> {
        let group = Arc::new(Group::join(&inner.settings, &inner.names, inner.metrics.clone())?);
        let wait = Duration::from_millis(inner.settings.session_timeout_ms.into()) * JOIN_SESSIONS;
        let reader = Box::new(Reader::new(Arc::clone(&group)));
        let mut consumer = Self { inner, group: Some(group), seat: Seat::Here(Some(reader)) };
        consumer.call(move |reader, gone| reader.wait_for_share(wait, gone)).await??;
        Ok(consumer)
    }

    /// Partitions of this consumer at the moment.
    #[must_use]
    pub fn partitions(&self) -> Vec<u32> {
        self.group.as_ref().map(|group| group.owned()).unwrap_or_default()
    }

    /// Runs `call` with the reader. Dropped before it returns, the call learns that its caller is
    /// gone and ends soon; the next one waits for that.
    async fn call<T: Send + 'static>(
        &mut self,
        call: impl FnOnce(&mut Reader, Gone<'_>) -> T + Send + 'static,
    ) -> PortResult<T> {
        self.come_back().await;
        let Seat::Here(reader) = &mut self.seat else { return Err(broken("the reader is away")) };
        let mut reader = reader.take().ok_or_else(|| broken("the reader has ended"))?;
        let (answer, answered) = oneshot::channel();
        self.seat = Seat::Away(spawn_blocking(move || {
            let result = call(&mut reader, &|| answer.is_closed());
            // What the reader holds is in the reader; a result without a caller is of no use.
            let _ = answer.send(result);
            reader
        }));
        let result = answered.await;
        self.come_back().await;
        result.map_err(|_| unavailable("the reader was stopped"))
    }

    /// Waits until the last call is over. Safe to drop.
    async fn come_back(&mut self) {
        if let Seat::Away(task) = &mut self.seat {
            self.seat = Seat::Here(task.await.ok());
        }
    }
}

#[async_trait]
impl QueueConsumer for KafkaConsumer {
    /// A poll also ends at 16 MiB of messages.
    async fn poll(&mut self, max: usize, linger: Duration) -> PortResult<Vec<Delivery>> {
        self.call(move |reader, gone| reader.fetch(max, linger, gone)).await??;
        // No await from here on: what leaves the reader is delivered.
        match &mut self.seat {
            Seat::Here(Some(reader)) => Ok(reader.deliver(max)),
            _ => Err(broken("the reader has ended")),
        }
    }

    /// A partition that meanwhile belongs to another member is left out: that one was given its
    /// messages, from the committed offset on.
    async fn commit(&mut self, upto: &[QueuePosition]) -> PortResult<()> {
        if upto.is_empty() {
            return Ok(());
        }
        let upto = upto.to_vec();
        self.call(move |reader, gone| reader.commit(&upto, gone)).await?
    }

    /// The same message may be put aside more than once.
    async fn dead_letter(&mut self, position: QueuePosition, bytes: &[u8], reason: &str) -> PortResult<()> {
        tracing::warn!(?position, reason, bytes = bytes.len(), "a message is put aside");
        self.inner.dead_letter(position, bytes, reason).await
    }

    /// Of this consumer's share.
    async fn lag(&self) -> PortResult<u64> {
        let group = self.group.clone().ok_or_else(|| broken("the consumer has ended"))?;
        let lag = spawn_blocking(move || group.lag()).await.map_err(|error| unavailable(format!("lag: {error}")))??;
        self.inner.metrics.depth(lag);
        Ok(lag)
    }
}

impl Drop for KafkaConsumer {
    /// Leaving the group waits for the cluster, so a thread that may block does it.
    fn drop(&mut self) {
        let (seat, group) = (std::mem::replace(&mut self.seat, Seat::Here(None)), self.group.take());
        if let Ok(runtime) = Handle::try_current() {
            drop(runtime.spawn_blocking(move || drop((seat, group))));
        }
    }
}
