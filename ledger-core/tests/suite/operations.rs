//! Operations: each type there and back, and everything that `parse` must refuse.

use ledger_core::{
    Hash32,
    codec::DecodeError,
    commitment::{EvidenceOpening, commit, commit_sha256, opens},
    digests::{Algorithm, Digester, Digests},
    execute::admit,
    genesis::{Genesis, GenesisError},
    json::{JsonError, Value, from_canonical},
    operation::{
        OPERATION_BYTES_MAX, OPERATION_SIGNATURES_MAX, Operation, OperationError, OperationType, SignedOperation,
        TenantStatus, V1, is_media_type, is_tenant_id, operation_hash,
    },
    outcome::RejectionCode,
    state::OperationRecord,
};
use proptest::prelude::*;

use crate::support::{Ledger, consortium, genesis_of, id, public, signing_key};

/// One operation of every type.
pub(crate) fn every_type(ledger: &Ledger) -> Vec<SignedOperation> {
    let key = public(&signing_key("tenant"));
    vec![
        ledger.evidence("evidence", "ten_a"),
        ledger.evidence_with("minimal", "ten_a", |o| {
            (o.media_type, o.size) = (None, None);
            o.digests = Some(Digests { sm3: Some(id("sm3")), ..Digests::default() });
        }),
        ledger.evidence_with("confidential", "ten_a", |o| {
            (o.media_type, o.size, o.digests) = (None, None, None);
            (o.commitment, o.private) = (Some(commit(b"opening")), Some(commit_sha256(b"private")));
        }),
        ledger.redigest("redigest", "ten_a", id("evidence")),
        ledger.case_open("case", "ten_a"),
        ledger.case_append("link", "ten_a", id("case"), id("evidence")),
        ledger.tenant_set("tenant", "ten_a"),
        ledger.tenant_change("tenant", "ten_a", |o| (o.key, o.status) = (Some(key), TenantStatus::Suspended)),
        ledger.members_change("members", &consortium(5)),
        ledger.policy_change("policy", |_| {}),
    ]
}

#[test]
fn every_type_there_and_back() {
    let ledger = Ledger::new(4);
    let mut types = Vec::new();
    for signed in every_type(&ledger) {
        let operation = Operation::parse(&signed.operation).unwrap();
        assert_eq!(operation.encode(), signed.operation);
        assert!(Value::parse(&signed.operation).is_ok(), "an operation is canonical JSON");
        assert_eq!((operation.common().chain, operation.common().request), (ledger.chain, id("request")));
        assert_eq!(admit(&ledger.chain, &signed).unwrap(), operation);
        assert!(admit(&id("another chain"), &signed).is_err());
        assert_eq!(operation.tenant().is_some(), operation.common().kind.number() <= 4);
        types.push(operation.common().kind);
    }
    types.sort_unstable();
    types.dedup();
    assert_eq!(types.len(), OperationType::NUMBERS.len());
    for (kind, number) in OperationType::NUMBERS {
        assert_eq!((kind.number(), OperationType::from_number(number)), (number, Some(kind)));
    }
    assert_eq!((OperationType::from_number(0), OperationType::from_number(8)), (None, None));
}

fn parse_text(text: &str) -> Result<Operation, OperationError> {
    Operation::parse(text.as_bytes())
}

#[test]
fn other_spellings_and_fields_are_refused() {
    let ledger = Ledger::new(1);
    for signed in every_type(&ledger) {
        let text = String::from_utf8(signed.operation).unwrap();
        let refused = [
            format!("{text} "),
            format!(" {text}"),
            text.replacen(':', ": ", 1),
            text.replacen("\"v\":1", "\"v\":1,\"z\":1", 1),
            text.replacen('{', "{\"a\":1,", 1),
            text.replacen('{', "{\"note\":\"free text\",", 1),
            text.replacen("\"v\":1", "\"v\":2", 1),
            text.replacen("\"v\":1", "\"v\":1.0", 1),
            text.replacen("\"v\":1", "\"v\":\"1\"", 1),
            text.replacen("\"v\":1", "\"v\":1,\"v\":1", 1),
            text.replacen(",\"v\":1", "", 1),
            text.replacen("\"op\":\"", "\"op\":\"A", 1),
            text.replacen("\"request\":\"", "\"request\":null,\"x\":\"", 1),
            text.replacen("\"type\":\"", "\"type\":\"x", 1),
            text.replacen("\"type\"", "\"typ\\u0065\"", 1),
            text.replacen("\"chain\"", "\"Chain\"", 1),
            format!("[{text}]"),
            text[..text.len() - 1].to_owned(),
        ];
        for other in refused {
            assert!(parse_text(&other).is_err(), "{other}");
        }
        // Upper-case digits, and digits too many or too few.
        let op = text.split("\"op\":\"").nth(1).unwrap()[..64].to_owned();
        for digits in [op.to_uppercase(), op[1..].to_owned(), format!("{op}0"), format!("{}g", &op[1..])] {
            assert!(digits == op || parse_text(&text.replace(&op, &digits)).is_err());
        }
        // The fields of one type under the name of another.
        for (kind, _) in OperationType::NUMBERS {
            let name = serde_json::to_string(&kind).unwrap();
            let own = Operation::parse(text.as_bytes()).unwrap().common().kind == kind;
            let start = text.find("\"type\":").unwrap() + 7;
            let renamed = format!("{}{name}{}", &text[..start], &text[text[start..].find(',').unwrap() + start..]);
            assert_eq!(parse_text(&renamed).is_ok(), own, "{renamed}");
        }
    }
    for refused in ["", "{}", "[]", "null", "1", "\"evidence\"", "{\"type\":1}", "{\"type\":\"evidence\"}"] {
        assert!(parse_text(refused).is_err(), "{refused}");
    }
}

#[test]
fn a_struct_spelled_as_an_array_is_refused() {
    let ledger = Ledger::new(1);
    let text = String::from_utf8(ledger.evidence("a", "ten_a").operation).unwrap();
    let digests: serde_json::Value = serde_json::from_str(&text).unwrap();
    let array: Vec<_> = ["sha256", "sha3-256", "sm3"].map(|name| digests["digests"][name].clone()).to_vec();
    let object = serde_json::to_string(&digests["digests"]).unwrap();
    let spelled = text.replace(&object, &serde_json::to_string(&array).unwrap());
    assert_ne!(spelled, text);
    assert!(matches!(parse_text(&spelled), Err(OperationError::Json(JsonError::NotCanonical))));
}

#[test]
fn rules_that_need_no_state() {
    let ledger = Ledger::new(1);
    let evidence = |change: &dyn Fn(&mut ledger_core::operation::Evidence)| match Operation::parse(
        &ledger.evidence_with("a", "ten_a", |o| change(o)).operation,
    ) {
        Ok(_) => "",
        Err(OperationError::Field(field)) => field,
        Err(OperationError::Json(_)) => "json",
        Err(OperationError::TooLarge) => "size",
    };
    assert_eq!(evidence(&|_| {}), "");
    assert_eq!(evidence(&|o| o.digests = None), "digests");
    assert_eq!(evidence(&|o| o.digests = Some(Digests::default())), "digests");
    assert_eq!(evidence(&|o| o.commitment = o.digests), "digests");
    let confidential = |o: &mut ledger_core::operation::Evidence| {
        (o.digests, o.commitment, o.size, o.media_type) = (None, Some(commit(b"")), None, None);
    };
    assert_eq!(evidence(&confidential), "");
    assert_eq!(evidence(&|o| (confidential(o), o.size = Some(1)).1), "commitment");
    assert_eq!(evidence(&|o| (confidential(o), o.media_type = Some("text/plain".to_owned())).1), "commitment");
    assert_eq!(evidence(&|o| (confidential(o), o.commitment = Some(Digests::default())).1), "commitment");
    assert_eq!(evidence(&|o| o.private = Some(Digests::default())), "private");
    assert_eq!(evidence(&|o| o.tenant = "a".to_owned()), "tenant");
    assert_eq!(evidence(&|o| o.media_type = Some("text/plain; charset=utf-8".to_owned())), "media_type");
    assert_eq!(evidence(&|o| o.size = Some((1 << 53) - 1)), "");
    assert_eq!(evidence(&|o| o.size = Some(1 << 53)), "json");

    let tenant = |change: &dyn Fn(&mut ledger_core::operation::TenantSet)| {
        Operation::parse(&ledger.tenant_change("a", "ten_a", |o| change(o)).operation).is_ok()
    };
    assert!(tenant(&|o| o.tier = 3));
    assert!(!tenant(&|o| o.tier = 0) && !tenant(&|o| o.tier = 4));
    assert!(!tenant(&|o| o.tenant = "ten_A".to_owned()));
    assert!(!tenant(&|o| o.expires = 1 << 53));
    assert!(Operation::parse(&ledger.policy_change("a", |o| o.policy.tiers = vec![4]).operation).is_err());
}

#[test]
fn tenant_ids_and_media_types() {
    for tenant in ["ten_a", "ten_0", &format!("ten_{}", "z".repeat(60))] {
        assert!(is_tenant_id(tenant), "{tenant}");
    }
    for tenant in ["", "ten_", "ten", "a", "ten_A", "ten_é", "ten_a-b", "ten_a_b", &format!("ten_{}", "z".repeat(61))]
    {
        assert!(!is_tenant_id(tenant), "{tenant}");
    }
    for media_type in ["text/plain", "image/svg+xml", "application/vnd.api+json", "font/woff2", "haptics/hjif"] {
        assert!(is_media_type(media_type), "{media_type}");
    }
    let long = format!("text/{}", "a".repeat(123));
    for media_type in [
        "",
        "text",
        "text/",
        "/plain",
        "Text/plain",
        "text/Plain",
        "text/a/b",
        "text/.a",
        "text/a b",
        "name/surname",
        "text/张三",
        "text/plain;a=b",
        "text/plain\n",
        &long,
    ] {
        assert!(!is_media_type(media_type), "{media_type}");
    }
    assert!(is_media_type(&long[..long.len() - 1]));
}

#[test]
fn size_is_bounded_before_anything_is_read() {
    let spaces = vec![b' '; OPERATION_BYTES_MAX + 1];
    assert!(matches!(Operation::parse(&spaces), Err(OperationError::TooLarge)));
    assert!(matches!(Operation::parse(&spaces[1..]), Err(OperationError::Json(_))));
    // The largest operations that can be: every entry that they make fits.
    let ledger = Ledger::new(1);
    let many: Vec<_> = (0..31).map(|at| super::support::MemberKeys::new(&format!("m{at:02}.example"))).collect();
    assert!(Operation::parse(&ledger.members_change("a", &many).operation).is_ok());
}

#[test]
fn the_genesis_is_checked() {
    let genesis = genesis_of(&consortium(4));
    assert_eq!(Genesis::parse(&genesis.encode()).unwrap(), genesis);
    assert_eq!(genesis.chain_id(), Genesis::parse(&genesis.encode()).unwrap().chain_id());
    let changed = |change: &dyn Fn(&mut Genesis)| {
        let mut genesis = genesis.clone();
        change(&mut genesis);
        Genesis::parse(&genesis.encode())
    };
    for origin in
        ["", "/log", "ledger.example", "ledger.example/", "ledger.example/log/", "Ledger.example/log", "x/log"]
    {
        assert!(
            matches!(changed(&|genesis| genesis.origin = origin.to_owned()), Err(GenesisError::Origin)),
            "{origin}"
        );
    }
    assert!(matches!(changed(&|genesis| genesis.policy.tiers = vec![4]), Err(GenesisError::Policy)));
    assert!(matches!(changed(&|genesis| genesis.time = 1 << 53), Err(GenesisError::Json(_))));
    let text = String::from_utf8(genesis.encode()).unwrap();
    for other in [
        text.replace("sandbox", "test"),
        text.replace("sandbox", "Sandbox"),
        text.replacen("a.example", "z.example", 1),
        text.replacen('{', "{\"a\":1,", 1),
        format!("{text}\n"),
    ] {
        assert!(matches!(Genesis::parse(other.as_bytes()), Err(GenesisError::Json(_))), "{other}");
    }
    let many: Vec<_> = (0..31)
        .map(|at| {
            let mut member = super::support::MemberKeys::new(&format!("m{at:02}.example")).member();
            member.submitter_keys = (0..16).map(|key| public(&signing_key(&format!("{at} {key}")))).collect();
            member
        })
        .collect();
    let members = ledger_core::member::MemberSet::new(many).unwrap();
    assert!(matches!(changed(&|genesis| genesis.members = members.clone()), Err(GenesisError::Size)));
}

#[test]
fn commitments_open_with_every_hash_listed() {
    let opening =
        EvidenceOpening { digests: Digests::of(b"file"), media_type: None, salt: id("salt"), size: Some(4), v: V1 };
    let bytes = opening.encode();
    assert_eq!(from_canonical::<EvidenceOpening>(&bytes).unwrap(), opening);
    let all = commit(&bytes);
    assert_eq!(all.sha256, Some(Algorithm::Sha256.digest(&[b"chopmark/commit/v1\n", &bytes[..]].concat())));
    assert_eq!(commit_sha256(&bytes), Digests { sha256: all.sha256, ..Digests::default() });
    assert!(opens(&bytes, &all) && opens(&bytes, &commit_sha256(&bytes)));
    assert!(!opens(&bytes, &Digests::default()));
    assert!(!opens(&bytes[1..], &all));
    for wrong in [
        Digests { sha256: Some(Hash32::ZERO), ..all },
        Digests { sha3_256: Some(Hash32::ZERO), ..all },
        Digests { sm3: Some(Hash32::ZERO), ..all },
    ] {
        assert!(!opens(&bytes, &wrong));
    }
    let mut salted = opening;
    salted.salt = id("other salt");
    assert!(!opens(&salted.encode(), &all));
}

#[test]
fn digests_of_published_vectors() {
    let digests = Digests::of(b"abc");
    let hex = [
        (Algorithm::Sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (Algorithm::Sha3_256, "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532"),
        (Algorithm::Sm3, "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"),
    ];
    assert_eq!(digests.iter().count(), 3);
    for (algorithm, hex) in hex {
        assert_eq!(digests.get(algorithm), Hash32::from_hex(hex));
        assert_eq!(Algorithm::parse(algorithm.as_str()), Some(algorithm));
    }
    assert_eq!(Algorithm::parse("md5"), None);
    let mut digester = Digester::default();
    b"abc".chunks(2).for_each(|chunk| digester.update(chunk));
    assert_eq!(digester.finish(), (digests, 3));
}

#[test]
fn records_of_operations_there_and_back() {
    let results = RejectionCode::NUMBERS.map(|(code, _)| Err(code)).into_iter().chain([Ok(0), Ok(u64::MAX)]);
    for (result, (kind, _)) in results.zip(OperationType::NUMBERS.into_iter().cycle()) {
        let record = OperationRecord { kind, tenant: 7, request: id("request"), result };
        let bytes = record.encode();
        assert_eq!(OperationRecord::decode(&bytes), Ok(record));
        assert_eq!(OperationRecord::decode(&bytes[..bytes.len() - 1]), Err(DecodeError::Short));
        assert_eq!(OperationRecord::decode(&[&bytes[..], &[0]].concat()), Err(DecodeError::Trailing));
    }
    for (code, number) in RejectionCode::NUMBERS {
        assert_eq!((code.number(), RejectionCode::from_number(number)), (number, Some(code)));
        assert_eq!(serde_json::to_string(&code).unwrap(), format!("\"{}\"", code.as_str()));
    }
}

#[test]
fn the_hash_of_a_signed_operation_covers_its_signatures() {
    let ledger = Ledger::new(4);
    let bare = ledger.members_change("a", &consortium(5));
    let approved = ledger.approved(bare.clone(), 3);
    assert_ne!(bare.hash(), approved.hash());
    assert_ne!(bare.hash(), operation_hash(&bare.operation));
    let mut swapped = approved.clone();
    swapped.signatures.swap(0, 1);
    assert_ne!(swapped.hash(), approved.hash());
    assert!(OPERATION_SIGNATURES_MAX > ledger_core::member::quorum(ledger_core::member::MEMBERS_MAX));
}

proptest! {
    #[test]
    fn hostile_operations_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), at in any::<prop::sample::Index>(), byte in any::<u8>(), which in 0_usize..10) {
        let _ = Operation::parse(&bytes);
        let _ = Genesis::parse(&bytes);
        let _ = OperationRecord::decode(&bytes);
        let mut operation = every_type(&Ledger::new(1)).swap_remove(which).operation;
        let at = at.index(operation.len());
        operation[at] = byte;
        if let Ok(parsed) = Operation::parse(&operation) {
            prop_assert_eq!(parsed.encode(), operation);
        }
    }
}
