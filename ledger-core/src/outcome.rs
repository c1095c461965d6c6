//! Outcomes: how every operation ends, once and for ever.

use serde::{Deserialize, Serialize};

use crate::{
    codec::Writer,
    hash::Hash32,
    json::to_canonical,
    merkle::{Frontier, leaf_hash},
    operation::V1,
};

/// Why the ledger rejected an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectionCode {
    /// Fewer approvals than the change needs.
    ApprovalInsufficient,
    /// The change's expiry height has passed.
    ApprovalExpired,
    /// The case does not exist for this tenant.
    CaseUnknown,
    /// Another change of the member set is under way.
    ChangePending,
    /// The evidence is a link of this case already.
    EvidenceInCase,
    /// The evidence does not exist for this tenant.
    EvidenceUnknown,
    /// The state to be replaced is not the current one.
    StateReplaced,
    /// The tenant's registered key did not sign.
    TenantSignatureMissing,
    /// The tenant is suspended.
    TenantSuspended,
    /// The tenant is not on this ledger.
    TenantUnknown,
    /// The policy version does not follow the current one.
    PolicyVersion,
}

impl RejectionCode {
    /// Every code with its stable number in state values and blocks.
    pub const NUMBERS: [(Self, u8); 11] = [
        (Self::ApprovalInsufficient, 1),
        (Self::ApprovalExpired, 2),
        (Self::CaseUnknown, 3),
        (Self::ChangePending, 4),
        (Self::EvidenceInCase, 5),
        (Self::EvidenceUnknown, 6),
        (Self::StateReplaced, 7),
        (Self::TenantSignatureMissing, 8),
        (Self::TenantSuspended, 9),
        (Self::TenantUnknown, 10),
        (Self::PolicyVersion, 11),
    ];

    /// Stable number.
    #[must_use]
    pub fn number(self) -> u8 {
        Self::NUMBERS.iter().find(|(code, _)| *code == self).map_or(0, |(_, number)| *number)
    }

    /// Code of a number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::NUMBERS.iter().find(|(_, known)| *known == number).map(|(code, _)| *code)
    }

    /// The code as the API shows it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ApprovalInsufficient => "approval_insufficient",
            Self::ApprovalExpired => "approval_expired",
            Self::CaseUnknown => "case_unknown",
            Self::ChangePending => "change_pending",
            Self::EvidenceInCase => "evidence_in_case",
            Self::EvidenceUnknown => "evidence_unknown",
            Self::StateReplaced => "state_replaced",
            Self::TenantSignatureMissing => "tenant_signature_missing",
            Self::TenantSuspended => "tenant_suspended",
            Self::TenantUnknown => "tenant_unknown",
            Self::PolicyVersion => "policy_version",
        }
    }
}

/// Entry or rejection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It became this entry.
    Committed {
        /// Leaf index.
        index: u64,
        /// Entry id.
        entry: Hash32,
    },
    /// It was refused.
    Rejected(RejectionCode),
}

/// The outcome of one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Operation id.
    pub op: Hash32,
    /// Keyed digest of the request that got this outcome.
    pub request: Hash32,
    /// Entry or rejection.
    pub verdict: Verdict,
}

impl Outcome {
    /// Canonical JSON: the receipt of a rejection.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Committed {
            entry: Hash32,
            index: u64,
            op: Hash32,
            request: Hash32,
            v: V1,
        }
        #[derive(Serialize)]
        struct Rejected {
            code: RejectionCode,
            op: Hash32,
            request: Hash32,
            v: V1,
        }
        let (op, request) = (self.op, self.request);
        match self.verdict {
            Verdict::Committed { index, entry } => to_canonical(&Committed { entry, index, op, request, v: V1 }),
            Verdict::Rejected(code) => to_canonical(&Rejected { code, op, request, v: V1 }),
        }
    }

    /// Leaf data in the outcomes tree.
    #[must_use]
    pub fn leaf(&self) -> Vec<u8> {
        let mut writer = Writer::with_domain("chopmark/outcome/v1");
        writer.bytes(&self.encode());
        writer.finish()
    }
}

/// Root of the outcomes tree of one block (RFC 9162 over [`Outcome::leaf`]).
#[must_use]
pub fn outcomes_root(outcomes: &[Outcome]) -> Hash32 {
    let mut tree = Frontier::new();
    for outcome in outcomes {
        tree.push(leaf_hash(&outcome.leaf()));
    }
    tree.root()
}
