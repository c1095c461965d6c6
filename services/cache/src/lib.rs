//! The cache behind its port: hot idempotency answers, in memory.
//!
//! A cache may forget anything at any time. What it must never do is give two requests the same
//! operation id while it remembers: claims are atomic per id.

use std::time::Duration;

use async_trait::async_trait;
use chopmark_domain::ports::{Claim, IdempotencyCache, PortResult};
use ledger_core::hash::Hash32;
use moka::{policy::EvictionPolicy, sync::Cache};

/// Operation ids remembered: half a minute of the full rate of one front-end, so that a caller who
/// repeats a request at once meets its own claim.
pub const ENTRIES_MAX: u64 = 262_144;
/// How long one is remembered after it was last written: most callers repeat within minutes, and
/// whoever comes later costs one look-up in the database.
pub const TIME_TO_LIVE: Duration = Duration::from_secs(3600);

/// What is known of an operation id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    request: Hash32,
    durable: bool,
}

impl Known {
    fn claim(self, request: &Hash32) -> Claim {
        match self {
            Self { request: holder, .. } if holder != *request => Claim::Conflict,
            Self { durable: true, .. } => Claim::Durable,
            Self { durable: false, .. } => Claim::Unsettled,
        }
    }
}

/// An idempotency cache in this process's memory, bounded in entries and in time.
///
/// The longest untouched ids go first, and not, as is moka's habit, the newest of those seen once:
/// a claim just made is the one that its caller's other threads are about to meet.
#[derive(Debug, Clone)]
pub struct MemoryCache {
    known: Cache<Hash32, Known>,
}

impl Default for MemoryCache {
    fn default() -> Self {
        Self::new(ENTRIES_MAX, TIME_TO_LIVE)
    }
}

impl MemoryCache {
    /// A cache of at most about `entries_max` ids, each for at most `time_to_live` after its last
    /// write.
    #[must_use]
    pub fn new(entries_max: u64, time_to_live: Duration) -> Self {
        let known = Cache::builder()
            .max_capacity(entries_max)
            .eviction_policy(EvictionPolicy::lru())
            .time_to_live(time_to_live)
            .build();
        Self { known }
    }

    /// Claims of one id wait for each other only while the id is new.
    fn claim_one(&self, id: &Hash32, request: &Hash32) -> Claim {
        let unsettled = Known { request: *request, durable: false };
        self.known.entry_by_ref(id).or_insert(unsettled).into_value().claim(request)
    }

    /// What is durable in the queue outdoes a claim that is not; of two requests that both are, the
    /// first one stays. Between the look and the write another request may be settled or claimed;
    /// that it is then lost is the same as having been forgotten.
    fn settle_one(&self, id: &Hash32, request: &Hash32) {
        if !self.known.get(id).is_some_and(|known| known.durable) {
            self.known.insert(*id, Known { request: *request, durable: true });
        }
    }
}

#[async_trait]
impl IdempotencyCache for MemoryCache {
    async fn claim(&self, keys: &[(Hash32, Hash32)]) -> PortResult<Vec<Claim>> {
        Ok(keys.iter().map(|(id, request)| self.claim_one(id, request)).collect())
    }

    async fn settle(&self, keys: &[(Hash32, Hash32)]) -> PortResult<()> {
        keys.iter().for_each(|(id, request)| self.settle_one(id, request));
        Ok(())
    }
}
