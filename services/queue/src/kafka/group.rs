//! Membership in the consumers' group: which partitions are ours, and where they stand.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chopmark_domain::ports::PortResult;
use parking_lot::Mutex;
use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::{Offset, TopicPartitionListElem};

use super::client::{Names, away, for_consumer, log, log_error, refused};
use super::settings::KafkaSettings;
use crate::metric::Metrics;

/// Longest wait for one answer about offsets. Below the time that a committer gives a poll.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// The membership. Leaves the group when dropped, which blocks.
pub(super) struct Group {
    pub(super) consumer: BaseConsumer<Share>,
    topic: String,
}

/// Hears which partitions are given and taken. That happens within a poll, on its thread.
pub(super) struct Share {
    state: Mutex<ShareState>,
    metrics: Metrics,
}

#[derive(Default)]
struct ShareState {
    owned: BTreeSet<u32>,
    /// Partitions given or taken since the reader last looked.
    changed: BTreeSet<u32>,
    /// Whether the group has answered, perhaps with nothing.
    joined: bool,
}

impl ClientContext for Share {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ConsumerContext for Share {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let mut state = self.state.lock();
        let change = match rebalance {
            Rebalance::Assign(list) => {
                let given = partitions(list);
                state.owned.extend(&given);
                state.changed.extend(&given);
                state.joined = true;
                "given"
            }
            Rebalance::Revoke(list) => {
                let taken = partitions(list);
                state.owned.retain(|partition| !taken.contains(partition));
                state.changed.extend(&taken);
                "taken"
            }
            Rebalance::Error(error) => return tracing::warn!(%error, "the consumers' group could not be balanced"),
        };
        tracing::info!(change, owned = ?state.owned, "share of the queue");
        self.metrics.share(change, state.owned.len());
    }
}

impl Group {
    pub(super) fn join(settings: &KafkaSettings, names: &Names, metrics: Metrics) -> PortResult<Self> {
        let share = Share { state: Mutex::default(), metrics };
        let consumer: BaseConsumer<Share> = for_consumer(settings, &names.group)?
            .create_with_context(share)
            .map_err(|error| refused("start a kafka consumer", &error))?;
        consumer.subscribe(&[&names.operations]).map_err(|error| refused("subscribe", &error))?;
        Ok(Self { consumer, topic: names.operations.clone() })
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.consumer.context().metrics
    }

    pub(super) fn has_joined(&self) -> bool {
        self.consumer.context().state.lock().joined
    }

    pub(super) fn owned(&self) -> Vec<u32> {
        self.consumer.context().state.lock().owned.iter().copied().collect()
    }

    /// Partitions given or taken since the last call.
    pub(super) fn take_changes(&self) -> BTreeSet<u32> {
        std::mem::take(&mut self.consumer.context().state.lock().changed)
    }

    /// Committed offsets; a partition of which nothing was ever committed is not among them.
    pub(super) fn committed(&self, of: &[u32]) -> PortResult<BTreeMap<u32, u64>> {
        if of.is_empty() {
            return Ok(BTreeMap::new());
        }
        let list = self.list(of.iter().map(|partition| (*partition, Offset::Invalid)))?;
        let answer = self.consumer.committed_offsets(list, ANSWER_TIMEOUT);
        offsets(&answer.map_err(|error| away("read the committed offsets", &error))?)
    }

    /// First offset that is kept, and one past the newest.
    pub(super) fn bounds(&self, partition: u32) -> PortResult<(u64, u64)> {
        let bounds = self.consumer.fetch_watermarks(&self.topic, signed(partition), ANSWER_TIMEOUT);
        let (low, high) = bounds.map_err(|error| away("read the ends of the topic", &error))?;
        Ok((unsigned(low), unsigned(high)))
    }

    /// Commits; each offset is one past the newest message that is done. Blocks until the cluster
    /// answers.
    pub(super) fn commit(&self, due: &BTreeMap<u32, u64>) -> KafkaResult<()> {
        let mut list = TopicPartitionList::with_capacity(due.len());
        for (partition, offset) in due {
            let offset = Offset::Offset(i64::try_from(*offset).unwrap_or(i64::MAX));
            list.add_partition_offset(&self.topic, signed(*partition), offset)?;
        }
        self.consumer.commit(&list, CommitMode::Sync)
    }

    /// Messages of our partitions that are not committed.
    pub(super) fn lag(&self) -> PortResult<u64> {
        let owned = self.owned();
        let committed = self.committed(&owned)?;
        let mut lag = 0;
        for partition in owned {
            let (low, high) = self.bounds(partition)?;
            lag += high.saturating_sub(committed.get(&partition).copied().unwrap_or(low));
        }
        Ok(lag)
    }

    fn list(&self, elements: impl Iterator<Item = (u32, Offset)>) -> PortResult<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in elements {
            list.add_partition_offset(&self.topic, signed(partition), offset)
                .map_err(|error| refused("name a partition", &error))?;
        }
        Ok(list)
    }
}

fn partitions(list: &TopicPartitionList) -> BTreeSet<u32> {
    list.elements().iter().filter_map(|element| u32::try_from(element.partition()).ok()).collect()
}

fn offsets(list: &TopicPartitionList) -> PortResult<BTreeMap<u32, u64>> {
    let mut offsets = BTreeMap::new();
    for element in &list.elements() {
        element.error().map_err(|error| away("read an offset", &error))?;
        offsets.extend(known(element));
    }
    Ok(offsets)
}

/// Partition and offset, if it has one.
fn known(element: &TopicPartitionListElem<'_>) -> Option<(u32, u64)> {
    match element.offset() {
        Offset::Offset(offset) => Some((u32::try_from(element.partition()).ok()?, unsigned(offset))),
        _ => None,
    }
}

/// Kafka counts with signed numbers that are never negative.
pub(super) fn unsigned(offset: i64) -> u64 {
    u64::try_from(offset).unwrap_or_default()
}

fn signed(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}
