//! What anyone may look through without a key: blocks, what they decided, and a
//! search. Refuses what only an owner may know, as the ledger itself does.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::digest::{Algorithm, Hash32};
use crate::operation::OperationState;
use crate::time::Timestamp;

/// One block of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BlockSummary {
    #[schema(example = 42)]
    pub height: u64,
    /// SHA3-256 of the header.
    pub hash: Hash32,
    /// Block time, agreed by the members.
    pub time: Timestamp,
    /// Size of the log after this block.
    #[schema(example = 4712)]
    pub tree_size: u64,
    /// Entries that it added to the log.
    #[schema(example = 17)]
    pub entries: u64,
    /// Operations that got their outcome in it.
    #[schema(example = 18)]
    pub operations: u64,
    /// Those that became an entry.
    #[schema(example = 17)]
    pub committed: u64,
    /// Those that were rejected.
    #[schema(example = 1)]
    pub rejected: u64,
}

/// One block with everything that it decided, and the signatures that decided it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct BlockDetail {
    #[schema(example = 42)]
    pub height: u64,
    /// SHA3-256 of the header.
    pub hash: Hash32,
    /// Block time, agreed by the members.
    pub time: Timestamp,
    /// Size of the log after this block.
    #[schema(example = 4712)]
    pub tree_size: u64,
    /// Entries that it added to the log.
    #[schema(example = 17)]
    pub entries: u64,
    /// Operations that got their outcome in it.
    #[schema(example = 18)]
    pub operations: u64,
    /// Those that became an entry.
    #[schema(example = 17)]
    pub committed: u64,
    /// Those that were rejected.
    #[schema(example = 1)]
    pub rejected: u64,
    /// Hash of the member set in force.
    pub members: Hash32,
    /// The header, byte for byte as it was hashed.
    #[schema(value_type = Object)]
    pub header: Box<RawValue>,
    /// The commit certificate: a quorum's signatures of the header's hash.
    #[schema(value_type = Object)]
    pub certificate: Box<RawValue>,
    /// In the order of the block; the header's `outcomes` is the root over them.
    pub outcomes: Vec<OutcomeView>,
}

/// How one operation ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutcomeView {
    /// Operation id on the ledger: a keyed hash, which says nothing of its tenant or key.
    pub op: Hash32,
    /// Keyed digest of the request that got this outcome.
    pub request: Hash32,
    /// `committed` or `rejected`.
    pub state: OperationState,
    /// Where the entry stands in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 4711)]
    pub index: Option<u64>,
    /// SHA3-256 of the entry bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub entry_id: Option<Hash32>,
    /// Why it was rejected; `/errors/<code>` explains it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "evidence_unknown")]
    pub code: Option<String>,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SearchView {
    /// What was asked for.
    #[schema(example = "4711")]
    pub query: String,
    pub hits: Vec<SearchHit>,
}

/// One thing that a search found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SearchHit {
    pub kind: HitKind,
    /// Height of a block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 42)]
    pub height: Option<u64>,
    /// Leaf index of an entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 4711)]
    pub index: Option<u64>,
    /// Algorithm of a digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub algorithm: Option<Algorithm>,
    /// The digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub digest: Option<Hash32>,
    /// Domain of a member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "court.example")]
    pub name: Option<String>,
    /// Where to read it.
    #[schema(example = "/v1/blocks/42")]
    pub href: String,
}

/// What kind of thing a search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HitKind {
    Block,
    Entry,
    /// A digest that at least one record has.
    Digest,
    Member,
}
