//! The delivery loop: claim what is due, attempt it, write what came of it.
//!
//! Durable is the database alone. A claim ends by itself, so a courier that dies between any two lines leaves
//! nothing that another does not do: at worst a message that arrived is sent again, under the same
//! `webhook-id`. Of each resource only the first pending message is claimed, so order holds whoever delivers.

use std::{collections::HashMap, sync::Arc, time::Duration};

use chopmark_domain::{
    id::{IdIssuer, ResourceKey},
    ports::{Clock, DeliveryStore, PortError, PortResult, Random},
    seal::KeyEncryptionKey,
    webhook::{AttemptOutcome, AttemptRow, ClaimedDelivery, EndpointState, NextStep},
};
use metrics::{counter, gauge, histogram};
use tokio::{
    task::{JoinError, JoinSet},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    client::{Attempt, Client, Message, Outcome},
    egress::Egress,
    message, metric,
    schedule::Schedule,
    sign::{Secret, signature},
};

/// How often the backlog is counted.
const BACKLOG_PERIOD: Duration = Duration::from_secs(5);
/// How often ended deliveries are removed, and how many at a time.
const PRUNE_PERIOD: Duration = Duration::from_secs(600);
const PRUNE_AT_ONCE: u32 = 10_000;
/// An endpoint for which nothing could be claimed, since all that is due waits for what is tried later, is not looked
/// at again for so long.
const REST: Duration = Duration::from_secs(1);
/// After a failure of the database.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Attempts to write what came of an attempt: after them the claim ends, and the message is sent again.
const RECORDS_MAX: u32 = 10;

/// What a courier needs.
pub struct CourierPorts {
    /// Where deliveries are.
    pub store: Arc<dyn DeliveryStore>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Names of claims, and jitter.
    pub random: Arc<dyn Random>,
    /// Opens secrets of endpoints.
    pub kek: KeyEncryptionKey,
    /// Issues ids; the same key as the gateways'.
    pub ids: IdIssuer,
}

/// Bounds of a courier.
#[derive(Debug, Clone)]
pub struct CourierConfig {
    /// `sandbox` or `live`.
    pub network: String,
    /// Attempts at a time.
    pub concurrency: usize,
    /// Attempts at a time at one endpoint.
    pub per_endpoint: usize,
    /// How often to look for what is due while nothing happens.
    pub poll: Duration,
    /// How long a claim holds; longer than an attempt and the writing of what came of it.
    pub claim: Duration,
    /// When to try again.
    pub schedule: Schedule,
    /// An endpoint that takes nothing for so long is disabled.
    pub disable_after: Duration,
    /// How long deliveries are kept after they ended.
    pub retention: Duration,
}

impl CourierConfig {
    /// The defaults for a network.
    #[must_use]
    pub fn new(network: impl Into<String>) -> Self {
        Self {
            network: network.into(),
            concurrency: 64,
            per_endpoint: 8,
            poll: Duration::from_millis(200),
            claim: Duration::from_secs(60),
            schedule: Schedule::default(),
            disable_after: Duration::from_secs(5 * 24 * 60 * 60),
            retention: Duration::from_secs(30 * 24 * 60 * 60),
        }
    }
}

/// Delivers webhooks.
pub struct Courier(Arc<Shared>);

struct Shared {
    ports: CourierPorts,
    client: Client,
    egress: Arc<Egress>,
    config: CourierConfig,
}

/// Attempts under way.
#[derive(Default)]
struct UnderWay {
    tasks: JoinSet<ResourceKey>,
    /// What was heard of and not looked at yet.
    over: Vec<Result<ResourceKey, JoinError>>,
    by_endpoint: HashMap<ResourceKey, usize>,
    /// Endpoints that are not looked at before a time.
    resting: HashMap<ResourceKey, Instant>,
}

impl UnderWay {
    fn at(&self, endpoint: &ResourceKey) -> usize {
        self.by_endpoint.get(endpoint).copied().unwrap_or(0)
    }

    /// Waits until an attempt has ended; for ever where there is none.
    async fn one_ended(&mut self) {
        match self.tasks.join_next().await {
            Some(ended) => self.over.push(ended),
            None => std::future::pending().await,
        }
    }

    /// Endpoints whose attempts have ended since the last call.
    fn reap(&mut self) -> PortResult<Vec<ResourceKey>> {
        let mut ended = std::mem::take(&mut self.over);
        ended.extend(std::iter::from_fn(|| self.tasks.try_join_next()));
        let mut freed = Vec::new();
        for endpoint in ended {
            let panicked = |error: JoinError| PortError::Broken { port: "webhooks", reason: error.to_string() };
            let endpoint = endpoint.map_err(panicked)?;
            if let Some(count) = self.by_endpoint.get_mut(&endpoint) {
                *count -= 1;
                if *count == 0 {
                    self.by_endpoint.remove(&endpoint);
                }
            }
            if !freed.contains(&endpoint) {
                freed.push(endpoint);
            }
        }
        Ok(freed)
    }
}

impl Courier {
    /// A courier that sends where `egress` lets it.
    #[must_use]
    pub fn new(ports: CourierPorts, client: Client, egress: Arc<Egress>, config: CourierConfig) -> Self {
        Self(Arc::new(Shared { ports, client, egress, config }))
    }

    /// Runs until `stop`, and then ends the attempts that are under way. An error means that the database is
    /// broken, or that an attempt was: a new courier goes on from what is durable.
    pub async fn run(self, stop: CancellationToken) -> PortResult<()> {
        let shared = self.0;
        let mut beside = JoinSet::new();
        beside.spawn(Arc::clone(&shared).count(stop.clone()));
        beside.spawn(Arc::clone(&shared).prune(stop.clone()));
        let mut under_way = UnderWay::default();
        let mut looked: Option<Instant> = None;
        let mut had_room = false;
        let ended = loop {
            if stop.is_cancelled() {
                break Ok(());
            }
            // A look over everything costs what is due; between two of them only those are claimed for whose
            // attempts have ended, unless others wait for room.
            let is_time = looked.is_none_or(|at| at.elapsed() >= shared.config.poll);
            let round = async {
                let freed = under_way.reap()?;
                if shared.room(&under_way) == 0 || (!is_time && !had_room) {
                    return Ok(());
                }
                if !is_time {
                    return shared.claim(&mut under_way, freed).await;
                }
                let now = Instant::now();
                under_way.resting.retain(|_, until| *until > now);
                let mut due = shared.due().await?;
                due.retain(|endpoint| freed.contains(endpoint) || !under_way.resting.contains_key(endpoint));
                shared.claim(&mut under_way, due).await
            };
            match round.await {
                Ok(()) if is_time => {
                    looked = Some(Instant::now());
                    had_room = shared.room(&under_way) > 0;
                }
                Ok(()) => {}
                Err(error @ PortError::Broken { .. }) => break Err(error),
                Err(error) => {
                    tracing::warn!(%error, "webhooks wait");
                    tokio::select! { () = sleep(RETRY_PAUSE) => {} () = stop.cancelled() => {} }
                }
            }
            let rest = looked.map_or(Duration::ZERO, |at| shared.config.poll.saturating_sub(at.elapsed()));
            tokio::select! {
                () = under_way.one_ended() => {}
                () = sleep(rest) => {}
                () = stop.cancelled() => {}
            }
        };
        // Each is bounded by the client's time-outs.
        while under_way.tasks.join_next().await.is_some() {}
        beside.shutdown().await;
        ended
    }
}

impl Shared {
    /// Attempts that may begin.
    fn room(&self, under_way: &UnderWay) -> usize {
        self.config.concurrency.saturating_sub(under_way.tasks.len())
    }

    /// Endpoints that something is due for.
    async fn due(&self) -> PortResult<Vec<ResourceKey>> {
        self.noted(self.ports.store.due_endpoints(&self.config.network, self.ports.clock.now_ms()).await)
    }

    /// Claims what is due for these endpoints, as far as there is room, and begins to attempt it.
    async fn claim(self: &Arc<Self>, under_way: &mut UnderWay, due: Vec<ResourceKey>) -> PortResult<()> {
        let network = self.config.network.as_str();
        let store = &self.ports.store;
        for endpoint in due {
            let limit = self.room(under_way).min(self.config.per_endpoint.saturating_sub(under_way.at(&endpoint)));
            if limit == 0 {
                continue;
            }
            let now = self.ports.clock.now_ms();
            let times = (now, now.saturating_add(millis(self.config.claim)));
            let claim = ResourceKey(self.draw()?);
            let limit = u32::try_from(limit).unwrap_or(u32::MAX);
            let claimed = self.noted(store.claim(network, &endpoint, claim, times, limit).await)?;
            if claimed.is_empty() {
                under_way.resting.insert(endpoint, Instant::now() + REST);
            }
            for delivery in claimed {
                *under_way.by_endpoint.entry(endpoint).or_default() += 1;
                let shared = Arc::clone(self);
                under_way.tasks.spawn(async move {
                    shared.deliver(&delivery).await;
                    endpoint
                });
            }
        }
        Ok(())
    }

    /// One attempt, and what comes of it.
    async fn deliver(&self, delivery: &ClaimedDelivery) {
        let begun = self.ports.clock.now_ms();
        let attempt = self.attempt(delivery, begun).await;
        let outcome = match attempt.outcome {
            Outcome::Delivered => AttemptOutcome::Delivered,
            Outcome::Failed => AttemptOutcome::Failed,
            Outcome::Refused => AttemptOutcome::Refused,
            Outcome::Gone => AttemptOutcome::Gone,
        };
        let network = self.config.network.clone();
        counter!(metric::ATTEMPTS, "network" => network.clone(), "result" => outcome.as_str()).increment(1);
        histogram!(metric::ATTEMPT_SECONDS, "network" => network.clone()).record(attempt.took);
        let next = self.next(delivery, &attempt, outcome);
        let row = AttemptRow {
            at: begun,
            number: delivery.attempts.saturating_add(1),
            outcome,
            status: attempt.status,
            detail: attempt.detail,
            took_ms: millis(attempt.took),
        };
        if !self.record(delivery, row, next).await {
            return;
        }
        match next {
            NextStep::Done => {
                let took = self.ports.clock.now_ms().saturating_sub(delivery.event.time);
                histogram!(metric::DELIVERED_SECONDS, "network" => network).record(Duration::from_millis(took));
            }
            NextStep::Dead | NextStep::Disable(_) => {
                counter!(metric::DEAD_LETTERED, "network" => network).increment(1);
            }
            NextStep::Again(_) => {}
        }
        if let NextStep::Disable(reason) = next {
            let endpoint = message::endpoint_id(&self.ports.ids, &delivery.endpoint);
            tracing::warn!(%endpoint, reason = reason.as_str(), "webhook endpoint disabled");
        }
    }

    async fn attempt(&self, delivery: &ClaimedDelivery, now: u64) -> Attempt {
        let (endpoint, event) = (&delivery.endpoint, &delivery.event);
        let failed = |outcome, detail: String| Attempt {
            outcome,
            status: None,
            detail,
            retry_after: None,
            took: Duration::ZERO,
        };
        let url = match self.egress.parse(&endpoint.url) {
            Ok(url) => url,
            Err(refusal) => return failed(Outcome::Refused, refusal.to_string()),
        };
        let body = match message::body(&self.ports.ids, event) {
            Ok(body) => body,
            Err(error) => return failed(Outcome::Failed, format!("not written: {error}")),
        };
        let previous = endpoint.previous_secret.as_ref().filter(|(_, until)| *until > now);
        let wrapped = [Some(&endpoint.secret), previous.map(|(secret, _)| secret)];
        let open = |wrapped: &Vec<u8>| {
            let opened = self.ports.kek.unwrap_webhook_secret(&endpoint.tenant, &endpoint.id, wrapped).ok()?;
            Secret::from_bytes(&opened).ok()
        };
        let Some(secrets) = wrapped.into_iter().flatten().map(open).collect::<Option<Vec<_>>>() else {
            // The keys of this process are not the gateways'.
            tracing::error!("the secret of a webhook endpoint does not open under this key-encryption key");
            return failed(Outcome::Failed, "its secret cannot be opened at present".to_owned());
        };
        let id = message::id(&self.ports.ids, event);
        let timestamp = now / 1000;
        let signature = signature(&secrets.iter().collect::<Vec<_>>(), &id, timestamp, &body);
        self.client.post(&url, &Message { id: &id, timestamp, signature, body: body.into() }).await
    }

    fn next(&self, delivery: &ClaimedDelivery, attempt: &Attempt, outcome: AttemptOutcome) -> NextStep {
        let now = self.ports.clock.now_ms();
        match outcome {
            AttemptOutcome::Delivered => NextStep::Done,
            AttemptOutcome::Gone => NextStep::Disable(EndpointState::Gone),
            AttemptOutcome::Failed | AttemptOutcome::Refused => {
                let failing = delivery.endpoint.failing_since.map_or(0, |since| now.saturating_sub(since));
                if failing >= millis(self.config.disable_after) {
                    return NextStep::Disable(EndpointState::Failing);
                }
                let jitter = self.draw::<1>().map_or(0.5, |[byte]| f64::from(byte) / 255.0);
                match self.config.schedule.delay_after(delivery.attempts.saturating_add(1), jitter, attempt.retry_after)
                {
                    Some(delay) => NextStep::Again(now.saturating_add(millis(delay))),
                    None => NextStep::Dead,
                }
            }
        }
    }

    /// Writes what came of an attempt, within the claim; `false`: it is not known to be written.
    async fn record(&self, delivery: &ClaimedDelivery, attempt: AttemptRow, next: NextStep) -> bool {
        for _ in 0..RECORDS_MAX {
            match self.noted(self.ports.store.record(delivery, attempt.clone(), next).await) {
                Ok(written) => return written,
                Err(error @ PortError::Broken { .. }) => {
                    tracing::error!(%error, "what came of a webhook is not written");
                    return false;
                }
                Err(error) => {
                    tracing::warn!(%error, "what came of a webhook waits");
                    sleep(RETRY_PAUSE).await;
                }
            }
        }
        false
    }

    async fn count(self: Arc<Self>, stop: CancellationToken) {
        let network = &self.config.network;
        while !stop.is_cancelled() {
            if let Ok(backlog) = self.ports.store.backlog(network).await {
                let now = self.ports.clock.now_ms();
                let oldest = backlog.oldest.map_or(0, |oldest| now.saturating_sub(oldest));
                gauge!(metric::BACKLOG, "network" => network.clone()).set(value(backlog.pending));
                gauge!(metric::OLDEST_SECONDS, "network" => network.clone()).set(value(oldest) / 1000.0);
                for (state, count) in [("enabled", backlog.enabled), ("disabled", backlog.disabled)] {
                    gauge!(metric::ENDPOINTS, "network" => network.clone(), "state" => state).set(value(count));
                }
            }
            tokio::select! { () = sleep(BACKLOG_PERIOD) => {} () = stop.cancelled() => {} }
        }
    }

    async fn prune(self: Arc<Self>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let now = self.ports.clock.now_ms();
            if let Err(error) = self.ports.store.sweep(&self.config.network, now, PRUNE_AT_ONCE).await {
                tracing::warn!(%error, "deliveries to endpoints that are disabled stay for now");
            }
            let before = self.ports.clock.now_ms().saturating_sub(millis(self.config.retention));
            let pruned = self.ports.store.prune(&self.config.network, before, PRUNE_AT_ONCE).await;
            match pruned {
                // There may be more.
                Ok(pruned) if pruned == u64::from(PRUNE_AT_ONCE) => continue,
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "old webhook deliveries stay for now"),
            }
            tokio::select! { () = sleep(PRUNE_PERIOD) => {} () = stop.cancelled() => {} }
        }
    }

    /// Notes whether the database answered.
    fn noted<T>(&self, result: PortResult<T>) -> PortResult<T> {
        let up = if result.is_ok() { 1.0 } else { 0.0 };
        gauge!(metric::DEPENDENCY_UP, "network" => self.config.network.clone(), "dependency" => "database").set(up);
        result
    }

    fn draw<const N: usize>(&self) -> PortResult<[u8; N]> {
        let mut bytes = [0; N];
        self.ports.random.fill(&mut bytes)?;
        Ok(bytes)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A gauge's value: counts and milliseconds stay far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
const fn value(count: u64) -> f64 {
    count as f64
}
