//! What is private is nowhere in plain text: a deployment that logs all it can, and then every byte that it has
//! written is searched.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use chopmark_tests::{Answer, Api, sha256, stack::Stack};
use serde_json::{Value, json};

/// In everything that is private.
const CANARY: &str = "KANARIENVOGEL";
/// In addresses of webhooks, which the database has to have and nobody's log.
const ADDRESS: &str = "ADDRESSENVOGEL";
/// Where a secret stands on purpose: the stack's own notes, for whoever tries it out.
const NOTES: [&str; 2] = ["api.key", "dev.json"];

fn private(number: u32, confidential: bool) -> Value {
    let canary = |field: &str| format!("{CANARY}-{field}-{number}");
    json!({
        "digests": { "sha256": sha256(canary("content").as_bytes()) },
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

/// Everything that a tenant may say, and much that it may not.
async fn say_everything(api: &Api) -> Vec<String> {
    let hook = json!({ "url": format!("http://127.0.0.1:9/{ADDRESS}?token={ADDRESS}") });
    let endpoint = api.post("/v1/webhooks/endpoints", &format!("{CANARY}-hook"), 0, &hook).await.unwrap();
    let secret = endpoint.body["secret"].as_str().unwrap_or_else(|| panic!("{}", endpoint.body)).to_owned();
    for number in 0..8 {
        let (key, body) = (format!("{CANARY}-key-{number}"), private(number, number % 2 == 0));
        assert_eq!(api.post("/v1/evidence", &key, 30, &body).await.unwrap().status, 201);
    }
    let mut item = private(8, true);
    item["idempotency_key"] = json!(format!("{CANARY}-item"));
    assert!(api.post("/v1/evidence/batch", "unused", 30, &json!({ "items": [item] })).await.unwrap().status < 300);
    let case = json!({ "title": format!("{CANARY}-case"), "external_id": format!("{CANARY}-case-id") });
    assert_eq!(api.post("/v1/cases", &format!("{CANARY}-case"), 30, &case).await.unwrap().status, 201);
    let form = reqwest::multipart::Form::new()
        .text("metadata", json!({ "title": format!("{CANARY}-file-title") }).to_string());
    let file = reqwest::multipart::Part::bytes(format!("{CANARY}-file-content").into_bytes())
        .file_name(format!("{CANARY}-file-name.txt"));
    let upload = api.http.post(format!("{}/v1/evidence/files", api.base)).bearer_auth(&api.key);
    let upload = upload.header("Idempotency-Key", format!("{CANARY}-file")).multipart(form.part("file", file));
    let uploaded = upload.send().await.unwrap();
    assert_eq!(uploaded.status().as_u16(), 202, "{}", uploaded.text().await.unwrap());

    let mut bad = private(9, false);
    bad[CANARY] = json!(CANARY);
    bad["digests"]["sha256"] = json!(CANARY);
    let refused: Answer = api.post("/v1/evidence", &format!("{CANARY} {CANARY}"), 0, &bad).await.unwrap();
    assert!(refused.status >= 400);
    for path in ["/v1/evidence/", "/v1/operations/", "/v1/verify/sha256/", "/errors/", "/log/tile/", "/"] {
        assert!(api.get(&format!("{path}{CANARY}?x={CANARY}")).await.unwrap().status >= 400, "{path}");
    }
    let stranger = Api { key: format!("cm_test_{CANARY}"), ..api.clone() };
    assert_eq!(stranger.get("/v1/evidence").await.unwrap().status, 401);
    vec![secret, api.key.clone()]
}

/// Every file below a folder.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let entry = entry.unwrap();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => files(&entry.path(), found),
            kind if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
}

fn holds(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|window| window == word.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_private_is_written_anywhere_in_plain_text() {
    let stack = Stack::start_logging("trace").await.unwrap();
    let secrets = say_everything(&stack.gateways[0]).await;
    // The courier has met an address where nobody listens, and says so.
    let give_up = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let tried = async || {
        let deliveries = stack.gateways[1].get("/v1/webhooks/deliveries?limit=1").await.unwrap();
        deliveries.body["items"][0]["attempts"].as_u64().is_some_and(|attempts| attempts > 0)
    };
    while !tried().await {
        assert!(std::time::Instant::now() < give_up, "no delivery was tried");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }

    let mut found = Vec::new();
    files(stack.folder(), &mut found);
    let (mut searched, mut logs) = (0, 0);
    for path in found.iter().filter(|path| !NOTES.contains(&path.file_name().unwrap().to_str().unwrap())) {
        // Servers make and remove files while they run.
        let Ok(bytes) = fs::read(path) else { continue };
        searched += bytes.len();
        assert!(!holds(&bytes, CANARY), "{} has what is private", path.display());
        for secret in &secrets {
            assert!(!holds(&bytes, secret), "{} has a secret", path.display());
        }
        if path.extension().is_some_and(|extension| extension == "log") && path.parent() == Some(stack.folder()) {
            logs += bytes.len();
            assert!(!holds(&bytes, ADDRESS), "{} has the address of a webhook", path.display());
        }
    }
    // All was really written and really searched.
    assert!(searched > 10_000_000 && logs > 100_000, "{searched} bytes, {logs} of logs");
    let database = found.iter().filter(|path| path.starts_with(stack.servers().join("postgres")));
    assert!(database.clone().count() > 100, "the database's files are among them");
    assert!(database.into_iter().any(|path| fs::read(path).is_ok_and(|bytes| holds(&bytes, ADDRESS))));
}
