//! Operations.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode};
use chopmark_api::{ids::OperationId, operation::OperationView};

use super::answer::{path_id, renderer};
use crate::{
    auth::{Reader, shared},
    body::no_query,
    refusal::Outcome,
    render::json,
};

/// Read one operation
///
/// Its state, why the ledger rejected it, and whether another request came under its key.
#[utoipa::path(
    get, path = "/v1/operations/{id}", operation_id = "read_operation", tag = "operations",
    params(("id" = OperationId, Path, description = "Id of the operation.")),
    responses((status = 200, description = "The operation.", body = OperationView)),
)]
pub(crate) async fn read(req: HttpRequest, reader: Reader) -> Outcome<HttpResponse> {
    no_query(&req)?;
    let id: OperationId = path_id(&req, OperationId::FORM)?;
    let record = shared(&req)?.services()?.records.operation(&reader.0, &id).await?;
    json(StatusCode::OK, &renderer(&req, &reader.0)?.operation(&record))
}
