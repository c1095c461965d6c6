//! The embedded queue: one partition, one process, one directory.
//!
//! ```text
//! <directory>/LOCK          locked while the queue is open
//!             log/          segment log, one message per record: offset = sequence number
//!             dead-letter/  segment log of what could not be processed
//!             committed     the consumer's position, two checksummed slots
//! ```
//!
//! A writer thread owns the log. Whatever waits while it syncs goes into its next append together,
//! so that concurrent publishers share one `fdatasync`. Delivery is at least once: a restart
//! delivers again from the committed position. Nothing here deduplicates.
//!
//! A failed write closes the log, and the writer opens it anew from disk after a delay; what was
//! acknowledged is kept and the consumer goes on reading meanwhile. Damage is never repaired: the
//! queue answers `Broken`, and names the directory.

mod committed;
mod config;
mod consumer;
mod dead_letter;
mod failure;
mod files;
mod queue;
mod shared;
mod writer;

pub use config::Config;
pub use consumer::EmbeddedConsumer;
pub use dead_letter::DeadLetter;
pub use queue::{EmbeddedQueue, Stats};
