//! The agreement engine of the simulation: Tendermint (arXiv:1807.04938) without network, threads or
//! clock of its own. It drives the ledger as `chopmark_consensus::Malachite` does: the same calls at
//! the same points, the same write-ahead log (what was received or signed is written there, and
//! synced before anything of one's own leaves), the same rest between heights.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use chopmark_consensus::{Application, Failure, Heard, Judged, SignedVote, Slot, proposer};
use ledger_core::{
    Hash32,
    member::MemberSet,
    vote::{Certificate, VoteType, address},
};

use crate::{
    NodeError,
    guard::{Promise, Step as GuardStep},
    ledger::Ledger,
};

/// As in `malachite.rs`, in microseconds.
const HEARTBEAT: u64 = 30_000_000;
const WAKE_INTERVAL: u64 = 300_000;
const CALLED_INTERVAL: u64 = 250_000;
const REBROADCAST: u64 = 1_000_000;
const EARLY_MAX: usize = 64;
/// Blocks that a lone member may decide without a pause: more than any pool holds.
const DECIDED_AT_ONCE_MAX: usize = 256;
const ROUNDS_AHEAD: u32 = 10;
/// Votes kept of one validator for one step.
const VOTES_OF_STEP_MAX: usize = 4;

pub(crate) type Address = [u8; 20];

#[derive(Debug, Clone)]
pub(crate) struct Vote {
    pub(crate) kind: VoteType,
    pub(crate) height: u64,
    pub(crate) round: u32,
    pub(crate) value: Option<Hash32>,
    pub(crate) address: Address,
    pub(crate) signature: [u8; 64],
}

/// A signed proposal; the block comes beside it as a stream.
#[derive(Debug, Clone)]
pub(crate) struct Proposed {
    pub(crate) height: u64,
    pub(crate) round: u32,
    pub(crate) valid_round: Option<u32>,
    pub(crate) value: Hash32,
    pub(crate) address: Address,
}

#[derive(Debug, Clone)]
pub(crate) enum Message {
    Proposed(Proposed),
    Stream(Slot, Arc<[u8]>),
    Vote(Vote),
    /// A broadcast of the ledger.
    Ledger(Arc<[u8]>),
    /// The sender's newest decided height.
    Status(u64),
    /// Asks for a decided block.
    Ask(u64),
    Decided(Arc<[u8]>, Certificate),
}

/// What a node asks of the world.
#[derive(Debug)]
pub(crate) enum Effect {
    Broadcast(Message),
    Send(usize, Message),
    /// Call `timeout` then.
    Timeout(u64, Timeout),
    /// A vote was signed; of a prevote, the round of the polka that its proposal calls upon.
    Voted(Vote, Option<u32>),
    /// The guard signed another vote than the one asked for.
    Amended(GuardStep),
    /// A proposal was signed.
    Signed(Proposed),
    /// The guard refused a signature.
    Refused(GuardStep),
    /// Two votes of one validator in one step were seen.
    Contradiction(Vote, Vote),
    /// A block was decided.
    Decided(Sealed),
    /// A block that a quorum decided does not execute here.
    Misjudged(u64),
}

/// What a decision did about signing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sealed {
    pub(crate) previous_ms: u64,
    pub(crate) time_ms: u64,
    /// Whether the block has entries.
    pub(crate) grew: bool,
    /// Whether the node signed the new size.
    pub(crate) signed: bool,
    /// Whether the node is a member in force after the block.
    pub(crate) member: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timeout {
    pub(crate) height: u64,
    pub(crate) round: u32,
    pub(crate) step: Step,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Propose,
    Prevote,
    Precommit,
}

/// The engine's write-ahead log of one height.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wal {
    height: u64,
    records: Vec<Record>,
    synced: usize,
}

#[derive(Debug, Clone)]
enum Record {
    Round(u32),
    Vote(Vote),
    Proposed(Proposed),
    Judged(Judged),
}

impl Wal {
    fn append(&mut self, record: Record) {
        self.records.push(record);
    }

    fn sync(&mut self) {
        self.synced = self.records.len();
    }

    /// What is left after a crash: what was synced, and `more` of the rest.
    pub(crate) fn after_crash(&self, more: usize) -> Self {
        let mut left = self.clone();
        left.records.truncate(self.synced + more);
        left.sync();
        left
    }

    /// Whether it has every signature that the guard remembers of its height.
    pub(crate) fn has_all_of(&self, promise: &Promise, own: &Address) -> bool {
        let signed = |step: GuardStep, value: &Option<Hash32>| {
            self.records.iter().any(|record| match record {
                Record::Vote(vote) => {
                    let of_step = if step == GuardStep::Prevote { VoteType::Prevote } else { VoteType::Precommit };
                    let own = vote.address == *own && vote.kind == of_step && step != GuardStep::Proposal;
                    own && vote.round == promise.round && vote.value == *value
                }
                Record::Proposed(proposed) => {
                    let own = proposed.address == *own && step == GuardStep::Proposal;
                    own && proposed.round == promise.round && Some(proposed.value) == *value
                }
                Record::Round(_) | Record::Judged(_) => false,
            })
        };
        let steps = [GuardStep::Proposal, GuardStep::Prevote, GuardStep::Precommit];
        promise.height != self.height
            || steps.iter().all(|step| promise.votes[*step as usize].is_none_or(|value| signed(*step, &value)))
    }

    pub(crate) fn unsynced(&self) -> usize {
        self.records.len() - self.synced
    }
}

pub(crate) struct Engine {
    own: Address,
    /// Whether this node votes; otherwise it follows.
    votes: bool,
    chain: Hash32,
    members: Arc<MemberSet>,
    height: u64,
    round: u32,
    step: Step,
    /// Between two heights: until when at the latest.
    resting: Option<u64>,
    locked: Option<(u32, Hash32)>,
    valid: Option<(u32, Hash32)>,
    proposed: BTreeMap<u32, Vec<Proposed>>,
    judged: BTreeMap<Hash32, bool>,
    /// Votes by round and type. Of one that votes twice, both count: others may have seen a quorum with
    /// either (in Malachite, polka certificates carry that over).
    heard: BTreeMap<(u32, u8), Vec<Vote>>,
    waits: BTreeSet<(u32, Step)>,
    early: VecDeque<(usize, Message)>,
    quiet_since: u64,
    began: u64,
    sent_again: u64,
    behind: bool,
    pub(crate) wal: Wal,
}

type Outcome = Result<(), Failure>;

impl Engine {
    pub(crate) fn new(ledger: &Ledger, wal: Wal, now: u64) -> Self {
        let height = ledger.height();
        let wal = if wal.height == height && !ledger.log_is_void() { wal } else { Wal { height, ..Wal::default() } };
        Self {
            own: address(&ledger.signer().public()),
            votes: ledger.may_vote(),
            chain: ledger.signer().chain(),
            members: ledger.members(),
            height,
            round: 0,
            step: Step::Propose,
            resting: None,
            locked: None,
            valid: None,
            proposed: BTreeMap::new(),
            judged: BTreeMap::new(),
            heard: BTreeMap::new(),
            waits: BTreeSet::new(),
            early: VecDeque::new(),
            quiet_since: now,
            began: now,
            sent_again: now,
            behind: false,
            wal,
        }
    }

    /// Begins, with what the write-ahead log has of this height.
    pub(crate) fn start(&mut self, ledger: &mut Ledger, now: u64, out: &mut Vec<Effect>) -> Outcome {
        let mut round = 0;
        for record in self.wal.records.clone() {
            match record {
                Record::Round(reached) => round = round.max(reached),
                Record::Vote(vote) => self.hear(vote, out),
                Record::Proposed(proposed) => self.proposed.entry(proposed.round).or_default().push(proposed),
                Record::Judged(judged) => drop(self.judged.insert(judged.value, judged.valid)),
            }
        }
        for (at, votes) in &self.heard {
            let own = votes.iter().find(|vote| vote.address == self.own).and_then(|vote| vote.value);
            if at.1 == VoteType::Precommit as u8
                && let Some(value) = own
            {
                self.locked = Some((at.0, value));
            }
        }
        for earlier in 0..round {
            self.take_kept(ledger, earlier)?;
        }
        self.enter(ledger, round, now, out)
    }

    /// Where this engine stands, for the report of a run that got stuck.
    pub(crate) fn standing(&self) -> String {
        let short = |value: &Hash32| hex::encode(&value.0[..3]);
        let tally = |kind: VoteType| {
            let votes = self.heard.get(&(self.round, kind as u8)).into_iter().flatten();
            votes.map(|vote| vote.value.as_ref().map_or("nil".to_owned(), short)).collect::<Vec<_>>().join(" ")
        };
        format!(
            "{}round {} {:?} locked {:?} valid {:?}, prevotes [{}], precommits [{}]",
            if self.resting.is_some() { "resting, " } else { "" },
            self.round,
            self.step,
            self.locked.map(|(round, value)| (round, short(&value))),
            self.valid.map(|(round, value)| (round, short(&value))),
            tally(VoteType::Prevote),
            tally(VoteType::Precommit),
        )
    }

    pub(crate) const fn own(&self) -> Address {
        self.own
    }

    pub(crate) fn votes(&self) -> bool {
        self.votes
    }

    fn take_kept(&mut self, ledger: &mut Ledger, round: u32) -> Outcome {
        for judged in ledger.kept(round)? {
            self.judged.insert(judged.value, judged.valid);
        }
        Ok(())
    }

    /// Begins a round.
    fn enter(&mut self, ledger: &mut Ledger, round: u32, now: u64, out: &mut Vec<Effect>) -> Outcome {
        (self.round, self.step) = (round, Step::Propose);
        self.wal.append(Record::Round(round));
        self.wal.sync();
        self.take_kept(ledger, round)?;
        if self.has_voted(VoteType::Precommit) {
            self.step = Step::Precommit;
        } else if self.has_voted(VoteType::Prevote) {
            self.step = Step::Prevote;
        }
        for (from, message) in std::mem::take(&mut self.early) {
            self.message(ledger, from, message, now, out)?;
        }
        if self.height != ledger.height() || self.round != round {
            return Ok(());
        }
        let turn = proposer(&self.members, self.height, round).map(|member| address(&member.validator_key));
        if self.votes && turn == Some(self.own) && self.step == Step::Propose {
            self.propose(ledger, now, out)?;
        }
        if self.step == Step::Propose {
            self.wait(Step::Propose, now, out);
        }
        self.advance(ledger, now, out)
    }

    fn propose(&mut self, ledger: &mut Ledger, now: u64, out: &mut Vec<Effect>) -> Outcome {
        let round = self.round;
        let known = self.proposed.get(&round).is_some_and(|all| all.iter().any(|one| one.address == self.own));
        if known {
            return Ok(());
        }
        let (slot, value, bytes) = match self.valid {
            Some((valid_round, value)) => {
                let Some(bytes) = ledger.proposal(&value) else { return Ok(()) };
                let slot = Slot { height: self.height, round, valid_round: Some(valid_round), proposer: self.own };
                (slot, value, bytes)
            }
            None => {
                let (judged, bytes) = ledger.propose(round, self.own)?;
                (judged.slot, judged.value, bytes)
            }
        };
        let judged = Judged { slot, value, valid: true };
        self.judged.insert(value, true);
        self.wal.append(Record::Judged(judged));
        let signed = ledger.signer().proposal(self.height, round, slot.valid_round, value);
        if let Err(failure) = signed {
            out.push(Effect::Refused(GuardStep::Proposal));
            return self.stopped(ledger, failure, now, out);
        }
        let proposed = Proposed { height: self.height, round, valid_round: slot.valid_round, value, address: self.own };
        out.push(Effect::Signed(proposed.clone()));
        self.wal.append(Record::Proposed(proposed.clone()));
        self.wal.sync();
        self.proposed.entry(round).or_default().push(proposed.clone());
        out.push(Effect::Broadcast(Message::Proposed(proposed)));
        out.push(Effect::Broadcast(Message::Stream(slot, bytes.into())));
        Ok(())
    }

    /// The engine stops when a signature is refused; a node that may not vote any more goes on as a
    /// follower.
    fn stopped(&mut self, ledger: &mut Ledger, failure: Failure, now: u64, out: &mut Vec<Effect>) -> Outcome {
        let refused = failure.downcast_ref::<NodeError>().is_some_and(|error| matches!(error, NodeError::Guard { .. }));
        if refused && self.votes != ledger.may_vote() && self.members.len() > 1 {
            return self.restart(ledger, now, out);
        }
        Err(failure)
    }

    fn restart(&mut self, ledger: &mut Ledger, now: u64, out: &mut Vec<Effect>) -> Outcome {
        *self = Self { began: self.began, ..Self::new(ledger, std::mem::take(&mut self.wal), now) };
        self.start(ledger, now, out)
    }

    fn cast(
        &mut self,
        ledger: &mut Ledger,
        kind: VoteType,
        (value, valid_round): (Option<Hash32>, Option<u32>),
        now: u64,
        out: &mut Vec<Effect>,
    ) -> Outcome {
        let (height, round) = (self.height, self.round);
        if !self.votes || self.has_voted(kind) {
            return Ok(());
        }
        let step = if kind == VoteType::Prevote { GuardStep::Prevote } else { GuardStep::Precommit };
        match ledger.signer().vote(kind, height, round, value, valid_round) {
            Ok(signed) => {
                if signed.value != value {
                    out.push(Effect::Amended(step));
                }
                let SignedVote { value, signature } = signed;
                let vote = Vote { kind, height, round, value, address: self.own, signature };
                out.push(Effect::Voted(vote.clone(), valid_round));
                self.wal.append(Record::Vote(vote.clone()));
                self.wal.sync();
                self.hear(vote.clone(), out);
                out.push(Effect::Broadcast(Message::Vote(vote)));
                Ok(())
            }
            Err(failure) => {
                out.push(Effect::Refused(step));
                self.stopped(ledger, failure, now, out)
            }
        }
    }

    fn hear(&mut self, vote: Vote, out: &mut Vec<Effect>) {
        let votes = self.heard.entry((vote.round, vote.kind as u8)).or_default();
        if votes.iter().any(|known| known.address == vote.address && known.value == vote.value) {
            return;
        }
        let of_voter = votes.iter().filter(|known| known.address == vote.address);
        if let Some(known) = of_voter.clone().next() {
            out.push(Effect::Contradiction(known.clone(), vote.clone()));
        }
        if of_voter.count() < VOTES_OF_STEP_MAX {
            votes.push(vote);
        }
    }

    /// Whether this node has voted in the round under way.
    fn has_voted(&self, kind: VoteType) -> bool {
        let votes = self.heard.get(&(self.round, kind as u8));
        votes.is_some_and(|votes| votes.iter().any(|vote| vote.address == self.own))
    }

    fn wait(&mut self, step: Step, now: u64, out: &mut Vec<Effect>) {
        let round = u64::from(self.round);
        let (first, more) = if step == Step::Propose { (500, 250) } else { (200, 100) };
        let at = now + 1000 * (first + more * round).min(5_000);
        out.push(Effect::Timeout(at, Timeout { height: self.height, round: self.round, step }));
    }

    fn is_quorum(&self, count: usize) -> bool {
        3 * count > 2 * self.members.len()
    }

    /// The value that a quorum voted for in a round; `Some(None)` is nil.
    fn quorum(&self, round: u32, kind: VoteType) -> Option<Option<Hash32>> {
        let votes = self.heard.get(&(round, kind as u8))?;
        let mut counts: BTreeMap<Option<Hash32>, usize> = BTreeMap::new();
        for vote in votes {
            *counts.entry(vote.value).or_default() += 1;
        }
        counts.into_iter().find(|(_, count)| self.is_quorum(*count)).map(|(value, _)| value)
    }

    fn is_valid(&self, value: &Hash32) -> bool {
        self.judged.get(value).copied().unwrap_or_default()
    }

    /// Applies the rules of the protocol until none fits.
    fn advance(&mut self, ledger: &mut Ledger, now: u64, out: &mut Vec<Effect>) -> Outcome {
        while self.resting.is_none() && self.rule(ledger, now, out)? {}
        Ok(())
    }

    fn rule(&mut self, ledger: &mut Ledger, now: u64, out: &mut Vec<Effect>) -> Result<bool, Failure> {
        if !self.votes {
            return Ok(false);
        }
        let round = self.round;
        let rounds: BTreeSet<u32> = self.heard.keys().map(|(round, _)| *round).collect();
        for of in &rounds {
            if let Some(Some(value)) = self.quorum(*of, VoteType::Precommit)
                && self.is_valid(&value)
                && self.proposed.values().flatten().any(|proposed| proposed.value == value)
            {
                let votes = &self.heard[&(*of, VoteType::Precommit as u8)];
                let precommits = votes.iter().filter(|vote| vote.value == Some(value));
                let precommits = precommits.map(|vote| (vote.address, vote.signature));
                let certificate = Certificate::of_addresses(self.height, *of, value, precommits);
                self.wal.sync();
                self.decide(ledger, certificate, now, out)?;
                return Ok(false);
            }
        }
        let ahead = rounds.iter().rev().find(|of| {
            **of > round && {
                let of = **of;
                let voters = [VoteType::Prevote, VoteType::Precommit]
                    .iter()
                    .filter_map(|kind| self.heard.get(&(of, *kind as u8)));
                let voters: BTreeSet<&Address> = voters.flatten().map(|vote| &vote.address).collect();
                3 * voters.len() > self.members.len()
            }
        });
        if let Some(ahead) = ahead.copied() {
            self.enter(ledger, ahead, now, out)?;
            return Ok(false);
        }
        for of in 0..=round {
            if let Some(Some(value)) = self.quorum(of, VoteType::Prevote)
                && self.is_valid(&value)
                && self.valid.is_none_or(|(valid, _)| valid < of)
            {
                self.valid = Some((of, value));
            }
        }
        match self.step {
            Step::Propose => {
                for proposed in self.proposed.get(&round).cloned().unwrap_or_default() {
                    let Some(valid) = self.judged.get(&proposed.value).copied() else { continue };
                    let free = match proposed.valid_round {
                        None => self.locked.is_none_or(|(_, value)| value == proposed.value),
                        Some(of) if of < round && self.quorum(of, VoteType::Prevote) == Some(Some(proposed.value)) => {
                            self.locked.is_none_or(|(locked, value)| locked <= of || value == proposed.value)
                        }
                        Some(_) => continue,
                    };
                    self.step = Step::Prevote;
                    let value = Some(proposed.value).filter(|_| valid && free);
                    self.cast(ledger, VoteType::Prevote, (value, proposed.valid_round), now, out)?;
                    return Ok(true);
                }
            }
            Step::Prevote => {
                match self.quorum(round, VoteType::Prevote) {
                    Some(Some(value)) if self.is_valid(&value) => {
                        (self.locked, self.step) = (Some((round, value)), Step::Precommit);
                        self.cast(ledger, VoteType::Precommit, (Some(value), None), now, out)?;
                        return Ok(true);
                    }
                    Some(None) => {
                        self.step = Step::Precommit;
                        self.cast(ledger, VoteType::Precommit, (None, None), now, out)?;
                        return Ok(true);
                    }
                    _ => {}
                }
                self.wait_for_any(Step::Prevote, VoteType::Prevote, now, out);
            }
            Step::Precommit => {}
        }
        self.wait_for_any(Step::Precommit, VoteType::Precommit, now, out);
        Ok(false)
    }

    /// A quorum has voted in this round, whatever for: the rest gets a little time.
    fn wait_for_any(&mut self, step: Step, kind: VoteType, now: u64, out: &mut Vec<Effect>) {
        let votes = self.heard.get(&(self.round, kind as u8)).into_iter().flatten();
        let voters: BTreeSet<&Address> = votes.map(|vote| &vote.address).collect();
        if self.is_quorum(voters.len()) && self.waits.insert((self.round, step)) {
            self.wait(step, now, out);
        }
    }

    pub(crate) fn timeout(&mut self, ledger: &mut Ledger, over: Timeout, now: u64, out: &mut Vec<Effect>) -> Outcome {
        if self.resting.is_some() || !self.votes || (over.height, over.round) != (self.height, self.round) {
            return Ok(());
        }
        match over.step {
            Step::Propose if self.step == Step::Propose => {
                self.step = Step::Prevote;
                self.cast(ledger, VoteType::Prevote, (None, None), now, out)?;
            }
            Step::Prevote if self.step == Step::Prevote => {
                self.step = Step::Precommit;
                self.cast(ledger, VoteType::Precommit, (None, None), now, out)?;
            }
            Step::Precommit => return self.enter(ledger, self.round + 1, now, out),
            _ => {}
        }
        self.advance(ledger, now, out)
    }

    fn decide(&mut self, ledger: &mut Ledger, certificate: Certificate, now: u64, out: &mut Vec<Effect>) -> Outcome {
        let (before, signed) = (ledger.parent().clone(), ledger.signed());
        ledger.decide(certificate.clone())?;
        let after = ledger.parent();
        out.push(Effect::Decided(Sealed {
            previous_ms: before.time,
            time_ms: after.time,
            grew: after.frontier.size() > before.frontier.size(),
            signed: ledger.signed() > signed,
            member: ledger.shared.trust_in_force()?.members.iter().any(|member| member.domain == ledger.shared.domain),
        }));
        let at_once = out.iter().filter(|effect| matches!(effect, Effect::Decided(_))).count();
        assert!(at_once <= DECIDED_AT_ONCE_MAX, "decides without end at height {}", after.height);
        // An engine that died before it noted the decision comes with it again.
        ledger.decide(certificate)?;
        self.quiet_since = now;
        let behind = std::mem::take(&mut self.behind);
        let early = std::mem::take(&mut self.early);
        let (began, height) = (self.began, ledger.height());
        let wal = Wal { height, ..Wal::default() };
        // A change of role restarts the engine, which begins its height at once.
        let same_role = self.votes == ledger.may_vote();
        *self = Self { began, early, votes: ledger.may_vote(), ..Self::new(ledger, wal, now) };
        if same_role && self.votes {
            self.resting = Some(now + HEARTBEAT);
            if ledger.wants_block() || behind || self.is_early(height) {
                self.begin(ledger, now, out)?;
            }
            Ok(())
        } else {
            self.start(ledger, now, out)
        }
    }

    fn is_early(&self, height: u64) -> bool {
        self.early.iter().any(|(_, message)| matches!(message, Message::Stream(slot, _) if slot.height == height))
    }

    fn begin(&mut self, ledger: &mut Ledger, now: u64, out: &mut Vec<Effect>) -> Outcome {
        if self.resting.take().is_some() {
            self.members = ledger.members();
            self.sent_again = now;
            self.enter(ledger, 0, now, out)?;
        }
        Ok(())
    }

    /// Something was submitted here.
    pub(crate) fn changed(&mut self, ledger: &mut Ledger, now: u64, out: &mut Vec<Effect>) -> Outcome {
        if self.resting.is_some() && ledger.wants_block() {
            self.wake_peers(ledger, now, out);
            self.begin(ledger, now, out)?;
        }
        Ok(())
    }

    fn wake_peers(&mut self, ledger: &Ledger, now: u64, out: &mut Vec<Effect>) {
        self.quiet_since = now;
        if self.members.len() > 1 {
            out.push(Effect::Broadcast(Message::Ledger(ledger.wake().into())));
        }
    }

    /// Does what time asks for; returns when to call again at the latest.
    pub(crate) fn poll(&mut self, ledger: &mut Ledger, now: u64, out: &mut Vec<Effect>) -> Result<u64, Failure> {
        let deadline = ledger.tick(Duration::from_micros(now - self.began))?;
        for message in ledger.outbox() {
            out.push(Effect::Broadcast(Message::Ledger(message.into())));
        }
        let mut next = deadline.map_or(now + HEARTBEAT, |at| self.began + u64::try_from(at.as_micros()).unwrap_or(0));
        if ledger.wants_block() {
            if now >= self.quiet_since + WAKE_INTERVAL {
                self.wake_peers(ledger, now, out);
            }
            next = next.min(self.quiet_since + WAKE_INTERVAL);
        }
        if self.resting.is_none() && self.votes != ledger.may_vote() {
            self.restart(ledger, now, out)?;
        }
        match self.resting {
            Some(until) if until <= now => self.begin(ledger, now, out)?,
            Some(until) => next = next.min(until),
            None => {
                if now >= self.sent_again + REBROADCAST {
                    self.send_again(ledger, now, out);
                }
                next = next.min(self.sent_again + REBROADCAST);
            }
        }
        Ok(next.max(now + 1))
    }

    fn send_again(&mut self, ledger: &Ledger, now: u64, out: &mut Vec<Effect>) {
        self.sent_again = now;
        for vote in self.heard.values().flatten() {
            out.push(Effect::Broadcast(Message::Vote(vote.clone())));
        }
        for proposed in self.proposed.values().flatten().filter(|proposed| proposed.address == self.own) {
            let Proposed { height, round, valid_round, value, address } = proposed.clone();
            if let Some(bytes) = ledger.proposal(&value) {
                let slot = Slot { height, round, valid_round, proposer: address };
                out.push(Effect::Broadcast(Message::Proposed(proposed.clone())));
                out.push(Effect::Broadcast(Message::Stream(slot, bytes.into())));
            }
        }
    }

    fn called(&mut self, ledger: &mut Ledger, now: u64, out: &mut Vec<Effect>) -> Outcome {
        let soonest = self.quiet_since + CALLED_INTERVAL;
        if soonest <= now {
            return self.begin(ledger, now, out);
        }
        self.resting = self.resting.map(|until| until.min(soonest));
        Ok(())
    }

    pub(crate) fn message(
        &mut self,
        ledger: &mut Ledger,
        from: usize,
        message: Message,
        now: u64,
        out: &mut Vec<Effect>,
    ) -> Outcome {
        let next = ledger.height();
        let height = match &message {
            Message::Ledger(bytes) => {
                if let Heard::Wake(height) = ledger.message(bytes)?
                    && height >= next
                {
                    self.called(ledger, now, out)?;
                }
                return Ok(());
            }
            Message::Status(decided) => {
                if *decided >= next {
                    out.push(Effect::Send(from, Message::Ask(next)));
                }
                return Ok(());
            }
            Message::Ask(height) => {
                if let Some((bytes, certificate)) = ledger.decided(*height)? {
                    out.push(Effect::Send(from, Message::Decided(bytes.into(), certificate)));
                }
                return Ok(());
            }
            Message::Decided(bytes, certificate) => return self.synced(ledger, from, bytes, certificate, now, out),
            Message::Proposed(proposed) => proposed.height,
            Message::Stream(slot, _) => slot.height,
            Message::Vote(vote) => vote.height,
        };
        if height < next || !self.votes {
            return Ok(());
        }
        if height > next + 1 {
            return self.called(ledger, now, out);
        }
        if height > next || self.resting.is_some() {
            if self.early.len() == EARLY_MAX {
                self.early.pop_front();
            }
            self.early.push_back((from, message));
            if self.resting.is_some() && self.is_early(next) {
                self.begin(ledger, now, out)?;
            }
            return Ok(());
        }
        self.take(ledger, message, out)?;
        self.advance(ledger, now, out)
    }

    fn take(&mut self, ledger: &mut Ledger, message: Message, out: &mut Vec<Effect>) -> Outcome {
        match message {
            Message::Proposed(proposed) => {
                let turn = proposer(&self.members, self.height, proposed.round);
                let all = self.proposed.entry(proposed.round).or_default();
                if turn.is_some_and(|member| address(&member.validator_key) == proposed.address)
                    && all.len() < 2
                    && all.iter().all(|known| known.value != proposed.value)
                {
                    all.push(proposed.clone());
                    self.wal.append(Record::Proposed(proposed));
                }
            }
            Message::Stream(slot, bytes) => {
                let own = slot.proposer == self.own;
                let sound = slot.is_sound(&self.members)
                    && (slot.valid_round.is_some() || !own)
                    && slot.round <= self.round.saturating_add(ROUNDS_AHEAD);
                if sound && let Some(judged) = ledger.judge(slot, &bytes, true)? {
                    *self.judged.entry(judged.value).or_default() |= judged.valid;
                    self.wal.append(Record::Judged(judged));
                }
            }
            Message::Vote(vote) => {
                let known = self.members.iter().any(|member| address(&member.validator_key) == vote.address);
                if known && vote.round <= self.round.saturating_add(100) {
                    self.wal.append(Record::Vote(vote.clone()));
                    self.hear(vote, out);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn synced(
        &mut self,
        ledger: &mut Ledger,
        from: usize,
        bytes: &[u8],
        certificate: &Certificate,
        now: u64,
        out: &mut Vec<Effect>,
    ) -> Outcome {
        let height = ledger.height();
        if certificate.height != height {
            return Ok(());
        }
        self.begin(ledger, now, out)?;
        if ledger.height() != height
            || certificate.verify(&self.chain, height, &certificate.value, &ledger.members()).is_err()
        {
            return Ok(());
        }
        let Some(turn) = proposer(&self.members, height, certificate.round) else { return Ok(()) };
        let slot = Slot { height, round: certificate.round, valid_round: None, proposer: address(&turn.validator_key) };
        let judged = ledger.judge(slot, bytes, false)?;
        if judged.as_ref().is_some_and(|judged| !judged.valid && judged.value == certificate.value) {
            out.push(Effect::Misjudged(height));
        }
        if judged.is_some_and(|judged| judged.valid && judged.value == certificate.value) {
            self.behind = true;
            self.decide(ledger, certificate.clone(), now, out)?;
            out.push(Effect::Send(from, Message::Ask(ledger.height())));
        }
        Ok(())
    }
}
