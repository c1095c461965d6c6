//! What can go wrong, by what the caller can do about it.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// An error of the log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another opener holds the log. Nothing was changed.
    #[error("open log {}: it is in use by another opener", directory.display())]
    Locked {
        /// The directory of the log.
        directory: PathBuf,
    },
    /// The log was opened with [`OnTornTail::Refuse`](crate::OnTornTail::Refuse).
    #[error("change log {}: it is open for reading only", directory.display())]
    ReadOnly {
        /// The directory of the log.
        directory: PathBuf,
    },
    /// Acknowledged data is damaged or missing. The log never repairs it: restore the file, or let
    /// the owner rebuild the log from its peers.
    #[error("read record {sequence} at byte {offset} of {}: {flaw}", file.display())]
    Corrupt {
        /// The damaged segment.
        file: PathBuf,
        /// Where in the file the damaged frame starts; 0 if it is the file header.
        offset: u64,
        /// Number of the damaged record, or of the segment's first where the damage is not in a
        /// frame.
        sequence: u64,
        /// What is wrong.
        flaw: Flaw,
    },
    /// A segment was written by another version of this format.
    #[error("read segment {}: format version {version} is not supported", file.display())]
    Version {
        /// The segment.
        file: PathBuf,
        /// The version that it names.
        version: u32,
    },
    /// No room on the device, in the quota or under the file size limit. All acknowledged records
    /// are kept; make room and open the log anew.
    #[error("write {}: no space left", path.display())]
    DiskFull {
        /// The file being written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An earlier write, sync or removal failed. Open the log anew.
    #[error("change log {}: an earlier change failed and it has to be opened anew", directory.display())]
    Poisoned {
        /// The directory of the log.
        directory: PathBuf,
    },
    /// The record was deleted by [`SegmentLog::truncate_front`](crate::SegmentLog::truncate_front),
    /// or lies before the log's first number.
    #[error("read record {sequence}: the log starts at {first_sequence}")]
    Gone {
        /// The number asked for.
        sequence: u64,
        /// The first number that exists.
        first_sequence: u64,
    },
    /// A record is empty or longer than allowed. Nothing was written.
    #[error("append record of {bytes} bytes: only 1 to {bytes_max} are allowed")]
    RecordSize {
        /// Length of the record.
        bytes: usize,
        /// [`Options::record_bytes_max`](crate::Options::record_bytes_max).
        bytes_max: u32,
    },
    /// The options contradict each other or the format. Nothing was changed.
    #[error("open log: {0}")]
    Options(&'static str),
    /// The system refused something else.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What is wrong with a frame or a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The bytes end before the frame does.
    #[error("the frame is cut short")]
    Incomplete,
    /// The frame header fails its checksum; zeros do, too.
    #[error("the frame header fails its checksum")]
    FrameHeader,
    /// The frame header is sound and the payload, complete in length, fails its checksum.
    #[error("the payload fails its checksum")]
    Payload,
    /// A sound frame of this segment stands where another number belongs.
    #[error("a frame with another sequence number stands here")]
    Sequence,
    /// The file header is short, fails its checksum or contradicts the file name.
    #[error("the file header is damaged")]
    FileHeader,
    /// The segment before this one, as this one's header describes it, is missing.
    #[error("the segment before this one is missing")]
    PreviousMissing,
    /// The file is not as long as the header of the segment after it says.
    #[error("the file length differs from what the next segment recorded")]
    Length,
    /// Bytes or records follow where the segment after this one should begin.
    #[error("the segment does not end where the next one begins")]
    End,
}

impl Error {
    /// Wraps a failure of the system, telling a full disk from the rest.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        // EFBIG is the limit of `ulimit -f`: to the caller the same as a quota.
        let full = [Errno::NOSPC, Errno::DQUOT, Errno::FBIG];
        if full.iter().any(|errno| source.raw_os_error() == Some(errno.raw_os_error())) {
            Self::DiskFull { path, source }
        } else {
            Self::Io { action, path, source }
        }
    }
}
