//! Failures of the system calls, had by putting a device in the place of the last segment's file.

use std::fs::File;

use crate::{Error, Options, SegmentLog};

use super::Tail;

fn device(path: &str) -> Tail {
    Tail::Open(File::options().read(true).write(true).open(path).expect("a device of every Linux"))
}

/// Writing to `device` has to fail, poison the log, and leave what was acknowledged.
fn append_fails_on(path: &str) -> Error {
    let scratch = tempfile::tempdir().expect("a directory");
    let (mut log, _) = SegmentLog::open(scratch.path(), Options::default()).expect("open");
    log.append(&[b"kept"]).expect("append");
    log.tail = device(path);
    let error = log.append(&[b"lost"]).expect_err("the device refuses");

    assert!(log.is_poisoned());
    assert!(matches!(log.append(&[b"more"]), Err(Error::Poisoned { .. })));
    assert!(matches!(log.append(&[]), Err(Error::Poisoned { .. })));
    assert!(matches!(log.truncate_front(1), Err(Error::Poisoned { .. })));
    assert_eq!(log.next_sequence(), 1);
    assert_eq!(log.read(0).expect("read").as_deref(), Some(&b"kept"[..]));
    assert_eq!(log.read(1).expect("read"), None);

    drop(log);
    let (mut log, recovery) = SegmentLog::open(scratch.path(), Options::default()).expect("open");
    assert_eq!((recovery.next_sequence, recovery.torn), (1, None));
    assert_eq!(log.append(&[b"more"]).expect("append"), 1);
    error
}

#[test]
fn a_failed_sync_poisons_the_log() {
    // It takes the write, and knows no sync.
    let error = append_fails_on("/dev/null");
    assert!(matches!(error, Error::Io { action: "sync", .. }), "{error}");
}

#[test]
fn a_full_disk_has_its_own_error_and_poisons_the_log() {
    let error = append_fails_on("/dev/full");
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
}

/// What poisoning cuts off: frames whose sync failed sit in the page cache and look whole.
#[test]
fn frames_whose_sync_failed_are_cut_off() {
    let scratch = tempfile::tempdir().expect("a directory");
    let (mut log, _) = SegmentLog::open(scratch.path(), Options::default()).expect("open");
    log.append(&[b"kept"]).expect("append");
    let segment = crate::format::segment_path(scratch.path(), 0);
    let good = std::fs::metadata(&segment).expect("stat").len();

    let mut whole = std::fs::read(&segment).expect("read");
    let seed = log.shared().state().segments[0].seed;
    crate::format::encode_frame(&mut whole, seed, 1, 0, b"never synced", 12);
    std::fs::write(&segment, &whole).expect("write");
    log.poison();

    assert_eq!(std::fs::metadata(&segment).expect("stat").len(), good);
    drop(log);
    let (_, recovery) = SegmentLog::open(scratch.path(), Options::default()).expect("open");
    assert_eq!((recovery.next_sequence, recovery.torn), (1, None));
}

#[test]
fn handles_cross_threads() {
    fn sendable<T: Send>() {}
    fn shareable<T: Send + Sync + Clone>() {}
    sendable::<SegmentLog>();
    sendable::<crate::Records>();
    shareable::<crate::SegmentReader>();
}
