//! Index and state in `fjall`: derived from the block log, replayed from it after a crash.
//!
//! Keyspaces (ADR 0003):
//! - `state`: the ledger's ordered state.
//! - `digest`: number ‖ whole hash → leaf index of its first entry (u64 BE), so that a Bloom filter
//!   answers a miss. The number is the algorithm's of a digest, and 0 of an entry id.
//! - `digest_more`: number ‖ hash ‖ leaf index → nothing: every later entry of a hash.
//! - `height_by_size`: first leaf index after a block's entries (u64 BE) → its height; only
//!   blocks with entries.
//! - `checkpoint`: tree size (u64 BE) → number of its record in the checkpoint log.
//! - `members`: first tree size that a member set signs for (u64 BE) → the set.
//! - `meta`: high-water mark, right edge, state digests.
//!
//! Invariant: one atomic batch moves everything of a block together with the high-water mark,
//! after the block's tiles are durable as files. What is behind the mark is replayed.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    io::{self, ErrorKind},
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::Arc,
};

#[cfg(not(test))]
use fjall::{Database, Guard, Keyspace, KeyspaceCreateOptions, PersistMode, Readable as _, Snapshot};
use ledger_core::{
    Hash32,
    codec::{DecodeError, Reader, Writer},
    digests::{Algorithm, Digests},
    entry::entry_id,
    json::from_canonical,
    member::MemberSet,
    merkle::{LeafIndex, TreeSize},
    state::{Changes, StateDigest, StateError, StateRead, key},
    tile::{decode_bundle, push_entry},
};
use parking_lot::{Mutex, MutexGuard, RwLock};
use rustix::io::Errno;

#[cfg(test)]
use crate::simulation::store::{Database, Guard, Keyspace, KeyspaceCreateOptions, PersistMode, Snapshot};
use crate::{
    NodeError,
    bugs::{Bug, has},
    manifests,
};

/// Memory for the block cache; with memtables of 16 MiB each it keeps a node of 10^7 records below 512 MiB.
const CACHE_BYTES: u64 = 96 << 20;
/// Version of what is indexed; an index of another one is refused, and made anew without it.
const INDEX_VERSION: u8 = 2;
/// Number of entry ids in index keys; algorithms count from 1.
const ENTRY_ID_NUMBER: u8 = 0;
const KEY_APPLIED: &[u8] = b"applied";
const KEY_EDGE: &[u8] = b"edge";

/// The high-water mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) height: u64,
    pub(crate) header: Hash32,
    pub(crate) size: TreeSize,
    pub(crate) root: Hash32,
    pub(crate) time: u64,
    /// Records of the checkpoint log that are indexed.
    pub(crate) checkpoints: u64,
}

impl Applied {
    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(INDEX_VERSION).u64(self.height).fixed(&self.header.0).u64(self.size.0).fixed(&self.root.0);
        writer.u64(self.time).u64(self.checkpoints);
        writer.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != INDEX_VERSION {
            return Err(DecodeError::Range("version of the index"));
        }
        let applied = Self {
            height: reader.u64()?,
            header: Hash32(reader.array()?),
            size: TreeSize(reader.u64()?),
            root: Hash32(reader.array()?),
            time: reader.u64()?,
            checkpoints: reader.u64()?,
        };
        reader.end()?;
        Ok(applied)
    }
}

/// What one block changes in index and state.
pub(crate) struct BlockEffects<'a> {
    pub(crate) height: u64,
    pub(crate) first_index: u64,
    pub(crate) entries: &'a [Vec<u8>],
    /// [`index_keys`] of the entries.
    pub(crate) keys: &'a [(IndexKey, u64)],
    pub(crate) changes: &'a Changes,
}

/// The open store.
#[derive(Clone)]
pub(crate) struct Derived {
    db: Database,
    state: Keyspace,
    digest: Keyspace,
    digest_more: Keyspace,
    height_by_size: Keyspace,
    checkpoint: Keyspace,
    members: Keyspace,
    meta: Keyspace,
    /// Held by whoever writes what depends on what it read.
    writing: Arc<Mutex<()>>,
    path: Arc<Path>,
}

/// Nobody else writes.
pub(crate) struct Held<'a>(#[expect(dead_code, reason = "held, not read")] MutexGuard<'a, ()>);

impl Derived {
    /// Whether `path` holds a store that was made to its end. fjall writes the marker last, and
    /// does not open a folder in which it died before that.
    pub(crate) fn is_finished(path: &Path) -> bool {
        path.join("version").metadata().is_ok_and(|marker| marker.len() > 0)
    }

    /// Opens the store, or makes it. The caller keeps other processes away.
    pub(crate) fn open(path: &Path) -> Result<Self, NodeError> {
        if path.exists() && !Self::is_finished(path) {
            tracing::warn!(path = %path.display(), "removing an index that was never finished");
            fs::remove_dir_all(path).map_err(NodeError::io("remove unfinished index", path))?;
        }
        manifests::check(path)?;
        let db = without_panic(|| Database::builder(path).cache_size(CACHE_BYTES).worker_threads(1).open())?;
        let db = db.map_err(|error| match error {
            fjall::Error::Locked => NodeError::InUse(path.to_owned()),
            error => error.into(),
        })?;
        let point = || KeyspaceCreateOptions::default().max_memtable_size(16 << 20);
        let keyspace = |name: &str| db.keyspace(name, point);
        Ok(Self {
            state: keyspace("state")?,
            digest: keyspace("digest")?,
            digest_more: keyspace("digest_more")?,
            height_by_size: keyspace("height_by_size")?,
            checkpoint: keyspace("checkpoint")?,
            members: keyspace("members")?,
            meta: keyspace("meta")?,
            db,
            writing: Arc::default(),
            path: path.into(),
        })
    }

    /// Opens the store; one that is damaged is set aside, for it is made anew from the block log.
    pub(crate) fn open_or_set_aside(path: &Path) -> Result<Self, NodeError> {
        let mark = mark_of(path);
        let opened = if mark.exists() { None } else { Some(Self::open(path).and_then(Self::read_first)) };
        match opened {
            Some(Err(NodeError::Store(error))) if is_corrupt(&error) => {
                tracing::error!(%error, "index and state are damaged");
            }
            Some(Err(error @ NodeError::Damaged(_))) => tracing::error!(%error, "index and state are damaged"),
            Some(opened) if !mark.exists() => return opened,
            _ => {}
        }
        set_aside(path)?;
        if mark.exists() {
            fs::remove_file(&mark).map_err(NodeError::io("remove mark", &mark))?;
        }
        Self::open(path)
    }

    /// Reads what every start reads.
    fn read_first(self) -> Result<Self, NodeError> {
        if self.applied()?.is_some() {
            self.members()?;
            ledger_core::state::members(&LiveState::new(self.clone()))?;
        } else if self.keyspaces().iter().any(|keyspace| keyspace.iter().next().is_some()) {
            return Err(NodeError::Damaged("the index holds something and has no high-water mark".to_owned()));
        }
        Ok(self)
    }

    const fn keyspaces(&self) -> [&Keyspace; 7] {
        let Self { state, digest, digest_more, height_by_size, checkpoint, members, meta, .. } = self;
        [state, digest, digest_more, height_by_size, checkpoint, members, meta]
    }

    /// Has the next start set this store aside and make a new one.
    pub(crate) fn mark(&self, reason: &str) {
        let mark = mark_of(&self.path);
        tracing::error!(reason, "index and state are damaged: the next start makes them anew from the block log");
        if let Err(error) = fs::write(&mark, reason) {
            tracing::error!(%error, path = %mark.display(), "the mark cannot be written");
        }
    }

    /// Keeps other writers away.
    pub(crate) fn hold(&self) -> Held<'_> {
        Held(self.writing.lock())
    }

    /// Replaces all positions of some keys.
    pub(crate) fn replace_positions(
        &self,
        _held: &Held<'_>,
        positions: &BTreeMap<IndexKey, Vec<u64>>,
    ) -> Result<(), NodeError> {
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncAll));
        for (key, indexes) in positions {
            let at = |index: u64| [&key[..], &index.to_be_bytes()].concat();
            batch.remove(&self.digest, key.as_slice());
            for item in self.digest_more.range(at(0)..=at(u64::MAX)) {
                batch.remove(&self.digest_more, item.key()?);
            }
            let mut indexes = indexes.iter();
            if let Some(first) = indexes.next() {
                batch.insert(&self.digest, key.as_slice(), first.to_be_bytes());
            }
            indexes.for_each(|index| batch.insert(&self.digest_more, at(*index), []));
        }
        Ok(batch.commit()?)
    }

    /// Replaces what is said of the block that holds the entries from `start` up to `end`.
    pub(crate) fn replace_block_of(&self, held: &Held<'_>, start: u64, end: u64, height: u64) -> Result<(), NodeError> {
        self.replace_between(held, &self.height_by_size, start, end, height)
    }

    /// Replaces what is said of the checkpoint that is the first over the entries from `start` up to `end`.
    pub(crate) fn replace_checkpoint_over(
        &self,
        held: &Held<'_>,
        start: u64,
        end: u64,
        record: u64,
    ) -> Result<(), NodeError> {
        self.replace_between(held, &self.checkpoint, start, end, record)
    }

    fn replace_between(
        &self,
        _held: &Held<'_>,
        keyspace: &Keyspace,
        start: u64,
        end: u64,
        value: u64,
    ) -> Result<(), NodeError> {
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncAll));
        for item in keyspace.range((start + 1).to_be_bytes()..end.to_be_bytes()) {
            batch.remove(keyspace, item.key()?);
        }
        batch.insert(keyspace, end.to_be_bytes(), value.to_be_bytes());
        Ok(batch.commit()?)
    }

    pub(crate) fn applied(&self) -> Result<Option<Applied>, NodeError> {
        let bytes = self.meta.get(KEY_APPLIED)?;
        let applied = bytes.map(|bytes| Applied::decode(&bytes)).transpose();
        applied.map_err(|error| NodeError::Damaged(format!("high-water mark: {error}")))
    }

    /// Entries of the incomplete bundle at the high-water mark.
    pub(crate) fn edge(&self, size: TreeSize) -> Result<Vec<Vec<u8>>, NodeError> {
        let bytes = self.meta.get(KEY_EDGE)?.unwrap_or_default();
        let width = usize::try_from(size.0 % 256).unwrap_or_default();
        let entries = decode_bundle(&bytes, width).map_err(|_| NodeError::Damaged("stored right edge".to_owned()))?;
        Ok(entries.into_iter().map(<[u8]>::to_vec).collect())
    }

    /// Applies blocks and checkpoints in one atomic, durable batch.
    pub(crate) fn apply(
        &self,
        blocks: &[BlockEffects<'_>],
        checkpoints: &[(TreeSize, u64)],
        edge: &[Vec<u8>],
        applied: Applied,
    ) -> Result<(), NodeError> {
        let _held = self.hold();
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncAll));
        let mut fresh: HashSet<IndexKey> = HashSet::new();
        for block in blocks {
            for (key, value) in block.changes {
                match value {
                    Some(value) => batch.insert(&self.state, key.as_slice(), value.as_slice()),
                    None => batch.remove(&self.state, key.as_slice()),
                }
            }
            for (key, index) in block.keys {
                if !fresh.insert(*key) || self.digest.contains_key(key)? {
                    batch.insert(&self.digest_more, [&key[..], &index.to_be_bytes()].concat(), []);
                } else {
                    batch.insert(&self.digest, key.as_slice(), index.to_be_bytes());
                }
            }
            if let Some(Some(members)) = block.changes.get(key::MEMBERS) {
                batch.insert(&self.members, (block.first_index + 1).to_be_bytes(), members.as_slice());
            }
            if !block.entries.is_empty() {
                let size = block.first_index + block.entries.len() as u64;
                batch.insert(&self.height_by_size, size.to_be_bytes(), block.height.to_be_bytes());
            }
        }
        for (size, record) in checkpoints {
            batch.insert(&self.checkpoint, size.0.to_be_bytes(), record.to_be_bytes());
        }
        let mut bundle = Vec::new();
        edge.iter().for_each(|entry| push_entry(&mut bundle, entry));
        batch.insert(&self.meta, KEY_EDGE, bundle);
        batch.insert(&self.meta, KEY_APPLIED, applied.encode());
        batch.commit()?;
        Ok(())
    }

    /// Leaf indexes of a key from `from` on, in ascending order, at most `max`.
    pub(crate) fn find(&self, key: &IndexKey, from: LeafIndex, max: usize) -> Result<Vec<LeafIndex>, NodeError> {
        let Some(first) = self.digest.get(key)? else { return Ok(Vec::new()) };
        let mut found: Vec<LeafIndex> = Some(LeafIndex(number(&first)?)).into_iter().filter(|at| *at >= from).collect();
        let at = |index: u64| [&key[..], &index.to_be_bytes()].concat();
        for item in self.digest_more.range(at(from.0)..=at(u64::MAX)).take(max.saturating_sub(found.len())) {
            found.push(LeafIndex(number(&item.key()?[key.len()..])?));
        }
        Ok(found)
    }

    /// All of the keyspace that maps the end of a block to its height.
    pub(crate) fn heights(&self) -> Result<BTreeMap<u64, u64>, NodeError> {
        numbers(&self.height_by_size)
    }

    /// All of the keyspace that maps the size of a checkpoint to its record.
    pub(crate) fn checkpoints(&self) -> Result<BTreeMap<u64, u64>, NodeError> {
        numbers(&self.checkpoint)
    }

    /// Every member set by the first tree size that it signs for.
    pub(crate) fn members(&self) -> Result<BTreeMap<u64, MemberSet>, NodeError> {
        let set = |item: Guard| {
            let (size, bytes) = item.into_inner()?;
            let set = from_canonical(&bytes).map_err(|_| NodeError::Damaged("a stored member set".to_owned()))?;
            Ok((number(&size)?, set))
        };
        self.members.iter().map(set).collect()
    }

    /// Height of the block whose entries hold `index`.
    pub(crate) fn height_of(&self, index: LeafIndex) -> Result<Option<u64>, NodeError> {
        let first = self.height_by_size.range((index.0 + 1).to_be_bytes()..).next();
        first.map(|item| number(&item.value()?)).transpose()
    }

    /// Tree size before the block at `height`, which left the tree at `size`.
    pub(crate) fn size_before(&self, height: u64, size: u64) -> Result<u64, NodeError> {
        let end = self.height_by_size.get(size.to_be_bytes())?;
        if end.map(|end| number(&end)).transpose()? != Some(height) {
            return Ok(size);
        }
        let before = self.height_by_size.range(..size.to_be_bytes()).next_back();
        before.map_or(Ok(0), |item| number(&item.key()?))
    }

    /// Record number of the first checkpoint that covers `index`.
    pub(crate) fn checkpoint_over(&self, index: LeafIndex) -> Result<Option<u64>, NodeError> {
        let first = self.checkpoint.range((index.0 + 1).to_be_bytes()..).next();
        first.map(|item| number(&item.value()?)).transpose()
    }

    pub(crate) fn state_get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        let value = self.state.get(key).map_err(|error| {
            if is_corrupt(&error) {
                self.mark(&error.to_string());
            }
            StateError::Storage(error.to_string())
        })?;
        Ok(value.map(|value| value.to_vec()))
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.db.snapshot()
    }

    /// Digest of the whole state in a snapshot.
    pub(crate) fn state_digest(&self, snapshot: &Snapshot) -> Result<Hash32, NodeError> {
        let mut digest = StateDigest::default();
        for item in snapshot.iter(&self.state) {
            let (key, value) = item.into_inner()?;
            digest.update(&key, &value);
        }
        Ok(digest.finish())
    }

    pub(crate) fn stored_state_digest(&self, height: u64) -> Result<Option<Hash32>, NodeError> {
        let bytes = self.meta.get(digest_meta_key(height))?;
        Ok(bytes.and_then(|bytes| bytes.as_ref().try_into().ok().map(Hash32)))
    }

    pub(crate) fn store_state_digest(&self, height: u64, digest: Hash32) -> Result<(), NodeError> {
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&self.meta, digest_meta_key(height), digest.0);
        batch.commit()?;
        Ok(())
    }

    /// Every state key and value, for the offline check.
    pub(crate) fn state_items(&self) -> impl Iterator<Item = Result<(Vec<u8>, Vec<u8>), NodeError>> {
        self.state.iter().map(|item| {
            let (key, value) = item.into_inner()?;
            Ok((key.to_vec(), value.to_vec()))
        })
    }

    /// Number of index keys of all entries, for the offline check.
    pub(crate) fn digest_keys(&self) -> Result<usize, NodeError> {
        Ok(self.digest.len()? + self.digest_more.len()?)
    }
}

/// Whether stored bytes are wrong or missing, and not only out of reach.
pub(crate) fn is_corrupt(error: &fjall::Error) -> bool {
    let of_file = |error: &io::Error| {
        matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::NotFound)
            || error.raw_os_error() == Some(Errno::IO.raw_os_error())
    };
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => of_file(error),
        fjall::Error::Storage(_)
        | fjall::Error::JournalRecovery(_)
        | fjall::Error::InvalidVersion(_)
        | fjall::Error::Decompress(_)
        | fjall::Error::InvalidTrailer
        | fjall::Error::InvalidTag(_)
        | fjall::Error::Unrecoverable => true,
        _ => false,
    }
}

/// Stands beside a store that is to be set aside.
fn mark_of(path: &Path) -> PathBuf {
    path.with_extension("is-damaged")
}

/// Moves a damaged store aside, in place of the one before: it is evidence, and nothing else.
/// fjall asserts some of what it reads from its journal when it opens.
fn without_panic<T>(open: impl FnOnce() -> T) -> Result<T, NodeError> {
    panic::catch_unwind(AssertUnwindSafe(open)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        match text.or_else(|| panic.downcast_ref::<&str>().copied()) {
            Some(text) => NodeError::Damaged(format!("the index cannot be opened: {text}")),
            None => panic::resume_unwind(panic),
        }
    })
}

fn set_aside(path: &Path) -> Result<(), NodeError> {
    let aside = path.with_extension("damaged");
    if aside.exists() {
        fs::remove_dir_all(&aside).map_err(NodeError::io("remove older damaged index", &aside))?;
    }
    if path.exists() {
        fs::rename(path, &aside).map_err(NodeError::io("set damaged index aside", path))?;
    }
    tracing::warn!(aside = %aside.display(), "index and state are made anew from the block log");
    metrics::counter!("chopmark_node_repaired_total", "kind" => "store").increment(1);
    Ok(())
}

fn digest_meta_key(height: u64) -> Vec<u8> {
    [b"state-digest/", &height.to_be_bytes()[..]].concat()
}

/// What an entry is found by: a number that says what the hash is of, then the whole hash.
pub(crate) type IndexKey = [u8; 33];

fn index_key(number: u8, hash: &Hash32) -> IndexKey {
    let mut key = [number; 33];
    key[1..].copy_from_slice(&hash.0);
    key
}

pub(crate) fn digest_key(algorithm: Algorithm, digest: &Hash32) -> IndexKey {
    index_key(algorithm.number(), digest)
}

pub(crate) fn entry_key(id: &Hash32) -> IndexKey {
    index_key(ENTRY_ID_NUMBER, id)
}

/// Keys of entries from leaf `first` on, with their leaf indexes: of each its id, then its digests.
pub(crate) fn index_keys(first: u64, entries: &[Vec<u8>]) -> Vec<(IndexKey, u64)> {
    let mut keys = Vec::with_capacity(2 * entries.len());
    for (index, entry) in (first..).zip(entries) {
        keys.push((entry_key(&entry_id(entry)), index));
        let digests = entry_digests(entry);
        keys.extend(digests.iter().map(|(algorithm, digest)| (digest_key(algorithm, &digest), index)));
    }
    keys
}

fn numbers(keyspace: &Keyspace) -> Result<BTreeMap<u64, u64>, NodeError> {
    let mut numbers = BTreeMap::new();
    for item in keyspace.iter() {
        let (key, value) = item.into_inner()?;
        numbers.insert(number(&key)?, number(&value)?);
    }
    Ok(numbers)
}

fn number(bytes: &[u8]) -> Result<u64, NodeError> {
    let bytes = bytes.try_into().map_err(|_| NodeError::Damaged("a number in the index".to_owned()))?;
    Ok(u64::from_be_bytes(bytes))
}

/// Digests by which an entry can be found: those of plain evidence and of `redigest`.
fn entry_digests(entry: &[u8]) -> Digests {
    #[derive(serde::Deserialize)]
    struct DigestsOnly {
        #[serde(default)]
        digests: Digests,
    }
    serde_json::from_slice(entry).map_or_else(|_| Digests::default(), |entry: DigestsOnly| entry.digests)
}

/// State of the newest decided block: what is not yet derived lies over the store.
#[derive(Clone)]
pub(crate) struct LiveState {
    pub(crate) store: Derived,
    overlay: Arc<RwLock<HashMap<Vec<u8>, Pending>>>,
}

#[derive(Clone)]
struct Pending {
    height: u64,
    value: Option<Vec<u8>>,
}

impl LiveState {
    pub(crate) fn new(store: Derived) -> Self {
        Self { store, overlay: Arc::default() }
    }

    pub(crate) fn commit(&self, height: u64, changes: &Changes) {
        let mut overlay = self.overlay.write();
        for (key, value) in changes {
            overlay.insert(key.clone(), Pending { height, value: value.clone() });
        }
    }

    /// Drops from the overlay what the store has by now. A key changed again by a later block
    /// stays.
    pub(crate) fn settle(&self, height: u64, changes: &Changes) {
        let mut overlay = self.overlay.write();
        for key in changes.keys() {
            let settled = |pending: &Pending| pending.height <= height || has(Bug::SettlesWhatIsNewer);
            if overlay.get(key).is_some_and(settled) {
                overlay.remove(key);
            }
        }
    }
}

impl StateRead for LiveState {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        if let Some(pending) = self.overlay.read().get(key) {
            return Ok(pending.value.clone());
        }
        self.store.state_get(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_panics_is_a_damaged_one() {
        let damaged = |opened| matches!(opened, Err(NodeError::Damaged(text)) if text.ends_with("left is not right"));
        assert!(damaged(without_panic(|| panic!("{} is not right", "left"))));
        assert!(damaged(without_panic(|| panic!("left is not right"))));
        assert_eq!(without_panic(|| 7).unwrap(), 7);
        // What is no assertion goes on.
        let other = || without_panic(|| panic::resume_unwind(Box::new(7)));
        assert!(panic::catch_unwind(other).is_err());
    }
}
