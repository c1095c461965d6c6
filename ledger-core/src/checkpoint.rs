//! C2SP `tlog-checkpoint`: the three-line text that members sign.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{hash::Hash32, merkle::TreeSize, note::NoteError};

/// Sizes and times stay below 2^63, so that signed readers cannot overflow.
pub const U63_MAX: u64 = (1 << 63) - 1;

/// Origin, tree size and root: what a checkpoint says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// `<network-domain>/log`.
    pub origin: String,
    /// Number of entries.
    pub size: TreeSize,
    /// Root of the tree of that size.
    pub root: Hash32,
}

impl Checkpoint {
    /// The three lines, each ending in a newline; never an extension line.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size.0, STANDARD.encode(self.root.0))
    }

    /// Reads exactly three lines.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let lines: Vec<&str> = text.strip_suffix('\n').ok_or(NoteError::Syntax("body"))?.split('\n').collect();
        let [origin, size, root] = lines[..] else {
            return Err(NoteError::Syntax("a checkpoint body has three lines"));
        };
        if origin.is_empty() {
            return Err(NoteError::Syntax("origin"));
        }
        let size = decimal_u63(size).ok_or(NoteError::Syntax("tree size"))?;
        let root = decode_hash(root).ok_or(NoteError::Syntax("root hash"))?;
        Ok(Self { origin: origin.to_owned(), size: TreeSize(size), root })
    }
}

/// A decimal below 2^63 without sign or leading zeros.
#[must_use]
pub fn decimal_u63(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || (text.len() > 1 && text.starts_with('0')) {
        return None;
    }
    text.parse().ok().filter(|number| *number <= U63_MAX)
}

/// Base64 of exactly 32 bytes.
#[must_use]
pub fn decode_hash(text: &str) -> Option<Hash32> {
    STANDARD.decode(text).ok()?.try_into().ok().map(Hash32)
}

/// The base64 line of a hash.
#[must_use]
pub fn encode_hash(hash: &Hash32) -> String {
    STANDARD.encode(hash.0)
}
