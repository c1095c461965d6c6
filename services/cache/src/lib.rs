//! The cache and the quotas behind their ports, in memory or in Redis: hot idempotency answers, rates and
//! daily quotas of tenants.
//!
//! A cache may forget anything at any time. What it must never do is give two requests the same
//! operation id while it remembers: claims are atomic per id.

mod generations;
mod quotas;
pub mod redis;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use chopmark_domain::ports::{Claim, IdempotencyCache, PortResult};
use ledger_core::hash::Hash32;

use self::generations::{Generations, Known};
pub use self::{
    quotas::MemoryQuotas,
    redis::{RedisCache, RedisQuotas, RedisUrlError, describe_metrics},
};

/// Operation ids remembered: 2 generations × 16 shards × 28 672 (7/8 of 2^15, what a hash table of
/// that many slots holds). 66 bytes a slot: 69 MB when full, the newest four seconds or so at the
/// rate that bulk calls aim for. Who repeats later costs a look-up in the database.
pub const ENTRIES_MAX: usize = 2 * SHARDS * 28_672;
/// How long one is remembered at most. Most callers repeat within minutes; and where a publish
/// failed after its claim, another request under the same key is refused no longer than this.
pub const TIME_TO_LIVE: Duration = Duration::from_secs(600);

/// Locks, so that threads rarely wait for each other. A power of two.
const SHARDS: usize = 16;

/// An idempotency cache in this process's memory, bounded in entries and in time.
///
/// Not built on a general cache: moka took 9 µs of CPU for a claim and its settlement, more than
/// there is for all of a record in a bulk call. This takes 1 µs.
#[derive(Clone)]
pub struct MemoryCache {
    shards: Arc<[Mutex<Generations>]>,
}

impl Default for MemoryCache {
    fn default() -> Self {
        Self::new(ENTRIES_MAX, TIME_TO_LIVE)
    }
}

impl MemoryCache {
    /// A cache of at most `entries_max` ids (rounded up to a few per shard), each for at most
    /// `time_to_live` after it was last written.
    #[must_use]
    pub fn new(entries_max: usize, time_to_live: Duration) -> Self {
        let (entries, age) = (entries_max.div_ceil(2 * SHARDS), time_to_live / 2);
        let now = Instant::now();
        Self { shards: (0..SHARDS).map(|_| Mutex::new(Generations::new(entries, age, now))).collect() }
    }

    /// Ids are keyed hashes: their first byte is as good as any.
    fn shard(&self, id: &Hash32) -> MutexGuard<'_, Generations> {
        let at = usize::from(id.0[0]) % SHARDS;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claim_one(&self, id: &Hash32, request: &Hash32, now: Instant) -> Claim {
        let mut shard = self.shard(id);
        match shard.get(id, now) {
            Some(known) if known.request != *request => Claim::Conflict,
            Some(known) if known.durable => Claim::Durable,
            Some(_) => Claim::Unsettled,
            None => {
                shard.put(*id, Known { request: *request, durable: false });
                Claim::Unsettled
            }
        }
    }

    /// What is durable in the queue outdoes a claim that is not; of two requests that both are, the
    /// first one stays.
    fn settle_one(&self, id: &Hash32, request: &Hash32, now: Instant) {
        let mut shard = self.shard(id);
        if !shard.get(id, now).is_some_and(|known| known.durable) {
            shard.put(*id, Known { request: *request, durable: true });
        }
    }
}

#[async_trait]
impl IdempotencyCache for MemoryCache {
    async fn claim(&self, keys: &[(Hash32, Hash32)]) -> PortResult<Vec<Claim>> {
        let now = Instant::now();
        Ok(keys.iter().map(|(id, request)| self.claim_one(id, request, now)).collect())
    }

    async fn settle(&self, keys: &[(Hash32, Hash32)]) -> PortResult<()> {
        let now = Instant::now();
        keys.iter().for_each(|(id, request)| self.settle_one(id, request, now));
        Ok(())
    }
}

impl std::fmt::Debug for MemoryCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryCache").finish_non_exhaustive()
    }
}
