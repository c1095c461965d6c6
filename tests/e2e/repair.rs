//! A member's node that loses part of what it stored, and gets it back from the others.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use chopmark_tests::members::Network;
use futures_util::{StreamExt as _, stream};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Waits until a member's node runs and nothing of what it stores is known to be damaged.
async fn healed(network: &mut Network, member: usize, file: &Path, sound: &[u8]) {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let status = network.status(member).await.ok();
        let damaged = status.as_ref().and_then(|status| status["damaged"].as_u64());
        if damaged == Some(0) && fs::read(file).is_ok_and(|bytes| bytes == sound) {
            return;
        }
        assert!(network.is_running(member) && Instant::now() < give_up, "{status:?}: {}", network.log(member));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Four members with 303 entries: a full bundle, and some.
async fn filled() -> Network {
    let network = Network::start(4).await.unwrap();
    let mut committed = stream::iter(0..300).map(|number| network.notarize(number)).buffer_unordered(50);
    while let Some(index) = committed.next().await {
        index.unwrap();
    }
    drop(committed);
    network.reaches(&[0, 1, 2, 3], 303).await.unwrap();
    network
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_tiles_and_bundles_come_back_from_the_other_members() {
    let mut network = filled().await;
    let (index, at) = (100, network.told.lock().unwrap().committed.iter().find(|(_, at)| **at == 100).map(|it| *it.0));
    network.take_receipt(1, at.unwrap(), index).await;

    // Tile and bundle at once, and the start needs them: only the others know what they were.
    let log = network.members[0].folder.join("node/log/tile");
    let (bundle, tile) = (log.join("entries/000"), log.join("0/000"));
    let (sound_bundle, sound_tile) = (fs::read(&bundle).unwrap(), fs::read(&tile).unwrap());
    network.stop(0).unwrap();
    flip(&bundle, 20_000);
    fs::remove_file(&tile).unwrap();
    network.spawn(0).unwrap();
    network.reaches(&[0], 303).await.unwrap();
    healed(&mut network, 0, &bundle, &sound_bundle).await;
    assert_eq!(fs::read(&tile).unwrap(), sound_tile);

    // While nobody can help, what is damaged is not served, and everything else is.
    for other in 1..4 {
        network.stop(other).unwrap();
    }
    flip(&bundle, 20_000);
    let read = network.members[0].read.clone();
    let http = network.http.clone();
    let get = async |path: &str| http.get(format!("{read}{path}")).send().await.unwrap();
    let refused = get("/log/tile/entries/000").await;
    assert_eq!((refused.status(), refused.headers()["retry-after"].to_str().unwrap()), (503.try_into().unwrap(), "5"));
    assert_eq!(refused.json::<Value>().await.unwrap()["code"], "ledger_unavailable");
    assert_eq!(get("/health/ready").await.json::<Value>().await.unwrap()["status"], "degraded");
    assert_eq!(get("/log/tile/0/000").await.bytes().await.unwrap(), sound_tile);
    assert_eq!(get("/v1/entries/280/receipt").await.status(), 200);
    assert_eq!(get("/log/tile/entries/000").await.status(), 503);
    for other in 1..4 {
        network.spawn(other).unwrap();
    }
    healed(&mut network, 0, &bundle, &sound_bundle).await;
    assert_eq!(get("/log/tile/entries/000").await.bytes().await.unwrap(), sound_bundle);
    assert_eq!(get("/health/ready").await.json::<Value>().await.unwrap()["status"], "ok");
    network.check().await.unwrap();
    network.stop_and_check_files().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_waits_for_the_others_ends_cleanly_when_told() {
    let network = filled().await;
    let log = network.members[0].folder.join("node/log/tile");
    network.stop(0).unwrap();
    for file in ["entries/000", "0/000"] {
        fs::remove_file(log.join(file)).unwrap();
    }
    // One never answers, the others are not there.
    network.freeze(1).unwrap();
    network.kill(2);
    network.kill(3);
    network.spawn(0).unwrap();
    let give_up = Instant::now() + PATIENCE;
    while !network.has_logged(0, "a peer's tiles do not restore the edge") {
        assert!(Instant::now() < give_up, "{}", network.log(0));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Not refused and not killed: a clean end.
    network.stop(0).unwrap();
    assert!(network.has_logged(0, "stopped before the node had started"), "{}", network.log(0));
    network.kill(1);
}
