//! The ledger thread: the application side of agreement. It alone moves the ledger forward.
//!
//! The order of things, and what a crash at each point leaves:
//! 1. execute, and execute again: nothing written.
//! 2. guard remembers the vote: a restart votes in the next round.
//! 3. block log append and sync, **the commit point**: a restart replays the block.
//! 4. memory: state, right edge.
//! 5. guard remembers the block, and the checkpoint where one is due; then that is signed, stored,
//!    published: a restart signs the same size and root again, or a larger size.
//! 6. replies to those who submitted. Data that end before a block of which anybody was told are
//!    refused from step 5 on.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use ledger_core::{
    Hash32,
    batch::{BATCH_BYTES_MAX, Batch, Item},
    block::{Block, STATE_DIGEST_INTERVAL},
    checkpoint::Checkpoint,
    execute::{BatchError, Executed, Parent, execute, omit},
    merkle::TreeSize,
    note::{Note, cosign, sign},
    outcome::{Outcome, Verdict},
    state::{OperationRecord, StateError, StateRead, operation_record},
    vote::{Certificate, precommit},
};
use segment_log::SegmentLog;

use crate::{
    NodeError,
    consensus::{Application, Next, Proposal},
    derive::Work,
    guard::Guard,
    handle::{CheckpointRecord, CommittedBlock, Published, Shared},
    keys::NodeKeys,
    pool::{Ended, Waiting, deadline},
};

/// Checkpoints are at least this much block time apart, unless the log rests.
pub(crate) const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(100);
/// A fresh proposal may be this far ahead of the clock.
const CLOCK_SKEW_MAX_MS: u64 = 2_000;
/// Submissions taken for one batch: leaves room for what a batch adds.
const CUT_BYTES_MAX: usize = BATCH_BYTES_MAX / 2;

/// A proposal after execution, with those who wait for it.
struct Staged {
    value: Hash32,
    executed: Executed,
    waiting: Vec<Waiting>,
    /// The state as it was read for it.
    known: Known,
}

/// The ledger thread's own state.
pub(crate) struct Ledger {
    pub(crate) shared: Arc<Shared>,
    pub(crate) keys: NodeKeys,
    pub(crate) guard: Guard,
    pub(crate) block_log: SegmentLog,
    pub(crate) checkpoint_log: SegmentLog,
    pub(crate) parent: Parent,
    /// Size and block time of the last signed checkpoint.
    pub(crate) signed: (TreeSize, u64),
    pub(crate) idle_since: Instant,
    staged: Option<Staged>,
}

impl Ledger {
    pub(crate) fn new(
        shared: Arc<Shared>,
        keys: NodeKeys,
        guard: Guard,
        logs: (SegmentLog, SegmentLog),
        parent: Parent,
        signed: (TreeSize, u64),
    ) -> Self {
        let (block_log, checkpoint_log) = logs;
        Self {
            shared,
            keys,
            guard,
            block_log,
            checkpoint_log,
            parent,
            signed,
            idle_since: Instant::now(),
            staged: None,
        }
    }

    /// Leaves in the batch only what has no outcome yet and stands in it once.
    fn cut(&self, state: &Memo<'_>, waiting: &mut [Waiting]) -> Result<Batch, StateError> {
        let mut seen = std::collections::HashSet::new();
        let mut submissions = Vec::with_capacity(waiting.len());
        for one in waiting {
            let mut any = false;
            for (op, item) in one.ops.iter().zip(&mut one.submission.items) {
                if !seen.insert(*op) || operation_record(state, op)?.is_some() {
                    omit(item);
                } else {
                    any = true;
                }
            }
            if any {
                submissions.push(one.submission.clone());
            }
        }
        Ok(Batch { submissions })
    }

    fn stage(&mut self, mut waiting: Vec<Waiting>) -> Result<Next, NodeError> {
        let shared = Arc::clone(&self.shared);
        let state = Memo::new(&shared, Known::new());
        let batch = self.cut(&state, &mut waiting)?;
        if !batch.submissions.iter().any(|submission| submission.items.iter().any(|item| matches!(item, Item::Full(_))))
        {
            reply(&shared, waiting, &[])?;
            return Ok(Next::Idle);
        }
        let batch = batch.encode();
        let time = self.parent.time.max((shared.clock)());
        let digest = self.state_digest()?;
        let executed = match execute(&state, &self.parent, &shared.chain, &batch, time, digest) {
            Ok(executed) => executed,
            // The member set changed between admission and now: those submissions are dropped,
            // and whoever waits is told that nothing came of them.
            Err(BatchError::Submitter(_)) => return Ok(Next::Idle),
            Err(error) => return Err(error.into()),
        };
        let proposal = Proposal { header: executed.header.clone(), batch };
        let known = state.known.into_inner();
        self.staged = Some(Staged { value: proposal.header.hash(), executed, waiting, known });
        Ok(Next::Propose(Box::new(proposal)))
    }

    /// What the header of the next height has to say about the state.
    fn state_digest(&self) -> Result<Option<Hash32>, NodeError> {
        let height = self.parent.height + 1;
        if !height.is_multiple_of(STATE_DIGEST_INTERVAL) || height < 2 * STATE_DIGEST_INTERVAL {
            return Ok(None);
        }
        self.shared.state_digests.wait(&self.shared, height - STATE_DIGEST_INTERVAL).map(Some)
    }

    /// Signs and publishes the newest block's size if it is due.
    ///
    /// Only this function signs checkpoints. The root is the one that this node computed itself
    /// from its own entries.
    pub(crate) fn sign_if_due(&mut self) -> Result<(), NodeError> {
        let interval = u64::try_from(CHECKPOINT_INTERVAL.as_millis()).unwrap_or(u64::MAX);
        let rested = self.idle_since.elapsed() >= CHECKPOINT_INTERVAL;
        let covered = self.parent.frontier.size() <= self.signed.0;
        if covered || rested || self.parent.time >= self.signed.1 + interval { self.sign_newest() } else { Ok(()) }
    }

    /// Signs and publishes the newest block's size. Where that is signed already, because the block
    /// only rejects, says that the checkpoint covers this block too.
    pub(crate) fn sign_newest(&mut self) -> Result<(), NodeError> {
        let size = self.parent.frontier.size();
        if size <= self.signed.0 {
            self.guard.decided(self.parent.height)?;
            if let Some(published) = self.shared.published.load().as_ref().clone()
                && published.height < self.parent.height
            {
                self.shared.publish(Published { height: self.parent.height, ..published });
            }
            return Ok(());
        }
        let (origin, root) = (self.shared.genesis.origin.clone(), self.parent.frontier.root());
        // Rounded up: "existed no later than" must not lie before the block.
        let time = (self.shared.clock)().max(self.parent.time).div_ceil(1000);
        self.guard.checkpoint(size, root, time, self.parent.height)?;
        // Durable after this line: the promise. Dying now is harmless: the next start may sign
        // the same size and root again, and never another root.
        let text = Checkpoint { origin: origin.clone(), size, root }.text();
        let damaged = |error: ledger_core::note::NoteError| NodeError::Damaged(error.to_string());
        let members = self.shared.members.load_full();
        let member = members.iter().find(|member| member.domain == self.shared.domain);
        let member = member.ok_or_else(|| NodeError::Damaged("this node is not a member".to_owned()))?;
        let signatures = vec![
            sign(&origin, &self.keys.log, &text).map_err(damaged)?,
            cosign(&member.cosigner_name(), &self.keys.cosigner, &text, time).map_err(damaged)?,
        ];
        let record = CheckpointRecord { height: self.parent.height, note: Note { text, signatures }.render() };
        let number = self.checkpoint_log.append(&[&record.encode()])?;
        self.signed = (size, self.parent.time);
        self.shared.recent.write().insert_checkpoint(size, number);
        self.shared.backlog.push(Work::Checkpoint { size, record: number })?;
        let published = Published { height: record.height, size, root, note: record.note };
        self.shared.publish(published);
        metrics::counter!("chopmark_node_checkpoints_total").increment(1);
        Ok(())
    }
}

impl Application for Ledger {
    fn height(&self) -> u64 {
        self.parent.height + 1
    }

    fn first_round(&self) -> u32 {
        let promise = self.guard.promise();
        if promise.height == self.height() { promise.round + 1 } else { 0 }
    }

    fn propose(&mut self) -> Result<Next, NodeError> {
        self.sign_if_due()?;
        let unsigned = self.parent.frontier.size() > self.signed.0;
        let wake =
            if unsigned { deadline(CHECKPOINT_INTERVAL.saturating_sub(self.idle_since.elapsed())) } else { None };
        match self.shared.pool.take(CUT_BYTES_MAX, wake) {
            None => Ok(Next::Stop),
            Some(waiting) if waiting.is_empty() => Ok(Next::Idle),
            Some(waiting) => self.stage(waiting),
        }
    }

    fn validate(&mut self, proposal: &Proposal) -> Result<bool, NodeError> {
        let header = &proposal.header;
        if header.time > (self.shared.clock)().max(self.parent.time) + CLOCK_SKEW_MAX_MS {
            return Ok(false);
        }
        let value = header.hash();
        let staged = self.staged.as_mut().filter(|staged| staged.value == value);
        let known = staged.map(|staged| std::mem::take(&mut staged.known)).unwrap_or_default();
        let shared = Arc::clone(&self.shared);
        let again = execute(
            &Memo::new(&shared, known),
            &self.parent,
            &self.shared.chain,
            &proposal.batch,
            header.time,
            self.state_digest()?,
        )?;
        Ok(again.header == *header)
    }

    fn precommit(&mut self, height: u64, round: u32, value: &Hash32) -> Result<(Hash32, [u8; 64]), NodeError> {
        self.guard.vote(height, round, *value)?;
        let signature = precommit(&self.shared.chain, height, round, value, &self.keys.validator);
        Ok((Hash32(self.keys.validator.verifying_key().to_bytes()), signature))
    }

    fn decide(&mut self, proposal: Proposal, certificate: Certificate) -> Result<(), NodeError> {
        let value = proposal.header.hash();
        let staged = self.staged.take().filter(|staged| staged.value == value);
        let staged = staged.ok_or(NodeError::Diverged { height: self.height(), field: "value" })?;
        let verdicts = staged.executed.outcomes.iter().map(|outcome| outcome.verdict).collect();
        let block = Block { header: proposal.header, batch: proposal.batch, verdicts, certificate };
        let bytes = block.encode();
        let started = Instant::now();
        self.block_log.append(&[&bytes])?;
        // Durable after this line: the block. Everything else can be made from it.
        metrics::histogram!("chopmark_node_commit_seconds").record(started.elapsed());
        metrics::counter!("chopmark_node_blocks_total").increment(1);
        metrics::counter!("chopmark_node_operations_total").increment(staged.executed.outcomes.len() as u64);
        let outcomes = staged.executed.outcomes.clone();
        self.parent = commit(&self.shared, block, staged.executed, bytes.len())?;
        self.idle_since = Instant::now();
        self.sign_if_due()?;
        self.guard.decided(self.parent.height)?;
        reply(&self.shared, staged.waiting, &outcomes)
    }
}

/// Takes a durable block over into memory, on the way of normal progress and of replay alike.
pub(crate) fn commit(shared: &Shared, block: Block, executed: Executed, bytes: usize) -> Result<Parent, NodeError> {
    let header = &block.header;
    let parent = Parent { height: header.height, time: header.time, hash: header.hash(), frontier: executed.frontier };
    let entry_bytes: usize = executed.entries.iter().map(Vec::len).sum();
    let bytes = bytes + 2 * entry_bytes + 200 * executed.changes.len();
    if executed.changes.contains_key(ledger_core::state::key::MEMBERS) {
        let state = BlockState { changes: &executed.changes, below: &shared.state };
        shared.members.store(Arc::new(ledger_core::state::members(&state)?));
    }
    let committed =
        CommittedBlock { block, hash: parent.hash, entries: executed.entries, changes: executed.changes, bytes };
    shared.commit(committed, &executed.leaves)?;
    metrics::gauge!("chopmark_node_height").set(parent.height as f64);
    metrics::gauge!("chopmark_node_tree_size").set(parent.frontier.size().0 as f64);
    Ok(parent)
}

/// Tells those who wait how their operations ended: in this block, or before.
fn reply(shared: &Shared, waiting: Vec<Waiting>, outcomes: &[Outcome]) -> Result<(), NodeError> {
    let fresh: HashMap<Hash32, Ended> = outcomes
        .iter()
        .map(|outcome| {
            let result = match outcome.verdict {
                Verdict::Committed { index, .. } => Ok(index),
                Verdict::Rejected(code) => Err(code),
            };
            (outcome.op, Ended { request: outcome.request, result })
        })
        .collect();
    for one in waiting {
        let ended = one.ops.iter().map(|op| match fresh.get(op) {
            Some(ended) => Ok(*ended),
            None => match operation_record(&shared.state, op)? {
                Some(OperationRecord { request, result, .. }) => Ok(Ended { request, result }),
                None => Err(NodeError::Damaged(format!("operation {op} has no outcome"))),
            },
        });
        let ended = ended.collect::<Result<Vec<_>, _>>()?;
        // Whoever asked may have gone; the outcome stands all the same.
        let _gone = one.reply.send(ended);
    }
    Ok(())
}

struct BlockState<'a, S> {
    changes: &'a ledger_core::state::Changes,
    below: &'a S,
}

impl<S: StateRead> StateRead for BlockState<'_, S> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        match self.changes.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.below.get(key),
        }
    }
}

/// What was read of the state at one height.
type Known = HashMap<Vec<u8>, Option<Vec<u8>>>;

/// Remembers reads while a batch is cut, executed and executed again, so that each key is looked
/// up once.
struct Memo<'a> {
    shared: &'a Shared,
    known: RefCell<Known>,
}

impl<'a> Memo<'a> {
    /// `known` was read at the same height.
    fn new(shared: &'a Shared, known: Known) -> Self {
        Self { shared, known: RefCell::new(known) }
    }
}

impl StateRead for Memo<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        if let Some(value) = self.known.borrow().get(key) {
            return Ok(value.clone());
        }
        let value = self.shared.state.get(key)?;
        self.known.borrow_mut().insert(key.to_vec(), value.clone());
        Ok(value)
    }
}
