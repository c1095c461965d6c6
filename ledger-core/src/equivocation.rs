//! Equivocations: two different things that one key signed where it may sign one. Anybody can check
//! them with Ed25519 alone.

use serde::{Deserialize, Serialize};

use crate::{hash::Hash32, operation::V1};

/// What was signed twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EquivocationKind {
    /// Two votes of one type in one round.
    Vote,
    /// Two proposals in one round.
    Proposal,
    /// Two roots for one tree size.
    Checkpoint,
}

/// A message and its Ed25519 signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedMessage {
    /// The signed bytes, hexadecimal.
    pub message: String,
    /// The signature, hexadecimal.
    pub signature: String,
}

/// Two signed messages that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Equivocation {
    /// One of them.
    pub first: SignedMessage,
    /// Block height, or tree size for checkpoints.
    pub height: u64,
    /// The key that signed both.
    pub key: Hash32,
    /// What was signed twice.
    pub kind: EquivocationKind,
    /// Domain of the member whose key it is.
    pub member: String,
    /// The other one.
    pub second: SignedMessage,
    /// Version.
    pub v: V1,
}
