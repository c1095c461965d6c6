//! Builders with visible differences, and what a back-end brings.

use chopmark_domain::{
    id::ResourceKey,
    ports::{DeliveryStore, OperationStore, PortError, ProjectionStore, TenantAdmin, WebhookStore},
    record::{
        AcceptedOperation, CaseLink, CommittedAt, ListQuery, OperationRow, OperationState, ProjectedBlock,
        ProjectedOperation, RejectedAt, SealedPrivate,
    },
};
use ledger_core::{hash::Hash32, operation::OperationType, outcome::RejectionCode};

pub(crate) const NETWORK: &str = "sandbox";
pub(crate) const TENANT: &str = "ten_first";
pub(crate) const OTHER_TENANT: &str = "ten_second";
/// 2026-01-01, Unix ms.
pub(crate) const NOW: u64 = 1_767_225_600_000;

/// A store under test.
pub(crate) trait Store:
    OperationStore + ProjectionStore + TenantAdmin + WebhookStore + DeliveryStore + Clone + 'static
{
}
impl<S> Store for S where
    S: OperationStore + ProjectionStore + TenantAdmin + WebhookStore + DeliveryStore + Clone + 'static
{
}

/// An empty database of its own, opened as often as wished.
pub(crate) trait Backend {
    type Store: Store;

    /// A database that nothing has opened yet; `None`, said aloud, where there is no server for it.
    async fn fresh() -> Option<Self>
    where
        Self: Sized;

    /// Opens it, as another process would.
    async fn open(&self) -> Self::Store;
}

/// A hash with a visible number.
pub(crate) fn h(label: &str, number: u64) -> Hash32 {
    ledger_core::hash::tagged(label, &[&number.to_be_bytes()])
}

pub(crate) fn op(number: u64) -> Hash32 {
    h("op", number)
}

pub(crate) fn key(number: u64) -> ResourceKey {
    ResourceKey::of(&op(number), 0)
}

/// Operation `number`, request 1, first attempt, without a private part.
pub(crate) fn accepted(number: u64) -> AcceptedOperation {
    AcceptedOperation {
        network: NETWORK.to_owned(),
        tenant: TENANT.to_owned(),
        key: key(number),
        op: op(number),
        kind: OperationType::Evidence,
        request: h("request", 1),
        operation_hash: h("attempt", 1),
        accepted_at: NOW + number,
        private: None,
    }
}

/// Operation `number`, another attempt at the same request, with a private part.
pub(crate) fn attempt(number: u64, attempt: u64) -> AcceptedOperation {
    AcceptedOperation {
        operation_hash: h("attempt", attempt),
        private: Some(SealedPrivate { sealed: sealed(number, attempt), external_index: None }),
        ..accepted(number)
    }
}

/// Operation `number` with another request.
pub(crate) fn other_request(number: u64) -> AcceptedOperation {
    AcceptedOperation {
        request: h("request", 2),
        operation_hash: h("attempt", 9),
        private: Some(SealedPrivate { sealed: sealed(number, 9), external_index: None }),
        ..accepted(number)
    }
}

pub(crate) fn sealed(number: u64, attempt: u64) -> Vec<u8> {
    format!("sealed part of operation {number}, attempt {attempt}").into_bytes()
}

/// Time of the block at `height`.
pub(crate) fn block_time(height: u64) -> u64 {
    NOW + 1_000_000 + height * 100
}

pub(crate) fn committed(height: u64, index: u64) -> OperationState {
    OperationState::Committed(CommittedAt { index, entry: h("entry", index), height, time: block_time(height) })
}

pub(crate) fn rejected(height: u64) -> OperationState {
    let code = RejectionCode::CaseUnknown;
    OperationState::Rejected(RejectedAt { code, height, time: block_time(height) })
}

/// The outcome of what [`accepted`] or another builder made.
pub(crate) fn outcome(of: &AcceptedOperation, state: OperationState) -> ProjectedOperation {
    ProjectedOperation {
        key: of.key,
        op: of.op,
        tenant: of.tenant.clone(),
        kind: of.kind,
        request: of.request,
        operation_hash: of.operation_hash,
        state,
    }
}

pub(crate) fn block(height: u64, operations: Vec<ProjectedOperation>) -> ProjectedBlock {
    ProjectedBlock {
        network: NETWORK.to_owned(),
        height,
        hash: h("header", height),
        time: block_time(height),
        tree_size: height * 1000,
        operations,
        links: Vec::new(),
    }
}

pub(crate) fn link(case: u64, position: u64) -> CaseLink {
    CaseLink {
        tenant: TENANT.to_owned(),
        case: key(case),
        position,
        evidence: key(100 * case + position),
        index: 1000 * case + position,
        entry: h("link", 1000 * case + position),
        previous: h("link", 1000 * case + position - 1),
        time: NOW + position,
    }
}

/// All of [`TENANT`]'s evidence, in one page.
pub(crate) fn everything() -> ListQuery {
    ListQuery {
        network: NETWORK.to_owned(),
        tenant: TENANT.to_owned(),
        kind: OperationType::Evidence,
        before: None,
        limit: 1000,
        state: None,
        from: None,
        to: None,
        external_index: None,
        indexes: None,
    }
}

/// The row of operation `number`.
pub(crate) async fn row(store: &impl Store, number: u64) -> Option<OperationRow> {
    find(store, &[number]).await.remove(0)
}

pub(crate) async fn find(store: &impl Store, numbers: &[u64]) -> Vec<Option<OperationRow>> {
    let keys: Vec<_> = numbers.iter().map(|number| key(*number)).collect();
    store.find(NETWORK, TENANT, &keys).await.expect("find")
}

pub(crate) async fn private(store: &impl Store, number: u64, attempt: u64) -> Option<Vec<u8>> {
    store.sealed_private(NETWORK, TENANT, &op(number), &h("attempt", attempt)).await.expect("sealed_private")
}

/// The numbers of the operations that `query` lists, of those below `below`.
pub(crate) async fn listed(store: &impl Store, query: ListQuery, below: u64) -> Vec<u64> {
    let rows = store.list(query).await.expect("list");
    let number = |row: &OperationRow| (0..below).find(|number| op(*number) == row.op).expect("a known operation");
    rows.iter().map(number).collect()
}

pub(crate) fn is_broken<T>(result: &Result<T, PortError>) -> bool {
    matches!(result, Err(PortError::Broken { .. }))
}

/// Seeded pseudo-random numbers (splitmix64): a failing history is named by its seed.
pub(crate) struct Seeded(pub(crate) u64);

impl Seeded {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
