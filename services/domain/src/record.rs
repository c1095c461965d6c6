//! Rows of the read model, free of any database.

use ledger_core::{hash::Hash32, operation::OperationType, outcome::RejectionCode};

use crate::id::ResourceKey;

/// State of an operation: the only ones shown to users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationState {
    /// Durable in the queue.
    Accepted,
    /// In a block under a quorum checkpoint.
    Committed(CommittedAt),
    /// Refused, for ever.
    Rejected(RejectedAt),
}

/// Where a committed operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommittedAt {
    /// Leaf index.
    pub index: u64,
    /// Entry id.
    pub entry: Hash32,
    /// Block height.
    pub height: u64,
    /// Block time, Unix ms.
    pub time: u64,
}

/// Where an operation was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RejectedAt {
    /// Why.
    pub code: RejectionCode,
    /// Block height.
    pub height: u64,
    /// Block time, Unix ms.
    pub time: u64,
}

/// An operation as read from the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationRow {
    /// Stable position for paging; ascending in the order in which writers took it, which with
    /// several writers need not be that in which rows become visible.
    pub sequence: u64,
    /// Key in ids.
    pub key: ResourceKey,
    /// Operation id.
    pub op: Hash32,
    /// Tenant.
    pub tenant: String,
    /// Type.
    pub kind: OperationType,
    /// Keyed digest of the request that holds the id.
    pub request: Hash32,
    /// Hash of the operation bytes that hold the id.
    pub operation_hash: Hash32,
    /// When a committer first saw it, Unix ms.
    pub accepted_at: u64,
    /// State.
    pub state: OperationState,
    /// Whether another request came under the same idempotency key.
    pub conflicted: bool,
}

/// A private part as stored: sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedPrivate {
    /// Sealed bytes.
    pub sealed: Vec<u8>,
    /// Keyed blind index of the external id.
    pub external_index: Option<Hash32>,
}

/// An operation that a committer took from the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedOperation {
    /// Network.
    pub network: String,
    /// Tenant.
    pub tenant: String,
    /// Key in ids.
    pub key: ResourceKey,
    /// Operation id.
    pub op: Hash32,
    /// Type.
    pub kind: OperationType,
    /// Keyed digest of the request.
    pub request: Hash32,
    /// Hash of the operation bytes.
    pub operation_hash: Hash32,
    /// Now, Unix ms.
    pub accepted_at: u64,
    /// Private part of this attempt.
    pub private: Option<SealedPrivate>,
}

/// Which operations to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListQuery {
    /// Network.
    pub network: String,
    /// Tenant.
    pub tenant: String,
    /// Type.
    pub kind: OperationType,
    /// Only rows with a smaller sequence.
    pub before: Option<u64>,
    /// At most this many.
    pub limit: u32,
    /// Only this state: `accepted`, `committed` or `rejected`.
    pub state: Option<StateFilter>,
    /// Only accepted at or after, Unix ms.
    pub from: Option<u64>,
    /// Only accepted before, Unix ms.
    pub to: Option<u64>,
    /// Only with this blind index of the external id.
    pub external_index: Option<Hash32>,
    /// Only these leaf indexes (from a look-up by digest); at most 1000.
    pub indexes: Option<Vec<u64>>,
}

/// A state to filter by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateFilter {
    /// Accepted.
    Accepted,
    /// Committed.
    Committed,
    /// Rejected.
    Rejected,
}

/// A link of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseLink {
    /// Tenant of the case and of the link.
    pub tenant: String,
    /// Key of the case.
    pub case: ResourceKey,
    /// Position from 1.
    pub position: u64,
    /// Key of the evidence.
    pub evidence: ResourceKey,
    /// Leaf index of the link's own entry.
    pub index: u64,
    /// Entry id of the link.
    pub entry: Hash32,
    /// Entry id of the previous link or of the opening.
    pub previous: Hash32,
    /// Block time, Unix ms.
    pub time: u64,
}

/// An operation's outcome as projected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectedOperation {
    /// Key in ids.
    pub key: ResourceKey,
    /// Operation id.
    pub op: Hash32,
    /// Tenant; empty for governance.
    pub tenant: String,
    /// Type.
    pub kind: OperationType,
    /// Request that got the outcome.
    pub request: Hash32,
    /// Hash of the operation bytes that got it.
    pub operation_hash: Hash32,
    /// Committed or rejected.
    pub state: OperationState,
}

/// One block, ready to be written to the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectedBlock {
    /// Network.
    pub network: String,
    /// Height; the stored cursor must be at `height - 1` (or absent for the first).
    pub height: u64,
    /// Header hash.
    pub hash: Hash32,
    /// Block time, Unix ms.
    pub time: u64,
    /// Tree size after the block.
    pub tree_size: u64,
    /// Its operations.
    pub operations: Vec<ProjectedOperation>,
    /// Its case links.
    pub links: Vec<CaseLink>,
}

/// The last projected block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProjectionCursor {
    /// Height.
    pub height: u64,
    /// Header hash.
    pub hash: Hash32,
    /// Tree size after it.
    pub tree_size: u64,
}
