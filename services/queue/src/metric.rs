//! The queue's metrics. Every one carries the label `network`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

/// Messages acknowledged to publishers.
const PUBLISHED: &str = "chopmark_queue_published_total";
/// One append with its sync.
const APPEND_SECONDS: &str = "chopmark_queue_append_seconds";
/// From a message's publication to its delivery; Kafka only.
const WAITED_SECONDS: &str = "chopmark_queue_waited_seconds";
/// Messages behind the committed position.
const DEPTH: &str = "chopmark_queue_depth";
/// Messages put aside.
const DEAD_LETTER: &str = "chopmark_queue_dead_letter_total";
/// Log ends that were cut and do not look like a write cut short; label `log`. Any increase asks
/// for a look.
const DAMAGED_TAIL: &str = "chopmark_queue_damaged_tail_total";
/// Failed appends and openings; label `cause`.
const FAILURES: &str = "chopmark_queue_failures_total";

/// Partitions that this consumer has been given; Kafka only.
const PARTITIONS: &str = "chopmark_queue_partitions";
/// Shares that the consumers' group gave or took; Kafka only, label `change`.
const REBALANCES: &str = "chopmark_queue_rebalances_total";

/// Registers names, units and help texts with the installed recorder.
pub fn describe_metrics() {
    describe_counter!(PUBLISHED, Unit::Count, "Messages acknowledged to publishers");
    describe_histogram!(APPEND_SECONDS, Unit::Seconds, "One append with its sync");
    describe_histogram!(WAITED_SECONDS, Unit::Seconds, "From a message's publication to its delivery");
    describe_gauge!(DEPTH, Unit::Count, "Messages behind the committed position");
    describe_counter!(DEAD_LETTER, Unit::Count, "Messages put aside");
    describe_counter!(DAMAGED_TAIL, Unit::Count, "Ends of a log cut off that no cut write explains, by log");
    describe_gauge!(PARTITIONS, Unit::Count, "Partitions that this consumer has been given");
    describe_counter!(REBALANCES, Unit::Count, "Shares given to or taken from this consumer, by change");
    describe_counter!(FAILURES, Unit::Count, "Failed appends and openings of the log, by cause");
}

/// The metrics of one queue.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    network: String,
}

impl Metrics {
    pub(crate) const fn new(network: String) -> Self {
        Self { network }
    }

    pub(crate) fn appended(&self, messages: u64, took: Duration) {
        counter!(PUBLISHED, "network" => self.network.clone()).increment(messages);
        histogram!(APPEND_SECONDS, "network" => self.network.clone()).record(took);
    }

    /// A message was delivered that was published at this time (Unix ms, by the publisher's clock).
    #[expect(clippy::disallowed_methods, reason = "a figure for people, which decides nothing")]
    pub(crate) fn delivered(&self, published_at: i64) {
        let published = Duration::from_millis(u64::try_from(published_at).unwrap_or_default());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        histogram!(WAITED_SECONDS, "network" => self.network.clone()).record(now.saturating_sub(published));
    }

    pub(crate) fn dead_letter(&self) {
        counter!(DEAD_LETTER, "network" => self.network.clone()).increment(1);
    }

    pub(crate) fn damaged_tail(&self, log: &'static str) {
        counter!(DAMAGED_TAIL, "network" => self.network.clone(), "log" => log).increment(1);
    }

    pub(crate) fn failed(&self, cause: &'static str) {
        counter!(FAILURES, "network" => self.network.clone(), "cause" => cause).increment(1);
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub(crate) fn depth(&self, messages: u64) {
        gauge!(DEPTH, "network" => self.network.clone()).set(messages as f64);
    }

    /// The share of this consumer is now `partitions`, after a change `given` or `taken`.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub(crate) fn share(&self, change: &'static str, partitions: usize) {
        gauge!(PARTITIONS, "network" => self.network.clone()).set(partitions as f64);
        counter!(REBALANCES, "network" => self.network.clone(), "change" => change).increment(1);
    }
}
