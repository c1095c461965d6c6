//! What is known to be damaged.
//!
//! Whoever meets damage notes it here; [`crate::repair`] takes it out once it is healed and read back.
//! Invariant: while a part stands here that a signature rests on, this node signs no checkpoint.
//! Only [`Damage::allows_signing`] is asked; otherwise a node would vouch for what it cannot show.
//! What is known stands in a file too, a line for each part, so that a restart does not forget it.

use std::{
    collections::BTreeSet,
    fmt,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use ledger_core::{
    merkle::LeafIndex,
    tile::{TILE_WIDTH, TileKind, TilePath},
};
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use crate::{
    NodeError,
    bugs::{Bug, has},
    disk::{self, Extent},
    tiles::full,
};

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

    /// Reads a part as [`fmt::Display`] writes it.
    fn parse(line: &str) -> Option<Self> {
        let number = |prefix| line.strip_prefix(prefix)?.parse().ok();
        if let Some(path) = TilePath::parse(line) {
            let TilePath { kind, index, width } = path;
            (u64::from(width) == TILE_WIDTH).then_some(Self::Tile(kind, index))
        } else if let Some(key) = line.strip_prefix("index of ").and_then(|key| key.split_once(':')) {
            let mut bytes = [key.0.parse().ok()?; 33];
            hex::decode_to_slice(key.1, &mut bytes[1..]).ok()?;
            Some(Self::Key(bytes))
        } else if let Some(index) = number("index of the block of entry ") {
            Some(Self::BlockOf(LeafIndex(index)))
        } else if let Some(index) = number("index of the checkpoint over entry ") {
            Some(Self::CheckpointOver(LeafIndex(index)))
        } else {
            number("block ").map(Self::Block)
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
    path: PathBuf,
}

#[derive(Default)]
struct Inner {
    parts: BTreeSet<Part>,
    /// Noted since the thread last looked.
    fresh: BTreeSet<Part>,
    /// What the file says.
    kept: BTreeSet<Part>,
    closed: bool,
}

impl Damage {
    /// Takes up what was known before the restart. The repair looks at all of it first.
    pub(crate) fn open(path: PathBuf, stop: watch::Receiver<bool>) -> Result<Self, NodeError> {
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read.map_err(NodeError::io("read", &path))?,
        };
        let mut kept = BTreeSet::new();
        for line in String::from_utf8_lossy(&text).lines().filter(|_| !has(Bug::RestartForgetsDamage)) {
            match Part::parse(line) {
                Some(part) => drop(kept.insert(part)),
                None => tracing::warn!(line, path = %path.display(), "not the name of a damaged part"),
            }
        }
        if !kept.is_empty() {
            tracing::warn!(parts = kept.len(), "damage is known from before the restart");
        }
        let inner = Inner { parts: kept.clone(), fresh: kept.clone(), kept, closed: false };
        Ok(Self { inner: Mutex::new(inner), changed: Condvar::new(), stop, path })
    }

    /// Writes down what is known, where the file says something else. Dying before that is harmless only
    /// as far as the scrub finds it again: the repair calls this before it heals anything.
    pub(crate) fn keep(&self) -> Result<(), NodeError> {
        let parts = {
            let inner = self.inner.lock();
            if inner.parts == inner.kept {
                return Ok(());
            }
            inner.parts.clone()
        };
        let text: String = parts.iter().map(|part| format!("{part}\n")).collect();
        write_whole(&self.path, &text).map_err(NodeError::io("write", &self.path))?;
        self.inner.lock().kept = parts;
        Ok(())
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

    /// Whether there is something for the repair.
    #[cfg(test)]
    pub(crate) fn is_fresh(&self) -> bool {
        !self.inner.lock().fresh.is_empty()
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

/// Puts a file in place of the one before; when it returns, it is durable under its name.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let (temporary, folder) = (path.with_extension("tmp"), path.parent().unwrap_or(path));
    let mut file = File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    disk::sync(&file, &temporary, Extent::Data)?;
    fs::rename(&temporary, path)?;
    disk::sync(&File::open(folder)?, folder, Extent::All)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> Result<Damage, NodeError> {
        Damage::open(path.to_owned(), watch::Sender::new(false).subscribe())
    }

    #[test]
    fn what_is_known_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("damage");
        let parts = [
            Part::Tile(TileKind::Hashes(2), 1_234_567),
            Part::Tile(TileKind::Entries, 0),
            Part::Key([7; 33]),
            Part::Key([0; 33]),
            Part::BlockOf(LeafIndex(u64::MAX)),
            Part::CheckpointOver(LeafIndex(3)),
            Part::Block(9),
        ];
        let damage = open(&path).unwrap();
        assert!(damage.allows_signing());
        parts.iter().for_each(|part| damage.note(*part, "test"));
        damage.keep().unwrap();
        let again = open(&path).unwrap();
        assert_eq!(again.fresh(), BTreeSet::from(parts));
        assert!(!again.allows_signing());
        parts.iter().for_each(|part| again.healed(part));
        again.keep().unwrap();
        assert!(open(&path).unwrap().parts().is_empty());
    }
}
