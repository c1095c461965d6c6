//! Agreement behind a thin trait of our own: nothing outside [`malachite`] names an engine's types,
//! and certificates are in our encoding.
//!
//! The ledger is the [`Application`]; it never waits and owns no thread, so that the engine here
//! and the simulator in the tests drive the very same code. A crate of its own because the engine
//! takes minutes to compile.

#[cfg(feature = "byzantine")]
pub mod byzantine;
pub mod following;
pub mod malachite;
mod peers;
mod seen;

use std::{
    error::Error,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use ledger_core::{
    Hash32,
    batch::BATCH_BYTES_MAX,
    block::{HEADER_BYTES_MAX, Header},
    codec::{DecodeError, Reader, Writer},
    equivocation::Equivocation,
    member::{Member, MemberSet},
    vote::{Certificate, VoteType, address},
};

use tokio::sync::Notify;

pub use following::{BlockSource, Followed, Following};
pub use malachite::{Malachite, NetworkConfig};
pub use peers::{Peer, Peers};
pub use seen::{SeenVote, SeenVotes};

/// Where the time of [`Application::tick`] begins: once for the process, because one engine follows
/// another and that time never runs backwards.
pub(crate) static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Why a run ended: what the application reported, or an [`EngineError`].
pub type Failure = Box<dyn Error + Send + Sync>;

/// The engine does not start, or has stopped.
#[derive(Debug, thiserror::Error)]
#[error("consensus engine: {0}")]
pub struct EngineError(pub String);

/// Largest encoded proposal.
pub const PROPOSAL_BYTES_MAX: usize = BATCH_BYTES_MAX + HEADER_BYTES_MAX + 16;

/// A block that a proposer wants decided. Its value is the header's hash; the batch travels beside
/// it and never through votes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The header, after execution.
    pub header: Header,
    /// The encoded batch.
    pub batch: Vec<u8>,
}

impl Proposal {
    /// The bytes that nodes stream, keep and sync.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(1).bytes(&self.header.encode()).bytes(&self.batch);
        writer.finish()
    }

    /// Reads a proposal; whether batch and header belong together is for the execution to find.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != 1 {
            return Err(DecodeError::Range("proposal version"));
        }
        let header = Header::parse(reader.bytes(HEADER_BYTES_MAX)?).map_err(|_| DecodeError::Range("header"))?;
        let batch = reader.bytes(BATCH_BYTES_MAX)?.to_vec();
        reader.end()?;
        Ok(Self { header, batch })
    }
}

/// Where a proposal stands: who proposed it and in which round, and since which round it is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Height.
    pub height: u64,
    /// Round.
    pub round: u32,
    /// Round of the prevotes by which it was locked; `None` for a fresh one.
    pub valid_round: Option<u32>,
    /// Address of who proposed it first.
    pub proposer: [u8; 20],
}

/// Whose turn a round is: members in turn, the next one at every height and at every round.
#[must_use]
pub fn proposer(members: &MemberSet, height: u64, round: u32) -> Option<&Member> {
    let turn = height.wrapping_add(u64::from(round)) % members.len() as u64;
    members.iter().nth(usize::try_from(turn).ok()?)
}

impl Slot {
    /// Whether an honest node streams this: a proposer's own value in its round, or in its round a
    /// value that was locked in an earlier one.
    #[must_use]
    pub fn is_sound(&self, members: &MemberSet) -> bool {
        let turn_of = |round| proposer(members, self.height, round).map(|member| address(&member.validator_key));
        match self.valid_round {
            None => turn_of(self.round) == Some(self.proposer),
            Some(locked) => {
                locked < self.round && [turn_of(locked), turn_of(self.round)].contains(&Some(self.proposer))
            }
        }
    }
}

/// A proposal that was judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// Where it stands.
    pub slot: Slot,
    /// Header hash.
    pub value: Hash32,
    /// Whether it may be voted for.
    pub valid: bool,
}

/// What was signed in answer to the wish for a vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedVote {
    /// What the vote is for; `None` is nil.
    pub value: Option<Hash32>,
    /// Over that vote.
    pub signature: [u8; 64],
}

/// Signs proposals and votes: what it signs is remembered durably first, and what would contradict
/// something signed before is refused.
pub trait VoteSigner: Send + Sync {
    /// The chain that is signed for.
    fn chain(&self) -> Hash32;

    /// Public key of this validator.
    fn public(&self) -> Hash32;

    /// Signs a vote; `None` is nil. For a prevote, `valid_round` is the earlier round whose quorum of
    /// prevotes the proposal calls upon. What was promised before binds an engine that has lost its
    /// memory: the vote that is signed may be another one than the one asked for.
    fn vote(
        &self,
        kind: VoteType,
        height: u64,
        round: u32,
        value: Option<Hash32>,
        valid_round: Option<u32>,
    ) -> Result<SignedVote, Failure>;

    /// Signs a proposal.
    fn proposal(&self, height: u64, round: u32, valid_round: Option<u32>, value: Hash32) -> Result<[u8; 64], Failure>;

    /// Signs what is neither vote nor proposal: that this key belongs to this node on the network.
    fn network_proof(&self, message: &[u8]) -> [u8; 64];
}

/// What an engine drives: the ledger's side of agreement.
pub trait Application {
    /// Height to decide next.
    fn height(&self) -> u64;

    /// Validators of that height.
    fn members(&self) -> Arc<MemberSet>;

    /// Signs proposals and votes under the guard.
    fn signer(&self) -> Arc<dyn VoteSigner>;

    /// Is told when there may be something new to decide on, or the node is to stop.
    fn changed(&self) -> Arc<Notify>;

    /// Whether the node is to stop.
    fn is_stopping(&self) -> bool;

    /// Whether this node is to follow by what others serve to everybody: it is no member's at the next
    /// height and not let into their network, or they have left it behind.
    fn follows(&self) -> bool {
        false
    }

    /// Nobody who was asked has a block more.
    fn caught_up(&mut self) {}

    /// Whether this node may vote at the next height: it is a validator there, and its guard
    /// remembers nothing beyond its data. Otherwise it follows.
    fn may_vote(&self) -> bool;

    /// Whether the engine's log of the next height must not be replayed: this node has signed there
    /// something else than the engine asked for, and replay would ask for it again.
    fn log_is_void(&self) -> bool {
        false
    }

    /// Where the engine puts the votes that it has verified.
    fn seen_votes(&self) -> SeenVotes {
        SeenVotes::default()
    }

    /// Whether there is something to decide on now. If not, the next height waits.
    fn wants_block(&self) -> bool;

    /// The proposal of this node for the next height: the same one every time for a round, and
    /// durable before it is returned.
    fn propose(&mut self, round: u32, proposer: [u8; 20]) -> Result<(Judged, Vec<u8>), Failure>;

    /// Executes a proposal for the next height again and compares every field of its header; keeps
    /// a valid one durably. `fresh` ones are also held against the clock.
    fn judge(&mut self, slot: Slot, bytes: &[u8], fresh: bool) -> Result<Option<Judged>, Failure>;

    /// Proposals that were kept for a round of the next height, after a restart.
    fn kept(&mut self, round: u32) -> Result<Vec<Judged>, Failure>;

    /// Bytes of a kept proposal.
    fn proposal(&self, value: &Hash32) -> Option<Vec<u8>>;

    /// Makes a decided block durable and takes it over. When it returns, the block is final. A
    /// decision below the next height is known already.
    fn decide(&mut self, certificate: Certificate) -> Result<(), Failure>;

    /// Takes over the next block, which others have decided, as [`Application::decide`] does: whoever
    /// calls has verified the certificate. The proposal is not kept, because nothing is voted on. `false`
    /// where the batch is not the header's; an error where the block does not execute here.
    fn take_block(&mut self, proposal: Proposal, certificate: Certificate) -> Result<bool, Failure>;

    /// A decided block, for a peer that is behind.
    fn decided(&self, height: u64) -> Result<Option<(Vec<u8>, Certificate)>, Failure>;

    /// The broadcast that tells peers of something to decide at the next height.
    fn wake(&self) -> Vec<u8>;

    /// What another member's node broadcast.
    fn message(&mut self, bytes: &[u8]) -> Result<Heard, Failure>;

    /// Does what time asks for: `now` never runs backwards. Returns when to call again at the latest.
    fn tick(&mut self, now: Duration) -> Result<Option<Duration>, Failure>;

    /// What is to be broadcast since the last call.
    fn outbox(&mut self) -> Vec<Vec<u8>>;

    /// A checkpoint over the newest block, from whoever serves one: kept where a quorum has signed
    /// the root that this node computed itself. Returns whether it was.
    fn take_checkpoint(&mut self, _note: &str) -> Result<bool, Failure> {
        Ok(false)
    }

    /// Two different things that one validator signed at one step.
    fn equivocation(&mut self, found: &Equivocation) -> Result<(), Failure>;

    /// What the engine is to do wrong: asked once, when it starts.
    #[cfg(feature = "byzantine")]
    fn misbehaviour(&self) -> Option<byzantine::Misbehaviour> {
        None
    }

    /// Parts to send since the last call that no honest node sends.
    #[cfg(feature = "byzantine")]
    fn forged_parts(&mut self) -> Vec<byzantine::ForgedPart> {
        Vec::new()
    }
}

/// What a broadcast was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Nothing for the engine.
    Nothing,
    /// A peer has something to decide at this height.
    Wake(u64),
}

/// An agreement engine.
pub trait Consensus {
    /// Drives `application` until it stops or fails.
    fn run(&mut self, application: &mut dyn Application) -> Result<(), Failure>;
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;

    fn members(count: u8) -> MemberSet {
        let key = |number: u8, which: u8| {
            let seed = [number * 10 + which; 32];
            Hash32(SigningKey::from_bytes(&seed).verifying_key().to_bytes())
        };
        let member = |number: u8| Member {
            cosigner_key: key(number, 0),
            domain: format!("member{number}.test"),
            governance_key: key(number, 1),
            log_key: key(number, 2),
            submitter_keys: vec![key(number, 3)],
            validator_key: key(number, 4),
        };
        MemberSet::new((1..=count).map(member).collect()).expect("a member set")
    }

    #[test]
    fn turns_go_round_by_height_and_round() {
        let members = members(4);
        let turn = |height, round| proposer(&members, height, round).map(|member| member.domain.clone());
        assert_eq!(turn(0, 0).as_deref(), Some("member1.test"));
        assert_eq!(turn(1, 0), turn(0, 1));
        assert_eq!(turn(4, 0), turn(0, 0));
        assert!(turn(u64::MAX, u32::MAX).is_some());
    }

    #[test]
    fn a_slot_is_sound_only_in_its_proposers_turn() {
        let members = members(4);
        let of = |height, round| proposer(&members, height, round).map(|member| address(&member.validator_key));
        let slot = |round, valid_round, proposer: Option<[u8; 20]>| Slot {
            height: 7,
            round,
            valid_round,
            proposer: proposer.expect("a proposer"),
        };
        assert!(slot(0, None, of(7, 0)).is_sound(&members));
        assert!(!slot(0, None, of(7, 1)).is_sound(&members), "another member's turn");
        assert!(slot(3, Some(1), of(7, 1)).is_sound(&members), "locked in the round of its proposer");
        assert!(slot(3, Some(1), of(7, 3)).is_sound(&members));
        assert!(!slot(3, Some(1), of(7, 2)).is_sound(&members));
        assert!(!slot(3, Some(3), of(7, 3)).is_sound(&members), "locked in a round that is not over");
        assert!(!slot(0, Some(u32::MAX), of(7, 0)).is_sound(&members));
    }

    #[test]
    fn a_proposal_is_read_back_or_refused() {
        let header = ledger_core::execute::execute_genesis(&ledger_core::genesis::Genesis {
            members: members(1),
            network: ledger_core::genesis::Network::Sandbox,
            origin: "sandbox.test/log".to_owned(),
            policy: ledger_core::policy::Policy::default(),
            time: 1,
            v: ledger_core::operation::V1,
        })
        .header;
        let proposal = Proposal { header, batch: vec![0; 4] };
        let bytes = proposal.encode();
        assert_eq!(Proposal::decode(&bytes), Ok(proposal));
        for len in 0..bytes.len() {
            assert!(Proposal::decode(&bytes[..len]).is_err(), "{len} bytes");
        }
        assert!(Proposal::decode(&[&bytes[..], &[0]].concat()).is_err());
    }
}
