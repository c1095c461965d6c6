//! Canaries: what is private is in no message, log line, problem or public answer in plain text.

use std::{
    io,
    sync::{Arc, LazyLock},
};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;

use crate::{
    client::Req,
    doubles::Mood,
    world::{DIGEST, World},
};

/// Everything that was logged in this process.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

static LOG: LazyLock<Log> = LazyLock::new(|| {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone());
    tracing::subscriber::set_global_default(subscriber.finish()).unwrap();
    log
});

const CANARY: &str = "KANARIENVOGEL";

fn request(at: usize, confidential: bool) -> Value {
    let canary = |field: &str| format!("{CANARY}-{field}-{at}");
    json!({
        "digests": { "sha256": DIGEST },
        "title": canary("title"),
        "external_id": canary("external"),
        "confidential": confidential,
        "provenance": {
            "source": canary("source"), "device": canary("device"), "application": canary("app"),
            "operator": canary("operator"), "method": canary("method"), "time_source": canary("time"),
            "environment_checks": canary("env"), "tool_version": canary("tool"), "notes": canary("notes"),
        },
    })
}

fn holds(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|window| window == word.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn canaries_stay_in() {
    let log = LOG.clone();
    let world = World::start().await;
    let mut answers = Vec::new();
    for at in 0..50 {
        let key = format!("{CANARY}-key-{at}");
        answers.push(world.call(Req::post("/v1/evidence", &key).json(&request(at, at % 2 == 0))).await);
    }
    let items: Vec<Value> = (0..50)
        .map(|at| {
            let mut item = request(at, false);
            item["idempotency_key"] = json!(format!("{CANARY}-item-{at}"));
            item
        })
        .collect();
    answers.push(world.call(Req::post("/v1/evidence/batch", "-").json(&json!({ "items": items }))).await);
    let case = json!({ "title": format!("{CANARY}-case"), "external_id": format!("{CANARY}-case-id") });
    answers.push(world.call(Req::post("/v1/cases", "case").json(&case)).await);
    assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 202)));
    assert_eq!(world.published(), 101);
    world.commit().await;

    // Refusals of every kind with canaries in every place.
    let mut bad = request(0, false);
    bad["size"] = json!(-1);
    bad[CANARY] = json!(CANARY);
    bad["title"] = json!(format!("{CANARY}\u{0}"));
    bad["digests"]["sha256"] = json!(CANARY);
    answers.push(world.call(Req::post("/v1/evidence", CANARY).json(&bad)).await);
    answers.push(world.call(Req::post("/v1/evidence", CANARY).body(format!("{{\"title\":\"{CANARY}"))).await);
    for path in
        ["/v1/evidence/", "/v1/operations/", "/v1/verify/sha256/", "/v1/entries/", "/errors/", "/log/tile/", "/"]
    {
        answers.push(world.get(&format!("{path}{CANARY}")).await);
    }
    for query in ["external_id=%00", "state=", "cursor=", "digest=", "from="] {
        answers.push(world.get(&format!("/v1/evidence?{query}{CANARY}")).await);
    }
    answers.push(world.send(Req::get("/v1/evidence").bearer(CANARY)).await);
    answers.push(world.call(Req::get("/v1/evidence?limit=x").set("X-Request-Id", format!("{CANARY} x"))).await);
    for mood in [Mood::Away, Mood::Full] {
        *world.queue.mood.lock() = mood;
        answers.push(world.call(Req::post("/v1/evidence", CANARY).json(&request(0, true))).await);
        *world.queue.mood.lock() = Mood::Well;
    }
    // What is public.
    answers.push(world.send(Req::get(&format!("/v1/verify/sha256/{DIGEST}?limit=200"))).await);
    for what in ["entry", "receipt", "proof"] {
        answers.push(world.send(Req::get(&format!("/v1/entries/2/{what}"))).await);
    }
    for path in ["blocks", "blocks/1", "entries/2", &format!("search?q={DIGEST}"), "network"] {
        answers.push(world.send(Req::get(&format!("/v1/{path}"))).await);
    }
    answers.push(world.send(Req::get("/log/tile/entries/000.p/103")).await);
    let shown = |answer: &crate::client::Res| {
        let text = answer.text();
        // A member's name is shown back to whoever sent it, when it looks like one.
        holds(text.replace(&format!("\"/{CANARY}\""), "").as_bytes(), CANARY)
    };
    let leaks: Vec<_> = answers
        .iter()
        .filter(|answer| shown(answer))
        .map(|leak| leak.text()[..2000.min(leak.body.len())].to_owned())
        .collect();
    assert_eq!(leaks, Vec::<String>::new());

    for message in world.queue.messages.lock().iter() {
        assert!(!holds(&message.encode(), CANARY));
    }
    assert!(world.store.privates.lock().values().all(|sealed| !holds(sealed, CANARY)));
    assert!(world.ledger.all_entries().iter().all(|entry| !holds(entry, CANARY)));
    let logged = log.0.lock().clone();
    assert!(logged.len() > 1000, "the log is watched");
    let lines = String::from_utf8_lossy(&logged);
    let leaks: Vec<_> = lines.lines().filter(|line| line.contains(CANARY)).collect();
    assert_eq!(leaks, Vec::<&str>::new());

    // The owner reads what it wrote.
    let page = world.get(&format!("/v1/evidence?external_id={CANARY}-external-1")).await.expect(200);
    assert_eq!(page["items"][0]["title"], format!("{CANARY}-title-1"));
}
