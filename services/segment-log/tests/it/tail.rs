//! Torn tails: what a crash may leave of the last append, and what it cannot have left.

use std::fs;
use std::path::Path;

use segment_log::{Error, Flaw, Options, SegmentLog};

use crate::common::{append, assert_holds, contents, fast_scratch, inspect, last_segment, open, options, payload};

/// A log whose last append, of four records, starts at the returned offset. `before` records are
/// older, in appends of two.
fn log_with_last_append(directory: &Path, before: u64) -> (Vec<u8>, usize) {
    let (mut log, _) = open(directory).unwrap();
    for _ in 0..before / 2 {
        append(&mut log, 2);
    }
    let start = fs::metadata(last_segment(directory)).unwrap().len();
    append(&mut log, 4);
    (fs::read(last_segment(directory)).unwrap(), usize::try_from(start).unwrap())
}

/// Where each of the four frames of the last append ends, and the start in front.
fn boundaries(start: usize, first: u64) -> Vec<usize> {
    let lengths = (first..first + 4).map(|sequence| 24 + payload(sequence).len());
    let ends = lengths.scan(start, |end, length| {
        *end += length;
        Some(*end)
    });
    [start].into_iter().chain(ends).collect()
}

/// Opens a damaged log for writing: `kept` records stay, and the log goes on as if nothing was.
fn assert_recovers(directory: &Path, kept: u64, torn: bool, what: &str) {
    let before = contents(directory);
    let (log, seen) = inspect(directory).expect(what);
    assert_eq!((seen.next_sequence, seen.torn.is_some()), (kept, torn), "{what}");
    assert_holds(&log, 0, kept);
    drop(log);
    assert_eq!(contents(directory), before, "{what}");

    let (mut log, found) = open(directory).expect(what);
    assert_eq!(found, seen, "{what}");
    if let Some(torn) = found.torn {
        assert_eq!(torn.sequence, kept);
        assert_eq!(fs::metadata(&torn.file).unwrap().len(), torn.offset);
    }
    append(&mut log, 2);
    assert_holds(&log, 0, kept + 2);
    drop(log);
    let (_, again) = open(directory).expect(what);
    assert_eq!((again.next_sequence, again.torn), (kept + 2, None), "{what}");
}

#[test]
fn torn_at_every_byte() {
    for before in [0, 6] {
        let dir = fast_scratch();
        let (bytes, start) = log_with_last_append(dir.path(), before);
        let ends = boundaries(start, before);
        assert_eq!(ends.last(), Some(&bytes.len()));
        let path = last_segment(dir.path());
        for cut in start..=bytes.len() {
            fs::write(&path, &bytes[..cut]).unwrap();
            let whole = ends.iter().filter(|end| **end <= cut).count() as u64 - 1;
            let torn = !ends.contains(&cut);
            assert_recovers(dir.path(), before + whole, torn, &format!("cut at {cut}"));
        }
    }
}

/// Some file systems make the file longer first and fill it in later, or never.
#[test]
fn zeros_in_place_of_the_tail() {
    let dir = fast_scratch();
    let (bytes, start) = log_with_last_append(dir.path(), 6);
    let ends = boundaries(start, 6);
    let path = last_segment(dir.path());
    for cut in start..bytes.len() {
        for length in [bytes.len(), bytes.len() + 1, bytes.len() + 5000] {
            let mut torn = bytes.clone();
            torn[cut..].fill(0);
            torn.resize(length, 0);
            fs::write(&path, &torn).unwrap();
            // A payload that ends in zeros is not torn by zeros: ask the bytes.
            let whole = ends[1..].iter().filter(|end| torn[..**end] == bytes[..**end]).count();
            let what = format!("zeros from {cut} to {length}");
            assert_recovers(dir.path(), 6 + whole as u64, true, &what);
        }
    }
}

/// The sectors of one append reach the disk in any order: here any one of them, as small as they
/// never are, is missing in front of intact frames. That must not be taken for damage.
#[test]
fn a_hole_in_the_last_append_is_a_tear() {
    let dir = fast_scratch();
    let (bytes, start) = log_with_last_append(dir.path(), 6);
    let ends = boundaries(start, 6);
    let path = last_segment(dir.path());
    for from in start..bytes.len() {
        for length in [1, 16, 40] {
            let to = (from + length).min(bytes.len());
            let mut torn = bytes.clone();
            torn[from..to].fill(0);
            if torn == bytes {
                continue;
            }
            fs::write(&path, &torn).unwrap();
            let whole = ends[1..].iter().filter(|end| torn[..**end] == bytes[..**end]).count();
            assert_recovers(dir.path(), 6 + whole as u64, true, &format!("hole {from}..{to}"));
        }
    }
}

/// Damage to acknowledged data stays damage when the tail behind it is torn as well, as long as one
/// frame header of a later append is left.
#[test]
fn damage_in_front_of_a_torn_tail_is_not_cut_away() {
    let dir = fast_scratch();
    let (bytes, start) = log_with_last_append(dir.path(), 6);
    let path = last_segment(dir.path());
    for at in 48..start {
        for kept in [start + 24, bytes.len() - 1] {
            let mut damaged = bytes[..kept].to_vec();
            damaged[at] ^= 1;
            fs::write(&path, &damaged).unwrap();
            let before = contents(dir.path());
            let error = open(dir.path()).expect_err(&format!("flip at {at}"));
            assert!(matches!(error, Error::Corrupt { .. }), "flip at {at}: {error}");
            assert_eq!(contents(dir.path()), before);
        }
    }
}

/// The last append whole, its first frame gone with the tail: the frames behind tell by themselves
/// that theirs is a later append than the damaged one's.
#[test]
fn a_later_append_is_known_by_any_of_its_frames() {
    let dir = fast_scratch();
    let (mut bytes, start) = log_with_last_append(dir.path(), 6);
    let ends = boundaries(start, 6);
    bytes[60] ^= 1;
    bytes[start..ends[2]].fill(0);
    fs::write(last_segment(dir.path()), &bytes).unwrap();
    assert!(matches!(open(dir.path()), Err(Error::Corrupt { sequence: 0, .. })));
}

/// A client that fills its records with what it takes for frames cannot make a tear look like
/// damage and so keep a node from starting.
#[test]
fn payloads_that_look_like_frames_do_not_pass_for_a_later_append() {
    let (dir, other) = (fast_scratch(), fast_scratch());
    let (mut foreign, _) = open(other.path()).unwrap();
    for _ in 0..200 {
        append(&mut foreign, 1);
    }
    let imitation = fs::read(last_segment(other.path())).unwrap();
    let (mut log, _) = open(dir.path()).unwrap();
    append(&mut log, 3);
    // Once also the bytes of this very segment, should they leak: their numbers are too low.
    let own = fs::read(last_segment(dir.path())).unwrap();
    log.append(&[&[&own[..], &imitation, &own].concat()]).unwrap();
    drop(log);
    let path = last_segment(dir.path());
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert_recovers(dir.path(), 3, true, "imitated frames");
}

/// A search that goes over several windows, with the one later header at every place around their
/// border.
#[test]
fn a_later_append_is_found_far_behind() {
    const WINDOW: usize = 128 << 10;
    let dir = fast_scratch();
    for length in (WINDOW - 60..WINDOW + 60).step_by(3).chain([3 * WINDOW + 7]) {
        let (mut log, _) = SegmentLog::open(dir.path().join("log"), options(64 << 20)).unwrap();
        log.append(&[&vec![0xA5; length]]).unwrap();
        append(&mut log, 1);
        drop(log);
        let path = last_segment(&dir.path().join("log"));
        let mut bytes = fs::read(&path).unwrap();
        bytes[50] ^= 4;
        fs::write(&path, &bytes).unwrap();
        let error = open(&dir.path().join("log")).expect_err("damage");
        assert!(
            matches!(error, Error::Corrupt { sequence: 0, offset: 48, flaw: Flaw::FrameHeader, .. }),
            "{length}: {error}"
        );
        fs::remove_dir_all(dir.path().join("log")).unwrap();
    }
}

#[test]
fn the_flaw_says_what_a_tear_looks_like() {
    let dir = fast_scratch();
    let (bytes, start) = log_with_last_append(dir.path(), 2);
    let path = last_segment(dir.path());
    let flaw_of = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        inspect(dir.path()).unwrap().1.torn.map(|torn| torn.flaw)
    };
    let mut flipped = bytes.clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert_eq!(flaw_of(&bytes), None);
    assert_eq!(flaw_of(&bytes[..start + 5]), Some(Flaw::Incomplete));
    assert_eq!(flaw_of(&bytes[..bytes.len() - 1]), Some(Flaw::Incomplete));
    assert_eq!(flaw_of(&flipped), Some(Flaw::Payload));
    assert_eq!(flaw_of(&[&bytes[..], &[0; 100]].concat()), Some(Flaw::FrameHeader));
}

#[test]
fn a_tear_in_what_is_known_to_be_acknowledged_is_damage_and_stays() {
    let dir = fast_scratch();
    let (bytes, _) = log_with_last_append(dir.path(), 2);
    let path = last_segment(dir.path());
    let mut flipped = bytes.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let known_to = |acknowledged_below| Options { acknowledged_below, ..Options::default() };
    for damaged in [&bytes[..bytes.len() - 1], &flipped] {
        fs::write(&path, damaged).unwrap();
        // The last of six records is the torn one.
        let error = SegmentLog::open(dir.path(), known_to(6)).unwrap_err();
        assert!(matches!(error, Error::Corrupt { sequence: 5, .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), damaged);
        let (log, recovery) = SegmentLog::open(dir.path(), known_to(5)).unwrap();
        assert!(recovery.torn.is_some());
        assert_holds(&log, 0, 5);
    }
}

/// A header is durable before its file has its name: no crash leaves one short.
#[test]
fn a_truncated_file_header_is_damage() {
    let dir = fast_scratch();
    let (bytes, _) = log_with_last_append(dir.path(), 2);
    let path = last_segment(dir.path());
    for length in 0..48 {
        fs::write(&path, &bytes[..length]).unwrap();
        for outcome in [open(dir.path()), inspect(dir.path())] {
            let error = outcome.unwrap_err();
            assert!(matches!(error, Error::Corrupt { offset: 0, flaw: Flaw::FileHeader, .. }), "{length}: {error}");
        }
    }
}
