//! Openings and their commitments: how the ledger binds what it must not show.

use serde::{Deserialize, Serialize};

use crate::{
    digests::{Algorithm, Digests},
    hash::Hash32,
    json::to_canonical,
    operation::{V1, integer53_option},
};

const DOMAIN: &[u8] = b"chopmark/commit/v1\n";

/// The opening of a confidential evidence entry; canonical JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvidenceOpening {
    /// Digests of the file.
    pub digests: Digests,
    /// Media type, when the caller gave one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub media_type: Option<String>,
    /// 32 random bytes, so that nobody can find the file by guessing.
    pub salt: Hash32,
    /// Bytes of the file, when the caller gave them.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "integer53_option")]
    pub size: Option<u64>,
    /// Format version.
    pub v: V1,
}

/// Commitment to canonical opening bytes under every algorithm:
/// H("chopmark/commit/v1\n" ‖ opening).
#[must_use]
pub fn commit(opening: &[u8]) -> Digests {
    Digests::of(&[DOMAIN, opening].concat())
}

/// Commitment under SHA-256 alone, for private parts that no other hash family has to outlive.
#[must_use]
pub fn commit_sha256(opening: &[u8]) -> Digests {
    Digests { sha256: Some(Algorithm::Sha256.digest(&[DOMAIN, opening].concat())), ..Digests::default() }
}

/// Whether `opening` opens `commitment`: every hash listed must match, and one must be listed.
#[must_use]
pub fn opens(opening: &[u8], commitment: &Digests) -> bool {
    let message = [DOMAIN, opening].concat();
    !commitment.is_empty() && commitment.iter().all(|(algorithm, digest)| algorithm.digest(&message) == digest)
}

impl EvidenceOpening {
    /// Canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        to_canonical(self)
    }
}
