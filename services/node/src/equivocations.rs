//! The equivocations that a node has seen, kept for good.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
};

use ledger_core::{
    Hash32,
    equivocation::{Equivocation, EquivocationKind},
};

use crate::NodeError;

/// Beyond this the file is full: a member that signs everything twice must not fill the disk.
const FILE_BYTES_MAX: u64 = 16 << 20;

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
        if self.known.contains(&key) {
            return Ok(());
        }
        tracing::error!(member = found.member, kind = ?found.kind, height = found.height, "a member signed two histories");
        metrics::counter!("chopmark_node_equivocations_total", "member" => found.member.clone()).increment(1);
        let failed = |what| NodeError::io(what, &self.path);
        let mut file =
            OpenOptions::new().create(true).append(true).open(&self.path).map_err(failed("open equivocations"))?;
        if file.metadata().map_err(failed("read equivocations"))?.len() > FILE_BYTES_MAX {
            return Ok(());
        }
        let line = serde_json::to_string(found).map_err(|error| NodeError::Damaged(error.to_string()))?;
        file.write_all(format!("{line}\n").as_bytes())
            .and_then(|()| file.sync_data())
            .map_err(failed("write equivocations"))?;
        self.known.push(key);
        Ok(())
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
