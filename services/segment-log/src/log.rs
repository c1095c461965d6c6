//! The writing end of a log.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{self, Lock};
use crate::error::Error;
use crate::format::{FRAME_HEADER_LEN, encode_frame, segment_path};
use crate::index::SparseIndex;
use crate::open::Opened;
use crate::options::{Extent, Options, Recovery};
use crate::reader::{SegmentReader, Verified};
use crate::records::Records;
use crate::state::{Segment, Shared};

/// An open log: its only appender, and a reader of its own.
///
/// Readers on other threads come from [`SegmentLog::reader`]. Dropping the log frees its lock;
/// nothing is written then, for nothing acknowledged is ever in memory only.
#[derive(Debug)]
pub struct SegmentLog {
    reader: SegmentReader,
    options: Options,
    tail: Tail,
    /// Held for its lock.
    _lock: Option<Lock>,
}

/// The last segment's file, if it may be written to.
///
/// Invariant: while it is `Open`, the file's length is the segment's acknowledged length, and all
/// of it is durable. A failed change moves it to `Poisoned` and nothing moves it back; otherwise an
/// append could be acknowledged behind bytes that the disk never got.
#[derive(Debug)]
enum Tail {
    Open(File),
    ReadOnly,
    Poisoned,
}

impl SegmentLog {
    /// Opens the log in `directory`, making the directory (not its parents) and the first segment
    /// if there are none.
    ///
    /// Only the last segment is read in full; of the others, name, header and length are checked.
    /// Afterwards every record below [`Recovery::next_sequence`] is durable, also those of an
    /// append that the previous writer did not live to acknowledge. With
    /// [`OnTornTail::Refuse`](crate::OnTornTail::Refuse) nothing on disk is changed or synced, and
    /// the log can only be read.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] while another opener has the log, in this process or another;
    /// [`Error::Corrupt`] if acknowledged data is damaged, [`Error::Version`], [`Error::Options`],
    /// [`Error::DiskFull`] and [`Error::Io`]. The next opening may follow at once.
    pub fn open(directory: impl AsRef<Path>, options: Options) -> Result<(Self, Recovery), Error> {
        let directory = directory.as_ref();
        let opened = Opened::open(directory, &options)?;
        let shared = Arc::new(Shared::new(directory.to_owned(), opened.state));
        let log = Self {
            reader: SegmentReader::new(shared),
            options,
            tail: opened.tail.map_or(Tail::ReadOnly, Tail::Open),
            _lock: opened.lock,
        };
        Ok((log, opened.recovery))
    }

    /// Appends records in one write and one `fdatasync`, and returns the number of the first; the
    /// others follow it. No records: nothing is done, and the next number returned.
    ///
    /// On success all of them are durable and visible to readers. On failure none is visible; after
    /// the next opening they exist wholly, as a prefix, or not at all.
    ///
    /// # Errors
    ///
    /// [`Error::RecordSize`], [`Error::ReadOnly`] and [`Error::Poisoned`] before anything is
    /// written. [`Error::DiskFull`] or [`Error::Io`] from writing, and the log is poisoned.
    pub fn append(&mut self, records: &[&[u8]]) -> Result<u64, Error> {
        self.writable()?;
        let first = self.next_sequence();
        if records.is_empty() {
            return Ok(first);
        }
        let lengths = self.lengths(records)?;
        match self.write(records, &lengths) {
            Ok(()) => Ok(first),
            Err(error) => {
                self.poison();
                Err(error)
            }
        }
    }

    /// Deletes the segments that hold only records below `before_sequence`, oldest first; the last
    /// segment always stays. Deleted records read as [`Error::Gone`].
    ///
    /// Each removal is durable before the next is begun, so that dying in between leaves a log
    /// without gaps that starts a little earlier.
    ///
    /// # Errors
    ///
    /// [`Error::ReadOnly`], [`Error::Poisoned`]; [`Error::Io`], and the log is poisoned.
    pub fn truncate_front(&mut self, before_sequence: u64) -> Result<(), Error> {
        self.writable()?;
        while let Some(segment) = self.expired(before_sequence) {
            // Readers are told first: a file that is missing then explains itself.
            self.shared().state_mut().segments.pop_front();
            let path = segment_path(&self.shared().directory, segment.first);
            let removed = fs::remove_file(&path)
                .map_err(|error| Error::io("remove", &path, error))
                .and_then(|()| disk::sync_directory(&self.shared().directory, self.options.sync));
            if let Err(error) = removed {
                self.poison();
                return Err(error);
            }
        }
        Ok(())
    }

    /// A handle for reading on another thread, or many. It stays usable after the log is dropped.
    #[must_use]
    pub fn reader(&self) -> SegmentReader {
        self.reader.clone()
    }

    /// As [`SegmentReader::read`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn read(&self, sequence: u64) -> Result<Option<Vec<u8>>, Error> {
        self.reader.read(sequence)
    }

    /// As [`SegmentReader::iter_from`].
    #[must_use]
    pub fn iter_from(&self, sequence: u64) -> Records {
        self.reader.iter_from(sequence)
    }

    /// As [`SegmentReader::verify_all`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn verify_all(&self) -> Result<Verified, Error> {
        self.reader.verify_all()
    }

    /// Number of the oldest record kept, or the next one if there is none.
    #[must_use]
    pub fn first_sequence(&self) -> u64 {
        self.reader.first_sequence()
    }

    /// Number that the next record gets. Every record from `first_sequence` up to it is durable.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.reader.next_sequence()
    }

    /// Whether a change has failed, so that only reading is left until the log is opened anew.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        matches!(self.tail, Tail::Poisoned)
    }

    fn shared(&self) -> &Shared {
        self.reader.shared()
    }

    fn directory(&self) -> PathBuf {
        self.shared().directory.clone()
    }

    fn writable(&self) -> Result<(), Error> {
        match self.tail {
            Tail::Open(_) => Ok(()),
            Tail::ReadOnly => Err(Error::ReadOnly { directory: self.directory() }),
            Tail::Poisoned => Err(Error::Poisoned { directory: self.directory() }),
        }
    }

    fn lengths(&self, records: &[&[u8]]) -> Result<Vec<u32>, Error> {
        let bytes_max = self.options.record_bytes_max;
        let length = |record: &&[u8]| {
            let refused = Error::RecordSize { bytes: record.len(), bytes_max };
            match u32::try_from(record.len()) {
                Ok(length) if (1..=bytes_max).contains(&length) => Ok(length),
                _ => Err(refused),
            }
        };
        records.iter().map(length).collect()
    }

    /// Writes, syncs and publishes, in that order.
    fn write(&mut self, records: &[&[u8]], lengths: &[u32]) -> Result<(), Error> {
        let payloads: u64 = lengths.iter().copied().map(u64::from).sum();
        let bytes = payloads + (records.len() * FRAME_HEADER_LEN) as u64;
        let segment = self.segment_for(bytes)?;
        let first = self.next_sequence();

        let mut buffer = Vec::with_capacity(records.iter().map(|r| r.len() + FRAME_HEADER_LEN).sum());
        let numbered = (first..).zip(0_u32..).zip(records.iter().zip(lengths));
        for ((sequence, position), (record, length)) in numbered {
            encode_frame(&mut buffer, segment.seed, sequence, position, record, *length);
        }
        self.write_durably(&buffer, segment)?;

        // Durable now: the frames, and before them everything else. Dying here loses only the
        // answer; the next opening finds the records and counts them as acknowledged.
        let mut state = self.shared().state_mut();
        let mut offset = segment.bytes;
        for (sequence, length) in (first..).zip(lengths) {
            state.tail_index.note(sequence, offset);
            offset += u64::from(*length) + FRAME_HEADER_LEN as u64;
        }
        if let Some(tail) = state.segments.back_mut() {
            tail.bytes = offset;
        }
        state.next_sequence = first + records.len() as u64;
        Ok(())
    }

    fn write_durably(&self, buffer: &[u8], segment: Segment) -> Result<(), Error> {
        let path = || segment_path(&self.shared().directory, segment.first);
        let Tail::Open(file) = &self.tail else {
            return self.writable();
        };
        file.write_all_at(buffer, segment.bytes).map_err(|error| Error::io("write", &path(), error))?;
        let path = path();
        (self.options.sync)(file, &path, Extent::Data).map_err(|error| Error::io("sync", &path, error))
    }

    /// The segment that an append of `bytes` goes to: the last one, or a new one behind it.
    fn segment_for(&mut self, bytes: u64) -> Result<Segment, Error> {
        let (tail, next) = {
            let state = self.shared().state();
            (state.segments.back().copied(), state.next_sequence)
        };
        if let Some(tail) = tail {
            let fits = tail.bytes.saturating_add(bytes) <= self.options.segment_bytes_max;
            if fits || tail.first == next {
                return Ok(tail);
            }
        }
        let (segment, file) = disk::create_segment(&self.shared().directory, next, tail, self.options.sync)?;
        {
            let mut state = self.shared().state_mut();
            state.segments.push_back(segment);
            let closed = std::mem::replace(&mut state.tail_index, SparseIndex::new(next));
            // Under the lock, so that a reader finds the index in one place or the other.
            if let Some(tail) = tail {
                self.shared().keep_index(tail.first, closed);
            }
        }
        self.tail = Tail::Open(file);
        Ok(segment)
    }

    /// The oldest segment, if all its records are below `before` and it is not the last.
    fn expired(&self, before: u64) -> Option<Segment> {
        let state = self.shared().state();
        let next = state.segments.get(1)?;
        state.segments.front().copied().filter(|_| next.first <= before)
    }

    /// Ends writing, and cuts the file back to what is acknowledged if that is possible.
    ///
    /// The cut frees the space of a write that failed half-way, and keeps frames whose sync failed
    /// from being read back out of the page cache as if they were on disk. Nothing depends on it:
    /// without it the next opening finds a torn tail, or whole frames that nobody was promised.
    fn poison(&mut self) {
        let Tail::Open(file) = std::mem::replace(&mut self.tail, Tail::Poisoned) else {
            return;
        };
        let good = self.shared().state().segments.back().map(|tail| tail.bytes);
        let cut = good.map_or(Err(io::ErrorKind::NotFound.into()), |bytes| file.set_len(bytes));
        if let Err(error) = cut {
            tracing::warn!(directory = %self.directory().display(), %error,
                "cannot cut the log back to its acknowledged length");
        }
    }
}

#[cfg(test)]
mod tests;
