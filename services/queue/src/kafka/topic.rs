//! The topics as they must be: made if that was asked for, and compared with what the settings say.

use std::fmt::Write;
use std::thread;
use std::time::{Duration, Instant};

use chopmark_domain::ports::{PortError, PortResult};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::client::{Names, Plain, TOPIC_MESSAGE_BYTES_MIN, away, common, refused};
use super::settings::KafkaSettings;
use crate::failure::{broken, unavailable};

/// For one answer of the cluster.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A topic that was just made is known everywhere within this.
const SPREAD_TIMEOUT: Duration = Duration::from_secs(10);
const SPREAD_PAUSE: Duration = Duration::from_millis(100);
/// Events that are looked at for the cause of a failure, and the wait for each.
const EVENTS_MAX: usize = 20;
const EVENT_PAUSE: Duration = Duration::from_millis(10);
const HOUR_MS: u64 = 3_600_000;
/// Dead letters are few and need no order.
const DEAD_LETTER_PARTITIONS: u16 = 1;

/// One topic as it is.
#[derive(Debug, Clone)]
pub(super) struct Topic {
    partitions: usize,
    /// Of the partition with the fewest.
    replicas: usize,
    /// Its settings in force, by name.
    settings: Vec<(String, String)>,
}

/// Makes missing topics if the settings allow it, and refuses topics that could lose something.
pub(super) async fn prepare(names: &Names, settings: &KafkaSettings) -> PortResult<()> {
    let (names, settings, runtime) = (names.clone(), settings.clone(), Handle::current());
    let prepared = spawn_blocking(move || prepare_both(&names, &Cluster::new(&settings, runtime)?));
    prepared.await.map_err(|error| unavailable(format!("check the topics: {error}")))?
}

fn prepare_both(names: &Names, cluster: &Cluster<'_>) -> PortResult<()> {
    let settings = cluster.settings;
    for (name, partitions) in wanted(names, settings) {
        let topic = match cluster.find(name)? {
            Some(topic) => topic,
            None if settings.create_topics => cluster.make(name, partitions)?,
            None => {
                let fix = how_to_make(name, partitions, settings);
                return Err(broken(format!("topic {name} does not exist (fix: {fix})")));
            }
        };
        let flaws = flaws(&topic, exact(name, partitions, names), settings);
        if !flaws.is_empty() {
            return Err(broken(told(name, &flaws)));
        }
    }
    Ok(())
}

/// The topics and their partitions.
pub(super) fn wanted<'a>(names: &'a Names, settings: &KafkaSettings) -> [(&'a str, u16); 2] {
    [(&names.operations, settings.partitions), (&names.dead_letter, DEAD_LETTER_PARTITIONS)]
}

/// The order of dead letters means nothing, so any number of partitions will do for them.
pub(super) fn exact(name: &str, partitions: u16, names: &Names) -> Option<u16> {
    (name == names.operations).then_some(partitions)
}

pub(super) fn how_to_make(name: &str, partitions: u16, settings: &KafkaSettings) -> String {
    format!(
        "kafka-topics.sh --create --topic {name} --partitions {partitions} --replication-factor {} --config \
         min.insync.replicas={} --config retention.ms=-1; or set create_topics",
        settings.replicas, settings.min_insync_replicas
    )
}

/// What may be wrong about a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlawKind {
    /// More or fewer partitions than the settings say.
    Partitions,
    /// Fewer replicas than the settings say.
    Replicas,
    /// `cleanup.policy` is not `delete`.
    CleanupPolicy,
    /// `retention.ms` or `retention.bytes` let go what may not be decided yet.
    Retention,
    /// `min.insync.replicas` is below the settings.
    MinInsyncReplicas,
    /// `unclean.leader.election.enable` is on.
    UncleanLeaderElection,
    /// `max.message.bytes` is below a full batch.
    MessageBytes,
}

/// One thing about a topic that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// Which.
    pub kind: FlawKind,
    /// What was found.
    pub what: String,
    /// What it may lead to.
    pub harm: &'static str,
    /// What to do.
    pub fix: String,
}

fn told(name: &str, flaws: &[Flaw]) -> String {
    let mut text = format!("topic {name} cannot carry the queue");
    for Flaw { what, harm, fix, .. } in flaws {
        // Writing to a string cannot fail.
        let _ = write!(text, "; {what}: {harm} (fix: {fix})");
    }
    text
}

pub(super) fn flaws(topic: &Topic, partitions: Option<u16>, settings: &KafkaSettings) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    if let Some(wanted) = partitions.filter(|wanted| usize::from(*wanted) != topic.partitions) {
        flaws.push(Flaw {
            kind: FlawKind::Partitions,
            what: format!("it has {} partitions, and partitions = {wanted}", topic.partitions),
            harm: "gateways that disagree put one key into two partitions, and its order is lost",
            fix: format!(
                "set partitions = {} everywhere, or drain the queue and make the topic anew",
                topic.partitions
            ),
        });
    }
    if topic.replicas < usize::from(settings.replicas) {
        flaws.push(Flaw {
            kind: FlawKind::Replicas,
            what: format!("a partition has {} replicas, and replicas = {}", topic.replicas, settings.replicas),
            harm: "fewer broken disks lose what was acknowledged",
            fix: "kafka-reassign-partitions.sh, or accept it by a lower `replicas`".to_owned(),
        });
    }
    flaws.extend(setting_flaws(topic, settings));
    flaws
}

fn setting_flaws(topic: &Topic, settings: &KafkaSettings) -> Vec<Flaw> {
    let get = |name: &str| topic.settings.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value);
    let number = |name: &str| get(name).parse::<i64>().ok();
    let at_least = |name: &str, least: u64| {
        number(name).is_some_and(|value| u64::try_from(value).is_ok_and(|value| value >= least))
    };
    let retention_ms = settings.retention_hours_min.saturating_mul(HOUR_MS);
    let insync = u64::from(settings.min_insync_replicas);
    let length = TOPIC_MESSAGE_BYTES_MIN as u64;
    let rules = [
        (
            FlawKind::CleanupPolicy,
            "cleanup.policy",
            get("cleanup.policy") == "delete",
            "compaction removes messages that nobody has seen",
            "delete".to_owned(),
        ),
        (
            FlawKind::Retention,
            "retention.ms",
            number("retention.ms") == Some(-1) || at_least("retention.ms", retention_ms),
            "messages may be deleted before the ledger has decided them",
            "-1".to_owned(),
        ),
        (
            FlawKind::Retention,
            "retention.bytes",
            number("retention.bytes") == Some(-1),
            "messages may be deleted before the ledger has decided them",
            "-1".to_owned(),
        ),
        (
            FlawKind::MinInsyncReplicas,
            "min.insync.replicas",
            at_least("min.insync.replicas", insync),
            "a message is acknowledged by too few brokers",
            insync.to_string(),
        ),
        (
            FlawKind::UncleanLeaderElection,
            "unclean.leader.election.enable",
            get("unclean.leader.election.enable") != "true",
            "a broker that missed acknowledged messages may become leader",
            "false".to_owned(),
        ),
        (
            FlawKind::MessageBytes,
            "max.message.bytes",
            at_least("max.message.bytes", length),
            "full batches would be refused",
            length.max(1_048_588).to_string(),
        ),
    ];
    let broken = rules.into_iter().filter(|(_, _, holds, ..)| !holds);
    broken
        .map(|(kind, name, _, harm, value)| Flaw {
            kind,
            what: format!("{name} is {:?}", get(name)),
            harm,
            fix: format!("kafka-configs.sh --alter --entity-type topics --add-config {name}={value}"),
        })
        .collect()
}

/// Asks about topics, and makes them. Blocks.
pub(super) struct Cluster<'a> {
    admin: AdminClient<Plain>,
    /// Asks as well, and hears why a connection fails, which `admin` does not.
    listener: BaseConsumer<Plain>,
    runtime: Handle,
    settings: &'a KafkaSettings,
}

impl<'a> Cluster<'a> {
    /// Clients that connect when they are first asked.
    pub(super) fn new(settings: &'a KafkaSettings, runtime: Handle) -> PortResult<Self> {
        let config = common(settings)?;
        let start = |error| refused("start a kafka client", &error);
        let admin = config.create_with_context(Plain::default()).map_err(start)?;
        let listener = config.create_with_context(Plain::default()).map_err(start)?;
        Ok(Self { admin, listener, runtime, settings })
    }

    /// Why a connection failed last, as far as one has.
    pub(super) fn heard(&self) -> Option<(Option<RDKafkaErrorCode>, String)> {
        // One event each, log lines among them.
        for _ in 0..EVENTS_MAX {
            drop(self.listener.poll(EVENT_PAUSE));
        }
        self.listener.context().last()
    }

    /// What failed, and why a connection failed last: a refused password shows as a time-out only.
    fn away(&self, what: &str, error: &KafkaError) -> PortError {
        match self.heard() {
            Some((_, reason)) => unavailable(format!("{what}: {error}: {reason}")),
            None => away(what, error),
        }
    }

    /// The topic; `None` if there is none.
    pub(super) fn find(&self, name: &str) -> PortResult<Option<Topic>> {
        let metadata = self.listener.fetch_metadata(Some(name), ANSWER_TIMEOUT);
        let metadata = metadata.map_err(|error| self.away("ask for the partitions of a topic", &error))?;
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name && topic.error().is_none()) else {
            return Ok(None);
        };
        let asked = [ResourceSpecifier::Topic(name)];
        let answer = self.runtime.block_on(self.admin.describe_configs(&asked, &options()));
        let answer = answer.map_err(|error| self.away("ask for the settings of a topic", &error))?;
        let config = match answer.into_iter().next() {
            // A topic that was made just now may be answered for without its settings.
            Some(Ok(config)) if config.entries.is_empty() => return Ok(None),
            Some(Ok(config)) => config,
            Some(Err(RDKafkaErrorCode::UnknownTopicOrPartition)) => return Ok(None),
            Some(Err(code)) => return Err(unavailable(format!("ask for the settings of topic {name}: {code}"))),
            None => return Err(unavailable(format!("no answer about topic {name}"))),
        };
        let replicas = topic.partitions().iter().map(|partition| partition.replicas().len()).min();
        let known = config.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?)));
        let partitions = topic.partitions().len();
        Ok(Some(Topic { partitions, replicas: replicas.unwrap_or_default(), settings: known.collect() }))
    }

    /// Makes the topic, unless somebody else just did, and waits until it is known.
    fn make(&self, name: &str, partitions: u16) -> PortResult<Topic> {
        let insync = self.settings.min_insync_replicas.to_string();
        let topic = NewTopic::new(name, partitions.into(), TopicReplication::Fixed(self.settings.replicas.into()))
            .set("cleanup.policy", "delete")
            .set("retention.ms", "-1")
            .set("retention.bytes", "-1")
            .set("min.insync.replicas", &insync)
            .set("unclean.leader.election.enable", "false");
        let answer = self.runtime.block_on(self.admin.create_topics(&[topic], &options()));
        let answer = answer.map_err(|error| self.away("make a topic", &error))?;
        match answer.into_iter().next() {
            Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {}
            Some(Err((_, RDKafkaErrorCode::InvalidReplicationFactor))) => {
                let replicas = self.settings.replicas;
                return Err(broken(format!(
                    "topic {name} with {replicas} replicas needs as many brokers (fix: `replicas`)"
                )));
            }
            Some(Err((_, code))) => return Err(unavailable(format!("make topic {name}: {code}"))),
            None => return Err(unavailable(format!("no answer about topic {name}"))),
        }
        let until = Instant::now() + SPREAD_TIMEOUT;
        loop {
            match self.find(name)? {
                Some(topic) if topic.partitions > 0 => return Ok(topic),
                _ if Instant::now() < until => thread::sleep(SPREAD_PAUSE),
                _ => return Err(unavailable(format!("topic {name} was made and is not known yet"))),
            }
        }
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ANSWER_TIMEOUT)).operation_timeout(Some(ANSWER_TIMEOUT))
}
