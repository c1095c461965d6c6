//! A store in memory, as strict and as unhelpful as the ports' contracts allow: a projection
//! replaces a row's request without marking a conflict.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use chopmark_domain::{
    id::ResourceKey,
    ports::{OperationStore, PortError, PortResult, ProjectionStore},
    record::{AcceptedOperation, CaseLink, ListQuery, OperationRow, OperationState, ProjectedBlock, ProjectionCursor},
};
use ledger_core::hash::Hash32;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) request: Hash32,
    pub(crate) operation_hash: Hash32,
    pub(crate) tenant: String,
    pub(crate) state: OperationState,
    pub(crate) conflicted: bool,
}

#[derive(Default)]
pub(crate) struct MemoryStore {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    rows: BTreeMap<Hash32, Row>,
    privates: BTreeSet<(Hash32, Hash32)>,
    cursor: Option<ProjectionCursor>,
    projected: Vec<ProjectedBlock>,
    refusals: Vec<PortError>,
    inserts: usize,
    slow_inserts: BTreeMap<usize, Duration>,
    stop_at: Option<(u64, CancellationToken)>,
}

impl MemoryStore {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub(crate) fn row(&self, op: &Hash32) -> Option<Row> {
        self.lock().rows.get(op).cloned()
    }

    pub(crate) fn rows(&self) -> usize {
        self.lock().rows.len()
    }

    pub(crate) fn has_private(&self, op: &Hash32, operation_hash: &Hash32) -> bool {
        self.lock().privates.contains(&(*op, *operation_hash))
    }

    pub(crate) fn cursor_height(&self) -> u64 {
        self.lock().cursor.map_or(0, |cursor| cursor.height)
    }

    /// The projected blocks in the order of their transactions.
    pub(crate) fn projected(&self) -> Vec<ProjectedBlock> {
        self.lock().projected.clone()
    }

    /// Sets the cursor, whatever is projected.
    pub(crate) fn forge_cursor(&self, cursor: ProjectionCursor) {
        self.lock().cursor = Some(cursor);
    }

    /// The n-th insert, from 1, takes its effect after `time`.
    pub(crate) fn slow_insert(&self, nth: usize, time: Duration) {
        self.lock().slow_inserts.insert(nth, time);
    }

    /// Cancels `stop` instead of projecting anything beyond `height`; `None` ends this.
    pub(crate) fn stop_at(&self, stop: Option<(u64, CancellationToken)>) {
        self.lock().stop_at = stop;
    }

    fn stops(&self, height: u64) -> bool {
        let inner = self.lock();
        let stop = inner.stop_at.as_ref().filter(|(last, _)| height > *last);
        stop.inspect(|(_, stop)| stop.cancel()).is_some()
    }

    pub(crate) fn refuse(&self, errors: impl IntoIterator<Item = PortError>) {
        self.lock().refusals.extend(errors);
    }
}

fn absent<T>() -> PortResult<T> {
    Err(PortError::Broken { port: "database", reason: "not part of this double".to_owned() })
}

#[async_trait]
impl OperationStore for MemoryStore {
    async fn insert_accepted(&self, rows: Vec<AcceptedOperation>) -> PortResult<()> {
        let pause = {
            let mut inner = self.lock();
            inner.inserts += 1;
            let nth = inner.inserts;
            inner.slow_inserts.remove(&nth)
        };
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
        let mut inner = self.lock();
        if let Some(error) = inner.refusals.pop() {
            return Err(error);
        }
        let mut ids = BTreeSet::new();
        for row in rows {
            assert!(ids.insert(row.op), "one insert names {} twice", row.op);
            assert_eq!(row.key, ResourceKey::of(&row.op, 0));
            if row.private.is_some() {
                inner.privates.insert((row.op, row.operation_hash));
            }
            let AcceptedOperation { request, operation_hash, tenant, .. } = row;
            let accepted = Row { request, operation_hash, tenant, state: OperationState::Accepted, conflicted: false };
            let known = inner.rows.entry(row.op).or_insert(accepted);
            known.conflicted |= known.request != request;
        }
        Ok(())
    }

    async fn find(&self, _: &str, _: &str, _: &[ResourceKey]) -> PortResult<Vec<Option<OperationRow>>> {
        absent()
    }

    async fn list(&self, _: ListQuery) -> PortResult<Vec<OperationRow>> {
        absent()
    }

    async fn sealed_private(&self, _: &str, _: &str, _: &Hash32, _: &Hash32) -> PortResult<Option<Vec<u8>>> {
        absent()
    }

    async fn case_links(&self, _: &str, _: &str, _: &ResourceKey, _: u64, _: u32) -> PortResult<Vec<CaseLink>> {
        absent()
    }
}

#[async_trait]
impl ProjectionStore for MemoryStore {
    async fn cursor(&self, _: &str) -> PortResult<Option<ProjectionCursor>> {
        Ok(self.lock().cursor)
    }

    async fn project(&self, block: ProjectedBlock) -> PortResult<bool> {
        if self.stops(block.height) {
            return std::future::pending().await;
        }
        let mut inner = self.lock();
        if let Some(error) = inner.refusals.pop() {
            return Err(error);
        }
        if inner.cursor.map_or(0, |cursor| cursor.height) + 1 != block.height {
            return Ok(false);
        }
        for operation in &block.operations {
            let conflicted = inner.rows.get(&operation.op).is_some_and(|row| row.conflicted);
            let row = Row {
                request: operation.request,
                operation_hash: operation.operation_hash,
                tenant: operation.tenant.clone(),
                state: operation.state,
                conflicted,
            };
            inner.rows.insert(operation.op, row);
        }
        let ProjectedBlock { height, hash, tree_size, .. } = block;
        inner.cursor = Some(ProjectionCursor { height, hash, tree_size });
        inner.projected.push(block);
        Ok(true)
    }

    async fn reset(&self, _: &str) -> PortResult<()> {
        let mut inner = self.lock();
        inner.rows.clear();
        inner.cursor = None;
        inner.projected.clear();
        Ok(())
    }
}
