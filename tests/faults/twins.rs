//! One member on two machines: folder, keys and guard copied, both at work. Neither guard can know of
//! the other; what they do to each other's word is seen by the others.

use std::time::Duration;

use chopmark_tests::{
    long,
    members::{Load, Network},
    seeded, tally,
};

use super::pause;

#[tokio::test(flavor = "multi_thread")]
async fn one_member_on_two_machines_is_seen_and_forks_nothing() {
    let mut random = seeded("one_member_on_two_machines_is_seen_and_forks_nothing");
    let mut network = Network::start(4).await.unwrap();
    network.check().await.unwrap();
    network.stop(3).unwrap();
    let copy = network.copy_member(3).unwrap();
    let (load, mut both_voted) = (Load::default(), 0);
    for _ in 0..if long() { 20 } else { 3 } {
        // From one state, at one time: what a record calls for, both sign by themselves.
        network.spawn(3).unwrap();
        network.spawn(copy).unwrap();
        let work = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            load.stop();
        };
        tokio::join!(load.run(&network, 4), work);
        // The others' connections lead to one of both, and the other may hear nothing.
        network.check_but(&[3, copy]).await.unwrap();
        let votes = [3, copy].map(|member| network.status(member));
        let votes = futures_util::future::join_all(votes).await;
        both_voted += usize::from(votes.iter().all(|status| status.as_ref().unwrap()["votes"] == true));
        network.kill(3);
        tokio::time::sleep(pause(&mut random, 0, 500)).await;
        network.kill(copy);
        // The others need neither.
        network.notarize(5_000_000 + load.next.load(std::sync::atomic::Ordering::Relaxed)).await.unwrap();
        load.stop.store(false, std::sync::atomic::Ordering::Relaxed);
    }
    // Alone, each is a member like others; what it signed beside the other keeps it from nothing.
    for (alone, other) in [(3, copy), (copy, 3)] {
        network.leave(other);
        network.spawn(alone).unwrap();
        network.check().await.unwrap();
        network.kill(alone);
        network.come_back(other);
    }
    let mut counts = Vec::new();
    for member in 0..3 {
        // Each piece is verified.
        let found = network.evidence(member).unwrap();
        assert!(found.iter().all(|one| one.member == "member3.test"), "{found:?}");
        let status = network.status(member).await.unwrap();
        assert_eq!(status["equivocations"], found.len(), "{status}");
        let (_, said) = network.command(member, &["status"]).unwrap();
        assert_eq!(said.contains("equivocations were seen"), !found.is_empty(), "{said}");
        counts.push(found.len());
    }
    let said = format!(
        "both voted at the end of {both_voted} rounds; equivocations kept by the others: {counts:?}; {}",
        network.tally()
    );
    tally("one_member_on_two_machines_is_seen_and_forks_nothing", &said);
    network.stop_and_fsck().unwrap();
}
