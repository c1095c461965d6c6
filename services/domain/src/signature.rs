//! Signatures of requests (RFC 9421): what the gateway has verified, and what of it is sealed with
//! each record as its submitter's signature. They are no part of operations and entries: what the
//! ledger hashes is the same with and without (ADR 0025).

use std::sync::Arc;

use ledger_core::hash::Hash32;
use serde::{Deserialize, Serialize};

/// The one algorithm, by its name in the registry of RFC 9421.
pub const ALGORITHM: &str = "ed25519";
/// Longest signature base that is taken. A private part at its bounds, with a base of this length
/// and without a body, still fits into a queue message.
pub const BASE_BYTES_MAX: usize = 2 * 1024;
/// Longest body that is kept with a signature.
pub const BODY_KEPT_BYTES_MAX: usize = 16 * 1024;
/// Longest sum of the copies of a batch's body, of which each record would have one.
const COPIES_BYTES_MAX: usize = 64 * 1024;

/// The signature of a request.
///
/// Invariant: it was verified under the public key over the base, the base covers a digest of the
/// body, and the body that came has this digest. The gateway makes no other; who reads a record
/// relies on it only as far as they do not verify it again.
#[derive(Debug, PartialEq, Eq)]
pub struct RequestSignature {
    /// Id of the tenant's signing key.
    pub key_id: String,
    /// Public key of Ed25519.
    pub public_key: Hash32,
    /// The signature.
    pub signature: [u8; 64],
    /// What was signed (RFC 9421, section 2.5).
    pub base: String,
    /// Length of the body.
    pub body_bytes: u64,
    /// The body, if it is text and not longer than [`BODY_KEPT_BYTES_MAX`]. That of a file is never kept.
    pub body: Option<String>,
}

/// The signature that a draft came under.
#[derive(Debug, Clone)]
pub(crate) struct Submitted {
    pub(crate) request: Arc<RequestSignature>,
    /// Which item of a batch, of how many.
    pub(crate) item: Option<(usize, usize)>,
}

/// A submitter's signature as it is sealed with one record; canonical JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmitterSignature {
    /// [`ALGORITHM`].
    pub algorithm: String,
    /// What was signed.
    pub base: String,
    /// The exact body, where it is kept.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub body: Option<String>,
    /// Length of the body.
    pub body_bytes: u64,
    /// Position in the batch, from zero on, if the request was one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub item: Option<u64>,
    /// Id of the signing key.
    pub key_id: String,
    /// Public key of Ed25519.
    pub public_key: Hash32,
    /// The signature, hex.
    pub signature: String,
}

impl Submitted {
    /// What is sealed with the record.
    pub(crate) fn seal_part(&self) -> SubmitterSignature {
        let RequestSignature { key_id, public_key, signature, base, body_bytes, body } = self.request.as_ref();
        let copies = self.item.map_or(1, |(_, items)| items);
        let fits = |body: &&String| body.len().saturating_mul(copies) <= COPIES_BYTES_MAX;
        SubmitterSignature {
            algorithm: ALGORITHM.to_owned(),
            base: base.clone(),
            body: body.as_ref().filter(fits).cloned(),
            body_bytes: *body_bytes,
            item: self.item.map(|(at, _)| at as u64),
            key_id: key_id.clone(),
            public_key: *public_key,
            signature: hex(signature),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}
