//! What the rest of the process sees of a node: submitting and reading. Reads are consistent
//! with the newest published checkpoint and wait for nobody.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use chopmark_consensus::{SeenVote, SeenVotes};
use ledger_core::{
    Hash32, SigningKey,
    batch::{BATCH_BYTES_MAX, Item, SUBMISSION_OPERATIONS_MAX, Submission},
    block::Block,
    checkpoint::Checkpoint,
    codec::{DecodeError, Reader, Writer},
    digests::Algorithm,
    execute::admit,
    genesis::Genesis,
    member::{MemberSet, faults_tolerated},
    merkle::{LeafIndex, TreeSize, inclusion_proof, leaf_hash, verify_inclusion},
    operation::state_hash,
    policy::Policy,
    policy_file::PolicyFile,
    receipt::Receipt,
    state::{Changes, OperationRecord, PendingMembers, StateRead as _, key, operation_record, read_json},
    tile::{TileKind, TilePath},
    verify::SignedCheckpoint,
};
use parking_lot::{Mutex, RwLock};
use segment_log::SegmentReader;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::{oneshot, watch};

use crate::{
    NodeError,
    bugs::{Bug, has},
    cosign::{LastCosignature, SeenCosignatures},
    damage::{Damage, Part},
    derive::{Backlog, StateDigests, Work},
    derived::{IndexKey, LiveState, digest_key, entry_key, index_keys, is_corrupt},
    pool::{Pool, PoolError, Waiting},
    repair::is_replayable,
    statement::{self, NotFound},
    tail::{Tail, Tree},
    tiles::TileFiles,
    vote::NoVote,
    witness::{Witness, Witnesses},
};

pub use crate::pool::Ended as Submitted;

/// Decided blocks kept in memory after they are on disk, for committers that follow closely.
const RECENT_BYTES_MAX: usize = 16 << 20;
/// Headers kept of blocks that are not in memory any more: what a page of records asks for, 3 MiB.
const HEADERS_MAX: usize = 65_536;
/// A block that no quorum has signed for so long is shown to followers without.
const UNSIGNED_AFTER_MS: u64 = 5_000;
/// Largest submission: well below a batch, so that every submission fits into some block.
pub const SUBMISSION_BYTES_MAX: usize = BATCH_BYTES_MAX / 2;

/// Where time comes from: Unix milliseconds.
pub type ClockMs = Arc<dyn Fn() -> u64 + Send + Sync>;

/// A decided block and what it did.
pub(crate) struct CommittedBlock {
    pub(crate) block: Block,
    pub(crate) hash: Hash32,
    pub(crate) entries: Vec<Vec<u8>>,
    /// [`index_keys`](crate::derived::index_keys) of the entries.
    pub(crate) keys: Vec<(IndexKey, u64)>,
    pub(crate) changes: Changes,
    /// Approximate memory.
    pub(crate) bytes: usize,
}

impl CommittedBlock {
    pub(crate) fn height(&self) -> u64 {
        self.block.header.height
    }

    pub(crate) fn first_index(&self) -> u64 {
        self.block.header.tree_size - self.entries.len() as u64
    }
}

/// What is kept of the header of a block that is not in memory any more.
#[derive(Clone, Copy)]
pub(crate) struct HeaderAt {
    time: u64,
    hash: Hash32,
    /// Tree size after the block.
    size: u64,
}

/// Decided blocks that the index does not have yet, and some that it has.
#[derive(Default)]
pub(crate) struct Recent {
    blocks: BTreeMap<u64, Arc<CommittedBlock>>,
    by_size: BTreeMap<u64, u64>,
    keys: HashMap<IndexKey, Vec<u64>>,
    checkpoints: BTreeMap<u64, u64>,
    settled: u64,
    bytes: usize,
}

impl Recent {
    /// Nothing in memory; the index has everything up to `height`.
    pub(crate) fn starting_at(height: u64) -> Self {
        Self { settled: height, ..Self::default() }
    }

    pub(crate) fn insert(&mut self, block: Arc<CommittedBlock>) {
        for (key, index) in &block.keys {
            self.keys.entry(*key).or_default().push(*index);
        }
        if !block.entries.is_empty() {
            self.by_size.insert(block.block.header.tree_size, block.height());
        }
        self.bytes += block.bytes;
        self.blocks.insert(block.height(), block);
    }

    /// Height of the block that holds `index`, if it is in memory: the lowest one holds it only if
    /// its entries reach down to it.
    fn height_of(&self, index: LeafIndex) -> Option<u64> {
        let (_, height) = self.by_size.range(index.0 + 1..).next()?;
        self.blocks.get(height).filter(|block| block.first_index() <= index.0).map(|_| *height)
    }

    /// Record of the first checkpoint over `index` that the index does not have.
    fn checkpoint_over(&self, index: LeafIndex) -> Option<u64> {
        self.checkpoints.range(index.0 + 1..).next().map(|(_, record)| *record)
    }

    fn forget_key(&mut self, key: &IndexKey, index: u64) {
        if let Some(indexes) = self.keys.get_mut(key) {
            indexes.retain(|known| *known != index);
            if indexes.is_empty() {
                self.keys.remove(key);
            }
        }
    }

    pub(crate) fn insert_checkpoint(&mut self, size: TreeSize, record: u64) {
        self.checkpoints.insert(size.0, record);
    }

    /// The index has everything up to these now.
    pub(crate) fn settle(&mut self, height: u64, checkpoint: Option<TreeSize>) {
        while self.settled < height {
            self.settled += 1;
            let Some(block) = self.blocks.get(&self.settled).cloned() else { continue };
            for (key, index) in &block.keys {
                self.forget_key(key, *index);
            }
        }
        if let Some(size) = checkpoint {
            self.checkpoints = self.checkpoints.split_off(&(size.0 + 1));
        }
        while self.bytes > RECENT_BYTES_MAX && self.blocks.first_key_value().is_some_and(|(at, _)| *at <= self.settled)
        {
            if let Some((_, block)) = self.blocks.pop_first() {
                self.by_size.remove(&block.block.header.tree_size);
                self.bytes -= block.bytes;
            }
        }
    }
}

/// The newest published checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Height of the newest block that it covers: blocks of rejections alone leave the tree as it is.
    pub height: u64,
    /// Tree size.
    pub size: TreeSize,
    /// Root.
    pub root: Hash32,
    /// The signed note.
    pub note: String,
}

/// A record of the checkpoint log.
pub(crate) struct CheckpointRecord {
    pub(crate) height: u64,
    pub(crate) note: String,
}

impl CheckpointRecord {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(1).u64(self.height).bytes(self.note.as_bytes());
        writer.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != 1 {
            return Err(DecodeError::Range("checkpoint record version"));
        }
        let height = reader.u64()?;
        let note = String::from_utf8(reader.bytes(1 << 20)?.to_vec()).map_err(|_| DecodeError::Range("note"))?;
        reader.end()?;
        Ok(Self { height, note })
    }

    pub(crate) fn signed(&self) -> Result<SignedCheckpoint, NodeError> {
        SignedCheckpoint::parse(&self.note)
            .map_err(|verdict| NodeError::Damaged(format!("stored checkpoint: {verdict}")))
    }
}

/// Whose signatures count for the tree sizes of one member set.
pub(crate) struct Trust {
    pub(crate) members: MemberSet,
    /// The policy file, byte-identical at every member.
    pub(crate) text: String,
    pub(crate) policy: PolicyFile,
}

impl Trust {
    pub(crate) fn new(origin: &str, members: MemberSet) -> Result<Self, NodeError> {
        let text = PolicyFile::text_of_members(origin, &members);
        let policy = PolicyFile::parse(&text).map_err(|error| NodeError::Damaged(error.to_string()))?;
        Ok(Self { members, text, policy })
    }
}

/// Everything that the threads of a node share.
pub(crate) struct Shared {
    pub(crate) genesis: Genesis,
    pub(crate) chain: Hash32,
    /// This node's member domain.
    pub(crate) domain: String,
    /// Whether it follows others where it is no member's.
    pub(crate) follows: bool,
    /// Whether others have decided blocks that this member's node does not get from them.
    pub(crate) left_behind: AtomicBool,
    /// Votes of all members, as the engine has verified them.
    pub(crate) seen_votes: SeenVotes,
    /// Cosignatures of all members, as the ledger thread has verified them.
    pub(crate) cosignatures: SeenCosignatures,
    /// What the other members' nodes have seen of this one.
    pub(crate) witnesses: Witnesses,
    pub(crate) statement_key: SigningKey,
    pub(crate) clock: ClockMs,
    pub(crate) state: LiveState,
    pub(crate) tail: RwLock<Tail>,
    pub(crate) files: TileFiles,
    pub(crate) blocks: SegmentReader,
    pub(crate) checkpoints: SegmentReader,
    pub(crate) recent: RwLock<Recent>,
    /// Headers read from the block log, the newest [`HEADERS_MAX`] heights.
    pub(crate) headers: Mutex<BTreeMap<u64, HeaderAt>>,
    pub(crate) published: ArcSwap<Option<Published>>,
    pub(crate) published_height: watch::Sender<u64>,
    /// By the first tree size that each signs for; the last is in force.
    pub(crate) trust: RwLock<BTreeMap<u64, Arc<Trust>>>,
    pub(crate) pool: Pool,
    pub(crate) backlog: Backlog,
    pub(crate) state_digests: StateDigests,
    pub(crate) damage: Damage,
    /// Whether there is anybody to ask for what is damaged here.
    pub(crate) has_peers: bool,
    pub(crate) failure: Mutex<Option<String>>,
    /// Why this node does not vote, as the ledger thread has seen it last.
    pub(crate) no_vote: Mutex<Option<NoVote>>,
    /// This node's clock less the median of the others'.
    pub(crate) clock_offset_ms: Mutex<Option<i64>>,
}

impl Shared {
    /// Makes a checkpoint the newest one for every reader, and wakes those who wait for it.
    pub(crate) fn publish(&self, published: Published) {
        let height = published.height;
        self.published.store(Arc::new(Some(published)));
        self.published_height.send_replace(height);
    }

    /// Whose signatures count in a checkpoint of this size.
    pub(crate) fn trust_at(&self, size: TreeSize) -> Result<Arc<Trust>, NodeError> {
        let trust = self.trust.read();
        let known = trust.range(..=size.0).next_back().map(|(_, trust)| Arc::clone(trust));
        known.ok_or_else(|| NodeError::Damaged(format!("no members are known for size {}", size.0)))
    }

    /// Members that will sign for what comes next.
    pub(crate) fn trust_in_force(&self) -> Result<Arc<Trust>, NodeError> {
        self.trust_at(TreeSize(u64::MAX))
    }

    /// Takes over the member set that begins with a block.
    pub(crate) fn trust_from(&self, first_size: u64, members: MemberSet) -> Result<(), NodeError> {
        let trust = Arc::new(Trust::new(&self.genesis.origin, members)?);
        self.trust.write().insert(first_size, trust);
        Ok(())
    }

    /// Notes damage that an error tells of: the node does not sign until it is healed. What nobody
    /// can heal here is plain damage to whoever reads.
    pub(crate) fn noted(&self, error: NodeError) -> NodeError {
        match error {
            NodeError::DamagedPart { part, reason } => {
                self.damage.note(part, &reason);
                let stays = match part {
                    Part::Tile(TileKind::Entries, _) => !self.has_peers && !is_replayable(self),
                    Part::Block(_) => true,
                    _ => false,
                };
                if stays { NodeError::Damaged(reason) } else { NodeError::DamagedPart { part, reason } }
            }
            error @ NodeError::Damaged(_) => {
                tracing::error!(%error, "damage found; the node stops signing");
                self.fail(&error);
                error
            }
            error => {
                if matches!(&error, NodeError::Store(store) if is_corrupt(store)) {
                    self.fail(&error);
                }
                error
            }
        }
    }

    /// Stops the node from deciding and signing, for good; what can be read stays readable.
    pub(crate) fn fail(&self, error: &NodeError) {
        if let NodeError::Store(store) = error
            && is_corrupt(store)
        {
            self.state.store.mark(&store.to_string());
        }
        self.failure.lock().get_or_insert_with(|| error.to_string());
        metrics::counter!("chopmark_node_failures_total").increment(1);
        self.pool.close();
    }

    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    /// A block of the block log, with its bytes.
    pub(crate) fn stored_block(&self, height: u64) -> Result<(Block, Vec<u8>), NodeError> {
        let damaged = |reason: String| NodeError::DamagedPart { part: Part::Block(height), reason };
        let bytes = self.blocks.read(height).map_err(|error| match error {
            segment_log::Error::Corrupt { .. } => damaged(error.to_string()),
            error => error.into(),
        })?;
        let bytes = bytes.ok_or_else(|| damaged(format!("block {height} is missing from the block log")))?;
        let block = Block::decode(&bytes).map_err(|error| damaged(format!("block {height}: {error}")))?;
        Ok((block, bytes))
    }

    pub(crate) fn tree(&self) -> Tree<'_> {
        Tree { tail: &self.tail, files: &self.files }
    }

    /// Takes over a decided block: from now on it is read, and written behind.
    pub(crate) fn commit(&self, block: CommittedBlock, leaves: &[Hash32]) -> Result<(), NodeError> {
        self.state.commit(block.height(), &block.changes);
        let block = Arc::new(block);
        {
            let mut tail = self.tail.write();
            for (leaf, entry) in leaves.iter().zip(&block.entries) {
                tail.push(*leaf, entry.clone());
            }
        }
        self.recent.write().insert(Arc::clone(&block));
        self.backlog.push(Work::Block(block))
    }
}

/// Why a submission was not taken or got no outcome.
#[derive(Debug, Error)]
pub enum SubmitError {
    /// The pool is full: the same submission may be taken later.
    #[error("the pool is full")]
    Full,
    /// The node stopped; what was submitted may or may not be decided.
    #[error("the node has stopped: {0}")]
    Stopped(String),
    /// The submission is not signed by a submitter in force, or too large.
    #[error("the submission is refused: {0}")]
    Refused(&'static str),
    /// These operations (positions, reasons) can never be part of a block.
    #[error("{} operations are malformed", .0.len())]
    Malformed(Vec<(usize, String)>),
}

/// A decided block with its entries.
#[derive(Debug, Clone)]
pub struct BlockAt {
    /// The block.
    pub block: Block,
    /// Its entries.
    pub entries: Vec<Vec<u8>>,
}

/// What a change of members or policy replaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Governance {
    /// Newest decided height.
    pub height: u64,
    /// Members in force.
    pub members: MemberSet,
    /// A set that waits for its height.
    pub pending: Option<PendingMembers>,
    /// Policy in force.
    pub policy: Policy,
    /// What a change of the policy names as replaced.
    pub policy_hash: Hash32,
}

/// The receipt of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptAt {
    /// The receipt, without an opening.
    pub receipt: Receipt,
    /// Tree size of its checkpoint.
    pub size: TreeSize,
    /// Root of its checkpoint.
    pub root: Hash32,
    /// Cosignatures that count, of how many members.
    pub cosigners: (usize, usize),
    /// (f+1)-th earliest cosignature, Unix seconds.
    pub time: u64,
}

/// Where a digest stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestPositions {
    /// Leaf indexes, ascending.
    pub indexes: Vec<LeafIndex>,
    /// The index is complete up to this size.
    pub complete_to: TreeSize,
    /// Root of the tree of that size.
    pub root: Hash32,
}

/// A running node. Clones share it.
#[derive(Clone)]
pub struct NodeHandle(pub(crate) Arc<Shared>);

type Read<T> = Result<T, NodeError>;

impl NodeHandle {
    /// Chain id.
    #[must_use]
    pub fn chain(&self) -> Hash32 {
        self.0.chain
    }

    /// The genesis.
    #[must_use]
    pub fn genesis(&self) -> &Genesis {
        &self.0.genesis
    }

    /// Why the node stopped, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.0.failure()
    }

    /// Why this node does not vote at the next height; `None` if it does.
    #[must_use]
    pub fn no_vote(&self) -> Option<NoVote> {
        self.0.no_vote.lock().clone()
    }

    /// Parts of the stored data that are damaged and not healed yet. While there are tiles, bundles or
    /// index entries among them, the node does not sign.
    #[must_use]
    pub fn damaged(&self) -> Vec<Part> {
        self.0.damage.parts()
    }

    /// Bytes waiting in the pool.
    #[must_use]
    pub fn pool_bytes(&self) -> usize {
        self.0.pool.bytes()
    }

    /// Submits signed operations and waits until each has its outcome in a decided block, now
    /// or from before. Outcomes come in the order of the items.
    pub async fn submit(&self, submission: Submission) -> Result<Vec<Submitted>, SubmitError> {
        if submission.items.len() > SUBMISSION_OPERATIONS_MAX || submission.encoded_len() > SUBMISSION_BYTES_MAX {
            return Err(SubmitError::Refused("more operations or bytes than one submission may have"));
        }
        if submission.items.is_empty() {
            return Ok(Vec::new());
        }
        // What waits in the pool of a node that only follows never gets a turn.
        if self.0.follows && matches!(self.no_vote(), Some(NoVote::NotAMember | NoVote::OtherKeys(_))) {
            return Err(SubmitError::Refused("this node follows without a vote: submit to a member's node"));
        }
        let handle = self.clone();
        let entered = tokio::task::spawn_blocking(move || handle.enter(submission)).await;
        let outcome = entered.map_err(|_| SubmitError::Stopped("checking it failed".to_owned()))??;
        outcome.await.map_err(|_| self.stopped())
    }

    /// Checks a submission and puts it into the pool; the outcomes come once all are known.
    pub(crate) fn enter(&self, submission: Submission) -> Result<oneshot::Receiver<Vec<Submitted>>, SubmitError> {
        let (submission, ops) = check_submission(&self.0, submission)?;
        let (reply, outcome) = oneshot::channel();
        let asked = ops.clone();
        self.0.pool.push(Waiting { submission, ops, reply }).map_err(|error| match error {
            PoolError::Full => SubmitError::Full,
            PoolError::Closed => self.stopped(),
        })?;
        // In the pool now: what was decided before, by whomever, is answered from the state; what is
        // decided from here on finds it there.
        if !has(Bug::SubmittingForgetsWhatIsKnown) {
            answer_known(&self.0, &asked);
        }
        Ok(outcome)
    }

    fn stopped(&self) -> SubmitError {
        SubmitError::Stopped(self.failure().unwrap_or_else(|| "it is shutting down".to_owned()))
    }

    /// Newest checkpoint that a quorum has signed. Errors: [`NodeError::NothingPublished`] on a new
    /// network of several members.
    pub fn published(&self) -> Read<Published> {
        let published = self.0.published.load();
        Option::clone(&published).ok_or(NodeError::NothingPublished)
    }

    /// This node's clock less the median of the other members', in milliseconds; `None` until most of
    /// them have shown theirs.
    #[must_use]
    pub fn clock_offset_ms(&self) -> Option<i64> {
        *self.0.clock_offset_ms.lock()
    }

    /// Newest decided height.
    #[must_use]
    pub fn height(&self) -> u64 {
        self.0.blocks.next_sequence() - 1
    }

    /// Waits until a checkpoint covers a block above `height`, or the time is over.
    pub async fn wait_beyond(&self, height: u64, timeout: Duration) {
        let mut heights = self.0.published_height.subscribe();
        let beyond = heights.wait_for(|published| *published > height);
        let _timed_out_or_closed = tokio::time::timeout(timeout, beyond).await;
    }

    /// Waits until there is a checkpoint, or the time is over.
    pub async fn wait_published(&self, timeout: Duration) {
        let mut heights = self.0.published_height.subscribe();
        if self.published().is_err() {
            let _timed_out_or_closed = tokio::time::timeout(timeout, heights.changed()).await;
        }
    }

    /// Policy file of the members in force.
    pub fn policy(&self) -> Read<String> {
        Ok(self.0.trust_in_force()?.text.clone())
    }

    /// Policy files by the first tree size that each is for; it holds up to the next one's.
    #[must_use]
    pub fn policies(&self) -> BTreeMap<u64, String> {
        self.0.trust.read().iter().map(|(size, trust)| (*size, trust.text.clone())).collect()
    }

    /// The members in force.
    pub fn members(&self) -> Read<MemberSet> {
        Ok(self.0.trust_in_force()?.members.clone())
    }

    /// All member sets that were ever in force, oldest first.
    #[must_use]
    pub fn member_sets(&self) -> Vec<MemberSet> {
        self.0.trust.read().values().map(|trust| trust.members.clone()).collect()
    }

    /// What a change of members or policy replaces, as the newest decided block left it.
    pub fn governance(&self) -> Read<Governance> {
        let state = &self.0.state;
        Ok(Governance {
            height: self.height(),
            members: ledger_core::state::members(state)?,
            pending: read_json(state, key::PENDING_MEMBERS)?,
            policy: ledger_core::state::policy(state)?,
            policy_hash: state_hash(state.get(key::POLICY)?.as_deref()),
        })
    }

    /// The newest vote of every member that this node has seen.
    #[must_use]
    pub fn seen_votes(&self) -> Vec<SeenVote> {
        self.0.seen_votes.all()
    }

    /// The newest cosignature of every member in force that this node has seen. A node that only follows
    /// sees those that made a quorum, and no later ones.
    pub fn cosignatures(&self) -> Read<Vec<LastCosignature>> {
        Ok(self.0.cosignatures.of(&self.0.trust_in_force()?.members, (self.0.clock)()))
    }

    /// Whether enough of the others had told what they have seen of it, when this node was to vote for
    /// the first time or again: until then it does not.
    #[must_use]
    pub fn is_witnessed(&self) -> bool {
        self.0.witnesses.are_enough()
    }

    /// Members that have told what they have seen of this one, since it started.
    #[must_use]
    pub fn witnesses(&self) -> Vec<String> {
        self.0.witnesses.members()
    }

    /// Takes what another member's node has seen of this one.
    pub fn witness(&self, witness: Witness) {
        self.0.witnesses.hear(witness);
    }

    /// The others have gone on and do not tell this node, as when it missed its own removal: it follows
    /// what they serve to everybody until it has caught up. The caller has seen their next block and
    /// its certificate.
    pub fn left_behind(&self) {
        self.0.left_behind.store(true, Ordering::Relaxed);
        self.0.pool.changed().notify_one();
    }

    /// How an operation ended, as far as blocks have been decided here.
    pub fn outcome(&self, op: &Hash32) -> Read<Option<OperationRecord>> {
        Ok(operation_record(&self.0.state, op)?)
    }

    /// `vkey` of the key that signs "not found" statements.
    pub fn statement_key(&self) -> Read<String> {
        statement::vkey(&self.0.domain, &self.0.statement_key)
    }

    /// Blocks from `from` on, at most `max`, none beyond the newest checkpoint.
    pub fn blocks(&self, from: u64, max: usize) -> Read<Vec<BlockAt>> {
        let last = self.published()?.height;
        (from.max(1)..=last).take(max).map(|height| self.block(height)).collect()
    }

    fn block(&self, height: u64) -> Read<BlockAt> {
        if let Some(recent) = self.recent(height) {
            return Ok(BlockAt { block: recent.block.clone(), entries: recent.entries.clone() });
        }
        let block = self.stored_block(height)?;
        let first = self.size_before(height, block.header.tree_size)?;
        let entries = self.noting_damage(self.0.tree().entries(first, block.header.tree_size))?;
        Ok(BlockAt { block, entries })
    }

    /// Encoded blocks from `from` on, each with the first checkpoint of exactly its tree size. None
    /// beyond the newest checkpoint, so that followers get both together, unless it is
    /// [`UNSIGNED_AFTER_MS`] old: others may need it to go on at all. At least one where there is one, and
    /// no more than `bytes_max` otherwise.
    pub fn follow(&self, from: u64, bytes_max: usize) -> Read<Vec<(Vec<u8>, Option<String>)>> {
        let (mut followed, mut bytes) = (Vec::new(), 0);
        let signed = self.0.published.load().as_ref().as_ref().map_or(0, |published| published.height);
        for height in from.max(1)..=self.height() {
            let block = match self.recent(height) {
                Some(recent) => recent.block.clone(),
                None => self.stored_block(height)?,
            };
            if height > signed && block.header.time + UNSIGNED_AFTER_MS > (self.0.clock)() {
                break;
            }
            let encoded = block.encode();
            bytes += encoded.len();
            if bytes > bytes_max && !followed.is_empty() {
                break;
            }
            let checkpoint = self.checkpoint_of(TreeSize(block.header.tree_size))?;
            followed.push((encoded, checkpoint));
        }
        Ok(followed)
    }

    /// The first checkpoint of exactly this size.
    fn checkpoint_of(&self, size: TreeSize) -> Read<Option<String>> {
        let Some(record) = self.checkpoint_record_over(LeafIndex(size.0 - 1))? else { return Ok(None) };
        let record = self.checkpoint_record(record)?;
        Ok(Some(record)
            .filter(|record| record.signed().is_ok_and(|signed| signed.checkpoint.size == size))
            .map(|record| record.note))
    }

    /// Tree size before the block at `height`, which left the tree at `size`.
    fn size_before(&self, height: u64, size: u64) -> Read<u64> {
        if height == 1 {
            return Ok(ledger_core::entry::genesis_entries(&self.0.genesis).len() as u64);
        }
        match self.header_of(height - 1) {
            // The block before it is damaged; this one is not.
            Err(NodeError::Damaged(_)) => self.noting_damage(self.0.state.store.size_before(height, size)),
            header => Ok(header?.size),
        }
    }

    /// Height, time and header hash of the block that holds an entry; `None` for the genesis
    /// entries and beyond the newest checkpoint.
    pub fn block_of(&self, index: LeafIndex) -> Read<Option<(u64, u64, Hash32)>> {
        if index.0 >= self.published()?.size.0 {
            return Ok(None);
        }
        let recent = self.0.recent.read().height_of(index);
        let height = match recent {
            Some(height) => Some(height),
            None => self.noting_damage(self.0.state.store.height_of(index))?,
        };
        let genesis = ledger_core::entry::genesis_entries(&self.0.genesis).len() as u64;
        if index.0 < genesis {
            return Ok(None);
        }
        // A height that is not there yet is a flaw of the index, not of the block log.
        let height = height.filter(|height| (1..self.0.blocks.next_sequence()).contains(height));
        let at = height.map(|height| Ok::<_, NodeError>((height, self.header_of(height)?)));
        let Some((height, header)) = at.transpose()? else { return self.noting_damage(Err(misplaced(index))) };
        let holds = (self.size_before(height, header.size)?..header.size).contains(&index.0);
        if !holds && !has(Bug::NamesTheWrongBlock) {
            return self.noting_damage(Err(misplaced(index)));
        }
        Ok(Some((height, header.time, header.hash)))
    }

    /// What is kept of the header of a decided block.
    fn header_of(&self, height: u64) -> Read<HeaderAt> {
        if let Some(block) = self.recent(height) {
            let header = &block.block.header;
            return Ok(HeaderAt { time: header.time, hash: block.hash, size: header.tree_size });
        }
        let known = self.0.headers.lock().get(&height).copied();
        if let Some(known) = known {
            return Ok(known);
        }
        let header = self.stored_block(height)?.header;
        let read = HeaderAt { time: header.time, hash: header.hash(), size: header.tree_size };
        let mut headers = self.0.headers.lock();
        headers.insert(height, read);
        while headers.len() > HEADERS_MAX {
            headers.pop_first();
        }
        Ok(read)
    }

    /// A block in memory. The lock is let go here, before anything else is locked or read: a reader
    /// that asks for it twice waits for ever once a writer stands in between.
    fn recent(&self, height: u64) -> Option<Arc<CommittedBlock>> {
        self.0.recent.read().blocks.get(&height).cloned()
    }

    fn stored_block(&self, height: u64) -> Read<Block> {
        self.noting_damage(self.0.stored_block(height)).map(|(block, _)| block)
    }

    /// Exact bytes of an entry below the newest checkpoint, checked against its leaf hash.
    pub fn entry(&self, index: LeafIndex) -> Read<Option<Vec<u8>>> {
        if index.0 >= self.published()?.size.0 {
            return Ok(None);
        }
        Ok(self.noting_damage(self.0.tree().entries(index.0, index.0 + 1))?.pop())
    }

    /// Receipt of an entry under the first checkpoint that covered it, verified before it is
    /// handed out.
    pub fn receipt(&self, index: LeafIndex) -> Read<Option<ReceiptAt>> {
        if index.0 >= self.published()?.size.0 {
            return Ok(None);
        }
        let Some(entry) = self.entry(index)? else { return Ok(None) };
        let Some(record) = self.checkpoint_record_over(index)? else {
            // One is published that covers it.
            return self.noting_damage(Err(NodeError::DamagedPart {
                part: Part::CheckpointOver(index),
                reason: format!("the index names no checkpoint over entry {}", index.0),
            }));
        };
        let checkpoint = self.checkpoint_record(record)?;
        let signed = checkpoint.signed()?;
        let Checkpoint { size, root, .. } = signed.checkpoint.clone();
        let before = match record.checked_sub(1) {
            Some(before) => self.checkpoint_record(before)?.signed()?.checkpoint.size,
            None => TreeSize(0),
        };
        if !(before.0..size.0).contains(&index.0) {
            return self.noting_damage(Err(NodeError::DamagedPart {
                part: Part::CheckpointOver(index),
                reason: format!("the index names record {record} as the first checkpoint over entry {}", index.0),
            }));
        }
        let path = self.noting_damage(inclusion_proof(index, size, &self.0.tree()))?;
        if verify_inclusion(&leaf_hash(&entry), index, size, &path, &root).is_err() {
            // The first one tells why; what else is damaged is noted too.
            for (kind, tile) in self.0.tree().on_path(index, size) {
                self.noting_damage(self.0.tree().check(kind, tile))?;
            }
            return self.noting_damage(Err(NodeError::Damaged(format!(
                "entry {} and its tiles do not lead to the signed root of size {}",
                index.0, size.0
            ))));
        }
        let trust = self.0.trust_at(size)?;
        let signatures =
            signed.check_signatures(&trust.policy).map_err(|verdict| NodeError::Damaged(verdict.to_string()))?;
        let members = &trust.members;
        let times = signatures.times();
        let time = times.get(faults_tolerated(members.len())).copied().unwrap_or_default();
        let receipt = Receipt { extra: None, index, path, checkpoint: checkpoint.note };
        Ok(Some(ReceiptAt { receipt, size, root, cosigners: (times.len(), members.len()), time }))
    }

    /// Number of the record of the first checkpoint over `index`.
    fn checkpoint_record_over(&self, index: LeafIndex) -> Read<Option<u64>> {
        // A record that is not there yet is a flaw of the index, not of the checkpoint log.
        let is_there = |record: &u64| *record < self.0.checkpoints.next_sequence();
        let stored = || Ok(self.noting_damage(self.0.state.store.checkpoint_over(index))?.filter(is_there));
        if let Some(record) = stored()? {
            return Ok(Some(record));
        }
        let recent = self.0.recent.read().checkpoint_over(index);
        // Settled between the two look-ups.
        if recent.is_some() { Ok(recent) } else { stored() }
    }

    fn checkpoint_record(&self, record: u64) -> Read<CheckpointRecord> {
        let bytes = self.0.checkpoints.read(record)?;
        let bytes = bytes.ok_or_else(|| NodeError::Damaged(format!("checkpoint record {record} is missing")))?;
        CheckpointRecord::decode(&bytes)
            .map_err(|error| NodeError::Damaged(format!("checkpoint record {record}: {error}")))
    }

    /// Where a digest stands from `from` on, at most `max` positions.
    pub fn find(&self, algorithm: Algorithm, digest: &Hash32, from: LeafIndex, max: usize) -> Read<DigestPositions> {
        let published = self.published()?;
        let indexes = self.positions(&digest_key(algorithm, digest), from, published.size, max)?;
        Ok(DigestPositions { indexes, complete_to: published.size, root: published.root })
    }

    /// Where the entry of an id stands; `None` beyond the newest checkpoint.
    pub fn find_entry(&self, id: &Hash32) -> Read<Option<LeafIndex>> {
        let found = self.positions(&entry_key(id), LeafIndex(0), self.published()?.size, 1)?;
        Ok(found.first().copied())
    }

    /// Leaf indexes of a key from `from` on and below `size`, at most `max`.
    pub(crate) fn positions(
        &self,
        key: &IndexKey,
        from: LeafIndex,
        size: TreeSize,
        max: usize,
    ) -> Read<Vec<LeafIndex>> {
        // Memory first: what leaves it meanwhile is in the store by then.
        let recent = self.0.recent.read().keys.get(key).cloned().unwrap_or_default();
        let part = Part::Key(*key);
        let damaged = |reason: String| NodeError::DamagedPart { part, reason };
        if self.0.damage.contains(&part) {
            return Err(damaged("the index is damaged here".to_owned()));
        }
        let stored = self.noting_damage(self.0.state.store.find(key, from, max))?;
        let tree = self.0.tree();
        let whole = self.0.tail.read().size();
        for index in &stored {
            // Nothing is found by what it does not hold.
            let holds = index.0 < whole.0 && {
                let entry = self.noting_damage(tree.entries(index.0, index.0 + 1))?;
                index_keys(index.0, &entry).iter().any(|(held, _)| held == key)
            };
            if !holds && !has(Bug::FindsWhatIsNotThere) {
                return self
                    .noting_damage(Err(damaged(format!("the index finds entry {} by what is not in it", index.0))));
            }
        }
        let all: BTreeSet<u64> = recent.into_iter().chain(stored.into_iter().map(|index| index.0)).collect();
        Ok(all.range(from.0..size.0.max(from.0)).take(max).map(|index| LeafIndex(*index)).collect())
    }

    /// Signed statement that the index has no entry of a digest; `None` if it has one.
    pub fn not_found(&self, algorithm: Algorithm, digest: &Hash32) -> Read<Option<String>> {
        let found = self.find(algorithm, digest, LeafIndex(0), 1)?;
        if !found.indexes.is_empty() {
            return Ok(None);
        }
        if self.0.damage.doubts_index() {
            let reason = "the index is being repaired: what it does not have may be there".to_owned();
            return Err(NodeError::DamagedPart { part: Part::Key(digest_key(algorithm, digest)), reason });
        }
        let what = NotFound {
            origin: &self.0.genesis.origin,
            algorithm,
            digest: *digest,
            size: found.complete_to,
            root: found.root,
            time: (self.0.clock)() / 1000,
        };
        statement::not_found(&self.0.domain, &self.0.statement_key, &what).map(Some)
    }

    /// A tile or bundle of the published tree; `None` if it is not part of it. Whatever comes from
    /// a file leads to the root, or is not handed out.
    pub fn tile(&self, path: TilePath) -> Read<Option<Vec<u8>>> {
        let size = self.published()?.size;
        self.noting_damage(self.0.tree().serve(path, size))
    }

    fn noting_damage<T>(&self, result: Read<T>) -> Read<T> {
        result.map_err(|error| self.0.noted(error))
    }
}

fn misplaced(index: LeafIndex) -> NodeError {
    NodeError::DamagedPart {
        part: Part::BlockOf(index),
        reason: format!("the index does not name the block of entry {}", index.0),
    }
}

/// Tells the pool of operations that have an outcome already.
fn answer_known(shared: &Shared, ops: &[Hash32]) {
    let known = ops.iter().filter_map(|op| match operation_record(&shared.state, op) {
        Ok(record) => record.map(|OperationRecord { request, result, .. }| (*op, Submitted { request, result })),
        Err(error) => {
            tracing::error!(%error, "the outcome of an operation cannot be read");
            None
        }
    });
    let known: Vec<_> = known.collect();
    shared.pool.ended(known.into_iter());
}

fn check_submission(shared: &Shared, submission: Submission) -> Result<(Submission, Vec<Hash32>), SubmitError> {
    let trust = shared.trust_in_force().map_err(|error| SubmitError::Stopped(error.to_string()))?;
    if !trust.members.is_submitter(&submission.key) || !submission.verify(&shared.chain) {
        return Err(SubmitError::Refused("it is not signed by a submitter key of the members in force"));
    }
    let (mut ops, mut malformed) = (Vec::with_capacity(submission.items.len()), Vec::new());
    for (at, item) in submission.items.iter().enumerate() {
        match item {
            Item::Full(signed) => match admit(&shared.chain, signed) {
                Ok(operation) => ops.push(operation.common().op),
                Err(error) => malformed.push((at, error.to_string())),
            },
            Item::Omitted(_) => malformed.push((at, "an omitted operation in a fresh submission".to_owned())),
        }
    }
    if malformed.is_empty() { Ok((submission, ops)) } else { Err(SubmitError::Malformed(malformed)) }
}
