//! `chopmark committer`: carries operations from the queue to the ledger, and verified blocks into the
//! database. Holds no state: any number of them may run, and any may be killed at any line.

use std::{net::TcpListener, process::ExitCode, sync::Arc};

use anyhow::Context as _;
use chopmark_committer::{ProjectConfig, ProjectLoop, SubmitConfig, SubmitLoop, SubmitPorts};
use chopmark_store::PostgresRole;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    adapters, cli::RoleArgs, config::Configured, internal, ledger::remote::RemoteReader, signals::Signals,
    system::System, telemetry,
};

/// The loops of a role; one that ends by itself ends the process.
pub(crate) type Loops = JoinSet<anyhow::Result<()>>;

/// Runs until a signal, or until a loop has stopped by a fault: then whoever runs services starts it
/// again, and it goes on from what is durable.
pub(crate) async fn run(args: RoleArgs) -> anyhow::Result<ExitCode> {
    telemetry::start_logs(args.log_format)?;
    let metrics = telemetry::start_metrics("committer")?;
    let configured = Configured::read(&args.config)?;
    let section = configured.committer()?;
    let (genesis, submitter) = (configured.genesis()?, configured.submitter()?);
    let network = genesis.network;
    let listener = TcpListener::bind(section.internal).with_context(|| format!("listen on {}", section.internal))?;
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
    let server = internal::serve(listener, metrics)?;
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
            Ok(Err(error)) => Err(error.context("a loop stopped")),
            Err(error) => Err(error.into()),
        },
    }
}
