//! Cases.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode};
use chopmark_api::{
    case::{CaseAccepted, CaseAppendAccepted, CaseAppendRequest, CaseRequest, CaseView},
    ids::CaseId,
    parse,
    query::PageQuery,
    request::Request as _,
};
use chopmark_domain::{notarize::Write, record::OperationState};

use super::answer::{ACCEPTED, WriteHeaders, applied, located, path_id, renderer};
use crate::{
    auth::{Reader, Writer, shared},
    body::{self, WriteHead, idempotency_key},
    refusal::Outcome,
    render::{json, status_of},
};

/// Open a case
///
/// An ordered chain of evidence. Title and external id never reach the ledger.
#[utoipa::path(
    post, path = "/v1/cases", operation_id = "open_case", tag = "cases",
    params(WriteHeaders),
    request_body = CaseRequest,
    responses(
        (status = 201, description = "Committed.", body = CaseView, headers(
            ("Location" = String, description = "The case."),
            ("Preference-Applied" = String, description = "`wait=N`, if the request asked to wait."),
        )),
        (status = 202, description = "Accepted and durable; not committed yet, or rejected by the ledger: \
            `operation.state` tells.", body = CaseAccepted, headers(
            ("Location" = String, description = "The case."),
            ("Preference-Applied" = String, description = "`wait=N`, if the request asked to wait."),
        )),
    ),
)]
pub(crate) async fn open(req: HttpRequest, writer: Writer) -> Outcome<HttpResponse> {
    let head = WriteHead::read(&req)?;
    let key = idempotency_key(&req)?;
    let body = body::json(&req, CaseRequest::BODY_BYTES_MAX).await?;
    let request = parse::<CaseRequest>(&body)?;
    let services = shared(&req)?.services()?;
    let write = Write { caller: &writer.0, trace: &head.trace, signature: body.signature() };
    let accepted = services.notary.open_case(write, &key, request).await?;
    shared(&req)?.count_writes(writer.0.tenant.id(), ACCEPTED, 1);
    drop(body);
    let accepted = services.notary.wait(&writer.0, accepted, head.wait).await?;
    let renderer = renderer(&req, &writer.0)?;
    let id = renderer.case_id(&accepted.key);
    let response = if let OperationState::Committed(_) = accepted.state {
        let record = services.records.case(&writer.0, &id, &PageQuery::default()).await?;
        json(StatusCode::CREATED, &renderer.case(record))?
    } else {
        json(status_of(accepted.state), &renderer.case_accepted(&accepted.key, accepted.state))?
    };
    Ok(applied(located(&req, response, &format!("/v1/cases/{id}")), head.wait))
}

/// Append evidence to a case
///
/// Both must be committed; until then the answer is 409 `predecessor_not_committed`, and the key
/// stays free. The ledger assigns the position and the predecessor.
#[utoipa::path(
    post, path = "/v1/cases/{id}/evidence", operation_id = "append_to_case", tag = "cases",
    params(("id" = CaseId, Path, description = "Id of the case."), WriteHeaders),
    request_body = CaseAppendRequest,
    responses(
        (status = 201, description = "Committed.", body = CaseAppendAccepted, headers(
            ("Location" = String, description = "The case."),
            ("Preference-Applied" = String, description = "`wait=N`, if the request asked to wait."),
        )),
        (status = 202, description = "Accepted and durable; not committed yet, or rejected by the ledger: \
            `operation.state` tells.", body = CaseAppendAccepted, headers(
            ("Location" = String, description = "The case."),
            ("Preference-Applied" = String, description = "`wait=N`, if the request asked to wait."),
        )),
    ),
)]
pub(crate) async fn append(req: HttpRequest, writer: Writer) -> Outcome<HttpResponse> {
    let head = WriteHead::read(&req)?;
    let case: CaseId = path_id(&req, CaseId::FORM)?;
    let key = idempotency_key(&req)?;
    let body = body::json(&req, CaseAppendRequest::BODY_BYTES_MAX).await?;
    let request = parse::<CaseAppendRequest>(&body)?;
    let evidence = request.evidence_id;
    let notary = &shared(&req)?.services()?.notary;
    let write = Write { caller: &writer.0, trace: &head.trace, signature: body.signature() };
    let accepted = notary.append_to_case(write, &key, &case, request).await?;
    shared(&req)?.count_writes(writer.0.tenant.id(), ACCEPTED, 1);
    drop(body);
    let accepted = notary.wait(&writer.0, accepted, head.wait).await?;
    let view = renderer(&req, &writer.0)?.append_accepted(&accepted.key, accepted.state, case, evidence);
    let response = json(status_of(accepted.state), &view)?;
    Ok(applied(located(&req, response, &format!("/v1/cases/{case}")), head.wait))
}

/// Read a case
///
/// With its committed links in order, each naming the one before.
#[utoipa::path(
    get, path = "/v1/cases/{id}", operation_id = "read_case", tag = "cases",
    params(
        ("id" = CaseId, Path, description = "Id of the case."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before."),
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 200, description = "Links of a page; 50 by default."),
    ),
    responses((status = 200, description = "The case.", body = CaseView)),
)]
pub(crate) async fn read(req: HttpRequest, reader: Reader) -> Outcome<HttpResponse> {
    let page = PageQuery::parse(req.query_string())?;
    let id: CaseId = path_id(&req, CaseId::FORM)?;
    let record = shared(&req)?.services()?.records.case(&reader.0, &id, &page).await?;
    json(StatusCode::OK, &renderer(&req, &reader.0)?.case(record))
}
