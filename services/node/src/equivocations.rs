//! The equivocations that a node has seen, kept for good.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use ledger_core::{
    Hash32,
    equivocation::{Equivocation, EquivocationKind},
};

use crate::{
    NodeError,
    disk::{self, Extent},
};

/// Kept of one key: more proves nothing more, and must not fill the disk.
const OF_KEY_MAX: usize = 100;

/// The file of a node's equivocations, one JSON document on each line.
#[derive(Debug)]
pub(crate) struct EquivocationFile {
    path: PathBuf,
    known: Vec<(EquivocationKind, u64, Hash32)>,
}

impl EquivocationFile {
    pub(crate) fn open(path: PathBuf) -> Result<Self, NodeError> {
        let known = read(&path)?.into_iter().map(|found| (found.kind, found.height, found.key)).collect();
        Ok(Self { path, known })
    }

    /// Keeps what is new.
    pub(crate) fn add(&mut self, found: &Equivocation) -> Result<(), NodeError> {
        let key = (found.kind, found.height, found.key);
        let of_member = self.known.iter().filter(|(_, _, known)| *known == found.key).count();
        if self.known.contains(&key) || of_member >= OF_KEY_MAX {
            return Ok(());
        }
        self.known.push(key);
        tracing::error!(member = found.member, kind = ?found.kind, height = found.height, "a member signed two histories");
        metrics::counter!("chopmark_node_equivocations_total", "member" => found.member.clone()).increment(1);
        let line = serde_json::to_string(found).map_err(|error| NodeError::Damaged(error.to_string()))?;
        let write = || {
            let mut file = OpenOptions::new().create(true).read(true).append(true).open(&self.path)?;
            // A line that a crash tore is closed, so that it spoils nothing but itself.
            let mut last = [b'\n'];
            if let Some(end) = file.metadata()?.len().checked_sub(1) {
                file.read_exact_at(&mut last, end)?;
            }
            let begin = if last == [b'\n'] { "" } else { "\n" };
            file.write_all(format!("{begin}{line}\n").as_bytes())?;
            disk::sync(&file, &self.path, Extent::All)?;
            let folder = self.path.parent().unwrap_or(Path::new("."));
            disk::sync(&File::open(folder)?, folder, Extent::All)
        };
        write().map_err(NodeError::io("write equivocations", &self.path))
    }
}

/// Everything in such a file; none if there is no file. A line that a crash tore is left out.
pub fn read(path: &Path) -> Result<Vec<Equivocation>, NodeError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(NodeError::io("read equivocations", path)(error)),
    }
}
