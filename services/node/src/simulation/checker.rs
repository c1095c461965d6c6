//! What has to hold in every run, checked against a model of its own: the chain that the first honest
//! node decided, executed again from the genesis, and everything that ever left an honest node.

use std::collections::{BTreeMap, HashMap};

use chopmark_consensus::Proposal;
use ledger_core::{
    Hash32,
    execute::{Parent, execute, execute_genesis},
    genesis::Genesis,
    member::MemberSet,
    merkle::{LeafIndex, TreeSize},
    note::Note,
    outcome::{RejectionCode, Verdict},
    policy_file::PolicyFile,
    state::{apply_changes, key, members},
    tile::{TILE_WIDTH, TileKind, TilePath, encode_hashes, push_entry},
    verify::SignedCheckpoint,
    vote::{Certificate, VoteType},
};

use super::engine::{Proposed, Sealed, Vote};
use crate::{
    derived::{IndexKey, index_keys},
    guard::{Promise, Step},
    handle::Published,
};

/// Why a run is not right.
pub(crate) type Fault = String;

/// A fresh proposal may be this far ahead of the clock of who votes for it.
const CLOCK_SKEW_MAX_MS: u64 = 2_000;

pub(crate) struct Checker {
    genesis: Genesis,
    chain: Hash32,
    state: BTreeMap<Vec<u8>, Vec<u8>>,
    parent: Parent,
    /// Members in force after the newest block.
    members: MemberSet,
    /// Value of each decided height from 1 on.
    values: Vec<Hash32>,
    /// Root of each size at which a block ends.
    roots: BTreeMap<u64, Hash32>,
    /// All entries with their leaf hashes and heights.
    entries: Vec<(Vec<u8>, Hash32, u64)>,
    /// Where each key stands, ascending.
    positions: HashMap<IndexKey, Vec<u64>>,
    /// Policies by their first size.
    policies: BTreeMap<u64, String>,
    /// How each operation ended, and at which height.
    ended: HashMap<Hash32, (u64, Hash32, Result<u64, RejectionCode>)>,
    /// What each node has signed.
    signed: Vec<Signatures>,
    /// Latest time that any clock showed that is not far off.
    pub(crate) latest_ms: u64,
}

#[derive(Default)]
struct Signatures {
    steps: BTreeMap<(u64, u32, usize), Option<Hash32>>,
    /// Height, round and value of the last precommit for a value.
    lock: Option<(u64, u32, Hash32)>,
    roots: BTreeMap<u64, Hash32>,
    published: BTreeMap<u64, String>,
}

impl Checker {
    pub(crate) fn new(genesis: Genesis, nodes: usize) -> Self {
        let born = execute_genesis(&genesis);
        let mut state = BTreeMap::new();
        apply_changes(&mut state, born.changes);
        let parent = Parent { height: 0, time: genesis.time, hash: born.header.hash(), frontier: born.frontier };
        let policy = PolicyFile::text_of_members(&genesis.origin, &genesis.members);
        let mut checker = Self {
            chain: genesis.chain_id(),
            state,
            entries: Vec::new(),
            positions: HashMap::new(),
            roots: BTreeMap::from([(parent.frontier.size().0, parent.frontier.root())]),
            parent,
            values: Vec::new(),
            members: genesis.members.clone(),
            // The genesis is entry 0, so its members sign from size 1 on.
            policies: BTreeMap::from([(1, policy)]),
            ended: HashMap::new(),
            signed: (0..nodes).map(|_| Signatures::default()).collect(),
            latest_ms: 0,
            genesis,
        };
        checker.grow(born.entries, &born.leaves, 0);
        checker
    }

    fn grow(&mut self, entries: Vec<Vec<u8>>, leaves: &[Hash32], height: u64) {
        for (key, index) in index_keys(self.entries.len() as u64, &entries) {
            self.positions.entry(key).or_default().push(index);
        }
        self.entries.extend(entries.into_iter().zip(leaves).map(|(entry, leaf)| (entry, *leaf, height)));
    }

    pub(crate) fn entry(&self, index: LeafIndex) -> Option<&[u8]> {
        Some(&self.entries.get(usize::try_from(index.0).ok()?)?.0)
    }

    /// Height of the block that holds an entry of the log.
    pub(crate) fn height_of(&self, index: LeafIndex) -> u64 {
        self.entries[usize::try_from(index.0).unwrap()].2
    }

    /// The last entry of each block below `size`: what the index says of blocks and checkpoints, it says
    /// of one of these.
    pub(crate) fn ends(&self, size: u64) -> Vec<LeafIndex> {
        let height = |index: u64| self.height_of(LeafIndex(index));
        (0..size).filter(|index| index + 1 == size || height(*index) != height(index + 1)).map(LeafIndex).collect()
    }

    /// Where a key stands below `size`.
    pub(crate) fn positions(&self, key: &IndexKey, size: u64) -> Vec<LeafIndex> {
        let all = self.positions.get(key).into_iter().flatten();
        all.filter(|index| **index < size).map(|index| LeafIndex(*index)).collect()
    }

    /// Bytes of a bundle or of a tile of the lowest level, as far as blocks have been decided.
    pub(crate) fn tile(&self, path: &TilePath) -> Option<Vec<u8>> {
        let first = usize::try_from(path.index * TILE_WIDTH).unwrap();
        let entries = self.entries.get(first..first + usize::from(path.width))?;
        let mut bundle = Vec::new();
        match path.kind {
            TileKind::Hashes(0) => {
                return Some(encode_hashes(&entries.iter().map(|entry| entry.1).collect::<Vec<_>>()));
            }
            TileKind::Hashes(_) => return None,
            TileKind::Entries => entries.iter().for_each(|entry| push_entry(&mut bundle, &entry.0)),
        }
        Some(bundle)
    }

    pub(crate) fn height(&self) -> u64 {
        self.parent.height
    }

    pub(crate) fn size(&self) -> TreeSize {
        self.parent.frontier.size()
    }

    pub(crate) fn policies(&self) -> &BTreeMap<u64, String> {
        &self.policies
    }

    /// Members in force after the newest block.
    pub(crate) const fn members(&self) -> &MemberSet {
        &self.members
    }

    pub(crate) fn is_member(&self, domain: &str) -> bool {
        self.members.iter().any(|member| member.domain == domain)
    }

    pub(crate) fn ended(&self, op: &Hash32) -> Option<Result<u64, RejectionCode>> {
        self.ended.get(op).map(|(_, _, result)| *result)
    }

    /// A node has decided this block.
    pub(crate) fn decided(
        &mut self,
        node: usize,
        height: u64,
        bytes: &[u8],
        certificate: &Certificate,
    ) -> Result<(), Fault> {
        let proposal = Proposal::decode(bytes).map_err(|error| format!("block {height} of node {node}: {error}"))?;
        let value = proposal.header.hash();
        if let Some(known) = usize::try_from(height - 1).ok().and_then(|at| self.values.get(at)) {
            return if *known == value { Ok(()) } else { Err(format!("node {node} decided another block {height}")) };
        }
        if height != self.parent.height + 1 {
            return Err(format!("node {node} decided height {height} behind {}", self.parent.height));
        }
        let time = proposal.header.time;
        if time > self.latest_ms + CLOCK_SKEW_MAX_MS {
            return Err(format!("block {height} is {} ms ahead of every clock", time - self.latest_ms));
        }
        let executed = execute(&self.state, &self.parent, &self.chain, &proposal.batch, time, None)
            .map_err(|error| format!("block {height} of node {node} does not execute: {error}"))?;
        if executed.header != proposal.header {
            return Err(format!("block {height} of node {node} has another header than its execution"));
        }
        if executed.changes.contains_key(key::MEMBERS) {
            let first = self.parent.frontier.size().0 + 1;
            apply_changes(&mut self.state, executed.changes);
            self.members = members(&self.state).unwrap();
            let text = PolicyFile::text_of_members(&self.genesis.origin, &self.members);
            self.policies.insert(first, text);
        } else {
            apply_changes(&mut self.state, executed.changes);
        }
        certificate
            .verify(&self.chain, height, &value, &self.members)
            .map_err(|error| format!("certificate of block {height} of node {node}: {error}"))?;
        for outcome in executed.outcomes {
            let result = match outcome.verdict {
                Verdict::Committed { index, .. } => Ok(index),
                Verdict::Rejected(code) => Err(code),
            };
            if self.ended.insert(outcome.op, (height, outcome.request, result)).is_some() {
                return Err(format!("an operation ended twice, the second time at height {height}"));
            }
        }
        self.grow(executed.entries, &executed.leaves, height);
        self.parent = Parent { height, time, hash: value, frontier: executed.frontier };
        self.roots.insert(self.size().0, self.parent.frontier.root());
        self.values.push(value);
        Ok(())
    }

    /// A node at `height` told a submitter of an outcome; its guard durably knows `promise`.
    pub(crate) fn told(
        &self,
        op: &Hash32,
        request: Hash32,
        result: Result<u64, RejectionCode>,
        promise: &Promise,
    ) -> Result<(), Fault> {
        let Some((height, known_request, known)) = self.ended.get(op) else {
            return Err(format!("{op} was acknowledged and no node has decided it"));
        };
        if (*known, *known_request) != (result, request) {
            return Err(format!("{op} was acknowledged as {result:?} and decided as {known:?}"));
        }
        if promise.decided < *height {
            return Err(format!("{op} of height {height} was acknowledged, the guard knows {}", promise.decided));
        }
        Ok(())
    }

    pub(crate) fn voted(
        &mut self,
        node: usize,
        vote: &Vote,
        valid_round: Option<u32>,
        durable: &Promise,
    ) -> Result<(), Fault> {
        let step = if vote.kind == VoteType::Prevote { Step::Prevote } else { Step::Precommit };
        self.step(node, (vote.height, vote.round, step), vote.value, durable)?;
        let lock = &mut self.signed[node].lock;
        match (*lock, vote.value) {
            (_, Some(value)) if step == Step::Precommit => *lock = Some((vote.height, vote.round, value)),
            (Some((height, round, locked)), Some(value))
                if height == vote.height && locked != value && valid_round.is_none_or(|valid| valid < round) =>
            {
                return Err(format!(
                    "node {node} voted at height {height} round {} against the lock that it has from round {round}",
                    vote.round
                ));
            }
            _ => {}
        }
        Ok(())
    }

    pub(crate) fn proposed(&mut self, node: usize, proposed: &Proposed, durable: &Promise) -> Result<(), Fault> {
        self.step(node, (proposed.height, proposed.round, Step::Proposal), Some(proposed.value), durable)
    }

    fn step(
        &mut self,
        node: usize,
        (height, round, step): (u64, u32, Step),
        value: Option<Hash32>,
        durable: &Promise,
    ) -> Result<(), Fault> {
        let steps = &mut self.signed[node].steps;
        let name = format!("node {node} signed a {step:?} at height {height} round {round}");
        if let Some(((last_height, last_round, _), _)) = steps.last_key_value()
            && (height, round) < (*last_height, *last_round)
        {
            return Err(format!("{name} after height {last_height} round {last_round}"));
        }
        let known = steps.insert((height, round, step as usize), value);
        if known.is_some_and(|known| known != value) {
            return Err(format!("{name} twice"));
        }
        let remembered =
            (durable.height, durable.round) == (height, round) && durable.votes[step as usize] == Some(value);
        if remembered || (durable.height, durable.round) > (height, round) {
            Ok(())
        } else {
            Err(format!("{name}, and the guard would not remember it"))
        }
    }

    /// A checkpoint with this node's own cosignature has left it.
    pub(crate) fn cosigned(&mut self, node: usize, size: u64, root: Hash32, durable: &Promise) -> Result<(), Fault> {
        let roots = &mut self.signed[node].roots;
        if roots.insert(size, root).is_some_and(|known| known != root) {
            return Err(format!("node {node} signed two roots for size {size}"));
        }
        if self.roots.get(&size).is_some_and(|known| *known != root) {
            return Err(format!("node {node} signed another root for size {size} than the log has"));
        }
        if durable.size.0 < size {
            return Err(format!("node {node} signed size {size}, and the guard would not remember it"));
        }
        Ok(())
    }

    /// A node starts: its guard must know everything that ever left it, and every block up to `tip`,
    /// for its outcomes are told from now on.
    pub(crate) fn started(&self, node: usize, tip: u64, promise: &Promise) -> Result<(), Fault> {
        if promise.decided < tip {
            return Err(format!("node {node} answers from block {tip}, the guard knows {}", promise.decided));
        }
        let signed = &self.signed[node];
        if let Some(((height, round, step), value)) = signed.steps.last_key_value() {
            let same = (promise.height, promise.round) == (*height, *round) && promise.votes[*step] == Some(*value);
            if !same && (promise.height, promise.round) <= (*height, *round) {
                return Err(format!("the guard of node {node} has forgotten height {height} round {round}"));
            }
        }
        match signed.roots.last_key_value() {
            Some((size, _)) if promise.size.0 < *size => {
                Err(format!("the guard of node {node} has forgotten the checkpoint of size {size}"))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn sealed(node: usize, sealed: &Sealed, may_sign: bool) -> Result<(), Fault> {
        let due = sealed.grew && sealed.previous_ms / 100 != sealed.time_ms / 100;
        if sealed.signed && !due {
            return Err(format!("node {node} signed a size with its block that is not due"));
        }
        if due && may_sign && !sealed.signed {
            return Err(format!("node {node} did not sign a size that is due"));
        }
        Ok(())
    }

    /// A node shows this as its newest checkpoint.
    pub(crate) fn published(&mut self, node: usize, published: &Published) -> Result<(), Fault> {
        let (size, root) = (published.size.0, published.root);
        if self.signed[node].published.get(&size) == Some(&published.note) {
            return Ok(());
        }
        if self.roots.get(&size) != Some(&root) {
            return Err(format!("node {node} published another root for size {size} than the log has"));
        }
        let (_, policy) = self.policies.range(..=size).next_back().ok_or("no policy")?;
        let policy = PolicyFile::parse(policy).map_err(|error| error.to_string())?;
        let signed = SignedCheckpoint::parse(&published.note).map_err(|verdict| verdict.to_string())?;
        if (signed.checkpoint.size.0, signed.checkpoint.root) != (size, root) {
            return Err(format!("node {node} published a note about something else"));
        }
        signed
            .check_signatures(&policy)
            .and_then(|signatures| signatures.check_quorum(&policy))
            .map_err(|verdict| format!("checkpoint of size {size} published by node {node}: {verdict}"))?;
        if let Some((newest, _)) = self.signed[node].published.last_key_value()
            && *newest > size
        {
            return Err(format!("node {node} published size {size} after size {newest}"));
        }
        self.signed[node].published.insert(size, published.note.clone());
        Ok(())
    }

    /// What a node has published so far.
    pub(crate) fn publications(&self, node: usize) -> &BTreeMap<u64, String> {
        &self.signed[node].published
    }

    /// A node whose data are an older copy does not have everything that it published.
    pub(crate) fn restored(&mut self, node: usize) {
        self.signed[node].published.clear();
    }

    /// Roots and sizes of the checkpoints in a note that carry a line of `name`.
    pub(crate) fn of_note(note: &Note, name: &str) -> Option<(u64, Hash32)> {
        let checkpoint = ledger_core::checkpoint::Checkpoint::parse(&note.text).ok()?;
        note.signatures.iter().any(|line| line.name == name).then_some((checkpoint.size.0, checkpoint.root))
    }
}
