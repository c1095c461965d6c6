//! The courier over real sockets.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod attempts;
mod libraries;
mod receiver;
