//! SQLite behind the ports.
//!
//! WAL with `synchronous = FULL`: when a call returns `Ok`, its commit has been fsynced; under
//! `NORMAL` a power loss takes the newest commits back. One connection writes, a few others read;
//! readers see the newest commit and never wait for the writer. Other processes may have the file
//! open too: every write starts with `BEGIN IMMEDIATE`, so what it reads first still holds when it
//! commits.

mod accept;
mod connect;
mod failure;
mod project;
mod read;
mod signing_keys;
mod statement;
mod tenants;
#[path = "webhooks.rs"]
mod webhooks;

use std::path::Path;

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
use ledger_core::hash::Hash32;

pub use self::connect::OpenError;
use self::connect::{File, Role};
use crate::{filter::TenantFilter, pool::Pool, rules::TRANSACTION_ROWS_MAX};

/// What differs between the databases in [`webhooks`].
mod dialect {
    pub(super) type Connection = diesel::SqliteConnection;
    /// Writers queue at the file.
    pub(super) const LOCK: &str = "";
    pub(super) const SKIP_LOCKED: &str = "";
}

/// One connection writes: SQLite has one writer anyway, and here they queue in order.
const WRITERS: usize = 1;
/// A look-up takes microseconds; more connections than cores only cost memory.
const READERS: usize = 4;

/// The embedded database: all three database ports over one SQLite file.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    writer: Pool<File>,
    readers: Pool<File>,
}

impl SqliteStore {
    /// Opens the database at `sqlite:PATH`, creating it if there is none, and applies the
    /// migrations that it lacks. The folder has to exist.
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        let path = connect::path_of(url)?;
        let task = tokio::task::spawn_blocking(move || Self::open_blocking(&path));
        task.await.map_err(|error| OpenError::Worker(error.to_string()))?
    }

    fn open_blocking(path: &Path) -> Result<Self, OpenError> {
        connect::prepare(path)?;
        let file = |role| File { path: path.to_owned(), role };
        let writer = Pool::new(file(Role::Writer), WRITERS);
        let readers = Pool::new(file(Role::Reader), READERS);
        Ok(Self { writer, readers })
    }
}

#[async_trait]
impl OperationStore for SqliteStore {
    /// Many rows take several transactions. Dying between two of them is harmless: the caller has
    /// no answer yet and inserts all of them again.
    async fn insert_accepted(&self, mut rows: Vec<AcceptedOperation>) -> PortResult<()> {
        while !rows.is_empty() {
            let rest = rows.split_off(rows.len().min(TRANSACTION_ROWS_MAX));
            self.writer.run(move |connection| accept::insert(connection, &rows)).await?;
            rows = rest;
        }
        Ok(())
    }

    async fn find(&self, network: &str, tenant: &str, keys: &[ResourceKey]) -> PortResult<Vec<Option<OperationRow>>> {
        let (network, tenant, keys) = (network.to_owned(), tenant.to_owned(), keys.to_vec());
        self.readers.run(move |connection| read::find(connection, &network, &tenant, &keys)).await
    }

    async fn list(&self, query: ListQuery) -> PortResult<Vec<OperationRow>> {
        self.readers.run(move |connection| read::list(connection, &query)).await
    }

    async fn sealed_private(
        &self,
        network: &str,
        tenant: &str,
        op: &Hash32,
        operation_hash: &Hash32,
    ) -> PortResult<Option<Vec<u8>>> {
        let (network, tenant, op, attempt) = (network.to_owned(), tenant.to_owned(), *op, *operation_hash);
        self.readers.run(move |connection| read::sealed_private(connection, &network, &tenant, &op, &attempt)).await
    }

    async fn case_links(
        &self,
        network: &str,
        tenant: &str,
        case: &ResourceKey,
        after: u64,
        limit: u32,
    ) -> PortResult<Vec<CaseLink>> {
        let (network, tenant, case) = (network.to_owned(), tenant.to_owned(), *case);
        self.readers.run(move |connection| read::case_links(connection, &network, &tenant, &case, after, limit)).await
    }
}

#[async_trait]
impl ProjectionStore for SqliteStore {
    async fn cursor(&self, network: &str) -> PortResult<Option<ProjectionCursor>> {
        let network = network.to_owned();
        self.readers.run(move |connection| project::cursor(connection, &network)).await
    }

    async fn project(&self, block: ProjectedBlock) -> PortResult<bool> {
        self.writer.run(move |connection| project::project(connection, &block)).await
    }

    async fn reset(&self, network: &str) -> PortResult<()> {
        let network = network.to_owned();
        self.writer.run(move |connection| project::reset(connection, &network)).await
    }
}

#[async_trait]
impl TenantStore for SqliteStore {
    async fn insert_tenant(&self, tenant: TenantRow) -> PortResult<bool> {
        self.writer.run(move |connection| tenants::insert(connection, tenant)).await
    }

    async fn tenant(&self, network: &str, id: &str) -> PortResult<Option<TenantRow>> {
        let (network, id) = (network.to_owned(), id.to_owned());
        self.readers.run(move |connection| tenants::find(connection, &network, &id)).await
    }

    async fn insert_api_key(&self, key: ApiKeyRow) -> PortResult<()> {
        self.writer.run(move |connection| tenants::insert_key(connection, key)).await
    }

    async fn api_key(&self, hash: &Hash32) -> PortResult<Option<ApiKeyRow>> {
        let hash = *hash;
        self.readers.run(move |connection| tenants::find_key(connection, &hash)).await
    }

    async fn revoke_api_key(&self, id: &str, at_ms: u64) -> PortResult<bool> {
        let id = id.to_owned();
        self.writer.run(move |connection| tenants::revoke_key(connection, &id, at_ms)).await
    }

    async fn signing_key(&self, network: &str, tenant: &str, id: &str) -> PortResult<Option<SigningKeyRow>> {
        let (network, tenant, id) = (network.to_owned(), tenant.to_owned(), id.to_owned());
        self.readers.run(move |connection| signing_keys::find(connection, &network, &tenant, &id)).await
    }
}

#[async_trait]
impl TenantAdmin for SqliteStore {
    async fn tenants(&self, network: &str) -> PortResult<Vec<TenantRow>> {
        let network = network.to_owned();
        self.readers.run(move |connection| tenants::all(connection, &network)).await
    }

    async fn set_tenant_active(&self, network: &str, id: &str, active: bool) -> PortResult<bool> {
        let (network, id) = (network.to_owned(), id.to_owned());
        self.writer.run(move |connection| tenants::set_active(connection, &network, &id, active)).await
    }

    async fn set_tenant_limits(&self, network: &str, id: &str, limits: Limits) -> PortResult<bool> {
        let (network, id) = (network.to_owned(), id.to_owned());
        self.writer.run(move |connection| tenants::set_limits(connection, &network, &id, limits)).await
    }

    async fn api_keys(&self, network: &str, tenant: &str) -> PortResult<Vec<ApiKeyRow>> {
        let (network, tenant) = (network.to_owned(), tenant.to_owned());
        self.readers.run(move |connection| tenants::keys(connection, &network, &tenant)).await
    }

    async fn expire_api_key(&self, id: &str, at_ms: u64) -> PortResult<bool> {
        let id = id.to_owned();
        self.writer.run(move |connection| tenants::expire_key(connection, &id, at_ms)).await
    }

    async fn set_signatures_required(&self, network: &str, id: &str, required: bool) -> PortResult<bool> {
        let (network, id) = (network.to_owned(), id.to_owned());
        self.writer.run(move |connection| signing_keys::set_required(connection, &network, &id, required)).await
    }

    async fn insert_signing_key(&self, key: SigningKeyRow) -> PortResult<()> {
        self.writer.run(move |connection| signing_keys::insert(connection, key)).await
    }

    async fn signing_keys(&self, network: &str, tenant: &str) -> PortResult<Vec<SigningKeyRow>> {
        let (network, tenant) = (network.to_owned(), tenant.to_owned());
        self.readers.run(move |connection| signing_keys::all(connection, &network, &tenant)).await
    }

    async fn revoke_signing_key(&self, network: &str, id: &str, at_ms: u64) -> PortResult<bool> {
        let (network, id) = (network.to_owned(), id.to_owned());
        self.writer.run(move |connection| signing_keys::revoke(connection, &network, &id, at_ms)).await
    }
}

#[async_trait]
impl WebhookStore for SqliteStore {
    async fn insert_endpoint(&self, endpoint: EndpointRow, most: u32) -> PortResult<EndpointInsertion> {
        self.writer
            .run(move |connection| {
                failure::write(connection, |connection| webhooks::insert_endpoint(connection, &endpoint, most))
            })
            .await
    }

    async fn endpoints(&self, network: &str, tenant: &str) -> PortResult<Vec<EndpointRow>> {
        let (network, tenant) = (network.to_owned(), tenant.to_owned());
        self.readers.run(move |connection| webhooks::endpoints(connection, TenantFilter::ON, &network, &tenant)).await
    }

    async fn update_endpoint(&self, endpoint: EndpointRow) -> PortResult<bool> {
        self.writer
            .run(move |connection| {
                failure::write(connection, |connection| {
                    webhooks::update_endpoint(connection, TenantFilter::ON, &endpoint)
                })
            })
            .await
    }

    async fn delete_endpoint(&self, network: &str, tenant: &str, id: &ResourceKey) -> PortResult<bool> {
        let (network, tenant, id) = (network.to_owned(), tenant.to_owned(), *id);
        self.writer
            .run(move |connection| {
                failure::write(connection, |connection| {
                    webhooks::delete_endpoint(connection, TenantFilter::ON, &network, &tenant, &id)
                })
            })
            .await
    }

    async fn push_event(&self, event: OutboxEvent, endpoint: &ResourceKey) -> PortResult<()> {
        let endpoint = *endpoint;
        self.writer
            .run(move |connection| {
                failure::write(connection, |connection| webhooks::push_event(connection, &event, &endpoint))
            })
            .await
    }

    async fn deliveries(&self, query: DeliveryQuery) -> PortResult<Vec<DeliveryRow>> {
        self.readers.run(move |connection| webhooks::deliveries(connection, TenantFilter::ON, &query)).await
    }

    async fn delivery(
        &self,
        network: &str,
        tenant: &str,
        id: &ResourceKey,
    ) -> PortResult<Option<(DeliveryRow, Vec<AttemptRow>)>> {
        let (network, tenant, id) = (network.to_owned(), tenant.to_owned(), *id);
        self.readers
            .run(move |connection| webhooks::delivery(connection, TenantFilter::ON, &network, &tenant, &id))
            .await
    }

    async fn replay(&self, network: &str, tenant: &str, id: &ResourceKey, now: u64) -> PortResult<bool> {
        let (network, tenant, id) = (network.to_owned(), tenant.to_owned(), *id);
        self.writer
            .run(move |connection| {
                failure::write(connection, |connection| {
                    webhooks::replay(connection, TenantFilter::ON, &network, &tenant, &id, now)
                })
            })
            .await
    }

    async fn replay_range(
        &self,
        network: &str,
        tenant: &str,
        endpoint: &ResourceKey,
        range: ReplayRange,
        now: u64,
    ) -> PortResult<u64> {
        let (network, tenant, endpoint) = (network.to_owned(), tenant.to_owned(), *endpoint);
        self.writer
            .run(move |connection| {
                failure::write(connection, |connection| {
                    webhooks::replay_range(connection, TenantFilter::ON, &network, &tenant, &endpoint, range, now)
                })
            })
            .await
    }
}

#[async_trait]
impl DeliveryStore for SqliteStore {
    async fn due_endpoints(&self, network: &str, now: u64) -> PortResult<Vec<ResourceKey>> {
        let network = network.to_owned();
        self.readers.run(move |connection| webhooks::due_endpoints(connection, &network, now)).await
    }

    async fn claim(
        &self,
        network: &str,
        endpoint: &ResourceKey,
        claim: ResourceKey,
        times: (u64, u64),
        limit: u32,
    ) -> PortResult<Vec<ClaimedDelivery>> {
        let (network, endpoint) = (network.to_owned(), *endpoint);
        self.writer
            .run(move |connection| {
                failure::write(connection, |connection| {
                    webhooks::claim(connection, &network, &endpoint, claim, times, limit)
                })
            })
            .await
    }

    async fn record(&self, delivery: &ClaimedDelivery, attempt: AttemptRow, next: NextStep) -> PortResult<bool> {
        let delivery = delivery.clone();
        self.writer
            .run(move |connection| {
                failure::write(connection, |connection| webhooks::record(connection, &delivery, &attempt, next))
            })
            .await
    }

    async fn backlog(&self, network: &str) -> PortResult<Backlog> {
        let network = network.to_owned();
        self.readers.run(move |connection| webhooks::backlog(connection, &network)).await
    }

    async fn sweep(&self, network: &str, now: u64, limit: u32) -> PortResult<u64> {
        let network = network.to_owned();
        self.writer
            .run(move |connection| {
                failure::write(connection, |connection| webhooks::sweep(connection, &network, now, limit))
            })
            .await
    }

    async fn prune(&self, network: &str, before: u64, limit: u32) -> PortResult<u64> {
        let network = network.to_owned();
        self.writer
            .run(move |connection| {
                failure::write(connection, |connection| webhooks::prune(connection, &network, before, limit))
            })
            .await
    }
}

#[cfg(test)]
mod tests;
