//! The cache in Redis, shared by all gateways.
//!
//! Redis is trusted with nothing. It may be emptied, be away, hang or answer nonsense: then a claim is
//! [`Claim::Unsettled`], and whoever asked looks the operation up in the database and publishes. Two
//! gateways that both publish a request under one id make two messages, and the ledger takes the first
//! (design 6); where the requests differ, the other caller learns `idempotency_conflict` from the
//! operation. So what is lost with Redis is time, and an early answer to a conflict.
//!
//! ```text
//! chopmark:{<chain>}:<operation id>   request digest, 1 if it is durable in the queue, else 0
//! ```
//!
//! All keys of a ledger hash to one slot of a cluster (the braces), as the scripts need it. The chain id
//! keeps a Redis that outlived its ledger from vouching for anything of the next one.

pub mod examine;
mod quotas;
mod server;

use std::time::Duration;

use async_trait::async_trait;
use chopmark_domain::ports::{Claim, IdempotencyCache, PortResult};
use ledger_core::hash::Hash32;
use redis::{FromRedisValue, Script};

use self::server::Server;
pub use self::{quotas::RedisQuotas, server::RedisUrlError};
use crate::TIME_TO_LIVE;

/// Answers for each key: 0 unsettled, 1 durable, 2 conflict. Claims what nobody holds.
const CLAIM: &str = r"
local answers = {}
for i, key in ipairs(KEYS) do
    local request, held = ARGV[i + 1], redis.call('GET', key)
    if not held or #held ~= 33 then
        redis.call('SET', key, request .. '\0', 'PX', ARGV[1])
        answers[i] = 0
    elseif string.sub(held, 1, 32) ~= request then
        answers[i] = 2
    else
        answers[i] = string.byte(held, 33)
    end
end
return answers";

/// What is durable outdoes a claim that is not; of two requests that both are, the first one stays.
const SETTLE: &str = r"
for i, key in ipairs(KEYS) do
    local held = redis.call('GET', key)
    if not held or #held ~= 33 or string.byte(held, 33) ~= 1 then
        redis.call('SET', key, ARGV[i + 1] .. '\1', 'PX', ARGV[1])
    end
end
return #KEYS";

/// An idempotency cache in Redis.
#[derive(Clone)]
pub struct RedisCache {
    server: Server,
    time_to_live: Duration,
    claim: Script,
    settle: Script,
}

impl RedisCache {
    /// A cache at `url` for the ledger `chain`. Connects when it is first asked, and again whenever it
    /// has to. Call within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// Where the URL names no server; a server that is away is none.
    pub fn new(url: &str, chain: &Hash32) -> Result<Self, RedisUrlError> {
        Self::with_time_to_live(url, chain, TIME_TO_LIVE)
    }

    /// The same, with ids remembered for `time_to_live` after they were last written.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn with_time_to_live(url: &str, chain: &Hash32, time_to_live: Duration) -> Result<Self, RedisUrlError> {
        Ok(Self {
            server: Server::new(url, chain)?,
            time_to_live,
            claim: Script::new(CLAIM),
            settle: Script::new(SETTLE),
        })
    }

    /// Runs a script over all keys at once. `None`: Redis is of no use at present.
    async fn run<T: FromRedisValue>(&self, script: &Script, keys: &[(Hash32, Hash32)]) -> Option<T> {
        let mut call = script.prepare_invoke();
        call.arg(u64::try_from(self.time_to_live.as_millis()).unwrap_or(u64::MAX));
        for (id, request) in keys {
            call.key(self.server.key(&id.0)).arg(&request.0);
        }
        self.server.run(&call).await
    }
}

#[async_trait]
impl IdempotencyCache for RedisCache {
    async fn claim(&self, keys: &[(Hash32, Hash32)]) -> PortResult<Vec<Claim>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let answers: Vec<i64> = self.run(&self.claim, keys).await.unwrap_or_default();
        let claim = |at: usize| match answers.get(at) {
            Some(1) => Claim::Durable,
            Some(2) => Claim::Conflict,
            _ => Claim::Unsettled,
        };
        Ok((0..keys.len()).map(claim).collect())
    }

    async fn settle(&self, keys: &[(Hash32, Hash32)]) -> PortResult<()> {
        if !keys.is_empty() {
            // What is not remembered is looked up.
            let _settled: Option<u64> = self.run(&self.settle, keys).await;
        }
        Ok(())
    }
}

impl std::fmt::Debug for RedisCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisCache").finish_non_exhaustive()
    }
}

/// Describes this package's metrics to the recorder that is installed.
pub fn describe_metrics() {
    metrics::describe_counter!(
        "chopmark_cache_failures_total",
        "Calls that the cache did not answer; the database was asked instead."
    );
}
