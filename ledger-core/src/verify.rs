//! The offline verifier: files, entry, receipt and policy in; a verdict out. No storage, no
//! network, no clock.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess, SeqAccess},
};

use crate::{
    checkpoint::Checkpoint,
    commitment::opens,
    digests::{Algorithm, Digests},
    hash::Hash32,
    member::faults_tolerated,
    merkle::{LeafIndex, TreeSize, inclusion_proof_len, leaf_hash, verify_inclusion},
    note::Note,
    policy_file::PolicyFile,
    receipt::{RECEIPT_BYTES_MAX, Receipt, ReceiptError},
};

/// What was computed from the file in question. Of the digests that an entry lists, those
/// computed here must all be equal, and there must be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileFacts {
    /// Its digests; those that are `None` were not computed and are not compared.
    pub digests: Digests,
    /// Its length in bytes.
    pub size: u64,
}

/// The verdict; [`fmt::Display`] gives the last line that every verifier prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Everything holds.
    Valid(Valid),
    /// A check failed.
    Invalid(Check),
    /// Nothing is wrong, but something is missing.
    Incomplete(Missing),
    /// A part is in a format that this verifier does not know.
    UnknownFormat(Part),
}

/// What a valid receipt proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Valid {
    /// Index of the entry.
    pub index: LeafIndex,
    /// Size of the log at the checkpoint.
    pub size: TreeSize,
    /// Witnesses of the policy that cosigned.
    pub cosigners: usize,
    /// Witnesses of the policy's quorum.
    pub witnesses: usize,
    /// "Existed no later than", Unix seconds: the (f+1)-th earliest cosignature. `None` when the
    /// policy asks for no cosignature, or for fewer than f+1, or the time is after the year 9999.
    pub time: Option<u64>,
}

/// The checks that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Syntax of the receipt, or a path of the wrong length.
    Receipt,
    /// Syntax of the checkpoint.
    Checkpoint,
    /// The checkpoint is of another log.
    Origin,
    /// The file is not the one recorded.
    File,
    /// The opening does not open the entry's commitment.
    Opening,
    /// A signature of a known key does not verify.
    Signature,
    /// The entry is not in the tree.
    Inclusion,
}

/// What can be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// No signature of a known log key.
    Log,
    /// Fewer cosignatures than the policy's quorum.
    Quorum,
    /// A confidential entry without its opening.
    Opening,
}

/// The parts whose format can be unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The receipt.
    Receipt,
    /// The policy.
    Policy,
    /// The entry.
    Entry,
    /// The entry's type has no digests to compare a file with.
    EntryType,
    /// The bundle.
    Bundle,
}

impl Verdict {
    /// Exit code of a verifier program.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Valid(_) => 0,
            Self::Invalid(_) => 1,
            Self::Incomplete(_) => 2,
            Self::UnknownFormat(_) => 3,
        }
    }

    /// The verdict's first word.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Valid(_) => "VALID",
            Self::Invalid(_) => "INVALID",
            Self::Incomplete(_) => "INCOMPLETE",
            Self::UnknownFormat(_) => "UNKNOWN-FORMAT",
        }
    }
}

impl Check {
    /// Its name in verdict lines.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Receipt => "receipt",
            Self::Checkpoint => "checkpoint",
            Self::Origin => "origin",
            Self::File => "file",
            Self::Opening => "opening",
            Self::Signature => "signature",
            Self::Inclusion => "inclusion",
        }
    }
}

impl Missing {
    /// Its name in verdict lines.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Quorum => "quorum",
            Self::Opening => "opening",
        }
    }
}

impl Part {
    /// Its name in verdict lines.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Receipt => "receipt",
            Self::Policy => "policy",
            Self::Entry => "entry",
            Self::EntryType => "entry-type",
            Self::Bundle => "bundle",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())?;
        match self {
            Self::Valid(valid) => {
                let time = valid.time.map_or_else(|| "none".to_owned(), rfc3339_seconds);
                let Valid { index, size, cosigners, witnesses, .. } = valid;
                write!(f, " index={} size={} cosigners={cosigners}/{witnesses} time={time}", index.0, size.0)
            }
            Self::Invalid(check) => write!(f, " check={}", check.as_str()),
            Self::Incomplete(missing) => write!(f, " missing={}", missing.as_str()),
            Self::UnknownFormat(part) => write!(f, " what={}", part.as_str()),
        }
    }
}

/// 9999-12-31T23:59:59Z, the last second that RFC 3339 can write.
const RFC3339_MAX: u64 = 253_402_300_799;

/// Unix seconds as RFC 3339 in UTC, for example `2026-11-22T08:00:00Z`.
#[must_use]
pub fn rfc3339_seconds(unix: u64) -> String {
    // Civil date from days since 1970-01-01: eras of 400 years, years that start in March.
    let (days, second) = (unix / 86_400 + 719_468, unix % 86_400);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Verifies one entry, and the file that it records when `file` is given.
///
/// The order of the checks is fixed, so that every verifier names the same fault first:
/// formats of receipt, policy and entry; syntax of receipt and checkpoint; length of the path;
/// origin; file; signatures; inclusion; log line; quorum.
#[must_use]
pub fn verify(file: Option<&FileFacts>, entry: &[u8], receipt: &[u8], policy: &[u8]) -> Verdict {
    match check(file, entry, receipt, policy) {
        Ok(valid) => Verdict::Valid(valid),
        Err(verdict) => verdict,
    }
}

fn check(file: Option<&FileFacts>, entry: &[u8], receipt: &[u8], policy: &[u8]) -> Result<Valid, Verdict> {
    if !receipt.strip_prefix(crate::receipt::HEADER.as_bytes()).is_some_and(|rest| rest.starts_with(b"\n")) {
        return Err(Verdict::UnknownFormat(Part::Receipt));
    }
    let policy = PolicyFile::parse_bytes(policy).ok();
    // The verifiers that come with a receipt read no group within a group, and all must agree.
    let policy = policy.filter(PolicyFile::is_flat).ok_or(Verdict::UnknownFormat(Part::Policy))?;
    let statement = read_entry(entry, file)?;
    // Outside UTF-8 the head cannot be read anyhow; a checkpoint that lost a byte here is refused.
    let text = String::from_utf8_lossy(receipt);
    let readable = matches!(text, Cow::Borrowed(_)) && receipt.len() <= RECEIPT_BYTES_MAX;
    let receipt = Receipt::parse(&text).map_err(|error| match error {
        ReceiptError::UnknownFormat => Verdict::UnknownFormat(Part::Receipt),
        ReceiptError::Syntax(_) => Verdict::Invalid(Check::Receipt),
    })?;
    if !readable {
        return Err(Verdict::Invalid(Check::Checkpoint));
    }
    let signed = SignedCheckpoint::parse(&receipt.checkpoint)?;
    signed.check_times(&policy)?;
    let size = signed.checkpoint.size;
    if receipt.index.0 >= size.0 || receipt.path.len() != inclusion_proof_len(receipt.index, size) as usize {
        return Err(Verdict::Invalid(Check::Receipt));
    }
    signed.check_origin(&policy)?;
    if let Some(file) = file {
        check_file(file, &statement, receipt.extra.as_deref())?;
    }
    let signatures = signed.check_signatures(&policy)?;
    verify_inclusion(&leaf_hash(entry), receipt.index, size, &receipt.path, &signed.checkpoint.root)
        .map_err(|_| Verdict::Invalid(Check::Inclusion))?;
    signatures.check_quorum(&policy)?;
    Ok(signatures.valid(&policy, receipt.index, size))
}

/// What an entry or an opening says about a file.
///
/// Any JSON object of version 1 is read, canonical or not: the leaf hash decides over the bytes,
/// and other verifiers read entries with whatever JSON parser they have.
#[derive(Default, Deserialize)]
struct Statement {
    #[serde(default)]
    commitment: Listed,
    #[serde(default, deserialize_with = "some")]
    digests: Option<Listed>,
    #[serde(default, deserialize_with = "some")]
    size: Option<Loose>,
    #[serde(default, deserialize_with = "some")]
    v: Option<Loose>,
}

/// A member that is there is there, whatever it says; `null` too.
fn some<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl Statement {
    fn read(bytes: &[u8]) -> Option<Self> {
        // An array is not an object, though serde would take it for one.
        std::str::from_utf8(bytes).ok().filter(|text| text.trim_start().starts_with('{'))?;
        let statement: Self = serde_json::from_slice(bytes).ok()?;
        (statement.v == Some(Loose::Integer(1))).then_some(statement)
    }

    /// Whether `file` has every digest listed and the size; `None` where no digest can be
    /// compared.
    fn describes(&self, file: &FileFacts) -> Option<bool> {
        let listed = self.digests.iter().flat_map(|listed| &listed.0);
        let mut compared =
            listed.filter_map(|(algorithm, digest)| Some(Some(file.digests.get(*algorithm)?) == *digest));
        let first = compared.next()?;
        let size = self.size.as_ref().is_none_or(|size| *size == Loose::Integer(file.size));
        Some(first && compared.all(|same| same) && size)
    }
}

/// Digests by algorithm, those of unknown algorithms passed over; `None` equals no digest.
#[derive(Default)]
struct Listed(BTreeMap<Algorithm, Option<Hash32>>);

impl Listed {
    fn opened_by(&self, opening: &[u8]) -> bool {
        let mut digests = Digests::default();
        for (algorithm, digest) in &self.0 {
            let Some(digest) = digest else { return false };
            digests.set(*algorithm, *digest);
        }
        opens(opening, &digests)
    }
}

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Loose::Object(members) = Loose::deserialize(deserializer)? else { return Ok(Self::default()) };
        let known = members.into_iter().filter_map(|(name, value)| Some((Algorithm::parse(&name)?, value.digest())));
        Ok(Self(known.collect()))
    }
}

/// A JSON value as far as a statement needs it.
#[derive(PartialEq)]
enum Loose {
    Integer(u64),
    Text(String),
    Object(Vec<(String, Self)>),
    Other,
}

impl Loose {
    fn digest(&self) -> Option<Hash32> {
        match self {
            Self::Text(text) => Hash32::from_hex(text),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Loose;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_bool<E>(self, _: bool) -> Result<Loose, E> {
                Ok(Loose::Other)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Loose, E> {
                Ok(Loose::Other)
            }
            fn visit_u64<E>(self, number: u64) -> Result<Loose, E> {
                Ok(Loose::Integer(number))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Loose, E> {
                Ok(Loose::Other)
            }
            fn visit_unit<E>(self) -> Result<Loose, E> {
                Ok(Loose::Other)
            }
            fn visit_str<E>(self, text: &str) -> Result<Loose, E> {
                Ok(Loose::Text(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Loose, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Loose::Other)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Loose, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Loose::Object(members))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

fn read_entry(entry: &[u8], file: Option<&FileFacts>) -> Result<Statement, Verdict> {
    let statement = Statement::read(entry).ok_or(Verdict::UnknownFormat(Part::Entry))?;
    let silent = |file: &FileFacts| statement.describes(file).is_none() && statement.commitment.0.is_empty();
    if file.is_some_and(silent) {
        return Err(Verdict::UnknownFormat(Part::EntryType));
    }
    Ok(statement)
}

fn check_file(file: &FileFacts, entry: &Statement, extra: Option<&[u8]>) -> Result<(), Verdict> {
    let same = match entry.describes(file) {
        Some(same) => same,
        None => {
            let opening = extra.ok_or(Verdict::Incomplete(Missing::Opening))?;
            let opened = Some(opening).filter(|opening| entry.commitment.opened_by(opening)).and_then(Statement::read);
            let opened = opened.filter(|opening| opening.digests.is_some()).ok_or(Verdict::Invalid(Check::Opening))?;
            opened.describes(file).ok_or(Verdict::UnknownFormat(Part::EntryType))?
        }
    };
    if same { Ok(()) } else { Err(Verdict::Invalid(Check::File)) }
}

/// A checkpoint with its signatures, split but not verified.
#[derive(Debug, Clone)]
pub struct SignedCheckpoint {
    /// What it says.
    pub checkpoint: Checkpoint,
    note: Note,
}

/// Which keys of a policy signed.
#[derive(Debug, Clone)]
pub struct VerifiedSignatures {
    log: bool,
    cosigned: BTreeSet<usize>,
    times: Vec<u64>,
}

impl SignedCheckpoint {
    /// Reads a checkpoint. Errors: `INVALID check=checkpoint`.
    pub fn parse(text: &str) -> Result<Self, Verdict> {
        let malformed = |_| Verdict::Invalid(Check::Checkpoint);
        let note = Note::parse(text).map_err(malformed)?;
        let checkpoint = Checkpoint::parse(&note.text).map_err(malformed)?;
        Ok(Self { checkpoint, note })
    }

    /// Whether the times of the policy's cosigners are in range. Errors:
    /// `INVALID check=checkpoint`.
    pub fn check_times(&self, policy: &PolicyFile) -> Result<(), Verdict> {
        let late = policy.witnesses.iter().any(|witness| self.note.time_out_of_range(witness));
        if late { Err(Verdict::Invalid(Check::Checkpoint)) } else { Ok(()) }
    }

    /// Whether it is of the policy's log.
    pub fn check_origin(&self, policy: &PolicyFile) -> Result<(), Verdict> {
        let same = policy.logs.iter().all(|log| log.name() == self.checkpoint.origin);
        if same { Ok(()) } else { Err(Verdict::Invalid(Check::Origin)) }
    }

    /// Verifies every signature of a known key.
    pub fn check_signatures(&self, policy: &PolicyFile) -> Result<VerifiedSignatures, Verdict> {
        self.check_times(policy)?;
        let failed = |_| Verdict::Invalid(Check::Signature);
        let mut found = VerifiedSignatures { log: false, cosigned: BTreeSet::new(), times: Vec::new() };
        for log in &policy.logs {
            found.log |= self.note.verified_by(log).map_err(failed)?.is_some();
        }
        let quorum = policy.quorum_witnesses();
        for (at, witness) in policy.witnesses.iter().enumerate() {
            let Some(verified) = self.note.verified_by(witness).map_err(failed)? else { continue };
            if quorum.contains(&at) {
                found.cosigned.insert(at);
                found.times.extend(verified.time);
            }
        }
        found.times.sort_unstable();
        Ok(found)
    }
}

impl VerifiedSignatures {
    /// Times of the cosignatures that count towards the quorum, ascending, Unix seconds.
    #[must_use]
    pub fn times(&self) -> &[u64] {
        &self.times
    }

    /// Whether log line and quorum are there.
    pub fn check_quorum(&self, policy: &PolicyFile) -> Result<(), Verdict> {
        if !self.log {
            return Err(Verdict::Incomplete(Missing::Log));
        }
        if !policy.satisfied_by(&self.cosigned) {
            return Err(Verdict::Incomplete(Missing::Quorum));
        }
        Ok(())
    }

    fn valid(&self, policy: &PolicyFile, index: LeafIndex, size: TreeSize) -> Valid {
        let witnesses = policy.quorum_witnesses().len();
        let time = self.times.get(faults_tolerated(witnesses)).copied().filter(|time| *time <= RFC3339_MAX);
        Valid { index, size, cosigners: self.cosigned.len(), witnesses, time }
    }
}
