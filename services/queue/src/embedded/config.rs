//! Bounds of the queue, each with its reason.

use crate::bounds::MESSAGE_BYTES_MAX;

/// Closed segments are deleted whole, so this is also how much committed data lingers; 64 MiB are
/// scanned in about 0.1 s on opening.
const SEGMENT_BYTES_MAX_DEFAULT: u64 = 64 << 20;
/// Disk that the log may take: 8 GiB hold 20 million messages of 400 bytes, over a minute of a
/// stalled ledger at 250 000 a second.
const LOG_BYTES_MAX_DEFAULT: u64 = 8 << 30;
/// Memory for messages that wait for the writer: 64 MiB are 160 bulk calls of 400 kB, and less
/// than a second of a slow disk.
const WAITING_BYTES_MAX_DEFAULT: u64 = 64 << 20;
/// Committed messages kept at least, for whoever has to look into an incident.
const RETAINED_MESSAGES_DEFAULT: u64 = 1024;
/// Dead letters are never deleted here; somebody should look long before 1 GiB.
const DEAD_LETTER_BYTES_MAX_DEFAULT: u64 = 1 << 30;

/// The writer closes a group here, so that one append stays below 100 ms on a slow disk.
pub(super) const GROUP_BYTES_MAX: u64 = 8 << 20;

/// How to open an [`EmbeddedQueue`](super::EmbeddedQueue).
#[derive(Debug, Clone)]
pub struct Config {
    /// Label `network` of the metrics.
    pub network: String,
    /// Length at which a segment is closed. Default 64 MiB.
    pub segment_bytes_max: u64,
    /// Disk that the log may take before publishing answers `Full`. Must hold what stays when all
    /// is committed, and one publish more. Default 8 GiB.
    pub log_bytes_max: u64,
    /// Memory for what waits to be written before publishing answers `Full`; also the largest
    /// single publish. Default 64 MiB.
    pub waiting_bytes_max: u64,
    /// Committed messages that are kept at least. Default 1024.
    pub retained_messages: u64,
    /// Disk that dead letters may take before putting another aside answers `Full`. Default 1 GiB.
    pub dead_letter_bytes_max: u64,
}

impl Config {
    /// The defaults for one network.
    #[must_use]
    pub fn new(network: impl Into<String>) -> Self {
        Self {
            network: network.into(),
            segment_bytes_max: SEGMENT_BYTES_MAX_DEFAULT,
            log_bytes_max: LOG_BYTES_MAX_DEFAULT,
            waiting_bytes_max: WAITING_BYTES_MAX_DEFAULT,
            retained_messages: RETAINED_MESSAGES_DEFAULT,
            dead_letter_bytes_max: DEAD_LETTER_BYTES_MAX_DEFAULT,
        }
    }

    pub(super) fn check(&self) -> Result<(), &'static str> {
        // All committed, there stay: the last segment, the segment in which the retained messages
        // begin, and these. A lower bound could be reached with nothing left to commit, for ever.
        let segment = self.segment_bytes_max.max(self.waiting_bytes_max);
        let retained = self.retained_messages.saturating_mul(MESSAGE_BYTES_MAX as u64);
        let stays = segment.saturating_mul(2).saturating_add(retained);
        if self.log_bytes_max < stays.saturating_add(self.waiting_bytes_max) {
            return Err("log_bytes_max is below two segments, the retained messages and one publish");
        }
        if self.waiting_bytes_max < MESSAGE_BYTES_MAX as u64 {
            return Err("waiting_bytes_max is below the longest message");
        }
        Ok(())
    }
}
