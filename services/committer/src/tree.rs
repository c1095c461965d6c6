//! Nodes of the log's tree, read from tiles: the right edge of an earlier tree, and the proof
//! that an earlier tree is a prefix of a checkpoint's. Tiles are not trusted: whatever is
//! computed from them is compared with a root that is.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    ops::Range,
};

use ledger_core::{
    hash::Hash32,
    merkle::{Frontier, NodeReader, TreeSize, consistency_proof, verify_consistency},
    tile::{TILE_HEIGHT, TILE_WIDTH, TileKind, TilePath, decode_hashes, hashes_at, perfect_root},
};

use crate::{
    error::{CheckError, CommitterError},
    source::{Source, behind},
};

/// A tree's size and root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tree {
    pub(crate) size: TreeSize,
    pub(crate) root: Hash32,
}

/// Records which tiles a computation reads; which they are never depends on what they hold.
struct Wanted {
    size: TreeSize,
    tiles: RefCell<BTreeSet<TilePath>>,
}

impl NodeReader for Wanted {
    type Error = Infallible;

    fn node(&self, level: u32, index: u64) -> Result<Hash32, Infallible> {
        self.tiles.borrow_mut().extend(place(level, index, self.size).map(|(path, _)| path));
        Ok(Hash32::ZERO)
    }
}

impl Wanted {
    fn of(size: TreeSize, compute: impl Fn(&Self)) -> BTreeSet<TilePath> {
        let wanted = Self { size, tiles: RefCell::default() };
        compute(&wanted);
        wanted.tiles.into_inner()
    }
}

/// The tiles in memory.
struct Tiles {
    size: TreeSize,
    tiles: BTreeMap<TilePath, Vec<Hash32>>,
}

impl NodeReader for Tiles {
    type Error = CheckError;

    fn node(&self, level: u32, index: u64) -> Result<Hash32, CheckError> {
        let (path, range) = place(level, index, self.size).ok_or(CheckError::Tiles)?;
        let hashes = self.tiles.get(&path).and_then(|tile| tile.get(range)).ok_or(CheckError::Tiles)?;
        Ok(perfect_root(hashes))
    }
}

/// The tile that holds the bottom of a perfect subtree in a tree of `size`, and where in it;
/// `None` if the subtree is not wholly in the tree.
fn place(level: u32, index: u64, size: TreeSize) -> Option<(TilePath, Range<usize>)> {
    let (tile_level, within) = (u8::try_from(level / TILE_HEIGHT).ok()?, level % TILE_HEIGHT);
    let first = index << within;
    let tile = first / TILE_WIDTH;
    let width = hashes_at(tile_level, size).checked_sub(tile * TILE_WIDTH)?.min(TILE_WIDTH);
    let path = TilePath { kind: TileKind::Hashes(tile_level), index: tile, width: u16::try_from(width).ok()? };
    let start = usize::try_from(first % TILE_WIDTH).ok()?;
    let range = start..start + (1 << within);
    (range.end <= usize::from(path.width)).then_some((path, range))
}

impl Source {
    /// The right edge of the tree of `size`, to be compared with a trusted root by the caller.
    /// `published` is a later size, whose tiles the node serves.
    pub(crate) async fn frontier(&self, size: TreeSize, published: TreeSize) -> Result<Frontier, CommitterError> {
        let wanted = Wanted::of(published, |wanted| {
            let Ok(_) = Frontier::load(size, wanted);
        });
        let tiles = Tiles { size: published, tiles: self.tiles(wanted).await? };
        Frontier::load(size, &tiles).map_err(|check| check.at(size.0))
    }

    /// Proves that `old`, the tree after block `height`, is a prefix of `new`.
    pub(crate) async fn prove_covered(&self, height: u64, old: Tree, new: Tree) -> Result<(), CommitterError> {
        if old.size > new.size {
            return Err(CheckError::CheckpointRoot.at(height));
        }
        let wanted = Wanted::of(new.size, |wanted| {
            let Ok(_) = consistency_proof(old.size, new.size, wanted);
        });
        let tiles = Tiles { size: new.size, tiles: self.tiles(wanted).await? };
        let proof = consistency_proof(old.size, new.size, &tiles).map_err(|check| check.at(height))?;
        verify_consistency(old.size, new.size, &old.root, &new.root, &proof)
            .map_err(|error| CheckError::Consistency(error).at(height))
    }

    async fn tiles(&self, wanted: BTreeSet<TilePath>) -> Result<BTreeMap<TilePath, Vec<Hash32>>, CommitterError> {
        let mut tiles = BTreeMap::new();
        for path in wanted {
            tiles.insert(path, self.tile(path).await?);
        }
        Ok(tiles)
    }

    /// One tile. A log may drop a partial tile once it has the full one, which begins with the
    /// same hashes.
    async fn tile(&self, path: TilePath) -> Result<Vec<Hash32>, CommitterError> {
        let full = TilePath { width: 256, ..path };
        let mut patience = self.caller.patience("ledger");
        loop {
            for path in [path, full] {
                let read = || self.reader.tile(path);
                if let Some(bytes) = self.caller.call("ledger", self.timeout, read).await? {
                    return decode_hashes(&bytes, usize::from(path.width))
                        .ok_or_else(|| CheckError::Tiles.at(path.index));
                }
            }
            patience.after(behind(path.path())).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use ledger_core::{
        merkle::{Frontier, NodeReader as _, TreeSize, leaf_hash, root_at},
        tile::{TILE_WIDTH, TileKind},
    };

    use super::{Hash32, Tiles, Wanted, consistency_proof, place, verify_consistency};

    fn leaves(count: u64) -> Vec<Hash32> {
        (0..count).map(|at| leaf_hash(&at.to_be_bytes())).collect()
    }

    /// The tiles that a computation wants, made from the leaves.
    fn tiles(size: TreeSize, leaves: &[Hash32], compute: impl Fn(&Wanted)) -> Tiles {
        let tiles = Wanted::of(size, compute).into_iter().map(|path| {
            let TileKind::Hashes(level) = path.kind else { panic!("only hash tiles hold nodes") };
            let hash = |at: u64| leaves.node(u32::from(level) * 8, path.index * TILE_WIDTH + at).unwrap();
            (path, (0..u64::from(path.width)).map(hash).collect())
        });
        Tiles { size, tiles: tiles.collect() }
    }

    /// Sizes around every boundary of tile widths, and trees of three tile levels.
    const SIZES: [u64; 14] = [1, 2, 3, 255, 256, 257, 511, 513, 700, 4_096, 65_535, 65_536, 65_537, 70_001];

    #[test]
    fn a_frontier_from_tiles_has_the_root_of_its_tree() {
        let leaves = leaves(70_001);
        for size in SIZES.map(TreeSize) {
            let load = |wanted: &Wanted| drop(Frontier::load(size, wanted));
            let tiles = tiles(size, &leaves, load);
            assert!(tiles.tiles.len() <= 6, "{} tiles for a tree of {}", tiles.tiles.len(), size.0);
            let frontier = Frontier::load(size, &tiles).unwrap();
            assert_eq!(frontier.root(), root_at(size, leaves.as_slice()).unwrap());
        }
    }

    #[test]
    fn consistency_from_tiles_holds_between_all_sizes() {
        let leaves = leaves(70_001);
        let root = |size| root_at(size, leaves.as_slice()).unwrap();
        for new in SIZES.map(TreeSize) {
            for old in SIZES.map(TreeSize).into_iter().filter(|old| *old <= new) {
                let tiles = tiles(new, &leaves, |wanted| drop(consistency_proof(old, new, wanted)));
                let proof = consistency_proof(old, new, &tiles).unwrap();
                verify_consistency(old, new, &root(old), &root(new), &proof).unwrap();
            }
        }
    }

    #[test]
    fn a_subtree_lies_within_one_tile() {
        let size = TreeSize(70_001);
        let (path, range) = place(3, 40, size).unwrap();
        assert_eq!((path.path().as_str(), range), ("tile/0/001", 64..72));
        let (path, range) = place(8, 272, size).unwrap();
        assert_eq!((path.path().as_str(), range), ("tile/1/001.p/17", 16..17));
    }
}
