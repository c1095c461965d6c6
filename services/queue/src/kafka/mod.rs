//! The queue in topics of an Apache Kafka cluster.
//!
//! ```text
//! chopmark.<network>.operations.v1               one message per record, keyed by its order key
//! chopmark.<network>.operations.v1.dead-letter   what could not be processed, with the reason
//! chopmark.<network>.committers                  the consumer group
//! ```
//!
//! Publishing is idempotent within a producer and acknowledged by all replicas in sync. A message
//! that is published again after an error is there twice: its key and bytes are the same, so that
//! whoever consumes knows it by its operation id. Offsets are committed by the consumer alone, never
//! in the background.
//!
//! Kafka skips silently what its retention deleted or an unclean election lost. Here offsets have no
//! gaps (no transactions, no compaction, which the settings of the topic must say), so the consumer
//! counts them and answers `Broken` where one is missing.

mod client;
mod consumer;
mod examine;
mod group;
mod producer;
mod reader;
mod settings;
mod topic;

pub use consumer::KafkaConsumer;
pub use examine::{KafkaFault, examine};
pub use producer::KafkaQueue;
pub use settings::{Compression, KafkaSettings, Sasl, SaslMechanism, Tls};
pub use topic::{Flaw, FlawKind};
