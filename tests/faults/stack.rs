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
    Api, evidence, long, seeded, sha256,
    stack::{COMMITTERS, GATEWAYS, NODES, Stack},
    tally, verify,
};
use rand::{Rng, RngExt as _, seq::IndexedRandom as _, seq::SliceRandom as _};
use serde_json::Value;

/// How long all that was accepted may take to be committed, once everything runs again.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(120);
const CLIENTS: usize = 6;
/// One stack at a time: eight processes and four servers are enough for a small machine.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
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
    let _alone = ALONE.lock().await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_fails_no_request_after_one_retry() {
    let _alone = ALONE.lock().await;
    let stack = Stack::start().await.unwrap();
    let (next, retries, is_over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let accepted = Mutex::new(BTreeMap::new());
    let client = async || {
        while !is_over.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let (key, at) = (format!("key-{number}"), usize::try_from(number).unwrap());
            let post = async |at: usize| {
                let answer = stack.gateways[at % 2].post("/v1/evidence", &key, 0, &evidence(key.as_bytes())).await;
                answer.ok().filter(|answer| answer.status == 202)
            };
            let answer = match post(at).await {
                Some(answer) => answer,
                None => {
                    retries.fetch_add(1, Ordering::Relaxed);
                    post(at + 1).await.unwrap_or_else(|| panic!("{key} failed at both gateways"))
                }
            };
            accepted.lock().unwrap().insert(key, answer.body["id"].as_str().unwrap().to_owned());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let restarts = async {
        for role in [&NODES[..], &COMMITTERS, &GATEWAYS].concat() {
            stack.stop_role(role).await.unwrap();
            stack.start_again(&[role]).await.unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
    };
    tokio::join!(futures_util::future::join_all((0..CLIENTS).map(|_| client())), restarts);
    let accepted = accepted.into_inner().unwrap();
    assert!(accepted.len() > 100, "the load came through: {}", accepted.len());
    committed(&stack.gateways[0], accepted.values()).await;
    stack.gateways[1].exactly_once(accepted.keys()).await.unwrap();
    let retries = retries.into_inner();
    tally(
        "a_rolling_restart_fails_no_request_after_one_retry",
        &format!("{} records, {retries} retries", accepted.len()),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_need_a_part_goes_on_without_it() {
    let _alone = ALONE.lock().await;
    let stack = Stack::start().await.unwrap();
    let [api, other] = &stack.gateways;
    let first = api.notarize("first", b"first").await.unwrap();
    assert_eq!(first.status, 201, "{}", first.body);
    let operation = format!("/v1/operations/{}", first.body["operation"]["id"].as_str().unwrap());
    let first = format!("/v1/evidence/{}", first.body["id"].as_str().unwrap());
    let post = async |key: &str| api.post("/v1/evidence", key, 0, &evidence(key.as_bytes())).await.unwrap();
    let reads = async || {
        for api in &stack.gateways {
            assert_eq!(api.get(&first).await.unwrap().body["state"], "committed");
            assert_eq!(api.public("/v1/blocks").await.unwrap().0, 200);
            assert_eq!(api.public(&format!("/v1/verify/sha256/{}", sha256(b"first"))).await.unwrap().0, 200);
        }
    };

    // No cache: slower, no more.
    stack.kill_server("redis").await.unwrap();
    assert_eq!(post("without-redis").await.status, 202);
    reads().await;
    stack.start_server("redis").await.unwrap();

    // One node of four.
    stack.kill("node-archive").await.unwrap();
    assert_eq!(other.notarize("without-a-node", b"without-a-node").await.unwrap().status, 201);
    reads().await;
    stack.start_again(&["node-archive"]).await.unwrap();

    // No committer: accepted, and committed once there is one.
    for committer in COMMITTERS {
        stack.kill(committer).await.unwrap();
    }
    let waits = post("without-committers").await;
    assert_eq!(waits.status, 202);
    reads().await;
    let waits = format!("/v1/evidence/{}", waits.body["id"].as_str().unwrap());
    assert_eq!(other.get(&waits).await.unwrap().body["state"], "accepted", "known at every gateway");
    stack.start_again(&COMMITTERS).await.unwrap();
    let is_committed = async || {
        let answer = api.get(&waits).await?;
        anyhow::ensure!(answer.body["state"] == "committed", "{}", answer.body);
        Ok(())
    };
    within(COMMIT_TIMEOUT, is_committed).await;

    // No queue: nothing is promised, everything is read.
    stack.kill_server("kafka").await.unwrap();
    let refused = post("without-kafka").await;
    assert_eq!((refused.status, refused.body["code"].as_str()), (503, Some("queue_unavailable")), "{}", refused.body);
    assert_eq!(refused.body["retryable"], true);
    reads().await;
    // A gateway knows by the last request that it published.
    let ready = api.get("/health/ready").await.unwrap();
    assert_eq!((ready.status, ready.body["status"].as_str()), (200, Some("degraded")), "{}", ready.body);
    stack.start_server("kafka").await.unwrap();
    let is_taken = async || {
        let answer = api.notarize("without-kafka", b"without-kafka").await?;
        anyhow::ensure!(answer.status == 201, "{}", answer.body);
        Ok(())
    };
    within(COMMIT_TIMEOUT, is_taken).await;

    // No node at all: accepted, and what came of one's operations is known. What was recorded is on the
    // ledger alone.
    for node in NODES {
        stack.kill(node).await.unwrap();
    }
    assert_eq!(post("without-nodes").await.status, 202);
    let own = api.get(&operation).await.unwrap();
    assert_eq!((own.status, own.body["state"].as_str()), (200, Some("committed")), "{}", own.body);
    let blocks = api.get("/v1/blocks").await.unwrap();
    assert_eq!((blocks.status, blocks.body["code"].as_str()), (503, Some("ledger_unavailable")), "{}", blocks.body);
    stack.start_again(&NODES).await.unwrap();
    let is_taken = async || {
        let answer = other.notarize("without-nodes", b"without-nodes").await?;
        anyhow::ensure!(answer.status == 201, "{}", answer.body);
        Ok(())
    };
    within(COMMIT_TIMEOUT, is_taken).await;
    reads().await;
}

/// What an administrator decides is in force at every gateway within seconds, and what a tenant may use
/// counts over all of them, whatever becomes of Redis.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_administrator_says_holds_at_every_gateway() {
    let _alone = ALONE.lock().await;
    let stack = Stack::start().await.unwrap();
    let with = |key: &str| {
        let key = key.to_owned();
        stack.gateways.each_ref().map(|gateway| Api { key: key.clone(), ..gateway.clone() })
    };
    let everywhere = async |gateways: &[Api; 2], status: u16, code: &str| {
        within(Duration::from_secs(30), async || {
            for gateway in gateways {
                let answer = gateway.get("/v1/evidence").await?;
                anyhow::ensure!(answer.status == status, "{} {}", answer.status, answer.body);
                anyhow::ensure!(code.is_empty() || answer.body["code"] == code, "{}", answer.body);
            }
            Ok(())
        })
        .await;
    };
    let writes = async |gateway: &Api, key: &str| gateway.post("/v1/evidence", key, 0, &evidence(key.as_bytes())).await;

    // Keys: scopes, networks, a rotation with two that live, revocation.
    let tenant = ["--tenant", Stack::TENANT];
    let make = async |more: &[&str]| stack.admin(&[&["key", "create"], &tenant[..], more].concat()).await.unwrap();
    let reader = with(&make(&["--scope", "read", "--allow", "127.0.0.0/8"]).await);
    everywhere(&reader, 200, "").await;
    assert_eq!(writes(&reader[0], "r").await.unwrap().body["code"], "api_key_scope_missing");
    everywhere(&with(&make(&["--allow", "192.0.2.0/24"]).await), 403, "api_key_address_not_allowed").await;
    let listed = stack.admin(&["key", "list", Stack::TENANT, "--json"]).await.unwrap();
    let keys: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!listed.contains(&reader[0].key), "a key is shown again");
    let old = keys.iter().find(|key| key["allow"][0] == "127.0.0.0/8").unwrap()["key"].as_str().unwrap();
    let rotated = [&["key", "rotate", old], &tenant[..], &["--overlap-hours", "1"]].concat();
    let successor = with(&stack.admin(&rotated).await.unwrap());
    everywhere(&reader, 200, "").await;
    everywhere(&successor, 200, "").await;
    assert_eq!(writes(&successor[0], "r").await.unwrap().status, 403, "scopes are those of the old key");
    let revoked = stack.admin(&["key", "revoke", old]).await.unwrap();
    assert_eq!(revoked, format!("{old} is revoked"));
    everywhere(&reader, 401, "api_key_revoked").await;
    everywhere(&successor, 200, "").await;
    for (arguments, expected) in [
        (&["key", "revoke", "key_nothing"][..], "there is no key key_nothing"),
        (&["key", "create", "--tenant", "ten_nobody"], "ten_nobody is not a tenant"),
        (&["key", "create", "--tenant", Stack::TENANT, "--expires", "2020-01-01T00:00:00Z"], "has passed already"),
        (&["key", "create", "--tenant", Stack::TENANT, "--allow", "192.0.2.1/24"], "192.0.2.0/24 is meant"),
        (&["quota", "set", "ten_nobody"], "ten_nobody is not a tenant"),
    ] {
        let error = stack.admin(arguments).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }

    // Records of a day, over both gateways and through both kinds of calls.
    stack.admin(&["quota", "set", Stack::TENANT, "--records-per-day", "10"]).await.unwrap();
    let full = AtomicU64::new(0);
    within(Duration::from_secs(30), async || {
        let number = full.fetch_add(1, Ordering::Relaxed);
        let answer = writes(&stack.gateways[usize::try_from(number % 2).unwrap()], &format!("day-{number}")).await?;
        anyhow::ensure!(answer.status == 429, "{}", answer.status);
        assert_eq!(answer.body["code"], "quota_exceeded");
        Ok(())
    })
    .await;
    for gateway in &stack.gateways {
        assert_eq!(writes(gateway, "one-more").await.unwrap().body["code"], "quota_exceeded");
        let known = writes(gateway, "day-0").await.unwrap().status;
        assert!(matches!(known, 201 | 202), "what is known costs nothing: {known}");
    }

    // Requests a second: both gateways together allow what the tenant may, with Redis and without.
    let limits = ["quota", "set", Stack::TENANT, "--requests-per-second", "5", "--burst", "20"];
    assert!(stack.admin(&limits).await.unwrap().contains("5 requests a second, 20 at once"));
    let sevenfold = async || {
        let (begun, mut passed) = (Instant::now(), 0);
        for number in 0..140_usize {
            passed += u64::from(stack.gateways[number % 2].get("/v1/evidence").await.unwrap().status == 200);
        }
        (passed, 5 * (begun.elapsed().as_secs() + 1))
    };
    within(Duration::from_secs(30), async || {
        let (passed, refilled) = sevenfold().await;
        anyhow::ensure!((1..=20 + refilled).contains(&passed), "{passed} passed");
        Ok(())
    })
    .await;
    stack.kill_server("redis").await.unwrap();
    within(Duration::from_secs(30), async || {
        let (passed, refilled) = sevenfold().await;
        assert!(passed <= 2 * (20 + refilled), "{passed} passed without Redis");
        anyhow::ensure!(passed > 0, "nothing passes without Redis");
        Ok(())
    })
    .await;
    stack.start_server("redis").await.unwrap();
    stack.admin(&["quota", "set", Stack::TENANT]).await.unwrap();

    // Suspended: reading goes on.
    stack.admin(&["tenant", "suspend", Stack::TENANT]).await.unwrap();
    within(Duration::from_secs(30), async || {
        let answer = writes(&stack.gateways[0], "suspended").await?;
        anyhow::ensure!(answer.body["code"] == "tenant_suspended", "{}", answer.status);
        Ok(())
    })
    .await;
    everywhere(&stack.gateways, 200, "").await;
    stack.admin(&["tenant", "resume", Stack::TENANT]).await.unwrap();
    within(Duration::from_secs(30), async || {
        let answer = writes(&stack.gateways[0], "resumed").await?;
        anyhow::ensure!(answer.status == 202, "{}", answer.body);
        Ok(())
    })
    .await;
    let tenants = stack.admin(&["tenant", "list"]).await.unwrap();
    assert!(tenants.contains("active=true") && tenants.contains(Stack::TENANT), "{tenants}");
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
