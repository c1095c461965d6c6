//! What appender and readers share: which records are acknowledged, and where they are.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::error::{Error, Flaw};
use crate::format::segment_path;
use crate::index::{Mark, SparseIndex};
use crate::scan::{self, Check};
use crate::source::Source;

/// Indexes of closed segments kept in memory. 64 of them, at 256 marks of 16 bytes each for
/// segments of the default size, are 256 KiB; building one again reads some 10 MB.
const INDEXES_MAX: usize = 64;

/// A segment as far as it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) first: u64,
    /// End of its last acknowledged frame, or of its header.
    pub(crate) bytes: u64,
    /// Start of the checksums of its frames.
    pub(crate) seed: u32,
}

/// Invariant: `segments` is in order and without gaps; the last one holds the records from its
/// `first` up to `next_sequence`, and all of them are durable. Only `SegmentLog` writes here, and
/// only after a sync. If this ran ahead of the disk, a reader would pass on a record that a crash
/// can take back.
#[derive(Debug)]
pub(crate) struct State {
    /// Empty only for a directory without segments that was opened for reading.
    pub(crate) segments: VecDeque<Segment>,
    pub(crate) next_sequence: u64,
    /// Index of the last segment.
    pub(crate) tail_index: SparseIndex,
}

impl State {
    pub(crate) fn first_sequence(&self) -> u64 {
        self.segments.front().map_or(self.next_sequence, |segment| segment.first)
    }

    /// The segment of an acknowledged record; `None` at or past the end.
    pub(crate) fn segment_of(&self, sequence: u64) -> Result<Option<Segment>, Error> {
        if sequence >= self.next_sequence {
            return Ok(None);
        }
        let after = self.segments.partition_point(|segment| segment.first <= sequence);
        match after.checked_sub(1).and_then(|at| self.segments.get(at)) {
            Some(segment) => Ok(Some(*segment)),
            None => Err(Error::Gone { sequence, first_sequence: self.first_sequence() }),
        }
    }
}

/// The part of a log that readers hold, too.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) directory: PathBuf,
    state: RwLock<State>,
    /// Indexes of closed segments by first sequence; the oldest made goes first.
    indexes: Mutex<VecDeque<(u64, Arc<SparseIndex>)>>,
}

impl Shared {
    pub(crate) fn new(directory: PathBuf, state: State) -> Self {
        Self { directory, state: RwLock::new(state), indexes: Mutex::default() }
    }

    // A panic cannot leave the state half changed: each change is one assignment or one push, so a
    // poisoned lock is as good as another.

    pub(crate) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn indexes(&self) -> MutexGuard<'_, VecDeque<(u64, Arc<SparseIndex>)>> {
        self.indexes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the segment of record `sequence` for reading, up to its acknowledged end.
    pub(crate) fn source(&self, segment: Segment, sequence: u64) -> Result<Source, Error> {
        let path = segment_path(&self.directory, segment.first);
        match File::open(&path) {
            Ok(file) => Ok(Source::new(file, segment.bytes)),
            Err(error) => {
                let first_sequence = self.state().first_sequence();
                if error.kind() == io::ErrorKind::NotFound && segment.first < first_sequence {
                    return Err(Error::Gone { sequence, first_sequence });
                }
                Err(Error::io("open", &path, error))
            }
        }
    }

    /// The offset of an acknowledged record, found by walking from the nearest mark.
    pub(crate) fn offset_of(&self, source: &mut Source, segment: Segment, sequence: u64) -> Result<u64, Error> {
        let mut mark = self.mark_before(source, segment, sequence)?;
        while mark.sequence < sequence {
            let header = scan::header_at(source, segment.seed, mark.offset, mark.sequence)
                .map_err(|error| self.unreadable(segment, error))?
                .map_err(|flaw| self.corrupt(segment, mark.offset, mark.sequence, flaw))?;
            mark = Mark { sequence: mark.sequence + 1, offset: mark.offset + header.frame_bytes() };
        }
        Ok(mark.offset)
    }

    fn mark_before(&self, source: &mut Source, segment: Segment, sequence: u64) -> Result<Mark, Error> {
        {
            let state = self.state();
            if state.segments.back().is_some_and(|tail| tail.first == segment.first) {
                return Ok(state.tail_index.mark_before(sequence));
            }
        }
        if let Some((_, index)) = self.indexes().iter().find(|(first, _)| *first == segment.first) {
            return Ok(index.mark_before(sequence));
        }
        let index = self.build_index(source, segment)?;
        let mark = index.mark_before(sequence);
        self.keep_index(segment.first, index);
        Ok(mark)
    }

    fn build_index(&self, source: &mut Source, segment: Segment) -> Result<SparseIndex, Error> {
        let mut index = SparseIndex::new(segment.first);
        let end = scan::walk(source, segment, Check::Headers, |sequence, offset| {
            index.note(sequence, offset);
        });
        let end = end.map_err(|error| self.unreadable(segment, error))?;
        match end.flaw {
            None => Ok(index),
            Some(flaw) => Err(self.corrupt(segment, end.offset, end.sequence, flaw)),
        }
    }

    /// Keeps the index of a closed segment, in place of the oldest if there are too many.
    pub(crate) fn keep_index(&self, first: u64, index: SparseIndex) {
        let mut indexes = self.indexes();
        if indexes.iter().any(|(known, _)| *known == first) {
            return;
        }
        if indexes.len() >= INDEXES_MAX {
            indexes.pop_front();
        }
        indexes.push_back((first, Arc::new(index)));
    }

    pub(crate) fn corrupt(&self, segment: Segment, offset: u64, sequence: u64, flaw: Flaw) -> Error {
        let file = segment_path(&self.directory, segment.first);
        Error::Corrupt { file, offset, sequence, flaw }
    }

    pub(crate) fn unreadable(&self, segment: Segment, error: io::Error) -> Error {
        Error::io("read", &segment_path(&self.directory, segment.first), error)
    }
}
