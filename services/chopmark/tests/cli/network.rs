//! Making networks and joining them, without a node that runs.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use ledger_core::genesis::Genesis;

use crate::{
    stub::Stub,
    support::{Ran, chopmark, folder, text},
};

fn init(path: &Path, more: &[&str]) -> Ran {
    let path = text(path);
    let arguments = ["network", "init", &path, "--domain", "log.test"];
    chopmark(arguments.into_iter().chain(more.iter().copied()))
}

/// A network of one member, and a node of it that serves its genesis and no block.
fn network(folder: &Path) -> (PathBuf, Stub, String) {
    let path = folder.join("net");
    let made = init(&path, &["--member", "court.test=127.0.0.1:26990"]);
    assert_eq!(made.code, 0, "{}", made.err);
    let bytes = fs::read(path.join("court.test/node/genesis.json")).unwrap();
    let chain = Genesis::parse(&bytes).unwrap().chain_id().to_string();
    let node = Stub::start(move |request, _| match request.line.as_str() {
        "GET /peer/v1/genesis" => (200, "", bytes.clone()),
        "GET /peer/v1/blocks/1" => (200, "", vec![1, 0, 0, 0, 0]),
        "GET /v1/network" => (200, "", br#"{"members":[{"name":"court.test"}]}"#.to_vec()),
        _ => (404, "", Vec::new()),
    });
    (path, node, chain)
}

fn join(path: &Path, domain: &str, node: &Stub, chain: &str) -> Ran {
    let path = text(path);
    let listen = ["--listen", "127.0.0.1:26980", "--from", &node.url, "--chain", chain];
    chopmark(["network", "join", &path, "--domain", domain].into_iter().chain(listen))
}

/// What lies in a folder, by name.
fn names(folder: &Path) -> Vec<String> {
    let items = fs::read_dir(folder).unwrap().map(|item| item.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = items.collect();
    names.sort();
    names
}

#[test]
fn what_lies_beside_is_left_alone() {
    let folder = folder("network_beside");
    // Names that an unfinished network, member or snapshot might have had.
    let beside = ["ledger.new", "ledger.joining", "bank.joining", "bank.new", "blocks.new"];
    for name in beside {
        fs::create_dir(folder.join(name)).unwrap();
        fs::write(folder.join(name).join("precious"), name).unwrap();
    }
    fs::write(folder.join("history.new"), "precious").unwrap();
    let (_, node, chain) = network(&folder);
    for name in ["ledger.v1", "ledger"] {
        let made = init(&folder.join(name), &["--member", "court.test=127.0.0.1:26990"]);
        assert_eq!(made.code, 0, "{}", made.err);
    }
    let joined = join(&folder.join("bank"), "bank.test", &node, &chain);
    assert_eq!(joined.code, 0, "{}", joined.err);
    for name in ["blocks", "history"] {
        let snapshot = chopmark(["network", "snapshot", &text(&folder.join(name)), "--from", &node.url]);
        assert_eq!(snapshot.code, 0, "{}", snapshot.err);
    }
    for name in beside {
        assert_eq!(fs::read(folder.join(name).join("precious")).unwrap(), name.as_bytes());
    }
    assert_eq!(fs::read(folder.join("history.new")).unwrap(), b"precious");
    let mut expected: Vec<&str> = beside.into_iter().collect();
    expected.extend(["bank", "bank.guard", "blocks", "history", "history.new", "ledger", "ledger.v1", "net"]);
    expected.sort_unstable();
    assert_eq!(names(&folder), expected);
}

#[test]
fn what_exists_is_not_made_again() {
    let folder = folder("network_exists");
    let (net, node, chain) = network(&folder);
    let before = names(&folder);
    let file = net.join("court.test/node.toml");
    let config = fs::read(&file).unwrap();
    for ran in [
        init(&net, &["--member", "court.test=127.0.0.1:26990"]),
        join(&net, "bank.test", &node, &chain),
        chopmark(["network", "snapshot", &text(&file), "--from", &node.url]),
    ] {
        assert!(ran.code == 1 && ran.err.contains("exists already"), "{} {}", ran.code, ran.err);
    }
    assert_eq!(fs::read(&file).unwrap(), config);
    assert_eq!(names(&folder), before);
}

#[test]
fn what_fails_leaves_nothing() {
    let folder = folder("network_fails");
    let blocks = text(&folder.join("blocks"));
    let away = chopmark(["network", "snapshot", &blocks, "--from", "http://127.0.0.1:1"]);
    assert!(away.code == 1 && away.err.contains("http://127.0.0.1:1 does not answer"), "{}", away.err);
    let other = Stub::start(|_, _| (404, "", Vec::new()));
    let other = chopmark(["network", "snapshot", &blocks, "--from", &other.url]);
    assert!(other.code == 1 && other.err.contains("name the read address of a node"), "{}", other.err);
    let nonsense = chopmark(["network", "snapshot", &blocks, "--from", "foo"]);
    assert!(nonsense.code == 64 && nonsense.err.contains("--from"), "{} {}", nonsense.code, nonsense.err);
    assert_eq!(names(&folder), Vec::<String>::new());
}

#[test]
fn two_nodes_do_not_get_one_address() {
    let net = folder("network_ports").join("net");
    let pair = ["--member", "a.test=127.0.0.1:28700", "--member"];
    for (other, named) in [
        ("b.test=127.0.0.1:28700", ["127.0.0.1:28700", "for members", "for members"]),
        ("b.test=127.0.0.1:28702", ["127.0.0.1:28702", "for members", "for committers"]),
        ("b.test=127.0.0.1:28703", ["127.0.0.1:28703", "for members", "for metrics"]),
        ("b.test=127.0.0.1:28697", ["127.0.0.1:28700", "for metrics", "for members"]),
        ("b.test=0.0.0.0:28800", ["b.test=0.0.0.0:28800", "nobody", "dial"]),
    ] {
        let ran = init(&net, &[&pair[..], &[other]].concat());
        assert_eq!(ran.code, 64, "{other}: {}", ran.err);
        assert!(named.iter().chain(&["b.test"]).all(|part| ran.err.contains(part)), "{other}: {}", ran.err);
        assert!(!net.exists());
    }
    // Machines of their own may have the same ports.
    let ran = init(&net, &[&pair[..], &["b.test=127.0.0.1:28704", "--member", "c.test=127.0.0.2:28700"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.err);
}

#[test]
fn arguments_that_make_no_sense_are_named() {
    let net = folder("network_arguments").join("net");
    let path = text(&net);
    let member = ["--member", "a.test=127.0.0.1:28700"];
    for domain in ["", "UPPER.example", "nodot", "a..b"] {
        let ran = chopmark(["network", "init", &path, "--domain", domain].into_iter().chain(member));
        assert!(ran.code == 64 && ran.err.contains("--domain"), "{domain}: {} {}", ran.code, ran.err);
    }
    let many: Vec<String> =
        (0..32).flat_map(|at| ["--member".to_owned(), format!("m{at}.test=127.0.0.1:{}", 20000 + 4 * at)]).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let ran = init(&net, &many);
    assert!(ran.code == 64 && ran.err.contains("at most 31"), "{} {}", ran.code, ran.err);
    assert!(!net.exists());
    let ran = init(&net, &many[2..]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(chopmark(["network", "init", "--help"]).out.contains("64 for arguments"));
}

#[test]
fn a_member_in_force_does_not_join_again() {
    let folder = folder("network_join_member");
    let (_, node, chain) = network(&folder);
    let before = names(&folder);
    let ran = join(&folder.join("again"), "court.test", &node, &chain);
    assert!(ran.code == 1 && ran.err.contains("court.test is a member in force already"), "{}", ran.err);
    assert_eq!(names(&folder), before);
    let ran = join(&folder.join("bank"), "bank.test", &node, &chain);
    assert_eq!(ran.code, 0, "{}", ran.err);
}

#[test]
fn a_node_whose_address_is_taken_says_which() {
    let folder = folder("network_taken");
    let path = folder.join("net");
    // Below the ports that the system gives out, so that the three above are likely free.
    let taken = (30_000..32_000).step_by(10).find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    assert_eq!(init(&path, &["--member", &format!("court.test={address}")]).code, 0);
    let ran = chopmark(["node", "--data", &text(&path.join("court.test"))]);
    assert_eq!(ran.code, 1);
    let said = ran.err.lines().last().unwrap();
    assert!(said.contains(&format!("listen on {address}")) && said.contains("Address already in use"), "{}", ran.err);
    assert!(!ran.err.contains(" ready"), "{}", ran.err);
}

#[test]
fn a_missing_key_is_said_once() {
    let path = folder("network_key").join("net");
    assert_eq!(init(&path, &["--member", "court.test=127.0.0.1:26990"]).code, 0);
    let member = path.join("court.test");
    let start = || chopmark(["node", "--data", &text(&member)]).err;
    fs::rename(member.join("keys/network.pem"), member.join("keys/network.away")).unwrap();
    let said = start();
    assert!(said.contains("keys/network.pem: No such file"), "{said}");
    assert_eq!(said.matches("No such file").count(), 1, "{said}");
    fs::rename(member.join("keys/network.away"), member.join("keys/network.pem")).unwrap();
    // Whoever may write into the folder can put another key in.
    fs::set_permissions(member.join("keys"), fs::Permissions::from_mode(0o777)).unwrap();
    let said = start();
    let folder = text(&member.join("keys"));
    assert!(said.contains(&folder) && said.contains("mode 777") && said.contains("chmod 700"), "{said}");
}
