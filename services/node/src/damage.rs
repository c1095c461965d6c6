//! What is known to be damaged.
//!
//! Whoever meets damage notes it here; [`crate::repair`] takes it out once it is healed and read back.
//! Invariant: while a part stands here that a signature rests on, this node signs no checkpoint.
//! Only [`Damage::allows_signing`] is asked; otherwise a node would vouch for what it cannot show.

use std::{collections::BTreeSet, fmt, time::Duration};

use ledger_core::{merkle::LeafIndex, tile::TileKind};
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use crate::tiles::full;

/// A part of the stored data that can be damaged for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A full tile or entry bundle.
    Tile(TileKind, u64),
    /// What the index says of an entry id or digest: its number, then the whole hash.
    Key([u8; 33]),
    /// What the index says of the block that holds an entry.
    BlockOf(LeafIndex),
    /// What the index says of the first checkpoint over an entry.
    CheckpointOver(LeafIndex),
    /// A block in the block log. Nothing that is signed rests on it again.
    Block(u64),
}

impl Part {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Tile(TileKind::Hashes(_), _) => "tile",
            Self::Tile(TileKind::Entries, _) => "bundle",
            Self::Key(_) | Self::BlockOf(_) | Self::CheckpointOver(_) => "index",
            Self::Block(_) => "block",
        }
    }

    /// Whether a signature rests on it.
    const fn is_signed_for(&self) -> bool {
        !matches!(self, Self::Block(_))
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tile(kind, index) => f.write_str(&full(*kind, *index).path()),
            Self::Key(key) => write!(f, "index of {}:{}", key[0], hex::encode(&key[1..])),
            Self::BlockOf(index) => write!(f, "index of the block of entry {}", index.0),
            Self::CheckpointOver(index) => write!(f, "index of the checkpoint over entry {}", index.0),
            Self::Block(height) => write!(f, "block {height}"),
        }
    }
}

/// What is known to be damaged.
pub(crate) struct Damage {
    inner: Mutex<Inner>,
    changed: Condvar,
    /// Whether the process is told to end: nothing more is healed, also where the node is not open yet.
    stop: watch::Receiver<bool>,
}

#[derive(Default)]
struct Inner {
    parts: BTreeSet<Part>,
    /// Noted since the thread last looked.
    fresh: BTreeSet<Part>,
    closed: bool,
}

impl Damage {
    pub(crate) fn new(stop: watch::Receiver<bool>) -> Self {
        Self { inner: Mutex::default(), changed: Condvar::new(), stop }
    }

    /// Remembers a damaged part; says so the first time.
    pub(crate) fn note(&self, part: Part, reason: &str) {
        let mut inner = self.inner.lock();
        if inner.parts.insert(part) {
            inner.fresh.insert(part);
            tracing::warn!(%part, reason, "damage found");
            metrics::counter!("chopmark_node_damage_found_total", "kind" => part.kind()).increment(1);
            self.told(&inner);
        }
    }

    pub(crate) fn healed(&self, part: &Part) {
        let mut inner = self.inner.lock();
        if inner.parts.remove(part) {
            tracing::info!(%part, "healed");
            metrics::counter!("chopmark_node_repaired_total", "kind" => part.kind()).increment(1);
            self.told(&inner);
        }
    }

    fn told(&self, inner: &Inner) {
        metrics::gauge!("chopmark_node_damaged_parts").set(inner.parts.len() as f64);
        self.changed.notify_all();
    }

    /// Whether nothing is damaged that a signature rests on.
    pub(crate) fn allows_signing(&self) -> bool {
        !self.inner.lock().parts.iter().any(Part::is_signed_for)
    }

    pub(crate) fn contains(&self, part: &Part) -> bool {
        self.inner.lock().parts.contains(part)
    }

    /// Whether what the index does not have may be there all the same.
    pub(crate) fn doubts_index(&self) -> bool {
        self.inner.lock().parts.iter().any(|part| matches!(part, Part::Key(_)))
    }

    pub(crate) fn parts(&self) -> Vec<Part> {
        self.inner.lock().parts.iter().copied().collect()
    }

    pub(crate) fn fresh(&self) -> BTreeSet<Part> {
        std::mem::take(&mut self.inner.lock().fresh)
    }

    /// Waits until something is noted or healed, the node closes, or the time is over.
    pub(crate) fn wait(&self, timeout: Duration) {
        let mut inner = self.inner.lock();
        if !inner.closed && inner.fresh.is_empty() {
            self.changed.wait_for(&mut inner, timeout);
        }
    }

    pub(crate) fn close(&self) {
        self.inner.lock().closed = true;
        self.changed.notify_all();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.inner.lock().closed || *self.stop.borrow()
    }
}
