//! A Redis server that may be away, hang or answer nonsense at any moment: every call has a bound, and
//! after a failure nobody asks for a while.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use ledger_core::hash::Hash32;
use redis::{
    Client, FromRedisValue, IntoConnectionInfo as _, RedisError, ScriptInvocation,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use thiserror::Error;

/// Longest wait for an answer: many times what Redis takes, and little beside a commit.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(100);
/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// After a failure nobody asks for this long, so that not every request waits in vain.
const PAUSE: Duration = Duration::from_secs(1);

/// A URL that names no Redis. It may hold a password and is not repeated.
#[derive(Debug, Error)]
#[error("not a URL of a Redis server, redis://HOST:PORT or rediss://HOST:PORT: {0}")]
pub struct RedisUrlError(String);

/// One server, as one ledger's gateways use it.
#[derive(Clone)]
pub(super) struct Server {
    connection: ConnectionManager,
    prefix: Arc<[u8]>,
    outage: Arc<Outage>,
}

/// What is known of a server that does not answer.
struct Outage {
    since: Instant,
    /// Until when nobody asks, in milliseconds after `since`.
    pause_ends: AtomicU64,
    is_away: AtomicBool,
}

impl Server {
    /// Connects when it is first asked, and again whenever it has to. Call within a Tokio runtime.
    pub(super) fn new(url: &str, chain: &Hash32) -> Result<Self, RedisUrlError> {
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
            outage: Arc::new(Outage {
                since: Instant::now(),
                pause_ends: AtomicU64::new(0),
                is_away: AtomicBool::new(false),
            }),
        })
    }

    /// A key of this ledger.
    pub(super) fn key(&self, name: &[u8]) -> Vec<u8> {
        [&self.prefix, name].concat()
    }

    /// Runs a script. `None`: the server is of no use at present.
    pub(super) async fn run<T: FromRedisValue>(&self, call: &ScriptInvocation<'_>) -> Option<T> {
        if self.outage.is_paused() {
            return None;
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
            tracing::warn!(
                reason,
                "Redis is away; requests are looked up in the database, and each gateway counts alone meanwhile"
            );
        }
    }

    fn ended(&self) {
        if self.is_away.load(Ordering::Relaxed) && self.is_away.swap(false, Ordering::Relaxed) {
            tracing::info!("Redis is back");
        }
    }
}
