//! The log, as C2SP tlog-tiles says.

use actix_web::{HttpRequest, HttpResponse};
use chopmark_api::{
    Problem, ProblemCode,
    lang::Text,
    problem::{Arg, Fault},
};
use ledger_core::{
    checkpoint::decimal_u63,
    tile::{TILE_WIDTH, TilePath},
};

use super::answer::{IMMUTABLE, malformed, text};
use crate::{
    auth::{LogReader, shared},
    body::no_query,
    refusal::Outcome,
};

/// The newest checkpoint: a signed note
#[utoipa::path(
    get, path = "/log/checkpoint", operation_id = "read_checkpoint", tag = "log",
    responses((status = 200, description = "The checkpoint.", body = String,
        content_type = "text/plain; charset=utf-8")),
)]
pub(crate) async fn checkpoint(req: HttpRequest, _reader: LogReader) -> Outcome<HttpResponse> {
    no_query(&req)?;
    let checkpoint = shared(&req)?.ledger.checkpoint().await?;
    Ok(text("text/plain; charset=utf-8", "no-cache", checkpoint))
}

/// The trust policy of the network, for verifiers
#[utoipa::path(
    get, path = "/log/policy", operation_id = "read_policy", tag = "log",
    responses((status = 200, description = "The policy.", body = String, content_type = "text/plain; charset=utf-8")),
)]
pub(crate) async fn policy(req: HttpRequest, _reader: LogReader) -> Outcome<HttpResponse> {
    no_query(&req)?;
    let policy = shared(&req)?.ledger.policy().await?;
    Ok(text("text/plain; charset=utf-8", "no-cache", policy))
}

/// A trust policy of the network, by the tree size from which it holds
///
/// `policies` at `/v1/network` lists them.
#[utoipa::path(
    get, path = "/log/policies/{first_size}", operation_id = "read_policy_from", tag = "log",
    params(("first_size" = u64, Path, description = "The first tree size that it is for.")),
    responses((status = 200, description = "The policy.", body = String, content_type = "text/plain; charset=utf-8")),
)]
pub(crate) async fn policy_from(req: HttpRequest, _reader: LogReader) -> Outcome<HttpResponse> {
    no_query(&req)?;
    let size = req.match_info().get("first_size").and_then(decimal_u63);
    let fault = || Fault::new(ProblemCode::IdMalformed).with("expected", Arg::Words(TREE_SIZE));
    let size = size.ok_or_else(|| malformed("first_size", fault()))?;
    let policy = shared(&req)?.ledger.policy_from(size).await?;
    Ok(text("text/plain; charset=utf-8", IMMUTABLE, policy))
}

const TREE_SIZE: Text = Text::new("a tree size in plain digits", "直接用数字书写的树大小");

/// A tile or an entry bundle
///
/// The path goes on as C2SP tlog-tiles says: `0/x001/234`, `0/x001/234.p/17`, `entries/x001/234`.
#[utoipa::path(
    get, path = "/log/tile/{path}", operation_id = "read_tile", tag = "log",
    params(("path" = String, Path, description = "Level or `entries`, then the index; may hold slashes.")),
    responses((status = 200, description = "Hashes, or entries behind their lengths.", body = Vec<u8>,
        content_type = "application/octet-stream")),
)]
pub(crate) async fn tile(req: HttpRequest, _reader: LogReader) -> Outcome<HttpResponse> {
    no_query(&req)?;
    // The raw path: a tile has one spelling, so an escaped one is none.
    let path = req.path().strip_prefix("/log/").and_then(TilePath::parse);
    let path = path.ok_or_else(|| Problem::parameter(ProblemCode::TileNotFound, "path"))?;
    let tile = shared(&req)?.ledger.tile(path).await?;
    Ok(text("application/octet-stream", cache(path), tile))
}

/// Full tiles never change; partial ones do not either, but vanish once the full one is there.
fn cache(path: TilePath) -> &'static str {
    if u64::from(path.width) == TILE_WIDTH { IMMUTABLE } else { "public, max-age=60" }
}
