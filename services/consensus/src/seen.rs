//! The newest vote of every validator that this node has seen.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use ed25519_dalek::{Signature, VerifyingKey};
use ledger_core::{
    Hash32,
    vote::{VoteType, address, vote_message},
};

/// A vote as its validator signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenVote {
    /// Which of the two.
    pub kind: VoteType,
    /// Height.
    pub height: u64,
    /// Round.
    pub round: u32,
    /// What it is for; `None` is nil.
    pub value: Option<Hash32>,
    /// Over [`vote_message`].
    pub signature: [u8; 64],
}

impl SeenVote {
    /// Whether `key` has signed this vote.
    #[must_use]
    pub fn is_of(&self, chain: &Hash32, key: &VerifyingKey) -> bool {
        let voter = address(&Hash32(key.to_bytes()));
        let message = vote_message(chain, self.kind, self.height, self.round, self.value.as_ref(), &voter);
        key.verify_strict(&message, &Signature::from_bytes(&self.signature)).is_ok()
    }

    fn order(&self) -> (u64, u32, u8) {
        (self.height, self.round, self.kind as u8)
    }
}

/// Newest votes by the validator's address, shared between the engine that verifies them and whoever
/// shows them to a member that asks what it has signed. Bounded by the validators that there ever were.
#[derive(Debug, Clone, Default)]
pub struct SeenVotes(Arc<Mutex<BTreeMap<[u8; 20], SeenVote>>>);

impl SeenVotes {
    /// Takes a vote that was verified.
    pub fn insert(&self, voter: [u8; 20], vote: SeenVote) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.get(&voter).is_none_or(|known| known.order() < vote.order()) {
            seen.insert(voter, vote);
        }
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<SeenVote> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use ledger_core::SigningKey;

    use super::*;

    fn vote(key: &SigningKey, height: u64, round: u32, kind: VoteType) -> SeenVote {
        use ed25519_dalek::Signer as _;
        let voter = address(&Hash32(key.verifying_key().to_bytes()));
        let message = vote_message(&Hash32::ZERO, kind, height, round, None, &voter);
        SeenVote { kind, height, round, value: None, signature: key.sign(&message).to_bytes() }
    }

    #[test]
    fn the_newest_vote_of_each_is_kept() {
        let (key, seen) = (SigningKey::from_bytes(&[1; 32]), SeenVotes::default());
        let newest = vote(&key, 7, 1, VoteType::Precommit);
        for vote in [
            vote(&key, 7, 1, VoteType::Prevote),
            newest.clone(),
            vote(&key, 7, 1, VoteType::Prevote),
            vote(&key, 7, 0, VoteType::Precommit),
            vote(&key, 6, 9, VoteType::Precommit),
        ] {
            seen.insert([1; 20], vote);
        }
        seen.insert([2; 20], vote(&key, 1, 0, VoteType::Prevote));
        assert_eq!(seen.all()[0], newest);
        assert_eq!(seen.all().len(), 2);
    }

    #[test]
    fn a_vote_is_of_the_key_and_the_chain_that_signed_it() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let vote = vote(&key, 7, 1, VoteType::Precommit);
        assert!(vote.is_of(&Hash32::ZERO, &key.verifying_key()));
        assert!(!vote.is_of(&Hash32([1; 32]), &key.verifying_key()));
        assert!(!vote.is_of(&Hash32::ZERO, &SigningKey::from_bytes(&[2; 32]).verifying_key()));
        assert!(!SeenVote { round: 2, ..vote }.is_of(&Hash32::ZERO, &key.verifying_key()));
    }
}
