//! Operations: what came, or will come, of one requested change.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::OperationId;
use crate::lang::{Lang, Text};
use crate::problem::{Fault, ProblemCode};
use crate::time::Timestamp;
use crate::warning::Warning;

/// The only states that users see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// Durable in the queue.
    Accepted,
    /// In a block, under a checkpoint that a quorum cosigned; the proof exists.
    Committed,
    /// Final; the rejection says why.
    Rejected,
}

impl OperationState {
    pub const NAMES: &[&str] = &["accepted", "committed", "rejected"];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            OperationState::Accepted => "accepted",
            OperationState::Committed => "committed",
            OperationState::Rejected => "rejected",
        }
    }

    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [OperationState::Accepted, OperationState::Committed, OperationState::Rejected]
            .into_iter()
            .find(|state| state.as_str() == name)
    }
}

/// An operation, as other answers refer to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperationRef {
    pub id: OperationId,
    pub state: OperationState,
    /// Where to ask for its state.
    #[schema(example = "/v1/operations/opn_aebagbafaydqqcikbmga2dqpcaireeyuculboga")]
    pub href: String,
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperationView {
    pub id: OperationId,
    pub state: OperationState,
    /// What it makes or changes, as soon as that is on record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub resource: Option<ResourceRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub created_at: Option<Timestamp>,
    /// Why, where the state is `rejected`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub rejection: Option<Rejection>,
    #[serde(default)]
    pub warnings: Vec<Warning>,
}

/// What an operation makes or changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResourceRef {
    #[serde(rename = "type")]
    pub kind: ResourceType,
    #[schema(example = "evd_aebagbafaydqqcikbmga2dqpcaireeyuculboga")]
    pub id: String,
    pub href: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResourceType {
    Evidence,
    Case,
}

/// How an operation ended that did not become an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rejection {
    /// The cause, as the ledger recorded it; `/errors/<code>` explains it.
    #[schema(example = "evidence_unknown")]
    pub code: Cow<'static, str>,
    /// The cause in words, in the caller's language.
    pub reason: String,
}

/// The reason given for a code that a newer ledger knows and this table does not.
const REASON_UNKNOWN: Text = Text::new(
    "The ledger rejected the operation for a cause that this gateway does not know yet.",
    "账本拒绝了该操作，其原因码尚不为本网关所知。",
);

impl Rejection {
    /// Of a code that the ledger recorded.
    #[must_use]
    pub fn of(code: &str, lang: Lang) -> Self {
        match ProblemCode::from_code(code) {
            Some(known) => Self { code: known.as_str().into(), reason: Fault::new(known).detail(lang) },
            None => Self { code: code.to_owned().into(), reason: lang.pick(REASON_UNKNOWN).to_owned() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_one_name() {
        for name in OperationState::NAMES {
            let state = OperationState::from_name(name).expect("a state");
            assert_eq!(serde_json::to_value(state).expect("text"), *name);
        }
        assert_eq!(OperationState::from_name("Accepted"), None);
    }

    #[test]
    fn every_ledger_code_has_its_reason() {
        for code in [
            "tenant_unknown",
            "tenant_suspended",
            "case_unknown",
            "evidence_unknown",
            "digest_known",
            "redigest_mismatch",
            "approval_insufficient",
            "approval_expired",
            "state_replaced",
            "quorum_lost",
            "operation_expired",
            "idempotency_conflict",
            "evidence_in_case",
            "change_pending",
            "tenant_signature_missing",
            "policy_version",
        ] {
            let rejection = Rejection::of(code, Lang::Zh);
            assert_eq!(rejection.code, code);
            assert_ne!(rejection.reason, REASON_UNKNOWN.zh);
        }
        assert_eq!(Rejection::of("from_the_future", Lang::En).reason, REASON_UNKNOWN.en);
    }
}
