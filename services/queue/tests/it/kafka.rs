//! The queue on Kafka under the contract, and what it promises beyond that, with a real broker.
//!
//! `scripts/test.sh` starts it and names its folder in `CHOPMARK_TEST_SERVERS`. By hand:
//! `deploy/native/servers.sh start --data DIR kafka`.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs};

use async_trait::async_trait;
use chopmark_domain::ports::{PortError, Queue, QueueConsumer, QueuePosition};
use chopmark_queue::kafka::{Sasl, SaslMechanism, Tls};
use chopmark_queue::{KafkaQueue, KafkaSettings};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Headers;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use tempfile::TempDir;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::common::{PATIENCE, message, newest, serials, take, take_all};
use crate::contract::Subject;

const SERVERS: &str = "CHOPMARK_TEST_SERVERS";
const PARTITIONS: u16 = 3;

/// Tests that kill the broker have it for themselves.
static BROKER_LOCK: RwLock<()> = RwLock::const_new(());

/// The broker that the tests share.
#[derive(Debug, Clone)]
pub(crate) struct Broker {
    folder: PathBuf,
}

impl Broker {
    /// `None`: there is none, and this is not where that is a failure.
    pub(crate) fn find() -> Option<Self> {
        let Some(folder) = env::var_os(SERVERS) else {
            assert!(env::var_os("CI").is_none(), "{SERVERS} does not name the folder of the test servers");
            eprintln!("SKIPPED: no Kafka: {SERVERS} is not set; scripts/test.sh sets it");
            return None;
        };
        Some(Self { folder: folder.into() })
    }

    fn address(&self, name: &str) -> String {
        let text = fs::read_to_string(self.folder.join("servers.env")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.expect("servers.env names Kafka").to_owned()
    }

    pub(crate) fn settings(&self) -> KafkaSettings {
        KafkaSettings {
            partitions: PARTITIONS,
            replicas: 1,
            min_insync_replicas: 1,
            create_topics: true,
            session_timeout_ms: 6_000,
            ..KafkaSettings::new(vec![self.address("KAFKA")])
        }
    }

    pub(crate) fn kill(&self) {
        let pid = fs::read_to_string(self.folder.join("kafka.pid")).unwrap();
        let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        // It dies when the system comes to it; until then a start would take it for running.
        let until = Instant::now() + PATIENCE;
        while rustix::process::test_kill_process(pid).is_ok() {
            assert!(Instant::now() < until, "the broker does not die");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Blocks until it serves.
    pub(crate) fn start(&self) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/native/servers.sh");
        let output = Command::new(script).args(["start", "--data"]).arg(&self.folder).arg("kafka").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.address("KAFKA"));
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }
}

pub(crate) async fn share_broker() -> RwLockReadGuard<'static, ()> {
    BROKER_LOCK.read().await
}

pub(crate) async fn own_broker() -> RwLockWriteGuard<'static, ()> {
    BROKER_LOCK.write().await
}

/// A network that no other test and no other run has.
pub(crate) fn network() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("test-{:x}-{}", rand::random::<u64>(), NEXT.fetch_add(1, Ordering::Relaxed))
}

struct Kafka {
    broker: Broker,
    network: String,
    queue: KafkaQueue,
    _lock: RwLockReadGuard<'static, ()>,
}

impl Kafka {
    async fn new() -> Option<Self> {
        let broker = Broker::find()?;
        let lock = share_broker().await;
        let network = network();
        let queue = KafkaQueue::open(&network, broker.settings()).await.unwrap();
        Some(Self { broker, network, queue, _lock: lock })
    }

    fn topic(&self) -> String {
        format!("chopmark.{}.operations.v1", self.network)
    }
}

#[async_trait]
impl Subject for Kafka {
    fn queue(&self) -> Arc<dyn Queue> {
        Arc::new(self.queue.clone())
    }

    async fn consumer(&self) -> Box<dyn QueueConsumer> {
        Box::new(self.queue.consumer().await.unwrap())
    }

    async fn restart(&mut self) {
        self.queue = KafkaQueue::open(&self.network, self.broker.settings()).await.unwrap();
    }

    async fn inject(&mut self, bytes: &[u8]) {
        let producer: BaseProducer = self.broker.client().create().unwrap();
        producer
            .send(BaseRecord::to(&self.topic()).key(&1_u64.to_be_bytes()).payload(bytes))
            .map_err(|(e, _)| e)
            .unwrap();
        producer.flush(PATIENCE).unwrap();
    }

    async fn dead_letters(&self) -> Vec<(QueuePosition, Vec<u8>, String)> {
        let topic = format!("{}.dead-letter", self.topic());
        let consumer: BaseConsumer = self.broker.client().set("group.id", "tests").create().unwrap();
        let (_, end) = consumer.fetch_watermarks(&topic, 0, PATIENCE).unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&topic, 0, Offset::Beginning).unwrap();
        consumer.assign(&list).unwrap();
        let read = (0..end).map(|_| {
            let message = consumer.poll(PATIENCE).unwrap().unwrap();
            let header = |name: &str| {
                let header = message.headers().unwrap().iter().find(|header| header.key == name).unwrap();
                String::from_utf8(header.value.unwrap().to_vec()).unwrap()
            };
            let partition = header("chopmark-partition").parse().unwrap();
            let position = QueuePosition { partition, offset: header("chopmark-offset").parse().unwrap() };
            (position, message.payload().unwrap().to_vec(), header("chopmark-reason"))
        });
        read.collect()
    }
}

contract_tests!(Kafka::new().await);

fn reason(error: PortError) -> String {
    match error {
        PortError::Broken { reason, .. } | PortError::Unavailable { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_that_could_lose_something_are_refused() {
    let Some(broker) = Broker::find() else { return };
    let (_lock, network) = (share_broker().await, network());
    let settings = KafkaSettings { create_topics: false, ..broker.settings() };
    let missing = reason(KafkaQueue::open(&network, settings.clone()).await.err().unwrap());
    assert!(missing.contains("does not exist") && missing.contains("--partitions 3"), "{missing}");

    let name = format!("chopmark.{network}.operations.v1");
    let flawed = NewTopic::new(&name, 2, TopicReplication::Fixed(1))
        .set("cleanup.policy", "compact,delete")
        .set("retention.ms", "3600000")
        .set("retention.bytes", "1000000")
        .set("max.message.bytes", "100000");
    broker.admin().create_topics(&[flawed], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    let settings = KafkaSettings { replicas: 3, min_insync_replicas: 2, ..settings };
    let error = KafkaQueue::open(&network, settings).await.err().unwrap();
    assert!(matches!(error, PortError::Broken { .. }), "{error:?}");
    let told = reason(error);
    for name in [
        "2 partitions",
        "1 replicas",
        "cleanup.policy",
        "retention.ms",
        "retention.bytes",
        "min.insync.replicas",
        "max.message.bytes=1048588",
    ] {
        assert!(told.contains(name), "{name} in {told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_and_scram_carry_the_queue() {
    let Some(broker) = Broker::find() else { return };
    let (_lock, network) = (share_broker().await, network());
    let tls = Tls { ca: Some(broker.folder.join("kafka/tls/ca.pem")), ..Tls::default() };
    let password_file = broker.folder.join("kafka/password");
    let sasl = Sasl { mechanism: SaslMechanism::ScramSha512, user: "chopmark".to_owned(), password_file };
    let brokers = vec![broker.address("KAFKA_SECURE")];
    let settings = KafkaSettings { brokers, tls: Some(tls), sasl: Some(sasl.clone()), ..broker.settings() };
    let queue = KafkaQueue::open(&network, settings.clone()).await.unwrap();
    queue.publish(vec![message(1, 0, 50)]).await.unwrap();
    assert_eq!(serials(&take(&mut queue.consumer().await.unwrap(), 1).await), [0]);

    // Another password; and a broker that an unknown authority vouches for.
    let scratch = TempDir::new().unwrap();
    let wrong = scratch.path().join("password");
    fs::write(&wrong, "wrong\n").unwrap();
    let refused = KafkaSettings { sasl: Some(Sasl { password_file: wrong, ..sasl }), ..settings.clone() };
    let told = reason(KafkaQueue::open(&network, refused).await.err().unwrap());
    assert!(told.contains("Authentication failed") || told.contains("authentication"), "{told}");
    let stranger = KafkaSettings { tls: Some(Tls::default()), ..settings };
    let told = reason(KafkaQueue::open(&network, stranger).await.err().unwrap());
    assert!(told.contains("certificate"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_deleted_before_they_were_done_are_noticed() {
    // Whether some were done, or none ever.
    for done in [3, 0] {
        let Some(kafka) = Kafka::new().await else { return };
        kafka.queue.publish((0..10).map(|serial| message(1, serial, 50)).collect()).await.unwrap();
        let mut consumer = kafka.queue.consumer().await.unwrap();
        let taken = take(&mut consumer, 10).await;
        if done > 0 {
            consumer.commit(&newest(&taken[..done])).await.unwrap();
        }
        drop(consumer);

        let position = taken[6].position;
        let mut list = TopicPartitionList::new();
        let partition = i32::try_from(position.partition).unwrap();
        let upto = Offset::Offset(i64::try_from(position.offset).unwrap());
        list.add_partition_offset(&kafka.topic(), partition, upto).unwrap();
        kafka.broker.admin().delete_records(&list, &AdminOptions::new()).await.unwrap();

        let mut consumer = kafka.queue.consumer().await.unwrap();
        let told = loop {
            match consumer.poll(10, Duration::from_millis(100)).await {
                Ok(deliveries) => assert!(deliveries.is_empty(), "{deliveries:?}"),
                Err(error) => break error,
            }
        };
        assert!(matches!(told, PortError::Broken { .. }), "{told:?}");
        let told = reason(told);
        assert!(told.contains(&format!("goes on at message 6, and {done} comes next")), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_bounded() {
    let Some(broker) = Broker::find() else { return };
    let _lock = share_broker().await;
    let settings = KafkaSettings { waiting_bytes_max: 64 << 10, ..broker.settings() };
    let queue = KafkaQueue::open(&network(), settings).await.unwrap();
    let much = (0..10).map(|serial| message(1, serial, 10_000)).collect();
    assert!(matches!(queue.publish(much).await, Err(PortError::Full("queue"))));
    // What was refused is not there, and what was acknowledged has given its room back.
    for serial in 0..20 {
        queue.publish(vec![message(1, serial, 10_000), message(2, serial, 10_000)]).await.unwrap();
    }
    let too_long = queue.publish(vec![message(1, 0, 100_000)]).await;
    assert!(matches!(too_long, Err(PortError::Broken { .. } | PortError::Full(_))), "{too_long:?}");
    take_all(&mut queue.consumer().await.unwrap(), 40).await;
}
