//! `chopmark network propose`, `approve` and `proposals`: how members change the consortium. A change
//! counts once a quorum of governance keys has signed exactly it; the ledger checks that again.

use std::{fs, io::Write as _, path::Path, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail, ensure};
use chopmark_node::{Governance, keys};
use ledger_core::{
    Hash32, SigningKey,
    batch::Submission,
    hash::sha3_256,
    member::{Member, MemberSet},
    operation::{MembersSet, Operation, OperationType, PolicySet, V1},
    policy::Policy,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    card::{Invitation, PeerCard},
    peering,
    proposal::{Proposal, Standing},
    public_network,
};
use crate::{
    cli::{NetworkApproveArgs, NetworkProposalsArgs, NetworkProposeArgs, ProposeChange},
    member::{MemberFolder, NodeFile},
    output::{Out, plain, shown},
};

/// Submitter keys of a member after a rotation: the new one and the three before it.
const SUBMITTER_KEYS_KEPT: usize = 4;
/// How long this member's own node may take: it asks others meanwhile.
const OWN_TIMEOUT: Duration = Duration::from_secs(15);
/// A node this far behind the others would not vote on the next block.
const LAG_MAX: u64 = 50;

/// What `/internal/v1/governance` of a node says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct GovernanceView {
    pub(crate) chain: Hash32,
    pub(crate) governance: Governance,
    pub(crate) proposals: Vec<Proposal>,
    /// Domains and read URLs of the nodes that this one knows.
    pub(crate) urls: Vec<(String, String)>,
    pub(crate) v: u64,
}

/// This member's folder and its running node.
struct Own {
    folder: MemberFolder,
    file: NodeFile,
    http: reqwest::Client,
}

impl Own {
    fn open(data: &Path) -> anyhow::Result<Self> {
        let folder = MemberFolder(data.to_owned());
        Ok(Self { file: folder.read()?, folder, http: peering::http()? })
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/internal/v1/{path}", self.file.node.internal)
    }

    async fn ask(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Vec<u8>> {
        let unreachable =
            || format!("this member's node does not answer at {}: start it first", self.file.node.internal);
        let answer = request.timeout(OWN_TIMEOUT).send().await.with_context(unreachable)?;
        let status = answer.status();
        let body = peering::bounded(answer, 4 << 20).await?;
        if status.is_success() {
            return Ok(body);
        }
        let said: Value = serde_json::from_slice(&body).unwrap_or_default();
        bail!("the node refuses: {}", plain(said["title"].as_str().unwrap_or("no reason given")))
    }

    async fn governance(&self) -> anyhow::Result<GovernanceView> {
        let body = self.ask(self.http.get(self.url("governance"))).await?;
        serde_json::from_slice(&body).context("the node's answer cannot be read")
    }

    /// The governance key that stands in the member set in force.
    fn governance_key(&self, members: &MemberSet) -> anyhow::Result<SigningKey> {
        let domain = &self.file.node.domain;
        let member = members.iter().find(|member| member.domain == *domain);
        let member = member.with_context(|| format!("{domain} is not a member in force"))?;
        keys::find(&self.folder.keys(), "governance", &[member.governance_key])?
            .with_context(|| format!("{} holds no governance key of {domain}", self.folder.keys().display()))
    }

    async fn offer(&self, proposal: &Proposal) -> anyhow::Result<Proposal> {
        let body = self.ask(self.http.post(self.url("proposals")).json(proposal)).await?;
        serde_json::from_slice(&body).context("the node's answer cannot be read")
    }

    /// Refuses what would leave fewer nodes at work than the new members need for a quorum.
    async fn keeps_quorum(&self, proposal: &Proposal, view: &GovernanceView) -> anyhow::Result<()> {
        let Some(members) = proposal.members() else { return Ok(()) };
        let mut urls = view.urls.clone();
        urls.extend(proposal.card.iter().map(|card| (card.domain.clone(), card.read_url.clone())));
        let (mut at_work, mut away) = (0, Vec::new());
        for member in &members {
            let own = member.domain == self.file.node.domain;
            let url = urls.iter().find(|(domain, _)| *domain == member.domain).map(|(_, url)| url);
            let height = match url {
                Some(url) => public_network(&self.http, url).await.ok().map(|(height, _)| height),
                None => None,
            };
            if own || height.is_some_and(|height| height + LAG_MAX >= view.governance.height) {
                at_work += 1;
            } else {
                away.push(member.domain.clone());
            }
        }
        ensure!(
            at_work >= members.quorum(),
            "refused: of the {} members that there would be, {at_work} are at work and {} make a quorum, so the network \
             would stand still. Not at work: {}. Start their nodes and let them catch up first",
            members.len(),
            members.quorum(),
            away.join(", ")
        );
        Ok(())
    }
}

fn draw_id() -> anyhow::Result<Hash32> {
    let mut id = [0; 32];
    getrandom::fill(&mut id).context("no randomness")?;
    Ok(Hash32(id))
}

fn members_change(view: &GovernanceView, expires: u64, members: Vec<Member>) -> anyhow::Result<Operation> {
    let members = MemberSet::new(members)?;
    let request = sha3_256(&serde_json::to_vec(&members)?);
    Ok(Operation::MembersSet(Box::new(MembersSet {
        chain: view.chain,
        expires,
        members,
        op: draw_id()?,
        replaces: view.governance.members.hash(),
        request,
        kind: OperationType::MembersSet,
        v: V1,
    })))
}

/// Reads a file that is to be `what`.
fn read_json<T: for<'de> Deserialize<'de>>(path: &Path, what: &str) -> anyhow::Result<T> {
    let bytes = fs::read(path).with_context(|| format!("read {}", shown(path)))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is not {what}", shown(path)))
}

fn read_invitation(path: &Path) -> anyhow::Result<Invitation> {
    read_json(path, "an invitation: the file invitation.json that `chopmark network join` has written is expected")
}

/// The change that was asked for, and how the node of a new member is met.
fn change(
    own: &Own,
    args: &NetworkProposeArgs,
    view: &GovernanceView,
) -> anyhow::Result<(Operation, Option<PeerCard>)> {
    let expires = view.governance.height + args.expires_in;
    let mut members: Vec<Member> = view.governance.members.iter().cloned().collect();
    match &args.change {
        ProposeChange::Add { invitation } => {
            let Invitation { card, member, .. } = read_invitation(invitation)?;
            ensure!(card.chain == view.chain, "{} is for another network", shown(invitation));
            ensure!(card.is_of(&view.chain, &member), "{} is not signed by its own member", shown(invitation));
            ensure!(members.iter().all(|known| known.domain != member.domain), "{} is a member already", member.domain);
            members.push(member);
            members.sort_by(|a, b| a.domain.cmp(&b.domain));
            Ok((members_change(view, expires, members)?, Some(card)))
        }
        ProposeChange::Remove { domain } => {
            let before = members.len();
            members.retain(|member| member.domain != *domain);
            ensure!(members.len() < before, "{} is no member in force", plain(domain));
            Ok((members_change(view, expires, members)?, None))
        }
        ProposeChange::RotateKeys => {
            let domain = &own.file.node.domain;
            let member = members.iter_mut().find(|member| member.domain == *domain);
            let member = member.with_context(|| format!("{domain} is not a member in force"))?;
            let drawn = keys::public_member(&keys::rotate(&own.folder.keys())?, domain)?;
            // Committers go on with the keys that they have until they are given the new one.
            let submitter_keys = drawn.submitter_keys.iter().chain(&member.submitter_keys).copied();
            let submitter_keys = submitter_keys.take(SUBMITTER_KEYS_KEPT).collect();
            *member = Member { submitter_keys, ..drawn };
            Ok((members_change(view, expires, members)?, None))
        }
        ProposeChange::SetPolicy { file } => {
            let policy: Policy = read_json(file, "a policy as JSON")?;
            let version = view.governance.policy.version + 1;
            ensure!(policy.version == version, "{}: version: the next one is {version}", shown(file));
            ensure!(policy.is_valid(), "{}: its parameters contradict each other", shown(file));
            let request = sha3_256(&serde_json::to_vec(&policy)?);
            let replaces = view.governance.policy_hash;
            let (chain, op, kind) = (view.chain, draw_id()?, OperationType::PolicySet);
            let change = PolicySet { chain, expires, op, policy, replaces, request, kind, v: V1 };
            Ok((Operation::PolicySet(Box::new(change)), None))
        }
    }
}

pub(crate) async fn propose(args: &NetworkProposeArgs, out: &mut Out) -> anyhow::Result<ExitCode> {
    let own = Own::open(&args.data)?;
    let view = own.governance().await?;
    ensure!(view.governance.pending.is_none(), "a change of members is on its way already: wait until it is in force");
    let key = own.governance_key(&view.governance.members)?;
    let (operation, card) = change(&own, args, &view)?;
    let mut proposal = Proposal::new(&operation, card)?;
    own.keeps_quorum(&proposal, &view).await?;
    proposal.approve(&view.chain, &key);
    let kept = own.offer(&proposal).await?;
    writeln!(out, "proposal {}", kept.id())?;
    decide(&own, &view, &kept, out).await
}

pub(crate) async fn approve(args: &NetworkApproveArgs, out: &mut Out) -> anyhow::Result<ExitCode> {
    let own = Own::open(&args.data)?;
    let view = own.governance().await?;
    let found = view.proposals.iter().find(|proposal| proposal.id() == args.id);
    let Some(proposal) = found else {
        bail!("no proposal {} waits here; one that was made elsewhere arrives within seconds", args.id);
    };
    let key = own.governance_key(&view.governance.members)?;
    for member in proposal.rekeyed(&view.governance) {
        ensure!(
            proposal.approvals.iter().any(|approval| approval.key == member.governance_key),
            "refused: it would give {} other keys, and {} itself has not approved it",
            member.domain,
            member.domain
        );
    }
    own.keeps_quorum(proposal, &view).await?;
    let mut proposal = proposal.clone();
    proposal.approve(&view.chain, &key);
    let kept = own.offer(&proposal).await?;
    decide(&own, &view, &kept, out).await
}

/// Says where a proposal stands, and submits it once a quorum has approved.
async fn decide(own: &Own, view: &GovernanceView, proposal: &Proposal, out: &mut Out) -> anyhow::Result<ExitCode> {
    let Standing::Open { approved_by, quorum } = proposal.standing(&view.governance)? else {
        bail!("the proposal has ended meanwhile");
    };
    tell(proposal, &view.governance, out)?;
    if approved_by.len() < quorum {
        let id = proposal.id();
        writeln!(out, "It waits for {} more: chopmark network approve {id} --data DIR", quorum - approved_by.len())?;
        out.flush()?;
        return Ok(ExitCode::SUCCESS);
    }
    let submitters: Vec<Hash32> =
        view.governance.members.iter().flat_map(|member| member.submitter_keys.iter().copied()).collect();
    let submitter = keys::find(&own.folder.keys(), "submitter", &submitters)?;
    let submitter = submitter.context("no submitter key of this member stands in the member set")?;
    let submission = Submission::sign(&view.chain, &submitter, vec![proposal.signed()]);
    let request = own.http.post(own.url("submissions")).body(submission.encode());
    let again = || format!("it may be committed or not; to try again: chopmark network approve {}", proposal.id());
    let body = own.ask(request).await.with_context(again)?;
    let ended: Value = serde_json::from_slice(&body).context("the node's answer cannot be read")?;
    match (ended[0]["index"].as_u64(), ended[0]["code"].as_str()) {
        (Some(index), _) => writeln!(out, "committed as entry {index}; members change two heights later")?,
        (None, code) => bail!("the ledger rejects it: {}", plain(code.unwrap_or("no code"))),
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn tell(proposal: &Proposal, governance: &Governance, out: &mut Out) -> anyhow::Result<()> {
    for line in proposal.differences(governance)? {
        writeln!(out, "  {}", plain(&line))?;
    }
    if let Standing::Open { approved_by, quorum } = proposal.standing(governance)? {
        writeln!(out, "  approved by {} of {quorum}: {}", approved_by.len(), approved_by.join(", "))?;
        if approved_by.len() >= quorum {
            writeln!(out, "  that is a quorum; any of them commits it by approving again")?;
        }
    }
    Ok(())
}

pub(crate) async fn proposals(args: &NetworkProposalsArgs, out: &mut Out) -> anyhow::Result<ExitCode> {
    let view = Own::open(&args.data)?.governance().await?;
    for proposal in &view.proposals {
        let id = proposal.id();
        if args.json {
            let standing = match proposal.standing(&view.governance)? {
                Standing::Open { approved_by, quorum } => {
                    serde_json::json!({ "state": "open", "approved_by": approved_by, "quorum": quorum })
                }
                Standing::Expired => serde_json::json!({ "state": "expired" }),
                Standing::Overtaken => serde_json::json!({ "state": "overtaken" }),
            };
            let differences = proposal.differences(&view.governance)?;
            out.json(&serde_json::json!({ "v": 1, "id": id, "standing": standing, "differences": differences }))?;
        } else {
            writeln!(out, "proposal {id}")?;
            tell(proposal, &view.governance, out)?;
        }
    }
    if view.proposals.is_empty() && !args.json {
        writeln!(out, "No change waits for approvals.")?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_than_an_invitation_is_named_with_what_is_expected() {
        let path = std::env::temp_dir().join(format!("chopmark-invitation-{}", std::process::id()));
        fs::write(&path, "[node]\ndomain = \"court.test\"\n").unwrap();
        let refused = format!("{:#}", read_invitation(&path).unwrap_err());
        fs::remove_file(&path).unwrap();
        assert!(refused.contains("is not an invitation") && refused.contains("network join"), "{refused}");
        assert!(refused.starts_with(&shown(&path)), "{refused}");
    }
}
