//! What the ledger adds to a record once it is committed: entry, block,
//! checkpoint.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::digest::Hash32;
use crate::time::Timestamp;

/// The entry that an operation ended as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EntryRef {
    /// SHA3-256 of the entry bytes: what users call the transaction hash.
    pub id: Hash32,
    /// The leaf's index in the log, from zero.
    #[schema(example = 4711)]
    pub index: u64,
    /// The entry, byte for byte.
    pub href: String,
}

/// The block that an operation was agreed in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BlockView {
    #[schema(example = 42)]
    pub height: u64,
    /// Block time, agreed by the members.
    pub time: Timestamp,
    /// SHA3-256 of the header.
    pub hash: Hash32,
}

/// A checkpoint with a quorum of cosignatures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckpointView {
    /// Tree size: entries covered, one past the last index.
    #[schema(example = 4712)]
    pub size: u64,
    /// Root of the tree of that size (RFC 9162, SHA-256).
    pub root: Hash32,
    /// What the record existed no later than: the cosignature time that at least
    /// one honest member vouches for.
    pub time: Timestamp,
    /// Key names of the members that cosigned.
    pub cosigners: Vec<String>,
}
