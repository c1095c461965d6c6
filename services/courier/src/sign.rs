//! Signatures of messages: Standard Webhooks 1.0.0, symmetric (`v1`, HMAC-SHA256).
//! Specification: <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use thiserror::Error;
use zeroize::Zeroizing;

/// Bytes of a secret, as the specification bounds them.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
const PREFIX: &str = "whsec_";

/// What signs messages to one endpoint.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

/// A secret that is none.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("a webhook secret is whsec_ and 24 to 64 bytes in Base64")]
pub struct SecretMalformed;

impl Secret {
    /// Takes over 24 to 64 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SecretMalformed> {
        if SECRET_BYTES.contains(&bytes.len()) {
            Ok(Self(Zeroizing::new(bytes.to_vec())))
        } else {
            Err(SecretMalformed)
        }
    }

    /// Reads the text that a tenant was shown.
    pub fn parse(text: &str) -> Result<Self, SecretMalformed> {
        let coded = text.strip_prefix(PREFIX).ok_or(SecretMalformed)?;
        let bytes = Zeroizing::new(STANDARD.decode(coded).map_err(|_| SecretMalformed)?);
        Self::from_bytes(&bytes)
    }

    /// The text that a tenant is shown.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{PREFIX}{}", STANDARD.encode(&*self.0)))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The header `webhook-signature`: one signature for each secret, so that a receiver may hold either while a
/// secret is being replaced. `timestamp` is in Unix seconds.
#[must_use]
pub fn signature(secrets: &[&Secret], id: &str, timestamp: u64, body: &[u8]) -> String {
    let one = |secret: &&Secret| {
        let mut mac = Hmac::<Sha256>::new_from_slice(&secret.0).expect("HMAC takes keys of any length");
        for part in [id.as_bytes(), b".", timestamp.to_string().as_bytes(), b".", body] {
            mac.update(part);
        }
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    };
    secrets.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example that the reference libraries test themselves with.
    #[test]
    fn the_reference_example_has_its_signature() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed = signature(&[&secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn secrets_have_one_text_and_are_not_shown() {
        let secret = Secret::from_bytes(&[7; 32]).unwrap();
        assert_eq!(Secret::parse(&secret.to_text()), Ok(secret.clone()));
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        let long = format!("whsec_{}", STANDARD.encode([1; 65]));
        let short = format!("whsec_{}", STANDARD.encode([1; 23]));
        for bad in ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_%%%%", &long, &short] {
            assert_eq!(Secret::parse(bad), Err(SecretMalformed), "{bad}");
        }
        assert!(Secret::from_bytes(&[0; 64]).is_ok() && Secret::from_bytes(&[0; 65]).is_err());
    }

    #[test]
    fn every_secret_signs() {
        let (old, new) = (Secret::from_bytes(&[1; 32]).unwrap(), Secret::from_bytes(&[2; 32]).unwrap());
        let both = signature(&[&new, &old], "evt_a", 5, b"{}");
        let alone = |secret| signature(&[secret], "evt_a", 5, b"{}");
        assert_eq!(both, format!("{} {}", alone(&new), alone(&old)));
    }
}
