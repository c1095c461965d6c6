//! The queues against their contract; the embedded one against disks and kills, the one on Kafka
//! against a broker that dies and members that come and go.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its case has failed")]

mod common;
#[macro_use]
mod contract;
mod embedded;
mod full;
mod kafka;
mod kafka_faults;
mod kill;
mod recovery;
mod throughput;
