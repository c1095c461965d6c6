//! `chopmark courier`: delivers webhooks. Holds no state: any number of them may run, and any may be killed
//! at any line.

use std::{net::TcpListener, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use chopmark_courier::{
    Courier, CourierConfig, CourierPorts,
    client::{Client, ClientSettings},
    egress::{Egress, UrlRefusal},
    schedule::Schedule,
};
use chopmark_domain::{
    id::IdIssuer,
    ports::{DeliveryStore, UrlFault, WebhookUrls},
    seal::KeyEncryptionKey,
};
use chopmark_store::PostgresRole;
use tokio_util::sync::CancellationToken;

use crate::{
    adapters,
    cli::RoleArgs,
    committer::{Loops, wait_for_end},
    config::{Configured, WebhooksSection},
    internal,
    signals::Signals,
    system::System,
    telemetry,
};

/// Runs until a signal, or until the database turns out to be broken.
pub(crate) async fn run(args: RoleArgs) -> anyhow::Result<ExitCode> {
    telemetry::start_logs(args.log_format)?;
    let metrics = telemetry::start_metrics("courier")?;
    let configured = Configured::read(&args.config)?;
    let section = configured.courier()?;
    let network = configured.genesis()?.network.as_str();
    let keys = configured.courier_keys()?;
    let listener = TcpListener::bind(section.internal).with_context(|| format!("listen on {}", section.internal))?;
    let signals = Signals::listen()?;
    let store = adapters::database(&configured, PostgresRole::Courier).await?.deliveries;
    let roots = configured.webhook_roots()?;
    let courier = courier(store, keys, network, configured.webhooks(), roots)?;
    let stop = CancellationToken::new();
    let mut loops = Loops::new();
    start(&mut loops, courier, &stop);
    let server = internal::serve(listener, metrics)?;
    let stopper = server.handle();
    let served = tokio::spawn(server);
    tracing::info!(internal = %section.internal, network, "ready");
    let ended = wait_for_end(signals, &mut loops).await;
    stop.cancel();
    while let Some(loop_ended) = loops.join_next().await {
        loop_ended??;
    }
    stopper.stop(false).await;
    served.await??;
    ended.map(|()| ExitCode::SUCCESS)
}

/// A courier over a database, with the bounds of the configuration.
pub(crate) fn courier(
    store: Arc<dyn DeliveryStore>,
    (ids, kek): (IdIssuer, KeyEncryptionKey),
    network: &str,
    section: &WebhooksSection,
    roots: Vec<Vec<u8>>,
) -> anyhow::Result<Courier> {
    let egress = Arc::new(Egress::new(section.allowed_networks.clone()));
    let client = Client::new(Arc::clone(&egress), &ClientSettings { roots, ..ClientSettings::default() })?;
    let ports = CourierPorts { store, clock: Arc::new(System), random: Arc::new(System), kek, ids };
    let mut config = CourierConfig::new(network);
    if let Some(delays) = &section.retry_after_seconds {
        config.schedule = Schedule::new(delays.iter().copied().map(Duration::from_secs).collect());
    }
    Ok(Courier::new(ports, client, egress, config))
}

/// Starts a courier beside other loops.
pub(crate) fn start(loops: &mut Loops, courier: Courier, stop: &CancellationToken) {
    let token = stop.clone();
    loops.spawn(async move { Ok(courier.run(token).await?) });
}

/// The courier's rules, as gateways ask them.
pub(crate) struct Urls(pub(crate) Egress);

impl WebhookUrls for Urls {
    fn check(&self, text: &str) -> Result<String, UrlFault> {
        let url = self.0.parse(text).map_err(|refusal| match refusal {
            UrlRefusal::Malformed => UrlFault::Malformed,
            UrlRefusal::Scheme => UrlFault::Scheme,
            UrlRefusal::UserInfo => UrlFault::UserInfo,
            UrlRefusal::Fragment => UrlFault::Fragment,
            UrlRefusal::Port => UrlFault::Port,
            UrlRefusal::Host => UrlFault::Host,
            UrlRefusal::Address(_) => UrlFault::Address,
        })?;
        Ok(url.url().as_str().to_owned())
    }
}
