//! The deployment under load.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use ledger_core::{checkpoint::Checkpoint, note::Note};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct DevFile {
    base_url: String,
    metrics_url: String,
    api_key: String,
    policy_path: PathBuf,
    pid: u32,
}

/// Where to push, and how to look at it.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) base: String,
    pub(crate) key: String,
    pub(crate) policy: String,
    pub(crate) pid: u32,
    metrics: String,
    http: reqwest::Client,
}

/// Durable writes of the deployment, from its own metrics.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counters {
    pub(crate) blocks: f64,
    /// Bytes in the block logs of all nodes.
    pub(crate) block_bytes: f64,
    pub(crate) checkpoints: f64,
    pub(crate) queue_appends: f64,
}

impl Counters {
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            blocks: self.blocks - before.blocks,
            block_bytes: self.block_bytes - before.block_bytes,
            checkpoints: self.checkpoints - before.checkpoints,
            queue_appends: self.queue_appends - before.queue_appends,
        }
    }
}

/// Longest wait for the backlog after the push.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(120);

impl Target {
    pub(crate) fn of_dev(data: &Path) -> anyhow::Result<Self> {
        let path = data.join("dev.json");
        let text = std::fs::read(&path)
            .with_context(|| format!("{}: is `chopmark dev --data {}` running?", path.display(), data.display()))?;
        let file: DevFile = serde_json::from_slice(&text)?;
        let policy = std::fs::read_to_string(&file.policy_path)?;
        Ok(Self {
            base: file.base_url,
            key: file.api_key,
            policy,
            pid: file.pid,
            metrics: file.metrics_url,
            http: client()?,
        })
    }

    /// Nodes in the process under load: each member of a `chopmark dev` is one.
    pub(crate) fn nodes(&self) -> usize {
        self.policy.lines().filter(|line| line.starts_with("log ")).count()
    }

    /// Size of the published log.
    pub(crate) async fn size(&self) -> anyhow::Result<u64> {
        let note =
            self.http.get(format!("{}/log/checkpoint", self.base)).send().await?.error_for_status()?.text().await?;
        Ok(Checkpoint::parse(&Note::parse(&note)?.text)?.size.0)
    }

    /// Waits until the log has `size` entries: how long that took, and its size then.
    pub(crate) async fn drained(&self, size: u64) -> anyhow::Result<(Duration, u64)> {
        let started = Instant::now();
        loop {
            let now = self.size().await?;
            if now >= size {
                return Ok((started.elapsed(), now));
            }
            if started.elapsed() > DRAIN_TIMEOUT {
                bail!("accepted records are missing: the log has {now} entries instead of {size}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn counters(&self) -> anyhow::Result<Counters> {
        let text = self.http.get(format!("{}/metrics", self.metrics)).send().await?.error_for_status()?.text().await?;
        let value = |name: &str| {
            let lines = text.lines().filter(|line| line.starts_with(name) && !line.starts_with('#'));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
        };
        Ok(Counters {
            blocks: value("chopmark_node_blocks_total"),
            block_bytes: value("chopmark_node_block_bytes_total"),
            checkpoints: value("chopmark_node_checkpoints_total"),
            queue_appends: value("chopmark_queue_append_seconds_count"),
        })
    }
}

/// An HTTP client for many connections.
pub(crate) fn client() -> anyhow::Result<reqwest::Client> {
    Ok(reqwest::Client::builder().timeout(Duration::from_secs(60)).pool_max_idle_per_host(1024).build()?)
}
