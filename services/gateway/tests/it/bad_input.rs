//! The table of bad input: every line asserts status, code and place, in both languages, that
//! the OpenAPI document knows the answer, and that nothing was published.

use std::{collections::BTreeSet, time::Duration};

use chopmark_domain::{auth::ApiKey, tenant::Scope};
use chopmark_gateway::{GatewayConfig, openapi_document};
use ledger_core::outcome::RejectionCode;
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    client::{Req, Res, raw, read_answer},
    doubles::ThreadRandom,
    world::{Builder, DIGEST, World, plain},
};

/// Where a fault lies.
#[derive(Clone, Debug)]
enum At {
    Pointer(String),
    Parameter(&'static str),
    Header(&'static str),
    Part(&'static str),
    /// The problem is of the request as a whole.
    Whole,
}

struct Case {
    name: String,
    req: Req,
    status: u16,
    code: &'static str,
    at: At,
}

#[derive(Default)]
struct Table(Vec<Case>);

impl Table {
    fn add(&mut self, name: impl Into<String>, req: Req, status: u16, code: &'static str, at: At) {
        self.0.push(Case { name: name.into(), req, status, code, at });
    }

    /// A fault in the body of `POST /v1/evidence`.
    fn body(&mut self, fixture: &Fixture, body: impl Into<Vec<u8>>, status: u16, code: &'static str, at: At) {
        let body = body.into();
        let name = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        self.add(name, fixture.post().body(body), status, code, at);
    }

    /// A fault in one member of an evidence request.
    fn member(&mut self, fixture: &Fixture, name: &str, value: &str, code: &'static str, pointer: &str) {
        let body = format!(r#"{{"digests":{{"sha256":"{DIGEST}"}},"{name}":{value}}}"#);
        self.body(fixture, body, 422, code, ptr(pointer));
    }

    fn sha256(&mut self, fixture: &Fixture, value: &str, code: &'static str) {
        self.body(fixture, format!(r#"{{"digests":{{"sha256":{value}}}}}"#), 422, code, ptr("/digests/sha256"));
    }

    fn query(&mut self, fixture: &Fixture, query: &str, code: &'static str, name: &'static str) {
        let status = if code.starts_with("digest_") || code.starts_with("string_") { 422 } else { 400 };
        let req = Req::get(&format!("/v1/evidence?{query}")).bearer(&fixture.key);
        self.add(query, req, status, code, At::Parameter(name));
    }
}

fn ptr(pointer: &str) -> At {
    At::Pointer(pointer.to_owned())
}

/// Ids and keys that the table needs.
struct Fixture {
    key: String,
    accepted: String,
    committed: String,
    rejected: String,
    operation: String,
    others: String,
    case: String,
    open_case: String,
    cursor: String,
}

impl Fixture {
    async fn new(world: &World) -> Self {
        let id = |value: Value| value["id"].as_str().unwrap().to_owned();
        let committed = world.committed_evidence("committed", &plain()).await;
        let cursor = {
            world.committed_evidence("committed-2", &plain()).await;
            let page = world.get("/v1/evidence?limit=1").await.expect(200);
            page["next_cursor"].as_str().unwrap().to_owned()
        };
        let case = id(world.call(Req::post("/v1/cases", "case").json(&json!({}))).await.expect(202));
        world.commit().await;
        world.reject_next(RejectionCode::TenantSuspended);
        let rejected = world.committed_evidence("rejected", &plain()).await;
        let accepted = world.call(world.evidence("accepted")).await.expect(202);
        let open_case = id(world.call(Req::post("/v1/cases", "open-case").json(&json!({}))).await.expect(202));
        let other = world.add_key("ten_two", &[Scope::Read, Scope::Write], |_| ());
        let others = id(world.send(world.evidence("others").bearer(&other)).await.expect(202));
        let operation = accepted["operation"]["id"].as_str().unwrap().to_owned();
        let key = world.key.clone();
        Self { key, accepted: id(accepted), committed, rejected, operation, others, case, open_case, cursor }
    }

    /// A POST that lacks only its body.
    fn post(&self) -> Req {
        Req::post("/v1/evidence", "bad").bearer(&self.key)
    }

    fn get(&self, path: &str) -> Req {
        Req::get(path).bearer(&self.key)
    }

    fn json(&self, path: &str, body: &Value) -> Req {
        Req::post(path, "bad").bearer(&self.key).json(body)
    }

    fn file(&self, parts: &[(&str, &str)]) -> Req {
        self.form(&multipart(parts))
    }

    fn form(&self, body: &str) -> Req {
        Req::post("/v1/evidence/files", "bad")
            .bearer(&self.key)
            .set("Content-Type", "multipart/form-data; boundary=XX")
            .body(body)
    }
}

fn multipart(parts: &[(&str, &str)]) -> String {
    let part = |(name, body): &(&str, &str)| {
        format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{body}\r\n")
    };
    parts.iter().map(part).collect::<String>() + "--XX--\r\n"
}

/// An id of the right form that nobody issued.
fn forged(id: &str) -> String {
    let last = if id.ends_with('a') { 'i' } else { 'a' };
    let middle = if &id[10..11] == "b" { "c" } else { "b" };
    format!("{}{middle}{}{last}", &id[..10], &id[11..id.len() - 1])
}

fn authentication(table: &mut Table, fixture: &Fixture, world: &World) {
    let auth = At::Header("Authorization");
    let good = fixture.post().json(&plain());
    let mut add = |name: &str, req: Req, code| table.add(name, req, 401, code, auth.clone());
    let bearer = |text: &str| good.clone().set("Authorization", format!("Bearer {text}"));
    add("no key", good.clone().without("Authorization"), "api_key_missing");
    add("key in the query", Req::post("/v1/evidence?api_key=x", "k").json(&plain()), "api_key_missing");
    add("basic", good.clone().set("Authorization", "Basic dXNlcjpwYXNz"), "authorization_scheme_unsupported");
    add("scheme alone", good.clone().set("Authorization", "Bearer"), "api_key_malformed");
    add("empty header", good.clone().set("Authorization", ""), "authorization_scheme_unsupported");
    add("nonsense", bearer("hunter2"), "api_key_malformed");
    add("prefix alone", bearer("cm_test_"), "api_key_malformed");
    add("cut", bearer(&world.key[..world.key.len() - 1]), "api_key_malformed");
    add("mistyped", bearer(&world.key.replace(&world.key[12..14], "zz")), "api_key_malformed");
    add("upper case", bearer(&world.key.to_uppercase()), "api_key_malformed");
    add("not ASCII", good.clone().set("Authorization", b"Bearer \xe5\xbc\xa0"), "api_key_malformed");
    add("twice", good.clone().header("Authorization", format!("Bearer {}", world.key)), "api_key_malformed");
    let unknown = ApiKey::generate("sandbox", &ThreadRandom).unwrap();
    add("unknown", bearer(unknown.reveal()), "api_key_unknown");
    let live = ApiKey::generate("live", &ThreadRandom).unwrap();
    add("of the live network", bearer(live.reveal()), "api_key_wrong_network");
    let both = [Scope::Read, Scope::Write];
    add("expired", bearer(&world.add_key("ten_one", &both, |key| key.expires_at = Some(1))), "api_key_expired");
    add("revoked", bearer(&world.add_key("ten_one", &both, |key| key.revoked_at = Some(1))), "api_key_revoked");
    let id = &fixture.accepted;
    for path in [
        "/v1/evidence".to_owned(),
        format!("/v1/evidence/{id}"),
        format!("/v1/evidence/{id}/receipt"),
        format!("/v1/operations/{}", fixture.operation),
        format!("/v1/cases/{}", fixture.case),
    ] {
        table.add(format!("no key for {path}"), Req::get(&path), 401, "api_key_missing", auth.clone());
    }
    for path in ["/v1/evidence/batch", "/v1/evidence/files", "/v1/cases"] {
        table.add(format!("no key for {path}"), Req::post(path, "k").body("{}"), 401, "api_key_missing", auth.clone());
    }
    let reader = world.add_key("ten_one", &[Scope::Read], |_| ());
    table.add("a reader writes", good.clone().bearer(&reader), 403, "api_key_scope_missing", At::Whole);
    let writer = world.add_key("ten_one", &[Scope::Write], |_| ());
    let req = fixture.get("/v1/evidence").bearer(&writer);
    table.add("a writer reads", req, 403, "api_key_scope_missing", At::Whole);
    let suspended = world.add_key("ten_suspended", &both, |_| ());
    table.add("a suspended tenant writes", good.bearer(&suspended), 403, "tenant_suspended", At::Whole);
}

fn heads(table: &mut Table, fixture: &Fixture) {
    let good = fixture.post().json(&plain());
    let key = At::Header("Idempotency-Key");
    let set = |value: &[u8]| good.clone().set("Idempotency-Key", value);
    let mut add = |name: &str, req: Req, code| table.add(name, req, 400, code, key.clone());
    add("no idempotency key", good.clone().without("Idempotency-Key"), "idempotency_key_missing");
    add("empty idempotency key", set(b""), "idempotency_key_invalid");
    add("long idempotency key", set(&[b'k'; 256]), "idempotency_key_too_long");
    add("idempotency key with a space", set(b"a b"), "idempotency_key_invalid");
    add("idempotency key outside ASCII", set("订单".as_bytes()), "idempotency_key_invalid");
    add("two idempotency keys", good.clone().header("Idempotency-Key", "other"), "idempotency_key_invalid");
    table.add(
        "key of another request",
        set(b"committed").json(&json!({ "digests": { "sm3": DIGEST } })),
        422,
        "idempotency_conflict",
        key.clone(),
    );
    table.add("key of a case", set(b"case"), 422, "idempotency_conflict", key.clone());
    for prefer in ["wait=31", "wait=-1", "wait=ten", "wait=", "wait=1.5", "wait=1, wait=2"] {
        let req = good.clone().header("Prefer", prefer);
        table.add(prefer, req, 400, "prefer_invalid", At::Header("Prefer"));
    }
    let kind = At::Header("Content-Type");
    let content = |value: &str| good.clone().set("Content-Type", value);
    table.add("no content type", good.clone().without("Content-Type"), 415, "content_type_missing", kind.clone());
    for value in
        ["text/plain", "application/x-www-form-urlencoded", "application/json, text/plain", "json", "application/xml"]
    {
        table.add(value, content(value), 415, "content_type_unsupported", kind.clone());
    }
    let twice = good.clone().header("Content-Type", "application/json");
    table.add("two content types", twice, 415, "content_type_unsupported", kind.clone());
    let gbk = content("application/json; charset=gbk");
    table.add("charset", gbk, 415, "charset_unsupported", kind.clone());
    let form = content("application/json").set("Content-Type", "multipart/form-data; boundary=XX");
    table.add("form for JSON", form, 415, "content_type_unsupported", kind.clone());
    let files = fixture.file(&[("file", "x")]).set("Content-Type", "application/json");
    table.add("JSON for a form", files, 415, "content_type_unsupported", kind);
    let gzip = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\xae\x05\x00\x43\xbf\xa6\xa3\x02\x00\x00\x00";
    for encoding in ["gzip", "br", "deflate", "zstd", "identity, gzip"] {
        let req = good.clone().header("Content-Encoding", encoding).body(gzip.to_vec());
        table.add(encoding, req, 415, "content_encoding_unsupported", At::Header("Content-Encoding"));
    }
    let req = fixture.file(&[("file", "x")]).header("Content-Encoding", "gzip");
    table.add("compressed form", req, 415, "content_encoding_unsupported", At::Header("Content-Encoding"));
    let req = good.clone();
    let req = Req { path: "/v1/evidence?dry_run=1".into(), ..req };
    table.add("query on a POST", req, 400, "query_parameter_unknown", At::Parameter("dry_run"));
    let path = format!("/v1/evidence?external_id={}", "a".repeat(9000));
    table.add("long path", fixture.get(&path), 414, "uri_too_long", At::Whole);
    let req = fixture.get("/v1/evidence").header("Cookie", "c".repeat(40_000));
    table.add("large headers", req, 431, "header_too_large", At::Whole);
}

fn whole_bodies(table: &mut Table, fixture: &Fixture) {
    let mut add = |body: &[u8], code| table.body(fixture, body, 400, code, At::Whole);
    add(b"", "body_missing");
    add(b" \r\n\t", "body_missing");
    add(b"{\"digests\":\xff}", "body_not_utf8");
    add(b"{\"title\":\"\xb2\xe2\xca\xd4\"}", "body_not_utf8");
    add(b"\xff\xfe{\x00}\x00", "body_not_utf8");
    add("\u{feff}{}".as_bytes(), "body_has_bom");
    let good = plain().to_string();
    add(format!("{good}{good}").as_bytes(), "body_trailing_data");
    add(format!("{good} x").as_bytes(), "body_trailing_data");
    table.add("POST without a body", fixture.post(), 400, "body_missing", At::Whole);
    let mut add = |body: &str, code| table.body(fixture, body, 400, code, ptr(""));
    for bad in ["not json", "{", "{'digests':1}", "// no\n{}", "\0"] {
        add(bad, "body_not_json");
    }
    let nested = format!(r#"{{"x":{}"#, "[".repeat(100_000));
    table.add(
        "a hundred thousand levels",
        fixture.post().body(nested),
        400,
        "body_too_deep",
        ptr("/x/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0"),
    );
    let members: String = (0..100).map(|i| format!(r#""a{i}":1,"#)).collect();
    table.body(fixture, format!(r#"{{{members}"z":1}}"#), 400, "object_too_large", ptr(""));
    table.body(fixture, format!(r#"{{"size":1,"size":1,{}"#, &good[1..]), 400, "duplicate_json_key", ptr("/size"));
    let twice = format!(r#"{{"digests":{{"sha256":"{DIGEST}","sha256":"{DIGEST}"}}}}"#);
    table.body(fixture, twice, 400, "duplicate_json_key", ptr("/digests/sha256"));
    for bad in ["[]", "\"text\"", "1", "true", "null"] {
        table.body(fixture, bad, 422, "field_type", ptr(""));
    }
    let mut large = plain();
    large["title"] = Value::String("x".repeat(300_000));
    table.add("300 KB", fixture.post().json(&large), 413, "body_too_large", At::Whole);
    table.add("300 KB in chunks", fixture.post().json(&large).chunked(), 413, "body_too_large", At::Whole);
    let batch = Req::post("/v1/evidence/batch", "bad").bearer(&fixture.key).body(vec![b' '; 4 * 1024 * 1024 + 1]);
    table.add("a batch of 4 MiB and a byte", batch, 413, "body_too_large", At::Whole);
}

fn members(table: &mut Table, fixture: &Fixture) {
    let upper = format!("\"{}\"", DIGEST.to_uppercase());
    let with = |text: &str| format!("\"{text}\"");
    table.sha256(fixture, &upper, "digest_upper_case");
    for bad in [&DIGEST[..63], &DIGEST[..62], &format!("{DIGEST}0"), &DIGEST[..40], &DIGEST[..32], ""] {
        table.sha256(fixture, &with(bad), "digest_bad_length");
    }
    for bad in [
        DIGEST.replace('f', "g"),
        format!("0x{DIGEST}"),
        format!("sha256:{DIGEST}"),
        format!(" {DIGEST}"),
        "n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=".to_owned(),
        "０".repeat(64),
    ] {
        table.sha256(fixture, &with(&bad), "digest_not_hex");
    }
    for bad in ["1", "null", "true", "[]", "{}"] {
        table.sha256(fixture, bad, "field_type");
    }
    table.body(fixture, "{}", 422, "digest_missing", ptr("/digests"));
    table.body(fixture, r#"{"digests":{}}"#, 422, "digest_missing", ptr("/digests"));
    table.body(fixture, r#"{"digests":[]}"#, 422, "field_type", ptr("/digests"));
    for bad in ["md5", "sha-256", "SHA256", "sha1", "sha3"] {
        let body = format!(r#"{{"digests":{{"{bad}":"{DIGEST}"}}}}"#);
        table.body(fixture, body, 422, "digest_algorithm_unknown", ptr(&format!("/digests/{bad}")));
    }
    let mut add = |name, value: &str, code| table.member(fixture, name, value, code, &format!("/{name}"));
    for bad in ["-1", "9007199254740992", "1e20", "99999999999999999999999999", "-9223372036854775809"] {
        add("size", bad, "field_out_of_range");
    }
    for bad in ["1.5", "\"1\"", "null", "[]", "1e3"] {
        add("size", bad, "field_type");
    }
    for bad in ["", "Text/Plain", "text", "text/html; charset=utf-8", "text/", "/plain", "chemical/x-pdb", "*/*"] {
        add("media_type", &with(bad), "media_type_invalid");
    }
    add("media_type", "1", "field_type");
    add("title", "\"\"", "string_empty");
    add("title", &with(&"长".repeat(257)), "string_too_long");
    add("title", "\"a\\u0000b\"", "string_bad_characters");
    add("title", "\"a\\u202eb\"", "string_bad_characters");
    add("title", "\"a\\nb\"", "string_bad_characters");
    add("title", "7", "field_type");
    add("title", "null", "field_type");
    add("external_id", &with(&"x".repeat(129)), "string_too_long");
    add("external_id", "\"\\u007f\"", "string_bad_characters");
    add("external_id", "\"\"", "string_empty");
    add("confidential", "\"yes\"", "field_type");
    add("confidential", "1", "field_type");
    add("provenance", "\"camera\"", "field_type");
    add("provenance", "[]", "field_type");
    add("titel", "\"x\"", "unknown_field");
    add("digest", "\"x\"", "unknown_field");
    let mut add = |name: &str, value: &str, code| {
        let value = format!(r#"{{"{name}":{value}}}"#);
        table.member(fixture, "provenance", &value, code, &format!("/provenance/{name}"));
    };
    add("colour", "1", "unknown_field");
    add("source", "1", "field_type");
    add("device", &with(&"x".repeat(257)), "string_too_long");
    add("notes", &with(&"x".repeat(2001)), "string_too_long");
    add("captured_at", "\"yesterday\"", "time_malformed");
    add("captured_at", "\"2026-02-30T00:00:00Z\"", "time_malformed");
    add("captured_at", "\"2026-11-22T08:00:00\"", "time_malformed");
    let several = format!(r#"{{"digests":{{"sha256":"{DIGEST}"}},"size":-1,"titel":1}}"#);
    table.body(fixture, several, 422, "several_faults", ptr("/size"));
    let name = r#"{"13800138000":1,"digests":{"sm3":"x"}}"#;
    table.body(fixture, name, 422, "several_faults", ptr(""));
}

fn batches(table: &mut Table, fixture: &Fixture) {
    let mut add = |name: &str, body: Value, code, pointer: &str| {
        table.add(name, fixture.json("/v1/evidence/batch", &body), 422, code, ptr(pointer));
    };
    add("batch without items", json!({}), "field_missing", "/items");
    add("empty batch", json!({ "items": [] }), "batch_empty", "/items");
    add("items is no list", json!({ "items": {} }), "field_type", "/items");
    add(
        "batch with another member",
        json!({ "items": [{ "idempotency_key": "b", "digests": { "sha256": DIGEST } }], "x": 1 }),
        "unknown_field",
        "/x",
    );
    let item = json!({ "idempotency_key": "b", "digests": { "sha256": DIGEST } });
    add("1001 items", json!({ "items": vec![item; 1001] }), "batch_too_large", "/items");
    let batch = Req::post("/v1/evidence/batch", "bad").bearer(&fixture.key).body("[");
    table.add("batch that is no JSON", batch, 400, "body_not_json", ptr("/0"));
}

fn cases(table: &mut Table, fixture: &Fixture) {
    let append = format!("/v1/cases/{}/evidence", fixture.case);
    let evidence = |id: &str| json!({ "evidence_id": id });
    let mut add = |name: &str, path: &str, body: Value, status, code, at| {
        table.add(name, fixture.json(path, &body), status, code, at);
    };
    add("case with another member", "/v1/cases", json!({ "name": "x" }), 422, "unknown_field", ptr("/name"));
    add("case with an empty title", "/v1/cases", json!({ "title": "" }), 422, "string_empty", ptr("/title"));
    add("append nothing", &append, json!({}), 422, "field_missing", ptr("/evidence_id"));
    add("append a number", &append, json!({ "evidence_id": 1 }), 422, "field_type", ptr("/evidence_id"));
    add("append nonsense", &append, evidence("evd_1"), 400, "id_malformed", ptr("/evidence_id"));
    add("append an operation", &append, evidence(&fixture.operation), 400, "id_malformed", ptr("/evidence_id"));
    let nobody = forged(&fixture.committed);
    add("append nobody's", &append, evidence(&nobody), 404, "evidence_not_found", ptr("/evidence_id"));
    add("append another's", &append, evidence(&fixture.others), 404, "evidence_not_found", ptr("/evidence_id"));
    let early = "predecessor_not_committed";
    add("append too early", &append, evidence(&fixture.accepted), 409, early, ptr("/evidence_id"));
    add(
        "append what was rejected",
        &append,
        evidence(&fixture.rejected),
        409,
        "operation_rejected",
        ptr("/evidence_id"),
    );
    let early_case = format!("/v1/cases/{}/evidence", fixture.open_case);
    add("append to a case too early", &early_case, evidence(&fixture.committed), 409, early, At::Parameter("id"));
    let nobody = format!("/v1/cases/{}/evidence", forged(&fixture.case));
    add("append to nobody's case", &nobody, evidence(&fixture.committed), 404, "case_not_found", At::Parameter("id"));
    add(
        "append to nonsense",
        "/v1/cases/7/evidence",
        evidence(&fixture.committed),
        400,
        "id_malformed",
        At::Parameter("id"),
    );
}

fn queries(table: &mut Table, fixture: &Fixture) {
    let mut add = |query: &str, code, name| table.query(fixture, query, code, name);
    add("colour=red", "query_parameter_unknown", "colour");
    add("13800138000=1", "query_parameter_unknown", "?");
    add("limit=1&limit=2", "query_parameter_repeated", "limit");
    for bad in ["0", "201", "-1", "abc", "", "1.0", "99999999999999999999"] {
        add(&format!("limit={bad}"), "limit_out_of_range", "limit");
    }
    add("cursor=", "cursor_invalid", "cursor");
    add("cursor=a%20b", "cursor_invalid", "cursor");
    add("cursor=abcdefgh", "cursor_invalid", "cursor");
    add(&format!("cursor={}", forged(&fixture.cursor)), "cursor_invalid", "cursor");
    add(&format!("cursor={}&state=committed", fixture.cursor), "cursor_invalid", "cursor");
    add("state=pending", "query_parameter_invalid", "state");
    add("from=yesterday", "query_parameter_invalid", "from");
    add("to=2026-13-01T00:00:00Z", "query_parameter_invalid", "to");
    add("from=2026-11-22T08:00:00Z&to=2026-11-22T08:00:00Z", "time_range_invalid", "from");
    add("digest=abc", "digest_bad_length", "digest");
    add(&format!("digest=md5:{DIGEST}"), "digest_algorithm_unknown", "digest");
    add(&format!("digest={}", DIGEST.to_uppercase()), "digest_upper_case", "digest");
    add("external_id=%ff", "query_parameter_invalid", "external_id");
    add("external_id=", "string_empty", "external_id");
    let path = format!("/v1/evidence/{}?x=1", fixture.committed);
    table.add("query on a record", fixture.get(&path), 400, "query_parameter_unknown", At::Parameter("x"));
    let path = format!("/v1/cases/{}?cursor={}", fixture.case, fixture.cursor);
    table.add("a list's cursor on a case", fixture.get(&path), 400, "cursor_invalid", At::Parameter("cursor"));
}

fn ids(table: &mut Table, fixture: &Fixture) {
    let id = At::Parameter("id");
    let mut add = |path: String, status, code, at: At| table.add(path.clone(), fixture.get(&path), status, code, at);
    for bad in ["evd_short", "7", "evd-x", &fixture.operation, &fixture.committed.to_uppercase(), "%00", "evd_%ff"] {
        add(format!("/v1/evidence/{bad}"), 400, "id_malformed", id.clone());
    }
    add(format!("/v1/operations/{}", fixture.committed), 400, "id_malformed", id.clone());
    add("/v1/cases/cas_".to_owned(), 400, "id_malformed", id);
    add(format!("/v1/evidence/{}", forged(&fixture.committed)), 404, "evidence_not_found", At::Whole);
    add(format!("/v1/evidence/{}", fixture.others), 404, "evidence_not_found", At::Whole);
    add(format!("/v1/evidence/{}/receipt", fixture.others), 404, "evidence_not_found", At::Whole);
    add(format!("/v1/operations/{}", forged(&fixture.operation)), 404, "operation_not_found", At::Whole);
    add(format!("/v1/cases/{}", forged(&fixture.case)), 404, "case_not_found", At::Whole);
    for what in ["receipt", "entry", "proof"] {
        add(format!("/v1/evidence/{}/{what}", fixture.accepted), 409, "not_committed_yet", At::Whole);
        add(format!("/v1/evidence/{}/{what}", fixture.rejected), 409, "operation_rejected", At::Whole);
    }
}

fn public(table: &mut Table) {
    let mut add = |path: String, status, code, at: At| table.add(path.clone(), Req::get(&path), status, code, at);
    let digest = At::Parameter("digest");
    add(format!("/v1/verify/md5/{DIGEST}"), 422, "digest_algorithm_unknown", At::Parameter("algorithm"));
    add(format!("/v1/verify/SHA256/{DIGEST}"), 422, "digest_algorithm_unknown", At::Parameter("algorithm"));
    add(format!("/v1/verify/sha256/{}", DIGEST.to_uppercase()), 422, "digest_upper_case", digest.clone());
    add(format!("/v1/verify/sha256/{}", &DIGEST[1..]), 422, "digest_bad_length", digest.clone());
    add("/v1/verify/sm3/zz".to_owned(), 422, "digest_not_hex", digest);
    add(format!("/v1/verify/sha256/{DIGEST}?x=1"), 400, "query_parameter_unknown", At::Parameter("x"));
    add(format!("/v1/verify/sha256/{DIGEST}?cursor=zzzz"), 400, "cursor_invalid", At::Parameter("cursor"));
    add(format!("/v1/verify/sha256/{DIGEST}?limit=0"), 400, "limit_out_of_range", At::Parameter("limit"));
    for bad in ["007", "-1", "1.0", "abc", "99999999999999999999"] {
        add(format!("/v1/entries/{bad}/entry"), 400, "id_malformed", At::Parameter("index"));
    }
    for what in ["receipt", "entry", "proof"] {
        add(format!("/v1/entries/1000000/{what}"), 404, "checkpoint_not_found", At::Whole);
    }
    add("/v1/blocks?x=1".to_owned(), 400, "query_parameter_unknown", At::Parameter("x"));
    add("/v1/blocks?cursor=zzzz".to_owned(), 400, "cursor_invalid", At::Parameter("cursor"));
    add("/v1/blocks?limit=201".to_owned(), 400, "limit_out_of_range", At::Parameter("limit"));
    for bad in ["007", "-1", "abc", DIGEST] {
        add(format!("/v1/blocks/{bad}"), 400, "id_malformed", At::Parameter("height"));
    }
    for unknown in ["0", "1000000"] {
        add(format!("/v1/blocks/{unknown}"), 404, "block_not_found", At::Whole);
    }
    for bad in ["007", "-1", "abc", &DIGEST[1..]] {
        add(format!("/v1/entries/{bad}"), 400, "id_malformed", At::Parameter("id"));
    }
    add("/v1/entries/1000000".to_owned(), 404, "checkpoint_not_found", At::Whole);
    for unknown in [DIGEST, &DIGEST.to_uppercase()] {
        add(format!("/v1/entries/{unknown}"), 404, "entry_not_found", At::Whole);
    }
    add("/v1/entries/2?x=1".to_owned(), 400, "query_parameter_unknown", At::Parameter("x"));
    for bad in ["", "?q", "?q=", "?q=%ff", &format!("?q={}", "a".repeat(254))] {
        add(format!("/v1/search{bad}"), 400, "query_parameter_invalid", At::Parameter("q"));
    }
    add("/v1/search?q=1&q=2".to_owned(), 400, "query_parameter_repeated", At::Parameter("q"));
    add("/v1/search?q=1&limit=2".to_owned(), 400, "query_parameter_unknown", At::Parameter("limit"));
    add("/log/policies/abc".to_owned(), 400, "id_malformed", At::Parameter("first_size"));
    add("/log/policies/2".to_owned(), 404, "policy_not_found", At::Whole);
    let path = At::Parameter("path");
    for bad in [
        "0/000.p/256",
        "0/0",
        "0/1000",
        "0/x000/000",
        "64/000",
        "-1/000",
        "entries/000.p/0",
        "entries/",
        "..%2fsecret",
        "0/00%30",
    ] {
        add(format!("/log/tile/{bad}"), 404, "tile_not_found", path.clone());
    }
    add("/log/tile/0/999".to_owned(), 404, "tile_not_found", At::Whole);
    add("/log/checkpoint?x=1".to_owned(), 400, "query_parameter_unknown", At::Parameter("x"));
    add("/errors/no_such_code".to_owned(), 404, "error_page_not_found", At::Parameter("code"));
    for path in [
        "/",
        "/v1",
        "/v2/evidence",
        "/v1/evidence/",
        "//v1/evidence",
        "/v1/Evidence",
        "/metrics",
        "/admin",
        "/v1/evidence/a/b/c",
    ] {
        add(path.to_owned(), 404, "route_not_found", At::Whole);
    }
    let post =
        |body: Value| Req::new("POST", "/v1/verify/batch").header("Content-Type", "application/json").json(&body);
    let good = json!({ "algorithm": "sha256", "digest": DIGEST });
    let mut add = |name: &str, body: Value, code, pointer: &str| table.add(name, post(body), 422, code, ptr(pointer));
    add("look up nothing", json!({ "items": [] }), "batch_empty", "/items");
    add("look up 101", json!({ "items": vec![good.clone(); 101] }), "batch_too_large", "/items");
    let bad = json!({ "items": [good, { "algorithm": "md5", "digest": DIGEST }] });
    add("look up by md5", bad, "digest_algorithm_unknown", "/items/1/algorithm");
    add("look up without digest", json!({ "items": [{ "algorithm": "sm3" }] }), "digest_missing", "/items/0/digest");
}

fn methods(table: &mut Table, fixture: &Fixture) {
    for (method, path) in [
        ("DELETE", "/v1/evidence"),
        ("PUT", "/v1/evidence"),
        ("PATCH", "/v1/evidence/x"),
        ("POST", "/v1/evidence/x"),
        ("GET", "/v1/evidence/batch"),
        ("GET", "/v1/evidence/files"),
        ("DELETE", "/v1/cases/x"),
        ("POST", "/v1/operations/x"),
        ("POST", "/v1/network"),
        ("POST", "/v1/blocks"),
        ("DELETE", "/v1/entries/2"),
        ("GET", "/v1/verify/batch"),
        ("POST", "/log/checkpoint"),
        ("PUT", "/log/tile/0/000"),
        ("OPTIONS", "/v1/evidence"),
        ("TRACE", "/v1/evidence"),
        ("BREW", "/v1/evidence"),
        ("POST", "/health/live"),
    ] {
        let req = Req::new(method, path).bearer(&fixture.key);
        table.add(format!("{method} {path}"), req, 405, "method_not_allowed", At::Whole);
    }
}

fn files(table: &mut Table, fixture: &Fixture) {
    let (file, metadata) = (("file", "test"), ("metadata", "{}"));
    let mut add = |name: &str, req: Req, status, code, at| table.add(name, req, status, code, at);
    let boundless = fixture.form("x").set("Content-Type", "multipart/form-data");
    add("form without boundary", boundless, 400, "multipart_invalid", At::Whole);
    add("form of nonsense", fixture.form("nonsense"), 400, "multipart_invalid", At::Whole);
    add("form that is cut", fixture.form(&multipart(&[file])[..60]), 400, "multipart_invalid", At::Whole);
    add(
        "part without a name",
        fixture.form("--XX\r\nContent-Type: text/plain\r\n\r\nx\r\n--XX--\r\n"),
        400,
        "multipart_invalid",
        At::Whole,
    );
    add("form without parts", fixture.form("--XX--\r\n"), 422, "file_part_missing", At::Part("file"));
    add("form without a file", fixture.file(&[metadata]), 422, "file_part_missing", At::Part("file"));
    add("unknown part", fixture.file(&[("image", "x")]), 422, "part_unknown", At::Part("image"));
    add("part with a strange name", fixture.file(&[("张三", "x")]), 422, "part_unknown", At::Part("?"));
    add("unknown part after the file", fixture.file(&[file, ("x", "y")]), 422, "part_unknown", At::Part("x"));
    add("two files", fixture.file(&[file, file]), 422, "part_repeated", At::Part("file"));
    add("two metadata", fixture.file(&[metadata, metadata, file]), 422, "part_repeated", At::Part("metadata"));
    add("metadata last", fixture.file(&[file, metadata]), 422, "part_out_of_order", At::Part("metadata"));
    let described = |metadata: &str| fixture.file(&[("metadata", metadata), file]);
    add("metadata that are no JSON", described("nope"), 400, "body_not_json", ptr(""));
    add("empty metadata", described(""), 400, "body_missing", At::Whole);
    add("unknown metadata", described(r#"{"name":"x"}"#), 422, "unknown_field", ptr("/name"));
    add("bad title of a file", described(r#"{"title":""}"#), 422, "string_empty", ptr("/title"));
    let wrong = format!(r#"{{"digests":{{"sha256":"{DIGEST}","sm3":"{DIGEST}"}}}}"#);
    add("another file's digest", described(&wrong), 422, "file_digest_mismatch", ptr("/digests/sm3"));
    add("another file's size", described(r#"{"size":5}"#), 422, "file_size_mismatch", ptr("/size"));
    add(
        "unknown media type",
        described(r#"{"media_type":"x-chemical/pdb"}"#),
        422,
        "media_type_invalid",
        ptr("/media_type"),
    );
    add("originals are not kept", described(r#"{"retain":true}"#), 422, "retention_unavailable", ptr("/retain"));
    let large = "x".repeat(5000);
    add("large file", fixture.file(&[("file", &large)]), 413, "file_too_large", At::Part("file"));
    add("large file in chunks", fixture.file(&[("file", &large)]).chunked(), 413, "file_too_large", At::Part("file"));
    let huge = "{}".to_owned() + &" ".repeat(300_000);
    add("huge metadata", fixture.file(&[("metadata", &huge), file]), 413, "body_too_large", At::Whole);
    let much = fixture.form(&"x".repeat(2 * 1024 * 1024));
    add("much more than a file may have", much, 413, "file_too_large", At::Part("file"));
}

/// The documented answers: (path, method, status) and the codes in its description.
fn documented() -> BTreeSet<(String, String, String)> {
    let document = serde_json::to_value(openapi_document()).unwrap();
    let mut found = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            for (status, response) in operation["responses"].as_object().unwrap() {
                for code in response["description"].as_str().unwrap().split('`') {
                    found.insert((path.clone(), method.to_uppercase(), format!("{status} {code}")));
                }
            }
        }
    }
    found
}

/// The route of a path, as the document writes it.
fn template(path: &str) -> String {
    let path = path.split('?').next().unwrap();
    let parts: Vec<&str> = path.split('/').collect();
    match parts[..] {
        ["", "v1", "evidence", "batch" | "files"] | ["", "v1", "verify", "batch"] => path.to_owned(),
        ["", "v1", kind @ ("evidence" | "operations" | "cases"), _] => format!("/v1/{kind}/{{id}}"),
        ["", "v1", kind @ ("evidence" | "cases"), _, what] => format!("/v1/{kind}/{{id}}/{what}"),
        ["", "v1", "verify", _, _] => "/v1/verify/{algorithm}/{digest}".to_owned(),
        ["", "v1", "blocks", _] => "/v1/blocks/{height}".to_owned(),
        ["", "v1", "entries", _] => "/v1/entries/{id}".to_owned(),
        ["", "v1", "entries", _, what] => format!("/v1/entries/{{index}}/{what}"),
        ["", "log", "policies", _] => "/log/policies/{first_size}".to_owned(),
        ["", "log", "tile", ..] => "/log/tile/{path}".to_owned(),
        ["", "errors", _] => "/errors/{code}".to_owned(),
        _ => path.to_owned(),
    }
}

/// What is wrong with an answer, if anything is.
fn fault(case: &Case, res: &Res, chinese: bool) -> Option<String> {
    let Case { status, code, at, .. } = case;
    if (res.status, res.header("content-type")) != (*status, Some("application/problem+json")) {
        return Some("status or content type".into());
    }
    let body = res.json();
    let place = &body["errors"][0];
    let placed = match at {
        At::Pointer(pointer) => place["pointer"] == *pointer.as_str(),
        At::Parameter(parameter) => place["parameter"] == *parameter,
        At::Header(header) => place["header"] == *header,
        At::Part(part) => place["part"] == *part,
        At::Whole => body.get("errors").is_none() || place["pointer"] == "",
    };
    let has = |word: Option<&str>| word.is_some_and(|word| !word.is_empty());
    let retryable = body["retryable"] == true;
    let checks = [
        ("code", body["code"] == *code),
        ("place", placed),
        ("status in the body", body["status"] == *status),
        ("type", body["type"] == format!("/errors/{code}")),
        ("request id", body["request_id"].as_str() == res.header("x-request-id")),
        ("challenge", *status != 401 || has(res.header("www-authenticate"))),
        ("allow", *status != 405 || has(res.header("allow"))),
        ("retry-after", res.header("retry-after").is_some() == (retryable && body.get("retry_after").is_some())),
        ("title", is_in(&body["title"], chinese)),
        ("detail", is_in(&body["detail"], chinese)),
        ("fix", is_in(&body["fix"], chinese)),
    ];
    checks.iter().find(|(_, well)| !well).map(|(name, _)| (*name).to_owned())
}

fn is_in(text: &Value, chinese: bool) -> bool {
    let text = text.as_str().unwrap_or_default();
    !text.is_empty() && text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c)) == chinese
}

/// Rates are high: the table knocks more often than anybody would.
fn patient() -> GatewayConfig {
    GatewayConfig { public_limit: None, log_limit: None, file_bytes_max: 4096, ..GatewayConfig::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_the_table_is_refused_and_changes_nothing() {
    let world = Builder { config: patient(), ..Builder::default() }.start().await;
    let fixture = Fixture::new(&world).await;
    let mut table = Table::default();
    authentication(&mut table, &fixture, &world);
    heads(&mut table, &fixture);
    whole_bodies(&mut table, &fixture);
    members(&mut table, &fixture);
    batches(&mut table, &fixture);
    cases(&mut table, &fixture);
    queries(&mut table, &fixture);
    ids(&mut table, &fixture);
    public(&mut table);
    methods(&mut table, &fixture);
    files(&mut table, &fixture);
    let (published, rows) = (world.published(), world.store.rows.lock().clone());
    let documented = documented();
    let (mut undocumented, mut faults) = (BTreeSet::new(), Vec::new());
    for case in &table.0 {
        for (language, chinese) in [("en-GB, en;q=0.9", false), ("zh-CN, zh;q=0.9, en;q=0.1", true)] {
            let res = world.send(case.req.clone().header("Accept-Language", language)).await;
            if let Some(fault) = fault(case, &res, chinese) {
                let Case { name, status, code, at, .. } = case;
                faults.push(format!(
                    "{name}: {fault}; expected {status} {code} at {at:?}, got {} {}",
                    res.status,
                    res.text()
                ));
            }
            assert_eq!(world.published(), published, "{} was published", case.name);
        }
        if !matches!(case.status, 405) && case.code != "route_not_found" {
            let method = case.req.method.clone();
            let known = (template(&case.req.path), method, format!("{} {}", case.status, case.code));
            if !documented.contains(&known) {
                undocumented.insert(known);
            }
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    assert_eq!(undocumented, BTreeSet::new());
    assert_eq!(*world.store.rows.lock(), rows);
    // A refusal leaves the idempotency key free.
    world.call(fixture.post().json(&plain())).await.expect(202);
    println!("{} lines of bad input", table.0.len());
    assert!(table.0.len() >= 110, "{}", table.0.len());
}

/// Items of a batch are refused one by one: (item, status, code, pointer below the item).
#[tokio::test(flavor = "multi_thread")]
async fn bad_items_of_a_batch_are_refused_alone() {
    let world = World::start().await;
    let digests = json!({ "sha256": DIGEST });
    let bad = [
        (json!({ "digests": digests }), 400, "idempotency_key_missing", "/idempotency_key"),
        (json!({ "idempotency_key": "", "digests": digests }), 400, "idempotency_key_invalid", "/idempotency_key"),
        (
            json!({ "idempotency_key": "k".repeat(256), "digests": digests }),
            400,
            "idempotency_key_too_long",
            "/idempotency_key",
        ),
        (json!({ "idempotency_key": "订", "digests": digests }), 400, "idempotency_key_invalid", "/idempotency_key"),
        (json!({ "idempotency_key": 1, "digests": digests }), 422, "field_type", "/idempotency_key"),
        (json!({ "idempotency_key": "k" }), 422, "digest_missing", "/digests"),
        (json!({ "idempotency_key": "k", "digests": {} }), 422, "digest_missing", "/digests"),
        (
            json!({ "idempotency_key": "k", "digests": { "md5": DIGEST } }),
            422,
            "digest_algorithm_unknown",
            "/digests/md5",
        ),
        (json!({ "idempotency_key": "k", "digests": { "sha256": "ab" } }), 422, "digest_bad_length", "/digests/sha256"),
        (json!({ "idempotency_key": "k", "digests": digests, "size": -1 }), 422, "field_out_of_range", "/size"),
        (
            json!({ "idempotency_key": "k", "digests": digests, "media_type": "x-y/z" }),
            422,
            "media_type_invalid",
            "/media_type",
        ),
        (json!({ "idempotency_key": "k", "digests": digests, "wait": 1 }), 422, "unknown_field", "/wait"),
        (json!("text"), 422, "field_type", ""),
        (json!(null), 422, "field_type", ""),
        (json!([]), 422, "field_type", ""),
    ];
    for (at, (item, ..)) in bad.iter().enumerate() {
        let body = json!({ "items": [item] });
        let answer = world.call(Req::post("/v1/evidence/batch", "-").json(&body)).await.expect(200);
        assert_eq!(answer["items"][0]["status"], bad[at].1, "{item}: {answer}");
    }
    assert_eq!(world.published(), 0);
    let mut items: Vec<Value> = bad.iter().map(|(item, ..)| item.clone()).collect();
    items.push(json!({ "idempotency_key": "sound", "digests": digests }));
    let answer = world.call(Req::post("/v1/evidence/batch", "-").json(&json!({ "items": items }))).await.expect(200);
    for (at, (item, status, code, pointer)) in bad.iter().enumerate() {
        let result = &answer["items"][at];
        assert_eq!((&result["status"], &result["problem"]["code"]), (&json!(status), &json!(code)), "{item}");
        assert_eq!(result["problem"]["errors"][0]["pointer"], format!("/items/{at}{pointer}"), "{item}");
        assert!(result.get("id").is_none());
    }
    assert_eq!(answer["items"][bad.len()]["status"], 202);
    assert_eq!(world.published(), 1);
}

/// Requests that are broken below HTTP's grammar, or never end.
#[tokio::test(flavor = "multi_thread")]
async fn broken_transfers_are_answered_and_change_nothing() {
    let config = GatewayConfig {
        body_grace: Duration::from_millis(400),
        body_bytes_per_second_min: 1024 * 1024,
        head_timeout: Duration::from_millis(500),
        ..patient()
    };
    let world = Builder { config, ..Builder::default() }.start().await;
    let post = Req::post("/v1/evidence", "broken").bearer(&world.key);
    let form = Req::post("/v1/evidence/files", "broken")
        .bearer(&world.key)
        .set("Content-Type", "multipart/form-data; boundary=XX");
    let head = |req: &Req, more: &str| {
        String::from_utf8(req.encode()).unwrap().replacen("\r\n\r\n", &format!("\r\n{more}\r\n\r\n"), 1)
    };

    let form_start = "--XX\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n";
    for (name, text) in [
        ("announced, not sent", head(&post, "Content-Length: 1000") + "{\"digests\":"),
        ("chunks that stop", head(&post, "Transfer-Encoding: chunked") + "1\r\n{\r\n"),
        ("a file that stops", head(&form, "Content-Length: 3000") + form_start + "some"),
    ] {
        let res = timeout(Duration::from_secs(10), raw(world.address, text.as_bytes())).await.unwrap();
        assert_eq!(res.expect(408)["code"], "body_timeout", "{name}");
    }

    // A trickle, for ever.
    let stream = TcpStream::connect(world.address).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    write.write_all((head(&post, "Transfer-Encoding: chunked") + "1\r\n{\r\n").as_bytes()).await.unwrap();
    let trickle = tokio::spawn(async move {
        while write.write_all(b"1\r\n \r\n").await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    });
    let res = timeout(Duration::from_secs(10), read_answer(&mut read)).await.unwrap();
    assert_eq!(res.expect(408)["code"], "body_timeout");
    trickle.abort();

    // A body without end that nobody reads: the answer comes, and the connection ends.
    for req in [Req::new("POST", "/nowhere"), Req::get("/v1/network"), post.clone().without("Authorization")] {
        let stream = TcpStream::connect(world.address).await.unwrap();
        let (mut read, mut write) = stream.into_split();
        let endless = head(&req, "Transfer-Encoding: chunked") + "1\r\n{\r\n";
        write.write_all(endless.replace("Connection: close\r\n", "").as_bytes()).await.unwrap();
        read_answer(&mut read).await;
        let ended = timeout(Duration::from_secs(10), async {
            while write.write_all(b"1\r\n \r\n").await.is_ok() {
                sleep(Duration::from_millis(20)).await;
            }
        });
        ended.await.expect("the connection ends");
    }

    // The connection ends inside the body.
    for (req, more) in [(&post, "{\"digests\":"), (&form, form_start)] {
        let stream = TcpStream::connect(world.address).await.unwrap();
        let (mut read, mut write) = stream.into_split();
        write.write_all((head(req, "Content-Length: 1000") + more).as_bytes()).await.unwrap();
        write.shutdown().await.unwrap();
        // A half-closed connection may be dropped without a word; it must not be taken for whole.
        let _ = tokio::spawn(async move { read_answer(&mut read).await }).await;
    }

    let res =
        raw(world.address, (head(&post, "Transfer-Encoding: chunked") + "zz\r\n{}\r\n0\r\n\r\n").as_bytes()).await;
    // The server below takes a broken chunk for the end of the connection.
    assert_eq!(res.expect(400)["code"], "body_incomplete");

    // What the server below refuses by itself has a status and no document.
    for (text, status) in [
        (head(&post, "Content-Length: -1"), 400),
        (head(&post, "Content-Length: 1\r\nContent-Length: 2"), 400),
        (head(&post, "Content-Length: 2\r\nTransfer-Encoding: chunked") + "{}", 400),
        ("nonsense\r\n\r\n".to_owned(), 400),
        ("GET /v1/network HTTP/9.9\r\n\r\n".to_owned(), 400),
        (head(&post, "Bad Header: x"), 400),
        (head(&post, &format!("Cookie: {}", "c".repeat(200_000))), 431),
    ] {
        let res = raw(world.address, text.as_bytes()).await;
        assert_eq!(res.status, status, "{}", &text[text.len().saturating_sub(80)..]);
    }
    // Too many headers for the parser end the same way.
    let many: String = (0..200).map(|i| format!("X-{i}: 1\r\n")).collect();
    let res = raw(world.address, head(&post, many.trim_end()).as_bytes()).await;
    assert!(matches!(res.status, 400 | 431), "{}", res.status);

    assert_eq!((world.published(), world.store.rows.lock().len()), (0, 0));
}
