//! Rates and daily quotas in this process's memory.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use chopmark_domain::quota::{Quotas, Rate, RateAnswer};
use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
    middleware::StateInformationMiddleware,
    state::{InMemoryState, NotKeyed},
};

type Limiter = RateLimiter<NotKeyed, InMemoryState, DefaultClock, StateInformationMiddleware>;

/// Quotas of one process: all there are in an embedded network, and what a gateway falls back to while
/// it does not reach what it shares with the others.
#[derive(Clone, Default)]
pub struct MemoryQuotas(Arc<Mutex<HashMap<String, Used>>>);

/// What a tenant has used; tenants with limits are few.
#[derive(Default)]
struct Used {
    rate: Option<(Rate, Limiter)>,
    day: u64,
    records: u64,
}

impl MemoryQuotas {
    fn used(&self) -> MutexGuard<'_, HashMap<String, Used>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Used {
    /// The limiter of a rate. One that was changed begins anew.
    fn limiter(&mut self, rate: Rate) -> &Limiter {
        let fresh = || {
            let quota = Quota::per_second(rate.per_second).allow_burst(rate.burst);
            (rate, RateLimiter::direct(quota).with_middleware())
        };
        let kept = self.rate.take().filter(|(of, _)| *of == rate);
        &self.rate.insert(kept.unwrap_or_else(fresh)).1
    }
}

#[async_trait]
impl Quotas for MemoryQuotas {
    async fn request(&self, tenant: &str, rate: Rate) -> RateAnswer {
        let mut used = self.used();
        match used.entry(tenant.to_owned()).or_default().limiter(rate).check() {
            Ok(state) => RateAnswer::Passed { remaining: state.remaining_burst_capacity() },
            Err(until) => RateAnswer::Refused { wait: until.wait_time_from(DefaultClock::default().now()) },
        }
    }

    async fn records(&self, tenant: &str, day: u64, records: u64, limit: u64) -> u64 {
        let mut used = self.used();
        let used = used.entry(tenant.to_owned()).or_default();
        // A clock that goes back a little around midnight does not begin the day anew.
        if day > used.day {
            (used.day, used.records) = (day, 0);
        }
        let counted = records.min(limit.saturating_sub(used.records));
        used.records += counted;
        counted
    }
}

impl std::fmt::Debug for MemoryQuotas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryQuotas").finish_non_exhaustive()
    }
}
