//! Cases: ordered chains of evidence, each link naming the previous.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::digest::Hash32;
use crate::ids::{CaseId, EvidenceId};
use crate::ledger::EntryRef;
use crate::limits::{self, EXTERNAL_ID_CHARS_MAX, TITLE_CHARS_MAX};
use crate::operation::{OperationRef, OperationState};
use crate::request::{Shape, request};
use crate::signature::SubmitterSignatureView;
use crate::time::Timestamp;
use crate::warning::Warning;

request! {
    /// A case to be opened.
    #[derive(Default)]
    pub struct CaseRequest {
        required {}
        optional {
            /// A name for people; never on the ledger.
            #[schema(max_length = 256, example = "Tenancy dispute, flat 12")]
            "title" title: String = Shape::Text(limits::line::<TITLE_CHARS_MAX>);
            /// Your own identifier; never on the ledger.
            #[schema(max_length = 128, example = "2026-0419")]
            "external_id" external_id: String = Shape::Text(limits::line::<EXTERNAL_ID_CHARS_MAX>);
        }
    }
}

request! {
    /// A piece of evidence to be appended to a case. The ledger assigns its
    /// position and its predecessor.
    pub struct CaseAppendRequest {
        required {
            /// Evidence of your own that is committed.
            "evidence_id" evidence_id: EvidenceId = Shape::Text(limits::evidence_id), else FieldMissing;
        }
        optional {}
    }
}

/// The answer to a case that was accepted (202).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CaseAccepted {
    pub id: CaseId,
    pub operation: OperationRef,
    pub warnings: Vec<Warning>,
}

/// The answer to an append that was accepted (202).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CaseAppendAccepted {
    pub case_id: CaseId,
    pub evidence_id: EvidenceId,
    pub operation: OperationRef,
    pub warnings: Vec<Warning>,
}

/// One case, as its owner reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CaseView {
    pub id: CaseId,
    pub state: OperationState,
    pub operation: OperationRef,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "Tenancy dispute, flat 12")]
    pub title: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "2026-0419")]
    pub external_id: Option<String>,
    /// What the request that opened the case was signed with, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub signature: Option<Box<SubmitterSignatureView>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub created_at: Option<Timestamp>,
    /// The entry that opened the case, once committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub entry: Option<EntryRef>,
    /// The committed links from the position asked for on, in order.
    pub items: Vec<CaseItem>,
    /// Where the next page begins, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next_cursor: Option<String>,
}

/// One link of a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CaseItem {
    /// From one on.
    #[schema(example = 1)]
    pub position: u64,
    pub evidence_id: EvidenceId,
    /// The link's own entry.
    pub entry_id: Hash32,
    #[schema(example = 4713)]
    pub index: u64,
    /// The entry before it in this case; for the first link, the one that opened it.
    pub previous: Hash32,
    /// Block time of the link.
    pub time: Timestamp,
}
