//! What can go wrong in a node, by what its operator can do about it.

use std::{io, path::PathBuf};

use chopmark_consensus::Failure;
use ledger_core::{execute::BatchError, genesis::GenesisError, state::StateError};
use thiserror::Error;

use crate::damage::Part;

/// Why a node does not start, or stops.
#[derive(Debug, Error)]
pub enum NodeError {
    /// A file could not be read or written.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The block log or the checkpoint log.
    #[error(transparent)]
    Log(#[from] segment_log::Error),
    /// The store of index and state.
    #[error("index and state, in the folder derived of the node's data: {0}")]
    Store(#[from] fjall::Error),
    /// The state could not be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The genesis file is not one.
    #[error("genesis: {0}")]
    Genesis(#[from] GenesisError),
    /// A key file is missing, readable by others, or no key.
    #[error("key {}: {reason}", path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The guard refuses: starting could sign a second history.
    #[error("guard {}: {reason}", path.display())]
    Guard {
        /// Which guard.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// Another process has the data open.
    #[error("{} is in use by another process: stop that one first", .0.display())]
    InUse(PathBuf),
    /// Stored data contradicts itself or what was signed. The node does not sign or serve.
    #[error("damaged: {0}")]
    Damaged(String),
    /// A damaged part of the stored data, which the node heals by itself. It is not served until then.
    #[error("damaged: {reason}")]
    DamagedPart {
        /// Which part.
        part: Part,
        /// Where it lies and what is wrong.
        reason: String,
    },
    /// The node's own proposal failed its own re-execution.
    #[error("height {height}: re-execution gave another header ({field} differs)")]
    Diverged {
        /// Height of the block.
        height: u64,
        /// First field that differs.
        field: &'static str,
    },
    /// The consensus engine does not start, or has stopped.
    #[error("{0}")]
    Engine(Failure),
    /// A new network on which no quorum has signed anything yet.
    #[error("nothing is published yet: a quorum of the members has to sign first")]
    NothingPublished,
    /// The node was told to stop before it had started.
    #[error("it was told to stop before it had started")]
    Stopped,
    /// A batch that this node itself cut cannot be executed.
    #[error("own batch: {0}")]
    Batch(#[from] BatchError),
}

impl From<Failure> for NodeError {
    fn from(failure: Failure) -> Self {
        match failure.downcast() {
            Ok(error) => *error,
            Err(failure) => Self::Engine(failure),
        }
    }
}

impl NodeError {
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    /// Whether the cause is a full disk, which room on the disk and a restart mend.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => source.kind() == io::ErrorKind::StorageFull,
            Self::Log(error) => matches!(error, segment_log::Error::DiskFull { .. }),
            Self::Store(fjall::Error::Io(source)) => source.kind() == io::ErrorKind::StorageFull,
            _ => false,
        }
    }
}
