//! Receipts and the verifier: what it accepts, what it refuses, and in which words.

use ledger_core::{
    Hash32,
    checkpoint::{Checkpoint, U63_MAX},
    commitment::{EvidenceOpening, commit},
    digests::Digests,
    merkle::{LeafIndex, PROOF_HASHES_MAX, TreeSize},
    note::{Note, SignatureLine, cosign, sign},
    operation::V1,
    receipt::{HEADER, RECEIPT_BYTES_MAX, Receipt, ReceiptError},
    verify::{FileFacts, rfc3339_seconds, verify},
};
use proptest::prelude::*;

use crate::support::{Ledger, MemberKeys, ORIGIN, id, signing_key};

fn facts(file: &[u8]) -> FileFacts {
    FileFacts { digests: Digests::of(file), size: file.len() as u64 }
}

/// A receipt's parts, to be changed one at a time.
#[derive(Clone)]
struct Case {
    ledger: Ledger,
    file: Vec<u8>,
    entry: Vec<u8>,
    receipt: Receipt,
    policy: String,
}

impl Case {
    /// Entry 5 of 9 in a ledger of `members`, cosigned by `cosigners`.
    fn new(members: u8, cosigners: usize) -> Self {
        let mut ledger = Ledger::with_tenant(members);
        let operations = (0..6).map(|at| ledger.evidence(&format!("file {at}"), "ten_a")).collect();
        ledger.block(operations);
        Self::of(ledger, 5, b"file 2", cosigners)
    }

    fn of(ledger: Ledger, index: u64, file: &[u8], cosigners: usize) -> Self {
        Self {
            file: file.to_vec(),
            entry: ledger.entries[usize::try_from(index).expect("an index")].clone(),
            receipt: ledger.receipt(index, cosigners),
            policy: ledger.policy_text(),
            ledger,
        }
    }

    fn verdict(&self) -> String {
        self.verdict_of(self.receipt.render().as_bytes())
    }

    fn verdict_of(&self, receipt: &[u8]) -> String {
        let verdict = verify(Some(&facts(&self.file)), &self.entry, receipt, self.policy.as_bytes());
        assert_eq!(verdict.to_string().split(' ').next(), Some(verdict.word()));
        let codes = ["VALID", "INVALID", "INCOMPLETE", "UNKNOWN-FORMAT"];
        assert_eq!(codes[usize::from(verdict.exit_code())], verdict.word());
        verdict.to_string()
    }

    fn with(&self, change: impl FnOnce(&mut Self)) -> String {
        let mut case = self.clone();
        change(&mut case);
        case.verdict()
    }

    /// The verdict after a change of the receipt's text.
    fn with_text(&self, change: impl FnOnce(String) -> String) -> String {
        self.verdict_of(change(self.receipt.render()).as_bytes())
    }

    /// The verdict with other signature lines over a text of our own.
    fn signed(&self, text: &str, lines: &[SignatureLine]) -> String {
        self.with(|case| {
            case.receipt.checkpoint = Note { text: text.to_owned(), signatures: lines.to_vec() }.render();
        })
    }

    fn text(&self) -> String {
        Note::parse(&self.receipt.checkpoint).expect("a note").text
    }

    fn lines(&self) -> Vec<SignatureLine> {
        Note::parse(&self.receipt.checkpoint).expect("a note").signatures
    }
}

#[test]
fn valid_receipts() {
    let case = Case::new(4, 3);
    assert_eq!(case.verdict(), "VALID index=5 size=9 cosigners=3/4 time=2027-01-15T08:00:01Z");
    assert_eq!(Case::new(4, 4).verdict(), "VALID index=5 size=9 cosigners=4/4 time=2027-01-15T08:00:01Z");
    assert_eq!(Case::new(1, 1).verdict(), "VALID index=5 size=9 cosigners=1/1 time=2027-01-15T08:00:00Z");
    assert_eq!(Case::new(7, 6).verdict(), "VALID index=5 size=9 cosigners=6/7 time=2027-01-15T08:00:02Z");
    // Every entry of a log, of whatever type, without a file.
    let policy = case.policy.as_bytes();
    for index in 0..9 {
        let receipt = case.ledger.receipt(index, 3).render();
        let entry = &case.ledger.entries[usize::try_from(index).unwrap()];
        let verdict = verify(None, entry, receipt.as_bytes(), policy).to_string();
        assert_eq!(verdict, format!("VALID index={index} size=9 cosigners=3/4 time=2027-01-15T08:00:01Z"));
    }
    // A policy that asks for no cosignature.
    let none = case.with(|case| case.policy = case.policy.replace("quorum members", "quorum none"));
    assert_eq!(none, "VALID index=5 size=9 cosigners=0/0 time=none");
}

#[test]
fn confidential_receipts_carry_their_opening() {
    let mut ledger = Ledger::with_tenant(4);
    let opening = |file: &[u8], size| {
        let opening = EvidenceOpening { digests: Digests::of(file), media_type: None, salt: id("salt"), size, v: V1 };
        opening.encode()
    };
    let bytes = opening(b"secret", Some(6));
    let operation = ledger.evidence_with("confidential", "ten_a", |o| {
        (o.digests, o.size, o.media_type, o.commitment) = (None, None, None, Some(commit(&bytes)));
    });
    let index = ledger.commit(operation);
    let mut case = Case::of(ledger, index, b"secret", 3);
    assert_eq!(case.verdict(), "INCOMPLETE missing=opening");
    case.receipt.extra = Some(bytes.clone());
    assert!(case.verdict().starts_with("VALID index=3 size=4 "));
    assert_eq!(case.with(|case| case.file.push(b'.')), "INVALID check=file");
    for other in
        [opening(b"other", Some(6)), opening(b"secret", None), bytes[..bytes.len() - 1].to_vec(), b"{}".to_vec()]
    {
        assert_eq!(case.with(|case| case.receipt.extra = Some(other)), "INVALID check=opening");
    }
    // An opening is read like an entry: whatever was committed to counts.
    let mut ledger = case.ledger.clone();
    let spaced = [b" ", bytes.as_slice()].concat();
    let operation = ledger.evidence_with("spaced", "ten_a", |o| {
        (o.digests, o.size, o.media_type, o.commitment) = (None, None, None, Some(commit(&spaced)));
    });
    let index = ledger.commit(operation);
    let mut other = Case::of(ledger, index, b"secret", 3);
    other.receipt.extra = Some(spaced);
    assert!(other.verdict().starts_with("VALID"));
    // Openings that open, but are none, or say nothing that can be compared.
    let garbage: Vec<u8> = opening(b"secret", Some(6)).iter().map(|byte| byte ^ 1).collect();
    for (odd, verdict) in [
        (garbage.as_slice(), "INVALID check=opening"),
        (br#"{"salt":"00","v":1}"#, "INVALID check=opening"),
        (br#"{"digests":{},"salt":"00","v":2}"#, "INVALID check=opening"),
        (br#"{"digests":{},"salt":"00","v":1}"#, "UNKNOWN-FORMAT what=entry-type"),
        (br#"{"digests":{"blake9":"00"},"v":1}"#, "UNKNOWN-FORMAT what=entry-type"),
    ] {
        let mut ledger = Ledger::with_tenant(4);
        let operation = ledger.evidence_with("confidential", "ten_a", |o| {
            (o.digests, o.size, o.media_type, o.commitment) = (None, None, None, Some(commit(odd)));
        });
        let index = ledger.commit(operation);
        let mut case = Case::of(ledger, index, b"secret", 3);
        case.receipt.extra = Some(odd.to_vec());
        assert_eq!(case.verdict(), verdict);
    }
    // Without a file the opening is nobody's business.
    let receipt = case.receipt.render();
    assert!(verify(None, &case.entry, receipt.as_bytes(), case.policy.as_bytes()).word() == "VALID");
}

#[test]
fn another_file_or_entry() {
    let case = Case::new(4, 3);
    assert_eq!(case.with(|case| case.file = b"file 3".to_vec()), "INVALID check=file");
    let mut shown = facts(b"file 2");
    shown.size += 1;
    let receipt = case.receipt.render();
    let check =
        |facts: &FileFacts| verify(Some(facts), &case.entry, receipt.as_bytes(), case.policy.as_bytes()).to_string();
    assert_eq!(check(&shown), "INVALID check=file");
    // One digest is enough to compare with; none is not.
    let one = FileFacts { digests: Digests { sm3: Digests::of(b"file 2").sm3, ..Digests::default() }, size: 6 };
    assert!(check(&one).starts_with("VALID"));
    let wrong = FileFacts { digests: Digests { sm3: Some(id("wrong")), ..Digests::of(b"file 2") }, size: 6 };
    assert_eq!(check(&wrong), "INVALID check=file");
    assert_eq!(check(&FileFacts { digests: Digests::default(), size: 6 }), "UNKNOWN-FORMAT what=entry-type");

    let text = |case: &Case| String::from_utf8(case.entry.clone()).unwrap();
    let entry = |change: &dyn Fn(String) -> String| case.with(|case| case.entry = change(text(case)).into_bytes());
    assert_eq!(entry(&|entry| entry.replace("ten_a", "ten_b")), "INVALID check=inclusion");
    assert_eq!(entry(&|entry| entry.replace("\"size\":6", "\"size\":7")), "INVALID check=file");
    assert_eq!(entry(&|entry| entry.replace("\"v\":1", "\"v\":2")), "UNKNOWN-FORMAT what=entry");
    // Any spelling is read, but the bytes are another leaf.
    assert_eq!(entry(&|entry| format!("{entry}\n")), "INVALID check=inclusion");
    assert_eq!(entry(&|entry| entry.replace("\"v\":1", "\"v\":1,\"w\":-1.5e400")), "INVALID check=inclusion");
    assert_eq!(entry(&|entry| entry.replace("\"v\":1", "\"v\":1.0")), "UNKNOWN-FORMAT what=entry");
    assert_eq!(entry(&|entry| entry.replace("\"v\":1", "\"v\":1,\"v\":1")), "UNKNOWN-FORMAT what=entry");
    assert_eq!(entry(&|_| String::new()), "UNKNOWN-FORMAT what=entry");
    assert_eq!(entry(&|_| "[]".to_owned()), "UNKNOWN-FORMAT what=entry");
    for size in ["\"6\"", "6.0", "null", "-6", "[6]"] {
        let size = format!("\"size\":{size}");
        assert_eq!(entry(&|entry| entry.replace("\"size\":6", &size)), "INVALID check=file");
    }
    assert_eq!(case.with(|case| case.entry = case.ledger.entries[0].clone()), "UNKNOWN-FORMAT what=entry-type");
    // Digests that this version does not know are passed over; a list of none compares nothing.
    let digests = |text: &str| case.with(|case| case.entry = format!("{{\"digests\":{text},\"v\":1}}").into_bytes());
    let sha256 = Digests::of(b"file 2").sha256.unwrap();
    assert_eq!(digests(&format!("{{\"blake9\":true,\"sha256\":\"{sha256}\"}}")), "INVALID check=inclusion");
    assert_eq!(digests("{\"blake9\":\"00\"}"), "UNKNOWN-FORMAT what=entry-type");
    assert_eq!(digests("{}"), "UNKNOWN-FORMAT what=entry-type");
    assert_eq!(digests(&format!("[\"{sha256}\",\"{sha256}\",\"{sha256}\"]")), "UNKNOWN-FORMAT what=entry-type");
    assert_eq!(digests("null"), "UNKNOWN-FORMAT what=entry-type");
    for odd in ["\"00\"", "1", "null", &format!("\"{}\"", sha256.to_string().to_uppercase())] {
        assert_eq!(digests(&format!("{{\"sha256\":{odd}}}")), "INVALID check=file", "{odd}");
        assert_eq!(digests(&format!("{{\"sha256\":\"{sha256}\",\"sm3\":{odd}}}")), "INVALID check=file", "{odd}");
    }
    assert_eq!(digests(&"[".repeat(200)), "UNKNOWN-FORMAT what=entry");
}

#[test]
fn another_place_in_the_tree() {
    let case = Case::new(4, 3);
    assert_eq!(case.with(|case| case.receipt.index = LeafIndex(4)), "INVALID check=inclusion");
    assert_eq!(case.with(|case| case.receipt.index = LeafIndex(6)), "INVALID check=inclusion");
    assert_eq!(case.with(|case| case.receipt.index = LeafIndex(8)), "INVALID check=receipt");
    assert_eq!(case.with(|case| case.receipt.index = LeafIndex(9)), "INVALID check=receipt");
    assert_eq!(case.with(|case| case.receipt.path.swap(0, 1)), "INVALID check=inclusion");
    assert_eq!(case.with(|case| case.receipt.path.truncate(3)), "INVALID check=receipt");
    assert_eq!(case.with(|case| case.receipt.path.push(Hash32::ZERO)), "INVALID check=receipt");
    assert_eq!(case.with(|case| case.receipt.path = vec![Hash32::ZERO; PROOF_HASHES_MAX + 1]), "INVALID check=receipt");
}

#[test]
fn another_checkpoint() {
    let case = Case::new(4, 3);
    let (text, lines) = (case.text(), case.lines());
    let rewritten = |change: &dyn Fn(&mut Checkpoint)| {
        let mut checkpoint = Checkpoint::parse(&text).unwrap();
        change(&mut checkpoint);
        case.signed(&checkpoint.text(), &lines)
    };
    assert_eq!(rewritten(&|_| {}), case.verdict());
    assert_eq!(rewritten(&|checkpoint| checkpoint.size = TreeSize(10)), "INVALID check=signature");
    assert_eq!(rewritten(&|checkpoint| checkpoint.size = TreeSize(0)), "INVALID check=receipt");
    assert_eq!(rewritten(&|checkpoint| checkpoint.root = Hash32::ZERO), "INVALID check=signature");
    assert_eq!(rewritten(&|checkpoint| checkpoint.origin = "other.example/log".to_owned()), "INVALID check=origin");
    assert_eq!(rewritten(&|checkpoint| checkpoint.origin.push('+')), "INVALID check=origin");
    // A root that was signed, but of another tree.
    let other = Checkpoint { origin: ORIGIN.to_owned(), size: TreeSize(9), root: id("another tree") }.text();
    let members = &case.ledger.members;
    let resigned: Vec<SignatureLine> = members
        .iter()
        .map(|member| cosign(&member.member().cosigner_name(), &member.cosigner, &other, 1))
        .chain([sign(ORIGIN, &members[0].log, &other)])
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(case.signed(&other, &resigned), "INVALID check=inclusion");
}

#[test]
fn signatures_are_counted_and_checked() {
    let case = Case::new(4, 3);
    let (text, lines) = (case.text(), case.lines());
    let (logs, cosigners) = lines.split_at(4);
    let with = |lines: &[&[SignatureLine]]| case.signed(&text, &lines.concat());
    let valid = case.verdict();
    assert_eq!(with(&[cosigners, &logs[3..]]), valid);
    assert_eq!(with(&[cosigners]), "INCOMPLETE missing=log");
    assert_eq!(with(&[logs, &cosigners[..2]]), "INCOMPLETE missing=quorum");
    assert_eq!(with(&[logs]), "INCOMPLETE missing=quorum");
    // One member counted twice is one member; its earliest time stands, whatever the order.
    let member = &case.ledger.members[1];
    let again = cosign(&member.member().cosigner_name(), &member.cosigner, &text, 1_900_000_000).unwrap();
    assert_eq!(with(&[logs, &cosigners[..2], std::slice::from_ref(&again)]), "INCOMPLETE missing=quorum");
    assert_eq!(with(&[std::slice::from_ref(&again), logs, cosigners]), valid);
    assert_eq!(with(&[logs, cosigners, &[again]]), valid);
    // Unknown keys are passed over; known ones must verify, those outside the quorum too.
    let stranger = MemberKeys::new("z.example");
    let by = |name: &str, key: &str| cosign(name, &signing_key(key), &text, 7).unwrap();
    assert_eq!(with(&[&[by("z.example/cosigner", "z")], logs, cosigners]), valid);
    assert_eq!(with(&[&[by("a.example/cosigner", "z")], logs, cosigners]), valid);
    assert_eq!(with(&[&[sign(ORIGIN, &stranger.log, &text).unwrap()], logs, cosigners]), valid);
    let mut forged = by("d.example/cosigner", "z");
    forged.id = case.ledger.members[3].member().cosigner_verifier().id();
    assert_eq!(with(&[logs, cosigners, &[forged.clone()]]), "INVALID check=signature");
    forged.payload.truncate(64);
    assert_eq!(with(&[logs, cosigners, &[forged]]), "INVALID check=signature");
    let mut renamed = cosigners[0].clone();
    renamed.name = "b.example/cosigner".to_owned();
    assert_eq!(with(&[logs, cosigners, &[renamed]]), valid);
    // A cosignature of another size does not move.
    let other = Checkpoint { size: TreeSize(8), ..Checkpoint::parse(&text).unwrap() }.text();
    let moved = cosign(&member.member().cosigner_name(), &member.cosigner, &other, 7).unwrap();
    assert_eq!(with(&[logs, cosigners, &[moved]]), "INVALID check=signature");
}

#[test]
fn times_stay_below_two_to_the_63() {
    let case = Case::new(1, 1);
    let (text, member) = (case.text(), &case.ledger.members[0]);
    let log = sign(ORIGIN, &member.log, &text).unwrap();
    let at = |time: u64| cosign(&member.member().cosigner_name(), &member.cosigner, &text, time).unwrap();
    let with = |line: SignatureLine| case.signed(&text, &[log.clone(), line]);
    assert!(with(at(253_402_300_799)).ends_with("time=9999-12-31T23:59:59Z"));
    assert!(with(at(253_402_300_800)).ends_with("cosigners=1/1 time=none"));
    assert!(with(at(U63_MAX)).ends_with("cosigners=1/1 time=none"));
    assert!(with(at(0)).ends_with("time=1970-01-01T00:00:00Z"));
    // Beyond, even a signature that does not verify is a fault of the checkpoint.
    let mut late = at(7);
    late.payload[0] = 0x80;
    assert_eq!(with(late.clone()), "INVALID check=checkpoint");
    late.payload.push(0);
    assert_eq!(with(late), "INVALID check=signature");
}

#[test]
fn syntax_of_receipts() {
    let case = Case::new(4, 3);
    let render = case.receipt.render();
    assert_eq!(Receipt::parse(&render), Ok(case.receipt.clone()));
    assert!(render.starts_with("c2sp.org/tlog-proof@v1\nindex 5\n"));
    let unknown = "UNKNOWN-FORMAT what=receipt";
    for head in [
        "c2sp.org/tlog-proof@v2",
        "c2sp.org/tlog-proof@v10",
        "c2sp.org/tlog-proof@v1 ",
        "",
        "\u{feff}c2sp.org/tlog-proof@v1",
    ] {
        assert_eq!(case.with_text(|text| text.replacen(HEADER, head, 1)), unknown, "{head}");
    }
    assert_eq!(case.verdict_of(b""), unknown);
    assert_eq!(case.verdict_of(HEADER.as_bytes()), unknown);
    assert_eq!(case.with_text(|text| text.replace('\n', "\r\n")), unknown);
    let receipt = "INVALID check=receipt";
    for index in ["05", "+5", "-5", " 5", "5 ", "", "5.0", "9223372036854775808", "99999999999999999999", "0x5"] {
        assert_eq!(case.with_text(|text| text.replacen("index 5", &format!("index {index}"), 1)), receipt, "{index}");
    }
    let first = ledger_core::checkpoint::encode_hash(&case.receipt.path[0]);
    for path in ["x", " ", &format!("{first} "), &first[1..], &first.replace('=', ""), &format!("{first}{first}")] {
        assert_eq!(case.with_text(|text| text.replacen(&first, path, 1)), receipt, "{path}");
    }
    // An empty line ends the path, wherever it stands.
    assert_eq!(case.with_text(|text| text.replacen(&first, "", 1)), "INVALID check=checkpoint");
    assert_eq!(case.with_text(|text| text.replacen("index 5\n", "", 1)), receipt);
    assert_eq!(case.with_text(|text| text.replacen("index 5\n", "index 5\nindex 5\n", 1)), receipt);
    assert_eq!(case.with_text(|text| text.replacen("index 5\n", "index 5\r\n", 1)), receipt);
    assert_eq!(case.with_text(|text| text.replacen("index 5\n", "Index 5\n", 1)), receipt);
    assert_eq!(case.with_text(|text| text.replacen("\n\n", "\n\n\n", 1)), receipt);
    assert_eq!(case.with_text(|text| text.replacen("\n\n", "\n", 1)), receipt);
    assert_eq!(case.verdict_of(format!("{HEADER}\n").as_bytes()), receipt);
    assert_eq!(case.verdict_of(format!("{HEADER}\n\n\n").as_bytes()), receipt);
    // The opening of an entry that has none is passed over, but it has to be base64.
    for (extra, verdict) in [
        ("AAAA", case.verdict()),
        ("", receipt.to_owned()),
        ("AAA", receipt.to_owned()),
        ("AAB=", receipt.to_owned()),
        ("A A", receipt.to_owned()),
    ] {
        assert_eq!(
            case.with_text(|text| text.replacen("index", &format!("extra {extra}\nindex"), 1)),
            verdict,
            "{extra}"
        );
    }
    assert_eq!(case.with_text(|text| text.replacen("index", "extra AAAA\nextra AAAA\nindex", 1)), receipt);
    assert_eq!(Receipt::parse("c2sp.org/tlog-proof@v2\n"), Err(ReceiptError::UnknownFormat));

    let checkpoint = "INVALID check=checkpoint";
    for (from, to) in [
        ("\n9\n", "\n09\n"),
        ("\n9\n", "\n-9\n"),
        ("\n9\n", "\n9223372036854775808\n"),
        ("\n9\n", "\n9\nextension\n"),
        ("\n— ledger", "\n\n— ledger"),
        ("\n— ledger", "\n- ledger"),
        ("log\n9", "log\t\n9"),
        ("log\n9", "log\n\n9"),
    ] {
        assert_eq!(case.with_text(|text| text.replacen(from, to, 1)), checkpoint, "{to:?}");
    }
    assert_eq!(case.with_text(|text| text.trim_end().to_owned()), checkpoint);
    assert_eq!(case.with_text(|text| format!("{text}\n")), checkpoint);
    assert_eq!(case.with_text(|text| format!("{text}garbage\n")), checkpoint);
    let line = "— z.example AAAAAAAA\n";
    assert_eq!(case.with_text(|text| text + &line.repeat(64 - 7)), case.verdict());
    assert_eq!(case.with_text(|text| text + &line.repeat(64 - 6)), checkpoint);
    let long = format!("— z.example {}\n", "A".repeat(RECEIPT_BYTES_MAX));
    assert_eq!(case.with_text(|text| text + &long), checkpoint);
    let broken = |text: &str, at: usize| {
        let mut bytes = text.as_bytes().to_vec();
        bytes.insert(at, 0xff);
        case.verdict_of(&bytes)
    };
    assert_eq!(broken(&render, render.len() - 2), checkpoint);
    assert_eq!(broken(&render, HEADER.len() + 5), receipt);
    let policy = "UNKNOWN-FORMAT what=policy";
    assert_eq!(case.with(|case| case.policy.clear()), policy);
    assert_eq!(case.with(|case| case.policy = case.policy.replace("quorum members", "")), policy);
    let nested = "group inner any a.example\ngroup outer 1 inner\nquorum outer\n";
    assert_eq!(case.with(|case| case.policy = case.policy.split("group").next().unwrap().to_owned() + nested), policy);
    // Octets outside ASCII are opaque: a comment in GBK, say.
    let not_utf8 = [case.policy.as_bytes(), b"# \xd5\xfe\xb2\xdf\n"].concat();
    assert!(verify(None, &case.entry, render.as_bytes(), &not_utf8).word() == "VALID");
}

#[test]
fn the_first_fault_is_named() {
    // Each change keeps the faults of those before it: later checks never hide earlier ones.
    let mut case = Case::new(4, 2);
    assert_eq!(case.verdict(), "INCOMPLETE missing=quorum");
    let lines = case.lines();
    case.receipt.checkpoint = Note { text: case.text(), signatures: lines[4..].to_vec() }.render();
    assert_eq!(case.verdict(), "INCOMPLETE missing=log");
    case.receipt.path.swap(0, 1);
    assert_eq!(case.verdict(), "INVALID check=inclusion");
    let mut forged = case.lines();
    forged[0].payload[70] ^= 1;
    case.receipt.checkpoint = Note { text: case.text(), signatures: forged }.render();
    assert_eq!(case.verdict(), "INVALID check=signature");
    case.file.push(0);
    assert_eq!(case.verdict(), "INVALID check=file");
    case.receipt.checkpoint = case.receipt.checkpoint.replacen(ORIGIN, "other.example/log", 1);
    assert_eq!(case.verdict(), "INVALID check=origin");
    case.receipt.path.pop();
    assert_eq!(case.verdict(), "INVALID check=receipt");
    case.receipt.checkpoint.push('\n');
    assert_eq!(case.verdict(), "INVALID check=checkpoint");
    case.receipt.path.resize(64, Hash32::ZERO);
    assert_eq!(case.verdict(), "INVALID check=receipt");
    case.entry = b"{\"v\":1}".to_vec();
    assert_eq!(case.verdict(), "UNKNOWN-FORMAT what=entry-type");
    case.entry = b"{\"v\":3}".to_vec();
    assert_eq!(case.verdict(), "UNKNOWN-FORMAT what=entry");
    case.policy.clear();
    assert_eq!(case.verdict(), "UNKNOWN-FORMAT what=policy");
    assert_eq!(case.verdict_of(b"x"), "UNKNOWN-FORMAT what=receipt");
}

#[test]
fn no_changed_byte_of_receipt_or_entry_stays_valid() {
    let case = Case::new(4, 3);
    let text = case.receipt.render();
    // A changed name or id makes a log line a stranger's, and the other three log lines remain.
    let log_lines = text.find("\n— ").unwrap()..text.find("\n— a.example/cosigner").unwrap();
    for at in 0..text.len() {
        for mask in [0x01, 0x20, 0x80] {
            let mut receipt = text.clone().into_bytes();
            receipt[at] ^= mask;
            let verdict = case.verdict_of(&receipt);
            assert!(!verdict.starts_with("VALID") || log_lines.contains(&at), "byte {at}: {verdict}");
        }
    }
    for at in 0..case.entry.len() {
        for mask in [0x01, 0x20, 0x80] {
            let verdict = case.with(|case| case.entry[at] ^= mask);
            assert!(!verdict.starts_with("VALID"), "byte {at}: {verdict}");
        }
    }
}

#[test]
fn dates() {
    for (unix, text) in [
        (0, "1970-01-01T00:00:00Z"),
        (68_169_600, "1972-02-29T00:00:00Z"),
        (951_782_400, "2000-02-29T00:00:00Z"),
        (951_868_799, "2000-02-29T23:59:59Z"),
        (951_868_800, "2000-03-01T00:00:00Z"),
        (1_679_315_147, "2023-03-20T12:25:47Z"),
        (4_107_542_399, "2100-02-28T23:59:59Z"),
        (4_107_542_400, "2100-03-01T00:00:00Z"),
        (253_402_300_799, "9999-12-31T23:59:59Z"),
    ] {
        assert_eq!(rfc3339_seconds(unix), text);
    }
    let _ = rfc3339_seconds(u64::MAX);
}

proptest! {
    #[test]
    fn hostile_receipts_do_not_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        lines in prop::collection::vec("(extra |index )?[A-Za-z0-9+/=]{0,44}|— [a-z]{1,3} [A-Za-z0-9+/=]{0,12}|\\PC{0,9}", 0..12),
    ) {
        let text = format!("{HEADER}\n{}", lines.join("\n"));
        let policy = "quorum none\nlog example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
        for receipt in [&bytes[..], text.as_bytes()] {
            prop_assert_ne!(verify(None, b"{\"v\":1}", receipt, policy.as_bytes()).word(), "VALID");
            let _ = verify(None, receipt, text.as_bytes(), receipt);
        }
        if let Ok(receipt) = Receipt::parse(&text) {
            prop_assert_eq!(receipt.render(), text);
        }
    }
}
