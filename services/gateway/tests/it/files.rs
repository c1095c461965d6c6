//! Files that are sent along.

use std::{path::Path, sync::Arc};

use chopmark_gateway::{GatewayConfig, ObjectOriginals};
use ledger_core::digests::Digests;
use serde_json::json;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::{
    client::{Req, read_answer},
    doubles::ThreadRandom,
    world::{Builder, World},
};

fn form(metadata: Option<&str>, file: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    if let Some(metadata) = metadata {
        body.extend_from_slice(b"--XX\r\nContent-Disposition: form-data; name=\"metadata\"\r\n");
        body.extend_from_slice(b"Content-Type: application/json\r\n\r\n");
        body.extend_from_slice(metadata.as_bytes());
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"secret-name.pdf\"\r\n");
    body.extend_from_slice(b"Content-Type: application/octet-stream\r\n\r\n");
    body.extend_from_slice(file);
    body.extend_from_slice(b"\r\n--XX--\r\n");
    body
}

fn upload(key: &str, metadata: Option<&str>, file: &[u8]) -> Req {
    Req::post("/v1/evidence/files", key)
        .set("Content-Type", "multipart/form-data; boundary=XX")
        .body(form(metadata, file))
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(found) = std::fs::read_dir(folder) else { return Vec::new() };
    found.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_hashed_and_recorded() {
    let world = World::start().await;
    let file: Vec<u8> = (0..1_000_003_u32).map(|at| at.to_le_bytes()[0]).collect();
    let digests = Digests::of(&file);
    let metadata = json!({ "title": "t", "size": file.len(), "digests": { "sm3": digests.sm3.unwrap().to_string() } });
    let accepted = world.call(upload("k", Some(&metadata.to_string()), &file)).await.expect(202);
    assert_eq!(accepted["warnings"], json!([]));
    world.commit().await;
    let view = world.get(&format!("/v1/evidence/{}", accepted["id"].as_str().unwrap())).await.expect(200);
    assert_eq!(view["digests"], serde_json::to_value(digests).unwrap());
    assert_eq!((&view["size"], &view["title"], view.get("retained")), (&json!(file.len()), &json!("t"), None));
    // The same file with digests instead of bytes is the same request.
    let body = json!({ "digests": view["digests"], "size": file.len(), "title": "t" });
    let again = world.call(Req::post("/v1/evidence", "k").json(&body)).await.expect(201);
    assert_eq!(again["id"], accepted["id"]);
    let empty = world.call(upload("empty", None, b"")).await.expect(202);
    assert_eq!(empty["warnings"][0]["code"], "empty_file");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoded_part_is_not_taken_for_the_file() {
    let world = World::start().await;
    for (encoding, status) in [
        ("Content-Transfer-Encoding: base64", 415),
        ("Content-Encoding: gzip", 415),
        ("Content-Transfer-Encoding: binary", 202),
    ] {
        let body = format!(
            "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n{encoding}\r\n\r\nYWJj\r\n--XX--\r\n"
        );
        let req = Req::post("/v1/evidence/files", encoding.split(' ').next_back().unwrap());
        let req = req.set("Content-Type", "multipart/form-data; boundary=XX").body(body.into_bytes());
        let answer = world.call(req).await;
        assert_eq!(answer.status, status, "{encoding}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn originals_are_kept_when_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let originals = ObjectOriginals::in_folder(folder.path(), Arc::new(ThreadRandom)).unwrap();
    let world = Builder { originals: Some(Arc::new(originals)), ..Builder::default() }.start().await;
    let file: Vec<u8> = (0..12_000_000_u32).map(|at| at.to_le_bytes()[1]).collect();
    let sha256 = Digests::of(&file).sha256.unwrap().to_string();
    let kept = folder.path().join("originals/ten_one");

    world.call(upload("unasked", None, &file)).await.expect(202);
    assert_eq!(names(&kept), Vec::<String>::new());

    let wrong = json!({ "retain": true, "digests": { "sha256": "0".repeat(64) } }).to_string();
    assert_eq!(world.call(upload("wrong", Some(&wrong), &file)).await.expect(422)["code"], "file_digest_mismatch");
    assert_eq!((names(&kept), names(&folder.path().join("incoming"))), (vec![], vec![]));

    let asked = r#"{"retain":true}"#;
    let accepted = world.call(upload("asked", Some(asked), &file)).await.expect(202);
    // Asking again changes nothing.
    assert_eq!(world.call(upload("asked", Some(asked), &file)).await.expect(202), accepted);
    assert_eq!(names(&kept), [sha256.as_str()]);
    assert_eq!(names(&folder.path().join("incoming")), Vec::<String>::new());
    assert_eq!(std::fs::read(kept.join(&sha256)).unwrap(), file);
    // Keeping the original or not are two requests.
    assert_eq!(world.call(upload("asked", None, &file)).await.expect(422)["code"], "idempotency_conflict");
    world.commit().await;
    let view = world.get(&format!("/v1/evidence/{}", accepted["id"].as_str().unwrap())).await.expect(200);
    assert_eq!(view["retained"], true);

    // A body that breaks off leaves nothing.
    let whole = upload("cut", Some(asked), &file).bearer(&world.key).encode();
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(&whole[..8_000_000]).await.unwrap();
    drop(stream);
    for _ in 0..100 {
        if names(&folder.path().join("incoming")).is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!((names(&folder.path().join("incoming")), names(&kept).len()), (vec![], 1));
}

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// 256 MiB through the server, 1 GiB with LONG=1, while memory grows by less than 64 MiB. In a
/// process of its own, because other tests have memory too.
#[test]
fn large_files_stream_through_little_memory() {
    let test = std::env::current_exe().unwrap();
    let mut child = std::process::Command::new(test);
    child.args(["files::a_large_file", "--exact", "--ignored", "--nocapture"]);
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    assert!(output.status.success() && text.contains("1 passed"), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by large_files_stream_through_little_memory in a process of its own"]
async fn a_large_file() {
    const MIB: u64 = 1024 * 1024;
    let size = if std::env::var_os("LONG").is_some() { 1024 * MIB } else { 256 * MIB };
    let folder = tempfile::tempdir().unwrap();
    let originals = ObjectOriginals::in_folder(folder.path(), Arc::new(ThreadRandom)).unwrap();
    let world = Builder {
        originals: Some(Arc::new(originals)),
        config: GatewayConfig { file_bytes_max: 2 * 1024 * MIB, ..GatewayConfig::default() },
        ..Builder::default()
    }
    .start()
    .await;
    // One small upload first, so that threads and pools exist.
    world.call(upload("warm", Some(r#"{"retain":true}"#), &vec![1; 6_000_000])).await.expect(202);
    let form = String::from_utf8(form(Some(r#"{"retain":true}"#), b"@@")).unwrap();
    let (start, end) = form.split_once("@@").unwrap();
    let length = start.len() as u64 + size + end.len() as u64;
    let head = Req::post("/v1/evidence/files", "large")
        .set("Content-Type", "multipart/form-data; boundary=XX")
        .header("Content-Length", length.to_string())
        .bearer(&world.key)
        .encode();
    let before = resident();
    let stream = TcpStream::connect(world.address).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    write.write_all(&head).await.unwrap();
    write.write_all(start.as_bytes()).await.unwrap();
    let chunk = vec![0x5a; usize::try_from(MIB).unwrap()];
    let mut most = 0;
    for _ in 0..size / MIB {
        write.write_all(&chunk).await.unwrap();
        most = most.max(resident());
    }
    write.write_all(end.as_bytes()).await.unwrap();
    let accepted = read_answer(&mut read).await.expect(202);
    assert_eq!(accepted["warnings"], json!([]));
    let grown = most.saturating_sub(before);
    println!("{} MiB sent, memory grew by {} MiB", size / MIB, grown / MIB);
    assert!(grown < 64 * MIB, "{} MiB", grown / MIB);
}
