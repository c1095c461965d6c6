//! What following costs. Run with `--release -- --ignored --nocapture cost`.

use std::{fs, hint::black_box, time::Instant};

use ledger_core::hash::sha3_256;

use crate::doubles::World;

const BLOCKS: u32 = 20;
const OPERATIONS: u32 = 4_096;
/// Bound for the verification of one operation, in SHA3-256 hashes of 200 bytes, of which a quiet
/// core makes 1.28 million a second: 8 µs. As a ratio it holds on a busy machine too.
const HASHES_MAX: f64 = 10.2;

/// Processor time of the blocking threads in nanoseconds, where only verification runs.
fn blocking_nanos() -> u64 {
    let threads = fs::read_dir("/proc/self/task").unwrap().map(|thread| thread.unwrap().path());
    let named = |name: &str| name.trim_end() == "tokio-rt-worker";
    threads.filter(|thread| named(&fs::read_to_string(thread.join("comm")).unwrap())).map(|path| nanos_of(&path)).sum()
}

fn nanos_of(thread: &std::path::Path) -> u64 {
    fs::read_to_string(thread.join("schedstat")).unwrap().split(' ').next().unwrap().parse().unwrap()
}

/// Processor time of one SHA3-256 over 200 bytes, now, on this machine.
fn hash_nanos() -> f64 {
    const HASHES: u64 = 500_000;
    let own = std::path::Path::new("/proc/thread-self");
    let before = nanos_of(own);
    for _ in 0..HASHES {
        black_box(sha3_256(black_box(&[7; 200])));
    }
    (nanos_of(own) - before) as f64 / HASHES as f64
}

#[tokio::test]
#[ignore = "measures; meaningful in release only"]
async fn cost_of_verification_per_operation() {
    let world = World::with(4, 1);
    (0..BLOCKS).for_each(|block| world.decide_many(block * OPERATIONS, OPERATIONS));
    let before = hash_nanos();
    let started = Instant::now();
    world.project_all().await;
    let wall = started.elapsed().as_nanos() / u128::from(BLOCKS * OPERATIONS);
    let hash = f64::midpoint(before, hash_nanos());
    let nanos = blocking_nanos() as f64 / f64::from(BLOCKS * OPERATIONS);
    let hashes = nanos / hash;
    eprintln!(
        "{nanos:.0} ns of processor time to verify one operation, {hashes:.1} hashes of {hash:.0} ns; {wall} ns with fetching and projecting"
    );
    assert_eq!(world.store.cursor_height(), u64::from(BLOCKS) + 1);
    assert!(nanos > 0.0 && (cfg!(debug_assertions) || hashes < HASHES_MAX));
}
