//! The OpenAPI document, generated from handlers and types. `schemas/openapi.yaml` is a copy of
//! it that a test keeps equal. Problems are not written at the handlers: which codes a route can
//! answer follows from what it does, and is said here once.

use chopmark_api::{ProblemCode, problem::ProblemBody};
use serde_json::Value;
use utoipa::{
    Modify, OpenApi,
    openapi::{
        Content, Ref, ResponseBuilder,
        path::{Operation, PathItem},
        security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    },
};

use crate::{
    handlers::{cases, evidence, explore, files, health, log, operations, pages, verify, webhooks},
    routes::OF_TENANTS,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Chopmark",
        description = "Notarization of evidence on a consortium transparency ledger. Send hashes, get receipts \
            that anyone can check offline.\n\nErrors are problem documents (RFC 9457) with a `code`, one for each \
            cause; `/errors/<code>` explains it. Texts are in English or Chinese by `Accept-Language`. Every answer \
            has an `X-Request-Id`; one of your own, up to 64 of `A-Za-z0-9._-`, is repeated. Bodies are UTF-8 and \
            uncompressed.\n\nThe prefix of the API key selects the network: `cm_test_` the sandbox, `cm_live_` the live \
            one. Without a key a deployment that has both answers for the live one, and for its sandbox where every \
            path begins with `/sandbox`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "evidence", description = "Recording files by their digests, and reading them back with their proofs."),
        (name = "operations", description = "What came of a write."),
        (name = "cases", description = "Ordered chains of evidence."),
        (name = "webhooks", description = "Being told what happens: Standard Webhooks, signed, in order, until they arrive."),
        (name = "public", description = "What anybody may look up, without a key."),
        (name = "log", description = "The log itself: C2SP tlog-tiles."),
        (name = "documents", description = "This document, and a page for every problem code."),
        (name = "health", description = "For balancers."),
    ),
    paths(
        evidence::create, evidence::create_batch, files::create, evidence::list, evidence::read, evidence::receipt,
        evidence::entry, evidence::proof, operations::read, cases::open, cases::append, cases::read, webhooks::create, webhooks::list,
        webhooks::read, webhooks::change, webhooks::delete, webhooks::rotate, webhooks::test, webhooks::replay_range,
        webhooks::deliveries, webhooks::delivery, webhooks::replay, verify::look_up, verify::look_up_batch, explore::blocks, explore::block, explore::entry, verify::receipt, verify::entry,
        verify::proof, explore::search, verify::network, log::checkpoint, log::policy, log::policy_from, log::tile,
        pages::error_index, pages::error_page, pages::openapi, health::live, health::ready,
    ),
    components(schemas(ProblemBody, ProblemCode)),
    modifiers(&Keys, &Problems),
)]
struct Document;

/// The document.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// The document as it is checked in.
#[must_use]
pub fn yaml() -> String {
    let value = serde_json::to_value(document()).unwrap_or_default();
    let mut out = String::from("# Generated from services/gateway: UPDATE=1 cargo test -p chopmark-gateway openapi\n");
    for key in ["openapi", "info", "tags", "paths", "components"] {
        if let Some(value) = value.get(key) {
            write_member(&mut out, 0, key, value);
        }
    }
    out
}

/// Which routes need a key.
struct Keys;

const KEY_SCHEME: &str = "api_key";
const KEY_TEXT: &str = "`Authorization: Bearer cm_test_…` or `cm_live_…`. A request may be signed besides (RFC 9421, \
    Ed25519, under a registered key), with `Signature-Input`, `Signature` and `Content-Digest`: covering `@method`, \
    `@target-uri` (or `@authority`, `@path` and `@query`), `content-digest` and, where it is sent, `idempotency-key`; \
    with `created` and `keyid`. It is then verified or refused, and its signature is kept with what it records.";

impl Modify for Keys {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.description = Some(KEY_TEXT.to_owned());
        let components = api.components.get_or_insert_default();
        components.add_security_scheme(KEY_SCHEME, SecurityScheme::Http(scheme));
        for (path, _, operation) in operations(api) {
            if needs_key(path) {
                let scopes: [&str; 0] = [];
                operation.security = Some(vec![SecurityRequirement::new(KEY_SCHEME, scopes)]);
            }
        }
    }
}

/// Adds an answer for every status of the problems that a route can meet.
struct Problems;

impl Modify for Problems {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        for (path, method, operation) in operations(api) {
            let mut codes = problems(path, method);
            codes.sort_unstable_by_key(|code| (code.status(), *code));
            codes.dedup();
            for group in codes.chunk_by(|a, b| a.status() == b.status()) {
                let Some(first) = group.first() else { continue };
                let names: Vec<String> = group.iter().map(|code| format!("`{}`", code.as_str())).collect();
                let content = Content::new(Some(Ref::from_schema_name("ProblemBody")));
                let response = ResponseBuilder::new()
                    .description(names.join(", "))
                    .content(chopmark_api::problem::PROBLEM_MEDIA_TYPE, content);
                let responses = &mut operation.responses.responses;
                responses.entry(first.status().to_string()).or_insert_with(|| response.build().into());
            }
        }
    }
}

fn operations(api: &mut utoipa::openapi::OpenApi) -> impl Iterator<Item = (&str, &'static str, &mut Operation)> {
    api.paths.paths.iter_mut().flat_map(|(path, item)| {
        let PathItem { get, post, patch, delete, .. } = item;
        let methods = [("GET", get), ("POST", post), ("PATCH", patch), ("DELETE", delete)];
        methods.into_iter().filter_map(|(method, operation)| Some((path.as_str(), method, operation.as_mut()?)))
    })
}

fn needs_key(path: &str) -> bool {
    OF_TENANTS.iter().any(|prefix| path.starts_with(prefix))
}

/// The codes that a route can answer with.
fn problems(path: &str, method: &str) -> Vec<ProblemCode> {
    use ProblemCode as P;
    if path.starts_with("/health/") {
        return vec![P::RequestMalformed, P::UriTooLong, P::HeaderTooLarge];
    }
    let mut codes = vec![P::RequestMalformed, P::UriTooLong, P::HeaderTooLarge, P::InternalError, P::ShuttingDown];
    let mut add = |when: bool, more: &[P]| {
        if when {
            codes.extend_from_slice(more);
        }
    };
    let hooks = path.starts_with("/v1/webhooks");
    let (keyed, post) = (needs_key(path), !hooks && method == "POST");
    let (batch, files) = (path.ends_with("/batch"), path.ends_with("/files"));
    let lists = ["/v1/evidence", "/v1/cases/{id}", "/v1/verify/{algorithm}/{digest}", "/v1/blocks"];
    let list = lists.contains(&path) && !post;
    let ledger = !path.starts_with("/errors") && path != "/openapi.yaml";
    let proof = ["/receipt", "/entry", "/proof"].iter().any(|end| path.ends_with(end));
    add(keyed, KEY);
    add(keyed, &[P::DatabaseUnavailable]);
    add(keyed, SIGNATURE);
    add(keyed && method != "GET", &[P::SignatureRequired]);
    let body = !hooks
        || ["/endpoints", "/endpoints/{id}", "/endpoints/{id}/replay", "/secret"].iter().any(|end| path.ends_with(end));
    add(keyed && body && ["POST", "PATCH"].contains(&method), &[P::ContentDigestMismatch]);
    add(ledger, &[P::RateLimited, P::QueryParameterUnknown]);
    add(ledger && !post && !hooks, &[P::LedgerUnavailable, P::StoredDataDamaged]);
    add(keyed && post, WRITE);
    add(keyed && post && !batch, IDEMPOTENCY_HEADER);
    add(post && !files, JSON_BODY);
    add(post && batch, &[P::BatchEmpty, P::BatchTooLarge]);
    add(post && path != "/v1/cases" && path != "/v1/cases/{id}/evidence", DIGESTS);
    add(files, FILES);
    add(list, LIST);
    add(path == "/v1/evidence" && !post, FILTERS);
    add(NAMED.iter().any(|name| path.contains(name)), &[P::IdMalformed]);
    add(path.starts_with("/v1/evidence/{id}"), &[P::EvidenceNotFound]);
    add(path.starts_with("/v1/evidence/{id}") && proof, &[P::NotCommittedYet, P::OperationRejected]);
    add(path.starts_with("/v1/operations/"), &[P::OperationNotFound]);
    add(path.starts_with("/v1/cases/{id}"), &[P::CaseNotFound]);
    add(path == "/v1/cases/{id}/evidence", &[P::EvidenceNotFound, P::PredecessorNotCommitted, P::OperationRejected]);
    add(hooks && method != "GET", &[P::TenantSuspended, P::DiskFull]);
    add(hooks && path.contains("{id}") && path.contains("endpoints"), &[P::WebhookEndpointNotFound]);
    add(path == "/v1/webhooks/endpoints/{id}" && method == "PATCH", &[P::Overloaded]);
    add(path.ends_with("/secret"), &[P::KeyProviderUnavailable, P::Overloaded]);
    add(path.starts_with("/v1/webhooks/deliveries"), &[P::WebhookEndpointNotFound]);
    add(path.starts_with("/v1/webhooks/deliveries/{id}"), &[P::WebhookDeliveryNotFound]);
    add(hooks && (path.ends_with("/test") || path.ends_with("/replay")), &[P::WebhookEndpointDisabled]);
    add(path == "/v1/webhooks/deliveries", LIST);
    add(path == "/v1/webhooks/deliveries", &[P::TimeRangeInvalid, P::IdMalformed]);
    let (create, change) = (path == "/v1/webhooks/endpoints" && method == "POST", method == "PATCH");
    let (secret, range) = (path.ends_with("/secret"), path == "/v1/webhooks/endpoints/{id}/replay");
    add(create || change || secret || range, JSON_BODY);
    add(create || secret, IDEMPOTENCY_HEADER);
    add(create || change, &[P::WebhookUrlRefused, P::WebhookEventUnknown, P::WebhookEventsEmpty]);
    add(create, &[P::IdempotencyConflict, P::WebhookEndpointsTooMany, P::KeyProviderUnavailable]);
    add(range, &[P::WebhookStateUnknown, P::TimeRangeInvalid]);
    add(path.starts_with("/v1/verify/{"), DIGEST_IN_PATH);
    add(path.starts_with("/v1/verify/"), &[P::IndexRebuilding, P::LedgerUnavailable, P::Overloaded]);
    add(path == "/v1/blocks/{height}", &[P::BlockNotFound]);
    add(path.starts_with("/v1/entries/"), &[P::CheckpointNotFound]);
    add(path == "/v1/entries/{id}", &[P::EntryNotFound]);
    add(path == "/v1/search", &[P::QueryParameterInvalid, P::QueryParameterRepeated, P::SeveralFaults]);
    add(path == "/v1/search" || path == "/v1/entries/{id}", &[P::IndexRebuilding]);
    add(path == "/log/policies/{first_size}", &[P::PolicyNotFound]);
    add(path.starts_with("/log/tile/"), &[P::TileNotFound]);
    add(path == "/errors/{code}", &[P::ErrorPageNotFound]);
    codes
}

/// Path parameters that have one form.
const NAMED: [&str; 4] = ["{id}", "{index}", "{height}", "{first_size}"];

const KEY: &[ProblemCode] = &[
    ProblemCode::ApiKeyMissing,
    ProblemCode::AuthorizationSchemeUnsupported,
    ProblemCode::ApiKeyMalformed,
    ProblemCode::ApiKeyUnknown,
    ProblemCode::ApiKeyExpired,
    ProblemCode::ApiKeyRevoked,
    ProblemCode::ApiKeyWrongNetwork,
    ProblemCode::ApiKeyScopeMissing,
    ProblemCode::ApiKeyAddressNotAllowed,
];

const SIGNATURE: &[ProblemCode] = &[
    ProblemCode::SignatureMalformed,
    ProblemCode::SignatureComponentUnknown,
    ProblemCode::SignatureIncomplete,
    ProblemCode::SignatureAlgorithmUnsupported,
    ProblemCode::SignatureExpired,
    ProblemCode::SignatureKeyUnknown,
    ProblemCode::SignatureKeyRevoked,
    ProblemCode::SignatureInvalid,
    ProblemCode::ContentDigestInvalid,
];

const WRITE: &[ProblemCode] = &[
    ProblemCode::TenantSuspended,
    ProblemCode::PreferInvalid,
    ProblemCode::IdempotencyConflict,
    ProblemCode::QueueFull,
    ProblemCode::QueueUnavailable,
    ProblemCode::QuotaExceeded,
    ProblemCode::DiskFull,
    ProblemCode::Overloaded,
    ProblemCode::KeyProviderUnavailable,
];

const IDEMPOTENCY_HEADER: &[ProblemCode] =
    &[ProblemCode::IdempotencyKeyMissing, ProblemCode::IdempotencyKeyInvalid, ProblemCode::IdempotencyKeyTooLong];

const JSON_BODY: &[ProblemCode] = &[
    ProblemCode::ContentTypeMissing,
    ProblemCode::ContentTypeUnsupported,
    ProblemCode::CharsetUnsupported,
    ProblemCode::ContentEncodingUnsupported,
    ProblemCode::BodyMissing,
    ProblemCode::BodyTooLarge,
    ProblemCode::BodyIncomplete,
    ProblemCode::BodyTimeout,
    ProblemCode::BodyNotUtf8,
    ProblemCode::BodyHasBom,
    ProblemCode::BodyNotJson,
    ProblemCode::BodyTrailingData,
    ProblemCode::BodyTooDeep,
    ProblemCode::ObjectTooLarge,
    ProblemCode::DuplicateJsonKey,
    ProblemCode::SeveralFaults,
    ProblemCode::UnknownField,
    ProblemCode::FieldMissing,
    ProblemCode::FieldType,
    ProblemCode::FieldOutOfRange,
    ProblemCode::StringEmpty,
    ProblemCode::StringTooLong,
    ProblemCode::StringBadCharacters,
    ProblemCode::TimeMalformed,
    ProblemCode::MediaTypeInvalid,
    ProblemCode::IdMalformed,
];

const DIGESTS: &[ProblemCode] = &[
    ProblemCode::DigestMissing,
    ProblemCode::DigestAlgorithmUnknown,
    ProblemCode::DigestBadLength,
    ProblemCode::DigestNotHex,
    ProblemCode::DigestUpperCase,
];

const DIGEST_IN_PATH: &[ProblemCode] = &[
    ProblemCode::DigestAlgorithmUnknown,
    ProblemCode::DigestBadLength,
    ProblemCode::DigestNotHex,
    ProblemCode::DigestUpperCase,
];

const FILES: &[ProblemCode] = &[
    ProblemCode::ContentTypeMissing,
    ProblemCode::ContentTypeUnsupported,
    ProblemCode::ContentEncodingUnsupported,
    ProblemCode::BodyTooLarge,
    ProblemCode::BodyIncomplete,
    ProblemCode::BodyTimeout,
    ProblemCode::BodyMissing,
    ProblemCode::BodyNotUtf8,
    ProblemCode::BodyHasBom,
    ProblemCode::BodyNotJson,
    ProblemCode::BodyTrailingData,
    ProblemCode::BodyTooDeep,
    ProblemCode::ObjectTooLarge,
    ProblemCode::DuplicateJsonKey,
    ProblemCode::SeveralFaults,
    ProblemCode::UnknownField,
    ProblemCode::FieldType,
    ProblemCode::FieldOutOfRange,
    ProblemCode::StringEmpty,
    ProblemCode::StringTooLong,
    ProblemCode::StringBadCharacters,
    ProblemCode::TimeMalformed,
    ProblemCode::MediaTypeInvalid,
    ProblemCode::MultipartInvalid,
    ProblemCode::PartUnknown,
    ProblemCode::PartRepeated,
    ProblemCode::PartOutOfOrder,
    ProblemCode::FilePartMissing,
    ProblemCode::FileTooLarge,
    ProblemCode::FileDigestMismatch,
    ProblemCode::FileSizeMismatch,
    ProblemCode::RetentionUnavailable,
    ProblemCode::ObjectStoreUnavailable,
];

const LIST: &[ProblemCode] = &[
    ProblemCode::QueryParameterInvalid,
    ProblemCode::QueryParameterRepeated,
    ProblemCode::CursorInvalid,
    ProblemCode::LimitOutOfRange,
    ProblemCode::SeveralFaults,
];

const FILTERS: &[ProblemCode] = &[
    ProblemCode::TimeRangeInvalid,
    ProblemCode::StringEmpty,
    ProblemCode::StringTooLong,
    ProblemCode::StringBadCharacters,
    ProblemCode::DigestAlgorithmUnknown,
    ProblemCode::DigestBadLength,
    ProblemCode::DigestNotHex,
    ProblemCode::DigestUpperCase,
    ProblemCode::IndexRebuilding,
];

/// YAML of a JSON value: maps and lists in block style, everything else as JSON writes it, which
/// YAML 1.2 reads alike.
fn write_member(out: &mut String, depth: usize, key: &str, value: &Value) {
    indent(out, depth);
    out.push_str(&scalar(key));
    out.push(':');
    write_value(out, depth + 1, value);
}

fn write_value(out: &mut String, depth: usize, value: &Value) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            out.push('\n');
            for (key, value) in members {
                write_member(out, depth, key, value);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            for item in items {
                indent(out, depth);
                out.push('-');
                write_item(out, depth + 1, item);
            }
        }
        Value::String(text) => {
            out.push(' ');
            out.push_str(&scalar(text));
            out.push('\n');
        }
        other => {
            out.push(' ');
            out.push_str(&other.to_string());
            out.push('\n');
        }
    }
}

/// An item of a list; a map begins on the line of its dash.
fn write_item(out: &mut String, depth: usize, item: &Value) {
    let mut block = String::new();
    write_value(&mut block, depth, item);
    match (item, block.strip_prefix('\n')) {
        (Value::Object(_), Some(members)) => {
            out.push(' ');
            out.push_str(members.trim_start_matches(' '));
        }
        _ => out.push_str(&block),
    }
}

fn indent(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n("  ", depth));
}

/// Words as they are, everything that YAML might take for something else as a JSON string.
fn scalar(text: &str) -> String {
    const TAKEN: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '/' | '.' | '-' | '{' | '}' | '$');
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '_' | '$'));
    if starts && text.chars().all(plain) && !TAKEN.contains(&text.to_ascii_lowercase().as_str()) {
        return text.to_owned();
    }
    Value::from(text).to_string()
}
