//! "Not found" statements: signed notes, never proofs. They say up to which tree size the
//! index of this node was complete and had no entry of a digest.

use ledger_core::{
    Hash32, SigningKey,
    checkpoint::encode_hash,
    digests::Algorithm,
    merkle::TreeSize,
    note::{KeyType, Note, VerifierKey, sign},
    verify::rfc3339_seconds,
};

use crate::NodeError;

/// What a statement is about.
pub(crate) struct NotFound<'a> {
    pub(crate) origin: &'a str,
    pub(crate) algorithm: Algorithm,
    pub(crate) digest: Hash32,
    pub(crate) size: TreeSize,
    pub(crate) root: Hash32,
    /// Unix seconds.
    pub(crate) time: u64,
}

pub(crate) fn key_name(domain: &str) -> String {
    format!("{domain}/statement")
}

pub(crate) fn vkey(domain: &str, key: &SigningKey) -> Result<String, NodeError> {
    VerifierKey::new(&key_name(domain), KeyType::Ed25519, key.verifying_key())
        .map(|key| key.vkey())
        .map_err(|error| NodeError::Damaged(error.to_string()))
}

pub(crate) fn not_found(domain: &str, key: &SigningKey, what: &NotFound<'_>) -> Result<String, NodeError> {
    let text = format!(
        "chopmark/not-found/v1\nlog {}\ndigest {} {}\nsize {}\nroot {}\ntime {}\n",
        what.origin,
        what.algorithm.as_str(),
        what.digest,
        what.size.0,
        encode_hash(&what.root),
        rfc3339_seconds(what.time),
    );
    let line = sign(&key_name(domain), key, &text).map_err(|error| NodeError::Damaged(error.to_string()))?;
    Ok(Note { text, signatures: vec![line] }.render())
}
