//! No room: a file size limit, and a real file system that is full.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use segment_log::{Error, SegmentLog};

use crate::common::{append, assert_holds, options, scratch, segments};

const DIRECTORY: &str = "SEGMENT_LOG_TEST_FULL_DIRECTORY";
const SUCCESS: &str = "the full disk was survived";

fn child(name: &str, script: &str, directory: &Path) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", script, "sh"])
        .arg(env::current_exe().unwrap())
        .args([name, "--exact", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory);
    command
}

fn child_directory() -> Option<PathBuf> {
    env::var_os(DIRECTORY).map(PathBuf::from)
}

/// Appends until there is no room, and returns the log's next number then.
fn fill(directory: &Path, segment_bytes_max: u64) -> u64 {
    let (mut log, _) = SegmentLog::open(directory, options(segment_bytes_max)).unwrap();
    let error = loop {
        let next = log.next_sequence();
        assert!(next < 1_000_000, "no limit in force");
        let payloads: Vec<_> = (next..next + 5).map(crate::common::payload).collect();
        if let Err(error) = log.append(&payloads.iter().map(Vec::as_slice).collect::<Vec<_>>()) {
            break error;
        }
    };
    assert!(matches!(error, Error::DiskFull { .. }), "{error:?}");
    assert!(matches!(log.append(&[b"x"]), Err(Error::Poisoned { .. })));
    let (first, next) = (log.first_sequence(), log.next_sequence());
    assert!(next > 0);
    assert_holds(&log, first, next);
    drop(log);

    // Nothing of the failed append was left: the file was cut back.
    let (log, recovery) = SegmentLog::open(directory, options(segment_bytes_max)).unwrap();
    assert_eq!((recovery.next_sequence, recovery.torn), (next, None));
    assert_holds(&log, first, next);
    next
}

/// Not a test: the child of the one below.
#[test]
#[ignore = "started by a_file_size_limit_is_a_full_disk"]
fn fill_up_to_the_limit() {
    if let Some(directory) = child_directory() {
        fill(&directory, 64 << 20);
        eprintln!("{SUCCESS}");
    }
}

#[test]
fn a_file_size_limit_is_a_full_disk() {
    let scratch = scratch();
    let directory = scratch.path().join("log");
    // The signal's default is to kill; a shell that ignores it hands that on.
    let script = "trap '' XFSZ; ulimit -f 40; exec \"$@\"";
    let output = child("full::fill_up_to_the_limit", script, &directory).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && told.contains(SUCCESS), "{told}");

    // Without the limit, the log goes on behind what it acknowledged.
    let (mut log, recovery) = SegmentLog::open(&directory, options(64 << 20)).unwrap();
    append(&mut log, 5);
    assert_holds(&log, 0, recovery.next_sequence + 5);
}

/// Not a test: the child of the one below, on a file system of 256 KiB.
#[test]
#[ignore = "started by a_full_file_system_is_survived"]
fn fill_the_file_system() {
    let Some(directory) = child_directory() else { return };
    // Full in the middle of a segment, and full when a new one is made.
    for (name, segment_bytes_max) in [("one", 64 << 20), ("many", 1000)] {
        let directory = directory.join(name);
        let next = fill(&directory, segment_bytes_max);
        let (mut log, _) = SegmentLog::open(&directory, options(segment_bytes_max)).unwrap();
        if segments(&directory).len() > 2 {
            log.truncate_front(next / 2).unwrap();
            append(&mut log, 5);
            let first = log.first_sequence();
            assert_holds(&log, first, next + 5);
        }
        drop(log);
        std::fs::remove_dir_all(&directory).unwrap();
    }
    eprintln!("{SUCCESS}");
}

/// The mount is made in a name space of its own and ends with the child.
#[test]
fn a_full_file_system_is_survived() {
    let scratch = scratch();
    let mount = "mount -t tmpfs -o size=256k none \"$SEGMENT_LOG_TEST_FULL_DIRECTORY\" || exit 77; exec \"$@\"";
    for unshare in ["unshare -m", "unshare -r -m"] {
        let script = format!("exec {unshare} sh -c '{mount}' sh \"$@\"");
        let output = child("full::fill_the_file_system", &script, scratch.path()).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            assert!(told.contains(SUCCESS), "{told}");
            return;
        }
        assert!(!told.contains("panicked"), "{told}");
    }
    eprintln!("SKIPPED: this user may not mount a tmpfs, so no disk was filled");
}
