//! A node of one member in a temporary folder.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chopmark_node::{
    Node, NodeConfig, NodeError, NodeHandle, POOL_BYTES_MAX, Submitted, init,
    keys::{self, NodeKeys},
};
use ledger_core::{
    Hash32, SigningKey,
    batch::Submission,
    digests::{Algorithm, Digests},
    genesis::{Genesis, Network},
    hash::sha3_256,
    member::MemberSet,
    operation::{
        CaseAppend, Evidence, Operation, OperationSignature, OperationType, SignedOperation, TenantSet, TenantStatus,
        V1, approval_message,
    },
    policy::Policy,
};

pub(crate) const TENANT: &str = "ten_test";

pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) clock: Arc<AtomicU64>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        keys::generate(&folder.path().join("keys")).unwrap();
        let member = keys::public_member(&folder.path().join("keys"), "court.test").unwrap();
        let genesis = Genesis {
            members: MemberSet::new(vec![member]).unwrap(),
            network: Network::Sandbox,
            origin: "sandbox.test/log".to_owned(),
            policy: Policy::default(),
            time: 1_790_000_000_000,
            v: V1,
        };
        let place = Self { folder, clock: Arc::new(AtomicU64::new(1_790_000_001_000)) };
        init(&place.data(), &place.guard(), &genesis).unwrap();
        place
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("node")
    }

    pub(crate) fn guard(&self) -> PathBuf {
        self.folder.path().join("node.guard")
    }

    pub(crate) fn open(&self) -> Result<Node, NodeError> {
        let clock = Arc::clone(&self.clock);
        Node::open(NodeConfig {
            data: self.data(),
            guard: self.guard(),
            keys: NodeKeys::load(&self.folder.path().join("keys"))?,
            domain: "court.test".to_owned(),
            clock: Arc::new(move || clock.fetch_add(1, Ordering::Relaxed)),
            pool_bytes_max: POOL_BYTES_MAX,
        })
    }

    pub(crate) fn key(&self, name: &str) -> SigningKey {
        keys::load(&self.folder.path().join("keys"), name).unwrap()
    }

    pub(crate) async fn submit(&self, node: &NodeHandle, operations: Vec<Vec<u8>>) -> Vec<Submitted> {
        let signed = operations.into_iter().map(SignedOperation::unsigned).collect();
        let submission = Submission::sign(&node.chain(), &self.key("submitter"), signed);
        node.submit(submission).await.unwrap()
    }

    /// Registers the tenant; the first entry after the genesis.
    pub(crate) async fn tenant(&self, node: &NodeHandle) {
        let operation = Operation::TenantSet(Box::new(TenantSet {
            chain: node.chain(),
            expires: 1_000_000,
            key: None,
            op: sha3_256(b"tenant"),
            replaces: Hash32::ZERO,
            request: sha3_256(b"tenant"),
            status: TenantStatus::Active,
            tenant: TENANT.to_owned(),
            tier: 3,
            kind: OperationType::TenantSet,
            v: V1,
        }))
        .encode();
        let key = self.key("governance");
        let signature = ledger_core_sign(&key, &approval_message(&node.chain(), &operation));
        let signed = SignedOperation {
            operation,
            signatures: vec![OperationSignature { key: Hash32(key.verifying_key().to_bytes()), signature }],
        };
        let submission = Submission::sign(&node.chain(), &self.key("submitter"), vec![signed]);
        assert_eq!(node.submit(submission).await.unwrap()[0].result, Ok(2));
        covered(node, 3).await;
    }

    /// Commits evidence until the log has `size` entries.
    pub(crate) async fn fill(&self, node: &NodeHandle, size: u64) {
        let mut at = node.published().unwrap().size.0;
        while at < size {
            let until = size.min(at + 1000);
            let operations = (at..until).map(|number| evidence(node, number, number)).collect();
            for ended in self.submit(node, operations).await {
                ended.result.unwrap();
            }
            at = until;
        }
        covered(node, size).await;
    }
}

/// Waits until a checkpoint covers `size` entries.
pub(crate) async fn covered(node: &NodeHandle, size: u64) {
    loop {
        let published = node.published().unwrap();
        if published.size.0 >= size {
            return;
        }
        node.wait_beyond(published.height, Duration::from_secs(10)).await;
    }
}

pub(crate) fn ledger_core_sign(key: &SigningKey, message: &[u8]) -> [u8; 64] {
    use ed25519_dalek::Signer as _;
    key.sign(message).to_bytes()
}

pub(crate) fn content(number: u64) -> Vec<u8> {
    format!("file {number}").into_bytes()
}

/// Appends evidence to a case; neither exists.
pub(crate) fn case_append(node: &NodeHandle, op: u64) -> Vec<u8> {
    Operation::CaseAppend(Box::new(CaseAppend {
        case: sha3_256(b"no case"),
        chain: node.chain(),
        evidence: sha3_256(b"no evidence"),
        op: sha3_256(&op.to_be_bytes()),
        request: sha3_256(b"request"),
        tenant: TENANT.to_owned(),
        kind: OperationType::CaseAppend,
        v: V1,
    }))
    .encode()
}

/// Evidence of file `number` under operation id `op`.
pub(crate) fn evidence(node: &NodeHandle, op: u64, number: u64) -> Vec<u8> {
    let content = content(number);
    Operation::Evidence(Box::new(Evidence {
        chain: node.chain(),
        commitment: None,
        digests: Some(Digests { sha256: Some(Algorithm::Sha256.digest(&content)), ..Digests::default() }),
        media_type: None,
        op: sha3_256(&op.to_be_bytes()),
        private: None,
        request: sha3_256(&content),
        size: Some(content.len() as u64),
        tenant: TENANT.to_owned(),
        kind: OperationType::Evidence,
        v: V1,
    }))
    .encode()
}
