//! The few changes ever made to a directory, each in the order that makes a crash harmless.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::FlockOperation;

use crate::error::{Error, Flaw};
use crate::format::{
    FILE_HEADER_LEN, FileHeader, FileHeaderFlaw, LOCK_NAME, TEMPORARY_SUFFIX, parse_segment_name, segment_path,
    temporary_path,
};
use crate::options::{Extent, SyncFn};
use crate::state::Segment;

/// A lock on a directory. It ends with this value, and with the process.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Drop for Lock {
    /// Closing is not enough: a child process that another thread is just starting holds a copy of
    /// the file until its `exec`, and the next opener would find the log locked.
    fn drop(&mut self) {
        if let Err(error) = rustix::fs::flock(&self.0, FlockOperation::Unlock) {
            tracing::warn!(%error, "cannot unlock a log");
        }
    }
}

/// Locks the directory for one writer.
pub(crate) fn lock_exclusive(directory: &Path) -> Result<Lock, Error> {
    let path = directory.join(LOCK_NAME);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| Error::io("open", &path, error))?;
    flock(directory, file, FlockOperation::NonBlockingLockExclusive)
}

/// Locks the directory against a writer, beside other readers. `None` if no writer was ever there.
pub(crate) fn lock_shared(directory: &Path) -> Result<Option<Lock>, Error> {
    let path = directory.join(LOCK_NAME);
    match File::open(&path) {
        Ok(file) => flock(directory, file, FlockOperation::NonBlockingLockShared).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("open", &path, error)),
    }
}

fn flock(directory: &Path, file: File, operation: FlockOperation) -> Result<Lock, Error> {
    match rustix::fs::flock(&file, operation) {
        Ok(()) => Ok(Lock(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Locked { directory: directory.to_owned() }),
        Err(errno) => Err(Error::io("lock", &directory.join(LOCK_NAME), errno.into())),
    }
}

/// Names found in a directory.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// First sequences of the segments, increasing.
    pub(crate) segments: Vec<u64>,
    /// Names of segments that were being made when their writer died.
    pub(crate) leftovers: Vec<String>,
}

pub(crate) fn list(directory: &Path) -> Result<Listing, Error> {
    let failed = |error| Error::io("list", directory, error);
    let mut listing = Listing::default();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(name) = name.to_str() else { continue };
        if let Some(first) = parse_segment_name(name) {
            listing.segments.push(first);
        } else if name.ends_with(TEMPORARY_SUFFIX) {
            listing.leftovers.push(name.to_owned());
        }
    }
    listing.segments.sort_unstable();
    Ok(listing)
}

/// Opens the segment that starts at `first` and checks its header. Its length comes beside it.
pub(crate) fn open_segment(directory: &Path, first: u64) -> Result<(File, FileHeader, u64), Error> {
    let path = segment_path(directory, first);
    let file = File::open(&path).map_err(|error| Error::io("open", &path, error))?;
    let bytes = file.metadata().map_err(|error| Error::io("stat", &path, error))?.len();
    let damaged = |file| Error::Corrupt { file, offset: 0, sequence: first, flaw: Flaw::FileHeader };
    let mut header = [0; FILE_HEADER_LEN];
    match file.read_exact_at(&mut header, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(damaged(path)),
        Err(error) => return Err(Error::io("read", &path, error)),
    }
    match FileHeader::decode(&header) {
        Ok(header) if header.first_sequence == first => Ok((file, header, bytes)),
        Ok(_) | Err(FileHeaderFlaw::Damaged) => Err(damaged(path)),
        Err(FileHeaderFlaw::Version(version)) => Err(Error::Version { file: path, version }),
    }
}

/// Makes the segment that starts at `first`, behind `previous`, and opens it for writing.
///
/// The header is made under a temporary name and synced before it gets its own, and the directory
/// is synced before the first frame is written. Dying before the rename leaves a file that the
/// next opening removes; dying after it leaves a segment without frames, which is a sound log
/// whether or not the loss of power takes the name back.
pub(crate) fn create_segment(
    directory: &Path,
    first: u64,
    previous: Option<Segment>,
    sync: SyncFn,
) -> Result<(Segment, File), Error> {
    let header = FileHeader {
        first_sequence: first,
        previous_first: previous.map_or(first, |segment| segment.first),
        previous_bytes: previous.map_or(0, |segment| segment.bytes),
        salt: draw_salt().map_err(|error| Error::io("draw a salt for", directory, error))?,
    };
    let path = segment_path(directory, first);
    let temporary = temporary_path(directory, first);
    let made = write_header(&temporary, &header, sync).and_then(|file| fs::rename(&temporary, &path).map(|()| file));
    let file = made.map_err(|error| {
        // Only tidiness: what stays is removed on the next opening.
        let _ = fs::remove_file(&temporary);
        Error::io("create", &path, error)
    })?;
    sync_directory(directory, sync)?;
    Ok((Segment { first, bytes: FILE_HEADER_LEN as u64, seed: header.seed() }, file))
}

fn write_header(path: &Path, header: &FileHeader, sync: SyncFn) -> io::Result<File> {
    let mut file = File::options().create(true).truncate(true).write(true).open(path)?;
    file.write_all(&header.encode())?;
    sync(&file, path, Extent::All)?;
    Ok(file)
}

/// The salt has to be unknown to those who write records; no result depends on it.
fn draw_salt() -> io::Result<u64> {
    let mut salt = [0; 8];
    getrandom::fill(&mut salt).map_err(io::Error::other)?;
    Ok(u64::from_be_bytes(salt))
}

/// Makes names that were added to or removed from the directory durable.
pub(crate) fn sync_directory(directory: &Path, sync: SyncFn) -> Result<(), Error> {
    File::open(directory)
        .and_then(|file| sync(&file, directory, Extent::All))
        .map_err(|error| Error::io("sync", directory, error))
}
