//! The disk of one member is full. The others go on; the member ends with a reason, and catches up
//! once there is room.

use std::{fs, path::Path, process::Command, time::Duration};

use chopmark_tests::{
    SmallDisk, fill_up, long,
    members::{Load, Network},
    seeded, tally,
};
use rand::RngExt as _;

fn copy_all(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
    assert!(status.success(), "copy {} to {}", from.display(), to.display());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_at_one_member_stops_only_that_member() {
    let mut random = seeded("a_full_disk_at_one_member_stops_only_that_member");
    let mut network = Network::make(4, &[]).await.unwrap();
    let (folder, guard) = (network.members[3].folder.clone(), network.members[3].guard.clone());
    let Some(disk) = SmallDisk::mount(&folder, 32).unwrap() else {
        eprintln!("SKIPPED: this user may not mount a tmpfs, so no disk was filled");
        return;
    };
    // Everything that the member writes lies on the disk, its guard too; its log lies beside it.
    let seen = disk.seen(&folder);
    copy_all(&folder, &seen);
    fs::copy(&guard, seen.join("the.guard")).unwrap();
    let config = fs::read_to_string(seen.join("node.toml")).unwrap();
    let outside = format!("guard = \"../{}\"", guard.file_name().unwrap().to_str().unwrap());
    assert!(config.contains(&outside), "{config}");
    fs::write(seen.join("node.toml"), config.replace(&outside, "guard = \"the.guard\"")).unwrap();
    for member in 0..3 {
        network.spawn(member).unwrap();
    }
    network.spawn_by(disk.command(), 3).unwrap();
    network.register_tenant().await.unwrap();

    let ballast = seen.join("ballast");
    let rounds = if long() { 40 } else { 2 };
    for round in 0..rounds {
        let load = Load::from(1000 * round);
        let faults = async {
            tokio::time::sleep(Duration::from_millis(random.random_range(200..1500))).await;
            fill_up(&ballast);
            // It does not go on as if nothing had happened, and says what it lacks.
            assert_eq!(network.ended(3).await, Some(false), "{}", network.log(3));
            // The system says it with a capital, the block log without.
            assert!(network.has_logged(3, "o space left"), "{}", network.log(3));
            let before = network.size(0).await.unwrap();
            network.reaches(&[0, 1, 2], before + 5).await.unwrap();
            load.stop();
        };
        tokio::join!(load.run(&network, 4), faults);
        fs::remove_file(&ballast).unwrap();
        network.spawn_by(disk.command(), 3).unwrap();
        network.check().await.unwrap();
    }
    tally("a_full_disk_at_one_member_stops_only_that_member", &format!("{rounds} full disks; {}", network.tally()));

    // The member moves to a larger disk.
    network.stop(3).unwrap();
    copy_all(&seen, &folder);
    fs::rename(folder.join("the.guard"), &guard).unwrap();
    fs::write(folder.join("node.toml"), config).unwrap();
    drop(disk);
    network.spawn(3).unwrap();
    network.check().await.unwrap();
    network.stop_and_check_files().unwrap();
}
