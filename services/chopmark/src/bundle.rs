//! The proof bundle, read: entry and receipt out of a zip that may be hostile.
//!
//! The policy inside is looked at only to tell the user when it differs from theirs. It is never
//! trusted: whoever made up the rest would have made up a policy to match.

use std::{fs::File, io::Read, path::Path};

use anyhow::Context as _;
use ledger_core::receipt::RECEIPT_BYTES_MAX;
use zip::ZipArchive;

use crate::output::shown;

/// Files in a zip that is looked into at all: ours have fewer than 16.
const FILES_MAX: usize = 256;
/// An entry has at most 16 KiB, a policy about as much: anything longer is refused by the verifier,
/// which has to see only that it is longer.
pub(crate) const PART_BYTES_MAX: usize = 1 << 20;

/// What of a bundle a verifier uses.
pub(crate) struct Bundle {
    pub(crate) entry: Vec<u8>,
    pub(crate) receipt: Vec<u8>,
    pub(crate) policy: Option<Vec<u8>>,
}

/// Reads a bundle. The outer error: the file cannot be read; the inner one: it is no bundle of
/// ours, and why.
pub(crate) fn read(path: &Path) -> anyhow::Result<Result<Bundle, String>> {
    let file = File::open(path).with_context(|| format!("cannot open the bundle {}", shown(path)))?;
    Ok(from_zip(file))
}

fn from_zip(file: File) -> Result<Bundle, String> {
    let mut zip = ZipArchive::new(file).map_err(|error| format!("it is not a zip file: {error}"))?;
    if zip.len() > FILES_MAX {
        return Err(format!("it holds {} files", zip.len()));
    }
    let entry = part(&mut zip, "entry.json", PART_BYTES_MAX)?;
    let receipt = part(&mut zip, "receipt.tlog-proof", RECEIPT_BYTES_MAX)?;
    let policy = part(&mut zip, "policy.txt", PART_BYTES_MAX).ok();
    Ok(Bundle { entry, receipt, policy })
}

/// One file of the zip, cut one byte after `max` so that the verifier sees that it is too long.
fn part(zip: &mut ZipArchive<File>, name: &str, max: usize) -> Result<Vec<u8>, String> {
    let file = zip.by_name(name).map_err(|error| format!("{name}: {error}"))?;
    let mut bytes = Vec::new();
    file.take(max as u64 + 1).read_to_end(&mut bytes).map_err(|error| format!("{name}: {error}"))?;
    Ok(bytes)
}
