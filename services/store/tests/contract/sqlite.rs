//! SQLite on a file: the contract's back-end, and what only processes and files can show.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread::sleep,
    time::Duration,
};

use chopmark_domain::{
    ports::{OperationStore as _, PortError, ProjectionStore as _, TenantStore as _},
    record::OperationState,
};
use chopmark_store::{OpenError, SqliteStore};
use tempfile::TempDir;

use crate::fixtures::*;

/// A file in a folder of its own, gone with the test.
pub(crate) struct TempSqlite {
    folder: TempDir,
}

impl TempSqlite {
    pub(crate) fn new() -> Self {
        Self { folder: TempDir::new().expect("a temporary folder") }
    }

    fn url(&self) -> String {
        format!("sqlite:{}", self.file())
    }

    pub(crate) fn file(&self) -> String {
        self.path("chopmark.db").display().to_string()
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }
}

impl Backend for TempSqlite {
    type Store = SqliteStore;

    async fn fresh() -> Option<Self> {
        Some(Self::new())
    }

    async fn open(&self) -> SqliteStore {
        SqliteStore::open(&self.url()).await.expect("open")
    }
}

const DATABASE_VARIABLE: &str = "CHOPMARK_TEST_DATABASE";

/// Runs one of the ignored tests below as a process of its own, on `url`.
fn child(test: &str, url: &str) -> Child {
    Command::new(std::env::current_exe().expect("this test binary"))
        .args([&format!("sqlite::{test}"), "--exact", "--ignored", "--nocapture"])
        .env(DATABASE_VARIABLE, url)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("start a child")
}

fn child_url() -> Option<String> {
    std::env::var(DATABASE_VARIABLE).ok()
}

/// Operations of the block at each height of the kill test.
const BLOCK_OPERATIONS: u64 = 200;
/// Each kill comes at another moment.
const KILLS: u64 = 12;
/// A machine slower than this has other troubles.
const FIRST_BLOCK_TIMEOUT: Duration = Duration::from_secs(60);

fn block_numbers(height: u64) -> std::ops::Range<u64> {
    BLOCK_OPERATIONS * height..BLOCK_OPERATIONS * (height + 1)
}

#[tokio::test]
#[ignore = "the child of a_killed_process_loses_nothing_acknowledged"]
async fn accept_and_project_for_ever() {
    let Some(url) = child_url() else { return };
    let store = SqliteStore::open(&url).await.unwrap();
    let first = store.cursor(NETWORK).await.unwrap().map_or(1, |cursor| cursor.height + 1);
    for height in first.. {
        store.insert_accepted(block_numbers(height).map(|number| attempt(number, 1)).collect()).await.unwrap();
        store.insert_accepted(block_numbers(height).map(|number| attempt(number, 2)).collect()).await.unwrap();
        report(&format!("accepted {height}"));
        let outcomes = block_numbers(height).map(|number| outcome(&attempt(number, 2), committed(height, number)));
        let mut block = block(height, outcomes.collect());
        block.links = vec![link(1, height)];
        assert!(store.project(block).await.unwrap());
        report(&format!("projected {height}"));
    }
}

#[expect(clippy::print_stdout, reason = "the parent reads what was acknowledged")]
fn report(line: &str) {
    println!("{line}");
}

#[tokio::test]
async fn a_killed_process_loses_nothing_acknowledged() {
    let backend = TempSqlite::new();
    let mut random = Seeded(7);
    for _ in 0..KILLS {
        let mut child = child("accept_and_project_for_ever", &backend.url());
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let (running, first_block) = mpsc::sync_channel(1);
        let reader = std::thread::spawn(move || {
            lines.fold((0, 0), |(accepted, projected), line| {
                match line.split_once(' ').map(|(what, height)| (what, height.parse().unwrap_or(0))) {
                    Some(("accepted", height)) => (height, projected),
                    Some(("projected", height)) => {
                        running.try_send(()).unwrap_or_default();
                        (accepted, height)
                    }
                    _ => (accepted, projected),
                }
            })
        });
        first_block.recv_timeout(FIRST_BLOCK_TIMEOUT).unwrap();
        sleep(Duration::from_millis(random.below(300)));
        child.kill().unwrap();
        child.wait().unwrap();
        let (accepted, projected) = reader.join().unwrap();
        check_after_kill(&backend, accepted, projected).await;
    }
}

async fn check_after_kill(backend: &TempSqlite, accepted: u64, projected: u64) {
    let store = backend.open().await;
    let height = store.cursor(NETWORK).await.unwrap().map_or(0, |cursor| cursor.height);
    assert!(height >= projected, "height {projected} was acknowledged, the cursor is at {height}");
    for at in 1..=height {
        let numbers: Vec<_> = block_numbers(at).collect();
        for (row, number) in find(&store, &numbers).await.into_iter().zip(numbers) {
            assert_eq!(row.unwrap().state, committed(at, number));
        }
        let number = block_numbers(at).start;
        assert_eq!(private(&store, number, 1).await, None);
        assert_eq!(private(&store, number, 2).await, Some(sealed(number, 2)));
    }
    for at in height + 1..=height + 2 {
        let rows = find(&store, &block_numbers(at).collect::<Vec<_>>()).await;
        let there = rows.iter().flatten().count() as u64;
        assert!(there == 0 || there == BLOCK_OPERATIONS, "a batch is there in whole or not at all");
        assert!(there > 0 || at > accepted, "batch {at} was acknowledged and is gone");
        assert!(rows.iter().flatten().all(|row| row.state == OperationState::Accepted));
    }
    let links = store.case_links(NETWORK, TENANT, &key(1), 0, u32::MAX).await.unwrap();
    assert_eq!(links.len() as u64, height);
}

#[tokio::test]
#[ignore = "the child of processes_starting_at_once_migrate_once"]
async fn open_and_write() {
    let Some(url) = child_url() else { return };
    let store = SqliteStore::open(&url).await.unwrap();
    store.insert_accepted(vec![accepted(u64::from(std::process::id()))]).await.unwrap();
    report("opened");
}

#[tokio::test]
async fn processes_starting_at_once_migrate_once() {
    for _ in 0..3 {
        let backend = TempSqlite::new();
        let children: Vec<_> = (0..4).map(|_| child("open_and_write", &backend.url())).collect();
        let mut ids = Vec::new();
        for child in children {
            ids.push(u64::from(child.id()));
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success());
            assert!(String::from_utf8_lossy(&output.stdout).contains("opened"));
        }
        let store = backend.open().await;
        assert!(find(&store, &ids).await.iter().all(Option::is_some));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_at_once_in_one_process_works_too() {
    let backend = TempSqlite::new();
    let opening: Vec<_> = (0..8)
        .map(|_| {
            let url = backend.url();
            tokio::spawn(async move { SqliteStore::open(&url).await.map(drop) })
        })
        .collect();
    for task in opening {
        task.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn what_cannot_be_opened_is_said() {
    let backend = TempSqlite::new();
    assert!(matches!(SqliteStore::open("postgres:chopmark").await, Err(OpenError::Url)));
    let missing = format!("sqlite:{}", backend.path("no/folder.db").display());
    assert!(matches!(SqliteStore::open(&missing).await, Err(OpenError::File { .. })));
    let text = backend.path("text.db");
    std::fs::write(&text, "not a database, but longer than the header of one. ".repeat(100)).unwrap();
    assert!(SqliteStore::open(&format!("sqlite:{}", text.display())).await.is_err());
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_may_read_the_files() {
    use std::os::unix::fs::PermissionsExt as _;

    let backend = TempSqlite::new();
    let store = backend.open().await;
    store.insert_accepted(vec![attempt(1, 1)]).await.unwrap();
    for entry in std::fs::read_dir(backend.folder.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
}

/// Overwrites all but the first page: what a failing disk may leave.
fn spoil(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[4096..].fill(0xa5);
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_spoilt_file_is_broken_and_not_empty() {
    let backend = TempSqlite::new();
    let store = backend.open().await;
    store.insert_accepted((0..500).map(|number| attempt(number, 1)).collect()).await.unwrap();
    drop(store);
    spoil(&backend.path("chopmark.db"));
    // Whichever page is read first: never an answer that there is no such row.
    match SqliteStore::open(&backend.url()).await {
        Err(error) => assert!(!matches!(error, OpenError::Url), "{error}"),
        Ok(store) => {
            assert!(is_broken(&store.find(NETWORK, TENANT, &[key(1)]).await));
            assert!(is_broken(&store.tenant(NETWORK, TENANT).await));
            assert!(matches!(store.insert_accepted(vec![accepted(1)]).await, Err(PortError::Broken { .. })));
        }
    }
}
