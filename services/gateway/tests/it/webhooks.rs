//! Webhooks: endpoints and deliveries as their tenant sees them. What is sent is the courier's.

use chopmark_domain::{
    id::ResourceKey,
    ports::DeliveryStore as _,
    tenant::Scope,
    webhook::{AttemptOutcome, AttemptRow, NextStep},
};
use serde_json::{Value, json};

use crate::{client::Req, world::World};

const URL: &str = "https://hooks.shop.cn/chopmark";
const ENDPOINTS: &str = "/v1/webhooks/endpoints";

fn create(key: &str, body: &Value) -> Req {
    Req::post(ENDPOINTS, key).json(body)
}

fn patch(path: &str, body: &Value) -> Req {
    Req::new("PATCH", path).header("Content-Type", "application/json").json(body)
}

fn path_of(endpoint: &Value) -> String {
    format!("{ENDPOINTS}/{}", endpoint["id"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_lives() {
    let world = World::start().await;
    let body = json!({ "url": URL, "events": ["evidence.committed", "case.rejected"], "description": "订单" });
    let res = world.call(create("first", &body)).await;
    let made = res.expect(201);
    assert_eq!(res.header("location"), Some(path_of(&made).as_str()));
    assert!(made["secret"].as_str().unwrap().starts_with("whsec_"));
    assert_eq!((&made["url"], &made["events"], &made["state"]), (&body["url"], &body["events"], &json!("enabled")));
    // The same again is the same; another request under the key is not.
    assert_eq!(world.call(create("first", &body)).await.expect(201), made);
    let conflict = world.call(create("first", &json!({ "url": URL }))).await.expect(422);
    assert_eq!(conflict["code"], "idempotency_conflict");

    let path = path_of(&made);
    let mut shown = made.clone();
    shown.as_object_mut().unwrap().remove("secret");
    assert_eq!(world.get(&path).await.expect(200), shown);
    assert_eq!(world.get(ENDPOINTS).await.expect(200)["items"], json!([shown]));

    let changed = world.call(patch(&path, &json!({ "enabled": false, "events": ["endpoint.test"] }))).await.expect(200);
    assert_eq!((&changed["state"], &changed["events"]), (&json!("disabled"), &json!(["endpoint.test"])));
    assert!(changed["disabled_at"].is_string() && changed.get("secret").is_none());
    let refused = world.call(Req::post(&format!("{path}/test"), "unused")).await.expect(409);
    assert_eq!(refused["code"], "webhook_endpoint_disabled");
    let back = world.call(patch(&path, &json!({ "enabled": true }))).await.expect(200);
    assert!(back["state"] == "enabled" && back.get("disabled_at").is_none());

    let rotated = world.call(Req::post(&format!("{path}/secret"), "r1").json(&json!({}))).await.expect(200);
    assert_ne!(rotated["secret"], made["secret"]);
    assert!(rotated["previous_secret_until"].is_string());
    let again = world.call(Req::post(&format!("{path}/secret"), "r1").json(&json!({}))).await.expect(200);
    assert_eq!(again, rotated);

    assert_eq!(world.call(Req::new("DELETE", &path)).await.status, 204);
    assert_eq!(world.get(&path).await.expect(404)["code"], "webhook_endpoint_not_found");
    assert_eq!(world.call(Req::new("DELETE", &path)).await.expect(404)["code"], "webhook_endpoint_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named() {
    let world = World::start().await;
    for (body, code, place) in [
        (json!({}), "field_missing", "/url"),
        (json!({ "url": "http://10.0.0.1/" }), "webhook_url_refused", "/url"),
        (json!({ "url": URL, "events": [] }), "webhook_events_empty", "/events"),
        (json!({ "url": URL, "events": ["evidence.committed", "evidence.*"] }), "webhook_event_unknown", "/events/1"),
        (json!({ "url": URL, "secret": "mine" }), "unknown_field", "/secret"),
    ] {
        let problem = world.call(create("wrong", &body)).await.expect(422);
        assert_eq!((&problem["code"], &problem["errors"][0]["pointer"]), (&json!(code), &json!(place)), "{body}");
    }
    let endpoint = world.call(create("good", &json!({ "url": URL }))).await.expect(201);
    let replay = format!("{}/replay", path_of(&endpoint));
    for (body, code) in [
        (json!({ "from": "2026-01-01T00:00:00Z" }), "field_missing"),
        (json!({ "from": "yesterday", "to": "2026-01-01T00:00:00Z" }), "time_malformed"),
        (json!({ "from": "2026-01-01T00:00:00Z", "to": "2026-01-01T00:00:00Z" }), "time_range_invalid"),
        (
            json!({ "from": "2025-01-01T00:00:00Z", "to": "2026-01-01T00:00:00Z", "state": "pending" }),
            "webhook_state_unknown",
        ),
    ] {
        assert_eq!(world.call(Req::post(&replay, "unused").json(&body)).await.json()["code"], code, "{body}");
    }
    for (query, code) in [
        ("state=gone", "query_parameter_invalid"),
        ("endpoint_id=whe_x", "id_malformed"),
        ("colour=red", "query_parameter_unknown"),
        ("from=2026-01-01T00:00:00Z&to=2026-01-01T00:00:00Z", "time_range_invalid"),
        ("cursor=aaaa", "cursor_invalid"),
    ] {
        assert_eq!(world.get(&format!("/v1/webhooks/deliveries?{query}")).await.json()["code"], code, "{query}");
    }
    for number in 1..16 {
        world.call(create(&format!("e{number}"), &json!({ "url": URL }))).await.expect(201);
    }
    let problem = world.call(create("one too many", &json!({ "url": URL }))).await;
    assert_eq!(problem.json()["code"], "idempotency_key_invalid", "a space");
    let problem = world.call(create("one-too-many", &json!({ "url": URL }))).await.expect(409);
    assert_eq!(problem["code"], "webhook_endpoints_too_many");
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_are_read_and_sent_again() {
    let world = World::start().await;
    let endpoint = world.call(create("first", &json!({ "url": URL }))).await.expect(201);
    let path = path_of(&endpoint);
    let mut tests = Vec::new();
    for _ in 0..3 {
        let res = world.call(Req::post(&format!("{path}/test"), "unused")).await;
        let id = res.expect(202)["delivery_id"].as_str().unwrap().to_owned();
        assert_eq!(res.header("location"), Some(format!("/v1/webhooks/deliveries/{id}").as_str()));
        tests.push(id);
    }
    // A courier takes the first, which fails.
    let due = world.webhooks.due_endpoints("sandbox", u64::MAX).await.unwrap();
    let name = ResourceKey([1; 16]);
    let now = i64::MAX as u64 - 1;
    let claimed = world.webhooks.claim("sandbox", &due[0], name, (now, now), 1).await.unwrap();
    let attempt = AttemptRow {
        at: 1_795_334_400_000,
        number: 1,
        outcome: AttemptOutcome::Failed,
        status: Some(503),
        detail: "503 Service Unavailable".to_owned(),
        took_ms: 7,
    };
    assert!(world.webhooks.record(&claimed[0], attempt, NextStep::Dead).await.unwrap());

    let dead = world.get("/v1/webhooks/deliveries?state=dead").await.expect(200);
    let dead_id = dead["items"][0]["id"].as_str().unwrap();
    assert_eq!((dead["items"].as_array().unwrap().len(), dead_id), (1, tests[0].as_str()));
    let read = world.get(&format!("/v1/webhooks/deliveries/{dead_id}")).await.expect(200);
    assert_eq!((&read["event_type"], &read["endpoint_id"]), (&json!("endpoint.test"), &endpoint["id"]));
    assert_eq!(
        read["log"],
        json!([{ "at": "2026-11-22T08:00:00.000Z", "number": 1, "outcome": "failed", "status": 503,
            "detail": "503 Service Unavailable", "took_ms": 7 }])
    );
    let again = world.call(Req::post(&format!("/v1/webhooks/deliveries/{dead_id}/replay"), "unused")).await.expect(202);
    assert_eq!(
        (&again["state"], &again["attempts"], &again["event_id"]),
        (&json!("pending"), &json!(0), &read["event_id"])
    );

    let first = world.get("/v1/webhooks/deliveries?limit=2").await.expect(200);
    let cursor = first["next_cursor"].as_str().unwrap();
    let rest = world.get(&format!("/v1/webhooks/deliveries?limit=2&cursor={cursor}")).await.expect(200);
    assert!(rest.get("next_cursor").is_none());
    let items = [&first, &rest].into_iter().flat_map(|page| page["items"].as_array().unwrap());
    let ids: Vec<_> = items.map(|item| item["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [&tests[2], &tests[1], &tests[0]]);
    let other_query = world.get(&format!("/v1/webhooks/deliveries?state=dead&cursor={cursor}")).await;
    assert_eq!(other_query.json()["code"], "cursor_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_sees_them() {
    let world = World::start().await;
    let endpoint = world.call(create("first", &json!({ "url": URL }))).await.expect(201);
    let path = path_of(&endpoint);
    let test = world.call(Req::post(&format!("{path}/test"), "unused")).await.expect(202);
    let delivery = format!("/v1/webhooks/deliveries/{}", test["delivery_id"].as_str().unwrap());
    let other = world.add_key("ten_two", &[Scope::Read, Scope::Write], |_| {});
    let reader = world.add_key("ten_one", &[Scope::Read], |_| {});
    let range = json!({ "from": "2020-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z" });
    let requests = [
        (Req::get(&path), "webhook_endpoint_not_found"),
        (patch(&path, &json!({ "enabled": false })), "webhook_endpoint_not_found"),
        (Req::new("DELETE", &path), "webhook_endpoint_not_found"),
        (Req::post(&format!("{path}/secret"), "r").json(&json!({})), "webhook_endpoint_not_found"),
        (Req::post(&format!("{path}/test"), "t"), "webhook_endpoint_not_found"),
        (Req::post(&format!("{path}/replay"), "t").json(&range), "webhook_endpoint_not_found"),
        (Req::get(&delivery), "webhook_delivery_not_found"),
        (Req::post(&format!("{delivery}/replay"), "t"), "webhook_delivery_not_found"),
    ];
    for (req, code) in requests {
        let refused = world.send(req.clone().bearer(&other)).await.expect(404);
        assert_eq!(refused["code"], code, "{} {}", req.method, req.path);
        if req.method != "GET" {
            assert_eq!(world.send(req.bearer(&reader)).await.expect(403)["code"], "api_key_scope_missing");
        }
    }
    for list in [ENDPOINTS, "/v1/webhooks/deliveries"] {
        assert_eq!(world.send(Req::get(list).bearer(&other)).await.expect(200)["items"], json!([]));
    }
    assert_eq!(world.get(&path).await.expect(200)["state"], "enabled");
}
