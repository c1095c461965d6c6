//! The queue against its contract, and the embedded one against disks and kills.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its case has failed")]

mod common;
#[macro_use]
mod contract;
mod embedded;
mod full;
mod kill;
mod recovery;
mod throughput;
