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

use chopmark_consensus::{Failure, VoteSigner};
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

const MAGIC: &[u8; 8] = b"CMGUARD3";
/// The largest sector of today's disks: a torn one takes one slot with it.
const SLOT_BYTES: usize = 4096;
/// Magic, running number, chain, size, root, time, height, round, three votes, decided.
const BODY_BYTES: usize = 8 + 8 + 32 + 8 + 32 + 8 + 8 + 4 + 3 * 33 + 8;

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
}

/// An open guard.
#[derive(Debug)]
pub struct Guard {
    path: PathBuf,
    file: File,
    sequence: u64,
    promise: Promise,
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
    /// A vote for another value in the same round.
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
        }
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

    /// The promise after signing `value` at a step, if that is allowed: never below the last height
    /// and round, never two values at one step.
    fn with_vote(&self, height: u64, round: u32, step: Step, value: Option<Hash32>) -> Result<Self, Refusal> {
        let mut next = *self;
        match (height, round).cmp(&(self.height, self.round)) {
            std::cmp::Ordering::Less if !has(Bug::GuardAllowsEarlierVote) => return Err(Refusal::EarlierVote),
            std::cmp::Ordering::Less | std::cmp::Ordering::Greater => {
                (next.height, next.round, next.votes) = (height, round, [None; 3]);
            }
            std::cmp::Ordering::Equal => {}
        }
        match next.votes[step as usize].replace(value) {
            Some(signed) if signed != value && !has(Bug::GuardAllowsOtherValue) => Err(Refusal::OtherValue),
            _ => Ok(next),
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

    /// Remembers a proposal or vote that is about to be signed (`None`: nil). What was signed before
    /// may be signed again.
    pub fn vote(&mut self, height: u64, round: u32, step: Step, value: Option<Hash32>) -> Result<(), NodeError> {
        let next = self.promise.with_vote(height, round, step, value).map_err(|refusal| {
            self.refuse(&format!("refuses to sign a {step:?} at height {height} round {round}: {refusal:?}"))
        })?;
        if has(Bug::GuardForgetsCheckpoint) {
            return self.store(Promise { size: TreeSize(0), root: Hash32::ZERO, ..next });
        }
        if next == self.promise { Ok(()) } else { self.store(next) }
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
    fn remember(&self, height: u64, round: u32, step: Step, value: Option<Hash32>) -> Result<(), NodeError> {
        let remembered = self.guard.lock().vote(height, round, step, value);
        if let Err(NodeError::Guard { .. }) = &remembered {
            self.silent_up_to.fetch_max(height, Ordering::Relaxed);
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

    fn vote(&self, kind: VoteType, height: u64, round: u32, value: Option<Hash32>) -> Result<[u8; 64], Failure> {
        let step = match kind {
            VoteType::Prevote => Step::Prevote,
            VoteType::Precommit => Step::Precommit,
        };
        if !(has(Bug::SignsNilUnremembered) && value.is_none()) {
            self.remember(height, round, step, value)?;
        }
        // Durable before this line: the promise.
        let message = vote_message(&self.chain, kind, height, round, value.as_ref(), &address(&self.public()));
        Ok(self.key.sign(&message).to_bytes())
    }

    fn proposal(&self, height: u64, round: u32, valid_round: Option<u32>, value: Hash32) -> Result<[u8; 64], Failure> {
        if !has(Bug::SignsProposalUnremembered) {
            self.remember(height, round, Step::Proposal, Some(value))?;
        }
        let address = address(&self.public());
        let message = proposal_message(&self.chain, height, round, valid_round, &value, &address);
        Ok(self.key.sign(&message).to_bytes())
    }

    fn network_proof(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }
}
