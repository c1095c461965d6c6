//! The whole gateway in one process, over real sockets, on in-memory doubles of its ports.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests, and figures that a reader wants")]

mod bad_input;
mod cases;
mod client;
mod doubles;
mod evidence;
mod explore;
mod files;
mod idempotency;
mod ledger;
mod limits;
mod openapi;
mod privacy;
mod public;
mod signatures;
mod webhooks;
mod world;
