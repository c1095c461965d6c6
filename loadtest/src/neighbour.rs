//! What one tenant's flood does to another's latency: the same load without and with it, in turn.

use std::io::Write as _;

use hdrhistogram::Histogram;

use crate::{
    push::{Plan, histogram, push},
    report::milliseconds,
    target::Target,
};

/// Phases of each kind. They take turns, so that what drifts on the machine is in both.
const ROUNDS: usize = 3;

/// Measures `plan` at `target`, alone and beside `other` at `rate` requests a second, and prints both.
pub(crate) async fn measure(target: &Target, plan: &Plan, other: &Target, rate: f64) -> anyhow::Result<()> {
    let (mut alone, mut beside) = (histogram()?, histogram()?);
    let (mut accepted, mut refused) = (0, 0);
    let flood = Plan { rate, sample: 0, ..plan.clone() };
    for _ in 0..ROUNDS {
        alone.add(&phase(target, plan).await?)?;
        let ((measured, ()), flooded) =
            tokio::try_join!(async { anyhow::Ok((phase(target, plan).await?, ())) }, async {
                anyhow::Ok(push(other, &flood).await?.0)
            })?;
        beside.add(&measured)?;
        accepted += flooded.accepted;
        refused += flooded.refused;
    }
    let ratio = beside.value_at_quantile(0.99) as f64 / alone.value_at_quantile(0.99) as f64;
    let mut out = std::io::stdout().lock();
    writeln!(out, "alone ms                {}", milliseconds(&alone))?;
    writeln!(out, "beside the other ms     {}", milliseconds(&beside))?;
    writeln!(out, "p99 beside / alone      {ratio:.2}")?;
    writeln!(out, "the other, records      {accepted} accepted, {refused} refused with 429 or 503")?;
    Ok(())
}

/// Accepted latencies of one phase, whose backlog is gone before the next.
async fn phase(target: &Target, plan: &Plan) -> anyhow::Result<Histogram<u64>> {
    let (mut pushed, unverified) = push(target, plan).await?;
    unverified.finish(&mut pushed).await?;
    anyhow::ensure!(pushed.refused == 0, "the measured tenant was refused {} times", pushed.refused);
    Ok(pushed.accept)
}
