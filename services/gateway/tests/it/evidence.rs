//! Evidence from its POST to its proof.

use std::{io::Read as _, sync::atomic::Ordering, time::Duration};

use ledger_core::{
    commitment::opens,
    digests::Digests,
    entry::entry_id,
    operation::Operation,
    receipt::Receipt,
    verify::{FileFacts, Verdict, verify},
};
use serde_json::{Value, json};

use crate::{
    client::Req,
    world::{DIGEST, World, plain},
};

fn full() -> Value {
    json!({
        "digests": { "sha256": DIGEST, "sha3-256": "36f028580bb02cc8272a9a020f4200e346e276ae664e45ee80745574e2f5ab80" },
        "size": 4,
        "media_type": "text/plain",
        "title": "合同",
        "external_id": "order-1",
        "provenance": { "source": "https://example.com", "captured_at": "2026-11-22T08:00:00+08:00" },
    })
}

/// What `verify` says of the file "test".
fn verdict(entry: &[u8], receipt: &str, world: &World) -> Verdict {
    let file = FileFacts { digests: Digests::of(b"test"), size: 4 };
    verify(Some(&file), entry, receipt.as_bytes(), world.ledger.policy_text().as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_from_its_request_to_its_proof() {
    let world = World::start().await;
    let res = world.call(Req::post("/v1/evidence", "k").json(&full())).await;
    let accepted = res.expect(202);
    let id = accepted["id"].as_str().unwrap();
    let path = format!("/v1/evidence/{id}");
    assert_eq!(res.header("location"), Some(path.as_str()));
    assert_eq!(res.header("preference-applied"), None);
    assert!(res.header("x-request-id").unwrap().starts_with("req_"));
    assert_eq!(accepted["operation"]["state"], "accepted");
    assert_eq!(accepted["warnings"][0]["code"], "guessable_content");

    // Known before any committer has seen it, and while it waits.
    let unseen = world.get(&path).await.expect(200);
    assert_eq!((&unseen["state"], unseen.get("digests")), (&json!("accepted"), None));
    let operation_path = accepted["operation"]["href"].as_str().unwrap();
    assert_eq!(world.get(operation_path).await.expect(200)["state"], "accepted");
    world.ingest().await;
    let seen = world.get(&path).await.expect(200);
    assert_eq!((&seen["title"], &seen["external_id"]), (&json!("合同"), &json!("order-1")));

    world.commit().await;
    let view = world.get(&path).await.expect(200);
    assert_eq!((&view["state"], &view["digests"], &view["size"]), (&json!("committed"), &full()["digests"], &json!(4)));
    assert_eq!((&view["provenance"], &view["confidential"]), (&full()["provenance"], &json!(false)));
    assert_eq!(view["entry"]["index"], 2);
    assert_eq!(
        (&view["checkpoint"]["size"], &view["checkpoint"]["cosigners"]),
        (&json!(3), &json!(["operator.example/cosigner"]))
    );
    let operation = world.get(operation_path).await.expect(200);
    assert_eq!((&operation["state"], &operation["resource"]["href"]), (&json!("committed"), &json!(path)));

    let entry = world.get(&format!("{path}/entry")).await;
    assert_eq!((entry.status, entry.header("content-type")), (200, Some("application/json")));
    assert_eq!(entry.body, world.ledger.all_entries()[2]);
    assert_eq!(view["entry"]["id"], entry_id(&entry.body).to_string());
    let receipt = world.get(&format!("{path}/receipt")).await;
    assert_eq!((receipt.status, receipt.header("content-type")), (200, Some("text/plain; charset=utf-8")));
    assert!(matches!(verdict(&entry.body, &receipt.text(), &world), Verdict::Valid(valid) if valid.cosigners == 1));

    let bundle = || world.get(view["links"]["proof"].as_str().unwrap());
    let zip = bundle().await;
    assert_eq!((zip.status, zip.header("content-type")), (200, Some("application/zip")));
    assert_eq!(zip.body, bundle().await.body);
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(zip.body)).unwrap();
    let mut file = |name: &str| {
        let mut bytes = Vec::new();
        archive.by_name(name).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    };
    assert_eq!((file("entry.json"), file("receipt.tlog-proof")), (entry.body, receipt.body));
    assert_eq!(file("policy.txt"), world.ledger.policy_text().as_bytes());
    assert!(String::from_utf8(file("README.txt")).unwrap().contains("核验"));
    assert!(file("verify.sh").starts_with(b"#!"));

    // HEAD is GET without the body.
    let head = world.call(Req::new("HEAD", &path)).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends_with_everything() {
    let world = World::start().await;
    let waiting = tokio::spawn({
        let req = Req::post("/v1/evidence", "k").json(&full()).header("Prefer", "wait=10").bearer(&world.key);
        let address = world.address;
        async move { req.send(address).await }
    });
    while world.published() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.commit().await;
    let res = waiting.await.unwrap();
    let view = res.expect(201);
    assert_eq!(res.header("preference-applied"), Some("wait=10"));
    assert_eq!((&view["state"], &view["title"]), (&json!("committed"), &json!("合同")));
    assert!(view["checkpoint"]["size"].as_u64().unwrap() > view["entry"]["index"].as_u64().unwrap());

    // Nobody waits, nobody asks the database.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let reads = world.store.cursor_reads.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(world.store.cursor_reads.load(Ordering::Relaxed), reads);

    // A wait that ends early.
    let res = world.call(world.evidence("late").header("Prefer", "wait=1")).await;
    assert_eq!(res.expect(202)["operation"]["state"], "accepted");
    assert_eq!(res.header("preference-applied"), Some("wait=1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_waiters_share_one_look() {
    let world = World::start().await;
    let waiting: Vec<_> = (0..200)
        .map(|at| {
            let req = world.evidence(&format!("k{at}")).header("Prefer", "wait=20").bearer(&world.key);
            let address = world.address;
            tokio::spawn(async move { req.send(address).await })
        })
        .collect();
    while world.published() < 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let finds = world.store.finds.load(Ordering::Relaxed);
    let reads = world.store.cursor_reads.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(400)).await;
    // 200 waiters for 400 ms: about 20 looks at the cursor and none at the rows.
    assert!(world.store.cursor_reads.load(Ordering::Relaxed) - reads <= 25);
    assert!(world.store.finds.load(Ordering::Relaxed) - finds <= 2);
    world.commit().await;
    for answer in waiting {
        answer.await.unwrap().expect(201);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_waits_as_a_whole() {
    let world = World::start().await;
    let items: Vec<_> = (0..1000)
        .map(|at| json!({ "idempotency_key": format!("k{at}"), "digests": { "sha256": DIGEST }, "title": "t" }))
        .collect();
    let waiting = tokio::spawn({
        let req = Req::post("/v1/evidence/batch", "-").json(&json!({ "items": items })).header("Prefer", "wait=20");
        let (req, address) = (req.bearer(&world.key), world.address);
        async move { req.send(address).await }
    });
    while world.published() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(world.queue.publications.load(Ordering::Relaxed), 1);
    world.commit().await;
    let answer = waiting.await.unwrap().expect(200);
    let items = answer["items"].as_array().unwrap();
    assert_eq!(items.len(), 1000);
    assert!(items.iter().all(|item| item["status"] == 201 && item["operation"]["state"] == "committed"));
    assert_eq!(world.ledger.size(), 1002);
}

#[tokio::test(flavor = "multi_thread")]
async fn confidential_evidence_shows_commitments_only() {
    let world = World::start().await;
    let mut body = full();
    body["confidential"] = json!(true);
    let id = world.committed_evidence("k", &body).await;
    let entry = world.ledger.all_entries()[2].clone();
    let entry_text = String::from_utf8(entry.clone()).unwrap();
    assert!(!entry_text.contains(DIGEST) && !entry_text.contains("text/plain") && !entry_text.contains("size"));
    let view = world.get(&format!("/v1/evidence/{id}")).await.expect(200);
    assert_eq!((&view["digests"], &view["confidential"], &view["size"]), (&body["digests"], &json!(true), &json!(4)));
    assert!(view["links"].get("verify").is_none());

    let receipt = world.get(&format!("/v1/evidence/{id}/receipt")).await.text();
    let opening = Receipt::parse(&receipt).unwrap().extra.unwrap();
    let Operation::Evidence(operation) = Operation::parse(&world.queue.messages.lock()[0].operation).unwrap() else {
        panic!("evidence");
    };
    assert!(opens(&opening, &operation.commitment.unwrap()));
    assert!(matches!(verdict(&entry, &receipt, &world), Verdict::Valid(_)));
    // The public receipt of the same entry opens nothing.
    let public = world.send(Req::get("/v1/entries/2/receipt")).await.text();
    assert!(Receipt::parse(&public).unwrap().extra.is_none());
    assert!(matches!(verdict(&entry, &public, &world), Verdict::Incomplete(_)));
    let found = world.send(Req::get(&format!("/v1/verify/sha256/{DIGEST}"))).await.expect(200);
    assert_eq!(found["records"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn rejections_are_final_and_say_why() {
    use ledger_core::outcome::RejectionCode;

    let world = World::start().await;
    world.reject_next(RejectionCode::TenantSuspended);
    let id = world.committed_evidence("k", &plain()).await;
    let view = world.get(&format!("/v1/evidence/{id}")).await.expect(200);
    assert_eq!(view["state"], "rejected");
    let operation =
        world.call(Req::get(view["operation"]["href"].as_str().unwrap()).header("Accept-Language", "zh")).await;
    let operation = operation.expect(200);
    assert_eq!(operation["rejection"]["code"], "tenant_suspended");
    assert!(operation["rejection"]["reason"].as_str().unwrap().contains('。'));
    let again = world.call(world.evidence("k")).await.expect(202);
    assert_eq!((&again["id"], &again["operation"]["state"]), (&json!(id), &json!("rejected")));
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_paged_and_filtered() {
    let world = World::start().await;
    for at in 0..25 {
        let mut body = plain();
        if at % 5 == 0 {
            body["external_id"] = json!("fives");
        }
        if at == 7 {
            body["digests"] = json!({ "sm3": DIGEST });
        }
        world.call(Req::post("/v1/evidence", &format!("k{at}")).json(&body)).await.expect(202);
        if at == 19 {
            world.commit().await;
        }
    }
    world.ingest().await;
    let mut seen = Vec::new();
    let mut path = "/v1/evidence?limit=7".to_owned();
    loop {
        let page = world.get(&path).await.expect(200);
        let items = page["items"].as_array().unwrap();
        seen.extend(items.iter().map(|item| item["id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        assert_eq!(items.len(), 7);
        path = format!("/v1/evidence?limit=7&cursor={cursor}");
    }
    let mut unique = seen.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!((seen.len(), unique.len()), (25, 25));

    for (query, expected) in [
        ("state=committed&limit=200", 20),
        ("state=accepted", 5),
        ("state=rejected", 0),
        ("external_id=fives", 5),
        ("external_id=other", 0),
        ("from=2000-01-01T00:00:00Z", 25),
        ("to=2000-01-01T00:00:00Z", 0),
        (&format!("digest=sm3:{DIGEST}"), 1),
        (&format!("digest=sha256:{DIGEST}&limit=200"), 19),
        (&format!("digest={DIGEST}&limit=200"), 20),
        (&format!("digest=sha3-256:{DIGEST}"), 0),
        (&format!("digest=sha256:{DIGEST}&external_id=fives"), 4),
    ] {
        let page = world.get(&format!("/v1/evidence?{query}")).await.expect(200);
        assert_eq!(page["items"].as_array().unwrap().len(), expected, "{query}");
    }
    // Another tenant sees none of it.
    let other = world.add_key("ten_two", &[chopmark_domain::tenant::Scope::Read], |_| ());
    let page = world.send(Req::get("/v1/evidence").bearer(&other)).await.expect(200);
    assert_eq!(page["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn warnings_and_problems_speak_both_languages() {
    let world = World::start().await;
    for (language, tag, word) in [("zh-CN,zh;q=0.9", "zh-CN", "哈希"), ("en", "en", "digest"), ("fr", "en", "digest")]
    {
        let req = Req::post("/v1/evidence", language).json(&plain()).header("Accept-Language", language);
        let accepted = world.call(req).await.expect(202);
        assert_eq!(accepted["warnings"][0]["code"], "single_digest");
        assert!(accepted["warnings"][0]["detail"].as_str().unwrap().contains(word), "{accepted}");
        let res = world.call(Req::post("/v1/evidence", "x").body("{}").header("Accept-Language", language)).await;
        assert_eq!(res.header("content-language"), Some(tag));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_of_the_caller_is_kept_if_it_is_harmless() {
    let world = World::start().await;
    let get = |id: &str| world.call(Req::get("/v1/evidence").header("X-Request-Id", id));
    assert_eq!(get("mine-1.a_B").await.header("x-request-id"), Some("mine-1.a_B"));
    for bad in ["", "a b", &"x".repeat(65), "<script>"] {
        assert!(get(bad).await.header("x-request-id").unwrap().starts_with("req_"));
    }
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    world.call(world.evidence("t1").header("traceparent", trace)).await.expect(202);
    world.call(world.evidence("t2").header("traceparent", "00-zz")).await.expect(202);
    let traces: Vec<_> = world.queue.messages.lock().iter().map(|message| message.trace.clone()).collect();
    assert_eq!(traces, [trace, ""]);
}
