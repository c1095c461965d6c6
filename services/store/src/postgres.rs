//! PostgreSQL behind the ports.
//!
//! A process logs in as one role, and may do what that role's part of the work needs
//! ([`PostgresRole`]); calls for others fail. Every call is one transaction on one of a few connections,
//! and the reads of a gateway set the tenant that they act for in it, so that row-level security holds
//! whatever a query says (ADR 0017). Every wait has a bound: a database that is away, full or stuck is an
//! error of the port, and the next call finds its own way back.
//!
//! When a call returns `Ok`, its commit is on the server's disk.

mod accept;
mod connect;
mod examine;
mod failure;
mod migrate;
mod project;
mod read;
mod scope;
mod settings;
mod signing_keys;
mod tenants;
#[path = "webhooks.rs"]
#[expect(clippy::duplicate_mod, reason = "the same statements, compiled for each database")]
mod webhooks;

use async_trait::async_trait;
use chopmark_domain::{
    id::ResourceKey,
    ports::{
        DeliveryStore, EndpointInsertion, OperationStore, PortResult, ProjectionStore, TenantAdmin, TenantStore,
        WebhookStore,
    },
    quota::Limits,
    record::{AcceptedOperation, CaseLink, ListQuery, OperationRow, ProjectedBlock, ProjectionCursor},
    tenant::{ApiKeyRow, SigningKeyRow, TenantRow},
    webhook::{
        AttemptRow, Backlog, ClaimedDelivery, DeliveryQuery, DeliveryRow, EndpointRow, NextStep, OutboxEvent,
        ReplayRange,
    },
};
use diesel::PgConnection;
use ledger_core::hash::Hash32;
use tokio::task::spawn_blocking;

pub use self::{
    connect::PostgresOpenError,
    examine::{ConnectFault, PostgresExamination},
    settings::{PostgresRole, PostgresSettings, UrlError},
};
use self::{scope::Scope, settings::DatabaseUrl};
use crate::{failure::Failure, filter::TenantFilter, pool::Pool, rules::TRANSACTION_ROWS_MAX};

/// What differs between the databases in [`webhooks`].
mod dialect {
    pub(super) type Connection = diesel::PgConnection;
    /// Whoever changes an endpoint and its deliveries holds the endpoint first, so that nobody waits in a circle.
    pub(super) const LOCK: &str = "FOR NO KEY UPDATE";
    /// What another courier is claiming right now is its.
    pub(super) const SKIP_LOCKED: &str = "FOR NO KEY UPDATE OF d SKIP LOCKED";
}

/// The database of a production deployment: all three database ports, as far as its role reaches.
#[derive(Debug, Clone)]
pub struct PostgresStore {
    pool: Pool<PostgresSettings>,
    filter: TenantFilter,
}

impl PostgresStore {
    /// Opens a database that has been migrated. Refuses one of another version, a role that row-level
    /// security does not bind or that is another process's, and a table on which it is not forced.
    pub async fn open(settings: PostgresSettings) -> Result<Self, PostgresOpenError> {
        let task = spawn_blocking(move || {
            connect::check(&settings)?;
            let connections = settings.connections.max(1);
            Ok(Self { pool: Pool::new(settings, connections), filter: TenantFilter::ON })
        });
        task.await.map_err(|error| PostgresOpenError::Worker(error.to_string()))?
    }

    /// Opens one whose reads for a tenant do not name it, so that row-level security alone keeps to its
    /// rows. For the test that shows that it does, and nothing else (ADR 0023).
    #[cfg(feature = "unfiltered")]
    pub async fn open_unfiltered(settings: PostgresSettings) -> Result<Self, PostgresOpenError> {
        Ok(Self { filter: TenantFilter::OFF, ..Self::open(settings).await? })
    }

    /// Applies the migrations that the database lacks and returns their versions: as `chopmark_owner`,
    /// or as whoever may become it. All are applied or none; two at once wait for each other.
    pub async fn migrate(url: &str) -> Result<Vec<String>, PostgresOpenError> {
        let url = DatabaseUrl::parse(url)?;
        let task = spawn_blocking(move || migrate::migrate(&url));
        task.await.map_err(|error| PostgresOpenError::Worker(error.to_string()))?
    }

    async fn run<T: Send + 'static>(
        &self,
        scope: Scope,
        work: impl Fn(&mut PgConnection) -> Result<T, Failure> + Send + 'static,
    ) -> PortResult<T> {
        self.pool.run(move |connection| failure::transact(connection, &scope, work)).await
    }
}

#[async_trait]
impl OperationStore for PostgresStore {
    /// Many rows take several transactions. Dying between two of them is harmless: the caller has
    /// no answer yet and inserts all of them again.
    async fn insert_accepted(&self, mut rows: Vec<AcceptedOperation>) -> PortResult<()> {
        while !rows.is_empty() {
            let rest = rows.split_off(rows.len().min(TRANSACTION_ROWS_MAX));
            self.run(Scope::Role, move |connection| accept::insert(connection, &rows)).await?;
            rows = rest;
        }
        Ok(())
    }

    async fn find(&self, network: &str, tenant: &str, keys: &[ResourceKey]) -> PortResult<Vec<Option<OperationRow>>> {
        let (scope, filter, keys) = (Scope::tenant(network, tenant), self.filter, keys.to_vec());
        let (network, tenant) = (network.to_owned(), tenant.to_owned());
        self.run(scope, move |connection| read::find(connection, filter, &network, &tenant, &keys)).await
    }

    async fn list(&self, query: ListQuery) -> PortResult<Vec<OperationRow>> {
        let (scope, filter) = (Scope::tenant(&query.network, &query.tenant), self.filter);
        self.run(scope, move |connection| read::list(connection, filter, &query)).await
    }

    async fn sealed_private(
        &self,
        network: &str,
        tenant: &str,
        op: &Hash32,
        operation_hash: &Hash32,
    ) -> PortResult<Option<Vec<u8>>> {
        let (scope, filter, op, attempt) = (Scope::tenant(network, tenant), self.filter, *op, *operation_hash);
        let (network, tenant) = (network.to_owned(), tenant.to_owned());
        let work = move |connection: &mut _| read::sealed_private(connection, filter, &network, &tenant, &op, &attempt);
        self.run(scope, work).await
    }

    async fn case_links(
        &self,
        network: &str,
        tenant: &str,
        case: &ResourceKey,
        after: u64,
        limit: u32,
    ) -> PortResult<Vec<CaseLink>> {
        let (scope, filter, case) = (Scope::tenant(network, tenant), self.filter, *case);
        let (network, tenant) = (network.to_owned(), tenant.to_owned());
        let work =
            move |connection: &mut _| read::case_links(connection, filter, &network, &tenant, &case, after, limit);
        self.run(scope, work).await
    }
}

#[async_trait]
impl ProjectionStore for PostgresStore {
    async fn cursor(&self, network: &str) -> PortResult<Option<ProjectionCursor>> {
        let network = network.to_owned();
        self.run(Scope::Role, move |connection| project::cursor(connection, &network)).await
    }

    async fn project(&self, block: ProjectedBlock) -> PortResult<bool> {
        self.run(Scope::Role, move |connection| project::project(connection, &block)).await
    }

    async fn reset(&self, network: &str) -> PortResult<()> {
        let network = network.to_owned();
        let work = move |connection: &mut _| {
            failure::transact(connection, &Scope::Role, |connection| project::reset(connection, &network))
        };
        self.pool.run_within(None, work).await
    }
}

#[async_trait]
impl TenantStore for PostgresStore {
    async fn insert_tenant(&self, tenant: TenantRow) -> PortResult<bool> {
        self.run(Scope::Role, move |connection| tenants::insert(connection, tenant.clone())).await
    }

    async fn tenant(&self, network: &str, id: &str) -> PortResult<Option<TenantRow>> {
        let (scope, filter) = (Scope::tenant(network, id), self.filter);
        let (network, id) = (network.to_owned(), id.to_owned());
        self.run(scope, move |connection| tenants::find(connection, filter, &network, &id)).await
    }

    async fn insert_api_key(&self, key: ApiKeyRow) -> PortResult<()> {
        self.run(Scope::Role, move |connection| tenants::insert_key(connection, key.clone())).await
    }

    async fn api_key(&self, hash: &Hash32) -> PortResult<Option<ApiKeyRow>> {
        let hash = *hash;
        self.run(Scope::ApiKey(hash), move |connection| tenants::find_key(connection, &hash)).await
    }

    async fn revoke_api_key(&self, id: &str, at_ms: u64) -> PortResult<bool> {
        let id = id.to_owned();
        self.run(Scope::Role, move |connection| tenants::revoke_key(connection, &id, at_ms)).await
    }

    async fn signing_key(&self, network: &str, tenant: &str, id: &str) -> PortResult<Option<SigningKeyRow>> {
        let (scope, filter) = (Scope::tenant(network, tenant), self.filter);
        let (network, tenant, id) = (network.to_owned(), tenant.to_owned(), id.to_owned());
        self.run(scope, move |connection| signing_keys::find(connection, filter, &network, &tenant, &id)).await
    }
}

#[async_trait]
impl TenantAdmin for PostgresStore {
    async fn tenants(&self, network: &str) -> PortResult<Vec<TenantRow>> {
        let network = network.to_owned();
        self.run(Scope::Role, move |connection| tenants::all(connection, &network)).await
    }

    async fn set_tenant_active(&self, network: &str, id: &str, active: bool) -> PortResult<bool> {
        let (network, id) = (network.to_owned(), id.to_owned());
        self.run(Scope::Role, move |connection| tenants::set_active(connection, &network, &id, active)).await
    }

    async fn set_tenant_limits(&self, network: &str, id: &str, limits: Limits) -> PortResult<bool> {
        let (network, id) = (network.to_owned(), id.to_owned());
        self.run(Scope::Role, move |connection| tenants::set_limits(connection, &network, &id, limits)).await
    }

    async fn api_keys(&self, network: &str, tenant: &str) -> PortResult<Vec<ApiKeyRow>> {
        let (network, tenant) = (network.to_owned(), tenant.to_owned());
        self.run(Scope::Role, move |connection| tenants::keys(connection, &network, &tenant)).await
    }

    async fn expire_api_key(&self, id: &str, at_ms: u64) -> PortResult<bool> {
        let id = id.to_owned();
        self.run(Scope::Role, move |connection| tenants::expire_key(connection, &id, at_ms)).await
    }

    async fn set_signatures_required(&self, network: &str, id: &str, required: bool) -> PortResult<bool> {
        let (network, id) = (network.to_owned(), id.to_owned());
        self.run(Scope::Role, move |connection| signing_keys::set_required(connection, &network, &id, required)).await
    }

    async fn insert_signing_key(&self, key: SigningKeyRow) -> PortResult<()> {
        self.run(Scope::Role, move |connection| signing_keys::insert(connection, key.clone())).await
    }

    async fn signing_keys(&self, network: &str, tenant: &str) -> PortResult<Vec<SigningKeyRow>> {
        let (network, tenant) = (network.to_owned(), tenant.to_owned());
        self.run(Scope::Role, move |connection| signing_keys::all(connection, &network, &tenant)).await
    }

    async fn revoke_signing_key(&self, network: &str, id: &str, at_ms: u64) -> PortResult<bool> {
        let (network, id) = (network.to_owned(), id.to_owned());
        self.run(Scope::Role, move |connection| signing_keys::revoke(connection, &network, &id, at_ms)).await
    }
}

#[async_trait]
impl WebhookStore for PostgresStore {
    async fn insert_endpoint(&self, endpoint: EndpointRow, most: u32) -> PortResult<EndpointInsertion> {
        let scope = Scope::tenant(&endpoint.network, &endpoint.tenant);
        self.run(scope, move |connection| webhooks::insert_endpoint(connection, &endpoint, most)).await
    }

    async fn endpoints(&self, network: &str, tenant: &str) -> PortResult<Vec<EndpointRow>> {
        let filter = self.filter;
        let scope = Scope::tenant(network, tenant);
        let (network, tenant) = (network.to_owned(), tenant.to_owned());
        self.run(scope, move |connection| webhooks::endpoints(connection, filter, &network, &tenant)).await
    }

    async fn update_endpoint(&self, endpoint: EndpointRow) -> PortResult<bool> {
        let filter = self.filter;
        let scope = Scope::tenant(&endpoint.network, &endpoint.tenant);
        self.run(scope, move |connection| webhooks::update_endpoint(connection, filter, &endpoint)).await
    }

    async fn delete_endpoint(&self, network: &str, tenant: &str, id: &ResourceKey) -> PortResult<bool> {
        let filter = self.filter;
        let scope = Scope::tenant(network, tenant);
        let (network, tenant, id) = (network.to_owned(), tenant.to_owned(), *id);
        self.run(scope, move |connection| webhooks::delete_endpoint(connection, filter, &network, &tenant, &id)).await
    }

    async fn push_event(&self, event: OutboxEvent, endpoint: &ResourceKey) -> PortResult<()> {
        let scope = Scope::tenant(&event.network, &event.tenant);
        let endpoint = *endpoint;
        self.run(scope, move |connection| webhooks::push_event(connection, &event, &endpoint)).await
    }

    async fn deliveries(&self, query: DeliveryQuery) -> PortResult<Vec<DeliveryRow>> {
        let filter = self.filter;
        let scope = Scope::tenant(&query.network, &query.tenant);
        self.run(scope, move |connection| webhooks::deliveries(connection, filter, &query)).await
    }

    async fn delivery(
        &self,
        network: &str,
        tenant: &str,
        id: &ResourceKey,
    ) -> PortResult<Option<(DeliveryRow, Vec<AttemptRow>)>> {
        let filter = self.filter;
        let scope = Scope::tenant(network, tenant);
        let (network, tenant, id) = (network.to_owned(), tenant.to_owned(), *id);
        self.run(scope, move |connection| webhooks::delivery(connection, filter, &network, &tenant, &id)).await
    }

    async fn replay(&self, network: &str, tenant: &str, id: &ResourceKey, now: u64) -> PortResult<bool> {
        let filter = self.filter;
        let scope = Scope::tenant(network, tenant);
        let (network, tenant, id) = (network.to_owned(), tenant.to_owned(), *id);
        self.run(scope, move |connection| webhooks::replay(connection, filter, &network, &tenant, &id, now)).await
    }

    async fn replay_range(
        &self,
        network: &str,
        tenant: &str,
        endpoint: &ResourceKey,
        range: ReplayRange,
        now: u64,
    ) -> PortResult<u64> {
        let filter = self.filter;
        let scope = Scope::tenant(network, tenant);
        let (network, tenant, endpoint) = (network.to_owned(), tenant.to_owned(), *endpoint);
        self.run(scope, move |connection| {
            webhooks::replay_range(connection, filter, &network, &tenant, &endpoint, range, now)
        })
        .await
    }
}

#[async_trait]
impl DeliveryStore for PostgresStore {
    async fn due_endpoints(&self, network: &str, now: u64) -> PortResult<Vec<ResourceKey>> {
        let scope = Scope::Role;
        let network = network.to_owned();
        self.run(scope, move |connection| webhooks::due_endpoints(connection, &network, now)).await
    }

    async fn claim(
        &self,
        network: &str,
        endpoint: &ResourceKey,
        claim: ResourceKey,
        times: (u64, u64),
        limit: u32,
    ) -> PortResult<Vec<ClaimedDelivery>> {
        let scope = Scope::Role;
        let (network, endpoint) = (network.to_owned(), *endpoint);
        self.run(scope, move |connection| webhooks::claim(connection, &network, &endpoint, claim, times, limit)).await
    }

    async fn record(&self, delivery: &ClaimedDelivery, attempt: AttemptRow, next: NextStep) -> PortResult<bool> {
        let scope = Scope::Role;
        let delivery = delivery.clone();
        self.run(scope, move |connection| webhooks::record(connection, &delivery, &attempt, next)).await
    }

    async fn backlog(&self, network: &str) -> PortResult<Backlog> {
        let scope = Scope::Role;
        let network = network.to_owned();
        self.run(scope, move |connection| webhooks::backlog(connection, &network)).await
    }

    async fn sweep(&self, network: &str, now: u64, limit: u32) -> PortResult<u64> {
        let scope = Scope::Role;
        let network = network.to_owned();
        self.run(scope, move |connection| webhooks::sweep(connection, &network, now, limit)).await
    }

    async fn prune(&self, network: &str, before: u64, limit: u32) -> PortResult<u64> {
        let scope = Scope::Role;
        let network = network.to_owned();
        self.run(scope, move |connection| webhooks::prune(connection, &network, before, limit)).await
    }
}
