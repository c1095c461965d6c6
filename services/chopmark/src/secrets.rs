//! Secrets of a deployment as files: 32 random bytes as hexadecimal text, mode 0600.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use anyhow::{Context as _, bail};
use chopmark_domain::ports::Random;
use zeroize::Zeroizing;

/// Draws a 32-byte secret and stores it, unless there is one.
pub(crate) fn draw(path: &Path, random: &dyn Random) -> anyhow::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let mut secret = Zeroizing::new([0_u8; 32]);
    random.fill(secret.as_mut())?;
    write(path, &Zeroizing::new(format!("{}\n", hex::encode(secret.as_ref()))))
}

/// Reads a 32-byte secret. One that is lost is never replaced by another: records sealed and ids
/// issued under it would be lost too, and nobody would be told.
pub(crate) fn load(path: &Path) -> anyhow::Result<Zeroizing<[u8; 32]>> {
    if !path.exists() {
        bail!("{} is missing: restore it from a backup; what was made with it needs this very secret", path.display());
    }
    let text = read(path)?;
    let mut secret = Zeroizing::new([0_u8; 32]);
    hex::decode_to_slice(text.trim(), secret.as_mut())
        .with_context(|| format!("{} must hold 64 hexadecimal digits", path.display()))?;
    Ok(secret)
}

/// Reads a secret's text; a file that others can read is refused.
pub(crate) fn read(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let metadata = fs::metadata(path).with_context(|| format!("read {}", path.display()))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        bail!("{} can be read by others: run `chmod 600` on it, and replace it if anybody had access", path.display());
    }
    Ok(Zeroizing::new(fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?))
}

/// Writes a file that only its owner reads, atomically: after a crash it is there whole or not
/// at all.
pub(crate) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let temporary = path.with_extension("tmp");
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::File::open(folder)?.sync_all()
    };
    write().with_context(|| format!("write {}", path.display()))
}
