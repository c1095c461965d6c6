//! Opening a log: lock, list, check the chain of segments, settle the tail.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::disk::{self, Lock};
use crate::error::{Error, Flaw};
use crate::format::{FileHeader, SEQUENCE_MAX, segment_path};
use crate::index::SparseIndex;
use crate::options::{Extent, OnTornTail, Options, Recovery, SyncFn, TornTail};
use crate::scan::{self, Check};
use crate::source::Source;
use crate::state::{Segment, State};

/// A log as found on disk, and as far as it may be trusted.
pub(crate) struct Opened {
    pub(crate) state: State,
    pub(crate) recovery: Recovery,
    /// The last segment, open for writing; `None` if the log is only read.
    pub(crate) tail: Option<File>,
    pub(crate) lock: Option<Lock>,
}

impl Opened {
    pub(crate) fn open(directory: &Path, options: &Options) -> Result<Self, Error> {
        options.check()?;
        match options.torn_tail {
            OnTornTail::Truncate => for_writing(directory, options),
            OnTornTail::Refuse => for_reading(directory, options),
        }
    }

    fn new(segments: VecDeque<Segment>, next_sequence: u64, tail_index: SparseIndex, torn: Option<TornTail>) -> Self {
        let state = State { segments, next_sequence, tail_index };
        let recovery = Recovery {
            was_empty: state.segments.is_empty(),
            first_sequence: state.first_sequence(),
            next_sequence,
            segments: state.segments.len(),
            torn,
        };
        Self { state, recovery, tail: None, lock: None }
    }
}

/// Opens the log for writing. See `SegmentLog::open` for what holds afterwards.
fn for_writing(directory: &Path, options: &Options) -> Result<Opened, Error> {
    match fs::create_dir(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(Error::io("create", directory, error)),
    }
    let lock = disk::lock_exclusive(directory)?;
    let listing = disk::list(directory)?;
    for name in listing.leftovers {
        let path = directory.join(name);
        tracing::info!(file = %path.display(), "removing a segment that was never finished");
        fs::remove_file(&path).map_err(|error| Error::io("remove", &path, error))?;
    }
    let segments = load_chain(directory, &listing.segments)?;
    if segments.is_empty() {
        return create(directory, options, lock);
    }
    let opened = settle(directory, segments, options)?;
    let tail = make_durable(directory, &opened, options.sync)?;
    Ok(Opened { tail: Some(tail), lock: Some(lock), ..opened })
}

/// Opens the log for reading: no file is made, changed, removed or synced.
fn for_reading(directory: &Path, options: &Options) -> Result<Opened, Error> {
    let lock = disk::lock_shared(directory)?;
    let segments = load_chain(directory, &disk::list(directory)?.segments)?;
    let opened = settle(directory, segments, options)?;
    Ok(Opened { lock, ..opened })
}

/// Makes the first segment of a log.
fn create(directory: &Path, options: &Options, lock: Lock) -> Result<Opened, Error> {
    let (segment, tail) = disk::create_segment(directory, options.first_sequence, None, options.sync)?;
    // The directory may be new, from this opening or from one that died here. A parent that we may
    // not open was not ours to make a directory in.
    match disk::sync_directory(&directory.join(".."), options.sync) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {}
        synced => synced?,
    }
    let segments = VecDeque::from([segment]);
    let index = SparseIndex::new(segment.first);
    let opened = Opened::new(segments, options.first_sequence, index, None);
    let recovery = Recovery { was_empty: true, ..opened.recovery };
    Ok(Opened { tail: Some(tail), lock: Some(lock), recovery, ..opened })
}

/// Reads the headers of all segments and checks that each follows the one before it.
fn load_chain(directory: &Path, firsts: &[u64]) -> Result<VecDeque<Segment>, Error> {
    let mut segments: VecDeque<Segment> = VecDeque::with_capacity(firsts.len());
    for first in firsts.iter().copied() {
        let (_, header, bytes) = disk::open_segment(directory, first)?;
        if let Some(previous) = segments.back() {
            check_link(directory, *previous, first, &header)?;
        }
        if first > SEQUENCE_MAX {
            return Err(corrupt(directory, first, 0, first, Flaw::FileHeader));
        }
        segments.push_back(Segment { first, bytes, seed: header.seed() });
    }
    Ok(segments)
}

fn check_link(directory: &Path, previous: Segment, first: u64, header: &FileHeader) -> Result<(), Error> {
    if header.previous_first != previous.first {
        return Err(corrupt(directory, first, 0, first, Flaw::PreviousMissing));
    }
    if header.previous_bytes != previous.bytes {
        let offset = header.previous_bytes.min(previous.bytes);
        return Err(corrupt(directory, previous.first, offset, previous.first, Flaw::Length));
    }
    Ok(())
}

/// Scans the last segment and ends the log behind its last sound frame, if what follows may be a
/// torn tail; fails if it proves to be damage.
fn settle(directory: &Path, mut segments: VecDeque<Segment>, options: &Options) -> Result<Opened, Error> {
    let Some(tail) = segments.back_mut() else {
        let next = options.first_sequence;
        return Ok(Opened::new(segments, next, SparseIndex::new(next), None));
    };
    let path = segment_path(directory, tail.first);
    let unreadable = |error| Error::io("read", &path, error);
    let file = File::open(&path).map_err(unreadable)?;
    let mut source = Source::new(file, tail.bytes);
    let mut index = SparseIndex::new(tail.first);
    let end = scan::walk(&mut source, *tail, Check::Payloads, |sequence, offset| {
        index.note(sequence, offset);
    })
    .map_err(unreadable)?;

    let mut torn = None;
    if let Some(flaw) = end.flaw {
        let known = end.sequence < options.acknowledged_below;
        if known || scan::acknowledged(&mut source, tail.seed, &end).map_err(unreadable)? {
            return Err(corrupt(directory, tail.first, end.offset, end.sequence, flaw));
        }
        let bytes = tail.bytes - end.offset;
        torn = Some(TornTail { file: path, offset: end.offset, sequence: end.sequence, bytes, flaw });
        tail.bytes = end.offset;
    }
    Ok(Opened::new(segments, end.sequence, index, torn))
}

/// Cuts the torn tail and makes durable all that is kept, so that everything below `next_sequence`
/// counts as acknowledged from here on.
///
/// Frames may be there that their writer did not live to sync, and so may a segment's name. Dying
/// anywhere in here is harmless: the next opening finds the same frames, with or without the tail.
fn make_durable(directory: &Path, opened: &Opened, sync: SyncFn) -> Result<File, Error> {
    let first = opened.state.segments.back().map_or(0, |tail| tail.first);
    let path = segment_path(directory, first);
    let failed = |action| {
        let path = &path;
        move |error: io::Error| Error::io(action, path, error)
    };
    let file = File::options().write(true).open(&path).map_err(failed("open"))?;
    if let Some(torn) = &opened.recovery.torn {
        tracing::warn!(
            file = %torn.file.display(), offset = torn.offset, sequence = torn.sequence,
            bytes = torn.bytes, flaw = %torn.flaw, "cutting a torn tail off the log",
        );
        file.set_len(torn.offset).map_err(failed("truncate"))?;
    }
    // Not fdatasync: the new length has to be durable, or old frames could return behind new ones.
    sync(&file, &path, Extent::All).map_err(failed("sync"))?;
    disk::sync_directory(directory, sync)?;
    Ok(file)
}

fn corrupt(directory: &Path, first: u64, offset: u64, sequence: u64, flaw: Flaw) -> Error {
    Error::Corrupt { file: segment_path(directory, first), offset, sequence, flaw }
}
