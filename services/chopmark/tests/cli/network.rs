//! Making networks and joining them, without a node that runs.

use std::{
    fs,
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
    let away = chopmark(["network", "snapshot", &text(&folder.join("blocks")), "--from", "http://127.0.0.1:1"]);
    assert_eq!(away.code, 1, "{}", away.err);
    assert_eq!(names(&folder), Vec::<String>::new());
}
