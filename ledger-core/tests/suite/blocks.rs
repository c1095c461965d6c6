//! Blocks, headers, votes and certificates: there and back, and tampered with.

use ledger_core::{
    Hash32,
    batch::{BATCH_BYTES_MAX, Batch, Item, SUBMISSION_BYTES_MAX, Submission, batch_hash},
    block::{Block, BlockError, Header},
    codec::{DecodeError, Reader, Writer},
    operation::{OPERATION_BYTES_MAX, SignedOperation, V1},
    outcome::{Outcome, RejectionCode, Verdict},
    state::{Changes, changes_digest},
    vote::{Certificate, CertificateError, VoteType, address, precommit, vote_message},
};
use proptest::prelude::*;

use crate::support::{Ledger, consortium, id, member_set, public};

fn ledger() -> Ledger {
    Ledger::with_tenant(4)
}

fn operations(ledger: &Ledger) -> Vec<SignedOperation> {
    vec![
        ledger.evidence("one", "ten_a"),
        ledger.evidence("two", "ten_x"),
        ledger.approved(ledger.policy_change("policy", |_| {}), 3),
    ]
}

#[test]
fn a_block_there_and_back() {
    let ledger = ledger();
    let (block, executed) = ledger.decided(operations(&ledger));
    let bytes = block.encode();
    let decoded = Block::decode(&bytes).unwrap();
    assert_eq!((&decoded, decoded.encode()), (&block, bytes));
    assert_eq!(decoded.outcomes().unwrap(), executed.outcomes);
    assert_eq!(decoded.decode_batch().unwrap().encode(), block.batch);
    assert_eq!(Header::parse(&block.header.encode()).unwrap(), block.header);
    let (height, value) = (block.header.height, block.header.hash());
    assert_eq!(block.certificate.verify(&ledger.chain, height, &value, &member_set(&ledger.members)), Ok(()));
}

#[test]
fn no_changed_byte_of_a_block_goes_unnoticed() {
    let ledger = ledger();
    let (block, _) = ledger.decided(operations(&ledger));
    let (bytes, members) = (block.encode(), member_set(&ledger.members));
    let value = block.header.hash();
    for at in 0..bytes.len() {
        for mask in [0x01, 0x20, 0x80, 0xff] {
            let mut bytes = bytes.clone();
            bytes[at] ^= mask;
            let Ok(decoded) = Block::decode(&bytes) else { continue };
            let noticed = decoded.header.hash() != value
                || decoded.outcomes().is_err()
                || decoded.certificate.verify(&ledger.chain, block.header.height, &value, &members).is_err();
            assert!(noticed, "byte {at} with {mask:#x}");
        }
    }
    for cut in 0..bytes.len() {
        assert!(Block::decode(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    assert!(matches!(Block::decode(&[&bytes[..], &[0]].concat()), Err(BlockError::Decode(DecodeError::Trailing))));
}

#[test]
fn verdicts_belong_to_the_header() {
    let ledger = ledger();
    let (block, executed) = ledger.decided(operations(&ledger));
    let changed = |change: &dyn Fn(&mut Vec<Verdict>)| {
        let mut block = block.clone();
        change(&mut block.verdicts);
        Block::decode(&block.encode()).unwrap().outcomes().is_err()
    };
    assert!(!changed(&|_| {}));
    assert!(changed(&|verdicts| verdicts.truncate(2)));
    assert!(changed(&|verdicts| verdicts.push(Verdict::Rejected(RejectionCode::TenantUnknown))));
    assert!(changed(&|verdicts| verdicts.swap(0, 1)));
    assert!(changed(&|verdicts| verdicts[1] = Verdict::Rejected(RejectionCode::TenantSuspended)));
    assert!(changed(&|verdicts| verdicts[0] = Verdict::Committed { index: 9, entry: Hash32::ZERO }));
    let Outcome { op, request, verdict } = executed.outcomes[1];
    let text = format!(r#"{{"code":"tenant_unknown","op":"{op}","request":"{request}","v":1}}"#);
    assert_eq!((Outcome { op, request, verdict }).encode(), text.into_bytes());
}

#[test]
fn a_header_has_one_spelling_and_bounded_numbers() {
    let ledger = ledger();
    let (block, _) = ledger.decided(Vec::new());
    let header = Header { state: Some(id("state")), ..block.header };
    let text = String::from_utf8(header.encode()).unwrap();
    assert_eq!(Header::parse(text.as_bytes()).unwrap(), header);
    let time = format!("\"time\":{}", header.time);
    for other in [
        format!("{text} "),
        text.replace("\"v\":1", "\"v\":2"),
        text.replace("\"v\":1", "\"v\":1,\"w\":1"),
        text.replace(&time, "\"time\":9007199254740992"),
        text.replace(&time, "\"time\":-1"),
        text.replace(&time, "\"time\":1.5"),
        text.replace("\"height\":", "\"height\":9007199254740993"),
        text.replace("\"tree_size\":", "\"tree_size\":9007199254740993"),
    ] {
        assert!(Header::parse(other.as_bytes()).is_err(), "{other}");
    }
    let mut hashes = vec![header.hash()];
    let variants = [
        Header { batch: id("x"), ..header.clone() },
        Header { chain: id("x"), ..header.clone() },
        Header { changes: id("x"), ..header.clone() },
        Header { height: 9, ..header.clone() },
        Header { members: id("x"), ..header.clone() },
        Header { next_members: id("x"), ..header.clone() },
        Header { outcomes: id("x"), ..header.clone() },
        Header { previous: id("x"), ..header.clone() },
        Header { root: id("x"), ..header.clone() },
        Header { state: None, ..header.clone() },
        Header { time: 9, ..header.clone() },
        Header { tree_size: 9, ..header },
    ];
    hashes.extend(variants.iter().map(Header::hash));
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 13);
}

#[test]
fn batches_there_and_back() {
    let ledger = ledger();
    let mut batch = ledger.batch_of(operations(&ledger));
    batch.submissions.extend(ledger.batch_of(Vec::new()).submissions);
    batch.submissions[0].items[1] = Item::Omitted(id("omitted"));
    let bytes = batch.encode();
    assert_eq!(Batch::decode(&bytes).unwrap(), batch);
    assert_eq!(bytes.len(), 4 + batch.submissions.iter().map(Submission::encoded_len).sum::<usize>());
    for submission in &batch.submissions {
        let bytes = submission.encode();
        assert_eq!((Submission::decode(&bytes).unwrap(), bytes.len()), (submission.clone(), submission.encoded_len()));
    }
    for cut in 0..bytes.len() {
        assert!(Batch::decode(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    assert_eq!(Batch::decode(&[&bytes[..], &[0]].concat()), Err(DecodeError::Trailing));
    assert_ne!(batch_hash(&bytes), batch_hash(&bytes[1..]));
}

#[test]
fn counts_and_lengths_are_bounded_before_they_are_believed() {
    let many = u32::MAX.to_be_bytes();
    assert_eq!(Batch::decode(&many), Err(DecodeError::Range("count")));
    assert_eq!(Batch::decode(&vec![0; BATCH_BYTES_MAX + 1]), Err(DecodeError::Range("batch")));
    assert_eq!(Submission::decode(&vec![0; SUBMISSION_BYTES_MAX + 1]), Err(DecodeError::Range("submission")));
    let submission = |items: u32, tag: u8, len: u32| {
        let mut writer = Writer::new();
        writer.fixed(&[0; 96]).u32(items).u8(tag).u32(len);
        writer.finish()
    };
    assert_eq!(Submission::decode(&submission(4097, 0, 0)), Err(DecodeError::Range("count")));
    assert_eq!(Submission::decode(&submission(1, 2, 0)), Err(DecodeError::Range("item tag")));
    let too_long = u32::try_from(OPERATION_BYTES_MAX + 1).unwrap();
    assert_eq!(Submission::decode(&submission(1, 0, too_long)), Err(DecodeError::Range("length")));
    assert_eq!(Submission::decode(&submission(1, 0, too_long - 1)), Err(DecodeError::Short));
    let mut signatures = Writer::new();
    signatures.fixed(&[0; 96]).u32(1).u8(0).bytes(b"{}").u32(33);
    assert_eq!(Submission::decode(signatures.as_slice()), Err(DecodeError::Range("count")));
    assert!(Block::decode(&[1, 0xff, 0xff, 0xff, 0xff]).is_err());
    assert!(Block::decode(&[2]).is_err());
}

#[test]
fn votes_say_what_they_are_about() {
    let (chain, value, who) = (id("chain"), id("value"), address(&id("validator")));
    let vote = |vote, height, round, value| vote_message(&chain, vote, height, round, value, &who);
    let precommit = vote(VoteType::Precommit, 7, 1, Some(&value));
    let mut expected = Writer::new();
    expected.bytes(b"chopmark/vote/v1").bytes(&chain.0).u8(2).u64(7).u32(1).bytes(&value.0).bytes(&who);
    assert_eq!(precommit, expected.finish());
    assert_eq!(precommit.len(), 4 + 16 + 36 + 1 + 8 + 4 + 36 + 24);
    let mut others = vec![
        precommit,
        vote(VoteType::Prevote, 7, 1, Some(&value)),
        vote(VoteType::Precommit, 8, 1, Some(&value)),
        vote(VoteType::Precommit, 7, 2, Some(&value)),
        vote(VoteType::Precommit, 7, 1, Some(&chain)),
        vote(VoteType::Precommit, 7, 1, None),
        vote_message(&value, VoteType::Precommit, 7, 1, Some(&value), &who),
        vote_message(&chain, VoteType::Precommit, 7, 1, Some(&value), &address(&id("another"))),
    ];
    others.sort();
    others.dedup();
    assert_eq!(others.len(), 8);
}

#[test]
fn certificates_need_a_quorum_of_validators() {
    let (chain, value) = (id("chain"), id("value"));
    for count in [1_u8, 2, 3, 4, 7] {
        let keys = consortium(count);
        let members = member_set(&keys);
        let certificate = |who: usize, round: u32| {
            let precommits: Vec<_> = keys
                .iter()
                .take(who)
                .map(|member| (public(&member.validator), precommit(&chain, 5, round, &value, &member.validator)))
                .collect();
            Certificate::new(5, round, value, &precommits)
        };
        for who in 0..=usize::from(count) {
            let expected = if who >= members.quorum() { Ok(()) } else { Err(CertificateError::Quorum) };
            assert_eq!(certificate(who, 0).verify(&chain, 5, &value, &members), expected, "{who} of {count}");
        }
        let good = certificate(count.into(), 3);
        assert_eq!(Certificate::parse(&good.encode()).unwrap(), good);
        let check = |change: &dyn Fn(&mut Certificate)| {
            let mut certificate = good.clone();
            change(&mut certificate);
            certificate.verify(&chain, 5, &value, &members)
        };
        assert_eq!(check(&|_| {}), Ok(()));
        assert_eq!(check(&|c| c.height = 6), Err(CertificateError::Subject));
        assert_eq!(check(&|c| c.value = chain), Err(CertificateError::Subject));
        assert_eq!(check(&|c| c.round = 4), Err(CertificateError::Signature));
        assert_eq!(check(&|c| c.signatures[0].signature.replace_range(..2, "00")), Err(CertificateError::Signature));
        assert_eq!(
            check(&|c| c.signatures[0].signature = c.signatures[0].signature.to_uppercase()),
            Err(CertificateError::Signature)
        );
        assert_eq!(
            check(&|c| {
                c.signatures[0].signature.pop();
            }),
            Err(CertificateError::Signature)
        );
        assert_eq!(check(&|c| c.signatures[0].signature.clear()), Err(CertificateError::Signature));
        assert_eq!(check(&|c| c.signatures[0].address = "0".repeat(40)), Err(CertificateError::Validator));
        assert_eq!(check(&|c| c.signatures.insert(0, c.signatures[0].clone())), Err(CertificateError::Validator));
        if count > 1 {
            assert_eq!(check(&|c| c.signatures.swap(0, 1)), Err(CertificateError::Validator));
        }
        assert_eq!(good.verify(&value, 5, &value, &members), Err(CertificateError::Signature));
        let outsiders = member_set(&[super::support::MemberKeys::new("z.example")]);
        assert_eq!(good.verify(&chain, 5, &value, &outsiders), Err(CertificateError::Validator));
    }
    // Prevotes and nil votes are no precommits for the value.
    let keys = consortium(1);
    let validator = &keys[0].validator;
    for (vote, about) in [(VoteType::Prevote, Some(&value)), (VoteType::Precommit, None)] {
        let message = vote_message(&chain, vote, 5, 0, about, &address(&public(validator)));
        let signature = super::support::signature(validator, &message).signature;
        let certificate = Certificate::new(5, 0, value, &[(public(validator), signature)]);
        assert_eq!(certificate.verify(&chain, 5, &value, &member_set(&keys)), Err(CertificateError::Signature));
    }
}

#[test]
fn a_certificate_has_one_spelling() {
    let certificate = Certificate { height: 1, round: 0, signatures: Vec::new(), v: V1, value: id("value") };
    let text = String::from_utf8(certificate.encode()).unwrap();
    assert!(Certificate::parse(text.as_bytes()).is_ok());
    for other in [
        text.replace("\"round\":0", "\"round\":4294967296"),
        text.replace("\"round\":0", "\"round\":-1"),
        text.replace("\"height\":1", "\"height\":9007199254740992"),
        text.replace("\"height\":1", "\"height\": 1"),
        text.replace("[]", "[{}]"),
        text.replace("[]", "[null]"),
    ] {
        assert!(Certificate::parse(other.as_bytes()).is_err(), "{other}");
    }
}

#[test]
fn framing_tells_neighbours_apart() {
    // Moving a byte over the border of two fields makes another hash.
    let digest = |pairs: &[(&str, Option<&str>)]| {
        let changes: Changes = pairs
            .iter()
            .map(|(key, value)| (key.as_bytes().to_vec(), value.map(|value| value.as_bytes().to_vec())))
            .collect();
        changes_digest(&changes)
    };
    let mut digests = vec![
        digest(&[]),
        digest(&[("ab", Some("c"))]),
        digest(&[("a", Some("bc"))]),
        digest(&[("a", None)]),
        digest(&[("a", Some(""))]),
        digest(&[("a", Some("b")), ("c", None)]),
        digest(&[("a", None), ("c", Some("b"))]),
    ];
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), 7);
    let mut reader = Reader::new(&[0, 0, 0, 2, 7, 8, 9]);
    assert_eq!(reader.bytes(2), Ok(&[7_u8, 8][..]));
    assert_eq!((reader.u8(), reader.u8(), reader.end()), (Ok(9), Err(DecodeError::Short), Ok(())));
}

proptest! {
    #[test]
    fn hostile_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Block::decode(&bytes);
        let _ = Batch::decode(&bytes);
        let _ = Submission::decode(&bytes);
        let _ = Header::parse(&bytes);
        let _ = Certificate::parse(&bytes);
    }

    #[test]
    fn what_decodes_encodes_to_the_same_bytes(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let ledger = ledger();
        let mut bytes = ledger.batch_of(operations(&ledger)).encode();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
            if let Ok(batch) = Batch::decode(bytes) {
                prop_assert_eq!(batch.encode(), bytes);
            }
        }
    }
}
