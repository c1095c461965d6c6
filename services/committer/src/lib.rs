//! The committer: carries operations from the queue to the ledger ([`SubmitLoop`]) and the
//! ledger's verified blocks into the database ([`ProjectLoop`]).
//!
//! Holds no state of its own: queue positions, ledger and cursor are the only memory, so any
//! number of committers may run and any of them may be killed at any line. It never trusts a
//! node: a block that fails a check is not projected, and the loop stops with an alarm.

mod admit;
mod batch;
mod chain;
mod checkpoint;
mod config;
mod error;
mod metric;
mod project;
mod retry;
mod source;
mod submit;
mod tree;
mod trust;

pub use config::*;
pub use error::{CheckError, CommitterError};
pub use metric::describe_metrics;
pub use project::ProjectLoop;
pub use submit::{SubmitLoop, SubmitPorts};
