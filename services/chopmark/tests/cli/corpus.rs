//! The corpus that all verifiers share: `schemas/vectors/receipts`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::support::{Ran, chopmark, text};

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

/// The folder of one case.
pub(crate) fn case(name: &str) -> PathBuf {
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("run by cargo"))
        .join("../../schemas/vectors/receipts")
        .join(name)
}

/// A valid case, and its verdict line.
pub(crate) const VALID: &str = "valid-base";

/// The verdict line expected of a case.
pub(crate) fn expected(name: &str) -> String {
    let case = cases().into_iter().find(|case| case.name == name);
    case.unwrap_or_else(|| panic!("no case {name} in the corpus")).expect.chopmark
}

/// A case that is valid by the opening that its receipt carries.
pub(crate) fn confidential() -> String {
    let opened = |case: &Case| {
        let receipt = fs::read(self::case(&case.name).join("receipt.tlog-proof")).expect("receipt");
        let entry = fs::read_to_string(self::case(&case.name).join("entry.json")).unwrap_or_default();
        case.expect.chopmark.starts_with("VALID ")
            && String::from_utf8_lossy(&receipt).contains("\nextra ")
            && entry.contains(r#""commitment""#)
            && !entry.contains(r#""digests""#)
    };
    cases().into_iter().find(opened).expect("a confidential case in the corpus").name
}

fn cases() -> Vec<Case> {
    let json = fs::read(case("cases.json")).expect("the corpus is there");
    serde_json::from_slice(&json).expect("cases.json")
}

fn exit_code(line: &str) -> i32 {
    match line.split(' ').next() {
        Some("VALID") => 0,
        Some("INVALID") => 1,
        Some("INCOMPLETE") => 2,
        Some("UNKNOWN-FORMAT") => 3,
        other => panic!("no verdict: {other:?}"),
    }
}

fn verify(name: &str, more: &[&str]) -> Ran {
    let [file, entry, receipt, policy] =
        ["file", "entry.json", "receipt.tlog-proof", "policy.txt"].map(|part| text(&case(name).join(part)));
    let args = ["verify", &file, "--entry", &entry, "--receipt", &receipt, "--policy", &policy];
    chopmark(args.iter().chain(more))
}

/// The verdict line that a JSON object stands for.
fn line_of(json: &serde_json::Value) -> String {
    let plain = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let get = |key: &str| json.get(key).map(plain).unwrap_or_else(|| panic!("no {key} in {json}"));
    let word = get("verdict");
    match word.as_str() {
        "VALID" => {
            let time = if json["time"].is_null() { "none".to_owned() } else { get("time") };
            let [index, size, cosigners, witnesses] = ["index", "size", "cosigners", "witnesses"].map(get);
            format!("VALID index={index} size={size} cosigners={cosigners}/{witnesses} time={time}")
        }
        "INVALID" => format!("{word} check={}", get("check")),
        "INCOMPLETE" => format!("{word} missing={}", get("missing")),
        _ => format!("{word} what={}", get("what")),
    }
}

#[test]
fn every_case_gets_its_verdict() {
    let cases = cases();
    assert!(cases.len() >= 40, "only {} cases", cases.len());
    let mut wrong = Vec::new();
    for Case { name, what, expect } in cases.iter().filter(|case| case.expect.chopmark != "n/a") {
        let ran = verify(name, &[]);
        if ran.last() != expect.chopmark || ran.code != exit_code(&expect.chopmark) {
            wrong.push(format!(
                "{name} ({what}): expected {}, got {} {}{}",
                expect.chopmark,
                ran.code,
                ran.last(),
                ran.err
            ));
        }
        assert!(ran.out.lines().count() > 1, "{name}: a verdict without an explanation");
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn json_says_the_same() {
    for Case { name, expect, .. } in cases().iter().filter(|case| case.expect.chopmark != "n/a") {
        let ran = verify(name, &["--json"]);
        assert_eq!(line_of(&ran.json()), expect.chopmark, "{name}");
        assert_eq!(ran.code, exit_code(&expect.chopmark), "{name}");
        assert_eq!(ran.out.lines().count(), 1, "{name}");
    }
}
