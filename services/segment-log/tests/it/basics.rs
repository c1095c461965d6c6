//! The plain contract: numbers, order, roll-over, retention, refusals, strange directories.

use std::fs;

use segment_log::{Error, Flaw, OnTornTail, Options, SegmentLog};

use crate::common::{append, assert_holds, contents, inspect, open, options, scratch, segments};

#[test]
fn records_come_back_in_order_and_over_reopening() {
    let dir = scratch();
    let (mut log, recovery) = open(dir.path()).unwrap();
    assert!(recovery.was_empty);
    assert_holds(&log, 0, 0);
    assert_eq!(append(&mut log, 1), 0);
    assert_eq!(append(&mut log, 5), 1);
    assert_eq!(log.append(&[]).unwrap(), 6);
    assert_holds(&log, 0, 6);
    drop(log);

    let (mut log, recovery) = open(dir.path()).unwrap();
    assert!(!recovery.was_empty);
    assert_eq!((recovery.first_sequence, recovery.next_sequence), (0, 6));
    assert_eq!((recovery.segments, recovery.torn), (1, None));
    assert_eq!(append(&mut log, 2), 6);
    assert_holds(&log, 0, 8);
}

#[test]
fn a_new_log_starts_where_it_is_told_and_an_old_one_keeps_its_numbers() {
    let dir = scratch();
    let from = |first_sequence| Options { first_sequence, ..options(200) };
    let (mut log, _) = SegmentLog::open(dir.path().join("new"), from(1000)).unwrap();
    for _ in 0..20 {
        append(&mut log, 1);
    }
    assert_holds(&log, 1000, 1020);
    assert!(matches!(log.read(999), Err(Error::Gone { sequence: 999, first_sequence: 1000 })));
    drop(log);
    let (log, _) = SegmentLog::open(dir.path().join("new"), from(5)).unwrap();
    assert_holds(&log, 1000, 1020);
}

#[test]
fn segments_roll_over_and_an_append_is_never_split() {
    let dir = scratch();
    let (mut log, _) = SegmentLog::open(dir.path(), options(300)).unwrap();
    append(&mut log, 30); // longer than a segment, and the segment is empty
    append(&mut log, 1); // the next one
    append(&mut log, 30); // too long for what is left of it
    for _ in 0..40 {
        append(&mut log, 1);
    }
    assert_holds(&log, 0, 101);
    let firsts: Vec<_> = segments(dir.path())
        .iter()
        .map(|path| path.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap())
        .collect();
    assert_eq!(firsts[..3], [0, 30, 31]);
    assert!(firsts.len() > 8);
    drop(log);
    let (mut log, recovery) = SegmentLog::open(dir.path(), options(300)).unwrap();
    assert_eq!(recovery.segments, firsts.len());
    append(&mut log, 9);
    assert_holds(&log, 0, 110);
}

/// More closed segments than indexes are kept, and segments with many marks.
#[test]
fn any_record_is_found() {
    let dir = crate::common::fast_scratch();
    let (mut log, _) = SegmentLog::open(dir.path(), options(200)).unwrap();
    for _ in 0..400 {
        append(&mut log, 1);
    }
    for step in [1, 7, 133, 399] {
        for sequence in (0..400).map(|at| at * step % 400) {
            assert_eq!(log.read(sequence).unwrap(), Some(crate::common::payload(sequence)));
        }
    }
    drop(log);

    let (mut log, _) = SegmentLog::open(dir.path(), options(4 << 20)).unwrap();
    let record = |sequence: u64| sequence.to_be_bytes().repeat(usize::try_from(1 + sequence % 700).unwrap());
    for start in (400..6400).step_by(100) {
        let payloads: Vec<_> = (start..start + 100).map(record).collect();
        log.append(&payloads.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
    }
    for reopened in [false, true] {
        for sequence in (0..6000).map(|at| 400 + at * 2477 % 6000).take(1500) {
            assert_eq!(log.read(sequence).unwrap(), Some(record(sequence)));
        }
        assert_eq!(log.iter_from(399).filter(Result::is_ok).count(), 6001);
        if !reopened {
            drop(log);
            log = open(dir.path()).unwrap().0;
        }
    }
}

#[test]
fn only_whole_segments_leave_and_the_last_stays() {
    let dir = scratch();
    let (mut log, _) = SegmentLog::open(dir.path(), options(300)).unwrap();
    for _ in 0..60 {
        append(&mut log, 1);
    }
    let reader = log.reader();
    let mut records = reader.iter_from(0);
    records.next().unwrap().unwrap();

    log.truncate_front(0).unwrap();
    assert_holds(&log, 0, 60);
    log.truncate_front(25).unwrap();
    let first = log.first_sequence();
    assert!(first > 0 && first <= 25);
    assert_holds(&log, first, 60);
    assert!(matches!(log.read(first - 1), Err(Error::Gone { .. })));
    assert!(matches!(records.next(), Some(Err(Error::Gone { sequence: 1, .. }))));
    assert!(records.next().is_none());
    drop(log);

    let (mut log, recovery) = SegmentLog::open(dir.path(), options(300)).unwrap();
    assert_eq!(recovery.first_sequence, first);
    log.truncate_front(u64::MAX).unwrap();
    assert_eq!(segments(dir.path()).len(), 1);
    append(&mut log, 3);
    let first = log.first_sequence();
    assert_holds(&log, first, 63);
}

#[test]
fn records_of_no_or_too_much_length_are_refused_whole() {
    let dir = scratch();
    let (mut log, _) = SegmentLog::open(dir.path(), Options { record_bytes_max: 8, ..Options::default() }).unwrap();
    for refused in [&b""[..], b"ninebytes"] {
        let error = log.append(&[b"fine", refused]).unwrap_err();
        assert!(matches!(error, Error::RecordSize { bytes_max: 8, .. }), "{error}");
    }
    assert_eq!(log.append(&[b"fine", b"8 bytes."]).unwrap(), 0);
    assert_eq!(log.next_sequence(), 2);
}

#[test]
fn a_longer_record_stays_readable_under_a_lower_limit() {
    let dir = scratch();
    let (mut log, _) = open(dir.path()).unwrap();
    log.append(&[&[7; 100]]).unwrap();
    drop(log);
    let (log, _) = SegmentLog::open(dir.path(), Options { record_bytes_max: 8, ..Options::default() }).unwrap();
    assert_eq!(log.read(0).unwrap(), Some(vec![7; 100]));
}

#[test]
fn options_that_contradict_the_format_are_refused() {
    let dir = scratch();
    let wrong = [
        options(47),
        Options { record_bytes_max: 0, ..Options::default() },
        Options { record_bytes_max: u32::MAX, ..Options::default() },
        Options { first_sequence: u64::MAX, ..Options::default() },
    ];
    for options in wrong {
        assert!(matches!(SegmentLog::open(dir.path(), options), Err(Error::Options(_))));
    }
    assert!(contents(dir.path()).is_empty());
}

#[test]
fn a_second_opener_is_told_which_directory_is_locked() {
    let dir = scratch();
    let (mut log, _) = open(dir.path()).unwrap();
    append(&mut log, 1);
    for second in [open(dir.path()), inspect(dir.path())] {
        let error = second.unwrap_err();
        assert!(matches!(&error, Error::Locked { directory } if directory == dir.path()));
        assert!(error.to_string().contains(dir.path().to_str().unwrap()), "{error}");
    }
    drop(log);
    let (first, _) = inspect(dir.path()).unwrap();
    let (second, _) = inspect(dir.path()).unwrap();
    assert!(matches!(open(dir.path()), Err(Error::Locked { .. })));
    drop((first, second));
    open(dir.path()).unwrap();
}

#[test]
fn reading_only_changes_nothing() {
    let dir = scratch();
    assert!(matches!(inspect(&dir.path().join("absent")), Err(Error::Io { .. })));
    let (mut log, recovery) = inspect(dir.path()).unwrap();
    assert!(recovery.was_empty);
    assert_eq!(log.verify_all().unwrap().segments, 0);
    assert_eq!(log.read(0).unwrap(), None);
    assert!(matches!(log.append(&[b"x"]), Err(Error::ReadOnly { .. })));
    assert!(contents(dir.path()).is_empty());
    drop(log);

    let (mut log, _) = SegmentLog::open(dir.path(), options(100)).unwrap();
    append(&mut log, 3);
    append(&mut log, 3);
    drop(log);
    fs::write(dir.path().join("00000000000000000009.seg.tmp"), b"half").unwrap();
    let before = contents(dir.path());
    let (mut log, _) = inspect(dir.path()).unwrap();
    assert_holds(&log, 0, 6);
    assert!(matches!(log.truncate_front(6), Err(Error::ReadOnly { .. })));
    drop(log);
    assert_eq!(contents(dir.path()), before);
}

#[test]
fn a_segment_that_was_never_finished_is_removed_and_strangers_stay() {
    let dir = scratch();
    let leftover = dir.path().join("00000000000000000002.seg.tmp");
    let stranger = dir.path().join("notes.txt");
    for file in [&leftover, &stranger] {
        fs::write(file, b"half a header").unwrap();
    }
    let (mut log, recovery) = open(dir.path()).unwrap();
    assert!(recovery.was_empty);
    append(&mut log, 4);
    assert_holds(&log, 0, 4);
    assert!(!leftover.exists() && stranger.exists());
}

/// The state between making a segment and its first append.
#[test]
fn a_last_segment_without_frames_is_sound() {
    let dir = scratch();
    let (mut log, _) = SegmentLog::open(dir.path(), options(100)).unwrap();
    append(&mut log, 3);
    append(&mut log, 3);
    drop(log);
    let last = segments(dir.path()).pop().unwrap();
    fs::File::options().write(true).open(&last).unwrap().set_len(48).unwrap();
    let (mut log, recovery) = open(dir.path()).unwrap();
    assert_eq!((recovery.next_sequence, recovery.segments, recovery.torn), (3, 2, None));
    append(&mut log, 3);
    assert_holds(&log, 0, 6);
}

#[test]
fn a_missing_or_shortened_segment_is_found_on_opening() {
    let dir = scratch();
    let (mut log, _) = SegmentLog::open(dir.path(), options(100)).unwrap();
    for _ in 0..4 {
        append(&mut log, 3);
    }
    drop(log);
    let paths = segments(dir.path());
    assert_eq!(paths.len(), 4);

    let aside = dir.path().join("aside");
    fs::rename(&paths[1], &aside).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(&error, Error::Corrupt { file, flaw: Flaw::PreviousMissing, .. } if *file == paths[2]), "{error}");
    fs::rename(&aside, &paths[1]).unwrap();

    let bytes = fs::read(&paths[1]).unwrap();
    for wrong in [&bytes[..bytes.len() - 1], &[&bytes[..], b"x"].concat()] {
        fs::write(&paths[1], wrong).unwrap();
        let error = open(dir.path()).unwrap_err();
        assert!(matches!(&error, Error::Corrupt { file, flaw: Flaw::Length, .. } if *file == paths[1]), "{error}");
    }
    fs::write(&paths[1], &bytes).unwrap();
    assert_holds(&open(dir.path()).unwrap().0, 0, 12);
}

/// The same number and payload in another log: only the salt differs.
#[test]
fn a_frame_from_another_log_is_refused() {
    let (ours, theirs) = (scratch(), scratch());
    for dir in [&ours, &theirs] {
        let (mut log, _) = open(dir.path()).unwrap();
        append(&mut log, 1);
        append(&mut log, 1);
    }
    let mut bytes = fs::read(segments(ours.path()).pop().unwrap()).unwrap();
    let foreign = fs::read(segments(theirs.path()).pop().unwrap()).unwrap();
    bytes[48..].copy_from_slice(&foreign[48..]);
    fs::write(segments(ours.path()).pop().unwrap(), bytes).unwrap();
    let (_, recovery) = inspect(ours.path()).unwrap();
    assert_eq!(recovery.torn.map(|torn| (torn.sequence, torn.flaw)), Some((0, Flaw::FrameHeader)));
}

#[test]
fn a_frame_repeated_within_its_log_is_refused() {
    let dir = scratch();
    let (mut log, _) = open(dir.path()).unwrap();
    append(&mut log, 1);
    drop(log);
    let path = segments(dir.path()).pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend_from_within(48..);
    fs::write(&path, bytes).unwrap();
    for torn_tail in [OnTornTail::Truncate, OnTornTail::Refuse] {
        let error = SegmentLog::open(dir.path(), Options { torn_tail, ..Options::default() });
        assert!(matches!(error, Err(Error::Corrupt { sequence: 1, flaw: Flaw::Sequence, .. })));
    }
}
