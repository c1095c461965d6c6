//! Logs to standard error, metrics to the internal listener.

use std::{io::IsTerminal as _, path::PathBuf, sync::Arc};

use anyhow::anyhow;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::cli::LogFormat;

/// Levels when `CHOPMARK_LOG` says nothing. `actix_http` reports what strangers send, as errors.
const FILTER_DEFAULT: &str = "info,arc_malachitebft_app=warn,arc_malachitebft_app_channel=warn,arc_malachitebft_core_consensus=warn,arc_malachitebft_core_driver=warn,\
     arc_malachitebft_discovery=error,arc_malachitebft_engine=warn,arc_malachitebft_network=error,\
     arc_malachitebft_sync=warn,libp2p=error,fjall=warn,lsm_tree=warn,actix_server=warn,actix_http=off";
/// Upper bounds of the latency buckets in seconds, from one fsync to the longest wait.
const SECONDS_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// Starts logging.
pub(crate) fn start_logs(format: LogFormat) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_env("CHOPMARK_LOG").unwrap_or_else(|_| EnvFilter::new(FILTER_DEFAULT));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    started.map_err(|error| anyhow!("start logging: {error}"))
}

/// What the process counts, and what it takes of the machine.
#[derive(Clone)]
pub(crate) struct Metrics {
    handle: PrometheusHandle,
    process: metrics_process::Collector,
    folders: Arc<Vec<PathBuf>>,
}

impl Metrics {
    /// Tells the room on the disks of these folders too.
    pub(crate) fn with_folders(self, folders: Vec<PathBuf>) -> Self {
        Self { folders: Arc::new(folders), ..self }
    }

    /// Everything as of now, in Prometheus' text format.
    pub(crate) fn render(&self) -> String {
        self.process.collect();
        for folder in self.folders.iter() {
            let Ok(disk) = rustix::fs::statvfs(folder) else { continue };
            let name = folder.display().to_string();
            metrics::gauge!("chopmark_disk_free_bytes", "folder" => name.clone())
                .set(bytes(disk.f_bavail.saturating_mul(disk.f_frsize)));
            metrics::gauge!("chopmark_disk_size_bytes", "folder" => name)
                .set(bytes(disk.f_blocks.saturating_mul(disk.f_frsize)));
        }
        self.handle.render()
    }
}

#[expect(clippy::cast_precision_loss, reason = "disks are smaller than 2^53 bytes")]
const fn bytes(count: u64) -> f64 {
    count as f64
}

/// Starts collecting metrics of a role.
pub(crate) fn start_metrics(role: &'static str) -> anyhow::Result<Metrics> {
    let builder =
        PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS)?;
    let handle = builder.install_recorder()?;
    chopmark_cache::describe_metrics();
    chopmark_committer::describe_metrics();
    chopmark_courier::describe_metrics();
    chopmark_queue::describe_metrics();
    let process = metrics_process::Collector::default();
    process.describe();
    metrics::gauge!("chopmark_build_info", "version" => env!("CARGO_PKG_VERSION"), "role" => role).set(1.0);
    Ok(Metrics { handle, process, folders: Arc::default() })
}
