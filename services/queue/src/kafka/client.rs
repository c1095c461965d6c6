//! From our settings to those of librdkafka, and from its errors to the port's.

use std::fs;

use chopmark_domain::ports::{PortError, PortResult};
use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::settings::{Compression, KafkaSettings, SaslMechanism};
use crate::bounds::{MESSAGE_BYTES_MAX, POLL_BYTES_MAX};
use crate::failure::{broken, unavailable};

/// A batch is closed here. librdkafka may go beyond it by one message, and both together stay below
/// a topic's usual `max.message.bytes` of 1 048 588.
const BATCH_BYTES_MAX: usize = 900_000;
/// What a topic must take in one batch.
pub(super) const TOPIC_MESSAGE_BYTES_MIN: usize = BATCH_BYTES_MAX + MESSAGE_BYTES_MAX;
/// Requests that arrive meanwhile share a batch; small beside the time of a block.
const LINGER_MS: u32 = 5;
/// Longest pause before a lost connection is tried again.
const RECONNECT_MS_MAX: u32 = 1_000;
/// Pause of fetching while the memory for what was fetched is full.
const FETCH_BACKOFF_MS: u32 = 50;

/// Names of one network's topics and group.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) operations: String,
    pub(super) dead_letter: String,
    pub(super) group: String,
}

impl Names {
    pub(super) fn new(network: &str) -> Self {
        let operations = format!("chopmark.{network}.operations.v1");
        let dead_letter = format!("{operations}.dead-letter");
        Self { operations, dead_letter, group: format!("chopmark.{network}.committers") }
    }
}

/// Hands librdkafka's log to ours, and remembers what went wrong last.
#[derive(Debug, Default)]
pub(super) struct Plain {
    last: Mutex<Option<(Option<RDKafkaErrorCode>, String)>>,
}

impl Plain {
    /// Code and text.
    pub(super) fn last(&self) -> Option<(Option<RDKafkaErrorCode>, String)> {
        self.last.lock().clone()
    }
}

impl ClientContext for Plain {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
        // That all brokers are down says less than why one is.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *self.last.lock() = Some((error.rdkafka_error_code(), reason.to_owned()));
        }
    }
}

impl ConsumerContext for Plain {}

pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            tracing::warn!(facility, message, "kafka client");
        }
        RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => tracing::info!(facility, message, "kafka client"),
        RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => tracing::debug!(facility, message, "kafka client"),
    }
}

pub(super) fn log_error(error: &KafkaError, reason: &str) {
    tracing::warn!(%error, reason, "kafka client");
}

/// Connection and identity, for every kind of client. Reads the password.
pub(super) fn common(settings: &KafkaSettings) -> PortResult<ClientConfig> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", settings.brokers.join(","))
        .set("client.id", "chopmark")
        .set("reconnect.backoff.max.ms", RECONNECT_MS_MAX.to_string())
        // What librdkafka logs at `info` is noise to an operator.
        .set_log_level(RDKafkaLogLevel::Notice);
    let protocol = match (&settings.tls, &settings.sasl) {
        (None, None) => "plaintext",
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    config.set("security.protocol", protocol);
    if let Some(tls) = &settings.tls {
        config.set("ssl.endpoint.identification.algorithm", "https");
        let files = [
            ("ssl.ca.location", &tls.ca),
            ("ssl.certificate.location", &tls.certificate),
            ("ssl.key.location", &tls.key),
        ];
        for (key, file) in files {
            if let Some(file) = file {
                config.set(key, file.display().to_string());
            }
        }
    }
    if let Some(sasl) = &settings.sasl {
        let mechanism = match sasl.mechanism {
            SaslMechanism::Plain => "PLAIN",
            SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
            SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
        };
        let password = fs::read_to_string(&sasl.password_file)
            .map_err(|error| unavailable(format!("read {}: {error}", sasl.password_file.display())))?;
        config
            .set("sasl.mechanism", mechanism)
            .set("sasl.username", &sasl.user)
            .set("sasl.password", password.trim_end_matches(['\r', '\n']));
    }
    Ok(config)
}

pub(super) fn for_producer(settings: &KafkaSettings) -> PortResult<ClientConfig> {
    let compression = match settings.compression {
        Compression::None => "none",
        Compression::Lz4 => "lz4",
    };
    let mut config = common(settings)?;
    config
        // Kept in order, and once each, however often a request is repeated within the time-out.
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("message.timeout.ms", settings.delivery_timeout_ms.to_string())
        // So that a request that is never answered leaves time for another one.
        .set("request.timeout.ms", (settings.delivery_timeout_ms / 2).to_string())
        .set("socket.timeout.ms", settings.delivery_timeout_ms.to_string())
        .set("compression.type", compression)
        .set("linger.ms", LINGER_MS.to_string())
        .set("batch.size", BATCH_BYTES_MAX.to_string())
        // As Kafka's own clients do, so that their tools find a key where we put it.
        .set("partitioner", "murmur2_random")
        // The bound is `waiting_bytes_max`, which is reserved before anything is handed over.
        .set("queue.buffering.max.messages", "0")
        .set("queue.buffering.max.kbytes", i32::MAX.to_string());
    Ok(config)
}

pub(super) fn for_consumer(settings: &KafkaSettings, group: &str) -> PortResult<ClientConfig> {
    let mut config = common(settings)?;
    config
        .set("group.id", group)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", settings.session_timeout_ms.to_string())
        .set("heartbeat.interval.ms", (settings.session_timeout_ms / 5).to_string())
        .set("max.poll.interval.ms", settings.poll_interval_ms_max.to_string())
        // Only a decided outcome moves an offset.
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // A group without offsets begins with all that is kept. Should a committed offset be out of
        // range, the reader notices.
        .set("auto.offset.reset", "earliest")
        .set("fetch.max.bytes", POLL_BYTES_MAX.to_string())
        .set("queued.max.messages.kbytes", (POLL_BYTES_MAX / 1024).to_string())
        .set("fetch.queue.backoff.ms", FETCH_BACKOFF_MS.to_string());
    Ok(config)
}

/// What the settings do not allow, or a file that cannot be read as what it should be.
pub(super) fn refused(what: &str, error: &KafkaError) -> PortError {
    broken(format!("{what}: {error}"))
}

/// Whatever else went wrong may be otherwise the next time.
pub(super) fn away(what: &str, error: &KafkaError) -> PortError {
    let hint = match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::SaslAuthenticationFailed | RDKafkaErrorCode::Authentication) => {
            " (check user, password file and mechanism)"
        }
        Some(RDKafkaErrorCode::SSL) => " (check the TLS files and the brokers' certificates)",
        Some(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed) => {
            " (grant this user the topics and the group)"
        }
        Some(RDKafkaErrorCode::NotEnoughReplicas | RDKafkaErrorCode::NotEnoughReplicasAfterAppend) => {
            " (fewer brokers are in sync than min.insync.replicas)"
        }
        _ => "",
    };
    unavailable(format!("{what}: {error}{hint}"))
}
