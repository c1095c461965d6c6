//! Signed notes and cosignatures: published vectors and hostile input.

use ledger_core::{
    SigningKey,
    checkpoint::{Checkpoint, U63_MAX, decimal_u63, decode_hash, encode_hash},
    merkle::TreeSize,
    note::{KeyType, Note, NoteError, SIGNATURE_LINES_MAX, VerifierKey, cosign, sign},
};
use proptest::prelude::*;

use crate::support::{id, signing_key};

// The note of Go's `golang.org/x/mod/sumdb/note` documentation and tests.
const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const PETER_SEED: &str = "810a1402d5146c8d84f2443330f54080ebf98ee17d9c74f6252fc5d5c7283173";
const ENOCH: &str = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop";
const TEXT: &str =
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
const PETER_LINE: &str =
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=";
const ENOCH_LINE: &str =
    "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=";

fn vkey(text: &str) -> VerifierKey {
    VerifierKey::parse(text).expect("a vkey")
}

fn note(lines: &[&str]) -> String {
    lines.iter().fold(format!("{TEXT}\n"), |note, line| format!("{note}{line}\n"))
}

#[test]
fn published_verifier_keys() {
    let published = [
        (PETER, "PeterNeumann", KeyType::Ed25519),
        (ENOCH, "EnochRoot", KeyType::Ed25519),
        // The example of C2SP signed-note.
        ("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", "example.com/foo", KeyType::Ed25519),
        // A public witness, as the tests of transparency-dev/formats have it.
        (
            "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
            "remora.n621.de",
            KeyType::Cosignature,
        ),
    ];
    for (text, name, key_type) in published {
        let key = vkey(text);
        assert_eq!((key.name(), key.key_type(), key.vkey().as_str()), (name, key_type, text));
    }
}

#[test]
fn mangled_verifier_keys_are_refused() {
    let bytes = PETER.as_bytes();
    for from in 0..=bytes.len() {
        for to in from..=bytes.len() {
            if (from, to) != (0, bytes.len()) {
                assert!(VerifierKey::parse(&PETER[from..to]).is_err(), "{from}..{to}");
            }
        }
    }
    for at in 0..bytes.len() {
        let mut mangled = bytes.to_vec();
        mangled[at] += 1;
        assert!(VerifierKey::parse(std::str::from_utf8(&mangled).unwrap()).is_err(), "byte {at}");
    }
    for refused in [
        // Wrong length and unknown type, each with its own key id.
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW\n",
        "++",
    ] {
        assert!(VerifierKey::parse(refused).is_err(), "{refused}");
    }
    // Either case of the key id, as in Go; the lower one is written.
    assert_eq!(vkey(&PETER.replace("c74f20a3", "C74F20a3")).vkey(), PETER);
    for name in ["", "a b", "a+b", "a\u{a0}b", "a\u{2003}b", "a\u{85}b", "a\tb"] {
        assert_eq!(VerifierKey::new(name, KeyType::Ed25519, *vkey(PETER).key()), Err(NoteError::Name), "{name:?}");
    }
}

#[test]
fn published_note_is_signed_and_verified() {
    let seed: [u8; 32] = hex::decode(PETER_SEED).unwrap().try_into().unwrap();
    let line = sign("PeterNeumann", &SigningKey::from_bytes(&seed), TEXT).unwrap();
    assert_eq!(line.line(), PETER_LINE);

    let both = note(&[PETER_LINE, ENOCH_LINE]);
    let parsed = Note::parse(&both).unwrap();
    assert_eq!((parsed.text.as_str(), parsed.signatures.len(), parsed.render()), (TEXT, 2, both));
    for key in [PETER, ENOCH] {
        assert_eq!(parsed.verified_by(&vkey(key)).unwrap().unwrap().time, None);
    }
    let alone = Note::parse(&note(&[PETER_LINE])).unwrap();
    assert_eq!(alone.verified_by(&vkey(ENOCH)), Ok(None));
    // The same name under another id is another key.
    let namesake = VerifierKey::new("PeterNeumann", KeyType::Ed25519, *vkey(ENOCH).key()).unwrap();
    assert_eq!(alone.verified_by(&namesake), Ok(None));
    // A line of a known key must verify, wherever it stands.
    let forged = format!("{}ABCD{}", &PETER_LINE[..60], &PETER_LINE[60..]);
    for lines in [[forged.as_str(), PETER_LINE], [PETER_LINE, forged.as_str()]] {
        assert_eq!(Note::parse(&note(&lines)).unwrap().verified_by(&vkey(PETER)), Err(NoteError::Signature));
    }
}

#[test]
fn example_of_the_specification_has_an_empty_line_in_its_text() {
    let example = "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n\
        — quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n";
    let parsed = Note::parse(example).unwrap();
    assert!(parsed.text.ends_with("sole:\n\ned è subito sera.\n"));
    assert_eq!(parsed.signatures[0].payload.len(), 64);
    assert_eq!(parsed.render(), example);
}

#[test]
fn malformed_notes_are_refused() {
    let valid = note(&[PETER_LINE]);
    assert!(Note::parse(&valid).is_ok());
    let line = |line: &str| format!("{TEXT}\n{line}\n");
    let refused = [
        TEXT.to_owned(),
        format!("{TEXT}\n"),
        valid.trim_end().to_owned(),
        format!("\u{1}{valid}"),
        valid.replace('\n', "\r\n"),
        valid.replace("cryptography", "crypto\tgraphy"),
        format!("{valid}Unexpected line.\n"),
        format!("{valid}\n"),
        line("— Bad Name x08go/ZJkuBS9UG/SffcvIAQ"),
        line("— Peter+Neumann x08go/ZJkuBS9UG/SffcvIAQ"),
        line("—  x08go/ZJkuBS9UG/SffcvIAQ"),
        line("- PeterNeumann x08go/ZJkuBS9UG/SffcvIAQ"),
        line("—PeterNeumann x08go/ZJkuBS9UG/SffcvIAQ"),
        line("— PeterNeumann x08gow=="),
        line("— PeterNeumann x08g"),
        line("— PeterNeumann "),
        line("— PeterNeumann"),
        line("— PeterNeumann x08go/ZJkuBS9UG/SffcvIA"),
        line("— PeterNeumann x08go/ZJkuBS9UG/SffcvIB="),
        line("— PeterNeumann x08go_ZJkuBS9UG_SffcvIAQ"),
        line("— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQ "),
        format!("{TEXT}\n{}", format!("{PETER_LINE}\n").repeat(SIGNATURE_LINES_MAX + 1)),
    ];
    for note in refused {
        assert!(Note::parse(&note).is_err(), "{note:?}");
    }
    // Only characters below U+0020 are control characters to the specification.
    assert!(Note::parse(&valid.replace("crypto", "crypto\u{7f}")).is_ok());
    let most = format!("{TEXT}\n{}", format!("{PETER_LINE}\n").repeat(SIGNATURE_LINES_MAX));
    assert!(Note::parse(&most).unwrap().verified_by(&vkey(PETER)).unwrap().is_some());
}

#[test]
fn text_that_could_not_be_read_back_is_not_signed() {
    let key = signing_key("log");
    for text in ["", "no newline", "a\r\n", "a\u{0}b\n"] {
        assert!(sign("a.example", &key, text).is_err(), "{text:?}");
        assert!(cosign("a.example", &key, text, 1).is_err(), "{text:?}");
    }
    assert!(cosign("a.example", &key, "a\n", U63_MAX + 1).is_err());
    assert_eq!(sign("a b", &key, "a\n"), Err(NoteError::Name));
}

#[test]
fn cosignature_of_the_specification() {
    let example = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
        — example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
        — witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";
    let parsed = Note::parse(example).unwrap();
    assert_eq!(parsed.signatures[1].payload[..8], 1_679_315_147_u64.to_be_bytes());
    let checkpoint = Checkpoint::parse(&parsed.text).unwrap();
    assert_eq!((checkpoint.origin.as_str(), checkpoint.size), ("example.com/behind-the-sofa", TreeSize(20_852_163)));
    assert_eq!(checkpoint.text(), parsed.text);

    // The same body under a key of ours: the message is the one that the specification spells.
    let key = signing_key("cosigner");
    let line = cosign("witness.example.com/w1", &key, &parsed.text, 1_679_315_147).unwrap();
    let message = "cosignature/v1\ntime 1679315147\nexample.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
    let signature = ed25519_dalek::Signature::from_slice(&line.payload[8..]).unwrap();
    key.verifying_key().verify_strict(message.as_bytes(), &signature).unwrap();
    let verifier = VerifierKey::new("witness.example.com/w1", KeyType::Cosignature, key.verifying_key()).unwrap();
    assert_eq!(verifier.verify(&parsed.text, &line.payload), Ok(Some(1_679_315_147)));
    // A cosignature is no plain signature, and the other way about.
    let plain = VerifierKey::new("witness.example.com/w1", KeyType::Ed25519, key.verifying_key()).unwrap();
    assert_ne!(plain.id(), verifier.id());
    assert_eq!(plain.verify(&parsed.text, &line.payload), Err(NoteError::Signature));
    assert_eq!(plain.verify(&parsed.text, &line.payload[8..]), Err(NoteError::Signature));
    // Another time or another text under the same signature.
    for at in 0..line.payload.len() {
        let mut payload = line.payload.clone();
        payload[at] ^= 1;
        assert_eq!(verifier.verify(&parsed.text, &payload), Err(NoteError::Signature), "byte {at}");
    }
    assert_eq!(verifier.verify(&parsed.text.replace("20852163", "20852164"), &line.payload), Err(NoteError::Signature));
    assert_eq!(verifier.verify(&parsed.text, &line.payload[..71]), Err(NoteError::Signature));
    assert_eq!(verifier.verify(&parsed.text, &[]), Err(NoteError::Signature));
}

#[test]
fn the_earliest_of_several_cosignatures_counts() {
    let (key, text) = (signing_key("cosigner"), "ledger.example/log\n2\nAAAA\n");
    let verifier = VerifierKey::new("a.example/cosigner", KeyType::Cosignature, key.verifying_key()).unwrap();
    let lines = |times: [u64; 2]| times.map(|time| cosign("a.example/cosigner", &key, text, time).unwrap()).to_vec();
    for times in [[7, 9], [9, 7]] {
        let note = Note { text: text.to_owned(), signatures: lines(times) };
        assert_eq!(note.verified_by(&verifier).unwrap().unwrap().time, Some(7));
    }
}

#[test]
fn checkpoints_have_three_lines() {
    let root = encode_hash(&id("root"));
    let body = |origin: &str, size: &str, root: &str| format!("{origin}\n{size}\n{root}\n");
    let parsed = Checkpoint::parse(&body("a.example/log", "9223372036854775807", &root)).unwrap();
    assert_eq!((parsed.size.0, parsed.root), (U63_MAX, id("root")));
    for size in
        ["", "-1", "+1", "01", "00", " 1", "1 ", "1.0", "9223372036854775808", "18446744073709551616", "1e3", "٣"]
    {
        assert!(Checkpoint::parse(&body("a.example/log", size, &root)).is_err(), "{size:?}");
        assert_eq!(decimal_u63(size), None);
    }
    let loose = root.replace('=', "");
    for root in ["", "AAAA", loose.as_str(), &format!("{root}="), &format!(" {root}"), &root.to_lowercase()] {
        let parsed = Checkpoint::parse(&body("a.example/log", "1", root));
        assert!(parsed.is_err() || decode_hash(root).is_some(), "{root:?}");
    }
    // The last character of 32 bytes in base64 has two bits to spare: one spelling only.
    assert!(decode_hash("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").is_some());
    assert!(decode_hash("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB=").is_none());
    for text in [
        String::new(),
        body("", "1", &root),
        format!("{}extension\n", body("a.example/log", "1", &root)),
        format!("{}\n", body("a.example/log", "1", &root)),
        body("a.example/log", "1", &root).trim_end().to_owned(),
        format!("\n{}", body("a.example/log", "1", &root)),
    ] {
        assert!(Checkpoint::parse(&text).is_err(), "{text:?}");
    }
}

proptest! {
    #[test]
    fn hostile_notes_do_not_panic(text in "\\PC{0,20}\n{0,2}(— [a-z+ ]{0,6} [A-Za-z0-9+/=]{0,12}\n?){0,3}") {
        if let Ok(note) = Note::parse(&text) {
            prop_assert_eq!(&note.render(), &text);
            prop_assert_eq!(note.verified_by(&vkey(PETER)), Ok(None));
        }
        let _ = Checkpoint::parse(&text);
        let _ = VerifierKey::parse(&text);
    }

    #[test]
    fn a_changed_byte_of_a_signed_note_is_noticed(at in any::<prop::sample::Index>(), mask in 1_u8..) {
        let mut bytes = note(&[PETER_LINE]).into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= mask;
        let verified = std::str::from_utf8(&bytes).ok().and_then(|text| Note::parse(text).ok())
            .map(|note| note.verified_by(&vkey(PETER)));
        prop_assert!(!matches!(verified, Some(Ok(Some(_)))));
    }
}
