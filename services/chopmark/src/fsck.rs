//! `chopmark fsck`: the node's offline check, for people and for scripts.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use chopmark_node::fsck::{Finding, Report, fsck};
use serde::Serialize;

use crate::{
    cli::{FsckArgs, guard_beside},
    output::{Out, plain, shown},
    place::{other_guard, other_members},
};

/// Exit status: something differs.
const UNSOUND: u8 = 1;
/// Exit status: nothing can be said.
pub(crate) const CANNOT_CHECK: u8 = 2;

/// Checks a data folder; errors mean that it could not be checked.
pub(crate) fn run(args: &FsckArgs, out: &mut Out) -> anyhow::Result<ExitCode> {
    let mut checked = Vec::new();
    for Ledger { node, guard } in ledgers(args)? {
        let report = fsck(&node, guard.as_deref()).with_context(|| format!("cannot check {}", shown(&node)))?;
        if !args.json {
            show(out, &node, guard.as_deref(), &report)?;
        }
        checked.push(ReportView::of(&report, &node, guard.as_deref()));
    }
    let findings = checked.iter().map(|report| report.findings.len()).sum();
    if args.json {
        let mut own = checked.remove(0);
        (own.sound, own.members) = (findings == 0, checked);
        out.json(&own)?;
    } else {
        conclude(out, findings)?;
    }
    out.flush()?;
    Ok(if findings == 0 { ExitCode::SUCCESS } else { ExitCode::from(UNSOUND) })
}

/// A node's data, and its guard where that is named or lies beside them.
struct Ledger {
    node: PathBuf,
    guard: Option<PathBuf>,
}

/// The folder's own node first, then those of the other members of an embedded network.
fn ledgers(args: &FsckArgs) -> anyhow::Result<Vec<Ledger>> {
    // A folder that was removed still answers to `.`, as an empty one.
    std::path::absolute(&args.data).context("the current folder is there no more")?;
    let guard = args.guard.clone().unwrap_or_else(|| guard_beside(&args.data));
    let given = |guard: PathBuf| Some(guard).filter(|guard| args.guard.is_some() || guard.exists());
    let mut ledgers = vec![Ledger { node: node_folder(&args.data)?, guard: given(guard.clone()) }];
    let others = other_members(&args.data).with_context(|| format!("list the members in {}", shown(&args.data)))?;
    for folder in others {
        let domain = folder.file_name().unwrap_or_default();
        ledgers.push(Ledger { node: node_folder(&folder)?, guard: given(other_guard(&guard, domain)) });
    }
    Ok(ledgers)
}

/// The node inside the data folder of `chopmark dev`, or the folder itself where it is a node's.
fn node_folder(data: &Path) -> anyhow::Result<PathBuf> {
    for folder in [data.join("node"), data.to_owned()] {
        let genesis = folder.join("genesis.json");
        if genesis.try_exists().with_context(|| format!("look for {}", shown(&genesis)))? {
            return Ok(folder);
        }
    }
    bail!("{} holds no ledger: there is no node/genesis.json in it", shown(data))
}

fn show(out: &mut Out, node: &Path, guard: Option<&Path>, report: &Report) -> anyhow::Result<()> {
    for finding in &report.findings {
        writeln!(out, "{}", plain(&finding.to_string()))?;
    }
    if guard.is_none() {
        writeln!(out, "its guard was not checked: there is none beside the data; name it with --guard")?;
    }
    let Report { height, size, checkpoints, tiles, .. } = report;
    writeln!(out, "{}: {height} blocks, {size} entries, {checkpoints} checkpoints, {tiles} full tiles", shown(node))?;
    Ok(())
}

fn conclude(out: &mut Out, findings: usize) -> anyhow::Result<()> {
    match findings {
        0 => writeln!(out, "sound")?,
        count => writeln!(
            out,
            "NOT SOUND: {count} findings. Keep a copy of everything before you change anything. Tiles, index and \
             state (node/log and node/derived, both) can be moved away: the next start derives them again from the \
             block log. The block log and the guard cannot: restore them"
        )?,
    }
    Ok(())
}

#[derive(Serialize)]
struct ReportView {
    node: String,
    /// This node, and those of `members`.
    sound: bool,
    height: u64,
    size: u64,
    checkpoints: u64,
    tiles: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    guard: Option<String>,
    findings: Vec<FindingView>,
    /// The other members of an embedded network.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    members: Vec<ReportView>,
}

#[derive(Serialize)]
struct FindingView {
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<PlaceView>,
    what: String,
}

#[derive(Serialize)]
struct PlaceView {
    kind: &'static str,
    number: u64,
}

impl ReportView {
    fn of(report: &Report, node: &Path, guard: Option<&Path>) -> Self {
        let view = |finding: &Finding| FindingView {
            file: shown(&finding.file),
            at: finding.at.map(|(kind, number)| PlaceView { kind, number }),
            what: finding.what.clone(),
        };
        Self {
            node: shown(node),
            sound: report.findings.is_empty(),
            height: report.height,
            size: report.size,
            checkpoints: report.checkpoints,
            tiles: report.tiles,
            guard: guard.map(shown),
            findings: report.findings.iter().map(view).collect(),
            members: Vec::new(),
        }
    }
}
