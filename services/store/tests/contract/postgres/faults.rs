//! A server that hangs, is busy, ends connections, or is killed; and many that write at once.

use std::{
    collections::BTreeSet,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use chopmark_domain::ports::{OperationStore as _, PortError, PortResult, ProjectionStore as _};
use chopmark_store::{PostgresRole, PostgresStore};
use diesel::connection::SimpleConnection as _;
use tempfile::TempDir;

use super::{Database, Roles, SUPERUSER, Server, count, eventually, lines};
use crate::fixtures::*;

fn is_unavailable<T>(result: &PortResult<T>) -> bool {
    matches!(result, Err(PortError::Unavailable { port: "database", .. }))
}

fn terminate_all(database: &Database) -> i64 {
    let query = format!(
        "SELECT count(pg_terminate_backend(pid)) AS count FROM pg_stat_activity
         WHERE datname = '{}' AND pid <> pg_backend_pid()",
        database.name
    );
    count(&mut database.connect(SUPERUSER), &query).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_were_ended_while_idle_are_replaced_unnoticed() {
    let Some(server) = Server::find() else { return };
    let database = server.empty();
    database.migrate().await;
    let store = database.open().await;
    for round in 0..3 {
        // As many at once as there are connections.
        let calls = (0..9).map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                store.insert_accepted(vec![attempt(10 * round + number, 1)]).await.unwrap();
                assert!(row(&store, 10 * round + number).await.is_some());
            })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.unwrap();
        }
        assert!(terminate_all(&database) >= 2);
    }
    assert_eq!(listed(&store, everything(), 30).await.len(), 27);
}

#[tokio::test]
async fn a_lock_that_another_session_holds_is_waited_for_within_bounds() {
    let Some(server) = Server::find() else { return };
    let database = server.empty();
    database.migrate().await;
    let (short, long) = (Duration::from_millis(100), Duration::from_secs(60));
    for (statement_timeout, lock_timeout, cause) in [(long, short, "lock timeout"), (short, long, "statement timeout")]
    {
        let mut settings = database.settings(PostgresRole::Committer);
        (settings.statement_timeout, settings.lock_timeout) = (statement_timeout, lock_timeout);
        let store = PostgresStore::open(settings).await.unwrap();
        let mut other = database.connect(SUPERUSER);
        other.batch_execute("BEGIN; LOCK TABLE operations").unwrap();
        let refused = store.insert_accepted(vec![attempt(1, 1)]).await;
        assert!(is_unavailable(&refused) && format!("{refused:?}").contains(cause), "{refused:?}");
        other.batch_execute("COMMIT").unwrap();
        store.insert_accepted(vec![attempt(1, 1)]).await.unwrap();
    }
}

fn signal(signal: &str, pids: &[String]) {
    assert!(Command::new("kill").arg(signal).args(pids).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_answering_is_unavailable() {
    let Some(server) = Server::find() else { return };
    let database = server.empty();
    database.migrate().await;
    let mut settings = database.settings(PostgresRole::Committer);
    settings.call_timeout = Duration::from_millis(500);
    let store = PostgresStore::open(settings).await.unwrap();
    store.insert_accepted(vec![attempt(1, 1)]).await.unwrap();
    let backends = format!(
        "SELECT pid::text AS line FROM pg_stat_activity WHERE datname = '{}' AND usename = 'chopmark_committer'",
        database.name
    );
    let backends = lines(&mut database.connect(SUPERUSER), &backends);
    signal("-STOP", &backends);
    let refused = store.insert_accepted(vec![attempt(2, 1)]).await;
    signal("-CONT", &backends);
    assert!(is_unavailable(&refused), "{refused:?}");
    eventually("the store works again", async || store.insert_accepted(vec![attempt(3, 1)]).await.is_ok()).await;
}

#[tokio::test]
async fn nobody_at_the_address_is_said() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // One that accepts and never says a word, and one that refuses. libpq's least patience is 2 s.
    let silent = format!("postgres://u@{address}/d?connect_timeout=2");
    let error = PostgresStore::migrate(&silent).await.unwrap_err();
    assert!(format!("{error:?}").contains("timeout"), "{error:?}");
    drop(listener);
    let error = PostgresStore::migrate(&silent).await.unwrap_err();
    assert!(format!("{error:?}").contains("refused"), "{error:?}");
}

/// The same operations from many tasks, each in an order of its own, new and known, while they are
/// projected: nobody waits in a circle.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn overlapping_writers_never_deadlock() {
    const TASKS: u64 = 8;
    const ROUNDS: u64 = 12;
    const OPERATIONS: u64 = 150;
    let Some(server) = Server::find() else { return };
    let database = server.empty();
    database.migrate().await;
    let stores = [database.open().await, database.open().await];
    let writers: Vec<_> = (0..TASKS)
        .map(|task| {
            let store = stores[usize::try_from(task % 2).unwrap()].clone();
            tokio::spawn(async move {
                let mut random = Seeded(task);
                for round in 0..ROUNDS {
                    let first = round * OPERATIONS / 2;
                    let mut numbers: Vec<_> = (first..first + OPERATIONS).collect();
                    match task % 3 {
                        0 => {}
                        1 => numbers.reverse(),
                        _ => numbers.sort_by_cached_key(|_| random.below(u64::MAX)),
                    }
                    // Attempts of all, and another request under every third key.
                    let row = |number: u64| {
                        if (number + task).is_multiple_of(3) {
                            other_request(number)
                        } else {
                            attempt(number, 1 + task)
                        }
                    };
                    store.insert_accepted(numbers.into_iter().map(row).collect()).await.unwrap();
                }
            })
        })
        .collect();
    let projectors: Vec<_> = stores
        .iter()
        .map(|store| {
            let store = store.clone();
            tokio::spawn(async move {
                for height in 1..=ROUNDS {
                    let first = (height - 1) * OPERATIONS / 2;
                    let settled = (first..first + OPERATIONS / 2).rev();
                    let outcomes = settled.map(|number| outcome(&attempt(number, 1), committed(height, number)));
                    store.project(block(height, outcomes.collect())).await.unwrap();
                }
            })
        })
        .collect();
    for task in writers.into_iter().chain(projectors) {
        task.await.unwrap();
    }
    let total = (ROUNDS + 1) * OPERATIONS / 2;
    let found = find(&stores[0], &(0..total).collect::<Vec<_>>()).await;
    assert!(found.iter().all(Option::is_some));
    // The server counts when its sessions have ended.
    drop(stores);
    let mut superuser = server.connect(SUPERUSER, SUPERUSER);
    let of_database = |query: &str| format!("{query} WHERE datname = '{}'", database.name);
    let sessions = of_database("SELECT count(*) AS count FROM pg_stat_activity");
    eventually("sessions end", async || count(&mut superuser, &sessions).unwrap() == 0).await;
    let deadlocks = of_database("SELECT deadlocks AS count FROM pg_stat_database");
    assert_eq!(count(&mut superuser, &deadlocks).unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_beside_writers_waits_for_them() {
    let Some(server) = Server::find() else { return };
    let database = server.empty();
    database.migrate().await;
    let store = database.open().await;
    let rows = |from: u64| (from..from + 200).map(|number| attempt(number, 1)).collect::<Vec<_>>();
    store.insert_accepted(rows(0)).await.unwrap();
    let outcomes = |height| rows(0).iter().map(|row| outcome(row, rejected(height))).collect();
    let writer = store.clone();
    let writing = tokio::spawn(async move {
        for round in 0..20 {
            writer.insert_accepted(rows(round * 20)).await.unwrap();
        }
    });
    for _ in 0..6 {
        assert!(store.project(block(1, outcomes(1))).await.unwrap());
        store.reset(NETWORK).await.unwrap();
        assert_eq!(store.cursor(NETWORK).await.unwrap(), None);
    }
    writing.await.unwrap();
}

/// A server that one test has for itself, so that it may be killed.
struct OwnServer {
    folder: TempDir,
    server: Server,
}

impl OwnServer {
    fn start() -> Self {
        use std::os::unix::fs::PermissionsExt as _;

        let readable = std::fs::Permissions::from_mode(0o755);
        let folder = tempfile::Builder::new().permissions(readable).tempdir_in("/var/tmp").unwrap();
        let server = Server { folder: folder.path().to_owned() };
        let own = Self { folder, server };
        let first = u64::from(std::process::id()) % 80;
        let started = (0..5).any(|at| {
            let _ = std::fs::remove_file(own.folder.path().join("port-base"));
            own.servers(&["start", "--port-base", &(10_000 + (first + at) % 80 * 100).to_string()])
        });
        assert!(started, "no server");
        own.server.make_roles();
        own
    }

    fn servers(&self, arguments: &[&str]) -> bool {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/native/servers.sh");
        let mut command = Command::new(script);
        command.args(arguments).arg("--data").arg(self.folder.path()).arg("postgres");
        command.output().unwrap().status.success()
    }

    /// The postmaster at once; its children end as soon as they notice.
    fn kill(&self) {
        let pid = std::fs::read_to_string(self.folder.path().join("postgres.pid")).unwrap();
        signal("-KILL", &[pid.trim().to_owned()]);
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        self.servers(&["stop"]);
    }
}

/// What was acknowledged, seen from outside.
#[derive(Default)]
struct Story {
    accepted: Mutex<BTreeSet<u64>>,
    projected: AtomicU64,
    refused: AtomicU64,
    over: AtomicBool,
}

impl Story {
    /// Whether a call was acknowledged; if not, a pause before it is repeated.
    async fn is_acknowledged<T: Send>(&self, result: PortResult<T>) -> bool {
        if result.is_ok() {
            return true;
        }
        assert!(is_unavailable(&result), "{:?}", result.err());
        self.refused.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(20)).await;
        false
    }

    async fn accept(self: Arc<Self>, store: Roles, writer: u64) {
        for batch in 0.. {
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            let numbers: Vec<_> = (0..50).map(|at| writer * 1_000_000 + batch * 50 + at).collect();
            let rows: Vec<_> = numbers.iter().map(|number| attempt(*number, 1)).collect();
            while !self.is_acknowledged(store.insert_accepted(rows.clone()).await).await {}
            self.accepted.lock().unwrap().extend(numbers);
        }
    }

    async fn project(self: Arc<Self>, store: Roles) {
        for height in 1.. {
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            let outcomes = (0..20).map(|at| 9_000_000 + height * 20 + at);
            let outcomes = outcomes.map(|number| outcome(&attempt(number, 1), committed(height, number)));
            let mut block = block(height, outcomes.collect());
            block.links = vec![link(1, height)];
            // `false` after a commit whose answer was lost.
            while !self.is_acknowledged(store.project(block.clone()).await).await {}
            self.projected.store(height, Ordering::Relaxed);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_killed_server_loses_nothing_acknowledged() {
    const KILLS: u32 = 3;
    if Server::find().is_none() {
        return;
    }
    let own = OwnServer::start();
    let database = own.server.empty();
    database.migrate().await;
    let (store, story) = (database.open().await, Arc::new(Story::default()));
    let mut tasks: Vec<_> =
        (1..4).map(|writer| tokio::spawn(Arc::clone(&story).accept(store.clone(), writer))).collect();
    tasks.push(tokio::spawn(Arc::clone(&story).project(store.clone())));
    let mut random = Seeded(11);
    for _ in 0..KILLS {
        let (accepted, projected) = (story.accepted.lock().unwrap().len(), story.projected.load(Ordering::Relaxed));
        eventually("calls go on by themselves", async || {
            story.accepted.lock().unwrap().len() > accepted + 500
                && story.projected.load(Ordering::Relaxed) > projected + 5
        })
        .await;
        tokio::time::sleep(Duration::from_millis(random.below(200))).await;
        own.kill();
        eventually("the server starts again", async || own.servers(&["start"])).await;
    }
    story.over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    assert!(story.refused.load(Ordering::Relaxed) > 0, "no kill was noticed");

    let store = database.open().await;
    let accepted: Vec<_> = story.accepted.lock().unwrap().iter().copied().collect();
    for numbers in accepted.chunks(1000) {
        assert!(find(&store, numbers).await.iter().all(Option::is_some), "an acknowledged row is gone");
        assert!(private(&store, numbers[0], 1).await.is_some());
    }
    let height = store.cursor(NETWORK).await.unwrap().unwrap().height;
    assert_eq!(height, story.projected.load(Ordering::Relaxed));
    let settled: Vec<_> = (1..=height).flat_map(|height| (0..20).map(move |at| 9_000_000 + height * 20 + at)).collect();
    for (row, number) in find(&store, &settled).await.into_iter().zip(&settled) {
        assert_eq!(row.unwrap().state, committed((number - 9_000_000) / 20, *number));
    }
    let links = store.case_links(NETWORK, TENANT, &key(1), 0, u32::MAX).await.unwrap();
    assert_eq!(links.len() as u64, height.min(10_000));
    drop(store);
}
