//! What the other members' nodes have seen of this one, asked before it votes. The guard remembers
//! everything that was signed; but a machine that was put back as a whole, guard and all, remembers
//! less than the others do.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use chopmark_consensus::SeenVote;
use ledger_core::{Hash32, SigningKey, vote::VoteType};
use parking_lot::Mutex;

use crate::guard::{Promise, Step};

/// An answer of another member's node. It proves itself: what is not this node's vote is not looked at.
#[derive(Debug, Clone)]
pub struct Witness {
    /// Domain of the member whose node answered.
    pub member: String,
    /// Votes that it has seen, of whomever.
    pub votes: Vec<SeenVote>,
}

/// The answers so far.
#[derive(Debug, Default)]
pub(crate) struct Witnesses {
    enough: AtomicBool,
    heard: Mutex<BTreeMap<String, Vec<SeenVote>>>,
}

impl Witnesses {
    /// Nobody has to be asked: this process is the whole network.
    pub(crate) fn not_needed() -> Self {
        Self { enough: AtomicBool::new(true), ..Self::default() }
    }

    pub(crate) fn are_enough(&self) -> bool {
        self.enough.load(Ordering::Relaxed)
    }

    pub(crate) fn hear(&self, witness: Witness) {
        self.heard.lock().insert(witness.member, witness.votes);
    }

    pub(crate) fn members(&self) -> Vec<String> {
        self.heard.lock().keys().cloned().collect()
    }

    /// Ends the asking. Returns the last height at which one of `keys` has signed what `promise` does
    /// not know of.
    pub(crate) fn conclude(&self, chain: &Hash32, keys: &[&SigningKey], promise: &Promise) -> Option<u64> {
        self.enough.store(true, Ordering::Relaxed);
        let heard = std::mem::take(&mut *self.heard.lock());
        let own = |vote: &SeenVote| keys.iter().any(|key| vote.is_of(chain, &key.verifying_key()));
        let unknown = heard.into_values().flatten().filter(|vote| !is_known(promise, vote));
        unknown.filter(own).map(|vote| vote.height).max()
    }
}

/// Whether the guard remembers this vote, or forbids another one in its place.
fn is_known(promise: &Promise, vote: &SeenVote) -> bool {
    let step = match vote.kind {
        VoteType::Prevote => Step::Prevote,
        VoteType::Precommit => Step::Precommit,
    };
    let (seen, last) = ((vote.height, vote.round), (promise.height, promise.round));
    vote.height <= promise.decided || seen < last || (seen == last && promise.votes[step as usize] == Some(vote.value))
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::Signer as _;
    use ledger_core::vote::{address, vote_message};

    use super::*;

    fn vote(key: &SigningKey, height: u64, round: u32, kind: VoteType) -> SeenVote {
        let voter = address(&Hash32(key.verifying_key().to_bytes()));
        let message = vote_message(&Hash32::ZERO, kind, height, round, None, &voter);
        SeenVote { kind, height, round, value: None, signature: key.sign(&message).to_bytes() }
    }

    #[test]
    fn votes_that_the_guard_does_not_know_of_silence_their_height() {
        let (own, before, other) = ([1; 32], [2; 32], [3; 32]);
        let [own, before, other] = [own, before, other].map(|seed| SigningKey::from_bytes(&seed));
        let mut promise = Promise::none(Hash32::ZERO);
        (promise.height, promise.round, promise.decided) = (7, 1, 6);
        promise.votes[Step::Prevote as usize] = Some(None);
        let concluded = |votes: &[SeenVote]| {
            let witnesses = Witnesses::default();
            witnesses.hear(Witness { member: "a".to_owned(), votes: votes.to_vec() });
            let height = witnesses.conclude(&Hash32::ZERO, &[&before, &own], &promise);
            assert!(witnesses.are_enough());
            height
        };
        let known = [vote(&own, 6, 3, VoteType::Precommit), vote(&own, 7, 0, VoteType::Precommit)];
        assert_eq!(concluded(&known), None);
        assert_eq!(concluded(&[vote(&own, 7, 1, VoteType::Prevote)]), None);
        assert_eq!(concluded(&[vote(&other, 9, 0, VoteType::Prevote)]), None, "somebody else's");
        assert_eq!(concluded(&[vote(&own, 7, 1, VoteType::Precommit)]), Some(7));
        assert_eq!(concluded(&[vote(&before, 7, 2, VoteType::Prevote)]), Some(7), "by the key before a rotation");
        assert_eq!(concluded(&[vote(&own, 8, 0, VoteType::Prevote), vote(&own, 7, 2, VoteType::Prevote)]), Some(8));
        let forged = SeenVote { height: u64::MAX, ..vote(&own, 8, 0, VoteType::Prevote) };
        assert_eq!(concluded(&[forged]), None, "nobody can silence another");
    }
}
