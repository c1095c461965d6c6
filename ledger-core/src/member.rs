//! Members of the consortium, their keys, and the quorum arithmetic.

use std::collections::BTreeSet;

use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    hash::{Hash32, tagged},
    json::to_canonical,
    note::{KeyType, VerifierKey},
};

/// More members than the signature lines of a checkpoint could hold.
pub const MEMBERS_MAX: usize = 31;
/// Submitter keys a member may list: enough to rotate on several machines.
pub const SUBMITTER_KEYS_MAX: usize = 16;
/// Longest domain name (RFC 1035).
const DOMAIN_BYTES_MAX: usize = 253;

/// Votes, cosignatures and approvals that decide among `n` members: floor(2n/3) + 1.
#[must_use]
pub const fn quorum(n: usize) -> usize {
    2 * n / 3 + 1
}

/// Faulty members that `n` members tolerate: floor((n - 1)/3).
#[must_use]
pub const fn faults_tolerated(n: usize) -> usize {
    n.saturating_sub(1) / 3
}

/// One organisation of the consortium: its domain and its public keys (Ed25519).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Cosigns checkpoints as `<domain>/cosigner`.
    pub cosigner_key: Hash32,
    /// Lower-case DNS name; unique in the set.
    pub domain: String,
    /// Approves `members.set`, `policy.set`, `protocol.set` and wider tenants.
    pub governance_key: Hash32,
    /// Signs the log line of checkpoints under the log's origin.
    pub log_key: Hash32,
    /// Sign submitted batches of operations.
    pub submitter_keys: Vec<Hash32>,
    /// Votes on blocks.
    pub validator_key: Hash32,
}

/// A validated member set, sorted by domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct MemberSet(Vec<Member>);

/// Why a member set is refused.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum MemberSetError {
    /// None, or more than [`MEMBERS_MAX`].
    #[error("a member set has 1 to {MEMBERS_MAX} members")]
    Count,
    /// Not a lower-case DNS name with a dot.
    #[error("member domain is not a lower-case DNS name")]
    Domain,
    /// Not strictly ascending by domain.
    #[error("members are not in ascending order of domain, each once")]
    Order,
    /// A key is not a point of the curve, or stands in two places.
    #[error("a key of member {0} is not an Ed25519 key or is used twice")]
    Key(String),
    /// Too many submitter keys.
    #[error("member {0} lists more than {SUBMITTER_KEYS_MAX} submitter keys")]
    Submitters(String),
}

impl Member {
    /// Name of its cosigner key.
    #[must_use]
    pub fn cosigner_name(&self) -> String {
        format!("{}/cosigner", self.domain)
    }

    /// Its cosigner key as a note verifier.
    ///
    /// # Panics
    /// Never for a member of a [`MemberSet`].
    #[must_use]
    pub fn cosigner_verifier(&self) -> VerifierKey {
        note_key(&self.cosigner_name(), KeyType::Cosignature, &self.cosigner_key)
    }

    /// Its log key as a note verifier under `origin`.
    ///
    /// # Panics
    /// Never for a member of a [`MemberSet`] and the origin of a genesis.
    #[must_use]
    pub fn log_verifier(&self, origin: &str) -> VerifierKey {
        note_key(origin, KeyType::Ed25519, &self.log_key)
    }

    fn keys(&self) -> impl Iterator<Item = &Hash32> {
        [&self.cosigner_key, &self.governance_key, &self.log_key, &self.validator_key]
            .into_iter()
            .chain(&self.submitter_keys)
    }
}

fn note_key(name: &str, key_type: KeyType, key: &Hash32) -> VerifierKey {
    let key = VerifyingKey::from_bytes(key.as_bytes()).expect("a validated member key");
    VerifierKey::new(name, key_type, key).expect("a validated key name")
}

/// Whether `name` is a lower-case DNS name of at least two labels.
#[must_use]
pub fn is_domain(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    name.len() <= DOMAIN_BYTES_MAX && name.contains('.') && name.split('.').all(label)
}

impl MemberSet {
    /// Checks and takes over a list of members.
    pub fn new(members: Vec<Member>) -> Result<Self, MemberSetError> {
        if !(1..=MEMBERS_MAX).contains(&members.len()) {
            return Err(MemberSetError::Count);
        }
        if members.windows(2).any(|pair| pair[0].domain >= pair[1].domain) {
            return Err(MemberSetError::Order);
        }
        let mut seen = BTreeSet::new();
        for member in &members {
            if !is_domain(&member.domain) {
                return Err(MemberSetError::Domain);
            }
            if member.submitter_keys.len() > SUBMITTER_KEYS_MAX {
                return Err(MemberSetError::Submitters(member.domain.clone()));
            }
            let usable = |key: &Hash32| VerifyingKey::from_bytes(key.as_bytes()).is_ok_and(|key| !key.is_weak());
            if !member.keys().all(|key| usable(key) && seen.insert(*key)) {
                return Err(MemberSetError::Key(member.domain.clone()));
            }
        }
        Ok(Self(members))
    }

    /// The members in order of domain.
    pub fn iter(&self) -> std::slice::Iter<'_, Member> {
        self.0.iter()
    }

    /// Number of members, at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a member set is never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Votes, cosignatures or approvals that decide.
    #[must_use]
    pub fn quorum(&self) -> usize {
        quorum(self.len())
    }

    /// Whether `key` may sign submissions.
    #[must_use]
    pub fn is_submitter(&self, key: &Hash32) -> bool {
        self.0.iter().any(|member| member.submitter_keys.contains(key))
    }

    /// What headers commit to: SHA3-256 over the canonical member list.
    #[must_use]
    pub fn hash(&self) -> Hash32 {
        tagged("chopmark/members/v1", &[&to_canonical(self)])
    }
}

impl<'a> IntoIterator for &'a MemberSet {
    type Item = &'a Member;
    type IntoIter = std::slice::Iter<'a, Member>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'de> Deserialize<'de> for MemberSet {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Vec::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}
