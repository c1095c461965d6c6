//! `chopmark verify` beyond the corpus: where its parts come from, and several files.

use std::{
    fs,
    io::{Cursor, Write as _},
    path::{Path, PathBuf},
};

use ledger_core::receipt::Receipt;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use crate::{
    corpus::{VALID, case, confidential, expected},
    support::{chopmark, chopmark_fed, chopmark_in, folder, text},
};

/// Copies a case's file, receipt and entry to `FILE`, `FILE.tlog-proof` and `FILE.entry.json`.
fn lay_out(folder: &Path, name: &str, file: &str) -> PathBuf {
    let path = folder.join(file);
    for (part, suffix) in [("file", ""), ("receipt.tlog-proof", ".tlog-proof"), ("entry.json", ".entry.json")] {
        fs::copy(case(name).join(part), folder.join(format!("{file}{suffix}"))).expect("copy");
    }
    path
}

fn policy() -> String {
    text(&case(VALID).join("policy.txt"))
}

fn zip(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in parts {
        let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        zip.start_file(*name, stored).expect("zip");
        zip.write_all(bytes).expect("zip");
    }
    zip.finish().expect("zip").into_inner()
}

#[test]
fn receipts_beside_the_file_are_found() {
    let folder = folder("beside");
    let file = lay_out(&folder, VALID, "合同 (1).pdf");
    let ran = chopmark(["verify", &text(&file), "--policy", &policy()]);
    assert_eq!((ran.code, ran.last()), (0, expected(VALID).as_str()));
    for said in ["sha256, sha3-256, sm3", "leaf 100 of the log log.example/log", "no later than", "does not prove"] {
        assert!(ran.out.contains(said), "{said} in {}", ran.out);
    }
}

#[test]
fn of_several_files_the_worst_is_last() {
    let folder = folder("several");
    let good = text(&lay_out(&folder, VALID, "good"));
    let bad = lay_out(&folder, VALID, "bad");
    fs::write(&bad, "not what it was").unwrap();
    let lacking = text(&lay_out(&folder, "incomplete-quorum", "lacking"));
    let ran = chopmark(["verify", &good, &text(&bad), &lacking, "--policy", &policy()]);
    assert_eq!((ran.code, ran.last()), (1, "INVALID check=file"));
    let lines: Vec<&str> = ran.out.lines().collect();
    let verdict = |file: &str, verdict: &str| format!("{}: {verdict}", text(&folder.join(file)));
    for line in [
        verdict("good", &expected(VALID)),
        verdict("bad", "INVALID check=file"),
        verdict("lacking", "INCOMPLETE missing=quorum"),
    ] {
        assert!(lines.contains(&line.as_str()), "{line} in {}", ran.out);
    }
    let ran = chopmark(["verify", &good, &lacking, "--policy", &policy()]);
    assert_eq!((ran.code, ran.last()), (2, "INCOMPLETE missing=quorum"));
    let ran = chopmark(["verify", &good, &lacking, "--policy", &policy(), "--json"]);
    assert_eq!(ran.json(), serde_json::json!({ "verdict": "INCOMPLETE", "missing": "quorum" }));
    let lines: Vec<serde_json::Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), lines[0]["file"].as_str()), (3, Some(good.as_str())));
}

#[test]
fn a_file_that_was_not_looked_at_leaves_no_verdict() {
    let folder = folder("unread");
    let good = text(&lay_out(&folder, VALID, "good"));
    let missing = text(&folder.join("missing"));
    for args in [vec![&good, &missing], vec![&missing, &good], vec![&missing]] {
        let args = ["verify", "--policy", &policy()].map(str::to_owned).into_iter().chain(args.into_iter().cloned());
        let ran = chopmark(args);
        assert_eq!(ran.code, 64);
        let several = ran.err.contains("of 2 files");
        assert_eq!(ran.last(), if several { "NO-VERDICT files=1" } else { "" }, "{}", ran.out);
        assert!(ran.err.contains("cannot read"), "{}", ran.err);
    }
    let entryless = lay_out(&folder, VALID, "entryless");
    fs::remove_file(folder.join("entryless.entry.json")).unwrap();
    let ran = chopmark(["verify", &text(&entryless), "--policy", &policy()]);
    assert!(ran.code == 64 && ran.out.is_empty() && ran.err.contains("--entry"), "{}", ran.err);
    let ran = chopmark(["verify", &text(&folder), "--policy", &policy()]);
    assert_eq!(ran.code, 64);
}

#[test]
fn a_policy_is_required_and_why() {
    let folder = folder("policyless");
    let file = text(&lay_out(&folder, VALID, "file"));
    let ran = chopmark(["verify", &file]);
    assert!(ran.code == 64 && ran.out.is_empty(), "{}", ran.out);
    assert!(ran.err.contains("whose signatures you trust"), "{}", ran.err);
    let ran = chopmark(["verify", &file, "--policy", &text(&folder.join("none.txt"))]);
    assert!(ran.code == 64 && ran.err.contains("none.txt"), "{}", ran.err);
}

#[test]
fn standard_input_is_a_file() {
    let parts = |name: &str| ["entry.json", "receipt.tlog-proof"].map(|part| text(&case(name).join(part)));
    let [entry, receipt] = parts(VALID);
    let input = fs::read(case(VALID).join("file")).unwrap();
    let args = ["verify", "-", "--entry", &entry, "--receipt", &receipt, "--policy", &policy()];
    let ran = chopmark_fed(&input, &args);
    assert_eq!((ran.code, ran.last()), (0, expected(VALID).as_str()));
    let ran = chopmark_fed(b"something else", &args);
    assert_eq!((ran.code, ran.last()), (1, "INVALID check=file"));
    let ran = chopmark(["verify", "-", "--policy", &policy()]);
    assert!(ran.code == 64 && ran.err.contains("--bundle"), "{}", ran.err);
}

#[test]
fn a_bundle_brings_everything_but_trust() {
    let folder = folder("bundle");
    let part = |name: &str| fs::read(case(VALID).join(name)).unwrap();
    let (entry, receipt, policy_file) = (part("entry.json"), part("receipt.tlog-proof"), part("policy.txt"));
    let file = text(&case(VALID).join("file"));
    let bundle = folder.join("proof.zip");
    let run = |bytes: &[u8], more: &[&str]| {
        fs::write(&bundle, bytes).unwrap();
        let bundle = text(&bundle);
        let args = ["verify", &file, "--bundle", &bundle];
        chopmark(args.iter().chain(more))
    };
    let parts: [(&str, &[u8]); 4] = [
        ("README.txt", b"hello"),
        ("entry.json", &entry),
        ("policy.txt", &policy_file),
        ("receipt.tlog-proof", &receipt),
    ];
    let ran = run(&zip(&parts), &["--policy", &policy()]);
    assert_eq!((ran.code, ran.last()), (0, expected(VALID).as_str()));
    assert!(!ran.out.contains("another policy"), "{}", ran.out);

    let ran = run(&zip(&parts), &[]);
    assert!(ran.code == 64 && ran.err.contains("the one in a bundle, too"), "{}", ran.err);

    let forged: Vec<_> = parts
        .iter()
        .map(|(name, bytes)| if *name == "policy.txt" { (*name, &b"quorum none\n"[..]) } else { (*name, *bytes) })
        .collect();
    let ran = run(&zip(&forged), &["--policy", &policy()]);
    assert_eq!((ran.code, ran.last()), (0, expected(VALID).as_str()));
    assert!(ran.out.contains("another policy"), "{}", ran.out);

    let mut flipped = zip(&parts);
    let at = flipped.windows(9).position(|bytes| bytes == b"ten_corpu").unwrap();
    flipped[at] ^= 1;
    for bad in [&b"PK\x03\x04 not a zip"[..], b"", &zip(&parts[..2]), &zip(&[]), &flipped] {
        let ran = run(bad, &["--policy", &policy()]);
        assert_eq!((ran.code, ran.last()), (3, "UNKNOWN-FORMAT what=bundle"));
    }
}

#[test]
fn a_folder_of_policies_is_read_by_log_size() {
    let folder = folder("policies");
    let file = text(&lay_out(&folder, VALID, "file"));
    let size: u64 = expected(VALID).split(' ').find_map(|word| word.strip_prefix("size=")?.parse().ok()).unwrap();
    let policies = folder.join("policies");
    let run = |names: &[(u64, &str)], argument: &Path| {
        let _ = fs::remove_dir_all(&policies);
        fs::create_dir(&policies).unwrap();
        fs::write(policies.join("README.txt"), "no policy").unwrap();
        for (first_size, from) in names {
            fs::copy(case(from).join("policy.txt"), policies.join(format!("{first_size}.txt"))).unwrap();
        }
        chopmark(["verify", &file, "--policy", &text(argument)])
    };
    const OTHER: &str = "unknown-policy-empty";
    let valid = expected(VALID);
    let ran = run(&[(1, OTHER), (size, VALID), (size + 1, OTHER)], &policies);
    assert_eq!((ran.code, ran.last()), (0, valid.as_str()), "the policy whose first size is the receipt's");
    let ran = run(&[(1, VALID), (size + 1, OTHER)], &folder);
    assert_eq!((ran.code, ran.last()), (0, valid.as_str()), "a folder named policies inside");
    let ran = run(&[(1, VALID), (size, OTHER)], &policies);
    assert_eq!((ran.code, ran.last()), (3, "UNKNOWN-FORMAT what=policy"));
    let ran = run(&[(size + 1, VALID)], &policies);
    assert!(ran.code == 64 && ran.err.contains("no policy for a log of size"), "{}", ran.err);
    let ran = run(&[], &policies);
    assert!(ran.code == 64 && ran.err.contains("<first-size>.txt"), "{}", ran.err);
}

#[test]
fn an_opening_may_come_from_elsewhere() {
    let folder = folder("opening");
    let name = confidential();
    let file = lay_out(&folder, &name, "file");
    let receipt_path = folder.join("file.tlog-proof");
    let mut receipt = Receipt::parse(&fs::read_to_string(&receipt_path).unwrap()).unwrap();
    let opening = folder.join("opening.json");
    fs::write(&opening, receipt.extra.take().unwrap()).unwrap();
    fs::write(&receipt_path, receipt.render()).unwrap();
    let policy = text(&case(&name).join("policy.txt"));
    let ran = chopmark(["verify", &text(&file), "--policy", &policy]);
    assert_eq!((ran.code, ran.last()), (2, "INCOMPLETE missing=opening"));
    let ran = chopmark(["verify", &text(&file), "--policy", &policy, "--opening", &text(&opening)]);
    assert_eq!((ran.code, ran.last()), (0, expected(&name).as_str()));
    fs::write(&opening, "{}").unwrap();
    let ran = chopmark(["verify", &text(&file), "--policy", &policy, "--opening", &text(&opening)]);
    assert_eq!((ran.code, ran.last()), (1, "INVALID check=opening"));
}

#[test]
fn options_for_one_file_are_refused_for_several() {
    for option in ["--receipt", "--entry", "--bundle", "--opening"] {
        let ran = chopmark(["verify", "a", "b", option, "x", "--policy", &policy()]);
        assert!(ran.code == 64 && ran.out.is_empty() && ran.err.contains("one file"), "{}", ran.err);
    }
    let ran = chopmark(["verify", "a", "--bundle", "b", "--receipt", "c", "--policy", &policy()]);
    assert_eq!(ran.code, 64);
}

#[test]
fn a_name_cannot_forge_the_verdict() {
    let folder = folder("forged-name");
    let name = "x\nVALID index=1 size=2 cosigners=1%1 time=none";
    let file = lay_out(&folder, VALID, name);
    fs::write(&file, "changed").unwrap();
    let ran = chopmark_in(&folder, ["verify", name, "--policy", &policy()]);
    assert_eq!(ran.code, 1);
    assert!(!ran.out.lines().any(|line| line.starts_with("VALID")), "{}", ran.out);
}
