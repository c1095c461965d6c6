//! Rehearsing faults: on a sandbox network, and never on a live one.

use std::fs;

use crate::support::{chopmark, folder};

#[test]
fn faults_are_refused_on_a_live_network() {
    let network = folder("faults_live").join("net");
    let network_path = network.to_str().unwrap();
    let made = chopmark([
        "network",
        "init",
        network_path,
        "--domain",
        "live.test",
        "--live",
        "--member",
        "one.test=127.0.0.1:26990",
    ]);
    assert_eq!(made.code, 0, "{}", made.err);
    let member = network.join("one.test");
    let config = fs::read_to_string(member.join("node.toml")).unwrap();
    fs::write(member.join("node.toml"), format!("{config}\n[faults]\nclock_offset_ms = 600000\n")).unwrap();
    let refused = chopmark(["node", "--data", member.to_str().unwrap()]);
    assert_eq!(refused.code, 1, "{}", refused.err);
    assert!(refused.err.contains("node.toml") && refused.err.contains("sandbox networks only"), "{}", refused.err);
    // A misspelt fault is not taken for none.
    fs::write(member.join("node.toml"), format!("{config}\n[faults]\nclock_offset = 600000\n")).unwrap();
    let refused = chopmark(["node", "--data", member.to_str().unwrap()]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("clock_offset"), "{}", refused.err);
}
