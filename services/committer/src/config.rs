//! The loops' settings. Every default is a constant with its unit and its reason.

use std::time::Duration;

use ledger_core::genesis::Network;

/// Operations taken from the queue at once: half of what one submission may carry, so that a
/// batch is one submission, and about the ledger's work of 40 ms.
pub const BATCH_OPERATIONS_MAX: usize = 2_048;
/// Batches under way at once, so that the ledger finds the next block's operations waiting while
/// it agrees on this one.
pub const BATCHES_IN_FLIGHT_MAX: usize = 4;
/// Message bytes under way beyond which nothing more is polled. Memory is bounded by this and
/// one poll: 2 048 messages of at most 48 KiB are 96 MiB, ordinary ones of 1 KiB are 2 MiB.
pub const IN_FLIGHT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Operation bytes in one submission: a quarter of a block, so that it always fits into one and
/// several can share it.
pub const SUBMISSION_BYTES_MAX: usize = 1024 * 1024;
/// Longest wait of a poll for a fuller batch.
pub const LINGER: Duration = Duration::from_millis(50);
/// Longest wait for one answer of queue, database or ledger reader.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for the outcomes of one submission before it is repeated: far beyond a round in
/// which a validator is lost, so that a healthy ledger is never asked twice.
pub const SUBMIT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a stopping submit loop waits for what is under way. What is left is delivered again.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two readings of the queue's lag: a scrape interval's third.
pub const LAG_INTERVAL: Duration = Duration::from_secs(5);
/// First pause after a failed call: half the ledger's usual block.
pub const RETRY_FIRST: Duration = Duration::from_millis(25);
/// Longest pause between two tries before jitter, which at most doubles it.
pub const RETRY_LONGEST: Duration = Duration::from_secs(5);
/// Blocks fetched at once: at most 16 blocks of 4 MiB and their entries are held.
pub const BLOCKS_PER_FETCH: usize = 16;
/// How often an idle ledger is looked at: empty blocks do not wake the waiting.
pub const IDLE_WAIT: Duration = Duration::from_secs(1);

/// Pauses between tries.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// The first.
    pub first: Duration,
    /// The longest, before jitter.
    pub longest: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { first: RETRY_FIRST, longest: RETRY_LONGEST }
    }
}

/// Settings of the submit loop.
#[derive(Debug, Clone)]
pub struct SubmitConfig {
    /// The network whose messages these are; a message of another is poison.
    pub network: Network,
    /// [`BATCH_OPERATIONS_MAX`]
    pub batch_operations_max: usize,
    /// [`BATCHES_IN_FLIGHT_MAX`]
    pub batches_in_flight_max: usize,
    /// [`IN_FLIGHT_BYTES_MAX`]
    pub in_flight_bytes_max: usize,
    /// [`SUBMISSION_BYTES_MAX`]
    pub submission_bytes_max: usize,
    /// [`LINGER`]
    pub linger: Duration,
    /// [`CALL_TIMEOUT`]
    pub call_timeout: Duration,
    /// [`SUBMIT_TIMEOUT`]
    pub submit_timeout: Duration,
    /// [`DRAIN_TIMEOUT`]
    pub drain_timeout: Duration,
    /// [`LAG_INTERVAL`]
    pub lag_interval: Duration,
    /// [`RETRY_FIRST`], [`RETRY_LONGEST`]
    pub retry: Retry,
}

impl SubmitConfig {
    /// The defaults for `network`.
    #[must_use]
    pub fn new(network: Network) -> Self {
        Self {
            network,
            batch_operations_max: BATCH_OPERATIONS_MAX,
            batches_in_flight_max: BATCHES_IN_FLIGHT_MAX,
            in_flight_bytes_max: IN_FLIGHT_BYTES_MAX,
            submission_bytes_max: SUBMISSION_BYTES_MAX,
            linger: LINGER,
            call_timeout: CALL_TIMEOUT,
            submit_timeout: SUBMIT_TIMEOUT,
            drain_timeout: DRAIN_TIMEOUT,
            lag_interval: LAG_INTERVAL,
            retry: Retry::default(),
        }
    }
}

/// Settings of the project loop.
#[derive(Debug, Clone)]
pub struct ProjectConfig {
    /// [`BLOCKS_PER_FETCH`]
    pub blocks_per_fetch: usize,
    /// [`IDLE_WAIT`]
    pub idle_wait: Duration,
    /// [`CALL_TIMEOUT`]
    pub call_timeout: Duration,
    /// [`RETRY_FIRST`], [`RETRY_LONGEST`]
    pub retry: Retry,
}

impl Default for ProjectConfig {
    fn default() -> Self {
        Self {
            blocks_per_fetch: BLOCKS_PER_FETCH,
            idle_wait: IDLE_WAIT,
            call_timeout: CALL_TIMEOUT,
            retry: Retry::default(),
        }
    }
}
