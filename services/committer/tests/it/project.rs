//! What the project loop writes, and where it starts.

use std::{sync::Arc, time::Duration};

use chopmark_committer::{CheckError, CommitterError, ProjectLoop};
use chopmark_domain::{
    id::ResourceKey,
    record::{CaseLink, CommittedAt, OperationState, ProjectionCursor, RejectedAt},
};
use ledger_core::{
    Hash32,
    entry::entry_id,
    operation::{OperationType, SignedOperation, operation_hash},
    outcome::RejectionCode,
};
use tokio::time::Instant;

use crate::doubles::{Ledger, Lying, TENANT, World, case_append, case_open, evidence, genesis, members_of, run_until};

#[tokio::test(start_paused = true)]
async fn outcomes_are_projected_as_decided() {
    let world = World::new();
    let chain = world.ledger.chain_id();
    let good = evidence(chain, TENANT, 1, 5).encode();
    let refused = evidence(chain, "ten_nobody", 2, 6).encode();
    world.ledger.decide([&refused, &good].map(|bytes| SignedOperation::unsigned(bytes.clone())).to_vec());
    world.project_all().await;

    let [tenant, block] = world.store.projected().try_into().unwrap();
    assert_eq!((tenant.height, tenant.operations.len(), tenant.tree_size), (1, 1, 3));
    assert_eq!((tenant.operations[0].kind, tenant.operations[0].tenant.as_str()), (OperationType::TenantSet, ""));
    let shown = world.ledger.block_at(2);
    let header = &shown.block.header;
    assert_eq!((block.network.as_str(), block.height, block.hash), ("sandbox", 2, header.hash()));
    assert_eq!((block.time, block.tree_size), (header.time, 4));
    let [first, second] = &block.operations[..] else { panic!("two outcomes") };
    assert_eq!(
        (first.op, first.request, first.operation_hash),
        (Hash32([2; 32]), Hash32([6; 32]), operation_hash(&refused))
    );
    let rejected = RejectedAt { code: RejectionCode::TenantUnknown, height: 2, time: header.time };
    assert_eq!((first.tenant.as_str(), first.state), ("ten_nobody", OperationState::Rejected(rejected)));
    assert_eq!((second.key, second.operation_hash), (ResourceKey::of(&Hash32([1; 32]), 0), operation_hash(&good)));
    let committed = CommittedAt { index: 3, entry: entry_id(&shown.entries[0]), height: 2, time: header.time };
    assert_eq!((second.tenant.as_str(), second.state), (TENANT, OperationState::Committed(committed)));
    assert!(block.links.is_empty());
}

#[tokio::test(start_paused = true)]
async fn links_of_a_case_are_projected_in_their_chain() {
    let world = World::new();
    let chain = world.ledger.chain_id();
    let operations = [
        evidence(chain, TENANT, 1, 1),
        evidence(chain, TENANT, 2, 2),
        case_open(chain, 10),
        case_append(chain, 11, 10, 2),
        case_append(chain, 12, 10, 1),
        case_append(chain, 13, 10, 1),
    ];
    world.ledger.decide(operations.map(|operation| SignedOperation::unsigned(operation.encode())).to_vec());
    world.project_all().await;

    let block = world.store.projected().pop().unwrap();
    let entries = world.ledger.block_at(2).entries;
    let key = |op: u8| ResourceKey::of(&Hash32([op; 32]), 0);
    let link = |position: u64, evidence: u8, at: usize| CaseLink {
        tenant: TENANT.to_owned(),
        case: key(10),
        position,
        evidence: key(evidence),
        index: 3 + at as u64,
        entry: entry_id(&entries[at]),
        previous: entry_id(&entries[at - 1]),
        time: block.time,
    };
    assert_eq!(block.links, [link(1, 2, 3), link(2, 1, 4)], "the sixth is rejected: that evidence is in the case");
}

#[tokio::test(start_paused = true)]
async fn empty_blocks_move_the_cursor() {
    let world = World::new();
    (0..3).for_each(|_| world.ledger.decide(Vec::new()));
    world.project_all().await;
    assert_eq!(world.store.cursor_height(), 4);

    // One more while the loop waits for a larger log: it looks again by itself.
    let started = Instant::now();
    let idle = async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        world.ledger.decide(Vec::new());
    };
    let project = world.project_loop();
    let done = || world.store.cursor_height() == 5;
    let (result, ()) = tokio::join!(run_until(|stop| project.run(stop), done), idle);
    result.unwrap();
    assert!(started.elapsed() < Duration::from_secs(12), "took {:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_larger_log_wakes_the_loop_at_once() {
    let world = World::new();
    world.project_all().await;
    let project = world.project_loop();
    let decide = async {
        tokio::time::sleep(Duration::from_millis(10_100)).await;
        let started = Instant::now();
        world.decide_evidence([1]);
        while !world.is_projected() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(started.elapsed() < Duration::from_millis(50), "took {:?}", started.elapsed());
    };
    let done = || world.store.cursor_height() == 2;
    let (result, ()) = tokio::join!(run_until(|stop| project.run(stop), done), decide);
    result.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_new_loop_starts_from_the_cursor_at_every_height() {
    let world = World::new();
    for op in 1..=40 {
        world.decide_evidence([op]);
        world.project_all().await;
    }
    assert_eq!(world.store.projected().len(), 41);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_behind_the_cursor_is_waited_for() {
    let world = World::new();
    (1..=5).for_each(|op| world.decide_evidence([op]));
    world.project_all().await;
    world.decide_evidence([6]);
    let started = Instant::now();
    // Another node, which has block 3 only, for a minute.
    let behind = move || started.elapsed() < Duration::from_secs(60);
    let reader = Lying::new(&world.ledger)
        .status(move |ledger, status| {
            if behind() {
                *status = ledger.status_at(3, &ledger.members_at(3));
            }
        })
        .blocks(move |_, blocks| blocks.retain(|block| !behind() || block.block.header.height <= 3));
    let project =
        ProjectLoop::new(Arc::new(reader), world.store.clone(), world.ledger.genesis.clone(), world.project.clone());
    run_until(|stop| project.run(stop), || world.is_projected()).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_falls_behind_is_waited_for() {
    let world = World::new();
    let started = Instant::now();
    // It claims a checkpoint at the tip and has not the blocks yet.
    let behind = move || started.elapsed() < Duration::from_secs(60);
    let reader = Lying::new(&world.ledger)
        .blocks(move |_, blocks| blocks.retain(|block| !behind() || block.block.header.height < 3));
    (1..=5).for_each(|op| world.decide_evidence([op]));
    let project =
        ProjectLoop::new(Arc::new(reader), world.store.clone(), world.ledger.genesis.clone(), world.project.clone());
    run_until(|stop| project.run(stop), || world.is_projected()).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn a_cursor_on_another_block_stops_the_loop() {
    let world = World::new();
    (1..=3).for_each(|op| world.decide_evidence([op]));
    world.project_all().await;
    world.decide_evidence([4]);
    world.store.forge_cursor(ProjectionCursor { height: 4, hash: Hash32([1; 32]), tree_size: 6 });
    let result = run_until(|stop| world.project_loop().run(stop), || false).await;
    assert!(matches!(result, Err(CommitterError::Check { height: 4, check: CheckError::Cursor })), "{result:?}");
    assert_eq!(world.store.projected().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_cursor_of_another_network_stops_the_loop() {
    let world = World::new();
    (1..=3).for_each(|op| world.decide_evidence([op]));
    let mut other = World::new();
    other.ledger = Arc::new(Ledger::new(genesis(members_of(2..=2))));
    (1..=3).for_each(|op| other.decide_evidence([op]));
    world.project_all().await;
    other.store = Arc::clone(&world.store);
    let result = run_until(|stop| other.project_loop().run(stop), || false).await;
    assert!(matches!(result, Err(CommitterError::Check { check: CheckError::Cursor, .. })), "{result:?}");
}

/// Whether a projection starts at the genesis or after it is the database's choice.
#[tokio::test(start_paused = true)]
async fn a_cursor_on_the_genesis_is_where_the_ledger_starts() {
    let world = World::new();
    world.decide_evidence([1]);
    let hash = world.ledger.block_at(1).block.header.previous;
    world.store.forge_cursor(ProjectionCursor { height: 0, hash, tree_size: 2 });
    world.project_all().await;

    world.store.forge_cursor(ProjectionCursor { height: 0, hash: Hash32([1; 32]), tree_size: 2 });
    let result = run_until(|stop| world.project_loop().run(stop), || false).await;
    assert!(matches!(result, Err(CommitterError::Check { height: 0, check: CheckError::Cursor })), "{result:?}");
}
