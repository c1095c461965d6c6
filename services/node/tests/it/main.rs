//! A node, alone and in a consortium: what it commits, proves, survives and refuses.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod alone;
mod consortium;
mod repair;
mod restore;
mod support;
