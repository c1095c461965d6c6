//! Faults of a consortium: members killed, cut off, slow, restored from old copies, started twice,
//! restarted one after the other. Real processes; the network between them goes through proxies of the test's own.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod clocks;
mod disks;
mod flips;
mod idle;
mod packets;
mod status;
mod twins;

use std::{collections::BTreeSet, fs, path::Path, process::Command, time::Duration};

use chopmark_tests::{
    binary, long,
    members::{Load, Network},
    repository, seeded, tally,
};
use rand::{RngExt as _, seq::SliceRandom as _};

/// By when 99 of 100 records are committed, with all members and with one of them stopped.
const P99_MAX: Duration = Duration::from_secs(3);

fn pause(random: &mut impl rand::Rng, from: u64, to: u64) -> Duration {
    Duration::from_millis(random.random_range(from..to))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_two_or_all_members_killed_under_load() {
    let mut random = seeded("one_two_or_all_members_killed_under_load");
    let mut network = Network::start(4).await.unwrap();
    let kills_wanted = if long() { 1_000 } else { 12 };
    let (mut kills, mut rounds) = (0, 0);
    while kills < kills_wanted {
        rounds += 1;
        let load = Load::default();
        let faults = async {
            tokio::time::sleep(pause(&mut random, 50, 800)).await;
            load.stop();
        };
        tokio::join!(load.run(&network, 4), faults);
        let mut members = [0, 1, 2, 3];
        members.shuffle(&mut random);
        let count = [1, 2, 4][random.random_range(0..3)];
        // In the middle of whatever the last requests left under way.
        let (stop, busy) = (Load::default(), &members[..count]);
        let submitting = tokio::time::timeout(pause(&mut random, 1, 60), stop.run(&network, 4));
        let _cut_off = submitting.await;
        for member in busy {
            network.kill(*member);
            kills += 1;
        }
        tokio::time::sleep(pause(&mut random, 0, 700)).await;
        for member in busy {
            network.spawn(*member).unwrap();
        }
        network.check().await.unwrap();
    }
    network.check().await.unwrap();
    let tallied = format!("{kills} kills in {rounds} rounds; {}", network.tally());
    tally("one_two_or_all_members_killed_under_load", &tallied);
    network.stop_and_check_files().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_stall_and_heal_without_a_fork() {
    let mut random = seeded("partitions_stall_and_heal_without_a_fork");
    let mut network = Network::start(4).await.unwrap();
    let first = network.notarize(0).await.unwrap();
    network.reaches(&[0, 1, 2, 3], first + 1).await.unwrap();

    // 2|2: nobody has a quorum, nothing is decided.
    network.partition(&[&[0, 1], &[2, 3]]);
    let submitted = tokio::time::timeout(Duration::from_secs(4), network.notarize(1)).await;
    assert!(submitted.is_err(), "two of four decided: {submitted:?}");
    for member in 0..4 {
        assert_eq!(network.size(member).await, Some(first + 1));
    }
    network.heal();
    network.check().await.unwrap();

    // 3|1: three go on, one stands still.
    network.partition(&[&[0, 1, 3], &[2]]);
    let mut last = 0;
    for number in 10..20 {
        last = network.notarize(number).await.unwrap();
    }
    network.reaches(&[0, 1, 3], last + 1).await.unwrap();
    assert!(network.size(2).await.unwrap() <= last, "a member alone got on");
    network.heal();
    network.check().await.unwrap();

    // Flapping, under load.
    let rounds = if long() { 60 } else { 6 };
    let load = Load::from(100);
    let flaps = async {
        for _ in 0..rounds {
            let mut members = [0, 1, 2, 3];
            members.shuffle(&mut random);
            let (left, right) = members.split_at(random.random_range(1..3));
            network.partition(&[left, right]);
            tokio::time::sleep(pause(&mut random, 100, 900)).await;
            network.heal();
            tokio::time::sleep(pause(&mut random, 100, 1500)).await;
        }
        load.stop();
    };
    tokio::join!(load.run(&network, 3), flaps);
    network.check().await.unwrap();

    // A slow network is slow, no more.
    for delay in [20, 100] {
        network.delay(Duration::from_millis(delay));
        for number in 0..5 {
            network.notarize(10_000 + delay * 10 + number).await.unwrap();
        }
    }
    network.delay(Duration::ZERO);
    network.check().await.unwrap();
    network.stop_and_check_files().unwrap();
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_catches_up_before_it_signs() {
    let mut network = Network::start(4).await.unwrap();
    for number in 0..5 {
        network.notarize(number).await.unwrap();
    }
    network.check().await.unwrap();
    network.stop(1).unwrap();
    let (folder, old) = (network.members[1].folder.clone(), network.folder.path().join("old"));
    copy(&folder.join("node"), &old);
    network.spawn(1).unwrap();
    for number in 10..30 {
        network.notarize(number).await.unwrap();
    }
    network.check().await.unwrap();
    network.kill(1);
    fs::remove_dir_all(folder.join("node")).unwrap();
    fs::rename(&old, folder.join("node")).unwrap();
    network.spawn(1).unwrap();
    // Its guard is the newest; its data are not.
    let size = network.check().await.unwrap();
    // Without another one, the quorum needs its signature.
    network.kill(3);
    let index = network.notarize(50).await.unwrap();
    assert!(index >= size);
    network.reaches(&[0, 1, 2], index + 1).await.unwrap();
    network.spawn(3).unwrap();
    network.check().await.unwrap();
    network.stop_and_check_files().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_put_back_as_a_whole_asks_what_it_has_signed() {
    let mut network = Network::start(4).await.unwrap();
    network.notarize(0).await.unwrap();
    network.check().await.unwrap();
    network.stop(1).unwrap();
    let (node, guard) = (network.members[1].folder.join("node"), network.members[1].guard.clone());
    let (old_node, old_guard) = (network.folder.path().join("old"), network.folder.path().join("old.guard"));
    copy(&node, &old_node);
    copy(&guard, &old_guard);
    network.spawn(1).unwrap();
    for number in 10..30 {
        network.notarize(number).await.unwrap();
    }
    network.check().await.unwrap();
    network.kill(1);
    fs::remove_dir_all(&node).unwrap();
    fs::rename(&old_node, &node).unwrap();
    fs::rename(&old_guard, &guard).unwrap();
    let said_before = network.log_len(1);
    network.spawn(1).unwrap();
    network.check().await.unwrap();
    let said = network.log_since(1, said_before);
    assert!(said.contains("votes of this node that its guard does not know of"), "{said}");
    // Without another one, the quorum needs its vote.
    network.kill(3);
    let index = network.notarize(50).await.unwrap();
    network.reaches(&[0, 1, 2], index + 1).await.unwrap();
    network.spawn(3).unwrap();
    network.check().await.unwrap();
    for member in &network.members {
        let seen = fs::read_to_string(member.folder.join("node/equivocations.jsonl")).unwrap_or_default();
        assert_eq!(seen, "", "two votes of one member were seen");
    }
    network.stop_and_check_files().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_doubles_are_kept_out() {
    let mut network = Network::start(4).await.unwrap();
    network.notarize(0).await.unwrap();
    // The same node again, while it runs: refused before it opens anything.
    let twice = Command::new(binary()).args(["node", "--data"]).arg(&network.members[0].folder).output().unwrap();
    assert_eq!(twice.status.code(), Some(1));
    let said = String::from_utf8_lossy(&twice.stderr).into_owned();
    assert!(said.contains("listen on") || said.contains("in use"), "{said}");

    // A stranger that knows the genesis and all addresses, with a network key of its own.
    network.stop(3).unwrap();
    let keys = network.members[3].folder.join("keys");
    // Without the governance key, which could vouch for the new one.
    let own = ["network.pem", "governance.pem"].map(|name| (keys.join(name), fs::read(keys.join(name)).unwrap()));
    for (path, _) in &own {
        fs::copy(keys.join("statement.pem"), path).unwrap();
    }
    let before = network.size(0).await.unwrap();
    network.spawn(3).unwrap();
    for number in 1..4 {
        network.notarize(number).await.unwrap();
    }
    network.reaches(&[0, 1, 2], before + 3).await.unwrap();
    // It may read what everybody may, and says nothing that counts.
    let cosigned = network.status(0).await.unwrap()["cosigned"].clone();
    let stranger = |signer: &serde_json::Value| signer[0] == "member3.test";
    assert!(!cosigned.as_array().unwrap().iter().any(stranger), "a stranger was let in: {cosigned}");
    network.kill(3);
    for (path, pem) in own {
        fs::write(path, pem).unwrap();
    }
    network.spawn(3).unwrap();
    network.check().await.unwrap();

    let mut status = Command::new(binary());
    status.args(["network", "status", "--json", "--data"]).arg(&network.members[0].folder);
    let output = status.output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["members"].as_array().unwrap().len(), 4, "{report}");
    assert!(report["members"].as_array().unwrap().iter().all(|member| member["reachable"] == true), "{report}");
    network.stop_and_check_files().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn jitter_stalls_resets_and_half_open_ways_under_load() {
    let mut random = seeded("jitter_stalls_resets_and_half_open_ways_under_load");
    let mut network = Network::start(4).await.unwrap();
    let rounds = if long() { 400 } else { 10 };
    let mut done = [0; 4];
    let load = Load::default();
    let faults = async {
        for _ in 0..rounds {
            let mut members = [0, 1, 2, 3];
            members.shuffle(&mut random);
            let [one, other, ..] = members;
            let fault = random.random_range(0..done.len());
            done[fault] += 1;
            match fault {
                0 => network.jitter(&mut random, Duration::from_millis(120)),
                // Silence in both directions, between two or around one.
                1 => {
                    let around = if random.random() { &members[1..2] } else { &members[1..] };
                    for peer in around {
                        network.stall(one, *peer, true);
                        network.stall(*peer, one, true);
                    }
                }
                2 => {
                    for _ in 0..random.random_range(1..6) {
                        network.reset(one, other);
                        tokio::time::sleep(pause(&mut random, 10, 200)).await;
                    }
                }
                // One hears the others, and nobody hears it; or the other way round.
                _ => {
                    let deaf: bool = random.random();
                    for peer in &members[1..] {
                        let (from, to) = if deaf { (*peer, one) } else { (one, *peer) };
                        network.stall(from, to, true);
                    }
                }
            }
            tokio::time::sleep(pause(&mut random, 200, 2000)).await;
            network.calm();
            tokio::time::sleep(pause(&mut random, 0, 600)).await;
        }
        load.stop();
    };
    tokio::join!(load.run(&network, 4), faults);
    network.check().await.unwrap();
    let [jitters, stalls, resets, half_open] = done;
    let done = format!("{jitters} jitters, {stalls} stalls, {resets} resets, {half_open} half-open ways");
    tally("jitter_stalls_resets_and_half_open_ways_under_load", &format!("{done}; {}", network.tally()));
    network.stop_and_check_files().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_one_end_has_lost_is_made_again_by_both() {
    let mut network = Network::start(4).await.unwrap();
    network.check().await.unwrap();
    for (one, other) in [(1, 2), (2, 1), (0, 1)] {
        network.lose(one, other);
        tokio::time::sleep(Duration::from_secs(1)).await;
        // Without the others these two need each other.
        let third = 3 - one - other;
        network.kill(3);
        let index = network.notarize(10 * one as u64 + other as u64).await.unwrap();
        network.reaches(&[one, other, third], index + 1).await.unwrap();
        network.spawn(3).unwrap();
        network.check().await.unwrap();
    }
    network.stop_and_check_files().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn members_restart_one_after_the_other_under_load() {
    let mut random = seeded("members_restart_one_after_the_other_under_load");
    let mut network = Network::start(4).await.unwrap();
    let rounds = if long() { 50 } else { 2 };
    let load = Load::default();
    let restarts = async {
        for _ in 0..rounds {
            let mut members = [0, 1, 2, 3];
            members.shuffle(&mut random);
            for member in members {
                tokio::time::sleep(pause(&mut random, 50, 400)).await;
                let before = network.size(member).await.unwrap();
                network.stop_meanwhile(member).await.unwrap();
                tokio::time::sleep(pause(&mut random, 0, 300)).await;
                network.spawn(member).unwrap();
                // The next one goes when this one is back, as an operator would do it.
                network.reaches(&[member], before + 1).await.unwrap();
            }
        }
        load.stop();
    };
    tokio::join!(load.run(&network, 4), restarts);
    network.check().await.unwrap();
    let tallied = format!("{} restarts; {}", rounds * 4, network.tally());
    tally("members_restart_one_after_the_other_under_load", &tallied);
    network.stop_and_check_files().unwrap();
}

/// Records at a steady rate: from when each was due until a node showed a checkpoint over it.
async fn due_until_committed(network: &Network, first: u64, count: u64, per_second: u64) -> Vec<Duration> {
    let (begun, (covered, _)) = (tokio::time::Instant::now(), tokio::sync::watch::channel(0));
    let one = async |number: u64| {
        let due = begun + Duration::from_millis(number * 1000 / per_second);
        tokio::time::sleep_until(due).await;
        let index = network.notarize(first + number).await.unwrap();
        let seen = covered.subscribe().wait_for(|size| *size > index).await.is_ok();
        assert!(seen, "nobody looks any more");
        let latency = due.elapsed();
        if number.is_multiple_of(20) {
            assert!(network.take_receipt(0, first + number, index).await, "no receipt of {number}");
        }
        latency
    };
    let look = async {
        loop {
            if let Some(size) = network.size(0).await {
                covered.send_replace(size);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let mut latencies = tokio::select! {
        latencies = futures_util::future::join_all((0..count).map(one)) => latencies,
        () = look => Vec::new(),
    };
    latencies.sort();
    latencies
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_go_on_with_one_member_stopped() {
    let mut network = Network::start(4).await.unwrap();
    let (count, per_second) = if long() { (3_000, 50) } else { (300, 50) };
    let at = |latencies: &[Duration], percent: usize| latencies[(latencies.len() - 1) * percent / 100];
    let show = |latencies: &[Duration]| {
        let at = |percent| at(latencies, percent).as_millis();
        format!("p50 {} ms, p99 {} ms, largest {} ms", at(50), at(99), at(100))
    };
    let all = due_until_committed(&network, 0, count, per_second).await;
    network.stop(2).unwrap();
    let without = due_until_committed(&network, count, count, per_second).await;
    let said = format!("{per_second} records/s; four members: {}; one stopped: {}", show(&all), show(&without));
    tally("commits_go_on_with_one_member_stopped", &said);
    // What is promised of a network of which one member stands still. A run of the suite shares its
    // machine with other tests, and says nothing of time.
    if long() {
        assert!(at(&without, 99) < P99_MAX, "{said}");
    }
    network.spawn(2).unwrap();
    // Also: every receipt of before and after is valid.
    network.check().await.unwrap();
    network.stop_and_check_files().unwrap();
}

#[test]
fn the_page_of_faults_lists_every_test_and_no_other() {
    let page = fs::read_to_string(repository().join("docs/FAULTS.md")).unwrap();
    // The name stands alone in its cell.
    let alone = |cell: &str| Some(cell.trim().strip_prefix('`')?.strip_suffix('`')?.to_owned());
    let is_name = |name: &String| name.chars().all(|one| one == '_' || one.is_ascii_alphanumeric());
    let listed: BTreeSet<String> = page.split('|').filter_map(alone).filter(is_name).collect();
    let mut tests = BTreeSet::new();
    for file in fs::read_dir(repository().join("tests/faults")).unwrap() {
        let path = file.unwrap().path();
        let path = if path.is_dir() { path.join("main.rs") } else { path };
        let source = fs::read_to_string(path).unwrap();
        let lines = source.lines().zip(source.lines().skip(1));
        for (_, function) in lines.filter(|(attribute, _)| attribute.starts_with("#[tokio::test")) {
            let name = function.strip_prefix("async fn ").unwrap().split('(').next().unwrap();
            tests.insert(name.to_owned());
        }
    }
    assert!(tests.len() > 20, "{tests:?}");
    assert_eq!(listed.symmetric_difference(&tests).collect::<Vec<_>>(), Vec::<&String>::new());
}
