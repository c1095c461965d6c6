//! Signed requests: verified or refused, and kept with what they record.

use std::time::Duration;

use chopmark_domain::{
    ports::Clock as _,
    tenant::{Scope, SigningKeyRow},
};
use chopmark_gateway::openapi_document;
use data_encoding::{BASE64, HEXLOWER};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use ledger_core::hash::Hash32;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    client::{Req, Res},
    doubles::SystemClock,
    world::{Builder, DIGEST, World, plain},
};

const COVERED: [&str; 4] = ["@method", "@target-uri", "content-digest", "idempotency-key"];

/// Somebody who signs, by a reading of RFC 9421 of its own.
struct Signatory {
    key: SigningKey,
    id: String,
}

/// What a signature covers and says.
struct Terms {
    covered: Vec<&'static str>,
    params: String,
    scheme: &'static str,
    key_id: String,
}

impl Signatory {
    /// A key that is registered for `tenant`.
    fn of(world: &World, tenant: &str, seed: u8) -> Self {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let public_key = Hash32(key.verifying_key().to_bytes());
        let id = SigningKeyRow::id_of("sandbox", tenant, &public_key);
        let (network, tenant) = ("sandbox".to_owned(), tenant.to_owned());
        let row = SigningKeyRow { id: id.clone(), network, tenant, public_key, created_at: 0, revoked_at: None };
        world.store.signing_keys.lock().push(row);
        Self { key, id }
    }

    fn terms(&self) -> Terms {
        let covered = COVERED.to_vec();
        Terms { covered, params: format!(";created={}", now()), scheme: "https", key_id: self.id.clone() }
    }

    fn sign(&self, req: Req) -> Req {
        let mut terms = self.terms();
        if header(&req, "Idempotency-Key").is_none() {
            terms.covered.pop();
        }
        self.sign_as(req, &terms)
    }

    fn sign_as(&self, req: Req, terms: &Terms) -> Req {
        let body = req.body.clone().unwrap_or_default();
        let req = if header(&req, "Content-Digest").is_some() {
            req
        } else {
            req.header("Content-Digest", format!("sha-256=:{}:", BASE64.encode(&Sha256::digest(&body))))
        };
        let (path, query) = req.path.split_once('?').unwrap_or((&req.path, ""));
        let mut base = String::new();
        for name in &terms.covered {
            let value = match *name {
                "@method" => req.method.clone(),
                "@target-uri" => format!("{}://test{}", terms.scheme, req.path),
                "@authority" => "test".to_owned(),
                "@path" => path.to_owned(),
                "@query" => format!("?{query}"),
                name => header(&req, name).unwrap_or_default(),
            };
            base += &format!("\"{name}\": {value}\n");
        }
        let names: Vec<_> = terms.covered.iter().map(|name| format!("\"{name}\"")).collect();
        let params = format!("({}){};keyid=\"{}\"", names.join(" "), terms.params, terms.key_id);
        base += &format!("\"@signature-params\": {params}");
        let signature = BASE64.encode(&self.key.sign(base.as_bytes()).to_bytes());
        req.set("Signature-Input", format!("own={params}")).set("Signature", format!("own=:{signature}:"))
    }
}

fn header(req: &Req, name: &str) -> Option<String> {
    let found = req.headers.iter().find(|(given, _)| given.eq_ignore_ascii_case(name));
    found.map(|(_, value)| String::from_utf8(value.clone()).unwrap())
}

fn now() -> u64 {
    SystemClock.now_ms() / 1000
}

/// What is kept is verified with nothing but itself; returns it.
fn verified(view: &Value, who: &Signatory, body: &[u8]) -> Value {
    let kept = view["signature"].clone();
    assert_eq!((&kept["algorithm"], &kept["key_id"]), (&json!("ed25519"), &json!(who.id)), "{view}");
    let unhex = |value: &Value| HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap();
    let key = VerifyingKey::from_bytes(&unhex(&kept["public_key"]).try_into().unwrap()).unwrap();
    assert_eq!(key, who.key.verifying_key());
    let base = kept["signature_base"].as_str().unwrap();
    let signature = Signature::from_bytes(&unhex(&kept["signature"]).try_into().unwrap());
    key.verify_strict(base.as_bytes(), &signature).unwrap();
    let digest = format!("\"content-digest\": sha-256=:{}:\n", BASE64.encode(&Sha256::digest(body)));
    assert!(base.contains(&digest), "{base}");
    assert_eq!(kept["body_bytes"], body.len());
    kept
}

fn evidence(key: &str, body: &Value) -> Req {
    Req::post("/v1/evidence", key).json(body)
}

async fn read(world: &World, accepted: &Value) -> Value {
    world.get(&format!("/v1/evidence/{}", accepted["id"].as_str().unwrap())).await.expect(200)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_is_kept_with_its_record() {
    let world = World::start().await;
    let who = Signatory::of(&world, "ten_one", 7);
    let titled = json!({ "digests": { "sha256": DIGEST }, "title": "合同 \"v2\"\\", "confidential": true });
    let mut accepted = Vec::new();
    for (key, body) in [("plain", plain()), ("titled", titled.clone())] {
        accepted.push((world.call(who.sign(evidence(key, &body))).await.expect(202), body.to_string()));
    }
    let unsigned = world.call(world.evidence("unsigned")).await.expect(202);
    // Nothing of a signature is in the operation, and nothing readable is in the queue.
    for message in world.queue.messages.lock().iter() {
        assert!(!String::from_utf8_lossy(&message.operation).contains(&who.id));
        assert!(!String::from_utf8_lossy(&message.sealed_private).contains("signature-params"));
    }
    world.commit().await;
    for (accepted, body) in &accepted {
        let kept = verified(&read(&world, accepted).await, &who, body.as_bytes());
        assert_eq!((kept["body"].as_str(), kept.get("item")), (Some(body.as_str()), None));
    }
    assert_eq!(read(&world, &accepted[1].0).await["title"], titled["title"]);
    assert_eq!(read(&world, &unsigned).await.get("signature"), None);
    // The answer that waits has it too; a list has none.
    let again = world.call(who.sign(evidence("plain", &plain()))).await.expect(201);
    verified(&again, &who, accepted[0].1.as_bytes());
    for item in world.get("/v1/evidence").await.expect(200)["items"].as_array().unwrap() {
        assert_eq!(item.get("signature"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_signed_anew_and_stays_the_same_request() {
    let world = World::start().await;
    let (who, other) = (Signatory::of(&world, "ten_one", 7), Signatory::of(&world, "ten_one", 8));
    let body = plain();
    let first = world.call(who.sign(evidence("k", &body))).await.expect(202);
    let older = Terms { params: format!(";created={};nonce=\"n\"", now() - 200), ..who.terms() };
    let parts = Terms {
        covered: vec!["content-type", "@authority", "@path", "@query", "@method", "idempotency-key", "content-digest"],
        scheme: "http",
        ..who.terms()
    };
    let expiring =
        Terms { params: format!(";created={};expires={};alg=\"ed25519\"", now(), now() + 60), ..who.terms() };
    let http = Terms { scheme: "http", ..who.terms() };
    for terms in [&older, &parts, &expiring, &http] {
        assert_eq!(world.call(who.sign_as(evidence("k", &body), terms)).await.expect(202), first);
    }
    assert_eq!(world.call(other.sign(evidence("k", &body))).await.expect(202), first);
    assert_eq!(world.call(evidence("k", &body)).await.expect(202), first);
    assert_eq!(world.published(), 1);
    world.commit().await;
    verified(&read(&world, &first).await, &who, body.to_string().as_bytes());
    let another = who.sign(evidence("k", &json!({ "digests": { "sm3": DIGEST } })));
    assert_eq!(world.call(another).await.expect(422)["code"], "idempotency_conflict");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_does_not_hold_is_refused() {
    let world = World::start().await;
    let (who, other) = (Signatory::of(&world, "ten_one", 7), Signatory::of(&world, "ten_two", 8));
    let revoked = Signatory::of(&world, "ten_one", 9);
    world.store.signing_keys.lock().iter_mut().find(|row| row.id == revoked.id).unwrap().revoked_at = Some(1);
    let req = || evidence("k", &plain());
    let signed = || who.sign(req());
    let with = |change: &dyn Fn(&mut Terms)| {
        let mut terms = who.terms();
        change(&mut terms);
        who.sign_as(req(), &terms)
    };
    let params = |text: String| with(&|terms| terms.params.clone_from(&text));
    let covering = |names: &[&'static str]| with(&|terms| terms.covered = names.to_vec());
    let long = "l".repeat(2100);
    let refusals = [
        ("no input", signed().without("Signature-Input"), 400, "signature_malformed", "Signature-Input"),
        ("no signature", signed().without("Signature"), 400, "signature_malformed", "Signature-Input"),
        ("no dictionary", signed().set("Signature", "own=:"), 400, "signature_malformed", "Signature-Input"),
        ("short", signed().set("Signature", "own=:AAAA:"), 400, "signature_malformed", "Signature-Input"),
        ("other label", signed().set("Signature", "his=:AAAA:"), 400, "signature_malformed", "Signature-Input"),
        ("not ASCII", signed().set("Signature", b"own=\xe5\xbc"), 400, "signature_malformed", "Signature-Input"),
        (
            "long",
            who.sign_as(
                req().header("x-long", &long),
                &Terms { covered: [&COVERED[..], &["x-long"]].concat(), ..who.terms() },
            ),
            400,
            "signature_malformed",
            "Signature-Input",
        ),
        ("no time", params(String::new()), 400, "signature_incomplete", "Signature-Input"),
        ("no method", covering(&COVERED[1..]), 400, "signature_incomplete", "Signature-Input"),
        (
            "no body",
            covering(&["@method", "@target-uri", "idempotency-key"]),
            400,
            "signature_incomplete",
            "Signature-Input",
        ),
        ("no key", covering(&COVERED[..3]), 400, "signature_incomplete", "Signature-Input"),
        (
            "absent",
            covering(&["@method", "@target-uri", "content-digest", "idempotency-key", "x-absent"]),
            400,
            "signature_component_unknown",
            "Signature-Input",
        ),
        (
            "status",
            covering(&["@method", "@target-uri", "content-digest", "idempotency-key", "@status"]),
            400,
            "signature_component_unknown",
            "Signature-Input",
        ),
        (
            "algorithm",
            params(format!(";created={};alg=\"hmac-sha256\"", now())),
            400,
            "signature_algorithm_unsupported",
            "Signature-Input",
        ),
        ("old", params(format!(";created={}", now() - 320)), 403, "signature_expired", "Signature-Input"),
        ("of the future", params(format!(";created={}", now() + 320)), 403, "signature_expired", "Signature-Input"),
        ("negative", params(";created=-1".to_owned()), 403, "signature_expired", "Signature-Input"),
        (
            "expired",
            params(format!(";created={};expires={}", now() - 20, now() - 10)),
            403,
            "signature_expired",
            "Signature-Input",
        ),
        (
            "unknown key",
            with(&|terms| terms.key_id = format!("sgk_{}", "0".repeat(24))),
            403,
            "signature_key_unknown",
            "Signature-Input",
        ),
        (
            "foreign form",
            with(&|terms| terms.key_id = "my-key".to_owned()),
            403,
            "signature_key_unknown",
            "Signature-Input",
        ),
        ("another tenant's", other.sign(req()), 403, "signature_key_unknown", "Signature-Input"),
        ("revoked", revoked.sign(req()), 403, "signature_key_revoked", "Signature-Input"),
        (
            "by another key",
            with(&|terms| terms.key_id.clone_from(&who.id))
                .set("Signature", header(&other.sign(req()), "Signature").unwrap()),
            403,
            "signature_invalid",
            "Signature",
        ),
        (
            "moved to another path",
            Req { path: "/v1/cases".to_owned(), ..signed() },
            403,
            "signature_invalid",
            "Signature",
        ),
        ("moved to another key", signed().set("Idempotency-Key", "other"), 403, "signature_invalid", "Signature"),
        (
            "another digest",
            signed().set("Content-Digest", format!("sha-256=:{}:", BASE64.encode(&[0; 32]))),
            403,
            "signature_invalid",
            "Signature",
        ),
        (
            "another time",
            signed().set(
                "Signature-Input",
                header(&signed(), "Signature-Input").unwrap().replace(";created=", ";created=1"),
            ),
            403,
            "signature_expired",
            "Signature-Input",
        ),
        ("another scheme", with(&|terms| terms.scheme = "ftp"), 403, "signature_invalid", "Signature"),
        (
            "no sha-256",
            who.sign(req().header("Content-Digest", "sha-512=:AAAA:")),
            400,
            "content_digest_invalid",
            "Content-Digest",
        ),
        (
            "no digest",
            who.sign(req().header("Content-Digest", "9f86d081")),
            400,
            "content_digest_invalid",
            "Content-Digest",
        ),
        (
            "body changed",
            signed().json(&json!({ "digests": { "sm3": DIGEST } })),
            400,
            "content_digest_mismatch",
            "Content-Digest",
        ),
        ("body with a space", signed().body(format!("{} ", plain())), 400, "content_digest_mismatch", "Content-Digest"),
    ];
    let document = serde_json::to_value(openapi_document()).unwrap();
    let documented = &document["paths"]["/v1/evidence"]["post"]["responses"];
    for (name, req, status, code, place) in refusals {
        for chunked in [false, true] {
            let req = if chunked { req.clone().chunked() } else { req.clone() };
            let res = world.call(req).await;
            let problem = res.expect(status);
            assert_eq!((&problem["code"], &problem["errors"][0]["header"]), (&json!(code), &json!(place)), "{name}");
            // Nothing of the request is in the answer, and the document knows it.
            assert!(!res.text().contains(&who.id) && !res.text().contains("9f86d081"), "{name}");
            let documented = documented[status.to_string()]["description"].as_str().unwrap();
            assert!(documented.contains(&format!("`{code}`")), "{name}: {documented}");
        }
    }
    // A faulty key is told before a faulty signature.
    let res = world.send(signed().set("Signature", "own=:")).await;
    assert_eq!(res.expect(401)["code"], "api_key_missing");
    assert_eq!(world.published(), 0);
    world.call(signed().chunked()).await.expect(202);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_record_of_a_batch_keeps_the_signature_and_its_place() {
    let world = World::start().await;
    let who = Signatory::of(&world, "ten_one", 7);
    let item = |at: usize| json!({ "idempotency_key": format!("i{at}"), "digests": { "sha256": DIGEST } });
    // Of many items no body is kept: each would have a copy.
    for (items, kept_body) in [(3, true), (60, false)] {
        let mut all: Vec<_> = (0..items).map(|at| item(at + 1000 * items)).collect();
        // What is refused has no record, and counts.
        all.insert(1, json!({ "idempotency_key": "bad", "digests": {} }));
        let body = json!({ "items": all });
        let req = Req::post("/v1/evidence/batch", "-").without("Idempotency-Key").json(&body);
        let answer = world.call(who.sign(req)).await.expect(200);
        world.commit().await;
        for (at, result) in answer["items"].as_array().unwrap().iter().enumerate() {
            if at == 1 {
                assert_eq!(result["status"], 422, "{result}");
            } else if at < 3 || at == items {
                let kept = verified(&read(&world, result).await, &who, body.to_string().as_bytes());
                assert_eq!((&kept["item"], kept.get("body").is_some()), (&json!(at), kept_body));
            }
        }
    }
    let changed =
        who.sign(Req::post("/v1/evidence/batch", "-").without("Idempotency-Key").json(&json!({ "items": [item(9)] })));
    let changed = changed.json(&json!({ "items": [item(8)] }));
    assert_eq!(world.call(changed).await.expect(400)["code"], "content_digest_mismatch");
}

fn form(after: &str) -> String {
    let file = "x".repeat(300_000);
    let part =
        |name: &str, body: &str| format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{body}\r\n");
    format!("{}{}--XX--\r\n{after}", part("metadata", r#"{"title":"t"}"#), part("file", &file))
}

fn upload(key: &str, body: String) -> Req {
    Req::post("/v1/evidence/files", key).set("Content-Type", "multipart/form-data; boundary=XX").body(body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_digested_as_it_streams() {
    let world = World::start().await;
    let who = Signatory::of(&world, "ten_one", 7);
    for (key, after, chunked) in
        [("a", "", false), ("b", "", true), ("c", "what nobody reads", false), ("d", "more", true)]
    {
        let body = form(after);
        let req = who.sign(upload(key, body.clone()));
        let accepted = world.call(if chunked { req.chunked() } else { req }).await.expect(202);
        world.commit().await;
        let view = read(&world, &accepted).await;
        assert_eq!((&view["size"], &view["title"]), (&json!(300_000), &json!("t")));
        // The file's bytes are kept nowhere unless asked for.
        assert_eq!(verified(&view, &who, body.as_bytes()).get("body"), None);
    }
    let published = world.published();
    for (body, code) in [
        (form("").replacen("xx", "xy", 1), "content_digest_mismatch"),
        (form("epilogue"), "content_digest_mismatch"),
        (form("").replace("\"t\"", "\"T\""), "content_digest_mismatch"),
    ] {
        let req = who.sign(upload("e", form(""))).body(body);
        assert_eq!(world.call(req).await.expect(400)["code"], code);
    }
    let terms = Terms { covered: vec!["@method", "@target-uri", "idempotency-key"], ..who.terms() };
    let uncovered = who.sign_as(upload("e", form("")), &terms);
    assert_eq!(world.call(uncovered).await.expect(400)["code"], "signature_incomplete");
    assert_eq!(world.published(), published);
}

#[tokio::test(flavor = "multi_thread")]
async fn cases_keep_theirs_and_a_long_body_is_not_kept() {
    let world = World::start().await;
    let who = Signatory::of(&world, "ten_one", 7);
    let body = json!({ "title": "案" });
    let case = world.call(who.sign(Req::post("/v1/cases", "c").json(&body))).await.expect(202);
    world.commit().await;
    let path = format!("/v1/cases/{}", case["id"].as_str().unwrap());
    verified(&world.get(&path).await.expect(200), &who, body.to_string().as_bytes());

    // Longer than is kept, by white space that means nothing; and one that just fits.
    for (key, spaces, is_kept) in [("long", 17_000, false), ("fits", 9_000, true)] {
        let text = format!("{}{}", plain(), " ".repeat(spaces));
        let accepted = world.call(who.sign(Req::post("/v1/evidence", key).body(text.clone()))).await.expect(202);
        world.commit().await;
        let kept = verified(&read(&world, &accepted).await, &who, text.as_bytes());
        assert_eq!(kept.get("body").is_some(), is_kept, "{key}");
        if key == "fits" {
            let link = Req::post(&format!("{path}/evidence"), "l").json(&json!({ "evidence_id": accepted["id"] }));
            world.call(who.sign(link.clone())).await.expect(202);
            let changed = who.sign(link).json(&json!({ "evidence_id": "evd_x" }));
            assert_eq!(world.call(changed).await.expect(400)["code"], "content_digest_mismatch");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_verified_too_and_need_no_signature() {
    let world = World::start().await;
    let who = Signatory::of(&world, "ten_one", 7);
    let bare = Terms { covered: vec!["@method", "@target-uri"], ..who.terms() };
    let list = || Req::get("/v1/evidence?limit=3");
    world.call(who.sign_as(list(), &bare)).await.expect(200);
    let moved = Req { path: "/v1/evidence?limit=4".to_owned(), ..who.sign_as(list(), &bare) };
    assert_eq!(world.call(moved).await.expect(403)["code"], "signature_invalid");
    // What anybody may read has no tenant whose key it could be.
    let public = Req::get("/v1/network").header("Signature", "nonsense").header("Signature-Input", "nonsense");
    world.send(public).await.expect(200);
}

async fn code(res: Res, status: u16) -> Value {
    res.expect(status)["code"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_may_have_to_sign() {
    let world = Builder { key_cache_ttl: Some(Duration::ZERO), ..Builder::default() }.start().await;
    let who = Signatory::of(&world, "ten_one", 7);
    let two = world.add_key("ten_two", &[Scope::Write], |_| ());
    let required = |required: bool| world.store.tenants.lock()[0].signatures_required = required;
    world.call(world.evidence("before")).await.expect(202);
    required(true);
    let hook = || Req::post("/v1/webhooks/endpoints", "h").json(&json!({ "url": "https://hooks.example/x" }));
    for req in [world.evidence("k"), Req::post("/v1/cases", "c").json(&json!({})), upload("f", form("")), hook()] {
        let res = world.call(req).await;
        let problem = res.expect(403);
        assert_eq!(
            (&problem["code"], &problem["errors"][0]["header"]),
            (&json!("signature_required"), &json!("Signature"))
        );
    }
    world.get("/v1/evidence").await.expect(200);
    world.send(world.evidence("k").bearer(&two)).await.expect(202);
    world.call(who.sign(world.evidence("k"))).await.expect(202);
    world.call(who.sign(hook())).await.expect(201);
    // A key that is revoked is believed for as long as an API key, here not at all.
    world.store.signing_keys.lock()[0].revoked_at = Some(1);
    assert_eq!(code(world.call(who.sign(world.evidence("l"))).await, 403).await, "signature_key_revoked");
    required(false);
    world.call(world.evidence("l")).await.expect(202);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_is_no_refusal_of_the_key() {
    let world = World::start().await;
    let who = Signatory::of(&world, "ten_one", 7);
    world.get("/v1/evidence").await.expect(200);
    *world.store.mood.lock() = crate::doubles::Mood::Away;
    assert_eq!(code(world.call(who.sign(world.evidence("k"))).await, 503).await, "database_unavailable");
}
