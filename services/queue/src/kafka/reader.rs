//! Reads, checks that nothing is missing, and commits. Everything here blocks.
//!
//! Invariant: what a member delivers of a partition has no gap, and begins at or before the committed
//! offset. [`Reader::admit`] upholds it. If it failed, the committer would commit past a message that
//! it has never seen, and an acknowledged operation would be lost without a word.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chopmark_domain::message::QueueMessage;
use chopmark_domain::ports::{Delivery, PoisonMessage, PortError, PortResult, QueuePosition};
use rdkafka::Message as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::client::away;
use super::group::{Group, unsigned};
use crate::bounds::POLL_BYTES_MAX;
use crate::failure::{broken, unavailable};

/// Whether the caller has gone.
pub(super) type Gone<'a> = &'a dyn Fn() -> bool;

/// A call whose caller has gone ends within this.
const SLICE: Duration = Duration::from_millis(50);
/// How long a commit waits for the group to be balanced. Below the time that a committer gives it.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// The reader of one member.
pub(super) struct Reader {
    group: Arc<Group>,
    /// Read and not delivered.
    waiting: VecDeque<Delivery>,
    waiting_bytes: usize,
    /// Offset that must come next, of partitions of which something came since they are ours.
    next: BTreeMap<u32, u64>,
    /// Whether `committed` holds every partition that is ours.
    is_settled: bool,
    /// Committed offsets of our partitions; `None`: nothing committed yet.
    committed: BTreeMap<u32, Option<u64>>,
    /// One past the newest offset that was ever delivered here. Kept when a partition is taken: what
    /// was delivered before may still be committed when it is given again.
    delivered: BTreeMap<u32, u64>,
}

impl Reader {
    pub(super) fn new(group: Arc<Group>) -> Self {
        Self {
            group,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            next: BTreeMap::new(),
            is_settled: false,
            committed: BTreeMap::new(),
            delivered: BTreeMap::new(),
        }
    }

    /// Reads until the group has answered.
    pub(super) fn wait_for_share(&mut self, wait: Duration, gone: Gone<'_>) -> PortResult<()> {
        let until = Instant::now() + wait;
        while !self.group.has_joined() {
            if gone() || Instant::now() >= until {
                return Err(unavailable(format!("the consumers' group gave no share within {} s", wait.as_secs())));
            }
            // Brokers that are away come back; only what must not go on ends the wait.
            match self.read_one(SLICE) {
                Err(error @ PortError::Broken { .. }) => return Err(error),
                Err(error) => tracing::debug!(%error, "waiting for a share of the queue"),
                Ok(_) => {}
            }
        }
        self.meet_changes()
    }

    /// Reads until `max` messages wait, the bound in bytes, or the end of `linger`.
    pub(super) fn fetch(&mut self, max: usize, linger: Duration, gone: Gone<'_>) -> PortResult<()> {
        let until = Instant::now() + linger;
        while self.waiting.len() < max && self.waiting_bytes < POLL_BYTES_MAX {
            let left = until.saturating_duration_since(Instant::now());
            match self.read_one(left.min(SLICE)) {
                Ok(true) => {}
                Ok(false) if left.is_zero() || gone() => break,
                Ok(false) => {}
                // What waits goes first; the error comes again.
                Err(_) if !self.waiting.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Hands out at most `max` of what waits.
    pub(super) fn deliver(&mut self, max: usize) -> Vec<Delivery> {
        let deliveries: Vec<Delivery> = self.waiting.drain(..max.min(self.waiting.len())).collect();
        self.waiting_bytes = self.waiting.iter().map(size).sum();
        for Delivery { position, .. } in &deliveries {
            let delivered = self.delivered.entry(position.partition).or_default();
            *delivered = (*delivered).max(position.offset + 1);
        }
        deliveries
    }

    /// Commits what lies ahead of the committed offsets, of the partitions that are still ours.
    pub(super) fn commit(&mut self, upto: &[QueuePosition], gone: Gone<'_>) -> PortResult<()> {
        let mut wanted = BTreeMap::new();
        for QueuePosition { partition, offset } in upto {
            let delivered = self.delivered.get(partition).copied().unwrap_or_default();
            if *offset >= delivered {
                return Err(broken(format!(
                    "commit of message {offset} of partition {partition}, and only those below {delivered} were delivered"
                )));
            }
            let next = wanted.entry(*partition).or_insert(offset + 1);
            *next = (*next).max(offset + 1);
        }
        let until = Instant::now() + COMMIT_TIMEOUT;
        loop {
            self.meet_changes()?;
            let ahead = |(partition, offset): (&u32, &u64)| {
                let committed = self.committed.get(partition)?;
                committed.is_none_or(|committed| committed < *offset).then_some((*partition, *offset))
            };
            let due: BTreeMap<u32, u64> = wanted.iter().filter_map(ahead).collect();
            if due.is_empty() {
                return Ok(());
            }
            match self.group.commit(&due) {
                Ok(()) => {
                    self.committed.extend(due.into_iter().map(|(partition, offset)| (partition, Some(offset))));
                    return Ok(());
                }
                // The group is being balanced, or has gone on without us: polling finds out which
                // partitions are ours, and under which generation.
                Err(error) if !gone() && Instant::now() < until && is_about_membership(&error) => {
                    self.read_one(SLICE)?;
                }
                Err(error) => return Err(away("commit", &error)),
            }
        }
    }

    /// Reads one message, if there is one within `wait`. `false`: there was none.
    fn read_one(&mut self, wait: Duration) -> PortResult<bool> {
        self.meet_changes()?;
        let group = Arc::clone(&self.group);
        match group.consumer.poll(wait) {
            None => Ok(false),
            Some(Ok(message)) => {
                let partition = u32::try_from(message.partition()).unwrap_or(u32::MAX);
                let position = QueuePosition { partition, offset: unsigned(message.offset()) };
                // Shares change only in polls that return no message, so this one is ours.
                self.admit(position)?;
                let delivery = delivery(position, message.payload().unwrap_or_default());
                if let Some(published_at) = message.timestamp().to_millis() {
                    self.group.metrics().delivered(published_at);
                }
                self.waiting_bytes += size(&delivery);
                self.waiting.push_back(delivery);
                Ok(true)
            }
            Some(Err(error)) => self.troubled(&error),
        }
    }

    /// What a poll may say instead of a message.
    fn troubled(&self, error: &KafkaError) -> PortResult<bool> {
        if let KafkaError::MessageConsumptionFatal(code) = error {
            return Err(broken(format!("the kafka consumer has ended: {code}")));
        }
        match error.rdkafka_error_code() {
            // librdkafka connects and joins again by itself; meanwhile there is nothing to read.
            Some(
                RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::PollExceeded,
            ) => {
                tracing::info!(%error, "kafka consumer");
                Ok(false)
            }
            _ => Err(away("read", error)),
        }
    }

    /// Learns where new partitions stand, and forgets what was read of those taken.
    fn meet_changes(&mut self) -> PortResult<()> {
        let changes = self.group.take_changes();
        if changes.is_empty() && self.is_settled {
            return Ok(());
        }
        self.is_settled = false;
        for partition in changes {
            // Also of a partition that was taken and given again: others may have gone on meanwhile.
            self.next.remove(&partition);
            self.committed.remove(&partition);
            self.waiting.retain(|delivery| delivery.position.partition != partition);
            self.waiting_bytes = self.waiting.iter().map(size).sum();
        }
        let owned = self.group.owned();
        let unknown: Vec<u32> = owned.into_iter().filter(|partition| !self.committed.contains_key(partition)).collect();
        let known = self.group.committed(&unknown)?;
        self.committed.extend(unknown.into_iter().map(|partition| (partition, known.get(&partition).copied())));
        self.is_settled = true;
        Ok(())
    }

    /// Lets a message in if none is missing before it.
    fn admit(&mut self, QueuePosition { partition, offset }: QueuePosition) -> PortResult<()> {
        match self.next.get(&partition) {
            Some(next) if *next == offset => {}
            Some(next) => return Err(missing(partition, *next, offset)),
            None => self.admit_first(partition, offset)?,
        }
        self.next.insert(partition, offset + 1);
        Ok(())
    }

    /// The first message of a partition since it is ours.
    fn admit_first(&mut self, partition: u32, offset: u64) -> PortResult<()> {
        match self.committed.get(&partition).copied().flatten() {
            Some(committed) if committed == offset => Ok(()),
            None if offset == 0 => Ok(()),
            // Nothing was ever committed, or the group was forgotten: either way there were messages
            // before this one, and nobody knows that they were done.
            None => Err(missing(partition, 0, offset)),
            // Either the offsets moved between their being read here and by librdkafka, or messages
            // are missing. The member before us can only have moved them forward.
            Some(_) => {
                // The message has left librdkafka: an answer that does not come ends this reader, and
                // the next one begins at the committed offset.
                let look = || Ok((self.group.committed(&[partition])?, self.group.bounds(partition)?));
                let (committed, (_, end)) = look().map_err(|error: PortError| {
                    broken(format!("whether messages of partition {partition} are missing is unknown: {error}"))
                })?;
                match committed.get(&partition) {
                    Some(committed) if offset > *committed || end < *committed => {
                        Err(missing(partition, *committed, offset))
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

fn missing(partition: u32, expected: u64, found: u64) -> PortError {
    broken(format!(
        "partition {partition} goes on at message {found}, and {expected} comes next: messages were deleted before \
         they were done, or the topic was made anew. Restore the topic; or, if the loss is accepted, set the group's \
         offsets with kafka-consumer-groups.sh --reset-offsets --to-earliest"
    ))
}

/// Whether an error of a commit says that the group's members are not what they were.
fn is_about_membership(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::RebalanceInProgress
                | RDKafkaErrorCode::IllegalGeneration
                | RDKafkaErrorCode::UnknownMemberId
                | RDKafkaErrorCode::AssignmentLost
                | RDKafkaErrorCode::WaitingForCoordinator
                | RDKafkaErrorCode::NotCoordinator
                | RDKafkaErrorCode::CoordinatorNotAvailable
                | RDKafkaErrorCode::CoordinatorLoadInProgress
                | RDKafkaErrorCode::State
        )
    )
}

fn delivery(position: QueuePosition, bytes: &[u8]) -> Delivery {
    let message =
        QueueMessage::decode(bytes).map_err(|error| PoisonMessage { bytes: bytes.to_vec(), reason: error.to_string() });
    Delivery { position, message }
}

/// Memory of a message, about.
fn size(delivery: &Delivery) -> usize {
    match &delivery.message {
        Ok(message) => message.operation.len() + message.sealed_private.len(),
        Err(poison) => poison.bytes.len(),
    }
}
