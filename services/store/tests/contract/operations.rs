//! `OperationStore`, but for listing.

use chopmark_domain::{id::ResourceKey, ports::OperationStore as _, record::OperationState};

use crate::fixtures::*;

pub(crate) async fn rows_come_back_in_the_order_asked(backend: &impl Backend) {
    let store = backend.open().await;
    assert_eq!(find(&store, &[]).await, []);
    assert_eq!(row(&store, 1).await, None);

    store.insert_accepted(vec![]).await.unwrap();
    store.insert_accepted(vec![accepted(1), accepted(2), accepted(3)]).await.unwrap();
    let rows = find(&store, &[3, 7, 1, 3]).await;
    let ops: Vec<_> = rows.iter().map(|row| row.as_ref().map(|row| row.op)).collect();
    assert_eq!(ops, [Some(op(3)), None, Some(op(1)), Some(op(3))]);

    let (row, sent) = (row(&store, 2).await.unwrap(), accepted(2));
    assert_eq!((row.key, row.op, row.tenant, row.kind), (sent.key, sent.op, sent.tenant, sent.kind));
    assert_eq!((row.request, row.operation_hash, row.accepted_at), (sent.request, sent.operation_hash, NOW + 2));
    assert_eq!((row.state, row.conflicted), (OperationState::Accepted, false));

    let sequences: Vec<_> = find(&store, &[1, 2, 3]).await.into_iter().map(|row| row.unwrap().sequence).collect();
    assert!(sequences.is_sorted() && sequences[0] < sequences[2], "{sequences:?}");
}

pub(crate) async fn the_same_request_again_changes_nothing(backend: &impl Backend) {
    let store = backend.open().await;
    store.insert_accepted(vec![attempt(1, 1), accepted(2)]).await.unwrap();
    let before = find(&store, &[1, 2]).await;

    let mut later = attempt(1, 2);
    later.accepted_at += 5000;
    store.insert_accepted(vec![attempt(1, 1), later, accepted(2)]).await.unwrap();
    assert_eq!(find(&store, &[1, 2]).await, before);
    assert_eq!(private(&store, 1, 1).await, Some(sealed(1, 1)));
    assert_eq!(private(&store, 1, 2).await, Some(sealed(1, 2)));
    assert_eq!(private(&store, 1, 3).await, None);
    assert_eq!(private(&store, 2, 1).await, None);
    assert_eq!(listed(&store, everything(), 9).await, [2, 1]);
}

pub(crate) async fn another_request_marks_the_first_row(backend: &impl Backend) {
    let store = backend.open().await;
    store.insert_accepted(vec![attempt(1, 1), accepted(2)]).await.unwrap();
    let before = find(&store, &[1, 2]).await;
    store.insert_accepted(vec![other_request(1)]).await.unwrap();

    let mut expected = before.clone();
    expected[0].as_mut().unwrap().conflicted = true;
    assert_eq!(find(&store, &[1, 2]).await, expected);
    // The ledger may still choose the other one.
    assert_eq!(private(&store, 1, 1).await, Some(sealed(1, 1)));
    assert_eq!(private(&store, 1, 9).await, Some(sealed(1, 9)));

    // Neither request takes the mark away.
    store.insert_accepted(vec![attempt(1, 1), other_request(1)]).await.unwrap();
    assert_eq!(find(&store, &[1, 2]).await, expected);
}

pub(crate) async fn another_tenant_under_the_same_key_is_a_conflict(backend: &impl Backend) {
    let store = backend.open().await;
    store.insert_accepted(vec![attempt(1, 1)]).await.unwrap();
    let mut other = attempt(1, 2);
    other.tenant = OTHER_TENANT.to_owned();
    store.insert_accepted(vec![other]).await.unwrap();
    let row = row(&store, 1).await.unwrap();
    assert_eq!((row.tenant.as_str(), row.conflicted), (TENANT, true));
    // What the other one sealed is not the first one's, and the row is not the other one's.
    assert_eq!(private(&store, 1, 2).await, None);
    for at in [1, 2] {
        assert_eq!(store.sealed_private(NETWORK, OTHER_TENANT, &op(1), &h("attempt", at)).await.unwrap(), None);
    }
}

pub(crate) async fn another_tenant_finds_nothing(backend: &impl Backend) {
    use chopmark_domain::ports::ProjectionStore as _;

    let store = backend.open().await;
    store.insert_accepted(vec![attempt(1, 1), accepted(2)]).await.unwrap();
    let mut block = block(1, vec![outcome(&attempt(1, 1), committed(1, 10))]);
    block.links = vec![link(1, 1)];
    assert!(store.project(block).await.unwrap());
    for tenant in [OTHER_TENANT, "", "TEN_FIRST", "ten_first "] {
        assert_eq!(store.find(NETWORK, tenant, &[key(1), key(2)]).await.unwrap(), [None, None], "{tenant}");
        assert_eq!(store.sealed_private(NETWORK, tenant, &op(1), &h("attempt", 1)).await.unwrap(), None, "{tenant}");
        assert_eq!(store.case_links(NETWORK, tenant, &key(1), 0, 9).await.unwrap(), [], "{tenant}");
    }
}

pub(crate) async fn one_batch_may_repeat_itself(backend: &impl Backend) {
    let store = backend.open().await;
    let batch = vec![attempt(1, 1), attempt(2, 1), attempt(1, 2), attempt(1, 1), other_request(2), attempt(3, 1)];
    store.insert_accepted(batch).await.unwrap();
    let conflicted: Vec<_> = find(&store, &[1, 2, 3]).await.into_iter().map(|row| row.unwrap().conflicted).collect();
    assert_eq!(conflicted, [false, true, false]);
    assert_eq!(row(&store, 1).await.unwrap().operation_hash, h("attempt", 1));
    assert_eq!(listed(&store, everything(), 9).await, [3, 2, 1]);
    assert!(private(&store, 1, 1).await.is_some() && private(&store, 1, 2).await.is_some());
}

pub(crate) async fn a_settled_row_stays_settled(backend: &impl Backend) {
    use chopmark_domain::ports::ProjectionStore as _;

    let store = backend.open().await;
    store.insert_accepted(vec![attempt(1, 1), attempt(2, 1)]).await.unwrap();
    let outcomes = vec![outcome(&attempt(1, 1), committed(1, 10)), outcome(&attempt(2, 1), rejected(1))];
    assert!(store.project(block(1, outcomes)).await.unwrap());
    let settled = find(&store, &[1, 2]).await;

    store.insert_accepted(vec![attempt(1, 1), attempt(1, 2), attempt(2, 1), attempt(2, 2)]).await.unwrap();
    assert_eq!(find(&store, &[1, 2]).await, settled);

    store.insert_accepted(vec![other_request(1), other_request(2)]).await.unwrap();
    let mut expected = settled;
    expected.iter_mut().for_each(|row| row.as_mut().unwrap().conflicted = true);
    assert_eq!(find(&store, &[1, 2]).await, expected);
}

pub(crate) async fn attempts_keep_their_private_parts_until_one_is_settled(backend: &impl Backend) {
    use chopmark_domain::ports::ProjectionStore as _;

    let store = backend.open().await;
    store.insert_accepted(vec![attempt(1, 1), attempt(1, 2), other_request(1)]).await.unwrap();
    assert!(store.project(block(1, vec![outcome(&attempt(1, 2), committed(1, 10))])).await.unwrap());
    // A redelivery after the outcome brings none of the losers back.
    store.insert_accepted(vec![attempt(1, 1), attempt(1, 2), attempt(1, 3), other_request(1)]).await.unwrap();
    for (number, kept) in [(1, false), (2, true), (3, false), (9, false)] {
        assert_eq!(private(&store, 1, number).await.is_some(), kept, "attempt {number}");
    }
    // A private part is looked up by operation, attempt and network.
    assert_eq!(store.sealed_private("live", TENANT, &op(1), &h("attempt", 2)).await.unwrap(), None);
    assert_eq!(private(&store, 2, 2).await, None);
}

pub(crate) async fn a_private_part_needs_its_operations_first_key(backend: &impl Backend) {
    let store = backend.open().await;
    let mut item = accepted(1);
    item.key = ResourceKey::of(&op(1), 3);
    store.insert_accepted(vec![item.clone()]).await.unwrap();
    item.private = attempt(1, 1).private;
    assert!(is_broken(&store.insert_accepted(vec![item]).await));
    assert_eq!(private(&store, 1, 1).await, None);
}

pub(crate) async fn a_bad_row_leaves_its_batch_out(backend: &impl Backend) {
    let store = backend.open().await;
    let mut late = accepted(2);
    late.accepted_at = u64::MAX;
    assert!(is_broken(&store.insert_accepted(vec![accepted(1), late]).await));
    let mut foreign = accepted(3);
    foreign.op = op(4);
    store.insert_accepted(vec![accepted(3)]).await.unwrap();
    assert!(is_broken(&store.insert_accepted(vec![accepted(1), foreign]).await));
    assert_eq!(listed(&store, everything(), 9).await, [3]);
}

pub(crate) async fn networks_are_apart(backend: &impl Backend) {
    let store = backend.open().await;
    let mut live = other_request(1);
    live.network = "live".to_owned();
    store.insert_accepted(vec![attempt(1, 1), live]).await.unwrap();
    assert!(!row(&store, 1).await.unwrap().conflicted);
    let live = store.find("live", TENANT, &[key(1)]).await.unwrap().remove(0).unwrap();
    assert_eq!((live.request, live.conflicted), (h("request", 2), false));
    assert_eq!(private(&store, 1, 9).await, None);
    assert_eq!(store.sealed_private("live", TENANT, &op(1), &h("attempt", 9)).await.unwrap(), Some(sealed(1, 9)));
    assert_eq!(listed(&store, everything(), 9).await.len(), 1);
}

pub(crate) async fn a_batch_may_be_large(backend: &impl Backend) {
    let store = backend.open().await;
    let total = 20_001;
    store.insert_accepted((0..total).map(|number| attempt(number, 1)).collect()).await.unwrap();
    let numbers: Vec<_> = (0..total).collect();
    let rows = find(&store, &numbers).await;
    assert!(rows.iter().zip(&numbers).all(|(row, number)| row.as_ref().is_some_and(|row| row.op == op(*number))));
}

pub(crate) async fn concurrent_inserts_of_the_same_rows_keep_one_each(backend: &impl Backend) {
    let stores = [backend.open().await, backend.open().await];
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let store = stores[task % 2].clone();
            tokio::spawn(async move {
                for batch in 0..10 {
                    store.insert_accepted((0..50).map(|at| attempt(50 * batch + at, 1)).collect()).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let mut sequences: Vec<_> =
        stores[0].list(everything()).await.unwrap().into_iter().map(|row| row.sequence).collect();
    assert_eq!(sequences.len(), 500);
    sequences.dedup();
    assert_eq!(sequences.len(), 500);
}

pub(crate) async fn rows_survive_reopening(backend: &impl Backend) {
    use chopmark_domain::ports::ProjectionStore as _;

    let store = backend.open().await;
    store.insert_accepted(vec![attempt(1, 1), attempt(2, 1)]).await.unwrap();
    assert!(store.project(block(1, vec![outcome(&attempt(1, 1), committed(1, 10))])).await.unwrap());
    let (rows, cursor) = (find(&store, &[1, 2, 3]).await, store.cursor(NETWORK).await.unwrap());
    drop(store);

    for _ in 0..2 {
        let store = backend.open().await;
        assert_eq!(find(&store, &[1, 2, 3]).await, rows);
        assert_eq!(store.cursor(NETWORK).await.unwrap(), cursor);
        assert_eq!(private(&store, 1, 1).await, Some(sealed(1, 1)));
    }
}
