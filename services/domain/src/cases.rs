//! Cases: opening them, and appending evidence to them.

use chopmark_api::{
    Problem, ProblemCode,
    case::{CaseAppendRequest, CaseRequest},
    ids::CaseId,
    problem::{FieldError, Place},
};

use crate::{
    accept::{Accepted, Body, Draft},
    failure,
    id::{IdKind, ResourceKey},
    notarize::{Notary, Write},
    record::{OperationRow, OperationState},
};

impl Notary {
    /// Opens a case.
    pub async fn open_case(&self, write: Write<'_>, key: &str, request: CaseRequest) -> Result<Accepted, Problem> {
        let canonical = serde_json::to_vec(&request).map_err(|_| failure::broken("a case request"))?;
        let body = Body::CaseOpen(request);
        let draft = Draft::new(&write.caller.tenant, key, "case.open", &canonical, write.trace, body);
        self.acceptor.accept(draft.signed(write.submitted(None))).await
    }

    /// Appends evidence to a case. Both have to be committed: the ledger promises no order
    /// among what is not, so the refusal comes before the key is used.
    pub async fn append_to_case(
        &self,
        write: Write<'_>,
        key: &str,
        case: &CaseId,
        request: CaseAppendRequest,
    ) -> Result<Accepted, Problem> {
        let tenant = write.caller.tenant.id();
        let recognise = |kind, id| self.ids.recognise_bytes(kind, tenant, id);
        let case = recognise(IdKind::Case, case.as_bytes()).ok_or_else(|| refused(ProblemCode::CaseNotFound, CASE))?;
        let evidence = recognise(IdKind::Evidence, request.evidence_id.as_bytes())
            .ok_or_else(|| refused(ProblemCode::EvidenceNotFound, EVIDENCE))?;
        let rows = self.store.find(&self.network, tenant, &[case, evidence]).await;
        let rows = rows.map_err(|error| failure::port(&error))?;
        let row = |key: ResourceKey| rows.iter().flatten().find(|row| row.key == key);
        let body =
            Body::CaseAppend { case: committed(row(case), CASE)?.op, evidence: committed(row(evidence), EVIDENCE)?.op };
        let canonical = [case.0, evidence.0].concat();
        let draft = Draft::new(&write.caller.tenant, key, "case.append", &canonical, write.trace, body);
        self.acceptor.accept(draft.signed(write.submitted(None))).await
    }
}

const CASE: fn() -> Place = || Place::Parameter("id".into());
const EVIDENCE: fn() -> Place = || Place::Pointer("/evidence_id".to_owned());

fn committed(row: Option<&OperationRow>, place: fn() -> Place) -> Result<&OperationRow, Problem> {
    match row.map(|row| (row, row.state)) {
        Some((row, OperationState::Committed(_))) => Ok(row),
        Some((_, OperationState::Rejected(_))) => Err(refused(ProblemCode::OperationRejected, place)),
        Some((_, OperationState::Accepted)) | None => Err(refused(ProblemCode::PredecessorNotCommitted, place)),
    }
}

fn refused(code: ProblemCode, place: fn() -> Place) -> Problem {
    FieldError { place: place(), fault: code.into() }.into()
}
