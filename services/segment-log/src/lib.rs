//! An append-only log of opaque records in segment files: a commit point.
//!
//! It has two users. The node's block log holds one decided block per record; the embedded queue
//! holds one group of messages per record. Both acknowledge to others what [`SegmentLog::append`]
//! has returned, so the log knows one promise above all: **a record is durable when `append` has
//! returned its number, and no record is visible to any reader before that.** It knows nothing of
//! what a record says, keeps no time, and never repairs damage to acknowledged data.
//!
//! # Files
//!
//! A directory holds `LOCK` (empty, locked with `flock` while the log is open) and segments named
//! `<first sequence number, 20 digits>.seg`. Sequence numbers are contiguous over all segments.
//! `*.seg.tmp` is a segment that never got its name; it is removed on opening. Other files are
//! left alone. All integers are big-endian; the widths are the constants of [`mod@format`].
//!
//! ```text
//! segment = file header, frame*
//!
//! file header, 48 bytes            frame, 24 bytes + payload
//!  0  magic            8            0  payload length      4   at least 1
//!  8  version          4            4  sequence number     8
//! 12  first sequence   8           12  position in append  4   0 for the first frame of an append
//! 20  previous first   8           16  header crc32c       4   over salt and bytes 0..16
//! 28  previous bytes   8           20  payload crc32c      4   over salt, bytes 0..16, payload
//! 36  salt             8           24  payload
//! 44  crc32c over 0..44 4
//! ```
//!
//! *Previous* names the segment before this one and its final length, so that a lost, swapped or
//! shortened segment is noticed on opening without reading its records. The *salt* is drawn at
//! random for each segment: a frame copied from another place, log or file fails its checksum, and
//! a client who puts bytes that look like frames into its own records cannot know it.
//!
//! # Torn tail or damage
//!
//! An append is one write and one `fdatasync`, and the next append starts only after that. So:
//!
//! - A frame is acknowledged if anything of a *later append* is in the log: a frame header behind
//!   it whose own append began at a later sequence number, or a later segment.
//! - Only the last append of the last segment can be unacknowledged. After a loss of power any of
//!   its sectors may be missing, also in front of intact ones, and zeros may stand for them.
//!
//! On opening, the last segment is read until a frame fails. The rest of the file is then searched,
//! byte by byte since a damaged length cannot be trusted, for the header of a frame of a later
//! append. Found: the failed frame had been acknowledged, the log is [`Error::Corrupt`] and stays
//! untouched. Not found: it is a torn tail, which [`OnTornTail`] says to cut or to report.
//! A segment gets its name only after its header is durable, so a bad file header is never a tear.
//!
//! **What cannot be told apart:** a flipped bit in the *last acknowledged append* looks like a torn
//! tail, for nothing in the log shows that the append was acknowledged; so does a file cut short by
//! somebody else, and a last segment removed whole. A user that must not lose an acknowledged
//! record compares [`Recovery::next_sequence`] with what it has promised and kept elsewhere (the
//! node: its guard), and refuses to go on if the log is behind.
//!
//! # Failure
//!
//! After any error of a write or a sync the log is poisoned: the kernel may have dropped the dirty
//! pages and report success the next time, so a failed sync is never tried again. The log cuts
//! the file back to its acknowledged length if it can, and answers [`Error::Poisoned`] until it is
//! opened anew. Records of the failed append may exist after that wholly, as a prefix, or not at
//! all; every acknowledged record does. A file system that honours `fsync` and `rename`, local to
//! the machine, is assumed.

mod disk;
mod error;
pub mod format;
mod index;
mod log;
mod open;
mod options;
mod reader;
mod records;
mod scan;
mod source;
mod state;

pub use error::{Error, Flaw};
pub use log::SegmentLog;
pub use options::{Extent, OnTornTail, Options, Recovery, SyncFn, TornTail, sync};
pub use reader::{SegmentReader, Verified};
pub use records::{Record, Records};
