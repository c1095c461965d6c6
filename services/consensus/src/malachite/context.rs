//! The engine's types, filled with ours. What is signed is laid out in `ledger_core::vote`; the
//! layouts here are those of the wire between members and of the engine's write-ahead log.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use ledger_core::{
    Hash32,
    member::MemberSet,
    vote::{VoteType, address, proposal_message, vote_message},
};
use malachite_signing::{Error, Signer, VerificationResult, Verifier};
use malachite_types::{
    Context, LinearTimeouts, NilOrVal, Round, SignedExtension, SignedMessage, SigningScheme, ValidatorProof,
    VoteExtensionScope,
};

use crate::{Failure, SeenVote, SeenVotes, VoteSigner};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub(super) struct Height(pub(super) u64);

impl fmt::Display for Height {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl malachite_types::Height for Height {
    const ZERO: Self = Self(0);
    const INITIAL: Self = Self(1);

    fn increment_by(&self, n: u64) -> Self {
        Self(self.0 + n)
    }

    fn decrement_by(&self, n: u64) -> Option<Self> {
        self.0.checked_sub(n).map(Self)
    }

    fn as_u64(&self) -> u64 {
        self.0
    }
}

macro_rules! bytes_type {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
        pub(super) struct $name(pub(super) [u8; $len]);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }
    };
}

bytes_type!(Address, 20);
bytes_type!(
    /// Header hash: both the value and its id, so that the batch never travels through votes.
    Value, 32
);
bytes_type!(Signature, 64);
bytes_type!(PublicKey, 32);

impl malachite_types::Address for Address {}

impl malachite_types::Value for Value {
    type Id = Self;

    fn id(&self) -> Self {
        *self
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Validator {
    address: Address,
    key: PublicKey,
}

impl malachite_types::Validator<Engine> for Validator {
    fn address(&self) -> &Address {
        &self.address
    }

    fn public_key(&self) -> &PublicKey {
        &self.key
    }

    /// One member, one vote: a quorum of power is `floor(2n/3) + 1` members.
    fn voting_power(&self) -> u64 {
        1
    }
}

/// Validators in the order of the member set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Validators(Arc<Vec<Validator>>);

impl Validators {
    pub(super) fn of(members: &MemberSet) -> Self {
        let validator = |key: &Hash32| Validator { address: Address(address(key)), key: PublicKey(key.0) };
        Self(Arc::new(members.iter().map(|member| validator(&member.validator_key)).collect()))
    }
}

impl malachite_types::ValidatorSet<Engine> for Validators {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn total_voting_power(&self) -> u64 {
        self.0.len() as u64
    }

    fn get_by_address(&self, address: &Address) -> Option<&Validator> {
        self.0.iter().find(|validator| validator.address == *address)
    }

    fn get_by_index(&self, index: usize) -> Option<&Validator> {
        self.0.get(index)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct Proposal {
    pub(super) height: Height,
    pub(super) round: Round,
    pub(super) value: Value,
    pub(super) valid_round: Round,
    pub(super) address: Address,
}

impl malachite_types::Proposal<Engine> for Proposal {
    fn height(&self) -> Height {
        self.height
    }

    fn round(&self) -> Round {
        self.round
    }

    fn value(&self) -> &Value {
        &self.value
    }

    fn take_value(self) -> Value {
        self.value
    }

    fn pol_round(&self) -> Round {
        self.valid_round
    }

    fn validator_address(&self) -> &Address {
        &self.address
    }
}

#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct Vote {
    pub(super) kind: malachite_types::VoteType,
    pub(super) height: Height,
    pub(super) round: Round,
    pub(super) value: NilOrVal<Value>,
    pub(super) address: Address,
}

impl malachite_types::Vote<Engine> for Vote {
    fn height(&self) -> Height {
        self.height
    }

    fn round(&self) -> Round {
        self.round
    }

    fn value(&self) -> &NilOrVal<Value> {
        &self.value
    }

    fn take_value(self) -> NilOrVal<Value> {
        self.value
    }

    fn vote_type(&self) -> malachite_types::VoteType {
        self.kind
    }

    fn validator_address(&self) -> &Address {
        &self.address
    }

    fn extension(&self) -> Option<&SignedExtension<Engine>> {
        None
    }

    fn take_extension(&mut self) -> Option<SignedExtension<Engine>> {
        None
    }

    /// Votes have no extensions here.
    fn extend(self, _: SignedExtension<Engine>) -> Self {
        self
    }
}

/// What nodes broadcast beside votes.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// Opens a stream: whose proposal follows, and how many bytes.
    Init { height: u64, round: u32, valid_round: Option<u32>, proposer: Address, len: u32 },
    /// The next bytes of the proposal.
    Data(Bytes),
    /// A message between the ledgers, in a stream of its own.
    Message(Bytes),
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Init { height, round, len, .. } => write!(f, "Init({height}, {round}, {len})"),
            Self::Data(bytes) => write!(f, "Data({})", bytes.len()),
            Self::Message(bytes) => write!(f, "Message({})", bytes.len()),
        }
    }
}

impl malachite_types::ProposalPart<Engine> for Part {
    fn is_first(&self) -> bool {
        matches!(self, Self::Init { .. })
    }

    fn is_last(&self) -> bool {
        false
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ed25519;

/// Private keys stay with the guard's signer; the engine sees none.
#[derive(Clone)]
pub(super) struct NoPrivateKey;

impl SigningScheme for Ed25519 {
    type DecodingError = std::array::TryFromSliceError;
    type Signature = Signature;
    type PublicKey = PublicKey;
    type PrivateKey = NoPrivateKey;

    fn decode_signature(bytes: &[u8]) -> Result<Signature, Self::DecodingError> {
        bytes.try_into().map(Signature)
    }

    fn encode_signature(signature: &Signature) -> Vec<u8> {
        signature.0.to_vec()
    }

    fn decode_public_key(bytes: &[u8]) -> Result<PublicKey, Self::DecodingError> {
        bytes.try_into().map(PublicKey)
    }

    fn encode_public_key(key: &PublicKey) -> Vec<u8> {
        key.0.to_vec()
    }
}

#[derive(Clone, Debug)]
pub(super) struct Engine;

impl Context for Engine {
    type Address = Address;
    type Height = Height;
    type ProposalPart = Part;
    type Proposal = Proposal;
    type Validator = Validator;
    type ValidatorSet = Validators;
    type Timeouts = LinearTimeouts;
    type Value = Value;
    type Vote = Vote;
    type Extension = Bytes;
    type SigningScheme = Ed25519;

    fn select_proposer<'a>(&self, validators: &'a Validators, height: Height, round: Round) -> &'a Validator {
        let turn = height.0.wrapping_add(u64::from(round.as_u32().unwrap_or_default()));
        let at = usize::try_from(turn % validators.0.len() as u64).unwrap_or_default();
        &validators.0[at]
    }

    fn new_proposal(
        &self,
        height: Height,
        round: Round,
        value: Value,
        valid_round: Round,
        address: Address,
    ) -> Proposal {
        Proposal { height, round, value, valid_round, address }
    }

    fn new_prevote(&self, height: Height, round: Round, value: NilOrVal<Value>, address: Address) -> Vote {
        Vote { kind: malachite_types::VoteType::Prevote, height, round, value, address }
    }

    fn new_precommit(&self, height: Height, round: Round, value: NilOrVal<Value>, address: Address) -> Vote {
        Vote { kind: malachite_types::VoteType::Precommit, height, round, value, address }
    }
}

pub(super) fn vote_kind(kind: malachite_types::VoteType) -> VoteType {
    match kind {
        malachite_types::VoteType::Prevote => VoteType::Prevote,
        malachite_types::VoteType::Precommit => VoteType::Precommit,
    }
}

pub(super) fn voted(value: &NilOrVal<Value>) -> Option<Hash32> {
    match value {
        NilOrVal::Nil => None,
        NilOrVal::Val(value) => Some(Hash32(value.0)),
    }
}

/// The bytes that a vote signs.
pub(super) fn vote_bytes(chain: &Hash32, vote: &Vote) -> Vec<u8> {
    let round = vote.round.as_u32().unwrap_or_default();
    let value = voted(&vote.value);
    vote_message(chain, vote_kind(vote.kind), vote.height.0, round, value.as_ref(), &vote.address.0)
}

/// The bytes that a proposal signs.
pub(super) fn proposal_bytes(chain: &Hash32, proposal: &Proposal) -> Vec<u8> {
    let round = proposal.round.as_u32().unwrap_or_default();
    let value = Hash32(proposal.value.0);
    let valid = proposal.valid_round.as_u32();
    proposal_message(chain, proposal.height.0, round, valid, &value, &proposal.address.0)
}

/// The rounds that the proposals of one round call upon, by value.
type RoundsCalled = BTreeMap<Value, Option<u32>>;

/// The earlier rounds that the proposals of the height under way call upon, as their proposers have
/// signed it. Of a proposer that signs two, the lesser one counts: it frees nobody from a lock.
#[derive(Clone, Debug, Default)]
pub(super) struct ValidRounds(Arc<Mutex<BTreeMap<(u64, u32), RoundsCalled>>>);

/// An equivocating proposer signs as many as it likes. What is not known here frees nobody, so the bound
/// is one of each round: every round has one proposer, and nobody can use up what is another's.
const VALUES_OF_ROUND_MAX: usize = 16;

impl ValidRounds {
    /// Takes a proposal of the height under way by the proposer of its round: the engine verifies no other.
    fn insert(&self, proposal: &Proposal) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(height, _), _| *height >= proposal.height.0);
        let round = proposal.round.as_u32().unwrap_or_default();
        let values = known.entry((proposal.height.0, round)).or_default();
        let valid = proposal.valid_round.as_u32();
        if values.len() < VALUES_OF_ROUND_MAX || values.contains_key(&proposal.value) {
            values.entry(proposal.value).and_modify(|known| *known = valid.min(*known)).or_insert(valid);
        }
    }

    fn of(&self, vote: &Vote) -> Option<u32> {
        let NilOrVal::Val(value) = vote.value else { return None };
        let round = (vote.height.0, vote.round.as_u32().unwrap_or_default());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&round)?.get(&value).copied().flatten()
    }
}

#[derive(Debug)]
pub(super) struct Checker {
    pub(super) chain: Hash32,
    pub(super) valid_rounds: ValidRounds,
    pub(super) seen: SeenVotes,
}

fn holds(key: &PublicKey, message: &[u8], signature: &Signature) -> VerificationResult {
    let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
    let key = ed25519_dalek::VerifyingKey::from_bytes(&key.0);
    VerificationResult::from_bool(key.is_ok_and(|key| key.verify_strict(message, &signature).is_ok()))
}

#[async_trait::async_trait]
impl Verifier<Engine> for Checker {
    async fn verify_signed_vote(
        &self,
        vote: &Vote,
        signature: &Signature,
        key: &PublicKey,
    ) -> Result<VerificationResult, Error> {
        let held = holds(key, &vote_bytes(&self.chain, vote), signature);
        if held.is_valid() {
            let round = vote.round.as_u32().unwrap_or_default();
            let (kind, value) = (vote_kind(vote.kind), voted(&vote.value));
            let seen = SeenVote { kind, height: vote.height.0, round, value, signature: signature.0 };
            self.seen.insert(vote.address.0, seen);
        }
        Ok(held)
    }

    async fn verify_signed_proposal(
        &self,
        proposal: &Proposal,
        signature: &Signature,
        key: &PublicKey,
    ) -> Result<VerificationResult, Error> {
        let held = holds(key, &proposal_bytes(&self.chain, proposal), signature);
        if held.is_valid() {
            self.valid_rounds.insert(proposal);
        }
        Ok(held)
    }

    async fn verify_signed_vote_extension(
        &self,
        _: &VoteExtensionScope<Engine>,
        _: &Bytes,
        _: &Signature,
        _: &PublicKey,
    ) -> Result<VerificationResult, Error> {
        Ok(VerificationResult::Invalid)
    }

    async fn verify_validator_proof(&self, proof: &ValidatorProof<Engine>) -> Result<VerificationResult, Error> {
        let Ok(key) = proof.decoded_public_key() else { return Ok(VerificationResult::Invalid) };
        Ok(holds(&key, &proof.preimage(), &proof.signature))
    }
}

/// Signs through the guard. What the guard refuses is not signed, and the engine stops.
#[derive(Clone)]
pub(super) struct GuardedSigner {
    pub(super) signer: Arc<dyn VoteSigner>,
    pub(super) valid_rounds: ValidRounds,
}

fn refused(error: &Failure) -> Error {
    tracing::error!(%error, "a vote is refused");
    Error::from_source(std::io::Error::other(error.to_string()))
}

#[async_trait::async_trait]
impl Signer<Engine> for GuardedSigner {
    async fn sign_vote(&self, vote: Vote) -> Result<SignedMessage<Engine, Vote>, Error> {
        let round = vote.round.as_u32().unwrap_or_default();
        let (value, valid) = (voted(&vote.value), self.valid_rounds.of(&vote));
        let signed = self.signer.vote(vote_kind(vote.kind), vote.height.0, round, value, valid);
        let signed = signed.map_err(|error| refused(&error))?;
        let value = signed.value.map_or(NilOrVal::Nil, |value| NilOrVal::Val(Value(value.0)));
        Ok(SignedMessage::new(Vote { value, ..vote }, Signature(signed.signature)))
    }

    async fn sign_proposal(&self, proposal: Proposal) -> Result<SignedMessage<Engine, Proposal>, Error> {
        let round = proposal.round.as_u32().unwrap_or_default();
        let valid = proposal.valid_round.as_u32();
        let signature = self.signer.proposal(proposal.height.0, round, valid, Hash32(proposal.value.0));
        Ok(SignedMessage::new(proposal, Signature(signature.map_err(|error| refused(&error))?)))
    }

    async fn sign_vote_extension(
        &self,
        _: VoteExtensionScope<Engine>,
        _: Bytes,
    ) -> Result<SignedMessage<Engine, Bytes>, Error> {
        Err(Error::from_source(std::io::Error::other("votes have no extensions")))
    }

    async fn sign_validator_proof(&self, key: Vec<u8>, peer: Vec<u8>) -> Result<ValidatorProof<Engine>, Error> {
        let message = ValidatorProof::<Engine>::signing_bytes(&key, &peer);
        Ok(ValidatorProof::new(key, peer, Signature(self.signer.network_proof(&message))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposal(height: u64, round: u32, value: u64, valid: Option<u32>) -> Proposal {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&value.to_be_bytes());
        let valid_round = valid.map_or(Round::Nil, Round::new);
        Proposal {
            height: Height(height),
            round: Round::new(round),
            value: Value(bytes),
            valid_round,
            address: Address([0; 20]),
        }
    }

    fn called(known: &ValidRounds, of: &Proposal) -> Option<u32> {
        let Proposal { height, round, value, address, .. } = *of;
        let kind = malachite_types::VoteType::Prevote;
        known.of(&Vote { kind, height, round, value: NilOrVal::Val(value), address })
    }

    #[test]
    fn a_proposer_of_many_values_uses_up_its_own_rounds_alone() {
        let known = ValidRounds::default();
        for (round, value) in (2..12).flat_map(|round| (0..1000).map(move |value| (round, value))) {
            known.insert(&proposal(7, round, value, Some(1)));
        }
        let honest = proposal(7, 12, 5000, Some(3));
        known.insert(&honest);
        assert_eq!(called(&known, &honest), Some(3));
        let kept: usize = known.0.lock().unwrap().values().map(BTreeMap::len).sum();
        assert_eq!(kept, 10 * VALUES_OF_ROUND_MAX + 1);
    }

    #[test]
    fn of_two_proposals_of_a_value_the_lesser_round_counts_and_heights_end() {
        let known = ValidRounds::default();
        for valid in [Some(4), Some(2), Some(3)] {
            known.insert(&proposal(7, 5, 1, valid));
        }
        assert_eq!(called(&known, &proposal(7, 5, 1, None)), Some(2));
        known.insert(&proposal(7, 5, 1, None));
        assert_eq!(called(&known, &proposal(7, 5, 1, None)), None);
        known.insert(&proposal(8, 0, 1, None));
        assert_eq!(known.0.lock().unwrap().len(), 1);
    }
}
