//! The queue between gateways and committers: adapters of the ports `Queue` and `QueueConsumer`.
//!
//! [`embedded`] keeps it in segment files of this process. A queue only carries: it never looks
//! into a message beyond decoding it, never decides whether one was seen before, and never drops
//! one that was acknowledged.

pub mod embedded;

pub use embedded::{Config, DeadLetter, EmbeddedConsumer, EmbeddedQueue, Stats, describe_metrics};
