//! Builders and small observations that the tests share.

use std::fs;
use std::path::{Path, PathBuf};

use segment_log::{Error, OnTornTail, Options, Recovery, SegmentLog};
use tempfile::TempDir;

/// A directory in memory if the system has one: thousands of openings, each with its syncs, would
/// take minutes on a disk. Only tests that need no real disk use it.
pub(crate) fn fast_scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub(crate) fn scratch() -> TempDir {
    tempfile::tempdir().unwrap()
}

pub(crate) fn options(segment_bytes_max: u64) -> Options {
    Options { segment_bytes_max, ..Options::default() }
}

pub(crate) fn open(directory: &Path) -> Result<(SegmentLog, Recovery), Error> {
    SegmentLog::open(directory, Options::default())
}

/// Opens for reading only: nothing changes, so one damaged copy serves many openings.
pub(crate) fn inspect(directory: &Path) -> Result<(SegmentLog, Recovery), Error> {
    SegmentLog::open(directory, Options { torn_tail: OnTornTail::Refuse, ..Options::default() })
}

/// What record `sequence` holds in most tests: lengths from 1 to 40, bytes that differ.
pub(crate) fn payload(sequence: u64) -> Vec<u8> {
    let length = 1 + sequence * 7 % 40;
    (0..length).map(|at| u8::try_from((sequence * 31 + at * 5) % 251).unwrap()).collect()
}

/// Appends the records `payload(n)` for the next `count` numbers, in one go.
pub(crate) fn append(log: &mut SegmentLog, count: u64) -> u64 {
    let next = log.next_sequence();
    let payloads: Vec<_> = (next..next + count).map(payload).collect();
    let records: Vec<_> = payloads.iter().map(Vec::as_slice).collect();
    log.append(&records).unwrap()
}

/// Every record from `first` to `next` is there, with the right bytes, both ways of reading.
pub(crate) fn assert_holds(log: &SegmentLog, first: u64, next: u64) {
    assert_eq!((log.first_sequence(), log.next_sequence()), (first, next));
    let mut records = log.iter_from(first);
    for sequence in first..next {
        let record = records.next().unwrap().unwrap();
        assert_eq!((record.sequence, record.payload), (sequence, payload(sequence)));
        assert_eq!(log.read(sequence).unwrap(), Some(payload(sequence)));
    }
    assert!(records.next().is_none());
    assert_eq!(log.read(next).unwrap(), None);
    assert_eq!(log.verify_all().unwrap().records, next - first);
}

/// The segments of a log, oldest first.
pub(crate) fn segments(directory: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = names.filter(|path| path.extension().is_some_and(|end| end == "seg")).collect();
    found.sort();
    found
}

pub(crate) fn last_segment(directory: &Path) -> PathBuf {
    segments(directory).pop().unwrap()
}

/// All files of a directory by name, to see that nothing changed.
pub(crate) fn contents(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    files.sort();
    files
}
