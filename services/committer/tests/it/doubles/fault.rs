//! Faults at the n-th port call of one process: a kill, or an error, before or after the effect.

use std::{
    collections::BTreeMap,
    future::{Future, pending},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use chopmark_domain::{
    id::ResourceKey,
    ports::{
        BlockRef, Delivery, DigestHits, LedgerBlock, LedgerReader, LedgerReceipt, LedgerStatus, LedgerWriter,
        OperationStore, PortError, PortResult, ProjectionStore, QueueConsumer, QueuePosition, SubmitResult,
    },
    record::{AcceptedOperation, CaseLink, ListQuery, OperationRow, ProjectedBlock, ProjectionCursor},
};
use ledger_core::{digests::Algorithm, hash::Hash32, merkle::LeafIndex, operation::SignedOperation, tile::TilePath};
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The process dies; the call had no effect.
    KillBefore,
    /// The process dies; the call had its effect.
    KillAfter,
    /// The call fails and had no effect.
    FailBefore,
    /// The call fails and had its effect all the same.
    FailAfter,
}

impl Mode {
    pub(crate) const ALL: [Self; 4] = [Self::KillBefore, Self::KillAfter, Self::FailBefore, Self::FailAfter];
}

/// One process's fault.
#[derive(Clone)]
pub(crate) struct Fault {
    mode: Mode,
    at: usize,
    calls: Arc<AtomicUsize>,
    killed: CancellationToken,
}

impl Fault {
    pub(crate) fn new(mode: Mode, at: usize) -> Self {
        Self { mode, at, calls: Arc::default(), killed: CancellationToken::new() }
    }

    pub(crate) fn none() -> Self {
        Self::new(Mode::FailBefore, 0)
    }

    /// Resolves when the process is dead.
    pub(crate) async fn killed(&self) {
        self.killed.cancelled().await;
    }

    /// Whether the process got as far as the fault.
    pub(crate) fn struck(&self) -> bool {
        self.calls.load(Ordering::SeqCst) >= self.at
    }

    async fn around<T>(&self, effect: impl Future<Output = PortResult<T>>) -> PortResult<T> {
        self.apply(self.mode, effect).await
    }

    async fn apply<T>(&self, mode: Mode, effect: impl Future<Output = PortResult<T>>) -> PortResult<T> {
        // Other tasks of a dead process get no further.
        if self.killed.is_cancelled() {
            return pending().await;
        }
        if self.calls.fetch_add(1, Ordering::SeqCst) + 1 != self.at {
            return effect.await;
        }
        if matches!(mode, Mode::KillAfter | Mode::FailAfter) {
            let _ = effect.await;
        }
        if matches!(mode, Mode::KillBefore | Mode::KillAfter) {
            self.killed.cancel();
            return pending().await;
        }
        Err(PortError::Unavailable { port: "double", reason: "fault".to_owned() })
    }
}

/// A port with a fault in front of it.
pub(crate) struct Faulty<P> {
    pub(crate) port: P,
    pub(crate) fault: Fault,
}

#[async_trait]
impl<P: QueueConsumer + Sync> QueueConsumer for Faulty<P> {
    async fn poll(&mut self, max: usize, linger: Duration) -> PortResult<Vec<Delivery>> {
        // A poll has no effect but to hand messages over: failing, it has handed over none.
        let mode = if self.fault.mode == Mode::FailAfter { Mode::FailBefore } else { self.fault.mode };
        self.fault.apply(mode, self.port.poll(max, linger)).await
    }

    async fn commit(&mut self, upto: &[QueuePosition]) -> PortResult<()> {
        self.fault.around(self.port.commit(upto)).await
    }

    async fn dead_letter(&mut self, position: QueuePosition, bytes: &[u8], reason: &str) -> PortResult<()> {
        self.fault.around(self.port.dead_letter(position, bytes, reason)).await
    }

    async fn lag(&self) -> PortResult<u64> {
        self.port.lag().await
    }
}

#[async_trait]
impl<P: OperationStore> OperationStore for Faulty<Arc<P>> {
    async fn insert_accepted(&self, rows: Vec<AcceptedOperation>) -> PortResult<()> {
        self.fault.around(self.port.insert_accepted(rows)).await
    }

    async fn find(&self, network: &str, tenant: &str, keys: &[ResourceKey]) -> PortResult<Vec<Option<OperationRow>>> {
        self.port.find(network, tenant, keys).await
    }

    async fn list(&self, query: ListQuery) -> PortResult<Vec<OperationRow>> {
        self.port.list(query).await
    }

    async fn sealed_private(
        &self,
        network: &str,
        tenant: &str,
        op: &Hash32,
        hash: &Hash32,
    ) -> PortResult<Option<Vec<u8>>> {
        self.port.sealed_private(network, tenant, op, hash).await
    }

    async fn case_links(
        &self,
        network: &str,
        tenant: &str,
        case: &ResourceKey,
        after: u64,
        limit: u32,
    ) -> PortResult<Vec<CaseLink>> {
        self.port.case_links(network, tenant, case, after, limit).await
    }
}

#[async_trait]
impl<P: ProjectionStore> ProjectionStore for Faulty<Arc<P>> {
    async fn cursor(&self, network: &str) -> PortResult<Option<ProjectionCursor>> {
        self.fault.around(self.port.cursor(network)).await
    }

    async fn project(&self, block: ProjectedBlock) -> PortResult<bool> {
        self.fault.around(self.port.project(block)).await
    }

    async fn reset(&self, network: &str) -> PortResult<()> {
        self.port.reset(network).await
    }
}

#[async_trait]
impl<P: LedgerWriter> LedgerWriter for Faulty<Arc<P>> {
    fn chain(&self) -> Hash32 {
        self.port.chain()
    }

    async fn submit(&self, operations: Vec<SignedOperation>) -> PortResult<Vec<SubmitResult>> {
        self.fault.around(self.port.submit(operations)).await
    }
}

#[async_trait]
impl<P: LedgerReader> LedgerReader for Faulty<Arc<P>> {
    async fn status(&self) -> PortResult<LedgerStatus> {
        self.fault.around(self.port.status()).await
    }

    async fn blocks(&self, from: u64, max: usize) -> PortResult<Vec<LedgerBlock>> {
        self.fault.around(self.port.blocks(from, max)).await
    }

    async fn tile(&self, path: TilePath) -> PortResult<Option<Vec<u8>>> {
        self.fault.around(self.port.tile(path)).await
    }

    async fn wait_beyond(&self, height: u64, timeout: Duration) -> PortResult<()> {
        self.fault.around(self.port.wait_beyond(height, timeout)).await
    }

    fn origin(&self) -> String {
        self.port.origin()
    }

    async fn policy(&self) -> PortResult<String> {
        self.port.policy().await
    }

    async fn policies(&self) -> PortResult<BTreeMap<u64, String>> {
        self.port.policies().await
    }

    async fn statement_keys(&self) -> PortResult<Vec<String>> {
        self.port.statement_keys().await
    }

    async fn block_of(&self, index: LeafIndex) -> PortResult<Option<BlockRef>> {
        self.port.block_of(index).await
    }

    async fn entry(&self, index: LeafIndex) -> PortResult<Option<Vec<u8>>> {
        self.port.entry(index).await
    }

    async fn receipt(&self, index: LeafIndex) -> PortResult<Option<LedgerReceipt>> {
        self.port.receipt(index).await
    }

    async fn find_digest(
        &self,
        algorithm: Algorithm,
        digest: &Hash32,
        from: LeafIndex,
        max: usize,
    ) -> PortResult<DigestHits> {
        self.port.find_digest(algorithm, digest, from, max).await
    }

    async fn find_entry(&self, id: &Hash32) -> PortResult<Option<LeafIndex>> {
        self.port.find_entry(id).await
    }

    async fn not_found_statement(&self, algorithm: Algorithm, digest: &Hash32) -> PortResult<String> {
        self.port.not_found_statement(algorithm, digest).await
    }
}
