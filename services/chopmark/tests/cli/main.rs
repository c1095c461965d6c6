//! The built binary, run as its users run it: standard output's last line, exit status, files.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its case has failed")]

mod corpus;
mod faults;
mod network;
mod signing;
mod stub;
mod submit;
mod support;
mod tools;
mod verify;
