//! Agreement by [Malachite](https://docs.rs/arc-malachitebft-app-channel), an engine of the
//! Tendermint family (arXiv:1807.04938), on networks of one member and of several alike.
//!
//! The engine runs on a runtime of its own; this thread answers its questions, one after the other,
//! and does nothing else. Values are header hashes; the batches travel as parts of a stream.

#[cfg(feature = "byzantine")]
mod byzantine;
mod codec;
mod context;
mod streams;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io::Read as _,
    net::SocketAddr,
    path::PathBuf,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use bytesize::ByteSize;
use ledger_core::{
    Hash32, SigningKey,
    equivocation::{Equivocation, EquivocationKind, SignedMessage},
    member::MemberSet,
    vote::{Certificate, address},
};
use malachite::{
    AppMsg, Channels, ConsensusContext, EngineBuilder, EngineHandle, NetworkContext, NetworkMsg, NetworkRequest, Reply,
    RequestContext, Signer as _, SyncContext, WalContext,
    app::{
        config::{ConsensusConfig, NodeConfig, PubSubProtocol, ValuePayload, ValueSyncConfig},
        net::Multiaddr,
        streaming::{StreamContent, StreamId, StreamMessage},
        types::{Keypair, PeerId, codec::Codec as _},
    },
};
use malachite_consensus::{MisbehaviorEvidence, ProposedValue};
use malachite_engine::{
    host::{LocallyProposedValue, Next, SyncedValueOutcome},
    network::{NetworkIdentity, PersistentPeerError, PersistentPeersOp},
};
use malachite_sync::RawDecidedValue;
use malachite_types::{
    CommitCertificate, ExtendedCommitCertificate, ExtendedCommitSignature, HeightParams, LinearTimeouts, Round,
    Validity,
};
use tokio::{
    runtime,
    sync::oneshot,
    time::{sleep_until, timeout},
};

use self::{
    codec::{PART_BYTES, Wire},
    context::{Address, Checker, Engine, GuardedSigner, Height, Part, Signature, ValidRounds, Validators, Value},
    streams::Streams,
};
use crate::{
    Application, Consensus, EngineError, Failure, Heard, Judged, PROPOSAL_BYTES_MAX, Peer, Peers, STARTED, Slot,
    proposer,
};

/// A block at least this often, so that a node that lost a wake-up follows, and a dead network is
/// seen. Empty blocks do not grow the log of entries.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// While nothing is decided and there is something to decide on, peers are told again this often.
const WAKE_INTERVAL: Duration = Duration::from_millis(300);
/// While this node has nothing to decide on, others do not make it start a height sooner than this
/// after the last one: a peer that calls all the time must not make blocks without end.
const CALLED_INTERVAL: Duration = Duration::from_millis(250);
/// Peers are told this often that this node is there, and looked after: an empty message each.
const CONTACT_INTERVAL: Duration = Duration::from_secs(2);
/// A connected peer of which nothing came between so many looks is met anew. Looks are counted, and not
/// seconds: whoever was busy itself for long has messages waiting.
const SILENT_LOOKS: u32 = 5;
/// Rounds ahead of the one under way for which proposals are taken.
const ROUNDS_AHEAD: u32 = 10;
/// Whole proposals taken for one round: as many as the engine keeps of an equivocating proposer.
const PROPOSALS_OF_ROUND_MAX: usize = 2;
/// Proposals of the height after the next one, which came early.
const EARLY_MAX: usize = 16;
/// The engine's write-ahead log in its folder.
const WAL: &str = "consensus.wal";
/// How it begins, before its height.
const WAL_VERSION: [u8; 4] = [0, 0, 0, 1];
/// Version and height.
const WAL_HEADER_BYTES: u64 = 12;
/// Where one goes that cannot be replayed: the last of them, for whoever wants to know why.
const WAL_ASIDE: &str = "consensus.wal.aside";
/// How long the engine has to end before its runtime is dropped.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// How a node meets the others.
#[derive(Clone)]
pub struct NetworkConfig {
    /// Where this node listens for members.
    pub listen: SocketAddr,
    /// The other members' nodes, as long as they are let in.
    pub peers: Peers,
}

/// The engine.
pub struct Malachite {
    /// How the node meets the others.
    pub network: NetworkConfig,
    /// Encrypts and authenticates connections; only those of the peers are accepted.
    pub key: SigningKey,
    /// Folder of the engine's write-ahead log.
    pub wal: PathBuf,
}

fn engine(reason: impl Into<String>) -> Failure {
    EngineError(reason.into()).into()
}

/// How a run of the engine ended.
enum Ended {
    /// The pool was closed.
    Stopped,
    /// This node is to follow: it is not a member's any more, or was left behind.
    Left,
    /// This node may vote now, or may not any more, or votes with another key.
    OtherRole,
}

#[derive(Clone)]
struct Settings {
    moniker: String,
    consensus: ConsensusConfig,
    sync: ValueSyncConfig,
}

impl NodeConfig for Settings {
    fn moniker(&self) -> &str {
        &self.moniker
    }

    fn consensus(&self) -> &ConsensusConfig {
        &self.consensus
    }

    fn consensus_mut(&mut self) -> &mut ConsensusConfig {
        &mut self.consensus
    }

    fn value_sync(&self) -> &ValueSyncConfig {
        &self.sync
    }

    fn value_sync_mut(&mut self) -> &mut ValueSyncConfig {
        &mut self.sync
    }
}

fn multiaddr(address: SocketAddr) -> Multiaddr {
    let family = if address.is_ipv4() { "ip4" } else { "ip6" };
    let text = format!("/{family}/{}/tcp/{}", address.ip(), address.port());
    text.parse().expect("an IP address and a port are a multiaddr")
}

/// The peer id of a network key: an identity multihash of its protobuf (libp2p peer-ids).
fn peer_id(key: &Hash32) -> Vec<u8> {
    [&[0x00, 0x24, 0x08, 0x01, 0x12, 0x20][..], &key.0].concat()
}

/// The address of a peer, pinned to its key; none where the key is none.
fn persistent(peer: &Peer) -> Option<Multiaddr> {
    let id = PeerId::from_bytes(&peer_id(&peer.network_key)).ok();
    let address = id.and_then(|id| format!("{}/p2p/{id}", multiaddr(peer.address)).parse().ok());
    if address.is_none() {
        tracing::warn!(peer = peer.domain, "its network key is no key: the node is not met");
    }
    address
}

fn settings(listen: SocketAddr, peers: &[Peer], moniker: String) -> Settings {
    let mut consensus = ConsensusConfig { value_payload: ValuePayload::ProposalAndParts, ..ConsensusConfig::default() };
    let p2p = &mut consensus.p2p;
    p2p.listen_addr = multiaddr(listen);
    p2p.persistent_peers = peers.iter().filter_map(persistent).collect();
    p2p.persistent_peers_only = true;
    p2p.protocol = PubSubProtocol::Broadcast;
    // A part or a batch of synced blocks fits, with room for their framing.
    p2p.pubsub_max_size = ByteSize::mib(1);
    p2p.rpc_max_size = ByteSize::mib(32);
    // Peers are pinned by key; behind one address there may be many of them.
    p2p.discovery.max_connections_per_ip = 64;
    p2p.discovery.ip_throttle_duration = Duration::ZERO;
    let sync = ValueSyncConfig {
        status_update_interval: Duration::from_secs(1),
        max_response_size: ByteSize::mib(30),
        batch_size: 5,
        ..ValueSyncConfig::default()
    };
    Settings { moniker, consensus, sync }
}

fn timeouts() -> LinearTimeouts {
    LinearTimeouts {
        propose: Duration::from_millis(500),
        propose_delta: Duration::from_millis(250),
        prevote: Duration::from_millis(200),
        prevote_delta: Duration::from_millis(100),
        precommit: Duration::from_millis(200),
        precommit_delta: Duration::from_millis(100),
        rebroadcast: Duration::from_millis(2_000),
        // Low, so that the network resumes soon after a quorum is back.
        max_timeout: Duration::from_secs(5),
    }
}

fn parameters(application: &dyn Application) -> HeightParams<Engine> {
    HeightParams::new(Validators::of(&application.members()), timeouts(), None)
}

fn round_number(round: Round) -> u32 {
    round.as_u32().unwrap_or_default()
}

fn round_of(round: Option<u32>) -> Round {
    round.map_or(Round::Nil, Round::new)
}

fn proposed(judged: &Judged) -> ProposedValue<Engine> {
    ProposedValue {
        height: Height(judged.slot.height),
        round: Round::new(judged.slot.round),
        valid_round: round_of(judged.slot.valid_round),
        proposer: Address(judged.slot.proposer),
        value: Value(judged.value.0),
        validity: Validity::from_bool(judged.valid),
    }
}

impl Consensus for Malachite {
    fn run(&mut self, application: &mut dyn Application) -> Result<(), Failure> {
        let local = runtime::Builder::new_current_thread().enable_time().build();
        let local = local?;
        loop {
            let engine =
                runtime::Builder::new_multi_thread().worker_threads(2).thread_name("consensus").enable_all().build()?;
            let votes = application.may_vote();
            self.wait_for_wal();
            self.set_aside_wal(application.log_is_void())?;
            let peers = self.network.peers.now();
            let (channels, handle) = engine.block_on(self.start(application, votes, &peers))?;
            let stopper = handle.actor.clone();
            let mut driver = Driver::new(application, channels, votes, peers, self.network.peers.clone())?;
            let ended = local.block_on(driver.drive(handle));
            let stop = async { timeout(STOP_TIMEOUT, stopper.stop_and_wait(None, None)).await };
            let _stopped_or_late = engine.block_on(stop);
            engine.shutdown_timeout(STOP_TIMEOUT);
            match ended? {
                Ended::Stopped | Ended::Left => return Ok(()),
                Ended::OtherRole => tracing::info!(votes = application.may_vote(), "the node takes another role"),
            }
        }
    }
}

impl Malachite {
    /// The engine's log is written by a thread that outlives its runtime a little: a new engine on it
    /// would find it locked.
    fn wait_for_wal(&self) {
        let Ok(wal) = std::fs::File::open(self.wal.join(WAL)) else { return };
        let give_up = Instant::now() + STOP_TIMEOUT;
        while wal.try_lock().is_err() && Instant::now() < give_up {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Moves a log away that the engine would not start with: where the header is damaged, or where
    /// replay would come to another vote than the one that was signed. What this node has promised is
    /// in its guard, so that nothing is lost but what it had heard of one height.
    fn set_aside_wal(&self, is_void: bool) -> Result<(), Failure> {
        let path = self.wal.join(WAL);
        let failed = |error: std::io::Error| engine(format!("{}: {error}", path.display()));
        let mut header = Vec::new();
        match std::fs::File::open(&path) {
            Ok(file) => file.take(WAL_HEADER_BYTES).read_to_end(&mut header).map_err(failed)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        let is_sound = header.is_empty() || header.len() as u64 == WAL_HEADER_BYTES && header.starts_with(&WAL_VERSION);
        if is_sound && !is_void {
            return Ok(());
        }
        let aside = self.wal.join(WAL_ASIDE);
        tracing::warn!(wal = %path.display(), aside = %aside.display(), is_sound, "the engine's log is set aside");
        std::fs::rename(&path, &aside).map_err(failed)?;
        std::fs::File::open(&self.wal).and_then(|folder| folder.sync_all()).map_err(failed)
    }

    async fn start(
        &self,
        application: &dyn Application,
        votes: bool,
        peers: &[Peer],
    ) -> Result<(Channels<Engine>, EngineHandle), Failure> {
        let failed = |error: &dyn std::fmt::Display| engine(error.to_string());
        let signer = application.signer();
        let address = Address(address(&signer.public()));
        let (key, chain) = (signer.public(), signer.chain());
        let keypair = Keypair::ed25519_from_bytes(self.key.to_bytes()).map_err(|error| failed(&error))?;
        let valid_rounds = ValidRounds::default();
        let signer = GuardedSigner { signer, valid_rounds: valid_rounds.clone() };
        #[cfg(feature = "byzantine")]
        let liar = signer.clone();
        let peer = keypair.public().to_peer_id().to_bytes();
        let proof = signer.sign_validator_proof(key.0.to_vec(), peer).await.map_err(|error| failed(&error))?;
        let proof = Wire.encode(&proof).map_err(|error| failed(&error))?;
        let mut settings = settings(self.network.listen, peers, address.to_string());
        // Without a vote: decided blocks are synced from peers, nothing else.
        settings.consensus.enabled = votes;
        let identity = NetworkIdentity::new_validator(settings.moniker.clone(), keypair, address.to_string(), proof);
        std::fs::create_dir_all(&self.wal)
            .map_err(|error| engine(format!("create {}: {error}", self.wal.display())))?;
        let checker = Box::new(Checker { chain, valid_rounds, seen: application.seen_votes() });
        let consensus = if votes {
            ConsensusContext::new_validator(address, checker, Box::new(signer))
        } else {
            ConsensusContext::new_full_node(address, checker)
        };
        let builder = EngineBuilder::new(Engine, settings).with_default_wal(WalContext::new(self.wal.join(WAL), Wire));
        #[cfg(feature = "byzantine")]
        if let Some(misbehaviour) = application.misbehaviour() {
            return builder
                .with_byzantine_network(byzantine::network(identity, address, liar, misbehaviour))
                .await
                .map_err(|error| failed(&error))?
                .with_default_sync(SyncContext::new(Wire))
                .with_default_consensus(consensus)
                .with_default_request(RequestContext::new(16))
                .build()
                .await
                .map_err(|error| failed(&error));
        }
        builder
            .with_default_network(NetworkContext::new(identity, Wire))
            .with_default_sync(SyncContext::new(Wire))
            .with_default_consensus(consensus)
            .with_default_request(RequestContext::new(16))
            .build()
            .await
            .map_err(|error| failed(&error))
    }
}

/// A height that waits to be started.
struct Resting {
    reply: Reply<Next<Engine>>,
    until: Instant,
}

struct Driver<'a> {
    application: &'a mut dyn Application,
    channels: Channels<Engine>,
    votes: bool,
    /// The key that this engine votes with.
    voter: Hash32,
    /// Those that the engine lets in.
    let_in: Vec<Peer>,
    /// Those that it is to let in.
    peers: Peers,
    /// Domains by peer id.
    publishers: HashMap<Vec<u8>, String>,
    /// Looks since something came of a peer, by peer id.
    silent: HashMap<Vec<u8>, u32>,
    /// When peers are looked after next.
    contact_at: Instant,
    /// Validators of the height under way.
    members: Arc<MemberSet>,
    /// The round under way.
    round: u32,
    /// Between `Decided` and `Finalized`, which brings the height's equivocations.
    finalizing: bool,
    /// Whole proposals that came, by height and round.
    taken: BTreeMap<(u64, u32), usize>,
    /// When the application began to run: its time goes on over a change of roles.
    started: Instant,
    streams: Streams,
    /// Whole proposals of the height after the one under way.
    early: VecDeque<(Slot, Vec<u8>)>,
    resting: Option<Resting>,
    /// The height under way was learnt from a peer that is ahead: the next one does not wait.
    behind: bool,
    /// When something was last decided here, or peers were last told to decide.
    quiet_since: Instant,
    /// Ids of streams never repeat, also after a restart: a random number and a running one.
    stream_id: u128,
}

impl<'a> Driver<'a> {
    fn new(
        application: &'a mut dyn Application,
        channels: Channels<Engine>,
        votes: bool,
        let_in: Vec<Peer>,
        peers: Peers,
    ) -> Result<Self, Failure> {
        let mut random = [0; 16];
        getrandom::fill(&mut random)?;
        let (members, voter) = (application.members(), application.signer().public());
        Ok(Self {
            application,
            channels,
            votes,
            voter,
            publishers: publishers(&let_in),
            silent: HashMap::new(),
            contact_at: Instant::now(),
            let_in,
            peers,
            members,
            round: 0,
            finalizing: false,
            taken: BTreeMap::new(),
            started: *STARTED,
            streams: Streams::default(),
            early: VecDeque::new(),
            resting: None,
            behind: false,
            quiet_since: Instant::now(),
            stream_id: u128::from_be_bytes(random),
        })
    }

    async fn drive(&mut self, handle: EngineHandle) -> Result<Ended, Failure> {
        let changed = self.application.changed();
        let mut engine_ended = pin!(handle.handle);
        loop {
            if self.application.is_stopping() {
                return Ok(Ended::Stopped);
            }
            let deadline = self.application.tick(self.started.elapsed())?;
            self.publish_outbox().await?;
            let wakes_at = self.wake_again().await?;
            let contact_at = self.keep_contact().await?;
            if !self.finalizing && self.application.follows() {
                return Ok(Ended::Left);
            }
            if self.resting.is_none() && !self.finalizing && self.has_other_role() {
                return Ok(Ended::OtherRole);
            }
            let rests_until = self.resting.as_ref().map(|resting| resting.until);
            let next = deadline
                .map(|at| self.started + at)
                .into_iter()
                .chain(rests_until)
                .chain(wakes_at)
                .chain(contact_at)
                .min();
            let next = next.unwrap_or_else(|| Instant::now() + HEARTBEAT);
            tokio::select! {
                message = self.channels.consensus.recv() => match message {
                    Some(message) => self.answer(message).await?,
                    None => return self.engine_lost(),
                },
                _ = &mut engine_ended => return self.engine_lost(),
                () = changed.notified() => self.start_if_wanted(true).await?,
                () = self.peers.changed() => self.meet_peers().await?,
                () = sleep_until(next.into()) => {
                    if rests_until.is_some_and(|at| at <= Instant::now()) {
                        self.start_next();
                    }
                }
            }
        }
    }

    /// The engine stops by itself when the guard refuses a vote, or when its log cannot be written.
    fn engine_lost(&self) -> Result<Ended, Failure> {
        if self.application.is_stopping() {
            return Ok(Ended::Stopped);
        }
        // Alone there is nobody to follow.
        if self.votes != self.application.may_vote() && self.application.members().len() > 1 {
            return Ok(Ended::OtherRole);
        }
        Err(engine("it stopped; the log above says why"))
    }

    fn has_other_role(&self) -> bool {
        self.votes != self.application.may_vote() || self.voter != self.application.signer().public()
    }

    /// Lets in those that are new, and no longer those that are gone.
    async fn meet_peers(&mut self) -> Result<(), Failure> {
        let peers = self.peers.now();
        self.publishers = publishers(&peers);
        let (stay, gone) = std::mem::take(&mut self.let_in).into_iter().partition(|peer| peers.contains(peer));
        self.let_in = stay;
        let gone: Vec<Peer> = gone;
        for address in gone.iter().filter_map(persistent) {
            self.change_peers(PersistentPeersOp::Remove(address)).await?;
        }
        for peer in peers {
            if self.let_in.contains(&peer) {
                continue;
            }
            if let Some(address) = persistent(&peer)
                && !self.change_peers(PersistentPeersOp::Add(address)).await?
            {
                // Tried again at the next contact, with those after it: the engine waits meanwhile.
                break;
            }
            self.let_in.push(peer);
        }
        Ok(())
    }

    /// Whether it is so now; where it is not, the log says so.
    async fn change_peers(&self, operation: PersistentPeersOp) -> Result<bool, Failure> {
        let said = format!("{operation:?}");
        match self.ask_network(|reply| NetworkRequest::UpdatePersistentPeers(operation, reply)).await? {
            Some(Ok(())) => {
                tracing::info!(peer = said, "the members' nodes are others now");
                return Ok(true);
            }
            Some(Err(PersistentPeerError::AlreadyExists | PersistentPeerError::NotFound)) => return Ok(true),
            Some(Err(error)) => tracing::warn!(peer = said, %error, "a change of peers was not taken"),
            None => tracing::warn!(peer = said, "a change of peers was not answered"),
        }
        Ok(false)
    }

    async fn ask_network<T>(&self, request: impl FnOnce(Reply<T>) -> NetworkRequest) -> Result<Option<T>, Failure> {
        let (reply, done) = oneshot::channel();
        let sent = self.channels.net_requests.send(request(reply)).await;
        sent.map_err(|_| engine("its network part has ended"))?;
        Ok(timeout(STOP_TIMEOUT, done).await.ok().and_then(Result::ok))
    }

    /// Tells peers that this node is there, and meets those anew that are connected and silent.
    ///
    /// The engine's network says what it wants to hear when the first connection to a peer opens, and not
    /// again. Where one end knows that this connection is dead and the other does not, the next one is the
    /// first for one end only: the other is never told, and sends nothing for as long as they are connected.
    /// After a long loss of packets TCP waits long, too. Ending all connections to the peer ends both.
    async fn keep_contact(&mut self) -> Result<Option<Instant>, Failure> {
        if self.let_in.is_empty() && self.peers.now().is_empty() {
            return Ok(None);
        }
        if self.contact_at > Instant::now() {
            return Ok(Some(self.contact_at));
        }
        self.contact_at = Instant::now() + CONTACT_INTERVAL;
        self.meet_peers().await?;
        self.broadcast(Vec::new()).await?;
        // Without a vote it hears no such messages, and says them all the same: others count on them.
        if !self.votes {
            return Ok(Some(self.contact_at));
        }
        let mut silent = Vec::new();
        for peer in &self.let_in {
            let looks = self.silent.entry(peer_id(&peer.network_key)).or_default();
            *looks += 1;
            if *looks > SILENT_LOOKS {
                *looks = 0;
                silent.push(peer.clone());
            }
        }
        if !silent.is_empty() {
            self.meet_anew(&silent).await?;
        }
        Ok(Some(self.contact_at))
    }

    /// Ends every connection to these peers, and connects again. Those that are not connected are left
    /// to the engine, which goes on trying.
    async fn meet_anew(&mut self, silent: &[Peer]) -> Result<(), Failure> {
        let Some(Some(network)) = self.ask_network(NetworkRequest::DumpState).await? else { return Ok(()) };
        let connected: Vec<Vec<u8>> = network.peers.keys().map(|peer| peer.to_bytes()).collect();
        for peer in silent.iter().filter(|peer| connected.contains(&peer_id(&peer.network_key))) {
            let Some(address) = persistent(peer) else { continue };
            tracing::warn!(peer = peer.domain, "it is connected and nothing comes of it: it is met anew");
            metrics::counter!("chopmark_node_peers_met_anew_total").increment(1);
            self.change_peers(PersistentPeersOp::Remove(address)).await?;
            // An answer that did not come in time may still come true.
            self.let_in.retain(|known| known != peer);
        }
        self.meet_peers().await
    }

    fn start_next(&mut self) {
        if let Some(resting) = self.resting.take() {
            self.members = self.application.members();
            let next = Next::Start(Height(self.application.height()), parameters(self.application));
            // An engine that does not wait for it has ended.
            let _ended = resting.reply.send(next);
        }
    }

    async fn start_if_wanted(&mut self, tell: bool) -> Result<(), Failure> {
        if self.resting.is_some() && self.application.wants_block() {
            if tell {
                self.wake_peers().await?;
            }
            self.start_next();
        }
        Ok(())
    }

    async fn wake_peers(&mut self) -> Result<(), Failure> {
        self.quiet_since = Instant::now();
        if self.application.members().len() > 1 { self.broadcast(self.application.wake()).await } else { Ok(()) }
    }

    /// Peers may rest while this node is in the next height already, or have missed the first call.
    async fn wake_again(&mut self) -> Result<Option<Instant>, Failure> {
        if !self.application.wants_block() {
            return Ok(None);
        }
        if self.quiet_since.elapsed() >= WAKE_INTERVAL {
            self.wake_peers().await?;
        }
        Ok(Some(self.quiet_since + WAKE_INTERVAL))
    }

    async fn publish(&self, id: &Bytes, sequence: u64, content: StreamContent<Part>) -> Result<(), Failure> {
        let message = StreamMessage::new(StreamId::new(id.clone()), sequence, content);
        let sent = self.channels.network.send(NetworkMsg::PublishProposalPart(message)).await;
        sent.map_err(|_| engine("its network part has ended"))
    }

    fn stream_id(&mut self) -> Bytes {
        self.stream_id = self.stream_id.wrapping_add(1);
        Bytes::copy_from_slice(&self.stream_id.to_be_bytes())
    }

    async fn broadcast(&mut self, message: Vec<u8>) -> Result<(), Failure> {
        let id = self.stream_id();
        self.publish(&id, 0, StreamContent::Data(Part::Message(message.into()))).await
    }

    async fn publish_outbox(&mut self) -> Result<(), Failure> {
        for message in self.application.outbox() {
            self.broadcast(message).await?;
        }
        #[cfg(feature = "byzantine")]
        for part in self.application.forged_parts() {
            let content = byzantine::content(part.content);
            self.publish(&part.stream.into(), part.sequence, content).await?;
        }
        Ok(())
    }

    async fn stream(&mut self, slot: Slot, bytes: Vec<u8>) -> Result<(), Failure> {
        if self.application.members().len() == 1 {
            return Ok(());
        }
        let (id, bytes) = (self.stream_id(), Bytes::from(bytes));
        let Slot { height, round, valid_round, proposer } = slot;
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let init = Part::Init { height, round, valid_round, proposer: Address(proposer), len };
        self.publish(&id, 0, StreamContent::Data(init)).await?;
        let mut sequence = 1;
        for start in (0..bytes.len()).step_by(PART_BYTES) {
            let part = bytes.slice(start..bytes.len().min(start + PART_BYTES));
            self.publish(&id, sequence, StreamContent::Data(Part::Data(part))).await?;
            sequence += 1;
        }
        self.publish(&id, sequence, StreamContent::Fin).await
    }

    async fn answer(&mut self, message: AppMsg<Engine>) -> Result<(), Failure> {
        // Whoever asked may have ended meanwhile; that shows when the channel closes.
        match message {
            AppMsg::ConsensusReady { reply } => {
                let _ended = reply.send((Height(self.application.height()), parameters(self.application)));
            }
            AppMsg::StartedRound { height, round, reply_value, .. } => {
                let values = self.started_round(height.0, round_number(round))?;
                let _ended = reply_value.send(values);
            }
            AppMsg::GetValue { height, round, reply, .. } => {
                let own = address(&self.application.signer().public());
                let (judged, bytes) = self.application.propose(round_number(round), own)?;
                let _ended = reply.send(LocallyProposedValue::new(height, round, Value(judged.value.0)));
                self.stream(judged.slot, bytes).await?;
            }
            AppMsg::RestreamProposal { height, round, valid_round, address, value_id } => {
                if let Some(bytes) = self.application.proposal(&Hash32(value_id.0)) {
                    let valid_round = valid_round.as_u32();
                    let slot = Slot { height: height.0, round: round_number(round), valid_round, proposer: address.0 };
                    self.stream(slot, bytes).await?;
                }
            }
            AppMsg::ReceivedProposalPart { from, published_by, part, reply } => {
                let value = self.received(published_by.unwrap_or(from), part)?;
                let _ended = reply.send(value);
            }
            AppMsg::Decided { certificate, reply, .. } => {
                self.finalizing = true;
                self.application.decide(ours(&certificate))?;
                self.quiet_since = Instant::now();
                let _ended = reply.send(());
            }
            AppMsg::Finalized { certificate, evidence, reply, .. } => {
                self.finalizing = false;
                self.keep_evidence(&evidence)?;
                if self.application.height() <= certificate.height.0 {
                    return Err(engine(format!("height {} was decided and not taken over", certificate.height.0)));
                }
                self.resting = Some(Resting { reply, until: Instant::now() + HEARTBEAT });
                self.start_if_wanted(false).await?;
                self.start_if_early();
                if std::mem::take(&mut self.behind) {
                    self.start_next();
                }
            }
            AppMsg::GetHistoryMinHeight { reply } => {
                let _ended = reply.send(Height(u64::from(self.application.height() > 1)));
            }
            AppMsg::GetDecidedValues { range, reply } => {
                let _ended = reply.send(self.decided(range.start().0, range.end().0)?);
            }
            AppMsg::ProcessSyncedValue { height, round, proposer, value_bytes, reply } => {
                let slot =
                    Slot { height: height.0, round: round_number(round), valid_round: None, proposer: proposer.0 };
                let judged = self.application.judge(slot, &value_bytes, false)?;
                self.behind |= judged.is_some();
                let outcome = match judged {
                    Some(judged) if judged.valid => SyncedValueOutcome::Verdict(proposed(&judged)),
                    Some(judged) => {
                        tracing::error!(height = height.0, value = %judged.value, "a synced block does not execute here");
                        SyncedValueOutcome::PeerFault
                    }
                    None if height.0 == self.application.height() => SyncedValueOutcome::PeerFault,
                    None => SyncedValueOutcome::LocalTransientError,
                };
                let _ended = reply.send(outcome);
            }
            AppMsg::ExtendVote { reply, .. } => {
                let _ended = reply.send(None);
            }
            AppMsg::VerifyVoteExtensions { extensions, reply, .. } => {
                let _ended = reply.send(extensions.into_iter().map(|(address, _)| (address, Ok(()))).collect());
            }
        }
        Ok(())
    }

    /// What is known for a round: kept over a restart, or come before the height started.
    fn started_round(&mut self, height: u64, round: u32) -> Result<Vec<ProposedValue<Engine>>, Failure> {
        let mut values: Vec<_> = self.application.kept(round)?.iter().map(proposed).collect();
        self.round = round;
        if round == 0 {
            self.taken.retain(|(taken, _), _| *taken >= height);
            self.early.retain(|(slot, _)| slot.height >= height);
        }
        let mut at = 0;
        while at < self.early.len() {
            let (slot, _) = self.early[at];
            if (slot.height, slot.round) != (height, round) {
                at += 1;
                continue;
            }
            if let Some((slot, bytes)) = self.early.remove(at)
                && let Some(judged) = self.application.judge(slot, &bytes, true)?
            {
                values.push(proposed(&judged));
            }
        }
        Ok(values)
    }

    fn received(
        &mut self,
        publisher: PeerId,
        part: StreamMessage<Part>,
    ) -> Result<Option<ProposedValue<Engine>>, Failure> {
        self.silent.insert(publisher.to_bytes(), 0);
        if let StreamContent::Data(Part::Message(bytes)) = &part.content {
            if let Heard::Wake(height) = self.application.message(bytes)?
                && height >= self.application.height()
            {
                self.called();
            }
            return Ok(None);
        }
        let Some((slot, bytes)) = self.streams.take(publisher, part) else { return Ok(None) };
        let next = self.application.height();
        if slot.height > next + 1 {
            self.called();
        }
        if slot.height < next || slot.height > next + 1 || !self.may_publish(publisher, &slot) {
            return Ok(None);
        }
        if slot.height == next && self.resting.is_none() {
            let judged = self.application.judge(slot, &bytes, true)?;
            return Ok(judged.as_ref().map(proposed));
        }
        // Its height has not started here: judged when it does.
        if self.early.len() == EARLY_MAX {
            self.early.pop_front();
        }
        self.early.push_back((slot, bytes));
        self.start_if_early();
        Ok(None)
    }

    /// Whether the round is the publisher's turn, and near, and not used up: what nobody honest
    /// streams costs nothing but its bytes.
    fn may_publish(&mut self, publisher: PeerId, slot: &Slot) -> bool {
        let members = self.application.members();
        let turn = proposer(&members, slot.height, slot.round).map(|member| &member.domain);
        let own = slot.proposer == address(&self.application.signer().public());
        let round = if slot.height == self.application.height() && self.resting.is_none() { self.round } else { 0 };
        let sound = turn.is_some()
            && self.publishers.get(&publisher.to_bytes()) == turn
            && slot.is_sound(&members)
            && (slot.valid_round.is_some() || !own)
            && slot.round <= round.saturating_add(ROUNDS_AHEAD);
        let taken = self.taken.entry((slot.height, slot.round)).or_default();
        *taken += usize::from(sound);
        let sound = sound && *taken <= PROPOSALS_OF_ROUND_MAX;
        if !sound {
            metrics::counter!("chopmark_node_streams_refused_total").increment(1);
        }
        sound
    }

    /// A peer says that there is something to decide on.
    fn called(&mut self) {
        let soonest = self.quiet_since + CALLED_INTERVAL;
        if soonest <= Instant::now() {
            self.start_next();
        } else if let Some(resting) = &mut self.resting {
            resting.until = resting.until.min(soonest);
        }
    }

    /// Others have started the next height already, with something to decide on.
    fn start_if_early(&mut self) {
        let next = self.application.height();
        if self.resting.is_some() && self.early.iter().any(|(slot, _)| slot.height == next) {
            self.start_next();
        }
    }

    fn decided(&self, first: u64, last: u64) -> Result<Vec<RawDecidedValue<Engine>>, Failure> {
        let (mut values, mut bytes_total) = (Vec::new(), 0);
        for height in first..=last {
            let Some((bytes, certificate)) = self.application.decided(height)? else { break };
            bytes_total += bytes.len();
            if bytes_total > 6 * PROPOSAL_BYTES_MAX {
                break;
            }
            let certificate = theirs(&certificate)
                .ok_or_else(|| engine(format!("the certificate of height {height} is malformed")))?;
            values.push(RawDecidedValue::new(bytes.into(), certificate));
        }
        Ok(values)
    }

    fn keep_evidence(&mut self, evidence: &MisbehaviorEvidence<Engine>) -> Result<(), Failure> {
        let (chain, members) = (self.application.signer().chain(), Arc::clone(&self.members));
        let mut found = Vec::new();
        for (address, pairs) in evidence.votes.iter() {
            for (first, second) in pairs {
                let signed = |vote: &malachite_types::SignedVote<Engine>| SignedMessage {
                    message: hex::encode(context::vote_bytes(&chain, &vote.message)),
                    signature: hex::encode(vote.signature.0),
                };
                let height = first.message.height.0;
                found.push((EquivocationKind::Vote, *address, height, signed(first), signed(second)));
            }
        }
        for (address, pairs) in evidence.proposals.iter() {
            for (first, second) in pairs {
                let signed = |proposal: &malachite_types::SignedProposal<Engine>| SignedMessage {
                    message: hex::encode(context::proposal_bytes(&chain, &proposal.message)),
                    signature: hex::encode(proposal.signature.0),
                };
                let height = first.message.height.0;
                found.push((EquivocationKind::Proposal, *address, height, signed(first), signed(second)));
            }
        }
        for (kind, address, height, first, second) in found {
            if let Some((key, member)) = named(&members, &address) {
                self.application.equivocation(&Equivocation {
                    first,
                    height,
                    key,
                    kind,
                    member,
                    second,
                    v: ledger_core::operation::V1,
                })?;
            }
        }
        Ok(())
    }
}

/// Which member a publisher is.
fn publishers(peers: &[Peer]) -> HashMap<Vec<u8>, String> {
    peers.iter().map(|peer| (peer_id(&peer.network_key), peer.domain.clone())).collect()
}

fn named(members: &MemberSet, validator: &Address) -> Option<(Hash32, String)> {
    let named = members.iter().find(|member| address(&member.validator_key) == validator.0);
    named.map(|member| (member.validator_key, member.domain.clone()))
}

fn ours(certificate: &CommitCertificate<Engine>) -> Certificate {
    let precommits = certificate.commit_signatures.iter().map(|commit| (commit.address.0, commit.signature.0));
    let (height, value) = (certificate.height.0, Hash32(certificate.value_id.0));
    Certificate::of_addresses(height, round_number(certificate.round), value, precommits)
}

fn theirs(certificate: &Certificate) -> Option<ExtendedCommitCertificate<Engine>> {
    let commit = |(address, signature)| ExtendedCommitSignature::new(Address(address), Signature(signature), None);
    Some(ExtendedCommitCertificate {
        height: Height(certificate.height),
        round: Round::new(certificate.round),
        value_id: Value(certificate.value.0),
        commit_signatures: certificate.precommits()?.into_iter().map(commit).collect(),
    })
}
