//! What `chopmark doctor` asks of a Redis server. Changes nothing, and takes no key.

use std::{future::Future, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, RedisError, ServerErrorKind,
    aio::MultiplexedConnection, cmd,
};

/// For a connection, and for each answer: many times what a server on the same network takes.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The quotas' script writes after it has asked for the time, which scripts may do from version 5 on.
pub const REDIS_MAJOR_MIN: u64 = 5;

/// Why a server cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisFault {
    /// It asks for another user or password.
    Authentication(String),
    /// No encrypted connection comes about.
    Tls(String),
    /// Somebody takes the connection, and says nothing.
    Hangs(String),
    /// Whoever answers speaks another protocol.
    OtherProtocol(String),
    /// Nobody answers.
    Away(String),
    /// The URL names no server.
    Url(String),
}

/// A server as it was found. `None`: it does not say, or this user may not ask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RedisExamination {
    /// Its version, such as `7.0.15`.
    pub version: Option<String>,
    /// The server's clock in Unix milliseconds, at some moment of the question.
    pub time_ms: Option<u64>,
    /// Whether it is a replica, which refuses writes.
    pub is_replica: Option<bool>,
    /// Bytes that it may use for data; 0 is no bound.
    pub maxmemory: Option<u64>,
    /// What it does when they are used up.
    pub policy: Option<String>,
}

impl RedisExamination {
    /// The first number of the version.
    #[must_use]
    pub fn major(&self) -> Option<u64> {
        self.version.as_ref()?.split('.').next()?.parse().ok()
    }

    /// Whether the server, once its memory is full, forgets keys that still count. All of ours have an end,
    /// so that policies for volatile keys reach them too.
    #[must_use]
    pub fn forgets(&self) -> bool {
        let bounded = self.maxmemory.is_none_or(|bytes| bytes > 0);
        bounded && self.policy.as_ref().is_some_and(|policy| policy != "noeviction")
    }
}

/// Looks at the server at `url`, which may hold a password: nothing that is returned does.
///
/// # Errors
///
/// Why it cannot be asked anything.
pub async fn examine(url: &str) -> Result<RedisExamination, RedisFault> {
    let client = Client::open(url).map_err(|error| RedisFault::Url(error.category().to_owned()))?;
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(TIMEOUT)).set_response_timeout(Some(TIMEOUT));
    // The bounds of the connection cover one exchange each.
    let connected = bounded(client.get_multiplexed_async_connection_with_config(&config)).await;
    let encrypted = url.trim_start().starts_with("rediss:");
    let mut connection = connected.map_err(|error| fault(error, encrypted))?;
    // One that asks for a password refuses this, whatever the way in was.
    let pong: Result<String, _> = ask(&mut connection, &cmd("PING")).await;
    pong.map_err(|error| fault(error, encrypted))?;
    let server: Option<String> = ask(&mut connection, cmd("INFO").arg("server")).await.ok();
    let replication: Option<String> = ask(&mut connection, cmd("INFO").arg("replication")).await.ok();
    let time: Option<(u64, u64)> = ask(&mut connection, &cmd("TIME")).await.ok();
    let maxmemory = setting(&mut connection, "maxmemory").await;
    Ok(RedisExamination {
        version: server.as_deref().and_then(|info| field(info, "redis_version")),
        time_ms: time.map(|(seconds, micros)| seconds.saturating_mul(1000).saturating_add(micros / 1000)),
        is_replica: replication.as_deref().and_then(|info| field(info, "role")).map(|role| role != "master"),
        maxmemory: maxmemory.and_then(|bytes| bytes.parse().ok()),
        policy: setting(&mut connection, "maxmemory-policy").await,
    })
}

async fn ask<T: FromRedisValue>(
    connection: &mut MultiplexedConnection,
    command: &Cmd,
) -> Result<T, Option<RedisError>> {
    bounded(command.query_async(connection)).await
}

/// A setting by its name, where this user may see it.
async fn setting(connection: &mut MultiplexedConnection, name: &str) -> Option<String> {
    let pair: Vec<String> = ask(connection, cmd("CONFIG").arg("GET").arg(name)).await.ok()?;
    pair.into_iter().nth(1)
}

/// `None` as the error: no answer in time.
async fn bounded<T>(answer: impl Future<Output = Result<T, RedisError>>) -> Result<T, Option<RedisError>> {
    match tokio::time::timeout(2 * TIMEOUT, answer).await {
        Ok(answer) => answer.map_err(Some),
        Err(_) => Err(None),
    }
}

/// The value of `NAME:VALUE` on a line of its own.
fn field(info: &str, name: &str) -> Option<String> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(|value| value.trim().to_owned())
}

/// What a server says may hold what we sent it; of what an error says of itself, the code alone is used.
fn fault(error: Option<RedisError>, encrypted: bool) -> RedisFault {
    let Some(error) = error else { return RedisFault::Hangs("no answer in time".to_owned()) };
    let code = error.code().unwrap_or_default().to_owned();
    let asks =
        matches!(error.kind(), ErrorKind::AuthenticationFailed) || matches!(&*code, "NOAUTH" | "WRONGPASS" | "NOPERM");
    if asks || error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) {
        return RedisFault::Authentication(if code.is_empty() { error.category().to_owned() } else { code });
    }
    if error.is_timeout() {
        return RedisFault::Hangs("no answer in time".to_owned());
    }
    if matches!(error.kind(), ErrorKind::Parse | ErrorKind::UnexpectedReturnType) {
        return RedisFault::OtherProtocol(error.category().to_owned());
    }
    let text = error.to_string();
    let says = |texts: &[&str]| texts.iter().any(|known| text.to_ascii_lowercase().contains(known));
    // No authority of the system's to trust, for one.
    if encrypted && error.kind() == ErrorKind::InvalidClientConfig {
        return RedisFault::Tls(text);
    }
    if encrypted && !error.is_connection_refusal() && says(&["tls", "certificate", "corrupt", "handshake", "eof"]) {
        return RedisFault::Tls(text);
    }
    if error.kind() == ErrorKind::Io {
        RedisFault::Away(text)
    } else {
        RedisFault::OtherProtocol(error.category().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_with_a_policy_forgets() {
        let found = |maxmemory, policy: &str| RedisExamination {
            maxmemory: Some(maxmemory),
            policy: Some(policy.to_owned()),
            ..RedisExamination::default()
        };
        assert!(found(1, "allkeys-lru").forgets() && found(1, "volatile-ttl").forgets());
        assert!(!found(0, "allkeys-lru").forgets() && !found(1, "noeviction").forgets());
        assert!(!RedisExamination::default().forgets(), "what is not known is said elsewhere");
    }

    #[test]
    fn versions_are_read() {
        let info = "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n";
        let found = RedisExamination { version: field(info, "redis_version"), ..RedisExamination::default() };
        assert_eq!((found.version.as_deref(), found.major()), (Some("7.0.15"), Some(7)));
        assert_eq!(field(info, "role"), None);
    }
}
