//! The pool: submissions that wait for their outcomes. They stay until a block has decided all
//! their operations, whoever proposed it. Bounded in bytes; full means "later", never growth.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use ledger_core::{Hash32, batch::Submission, outcome::RejectionCode};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::bugs::{Bug, has};

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

struct Queued {
    bytes: usize,
    waiting: Waiting,
    ended: Vec<Option<Ended>>,
    /// How many of `ended` are still to come.
    open: usize,
}

#[derive(Default)]
struct Inner {
    /// In order of arrival.
    queue: BTreeMap<u64, Queued>,
    /// Which of the queue wait for an operation, and as which of their items.
    by_op: HashMap<Hash32, Vec<(u64, usize)>>,
    next: u64,
    bytes: usize,
    closed: bool,
}

/// Submissions in order of arrival.
pub(crate) struct Pool {
    inner: Mutex<Inner>,
    changed: Arc<Notify>,
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
        Self { inner: Mutex::default(), changed: Arc::default(), bytes_max }
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
        let number = inner.next;
        inner.next += 1;
        inner.bytes += bytes;
        for (item, op) in waiting.ops.iter().enumerate() {
            inner.by_op.entry(*op).or_default().push((number, item));
        }
        let open = waiting.ops.len();
        inner.queue.insert(number, Queued { bytes, waiting, ended: vec![None; open], open });
        drop(inner);
        self.changed.notify_one();
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.inner.lock().queue.is_empty()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.inner.lock().closed
    }

    /// Is told when something was pushed, or the pool was closed.
    pub(crate) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    /// The first submissions, together at most `bytes_max` (but at least one); they stay.
    pub(crate) fn first(&self, bytes_max: usize) -> Vec<(Submission, Vec<Hash32>)> {
        let inner = self.inner.lock();
        let (mut taken, mut total) = (Vec::new(), 0);
        for queued in inner.queue.values() {
            if total > 0 && total + queued.bytes > bytes_max {
                break;
            }
            total += queued.bytes;
            taken.push((queued.waiting.submission.clone(), queued.waiting.ops.clone()));
        }
        taken
    }

    /// These operations have ended: whoever waits for nothing else is told, and leaves the pool.
    pub(crate) fn ended(&self, outcomes: impl Iterator<Item = (Hash32, Ended)>) {
        let mut done = Vec::new();
        let mut inner = self.inner.lock();
        for (op, outcome) in outcomes {
            let first_alone = if has(Bug::PoolTellsOneWaiter) { 1 } else { usize::MAX };
            for (number, item) in inner.by_op.remove(&op).unwrap_or_default().into_iter().take(first_alone) {
                let Some(queued) = inner.queue.get_mut(&number) else { continue };
                if queued.ended[item].replace(outcome).is_none() {
                    queued.open -= 1;
                }
                if (queued.open == 0 || has(Bug::PoolAnswersInPart))
                    && let Some(queued) = inner.queue.remove(&number)
                {
                    inner.bytes -= if has(Bug::PoolLeaksRoom) { 0 } else { queued.bytes };
                    done.push(queued);
                }
            }
        }
        drop(inner);
        for queued in done {
            // Whoever asked may have gone; the outcome stands all the same.
            let _gone = queued.waiting.reply.send(queued.ended.into_iter().flatten().collect());
        }
    }

    /// Drops submissions that can never be part of a block; whoever waits is told that nothing
    /// came of them.
    pub(crate) fn retain(&self, keep: impl Fn(&Submission) -> bool) {
        let mut inner = self.inner.lock();
        let dropped: Vec<u64> =
            inner.queue.iter().filter(|(_, queued)| !keep(&queued.waiting.submission)).map(|(at, _)| *at).collect();
        for number in dropped {
            let Some(queued) = inner.queue.remove(&number) else { continue };
            inner.bytes -= queued.bytes;
            for op in &queued.waiting.ops {
                if let Some(numbers) = inner.by_op.get_mut(op) {
                    numbers.retain(|(known, _)| *known != number);
                    if numbers.is_empty() {
                        inner.by_op.remove(op);
                    }
                }
            }
        }
    }

    /// Refuses everything from now on; those who wait are told by their dropped reply.
    pub(crate) fn close(&self) {
        let mut inner = self.inner.lock();
        inner.closed = true;
        inner.bytes = 0;
        inner.by_op.clear();
        let waiting = std::mem::take(&mut inner.queue);
        drop(inner);
        self.changed.notify_one();
        drop(waiting);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.inner.lock().bytes
    }
}
