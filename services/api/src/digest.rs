//! File digests: the three algorithms, and their one spelling (64 lower-case
//! hexadecimal characters).

use std::fmt;
use std::str::FromStr;

use utoipa::ToSchema;

use crate::problem::{Arg, Fault, ProblemCode};

/// A digest algorithm that a record may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
pub enum Algorithm {
    #[schema(rename = "sha256")]
    Sha256,
    #[schema(rename = "sha3-256")]
    Sha3_256,
    #[schema(rename = "sm3")]
    Sm3,
}

impl Algorithm {
    pub const ALL: [Algorithm; 3] = [Algorithm::Sha256, Algorithm::Sha3_256, Algorithm::Sm3];
    pub const NAMES: &[&str] = &["sha256", "sha3-256", "sm3"];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha3_256 => "sha3-256",
            Algorithm::Sm3 => "sm3",
        }
    }

    /// The algorithm's digest of no bytes at all.
    #[must_use]
    pub const fn of_nothing(self) -> Hash32 {
        Hash32(match self {
            Algorithm::Sha256 => SHA256_OF_NOTHING,
            Algorithm::Sha3_256 => SHA3_256_OF_NOTHING,
            Algorithm::Sm3 => SM3_OF_NOTHING,
        })
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = Fault;

    fn from_str(name: &str) -> Result<Self, Fault> {
        Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name).ok_or_else(|| {
            let known = Arg::Names(Algorithm::NAMES);
            Fault::new(ProblemCode::DigestAlgorithmUnknown).with("known", known)
        })
    }
}

crate::text::impl_serde_as_text!(Algorithm, "the name of a digest algorithm");

/// 32 bytes of hash, written as 64 lower-case hexadecimal characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
#[schema(
    value_type = String,
    pattern = "^[0-9a-f]{64}$",
    example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
)]
pub struct Hash32([u8; 32]);

impl Hash32 {
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Hash32 {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl FromStr for Hash32 {
    type Err = Fault;

    /// Refuses with the first cause of: other characters, wrong length, upper case.
    fn from_str(text: &str) -> Result<Self, Fault> {
        let bytes = text.as_bytes();
        match decode(bytes) {
            Some(hash) => Ok(Hash32(hash)),
            None if !bytes.iter().all(u8::is_ascii_hexdigit) => Err(ProblemCode::DigestNotHex.into()),
            None if bytes.len() != 64 => Err(ProblemCode::DigestBadLength.into()),
            None => Err(ProblemCode::DigestUpperCase.into()),
        }
    }
}

fn decode(text: &[u8]) -> Option<[u8; 32]> {
    let (pairs, rest) = text.as_chunks::<2>();
    let pairs: &[[u8; 2]; 32] = pairs.try_into().ok().filter(|_| rest.is_empty())?;
    let mut bytes = [0; 32];
    // Every nibble is looked at, so that the loop has no branch to mispredict.
    let mut seen = 0;
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        let (high, low) = (NIBBLES[usize::from(*high)], NIBBLES[usize::from(*low)]);
        seen |= high | low;
        *byte = high << 4 | low & 15;
    }
    (seen & NOT_A_NIBBLE == 0).then_some(bytes)
}

const NOT_A_NIBBLE: u8 = 0x80;

/// The value of every byte as a lower-case hexadecimal digit.
const NIBBLES: [u8; 256] = {
    let mut table = [NOT_A_NIBBLE; 256];
    let digits = b"0123456789abcdef";
    let mut value = 0u8;
    while value < 16 {
        table[digits[value as usize] as usize] = value;
        value += 1;
    }
    table
};

impl fmt::Display for Hash32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut out = [0; 64];
        for (pair, byte) in out.as_chunks_mut::<2>().0.iter_mut().zip(self.0) {
            *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
        }
        f.write_str(std::str::from_utf8(&out).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Hash32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

crate::text::impl_serde_as_text!(Hash32, "64 lower-case hexadecimal characters");

const SHA256_OF_NOTHING: [u8; 32] = constant(b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
const SHA3_256_OF_NOTHING: [u8; 32] = constant(b"a7ffc6f8bf1ed76651c14756a061d662f580ff4de43b49fa82d80a4b80f8434a");
const SM3_OF_NOTHING: [u8; 32] = constant(b"1ab21d8355cfa17f8e61194831e81a8f22bec8c728fefb747ed035eb5082aa2b");

const fn constant(text: &[u8; 64]) -> [u8; 32] {
    let mut bytes = [0; 32];
    let mut i = 0;
    while i < 32 {
        bytes[i] = NIBBLES[text[2 * i] as usize] << 4 | NIBBLES[text[2 * i + 1] as usize];
        i += 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_fault_of_a_digest_has_its_code() {
        let good = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        let parsed: Hash32 = good.parse().expect("a digest");
        assert_eq!(parsed.to_string(), good);
        let code = |text: &str| text.parse::<Hash32>().expect_err("refused").code;
        for (text, expected) in [
            (String::new(), ProblemCode::DigestBadLength),
            (good[..62].to_owned(), ProblemCode::DigestBadLength),
            (good[..63].to_owned(), ProblemCode::DigestBadLength),
            (format!("{good}00"), ProblemCode::DigestBadLength),
            (good[..40].to_uppercase(), ProblemCode::DigestBadLength),
            (good.to_uppercase(), ProblemCode::DigestUpperCase),
            (good.replace('f', "F"), ProblemCode::DigestUpperCase),
            (good.replace('f', "g"), ProblemCode::DigestNotHex),
            (format!("sha256:{good}"), ProblemCode::DigestNotHex),
            (format!("0x{good}"), ProblemCode::DigestNotHex),
            (format!(" {good}"), ProblemCode::DigestNotHex),
            ("n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=".to_owned(), ProblemCode::DigestNotHex),
            ("０".repeat(64), ProblemCode::DigestNotHex),
        ] {
            assert_eq!(code(&text), expected, "{text}");
        }
    }

    #[test]
    fn algorithms_have_one_name() {
        for algorithm in Algorithm::ALL {
            assert_eq!(algorithm.name().parse(), Ok(algorithm));
            assert!(Algorithm::NAMES.contains(&algorithm.name()));
            assert_eq!(serde_json::to_value(algorithm).expect("text"), algorithm.name());
        }
        for bad in ["SHA256", "sha-256", "sha3_256", "sha3", "md5", ""] {
            let fault = bad.parse::<Algorithm>().expect_err("refused");
            assert_eq!(fault.code, ProblemCode::DigestAlgorithmUnknown);
        }
    }

    proptest! {
        #[test]
        fn digests_survive_the_round_trip(bytes: [u8; 32]) {
            let hash = Hash32::from_bytes(bytes);
            prop_assert_eq!(hash.to_string().parse(), Ok(hash));
        }

        #[test]
        fn what_is_read_has_one_spelling(text in "[0-9a-fA-F]{64}") {
            match text.parse::<Hash32>() {
                Ok(hash) => prop_assert_eq!(hash.to_string(), text),
                Err(fault) => prop_assert_eq!(fault.code, ProblemCode::DigestUpperCase),
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            let _ = text.parse::<Hash32>();
        }
    }
}
