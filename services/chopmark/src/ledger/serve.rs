//! The routes of a node's internal interface by which gateways and committers read the ledger.

use std::time::Duration;

use actix_web::{
    HttpResponse,
    http::StatusCode,
    web::{self, Data, Path, Query, ServiceConfig},
};
use chopmark_domain::ports::{LedgerBlock, LedgerReader, PortError, PortResult};
use chopmark_node::NodeHandle;
use ledger_core::{Hash32, digests::Algorithm, merkle::LeafIndex, tile::TilePath};
use serde::Serialize;

use super::{
    NodeReader,
    wire::{
        BLOCKS_BYTES, BLOCKS_MAX, BlockRefView, BlocksQuery, HITS_MAX, HitsQuery, HitsView, ReceiptView, RefusalView,
        StatusView, WAIT_MS_MAX, WaitQuery, encode_blocks,
    },
};

/// Blocks read in one go: full ones take 4 MiB each.
const BLOCKS_AT_ONCE: usize = 4;

/// Adds the routes.
pub(crate) fn register(config: &mut ServiceConfig, node: &NodeHandle) {
    // Whoever asks for another ledger than this node's is told so by a 404.
    let scope = web::scope(&format!("/internal/v1/ledger/{}", node.chain()));
    config.app_data(Data::new(NodeReader::new(node.clone()))).service(
        scope
            .route("/status", web::get().to(status))
            .route("/wait", web::get().to(wait))
            .route("/blocks", web::get().to(blocks))
            .route("/entries/{index}", web::get().to(entry))
            .route("/entries/{index}/block", web::get().to(block_of))
            .route("/entries/{index}/receipt", web::get().to(receipt))
            .route("/ids/{id}", web::get().to(find_entry))
            .route("/digests/{algorithm}/{digest}", web::get().to(find_digest))
            .route("/digests/{algorithm}/{digest}/absence", web::get().to(absence))
            .route("/policy", web::get().to(policy))
            .route("/policies", web::get().to(policies))
            .route("/statement-keys", web::get().to(statement_keys))
            .route("/{tile:tile/.*}", web::get().to(tile)),
    );
}

type NodeData = Data<NodeReader>;

/// A refusal in the shape that clients know.
pub(crate) fn refused(status: StatusCode, refusal: RefusalView) -> HttpResponse {
    HttpResponse::build(status).json(RefusalView { status: status.as_u16(), ..refusal })
}

fn failed(error: &PortError) -> HttpResponse {
    let status = match error {
        PortError::Broken { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    refused(status, RefusalView { title: error.to_string(), ..RefusalView::default() })
}

fn bad(what: &str) -> HttpResponse {
    refused(StatusCode::BAD_REQUEST, RefusalView { title: format!("not {what}"), ..RefusalView::default() })
}

fn json<T: Serialize>(result: PortResult<T>) -> HttpResponse {
    result.map_or_else(|error| failed(&error), |found| HttpResponse::Ok().json(found))
}

fn json_if_any<T: Serialize>(result: PortResult<Option<T>>) -> HttpResponse {
    match result {
        Ok(None) => HttpResponse::NoContent().finish(),
        found => json(found),
    }
}

fn bytes_if_any(result: PortResult<Option<Vec<u8>>>) -> HttpResponse {
    match result {
        Ok(Some(bytes)) => HttpResponse::Ok().content_type("application/octet-stream").body(bytes),
        Ok(None) => HttpResponse::NoContent().finish(),
        Err(error) => failed(&error),
    }
}

async fn status(node: NodeData) -> HttpResponse {
    json(node.status().await.map(|status| StatusView::new(status, node.is_well())))
}

async fn wait(node: NodeData, query: Query<WaitQuery>) -> HttpResponse {
    let timeout = Duration::from_millis(query.timeout_ms.min(WAIT_MS_MAX));
    json(node.wait_beyond(query.beyond, timeout).await)
}

async fn blocks(node: NodeData, query: Query<BlocksQuery>) -> HttpResponse {
    bytes_if_any(read_blocks(&node, &query).await.map(|blocks| Some(encode_blocks(&blocks))))
}

/// A few at a time, until the answer is full: what is asked for is no bound on memory.
async fn read_blocks(node: &NodeReader, query: &BlocksQuery) -> PortResult<Vec<LedgerBlock>> {
    let max = query.max.min(BLOCKS_MAX);
    let (mut blocks, mut bytes) = (Vec::new(), 0);
    while blocks.len() < max && bytes < BLOCKS_BYTES {
        let from = query.from.saturating_add(blocks.len() as u64);
        let more = node.blocks(from, BLOCKS_AT_ONCE.min(max - blocks.len())).await?;
        if more.is_empty() {
            break;
        }
        bytes += more.iter().flat_map(|block| &block.entries).map(Vec::len).sum::<usize>();
        blocks.extend(more);
    }
    Ok(blocks)
}

async fn entry(node: NodeData, index: Path<u64>) -> HttpResponse {
    bytes_if_any(node.entry(LeafIndex(*index)).await)
}

async fn block_of(node: NodeData, index: Path<u64>) -> HttpResponse {
    json_if_any(node.block_of(LeafIndex(*index)).await.map(|found| found.map(BlockRefView::from)))
}

async fn receipt(node: NodeData, index: Path<u64>) -> HttpResponse {
    json_if_any(node.receipt(LeafIndex(*index)).await.map(|found| found.map(ReceiptView::from)))
}

async fn find_entry(node: NodeData, id: Path<String>) -> HttpResponse {
    let Some(id) = Hash32::from_hex(&id) else { return bad("an entry id") };
    json_if_any(node.find_entry(&id).await.map(|found| found.map(|index| index.0)))
}

fn digest_of((algorithm, digest): &(String, String)) -> Option<(Algorithm, Hash32)> {
    Some((Algorithm::parse(algorithm)?, Hash32::from_hex(digest)?))
}

async fn find_digest(node: NodeData, path: Path<(String, String)>, query: Query<HitsQuery>) -> HttpResponse {
    let Some((algorithm, digest)) = digest_of(&path) else { return bad("a digest") };
    json(node.find_digest(algorithm, &digest, LeafIndex(query.from), query.max.min(HITS_MAX)).await.map(HitsView::from))
}

async fn absence(node: NodeData, path: Path<(String, String)>) -> HttpResponse {
    let Some((algorithm, digest)) = digest_of(&path) else { return bad("a digest") };
    json(node.not_found_statement(algorithm, &digest).await)
}

async fn policy(node: NodeData) -> HttpResponse {
    json(node.policy().await)
}

async fn policies(node: NodeData) -> HttpResponse {
    json(node.policies().await)
}

async fn statement_keys(node: NodeData) -> HttpResponse {
    json(node.statement_keys().await)
}

async fn tile(node: NodeData, path: Path<String>) -> HttpResponse {
    match TilePath::parse(&path) {
        Some(path) => bytes_if_any(node.tile(path).await),
        None => bad("the path of a tile"),
    }
}
