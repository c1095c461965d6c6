//! Opens what the configuration names: the adapter is chosen by the URL.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use chopmark_cache::{MemoryCache, MemoryQuotas, RedisCache, RedisQuotas};
use chopmark_domain::{
    ports::{DeliveryStore, IdempotencyCache, OperationStore, ProjectionStore, TenantAdmin, WebhookStore},
    quota::Quotas,
};
use chopmark_queue::KafkaQueue;
use chopmark_store::{PostgresRole, PostgresSettings, PostgresStore, SqliteStore};
use ledger_core::Hash32;

use crate::config::Configured;

/// One database behind its ports.
#[derive(Clone)]
pub(crate) struct Stores {
    pub(crate) operations: Arc<dyn OperationStore>,
    pub(crate) projection: Arc<dyn ProjectionStore>,
    pub(crate) tenants: Arc<dyn TenantAdmin>,
    pub(crate) webhooks: Arc<dyn WebhookStore>,
    pub(crate) deliveries: Arc<dyn DeliveryStore>,
}

impl Stores {
    pub(crate) fn of<S>(store: S) -> Self
    where
        S: OperationStore + ProjectionStore + TenantAdmin + WebhookStore + DeliveryStore + 'static,
    {
        let store = Arc::new(store);
        Self {
            operations: store.clone(),
            projection: store.clone(),
            tenants: store.clone(),
            webhooks: store.clone(),
            deliveries: store,
        }
    }
}

/// Opens the database for one kind of process: in PostgreSQL each logs in as the role of its work.
pub(crate) async fn database(configured: &Configured, role: PostgresRole) -> anyhow::Result<Stores> {
    let url = configured.database()?;
    match scheme(&url) {
        "postgres" | "postgresql" => {
            let settings = PostgresSettings::new(&url, role).context("database.url")?;
            Ok(Stores::of(PostgresStore::open(settings).await?))
        }
        "sqlite" => Ok(Stores::of(SqliteStore::open(&url).await?)),
        other => bail!("database.url begins with {other}: and not with postgres: or sqlite:"),
    }
}

/// What gateways share besides the database: idempotency answers, and what tenants have used.
pub(crate) struct Shared {
    pub(crate) cache: Arc<dyn IdempotencyCache>,
    pub(crate) quotas: Arc<dyn Quotas>,
}

/// Opens the cache.
pub(crate) fn cache(configured: &Configured, chain: &Hash32) -> anyhow::Result<Shared> {
    let url = configured.cache()?;
    match scheme(&url) {
        "memory" => Ok(Shared { cache: Arc::new(MemoryCache::default()), quotas: Arc::new(MemoryQuotas::default()) }),
        "redis" | "rediss" => {
            let cache = Arc::new(RedisCache::new(&url, chain).context("cache.url")?);
            Ok(Shared { cache, quotas: Arc::new(RedisQuotas::new(&url, chain).context("cache.url")?) })
        }
        other => bail!("cache.url begins with {other}: and not with redis:, rediss: or memory:"),
    }
}

/// Opens the queue of a network.
pub(crate) async fn queue(configured: &Configured, network: &str) -> anyhow::Result<KafkaQueue> {
    KafkaQueue::open(network, configured.kafka()?).await.context("open the queue")
}

/// What comes before the colon; never more of the URL, which may hold a password.
fn scheme(url: &str) -> &str {
    url.split_once(':').map_or("nothing", |(scheme, _)| scheme)
}
