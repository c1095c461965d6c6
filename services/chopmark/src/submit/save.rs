//! Saving proofs: whole or not at all, and never over a different one.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use anyhow::Context as _;

use crate::{output::shown, verify::beside};

/// Refuses where `path` holds something other than `bytes`.
pub(super) fn refuse_overwriting(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    match fs::read(path) {
        Ok(there) if there == bytes => Ok(()),
        Ok(_) => {
            anyhow::bail!("{} is there already and differs; move it away, or overwrite it with --force", shown(path))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", shown(path))),
    }
}

/// Writes a file under a temporary name, makes it durable, and gives it its name. A file that is
/// there with the same bytes is left alone.
pub(super) fn save(path: &Path, bytes: &[u8], private: bool) -> anyhow::Result<()> {
    if fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let temporary = beside(path, &format!(".tmp-{}", std::process::id()));
    let written = write(&temporary, bytes, private).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.with_context(|| format!("cannot write {}", shown(path)))
}

fn write(path: &Path, bytes: &[u8], private: bool) -> io::Result<()> {
    let mode = if private { 0o600 } else { 0o666 };
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
