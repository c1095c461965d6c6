//! One member's clock is wrong. The others go on, no block lies ahead of the true time, and the
//! member is told.

use std::{
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use chopmark_tests::{
    binary, long,
    members::{Load, Network},
    seeded, tally,
};
use rand::RngExt as _;
use serde_json::Value;

/// What the validators allow a block to be ahead.
const AHEAD_MAX_MS: u64 = 2_000;
/// How long a record may wait for its block before a test gives up on it: how old its block's time
/// may be, where a member's clock cannot show how late it is.
const BEHIND_MAX_MS: u64 = 60_000;

#[expect(clippy::disallowed_methods, reason = "the true time, which the blocks are held against")]
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// Runs a load while member 3 has a clock that is off; `fast` says whether its proposals can pass.
async fn with_a_clock_off_by(offset_ms: i64, random: &mut impl rand::Rng) -> String {
    let mut network = Network::make(4, &[]).await.unwrap();
    network.rehearse(3, &format!("clock_offset_ms = {offset_ms}")).unwrap();
    let first = now_ms();
    network.start_members().await.unwrap();
    let load = Load::default();
    let seconds = if long() { 120 } else { 6 };
    let stop = async {
        tokio::time::sleep(Duration::from_millis(seconds * 1000 + random.random_range(0..500))).await;
        load.stop();
    };
    tokio::join!(load.run(&network, 4), stop);
    let size = network.check().await.unwrap();
    let last = now_ms();
    let times: Vec<u64> = network.entries(0, size).await.unwrap()[2..]
        .iter()
        .map(|entry| serde_json::from_slice::<Value>(entry).unwrap()["time"].as_u64().unwrap())
        .collect();
    assert!(times.len() > 10, "the load came through: {}", times.len());
    assert!(times.is_sorted(), "block time runs backwards");
    assert!(times.iter().all(|time| (first - BEHIND_MAX_MS..=last + AHEAD_MAX_MS).contains(time)), "{times:?}");
    let times = network.receipt_times(0).await.unwrap();
    // Whole seconds, rounded up.
    let range = first / 1000..=(last + AHEAD_MAX_MS) / 1000 + 1;
    assert!(!times.is_empty() && times.iter().all(|time| range.contains(time)), "receipts say {times:?}");
    let (own, blocks) = network.decided_of(3, 0, 1).await.unwrap();
    if offset_ms > 0 {
        assert!(own.is_empty(), "proposals of a clock that is ahead were decided: {own:?}");
    }
    // The member is told how far it is off; the others are not blamed.
    let seen = network.status(3).await.unwrap()["clock_offset_ms"].as_i64().unwrap();
    assert!((seen - offset_ms).abs() < 60_000, "it believes to be {seen} ms off, not {offset_ms}");
    assert!(network.has_logged(3, "clock is not that of the others"), "{}", network.log(3));
    for member in 0..3 {
        assert!(!network.has_logged(member, "clock is not that of the others"), "{}", network.log(member));
    }
    let mut status = Command::new(binary());
    status.args(["network", "status", "--json", "--data"]).arg(&network.members[3].folder);
    let report: Value = serde_json::from_slice(&status.output().unwrap().stdout).unwrap();
    assert!(report["warnings"].to_string().contains("clock is"), "{report}");
    let tallied = format!("{blocks} blocks, {} of them of that member; {}", own.len(), network.tally());
    // Once the clock is right again, it votes and proposes like the others.
    network.stop(3).unwrap();
    network.rehearse(3, "").unwrap();
    network.spawn(3).unwrap();
    network.check().await.unwrap();
    network.stop_and_check_files().unwrap();
    tallied
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_ten_minutes_ahead_stops_nobody() {
    let mut random = seeded("a_clock_ten_minutes_ahead_stops_nobody");
    let tallied = with_a_clock_off_by(600_000, &mut random).await;
    tally("a_clock_ten_minutes_ahead_stops_nobody", &tallied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_ten_minutes_behind_stops_nobody() {
    let mut random = seeded("a_clock_ten_minutes_behind_stops_nobody");
    let tallied = with_a_clock_off_by(-600_000, &mut random).await;
    tally("a_clock_ten_minutes_behind_stops_nobody", &tallied);
}
