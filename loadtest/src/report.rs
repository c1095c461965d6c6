//! The figures of one run, as text.

use std::{io::Write as _, time::Duration};

use hdrhistogram::Histogram;

use crate::{
    echo::Echoed,
    process::{Usage, Usages},
    push::{Plan, Pushed},
    stages::{STAGES, Samples},
};

pub(crate) struct Figures<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) nodes: usize,
    pub(crate) pushed: &'a Pushed,
    pub(crate) committed_at_end: u64,
    pub(crate) committed: u64,
    pub(crate) backlog: Duration,
    pub(crate) usage: &'a Usages,
    pub(crate) samples: &'a Samples,
    pub(crate) echo: &'a Echoed,
}

pub(crate) fn print(f: &Figures<'_>) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let seconds = f.pushed.elapsed.as_secs_f64();
    let accepted = f.pushed.accepted as f64 / seconds;
    // What was pushed is committed when its backlog is: the span of both rates below.
    let span = (f.pushed.elapsed + f.backlog).as_secs_f64();
    // Every node counts each block.
    let megabytes = f.samples.value("chopmark_node_block_bytes_total") / f.nodes.max(1) as f64 / 1e6;
    let records = (f.committed as f64).max(1.0);
    let count = |name: &str| f.samples.value(name);
    let syncs = 2.0 * count("chopmark_node_blocks_total")
        + 2.0 * count("chopmark_node_checkpoints_total")
        + count("chopmark_queue_append_seconds_count");
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
    let of = |part: fn(&Usage) -> f64| f.usage.values().map(part).sum::<f64>();
    writeln!(out, "CPU us/record           {:.1}", of(|usage| usage.cpu_seconds) * 1e6 / records)?;
    for (role, usage) in f.usage {
        writeln!(
            out,
            "  {role:<22}{:.1}  RSS MiB {:.0} now, {:.0} peak",
            usage.cpu_seconds * 1e6 / records,
            usage.rss_mib,
            usage.rss_peak_mib
        )?;
    }
    writeln!(out, "syncs/record            {:.4}  (guard, block log, checkpoint log, queue)", syncs / records)?;
    writeln!(
        out,
        "RSS MiB                 {:.0} now, {:.0} peak",
        of(|usage| usage.rss_mib),
        of(|usage| usage.rss_peak_mib)
    )?;
    for (stage, metric) in STAGES {
        let at = |quantile| f.samples.quantile(metric, quantile).map(|seconds| seconds * 1e3);
        if let (Some(middle), Some(high)) = (at(0.5), at(0.99)) {
            writeln!(out, "  {stage:<22}p50 {middle:.1} ms  p99 {high:.1} ms")?;
        }
    }
    writeln!(out, "echo records/s          {:.0}  {}", f.echo.per_second, milliseconds(&f.echo.latency))?;
    writeln!(out, "accepted / echo         {:.2}", accepted / f.echo.per_second)?;
    Ok(())
}

pub(crate) fn milliseconds(latency: &Histogram<u64>) -> String {
    let at = |quantile: f64| latency.value_at_quantile(quantile) as f64 / 1000.0;
    format!("p50 {:.1}  p99 {:.1}  max {:.1}", at(0.5), at(0.99), latency.max() as f64 / 1000.0)
}
