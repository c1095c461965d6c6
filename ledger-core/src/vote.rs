//! Votes and commit certificates, in an encoding of our own, so that a stranger can check a
//! decision with Ed25519 and SHA-3 alone and the engine can be replaced.

use std::collections::BTreeMap;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    codec::Writer,
    hash::{Hash32, tagged},
    json::{JsonError, from_canonical, to_canonical},
    member::MemberSet,
    operation::{V1, integer53},
};

/// Largest encoded certificate: a signature of each of the most members.
pub const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;

/// Which of the two votes of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VoteType {
    /// First vote.
    Prevote = 1,
    /// Second vote; a quorum of these decides.
    Precommit = 2,
}

/// Validator address: the first 20 bytes of a hash of its key.
#[must_use]
pub fn address(validator_key: &Hash32) -> [u8; 20] {
    let mut out = [0; 20];
    out.copy_from_slice(&tagged("chopmark/address/v1", &[&validator_key.0]).0[..20]);
    out
}

/// What a validator signs: domain, chain, type, height, round, value (header hash; empty for
/// nil), address. This layout is also the format of equivocation evidence.
#[must_use]
pub fn vote_message(
    chain: &Hash32,
    vote: VoteType,
    height: u64,
    round: u32,
    value: Option<&Hash32>,
    address: &[u8; 20],
) -> Vec<u8> {
    let mut writer = Writer::with_domain("chopmark/vote/v1");
    writer.bytes(&chain.0).u8(vote as u8).u64(height).u32(round);
    writer.bytes(value.map_or(&[], |value| &value.0[..])).bytes(address);
    writer.finish()
}

/// What a proposer signs: domain, chain, height, round, the round in which a quorum of prevotes was
/// seen for the value (empty if none), value (header hash), address.
#[must_use]
pub fn proposal_message(
    chain: &Hash32,
    height: u64,
    round: u32,
    valid_round: Option<u32>,
    value: &Hash32,
    address: &[u8; 20],
) -> Vec<u8> {
    let mut writer = Writer::with_domain("chopmark/proposal/v1");
    writer.bytes(&chain.0).u64(height).u32(round);
    writer.bytes(valid_round.map(u32::to_be_bytes).as_ref().map_or(&[], |round| &round[..]));
    writer.bytes(&value.0).bytes(address);
    writer.finish()
}

/// One precommit of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitSignature {
    /// Validator address, 40 hexadecimal digits.
    pub address: String,
    /// Ed25519 signature, 128 hexadecimal digits.
    pub signature: String,
}

/// A quorum of precommits over one header hash; canonical JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// Height decided.
    #[serde(deserialize_with = "integer53")]
    pub height: u64,
    /// Round in which it was decided.
    pub round: u32,
    /// The precommits, ascending by address.
    pub signatures: Vec<CommitSignature>,
    /// Version.
    pub v: V1,
    /// Header hash.
    pub value: Hash32,
}

/// Why a certificate does not prove a decision.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum CertificateError {
    /// It is about another height or header.
    #[error("certificate is about another block")]
    Subject,
    /// An address is not a validator's, or not in ascending order.
    #[error("certificate names an unknown validator, or one twice")]
    Validator,
    /// A signature does not verify.
    #[error("a certificate signature does not verify")]
    Signature,
    /// Fewer than a quorum.
    #[error("certificate has no quorum")]
    Quorum,
}

impl Certificate {
    /// Canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        to_canonical(self)
    }

    /// Reads canonical bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        from_canonical(bytes)
    }

    /// A certificate from precommits of validator keys.
    #[must_use]
    pub fn new(height: u64, round: u32, value: Hash32, precommits: &[(Hash32, [u8; 64])]) -> Self {
        let precommits = precommits.iter().map(|(key, signature)| (address(key), *signature));
        Self::of_addresses(height, round, value, precommits)
    }

    /// A certificate from precommits of validator addresses.
    #[must_use]
    pub fn of_addresses(
        height: u64,
        round: u32,
        value: Hash32,
        precommits: impl Iterator<Item = ([u8; 20], [u8; 64])>,
    ) -> Self {
        let mut signatures: Vec<CommitSignature> = precommits
            .map(|(address, signature)| CommitSignature {
                address: hex::encode(address),
                signature: hex::encode(signature),
            })
            .collect();
        signatures.sort_by(|a, b| a.address.cmp(&b.address));
        Self { height, round, signatures, v: V1, value }
    }

    /// Addresses and signatures; `None` if a field is not hexadecimal of its length in lower case.
    #[must_use]
    pub fn precommits(&self) -> Option<Vec<([u8; 20], [u8; 64])>> {
        let read = |commit: &CommitSignature| {
            let mut address = [0; 20];
            hex::decode_to_slice(&commit.address, &mut address).ok()?;
            Some((address, decode_signature(&commit.signature)?.to_bytes()))
        };
        self.signatures.iter().map(read).collect()
    }

    /// Checks that a quorum of `members` decided `value` at `height`.
    pub fn verify(
        &self,
        chain: &Hash32,
        height: u64,
        value: &Hash32,
        members: &MemberSet,
    ) -> Result<(), CertificateError> {
        if self.height != height || self.value != *value {
            return Err(CertificateError::Subject);
        }
        // Ascending addresses also mean that no validator counts twice.
        if self.signatures.windows(2).any(|pair| pair[0].address >= pair[1].address) {
            return Err(CertificateError::Validator);
        }
        let validators: BTreeMap<String, ([u8; 20], &Hash32)> = members
            .iter()
            .map(|member| (address(&member.validator_key), &member.validator_key))
            .map(|(address, key)| (hex::encode(address), (address, key)))
            .collect();
        for commit in &self.signatures {
            let (address, key) = validators.get(&commit.address).ok_or(CertificateError::Validator)?;
            let message = vote_message(chain, VoteType::Precommit, height, self.round, Some(value), address);
            let verified = VerifyingKey::from_bytes(&key.0).ok().zip(decode_signature(&commit.signature));
            let (key, signature) = verified.ok_or(CertificateError::Signature)?;
            key.verify_strict(&message, &signature).map_err(|_| CertificateError::Signature)?;
        }
        if self.signatures.len() >= members.quorum() { Ok(()) } else { Err(CertificateError::Quorum) }
    }
}

fn decode_signature(text: &str) -> Option<Signature> {
    // One spelling only: canonical certificates must stay byte-equal at every node.
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    let mut bytes = [0; 64];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(Signature::from_bytes(&bytes))
}

/// Signs a precommit for `value`.
#[must_use]
pub fn precommit(chain: &Hash32, height: u64, round: u32, value: &Hash32, key: &SigningKey) -> [u8; 64] {
    let public = Hash32(key.verifying_key().to_bytes());
    let message = vote_message(chain, VoteType::Precommit, height, round, Some(value), &address(&public));
    key.sign(&message).to_bytes()
}
