//! One run: nodes, network, clocks, clients and faults, all of it from one seed and on one thread.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use chopmark_consensus::{Application as _, Failure, NetworkConfig};
use ed25519_dalek::Signer as _;
use ledger_core::{
    Hash32, SigningKey,
    batch::Submission,
    codec::Reader,
    digests::{Algorithm, Digests},
    equivocation::{Equivocation, EquivocationKind, SignedMessage},
    genesis::{Genesis, Network},
    hash::sha3_256,
    member::{Member, MemberSet, faults_tolerated},
    merkle::LeafIndex,
    note::Note,
    operation::{
        CaseAppend, CaseOpen, Evidence, MembersSet, Operation, OperationSignature, OperationType, SignedOperation,
        TenantSet, TenantStatus, V1, approval_message,
    },
    policy::Policy,
    verify::{Verdict, verify},
    vote::{Certificate, VoteType, address, precommit, vote_message},
};
use rand::{RngExt as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use tokio::sync::{oneshot, watch};

use super::{
    byzantine::Liar,
    checker::{Checker, Fault},
    disk::{self, Crash, Image},
    engine::{Effect, Engine, Message, Timeout, Vote, Wal},
};
use crate::{
    NodeConfig, NodeError, NodeHandle, Submitted, derive,
    derived::Applied,
    guard::{Guard, Promise, Step},
    init,
    keys::{NodeKeys, SigningKeys},
    ledger::Ledger,
    open::Opened,
};

const ORIGIN: &str = "sandbox.test/log";
const TENANT: &str = "ten_sim";
/// Unix milliseconds at which every run begins.
const EPOCH_MS: u64 = 1_790_000_001_000;
const MEMBERS_MAX: usize = 5;
/// Room of a pool: some seeds fill it.
const POOL_BYTES: usize = 256 << 10;
/// Clocks that are further off than this count as wrong.
const CLOCK_OFF_MS: u64 = 300;
const STATUS_EVERY: u64 = 1_000_000;
const CLIENT_EVERY: u64 = 120_000;
/// A submission without an answer is tried elsewhere after this.
const PATIENCE: u64 = 1_500_000;
/// From the end of all faults, everything has to be decided and published within this.
const RECOVERY_MAX: u64 = 45_000_000;

/// A run with more messages than this gets nowhere.
const MESSAGES_MAX: u64 = 20_000;

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) heights: u64,
    pub(crate) operations: usize,
    pub(crate) crashes: u64,
    pub(crate) messages: u64,
    /// Whether it ended because too many members had to keep silent at one height.
    pub(crate) halts: u64,
    /// Votes that a guard signed otherwise than its engine asked for.
    pub(crate) amended: u64,
    /// Of every event in its order: two runs of one seed are the same run.
    pub(crate) trace: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.heights += other.heights;
        self.operations += other.operations;
        self.crashes += other.crashes;
        self.messages += other.messages;
        self.halts += other.halts;
        self.amended += other.amended;
        self.trace ^= other.trace;
    }
}

struct Keys {
    node: NodeKeys,
    governance: SigningKey,
    submitter: SigningKey,
}

fn keys(member: usize) -> &'static Keys {
    static KEYS: OnceLock<Vec<Keys>> = OnceLock::new();
    let of = |member: u8| {
        let key = |which: u8| SigningKey::from_bytes(&sha3_256(&[b's', member, which]).0);
        Keys {
            node: NodeKeys::in_memory(SigningKeys { log: key(0), cosigner: key(1), validator: key(2) }, key(3), key(4)),
            governance: key(5),
            submitter: key(6),
        }
    };
    &KEYS.get_or_init(|| (0..u8::try_from(MEMBERS_MAX).unwrap()).map(of).collect())[member]
}

fn domain(member: usize) -> String {
    format!("member{member}.test")
}

fn public(key: &SigningKey) -> Hash32 {
    Hash32(key.verifying_key().to_bytes())
}

fn member_set(members: &BTreeSet<usize>) -> MemberSet {
    let member = |at: &usize| {
        let keys = keys(*at);
        Member {
            cosigner_key: public(&keys.node.newest().cosigner),
            domain: domain(*at),
            governance_key: public(&keys.governance),
            log_key: public(&keys.node.newest().log),
            submitter_keys: vec![public(&keys.submitter)],
            validator_key: public(&keys.node.newest().validator),
        }
    };
    MemberSet::new(members.iter().map(member).collect()).unwrap()
}

/// What kind of world a seed is.
struct Profile {
    nodes: usize,
    members: usize,
    delay: (u64, u64),
    loss: f64,
    double: f64,
    /// Chance that index and tiles are brought up to date after an event.
    derive: f64,
    submissions: usize,
    /// Operations of one submission that fills tiles.
    large: usize,
    faults: usize,
    liar: Option<usize>,
    older_copies: bool,
    changes_members: bool,
    /// Whose engine's log is lost at every crash; it crashes where it has just locked, too.
    forgetful: Option<usize>,
}

impl Profile {
    fn draw(random: &mut ChaCha8Rng) -> Self {
        let members = [1, 1, 2, 3, 4, 4, 4, 4, 4, 5][random.random_range(0..10)];
        let changes_members = members > 1 && random.random_bool(0.2);
        let nodes = MEMBERS_MAX.min(members + usize::from(changes_members));
        let liar = (faults_tolerated(members) > 0 && !changes_members && random.random_bool(0.35))
            .then(|| random.random_range(0..members));
        let slow = [2_000, 20_000, 100_000][random.random_range(0..3)];
        let rough = random.random_bool(0.5);
        let older_copies = liar.is_none() && !changes_members && random.random_bool(0.5);
        let forgetful = (faults_tolerated(members) > 0 && liar.is_none() && !changes_members && !older_copies)
            .then(|| random.random_range(0..members));
        Self {
            nodes,
            members,
            delay: (500, slow),
            loss: if rough { random.random_range(0.0..0.15) } else { 0.0 }
                + if forgetful.is_some() { 0.2 } else { 0.0 },
            double: if rough { random.random_range(0.0..0.1) } else { 0.0 },
            derive: [0.02, 0.2, 1.0][random.random_range(0..3)],
            submissions: random.random_range(3..7),
            large: if random.random_bool(0.06) { random.random_range(256..300) } else { 0 },
            faults: random.random_range(1..10),
            liar,
            older_copies,
            changes_members,
            forgetful,
        }
    }
}

enum Event {
    Deliver(usize, usize, Message),
    Timeout(usize, u32, Timeout),
    Wake(usize, u32),
    Status,
    Client,
    Fault(FaultKind),
    Restart(usize),
    End,
}

#[derive(Debug, Clone, Copy)]
enum FaultKind {
    Crash(usize, Crash, Option<u32>),
    CrashAll(Crash),
    Split(u32),
    Join,
    Clock(usize, i64),
    /// The engine brings a decision that too few have signed.
    ShortCertificate(usize),
}

struct Queued {
    at: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

struct Running {
    ledger: Ledger,
    applied: Applied,
    engine: Engine,
    seen: u64,
}

struct Asked {
    ops: Vec<Hash32>,
    outcome: oneshot::Receiver<Vec<Submitted>>,
}

struct Node {
    place: PathBuf,
    clock: Arc<AtomicU64>,
    offset_ms: i64,
    incarnation: u32,
    running: Option<Running>,
    image: Image,
    wal: Wal,
    asked: Vec<Asked>,
    wake_at: u64,
    /// An older copy of the data, to be restored at some restart.
    copy: Option<(Image, Wal)>,
    /// Whether its data were ever an older copy.
    restored: bool,
    /// Whether a loss of power ever took a signature that the guard knows out of the engine's log.
    forgot: bool,
    short_certificate: bool,
    liar: Option<Liar>,
}

struct Pending {
    signed: SignedOperation,
    /// When it was submitted last.
    tried: Option<u64>,
}

pub(crate) struct World {
    random: ChaCha8Rng,
    profile: Profile,
    now: u64,
    queue: BinaryHeap<Reverse<Queued>>,
    number: u64,
    nodes: Vec<Node>,
    /// Which of the nodes reach each other.
    group: Vec<u32>,
    calm: bool,
    genesis: Genesis,
    checker: Checker,
    pending: BTreeMap<Hash32, Pending>,
    operations: Vec<Hash32>,
    evidence: Vec<Hash32>,
    case: Option<Hash32>,
    submissions: usize,
    trace: DefaultHasher,
    tally: Tally,
    _folder: tempfile::TempDir,
}

/// One run of a seed.
pub(crate) fn run(seed: u64) -> Result<Tally, Fault> {
    let mut world = World::new(seed).map_err(|error| format!("setting up: {error}"))?;
    let result = world.run();
    for node in &world.nodes {
        disk::forget(&node.place);
    }
    result.map(|()| world.tally).map_err(|fault| format!("at {} ms: {fault}", world.now / 1000))
}

fn temporary() -> std::io::Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }
}

impl World {
    fn new(seed: u64) -> Result<Self, NodeError> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let profile = Profile::draw(&mut random);
        let folder = temporary().map_err(NodeError::io("create folder", "temporary"))?;
        let genesis = Genesis {
            members: member_set(&(0..profile.members).collect()),
            network: Network::Sandbox,
            origin: ORIGIN.to_owned(),
            policy: Policy::default(),
            time: EPOCH_MS - 1000,
            v: V1,
        };
        let mut nodes = Vec::new();
        for at in 0..profile.nodes {
            let place = folder.path().join(domain(at));
            std::fs::create_dir_all(&place).map_err(NodeError::io("create folder", &place))?;
            init(&place.join("data"), &place.join("guard"), &genesis)?;
            disk::take(&place, BTreeMap::new(), random.random()).map_err(NodeError::io("take", &place))?;
            let image = disk::crash(&place, Crash::Killed).map_err(NodeError::io("read", &place))?;
            nodes.push(Node {
                place,
                clock: Arc::new(AtomicU64::new(EPOCH_MS)),
                offset_ms: 0,
                incarnation: 0,
                running: None,
                image,
                wal: Wal::default(),
                asked: Vec::new(),
                wake_at: 0,
                copy: None,
                restored: false,
                forgot: false,
                short_certificate: false,
                liar: (profile.liar == Some(at)).then(Liar::default),
            });
        }
        let mut world = Self {
            checker: Checker::new(genesis.clone(), profile.nodes),
            group: vec![0; profile.nodes],
            random,
            profile,
            now: 0,
            queue: BinaryHeap::new(),
            number: 0,
            nodes,
            calm: false,
            genesis,
            pending: BTreeMap::new(),
            operations: Vec::new(),
            evidence: Vec::new(),
            case: None,
            submissions: 0,
            trace: DefaultHasher::new(),
            tally: Tally::default(),
            _folder: folder,
        };
        world.plan();
        Ok(world)
    }

    fn plan(&mut self) {
        for node in 0..self.nodes.len() {
            let at = self.random.random_range(0..50_000);
            self.schedule(at, Event::Restart(node));
        }
        self.schedule(STATUS_EVERY, Event::Status);
        self.schedule(60_000, Event::Client);
        let end = self.random.random_range(1_000_000..4_000_000);
        let mut skewed: Vec<usize> = (0..self.profile.members).collect();
        skewed.shuffle(&mut self.random);
        // As many clocks are off as members may fail.
        let liars = usize::from(self.profile.liar.is_some());
        skewed.truncate(faults_tolerated(self.profile.members).saturating_sub(liars));
        for _ in 0..self.profile.faults {
            let at = self.random.random_range(50_000..end);
            let node = self.random.random_range(0..self.nodes.len());
            let crash = if self.random.random_bool(0.7) { Crash::PowerLost } else { Crash::Killed };
            let kind = match self.random.random_range(0..12) {
                0..=5 => {
                    let fuse = self.random.random_bool(0.8).then(|| self.random.random_range(0..24));
                    FaultKind::Crash(node, crash, fuse)
                }
                6 => FaultKind::CrashAll(crash),
                7 | 8 => {
                    let joined = at + self.random.random_range(100_000..1_500_000);
                    self.schedule(joined, Event::Fault(FaultKind::Join));
                    FaultKind::Split(self.random.random_range(1..(1 << self.nodes.len())))
                }
                9 | 10 => match skewed.last() {
                    Some(node) => FaultKind::Clock(*node, self.random.random_range(-20_000..20_000)),
                    None => FaultKind::Clock(node, self.random.random_range(-300..300)),
                },
                _ => FaultKind::ShortCertificate(node),
            };
            self.schedule(at, Event::Fault(kind));
        }
        self.schedule(end, Event::End);
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.number += 1;
        self.queue.push(Reverse(Queued { at, number: self.number, event }));
    }

    fn run(&mut self) -> Result<(), Fault> {
        let mut calm_since = None;
        loop {
            let Some(Reverse(Queued { at, event, .. })) = self.queue.pop() else {
                return Err("nothing happens".into());
            };
            self.now = at;
            match event {
                Event::Deliver(to, from, message) => {
                    self.tally.messages += 1;
                    self.on_node(to, 1, |running, now, out| {
                        running.engine.message(&mut running.ledger, from, message, now, out)
                    })?;
                }
                Event::Timeout(node, incarnation, over) if self.nodes[node].incarnation == incarnation => {
                    self.on_node(node, 2, |running, now, out| {
                        running.engine.timeout(&mut running.ledger, over, now, out)
                    })?;
                }
                Event::Wake(node, incarnation) if self.nodes[node].incarnation == incarnation => {
                    self.on_node(node, 3, |_, _, _| Ok(()))?;
                }
                Event::Timeout(..) | Event::Wake(..) => {}
                Event::Status => {
                    if calm_since.is_some() && self.has_converged() {
                        return self.end();
                    }
                    for node in 0..self.nodes.len() {
                        self.on_node(node, 4, |running, _, out| {
                            out.push(Effect::Broadcast(Message::Status(running.ledger.parent().height)));
                            Ok(())
                        })?;
                    }
                    self.schedule(self.now + STATUS_EVERY, Event::Status);
                }
                Event::Client => self.client()?,
                Event::Restart(node) => self.restart(node)?,
                Event::Fault(fault) => self.fault(fault)?,
                Event::End => {
                    calm_since = Some(self.now);
                    self.calm_down();
                }
            }
            let late = calm_since.is_some_and(|since| self.now > since + RECOVERY_MAX);
            if late || self.tally.messages > MESSAGES_MAX {
                if self.is_halted() {
                    self.tally.halts = 1;
                    return Ok(());
                }
                return Err(format!("no recovery: {}", self.standing()));
            }
        }
    }

    /// Faults end: whoever is down starts, and everybody reaches everybody.
    fn calm_down(&mut self) {
        self.calm = true;
        self.group.fill(0);
        for at in 0..self.nodes.len() {
            let node = &mut self.nodes[at];
            node.offset_ms = 0;
            node.short_certificate = false;
            node.liar = None;
            disk::put_out(&node.place);
            self.schedule(self.now + 1, Event::Restart(at));
        }
    }

    /// Whether too few members may vote at a height that nobody has decided.
    ///
    /// A node whose guard remembers a signature that the engine's log has lost keeps silent until
    /// others have decided the height: it may have been locked there. Where more members than may
    /// fail lost power in just that moment, only a human can say who votes again.
    fn is_halted(&self) -> bool {
        let silent = |node: &&Node| {
            let follows = node.running.as_ref().is_some_and(|running| !running.engine.votes());
            follows && (node.forgot || node.restored)
        };
        let members = self.nodes.iter().enumerate().filter(|(at, _)| self.checker.is_member(&domain(*at)));
        let silent = members.map(|(_, node)| node).filter(silent).count();
        silent + usize::from(self.profile.liar.is_some()) > faults_tolerated(self.checker.members().len())
    }

    fn standing(&self) -> String {
        let of = |(at, node): (usize, &Node)| match &node.running {
            None => format!("{at} is down"),
            Some(running) => {
                let shared = &running.ledger.shared;
                let published = shared.published.load().as_ref().as_ref().map(|published| published.size.0);
                format!(
                    "{at}{} at height {}, size {} of which {published:?} published, {} bytes in its pool; {}\n",
                    if running.engine.votes() { "" } else { " follows" },
                    running.ledger.parent().height,
                    running.ledger.parent().frontier.size().0,
                    shared.pool.bytes(),
                    running.engine.standing()
                )
            }
        };
        let nodes: Vec<String> = self.nodes.iter().enumerate().map(of).collect();
        format!("{} operations without an answer; {}", self.pending.len(), nodes.join("; "))
    }

    /// What a node's clock shows now.
    fn clock_ms(&mut self, node: usize) -> u64 {
        let offset = self.nodes[node].offset_ms;
        let clock = (EPOCH_MS + self.now / 1000).saturating_add_signed(offset);
        if offset.unsigned_abs() <= CLOCK_OFF_MS {
            self.checker.latest_ms = self.checker.latest_ms.max(clock);
        }
        clock
    }

    fn is_honest(&self, node: usize) -> bool {
        self.profile.liar != Some(node)
    }

    /// Lets something happen at a node that runs, and looks at everything that comes of it.
    fn on_node(
        &mut self,
        at: usize,
        what: u8,
        body: impl FnOnce(&mut Running, u64, &mut Vec<Effect>) -> Result<(), Failure>,
    ) -> Result<(), Fault> {
        let clock = self.clock_ms(at);
        let Some(mut running) = self.nodes[at].running.take() else { return Ok(()) };
        self.nodes[at].clock.store(clock, Ordering::Relaxed);
        (self.now, at, what, running.ledger.parent().height).hash(&mut self.trace);
        let mut out = Vec::new();
        let derives = match self.random.random_bool(self.profile.derive) {
            _ if self.calm => usize::MAX,
            true => self.random.random_range(1..4),
            false => 0,
        };
        let step = || {
            body(&mut running, self.now, &mut out)?;
            derive::step(&running.ledger.shared, &mut running.applied, derives)?;
            running.engine.poll(&mut running.ledger, self.now, &mut out)
        };
        let result = step();
        let stopped = running.ledger.shared.failure();
        self.settle(at, &mut running, out, result.is_ok())?;
        self.nodes[at].running = Some(running);
        self.answers(at)?;
        match (result, stopped) {
            (_, _) if disk::has_crashed(&self.nodes[at].place) => self.crash(at, Crash::PowerLost),
            (Err(failure), _) => self.failed(at, failure),
            (_, Some(failure)) => Err(format!("node {at} stopped: {failure}")),
            (Ok(next), None) => {
                self.probe(at)?;
                let node = &mut self.nodes[at];
                if next < node.wake_at || node.wake_at <= self.now {
                    node.wake_at = next;
                    let incarnation = node.incarnation;
                    self.schedule(next, Event::Wake(at, incarnation));
                }
                Ok(())
            }
        }
    }

    /// A node stopped by itself.
    fn failed(&mut self, at: usize, failure: Failure) -> Result<(), Fault> {
        // Its clock went back behind a checkpoint that it signed: it asks to have it set right.
        let earlier = failure.to_string().contains("set the clock right");
        if !self.is_honest(at) || (earlier && !self.calm) {
            return self.crash(at, Crash::Killed);
        }
        Err(format!("node {at} stopped: {failure}"))
    }

    fn promise(&self, at: usize) -> Promise {
        let durable = disk::durable(&self.nodes[at].place.join("guard")).unwrap_or_default();
        Guard::read(&durable).map_or_else(|| Promise::none(self.genesis.chain_id()), |(_, promise)| promise)
    }

    /// Checks what a call did, and sends what it wants to send.
    fn settle(&mut self, at: usize, running: &mut Running, out: Vec<Effect>, finished: bool) -> Result<(), Fault> {
        let honest = self.is_honest(at);
        let promise = self.promise(at);
        if honest {
            let tip = running.ledger.parent().height;
            while running.seen < tip {
                let height = running.seen + 1;
                let block = running.ledger.decided(height).map_err(|error| error.to_string())?;
                let (bytes, certificate) = block.ok_or_else(|| format!("node {at} has no block {height}"))?;
                self.checker.decided(at, height, &bytes, &certificate)?;
                running.seen = height;
            }
            if let Some(published) = running.ledger.shared.published.load().as_ref() {
                self.checker.published(at, published)?;
                if let Some((size, root)) = own_part(&published.note, at) {
                    self.checker.cosigned(at, size, root, &promise)?;
                }
            }
        }
        for effect in out {
            match effect {
                Effect::Broadcast(message) => {
                    if honest
                        && let Message::Ledger(bytes) = &message
                        && let Some((size, root)) = own_signature(bytes, at)
                    {
                        self.checker.cosigned(at, size, root, &promise)?;
                    }
                    for to in (0..self.nodes.len()).filter(|to| *to != at) {
                        self.send(at, to, message.clone(), running);
                    }
                }
                Effect::Send(to, message) => self.send(at, to, message, running),
                Effect::Timeout(when, over) => {
                    let incarnation = self.nodes[at].incarnation;
                    self.schedule(when, Event::Timeout(at, incarnation, over));
                }
                Effect::Voted(vote, valid_round) if honest => {
                    self.checker.voted(at, &vote, valid_round, &promise)?;
                    let locks = vote.kind == VoteType::Precommit && vote.value.is_some();
                    if locks && self.profile.forgetful == Some(at) && !self.calm && self.random.random_bool(0.3) {
                        self.schedule(self.now + 1, Event::Fault(FaultKind::Crash(at, Crash::Killed, None)));
                    }
                }
                Effect::Amended(step) if honest => {
                    let node = &self.nodes[at];
                    if !node.restored && !node.forgot {
                        return Err(format!("node {at} wants another {step:?} than the one that its guard remembers"));
                    }
                    self.tally.amended += 1;
                }
                Effect::Signed(proposed) if honest => self.checker.proposed(at, &proposed, &promise)?,
                Effect::Decided(sealed) if honest => {
                    let may_sign = sealed.member && finished && !self.nodes[at].restored;
                    Checker::sealed(at, &sealed, may_sign)?;
                }
                Effect::Misjudged(height) if honest => {
                    return Err(format!("block {height} was decided and does not execute at node {at}"));
                }
                Effect::Contradiction(first, second) => self.contradiction(at, &first, &second, running)?,
                Effect::Refused(step) if honest && !disk::has_crashed(&self.nodes[at].place) => {
                    // Only what the engine's log has lost can be forgotten, and no proposal that is kept.
                    let kept = running.ledger.kept(promise.round).map_err(|error| error.to_string())?;
                    let kept = kept.iter().any(|kept| Some(Some(kept.value)) == promise.votes[Step::Proposal as usize]);
                    let node = &self.nodes[at];
                    if !node.restored && (!node.forgot || (step == Step::Proposal && kept)) {
                        return Err(format!("node {at} wants another {step:?} than the one that its guard remembers"));
                    }
                }
                Effect::Voted(..)
                | Effect::Amended(_)
                | Effect::Signed(_)
                | Effect::Decided(_)
                | Effect::Refused(_)
                | Effect::Misjudged(_) => {}
            }
        }
        Ok(())
    }

    fn contradiction(&mut self, at: usize, first: &Vote, second: &Vote, running: &mut Running) -> Result<(), Fault> {
        let of = |node: usize| address(&public(&keys(node).node.newest().validator));
        let by = (0..self.nodes.len()).find(|node| of(*node) == first.address).ok_or("a vote of nobody")?;
        if self.is_honest(by) {
            return Err(format!(
                "node {at} saw two votes of node {by} at height {} round {}",
                first.height, first.round
            ));
        }
        let chain = self.genesis.chain_id();
        let signed = |vote: &Vote| SignedMessage {
            message: hex::encode(vote_message(
                &chain,
                vote.kind,
                vote.height,
                vote.round,
                vote.value.as_ref(),
                &vote.address,
            )),
            signature: hex::encode(vote.signature),
        };
        let kept = running.ledger.equivocation(&Equivocation {
            first: signed(first),
            height: first.height,
            key: public(&keys(by).node.newest().validator),
            kind: EquivocationKind::Vote,
            member: domain(by),
            second: signed(second),
            v: V1,
        });
        if kept.is_err() && !disk::has_crashed(&self.nodes[at].place) {
            return Err(format!("node {at} could not keep an equivocation"));
        }
        Ok(())
    }

    fn send(&mut self, from: usize, to: usize, message: Message, running: &Running) {
        if self.group[from] != self.group[to] {
            return;
        }
        let messages = match &mut self.nodes[from].liar {
            Some(liar) => liar.instead(&message, &running.ledger, &keys(from).node, &domain(from), &mut self.random),
            None => vec![message],
        };
        for message in messages {
            let (least, most) = self.profile.delay;
            if !self.calm && self.random.random_bool(self.profile.loss) {
                continue;
            }
            let copies = if !self.calm && self.random.random_bool(self.profile.double) { 2 } else { 1 };
            for _ in 0..copies {
                let at = self.now + self.random.random_range(least..most);
                self.schedule(at, Event::Deliver(to, from, message.clone()));
            }
        }
    }

    /// An engine that brings a decision with too few signatures is not believed.
    fn probe(&mut self, at: usize) -> Result<(), Fault> {
        if !self.nodes[at].short_certificate || !self.is_honest(at) {
            return Ok(());
        }
        let Some(running) = &mut self.nodes[at].running else { return Ok(()) };
        let kept: Vec<_> = (0..3).filter_map(|round| running.ledger.kept(round).ok()?.pop()).collect();
        let Some(judged) = kept.last() else { return Ok(()) };
        let height = judged.slot.height;
        let signers = running.ledger.members().quorum() - 1;
        let chain = self.genesis.chain_id();
        let signatures: Vec<_> = (0..signers)
            .map(|node| &keys(node).node.newest().validator)
            .map(|key| (public(key), precommit(&chain, height, 0, &judged.value, key)))
            .collect();
        let certificate = Certificate::new(height, 0, judged.value, &signatures);
        if running.ledger.decide(certificate).is_ok() {
            return Err(format!("node {at} decided height {height} with {signers} signatures"));
        }
        self.crash(at, Crash::Killed)
    }

    /// Looks for answers to what was submitted at a node.
    fn answers(&mut self, at: usize) -> Result<(), Fault> {
        let promise = self.promise(at);
        let asked = std::mem::take(&mut self.nodes[at].asked);
        for mut asked in asked {
            match asked.outcome.try_recv() {
                Ok(outcomes) if self.is_honest(at) => {
                    if outcomes.len() != asked.ops.len() {
                        return Err(format!("{} outcomes for {} operations", outcomes.len(), asked.ops.len()));
                    }
                    for (op, ended) in asked.ops.iter().zip(outcomes) {
                        self.checker.told(op, ended.request, ended.result, &promise)?;
                        self.pending.remove(op);
                    }
                }
                Ok(_) | Err(oneshot::error::TryRecvError::Closed) => {}
                Err(oneshot::error::TryRecvError::Empty) => self.nodes[at].asked.push(asked),
            }
        }
        Ok(())
    }

    fn crash(&mut self, at: usize, crash: Crash) -> Result<(), Fault> {
        // Whoever was told before the crash was told.
        self.answers(at)?;
        let Some(running) = self.nodes[at].running.take() else { return Ok(()) };
        let node = &mut self.nodes[at];
        node.image = disk::crash(&node.place, crash).map_err(|error| error.to_string())?;
        let unsynced = running.engine.wal.unsynced();
        let more = if crash == Crash::Killed { unsynced } else { self.random.random_range(0..=unsynced) };
        node.wal = running.engine.wal.after_crash(more);
        let guard = node.image.files.get(Path::new("guard")).and_then(|bytes| Guard::read(bytes));
        if self.profile.forgetful == Some(at) && !self.calm {
            node.wal = Wal::default();
            node.forgot = true;
        }
        node.forgot |= guard.is_some_and(|(_, promise)| !node.wal.has_all_of(&promise, &running.engine.own()));
        drop(running);
        disk::forget(&node.place);
        node.asked.clear();
        node.incarnation += 1;
        node.short_certificate = false;
        self.tally.crashes += 1;
        let pause = if self.calm { 1_000_000 } else { self.random.random_range(10_000..800_000) };
        self.schedule(self.now + pause, Event::Restart(at));
        Ok(())
    }

    fn restart(&mut self, at: usize) -> Result<(), Fault> {
        if self.nodes[at].running.is_some() {
            return Ok(());
        }
        self.older_copy(at)?;
        if self.random.random_bool(0.05) {
            // Index and tiles are derived: moved away, they come back.
            self.nodes[at].image.index.clear();
            self.nodes[at].image.files.retain(|path, _| !path.starts_with("data/log"));
        }
        let image = self.nodes[at].image.clone();
        match self.open(at, &image) {
            Ok(mut running) => {
                let (promise, tip) = (self.promise(at), running.ledger.parent().height);
                if self.is_honest(at) {
                    self.checker.started(at, tip, &promise)?;
                    let highest = self.checker.height();
                    if tip > highest {
                        // Decided in the moment of the crash.
                        running.seen = highest;
                    } else {
                        running.seen = 0;
                    }
                }
                let mut out = Vec::new();
                let started = running.engine.start(&mut running.ledger, self.now, &mut out);
                self.settle(at, &mut running, out, started.is_ok())?;
                self.nodes[at].running = Some(running);
                self.nodes[at].wake_at = 0;
                match started {
                    Err(_) if disk::has_crashed(&self.nodes[at].place) => self.crash(at, Crash::PowerLost),
                    Err(failure) => self.failed(at, failure),
                    Ok(()) => self.on_node(at, 5, |_, _, _| Ok(())),
                }
            }
            Err(error) => {
                let earlier = error.to_string().contains("set the clock right");
                if disk::has_crashed(&self.nodes[at].place) {
                    let place = self.nodes[at].place.clone();
                    self.nodes[at].image = disk::crash(&place, Crash::PowerLost).map_err(|error| error.to_string())?;
                } else if !earlier && self.is_honest(at) {
                    return Err(format!("node {at} does not start: {error}"));
                }
                disk::forget(&self.nodes[at].place);
                self.schedule(self.now + 700_000, Event::Restart(at));
                Ok(())
            }
        }
    }

    fn open(&mut self, at: usize, image: &Image) -> Result<Running, NodeError> {
        let clock_ms = self.clock_ms(at);
        let node = &mut self.nodes[at];
        disk::start(&node.place, image, self.random.random()).map_err(NodeError::io("restore", &node.place))?;
        node.clock.store(clock_ms, Ordering::Relaxed);
        let clock = Arc::clone(&node.clock);
        let opened = Opened::open(NodeConfig {
            data: node.place.join("data"),
            guard: node.place.join("guard"),
            keys: keys(at).node.clone(),
            domain: domain(at),
            clock: Arc::new(move || clock.load(Ordering::Relaxed)),
            pool_bytes_max: POOL_BYTES,
            network: NetworkConfig { listen: ([127, 0, 0, 1], 0).into(), peers: Vec::new().into() },
            source: None,
            peer_tiles: Vec::new(),
            stop: watch::Sender::new(false).subscribe(),
        })?;
        let applied = opened.applied;
        let ledger = opened.ledger()?;
        let engine = Engine::new(&ledger, node.wal.clone(), self.now);
        Ok(Running { ledger, applied, engine, seen: 0 })
    }

    /// Takes a copy of a node's data now and then, and restores it later, with the newest guard.
    fn older_copy(&mut self, at: usize) -> Result<(), Fault> {
        // With more copies than members may fail, nobody would vote where they have voted.
        let others = self.nodes.iter().enumerate().any(|(other, node)| other != at && node.restored);
        let several = faults_tolerated(self.profile.members) > 0 && !others;
        if self.calm || !self.profile.older_copies || !(several || self.profile.members == 1) {
            return Ok(());
        }
        if several && self.random.random_bool(0.3) {
            // Nothing but the engine's log is lost.
            self.nodes[at].wal = Wal::default();
            self.nodes[at].restored = true;
            return Ok(());
        }
        match self.nodes[at].copy.take() {
            None => self.nodes[at].copy = Some((self.nodes[at].image.clone(), self.nodes[at].wal.clone())),
            Some((mut image, wal)) => {
                let guard = Path::new("guard");
                if let Some(newest) = self.nodes[at].image.files.get(guard) {
                    image.files.insert(guard.to_owned(), newest.clone());
                }
                if several {
                    (self.nodes[at].image, self.nodes[at].wal) = (image, wal);
                    self.nodes[at].restored = true;
                    self.checker.restored(at);
                } else {
                    self.refuses(at, &image)?;
                }
            }
        }
        Ok(())
    }

    /// Alone, nobody else has what an older copy lacks.
    fn refuses(&mut self, at: usize, image: &Image) -> Result<(), Fault> {
        let promise = image.files.get(Path::new("guard")).and_then(|bytes| Guard::read(bytes));
        let decided = promise.map_or(0, |(_, promise)| promise.decided);
        let opened = self.open(at, image);
        match opened {
            Ok(running) if running.ledger.parent().height < decided => {
                Err(format!("height {decided} was told of, and an older copy opened"))
            }
            Ok(_) | Err(_) => {
                disk::forget(&self.nodes[at].place);
                Ok(())
            }
        }
    }

    fn fault(&mut self, fault: FaultKind) -> Result<(), Fault> {
        if self.calm {
            return Ok(());
        }
        match fault {
            FaultKind::Crash(at, crash, Some(steps)) => {
                disk::light(&self.nodes[at].place, steps, crash);
                Ok(())
            }
            FaultKind::Crash(at, crash, None) => self.crash(at, crash),
            FaultKind::CrashAll(crash) => (0..self.nodes.len()).try_for_each(|at| self.crash(at, crash)),
            FaultKind::Split(mask) => {
                for (at, group) in self.group.iter_mut().enumerate() {
                    *group = (mask >> at) & 1;
                }
                Ok(())
            }
            FaultKind::Join => {
                self.group.fill(0);
                Ok(())
            }
            FaultKind::Clock(at, offset) => {
                self.nodes[at].offset_ms = offset;
                Ok(())
            }
            FaultKind::ShortCertificate(at) => {
                self.nodes[at].short_certificate = true;
                Ok(())
            }
        }
    }

    fn client(&mut self) -> Result<(), Fault> {
        if self.submissions < self.profile.submissions {
            self.submissions += 1;
            self.make_operations();
        }
        let impatient = |pending: &&mut Pending| pending.tried.is_none_or(|at| self.now > at + PATIENCE);
        let mut again = Vec::new();
        for pending in self.pending.values_mut().filter(impatient) {
            pending.tried = Some(self.now);
            again.push(pending.signed.clone());
        }
        // Some in a submission of their own, some together, in any order.
        while !again.is_empty() {
            let count = if again.len() > 64 { again.len() } else { self.random.random_range(1..=again.len()) };
            let signed: Vec<SignedOperation> = again.drain(..count).collect();
            self.submit(signed)?;
        }
        self.schedule(self.now + CLIENT_EVERY, Event::Client);
        Ok(())
    }

    fn submit(&mut self, signed: Vec<SignedOperation>) -> Result<(), Fault> {
        let submitter = &keys(0).submitter;
        let ops: Vec<Hash32> =
            signed.iter().map(|signed| Operation::parse(&signed.operation).unwrap().common().op).collect();
        let submission = Submission::sign(&self.genesis.chain_id(), submitter, signed);
        let mut nodes: Vec<usize> = (0..self.nodes.len()).filter(|at| self.nodes[*at].running.is_some()).collect();
        nodes.shuffle(&mut self.random);
        nodes.truncate(self.random.random_range(1..=self.nodes.len()));
        for at in nodes {
            let (submission, ops) = (submission.clone(), ops.clone());
            let mut asked = None;
            self.on_node(at, 6, |running, now, out| {
                asked = NodeHandle(Arc::clone(&running.ledger.shared)).enter(submission).ok();
                running.engine.changed(&mut running.ledger, now, out)
            })?;
            if let Some(outcome) = asked.filter(|_| self.nodes[at].running.is_some()) {
                self.nodes[at].asked.push(Asked { ops, outcome });
                self.answers(at)?;
            }
        }
        Ok(())
    }

    fn make_operations(&mut self) {
        let chain = self.genesis.chain_id();
        let mut made = Vec::new();
        let large = if self.submissions == 3 { self.profile.large } else { 0 };
        let count = if large > 0 { large } else { self.random.random_range(1..4) };
        for _ in 0..count {
            let number = (self.operations.len() + made.len()).to_be_bytes();
            let op = sha3_256(&[&b"op"[..], &number].concat());
            let request = sha3_256(&[&b"request"[..], &number].concat());
            let tenant = TENANT.to_owned();
            let first = self.operations.is_empty() && made.is_empty();
            let choice = if large > 0 { 0 } else { self.random.random_range(0..8) };
            let operation = match (choice, self.case, self.evidence.last().copied()) {
                _ if first => Operation::TenantSet(Box::new(TenantSet {
                    chain,
                    expires: 1_000_000,
                    key: None,
                    kind: OperationType::TenantSet,
                    op,
                    replaces: Hash32::ZERO,
                    request,
                    status: TenantStatus::Active,
                    tenant,
                    tier: 1,
                    v: V1,
                })),
                (0, None, _) if large == 0 => {
                    self.case = Some(op);
                    let (kind, private) = (OperationType::CaseOpen, None);
                    Operation::CaseOpen(Box::new(CaseOpen { chain, op, private, request, tenant, kind, v: V1 }))
                }
                (1..=4, Some(case), Some(evidence)) => {
                    self.evidence.pop();
                    let kind = OperationType::CaseAppend;
                    Operation::CaseAppend(Box::new(CaseAppend {
                        case,
                        chain,
                        evidence,
                        op,
                        request,
                        tenant,
                        kind,
                        v: V1,
                    }))
                }
                _ => {
                    if large == 0 {
                        self.evidence.push(op);
                    }
                    Operation::Evidence(Box::new(Evidence {
                        chain,
                        commitment: None,
                        digests: Some(content(&op)),
                        kind: OperationType::Evidence,
                        media_type: None,
                        op,
                        private: None,
                        request,
                        size: Some(32),
                        tenant,
                        v: V1,
                    }))
                }
            };
            made.push((op, SignedOperation::unsigned(operation.encode())));
        }
        if self.profile.changes_members && self.submissions > 2 && self.random.random_bool(0.5) {
            made.push(self.change_of_members(self.operations.len() + made.len()));
        }
        for (op, signed) in made {
            self.operations.push(op);
            self.pending.insert(op, Pending { signed, tried: None });
        }
    }

    /// Adds a member that is not there, or takes one away that is; never the one who submits.
    fn change_of_members(&mut self, number: usize) -> (Hash32, SignedOperation) {
        let chain = self.genesis.chain_id();
        let current = self.checker.members();
        let mut members: BTreeSet<usize> =
            (0..self.nodes.len()).filter(|at| current.iter().any(|member| member.domain == domain(*at))).collect();
        let other = self.random.random_range(1..self.nodes.len());
        if !members.remove(&other) {
            members.insert(other);
        }
        let op = sha3_256(&[&b"op"[..], &number.to_be_bytes()].concat());
        let operation = Operation::MembersSet(Box::new(MembersSet {
            chain,
            expires: 1_000_000,
            kind: OperationType::MembersSet,
            members: member_set(&members),
            op,
            replaces: current.hash(),
            request: sha3_256(&[&b"request"[..], &number.to_be_bytes()].concat()),
            v: V1,
        }))
        .encode();
        let message = approval_message(&chain, &operation);
        let approve = |at: usize| {
            let key = &keys(at).governance;
            OperationSignature { key: public(key), signature: key.sign(&message).to_bytes() }
        };
        let signatures = (0..self.nodes.len()).map(approve).collect();
        (op, SignedOperation { operation, signatures })
    }

    fn has_converged(&self) -> bool {
        let (height, size) = (self.checker.height(), self.checker.size());
        let is_up = |(at, node): (usize, &Node)| {
            let Some(running) = &node.running else { return false };
            let shared = &running.ledger.shared;
            let covered = shared
                .published
                .load()
                .as_ref()
                .as_ref()
                .is_some_and(|published| published.height == height && published.size == size);
            let member = self.checker.is_member(&domain(at));
            running.ledger.parent().height == height && shared.pool.is_empty() && (covered || !member)
        };
        self.pending.is_empty() && self.nodes.iter().enumerate().all(is_up)
    }

    /// Everything is decided and published; what was promised is still there after a restart.
    fn end(&mut self) -> Result<(), Fault> {
        for op in &self.operations {
            if self.checker.ended(op).is_none() {
                return Err(format!("{op} was answered and is not in the log"));
            }
        }
        for at in (0..self.nodes.len()).filter(|at| self.is_honest(*at)).collect::<Vec<_>>() {
            self.check_node(at)?;
        }
        let at = self.random.random_range(0..self.nodes.len());
        if self.is_honest(at) {
            let height = self.checker.height();
            let place = self.nodes[at].place.clone();
            self.nodes[at].running = None;
            let image = disk::crash(&place, Crash::PowerLost).map_err(|error| error.to_string())?;
            let running = self.open(at, &image).map_err(|error| format!("node {at} does not start again: {error}"))?;
            if running.ledger.parent().height != height {
                return Err(format!("node {at} has lost blocks at rest"));
            }
            self.nodes[at].running = Some(running);
            self.check_node(at)?;
        }
        self.tally.heights = self.checker.height();
        self.tally.operations = self.operations.len();
        self.tally.trace = self.trace.finish();
        Ok(())
    }

    fn check_node(&mut self, at: usize) -> Result<(), Fault> {
        let Some(running) = &self.nodes[at].running else { return Err(format!("node {at} is down")) };
        let handle = NodeHandle(Arc::clone(&running.ledger.shared));
        let failed = |error: NodeError| format!("reading at node {at}: {error}");
        if handle.pool_bytes() != 0 {
            return Err(format!("the empty pool of node {at} has {} bytes", handle.pool_bytes()));
        }
        for height in 1..=running.ledger.parent().height {
            let block = running.ledger.decided(height).map_err(|error| error.to_string())?;
            let (bytes, certificate) = block.ok_or_else(|| format!("node {at} has lost block {height}"))?;
            self.checker.decided(at, height, &bytes, &certificate)?;
        }
        if handle.policies() != *self.checker.policies() {
            return Err(format!("node {at} has another history of policies"));
        }
        let log = &running.ledger.shared.checkpoints;
        let mut notes = BTreeMap::new();
        for record in log.iter_from(0) {
            let record = record.map_err(|error| error.to_string())?;
            let record = crate::handle::CheckpointRecord::decode(&record.payload).map_err(|error| error.to_string())?;
            let signed = record.signed().map_err(failed)?;
            notes.entry(signed.checkpoint.size.0).or_insert_with(Vec::new).push(record.note);
        }
        for (size, note) in self.checker.publications(at) {
            if !notes.get(size).is_some_and(|notes| notes.contains(note)) {
                return Err(format!("node {at} has lost a checkpoint of size {size} that it published"));
            }
        }
        if !self.checker.is_member(&domain(at)) {
            return Ok(());
        }
        let policies = handle.policies();
        let size = self.checker.size().0;
        for index in [size - 1, self.random.random_range(0..size)].map(LeafIndex) {
            let receipt = handle.receipt(index).map_err(failed)?;
            let receipt = receipt.ok_or_else(|| format!("node {at} has no receipt for entry {}", index.0))?;
            let entry = handle.entry(index).map_err(failed)?.ok_or("no entry")?;
            let (_, policy) = policies.range(..=receipt.size.0).next_back().ok_or("no policy")?;
            let verdict = verify(None, &entry, receipt.receipt.render().as_bytes(), policy.as_bytes());
            if !matches!(verdict, Verdict::Valid(_)) {
                return Err(format!("receipt of entry {} by node {at}: {verdict}", index.0));
            }
        }
        if let Some(op) = self.operations.iter().rev().find(|op| self.evidence.contains(op))
            && let Some(Ok(index)) = self.checker.ended(op)
        {
            let digest = content(op).sha3_256.ok_or("no digest")?;
            let found = handle.find(Algorithm::Sha3_256, &digest, LeafIndex(0), 10).map_err(failed)?;
            if found.indexes != [LeafIndex(index)] {
                return Err(format!("node {at} finds {op} at {:?} instead of {index}", found.indexes));
            }
        }
        Ok(())
    }
}

fn content(op: &Hash32) -> Digests {
    Digests::of(&op.0)
}

/// Size and root of a checkpoint that carries a node's own cosignature.
fn own_part(note: &str, node: usize) -> Option<(u64, Hash32)> {
    Checker::of_note(&Note::parse(note).ok()?, &format!("{}/cosigner", domain(node)))
}

fn own_signature(message: &[u8], node: usize) -> Option<(u64, Hash32)> {
    let mut reader = Reader::new(message);
    let is_checkpoint = reader.u8().ok()? == 1;
    let note = reader.bytes(message.len()).ok().filter(|_| is_checkpoint)?;
    own_part(std::str::from_utf8(note).ok()?, node)
}
