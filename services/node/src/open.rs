//! Making, opening and closing a node: restoring after a crash runs the code of normal progress.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    thread::{self, JoinHandle},
    time::Duration,
};

use arc_swap::ArcSwap;
use chopmark_consensus::{
    Application as _, BlockSource, Consensus as _, Following, Malachite, NetworkConfig, SeenVotes,
};
use ledger_core::{
    Hash32,
    block::{Block, STATE_DIGEST_INTERVAL},
    execute::{Executed, Parent, execute, execute_genesis},
    genesis::Genesis,
    merkle::TreeSize,
    state::members,
};
use parking_lot::{Mutex, RwLock};
use segment_log::{OnTornTail, Options, SegmentLog};
use tokio::sync::watch;

use crate::{
    NodeError, NodeHandle,
    bugs::{Bug, has},
    cosign::SeenCosignatures,
    damage::Damage,
    derive::{self, Backlog, StateDigests},
    derived::{Applied, BlockEffects, Derived, LiveState, index_keys},
    disk,
    equivocations::EquivocationFile,
    guard::{Guard, Promise},
    handle::{CheckpointRecord, ClockMs, Published, Recent, Shared, Trust},
    keys::NodeKeys,
    ledger::{self, Ledger, commit},
    pool::Pool,
    proposals::Proposals,
    rebuilding::RebuildMark,
    repair::{self, PeerTiles, Peers},
    statement,
    tail::Tree,
    tiles::TileFiles,
    witness::Witnesses,
};

/// Default bound of the pool: a few seconds of work.
pub const POOL_BYTES_MAX: usize = 64 << 20;

/// Where things lie in a node's data directory.
#[derive(Debug, Clone)]
pub struct Layout(pub PathBuf);

impl Layout {
    /// The genesis document.
    #[must_use]
    pub fn genesis(&self) -> PathBuf {
        self.0.join("genesis.json")
    }

    /// The block log: the only thing that is not derived.
    #[must_use]
    pub fn blocks(&self) -> PathBuf {
        self.0.join("blocks")
    }

    /// The signed checkpoints.
    #[must_use]
    pub fn checkpoints(&self) -> PathBuf {
        self.0.join("checkpoints")
    }

    /// Full tiles and entry bundles, served as they are.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    /// Proposals of the height that is not decided yet.
    #[must_use]
    pub fn proposals(&self) -> PathBuf {
        self.0.join("proposals")
    }

    /// Folder of the engine's write-ahead log.
    #[must_use]
    pub fn wal(&self) -> PathBuf {
        self.0.join("wal")
    }

    /// Equivocations that were seen.
    #[must_use]
    pub fn equivocations(&self) -> PathBuf {
        self.0.join("equivocations.jsonl")
    }

    /// The mark of data that are being rebuilt, see [`RebuildMark`].
    pub(crate) fn rebuilding(&self) -> PathBuf {
        self.0.join("rebuilding")
    }

    /// Parts that are known to be damaged.
    #[must_use]
    pub fn damage(&self) -> PathBuf {
        self.0.join("damage")
    }

    /// Index and state.
    #[must_use]
    pub fn derived(&self) -> PathBuf {
        self.0.join("derived")
    }

    pub(crate) fn read_genesis(&self) -> Result<Genesis, NodeError> {
        let path = self.genesis();
        let bytes = fs::read(&path).map_err(NodeError::io("read genesis", &path))?;
        Ok(Genesis::parse(&bytes)?)
    }
}

/// How often a start looks whether enough other nodes have said what they have seen of this one.
const WITNESSES_INTERVAL: Duration = Duration::from_millis(20);

/// Height 1 is the first that is decided.
pub(crate) const BLOCK_FIRST: u64 = 1;

pub(crate) fn block_log_options() -> Options {
    Options { first_sequence: BLOCK_FIRST, ..disk::log_options() }
}

/// What a node needs to run.
#[derive(Clone)]
pub struct NodeConfig {
    /// Data directory made by [`init`].
    pub data: PathBuf,
    /// The guard file, outside the data directory.
    pub guard: PathBuf,
    /// The node's keys.
    pub keys: NodeKeys,
    /// This member's domain.
    pub domain: String,
    /// Unix milliseconds.
    pub clock: ClockMs,
    /// Bound of the pool in bytes.
    pub pool_bytes_max: usize,
    /// How it meets the other members' nodes.
    pub network: NetworkConfig,
    /// Where a node that is no member's follows; without one it waits for members to let it in.
    pub source: Option<Arc<dyn BlockSource>>,
    /// Whom it asks for tiles and bundles that are damaged here; nobody where it is alone.
    pub peer_tiles: Vec<Arc<dyn PeerTiles>>,
    /// Turns true when the process is to end: a start that is under way then ends with
    /// [`NodeError::Stopped`]. A node that is open is closed by whoever holds it.
    pub stop: watch::Receiver<bool>,
}

/// A running node: dropping it stops its threads.
pub struct Node {
    handle: NodeHandle,
    ledger: Option<JoinHandle<()>>,
    derive: Option<JoinHandle<()>>,
    repair: Option<JoinHandle<()>>,
}

/// Makes the data directory and guard of a new node. Harmless to repeat after a crash: the
/// directory gets its name last, and a guard without promises may be made again.
pub fn init(data: &Path, guard: &Path, genesis: &Genesis) -> Result<(), NodeError> {
    init_beside(data, genesis, || Guard::create(guard, genesis.chain_id()))
}

/// Makes the data directory of a node whose data were lost, behind the guard that it has. A member of
/// several then follows without voting or signing until it has caught up with what the guard remembers.
pub fn init_again(data: &Path, guard: &Path, genesis: &Genesis) -> Result<(), NodeError> {
    init_beside(data, genesis, || {
        // A missing one is refused as everywhere: it may remember what this node has signed.
        let guard = Guard::open(guard)?;
        if guard.promise().chain == genesis.chain_id() {
            Ok(())
        } else {
            Err(guard.refuse("belongs to another network"))
        }
    })
}

fn init_beside(data: &Path, genesis: &Genesis, guard: impl FnOnce() -> Result<(), NodeError>) -> Result<(), NodeError> {
    if data.exists() {
        return Err(NodeError::Damaged(format!("{} exists already", data.display())));
    }
    let temporary = data.with_extension("new");
    if temporary.exists() {
        fs::remove_dir_all(&temporary).map_err(NodeError::io("remove unfinished folder", &temporary))?;
    }
    let layout = Layout(temporary.clone());
    fs::create_dir_all(layout.log()).map_err(NodeError::io("create folder", &temporary))?;
    let path = layout.genesis();
    File::create(&path)
        .and_then(|mut file| file.write_all(&genesis.encode()).and_then(|()| file.sync_all()))
        .map_err(NodeError::io("write genesis", &path))?;
    File::open(&temporary).and_then(|folder| folder.sync_all()).map_err(NodeError::io("sync folder", &temporary))?;
    guard()?;
    fs::rename(&temporary, data).map_err(NodeError::io("name folder", data))?;
    let parent = data.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|folder| folder.sync_all()).map_err(NodeError::io("sync folder", parent))
}

/// A node whose files are open and checked as far as index and tiles go; behind them, blocks may wait
/// to be replayed.
pub(crate) struct Opened {
    pub(crate) shared: Arc<Shared>,
    /// What the index has.
    pub(crate) applied: Applied,
    layout: Layout,
    keys: NodeKeys,
    guard: Guard,
    rebuilding: RebuildMark,
    block_log: SegmentLog,
    checkpoint_log: SegmentLog,
    /// What the index ends with.
    parent: Parent,
    alone: bool,
    peers: Vec<Arc<dyn PeerTiles>>,
}

impl Opened {
    /// Opens and checks the files.
    ///
    /// Refuses where the data contradicts itself, the guard, or what was signed.
    pub(crate) fn open(config: NodeConfig) -> Result<Self, NodeError> {
        let layout = Layout(config.data.clone());
        let genesis = layout.read_genesis()?;
        let chain = genesis.chain_id();
        let mut guard = Guard::open(&config.guard)?;
        if guard.promise().chain != chain {
            return Err(guard.refuse(&format!(
                "belongs to another network than {}, unless one of the two files is damaged",
                layout.genesis().display()
            )));
        }
        guard.renew()?;
        let born = execute_genesis(&genesis);
        let files = TileFiles::new(layout.log());
        let store = Derived::open_or_set_aside(&layout.derived())?;
        let applied = match store.applied()? {
            Some(applied) => applied,
            None => apply_genesis(&store, &born)?,
        };
        // What guard and index know of was acknowledged: a tear there is damage, not an unfinished
        // write, and is left for whoever can repair it. Of data that are being rebuilt, the guard
        // knows heights that they do not have yet.
        let mut rebuilding = RebuildMark::open(layout.rebuilding())?;
        let decided = guard.promise().decided;
        let known = rebuilding.height().unwrap_or(decided).max(applied.height) + 1;
        let mut options = Options { acknowledged_below: known, ..block_log_options() };
        if has(Bug::BlockLogSkipsSync) {
            options.sync = |_, _, _| Ok(());
        }
        let block_log = open_log(&layout.blocks(), options)?;
        let tip = block_log.next_sequence() - 1;
        let mut known = Options { acknowledged_below: applied.checkpoints, ..disk::log_options() };
        if has(Bug::CheckpointLogSkipsSync) {
            known.sync = |_, _, _| Ok(());
        }
        let checkpoint_log = open_log(&layout.checkpoints(), known)?;
        let state = LiveState::new(store);
        let in_force = members(&state)?;
        // Alone, nobody else has what is missing; with others, this node follows until it has
        // caught up with what it remembers to have signed.
        let alone = in_force.len() == 1 && !has(Bug::OpensAnOlderCopyAlone);
        if alone {
            check_guard_height(&guard, tip)?;
        }
        // Before anything is appended to data that are behind, and before anything is told of data that
        // have caught up.
        rebuilding.compare(tip, decided)?;
        let signed = guard.promise().size.0;
        if alone && checkpoint_log.next_sequence() == 0 && signed > born.header.tree_size {
            return Err(NodeError::Damaged(format!(
                "{} holds no checkpoint, but size {signed} was signed: the checkpoints were lost, and with them the \
                 receipts' first signatures. Restore that folder",
                layout.checkpoints().display()
            )));
        }
        if applied.height > tip {
            return Err(NodeError::Damaged(format!(
                "the index knows height {} but the block log in {} ends at {tip}: blocks were lost. \
                 Restore the block log, or move the whole data directory away and rebuild it from a backup",
                applied.height,
                layout.blocks().display()
            )));
        }
        let peers = config.peer_tiles;
        let edge = repair::restore_edge(&applied, &state.store.edge(applied.size)?, &files, &peers, &config.stop)?;
        let tail = RwLock::new(edge);
        let frontier = Tree { tail: &tail, files: &files }.frontier(applied.size)?;
        let parent = Parent { height: applied.height, time: applied.time, hash: applied.header, frontier };
        statement::vkey(&config.domain, &config.keys.statement)?;
        let trust = state.store.members()?.into_iter();
        let trust = trust
            .map(|(size, members)| Ok((size, Arc::new(Trust::new(&genesis.origin, members)?))))
            .collect::<Result<_, NodeError>>()?;
        let shared = Arc::new(Shared {
            chain,
            domain: config.domain,
            follows: config.source.is_some(),
            left_behind: AtomicBool::new(false),
            seen_votes: SeenVotes::default(),
            cosignatures: SeenCosignatures::default(),
            witnesses: if config.source.is_some() { Witnesses::default() } else { Witnesses::not_needed() },
            statement_key: config.keys.statement.clone(),
            clock: config.clock,
            state,
            tail,
            files,
            blocks: block_log.reader(),
            checkpoints: checkpoint_log.reader(),
            recent: RwLock::new(Recent::starting_at(applied.height)),
            headers: Mutex::default(),
            published: ArcSwap::from_pointee(None),
            published_height: watch::Sender::new(0),
            trust: RwLock::new(trust),
            pool: Pool::new(config.pool_bytes_max),
            backlog: Backlog::default(),
            state_digests: StateDigests::default(),
            damage: Damage::open(layout.damage(), config.stop)?,
            has_peers: !peers.is_empty(),
            failure: Mutex::default(),
            no_vote: Mutex::default(),
            clock_offset_ms: Mutex::default(),
            genesis,
        });
        repair::unsound(&shared, repair::under_edge(applied.size))?;
        let keys = config.keys;
        Ok(Self { shared, applied, layout, keys, guard, rebuilding, block_log, checkpoint_log, parent, alone, peers })
    }

    /// Replays what the index lacks and proves the tail. Whoever calls this brings the index up to
    /// date meanwhile ([`derive`]): a long replay waits for it.
    pub(crate) fn ledger(self) -> Result<Ledger, NodeError> {
        let Self { shared, applied, layout, keys, guard, rebuilding, block_log, checkpoint_log, parent, alone, peers } =
            self;
        let tip = block_log.next_sequence() - 1;
        let parent = replay(&shared, parent, tip)?;
        restore_state_digests(&shared, parent.height)?;
        let signed = restore_checkpoints(&shared, &peers, &checkpoint_log, &parent, applied.checkpoints)?;
        check_guard_root(&shared, &peers, &guard, &parent, alone)?;
        let files = ledger::Files {
            guard: Arc::new(Mutex::new(guard)),
            rebuilding,
            block_log,
            checkpoint_log,
            proposals: Proposals::open(&layout.proposals(), parent.height + 1)?,
            equivocations: EquivocationFile::open(layout.equivocations())?,
        };
        let mut ledger = Ledger::new(shared, keys, files, parent, signed)?;
        // Before anybody reads: a lone node that is open has published everything that it decided.
        ledger.resume()?;
        Ok(ledger)
    }
}

impl Node {
    /// Opens the node, proves its own tail, replays what the index lacks, and starts it.
    ///
    /// Refuses to start where the data contradicts itself, the guard, or what was signed.
    pub fn open(config: NodeConfig) -> Result<Self, NodeError> {
        let (network, key) = (config.network.clone(), config.keys.network.clone());
        let (wal, source) = (Layout(config.data.clone()).wal(), config.source.clone());
        let opened = Opened::open(config)?;
        let handle = NodeHandle(Arc::clone(&opened.shared));
        let mut node = Self { handle, ledger: None, derive: None, repair: None };
        let (behind, applied) = (Arc::clone(&opened.shared), opened.applied);
        node.derive = Some(spawn("derive", move || derive::run(&behind, applied))?);
        let (behind, peers) = (Arc::clone(&opened.shared), opened.peers.clone());
        let mut ledger = opened.ledger()?;
        node.repair = Some(spawn("repair", move || repair::run(&behind, &peers))?);
        let mut engine = Malachite { network, key, wal };
        node.ledger = Some(spawn("ledger", move || {
            // Closes the pool however this thread ends, so that nobody waits for an outcome.
            let _close = ClosePool(Arc::clone(&ledger.shared));
            if let Err(error) = agree(&mut ledger, &mut engine, source) {
                tracing::error!(%error, "the node stops deciding and signing");
                ledger.shared.fail(&NodeError::from(error));
            }
        })?);
        Ok(node)
    }

    /// The handle that submits and reads.
    #[must_use]
    pub fn handle(&self) -> NodeHandle {
        self.handle.clone()
    }

    /// Stops taking submissions, finishes what is decided, and waits for the threads.
    pub fn close(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        self.handle.0.pool.close();
        // Before the ledger thread is waited for: it may wait for the derive thread, and that one for a
        // bundle that nobody heals. What the index lacks then is replayed at the next start.
        self.handle.0.damage.close();
        if let Some(ledger) = self.ledger.take() {
            let _panicked = ledger.join();
        }
        if let Some(repair) = self.repair.take() {
            let _panicked = repair.join();
        }
        self.handle.0.backlog.close();
        if let Some(derive) = self.derive.take() {
            let _panicked = derive.join();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Takes over decided blocks that somebody kept, into the data of a node that does not run and meets
/// nobody. Every block is executed and its certificate checked. Returns height and tree size.
pub fn restore(config: NodeConfig, chain: Hash32, source: Arc<dyn BlockSource>) -> Result<(u64, TreeSize), NodeError> {
    let opened = Opened::open(config)?;
    if opened.shared.chain != chain {
        return Err(NodeError::Damaged(format!(
            "the data are of chain {}, and what is to be restored is of chain {chain}",
            opened.shared.chain
        )));
    }
    let handle = NodeHandle(Arc::clone(&opened.shared));
    let mut node = Node { handle, ledger: None, derive: None, repair: None };
    let (behind, applied) = (Arc::clone(&opened.shared), opened.applied);
    node.derive = Some(spawn("derive", move || derive::run(&behind, applied))?);
    let mut ledger = opened.ledger()?;
    Following { source }.catch_up(&mut ledger).map_err(NodeError::from)?;
    let reached = (ledger.height() - 1, ledger.size());
    node.close();
    Ok(reached)
}

/// Agrees with the other members as long as this node is a member's, and follows them otherwise.
fn agree(
    ledger: &mut Ledger,
    engine: &mut Malachite,
    source: Option<Arc<dyn BlockSource>>,
) -> Result<(), chopmark_consensus::Failure> {
    let mut following = source.map(|source| Following { source });
    while !ledger.is_stopping() {
        match following.as_mut().filter(|_| ledger.follows()) {
            Some(following) => following.run(ledger)?,
            None if !ledger.is_witnessed()? => {
                ledger.miss_witnesses();
                thread::sleep(WITNESSES_INTERVAL);
                continue;
            }
            None => engine.run(ledger)?,
        }
        tracing::info!(follows = ledger.follows(), "the node's part has changed, or it stops");
    }
    Ok(())
}

struct ClosePool(Arc<Shared>);

impl Drop for ClosePool {
    fn drop(&mut self) {
        self.0.pool.close();
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, NodeError> {
    thread::Builder::new().name(name.to_owned()).spawn(run).map_err(NodeError::io("start thread", name))
}

/// Options under which a log is opened for reading, and left as it is.
pub(crate) fn read_only(options: Options) -> Options {
    Options { torn_tail: OnTornTail::Refuse, ..options }
}

/// Opens a log of which nothing is ever deleted.
fn open_log(path: &Path, options: Options) -> Result<SegmentLog, NodeError> {
    let first = options.first_sequence;
    let (log, _) = SegmentLog::open(path, options)?;
    check_beginning(path, first, log.first_sequence())?;
    Ok(log)
}

/// Leading segments that are lost look like deleted ones.
pub(crate) fn check_beginning(path: &Path, first: u64, found: u64) -> Result<(), NodeError> {
    if found == first {
        return Ok(());
    }
    Err(NodeError::Damaged(format!(
        "{} begins with record {found} instead of {first}: leading segments were lost. Restore them",
        path.display()
    )))
}

/// What a guard would have to promise for the data as it is: for `chopmark admin guard adopt`.
/// The node must not be running.
pub fn promise_of_data(data: &Path) -> Result<Promise, NodeError> {
    let layout = Layout(data.to_owned());
    let mut promise = Promise::none(layout.read_genesis()?.chain_id());
    // Refused while a node writes; changes nothing, whatever the end of a log looks like.
    let (blocks, _) = SegmentLog::open(layout.blocks(), read_only(block_log_options()))?;
    let (checkpoints, _) = SegmentLog::open(layout.checkpoints(), read_only(Options::default()))?;
    // The guard will vouch for what is read here: it must not be gone after a power failure.
    for folder in [layout.blocks(), layout.checkpoints()] {
        sync_files(&folder).map_err(NodeError::io("sync", &folder))?;
    }
    let tip = blocks.next_sequence() - 1;
    if tip > 0
        && let Some(bytes) = blocks.read(tip)?
    {
        let block = Block::decode(&bytes).map_err(|error| NodeError::Damaged(format!("block {tip}: {error}")))?;
        (promise.height, promise.decided) = (tip, tip);
        promise.round = block.certificate.round;
        promise.votes = [Some(Some(block.certificate.value)); 3];
    }
    if let Some(last) = checkpoints.next_sequence().checked_sub(1)
        && let Some(bytes) = checkpoints.read(last)?
    {
        let record = CheckpointRecord::decode(&bytes)
            .map_err(|error| NodeError::Damaged(format!("checkpoint record {last}: {error}")))?;
        let checkpoint = record.signed()?.checkpoint;
        (promise.size, promise.root) = (checkpoint.size, checkpoint.root);
    }
    Ok(promise)
}

fn sync_files(folder: &Path) -> io::Result<()> {
    for item in fs::read_dir(folder)? {
        File::open(item?.path())?.sync_all()?;
    }
    File::open(folder)?.sync_all()
}

fn check_guard_height(guard: &Guard, tip: u64) -> Result<(), NodeError> {
    let Promise { height: promised, decided, .. } = *guard.promise();
    // A vote for the next height is the trace of a crash between vote and commit point. A block of
    // which anybody was told is not.
    if decided > tip || promised > tip + 1 {
        let height = decided.max(promised);
        return Err(guard.refuse(&format!(
            "remembers height {height}, but the data ends at height {tip}: the data directory is an older \
             copy. Restore the newest copy. Only if it is lost for good, and accepting that this member then has \
             signed a history that it no longer holds, run `chopmark admin guard adopt`"
        )));
    }
    Ok(())
}

fn check_guard_root(
    shared: &Arc<Shared>,
    peers: &Peers,
    guard: &Guard,
    parent: &Parent,
    alone: bool,
) -> Result<(), NodeError> {
    let promise = guard.promise();
    let size = parent.frontier.size();
    if promise.size > size && !alone {
        return Ok(());
    }
    if promise.size > size {
        return Err(guard.refuse(&format!(
            "remembers a signature for tree size {}, but the data ends at size {}: the data directory is an older copy. \
             Restore the newest copy. Only if it is lost for good, and accepting that this member then has signed a \
             history that it no longer holds, run `chopmark admin guard adopt`",
            promise.size.0, size.0
        )));
    }
    if promise.size.0 > 0 && !repair::had_root(shared, peers, promise.size, &promise.root)? {
        return Err(guard.refuse(&format!(
            "remembers another root for tree size {} than the data has: the data is damaged or of another history. \
             Run `chopmark fsck`",
            promise.size.0
        )));
    }
    Ok(())
}

fn apply_genesis(store: &Derived, born: &Executed) -> Result<Applied, NodeError> {
    let header = &born.header;
    let applied = Applied {
        height: 0,
        header: header.hash(),
        size: TreeSize(header.tree_size),
        root: header.root,
        time: header.time,
        checkpoints: 0,
    };
    let keys = index_keys(0, &born.entries);
    let effects =
        BlockEffects { height: 0, first_index: 0, entries: &born.entries, keys: &keys, changes: &born.changes };
    store.apply(&[effects], &[], &born.entries, applied)?;
    Ok(applied)
}

/// Executes the blocks that the index does not have, checking each against its header.
fn replay(shared: &Shared, mut parent: Parent, tip: u64) -> Result<Parent, NodeError> {
    let damaged = |height: u64, what: &str| NodeError::Damaged(format!("block {height} in the block log: {what}"));
    if parent.height > 0 {
        let bytes = shared.blocks.read(parent.height)?.unwrap_or_default();
        let block = Block::decode(&bytes).map_err(|error| damaged(parent.height, &error.to_string()))?;
        if block.header.hash() != parent.hash {
            return Err(damaged(parent.height, "it is not the block that the index was made from"));
        }
    }
    let known = parent.height;
    let next = known + 1 + u64::from(has(Bug::ReplaySkipsABlock));
    for height in next..=tip {
        if shared.damage.is_closed() {
            return Err(NodeError::Stopped);
        }
        let bytes = shared.blocks.read(height)?.ok_or_else(|| damaged(height, "missing"))?;
        let block = Block::decode(&bytes).map_err(|error| damaged(height, &error.to_string()))?;
        let executed = check_block(shared, &parent, &block).map_err(|error| {
            if known == 0 {
                return damaged(height, &error.to_string());
            }
            // Either of the two is damaged; the next start knows which, for it does without the index.
            shared.state.store.mark(&format!("block {height} does not follow from it: {error}"));
            damaged(height, &format!("it does not follow from the index, start again to have that made anew: {error}"))
        })?;
        parent = commit(shared, block, executed, bytes.len())?;
    }
    Ok(parent)
}

/// Executes a stored block again and compares everything that it claims.
fn check_block(shared: &Shared, parent: &Parent, block: &Block) -> Result<Executed, NodeError> {
    check_block_in(&shared.state, &shared.chain, parent, block)
}

/// Executes a stored block on `state` and compares header, certificate and verdicts.
pub(crate) fn check_block_in(
    state: &impl ledger_core::state::StateRead,
    chain: &Hash32,
    parent: &Parent,
    block: &Block,
) -> Result<Executed, NodeError> {
    let header = &block.header;
    let executed = execute(state, parent, chain, &block.batch, header.time, header.state)?;
    if executed.header != *header {
        return Err(NodeError::Diverged { height: header.height, field: "header" });
    }
    let verdicts = executed.outcomes.iter().map(|outcome| outcome.verdict);
    if !verdicts.eq(block.verdicts.iter().copied()) {
        return Err(NodeError::Diverged { height: header.height, field: "verdicts" });
    }
    let in_force = match executed.changes.get(ledger_core::state::key::MEMBERS) {
        Some(Some(bytes)) => ledger_core::json::from_canonical(bytes)
            .map_err(|_| NodeError::Damaged(format!("members at height {}", header.height)))?,
        _ => members(state)?,
    };
    block
        .certificate
        .verify(chain, header.height, &header.hash(), &in_force)
        .map_err(|error| NodeError::Damaged(format!("block {}: {error}", header.height)))?;
    Ok(executed)
}

/// A crash can have lost the digest of a snapshot height that a coming header needs: it is made
/// again from the block log.
fn restore_state_digests(shared: &Arc<Shared>, tip: u64) -> Result<(), NodeError> {
    let needed = tip - tip % STATE_DIGEST_INTERVAL;
    if needed == 0 || shared.state.store.stored_state_digest(needed)?.is_some() {
        return Ok(());
    }
    let shared = Arc::clone(shared);
    spawn("state-digest", move || {
        let digest = crate::fsck::state_digest_at(&shared.genesis, &shared.blocks, needed);
        let stored = digest.and_then(|digest| shared.state.store.store_state_digest(needed, digest));
        if let Err(error) = stored {
            shared.fail(&error);
        }
    })?;
    Ok(())
}

/// Checks the checkpoints that the index does not have against the tree, and publishes the last.
fn restore_checkpoints(
    shared: &Arc<Shared>,
    peers: &Peers,
    log: &SegmentLog,
    parent: &Parent,
    indexed: u64,
) -> Result<TreeSize, NodeError> {
    let end = log.next_sequence();
    if indexed > end {
        return Err(NodeError::Damaged("the index knows checkpoints that the checkpoint log does not hold".to_owned()));
    }
    let mut last = None;
    for number in indexed.min(end.saturating_sub(1))..end {
        let damaged = |what: &str| NodeError::Damaged(format!("checkpoint record {number}: {what}"));
        let bytes = log.read(number)?.ok_or_else(|| damaged("missing"))?;
        let record = CheckpointRecord::decode(&bytes).map_err(|error| damaged(&error.to_string()))?;
        let checkpoint = record.signed()?.checkpoint;
        if checkpoint.size > parent.frontier.size() {
            return Err(damaged("it covers more than the block log holds"));
        }
        if !repair::had_root(shared, peers, checkpoint.size, &checkpoint.root)? {
            return Err(damaged("its root is not that of the tree"));
        }
        if number >= indexed {
            shared.recent.write().insert_checkpoint(checkpoint.size, number);
            shared.backlog.push(derive::Work::Checkpoint { size: checkpoint.size, record: number })?;
        }
        last = Some((record, checkpoint));
    }
    let Some((record, checkpoint)) = last else { return Ok(TreeSize(0)) };
    let published =
        Published { height: record.height, size: checkpoint.size, root: checkpoint.root, note: record.note };
    let signed = published.size;
    shared.publish(published);
    Ok(signed)
}

#[cfg(test)]
mod tests;
