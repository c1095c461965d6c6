//! `chopmark node`: one member's node, with its read interface and the internal one.

use std::{net::TcpListener, process::ExitCode, sync::Arc, time::Duration};

use actix_web::{
    App, HttpResponse, HttpServer,
    http::StatusCode,
    web::{self, Bytes, Data},
};
use anyhow::Context as _;
use chopmark_node::{
    ClockMs, NetworkConfig, Node, NodeConfig, NodeError, NodeHandle, POOL_BYTES_MAX, PeerTiles, SUBMISSION_BYTES_MAX,
    SubmitError, equivocations, keys::NodeKeys,
};
use ledger_core::{batch::Submission, genesis::Genesis, note::Note};
use tokio::{runtime::Handle, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{
    cli::NodeArgs,
    ledger::{
        self,
        serve::refused,
        wire::{EndedView, RefusalView},
    },
    member::{MemberFolder, NodeFile, PeerSection},
    network::{
        NodeStatus,
        board::Board,
        card::PeerCard,
        peering::{self, HttpSource, OwnCard, Peering, Urls},
        proposal::{PROPOSAL_BYTES_MAX, Proposal},
        propose::GovernanceView,
    },
    peers::KnownPeers,
    reader,
    signals::Signals,
    telemetry,
};

/// How often the node looks whether its ledger has stopped.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Other nodes that are asked for a lost tile before there is a pause.
const TILES_ASKED: usize = 3;
/// How long others may take until what they have proposed is left for the next time.
const LOOK_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Runs until a signal, or until the ledger has stopped by a fault: then whoever runs services
/// starts it again, and it reloads from what is durable.
pub(crate) async fn run(args: NodeArgs) -> anyhow::Result<ExitCode> {
    telemetry::start_logs(args.log_format)?;
    let metrics = telemetry::start_metrics("node")?;
    let folder = MemberFolder(args.data.clone());
    let file = folder.read()?;
    let guard = args.guard.map_or_else(|| folder.guard(&file), Ok)?;
    let keys = NodeKeys::load(&folder.keys())?;
    let genesis = read_genesis(&folder)?;
    let board = Arc::new(Board::open(&folder.0, genesis.chain_id())?);
    let mut known: Vec<String> =
        peering::known_urls(&file, board.notices().await.cards).into_iter().map(|(_, url)| url).collect();
    known.extend(file.node.sources.iter().cloned());
    let urls: Urls = Arc::new(std::sync::Mutex::new(known));
    let http = peering::http()?;
    let stop_node = watch::Sender::new(false);
    let known: Arc<dyn PeerTiles> = Arc::new(KnownPeers::new(http.clone(), Arc::clone(&urls), stop_node.subscribe()));
    let peers = watch::Sender::new(file.peers.iter().map(PeerSection::peer).collect());
    let source = HttpSource {
        runtime: Handle::current(),
        http: http.clone(),
        urls: Arc::clone(&urls),
        state: std::sync::Mutex::default(),
    };
    let clock = folder.clock(&file)?;
    let config = NodeConfig {
        data: folder.node(),
        guard,
        keys,
        domain: file.node.domain.clone(),
        clock: Arc::clone(&clock),
        pool_bytes_max: POOL_BYTES_MAX,
        network: NetworkConfig { listen: file.node.listen, peers: peers.subscribe().into() },
        source: Some(Arc::new(source)),
        // So many of the known ones are asked in a row.
        peer_tiles: vec![known; TILES_ASKED],
        stop: stop_node.subscribe(),
    };
    let bind = |address| TcpListener::bind(address).with_context(|| format!("listen on {address}"));
    let (public, scraped) = (bind(file.node.read)?, bind(file.node.metrics)?);
    let internal = bind(file.node.internal)?;
    // The engine binds its address itself, much later, and cannot say why it fails.
    drop(bind(file.node.listen)?);
    let mut signals = Signals::listen()?;
    let Some(node) = open(config, &mut signals, &stop_node).await? else { return Ok(ExitCode::SUCCESS) };
    let handle = node.handle();
    let (network, shown) = (handle.genesis().network.as_str(), Some(Arc::clone(&board)));
    let reader = reader::serve(&handle, shown, network, (public, scraped), metrics.with_folders(vec![folder.node()]))?;
    let (node_handle, own) = (handle.clone(), OwnCard { keys: folder.keys(), file: file.clone() });
    let peering =
        Arc::new(Peering { node: node_handle, own, board, http, peers, urls, looking: tokio::sync::Mutex::default() });
    let state = Data::new(Internal {
        node: handle.clone(),
        file: file.clone(),
        folder: folder.clone(),
        clock,
        peering: Arc::clone(&peering),
    });
    let server = HttpServer::new(move || {
        App::new()
            .app_data(Data::clone(&state))
            .app_data(web::PayloadConfig::new(SUBMISSION_BYTES_MAX))
            .app_data(web::JsonConfig::default().limit(PROPOSAL_BYTES_MAX))
            .configure(|config| ledger::serve::register(config, &state.node))
            .route("/internal/v1/submissions", web::post().to(submit))
            .route("/internal/v1/status", web::get().to(status))
            .route("/internal/v1/governance", web::get().to(governance))
            .route("/internal/v1/proposals", web::post().to(propose))
    });
    let server = server.workers(2).disable_signals().shutdown_timeout(1).listen(internal)?.run();
    let stopper = server.handle();
    let served = tokio::spawn(server);
    let stop = CancellationToken::new();
    let looked = tokio::spawn(peering.run(stop.clone()));
    tracing::info!(member = file.node.domain, read = %file.node.read, "ready");

    let failure = loop {
        tokio::select! {
            () = signals.wait() => break None,
            () = tokio::time::sleep(WATCH_INTERVAL) => if let Some(failure) = handle.failure() { break Some(failure) },
        }
    };
    stop.cancel();
    stop_node.send_replace(true);
    looked.await?;
    stopper.stop(true).await;
    served.await??;
    reader.stop().await?;
    tokio::task::spawn_blocking(move || node.close()).await?;
    match failure {
        None => Ok(ExitCode::SUCCESS),
        Some(failure) => Err(anyhow::anyhow!("the ledger has stopped: {failure}")),
    }
}

/// Opens the node; `None` where a signal comes first. Peers that are asked then are not waited for.
async fn open(config: NodeConfig, signals: &mut Signals, stop: &watch::Sender<bool>) -> anyhow::Result<Option<Node>> {
    let mut opening = tokio::task::spawn_blocking(move || Node::open(config));
    tokio::select! {
        opened = &mut opening => return Ok(Some(opened??)),
        () = signals.wait() => {}
    }
    stop.send_replace(true);
    match opening.await? {
        Ok(node) => tokio::task::spawn_blocking(move || node.close()).await?,
        Err(NodeError::Stopped) => tracing::info!("stopped before the node had started"),
        // Refused by itself in this moment: that has to be seen.
        Err(error) => return Err(error.into()),
    }
    Ok(None)
}

struct Internal {
    node: NodeHandle,
    file: NodeFile,
    folder: MemberFolder,
    clock: ClockMs,
    peering: Arc<Peering>,
}

pub(crate) fn read_genesis(folder: &MemberFolder) -> anyhow::Result<Genesis> {
    let path = chopmark_node::Layout(folder.node()).genesis();
    let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    Genesis::parse(&bytes).with_context(|| format!("{} is no genesis", path.display()))
}

/// What `chopmark network propose` and its like start from.
async fn governance(internal: Data<Internal>) -> HttpResponse {
    // What was proposed or approved elsewhere a moment ago counts too.
    let _late = tokio::time::timeout(LOOK_TIMEOUT, internal.peering.look_up()).await;
    match internal.node.governance() {
        Ok(governance) => {
            let notices = internal.peering.board.notices().await;
            let urls = peering::known_urls(&internal.file, notices.cards);
            let (chain, proposals) = (internal.node.chain(), notices.proposals);
            HttpResponse::Ok().json(GovernanceView { chain, governance, proposals, urls, v: 1 })
        }
        Err(error) => HttpResponse::InternalServerError().json(serde_json::json!({ "title": error.to_string() })),
    }
}

/// Keeps a proposal with its approvals, and shows it to the others.
async fn propose(internal: Data<Internal>, proposal: web::Json<Proposal>) -> HttpResponse {
    let taken = match internal.node.governance() {
        Ok(governance) => internal.peering.board.take_proposal(proposal.into_inner(), &governance).await,
        Err(error) => Err(error.into()),
    };
    match taken {
        Ok(proposal) => HttpResponse::Ok().json(proposal),
        Err(error) => HttpResponse::UnprocessableEntity().json(serde_json::json!({ "title": format!("{error:#}") })),
    }
}

/// Takes one encoded submission (`ledger_core::batch::Submission`) and answers when every
/// operation of it has its outcome in a decided block.
async fn submit(internal: Data<Internal>, body: Bytes) -> HttpResponse {
    let refusal = |title: String| RefusalView { title, ..RefusalView::default() };
    let submission = match Submission::decode(&body) {
        Ok(submission) => submission,
        Err(error) => return refused(StatusCode::BAD_REQUEST, refusal(format!("not a submission: {error}"))),
    };
    let error = match internal.node.submit(submission).await {
        Ok(ended) => {
            let view = |ended: chopmark_node::Submitted| EndedView {
                request: ended.request,
                index: ended.result.ok(),
                code: ended.result.err(),
            };
            return HttpResponse::Ok().json(ended.into_iter().map(view).collect::<Vec<_>>());
        }
        Err(error) => error,
    };
    let refusal = refusal(error.to_string());
    match error {
        SubmitError::Full => refused(StatusCode::SERVICE_UNAVAILABLE, RefusalView { full: true, ..refusal }),
        SubmitError::Stopped(_) => refused(StatusCode::SERVICE_UNAVAILABLE, refusal),
        SubmitError::Malformed(malformed) => {
            refused(StatusCode::UNPROCESSABLE_ENTITY, RefusalView { malformed, ..refusal })
        }
        SubmitError::Refused(_) => refused(StatusCode::UNPROCESSABLE_ENTITY, refusal),
    }
}

async fn status(internal: Data<Internal>) -> HttpResponse {
    let cards = internal.peering.board.notices().await.cards;
    match status_of(&internal, cards) {
        Ok(status) => HttpResponse::Ok().json(status),
        Err(error) => HttpResponse::InternalServerError().json(serde_json::json!({ "title": error.to_string() })),
    }
}

fn status_of(internal: &Internal, cards: Vec<PeerCard>) -> anyhow::Result<NodeStatus> {
    let node = &internal.node;
    let members = node.members()?;
    let in_force = |domain: &String| members.iter().any(|member| member.domain == *domain);
    let urls = peering::known_urls(&internal.file, cards).into_iter().filter(|(domain, _)| in_force(domain)).collect();
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
    let no_vote = node.no_vote();
    Ok(NodeStatus {
        v: 1,
        member: internal.file.node.domain.clone(),
        chain: node.chain(),
        height: node.height(),
        size: published.as_ref().map(|published| published.size.0),
        cosigned: note.as_ref().map(cosigned).unwrap_or_default(),
        cosignatures: node.cosignatures()?.into_iter().map(Into::into).collect(),
        members: members.iter().map(|member| member.domain.clone()).collect(),
        urls,
        votes: no_vote.is_none(),
        no_vote: no_vote.map(|reason| reason.to_string()),
        pool_bytes: node.pool_bytes(),
        failure: node.failure(),
        clock_offset_ms: node.clock_offset_ms(),
        damaged: node.damaged().len(),
        equivocations: equivocations::read(&layout.equivocations())?.len(),
        time_ms: Some((internal.clock)()),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
    })
}
