//! What publishers, the writer and the consumer know of each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chopmark_domain::ports::{PortError, PortResult};
use segment_log::SegmentReader;

use super::failure::PORT;
use crate::metric::Metrics;

/// The readable end of the log, as the writer tells it to the consumer.
#[derive(Debug, Clone)]
pub(super) struct Tail {
    /// Offset of the next message; everything below is durable.
    pub(super) next: u64,
    /// Counts openings: readers of an earlier one do not see what is appended now.
    pub(super) opening: u64,
    /// Reads the log as opened.
    pub(super) reader: SegmentReader,
}

/// Counters of one open queue.
#[derive(Debug)]
pub(super) struct Shared {
    /// The durable committed offset. Only the consumer's commit moves it, after its sync.
    pub(super) committed: AtomicU64,
    /// Next offset, for depth and statistics.
    pub(super) next: AtomicU64,
    /// Appends since opening, each with one sync.
    pub(super) appends: AtomicU64,
    /// Bytes of the log's segments. Only the writer changes it.
    pub(super) log_bytes: AtomicU64,
    waiting_bytes: AtomicU64,
    waiting_bytes_max: u64,
    log_bytes_max: u64,
    pub(super) metrics: Metrics,
}

impl Shared {
    pub(super) fn new(config: &super::Config, committed: u64, next: u64, log_bytes: u64, metrics: Metrics) -> Self {
        Self {
            committed: committed.into(),
            next: next.into(),
            appends: 0.into(),
            log_bytes: log_bytes.into(),
            waiting_bytes: 0.into(),
            waiting_bytes_max: config.waiting_bytes_max,
            log_bytes_max: config.log_bytes_max,
            metrics,
        }
    }

    /// Takes room for `bytes`, in memory until they are written and then on disk.
    pub(super) fn reserve(self: &Arc<Self>, bytes: u64) -> PortResult<Reserved> {
        let log_bytes = self.log_bytes.load(Ordering::Acquire);
        let taken = self.waiting_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, |waiting| {
            let waiting = waiting.saturating_add(bytes);
            let fits = waiting <= self.waiting_bytes_max && log_bytes.saturating_add(waiting) <= self.log_bytes_max;
            fits.then_some(waiting)
        });
        match taken {
            Ok(_) => Ok(Reserved { shared: Arc::clone(self), bytes }),
            Err(_) => Err(PortError::Full(PORT)),
        }
    }

    /// Messages behind the newest.
    pub(super) fn lag(&self) -> u64 {
        self.next.load(Ordering::Acquire).saturating_sub(self.committed.load(Ordering::Acquire))
    }
}

/// Room for messages that wait to be written; given back when dropped.
#[derive(Debug)]
pub(super) struct Reserved {
    shared: Arc<Shared>,
    pub(super) bytes: u64,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.shared.waiting_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}
