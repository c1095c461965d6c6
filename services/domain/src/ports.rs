//! The ports: what the use cases need from the outside, each implemented twice (embedded and
//! production) or doubled in tests.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use ledger_core::{
    block::Block,
    digests::Algorithm,
    hash::Hash32,
    merkle::{LeafIndex, TreeSize},
    operation::SignedOperation,
    outcome::RejectionCode,
    tile::TilePath,
};
use thiserror::Error;

use crate::{
    id::ResourceKey,
    message::QueueMessage,
    quota::Limits,
    record::{AcceptedOperation, CaseLink, ListQuery, OperationRow, ProjectedBlock, ProjectionCursor},
    tenant::{ApiKeyRow, SigningKeyRow, TenantRow},
    webhook::{
        AttemptRow, Backlog, ClaimedDelivery, DeliveryQuery, DeliveryRow, EndpointRow, NextStep, OutboxEvent,
        ReplayRange,
    },
};

/// A dependency failed. The text is for the log, never for a client.
#[derive(Debug, Error)]
pub enum PortError {
    /// Away or overloaded; the same call may succeed later.
    #[error("{port} is unavailable: {reason}")]
    Unavailable {
        /// `queue`, `database`, `cache` or `ledger`.
        port: &'static str,
        /// For the log.
        reason: String,
    },
    /// A bound is reached: slow down.
    #[error("{0} is full")]
    Full(&'static str),
    /// No room on a disk.
    #[error("{0} has no disk space left")]
    DiskFull(&'static str),
    /// An invariant is broken; the component must stop and reload.
    #[error("{port} is broken: {reason}")]
    Broken {
        /// Which port.
        port: &'static str,
        /// For the log.
        reason: String,
    },
}

/// Result of a port call.
pub type PortResult<T> = Result<T, PortError>;

/// Wall clock.
pub trait Clock: Send + Sync {
    /// Unix milliseconds.
    fn now_ms(&self) -> u64;
}

/// Cryptographic randomness.
pub trait Random: Send + Sync {
    /// Fills `out`; a system without randomness is [`PortError::Broken`].
    fn fill(&self, out: &mut [u8]) -> PortResult<()>;
}

/// Producing side of the queue.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Appends `messages`, in order per order key. When this returns `Ok`, all are durable;
    /// when it returns an error, any of them may be.
    async fn publish(&self, messages: Vec<QueueMessage>) -> PortResult<()>;
}

/// Position of a delivered message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueuePosition {
    /// Partition; the embedded queue has only 0.
    pub partition: u32,
    /// Offset in the partition.
    pub offset: u64,
}

/// A message as delivered, at least once.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Where it stands.
    pub position: QueuePosition,
    /// The message, or the bytes that are none with the reason.
    pub message: Result<QueueMessage, PoisonMessage>,
}

/// Bytes from the queue that are no message.
#[derive(Debug, Clone)]
pub struct PoisonMessage {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// What is wrong.
    pub reason: String,
}

/// Consuming side of the queue: one member of the committers' group.
#[async_trait]
pub trait QueueConsumer: Send {
    /// The next messages: as soon as there are `max`, or after `linger` whatever there is
    /// (perhaps none). Messages not yet committed are delivered again after a restart.
    async fn poll(&mut self, max: usize, linger: Duration) -> PortResult<Vec<Delivery>>;

    /// Marks everything up to and including these positions as done, durably.
    async fn commit(&mut self, upto: &[QueuePosition]) -> PortResult<()>;

    /// Puts what cannot be processed aside, durably, with the reason.
    async fn dead_letter(&mut self, position: QueuePosition, bytes: &[u8], reason: &str) -> PortResult<()>;

    /// Messages behind the newest, for metrics.
    async fn lag(&self) -> PortResult<u64>;
}

/// Keeps the originals of files, where a caller asks for it.
#[async_trait]
pub trait OriginalStore: Send + Sync {
    /// Begins an original of `tenant`, whose digest is not known yet.
    async fn begin(&self, tenant: &str) -> PortResult<Box<dyn OriginalWriter>>;
}

/// One original on its way in. Dropped before [`Self::keep`], it leaves nothing that is found.
#[async_trait]
pub trait OriginalWriter: Send {
    /// Appends bytes.
    async fn write(&mut self, chunk: Bytes) -> PortResult<()>;

    /// Makes the original durable under its SHA-256; the same again changes nothing.
    async fn keep(self: Box<Self>, sha256: &Hash32) -> PortResult<()>;

    /// Throws away what was written.
    async fn discard(self: Box<Self>);
}

/// What a cache knows of an operation id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Nothing, or the same request without knowing that it is durable: look it up, then publish.
    Unsettled,
    /// The same request, known to be durable in the queue.
    Durable,
    /// Another request holds this operation id.
    Conflict,
}

/// Hot idempotency answers. May forget anything at any time without harm.
#[async_trait]
pub trait IdempotencyCache: Send + Sync {
    /// Claims operation ids for requests, atomically per id.
    async fn claim(&self, keys: &[(Hash32, Hash32)]) -> PortResult<Vec<Claim>>;

    /// Remembers that these operations (id, request) are durable.
    async fn settle(&self, keys: &[(Hash32, Hash32)]) -> PortResult<()>;
}

/// Operations, their private parts, and the read model of the ledger.
#[async_trait]
pub trait OperationStore: Send + Sync {
    /// Inserts accepted operations and their private parts. Idempotent. A row of the same
    /// operation with another request is left alone and marked as conflicted.
    async fn insert_accepted(&self, rows: Vec<AcceptedOperation>) -> PortResult<()>;

    /// Rows of a tenant by key, in the order asked; `None` where the tenant has no such row.
    async fn find(&self, network: &str, tenant: &str, keys: &[ResourceKey]) -> PortResult<Vec<Option<OperationRow>>>;

    /// One page of a tenant's operations, newest first. A walk from page to page shows every row
    /// that was there when it began, once. With several writers, a row that comes meanwhile may
    /// also show up among older ones, as its transaction ended after those of rows that began later.
    async fn list(&self, query: ListQuery) -> PortResult<Vec<OperationRow>>;

    /// Sealed private part of one attempt of a tenant, by operation id and operation hash.
    async fn sealed_private(
        &self,
        network: &str,
        tenant: &str,
        op: &Hash32,
        operation_hash: &Hash32,
    ) -> PortResult<Option<Vec<u8>>>;

    /// Links of a tenant's case in order, after `after`, at most `limit`.
    async fn case_links(
        &self,
        network: &str,
        tenant: &str,
        case: &ResourceKey,
        after: u64,
        limit: u32,
    ) -> PortResult<Vec<CaseLink>>;
}

/// The projection of the ledger into the database.
#[async_trait]
pub trait ProjectionStore: Send + Sync {
    /// The last projected block; `None` before the first.
    async fn cursor(&self, network: &str) -> PortResult<Option<ProjectionCursor>>;

    /// Projects one block in one transaction: operation rows, case links, removal of private
    /// parts that lost, cursor. `false`: another committer projected this height already.
    async fn project(&self, block: ProjectedBlock) -> PortResult<bool>;

    /// Empties the public read model, so that it is projected anew. Private parts stay.
    async fn reset(&self, network: &str) -> PortResult<()>;
}

/// Tenants and their API keys.
#[async_trait]
pub trait TenantStore: Send + Sync {
    /// Adds a tenant; `false` if it is there.
    async fn insert_tenant(&self, tenant: TenantRow) -> PortResult<bool>;

    /// One tenant.
    async fn tenant(&self, network: &str, id: &str) -> PortResult<Option<TenantRow>>;

    /// Adds an API key.
    async fn insert_api_key(&self, key: ApiKeyRow) -> PortResult<()>;

    /// The key with this keyed hash.
    async fn api_key(&self, hash: &Hash32) -> PortResult<Option<ApiKeyRow>>;

    /// Revokes a key by its id; `false` if there is none.
    async fn revoke_api_key(&self, id: &str, at_ms: u64) -> PortResult<bool>;

    /// One signing key of a tenant, revoked or not.
    async fn signing_key(&self, network: &str, tenant: &str, id: &str) -> PortResult<Option<SigningKeyRow>>;
}

/// What only an administrator does with tenants and keys. Gateways believe what they looked up for a few
/// seconds ([`crate::access::KEY_CACHE_TTL`]).
#[async_trait]
pub trait TenantAdmin: TenantStore {
    /// All tenants of a network, by id.
    async fn tenants(&self, network: &str) -> PortResult<Vec<TenantRow>>;

    /// Lets a tenant write, or not; `false` if there is none.
    async fn set_tenant_active(&self, network: &str, id: &str, active: bool) -> PortResult<bool>;

    /// Replaces what a tenant may use; `false` if there is none.
    async fn set_tenant_limits(&self, network: &str, id: &str, limits: Limits) -> PortResult<bool>;

    /// All keys of a tenant, the oldest first.
    async fn api_keys(&self, network: &str, tenant: &str) -> PortResult<Vec<ApiKeyRow>>;

    /// Lets a key end at a time, or at the time that it had if that is earlier; `false` if there is none.
    async fn expire_api_key(&self, id: &str, at_ms: u64) -> PortResult<bool>;

    /// Says whether a tenant writes under a request signature only; `false` if there is none.
    async fn set_signatures_required(&self, network: &str, id: &str, required: bool) -> PortResult<bool>;

    /// Adds a signing key. The same again changes nothing, and does not bring a revoked one back.
    async fn insert_signing_key(&self, key: SigningKeyRow) -> PortResult<()>;

    /// All signing keys of a tenant, the oldest first.
    async fn signing_keys(&self, network: &str, tenant: &str) -> PortResult<Vec<SigningKeyRow>>;

    /// Revokes a signing key; `false` if there is none. The earliest revocation counts.
    async fn revoke_signing_key(&self, network: &str, id: &str, at_ms: u64) -> PortResult<bool>;
}

/// Webhooks as their tenants keep them.
#[async_trait]
pub trait WebhookStore: Send + Sync {
    /// Adds an endpoint unless its tenant has `most` others. The same again changes nothing.
    async fn insert_endpoint(&self, endpoint: EndpointRow, most: u32) -> PortResult<EndpointInsertion>;

    /// A tenant's endpoints, the oldest first.
    async fn endpoints(&self, network: &str, tenant: &str) -> PortResult<Vec<EndpointRow>>;

    /// Replaces an endpoint that is still at `endpoint.version - 1`; `false` if it is not, or is gone.
    /// An endpoint that is enabled again begins with no failures.
    async fn update_endpoint(&self, endpoint: EndpointRow) -> PortResult<bool>;

    /// Removes an endpoint with its deliveries; `false` if there is none.
    async fn delete_endpoint(&self, network: &str, tenant: &str, id: &ResourceKey) -> PortResult<bool>;

    /// Puts an event into the outbox for one endpoint, whatever that wants to be told.
    async fn push_event(&self, event: OutboxEvent, endpoint: &ResourceKey) -> PortResult<()>;

    /// One page of a tenant's deliveries, the newest first.
    async fn deliveries(&self, query: DeliveryQuery) -> PortResult<Vec<DeliveryRow>>;

    /// One delivery with its attempts, the newest last.
    async fn delivery(
        &self,
        network: &str,
        tenant: &str,
        id: &ResourceKey,
    ) -> PortResult<Option<(DeliveryRow, Vec<AttemptRow>)>>;

    /// Makes one delivery due at `now`, whatever came of it; `false` if there is none.
    async fn replay(&self, network: &str, tenant: &str, id: &ResourceKey, now: u64) -> PortResult<bool>;

    /// Makes all deliveries of a range to an endpoint due at `now`, and returns how many.
    async fn replay_range(
        &self,
        network: &str,
        tenant: &str,
        endpoint: &ResourceKey,
        range: ReplayRange,
        now: u64,
    ) -> PortResult<u64>;
}

/// What came of adding an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointInsertion {
    /// It is there now.
    New,
    /// It was there, as this.
    Known(Box<EndpointRow>),
    /// There are as many as there may be.
    TooMany,
}

/// Webhooks as a courier delivers them. Any number of couriers may share one.
#[async_trait]
pub trait DeliveryStore: Send + Sync {
    /// Endpoints that something is due for at `now`, in an order drawn by chance; not all, if they are many. What
    /// is due may still wait for what comes before it.
    async fn due_endpoints(&self, network: &str, now: u64) -> PortResult<Vec<ResourceKey>>;

    /// Claims what is due for an endpoint, at most `limit`, until `until`: nobody else gets it before.
    /// Of each resource only what comes first: the next is due once that is delivered or given up.
    async fn claim(
        &self,
        network: &str,
        endpoint: &ResourceKey,
        claim: ResourceKey,
        (now, until): (u64, u64),
        limit: u32,
    ) -> PortResult<Vec<ClaimedDelivery>>;

    /// Writes what came of an attempt, in one transaction. `false`: the claim had ended, and nothing was
    /// written.
    async fn record(&self, delivery: &ClaimedDelivery, attempt: AttemptRow, next: NextStep) -> PortResult<bool>;

    /// Gives up what was put on its way to an endpoint while that was disabled or removed, at most `limit`; returns
    /// how many.
    async fn sweep(&self, network: &str, now: u64, limit: u32) -> PortResult<u64>;

    /// How much there is to do.
    async fn backlog(&self, network: &str) -> PortResult<Backlog>;

    /// Removes deliveries that ended before `before`, at most `limit`, with their attempts, and events
    /// that no delivery is left of; returns how many deliveries.
    async fn prune(&self, network: &str, before: u64, limit: u32) -> PortResult<u64>;
}

/// Decides where webhooks may go.
pub trait WebhookUrls: Send + Sync {
    /// The URL in its one form, or why it is refused.
    fn check(&self, text: &str) -> Result<String, UrlFault>;
}

/// Why a URL is no place for webhooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlFault {
    /// It is none, or too long.
    Malformed,
    /// Not `https`.
    Scheme,
    /// A user or a password is in it.
    UserInfo,
    /// A fragment is in it.
    Fragment,
    /// Its port is not one that is sent to.
    Port,
    /// Its host is not a public name.
    Host,
    /// Its address is not a public one.
    Address,
}

/// How a submitted operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubmitResult {
    /// It has its outcome, now or from before. `request` tells whose request got it.
    Ended {
        /// Digest of the request that got the outcome.
        request: Hash32,
        /// Leaf index, or rejection.
        result: Result<u64, RejectionCode>,
    },
    /// The ledger cannot read it: it will never have an outcome.
    Malformed(String),
}

/// Writing side of the ledger.
#[async_trait]
pub trait LedgerWriter: Send + Sync {
    /// Chain id that operations must name.
    fn chain(&self) -> Hash32;

    /// Submits operations and waits until each has an outcome in a decided block.
    /// [`PortError::Full`]: the pool is full; nothing was taken.
    async fn submit(&self, operations: Vec<SignedOperation>) -> PortResult<Vec<SubmitResult>>;
}

/// The ledger's public state at its newest checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerStatus {
    /// Newest decided height.
    pub height: u64,
    /// Height of the newest block that the newest quorum checkpoint covers.
    pub checkpoint_height: u64,
    /// Tree size of that checkpoint.
    pub size: TreeSize,
    /// Its root.
    pub root: Hash32,
    /// The signed note.
    pub checkpoint: String,
}

/// A decided block with its entries.
#[derive(Debug, Clone)]
pub struct LedgerBlock {
    /// The block.
    pub block: Block,
    /// Entries in log order; the last one's index is `header.tree_size - 1`.
    pub entries: Vec<Vec<u8>>,
}

/// Where an entry stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockRef {
    /// Height.
    pub height: u64,
    /// Block time, Unix ms.
    pub time: u64,
    /// Header hash.
    pub hash: Hash32,
}

/// The receipt of one entry and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerReceipt {
    /// `tlog-proof@v1` without an `extra` line.
    pub receipt: ledger_core::receipt::Receipt,
    /// Size of the tree it is made for.
    pub size: TreeSize,
    /// Root of that tree.
    pub root: Hash32,
    /// Cosignatures on it, and members.
    pub cosigners: (usize, usize),
    /// "Existed no later than", Unix seconds.
    pub time: u64,
}

/// Where a digest stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestHits {
    /// Leaf indexes in ascending order, at most the number asked for.
    pub indexes: Vec<LeafIndex>,
    /// The index is complete up to this size.
    pub complete_to: TreeSize,
}

/// Reading side of the ledger. Whatever it returns is covered by a quorum checkpoint, except
/// where said otherwise.
#[async_trait]
pub trait LedgerReader: Send + Sync {
    /// Whether the ledger decides and all that it holds is sound: `false` once it stopped over a fault,
    /// while it repairs itself, and where its node is a member's and has not the keys to vote. What is sound is served all the same.
    fn is_well(&self) -> bool {
        true
    }

    /// Newest published state.
    async fn status(&self) -> PortResult<LedgerStatus>;

    /// Blocks from height `from` on, at most `max`, never beyond the checkpoint.
    async fn blocks(&self, from: u64, max: usize) -> PortResult<Vec<LedgerBlock>>;

    /// The block that an entry stands in; `None` for the entries of the genesis.
    async fn block_of(&self, index: LeafIndex) -> PortResult<Option<BlockRef>>;

    /// Exact bytes of an entry.
    async fn entry(&self, index: LeafIndex) -> PortResult<Option<Vec<u8>>>;

    /// Receipt under the first checkpoint that covered the entry; `None` if none does yet.
    async fn receipt(&self, index: LeafIndex) -> PortResult<Option<LedgerReceipt>>;

    /// Where a digest stands from `from` on, at most `max` positions.
    async fn find_digest(
        &self,
        algorithm: Algorithm,
        digest: &Hash32,
        from: LeafIndex,
        max: usize,
    ) -> PortResult<DigestHits>;

    /// Where the entry of an id stands.
    async fn find_entry(&self, id: &Hash32) -> PortResult<Option<LeafIndex>>;

    /// Signed statement that a digest is not in the index, as a note.
    async fn not_found_statement(&self, algorithm: Algorithm, digest: &Hash32) -> PortResult<String>;

    /// A tile or bundle, as served; `None` if it is not part of the published tree.
    async fn tile(&self, path: TilePath) -> PortResult<Option<Vec<u8>>>;

    /// Policy file for verifiers.
    async fn policy(&self) -> PortResult<String>;

    /// Policy files by the first tree size that each is for; it holds up to the next one's.
    async fn policies(&self) -> PortResult<BTreeMap<u64, String>>;

    /// Origin of the log.
    fn origin(&self) -> String;

    /// `vkey` lines of the statement keys.
    async fn statement_keys(&self) -> PortResult<Vec<String>>;

    /// Waits until a checkpoint covers a block above `height`, or the time is over.
    async fn wait_beyond(&self, height: u64, timeout: Duration) -> PortResult<()>;
}
