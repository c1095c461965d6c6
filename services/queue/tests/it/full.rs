//! No room: a file size limit, and a real file system that is full. Each ends, and the queue goes
//! on by itself.

use std::env;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use chopmark_domain::ports::{PortError, Queue, QueueConsumer};
use chopmark_queue::{Config, EmbeddedQueue};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::common::{PATIENCE, drain, message, newest, serials, take};

const DIRECTORY: &str = "CHOPMARK_QUEUE_TEST_FULL_DIRECTORY";
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

/// Publishes until there is no room, takes half, makes room, and publishes until it works.
async fn survive(directory: &Path, make_room: impl FnOnce()) {
    let queue = EmbeddedQueue::open(directory.join("queue"), Config::new("sandbox")).unwrap();
    let mut consumer = queue.consumer().unwrap();
    let mut acknowledged = Vec::new();
    let mut serial = 0;
    let error = loop {
        match queue.publish(vec![message(1, serial, 5000)]).await {
            Ok(()) => acknowledged.push(serial),
            Err(error) => break error,
        }
        serial += 1;
        assert!(serial < 10_000, "no limit in force");
    };
    assert!(matches!(error, PortError::DiskFull("queue")), "{error:?}");
    assert!(matches!(queue.publish(vec![message(1, serial, 5000)]).await, Err(PortError::DiskFull("queue"))));

    // Consuming goes on meanwhile, and survives that the log is opened anew underneath.
    let taken = take(&mut consumer, acknowledged.len() / 2).await;
    consumer.commit(&newest(&taken)).await.unwrap();
    make_room();
    let until = Instant::now() + PATIENCE;
    serial += 1;
    while let Err(error) = queue.publish(vec![message(1, serial, 5000)]).await {
        assert!(matches!(error, PortError::DiskFull("queue")), "{error:?}");
        assert!(Instant::now() < until, "the queue did not recover");
        tokio::time::sleep(Duration::from_millis(20)).await;
        serial += 1;
    }
    acknowledged.push(serial);
    let rest = drain(&mut consumer).await;
    let delivered: Vec<_> = serials(&taken).into_iter().chain(serials(&rest)).collect();
    assert!(delivered.is_sorted(), "{delivered:?}");
    for serial in &acknowledged {
        assert!(delivered.contains(serial), "{serial} was acknowledged and is lost");
    }
    consumer.commit(&newest(&rest)).await.unwrap();
    drop((consumer, queue));
    let queue = EmbeddedQueue::open(directory.join("queue"), Config::new("sandbox")).unwrap();
    assert!(drain(&mut queue.consumer().unwrap()).await.is_empty());
    eprintln!("{SUCCESS}: {} acknowledged, {} tried", acknowledged.len(), serial + 1);
}

/// Not a test: the child of the one below.
#[tokio::test]
#[ignore = "started by a_file_size_limit_is_a_full_disk"]
async fn meet_the_limit() {
    let Some(directory) = child_directory() else { return };
    let maximum = getrlimit(Resource::Fsize).maximum;
    survive(&directory, || setrlimit(Resource::Fsize, Rlimit { current: maximum, maximum }).unwrap()).await;
}

#[test]
fn a_file_size_limit_is_a_full_disk() {
    let scratch = tempfile::tempdir().unwrap();
    // The signal's default is to kill; a shell that ignores it hands that on.
    let script = "trap '' XFSZ; ulimit -S -f 400; exec \"$@\"";
    let output = child("full::meet_the_limit", script, scratch.path()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && told.contains(SUCCESS), "{told}");
}

/// Not a test: the child of the one below.
#[tokio::test]
#[ignore = "started by a_log_lost_meanwhile_is_broken"]
async fn lose_the_log() {
    let Some(directory) = child_directory() else { return };
    let queue = EmbeddedQueue::open(&directory, Config::new("sandbox")).unwrap();
    while queue.publish(vec![message(1, 0, 5000)]).await.is_ok() {}
    fs::remove_dir_all(directory.join("log")).unwrap();
    let until = Instant::now() + PATIENCE;
    loop {
        match queue.publish(vec![message(1, 0, 10)]).await {
            Err(PortError::DiskFull(_)) => assert!(Instant::now() < until, "the queue did not look"),
            Err(PortError::Broken { reason, .. }) => break assert!(reason.contains("acknowledged"), "{reason}"),
            other => panic!("{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    eprintln!("{SUCCESS}");
}

/// Opening the log anew may not begin an empty one where messages were acknowledged.
#[test]
fn a_log_lost_meanwhile_is_broken() {
    let scratch = tempfile::tempdir().unwrap();
    let script = "trap '' XFSZ; ulimit -S -f 400; exec \"$@\"";
    let output = child("full::lose_the_log", script, scratch.path()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && told.contains(SUCCESS), "{told}");
}

/// Not a test: the child of the one below, on a file system of 1 MiB.
#[tokio::test]
#[ignore = "started by a_full_file_system_is_survived"]
async fn fill_the_file_system() {
    let Some(directory) = child_directory() else { return };
    let ballast = directory.join("ballast");
    File::create(&ballast).unwrap().write_all(&[1; 300 << 10]).unwrap();
    survive(&directory, || fs::remove_file(&ballast).unwrap()).await;
}

/// The mount is made in a name space of its own and ends with the child.
#[test]
fn a_full_file_system_is_survived() {
    let scratch = tempfile::tempdir().unwrap();
    let mount = format!("mount -t tmpfs -o size=1m none \"${DIRECTORY}\" || exit 77; exec \"$@\"");
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
