//! Tiles and bundles: the paths that C2SP `tlog-tiles` writes out, and their files.

use ledger_core::{
    Hash32,
    merkle::{Frontier, TreeSize, leaf_hash, root_at},
    tile::{
        BundleError, TILE_WIDTH, TileKind, TilePath, decode_bundle, decode_hashes, encode_hashes, hashes_at,
        partial_width, perfect_root, push_entry,
    },
};
use proptest::prelude::*;

fn tile(kind: TileKind, index: u64, width: u16) -> TilePath {
    TilePath { kind, index, width }
}

#[test]
fn paths_of_the_specification() {
    let table = [
        (tile(TileKind::Hashes(0), 0, 256), "tile/0/000"),
        (tile(TileKind::Hashes(0), 273, 112), "tile/0/273.p/112"),
        (tile(TileKind::Hashes(1), 1, 17), "tile/1/001.p/17"),
        (tile(TileKind::Hashes(2), 0, 1), "tile/2/000.p/1"),
        (tile(TileKind::Hashes(63), 999, 255), "tile/63/999.p/255"),
        (tile(TileKind::Hashes(0), 1000, 256), "tile/0/x001/000"),
        (tile(TileKind::Hashes(0), 1_234_067, 256), "tile/0/x001/x234/067"),
        (tile(TileKind::Entries, 1_234_067, 8), "tile/entries/x001/x234/067.p/8"),
        (tile(TileKind::Entries, u64::MAX, 256), "tile/entries/x018/x446/x744/x073/x709/x551/615"),
    ];
    for (tile, path) in table {
        assert_eq!(tile.path(), path);
        assert_eq!(TilePath::parse(path), Some(tile));
    }
}

#[test]
fn other_spellings_are_not_paths() {
    let refused = [
        "",
        "tile/",
        "tile/0",
        "tile/0/",
        "/tile/0/000",
        "tile/0/000/",
        "tile/00/000",
        "tile/+1/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/ 0/000",
        "tile/Entries/000",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/x000/001",
        "tile/0/001/000",
        "tile/0/x001/x000",
        "tile/0/x01/000",
        "tile/0/+01",
        "tile/0/000.p/0",
        "tile/0/000.p/00",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/1.p/1",
        "tile/0/000.p/",
        "tile/0/000.p",
        "tile/0/../000",
        "tile/0/x018/x446/x744/x073/x709/x551/616",
        "tile/0/٠٠٠",
    ];
    for path in refused {
        assert_eq!(TilePath::parse(path), None, "{path}");
    }
}

#[test]
fn widths_of_the_specification() {
    let (odd, full) = (TreeSize(70_000), TreeSize(256));
    assert_eq!((hashes_at(0, odd) / TILE_WIDTH, partial_width(0, odd)), (273, 112));
    assert_eq!((hashes_at(1, odd) / TILE_WIDTH, partial_width(1, odd)), (1, 17));
    assert_eq!((hashes_at(2, odd) / TILE_WIDTH, partial_width(2, odd)), (0, 1));
    assert_eq!((hashes_at(3, odd), hashes_at(255, odd)), (0, 0));
    assert_eq!((hashes_at(0, full) / TILE_WIDTH, partial_width(0, full)), (1, 0));
    assert_eq!((hashes_at(1, full) / TILE_WIDTH, partial_width(1, full)), (0, 1));
    assert_eq!(hashes_at(7, TreeSize((1 << 63) - 1)), 127);
    assert_eq!(hashes_at(8, TreeSize(u64::MAX)), 0);
}

#[test]
fn a_full_tile_hashes_into_the_level_above() {
    let leaves: Vec<Hash32> = (0_u16..256).map(|at| leaf_hash(&at.to_be_bytes())).collect();
    let Ok(root) = root_at(TreeSize(256), leaves.as_slice());
    assert_eq!(perfect_root(&leaves), root);
    assert_eq!(perfect_root(&leaves[..1]), leaves[0]);
    let mut frontier = Frontier::new();
    leaves[..64].iter().for_each(|leaf| frontier.push(*leaf));
    assert_eq!(perfect_root(&leaves[..64]), frontier.root());
}

#[test]
#[should_panic(expected = "a perfect subtree")]
fn a_subtree_of_three_is_not_perfect() {
    let _ = perfect_root(&[Hash32::ZERO; 3]);
}

#[test]
fn hash_tiles_have_exactly_their_width() {
    let hashes = [leaf_hash(b"a"), leaf_hash(b"b")];
    let bytes = encode_hashes(&hashes);
    assert_eq!(bytes.len(), 64);
    assert_eq!(decode_hashes(&bytes, 2).unwrap(), hashes);
    assert_eq!(decode_hashes(&bytes, 1), None);
    assert_eq!(decode_hashes(&bytes, 3), None);
    assert_eq!(decode_hashes(&bytes[..63], 2), None);
    assert_eq!(decode_hashes(&[], 0), Some(Vec::new()));
}

#[test]
fn bundles_have_exactly_their_entries() {
    let entries: [&[u8]; 3] = [b"{}", b"", &[7; 300]];
    let mut bundle = Vec::new();
    entries.iter().for_each(|entry| push_entry(&mut bundle, entry));
    assert_eq!(bundle[..6], [0, 2, b'{', b'}', 0, 0]);
    assert_eq!(bundle[6..8], [1, 44]);
    assert_eq!(decode_bundle(&bundle, 3).unwrap(), entries);
    assert_eq!(decode_bundle(&bundle, 2), Err(BundleError));
    assert_eq!(decode_bundle(&bundle, 4), Err(BundleError));
    assert_eq!(decode_bundle(&bundle, usize::MAX), Err(BundleError));
    for cut in 1..bundle.len() {
        assert_eq!(decode_bundle(&bundle[..cut], 3), Err(BundleError), "cut at {cut}");
    }
    assert_eq!(decode_bundle(&[], 0), Ok(Vec::new()));
}

proptest! {
    #[test]
    fn every_tile_has_one_path(level in 0_u8..64, entries in any::<bool>(), index in any::<u64>(), width in 1_u16..=256) {
        let kind = if entries { TileKind::Entries } else { TileKind::Hashes(level) };
        prop_assert_eq!(TilePath::parse(&tile(kind, index, width).path()), Some(tile(kind, index, width)));
    }

    #[test]
    fn hostile_paths_and_bundles_do_not_panic(
        path in "(tile/)?([0-9x./]|entries|\\PC){0,40}", bytes in prop::collection::vec(any::<u8>(), 0..600), width in any::<usize>(),
    ) {
        if let Some(parsed) = TilePath::parse(&path) {
            prop_assert_eq!(parsed.path(), path);
        }
        if let Ok(entries) = decode_bundle(&bytes, width) {
            prop_assert_eq!(entries.len(), width);
        }
        prop_assert!(decode_hashes(&bytes, width).is_none_or(|hashes| hashes.len() == width));
    }
}
