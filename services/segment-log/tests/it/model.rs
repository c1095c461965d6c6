//! Random histories against a plain vector.

use std::collections::BTreeMap;
use std::fs::File;

use proptest::collection::vec;
use proptest::prelude::*;
use segment_log::{Error, Options, SegmentLog};

use crate::common::{fast_scratch, last_segment};

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<Vec<u8>>),
    TruncateFront(u64),
    Reopen,
    /// The process dies and the last file loses bytes at its end, as many as the last append is
    /// long at most: the state of an append that was never acknowledged.
    Tear(u64),
    Read(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let record = vec(any::<u8>(), 1..120);
    let step = prop_oneof![
        6 => vec(record, 0..6).prop_map(Step::Append),
        1 => (0_u64..80).prop_map(Step::TruncateFront),
        1 => Just(Step::Reopen),
        1 => (1_u64..700).prop_map(Step::Tear),
        3 => (0_u64..80).prop_map(Step::Read),
    ];
    vec(step, 1..60)
}

fn check_read(log: &SegmentLog, model: &BTreeMap<u64, Vec<u8>>, next: u64, sequence: u64) {
    match log.read(sequence) {
        Ok(found) => assert_eq!(found.as_ref(), model.get(&sequence), "record {sequence}"),
        Err(Error::Gone { .. }) => {
            assert!(sequence < next && !model.contains_key(&sequence), "record {sequence}");
        }
        Err(error) => panic!("{error}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn histories_agree_with_a_map(steps in steps(), segment_bytes_max in 100_u64..3000) {
        let dir = fast_scratch();
        let options = Options { segment_bytes_max, ..Options::default() };
        let mut log = SegmentLog::open(dir.path(), options.clone()).unwrap().0;
        let mut model = BTreeMap::new();
        // Length of the last append, while its segment is the last and the log was not reopened.
        let mut last_append = (0_u64, 0_u64);
        for step in steps {
            let next = log.next_sequence();
            match step {
                Step::Append(records) => {
                    let slices: Vec<_> = records.iter().map(Vec::as_slice).collect();
                    prop_assert_eq!(log.append(&slices).unwrap(), next);
                    if !records.is_empty() {
                        let bytes = records.iter().map(|record| record.len() as u64 + 24).sum();
                        last_append = (next, bytes);
                    }
                    model.extend((next..).zip(records));
                }
                Step::TruncateFront(before) => {
                    log.truncate_front(before).unwrap();
                    let first = log.first_sequence();
                    prop_assert!(first <= before.max(model.keys().next().copied().unwrap_or(next)));
                    model.retain(|sequence, _| *sequence >= first);
                }
                Step::Reopen => {
                    drop(log);
                    let recovery;
                    (log, recovery) = SegmentLog::open(dir.path(), options.clone()).unwrap();
                    prop_assert_eq!((recovery.next_sequence, recovery.torn), (next, None));
                }
                Step::Tear(bytes) => {
                    drop(log);
                    let path = last_segment(dir.path());
                    let file = File::options().write(true).open(path).unwrap();
                    let cut = bytes.min(last_append.1);
                    file.set_len(file.metadata().unwrap().len() - cut).unwrap();
                    log = SegmentLog::open(dir.path(), options.clone()).unwrap().0;
                    let kept = log.next_sequence();
                    prop_assert!(kept >= last_append.0 && (kept < next || cut == 0));
                    model.retain(|sequence, _| *sequence < kept);
                    last_append = (kept, 0);
                }
                Step::Read(sequence) => check_read(&log, &model, next, sequence),
            }
        }
        let first = log.first_sequence();
        let found: Vec<_> = log.iter_from(first).map(Result::unwrap).collect();
        let expected: Vec<_> = model.iter().map(|(at, payload)| (*at, payload.clone())).collect();
        prop_assert_eq!(
            found.into_iter().map(|record| (record.sequence, record.payload)).collect::<Vec<_>>(),
            expected
        );
        prop_assert_eq!(log.verify_all().unwrap().records, log.next_sequence() - first);
    }
}
