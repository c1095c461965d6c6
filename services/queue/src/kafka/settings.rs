//! How to reach the cluster, and what is expected of the topics.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::bounds::MESSAGE_BYTES_MAX;

/// Twelve committers can share the work; more partitions cost memory at every client.
const PARTITIONS_DEFAULT: u16 = 12;
/// One broker may be lost with its disk, and another one be restarted, before an acknowledged
/// message is at risk.
const REPLICAS_DEFAULT: u16 = 3;
const MIN_INSYNC_REPLICAS_DEFAULT: u16 = 2;
/// A ledger that decides nothing for a week has people looking at it.
const RETENTION_HOURS_MIN_DEFAULT: u64 = 168;
/// Longer than the election of a leader, shorter than the 30 s after which HTTP clients give up.
const DELIVERY_TIMEOUT_MS_DEFAULT: u32 = 10_000;
/// A dead committer's partitions go to the others after this; a pause of its machine may be shorter.
const SESSION_TIMEOUT_MS_DEFAULT: u32 = 15_000;
/// A committer that takes nothing for five minutes, because its ledger stands still, gives its
/// partitions to others.
const POLL_INTERVAL_MS_MAX_DEFAULT: u32 = 300_000;
/// The same bound as the embedded queue's.
const WAITING_BYTES_MAX_DEFAULT: u32 = 64 << 20;

/// The broker refuses sessions below 6 s unless told otherwise.
const SESSION_TIMEOUT_MS_MIN: u32 = 6_000;
/// One request and its answer, and one more.
const DELIVERY_TIMEOUT_MS_MIN: u32 = 1_000;

/// A section of the configuration file. Unknown keys are refused.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaSettings {
    /// `host:port` of some brokers; the others are learnt from them.
    pub brokers: Vec<String>,
    /// Partitions of the operations topic, exactly: a key moves to another one when they change,
    /// so changing them needs a drained queue. Default 12.
    #[serde(default = "partitions")]
    pub partitions: u16,
    /// Replicas of each topic, at least. Default 3.
    #[serde(default = "replicas")]
    pub replicas: u16,
    /// Replicas that must have a message before it is acknowledged, at least. Default 2.
    #[serde(default = "min_insync_replicas")]
    pub min_insync_replicas: u16,
    /// Hours that the topics must keep messages, at least. Default 168.
    #[serde(default = "retention_hours_min")]
    pub retention_hours_min: u64,
    /// Make missing topics, rather than say how to. Default no.
    #[serde(default)]
    pub create_topics: bool,
    /// Compression of batches. Default `lz4`.
    #[serde(default)]
    pub compression: Compression,
    /// After this a publish that is not acknowledged has failed. Default 10 000 ms.
    #[serde(default = "delivery_timeout_ms")]
    pub delivery_timeout_ms: u32,
    /// After this a silent consumer has left the group. Default 15 000 ms.
    #[serde(default = "session_timeout_ms")]
    pub session_timeout_ms: u32,
    /// After this without a poll a consumer has left the group. Default 300 000 ms.
    #[serde(default = "poll_interval_ms_max")]
    pub poll_interval_ms_max: u32,
    /// Memory for what is not acknowledged before publishing answers `Full`; also the largest single
    /// publish. Default 64 MiB.
    #[serde(default = "waiting_bytes_max")]
    pub waiting_bytes_max: u32,
    /// Encrypts connections; without it they are in the clear.
    pub tls: Option<Tls>,
    /// Proves to the brokers who this is.
    pub sasl: Option<Sasl>,
}

/// Compression of batches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// None.
    None,
    /// LZ4.
    #[default]
    Lz4,
}

/// TLS to the brokers. Host names are always checked.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file with the authorities to trust; without it the system's.
    pub ca: Option<PathBuf>,
    /// PEM file with this client's certificate, if the brokers ask for one.
    pub certificate: Option<PathBuf>,
    /// PEM file with its key.
    pub key: Option<PathBuf>,
}

/// SASL to the brokers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sasl {
    /// How the password is proven.
    pub mechanism: SaslMechanism,
    /// User name.
    pub user: String,
    /// File that holds the password; a newline at its end is not part of it.
    pub password_file: PathBuf,
}

/// A SASL mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum SaslMechanism {
    /// The password itself; only over TLS.
    #[serde(rename = "PLAIN")]
    Plain,
    /// A proof with SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// A proof with SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl KafkaSettings {
    /// The defaults for these brokers.
    #[must_use]
    pub fn new(brokers: Vec<String>) -> Self {
        Self {
            brokers,
            partitions: PARTITIONS_DEFAULT,
            replicas: REPLICAS_DEFAULT,
            min_insync_replicas: MIN_INSYNC_REPLICAS_DEFAULT,
            retention_hours_min: RETENTION_HOURS_MIN_DEFAULT,
            create_topics: false,
            compression: Compression::default(),
            delivery_timeout_ms: DELIVERY_TIMEOUT_MS_DEFAULT,
            session_timeout_ms: SESSION_TIMEOUT_MS_DEFAULT,
            poll_interval_ms_max: POLL_INTERVAL_MS_MAX_DEFAULT,
            waiting_bytes_max: WAITING_BYTES_MAX_DEFAULT,
            tls: None,
            sasl: None,
        }
    }

    pub(super) fn delivery_timeout(&self) -> Duration {
        Duration::from_millis(self.delivery_timeout_ms.into())
    }

    pub(super) fn check(&self) -> Result<(), &'static str> {
        let refusals = [
            (self.brokers.iter().all(|broker| broker.trim().is_empty()), "brokers is empty"),
            (self.partitions == 0, "partitions is 0"),
            (self.min_insync_replicas == 0, "min_insync_replicas is 0"),
            (
                self.replicas < self.min_insync_replicas,
                "min_insync_replicas is above replicas: nothing could be published",
            ),
            (self.delivery_timeout_ms < DELIVERY_TIMEOUT_MS_MIN, "delivery_timeout_ms is below 1000"),
            (
                self.session_timeout_ms < SESSION_TIMEOUT_MS_MIN,
                "session_timeout_ms is below 6000, which brokers refuse",
            ),
            (self.poll_interval_ms_max < self.session_timeout_ms, "poll_interval_ms_max is below session_timeout_ms"),
            ((self.waiting_bytes_max as usize) < MESSAGE_BYTES_MAX, "waiting_bytes_max is below the longest message"),
            (
                self.sasl.as_ref().is_some_and(|sasl| sasl.mechanism == SaslMechanism::Plain) && self.tls.is_none(),
                "SASL PLAIN without TLS would send the password in the clear",
            ),
            (
                self.tls.as_ref().is_some_and(|tls| tls.certificate.is_some() != tls.key.is_some()),
                "tls.certificate and tls.key go together",
            ),
        ];
        refusals.into_iter().find(|(refused, _)| *refused).map_or(Ok(()), |(_, reason)| Err(reason))
    }
}

const fn partitions() -> u16 {
    PARTITIONS_DEFAULT
}

const fn replicas() -> u16 {
    REPLICAS_DEFAULT
}

const fn min_insync_replicas() -> u16 {
    MIN_INSYNC_REPLICAS_DEFAULT
}

const fn retention_hours_min() -> u64 {
    RETENTION_HOURS_MIN_DEFAULT
}

const fn delivery_timeout_ms() -> u32 {
    DELIVERY_TIMEOUT_MS_DEFAULT
}

const fn session_timeout_ms() -> u32 {
    SESSION_TIMEOUT_MS_DEFAULT
}

const fn poll_interval_ms_max() -> u32 {
    POLL_INTERVAL_MS_MAX_DEFAULT
}

const fn waiting_bytes_max() -> u32 {
    WAITING_BYTES_MAX_DEFAULT
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTION: &str = r#"
        brokers = ["a:9094", "b:9094"]
        partitions = 24
        compression = "none"
        [tls]
        ca = "/etc/chopmark/kafka-ca.pem"
        [sasl]
        mechanism = "SCRAM-SHA-512"
        user = "chopmark"
        password_file = "/etc/chopmark/kafka-password"
    "#;

    fn refused(change: impl FnOnce(&mut KafkaSettings)) -> &'static str {
        let mut settings = KafkaSettings::new(vec!["a:1".to_owned()]);
        settings.check().unwrap();
        change(&mut settings);
        settings.check().unwrap_err()
    }

    #[test]
    fn a_section_is_read() {
        let settings: KafkaSettings = toml::from_str(SECTION).unwrap();
        settings.check().unwrap();
        assert_eq!((settings.partitions, settings.replicas), (24, REPLICAS_DEFAULT));
        assert_eq!(settings.compression, Compression::None);
        assert_eq!(settings.sasl.unwrap().mechanism, SaslMechanism::ScramSha512);
        let few: KafkaSettings = toml::from_str("brokers = ['a:1']").unwrap();
        assert_eq!(format!("{few:?}"), format!("{:?}", KafkaSettings::new(vec!["a:1".to_owned()])));
        let error = toml::from_str::<KafkaSettings>("brokers = ['a:1']\npartition = 3").unwrap_err();
        assert!(error.to_string().contains("partition"), "{error}");
    }

    #[test]
    fn what_cannot_work_is_refused() {
        assert!(refused(|settings| settings.brokers.clear()).contains("brokers"));
        assert!(refused(|settings| settings.min_insync_replicas = 4).contains("min_insync_replicas"));
        assert!(refused(|settings| settings.session_timeout_ms = 400_000).contains("poll_interval_ms_max"));
        assert!(refused(|settings| settings.waiting_bytes_max = 1000).contains("waiting_bytes_max"));
        let tls = Tls { key: Some("k".into()), ..Tls::default() };
        assert!(refused(|settings| settings.tls = Some(tls)).contains("certificate"));
        let sasl = Sasl { mechanism: SaslMechanism::Plain, user: "u".to_owned(), password_file: "p".into() };
        assert!(refused(|settings| settings.sasl = Some(sasl)).contains("clear"));
    }
}
