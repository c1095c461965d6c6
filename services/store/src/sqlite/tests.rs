//! What takes a look behind the ports: failures of a connection, readers beside a writer, plans.

use std::time::{Duration, Instant};

use chopmark_domain::{
    ports::{OperationStore as _, PortError},
    record::{AcceptedOperation, ListQuery, SealedPrivate, StateFilter},
};
use diesel::{QueryableByName, RunQueryDsl as _, connection::SimpleConnection as _, sql_query, sql_types::Text};
use ledger_core::{
    hash::{Hash32, tagged},
    operation::OperationType,
};
use tempfile::TempDir;

use super::*;

async fn open() -> (TempDir, SqliteStore) {
    let folder = TempDir::new().unwrap();
    let store = SqliteStore::open(&format!("sqlite:{}", folder.path().join("chopmark.db").display())).await.unwrap();
    (folder, store)
}

fn op(number: u64) -> Hash32 {
    tagged("op", &[&number.to_be_bytes()])
}

fn key(number: u64) -> ResourceKey {
    ResourceKey::of(&op(number), 0)
}

fn accepted(number: u64) -> AcceptedOperation {
    AcceptedOperation {
        network: "sandbox".to_owned(),
        tenant: "ten_first".to_owned(),
        key: key(number),
        op: op(number),
        kind: OperationType::Evidence,
        request: Hash32::ZERO,
        operation_hash: Hash32::ZERO,
        accepted_at: number,
        private: Some(SealedPrivate { sealed: vec![0; 2000], external_index: None }),
    }
}

async fn on_writer(store: &SqliteStore, sql: &'static str) {
    store.writer.run(move |connection| Ok(connection.batch_execute(sql)?)).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_is_said_and_passes() {
    let (_folder, store) = open().await;
    store.insert_accepted(vec![accepted(1)]).await.unwrap();
    on_writer(&store, "PRAGMA max_page_count = 100").await;
    let batch: Vec<_> = (2..1000).map(accepted).collect();
    let error = store.insert_accepted(batch.clone()).await.unwrap_err();
    assert!(matches!(error, PortError::DiskFull("database")), "{error}");
    assert!(store.find("sandbox", "ten_first", &[key(2)]).await.unwrap()[0].is_none());

    // The next call has a new connection, and that the limit of a new disk.
    store.insert_accepted(batch).await.unwrap();
    assert!(store.find("sandbox", "ten_first", &[key(1), key(2), key(999)]).await.unwrap().iter().all(Option::is_some));
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_do_not_wait_for_a_writer() {
    let (_folder, store) = open().await;
    store.insert_accepted(vec![accepted(1)]).await.unwrap();
    let (release, held) = std::sync::mpsc::sync_channel::<()>(1);
    let (started, writing) = tokio::sync::oneshot::channel();
    let writer = store.clone();
    let slow = tokio::spawn(async move {
        let work = move |connection: &mut _| {
            failure::write(connection, |connection| {
                accept::insert_all(connection, &[accepted(2)])?;
                started.send(()).unwrap();
                held.recv().unwrap();
                Ok(())
            })
        };
        writer.writer.run(work).await
    });
    writing.await.unwrap();

    let begin = Instant::now();
    let reads: Vec<_> = (0..64)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.find("sandbox", "ten_first", &[key(1), key(2)]).await.unwrap() })
        })
        .collect();
    for read in reads {
        let rows = read.await.unwrap();
        assert!(rows[0].is_some() && rows[1].is_none(), "what is not committed is not seen");
    }
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    release.send(()).unwrap();
    slow.await.unwrap().unwrap();
    assert!(store.find("sandbox", "ten_first", &[key(2)]).await.unwrap()[0].is_some());
}

#[tokio::test]
async fn a_file_held_by_another_process_is_unavailable() {
    let (folder, store) = open().await;
    let mut other = connect::connect(&folder.path().join("chopmark.db"), Role::Writer).unwrap();
    other.batch_execute("BEGIN IMMEDIATE").unwrap();
    on_writer(&store, "PRAGMA busy_timeout = 50").await;
    let error = store.insert_accepted(vec![accepted(1)]).await.unwrap_err();
    assert!(matches!(error, PortError::Unavailable { port: "database", .. }), "{error}");
    other.batch_execute("COMMIT").unwrap();
    store.insert_accepted(vec![accepted(1)]).await.unwrap();
}

#[tokio::test]
async fn a_panic_costs_one_call() {
    let (_folder, store) = open().await;
    let panicking = |connection: &mut _| failure::write(connection, |_| -> Result<(), _> { panic!("on purpose") });
    assert!(matches!(store.writer.run(panicking).await, Err(PortError::Broken { .. })));
    store.insert_accepted(vec![accepted(1)]).await.unwrap();
}

#[tokio::test]
async fn every_connection_keeps_commits_through_a_power_loss() {
    #[derive(QueryableByName)]
    struct Settings {
        #[diesel(sql_type = Text)]
        settings: String,
    }
    let (_folder, store) = open().await;
    for pool in [&store.writer, &store.readers] {
        let settings = pool
            .run(|connection| {
                let query = "SELECT synchronous || ' ' || foreign_keys || ' ' || journal_mode AS settings FROM \
                    pragma_synchronous, pragma_foreign_keys, pragma_journal_mode";
                Ok(sql_query(query).get_result::<Settings>(connection)?.settings)
            })
            .await
            .unwrap();
        assert_eq!(settings, "2 1 wal");
    }
}

#[derive(QueryableByName)]
struct Plan {
    #[diesel(sql_type = Text)]
    detail: String,
}

async fn plan(store: &SqliteStore, query: ListQuery) -> String {
    let work = move |connection: &mut _| {
        let text = diesel::debug_query(&read::select(&query)?).to_string();
        let text = text.split(" -- binds").next().unwrap_or_default().to_owned();
        let plan: Vec<Plan> = sql_query(format!("EXPLAIN QUERY PLAN {text}")).load(connection)?;
        Ok(plan.into_iter().map(|step| step.detail).collect::<Vec<_>>().join("\n"))
    };
    store.readers.run(work).await.unwrap()
}

/// A page must not cost a walk through a tenant's whole history.
#[tokio::test]
async fn lists_use_their_indexes() {
    let (_folder, store) = open().await;
    let all = ListQuery {
        network: "sandbox".to_owned(),
        tenant: "ten_first".to_owned(),
        kind: OperationType::Evidence,
        before: Some(10),
        limit: 10,
        state: None,
        from: None,
        to: None,
        external_index: None,
        indexes: None,
    };
    let in_order = |plan: &str| !plan.contains("TEMP B-TREE FOR ORDER BY") && !plan.contains("SCAN operations");

    for window in [all.clone(), ListQuery { from: Some(1), to: Some(2), ..all.clone() }] {
        let plan = plan(&store, window).await;
        assert!(plan.contains("operations_by_tenant (network=? AND tenant=? AND kind=? AND sequence<?)"), "{plan}");
        assert!(in_order(&plan), "{plan}");
    }
    for state in [StateFilter::Accepted, StateFilter::Rejected] {
        let plan = plan(&store, ListQuery { state: Some(state), ..all.clone() }).await;
        assert!(plan.contains("operations_uncommitted (network=? AND tenant=? AND kind=? AND state=?"), "{plan}");
        assert!(in_order(&plan), "{plan}");
    }
    for state in [None, Some(StateFilter::Accepted)] {
        let by_external = ListQuery { external_index: Some(Hash32::ZERO), state, ..all.clone() };
        let plan_of_external = plan(&store, by_external).await;
        assert!(plan_of_external.contains("private_parts_by_external"), "{plan_of_external}");
        assert!(plan_of_external.contains("USING INTEGER PRIMARY KEY (rowid=?)"), "{plan_of_external}");
        let by_leaf = ListQuery { indexes: Some(vec![1, 2]), state, ..all.clone() };
        let plan_of_leaf = plan(&store, by_leaf).await;
        assert!(plan_of_leaf.contains("operations_by_leaf (network=? AND leaf_index=?"), "{plan_of_leaf}");
    }
}
