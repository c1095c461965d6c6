//! The log against everything that happens to disks and processes. Each module is one kind of harm.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its case has failed")]

mod basics;
mod common;
mod concurrent;
mod flips;
mod full;
mod kill;
mod model;
mod tail;
