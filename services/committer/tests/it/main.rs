//! The committer against everything that happens to it: crashes at every call, dependencies that
//! are away, poison, conflicts, other committers, and nodes that lie. The doubles are honest: the
//! ledger executes, the queue redelivers, the store forgets nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its case has failed")]

mod doubles;

mod backoff;
mod catch_up;
mod committers;
mod cost;
mod crash;
mod members;
mod metrics;
mod poison;
mod project;
mod submit;
mod tampered;
