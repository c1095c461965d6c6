//! C2SP `tlog-proof@v1`: the receipt, a text that proves one entry offline.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use thiserror::Error;

use crate::{
    checkpoint::{decimal_u63, decode_hash, encode_hash},
    hash::Hash32,
    merkle::{LeafIndex, PROOF_HASHES_MAX},
};

/// First line of every receipt.
pub const HEADER: &str = "c2sp.org/tlog-proof@v1";
/// A receipt of 64 signatures stays far below this.
pub const RECEIPT_BYTES_MAX: usize = 256 * 1024;

/// A receipt, split but not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The opening of a confidential entry.
    pub extra: Option<Vec<u8>>,
    /// Index of the entry.
    pub index: LeafIndex,
    /// Sibling hashes from the leaf up.
    pub path: Vec<Hash32>,
    /// The checkpoint with all its signatures, verbatim.
    pub checkpoint: String,
}

/// Why a receipt could not be read.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum ReceiptError {
    /// Another format or version.
    #[error("not a {HEADER} receipt")]
    UnknownFormat,
    /// The right first line, then a fault.
    #[error("malformed receipt: {0}")]
    Syntax(&'static str),
}

impl Receipt {
    /// Reads a receipt; nothing is verified.
    pub fn parse(text: &str) -> Result<Self, ReceiptError> {
        let rest = text.strip_prefix(HEADER).and_then(|rest| rest.strip_prefix('\n'));
        let rest = rest.ok_or(ReceiptError::UnknownFormat)?;
        let (head, checkpoint) =
            rest.split_once("\n\n").ok_or(ReceiptError::Syntax("no blank line before the checkpoint"))?;
        let mut lines = head.split('\n').peekable();
        let extra = match lines.next_if(|line| line.starts_with("extra ")) {
            Some(line) => {
                // Where there is no extra data, the line is left out, not empty.
                let extra = STANDARD.decode(&line["extra ".len()..]).ok().filter(|extra| !extra.is_empty());
                Some(extra.ok_or(ReceiptError::Syntax("extra line is empty or not base64"))?)
            }
            None => None,
        };
        let index = lines.next().and_then(|line| line.strip_prefix("index ")).and_then(decimal_u63);
        let index = index.ok_or(ReceiptError::Syntax("index line"))?;
        let path = lines.map(decode_hash).collect::<Option<Vec<_>>>();
        let path = path.ok_or(ReceiptError::Syntax("path line is not base64 of 32 bytes"))?;
        if path.len() > PROOF_HASHES_MAX {
            return Err(ReceiptError::Syntax("too many path lines"));
        }
        if checkpoint.starts_with('\n') {
            return Err(ReceiptError::Syntax("second blank line"));
        }
        Ok(Self { extra, index: LeafIndex(index), path, checkpoint: checkpoint.to_owned() })
    }

    /// The receipt's file form.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = format!("{HEADER}\n");
        if let Some(extra) = &self.extra {
            out.push_str(&format!("extra {}\n", STANDARD.encode(extra)));
        }
        out.push_str(&format!("index {}\n", self.index.0));
        for hash in &self.path {
            out.push_str(&encode_hash(hash));
            out.push('\n');
        }
        out.push('\n');
        out.push_str(&self.checkpoint);
        out
    }
}
