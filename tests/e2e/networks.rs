//! The live network and the sandbox of one deployment, at the same gateways: keys select, and nothing crosses.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;

use chopmark_tests::{
    Answer, Api, binary, evidence, last_line, sha256,
    stack::{COMMITTERS, Stack},
    verify,
};
use serde_json::{Value, json};

/// Problem codes that say "no such thing of yours".
const NOT_THERE: [&str; 6] = [
    "evidence_not_found",
    "operation_not_found",
    "case_not_found",
    "webhook_endpoint_not_found",
    "webhook_delivery_not_found",
    "cursor_invalid",
];

/// What one network knows of its tenant.
struct Known {
    evidence: String,
    operation: String,
    case: String,
    endpoint: String,
    delivery: String,
    cursor: String,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

impl Known {
    /// The same requests with the same keys, whatever the network.
    async fn make(api: &Api, shared: &[u8], own: &[u8]) -> Self {
        let hook = json!({ "url": "http://127.0.0.1:9/hook" });
        let endpoint = text(&api.post("/v1/webhooks/endpoints", "hook", 0, &hook).await.unwrap().body["id"]);
        let first = api.notarize("first", shared).await.unwrap();
        assert_eq!((first.status, &first.body["state"]), (201, &json!("committed")), "{}", first.body);
        let second = api.notarize("second", own).await.unwrap();
        assert_eq!(second.status, 201, "{}", second.body);
        let case = api.post("/v1/cases", "case", 30, &json!({})).await.unwrap();
        assert_eq!(case.status, 201, "{}", case.body);
        let page = api.get("/v1/evidence?limit=1").await.unwrap();
        // The outbox is written with the block that made the evidence committed.
        let deliveries = api.get("/v1/webhooks/deliveries?limit=1").await.unwrap();
        Self {
            evidence: text(&first.body["id"]),
            operation: text(&first.body["operation"]["id"]),
            case: text(&case.body["id"]),
            endpoint,
            delivery: text(&deliveries.body["items"][0]["id"]),
            cursor: text(&page.body["next_cursor"]),
        }
    }

    fn reads(&self) -> Vec<String> {
        let Self { evidence, operation, case, endpoint, delivery, cursor } = self;
        let mut paths: Vec<_> =
            ["", "/receipt", "/entry", "/proof"].map(|of| format!("/v1/evidence/{evidence}{of}")).into();
        paths.extend([
            format!("/v1/operations/{operation}"),
            format!("/v1/cases/{case}"),
            format!("/v1/webhooks/endpoints/{endpoint}"),
            format!("/v1/webhooks/deliveries/{delivery}"),
            format!("/v1/evidence?cursor={cursor}"),
        ]);
        paths
    }

    fn writes(&self) -> Vec<(String, Value)> {
        let Self { evidence: id, case, endpoint, delivery, .. } = self;
        vec![
            (format!("/v1/cases/{case}/evidence"), json!({ "evidence_id": id })),
            (format!("/v1/webhooks/endpoints/{endpoint}/test"), json!({})),
            (format!("/v1/webhooks/endpoints/{endpoint}/secret"), json!({})),
            (format!("/v1/webhooks/deliveries/{delivery}/replay"), json!({})),
        ]
    }
}

fn is_not_there(path: &str, answer: &Answer) {
    let code = answer.body["code"].as_str().unwrap_or_default();
    assert!(NOT_THERE.contains(&code), "{path}: {} {}", answer.status, answer.body);
}

/// The key alone, without a prefix in the path.
fn bare(api: &Api) -> Api {
    Api { base: api.base.trim_end_matches("/sandbox").to_owned(), ..api.clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_select_and_nothing_crosses() {
    let stack = Stack::start_live().await.unwrap();
    let live = stack.live.clone().unwrap();
    let sandbox = stack.gateways.clone();
    assert!(sandbox[0].base.ends_with("/sandbox") && bare(&sandbox[0]).base == live[0].base);

    // One tenant's name, one request, one idempotency key: two records.
    let of_live = Known::make(&live[0], b"both", b"live only").await;
    let of_sandbox = Known::make(&bare(&sandbox[0]), b"both", b"sandbox only").await;
    assert_ne!(of_live.evidence, of_sandbox.evidence);

    // Any gateway, and nothing of the other network by any id or cursor.
    for (own, api, other) in [(&of_live, &live[1], &of_sandbox), (&of_sandbox, &bare(&sandbox[1]), &of_live)] {
        for path in own.reads() {
            assert_eq!(api.get(&path).await.unwrap().status, 200, "{path}");
        }
        for path in other.reads() {
            is_not_there(&path, &api.get(&path).await.unwrap());
        }
        for (path, body) in other.writes() {
            is_not_there(&path, &api.post(&path, "crossing", 0, &body).await.unwrap());
        }
    }

    paths_select(&live[0], &sandbox[0]).await;
    public_reads_are_of_one_network(&live[0], &sandbox[0]).await;
    receipts_are_of_one_network(&stack, &live[0], &of_live, &sandbox[0], &of_sandbox).await;
    the_command_line_follows(&stack).await;
    what_is_said_of_a_tenant_is_said_in_one_network(&stack, &live[0], &sandbox[0]).await;
    one_stands_still_and_the_other_goes_on(&stack, &live, &sandbox[0]).await;
}

/// A path with a prefix is of the sandbox, whatever the key.
async fn paths_select(live: &Api, sandbox: &Api) {
    let crossed = Api { key: live.key.clone(), ..sandbox.clone() };
    let answer = crossed.get("/v1/evidence").await.unwrap();
    assert_eq!((answer.status, &answer.body["code"]), (401, &json!("api_key_wrong_network")));
    let answer = sandbox.get("/v1/evidence?limit=1").await.unwrap();
    let href = text(&answer.body["items"][0]["operation"]["href"]);
    assert!(href.starts_with("/sandbox/v1/operations/"), "{href}");
    // Links lead back into the same network.
    assert_eq!(bare(sandbox).get(&href).await.unwrap().status, 200);
    let verify = text(&answer.body["items"][0]["links"]["verify"]);
    assert_eq!(bare(sandbox).public(&verify).await.unwrap().0, 200);
    let (status, _) = bare(sandbox).public("/sandboxed/v1/network").await.unwrap();
    assert_eq!(status, 404);
}

async fn public_reads_are_of_one_network(live: &Api, sandbox: &Api) {
    for (api, name, own, others) in
        [(live, "live", &b"live only"[..], &b"sandbox only"[..]), (sandbox, "sandbox", b"sandbox only", b"live only")]
    {
        let public = async |path: &str| {
            let (status, body) = api.public(path).await.unwrap();
            assert_eq!(status, 200, "{path}");
            serde_json::from_slice::<Value>(&body).unwrap()
        };
        let network = public("/v1/network").await;
        assert_eq!(network["network"], name);
        assert_eq!(network["origin"], format!("{name}.localhost/log"));
        for (content, records) in [(own, 1), (&b"both"[..], 1), (others, 0)] {
            let found = public(&format!("/v1/verify/sha256/{}", sha256(content))).await;
            assert_eq!(found["records"].as_array().unwrap().len(), records, "{name}: {found}");
        }
        let (_, checkpoint) = api.public("/log/checkpoint").await.unwrap();
        assert!(String::from_utf8(checkpoint).unwrap().starts_with(&format!("{name}.localhost/log\n")));
    }
}

async fn receipts_are_of_one_network(stack: &Stack, live: &Api, of_live: &Known, sandbox: &Api, of_sandbox: &Known) {
    let at = |name: &str| stack.folder().join(name);
    let file = at("both");
    fs::write(&file, b"both").unwrap();
    let policies = [at("live-policy.txt"), at("policy.txt")];
    for (number, (api, known)) in [(live, of_live), (sandbox, of_sandbox)].into_iter().enumerate() {
        let (entry, receipt) = (at(&format!("{number}.entry.json")), at(&format!("{number}.tlog-proof")));
        for (of, path) in [("entry", &entry), ("receipt", &receipt)] {
            let (status, bytes) = api.bytes(&format!("/v1/evidence/{}/{of}", known.evidence)).await.unwrap();
            assert_eq!(status, 200);
            fs::write(path, bytes).unwrap();
        }
        let (said, code) = verify(&file, &entry, &receipt, &policies[number]).unwrap();
        assert!(code == 0 && said.starts_with("VALID"), "{said}");
        let (said, code) = verify(&file, &entry, &receipt, &policies[1 - number]).unwrap();
        assert!(code == 1 && said.starts_with("INVALID"), "{said}");
    }
}

/// `chopmark submit --dev` with either network's description.
async fn the_command_line_follows(stack: &Stack) {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(stack.folder().join("live.json"), folder.path().join("dev.json")).unwrap();
    for (name, dev) in [("of-sandbox", stack.folder()), ("of-live", folder.path())] {
        let file = folder.path().join(name);
        fs::write(&file, name).unwrap();
        let mut command = std::process::Command::new(binary());
        command.arg("submit").arg(&file).arg("--dev").arg(dev);
        let (said, code) = last_line(&mut command).unwrap();
        assert_eq!(code, 0, "{name}: {said}");
    }
}

async fn what_is_said_of_a_tenant_is_said_in_one_network(stack: &Stack, live: &Api, sandbox: &Api) {
    let write =
        async |api: &Api, key: &str| api.post("/v1/evidence", key, 0, &evidence(key.as_bytes())).await.unwrap().status;
    // Gateways hear of it within seconds.
    let becomes = async |expected: u16| {
        let mut tries = 0;
        while write(sandbox, &format!("becomes-{expected}-{tries}")).await != expected {
            tries += 1;
            assert!(tries < 300, "the sandbox does not answer {expected}");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    stack.admin(&["tenant", "suspend", Stack::TENANT]).await.unwrap();
    becomes(403).await;
    assert_eq!(write(live, "meanwhile").await, 202);
    stack.admin(&["tenant", "resume", Stack::TENANT]).await.unwrap();
    becomes(202).await;
    let listed = stack.admin_of("live-admin.toml", &["key", "list", Stack::TENANT, "--json"]).await.unwrap();
    let key: Value = serde_json::from_str(listed.lines().next().unwrap()).unwrap();
    assert_eq!(key["network"], "live", "{listed}");
}

async fn one_stands_still_and_the_other_goes_on(stack: &Stack, live: &[Api; 2], sandbox: &Api) {
    for committer in COMMITTERS {
        stack.kill(committer).await.unwrap();
    }
    let answer = live[1].notarize("sandbox-stands-still", b"goes on").await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.body);
    let waiting = sandbox.post("/v1/evidence", "waits", 0, &evidence(b"waits")).await.unwrap();
    assert_eq!(waiting.status, 202, "{}", waiting.body);
    stack.start_again(&COMMITTERS).await.unwrap();
    let operation = text(&waiting.body["operation"]["id"]);
    assert_eq!(sandbox.ended(&operation).await.unwrap()["state"], "committed");

    stack.kill("live-committer-0").await.unwrap();
    let answer = sandbox.notarize("live-stands-still", b"goes on too").await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.body);
    stack.start_again(&["live-committer-0"]).await.unwrap();
}
