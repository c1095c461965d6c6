//! The consortium changes while it works: members come, go and rotate their keys, observers follow.

use std::process::Command;

use chopmark_tests::{
    binary,
    members::{Load, Network},
};

#[tokio::test(flavor = "multi_thread")]
async fn members_come_go_and_rotate_keys_under_load() {
    let mut network = Network::start(4).await.unwrap();
    let new = network.join("member4.test", false).unwrap();
    let invitation = network.members[new].folder.join("invitation.json");
    let invitation = invitation.to_str().unwrap().to_owned();
    let load = Load::default();
    let changes = async {
        // It follows from the genesis before anybody lets it in.
        let index = network.notarize(900_000).await.unwrap();
        network.serves(new, index + 1).await.unwrap();
        let before = network.size(new).await.unwrap();

        network.change(&[0, 1, 2], &["add", &invitation]).await.unwrap();
        let five = ["member0.test", "member1.test", "member2.test", "member3.test", "member4.test"];
        for member in 0..5 {
            network.in_force(member, &five).await.unwrap();
        }
        network.cosigns(new, 0).await.unwrap();
        assert!(network.size(new).await.unwrap() > before);

        network.change(&[0, 2, 3, 4], &["remove", "member1.test"]).await.unwrap();
        let four = ["member0.test", "member2.test", "member3.test", "member4.test"];
        for member in [0, 2, 3, 4, 1] {
            network.in_force(member, &four).await.unwrap();
        }

        network.change(&[2, 0, 4], &["rotate-keys"]).await.unwrap();
        network.cosigns(2, 0).await.unwrap();
        // Once more, now under the keys of the first rotation.
        network.change(&[2, 3, 0], &["rotate-keys"]).await.unwrap();
        network.cosigns(2, 3).await.unwrap();

        let index = network.notarize(900_001).await.unwrap();
        // Whoever left goes on as an observer.
        network.serves(1, index + 1).await.unwrap();
        load.stop();
    };
    tokio::join!(load.run(&network, 3), changes);
    network.check().await.unwrap();
    // With what the last rotation left on disk.
    network.stop(2).unwrap();
    network.spawn(2).unwrap();
    network.check().await.unwrap();
    network.cosigns(2, 0).await.unwrap();
    network.stop_and_check_files().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_would_stop_the_network_is_refused() {
    let mut network = Network::start(4).await.unwrap();
    let new = network.join("member4.test", false).unwrap();
    let invitation = network.members[new].folder.join("invitation.json").to_str().unwrap().to_owned();
    // Five members need four: three of the old ones and nobody new are too few.
    network.kill(new);
    network.kill(3);
    let (code, said) = network.command(0, &["propose", "add", &invitation]).unwrap();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("would stand still") && said.contains("member3.test, member4.test"), "{said}");
    // Three members need all three.
    let (code, said) = network.command(0, &["propose", "remove", "member2.test"]).unwrap();
    assert!(code == Some(1) && said.contains("would stand still"), "{said}");
    network.spawn(3).unwrap();
    network.spawn(new).unwrap();

    let wrong = network.members[0].folder.join("wrong.json");
    let text = std::fs::read_to_string(&invitation).unwrap();
    std::fs::write(&wrong, text.replace("127.", "126.")).unwrap();
    let (code, said) = network.command(0, &["propose", "add", wrong.to_str().unwrap()]).unwrap();
    assert!(code == Some(1) && said.contains("not signed by its own member"), "{said}");
    let (code, said) = network.command(0, &["propose", "remove", "nobody.test"]).unwrap();
    assert!(code == Some(1) && said.contains("no member in force"), "{said}");
    let (code, said) = network.command(0, &["approve", &"0".repeat(64)]).unwrap();
    assert!(code == Some(1) && said.contains("no proposal"), "{said}");
    // Who is no member has nothing to propose.
    network.serves(new, 3).await.unwrap();
    let (code, said) = network.command(new, &["propose", "remove", "member0.test"]).unwrap();
    assert!(code == Some(1) && said.contains("not a member in force"), "{said}");

    // Two of four approve: nothing happens.
    let (code, said) = network.command(0, &["propose", "remove", "member3.test"]).unwrap();
    assert!(code == Some(0) && said.contains("approved by 1 of 3") && said.contains("remove member3.test"), "{said}");
    let id = said.lines().find_map(|line| line.strip_prefix("proposal ")).unwrap().to_owned();
    let (code, said) = network.command(0, &["approve", &id]).unwrap();
    assert!(code == Some(0) && said.contains("approved by 1 of 3"), "an approval counts once: {said}");
    network.notarize(1).await.unwrap();
    assert_eq!(network.status(0).await.unwrap()["members"].as_array().unwrap().len(), 4);
    let (code, said) = network.command(0, &["proposals", "--json"]).unwrap();
    assert!(code == Some(0) && said.contains(&id) && said.contains("\"quorum\":3"), "{said}");
    network.check().await.unwrap();
    network.stop_and_check_files().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_missed_its_removal_finds_out_and_joins_again() {
    let mut network = Network::start(4).await.unwrap();
    network.notarize(1).await.unwrap();
    network.kill(1);
    network.change(&[0, 2, 3], &["remove", "member1.test"]).await.unwrap();
    network.change(&[2, 0, 3], &["rotate-keys"]).await.unwrap();
    let index = network.notarize(2).await.unwrap();
    // Nobody lets it in any more, and nobody has told it.
    network.spawn(1).unwrap();
    network.serves(1, index + 1).await.unwrap();
    network.in_force(1, &["member0.test", "member2.test", "member3.test"]).await.unwrap();

    // Under the same domain with new keys: the genesis names it with others.
    network.stop(1).unwrap();
    let (folder, guard) = (network.members[1].folder.clone(), network.members[1].guard.clone());
    std::fs::rename(&folder, folder.with_extension("gone")).unwrap();
    std::fs::rename(&guard, guard.with_extension("gone")).unwrap();
    network.leave(1);
    let again = network.join("member1.test", false).unwrap();
    let invitation = network.members[again].folder.join("invitation.json").to_str().unwrap().to_owned();
    network.serves(again, index + 1).await.unwrap();
    network.change(&[0, 2, 3], &["add", &invitation]).await.unwrap();
    network.cosigns(again, 0).await.unwrap();
    network.check().await.unwrap();
    network.stop_and_check_files().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_changes_by_a_quorum() {
    let mut network = Network::start(4).await.unwrap();
    let file = network.members[0].folder.join("policy.json");
    let mut policy = serde_json::to_value(ledger_core::policy::Policy::default()).unwrap();
    policy["first_hold_days"] = 365.into();
    std::fs::write(&file, policy.to_string()).unwrap();
    let (code, said) = network.command(0, &["propose", "set-policy", file.to_str().unwrap()]).unwrap();
    assert!(code == Some(1) && said.contains("the next one is 2"), "{said}");
    policy["version"] = 2.into();
    std::fs::write(&file, policy.to_string()).unwrap();
    network.change(&[0, 3, 1], &["set-policy", file.to_str().unwrap()]).await.unwrap();
    let size = network.check().await.unwrap();
    assert!(size > 3);
    network.stop_and_check_files().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_node_is_made_again_from_a_snapshot() {
    let mut network = Network::start(4).await.unwrap();
    for number in 0..40 {
        network.notarize(number).await.unwrap();
    }
    network.check().await.unwrap();
    let file = network.folder.path().join("ledger.snapshot");
    let run = |arguments: &[&std::ffi::OsStr]| {
        let output = Command::new(binary()).arg("network").args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let from = network.members[0].read.clone();
    let (code, said) = run(&["snapshot".as_ref(), file.as_ref(), "--from".as_ref(), from.as_ref()]);
    assert!(code == Some(0) && said.contains("blocks of sandbox.test/log"), "{said}");
    for number in 40..60 {
        network.notarize(number).await.unwrap();
    }

    // Everything but keys and guard is lost, and one bit of the snapshot is wrong.
    network.kill(1);
    let folder = network.members[1].folder.clone();
    std::fs::remove_dir_all(folder.join("node")).unwrap();
    let sound = std::fs::read(&file).unwrap();
    let restore =
        |file: &std::path::Path| run(&["restore".as_ref(), file.as_ref(), "--data".as_ref(), folder.as_ref()]);
    let altered = network.folder.path().join("altered.snapshot");
    for (name, bytes) in [
        ("a bit", {
            let mut bytes = sound.clone();
            let at = bytes.len() / 2;
            bytes[at] ^= 1;
            bytes
        }),
        ("torn", sound[..sound.len() - 40].to_vec()),
        ("not its end", sound[..sound.len() - 9].to_vec()),
        ("junk", b"junk".to_vec()),
    ] {
        std::fs::write(&altered, bytes).unwrap();
        let (code, said) = restore(&altered);
        assert_eq!(code, Some(1), "{name}: {said}");
    }
    let (code, said) = restore(&file);
    assert!(code == Some(0) && said.contains("every block executed and checked"), "{said}");
    network.spawn(1).unwrap();
    // Its guard remembers more than the snapshot has: it signs again once it has caught up.
    network.check().await.unwrap();
    network.cosigns(1, 0).await.unwrap();
    network.stop_and_check_files().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observer_follows_and_serves_without_a_vote() {
    let mut network = Network::start(4).await.unwrap();
    for number in 0..300 {
        network.notarize(number).await.unwrap();
    }
    let observer = network.join("press.test", true).unwrap();
    assert!(!network.members[observer].folder.join("invitation.json").exists());
    network.check().await.unwrap();
    // Killed in the middle of following, it goes on where it was.
    network.kill(observer);
    for number in 300..330 {
        network.notarize(number).await.unwrap();
    }
    network.spawn(observer).unwrap();
    let index = network.notarize(330).await.unwrap();
    network.serves(observer, index + 1).await.unwrap();
    network.take_receipt(observer, 330, index).await;
    assert!(network.told.lock().unwrap().receipts.iter().any(|(number, ..)| *number == 330), "it serves no receipt");
    network.check().await.unwrap();

    // Another chain id than the one that was asked for: nothing is made.
    let folder = network.folder.path().join("deceived");
    let mut join = Command::new(binary());
    join.args(["network", "join"]).arg(&folder).args(["--domain", "late.test", "--listen", "127.0.0.1:26999"]);
    join.arg("--from").arg(&network.members[0].read).args(["--chain", &"0".repeat(64)]);
    let output = join.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("not the one that was asked for"), "{said}");
    assert!(!folder.exists());
    network.stop_and_check_files().unwrap();
}
