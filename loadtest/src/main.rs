//! The load generator: pushes evidence at a fixed rate without coordinated omission, fetches and
//! verifies a sample of receipts while it pushes, and measures a bare echo in the same run.
//! `loadtest/RESULTS.md` explains the method and keeps figures.

mod echo;
mod neighbour;
mod process;
mod push;
mod report;
mod stages;
mod target;

use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::{push::Plan, target::Target};

/// Pushes load at a running `chopmark dev` or `deploy/native/stack.sh` and prints figures
#[derive(Debug, Parser)]
struct Args {
    /// Data folder of a running `chopmark dev` or of `deploy/native/stack.sh` (its dev.json is read)
    #[arg(long, default_value = "chopmark-data")]
    dev: std::path::PathBuf,
    /// What to push
    #[arg(long, value_enum, default_value_t = Scenario::Single)]
    scenario: Scenario,
    /// Requests a second; 0 pushes as fast as the connections allow
    #[arg(long, default_value_t = 0.0)]
    rate: f64,
    /// Seconds of load
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Connections
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// One in this many requests also waits for its commit and has its receipt verified
    #[arg(long, default_value_t = 200)]
    sample: u64,
    /// Measure what another tenant does to this load: a file with that tenant's API key. Phases of --seconds
    /// without and with it take turns, three of each
    #[arg(long, value_name = "FILE", requires = "neighbour_rate")]
    neighbour: Option<std::path::PathBuf>,
    /// Requests a second of that tenant
    #[arg(long, value_name = "N", requires = "neighbour")]
    neighbour_rate: Option<f64>,
    /// Internal: serve the echo on this address
    #[arg(long, hide = true)]
    echo: Option<std::net::SocketAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// One record a request
    Single,
    /// 1000 records a request
    Batch,
}

impl Scenario {
    const fn records(self) -> u64 {
        match self {
            Self::Single => 1,
            Self::Batch => 1000,
        }
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(address) = args.echo {
        return echo::serve(address);
    }
    // Only plain HTTP is pushed, but the client wants a provider to be there.
    let _installed_before = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(args))
}

async fn run(args: Args) -> anyhow::Result<()> {
    let target = Target::of_dev(&args.dev)?;
    let plan = Plan {
        records: args.scenario.records(),
        rate: args.rate,
        length: Duration::from_secs(args.seconds),
        connections: args.connections,
        sample: args.sample,
        insists: false,
    };
    if let (Some(file), Some(rate)) = (&args.neighbour, args.neighbour_rate) {
        let key = std::fs::read_to_string(file)?.trim().to_owned();
        return neighbour::measure(&target, &plan, &target.with_key(key), rate).await;
    }
    let size_before = target.size().await?;
    let (usage_before, samples_before) = (target.processes.usage()?, target.samples().await?);
    let (mut pushed, unverified) = push::push(&target, &plan).await?;
    let size_at_end = target.size().await?;
    let (backlog, size_after) = target.drained(size_before + pushed.accepted).await?;
    unverified.finish(&mut pushed).await?;
    let usage = process::since(&target.processes.usage()?, &usage_before);
    let samples = target.samples().await?.since(&samples_before);
    let echo = echo::measure(&plan).await?;
    report::print(&report::Figures {
        plan: &plan,
        nodes: target.nodes(),
        pushed: &pushed,
        committed_at_end: size_at_end - size_before,
        committed: size_after - size_before,
        backlog,
        usage: &usage,
        samples: &samples,
        echo: &echo,
    })
}
