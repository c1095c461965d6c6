//! `chopmark submit` against canned answers; the end-to-end suite has the real server.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use chopmark_api::{
    Lang, Problem, ProblemCode,
    ids::{EvidenceId, OperationId},
    problem::{Fault, Place},
};
use ledger_core::{entry::entry_id, receipt::Receipt};
use serde_json::json;

use crate::{
    corpus::{VALID, case, confidential, expected},
    stub::{Answer, Request, Stub},
    support::{chopmark, chopmark_in, folder, text},
};

const KEY: &str = "cm_test_stub";

fn key_file(folder: &Path) -> String {
    let path = folder.join("key");
    fs::write(&path, format!("{KEY}\n")).unwrap();
    text(&path)
}

fn id() -> EvidenceId {
    EvidenceId::from_bytes([1; 24])
}

/// A server on which the corpus' case `name` is recorded; the first answer to a POST is `first`.
fn recorded(name: &str, first: &'static str, state_then: &'static str) -> Stub {
    let part = |part: &str| fs::read(case(name).join(part)).unwrap();
    let (entry, receipt, policy) = (part("entry.json"), part("receipt.tlog-proof"), part("policy.txt"));
    Stub::start(move |request: &Request, _| {
        let operation = format!("/v1/operations/{}", OperationId::from_bytes([2; 24]));
        let record = format!("/v1/evidence/{}", id());
        let reference = |state| json!({ "id": OperationId::from_bytes([2; 24]), "state": state, "href": operation });
        let index = Receipt::parse(&String::from_utf8(receipt.clone()).unwrap()).unwrap().index.0;
        let view = |state| {
            let digests = json!({ "sha256": "00".repeat(32) });
            let checkpoint = json!({
                "size": 257, "root": "00".repeat(32), "time": "2026-09-21T13:33:50.000Z", "cosigners": [],
            });
            json!({
                "id": id(), "state": state, "operation": reference(state), "digests": digests,
                "confidential": false, "created_at": "2026-11-22T08:00:00.000Z",
                "entry": { "id": entry_id(&entry), "index": index, "href": format!("{record}/entry") },
                "block": { "height": 7, "time": "2026-11-22T08:00:00.000Z", "hash": "00".repeat(32) },
                "checkpoint": checkpoint, "warnings": [],
            })
        };
        let json = |status, value: serde_json::Value| -> Answer {
            (status, "content-type: application/json\r\n", value.to_string().into_bytes())
        };
        match request.line.as_str() {
            "POST /v1/evidence" if first == "accepted" => {
                let warnings = json!([{ "code": "guessable_content", "detail": "The file is small." }]);
                json(202, json!({ "id": id(), "operation": reference("accepted"), "warnings": warnings }))
            }
            "POST /v1/evidence" => json(201, view(first)),
            "GET /log/policy" => (200, "", policy.clone()),
            line if line == format!("GET {operation}") => {
                let rejection = (state_then == "rejected")
                    .then(|| json!({ "code": "tenant_suspended", "reason": "The tenant is suspended." }));
                let mut view = json!({
                    "id": OperationId::from_bytes([2; 24]), "state": state_then, "created_at": "2026-11-22T08:00:00.000Z",
                    "resource": { "type": "evidence", "id": id(), "href": record }, "warnings": [],
                });
                if let Some(rejection) = rejection {
                    view["rejection"] = rejection;
                }
                json(200, view)
            }
            line if line == format!("GET {record}") => json(200, view("committed")),
            line if line == format!("GET {record}/receipt") => (200, "", receipt.clone()),
            line if line == format!("GET {record}/entry") => (200, "", entry.clone()),
            _ => (404, "", Vec::new()),
        }
    })
}

fn copy(folder: &Path, name: &str, file: &str) -> PathBuf {
    let path = folder.join(file);
    fs::copy(case(name).join("file"), &path).unwrap();
    path
}

#[test]
fn a_file_is_recorded_and_its_proof_saved() {
    let folder = folder("submit");
    let (file, key) = (copy(&folder, VALID, "file.txt"), key_file(&folder));
    let stub = recorded(VALID, "accepted", "committed");
    let args =
        ["submit", &text(&file), "--server", &stub.url, "--key-file", &key, "--title", "合同"].map(str::to_owned);
    let ran = chopmark(&args);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    for said in [&id().to_string(), "entry id", "index      100", "block      7", "file.txt.tlog-proof", "warning"] {
        assert!(ran.out.contains(said), "{said} in {}", ran.out);
    }
    assert_eq!(
        fs::read(folder.join("file.txt.tlog-proof")).unwrap(),
        fs::read(case(VALID).join("receipt.tlog-proof")).unwrap()
    );
    let policy = text(&case(VALID).join("policy.txt"));
    let verified = chopmark(["verify", &text(&file), "--policy", &policy]);
    assert_eq!((verified.code, verified.last()), (0, expected(VALID).as_str()));

    let post = &stub.seen()[0];
    assert_eq!(post.header("authorization"), format!("Bearer {KEY}"));
    assert_eq!(post.header("prefer"), "wait=30");
    let sent: serde_json::Value = serde_json::from_slice(&post.body).unwrap();
    assert_eq!((sent["title"].as_str(), sent["size"].as_u64()), (Some("合同"), Some(40)));
    assert_eq!(sent["digests"].as_object().unwrap().len(), 3);
    assert!(!String::from_utf8_lossy(&post.body).contains("file.txt"), "the path must not travel");

    let json = chopmark(args.iter().chain([&"--json".to_owned()])).json();
    assert_eq!((json["state"].as_str(), json["index"].as_u64()), (Some("committed"), Some(100)));
}

#[test]
fn the_key_depends_on_the_request_alone() {
    let folder = folder("submit-key");
    let key = key_file(&folder);
    let stub = recorded(VALID, "committed", "committed");
    let run = |file: &str, more: &[&str]| {
        let file = text(&copy(&folder, VALID, file));
        let args = ["submit", &file, "--server", &stub.url, "--key-file", &key];
        assert_eq!(chopmark(args.iter().chain(more)).code, 0);
    };
    run("a", &[]);
    run("b", &[]);
    run("c", &["--title", "another"]);
    run("d", &["--idempotency-key", "order-7"]);
    let posts: Vec<Request> = stub.seen().into_iter().filter(|request| request.line.starts_with("POST")).collect();
    let keys: Vec<&str> = posts.iter().map(|post| post.header("idempotency-key")).collect();
    assert_eq!(keys[0], keys[1]);
    assert_ne!(keys[0], keys[2]);
    assert_eq!(keys[3], "order-7");
}

#[test]
fn a_different_receipt_is_never_overwritten() {
    let folder = folder("submit-overwrite");
    let (file, key) = (text(&copy(&folder, VALID, "file")), key_file(&folder));
    let stub = recorded(VALID, "committed", "committed");
    let run = |more: &[&str]| {
        let args = ["submit", &file, "--server", &stub.url, "--key-file", &key];
        chopmark(args.iter().chain(more))
    };
    assert_eq!(run(&[]).code, 0);
    assert_eq!(run(&[]).code, 0, "the same again is no conflict");
    let receipt = folder.join("file.tlog-proof");
    fs::write(&receipt, "mine").unwrap();
    let ran = run(&[]);
    assert!(ran.code == 1 && ran.err.contains("--force") && ran.err.contains(&id().to_string()), "{}", ran.err);
    assert_eq!(fs::read(&receipt).unwrap(), b"mine");
    assert_eq!(run(&["--force"]).code, 0);
    assert_ne!(fs::read(&receipt).unwrap(), b"mine");
    let left: Vec<_> = fs::read_dir(&folder).unwrap().map(|item| item.unwrap().file_name()).collect();
    assert_eq!(left.len(), 4, "{left:?}");
}

#[test]
fn a_proof_of_something_else_is_not_saved() {
    let folder = folder("submit-other");
    let (file, key) = (folder.join("file"), key_file(&folder));
    fs::write(&file, "not the file of the corpus").unwrap();
    let stub = recorded(VALID, "committed", "committed");
    let ran = chopmark(["submit", &text(&file), "--server", &stub.url, "--key-file", &key]);
    assert!(ran.code == 1 && ran.err.contains("not of this file"), "{}", ran.err);
    assert!(!folder.join("file.tlog-proof").exists());
}

#[test]
fn the_opening_is_for_its_owner() {
    let folder = folder("submit-confidential");
    let name = confidential();
    let (file, key) = (text(&copy(&folder, &name, "file")), key_file(&folder));
    let stub = recorded(&name, "committed", "committed");
    let ran = chopmark(["submit", &file, "--confidential", "--server", &stub.url, "--key-file", &key]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let mode = fs::metadata(folder.join("file.tlog-proof")).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0);
    let sent: serde_json::Value = serde_json::from_slice(&stub.seen()[0].body).unwrap();
    assert_eq!(sent["confidential"], true);
}

#[test]
fn rejections_and_delays_are_told_apart() {
    let folder = folder("submit-states");
    let (file, key) = (text(&copy(&folder, VALID, "file")), key_file(&folder));
    let rejecting = recorded(VALID, "accepted", "rejected");
    let ran = chopmark(["submit", &file, "--server", &rejecting.url, "--key-file", &key]);
    assert!(ran.code == 1 && ran.out.contains("tenant_suspended"), "{}{}", ran.out, ran.err);
    let slow = recorded(VALID, "accepted", "accepted");
    let ran = chopmark(["submit", &file, "--server", &slow.url, "--key-file", &key, "--wait", "1"]);
    assert!(ran.code == 75 && ran.out.contains("not committed yet"), "{}{}", ran.out, ran.err);
    let ran = chopmark(["submit", &file, "--server", &slow.url, "--key-file", &key, "--wait", "0"]);
    assert_eq!(ran.code, 0);
    assert!(!folder.join("file.tlog-proof").exists());
}

fn problem(problem: &Problem) -> Vec<u8> {
    serde_json::to_vec(&problem.render(Lang::En, Some("req_7"))).unwrap()
}

#[test]
fn busy_servers_are_asked_again_and_refusals_explained() {
    let folder = folder("submit-busy");
    let (file, key) = (text(&copy(&folder, VALID, "file")), key_file(&folder));
    const PROBLEM: &str = "content-type: application/problem+json\r\n";
    let stub = Stub::start(|_, before| match before {
        0 => (
            503,
            "retry-after: 0\r\ncontent-type: application/problem+json\r\n",
            problem(&Problem::new(ProblemCode::QueueFull)),
        ),
        1 => (429, "retry-after: 0\r\n", Vec::new()),
        _ => {
            let fault = Fault::new(ProblemCode::StringBadCharacters).at(Place::Pointer("/title".to_owned()));
            (422, PROBLEM, problem(&fault.into()))
        }
    });
    let ran = chopmark(["submit", &file, "--server", &stub.url, "--key-file", &key]);
    assert_eq!(ran.code, 1);
    for said in ["at /title", "fix: ", "string_bad_characters", "req_7"] {
        assert!(ran.err.contains(said), "{said} in {}", ran.err);
    }
    let keys: Vec<String> = stub.seen().iter().map(|post| post.header("idempotency-key").to_owned()).collect();
    assert!(keys.len() == 3 && keys.iter().all(|key| *key == keys[0]), "{keys:?}");
}

#[test]
fn a_server_that_redirects_does_not_get_the_key_sent_on() {
    let folder = folder("submit-redirect");
    let (file, key) = (text(&copy(&folder, VALID, "file")), key_file(&folder));
    let elsewhere = Stub::start(|_, _| (200, "", Vec::new()));
    let target: &'static str = Box::leak(format!("location: {}/v1/evidence\r\n", elsewhere.url).into_boxed_str());
    let stub = Stub::start(move |_, _| (307, target, Vec::new()));
    let ran = chopmark(["submit", &file, "--server", &stub.url, "--key-file", &key]);
    assert!(ran.code == 1 && ran.err.contains("redirects"), "{}", ran.err);
    assert!(elsewhere.seen().is_empty());
}

#[test]
fn the_policy_of_the_same_server_comes_with_a_warning() {
    let folder = folder("submit-policy");
    let (file, key) = (text(&copy(&folder, VALID, "file")), key_file(&folder));
    let stub = recorded(VALID, "committed", "committed");
    let policy = folder.join("policy.txt");
    let args = ["submit", &file, "--server", &stub.url, "--key-file", &key, "--policy-out", &text(&policy)];
    let ran = chopmark(args);
    assert!(ran.code == 0 && ran.err.contains("proves nothing against that server"), "{}", ran.err);
    assert_eq!(fs::read(policy).unwrap(), fs::read(case(VALID).join("policy.txt")).unwrap());
}

#[test]
fn what_is_missing_is_named() {
    let folder = folder("submit-usage");
    let file = text(&copy(&folder, VALID, "file"));
    let key = key_file(&folder);
    let server = "http://127.0.0.1:1";
    for (args, said) in [
        (vec!["submit", &file], "--dev"),
        (vec!["submit", &file, "--server", server], "CHOPMARK_API_KEY"),
        (vec!["submit", &file, "--server", "notary", "--key-file", &key], "https://"),
        (vec!["submit", &file, &file, "--server", server, "--key-file", &key, "--idempotency-key", "k"], "one by one"),
        (vec!["submit", "none", "--server", server, "--key-file", &key], "none"),
        (vec!["submit", &file, "--server", server, "--key-file", &key, "--title", ""], "empty"),
        (vec!["submit", "-", "--server", server, "--key-file", &key], "standard input"),
    ] {
        let ran = chopmark_in(&folder, &args);
        assert_eq!(ran.code, 64, "{args:?} {}", ran.err);
        assert!(ran.err.contains(said), "{said} in {}", ran.err);
    }
    let ran = chopmark(["submit", &file, "--dev", &text(&folder)]);
    assert!(ran.code == 1 && ran.err.contains("chopmark dev --data"), "{}", ran.err);
    let ran = chopmark(["submit", &file, "--server", server, "--key-file", &key]);
    assert!(ran.code == 1 && ran.err.contains("is the server running"), "{}", ran.err);
}

#[test]
fn the_key_may_come_from_the_environment() {
    let folder = folder("submit-environment");
    let file = copy(&folder, VALID, "file");
    let stub = recorded(VALID, "committed", "committed");
    let mut command = Command::new(env!("CARGO_BIN_EXE_chopmark"));
    let output = command.arg("submit").arg(&file).args(["--server", &stub.url]).env("CHOPMARK_API_KEY", KEY).output();
    assert!(output.unwrap().status.success());
    assert_eq!(stub.seen()[0].header("authorization"), format!("Bearer {KEY}"));
}
