//! Every bit of a small log, flipped one at a time.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use segment_log::{Error, SegmentLog};

use crate::common::{append, fast_scratch, inspect, options, payload, segments};

/// Four segments: appends of one, two and three records, 18 records in all. Returns where in the
/// last segment the last append stands, and its first number.
fn build(directory: &Path) -> (Range<u64>, u64) {
    let (mut log, _) = SegmentLog::open(directory, options(305)).unwrap();
    for count in [1, 2, 3, 1, 2, 3, 1, 2, 3] {
        append(&mut log, count);
    }
    let paths = segments(directory);
    assert_eq!((paths.len(), log.next_sequence()), (4, 18));
    let end = fs::metadata(&paths[3]).unwrap().len();
    let last_append: usize = (15..18).map(|sequence| 24 + payload(sequence).len()).sum();
    // The last segment has an older append in front.
    assert!(end > 48 + 24 + last_append as u64);
    (end - last_append as u64..end, 15)
}

/// What a reader can still get must be right; what is damaged must be an error or the torn end.
fn harmed(directory: &Path) -> Harm {
    let (log, recovery) = match inspect(directory) {
        Ok(opened) => opened,
        Err(Error::Corrupt { .. }) => return Harm::Corrupt,
        Err(error) => panic!("{error}"),
    };
    let mut errors = 0;
    for sequence in 0..recovery.next_sequence {
        match log.read(sequence) {
            Ok(record) => assert_eq!(record, Some(payload(sequence))),
            Err(Error::Corrupt { .. }) => errors += 1,
            Err(error) => panic!("{error}"),
        }
    }
    for record in log.iter_from(0).flatten() {
        assert_eq!(record.payload, payload(record.sequence));
    }
    match (log.verify_all(), recovery.torn) {
        (Err(Error::Corrupt { .. }), None) => {
            assert!(errors > 0, "verify_all found what no read did");
            Harm::Corrupt
        }
        (Ok(verified), Some(torn)) => {
            assert_eq!((errors, verified.records), (0, torn.sequence));
            Harm::Torn(torn.sequence)
        }
        other => panic!("not noticed: {other:?}"),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Harm {
    Corrupt,
    Torn(u64),
}

#[test]
fn every_flipped_bit_is_found() {
    let dir = fast_scratch();
    let (last_append, last_first) = build(dir.path());
    for (at, path) in segments(dir.path()).iter().enumerate() {
        let bytes = fs::read(path).unwrap();
        let file = File::options().write(true).open(path).unwrap();
        for (offset, byte) in (0_u64..).zip(&bytes) {
            for bit in 0..8 {
                file.write_all_at(&[byte ^ (1 << bit)], offset).unwrap();
                let harm = harmed(dir.path());
                let what = format!("segment {at}, byte {offset}, bit {bit}: {harm:?}");
                if at == 3 && last_append.contains(&offset) {
                    assert!(matches!(harm, Harm::Torn(from) if from >= last_first), "{what}");
                } else {
                    assert_eq!(harm, Harm::Corrupt, "{what}");
                }
            }
            file.write_all_at(&[*byte], offset).unwrap();
        }
    }
    assert_eq!(inspect(dir.path()).unwrap().0.verify_all().unwrap().records, 18);
}

/// The first damage is named: file, offset and number of the frame.
#[test]
fn damage_is_located() {
    let dir = fast_scratch();
    build(dir.path());
    let path = &segments(dir.path())[1];
    let name = path.file_stem().unwrap().to_str().unwrap();
    let first: u64 = name.parse().unwrap();
    let mut bytes = fs::read(path).unwrap();
    let second = 48 + 24 + payload(first).len();
    bytes[second + 24] ^= 0x80;
    fs::write(path, bytes).unwrap();
    let (log, recovery) = inspect(dir.path()).unwrap();
    assert_eq!(recovery.torn, None);
    for error in [log.verify_all().unwrap_err(), log.read(first + 1).unwrap_err()] {
        let Error::Corrupt { file, offset, sequence, .. } = error else { panic!("{error}") };
        assert_eq!((&file, offset, sequence), (path, second as u64, first + 1));
    }
    assert_eq!(log.read(first).unwrap(), Some(payload(first)));
    assert_eq!(log.read(first + 2).unwrap(), Some(payload(first + 2)));
}
