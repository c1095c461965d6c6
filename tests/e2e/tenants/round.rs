//! Sends probes, as everybody who has no right to what they ask for.

use std::{collections::BTreeSet, fmt, time::Duration};

use chopmark_tests::Api;

use crate::{
    document::Operation,
    judge::{Answer, Rules, What, faults},
    probes::{Expect, Look, Probe, probes},
    things::Things,
};

/// Tries of a request that is told to come back later; each waits as long as it is told.
const TRIES_MAX: u32 = 60;

/// What is wrong with an answer, and to whose question.
#[derive(Debug)]
pub(crate) struct Fault {
    /// `GET /v1/evidence/{id}`
    pub(crate) operation: String,
    who: Who,
    path: String,
    pub(crate) what: What,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, who, path, what } = self;
        write!(f, "{operation}, asked by {who:?} at {path}: {what}")
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// Another tenant.
    Other,
    /// Somebody without a key.
    Nobody,
    /// The owner's former key.
    Revoked,
    /// A key of the owner's that may do the other half of what can be done.
    WrongScope,
}

/// API keys.
pub(crate) struct Keys {
    /// `None`: this server knows no keys.
    pub(crate) other: Option<String>,
    pub(crate) revoked: String,
    /// May not write.
    pub(crate) reading: String,
    /// May not read.
    pub(crate) writing: String,
}

/// All probes of one stranger, and what came of them.
pub(crate) struct Round {
    keys: Keys,
    private: Vec<String>,
    /// What is private, and what anybody reads in the log but nobody among another's records.
    all: Vec<String>,
    own: Things,
    own_ids: BTreeSet<String>,
    pub(crate) requests: usize,
    pub(crate) faults: Vec<Fault>,
}

impl Round {
    pub(crate) fn new(keys: Keys, owner: &Things, own: Things) -> Self {
        let own_ids = own.evidence.iter().chain(&own.operations).chain([&own.case]).cloned().collect();
        let mut private = owner.private();
        private.extend([keys.revoked.clone(), keys.reading.clone(), keys.writing.clone()]);
        let all = private.iter().cloned().chain(owner.recorded()).collect();
        Self { keys, private, all, own, own_ids, requests: 0, faults: Vec::new() }
    }

    /// Every probe of an operation, with what is somebody's and with what never was.
    pub(crate) async fn probe(
        &mut self,
        api: &Api,
        operation: &Operation,
        (theirs, never): (&Things, &Things),
        look: Look,
    ) {
        let ask = |things| probes(operation, things, &self.own, look).expect("every operation has probes");
        let pairs: Vec<(Probe, Probe)> = ask(theirs).into_iter().zip(ask(never)).collect();
        for (probe, never) in pairs {
            for who in self.strangers(operation) {
                self.compare(api, operation, who, &probe, &never).await;
                if who == Who::Other && operation.method == "GET" && probe.expect == Expect::Alike {
                    self.compare(api, operation, who, &probe.as_head(), &never.as_head()).await;
                }
            }
        }
    }

    fn strangers(&self, operation: &Operation) -> Vec<Who> {
        match (operation.is_keyed, &self.keys.other) {
            (true, Some(_)) => vec![Who::Other, Who::Nobody, Who::Revoked, Who::WrongScope],
            (true, None) => vec![Who::Nobody, Who::Revoked, Who::WrongScope],
            (false, Some(_)) => vec![Who::Other, Who::Nobody],
            (false, None) => vec![Who::Nobody],
        }
    }

    async fn compare(&mut self, api: &Api, operation: &Operation, who: Who, probe: &Probe, never: &Probe) {
        let key = self.key(operation, who).map(str::to_owned);
        let answer = send(api, key.as_deref(), probe).await;
        let other = match probe.expect {
            Expect::Alike => Some(send(api, key.as_deref(), never).await),
            _ => None,
        };
        self.requests += 1 + usize::from(other.is_some());
        if who == Who::Other && operation.method != "GET" {
            // Whatever it wrote is its own; if not, that is among the secrets.
            self.own_ids.extend(answer.ids());
            self.own_ids.extend(other.iter().flat_map(Answer::ids));
        }
        let statuses: Option<&[u16]> = match (operation.is_keyed, &self.keys.other, who) {
            (true, None, _) => Some(&[404]),
            (true, _, Who::Nobody | Who::Revoked) => Some(&[401]),
            (true, _, Who::WrongScope) => Some(&[403]),
            _ => None,
        };
        let secrets = if operation.is_keyed { &self.all } else { &self.private };
        let rules = Rules { secrets, own: &self.own_ids, statuses };
        let found = faults(probe, &answer, other.as_ref().map(|answer| (never, answer)), &rules);
        let fault = |what| Fault { operation: operation.name(), who, path: probe.path.clone(), what };
        self.faults.extend(found.into_iter().map(fault));
    }

    fn key(&self, operation: &Operation, who: Who) -> Option<&str> {
        match who {
            Who::Other => self.keys.other.as_deref(),
            Who::Nobody => None,
            Who::Revoked => Some(&self.keys.revoked),
            Who::WrongScope if operation.method == "GET" => Some(&self.keys.writing),
            Who::WrongScope => Some(&self.keys.reading),
        }
    }
}

/// Sends a probe, and again where there were too many.
async fn send(api: &Api, key: Option<&str>, probe: &Probe) -> Answer {
    for _ in 0..TRIES_MAX {
        let method = probe.method.parse().unwrap();
        let mut request = api.http.request(method, format!("{}{}", api.base, probe.path));
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        if let Some(name) = &probe.idempotency_key {
            request = request.header("Idempotency-Key", name);
        }
        if let Some((media_type, bytes)) = &probe.body {
            request = request.header("Content-Type", media_type).body(bytes.clone());
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let header = |(name, value): (&reqwest::header::HeaderName, &reqwest::header::HeaderValue)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let mut headers: Vec<(String, String)> = answer.headers().iter().map(header).collect();
        headers.sort();
        if status == 429 {
            let seconds =
                headers.iter().find(|(name, _)| name == "retry-after").and_then(|(_, text)| text.parse().ok());
            tokio::time::sleep(Duration::from_secs(seconds.unwrap_or(1))).await;
            continue;
        }
        return Answer { status, headers, body: answer.bytes().await.unwrap().to_vec() };
    }
    panic!("{} {} is refused for its rate", probe.method, probe.path)
}
