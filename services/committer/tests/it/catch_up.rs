//! Catching up: groups that end before the checkpoint must be proven prefixes of it.

use std::sync::Arc;

use chopmark_committer::{CheckError, CommitterError, ProjectLoop};
use ledger_core::{Hash32, merkle::TreeSize, tile::TilePath};

use crate::doubles::{Lying, World, run_until, signed_checkpoint};

/// Blocks of many sizes, 3 280 entries in all, so that proofs take tiles of two levels.
fn long_world() -> World {
    let mut world = World::new();
    world.project.blocks_per_fetch = 2;
    let mut first = 0;
    for count in [1, 254, 1, 1, 0, 600, 255, 256, 257, 0, 1_000, 651, 1] {
        world.decide_many(first, count);
        first += count;
    }
    world
}

#[tokio::test(start_paused = true)]
async fn groups_far_below_the_checkpoint_are_proven() {
    let world = long_world();
    world.project_all().await;
    assert_eq!(world.store.projected().len(), 14);
}

#[tokio::test(start_paused = true)]
async fn a_new_loop_rebuilds_the_right_edge_from_tiles() {
    // Stopped after every height, with the node far ahead.
    for height in 1..14 {
        let world = long_world();
        world.project_to(height).await;
        world.project_all().await;
        assert_eq!(world.store.projected().len(), 14);
    }
}

async fn follow(world: &World, reader: Lying) -> Result<(), CommitterError> {
    let genesis = world.ledger.genesis.clone();
    let project = ProjectLoop::new(Arc::new(reader), world.store.clone(), genesis, world.project.clone());
    run_until(|stop| project.run(stop), || world.is_projected()).await
}

#[tokio::test(start_paused = true)]
async fn a_partial_tile_that_became_full_is_read_as_full() {
    let world = long_world();
    // The checkpoint is an old one, of 260 entries; since then the second tile became full.
    let reader = Lying::new(&world.ledger)
        .status(|ledger, status| *status = ledger.status_at(6, &ledger.members_at(6)))
        .tile(|ledger, (path, tile)| {
            let full = TilePath { width: 256, ..*path };
            if path.width < 256 && ledger.read_tile(full).is_some() {
                *tile = None;
            }
        });
    let genesis = world.ledger.genesis.clone();
    let project = ProjectLoop::new(Arc::new(reader), world.store.clone(), genesis, world.project.clone());
    run_until(|stop| project.run(stop), || world.store.cursor_height() == 6).await.unwrap();
}

/// A quorum's note over another tree of the same size: two histories.
#[tokio::test(start_paused = true)]
async fn a_checkpoint_of_another_tree_covers_nothing() {
    let world = long_world();
    let reader = Lying::new(&world.ledger).status(|ledger, status| {
        status.root = Hash32([3; 32]);
        status.checkpoint = signed_checkpoint(&ledger.genesis.origin, status.size, status.root, &ledger.members_at(1));
    });
    let error = follow(&world, reader).await.unwrap_err();
    assert_eq!(error.label(), "consistency", "{error}");
    assert!(world.store.projected().is_empty());
}

/// A quorum's note over a tree smaller than the blocks that it is said to cover.
#[tokio::test(start_paused = true)]
async fn a_checkpoint_of_a_smaller_tree_covers_nothing() {
    let world = long_world();
    let reader = Lying::new(&world.ledger).status(|ledger, status| {
        status.size = TreeSize(3);
        status.checkpoint = signed_checkpoint(&ledger.genesis.origin, status.size, status.root, &ledger.members_at(1));
    });
    let error = follow(&world, reader).await.unwrap_err();
    assert_eq!(error.label(), "checkpoint_root", "{error}");
    assert!(world.store.projected().is_empty());
}

#[tokio::test(start_paused = true)]
async fn tiles_that_lie_prove_nothing() {
    let world = long_world();
    let lie = |bytes: &mut Option<Vec<u8>>| {
        if let Some(bytes) = bytes {
            bytes[0] ^= 1;
        }
    };
    let error = follow(&world, Lying::new(&world.ledger).tile(move |_, (_, tile)| lie(tile))).await.unwrap_err();
    assert_eq!(error.label(), "consistency", "{error}");
    assert!(world.store.projected().is_empty());

    let short = |bytes: &mut Option<Vec<u8>>| {
        bytes.as_mut().and_then(Vec::pop);
    };
    let error = follow(&world, Lying::new(&world.ledger).tile(move |_, (_, tile)| short(tile))).await.unwrap_err();
    assert_eq!(error.label(), "tiles", "{error}");
    assert!(world.store.projected().is_empty());
}

#[tokio::test(start_paused = true)]
async fn tiles_that_lie_rebuild_no_right_edge() {
    let world = long_world();
    world.project_all().await;
    world.decide_evidence([1]);
    let reader = Lying::new(&world.ledger).tile(|_, (_, tile)| {
        if let Some(bytes) = tile {
            bytes[0] ^= 1;
        }
    });
    let result = follow(&world, reader).await;
    assert!(matches!(result, Err(CommitterError::Check { check: CheckError::Tiles, .. })), "{result:?}");
    assert_eq!(world.store.projected().len(), 14);
}
