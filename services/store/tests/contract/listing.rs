//! `OperationStore::list`.

use chopmark_domain::{
    ports::{OperationStore as _, ProjectionStore as _},
    record::{AcceptedOperation, ListQuery, SealedPrivate, StateFilter},
};
use ledger_core::operation::OperationType;

use crate::fixtures::*;

const NONE: [u64; 0] = [];

pub(crate) async fn newest_first_in_pages(backend: &impl Backend) {
    let store = backend.open().await;
    assert_eq!(listed(&store, everything(), 1).await, NONE);
    store.insert_accepted((0..25).map(accepted).collect()).await.unwrap();
    store.insert_accepted((25..30).map(accepted).collect()).await.unwrap();
    assert_eq!(listed(&store, everything(), 30).await, (0..30).rev().collect::<Vec<_>>());

    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let page = store.list(ListQuery { limit: 7, before, ..everything() }).await.unwrap();
        assert!(page.len() <= 7);
        assert!(page.iter().all(|row| before.is_none_or(|before| row.sequence < before)));
        let Some(last) = page.last() else { break };
        before = Some(last.sequence);
        seen.extend(page.iter().map(|row| row.op));
    }
    assert_eq!(seen, (0..30).rev().map(op).collect::<Vec<_>>());

    assert_eq!(listed(&store, ListQuery { limit: 0, ..everything() }, 30).await, NONE);
    assert_eq!(listed(&store, ListQuery { limit: u32::MAX, ..everything() }, 30).await.len(), 30);
    assert_eq!(listed(&store, ListQuery { before: Some(u64::MAX), ..everything() }, 30).await.len(), 30);
    assert_eq!(listed(&store, ListQuery { before: Some(0), ..everything() }, 30).await, NONE);
}

/// Ten operations: 0 to 3 committed at leaf 10 to 13, 4 and 5 rejected, the rest accepted; 8 opens
/// a case; odd ones have the external id 1, even ones the external id 2.
async fn mixed(store: &impl Store) {
    let rows: Vec<_> = (0..10).map(|number| with_external(number, 1, 2 - number % 2)).collect();
    let mut sent = rows.clone();
    sent[8].kind = OperationType::CaseOpen;
    store.insert_accepted(sent).await.unwrap();
    let mut outcomes: Vec<_> = (0..4).map(|at| outcome(&rows[at], committed(1, 10 + at as u64))).collect();
    outcomes.extend(rows[4..6].iter().map(|row| outcome(row, rejected(1))));
    assert!(store.project(block(1, outcomes)).await.unwrap());
}

fn with_external(number: u64, attempts: u64, external: u64) -> AcceptedOperation {
    let private = SealedPrivate { sealed: sealed(number, attempts), external_index: Some(h("external", external)) };
    AcceptedOperation { private: Some(private), ..attempt(number, attempts) }
}

pub(crate) async fn filters_narrow_and_combine(backend: &impl Backend) {
    let store = backend.open().await;
    mixed(&store).await;
    let all = everything;
    let external = |number| Some(h("external", number));
    let sequence_of_6 = row(&store, 6).await.unwrap().sequence;
    let cases: [(ListQuery, &[u64]); 14] = [
        (all(), &[9, 7, 6, 5, 4, 3, 2, 1, 0]),
        (ListQuery { kind: OperationType::CaseOpen, ..all() }, &[8]),
        (ListQuery { kind: OperationType::Redigest, ..all() }, &[]),
        (ListQuery { state: Some(StateFilter::Accepted), ..all() }, &[9, 7, 6]),
        (ListQuery { state: Some(StateFilter::Committed), ..all() }, &[3, 2, 1, 0]),
        (ListQuery { state: Some(StateFilter::Rejected), ..all() }, &[5, 4]),
        (ListQuery { from: Some(NOW + 5), ..all() }, &[9, 7, 6, 5]),
        (ListQuery { to: Some(NOW + 2), ..all() }, &[1, 0]),
        (ListQuery { from: Some(NOW + 2), to: Some(NOW + 5), ..all() }, &[4, 3, 2]),
        (ListQuery { from: Some(u64::MAX), ..all() }, &[]),
        (ListQuery { external_index: external(1), ..all() }, &[9, 7, 5, 3, 1]),
        (ListQuery { external_index: external(2), limit: 2, before: Some(sequence_of_6), ..all() }, &[4, 2]),
        (ListQuery { external_index: external(3), ..all() }, &[]),
        (
            ListQuery {
                external_index: external(1),
                state: Some(StateFilter::Committed),
                from: Some(NOW + 1),
                to: Some(NOW + 9),
                indexes: Some(vec![10, 11, 13]),
                before: Some(sequence_of_6),
                ..all()
            },
            &[3, 1],
        ),
    ];
    for (query, expected) in cases {
        assert_eq!(listed(&store, query.clone(), 10).await, expected, "{query:?}");
    }
}

pub(crate) async fn an_external_id_lists_the_attempt_that_holds_the_id(backend: &impl Backend) {
    let store = backend.open().await;
    let by_external = |external| ListQuery { external_index: Some(h("external", external)), ..everything() };
    // Two attempts at one request have the same external id; another request has another.
    let mut other = with_external(1, 9, 2);
    other.request = h("request", 2);
    store.insert_accepted(vec![with_external(1, 1, 1), with_external(1, 2, 1), other.clone()]).await.unwrap();
    assert_eq!(listed(&store, by_external(1), 9).await, [1]);
    assert_eq!(listed(&store, by_external(2), 9).await, NONE);

    assert!(store.project(block(1, vec![outcome(&other, committed(1, 10))])).await.unwrap());
    assert_eq!(listed(&store, by_external(1), 9).await, NONE);
    assert_eq!(listed(&store, by_external(2), 9).await, [1]);
}

pub(crate) async fn leaf_indexes_narrow(backend: &impl Backend) {
    let store = backend.open().await;
    mixed(&store).await;
    let by_index = |indexes: Vec<u64>| ListQuery { indexes: Some(indexes), ..everything() };
    assert_eq!(listed(&store, by_index(vec![]), 10).await, NONE);
    assert_eq!(listed(&store, by_index(vec![12, 10, 12, 99, u64::MAX]), 10).await, [2, 0]);
    assert_eq!(listed(&store, by_index((0..1000).collect()), 10).await, [3, 2, 1, 0]);
    assert!(is_broken(&store.list(by_index((0..1001).collect())).await));
}

pub(crate) async fn no_filter_shows_another_tenants_rows(backend: &impl Backend) {
    let store = backend.open().await;
    mixed(&store).await;
    let mut theirs = with_external(20, 1, 1);
    theirs.tenant = OTHER_TENANT.to_owned();
    let mut live = with_external(21, 1, 1);
    live.network = "live".to_owned();
    store.insert_accepted(vec![theirs, live]).await.unwrap();

    let asks = |tenant: &str, network: &str| {
        let base = ListQuery { tenant: tenant.to_owned(), network: network.to_owned(), ..everything() };
        [
            base.clone(),
            ListQuery { state: Some(StateFilter::Accepted), ..base.clone() },
            ListQuery { state: Some(StateFilter::Committed), ..base.clone() },
            ListQuery { state: Some(StateFilter::Rejected), ..base.clone() },
            ListQuery { from: Some(0), to: Some(u64::MAX), ..base.clone() },
            ListQuery { before: Some(u64::MAX), ..base.clone() },
            ListQuery { external_index: Some(h("external", 1)), ..base.clone() },
            ListQuery { indexes: Some((0..100).collect()), ..base },
        ]
    };
    for (tenant, network, own) in [
        (TENANT, NETWORK, (0..10).collect::<Vec<_>>()),
        (OTHER_TENANT, NETWORK, vec![20]),
        (TENANT, "live", vec![21]),
        (OTHER_TENANT, "live", vec![]),
        ("", NETWORK, vec![]),
    ] {
        for query in asks(tenant, network) {
            let shown = listed(&store, query.clone(), 30).await;
            assert!(shown.iter().all(|number| own.contains(number)), "{query:?} shows {shown:?}");
        }
    }
}

pub(crate) async fn a_walk_shows_each_row_once_while_many_write(backend: &impl Backend) {
    let store = backend.open().await;
    store.insert_accepted((0..300).map(accepted).collect()).await.unwrap();
    let writers: Vec<_> = (1..5)
        .map(|writer: u64| {
            let store = store.clone();
            tokio::spawn(async move {
                for batch in 0..30 {
                    let first = 1000 * writer + 20 * batch;
                    store.insert_accepted((first..first + 20).map(accepted).collect()).await.unwrap();
                }
            })
        })
        .collect();
    while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
        let mut seen: Vec<u64> = Vec::new();
        let mut before = None;
        loop {
            let page = store.list(ListQuery { limit: 50, before, ..everything() }).await.unwrap();
            let Some(last) = page.last() else { break };
            before = Some(last.sequence);
            seen.extend(page.iter().map(|row| row.accepted_at - NOW));
        }
        assert!(seen.ends_with(&(0..300).rev().collect::<Vec<_>>()));
        let rows = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), rows);
    }
    for writer in writers {
        writer.await.unwrap();
    }
}

pub(crate) async fn pages_are_stable_while_rows_arrive(backend: &impl Backend) {
    let store = backend.open().await;
    store.insert_accepted((0..200).map(accepted).collect()).await.unwrap();
    let writer = store.clone();
    let inserting = tokio::spawn(async move {
        for number in 200..400 {
            writer.insert_accepted(vec![accepted(number)]).await.unwrap();
        }
    });

    let mut seen: Vec<u64> = Vec::new();
    let mut before = None;
    loop {
        let page = store.list(ListQuery { limit: 9, before, ..everything() }).await.unwrap();
        let Some(last) = page.last() else { break };
        before = Some(last.sequence);
        seen.extend(page.iter().map(|row| row.accepted_at - NOW));
    }
    inserting.await.unwrap();
    let newest = seen[0];
    assert!(newest >= 199);
    assert_eq!(seen, (0..=newest).rev().collect::<Vec<_>>());
}
