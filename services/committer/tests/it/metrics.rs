//! What operators see: names, labels and values of the metrics.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use ::metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use ledger_core::Hash32;

use crate::doubles::{Lying, World, run_until};

/// Keeps counters and gauges by `name{label=value,…}`; of histograms only that they were used.
#[derive(Default)]
struct Kept(Mutex<BTreeMap<String, Arc<AtomicU64>>>);

impl Kept {
    fn slot(&self, key: &Key) -> Arc<AtomicU64> {
        let labels: Vec<String> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        Arc::clone(self.0.lock().unwrap().entry(name).or_default())
    }

    fn value(&self, name: &str) -> u64 {
        let slots = self.0.lock().unwrap();
        let slot = slots.get(name).unwrap_or_else(|| panic!("no {name} among {:?}", slots.keys()));
        slot.load(Ordering::SeqCst)
    }

    fn gauge(&self, name: &str) -> f64 {
        f64::from_bits(self.value(name))
    }
}

impl Recorder for Kept {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.slot(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.slot(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.slot(key).fetch_add(1, Ordering::SeqCst);
        Histogram::noop()
    }
}

/// Runs `test` in paused time with everything recorded.
fn recorded(test: impl Future<Output = ()>) -> Kept {
    let kept = Kept::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    ::metrics::with_local_recorder(&kept, || runtime.block_on(test));
    kept
}

#[test]
fn submitting_and_projecting_are_counted() {
    let kept = recorded(async {
        let world = World::new();
        world.publish_evidence(5);
        world.publish(&world.evidence(1, 99));
        world.publish(&world.evidence_of("ten_nobody", 8, 8));
        world.queue.publish(0, b"poison".to_vec());
        world.submit_all().await;
        world.project_all().await;
    });
    let value = |name: &str| kept.value(&format!("chopmark_committer_{name}"));
    assert_eq!(value("submitted_total{network=sandbox}"), 7);
    assert_eq!(value("rejected_total{network=sandbox,code=tenant_unknown}"), 1);
    assert_eq!(value("conflicts_total{network=sandbox}"), 1);
    assert_eq!(value("dead_lettered_total{network=sandbox,reason=undecodable}"), 1);
    assert_eq!(value("projected_total{network=sandbox,state=committed}"), 6, "with the tenant");
    assert_eq!(value("projected_total{network=sandbox,state=rejected}"), 1);
    for histogram in ["batch_seconds", "verify_seconds", "project_seconds"] {
        assert!(value(&format!("{histogram}{{network=sandbox}}")) > 0);
    }
    let gauge = |name: &str| kept.gauge(&format!("chopmark_committer_{name}{{network=sandbox}}"));
    assert_eq!(["projected_height", "checkpoint_height", "in_flight"].map(gauge), [2.0, 2.0, 0.0]);
    chopmark_committer::describe_metrics();
}

#[test]
fn a_stopped_loop_raises_the_alarm() {
    let kept = recorded(async {
        let world = World::new();
        let reader = Lying::new(&world.ledger).block(1, |_, block| block.block.header.previous = Hash32::ZERO);
        let genesis = world.ledger.genesis.clone();
        let project =
            chopmark_committer::ProjectLoop::new(Arc::new(reader), world.store.clone(), genesis, world.project.clone());
        run_until(|stop| project.run(stop), || false).await.unwrap_err();
    });
    assert_eq!(kept.value("chopmark_committer_stopped_total{network=sandbox,loop=project,cause=previous}"), 1);
}

#[test]
fn lag_and_retries_are_seen_while_the_ledger_stalls() {
    let kept = recorded(async {
        let mut world = World::new();
        (world.submit.batch_operations_max, world.submit.batches_in_flight_max) = (4, 2);
        world.publish_evidence(20);
        world.ledger.stall(true);
        let started = tokio::time::Instant::now();
        let minutes = || started.elapsed() > std::time::Duration::from_secs(130);
        let submit = world.submit_loop();
        run_until(|stop| submit.run(stop), minutes).await.unwrap();
    });
    assert_eq!(kept.value("chopmark_committer_retries_total{network=sandbox,port=ledger}"), 4);
    assert_eq!(kept.gauge("chopmark_committer_queue_lag{network=sandbox}"), 12.0);
}
