//! The figures of one run, as text.

use std::{io::Write as _, time::Duration};

use hdrhistogram::Histogram;

use crate::{
    echo::Echoed,
    process::Usage,
    push::{Plan, Pushed},
    target::Counters,
};

pub(crate) struct Figures<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) nodes: usize,
    pub(crate) pushed: &'a Pushed,
    pub(crate) committed_at_end: u64,
    pub(crate) committed: u64,
    pub(crate) backlog: Duration,
    pub(crate) usage: Usage,
    pub(crate) counters: Counters,
    pub(crate) echo: &'a Echoed,
}

pub(crate) fn print(f: &Figures<'_>) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let seconds = f.pushed.elapsed.as_secs_f64();
    let accepted = f.pushed.accepted as f64 / seconds;
    // What was pushed is committed when its backlog is: the span of both rates below.
    let span = (f.pushed.elapsed + f.backlog).as_secs_f64();
    let megabytes = f.counters.block_bytes / f.nodes.max(1) as f64 / 1e6;
    let records = (f.committed as f64).max(1.0);
    let syncs = 2.0 * f.counters.blocks + 2.0 * f.counters.checkpoints + f.counters.queue_appends;
    writeln!(out, "nodes                   {}", f.nodes)?;
    writeln!(out, "records per request     {}", f.plan.records)?;
    writeln!(
        out,
        "requests due per second {}",
        if f.plan.rate > 0.0 { f.plan.rate.to_string() } else { "unlimited".into() }
    )?;
    writeln!(out, "connections             {}", f.plan.connections)?;
    writeln!(out, "seconds                 {seconds:.1}")?;
    writeln!(out, "accepted/s              {accepted:.0}  (refused with 503 or 429: {})", f.pushed.refused)?;
    writeln!(out, "committed/s             {:.0}  (until the push ended)", f.committed_at_end as f64 / seconds)?;
    writeln!(
        out,
        "backlog at the end      {} records, {:.2} s",
        f.pushed.accepted.saturating_sub(f.committed_at_end),
        f.backlog.as_secs_f64()
    )?;
    writeln!(out, "committed/s             {:.0}  (over push and backlog)", f.committed as f64 / span)?;
    writeln!(out, "block log MB/s          {:.2}  (of one node, over push and backlog)", megabytes / span)?;
    writeln!(out, "accepted ms             {}", milliseconds(&f.pushed.accept))?;
    writeln!(out, "committed ms (sample)   {}", milliseconds(&f.pushed.commit))?;
    writeln!(out, "receipts verified       {}", f.pushed.verified)?;
    writeln!(out, "CPU us/record           {:.1}  (server process, all roles)", f.usage.cpu_seconds * 1e6 / records)?;
    writeln!(out, "syncs/record            {:.4}  (guard, block log, checkpoint log, queue)", syncs / records)?;
    writeln!(out, "RSS MiB                 {:.0} now, {:.0} peak", f.usage.rss_mib, f.usage.rss_peak_mib)?;
    writeln!(out, "echo records/s          {:.0}  {}", f.echo.per_second, milliseconds(&f.echo.latency))?;
    writeln!(out, "accepted / echo         {:.2}", accepted / f.echo.per_second)?;
    Ok(())
}

fn milliseconds(latency: &Histogram<u64>) -> String {
    let at = |quantile: f64| latency.value_at_quantile(quantile) as f64 / 1000.0;
    format!("p50 {:.1}  p99 {:.1}  max {:.1}", at(0.5), at(0.99), latency.max() as f64 / 1000.0)
}
