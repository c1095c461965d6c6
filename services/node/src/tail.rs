//! The right edge of the tree in memory: incomplete tiles and bundle, and complete ones until
//! they are durable as files.

use std::{collections::BTreeMap, ops::Range};

use ledger_core::{
    Hash32,
    merkle::{Frontier, LeafIndex, NodeReader, TreeSize, leaf_hash},
    tile::{
        TILE_HEIGHT, TILE_LEVELS_MAX, TILE_WIDTH, TileKind, TilePath, decode_bundle, decode_hashes, encode_hashes,
        hashes_at, perfect_root, push_entry,
    },
};

use crate::{
    NodeError,
    bugs::{Bug, has},
    tiles::{FullTile, TileFiles},
};

const NOT_OF_THE_TREE: &str = "does not lead to the signed root";

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
    /// Rebuilds the edge of a tree of `size`: `entries` are those of the incomplete bundle, and the
    /// rest is read from full tiles. Whether it leads to the right root is for the caller to see.
    pub(crate) fn load(size: TreeSize, entries: Vec<Vec<u8>>, files: &TileFiles) -> Result<Self, NodeError> {
        Self::assemble(size, entries, |level, children| {
            children.map(|child| Ok(perfect_root(&files.hashes(level - 1, child)?))).collect()
        })
    }

    /// Builds the edge of a tree of `size` from the entries of its incomplete bundle and from what
    /// `hashes` gives for the incomplete tile of each further level: the roots of these full tiles
    /// of the level below.
    pub(crate) fn assemble(
        size: TreeSize,
        entries: Vec<Vec<u8>>,
        mut hashes: impl FnMut(u8, Range<u64>) -> Result<Vec<Hash32>, NodeError>,
    ) -> Result<Self, NodeError> {
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
        for (level, children) in incomplete_tiles(size) {
            let tile = children.end / TILE_WIDTH;
            tail.tiles.insert((level, tile), hashes(level, children)?);
        }
        Ok(tail)
    }

    pub(crate) fn size(&self) -> TreeSize {
        TreeSize(self.size)
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

    /// Entries of the incomplete bundle.
    pub(crate) fn incomplete_bundle(&self) -> Vec<Vec<u8>> {
        self.bundles.get(&(self.size / TILE_WIDTH)).cloned().unwrap_or_default()
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

    fn entries(&self, bundle: u64, range: &Range<usize>) -> Option<Vec<Vec<u8>>> {
        Some(self.bundles.get(&bundle)?.get(range.clone())?.to_vec())
    }

    fn hashes(&self, level: u8, index: u64) -> Option<&[Hash32]> {
        self.tiles.get(&(level, index)).map(Vec::as_slice)
    }
}

/// Level from 1 on of every incomplete hash tile of a tree of `size`, with the full tiles of the
/// level below whose roots it holds.
pub(crate) fn incomplete_tiles(size: TreeSize) -> impl Iterator<Item = (u8, Range<u64>)> {
    let children = move |level: u8| {
        let below = size.0.checked_shr(TILE_HEIGHT * u32::from(level)).unwrap_or(0);
        (level, below - below % TILE_WIDTH..below)
    };
    (1..=TILE_LEVELS_MAX).map(children).filter(|(_, children)| !children.is_empty())
}

/// The level-0 hashes or higher ones that a full tile or bundle stands for; `None` if it is malformed.
pub(crate) fn hashes_of(kind: TileKind, bytes: &[u8]) -> Option<Vec<Hash32>> {
    match kind {
        TileKind::Hashes(_) => decode_hashes(bytes, 256),
        TileKind::Entries => Some(decode_bundle(bytes, 256).ok()?.into_iter().map(leaf_hash).collect()),
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

    /// Root of what a full tile or bundle covers, as the edge in memory vouches for it: that edge was
    /// executed or led to the root at the start, and whatever lies between is checked on the way.
    pub(crate) fn vouched_root(&self, kind: TileKind, index: u64) -> Result<Hash32, NodeError> {
        let level = match kind {
            TileKind::Hashes(level) => level,
            TileKind::Entries => 0,
        };
        if level >= TILE_LEVELS_MAX {
            return Err(NodeError::Damaged(format!("no edge covers tile {index} of level {level}")));
        }
        let (above, parent, at) = (level + 1, index / TILE_WIDTH, usize::try_from(index % TILE_WIDTH).unwrap_or(0));
        if let Some(hash) = self.tail.read().hashes(above, parent).and_then(|hashes| hashes.get(at)) {
            return Ok(*hash);
        }
        let vouched = self.vouched_root(TileKind::Hashes(above), parent)?;
        let hashes = self.files.hashes(above, parent)?;
        if perfect_root(&hashes) == vouched {
            Ok(hashes[at])
        } else {
            Err(self.files.damaged(TileKind::Hashes(above), parent, NOT_OF_THE_TREE))
        }
    }

    /// Checks bytes that were read from the file of a full tile or bundle.
    fn check_bytes(&self, kind: TileKind, index: u64, bytes: &[u8]) -> Result<(), NodeError> {
        let root = hashes_of(kind, bytes).map(|hashes| perfect_root(&hashes));
        let root = root.ok_or_else(|| self.files.damaged(kind, index, "is malformed"))?;
        if self.vouched_root(kind, index)? == root {
            Ok(())
        } else {
            Err(self.files.damaged(kind, index, NOT_OF_THE_TREE))
        }
    }

    /// Whether a full tile or bundle is in memory, where it waits to be written.
    pub(crate) fn is_in_memory(&self, kind: TileKind, index: u64) -> bool {
        self.tail.read().encode(kind, index, 256).is_some()
    }

    /// Root of a full hash tile, unchecked where it comes from a file.
    pub(crate) fn tile_root(&self, level: u8, index: u64) -> Result<Hash32, NodeError> {
        let in_memory = self.tail.read().hashes(level, index).and_then(|hashes| hashes.get(..256)).map(perfect_root);
        in_memory.map_or_else(|| Ok(perfect_root(&self.files.hashes(level, index)?)), Ok)
    }

    /// Checks the file of a full tile or bundle, if it is not in memory.
    pub(crate) fn check(&self, kind: TileKind, index: u64) -> Result<(), NodeError> {
        if self.is_in_memory(kind, index) {
            return Ok(());
        }
        self.check_bytes(kind, index, &self.files.read(kind, index)?)
    }

    /// Entries from `first` up to `end`, each checked against its leaf hash.
    pub(crate) fn entries(&self, first: u64, end: u64) -> Result<Vec<Vec<u8>>, NodeError> {
        let mut entries = Vec::new();
        let mut at = first;
        while at < end {
            let bundle = at / TILE_WIDTH;
            let bundle_end = end.min((bundle + 1) * TILE_WIDTH);
            let place = |index: u64| usize::try_from(index - bundle * TILE_WIDTH).unwrap_or_default();
            entries.extend(self.entries_of(bundle, &(place(at)..place(bundle_end)))?);
            at = bundle_end;
        }
        Ok(entries)
    }

    fn entries_of(&self, bundle: u64, range: &Range<usize>) -> Result<Vec<Vec<u8>>, NodeError> {
        // The lock is not held while the disk is read.
        let in_memory = self.tail.read().entries(bundle, range);
        if let Some(entries) = in_memory {
            return Ok(entries);
        }
        let kind = TileKind::Entries;
        let bytes = self.files.read(kind, bundle)?;
        let entries = decode_bundle(&bytes, 256).map_err(|_| self.files.damaged(kind, bundle, "is malformed"))?;
        let in_memory = self.tail.read().hashes(0, bundle).map(<[Hash32]>::to_vec);
        let leaves = in_memory.map_or_else(|| self.files.hashes(0, bundle), Ok)?;
        let fit =
            entries[range.clone()].iter().zip(&leaves[range.clone()]).all(|(entry, leaf)| leaf_hash(entry) == *leaf);
        if !fit {
            // One of the two is damaged: the one that does not lead to the root.
            self.check(TileKind::Hashes(0), bundle)?;
            self.check(kind, bundle)?;
            return Err(self.files.damaged(kind, bundle, "was being repaired"));
        }
        Ok(entries[range.clone()].iter().map(|entry| entry.to_vec()).collect())
    }

    /// A tile or bundle of the published tree of `size`, as served: whatever comes from a file is
    /// checked as a whole, for the first items of a tile that is full by now come from its file too.
    pub(crate) fn serve(&self, path: TilePath, size: TreeSize) -> Result<Option<Vec<u8>>, NodeError> {
        let level = match path.kind {
            TileKind::Hashes(level) => level,
            TileKind::Entries => 0,
        };
        let width = u64::from(path.width);
        let available = hashes_at(level, size);
        let last = path.index.checked_mul(TILE_WIDTH).and_then(|first| first.checked_add(width));
        if last.is_none_or(|last| last > available) {
            return Ok(None);
        }
        let width = usize::from(path.width);
        let in_memory = self.tail.read().encode(path.kind, path.index, width);
        if in_memory.is_some() {
            return Ok(in_memory);
        }
        let bytes = self.files.read(path.kind, path.index)?;
        if !has(Bug::ServesWhatIsDamaged) {
            self.check_bytes(path.kind, path.index, &bytes)?;
        }
        Ok(Some(prefix(path.kind, bytes, width)))
    }

    /// Tiles and bundles that the path of `index` in a tree of `size` may be read from, those of the
    /// highest level first.
    pub(crate) fn on_path(&self, index: LeafIndex, size: TreeSize) -> Vec<(TileKind, u64)> {
        let whole = self.tail.read().size();
        let mut parts = Vec::new();
        for level in (0..TILE_LEVELS_MAX).rev() {
            let full = hashes_at(level, whole) / TILE_WIDTH;
            let tile = |leaf: u64| leaf.checked_shr(TILE_HEIGHT * (u32::from(level) + 1)).unwrap_or(0);
            let tiles = std::collections::BTreeSet::from([tile(index.0), tile(size.0)]);
            parts.extend(tiles.into_iter().filter(|tile| *tile < full).map(|tile| (TileKind::Hashes(level), tile)));
        }
        parts
    }
}

/// The first `width` items of a full tile or bundle.
fn prefix(kind: TileKind, mut bytes: Vec<u8>, width: usize) -> Vec<u8> {
    let len = match kind {
        TileKind::Hashes(_) => width * 32,
        TileKind::Entries => (0..width).fold(0, |at, _| {
            bytes.get(at..at + 2).map_or(at, |len| at + 2 + usize::from(u16::from_be_bytes([len[0], len[1]])))
        }),
    };
    bytes.truncate(len);
    bytes
}
