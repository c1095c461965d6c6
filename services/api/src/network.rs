//! The network and the health of this deployment, as anyone may read them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::digest::Hash32;
use crate::ledger::CheckpointView;

/// The network that this deployment serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkView {
    #[schema(example = "sandbox")]
    pub network: String,
    /// SHA3-256 of the genesis.
    pub chain_id: Hash32,
    /// The first line of every checkpoint.
    #[schema(example = "sandbox.chopmark.example/log")]
    pub origin: String,
    /// Version of the ledger's rules now in force.
    #[schema(example = 1)]
    pub protocol: u64,
    /// Height of the last block.
    #[schema(example = 42)]
    pub height: u64,
    /// The newest checkpoint with a quorum of cosignatures.
    pub checkpoint: CheckpointView,
    pub members: Vec<MemberView>,
    /// Cosignatures that make a quorum.
    #[schema(example = 3)]
    pub quorum: u32,
    /// SHA-256 of the policy file now in force.
    pub policy_sha256: Hash32,
    /// Every policy file so far, by the tree size from which it holds; each holds up to the next one's.
    pub policies: Vec<PolicyRef>,
    pub links: NetworkLinks,
}

/// One member of the consortium.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemberView {
    #[schema(example = "court.example")]
    pub name: String,
    /// Signed-note verifier keys.
    #[schema(example = "sandbox.chopmark.example/log+1a2b3c4d+AX…")]
    pub log_key: String,
    #[schema(example = "court.example/witness+1a2b3c4d+BH…")]
    pub cosigner_key: String,
    /// Signs "not found" statements; never part of the policy.
    /// Absent where this server's node does not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "court.example/statement+1a2b3c4d+AX…")]
    pub statement_key: Option<String>,
}

/// A policy file of the network; `/log/policies/{first_size}` serves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyRef {
    /// The first tree size that it is for.
    #[schema(example = 1)]
    pub first_size: u64,
    /// SHA-256 of the file.
    pub sha256: Hash32,
}

/// Where the log is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkLinks {
    #[schema(example = "/log/checkpoint")]
    pub checkpoint: String,
    #[schema(example = "/log/policy")]
    pub policy: String,
}

/// Whether this server is live or ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthView {
    pub status: HealthStatus,
    /// The parts that were looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<HealthCheck>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    Ok,
    /// Some requests are served, others answer 503.
    Degraded,
    Unavailable,
}

/// One part of the service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthCheck {
    #[schema(example = "queue")]
    pub name: String,
    pub status: HealthStatus,
    /// The problem code that requests meet meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "queue_unavailable")]
    pub code: Option<String>,
}
