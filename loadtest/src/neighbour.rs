//! What one tenant's flood does to another's latency: the same load without and with it, in turn.

use std::io::Write as _;

use anyhow::ensure;

use crate::{
    push::{Plan, Pushed, histogram, push},
    report::milliseconds,
    target::Target,
};

/// Phases of each kind. They take turns, so that what drifts on the machine is in both.
const ROUNDS: usize = 3;

/// Least share of the flood's rate that has to be reached; with less, nothing was shown.
const RATE_REACHED_MIN: f64 = 0.9;

/// Measures `plan` at `target`, alone and beside `other` at `rate` requests a second, and prints both.
pub(crate) async fn measure(target: &Target, plan: &Plan, other: &Target, rate: f64) -> anyhow::Result<()> {
    let (mut alone, mut beside) = (histogram()?, histogram()?);
    let (mut accepted, mut refused, mut spent) = (0, 0, 0.0);
    let flood = Plan { rate, records: 1, sample: 0, insists: true, ..plan.clone() };
    let mut size = target.size().await?;
    let mut out = std::io::stdout().lock();
    for round in 1..=ROUNDS {
        let first = phase(target, plan).await?;
        alone.add(&first.accept)?;
        // What is under way still would be in the next phase's way.
        size += first.accepted;
        target.drained(size).await?;
        let (second, flooded) = tokio::try_join!(phase(target, plan), async { Ok(push(other, &flood).await?.0) })?;
        beside.add(&second.accept)?;
        size += second.accepted + flooded.accepted;
        target.drained(size).await?;
        accepted += flooded.accepted;
        refused += flooded.refused;
        spent += flooded.elapsed.as_secs_f64();
        writeln!(out, "round {round}, alone ms       {}", milliseconds(&first.accept))?;
        writeln!(out, "round {round}, beside ms      {}", milliseconds(&second.accept))?;
    }
    let reached = (accepted + refused) as f64 / spent;
    ensure!(reached >= RATE_REACHED_MIN * rate, "the flood was to have {rate} requests a second and had {reached:.0}");
    let ratio = beside.value_at_quantile(0.99) as f64 / alone.value_at_quantile(0.99) as f64;
    writeln!(out, "alone ms                {}", milliseconds(&alone))?;
    writeln!(out, "beside the flood ms     {}", milliseconds(&beside))?;
    writeln!(out, "p99 beside / alone      {ratio:.2}")?;
    writeln!(
        out,
        "the flood               {reached:.0} requests/s: {accepted} accepted, {refused} refused with 429 or 503"
    )?;
    Ok(())
}

/// One phase of the measured load.
async fn phase(target: &Target, plan: &Plan) -> anyhow::Result<Pushed> {
    let (mut pushed, unverified) = push(target, plan).await?;
    unverified.finish(&mut pushed).await?;
    ensure!(pushed.refused == 0, "the measured tenant was refused {} times", pushed.refused);
    Ok(pushed)
}
