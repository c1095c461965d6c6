//! What anybody may look through: blocks, entries by place and id, searches, policies.

use ledger_core::{block::Header, entry::entry_id, outcome::RejectionCode};
use serde_json::{Value, json};

use crate::{
    client::Req,
    world::{DIGEST, World, plain},
};

async fn open(world: &World, path: &str) -> Value {
    world.send(Req::get(path)).await.expect(200)
}

/// Two blocks with an entry each, leaves 2 and 3, and one with a rejection alone.
async fn explored() -> World {
    let world = World::start().await;
    for key in ["a", "b"] {
        world.committed_evidence(key, &plain()).await;
    }
    world.reject_next(RejectionCode::TenantSuspended);
    world.committed_evidence("c", &plain()).await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_are_listed_newest_first() {
    let world = explored().await;
    let page = open(&world, "/v1/blocks?limit=2").await;
    let items = page["items"].as_array().unwrap();
    let figures = |item: &Value| {
        ["height", "tree_size", "entries", "operations", "committed", "rejected"]
            .map(|name| item[name].as_u64().unwrap())
    };
    assert_eq!(items.iter().map(figures).collect::<Vec<_>>(), [[3, 4, 0, 1, 0, 1], [2, 4, 1, 1, 1, 0]]);
    assert!(items.iter().all(|item| item["time"].as_str().unwrap().ends_with('Z')));
    let next = page["next_cursor"].as_str().unwrap();
    let rest = open(&world, &format!("/v1/blocks?limit=2&cursor={next}")).await;
    let items = rest["items"].as_array().unwrap();
    assert_eq!((items.len(), figures(&items[0])), (1, [1, 3, 1, 1, 1, 0]));
    assert!(rest.get("next_cursor").is_none(), "the genesis is no block");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_is_shown_with_what_it_decided() {
    let world = explored().await;
    let block = open(&world, "/v1/blocks/2").await;
    let header = Header::parse(block["header"].to_string().as_bytes()).unwrap();
    assert_eq!(block["hash"], header.hash().to_string());
    assert_eq!(block["members"], header.members.to_string());
    assert_eq!((&block["certificate"]["value"], &block["certificate"]["height"]), (&block["hash"], &json!(2)));
    let outcomes = block["outcomes"].as_array().unwrap();
    let id = entry_id(&world.ledger.all_entries()[3]).to_string();
    assert_eq!((outcomes.len(), &outcomes[0]["state"], &outcomes[0]["index"]), (1, &json!("committed"), &json!(3)));
    assert_eq!(outcomes[0]["entry_id"], id);
    assert!(outcomes[0]["op"].is_string() && outcomes[0]["request"].is_string());
    let listed = open(&world, "/v1/blocks").await;
    for (name, value) in listed["items"][1].as_object().unwrap() {
        assert_eq!(block[name], *value, "{name}");
    }

    let block = open(&world, "/v1/blocks/3").await;
    let rejected = &block["outcomes"][0];
    assert_eq!((&rejected["state"], &rejected["code"]), (&json!("rejected"), &json!("tenant_suspended")));
    assert!(rejected.get("index").is_none() && rejected.get("entry_id").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_is_read_by_its_place_and_by_its_id() {
    let world = explored().await;
    let looked_up = open(&world, &format!("/v1/verify/sha256/{DIGEST}")).await;
    for (at, entry) in world.ledger.all_entries().iter().enumerate() {
        let record = open(&world, &format!("/v1/entries/{at}")).await;
        let id = entry_id(entry).to_string();
        for id in [&id, &id.to_uppercase()] {
            assert_eq!(open(&world, &format!("/v1/entries/{id}")).await, record);
        }
        assert_eq!(record["entry"], serde_json::from_slice::<Value>(entry).unwrap());
        // Nobody decided the genesis.
        match at.checked_sub(2) {
            Some(found) => assert_eq!(record, looked_up["records"][found]),
            None => assert!(record.get("block").is_none()),
        }
        open(&world, record["links"]["entry"].as_str().unwrap()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_leads_to_blocks_entries_digests_and_members() {
    let world = explored().await;
    let evidence = world.get("/v1/evidence?limit=1").await.expect(200)["items"][0]["id"].clone();
    let id = entry_id(&world.ledger.all_entries()[3]).to_string();
    let block = |height: u64| json!({ "kind": "block", "height": height, "href": format!("/v1/blocks/{height}") });
    let entry = |index: u64| json!({ "kind": "entry", "index": index, "href": format!("/v1/entries/{index}") });
    let digest = json!({
        "kind": "digest", "algorithm": "sha256", "digest": DIGEST, "href": format!("/v1/verify/sha256/{DIGEST}"),
    });
    let member = json!({ "kind": "member", "name": "operator.example", "href": "/v1/network" });
    for (query, hits) in [
        ("0", vec![entry(0)]),
        ("3", vec![block(3), entry(3)]),
        ("4", vec![]),
        ("03", vec![]),
        (&id, vec![entry(3)]),
        (DIGEST, vec![digest.clone()]),
        (&DIGEST.to_uppercase(), vec![digest]),
        ("operator.example", vec![member.clone()]),
        ("Operator.Example", vec![member]),
        ("other.example", vec![]),
        // By design: which entry it stands for is in the database alone.
        (evidence.as_str().unwrap(), vec![]),
        ("KANARIENVOGEL", vec![]),
    ] {
        let found = open(&world, &format!("/v1/search?q={query}")).await;
        assert_eq!(found, json!({ "query": query, "hits": hits }));
        for hit in &hits {
            open(&world, hit["href"].as_str().unwrap()).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_found_says_whether_to_ask_again() {
    let world = World::start().await;
    let zeros = "0".repeat(64);
    for (name, code, retryable) in [(zeros.as_str(), "entry_not_found", false), ("9", "checkpoint_not_found", true)] {
        let problem = world.send(Req::get(&format!("/v1/entries/{name}"))).await.expect(404);
        assert_eq!((&problem["code"], &problem["retryable"]), (&json!(code), &json!(retryable)));
    }
    let problem = world.send(Req::get("/v1/search?q=%ff%fe")).await.expect(400);
    assert_eq!(problem["errors"][0]["fix"], "Send text, percent-encoded as UTF-8.");
    let problem = world.send(Req::get("/v1/search?q=")).await.expect(400);
    let fix = problem["errors"][0]["fix"].as_str().unwrap();
    assert!(fix.contains("hash") && !fix.contains("evidence"), "{fix}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_policy_is_listed_and_served() {
    let world = World::start().await;
    let network = open(&world, "/v1/network").await;
    assert_eq!(network["policies"], json!([{ "first_size": 1, "sha256": network["policy_sha256"] }]));
    let policy = world.send(Req::get("/log/policies/1")).await;
    assert_eq!((policy.status, policy.header("content-type")), (200, Some("text/plain; charset=utf-8")));
    assert_eq!(policy.text(), world.ledger.policy_text());
}
