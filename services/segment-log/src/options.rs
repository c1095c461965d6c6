//! What the opener chooses, and what opening found.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Flaw};
use crate::format::{FILE_HEADER_BYTES, RECORD_BYTES_LIMIT, SEQUENCE_MAX};

/// Size at which a segment is closed: 64 MiB are scanned in about 0.1 s on opening.
const SEGMENT_BYTES_MAX_DEFAULT: u64 = 64 << 20;

/// Longest record: 16 MiB is the node's largest block.
const RECORD_BYTES_MAX_DEFAULT: u32 = 16 << 20;

/// What of a file has to be durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Its bytes and what is needed to read them back.
    Data,
    /// Everything: also a length that shrank, and the names in a directory.
    All,
}

/// Makes a file or directory durable; the path is the one it was opened under.
pub type SyncFn = fn(&File, &Path, Extent) -> io::Result<()>;

/// Asks the kernel. Called once for each sync, whatever it answers: std's methods would call again
/// after EINTR, and a failed sync must never be tried again.
///
/// # Errors
///
/// What the kernel says.
pub fn sync(file: &File, _: &Path, extent: Extent) -> io::Result<()> {
    match extent {
        Extent::Data => rustix::fs::fdatasync(file)?,
        Extent::All => rustix::fs::fsync(file)?,
    }
    Ok(())
}

/// How to open a log.
#[derive(Clone, Debug)]
pub struct Options {
    /// A segment is closed when the next append would take it past this length. An append is never
    /// split, and an empty segment takes any, so a file may be longer by one append. Default 64 MiB.
    pub segment_bytes_max: u64,
    /// Longest record that `append` takes. Longer ones already in the log stay readable.
    /// Default 16 MiB, at most [`RECORD_BYTES_LIMIT`].
    pub record_bytes_max: u32,
    /// Number of the first record of a new log; without meaning for one that exists. Default 0.
    pub first_sequence: u64,
    /// What to do about a torn tail. Default [`OnTornTail::Truncate`].
    pub torn_tail: OnTornTail,
    /// Records below this number are known to have been acknowledged, by something that the owner
    /// remembers elsewhere: a tear among them is damage ([`Error::Corrupt`]) and is left as it is.
    /// Default 0: nothing is known.
    pub acknowledged_below: u64,
    /// How bytes become durable: [`sync`], or a simulator's disk that can lose power.
    pub sync: SyncFn,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes_max: SEGMENT_BYTES_MAX_DEFAULT,
            record_bytes_max: RECORD_BYTES_MAX_DEFAULT,
            first_sequence: 0,
            torn_tail: OnTornTail::Truncate,
            acknowledged_below: 0,
            sync,
        }
    }
}

impl Options {
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.segment_bytes_max < FILE_HEADER_BYTES {
            return Err(Error::Options("segment_bytes_max is shorter than a file header"));
        }
        if !(1..=RECORD_BYTES_LIMIT).contains(&self.record_bytes_max) {
            return Err(Error::Options("record_bytes_max is zero or above the format's limit"));
        }
        if self.first_sequence > SEQUENCE_MAX {
            return Err(Error::Options("first_sequence is above the format's limit"));
        }
        Ok(())
    }
}

/// What to do about a torn tail, and with it whether the log may be changed at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTornTail {
    /// Cut it off, sync, report it in [`Recovery::torn`], and open for writing. This also cuts a
    /// last append that is complete in length and fails its checksum, although that can be a
    /// flipped bit in acknowledged data (see the crate documentation).
    Truncate,
    /// Open for reading only and change nothing, not even a `LOCK` file that is missing: the tear
    /// is reported and left, and the log seems to end before it. For offline checks.
    Refuse,
}

/// What opening a log found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The directory held no segment: the log is new, or all of it is lost. An owner that has promised anything before must read this
    /// as the loss of the whole log.
    pub was_empty: bool,
    /// Number of the oldest record kept, or the next one if there is none. An owner that never
    /// deletes compares it with its first: leading segments that are lost look like deleted ones.
    pub first_sequence: u64,
    /// Number that the next record gets. Everything below it is durable: what an opening for
    /// writing kept was synced before it was counted.
    pub next_sequence: u64,
    /// How many segments there are.
    pub segments: usize,
    /// The torn tail, cut off or left as [`OnTornTail`] says.
    pub torn: Option<TornTail>,
}

/// The end of the last segment that is no frame: what remains of an append that was never
/// acknowledged, or a last acknowledged append that was damaged afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The last segment.
    pub file: PathBuf,
    /// Where the sound frames end: the length of the file after the cut.
    pub offset: u64,
    /// Number of the first record that is lost, if it was one.
    pub sequence: u64,
    /// How many bytes follow `offset`.
    pub bytes: u64,
    /// What is wrong with the first frame. The death of a process alone leaves
    /// [`Flaw::Incomplete`]; for the others, power was lost or a bit flipped.
    pub flaw: Flaw,
}
