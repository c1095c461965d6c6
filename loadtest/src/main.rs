//! The load generator: pushes evidence at a fixed rate without coordinated omission, fetches and
//! verifies a sample of receipts while it pushes, and measures a bare echo in the same run.
//! `loadtest/RESULTS.md` explains the method and keeps figures.

mod echo;
mod process;
mod push;
mod report;
mod target;

use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::{process::Usage, push::Plan, target::Target};

/// Pushes load at a running `chopmark dev` and prints figures
#[derive(Debug, Parser)]
struct Args {
    /// Data folder of a running `chopmark dev` (its dev.json is read)
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
    };
    let size_before = target.size().await?;
    let (usage_before, counters_before) = (Usage::of(target.pid)?, target.counters().await?);
    let (mut pushed, unverified) = push::push(&target, &plan).await?;
    let size_at_end = target.size().await?;
    let (backlog, size_after) = target.drained(size_before + pushed.accepted).await?;
    unverified.finish(&mut pushed).await?;
    let usage = Usage::of(target.pid)?.since(&usage_before);
    let counters = target.counters().await?.since(&counters_before);
    let echo = echo::measure(&plan).await?;
    report::print(&report::Figures {
        plan: &plan,
        nodes: target.nodes(),
        pushed: &pushed,
        committed_at_end: size_at_end - size_before,
        committed: size_after - size_before,
        backlog,
        usage,
        counters,
        echo: &echo,
    })
}
