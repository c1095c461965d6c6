//! Notarizing: from a parsed request to an accepted operation, single, in batches, and for files
//! whose digests we compute.

use std::{fmt::Display, sync::Arc, time::Duration};

use chopmark_api::{
    Problem, ProblemCode,
    evidence::{EvidenceBatchItem, EvidenceRequest, Provenance},
    limits::MEDIA_TYPE_CHARS_MAX,
    problem::Fault,
    warning::WarningCode,
};
use ledger_core::operation::is_media_type;

use crate::{
    accept::{Accepted, Acceptor, Answer, Body, Draft, conflict},
    access::Caller,
    id::IdIssuer,
    ports::{OperationStore, OriginalStore},
    record::{OperationRow, OperationState},
    signature::{RequestSignature, Submitted},
    waiting::CommitWatch,
};

/// What travels with every write.
#[derive(Debug, Clone, Copy)]
pub struct Write<'a> {
    /// Who writes.
    pub caller: &'a Caller,
    /// W3C `traceparent`, or empty.
    pub trace: &'a str,
    /// What the request is signed with, if it is.
    pub signature: Option<&'a Arc<RequestSignature>>,
}

impl Write<'_> {
    /// The signature of a draft: of a batch, which item it is of how many.
    pub(crate) fn submitted(&self, item: Option<(usize, usize)>) -> Option<Submitted> {
        self.signature.map(|request| Submitted { request: Arc::clone(request), item })
    }
}

/// Accepted evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notarized {
    /// The operation.
    pub accepted: Accepted,
    /// What is allowed but worth a second thought.
    pub warnings: Vec<WarningCode>,
}

/// What came of one item of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchAnswer {
    /// The operation, or why there is none.
    pub answer: Answer,
    /// What is allowed but worth a second thought.
    pub warnings: Vec<WarningCode>,
}

/// The writing use cases.
pub struct Notary {
    pub(crate) network: String,
    pub(crate) ids: IdIssuer,
    pub(crate) acceptor: Arc<Acceptor>,
    pub(crate) store: Arc<dyn OperationStore>,
    pub(crate) watch: Arc<CommitWatch>,
    pub(crate) originals: Option<Arc<dyn OriginalStore>>,
}

impl Notary {
    /// Whether the last publication in the queue succeeded.
    #[must_use]
    pub fn queue_is_well(&self) -> bool {
        self.acceptor.queue_is_well()
    }
}

impl Notary {
    /// Accepts one piece of evidence under its idempotency key.
    pub async fn notarize(&self, write: Write<'_>, key: &str, request: EvidenceRequest) -> Result<Notarized, Problem> {
        self.notarize_as(write, key, request, false).await
    }

    pub(crate) async fn notarize_as(
        &self,
        write: Write<'_>,
        key: &str,
        request: EvidenceRequest,
        retained: bool,
    ) -> Result<Notarized, Problem> {
        check(&request, &"")?;
        let warnings = request.warnings();
        let draft = evidence_draft(write, key, request, retained, &mut Vec::new()).signed(write.submitted(None));
        Ok(Notarized { accepted: self.acceptor.accept(draft).await?, warnings })
    }

    /// Accepts a batch, item by item; a refused item holds none of the others up.
    pub async fn notarize_batch(
        &self,
        write: Write<'_>,
        items: Vec<Result<EvidenceBatchItem, Problem>>,
    ) -> Vec<BatchAnswer> {
        let count = items.len();
        let mut drafts = Vec::with_capacity(count);
        let mut buffer = Vec::with_capacity(512);
        let mut results = Vec::with_capacity(items.len());
        for (at, item) in items.into_iter().enumerate() {
            let checked = item.and_then(|item| {
                let (key, request) = item.into_parts();
                check(&request, &format_args!("/items/{at}")).map(|()| (key, request))
            });
            results.push(checked.map(|(key, request)| {
                let warnings = request.warnings();
                let draft = evidence_draft(write, &key, request, false, &mut buffer);
                drafts.push(draft.signed(write.submitted(Some((at, count)))));
                warnings
            }));
        }
        let mut answers = self.acceptor.accept_all(drafts).await.into_iter();
        let mut next = || answers.next().unwrap_or_else(|| Err(ProblemCode::InternalError.into()));
        let settle = |result| match result {
            Ok(warnings) => BatchAnswer { answer: next(), warnings },
            Err(problem) => BatchAnswer { answer: Err(problem), warnings: Vec::new() },
        };
        results.into_iter().map(settle).collect()
    }

    /// Waits until an accepted operation has ended, at most so long.
    pub async fn wait(&self, caller: &Caller, accepted: Accepted, limit: Duration) -> Answer {
        let mut answers = [Ok(accepted)];
        self.wait_all(caller, answers.iter_mut(), limit).await;
        let [answer] = answers;
        answer
    }

    /// As [`Self::wait`], for every answer that is an accepted operation.
    pub async fn wait_all(&self, caller: &Caller, answers: impl Iterator<Item = &mut Answer>, limit: Duration) {
        if limit.is_zero() {
            return;
        }
        let open: Vec<_> = answers
            .filter_map(|answer| {
                let accepted = answer.as_ref().ok().filter(|found| found.state == OperationState::Accepted).copied()?;
                Some((answer, accepted))
            })
            .collect();
        let keys: Vec<_> = open.iter().map(|(_, accepted)| accepted.key).collect();
        let rows = self.watch.ended(caller.tenant.id(), &keys, limit).await;
        for ((answer, accepted), row) in open.into_iter().zip(rows) {
            if let Some(row) = row {
                *answer = ended(accepted, &row);
            }
        }
    }
}

/// Where two gateways took two requests under one key, the ledger kept one of them.
fn ended(accepted: Accepted, row: &OperationRow) -> Answer {
    if row.request == accepted.request { Ok(Accepted { state: row.state, ..accepted }) } else { Err(conflict()) }
}

/// What the request's reader leaves to the ledger's own rules: an operation that the ledger
/// could not read would be accepted and never end.
fn check(request: &EvidenceRequest, at: &dyn Display) -> Result<(), Problem> {
    if request.media_type.as_deref().is_none_or(is_media_type) {
        return Ok(());
    }
    let fault = Fault::new(ProblemCode::MediaTypeInvalid).limit("limit", MEDIA_TYPE_CHARS_MAX);
    Err(Problem::pointer(fault, format!("{at}/media_type")))
}

/// Equal requests have equal canonical bytes: members in the order of their declaration, and
/// what says nothing left out. Optional members added later leave the bytes of older requests
/// as they are.
fn evidence_draft(
    write: Write<'_>,
    key: &str,
    mut request: EvidenceRequest,
    retained: bool,
    buffer: &mut Vec<u8>,
) -> Draft {
    request.confidential = request.confidential.filter(|confidential| *confidential);
    request.provenance = request.provenance.filter(|provenance| **provenance != Provenance::default());
    buffer.clear();
    // Writing to memory cannot fail, and requests have string keys only.
    let _ = serde_json::to_writer(&mut *buffer, &request);
    let kind = if retained { "evidence+original" } else { "evidence" };
    Draft::new(&write.caller.tenant, key, kind, buffer, write.trace, Body::Evidence { request, retained })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_requests_keep_their_bytes() {
        let request = EvidenceRequest {
            digests: serde_json::from_str(&format!(r#"{{"sm3":"{0}","sha256":"{0}"}}"#, "0a".repeat(32))).unwrap(),
            size: Some(3),
            media_type: Some("text/plain".to_owned()),
            title: Some("t".to_owned()),
            confidential: Some(true),
            provenance: None,
            external_id: Some("x".to_owned()),
        };
        let expected = format!(
            concat!(
                r#"{{"digests":{{"sha256":"{0}","sm3":"{0}"}},"size":3,"media_type":"text/plain","#,
                r#""title":"t","confidential":true,"external_id":"x"}}"#
            ),
            "0a".repeat(32)
        );
        assert_eq!(serde_json::to_string(&request).unwrap(), expected);
    }

    #[test]
    fn media_types_that_the_ledger_cannot_read_are_refused() {
        let mut request = EvidenceRequest {
            digests: chopmark_api::evidence::Digests::default(),
            size: None,
            media_type: Some("chemical/x-pdb".to_owned()),
            title: None,
            confidential: None,
            provenance: None,
            external_id: None,
        };
        assert_eq!(check(&request, &"/items/3").unwrap_err().code(), ProblemCode::MediaTypeInvalid);
        request.media_type = Some("application/x-pdb".to_owned());
        check(&request, &"").unwrap();
    }
}
