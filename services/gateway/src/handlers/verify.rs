//! What anybody may look up, without a key.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode};
use chopmark_api::{
    ProblemCode,
    digest::{Algorithm as ApiAlgorithm, Hash32 as ApiHash},
    lang::Text,
    network::NetworkView,
    parse,
    problem::{Arg, Fault},
    query::PageQuery,
    request::Request as _,
    verify::{VerifyBatchRequest, VerifyBatchView, VerifyView},
};
use ledger_core::{checkpoint::decimal_u63, digests::Algorithm, hash::Hash32, merkle::LeafIndex};

use super::answer::{IMMUTABLE, bundle, malformed, text};
use crate::{
    auth::{Visitor, shared},
    body::{self, no_query},
    refusal::Outcome,
    render::{self, json},
};

/// Records of one digest in a batch; the single look-up pages through more.
const BATCH_RECORDS_MAX: u16 = 10;
/// What changes with every block.
const VOLATILE: &str = "no-cache";

/// Look a digest up
///
/// Every record of the digest, in the order of the log, or a signed statement that there is none
/// up to a tree size: a statement, never a proof. Neither tenants' titles nor confidential
/// evidence are found here.
#[utoipa::path(
    get, path = "/v1/verify/{algorithm}/{digest}", operation_id = "look_up_digest", tag = "public",
    params(
        ("algorithm" = ApiAlgorithm, Path, description = "`sha256`, `sha3-256` or `sm3`."),
        ("digest" = ApiHash, Path, description = "The digest."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before."),
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 200, description = "Records of a page; 50 by default."),
    ),
    responses((status = 200, description = "Records or a statement.", body = VerifyView)),
)]
pub(crate) async fn look_up(req: HttpRequest, _visitor: Visitor) -> Outcome<HttpResponse> {
    let page = PageQuery::parse(req.query_string())?;
    let part = |name| req.match_info().get(name).unwrap_or_default();
    let algorithm: ApiAlgorithm = part("algorithm").parse().map_err(|fault| malformed("algorithm", fault))?;
    let digest: ApiHash = part("digest").parse().map_err(|fault| malformed("digest", fault))?;
    json(StatusCode::OK, &find(&req, algorithm, digest, &page).await?)
}

/// Look many digests up
///
/// Up to 100 in one call, with at most ten records each.
#[utoipa::path(
    post, path = "/v1/verify/batch", operation_id = "look_up_digests", tag = "public",
    request_body = VerifyBatchRequest,
    responses((status = 200, description = "One answer for each digest, in order.", body = VerifyBatchView)),
)]
pub(crate) async fn look_up_batch(req: HttpRequest, _visitor: Visitor) -> Outcome<HttpResponse> {
    no_query(&req)?;
    let body = body::json(&req, VerifyBatchRequest::BODY_BYTES_MAX).await?;
    let request = parse::<VerifyBatchRequest>(&body)?;
    let page = PageQuery { cursor: None, limit: BATCH_RECORDS_MAX };
    let mut items = Vec::with_capacity(request.items.len());
    for item in request.items {
        items.push(find(&req, item.algorithm, item.digest, &page).await?);
    }
    json(StatusCode::OK, &VerifyBatchView { items })
}

async fn find(req: &HttpRequest, algorithm: ApiAlgorithm, digest: ApiHash, page: &PageQuery) -> Outcome<VerifyView> {
    let known = Algorithm::parse(algorithm.name()).ok_or(ProblemCode::InternalError)?;
    let shared = shared(req)?;
    let found = shared.ledger.find(known, &Hash32(*digest.as_bytes()), page).await?;
    render::found(shared.base, algorithm, digest, found)
}

/// Read the receipt of an entry
///
/// The public one: of confidential evidence it has no opening.
#[utoipa::path(
    get, path = "/v1/entries/{index}/receipt", operation_id = "read_public_receipt", tag = "public",
    params(("index" = u64, Path, description = "Leaf index.")),
    responses((status = 200, description = "The receipt.", body = String, content_type = "text/plain; charset=utf-8")),
)]
pub(crate) async fn receipt(req: HttpRequest, _visitor: Visitor) -> Outcome<HttpResponse> {
    let receipt = shared(&req)?.ledger.receipt(leaf_index(&req)?).await?;
    Ok(text("text/plain; charset=utf-8", VOLATILE, receipt))
}

/// Read an entry, byte for byte
#[utoipa::path(
    get, path = "/v1/entries/{index}/entry", operation_id = "read_public_entry", tag = "public",
    params(("index" = u64, Path, description = "Leaf index.")),
    responses((status = 200, description = "The bytes that were hashed into the log.", body = Object)),
)]
pub(crate) async fn entry(req: HttpRequest, _visitor: Visitor) -> Outcome<HttpResponse> {
    let entry = shared(&req)?.ledger.entry(leaf_index(&req)?).await?;
    Ok(text("application/json", IMMUTABLE, entry))
}

/// Read the bundle of an entry
#[utoipa::path(
    get, path = "/v1/entries/{index}/proof", operation_id = "read_public_proof", tag = "public",
    params(("index" = u64, Path, description = "Leaf index.")),
    responses((status = 200, description = "The bundle.", body = Vec<u8>, content_type = "application/zip")),
)]
pub(crate) async fn proof(req: HttpRequest, _visitor: Visitor) -> Outcome<HttpResponse> {
    let index = leaf_index(&req)?;
    let zip = shared(&req)?.ledger.bundle(index).await?;
    Ok(bundle(&format!("entry-{}", index.0), VOLATILE, zip))
}

/// Read the network
///
/// Its origin, its members with their keys, its newest checkpoint.
#[utoipa::path(
    get, path = "/v1/network", operation_id = "read_network", tag = "public",
    responses((status = 200, description = "The network.", body = NetworkView)),
)]
pub(crate) async fn network(req: HttpRequest, _visitor: Visitor) -> Outcome<HttpResponse> {
    no_query(&req)?;
    let shared = shared(&req)?;
    json(StatusCode::OK, &render::network(shared.base, shared.ledger.network().await?))
}

const LEAF_INDEX: Text = Text::new("a leaf index in plain digits", "直接用数字书写的叶索引");

fn leaf_index(req: &HttpRequest) -> Outcome<LeafIndex> {
    no_query(req)?;
    let index = req.match_info().get("index").and_then(decimal_u63);
    let fault = || Fault::new(ProblemCode::IdMalformed).with("expected", Arg::Words(LEAF_INDEX));
    index.map(LeafIndex).ok_or_else(|| malformed("index", fault()))
}
