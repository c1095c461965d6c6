//! Verdicts in words: what was found, what it means, what to do. Everything here goes before the
//! last line, which alone is for programs.

use std::{
    io::{self, Write},
    path::Path,
};

use ledger_core::{
    Hash32,
    commitment::EvidenceOpening,
    digests::{Algorithm, Digests},
    entry::entry_id,
    json::{Value, from_canonical},
    member::faults_tolerated,
    policy_file::PolicyFile,
    receipt::Receipt,
    verify::{Check, Missing, Part, SignedCheckpoint, Valid, Verdict, rfc3339_seconds},
};

use super::Case;
use crate::output::{plain, shown};

/// Explains the verdict on one file.
pub(super) fn case(out: &mut impl Write, file: &Path, case: &Case, verdict: &Verdict) -> io::Result<()> {
    writeln!(out, "{}", shown(file))?;
    match verdict {
        Verdict::Valid(valid) => proven(out, case, valid)?,
        Verdict::Invalid(check) => failed(out, case, *check)?,
        Verdict::Incomplete(missing) => incomplete(out, case, *missing)?,
        Verdict::UnknownFormat(part) => unknown(out, case, *part)?,
    }
    if case.other_policy {
        line(
            out,
            "note",
            "the bundle holds another policy than yours; yours was used, the bundle's was not looked at",
        )?;
    }
    Ok(())
}

/// Explains why a bundle cannot be used.
pub(super) fn not_a_bundle(out: &mut impl Write, file: &Path, reason: &str) -> io::Result<()> {
    writeln!(out, "{}", shown(file))?;
    line(out, "unknown", &format!("the bundle cannot be used: {}", plain(reason)))?;
    line(out, "to do", "fetch it again: GET /v1/evidence/<id>/proof")
}

fn line(out: &mut impl Write, head: &str, text: &str) -> io::Result<()> {
    writeln!(out, "  {head:<8} {text}")
}

fn proven(out: &mut impl Write, case: &Case, valid: &Valid) -> io::Result<()> {
    let recorded = Recorded::of(case);
    let names: Vec<&str> = recorded.digests.iter().map(|(algorithm, _)| algorithm.as_str()).collect();
    let opened = if recorded.confidential { ", by the opening of its confidential entry" } else { "" };
    line(
        out,
        "file",
        &format!("these {} bytes are the ones recorded ({}){opened}", case.facts.size, names.join(", ")),
    )?;
    let (id, Valid { index, size, cosigners, witnesses, .. }) = (entry_id(&case.entry), valid);
    line(out, "entry", &format!("{id} is leaf {} of the log {}, at size {}", index.0, origin(case), size.0))?;
    let policy = format!("{} (SHA-256 {})", shown(&case.policy.path), Algorithm::Sha256.digest(&case.policy.bytes));
    line(out, "signed", &format!("by the log and by {cosigners} of the {witnesses} witnesses of your policy"))?;
    line(out, "policy", &policy)?;
    match valid.time {
        Some(time) => {
            let (time, faulty) = (rfc3339_seconds(time), faults_tolerated(*witnesses));
            let vouched =
                if faulty == 0 { String::new() } else { format!(", even if up to {faulty} of the witnesses lie") };
            line(out, "time", &format!("the file existed no later than {time}{vouched}"))?;
        }
        None => line(out, "time", "nothing is proven about time: your policy asks for too few cosignatures")?,
    }
    line(out, "beware", "this does not prove who made the file, who had it first, or that what it says is true")
}

fn failed(out: &mut impl Write, case: &Case, check: Check) -> io::Result<()> {
    const AGAIN: &str = "fetch receipt and entry again, together: GET /v1/evidence/<id>/receipt and …/entry";
    let (what, todo) = match check {
        Check::Receipt => {
            ("the receipt is damaged: a line is malformed, or its path has the wrong length".into(), AGAIN)
        }
        Check::Checkpoint => ("the checkpoint in the receipt is damaged".into(), AGAIN),
        Check::Origin => (
            format!("the receipt is of the log {}, your policy is for {}", origin(case), policy_origin(case)),
            "use the policy of that log, if you trust it; or the receipt of yours",
        ),
        Check::File => (
            "the file is not the one recorded".into(),
            "look for the file exactly as it was: opening and saving it again is enough to change it",
        ),
        Check::Opening => (
            "the opening does not open this entry's commitment".into(),
            "use the receipt that the record's owner fetched, or the right --opening",
        ),
        Check::Signature => (
            "a signature under a name and key of your policy is forged or damaged".into(),
            "fetch the receipt again; if it stays so, tell the members of the network: somebody is forging",
        ),
        Check::Inclusion => ("the entry is not where the receipt says: entry or path was changed".into(), AGAIN),
    };
    line(out, "failed", &what)?;
    if check == Check::File {
        differences(out, case)?;
    }
    line(out, "to do", todo)
}

/// What was recorded beside what the file has.
fn differences(out: &mut impl Write, case: &Case) -> io::Result<()> {
    let recorded = Recorded::of(case);
    for (algorithm, digest) in recorded.digests.iter() {
        let found = case.facts.digests.get(algorithm);
        if found != Some(digest) {
            let found = found.map_or_else(|| "not computed".to_owned(), |found| found.to_string());
            line(
                out,
                "",
                &format!("{algorithm}: recorded {digest}, this file {found}", algorithm = algorithm.as_str()),
            )?;
        }
    }
    if let Some(size) = recorded.size.filter(|size| *size != case.facts.size) {
        line(out, "", &format!("size: recorded {size}, this file {}", case.facts.size))?;
    }
    Ok(())
}

fn incomplete(out: &mut impl Write, case: &Case, missing: Missing) -> io::Result<()> {
    let (what, todo) = match missing {
        Missing::Log => (
            "the checkpoint has no signature by a log key of your policy".into(),
            "fetch the receipt again; if the members changed since, use the policy for its log size (a folder does)",
        ),
        Missing::Quorum => (
            cosigned(case).map_or_else(
                || "too few cosignatures for your policy".into(),
                |(k, n)| format!("{k} of the {n} witnesses of your policy cosigned, which is no quorum"),
            ),
            "fetch the receipt again later; if the members changed since, use the policy for its log size",
        ),
        Missing::Opening => (
            "the entry is confidential: the ledger holds only commitments, and the receipt has no opening".into(),
            "give --opening, or the receipt that the record's owner fetched",
        ),
    };
    line(out, "missing", &what)?;
    line(out, "to do", todo)
}

fn unknown(out: &mut impl Write, case: &Case, part: Part) -> io::Result<()> {
    let what = match part {
        Part::Receipt => "the receipt is not a C2SP tlog-proof of version 1".into(),
        Part::Policy => {
            let text = String::from_utf8_lossy(&case.policy.bytes);
            let fault =
                PolicyFile::parse(&text).err().map_or_else(|| "not UTF-8".to_owned(), |fault| fault.to_string());
            format!("{} is not a policy: {fault}", shown(&case.policy.path))
        }
        Part::Entry => "the entry is not canonical JSON of version 1".into(),
        Part::EntryType => "the entry records no digest that could be compared with a file".into(),
        Part::Bundle => "the bundle is not one of ours".to_owned(),
    };
    line(out, "unknown", &what)?;
    line(out, "to do", "check that it is the right file, unchanged; a newer format needs a newer chopmark")
}

/// What the entry, or the opening of a confidential one, says of the file.
#[derive(Default)]
struct Recorded {
    digests: Digests,
    size: Option<u64>,
    confidential: bool,
}

impl Recorded {
    fn of(case: &Case) -> Self {
        let Ok(entry) = Value::parse(&case.entry) else { return Self::default() };
        let size = entry.get("size").and_then(Value::as_integer);
        let digest = |name: &str| entry.get("digests")?.get(name)?.as_str().and_then(Hash32::from_hex);
        let [sha256, sha3_256, sm3] = Algorithm::ALL.map(|algorithm| digest(algorithm.as_str()));
        let digests = Digests { sha256, sha3_256, sm3 };
        if !digests.is_empty() {
            return Self { digests, size, confidential: false };
        }
        let opening = receipt(case).and_then(|receipt| receipt.extra);
        let opening = opening.and_then(|opening| from_canonical::<EvidenceOpening>(&opening).ok());
        opening.map_or_else(Self::default, |opening| Self {
            digests: opening.digests,
            size: opening.size,
            confidential: true,
        })
    }
}

fn receipt(case: &Case) -> Option<Receipt> {
    Receipt::parse(std::str::from_utf8(&case.receipt).ok()?).ok()
}

fn policy(case: &Case) -> Option<PolicyFile> {
    PolicyFile::parse(std::str::from_utf8(&case.policy.bytes).ok()?).ok()
}

fn origin(case: &Case) -> String {
    let signed = receipt(case).and_then(|receipt| SignedCheckpoint::parse(&receipt.checkpoint).ok());
    signed.map_or_else(|| "?".to_owned(), |signed| plain(&signed.checkpoint.origin))
}

fn policy_origin(case: &Case) -> String {
    let policy = policy(case);
    let origin = policy.as_ref().and_then(|policy| policy.logs.first()).map(|log| plain(log.name()));
    origin.unwrap_or_else(|| "?".to_owned())
}

/// Witnesses of the quorum that cosigned, and how many there are.
fn cosigned(case: &Case) -> Option<(usize, usize)> {
    let (policy, receipt) = (policy(case)?, receipt(case)?);
    let signatures = SignedCheckpoint::parse(&receipt.checkpoint).ok()?.check_signatures(&policy).ok()?;
    Some((signatures.times().len(), policy.quorum_witnesses().len()))
}
