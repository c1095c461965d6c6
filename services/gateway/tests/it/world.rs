//! A running gateway with everything around it.

use std::{
    collections::HashMap,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use chopmark_cache::MemoryQuotas;
use chopmark_domain::{
    Ports, Services, Settings,
    auth::ApiKey,
    endpoints::WebhookPorts,
    id::{IdIssuer, ResourceKey},
    ports::{
        Clock as _, OperationStore as _, OriginalStore, ProjectionStore as _, TenantStore as _, UrlFault, WebhookUrls,
    },
    quota::Limits,
    record::{
        AcceptedOperation, CaseLink, CommittedAt, OperationState, ProjectedBlock, ProjectedOperation, RejectedAt,
        SealedPrivate,
    },
    seal::KeyEncryptionKey,
    tenant::{ApiKeyRow, Scope, TenantRow},
};
use chopmark_gateway::{Gateway, GatewayConfig, Stopper};
use chopmark_store::SqliteStore;
use ledger_core::{
    entry::{self, Link, entry_id},
    hash::Hash32,
    operation::{Operation, operation_hash},
    outcome::{RejectionCode, Verdict},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::{
    client::{Req, Res},
    doubles::{MemoryCache, MemoryQueue, MemoryStore, SystemClock, ThreadRandom},
    ledger::MemoryLedger,
};

pub(crate) const CHAIN: Hash32 = Hash32([9; 32]);
const ID_KEY: [u8; 32] = [1; 32];
const KEK: [u8; 32] = [2; 32];
const HASHING_KEY: [u8; 32] = [3; 32];

/// SHA-256 of "test".
pub(crate) const DIGEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

pub(crate) struct World {
    pub(crate) address: SocketAddr,
    pub(crate) internal: SocketAddr,
    pub(crate) queue: Arc<MemoryQueue>,
    pub(crate) cache: Arc<MemoryCache>,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) ledger: Arc<MemoryLedger>,
    pub(crate) stopper: Stopper,
    /// Reads and writes for the first tenant.
    pub(crate) key: String,
    /// The real thing: claims and order are the database's.
    pub(crate) webhooks: Arc<SqliteStore>,
    _folder: tempfile::TempDir,
    taken: Mutex<usize>,
    cases: Mutex<HashMap<Hash32, (u64, Hash32)>>,
    evidence: Mutex<HashMap<Hash32, u64>>,
    reject: Mutex<Option<RejectionCode>>,
}

/// A world in the making.
#[derive(Default)]
pub(crate) struct Builder {
    pub(crate) config: GatewayConfig,
    pub(crate) originals: Option<Arc<dyn OriginalStore>>,
    pub(crate) key_cache_ttl: Option<Duration>,
    /// Of every tenant.
    pub(crate) limits: Limits,
}

impl World {
    pub(crate) async fn start() -> Self {
        Builder::default().start().await
    }

    pub(crate) async fn send(&self, req: Req) -> Res {
        req.send(self.address).await
    }

    /// With the first tenant's key.
    pub(crate) async fn call(&self, req: Req) -> Res {
        self.send(req.bearer(&self.key)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Res {
        self.call(Req::get(path)).await
    }

    /// Evidence under a key, with one digest.
    pub(crate) fn evidence(&self, key: &str) -> Req {
        Req::post("/v1/evidence", key).json(&plain())
    }

    /// Accepted and committed evidence: its id.
    pub(crate) async fn committed_evidence(&self, key: &str, body: &Value) -> String {
        let accepted = self.call(Req::post("/v1/evidence", key).json(body)).await.expect(202);
        self.commit().await;
        accepted["id"].as_str().unwrap().to_owned()
    }

    /// Adds an API key.
    pub(crate) fn add_key(&self, tenant: &str, scopes: &[Scope], change: impl FnOnce(&mut ApiKeyRow)) -> String {
        let key = ApiKey::generate("sandbox", &ThreadRandom).unwrap();
        let mut row = ApiKeyRow {
            id: format!("key_{}", self.store.keys.lock().len()),
            hash: key.hash(&HASHING_KEY),
            tenant: tenant.to_owned(),
            network: "sandbox".to_owned(),
            scopes: scopes.to_vec(),
            allowed: Vec::new(),
            created_at: 0,
            expires_at: None,
            revoked_at: None,
        };
        change(&mut row);
        self.store.keys.lock().push(row);
        key.reveal().to_owned()
    }

    pub(crate) fn published(&self) -> usize {
        self.queue.messages.lock().len()
    }

    /// The next operation that is committed will be rejected instead.
    pub(crate) fn reject_next(&self, code: RejectionCode) {
        *self.reject.lock() = Some(code);
    }

    /// What a committer does first: rows for everything in the queue.
    pub(crate) async fn ingest(&self) {
        let messages = self.queue.messages.lock().clone();
        let accepted = messages.iter().map(|message| AcceptedOperation {
            network: message.network.clone(),
            tenant: message.tenant.clone(),
            key: ResourceKey::of(&message.op, 0),
            op: message.op,
            kind: Operation::parse(&message.operation).unwrap().common().kind,
            request: message.request_digest,
            operation_hash: operation_hash(&message.operation),
            accepted_at: SystemClock.now_ms(),
            private: (!message.sealed_private.is_empty()).then(|| SealedPrivate {
                sealed: message.sealed_private.clone(),
                external_index: message.external_index,
            }),
        });
        let accepted: Vec<_> = accepted.collect();
        self.store.insert_accepted(accepted).await.unwrap();
    }

    /// What committer and ledger do: one block with everything in the queue, then its projection.
    pub(crate) async fn commit(&self) {
        self.ingest().await;
        let messages = {
            let messages = self.queue.messages.lock();
            let from = std::mem::replace(&mut *self.taken.lock(), messages.len());
            messages[from..].to_vec()
        };
        let time = SystemClock.now_ms();
        let (mut entries, mut links, mut ended, mut decided) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (start, height) = (self.ledger.size(), 0);
        for message in messages {
            let operation = Operation::parse(&message.operation).unwrap();
            let common = operation.common();
            assert_eq!((common.chain, common.op), (CHAIN, message.op));
            let fresh = !ended.iter().any(|known: &ProjectedOperation| known.op == message.op)
                && self.store.rows.lock()[&ResourceKey::of(&message.op, 0)].state == OperationState::Accepted;
            if !fresh {
                continue;
            }
            let index = start + entries.len() as u64;
            let (state, verdict) = if let Some(code) = self.reject.lock().take() {
                (OperationState::Rejected(RejectedAt { code, height, time }), Verdict::Rejected(code))
            } else {
                let entry = self.entry(&operation, index, time, &mut links);
                let entry_id = entry_id(&entry);
                entries.push(entry);
                let state = OperationState::Committed(CommittedAt { index, entry: entry_id, height, time });
                (state, Verdict::Committed { index, entry: entry_id })
            };
            decided.push((message.operation.clone(), verdict));
            ended.push(ProjectedOperation {
                key: ResourceKey::of(&message.op, 0),
                op: message.op,
                tenant: message.tenant,
                kind: common.kind,
                request: message.request_digest,
                operation_hash: operation_hash(&message.operation),
                state,
            });
        }
        let block = self.ledger.decide(entries, decided, time);
        let projected = ProjectedBlock {
            network: "sandbox".to_owned(),
            height: block.height,
            hash: block.hash,
            time,
            tree_size: self.ledger.size(),
            operations: ended,
            links,
        };
        self.store.project(projected).await.unwrap();
    }

    fn entry(&self, operation: &Operation, index: u64, time: u64, links: &mut Vec<CaseLink>) -> Vec<u8> {
        match operation {
            Operation::Evidence(evidence) => {
                self.evidence.lock().insert(evidence.op, index);
                entry::evidence(evidence, time)
            }
            Operation::CaseOpen(open) => {
                let entry = entry::case_open(open, time);
                self.cases.lock().insert(open.op, (0, entry_id(&entry)));
                entry
            }
            Operation::CaseAppend(append) => {
                let mut cases = self.cases.lock();
                let (position, previous) = cases.get_mut(&append.case).unwrap();
                *position += 1;
                let evidence_index = self.evidence.lock()[&append.evidence];
                let link = Link { evidence_index, position: *position, previous: *previous };
                let entry = entry::case_append(append, link, time);
                links.push(CaseLink {
                    tenant: append.tenant.clone(),
                    case: ResourceKey::of(&append.case, 0),
                    position: *position,
                    evidence: ResourceKey::of(&append.evidence, 0),
                    index,
                    entry: entry_id(&entry),
                    previous: *previous,
                    time,
                });
                *previous = entry_id(&entry);
                entry
            }
            other => panic!("not from a gateway: {other:?}"),
        }
    }
}

/// Which URLs are refused is the courier's; here only that it is asked.
struct AnyUrl;

impl WebhookUrls for AnyUrl {
    fn check(&self, text: &str) -> Result<String, UrlFault> {
        match text {
            "http://10.0.0.1/" => Err(UrlFault::Address),
            text => Ok(text.to_owned()),
        }
    }
}

/// The smallest request.
pub(crate) fn plain() -> Value {
    json!({ "digests": { "sha256": DIGEST } })
}

impl Builder {
    pub(crate) async fn start(self) -> World {
        let (queue, cache, store) =
            (Arc::<MemoryQueue>::default(), Arc::<MemoryCache>::default(), Arc::<MemoryStore>::default());
        let ledger = Arc::new(MemoryLedger::new());
        let kek = KeyEncryptionKey::new(Zeroizing::new(KEK));
        let folder = tempfile::tempdir().unwrap();
        let webhooks = format!("sqlite:{}", folder.path().join("webhooks.db").display());
        let webhooks = Arc::new(SqliteStore::open(&webhooks).await.unwrap());
        for (id, secret, active) in [("ten_one", 11, true), ("ten_two", 12, true), ("ten_suspended", 13, false)] {
            let wrapped_secret = kek.wrap(id, &[secret; 32], &ThreadRandom).unwrap();
            let network = "sandbox".to_owned();
            let tenant = TenantRow {
                id: id.into(),
                network,
                wrapped_secret,
                active,
                signatures_required: false,
                limits: self.limits,
                created_at: 0,
            };
            webhooks.insert_tenant(tenant.clone()).await.unwrap();
            store.tenants.lock().push(tenant);
        }
        let ports = Ports {
            queue: queue.clone(),
            cache: cache.clone(),
            quotas: Arc::new(MemoryQuotas::default()),
            store: store.clone(),
            projection: store.clone(),
            tenants: store.clone(),
            ledger: ledger.clone(),
            clock: Arc::new(SystemClock),
            random: Arc::new(ThreadRandom),
            originals: self.originals,
            webhooks: WebhookPorts { store: webhooks.clone(), urls: Arc::new(AnyUrl) },
        };
        let ids = IdIssuer::new(Zeroizing::new(ID_KEY), "sandbox");
        let mut settings = Settings::new("sandbox", CHAIN, ids, kek, Zeroizing::new(HASHING_KEY));
        settings.key_cache_ttl = self.key_cache_ttl.unwrap_or(settings.key_cache_ttl);
        let services = Arc::new(Services::new(ports, settings));
        let mut config = self.config;
        config.workers = Some(2);
        let gateway = Gateway::new(services, config, || "# TYPE test gauge\ntest 1\n".to_owned());
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let serving = gateway.serve(listen(), listen()).unwrap();
        let mut world = World {
            address: serving.public_address(),
            internal: serving.internal_address(),
            queue,
            cache,
            store,
            ledger,
            stopper: serving.stopper(),
            key: String::new(),
            webhooks,
            _folder: folder,
            taken: Mutex::new(0),
            cases: Mutex::default(),
            evidence: Mutex::default(),
            reject: Mutex::new(None),
        };
        world.key = world.add_key("ten_one", &[Scope::Read, Scope::Write], |_| ());
        tokio::spawn(serving.run());
        world
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let stopper = self.stopper.clone();
        tokio::spawn(async move { stopper.stop().await });
    }
}
