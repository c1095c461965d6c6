//! A ledger that really executes, and signs with every key of its members.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use chopmark_domain::ports::{
    BlockRef, DigestHits, LedgerBlock, LedgerReader, LedgerReceipt, LedgerStatus, LedgerWriter, PortError, PortResult,
    SubmitResult,
};
use ed25519_dalek::Signer as _;
use ledger_core::{
    SigningKey,
    batch::{Batch, Submission},
    block::Block,
    checkpoint::Checkpoint,
    digests::Algorithm,
    execute::{Parent, admit, execute, execute_genesis},
    genesis::{Genesis, Network},
    hash::Hash32,
    member::{Member, MemberSet},
    merkle::{LeafIndex, NodeReader as _, TreeSize},
    note::{Note, cosign, sign},
    operation::{
        MembersSet, Operation, OperationSignature, OperationType, SignedOperation, TenantSet, TenantStatus, V1,
        approval_message,
    },
    policy::Policy,
    state::{OperationRecord, apply_changes, operation_record},
    tile::{TileKind, TilePath, encode_hashes, hashes_at},
    vote::{Certificate, precommit},
};
use tokio::{sync::watch, time::Instant};

pub(crate) const TENANT: &str = "ten_a1";
pub(crate) const GENESIS_TIME: u64 = 1_800_000_000_000;

/// Keys of one member, from its number.
#[derive(Clone, Copy)]
pub(crate) struct Seat(pub(crate) u8);

impl Seat {
    fn key(self, use_of: u8) -> SigningKey {
        let mut seed = [self.0; 32];
        seed[31] = use_of;
        SigningKey::from_bytes(&seed)
    }

    pub(crate) fn validator(self) -> SigningKey {
        self.key(1)
    }

    fn log(self) -> SigningKey {
        self.key(2)
    }

    fn cosigner(self) -> SigningKey {
        self.key(3)
    }

    fn governance(self) -> SigningKey {
        self.key(4)
    }

    fn submitter(self) -> SigningKey {
        self.key(5)
    }

    fn of(member: &Member) -> Self {
        Self(member.domain[1..3].parse().unwrap())
    }

    fn member(self) -> Member {
        let public = |key: SigningKey| Hash32(key.verifying_key().to_bytes());
        Member {
            cosigner_key: public(self.cosigner()),
            domain: format!("m{:02}.example", self.0),
            governance_key: public(self.governance()),
            log_key: public(self.log()),
            submitter_keys: vec![public(self.submitter())],
            validator_key: public(self.validator()),
        }
    }
}

/// The member set with these numbers, in ascending order.
pub(crate) fn members_of(seats: impl IntoIterator<Item = u8>) -> MemberSet {
    MemberSet::new(seats.into_iter().map(|seat| Seat(seat).member()).collect()).unwrap()
}

pub(crate) fn genesis(members: MemberSet) -> Genesis {
    Genesis {
        members,
        network: Network::Sandbox,
        origin: "sandbox.example/log".to_owned(),
        policy: Policy::default(),
        time: GENESIS_TIME,
        v: V1,
    }
}

pub(crate) struct Ledger {
    pub(crate) genesis: Genesis,
    chain: Hash32,
    inner: Mutex<Inner>,
    height: watch::Sender<u64>,
}

struct Inner {
    state: BTreeMap<Vec<u8>, Vec<u8>>,
    parent: Parent,
    sets: BTreeMap<Hash32, MemberSet>,
    blocks: Vec<LedgerBlock>,
    leaves: Vec<Hash32>,
    refusals: VecDeque<PortError>,
    malformed: BTreeSet<Hash32>,
    away_until: Option<Instant>,
    stalled: bool,
    slow: BTreeMap<Hash32, Duration>,
    submissions: Vec<usize>,
}

impl Ledger {
    /// A ledger with one tenant, registered in block 1.
    pub(crate) fn new(genesis: Genesis) -> Self {
        let executed = execute_genesis(&genesis);
        let mut state = BTreeMap::new();
        apply_changes(&mut state, executed.changes);
        let hash = executed.header.hash();
        let parent = Parent { height: 0, time: genesis.time, hash, frontier: executed.frontier };
        let inner = Inner {
            state,
            parent,
            sets: BTreeMap::from([(genesis.members.hash(), genesis.members.clone())]),
            blocks: Vec::new(),
            leaves: executed.leaves,
            refusals: VecDeque::new(),
            malformed: BTreeSet::new(),
            away_until: None,
            stalled: false,
            slow: BTreeMap::new(),
            submissions: Vec::new(),
        };
        let ledger = Self { chain: genesis.chain_id(), genesis, inner: Mutex::new(inner), height: watch::channel(0).0 };
        ledger.decide(vec![ledger.register(TENANT)]);
        ledger
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub(crate) fn chain_id(&self) -> Hash32 {
        self.chain
    }

    fn register(&self, tenant: &str) -> SignedOperation {
        let operation = Operation::TenantSet(Box::new(TenantSet {
            chain: self.chain,
            expires: 1_000,
            key: None,
            op: Hash32([0xee; 32]),
            replaces: Hash32::ZERO,
            request: Hash32([0xed; 32]),
            status: TenantStatus::Active,
            tenant: tenant.to_owned(),
            tier: 1,
            kind: OperationType::TenantSet,
            v: V1,
        }));
        SignedOperation::unsigned(operation.encode())
    }

    /// A change of the member set, approved by all members in force.
    pub(crate) fn change_members(&self, op: u8, members: &MemberSet) -> SignedOperation {
        let mut inner = self.lock();
        inner.sets.insert(members.hash(), members.clone());
        let current = ledger_core::state::members(&inner.state).unwrap();
        let operation = Operation::MembersSet(Box::new(MembersSet {
            chain: self.chain,
            expires: 1_000_000,
            members: members.clone(),
            op: Hash32([op; 32]),
            replaces: current.hash(),
            request: Hash32([op; 32]),
            kind: OperationType::MembersSet,
            v: V1,
        }));
        let operation = operation.encode();
        let message = approval_message(&self.chain, &operation);
        let approve = |member: &Member| {
            let key = Seat::of(member).governance();
            let signature = key.sign(&message).to_bytes();
            OperationSignature { key: member.governance_key, signature }
        };
        SignedOperation { signatures: current.iter().map(approve).collect(), operation }
    }

    /// Decides one block; also an empty one.
    pub(crate) fn decide(&self, operations: Vec<SignedOperation>) {
        let mut inner = self.lock();
        self.decide_in(&mut inner, operations);
    }

    fn decide_in(&self, inner: &mut Inner, operations: Vec<SignedOperation>) {
        let pending: Option<ledger_core::state::PendingMembers> =
            ledger_core::state::read_json(&inner.state, ledger_core::state::key::PENDING_MEMBERS).unwrap();
        let in_force = pending
            .filter(|pending| pending.effective == inner.parent.height + 1)
            .map_or_else(|| ledger_core::state::members(&inner.state).unwrap(), |pending| pending.members);
        let submitter = Seat::of(in_force.iter().next().unwrap()).submitter();
        let mut batch = Batch::default();
        if !operations.is_empty() {
            batch.submissions.push(Submission::sign(&self.chain, &submitter, operations));
        }
        let batch = batch.encode();
        let time = inner.parent.time + 7;
        let executed = execute(&inner.state, &inner.parent, &self.chain, &batch, time, None).unwrap();
        let header = executed.header;
        assert_eq!(header.members, in_force.hash());
        let verdicts = executed.outcomes.iter().map(|outcome| outcome.verdict).collect();
        let certificate = Certificate::new(header.height, 0, Hash32::ZERO, &[]);
        let mut block = Block { header, batch, verdicts, certificate };
        certify(&self.chain, &mut block, &in_force);
        let hash = block.header.hash();
        inner.parent = Parent { height: block.header.height, time, hash, frontier: executed.frontier };
        apply_changes(&mut inner.state, executed.changes);
        inner.leaves.extend(executed.leaves);
        inner.blocks.push(LedgerBlock { block, entries: executed.entries });
        self.height.send_replace(inner.blocks.len() as u64);
    }

    /// The members in force at `height`.
    pub(crate) fn members_at(&self, height: u64) -> MemberSet {
        let inner = self.lock();
        let hash = match height.checked_sub(1) {
            None => self.genesis.members.hash(),
            Some(at) => inner.blocks[usize::try_from(at).unwrap()].block.header.members,
        };
        inner.sets[&hash].clone()
    }

    pub(crate) fn height(&self) -> u64 {
        self.lock().parent.height
    }

    pub(crate) fn block_at(&self, height: u64) -> LedgerBlock {
        self.lock().blocks[usize::try_from(height - 1).unwrap()].clone()
    }

    pub(crate) fn outcome(&self, op: &Hash32) -> Option<OperationRecord> {
        operation_record(&self.lock().state, op).unwrap()
    }

    /// How often `op` stands in a block; more than once would be doubled.
    pub(crate) fn times_decided(&self, op: &Hash32) -> usize {
        let names = |signed: &SignedOperation| Operation::parse(&signed.operation).unwrap().common().op;
        let inner = self.lock();
        let batches = inner.blocks.iter().map(|block| block.block.decode_batch().unwrap());
        batches.map(|batch| batch.operations().filter(|signed| names(signed) == *op).count()).sum()
    }

    /// Sizes of the submissions so far.
    pub(crate) fn submissions(&self) -> Vec<usize> {
        self.lock().submissions.clone()
    }

    pub(crate) fn refuse(&self, errors: impl IntoIterator<Item = PortError>) {
        self.lock().refusals.extend(errors);
    }

    /// Operations of this request can never be read.
    pub(crate) fn call_malformed(&self, request: u8) {
        self.lock().malformed.insert(Hash32([request; 32]));
    }

    pub(crate) fn away_for(&self, time: Duration) {
        self.lock().away_until = Some(Instant::now() + time);
    }

    /// Submissions wait for ever, or no longer.
    pub(crate) fn stall(&self, stalled: bool) {
        self.lock().stalled = stalled;
    }

    /// The next submission with operation `op` is decided and answered after `time`.
    pub(crate) fn slow_down(&self, op: u8, time: Duration) {
        self.lock().slow.insert(Hash32([op; 32]), time);
    }

    /// A tile of the current tree, of any width that it has.
    pub(crate) fn read_tile(&self, path: TilePath) -> Option<Vec<u8>> {
        let inner = self.lock();
        let TileKind::Hashes(level) = path.kind else { return None };
        let size = TreeSize(inner.leaves.len() as u64);
        let hashes = path.index * 256..path.index * 256 + u64::from(path.width);
        let hash = |at: u64| inner.leaves.node(u32::from(level) * 8, at).unwrap();
        (hashes.end <= hashes_at(level, size)).then(|| encode_hashes(&hashes.map(hash).collect::<Vec<_>>()))
    }

    /// The status of an earlier height, signed by `members`.
    pub(crate) fn status_at(&self, height: u64, members: &MemberSet) -> LedgerStatus {
        let (size, root) = match height {
            0 => {
                let genesis = execute_genesis(&self.genesis).header;
                (genesis.tree_size, genesis.root)
            }
            height => {
                let header = self.block_at(height).block.header;
                (header.tree_size, header.root)
            }
        };
        let size = TreeSize(size);
        let checkpoint = signed_checkpoint(&self.genesis.origin, size, root, members);
        LedgerStatus { height: self.height(), checkpoint_height: height, size, root, checkpoint }
    }
}

/// Signs a block's header with every validator key of `members`: an honest quorum's certificate,
/// or a colluding one's.
pub(crate) fn certify(chain: &Hash32, block: &mut Block, members: &MemberSet) {
    let (height, hash) = (block.header.height, block.header.hash());
    let sign =
        |member: &Member| (member.validator_key, precommit(chain, height, 0, &hash, &Seat::of(member).validator()));
    let precommits: Vec<(Hash32, [u8; 64])> = members.iter().map(sign).collect();
    block.certificate = Certificate::new(height, 0, hash, &precommits);
}

/// A checkpoint note signed by all of `members`.
pub(crate) fn signed_checkpoint(origin: &str, size: TreeSize, root: Hash32, members: &MemberSet) -> String {
    let text = Checkpoint { origin: origin.to_owned(), size, root }.text();
    let mut signatures = Vec::new();
    for member in members {
        let seat = Seat::of(member);
        signatures.push(sign(origin, &seat.log(), &text).unwrap());
        signatures.push(cosign(&member.cosigner_name(), &seat.cosigner(), &text, 1_800_000_000).unwrap());
    }
    Note { text, signatures }.render()
}

#[async_trait]
impl LedgerWriter for Ledger {
    fn chain(&self) -> Hash32 {
        self.chain
    }

    async fn submit(&self, operations: Vec<SignedOperation>) -> PortResult<Vec<SubmitResult>> {
        let pause = {
            let mut inner = self.lock();
            inner.submissions.push(operations.len());
            if let Some(error) = inner.refusals.pop_front() {
                return Err(error);
            }
            if inner.away_until.is_some_and(|until| Instant::now() < until) {
                return Err(PortError::Unavailable { port: "ledger", reason: "away".to_owned() });
            }
            let mut ids = operations.iter().filter_map(|signed| Operation::parse(&signed.operation).ok());
            ids.find_map(|operation| inner.slow.remove(&operation.common().op))
        };
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
        while self.lock().stalled {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut inner = self.lock();
        let parsed: Vec<Result<Operation, String>> =
            operations.iter().map(|signed| admit(&self.chain, signed).map_err(|error| error.to_string())).collect();
        let mut ids = BTreeSet::new();
        let mut fresh = Vec::new();
        for (signed, parsed) in operations.iter().zip(&parsed) {
            let Ok(operation) = parsed else { continue };
            let op = operation.common().op;
            assert!(ids.insert(op), "a submission names {op} twice");
            if !inner.malformed.contains(&operation.common().request)
                && operation_record(&inner.state, &op).unwrap().is_none()
            {
                fresh.push(signed.clone());
            }
        }
        if !fresh.is_empty() {
            self.decide_in(&mut inner, fresh);
        }
        let result = |parsed: Result<Operation, String>| match parsed {
            Ok(operation) if inner.malformed.contains(&operation.common().request) => {
                SubmitResult::Malformed("the ledger says so".to_owned())
            }
            Ok(operation) => {
                let record = operation_record(&inner.state, &operation.common().op).unwrap().unwrap();
                SubmitResult::Ended { request: record.request, result: record.result }
            }
            Err(reason) => SubmitResult::Malformed(reason),
        };
        Ok(parsed.into_iter().map(result).collect())
    }
}

fn absent<T>() -> PortResult<T> {
    Err(PortError::Broken { port: "ledger", reason: "not part of this double".to_owned() })
}

#[async_trait]
impl LedgerReader for Ledger {
    async fn status(&self) -> PortResult<LedgerStatus> {
        let height = self.height();
        Ok(self.status_at(height, &self.members_at(height)))
    }

    async fn blocks(&self, from: u64, max: usize) -> PortResult<Vec<LedgerBlock>> {
        assert!(from > 0, "height 0 is the genesis, which nobody decided");
        let inner = self.lock();
        Ok(inner.blocks.iter().skip(usize::try_from(from - 1).unwrap()).take(max).cloned().collect())
    }

    async fn tile(&self, path: TilePath) -> PortResult<Option<Vec<u8>>> {
        Ok(self.read_tile(path))
    }

    async fn wait_beyond(&self, height: u64, timeout: Duration) -> PortResult<()> {
        let mut heights = self.height.subscribe();
        let _ = tokio::time::timeout(timeout, heights.wait_for(|now| *now > height)).await;
        Ok(())
    }

    fn origin(&self) -> String {
        self.genesis.origin.clone()
    }

    async fn policy(&self) -> PortResult<String> {
        absent()
    }

    async fn policies(&self) -> PortResult<BTreeMap<u64, String>> {
        absent()
    }

    async fn statement_keys(&self) -> PortResult<Vec<String>> {
        absent()
    }

    async fn block_of(&self, _: LeafIndex) -> PortResult<Option<BlockRef>> {
        absent()
    }

    async fn entry(&self, _: LeafIndex) -> PortResult<Option<Vec<u8>>> {
        absent()
    }

    async fn receipt(&self, _: LeafIndex) -> PortResult<Option<LedgerReceipt>> {
        absent()
    }

    async fn find_digest(&self, _: Algorithm, _: &Hash32, _: LeafIndex, _: usize) -> PortResult<DigestHits> {
        absent()
    }

    async fn find_entry(&self, _: &Hash32) -> PortResult<Option<LeafIndex>> {
        absent()
    }

    async fn not_found_statement(&self, _: Algorithm, _: &Hash32) -> PortResult<String> {
        absent()
    }
}
