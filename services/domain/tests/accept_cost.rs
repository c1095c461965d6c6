//! What accepting a plain item costs, from parsed request to queue message, with ports that cost
//! nothing. Prints the figure; the bound is for disasters, because machines differ.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of a test, and the figure that it is for")]

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use async_trait::async_trait;
use chopmark_api::{
    Problem,
    evidence::{EvidenceBatchItem, EvidenceBatchRequest},
    parse,
};
use chopmark_domain::{
    Ports, Services, Settings,
    auth::ApiKey,
    endpoints::WebhookPorts,
    id::{IdIssuer, ResourceKey},
    message::QueueMessage,
    notarize::Write,
    ports::{
        Claim, Clock, DigestHits, EndpointInsertion, IdempotencyCache, LedgerBlock, LedgerReader, LedgerReceipt,
        LedgerStatus, OperationStore, PortError, PortResult, ProjectionStore, Queue, Random, TenantStore, UrlFault,
        WebhookStore, WebhookUrls,
    },
    quota::{Limits, Quotas, Rate, RateAnswer},
    record::{AcceptedOperation, CaseLink, ListQuery, OperationRow, ProjectedBlock, ProjectionCursor},
    seal::KeyEncryptionKey,
    tenant::{ApiKeyRow, Scope, SigningKeyRow, TenantRow},
    webhook::{AttemptRow, DeliveryQuery, DeliveryRow, EndpointRow, OutboxEvent, ReplayRange},
};
use ledger_core::{digests::Algorithm, hash::Hash32, merkle::LeafIndex, tile::TilePath};
use zeroize::Zeroizing;

const ITEMS: usize = 1000;
const ROUNDS: usize = 30;

struct Nothing(TenantRow, ApiKeyRow);

#[async_trait]
impl Queue for Nothing {
    async fn publish(&self, messages: Vec<QueueMessage>) -> PortResult<()> {
        assert_eq!(messages.len(), ITEMS);
        Ok(())
    }
}

#[async_trait]
impl IdempotencyCache for Nothing {
    async fn claim(&self, keys: &[(Hash32, Hash32)]) -> PortResult<Vec<Claim>> {
        Ok(vec![Claim::Unsettled; keys.len()])
    }

    async fn settle(&self, _: &[(Hash32, Hash32)]) -> PortResult<()> {
        Ok(())
    }
}

#[async_trait]
impl OperationStore for Nothing {
    async fn insert_accepted(&self, _: Vec<AcceptedOperation>) -> PortResult<()> {
        unreachable!()
    }

    async fn find(&self, _: &str, _: &str, keys: &[ResourceKey]) -> PortResult<Vec<Option<OperationRow>>> {
        Ok(vec![None; keys.len()])
    }

    async fn list(&self, _: ListQuery) -> PortResult<Vec<OperationRow>> {
        unreachable!()
    }

    async fn sealed_private(&self, _: &str, _: &str, _: &Hash32, _: &Hash32) -> PortResult<Option<Vec<u8>>> {
        unreachable!()
    }

    async fn case_links(&self, _: &str, _: &str, _: &ResourceKey, _: u64, _: u32) -> PortResult<Vec<CaseLink>> {
        unreachable!()
    }
}

#[async_trait]
impl ProjectionStore for Nothing {
    async fn cursor(&self, _: &str) -> PortResult<Option<ProjectionCursor>> {
        Ok(None)
    }

    async fn project(&self, _: ProjectedBlock) -> PortResult<bool> {
        unreachable!()
    }

    async fn reset(&self, _: &str) -> PortResult<()> {
        unreachable!()
    }
}

#[async_trait]
impl TenantStore for Nothing {
    async fn insert_tenant(&self, _: TenantRow) -> PortResult<bool> {
        unreachable!()
    }

    async fn tenant(&self, _: &str, _: &str) -> PortResult<Option<TenantRow>> {
        Ok(Some(self.0.clone()))
    }

    async fn insert_api_key(&self, _: ApiKeyRow) -> PortResult<()> {
        unreachable!()
    }

    async fn api_key(&self, _: &Hash32) -> PortResult<Option<ApiKeyRow>> {
        Ok(Some(self.1.clone()))
    }

    async fn revoke_api_key(&self, _: &str, _: u64) -> PortResult<bool> {
        unreachable!()
    }

    async fn signing_key(&self, _: &str, _: &str, _: &str) -> PortResult<Option<SigningKeyRow>> {
        unreachable!()
    }
}

#[async_trait]
impl LedgerReader for Nothing {
    async fn status(&self) -> PortResult<LedgerStatus> {
        unreachable!()
    }

    async fn blocks(&self, _: u64, _: usize) -> PortResult<Vec<LedgerBlock>> {
        unreachable!()
    }

    async fn block_of(&self, _: LeafIndex) -> PortResult<Option<chopmark_domain::ports::BlockRef>> {
        unreachable!()
    }

    async fn entry(&self, _: LeafIndex) -> PortResult<Option<Vec<u8>>> {
        unreachable!()
    }

    async fn receipt(&self, _: LeafIndex) -> PortResult<Option<LedgerReceipt>> {
        unreachable!()
    }

    async fn find_digest(&self, _: Algorithm, _: &Hash32, _: LeafIndex, _: usize) -> PortResult<DigestHits> {
        unreachable!()
    }

    async fn find_entry(&self, _: &Hash32) -> PortResult<Option<LeafIndex>> {
        unreachable!()
    }

    async fn not_found_statement(&self, _: Algorithm, _: &Hash32) -> PortResult<String> {
        unreachable!()
    }

    async fn tile(&self, _: TilePath) -> PortResult<Option<Vec<u8>>> {
        unreachable!()
    }

    async fn policy(&self) -> PortResult<String> {
        unreachable!()
    }

    fn origin(&self) -> String {
        unreachable!()
    }

    async fn policies(&self) -> PortResult<BTreeMap<u64, String>> {
        unreachable!()
    }

    async fn statement_keys(&self) -> PortResult<Vec<String>> {
        unreachable!()
    }

    async fn wait_beyond(&self, _: u64, _: std::time::Duration) -> PortResult<()> {
        unreachable!()
    }
}

#[async_trait]
impl Quotas for Nothing {
    async fn request(&self, _: &str, _: Rate) -> RateAnswer {
        unreachable!()
    }

    async fn records(&self, _: &str, _: u64, _: u64, _: u64) -> u64 {
        unreachable!()
    }
}

impl Clock for Nothing {
    fn now_ms(&self) -> u64 {
        1
    }
}

impl Random for Nothing {
    fn fill(&self, out: &mut [u8]) -> PortResult<()> {
        out.fill(7);
        Ok(())
    }
}

fn services() -> (Services, String) {
    let fixed = |tenant: TenantRow, key: ApiKeyRow| Arc::new(Nothing(tenant, key));
    let kek = || KeyEncryptionKey::new(Zeroizing::new([1; 32]));
    let mut tenant = TenantRow {
        id: "ten_aebagbafaydqqcikbmga2dqpcaireeyuculbogi".to_owned(),
        network: "sandbox".to_owned(),
        wrapped_secret: Vec::new(),
        active: true,
        signatures_required: false,
        limits: Limits::default(),
        created_at: 0,
    };
    let key = ApiKeyRow {
        id: "key_1".to_owned(),
        hash: Hash32::ZERO,
        tenant: tenant.id.clone(),
        network: "sandbox".to_owned(),
        scopes: vec![Scope::Write],
        allowed: Vec::new(),
        created_at: 0,
        expires_at: None,
        revoked_at: None,
    };
    let random = fixed(tenant.clone(), key.clone());
    tenant.wrapped_secret = kek().wrap(&tenant.id, &[2; 32], random.as_ref()).unwrap();
    let text = ApiKey::generate("sandbox", random.as_ref()).unwrap().reveal().to_owned();
    let all = fixed(tenant, key);
    let ports = Ports {
        queue: all.clone(),
        cache: all.clone(),
        quotas: all.clone(),
        store: all.clone(),
        projection: all.clone(),
        tenants: all.clone(),
        ledger: all.clone(),
        clock: all.clone(),
        random: all,
        originals: None,
        webhooks: WebhookPorts { store: Arc::new(Nowhere), urls: Arc::new(Nowhere) },
    };
    let ids = IdIssuer::new(Zeroizing::new([3; 32]), "sandbox");
    let settings = Settings::new("sandbox", Hash32([9; 32]), ids, kek(), Zeroizing::new([4; 32]));
    (Services::new(ports, settings), text)
}

fn items(round: usize) -> Vec<Result<EvidenceBatchItem, Problem>> {
    let item = |at: usize| {
        let digest = Hash32([u8::try_from(at % 256).unwrap(); 32]);
        format!(
            r#"{{"idempotency_key":"order-2026-{round:04}-{at:06}","digests":{{"sha256":"{digest}"}},"size":48213}}"#
        )
    };
    let body = format!(r#"{{"items":[{}]}}"#, (0..ITEMS).map(item).collect::<Vec<_>>().join(","));
    parse::<EvidenceBatchRequest>(body.as_bytes()).unwrap().items.into_iter().map(Ok).collect()
}

#[tokio::test]
async fn a_plain_item_of_a_batch_costs_a_few_microseconds() {
    let (services, key) = services();
    let caller = services.access.authenticate(&key).await.unwrap();
    let write = Write { caller: &caller, trace: "", signature: None };
    let mut best = f64::MAX;
    for round in 0..ROUNDS {
        let items = items(round);
        let begun = Instant::now();
        let answers = services.notary.notarize_batch(write, items).await;
        let micros = begun.elapsed().as_secs_f64() * 1e6 / 1000.0;
        assert!(answers.len() == ITEMS && answers.iter().all(|item| item.answer.is_ok()));
        best = best.min(micros);
    }
    println!("{best:.2} µs an item");
    assert!(best < 100.0, "{best} µs an item");
}

/// Accepting has nothing to do with webhooks.
struct Nowhere;

impl WebhookUrls for Nowhere {
    fn check(&self, _: &str) -> Result<String, UrlFault> {
        Err(UrlFault::Host)
    }
}

fn away<T>() -> PortResult<T> {
    Err(PortError::Unavailable { port: "database", reason: "there is none".to_owned() })
}

#[async_trait]
impl WebhookStore for Nowhere {
    async fn insert_endpoint(&self, _: EndpointRow, _: u32) -> PortResult<EndpointInsertion> {
        away()
    }

    async fn endpoints(&self, _: &str, _: &str) -> PortResult<Vec<EndpointRow>> {
        away()
    }

    async fn update_endpoint(&self, _: EndpointRow) -> PortResult<bool> {
        away()
    }

    async fn delete_endpoint(&self, _: &str, _: &str, _: &ResourceKey) -> PortResult<bool> {
        away()
    }

    async fn push_event(&self, _: OutboxEvent, _: &ResourceKey) -> PortResult<()> {
        away()
    }

    async fn deliveries(&self, _: DeliveryQuery) -> PortResult<Vec<DeliveryRow>> {
        away()
    }

    async fn delivery(&self, _: &str, _: &str, _: &ResourceKey) -> PortResult<Option<(DeliveryRow, Vec<AttemptRow>)>> {
        away()
    }

    async fn replay(&self, _: &str, _: &str, _: &ResourceKey, _: u64) -> PortResult<bool> {
        away()
    }

    async fn replay_range(&self, _: &str, _: &str, _: &ResourceKey, _: ReplayRange, _: u64) -> PortResult<u64> {
        away()
    }
}
