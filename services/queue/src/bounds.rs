//! Bounds that hold whatever carries the queue.

use chopmark_domain::message::SEALED_BYTES_MAX;
use ledger_core::operation::OPERATION_BYTES_MAX;

/// Longest message: operation, sealed private part, and at most eight short fields.
pub(crate) const MESSAGE_BYTES_MAX: usize = OPERATION_BYTES_MAX + SEALED_BYTES_MAX + 8 * 256;
/// Memory that one poll may deliver, plus one message.
pub(crate) const POLL_BYTES_MAX: usize = 16 << 20;
/// A dead letter's reason is a sentence; the rest is cut off.
pub(crate) const REASON_BYTES_MAX: usize = 1024;
