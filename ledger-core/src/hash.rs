//! 32-byte hashes, their hexadecimal form, and domain-separated SHA3-256.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha3::{Digest as _, Sha3_256};

use crate::codec::Writer;

/// Any 32-byte value that is shown as 64 lower-case hexadecimal digits: hashes, keys, ids.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hash32(pub [u8; 32]);

impl Hash32 {
    /// All zero bits: the "previous" of a first header.
    pub const ZERO: Self = Self([0; 32]);

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads exactly 64 lower-case hexadecimal digits; anything else is `None`.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 64 {
            return None;
        }
        let mut out = [0_u8; 32];
        for (byte, pair) in out.iter_mut().zip(bytes.chunks_exact(2)) {
            *byte = (nibble(pair[0])? << 4) | nibble(pair[1])?;
        }
        Some(Self(out))
    }

    /// The 64 digits, without an allocation.
    #[must_use]
    pub fn hex(&self) -> HexText {
        let mut text = [0_u8; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        HexText(text)
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// The hexadecimal form of a [`Hash32`].
#[derive(Clone, Copy)]
pub struct HexText([u8; 64]);

impl HexText {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for HexText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Hash32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.hex().as_str())
    }
}

impl fmt::Debug for Hash32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.hex().as_str())
    }
}

impl Serialize for Hash32 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.hex().as_str())
    }
}

impl<'de> Deserialize<'de> for Hash32 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Hash32;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("64 lower-case hexadecimal digits")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Hash32, E> {
                Hash32::from_hex(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str("…"), &self))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

/// SHA3-256 over the length-prefixed `domain` and `fields`.
///
/// Domains read `chopmark/<what>/v1`; they keep one kind of hash from ever being another's.
#[must_use]
pub fn tagged(domain: &str, fields: &[&[u8]]) -> Hash32 {
    let mut hasher = Sha3_256::new();
    for field in std::iter::once(domain.as_bytes()).chain(fields.iter().copied()) {
        // Fields are bounded by the block limit, so the length fits.
        let len = u32::try_from(field.len()).unwrap_or(u32::MAX);
        hasher.update(len.to_be_bytes());
        hasher.update(field);
    }
    Hash32(hasher.finalize().into())
}

/// Plain SHA3-256, as used for the entry id.
#[must_use]
pub fn sha3_256(bytes: &[u8]) -> Hash32 {
    Hash32(Sha3_256::digest(bytes).into())
}

/// The message of a signature: the length-prefixed `domain` and `fields`, not hashed.
#[must_use]
pub fn signing_message(domain: &str, fields: &[&[u8]]) -> Vec<u8> {
    let mut writer = Writer::with_domain(domain);
    for field in fields {
        writer.bytes(field);
    }
    writer.finish()
}
