//! The corpus that all verifiers share: `schemas/vectors/receipts/`, a folder per case, and what
//! each verifier must say about it in `cases.json`.

use std::{collections::BTreeSet, fs, path::Path};

use ledger_core::{
    digests::Digests,
    verify::{FileFacts, verify},
};
use serde::Deserialize;

use crate::support::schemas_dir;

#[derive(Deserialize)]
struct Case {
    name: String,
    what: String,
    expect: Expect,
}

#[derive(Deserialize)]
struct Expect {
    chopmark: String,
}

fn verdict(folder: &Path) -> String {
    let read = |name: &str| {
        fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name} of {}: {error}", folder.display()))
    };
    let file = read("file");
    let facts = FileFacts { digests: Digests::of(&file), size: file.len() as u64 };
    verify(Some(&facts), &read("entry.json"), &read("receipt.tlog-proof"), &read("policy.txt")).to_string()
}

#[test]
fn every_case_gets_its_verdict() {
    let root = schemas_dir().join("vectors/receipts");
    let cases: Vec<Case> = serde_json::from_slice(&fs::read(root.join("cases.json")).unwrap()).unwrap();
    let folders: BTreeSet<String> = fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    let named: BTreeSet<String> = cases.iter().map(|case| case.name.clone()).collect();
    assert_eq!(named, folders, "a folder for each case and a case for each folder");
    assert_eq!(named.len(), cases.len(), "every case has a name of its own");
    let wrong: Vec<String> = cases
        .iter()
        .map(|case| (case, verdict(&root.join(&case.name))))
        .filter(|(case, said)| *said != case.expect.chopmark)
        .map(|(case, said)| format!("{}: {said}\n    expected {}\n    {}", case.name, case.expect.chopmark, case.what))
        .collect();
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
