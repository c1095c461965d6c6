//! Ledger, queue and store of one test, messages for them, and loops over them.

use std::{sync::Arc, time::Duration};

use chopmark_committer::{CommitterError, ProjectConfig, ProjectLoop, SubmitConfig, SubmitLoop, SubmitPorts};
use chopmark_domain::{message::QueueMessage, ports::Clock};
use ledger_core::{
    digests::Digests,
    genesis::Network,
    hash::Hash32,
    operation::{CaseAppend, CaseOpen, Evidence, Operation, OperationType, SignedOperation, V1},
};
use tokio_util::sync::CancellationToken;

use super::{Consumer, Fault, Faulty, Ledger, MemoryQueue, MemoryStore, genesis, ledger::TENANT, members_of};

/// Far longer than any test needs, in paused time.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

pub(crate) struct World {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) queue: Arc<MemoryQueue>,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) submit: SubmitConfig,
    pub(crate) project: ProjectConfig,
}

struct StoppedClock;

impl Clock for StoppedClock {
    fn now_ms(&self) -> u64 {
        1_800_000_000_123
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(1, 1)
    }

    pub(crate) fn with(members: u8, partitions: usize) -> Self {
        let ledger = Arc::new(Ledger::new(genesis(members_of(1..=members))));
        let queue = MemoryQueue::new(Arc::clone(&ledger), partitions);
        let submit = SubmitConfig::new(Network::Sandbox);
        Self { ledger, queue, store: Arc::default(), submit, project: ProjectConfig::default() }
    }

    /// Evidence `op`, asked for by `request`.
    pub(crate) fn evidence(&self, op: u8, request: u8) -> QueueMessage {
        self.evidence_of(TENANT, op, request)
    }

    pub(crate) fn evidence_of(&self, tenant: &str, op: u8, request: u8) -> QueueMessage {
        message(evidence(self.ledger.chain_id(), tenant, op, request))
    }

    pub(crate) fn publish(&self, message: &QueueMessage) {
        self.queue.publish(0, message.encode());
    }

    /// Publishes evidence 1, 2, … `count`.
    pub(crate) fn publish_evidence(&self, count: u8) {
        for op in 1..=count {
            self.publish(&self.evidence(op, op));
        }
    }

    /// Decides a block of evidence without the queue.
    pub(crate) fn decide_evidence(&self, ops: impl IntoIterator<Item = u8>) {
        let chain = self.ledger.chain_id();
        let signed = |op| SignedOperation::unsigned(evidence(chain, TENANT, op, op).encode());
        self.ledger.decide(ops.into_iter().map(signed).collect());
    }

    /// Decides a block of `count` pieces of evidence, numbered from `first` on.
    pub(crate) fn decide_many(&self, first: u32, count: u32) {
        let chain = self.ledger.chain_id();
        let signed = |number: u32| {
            let mut id = Hash32([0xaa; 32]);
            id.0[..4].copy_from_slice(&number.to_be_bytes());
            SignedOperation::unsigned(numbered_evidence(chain, TENANT, id, id).encode())
        };
        self.ledger.decide((first..first + count).map(signed).collect());
    }

    pub(crate) fn submit_loop(&self) -> SubmitLoop {
        self.faulty_submit_loop(&Fault::none(), self.queue.consumer([0]))
    }

    pub(crate) fn faulty_submit_loop(&self, fault: &Fault, consumer: Consumer) -> SubmitLoop {
        let ports = SubmitPorts {
            consumer: Box::new(Faulty { port: consumer, fault: fault.clone() }),
            store: Arc::new(Faulty { port: Arc::clone(&self.store), fault: fault.clone() }),
            ledger: Arc::new(Faulty { port: Arc::clone(&self.ledger), fault: fault.clone() }),
            clock: Arc::new(StoppedClock),
        };
        SubmitLoop::new(ports, self.submit.clone())
    }

    pub(crate) fn project_loop(&self) -> ProjectLoop {
        self.faulty_project_loop(&Fault::none())
    }

    pub(crate) fn faulty_project_loop(&self, fault: &Fault) -> ProjectLoop {
        ProjectLoop::new(
            Arc::new(Faulty { port: Arc::clone(&self.ledger), fault: fault.clone() }),
            Arc::new(Faulty { port: Arc::clone(&self.store), fault: fault.clone() }),
            self.ledger.genesis.clone(),
            self.project.clone(),
        )
    }

    pub(crate) fn is_projected(&self) -> bool {
        self.store.cursor_height() == self.ledger.height()
    }

    /// Runs a submit loop until the queue is done.
    pub(crate) async fn submit_all(&self) {
        run_until(|stop| self.submit_loop().run(stop), || self.queue.is_done()).await.unwrap();
    }

    /// Runs a project loop until everything is projected.
    pub(crate) async fn project_all(&self) {
        run_until(|stop| self.project_loop().run(stop), || self.is_projected()).await.unwrap();
    }

    /// Runs a project loop that is stopped when it has projected `height`.
    pub(crate) async fn project_to(&self, height: u64) {
        let stop = CancellationToken::new();
        self.store.stop_at(Some((height, stop.clone())));
        let ended = tokio::time::timeout(PATIENCE, self.project_loop().run(stop)).await;
        ended.expect("the loop got stuck").unwrap();
        self.store.stop_at(None);
        assert_eq!(self.store.cursor_height(), height);
    }

    /// Checks that operation `op` ended exactly once.
    pub(crate) fn check_ended_once(&self, op: u8) {
        let op = Hash32([op; 32]);
        assert_eq!(self.ledger.times_decided(&op), 1, "operation {op} was lost or doubled");
    }
}

/// Runs `run` until `done`, then stops it. Panics after a day of paused time.
pub(crate) async fn run_until<F>(
    run: impl FnOnce(CancellationToken) -> F,
    done: impl Fn() -> bool,
) -> Result<(), CommitterError>
where
    F: Future<Output = Result<(), CommitterError>>,
{
    let stop = CancellationToken::new();
    let watch = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stop.cancel();
        std::future::pending::<()>().await;
    };
    let run = run(stop.clone());
    let ended = async {
        tokio::select! {
            result = run => result,
            () = watch => unreachable!("watching never ends"),
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("the loop got stuck")
}

/// Canonical evidence whose ids are `op` and `request` all over.
pub(crate) fn evidence(chain: Hash32, tenant: &str, op: u8, request: u8) -> Operation {
    numbered_evidence(chain, tenant, Hash32([op; 32]), Hash32([request; 32]))
}

pub(crate) fn numbered_evidence(chain: Hash32, tenant: &str, op: Hash32, request: Hash32) -> Operation {
    let digests = Digests { sha256: Some(request), sm3: Some(op), ..Digests::default() };
    Operation::Evidence(Box::new(Evidence {
        chain,
        commitment: None,
        digests: Some(digests),
        media_type: Some("application/pdf".to_owned()),
        op,
        private: None,
        request,
        size: Some(4_711),
        tenant: tenant.to_owned(),
        kind: OperationType::Evidence,
        v: V1,
    }))
}

pub(crate) fn case_open(chain: Hash32, op: u8) -> Operation {
    Operation::CaseOpen(Box::new(CaseOpen {
        chain,
        op: Hash32([op; 32]),
        private: None,
        request: Hash32([op; 32]),
        tenant: TENANT.to_owned(),
        kind: OperationType::CaseOpen,
        v: V1,
    }))
}

pub(crate) fn case_append(chain: Hash32, op: u8, case: u8, evidence: u8) -> Operation {
    Operation::CaseAppend(Box::new(CaseAppend {
        case: Hash32([case; 32]),
        chain,
        evidence: Hash32([evidence; 32]),
        op: Hash32([op; 32]),
        request: Hash32([op; 32]),
        tenant: TENANT.to_owned(),
        kind: OperationType::CaseAppend,
        v: V1,
    }))
}

/// The message that a gateway would make of an operation.
pub(crate) fn message(operation: Operation) -> QueueMessage {
    let common = operation.common();
    QueueMessage {
        network: "sandbox".to_owned(),
        tenant: operation.tenant().unwrap_or_default().to_owned(),
        op: common.op,
        request_digest: common.request,
        order_key: common.op.0.to_vec(),
        trace: String::new(),
        operation: operation.encode(),
        sealed_private: vec![7; 64],
        external_index: Some(Hash32([9; 32])),
    }
}
