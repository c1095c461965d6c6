//! The queue between gateways and committers: adapters of the ports `Queue` and `QueueConsumer`.
//!
//! [`embedded`] keeps it in segment files of this process; [`kafka`] in topics of an Apache Kafka
//! cluster. A queue only carries: it never looks into a message beyond decoding it, never decides
//! whether one was seen before, and never drops one that was acknowledged.

mod bounds;
pub mod embedded;
mod failure;
pub mod kafka;
mod metric;

pub use embedded::{Config, DeadLetter, EmbeddedConsumer, EmbeddedQueue, Stats};
pub use kafka::{Flaw, FlawKind, KafkaConsumer, KafkaFault, KafkaQueue, KafkaSettings};
pub use metric::describe_metrics;
