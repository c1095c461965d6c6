//! API keys: `cm_test_…` and `cm_live_…`, shown once, stored as a keyed hash.

use ledger_core::hash::Hash32;
use zeroize::Zeroizing;

use crate::{
    id::{base32, base32_decode},
    ports::{PortResult, Random},
    seal::KeyedHasher,
};

const SECRET_BYTES: usize = 20;
const CHECK_BYTES: usize = 5;

/// An API key's text.
pub struct ApiKey(Zeroizing<String>);

impl ApiKey {
    /// Draws a key for a network.
    pub fn generate(network: &str, random: &dyn Random) -> PortResult<Self> {
        let mut secret = Zeroizing::new([0_u8; SECRET_BYTES]);
        random.fill(secret.as_mut())?;
        let mut bytes = Zeroizing::new(secret.to_vec());
        bytes.extend_from_slice(&checksum(secret.as_ref()));
        Ok(Self(Zeroizing::new(format!("{}{}", prefix(network), base32(&bytes)))))
    }

    /// Takes a key's text apart; `None` if it cannot be one (wrong form or checksum), so that a
    /// mistyped key is told from an unknown one without a look-up.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let network = key_network(text)?;
        let bytes = Zeroizing::new(base32_decode(&text[prefix(network).len()..])?);
        let (secret, check) = bytes.split_at_checked(SECRET_BYTES)?;
        (checksum(secret) == check).then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// The text, to be shown once.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The network that the prefix names.
    #[must_use]
    pub fn network(&self) -> &'static str {
        key_network(&self.0).unwrap_or("sandbox")
    }

    /// What is stored.
    #[must_use]
    pub fn hash(&self, hashing_key: &[u8; 32]) -> Hash32 {
        self.hash_by(&KeyedHasher::new(hashing_key))
    }

    /// As [`Self::hash`], by a key that is taken in already.
    #[must_use]
    pub fn hash_by(&self, hasher: &KeyedHasher) -> Hash32 {
        hasher.hash(&[self.0.as_bytes()])
    }
}

fn prefix(network: &str) -> &'static str {
    if network == "live" { "cm_live_" } else { "cm_test_" }
}

/// The network that a text names which begins like a key: `live` or `sandbox`.
pub fn key_network(text: &str) -> Option<&'static str> {
    ["sandbox", "live"].into_iter().find(|network| text.starts_with(prefix(network)))
}

fn checksum(secret: &[u8]) -> [u8; CHECK_BYTES] {
    let hash = ledger_core::hash::tagged("chopmark/api-key-check/v1", &[secret]);
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&hash.0[..CHECK_BYTES]);
    check
}
