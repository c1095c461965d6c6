//! Why a loop stops. What can pass is tried again inside and never comes out here.

use chopmark_domain::ports::PortError;
use ledger_core::{merkle::ProofError, verify::Verdict, vote::CertificateError};
use thiserror::Error;

/// Why a loop stopped. The owner starts a new one, which reads everything anew from durable
/// state; a loop never carries on.
#[derive(Debug, Error)]
pub enum CommitterError {
    /// A port is broken.
    #[error(transparent)]
    Port(#[from] PortError),
    /// What the ledger showed does not hold. Nothing of it was projected.
    #[error("block {height} cannot be trusted: {check}")]
    Check {
        /// Height of the block in question.
        height: u64,
        /// The check that failed.
        #[source]
        check: CheckError,
    },
    /// A worker task panicked.
    #[error("a worker of the committer panicked")]
    Worker,
}

/// The checks that a block and its checkpoint have to pass.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum CheckError {
    /// Not the height that follows.
    #[error("height {0} came instead")]
    Height(u64),
    /// Its previous header is not the one projected last.
    #[error("it does not follow the previous header")]
    Previous,
    /// It belongs to another network.
    #[error("it names another chain")]
    Chain,
    /// Block time runs backwards.
    #[error("block time runs backwards")]
    Time,
    /// It names other members than those in force, or a next set that nobody decided.
    #[error("it names members that the ledger's rules do not")]
    Members,
    /// The members of a height could not be found in the ledger.
    #[error("the members in force cannot be found in the ledger")]
    MembersUnknown,
    /// The commit certificate does not prove the decision.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The batch is not the one that the header names, or cannot be read.
    #[error("batch and header do not belong together")]
    Batch,
    /// The verdicts are not those that the header names.
    #[error("verdicts do not lead to the outcomes root")]
    Outcomes,
    /// An entry is not the one that its verdict names.
    #[error("entry {0} is not the one decided")]
    Entry(u64),
    /// There are more or fewer entries than verdicts and system entries.
    #[error("it has another number of entries than it decided")]
    Entries,
    /// The entries do not lead to the header's root and tree size.
    #[error("entries do not lead to the root")]
    Root,
    /// The checkpoint note does not hold under the policy of the members in force.
    #[error("checkpoint does not verify: {0}")]
    Checkpoint(Verdict),
    /// The checkpoint note says something else than the ledger's status.
    #[error("checkpoint and status differ")]
    Status,
    /// The checkpoint's root is not the header's.
    #[error("checkpoint has another root")]
    CheckpointRoot,
    /// The tree after the block is no prefix of the checkpoint's.
    #[error("block is not covered by the checkpoint: {0}")]
    Consistency(ProofError),
    /// The stored tiles do not lead to the root of the last projected block.
    #[error("tiles do not lead to the root")]
    Tiles,
    /// The database's cursor stands on another block than the ledger's.
    #[error("the database's cursor is on another block")]
    Cursor,
}

impl CheckError {
    /// Its name in metrics and logs.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Height(_) => "height",
            Self::Previous => "previous",
            Self::Chain => "chain",
            Self::Time => "time",
            Self::Members => "members",
            Self::MembersUnknown => "members_unknown",
            Self::Certificate(_) => "certificate",
            Self::Batch => "batch",
            Self::Outcomes => "outcomes",
            Self::Entry(_) => "entry",
            Self::Entries => "entries",
            Self::Root => "root",
            Self::Checkpoint(_) => "checkpoint",
            Self::Status => "status",
            Self::CheckpointRoot => "checkpoint_root",
            Self::Consistency(_) => "consistency",
            Self::Tiles => "tiles",
            Self::Cursor => "cursor",
        }
    }
}

impl CheckError {
    pub(crate) const fn at(self, height: u64) -> CommitterError {
        CommitterError::Check { height, check: self }
    }
}

impl CommitterError {
    /// Its name in metrics and logs.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Port(_) => "port",
            Self::Check { check, .. } => check.label(),
            Self::Worker => "worker",
        }
    }
}
