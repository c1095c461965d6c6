//! Rate limits, per API key, per address and per tenant. What is kept of an address is a number that
//! forgets itself once the address has been quiet for a few seconds.

use std::{
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use chopmark_api::{Problem, ProblemCode};
use chopmark_domain::{
    access::Caller,
    quota::{Quotas, Rate, RateAnswer},
};
use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
    middleware::StateInformationMiddleware,
    state::keyed::DashMapStateStore,
};

use crate::{config::GatewayConfig, refusal::Refusal};

pub(crate) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(crate) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Checks between two looks at how many keys are held.
const CHECKS_BETWEEN_SWEEPS: u32 = 4096;
/// Keys held before those that are quiet are dropped: about 100 bytes each.
const KEYS_BEFORE_SWEEP: usize = 100_000;

type Keyed = RateLimiter<u64, DashMapStateStore<u64>, DefaultClock, StateInformationMiddleware>;

/// The limits of a gateway.
pub(crate) struct Limits {
    pub(crate) keys: Limiter,
    pub(crate) public: Limiter,
    pub(crate) log: Limiter,
}

impl Limits {
    pub(crate) fn new(config: &GatewayConfig) -> Self {
        Self {
            keys: Limiter::new("key", config.key_limit),
            public: Limiter::new("address", config.public_limit),
            log: Limiter::new("log", config.log_limit),
        }
    }
}

/// One class of limits.
pub(crate) struct Limiter {
    name: &'static str,
    keyed: Option<(Rate, Keyed)>,
    hasher: RandomState,
    checks: AtomicU32,
}

/// How much a caller has left; shown on its answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    name: &'static str,
    limit: Rate,
    remaining: u32,
}

impl Limiter {
    fn new(name: &'static str, limit: Option<Rate>) -> Self {
        let keyed = limit.map(|limit| {
            let quota = Quota::per_second(limit.per_second).allow_burst(limit.burst);
            (limit, RateLimiter::dashmap(quota).with_middleware::<StateInformationMiddleware>())
        });
        Self { name, keyed, hasher: RandomState::new(), checks: AtomicU32::new(0) }
    }

    /// Counts one request of an API key.
    pub(crate) fn check_key(&self, key: &str) -> Result<Option<Standing>, Refusal> {
        self.check(self.hasher.hash_one(key))
    }

    /// Counts one request of an address; of IPv6 the /64, which is one subscriber.
    pub(crate) fn check_address(&self, address: IpAddr) -> Result<Option<Standing>, Refusal> {
        self.check(match address.to_canonical() {
            IpAddr::V4(address) => self.hasher.hash_one(address),
            IpAddr::V6(address) => self.hasher.hash_one(&address.octets()[..8]),
        })
    }

    fn check(&self, key: u64) -> Result<Option<Standing>, Refusal> {
        let Some((limit, keyed)) = &self.keyed else { return Ok(None) };
        if self.checks.fetch_add(1, Ordering::Relaxed).is_multiple_of(CHECKS_BETWEEN_SWEEPS)
            && keyed.len() > KEYS_BEFORE_SWEEP
        {
            keyed.retain_recent();
        }
        let standing = |remaining| Standing { name: self.name, limit: *limit, remaining };
        match keyed.check_key(&key) {
            Ok(state) => Ok(Some(standing(state.remaining_burst_capacity()))),
            Err(until) => Err(refused(standing(0), until.wait_time_from(DefaultClock::default().now()))),
        }
    }
}

/// Counts one request of a tenant, over all gateways, if the tenant has a rate.
pub(crate) async fn check_tenant(quotas: &dyn Quotas, caller: &Caller) -> Result<Option<Standing>, Refusal> {
    let Some(limit) = caller.tenant.limits().rate else { return Ok(None) };
    let standing = |remaining| Standing { name: "tenant", limit, remaining };
    match quotas.request(caller.tenant.id(), limit).await {
        RateAnswer::Passed { remaining } => Ok(Some(standing(remaining))),
        RateAnswer::Refused { wait } => Err(refused(standing(0), wait)),
    }
}

fn refused(standing: Standing, wait: Duration) -> Refusal {
    let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
    let problem = Problem::from(ProblemCode::RateLimited).retry_after_s(seconds);
    let mut refusal = Refusal::from(problem);
    for (name, value) in headers(&[standing]) {
        refusal = refusal.with(name, value);
    }
    refusal
}

/// Every limit that a request was counted against.
#[derive(Debug, Default)]
pub(crate) struct Standings(pub(crate) Vec<Standing>);

impl Standings {
    pub(crate) fn show(&self, to: &mut HeaderMap) {
        for (name, value) in headers(&self.0) {
            to.insert(name, value);
        }
    }
}

/// `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers).
fn headers(standings: &[Standing]) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let list = |item: fn(&Standing) -> String| standings.iter().map(item).collect::<Vec<_>>().join(", ");
    let values = [(RATE_LIMIT_POLICY, list(Standing::policy)), (RATE_LIMIT, list(Standing::remaining))];
    values.into_iter().filter_map(|(name, value)| Some((name, HeaderValue::try_from(value).ok()?)))
}

impl Standing {
    fn policy(&self) -> String {
        let Self { name, limit, .. } = self;
        // A full bucket, and the seconds in which an empty one fills.
        let window = limit.burst.get().div_ceil(limit.per_second.get());
        format!("\"{name}\";q={};w={window}", limit.burst)
    }

    fn remaining(&self) -> String {
        format!("\"{}\";r={};t=1", self.name, self.remaining)
    }
}
