//! The thread behind the commit point: writes tiles, index and state, then lets go of what it
//! wrote. Dying anywhere here is harmless: the block log holds everything, and what is behind
//! the high-water mark is replayed.

use std::{
    collections::VecDeque,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use ledger_core::{Hash32, block::STATE_DIGEST_INTERVAL, merkle::TreeSize, tile::TILE_WIDTH};
use parking_lot::{Condvar, Mutex};

use crate::{
    NodeError,
    bugs::{Bug, has},
    derived::{Applied, BlockEffects},
    handle::{CommittedBlock, Shared},
};

/// Blocks that wait for this thread, in bytes; beyond it the ledger thread waits, so that a slow
/// disk shows as back-pressure and not as memory.
const BACKLOG_BYTES_MAX: usize = 64 << 20;
/// Time between two syncs of the index: small blocks share one.
const PAUSE: Duration = Duration::from_millis(20);

/// Work in the order of the block log.
pub(crate) enum Work {
    Block(Arc<CommittedBlock>),
    Checkpoint { size: TreeSize, record: u64 },
}

#[derive(Default)]
struct Inner {
    queue: VecDeque<Work>,
    bytes: usize,
    closed: bool,
    failed: bool,
}

/// The queue in front of the thread.
#[derive(Default)]
pub(crate) struct Backlog {
    inner: Mutex<Inner>,
    changed: Condvar,
}

fn weight(work: &Work) -> usize {
    match work {
        Work::Block(block) => block.bytes,
        Work::Checkpoint { .. } => 0,
    }
}

impl Backlog {
    /// Hands over work; waits while too much is waiting already.
    pub(crate) fn push(&self, work: Work) -> Result<(), NodeError> {
        let mut inner = self.inner.lock();
        while inner.bytes > BACKLOG_BYTES_MAX && !inner.failed {
            self.changed.wait(&mut inner);
        }
        if inner.failed {
            return Err(NodeError::Damaged("index and state could not be written; see the log".to_owned()));
        }
        inner.bytes += weight(&work);
        inner.queue.push_back(work);
        self.changed.notify_all();
        Ok(())
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.inner.lock().bytes == 0
    }

    fn take(&self) -> Option<Vec<Work>> {
        let mut inner = self.inner.lock();
        while inner.queue.is_empty() && !inner.closed {
            self.changed.wait(&mut inner);
        }
        let taken: Vec<Work> = inner.queue.drain(..).collect();
        if taken.is_empty() { None } else { Some(taken) }
    }

    /// Takes the last `count` back and fills the backlog up, as if a large block were under way.
    #[cfg(test)]
    pub(crate) fn hold_back(&self, count: usize) -> Vec<Work> {
        let mut inner = self.inner.lock();
        inner.bytes += BACKLOG_BYTES_MAX;
        let kept = inner.queue.len() - count;
        inner.queue.split_off(kept).into()
    }

    fn done(&self, bytes: usize) {
        self.inner.lock().bytes -= bytes;
        self.changed.notify_all();
    }

    fn fail(&self) {
        self.inner.lock().failed = true;
        self.changed.notify_all();
    }

    pub(crate) fn close(&self) {
        self.inner.lock().closed = true;
        self.changed.notify_all();
    }
}

/// Fails the node unless the thread came to its regular end: a panic must not leave the ledger
/// thread waiting for room in the backlog for ever.
struct EndsRegularly<'a> {
    shared: &'a Shared,
    regular: bool,
}

impl Drop for EndsRegularly<'_> {
    fn drop(&mut self) {
        if !self.regular {
            self.shared.fail(&NodeError::Damaged("the thread that writes index and state has stopped".to_owned()));
            self.shared.backlog.fail();
        }
    }
}

/// Runs until the backlog is closed and empty.
pub(crate) fn run(shared: &Arc<Shared>, mut applied: Applied) {
    let mut end = EndsRegularly { shared, regular: false };
    let mut last = Instant::now();
    while let Some(mut work) = shared.backlog.take() {
        while !work.is_empty() {
            if let Err(error) = apply(shared, &mut applied, &mut work) {
                tracing::error!(%error, "index and state cannot be written");
                shared.fail(&error);
                return;
            }
            thread::sleep(PAUSE.saturating_sub(last.elapsed()));
            last = Instant::now();
        }
    }
    end.regular = true;
}

/// What the thread does with the first of what waits now: the simulator has no threads.
#[cfg(test)]
pub(crate) fn step(shared: &Arc<Shared>, applied: &mut Applied, most: usize) -> Result<(), NodeError> {
    let mut work: Vec<Work> = {
        let queue = &mut shared.backlog.inner.lock().queue;
        let count = most.min(queue.len());
        queue.drain(..count).collect()
    };
    apply(shared, applied, &mut work)?;
    let queue = &mut shared.backlog.inner.lock().queue;
    work.into_iter().rev().for_each(|work| queue.push_front(work));
    Ok(())
}

/// Applies work and takes out what is done. Some is left where damage keeps it from being done: it is
/// noted, and the caller tries again.
fn apply(shared: &Arc<Shared>, applied: &mut Applied, work: &mut Vec<Work>) -> Result<(), NodeError> {
    while !work.is_empty() {
        // A snapshot height ends a batch, so that the state of exactly that height is seen.
        let is_snapshot =
            |work: &Work| matches!(work, Work::Block(block) if block.height().is_multiple_of(STATE_DIGEST_INTERVAL));
        let end = work.iter().position(is_snapshot).map_or(work.len(), |at| at + 1);
        match apply_group(shared, applied, &work[..end]) {
            Err(error @ NodeError::DamagedPart { .. }) if !shared.damage.is_closed() => {
                shared.noted(error);
                return Ok(());
            }
            result => result?,
        }
        let group: Vec<Work> = work.drain(..end).collect();
        if group.last().is_some_and(is_snapshot) {
            digest_in_background(shared, applied.height);
        }
        shared.backlog.done(group.iter().map(weight).sum());
    }
    Ok(())
}

/// Applies a group of work as a whole. [`NodeError::DamagedPart`]: nothing of it is done yet.
fn apply_group(shared: &Shared, applied: &mut Applied, group: &[Work]) -> Result<(), NodeError> {
    let blocks: Vec<&Arc<CommittedBlock>> = group
        .iter()
        .filter_map(|work| match work {
            Work::Block(block) => Some(block),
            Work::Checkpoint { .. } => None,
        })
        .collect();
    let checkpoints: Vec<(TreeSize, u64)> = group
        .iter()
        .filter_map(|work| match work {
            Work::Checkpoint { size, record } => Some((*size, *record)),
            Work::Block(_) => None,
        })
        .collect();
    let mut next = *applied;
    if let Some(last) = blocks.last() {
        let header = &last.block.header;
        next = Applied {
            height: header.height,
            header: last.hash,
            size: TreeSize(header.tree_size),
            root: header.root,
            time: header.time,
            checkpoints: applied.checkpoints,
        };
    }
    if let Some((_, record)) = checkpoints.last() {
        next.checkpoints = record + 1;
    }
    // Entries of the incomplete bundle. The tree may be ahead of that: a bundle that was full and
    // written before may be damaged by now, and nothing goes on until it is healed.
    let edge_of = if has(Bug::EdgeOfTheMarkBefore) { applied.size } else { next.size };
    let edge = shared.tree().entries(edge_of.0 - edge_of.0 % TILE_WIDTH, edge_of.0)?;
    *applied = next;
    let completed = shared.tail.write().take_completed();
    // Durable after this line: every full tile of these blocks. The index does not know yet.
    if !has(Bug::MarkMovesBeforeTiles) {
        shared.files.write(&completed)?;
    }
    let effects: Vec<BlockEffects<'_>> = blocks
        .iter()
        .map(|block| BlockEffects {
            height: block.height(),
            first_index: block.first_index(),
            entries: &block.entries,
            keys: &block.keys,
            changes: &block.changes,
        })
        .collect();
    // Durable after this line: index, state and high-water mark, all or nothing.
    shared.state.store.apply(&effects, &checkpoints, &edge, *applied)?;
    if has(Bug::MarkMovesBeforeTiles) {
        shared.files.write(&completed)?;
    }
    shared.tail.write().forget(&completed);
    for block in &blocks {
        shared.state.settle(block.height(), &block.changes);
    }
    shared.recent.write().settle(applied.height, checkpoints.last().map(|(size, _)| *size));
    Ok(())
}

/// Computes the digest of the whole state at `height`, which the header of
/// `height + STATE_DIGEST_INTERVAL` will carry.
fn digest_in_background(shared: &Arc<Shared>, height: u64) {
    let (shared, snapshot) = (Arc::clone(shared), shared.state.store.snapshot());
    let run = move || {
        let digest = shared.state.store.state_digest(&snapshot);
        match digest.and_then(|digest| shared.state.store.store_state_digest(height, digest)) {
            Ok(()) => shared.state_digests.notify(),
            Err(error) => shared.fail(&error),
        }
    };
    if let Err(error) = thread::Builder::new().name("state-digest".to_owned()).spawn(run) {
        tracing::error!(%error, "no thread for the state digest");
    }
}

/// Wakes whoever waits for a state digest.
#[derive(Default)]
pub(crate) struct StateDigests {
    lock: Mutex<()>,
    arrived: Condvar,
}

impl StateDigests {
    fn notify(&self) {
        let _held = self.lock.lock();
        self.arrived.notify_all();
    }

    /// The stored digest of `height`; waits for the thread that computes it.
    pub(crate) fn wait(&self, shared: &Shared, height: u64) -> Result<Hash32, NodeError> {
        let mut held = self.lock.lock();
        loop {
            if let Some(digest) = shared.state.store.stored_state_digest(height)? {
                return Ok(digest);
            }
            if shared.failure().is_some() {
                return Err(NodeError::Damaged("the state digest could not be computed".to_owned()));
            }
            self.arrived.wait_for(&mut held, Duration::from_secs(1));
        }
    }
}
