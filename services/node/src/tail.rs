//! The right edge of the tree in memory: incomplete tiles and bundle, and complete ones until
//! they are durable as files.

use std::collections::BTreeMap;

use ledger_core::{
    Hash32,
    merkle::{Frontier, LeafIndex, NodeReader, TreeSize, leaf_hash},
    tile::{TILE_HEIGHT, TILE_WIDTH, TileKind, TilePath, encode_hashes, perfect_root, push_entry},
};

use crate::{
    NodeError,
    tiles::{FullTile, TileFiles},
};

/// Hash tiles by (level, index) and entry bundles by index.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    size: u64,
    tiles: BTreeMap<(u8, u64), Vec<Hash32>>,
    bundles: BTreeMap<u64, Vec<Vec<u8>>>,
    /// Tiles and bundles that became full and are not handed to the writer yet.
    completed: Vec<(TileKind, u64)>,
}

impl Tail {
    /// Rebuilds the edge of a tree of `size`: `entries` are those of the incomplete bundle, the
    /// rest is read from full tiles.
    pub(crate) fn load(size: TreeSize, entries: Vec<Vec<u8>>, files: &TileFiles) -> Result<Self, NodeError> {
        if entries.len() as u64 != size.0 % TILE_WIDTH {
            return Err(NodeError::Damaged("stored right edge has another length than the log".to_owned()));
        }
        let mut tail = Self { size: size.0, ..Self::default() };
        let leaves: Vec<Hash32> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        let bundle = size.0 / TILE_WIDTH;
        if !entries.is_empty() {
            tail.bundles.insert(bundle, entries);
            tail.tiles.insert((0, bundle), leaves);
        }
        for level in 1.. {
            let below = size.0.checked_shr(TILE_HEIGHT * u32::from(level)).unwrap_or(0);
            if below == 0 {
                break;
            }
            let start = below - below % TILE_WIDTH;
            let hashes = (start..below)
                .map(|child| Ok(perfect_root(&files.hashes(level - 1, child)?)))
                .collect::<Result<Vec<_>, NodeError>>()?;
            if !hashes.is_empty() {
                tail.tiles.insert((level, below / TILE_WIDTH), hashes);
            }
        }
        Ok(tail)
    }

    pub(crate) fn push(&mut self, leaf: Hash32, entry: Vec<u8>) {
        let bundle = self.size / TILE_WIDTH;
        let entries = self.bundles.entry(bundle).or_default();
        entries.push(entry);
        if entries.len() as u64 == TILE_WIDTH {
            self.completed.push((TileKind::Entries, bundle));
        }
        let (mut level, mut index, mut hash) = (0_u8, bundle, leaf);
        loop {
            let tile = self.tiles.entry((level, index)).or_default();
            tile.push(hash);
            if (tile.len() as u64) < TILE_WIDTH {
                break;
            }
            hash = perfect_root(tile);
            self.completed.push((TileKind::Hashes(level), index));
            (level, index) = (level + 1, index / TILE_WIDTH);
        }
        self.size += 1;
    }

    /// What became full since the last call, encoded for the writer.
    pub(crate) fn take_completed(&mut self) -> Vec<FullTile> {
        std::mem::take(&mut self.completed)
            .into_iter()
            .map(|(kind, index)| FullTile { kind, index, bytes: self.encode(kind, index, 256).unwrap_or_default() })
            .collect()
    }

    /// Forgets full tiles that are durable as files.
    pub(crate) fn forget(&mut self, written: &[FullTile]) {
        for tile in written {
            match tile.kind {
                TileKind::Hashes(level) => drop(self.tiles.remove(&(level, tile.index))),
                TileKind::Entries => drop(self.bundles.remove(&tile.index)),
            }
        }
    }

    /// Entries of the incomplete bundle of the tree of `size`, which may be behind this one; where
    /// the bundle is full by now and was forgotten, they are those of its file.
    pub(crate) fn incomplete_bundle(&self, size: TreeSize, files: &TileFiles) -> Result<Vec<Vec<u8>>, NodeError> {
        let first = size.0 - size.0 % TILE_WIDTH;
        (first..size.0).map(|index| self.entry(LeafIndex(index)).map_or_else(|| files.entry(index), Ok)).collect()
    }

    /// Bytes of a tile's or bundle's first `width` items, if they are in memory.
    pub(crate) fn encode(&self, kind: TileKind, index: u64, width: usize) -> Option<Vec<u8>> {
        match kind {
            TileKind::Hashes(level) => self.tiles.get(&(level, index))?.get(..width).map(encode_hashes),
            TileKind::Entries => {
                let mut bytes = Vec::new();
                self.bundles.get(&index)?.get(..width)?.iter().for_each(|entry| push_entry(&mut bytes, entry));
                Some(bytes)
            }
        }
    }

    pub(crate) fn entry(&self, index: LeafIndex) -> Option<Vec<u8>> {
        let at = usize::try_from(index.0 % TILE_WIDTH).ok()?;
        self.bundles.get(&(index.0 / TILE_WIDTH))?.get(at).cloned()
    }

    fn hashes(&self, level: u8, index: u64) -> Option<&[Hash32]> {
        self.tiles.get(&(level, index)).map(Vec::as_slice)
    }
}

/// The whole tree: edge in memory, full tiles on disk.
pub(crate) struct Tree<'a> {
    pub(crate) tail: &'a parking_lot::RwLock<Tail>,
    pub(crate) files: &'a TileFiles,
}

impl NodeReader for Tree<'_> {
    type Error = NodeError;

    fn node(&self, level: u32, index: u64) -> Result<Hash32, NodeError> {
        // Level 8 of the tree is both the root of a level-0 tile and an item of a level-1 tile;
        // the latter is one read instead of a fold.
        let tile_level = u8::try_from(level / TILE_HEIGHT).map_err(|_| NodeError::Damaged("tree level".to_owned()))?;
        let span = 1_u64 << (level % TILE_HEIGHT);
        let first = index * span;
        let (tile, at) = (first / TILE_WIDTH, usize::try_from(first % TILE_WIDTH).unwrap_or_default());
        let range = at..at + usize::try_from(span).unwrap_or_default();
        if let Some(hashes) = self.tail.read().hashes(tile_level, tile).and_then(|hashes| hashes.get(range.clone())) {
            return Ok(perfect_root(hashes));
        }
        Ok(perfect_root(&self.files.hashes(tile_level, tile)?[range]))
    }
}

impl Tree<'_> {
    pub(crate) fn frontier(&self, size: TreeSize) -> Result<Frontier, NodeError> {
        Frontier::load(size, self)
    }

    pub(crate) fn entry(&self, index: LeafIndex) -> Result<Vec<u8>, NodeError> {
        // The lock is not held while the disk is read.
        let in_memory = self.tail.read().entry(index);
        in_memory.map_or_else(|| self.files.entry(index.0), Ok)
    }

    /// A tile or bundle of the published tree of `size`, as served.
    pub(crate) fn serve(&self, path: TilePath, size: TreeSize) -> Result<Option<Vec<u8>>, NodeError> {
        let level = match path.kind {
            TileKind::Hashes(level) => level,
            TileKind::Entries => 0,
        };
        let width = u64::from(path.width);
        let available = ledger_core::tile::hashes_at(level, size);
        let last = path.index.checked_mul(TILE_WIDTH).and_then(|first| first.checked_add(width));
        if last.is_none_or(|last| last > available) {
            return Ok(None);
        }
        let width = usize::from(path.width);
        let in_memory = self.tail.read().encode(path.kind, path.index, width);
        if in_memory.is_some() {
            return Ok(in_memory);
        }
        let Some(bytes) = self.files.read(path.kind, path.index)? else {
            return Err(NodeError::Damaged(format!("{} is missing", self.files.path(path.kind, path.index).display())));
        };
        Ok(Some(prefix(path.kind, bytes, width)))
    }
}

/// The first `width` items of a full tile or bundle.
pub(crate) fn prefix(kind: TileKind, mut bytes: Vec<u8>, width: usize) -> Vec<u8> {
    let len = match kind {
        TileKind::Hashes(_) => width * 32,
        TileKind::Entries => (0..width).fold(0, |at, _| {
            bytes.get(at..at + 2).map_or(at, |len| at + 2 + usize::from(u16::from_be_bytes([len[0], len[1]])))
        }),
    };
    bytes.truncate(len);
    bytes
}
