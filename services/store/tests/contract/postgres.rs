//! PostgreSQL on a real server: the contract's back-end, and what only a server can show.
//!
//! `scripts/test.sh` starts it and names its folder in `CHOPMARK_TEST_SERVERS`. By hand:
//! `deploy/native/servers.sh start --data DIR postgres`. Every test makes a database of its own.

mod faults;
mod measure;
mod rights;
mod schema;

use std::{
    env, fs,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

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
use chopmark_store::{PostgresRole, PostgresSettings, PostgresStore};
use diesel::{
    Connection as _, PgConnection, QueryResult, QueryableByName, RunQueryDsl as _,
    connection::SimpleConnection as _,
    sql_query,
    sql_types::{BigInt, Text},
};
use ledger_core::hash::Hash32;

use crate::fixtures::Backend;

const SERVERS: &str = "CHOPMARK_TEST_SERVERS";
/// Few: a server has a hundred places for all tests that run at once.
const CONNECTIONS: usize = 3;
const SUPERUSER: &str = "postgres";
const OWNER: &str = "chopmark_owner";

/// A server, by its folder.
#[derive(Debug, Clone)]
struct Server {
    folder: PathBuf,
}

impl Server {
    /// `None`: there is none, and this is not where that is a failure.
    fn find() -> Option<Self> {
        let Some(folder) = env::var_os(SERVERS) else {
            assert!(env::var_os("CI").is_none(), "{SERVERS} does not name the folder of the test servers");
            eprintln!("SKIPPED: no PostgreSQL: {SERVERS} is not set; scripts/test.sh sets it");
            return None;
        };
        let server = Self { folder: folder.into() };
        server.make_roles();
        Some(server)
    }

    fn make_roles(&self) {
        let roles = include_str!("../../../../schemas/roles/postgres.sql");
        self.connect(SUPERUSER, SUPERUSER).batch_execute(roles).unwrap();
    }

    fn url(&self, user: &str, database: &str) -> String {
        let text = fs::read_to_string(self.folder.join("servers.env")).unwrap();
        let url = text.lines().find_map(|line| line.strip_prefix("POSTGRES=")).expect("servers.env names PostgreSQL");
        let address = url.split(['@', '/']).nth(3).unwrap();
        format!("postgres://{user}@{address}/{database}")
    }

    fn connect(&self, user: &str, database: &str) -> PgConnection {
        PgConnection::establish(&self.url(user, database)).unwrap()
    }

    /// A database without a schema.
    fn empty(&self) -> Database {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("chopmark_test_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let create = format!("CREATE DATABASE {name} OWNER {OWNER} TEMPLATE template0");
        self.connect(SUPERUSER, SUPERUSER).batch_execute(&create).unwrap();
        Database { server: self.clone(), name }
    }
}

/// A database of its own, gone with the test.
struct Database {
    server: Server,
    name: String,
}

impl Drop for Database {
    fn drop(&mut self) {
        // A test that fails may have a server that is away.
        if let Ok(mut connection) = PgConnection::establish(&self.server.url(SUPERUSER, SUPERUSER)) {
            let _ = connection.batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name));
        }
    }
}

impl Database {
    fn url(&self, user: &str) -> String {
        self.server.url(user, &self.name)
    }

    fn connect(&self, user: &str) -> PgConnection {
        self.server.connect(user, &self.name)
    }

    async fn migrate(&self) {
        PostgresStore::migrate(&self.url(OWNER)).await.unwrap();
    }

    fn settings(&self, role: PostgresRole) -> PostgresSettings {
        let mut settings = PostgresSettings::new(&self.url(role.as_str()), role).unwrap();
        settings.connections = CONNECTIONS;
        settings
    }

    async fn open(&self) -> Roles {
        let open = |role| PostgresStore::open(self.settings(role));
        Roles {
            gateway: open(PostgresRole::Gateway).await.unwrap(),
            committer: open(PostgresRole::Committer).await.unwrap(),
            courier: open(PostgresRole::Courier).await.unwrap(),
            admin: open(PostgresRole::Admin).await.unwrap(),
        }
    }
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// What a `count(*)` gives.
fn count(connection: &mut PgConnection, query: &str) -> QueryResult<i64> {
    Ok(sql_query(query).get_result::<Count>(connection)?.count)
}

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = Text)]
    line: String,
}

/// The column `line` of a query.
fn lines(connection: &mut PgConnection, query: &str) -> Vec<String> {
    sql_query(query).load::<Line>(connection).unwrap().into_iter().map(|row| row.line).collect()
}

/// Tries until it succeeds; a machine slower than this has other troubles.
async fn eventually(what: &str, mut succeeds: impl AsyncFnMut() -> bool) {
    const TRIES: u32 = 1200;
    for _ in 0..TRIES {
        if succeeds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}");
}

/// A migrated database, for the contract.
pub(crate) struct TempPostgres {
    database: Database,
}

impl Backend for TempPostgres {
    type Store = Roles;

    async fn fresh() -> Option<Self> {
        let database = Server::find()?.empty();
        database.migrate().await;
        Some(Self { database })
    }

    async fn open(&self) -> Roles {
        self.database.open().await
    }
}

/// Gateway, committer, courier and administrator, each as the role that it is in production.
#[derive(Debug, Clone)]
pub(crate) struct Roles {
    gateway: PostgresStore,
    committer: PostgresStore,
    courier: PostgresStore,
    admin: PostgresStore,
}

#[async_trait]
impl OperationStore for Roles {
    async fn insert_accepted(&self, rows: Vec<AcceptedOperation>) -> PortResult<()> {
        self.committer.insert_accepted(rows).await
    }

    async fn find(&self, network: &str, tenant: &str, keys: &[ResourceKey]) -> PortResult<Vec<Option<OperationRow>>> {
        self.gateway.find(network, tenant, keys).await
    }

    async fn list(&self, query: ListQuery) -> PortResult<Vec<OperationRow>> {
        self.gateway.list(query).await
    }

    async fn sealed_private(
        &self,
        network: &str,
        tenant: &str,
        op: &Hash32,
        operation_hash: &Hash32,
    ) -> PortResult<Option<Vec<u8>>> {
        self.gateway.sealed_private(network, tenant, op, operation_hash).await
    }

    async fn case_links(
        &self,
        network: &str,
        tenant: &str,
        case: &ResourceKey,
        after: u64,
        limit: u32,
    ) -> PortResult<Vec<CaseLink>> {
        self.gateway.case_links(network, tenant, case, after, limit).await
    }
}

#[async_trait]
impl ProjectionStore for Roles {
    async fn cursor(&self, network: &str) -> PortResult<Option<ProjectionCursor>> {
        let cursor = self.committer.cursor(network).await?;
        // Gateways wait for it to move.
        assert!(self.gateway.cursor(network).await?.map(|cursor| cursor.height) >= cursor.map(|cursor| cursor.height));
        Ok(cursor)
    }

    async fn project(&self, block: ProjectedBlock) -> PortResult<bool> {
        self.committer.project(block).await
    }

    async fn reset(&self, network: &str) -> PortResult<()> {
        self.committer.reset(network).await
    }
}

#[async_trait]
impl TenantStore for Roles {
    async fn insert_tenant(&self, tenant: TenantRow) -> PortResult<bool> {
        self.admin.insert_tenant(tenant).await
    }

    async fn tenant(&self, network: &str, id: &str) -> PortResult<Option<TenantRow>> {
        self.gateway.tenant(network, id).await
    }

    async fn insert_api_key(&self, key: ApiKeyRow) -> PortResult<()> {
        self.admin.insert_api_key(key).await
    }

    async fn api_key(&self, hash: &Hash32) -> PortResult<Option<ApiKeyRow>> {
        self.gateway.api_key(hash).await
    }

    async fn revoke_api_key(&self, id: &str, at_ms: u64) -> PortResult<bool> {
        self.admin.revoke_api_key(id, at_ms).await
    }

    async fn signing_key(&self, network: &str, tenant: &str, id: &str) -> PortResult<Option<SigningKeyRow>> {
        self.gateway.signing_key(network, tenant, id).await
    }
}

#[async_trait]
impl TenantAdmin for Roles {
    async fn tenants(&self, network: &str) -> PortResult<Vec<TenantRow>> {
        self.admin.tenants(network).await
    }

    async fn set_tenant_active(&self, network: &str, id: &str, active: bool) -> PortResult<bool> {
        self.admin.set_tenant_active(network, id, active).await
    }

    async fn set_tenant_limits(&self, network: &str, id: &str, limits: Limits) -> PortResult<bool> {
        self.admin.set_tenant_limits(network, id, limits).await
    }

    async fn api_keys(&self, network: &str, tenant: &str) -> PortResult<Vec<ApiKeyRow>> {
        self.admin.api_keys(network, tenant).await
    }

    async fn expire_api_key(&self, id: &str, at_ms: u64) -> PortResult<bool> {
        self.admin.expire_api_key(id, at_ms).await
    }

    async fn set_signatures_required(&self, network: &str, id: &str, required: bool) -> PortResult<bool> {
        self.admin.set_signatures_required(network, id, required).await
    }

    async fn insert_signing_key(&self, key: SigningKeyRow) -> PortResult<()> {
        self.admin.insert_signing_key(key).await
    }

    async fn signing_keys(&self, network: &str, tenant: &str) -> PortResult<Vec<SigningKeyRow>> {
        self.admin.signing_keys(network, tenant).await
    }

    async fn revoke_signing_key(&self, network: &str, id: &str, at_ms: u64) -> PortResult<bool> {
        self.admin.revoke_signing_key(network, id, at_ms).await
    }
}

#[async_trait]
impl WebhookStore for Roles {
    async fn insert_endpoint(&self, endpoint: EndpointRow, most: u32) -> PortResult<EndpointInsertion> {
        self.gateway.insert_endpoint(endpoint, most).await
    }

    async fn endpoints(&self, network: &str, tenant: &str) -> PortResult<Vec<EndpointRow>> {
        self.gateway.endpoints(network, tenant).await
    }

    async fn update_endpoint(&self, endpoint: EndpointRow) -> PortResult<bool> {
        self.gateway.update_endpoint(endpoint).await
    }

    async fn delete_endpoint(&self, network: &str, tenant: &str, id: &ResourceKey) -> PortResult<bool> {
        self.gateway.delete_endpoint(network, tenant, id).await
    }

    async fn push_event(&self, event: OutboxEvent, endpoint: &ResourceKey) -> PortResult<()> {
        self.gateway.push_event(event, endpoint).await
    }

    async fn deliveries(&self, query: DeliveryQuery) -> PortResult<Vec<DeliveryRow>> {
        self.gateway.deliveries(query).await
    }

    async fn delivery(
        &self,
        network: &str,
        tenant: &str,
        id: &ResourceKey,
    ) -> PortResult<Option<(DeliveryRow, Vec<AttemptRow>)>> {
        self.gateway.delivery(network, tenant, id).await
    }

    async fn replay(&self, network: &str, tenant: &str, id: &ResourceKey, now: u64) -> PortResult<bool> {
        self.gateway.replay(network, tenant, id, now).await
    }

    async fn replay_range(
        &self,
        network: &str,
        tenant: &str,
        endpoint: &ResourceKey,
        range: ReplayRange,
        now: u64,
    ) -> PortResult<u64> {
        self.gateway.replay_range(network, tenant, endpoint, range, now).await
    }
}

#[async_trait]
impl DeliveryStore for Roles {
    async fn due_endpoints(&self, network: &str, now: u64) -> PortResult<Vec<ResourceKey>> {
        self.courier.due_endpoints(network, now).await
    }

    async fn claim(
        &self,
        network: &str,
        endpoint: &ResourceKey,
        claim: ResourceKey,
        times: (u64, u64),
        limit: u32,
    ) -> PortResult<Vec<ClaimedDelivery>> {
        self.courier.claim(network, endpoint, claim, times, limit).await
    }

    async fn record(&self, delivery: &ClaimedDelivery, attempt: AttemptRow, next: NextStep) -> PortResult<bool> {
        self.courier.record(delivery, attempt, next).await
    }

    async fn backlog(&self, network: &str) -> PortResult<Backlog> {
        self.courier.backlog(network).await
    }

    async fn sweep(&self, network: &str, now: u64, limit: u32) -> PortResult<u64> {
        self.courier.sweep(network, now, limit).await
    }

    async fn prune(&self, network: &str, before: u64, limit: u32) -> PortResult<u64> {
        self.courier.prune(network, before, limit).await
    }
}
