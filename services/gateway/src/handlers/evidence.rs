//! Evidence.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, http::StatusCode};
use chopmark_api::{
    Problem, ProblemCode,
    evidence::{EvidenceAccepted, EvidenceBatchRequest, EvidenceBatchResult, EvidenceRequest, EvidenceView},
    ids::EvidenceId,
    page::Page,
    parse, parse_batch,
    query::EvidenceQuery,
    request::Request as _,
};
use chopmark_domain::{
    notarize::{BatchAnswer, Notarized, Write},
    record::OperationState,
};

use super::answer::{
    ACCEPTED, BatchHeaders, REFUSED_QUOTA, WriteHeaders, applied, bundle, located, path_id, renderer, text,
};
use crate::{
    auth::{Reader, Writer, shared},
    body::{self, WriteHead, idempotency_key, no_query},
    edge::request_id,
    refusal::{Outcome, Refusal},
    render::{json, status_of},
};

/// Record a file by its digests
///
/// The file itself is never sent. Send the same request under the same key as often as you like:
/// the answer has the same ids and the operation's current state. With `Prefer: wait=N` the
/// answer waits for the commit and is then 201 with everything.
#[utoipa::path(
    post, path = "/v1/evidence", operation_id = "create_evidence", tag = "evidence",
    params(WriteHeaders),
    request_body = EvidenceRequest,
    responses(
        (status = 201, description = "Committed.", body = EvidenceView, headers(
            ("Location" = String, description = "The evidence."),
            ("Preference-Applied" = String, description = "`wait=N`, if the request asked to wait."),
        )),
        (status = 202, description = "Accepted and durable; not committed yet, or rejected by the ledger: \
            `operation.state` tells.", body = EvidenceAccepted, headers(
            ("Location" = String, description = "The evidence."),
            ("Preference-Applied" = String, description = "`wait=N`, if the request asked to wait."),
        )),
    ),
)]
pub(crate) async fn create(req: HttpRequest, writer: Writer) -> Outcome<HttpResponse> {
    let head = WriteHead::read(&req)?;
    let key = idempotency_key(&req)?;
    let body = body::json(&req, EvidenceRequest::BODY_BYTES_MAX).await?;
    let request = parse::<EvidenceRequest>(&body)?;
    let write = Write { caller: &writer.0, trace: &head.trace, signature: body.signature() };
    let notarized = shared(&req)?.services()?.notary.notarize(write, &key, request).await?;
    drop(body);
    answer(&req, &writer, notarized, head.wait).await
}

/// The answer to a write of evidence: accepted, or everything once committed.
pub(super) async fn answer(
    req: &HttpRequest,
    writer: &Writer,
    notarized: Notarized,
    wait: Duration,
) -> Outcome<HttpResponse> {
    let shared = shared(req)?;
    let services = shared.services()?;
    shared.count_writes(writer.0.tenant.id(), ACCEPTED, 1);
    let Notarized { accepted, warnings } = notarized;
    let accepted = services.notary.wait(&writer.0, accepted, wait).await?;
    let renderer = renderer(req, &writer.0)?;
    let view = renderer.evidence_accepted(&accepted.key, accepted.state, &warnings);
    let id = view.id;
    let response = if let OperationState::Committed(_) = accepted.state {
        let record = services.records.evidence(&writer.0, &id).await?;
        json(StatusCode::CREATED, &renderer.evidence(record, &warnings))?
    } else {
        json(status_of(accepted.state), &view)?
    };
    Ok(applied(located(req, response, &format!("/v1/evidence/{id}")), wait))
}

/// Record many files in one call
///
/// Up to 1000 items, each idempotent on its own under its own key. The answer has one result for
/// each item, in order, with the status that the item would have had alone. Where nothing at all
/// could be accepted because a part of the service is away, the whole answer is that problem.
#[utoipa::path(
    post, path = "/v1/evidence/batch", operation_id = "create_evidence_batch", tag = "evidence",
    params(BatchHeaders),
    request_body = EvidenceBatchRequest,
    responses(
        (status = 200, description = "One result for each item.", body = EvidenceBatchResult, headers(
            ("Preference-Applied" = String, description = "`wait=N`, if the request asked to wait."),
        )),
    ),
)]
pub(crate) async fn create_batch(req: HttpRequest, writer: Writer) -> Outcome<HttpResponse> {
    let head = WriteHead::read(&req)?;
    let body = body::json(&req, EvidenceBatchRequest::BODY_BYTES_MAX).await?;
    let items = parse_batch(&body)?;
    let write = Write { caller: &writer.0, trace: &head.trace, signature: body.signature() };
    let notary = &shared(&req)?.services()?.notary;
    let mut answers = notary.notarize_batch(write, items).await;
    drop(body);
    let accepted = answers.iter().filter(|item| item.answer.is_ok()).count();
    let is_over = |problem: &Problem| problem.code() == ProblemCode::QuotaExceeded;
    let refused = answers.iter().filter(|item| item.answer.as_ref().is_err_and(is_over)).count();
    let counted = shared(&req)?;
    counted.count_writes(writer.0.tenant.id(), ACCEPTED, accepted);
    counted.count_writes(writer.0.tenant.id(), REFUSED_QUOTA, refused);
    if let Some(problem) = failed_whole(&answers) {
        return Err(problem.into());
    }
    notary.wait_all(&writer.0, answers.iter_mut().map(|item| &mut item.answer), head.wait).await;
    let renderer = renderer(&req, &writer.0)?;
    let id = request_id(&req);
    let items = answers.into_iter().enumerate();
    let items = items.map(|(at, item)| renderer.batch_item(at, item, id.as_deref())).collect();
    Ok(applied(json(StatusCode::OK, &EvidenceBatchResult { items })?, head.wait))
}

/// The failure that kept every sound item of a batch from being accepted.
fn failed_whole(answers: &[BatchAnswer]) -> Option<Problem> {
    let mut problems = answers.iter().map(|item| item.answer.as_ref().err());
    if problems.clone().any(|problem| problem.is_none()) {
        return None;
    }
    problems.find_map(|problem| problem.filter(|problem| problem.status() >= 500).cloned())
}

/// List your evidence, newest first
///
/// Items have no checkpoint; read the single record for it. Confidential evidence is not found
/// by digest.
#[utoipa::path(
    get, path = "/v1/evidence", operation_id = "list_evidence", tag = "evidence",
    params(
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before."),
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 200, description = "Items of a page; 50 by default."),
        ("digest" = Option<String>, Query, description = "`sha256:<hex>`, or the digest alone for any algorithm."),
        ("external_id" = Option<String>, Query, description = "Your own identifier."),
        ("state" = Option<chopmark_api::operation::OperationState>, Query, description = "Only this state."),
        ("from" = Option<chopmark_api::time::Timestamp>, Query, description = "Accepted at or after."),
        ("to" = Option<chopmark_api::time::Timestamp>, Query, description = "Accepted before."),
    ),
    responses((status = 200, description = "One page.", body = Page<EvidenceView>)),
)]
pub(crate) async fn list(req: HttpRequest, reader: Reader) -> Outcome<HttpResponse> {
    let query = EvidenceQuery::parse(req.query_string())?;
    let (records, next_cursor) = shared(&req)?.services()?.records.list(&reader.0, &query).await?;
    let renderer = renderer(&req, &reader.0)?;
    let items = records.into_iter().map(|record| renderer.evidence(record, &[])).collect();
    json(StatusCode::OK, &Page { items, next_cursor })
}

/// Read one piece of evidence
///
/// Known from the moment its POST was answered; what the ledger adds is there once committed.
#[utoipa::path(
    get, path = "/v1/evidence/{id}", operation_id = "read_evidence", tag = "evidence",
    params(("id" = EvidenceId, Path, description = "Id of the evidence.")),
    responses((status = 200, description = "The evidence.", body = EvidenceView)),
)]
pub(crate) async fn read(req: HttpRequest, reader: Reader) -> Outcome<HttpResponse> {
    let id = evidence_id(&req)?;
    let record = shared(&req)?.services()?.records.evidence(&reader.0, &id).await?;
    json(StatusCode::OK, &renderer(&req, &reader.0)?.evidence(record, &[]))
}

/// Read the receipt
///
/// A C2SP tlog-proof: it proves offline that the entry is in the log. Of confidential evidence
/// it carries the opening of the commitment; keep it safe.
#[utoipa::path(
    get, path = "/v1/evidence/{id}/receipt", operation_id = "read_receipt", tag = "evidence",
    params(("id" = EvidenceId, Path, description = "Id of the evidence.")),
    responses((status = 200, description = "The receipt.", body = String, content_type = "text/plain; charset=utf-8")),
)]
pub(crate) async fn receipt(req: HttpRequest, reader: Reader) -> Outcome<HttpResponse> {
    let id = evidence_id(&req)?;
    let receipt = shared(&req)?.services()?.records.receipt(&reader.0, &id).await?;
    Ok(text("text/plain; charset=utf-8", PRIVATE, receipt))
}

/// Read the entry, byte for byte
#[utoipa::path(
    get, path = "/v1/evidence/{id}/entry", operation_id = "read_entry", tag = "evidence",
    params(("id" = EvidenceId, Path, description = "Id of the evidence.")),
    responses((status = 200, description = "The bytes that were hashed into the log.", body = Object)),
)]
pub(crate) async fn entry(req: HttpRequest, reader: Reader) -> Outcome<HttpResponse> {
    let id = evidence_id(&req)?;
    let entry = shared(&req)?.services()?.records.entry(&reader.0, &id).await?;
    Ok(text("application/json", PRIVATE, entry))
}

/// Read the bundle
///
/// A zip with entry, receipt, policy, a verifying script and a README: all that a stranger needs
/// to check the record offline.
#[utoipa::path(
    get, path = "/v1/evidence/{id}/proof", operation_id = "read_proof", tag = "evidence",
    params(("id" = EvidenceId, Path, description = "Id of the evidence.")),
    responses((status = 200, description = "The bundle.", body = Vec<u8>, content_type = "application/zip")),
)]
pub(crate) async fn proof(req: HttpRequest, reader: Reader) -> Outcome<HttpResponse> {
    let id = evidence_id(&req)?;
    let zip = shared(&req)?.services()?.records.bundle(&reader.0, &id).await?;
    Ok(bundle(&id.to_string(), PRIVATE, zip))
}

/// Answers for one tenant only, which no cache may keep.
const PRIVATE: &str = "private, no-store";

fn evidence_id(req: &HttpRequest) -> Result<EvidenceId, Refusal> {
    no_query(req)?;
    path_id(req, EvidenceId::FORM)
}
