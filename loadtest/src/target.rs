//! The deployment under load: `chopmark dev`, or the many processes of `deploy/native/stack.sh`.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use ledger_core::{checkpoint::Checkpoint, note::Note};
use serde::Deserialize;

use crate::{process::Processes, stages::Samples};

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
    pub(crate) processes: Processes,
    /// Where each process shows its metrics.
    metrics: Vec<String>,
    http: reqwest::Client,
}

/// A line of the file that tells Prometheus whom to ask.
#[derive(Debug, Deserialize)]
struct Scraped {
    targets: Vec<String>,
}

/// Longest wait for the backlog after the push.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(120);

impl Target {
    pub(crate) fn of_dev(data: &Path) -> anyhow::Result<Self> {
        let path = data.join("dev.json");
        let text = std::fs::read(&path)
            .with_context(|| format!("{}: is `chopmark dev --data {}` running?", path.display(), data.display()))?;
        let file: DevFile = serde_json::from_slice(&text)?;
        let policy = fs::read_to_string(&file.policy_path)?;
        let scraped = data.join("servers/prometheus/targets/roles.json");
        let (processes, metrics) = if scraped.is_file() {
            let scraped: Vec<Scraped> = serde_json::from_slice(&fs::read(&scraped)?)?;
            let targets = scraped.into_iter().flat_map(|scraped| scraped.targets);
            (Processes::of_stack(data)?, targets.map(|target| format!("http://{target}")).collect())
        } else {
            (Processes::one(file.pid), vec![file.metrics_url])
        };
        Ok(Self { base: file.base_url, key: file.api_key, policy, processes, metrics, http: client()? })
    }

    /// The same deployment for another tenant.
    pub(crate) fn with_key(&self, key: String) -> Self {
        Self { key, ..self.clone() }
    }

    /// Nodes under load: each member has one.
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

    /// What all processes have counted so far.
    pub(crate) async fn samples(&self) -> anyhow::Result<Samples> {
        let mut samples = Samples::default();
        for url in &self.metrics {
            let answer = self.http.get(format!("{url}/metrics")).send().await?.error_for_status()?;
            samples.add(&answer.text().await?);
        }
        Ok(samples)
    }
}

/// An HTTP client for many connections.
pub(crate) fn client() -> anyhow::Result<reqwest::Client> {
    Ok(reqwest::Client::builder().timeout(Duration::from_secs(60)).pool_max_idle_per_host(1024).build()?)
}
