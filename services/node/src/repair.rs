//! Repair: the thread that heals what is damaged.
//!
//! Votes rest on the state, the block log's end and the edge in memory, not on tiles or index, so
//! voting goes on meanwhile; signing does not. Hash tiles are made again from the level below; what
//! only others have is asked of peers and never believed: it is written when it leads to the root
//! that the edge in memory vouches for. A node that is alone executes its block log again instead.
//! Index entries are made again from the entries and the logs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use ledger_core::{
    Hash32,
    merkle::{LeafIndex, TreeSize, root_at},
    tile::{TILE_LEVELS_MAX, TILE_WIDTH, TileKind, TilePath, decode_hashes, encode_hashes, perfect_root},
};
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::{
    NodeError, NodeHandle,
    bugs::{Bug, has},
    damage::Part,
    derived::{Applied, IndexKey, index_keys},
    handle::{CheckpointRecord, Shared},
    scrub::Scrub,
    tail::{Tail, Tree, hashes_of, incomplete_tiles},
    tiles::{FullTile, TileFiles, full},
};

/// Pause before a part that could not be healed is tried again; it doubles each time.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// How often peers are asked at the start, a second apart, until the node refuses to run: they may be
/// starting too. The simulated world stands still meanwhile, and starts the node again instead.
const START_ATTEMPTS: usize = if cfg!(test) { 1 } else { 30 };
/// How soon a start that is to end sees it.
const STOP_INTERVAL: Duration = Duration::from_millis(50);
/// A node that is alone makes a bundle again by executing the block log, with the state in memory:
/// 200 MB for so many entries. Beyond that a person decides.
const REPLAY_ENTRIES_MAX: u64 = 1_000_000;
/// Where a node asks for a tile or bundle that it lost. Nothing that comes is trusted.
pub trait PeerTiles: Send + Sync {
    /// Who is asked, for log and metrics.
    fn name(&self) -> &str;

    /// The bytes of a tile or bundle, or why there are none. Blocks, for a bounded time; the answer is
    /// bounded too.
    fn tile(&self, path: &TilePath) -> Result<Vec<u8>, String>;

    /// What the last calls brought does not lead to the root: where this stands for several, another
    /// one is to be asked.
    fn blame(&self) {}
}

/// Another member's node in this process.
pub struct LocalPeer {
    name: String,
    node: RwLock<Weak<Shared>>,
}

impl LocalPeer {
    /// A peer whose node is not open yet.
    #[must_use]
    pub fn new(name: String) -> Self {
        Self { name, node: RwLock::default() }
    }

    /// Takes the peer's node, now that it is open.
    pub fn connect(&self, node: &NodeHandle) {
        *self.node.write() = Arc::downgrade(&node.0);
    }
}

impl PeerTiles for LocalPeer {
    fn name(&self) -> &str {
        &self.name
    }

    fn tile(&self, path: &TilePath) -> Result<Vec<u8>, String> {
        let node = self.node.read().upgrade().ok_or("it is not open")?;
        let tile = NodeHandle(node).tile(*path).map_err(|error| error.to_string())?;
        tile.ok_or_else(|| "it does not have it yet".to_owned())
    }
}

/// The peers that are asked, in turns.
pub(crate) type Peers = [Arc<dyn PeerTiles>];

/// Heals and scrubs until the node closes.
pub(crate) fn run(shared: &Arc<Shared>, peers: &Peers) {
    let (started, mut repair) = (Instant::now(), Repair::new());
    metrics::gauge!("chopmark_node_damaged_parts").set(shared.damage.parts().len() as f64);
    while !shared.damage.is_closed() {
        let next = repair.step(shared, peers, || started.elapsed());
        shared.damage.wait(next.saturating_sub(started.elapsed()));
    }
}

/// What the repair remembers from one pass to the next. It has no clock of its own: times are since
/// any moment that stays the same.
pub(crate) struct Repair {
    turn: usize,
    retries: Retries,
    pub(crate) scrub: Scrub,
}

impl Repair {
    /// Looks at everything that is known in its first pass.
    pub(crate) fn new() -> Self {
        Self { turn: 0, retries: Retries::default(), scrub: Scrub::new() }
    }

    /// One pass: heals what was noted since the last one, and what is due to be tried again, then
    /// scrubs a step if that is due. Returns when the next pass is due, unless something is noted.
    pub(crate) fn step(&mut self, shared: &Arc<Shared>, peers: &Peers, now: impl Fn() -> Duration) -> Duration {
        let mut parts = shared.damage.fresh();
        parts.extend(self.retries.due(shared.damage.parts(), now()));
        if !parts.is_empty() {
            // First: a restart amid the healing must not forget it.
            keep(shared);
            let mut healer = Healer { shared, peers, turn: self.turn };
            healer.heal(&parts);
            self.turn = healer.turn;
            keep(shared);
            self.retries.tried(&parts, shared.damage.parts(), now());
            // The ledger may sign again.
            shared.pool.changed().notify_one();
        }
        if now() >= self.scrub.due() {
            self.scrub.step(shared, now());
        }
        self.retries.next().map_or(self.scrub.due(), |retry_at| self.scrub.due().min(retry_at))
    }
}

/// When each damaged part is tried again, on the clock of [`Repair`]: one that nobody has must not hold
/// up what can be healed.
#[derive(Default)]
struct Retries(BTreeMap<Part, Retry>);

struct Retry {
    at: Duration,
    /// What was waited before that.
    pause: Duration,
}

impl Retries {
    /// Which of the damaged parts are to be tried now; forgets those that are damaged no more.
    fn due(&mut self, damaged: Vec<Part>, now: Duration) -> Vec<Part> {
        let damaged: BTreeSet<Part> = damaged.into_iter().collect();
        self.0.retain(|part, _| damaged.contains(part));
        damaged.into_iter().filter(|part| self.0.get(part).is_none_or(|retry| retry.at <= now)).collect()
    }

    /// Puts off those of `parts` that are damaged still.
    fn tried(&mut self, parts: &BTreeSet<Part>, damaged: Vec<Part>, now: Duration) {
        for part in damaged.into_iter().filter(|part| parts.contains(part)) {
            let before = self.0.get(&part).map(|retry| retry.pause);
            let pause = before.map_or(RETRY_FIRST, |before| (2 * before).min(RETRY_MAX));
            self.0.insert(part, Retry { at: now + pause, pause });
        }
    }

    fn next(&self) -> Option<Duration> {
        self.0.values().map(|retry| retry.at).min()
    }
}

/// Writes down what is known to be damaged. A disk that does not take it keeps nothing from healing.
fn keep(shared: &Shared) {
    if let Err(error) = shared.damage.keep() {
        tracing::warn!(%error, "what is damaged is not written down");
    }
}

/// Heals parts at the start, before there is a thread for it, while peers may be starting too.
pub(crate) fn heal_at_start(shared: &Arc<Shared>, peers: &Peers, parts: &BTreeSet<Part>) -> bool {
    let mut healer = Healer { shared, peers, turn: 0 };
    for attempt in 0..if peers.is_empty() { 1 } else { START_ATTEMPTS } {
        if attempt > 0 && !rest(|| shared.damage.is_closed()) {
            break;
        }
        if healer.heal(parts) {
            return true;
        }
    }
    false
}

/// Waits until it is time to try again; false where it is time to end.
fn rest(is_over: impl Fn() -> bool) -> bool {
    let until = Instant::now() + RETRY_FIRST;
    while !is_over() && Instant::now() < until {
        std::thread::sleep(STOP_INTERVAL);
    }
    !is_over()
}

/// The edge at the start: from full tiles, or where they do not lead to the root, from what lies below
/// them, or from a peer's tiles.
pub(crate) fn restore_edge(
    applied: &Applied,
    entries: &[Vec<u8>],
    files: &TileFiles,
    peers: &Peers,
    stop: &watch::Receiver<bool>,
) -> Result<Tail, NodeError> {
    let leads = |tail: Result<Tail, NodeError>| {
        let tail = RwLock::new(tail?);
        let root = Tree { tail: &tail, files }.frontier(applied.size)?.root();
        if root == applied.root { Ok(tail.into_inner()) } else { Err(not_to_root(files, applied)) }
    };
    let refused = match leads(Tail::load(applied.size, entries.to_vec(), files)) {
        Ok(tail) => return Ok(tail),
        Err(error) => error,
    };
    tracing::warn!(error = %refused, "the right edge is restored from what lies below it");
    let nothing = RwLock::default();
    let tree = Tree { tail: &nothing, files };
    for make in [from_below, from_two_below] {
        let below = Tail::assemble(applied.size, entries.to_vec(), |level, children| {
            let roots = children.map(|child| make(&tree, TileKind::Hashes(level - 1), child));
            roots.map(|tile| tile.map(|hashes| perfect_root(&hashes))).collect()
        });
        if let Ok(tail) = leads(below) {
            return Ok(tail);
        }
    }
    for attempt in 0..START_ATTEMPTS {
        if attempt > 0 && !peers.is_empty() && !rest(|| *stop.borrow()) {
            return Err(NodeError::Stopped);
        }
        for peer in peers {
            // All of it from one peer: parts of two trees lead nowhere, and which one is wrong would not show.
            let tail = Tail::assemble(applied.size, entries.to_vec(), |level, children| {
                let width = u16::try_from(children.end - children.start).unwrap_or_default();
                let path = TilePath { kind: TileKind::Hashes(level), index: children.end / TILE_WIDTH, width };
                let bytes = peer.tile(&path).map_err(NodeError::Damaged)?;
                decode_hashes(&bytes, usize::from(width)).ok_or_else(|| NodeError::Damaged("malformed".to_owned()))
            });
            match leads(tail) {
                Ok(tail) => {
                    tracing::warn!(peer = peer.name(), "the right edge is restored from a peer");
                    return Ok(tail);
                }
                Err(error) => {
                    tracing::warn!(peer = peer.name(), %error, "a peer's tiles do not restore the edge");
                    peer.blame();
                }
            }
        }
    }
    Err(refused)
}

fn not_to_root(files: &TileFiles, applied: &Applied) -> NodeError {
    NodeError::Damaged(format!(
        "the tiles in {} do not lead to the root of height {}; run `chopmark fsck`",
        files.root().display(),
        applied.height
    ))
}

/// Full tiles whose roots the edge holds: what the start has read.
pub(crate) fn under_edge(size: TreeSize) -> impl Iterator<Item = (TileKind, u64)> {
    incomplete_tiles(size).flat_map(|(level, children)| children.map(move |at| (TileKind::Hashes(level - 1), at)))
}

/// Whether the tree had this root at `size`; where it seems not, what it is read from is healed first.
pub(crate) fn had_root(shared: &Arc<Shared>, peers: &Peers, size: TreeSize, root: &Hash32) -> Result<bool, NodeError> {
    let read = root_at(size, &shared.tree());
    if matches!(&read, Ok(read) if read == root) {
        return Ok(true);
    }
    let last = LeafIndex(size.0.saturating_sub(1));
    let unsound = unsound(shared, shared.tree().on_path(last, size))?;
    if unsound.is_empty() {
        return Ok(read? == *root);
    }
    if !heal_at_start(shared, peers, &unsound) {
        if shared.damage.is_closed() {
            return Err(NodeError::Stopped);
        }
        read?;
        return Ok(false);
    }
    Ok(root_at(size, &shared.tree())? == *root)
}

/// Notes which of these tiles and bundles are damaged.
pub(crate) fn unsound(
    shared: &Shared,
    parts: impl IntoIterator<Item = (TileKind, u64)>,
) -> Result<BTreeSet<Part>, NodeError> {
    let mut unsound = BTreeSet::new();
    for (kind, index) in parts {
        match shared.tree().check(kind, index) {
            Err(NodeError::DamagedPart { part, reason }) => {
                shared.damage.note(part, &reason);
                unsound.insert(part);
            }
            other => other?,
        }
    }
    Ok(unsound)
}

/// A hash tile, made from the bundle or the tiles below it.
fn from_below(tree: &Tree<'_>, kind: TileKind, index: u64) -> Result<Vec<Hash32>, NodeError> {
    match kind {
        TileKind::Hashes(0) => {
            let bytes = tree.files.read(TileKind::Entries, index)?;
            let leaves = hashes_of(TileKind::Entries, &bytes);
            leaves.ok_or_else(|| tree.files.damaged(TileKind::Entries, index, "is malformed"))
        }
        TileKind::Hashes(level) => {
            let children = index * TILE_WIDTH..(index + 1) * TILE_WIDTH;
            children.map(|child| tree.tile_root(level - 1, child)).collect()
        }
        TileKind::Entries => Err(NodeError::Damaged("nothing lies below a bundle".to_owned())),
    }
}

/// The same where tiles below are damaged too, and what lies below them is not.
fn from_two_below(tree: &Tree<'_>, kind: TileKind, index: u64) -> Result<Vec<Hash32>, NodeError> {
    let TileKind::Hashes(level @ 1..) = kind else { return from_below(tree, kind, index) };
    let children = index * TILE_WIDTH..(index + 1) * TILE_WIDTH;
    let root = |child| Ok(perfect_root(&from_below(tree, TileKind::Hashes(level - 1), child)?));
    children.map(root).collect()
}

/// Whether a bundle is made again from the block log: where there is nobody to ask.
pub(crate) fn is_replayable(shared: &Shared) -> bool {
    !shared.has_peers && shared.tail.read().size().0 <= REPLAY_ENTRIES_MAX
}

struct Healer<'a> {
    shared: &'a Arc<Shared>,
    peers: &'a Peers,
    /// Which peer is asked first: another one after each that did not help.
    turn: usize,
}

impl Healer<'_> {
    /// Whether all of these are sound now.
    fn heal(&mut self, parts: &BTreeSet<Part>) -> bool {
        let mut all = true;
        let mut settle = |healer: &Self, part: &Part, result: Result<(), NodeError>| match result {
            Ok(()) => healer.shared.damage.healed(part),
            Err(_) if has(Bug::ForgetsWhatIsNotHealed) => healer.shared.damage.healed(part),
            Err(error) => {
                tracing::warn!(%part, %error, "not healed yet");
                all = false;
            }
        };
        let keys: BTreeSet<IndexKey> =
            parts.iter().filter_map(|part| if let Part::Key(key) = part { Some(*key) } else { None }).collect();
        for part in parts {
            let result = match part {
                Part::Tile(kind, index) => self.tile(*kind, *index),
                Part::BlockOf(index) => self.block_of(*index),
                Part::CheckpointOver(index) => self.checkpoint_over(*index),
                // Nobody here can make it again; a person may have put it back.
                Part::Block(height) => self.shared.stored_block(*height).map(drop),
                Part::Key(_) => continue,
            };
            settle(self, part, result);
        }
        // Last: the entries that they are made from are sound by now, if they can be.
        if !keys.is_empty() {
            let result = self.keys(&keys);
            let reason = result.as_ref().err().map(ToString::to_string);
            for key in &keys {
                settle(self, &Part::Key(*key), reason.clone().map_or(Ok(()), |reason| Err(NodeError::Damaged(reason))));
            }
        }
        all
    }

    fn tile(&mut self, kind: TileKind, index: u64) -> Result<(), NodeError> {
        let tree = self.shared.tree();
        if tree.is_in_memory(kind, index) {
            return Ok(());
        }
        let mut root = tree.vouched_root(kind, index);
        // What vouches for it may be damaged itself: at most once a level.
        for _ in 0..TILE_LEVELS_MAX {
            let Err(NodeError::DamagedPart { part: above @ Part::Tile(kind_above, at), reason }) = &root else { break };
            self.shared.damage.note(*above, reason);
            self.tile(*kind_above, *at)?;
            self.shared.damage.healed(above);
            root = tree.vouched_root(kind, index);
        }
        let root = root?;
        let fits = |bytes: &[u8]| hashes_of(kind, bytes).is_some_and(|hashes| perfect_root(&hashes) == root);
        if self.shared.files.read(kind, index).is_ok_and(|bytes| fits(&bytes)) {
            return Ok(());
        }
        let local = [from_below, from_two_below].into_iter();
        let mut local = local.filter_map(|make| Some(encode_hashes(&make(&tree, kind, index).ok()?)));
        let bytes = match local.find(|bytes| fits(bytes)) {
            Some(bytes) => bytes,
            None if kind == TileKind::Entries && is_replayable(self.shared) => self.replay(index, fits)?,
            None => self.ask(kind, index, fits)?,
        };
        if has(Bug::HealsInPlace) {
            let path = self.shared.files.path(kind, index);
            std::fs::write(&path, &bytes).map_err(NodeError::io("write tile", &path))?;
        } else {
            let at = if has(Bug::RepairsTheTileBeside) { index ^ 1 } else { index };
            self.shared.files.write(&[FullTile { kind, index: at, bytes }])?;
        }
        // Read back: a disk that damaged it once may do so again.
        tree.check(kind, index)
    }

    /// Bytes that fit, from any peer.
    fn ask(&mut self, kind: TileKind, index: u64, fits: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>, NodeError> {
        let path = full(kind, index);
        for _ in self.peers {
            if self.shared.damage.is_closed() {
                break;
            }
            let peer = &self.peers[self.turn % self.peers.len()];
            match peer.tile(&path) {
                Ok(bytes) if fits(&bytes) || has(Bug::RepairBelievesPeers) => {
                    tracing::info!(peer = peer.name(), path = path.path(), "fetched from a peer");
                    return Ok(bytes);
                }
                Ok(_) => {
                    tracing::warn!(peer = peer.name(), path = path.path(), "a peer serves what is not of the tree");
                    metrics::counter!("chopmark_node_repair_refused_total", "peer" => peer.name().to_owned())
                        .increment(1);
                    peer.blame();
                }
                Err(error) => {
                    tracing::warn!(peer = peer.name(), path = path.path(), error, "a peer does not help");
                }
            }
            self.turn += 1;
        }
        let why = if self.peers.is_empty() { "there is no peer to ask" } else { "no peer has it" };
        Err(self.shared.files.damaged(kind, index, &format!("is damaged, and {why}")))
    }

    /// A bundle, made again from the block log.
    fn replay(&self, bundle: u64, fits: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>, NodeError> {
        let shared = self.shared;
        let stop = || shared.damage.is_closed();
        let bytes = crate::fsck::bundle_at(&shared.genesis, &shared.blocks, bundle, stop)?;
        let damaged =
            || shared.files.damaged(TileKind::Entries, bundle, "is damaged, and the block log does not give it");
        bytes.filter(|bytes| fits(bytes)).ok_or_else(damaged)
    }

    /// Makes the positions of these keys again from the entries.
    fn keys(&self, keys: &BTreeSet<IndexKey>) -> Result<(), NodeError> {
        let store = &self.shared.state.store;
        let mut positions: BTreeMap<IndexKey, Vec<u64>> = keys.iter().map(|key| (*key, Vec::new())).collect();
        let mut scan = |from: u64, end: u64| {
            let mut at = from;
            while at < end {
                if self.shared.damage.is_closed() {
                    return Err(NodeError::Damaged("the node is closing".to_owned()));
                }
                let until = end.min((at / TILE_WIDTH + 1) * TILE_WIDTH);
                let entries = self.shared.tree().entries(at, until).map_err(|error| self.shared.noted(error))?;
                for (key, index) in index_keys(at, &entries) {
                    if let Some(known) = positions.get_mut(&key) {
                        known.push(index);
                    }
                }
                at = until;
            }
            Ok::<(), NodeError>(())
        };
        let most = store.applied()?.map_or(0, |applied| applied.size.0);
        scan(0, most)?;
        // What the derive thread indexed meanwhile is added while it waits.
        let held = store.hold();
        let rest = store.applied()?.map_or(0, |applied| applied.size.0);
        scan(most, rest)?;
        store.replace_positions(&held, &positions)
    }

    /// Makes the mapping of an entry to its block again from the block log.
    fn block_of(&self, index: LeafIndex) -> Result<(), NodeError> {
        let size_of = |height: u64| match height {
            0 => Ok(ledger_core::entry::genesis_entries(&self.shared.genesis).len() as u64),
            _ => Ok(self.shared.stored_block(height).map_err(|error| self.shared.noted(error))?.0.header.tree_size),
        };
        let store = &self.shared.state.store;
        let held = store.hold();
        let applied = store.applied()?.map_or(0, |applied| applied.height);
        let height = first_above(0, applied, index.0, size_of)?;
        let end = size_of(height)?;
        let start = height.checked_sub(1).map_or(Ok(0), size_of)?;
        store.replace_block_of(&held, start, end, height)
    }

    /// Makes the mapping of an entry to the first checkpoint over it again from the checkpoint log.
    fn checkpoint_over(&self, index: LeafIndex) -> Result<(), NodeError> {
        let size_of = |record: u64| {
            let bytes = self.shared.checkpoints.read(record)?.unwrap_or_default();
            let decoded = CheckpointRecord::decode(&bytes)
                .map_err(|error| NodeError::Damaged(format!("checkpoint record {record}: {error}")))?;
            Ok(decoded.signed()?.checkpoint.size.0)
        };
        let store = &self.shared.state.store;
        let held = store.hold();
        let indexed = store.applied()?.map_or(0, |applied| applied.checkpoints);
        let last = indexed.checked_sub(1).ok_or_else(|| NodeError::Damaged("no checkpoint is indexed".to_owned()))?;
        let record = first_above(0, last, index.0, size_of)?;
        let end = size_of(record)?;
        let start = record.checked_sub(1).map_or(Ok(0), size_of)?;
        store.replace_checkpoint_over(&held, start, end, record)
    }
}

/// The first number from `low` to `high` whose size is above `index`; sizes never fall.
fn first_above(
    mut low: u64,
    mut high: u64,
    index: u64,
    size_of: impl Fn(u64) -> Result<u64, NodeError>,
) -> Result<u64, NodeError> {
    while low < high {
        let middle = low + (high - low) / 2;
        if size_of(middle)? > index {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_nobody_has_does_not_hold_up_another() {
        let (lost, other) = (Part::Block(1), Part::Tile(TileKind::Entries, 2));
        let (mut retries, mut now) = (Retries::default(), Duration::ZERO);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            assert_eq!(retries.due(vec![lost], now), [lost]);
            retries.tried(&BTreeSet::from([lost]), vec![lost], now);
            let next = retries.next().unwrap();
            assert!(retries.due(vec![lost], next - Duration::from_millis(1)).is_empty());
            pauses.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        retries.tried(&BTreeSet::from([lost]), vec![lost], now);

        // Another one that did not heal at once is tried again as soon as if it were alone.
        assert_eq!(retries.due(vec![lost, other], now), [other]);
        retries.tried(&BTreeSet::from([other]), vec![lost, other], now);
        assert_eq!(retries.next(), Some(now + RETRY_FIRST));
        assert_eq!(retries.due(vec![lost, other], now + RETRY_FIRST), [other]);
        // Healed and damaged again, it begins anew.
        assert!(retries.due(vec![lost], now + RETRY_FIRST).is_empty());
        assert_eq!(retries.due(vec![lost, other], now + RETRY_FIRST), [other]);
    }
}
