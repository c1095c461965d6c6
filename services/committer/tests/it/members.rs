//! Changes of the member set: followed block by block, from a cursor, and under a checkpoint that
//! later members signed.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use chopmark_committer::{CommitterError, ProjectLoop};
use ledger_core::{Hash32, member::MemberSet};

use crate::doubles::{Lying, World, certify, members_of, run_until};

/// A ledger of four members that five others take over, and then three of those and a new one:
/// evidence at every height, changes in blocks 4 and 12, in force from 6 and 14.
fn changing_world() -> World {
    let world = World::with(4, 1);
    for height in 2..=20 {
        match height {
            4 => world.ledger.decide(vec![world.ledger.change_members(201, &members_of(11..=15))]),
            12 => world.ledger.decide(vec![world.ledger.change_members(202, &members_of([13, 14, 15, 21]))]),
            height => world.decide_evidence([height]),
        }
    }
    world
}

async fn follow(world: &World, reader: Lying) -> Result<(), CommitterError> {
    let genesis = world.ledger.genesis.clone();
    let project = ProjectLoop::new(Arc::new(reader), world.store.clone(), genesis, world.project.clone());
    run_until(|stop| project.run(stop), || world.is_projected()).await
}

#[test]
fn the_changes_are_in_force_two_heights_later() {
    let world = changing_world();
    let first = |height| world.ledger.members_at(height).iter().next().unwrap().domain.clone();
    assert_eq!([5, 6, 13, 14].map(first), ["m01.example", "m11.example", "m11.example", "m13.example"]);
}

#[tokio::test(start_paused = true)]
async fn changes_are_followed_block_by_block() {
    // A node that shows one block after the other, each under its own checkpoint.
    let world = World::with(4, 1);
    world.project_all().await;
    for height in 2..=20 {
        match height {
            4 => world.ledger.decide(vec![world.ledger.change_members(201, &members_of(11..=15))]),
            12 => world.ledger.decide(vec![world.ledger.change_members(202, &members_of([13, 14, 15, 21]))]),
            height => world.decide_evidence([height]),
        }
        // Every loop is new: it resumes right before, in and after each change.
        world.project_all().await;
    }
    assert_eq!(world.store.projected().len(), 20);
}

#[tokio::test(start_paused = true)]
async fn changes_are_followed_under_a_later_sets_checkpoint() {
    for blocks_per_fetch in 1..=20 {
        let mut world = changing_world();
        world.project.blocks_per_fetch = blocks_per_fetch;
        world.project_all().await;
        assert_eq!(world.store.projected().len(), 20);
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_loop_finds_the_members_of_every_height() {
    for height in 1..20 {
        let mut world = changing_world();
        world.project.blocks_per_fetch = 1;
        world.project_to(height).await;
        world.project_all().await;
        assert_eq!(world.store.projected().len(), 20);
    }
}

#[tokio::test(start_paused = true)]
async fn members_that_come_back_are_found() {
    let mut world = World::with(4, 1);
    let sets = [members_of(11..=14), members_of(1..=4), members_of(21..=24), members_of(1..=4)];
    let mut op = 200;
    for set in &sets {
        op += 1;
        world.ledger.decide(vec![world.ledger.change_members(op, set)]);
        (0..4).for_each(|_| world.ledger.decide(Vec::new()));
    }
    world.project.blocks_per_fetch = 2;
    for height in [1, 3, 5, 8, 12, 14, 17, 20] {
        world.project_to(height).await;
    }
    world.project_all().await;
    assert_eq!(world.store.projected().len(), 21);
}

/// A set replaced by itself still starts its first block with `members.active`.
#[tokio::test(start_paused = true)]
async fn a_set_replaced_by_itself_is_followed() {
    let world = World::with(4, 1);
    world.ledger.decide(vec![world.ledger.change_members(201, &members_of(1..=4))]);
    for op in 1..=4 {
        world.project_all().await;
        world.decide_evidence([op]);
    }
    world.project_all().await;
    assert_eq!(world.ledger.block_at(4).entries.len(), 2);
    assert_eq!(world.store.projected().len(), 6);
}

/// Runs against a node that tampers with the changing ledger; gives the check that failed and
/// the last projected height.
async fn lie(reader: impl FnOnce(Lying) -> Lying, blocks_per_fetch: usize) -> (&'static str, u64) {
    let mut world = changing_world();
    world.project.blocks_per_fetch = blocks_per_fetch;
    let error = follow(&world, reader(Lying::new(&world.ledger))).await.unwrap_err();
    (error.label(), world.store.cursor_height())
}

fn old_members() -> MemberSet {
    members_of(1..=4)
}

#[tokio::test(start_paused = true)]
async fn members_who_left_decide_nothing() {
    let reader =
        |node: Lying| node.block(6, |ledger, block| certify(&ledger.chain_id(), &mut block.block, &old_members()));
    assert_eq!(lie(reader, 1).await, ("certificate", 5));
}

#[tokio::test(start_paused = true)]
async fn members_who_left_cover_nothing() {
    let reader = |node: Lying| node.status(|ledger, status| *status = ledger.status_at(20, &old_members()));
    assert_eq!(lie(reader, 100).await, ("checkpoint", 0));
    // While catching up as well, where the later members are found without reading every block.
    assert_eq!(lie(reader, 2).await, ("checkpoint", 0));
}

#[tokio::test(start_paused = true)]
async fn a_node_cannot_make_up_the_later_members() {
    let ours = || members_of(41..=44);
    // A checkpoint by members of the node's own making, under headers that name them.
    let reader = |node: Lying| {
        node.status(move |ledger, status| *status = ledger.status_at(20, &ours())).blocks(move |ledger, blocks| {
            for block in blocks.iter_mut().filter(|block| block.block.header.height >= 6) {
                block.block.header.members = ours().hash();
                block.block.header.next_members = ours().hash();
                certify(&ledger.chain_id(), &mut block.block, &ours());
            }
        })
    };
    assert_eq!(lie(reader, 2).await, ("certificate", 0));
}

#[tokio::test(start_paused = true)]
async fn a_node_cannot_hide_where_members_came_from() {
    // The last block of the old members is theirs, but the one that decided the new set is not shown.
    let reader = |node: Lying| {
        node.blocks(|ledger, blocks| {
            for block in blocks.iter_mut().filter(|block| block.block.header.height == 4) {
                *block = ledger.block_at(3);
                block.block.header.height = 4;
            }
        })
    };
    assert_eq!(lie(reader, 2).await, ("members_unknown", 0));
}

#[tokio::test(start_paused = true)]
async fn a_node_cannot_show_other_members_than_those_decided() {
    // In the place of the block that decided the new set stands one that decided another.
    let reader = |node: Lying| {
        node.blocks(|ledger, blocks| {
            for block in blocks.iter_mut().filter(|block| block.block.header.height == 4) {
                *block = ledger.block_at(12);
                block.block.header.height = 4;
                block.block.header.next_members = old_members().hash();
            }
        })
    };
    assert_eq!(lie(reader, 2).await, ("members_unknown", 0));
}

#[tokio::test(start_paused = true)]
async fn a_node_cannot_shuffle_heights() {
    let reader = |node: Lying| {
        node.blocks(|ledger, blocks| {
            for block in blocks.iter_mut().filter(|block| block.block.header.height == 10) {
                *block = ledger.block_at(11);
            }
        })
    };
    // Catching up asks for block 19, then for the middle between 2 and 19: 10.
    assert_eq!(lie(reader, 2).await, ("height", 0));
}

/// Projects up to `height`, then starts anew on a node that lies.
async fn resumed_lie(height: u64, reader: impl FnOnce(Lying) -> Lying) -> &'static str {
    let mut world = changing_world();
    world.project.blocks_per_fetch = 1;
    world.project_to(height).await;
    let error = follow(&world, reader(Lying::new(&world.ledger))).await.unwrap_err();
    assert_eq!(world.store.cursor_height(), height);
    error.label()
}

#[tokio::test(start_paused = true)]
async fn a_new_loop_believes_no_other_block_before_the_cursor() {
    let reader = |node: Lying| {
        node.blocks(|_, blocks| blocks.iter_mut().for_each(|block| block.block.header.changes = Hash32::ZERO))
    };
    assert_eq!(resumed_lie(9, reader).await, "cursor");
    let asked = AtomicUsize::new(0);
    // The first block asked for is the cursor's own, the second the one before.
    let reader = |node: Lying| {
        node.blocks(move |_, blocks| {
            if asked.fetch_add(1, Ordering::SeqCst) == 1 {
                blocks[0].block.header.changes = Hash32::ZERO;
            }
        })
    };
    assert_eq!(resumed_lie(9, reader).await, "previous");
}

#[tokio::test(start_paused = true)]
async fn a_new_loop_believes_no_other_members_than_the_cursors() {
    let asked = AtomicUsize::new(0);
    // From the third block on the node claims that the first members never left.
    let reader = |node: Lying| {
        node.blocks(move |_, blocks| {
            if asked.fetch_add(1, Ordering::SeqCst) >= 2 {
                blocks[0].block.header.next_members = old_members().hash();
            }
        })
    };
    assert_eq!(resumed_lie(9, reader).await, "members_unknown");
}

#[tokio::test(start_paused = true)]
async fn a_set_that_nobody_decided_is_refused() {
    // Even with the old quorum's certificate.
    let reader = |node: Lying| {
        node.block(3, |ledger, block| {
            block.block.header.next_members = Hash32([1; 32]);
            certify(&ledger.chain_id(), &mut block.block, &old_members());
        })
    };
    assert_eq!(lie(reader, 100).await, ("members", 0));
}

#[tokio::test(start_paused = true)]
async fn a_new_sets_first_block_must_say_so() {
    let reader = |node: Lying| {
        node.block(6, |_, block| {
            block.entries[0] = block.entries[0].clone().into_iter().rev().collect();
        })
    };
    assert_eq!(lie(reader, 1).await, ("entry", 5));
    let reader = |node: Lying| node.block(6, |_, block| drop(block.entries.remove(0)));
    assert_eq!(lie(reader, 1).await, ("entry", 5));
}
