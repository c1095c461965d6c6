//! What an operator is told of members that are not as they should be.

use std::{fs, process::Command};

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
