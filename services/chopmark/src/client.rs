//! The HTTP client of the tools: bounded answers, bounded retries, problems made readable. It
//! sends the API key to the one server it was made for and follows no redirect.

use std::{
    fmt::Write as _,
    fs::File,
    io::Read as _,
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use chopmark_api::ProblemBody;
use reqwest::{RequestBuilder, Response, StatusCode, Url, header, header::HeaderValue, redirect::Policy};
use serde::de::DeserializeOwned;

use crate::{
    dev::DevFile,
    output::{Usage, plain, shown},
};

/// What is asked for here has at most a receipt's 256 KiB.
const ANSWER_BYTES_MAX: usize = 1 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than the longest `Prefer: wait` (30 s).
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// First pause before trying again; each further one doubles it.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// A pause that people notice is explained.
const PAUSE_TOLD: Duration = Duration::from_secs(2);
/// Attempts at one request: with the pauses above about two minutes.
const ATTEMPTS_MAX: u32 = 14;
/// Attempts at a server that does not answer at all: about four seconds, enough for a restart.
const ATTEMPTS_UNREACHABLE: u32 = 5;
/// The longest `Retry-After` that is waited for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// A key has about 60 characters.
const KEY_BYTES_MAX: u64 = 4096;

/// Reads `DIR/dev.json`, which a running `chopmark dev` keeps; `None` where there is none.
pub(crate) fn dev_file(data: &Path) -> anyhow::Result<Option<DevFile>> {
    let path = data.join("dev.json");
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", shown(&path))),
    };
    serde_json::from_slice(&bytes).map(Some).with_context(|| format!("{} is damaged", shown(&path)))
}

/// The API key in a file.
pub(crate) fn key_from_file(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let file = File::open(path).and_then(|file| file.take(KEY_BYTES_MAX).read_to_string(&mut text));
    file.with_context(|| format!("cannot read the API key in {}", shown(path)))?;
    let key = text.trim();
    if key.is_empty() || key.contains(char::is_whitespace) {
        return Err(
            Usage(format!("{} should hold an API key, such as cm_test_…, and nothing else", shown(path))).into()
        );
    }
    Ok(key.to_owned())
}

/// One server, and who is asking.
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    key: Option<HeaderValue>,
}

/// A good answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        serde_json::from_slice(&self.body).context("the server's answer is not what this version expects")
    }
}

/// Why there is no good answer.
enum Failure {
    /// No connection, or it broke.
    Unreachable(anyhow::Error),
    /// The server said no; perhaps only for now.
    Refused { error: anyhow::Error, retry: bool, after: Option<Duration> },
}

impl Client {
    /// A client for the server at `base`.
    pub(crate) fn new(base: &str, key: Option<&str>) -> anyhow::Result<Self> {
        // Fails only where a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url = Url::parse(base).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let url = url.ok_or_else(|| {
            Usage(format!("{} is not the address of a server, such as https://notary.example", plain(base)))
        })?;
        let local = is_local(&url);
        if url.scheme() == "http" && !local && key.is_some() {
            eprintln!("warning: {} is not encrypted: everybody on the way can read the API key", plain(base));
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("chopmark/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .redirect(Policy::none());
        if local {
            builder = builder.no_proxy();
        }
        let key = key.map(|key| {
            let mut value = HeaderValue::try_from(format!("Bearer {key}"))?;
            value.set_sensitive(true);
            Ok::<_, header::InvalidHeaderValue>(value)
        });
        let key = key.transpose().map_err(|_| Usage("the API key has characters that no key has".to_owned()))?;
        let http = builder.build().context("cannot start the HTTP client")?;
        Ok(Self { http, base: url.as_str().trim_end_matches('/').to_owned(), key })
    }

    /// Address of the server.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// GETs `path`, trying again while it makes sense, until `deadline`.
    pub(crate) async fn get(&self, path: &str, deadline: Instant) -> anyhow::Result<Answer> {
        let url = self.url(path)?;
        self.persist(deadline, || self.http.get(url.clone())).await
    }

    /// POSTs `body` to `path` with these headers, trying again as [`Self::get`] does: every POST
    /// carries an idempotency key.
    pub(crate) async fn post(
        &self,
        path: &str,
        body: &[u8],
        headers: &[(&'static str, &str)],
        deadline: Instant,
    ) -> anyhow::Result<Answer> {
        let url = self.url(path)?;
        self.persist(deadline, || {
            let request = self.http.post(url.clone()).header(header::CONTENT_TYPE, "application/json");
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(body.to_vec())
        })
        .await
    }

    /// One attempt at a GET, whatever the status.
    pub(crate) async fn probe(&self, path: &str, timeout: Duration) -> anyhow::Result<Answer> {
        let response = self.http.get(self.url(path)?).timeout(timeout).send().await;
        let response = response.map_err(|error| self.unreachable(error))?;
        Ok(Answer { status: response.status(), body: bounded(response).await? })
    }

    /// A path on this server, never on another. Those that answers name begin with the server's own prefix.
    fn url(&self, path: &str) -> anyhow::Result<Url> {
        let prefix = Url::parse(&self.base).map(|base| base.path().trim_end_matches('/').to_owned());
        let path = prefix
            .ok()
            .and_then(|prefix| path.strip_prefix(&prefix))
            .filter(|rest| rest.starts_with('/'))
            .unwrap_or(path);
        let text = format!("{}{path}", self.base);
        let url = Url::parse(&text).ok().filter(|_| path.starts_with('/'));
        url.with_context(|| format!("the server named a strange address: {}", plain(path)))
    }

    async fn persist(&self, deadline: Instant, request: impl Fn() -> RequestBuilder) -> anyhow::Result<Answer> {
        let mut pause = PAUSE_FIRST;
        let mut attempt = 1;
        loop {
            let (error, attempts, after) = match self.once(request()).await {
                Ok(answer) => return Ok(answer),
                Err(Failure::Refused { error, retry: false, .. }) => return Err(error),
                Err(Failure::Refused { error, retry: true, after }) => (error, ATTEMPTS_MAX, after),
                Err(Failure::Unreachable(error)) => (error, ATTEMPTS_UNREACHABLE, None),
            };
            let wait = after.map_or_else(|| jitter(pause), |after| after.min(RETRY_AFTER_MAX));
            if attempt >= attempts || Instant::now() + wait > deadline {
                return Err(error);
            }
            if wait >= PAUSE_TOLD {
                let cause = error.to_string();
                let cause = cause.lines().next().unwrap_or_default();
                eprintln!("note: {cause}; trying again in {} s", wait.as_secs());
            }
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(PAUSE_MAX);
            attempt += 1;
        }
    }

    async fn once(&self, request: RequestBuilder) -> Result<Answer, Failure> {
        let request = match &self.key {
            Some(key) => request.header(header::AUTHORIZATION, key.clone()),
            None => request,
        };
        let response = request.send().await.map_err(|error| Failure::Unreachable(self.unreachable(error)))?;
        let (status, after) = (response.status(), retry_after(&response));
        let body = bounded(response).await.map_err(Failure::Unreachable)?;
        if status.is_success() {
            return Ok(Answer { status, body });
        }
        let problem = serde_json::from_slice::<ProblemBody>(&body).ok();
        let retry = matches!(status.as_u16(), 429 | 502 | 503 | 504) || problem.as_ref().is_some_and(|p| p.retryable);
        let error = match &problem {
            Some(problem) => anyhow::anyhow!(readable(problem, &self.base)),
            None if status.is_redirection() => {
                anyhow::anyhow!("{} redirects elsewhere (HTTP {status}); name the server it redirects to", self.base)
            }
            None => anyhow::anyhow!("{} answered HTTP {status}; is it a Chopmark server?", self.base),
        };
        Err(Failure::Refused { error, retry, after })
    }

    fn unreachable(&self, error: reqwest::Error) -> anyhow::Error {
        let base = plain(&self.base);
        let hint = if error.is_timeout() {
            format!("{base} does not answer in time")
        } else {
            format!("cannot reach {base}; is the server running, and is this its address?")
        };
        // The layers between say nothing that the first and the last do not.
        let error = anyhow::Error::new(error.without_url());
        anyhow::anyhow!("{}", error.root_cause()).context(hint)
    }
}

fn is_local(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The body, unless it is longer than any that we know.
async fn bounded(mut response: Response) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.context("the answer broke off")? {
        anyhow::ensure!(body.len() + chunk.len() <= ANSWER_BYTES_MAX, "the answer is too long");
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// `Retry-After` in seconds, the only form that Chopmark sends.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Between half and all of `pause`, so that many clients do not come back at once.
fn jitter(pause: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX);
    pause / 2 + pause.mul_f64(f64::from(random) / f64::from(u32::MAX) / 2.0)
}

/// A problem document as a person reads it.
fn readable(problem: &ProblemBody, base: &str) -> String {
    let mut text = format!("{} (HTTP {}, {})", plain(&problem.title), problem.status, plain(&problem.code));
    let mut say = |line: String| {
        let _ = write!(text, "\n  {line}");
    };
    say(plain(&problem.detail));
    say(format!("fix: {}", plain(&problem.fix)));
    for error in &problem.errors {
        let place = [&error.pointer, &error.header, &error.parameter, &error.part].into_iter().flatten().next();
        let place = place.map_or("the body", |place| if place.is_empty() { "the body" } else { place });
        if problem.errors.len() == 1 && error.detail == problem.detail {
            say(format!("at {}", plain(place)));
        } else {
            say(format!("at {}: {}", plain(place), plain(&error.detail)));
            say(format!("  fix: {}", plain(&error.fix)));
        }
    }
    if let Some(earliest) = problem.earliest_at {
        say(format!("not before {earliest}"));
    }
    let request = problem.request_id.as_deref().map(|id| format!(", request {}", plain(id))).unwrap_or_default();
    say(format!("see {}{}{request}", plain(base), plain(&problem.kind)));
    text
}

#[cfg(test)]
mod tests {
    use chopmark_api::{
        Lang, Problem, ProblemCode,
        problem::{Fault, Place},
    };

    use super::*;

    #[test]
    fn problems_name_place_and_fix() {
        let faults = [("/digests/sha256", ProblemCode::DigestNotHex), ("/titel", ProblemCode::UnknownField)];
        let faults = faults.map(|(pointer, code)| Fault::new(code).at(Place::Pointer(pointer.to_owned())));
        let body = Problem::from_faults(faults.to_vec()).render(Lang::En, Some("req_1"));
        let text = readable(&body, "http://127.0.0.1:8080");
        for part in ["HTTP 422, several_faults", "at /digests/sha256: ", "at /titel: ", "    fix: ", "request req_1"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(text.contains("see http://127.0.0.1:8080/errors/several_faults"));
    }

    #[test]
    fn a_problem_cannot_command_the_terminal() {
        let mut body = Problem::new(ProblemCode::QueueFull).render(Lang::En, None);
        body.detail = "\u{1b}[2Jgone\nVALID index=1".to_owned();
        let text = readable(&body, "http://127.0.0.1:8080");
        assert!(!text.contains('\u{1b}'));
        assert!(text.lines().skip(1).all(|line| line.starts_with("  ")));
    }

    #[test]
    fn paths_stay_on_the_server() {
        let client = Client::new("https://notary.example/", Some("cm_test_x")).unwrap();
        assert_eq!(client.url("/v1/evidence").unwrap().as_str(), "https://notary.example/v1/evidence");
        let sandbox = Client::new("https://notary.example/sandbox", None).unwrap();
        for (path, expected) in [
            ("/v1/evidence", "/sandbox/v1/evidence"),
            ("/sandbox/v1/evidence", "/sandbox/v1/evidence"),
            ("/sandboxes", "/sandbox/sandboxes"),
        ] {
            assert_eq!(sandbox.url(path).unwrap().path(), expected);
        }
        for elsewhere in ["@evil.example/x", ".evil.example/x", "https://evil.example/", ":81/"] {
            assert!(client.url(elsewhere).is_err(), "{elsewhere}");
        }
        assert_eq!(client.url("//evil.example/x").unwrap().host_str(), Some("notary.example"));
        for bad in ["notary.example", "ftp://notary.example", "", "https://"] {
            assert!(Client::new(bad, None).is_err(), "{bad}");
        }
    }

    #[test]
    fn pauses_differ_but_never_grow_past_the_bound() {
        for _ in 0..100 {
            let pause = jitter(PAUSE_MAX);
            assert!(pause >= PAUSE_MAX / 2 && pause <= PAUSE_MAX);
        }
    }
}
