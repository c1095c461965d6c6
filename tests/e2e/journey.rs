//! The journeys of a platform and of a court, from HTTP request to offline verdict.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{fs, path::Path, process::Command};

use chopmark_tests::{Dev, binary, evidence, fsck, sha256, verify, verify_sh, verify_v2};
use ledger_core::{
    Hash32,
    checkpoint::Checkpoint,
    merkle::{Frontier, leaf_hash},
    note::Note,
    tile::{TileKind, TilePath, decode_bundle, decode_hashes},
};
use serde_json::{Value, json};

async fn save(dev: &Dev, id: &str, folder: &Path) -> (std::path::PathBuf, std::path::PathBuf) {
    let (entry, receipt) = (folder.join("entry.json"), folder.join("receipt.tlog-proof"));
    let (status, bytes) = dev.bytes(&format!("/v1/evidence/{id}/receipt")).await.unwrap();
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&bytes));
    fs::write(&receipt, bytes).unwrap();
    let (status, bytes) = dev.bytes(&format!("/v1/evidence/{id}/entry")).await.unwrap();
    assert_eq!(status, 200);
    fs::write(&entry, bytes).unwrap();
    (entry, receipt)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_notarized_and_three_verifiers_agree() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev::start(&folder.path().join("data")).await.unwrap();
    let file = folder.path().join("contract.txt");
    fs::write(&file, "the contract").unwrap();
    let created = dev.notarize("order-1", b"the contract").await.unwrap();
    assert_eq!(created.status, 201, "{}", created.body);
    assert_eq!(created.body["state"], "committed");
    let id = created.body["id"].as_str().unwrap();
    let (entry, receipt) = save(&dev, id, folder.path()).await;

    let (line, code) = verify(&file, &entry, &receipt, &dev.policy).unwrap();
    assert!(line.starts_with("VALID index=") && code == 0, "{line}");
    assert_eq!(verify_sh(&file, &entry, &receipt, &dev.policy).unwrap(), (line.clone(), 0));
    let v2 = verify_v2(&file, &entry, &receipt, &dev.policy).unwrap();
    assert_eq!(v2, (line, 0));

    fs::write(&file, "the contract, changed").unwrap();
    for verdict in [verify(&file, &entry, &receipt, &dev.policy), verify_sh(&file, &entry, &receipt, &dev.policy)] {
        assert_eq!(verdict.unwrap(), ("INVALID check=file".to_owned(), 1));
    }

    // A court looks the file up by its digest, without a key.
    let (status, bytes) = dev.public(&format!("/v1/verify/sha256/{}", sha256(b"the contract"))).await.unwrap();
    let found: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!((status, found["records"].as_array().unwrap().len()), (200, 1), "{found}");
    assert_eq!(found["records"][0]["entry"]["digests"]["sha256"], sha256(b"the contract"));
    let (_, bytes) = dev.public(&format!("/v1/verify/sha256/{}", sha256(b"another"))).await.unwrap();
    let missing: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(missing["records"], json!([]));
    let statement = missing["statement"].as_str().unwrap();
    assert!(statement.contains(&sha256(b"another")), "{statement}");

    dev.stop().unwrap();
    assert!(!folder.path().join("data/dev.json").exists());
    let (code, text) = fsck(&folder.path().join("data")).unwrap();
    assert_eq!(code, 0, "{text}");
}

/// The log never has fewer entries: two of genesis, then the tenant's.
const ENTRIES_BEFORE: u64 = 3;

/// Real receipts where trees are full, just over or just under it.
#[tokio::test(flavor = "multi_thread")]
async fn three_verifiers_accept_receipts_at_growing_sizes() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev::start(&folder.path().join("data")).await.unwrap();
    let file = folder.path().join("file");
    // At sizes 2 and 3 the log has no evidence yet: no file to judge, but an inclusion.
    let policy = fs::read(&dev.policy).unwrap();
    for (index, size) in [(0, 2), (1, 2), (2, 3)] {
        let entry = signed(&dev, &format!("/v1/entries/{index}/entry")).await;
        let receipt = signed(&dev, &format!("/v1/entries/{index}/receipt")).await;
        let verdict = ledger_core::verify::verify(None, &entry, &receipt, &policy).to_string();
        assert!(verdict.starts_with(&format!("VALID index={index} size={size} ")), "{verdict}");
    }
    let mut at = ENTRIES_BEFORE;
    for size in [4, 7, 8, 255, 256, 257, 65_537] {
        dev.fill(at..size - 1).await.unwrap();
        let content = format!("the last of {size}");
        fs::write(&file, &content).unwrap();
        let created = dev.notarize(&format!("last-{size}"), content.as_bytes()).await.unwrap().body;
        let (entry, receipt) = save(&dev, created["id"].as_str().unwrap(), folder.path()).await;
        let (line, code) = verify(&file, &entry, &receipt, &dev.policy).unwrap();
        assert!(line.starts_with(&format!("VALID index={} size={size} ", size - 1)) && code == 0, "{line}");
        assert_eq!(verify_sh(&file, &entry, &receipt, &dev.policy).unwrap(), (line.clone(), 0));
        assert_eq!(verify_v2(&file, &entry, &receipt, &dev.policy).unwrap(), (line, 0));
        // One character of the entry, still canonical JSON, still the same file.
        let altered = fs::read_to_string(&entry).unwrap().replacen("\"time\":1", "\"time\":2", 1);
        fs::write(&entry, altered).unwrap();
        let refused = ("INVALID check=inclusion".to_owned(), 1);
        assert_eq!(verify(&file, &entry, &receipt, &dev.policy).unwrap(), refused);
        assert_eq!(verify_sh(&file, &entry, &receipt, &dev.policy).unwrap(), refused);
        assert_eq!(verify_v2(&file, &entry, &receipt, &dev.policy).unwrap(), refused);
        at = size;
    }
    dev.stop().unwrap();
    let (code, text) = fsck(&folder.path().join("data")).unwrap();
    assert_eq!(code, 0, "{text}");
}

/// What is served as soon as a checkpoint covers it.
async fn signed(dev: &Dev, path: &str) -> Vec<u8> {
    for _ in 0..500 {
        let (status, bytes) = dev.public(path).await.unwrap();
        if status == 200 {
            return bytes;
        }
        assert_eq!(status, 404, "{}", String::from_utf8_lossy(&bytes));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{path} is not there");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_served_tiles_rebuild_every_root_seen() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev::start(&folder.path().join("data")).await.unwrap();
    let mut roots: Vec<(u64, Hash32)> = Vec::new();
    for round in 0..6_u32 {
        let items: Vec<Value> = (0..150)
            .map(|item| {
                let mut body = evidence(format!("file {round} {item}").as_bytes());
                body["idempotency_key"] = json!(format!("key-{round}-{item}"));
                body
            })
            .collect();
        let answer =
            dev.post("/v1/evidence/batch", &format!("batch-{round}"), 0, &json!({ "items": items })).await.unwrap();
        assert!(answer.status < 300, "{}", answer.body);
        let last = answer.body["items"][149]["operation"]["id"].as_str().unwrap().to_owned();
        assert_eq!(dev.ended(&last).await.unwrap()["state"], "committed");
        let (_, note) = dev.public("/log/checkpoint").await.unwrap();
        let note = Note::parse(std::str::from_utf8(&note).unwrap()).unwrap();
        let checkpoint = Checkpoint::parse(&note.text).unwrap();
        roots.push((checkpoint.size.0, checkpoint.root));
    }
    let size = roots.last().unwrap().0;
    assert!(size >= 903);
    let (mut tree, mut at) = (Frontier::new(), 0);
    for bundle in 0..size.div_ceil(256) {
        let width = u16::try_from((size - bundle * 256).min(256)).unwrap();
        let path = |kind| format!("/log/{}", TilePath { kind, index: bundle, width }.path());
        let (status, bytes) = dev.public(&path(TileKind::Entries)).await.unwrap();
        assert_eq!(status, 200);
        let leaves: Vec<Hash32> =
            decode_bundle(&bytes, usize::from(width)).unwrap().into_iter().map(leaf_hash).collect();
        let (_, tile) = dev.public(&path(TileKind::Hashes(0))).await.unwrap();
        assert_eq!(decode_hashes(&tile, usize::from(width)).unwrap(), leaves);
        for leaf in leaves {
            tree.push(leaf);
            at += 1;
            for (_, root) in roots.iter().filter(|(size, _)| *size == at) {
                assert_eq!(tree.root(), *root, "size {at}");
            }
        }
    }
    assert_eq!(tree.root(), roots.last().unwrap().1);
}

#[tokio::test(flavor = "multi_thread")]
async fn submit_saves_what_verify_needs() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev::start(&folder.path().join("data")).await.unwrap();
    let file = folder.path().join("photo.jpg");
    fs::write(&file, [0xff; 100_000]).unwrap();
    for mode in [&["--title", "a photo"][..], &["--confidential", "--idempotency-key", "second"][..]] {
        let submit = Command::new(binary())
            .arg("submit")
            .arg(&file)
            .args(["--dev".as_ref(), dev.data.as_os_str()])
            .arg("--force")
            .args(mode)
            .output()
            .unwrap();
        assert!(submit.status.success(), "{}", String::from_utf8_lossy(&submit.stderr));
        let (line, code) =
            chopmark_tests::last_line(Command::new(binary()).arg("verify").arg(&file).arg("--policy").arg(&dev.policy))
                .unwrap();
        assert!(line.starts_with("VALID") && code == 0, "{line}");
        let (sh, _) = verify_sh(
            &file,
            &folder.path().join("photo.jpg.entry.json"),
            &folder.path().join("photo.jpg.tlog-proof"),
            &dev.policy,
        )
        .unwrap();
        assert_eq!(sh, line);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_case_is_a_chain_in_the_order_of_the_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev::start(&folder.path().join("data")).await.unwrap();
    let case = dev.post("/v1/cases", "case", 30, &json!({ "title": "A v. B" })).await.unwrap();
    assert_eq!(case.status, 201, "{}", case.body);
    let case = case.body["id"].as_str().unwrap().to_owned();
    let mut ids = Vec::new();
    for number in 0..3 {
        let created =
            dev.notarize(&format!("evidence-{number}"), format!("evidence {number}").as_bytes()).await.unwrap();
        let id = created.body["id"].as_str().unwrap().to_owned();
        let path = format!("/v1/cases/{case}/evidence");
        let link = dev.post(&path, &format!("link-{number}"), 30, &json!({ "evidence_id": id })).await.unwrap();
        assert_eq!(link.status, 201, "{}", link.body);
        ids.push(id);
    }
    let view = dev.get(&format!("/v1/cases/{case}")).await.unwrap().body;
    let items = view["items"].as_array().unwrap();
    assert_eq!(items.iter().map(|item| item["evidence_id"].as_str().unwrap()).collect::<Vec<_>>(), ids);
    for pair in items.windows(2) {
        assert_eq!(pair[1]["previous"], pair[0]["entry_id"]);
    }
    let again =
        dev.post(&format!("/v1/cases/{case}/evidence"), "again", 30, &json!({ "evidence_id": ids[0] })).await.unwrap();
    assert_eq!(again.body["operation"]["state"], "rejected", "{}", again.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn private_values_are_nowhere_in_plain_text() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let dev = Dev::start(&data).await.unwrap();
    let count = 1000;
    let canary = |field: &str, number: usize| format!("CANARY{field}{number:04}");
    for chunk in (0..count).collect::<Vec<_>>().chunks(100) {
        let items: Vec<Value> = chunk
            .iter()
            .map(|number| {
                let mut body = evidence(canary("file", *number).as_bytes());
                body["title"] = json!(canary("title", *number));
                body["external_id"] = json!(canary("external", *number));
                body["provenance"] =
                    json!({ "operator": canary("operator", *number), "device": canary("device", *number) });
                body["idempotency_key"] = json!(canary("key", *number));
                body["confidential"] = json!(number % 2 == 0);
                body
            })
            .collect();
        let answer = dev.post("/v1/evidence/batch", "unused", 0, &json!({ "items": items })).await.unwrap();
        assert!(answer.status < 300, "{}", answer.body);
        let last = answer.body["items"][chunk.len() - 1]["operation"]["id"].as_str().unwrap().to_owned();
        dev.ended(&last).await.unwrap();
    }
    // Refused requests must not leave their values in the log either.
    for number in 0..20 {
        let body = json!({ "digests": { "sha256": canary("bad", number) }, "title": canary("title", number) });
        assert_eq!(dev.post("/v1/evidence", &canary("key", number), 0, &body).await.unwrap().status, 422);
    }
    // The owner gets them back.
    let found = dev.get(&format!("/v1/evidence?external_id={}", canary("external", 7))).await.unwrap();
    assert_eq!(found.body["items"][0]["title"], canary("title", 7), "{}", found.body);
    dev.stop().unwrap();
    let mut seen = 0;
    let mut open = vec![folder.path().to_owned()];
    while let Some(path) = open.pop() {
        for item in fs::read_dir(&path).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let bytes = fs::read(&path).unwrap();
            seen += bytes.len();
            assert!(!bytes.windows(6).any(|window| window == b"CANARY"), "a canary in {}", path.display());
        }
    }
    assert!(seen > 500_000, "the files of 1000 records");
}
