//! The Merkle tree of RFC 9162, section 2.1, with the hashing of RFC 6962: SHA-256,
//! `0x00` before a leaf, `0x01` before a node.
//!
//! [`Frontier`] grows a tree in O(log n) memory; proofs are made from any [`NodeReader`] and
//! checked with no storage at all.

use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::hash::Hash32;

/// Position of an entry in the log; the first is 0. An index is always below a [`TreeSize`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeafIndex(pub u64);

/// Number of entries in a log; one past the last [`LeafIndex`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TreeSize(pub u64);

/// A proof longer than this cannot belong to a tree below 2^63.
pub const PROOF_HASHES_MAX: usize = 63;

/// Root of the empty tree: SHA-256 of nothing (RFC 9162, 2.1.1).
#[must_use]
pub fn empty_root() -> Hash32 {
    Hash32(Sha256::digest([]).into())
}

/// Hash of a leaf: SHA-256(0x00 ‖ data).
#[must_use]
pub fn leaf_hash(data: &[u8]) -> Hash32 {
    Hash32(Sha256::new().chain_update([0]).chain_update(data).finalize().into())
}

/// Hash of a node: SHA-256(0x01 ‖ left ‖ right).
#[must_use]
pub fn node_hash(left: &Hash32, right: &Hash32) -> Hash32 {
    let mut input = [1_u8; 65];
    input[1..33].copy_from_slice(&left.0);
    input[33..].copy_from_slice(&right.0);
    Hash32(Sha256::digest(input).into())
}

/// The right edge of a tree: the roots of its perfect subtrees, largest first.
///
/// Invariant: `peaks.len()` is the number of one bits of `size`. Only [`Frontier::push`] moves
/// both. Otherwise a root would be signed that no stored entries reproduce.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash32>,
}

impl Frontier {
    /// The empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The frontier of a stored tree, read from its nodes.
    pub fn load<R: NodeReader + ?Sized>(size: TreeSize, nodes: &R) -> Result<Self, R::Error> {
        let mut peaks = Vec::new();
        let mut start = 0;
        for level in (0..64_u32).rev().filter(|level| size.0 >> level & 1 == 1) {
            peaks.push(nodes.node(level, start >> level)?);
            start += 1 << level;
        }
        Ok(Self { size: size.0, peaks })
    }

    /// Appends one leaf hash.
    pub fn push(&mut self, leaf: Hash32) {
        let mut hash = leaf;
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                hash = node_hash(&left, &hash);
            }
        }
        self.peaks.push(hash);
        self.size += 1;
        debug_assert_eq!(self.peaks.len(), self.size.count_ones() as usize);
    }

    /// Number of leaves.
    #[must_use]
    pub const fn size(&self) -> TreeSize {
        TreeSize(self.size)
    }

    /// Root hash.
    #[must_use]
    pub fn root(&self) -> Hash32 {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else { return empty_root() };
        peaks.fold(*last, |right, left| node_hash(left, &right))
    }
}

/// Where the perfect subtrees of a stored tree are read.
pub trait NodeReader {
    /// Why a node could not be read.
    type Error;

    /// Root of the perfect subtree over leaves `[index << level, (index + 1) << level)`.
    /// Callers ask only for subtrees that lie wholly inside the tree.
    fn node(&self, level: u32, index: u64) -> Result<Hash32, Self::Error>;
}

/// A leaf hash list is its own reader: the tests' and small tools' tree.
impl NodeReader for [Hash32] {
    type Error = std::convert::Infallible;

    fn node(&self, level: u32, index: u64) -> Result<Hash32, Self::Error> {
        if level == 0 {
            return Ok(usize::try_from(index).ok().and_then(|at| self.get(at)).copied().unwrap_or_default());
        }
        Ok(node_hash(&self.node(level - 1, 2 * index)?, &self.node(level - 1, 2 * index + 1)?))
    }
}

/// Hash of the subtree over leaves `[start, end)`, `start` aligned as RFC 9162 splits.
fn subtree<R: NodeReader + ?Sized>(start: u64, end: u64, nodes: &R) -> Result<Hash32, R::Error> {
    let len = end - start;
    if len.is_power_of_two() {
        let level = len.trailing_zeros();
        return nodes.node(level, start >> level);
    }
    let split = start + split_point(len);
    Ok(node_hash(&subtree(start, split, nodes)?, &subtree(split, end, nodes)?))
}

/// The largest power of two below `len` (RFC 9162, 2.1.1); `len` is at least 2.
const fn split_point(len: u64) -> u64 {
    1 << (63 - (len - 1).leading_zeros())
}

/// Root of the first `size` leaves.
pub fn root_at<R: NodeReader + ?Sized>(size: TreeSize, nodes: &R) -> Result<Hash32, R::Error> {
    if size.0 == 0 { Ok(empty_root()) } else { subtree(0, size.0, nodes) }
}

/// Inclusion proof of `index` in the tree of `size`: sibling hashes from the leaf up
/// (RFC 9162, 2.1.3.1).
///
/// # Panics
/// If `index` is not below `size`; callers check what comes from outside.
pub fn inclusion_proof<R: NodeReader + ?Sized>(
    index: LeafIndex,
    size: TreeSize,
    nodes: &R,
) -> Result<Vec<Hash32>, R::Error> {
    assert!(index.0 < size.0, "leaf {} is outside a tree of {}", index.0, size.0);
    let (mut start, mut end) = (0, size.0);
    let mut path = Vec::new();
    while end - start > 1 {
        let split = start + split_point(end - start);
        if index.0 < split {
            path.push(subtree(split, end, nodes)?);
            end = split;
        } else {
            path.push(subtree(start, split, nodes)?);
            start = split;
        }
    }
    path.reverse();
    Ok(path)
}

/// Consistency proof from `old` to `new` (RFC 9162, 2.1.4.1); empty when they are equal or
/// `old` is empty.
///
/// # Panics
/// If `old` is larger than `new`.
pub fn consistency_proof<R: NodeReader + ?Sized>(
    old: TreeSize,
    new: TreeSize,
    nodes: &R,
) -> Result<Vec<Hash32>, R::Error> {
    assert!(old <= new, "a log does not shrink");
    if old.0 == 0 || old == new {
        return Ok(Vec::new());
    }
    let (mut start, mut end, mut whole) = (0, new.0, true);
    let mut path = Vec::new();
    while old.0 != end {
        let split = start + split_point(end - start);
        if old.0 <= split {
            path.push(subtree(split, end, nodes)?);
            end = split;
        } else {
            path.push(subtree(start, split, nodes)?);
            start = split;
            whole = false;
        }
    }
    if !whole {
        path.push(subtree(start, end, nodes)?);
    }
    path.reverse();
    Ok(path)
}

/// Why a proof does not hold.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum ProofError {
    /// The index is not below the tree size, or the sizes are out of order.
    #[error("index or size outside the tree")]
    Range,
    /// The proof has another number of hashes than this index and size need.
    #[error("proof has the wrong length")]
    Length,
    /// The hashes do not lead to the root.
    #[error("proof does not lead to the root")]
    Root,
}

/// Number of hashes in the inclusion proof of `index` in a tree of `size` (`index < size`).
#[must_use]
pub const fn inclusion_proof_len(index: LeafIndex, size: TreeSize) -> u32 {
    // Below the level where the paths of `index` and of the last leaf meet, every level adds a
    // sibling; above it only the levels where the last leaf's path is a right child.
    let meet = 64 - (index.0 ^ (size.0 - 1)).leading_zeros();
    meet + if meet == 64 { 0 } else { (index.0 >> meet).count_ones() }
}

/// Checks an inclusion proof (RFC 9162, 2.1.3.2).
pub fn verify_inclusion(
    leaf: &Hash32,
    index: LeafIndex,
    size: TreeSize,
    proof: &[Hash32],
    root: &Hash32,
) -> Result<(), ProofError> {
    if index.0 >= size.0 {
        return Err(ProofError::Range);
    }
    if proof.len() != inclusion_proof_len(index, size) as usize {
        return Err(ProofError::Length);
    }
    let (mut node, mut last) = (index.0, size.0 - 1);
    let mut hash = *leaf;
    for sibling in proof {
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if hash == *root { Ok(()) } else { Err(ProofError::Root) }
}

/// Checks a consistency proof (RFC 9162, 2.1.4.2). Every tree follows the empty one, whatever
/// `old_root` the caller has for it; the proof is empty then, and between equal sizes.
pub fn verify_consistency(
    old: TreeSize,
    new: TreeSize,
    old_root: &Hash32,
    new_root: &Hash32,
    proof: &[Hash32],
) -> Result<(), ProofError> {
    if old > new {
        return Err(ProofError::Range);
    }
    if old == new || old.0 == 0 {
        return match (proof.is_empty(), old < new || old_root == new_root) {
            (false, _) => Err(ProofError::Length),
            (true, false) => Err(ProofError::Root),
            (true, true) => Ok(()),
        };
    }
    let mut path = proof.iter();
    let seed = if old.0.is_power_of_two() { old_root } else { path.next().ok_or(ProofError::Length)? };
    let (mut node, mut last) = (old.0 - 1, new.0 - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let (mut old_hash, mut new_hash) = (*seed, *seed);
    for sibling in path {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if node & 1 == 1 || node == last {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(ProofError::Length);
    }
    if old_hash == *old_root && new_hash == *new_root { Ok(()) } else { Err(ProofError::Root) }
}
