//! The pool: submissions that wait for a block. Bounded in bytes; full means "later", never
//! growth.

use std::time::{Duration, Instant};

use ledger_core::{Hash32, batch::Submission, outcome::RejectionCode};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

/// How a submitted operation ended: the request that got the outcome, and the outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Keyed digest of the request that holds the operation id.
    pub request: Hash32,
    /// Leaf index, or rejection.
    pub result: Result<u64, RejectionCode>,
}

/// A submission with whom to tell.
pub(crate) struct Waiting {
    pub(crate) submission: Submission,
    /// Operation ids in the order of the items.
    pub(crate) ops: Vec<Hash32>,
    pub(crate) reply: oneshot::Sender<Vec<Ended>>,
}

#[derive(Default)]
struct Inner {
    queue: std::collections::VecDeque<(usize, Waiting)>,
    bytes: usize,
    closed: bool,
}

/// Submissions in order of arrival.
pub(crate) struct Pool {
    inner: Mutex<Inner>,
    arrived: Condvar,
    bytes_max: usize,
}

/// Why a submission was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PoolError {
    Full,
    Closed,
}

impl Pool {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { inner: Mutex::default(), arrived: Condvar::new(), bytes_max }
    }

    /// Takes a submission unless that would exceed the bound. An empty pool takes any.
    pub(crate) fn push(&self, waiting: Waiting) -> Result<(), PoolError> {
        let bytes = waiting.submission.encoded_len();
        let mut inner = self.inner.lock();
        if inner.closed {
            return Err(PoolError::Closed);
        }
        if inner.bytes > 0 && inner.bytes + bytes > self.bytes_max {
            return Err(PoolError::Full);
        }
        inner.bytes += bytes;
        inner.queue.push_back((bytes, waiting));
        drop(inner);
        self.arrived.notify_one();
        Ok(())
    }

    /// The next submissions, together at most `bytes_max` (but at least one); waits for the
    /// first until `deadline`. `None` once the pool is closed.
    pub(crate) fn take(&self, bytes_max: usize, deadline: Option<Instant>) -> Option<Vec<Waiting>> {
        let mut inner = self.inner.lock();
        while inner.queue.is_empty() && !inner.closed {
            match deadline {
                None => self.arrived.wait(&mut inner),
                Some(deadline) => {
                    if self.arrived.wait_until(&mut inner, deadline).timed_out() {
                        break;
                    }
                }
            }
        }
        if inner.closed {
            return None;
        }
        let (mut taken, mut total) = (Vec::new(), 0);
        while let Some((bytes, _)) = inner.queue.front() {
            if total > 0 && total + bytes > bytes_max {
                break;
            }
            total += bytes;
            taken.extend(inner.queue.pop_front().map(|(_, waiting)| waiting));
        }
        inner.bytes -= total;
        Some(taken)
    }

    /// Refuses everything from now on; those who wait are told by their dropped reply.
    pub(crate) fn close(&self) {
        let mut inner = self.inner.lock();
        inner.closed = true;
        inner.bytes = 0;
        let waiting = std::mem::take(&mut inner.queue);
        drop(inner);
        self.arrived.notify_all();
        drop(waiting);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.inner.lock().bytes
    }
}

/// When to look again, `after` from now.
pub(crate) fn deadline(after: Duration) -> Option<Instant> {
    Instant::now().checked_add(after)
}
