//! `chopmark node`: one member's node, with its read interface and the internal one.

use std::{net::TcpListener, process::ExitCode, sync::Arc, time::Duration};

use actix_web::{
    App, HttpResponse, HttpServer,
    http::StatusCode,
    web::{self, Bytes, Data},
};
use anyhow::Context as _;
use chopmark_node::{
    NetworkConfig, Node, NodeConfig, NodeHandle, POOL_BYTES_MAX, SUBMISSION_BYTES_MAX, SubmitError, equivocations,
    keys::NodeKeys,
};
use ledger_core::{batch::Submission, note::Note};
use serde::Serialize;

use crate::{cli::NodeArgs, member::MemberFolder, network::NodeStatus, reader, signals::Signals, system, telemetry};

/// How often the node looks whether its ledger has stopped.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Runs until a signal, or until the ledger has stopped by a fault: then whoever runs services
/// starts it again, and it reloads from what is durable.
pub(crate) async fn run(args: NodeArgs) -> anyhow::Result<ExitCode> {
    telemetry::start_logs(args.log_format)?;
    let metrics = telemetry::start_metrics()?;
    let folder = MemberFolder(args.data.clone());
    let file = folder.read()?;
    let guard = args.guard.map_or_else(|| folder.guard(&file), Ok)?;
    let network = NetworkConfig {
        listen: file.node.listen,
        peers: file.peers.iter().map(crate::member::PeerSection::peer).collect(),
    };
    let config = NodeConfig {
        data: folder.node(),
        guard,
        keys: NodeKeys::load(&folder.keys())?,
        domain: file.node.domain.clone(),
        clock: Arc::new(system::now_ms),
        pool_bytes_max: POOL_BYTES_MAX,
        network,
    };
    let bind = |address| TcpListener::bind(address).with_context(|| format!("listen on {address}"));
    let (public, scraped) = (bind(file.node.read)?, bind(file.node.metrics)?);
    let internal = bind(file.node.internal)?;
    let mut signals = Signals::listen()?;
    let node = tokio::task::spawn_blocking(move || Node::open(config)).await??;
    let handle = node.handle();
    let reader = reader::serve(&handle, handle.genesis().network.as_str(), (public, scraped), metrics)?;
    let state = Data::new(Internal { node: handle.clone(), member: file.node.domain.clone(), folder: folder.clone() });
    let server = HttpServer::new(move || {
        App::new()
            .app_data(Data::clone(&state))
            .app_data(web::PayloadConfig::new(SUBMISSION_BYTES_MAX))
            .route("/internal/v1/submissions", web::post().to(submit))
            .route("/internal/v1/status", web::get().to(status))
    });
    let server = server.workers(2).disable_signals().shutdown_timeout(1).listen(internal)?.run();
    let stopper = server.handle();
    let served = tokio::spawn(server);
    tracing::info!(member = file.node.domain, read = %file.node.read, "ready");

    let failure = loop {
        tokio::select! {
            () = signals.wait() => break None,
            () = tokio::time::sleep(WATCH_INTERVAL) => if let Some(failure) = handle.failure() { break Some(failure) },
        }
    };
    stopper.stop(true).await;
    served.await??;
    reader.stop().await?;
    tokio::task::spawn_blocking(move || node.close()).await?;
    match failure {
        None => Ok(ExitCode::SUCCESS),
        Some(failure) => Err(anyhow::anyhow!("the ledger has stopped: {failure}")),
    }
}

struct Internal {
    node: NodeHandle,
    member: String,
    folder: MemberFolder,
}

/// How one operation of a submission ended.
#[derive(Serialize)]
struct EndedView {
    request: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
}

/// Takes one encoded submission (`ledger_core::batch::Submission`) and answers when every
/// operation of it has its outcome in a decided block.
async fn submit(internal: Data<Internal>, body: Bytes) -> HttpResponse {
    let refused = |status: StatusCode, reason: String| {
        HttpResponse::build(status).json(serde_json::json!({ "title": reason, "status": status.as_u16() }))
    };
    let submission = match Submission::decode(&body) {
        Ok(submission) => submission,
        Err(error) => return refused(StatusCode::BAD_REQUEST, format!("not a submission: {error}")),
    };
    match internal.node.submit(submission).await {
        Ok(ended) => {
            let view = |ended: chopmark_node::Submitted| EndedView {
                request: ended.request.to_string(),
                index: ended.result.ok(),
                code: ended.result.err().map(ledger_core::outcome::RejectionCode::as_str),
            };
            HttpResponse::Ok().json(ended.into_iter().map(view).collect::<Vec<_>>())
        }
        Err(error @ (SubmitError::Full | SubmitError::Stopped(_))) => {
            refused(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
        }
        Err(error) => refused(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
    }
}

async fn status(internal: Data<Internal>) -> HttpResponse {
    match status_of(&internal) {
        Ok(status) => HttpResponse::Ok().json(status),
        Err(error) => HttpResponse::InternalServerError().json(serde_json::json!({ "title": error.to_string() })),
    }
}

fn status_of(internal: &Internal) -> anyhow::Result<NodeStatus> {
    let node = &internal.node;
    let members = node.members()?;
    let published = node.published().ok();
    let note = published.as_ref().and_then(|published| Note::parse(&published.note).ok());
    let cosigned = |note: &Note| {
        let of = |member: &ledger_core::member::Member| {
            let time = note.verified_by(&member.cosigner_verifier()).ok()??.time?;
            Some((member.domain.clone(), time))
        };
        members.iter().filter_map(of).collect()
    };
    let layout = chopmark_node::Layout(internal.folder.node());
    Ok(NodeStatus {
        v: 1,
        member: internal.member.clone(),
        chain: node.chain(),
        height: node.height(),
        size: published.as_ref().map(|published| published.size.0),
        cosigned: note.as_ref().map(cosigned).unwrap_or_default(),
        members: members.iter().map(|member| member.domain.clone()).collect(),
        pool_bytes: node.pool_bytes(),
        failure: node.failure(),
        equivocations: equivocations::read(&layout.equivocations())?.len(),
    })
}
