//! One key, one operation, however often and however badly it is sent.

use std::{sync::atomic::Ordering, time::Duration};

use serde_json::json;

use crate::{
    client::Req,
    doubles::Mood,
    world::{DIGEST, World, plain},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_at_once_get_one_answer() {
    let world = World::start().await;
    *world.queue.delay.lock() = Duration::from_millis(50);
    let requests: Vec<_> = (0..100)
        .map(|_| {
            tokio::spawn({
                let req = world.evidence("same").bearer(&world.key);
                let address = world.address;
                async move { req.send(address).await }
            })
        })
        .collect();
    let mut answers = Vec::new();
    for request in requests {
        answers.push(request.await.unwrap().expect(202));
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
    let ops: Vec<_> = world.queue.messages.lock().iter().map(|message| message.op).collect();
    assert!(ops.iter().all(|op| *op == ops[0]) && !ops.is_empty());
    // Slices share a publication, so there are far fewer than requests.
    assert!(world.queue.publications.load(Ordering::Relaxed) < 100);
    world.commit().await;
    assert_eq!(world.ledger.size(), 3);
    let late = world.call(world.evidence("same")).await.expect(201);
    assert_eq!((&late["id"], &late["operation"]["id"]), (&answers[0]["id"], &answers[0]["operation"]["id"]));
    assert_eq!(late["operation"]["state"], "committed");
}

#[tokio::test(flavor = "multi_thread")]
async fn repeats_survive_an_empty_cache_and_a_cache_that_is_away() {
    let world = World::start().await;
    let first = world.call(world.evidence("k")).await.expect(202);
    world.cache.forget();
    let second = world.call(world.evidence("k")).await.expect(202);
    assert_eq!(first, second);
    world.commit().await;
    world.cache.forget();
    *world.cache.mood.lock() = Mood::Away;
    let other = Req::post("/v1/evidence", "k").json(&json!({ "digests": { "sm3": DIGEST } }));
    assert_eq!(world.call(other).await.expect(422)["code"], "idempotency_conflict");
    world.call(world.evidence("k")).await.expect(201);
    world.call(world.evidence("new")).await.expect(202);
    assert_eq!(world.ledger.size(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_says_the_same_in_other_words() {
    let world = World::start().await;
    let first = world.call(world.evidence("k")).await.expect(202);
    let same = format!(r#" {{ "provenance":{{}}, "confidential":false , "digests":{{"sha256":"{DIGEST}"}} }} "#);
    assert_eq!(world.call(Req::post("/v1/evidence", "k").body(same)).await.expect(202), first);
    let more = json!({ "digests": { "sha256": DIGEST }, "confidential": true });
    let other = world.call(Req::post("/v1/evidence", "k").json(&more)).await;
    assert_eq!(other.expect(422)["code"], "idempotency_conflict");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_that_is_not_durable() {
    let world = World::start().await;
    for (mood, code) in [(Mood::Away, "queue_unavailable"), (Mood::Full, "queue_full"), (Mood::DiskFull, "disk_full")] {
        *world.queue.mood.lock() = mood;
        let res = world.call(world.evidence("k")).await;
        assert_eq!(res.expect(503)["code"], code);
        assert!(res.header("retry-after").is_some());
        let items = json!({ "items": [{ "idempotency_key": "b", "digests": { "sha256": DIGEST } }] });
        let batch = world.call(Req::post("/v1/evidence/batch", "-").json(&items)).await;
        assert_eq!(batch.expect(503)["code"], code);
        let ready = world.get("/health/ready").await.expect(200);
        assert_eq!(ready["status"], "degraded");
    }
    *world.queue.mood.lock() = Mood::Well;
    assert_eq!(world.published(), 0);
    // The claim of the failed attempt does not stand in its own way.
    world.call(world.evidence("k")).await.expect(202);
    assert_eq!(world.get("/health/ready").await.expect(200)["status"], "ok");
    *world.store.mood.lock() = Mood::Away;
    assert_eq!(world.call(world.evidence("other")).await.expect(503)["code"], "database_unavailable");
    world.get("/health/ready").await.expect(503);
    assert_eq!(world.published(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_two_gateways_took_two_requests_the_loser_learns_it() {
    let world = World::start().await;
    let first = world.call(world.evidence("k")).await.expect(202);
    // A second gateway with an empty cache, before any committer has seen the first request.
    world.cache.forget();
    let other = Req::post("/v1/evidence", "k").json(&json!({ "digests": { "sm3": DIGEST } }));
    let second = world.call(other.clone()).await.expect(202);
    assert_eq!(first["id"], second["id"]);
    world.commit().await;
    let operation = first["operation"]["href"].as_str().unwrap();
    let operation = world.get(operation).await.expect(200);
    assert_eq!(operation["state"], "committed");
    assert_eq!(operation["warnings"][0]["code"], "idempotency_conflict");
    assert_eq!(world.call(other).await.expect(422)["code"], "idempotency_conflict");
    assert_eq!(world.call(world.evidence("k")).await.expect(201)["digests"], plain()["digests"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_is_known_whatever_else_came_under_its_key() {
    let world = World::start().await;
    let first = world.call(world.evidence("k")).await.expect(202);
    let item = |algorithm: &str, size: Option<u64>| {
        let mut item = plain();
        item["idempotency_key"] = json!("k");
        item["digests"] = json!({ algorithm: DIGEST });
        size.into_iter().for_each(|size| item["size"] = json!(size));
        item
    };
    let repeat = || {
        let mut repeat = plain();
        repeat["idempotency_key"] = json!("k");
        repeat
    };
    // Before a committer has seen it, and after.
    for status in [202, 201] {
        let items = json!({ "items": [item("sm3", None), repeat(), item("sm3", Some(7)), repeat()] });
        let answer = world.call(Req::post("/v1/evidence/batch", "-").json(&items)).await.expect(200);
        let items = answer["items"].as_array().unwrap();
        let statuses: Vec<_> = items.iter().map(|item| item["status"].as_u64().unwrap()).collect();
        assert_eq!(statuses, [422, status, 422, status]);
        assert!(items[1]["id"] == first["id"] && items[3]["id"] == first["id"]);
        assert_eq!(items[2]["problem"]["errors"][0]["pointer"], "/items/2/idempotency_key");
        world.commit().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn within_a_batch_a_key_means_one_request_too() {
    let world = World::start().await;
    let item = |key: &str, algorithm: &str| json!({ "idempotency_key": key, "digests": { algorithm: DIGEST } });
    let items = [item("a", "sha256"), item("b", "sha256"), item("a", "sha256"), item("a", "sm3"), item("c", "sm3")];
    let answer = world.call(Req::post("/v1/evidence/batch", "-").json(&json!({ "items": items }))).await.expect(200);
    let items = answer["items"].as_array().unwrap();
    let statuses: Vec<_> = items.iter().map(|item| item["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [202, 202, 202, 422, 202]);
    assert_eq!((&items[0]["id"], &items[3]["problem"]["code"]), (&items[2]["id"], &json!("idempotency_conflict")));
    assert_eq!((world.published(), world.queue.publications.load(Ordering::Relaxed)), (3, 1));
    // A batch item and a single request share the key.
    let single = world.call(world.evidence("b")).await.expect(202);
    assert_eq!(single["id"], items[1]["id"]);
}
