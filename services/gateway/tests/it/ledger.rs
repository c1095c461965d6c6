//! A ledger of one member in memory: real entries, a real tree, real signatures, no storage.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use chopmark_domain::ports::{
    BlockRef, DigestHits, LedgerBlock, LedgerReader, LedgerReceipt, LedgerStatus, PortError, PortResult,
};
use ledger_core::{
    SigningKey,
    batch::{Batch, Submission, batch_hash},
    block::{Block, Header},
    checkpoint::Checkpoint,
    digests::{Algorithm, Digests},
    entry::entry_id,
    hash::{Hash32, tagged},
    member::{Member, MemberSet},
    merkle::{LeafIndex, TreeSize, inclusion_proof, leaf_hash, root_at},
    note::{KeyType, Note, VerifierKey, cosign, sign},
    operation::{Operation, SignedOperation, V1},
    outcome::{Outcome, Verdict, outcomes_root},
    policy_file::PolicyFile,
    receipt::Receipt,
    tile::{TILE_HEIGHT, TileKind, TilePath, encode_hashes, hashes_at, push_entry},
    vote::Certificate,
};
use parking_lot::Mutex;

use crate::world::CHAIN;

pub(crate) const ORIGIN: &str = "sandbox.chopmark.example/log";
const DOMAIN: &str = "operator.example";

pub(crate) struct MemoryLedger {
    log: SigningKey,
    cosigner: SigningKey,
    statement: SigningKey,
    policy: String,
    state: Mutex<State>,
    pub(crate) away: Mutex<bool>,
    pub(crate) reads: AtomicU64,
}

#[derive(Default)]
struct State {
    entries: Vec<Vec<u8>>,
    leaves: Vec<Hash32>,
    blocks: Vec<(BlockRef, u64)>,
    /// From height 1 on.
    decided: Vec<LedgerBlock>,
    checkpoints: Vec<(u64, Hash32, String)>,
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn public(seed: u8) -> Hash32 {
    Hash32(key(seed).verifying_key().to_bytes())
}

impl MemoryLedger {
    /// With the two entries of a genesis, whatever they say.
    pub(crate) fn new() -> Self {
        let member = Member {
            cosigner_key: public(1),
            domain: DOMAIN.to_owned(),
            governance_key: public(2),
            log_key: public(3),
            submitter_keys: vec![public(4)],
            validator_key: public(5),
        };
        let members = MemberSet::new(vec![member]).unwrap();
        let ledger = Self {
            log: key(3),
            cosigner: key(1),
            statement: key(6),
            policy: PolicyFile::text_of_members(ORIGIN, &members),
            state: Mutex::default(),
            away: Mutex::new(false),
            reads: AtomicU64::new(0),
        };
        let genesis = [r#"{"type":"members.set","v":1}"#, r#"{"type":"policy.set","v":1}"#];
        ledger.append(genesis.map(|entry| entry.as_bytes().to_vec()).to_vec(), 1_795_334_400_000);
        ledger
    }

    pub(crate) fn policy_text(&self) -> &str {
        &self.policy
    }

    pub(crate) fn size(&self) -> u64 {
        self.state.lock().entries.len() as u64
    }

    pub(crate) fn all_entries(&self) -> Vec<Vec<u8>> {
        self.state.lock().entries.clone()
    }

    /// One block with these entries, under a checkpoint of its own.
    pub(crate) fn append(&self, entries: Vec<Vec<u8>>, time: u64) -> BlockRef {
        self.decide(entries, Vec::new(), time)
    }

    /// The same, with operations and what came of each.
    pub(crate) fn decide(&self, entries: Vec<Vec<u8>>, operations: Vec<(Vec<u8>, Verdict)>, time: u64) -> BlockRef {
        let mut state = self.state.lock();
        state.leaves.extend(entries.iter().map(|entry| leaf_hash(entry)));
        state.entries.extend(entries.iter().cloned());
        let height = state.blocks.len() as u64;
        let size = TreeSize(state.leaves.len() as u64);
        let root = root_at(size, &state.leaves[..]).unwrap();
        let decided = block_of_operations((height, time), size, root, operations);
        let block = BlockRef { height, time, hash: decided.header.hash() };
        state.blocks.push((block.clone(), size.0));
        if height > 0 {
            state.decided.push(LedgerBlock { block: decided, entries });
        }
        let text = Checkpoint { origin: ORIGIN.to_owned(), size, root }.text();
        let signatures = vec![
            sign(ORIGIN, &self.log, &text).unwrap(),
            cosign(&format!("{DOMAIN}/cosigner"), &self.cosigner, &text, time / 1000).unwrap(),
        ];
        let note = Note { text, signatures }.render();
        state.checkpoints.push((size.0, root, note));
        block
    }

    fn check(&self) -> PortResult<()> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if *self.away.lock() {
            return Err(PortError::Unavailable { port: "ledger", reason: "the test says so".into() });
        }
        Ok(())
    }

    fn hits(&self, algorithm: Algorithm, digest: &Hash32) -> Vec<LeafIndex> {
        #[derive(serde::Deserialize)]
        struct Facts {
            #[serde(default)]
            digests: Digests,
        }
        let state = self.state.lock();
        let hit = |entry: &Vec<u8>| {
            serde_json::from_slice::<Facts>(entry).is_ok_and(|facts| facts.digests.get(algorithm) == Some(*digest))
        };
        let indexed = state.entries.iter().enumerate().filter(|(_, entry)| hit(entry));
        indexed.map(|(index, _)| LeafIndex(index as u64)).collect()
    }
}

/// A block that holds together, decided by nobody.
fn block_of_operations(
    (height, time): (u64, u64),
    size: TreeSize,
    root: Hash32,
    operations: Vec<(Vec<u8>, Verdict)>,
) -> Block {
    let outcome = |(bytes, verdict): &(Vec<u8>, Verdict)| {
        let common = Operation::parse(bytes).unwrap().common();
        Outcome { op: common.op, request: common.request, verdict: *verdict }
    };
    let outcomes: Vec<Outcome> = operations.iter().map(outcome).collect();
    let verdicts = outcomes.iter().map(|outcome| outcome.verdict).collect();
    let signed = operations.into_iter().map(|(bytes, _)| SignedOperation::unsigned(bytes)).collect();
    let batch = Batch { submissions: vec![Submission::sign(&CHAIN, &key(4), signed)] }.encode();
    let members = tagged("test/members", &[]);
    let header = Header {
        batch: batch_hash(&batch),
        chain: CHAIN,
        changes: Hash32::ZERO,
        height,
        members,
        next_members: members,
        outcomes: outcomes_root(&outcomes),
        previous: Hash32::ZERO,
        root,
        state: None,
        time,
        tree_size: size.0,
        v: V1,
    };
    let certificate = Certificate::new(height, 0, header.hash(), &[]);
    Block { header, batch, verdicts, certificate }
}

#[async_trait]
impl LedgerReader for MemoryLedger {
    async fn status(&self) -> PortResult<LedgerStatus> {
        self.check()?;
        let state = self.state.lock();
        let height = state.blocks.len() as u64 - 1;
        let (size, root, checkpoint) = state.checkpoints.last().cloned().unwrap();
        Ok(LedgerStatus { height, checkpoint_height: height, size: TreeSize(size), root, checkpoint })
    }

    async fn blocks(&self, from: u64, max: usize) -> PortResult<Vec<LedgerBlock>> {
        self.check()?;
        let before = usize::try_from(from.max(1) - 1).unwrap();
        Ok(self.state.lock().decided.iter().skip(before).take(max).cloned().collect())
    }

    async fn block_of(&self, index: LeafIndex) -> PortResult<Option<BlockRef>> {
        self.check()?;
        let state = self.state.lock();
        let found = state.blocks.iter().find(|(_, size)| *size > index.0);
        Ok(found.filter(|(block, _)| block.height > 0).map(|(block, _)| block.clone()))
    }

    async fn entry(&self, index: LeafIndex) -> PortResult<Option<Vec<u8>>> {
        self.check()?;
        Ok(usize::try_from(index.0).ok().and_then(|index| self.state.lock().entries.get(index).cloned()))
    }

    async fn receipt(&self, index: LeafIndex) -> PortResult<Option<LedgerReceipt>> {
        self.check()?;
        let state = self.state.lock();
        let Some((size, root, checkpoint)) = state.checkpoints.iter().find(|(size, ..)| *size > index.0).cloned()
        else {
            return Ok(None);
        };
        let leaves = &state.leaves[..usize::try_from(size).unwrap()];
        let path = inclusion_proof(index, TreeSize(size), leaves).unwrap();
        let time = state.blocks.iter().find(|(_, upto)| *upto == size).map_or(0, |(block, _)| block.time / 1000);
        let receipt = Receipt { extra: None, index, path, checkpoint };
        Ok(Some(LedgerReceipt { receipt, size: TreeSize(size), root, cosigners: (1, 1), time }))
    }

    async fn find_digest(
        &self,
        algorithm: Algorithm,
        digest: &Hash32,
        from: LeafIndex,
        max: usize,
    ) -> PortResult<DigestHits> {
        self.check()?;
        let mut indexes = self.hits(algorithm, digest);
        indexes.retain(|index| *index >= from);
        indexes.truncate(max);
        Ok(DigestHits { indexes, complete_to: TreeSize(self.size()) })
    }

    async fn find_entry(&self, id: &Hash32) -> PortResult<Option<LeafIndex>> {
        self.check()?;
        let found = self.state.lock().entries.iter().position(|entry| entry_id(entry) == *id);
        Ok(found.map(|index| LeafIndex(index as u64)))
    }

    async fn not_found_statement(&self, algorithm: Algorithm, digest: &Hash32) -> PortResult<String> {
        self.check()?;
        let text = format!("test/not-found\n{} {digest}\n{}\n", algorithm.as_str(), self.size());
        let signatures = vec![sign(&format!("{DOMAIN}/statement"), &self.statement, &text).unwrap()];
        Ok(Note { text, signatures }.render())
    }

    async fn tile(&self, path: TilePath) -> PortResult<Option<Vec<u8>>> {
        self.check()?;
        let state = self.state.lock();
        let size = TreeSize(state.leaves.len() as u64);
        let (start, end) = (path.index * 256, path.index * 256 + u64::from(path.width));
        let level = match path.kind {
            TileKind::Hashes(level) => level,
            TileKind::Entries => 0,
        };
        if end > hashes_at(level, size) {
            return Ok(None);
        }
        Ok(Some(match path.kind {
            TileKind::Entries => {
                let mut bundle = Vec::new();
                (start..end).for_each(|at| push_entry(&mut bundle, &state.entries[usize::try_from(at).unwrap()]));
                bundle
            }
            TileKind::Hashes(level) => {
                use ledger_core::merkle::NodeReader as _;
                let node = |at| state.leaves[..].node(u32::from(level) * TILE_HEIGHT, at).unwrap();
                encode_hashes(&(start..end).map(node).collect::<Vec<_>>())
            }
        }))
    }

    async fn policy(&self) -> PortResult<String> {
        self.check()?;
        Ok(self.policy.clone())
    }

    async fn policies(&self) -> PortResult<BTreeMap<u64, String>> {
        self.check()?;
        Ok(BTreeMap::from([(1, self.policy.clone())]))
    }

    fn origin(&self) -> String {
        ORIGIN.to_owned()
    }

    async fn statement_keys(&self) -> PortResult<Vec<String>> {
        let name = format!("{DOMAIN}/statement");
        Ok(vec![VerifierKey::new(&name, KeyType::Ed25519, self.statement.verifying_key()).unwrap().vkey()])
    }

    async fn wait_beyond(&self, _: u64, _: Duration) -> PortResult<()> {
        unimplemented!("the gateway follows no blocks")
    }
}
