//! The directory: its lock, and how much lies in it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;

use chopmark_domain::ports::{PortError, PortResult};

use super::failure::{PORT, broken, unavailable};

const LOCK: &str = "LOCK";

/// The lock on the whole directory. The log has its own, but gives it up while it is opened anew.
///
/// Everything that writes into the directory holds a share of this, so it ends with the last write.
#[derive(Debug)]
pub(super) struct DirectoryLock(File);

impl DirectoryLock {
    pub(super) fn take(directory: &Path) -> PortResult<Self> {
        let path = directory.join(LOCK);
        let open = File::options().create(true).truncate(false).write(true).open(&path);
        let file = open.map_err(|error| from_io("open", &path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => {
                Err(unavailable(format!("{} is in use by another opener", directory.display())))
            }
            Err(TryLockError::Error(error)) => Err(from_io("lock", &path, &error)),
        }
    }
}

impl Drop for DirectoryLock {
    /// Closing is not enough: a child process that is just being started holds a copy of the file.
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "cannot unlock the queue");
        }
    }
}

/// Makes the directory and its parents, durably for the last step.
pub(super) fn create_directory(directory: &Path) -> PortResult<()> {
    if directory.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(directory).map_err(|error| from_io("create", directory, &error))?;
    sync_directory(&directory.join("..")).map_err(|error| from_io("sync the parent of", directory, &error))
}

pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Bytes of all segments in `directory`.
pub(super) fn segment_bytes(directory: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(segment_log::format::SEGMENT_SUFFIX) {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}

pub(super) fn from_io(action: &str, path: &Path, error: &io::Error) -> PortError {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge => PortError::DiskFull(PORT),
        Kind::InvalidData => broken(format!("{action} {}: {error}", path.display())),
        _ => unavailable(format!("{action} {}: {error}", path.display())),
    }
}
