//! Limits: rates, memory, uploads, shutting down, and revocation.

use std::time::Duration;

use chopmark_domain::{
    quota::{Limits, Rate},
    tenant::Scope,
};
use chopmark_gateway::GatewayConfig;
use serde_json::json;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::sleep};

use crate::{
    client::Req,
    world::{Builder, DIGEST, World},
};

async fn with(config: GatewayConfig) -> World {
    Builder { config, ..Builder::default() }.start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_key_has_its_rate() {
    let world = with(GatewayConfig { key_limit: Some(Rate::new(1, 3)), ..GatewayConfig::default() }).await;
    for left in ["2", "1", "0"] {
        let res = world.get("/v1/evidence").await;
        assert_eq!(res.status, 200);
        assert_eq!(res.header("ratelimit-policy"), Some("\"key\";q=3;w=3"));
        assert_eq!(res.header("ratelimit"), Some(format!("\"key\";r={left};t=1").as_str()));
    }
    let res = world.get("/v1/evidence").await;
    assert_eq!(res.expect(429)["code"], "rate_limited");
    assert_eq!(res.header("retry-after"), Some("1"));
    assert_eq!(res.header("ratelimit"), Some("\"key\";r=0;t=1"));
    // Another key, and the public, have their own.
    let other = world.add_key("ten_two", &[Scope::Read], |_| ());
    world.send(Req::get("/v1/evidence").bearer(&other)).await.expect(200);
    world.send(Req::get("/v1/network")).await.expect(200);
    sleep(Duration::from_millis(1100)).await;
    world.get("/v1/evidence").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_its_rate_and_so_has_guessing_keys() {
    let limit = Some(Rate::new(1, 3));
    let world = with(GatewayConfig { public_limit: limit, log_limit: limit, ..GatewayConfig::default() }).await;
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(world.send(Req::get("/v1/evidence").header("Authorization", "Bearer x")).await.status);
    }
    assert_eq!(statuses, [401, 401, 401, 429, 429]);
    let res = world.send(Req::get(&format!("/v1/verify/sha256/{DIGEST}"))).await;
    assert_eq!(res.expect(429)["code"], "rate_limited");
    // The log and good keys are not held up by it.
    world.get("/v1/evidence").await.expect(200);
    for status in [200, 200, 200, 429] {
        assert_eq!(world.send(Req::get("/log/policy")).await.status, status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_proxies_the_client_is_who_they_saw() {
    let limit = Some(Rate::new(1, 1));
    let world = with(GatewayConfig { public_limit: limit, trusted_proxies: 1, ..GatewayConfig::default() }).await;
    let from = |forwarded: &str| world.send(Req::get("/v1/network").header("X-Forwarded-For", forwarded));
    from("192.0.2.1").await.expect(200);
    from("192.0.2.2").await.expect(200);
    // What the client wrote itself stands further left and counts for nothing.
    assert_eq!(from("192.0.2.9, 192.0.2.1").await.status, 429);
    assert_eq!(from("192.0.2.2").await.status, 429);
    from("2001:db8::1").await.expect(200);
    assert_eq!(from("2001:db8::2").await.status, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_under_way_are_bounded() {
    let world = with(GatewayConfig { bodies_bytes_max: 64 * 1024, ..GatewayConfig::default() }).await;
    let held = |length: usize| {
        let req = Req::post("/v1/evidence", "slow").bearer(&world.key).header("Content-Length", length.to_string());
        req.encode()
    };
    let mut slow = TcpStream::connect(world.address).await.unwrap();
    slow.write_all(&held(10_000)).await.unwrap();
    sleep(Duration::from_millis(200)).await;
    let res = world.call(world.evidence("k")).await;
    assert_eq!(res.expect(503)["code"], "overloaded");
    assert!(res.header("retry-after").is_some());
    // Reading goes on, and room is given back.
    world.get("/v1/evidence").await.expect(200);
    drop(slow);
    for _ in 0..50 {
        if world.call(world.evidence("k")).await.status == 202 {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("room is never given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_under_way_are_bounded() {
    let world = with(GatewayConfig { uploads_max: 1, ..GatewayConfig::default() }).await;
    let form = |key: &str| {
        Req::post("/v1/evidence/files", key).set("Content-Type", "multipart/form-data; boundary=XX").bearer(&world.key)
    };
    let mut slow = TcpStream::connect(world.address).await.unwrap();
    slow.write_all(&form("slow").header("Content-Length", "1000").encode()).await.unwrap();
    sleep(Duration::from_millis(200)).await;
    let body = "--XX\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nx\r\n--XX--\r\n";
    assert_eq!(world.send(form("k").body(body)).await.expect(503)["code"], "overloaded");
    world.call(world.evidence("k2")).await.expect(202);
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_refuses_what_is_new() {
    let world = World::start().await;
    let waiting = tokio::spawn({
        let (req, address) = (world.evidence("k").header("Prefer", "wait=10").bearer(&world.key), world.address);
        async move { req.send(address).await }
    });
    while world.published() == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    world.stopper.drain();
    assert_eq!(world.get("/v1/evidence").await.expect(503)["code"], "shutting_down");
    world.send(Req::get("/health/ready")).await.expect(503);
    world.send(Req::get("/health/live")).await.expect(200);
    // What has begun is finished.
    world.commit().await;
    waiting.await.unwrap().expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_stops_working_within_the_life_of_the_cache() {
    let world = Builder { key_cache_ttl: Some(Duration::from_millis(300)), ..Builder::default() }.start().await;
    world.get("/v1/evidence").await.expect(200);
    for key in world.store.keys.lock().iter_mut() {
        key.revoked_at = Some(1);
    }
    sleep(Duration::from_millis(400)).await;
    assert_eq!(world.get("/v1/evidence").await.expect(401)["code"], "api_key_revoked");
    let items = json!({ "items": [{ "idempotency_key": "b", "digests": { "sha256": DIGEST } }] });
    world.call(Req::post("/v1/evidence/batch", "-").json(&items)).await.expect(401);
    assert_eq!(world.published(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_keys_share_its_rate() {
    let limits = Limits { rate: Some(Rate::new(1, 3)), records_per_day: None };
    let world = Builder { limits, ..Builder::default() }.start().await;
    let second = world.add_key("ten_one", &[Scope::Read], |_| ());
    let other = world.add_key("ten_two", &[Scope::Read], |_| ());
    let get = |key: &str| world.send(Req::get("/v1/evidence").bearer(key));
    let res = world.get("/v1/evidence").await;
    assert_eq!(res.header("ratelimit-policy"), Some("\"key\";q=20000;w=2, \"tenant\";q=3;w=3"));
    assert_eq!(res.header("ratelimit"), Some("\"key\";r=19999;t=1, \"tenant\";r=2;t=1"));
    get(&second).await.expect(200);
    get(&second).await.expect(200);
    let res = world.get("/v1/evidence").await;
    assert_eq!(res.expect(429)["code"], "rate_limited");
    assert_eq!(res.header("ratelimit"), Some("\"tenant\";r=0;t=1"));
    assert!(res.header("retry-after").is_some());
    get(&other).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_has_its_records_of_the_day() {
    let limits = Limits { rate: None, records_per_day: Some(3) };
    let world = Builder { limits, ..Builder::default() }.start().await;
    let item = |key: &str| json!({ "idempotency_key": key, "digests": { "sha256": DIGEST } });
    let batch = |keys: [&str; 3]| json!({ "items": keys.map(item) });
    let send = async |body| world.call(Req::post("/v1/evidence/batch", "-").json(&body)).await.expect(200);
    let statuses = |answer: &serde_json::Value| {
        let items = answer["items"].as_array().into_iter().flatten();
        items.map(|item| item["status"].as_u64().unwrap_or_default()).collect::<Vec<_>>()
    };
    assert_eq!(statuses(&send(batch(["a", "b", "a"])).await), [202, 202, 202]);
    // What is known already costs nothing; of the rest as much as is left.
    let answer = send(batch(["a", "c", "d"])).await;
    assert_eq!(statuses(&answer), [202, 202, 429]);
    assert_eq!(answer["items"][2]["problem"]["code"], "quota_exceeded");
    let res = world.call(Req::post("/v1/evidence", "e").json(&json!({ "digests": { "sha256": DIGEST } }))).await;
    assert_eq!(res.expect(429)["code"], "quota_exceeded");
    let wait: u64 = res.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=86_400).contains(&wait), "{wait} s");
    assert_eq!(world.published(), 3);
    world.get("/v1/evidence").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_may_be_bound_to_networks() {
    let world = with(GatewayConfig { trusted_proxies: 1, ..GatewayConfig::default() }).await;
    let networks = ["192.0.2.0/24", "2001:db8::/32"];
    let allowed = networks.map(|network| network.parse().unwrap()).to_vec();
    let key = world.add_key("ten_one", &[Scope::Read], |row| row.allowed = allowed);
    let from = |address: &str| world.send(Req::get("/v1/evidence").bearer(&key).header("X-Forwarded-For", address));
    for address in ["192.0.2.7", "::ffff:192.0.2.7", "2001:db8:1::1"] {
        from(address).await.expect(200);
    }
    for address in ["192.0.3.7", "2001:db9::1", "nonsense"] {
        assert_eq!(from(address).await.expect(403)["code"], "api_key_address_not_allowed");
    }
    // Without a proxy's word it is the peer that counts.
    assert_eq!(world.send(Req::get("/v1/evidence").bearer(&key)).await.status, 403);
}
