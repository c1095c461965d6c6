//! Reading on several threads while one appends, rolls over and deletes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use segment_log::{Error, SegmentLog, SegmentReader};

use crate::common::{append, assert_holds, options, payload, scratch};

/// Ends the readers, also when the appender panics.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Follows the log by one iterator until it holds `until` records.
fn follow(reader: &SegmentReader, until: u64, done: &AtomicBool) {
    let mut records = reader.iter_from(0);
    while records.next_sequence() < until {
        // Asked first: what was appended before the end is there after it.
        let ended = done.load(Ordering::Acquire);
        match records.next() {
            Some(record) => {
                let record = record.unwrap();
                assert_eq!(record.payload, payload(record.sequence));
                assert!(record.sequence < reader.next_sequence());
            }
            None => assert!(!ended, "the log ended at {}", records.next_sequence()),
        }
    }
}

fn read_at_random(reader: &SegmentReader, done: &AtomicBool) {
    let mut step = 1;
    while !done.load(Ordering::Relaxed) {
        step = step * 48_271_u64 % 2_147_483_647;
        let next = reader.next_sequence();
        if next > 0 {
            assert_eq!(reader.read(step % next).unwrap(), Some(payload(step % next)));
        }
        assert!(reader.read(next + 100_000).unwrap().is_none());
    }
}

#[test]
fn readers_see_acknowledged_records_only_and_all_of_them() {
    const RECORDS: u64 = 3000;
    let dir = scratch();
    let (mut log, _) = SegmentLog::open(dir.path(), options(4096)).unwrap();
    let done = AtomicBool::new(false);
    let acknowledged = AtomicU64::new(0);
    let (followed, random, verified) = (log.reader(), log.reader(), log.reader());
    thread::scope(|scope| {
        let _end = End(&done);
        scope.spawn(|| follow(&followed, RECORDS, &done));
        scope.spawn(|| read_at_random(&random, &done));
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let floor = acknowledged.load(Ordering::Acquire);
                assert!(verified.verify_all().unwrap().records >= floor);
            }
        });
        while log.next_sequence() < RECORDS {
            let count = 1 + log.next_sequence() % 7;
            append(&mut log, count);
            acknowledged.store(log.next_sequence(), Ordering::Release);
        }
    });
    let next = log.next_sequence();
    assert_holds(&log, 0, next);
}

#[test]
fn records_deleted_under_a_reader_are_gone_and_nothing_else_is() {
    let dir = scratch();
    let (mut log, _) = SegmentLog::open(dir.path(), options(1024)).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let _end = End(&done);
        for _ in 0..2 {
            let reader = log.reader();
            let done = &done;
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    for record in reader.iter_from(reader.first_sequence()) {
                        match record {
                            Ok(record) => assert_eq!(record.payload, payload(record.sequence)),
                            Err(Error::Gone { sequence, first_sequence }) => {
                                assert!(sequence < first_sequence);
                            }
                            Err(error) => panic!("{error}"),
                        }
                    }
                    reader.verify_all().unwrap();
                }
            });
        }
        for _ in 0..600 {
            append(&mut log, 3);
            log.truncate_front(log.next_sequence().saturating_sub(100)).unwrap();
        }
    });
    let (first, next) = (log.first_sequence(), log.next_sequence());
    assert!(next - first < 200);
    assert_holds(&log, first, next);
}
