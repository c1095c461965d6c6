//! `kill -9` while appending: what was printed as acknowledged is there afterwards.

use std::env;
use std::io::{BufRead, BufReader, Write, stdout};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use segment_log::{Error, SegmentLog};

use crate::common::{open, options, scratch};

const DIRECTORY: &str = "SEGMENT_LOG_TEST_DIRECTORY";
const ROUNDS: u64 = 25;

/// Lengths up to 8 MiB, so that a kill also falls into the middle of a write.
fn record(sequence: u64) -> Vec<u8> {
    let words = match sequence % 5 {
        0 => 1 + sequence * 7919 % (1 << 20),
        _ => 1 + sequence % 50,
    };
    sequence.to_be_bytes().repeat(usize::try_from(words).unwrap())
}

/// Not a test: the child of the one below.
#[test]
#[ignore = "started by killed_writers_keep_what_they_acknowledged"]
fn append_until_killed() {
    let Some(directory) = env::var_os(DIRECTORY) else { return };
    let (mut log, _) = SegmentLog::open(directory, options(8 << 20)).unwrap();
    loop {
        let next = log.next_sequence();
        let records: Vec<_> = (next..=next + next % 3).map(record).collect();
        log.append(&records.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
        log.truncate_front(next.saturating_sub(30)).unwrap();
        writeln!(stdout(), "acknowledged {}", log.next_sequence()).unwrap();
    }
}

/// Lets the child append for a while after its first acknowledgement, kills it, and returns what
/// it acknowledged last.
fn run_and_kill(directory: &Path, after: Duration) -> u64 {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["kill::append_until_killed", "--exact", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // A line that the kill cuts short holds a lower number; `max` passes over it.
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut numbers = lines.filter_map(|line| line.strip_prefix("acknowledged ")?.parse().ok());
    let first: u64 = numbers.next().expect("the child appends");
    let last = thread::spawn(move || numbers.fold(first, u64::max));
    thread::sleep(after);
    assert!(matches!(open(directory), Err(Error::Locked { .. })));
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());
    last.join().unwrap()
}

#[test]
fn killed_writers_keep_what_they_acknowledged() {
    let scratch = scratch();
    let directory = scratch.path().join("log");
    let (mut torn, mut acknowledged) = (0, 0);
    for round in 0..ROUNDS {
        let after = Duration::from_millis(round * 37 % 150);
        acknowledged = run_and_kill(&directory, after);
        let (log, recovery) = SegmentLog::open(&directory, options(8 << 20)).unwrap();
        torn += u64::from(recovery.torn.is_some());
        let next = log.next_sequence();
        // At most the append under way is there on top.
        assert!((acknowledged..=acknowledged + 3).contains(&next), "{acknowledged}, {next}");
        for entry in log.iter_from(log.first_sequence()) {
            let entry = entry.unwrap();
            assert_eq!(entry.payload, record(entry.sequence), "record {}", entry.sequence);
        }
        assert_eq!(log.verify_all().unwrap().records, next - log.first_sequence());
    }
    eprintln!("{ROUNDS} kills, {acknowledged} records, {torn} torn tails");
    assert!(acknowledged > 0);
}
