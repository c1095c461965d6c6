//! The ledger: the application side of agreement. It alone moves the ledger forward.
//!
//! The order of things, and what a crash at each point leaves:
//! 1. execute; keep the proposal durably: a restart has it for the votes that the engine replays. What
//!    others have decided already begins at step 3: nobody here votes on it.
//! 2. guard remembers proposal and votes, then they are signed: a restart signs the same, or nothing.
//! 3. block log append and sync, **the commit point**: a restart replays the block.
//! 4. memory: state, right edge.
//! 5. guard remembers the block, and the checkpoint where one is due; then that is signed: a restart
//!    signs the same size and root again, or a larger size. What a quorum signed is stored and
//!    published.
//! 6. replies to those who submitted. Data that end before a block of which anybody was told are
//!    not voted on from step 5 on.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use chopmark_consensus::{Application, EngineError, Failure, Heard, Judged, Proposal, SeenVotes, Slot, VoteSigner};
use ledger_core::{
    Hash32,
    batch::{BATCH_BYTES_MAX, Batch, Submission, batch_hash},
    block::{Block, state_digest_height},
    checkpoint::Checkpoint,
    codec::{Reader, Writer},
    equivocation::Equivocation,
    execute::{BatchError, Executed, Parent, execute, omit},
    member::{Member, MemberSet},
    merkle::{TreeSize, root_at},
    note::{Note, cosign, sign},
    outcome::{Outcome, Verdict},
    state::{PendingMembers, StateError, StateRead, key, operation_record, read_json},
    verify::SignedCheckpoint,
    vote::{Certificate, address},
};
use parking_lot::Mutex;
use segment_log::SegmentLog;
use tokio::sync::Notify;

use crate::{
    NodeError,
    bugs::{Bug, has},
    clocks::{CLOCK_OFFSET_MAX_MS, PeerClocks, is_off},
    cosign::{Cosigning, Open, RESEND},
    derive::Work,
    derived::index_keys,
    equivocations::EquivocationFile,
    guard::{Guard, GuardedSigner},
    handle::{CheckpointRecord, CommittedBlock, Published, Shared},
    keys::NodeKeys,
    pool::Ended,
    proposals::{Kept, Proposals},
    rebuilding::RebuildMark,
    vote::NoVote,
    witness::unknown,
};

/// Checkpoints are at least this much block time apart on average, unless the log rests.
pub(crate) const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(100);
/// Submissions taken for one batch: leaves room for what a batch adds.
const CUT_BYTES_MAX: usize = BATCH_BYTES_MAX / 2;
/// Largest checkpoint taken from elsewhere: two lines of each of the most members are below 16 KiB.
const CHECKPOINT_BYTES_MAX: usize = 64 << 10;
/// Proposals kept in memory for one height; those of the oldest rounds make room.
const KEPT_MAX: usize = 16;

/// How often it is said that this node waits to hear what the others have seen of it.
const WITNESSES_MISSED_AFTER: Duration = Duration::from_secs(10);

/// Broadcasts between nodes.
const MESSAGE_CHECKPOINT: u8 = 1;
const MESSAGE_WAKE: u8 = 2;

/// Everything that the ledger writes, opened.
pub(crate) struct Files {
    pub(crate) guard: Arc<Mutex<Guard>>,
    pub(crate) rebuilding: RebuildMark,
    pub(crate) block_log: SegmentLog,
    pub(crate) checkpoint_log: SegmentLog,
    pub(crate) proposals: Proposals,
    pub(crate) equivocations: EquivocationFile,
}

/// The ledger thread's own state.
pub(crate) struct Ledger {
    pub(crate) shared: Arc<Shared>,
    keys: NodeKeys,
    files: Files,
    parent: Parent,
    /// Members in force at the parent.
    in_force: Arc<MemberSet>,
    /// A set that waits for its height.
    pending: Option<PendingMembers>,
    /// Size of the last checkpoint that this node signed.
    signed: TreeSize,
    cosigning: Cosigning,
    now: Duration,
    rested_since: Duration,
    outbox: Vec<Vec<u8>>,
    helped_at: Duration,
    /// Size and root that the guard remembers and the data did not reach yet: the history that they
    /// grow into has to be the one that was signed.
    to_prove: Option<(TreeSize, Hash32)>,
    /// Up to this height the node follows without a vote, because it may have voted there in a way
    /// that its data do not show.
    silent_up_to: Arc<AtomicU64>,
    clocks: PeerClocks,
    /// Since when it waits for the others to say what they have seen of it, or has last said so.
    missed_since: Option<Instant>,
}

impl Ledger {
    pub(crate) fn new(
        shared: Arc<Shared>,
        keys: NodeKeys,
        files: Files,
        parent: Parent,
        signed: TreeSize,
    ) -> Result<Self, NodeError> {
        let in_force = Arc::new(ledger_core::state::members(&shared.state)?);
        let pending =
            if has(Bug::RestartForgetsPendingMembers) { None } else { read_json(&shared.state, key::PENDING_MEMBERS)? };
        let promise = *files.guard.lock().promise();
        let mut cosigning = Cosigning::new(shared.cosignatures.clone());
        if let Some(last) = shared.published.load().as_ref() {
            cosigning.published(last.size, &last.note, &in_force, None);
        }
        if promise.silent_up_to() > parent.height {
            tracing::warn!(
                height = promise.silent_up_to(),
                "this node has no vote up to that height: others have seen votes of it that its guard did not know of"
            );
        }
        let to_prove = (promise.size > parent.frontier.size()).then_some((promise.size, promise.root));
        Ok(Self {
            shared,
            keys,
            files,
            parent,
            in_force,
            pending,
            signed,
            cosigning,
            now: Duration::ZERO,
            rested_since: Duration::ZERO,
            outbox: Vec::new(),
            helped_at: Duration::ZERO,
            to_prove,
            silent_up_to: Arc::new(AtomicU64::new(promise.silent_up_to())),
            clocks: PeerClocks::default(),
            missed_since: None,
        })
    }

    /// Stops where the history grows past what was signed and is another one.
    fn prove_signed(&mut self) -> Result<(), NodeError> {
        let size = self.parent.frontier.size();
        let Some((signed, root)) = self.to_prove.filter(|(signed, _)| *signed <= size) else { return Ok(()) };
        if root_at(signed, &self.shared.tree())? != root {
            return Err(self.files.guard.lock().refuse(&format!(
                "remembers another root for tree size {} than the blocks lead to: they are of another history than \
                 the one that this member has signed",
                signed.0
            )));
        }
        self.to_prove = None;
        Ok(())
    }

    /// Says again what the newest block calls for: it may have been decided just before a crash.
    pub(crate) fn resume(&mut self) -> Result<(), NodeError> {
        self.see_vote();
        self.cover_empty();
        // Replayed blocks are answered from the state as soon as somebody asks.
        if !has(Bug::ReplayStaysUnknownToTheGuard) {
            self.files.guard.lock().decided(self.parent.height)?;
        }
        self.sign_newest()
    }

    /// Leaves in the batch only what has no outcome yet and stands in it once. Whoever waits for what
    /// has one is told elsewhere: when it was submitted, or when its block was decided.
    fn cut(state: &Memo<'_>, submissions: Vec<(Submission, Vec<Hash32>)>) -> Result<Batch, StateError> {
        let mut seen = std::collections::HashSet::new();
        let mut cut = Vec::with_capacity(submissions.len());
        for (mut submission, ops) in submissions {
            let mut any = false;
            for (op, item) in ops.iter().zip(&mut submission.items) {
                let known = operation_record(state, op)?.is_some() && !has(Bug::CutsWhatHasItsOutcome);
                if !seen.insert(*op) || known {
                    omit(item);
                } else {
                    any = true;
                }
            }
            if any {
                cut.push(submission);
            }
        }
        Ok(Batch { submissions: cut })
    }

    /// Executes a proposal on top of the parent. `Ok(None)`: it cannot become a block.
    fn execute(&self, proposal: &Proposal) -> Result<Option<Executed>, NodeError> {
        let header = &proposal.header;
        let state = Memo::new(&self.shared);
        match execute(&state, &self.parent, &self.shared.chain, &proposal.batch, header.time, self.state_digest()?) {
            Ok(executed) if has(Bug::VotesForAnyHeader) => Ok(Some(executed)),
            Ok(executed) => Ok(Some(executed).filter(|executed| executed.header == *header)),
            Err(BatchError::State(error)) => Err(error.into()),
            Err(error) => {
                tracing::warn!(height = header.height, %error, "a proposal cannot become a block");
                Ok(None)
            }
        }
    }

    /// What the header of the next height has to say about the state.
    fn state_digest(&self) -> Result<Option<Hash32>, NodeError> {
        let digested = state_digest_height(self.height());
        digested.map(|height| self.shared.state_digests.wait(&self.shared, height)).transpose()
    }

    /// Signs the newest block's size.
    ///
    /// Only this function signs checkpoints. The root is the one that this node computed itself
    /// from its own entries.
    fn sign_newest(&mut self) -> Result<(), NodeError> {
        let size = self.parent.frontier.size();
        if size <= self.signed || !self.may_sign() {
            return Ok(());
        }
        let Some(member) = self.in_force.iter().find(|member| member.domain == self.shared.domain) else {
            return Ok(());
        };
        let Some(keys) = self.keys.of(member).cloned() else { return Ok(()) };
        let (origin, root) = (self.shared.genesis.origin.clone(), self.parent.frontier.root());
        // Rounded up: "existed no later than" must not lie before the block.
        let now_ms = (self.shared.clock)();
        let time = now_ms.max(self.parent.time).div_ceil(1000);
        // Nor before a cosignature of the same size, as after a clock that ran ahead was set right.
        let promise = *self.files.guard.lock().promise();
        let time = if promise.size == size { time.max(promise.time) } else { time };
        if !has(Bug::SignsCheckpointUnremembered) {
            self.files.guard.lock().checkpoint(size, root, time, self.parent.height)?;
        }
        // Durable after this line: the promise. Dying now is harmless: the next start may sign
        // the same size and root again, and never another root.
        let checkpoint = Checkpoint { origin, size, root };
        let text = checkpoint.text();
        let damaged = |error: ledger_core::note::NoteError| NodeError::Damaged(error.to_string());
        let log_line = sign(&checkpoint.origin, &keys.log, &text).map_err(damaged)?;
        let name = member.cosigner_name();
        let line = cosign(&name, &keys.cosigner, &text, time).map_err(damaged)?;
        self.signed = size;
        let open = Open {
            checkpoint,
            height: self.parent.height,
            members: Arc::clone(&self.in_force),
            log_line,
            cosignatures: BTreeMap::from([(name, line)]),
        };
        self.cosigning.signed(open, now_ms);
        self.publish_complete()?;
        self.resend();
        Ok(())
    }

    /// A guard that remembers more than the data show: this node signs nothing until it caught up. Nor
    /// while it could not show what it signs.
    fn may_sign(&self) -> bool {
        if !self.shared.damage.allows_signing() && !has(Bug::SignsWhileDamaged) {
            return false;
        }
        let guard = self.files.guard.lock();
        let promise = guard.promise();
        let caught_up = promise.decided <= self.parent.height && promise.size <= self.parent.frontier.size();
        caught_up || has(Bug::SignsBeforeItCaughtUp)
    }

    /// Stores and publishes the largest checkpoint that a quorum has signed.
    fn publish_complete(&mut self) -> Result<(), NodeError> {
        let Some(open) = self.cosigning.take_complete() else { return Ok(()) };
        // One that was taken over meanwhile, or a smaller one that somebody replays: sizes only grow.
        if self.shared.published.load().as_ref().as_ref().is_some_and(|last| open.checkpoint.size <= last.size) {
            return Ok(());
        }
        let record = CheckpointRecord { height: open.height, note: open.note() };
        // What is published is checked as a stranger would: under the policy of its size.
        let trust = self.shared.trust_at(open.checkpoint.size)?;
        let signatures = record.signed()?.check_signatures(&trust.policy);
        let checked = signatures.and_then(|signatures| signatures.check_quorum(&trust.policy));
        if let Err(verdict) = checked
            && !has(Bug::PublishesWithoutQuorum)
        {
            tracing::error!(%verdict, size = open.checkpoint.size.0, "a checkpoint is not published");
            return Ok(());
        }
        let Checkpoint { size, root, .. } = open.checkpoint;
        self.publish(record, size, root)
    }

    /// Stores a checkpoint whose quorum was checked, then shows it to readers.
    fn publish(&mut self, record: CheckpointRecord, size: TreeSize, root: Hash32) -> Result<(), NodeError> {
        let number = self.files.checkpoint_log.append(&[&record.encode()])?;
        self.shared.recent.write().insert_checkpoint(size, number);
        self.shared.backlog.push(Work::Checkpoint { size, record: number })?;
        self.cosigning.published(size, &record.note, &self.in_force, Some((self.shared.clock)()));
        let record_height = record.height;
        self.shared.publish(Published { height: record.height, size, root, note: record.note });
        metrics::counter!("chopmark_node_checkpoints_total").increment(1);
        if record_height == self.parent.height {
            let age = (self.shared.clock)().saturating_sub(self.parent.time);
            metrics::histogram!("chopmark_node_cosigned_seconds").record(Duration::from_millis(age));
        }
        Ok(())
    }

    /// A block without entries is covered by the checkpoint that was there before.
    fn cover_empty(&mut self) {
        let (size, height) = (self.parent.frontier.size(), self.parent.height);
        self.cosigning.covers(size, height);
        if has(Bug::EmptyBlocksStayUncovered) {
            return;
        }
        if let Some(published) = self.shared.published.load().as_ref().clone()
            && published.size == size
            && published.height < height
        {
            self.shared.publish(Published { height, ..published });
        }
    }

    /// Sends this node's newest signature again while it waits for others.
    fn resend(&mut self) {
        let name = format!("{}/cosigner", self.shared.domain);
        if self.in_force.len() > 1
            && let Some(note) = self.cosigning.resend(self.now, &name)
        {
            self.send_checkpoint(&note);
        }
    }

    fn send_checkpoint(&mut self, note: &str) {
        let mut writer = Writer::new();
        writer.u8(MESSAGE_CHECKPOINT).bytes(note.as_bytes());
        self.outbox.push(writer.finish());
    }

    fn heard_checkpoint(&mut self, text: &str) -> Result<(), NodeError> {
        let Ok(note) = Note::parse(text) else { return Ok(()) };
        let members = Arc::clone(&self.in_force);
        let now_ms = (self.shared.clock)();
        for found in self.cosigning.heard(&note, &self.shared.genesis.origin, &members, now_ms) {
            self.files.equivocations.add(&found)?;
        }
        self.publish_complete()?;
        // Whoever still sends what was published lacks signatures that this node has.
        let published = self.shared.published.load_full();
        if let Some(published) = published.as_ref()
            && note.signatures.len() < members.quorum()
            && !has(Bug::HelpsNobody)
            && published.note.starts_with(&note.text)
            && self.now.saturating_sub(self.helped_at) >= RESEND
        {
            self.helped_at = self.now;
            self.send_checkpoint(&published.note);
        }
        Ok(())
    }

    /// Makes an executed block of the next height durable and takes it over, once its certificate holds.
    fn take_over(&mut self, proposal: Proposal, executed: Executed, certificate: Certificate) -> Result<(), NodeError> {
        let height = self.height();
        let verified = certificate.verify(&self.shared.chain, height, &executed.header.hash(), &self.next_members());
        if !has(Bug::DecidesWithoutCertificate) {
            verified.map_err(|error| NodeError::Damaged(format!("certificate of height {height}: {error}")))?;
        }
        metrics::gauge!("chopmark_node_round").set(f64::from(certificate.round));
        metrics::counter!("chopmark_node_rounds_total").increment(u64::from(certificate.round) + 1);
        let outcomes = executed.outcomes.clone();
        let verdicts = outcomes.iter().map(|outcome| outcome.verdict).collect();
        let block = Block { header: proposal.header, batch: proposal.batch, verdicts, certificate };
        let bytes = block.encode();
        let previous = (self.parent.time, self.parent.frontier.size());
        let started = Instant::now();
        if has(Bug::AnswersBeforeTheBlockIsDurable) {
            self.shared.pool.ended(outcomes.iter().map(ended));
        }
        self.files.block_log.append(&[&bytes])?;
        // Durable after this line: the block. Everything else can be made from it.
        metrics::histogram!("chopmark_node_commit_seconds").record(started.elapsed());
        metrics::counter!("chopmark_node_blocks_total").increment(1);
        metrics::counter!("chopmark_node_block_bytes_total").increment(bytes.len() as u64);
        metrics::counter!("chopmark_node_operations_total").increment(outcomes.len() as u64);
        let changed = |key| executed.changes.contains_key(key);
        if changed(key::MEMBERS) || (changed(key::PENDING_MEMBERS) && !has(Bug::ForgetsPendingMembers)) {
            let state = BlockState { changes: &executed.changes, below: &self.shared.state };
            self.in_force = Arc::new(ledger_core::state::members(&state)?);
            self.pending = read_json(&state, key::PENDING_MEMBERS)?;
            self.take_up_keys();
        }
        self.parent = commit(&self.shared, block, executed, bytes.len())?;
        self.prove_signed()?;
        // Data that have caught up lose the mark before guard and submitters are told of anything.
        let known = self.files.guard.lock().promise().decided;
        self.files.rebuilding.compare(self.parent.height, known)?;
        self.files.proposals.clear()?;
        self.rested_since = self.now;
        if self.parent.frontier.size() == previous.1 {
            self.cover_empty();
            self.cosigning.say_again();
        } else if is_due(previous.0, if has(Bug::DueByOwnClock) { (self.shared.clock)() } else { self.parent.time }) {
            self.sign_newest()?;
        }
        if !has(Bug::AnswersBeforeTheGuardKnows) {
            self.files.guard.lock().decided(self.parent.height)?;
        }
        self.shared.pool.ended(outcomes.iter().map(ended));
        Ok(())
    }

    /// Size of the tree after the newest block.
    pub(crate) fn size(&self) -> TreeSize {
        self.parent.frontier.size()
    }

    /// Whether the others, as far as they can be reached, have told what they know of this node's votes,
    /// and what they told is in the guard.
    pub(crate) fn is_witnessed(&self) -> Result<bool, NodeError> {
        let concluded = self.shared.witnesses.conclude(&self.next_members(), &self.shared.domain, Instant::now());
        self.hear_witnesses()?;
        Ok(concluded)
    }

    /// Falls silent up to the last height at which others have seen a vote that the guard does not know of.
    fn hear_witnesses(&self) -> Result<(), NodeError> {
        let votes = self.shared.witnesses.own_votes(&self.shared.chain, &self.keys.validators());
        // Locked after the votes were taken: what this node signed before somebody saw it is remembered.
        let mut guard = self.files.guard.lock();
        let Some(height) = unknown(&votes, guard.promise()) else { return Ok(()) };
        tracing::warn!(
            height,
            "others have seen votes of this node that its guard does not know of: data and guard are older copies, \
             or another node votes with its keys. It follows without a vote up to that height"
        );
        guard.silence(height)?;
        self.silent_up_to.fetch_max(height, Ordering::Relaxed);
        Ok(())
    }

    /// Says every now and then that it waits for answers.
    pub(crate) fn miss_witnesses(&mut self) {
        if !self.no_vote().is_some_and(|reason| matches!(reason, NoVote::Unwitnessed)) {
            self.missed_since = None;
            return;
        }
        if self.missed_since.get_or_insert_with(Instant::now).elapsed() < WITNESSES_MISSED_AFTER {
            return;
        }
        self.missed_since = Some(Instant::now());
        let answered = self.shared.witnesses.members();
        tracing::warn!(?answered, "before it votes, this node waits for a quorum to say what it has seen of it");
    }

    /// What this node is locked on at the next height.
    fn locked(&self) -> Option<Hash32> {
        let promise = *self.files.guard.lock().promise();
        let (_, value) = promise.lock.filter(|_| promise.height == self.height())?;
        Some(value)
    }

    /// This node's member at the next height.
    fn own_member(&self) -> Option<Member> {
        self.next_members().iter().find(|member| member.domain == self.shared.domain).cloned()
    }

    /// Why this node does not vote at the next height.
    fn no_vote(&self) -> Option<NoVote> {
        let Some(own) = self.own_member() else { return Some(NoVote::NotAMember) };
        // Under its domain there may be somebody else's keys: a member that left and joins again.
        if self.keys.of(&own).is_none() {
            return Some(NoVote::OtherKeys(self.keys.unknown_to(&own)));
        }
        if self.shared.left_behind.load(Ordering::Relaxed) {
            return Some(NoVote::LeftBehind);
        }
        if let Some(height) = self.may_have_voted() {
            return Some(NoVote::MayHaveVoted(height));
        }
        let Shared { witnesses, domain, .. } = &*self.shared;
        let is_witnessed = witnesses.are_enough() && witnesses.are_quorum_of(&self.next_members(), domain);
        (!is_witnessed).then_some(NoVote::Unwitnessed)
    }

    /// The height up to which it may have voted beyond its data, where that is not below the next one.
    fn may_have_voted(&self) -> Option<u64> {
        let promise = *self.files.guard.lock().promise();
        let silent = self.silent_up_to.load(Ordering::Relaxed);
        // Votes at the next height itself are remembered one by one, and may be given again.
        let voted = promise.decided.max(promise.height.saturating_sub(1)).max(silent);
        Some(voted).filter(|voted| *voted >= self.height())
    }

    /// Lets everybody see whether this node votes, and says it where that has changed.
    fn see_vote(&self) {
        let now = self.no_vote();
        metrics::gauge!("chopmark_node_votes").set(if now.is_none() { 1.0 } else { 0.0 });
        let before = std::mem::replace(&mut *self.shared.no_vote.lock(), now.clone());
        if now == before {
            return;
        }
        let domain = &self.shared.domain;
        match now {
            None => tracing::info!(domain, "this node votes"),
            Some(reason @ NoVote::OtherKeys(_)) => tracing::error!(domain, %reason, "this node does not vote"),
            Some(reason @ NoVote::NotAMember) => tracing::warn!(domain, %reason, "this node does not vote"),
            // Said elsewhere where it takes long.
            Some(reason) => tracing::info!(domain, %reason, "this node does not vote yet"),
        }
    }

    /// Takes up the keys of a rotation, once a set that is on its way names them.
    fn take_up_keys(&mut self) {
        let pending = self.pending.as_ref().map(|pending| pending.members.iter());
        let own = pending.into_iter().flatten().find(|member| member.domain == self.shared.domain);
        match own {
            Some(member) if self.keys.of(member).is_none() => {
                // A key that cannot be read costs this member its votes, and nobody anything else.
                if let Err(error) = self.keys.reload() {
                    tracing::error!(%error, "the keys of a rotation cannot be read");
                }
            }
            _ => {}
        }
    }

    /// A fresh proposal shows its proposer's clock.
    fn heard_time(&mut self, slot: Slot, time: u64, now: u64) {
        let own = address(&self.signer().public());
        self.clocks.heard(slot.proposer, time, now);
        let Some(offset) = self.clocks.offset_ms(&self.next_members(), &own) else { return };
        metrics::gauge!("chopmark_node_clock_offset_ms").set(offset as f64);
        let before = self.shared.clock_offset_ms.lock().replace(offset);
        let was_off = before.is_some_and(is_off);
        if is_off(offset) && !was_off {
            tracing::error!(offset_ms = offset, "this node's clock is not that of the others: repair its time service");
        } else if was_off && !is_off(offset) {
            tracing::info!(offset_ms = offset, "this node's clock agrees with the others again");
        }
    }

    /// Members of the next height.
    fn next_members(&self) -> Arc<MemberSet> {
        match self.pending.as_ref().filter(|pending| pending.effective == self.parent.height + 1) {
            Some(pending) => Arc::new(pending.members.clone()),
            None => Arc::clone(&self.in_force),
        }
    }
}

impl Application for Ledger {
    fn height(&self) -> u64 {
        self.parent.height + 1
    }

    fn members(&self) -> Arc<MemberSet> {
        self.next_members()
    }

    fn signer(&self) -> Arc<dyn VoteSigner> {
        Arc::new(GuardedSigner {
            guard: Arc::clone(&self.files.guard),
            chain: self.shared.chain,
            key: self
                .own_member()
                .as_ref()
                .and_then(|own| self.keys.of(own))
                .unwrap_or(self.keys.newest())
                .validator
                .clone(),
            silent_up_to: Arc::clone(&self.silent_up_to),
        })
    }

    fn changed(&self) -> Arc<Notify> {
        self.shared.pool.changed()
    }

    fn is_stopping(&self) -> bool {
        self.shared.pool.is_closed()
    }

    fn follows(&self) -> bool {
        let follows = |reason| matches!(reason, NoVote::NotAMember | NoVote::OtherKeys(_) | NoVote::LeftBehind);
        self.shared.follows && self.no_vote().is_some_and(follows)
    }

    fn caught_up(&mut self) {
        self.shared.left_behind.store(false, Ordering::Relaxed);
    }

    fn may_vote(&self) -> bool {
        self.own_member().is_some_and(|own| self.keys.of(&own).is_some())
            && self.may_have_voted().is_none()
            && self.shared.witnesses.are_quorum_of(&self.next_members(), &self.shared.domain)
    }

    fn seen_votes(&self) -> SeenVotes {
        self.shared.seen_votes.clone()
    }

    fn log_is_void(&self) -> bool {
        self.files.guard.lock().promise().void == self.height()
    }

    fn wants_block(&self) -> bool {
        (!self.shared.pool.is_empty() || self.pending.is_some()) && self.may_vote()
    }

    fn propose(&mut self, round: u32, proposer: [u8; 20]) -> Result<(Judged, Vec<u8>), Failure> {
        let own = |kept: &Kept| kept.own && kept.slot.round == round && kept.slot.proposer == proposer;
        let kept = self.files.proposals.iter().find(|(_, kept)| own(kept));
        if let Some((value, kept)) = kept.filter(|_| !has(Bug::ProposesTwice)) {
            return Ok((Judged { slot: kept.slot, value: *value, valid: true }, kept.bytes.clone()));
        }
        // An engine that has forgotten its lock asks for a new value; others that are locked vote for none.
        let locked = self.locked().and_then(|value| Some((value, self.files.proposals.get(&value)?)));
        if let Some((value, kept)) = locked {
            let slot = Slot { height: self.height(), round, valid_round: None, proposer };
            return Ok((Judged { slot, value, valid: true }, kept.bytes.clone()));
        }
        let shared = Arc::clone(&self.shared);
        let members = self.next_members();
        // A submitter that lost its place meanwhile would spoil the whole batch.
        shared.pool.retain(|submission| members.is_submitter(&submission.key));
        let state = Memo::new(&shared);
        let batch = Self::cut(&state, shared.pool.first(CUT_BYTES_MAX))?.encode();
        let earliest = if has(Bug::TimeRunsBackwards) { 0 } else { self.parent.time };
        let time = earliest.max((shared.clock)());
        let executed = execute(&state, &self.parent, &shared.chain, &batch, time, self.state_digest()?)?;
        let proposal = Proposal { header: executed.header.clone(), batch };
        let (value, bytes) = (proposal.header.hash(), proposal.encode());
        let slot = Slot { height: self.height(), round, valid_round: None, proposer };
        self.files.proposals.keep(value, Kept { slot, bytes: bytes.clone(), own: true, executed: Some(executed) })?;
        Ok((Judged { slot, value, valid: true }, bytes))
    }

    fn judge(&mut self, slot: Slot, bytes: &[u8], fresh: bool) -> Result<Option<Judged>, Failure> {
        let Ok(proposal) = Proposal::decode(bytes) else { return Ok(None) };
        let value = proposal.header.hash();
        if slot.height != self.height() {
            return Ok(None);
        }
        if self.files.proposals.get(&value).is_some_and(|kept| kept.bytes == bytes) {
            return Ok(Some(judged(slot, value, true)));
        }
        if batch_hash(&proposal.batch) != proposal.header.batch {
            // Says nothing about the value: its true batch may be on the way.
            return Ok(None);
        }
        if fresh && !slot.is_sound(&self.next_members()) {
            return Ok(None);
        }
        let now = (self.shared.clock)();
        if fresh && slot.valid_round.is_none() {
            self.heard_time(slot, proposal.header.time, now);
        }
        // Never relative to the parent alone: one liar would take the next step from the last one.
        let latest = (now + CLOCK_OFFSET_MAX_MS).max(self.parent.time);
        if fresh && proposal.header.time > latest && !has(Bug::IgnoresTheClock) {
            tracing::warn!(height = slot.height, time = proposal.header.time, "a proposal is ahead of the clock");
            return Ok(Some(judged(slot, value, false)));
        }
        let Some(executed) = self.execute(&proposal)? else { return Ok(Some(judged(slot, value, false))) };
        let locked = self.locked();
        self.files.proposals.make_room(KEPT_MAX, locked.as_ref());
        let kept = Kept { slot, bytes: bytes.to_vec(), own: false, executed: Some(executed) };
        self.files.proposals.keep(value, kept)?;
        Ok(Some(judged(slot, value, true)))
    }

    fn kept(&mut self, round: u32) -> Result<Vec<Judged>, Failure> {
        let of_round = self.files.proposals.iter().filter(|(_, kept)| kept.slot.round == round);
        Ok(of_round.map(|(value, kept)| Judged { slot: kept.slot, value: *value, valid: true }).collect())
    }

    fn proposal(&self, value: &Hash32) -> Option<Vec<u8>> {
        self.files.proposals.get(value).map(|kept| kept.bytes.clone())
    }

    fn decide(&mut self, certificate: Certificate) -> Result<(), Failure> {
        let height = self.height();
        if certificate.height < height && !has(Bug::DecidesTwice) {
            return Ok(());
        }
        let diverged = |field| NodeError::Diverged { height, field };
        let Some(kept) = self.files.proposals.take(&certificate.value) else { return Err(diverged("value").into()) };
        let proposal = Proposal::decode(&kept.bytes).map_err(|_| diverged("proposal"))?;
        let executed = match kept.executed {
            Some(executed) => executed,
            None => self.execute(&proposal)?.ok_or(diverged("header"))?,
        };
        Ok(self.take_over(proposal, executed, certificate)?)
    }

    fn take_block(&mut self, proposal: Proposal, certificate: Certificate) -> Result<bool, Failure> {
        // Under this header hash there is another batch.
        if batch_hash(&proposal.batch) != proposal.header.batch {
            return Ok(false);
        }
        let height = self.height();
        let Some(executed) = self.execute(&proposal)? else {
            let reason = format!("the members decided a block at height {height} that does not execute here");
            return Err(EngineError(reason).into());
        };
        self.take_over(proposal, executed, certificate)?;
        Ok(true)
    }

    fn decided(&self, height: u64) -> Result<Option<(Vec<u8>, Certificate)>, Failure> {
        if height >= self.height() {
            return Ok(None);
        }
        let block = match self.shared.stored_block(height) {
            Ok((block, _)) => block,
            // The peer asks another one.
            Err(error @ NodeError::DamagedPart { .. }) => {
                self.shared.noted(error);
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let proposal = Proposal { header: block.header, batch: block.batch };
        Ok(Some((proposal.encode(), block.certificate)))
    }

    fn wake(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(MESSAGE_WAKE).u64(self.height());
        writer.finish()
    }

    fn message(&mut self, bytes: &[u8]) -> Result<Heard, Failure> {
        let mut reader = Reader::new(bytes);
        match reader.u8() {
            Ok(MESSAGE_CHECKPOINT) => {
                let note = reader.bytes(bytes.len()).ok().and_then(|note| std::str::from_utf8(note).ok());
                if let Some(note) = note {
                    self.heard_checkpoint(note)?;
                }
                Ok(Heard::Nothing)
            }
            Ok(MESSAGE_WAKE) => Ok(reader.u64().map_or(Heard::Nothing, Heard::Wake)),
            _ => Ok(Heard::Nothing),
        }
    }

    fn tick(&mut self, now: Duration) -> Result<Option<Duration>, Failure> {
        self.now = now;
        self.hear_witnesses()?;
        self.see_vote();
        self.miss_witnesses();
        if self.follows() {
            // What waits here for a turn will not get one.
            self.shared.pool.retain(|_| false);
        }
        let unsigned = self.parent.frontier.size() > self.signed && self.may_sign();
        let rests_at = self.rested_since + CHECKPOINT_INTERVAL;
        if unsigned && now >= rests_at {
            self.sign_newest()?;
        }
        self.resend();
        let unsigned = unsigned && now < rests_at;
        let resend = (self.in_force.len() > 1 && self.cosigning.is_waiting()).then(|| now + RESEND);
        Ok(unsigned.then_some(rests_at).into_iter().chain(resend).min())
    }

    fn outbox(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.outbox)
    }

    fn take_checkpoint(&mut self, note: &str) -> Result<bool, Failure> {
        let size = self.parent.frontier.size();
        let trust = self.shared.trust_at(size)?;
        // Lines of unknown names are no fault in a note; what is stored here has to be read back.
        if note.len() > CHECKPOINT_BYTES_MAX {
            return Ok(false);
        }
        let Ok(signed) = SignedCheckpoint::parse(note) else { return Ok(false) };
        let Checkpoint { origin, size: signed_size, root } = &signed.checkpoint;
        let own = (origin, *signed_size, *root) == (&self.shared.genesis.origin, size, self.parent.frontier.root());
        let signatures = signed.check_signatures(&trust.policy);
        if !own || signatures.and_then(|signatures| signatures.check_quorum(&trust.policy)).is_err() {
            return Ok(false);
        }
        if self.shared.published.load().as_ref().as_ref().is_none_or(|published| published.size < size) {
            let record = CheckpointRecord { height: self.parent.height, note: note.to_owned() };
            self.publish(record, size, self.parent.frontier.root())?;
        }
        Ok(true)
    }

    fn equivocation(&mut self, found: &Equivocation) -> Result<(), Failure> {
        Ok(self.files.equivocations.add(found)?)
    }
}

/// Whether a block is to be signed at once: the first one of every tenth of a second of block time.
/// A function of the blocks alone, so that all members sign the same sizes.
fn is_due(previous_ms: u64, time_ms: u64) -> bool {
    let interval = u64::try_from(CHECKPOINT_INTERVAL.as_millis()).unwrap_or(u64::MAX);
    previous_ms / interval != time_ms / interval
}

fn judged(slot: Slot, value: Hash32, valid: bool) -> Judged {
    if !valid {
        metrics::counter!("chopmark_node_proposals_refused_total").increment(1);
    }
    Judged { slot, value, valid }
}

fn ended(outcome: &Outcome) -> (Hash32, Ended) {
    let result = match outcome.verdict {
        Verdict::Committed { index, .. } => Ok(index),
        Verdict::Rejected(code) => Err(code),
    };
    (outcome.op, Ended { request: outcome.request, result })
}

/// Takes a durable block over into memory, on the way of normal progress and of replay alike.
pub(crate) fn commit(shared: &Shared, block: Block, executed: Executed, bytes: usize) -> Result<Parent, NodeError> {
    let header = &block.header;
    let parent = Parent { height: header.height, time: header.time, hash: header.hash(), frontier: executed.frontier };
    let entry_bytes: usize = executed.entries.iter().map(Vec::len).sum();
    let first_index = header.tree_size - executed.entries.len() as u64;
    let keys = index_keys(first_index, &executed.entries);
    let bytes = bytes + 2 * entry_bytes + 200 * executed.changes.len() + size_of_val(keys.as_slice());
    if executed.changes.contains_key(ledger_core::state::key::MEMBERS) {
        let state = BlockState { changes: &executed.changes, below: &shared.state };
        let first_size = if has(Bug::PolicyBeginsOneTooEarly) { first_index } else { first_index + 1 };
        shared.trust_from(first_size, ledger_core::state::members(&state)?)?;
    }
    let committed =
        CommittedBlock { block, hash: parent.hash, entries: executed.entries, keys, changes: executed.changes, bytes };
    shared.commit(committed, &executed.leaves)?;
    metrics::gauge!("chopmark_node_height").set(parent.height as f64);
    metrics::gauge!("chopmark_node_tree_size").set(parent.frontier.size().0 as f64);
    Ok(parent)
}

#[cfg(test)]
impl Ledger {
    /// The block that the next one follows.
    pub(crate) const fn parent(&self) -> &Parent {
        &self.parent
    }

    /// Size of the last checkpoint that this node signed.
    pub(crate) const fn signed(&self) -> TreeSize {
        self.signed
    }
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

/// Remembers reads while a batch is cut and executed, so that each key is looked up once.
struct Memo<'a> {
    shared: &'a Shared,
    known: RefCell<Known>,
}

impl<'a> Memo<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self { shared, known: RefCell::default() }
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
