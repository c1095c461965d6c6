//! The file `committed`: how far the consumer is done.
//!
//! Two slots, each overwritten in place (a full disk does not stop a commit) and in turn, so that
//! a write cut short spoils only the slot that was not in force.
//!
//! ```text
//! slot, at bytes 0 and 4096: magic 8, generation 8, committed 8, log end 8, crc32c over these 4
//! ```

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ledger_core::codec::{Reader, Writer};

use super::files::{DirectoryLock, sync_directory};

const NAME: &str = "committed";
const MAGIC: [u8; 8] = *b"chopcmt1";
const SLOT_BYTES: usize = 36;
/// Slots share no sector and no page.
const SLOT_OFFSETS: [u64; 2] = [0, 4096];

/// What one slot says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// Everything below this offset is done.
    pub(super) committed: u64,
    /// The log's acknowledged end when that was written: it can never be shorter again.
    pub(super) log_end: u64,
}

/// Invariant: the mark on disk never moves back, and `mark` is durable. The log is truncated by
/// what this returned; a mark that was lost again would deliver from where nothing is left.
#[derive(Debug)]
pub(super) struct CommittedFile {
    file: File,
    mark: Mark,
    generation: u64,
    /// Index of the slot that holds `mark`.
    slot: usize,
    _lock: Arc<DirectoryLock>,
}

impl CommittedFile {
    pub(super) fn path(directory: &Path) -> PathBuf {
        directory.join(NAME)
    }

    /// Opens the file; `None` if there is none. Neither slot sound: `InvalidData`.
    pub(super) fn open(directory: &Path, lock: Arc<DirectoryLock>) -> io::Result<Option<Self>> {
        let file = match File::options().read(true).write(true).open(Self::path(directory)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut newest: Option<(u64, Mark, usize)> = None;
        for (slot, offset) in SLOT_OFFSETS.into_iter().enumerate() {
            let Some((generation, mark)) = read_slot(&file, offset)? else { continue };
            if newest.is_none_or(|(known, ..)| generation > known) {
                newest = Some((generation, mark, slot));
            }
        }
        let (generation, mark, slot) =
            newest.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "both slots are damaged"))?;
        // A slot may have been written and not synced when its writer died.
        file.sync_all()?;
        Ok(Some(Self { file, mark, generation, slot, _lock: lock }))
    }

    /// Makes the file; it appears whole or not at all.
    pub(super) fn create(directory: &Path, mark: Mark, lock: Arc<DirectoryLock>) -> io::Result<Self> {
        let (path, temporary) = (Self::path(directory), directory.join(format!("{NAME}.tmp")));
        let file = File::options().create(true).truncate(true).read(true).write(true).open(&temporary)?;
        for offset in SLOT_OFFSETS {
            file.write_all_at(&encode(0, mark), offset)?;
        }
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        sync_directory(directory)?;
        Ok(Self { file, mark, generation: 0, slot: 0, _lock: lock })
    }

    pub(super) const fn mark(&self) -> Mark {
        self.mark
    }

    /// Moves forward, durably; a mark that is not ahead changes nothing.
    pub(super) fn advance(&mut self, mark: Mark) -> io::Result<()> {
        if mark.committed <= self.mark.committed {
            return Ok(());
        }
        let (slot, generation) = (1 - self.slot, self.generation + 1);
        // Failing or dying before the sync returns leaves the slot in force untouched. The other
        // one then holds the old, the new or no mark; the next attempt overwrites it.
        self.file.write_all_at(&encode(generation, mark), SLOT_OFFSETS[slot])?;
        self.file.sync_data()?;
        (self.slot, self.generation, self.mark) = (slot, generation, mark);
        Ok(())
    }
}

fn encode(generation: u64, mark: Mark) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.fixed(&MAGIC).u64(generation).u64(mark.committed).u64(mark.log_end);
    let checksum = crc32c::crc32c(writer.as_slice());
    writer.u32(checksum);
    writer.finish()
}

fn read_slot(file: &File, offset: u64) -> io::Result<Option<(u64, Mark)>> {
    let mut bytes = [0; SLOT_BYTES];
    match file.read_exact_at(&mut bytes, offset) {
        Ok(()) => Ok(decode(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn decode(bytes: &[u8; SLOT_BYTES]) -> Option<(u64, Mark)> {
    let (body, _) = bytes.split_at(SLOT_BYTES - 4);
    let mut reader = Reader::new(bytes);
    let magic = reader.array::<8>().ok()?;
    let generation = reader.u64().ok()?;
    let mark = Mark { committed: reader.u64().ok()?, log_end: reader.u64().ok()? };
    let checksum = reader.u32().ok()?;
    (magic == MAGIC && checksum == crc32c::crc32c(body)).then_some((generation, mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(directory: &Path) -> io::Result<Option<CommittedFile>> {
        CommittedFile::open(directory, Arc::new(DirectoryLock::take(directory).unwrap()))
    }

    const fn mark(committed: u64) -> Mark {
        Mark { committed, log_end: committed + 3 }
    }

    fn made(directory: &Path) -> CommittedFile {
        let lock = Arc::new(DirectoryLock::take(directory).unwrap());
        CommittedFile::create(directory, mark(0), lock).unwrap()
    }

    #[test]
    fn it_moves_forward_only_and_survives_reopening() {
        let scratch = tempfile::tempdir().unwrap();
        assert!(open(scratch.path()).unwrap().is_none());
        let mut file = made(scratch.path());
        for committed in [5, 3, 9, 9, 10] {
            file.advance(mark(committed)).unwrap();
        }
        drop(file);
        assert_eq!(open(scratch.path()).unwrap().unwrap().mark(), mark(10));
    }

    /// A write cut at any byte leaves the mark before it or the new one.
    #[test]
    fn a_write_cut_short_leaves_one_of_both_marks() {
        for cut in 0..=SLOT_BYTES {
            let scratch = tempfile::tempdir().unwrap();
            let mut file = made(scratch.path());
            file.advance(mark(1)).unwrap();
            file.advance(mark(2)).unwrap();
            let bytes = encode(file.generation + 1, mark(3));
            file.file.write_all_at(&bytes[..cut], SLOT_OFFSETS[1 - file.slot]).unwrap();
            drop(file);
            let mut file = open(scratch.path()).unwrap().unwrap();
            assert_eq!(file.mark(), if cut == SLOT_BYTES { mark(3) } else { mark(2) }, "cut at {cut}");
            file.advance(mark(4)).unwrap();
            drop(file);
            assert_eq!(open(scratch.path()).unwrap().unwrap().mark(), mark(4));
        }
    }

    #[test]
    fn two_damaged_slots_are_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let file = made(scratch.path());
        for offset in SLOT_OFFSETS {
            file.file.write_all_at(&[0xff], offset + 20).unwrap();
        }
        drop(file);
        assert_eq!(open(scratch.path()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
