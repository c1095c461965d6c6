//! The digest algorithms of evidence and the digests of one file.

use serde::{Deserialize, Serialize};

use crate::hash::Hash32;

/// A digest algorithm that evidence may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Algorithm {
    /// SHA-256 (FIPS 180-4).
    #[serde(rename = "sha256")]
    Sha256,
    /// SHA3-256 (FIPS 202).
    #[serde(rename = "sha3-256")]
    Sha3_256,
    /// SM3 (GB/T 32905).
    #[serde(rename = "sm3")]
    Sm3,
}

impl Algorithm {
    /// Every algorithm, in the order of their names.
    pub const ALL: [Self; 3] = [Self::Sha256, Self::Sha3_256, Self::Sm3];

    /// The name in entries, URLs and requests.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha3_256 => "sha3-256",
            Self::Sm3 => "sm3",
        }
    }

    /// Reads a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }

    /// Digest of `bytes`.
    #[must_use]
    pub fn digest(self, bytes: &[u8]) -> Hash32 {
        Hash32(match self {
            Self::Sha256 => <sha2::Sha256 as sha2::Digest>::digest(bytes).into(),
            Self::Sha3_256 => <sha3::Sha3_256 as sha3::Digest>::digest(bytes).into(),
            Self::Sm3 => <sm3::Sm3 as sm3::Digest>::digest(bytes).into(),
        })
    }

    /// Stable one-byte number, the first byte of index keys.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Sha256 => 1,
            Self::Sha3_256 => 2,
            Self::Sm3 => 3,
        }
    }
}

/// Digests of one file, at least one when they stand in an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Digests {
    /// SHA-256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Hash32>,
    /// SHA3-256.
    #[serde(rename = "sha3-256", skip_serializing_if = "Option::is_none")]
    pub sha3_256: Option<Hash32>,
    /// SM3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sm3: Option<Hash32>,
}

impl Digests {
    /// The digests that are there.
    pub fn iter(&self) -> impl Iterator<Item = (Algorithm, Hash32)> {
        Algorithm::ALL.into_iter().filter_map(|algorithm| Some((algorithm, self.get(algorithm)?)))
    }

    /// One digest.
    #[must_use]
    pub const fn get(&self, algorithm: Algorithm) -> Option<Hash32> {
        match algorithm {
            Algorithm::Sha256 => self.sha256,
            Algorithm::Sha3_256 => self.sha3_256,
            Algorithm::Sm3 => self.sm3,
        }
    }

    /// Adds or replaces one digest.
    pub(crate) const fn set(&mut self, algorithm: Algorithm, digest: Hash32) {
        let slot = match algorithm {
            Algorithm::Sha256 => &mut self.sha256,
            Algorithm::Sha3_256 => &mut self.sha3_256,
            Algorithm::Sm3 => &mut self.sm3,
        };
        *slot = Some(digest);
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.sha256.is_none() && self.sha3_256.is_none() && self.sm3.is_none()
    }

    /// All three digests of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let digest = |algorithm: Algorithm| Some(algorithm.digest(bytes));
        Self { sha256: digest(Algorithm::Sha256), sha3_256: digest(Algorithm::Sha3_256), sm3: digest(Algorithm::Sm3) }
    }
}

/// Computes all three digests in one pass over a file's chunks.
#[derive(Default)]
pub struct Digester {
    sha256: sha2::Sha256,
    sha3_256: sha3::Sha3_256,
    sm3: sm3::Sm3,
    size: u64,
}

impl Digester {
    /// Takes the next chunk.
    pub fn update(&mut self, chunk: &[u8]) {
        sha2::Digest::update(&mut self.sha256, chunk);
        sha3::Digest::update(&mut self.sha3_256, chunk);
        sm3::Digest::update(&mut self.sm3, chunk);
        self.size += chunk.len() as u64;
    }

    /// The digests and the number of bytes.
    #[must_use]
    pub fn finish(self) -> (Digests, u64) {
        let digests = Digests {
            sha256: Some(Hash32(sha2::Digest::finalize(self.sha256).into())),
            sha3_256: Some(Hash32(sha3::Digest::finalize(self.sha3_256).into())),
            sm3: Some(Hash32(sm3::Digest::finalize(self.sm3).into())),
        };
        (digests, self.size)
    }
}
