//! The nodes that are asked and submitted to.

use std::{collections::BTreeMap, time::Duration};

use ledger_core::{genesis::Genesis, member};
use tokio::task::JoinSet;

use super::{Fault, Findings, clock::Asked};
use crate::{
    cli::DoctorRole,
    config::Configured,
    network::{LAG_MAX, NodeStatus, peering, status_at},
};

/// The client's own bounds are shorter.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn look(configured: &Configured, role: DoctorRole, genesis: Option<&Genesis>) -> Findings {
    let mut findings = Findings::default();
    let (false, Some(genesis), Ok(urls)) = (role == DoctorRole::Courier, genesis, configured.nodes()) else {
        return findings;
    };
    let about = format!("{}.nodes", configured.ledger_table);
    let http = match peering::http() {
        Ok(http) => http,
        Err(error) => return Findings::of(Fault::NodeUnreachable, &about, format!("{error:#}")),
    };
    let mut asked = JoinSet::new();
    for url in &urls {
        let (http, url) = (http.clone(), url.clone());
        asked.spawn(async move {
            let answer = ask(&http, &url).await;
            (url, answer)
        });
    }
    // In the order of the file, whoever answers first.
    let answers: BTreeMap<String, _> = asked.join_all().await.into_iter().collect();
    let mut seen: Vec<(&String, &NodeStatus)> = Vec::new();
    for url in &urls {
        match answers.get(url) {
            Some(Ok((status, skew))) if status.chain == genesis.chain_id() => {
                seen.push((url, status));
                skew.iter().for_each(|detail| findings.add(Fault::ClockSkew, url, detail));
            }
            Some(Ok((status, _))) => {
                let detail = format!("its chain is {}, the genesis' {}", status.chain, genesis.chain_id());
                findings.add(Fault::NodeOtherChain, url, detail);
            }
            Some(Err((fault, reason))) => findings.add(*fault, url, reason),
            None => {}
        }
    }
    let tip = seen.iter().map(|(_, status)| status.height).max().unwrap_or_default();
    seen.iter().for_each(|(url, status)| one(url, status, tip, &mut findings));
    together(&seen, urls.len(), genesis, &about, &mut findings);
    findings
}

/// Its status, and what is to be said of its clock.
async fn ask(http: &reqwest::Client, url: &str) -> Result<(NodeStatus, Option<String>), (Fault, String)> {
    let asked = Asked::now();
    let Ok(answer) = tokio::time::timeout(ANSWER_TIMEOUT, status_at(http, url)).await else {
        return Err((Fault::NodeHangs, "no answer in time".to_owned()));
    };
    let status = answer.map_err(|error| {
        let fault = if error.is_connect() {
            Fault::NodeUnreachable
        } else if error.is_timeout() {
            Fault::NodeHangs
        } else {
            Fault::NodeOtherProtocol
        };
        (fault, format!("{:#}", anyhow::Error::new(error.without_url())))
    })?;
    let skew = status.time_ms.and_then(|theirs| asked.compare(url, theirs).0.pop()).map(|finding| finding.detail);
    Ok((status, skew))
}

fn one(url: &str, status: &NodeStatus, tip: u64, findings: &mut Findings) {
    let member = &status.member;
    if let Some(failure) = &status.failure {
        findings.add(Fault::NodeStopped, url, format!("{member}: {failure}"));
    }
    // An observer is no member, and votes never.
    if let Some(reason) = status.no_vote.as_ref().filter(|_| status.members.contains(member)) {
        findings.add(Fault::NodeNotVoting, url, format!("{member}: {reason}"));
    }
    let lag = tip.saturating_sub(status.height);
    if lag > LAG_MAX {
        findings.add(Fault::NodeBehind, url, format!("{member} is {lag} blocks behind"));
    }
    if status.damaged > 0 {
        findings.add(Fault::NodeDamaged, url, format!("{member}: {} parts", status.damaged));
    }
    if status.equivocations > 0 {
        findings.add(Fault::NodeEquivocations, url, format!("{member} has seen {}", status.equivocations));
    }
    let own = env!("CARGO_PKG_VERSION");
    if let Some(theirs) = status.version.as_deref().filter(|theirs| *theirs != own) {
        findings.add(Fault::NodeVersion, url, format!("{member} runs {theirs}, this is {own}"));
    }
}

/// What shows only when all are looked at. Who names fewer nodes than a quorum cannot see whether there is one.
fn together(seen: &[(&String, &NodeStatus)], named: usize, genesis: &Genesis, about: &str, findings: &mut Findings) {
    let mut by_member: BTreeMap<&str, &str> = BTreeMap::new();
    for (url, status) in seen {
        if let Some(first) = by_member.insert(&status.member, url) {
            findings.add(Fault::NodeRepeated, url, format!("{} answers at {first} too", status.member));
        }
    }
    let members = seen.iter().max_by_key(|(_, status)| status.height).map(|(_, status)| &status.members);
    let quorum = member::quorum(members.map_or(genesis.members.len(), Vec::len));
    let counts = |member: &str| members.is_none_or(|members| members.iter().any(|known| known == member));
    let there = by_member.keys().filter(|member| counts(member)).count();
    if named >= quorum && there < quorum {
        findings.add(Fault::NodesBelowQuorum, about, format!("{there} answer, {quorum} decide"));
    }
}
