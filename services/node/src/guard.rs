//! The guard: what this node has voted for and signed, kept outside the data directory, so that
//! a restored backup cannot sign a second history.
//!
//! Invariant: nothing leaves the node that the guard does not remember durably. Every vote and
//! every checkpoint signature is recorded, with a sync, before the signature is made.
//!
//! File: two slots in sectors of their own, written alternately, each with a running number and a
//! CRC-32C, so that a torn write leaves the other slot. The file is locked while in use.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use chopmark_consensus::{Failure, SignedVote, VoteSigner};
use ed25519_dalek::Signer as _;
use ledger_core::{
    Hash32, SigningKey,
    codec::{DecodeError, Reader, Writer},
    merkle::TreeSize,
    vote::{VoteType, address, proposal_message, vote_message},
};
use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock};

use crate::{
    NodeError,
    bugs::{Bug, has},
    disk::{self, Extent},
};

const MAGIC: &[u8; 8] = b"CMGUARD5";
/// The largest sector of today's disks: a torn one takes one slot with it.
const SLOT_BYTES: usize = 4096;
/// Magic, running number, chain, size, root, time, height, round, three votes, decided, lock, void, the
/// proposal's round.
const BODY_BYTES: usize = 8 + 8 + 32 + 8 + 32 + 8 + 8 + 4 + 3 * 33 + 8 + (1 + 4 + 32) + 8 + (1 + 4);

/// What a validator signs in a round, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A value, as proposer.
    Proposal,
    /// The first vote.
    Prevote,
    /// The second vote.
    Precommit,
}

/// What was signed at a step: nothing yet, nil, or a value.
pub type Signed = Option<Option<Hash32>>;

/// What the guard remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promise {
    /// Network.
    pub chain: Hash32,
    /// Size of the last signed checkpoint; 0 before the first.
    pub size: TreeSize,
    /// Its root.
    pub root: Hash32,
    /// Time of its cosignature, Unix seconds.
    pub time: u64,
    /// Height of the last vote; 0 before the first.
    pub height: u64,
    /// Round of the last vote.
    pub round: u32,
    /// What was signed in that round: proposal, prevote, precommit.
    pub votes: [Signed; 3],
    /// Height of the last block that anybody was told of; 0 before the first. Data that end below
    /// it are an older copy.
    pub decided: u64,
    /// Round and value of the last precommit for a value at [`height`](Self::height): this node is
    /// locked there, whatever its engine remembers.
    pub lock: Option<(u32, Hash32)>,
    /// The last height at which another vote was signed than the engine asked for; 0 before the first.
    /// The engine's log of that height is void: replaying it leads to the vote that was not signed.
    pub void: u64,
    /// The earlier round that the proposal signed in [`round`](Self::round) calls upon.
    pub proposal_calls: Option<u32>,
}

/// The round that is remembered for a height at which nothing may be signed any more.
const SILENT: u32 = u32::MAX;

/// An open guard.
#[derive(Debug)]
pub struct Guard {
    path: PathBuf,
    file: File,
    sequence: u64,
    promise: Promise,
}

/// A proposal or vote that the engine wants signed; `None` is nil.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// Height.
    pub height: u64,
    /// Round.
    pub round: u32,
    /// Step.
    pub step: Step,
    /// For what.
    pub value: Option<Hash32>,
    /// Of a proposal and a prevote: the earlier round whose quorum of prevotes the proposal calls upon.
    pub valid_round: Option<u32>,
}

/// Why a signature or a vote is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Smaller than a size signed before.
    SmallerSize,
    /// Another root for a size signed before.
    OtherRoot,
    /// A time before that of the same checkpoint.
    EarlierTime,
    /// A vote below the last height or round.
    EarlierVote,
    /// Another proposal in the same round, or the same one calling upon another round.
    OtherValue,
}

impl Promise {
    /// Nothing promised yet.
    #[must_use]
    pub const fn none(chain: Hash32) -> Self {
        Self {
            chain,
            size: TreeSize(0),
            root: Hash32::ZERO,
            time: 0,
            height: 0,
            round: 0,
            votes: [None; 3],
            decided: 0,
            lock: None,
            void: 0,
            proposal_calls: None,
        }
    }

    /// The last height at which nothing may be signed any more; 0 if there is none.
    #[must_use]
    pub const fn silent_up_to(&self) -> u64 {
        if self.round == SILENT { self.height } else { 0 }
    }

    /// The promise to sign nothing up to `height`. Whatever was promised beyond stays.
    fn silenced(&self, height: u64) -> Self {
        if (height, SILENT) <= (self.height, self.round) {
            return *self;
        }
        let lock = self.lock.filter(|_| height == self.height);
        Self { height, round: SILENT, votes: [None; 3], lock, proposal_calls: None, ..*self }
    }

    /// Whether anything was ever signed or voted for.
    #[must_use]
    pub const fn is_fresh(&self) -> bool {
        self.size.0 == 0 && self.height == 0
    }

    fn allows_checkpoint(&self, size: TreeSize, root: &Hash32, time: u64) -> Result<(), Refusal> {
        if size.0 < self.size.0 {
            return Err(Refusal::SmallerSize);
        }
        if size.0 == self.size.0 && self.size.0 > 0 {
            if *root != self.root {
                return Err(Refusal::OtherRoot);
            }
            if time < self.time {
                return Err(Refusal::EarlierTime);
            }
        }
        Ok(())
    }

    /// The promise after signing at a step, and what is signed: never below the last height and round,
    /// and never two things at one step. An engine that lost power between this file and its own log
    /// asks again: a vote that was promised stays what it was, and a lock holds (arXiv:1807.04938,
    /// lines 22 to 33: only a proposal that calls upon the prevotes of the lock's round, or a later
    /// one, frees from it), so that this node's vote never depends on what the engine remembers.
    fn with_vote(&self, wish: Wish) -> Result<(Self, Option<Hash32>), Refusal> {
        let Wish { height, round, step, value, valid_round } = wish;
        let mut next = *self;
        match (height, round).cmp(&(self.height, self.round)) {
            std::cmp::Ordering::Less if !has(Bug::GuardAllowsEarlierVote) => return Err(Refusal::EarlierVote),
            std::cmp::Ordering::Less | std::cmp::Ordering::Greater => {
                (next.height, next.round, next.votes) = (height, round, [None; 3]);
                next.proposal_calls = None;
            }
            std::cmp::Ordering::Equal => {}
        }
        if height != self.height || has(Bug::GuardForgetsLock) {
            next.lock = None;
        }
        if step == Step::Proposal {
            if next.votes[step as usize].is_some() && next.proposal_calls != valid_round {
                return Err(Refusal::OtherValue);
            }
            next.proposal_calls = valid_round;
        }
        let signed = match next.votes[step as usize] {
            Some(promised) if promised == value || has(Bug::GuardAllowsOtherValue) => value,
            Some(_) if step == Step::Proposal => return Err(Refusal::OtherValue),
            Some(promised) => promised,
            None if step == Step::Prevote && next.is_locked_out(value, valid_round) => None,
            None => value,
        };
        next.votes[step as usize] = Some(signed);
        if step == Step::Precommit
            && let Some(value) = signed
        {
            next.lock = Some((round, value));
        }
        if signed != value {
            next.void = height;
        }
        Ok((next, signed))
    }

    fn is_locked_out(&self, value: Option<Hash32>, valid_round: Option<u32>) -> bool {
        match (self.lock, value) {
            (Some((round, locked)), Some(value)) => locked != value && valid_round.is_none_or(|valid| valid < round),
            _ => false,
        }
    }

    fn encode(&self, sequence: u64) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.fixed(MAGIC).u64(sequence).fixed(&self.chain.0).u64(self.size.0).fixed(&self.root.0).u64(self.time);
        writer.u64(self.height).u32(self.round);
        for vote in &self.votes {
            let tag = u8::from(vote.is_some()) + u8::from(vote.flatten().is_some());
            writer.u8(tag).fixed(&vote.flatten().unwrap_or(Hash32::ZERO).0);
        }
        writer.u64(self.decided);
        let (round, value) = self.lock.unwrap_or((0, Hash32::ZERO));
        writer.u8(u8::from(self.lock.is_some())).u32(round).fixed(&value.0).u64(self.void);
        writer.u8(u8::from(self.proposal_calls.is_some())).u32(self.proposal_calls.unwrap_or_default());
        debug_assert_eq!(writer.as_slice().len(), BODY_BYTES);
        let crc = crc32c::crc32c(writer.as_slice());
        writer.u32(crc);
        let mut slot = writer.finish();
        slot.resize(SLOT_BYTES, 0);
        slot
    }

    fn decode(slot: &[u8]) -> Result<(u64, Self), DecodeError> {
        let (body, rest) = slot.split_at_checked(BODY_BYTES).ok_or(DecodeError::Short)?;
        if Reader::new(rest).u32()? != crc32c::crc32c(body) && !has(Bug::GuardSkipsChecksum) {
            return Err(DecodeError::Range("checksum"));
        }
        let mut reader = Reader::new(body);
        if reader.array::<8>()? != *MAGIC {
            return Err(DecodeError::Range("magic"));
        }
        let sequence = reader.u64()?;
        let promise = Self {
            chain: Hash32(reader.array()?),
            size: TreeSize(reader.u64()?),
            root: Hash32(reader.array()?),
            time: reader.u64()?,
            height: reader.u64()?,
            round: reader.u32()?,
            votes: [decode_vote(&mut reader)?, decode_vote(&mut reader)?, decode_vote(&mut reader)?],
            decided: reader.u64()?,
            lock: match (reader.u8()?, reader.u32()?, Hash32(reader.array()?)) {
                (0, _, _) => None,
                (1, round, value) => Some((round, value)),
                _ => return Err(DecodeError::Range("lock")),
            },
            void: reader.u64()?,
            proposal_calls: match (reader.u8()?, reader.u32()?) {
                (0, _) => None,
                (1, round) => Some(round),
                _ => return Err(DecodeError::Range("proposal")),
            },
        };
        reader.end()?;
        Ok((sequence, promise))
    }
}

fn decode_vote(reader: &mut Reader<'_>) -> Result<Signed, DecodeError> {
    let (tag, value) = (reader.u8()?, Hash32(reader.array()?));
    match tag {
        0 => Ok(None),
        1 => Ok(Some(None)),
        2 => Ok(Some(Some(value))),
        _ => Err(DecodeError::Range("vote")),
    }
}

impl Guard {
    /// Creates the guard of a new node. An existing guard is taken over only if it never
    /// promised anything.
    pub fn create(path: &Path, chain: Hash32) -> Result<(), NodeError> {
        if path.exists() {
            let old = Self::open(path)?;
            if !old.promise.is_fresh() {
                return Err(old.refuse(
                    "it belongs to a network that was signed for, but the data directory is new. \
                     If the data is lost for good and no other copy of this member runs, move the guard away by hand",
                ));
            }
        }
        Self::write_new(path, Promise::none(chain))
    }

    /// Writes a whole guard, which gets its name last: a crash leaves the old one, or none.
    fn write_new(path: &Path, promise: Promise) -> Result<(), NodeError> {
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".new");
        let unfinished = PathBuf::from(unfinished);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(&unfinished);
        let file = file.map_err(NodeError::io("create guard", &unfinished))?;
        let mut guard = Self { path: unfinished, file, sequence: 0, promise };
        guard.store(promise)?;
        std::fs::rename(&guard.path, path).map_err(NodeError::io("name guard", path))?;
        sync_folder_of(path)
    }

    /// Opens and locks a guard. A missing one is refused: it may be the one that was forgotten
    /// when a backup was restored.
    pub fn open(path: &Path) -> Result<Self, NodeError> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(NodeError::Guard {
                    path: path.to_owned(),
                    reason: "is missing. Restore it from where it is kept; only if it is lost for good and no other \
                             copy of this node signs, run `chopmark admin guard adopt`"
                        .to_owned(),
                });
            }
            Err(error) => return Err(NodeError::io("open guard", path)(error)),
        };
        // Locked before it is read: whoever held it may still have promised something.
        let mut guard = Self { path: path.to_owned(), file, sequence: 0, promise: Promise::none(Hash32::ZERO) };
        guard.lock()?;
        let mut bytes = vec![0; 2 * SLOT_BYTES];
        let len = guard.file.read_at(&mut bytes, 0).map_err(NodeError::io("read guard", path))?;
        let (sequence, promise) = Self::read(&bytes[..len])
            .ok_or_else(|| guard.refuse("is damaged: neither of its two records can be read"))?;
        guard.sequence = sequence;
        guard.promise = promise;
        Ok(guard)
    }

    /// Writes the promise again. A process that died before its sync, or over one that failed, leaves what
    /// can be read and may yet be lost; and a promise that is asked for again is not written by that.
    pub fn renew(&mut self) -> Result<(), NodeError> {
        self.store(self.promise)
    }

    /// The newer of the two records in a guard's bytes, with its number.
    pub(crate) fn read(bytes: &[u8]) -> Option<(u64, Promise)> {
        let slots = bytes.chunks(SLOT_BYTES).filter_map(|slot| Promise::decode(slot).ok());
        if has(Bug::GuardReadsOlderSlot) {
            return slots.min_by_key(|(sequence, _)| *sequence);
        }
        slots.max_by_key(|(sequence, _)| *sequence)
    }

    /// Replaces the promise of a lost, damaged or foreign guard by what the data shows
    /// (`chopmark admin guard adopt`). The new guard gets its name last; one that is in use is
    /// refused.
    pub fn adopt(path: &Path, promise: Promise) -> Result<(), NodeError> {
        let _held = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => {
                let old = Self { path: path.to_owned(), file, sequence: 0, promise };
                old.lock()?;
                Some(old)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(NodeError::io("open guard", path)(error)),
        };
        Self::write_new(path, promise)
    }

    /// What was promised last.
    #[must_use]
    pub const fn promise(&self) -> &Promise {
        &self.promise
    }

    /// Remembers a checkpoint signature that is about to be made, and that the block at height
    /// `decided` is durable.
    pub fn checkpoint(&mut self, size: TreeSize, root: Hash32, time: u64, decided: u64) -> Result<(), NodeError> {
        if let Err(refusal) = self.promise.allows_checkpoint(size, &root, time) {
            return Err(self.refuse(&match refusal {
                Refusal::EarlierTime => format!(
                    "has signed size {} at Unix time {}, and the clock now says {time}: set the clock right and start again",
                    size.0, self.promise.time
                ),
                _ => format!("refuses to sign size {}: {refusal:?}", size.0),
            }));
        }
        self.store(Promise { size, root, time, decided: decided.max(self.promise.decided), ..self.promise })
    }

    /// Remembers that the block at `height` is durable, before anybody is told what came of it.
    pub fn decided(&mut self, height: u64) -> Result<(), NodeError> {
        if height <= self.promise.decided {
            return Ok(());
        }
        self.store(Promise { decided: height, ..self.promise })
    }

    /// Remembers a proposal or vote that is about to be signed, and returns what is to be signed: what
    /// was signed at that step before, and nil where a lock forbids the value.
    pub fn vote(&mut self, wish: Wish) -> Result<Option<Hash32>, NodeError> {
        let (next, signed) = self.promise.with_vote(wish).map_err(|refusal| {
            let Wish { height, round, step, .. } = wish;
            self.refuse(&format!("refuses to sign a {step:?} at height {height} round {round}: {refusal:?}"))
        })?;
        if has(Bug::GuardForgetsCheckpoint) {
            self.store(Promise { size: TreeSize(0), root: Hash32::ZERO, ..next })?;
        } else if next != self.promise {
            self.store(next)?;
        }
        Ok(signed)
    }

    /// Remembers that nothing may be signed up to `height`: others have seen what this guard has not.
    pub fn silence(&mut self, height: u64) -> Result<(), NodeError> {
        let silenced = self.promise.silenced(height);
        if silenced == self.promise { Ok(()) } else { self.store(silenced) }
    }

    fn store(&mut self, promise: Promise) -> Result<(), NodeError> {
        let sequence = self.sequence + 1;
        let slot = if has(Bug::GuardWritesOneSlot) { 0 } else { sequence % 2 };
        let sync = || match has(Bug::GuardSkipsSync) {
            false => disk::sync(&self.file, &self.path, Extent::Data),
            true => Ok(()),
        };
        self.file
            .write_all_at(&promise.encode(sequence), SLOT_BYTES as u64 * slot)
            .and_then(|()| sync())
            .map_err(NodeError::io("write guard", &self.path))?;
        self.sequence = sequence;
        self.promise = promise;
        Ok(())
    }

    fn lock(&self) -> Result<(), NodeError> {
        flock(&self.file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            self.refuse("is in use by another process: stop that one first, a member's node runs only once")
        })
    }

    pub(crate) fn refuse(&self, reason: &str) -> NodeError {
        NodeError::Guard { path: self.path.clone(), reason: reason.to_owned() }
    }
}

fn sync_folder_of(path: &Path) -> Result<(), NodeError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|folder| folder.sync_all()).map_err(NodeError::io("sync folder", parent))
}

/// Signs proposals and votes: what it signs, the guard remembers first.
pub(crate) struct GuardedSigner {
    pub(crate) guard: Arc<Mutex<Guard>>,
    pub(crate) chain: Hash32,
    pub(crate) key: SigningKey,
    /// Raised where the guard refuses: the node then follows past that height.
    pub(crate) silent_up_to: Arc<AtomicU64>,
}

impl GuardedSigner {
    fn remember(&self, wish: Wish) -> Result<Option<Hash32>, NodeError> {
        let remembered = self.guard.lock().vote(wish);
        match &remembered {
            Err(NodeError::Guard { .. }) => {
                self.silent_up_to.fetch_max(wish.height, Ordering::Relaxed);
            }
            Ok(signed) if *signed != wish.value => {
                tracing::warn!(?wish, ?signed, "the engine has forgotten what was signed: the promise holds");
            }
            _ => {}
        }
        remembered
    }
}

impl VoteSigner for GuardedSigner {
    fn chain(&self) -> Hash32 {
        self.chain
    }

    fn public(&self) -> Hash32 {
        Hash32(self.key.verifying_key().to_bytes())
    }

    fn vote(
        &self,
        kind: VoteType,
        height: u64,
        round: u32,
        value: Option<Hash32>,
        valid_round: Option<u32>,
    ) -> Result<SignedVote, Failure> {
        let step = match kind {
            VoteType::Prevote => Step::Prevote,
            VoteType::Precommit => Step::Precommit,
        };
        let value = if has(Bug::SignsNilUnremembered) && value.is_none() {
            value
        } else {
            self.remember(Wish { height, round, step, value, valid_round })?
        };
        // Durable before this line: the promise.
        let message = vote_message(&self.chain, kind, height, round, value.as_ref(), &address(&self.public()));
        Ok(SignedVote { value, signature: self.key.sign(&message).to_bytes() })
    }

    fn proposal(&self, height: u64, round: u32, valid_round: Option<u32>, value: Hash32) -> Result<[u8; 64], Failure> {
        if !has(Bug::SignsProposalUnremembered) {
            self.remember(Wish { height, round, step: Step::Proposal, value: Some(value), valid_round })?;
        }
        let address = address(&self.public());
        let message = proposal_message(&self.chain, height, round, valid_round, &value, &address);
        Ok(self.key.sign(&message).to_bytes())
    }

    fn network_proof(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Hash32 = Hash32([1; 32]);
    const B: Hash32 = Hash32([2; 32]);

    fn wish(round: u32, step: Step, value: Option<Hash32>) -> Wish {
        Wish { height: 7, round, step, value, valid_round: None }
    }

    /// Signs one after the other; what was signed last.
    fn after(wishes: &[Wish]) -> (Promise, Result<Option<Hash32>, Refusal>) {
        let mut promise = Promise::none(Hash32::ZERO);
        let mut signed = Ok(None);
        for wish in wishes {
            signed = promise.with_vote(*wish).map(|(next, signed)| {
                promise = next;
                signed
            });
        }
        (promise, signed)
    }

    #[test]
    fn a_vote_that_was_promised_is_signed_again_whatever_is_asked_for() {
        for step in [Step::Prevote, Step::Precommit] {
            for (first, second) in [(Some(A), None), (None, Some(A)), (Some(A), Some(B))] {
                let (promise, signed) = after(&[wish(0, step, first), wish(0, step, second)]);
                assert_eq!(signed, Ok(first));
                assert_eq!(promise.void, 7, "the log of that height leads elsewhere");
            }
            let (promise, signed) = after(&[wish(0, step, Some(A)), wish(0, step, Some(A))]);
            assert_eq!((signed, promise.void), (Ok(Some(A)), 0));
        }
    }

    #[test]
    fn a_second_proposal_and_what_is_over_are_refused() {
        let proposals = [wish(0, Step::Proposal, Some(A)), wish(0, Step::Proposal, Some(B))];
        assert_eq!(after(&proposals).1, Err(Refusal::OtherValue));
        let rounds = [wish(3, Step::Prevote, None), wish(2, Step::Precommit, None)];
        assert_eq!(after(&rounds).1, Err(Refusal::EarlierVote));
    }

    #[test]
    fn a_proposal_calls_upon_one_round_only() {
        let calling = |valid_round| Wish { valid_round, ..wish(2, Step::Proposal, Some(A)) };
        for (first, second) in [(Some(1), None), (None, Some(1)), (Some(0), Some(1))] {
            assert_eq!(after(&[calling(first), calling(second)]).1, Err(Refusal::OtherValue));
            let (promise, signed) = after(&[calling(first), calling(first)]);
            assert_eq!((signed, promise.proposal_calls), (Ok(Some(A)), first));
        }
        let next = wish(3, Step::Proposal, Some(B));
        assert_eq!(after(&[calling(Some(1)), next]).1, Ok(Some(B)));
    }

    #[test]
    fn a_silenced_height_stays_silent_and_keeps_its_lock() {
        let (promise, _) = after(&[wish(1, Step::Precommit, Some(A))]);
        let silenced = promise.silenced(7);
        assert_eq!((silenced.silent_up_to(), silenced.lock), (7, Some((1, A))));
        assert_eq!(silenced.with_vote(wish(9, Step::Prevote, Some(A))), Err(Refusal::EarlierVote));
        let next = Wish { height: 8, ..wish(0, Step::Prevote, Some(B)) };
        let (next, signed) = silenced.with_vote(next).unwrap();
        assert_eq!((signed, next.silent_up_to()), (Some(B), 0));
        assert_eq!(next.silenced(7), next, "what was promised later stays");
        assert_eq!(promise.silenced(9).lock, None);
    }

    #[test]
    fn a_lock_holds_until_a_polka_of_its_round_or_a_later_one() {
        let locked =
            [wish(1, Step::Prevote, Some(A)), wish(1, Step::Precommit, Some(A)), wish(2, Step::Precommit, None)];
        let prevote = |value, valid_round| {
            let wish = Wish { valid_round, ..wish(3, Step::Prevote, value) };
            after(&[&locked[..], &[wish]].concat())
        };
        for (value, valid_round, signed) in [
            (Some(A), None, Some(A)),
            (None, None, None),
            (Some(B), None, None),
            (Some(B), Some(0), None),
            (Some(B), Some(1), Some(B)),
            (Some(B), Some(2), Some(B)),
        ] {
            let (promise, found) = prevote(value, valid_round);
            assert_eq!(found, Ok(signed), "{value:?} {valid_round:?}");
            assert_eq!(promise.void == 7, signed != value);
            assert_eq!(promise.lock, Some((1, A)));
        }
        // A quorum of prevotes in the round itself frees, and locks anew.
        let (promise, signed) = after(&[&locked[..], &[wish(3, Step::Precommit, Some(B))]].concat());
        assert_eq!((signed, promise.lock), (Ok(Some(B)), Some((3, B))));
        let next = Wish { height: 8, ..wish(0, Step::Prevote, Some(B)) };
        let (promise, signed) = after(&[&locked[..], &[next]].concat());
        assert_eq!((signed, promise.lock), (Ok(Some(B)), None), "a lock ends with its height");
    }

    #[test]
    fn a_promise_is_read_back() {
        let proposal = Wish { valid_round: Some(0), ..wish(1, Step::Proposal, Some(A)) };
        let (promise, _) = after(&[proposal, wish(1, Step::Precommit, Some(A)), wish(1, Step::Precommit, None)]);
        assert_eq!(Promise::decode(&promise.encode(9)), Ok((9, promise)));
        assert_eq!(promise.lock, Some((1, A)));
        assert_eq!(promise.void, 7);
    }
}
