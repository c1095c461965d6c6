//! Originals in an object store: a folder in development, S3 in production, the same code.
//!
//! An original is written under a random name in `incoming/` and renamed to
//! `originals/<tenant>/<sha256>` once it is whole, so that a name never stands for half a file.

use std::{fmt::Write as _, io, path::Path, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use chopmark_domain::ports::{OriginalStore, OriginalWriter, PortError, PortResult, Random};
use ledger_core::hash::Hash32;
use object_store::{
    ObjectStore, ObjectStoreExt as _, WriteMultipart, local::LocalFileSystem, path::Path as ObjectPath,
};

const PORT: &str = "objects";
/// Bytes of one part: the least that S3 takes.
const PART_BYTES: usize = 5 * 1024 * 1024;
/// Parts under way at a time for one original.
const PARTS_AT_ONCE: usize = 2;

/// Originals in an object store.
#[derive(Clone)]
pub struct ObjectOriginals {
    store: Arc<dyn ObjectStore>,
    random: Arc<dyn Random>,
}

impl ObjectOriginals {
    /// Originals in any object store that is durable when it says so.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, random: Arc<dyn Random>) -> Self {
        Self { store, random }
    }

    /// Originals in a folder, which is created; files and folders are fsynced.
    pub fn in_folder(folder: &Path, random: Arc<dyn Random>) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let store = LocalFileSystem::new_with_prefix(folder).map_err(io::Error::other)?;
        Ok(Self::new(Arc::new(store.with_fsync(true)), random))
    }
}

#[async_trait]
impl OriginalStore for ObjectOriginals {
    async fn begin(&self, tenant: &str) -> PortResult<Box<dyn OriginalWriter>> {
        let mut name = [0_u8; 16];
        self.random.fill(&mut name)?;
        let name = name.iter().fold(String::new(), |mut out, byte| {
            // Writing to a string cannot fail.
            let _ = write!(out, "{byte:02x}");
            out
        });
        let staged = ObjectPath::from_iter(["incoming", &name]);
        let upload = self.store.put_multipart(&staged).await.map_err(failed)?;
        let upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        Ok(Box::new(Writer { store: Arc::clone(&self.store), tenant: tenant.to_owned(), staged, upload }))
    }
}

struct Writer {
    store: Arc<dyn ObjectStore>,
    tenant: String,
    staged: ObjectPath,
    upload: WriteMultipart,
}

#[async_trait]
impl OriginalWriter for Writer {
    async fn write(&mut self, chunk: Bytes) -> PortResult<()> {
        self.upload.wait_for_capacity(PARTS_AT_ONCE).await.map_err(failed)?;
        self.upload.put(chunk);
        Ok(())
    }

    async fn keep(self: Box<Self>, sha256: &Hash32) -> PortResult<()> {
        let name = sha256.to_string();
        let kept = ObjectPath::from_iter(["originals", &self.tenant, &name]);
        self.upload.finish().await.map_err(failed)?;
        let renamed = self.store.rename(&self.staged, &kept).await;
        if renamed.is_err() {
            // What is left behind has no name that anybody asks for; the failure is what counts.
            let _ = self.store.delete(&self.staged).await;
        }
        renamed.map_err(failed)
    }

    async fn discard(self: Box<Self>) {
        if let Err(error) = self.upload.abort().await {
            tracing::warn!(%error, "an unfinished original was left in incoming/");
        }
    }
}

fn failed(error: object_store::Error) -> PortError {
    if is_disk_full(&error) {
        return PortError::DiskFull(PORT);
    }
    PortError::Unavailable { port: PORT, reason: error.to_string() }
}

fn is_disk_full(error: &object_store::Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::StorageFull) {
            return true;
        }
        source = error.source();
    }
    false
}
