//! Nothing to do for long: what a network costs that nobody uses. Only with `LONG=1`.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use chopmark_tests::{long, members::Network, tally};

const IDLE: Duration = Duration::from_secs(10 * 60);
/// A network with nothing to decide on decides an empty block so often.
const EMPTY_BLOCK_INTERVAL: Duration = Duration::from_secs(30);
/// One block at either end of the time, and one that a member asks for that has just started.
const BLOCKS_MORE_MAX: u64 = 3;
/// What an empty block of four members may cost on disk: 1.5 KB in the block log, as a proposal the
/// half of that, and less than a page in the index's journal.
const EMPTY_BLOCK_BYTES_MAX: u64 = 8 << 10;
/// Files grow by whole pages of the file system: the last page of each file that grows at all.
const PAGES_BYTES_MAX: u64 = 64 << 10;

/// Bytes that a folder takes on disk. Files that are reserved and not written count as far as they are
/// written.
fn disk_bytes(folder: &Path) -> u64 {
    let items = fs::read_dir(folder).unwrap().map(|item| item.unwrap());
    let bytes = |item: fs::DirEntry| {
        // A file may be replaced meanwhile.
        let Ok(metadata) = item.metadata() else { return 0 };
        if metadata.is_dir() { disk_bytes(&item.path()) } else { metadata.blocks() * 512 }
    };
    items.map(bytes).sum()
}

/// Every file of a folder with its length.
fn lengths(folder: &Path) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for item in fs::read_dir(folder).unwrap().map(|item| item.unwrap()) {
        let (name, metadata) = (item.path().display().to_string(), item.metadata().unwrap());
        if metadata.is_dir() {
            found.extend(lengths(&item.path()));
        } else {
            found.push((name, metadata.len()));
        }
    }
    found.sort();
    found
}

async fn height(network: &Network, member: usize) -> u64 {
    network.status(member).await.unwrap()["height"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn four_idle_members_write_next_to_nothing() {
    if !long() {
        tally("four_idle_members_write_next_to_nothing", "SKIPPED: ten minutes with LONG=1 only");
        return;
    }
    let mut network = Network::start(4).await.unwrap();
    let size = network.check().await.unwrap();
    // What the last record left to be written behind.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let node = |member: usize| network.members[member].folder.join("node");
    let log = |member: usize| ["log", "checkpoints"].map(|part| lengths(&node(member).join(part)));
    let logged = |member: usize| network.log_len(member);
    let mut before = Vec::new();
    for member in 0..4 {
        let (disk, height) = (disk_bytes(&network.members[member].folder), height(&network, member).await);
        before.push((disk, height, log(member), logged(member)));
    }
    tokio::time::sleep(IDLE).await;
    let mut said = Vec::new();
    for (member, (disk, first, log_before, logged_before)) in before.into_iter().enumerate() {
        let grown = disk_bytes(&network.members[member].folder).saturating_sub(disk);
        let blocks = height(&network, member).await - first;
        let logged = logged(member) - logged_before;
        said.push(format!("{grown} bytes of disk, {blocks} blocks, {logged} bytes logged"));
        // The log of entries, its tiles and its checkpoints: not by one byte.
        assert_eq!(network.size(member).await, Some(size));
        assert_eq!(log(member), log_before, "member {member}");
        let blocks_max = IDLE.as_secs() / EMPTY_BLOCK_INTERVAL.as_secs() + BLOCKS_MORE_MAX;
        assert!((1..=blocks_max).contains(&blocks), "member {member}: {blocks} blocks");
        let grown_max = blocks * EMPTY_BLOCK_BYTES_MAX + PAGES_BYTES_MAX;
        assert!(grown <= grown_max, "member {member}: {grown} bytes for {blocks} blocks, {said:?}");
    }
    tally("four_idle_members_write_next_to_nothing", &format!("10 minutes, each member: {}", said.join("; ")));
    // Idle, not dead.
    network.check().await.unwrap();
    network.stop_and_check_files().unwrap();
}
