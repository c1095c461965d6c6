//! Ids as callers see them: a typed prefix, then 24 bytes in base32. Checked
//! here: prefix, length, alphabet, and that the spelling is the only one. The
//! keyed tag inside (design 6) is checked by the domain, which holds the key.

use std::fmt;

/// Bytes of an id: 16 of hash, 8 of keyed tag.
pub const ID_BYTES: usize = 24;
/// Characters that write them: 192 bits, five a character, rounded up.
pub const ID_CHARS: usize = 39;

/// RFC 4648, section 6, in lower case: ids are read aloud and typed.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The text is not an id of the kind asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id of the form {prefix} and {ID_CHARS} characters of base32")]
pub struct IdMalformed {
    pub prefix: &'static str,
}

macro_rules! ids {
    ($( $(#[$doc:meta])* $name:ident $prefix:literal $form:literal $example:literal )*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, utoipa::ToSchema)]
        #[schema(value_type = String, example = $example)]
        pub struct $name([u8; ID_BYTES]);

        impl $name {
            pub const PREFIX: &str = $prefix;
            /// The form, as error texts name it.
            pub const FORM: &str = $form;

            #[must_use]
            pub const fn from_bytes(bytes: [u8; ID_BYTES]) -> Self {
                Self(bytes)
            }

            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; ID_BYTES] {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdMalformed;

            fn from_str(text: &str) -> Result<Self, IdMalformed> {
                text.strip_prefix($prefix)
                    .and_then(|coded| decode(coded.as_bytes()))
                    .map(Self)
                    .ok_or(IdMalformed { prefix: $prefix })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                f.write_str(std::str::from_utf8(&encode(&self.0)).map_err(|_| fmt::Error)?)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        crate::text::impl_serde_as_text!($name, $form);
    )* };
}

ids! {
    /// Names one piece of evidence.
    EvidenceId "evd_" "evd_ and 39 characters" "evd_aebagbafaydqqcikbmga2dqpcaireeyuculboga"
    /// Names one operation.
    OperationId "opn_" "opn_ and 39 characters" "opn_aebagbafaydqqcikbmga2dqpcaireeyuculboga"
    /// Names one case.
    CaseId "cas_" "cas_ and 39 characters" "cas_aebagbafaydqqcikbmga2dqpcaireeyuculboga"
    /// Names one tenant; opaque, and public with its volume.
    TenantId "ten_" "ten_ and 39 characters" "ten_aebagbafaydqqcikbmga2dqpcaireeyuculboga"
    /// Names one endpoint of webhooks.
    EndpointId "whe_" "whe_ and 39 characters" "whe_aebagbafaydqqcikbmga2dqpcaireeyuculboga"
    /// Names one event, in every message about it.
    EventId "evt_" "evt_ and 39 characters" "evt_aebagbafaydqqcikbmga2dqpcaireeyuculboga"
    /// Names one delivery of an event to an endpoint.
    DeliveryId "dlv_" "dlv_ and 39 characters" "dlv_aebagbafaydqqcikbmga2dqpcaireeyuculboga"
    /// Names one API key; not the key itself.
    KeyId "key_" "key_ and 39 characters" "key_aebagbafaydqqcikbmga2dqpcaireeyuculboga"
}

fn encode(bytes: &[u8; ID_BYTES]) -> [u8; ID_CHARS] {
    let mut out = [0; ID_CHARS];
    for (place, letter) in out.iter_mut().enumerate() {
        *letter = ALPHABET[usize::from(five_bits(bytes, place * 5))];
    }
    out
}

/// Five bits from bit `at` on; past the end come zeros.
fn five_bits(bytes: &[u8; ID_BYTES], at: usize) -> u8 {
    let byte = |i: usize| u16::from(bytes.get(i).copied().unwrap_or(0));
    let window = byte(at / 8) << 8 | byte(at / 8 + 1);
    let [_, low] = (window >> (11 - at % 8) & 31).to_be_bytes();
    low
}

fn decode(coded: &[u8]) -> Option<[u8; ID_BYTES]> {
    if coded.len() != ID_CHARS {
        return None;
    }
    let mut bytes = [0; ID_BYTES];
    let mut filled = 0;
    let (mut held, mut bits) = (0u16, 0);
    for letter in coded {
        held = held << 5 | u16::from(value_of(*letter)?);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes[filled] = (held >> bits).to_be_bytes()[1];
            held &= (1 << bits) - 1;
            filled += 1;
        }
    }
    // The last character carries three spare bits; only zeros are the one spelling.
    (held == 0).then_some(bytes)
}

fn value_of(letter: u8) -> Option<u8> {
    match letter {
        b'a'..=b'z' => Some(letter - b'a'),
        b'2'..=b'7' => Some(letter - b'2' + 26),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_is_written_as_rfc_4648_says() {
        let bytes: [u8; ID_BYTES] = std::array::from_fn(|i| u8::try_from(i + 1).expect("small"));
        let text = "evd_aebagbafaydqqcikbmga2dqpcaireeyuculboga";
        assert_eq!(EvidenceId::from_bytes(bytes).to_string(), text);
        assert_eq!(text.parse(), Ok(EvidenceId::from_bytes(bytes)));
        let quoted = format!("\"{text}\"");
        assert_eq!(serde_json::to_string(&EvidenceId::from_bytes(bytes)).expect("text"), quoted);
        let read: EvidenceId = serde_json::from_str(&quoted).expect("an id");
        assert_eq!(read.as_bytes(), &bytes);
    }

    #[test]
    fn other_spellings_are_refused() {
        let good = EvidenceId::from_bytes([7; ID_BYTES]).to_string();
        assert!(good.parse::<EvidenceId>().is_ok());
        assert!(good.parse::<OperationId>().is_err());
        let mut last_bit = good.clone();
        let last = last_bit.pop().expect("a character");
        last_bit.push(char::from(u8::try_from(last).expect("ascii") + 1));
        for bad in [
            String::new(),
            "evd_".to_owned(),
            good.to_uppercase(),
            good.replace("evd_", "evd-"),
            good[..good.len() - 1].to_owned(),
            format!("{good}a"),
            format!("{good}="),
            format!(" {good}"),
            format!("{}1", &good[..good.len() - 1]),
            last_bit,
        ] {
            assert!(bad.parse::<EvidenceId>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn ids_survive_the_round_trip(bytes: [u8; ID_BYTES]) {
            let id = OperationId::from_bytes(bytes);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn what_is_read_has_one_spelling(coded in "[a-z2-7]{39}") {
            let text = format!("cas_{coded}");
            if let Ok(id) = text.parse::<CaseId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            let _ = text.parse::<CaseId>();
            let _ = format!("cas_{text}").parse::<CaseId>();
        }
    }
}
