//! What an operator is told of members that are not as they should be.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use chopmark_tests::{binary, members::Network};
use serde_json::Value;

use super::copy;

/// What `/health/ready` of a member's node says.
async fn readiness(network: &Network, member: usize) -> String {
    let listen = network.members[member].listen;
    let url = format!("http://{}:{}/health/ready", listen.ip(), listen.port() + 3);
    let health: Value = network.http.get(url).send().await.unwrap().json().await.unwrap();
    health["status"].as_str().unwrap().to_owned()
}

/// Status of the check of the node, and what `chopmark doctor` says of it.
fn doctor(network: &Network, member: usize) -> (String, String) {
    let mut doctor = Command::new(binary());
    let output = doctor.args(["doctor", "--json", "--data"]).arg(&network.members[member].folder).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let check = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == "node").unwrap();
    let text = |key: &str| check[key].as_str().unwrap().to_owned();
    (text("status"), text("detail"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_without_the_keys_of_its_record_says_so() {
    let mut network = Network::start(4).await.unwrap();
    let size = network.check().await.unwrap();
    assert_eq!(doctor(&network, 3).0, "OK");
    network.stop(3).unwrap();
    let own = network.members[3].folder.join("keys/log.pem");
    let kept = network.folder.path().join("log.pem");
    fs::rename(&own, &kept).unwrap();
    copy(&network.members[1].folder.join("keys/log.pem"), &own);
    let (status, detail) = doctor(&network, 3);
    assert!(status == "WARN" && detail.contains("other keys under its domain (log)"), "{status} {detail}");

    network.spawn(3).unwrap();
    network.serves(3, size).await.unwrap();
    let status = network.status(3).await.unwrap();
    assert_eq!(status["votes"], false, "{status}");
    assert!(status["no_vote"].as_str().unwrap().contains("other keys under its domain"), "{status}");
    let (code, said) = network.command(3, &["status"]).unwrap();
    assert!(
        code == Some(1) && said.contains("warning: this node does not vote: the member set has other keys"),
        "{said}"
    );
    assert_eq!(readiness(&network, 3).await, "degraded");
    let (status, detail) = doctor(&network, 3);
    assert!(status == "FAIL" && detail.contains("(log)"), "{status} {detail}");
    assert!(network.has_logged(3, "this node does not vote"), "{}", network.log(3));
    // It follows the others, which go on.
    let index = network.notarize(100).await.unwrap();
    network.serves(3, index + 1).await.unwrap();

    network.stop(3).unwrap();
    fs::rename(&kept, &own).unwrap();
    network.spawn(3).unwrap();
    network.cosigns(3, 0).await.unwrap();
    network.check().await.unwrap();
    let status = network.status(3).await.unwrap();
    assert_eq!((&status["votes"], &status["no_vote"]), (&true.into(), &Value::Null), "{status}");
    assert_eq!((&*readiness(&network, 3).await, &*doctor(&network, 3).0), ("ok", "OK"));
    network.stop_and_check_files().unwrap();
}

/// Asks as an operator does until the report is as expected, for a minute at most.
async fn report_becomes(network: &Network, member: usize, expected: impl Fn(&Value) -> bool) -> Value {
    let give_up = Instant::now() + Duration::from_secs(60);
    loop {
        let (code, said) = network.command(member, &["status", "--json"]).unwrap();
        let report: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(code == Some(0), report["warnings"] == Value::Array(Vec::new()), "{report}");
        if expected(&report) {
            return report;
        }
        assert!(Instant::now() < give_up, "{report}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Whether all four are there and have cosigned this size, and nothing is wrong.
fn all_have_cosigned(report: &Value, size: u64) -> bool {
    let members = report["members"].as_array().unwrap();
    let has = |line: &Value| line["cosigned_size"] == size && line["last_cosignature"].is_u64() && line["lag"] == 0;
    members.len() == 4 && members.iter().all(has) && report["warnings"] == Value::Array(Vec::new())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_cosignature_of_every_member_is_shown() {
    let mut network = Network::start(4).await.unwrap();
    network.check().await.unwrap();
    // The quorum is complete without this one, and is so for good.
    network.freeze(3).unwrap();
    let size = network.notarize(0).await.unwrap() + 1;
    network.reaches(&[0, 1, 2], size).await.unwrap();
    let missing = |report: &Value| {
        let said = report["warnings"].to_string();
        said.contains("member3.test does not cosign what the others have published")
    };
    let report = report_becomes(&network, 0, missing).await;
    let line = report["members"].as_array().unwrap().iter().find(|line| line["member"] == "member3.test").unwrap();
    assert!(line["cosigned_size"].as_u64().is_some_and(|cosigned| cosigned < size), "{report}");

    // Back, and nothing is recorded any more: that it cosigns shows all the same, at every member.
    network.thaw(3).unwrap();
    for member in 0..4 {
        report_becomes(&network, member, |report| all_have_cosigned(report, size)).await;
    }
    let (_, said) = network.command(0, &["status"]).unwrap();
    let shown = format!("lag 0  size {size}  cosigned {size} at 20");
    assert_eq!(said.matches(&shown).count(), 4, "{said}");
    // Also to one that was not there when they were sent.
    network.stop(1).unwrap();
    network.spawn(1).unwrap();
    report_becomes(&network, 1, |report| all_have_cosigned(report, size)).await;
    network.check().await.unwrap();
    network.stop_and_check_files().unwrap();
}
