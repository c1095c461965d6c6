//! A member's folder: keys, genesis and configuration of one node.

use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::{Context as _, bail};
use chopmark_node::{ClockMs, Layout, Peer};
use ledger_core::{
    Hash32,
    genesis::{Genesis, Network},
};
use serde::{Deserialize, Serialize};

use crate::system;

/// `node.toml`: how a member's node is run and where it meets the others. Nothing in it is secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeFile {
    pub(crate) node: NodeSection,
    #[serde(default, rename = "peer")]
    pub(crate) peers: Vec<PeerSection>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) faults: Option<FaultsSection>,
}

/// Faults to rehearse; only on a sandbox network.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FaultsSection {
    /// Added to the machine's clock.
    #[serde(default)]
    pub(crate) clock_offset_ms: i64,
}

/// This node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeSection {
    /// The member.
    pub(crate) domain: String,
    /// Where it listens for the other members' nodes.
    pub(crate) listen: SocketAddr,
    /// Where anybody may read.
    pub(crate) read: SocketAddr,
    /// Where the member's own committers submit; not for the public.
    pub(crate) internal: SocketAddr,
    /// Metrics and health; not for the public.
    pub(crate) metrics: SocketAddr,
    /// What this node has signed; relative to the folder, and outside of it.
    pub(crate) guard: PathBuf,
    /// Where the others reach `listen`, if that is another address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) advertised: Option<SocketAddr>,
    /// Where the others reach `read`, if that is another address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) read_url: Option<String>,
    /// Read URLs of nodes to follow, before this node knows any member's.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) sources: Vec<String>,
    /// Follows and serves, and never asks to be a member.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub(crate) observer: bool,
}

/// Another member's node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PeerSection {
    pub(crate) domain: String,
    pub(crate) address: SocketAddr,
    /// Public half of its network key.
    pub(crate) network_key: Hash32,
    /// Where it serves readers.
    pub(crate) read_url: String,
}

/// A member's folder.
#[derive(Debug, Clone)]
pub(crate) struct MemberFolder(pub(crate) PathBuf);

impl MemberFolder {
    pub(crate) fn keys(&self) -> PathBuf {
        self.0.join("keys")
    }

    pub(crate) fn node(&self) -> PathBuf {
        self.0.join("node")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.0.join("node.toml")
    }

    /// What a new member hands to one that is in.
    pub(crate) fn invitation(&self) -> PathBuf {
        self.0.join("invitation.json")
    }

    pub(crate) fn read(&self) -> anyhow::Result<NodeFile> {
        let path = self.config();
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is not a node's configuration", path.display()))
    }

    /// The clock that the configuration asks for: the machine's, or one that is off for a rehearsal.
    pub(crate) fn clock(&self, file: &NodeFile) -> anyhow::Result<ClockMs> {
        let Some(faults) = file.faults else { return Ok(Arc::new(system::now_ms)) };
        let path = Layout(self.node()).genesis();
        let genesis = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        if Genesis::parse(&genesis)?.network != Network::Sandbox {
            bail!(
                "{} has a table [faults]: faults are rehearsed on sandbox networks only, and this one is live. \
                 Remove the table",
                self.config().display()
            );
        }
        tracing::warn!(?faults, "this node rehearses faults");
        Ok(faults.clock())
    }

    /// The guard as the configuration names it.
    pub(crate) fn guard(&self, file: &NodeFile) -> anyhow::Result<PathBuf> {
        let guard = self.0.join(&file.node.guard);
        let node = std::path::absolute(self.node()).context("find the node's folder")?;
        if std::path::absolute(&guard).context("find the guard")?.starts_with(&node) {
            bail!("guard in {} lies in the data that it guards: keep it elsewhere", self.config().display());
        }
        Ok(guard)
    }
}

impl FaultsSection {
    /// The clock of a node that rehearses these faults.
    pub(crate) fn clock(self) -> ClockMs {
        Arc::new(move || system::now_ms().saturating_add_signed(self.clock_offset_ms))
    }
}

impl PeerSection {
    pub(crate) fn peer(&self) -> Peer {
        Peer { domain: self.domain.clone(), address: self.address, network_key: self.network_key }
    }
}
