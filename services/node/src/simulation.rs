//! A deterministic simulation of whole consortia: the real ledger of every member (pool, proposals,
//! execution, guard, block log, cosigning, tiles) over a network, clocks, disks and an agreement
//! engine that come out of one seed. `SEEDS` says how many seeds to run, `SEED` the first one,
//! `LONG=1` asks for a hundred thousand. A seed that fails gives the same run every time.

mod byzantine;
mod checker;
mod clients;
mod damage;
pub(crate) mod disk;
mod end;
mod engine;
mod faults;
mod peers;
mod profile;
pub(crate) mod store;
mod world;

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::bugs::{self, Bug};

/// Seeds of an ordinary run: about half a minute of one core.
const SEEDS: u64 = 2_000;
const SEEDS_LONG: u64 = 100_000;
/// A bug that so many seeds do not find is not found.
const SEEDS_OF_A_BUG: u64 = 1_500;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs a seed; a panic is a fault like any other.
fn run(seed: u64, bug: Option<Bug>) -> Result<world::Tally, String> {
    // Where a bug is one of repair, worlds without damage cannot find it.
    let damaged = bug.is_some_and(Bug::is_of_repair);
    let run = || bugs::with(bug, || world::run(seed, damaged));
    std::panic::catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.or(panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default())
    })
}

/// Does something with every item on all cores; a run itself has one thread.
fn on_all_cores<T: Sync>(items: &[T], body: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            body(item);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
}

#[test]
fn no_seed_finds_a_fault() {
    let first = number("SEED").unwrap_or_default();
    let seeds = number("SEEDS").unwrap_or(if number("LONG").is_some() { SEEDS_LONG } else { SEEDS });
    let seeds: Vec<u64> = (first..first + seeds).collect();
    let (sum, failed) = (Mutex::new(world::Tally::default()), Mutex::new(Vec::new()));
    on_all_cores(&seeds, |seed| match run(*seed, None) {
        Ok(tally) => sum.lock().add(&tally),
        Err(fault) => {
            eprintln!("seed {seed}: {fault}\nagain: SEED={seed} SEEDS=1 cargo test --lib no_seed_finds_a_fault");
            failed.lock().push(*seed);
        }
    });
    eprintln!("{} seeds from {first}: {:?}", seeds.len(), sum.into_inner());
    let failed = failed.into_inner();
    assert!(failed.is_empty(), "seeds with a fault: {failed:?}");
}

#[test]
fn a_seed_is_always_the_same_run() {
    for seed in 0..40 {
        assert_eq!(run(seed, None), run(seed, None), "seed {seed}");
    }
}

#[test]
fn every_seeded_bug_is_found() {
    let survived = Mutex::new(Vec::new());
    let only = std::env::var("BUG").ok();
    let is_asked = |bug: &&Bug| only.as_ref().is_none_or(|only| *only == format!("{bug:?}"));
    let bugs: Vec<Bug> = Bug::ALL.iter().filter(is_asked).copied().collect();
    assert!(!bugs.is_empty(), "there is no bug {only:?}");
    on_all_cores(&bugs, |bug| {
        match (0..SEEDS_OF_A_BUG).find_map(|seed| run(seed, Some(*bug)).err().map(|fault| (seed, fault))) {
            Some((seed, fault)) => eprintln!("{bug:?}: seed {seed}: {fault}"),
            None => survived.lock().push(*bug),
        }
    });
    let survived = survived.into_inner();
    assert!(survived.is_empty(), "{SEEDS_OF_A_BUG} seeds did not find {survived:?}");
}
