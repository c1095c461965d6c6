//! The tree against the definitions of RFC 9162 written down naively, against `ct-merkle`, and
//! against the vectors that Certificate Transparency implementations share.

use ct_merkle::{ConsistencyProof, InclusionProof, mem_backed_tree::MemoryBackedTree};
use ledger_core::{
    Hash32,
    merkle::{
        Frontier, LeafIndex, PROOF_HASHES_MAX, ProofError, TreeSize, consistency_proof, empty_root, inclusion_proof,
        inclusion_proof_len, leaf_hash, node_hash, root_at, verify_consistency, verify_inclusion,
    },
};
use proptest::prelude::*;
use sha2::Sha256;

/// MTH of RFC 9162, 2.1.1.
fn mth(leaves: &[Hash32]) -> Hash32 {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            node_hash(&mth(left), &mth(right))
        }
    }
}

/// The largest power of two below `len`.
fn split(len: usize) -> usize {
    let mut k = 1;
    while 2 * k < len {
        k *= 2;
    }
    k
}

/// PATH of RFC 9162, 2.1.3.1.
fn path(at: usize, leaves: &[Hash32]) -> Vec<Hash32> {
    if leaves.len() <= 1 {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    let (mut proof, sibling) =
        if at < left.len() { (path(at, left), mth(right)) } else { (path(at - left.len(), right), mth(left)) };
    proof.push(sibling);
    proof
}

/// SUBPROOF of RFC 9162, 2.1.4.1.
fn subproof(old: usize, leaves: &[Hash32], whole: bool) -> Vec<Hash32> {
    if old == leaves.len() {
        return if whole { Vec::new() } else { vec![mth(leaves)] };
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    let (mut proof, sibling) = if old <= left.len() {
        (subproof(old, left, whole), mth(right))
    } else {
        (subproof(old - left.len(), right, false), mth(left))
    };
    proof.push(sibling);
    proof
}

fn data(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|at| format!("leaf {at}").into_bytes()).collect()
}

fn hashes(data: &[Vec<u8>]) -> Vec<Hash32> {
    data.iter().map(|leaf| leaf_hash(leaf)).collect()
}

fn size(count: usize) -> TreeSize {
    TreeSize(count as u64)
}

fn index(at: usize) -> LeafIndex {
    LeafIndex(at as u64)
}

fn included(at: usize, leaves: &[Hash32]) -> Vec<Hash32> {
    let Ok(proof) = inclusion_proof(index(at), size(leaves.len()), leaves);
    proof
}

fn consistent(old: usize, leaves: &[Hash32]) -> Vec<Hash32> {
    let Ok(proof) = consistency_proof(size(old), size(leaves.len()), leaves);
    proof
}

#[test]
fn published_roots_of_certificate_transparency() {
    let leaves = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    let roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    assert_eq!(empty_root().to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_eq!(Frontier::new().root(), empty_root());
    let mut frontier = Frontier::new();
    for (leaf, root) in leaves.into_iter().zip(roots) {
        frontier.push(leaf_hash(&hex::decode(leaf).unwrap()));
        assert_eq!(frontier.root().to_string(), root);
    }
}

#[test]
fn every_proof_of_every_tree_up_to_70_is_the_specified_one_and_holds() {
    let leaves = hashes(&data(70));
    let mut frontier = Frontier::new();
    for count in 1..=leaves.len() {
        let tree = &leaves[..count];
        frontier.push(tree[count - 1]);
        let root = mth(tree);
        assert_eq!(frontier.root(), root);
        assert_eq!(frontier.size(), size(count));
        assert_eq!(root_at(size(count), leaves.as_slice()), Ok(root));
        assert_eq!(Frontier::load(size(count), leaves.as_slice()), Ok(frontier.clone()));
        for at in 0..count {
            let proof = included(at, tree);
            assert_eq!(proof, path(at, tree));
            assert_eq!(proof.len(), inclusion_proof_len(index(at), size(count)) as usize);
            assert_eq!(verify_inclusion(&tree[at], index(at), size(count), &proof, &root), Ok(()));
        }
        for old in 1..=count {
            let proof = consistent(old, tree);
            assert_eq!(proof, subproof(old, tree, true), "{old} to {count}");
            assert_eq!(verify_consistency(size(old), size(count), &mth(&tree[..old]), &root, &proof), Ok(()));
        }
        assert!(consistent(0, tree).is_empty());
        assert_eq!(verify_consistency(size(0), size(count), &empty_root(), &root, &[]), Ok(()));
    }
}

#[test]
fn nothing_but_the_proof_passes() {
    let leaves = hashes(&data(23));
    for count in 1..=leaves.len() {
        let tree = &leaves[..count];
        let root = mth(tree);
        for at in 0..count {
            let proof = included(at, tree);
            let check = |leaf: usize, at: usize, count: usize, proof: &[Hash32]| {
                verify_inclusion(&leaves[leaf], index(at), size(count), proof, &root)
            };
            assert_eq!(check(at, count, count, &proof), Err(ProofError::Range));
            for other in (0..count).filter(|other| *other != at) {
                assert!(check(at, other, count, &proof).is_err(), "leaf {at} shown at {other} of {count}");
                assert!(check(other, at, count, &proof).is_err());
            }
            let longer = [proof.as_slice(), &[root]].concat();
            assert_eq!(check(at, at, count, &longer), Err(ProofError::Length));
            if let Some((_, shorter)) = proof.split_last() {
                assert_eq!(check(at, at, count, shorter), Err(ProofError::Length));
            }
            for flipped in 0..proof.len() {
                let mut proof = proof.clone();
                proof[flipped].0[31] ^= 1;
                assert_eq!(check(at, at, count, &proof), Err(ProofError::Root));
            }
        }
        for old in 1..count {
            let (proof, old_root) = (consistent(old, tree), mth(&tree[..old]));
            let check = |old: usize, count: usize, old_root: &Hash32, root: &Hash32, proof: &[Hash32]| {
                verify_consistency(size(old), size(count), old_root, root, proof)
            };
            assert_eq!(check(count, old, &root, &old_root, &proof), Err(ProofError::Range));
            assert_eq!(check(old, count, &root, &root, &proof), Err(ProofError::Root));
            assert_eq!(check(old, count, &old_root, &old_root, &proof), Err(ProofError::Root));
            assert!(check(old, count, &old_root, &root, &[proof.as_slice(), &[root]].concat()).is_err());
            for shorter in 0..proof.len() {
                assert!(check(old, count, &old_root, &root, &proof[..shorter]).is_err());
            }
            for other in (1..count).filter(|other| *other != old) {
                assert!(check(other, count, &old_root, &root, &proof).is_err(), "{old} shown as {other} of {count}");
            }
        }
    }
    assert_eq!(verify_consistency(size(3), size(3), &leaves[0], &leaves[1], &[]), Err(ProofError::Root));
    assert_eq!(verify_consistency(size(3), size(3), &leaves[0], &leaves[0], &leaves[..1]), Err(ProofError::Length));
    assert_eq!(verify_consistency(size(0), size(3), &leaves[0], &leaves[1], &leaves[..1]), Err(ProofError::Length));
    assert_eq!(verify_consistency(size(0), size(0), &leaves[0], &leaves[1], &[]), Err(ProofError::Root));
}

#[test]
fn lengths_near_the_edge_of_64_bits() {
    let last = u64::MAX - 1;
    for (at, count) in [(0, 1), (0, u64::MAX), (last, u64::MAX), (1 << 62, (1 << 63) - 1), (0, 1 << 63)] {
        let len = inclusion_proof_len(LeafIndex(at), TreeSize(count)) as usize;
        let proof = vec![Hash32::ZERO; len];
        let verdict = verify_inclusion(&Hash32::ZERO, LeafIndex(at), TreeSize(count), &proof, &Hash32([1; 32]));
        assert_eq!(verdict, Err(ProofError::Root), "{at} of {count}");
    }
    let longest = (0..63).map(|bit| inclusion_proof_len(LeafIndex((1 << bit) - 1), TreeSize((1 << 63) - 1))).max();
    assert_eq!(longest, Some(u32::try_from(PROOF_HASHES_MAX).unwrap()));
}

#[test]
#[should_panic(expected = "outside a tree")]
fn no_proof_of_a_leaf_that_is_not_there() {
    let leaves = hashes(&data(4));
    let _ = inclusion_proof(LeafIndex(4), TreeSize(4), leaves.as_slice());
}

fn oracle(data: &[Vec<u8>]) -> MemoryBackedTree<Sha256, Vec<u8>> {
    let mut tree = MemoryBackedTree::new();
    data.iter().for_each(|leaf| tree.push(leaf.clone()));
    tree
}

fn flat(hashes: &[Hash32]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn ct_merkle_agrees(count in 1_usize..600, at in any::<prop::sample::Index>(), old in any::<prop::sample::Index>()) {
        let data = data(count);
        let (leaves, tree) = (hashes(&data), oracle(&data));
        let (at, old) = (at.index(count), old.index(count) + 1);
        let Ok(root) = root_at(size(count), leaves.as_slice());
        let expected = tree.root();
        prop_assert_eq!(expected.as_bytes().as_slice(), &root.0);

        let ours = included(at, &leaves);
        prop_assert_eq!(tree.prove_inclusion(at).as_bytes().to_vec(), flat(&ours));
        let theirs = InclusionProof::<Sha256>::try_from_bytes(flat(&ours)).unwrap();
        prop_assert!(tree.root().verify_inclusion(&data[at], at as u64, &theirs).is_ok());

        if old < count {
            let ours = consistent(old, &leaves);
            let old_tree = oracle(&data[..old]);
            prop_assert_eq!(tree.prove_consistency(count - old).as_bytes().to_vec(), flat(&ours));
            let theirs = ConsistencyProof::<Sha256>::try_from_bytes(flat(&ours)).unwrap();
            prop_assert!(tree.root().verify_consistency(&old_tree.root(), &theirs).is_ok());
        }
    }

    #[test]
    fn hostile_proofs_neither_pass_nor_panic(
        at in any::<u64>(), count in any::<u64>(), old in any::<u64>(),
        proof in prop::collection::vec(any::<[u8; 32]>().prop_map(Hash32), 0..70),
    ) {
        let root = Hash32([7; 32]);
        prop_assert!(verify_inclusion(&Hash32::ZERO, LeafIndex(at), TreeSize(count), &proof, &root).is_err());
        if old != 0 && old != count {
            let verdict = verify_consistency(TreeSize(old), TreeSize(count), &Hash32::ZERO, &root, &proof);
            prop_assert!(verdict.is_err());
        }
    }
}
