//! Rows per second of both databases in one run, printed for whoever changes the statements:
//! `cargo test -p chopmark-store --test contract measure -- --ignored --nocapture`. Not a benchmark: one
//! machine, whatever else it does; so the two take turns.

use std::time::{Duration, Instant};

use chopmark_domain::{
    ports::OperationStore as _,
    record::{AcceptedOperation, SealedPrivate},
};

use super::Server;
use crate::{fixtures::*, sqlite::TempSqlite};

const BATCH: u64 = 1000;
const BLOCK: u64 = 5000;
const ROUNDS: u64 = 20;
/// A sealed title and provenance.
const SEALED_BYTES: usize = 300;
/// Committers that write to PostgreSQL at once.
const COMMITTERS: u64 = 3;

fn batch(first: u64, rows: u64) -> Vec<AcceptedOperation> {
    let private = Some(SealedPrivate { sealed: vec![7; SEALED_BYTES], external_index: None });
    (first..first + rows).map(|number| AcceptedOperation { private: private.clone(), ..accepted(number) }).collect()
}

#[derive(Default)]
struct Spent {
    inserting: Duration,
    projecting: Duration,
    finding: Duration,
}

async fn round(store: &impl Store, round: u64, spent: &mut Spent) {
    let first = round * BLOCK;
    for at in 0..BLOCK / BATCH {
        let rows = batch(first + at * BATCH, BATCH);
        let begin = Instant::now();
        store.insert_accepted(rows).await.unwrap();
        spent.inserting += begin.elapsed();
    }
    let settled = batch(first, BLOCK);
    let outcomes = settled.iter().zip(first..).map(|(row, index)| outcome(row, committed(round + 1, index)));
    let block = block(round + 1, outcomes.collect());
    let begin = Instant::now();
    assert!(store.project(block).await.unwrap());
    spent.projecting += begin.elapsed();
    let begin = Instant::now();
    for number in (first..first + BLOCK).step_by(50) {
        assert!(row(store, number).await.is_some());
    }
    spent.finding += begin.elapsed();
}

#[expect(clippy::print_stdout, reason = "printing is what this test is for")]
fn say(name: &str, spent: &Spent) {
    let rate = |rows: u64, time: Duration| rows as f64 / time.as_secs_f64();
    println!(
        "{name}: insert_accepted {:.0} rows/s, project {:.0} rows/s, find of one {:.0}/s",
        rate(ROUNDS * BLOCK, spent.inserting),
        rate(ROUNDS * BLOCK, spent.projecting),
        rate(ROUNDS * BLOCK / 50, spent.finding)
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "asserts nothing"]
async fn both_databases_take_turns() {
    let Some(server) = Server::find() else { return };
    let (database, file) = (server.empty(), TempSqlite::new());
    database.migrate().await;
    let (postgres, sqlite) = (database.open().await, file.open().await);
    let (mut of_postgres, mut of_sqlite) = (Spent::default(), Spent::default());
    for at in 0..ROUNDS {
        round(&postgres, at, &mut of_postgres).await;
        round(&sqlite, at, &mut of_sqlite).await;
    }
    say("PostgreSQL", &of_postgres);
    say("SQLite", &of_sqlite);

    let begin = Instant::now();
    let committers: Vec<_> = (1..=COMMITTERS)
        .map(|committer| {
            let store = postgres.clone();
            tokio::spawn(async move {
                for at in 0..ROUNDS * BLOCK / BATCH / COMMITTERS {
                    store.insert_accepted(batch(committer * 10_000_000 + at * BATCH, BATCH)).await.unwrap();
                }
            })
        })
        .collect();
    for committer in committers {
        committer.await.unwrap();
    }
    let spent = Spent { inserting: begin.elapsed(), ..of_postgres };
    say(&format!("PostgreSQL, {COMMITTERS} committers at once"), &spent);
}
