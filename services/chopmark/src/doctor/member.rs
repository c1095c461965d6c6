//! A member's folder: whether its node votes, or could with the keys that it has.

use std::path::Path;

use chopmark_node::keys::NodeKeys;

use super::Check;
use crate::{
    member::{MemberFolder, NodeFile},
    network::{NodeStatus, own_status, peering},
    node::read_genesis,
    output::shown,
};

const NAME: &str = "node";
const FIX: &str = "restore the key files that the members know (keys/, from where they are kept); if they are lost, \
                   the other members remove this one and it joins again: docs/runbooks/members.md";

/// Nothing where the folder is no member's.
pub(super) async fn look(data: &Path) -> Option<Check> {
    let folder = MemberFolder(data.to_owned());
    if !folder.config().exists() {
        return None;
    }
    let file = match folder.read() {
        Ok(file) => file,
        Err(error) => return Some(Check::fail(NAME, format!("{error:#}"), "repair the file")),
    };
    let http = match peering::http() {
        Ok(http) => http,
        Err(error) => return Some(Check::fail(NAME, format!("{error:#}"), "look at the limits below")),
    };
    Some(match own_status(&http, &file).await {
        Ok(status) => running(&file, &status),
        Err(error) => {
            tracing::debug!(%error, "the node does not answer");
            stopped(&folder, &file)
        }
    })
}

fn running(file: &NodeFile, status: &NodeStatus) -> Check {
    let domain = &file.node.domain;
    if let Some(failure) = &status.failure {
        return Check::fail(NAME, format!("{domain} has stopped: {failure}"), "look at its log, and start it again");
    }
    let Some(reason) = &status.no_vote else {
        return Check::ok(NAME, format!("{domain} votes, height {}", status.height));
    };
    if status.members.contains(domain) {
        return Check::fail(NAME, format!("{domain} does not vote: {reason}"), FIX);
    }
    if file.node.observer {
        return Check::ok(NAME, format!("{domain} observes, height {}", status.height));
    }
    let fix = "let the members approve it: docs/runbooks/members.md";
    Check::warn(NAME, format!("{domain} does not vote: {reason}"), fix)
}

/// The members in force are seen by a node that runs; the genesis names those of the beginning.
fn stopped(folder: &MemberFolder, file: &NodeFile) -> Check {
    let domain = &file.node.domain;
    let keys = match NodeKeys::load(&folder.keys()) {
        Ok(keys) => keys,
        Err(error) => return Check::fail(NAME, format!("{domain} is not running, and could not: {error}"), FIX),
    };
    let genesis = match read_genesis(folder) {
        Ok(genesis) => genesis,
        Err(error) => {
            return Check::fail(NAME, format!("{error:#}"), "restore the node's data: docs/runbooks/members.md");
        }
    };
    let born = genesis.members.iter().find(|member| member.domain == *domain);
    let unknown = born.map(|member| keys.unknown_to(member)).unwrap_or_default();
    let start = format!("chopmark node --data {}", shown(&folder.0));
    if unknown.is_empty() {
        return Check::ok(NAME, format!("{domain} is not running: {start}"));
    }
    let detail = format!(
        "{domain} is not running, and the genesis has other keys under its domain ({}): it will not vote unless the \
         members have changed its keys since",
        unknown.join(", ")
    );
    Check::warn(NAME, detail, format!("start it and look again; {FIX}"))
}
