//! How the node's files become durable: by the kernel, or in the simulator by a disk that can lose
//! power between any two syncs.

use segment_log::Options;

pub(crate) use segment_log::Extent;

/// [`segment_log::sync`], with its time taken.
#[cfg(not(test))]
pub(crate) fn sync(file: &std::fs::File, path: &std::path::Path, extent: Extent) -> std::io::Result<()> {
    let started = std::time::Instant::now();
    let synced = segment_log::sync(file, path, extent);
    metrics::histogram!("chopmark_node_fsync_seconds").record(started.elapsed());
    synced
}

#[cfg(test)]
pub(crate) use crate::simulation::disk::sync;

/// Options of a log of this node.
pub(crate) fn log_options() -> Options {
    Options { sync, ..Options::default() }
}
