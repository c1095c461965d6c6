//! What a member's node serves to other nodes, beside what it serves to readers: the genesis, the
//! decided blocks, and the board. Public, as all of it is: whoever asks has to check it anyway.

use std::sync::Arc;

use actix_web::{
    HttpResponse,
    http::StatusCode,
    web::{self, Data, Path, ServiceConfig},
};
use chopmark_gateway::LogReader;
use chopmark_node::NodeHandle;
use ledger_core::codec::Writer;
use tokio::sync::Semaphore;

use super::{
    board::{Board, Notices},
    peering::BLOCKS_BYTES,
};

/// What these routes read.
#[derive(Clone)]
pub(crate) struct PeerInterface {
    pub(crate) node: NodeHandle,
    /// A node without one has no members of its own choice: those of an embedded network.
    pub(crate) board: Option<Arc<Board>>,
    /// Answers with blocks that are made at a time: each is held in memory.
    pub(crate) answers: Arc<Semaphore>,
}

/// For followers of a network of the largest size, and a few more.
pub(crate) const BLOCK_ANSWERS_MAX: usize = 8;

/// Adds the routes.
pub(crate) fn register(config: &mut ServiceConfig, interface: &PeerInterface) {
    config
        .app_data(Data::new(interface.clone()))
        .route("/peer/v1/genesis", web::get().to(genesis))
        .route("/peer/v1/blocks/{height}", web::get().to(blocks))
        .route("/peer/v1/board", web::get().to(board));
}

async fn genesis(interface: Data<PeerInterface>, _reader: LogReader) -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(interface.node.genesis().encode())
}

/// Blocks from a height on: version, count, then each block and its checkpoint behind their lengths.
async fn blocks(interface: Data<PeerInterface>, height: Path<u64>, _reader: LogReader) -> HttpResponse {
    let Ok(_answering) = interface.answers.try_acquire() else {
        return unavailable("as many answers with blocks as it makes at a time are under way");
    };
    let node = interface.node.clone();
    let read = web::block(move || node.follow(*height, BLOCKS_BYTES));
    let blocks = match read.await {
        Ok(Ok(blocks)) => blocks,
        Ok(Err(error)) => return unavailable(&error.to_string()),
        Err(error) => return unavailable(&error.to_string()),
    };
    let mut writer = Writer::new();
    writer.u8(1).u32(u32::try_from(blocks.len()).unwrap_or_default());
    for (block, checkpoint) in &blocks {
        writer.bytes(block).bytes(checkpoint.as_deref().unwrap_or_default().as_bytes());
    }
    HttpResponse::Ok().content_type("application/octet-stream").body(writer.finish())
}

async fn board(interface: Data<PeerInterface>, _reader: LogReader) -> HttpResponse {
    let shown = match &interface.board {
        Some(board) => board.notices().await,
        None => Notices::default(),
    };
    let votes = Some(interface.node.seen_votes().into_iter().map(Into::into).collect());
    HttpResponse::Ok().json(Notices { height: interface.node.height(), votes, ..shown })
}

fn unavailable(reason: &str) -> HttpResponse {
    tracing::warn!(reason, "another node was not served");
    let status = StatusCode::SERVICE_UNAVAILABLE;
    HttpResponse::build(status).json(serde_json::json!({ "title": "not now", "status": status.as_u16() }))
}
