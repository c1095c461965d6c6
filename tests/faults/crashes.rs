//! Real kills, torn files, old copies: nothing acknowledged is lost or doubled, nothing signed
//! is ever contradicted.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chopmark_tests::{Dev, SmallDisk, evidence, fill_up, fsck, fsck_by, long, seeded, verify};
use ledger_core::{
    checkpoint::Checkpoint,
    merkle::{Frontier, leaf_hash},
    note::Note,
};
use rand::RngExt as _;
use serde_json::Value;

/// What the world outside was told, across all kills.
#[derive(Default)]
struct Told {
    /// Idempotency key → evidence id of a 202 or 201.
    accepted: BTreeMap<String, String>,
    /// Receipts and entries that were handed out.
    receipts: Vec<(String, Vec<u8>, Vec<u8>)>,
    /// Checkpoints in the order seen.
    checkpoints: Vec<Checkpoint>,
}

async fn load(dev: Arc<Dev>, told: Arc<Mutex<Told>>, next: Arc<AtomicU64>) {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let key = format!("key-{number}");
        // Every fifth request repeats an older key: it must get the same id.
        let key = if number % 5 == 4 { format!("key-{}", number - 3) } else { key };
        let Ok(answer) = dev.post("/v1/evidence", &key, 0, &evidence(key.as_bytes())).await else { return };
        if answer.status != 202 && answer.status != 201 {
            assert!(answer.status == 503 || answer.status == 429, "{}: {}", answer.status, answer.body);
            continue;
        }
        let id = answer.body["id"].as_str().unwrap().to_owned();
        let before = told.lock().unwrap().accepted.insert(key.clone(), id.clone());
        assert!(before.is_none_or(|before| before == id), "{key} got two ids");
    }
}

async fn watch(dev: Arc<Dev>, told: Arc<Mutex<Told>>) {
    loop {
        let Ok((status, note)) = dev.public("/log/checkpoint").await else { return };
        if status == 200 {
            let note = Note::parse(std::str::from_utf8(&note).unwrap()).unwrap();
            told.lock().unwrap().checkpoints.push(Checkpoint::parse(&note.text).unwrap());
        }
        let some = told.lock().unwrap().accepted.values().next_back().cloned();
        if let Some(id) = some {
            let (Ok((200, receipt)), Ok((200, entry))) = (
                dev.bytes(&format!("/v1/evidence/{id}/receipt")).await,
                dev.bytes(&format!("/v1/evidence/{id}/entry")).await,
            ) else {
                tokio::time::sleep(Duration::from_millis(30)).await;
                continue;
            };
            told.lock().unwrap().receipts.push((id, receipt, entry));
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_moments_under_load() {
    let mut random = seeded("killed_at_random_moments_under_load");
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (told, next) = (Arc::new(Mutex::new(Told::default())), Arc::new(AtomicU64::new(0)));
    let kills = if long() { 500 } else { 12 };
    for _ in 0..kills {
        let dev = Arc::new(Dev::start(&data).await.unwrap());
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            tasks.spawn(load(Arc::clone(&dev), Arc::clone(&told), Arc::clone(&next)));
        }
        tasks.spawn(watch(Arc::clone(&dev), Arc::clone(&told)));
        tokio::time::sleep(Duration::from_millis(random.random_range(20..1500))).await;
        let pid = rustix::process::Pid::from_raw(i32::try_from(dev.pid()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        Arc::into_inner(dev).unwrap().kill();
    }
    let told = Arc::into_inner(told).unwrap().into_inner().unwrap();
    assert!(told.accepted.len() > 50, "the load came through: {}", told.accepted.len());

    let dev = Dev::start(&data).await.unwrap();
    // The queue keeps its order: once this is committed, so is everything before it.
    assert_eq!(dev.notarize("last", b"last").await.unwrap().status, 201);
    dev.exactly_once(told.accepted.keys()).await.unwrap();
    let step = (told.accepted.len() / 300).max(1);
    for (key, id) in told.accepted.iter().step_by(step) {
        committed(&dev, id).await;
        // The same key again gets the same id.
        let again = dev.post("/v1/evidence", key, 0, &evidence(key.as_bytes())).await.unwrap();
        assert_eq!((again.status, again.body["id"].as_str()), (201, Some(id.as_str())), "{}", again.body);
    }
    for pair in told.checkpoints.windows(2) {
        assert!(pair[0].size <= pair[1].size, "checkpoints only grow: {pair:?}");
        assert!(pair[0].size < pair[1].size || pair[0].root == pair[1].root, "one root per size");
    }
    let step = (told.receipts.len() / 50).max(1);
    for (id, receipt, entry) in told.receipts.iter().step_by(step) {
        let key = told.accepted.iter().find(|(_, known)| *known == id).unwrap().0;
        assert_valid(folder.path(), key.as_bytes(), entry, receipt, &dev.policy);
        // The receipt that was handed out first stays the receipt.
        assert_eq!(dev.bytes(&format!("/v1/evidence/{id}/receipt")).await.unwrap().1, *receipt);
    }
    roots_hold(&dev, &told.checkpoints).await;
    dev.stop().unwrap();
    let (code, text) = fsck(&data).unwrap();
    assert_eq!(code, 0, "{text}");
}

async fn committed(dev: &Dev, id: &str) -> Value {
    for _ in 0..1500 {
        let answer = dev.get(&format!("/v1/evidence/{id}")).await.unwrap();
        assert_eq!(answer.status, 200, "{id}: {}", answer.body);
        match answer.body["state"].as_str() {
            Some("committed") => return answer.body,
            Some("accepted") => tokio::time::sleep(Duration::from_millis(20)).await,
            other => panic!("{id} is {other:?}"),
        }
    }
    panic!("{id} was acknowledged and never committed");
}

fn assert_valid(folder: &Path, content: &[u8], entry: &[u8], receipt: &[u8], policy: &Path) {
    let [file, entry_path, receipt_path] = ["file", "entry", "receipt"].map(|name| folder.join(name));
    fs::write(&file, content).unwrap();
    fs::write(&entry_path, entry).unwrap();
    fs::write(&receipt_path, receipt).unwrap();
    let (line, code) = verify(&file, &entry_path, &receipt_path, policy).unwrap();
    assert!(line.starts_with("VALID") && code == 0, "{line}");
}

/// Every checkpoint seen is a prefix of the log as it is now.
async fn roots_hold(dev: &Dev, seen: &[Checkpoint]) {
    let by_size: BTreeMap<u64, _> = seen.iter().map(|checkpoint| (checkpoint.size.0, checkpoint.root)).collect();
    let mut tree = Frontier::new();
    for (size, entry) in (1..).zip(dev.entries().await.unwrap()) {
        tree.push(leaf_hash(&entry));
        if let Some(root) = by_size.get(&size) {
            assert_eq!(tree.root(), *root, "the root of size {size}");
        }
    }
    assert!(by_size.last_key_value().is_some_and(|(size, _)| *size <= tree.size().0));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_a_hundred_times_across_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut answers: Vec<(String, String)> = Vec::new();
    for round in 0..3 {
        let dev = Arc::new(Dev::start(&data).await.unwrap());
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let dev = Arc::clone(&dev);
            tasks.spawn(async move { dev.post("/v1/evidence", "the-key", 0, &evidence(b"the file")).await });
        }
        if round == 0 {
            tokio::time::sleep(Duration::from_millis(15)).await;
            let pid = rustix::process::Pid::from_raw(i32::try_from(dev.pid()).unwrap()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
        while let Some(answer) = tasks.join_next().await {
            let Ok(answer) = answer.unwrap() else { continue };
            assert!(matches!(answer.status, 201 | 202), "{} {}", answer.status, answer.body);
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            answers.push((text(&answer.body["id"]), text(&answer.body["operation"]["id"])));
        }
        if round == 2 {
            let view = committed(&dev, &answers[0].0).await;
            let found =
                dev.public(&format!("/v1/verify/sha256/{}", chopmark_tests::sha256(b"the file"))).await.unwrap();
            let found: Value = serde_json::from_slice(&found.1).unwrap();
            assert_eq!(found["records"].as_array().unwrap().len(), 1);
            assert_eq!(found["records"][0]["index"], view["entry"]["index"]);
            let other = dev.post("/v1/evidence", "the-key", 0, &evidence(b"another file")).await.unwrap();
            assert_eq!((other.status, other.body["code"].as_str()), (422, Some("idempotency_conflict")));
        }
        Arc::into_inner(dev).unwrap().kill();
    }
    assert!(answers.len() >= 200);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "equal answers");
}

/// A data folder with some records in it, and the server stopped.
async fn filled(folder: &Path, records: u64) -> PathBuf {
    let data = folder.join("data");
    let dev = Dev::start(&data).await.unwrap();
    dev.fill(0..records).await.unwrap();
    dev.stop().unwrap();
    data
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_of_the_data_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = filled(folder.path(), 10).await;
    let copy = folder.path().join("copy");
    copy_folder(&data, &copy);
    let dev = Dev::start(&data).await.unwrap();
    dev.fill(10..20).await.unwrap();
    dev.stop().unwrap();
    fs::rename(&data, folder.path().join("newer")).unwrap();
    copy_folder(&copy, &data);
    let refused = Dev::start(&data).await.err().unwrap().to_string();
    assert!(refused.contains("older copy") && refused.contains("admin guard adopt"), "{refused}");
    let (code, text) = fsck(&data).unwrap();
    assert!(code == 1 && text.contains("data.guard"), "{text}");
    // The newest copy starts again.
    fs::remove_dir_all(&data).unwrap();
    fs::rename(folder.path().join("newer"), &data).unwrap();
    Dev::start(&data).await.unwrap().stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_lost_is_refused_and_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let data = filled(folder.path(), 3).await;
    for lost in ["secrets/kek.key", "secrets/ids.key", "secrets/api-keys.key", "queue", "chopmark.db"] {
        let (path, away) = (data.join(lost), folder.path().join("away"));
        fs::rename(&path, &away).unwrap();
        for _ in 0..2 {
            let refused = Dev::start(&data).await.err().unwrap().to_string();
            assert!(refused.contains("restore") && refused.contains(lost), "{refused}");
        }
        // A database that was made anew lies in the way.
        if path.exists() {
            fs::remove_file(&path).unwrap();
        }
        fs::rename(&away, &path).unwrap();
    }
    let dev = Dev::start(&data).await.unwrap();
    assert_eq!(dev.notarize("still", b"here").await.unwrap().status, 201);
    dev.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_one_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let dev = Dev::start(&data).await.unwrap();
    let refused = Dev::start(&data).await.err().unwrap().to_string();
    assert!(refused.contains("in use"), "{refused}");
    assert_eq!(dev.notarize("still", b"alive").await.unwrap().status, 201);
    dev.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn torn_last_writes_are_cut_or_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let data = filled(folder.path(), 600).await;
    let sound = folder.path().join("sound");
    copy_folder(&data, &sound);
    let guard = fs::read(folder.path().join("data.guard")).unwrap();
    let mut files = Vec::new();
    list(&data, &mut files);
    let torn = |path: &PathBuf| {
        let name = path.to_string_lossy().into_owned();
        ["node/blocks", "node/checkpoints", "queue/", "node/log/"].iter().any(|part| name.contains(part))
            && fs::metadata(path).is_ok_and(|metadata| metadata.len() > 100)
    };
    let files: Vec<PathBuf> = files.into_iter().filter(torn).collect();
    assert!(files.len() >= 5, "{files:?}");
    for path in files {
        // The last bytes of the file are gone, as if its last write had been cut off.
        let len = fs::metadata(&path).unwrap().len();
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(len - 7).unwrap();
        match Dev::start(&data).await {
            Ok(dev) => {
                // It starts only where nothing acknowledged was lost, or where the damaged part
                // is not needed to go on; it is never served.
                if let Some(tile) = path.to_string_lossy().split_once("node/log/") {
                    let bytes = fs::read(sound.join(path.strip_prefix(&data).unwrap())).unwrap();
                    assert_refused_or_healed(&dev, tile.1, &bytes).await;
                }
                dev.kill();
            }
            Err(refused) => assert!(!refused.to_string().is_empty()),
        }
        fs::remove_dir_all(&data).unwrap();
        copy_folder(&sound, &data);
        fs::write(folder.path().join("data.guard"), &guard).unwrap();
    }
    Dev::start(&data).await.unwrap().stop().unwrap();
    assert_eq!(fsck(&data).unwrap().0, 0);
}

/// The tile is not served, or as it was before, or the server has ended over it and said why.
async fn assert_refused_or_healed(dev: &Dev, tile: &str, sound: &[u8]) {
    match dev.public(&format!("/log/{tile}")).await {
        Ok((200, bytes)) => assert!(bytes == sound, "other bytes of {tile} were served"),
        Ok((status, _)) => assert!(status >= 500, "{tile}: {status}"),
        Err(_) => {
            let log = fs::read_to_string(dev.data.with_extension("log")).unwrap();
            assert!(log.contains("damaged"), "{log}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_or_altered_tile_is_named_and_never_served() {
    let folder = tempfile::tempdir().unwrap();
    let data = filled(folder.path(), 600).await;
    let notarized = {
        let dev = Dev::start(&data).await.unwrap();
        let view = dev.get("/v1/evidence?limit=200").await.unwrap().body;
        dev.stop().unwrap();
        view["items"].as_array().unwrap().clone()
    };
    for tile in ["tile/entries/001", "tile/0/001", "tile/entries/000", "tile/0/000"] {
        let path = data.join("node/log").join(tile);
        let sound = fs::read(&path).unwrap();
        let mut altered = sound.clone();
        altered[sound.len() / 2] ^= 1;
        for damage in [None, Some(&altered)] {
            match damage {
                None => fs::remove_file(&path).unwrap(),
                Some(altered) => fs::write(&path, altered).unwrap(),
            }
            let (code, text) = fsck(&data).unwrap();
            assert!(code == 1 && text.contains(tile), "{text}");
            if let Ok(dev) = Dev::start(&data).await {
                assert_refused_or_healed(&dev, tile, &sound).await;
                for item in &notarized {
                    let index = item["entry"]["index"].as_u64().unwrap();
                    let Ok((status, receipt)) =
                        dev.bytes(&format!("/v1/evidence/{}/receipt", item["id"].as_str().unwrap())).await
                    else {
                        break;
                    };
                    // A receipt is given only if it still is the right one.
                    if status == 200 {
                        let Ok((200, entry)) =
                            dev.bytes(&format!("/v1/evidence/{}/entry", item["id"].as_str().unwrap())).await
                        else {
                            continue;
                        };
                        let receipt = ledger_core::receipt::Receipt::parse(std::str::from_utf8(&receipt).unwrap());
                        assert_eq!(receipt.unwrap().index.0, index);
                        assert_eq!(ledger_core::entry::entry_id(&entry).to_string(), item["entry"]["id"]);
                    }
                }
                dev.kill();
            }
            fs::write(&path, &sound).unwrap();
        }
    }
    assert_eq!(fsck(&data).unwrap().0, 0);
    Dev::start(&data).await.unwrap().stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mounted = folder.path().join("disk");
    fs::create_dir(&mounted).unwrap();
    let Some(disk) = SmallDisk::mount(&mounted, 24).unwrap() else {
        eprintln!("SKIPPED: this user may not mount a tmpfs, so no disk was filled");
        return;
    };
    // The log of the server lies beside the disk, so that it can still tell what happened.
    let data = disk.path().join("data");
    let dev = disk.start(&data).await.unwrap();
    let ballast = disk.seen(disk.path()).join("ballast");
    let mut accepted = Vec::new();
    let mut refused = 0;
    for number in 0.. {
        if number == 20 {
            fill_up(&ballast);
        }
        let key = format!("key-{number}");
        match dev.post("/v1/evidence", &key, 0, &evidence(key.as_bytes())).await {
            Ok(answer) if answer.status < 300 => accepted.push(key),
            Ok(answer) => {
                assert_eq!(answer.status, 503, "{}", answer.body);
                refused += 1;
            }
            Err(_) => refused += 1,
        }
        if refused > 5 {
            break;
        }
    }
    let stopped = dev.stop();
    fs::remove_file(&ballast).unwrap();
    let dev = disk.start(&data).await.unwrap();
    assert_eq!(dev.notarize("last", b"last").await.unwrap().status, 201, "{stopped:?}");
    dev.exactly_once(accepted.iter()).await.unwrap();
    dev.stop().unwrap();
    let guard = disk.path().join("data.guard");
    let (code, text) = fsck_by(&mut disk.command(), &data, guard.as_os_str()).unwrap();
    assert_eq!(code, 0, "{text}");
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) {
    for item in fs::read_dir(folder).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() { list(&path, files) } else { files.push(path) }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for item in fs::read_dir(from).unwrap() {
        let path = item.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            fs::set_permissions(&target, fs::Permissions::from_mode(mode)).unwrap();
        }
    }
}
