//! The offline check: derives everything again from the block log and compares it with what is
//! stored. Changes nothing; names file and index of whatever differs.
//!
//! The state is held in memory meanwhile: about 200 bytes an operation.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use ledger_core::{
    Hash32,
    block::{Block, STATE_DIGEST_INTERVAL},
    execute::{Parent, execute_genesis},
    genesis::Genesis,
    member::MemberSet,
    merkle::{LeafIndex, TreeSize},
    policy_file::PolicyFile,
    state::{StateDigest, apply_changes, key, members},
    tile::{TILE_WIDTH, TileKind, TilePath, decode_bundle, push_entry},
};
use parking_lot::RwLock;
use segment_log::{Options, SegmentLog, SegmentReader};

use crate::{
    NodeError,
    derived::{Applied, Derived, index_keys},
    guard::Guard,
    handle::CheckpointRecord,
    open::{BLOCK_FIRST, Layout, block_log_options, check_beginning, check_block_in, read_only},
    tail::Tail,
    tiles::{FullTile, TileFiles},
};

type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// Findings beyond this number are counted, not listed.
const FINDINGS_MAX: usize = 1000;

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// Leaf index, height or record number, with its name.
    pub at: Option<(&'static str, u64)>,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some((name, number)) = self.at {
            write!(f, " {name} {number}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// What the check saw.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Last height of the block log.
    pub height: u64,
    /// Entries of the log.
    pub size: u64,
    /// Stored checkpoints.
    pub checkpoints: u64,
    /// Tiles and bundles compared.
    pub tiles: u64,
    /// Everything that is wrong; empty means sound.
    pub findings: Vec<Finding>,
}

impl Report {
    fn add(&mut self, file: impl Into<PathBuf>, at: Option<(&'static str, u64)>, what: impl Into<String>) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { file: file.into(), at, what: what.into() });
        }
    }
}

/// Checks a node's data directory, and its guard when given. The node must not be running.
pub fn fsck(data: &Path, guard: Option<&Path>) -> Result<Report, NodeError> {
    let layout = Layout(data.to_owned());
    let genesis = layout.read_genesis()?;
    let mut report = Report::default();
    let (blocks, found) = match SegmentLog::open(layout.blocks(), read_only(block_log_options())) {
        Ok(opened) => opened,
        Err(error @ segment_log::Error::Locked { .. }) => return Err(error.into()),
        Err(error) => {
            report.add(layout.blocks(), None, error.to_string());
            return Ok(report);
        }
    };
    if let Some(torn) = found.torn {
        report.add(torn.file, Some(("height", torn.sequence)), format!("unfinished write: {}", torn.flaw));
    }
    if let Err(error) = check_beginning(&layout.blocks(), BLOCK_FIRST, found.first_sequence) {
        report.add(layout.blocks(), Some(("height", found.first_sequence)), error.to_string());
        return Ok(report);
    }
    if let Err(error) = blocks.verify_all() {
        report.add(layout.blocks(), None, error.to_string());
        return Ok(report);
    }
    let store = if Derived::is_finished(&layout.derived()) { Some(Derived::open(&layout.derived())?) } else { None };
    let applied = store.as_ref().map(Derived::applied).transpose()?.flatten();
    let mut check = Check::new(&layout, &genesis, applied);
    check.genesis(&mut report, &genesis, store.as_ref())?;
    for height in 1..blocks.next_sequence() {
        if !check.block(&mut report, &blocks.reader(), height, store.as_ref())? {
            return Ok(report);
        }
    }
    report.height = check.parent.height;
    report.size = check.parent.frontier.size().0;
    check.checkpoints(&mut report, &layout, read_only(Options::default()), store.as_ref())?;
    check.leftovers(&mut report, &layout)?;
    if let Some(guard) = guard {
        check.guard(&mut report, guard);
    }
    Ok(report)
}

/// Digest of the whole state at `height`, from the block log alone.
pub(crate) fn state_digest_at(genesis: &Genesis, blocks: &SegmentReader, height: u64) -> Result<Hash32, NodeError> {
    let mut replay = Replay::new(genesis);
    for at in 1..=height {
        let bytes = blocks.read(at)?.ok_or_else(|| NodeError::Damaged(format!("block {at} is missing")))?;
        replay.step(&bytes)?;
    }
    Ok(digest(&replay.state))
}

/// A full bundle, from the block log alone; `None` once `stop` says so.
pub(crate) fn bundle_at(
    genesis: &Genesis,
    blocks: &SegmentReader,
    bundle: u64,
    stop: impl Fn() -> bool,
) -> Result<Option<Vec<u8>>, NodeError> {
    let (first, end) = (bundle * TILE_WIDTH, (bundle + 1) * TILE_WIDTH);
    let mut bytes = Vec::new();
    let mut take = |from: u64, entries: &[Vec<u8>]| {
        let wanted = (from..).zip(entries).filter(|(index, _)| (first..end).contains(index));
        wanted.for_each(|(_, entry)| push_entry(&mut bytes, entry));
    };
    take(0, &execute_genesis(genesis).entries);
    let mut replay = Replay::new(genesis);
    while replay.parent.frontier.size().0 < end {
        if stop() {
            return Ok(None);
        }
        let at = replay.parent.height + 1;
        let block = blocks.read(at)?.ok_or_else(|| NodeError::Damaged(format!("block {at} is missing")))?;
        let stepped = replay.step(&block)?;
        take(stepped.first, &stepped.entries);
    }
    Ok(Some(bytes))
}

fn digest(state: &State) -> Hash32 {
    let mut digest = StateDigest::default();
    state.iter().for_each(|(key, value)| digest.update(key, value));
    digest.finish()
}

/// The ledger, derived anew in memory.
struct Replay {
    chain: Hash32,
    state: State,
    parent: Parent,
    snapshot: Option<Hash32>,
}

struct Stepped {
    entries: Vec<Vec<u8>>,
    leaves: Vec<Hash32>,
    first: u64,
    /// The members in force from this block on, if they are others than before.
    members: Option<MemberSet>,
}

impl Replay {
    fn new(genesis: &Genesis) -> Self {
        let born = execute_genesis(genesis);
        let mut state = State::new();
        apply_changes(&mut state, born.changes);
        let parent = Parent { height: 0, time: born.header.time, hash: born.header.hash(), frontier: born.frontier };
        Self { chain: genesis.chain_id(), state, parent, snapshot: None }
    }

    fn step(&mut self, bytes: &[u8]) -> Result<Stepped, NodeError> {
        let height = self.parent.height + 1;
        let block = Block::decode(bytes).map_err(|error| NodeError::Damaged(format!("block {height}: {error}")))?;
        let executed = check_block_in(&self.state, &self.chain, &self.parent, &block)?;
        if height.is_multiple_of(STATE_DIGEST_INTERVAL) {
            if block.header.state != self.snapshot {
                return Err(NodeError::Diverged { height, field: "state" });
            }
        } else if block.header.state.is_some() {
            return Err(NodeError::Diverged { height, field: "state" });
        }
        let first = self.parent.frontier.size().0;
        let changed = executed.changes.contains_key(key::MEMBERS);
        apply_changes(&mut self.state, executed.changes);
        let members = changed.then(|| members(&self.state)).transpose()?;
        if height.is_multiple_of(STATE_DIGEST_INTERVAL) {
            self.snapshot = Some(digest(&self.state));
        }
        self.parent =
            Parent { height, time: block.header.time, hash: block.header.hash(), frontier: executed.frontier };
        Ok(Stepped { entries: executed.entries, leaves: executed.leaves, first, members })
    }
}

struct Check {
    replay: Replay,
    parent: Parent,
    files: TileFiles,
    tail: RwLock<Tail>,
    /// Root at the end of every block: checkpoints are of these sizes only.
    roots: BTreeMap<u64, Hash32>,
    /// Height of every block that added entries, by the size after it.
    heights: BTreeMap<u64, u64>,
    /// The policy of the members in force, by the height from which they are.
    policies: BTreeMap<u64, PolicyFile>,
    origin: String,
    derived: PathBuf,
    applied: Option<Applied>,
    index_keys: usize,
    genesis_size: TreeSize,
}

impl Check {
    fn new(layout: &Layout, genesis: &Genesis, applied: Option<Applied>) -> Self {
        let replay = Replay::new(genesis);
        Self {
            parent: replay.parent.clone(),
            genesis_size: replay.parent.frontier.size(),
            replay,
            files: TileFiles::new(layout.log()),
            tail: RwLock::default(),
            roots: BTreeMap::new(),
            heights: BTreeMap::new(),
            policies: BTreeMap::new(),
            origin: genesis.origin.clone(),
            derived: layout.derived(),
            applied,
            index_keys: 0,
        }
    }

    fn genesis(&mut self, report: &mut Report, genesis: &Genesis, store: Option<&Derived>) -> Result<(), NodeError> {
        let born = execute_genesis(genesis);
        let members = Some(genesis.members.clone());
        let stepped = Stepped { entries: born.entries, leaves: born.leaves, first: 0, members };
        self.take(report, stepped, store)?;
        self.compare_state(report, 0, store)
    }

    /// `false` when nothing behind this block can be judged.
    fn block(
        &mut self,
        report: &mut Report,
        blocks: &SegmentReader,
        height: u64,
        store: Option<&Derived>,
    ) -> Result<bool, NodeError> {
        let bytes = blocks.read(height)?.unwrap_or_default();
        let stepped = match self.replay.step(&bytes) {
            Ok(stepped) => stepped,
            Err(error) => {
                report.add("blocks", Some(("height", height)), error.to_string());
                return Ok(false);
            }
        };
        self.parent = self.replay.parent.clone();
        self.take(report, stepped, store)?;
        self.compare_state(report, height, store)?;
        Ok(true)
    }

    fn take(&mut self, report: &mut Report, stepped: Stepped, store: Option<&Derived>) -> Result<(), NodeError> {
        let indexed = self.applied.map_or(0, |applied| applied.size.0);
        for (key, index) in index_keys(stepped.first, &stepped.entries) {
            let Some(store) = store.filter(|_| index < indexed) else { continue };
            self.index_keys += 1;
            if !store.find(&key, LeafIndex(index), 1)?.contains(&LeafIndex(index)) {
                report.add(&self.derived, Some(("index", index)), "the index lacks the id or a digest of this entry");
            }
        }
        if !stepped.entries.is_empty() {
            self.heights.insert(self.parent.frontier.size().0, self.parent.height);
        }
        if let Some(members) = stepped.members {
            let policy = PolicyFile::parse(&PolicyFile::text_of_members(&self.origin, &members))
                .map_err(|error| NodeError::Damaged(error.to_string()))?;
            self.policies.insert(self.parent.height, policy);
        }
        let completed = {
            let mut tail = self.tail.write();
            for (leaf, entry) in stepped.leaves.iter().zip(stepped.entries) {
                tail.push(*leaf, entry);
            }
            tail.take_completed()
        };
        for tile in &completed {
            // A tile that the index does not vouch for yet is written again by the next start.
            let vouched = match tile.kind {
                TileKind::Entries => (tile.index + 1) * 256,
                TileKind::Hashes(level) => (tile.index + 1) << (8 * (u32::from(level) + 1)),
            } <= indexed;
            self.compare_tile(report, tile, vouched);
        }
        self.roots.insert(self.parent.frontier.size().0, self.parent.frontier.root());
        report.tiles += completed.len() as u64;
        self.tail.write().forget(&completed);
        Ok(())
    }

    fn compare_tile(&self, report: &mut Report, tile: &FullTile, vouched: bool) {
        let path = self.files.path(tile.kind, tile.index);
        match fs::read(&path) {
            Ok(bytes) if bytes == tile.bytes => {}
            Ok(bytes) => {
                let at = first_difference(tile, &bytes);
                report.add(path, Some(at), "differs from what the block log gives");
            }
            Err(error) if vouched || error.kind() != std::io::ErrorKind::NotFound => {
                report.add(path, Some(first_difference(tile, &[])), format!("cannot be read: {error}"));
            }
            Err(_) => {}
        }
    }

    fn compare_state(&self, report: &mut Report, height: u64, store: Option<&Derived>) -> Result<(), NodeError> {
        let (Some(store), Some(applied)) = (store, self.applied.filter(|applied| applied.height == height)) else {
            return Ok(());
        };
        if applied.header != self.parent.hash || applied.size != self.parent.frontier.size() {
            report.add(&self.derived, Some(("height", height)), "the high-water mark names another block");
        }
        let mut expected = self.replay.state.iter();
        for item in store.state_items() {
            let (key, value) = item?;
            if expected.next() != Some((&key, &value)) {
                report.add(
                    &self.derived,
                    Some(("height", height)),
                    format!("state differs at key {}", hex::encode(&key)),
                );
                return Ok(());
            }
        }
        if let Some((key, _)) = expected.next() {
            report.add(&self.derived, Some(("height", height)), format!("state lacks key {}", hex::encode(key)));
        }
        let keys = store.digest_keys()?;
        if keys != self.index_keys {
            let what = format!("the index has {keys} keys, the log gives {}", self.index_keys);
            report.add(&self.derived, Some(("height", height)), what);
        }
        if store.heights()? != self.heights {
            report.add(&self.derived, Some(("height", height)), "the heights by tree size differ");
        }
        if store.edge(applied.size)? != self.tail.read().incomplete_bundle() {
            report.add(&self.derived, Some(("height", height)), "the stored right edge differs");
        }
        Ok(())
    }

    fn checkpoints(
        &self,
        report: &mut Report,
        layout: &Layout,
        options: Options,
        store: Option<&Derived>,
    ) -> Result<(), NodeError> {
        let path = layout.checkpoints();
        let (log, found) = match SegmentLog::open(&path, options) {
            Ok(opened) => opened,
            Err(error) => {
                report.add(path, None, error.to_string());
                return Ok(());
            }
        };
        if let Some(torn) = found.torn {
            report.add(torn.file, Some(("record", torn.sequence)), format!("unfinished write: {}", torn.flaw));
        }
        if let Err(error) = check_beginning(&path, 0, found.first_sequence) {
            report.add(&path, Some(("record", found.first_sequence)), error.to_string());
        }
        let known = self.applied.map_or(0, |applied| applied.checkpoints);
        if log.next_sequence() < known {
            let what = format!("the log ends before record {known}, which the index has");
            report.add(&path, Some(("record", log.next_sequence())), what);
        }
        let (mut size, mut records) = (TreeSize(0), BTreeMap::new());
        for number in log.first_sequence()..log.next_sequence() {
            match self.checkpoint(&log, number, size) {
                Ok(next) => size = next,
                Err(what) => report.add(&path, Some(("record", number)), what),
            }
            if number < known {
                records.insert(size.0, number);
            }
            report.checkpoints += 1;
        }
        if let Some(store) = store
            && store.checkpoints()? != records
        {
            report.add(&self.derived, Some(("record", known)), "the checkpoints by tree size differ");
        }
        Ok(())
    }

    fn checkpoint(&self, log: &SegmentLog, number: u64, after: TreeSize) -> Result<TreeSize, String> {
        let bytes = log.read(number).map_err(|error| error.to_string())?.ok_or("missing")?;
        let record = CheckpointRecord::decode(&bytes).map_err(|error| error.to_string())?;
        let signed = record.signed().map_err(|error| error.to_string())?;
        let policy = self.policies.range(..=record.height).next_back();
        let (_, policy) = policy.ok_or_else(|| format!("height {} had no members", record.height))?;
        let checkpoint = &signed.checkpoint;
        if checkpoint.size < after {
            return Err(format!("size {} after size {}", checkpoint.size.0, after.0));
        }
        let root = self.roots.get(&checkpoint.size.0);
        let root =
            *root.ok_or_else(|| format!("size {} is not the end of a block in the block log", checkpoint.size.0))?;
        if root != checkpoint.root {
            return Err(format!("the root of size {} is not that of the log", checkpoint.size.0));
        }
        let signatures = signed.check_signatures(policy).map_err(|verdict| verdict.to_string())?;
        signatures.check_quorum(policy).map_err(|verdict| verdict.to_string())?;
        Ok(checkpoint.size)
    }

    /// Full tiles beyond the log: of another history, or of lost blocks.
    fn leftovers(&self, report: &mut Report, layout: &Layout) -> Result<(), NodeError> {
        let size = self.parent.frontier.size();
        let mut open = vec![layout.log()];
        while let Some(folder) = open.pop() {
            let Ok(items) = fs::read_dir(&folder) else { continue };
            for item in items {
                let path = item.map_err(NodeError::io("list folder", &folder))?.path();
                if path.is_dir() {
                    open.push(path);
                    continue;
                }
                let name = path.strip_prefix(layout.log()).ok().and_then(Path::to_str).and_then(TilePath::parse);
                let Some(tile) = name else {
                    // A temporary file of a crash; the next write of that tile replaces it.
                    if path.extension().is_none_or(|extension| extension != "tmp") {
                        report.add(path, None, "is not part of a log");
                    }
                    continue;
                };
                let level = match tile.kind {
                    TileKind::Hashes(level) => level,
                    TileKind::Entries => 0,
                };
                if (tile.index + 1) * 256 > ledger_core::tile::hashes_at(level, size) {
                    report.add(path, Some(("index", tile.index * 256)), "lies beyond the end of the log");
                }
            }
        }
        Ok(())
    }

    fn guard(&self, report: &mut Report, path: &Path) {
        let guard = match Guard::open(path) {
            Ok(guard) => guard,
            Err(error) => return report.add(path, None, error.to_string()),
        };
        let promise = guard.promise();
        if promise.size > self.parent.frontier.size() {
            let what = format!("a signature for size {} is remembered, the log ends before it", promise.size.0);
            report.add(path, Some(("size", promise.size.0)), what);
        } else if promise.size.0 > 0 && self.roots.get(&promise.size.0) != Some(&promise.root) {
            report.add(path, Some(("size", promise.size.0)), "another root is remembered for this size");
        }
        if promise.decided > self.parent.height || promise.height > self.parent.height + 1 {
            let height = promise.decided.max(promise.height);
            report.add(path, Some(("height", height)), "this height is remembered, the log ends before it");
        }
        if promise.size > self.genesis_size && report.checkpoints == 0 {
            let what = format!("size {} was signed, and no checkpoint is stored", promise.size.0);
            report.add(path, Some(("size", promise.size.0)), what);
        }
    }
}

/// Leaf index (or the first leaf below the hash) where a file starts to differ.
fn first_difference(tile: &FullTile, found: &[u8]) -> (&'static str, u64) {
    let item = match tile.kind {
        TileKind::Hashes(_) => {
            let same = tile.bytes.chunks(32).zip(found.chunks(32)).take_while(|(a, b)| a == b).count();
            same.min(255) as u64
        }
        TileKind::Entries => {
            let (expected, found) = (decode_bundle(&tile.bytes, 256), decode_bundle(found, 256));
            match (expected, found) {
                (Ok(expected), Ok(found)) => expected.iter().zip(&found).take_while(|(a, b)| a == b).count() as u64,
                _ => 0,
            }
        }
    };
    let below = match tile.kind {
        TileKind::Hashes(level) => 1_u64 << (8 * u32::from(level)),
        TileKind::Entries => 1,
    };
    ("index", (tile.index * 256 + item) * below)
}
