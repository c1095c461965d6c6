//! What the other members' nodes have seen of this one, asked before it votes. The guard remembers
//! everything that was signed; but a machine that was put back as a whole, guard and all, remembers
//! less than the others do.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use chopmark_consensus::SeenVote;
use ledger_core::{Hash32, SigningKey, member::MemberSet, vote::VoteType};
use parking_lot::Mutex;

use crate::guard::{Promise, Step};

/// An answer of another member's node. Votes prove themselves: what is not this node's is not looked at.
/// That a member has seen none is its word alone.
#[derive(Debug, Clone)]
pub struct Witness {
    /// Domain of the member whose node answered.
    pub member: String,
    /// Votes that it has seen, of whomever.
    pub votes: Vec<SeenVote>,
}

/// Votes of one answer that are looked at: far more than there are members.
const VOTES_MAX: usize = 1024;
/// A quorum that answers and a quorum that has seen a vote may share no honest member but this node
/// itself. So the rest get this long to answer, too.
const GRACE: Duration = Duration::from_secs(3);

/// The answers so far.
#[derive(Debug, Default)]
pub(crate) struct Witnesses {
    not_needed: bool,
    heard: Mutex<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    /// Who has answered since this process started.
    members: BTreeSet<String>,
    /// Answers that nobody has looked at.
    votes: BTreeMap<String, Vec<SeenVote>>,
    quorum_since: Option<Instant>,
    /// Whether the rest were waited for.
    waited: bool,
    /// Whether nobody was left to be waited for when the ledger last looked.
    enough: bool,
}

impl Witnesses {
    /// Nobody has to be asked: this process is the whole network.
    pub(crate) fn not_needed() -> Self {
        Self { not_needed: true, ..Self::default() }
    }

    pub(crate) fn are_enough(&self) -> bool {
        self.not_needed || self.heard.lock().enough
    }

    pub(crate) fn hear(&self, Witness { member, votes }: Witness) {
        let mut heard = self.heard.lock();
        heard.members.insert(member.clone());
        // An answer that nobody has looked at yet is not lost over the next one.
        let waiting = heard.votes.entry(member).or_default();
        waiting.extend(votes);
        waiting.truncate(VOTES_MAX);
    }

    pub(crate) fn members(&self) -> Vec<String> {
        self.heard.lock().members.iter().cloned().collect()
    }

    /// Whether those that have answered are, with this node, a quorum of `members`.
    pub(crate) fn are_quorum_of(&self, members: &MemberSet, own: &str) -> bool {
        self.not_needed || self.heard.lock().are_quorum_of(members, own)
    }

    /// Whether nobody needs to be waited for any more: all others have answered, or a quorum has and the
    /// rest had their time.
    pub(crate) fn conclude(&self, members: &MemberSet, own: &str, now: Instant) -> bool {
        if self.not_needed {
            return true;
        }
        let mut heard = self.heard.lock();
        if !heard.are_quorum_of(members, own) {
            (heard.quorum_since, heard.enough) = (None, false);
            return false;
        }
        let since = *heard.quorum_since.get_or_insert(now);
        let all = members.iter().all(|member| member.domain == own || heard.members.contains(&member.domain));
        heard.waited |= all || now >= since + GRACE;
        heard.enough = heard.waited;
        heard.enough
    }

    /// Votes by one of `keys` among the answers since the last call.
    pub(crate) fn own_votes(&self, chain: &Hash32, keys: &[&SigningKey]) -> Vec<SeenVote> {
        let votes = std::mem::take(&mut self.heard.lock().votes);
        let own = |vote: &SeenVote| keys.iter().any(|key| vote.is_of(chain, &key.verifying_key()));
        votes.into_values().flatten().filter(own).collect()
    }
}

impl Heard {
    fn are_quorum_of(&self, members: &MemberSet, own: &str) -> bool {
        let others = members.iter().filter(|member| member.domain != own);
        others.filter(|member| self.members.contains(&member.domain)).count() + 1 >= members.quorum()
    }
}

/// The last height at which one of these was signed and `promise` does not know of it.
pub(crate) fn unknown(votes: &[SeenVote], promise: &Promise) -> Option<u64> {
    votes.iter().filter(|vote| !is_known(promise, vote)).map(|vote| vote.height).max()
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
    use crate::testing::{domain, members};

    fn vote(key: &SigningKey, height: u64, round: u32, kind: VoteType) -> SeenVote {
        let voter = address(&Hash32(key.verifying_key().to_bytes()));
        let message = vote_message(&Hash32::ZERO, kind, height, round, None, &voter);
        SeenVote { kind, height, round, value: None, signature: key.sign(&message).to_bytes() }
    }

    fn answer(witnesses: &Witnesses, members: &[u8]) {
        for at in members {
            witnesses.hear(Witness { member: domain(*at), votes: Vec::new() });
        }
    }

    #[test]
    fn all_are_waited_for_and_a_quorum_for_a_while() {
        let (four, own, start) = (members(4), domain(1), Instant::now());
        let witnesses = Witnesses::default();
        let concludes = |after: Duration| witnesses.conclude(&four, &own, start + after);
        answer(&witnesses, &[2]);
        assert!(!concludes(10 * GRACE), "two are no quorum of four, however long they wait");
        answer(&witnesses, &[2, 9]);
        assert!(!concludes(10 * GRACE), "nobody counts twice, and strangers do not");
        answer(&witnesses, &[3]);
        assert!(!concludes(10 * GRACE));
        assert!(!concludes(11 * GRACE - Duration::from_millis(1)));
        assert!(concludes(11 * GRACE));
        let witnesses = Witnesses::default();
        answer(&witnesses, &[2, 3, 4]);
        assert!(witnesses.conclude(&four, &own, start), "nobody is left to be waited for");
        assert!(witnesses.are_enough());
    }

    #[test]
    fn other_members_are_asked_again() {
        let (own, start) = (domain(1), Instant::now());
        let witnesses = Witnesses::default();
        answer(&witnesses, &[2, 3]);
        assert!(witnesses.conclude(&members(3), &own, start));
        assert!(witnesses.are_quorum_of(&members(4), &own), "three of four are one already");
        assert!(!witnesses.are_quorum_of(&members(7), &own));
        assert!(!witnesses.conclude(&members(7), &own, start + GRACE));
        assert!(!witnesses.are_enough());
        answer(&witnesses, &[4, 5]);
        assert!(witnesses.conclude(&members(7), &own, start + GRACE));
        let alone = Witnesses::default();
        assert!(alone.conclude(&members(1), &own, start));
        let process = Witnesses::not_needed();
        assert!(process.conclude(&members(7), &own, start) && process.are_quorum_of(&members(7), &own));
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
            let own = witnesses.own_votes(&Hash32::ZERO, &[&before, &own]);
            assert_eq!(witnesses.own_votes(&Hash32::ZERO, &[&before]), [], "looked at once");
            unknown(&own, &promise)
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
