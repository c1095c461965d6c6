//! The tools that need no server: help, completions, manual pages, version, fsck, doctor.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command, sync::Arc};

use chopmark_node::{
    Node, NodeConfig, POOL_BYTES_MAX,
    keys::{self, NodeKeys},
};
use ledger_core::{
    genesis::{Genesis, Network},
    member::MemberSet,
    operation::V1,
    policy::Policy,
};

use crate::support::{chopmark, folder, text};

#[test]
fn every_command_has_help_with_examples() {
    for command in ["dev", "submit", "verify", "fsck", "doctor", "completions", "man"] {
        let ran = chopmark([command, "--help"]);
        assert_eq!(ran.code, 0);
        assert!(ran.out.contains("Examples:") && ran.out.contains(&format!("chopmark {command}")), "{command}");
    }
    assert!(chopmark(["admin", "guard", "adopt", "--help"]).out.contains("fraud"));
    assert!(chopmark(["admin", "migrate", "--help"]).out.contains("--database-file"));
    assert!(chopmark(["--help"]).out.contains("chopmark dev"));
}

/// What goes wrong is said without the URL: it may hold a password.
#[test]
fn migrate_never_shows_a_password() {
    let file = folder("migrate_never_shows_a_password").join("database");
    for (url, said) in [
        ("postgres://owner:s3cret@127.0.0.1:1/chopmark", "connect to the database"),
        ("postgres://owner:s3cr@et@127.0.0.1:1/chopmark", "%40"),
        ("sqlite:s3cret.db", "postgres://USER"),
    ] {
        fs::write(&file, format!("{url}\n")).unwrap();
        for by in [["--database-file", file.to_str().unwrap()], ["--database", url]] {
            let ran = chopmark(["admin", "migrate", by[0], by[1]]);
            assert_eq!(ran.code, 1, "{}", ran.err);
            assert!(ran.err.contains(said), "{}", ran.err);
            assert!(!ran.err.contains("s3cr") && !ran.out.contains("s3cr"), "{}{}", ran.err, ran.out);
        }
    }
    assert_eq!(chopmark(["admin", "migrate"]).code, 64);
    assert_eq!(chopmark(["admin", "migrate", "--database", "x", "--database-file", "y"]).code, 64);
}

#[test]
fn a_wrong_command_line_is_no_verdict() {
    for args in [&["verify"][..], &["nonsense"], &[], &["verify", "--nonsense"], &["dev", "--members", "8"]] {
        let ran = chopmark(args);
        assert_eq!(ran.code, 64, "{args:?}");
        assert!(ran.out.is_empty() && !ran.err.is_empty(), "{args:?}");
    }
    assert!(chopmark(["dev", "--members", "8"]).err.contains("1 to 7 members"));
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = chopmark(["completions", shell]);
        assert_eq!(ran.code, 0);
        assert!(ran.out.contains("verify") && ran.out.contains("policy"), "{shell}");
    }
    assert_eq!(chopmark(["completions", "tcsh"]).code, 64);
}

#[test]
fn manual_pages_are_written() {
    assert!(chopmark(["man"]).out.contains(".TH"));
    let folder = folder("man").join("man1");
    assert_eq!(chopmark(["man", "--dir", &text(&folder)]).code, 0);
    for page in ["chopmark.1", "chopmark-verify.1", "chopmark-submit.1", "chopmark-admin-guard-adopt.1"] {
        assert!(fs::read_to_string(folder.join(page)).unwrap().contains(".SH"), "{page}");
    }
}

#[test]
fn version_names_the_formats() {
    let ran = chopmark(["version"]);
    assert!(ran.code == 0 && ran.out.starts_with(concat!("chopmark ", env!("CARGO_PKG_VERSION"))));
    assert!(ran.out.contains("c2sp.org/tlog-proof@v1"));
    let json = chopmark(["version", "--json"]).json();
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(json["formats"]["receipt"], "c2sp.org/tlog-proof@v1");
}

/// Unix milliseconds of everything that the node here signs.
const TIME_MS: u64 = 1_790_000_000_000;

/// A data folder as `chopmark dev` makes it, after a first start and a clean stop.
fn data(test: &str) -> std::path::PathBuf {
    let data = folder(test).join("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    keys::generate(&data.join("keys")).unwrap();
    let member = keys::public_member(&data.join("keys"), "operator.example").unwrap();
    let genesis = Genesis {
        members: MemberSet::new(vec![member]).unwrap(),
        network: Network::Sandbox,
        origin: "log.example/log".to_owned(),
        policy: Policy::default(),
        time: TIME_MS,
        v: V1,
    };
    let (node, guard) = (data.join("node"), data.with_extension("guard"));
    chopmark_node::init(&node, &guard, &genesis).unwrap();
    let keys = NodeKeys::load(&data.join("keys")).unwrap();
    let (domain, clock) = ("operator.example".to_owned(), Arc::new(|| TIME_MS));
    let network = chopmark_node::NetworkConfig { listen: ([127, 0, 0, 1], 0).into(), peers: Vec::new().into() };
    let config = NodeConfig {
        data: node,
        guard,
        keys,
        domain,
        clock,
        pool_bytes_max: POOL_BYTES_MAX,
        network,
        source: None,
        peer_tiles: Vec::new(),
        stop: tokio::sync::watch::Sender::new(false).subscribe(),
    };
    Node::open(config).unwrap().close();
    data
}

#[test]
fn fsck_tells_sound_from_unsound_from_unchecked() {
    let data = data("fsck");
    let argument = text(&data);
    let ran = chopmark(["fsck", &argument]);
    assert_eq!((ran.code, ran.last()), (0, "sound"), "{}{}", ran.out, ran.err);
    let json = chopmark(["fsck", &argument, "--json"]).json();
    assert_eq!((json["sound"].as_bool(), json["size"].as_u64()), (Some(true), Some(2)));
    assert_eq!(json["guard"].as_str(), data.with_extension("guard").to_str());

    fs::write(data.join("node/log/stray"), "?").unwrap();
    let ran = chopmark(["fsck", &argument]);
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("stray") && ran.last().starts_with("NOT SOUND"), "{}", ran.out);
    let json = chopmark(["fsck", &argument, "--json"]).json();
    assert_eq!(json["sound"], false);
    assert!(json["findings"][0]["file"].as_str().unwrap().ends_with("stray"));

    let ran = chopmark(["fsck", &text(&data.join("keys"))]);
    assert!(ran.code == 2 && ran.err.contains("holds no ledger"), "{}", ran.err);
    assert_eq!(chopmark(["fsck", "no-such-folder"]).code, 2);
}

#[test]
fn fsck_checks_every_member_of_an_embedded_network() {
    let data = data("fsck-members");
    let argument = text(&data);
    // Another member as `chopmark dev --members 2` lays it out; here with the same history.
    let member = data.join("members/court.localhost");
    fs::create_dir_all(&member).unwrap();
    let copied = Command::new("cp").arg("-a").args([data.join("node"), member.join("node")]).status().unwrap();
    assert!(copied.success());
    let guard = data.with_extension("guard");
    fs::copy(&guard, data.with_extension("guard.court.localhost")).unwrap();
    let ran = chopmark(["fsck", &argument]);
    assert_eq!((ran.code, ran.last()), (0, "sound"), "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("court.localhost/node: ") && !ran.out.contains("was not checked"), "{}", ran.out);

    fs::write(member.join("node/log/stray"), "?").unwrap();
    let ran = chopmark(["fsck", &argument]);
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("court.localhost/node/log/stray"), "{}", ran.out);
    assert!(ran.last().starts_with("NOT SOUND: 1 findings"), "{}", ran.out);
    let json = chopmark(["fsck", &argument, "--json"]).json();
    assert_eq!((&json["sound"], &json["members"][0]["sound"]), (&false.into(), &false.into()), "{json}");
    assert_eq!(json["findings"].as_array().unwrap().len(), 0, "the operator's own");

    fs::remove_dir_all(member.join("node")).unwrap();
    let ran = chopmark(["fsck", &argument]);
    assert!(ran.code == 2 && ran.err.contains("court.localhost holds no ledger"), "{}", ran.err);
}

#[test]
fn fsck_says_why_it_cannot_look() {
    let folder = folder("fsck-blind");
    // A loop of links is refused to everybody, as a closed folder is to all but root.
    std::os::unix::fs::symlink("node", folder.join("node")).unwrap();
    let ran = chopmark(["fsck", &text(&folder)]);
    assert!(ran.code == 2 && ran.err.contains("look for") && !ran.err.contains("holds no ledger"), "{}", ran.err);
    let gone = folder.join("gone");
    fs::create_dir(&gone).unwrap();
    let script = r#"cd "$1" && rmdir "$1" && exec "$2" fsck ."#;
    let ran = Command::new("sh").args(["-c", script, "sh"]).arg(&gone).arg(env!("CARGO_BIN_EXE_chopmark")).output();
    let ran = ran.unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.code() == Some(2) && said.contains("the current folder is there no more"), "{said}");
}

fn statuses(json: &serde_json::Value, name: &str) -> Vec<String> {
    let checks = json["checks"].as_array().unwrap().iter().filter(|check| check["name"] == name);
    checks.map(|check| check["status"].as_str().unwrap().to_owned()).collect()
}

fn doctor(data: &Path) -> (i32, serde_json::Value) {
    let ran = chopmark(["doctor", "--json", "--data", &text(data)]);
    (ran.code, ran.json())
}

#[test]
fn doctor_finds_what_is_wrong() {
    let data = data("doctor");
    let guard = data.with_extension("guard");
    let (_, json) = doctor(&data);
    for name in ["data", "keys", "guard", "server", "clock"] {
        assert_eq!(statuses(&json, name), ["OK"], "{name}: {json}");
    }
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(&data.join("keys/log.pem"), 0o640);
    let (code, json) = doctor(&data);
    assert_eq!((code, statuses(&json, "keys")), (1, vec!["FAIL".to_owned()]));
    mode(&data.join("keys/log.pem"), 0o600);
    // Keys of a rotation, and those of the other members of an embedded network.
    let rotated = keys::rotate(&data.join("keys")).unwrap();
    let other = data.join("members/court.localhost/keys");
    keys::generate(&other).unwrap();
    for (path, wrong, right) in [
        (rotated.join("log.pem"), 0o644, 0o600),
        (other.join("network.pem"), 0o640, 0o600),
        (data.join("keys"), 0o777, 0o700),
        (rotated, 0o770, 0o700),
        (other, 0o702, 0o700),
    ] {
        assert_eq!(statuses(&doctor(&data).1, "keys"), ["OK"]);
        mode(&path, wrong);
        let (code, json) = doctor(&data);
        assert_eq!((code, statuses(&json, "keys")), (1, vec!["FAIL".to_owned()]), "{path:?}");
        assert!(json.to_string().contains(path.to_str().unwrap()), "{json}");
        mode(&path, right);
    }

    mode(&data, 0o755);
    assert_eq!(statuses(&doctor(&data).1, "data"), ["WARN"]);
    mode(&data, 0o777);
    assert_eq!(statuses(&doctor(&data).1, "data"), ["FAIL"]);
    mode(&data, 0o700);

    fs::rename(&guard, guard.with_extension("away")).unwrap();
    let (code, json) = doctor(&data);
    assert_eq!((code, statuses(&json, "guard")), (1, vec!["FAIL".to_owned()]));
    fs::write(&guard, "damaged").unwrap();
    assert_eq!(statuses(&doctor(&data).1, "guard"), ["FAIL"]);
    fs::rename(guard.with_extension("away"), &guard).unwrap();

    fs::write(data.join("dev.json"), "{").unwrap();
    assert_eq!(statuses(&doctor(&data).1, "dev.json"), ["FAIL"]);
    fs::remove_file(data.join("dev.json")).unwrap();
    assert_eq!(statuses(&doctor(&data).1, "server"), ["OK"]);
}

#[test]
fn doctor_knows_a_server_that_died() {
    let data = data("doctor-dead");
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let url = "http://127.0.0.1:1";
    let json = serde_json::json!({
        "v": 1, "base_url": url, "admin_url": url, "metrics_url": url, "api_key": "cm_test_x", "tenant": "t",
        "network": "sandbox", "origin": "log.example/log", "policy_path": data.join("policy.txt"), "data_dir": data,
        "guard_path": data.with_extension("guard"), "pid": child.id(), "nodes": [],
    });
    fs::write(data.join("dev.json"), json.to_string()).unwrap();
    fs::set_permissions(data.join("dev.json"), fs::Permissions::from_mode(0o600)).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(statuses(&doctor(&data).1, "server"), ["WARN"], "dead, but nobody has asked how it ended");
    child.wait().unwrap();
    assert_eq!(statuses(&doctor(&data).1, "server"), ["WARN"]);
    fs::set_permissions(data.join("dev.json"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(statuses(&doctor(&data).1, "keys"), ["FAIL"]);
}

#[test]
fn doctor_explains_to_people() {
    let folder = folder("doctor-new");
    let ran = chopmark(["doctor", "--data", &text(&folder.join("not-yet"))]);
    assert!(ran.out.contains("`chopmark dev` makes it"), "{}", ran.out);
    assert!(ran.last().ends_with("warnings"), "{}", ran.out);
    let failed = ran.out.lines().any(|line| line.starts_with("FAIL"));
    assert_eq!(ran.code, i32::from(failed));
}
