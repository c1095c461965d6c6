//! What an operator can set, with every default and its reason.

use std::time::Duration;

use chopmark_domain::quota::Rate;

/// Idle connections are kept a little longer than common clients keep theirs.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// A request's head is at most a few packets.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Time in which a body has to begin to keep up its pace.
const BODY_GRACE: Duration = Duration::from_secs(30);
/// Slowest pace of a body: a poor mobile uplink is ten times as fast.
const BODY_BYTES_PER_SECOND_MIN: u64 = 16 * 1024;
/// Largest file that is hashed here: more than any contract, less than a day's video.
const FILE_BYTES_MAX: u64 = 5 * 1024 * 1024 * 1024;
/// Files taken in at a time, each with about 1 MiB of buffers and one hashing thread.
const UPLOADS_MAX: usize = 64;
/// Memory that bodies under way may take in all, as charged by [`crate::state`].
const BODIES_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Connections held by one worker.
const CONNECTIONS_PER_WORKER_MAX: usize = 10_000;
/// Time for requests under way when the server stops: as long as the longest wait.
const SHUTDOWN: Duration = Duration::from_secs(32);
/// Requests of one API key: far above any platform's need, below what one process serves.
const KEY_LIMIT: Rate = Rate::new(10_000, 20_000);
/// Public look-ups from one address: a person, a script, a small court's proxy.
const PUBLIC_LIMIT: Rate = Rate::new(100, 500);
/// Reads of the log from one address: a mirror that catches up.
const LOG_LIMIT: Rate = Rate::new(2_000, 4_000);

/// Settings of a gateway; [`Default`] is what a deployment starts with.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// Worker threads; `None`: as many as cores.
    pub workers: Option<usize>,
    /// Connections held by one worker.
    pub connections_per_worker_max: usize,
    /// How long an idle connection is kept.
    pub keep_alive: Duration,
    /// Time for the head of a connection's first request.
    pub head_timeout: Duration,
    /// Time in which a body has to begin to keep up its pace.
    pub body_grace: Duration,
    /// Slowest pace of a body.
    pub body_bytes_per_second_min: u64,
    /// Memory that bodies under way may take in all.
    pub bodies_bytes_max: usize,
    /// Largest file that is hashed here.
    pub file_bytes_max: u64,
    /// Files taken in at a time.
    pub uploads_max: usize,
    /// Rate of one API key; `None`: no limit, for load tests.
    pub key_limit: Option<Rate>,
    /// Rate of public look-ups from one address, and of failed authentications.
    pub public_limit: Option<Rate>,
    /// Rate of reads of the log from one address.
    pub log_limit: Option<Rate>,
    /// Proxies of our own in front, each of which appends to `X-Forwarded-For`; 0: the peer's
    /// address is the client's.
    pub trusted_proxies: usize,
    /// Time for requests under way when the server stops.
    pub shutdown: Duration,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            workers: None,
            connections_per_worker_max: CONNECTIONS_PER_WORKER_MAX,
            keep_alive: KEEP_ALIVE,
            head_timeout: HEAD_TIMEOUT,
            body_grace: BODY_GRACE,
            body_bytes_per_second_min: BODY_BYTES_PER_SECOND_MIN,
            bodies_bytes_max: BODIES_BYTES_MAX,
            file_bytes_max: FILE_BYTES_MAX,
            uploads_max: UPLOADS_MAX,
            key_limit: Some(KEY_LIMIT),
            public_limit: Some(PUBLIC_LIMIT),
            log_limit: Some(LOG_LIMIT),
            trusted_proxies: 0,
            shutdown: SHUTDOWN,
        }
    }
}
