//! What a member's node keeps and shows besides the ledger: peer cards and proposals. Both are
//! signed, so nodes take them over from each other.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use chopmark_node::Governance;
use ledger_core::{Hash32, member::Member};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::Mutex;

use super::{
    card::PeerCard,
    proposal::{PROPOSAL_BYTES_MAX, Proposal, Standing},
    witness::ShownVote,
};
use crate::{secrets, system, unfinished::private_folder};

/// Proposals that one member alone has approved, kept at most: no member can keep the others' out.
const PROPOSALS_OF_MEMBER_MAX: usize = 4;
/// Proposals and cards of one answer that are looked at.
const NOTICES_MAX: usize = 128;
/// A card from further ahead than this is of a clock that is wrong.
const CARD_AHEAD_MAX_MS: u64 = 24 * 60 * 60 * 1000;

/// Cards and proposals, as they are served and kept.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Notices {
    /// How far the node is.
    #[serde(default)]
    pub(crate) height: u64,
    pub(crate) cards: Vec<PeerCard>,
    pub(crate) proposals: Vec<Proposal>,
    /// The newest vote of every member that the node has seen. Without them an answer is no testimony.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) votes: Option<Vec<ShownVote>>,
}

/// A node's cards and proposals, kept in its folder.
pub(crate) struct Board {
    folder: PathBuf,
    chain: Hash32,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    cards: BTreeMap<String, PeerCard>,
    proposals: BTreeMap<Hash32, Proposal>,
}

fn read_all<T: DeserializeOwned>(folder: &Path) -> anyhow::Result<Vec<T>> {
    let mut read = Vec::new();
    for item in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = item?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            let one = serde_json::from_slice(&bytes);
            read.push(one.with_context(|| format!("{} cannot be read: remove it", path.display()))?);
        }
    }
    Ok(read)
}

impl Board {
    /// Opens the board in a member's folder.
    pub(crate) fn open(folder: &Path, chain: Hash32) -> anyhow::Result<Self> {
        let board = Self { folder: folder.join("board"), chain, kept: Mutex::default() };
        for kind in ["cards", "proposals"] {
            private_folder(&board.folder.join(kind))?;
        }
        let cards: Vec<PeerCard> = read_all(&board.folder.join("cards"))?;
        let proposals: Vec<Proposal> = read_all(&board.folder.join("proposals"))?;
        let proposals = proposals.into_iter().map(|proposal| (proposal.id(), proposal));
        let kept = Kept {
            cards: cards.into_iter().map(|card| (card.domain.clone(), card)).collect(),
            proposals: proposals.collect(),
        };
        Ok(Self { kept: Mutex::new(kept), ..board })
    }

    fn path(&self, kind: &str, name: &str) -> PathBuf {
        self.folder.join(kind).join(format!("{name}.json"))
    }

    /// Everything, as it is served.
    pub(crate) async fn notices(&self) -> Notices {
        let kept = self.kept.lock().await;
        Notices {
            height: 0,
            votes: None,
            cards: kept.cards.values().cloned().collect(),
            proposals: kept.proposals.values().cloned().collect(),
        }
    }

    /// Takes over what holds: later cards of these members, and approvals of members in force.
    pub(crate) async fn take(&self, notices: Notices, known: &[Member], governance: &Governance) -> anyhow::Result<()> {
        let mut latest: BTreeMap<String, PeerCard> = BTreeMap::new();
        for card in notices.cards.into_iter().take(NOTICES_MAX) {
            if latest.get(&card.domain).is_none_or(|other| other.time < card.time) {
                latest.insert(card.domain.clone(), card);
            }
        }
        for card in latest.into_values() {
            self.take_card(card, known).await?;
        }
        for proposal in notices.proposals.into_iter().take(NOTICES_MAX) {
            // What a peer sends wrongly is its own business.
            if let Err(error) = self.take_proposal(proposal, governance).await {
                tracing::debug!(%error, "a proposal is not taken over");
            }
        }
        Ok(())
    }

    pub(crate) async fn take_card(&self, card: PeerCard, known: &[Member]) -> anyhow::Result<()> {
        if card.time > system::now_ms() + CARD_AHEAD_MAX_MS {
            return Ok(());
        }
        let mut kept = self.kept.lock().await;
        // The newest record of a member is the first: a card under a key that was replaced gives way.
        let Some(member) = known.iter().find(|member| member.domain == card.domain) else { return Ok(()) };
        let before = kept.cards.get(&card.domain).filter(|before| before.is_of(&self.chain, member));
        if before.is_none_or(|before| before.time < card.time) && card.is_of(&self.chain, member) {
            secrets::write(&self.path("cards", &card.domain), &serde_json::to_string_pretty(&card)?)?;
            kept.cards.insert(card.domain.clone(), card);
        }
        Ok(())
    }

    /// Takes over a proposal, or its approvals; returns it as it is then kept.
    pub(crate) async fn take_proposal(&self, mut new: Proposal, governance: &Governance) -> anyhow::Result<Proposal> {
        let change = new.change()?;
        anyhow::ensure!(change.common().chain == self.chain, "it is for another network");
        anyhow::ensure!(
            matches!(new.standing(governance)?, Standing::Open { .. }),
            "it has expired, or what it was to replace has been replaced meanwhile"
        );
        let id = new.id();
        let mut kept = self.kept.lock().await;
        let before = kept.proposals.get(&id);
        // Only of whoever is new: a member that is in shows its own.
        let candidates: Vec<Member> = new.members().iter().flatten().cloned().collect();
        let is_in = |card: &PeerCard| governance.members.iter().any(|member| member.domain == card.domain);
        let vouched = |card: &PeerCard| !is_in(card) && candidates.iter().any(|member| card.is_of(&self.chain, member));
        new.card = before.and_then(|before| before.card.clone()).or(new.card.filter(vouched));
        if let Some(before) = before {
            let known = before.approvals.iter().cloned();
            new.approvals = known.chain(std::mem::take(&mut new.approvals)).collect();
        }
        new.keep_sound(&self.chain, &governance.members);
        anyhow::ensure!(!new.approvals.is_empty(), "no member in force has approved it");
        if kept.proposals.get(&id) == Some(&new) {
            return Ok(new);
        }
        let approver = new.approvals[0].key;
        let alone = |other: &Proposal| other.approvals.len() == 1 && other.approvals[0].key == approver;
        let waiting = kept.proposals.values().filter(|other| alone(other)).count();
        anyhow::ensure!(
            kept.proposals.contains_key(&id)
                || (new.approvals.len() > 1 && kept.proposals.len() < NOTICES_MAX)
                || waiting < PROPOSALS_OF_MEMBER_MAX,
            "{waiting} proposals of this member wait already: they end when they expire or something else is committed"
        );
        let text = serde_json::to_string_pretty(&new)?;
        anyhow::ensure!(text.len() <= PROPOSAL_BYTES_MAX, "it is larger than {PROPOSAL_BYTES_MAX} bytes");
        secrets::write(&self.path("proposals", &id.to_string()), &text)?;
        kept.proposals.insert(id, new.clone());
        Ok(new)
    }

    /// Drops proposals that cannot come into force any more.
    pub(crate) async fn drop_ended(&self, governance: &Governance) -> anyhow::Result<()> {
        let mut kept = self.kept.lock().await;
        let ended = |proposal: &Proposal| !matches!(proposal.standing(governance), Ok(Standing::Open { .. }));
        let ended: Vec<Hash32> =
            kept.proposals.iter().filter(|(_, proposal)| ended(proposal)).map(|(id, _)| *id).collect();
        for id in ended {
            let path = self.path("proposals", &id.to_string());
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("remove {}", path.display()));
                }
                _ => {}
            }
            kept.proposals.remove(&id);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ledger_core::{
        SigningKey,
        hash::sha3_256,
        member::MemberSet,
        operation::{MembersSet, Operation, OperationType, V1},
        policy::Policy,
    };

    use super::*;

    const CHAIN: Hash32 = Hash32([7; 32]);

    fn key(member: u8, which: u8) -> SigningKey {
        SigningKey::from_bytes(&[member * 10 + which; 32])
    }

    fn member(number: u8) -> Member {
        let public = |which| Hash32(key(number, which).verifying_key().to_bytes());
        Member {
            cosigner_key: public(0),
            domain: format!("member{number}.test"),
            governance_key: public(1),
            log_key: public(2),
            submitter_keys: vec![public(3)],
            validator_key: public(4),
        }
    }

    /// A change of members that these members have approved.
    fn proposal(governance: &Governance, number: u64, approvers: &[u8]) -> Proposal {
        let operation = Operation::MembersSet(Box::new(MembersSet {
            chain: CHAIN,
            expires: 1_000,
            kind: OperationType::MembersSet,
            members: MemberSet::new((1..=3).map(member).collect()).unwrap(),
            op: sha3_256(&number.to_be_bytes()),
            replaces: governance.members.hash(),
            request: sha3_256(b"request"),
            v: V1,
        }));
        let mut proposal = Proposal::new(&operation, None).unwrap();
        approvers.iter().for_each(|approver| proposal.approve(&CHAIN, &key(*approver, 1)));
        proposal
    }

    #[tokio::test]
    async fn one_member_alone_has_a_few_proposals_and_keeps_nobody_elses_out() {
        let folder = std::env::temp_dir().join(format!("chopmark-board-{}", std::process::id()));
        let board = Board::open(&folder, CHAIN).unwrap();
        let governance = Governance {
            height: 5,
            members: MemberSet::new((1..=4).map(member).collect()).unwrap(),
            pending: None,
            policy: Policy::default(),
            policy_hash: Hash32::ZERO,
        };
        let take = async |number, approvers: &[u8]| {
            let taken = board.take_proposal(proposal(&governance, number, approvers), &governance).await;
            taken.map(|proposal| proposal.approvals.len()).map_err(|error| error.to_string())
        };
        let most = PROPOSALS_OF_MEMBER_MAX as u64;
        for number in 0..most {
            assert_eq!(take(number, &[1]).await, Ok(1));
        }
        let refused = take(most, &[1]).await.unwrap_err();
        assert!(refused.contains("of this member wait already"), "{refused}");
        assert_eq!(take(0, &[1]).await, Ok(1), "what is kept is not counted twice");
        assert_eq!(take(most, &[2]).await, Ok(1), "another member");
        assert_eq!(take(most + 1, &[1, 2]).await, Ok(2), "two members");
        // One that another member approves too makes room; a stranger's approval counts for nothing.
        assert!(take(0, &[9]).await.is_ok_and(|approvals| approvals == 1));
        assert!(take(most + 2, &[1]).await.is_err());
        assert_eq!(take(0, &[3]).await, Ok(2));
        assert_eq!(take(most + 2, &[1]).await, Ok(1));
        assert_eq!(board.notices().await.proposals.len(), PROPOSALS_OF_MEMBER_MAX + 3);
        // After a restart the same are there and count.
        let board = Board::open(&folder, CHAIN).unwrap();
        assert_eq!(board.notices().await.proposals.len(), PROPOSALS_OF_MEMBER_MAX + 3);
        assert!(board.take_proposal(proposal(&governance, most + 3, &[1]), &governance).await.is_err());
        fs::remove_dir_all(folder).unwrap();
    }
}
