//! `chopmark verify`: files, their entries and receipts, and the user's policy in; verdicts out.
//!
//! All judging is [`ledger_core::verify`]; here files are found and read, digests computed, and
//! verdicts explained. Nothing here opens a connection.

mod explain;
mod hashing;
mod policies;

use std::{
    fs::File,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use ledger_core::{
    receipt::{RECEIPT_BYTES_MAX, Receipt},
    verify::{FileFacts, Part, SignedCheckpoint, Verdict, rfc3339_seconds, verify},
};
use serde::Serialize;

use self::policies::{Policies, Policy};
use crate::{
    bundle::{self, PART_BYTES_MAX},
    cli::VerifyArgs,
    output::{EXIT_USAGE, Out, Usage, shown},
};

pub(crate) use hashing::file_facts;

/// What a receipt is called beside its file.
pub(crate) const RECEIPT_SUFFIX: &str = ".tlog-proof";
/// What an entry is called beside its file.
pub(crate) const ENTRY_SUFFIX: &str = ".entry.json";

/// One file, with all that its verdict rests on.
struct Case {
    facts: FileFacts,
    entry: Vec<u8>,
    receipt: Vec<u8>,
    policy: Policy,
    /// The bundle brought a policy along, and it is another one.
    other_policy: bool,
}

enum Judged {
    Case(Box<Case>, Verdict),
    /// The bundle is none, and why.
    NotABundle(String),
}

impl Judged {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Case(_, verdict) => verdict.clone(),
            Self::NotABundle(_) => Verdict::UnknownFormat(Part::Bundle),
        }
    }
}

/// Checks every file; errors mean that there is no verdict at all.
pub(crate) fn run(args: &VerifyArgs, out: &mut Out) -> anyhow::Result<ExitCode> {
    let policies = Policies::open(check(args)?)?;
    let several = args.files.len() > 1;
    let mut verdicts = Vec::new();
    for file in &args.files {
        match judge(args, file, &policies) {
            Ok(judged) => {
                let verdict = judged.verdict();
                report(args, out, file, several, &judged)?;
                verdicts.push(verdict);
            }
            Err(error) if several => {
                eprintln!("error: {}: {error:#}", shown(file));
                if args.json {
                    out.json(&serde_json::json!({ "file": shown(file), "error": format!("{error:#}") }))?;
                }
            }
            Err(error) => return Err(error),
        }
    }
    if verdicts.len() < args.files.len() {
        // A last line that says VALID must never hide a file that was not looked at.
        let missing = args.files.len() - verdicts.len();
        if args.json {
            out.json(&serde_json::json!({ "verdict": "NO-VERDICT", "files": missing }))?;
        } else {
            writeln!(out, "\nNO-VERDICT files={missing}")?;
        }
        out.flush()?;
        eprintln!("error: no verdict on {} of {} files", args.files.len() - verdicts.len(), args.files.len());
        return Ok(ExitCode::from(EXIT_USAGE));
    }
    let worst = verdicts.into_iter().max_by_key(badness).context("no file")?;
    if args.json {
        out.json(&VerdictLine::of(None, &worst))?;
    } else {
        if several {
            writeln!(out)?;
        }
        writeln!(out, "{worst}")?;
    }
    out.flush()?;
    Ok(ExitCode::from(worst.exit_code()))
}

/// What must be so before any file is read; gives the policy.
fn check(args: &VerifyArgs) -> Result<&Path, Usage> {
    let single = args.receipt.is_some() || args.entry.is_some() || args.bundle.is_some() || args.opening.is_some();
    if single && args.files.len() > 1 {
        let text = "--receipt, --entry, --bundle and --opening belong to one file; leave them out and put \
                    FILE.tlog-proof and FILE.entry.json beside each file, or verify the files one by one";
        return Err(Usage(text.to_owned()));
    }
    let stdin = args.files.iter().any(|file| is_stdin(file));
    if stdin && args.files.len() > 1 {
        return Err(Usage("standard input is one file; verify it alone".to_owned()));
    }
    let parts = args.bundle.is_some() || (args.receipt.is_some() && args.entry.is_some());
    if stdin && !parts {
        let text = "standard input has no name to find its receipt by; give --receipt and --entry, or --bundle";
        return Err(Usage(text.to_owned()));
    }
    args.policy.as_deref().ok_or_else(|| {
        let text = "a verdict needs --policy: the file that says whose signatures you trust. Take it from somebody \
                    you trust, such as a court or a notary office that is a member; one that came together with \
                    the receipt (the one in a bundle, too) proves nothing against whoever handed it over. For a \
                    network of your own, `chopmark dev` names its policy in DIR/dev.json";
        Usage(text.to_owned())
    })
}

fn judge(args: &VerifyArgs, file: &Path, policies: &Policies) -> anyhow::Result<Judged> {
    if !is_stdin(file) {
        // Of the three, the file itself is the one that the user named.
        std::fs::metadata(file).with_context(|| format!("cannot read {}", shown(file)))?;
    }
    let (entry, mut receipt, theirs) = match &args.bundle {
        Some(path) => match bundle::read(path)? {
            Ok(bundle) => (bundle.entry, bundle.receipt, bundle.policy),
            Err(reason) => return Ok(Judged::NotABundle(reason)),
        },
        None => (entry_of(args, file)?, receipt_of(args, file)?, None),
    };
    if let Some(path) = &args.opening {
        receipt = with_opening(receipt, read_part(path, PART_BYTES_MAX)?);
    }
    let policy = policies.pick(log_size(&receipt))?;
    let facts = file_facts(file)?;
    let verdict = verify(Some(&facts), &entry, &receipt, &policy.bytes);
    let other_policy = theirs.is_some_and(|theirs| theirs != policy.bytes);
    Ok(Judged::Case(Box::new(Case { facts, entry, receipt, policy, other_policy }), verdict))
}

fn receipt_of(args: &VerifyArgs, file: &Path) -> anyhow::Result<Vec<u8>> {
    let path = args.receipt.clone().unwrap_or_else(|| beside(file, RECEIPT_SUFFIX));
    read_part(&path, RECEIPT_BYTES_MAX).with_context(|| {
        format!(
            "no receipt for {}: `chopmark submit` saves it beside the file; the record's owner gets it from \
             GET /v1/evidence/<id>/receipt, anybody who has the file from GET /v1/verify/sha256/<its SHA-256>; or say \
             where it is with --receipt, or --bundle",
            shown(file)
        )
    })
}

fn entry_of(args: &VerifyArgs, file: &Path) -> anyhow::Result<Vec<u8>> {
    let path = args.entry.clone().unwrap_or_else(|| beside(file, ENTRY_SUFFIX));
    read_part(&path, PART_BYTES_MAX).with_context(|| {
        format!(
            "no ledger entry for {}: `chopmark submit` saves it beside the file; the record's owner gets it from \
             GET /v1/evidence/<id>/entry, anybody who has the file from GET /v1/verify/sha256/<its SHA-256>; or say \
             where it is with --entry, or --bundle",
            shown(file)
        )
    })
}

/// `contract.pdf` with `.tlog-proof` behind it.
pub(crate) fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == "-"
}

/// A small file, cut one byte after `max` so that the verifier sees that it is too long.
fn read_part(path: &Path, max: usize) -> anyhow::Result<Vec<u8>> {
    let context = || format!("cannot read {}", shown(path));
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(max as u64 + 1).read_to_end(&mut bytes)).with_context(context)?;
    Ok(bytes)
}

/// The receipt with this opening in place of its own; one that cannot be read stays as it is, for
/// the verifier to judge.
fn with_opening(receipt: Vec<u8>, opening: Vec<u8>) -> Vec<u8> {
    let parsed = std::str::from_utf8(&receipt).ok().and_then(|text| Receipt::parse(text).ok());
    match parsed {
        Some(parsed) => Receipt { extra: Some(opening), ..parsed }.render().into_bytes(),
        None => receipt,
    }
}

/// The log size that a receipt speaks of; `None` where it cannot be read.
fn log_size(receipt: &[u8]) -> Option<u64> {
    let receipt = Receipt::parse(std::str::from_utf8(receipt).ok()?).ok()?;
    Some(SignedCheckpoint::parse(&receipt.checkpoint).ok()?.checkpoint.size.0)
}

/// Orders verdicts by what a reader must not miss; of valid ones the latest time is the least that
/// can be said of all.
fn badness(verdict: &Verdict) -> (u8, u64) {
    match verdict {
        Verdict::Valid(valid) => (0, valid.time.unwrap_or(u64::MAX)),
        Verdict::Incomplete(_) => (1, 0),
        Verdict::UnknownFormat(_) => (2, 0),
        Verdict::Invalid(_) => (3, 0),
    }
}

fn report(args: &VerifyArgs, out: &mut Out, file: &Path, several: bool, judged: &Judged) -> anyhow::Result<()> {
    let verdict = judged.verdict();
    if args.json {
        if several {
            out.json(&VerdictLine::of(Some(shown(file)), &verdict))?;
        }
        return Ok(());
    }
    match judged {
        Judged::Case(case, verdict) => explain::case(out, file, case, verdict)?,
        Judged::NotABundle(reason) => explain::not_a_bundle(out, file, reason)?,
    }
    if several {
        writeln!(out, "{}: {verdict}", shown(file))?;
    }
    Ok(())
}

/// A verdict as JSON: the keys of the line.
#[derive(Serialize)]
struct VerdictLine {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    verdict: &'static str,
    #[serde(flatten)]
    detail: Detail,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Detail {
    Valid { index: u64, size: u64, cosigners: usize, witnesses: usize, time: Option<String> },
    Invalid { check: &'static str },
    Incomplete { missing: &'static str },
    UnknownFormat { what: &'static str },
}

impl VerdictLine {
    fn of(file: Option<String>, verdict: &Verdict) -> Self {
        let detail = match verdict {
            Verdict::Valid(valid) => Detail::Valid {
                index: valid.index.0,
                size: valid.size.0,
                cosigners: valid.cosigners,
                witnesses: valid.witnesses,
                time: valid.time.map(rfc3339_seconds),
            },
            Verdict::Invalid(check) => Detail::Invalid { check: check.as_str() },
            Verdict::Incomplete(missing) => Detail::Incomplete { missing: missing.as_str() },
            Verdict::UnknownFormat(part) => Detail::UnknownFormat { what: part.as_str() },
        };
        Self { file, verdict: verdict.word(), detail }
    }
}

#[cfg(test)]
mod tests {
    use ledger_core::{
        merkle::{LeafIndex, TreeSize},
        verify::{Check, Missing, Valid},
    };

    use super::*;

    #[test]
    fn the_worst_verdict_is_the_one_that_must_not_be_missed() {
        let valid = |time| {
            let (index, size) = (LeafIndex(1), TreeSize(2));
            Verdict::Valid(Valid { index, size, cosigners: 1, witnesses: 1, time })
        };
        let order = [
            valid(Some(1)),
            valid(Some(2)),
            valid(None),
            Verdict::Incomplete(Missing::Quorum),
            Verdict::UnknownFormat(Part::Entry),
            Verdict::Invalid(Check::File),
        ];
        assert!(order.windows(2).all(|pair| badness(&pair[0]) < badness(&pair[1])));
    }

    #[test]
    fn json_has_the_keys_of_the_line() {
        let (index, size) = (LeafIndex(1), TreeSize(2));
        let valid = Verdict::Valid(Valid { index, size, cosigners: 3, witnesses: 4, time: Some(0) });
        let line = serde_json::to_string(&VerdictLine::of(None, &valid)).unwrap();
        let expected =
            r#"{"verdict":"VALID","index":1,"size":2,"cosigners":3,"witnesses":4,"time":"1970-01-01T00:00:00Z"}"#;
        assert_eq!(line, expected);
        let line = serde_json::to_string(&VerdictLine::of(Some("a".into()), &Verdict::Incomplete(Missing::Log)));
        assert_eq!(line.unwrap(), r#"{"file":"a","verdict":"INCOMPLETE","missing":"log"}"#);
    }
}
