//! Peer cards: how a member's node is met, signed by that member. Addresses are not on the ledger;
//! the keys that vouch for them are, so nobody has to be asked whom to believe.

use std::net::SocketAddr;

use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use ledger_core::{Hash32, SigningKey, hash::signing_message, member::Member, operation::V1};
use reqwest::Url;
use serde::{Deserialize, Serialize};

/// Longest URL of a read interface.
const READ_URL_BYTES_MAX: usize = 200;

/// How a member's node is met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PeerCard {
    /// Where it listens for the other members' nodes.
    pub(crate) address: SocketAddr,
    pub(crate) chain: Hash32,
    /// The member.
    pub(crate) domain: String,
    /// Public half of its network key.
    pub(crate) network_key: Hash32,
    /// Where it serves readers.
    pub(crate) read_url: String,
    /// By the member's governance key, 128 hexadecimal digits.
    pub(crate) signature: String,
    /// Unix milliseconds; the latest card counts.
    pub(crate) time: u64,
    pub(crate) v: V1,
}

impl PeerCard {
    fn message(&self) -> Vec<u8> {
        signing_message(
            "chopmark/peer-card/v1",
            &[
                &self.chain.0,
                self.domain.as_bytes(),
                self.address.to_string().as_bytes(),
                &self.network_key.0,
                self.read_url.as_bytes(),
                &self.time.to_be_bytes(),
            ],
        )
    }

    /// Signs the card anew.
    pub(crate) fn sign(mut self, governance: &SigningKey) -> Self {
        self.signature = hex::encode(governance.sign(&self.message()).to_bytes());
        self
    }

    /// Whether this member says so.
    pub(crate) fn is_of(&self, chain: &Hash32, member: &Member) -> bool {
        let mut signature = [0; 64];
        let readable = self.read_url.len() <= READ_URL_BYTES_MAX
            && Url::parse(&self.read_url).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
        readable
            && self.chain == *chain
            && self.domain == member.domain
            && hex::decode_to_slice(&self.signature, &mut signature).is_ok()
            && VerifyingKey::from_bytes(&member.governance_key.0)
                .is_ok_and(|key| key.verify_strict(&self.message(), &Signature::from_bytes(&signature)).is_ok())
    }
}

/// What a new member hands to one that is in: its public keys and how its node is met.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Invitation {
    pub(crate) card: PeerCard,
    pub(crate) member: Member,
    pub(crate) v: V1,
}
