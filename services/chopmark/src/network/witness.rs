//! What the others have seen of this node: asked before it votes, so that a whole machine that was
//! put back to an earlier day, guard and all, does not vote twice.

use std::time::{Duration, Instant};

use anyhow::ensure;
use chopmark_node::{SeenVote, Witness};
use ledger_core::{Hash32, member::Member, vote::VoteType};
use serde::{Deserialize, Serialize};

use super::{
    board::Notices,
    peering::{Peering, known_members, known_urls, notices},
};

/// Between two rounds of questions, as long as this node waits for the answers.
const INTERVAL: Duration = Duration::from_millis(200);
/// As long as a member has not answered: one that comes in counts from one moment to the next.
const UNHEARD: Duration = Duration::from_secs(1);
/// And later: who was away or had just started may have seen more.
const LATER: Duration = Duration::from_secs(10);

/// A vote, as boards show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) struct ShownVote {
    height: u64,
    round: u32,
    kind: ShownKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<Hash32>,
    signature: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ShownKind {
    Prevote,
    Precommit,
}

impl From<SeenVote> for ShownVote {
    fn from(vote: SeenVote) -> Self {
        let SeenVote { kind, height, round, value, signature } = vote;
        let kind = match kind {
            VoteType::Prevote => ShownKind::Prevote,
            VoteType::Precommit => ShownKind::Precommit,
        };
        Self { height, round, kind, value, signature: hex::encode(signature) }
    }
}

impl TryFrom<ShownVote> for SeenVote {
    type Error = anyhow::Error;

    fn try_from(shown: ShownVote) -> anyhow::Result<Self> {
        let ShownVote { height, round, kind, value, signature } = shown;
        ensure!(signature.len() == 128, "a signature has 64 bytes");
        let mut bytes = [0; 64];
        hex::decode_to_slice(signature, &mut bytes)?;
        let kind = match kind {
            ShownKind::Prevote => VoteType::Prevote,
            ShownKind::Precommit => VoteType::Precommit,
        };
        Ok(Self { kind, height, round, value, signature: bytes })
    }
}

impl Peering {
    /// Asks the others what they have seen of this node, as long as it is a member's.
    pub(crate) async fn ask_witnesses(&self) {
        let mut asked: Option<Instant> = None;
        loop {
            match self.pause() {
                Ok(Some(pause)) if asked.is_none_or(|at| at.elapsed() >= pause) => {
                    self.ask_once().await;
                    asked = Some(Instant::now());
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "who is to be asked before this node votes is not known"),
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Between two rounds of questions; `None` where this node is no member's.
    fn pause(&self) -> anyhow::Result<Option<Duration>> {
        let own = &self.own.file.node.domain;
        let members = known_members(&self.node)?;
        let heard = self.node.witnesses();
        let has_answered = |member: &Member| member.domain == *own || heard.contains(&member.domain);
        Ok(if !members.iter().any(|member| member.domain == *own) {
            None
        } else if !self.node.is_witnessed() {
            Some(INTERVAL)
        } else if !members.iter().all(has_answered) {
            Some(UNHEARD)
        } else {
            Some(LATER)
        })
    }

    async fn ask_once(&self) {
        let Notices { cards, proposals, .. } = self.board.notices().await;
        let proposed = proposals.into_iter().filter_map(|proposal| proposal.card);
        let known = known_urls(&self.own.file, proposed.chain(cards));
        let ask = |(member, url): (String, String)| {
            let http = self.http.clone();
            async move { (member, notices(&http, &url).await) }
        };
        let mut asked: tokio::task::JoinSet<_> = known.into_iter().map(ask).collect();
        while let Some(answer) = asked.join_next().await {
            let Ok((member, Ok(Notices { votes: Some(votes), .. }))) = answer else { continue };
            let votes = votes.into_iter().filter_map(|vote| vote.try_into().ok()).collect();
            self.node.witness(Witness { member, votes });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vote_is_shown_and_read_back() {
        for value in [None, Some(Hash32([3; 32]))] {
            let vote = SeenVote { kind: VoteType::Prevote, height: 7, round: 2, value, signature: [9; 64] };
            let text = serde_json::to_string(&ShownVote::from(vote.clone())).unwrap();
            assert_eq!(SeenVote::try_from(serde_json::from_str::<ShownVote>(&text).unwrap()).unwrap(), vote);
        }
        let short =
            ShownVote { height: 1, round: 0, kind: ShownKind::Prevote, value: None, signature: "00".to_owned() };
        assert!(SeenVote::try_from(short).is_err());
    }
}
