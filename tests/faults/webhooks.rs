//! Webhooks under faults: receivers that fail in every way and couriers that die. Every event arrives, in the
//! order of its resource, and is signed.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use chopmark_courier::sign::{Secret, signature};
use chopmark_tests::{Api, evidence, long, seeded, stack::Stack, tally};
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// How long everything may take to arrive once nothing fails any more.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(600);
const BATCH: usize = 250;

/// Of a thousand answers the first are errors, the next up to here resets, and so on; the rest are 204.
const ERRORS: u32 = 240;
const RESETS: u32 = 280;
const SLOW: u32 = 295;
/// Longer than a courier waits.
const HANGS: u32 = 300;

/// What a receiver was sent, and what it acknowledged.
#[derive(Default)]
struct Seen {
    /// Acknowledged messages by `webhook-id`.
    taken: BTreeMap<String, Value>,
    /// Positions of links that were acknowledged, by case.
    links: BTreeMap<String, BTreeSet<u64>>,
    wrong: Vec<String>,
}

struct Receiver {
    secrets: Mutex<Vec<Secret>>,
    seen: Mutex<Seen>,
    attempts: AtomicU64,
    well: AtomicBool,
    seed: AtomicU64,
    status: AtomicU32,
}

impl Receiver {
    async fn start(seed: u64) -> (Arc<Self>, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let receiver = Arc::new(Self {
            secrets: Mutex::default(),
            seen: Mutex::default(),
            attempts: AtomicU64::new(0),
            well: AtomicBool::new(false),
            seed: AtomicU64::new(seed),
            status: AtomicU32::new(0),
        });
        let accepting = Arc::clone(&receiver);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&accepting).serve(stream));
            }
        });
        (receiver, address)
    }

    async fn serve(self: Arc<Self>, mut stream: TcpStream) {
        let mut buffer = Vec::new();
        while let Some((head, body)) = request(&mut stream, &mut buffer).await {
            self.attempts.fetch_add(1, Ordering::Relaxed);
            let seed = self.seed.fetch_add(1, Ordering::Relaxed);
            let manner = rand_chacha::ChaCha8Rng::seed_from_u64(seed).random_range(0..1000);
            let manner = if self.well.load(Ordering::Relaxed) { 999 } else { manner };
            let answer = match (manner, self.status.load(Ordering::Relaxed)) {
                (_, status) if status != 0 => format!("HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n"),
                (..ERRORS, _) => "HTTP/1.1 503 Away\r\ncontent-length: 4\r\n\r\nbusy".to_owned(),
                (..RESETS, _) => {
                    let _ = stream.set_zero_linger();
                    return;
                }
                (..SLOW, _) => {
                    tokio::time::sleep(Duration::from_millis(400)).await;
                    "HTTP/1.1 500 Slow\r\ncontent-length: 0\r\n\r\n".to_owned()
                }
                (..HANGS, _) => {
                    tokio::time::sleep(Duration::from_secs(20)).await;
                    return;
                }
                _ => {
                    self.take(&head, &body);
                    "HTTP/1.1 204 No Content\r\n\r\n".to_owned()
                }
            };
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    /// Acknowledges a message: a repeated one has to say the same, and a link comes after those before it.
    fn take(&self, head: &str, body: &[u8]) {
        let header = |name: &str| {
            let found = head.lines().find_map(|line| {
                let (given, value) = line.split_once(": ")?;
                given.eq_ignore_ascii_case(name).then(|| value.to_owned())
            });
            found.unwrap_or_default()
        };
        let (id, time, signed) = (header("webhook-id"), header("webhook-timestamp"), header("webhook-signature"));
        let secrets = self.secrets.lock().unwrap();
        let good = |secret| signature(&[secret], &id, time.parse().unwrap_or(0), body);
        let is_signed = secrets.iter().any(|secret| signed.split(' ').any(|one| one == good(secret)));
        let mut seen = self.seen.lock().unwrap();
        if !is_signed {
            seen.wrong.push(format!("{id}: the signature does not hold"));
        }
        let message: Value = serde_json::from_slice(body).unwrap_or_default();
        let before = seen.taken.insert(id.clone(), message.clone());
        if before.is_some_and(|before| before != message) {
            seen.wrong.push(format!("{id} said something else before"));
        }
        if let (Some(case), Some(position)) =
            (message["data"]["case_id"].as_str(), message["data"]["position"].as_u64())
        {
            let links = seen.links.entry(case.to_owned()).or_default();
            let missing = (1..position).find(|before| !links.contains(before));
            links.insert(position);
            if let Some(missing) = missing {
                seen.wrong.push(format!("{case}: link {position} came before {missing}"));
            }
        }
    }

    fn taken(&self, kind: &str) -> BTreeSet<String> {
        let seen = self.seen.lock().unwrap();
        let of_kind = seen.taken.values().filter(|message| message["type"] == kind);
        of_kind.map(|message| message["data"]["operation_id"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

/// One request of a connection that is kept; `None` at its end.
async fn request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    let mut chunk = [0; 16_384];
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let length =
                head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            let whole = end + 4 + length.unwrap_or(0);
            if buffer.len() >= whole {
                let body = buffer[end + 4..whole].to_vec();
                buffer.drain(..whole);
                return Some((head, body));
            }
        }
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => buffer.extend_from_slice(&chunk[..read]),
        }
    }
}

async fn add_endpoint(api: &Api, address: SocketAddr, key: &str, events: Option<&[&str]>) -> Value {
    let mut body = json!({ "url": format!("http://{address}/hook") });
    if let Some(events) = events {
        body["events"] = json!(events);
    }
    let answer = api.post("/v1/webhooks/endpoints", key, 0, &body).await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.body
}

fn secret(endpoint: &Value) -> Secret {
    Secret::parse(endpoint["secret"].as_str().unwrap()).unwrap()
}

/// Sends until a gateway has acknowledged it.
async fn insist(stack: &Stack, path: &str, key: &str, body: &Value) -> Value {
    for at in 0.. {
        match stack.gateways[at % 2].post(path, key, 0, body).await {
            Ok(answer) if matches!(answer.status, 200..=202) => return answer.body,
            Ok(answer) => assert!(matches!(answer.status, 409 | 429 | 503), "{} {}", answer.status, answer.body),
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    unreachable!("it insists")
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < ARRIVAL_TIMEOUT, "{what}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_arrives_in_order_whatever_receivers_and_couriers_do() {
    let mut random = seeded("every_event_arrives_in_order_whatever_receivers_and_couriers_do");
    let (events, cases, links) = if long() { (9_000, 20, 50) } else { (500, 4, 10) };
    let stack = Stack::start().await.unwrap();
    let api = &stack.gateways[0];
    let (receiver, address) = Receiver::start(random.random()).await;
    let endpoint = add_endpoint(api, address, "all", None).await;
    receiver.secrets.lock().unwrap().push(secret(&endpoint));
    // The same again is the same, with its secret.
    assert_eq!(add_endpoint(&stack.gateways[1], address, "all", None).await, endpoint);

    let mut expected: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let operation = |answer: &Value| answer["operation"]["id"].as_str().unwrap().to_owned();
    let over = AtomicBool::new(false);
    let mut kills = 0;
    let load = async {
        let mut opened = Vec::new();
        for case in 0..cases {
            let answer = insist(&stack, "/v1/cases", &format!("case-{case}"), &json!({})).await;
            expected.entry("case.committed").or_default().insert(operation(&answer));
            opened.push(answer["id"].as_str().unwrap().to_owned());
        }
        let mut ids = Vec::new();
        let keys: Vec<String> = (0..events).map(|number| format!("event-{number}")).collect();
        for batch in keys.chunks(BATCH) {
            let item = |key: &String| {
                let mut item = evidence(key.as_bytes());
                item["idempotency_key"] = json!(key);
                item
            };
            let body = json!({ "items": batch.iter().map(item).collect::<Vec<_>>() });
            let answer = insist(&stack, "/v1/evidence/batch", "unused", &body).await;
            for item in answer["items"].as_array().unwrap() {
                expected.entry("evidence.committed").or_default().insert(operation(item));
                ids.push(item["id"].as_str().unwrap().to_owned());
            }
        }
        for link in 0..links {
            for (number, case) in opened.iter().enumerate() {
                let body = json!({ "evidence_id": ids[number * links + link] });
                let path = format!("/v1/cases/{case}/evidence");
                let answer = insist(&stack, &path, &format!("link-{number}-{link}"), &body).await;
                expected.entry("case_link.committed").or_default().insert(operation(&answer));
            }
        }
        over.store(true, Ordering::Relaxed);
    };
    let faults = async {
        let mut rounds = 0;
        // Some of the faults meet the backlog.
        while !over.load(Ordering::Relaxed) || rounds < if long() { 60 } else { 6 } {
            tokio::time::sleep(Duration::from_millis(random.random_range(500..3000))).await;
            stack.kill("courier-0").await.unwrap();
            kills += 1;
            if rounds % 5 == 2 {
                stack.kill("committer-0").await.unwrap();
                stack.kill_server("postgres").await.unwrap();
                tokio::time::sleep(Duration::from_millis(random.random_range(500..3000))).await;
                stack.start_server("postgres").await.unwrap();
                stack.start_again(&["committer-0"]).await.unwrap();
                kills += 2;
            }
            stack.start_again(&["courier-0"]).await.unwrap();
            rounds += 1;
        }
    };
    tokio::join!(load, faults);
    // From here on only receivers fail, and then nobody does.
    let is_here = |kind: &str| receiver.taken(kind).is_superset(&expected[kind]);
    let everything = || expected.keys().all(|kind| is_here(kind));
    let faulty_until = Instant::now() + Duration::from_secs(if long() { 120 } else { 10 });
    while Instant::now() < faulty_until && !everything() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    receiver.well.store(true, Ordering::Relaxed);
    eventually("events are missing", async || everything()).await;
    let pending = async || {
        let answer = api.get("/v1/webhooks/deliveries?state=pending").await.unwrap();
        answer.body["items"].as_array().map_or(1, Vec::len)
    };
    eventually("deliveries stay pending", async || pending().await == 0).await;
    let dead = api.get("/v1/webhooks/deliveries?state=dead").await.unwrap();
    assert_eq!(dead.body["items"], json!([]));
    let seen = receiver.seen.lock().unwrap();
    assert!(seen.wrong.is_empty(), "{:?}", seen.wrong);
    for (kind, expected) in &expected {
        assert_eq!(&receiver_kind(&seen, kind), expected, "{kind}: nothing that did not happen");
    }
    let total: usize = expected.values().map(BTreeSet::len).sum();
    let attempts = receiver.attempts.load(Ordering::Relaxed);
    tally(
        "every_event_arrives_in_order_whatever_receivers_and_couriers_do",
        &format!("{total} events, {attempts} attempts, {kills} kills: 0 missing"),
    );
}

fn receiver_kind(seen: &Seen, kind: &str) -> BTreeSet<String> {
    let of_kind = seen.taken.values().filter(|message| message["type"] == kind);
    of_kind.map(|message| message["data"]["operation_id"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_are_tested_rotated_replayed_and_disabled() {
    let folder = tempfile::tempdir().unwrap();
    let dev = chopmark_tests::Dev::start(&folder.path().join("data")).await.unwrap();
    let (receiver, address) = Receiver::start(1).await;
    let (other, other_address) = Receiver::start(2).await;
    for well in [&receiver, &other] {
        well.well.store(true, Ordering::Relaxed);
    }
    let endpoint = add_endpoint(&dev, address, "first", Some(&["evidence.committed"])).await;
    let watcher = add_endpoint(&dev, other_address, "second", Some(&["endpoint.disabled"])).await;
    receiver.secrets.lock().unwrap().push(secret(&endpoint));
    other.secrets.lock().unwrap().push(secret(&watcher));
    let path = format!("/v1/webhooks/endpoints/{}", endpoint["id"].as_str().unwrap());

    // A test goes to one endpoint, whatever it asks for.
    let answer = dev.post(&format!("{path}/test"), "unused", 0, &json!({})).await.unwrap();
    assert_eq!(answer.status, 202, "{}", answer.body);
    let delivery = format!("/v1/webhooks/deliveries/{}", answer.body["delivery_id"].as_str().unwrap());
    let state = async |path: &str| dev.get(path).await.unwrap().body;
    eventually("the test does not arrive", async || state(&delivery).await["state"] == "delivered").await;
    let log = state(&delivery).await["log"].clone();
    assert_eq!(
        (&log[0]["outcome"], &log[0]["status"], log.as_array().unwrap().len()),
        (&json!("delivered"), &json!(204), 1)
    );

    // With a new secret both sign.
    let rotated = dev.post(&format!("{path}/secret"), "rotation", 0, &json!({ "overlap_seconds": 600 })).await.unwrap();
    assert_eq!(rotated.status, 200, "{}", rotated.body);
    let again = dev.post(&format!("{path}/secret"), "rotation", 0, &json!({ "overlap_seconds": 600 })).await.unwrap();
    assert_eq!(again.body["secret"], rotated.body["secret"]);
    assert_ne!(rotated.body["secret"], endpoint["secret"]);
    let sent = async |key: &str| {
        let before = receiver.attempts.load(Ordering::Relaxed);
        assert_eq!(dev.notarize(key, key.as_bytes()).await.unwrap().status, 201);
        eventually("nothing arrives", async || receiver.attempts.load(Ordering::Relaxed) > before).await;
    };
    sent("signed-by-both").await;
    *receiver.secrets.lock().unwrap() = vec![secret(&rotated.body)];
    sent("signed-by-the-new-one").await;
    let wrong = receiver.seen.lock().unwrap().wrong.clone();
    assert!(wrong.is_empty(), "{wrong:?}");

    // Everything again, under the same ids.
    let taken = receiver.seen.lock().unwrap().taken.clone();
    let range = json!({ "from": "2020-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z", "state": "delivered" });
    let before = receiver.attempts.load(Ordering::Relaxed);
    let replayed = dev.post(&format!("{path}/replay"), "unused", 0, &range).await.unwrap();
    assert_eq!((replayed.status, &replayed.body["replayed"]), (202, &json!(3)), "{}", replayed.body);
    eventually("the replay does not arrive", async || receiver.attempts.load(Ordering::Relaxed) >= before + 3).await;
    assert_eq!(receiver.seen.lock().unwrap().taken, taken);

    // 410: gone, and the other endpoint is told.
    receiver.status.store(410, Ordering::Relaxed);
    sent("to-nobody").await;
    eventually("the endpoint is not disabled", async || state(&path).await["state"] == "gone").await;
    eventually("nobody is told", async || {
        let seen = other.seen.lock().unwrap();
        seen.taken.values().any(|message| message["type"] == "endpoint.disabled" && message["data"]["reason"] == "gone")
    })
    .await;
    let refused = dev.post(&format!("{path}/test"), "unused", 0, &json!({})).await.unwrap();
    assert_eq!((refused.status, &refused.body["code"]), (409, &json!("webhook_endpoint_disabled")));
    assert!(other.seen.lock().unwrap().wrong.is_empty());

    // Nobody makes this machine call another one inside.
    for url in ["http://10.0.0.1/", "https://169.254.169.254/latest", "https://localhost/", "ftp://hooks.shop.cn/"] {
        let refused = dev.post("/v1/webhooks/endpoints", url, 0, &json!({ "url": url })).await.unwrap();
        assert_eq!((refused.status, &refused.body["code"]), (422, &json!("webhook_url_refused")), "{url}");
    }
    dev.stop().unwrap();
}
