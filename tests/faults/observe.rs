//! Whether whoever watches sees the truth: every query of every dashboard answers on a stack that is alive,
//! and faults raise the alerts that are meant for them.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use chopmark_tests::{
    Answer, Api, evidence, repository,
    stack::{COURIER, Stack},
    tally,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

/// How long Prometheus may take to notice.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(240);
const PAUSE: Duration = Duration::from_secs(2);
/// Requests that wait at a time: more than a hundredth of all.
const WAITING: usize = 20;
/// One stack at a time.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A receiver of webhooks that answers with one status.
async fn receiver() -> (String, Arc<AtomicU16>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let status = Arc::new(AtomicU16::new(204));
    let answers = Arc::clone(&status);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let status = answers.load(Ordering::Relaxed);
            tokio::spawn(async move {
                // Messages are short: they come in one piece, or in two with the head alone first.
                let mut request = Vec::new();
                let mut chunk = [0; 4096];
                while !request.ends_with(b"}}") {
                    match stream.read(&mut chunk).await {
                        Ok(0) | Err(_) => return,
                        Ok(read) => request.extend_from_slice(&chunk[..read]),
                    }
                }
                let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    (url, status)
}

/// Something of everything that callers do, until it is over.
struct Load {
    next: AtomicU64,
    is_over: AtomicBool,
}

impl Load {
    const fn new() -> Self {
        Self { next: AtomicU64::new(0), is_over: AtomicBool::new(false) }
    }

    async fn run(&self, gateways: &[Api; 2]) {
        while !self.is_over.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let api = &gateways[usize::try_from(number).unwrap() % 2];
            let key = format!("load-{number}");
            // Whatever comes of it: some of these meet a fault.
            let _ = api.post("/v1/evidence", &key, 0, &evidence(key.as_bytes())).await;
            let _ = api.get("/v1/evidence?limit=1").await;
            let _ = api.get("/v1/evidence/none").await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn add_endpoint(stack: &Stack, url: &str) {
    let body = json!({ "url": url });
    let added: Answer = stack.gateways[0].post("/v1/webhooks/endpoints", "hook", 0, &body).await.unwrap();
    assert_eq!(added.status, 201, "{}", added.body);
}

struct Prometheus {
    base: String,
    http: reqwest::Client,
}

impl Prometheus {
    fn of(stack: &Stack) -> Self {
        Self { base: stack.server("PROMETHEUS").unwrap(), http: stack.gateways[0].http.clone() }
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let url = reqwest::Url::parse_with_params(&format!("{}/api/v1/{path}", self.base), query).unwrap();
        self.http.get(url).send().await.unwrap().json().await.unwrap()
    }

    /// Why a query is no good, if it is not: an error, no series, or no number.
    async fn fault_of(&self, query: &str) -> Option<String> {
        let answer = self.get("query", &[("query", query)]).await;
        if answer["status"] != "success" {
            return Some(answer["error"].to_string());
        }
        let series = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        let is_number = |one: &Value| one["value"][1].as_str().is_some_and(|value| value != "NaN");
        match series.iter().any(is_number) {
            true => None,
            false if series.is_empty() => Some("nothing".to_owned()),
            false => Some("no number".to_owned()),
        }
    }

    async fn is_firing(&self, alert: &str, labels: &[(&str, &str)]) -> bool {
        let alerts = self.get("alerts", &[]).await;
        alerts["data"]["alerts"].as_array().into_iter().flatten().any(|one| {
            let has = |(name, value): &(&str, &str)| one["labels"][name] == **value;
            one["state"] == "firing" && one["labels"]["alertname"] == alert && labels.iter().all(has)
        })
    }

    async fn fires(&self, alert: &str, labels: &[(&str, &str)]) {
        let begun = Instant::now();
        while !self.is_firing(alert, labels).await {
            if begun.elapsed() > NOTICE_TIMEOUT {
                let alerts = self.get("alerts", &[]).await;
                panic!("{alert} {labels:?} does not fire; these do: {alerts}");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn is_quiet(&self) {
        let begun = Instant::now();
        loop {
            let alerts = self.get("alerts", &[]).await;
            let firing = alerts["data"]["alerts"].as_array().into_iter().flatten();
            let firing: Vec<_> = firing.filter(|one| one["state"] == "firing").collect();
            if firing.is_empty() {
                return;
            }
            assert!(begun.elapsed() < NOTICE_TIMEOUT, "all is well, and these fire: {firing:?}");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Every query of every panel: dashboard and title, query.
fn queries() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for file in fs::read_dir(repository().join("deploy/grafana/dashboards")).unwrap() {
        let board: Value = serde_json::from_slice(&fs::read(file.unwrap().path()).unwrap()).unwrap();
        for panel in board["panels"].as_array().unwrap() {
            let name = format!("{}: {}", board["title"].as_str().unwrap(), panel["title"].as_str().unwrap());
            for target in panel["targets"].as_array().unwrap() {
                let query = target["expr"].as_str().unwrap().replace("$network", ".*");
                found.push((name.clone(), query.replace("$__rate_interval", "1m")));
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_answers_on_a_stack_that_is_alive() {
    let _alone = ALONE.lock().await;
    let stack = Stack::start().await.unwrap();
    let prometheus = Prometheus::of(&stack);
    let (url, _) = receiver().await;
    add_endpoint(&stack, &url).await;
    let load = Load::new();
    let queries = queries();
    assert!(queries.len() > 50, "{} queries", queries.len());
    let ask = async {
        let begun = Instant::now();
        loop {
            let mut faults = Vec::new();
            for (panel, query) in &queries {
                if let Some(fault) = prometheus.fault_of(query).await {
                    faults.push(format!("{panel}: {fault}: {query}"));
                }
            }
            if faults.is_empty() {
                break;
            }
            assert!(begun.elapsed() < NOTICE_TIMEOUT, "{}", faults.join("\n"));
            tokio::time::sleep(PAUSE).await;
        }
        load.is_over.store(true, Ordering::Relaxed);
    };
    tokio::join!(load.run(&stack.gateways), ask);
    let rules = prometheus.get("rules", &[]).await;
    let rules: Vec<Value> = rules["data"]["groups"].as_array().unwrap()[0]["rules"].as_array().unwrap().clone();
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
    let (panels, rules) = (queries.len(), rules.len());
    tally("every_panel_answers_on_a_stack_that_is_alive", &format!("{panels} queries, {rules} rules"));
}

/// The rules that we ship, with seconds for minutes.
fn impatient(rules: &str) -> String {
    let mut out = rules.to_owned();
    for (patient, soon) in [
        ("for: 2m", "for: 5s"),
        ("for: 5m", "for: 5s"),
        ("for: 10m", "for: 5s"),
        ("for: 15m", "for: 5s"),
        ("offset 5m", "offset 20s"),
        ("offset 10m", "offset 30s"),
        ("offset 1h", "offset 30s"),
        ("changes(chopmark_node_height[5m])", "changes(chopmark_node_height[45s])"),
        ("[5m]", "[30s]"),
        ("[15m]", "[2m]"),
    ] {
        out = out.replace(patient, soon);
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_raises_its_alert() {
    let _alone = ALONE.lock().await;
    let stack = Stack::start().await.unwrap();
    let prometheus = Prometheus::of(&stack);
    let rules = fs::read_to_string(repository().join("deploy/prometheus/alerts.yaml")).unwrap();
    stack.set_rules(&impatient(&rules)).unwrap();
    let (url, status) = receiver().await;
    add_endpoint(&stack, &url).await;
    let load = Load::new();
    let mut faults = 0;
    let inject = async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        prometheus.is_quiet().await;

        // One of each kind.
        let away =
            [("node-court", "node"), ("gateway-1", "gateway"), ("committer-1", "committer"), (COURIER, "courier")];
        for (role, _) in away {
            stack.kill(role).await.unwrap();
            faults += 1;
        }
        for (_, kind) in away {
            prometheus.fires("ChopmarkProcessDown", &[("role", kind)]).await;
        }
        prometheus.fires("ChopmarkQuorumAtRisk", &[]).await;
        prometheus.fires("ChopmarkMemberBehind", &[("member", "court.localhost/cosigner")]).await;
        faults += 2;

        // One node more, and nothing is decided: whoever waits for it waits long.
        stack.kill("node-archive").await.unwrap();
        let is_noticed = AtomicBool::new(false);
        let waiting = async {
            for round in 0.. {
                let wait = async |number: usize| {
                    let key = format!("waits-{round}-{number}");
                    let _ = stack.gateways[0].post("/v1/evidence", &key, 8, &evidence(key.as_bytes())).await;
                };
                futures_util::future::join_all((0..WAITING).map(wait)).await;
                if is_noticed.load(Ordering::Relaxed) {
                    return;
                }
            }
        };
        let noticed = async {
            prometheus.fires("ChopmarkRequestsSlow", &[]).await;
            prometheus.fires("ChopmarkLedgerStands", &[]).await;
            is_noticed.store(true, Ordering::Relaxed);
        };
        tokio::join!(waiting, noticed);
        faults += 2;
        stack.start_again(&["node-court", "node-archive", "gateway-1", "committer-1", COURIER]).await.unwrap();

        // Servers.
        stack.kill_server("kafka").await.unwrap();
        prometheus.fires("ChopmarkDependencyDown", &[("dependency", "queue")]).await;
        prometheus.fires("ChopmarkGatewayFails", &[]).await;
        stack.start_server("kafka").await.unwrap();
        stack.kill_server("postgres").await.unwrap();
        prometheus.fires("ChopmarkDependencyDown", &[("dependency", "database")]).await;
        stack.start_server("postgres").await.unwrap();
        faults += 3;

        // A receiver that is gone, a courier that does not stay, a clock that is wrong.
        status.store(410, Ordering::Relaxed);
        prometheus.fires("ChopmarkWebhooksGivenUp", &[]).await;
        for _ in 0..5 {
            stack.kill(COURIER).await.unwrap();
            stack.start_again(&[COURIER]).await.unwrap();
            // Each life is seen by a scrape.
            tokio::time::sleep(Duration::from_secs(7)).await;
        }
        prometheus.fires("ChopmarkRestarts", &[("role", "courier")]).await;
        stack.stop_role("node-court").await.unwrap();
        let settings = stack.folder().join("net/court.localhost/node.toml");
        let text = fs::read_to_string(&settings).unwrap();
        fs::write(&settings, format!("{text}\n[faults]\nclock_offset_ms = 4000\n")).unwrap();
        stack.start_again(&["node-court"]).await.unwrap();
        prometheus.fires("ChopmarkClockOff", &[]).await;
        faults += 3;
        load.is_over.store(true, Ordering::Relaxed);
    };
    tokio::join!(load.run(&stack.gateways), inject);
    tally("every_fault_raises_its_alert", &format!("{faults} faults, each with its alert"));
}
