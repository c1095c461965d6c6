//! Ports in memory: as small as can be, as strict as their contracts.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use chopmark_domain::{
    id::ResourceKey,
    message::QueueMessage,
    ports::{
        Claim, Clock, IdempotencyCache, OperationStore, PortError, PortResult, ProjectionStore, Queue, Random,
        TenantStore,
    },
    record::{
        AcceptedOperation, CaseLink, ListQuery, OperationRow, OperationState, ProjectedBlock, ProjectionCursor,
        StateFilter,
    },
    tenant::{ApiKeyRow, SigningKeyRow, TenantRow},
};
use ledger_core::hash::Hash32;
use parking_lot::Mutex;
use rand::Rng as _;

/// How a double behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Mood {
    #[default]
    Well,
    Away,
    Full,
    DiskFull,
}

impl Mood {
    fn check(self, port: &'static str) -> PortResult<()> {
        match self {
            Self::Well => Ok(()),
            Self::Away => Err(PortError::Unavailable { port, reason: "the test says so".into() }),
            Self::Full => Err(PortError::Full(port)),
            Self::DiskFull => Err(PortError::DiskFull(port)),
        }
    }
}

pub(crate) struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "a clock of its own")]
    fn now_ms(&self) -> u64 {
        let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        u64::try_from(elapsed.as_millis()).unwrap()
    }
}

pub(crate) struct ThreadRandom;

impl Random for ThreadRandom {
    fn fill(&self, out: &mut [u8]) -> PortResult<()> {
        rand::rng().fill_bytes(out);
        Ok(())
    }
}

#[derive(Default)]
pub(crate) struct MemoryQueue {
    pub(crate) messages: Mutex<Vec<QueueMessage>>,
    pub(crate) mood: Mutex<Mood>,
    pub(crate) delay: Mutex<Duration>,
    pub(crate) publications: AtomicU64,
}

#[async_trait]
impl Queue for MemoryQueue {
    async fn publish(&self, messages: Vec<QueueMessage>) -> PortResult<()> {
        self.publications.fetch_add(1, Ordering::Relaxed);
        let delay = *self.delay.lock();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        self.mood.lock().check("queue")?;
        let read = messages.iter().map(|message| QueueMessage::decode(&message.encode()).unwrap());
        self.messages.lock().extend(read);
        Ok(())
    }
}

#[derive(Default)]
pub(crate) struct MemoryCache {
    claims: Mutex<HashMap<Hash32, (Hash32, bool)>>,
    pub(crate) mood: Mutex<Mood>,
}

impl MemoryCache {
    pub(crate) fn forget(&self) {
        self.claims.lock().clear();
    }
}

#[async_trait]
impl IdempotencyCache for MemoryCache {
    async fn claim(&self, keys: &[(Hash32, Hash32)]) -> PortResult<Vec<Claim>> {
        self.mood.lock().check("cache")?;
        let mut claims = self.claims.lock();
        let claim = |(op, request): &(Hash32, Hash32)| match *claims.entry(*op).or_insert((*request, false)) {
            (held, _) if held != *request => Claim::Conflict,
            (_, true) => Claim::Durable,
            (_, false) => Claim::Unsettled,
        };
        Ok(keys.iter().map(claim).collect())
    }

    async fn settle(&self, keys: &[(Hash32, Hash32)]) -> PortResult<()> {
        self.mood.lock().check("cache")?;
        let mut claims = self.claims.lock();
        for (op, request) in keys {
            claims.insert(*op, (*request, true));
        }
        Ok(())
    }
}

#[derive(Default)]
pub(crate) struct MemoryStore {
    pub(crate) rows: Mutex<BTreeMap<ResourceKey, OperationRow>>,
    pub(crate) privates: Mutex<HashMap<(Hash32, Hash32), Vec<u8>>>,
    indexes: Mutex<HashMap<ResourceKey, Hash32>>,
    links: Mutex<Vec<CaseLink>>,
    cursor: Mutex<Option<ProjectionCursor>>,
    pub(crate) tenants: Mutex<Vec<TenantRow>>,
    pub(crate) keys: Mutex<Vec<ApiKeyRow>>,
    pub(crate) signing_keys: Mutex<Vec<SigningKeyRow>>,
    pub(crate) mood: Mutex<Mood>,
    pub(crate) finds: AtomicU64,
    pub(crate) cursor_reads: AtomicU64,
}

#[async_trait]
impl OperationStore for MemoryStore {
    async fn insert_accepted(&self, accepted: Vec<AcceptedOperation>) -> PortResult<()> {
        self.mood.lock().check("database")?;
        let mut rows = self.rows.lock();
        for new in accepted {
            if let Some(private) = &new.private {
                self.privates.lock().insert((new.op, new.operation_hash), private.sealed.clone());
                if let Some(index) = private.external_index {
                    self.indexes.lock().insert(new.key, index);
                }
            }
            let sequence = rows.len() as u64 + 1;
            match rows.get_mut(&new.key) {
                Some(row) => row.conflicted |= row.request != new.request,
                None => {
                    let AcceptedOperation { tenant, key, op, kind, request, operation_hash, accepted_at, .. } = new;
                    let state = OperationState::Accepted;
                    let row = OperationRow {
                        sequence,
                        key,
                        op,
                        tenant,
                        kind,
                        request,
                        operation_hash,
                        accepted_at,
                        state,
                        conflicted: false,
                    };
                    rows.insert(key, row);
                }
            }
        }
        Ok(())
    }

    async fn find(&self, network: &str, tenant: &str, keys: &[ResourceKey]) -> PortResult<Vec<Option<OperationRow>>> {
        assert_eq!(network, "sandbox");
        self.finds.fetch_add(1, Ordering::Relaxed);
        self.mood.lock().check("database")?;
        let rows = self.rows.lock();
        Ok(keys.iter().map(|key| rows.get(key).filter(|row| row.tenant == tenant).cloned()).collect())
    }

    async fn list(&self, query: ListQuery) -> PortResult<Vec<OperationRow>> {
        self.mood.lock().check("database")?;
        let indexes = self.indexes.lock();
        let wanted = |row: &OperationRow| {
            let state = matches!(
                (query.state, row.state),
                (None, _)
                    | (Some(StateFilter::Accepted), OperationState::Accepted)
                    | (Some(StateFilter::Committed), OperationState::Committed(_))
                    | (Some(StateFilter::Rejected), OperationState::Rejected(_))
            );
            let leaf = match row.state {
                OperationState::Committed(at) => Some(at.index),
                _ => None,
            };
            state
                && row.tenant == query.tenant
                && row.kind == query.kind
                && query.before.is_none_or(|before| row.sequence < before)
                && query.from.is_none_or(|from| row.accepted_at >= from)
                && query.to.is_none_or(|to| row.accepted_at < to)
                && query.external_index.is_none_or(|index| indexes.get(&row.key) == Some(&index))
                && query.indexes.as_ref().is_none_or(|wanted| leaf.is_some_and(|leaf| wanted.contains(&leaf)))
        };
        let mut rows: Vec<_> = self.rows.lock().values().filter(|row| wanted(row)).cloned().collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.sequence));
        rows.truncate(query.limit as usize);
        Ok(rows)
    }

    async fn sealed_private(
        &self,
        _: &str,
        _: &str,
        op: &Hash32,
        operation_hash: &Hash32,
    ) -> PortResult<Option<Vec<u8>>> {
        self.mood.lock().check("database")?;
        Ok(self.privates.lock().get(&(*op, *operation_hash)).cloned())
    }

    async fn case_links(
        &self,
        _: &str,
        tenant: &str,
        case: &ResourceKey,
        after: u64,
        limit: u32,
    ) -> PortResult<Vec<CaseLink>> {
        self.mood.lock().check("database")?;
        let links = self.links.lock();
        let wanted = links.iter().filter(|link| link.case == *case && link.tenant == tenant && link.position > after);
        Ok(wanted.take(limit as usize).cloned().collect())
    }
}

#[async_trait]
impl ProjectionStore for MemoryStore {
    async fn cursor(&self, _: &str) -> PortResult<Option<ProjectionCursor>> {
        self.cursor_reads.fetch_add(1, Ordering::Relaxed);
        self.mood.lock().check("database")?;
        Ok(*self.cursor.lock())
    }

    async fn project(&self, block: ProjectedBlock) -> PortResult<bool> {
        let mut rows = self.rows.lock();
        for ended in block.operations {
            if let Some(row) = rows.get_mut(&ended.key) {
                row.conflicted |= row.request != ended.request;
                (row.request, row.operation_hash, row.state) = (ended.request, ended.operation_hash, ended.state);
            }
        }
        self.links.lock().extend(block.links);
        *self.cursor.lock() =
            Some(ProjectionCursor { height: block.height, hash: block.hash, tree_size: block.tree_size });
        Ok(true)
    }

    async fn reset(&self, _: &str) -> PortResult<()> {
        unimplemented!("the gateway never resets")
    }
}

#[async_trait]
impl TenantStore for MemoryStore {
    async fn insert_tenant(&self, tenant: TenantRow) -> PortResult<bool> {
        self.tenants.lock().push(tenant);
        Ok(true)
    }

    async fn tenant(&self, network: &str, id: &str) -> PortResult<Option<TenantRow>> {
        self.mood.lock().check("database")?;
        Ok(self.tenants.lock().iter().find(|row| row.network == network && row.id == id).cloned())
    }

    async fn insert_api_key(&self, key: ApiKeyRow) -> PortResult<()> {
        self.keys.lock().push(key);
        Ok(())
    }

    async fn api_key(&self, hash: &Hash32) -> PortResult<Option<ApiKeyRow>> {
        self.mood.lock().check("database")?;
        Ok(self.keys.lock().iter().find(|row| row.hash == *hash).cloned())
    }

    async fn revoke_api_key(&self, id: &str, at_ms: u64) -> PortResult<bool> {
        let mut keys = self.keys.lock();
        let key = keys.iter_mut().find(|row| row.id == id);
        Ok(key.map(|row| row.revoked_at = Some(at_ms)).is_some())
    }

    async fn signing_key(&self, network: &str, tenant: &str, id: &str) -> PortResult<Option<SigningKeyRow>> {
        self.mood.lock().check("database")?;
        let keys = self.signing_keys.lock();
        Ok(keys.iter().find(|row| row.network == network && row.tenant == tenant && row.id == id).cloned())
    }
}
