//! Accepting operations: idempotent, in slices. Whatever a slice holds costs one claim in the
//! cache, one query in the database and one publication in the queue.
//!
//! Invariant: an operation is answered as accepted only when the database, the cache or this
//! very publication says that it is durable. Dying before that acknowledges nothing; dying after
//! it loses nothing. A request that meets its twin still under way publishes too: the ledger
//! keeps one of them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use chopmark_api::{Problem, ProblemCode, case::CaseRequest, evidence::EvidenceRequest};
use futures_util::future::{join_all, try_join_all};
use ledger_core::{
    commitment::{self, EvidenceOpening},
    digests::Digests,
    hash::Hash32,
    json::to_canonical,
    operation::{CaseAppend, CaseOpen, Evidence, OperationType, V1, operation_hash},
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{
    failure,
    id::ResourceKey,
    message::QueueMessage,
    ports::{Claim, Clock, IdempotencyCache, OperationStore, PortResult, Queue, Random},
    private::{PrivateDocument, PrivatePart},
    quota::{Quotas, day_of},
    record::{OperationRow, OperationState},
    seal,
    services::Ports,
    signature::Submitted,
    tenant::Tenant,
};

/// Single requests under way are taken together, at most so many at a time.
const SLICE_MAX: usize = 512;
/// Slices of single requests under way at a time: one is being written while the next fills.
const SLICES_AT_ONCE: usize = 2;

/// A request on its way to become an operation.
#[derive(Debug)]
pub struct Draft {
    tenant: Arc<Tenant>,
    op: Hash32,
    request: Hash32,
    key: ResourceKey,
    trace: String,
    body: Body,
    signature: Option<Submitted>,
}

/// What a draft asks for.
#[derive(Debug)]
pub(crate) enum Body {
    /// Evidence, and whether the original is kept.
    Evidence { request: EvidenceRequest, retained: bool },
    /// A case.
    CaseOpen(CaseRequest),
    /// A link of a case: operation ids of case and evidence.
    CaseAppend { case: Hash32, evidence: Hash32 },
}

impl Draft {
    /// Names the operation by its key and the request by its canonical bytes.
    pub(crate) fn new(
        tenant: &Arc<Tenant>,
        idempotency_key: &str,
        kind: &str,
        request: &[u8],
        trace: &str,
        body: Body,
    ) -> Self {
        let op = tenant.operation_id(idempotency_key);
        Self {
            op,
            request: tenant.request_digest(kind, request),
            key: ResourceKey::of(&op, 0),
            tenant: Arc::clone(tenant),
            trace: trace.to_owned(),
            body,
            signature: None,
        }
    }

    /// Names the signature that the request came under. It is no part of what is asked for: the same
    /// request under another signature, or none, is the same request.
    pub(crate) fn signed(mut self, signature: Option<Submitted>) -> Self {
        self.signature = signature;
        self
    }
}

/// An operation that is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// Key in ids.
    pub key: ResourceKey,
    /// Digest of the request that was accepted.
    pub request: Hash32,
    /// Where it stands now.
    pub state: OperationState,
}

/// What came of one draft.
pub type Answer = Result<Accepted, Problem>;

/// Accepts operations.
pub struct Acceptor {
    network: String,
    chain: Hash32,
    queue: Arc<dyn Queue>,
    cache: Arc<dyn IdempotencyCache>,
    store: Arc<dyn OperationStore>,
    random: Arc<dyn Random>,
    quotas: Arc<dyn Quotas>,
    clock: Arc<dyn Clock>,
    queue_well: AtomicBool,
    lane: Mutex<Lane>,
}

#[derive(Default)]
struct Lane {
    waiting: Vec<(Draft, oneshot::Sender<Answer>)>,
    running: usize,
}

impl Acceptor {
    /// An acceptor for one network, whose operations name `chain`.
    #[must_use]
    pub fn new(network: String, chain: Hash32, ports: &Ports) -> Self {
        let Ports { queue, cache, store, random, quotas, clock, .. } = ports.clone();
        let (queue_well, lane) = (AtomicBool::new(true), Mutex::default());
        Self { network, chain, queue, cache, store, random, quotas, clock, queue_well, lane }
    }

    /// Whether the last publication succeeded.
    #[must_use]
    pub fn queue_is_well(&self) -> bool {
        self.queue_well.load(Ordering::Relaxed)
    }

    /// Accepts one draft, together with whatever else is under way.
    pub async fn accept(self: &Arc<Self>, draft: Draft) -> Answer {
        let (sender, receiver) = oneshot::channel();
        let start = {
            let mut lane = self.lane.lock();
            lane.waiting.push((draft, sender));
            let start = lane.running < SLICES_AT_ONCE;
            lane.running += usize::from(start);
            start
        };
        if start {
            // A task of its own: a caller that hangs up does not take the others' answers along.
            tokio::spawn(Arc::clone(self).drain());
        }
        receiver.await.unwrap_or_else(|_| Err(failure::broken("a slice was dropped")))
    }

    async fn drain(self: Arc<Self>) {
        let mut running = Running { lane: &self.lane, ended: false };
        while let Some(slice) = self.next_slice() {
            let (drafts, senders): (Vec<_>, Vec<_>) = slice.into_iter().unzip();
            for (sender, answer) in senders.into_iter().zip(self.accept_all(drafts).await) {
                // A caller that has hung up needs no answer.
                let _ = sender.send(answer);
            }
        }
        running.ended = true;
    }

    /// Ends the task under the same lock under which a new draft would find it running.
    fn next_slice(&self) -> Option<Vec<(Draft, oneshot::Sender<Answer>)>> {
        let mut lane = self.lane.lock();
        if lane.waiting.is_empty() {
            lane.running -= 1;
            return None;
        }
        let taken = lane.waiting.len().min(SLICE_MAX);
        let rest = lane.waiting.split_off(taken);
        Some(std::mem::replace(&mut lane.waiting, rest))
    }

    /// Accepts a slice; the answers stand in its order.
    pub async fn accept_all(&self, drafts: Vec<Draft>) -> Vec<Answer> {
        let (drafts, places) = fold_repeats(drafts);
        let answers = self.accept_distinct(drafts).await;
        let Some(places) = places else { return answers };
        let answer =
            |at: usize| answers.get(at).cloned().unwrap_or_else(|| Err(failure::broken("a draft without place")));
        places.into_iter().map(answer).collect()
    }

    async fn accept_distinct(&self, drafts: Vec<Draft>) -> Vec<Answer> {
        let claimed: Vec<_> = drafts.iter().map(|draft| (draft.op, draft.request)).collect();
        let claims = self.claim(&claimed).await;
        let mut rows = match self.find(&drafts).await {
            Ok(rows) => rows.into_iter(),
            Err(error) => return vec![Err(failure::port(&error)); drafts.len()],
        };
        let decisions: Vec<_> = drafts
            .iter()
            .zip(claims)
            .map(|(draft, claim)| decide(draft, claim, rows.next().flatten().as_ref()))
            .collect();
        let mut allowances = self.allowances(&drafts, &decisions).await;
        let mut answers = Vec::with_capacity(drafts.len());
        let mut messages = Vec::with_capacity(drafts.len());
        let mut fresh = Vec::with_capacity(drafts.len());
        for (draft, decision) in drafts.into_iter().zip(decisions) {
            let (key, request) = (draft.key, draft.request);
            answers.push(match decision {
                Decision::Known(state) => Ok(Accepted { key, request, state }),
                Decision::Conflict => Err(conflict()),
                Decision::Publish if !allowances.take(draft.tenant.id()) => Err(allowances.used_up()),
                Decision::Publish => self.message(draft).map(|message| {
                    messages.push(message);
                    fresh.push(answers.len());
                    Accepted { key, request, state: OperationState::Accepted }
                }),
            });
        }
        if let Err(problem) = self.publish(messages, fresh.iter().map(|at| claimed[*at]).collect()).await {
            fresh.into_iter().for_each(|at| answers[at] = Err(problem.clone()));
        }
        answers
    }

    /// The rows of drafts, in their order: one query for each tenant among them.
    async fn find(&self, drafts: &[Draft]) -> PortResult<Vec<Option<OperationRow>>> {
        let mut places: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (at, draft) in drafts.iter().enumerate() {
            places.entry(draft.tenant.id()).or_default().push(at);
        }
        let queries = places.into_iter().map(|(tenant, places)| async move {
            let keys: Vec<_> = places.iter().map(|at| drafts[*at].key).collect();
            let rows = self.store.find(&self.network, tenant, &keys).await?;
            Ok(places.into_iter().zip(rows).collect::<Vec<_>>())
        });
        let mut rows = vec![None; drafts.len()];
        for (at, row) in try_join_all(queries).await?.into_iter().flatten() {
            rows[at] = row;
        }
        Ok(rows)
    }

    /// Counts what is about to be published against its tenants' quotas of the day. What fails afterwards
    /// stays counted; what is known already costs nothing.
    async fn allowances(&self, drafts: &[Draft], decisions: &[Decision]) -> Allowances {
        let mut wanted: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for (draft, decision) in drafts.iter().zip(decisions) {
            if let (Decision::Publish, Some(limit)) = (decision, draft.tenant.limits().records_per_day) {
                wanted.entry(draft.tenant.id()).or_insert((0, limit)).0 += 1;
            }
        }
        let (day, rest_s) = day_of(self.clock.now_ms());
        let counts = wanted.into_iter().map(|(tenant, (records, limit))| async move {
            (tenant.to_owned(), self.quotas.records(tenant, day, records, limit).await)
        });
        Allowances { left: join_all(counts).await.into_iter().collect(), rest_s }
    }

    /// A cache that fails or answers nonsense costs a look-up, no more.
    async fn claim(&self, keys: &[(Hash32, Hash32)]) -> Vec<Claim> {
        match self.cache.claim(keys).await {
            Ok(claims) if claims.len() == keys.len() => claims,
            Ok(_) => vec![Claim::Unsettled; keys.len()],
            Err(error) => {
                tracing::warn!(%error, "idempotency cache not asked");
                vec![Claim::Unsettled; keys.len()]
            }
        }
    }

    async fn publish(&self, messages: Vec<QueueMessage>, settled: Vec<(Hash32, Hash32)>) -> Result<(), Problem> {
        if messages.is_empty() {
            return Ok(());
        }
        let published = self.queue.publish(messages).await;
        self.queue_well.store(published.is_ok(), Ordering::Relaxed);
        published.map_err(|error| failure::port(&error))?;
        // Durable from here on; what the cache misses, the database will know.
        if let Err(error) = self.cache.settle(&settled).await {
            tracing::warn!(%error, "idempotency cache not told");
        }
        Ok(())
    }

    fn message(&self, draft: Draft) -> Result<QueueMessage, Problem> {
        let Draft { tenant, op, request, key: _, trace, body, signature } = draft;
        let order = match &body {
            Body::CaseAppend { case, .. } => *case,
            Body::Evidence { .. } | Body::CaseOpen(_) => op,
        };
        let external_index = match &body {
            Body::Evidence { request, .. } => request.external_id.as_deref(),
            Body::CaseOpen(request) => request.external_id.as_deref(),
            Body::CaseAppend { .. } => None,
        }
        .map(|external_id| tenant.external_index(external_id));
        let (operation, private) = self.build(&tenant, op, request, body).map_err(|error| failure::port(&error))?;
        let signature = signature.as_ref().map(Submitted::seal_part);
        let sealed_private = match PrivateDocument::with_signature(private, signature) {
            Some(mut private) => {
                let plain = private.encode();
                seal::seal(&tenant, &op, &operation_hash(&operation), &plain, self.random.as_ref())
                    .map_err(|error| failure::seal(&error))?
            }
            None => Vec::new(),
        };
        Ok(QueueMessage {
            network: self.network.clone(),
            tenant: tenant.id().to_owned(),
            op,
            request_digest: request,
            order_key: order.0.to_vec(),
            trace,
            operation,
            sealed_private,
            external_index,
        })
    }

    /// The operation bytes, and what of the request is sealed.
    fn build(
        &self,
        tenant: &Tenant,
        op: Hash32,
        request: Hash32,
        body: Body,
    ) -> PortResult<(Vec<u8>, Option<PrivateDocument>)> {
        let (chain, owner) = (self.chain, tenant.id().to_owned());
        match body {
            Body::Evidence { request: asked, retained } => {
                let digests = ledger_digests(&asked.digests);
                let confidential = asked.is_confidential();
                let part = PrivatePart::of_evidence(&asked, || self.salt())?;
                let opening = if confidential {
                    let media_type = asked.media_type.clone();
                    Some(EvidenceOpening { digests, media_type, salt: self.salt()?, size: asked.size, v: V1 })
                } else {
                    None
                };
                let operation = encode(&Evidence {
                    chain,
                    commitment: opening.as_ref().map(|opening| commitment::commit(&opening.encode())),
                    digests: (!confidential).then_some(digests),
                    media_type: asked.media_type.filter(|_| !confidential),
                    op,
                    private: part.as_ref().map(PrivatePart::commit),
                    request,
                    size: asked.size.filter(|_| !confidential),
                    tenant: owner,
                    kind: OperationType::Evidence,
                    v: V1,
                });
                Ok((operation, PrivateDocument::of(opening, part, retained)))
            }
            Body::CaseOpen(asked) => {
                let part = PrivatePart::of_case(asked, || self.salt())?;
                let private = part.as_ref().map(PrivatePart::commit);
                let kind = OperationType::CaseOpen;
                let operation = to_canonical(&CaseOpen { chain, op, private, request, tenant: owner, kind, v: V1 });
                Ok((operation, PrivateDocument::of(None, part, false)))
            }
            Body::CaseAppend { case, evidence } => {
                let kind = OperationType::CaseAppend;
                let append = CaseAppend { case, chain, evidence, op, request, tenant: owner, kind, v: V1 };
                Ok((to_canonical(&append), None))
            }
        }
    }

    fn salt(&self) -> PortResult<Hash32> {
        let mut salt = Hash32::ZERO;
        self.random.fill(&mut salt.0)?;
        Ok(salt)
    }
}

/// However a drain is cut short, its place in the lane is given back.
struct Running<'a> {
    lane: &'a Mutex<Lane>,
    ended: bool,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.lane.lock().running -= 1;
        }
    }
}

/// How many records of tenants with a quota may still be published, out of one slice.
struct Allowances {
    left: HashMap<String, u64>,
    /// Seconds until the next day.
    rest_s: u32,
}

impl Allowances {
    fn take(&mut self, tenant: &str) -> bool {
        match self.left.get_mut(tenant) {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        }
    }

    fn used_up(&self) -> Problem {
        Problem::from(ProblemCode::QuotaExceeded).retry_after_s(self.rest_s)
    }
}

enum Decision {
    Known(OperationState),
    Conflict,
    Publish,
}

/// The database knows better than the cache: a claim may be of a request that lost.
fn decide(draft: &Draft, claim: Claim, row: Option<&OperationRow>) -> Decision {
    match (row, claim) {
        (Some(row), _) if row.request == draft.request => Decision::Known(row.state),
        (Some(_), _) | (None, Claim::Conflict) => Decision::Conflict,
        (None, Claim::Durable) => Decision::Known(OperationState::Accepted),
        (None, Claim::Unsettled) => Decision::Publish,
    }
}

pub(crate) fn conflict() -> Problem {
    Problem::header(ProblemCode::IdempotencyConflict, "Idempotency-Key")
}

/// Leaves one draft of every request, and says where each draft's answer stands; `None` when that
/// changes nothing.
///
/// Two requests under one operation id both stay: which of them holds the id, cache and database
/// know, and not the order in which they came here.
fn fold_repeats(drafts: Vec<Draft>) -> (Vec<Draft>, Option<Vec<usize>>) {
    if drafts.len() < 2 {
        return (drafts, None);
    }
    let mut first = HashMap::with_capacity(drafts.len());
    let mut places = Vec::with_capacity(drafts.len());
    let mut distinct: Vec<Draft> = Vec::with_capacity(drafts.len());
    for draft in drafts {
        let at = *first.entry((draft.op, draft.request)).or_insert(distinct.len());
        places.push(at);
        if at == distinct.len() {
            distinct.push(draft);
        }
    }
    let places = (distinct.len() < places.len()).then_some(places);
    (distinct, places)
}

/// Canonical bytes in one allocation: a plain operation has about 450 bytes.
fn encode(evidence: &Evidence) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(640);
    match serde_json::to_writer(&mut bytes, evidence) {
        Ok(()) => bytes,
        Err(_) => to_canonical(evidence),
    }
}

/// The digests of a request as the ledger writes them.
pub(crate) fn ledger_digests(digests: &chopmark_api::evidence::Digests) -> Digests {
    let convert = |digest: Option<chopmark_api::digest::Hash32>| digest.map(|digest| Hash32(*digest.as_bytes()));
    Digests { sha256: convert(digests.sha256), sha3_256: convert(digests.sha3_256), sm3: convert(digests.sm3) }
}
