//! One attempt to deliver a message over HTTP.
//!
//! Every address that a name resolves to is judged, and only addresses that were judged are connected to: there
//! is no second look-up in between. One that is not public refuses the name as a whole. Redirects are not
//! followed, proxies of the environment are not used, nothing is kept of an answer but its status and its first
//! bytes, and an attempt has an end whatever the receiver does.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::{
    Certificate, StatusCode,
    dns::{Addrs, Name, Resolving},
    header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER},
    redirect::Policy,
};
use thiserror::Error;
use url::Host;

use crate::egress::{AddressClass, Egress, EndpointUrl};

/// What is read of an answer, for the log.
const ANSWER_BYTES_MAX: usize = 1024;
/// How long the first bytes of an answer are waited for: its status says more, and is here already.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// What the log has of an attempt.
const DETAIL_CHARS_MAX: usize = 300;
/// Connections that are kept for the next message.
const IDLE_PER_HOST: usize = 8;
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const USER_AGENT: &str = concat!("Chopmark-Webhooks/", env!("CARGO_PKG_VERSION"));

/// Bounds of an attempt.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// For a connection. Default 5 s.
    pub connect_timeout: Duration,
    /// For all of it. Default 15 s.
    pub timeout: Duration,
    /// Certificates of authorities of one's own, in PEM, besides the system's.
    pub roots: Vec<Vec<u8>>,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(5), timeout: Duration::from_secs(15), roots: Vec::new() }
    }
}

/// The client could not be made.
#[derive(Debug, Error)]
pub enum ClientError {
    /// A certificate, or the system's.
    #[error("the client for webhooks: {0}")]
    Build(#[from] reqwest::Error),
}

/// A message, ready to be sent.
#[derive(Debug, Clone)]
pub struct Message<'a> {
    /// `webhook-id`.
    pub id: &'a str,
    /// `webhook-timestamp`, Unix seconds.
    pub timestamp: u64,
    /// `webhook-signature`.
    pub signature: String,
    /// JSON.
    pub body: Bytes,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// 2xx.
    Delivered,
    /// Anything that may pass.
    Failed,
    /// Not sent: its address is not one that is sent to.
    Refused,
    /// 410.
    Gone,
}

/// One attempt.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// How it ended.
    pub outcome: Outcome,
    /// Status, if there was an answer.
    pub status: Option<u16>,
    /// What happened, for the log of deliveries: at most 300 printable characters.
    pub detail: String,
    /// What the receiver asked for.
    pub retry_after: Option<Duration>,
    /// How long it took.
    pub took: Duration,
}

/// Finds the addresses of a name.
#[async_trait]
pub trait Resolve: Send + Sync {
    /// All of them.
    async fn resolve(&self, name: &str) -> std::io::Result<Vec<IpAddr>>;
}

/// The system's resolver.
#[derive(Debug, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, name: &str) -> std::io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect())
    }
}

/// Sends messages.
pub struct Client {
    http: reqwest::Client,
    egress: Arc<Egress>,
    timeout: Duration,
}

impl Client {
    /// A client that sends where `egress` lets it.
    pub fn new(egress: Arc<Egress>, settings: &ClientSettings) -> Result<Self, ClientError> {
        Self::with_resolver(egress, settings, Arc::new(SystemResolver))
    }

    /// As [`Self::new`], with a resolver of one's own.
    pub fn with_resolver(
        egress: Arc<Egress>,
        settings: &ClientSettings,
        resolver: Arc<dyn Resolve>,
    ) -> Result<Self, ClientError> {
        // Fails only where a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let roots = settings.roots.iter().map(|pem| Certificate::from_pem(pem)).collect::<Result<Vec<_>, _>>()?;
        let http = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(settings.connect_timeout)
            .timeout(settings.timeout)
            .no_proxy()
            .redirect(Policy::none())
            .pool_max_idle_per_host(IDLE_PER_HOST)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .dns_resolver(Arc::new(Guarded { egress: Arc::clone(&egress), resolver }))
            .tls_certs_merge(roots)
            .build()?;
        Ok(Self { http, egress, timeout: settings.timeout })
    }

    /// Sends a message once. It ends within the time-out, and never fails otherwise than by its outcome.
    pub async fn post(&self, url: &EndpointUrl, message: &Message<'_>) -> Attempt {
        let begun = Instant::now();
        // The client's own time-out ends the wait for an answer; this one is for whatever that does not see.
        let attempt = match tokio::time::timeout(self.timeout + ANSWER_TIMEOUT, self.send(url, message)).await {
            Ok(attempt) => attempt,
            Err(_) => Attempt::failed(format!("no whole answer within {:?}", self.timeout)),
        };
        Attempt { took: begun.elapsed(), detail: printable(&attempt.detail), ..attempt }
    }

    async fn send(&self, url: &EndpointUrl, message: &Message<'_>) -> Attempt {
        let url = url.url();
        // The resolver is not asked about addresses.
        let address = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            _ => None,
        };
        if let Some(class) = address.and_then(|address| self.egress.permits(address).err()) {
            return Attempt::refused(class);
        }
        let request = self
            .http
            .post(url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", message.id)
            .header("webhook-timestamp", message.timestamp)
            .header("webhook-signature", &message.signature)
            .body(message.body.clone());
        match request.send().await {
            Ok(answer) => judge(answer).await,
            Err(error) => of_error(&error),
        }
    }
}

impl Attempt {
    fn failed(detail: String) -> Self {
        Self { outcome: Outcome::Failed, status: None, detail, retry_after: None, took: Duration::ZERO }
    }

    fn refused(class: AddressClass) -> Self {
        Self { outcome: Outcome::Refused, ..Self::failed(format!("its address is not a public one: {class:?}")) }
    }
}

async fn judge(mut answer: reqwest::Response) -> Attempt {
    let status = answer.status();
    let outcome = match status {
        status if status.is_success() => Outcome::Delivered,
        StatusCode::GONE => Outcome::Gone,
        _ => Outcome::Failed,
    };
    let retry_after = retry_after(answer.headers());
    let mut body = Vec::new();
    // A status is an answer: whoever sent one and then breaks off, or never ends, has taken the message or not.
    if outcome != Outcome::Delivered {
        let read = async {
            while body.len() < ANSWER_BYTES_MAX {
                let Ok(Some(chunk)) = answer.chunk().await else { break };
                body.extend_from_slice(&chunk[..chunk.len().min(ANSWER_BYTES_MAX - body.len())]);
            }
        };
        // What came until then is enough.
        let _ = tokio::time::timeout(ANSWER_TIMEOUT, read).await;
    }
    let note = if status.is_redirection() { " (redirects are not followed)" } else { "" };
    let detail = format!("{status}{note} {}", String::from_utf8_lossy(&body));
    Attempt { outcome, status: Some(status.as_u16()), detail, retry_after, took: Duration::ZERO }
}

/// Seconds only: a date would need the receiver's clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// The innermost cause says most; the URL, which the outer ones show, may hold a token.
fn of_error(error: &reqwest::Error) -> Attempt {
    let mut cause: &(dyn std::error::Error + 'static) = error;
    while let Some(inner) = cause.source() {
        if let Some(refused) = inner.downcast_ref::<NotPublic>() {
            return Attempt { outcome: Outcome::Refused, ..Attempt::failed(refused.to_string()) };
        }
        cause = inner;
    }
    let what = if error.is_timeout() {
        "timed out"
    } else if error.is_connect() {
        "could not connect"
    } else {
        "broke off"
    };
    let is_outermost = cause.downcast_ref::<reqwest::Error>().is_some();
    Attempt::failed(if is_outermost { what.to_owned() } else { format!("{what}: {cause}") })
}

fn printable(text: &str) -> String {
    // Marks that reorder or break a line are as good as control characters at misleading a reader.
    let misleads = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let shown = text.trim().chars().map(|c| if misleads(c) { ' ' } else { c });
    shown.take(DETAIL_CHARS_MAX).collect()
}

/// A name that resolves to an address which is not sent to.
#[derive(Debug, Error)]
#[error("its name resolves to an address that is not a public one: {0:?}")]
struct NotPublic(AddressClass);

/// Judges every address before it is connected to.
struct Guarded {
    egress: Arc<Egress>,
    resolver: Arc<dyn Resolve>,
}

impl reqwest::dns::Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let (egress, resolver) = (Arc::clone(&self.egress), Arc::clone(&self.resolver));
        Box::pin(async move {
            let addresses = resolver.resolve(name.as_str()).await?;
            for address in &addresses {
                egress.permits(*address).map_err(NotPublic)?;
            }
            Ok(Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs)
        })
    }
}
