//! C2SP `signed-note`, with the two signature types of this log: Ed25519 (0x01) for log lines
//! and timestamped Ed25519 cosignatures (0x04, C2SP `tlog-cosignature`).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::checkpoint::U63_MAX;

/// A note carries at most this many signature lines (proofs: 64).
pub const SIGNATURE_LINES_MAX: usize = 64;

/// A cosignature's payload: the time and an Ed25519 signature.
const COSIGNATURE_BYTES: usize = 8 + 64;

/// What a key of a note signs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyType {
    /// Plain Ed25519 over the note text.
    Ed25519 = 0x01,
    /// `cosignature/v1`: Ed25519 over a time stamp and the note text.
    Cosignature = 0x04,
}

/// The public half of a note key: its `vkey` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    key_type: KeyType,
    key: VerifyingKey,
}

/// Why a `vkey` or a note could not be read.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum NoteError {
    /// The key name is empty or has white space or a plus sign.
    #[error("key name is empty or contains white space or '+'")]
    Name,
    /// The text is not `<name>+<hash>+<key>`.
    #[error("verifier key is malformed")]
    Key,
    /// The note's text or its layout breaks the specification.
    #[error("signed note is malformed: {0}")]
    Syntax(&'static str),
    /// A signature by a known key does not verify.
    #[error("a signature by a known key does not verify")]
    Signature,
}

impl VerifierKey {
    /// A key under `name`. Errors: [`NoteError::Name`].
    pub fn new(name: &str, key_type: KeyType, key: VerifyingKey) -> Result<Self, NoteError> {
        if name.is_empty() || name.contains('+') || name.contains(char::is_whitespace) {
            return Err(NoteError::Name);
        }
        Ok(Self { name: name.to_owned(), key_type, key })
    }

    /// Reads `<name>+<hash>+<base64 of type and key>`.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::Key);
        };
        let bytes = STANDARD.decode(key).map_err(|_| NoteError::Key)?;
        let (key_type, key) = match bytes.split_first() {
            Some((0x01, key)) => (KeyType::Ed25519, key),
            Some((0x04, key)) => (KeyType::Cosignature, key),
            _ => return Err(NoteError::Key),
        };
        let key = key.try_into().ok().and_then(|key| VerifyingKey::from_bytes(key).ok()).ok_or(NoteError::Key)?;
        let parsed = Self::new(name, key_type, key)?;
        // As in Go's `note`, either case of the key id will do; we write the lower one.
        if hex::encode(parsed.id()) == id.to_ascii_lowercase() { Ok(parsed) } else { Err(NoteError::Key) }
    }

    /// The `vkey` line.
    #[must_use]
    pub fn vkey(&self) -> String {
        let mut bytes = vec![self.key_type as u8];
        bytes.extend_from_slice(self.key.as_bytes());
        format!("{}+{}+{}", self.name, hex::encode(self.id()), STANDARD.encode(bytes))
    }

    /// The name on signature lines.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it signs with.
    #[must_use]
    pub const fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// The Ed25519 key.
    #[must_use]
    pub const fn key(&self) -> &VerifyingKey {
        &self.key
    }

    /// Key id: the first four bytes of SHA-256(name ‖ LF ‖ type ‖ key).
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        let digest = Sha256::new()
            .chain_update(&self.name)
            .chain_update([b'\n', self.key_type as u8])
            .chain_update(self.key.as_bytes())
            .finalize();
        [digest[0], digest[1], digest[2], digest[3]]
    }

    /// Checks one signature line's payload over `text`.
    ///
    /// Returns the time stamp (Unix seconds) of a cosignature, `None` for a plain signature.
    pub fn verify(&self, text: &str, payload: &[u8]) -> Result<Option<u64>, NoteError> {
        let (time, signature) = match self.key_type {
            KeyType::Ed25519 => (None, payload),
            KeyType::Cosignature => {
                let (time, signature) = payload.split_first_chunk::<8>().ok_or(NoteError::Signature)?;
                (Some(u64::from_be_bytes(*time)), signature)
            }
        };
        let signature = Signature::from_slice(signature).map_err(|_| NoteError::Signature)?;
        let verified = match time {
            None => self.key.verify_strict(text.as_bytes(), &signature),
            Some(time) => self.key.verify_strict(cosigned_message(time, text).as_bytes(), &signature),
        };
        verified.map(|()| time).map_err(|_| NoteError::Signature)
    }
}

/// What a cosigner signs (C2SP `tlog-cosignature`): the time and the checkpoint's text.
#[must_use]
pub fn cosigned_message(time: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}

/// One signature line: `— <name> <base64 of key id and payload>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureLine {
    /// Key name.
    pub name: String,
    /// Key id.
    pub id: [u8; 4],
    /// What follows the key id.
    pub payload: Vec<u8>,
}

impl SignatureLine {
    /// The line without its newline.
    #[must_use]
    pub fn line(&self) -> String {
        let mut bytes = self.id.to_vec();
        bytes.extend_from_slice(&self.payload);
        format!("\u{2014} {} {}", self.name, STANDARD.encode(bytes))
    }

    fn parse(line: &str) -> Result<Self, NoteError> {
        let malformed = NoteError::Syntax("signature line");
        let (name, bytes) = line.strip_prefix("\u{2014} ").and_then(|rest| rest.split_once(' ')).ok_or(malformed)?;
        if name.is_empty() || name.contains('+') || name.contains(char::is_whitespace) {
            return Err(malformed);
        }
        let bytes = STANDARD.decode(bytes).map_err(|_| malformed)?;
        let (id, payload) = bytes.split_first_chunk::<4>().ok_or(malformed)?;
        if payload.is_empty() {
            return Err(malformed);
        }
        Ok(Self { name: name.to_owned(), id: *id, payload: payload.to_vec() })
    }
}

/// "MUST NOT contain any ASCII control characters (those below U+0020) other than newline".
fn has_control(text: &str) -> bool {
    text.bytes().any(|byte| byte < b' ' && byte != b'\n')
}

/// Refuses to sign what could not be read back.
fn check_text(text: &str) -> Result<(), NoteError> {
    if !text.ends_with('\n') || has_control(text) {
        return Err(NoteError::Syntax("text"));
    }
    Ok(())
}

/// The log line over `text` by `key`, under the log's origin as key name.
pub fn sign(name: &str, key: &SigningKey, text: &str) -> Result<SignatureLine, NoteError> {
    check_text(text)?;
    let verifier = VerifierKey::new(name, KeyType::Ed25519, key.verifying_key())?;
    let payload = key.sign(text.as_bytes()).to_bytes().to_vec();
    Ok(SignatureLine { name: name.to_owned(), id: verifier.id(), payload })
}

/// A `cosignature/v1` line over the checkpoint text at `time` (Unix seconds).
pub fn cosign(name: &str, key: &SigningKey, text: &str, time: u64) -> Result<SignatureLine, NoteError> {
    check_text(text)?;
    if time > U63_MAX {
        return Err(NoteError::Syntax("time"));
    }
    let verifier = VerifierKey::new(name, KeyType::Cosignature, key.verifying_key())?;
    let mut payload = time.to_be_bytes().to_vec();
    payload.extend_from_slice(&key.sign(cosigned_message(time, text).as_bytes()).to_bytes());
    Ok(SignatureLine { name: name.to_owned(), id: verifier.id(), payload })
}

/// A note: text and signature lines, none of them checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The signed text, ending in a newline.
    pub text: String,
    /// The signature lines in file order.
    pub signatures: Vec<SignatureLine>,
}

impl Note {
    /// Reads a note; nothing is verified.
    pub fn parse(bytes: &str) -> Result<Self, NoteError> {
        if has_control(bytes) {
            return Err(NoteError::Syntax("control character"));
        }
        let at = bytes.rfind("\n\n").ok_or(NoteError::Syntax("no blank line before the signatures"))?;
        let (text, lines) = (&bytes[..=at], &bytes[at + 2..]);
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Syntax("last line has no newline"))?;
        if lines.is_empty() {
            return Err(NoteError::Syntax("no signature"));
        }
        let signatures = lines.split('\n').map(SignatureLine::parse).collect::<Result<Vec<_>, _>>()?;
        if signatures.len() > SIGNATURE_LINES_MAX {
            return Err(NoteError::Syntax("too many signature lines"));
        }
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// The note's file form.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = format!("{}\n", self.text);
        for signature in &self.signatures {
            out.push_str(&signature.line());
            out.push('\n');
        }
        out
    }

    /// Whether `key` signed, and when: of several lines by one key the earliest time counts, so
    /// that the order of lines, which nobody signs, means nothing.
    ///
    /// `Ok(None)`: no such line. Every line of that name and id must verify
    /// ([`NoteError::Signature`] otherwise), as the specification demands.
    pub fn verified_by(&self, key: &VerifierKey) -> Result<Option<Verified>, NoteError> {
        let mut found: Option<Verified> = None;
        for line in self.lines_of(key) {
            let time = key.verify(&self.text, &line.payload)?;
            found = Some(found.map_or(Verified { time }, |found| Verified { time: found.time.min(time) }));
        }
        Ok(found)
    }

    /// Whether a line of this cosigner has a time of 2^63 or later, which the specification
    /// forbids whatever its signature.
    #[must_use]
    pub fn time_out_of_range(&self, key: &VerifierKey) -> bool {
        let late = |line: &SignatureLine| {
            line.payload.len() == COSIGNATURE_BYTES && line.payload.first().is_some_and(|byte| *byte >= 0x80)
        };
        key.key_type == KeyType::Cosignature && self.lines_of(key).any(late)
    }

    fn lines_of<'a>(&'a self, key: &'a VerifierKey) -> impl Iterator<Item = &'a SignatureLine> {
        let id = key.id();
        self.signatures.iter().filter(move |line| line.name == key.name && line.id == id)
    }
}

/// A signature that verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Unix seconds of a cosignature; `None` for a plain signature.
    pub time: Option<u64>,
}
