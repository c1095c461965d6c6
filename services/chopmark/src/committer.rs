//! `chopmark committer`: carries operations from the queue to the ledger, and verified blocks into the
//! database. Holds no state: any number of them may run, and any may be killed at any line.

use std::{net::TcpListener, process::ExitCode, sync::Arc};

use actix_web::{App, HttpResponse, HttpServer, web};
use anyhow::Context as _;
use chopmark_committer::{ProjectConfig, ProjectLoop, SubmitConfig, SubmitLoop, SubmitPorts};
use chopmark_store::PostgresRole;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    adapters, cli::RoleArgs, config::Configured, ledger::remote::RemoteReader, signals::Signals, system::System,
    telemetry,
};

/// The loops of a committer; one that ends by itself ends the process.
pub(crate) type Loops = JoinSet<anyhow::Result<()>>;

/// Runs until a signal, or until a loop has stopped by a fault: then whoever runs services starts it
/// again, and it goes on from what is durable.
pub(crate) async fn run(args: RoleArgs) -> anyhow::Result<ExitCode> {
    telemetry::start_logs(args.log_format)?;
    let metrics = telemetry::start_metrics()?;
    let configured = Configured::read(&args.config)?;
    let section = configured.committer()?;
    let (genesis, submitter) = (configured.genesis()?, configured.submitter()?);
    let network = genesis.network;
    let internal = TcpListener::bind(section.internal).with_context(|| format!("listen on {}", section.internal))?;
    let signals = Signals::listen()?;
    let stores = adapters::database(&configured, PostgresRole::Committer).await?;
    let queue = adapters::queue(&configured, network.as_str()).await?;
    let reader = RemoteReader::new(&configured.nodes()?, genesis.clone())?;
    let ports = SubmitPorts {
        consumer: Box::new(queue.consumer().await?),
        store: stores.operations,
        ledger: Arc::new(reader.writer(submitter)),
        clock: Arc::new(System),
    };
    let stop = CancellationToken::new();
    let submit = SubmitLoop::new(ports, SubmitConfig::new(network));
    let project = ProjectLoop::new(Arc::new(reader), stores.projection, genesis, ProjectConfig::default());
    let mut loops = start(submit, project, &stop);
    let server = serve(internal, metrics)?;
    let stopper = server.handle();
    let served = tokio::spawn(server);
    tracing::info!(internal = %section.internal, network = network.as_str(), "ready");
    let ended = wait_for_end(signals, &mut loops).await;
    stop.cancel();
    while let Some(loop_ended) = loops.join_next().await {
        loop_ended??;
    }
    stopper.stop(false).await;
    served.await??;
    ended.map(|()| ExitCode::SUCCESS)
}

/// Starts both loops.
pub(crate) fn start(submit: SubmitLoop, project: ProjectLoop, stop: &CancellationToken) -> Loops {
    let mut loops = Loops::new();
    let token = stop.clone();
    loops.spawn(async move { Ok(submit.run(token).await?) });
    let token = stop.clone();
    loops.spawn(async move { Ok(project.run(token).await?) });
    loops
}

/// Waits for a signal, or for a loop that ended by a fault.
pub(crate) async fn wait_for_end(mut signals: Signals, loops: &mut Loops) -> anyhow::Result<()> {
    tokio::select! {
        () = signals.wait() => Ok(()),
        Some(ended) = loops.join_next() => match ended {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.context("a committer loop stopped")),
            Err(error) => Err(error.into()),
        },
    }
}

/// Health and metrics. A committer that runs is live: what it waits for, metrics tell.
fn serve(listener: TcpListener, metrics: PrometheusHandle) -> anyhow::Result<actix_web::dev::Server> {
    let metrics = web::Data::new(metrics);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::clone(&metrics))
            .route(
                "/health/live",
                web::get().to(async || HttpResponse::Ok().json(serde_json::json!({ "status": "ok" }))),
            )
            .route("/metrics", web::get().to(render))
    });
    Ok(server.workers(1).disable_signals().shutdown_timeout(1).listen(listener)?.run())
}

async fn render(metrics: web::Data<PrometheusHandle>) -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(metrics.render())
}
