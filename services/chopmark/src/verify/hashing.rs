//! All digests of a file in one pass, with a progress bar where somebody is looking.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    time::Duration,
};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use ledger_core::{digests::Digester, verify::FileFacts};

use super::is_stdin;
use crate::output::shown;

/// Large enough that system calls cost nothing, small enough to stay in the cache.
const CHUNK_BYTES: usize = 256 * 1024;
/// A file of this size takes about a second: below it a bar would only flicker.
const BAR_BYTES_MIN: u64 = 64 << 20;

/// Digests and size of a file, or of standard input for `-`.
pub(crate) fn file_facts(file: &Path) -> anyhow::Result<FileFacts> {
    let context = || format!("cannot read {}", shown(file));
    if is_stdin(file) {
        let bar = bar(ProgressBar::new_spinner(), "standard input")?;
        return digest(io::stdin().lock(), &bar).context("cannot read standard input");
    }
    let opened = File::open(file).with_context(context)?;
    let metadata = opened.metadata().with_context(context)?;
    if metadata.is_dir() {
        anyhow::bail!("{} is a folder; name the files in it", shown(file));
    }
    let bar = if metadata.len() >= BAR_BYTES_MIN {
        bar(ProgressBar::new(metadata.len()), &shown(file))?
    } else {
        ProgressBar::hidden()
    };
    digest(opened, &bar).with_context(context)
}

/// indicatif draws on standard error, and only where that is a terminal.
fn bar(bar: ProgressBar, name: &str) -> anyhow::Result<ProgressBar> {
    let template = if bar.length().is_some() {
        "{prefix}  {wide_bar} {bytes}/{total_bytes}  {bytes_per_sec}  {eta}"
    } else {
        "{prefix}  {bytes}  {bytes_per_sec}"
    };
    bar.set_style(ProgressStyle::with_template(template).context("progress bar")?);
    bar.set_prefix(name.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    Ok(bar)
}

fn digest(mut from: impl Read, bar: &ProgressBar) -> io::Result<FileFacts> {
    let mut digester = Digester::default();
    let mut chunk = vec![0; CHUNK_BYTES];
    let read = loop {
        match from.read(&mut chunk) {
            Ok(0) => break Ok(()),
            Ok(count) => {
                digester.update(&chunk[..count]);
                bar.inc(count as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    bar.finish_and_clear();
    read?;
    let (digests, size) = digester.finish();
    Ok(FileFacts { digests, size })
}
