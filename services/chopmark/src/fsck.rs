//! `chopmark fsck`: the node's offline check, for people and for scripts.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use chopmark_node::fsck::{Finding, Report, fsck};
use serde::Serialize;

use crate::{
    cli::{FsckArgs, guard_beside},
    output::{Out, plain, shown},
};

/// Exit status: something differs.
const UNSOUND: u8 = 1;
/// Exit status: nothing can be said.
pub(crate) const CANNOT_CHECK: u8 = 2;

/// Checks a data folder; errors mean that it could not be checked.
pub(crate) fn run(args: &FsckArgs, out: &mut Out) -> anyhow::Result<ExitCode> {
    let node = node_folder(&args.data)?;
    let guard = args.guard.clone().or_else(|| Some(guard_beside(&args.data)).filter(|guard| guard.exists()));
    let report = fsck(&node, guard.as_deref()).with_context(|| format!("cannot check {}", shown(&node)))?;
    if args.json {
        out.json(&ReportView::of(&report, guard.as_deref()))?;
    } else {
        show(out, &node, guard.as_deref(), &report)?;
    }
    out.flush()?;
    Ok(if report.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(UNSOUND) })
}

/// The node inside the data folder of `chopmark dev`, or the folder itself where it is a node's.
fn node_folder(data: &Path) -> anyhow::Result<PathBuf> {
    [data.join("node"), data.to_owned()]
        .into_iter()
        .find(|folder| folder.join("genesis.json").exists())
        .with_context(|| format!("{} holds no ledger: there is no node/genesis.json in it", shown(data)))
}

fn show(out: &mut Out, node: &Path, guard: Option<&Path>, report: &Report) -> anyhow::Result<()> {
    for finding in &report.findings {
        writeln!(out, "{}", plain(&finding.to_string()))?;
    }
    if guard.is_none() {
        writeln!(out, "the guard was not checked: there is none beside the data; name it with --guard")?;
    }
    let Report { height, size, checkpoints, tiles, findings } = report;
    writeln!(out, "{}: {height} blocks, {size} entries, {checkpoints} checkpoints, {tiles} full tiles", shown(node))?;
    match findings.len() {
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
    sound: bool,
    height: u64,
    size: u64,
    checkpoints: u64,
    tiles: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    guard: Option<String>,
    findings: Vec<FindingView>,
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
    fn of(report: &Report, guard: Option<&Path>) -> Self {
        let view = |finding: &Finding| FindingView {
            file: shown(&finding.file),
            at: finding.at.map(|(kind, number)| PlaceView { kind, number }),
            what: finding.what.clone(),
        };
        Self {
            sound: report.findings.is_empty(),
            height: report.height,
            size: report.size,
            checkpoints: report.checkpoints,
            tiles: report.tiles,
            guard: guard.map(shown),
            findings: report.findings.iter().map(view).collect(),
        }
    }
}
