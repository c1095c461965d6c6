//! `WebhookStore` and `DeliveryStore`.

use std::collections::HashSet;

use chopmark_domain::{
    id::ResourceKey,
    ports::{DeliveryStore as _, EndpointInsertion, OperationStore as _, ProjectionStore as _, WebhookStore as _},
    quota::Limits,
    tenant::TenantRow,
    webhook::{
        AttemptOutcome, AttemptRow, Backlog, ClaimedDelivery, DeliveryQuery, DeliveryState, EndpointRow, EndpointState,
        EventType, NextStep, OutboxEvent, ReplayRange,
    },
};

use crate::fixtures::*;

/// Long after every block.
const LATER: u64 = NOW + 1_000_000_000;
const CLAIM_MS: u64 = 60_000;
const ENDPOINTS_MAX: u32 = 16;

async fn add_tenant(store: &impl Store, id: &str) {
    let tenant = TenantRow {
        signatures_required: false,
        id: id.to_owned(),
        network: NETWORK.to_owned(),
        wrapped_secret: vec![7; 60],
        active: true,
        limits: Limits::default(),
        created_at: NOW,
    };
    store.insert_tenant(tenant).await.unwrap();
}

fn endpoint(number: u8, tenant: &str) -> EndpointRow {
    EndpointRow {
        network: NETWORK.to_owned(),
        id: ResourceKey([number; 16]),
        tenant: tenant.to_owned(),
        request: h("endpoint", number.into()),
        url: format!("https://hooks.example.org/{number}"),
        events: Vec::new(),
        description: None,
        secret: vec![number; 60],
        previous_secret: None,
        state: EndpointState::Enabled,
        disabled_at: None,
        failing_since: None,
        created_at: NOW + u64::from(number),
        version: 1,
    }
}

async fn with_endpoints(store: &impl Store, endpoints: &[EndpointRow]) {
    for endpoint in endpoints {
        add_tenant(store, &endpoint.tenant).await;
        let inserted = store.insert_endpoint(endpoint.clone(), ENDPOINTS_MAX).await.unwrap();
        assert_eq!(inserted, EndpointInsertion::New);
    }
}

/// Projects one block with a committed piece of evidence for each number.
async fn commit(store: &impl Store, height: u64, numbers: std::ops::Range<u64>) {
    let rows: Vec<_> = numbers.clone().map(accepted).collect();
    store.insert_accepted(rows.clone()).await.unwrap();
    let outcomes = rows.iter().zip(numbers).map(|(row, index)| outcome(row, committed(height, index))).collect();
    assert!(store.project(block(height, outcomes)).await.unwrap());
}

fn all() -> DeliveryQuery {
    DeliveryQuery { network: NETWORK.to_owned(), tenant: TENANT.to_owned(), limit: 1000, ..DeliveryQuery::default() }
}

async fn claim(store: &impl Store, endpoint: &EndpointRow, name: u8, now: u64, limit: u32) -> Vec<ClaimedDelivery> {
    let name = ResourceKey([name; 16]);
    store.claim(NETWORK, &endpoint.id, name, (now, now + CLAIM_MS), limit).await.unwrap()
}

fn attempt(delivery: &ClaimedDelivery, outcome: AttemptOutcome, at: u64) -> AttemptRow {
    AttemptRow {
        at,
        number: delivery.attempts + 1,
        outcome,
        status: Some(if outcome == AttemptOutcome::Delivered { 204 } else { 503 }),
        detail: "as the receiver said".to_owned(),
        took_ms: 12,
    }
}

async fn end(store: &impl Store, delivery: &ClaimedDelivery, at: u64, next: NextStep) -> bool {
    let outcome = if next == NextStep::Done { AttemptOutcome::Delivered } else { AttemptOutcome::Failed };
    store.record(delivery, attempt(delivery, outcome, at), next).await.unwrap()
}

fn keys(deliveries: &[ClaimedDelivery]) -> Vec<ResourceKey> {
    deliveries.iter().map(|delivery| delivery.event.key).collect()
}

pub(crate) async fn endpoints_are_kept(backend: &impl Backend) {
    let store = backend.open().await;
    let (mut first, other) = (endpoint(1, TENANT), endpoint(2, OTHER_TENANT));
    first.events = vec![EventType::EvidenceCommitted, EventType::CaseLinkRejected];
    first.description = Some("订单服务".to_owned());
    first.previous_secret = Some((vec![9; 60], NOW + 5));
    with_endpoints(&store, &[first.clone(), other.clone()]).await;
    let again = store.insert_endpoint(EndpointRow { url: "https://b.example.org/".into(), ..first.clone() }, 1).await;
    assert_eq!(again.unwrap(), EndpointInsertion::Known(Box::new(first.clone())));
    let more = store.insert_endpoint(endpoint(3, TENANT), 1).await.unwrap();
    assert_eq!(more, EndpointInsertion::TooMany);
    assert_eq!(store.endpoints(NETWORK, TENANT).await.unwrap(), [first.clone()]);
    assert_eq!(store.endpoints("live", TENANT).await.unwrap(), []);

    let mut changed = EndpointRow { version: 2, events: Vec::new(), previous_secret: None, ..first.clone() };
    changed.url = "https://c.example.org/".into();
    assert!(store.update_endpoint(changed.clone()).await.unwrap());
    assert!(!store.update_endpoint(changed.clone()).await.unwrap(), "it is at that version already");
    let stolen = EndpointRow { tenant: TENANT.to_owned(), version: 2, ..other.clone() };
    assert!(!store.update_endpoint(stolen).await.unwrap());
    assert_eq!(store.endpoints(NETWORK, TENANT).await.unwrap(), [changed]);

    assert!(!store.delete_endpoint(NETWORK, TENANT, &other.id).await.unwrap());
    assert!(store.delete_endpoint(NETWORK, TENANT, &first.id).await.unwrap());
    assert!(!store.delete_endpoint(NETWORK, TENANT, &first.id).await.unwrap());
    assert_eq!(store.endpoints(NETWORK, OTHER_TENANT).await.unwrap(), [other]);
}

pub(crate) async fn a_block_is_told_to_those_who_ask(backend: &impl Backend) {
    let store = backend.open().await;
    let everything = endpoint(1, TENANT);
    let rejections = EndpointRow { events: vec![EventType::EvidenceRejected], ..endpoint(2, TENANT) };
    let disabled = EndpointRow { state: EndpointState::Disabled, disabled_at: Some(NOW), ..endpoint(3, TENANT) };
    let stranger = endpoint(4, OTHER_TENANT);
    with_endpoints(&store, &[everything.clone(), rejections.clone(), disabled.clone(), stranger.clone()]).await;
    let rows = [accepted(1), accepted(2)];
    store.insert_accepted(rows.to_vec()).await.unwrap();
    let outcomes = vec![outcome(&rows[0], committed(1, 7)), outcome(&rows[1], rejected(1))];
    assert!(store.project(block(1, outcomes)).await.unwrap());
    let due: HashSet<_> = store.due_endpoints(NETWORK, LATER).await.unwrap().into_iter().collect();
    assert_eq!(due, HashSet::from([everything.id, rejections.id]));
    let told = claim(&store, &everything, 1, LATER, 10).await;
    assert_eq!(keys(&told), [key(1), key(2)]);
    let kinds: Vec<_> = told.iter().map(|delivery| delivery.event.kind).collect();
    assert_eq!(kinds, [EventType::EvidenceCommitted, EventType::EvidenceRejected]);
    let event = &told[0].event;
    assert_eq!((event.time, event.facts.index, event.facts.height), (block_time(1), Some(7), Some(1)));
    assert_eq!(told[0].endpoint, everything);
    assert_eq!(keys(&claim(&store, &rejections, 2, LATER, 10).await), [key(2)]);
    for nobody in [&disabled, &stranger] {
        assert!(claim(&store, nobody, 3, LATER, 10).await.is_empty());
    }
    assert!(store.due_endpoints("live", LATER).await.unwrap().is_empty());
}

pub(crate) async fn nobody_is_told_twice(backend: &impl Backend) {
    let store = backend.open().await;
    commit(&store, 1, 1..3).await;
    with_endpoints(&store, &[endpoint(1, TENANT)]).await;
    commit(&store, 2, 3..5).await;
    let told = store.deliveries(all()).await.unwrap();
    assert_eq!(told.iter().map(|delivery| delivery.event.key).collect::<Vec<_>>(), [key(4), key(3)]);
    store.reset(NETWORK).await.unwrap();
    for (height, numbers) in [(1, 1..3), (2, 3..5)] {
        let rows: Vec<_> = numbers.clone().map(accepted).collect();
        let outcomes = rows.iter().zip(numbers).map(|(row, index)| outcome(row, committed(height, index))).collect();
        assert!(store.project(block(height, outcomes)).await.unwrap());
    }
    assert_eq!(store.deliveries(all()).await.unwrap(), told);
    // What comes after is told.
    commit(&store, 3, 5..6).await;
    assert_eq!(store.deliveries(all()).await.unwrap().len(), 3);
}

pub(crate) async fn a_conflict_is_told_once(backend: &impl Backend) {
    let store = backend.open().await;
    with_endpoints(&store, &[EndpointRow { events: vec![EventType::OperationConflicted], ..endpoint(1, TENANT) }])
        .await;
    store.insert_accepted(vec![accepted(1)]).await.unwrap();
    for _ in 0..2 {
        store.insert_accepted(vec![other_request(1)]).await.unwrap();
    }
    // The other request was first in the log, so that the row becomes its.
    store.insert_accepted(vec![accepted(2)]).await.unwrap();
    assert!(store.project(block(1, vec![outcome(&other_request(2), committed(1, 1))])).await.unwrap());
    let mut told: Vec<_> = store.deliveries(all()).await.unwrap().into_iter().map(|told| told.event.key).collect();
    told.sort_unstable();
    let mut expected = vec![key(1), key(2)];
    expected.sort_unstable();
    assert_eq!(told, expected);
}

pub(crate) async fn a_claim_is_nobody_elses_until_it_ends(backend: &impl Backend) {
    let (store, other) = (backend.open().await, backend.open().await);
    let to = endpoint(1, TENANT);
    with_endpoints(&store, std::slice::from_ref(&to)).await;
    commit(&store, 1, 1..6).await;
    let first = claim(&store, &to, 1, LATER, 3).await;
    assert_eq!(keys(&first), [key(1), key(2), key(3)]);
    assert_eq!(keys(&claim(&other, &to, 2, LATER, 10).await), [key(4), key(5)]);
    assert!(claim(&other, &to, 3, LATER + CLAIM_MS - 1, 10).await.is_empty());
    assert!(store.due_endpoints(NETWORK, LATER + CLAIM_MS - 1).await.unwrap().is_empty());
    // The first courier is dead, or slow; another has its turn, and what the first brings too late counts for nothing.
    let second = claim(&other, &to, 4, LATER + CLAIM_MS, 3).await;
    assert_eq!(keys(&second), [key(1), key(2), key(3)]);
    assert!(!end(&store, &first[0], LATER + CLAIM_MS, NextStep::Dead).await);
    assert!(end(&other, &second[0], LATER + CLAIM_MS, NextStep::Done).await);
    assert!(!end(&other, &second[0], LATER + CLAIM_MS, NextStep::Done).await, "it was written already");
    let (delivery, log) = store.delivery(NETWORK, TENANT, &second[0].event.delivery_to(&to.id)).await.unwrap().unwrap();
    assert_eq!((delivery.state, delivery.attempts, delivery.last_status), (DeliveryState::Delivered, 1, Some(204)));
    assert_eq!(delivery.ended_at, Some(LATER + CLAIM_MS + 12));
    assert_eq!(log, [attempt(&second[0], AttemptOutcome::Delivered, LATER + CLAIM_MS)]);
}

pub(crate) async fn a_resource_is_told_of_in_order(backend: &impl Backend) {
    let store = backend.open().await;
    let to = endpoint(1, TENANT);
    with_endpoints(&store, std::slice::from_ref(&to)).await;
    // Three links of one case, in three blocks.
    for height in 1..=3 {
        let row = chopmark_domain::record::AcceptedOperation {
            kind: ledger_core::operation::OperationType::CaseAppend,
            ..accepted(10 + height)
        };
        store.insert_accepted(vec![row.clone()]).await.unwrap();
        let mut block = block(height, vec![outcome(&row, committed(height, 1000 + height))]);
        block.links = vec![link(1, height)];
        assert!(store.project(block).await.unwrap());
    }
    let first = claim(&store, &to, 1, LATER, 10).await;
    assert_eq!(keys(&first), [key(11)], "the others wait for it");
    assert_eq!((first[0].event.resource, first[0].event.facts.position), (key(1), Some(1)));
    assert!(claim(&store, &to, 2, LATER, 10).await.is_empty());
    assert!(end(&store, &first[0], LATER, NextStep::Again(LATER + 500)).await);
    assert!(claim(&store, &to, 3, LATER + 499, 10).await.is_empty());
    let again = claim(&store, &to, 4, LATER + 500, 10).await;
    assert_eq!((keys(&again), again[0].attempts), (vec![key(11)], 1));
    assert_eq!(again[0].endpoint.failing_since, Some(LATER));
    assert!(end(&store, &again[0], LATER + 500, NextStep::Done).await);
    let second = claim(&store, &to, 5, LATER + 500, 10).await;
    assert_eq!((keys(&second), second[0].endpoint.failing_since), (vec![key(12)], None));
    // What is given up holds nobody up.
    assert!(end(&store, &second[0], LATER + 500, NextStep::Dead).await);
    assert_eq!(keys(&claim(&store, &to, 6, LATER + 500, 10).await), [key(13)]);
}

pub(crate) async fn what_was_sent_is_sent_again(backend: &impl Backend) {
    let store = backend.open().await;
    let to = endpoint(1, TENANT);
    with_endpoints(&store, &[to.clone(), endpoint(2, OTHER_TENANT)]).await;
    commit(&store, 1, 1..4).await;
    commit(&store, 2, 4..6).await;
    for delivery in claim(&store, &to, 1, LATER, 10).await {
        let next = if delivery.event.key == key(2) { NextStep::Dead } else { NextStep::Done };
        assert!(end(&store, &delivery, LATER, next).await);
    }
    let query = DeliveryQuery { state: Some(DeliveryState::Dead), endpoint: Some(to.id), ..all() };
    let dead = store.deliveries(query).await.unwrap();
    assert_eq!(dead.iter().map(|delivery| delivery.event.key).collect::<Vec<_>>(), [key(2)]);
    assert!(!store.replay(NETWORK, OTHER_TENANT, &dead[0].id, LATER).await.unwrap());
    assert!(store.replay(NETWORK, TENANT, &dead[0].id, LATER).await.unwrap());
    let again = claim(&store, &to, 2, LATER, 10).await;
    assert_eq!((keys(&again), again[0].attempts, again[0].event.id), (vec![key(2)], 0, dead[0].event.id));
    assert!(end(&store, &again[0], LATER + 1, NextStep::Done).await);
    let (_, log) = store.delivery(NETWORK, TENANT, &dead[0].id).await.unwrap().unwrap();
    assert_eq!(log.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [1, 1]);

    let range = |from, to, state| ReplayRange { from, to, state };
    let replay = async |tenant: &str, range| store.replay_range(NETWORK, tenant, &to.id, range, LATER).await.unwrap();
    let first_block = range(block_time(1), block_time(2), None);
    assert_eq!(replay(OTHER_TENANT, first_block).await, 0);
    assert_eq!(replay(TENANT, range(block_time(1), block_time(2), Some(DeliveryState::Dead))).await, 0);
    assert_eq!(replay(TENANT, first_block).await, 3);
    assert_eq!(keys(&claim(&store, &to, 3, LATER, 10).await), [key(1), key(2), key(3)]);
}

pub(crate) async fn a_disabled_endpoint_is_given_up(backend: &impl Backend) {
    let store = backend.open().await;
    let (gone, other) = (endpoint(1, TENANT), endpoint(2, TENANT));
    with_endpoints(&store, &[gone.clone(), other.clone(), endpoint(3, OTHER_TENANT)]).await;
    commit(&store, 1, 1..4).await;
    let claimed = claim(&store, &gone, 1, LATER, 1).await;
    assert!(end(&store, &claimed[0], LATER, NextStep::Disable(EndpointState::Gone)).await);
    let stored = store.endpoints(NETWORK, TENANT).await.unwrap();
    assert_eq!((stored[0].state, stored[0].disabled_at), (EndpointState::Gone, Some(LATER)));
    assert_eq!(stored[1], other);
    assert!(claim(&store, &gone, 2, LATER + CLAIM_MS, 10).await.is_empty());
    let dead = store.deliveries(DeliveryQuery { state: Some(DeliveryState::Dead), ..all() }).await.unwrap();
    assert_eq!(dead.len(), 3);
    // The other endpoint is told that, after what came before.
    let told = claim(&store, &other, 3, LATER, 10).await;
    assert_eq!(told.len(), 4);
    let notice = &told[3].event;
    assert_eq!(
        (notice.kind, notice.key, notice.facts.reason.as_deref()),
        (EventType::EndpointDisabled, gone.id, Some("gone"))
    );
    let backlog = store.backlog(NETWORK).await.unwrap();
    assert_eq!(backlog, Backlog { pending: 4, oldest: Some(block_time(1)), enabled: 2, disabled: 1 });

    // Back again: as if nothing had failed, and what comes from now on.
    // It was changed by that: who read it before does not put it back unawares.
    let unaware = EndpointRow { version: 2, ..gone.clone() };
    assert!(!store.update_endpoint(unaware).await.unwrap());
    let back = EndpointRow { state: EndpointState::Enabled, disabled_at: None, version: 3, ..gone.clone() };
    assert!(store.update_endpoint(back.clone()).await.unwrap());
    assert_eq!(store.endpoints(NETWORK, TENANT).await.unwrap()[0], back);
    commit(&store, 2, 4..5).await;
    assert_eq!(keys(&claim(&store, &gone, 4, LATER, 10).await), [key(4)]);
    let off = EndpointRow { state: EndpointState::Disabled, disabled_at: Some(LATER), version: 4, ..gone.clone() };
    assert!(store.update_endpoint(off).await.unwrap());
    assert!(claim(&store, &gone, 5, LATER + CLAIM_MS, 10).await.is_empty());
}

pub(crate) async fn what_comes_too_late_for_an_endpoint_is_given_up(backend: &impl Backend) {
    let store = backend.open().await;
    let (off, on) = (endpoint(1, TENANT), endpoint(2, TENANT));
    with_endpoints(&store, &[off.clone(), on.clone()]).await;
    let disabled = EndpointRow { state: EndpointState::Disabled, disabled_at: Some(LATER), version: 2, ..off.clone() };
    assert!(store.update_endpoint(disabled.clone()).await.unwrap());
    // Whoever put it on its way had not seen that.
    for to in [&off, &on] {
        store.push_event(OutboxEvent::test(to, b"nonce", NOW), &to.id).await.unwrap();
    }
    assert_eq!(store.sweep("live", LATER, 100).await.unwrap(), 0);
    assert_eq!(store.sweep(NETWORK, LATER, 100).await.unwrap(), 1);
    assert_eq!(store.sweep(NETWORK, LATER, 100).await.unwrap(), 0);
    let dead = store.deliveries(DeliveryQuery { state: Some(DeliveryState::Dead), ..all() }).await.unwrap();
    assert_eq!(dead.iter().map(|delivery| delivery.endpoint).collect::<Vec<_>>(), [off.id]);
    assert_eq!(claim(&store, &on, 1, LATER, 10).await.len(), 1);
}

pub(crate) async fn a_test_goes_to_one_endpoint(backend: &impl Backend) {
    let store = backend.open().await;
    let narrow = EndpointRow { events: vec![EventType::CaseCommitted], ..endpoint(1, TENANT) };
    with_endpoints(&store, &[narrow.clone(), endpoint(2, TENANT)]).await;
    let event = OutboxEvent::test(&narrow, b"nonce", NOW);
    for _ in 0..2 {
        store.push_event(event.clone(), &narrow.id).await.unwrap();
    }
    assert_eq!(store.due_endpoints(NETWORK, LATER).await.unwrap(), [narrow.id]);
    let claimed = claim(&store, &narrow, 1, LATER, 10).await;
    assert_eq!(claimed.iter().map(|claimed| claimed.event.clone()).collect::<Vec<_>>(), [event]);
}

pub(crate) async fn pages_of_deliveries_are_a_tenants_own(backend: &impl Backend) {
    let store = backend.open().await;
    with_endpoints(&store, &[endpoint(1, TENANT), endpoint(2, OTHER_TENANT)]).await;
    commit(&store, 1, 1..8).await;
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let page = store.deliveries(DeliveryQuery { limit: 3, before, ..all() }).await.unwrap();
        let Some(last) = page.last() else { break };
        before = Some(last.sequence);
        seen.extend(page.iter().map(|delivery| delivery.event.key));
    }
    assert_eq!(seen, (1..8).rev().map(key).collect::<Vec<_>>());
    let of = |tenant: &str| DeliveryQuery { tenant: tenant.to_owned(), ..all() };
    assert!(store.deliveries(of(OTHER_TENANT)).await.unwrap().is_empty());
    let from = DeliveryQuery { from: Some(block_time(1) + 1), ..all() };
    assert!(store.deliveries(from).await.unwrap().is_empty());
    let to = DeliveryQuery { to: Some(block_time(1) + 1), from: Some(block_time(1)), ..all() };
    assert_eq!(store.deliveries(to).await.unwrap().len(), 7);
    let id = store.deliveries(all()).await.unwrap()[0].id;
    assert!(store.delivery(NETWORK, TENANT, &id).await.unwrap().is_some());
    assert!(store.delivery(NETWORK, OTHER_TENANT, &id).await.unwrap().is_none());
}

pub(crate) async fn what_ended_long_ago_is_removed(backend: &impl Backend) {
    let store = backend.open().await;
    let to = endpoint(1, TENANT);
    with_endpoints(&store, std::slice::from_ref(&to)).await;
    commit(&store, 1, 1..6).await;
    for (delivery, at) in claim(&store, &to, 1, LATER, 4).await.iter().zip(LATER..) {
        assert!(end(&store, delivery, at, NextStep::Done).await);
    }
    // Each ended when its attempt did, 12 ms after that began.
    assert_eq!(store.prune(NETWORK, LATER + 12 + 2, 100).await.unwrap(), 2);
    assert_eq!(store.deliveries(all()).await.unwrap().len(), 3);
    assert_eq!(store.prune("live", u64::MAX, 100).await.unwrap(), 0);
    assert_eq!(store.prune(NETWORK, u64::MAX, 1).await.unwrap(), 1);
    assert_eq!(store.prune(NETWORK, u64::MAX, 100).await.unwrap(), 1);
    let left = store.deliveries(all()).await.unwrap();
    assert_eq!(left.iter().map(|delivery| delivery.event.key).collect::<Vec<_>>(), [key(5)], "it is still pending");
}

pub(crate) async fn several_couriers_share_the_work(backend: &impl Backend) {
    const EVENTS: u64 = 200;
    let store = backend.open().await;
    let to = endpoint(1, TENANT);
    with_endpoints(&store, std::slice::from_ref(&to)).await;
    commit(&store, 1, 1..EVENTS + 1).await;
    let mut couriers = tokio::task::JoinSet::new();
    for name in 1..=4_u8 {
        let (store, to) = (backend.open().await, to.clone());
        couriers.spawn(async move {
            let mut had = Vec::new();
            for round in 0.. {
                let claimed = claim(&store, &to, name * 16 + round % 16, LATER, 7).await;
                if claimed.is_empty() && store.due_endpoints(NETWORK, LATER).await.unwrap().is_empty() {
                    return had;
                }
                for delivery in &claimed {
                    assert!(end(&store, delivery, LATER, NextStep::Done).await);
                }
                had.extend(keys(&claimed));
            }
            had
        });
    }
    let had: Vec<ResourceKey> = couriers.join_all().await.concat();
    assert_eq!(had.len(), usize::try_from(EVENTS).unwrap());
    assert_eq!(had.iter().collect::<HashSet<_>>().len(), had.len(), "one message, one courier");
}
