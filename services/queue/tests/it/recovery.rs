//! Opening after something was lost or damaged.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use chopmark_domain::ports::{PortError, Queue, QueueConsumer};
use chopmark_queue::{Config, EmbeddedQueue};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use crate::common::{drain, message, newest, open, serials, take};

/// Ten messages, the first four of them committed.
async fn prepare(directory: &Path) {
    let queue = open(directory);
    queue.publish((0..10).map(|serial| message(1, serial, 50)).collect()).await.unwrap();
    let mut consumer = queue.consumer().unwrap();
    let taken = take(&mut consumer, 4).await;
    consumer.commit(&newest(&taken)).await.unwrap();
}

fn segment(directory: &Path) -> PathBuf {
    directory.join("log/00000000000000000000.seg")
}

fn assert_broken(directory: &Path) {
    match EmbeddedQueue::open(directory, Config::new("sandbox")) {
        Err(PortError::Broken { reason, .. }) => assert!(reason.contains(directory.to_str().unwrap()), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_log_that_lost_its_tail_is_broken() {
    let scratch = tempfile::tempdir().unwrap();
    prepare(scratch.path()).await;
    let bytes = fs::read(segment(scratch.path())).unwrap();
    // One message that was acknowledged and not committed, and all but the first two.
    for kept in [bytes.len() - 1, 48 + 2 * (bytes.len() - 48) / 10] {
        fs::write(segment(scratch.path()), &bytes[..kept]).unwrap();
        assert_broken(scratch.path());
    }
    fs::remove_dir_all(scratch.path().join("log")).unwrap();
    assert_broken(scratch.path());
}

#[tokio::test]
async fn without_a_position_everything_comes_again() {
    let scratch = tempfile::tempdir().unwrap();
    prepare(scratch.path()).await;
    fs::write(scratch.path().join("committed"), b"damaged").unwrap();
    assert_broken(scratch.path());
    fs::remove_file(scratch.path().join("committed")).unwrap();
    let queue = open(scratch.path());
    assert_eq!(serials(&drain(&mut queue.consumer().unwrap()).await), (0..10).collect::<Vec<_>>());
}

#[derive(Default)]
struct Counters(Mutex<BTreeMap<String, Arc<std::sync::atomic::AtomicU64>>>);

impl Recorder for Counters {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::clone(self.0.lock().unwrap().entry(key.name().to_owned()).or_default()))
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// Opens, and tells how many damaged tails were counted.
fn damaged_tails(directory: &Path) -> u64 {
    let counters = Counters::default();
    metrics::with_local_recorder(&counters, || open(directory));
    let counted = counters.0.lock().unwrap();
    let damaged = counted.get("chopmark_queue_damaged_tail_total");
    damaged.map_or(0, |count| count.load(std::sync::atomic::Ordering::Relaxed))
}

#[tokio::test]
async fn a_tail_that_no_kill_explains_is_counted() {
    let scratch = tempfile::tempdir().unwrap();
    prepare(scratch.path()).await;
    let sound = fs::read(segment(scratch.path())).unwrap();
    // A write cut short; then sectors that never reached the disk.
    fs::write(segment(scratch.path()), [&sound[..], &[0, 0, 0]].concat()).unwrap();
    assert_eq!(damaged_tails(scratch.path()), 0);
    fs::write(segment(scratch.path()), [&sound[..], &[0; 600]].concat()).unwrap();
    assert_eq!(damaged_tails(scratch.path()), 1);
    let queue = open(scratch.path());
    assert_eq!(serials(&drain(&mut queue.consumer().unwrap()).await), (4..10).collect::<Vec<_>>());
}
