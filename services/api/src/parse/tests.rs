use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::case::{CaseAppendRequest, CaseRequest};
use crate::evidence::{EvidenceRequest, FileMetadata};
use crate::ids::EvidenceId;
use crate::limits::{BATCH_ITEMS_MAX, BODY_BYTES_MAX, SIZE_MAX};
use crate::verify::VerifyBatchRequest;

const DIGEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// A sound evidence request with one member changed or added.
fn with(member: &str, value: Value) -> Vec<u8> {
    let mut body = json!({ "digests": { "sha256": DIGEST } });
    body[member] = value;
    body.to_string().into_bytes()
}

fn faults(problem: &Problem) -> Vec<(ProblemCode, String)> {
    let place = |error: &FieldError| match &error.place {
        Place::Pointer(pointer) => pointer.clone(),
        other => panic!("{other:?}"),
    };
    problem.errors().iter().map(|error| (error.fault.code, place(error))).collect()
}

/// The one fault of a body.
#[track_caller]
fn refused<T: Request + std::fmt::Debug>(body: &[u8]) -> (ProblemCode, String) {
    let problem = parse::<T>(body).expect_err("refused");
    let mut faults = faults(&problem);
    assert!(faults.len() <= 1, "{faults:?}");
    let (code, pointer) = faults.pop().unwrap_or((problem.code(), "-".to_owned()));
    assert_eq!(code, problem.code());
    (code, pointer)
}

#[track_caller]
fn refused_evidence(body: impl AsRef<[u8]>, code: ProblemCode, pointer: &str) {
    assert_eq!(refused::<EvidenceRequest>(body.as_ref()), (code, pointer.to_owned()));
}

#[test]
fn a_full_request_is_read() {
    let body = json!({
        "digests": { "sha256": DIGEST, "sha3-256": DIGEST, "sm3": DIGEST },
        "size": SIZE_MAX,
        "media_type": "application/pdf",
        "title": "合同(终稿).pdf",
        "confidential": true,
        "external_id": "order-1",
        "provenance": {
            "source": "s", "device": "d", "application": "a", "operator": "o", "method": "m",
            "captured_at": "2026-11-22T08:00:00+08:00", "time_source": "t",
            "environment_checks": "e\n", "tool_version": "v", "notes": "n\n\tn"
        }
    });
    let request: EvidenceRequest = parse(body.to_string().as_bytes()).expect("a request");
    assert_eq!(request.digests.iter().count(), 3);
    assert!(request.is_confidential());
    assert!(request.validate().is_empty());
    assert_eq!(serde_json::to_value(&request).expect("json"), body);
    assert!(request.warnings().is_empty());
}

#[test]
fn white_space_and_order_do_not_matter() {
    let body = format!("\n {{ \"size\" : 0 ,\t\"digests\":{{\"sm3\":\"{DIGEST}\"}} }}\r\n");
    let request: EvidenceRequest = parse(body.as_bytes()).expect("a request");
    assert_eq!(request.size, Some(0));
}

#[test]
fn bodies_that_are_no_json_say_where() {
    use ProblemCode as C;
    for (body, code, pointer) in [
        (&b""[..], C::BodyMissing, "-"),
        (b" \n\t", C::BodyMissing, "-"),
        (b"\xef\xbb\xbf{}", C::BodyHasBom, "-"),
        (b"{\"title\":\"\xff\"}", C::BodyNotUtf8, "-"),
        (b"\xff\xfe{\0}\0", C::BodyNotUtf8, "-"),
        (b"{\"title\":\"\xc0\xaf\"}", C::BodyNotUtf8, "-"),
        (b"{\"title\":\"\xed\xa0\x80\"}", C::BodyNotUtf8, "-"),
        (b"{", C::BodyNotJson, ""),
        (b"hello", C::BodyNotJson, ""),
        (b"{'title':1}", C::BodyNotJson, ""),
        (b"{\"digests\":{\"sha256\":\"", C::BodyNotJson, "/digests/sha256"),
        (b"{\"title\":\"a\nb\"}", C::BodyNotJson, "/title"),
        (b"{\"title\":\"\\ud800\"}", C::BodyNotJson, "/title"),
        (b"{\"size\":01}", C::BodyNotJson, "/size"),
        (b"{\"size\":NaN}", C::BodyNotJson, "/size"),
        (b"{\"title\":\"a\",}", C::BodyNotJson, ""),
        (b"{\"title\":\"a\"//\n}", C::BodyNotJson, ""),
    ] {
        assert_eq!(refused::<EvidenceRequest>(body), (code, pointer.to_owned()), "{body:?}");
    }
    let twice = format!("{}{}", json!({"digests":{"sm3":DIGEST}}), json!({}));
    refused_evidence(twice, C::BodyTrailingData, "-");
}

#[test]
fn positions_are_named() {
    let problem = parse::<EvidenceRequest>(b"{\n  \"size\": x}").expect_err("refused");
    let body = problem.render(crate::Lang::En, None);
    assert_eq!(body.detail, "The body stops being valid JSON at line 2, column 11.");
    let problem = parse::<EvidenceRequest>(b"{\"title\":\"\xff\"}").expect_err("refused");
    let body = problem.render(crate::Lang::En, None);
    assert_eq!(body.detail, "The body is not valid UTF-8 from byte 10 on.");
}

#[test]
fn each_fault_of_a_member_has_its_code_and_pointer() {
    use ProblemCode as C;
    let long = |n: usize| "长".repeat(n);
    for (member, value, code, pointer) in [
        ("digests", json!({}), C::DigestMissing, "/digests"),
        ("digests", json!(DIGEST), C::FieldType, "/digests"),
        ("digests", json!([DIGEST]), C::FieldType, "/digests"),
        ("digests", json!(null), C::FieldType, "/digests"),
        ("digests", json!({"md5": DIGEST}), C::DigestAlgorithmUnknown, "/digests/md5"),
        ("digests", json!({"SHA256": DIGEST}), C::DigestAlgorithmUnknown, "/digests/SHA256"),
        ("digests", json!({"sha256": ""}), C::DigestBadLength, "/digests/sha256"),
        ("digests", json!({"sm3": &DIGEST[..62]}), C::DigestBadLength, "/digests/sm3"),
        ("digests", json!({"sha3-256": DIGEST.to_uppercase()}), C::DigestUpperCase, "/digests/sha3-256"),
        ("digests", json!({"sha256": "z".repeat(64)}), C::DigestNotHex, "/digests/sha256"),
        ("digests", json!({"sha256": null}), C::FieldType, "/digests/sha256"),
        ("digests", json!({"sha256": 5}), C::FieldType, "/digests/sha256"),
        ("size", json!(-1), C::FieldOutOfRange, "/size"),
        ("size", json!(SIZE_MAX + 1), C::FieldOutOfRange, "/size"),
        ("size", json!(u64::MAX), C::FieldOutOfRange, "/size"),
        ("size", json!(1e300), C::FieldOutOfRange, "/size"),
        ("size", json!(i64::MIN), C::FieldOutOfRange, "/size"),
        ("size", json!(1.5), C::FieldType, "/size"),
        ("size", json!(1.0), C::FieldType, "/size"),
        ("size", json!("1"), C::FieldType, "/size"),
        ("size", json!(null), C::FieldType, "/size"),
        ("size", json!(true), C::FieldType, "/size"),
        ("size", json!({}), C::FieldType, "/size"),
        ("media_type", json!("Application/PDF"), C::MediaTypeInvalid, "/media_type"),
        ("media_type", json!("text/html; charset=utf-8"), C::MediaTypeInvalid, "/media_type"),
        ("media_type", json!(""), C::MediaTypeInvalid, "/media_type"),
        ("title", json!(""), C::StringEmpty, "/title"),
        ("title", json!(long(257)), C::StringTooLong, "/title"),
        ("title", json!("a\u{0}"), C::StringBadCharacters, "/title"),
        ("title", json!("a\u{202e}fdp.exe"), C::StringBadCharacters, "/title"),
        ("title", json!(7), C::FieldType, "/title"),
        ("title", json!(["a"]), C::FieldType, "/title"),
        ("external_id", json!(long(129)), C::StringTooLong, "/external_id"),
        ("confidential", json!("true"), C::FieldType, "/confidential"),
        ("confidential", json!(1), C::FieldType, "/confidential"),
        ("provenance", json!("x"), C::FieldType, "/provenance"),
        ("provenance", json!([]), C::FieldType, "/provenance"),
        ("provenance", json!({"colour": 1}), C::UnknownField, "/provenance/colour"),
        ("provenance", json!({"captured_at": "now"}), C::TimeMalformed, "/provenance/captured_at"),
        ("provenance", json!({"notes": long(2001)}), C::StringTooLong, "/provenance/notes"),
        ("colour", json!("red"), C::UnknownField, "/colour"),
        ("Title", json!("a"), C::UnknownField, "/Title"),
        ("", json!("a"), C::UnknownField, ""),
        ("a/b", json!("a"), C::UnknownField, ""),
        ("张三", json!("a"), C::UnknownField, ""),
        ("13800138000", json!("a"), C::UnknownField, ""),
    ] {
        let text = value.to_string();
        assert_eq!(refused::<EvidenceRequest>(&with(member, value)), (code, pointer.to_owned()), "{member} {text}");
    }
    refused_evidence("{}", C::DigestMissing, "/digests");
    refused_evidence("[]", C::FieldType, "");
    refused_evidence("null", C::FieldType, "");
    refused_evidence("\"x\"", C::FieldType, "");
    let array = format!("[{{\"sha256\":\"{DIGEST}\"}}]");
    refused_evidence(array, C::FieldType, "");
    let beyond = format!("{{\"digests\":{{\"sm3\":\"{DIGEST}\"}},\"size\":1e999}}");
    refused_evidence(beyond, C::FieldOutOfRange, "/size");
    let nothing = format!("{{\"digests\":{{\"sm3\":\"{DIGEST}\"}},\"size\":-0}}");
    refused_evidence(nothing, C::FieldType, "/size");
}

#[test]
fn limits_are_reached_before_they_are_passed() {
    for (member, value) in [
        ("title", json!("长".repeat(256))),
        ("external_id", json!("长".repeat(128))),
        ("size", json!(SIZE_MAX)),
        ("provenance", json!({ "notes": "长".repeat(2000) })),
        ("provenance", json!({})),
    ] {
        parse::<EvidenceRequest>(&with(member, value)).expect(member);
    }
    let mut body = with("title", json!("a"));
    body.resize(BODY_BYTES_MAX, b' ');
    parse::<EvidenceRequest>(&body).expect("at the limit");
    body.push(b' ');
    refused_evidence(&body, ProblemCode::BodyTooLarge, "-");
}

#[test]
fn members_given_twice_are_found_at_any_depth() {
    use ProblemCode as C;
    let body = |tail: &str| format!("{{\"digests\":{{\"sm3\":\"{DIGEST}\"}}{tail}}}");
    refused_evidence(body(",\"size\":1,\"size\":1"), C::DuplicateJsonKey, "/size");
    refused_evidence(body(",\"size\":1,\"s\\u0069ze\":2"), C::DuplicateJsonKey, "/size");
    let digests = format!("{{\"digests\":{{\"sm3\":\"{DIGEST}\",\"sm3\":\"x\"}}}}");
    refused_evidence(digests, C::DuplicateJsonKey, "/digests/sm3");
    let nested = body(",\"provenance\":{\"notes\":\"a\",\"notes\":\"a\"}");
    refused_evidence(nested, C::DuplicateJsonKey, "/provenance/notes");
    let problem = parse::<EvidenceRequest>(body(",\"x\":[{\"a\":1,\"a\":2}]").as_bytes());
    assert_eq!(
        faults(&problem.expect_err("refused")),
        [(C::UnknownField, "/x".to_owned()), (C::DuplicateJsonKey, "/x/0/a".to_owned())]
    );
}

#[test]
fn depth_and_breadth_are_bounded() {
    use ProblemCode as C;
    let nested = |depth: usize| format!("{{\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    let problem = parse::<EvidenceRequest>(nested(DEPTH_MAX - 1).as_bytes()).expect_err("refused");
    assert!(faults(&problem).iter().all(|(code, _)| *code != C::BodyTooDeep));
    let (code, pointer) = refused::<EvidenceRequest>(nested(DEPTH_MAX).as_bytes());
    assert_eq!(code, C::BodyTooDeep);
    assert_eq!(pointer, format!("/x{}", "/0".repeat(DEPTH_MAX - 1)));
    refused_evidence("[".repeat(100_000), C::BodyTooDeep, &"/0".repeat(DEPTH_MAX));

    let members: Vec<_> = (0..=MEMBERS_MAX).map(|i| format!("\"m{i}\":0")).collect();
    refused_evidence(format!("{{{}}}", members.join(",")), C::ObjectTooLarge, "");
    let inner = format!("{{\"provenance\":{{{}}}}}", members.join(","));
    refused_evidence(inner, C::ObjectTooLarge, "/provenance");
}

#[test]
fn all_faults_of_a_body_are_reported_at_once() {
    use ProblemCode as C;
    let body = json!({
        "digests": { "sha256": "abc", "md5": "x" },
        "size": -1,
        "title": "",
        "provenance": { "captured_at": "x", "y": 1 },
        "colour": {},
    });
    let problem = parse::<EvidenceRequest>(body.to_string().as_bytes()).expect_err("refused");
    assert_eq!(problem.code(), C::SeveralFaults);
    let mut found = faults(&problem);
    found.sort();
    let mut expected = vec![
        (C::DigestBadLength, "/digests/sha256".to_owned()),
        (C::DigestAlgorithmUnknown, "/digests/md5".to_owned()),
        (C::FieldOutOfRange, "/size".to_owned()),
        (C::StringEmpty, "/title".to_owned()),
        (C::TimeMalformed, "/provenance/captured_at".to_owned()),
        (C::UnknownField, "/provenance/y".to_owned()),
        (C::UnknownField, "/colour".to_owned()),
    ];
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn values_never_reach_the_answer() {
    let canary = "canary7f3a";
    for body in [
        with("size", json!(canary)),
        with("digests", json!({ "sha256": canary })),
        with("digests", json!({ format!("{canary} x"): canary })),
        with("media_type", json!(canary)),
        with("title", json!(format!("{canary}\u{0}"))),
        with(&format!("{canary} "), json!(canary)),
        with("provenance", json!({ "captured_at": canary, "notes": [canary, { canary: canary }] })),
        format!("{{\"title\":\"{canary}\" {canary}").into_bytes(),
    ] {
        let problem = parse::<EvidenceRequest>(&body).expect_err("refused");
        for lang in crate::Lang::ALL {
            let shown = serde_json::to_string(&problem.render(lang, None)).expect("json");
            // A name that looks like a member's is a name, not a value.
            let shown = shown.replace(&format!("/{canary}\""), "");
            assert!(!shown.contains(canary), "{shown}");
        }
    }
}

#[test]
fn a_built_value_is_validated_like_a_body() {
    let metadata = FileMetadata { title: Some(String::new()), size: Some(u64::MAX), ..FileMetadata::default() };
    let codes: Vec<_> = metadata.validate().iter().map(|error| error.fault.code).collect();
    assert_eq!(codes, [ProblemCode::FieldOutOfRange, ProblemCode::StringEmpty]);
    assert!(FileMetadata::default().validate().is_empty());
}

#[test]
fn cases_and_look_ups_are_read() {
    use ProblemCode as C;
    assert!(parse::<CaseRequest>(b"{}").is_ok());
    let id = EvidenceId::from_bytes([1; 24]);
    let body = json!({ "evidence_id": id }).to_string();
    let append: CaseAppendRequest = parse(body.as_bytes()).expect("a request");
    assert_eq!(append.evidence_id, id);
    for (body, code, pointer) in [
        (json!({}), C::FieldMissing, "/evidence_id"),
        (json!({"evidence_id": "evd_x"}), C::IdMalformed, "/evidence_id"),
        (json!({"evidence_id": body}), C::IdMalformed, "/evidence_id"),
        (json!({"evidence_id": 1}), C::FieldType, "/evidence_id"),
    ] {
        let body = body.to_string();
        let found = refused::<CaseAppendRequest>(body.as_bytes());
        assert_eq!(found, (code, pointer.to_owned()), "{body}");
    }
    let item = json!({ "algorithm": "sm3", "digest": DIGEST });
    let body = json!({ "items": [item] }).to_string();
    let look_up: VerifyBatchRequest = parse(body.as_bytes()).expect("a request");
    assert_eq!(look_up.items.len(), 1);
    for (items, code, pointer) in [
        (json!([]), C::BatchEmpty, "/items"),
        (json!({}), C::FieldType, "/items"),
        (json!(vec![item.clone(); 1001]), C::BatchTooLarge, "/items"),
        (json!([item, 5]), C::FieldType, "/items/1"),
        (json!([{"algorithm": "md5", "digest": DIGEST}]), C::DigestAlgorithmUnknown, "/items/0/algorithm"),
        (json!([{"algorithm": "sm3"}]), C::DigestMissing, "/items/0/digest"),
    ] {
        let body = json!({ "items": items }).to_string();
        let found = refused::<VerifyBatchRequest>(body.as_bytes());
        assert_eq!(found, (code, pointer.to_owned()));
    }
}

fn item(key: &str) -> Value {
    json!({ "idempotency_key": key, "digests": { "sha256": DIGEST } })
}

#[test]
fn an_item_of_a_batch_fails_alone() {
    use ProblemCode as C;
    let body = json!({ "items": [
        item("a"),
        { "digests": { "sha256": DIGEST } },
        item("c c"),
        5,
        { "idempotency_key": "e", "digests": { "sha256": "x" }, "colour": [[]] },
        item("f"),
    ]});
    let items = parse_batch(body.to_string().as_bytes()).expect("a batch");
    let outcome = |result: &Result<EvidenceBatchItem, Problem>| match result {
        Ok(item) => item.idempotency_key.clone(),
        Err(problem) => format!("{:?}", faults(problem)),
    };
    let outcomes: Vec<_> = items.iter().map(outcome).collect();
    assert_eq!(
        outcomes,
        [
            "a".to_owned(),
            format!("{:?}", [(C::IdempotencyKeyMissing, "/items/1/idempotency_key")]),
            format!("{:?}", [(C::IdempotencyKeyInvalid, "/items/2/idempotency_key")]),
            format!("{:?}", [(C::FieldType, "/items/3")]),
            format!("{:?}", [(C::UnknownField, "/items/4/colour"), (C::DigestNotHex, "/items/4/digests/sha256"),]),
            "f".to_owned(),
        ]
    );
    let sound = json!({ "items": vec![item("k"); BATCH_ITEMS_MAX] }).to_string();
    let items = parse_batch(sound.as_bytes()).expect("a batch");
    assert!(items.len() == BATCH_ITEMS_MAX && items.iter().all(Result::is_ok));
}

#[test]
fn faults_around_the_items_refuse_the_batch() {
    use ProblemCode as C;
    let bad = json!({ "idempotency_key": "", "digests": {} });
    let item = item("a");
    for (body, code, pointer) in [
        (json!({}).to_string(), C::FieldMissing, "/items"),
        (json!([item]).to_string(), C::FieldType, ""),
        (json!({ "items": [] }).to_string(), C::BatchEmpty, "/items"),
        (json!({ "items": item }).to_string(), C::FieldType, "/items"),
        (json!({ "items": vec![&item; 1001] }).to_string(), C::BatchTooLarge, "/items"),
        (json!({ "items": [item, bad], "x": 1 }).to_string(), C::UnknownField, "/x"),
        (format!("{{\"items\":[{item}],\"items\":[{bad}]}}"), C::DuplicateJsonKey, "/items"),
        (format!("{{\"items\":[{bad},{item}"), C::BodyNotJson, "/items/2"),
    ] {
        let problem = parse_batch(body.as_bytes()).expect_err("refused");
        assert_eq!(faults(&problem), [(code, pointer.to_owned())], "{body:.80}");
    }
}

#[test]
fn the_answer_to_a_hostile_batch_is_bounded() {
    let unknown: serde_json::Map<_, _> = (0..60).map(|i| (format!("m{i}"), json!(0))).collect();
    let body = json!({ "items": vec![unknown; BATCH_ITEMS_MAX] }).to_string();
    let items = parse_batch(body.as_bytes()).expect("a batch");
    let listed = |result: &Result<_, Problem>| result.as_ref().expect_err("refused").errors().len();
    assert!(items.iter().all(|item| listed(item) <= ITEM_FAULTS_MAX));
}

/// The invariant of the module, for one body.
fn passes_agree<T: Request>(body: &[u8]) {
    let read = read::<T>(body).is_some();
    let found = inspect(body, T::SHAPE, false);
    assert_eq!(read, found.is_ok_and(|found| found.whole.is_empty()));
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|b| json!(b)),
        any::<i64>().prop_map(|n| json!(n)),
        (0..=SIZE_MAX + 2).prop_map(|n| json!(n)),
        any::<f64>().prop_map(|n| json!(n)),
        ".{0,8}".prop_map(|s| json!(s)),
        Just(json!(DIGEST)),
        Just(json!("text/plain")),
        Just(json!("2026-11-22T08:00:00Z")),
        Just(json!("evd_aebagbafaydqqcikbmga2dqpcaireeyuculboga")),
    ];
    leaf.prop_recursive(5, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            members(inner).prop_map(Value::Object),
        ]
    })
}

fn members(value: impl Strategy<Value = Value>) -> impl Strategy<Value = serde_json::Map<String, Value>> {
    let name = prop::sample::select(vec![
        "digests",
        "sha256",
        "sha3-256",
        "sm3",
        "size",
        "media_type",
        "title",
        "confidential",
        "provenance",
        "captured_at",
        "notes",
        "items",
        "idempotency_key",
        "algorithm",
        "digest",
        "evidence_id",
        "x",
    ]);
    prop::collection::vec((name, value), 0..5)
        .prop_map(|members| members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Text of JSON in which members may stand twice.
fn any_json() -> impl Strategy<Value = String> {
    (members(any_value()), members(any_value()), any::<bool>()).prop_map(|(a, b, digests)| {
        let inside = |members: serde_json::Map<String, Value>| {
            let text = Value::Object(members).to_string();
            text[1..text.len() - 1].to_owned()
        };
        let digests = digests.then(|| format!("\"digests\":{{\"sm3\":\"{DIGEST}\"}}"));
        let parts = [digests.unwrap_or_default(), inside(a), inside(b)];
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        format!("{{{}}}", parts.join(","))
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(body: Vec<u8>) {
        let _ = parse::<EvidenceRequest>(&body);
        let _ = parse_batch(&body);
    }

    #[test]
    fn any_text_is_read_or_refused(body in "[\\[\\]{}\",:0-9a-f.\\\\ue -]{0,40}") {
        passes_agree::<EvidenceRequest>(body.as_bytes());
        let _ = parse_batch(body.as_bytes());
    }

    #[test]
    fn both_passes_agree(body in any_json()) {
        passes_agree::<EvidenceRequest>(body.as_bytes());
        passes_agree::<FileMetadata>(body.as_bytes());
        passes_agree::<CaseAppendRequest>(body.as_bytes());
        passes_agree::<EvidenceBatchRequest>(body.as_bytes());
        passes_agree::<VerifyBatchRequest>(body.as_bytes());
    }

    #[test]
    fn both_passes_agree_on_damaged_bodies(body in any_json(), at: prop::sample::Index, byte: u8) {
        let mut body = body.into_bytes();
        let at = at.index(body.len());
        body[at] = byte;
        passes_agree::<EvidenceRequest>(&body);
        passes_agree::<EvidenceBatchRequest>(&body);
    }

    #[test]
    fn a_batch_keeps_its_sound_items(items in prop::collection::vec(any_json(), 1..6)) {
        let body = format!("{{\"items\":[{}]}}", items.join(","));
        let alone: Vec<_> = items.iter().map(|i| parse::<EvidenceBatchItem>(i.as_bytes()).is_ok()).collect();
        let together = parse_batch(body.as_bytes()).expect("a batch");
        prop_assert_eq!(together.iter().map(Result::is_ok).collect::<Vec<_>>(), alone);
    }

    #[test]
    fn every_problem_of_a_body_renders(body in any_json()) {
        if let Err(problem) = parse::<EvidenceRequest>(body.as_bytes()) {
            for lang in crate::Lang::ALL {
                let shown = problem.render(lang, None);
                let texts = shown.detail + &shown.fix;
                prop_assert!(!texts.contains(['\u{7b}', '\u{7d}']), "a blank is left");
            }
        }
    }
}

/// `cargo test -p chopmark-api --release -- --ignored --nocapture batch_speed`
#[test]
#[ignore = "measures, asserts nothing"]
fn batch_speed() {
    let body = json!({ "items": vec![item("order-2026-0017-000042"); BATCH_ITEMS_MAX] }).to_string();
    let rounds = 2000;
    let start = std::time::Instant::now();
    for _ in 0..rounds {
        assert_eq!(parse_batch(body.as_bytes()).expect("a batch").len(), BATCH_ITEMS_MAX);
    }
    let seconds = start.elapsed().as_secs_f64();
    let items = f64::from(rounds) * 1000.0 / seconds;
    eprintln!("{items:.0} items/s, {} bytes an item", body.len() / BATCH_ITEMS_MAX);
}
