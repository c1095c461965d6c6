//! The pages in `docs/errors/` against the table of problem codes. The prose of
//! a page is written by hand, between its status line and its fix; all the rest
//! follows from the table. `UPDATE=1 cargo test -p chopmark-api --test pages`
//! writes the rest anew and keeps the prose.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use chopmark_api::digest::Algorithm;
use chopmark_api::evidence::{EvidenceRequest, FileMetadata};
use chopmark_api::ids::OperationId;
use chopmark_api::lang::{Lang, Text};
use chopmark_api::operation::{OperationState, OperationView, Rejection, ResourceRef, ResourceType};
use chopmark_api::problem::{Arg, Fault, Place, Retry};
use chopmark_api::request::{Request, Shape};
use chopmark_api::time::Timestamp;
use chopmark_api::{Problem, ProblemCode, error_index, error_page, limits};

/// The words of one language around the prose.
struct Frame {
    lang: Lang,
    fix: &'static str,
}

const EN: Frame = Frame { lang: Lang::En, fix: "**To fix it:** " };
const ZH: Frame = Frame { lang: Lang::Zh, fix: "**解决办法：**" };
const CHINESE: &str = "\n## 中文\n";

#[test]
fn pages_and_table_are_equal() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut differing = Vec::new();
    for &code in ProblemCode::ALL {
        let page = error_page(code.as_str()).expect("every code has a page");
        let expected = render(code, page);
        if page != expected {
            differing.push(code.as_str());
        }
        if update {
            std::fs::write(folder().join(format!("{}.md", code.as_str())), expected).expect("the page is writable");
        }
    }
    if update {
        std::fs::write(folder().join("README.md"), index()).expect("the index is writable");
        return;
    }
    assert!(differing.is_empty(), "run with UPDATE=1: {differing:?}");
    assert_eq!(error_index(), index(), "run with UPDATE=1");
}

#[test]
fn every_page_has_a_code_and_both_titles() {
    let mut names: BTreeSet<String> = std::fs::read_dir(folder())
        .expect("the folder is there")
        .map(|file| file.expect("a file").file_name().into_string().expect("a plain name"))
        .collect();
    assert!(names.remove("README.md"));
    for &code in ProblemCode::ALL {
        assert!(names.remove(&format!("{}.md", code.as_str())), "{code:?} has no page");
        let page = error_page(code.as_str()).expect("a page");
        let row = code.row();
        assert!(page.starts_with(&format!("# {}\n", code.as_str())), "{code:?}");
        assert!(page.contains(&format!("## {}\n", row.title.en)), "{code:?}");
        assert!(page.contains(&format!("### {}\n", row.title.zh)), "{code:?}");
        let (en, zh) = page.split_once(CHINESE).expect("both languages");
        assert!(prose(en, &EN).len() > 100, "{code:?} is not explained");
        assert!(prose(zh, &ZH).chars().count() > 30, "{code:?} is not explained in Chinese");
    }
    assert!(names.is_empty(), "pages without a code: {names:?}");
    assert_eq!(error_page("no_such_code"), None);
}

fn folder() -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("run by cargo")).join("../../docs/errors")
}

/// The page as it should be, around the prose of the page as it is.
fn render(code: ProblemCode, page: &str) -> String {
    let (en, zh) = page.split_once(CHINESE).unwrap_or((page, ""));
    let title = code.row().title;
    let mut out = format!("# {}\n\n[中文](#中文)\n\n## {}\n\n", code.as_str(), title.en);
    section(code, prose(en, &EN), &EN, &mut out);
    write!(out, "{CHINESE}\n### {}\n\n", title.zh).expect("a string");
    section(code, prose(zh, &ZH), &ZH, &mut out);
    out
}

fn section(code: ProblemCode, prose: &str, frame: &Frame, out: &mut String) {
    let lang = frame.lang;
    let example = example(code, lang);
    let fix = Problem::new(code).render(lang, None).fix;
    let status = status_line(code, lang);
    write!(out, "{status}\n\n{prose}\n\n{}{fix}\n\n```json\n{example}\n```\n", frame.fix).expect("a string");
}

/// What stands between the status line, or the heading, and the fix.
fn prose<'p>(section: &'p str, frame: &Frame) -> &'p str {
    let (before, _) = section.split_once(frame.fix).expect("the page names its fix");
    let generated = |paragraph: &str| paragraph.starts_with(['#', '[', '\n']) || paragraph.starts_with("HTTP ");
    let mut rest = before.trim();
    while generated(rest) {
        rest = rest.split_once("\n\n").map_or("", |(_, after)| after).trim_start();
    }
    rest
}

fn status_line(code: ProblemCode, lang: Lang) -> String {
    let status = code.status();
    if is_rejection_only(code) {
        return match lang {
            Lang::En => format!(
                "HTTP {status}, or `rejection.code` of an operation. Final: the same request gets this answer for ever."
            ),
            Lang::Zh => format!("HTTP {status}，或操作的 `rejection.code`。这是最终结果：同一请求将始终得到此应答。"),
        };
    }
    let retry = match (code.row().retry, lang) {
        (Retry::Never, Lang::En) => "Sending the same request again does not help.".to_owned(),
        (Retry::Never, Lang::Zh) => "原样重发没有用处。".to_owned(),
        (Retry::AtWill, Lang::En) => "The same request may succeed when sent again.".to_owned(),
        (Retry::AtWill, Lang::Zh) => "原样重发可能成功。".to_owned(),
        (Retry::After(_), Lang::En) => "The same request may succeed later; `Retry-After` says when.".to_owned(),
        (Retry::After(_), Lang::Zh) => "稍后原样重发可能成功；`Retry-After` 给出时间。".to_owned(),
    };
    match lang {
        Lang::En => format!("HTTP {status}. {retry}"),
        Lang::Zh => format!("HTTP {status}。{retry}"),
    }
}

fn index() -> String {
    let mut out = String::from(
        "# Problem codes · 错误码\n\n\
         Every refusal of the API is a problem document (RFC 9457) with a `code`, one for each cause. \
         Codes are never renamed. A platform that handles errors by program should look at `code` and \
         `retryable`, never at the texts.\n\n\
         API 的每次拒绝都返回一份问题文档（RFC 9457），其中 `code` 对应唯一的原因，且永不改名。\
         程序应根据 `code` 与 `retryable` 处理错误，而不要依据文字。\n\n\
         | code | HTTP | retryable | | |\n|---|---|---|---|---|\n",
    );
    for &code in ProblemCode::ALL {
        let (name, title) = (code.as_str(), code.row().title);
        let retryable = if code.retryable() { "yes" } else { "no" };
        writeln!(out, "| [`{name}`]({name}.md) | {} | {retryable} | {} | {} |", code.status(), title.en, title.zh)
            .expect("a string");
    }
    out
}

/// Codes that only ledgers give: how an operation ended.
fn is_rejection_only(code: ProblemCode) -> bool {
    code >= ProblemCode::TenantUnknown
}

fn example(code: ProblemCode, lang: Lang) -> String {
    if is_rejection_only(code) {
        return pretty(&rejected_operation(code, lang));
    }
    pretty(&example_problem(code).render(lang, Some("req_5wq2r7m3zcta4")))
}

fn pretty(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).expect("plain data")
}

fn rejected_operation(code: ProblemCode, lang: Lang) -> OperationView {
    let id = "opn_aebagbafaydqqcikbmga2dqpcaireeyuculboga".parse::<OperationId>();
    OperationView {
        id: id.expect("an id"),
        state: OperationState::Rejected,
        resource: Some(ResourceRef {
            kind: ResourceType::Case,
            id: "cas_aebagbafaydqqcikbmga2dqpcaireeyuculboga".to_owned(),
            href: "/v1/cases/cas_aebagbafaydqqcikbmga2dqpcaireeyuculboga".to_owned(),
        }),
        created_at: Some(Timestamp::from_unix_ms(1_795_334_400_000)),
        rejection: Some(Rejection::of(code.as_str(), lang)),
        warnings: Vec::new(),
    }
}

/// A problem of that code as the gateway would build it.
fn example_problem(code: ProblemCode) -> Problem {
    use ProblemCode as C;
    let fault = Fault::new(code);
    let at = |place: &str, fault: Fault| Problem::pointer(fault, place);
    match code {
        C::MethodNotAllowed => fault.with("allowed", Arg::Names(&["GET"])).into(),
        C::UriTooLong => fault.limit("limit", 8192).into(),
        C::HeaderTooLarge => fault.limit("limit", 32 * 1024).into(),
        C::AcceptUnsupported => Problem::header(fault.with("served", Arg::Name("application/json")), "Accept"),
        C::ContentTypeMissing | C::ContentTypeUnsupported => {
            let fault = fault.with("expected", Arg::Name("application/json"));
            Problem::header(fault, "Content-Type")
        }
        C::CharsetUnsupported => Problem::header(fault, "Content-Type"),
        C::ContentEncodingUnsupported => Problem::header(fault, "Content-Encoding"),
        C::PreferInvalid => {
            Problem::header(fault.with("limit", Arg::Number(limits::WAIT_SECONDS_MAX.into())), "Prefer")
        }
        C::ApiKeyMissing
        | C::AuthorizationSchemeUnsupported
        | C::ApiKeyMalformed
        | C::ApiKeyUnknown
        | C::ApiKeyExpired
        | C::ApiKeyRevoked
        | C::ApiKeyWrongNetwork
        | C::ApiKeyAddressNotAllowed => Problem::header(fault, "Authorization"),
        C::ApiKeyScopeMissing => Problem::header(fault.with("scope", Arg::Name("evidence:write")), "Authorization"),
        C::SignatureMalformed => Problem::header(fault.limit("limit", 2048), "Signature-Input"),
        C::SignatureIncomplete => {
            Problem::header(fault.with("missing", Arg::Name("content-digest")), "Signature-Input")
        }
        C::SignatureExpired => Problem::header(fault.limit("limit", 300), "Signature-Input"),
        C::SignatureComponentUnknown
        | C::SignatureAlgorithmUnsupported
        | C::SignatureKeyUnknown
        | C::SignatureKeyRevoked => Problem::header(fault, "Signature-Input"),
        C::SignatureRequired | C::SignatureInvalid => Problem::header(fault, "Signature"),
        C::ContentDigestInvalid | C::ContentDigestMismatch => Problem::header(fault, "Content-Digest"),
        C::IdempotencyKeyMissing | C::IdempotencyConflict => Problem::header(fault, "Idempotency-Key"),
        C::IdempotencyKeyInvalid | C::IdempotencyKeyTooLong => {
            let fault = fault.limit("limit", limits::IDEMPOTENCY_KEY_CHARS_MAX);
            Problem::header(fault, "Idempotency-Key")
        }
        C::BodyTooLarge => fault.limit("limit", limits::BODY_BYTES_MAX).into(),
        C::BodyTimeout => fault.limit("limit", 30).into(),
        C::BodyNotUtf8 => fault.limit("offset", 57).into(),
        C::BodyNotJson => at("/digests", fault.limit("line", 1).limit("column", 84)),
        C::BodyTrailingData => fault.limit("line", 1).limit("column", 92).into(),
        C::BodyTooDeep => at("/provenance/x", fault.limit("limit", limits::DEPTH_MAX)),
        C::ObjectTooLarge => at("/provenance", fault.limit("limit", limits::MEMBERS_MAX)),
        C::DuplicateJsonKey => at("/digests/sha256", fault),
        C::SeveralFaults => Problem::from_faults(vec![
            Fault::new(C::DigestUpperCase).at(Place::Pointer("/digests/sha256".to_owned())),
            Fault::new(C::StringTooLong)
                .limit("limit", limits::TITLE_CHARS_MAX)
                .at(Place::Pointer("/title".to_owned())),
        ]),
        C::UnknownField => at("/confidental", fault.with("known", members_of_evidence())),
        C::FieldMissing => at("/evidence_id", fault.with("expected", words(Shape::Text(|_| Ok(()))))),
        C::FieldType => at("/size", fault.with("expected", words(Shape::Integer { max: 0 }))),
        C::FieldOutOfRange => at("/size", fault.with("min", Arg::Number(0)).with("max", Arg::Number(limits::SIZE_MAX))),
        C::StringEmpty => at("/title", fault),
        C::StringTooLong => at("/title", fault.limit("limit", limits::TITLE_CHARS_MAX)),
        C::StringBadCharacters => at("/title", fault),
        C::TimeMalformed => at("/provenance/captured_at", fault),
        C::MediaTypeInvalid => at("/media_type", fault.limit("limit", limits::MEDIA_TYPE_CHARS_MAX)),
        C::IdMalformed => Problem::parameter(fault.with("expected", Arg::Name("evd_ and 39 characters")), "id"),
        C::DigestMissing => at("/digests", fault.with("known", Arg::Names(Algorithm::NAMES))),
        C::DigestAlgorithmUnknown => at("/digests/md5", fault.with("known", Arg::Names(Algorithm::NAMES))),
        C::DigestBadLength | C::DigestNotHex | C::DigestUpperCase => at("/digests/sha256", fault),
        C::BatchEmpty => at("/items", fault),
        C::BatchTooLarge => at("/items", fault.limit("limit", limits::BATCH_ITEMS_MAX)),
        C::QueryParameterUnknown => {
            Problem::parameter(fault.with("known", Arg::Names(chopmark_api::query::EvidenceQuery::NAMES)), "colour")
        }
        C::QueryParameterInvalid => Problem::parameter(fault, "state"),
        C::QueryParameterRepeated => Problem::parameter(fault, "state"),
        C::CursorInvalid => Problem::parameter(fault, "cursor"),
        C::LimitOutOfRange => Problem::parameter(fault.limit("limit", limits::PAGE_LIMIT_MAX.into()), "limit"),
        C::TimeRangeInvalid => Problem::parameter(fault, "from"),
        C::EvidenceNotFound | C::OperationNotFound | C::CaseNotFound | C::NotCommittedYet => {
            Problem::parameter(fault, "id")
        }
        C::WebhookEndpointNotFound | C::WebhookDeliveryNotFound => Problem::parameter(fault, "id"),
        C::WebhookEndpointsTooMany => fault.limit("limit", 16).into(),
        C::WebhookUrlRefused => at(
            "/url",
            fault.with("reason", Arg::Words(Text::new("its address is not a public one", "其地址不是公网地址"))),
        ),
        C::WebhookEventUnknown => {
            at("/events/0", fault.with("known", Arg::Names(&["evidence.committed", "evidence.rejected"])))
        }
        C::WebhookEventsEmpty => at("/events", fault),
        C::WebhookStateUnknown => at("/state", fault),
        C::OperationRejected => Problem::parameter(fault, "id"),
        C::PredecessorNotCommitted => at("/evidence_id", fault),
        C::PartUnknown => Problem::part(fault.with("known", Arg::Names(&["metadata", "file"])), "title"),
        C::PartRepeated | C::FilePartMissing => Problem::part(fault, "file"),
        C::PartOutOfOrder => Problem::part(fault, "metadata"),
        C::FileTooLarge => Problem::part(fault.limit("limit", 4 << 30), "file"),
        C::FileDigestMismatch => at("/digests/sha256", fault),
        C::FileSizeMismatch => at("/size", fault),
        C::RetentionUnavailable => at("/retain", fault),
        _ => fault.into(),
    }
}

fn words(shape: Shape) -> Arg {
    Arg::Words(shape.words())
}

fn members_of_evidence() -> Arg {
    match EvidenceRequest::SHAPE {
        Shape::Object(object) => Arg::Names(object.names),
        _ => unreachable!("a request is an object"),
    }
}

#[test]
fn the_file_call_knows_what_an_evidence_request_knows() {
    let names = |shape| match shape {
        Shape::Object(object) => object.names.iter().copied().collect::<BTreeSet<_>>(),
        _ => unreachable!("a request is an object"),
    };
    let mut expected = names(EvidenceRequest::SHAPE);
    expected.insert("retain");
    assert_eq!(names(FileMetadata::SHAPE), expected);
}
