//! `chopmark version`: of the program, and of every format that it reads and writes.

use std::io::Write as _;

use serde::Serialize;

use crate::{cli::VersionArgs, output::Out};

/// Formats by name and version; the verifier refuses any other as `UNKNOWN-FORMAT`.
const FORMATS: [(&str, &str); 8] = [
    ("entry", "1 (canonical JSON, RFC 8785; leaf hash SHA-256, entry id SHA3-256)"),
    ("block", "1"),
    ("log", "C2SP tlog-tiles, RFC 9162 tree"),
    ("checkpoint", "C2SP tlog-checkpoint, signed-note Ed25519"),
    ("cosignature", "C2SP tlog-cosignature, cosignature/v1"),
    ("receipt", ledger_core::receipt::HEADER),
    ("policy", "C2SP tlog-policy"),
    ("dev.json", "1"),
];

/// Engines that this binary has, by the role they serve.
const FEATURES: [(&str, &str); 5] = [
    ("database", "sqlite"),
    ("queue", "embedded"),
    ("cache", "memory"),
    ("ledger", "one member"),
    ("digests", "sha256 sha3-256 sm3"),
];

#[derive(Serialize)]
struct Version {
    version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<&'static str>,
    target: String,
    profile: &'static str,
    formats: serde_json::Map<String, serde_json::Value>,
    features: serde_json::Map<String, serde_json::Value>,
}

/// Prints it.
pub(crate) fn run(args: &VersionArgs, out: &mut Out) -> anyhow::Result<()> {
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        // Set by whoever builds a release.
        commit: option_env!("CHOPMARK_COMMIT"),
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        profile: if cfg!(debug_assertions) { "debug" } else { "release" },
        formats: table(&FORMATS),
        features: table(&FEATURES),
    };
    if args.json {
        return Ok(out.json(&version)?);
    }
    let commit = version.commit.map(|commit| format!(" {commit}")).unwrap_or_default();
    writeln!(out, "chopmark {}{commit} ({}, {})", version.version, version.target, version.profile)?;
    for (title, rows) in [("formats", &FORMATS[..]), ("features", &FEATURES[..])] {
        writeln!(out, "\n{title}")?;
        for (name, value) in rows {
            writeln!(out, "  {name:<12} {value}")?;
        }
    }
    Ok(out.flush()?)
}

fn table(rows: &[(&str, &str)]) -> serde_json::Map<String, serde_json::Value> {
    rows.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect()
}
