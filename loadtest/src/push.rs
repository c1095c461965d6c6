//! Pushing at a fixed rate. Latency counts from the moment a request was *due*, so a server
//! that stalls cannot hide it by slowing the generator down.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use ledger_core::{
    digests::{Algorithm, Digests},
    verify::{FileFacts, Verdict, verify},
};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::target::{Target, client};

/// What to push.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) records: u64,
    pub(crate) rate: f64,
    pub(crate) length: Duration,
    pub(crate) connections: usize,
    pub(crate) sample: u64,
    /// A flood: it does not rest when it is refused, and what is late at the end is not sent any more.
    pub(crate) insists: bool,
}

/// What came of it.
pub(crate) struct Pushed {
    pub(crate) elapsed: Duration,
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    pub(crate) verified: u64,
    /// Microseconds from due to answered.
    pub(crate) accept: Histogram<u64>,
    /// Microseconds from due to committed, of the sample.
    pub(crate) commit: Histogram<u64>,
}

pub(crate) fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 120_000_000, 3)?)
}

/// Hands out due times, to whichever connection is free.
pub(crate) struct Schedule {
    started: Instant,
    next: AtomicU64,
    rate: f64,
    length: Duration,
    insists: bool,
}

impl Schedule {
    pub(crate) fn new(plan: &Plan) -> Arc<Self> {
        let Plan { rate, length, insists, .. } = *plan;
        Arc::new(Self { started: Instant::now(), next: AtomicU64::new(0), rate, length, insists })
    }

    /// Waits for the next request's time: its number and when it was due. `None` at the end.
    pub(crate) async fn next(&self) -> Option<(u64, Instant)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let due = if self.rate > 0.0 {
            self.started + Duration::from_secs_f64(number as f64 / self.rate)
        } else {
            Instant::now()
        };
        let end = self.started + self.length;
        if due >= end || (self.insists && Instant::now() >= end) {
            return None;
        }
        tokio::time::sleep_until(due.into()).await;
        Some((number, due))
    }
}

/// Pushes to the end of the plan. What came of it is complete once the samples are finished.
pub(crate) async fn push(target: &Target, plan: &Plan) -> anyhow::Result<(Pushed, Unverified)> {
    let run: u64 = rand::random();
    let schedule = Schedule::new(plan);
    let started = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..plan.connections {
        let worker = Worker { target: target.clone(), http: client()?, plan: plan.clone(), run };
        let schedule = Arc::clone(&schedule);
        workers.spawn(async move { worker.work(&schedule).await });
    }
    let mut total = Pushed::nothing()?;
    let mut open = Vec::new();
    while let Some(one) = workers.join_next().await {
        let (one, samples) = one??;
        total.accepted += one.accepted;
        total.refused += one.refused;
        total.verified += one.verified;
        total.accept.add(&one.accept)?;
        total.commit.add(&one.commit)?;
        open.push(samples);
    }
    total.elapsed = started.elapsed();
    Ok((total, Unverified(open)))
}

/// Samples that were still under way when the push ended.
pub(crate) struct Unverified(Vec<Samples>);

impl Unverified {
    /// Waits for them.
    pub(crate) async fn finish(self, pushed: &mut Pushed) -> anyhow::Result<()> {
        for mut samples in self.0 {
            while let Some(verified) = samples.join_next().await {
                pushed.note(verified??);
            }
        }
        Ok(())
    }
}

impl Pushed {
    fn nothing() -> anyhow::Result<Self> {
        Ok(Self {
            elapsed: Duration::ZERO,
            accepted: 0,
            refused: 0,
            verified: 0,
            accept: histogram()?,
            commit: histogram()?,
        })
    }

    fn note(&mut self, micros: u64) {
        self.commit.saturating_record(micros);
        self.verified += 1;
    }
}

#[derive(Clone)]
struct Worker {
    target: Target,
    http: reqwest::Client,
    plan: Plan,
    run: u64,
}

/// Samples under way: verified while the push goes on, and never in its way.
type Samples = JoinSet<anyhow::Result<u64>>;

/// Samples that a connection has under way; more are passed over.
const SAMPLES_MAX: usize = 16;

impl Worker {
    async fn work(&self, schedule: &Schedule) -> anyhow::Result<(Pushed, Samples)> {
        let mut samples = Samples::new();
        let mut done = Pushed::nothing()?;
        while let Some((number, due)) = schedule.next().await {
            let sampled = self.plan.sample > 0 && number % self.plan.sample == 0;
            let answer = self.send(number).await?;
            done.accept.saturating_record(micros(due));
            match answer {
                Some(ids) => {
                    done.accepted += ids.len() as u64;
                    if let Some((id, content)) = ids.into_iter().next_back().filter(|_| sampled)
                        && samples.len() < SAMPLES_MAX
                    {
                        let worker = self.clone();
                        samples.spawn(async move { worker.verify(&id, &content).await.map(|()| micros(due)) });
                    }
                    while let Some(verified) = samples.try_join_next() {
                        done.note(verified??);
                    }
                }
                None => {
                    done.refused += self.plan.records;
                    if !self.plan.insists {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
            }
        }
        Ok((done, samples))
    }

    /// Pushes one request: ids and contents of what was accepted; `None` if the server said
    /// "later". Anything else is an error: nothing else may happen.
    async fn send(&self, number: u64) -> anyhow::Result<Option<Vec<(String, String)>>> {
        let contents: Vec<String> =
            (0..self.plan.records).map(|item| format!("{:016x} {number} {item}", self.run)).collect();
        let request = if self.plan.records == 1 {
            let key = contents[0].replace(' ', "-");
            let body = body(&contents[0], None);
            self.http.post(format!("{}/v1/evidence", self.target.base)).header("Idempotency-Key", key).body(body)
        } else {
            let items: Vec<String> =
                contents.iter().map(|content| body(content, Some(&content.replace(' ', "-")))).collect();
            let body = format!("{{\"items\":[{}]}}", items.join(","));
            self.http
                .post(format!("{}/v1/evidence/batch", self.target.base))
                .header("Idempotency-Key", format!("{:016x}-{number}", self.run))
                .body(body)
        };
        let answer = request.bearer_auth(&self.target.key).header("Content-Type", "application/json").send().await?;
        let status = answer.status().as_u16();
        let bytes = answer.bytes().await?;
        if status == 503 || status == 429 {
            return Ok(None);
        }
        ensure!(matches!(status, 200..=202 | 207), "status {status}: {}", String::from_utf8_lossy(&bytes));
        if self.plan.records == 1 {
            let id = id_of(&serde_json::from_slice(&bytes)?)?;
            return Ok(Some(vec![(id, contents.into_iter().next().unwrap_or_default())]));
        }
        // The last id is enough for the sample; the others are counted without parsing them all.
        let accepted = bytes.windows(8).filter(|window| window == b"\"id\":\"ev").count();
        ensure!(accepted == contents.len(), "{accepted} of {} items were accepted", contents.len());
        let last = bytes.windows(10).rposition(|window| window == b"\"id\":\"evd_").context("an id")? + 6;
        let end = bytes[last..].iter().position(|byte| *byte == b'"').context("the end of an id")? + last;
        let id = String::from_utf8(bytes[last..end].to_vec())?;
        Ok(Some(contents.into_iter().map(|content| (id.clone(), content)).collect()))
    }

    /// Waits for the commit of one record and verifies its receipt offline.
    async fn verify(&self, id: &str, content: &str) -> anyhow::Result<()> {
        let get =
            |path: String| self.http.get(format!("{}{path}", self.target.base)).bearer_auth(&self.target.key).send();
        let receipt = loop {
            let answer = get(format!("/v1/evidence/{id}/receipt")).await?;
            if answer.status().is_success() {
                break answer.bytes().await?;
            }
            ensure!(answer.status().as_u16() == 409, "receipt: {}", answer.text().await?);
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let entry = get(format!("/v1/evidence/{id}/entry")).await?.error_for_status()?.bytes().await?;
        let file = FileFacts { digests: Digests::of(content.as_bytes()), size: content.len() as u64 };
        let verdict = verify(Some(&file), &entry, &receipt, self.target.policy.as_bytes());
        ensure!(matches!(verdict, Verdict::Valid(_)), "{id}: {verdict}");
        Ok(())
    }
}

fn id_of(answer: &Value) -> anyhow::Result<String> {
    Ok(answer["id"].as_str().context("an id in the answer")?.to_owned())
}

fn micros(due: Instant) -> u64 {
    u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// A request of about 256 bytes with one digest.
pub(crate) fn body(content: &str, key: Option<&str>) -> String {
    let digest = Algorithm::Sha256.digest(content.as_bytes());
    let key = key.map(|key| format!("\"idempotency_key\":\"{key}\",")).unwrap_or_default();
    format!(
        "{{{key}\"digests\":{{\"sha256\":\"{digest}\"}},\"size\":{},\"media_type\":\"application/octet-stream\"}}",
        content.len()
    )
}
