//! C2SP `tlog-tiles`: paths, hash tiles and entry bundles.
//!
//! A tile of level L holds up to 256 hashes: the roots of consecutive perfect subtrees of
//! 256^L leaves. Full tiles never change. An *entry bundle* holds the 256 entries below one
//! level-0 tile, each behind a big-endian `u16` length.

use thiserror::Error;

use crate::{
    hash::Hash32,
    merkle::{TreeSize, node_hash},
};

/// Hashes in a full tile, entries in a full bundle.
pub const TILE_WIDTH: u64 = 256;
/// Tree levels that one tile spans: 2^8 = [`TILE_WIDTH`].
pub const TILE_HEIGHT: u32 = 8;
/// Tile levels that a tree below 2^63 can have.
pub const TILE_LEVELS_MAX: u8 = 8;

/// Which tile or bundle a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TileKind {
    /// A hash tile of this level.
    Hashes(u8),
    /// An entry bundle.
    Entries,
}

/// Address of a tile or bundle, full (`width` 256) or partial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TilePath {
    /// Hashes or entries.
    pub kind: TileKind,
    /// Position within its level.
    pub index: u64,
    /// Number of hashes or entries, 1 to 256.
    pub width: u16,
}

impl TilePath {
    /// The path below the log's prefix, e.g. `tile/0/x001/234.p/17`.
    #[must_use]
    pub fn path(&self) -> String {
        let level = match self.kind {
            TileKind::Hashes(level) => level.to_string(),
            TileKind::Entries => "entries".to_owned(),
        };
        let mut groups = vec![format!("{:03}", self.index % 1000)];
        let mut rest = self.index / 1000;
        while rest > 0 {
            groups.push(format!("x{:03}", rest % 1000));
            rest /= 1000;
        }
        groups.reverse();
        let partial = if u64::from(self.width) < TILE_WIDTH { format!(".p/{}", self.width) } else { String::new() };
        format!("tile/{level}/{}{partial}", groups.join("/"))
    }

    /// Reads a path of exactly the form that [`Self::path`] writes.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        let (level, rest) = path.strip_prefix("tile/")?.split_once('/')?;
        let kind = match level {
            "entries" => TileKind::Entries,
            _ => TileKind::Hashes(decimal(level)?.try_into().ok().filter(|level| *level < 64)?),
        };
        let (index, width) = match rest.split_once(".p/") {
            Some((index, width)) => (index, decimal(width).filter(|width| (1..TILE_WIDTH).contains(width))?),
            None => (rest, TILE_WIDTH),
        };
        let mut number = 0_u64;
        let groups: Vec<&str> = index.split('/').collect();
        let (last, inner) = groups.split_last()?;
        for group in inner.iter().map(|group| group.strip_prefix('x')).chain([Some(*last)]) {
            let digits =
                group.filter(|digits| digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit()))?;
            number = number.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
        }
        let parsed = Self { kind, index: number, width: u16::try_from(width).ok()? };
        (parsed.path() == path).then_some(parsed)
    }
}

fn decimal(text: &str) -> Option<u64> {
    let canonical = text == "0" || (!text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()));
    if canonical { text.parse().ok() } else { None }
}

/// Width of the rightmost tile of `level` in a tree of `size`: 0 if that tile does not exist.
#[must_use]
pub const fn partial_width(level: u8, size: TreeSize) -> u64 {
    hashes_at(level, size) % TILE_WIDTH
}

/// Number of hashes that level `level` has in all in a tree of `size`.
#[must_use]
pub const fn hashes_at(level: u8, size: TreeSize) -> u64 {
    match size.0.checked_shr(level as u32 * TILE_HEIGHT) {
        Some(count) => count,
        None => 0,
    }
}

/// Root of a perfect subtree given the hashes at its bottom.
///
/// # Panics
/// If the number of hashes is not a power of two.
#[must_use]
pub fn perfect_root(hashes: &[Hash32]) -> Hash32 {
    assert!(hashes.len().is_power_of_two(), "a perfect subtree");
    let mut row = hashes.to_vec();
    while row.len() > 1 {
        row = row.chunks_exact(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
    }
    row[0]
}

/// A hash tile's file: its hashes one after the other.
#[must_use]
pub fn encode_hashes(hashes: &[Hash32]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// Reads a hash tile's file of `width` hashes.
#[must_use]
pub fn decode_hashes(bytes: &[u8], width: usize) -> Option<Vec<Hash32>> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    (rest.is_empty() && hashes.len() == width).then(|| hashes.iter().map(|hash| Hash32(*hash)).collect())
}

/// Why a bundle could not be read.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
#[error("entry bundle is malformed")]
pub struct BundleError;

/// Appends one entry to a bundle's bytes.
///
/// # Panics
/// If the entry is longer than `u16::MAX`; entries are bounded by
/// [`crate::entry::ENTRY_BYTES_MAX`].
pub fn push_entry(bundle: &mut Vec<u8>, entry: &[u8]) {
    let len = u16::try_from(entry.len()).expect("an entry within its bound");
    bundle.extend_from_slice(&len.to_be_bytes());
    bundle.extend_from_slice(entry);
}

/// Splits a bundle into exactly `width` entries.
pub fn decode_bundle(mut bytes: &[u8], width: usize) -> Result<Vec<&[u8]>, BundleError> {
    let mut entries = Vec::new();
    while let Some((len, rest)) = bytes.split_first_chunk::<2>() {
        let (entry, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len))).ok_or(BundleError)?;
        if entries.len() == width {
            return Err(BundleError);
        }
        entries.push(entry);
        bytes = rest;
    }
    if bytes.is_empty() && entries.len() == width { Ok(entries) } else { Err(BundleError) }
}
