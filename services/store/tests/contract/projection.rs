//! `ProjectionStore` and `OperationStore::case_links`.

use chopmark_domain::{
    ports::{OperationStore as _, ProjectionStore as _},
    record::{OperationState, ProjectedBlock, ProjectedOperation, ProjectionCursor},
};
use ledger_core::operation::OperationType;

use crate::fixtures::*;

fn cursor_at(height: u64) -> ProjectionCursor {
    ProjectionCursor { height, hash: h("header", height), tree_size: height * 1000 }
}

pub(crate) async fn the_cursor_starts_at_nothing(backend: &impl Backend) {
    let store = backend.open().await;
    assert_eq!(store.cursor(NETWORK).await.unwrap(), None);
    assert!(store.project(block(1, vec![])).await.unwrap());
    assert_eq!(store.cursor(NETWORK).await.unwrap(), Some(cursor_at(1)));
    assert_eq!(store.cursor("live").await.unwrap(), None);

    // The genesis may be projected too.
    let live = |height| ProjectedBlock { network: "live".to_owned(), ..block(height, vec![]) };
    for height in 0..3 {
        assert!(store.project(live(height)).await.unwrap());
        assert_eq!(store.cursor("live").await.unwrap(), Some(cursor_at(height)));
    }
    assert_eq!(store.cursor(NETWORK).await.unwrap(), Some(cursor_at(1)));
}

pub(crate) async fn a_block_settles_its_operations(backend: &impl Backend) {
    let store = backend.open().await;
    store.insert_accepted((1..5).map(|number| attempt(number, 1)).collect()).await.unwrap();
    let before = find(&store, &[1, 2, 3, 4]).await;
    let outcomes = vec![outcome(&attempt(2, 1), committed(1, 7)), outcome(&attempt(3, 1), rejected(1))];
    assert!(store.project(block(1, outcomes)).await.unwrap());
    assert!(store.project(block(2, vec![outcome(&attempt(1, 1), committed(2, 8))])).await.unwrap());

    let mut expected = before;
    for (at, state) in [committed(2, 8), committed(1, 7), rejected(1), OperationState::Accepted].iter().enumerate() {
        expected[at].as_mut().unwrap().state = *state;
    }
    assert_eq!(find(&store, &[1, 2, 3, 4]).await, expected);
    assert_eq!(store.cursor(NETWORK).await.unwrap(), Some(cursor_at(2)));
}

pub(crate) async fn losing_private_parts_are_removed(backend: &impl Backend) {
    let store = backend.open().await;
    for number in 1..4 {
        store.insert_accepted((1..4).map(|at| attempt(number, at)).collect()).await.unwrap();
    }
    let outcomes = vec![outcome(&attempt(1, 2), committed(1, 7)), outcome(&attempt(2, 3), rejected(1))];
    assert!(store.project(block(1, outcomes)).await.unwrap());
    for (number, kept) in [(1, vec![2]), (2, vec![3]), (3, vec![1, 2, 3])] {
        for at in 1..4 {
            assert_eq!(private(&store, number, at).await.is_some(), kept.contains(&at), "{number}, attempt {at}");
        }
    }
    assert_eq!(row(&store, 1).await.unwrap().operation_hash, h("attempt", 2));
    assert!(!row(&store, 1).await.unwrap().conflicted, "another attempt at the same request is no conflict");
}

pub(crate) async fn a_missing_row_is_added(backend: &impl Backend) {
    let store = backend.open().await;
    let governance = ProjectedOperation {
        tenant: String::new(),
        kind: OperationType::PolicySet,
        ..outcome(&accepted(1), committed(1, 7))
    };
    let outcomes = vec![governance, outcome(&attempt(2, 1), committed(1, 8)), outcome(&attempt(3, 1), rejected(1))];
    assert!(store.project(block(1, outcomes)).await.unwrap());

    assert_eq!(row(&store, 1).await, None, "governance is no tenant's");
    let rows: Vec<_> = find(&store, &[2, 3]).await.into_iter().map(Option::unwrap).collect();
    assert_eq!(rows.iter().map(|row| row.state).collect::<Vec<_>>(), [committed(1, 8), rejected(1)]);
    assert!(rows.iter().all(|row| row.accepted_at == block_time(1) && !row.conflicted));
    assert!(rows[0].sequence < rows[1].sequence);

    // The queue delivers it afterwards: the row stays, the private part is kept after all.
    store.insert_accepted(vec![attempt(2, 1), attempt(2, 2), accepted(4)]).await.unwrap();
    assert_eq!(row(&store, 2).await.as_ref(), Some(&rows[0]));
    assert_eq!(private(&store, 2, 1).await, Some(sealed(2, 1)));
    assert_eq!(private(&store, 2, 2).await, None);
    assert_eq!(listed(&store, everything(), 9).await, [4, 3, 2]);
}

pub(crate) async fn another_request_takes_the_row_over(backend: &impl Backend) {
    let store = backend.open().await;
    store.insert_accepted(vec![attempt(1, 1), attempt(2, 1)]).await.unwrap();
    store.insert_accepted(vec![other_request(1)]).await.unwrap();
    let sequence = row(&store, 1).await.unwrap().sequence;

    // One that the queue brought here too, and one of another type that it brought elsewhere.
    let elsewhere = ProjectedOperation { kind: OperationType::CaseOpen, ..outcome(&other_request(2), committed(1, 8)) };
    let outcomes = vec![outcome(&other_request(1), committed(1, 7)), elsewhere];
    assert!(store.project(block(1, outcomes)).await.unwrap());

    let first = row(&store, 1).await.unwrap();
    assert_eq!((first.sequence, first.accepted_at), (sequence, NOW + 1));
    assert_eq!((first.request, first.operation_hash), (h("request", 2), h("attempt", 9)));
    assert_eq!((first.state, first.conflicted), (committed(1, 7), true));
    assert_eq!(private(&store, 1, 1).await, None);
    assert_eq!(private(&store, 1, 9).await, Some(sealed(1, 9)));

    let second = row(&store, 2).await.unwrap();
    assert_eq!((second.request, second.kind), (h("request", 2), OperationType::CaseOpen));
    assert!(second.conflicted);
    assert_eq!(private(&store, 2, 1).await, None);
    assert_eq!(listed(&store, everything(), 9).await, [1]);
}

pub(crate) async fn the_same_height_again_changes_nothing(backend: &impl Backend) {
    let store = backend.open().await;
    store.insert_accepted(vec![attempt(1, 1), attempt(2, 1)]).await.unwrap();
    let first = ProjectedBlock { links: vec![link(1, 1)], ..block(1, vec![outcome(&attempt(1, 1), committed(1, 7))]) };
    assert!(store.project(first.clone()).await.unwrap());
    assert!(store.project(block(2, vec![])).await.unwrap());
    let rows = find(&store, &[1, 2]).await;

    assert!(!store.project(first).await.unwrap());
    let other = ProjectedBlock {
        hash: h("header", 99),
        links: vec![link(1, 2)],
        ..block(2, vec![outcome(&attempt(2, 1), committed(2, 9))])
    };
    assert!(!store.project(other).await.unwrap());
    assert!(!store.project(block(0, vec![])).await.unwrap());
    assert_eq!(find(&store, &[1, 2]).await, rows);
    assert_eq!(store.cursor(NETWORK).await.unwrap(), Some(cursor_at(2)));
    assert_eq!(store.case_links(NETWORK, TENANT, &key(1), 0, 10).await.unwrap(), [link(1, 1)]);
}

pub(crate) async fn a_gap_is_refused(backend: &impl Backend) {
    let store = backend.open().await;
    store.insert_accepted(vec![accepted(1)]).await.unwrap();
    let settling = |height| block(height, vec![outcome(&accepted(1), committed(height, 7))]);
    assert!(is_broken(&store.project(settling(2)).await));
    assert_eq!(store.cursor(NETWORK).await.unwrap(), None);
    assert!(store.project(block(1, vec![])).await.unwrap());
    assert!(is_broken(&store.project(settling(3)).await));
    assert_eq!(store.cursor(NETWORK).await.unwrap(), Some(cursor_at(1)));
    assert_eq!(row(&store, 1).await.unwrap().state, OperationState::Accepted);
}

pub(crate) async fn a_failing_block_changes_nothing(backend: &impl Backend) {
    let store = backend.open().await;
    store.insert_accepted(vec![attempt(1, 1), attempt(1, 2), attempt(2, 1)]).await.unwrap();
    assert!(store.project(ProjectedBlock { links: vec![link(1, 1)], ..block(1, vec![]) }).await.unwrap());
    let rows = find(&store, &[1, 2]).await;

    let good = outcome(&attempt(1, 1), committed(2, 7));
    let failing = [
        // The position is taken.
        ProjectedBlock { links: vec![link(1, 2), link(1, 1)], ..block(2, vec![good.clone()]) },
        // No outcome.
        block(2, vec![good.clone(), outcome(&attempt(2, 1), OperationState::Accepted)]),
        // Two outcomes.
        block(2, vec![good.clone(), outcome(&attempt(1, 1), rejected(2))]),
        // One leaf for two operations.
        block(2, vec![good.clone(), outcome(&attempt(2, 1), committed(2, 7))]),
        // A key of another operation.
        block(2, vec![good.clone(), ProjectedOperation { op: op(3), ..outcome(&attempt(2, 1), rejected(2)) }]),
        // Beyond what the database holds.
        block(2, vec![good.clone(), outcome(&attempt(2, 1), committed(2, u64::MAX))]),
    ];
    for block in failing {
        let case = format!("{block:?}");
        assert!(is_broken(&store.project(block).await), "{case}");
        assert_eq!(find(&store, &[1, 2]).await, rows, "{case}");
        assert_eq!(store.cursor(NETWORK).await.unwrap(), Some(cursor_at(1)), "{case}");
        assert!(private(&store, 1, 2).await.is_some(), "{case}");
        assert_eq!(store.case_links(NETWORK, TENANT, &key(1), 0, 10).await.unwrap(), [link(1, 1)], "{case}");
    }
    assert!(store.project(block(2, vec![good])).await.unwrap());
}

pub(crate) async fn an_outcome_is_final(backend: &impl Backend) {
    let store = backend.open().await;
    store.insert_accepted(vec![accepted(1), accepted(2)]).await.unwrap();
    let outcomes = vec![outcome(&accepted(1), committed(1, 7)), outcome(&accepted(2), rejected(1))];
    assert!(store.project(block(1, outcomes)).await.unwrap());
    let rows = find(&store, &[1, 2]).await;
    for again in [outcome(&accepted(1), committed(2, 8)), outcome(&accepted(2), committed(2, 8))] {
        assert!(is_broken(&store.project(block(2, vec![again])).await));
    }
    assert_eq!(find(&store, &[1, 2]).await, rows);
    assert_eq!(store.cursor(NETWORK).await.unwrap(), Some(cursor_at(1)));
}

pub(crate) async fn links_come_in_order(backend: &impl Backend) {
    let store = backend.open().await;
    let first = ProjectedBlock { links: vec![link(1, 2), link(1, 1), link(2, 1)], ..block(1, vec![]) };
    let second = ProjectedBlock { links: vec![link(1, 3), link(2, 2)], ..block(2, vec![]) };
    assert!(store.project(first).await.unwrap() && store.project(second).await.unwrap());

    let links = |case, after, limit| {
        let store = store.clone();
        async move { store.case_links(NETWORK, TENANT, &key(case), after, limit).await.unwrap() }
    };
    assert_eq!(links(1, 0, 10).await, [link(1, 1), link(1, 2), link(1, 3)]);
    assert_eq!(links(1, 1, 1).await, [link(1, 2)]);
    assert_eq!(links(2, 0, u32::MAX).await, [link(2, 1), link(2, 2)]);
    assert_eq!(links(1, 3, 10).await, []);
    assert_eq!(links(1, u64::MAX, 10).await, []);
    assert_eq!(links(1, 0, 0).await, []);
    assert_eq!(links(3, 0, 10).await, []);
    assert_eq!(store.case_links("live", TENANT, &key(1), 0, 10).await.unwrap(), []);
}

pub(crate) async fn reprojection_gives_equal_rows(backend: &impl Backend) {
    let store = backend.open().await;
    store.insert_accepted((1..5).map(|number| attempt(number, 1)).collect()).await.unwrap();
    store.insert_accepted(vec![attempt(1, 2), other_request(2)]).await.unwrap();
    let blocks = [
        ProjectedBlock { links: vec![link(1, 1)], ..block(1, vec![outcome(&attempt(1, 2), committed(1, 7))]) },
        block(2, vec![outcome(&other_request(2), committed(2, 8)), outcome(&attempt(3, 1), rejected(2))]),
        ProjectedBlock { links: vec![link(1, 2)], ..block(3, vec![outcome(&accepted(6), committed(3, 9))]) },
    ];
    let live = ProjectedBlock { network: "live".to_owned(), links: vec![link(1, 1)], ..blocks[0].clone() };
    for block in blocks.iter().chain([&live]) {
        assert!(store.project(block.clone()).await.unwrap());
    }
    let numbers = [1, 2, 3, 4, 5, 6];
    let before = find(&store, &numbers).await;
    let links = store.case_links(NETWORK, TENANT, &key(1), 0, 10).await.unwrap();
    assert_eq!(links.len(), 2);

    store.reset("nowhere").await.unwrap();
    assert_eq!(find(&store, &numbers).await, before);
    store.reset(NETWORK).await.unwrap();
    assert_eq!(store.cursor(NETWORK).await.unwrap(), None);
    assert_eq!(store.case_links(NETWORK, TENANT, &key(1), 0, 10).await.unwrap(), []);
    let mut emptied = before.clone();
    emptied.iter_mut().flatten().for_each(|row| row.state = OperationState::Accepted);
    assert_eq!(find(&store, &numbers).await, emptied);
    for (number, attempt) in [(1, 2), (2, 9), (3, 1), (4, 1)] {
        assert!(private(&store, number, attempt).await.is_some(), "{number}");
    }
    // The other network is as it was.
    assert_eq!(store.cursor("live").await.unwrap(), Some(cursor_at(1)));
    assert_eq!(store.find("live", TENANT, &[key(1)]).await.unwrap().remove(0).unwrap().state, committed(1, 7));
    assert_eq!(store.case_links("live", TENANT, &key(1), 0, 10).await.unwrap(), [link(1, 1)]);

    // A redelivery in between must not change what comes of it.
    store.insert_accepted(vec![attempt(1, 1), attempt(2, 1), attempt(3, 1)]).await.unwrap();
    for block in &blocks {
        assert!(store.project(block.clone()).await.unwrap());
    }
    assert_eq!(find(&store, &numbers).await, before);
    assert_eq!(store.case_links(NETWORK, TENANT, &key(1), 0, 10).await.unwrap(), links);
    assert_eq!(private(&store, 1, 1).await, None);
    assert_eq!(private(&store, 2, 1).await, None);
}

pub(crate) async fn one_of_several_projectors_wins_each_height(backend: &impl Backend) {
    const HEIGHTS: u64 = 40;
    let stores = [backend.open().await, backend.open().await];
    stores[0].insert_accepted((1..=HEIGHTS).map(|number| attempt(number, 1)).collect()).await.unwrap();
    let tasks: Vec<_> = (0..6)
        .map(|task| {
            let store = stores[task % 2].clone();
            tokio::spawn(async move {
                let mut won = Vec::new();
                for height in 1..=HEIGHTS {
                    let block = block(height, vec![outcome(&attempt(height, 1), committed(height, height))]);
                    if store.project(block).await.unwrap() {
                        won.push(height);
                    }
                }
                won
            })
        })
        .collect();
    let mut won = Vec::new();
    for task in tasks {
        won.extend(task.await.unwrap());
    }
    won.sort_unstable();
    assert_eq!(won, (1..=HEIGHTS).collect::<Vec<_>>());
    assert_eq!(stores[0].cursor(NETWORK).await.unwrap(), Some(cursor_at(HEIGHTS)));
    for (row, height) in find(&stores[1], &won).await.into_iter().zip(1..) {
        assert_eq!(row.unwrap().state, committed(height, height));
    }
}

pub(crate) async fn blocks_and_batches_interleave(backend: &impl Backend) {
    const HEIGHTS: u64 = 60;
    let stores = [backend.open().await, backend.open().await];
    let inserting = stores[0].clone();
    let inserter = tokio::spawn(async move {
        for height in 1..=HEIGHTS {
            inserting.insert_accepted((0..9).map(|at| attempt(10 * height + at, 1)).collect()).await.unwrap();
        }
    });
    for height in 1..=HEIGHTS {
        // Some of them are inserted before their outcome, some after, some never.
        let outcomes = (0..10).map(|at| outcome(&attempt(10 * height + at, 1), committed(height, 10 * height + at)));
        assert!(stores[1].project(block(height, outcomes.collect())).await.unwrap());
    }
    inserter.await.unwrap();
    let numbers: Vec<_> = (10..10 * (HEIGHTS + 1)).collect();
    for (row, number) in find(&stores[0], &numbers).await.into_iter().zip(10..) {
        let row = row.unwrap();
        assert_eq!((row.state, row.conflicted), (committed(number / 10, number), false));
        assert_eq!(private(&stores[0], number, 1).await.is_some(), number % 10 != 9);
    }
}
