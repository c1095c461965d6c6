//! The ledger's state: an ordered map of bytes, its keys and values, and reading it.
//!
//! The state is derived: replaying the blocks from the genesis rebuilds it byte for byte.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

use crate::{
    codec::{DecodeError, Reader, Writer},
    hash::{Hash32, tagged},
    json::{from_canonical, to_canonical},
    member::MemberSet,
    operation::{OperationType, TenantStatus},
    outcome::{RejectionCode, Verdict},
    policy::Policy,
};

/// A storage fault while reading the state, or a value that cannot be read back.
#[derive(Debug, Error)]
pub enum StateError {
    /// The storage behind the state failed.
    #[error("state storage failed: {0}")]
    Storage(String),
    /// A stored value is damaged: an invariant is broken.
    #[error("state value under {0} is damaged")]
    Damaged(String),
}

/// Reads the state of one height.
pub trait StateRead {
    /// The value under `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError>;
}

impl StateRead for BTreeMap<Vec<u8>, Vec<u8>> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        Ok(BTreeMap::get(self, key).cloned())
    }
}

/// Changes of one block in key order; `None` removes.
pub type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Applies changes to an in-memory state.
pub fn apply_changes(state: &mut BTreeMap<Vec<u8>, Vec<u8>>, changes: Changes) {
    for (key, value) in changes {
        match value {
            Some(value) => state.insert(key, value),
            None => state.remove(&key),
        };
    }
}

/// Digest of the changes of a block, as the header has it.
#[must_use]
pub fn changes_digest(changes: &Changes) -> Hash32 {
    let mut writer = Writer::new();
    for (key, value) in changes {
        writer.bytes(key);
        match value {
            Some(value) => writer.u8(1).bytes(value),
            None => writer.u8(0),
        };
    }
    tagged("chopmark/changes/v1", &[writer.as_slice()])
}

/// Digest of a whole state, fed in key order: H(domain ‖ every length-prefixed key and value).
#[derive(Clone)]
pub struct StateDigest(sha3::Sha3_256);

impl Default for StateDigest {
    fn default() -> Self {
        let domain = Writer::with_domain("chopmark/state-digest/v1");
        Self(<sha3::Sha3_256 as sha3::Digest>::new_with_prefix(domain.as_slice()))
    }
}

impl StateDigest {
    /// Takes the next key and value, in ascending order of keys.
    pub fn update(&mut self, key: &[u8], value: &[u8]) {
        let mut writer = Writer::new();
        writer.bytes(key).bytes(value);
        sha3::Digest::update(&mut self.0, writer.as_slice());
    }

    /// The digest.
    #[must_use]
    pub fn finish(self) -> Hash32 {
        Hash32(sha3::Digest::finalize(self.0).into())
    }
}

/// Keys of the state.
pub mod key {
    use crate::hash::Hash32;

    /// Members in force.
    pub const MEMBERS: &[u8] = b"m";
    /// A member set that waits for its height.
    pub const PENDING_MEMBERS: &[u8] = b"n";
    /// Policy in force.
    pub const POLICY: &[u8] = b"p";
    /// Number of tenants so far.
    pub const TENANT_COUNT: &[u8] = b"u";

    fn prefixed(prefix: u8, parts: &[&[u8]]) -> Vec<u8> {
        let mut key = vec![prefix];
        for part in parts {
            key.extend_from_slice(part);
        }
        key
    }

    /// Outcome of an operation.
    #[must_use]
    pub fn operation(op: &Hash32) -> Vec<u8> {
        prefixed(b'o', &[&op.0])
    }

    /// A tenant's record.
    #[must_use]
    pub fn tenant(id: &str) -> Vec<u8> {
        prefixed(b't', &[id.as_bytes()])
    }

    /// A case's head.
    #[must_use]
    pub fn case(op: &Hash32) -> Vec<u8> {
        prefixed(b'c', &[&op.0])
    }

    /// A link of a case.
    #[must_use]
    pub fn case_link(case: &Hash32, evidence: &Hash32) -> Vec<u8> {
        prefixed(b'd', &[&case.0, &evidence.0])
    }
}

/// What the ledger remembers of an operation, for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperationRecord {
    /// Its type.
    pub kind: OperationType,
    /// Number of its tenant; 0 for governance, tenants count from 1.
    pub tenant: u64,
    /// Digest of the request that got this outcome.
    pub request: Hash32,
    /// Entry (its index) or rejection. The entry id is that of the entry at the index.
    pub result: Result<u64, RejectionCode>,
}

impl OperationRecord {
    /// The stored value.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(self.kind.number()).fixed(&self.request.0).u64(self.tenant);
        match self.result {
            Ok(index) => writer.u8(0).u64(index),
            Err(code) => writer.u8(1).u8(code.number()),
        };
        writer.finish()
    }

    /// Reads a stored value.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let kind = OperationType::from_number(reader.u8()?).ok_or(DecodeError::Range("operation type"))?;
        let request = Hash32(reader.array()?);
        let tenant = reader.u64()?;
        let result = match reader.u8()? {
            0 => Ok(reader.u64()?),
            1 => Err(RejectionCode::from_number(reader.u8()?).ok_or(DecodeError::Range("rejection code"))?),
            _ => return Err(DecodeError::Range("outcome tag")),
        };
        reader.end()?;
        Ok(Self { kind, tenant, request, result })
    }

    pub(crate) const fn result_of(verdict: &Verdict) -> Result<u64, RejectionCode> {
        match verdict {
            Verdict::Committed { index, .. } => Ok(*index),
            Verdict::Rejected(code) => Err(*code),
        }
    }
}

/// A tenant as the ledger knows it; canonical JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantRecord {
    /// The tenant's own key.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key: Option<Hash32>,
    /// Running number from 1.
    pub number: u64,
    /// Whether it may act.
    pub status: TenantStatus,
    /// Risk tier.
    pub tier: u8,
}

/// Head of a case; canonical JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseRecord {
    /// Entry id of the last link, or of the opening.
    pub head: Hash32,
    /// Number of links.
    pub links: u64,
    /// Number of its tenant.
    pub tenant: u64,
}

/// A member set on its way; canonical JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PendingMembers {
    /// Height from which it is in force.
    pub effective: u64,
    /// The set.
    pub members: MemberSet,
}

/// Reads and decodes a JSON value of the state.
pub fn read_json<T: DeserializeOwned + Serialize>(
    state: &(impl StateRead + ?Sized),
    key: &[u8],
) -> Result<Option<T>, StateError> {
    state.get(key)?.map(|bytes| from_canonical(&bytes).map_err(|_| StateError::Damaged(hex::encode(key)))).transpose()
}

/// The record of an operation, if it has ended.
pub fn operation_record(state: &(impl StateRead + ?Sized), op: &Hash32) -> Result<Option<OperationRecord>, StateError> {
    let key = key::operation(op);
    state
        .get(&key)?
        .map(|bytes| OperationRecord::decode(&bytes).map_err(|_| StateError::Damaged(hex::encode(&key))))
        .transpose()
}

/// The members in force.
pub fn members(state: &(impl StateRead + ?Sized)) -> Result<MemberSet, StateError> {
    read_json(state, key::MEMBERS)?.ok_or_else(|| StateError::Damaged("members".to_owned()))
}

/// The policy in force.
pub fn policy(state: &(impl StateRead + ?Sized)) -> Result<Policy, StateError> {
    read_json(state, key::POLICY)?.ok_or_else(|| StateError::Damaged("policy".to_owned()))
}

pub(crate) fn json_value<T: Serialize>(value: &T) -> Option<Vec<u8>> {
    Some(to_canonical(value))
}
