//! Rows per second, printed for whoever changes the schema or the statements:
//! `cargo test -p chopmark-store --test measure -- --ignored --nocapture`. Not a benchmark: one run,
//! one machine, whatever else it does.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use chopmark_domain::{
    id::ResourceKey,
    ports::{OperationStore as _, ProjectionStore as _},
    record::{
        AcceptedOperation, CommittedAt, ListQuery, OperationState, ProjectedBlock, ProjectedOperation, SealedPrivate,
        StateFilter,
    },
};
use chopmark_store::SqliteStore;
use ledger_core::{
    hash::{Hash32, tagged},
    operation::OperationType,
};

const NETWORK: &str = "sandbox";
const TENANT: &str = "ten_measuremeasuremeasuremea";
const BATCH: u64 = 1000;
const BLOCK: u64 = 5000;
/// Rows at which a line is printed; the last is the size at the end.
const SIZES: [u64; 4] = [20_000, 100_000, 300_000, 1_000_000];
/// A sealed title and provenance.
const SEALED_BYTES: usize = 300;

fn op(number: u64) -> Hash32 {
    tagged("op", &[&number.to_be_bytes()])
}

fn accepted(number: u64) -> AcceptedOperation {
    let op = op(number);
    AcceptedOperation {
        network: NETWORK.to_owned(),
        tenant: TENANT.to_owned(),
        key: ResourceKey::of(&op, 0),
        op,
        kind: OperationType::Evidence,
        request: tagged("request", &[&op.0]),
        operation_hash: tagged("attempt", &[&op.0]),
        accepted_at: 1_767_225_600_000 + number,
        private: Some(SealedPrivate { sealed: vec![7; SEALED_BYTES], external_index: None }),
    }
}

fn block(height: u64) -> ProjectedBlock {
    let first = (height - 1) * BLOCK;
    let operation = |number| {
        let sent = accepted(number);
        let at = CommittedAt { index: number, entry: sent.request, height, time: sent.accepted_at };
        ProjectedOperation {
            key: sent.key,
            op: sent.op,
            tenant: sent.tenant,
            kind: sent.kind,
            request: sent.request,
            operation_hash: sent.operation_hash,
            state: OperationState::Committed(at),
        }
    };
    ProjectedBlock {
        network: NETWORK.to_owned(),
        height,
        hash: op(height),
        time: 1_767_225_600_000,
        tree_size: height * BLOCK,
        operations: (first..first + BLOCK).map(operation).collect(),
        links: Vec::new(),
    }
}

#[derive(Default)]
struct Spent {
    total: Duration,
    longest: Duration,
    cpu: Duration,
    rows: u64,
}

impl Spent {
    async fn on(&mut self, rows: u64, call: impl Future<Output = ()>) {
        let (begin, cpu_before) = (Instant::now(), cpu());
        call.await;
        let time = begin.elapsed();
        self.cpu += cpu() - cpu_before;
        self.total += time;
        self.longest = self.longest.max(time);
        self.rows += rows;
    }
}

impl std::fmt::Display for Spent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rate = self.rows as f64 / self.total.as_secs_f64();
        let cpu = self.cpu.as_secs_f64() * 1e6 / self.rows as f64;
        write!(
            f,
            "{rate:.0} rows/s ({cpu:.1} µs of CPU a row, longest call {:.0} ms)",
            self.longest.as_secs_f64() * 1e3
        )
    }
}

#[expect(clippy::print_stdout, reason = "printing is what this test is for")]
fn say(text: &str) {
    println!("{text}");
}

/// User and system time of this process, where the system tells.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().filter_map(|at| fields.get(*at)?.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes and asserts nothing"]
async fn measure() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("chopmark.db");
    let store = SqliteStore::open(&format!("sqlite:{}", path.display())).await.unwrap();
    let (mut rows, mut height) = (0, 0);
    for size in SIZES {
        let (mut inserting, mut projecting) = (Spent::default(), Spent::default());
        while rows < size {
            for _ in 0..BLOCK / BATCH {
                let batch: Vec<_> = (rows..rows + BATCH).map(accepted).collect();
                inserting.on(BATCH, async { store.insert_accepted(batch).await.unwrap() }).await;
                rows += BATCH;
            }
            height += 1;
            let block = block(height);
            projecting.on(BLOCK, async { assert!(store.project(block).await.unwrap()) }).await;
        }
        say(&format!("up to {size} rows: insert_accepted {inserting}\n   project {projecting}"));
        reads(&store, size).await;
        let log = folder.path().join("chopmark.db-wal");
        say(&format!("   database {} MiB, log {} MiB", mebibytes(&path), mebibytes(&log)));
    }
    let mut inserting = Spent::default();
    let more = rows + 20 * BLOCK;
    while rows < more {
        let batch: Vec<_> = (rows..rows + BLOCK).map(accepted).collect();
        inserting.on(BLOCK, async { store.insert_accepted(batch).await.unwrap() }).await;
        rows += BLOCK;
    }
    say(&format!("{BLOCK} rows at once: insert_accepted {inserting}"));
    let begin = Instant::now();
    store.reset(NETWORK).await.unwrap();
    say(&format!("reset of {rows} rows: {:.1} s", begin.elapsed().as_secs_f64()));
}

fn mebibytes(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len() >> 20)
}

async fn reads(store: &SqliteStore, size: u64) {
    const LOOKUPS: u64 = 20_000;
    const TASKS: u64 = 8;
    let begin = Instant::now();
    for at in 0..LOOKUPS / 4 {
        find(store, at * 7919 % size, 1).await;
    }
    let one = LOOKUPS as f64 / 4.0 / begin.elapsed().as_secs_f64();
    let begin = Instant::now();
    for at in 0..LOOKUPS / 1000 {
        find(store, at * 7919 % size, 1000).await;
    }
    let many = LOOKUPS as f64 / begin.elapsed().as_secs_f64();
    let (quiet, quiet_longest) = concurrent(store, size, TASKS, LOOKUPS).await;

    // The same beside a writer that never pauses; what it writes is there already.
    let (writer, rows) = (store.clone(), size);
    let before = cpu();
    let writing = tokio::spawn(async move {
        for at in (0..).map(|at| at * BATCH % rows) {
            writer.insert_accepted((at..at + BATCH).map(accepted).collect()).await.expect("insert_accepted");
        }
    });
    let (busy, busy_longest) = concurrent(store, size, TASKS, LOOKUPS).await;
    writing.abort();
    say(&format!(
        "   find, keys/s: one caller {one:.0}, 1000 at once {many:.0}, {TASKS} callers {quiet:.0} (longest {quiet_longest:.1} ms)"
    ));
    say(&format!(
        "   the same beside a writer {busy:.0} (longest {busy_longest:.1} ms, {:.1} s of CPU)",
        (cpu() - before).as_secs_f64()
    ));

    let list = ListQuery {
        network: NETWORK.to_owned(),
        tenant: TENANT.to_owned(),
        kind: OperationType::Evidence,
        before: None,
        limit: 50,
        state: None,
        from: None,
        to: None,
        external_index: None,
        indexes: None,
    };
    let old = ListQuery { to: Some(1_767_225_600_000 + 50), ..list.clone() };
    let rejected = ListQuery { state: Some(StateFilter::Rejected), ..list.clone() };
    for (name, query) in [("newest", list), ("oldest by time", old), ("rejected", rejected)] {
        let begin = Instant::now();
        store.list(query).await.expect("list");
        say(&format!("   list, {name}: {:.2} ms", begin.elapsed().as_secs_f64() * 1e3));
    }
}

async fn concurrent(store: &SqliteStore, size: u64, tasks: u64, lookups: u64) -> (f64, f64) {
    let begin = Instant::now();
    let running: Vec<_> = (0..tasks)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut longest = Duration::ZERO;
                for at in 0..lookups / tasks {
                    let begin = Instant::now();
                    find(&store, (task * 104_729 + at * 7919) % size, 1).await;
                    longest = longest.max(begin.elapsed());
                }
                longest
            })
        })
        .collect();
    let mut longest = Duration::ZERO;
    for task in running {
        longest = longest.max(task.await.expect("a task"));
    }
    (lookups as f64 / begin.elapsed().as_secs_f64(), longest.as_secs_f64() * 1e3)
}

async fn find(store: &SqliteStore, number: u64, count: u64) {
    let keys: Vec<_> = (number..number + count).map(|number| ResourceKey::of(&op(number), 0)).collect();
    store.find(NETWORK, TENANT, &keys).await.expect("find");
}
