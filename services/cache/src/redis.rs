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

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use chopmark_domain::ports::{Claim, IdempotencyCache, PortResult};
use ledger_core::hash::Hash32;
use redis::{
    Client, FromRedisValue, IntoConnectionInfo as _, RedisError, Script,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use thiserror::Error;

use crate::TIME_TO_LIVE;

/// Longest wait for an answer: many times what Redis takes, and little beside a commit.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(100);
/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// After a failure nobody asks for this long, so that not every request waits in vain.
const PAUSE: Duration = Duration::from_secs(1);

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

/// A URL that names no Redis. It may hold a password and is not repeated.
#[derive(Debug, Error)]
#[error("not a URL of a Redis server, redis://HOST:PORT or rediss://HOST:PORT: {0}")]
pub struct RedisUrlError(String);

/// An idempotency cache in Redis.
#[derive(Clone)]
pub struct RedisCache {
    connection: ConnectionManager,
    prefix: Arc<[u8]>,
    time_to_live: Duration,
    claim: Script,
    settle: Script,
    outage: Arc<Outage>,
}

/// What is known of a server that does not answer.
struct Outage {
    since: Instant,
    /// Until when nobody asks, in milliseconds after `since`.
    pause_ends: AtomicU64,
    is_away: AtomicBool,
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
        // Its text names what is wrong and not the URL.
        let refused = |error: RedisError| RedisUrlError(error.category().to_owned());
        let client = Client::open(url.into_connection_info().map_err(refused)?).map_err(refused)?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT))
            // The pause below is the only one.
            .set_number_of_retries(0);
        Ok(Self {
            connection: ConnectionManager::new_lazy_with_config(client, config).map_err(refused)?,
            prefix: format!("chopmark:{{{chain}}}:").into_bytes().into(),
            time_to_live,
            claim: Script::new(CLAIM),
            settle: Script::new(SETTLE),
            outage: Arc::new(Outage {
                since: Instant::now(),
                pause_ends: AtomicU64::new(0),
                is_away: AtomicBool::new(false),
            }),
        })
    }

    /// Runs a script over all keys at once. `None`: Redis is of no use at present.
    async fn run<T: FromRedisValue>(&self, script: &Script, keys: &[(Hash32, Hash32)]) -> Option<T> {
        if self.outage.is_paused() {
            return None;
        }
        let mut call = script.prepare_invoke();
        call.arg(u64::try_from(self.time_to_live.as_millis()).unwrap_or(u64::MAX));
        for (id, request) in keys {
            call.key([&self.prefix[..], &id.0].concat()).arg(&request.0);
        }
        let mut connection = self.connection.clone();
        // The bounds of the connection cover one exchange each; this one covers the call.
        let answer = tokio::time::timeout(CONNECT_TIMEOUT + ANSWER_TIMEOUT, call.invoke_async(&mut connection)).await;
        match answer {
            Ok(Ok(answer)) => {
                self.outage.ended();
                Some(answer)
            }
            Ok(Err(error)) => {
                self.outage.began(&error.to_string());
                None
            }
            Err(_) => {
                self.outage.began("no answer in time");
                None
            }
        }
    }
}

impl Outage {
    fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn is_paused(&self) -> bool {
        self.now() < self.pause_ends.load(Ordering::Relaxed)
    }

    fn began(&self, reason: &str) {
        metrics::counter!("chopmark_cache_failures_total").increment(1);
        self.pause_ends.store(self.now() + u64::try_from(PAUSE.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        if !self.is_away.swap(true, Ordering::Relaxed) {
            tracing::warn!(reason, "the cache is away; requests are looked up in the database meanwhile");
        }
    }

    fn ended(&self) {
        if self.is_away.load(Ordering::Relaxed) && self.is_away.swap(false, Ordering::Relaxed) {
            tracing::info!("the cache is back");
        }
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
