//! Index and state in memory, in the shape of `fjall`, of which opening alone would take longer than
//! a whole run. What was committed outlives the node that wrote it, as a synced batch does.

use std::{collections::BTreeMap, ops::RangeBounds, path::Path, sync::Arc};

use fjall::Slice;
use parking_lot::Mutex;

use super::disk;

/// Keyspaces by name.
pub(crate) type Contents = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

#[derive(Clone)]
pub(crate) struct Database {
    contents: Arc<Mutex<Contents>>,
}

#[derive(Clone)]
pub(crate) struct Keyspace {
    contents: Arc<Mutex<Contents>>,
    name: String,
}

#[derive(Default)]
pub(crate) struct KeyspaceCreateOptions {
    /// Has no meaning here.
    _memtable_bytes: u64,
}

pub(crate) enum PersistMode {
    SyncAll,
}

pub(crate) struct Builder(Database);

pub(crate) struct Snapshot(Contents);

/// A key and its value.
pub(crate) struct Guard(Vec<u8>, Vec<u8>);

pub(crate) struct Batch {
    contents: Arc<Mutex<Contents>>,
    changes: Vec<(String, Vec<u8>, Option<Vec<u8>>)>,
}

impl Database {
    pub(crate) fn builder(path: &Path) -> Builder {
        Builder(Self { contents: disk::contents_of(path) })
    }

    pub(crate) fn keyspace(&self, name: &str, _: impl Fn() -> KeyspaceCreateOptions) -> Result<Keyspace, fjall::Error> {
        self.contents.lock().entry(name.to_owned()).or_default();
        Ok(Keyspace { contents: Arc::clone(&self.contents), name: name.to_owned() })
    }

    pub(crate) fn batch(&self) -> Batch {
        Batch { contents: Arc::clone(&self.contents), changes: Vec::new() }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot(self.contents.lock().clone())
    }
}

impl Builder {
    pub(crate) fn cache_size(self, _: u64) -> Self {
        self
    }

    pub(crate) fn worker_threads(self, _: usize) -> Self {
        self
    }

    pub(crate) fn open(self) -> Result<Database, fjall::Error> {
        Ok(self.0)
    }
}

impl KeyspaceCreateOptions {
    pub(crate) fn max_memtable_size(self, bytes: u64) -> Self {
        Self { _memtable_bytes: bytes }
    }
}

impl Keyspace {
    fn read<T>(&self, read: impl FnOnce(&BTreeMap<Vec<u8>, Vec<u8>>) -> T) -> T {
        read(&self.contents.lock()[&self.name])
    }

    pub(crate) fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice>, fjall::Error> {
        Ok(self.read(|items| items.get(key.as_ref()).map(|value| Slice::from(value.as_slice()))))
    }

    pub(crate) fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool, fjall::Error> {
        Ok(self.read(|items| items.contains_key(key.as_ref())))
    }

    pub(crate) fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> std::vec::IntoIter<Guard> {
        let owned = |bound: std::ops::Bound<&K>| bound.map(|key| key.as_ref().to_vec());
        let range = (owned(range.start_bound()), owned(range.end_bound()));
        self.read(|items| items.range(range).map(|(key, value)| Guard(key.clone(), value.clone())).collect::<Vec<_>>())
            .into_iter()
    }

    pub(crate) fn iter(&self) -> std::vec::IntoIter<Guard> {
        self.range::<Vec<u8>>(..)
    }

    pub(crate) fn len(&self) -> Result<usize, fjall::Error> {
        Ok(self.read(BTreeMap::len))
    }
}

impl Snapshot {
    pub(crate) fn iter(&self, keyspace: &Keyspace) -> std::vec::IntoIter<Guard> {
        let items = self.0[&keyspace.name].iter();
        items.map(|(key, value)| Guard(key.clone(), value.clone())).collect::<Vec<_>>().into_iter()
    }
}

impl Guard {
    pub(crate) fn key(self) -> Result<Slice, fjall::Error> {
        Ok(self.0.into())
    }

    pub(crate) fn value(self) -> Result<Slice, fjall::Error> {
        Ok(self.1.into())
    }

    pub(crate) fn into_inner(self) -> Result<(Slice, Slice), fjall::Error> {
        Ok((self.0.into(), self.1.into()))
    }
}

impl Batch {
    pub(crate) fn durability(self, _: Option<PersistMode>) -> Self {
        self
    }

    pub(crate) fn insert(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.changes.push((keyspace.name.clone(), key.as_ref().to_vec(), Some(value.as_ref().to_vec())));
    }

    pub(crate) fn remove(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>) {
        self.changes.push((keyspace.name.clone(), key.as_ref().to_vec(), None));
    }

    /// All or nothing, as the store promises for a batch.
    pub(crate) fn commit(self) -> Result<(), fjall::Error> {
        disk::committing(&self.contents, || {
            let mut contents = self.contents.lock();
            for (name, key, value) in self.changes {
                let items = contents.entry(name).or_default();
                match value {
                    Some(value) => items.insert(key, value),
                    None => items.remove(&key),
                };
            }
        })
        .map_err(fjall::Error::Io)
    }
}
