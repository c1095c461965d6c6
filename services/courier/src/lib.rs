//! Webhooks on their way out.
//!
//! [`run`] claims what is due from the database and attempts it; [`client`] is one attempt, [`egress`] says where
//! it may go, [`sign`] signs it, [`schedule`] says when it is tried again (ADR 0022).

pub mod client;
pub mod egress;
pub mod run;
pub mod schedule;
pub mod sign;

mod message;
mod metric;

pub use metric::describe_metrics;
pub use run::{Courier, CourierConfig, CourierPorts};
