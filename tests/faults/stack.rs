//! A production deployment under kills and outages: whatever dies, nothing acknowledged is lost,
//! nothing is done twice, and all goes on by itself.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use chopmark_tests::{
    Api, evidence, long, seeded,
    stack::{COMMITTERS, GATEWAYS, NODES, Stack},
    tally, verify,
};
use rand::{Rng, RngExt as _, seq::IndexedRandom as _, seq::SliceRandom as _};

/// How long all that was accepted may take to be committed, once everything runs again.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(120);
const CLIENTS: usize = 6;
/// Between two tries of a client.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// What the world outside was told.
#[derive(Default)]
struct Told {
    /// Idempotency key → evidence id of a 202 or 201.
    accepted: Mutex<BTreeMap<String, String>>,
    next: AtomicU64,
    retries: AtomicU64,
    is_over: AtomicBool,
}

impl Told {
    /// One client: every request goes on until a gateway has acknowledged it.
    async fn load(&self, gateways: &[Api; 2]) {
        while !self.is_over.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            // Every fifth request repeats an older key: it must get the same id.
            let key = if number % 5 == 4 { format!("key-{}", number - 3) } else { format!("key-{number}") };
            let mut at = usize::try_from(number).unwrap();
            loop {
                let answer = gateways[at % 2].post("/v1/evidence", &key, 0, &evidence(key.as_bytes())).await;
                match answer {
                    Ok(answer) if matches!(answer.status, 201 | 202) => {
                        let id = answer.body["id"].as_str().unwrap().to_owned();
                        let before = self.accepted.lock().unwrap().insert(key.clone(), id.clone());
                        assert!(before.is_none_or(|before| before == id), "{key} got two ids");
                        break;
                    }
                    Ok(answer) => assert!(matches!(answer.status, 429 | 503), "{} {}", answer.status, answer.body),
                    // Killed under it.
                    Err(_) => {}
                }
                self.retries.fetch_add(1, Ordering::Relaxed);
                at += 1;
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }

    fn accepted(&self) -> BTreeMap<String, String> {
        self.accepted.lock().unwrap().clone()
    }
}

fn pause(random: &mut impl Rng, from: u64, to: u64) -> Duration {
    Duration::from_millis(random.random_range(from..to))
}

/// What was done to the stack.
#[derive(Debug, Default)]
struct Done {
    kills: u32,
    outages: u32,
    flushes: u32,
}

impl Done {
    /// Roles die, a few at a time: at most one of the four nodes.
    async fn kill(&mut self, stack: &Stack, random: &mut impl Rng) {
        let mut roles: Vec<&str> = [COMMITTERS, GATEWAYS].concat();
        roles.push(NODES.choose(random).unwrap());
        roles.shuffle(random);
        roles.truncate(random.random_range(1..=roles.len()));
        for role in &roles {
            stack.kill(role).await.unwrap();
            self.kills += 1;
            tokio::time::sleep(pause(random, 0, 50)).await;
        }
        tokio::time::sleep(pause(random, 0, 1500)).await;
        stack.start_again(&roles).await.unwrap();
    }

    /// A server is away for a while, and roles die while it is.
    async fn outage(&mut self, stack: &Stack, server: &str, random: &mut impl Rng) {
        stack.kill_server(server).await.unwrap();
        self.outages += 1;
        let away = if long() && random.random_ratio(1, 5) { 60_000 } else { random.random_range(500..8_000) };
        tokio::time::sleep(Duration::from_millis(away)).await;
        let role = [COMMITTERS, GATEWAYS].concat().choose(random).copied().unwrap();
        stack.kill(role).await.unwrap();
        self.kills += 1;
        stack.start_server(server).await.unwrap();
        stack.start_again(&[role]).await.unwrap();
    }

    async fn flush(&mut self, stack: &Stack) {
        stack.flush_redis().await.unwrap();
        self.flushes += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_whatever_dies() {
    let mut random = seeded("nothing_is_lost_or_doubled_whatever_dies");
    let stack = Stack::start().await.unwrap();
    let (told, mut done) = (Told::default(), Done::default());
    let (kills_wanted, outages_wanted) = if long() { (300, 20) } else { (12, 3) };
    let servers = ["kafka", "postgres", "redis"];
    let faults = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        while done.kills < kills_wanted || done.outages < outages_wanted {
            if done.outages < outages_wanted && (done.kills >= kills_wanted || random.random_ratio(1, 4)) {
                let server = servers[done.outages as usize % servers.len()];
                done.outage(&stack, server, &mut random).await;
            } else {
                done.kill(&stack, &mut random).await;
            }
            done.flush(&stack).await;
            tokio::time::sleep(pause(&mut random, 0, 1000)).await;
        }
        told.is_over.store(true, Ordering::Relaxed);
    };
    let clients = futures_util::future::join_all((0..CLIENTS).map(|_| told.load(&stack.gateways)));
    tokio::join!(clients, faults);

    let accepted = told.accepted();
    committed(&stack.gateways[0], accepted.values()).await;
    for api in stack.gateways.iter().chain(&stack.nodes) {
        within(COMMIT_TIMEOUT, async || api.exactly_once(accepted.keys()).await).await;
    }
    let logs = futures_util::future::join_all(stack.nodes.iter().map(Api::entries)).await;
    let logs: Vec<Vec<Vec<u8>>> = logs.into_iter().map(Result::unwrap).collect();
    let shortest = logs.iter().map(Vec::len).min().unwrap();
    assert!(logs.iter().all(|log| log[..shortest] == logs[0][..shortest]), "the nodes' logs differ");

    for (at, (key, id)) in accepted.iter().step_by((accepted.len() / 30).max(1)).enumerate() {
        let api = &stack.gateways[at % 2];
        let again = api.post("/v1/evidence", key, 0, &evidence(key.as_bytes())).await.unwrap();
        assert_eq!((again.status, again.body["id"].as_str()), (201, Some(id.as_str())), "{}", again.body);
        receipt_holds(&stack, api, key, id).await;
    }
    let Done { kills, outages, flushes } = done;
    let (records, retries) = (accepted.len(), told.retries.into_inner());
    tally(
        "nothing_is_lost_or_doubled_whatever_dies",
        &format!(
            "{kills} kills, {outages} outages, {flushes} flushes; {records} records, {retries} retries by clients"
        ),
    );
}

/// Waits until a check holds.
async fn within(timeout: Duration, check: impl AsyncFn() -> anyhow::Result<()>) {
    let asked = Instant::now();
    while let Err(error) = check().await {
        assert!(asked.elapsed() < timeout, "{error:#}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Waits until each is committed; only accepted ones may still become it.
async fn committed(api: &Api, ids: impl Iterator<Item = &String>) {
    let asked = Instant::now();
    for id in ids {
        loop {
            match api.get(&format!("/v1/evidence/{id}")).await {
                Ok(answer) if answer.body["state"] == "committed" => break,
                Ok(answer) => assert!(
                    answer.status >= 500 || answer.body["state"] == "accepted",
                    "{id} was acknowledged: {} {}",
                    answer.status,
                    answer.body
                ),
                Err(error) => eprintln!("{id}: {error}"),
            }
            assert!(asked.elapsed() < COMMIT_TIMEOUT, "{id} was acknowledged and is not committed");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn receipt_holds(stack: &Stack, api: &Api, content: &str, id: &str) {
    let [file, entry, receipt] = ["file", "entry", "receipt"].map(|name| stack.folder().join(name));
    fs::write(&file, content).unwrap();
    for (path, what) in [(&entry, "entry"), (&receipt, "receipt")] {
        let (status, bytes) = api.bytes(&format!("/v1/evidence/{id}/{what}")).await.unwrap();
        assert_eq!(status, 200, "{what} of {id}");
        fs::write(path, bytes).unwrap();
    }
    let (line, code) = verify(&file, &entry, &receipt, &stack.policy).unwrap();
    assert!(line.starts_with("VALID") && code == 0, "{line}");
}
