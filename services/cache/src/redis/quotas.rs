//! Rates and daily quotas in Redis, shared by all gateways.
//!
//! ```text
//! chopmark:{<chain>}:rate:<tenant>          when its burst is full again, in µs of the server's clock
//! chopmark:{<chain>}:records:<day>:<tenant> records accepted on that day
//! ```
//!
//! A rate is the generic cell rate algorithm (ITU-T I.371): a request moves the time at which the burst
//! is full again by one interval, and is refused if that would be later than a whole burst from now.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use chopmark_domain::quota::{Quotas, Rate, RateAnswer};
use ledger_core::hash::Hash32;
use redis::Script;

use super::server::{RedisUrlError, Server};
use crate::MemoryQuotas;

/// Answers whether the request passed, the requests that are left, and the µs to wait. A clock that was
/// set back, and a rate that was made smaller, never keep anybody waiting for more than one burst.
const REQUEST: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local whole = interval * burst
local full = tonumber(redis.call('GET', KEYS[1])) or now
full = math.min(math.max(full, now), now + whole) + interval
if full > now + whole then
    return {0, 0, string.format('%.0f', full - now - whole)}
end
redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000))
return {1, string.format('%.0f', math.floor((now + whole - full) / interval)), 0}";

/// Answers how many records were counted.
const RECORDS: &str = r"
local used = tonumber(redis.call('GET', KEYS[1])) or 0
local counted = math.max(0, math.min(tonumber(ARGV[1]), tonumber(ARGV[2]) - used))
if counted > 0 then
    redis.call('INCRBY', KEYS[1], string.format('%.0f', counted))
    redis.call('EXPIRE', KEYS[1], 172800)
end
return string.format('%.0f', counted)";

/// Quotas that all gateways at one Redis share. While it is away, each counts by itself.
#[derive(Clone)]
pub struct RedisQuotas {
    server: Server,
    request: Script,
    records: Script,
    alone: MemoryQuotas,
    refused: Arc<Mutex<HashMap<String, Instant>>>,
}

impl RedisQuotas {
    /// Quotas at `url` of the tenants of the ledger `chain`. Connects when it is first asked. Call
    /// within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// Where the URL names no server; a server that is away is none.
    pub fn new(url: &str, chain: &Hash32) -> Result<Self, RedisUrlError> {
        Ok(Self {
            server: Server::new(url, chain)?,
            request: Script::new(REQUEST),
            records: Script::new(RECORDS),
            alone: MemoryQuotas::default(),
            refused: Arc::default(),
        })
    }

    /// One entry for each tenant that was refused and has not passed since.
    fn refused(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long a tenant has to wait by an earlier answer: who knocks all the time costs Redis nothing.
    fn still_refused(&self, tenant: &str) -> Option<Duration> {
        let mut refused = self.refused();
        let wait = refused.get(tenant)?.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            refused.remove(tenant);
            return None;
        }
        Some(wait)
    }
}

#[async_trait]
impl Quotas for RedisQuotas {
    async fn request(&self, tenant: &str, rate: Rate) -> RateAnswer {
        if let Some(wait) = self.still_refused(tenant) {
            return RateAnswer::Refused { wait };
        }
        let mut call = self.request.prepare_invoke();
        call.key(self.server.key(format!("rate:{tenant}").as_bytes()));
        call.arg(1e6 / f64::from(rate.per_second.get())).arg(rate.burst.get());
        let answer: Option<(u8, u32, u64)> = self.server.run(&call).await;
        match answer {
            Some((1, remaining, _)) => RateAnswer::Passed { remaining },
            Some((_, _, micros)) => {
                // A bound on what a server can make us believe.
                let longest = Duration::from_secs(u64::from(rate.burst.get().div_ceil(rate.per_second.get())));
                let wait = Duration::from_micros(micros.max(1)).min(longest);
                self.refused().insert(tenant.to_owned(), Instant::now() + wait);
                RateAnswer::Refused { wait }
            }
            None => self.alone.request(tenant, rate).await,
        }
    }

    async fn records(&self, tenant: &str, day: u64, records: u64, limit: u64) -> u64 {
        let mut call = self.records.prepare_invoke();
        call.key(self.server.key(format!("records:{day}:{tenant}").as_bytes())).arg(records).arg(limit);
        match self.server.run::<u64>(&call).await {
            Some(counted) => counted.min(records),
            None => self.alone.records(tenant, day, records, limit).await,
        }
    }
}

impl std::fmt::Debug for RedisQuotas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisQuotas").finish_non_exhaustive()
    }
}
