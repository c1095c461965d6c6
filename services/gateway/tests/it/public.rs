//! What anybody may read: look-ups, the log, the network, the documents.

use ledger_core::{
    hash::Hash32,
    merkle::{TreeSize, leaf_hash, root_at},
    tile::{decode_bundle, decode_hashes},
    verify::SignedCheckpoint,
};
use serde_json::{Value, json};

use crate::{
    client::Req,
    doubles::Mood,
    ledger::ORIGIN,
    world::{Builder, DIGEST, World, plain},
};

async fn open(world: &World, path: &str) -> Value {
    world.send(Req::get(path)).await.expect(200)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_is_found_with_everything_that_proves_it() {
    let world = World::start().await;
    for key in ["a", "b", "c"] {
        world.committed_evidence(key, &plain()).await;
    }
    let path = format!("/v1/verify/sha256/{DIGEST}");
    let found = open(&world, &path).await;
    assert_eq!(
        (&found["algorithm"], &found["digest"], &found["tree_size"]),
        (&json!("sha256"), &json!(DIGEST), &json!(5))
    );
    let records = found["records"].as_array().unwrap();
    assert_eq!(records.len(), 3);
    for (at, record) in records.iter().enumerate() {
        assert_eq!((&record["index"], &record["entry"]["digests"]["sha256"]), (&json!(at + 2), &json!(DIGEST)));
        let entry = world.send(Req::get(record["links"]["entry"].as_str().unwrap())).await;
        assert_eq!(entry.body, world.ledger.all_entries()[at + 2]);
        assert!(entry.header("cache-control").unwrap().contains("immutable"));
        let receipt = world.send(Req::get(record["links"]["receipt"].as_str().unwrap())).await;
        let verdict =
            ledger_core::verify::verify(None, &entry.body, &receipt.body, world.ledger.policy_text().as_bytes());
        assert_eq!(verdict.word(), "VALID");
        let zip = world.send(Req::get(record["links"]["proof"].as_str().unwrap())).await;
        assert_eq!((zip.status, &zip.body[..2]), (200, &b"PK"[..]));
        assert!(record["block"]["hash"].is_string() && record["checkpoint"]["root"].is_string());
    }
    let page = open(&world, &format!("{path}?limit=2")).await;
    let rest = open(&world, &format!("{path}?limit=2&cursor={}", page["next_cursor"].as_str().unwrap())).await;
    assert_eq!((page["records"].as_array().unwrap().len(), &rest["records"][0]["index"]), (2, &json!(4)));
    assert!(rest.get("next_cursor").is_none());

    let none = open(&world, &format!("/v1/verify/sm3/{DIGEST}")).await;
    assert_eq!(none["records"], json!([]));
    assert!(none["statement"].as_str().unwrap().contains(DIGEST));
    let batch =
        json!({ "items": [{ "algorithm": "sha256", "digest": DIGEST }, { "algorithm": "sm3", "digest": DIGEST }] });
    let req = Req::new("POST", "/v1/verify/batch").header("Content-Type", "application/json").json(&batch);
    let both = world.send(req).await.expect(200);
    assert_eq!((&both["items"][0]["records"][0]["index"], &both["items"][1]), (&json!(2), &none));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_served_as_tiles_that_rebuild_its_root() {
    let world = Builder {
        config: chopmark_gateway::GatewayConfig { log_limit: None, ..Default::default() },
        ..Builder::default()
    }
    .start()
    .await;
    let entries = (0..600).map(|at| format!("{{\"n\":{at}}}").into_bytes()).collect();
    world.ledger.append(entries, 1_795_334_500_000);
    let checkpoint = world.send(Req::get("/log/checkpoint")).await;
    assert_eq!(checkpoint.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(checkpoint.header("cache-control"), Some("no-cache"));
    let signed = SignedCheckpoint::parse(&checkpoint.text()).unwrap().checkpoint;
    assert_eq!((signed.size, signed.origin.as_str()), (TreeSize(602), ORIGIN));

    let tile = async |path: &str| {
        let res = world.send(Req::get(&format!("/log/tile/{path}"))).await;
        assert_eq!((res.status, res.header("content-type")), (200, Some("application/octet-stream")), "{path}");
        let forever = res.header("cache-control").unwrap().contains("immutable");
        assert_eq!(forever, !path.contains(".p/"), "{path}");
        res.body
    };
    let mut leaves: Vec<Hash32> = Vec::new();
    for (path, width) in [("0/000", 256), ("0/001", 256), ("0/002.p/90", 90)] {
        let hashes = decode_hashes(&tile(path).await, width).unwrap();
        let bundle = tile(&path.replacen('0', "entries", 1)).await;
        let entries = decode_bundle(&bundle, width).unwrap();
        assert!(entries.iter().zip(&hashes).all(|(entry, hash)| leaf_hash(entry) == *hash));
        leaves.extend(hashes);
    }
    assert_eq!(root_at(signed.size, &leaves[..]).unwrap(), signed.root);
    let level_1 = decode_hashes(&tile("1/000.p/2").await, 2).unwrap();
    assert_eq!(level_1[0], root_at(TreeSize(256), &leaves[..256]).unwrap());
    let policy = world.send(Req::get("/log/policy")).await;
    assert_eq!(policy.text(), world.ledger.policy_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_shows_its_members_and_keys() {
    let world = World::start().await;
    let network = open(&world, "/v1/network").await;
    assert_eq!(
        (&network["network"], &network["origin"], &network["quorum"]),
        (&json!("sandbox"), &json!(ORIGIN), &json!(1))
    );
    assert_eq!(network["chain_id"], "09".repeat(32));
    let member = &network["members"][0];
    assert_eq!(member["name"], "operator.example");
    for (key, name) in [
        ("log_key", ORIGIN),
        ("cosigner_key", "operator.example/cosigner"),
        ("statement_key", "operator.example/statement"),
    ] {
        assert!(member[key].as_str().unwrap().starts_with(&format!("{name}+")), "{member}");
    }
    assert_eq!(network["checkpoint"]["time"], "2026-11-22T08:00:00.000Z");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_problem_code_has_its_page() {
    let world = World::start().await;
    for code in chopmark_api::ProblemCode::ALL {
        let page = world.send(Req::get(&format!("/errors/{}", code.as_str()))).await;
        assert_eq!((page.status, page.header("content-type")), (200, Some("text/markdown; charset=utf-8")));
        assert!(page.text().contains(code.as_str()) && page.text().contains("中文"));
    }
    let html = world.send(Req::get("/errors/body_not_json").header("Accept", "text/html,*/*;q=0.8")).await;
    assert_eq!(html.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(html.text().starts_with("<!doctype html>"));
    assert!(world.send(Req::get("/errors")).await.text().contains("queue_full"));
    let openapi = world.send(Req::get("/openapi.yaml")).await;
    assert_eq!((openapi.status, openapi.header("content-type")), (200, Some("application/yaml")));
    assert!(openapi.text().contains("openapi: \"3.1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_are_apart() {
    let world = World::start().await;
    assert_eq!(open(&world, "/health/live").await["status"], "ok");
    let metrics = Req::get("/metrics").send(world.internal).await;
    assert_eq!((metrics.status, metrics.text().as_str()), (200, "# TYPE test gauge\ntest 1\n"));
    assert_eq!(Req::get("/v1/network").send(world.internal).await.expect(404)["code"], "route_not_found");
    *world.ledger.away.lock() = true;
    let ready = Req::get("/health/ready").send(world.internal).await.expect(200);
    assert_eq!((&ready["status"], &ready["checks"][1]["code"]), (&json!("degraded"), &json!("ledger_unavailable")));
    assert_eq!(world.send(Req::get("/v1/network")).await.expect(503)["code"], "ledger_unavailable");
    // Without the ledger, writes and states still work.
    let accepted = world.call(world.evidence("k")).await.expect(202);
    world.get(accepted["operation"]["href"].as_str().unwrap()).await.expect(200);
    *world.ledger.away.lock() = false;
    *world.store.mood.lock() = Mood::Away;
    assert_eq!(Req::get("/health/ready").send(world.internal).await.expect(503)["status"], "unavailable");
    // Without the database, what is public still works.
    open(&world, &format!("/v1/verify/sha256/{DIGEST}")).await;
    assert_eq!(world.get("/v1/evidence").await.expect(503)["code"], "database_unavailable");
}
