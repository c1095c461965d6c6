//! Nodes of one member and of several in temporary folders.

use std::{
    net::TcpListener,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chopmark_node::{
    NetworkConfig, Node, NodeConfig, NodeError, NodeHandle, POOL_BYTES_MAX, Peer, PeerTiles, SubmitError, Submitted,
    init,
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
use tokio::sync::watch;

pub(crate) const TENANT: &str = "ten_test";

pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) clock: Arc<AtomicU64>,
    pub(crate) domain: String,
    network: NetworkConfig,
    pub(crate) peer_tiles: Vec<Arc<dyn PeerTiles>>,
    /// Ends a start that is under way.
    pub(crate) stop: watch::Sender<bool>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self::with_keys("court.test");
        place.init(std::slice::from_ref(&place));
        place
    }

    fn with_keys(domain: &str) -> Self {
        // Silent unless RUST_LOG asks; a second test finds it there already.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _already = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let folder = tempfile::tempdir().unwrap();
        keys::generate(&folder.path().join("keys")).unwrap();
        let network = NetworkConfig { listen: ([127, 0, 0, 1], 0).into(), peers: Vec::new().into() };
        let clock = Arc::new(AtomicU64::new(1_790_000_001_000));
        Self {
            folder,
            clock,
            domain: domain.to_owned(),
            network,
            peer_tiles: Vec::new(),
            stop: watch::Sender::new(false),
        }
    }

    /// The place of a node that is no member's.
    pub(crate) fn observer(genesis: &Genesis) -> Self {
        let place = Self::with_keys("press.test");
        init(&place.data(), &place.guard(), genesis).unwrap();
        place
    }

    fn init(&self, members: &[Self]) {
        let member = |place: &Self| keys::public_member(&place.folder.path().join("keys"), &place.domain).unwrap();
        let genesis = Genesis {
            members: MemberSet::new(members.iter().map(member).collect()).unwrap(),
            network: Network::Sandbox,
            origin: "sandbox.test/log".to_owned(),
            policy: Policy::default(),
            time: 1_790_000_000_000,
            v: V1,
        };
        init(&self.data(), &self.guard(), &genesis).unwrap();
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("node")
    }

    pub(crate) fn guard(&self) -> PathBuf {
        self.folder.path().join("node.guard")
    }

    pub(crate) fn open(&self) -> Result<Node, NodeError> {
        Node::open(self.config()?)
    }

    pub(crate) fn config(&self) -> Result<NodeConfig, NodeError> {
        let clock = Arc::clone(&self.clock);
        Ok(NodeConfig {
            data: self.data(),
            guard: self.guard(),
            keys: NodeKeys::load(&self.folder.path().join("keys"))?,
            domain: self.domain.clone(),
            clock: Arc::new(move || clock.fetch_add(1, Ordering::Relaxed)),
            pool_bytes_max: POOL_BYTES_MAX,
            network: self.network.clone(),
            source: None,
            peer_tiles: self.peer_tiles.clone(),
            stop: self.stop.subscribe(),
        })
    }

    pub(crate) fn key(&self, name: &str) -> SigningKey {
        keys::load(&self.folder.path().join("keys"), name).unwrap()
    }

    pub(crate) async fn submit(&self, node: &NodeHandle, operations: Vec<Vec<u8>>) -> Vec<Submitted> {
        self.try_submit(node, operations).await.unwrap()
    }

    pub(crate) async fn try_submit(
        &self,
        node: &NodeHandle,
        operations: Vec<Vec<u8>>,
    ) -> Result<Vec<Submitted>, SubmitError> {
        let signed = operations.into_iter().map(SignedOperation::unsigned).collect();
        node.submit(Submission::sign(&node.chain(), &self.key("submitter"), signed)).await
    }

    /// Registers the tenant; the first entry after the genesis.
    pub(crate) async fn tenant(&self, node: &NodeHandle) {
        let signed = tenant_operation(node, &[self]);
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
        node.wait_published(Duration::from_secs(10)).await;
        let published = node.published().unwrap();
        if published.size.0 >= size {
            return;
        }
        assert_eq!(node.failure(), None);
        node.wait_beyond(published.height, Duration::from_secs(10)).await;
    }
}

/// Members whose nodes know each other.
pub(crate) struct Consortium {
    pub(crate) members: Vec<Place>,
}

impl Consortium {
    pub(crate) fn new(count: usize) -> Self {
        let mut members: Vec<Place> =
            (0..count).map(|number| Place::with_keys(&format!("member{number}.test"))).collect();
        let reserved: Vec<TcpListener> = members.iter().map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let peers: Vec<Peer> = reserved
            .iter()
            .zip(&members)
            .map(|(listener, place)| Peer {
                domain: place.domain.clone(),
                address: listener.local_addr().unwrap(),
                network_key: NodeKeys::load(&place.folder.path().join("keys")).unwrap().network_key(),
            })
            .collect();
        for (at, place) in members.iter_mut().enumerate() {
            let others = peers.iter().enumerate().filter(|(other, _)| *other != at);
            place.network = NetworkConfig {
                listen: peers[at].address,
                peers: others.map(|(_, peer)| peer.clone()).collect::<Vec<_>>().into(),
            };
            // One clock for all: each reading is a millisecond later than the one before.
            place.clock = Arc::new(AtomicU64::new(1_790_000_001_000));
        }
        let clock = Arc::clone(&members[0].clock);
        members.iter_mut().for_each(|place| place.clock = Arc::clone(&clock));
        members.iter().for_each(|place| place.init(&members));
        Self { members }
    }

    pub(crate) fn open(&self, at: usize) -> Node {
        self.members[at].open().unwrap()
    }

    pub(crate) fn open_all(&self) -> Vec<Node> {
        (0..self.members.len()).map(|at| self.open(at)).collect()
    }

    /// Submits to every node; the outcomes of the first.
    pub(crate) async fn submit(&self, nodes: &[NodeHandle], signed: Vec<SignedOperation>) -> Vec<Submitted> {
        let submission = Submission::sign(&nodes[0].chain(), &self.members[0].key("submitter"), signed);
        for node in &nodes[1..] {
            let (node, submission) = (node.clone(), submission.clone());
            tokio::spawn(async move { node.submit(submission).await });
        }
        nodes[0].submit(submission).await.unwrap()
    }

    pub(crate) async fn tenant(&self, nodes: &[NodeHandle]) {
        let approvers: Vec<&Place> = self.members.iter().collect();
        let signed = tenant_operation(&nodes[0], &approvers);
        assert_eq!(self.submit(nodes, vec![signed]).await[0].result, Ok(2));
    }

    /// Commits evidence of these files.
    pub(crate) async fn fill(&self, nodes: &[NodeHandle], numbers: std::ops::Range<u64>) {
        let operations = numbers.map(|number| SignedOperation::unsigned(evidence(&nodes[0], number, number)));
        let mut last = 0;
        for ended in self.submit(nodes, operations.collect()).await {
            last = ended.result.unwrap();
        }
        for node in nodes {
            covered(node, last + 1).await;
        }
    }
}

/// Registers the tenant, approved by these members.
fn tenant_operation(node: &NodeHandle, approvers: &[&Place]) -> SignedOperation {
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
    let message = approval_message(&node.chain(), &operation);
    let approval = |place: &&Place| {
        let key = place.key("governance");
        let signature = ledger_core_sign(&key, &message);
        OperationSignature { key: Hash32(key.verifying_key().to_bytes()), signature }
    };
    let signatures = approvers.iter().map(approval).collect();
    SignedOperation { operation, signatures }
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
