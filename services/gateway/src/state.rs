//! What all workers of a gateway share.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use chopmark_api::ProblemCode;
use chopmark_domain::{Services, id::base32, lookup::PublicLedger};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{config::GatewayConfig, limit::Limits, refusal::Outcome};

/// What the paths of a sandbox begin with that is served beside another network.
pub(crate) const SANDBOX_BASE: &str = "/sandbox";

/// A body costs its bytes, what is parsed from it and what is published: about four times.
const BODY_COST_FACTOR: usize = 4;
/// What any request under way costs besides, so that small ones are bounded in number too.
const REQUEST_COST_BYTES: usize = 16 * 1024;
/// Bodies are charged in units of this many bytes.
const COST_UNIT_BYTES: usize = 1024;

/// A network that is served, and the process that serves it.
pub(crate) struct Shared {
    /// `sandbox` or `live`.
    pub(crate) network: &'static str,
    /// What its paths begin with: nothing, or `/sandbox` of the one beside another.
    pub(crate) base: &'static str,
    /// What anybody may read.
    pub(crate) ledger: Arc<PublicLedger>,
    /// Everything else; a member's node has nothing else.
    services: Option<Arc<Services>>,
    /// The network that is served beside this one.
    pub(crate) beside: Option<Arc<Self>>,
    process: Arc<Process>,
}

/// What all networks of a gateway process have in common: its memory and its listeners.
pub(crate) struct Process {
    pub(crate) config: GatewayConfig,
    pub(crate) limits: Limits,
    pub(crate) metrics: Box<dyn Fn() -> String + Send + Sync>,
    pub(crate) uploads: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
    draining: AtomicBool,
    request_ids: RequestIds,
}

impl Process {
    pub(crate) fn new(
        request_ids_start: u64,
        config: GatewayConfig,
        metrics: Box<dyn Fn() -> String + Send + Sync>,
    ) -> Self {
        let units = (config.bodies_bytes_max / COST_UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS);
        Self {
            limits: Limits::new(&config),
            uploads: Arc::new(Semaphore::new(config.uploads_max)),
            bodies: Arc::new(Semaphore::new(units)),
            draining: AtomicBool::new(false),
            request_ids: RequestIds { start: request_ids_start, count: AtomicU64::new(0) },
            config,
            metrics,
        }
    }
}

impl Deref for Shared {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl Shared {
    pub(crate) fn new(ledger: Arc<PublicLedger>, services: Option<Arc<Services>>, process: Arc<Process>) -> Self {
        let network = network_name(ledger.network_name());
        Self { network, base: "", ledger, services, beside: None, process }
    }

    /// Serves the sandbox too, under a prefix.
    pub(crate) fn with_sandbox(&self, services: Arc<Services>) -> Self {
        let sandbox = Self::new(Arc::clone(&services.ledger), Some(services), Arc::clone(&self.process));
        Self {
            network: self.network,
            base: self.base,
            ledger: Arc::clone(&self.ledger),
            services: self.services.clone(),
            beside: Some(Arc::new(Self { base: SANDBOX_BASE, ..sandbox })),
            process: Arc::clone(&self.process),
        }
    }

    /// This network and the one beside it.
    pub(crate) fn networks(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(self.beside.as_deref())
    }

    /// Counts writes of a tenant by what they were answered: as durable, repeats among them, or as too many.
    pub(crate) fn count_writes(&self, tenant: &str, result: &'static str, writes: usize) {
        let (network, tenant) = (self.network, tenant.to_owned());
        metrics::counter!(
            "chopmark_gateway_writes_total", "network" => network, "tenant" => tenant, "result" => result
        )
        .increment(writes as u64);
    }

    /// The use cases behind a key. A member's node has none, and no route that asks for them.
    pub(crate) fn services(&self) -> Outcome<&Services> {
        self.services.as_deref().ok_or_else(|| ProblemCode::RouteNotFound.into())
    }

    /// Those of a gateway.
    pub(crate) fn gateway_services(&self) -> Option<&Services> {
        self.services.as_deref()
    }

    /// Room in memory for a body of so many bytes; `None`: there is none at present.
    pub(crate) fn room_for(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = (REQUEST_COST_BYTES + BODY_COST_FACTOR * bytes).div_ceil(COST_UNIT_BYTES);
        Arc::clone(&self.bodies).try_acquire_many_owned(u32::try_from(units).ok()?).ok()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn next_request_id(&self) -> String {
        self.request_ids.next()
    }
}

fn network_name(name: &str) -> &'static str {
    if name == "live" { "live" } else { "sandbox" }
}

/// Request ids: a start that differs between processes, then a count.
struct RequestIds {
    start: u64,
    count: AtomicU64,
}

impl RequestIds {
    fn next(&self) -> String {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        format!("req_{}", base32(&self.start.wrapping_add(count).to_be_bytes()))
    }
}
