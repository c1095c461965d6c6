//! How the node's files become durable: by the kernel, or in the simulator by a disk that can lose
//! power between any two syncs.

use segment_log::Options;

pub(crate) use segment_log::Extent;
#[cfg(not(test))]
pub(crate) use segment_log::sync;

#[cfg(test)]
pub(crate) use crate::simulation::disk::sync;

/// Options of a log of this node.
pub(crate) fn log_options() -> Options {
    Options { sync, ..Options::default() }
}
