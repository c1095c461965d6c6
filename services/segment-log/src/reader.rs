//! The reading end of a log.

use std::sync::Arc;

use crate::disk;
use crate::error::{Error, Flaw};
use crate::records::Records;
use crate::scan::{self, Check};
use crate::source::Source;
use crate::state::{Segment, Shared};

/// A handle for reading a log while its one appender writes; cheap to clone, for any thread.
///
/// It sees acknowledged records only. It takes no lock on the directory and outlives the
/// [`SegmentLog`](crate::SegmentLog), but what a later opener appends it does not see.
#[derive(Clone, Debug)]
pub struct SegmentReader {
    shared: Arc<Shared>,
}

/// What [`SegmentReader::verify_all`] has read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Segments, the last one included.
    pub segments: u64,
    /// Records, all with the right checksum and number.
    pub records: u64,
    /// Bytes of all segments.
    pub bytes: u64,
}

impl SegmentReader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Number of the oldest record kept, or the next one if there is none.
    #[must_use]
    pub fn first_sequence(&self) -> u64 {
        self.shared.state().first_sequence()
    }

    /// Number that the next record gets. Every record from `first_sequence` up to it is durable.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.shared.state().next_sequence
    }

    /// The record with this number; `None` at or past the end of the log.
    ///
    /// Opens the segment's file and walks over at most 256 KiB of it; the first read of a closed
    /// segment after a while walks over all of its frame headers. To read on from here,
    /// [`iter_from`](Self::iter_from) is faster.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`] before the first record, [`Error::Corrupt`], [`Error::Io`].
    pub fn read(&self, sequence: u64) -> Result<Option<Vec<u8>>, Error> {
        self.iter_from(sequence).next().map(|record| record.map(|record| record.payload)).transpose()
    }

    /// The records from this number on, read in order through a buffer of 128 KiB, or as long as
    /// the longest record met. See [`Records`] for how it ends.
    #[must_use]
    pub fn iter_from(&self, sequence: u64) -> Records {
        Records::new(Arc::clone(&self.shared), sequence)
    }

    /// Reads every acknowledged record and checks file headers, checksums, numbers, and that each
    /// segment ends where the next one begins. Segments deleted meanwhile are skipped.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] for the first damage found, [`Error::Version`], [`Error::Io`].
    pub fn verify_all(&self) -> Result<Verified, Error> {
        let (segments, next_sequence) = {
            let state = self.shared.state();
            (state.segments.iter().copied().collect::<Vec<_>>(), state.next_sequence)
        };
        let ends = segments.iter().skip(1).map(|segment| segment.first).chain([next_sequence]);
        let mut verified = Verified::default();
        for (at, (segment, end)) in segments.iter().zip(ends).enumerate() {
            let closed = at + 1 < segments.len();
            match self.verify_segment(*segment, end, closed) {
                Err(_) if segment.first < self.first_sequence() => {}
                outcome => {
                    outcome?;
                    verified.segments += 1;
                    verified.records += end - segment.first;
                    verified.bytes += segment.bytes;
                }
            }
        }
        Ok(verified)
    }

    fn verify_segment(&self, segment: Segment, next: u64, closed: bool) -> Result<(), Error> {
        let (file, header, bytes) = disk::open_segment(&self.shared.directory, segment.first)?;
        let corrupt = |offset, sequence, flaw| self.shared.corrupt(segment, offset, sequence, flaw);
        if header.seed() != segment.seed {
            return Err(corrupt(0, segment.first, Flaw::FileHeader));
        }
        if closed && bytes != segment.bytes {
            return Err(corrupt(bytes.min(segment.bytes), segment.first, Flaw::Length));
        }
        let mut source = Source::new(file, segment.bytes);
        let end = scan::walk(&mut source, segment, Check::Payloads, |_, _| {})
            .map_err(|error| self.shared.unreadable(segment, error))?;
        match end.flaw {
            Some(flaw) => Err(corrupt(end.offset, end.sequence, flaw)),
            None if end.sequence != next => Err(corrupt(end.offset, end.sequence, Flaw::End)),
            None => Ok(()),
        }
    }
}
