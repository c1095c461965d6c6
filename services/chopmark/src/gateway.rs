//! `chopmark gateway`: serves the API. Holds no state: any number of them may run, and any may be
//! killed at any line.

use std::{net::TcpListener, process::ExitCode, sync::Arc};

use anyhow::{Context as _, bail};
use chopmark_courier::egress::Egress;
use chopmark_domain::{Ports, Services, Settings, endpoints::WebhookPorts, id::IdIssuer, seal::KeyEncryptionKey};
use chopmark_gateway::{Gateway, GatewayConfig, ObjectOriginals, Serving};
use chopmark_store::PostgresRole;
use ledger_core::genesis::Network;
use zeroize::Zeroizing;

use crate::{
    adapters::{self, Stores},
    cli::RoleArgs,
    config::Configured,
    courier::Urls,
    ledger::remote::RemoteReader,
    signals::Signals,
    system::System,
    telemetry,
};

/// Runs until a signal.
pub(crate) async fn run(args: RoleArgs) -> anyhow::Result<ExitCode> {
    telemetry::start_logs(args.log_format)?;
    let metrics = telemetry::start_metrics("gateway")?;
    let configured = Configured::read(&args.config)?;
    // Before anybody could hear of it.
    let mut signals = Signals::listen()?;
    let stores = adapters::database(&configured, PostgresRole::Gateway).await?;
    let fence = Fence { stores, issuer: IdIssuer::new };
    let serving = open(&configured, fence, move || metrics.render()).await?;
    let stopper = serving.stopper();
    let mut served = tokio::spawn(serving.run());
    tokio::select! {
        () = signals.wait() => {}
        ended = &mut served => {
            ended??;
            anyhow::bail!("the server ended by itself");
        }
    }
    stopper.stop().await;
    served.await??;
    Ok(ExitCode::SUCCESS)
}

/// What keeps one tenant from another's records before the database does: the queries of the store, and
/// the tags in ids and cursors.
pub(crate) struct Fence {
    pub(crate) stores: Stores,
    /// Makes the issuer of ids from the deployment's key.
    pub(crate) issuer: fn(Zeroizing<[u8; 32]>, &str) -> IdIssuer,
}

/// A gateway on its listeners, not yet served.
pub(crate) async fn open(
    configured: &Configured,
    Fence { stores, issuer }: Fence,
    metrics: impl Fn() -> String + Send + Sync + 'static,
) -> anyhow::Result<Serving> {
    let section = configured.gateway()?;
    let bind = |address| TcpListener::bind(address).with_context(|| format!("listen on {address}"));
    let (public, internal) = (bind(section.listen)?, bind(section.internal)?);
    let services = services(configured, stores.clone(), issuer).await?;
    let network = services.network.clone();
    let defaults = GatewayConfig::default();
    let config = GatewayConfig { workers: section.workers, trusted_proxies: section.trusted_proxies, ..defaults };
    let mut gateway = Gateway::new(Arc::new(services), config, metrics);
    if let Some(sandbox) = configured.sandbox() {
        sandbox_beside_live(configured, &sandbox)?;
        gateway = gateway.with_sandbox(Arc::new(self::services(&sandbox, stores, issuer).await?));
    }
    let serving = gateway.serve(public, internal)?;
    tracing::info!(listen = %section.listen, internal = %section.internal, network, "ready");
    Ok(serving)
}

/// Keys, topics and rows are told apart by the names of the networks, so that both cannot have one name.
pub(crate) fn sandbox_beside_live(configured: &Configured, sandbox: &Configured) -> anyhow::Result<()> {
    if configured.genesis()?.network != Network::Live {
        bail!("ledger.genesis: [sandbox] stands beside a `live` network, and this genesis is not of one");
    }
    if sandbox.genesis()?.network != Network::Sandbox {
        bail!("sandbox.genesis: the genesis of a `sandbox` network is expected");
    }
    Ok(())
}

/// The use cases of one network over the adapters that its configuration names.
async fn services(
    configured: &Configured,
    stores: Stores,
    issuer: fn(Zeroizing<[u8; 32]>, &str) -> IdIssuer,
) -> anyhow::Result<Services> {
    let genesis = configured.genesis()?;
    let (network, chain) = (genesis.network.as_str(), genesis.chain_id());
    let secrets = configured.secrets()?;
    let random = Arc::new(System);
    let originals = match configured.originals(configured.gateway()?) {
        Some(folder) => {
            let originals = ObjectOriginals::in_folder(&folder, random.clone());
            Some(Arc::new(originals.with_context(|| format!("gateway.originals, {}", folder.display()))?) as Arc<_>)
        }
        None => None,
    };
    let adapters::Shared { cache, quotas } = adapters::cache(configured, &chain)?;
    let ports = Ports {
        queue: Arc::new(adapters::queue(configured, network).await?),
        cache,
        quotas,
        store: stores.operations,
        projection: stores.projection,
        tenants: stores.tenants,
        ledger: Arc::new(RemoteReader::new(&configured.nodes()?, genesis)?),
        clock: random.clone(),
        random,
        originals,
        webhooks: WebhookPorts {
            store: stores.webhooks,
            urls: Arc::new(Urls(Egress::new(configured.webhooks().allowed_networks.clone()))),
        },
    };
    let (ids, kek) = (issuer(secrets.ids, network), KeyEncryptionKey::new(secrets.key_encryption_key));
    Ok(Services::new(ports, Settings::new(network, chain, ids, kek, secrets.api_keys)))
}
