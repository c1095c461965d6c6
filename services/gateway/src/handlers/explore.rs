//! What anybody may look through, without a key: blocks, entries, and a search over them.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode};
use chopmark_api::{
    ProblemCode,
    explore::{BlockDetail, BlockSummary, SearchView},
    lang::Text,
    page::Page,
    problem::{Arg, Fault},
    query::{PageQuery, SearchQuery},
    verify::VerifyRecord,
};
use chopmark_domain::explore::EntryName;
use ledger_core::checkpoint::decimal_u63;

use super::answer::malformed;
use crate::{
    auth::{Visitor, shared},
    body::no_query,
    refusal::Outcome,
    render::{self, json},
};

/// List the blocks
///
/// Newest first, up to the newest checkpoint. Pages of large blocks may have fewer than asked for
/// and still be followed by another: `next_cursor` tells.
#[utoipa::path(
    get, path = "/v1/blocks", operation_id = "list_blocks", tag = "public",
    params(
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before."),
        ("limit" = Option<u16>, Query, minimum = 1, maximum = 200, description = "Blocks of a page; 50 by default."),
    ),
    responses((status = 200, description = "One page.", body = Page<BlockSummary>)),
)]
pub(crate) async fn blocks(req: HttpRequest, _visitor: Visitor) -> Outcome<HttpResponse> {
    let page = PageQuery::parse(req.query_string())?;
    json(StatusCode::OK, &render::block_page(shared(&req)?.ledger.blocks(&page).await?))
}

/// Read a block
///
/// With its header, the signatures that decided it, and how each of its operations ended.
#[utoipa::path(
    get, path = "/v1/blocks/{height}", operation_id = "read_block", tag = "public",
    params(("height" = u64, Path, description = "Height, from 1 on.")),
    responses((status = 200, description = "The block.", body = BlockDetail)),
)]
pub(crate) async fn block(req: HttpRequest, _visitor: Visitor) -> Outcome<HttpResponse> {
    no_query(&req)?;
    let height = req.match_info().get("height").and_then(decimal_u63);
    let height = height.ok_or_else(|| malformed("height", expected(HEIGHT)))?;
    json(StatusCode::OK, &render::block(shared(&req)?.ledger.block(height).await?)?)
}

/// Read an entry with what proves it
///
/// By its place in the log or by its id.
#[utoipa::path(
    get, path = "/v1/entries/{id}", operation_id = "read_public_record", tag = "public",
    params(("id" = String, Path, description = "Leaf index, or entry id of 64 hexadecimal characters.")),
    responses((status = 200, description = "The record.", body = VerifyRecord)),
)]
pub(crate) async fn entry(req: HttpRequest, _visitor: Visitor) -> Outcome<HttpResponse> {
    no_query(&req)?;
    let name = req.match_info().get("id").and_then(EntryName::parse);
    let name = name.ok_or_else(|| malformed("id", expected(ENTRY)))?;
    let shared = shared(&req)?;
    json(StatusCode::OK, &render::record(shared.base, shared.ledger.entry_record(name).await?)?)
}

/// Search
///
/// For a block's height, a leaf index, an entry id, a digest in any algorithm, or the domain of a
/// member; a number leads to both a block and an entry. What is not found has no hits. An id of
/// evidence (`evd_…`) is answered without a hit: only its owner may know which entry it stands for.
#[utoipa::path(
    get, path = "/v1/search", operation_id = "search", tag = "public",
    params(("q" = String, Query, min_length = 1, max_length = 253, description = "What to look for.")),
    responses((status = 200, description = "What was found.", body = SearchView)),
)]
pub(crate) async fn search(req: HttpRequest, _visitor: Visitor) -> Outcome<HttpResponse> {
    let SearchQuery { q } = SearchQuery::parse(req.query_string())?;
    let shared = shared(&req)?;
    let hits = shared.ledger.search(&q).await?;
    json(StatusCode::OK, &render::search(shared.base, q, hits))
}

const HEIGHT: Text = Text::new("a height in plain digits", "直接用数字书写的区块高度");
const ENTRY: Text = Text::new(
    "a leaf index in plain digits, or an entry id of 64 hexadecimal characters",
    "直接用数字书写的叶序号，或 64 位十六进制的条目编号",
);

fn expected(words: Text) -> Fault {
    Fault::new(ProblemCode::IdMalformed).with("expected", Arg::Words(words))
}
