//! One run: nodes, network, clocks, clients and faults, all of it from one seed and on one thread.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    hash::{DefaultHasher, Hash as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use chopmark_consensus::{Application as _, Failure, NetworkConfig};
use ledger_core::{
    Hash32,
    codec::Reader,
    equivocation::{Equivocation, EquivocationKind, SignedMessage},
    genesis::{Genesis, Network},
    note::Note,
    operation::V1,
    policy::Policy,
    vote::{VoteType, address, vote_message},
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::sync::watch;

use super::{
    byzantine::Liar,
    checker::{Checker, Fault},
    clients::{Asked, Pending},
    damage::{Damaging, Wounds},
    disk::{self, Crash, Image},
    engine::{Effect, Engine, Message, Timeout, Vote, Wal},
    faults::FaultKind,
    profile::{Profile, domain, keys, member_set, public},
};
use crate::{
    NodeConfig, NodeError, derive,
    derived::Applied,
    guard::{Guard, Promise, Step},
    init,
    ledger::Ledger,
    open::Opened,
    repair::Repair,
};

const ORIGIN: &str = "sandbox.test/log";
/// Unix milliseconds at which every run begins.
const EPOCH_MS: u64 = 1_790_000_001_000;
/// Room of a pool: some seeds fill it.
const POOL_BYTES: usize = 256 << 10;
/// Clocks that are further off than this count as wrong.
const CLOCK_OFF_MS: u64 = 300;
pub(super) const STATUS_EVERY: u64 = 1_000_000;
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
        self.amended += other.amended;
        self.trace ^= other.trace;
    }
}

pub(super) enum Event {
    Deliver(usize, usize, Message),
    Timeout(usize, u32, Timeout),
    Wake(usize, u32),
    Status,
    Client,
    Fault(FaultKind),
    Restart(usize),
    /// A node's repair is due.
    Repair(usize, u32),
    /// Somebody reads at a node.
    Read,
    End,
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

pub(super) struct Running {
    pub(super) ledger: Ledger,
    pub(super) applied: Applied,
    pub(super) engine: Engine,
    pub(super) repair: Repair,
    pub(super) seen: u64,
}

pub(super) struct Node {
    pub(super) place: PathBuf,
    pub(super) clock: Arc<AtomicU64>,
    pub(super) offset_ms: i64,
    pub(super) incarnation: u32,
    pub(super) running: Option<Running>,
    pub(super) image: Image,
    pub(super) wal: Wal,
    pub(super) asked: Vec<Asked>,
    pub(super) wake_at: u64,
    /// An older copy of the data, to be restored at some restart.
    pub(super) copy: Option<(Image, Wal)>,
    /// Whether its data were ever an older copy.
    pub(super) restored: bool,
    /// Whether a loss of power ever took a signature that the guard knows out of the engine's log.
    pub(super) forgot: bool,
    pub(super) short_certificate: bool,
    pub(super) liar: Option<Liar>,
    pub(super) wounds: Wounds,
}

pub(super) struct World {
    pub(super) random: ChaCha8Rng,
    pub(super) profile: Profile,
    pub(super) damaging: Damaging,
    pub(super) now: u64,
    queue: BinaryHeap<Reverse<Queued>>,
    pub(super) number: u64,
    pub(super) nodes: Vec<Node>,
    /// Which of the nodes reach each other.
    pub(super) group: Vec<u32>,
    pub(super) calm: bool,
    pub(super) genesis: Genesis,
    pub(super) checker: Checker,
    pub(super) pending: BTreeMap<Hash32, Pending>,
    pub(super) operations: Vec<Hash32>,
    pub(super) evidence: Vec<Hash32>,
    pub(super) case: Option<Hash32>,
    pub(super) submissions: usize,
    pub(super) trace: DefaultHasher,
    pub(super) tally: Tally,
    _folder: tempfile::TempDir,
}

/// One run of a seed.
///
/// `damaged`: something is damaged whatever the seed says.
pub(crate) fn run(seed: u64, damaged: bool) -> Result<Tally, Fault> {
    let mut world = World::new(seed, damaged).map_err(|error| format!("setting up: {error}"))?;
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
    fn new(seed: u64, damaged: bool) -> Result<Self, NodeError> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut profile = Profile::draw(&mut random);
        let damaging = Damaging::draw(seed, damaged, &mut profile);
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
                wounds: Wounds::default(),
            });
        }
        let mut world = Self {
            checker: Checker::new(genesis.clone(), profile.nodes),
            group: vec![0; profile.nodes],
            random,
            profile,
            damaging,
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

    pub(super) fn schedule(&mut self, at: u64, event: Event) {
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
                Event::Repair(node, incarnation) => self.repair(node, incarnation)?,
                Event::Read => self.read()?,
                Event::Fault(fault) => self.fault(fault)?,
                Event::End => {
                    calm_since = Some(self.now);
                    self.calm_down();
                }
            }
            self.notice();
            let late = calm_since.is_some_and(|since| self.now > since + RECOVERY_MAX);
            if late || self.tally.messages > MESSAGES_MAX {
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

    /// What a node's clock shows now.
    pub(super) fn clock_ms(&mut self, node: usize) -> u64 {
        let offset = self.nodes[node].offset_ms;
        let clock = (EPOCH_MS + self.now / 1000).saturating_add_signed(offset);
        if offset.unsigned_abs() <= CLOCK_OFF_MS {
            self.checker.latest_ms = self.checker.latest_ms.max(clock);
        }
        clock
    }

    pub(super) fn is_honest(&self, node: usize) -> bool {
        self.profile.liar != Some(node)
    }

    /// Lets something happen at a node that runs, and looks at everything that comes of it.
    pub(super) fn on_node(
        &mut self,
        at: usize,
        what: u8,
        body: impl FnOnce(&mut Running, u64, &mut Vec<Effect>) -> Result<(), Failure>,
    ) -> Result<(), Fault> {
        let clock = self.clock_ms(at);
        let Some(mut running) = self.nodes[at].running.take() else { return Ok(()) };
        self.nodes[at].clock.store(clock, Ordering::Relaxed);
        (self.now, at, what, running.ledger.parent().height).hash(&mut self.trace);
        let (mut out, signed) = (Vec::new(), running.ledger.signed());
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
        if running.ledger.signed() > signed && self.is_honest(at) {
            self.may_have_signed(at, &running)?;
        }
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
    pub(super) fn failed(&mut self, at: usize, failure: Failure) -> Result<(), Fault> {
        // Its clock went back behind a checkpoint that it signed: it asks to have it set right.
        let earlier = failure.to_string().contains("set the clock right");
        if !self.is_honest(at) || (earlier && !self.calm) {
            return self.crash(at, Crash::Killed);
        }
        Err(format!("node {at} stopped: {failure}"))
    }

    pub(super) fn promise(&self, at: usize) -> Promise {
        let durable = disk::durable(&self.nodes[at].place.join("guard")).unwrap_or_default();
        Guard::read(&durable).map_or_else(|| Promise::none(self.genesis.chain_id()), |(_, promise)| promise)
    }

    /// Checks what a call did, and sends what it wants to send.
    pub(super) fn settle(
        &mut self,
        at: usize,
        running: &mut Running,
        out: Vec<Effect>,
        finished: bool,
    ) -> Result<(), Fault> {
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
                    let whole = running.ledger.shared.damage.allows_signing();
                    let may_sign = sealed.member && finished && !self.nodes[at].restored && whole;
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

    pub(super) fn open(&mut self, at: usize, image: &Image) -> Result<Running, NodeError> {
        let (clock_ms, peer_tiles) = (self.clock_ms(at), self.peers_of(at));
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
            stop: watch::Sender::new(false).subscribe(),
            peer_tiles,
        })?;
        let applied = opened.applied;
        let ledger = opened.ledger()?;
        let engine = Engine::new(&ledger, node.wal.clone(), self.now);
        Ok(Running { ledger, applied, engine, repair: Repair::new(), seen: 0 })
    }
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
