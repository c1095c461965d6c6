//! `chopmark doctor --config` over a whole deployment: nothing is found where all is well, and every fault
//! that it knows is seeded and named. A fault without a case in [`cases`] fails the test.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod bench;
mod cases;
mod fakes;

use std::{collections::BTreeMap, fs};

use bench::{Bench, Draft, Report};

/// Configurations that `stack.sh` writes, one for each process.
const CONFIGURATIONS: [&str; 6] = ["gateway-0", "gateway-1", "committer-0", "committer-1", "courier-0", "admin"];

/// A deployment in which nothing is wrong.
async fn is_well(bench: &Bench) {
    for name in CONFIGURATIONS {
        let mut draft = Draft::of(bench, name);
        draft.arguments = vec!["--api-key-file".to_owned(), bench.path("api.key")];
        // A process that has just started may not have heard of the others.
        let report = bench.doctor_until(&draft, |report| report.names().is_empty()).await;
        assert_eq!((report.code, report.names()), (0, vec![]), "{name}: {}", report.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_is_named_and_nothing_else() {
    let bench = Bench::start().await;
    is_well(&bench).await;
    let listed = bench.listed();
    let mut seeded: BTreeMap<&str, &str> = BTreeMap::new();
    for case in cases::all() {
        let Some(report) = bench.seed(&case).await else {
            // This user may not mount; where that is expected, `seed` has refused.
            seeded.extend(case.names.iter().map(|name| (*name, "skipped")));
            continue;
        };
        let found = report.names();
        for name in case.names {
            assert!(found.iter().any(|found| found == name), "{name} was seeded, found {found:?}: {}", report.text);
            seeded.insert(name, "found");
        }
        check(&report, &listed);
    }
    // Seeds are taken back, and doctor has changed nothing.
    is_well(&bench).await;
    let unseeded: Vec<_> = listed.keys().filter(|name| !seeded.contains_key(name.as_str())).collect();
    assert!(unseeded.is_empty(), "doctor knows faults that no case seeds: {unseeded:?}");
    assert!(seeded.keys().all(|name| listed.contains_key(*name)), "a case expects a fault that is not listed");
    let found = seeded.values().filter(|how| **how == "found").count();
    assert!(found >= 30, "{found} faults were seeded");
    chopmark_tests::tally("doctor", &format!("{found} faults seeded and named"));
}

/// What holds of every report, whatever was seeded.
fn check(report: &Report, listed: &BTreeMap<String, String>) {
    let mut worst = 0;
    for finding in &report.findings {
        let (name, severity) = (finding["name"].as_str().unwrap(), finding["severity"].as_str().unwrap());
        assert_eq!(listed.get(name).map(String::as_str), Some(severity), "{name}");
        for key in ["about", "detail", "cause", "fix"] {
            assert!(finding[key].as_str().is_some_and(|text| !text.is_empty()), "{name} has no {key}");
        }
        worst = match (severity, worst) {
            ("fail", _) => 1,
            ("unknown", 0) => 2,
            _ => worst,
        };
    }
    assert_eq!(report.code, worst, "{}", report.text);
    assert!(!report.text.contains(fakes::PASSWORD), "a secret is shown: {}", report.text);
}

#[test]
fn a_file_for_several_roles_does_not_say_which() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chopmark.toml");
    let text = r#"
        [ledger]
        genesis = "genesis.json"
        nodes = ["http://127.0.0.1:1"]
        [database]
        url = "postgres://u@127.0.0.1:1/d"
        [cache]
        url = "memory:"
        [secrets]
        key_encryption_key_file = "kek.key"
        ids_key_file = "ids.key"
        api_keys_key_file = "api-keys.key"
        [committer]
        internal = "127.0.0.1:0"
        [courier]
        internal = "127.0.0.1:0"
    "#;
    fs::write(&path, text).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(chopmark_tests::binary());
        let output = command.args(["doctor", "--config"]).arg(&path).args(arguments).output().unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        (output.status.code().unwrap(), text)
    };
    let (code, text) = run(&[]);
    assert!(code == 64 && text.contains("--role"), "{code}: {text}");
    let (code, text) = run(&["--role", "courier"]);
    assert!(code == 1 && text.contains("FAIL    genesis-unusable  ledger.genesis: "), "{code}: {text}");
    assert!(!text.contains("config-table-missing"), "{text}");
    let (code, text) = run(&["--role", "gateway"]);
    assert!(code == 1 && text.contains("config-table-missing  [gateway]"), "{code}: {text}");
}
