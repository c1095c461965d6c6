//! `kill -9` under load: what was acknowledged is delivered, in order, at least once.

use std::collections::BTreeSet;
use std::env;
use std::io::{BufRead, BufReader, Write, stdout};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use chopmark_domain::ports::{Queue, QueueConsumer};
use chopmark_queue::{Config, EmbeddedQueue};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::common::{drain, identity, message, newest, small};

const DIRECTORY: &str = "CHOPMARK_QUEUE_TEST_DIRECTORY";
const START: &str = "CHOPMARK_QUEUE_TEST_START";
const SEED: u64 = 20_260_722;
const KILLS: u64 = 10;
const KEYS: u64 = 8;

fn config() -> Config {
    Config { log_bytes_max: 64 << 20, ..small() }
}

/// One system call each, so that a kill cuts no line that matters: a line cut short does not parse.
fn say(word: &str, key: u64, serial: u64) {
    stdout().write_all(format!("{word} {key} {serial} .\n").as_bytes()).unwrap();
}

/// Not a test: the child of the one below. Says what was acknowledged, and what is done before it
/// is committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by killed_queues_lose_nothing_acknowledged"]
async fn publish_and_consume_until_killed() {
    let Some(directory) = env::var_os(DIRECTORY) else { return };
    let start: u64 = env::var(START).unwrap().parse().unwrap();
    let queue = EmbeddedQueue::open(directory, config()).unwrap();
    let mut consumer = queue.consumer().unwrap();
    stdout().write_all(b"ready\n").unwrap();
    for key in 0..KEYS {
        let queue = queue.clone();
        tokio::spawn(async move {
            let mut serial = start;
            loop {
                let count = 1 + (serial * 7 + key) % 5;
                let batch = (serial..serial + count).map(|serial| message(key, serial, 300)).collect();
                if queue.publish(batch).await.is_ok() {
                    (serial..serial + count).for_each(|serial| say("acknowledged", key, serial));
                }
                serial += count;
            }
        });
    }
    loop {
        let deliveries = consumer.poll(100, Duration::from_millis(5)).await.unwrap();
        for delivery in &deliveries {
            let (key, serial) = identity(delivery);
            say("done", key, serial);
        }
        // Half of what was delivered stays uncommitted for a while.
        consumer.commit(&newest(&deliveries[..deliveries.len().div_ceil(2)])).await.unwrap();
    }
}

#[derive(Default)]
struct Told {
    acknowledged: BTreeSet<(u64, u64)>,
    done: BTreeSet<(u64, u64)>,
}

fn run_and_kill(directory: &Path, start: u64, after: Duration) -> Told {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["kill::publish_and_consume_until_killed", "--exact", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(START, start.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    lines.by_ref().find(|line| line.ends_with("ready")).expect("the child opens the queue");
    let reader = thread::spawn(move || {
        let mut told = Told::default();
        for line in lines {
            let words: Vec<_> = line.split(' ').collect();
            let [word, key, serial, "."] = words[..] else { continue };
            let identity = (key.parse().unwrap(), serial.parse().unwrap());
            if word == "done" {
                told.done.insert(identity)
            } else {
                told.acknowledged.insert(identity)
            };
        }
        told
    });
    thread::sleep(after);
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());
    reader.join().unwrap()
}

#[test]
fn killed_queues_lose_nothing_acknowledged() {
    let scratch = tempfile::tempdir().unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut acknowledged, mut again) = (0, 0);
    for kill in 0..KILLS {
        let after = Duration::from_millis(random.random_range(5..300));
        let told = run_and_kill(scratch.path(), kill * 1_000_000, after);
        let queue = EmbeddedQueue::open(scratch.path(), config()).unwrap();
        let mut consumer = queue.consumer().unwrap();
        let rest = runtime.block_on(drain(&mut consumer));
        let delivered: Vec<_> = rest.iter().map(identity).collect();
        for key in 0..KEYS {
            let serials: Vec<_> = delivered.iter().filter(|(of, _)| *of == key).collect();
            assert!(serials.is_sorted_by(|a, b| a < b), "seed {SEED}, kill {kill}, key {key}");
        }
        let delivered: BTreeSet<_> = delivered.into_iter().collect();
        let lost: Vec<_> =
            told.acknowledged.iter().filter(|one| !told.done.contains(one) && !delivered.contains(one)).collect();
        assert!(lost.is_empty(), "seed {SEED}, kill {kill}: lost {lost:?}");
        acknowledged += told.acknowledged.len();
        again += delivered.intersection(&told.done).count();
        runtime.block_on(consumer.commit(&newest(&rest))).unwrap();
    }
    eprintln!("{KILLS} kills, {acknowledged} acknowledged, {again} delivered again");
    assert!(acknowledged > 0);
}
