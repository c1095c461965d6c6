//! The genesis: what a network is born with, and whose hash is its chain id.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    entry::{ENTRY_BYTES_MAX, genesis_entries},
    hash::{Hash32, tagged},
    json::{JsonError, from_canonical, to_canonical},
    member::{MemberSet, is_domain},
    operation::{V1, integer53},
    policy::Policy,
};

/// Which kind of ledger this is; a node of one refuses the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// For tests: `clock.advance` is allowed, providers answer magic values.
    Sandbox,
    /// Production.
    Live,
}

impl Network {
    /// The name in keys, topics, columns and metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sandbox => "sandbox",
            Self::Live => "live",
        }
    }
}

/// The genesis document, canonical JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// The first members.
    pub members: MemberSet,
    /// Sandbox or live.
    pub network: Network,
    /// `<network-domain>/log`.
    pub origin: String,
    /// The first policy.
    pub policy: Policy,
    /// Unix ms.
    #[serde(deserialize_with = "integer53")]
    pub time: u64,
    /// Format version.
    pub v: V1,
}

/// Why a genesis is refused.
#[derive(Debug, Error)]
pub enum GenesisError {
    /// Not the canonical form.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// Origin is not `<domain>/log`.
    #[error("origin is not <network-domain>/log")]
    Origin,
    /// The policy contradicts itself.
    #[error("policy is not valid")]
    Policy,
    /// The member list does not fit into one entry.
    #[error("genesis does not fit into an entry of {ENTRY_BYTES_MAX} bytes")]
    Size,
}

impl Genesis {
    /// Reads and checks canonical bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, GenesisError> {
        let genesis: Self = from_canonical(bytes)?;
        if !genesis.origin.strip_suffix("/log").is_some_and(is_domain) {
            return Err(GenesisError::Origin);
        }
        if !genesis.policy.is_valid() {
            return Err(GenesisError::Policy);
        }
        if genesis_entries(&genesis).iter().any(|entry| entry.len() > ENTRY_BYTES_MAX) {
            return Err(GenesisError::Size);
        }
        Ok(genesis)
    }

    /// Canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        to_canonical(self)
    }

    /// Chain id: SHA3-256 of the genesis.
    #[must_use]
    pub fn chain_id(&self) -> Hash32 {
        tagged("chopmark/genesis/v1", &[&self.encode()])
    }
}
