//! A member that lies: the real engine with the member's own keys, under an application that
//! follows the chain in memory, remembers no promise, and says whatever it is ordered to.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, anyhow, ensure};
use chopmark_consensus::{
    Application, Consensus as _, Failure, Heard, Judged, Malachite, NetworkConfig, Peer, Proposal, SignedVote, Slot,
    VoteSigner,
    byzantine::{ForgedContent, ForgedPart, Misbehaviour},
    proposer,
};
use ed25519_dalek::{Signer as _, SigningKey};
use ledger_core::{
    Hash32,
    batch::{BATCH_BYTES_MAX, Batch, Submission, batch_hash},
    block::Header,
    checkpoint::Checkpoint,
    codec::{Reader, Writer},
    equivocation::Equivocation,
    execute::{Executed, Parent, execute, execute_genesis},
    genesis::Genesis,
    hash::sha3_256,
    member::MemberSet,
    merkle::TreeSize,
    note::{Note, cosign},
    operation::SignedOperation,
    state::{apply_changes, key, members},
    vote::{Certificate, VoteType, address, proposal_message, vote_message},
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::sync::Notify;

use crate::members::{Network, key as key_file};

type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// Broadcasts between nodes, as the node has them.
const MESSAGE_CHECKPOINT: u8 = 1;
const MESSAGE_WAKE: u8 = 2;
/// How often a flood goes on, and how many messages it has each time: what its connections just carry.
/// More of it, and the engine's network drops them and most of what was sent.
const FLOOD_INTERVAL: Duration = Duration::from_millis(20);
const FLOOD_MESSAGES: u64 = 5;
/// What the others' clocks may just allow.
const CREEP_MS: u64 = 1900;
const HALF_YEAR_MS: u64 = 180 * 24 * 3600 * 1000;

/// What the member says that is not true, or not asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lie {
    /// Nothing: it is as honest as the others.
    None,
    /// Its proposals are 180 days ahead.
    TimeAhead,
    /// The same, and claims to be locked in an earlier round.
    TimeAheadLocked,
    /// Each time a step ahead of the block before, as far as a clock may be off: such a step may be
    /// decided, and a walk may not come of it.
    TimeCreep,
    /// Block time before the previous block's.
    TimeBehind,
    /// A root that the entries do not give.
    Root,
    TreeSize,
    Outcomes,
    Changes,
    /// A state digest where none belongs.
    StateDigest,
    Members,
    NextMembers,
    Previous,
    Chain,
    Height,
    /// An operation in a tenant's name that no submitter has signed.
    Unsigned,
    /// The same, signed by a key that is no submitter's.
    UnknownSubmitter,
    /// An operation that the tenant's own key has to sign, and did not.
    TenantSignatureMissing,
    /// An approved operation once more.
    ReplayedApproval,
    /// A sound header with a batch that it does not name.
    OtherBatch,
    /// A batch of one byte too many.
    OversizedBatch,
    /// More bytes than any proposal has.
    OversizedStream,
    /// Bytes that are no proposal.
    Junk,
    /// A proposal whose parts never come.
    NoParts,
    /// A sound proposal, its parts from last to first: unusual, and allowed.
    ReversedParts,
    /// Proposals in rounds that are others' turns, in their names and its own.
    OtherTurns,
    /// Streams that never end, repeat, contradict themselves.
    BrokenStreams,
    /// Votes whose signatures do not verify.
    UnsignedVotes,
    /// Calls for blocks without end, for heights near and far.
    Wakes,
    /// Cosignatures of long ago, its own and others'.
    OldCosignatures,
    /// Cosignatures of another log.
    OtherLog,
    /// Cosignatures of honest members under another root.
    ForgedCosignatures,
    /// Cosignatures for sizes that the log does not have.
    FutureSizes,
    /// Bytes that are no message.
    JunkMessages,
    /// Another root for a size that it has cosigned.
    SecondRoot,
}

impl Lie {
    /// Lies of a proposal, none of which may ever be decided.
    pub const PROPOSALS: [Self; 22] = [
        Self::TimeAhead,
        Self::TimeAheadLocked,
        Self::TimeBehind,
        Self::Root,
        Self::TreeSize,
        Self::Outcomes,
        Self::Changes,
        Self::StateDigest,
        Self::Members,
        Self::NextMembers,
        Self::Previous,
        Self::Chain,
        Self::Height,
        Self::Unsigned,
        Self::UnknownSubmitter,
        Self::TenantSignatureMissing,
        Self::ReplayedApproval,
        Self::OtherBatch,
        Self::OversizedBatch,
        Self::OversizedStream,
        Self::Junk,
        Self::NoParts,
    ];
    /// What it sends beside proposals that are sound.
    pub const FLOODS: [Self; 8] = [
        Self::OtherTurns,
        Self::BrokenStreams,
        Self::Wakes,
        Self::OldCosignatures,
        Self::OtherLog,
        Self::ForgedCosignatures,
        Self::FutureSizes,
        Self::JunkMessages,
    ];
}

/// A proposal that the member made.
#[derive(Debug, Clone, Copy)]
pub struct Proposed {
    pub lie: Lie,
    pub height: u64,
    pub round: u32,
    pub value: Hash32,
    /// Whether the others may decide on it.
    pub is_sound: bool,
    /// How far the block would be ahead of the true time.
    pub ahead_ms: i64,
}

/// What the test orders, and what came of it.
#[derive(Default)]
pub struct Orders {
    lie: AtomicLie,
    stopping: AtomicBool,
    changed: Arc<Notify>,
    misbehaviour: Mutex<Option<Misbehaviour>>,
    proposed: Mutex<Vec<Proposed>>,
    /// Messages and parts sent for the lie under way.
    sent: AtomicU64,
    height: AtomicU64,
    /// Second values by first ones.
    second: Arc<Mutex<BTreeMap<Hash32, Hash32>>>,
    replayed: Mutex<Option<SignedOperation>>,
}

struct AtomicLie(Mutex<Lie>);

impl Default for AtomicLie {
    fn default() -> Self {
        Self(Mutex::new(Lie::None))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Orders {
    /// What it says from now on.
    pub fn lie(&self, lie: Lie) {
        self.sent.store(0, Ordering::Relaxed);
        *locked(&self.lie.0) = lie;
        self.changed.notify_one();
    }

    fn current(&self) -> Lie {
        *locked(&self.lie.0)
    }

    /// The proposals that it made so far.
    pub fn proposed(&self) -> Vec<Proposed> {
        locked(&self.proposed).clone()
    }

    /// Messages and parts that were sent for the lie under way.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The height that it is at.
    pub fn height(&self) -> u64 {
        self.height.load(Ordering::Relaxed)
    }

    /// The operation that [`Lie::ReplayedApproval`] repeats.
    pub fn replays(&self, operation: SignedOperation) {
        *locked(&self.replayed) = Some(operation);
    }
}

/// A run of the engine: what it ran on, and how it ended.
type Run = (Liar, Malachite, Result<(), Failure>);

/// The member while its engine runs.
pub struct ByzantineMember {
    pub orders: Arc<Orders>,
    running: Option<JoinHandle<Run>>,
    stopped: Option<(Liar, Malachite)>,
}

impl ByzantineMember {
    /// Takes the place of a member of `network` that is played; it starts with [`Self::start`].
    pub fn new(network: &Network, number: usize, seed: u64) -> anyhow::Result<Self> {
        let orders = Arc::new(Orders::default());
        let folder = &network.members[number].folder;
        let mut peers = Vec::new();
        for (other, member) in network.members.iter().enumerate().filter(|(other, _)| *other != number) {
            let address = network.way(number, other).context("a way to every member")?;
            let network_key = Hash32(key_file(&member.folder, "network")?.verifying_key().to_bytes());
            peers.push(Peer { domain: member.domain.clone(), address, network_key });
        }
        let engine = Malachite {
            network: NetworkConfig { listen: network.members[number].listen, peers: peers.into() },
            key: key_file(folder, "network")?,
            wal: folder.join("liar"),
        };
        let liar = Liar::new(&network.genesis, folder, &network.members[number].domain, Arc::clone(&orders), seed)?;
        Ok(Self { orders, running: None, stopped: Some((liar, engine)) })
    }

    /// Runs the engine, which may do wrong things by itself.
    pub fn start(&mut self, misbehaviour: Option<Misbehaviour>) -> anyhow::Result<()> {
        let (mut liar, mut engine) = self.stopped.take().context("it runs already")?;
        *locked(&self.orders.misbehaviour) = misbehaviour;
        self.orders.stopping.store(false, Ordering::Relaxed);
        let run = move || {
            let ended = engine.run(&mut liar);
            (liar, engine, ended)
        };
        self.running = Some(std::thread::Builder::new().name("liar".to_owned()).spawn(run)?);
        Ok(())
    }

    /// Second values of its proposals, for an engine that signs two.
    pub fn second_proposals(&self) -> Misbehaviour {
        let second = Arc::clone(&self.orders.second);
        let other = move |value: Hash32| locked(&second).get(&value).copied().unwrap_or(Hash32::ZERO);
        Misbehaviour { second_proposal: Some(Arc::new(other)), ..Misbehaviour::default() }
    }

    /// Stops the engine; an engine that failed is the test's failure.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let Some(running) = self.running.take() else { return Ok(()) };
        self.orders.stopping.store(true, Ordering::Relaxed);
        self.orders.changed.notify_one();
        let (liar, engine, ended) = running.join().map_err(|_| anyhow!("the member that lies has panicked"))?;
        self.stopped = Some((liar, engine));
        ensure!(ended.is_ok(), "the engine of the member that lies has ended: {ended:?}");
        Ok(())
    }
}

impl Drop for ByzantineMember {
    fn drop(&mut self) {
        // A test that failed says so itself.
        let _ended = self.stop();
    }
}

struct LiarSigner {
    chain: Hash32,
    key: SigningKey,
    orders: Arc<Orders>,
}

impl VoteSigner for LiarSigner {
    fn chain(&self) -> Hash32 {
        self.chain
    }

    fn public(&self) -> Hash32 {
        Hash32(self.key.verifying_key().to_bytes())
    }

    fn vote(
        &self,
        kind: VoteType,
        height: u64,
        round: u32,
        value: Option<Hash32>,
        _: Option<u32>,
    ) -> Result<SignedVote, Failure> {
        if self.orders.current() == Lie::UnsignedVotes {
            self.orders.sent.fetch_add(1, Ordering::Relaxed);
            return Ok(SignedVote { value, signature: [7; 64] });
        }
        let message = vote_message(&self.chain, kind, height, round, value.as_ref(), &address(&self.public()));
        Ok(SignedVote { value, signature: self.key.sign(&message).to_bytes() })
    }

    fn proposal(&self, height: u64, round: u32, valid_round: Option<u32>, value: Hash32) -> Result<[u8; 64], Failure> {
        let message = proposal_message(&self.chain, height, round, valid_round, &value, &address(&self.public()));
        Ok(self.key.sign(&message).to_bytes())
    }

    fn network_proof(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }
}

struct Kept {
    slot: Slot,
    bytes: Vec<u8>,
    executed: Option<Executed>,
}

struct Liar {
    orders: Arc<Orders>,
    domain: String,
    origin: String,
    chain: Hash32,
    signer: Arc<LiarSigner>,
    cosigner: SigningKey,
    submitter: SigningKey,
    members: Arc<MemberSet>,
    state: State,
    parent: Parent,
    decided: Vec<(Vec<u8>, Certificate)>,
    kept: BTreeMap<Hash32, Kept>,
    forged: Vec<ForgedPart>,
    /// Notes of others, oldest first.
    heard: VecDeque<Vec<u8>>,
    outbox: Vec<Vec<u8>>,
    random: ChaCha8Rng,
    flooded: Duration,
}

fn message(kind: u8, write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u8(kind);
    write(&mut writer);
    writer.finish()
}

/// The note of a message between ledgers.
fn heard_note(message: &[u8]) -> Option<Note> {
    let mut reader = Reader::new(message.get(1..)?);
    Note::parse(std::str::from_utf8(reader.bytes(message.len()).ok()?).ok()?).ok()
}

fn flipped(hash: Hash32) -> Hash32 {
    let mut bytes = hash.0;
    bytes[31] ^= 1;
    Hash32(bytes)
}

#[expect(clippy::disallowed_methods, reason = "a member has a clock of its own")]
fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Liar {
    fn new(
        genesis: &Genesis,
        folder: &std::path::Path,
        domain: &str,
        orders: Arc<Orders>,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let born = execute_genesis(genesis);
        let mut state = State::new();
        apply_changes(&mut state, born.changes);
        let chain = genesis.chain_id();
        let signer = LiarSigner { chain, key: key_file(folder, "validator")?, orders: Arc::clone(&orders) };
        Ok(Self {
            orders,
            domain: domain.to_owned(),
            origin: genesis.origin.clone(),
            chain,
            signer: Arc::new(signer),
            cosigner: key_file(folder, "cosigner")?,
            submitter: key_file(folder, "submitter")?,
            members: Arc::new(genesis.members.clone()),
            parent: Parent { height: 0, time: born.header.time, hash: born.header.hash(), frontier: born.frontier },
            state,
            decided: Vec::new(),
            kept: BTreeMap::new(),
            forged: Vec::new(),
            heard: VecDeque::new(),
            outbox: Vec::new(),
            random: ChaCha8Rng::seed_from_u64(seed),
            flooded: Duration::ZERO,
        })
    }

    fn execute(&self, batch: &[u8], time: u64) -> anyhow::Result<Executed> {
        Ok(execute(&self.state, &self.parent, &self.chain, batch, time, None)?)
    }

    fn next_time(&self) -> u64 {
        self.parent.time.max(now_ms())
    }

    /// Evidence that nobody has asked for.
    fn invented(&mut self, tenant: &str) -> SignedOperation {
        let number: u64 = self.random.random();
        crate::members::evidence_of(&self.chain, tenant, number)
    }

    fn signed(&self, operations: Vec<SignedOperation>) -> Submission {
        Submission::sign(&self.chain, &self.submitter, operations)
    }

    /// A sound proposal, with one operation of its own, or without any.
    fn sound(&mut self, empty: bool) -> anyhow::Result<(Header, Vec<u8>)> {
        let submissions = if empty {
            Vec::new()
        } else {
            let invented = self.invented(crate::members::TENANT);
            vec![self.signed(vec![invented])]
        };
        let batch = Batch { submissions }.encode();
        let header = self.execute(&batch, self.next_time())?.header;
        Ok((header, batch))
    }

    /// A batch that does not execute, under the header that it would have if `pretended` were the
    /// state and `sound` the batch.
    fn as_if(&self, pretended: &State, sound: &Batch, batch: &Batch) -> anyhow::Result<(Header, Vec<u8>)> {
        let time = self.next_time();
        let executed = execute(pretended, &self.parent, &self.chain, &sound.encode(), time, None)?;
        let bytes = batch.encode();
        Ok((Header { batch: batch_hash(&bytes), ..executed.header }, bytes))
    }

    fn false_header(&mut self, change: impl FnOnce(&mut Header)) -> anyhow::Result<(Header, Vec<u8>)> {
        let (mut header, batch) = self.sound(false)?;
        change(&mut header);
        Ok((header, batch))
    }

    /// Header and batch of a proposal that lies.
    fn forge(&mut self, lie: Lie) -> anyhow::Result<(Header, Vec<u8>)> {
        let parent_time = self.parent.time;
        match lie {
            Lie::TimeAhead | Lie::TimeAheadLocked => {
                let batch = Batch::default().encode();
                let header = self.execute(&batch, self.next_time() + HALF_YEAR_MS)?.header;
                Ok((header, batch))
            }
            Lie::TimeCreep => {
                let batch = Batch::default().encode();
                let header = self.execute(&batch, self.next_time() + CREEP_MS)?.header;
                Ok((header, batch))
            }
            Lie::TimeBehind => self.false_header(|header| header.time = parent_time - 1),
            Lie::Root => self.false_header(|header| header.root = flipped(header.root)),
            Lie::TreeSize => self.false_header(|header| header.tree_size += 1),
            Lie::Outcomes => self.false_header(|header| header.outcomes = flipped(header.outcomes)),
            Lie::Changes => self.false_header(|header| header.changes = flipped(header.changes)),
            Lie::StateDigest => self.false_header(|header| header.state = Some(sha3_256(b"state"))),
            Lie::Members => self.false_header(|header| header.members = flipped(header.members)),
            Lie::NextMembers => self.false_header(|header| header.next_members = flipped(header.next_members)),
            Lie::Previous => self.false_header(|header| header.previous = flipped(header.previous)),
            Lie::Chain => self.false_header(|header| header.chain = flipped(header.chain)),
            Lie::Height => self.false_header(|header| header.height += 1),
            Lie::Unsigned | Lie::UnknownSubmitter => {
                let operations = vec![self.invented(crate::members::TENANT)];
                let sound = self.signed(operations.clone());
                let mut bad = sound.clone();
                if lie == Lie::Unsigned {
                    bad.signature = [0; 64];
                } else {
                    let stranger = SigningKey::from_bytes(&self.random.random());
                    bad = Submission::sign(&self.chain, &stranger, operations);
                }
                self.as_if(&self.state, &Batch { submissions: vec![sound] }, &Batch { submissions: vec![bad] })
            }
            Lie::TenantSignatureMissing => {
                let operation = self.invented(crate::members::KEYED_TENANT);
                let batch = Batch { submissions: vec![self.signed(vec![operation])] };
                // As if the tenant had no key: then the operation would be an entry.
                let mut pretended = self.state.clone();
                let open = pretended.get(&key::tenant(crate::members::TENANT)).context("a tenant")?.clone();
                pretended.insert(key::tenant(crate::members::KEYED_TENANT), open);
                self.as_if(&pretended, &batch, &batch)
            }
            Lie::ReplayedApproval => {
                let operation = locked(&self.orders.replayed).clone().context("an approved operation")?;
                let batch = Batch { submissions: vec![self.signed(vec![operation])] };
                // As if its tenant were new.
                let mut pretended = self.state.clone();
                pretended.retain(|known, _| !matches!(known.first(), Some(b'o' | b't')));
                self.as_if(&pretended, &batch, &batch)
            }
            Lie::OtherBatch => {
                let (header, _) = self.sound(false)?;
                let other = self.invented(crate::members::TENANT);
                Ok((header, Batch { submissions: vec![self.signed(vec![other])] }.encode()))
            }
            Lie::OversizedBatch | Lie::OversizedStream => {
                let len = if lie == Lie::OversizedBatch { BATCH_BYTES_MAX + 1 } else { BATCH_BYTES_MAX + 5000 };
                let (mut header, mut batch) = self.sound(true)?;
                batch.resize(len, 0);
                header.batch = batch_hash(&batch);
                Ok((header, batch))
            }
            _ => self.sound(true),
        }
    }

    /// Streams a proposal part by part, from last to first.
    fn stream_reversed(&mut self, slot: Slot, bytes: &[u8]) {
        let stream = self.random.random::<[u8; 16]>().to_vec();
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let pieces: Vec<&[u8]> = bytes.chunks(bytes.len().div_ceil(3).max(1)).collect();
        let part = |sequence, content| ForgedPart { stream: stream.clone(), sequence, content };
        self.forged.push(part(pieces.len() as u64 + 1, ForgedContent::Fin));
        for (sequence, piece) in (1..=pieces.len() as u64).zip(&pieces).collect::<Vec<_>>().into_iter().rev() {
            self.forged.push(part(sequence, ForgedContent::Data(piece.to_vec())));
        }
        self.forged.push(part(0, ForgedContent::Init(slot, len)));
    }

    /// Sound proposals, streamed in the turns of others. Each has an operation of its own: an empty block
    /// of the same millisecond would be the very one that an honest proposer makes.
    fn other_turns(&mut self) -> anyhow::Result<()> {
        let (header, batch) = self.sound(false)?;
        let (height, value, time) = (header.height, header.hash(), header.time);
        let bytes = Proposal { header, batch }.encode();
        let own = address(&self.signer.public());
        let round = self.random.random_range(0..6);
        let turn = proposer(&self.members, height, round).context("a member has the turn")?;
        let other = address(&turn.validator_key);
        if other == own {
            return Ok(());
        }
        let proposer = if self.random.random() { other } else { own };
        let valid_round = self.random.random::<bool>().then(|| self.random.random_range(0..6));
        self.stream_reversed(Slot { height, round, valid_round, proposer }, &bytes);
        self.orders.sent.fetch_add(1, Ordering::Relaxed);
        self.note_proposed(Lie::OtherTurns, round, value, time);
        Ok(())
    }

    fn broken_streams(&mut self) {
        let own = address(&self.signer.public());
        for _ in 0..FLOOD_MESSAGES {
            let stream = match self.random.random_range(0..4) {
                0 => Vec::new(),
                1 => vec![1; 16],
                _ => self.random.random::<[u8; 32]>().to_vec(),
            };
            let sequence = [0, 1, 2, 3, 40, u64::MAX][self.random.random_range(0..6)];
            let height = self.parent.height + self.random.random_range(0..3);
            let round = [0, 1, 7, u32::MAX - 1][self.random.random_range(0..4)];
            let slot = Slot { height, round, valid_round: None, proposer: own };
            let len = [0, 1, 4 << 20, u32::MAX][self.random.random_range(0..4)];
            let content = match self.random.random_range(0..5) {
                0 => ForgedContent::Init(slot, len),
                1 | 2 => ForgedContent::Data(vec![9; [1, 1000, 128 << 10][self.random.random_range(0..3)]]),
                3 => ForgedContent::Message(vec![MESSAGE_WAKE; self.random.random_range(0..20)]),
                _ => ForgedContent::Fin,
            };
            self.forged.push(ForgedPart { stream, sequence, content });
            self.orders.sent.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn cosigned(&self, checkpoint: &Checkpoint) -> Vec<u8> {
        let text = checkpoint.text();
        let line = cosign(&format!("{}/cosigner", self.domain), &self.cosigner, &text, now_ms() / 1000);
        let signatures = line.into_iter().collect();
        message(MESSAGE_CHECKPOINT, |writer| {
            writer.bytes(Note { text, signatures }.render().as_bytes());
        })
    }

    fn checkpoint(&self) -> Checkpoint {
        let frontier = &self.parent.frontier;
        Checkpoint { origin: self.origin.clone(), size: frontier.size(), root: frontier.root() }
    }

    fn flood(&mut self, lie: Lie) -> anyhow::Result<()> {
        let height = self.parent.height;
        let before = self.outbox.len();
        match lie {
            Lie::OtherTurns => self.other_turns()?,
            Lie::BrokenStreams => self.broken_streams(),
            Lie::Wakes => {
                for number in 0..FLOOD_MESSAGES {
                    let called = [height + 1, height + number, u64::MAX, 0][self.random.random_range(0..4)];
                    self.outbox.push(message(MESSAGE_WAKE, |writer| {
                        writer.u64(called);
                    }));
                }
            }
            Lie::OldCosignatures => {
                for _ in 0..FLOOD_MESSAGES {
                    let old = self.random.random_range(0..self.heard.len().max(1));
                    self.outbox.extend(self.heard.get(old).cloned());
                }
            }
            Lie::OtherLog => {
                let checkpoint = self.checkpoint();
                for origin in ["other.test/log", "", "sandbox.test/log/"] {
                    for root in [checkpoint.root, flipped(checkpoint.root)] {
                        let origin = origin.to_owned();
                        self.outbox.push(self.cosigned(&Checkpoint { origin, root, ..checkpoint.clone() }));
                    }
                }
            }
            Lie::ForgedCosignatures => {
                let notes: Vec<Note> = self.heard.iter().rev().take(8).filter_map(|note| heard_note(note)).collect();
                for note in notes {
                    let Ok(checkpoint) = Checkpoint::parse(&note.text) else { continue };
                    let text = Checkpoint { root: flipped(checkpoint.root), ..checkpoint }.text();
                    let forged = Note { text, signatures: note.signatures }.render();
                    self.outbox.push(message(MESSAGE_CHECKPOINT, |writer| {
                        writer.bytes(forged.as_bytes());
                    }));
                }
            }
            Lie::FutureSizes => {
                for _ in 0..FLOOD_MESSAGES {
                    let far = [1_000, 1 << 40, (1 << 63) - 1][self.random.random_range(0..3)];
                    let size = TreeSize(self.parent.frontier.size().0.saturating_add(far).min((1 << 63) - 1));
                    // The same root for the same size: it is no equivocation, only nonsense.
                    let root = sha3_256(&size.0.to_be_bytes());
                    self.outbox.push(self.cosigned(&Checkpoint { origin: self.origin.clone(), size, root }));
                }
            }
            Lie::JunkMessages => {
                for _ in 0..FLOOD_MESSAGES {
                    let len = [0, 1, 5, 1000, 64 << 10][self.random.random_range(0..5)];
                    let mut junk: Vec<u8> = (0..len).map(|_| self.random.random()).collect();
                    if let Some(first) = junk.first_mut() {
                        *first %= 4;
                    }
                    self.outbox.push(junk);
                    let mut torn = self.heard.back().cloned().unwrap_or_default();
                    torn.truncate(self.random.random_range(0..torn.len().max(1)));
                    self.outbox.push(torn);
                }
            }
            Lie::SecondRoot => {
                let checkpoint = self.checkpoint();
                self.outbox.push(self.cosigned(&checkpoint));
                self.outbox.push(self.cosigned(&Checkpoint { root: flipped(checkpoint.root), ..checkpoint }));
            }
            _ => {}
        }
        self.orders.sent.fetch_add((self.outbox.len() - before) as u64, Ordering::Relaxed);
        Ok(())
    }

    fn note_proposed(&self, lie: Lie, round: u32, value: Hash32, time: u64) {
        let (height, ahead_ms) = (self.height(), time.cast_signed() - now_ms().cast_signed());
        let is_sound = !Lie::PROPOSALS.contains(&lie) && lie != Lie::OtherTurns;
        locked(&self.orders.proposed).push(Proposed { lie, height, round, value, is_sound, ahead_ms });
    }

    /// A second sound proposal of the same round, streamed beside the first.
    fn second(&mut self, first: Hash32, slot: Slot) -> anyhow::Result<()> {
        let batch = Batch::default().encode();
        let executed = self.execute(&batch, self.next_time() + 1)?;
        let header = executed.header.clone();
        let value = header.hash();
        let bytes = Proposal { header, batch }.encode();
        locked(&self.orders.second).insert(first, value);
        self.stream_reversed(slot, &bytes);
        self.kept.insert(value, Kept { slot, bytes, executed: Some(executed) });
        Ok(())
    }
}

impl Application for Liar {
    fn height(&self) -> u64 {
        self.parent.height + 1
    }

    fn members(&self) -> Arc<MemberSet> {
        Arc::clone(&self.members)
    }

    fn signer(&self) -> Arc<dyn VoteSigner> {
        Arc::clone(&self.signer) as Arc<dyn VoteSigner>
    }

    fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.orders.changed)
    }

    fn is_stopping(&self) -> bool {
        self.orders.stopping.load(Ordering::Relaxed)
    }

    fn may_vote(&self) -> bool {
        true
    }

    fn wants_block(&self) -> bool {
        true
    }

    fn propose(&mut self, round: u32, proposer: [u8; 20]) -> Result<(Judged, Vec<u8>), Failure> {
        let lie = self.orders.current();
        let (header, batch) = self.forge(lie)?;
        let valid_round = (lie == Lie::TimeAheadLocked).then(|| round.saturating_sub(1));
        let slot = Slot { height: self.height(), round, valid_round, proposer };
        let (value, time) = (header.hash(), header.time);
        let executed = self.execute(&batch, time).ok().filter(|executed| executed.header == header);
        let bytes = Proposal { header, batch }.encode();
        // In its own turn a member that steals others' is honest.
        self.note_proposed(if lie == Lie::OtherTurns { Lie::None } else { lie }, round, value, time);
        let double = locked(&self.orders.misbehaviour).as_ref().is_some_and(|wrong| wrong.second_proposal.is_some());
        if double {
            self.second(value, slot)?;
        }
        let streamed = match lie {
            Lie::Junk => (0..200_000).map(|_| self.random.random()).collect(),
            Lie::NoParts => Vec::new(),
            Lie::ReversedParts => {
                self.stream_reversed(slot, &bytes);
                Vec::new()
            }
            _ => bytes.clone(),
        };
        self.kept.insert(value, Kept { slot, bytes, executed });
        Ok((Judged { slot, value, valid: true }, streamed))
    }

    fn judge(&mut self, slot: Slot, bytes: &[u8], _fresh: bool) -> Result<Option<Judged>, Failure> {
        let Ok(proposal) = Proposal::decode(bytes) else { return Ok(None) };
        if slot.height != self.height() {
            return Ok(None);
        }
        let (header, value) = (&proposal.header, proposal.header.hash());
        let executed = self.execute(&proposal.batch, header.time).ok().filter(|executed| executed.header == *header);
        let valid = executed.is_some();
        if self.orders.current() == Lie::OtherTurns {
            // The others' headers, with a batch that they do not name.
            let other = self.invented(crate::members::TENANT);
            let batch = Batch { submissions: vec![self.signed(vec![other])] }.encode();
            let poisoned = Proposal { header: proposal.header.clone(), batch }.encode();
            self.stream_reversed(slot, &poisoned);
        }
        if valid {
            self.kept.insert(value, Kept { slot, bytes: bytes.to_vec(), executed });
        }
        Ok(Some(Judged { slot, value, valid }))
    }

    fn kept(&mut self, round: u32) -> Result<Vec<Judged>, Failure> {
        let of_round = self.kept.iter().filter(|(_, kept)| kept.slot.round == round && kept.executed.is_some());
        Ok(of_round.map(|(value, kept)| Judged { slot: kept.slot, value: *value, valid: true }).collect())
    }

    fn proposal(&self, value: &Hash32) -> Option<Vec<u8>> {
        self.kept.get(value).map(|kept| kept.bytes.clone())
    }

    fn take_block(&mut self, _: Proposal, _: Certificate) -> Result<bool, Failure> {
        Err("a liar does not follow".into())
    }

    fn decide(&mut self, certificate: Certificate) -> Result<(), Failure> {
        if certificate.height < self.height() {
            return Ok(());
        }
        let Some(kept) = self.kept.remove(&certificate.value) else {
            return Err("decided on what this member has not seen".into());
        };
        let executed = kept.executed.ok_or("a lie was decided")?;
        let header = executed.header;
        self.parent =
            Parent { height: header.height, time: header.time, hash: header.hash(), frontier: executed.frontier };
        if !executed.entries.is_empty() {
            // For every size that an honest member may sign: a quorum can count on it.
            self.outbox.push(self.cosigned(&self.checkpoint()));
        }
        apply_changes(&mut self.state, executed.changes);
        self.members = Arc::new(members(&self.state)?);
        self.decided.push((kept.bytes, certificate));
        self.kept.clear();
        self.orders.height.store(self.height(), Ordering::Relaxed);
        Ok(())
    }

    fn decided(&self, height: u64) -> Result<Option<(Vec<u8>, Certificate)>, Failure> {
        Ok(height.checked_sub(1).and_then(|at| self.decided.get(usize::try_from(at).ok()?)).cloned())
    }

    fn wake(&self) -> Vec<u8> {
        message(MESSAGE_WAKE, |writer| {
            writer.u64(self.height());
        })
    }

    fn message(&mut self, bytes: &[u8]) -> Result<Heard, Failure> {
        let mut reader = Reader::new(bytes);
        match reader.u8() {
            Ok(MESSAGE_CHECKPOINT) => {
                self.heard.push_back(bytes.to_vec());
                if self.heard.len() > 300 {
                    self.heard.pop_front();
                }
                Ok(Heard::Nothing)
            }
            Ok(MESSAGE_WAKE) => Ok(reader.u64().map_or(Heard::Nothing, Heard::Wake)),
            _ => Ok(Heard::Nothing),
        }
    }

    fn tick(&mut self, now: Duration) -> Result<Option<Duration>, Failure> {
        let lie = self.orders.current();
        let floods = Lie::FLOODS.contains(&lie) || lie == Lie::SecondRoot;
        // A new engine counts from zero.
        if floods && (now >= self.flooded + FLOOD_INTERVAL || now < self.flooded) {
            self.flooded = now;
            self.flood(lie)?;
        }
        Ok(floods.then(|| self.flooded + FLOOD_INTERVAL))
    }

    fn outbox(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.outbox)
    }

    fn equivocation(&mut self, _found: &Equivocation) -> Result<(), Failure> {
        Ok(())
    }

    fn misbehaviour(&self) -> Option<Misbehaviour> {
        locked(&self.orders.misbehaviour).clone()
    }

    fn forged_parts(&mut self) -> Vec<ForgedPart> {
        std::mem::take(&mut self.forged)
    }
}
