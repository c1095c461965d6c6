//! Peer cards: how a member's node is met, signed by that member. Addresses are not on the ledger;
//! the keys that vouch for them are, so nobody has to be asked whom to believe.

use std::net::SocketAddr;

use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use ledger_core::{
    Hash32, SigningKey,
    hash::{signing_message, tagged},
    json::to_canonical,
    member::Member,
    operation::V1,
};
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
    /// By the network key: nobody can show another member's node as his own.
    pub(crate) possession: String,
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
    pub(crate) fn sign(mut self, governance: &SigningKey, network: &SigningKey) -> Self {
        self.possession = hex::encode(network.sign(&self.message()).to_bytes());
        self.signature = hex::encode(governance.sign(&self.message()).to_bytes());
        self
    }

    /// Whether this member says so.
    pub(crate) fn is_of(&self, chain: &Hash32, member: &Member) -> bool {
        let message = self.message();
        let signed = |key: &Hash32, signature: &str| {
            let mut bytes = [0; 64];
            hex::decode_to_slice(signature, &mut bytes).is_ok()
                && VerifyingKey::from_bytes(&key.0)
                    .is_ok_and(|key| key.verify_strict(&message, &Signature::from_bytes(&bytes)).is_ok())
        };
        self.chain == *chain
            && self.domain == member.domain
            && is_read_url(&self.read_url)
            && signed(&member.governance_key, &self.signature)
            && signed(&self.network_key, &self.possession)
    }
}

/// Whether this can be the address of a read interface: scheme, host and port, and nothing by which a
/// member could make another one's node ask for something else.
pub(crate) fn is_read_url(text: &str) -> bool {
    let plain = |url: Url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
            && url.path() == "/"
    };
    text.len() <= READ_URL_BYTES_MAX && !text.ends_with('/') && Url::parse(text).is_ok_and(plain)
}

/// What two people compare by telephone: a short hash of all keys of a member.
pub(crate) fn fingerprint(member: &Member) -> String {
    let hash = tagged("chopmark/member/v1", &[&to_canonical(member)]).to_string();
    let groups: Vec<&str> = (0..8).filter_map(|group| hash.get(4 * group..4 * group + 4)).collect();
    groups.join("-")
}

/// What a new member hands to one that is in: its public keys and how its node is met.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Invitation {
    pub(crate) card: PeerCard,
    pub(crate) member: Member,
    pub(crate) v: V1,
}
