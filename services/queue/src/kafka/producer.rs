//! Opening the queue, and its publishing end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chopmark_domain::message::QueueMessage;
use chopmark_domain::ports::{PortError, PortResult, Queue, QueuePosition};
use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::client::{Names, away, for_producer, log, log_error, refused};
use super::consumer::KafkaConsumer;
use super::settings::KafkaSettings;
use super::topic;
use crate::bounds::{MESSAGE_BYTES_MAX, REASON_BYTES_MAX};
use crate::failure::{PORT, broken, unavailable};
use crate::metric::Metrics;

/// What a message costs librdkafka beside its bytes.
const OVERHEAD_BYTES: usize = 128;
/// librdkafka looks for what has run out of time once a second; this is beyond any delay of that.
const GRACE: Duration = Duration::from_secs(5);

/// The queue of one network. Clones are handles of the same queue.
#[derive(Clone)]
pub struct KafkaQueue {
    pub(super) inner: Arc<Inner>,
}

/// What the handles and their consumers share.
pub(super) struct Inner {
    pub(super) names: Names,
    pub(super) settings: KafkaSettings,
    pub(super) metrics: Metrics,
    /// Replaced after a fatal error, which ends a producer.
    producer: Mutex<Arc<ThreadedProducer<Reports>>>,
    /// Bytes that may still be handed over.
    room: Arc<Semaphore>,
}

/// One record on its way out.
struct Outgoing {
    key: Vec<u8>,
    payload: Vec<u8>,
    headers: Option<OwnedHeaders>,
}

/// A publish under way. Every record holds it until its delivery is reported.
struct Pending {
    state: Mutex<PendingState>,
    /// Given back when the last record is reported, also if nobody waits any more.
    _room: OwnedSemaphorePermit,
}

struct PendingState {
    left: usize,
    failed: Option<KafkaError>,
    answer: Option<oneshot::Sender<Result<(), KafkaError>>>,
}

/// Receives delivery reports.
struct Reports;

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Arc<Pending>;

    fn delivery(&self, result: &DeliveryResult<'_>, pending: Arc<Pending>) {
        pending.reported(result.as_ref().err().map(|(error, _)| error.clone()));
    }
}

impl Pending {
    fn reported(&self, error: Option<KafkaError>) {
        let mut state = self.state.lock();
        state.left = state.left.saturating_sub(1);
        if state.failed.is_none() {
            state.failed = error;
        }
        if state.left == 0
            && let Some(answer) = state.answer.take()
        {
            // Nobody waits if the publish was dropped.
            let _ = answer.send(state.failed.take().map_or(Ok(()), Err));
        }
    }
}

impl KafkaQueue {
    /// Connects, and checks or makes the topics.
    ///
    /// # Errors
    ///
    /// `Broken` if settings cannot work or a topic is not what they ask for, with what to do about
    /// it; `Unavailable` if the cluster does not answer.
    pub async fn open(network: &str, settings: KafkaSettings) -> PortResult<Self> {
        settings.check().map_err(|reason| broken(format!("settings of Kafka: {reason}")))?;
        let names = Names::new(network);
        topic::prepare(&names, &settings).await?;
        let producer = Mutex::new(Arc::new(start(&settings)?));
        let room = Arc::new(Semaphore::new(settings.waiting_bytes_max as usize));
        let metrics = Metrics::new(network.to_owned());
        Ok(Self { inner: Arc::new(Inner { names, settings, metrics, producer, room }) })
    }

    /// A new member of the consumers' group. Returns when it has its share, which may be empty.
    ///
    /// # Errors
    ///
    /// `Unavailable` if the group does not take it in time: the cluster is away, or a member that
    /// died is still counted.
    pub async fn consumer(&self) -> PortResult<KafkaConsumer> {
        KafkaConsumer::join(Arc::clone(&self.inner)).await
    }
}

#[async_trait]
impl Queue for KafkaQueue {
    /// Dropped before it returns, it still publishes.
    async fn publish(&self, messages: Vec<QueueMessage>) -> PortResult<()> {
        if messages.is_empty() {
            return Ok(());
        }
        let encoded = messages.into_iter().map(|message| {
            let payload = message.encode();
            Outgoing { key: message.order_key, payload, headers: None }
        });
        let records: Vec<Outgoing> = encoded.collect();
        if let Some(record) = records.iter().find(|record| record.payload.len() > MESSAGE_BYTES_MAX) {
            let length = record.payload.len();
            return Err(broken(format!("a message of {length} bytes, and {MESSAGE_BYTES_MAX} are allowed")));
        }
        let (started, count) = (Instant::now(), records.len() as u64);
        self.inner.send(&self.inner.names.operations, records).await?;
        self.inner.metrics.appended(count, started.elapsed());
        Ok(())
    }
}

impl Inner {
    /// Puts one message aside.
    pub(super) async fn dead_letter(&self, position: QueuePosition, bytes: &[u8], reason: &str) -> PortResult<()> {
        let reason = &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)];
        let headers = OwnedHeaders::new()
            .insert(Header { key: "chopmark-partition", value: Some(&position.partition.to_string()) })
            .insert(Header { key: "chopmark-offset", value: Some(&position.offset.to_string()) })
            .insert(Header { key: "chopmark-reason", value: Some(reason) });
        // The same message put aside again lands beside the first.
        let key = format!("{}/{}", position.partition, position.offset).into_bytes();
        let payload = bytes[..bytes.len().min(MESSAGE_BYTES_MAX)].to_vec();
        self.send(&self.names.dead_letter, vec![Outgoing { key, payload, headers: Some(headers) }]).await?;
        self.metrics.dead_letter();
        Ok(())
    }

    /// Sends records and waits until every replica in sync has all of them.
    async fn send(&self, topic: &str, records: Vec<Outgoing>) -> PortResult<()> {
        let bytes: usize = records.iter().map(|record| record.key.len() + record.payload.len() + OVERHEAD_BYTES).sum();
        let room =
            u32::try_from(bytes).ok().and_then(|bytes| Arc::clone(&self.room).try_acquire_many_owned(bytes).ok());
        let room = room.ok_or(PortError::Full(PORT))?;
        let (answer, answered) = oneshot::channel();
        let state = PendingState { left: records.len(), failed: None, answer: Some(answer) };
        let pending = Arc::new(Pending { state: Mutex::new(state), _room: room });
        let producer = self.producer()?;
        for Outgoing { key, payload, headers } in records {
            let mut record = BaseRecord::with_opaque_to(topic, Arc::clone(&pending)).key(&key).payload(&payload);
            record.headers = headers;
            if let Err((error, _)) = producer.send(record) {
                self.metrics.failed("refused");
                return Err(away("publish", &error));
            }
        }
        drop(pending);
        let limit = self.settings.delivery_timeout() + GRACE;
        match timeout(limit, answered).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(self.undelivered(&error)),
            Ok(Err(_)) | Err(_) => {
                self.metrics.failed("timeout");
                Err(unavailable(format!("publish: no report within {} ms", limit.as_millis())))
            }
        }
    }

    fn undelivered(&self, error: &KafkaError) -> PortError {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageTimedOut) {
            self.metrics.failed("timeout");
            return unavailable(format!(
                "publish: not acknowledged within {} ms; the messages may be in the topic or not",
                self.settings.delivery_timeout_ms
            ));
        }
        self.metrics.failed("undelivered");
        away("publish", error)
    }

    /// The producer; a new one if the last has met a fatal error. What the old one still held fails
    /// and is reported as failed, so whoever published it publishes it again, with the same bytes.
    fn producer(&self) -> PortResult<Arc<ThreadedProducer<Reports>>> {
        let mut slot = self.producer.lock();
        if let Some((code, reason)) = slot.client().fatal_error() {
            tracing::error!(%code, reason, "the kafka producer has ended; starting another");
            self.metrics.failed("fatal");
            let old = std::mem::replace(&mut *slot, Arc::new(start(&self.settings)?));
            // Dropping waits for its thread.
            drop(spawn_blocking(move || drop(old)));
        }
        Ok(Arc::clone(&slot))
    }
}

fn start(settings: &KafkaSettings) -> PortResult<ThreadedProducer<Reports>> {
    for_producer(settings)?.create_with_context(Reports).map_err(|error| refused("start a kafka producer", &error))
}
