//! The request headers that carry part of a request's meaning. Each function
//! takes every value of its header, because a header given twice is a fault.

use crate::limits::{self, IDEMPOTENCY_KEY_CHARS_MAX, WAIT_SECONDS_MAX};
use crate::problem::{Arg, Fault, Problem, ProblemCode};

pub const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
pub const PREFER: &str = "Prefer";
pub const CONTENT_TYPE: &str = "Content-Type";
pub const CONTENT_ENCODING: &str = "Content-Encoding";

/// The idempotency key of a write.
pub fn idempotency_key(values: &[&[u8]]) -> Result<String, Problem> {
    let refused = |fault: Fault| Problem::header(fault, IDEMPOTENCY_KEY);
    let value = match values {
        [] => return Err(refused(ProblemCode::IdempotencyKeyMissing.into())),
        [value] => *value,
        _ => return Err(refused(key_invalid())),
    };
    let key = std::str::from_utf8(value).map_err(|_| refused(key_invalid()))?;
    limits::idempotency_key(key).map_err(refused)?;
    Ok(key.to_owned())
}

fn key_invalid() -> Fault {
    Fault::new(ProblemCode::IdempotencyKeyInvalid).limit("limit", IDEMPOTENCY_KEY_CHARS_MAX)
}

/// The seconds of `Prefer: wait=N`, zero where the caller does not wait. Other
/// preferences are passed over, as RFC 7240 asks.
pub fn prefer_wait(values: &[&[u8]]) -> Result<u32, Problem> {
    let mut wait = None;
    for value in values {
        for preference in String::from_utf8_lossy(value).split(',') {
            let (name, text) = preference.split_once('=').unwrap_or((preference, ""));
            if name.trim().eq_ignore_ascii_case("wait") {
                let seconds = parse_seconds(text).filter(|_| wait.is_none());
                wait = Some(seconds.ok_or_else(wait_refused)?);
            }
        }
    }
    Ok(wait.unwrap_or(0))
}

fn wait_refused() -> Problem {
    let limit = Arg::Number(u64::from(WAIT_SECONDS_MAX));
    Problem::header(Fault::new(ProblemCode::PreferInvalid).with("limit", limit), PREFER)
}

/// A token or a quoted string, perhaps with parameters (RFC 7240, section 2).
fn parse_seconds(text: &str) -> Option<u32> {
    let text = text.split(';').next()?.trim();
    let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let digits = quoted.unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|seconds| *seconds <= WAIT_SECONDS_MAX)
}

/// Checks that a body is JSON by its `Content-Type`.
pub fn content_type_json(values: &[&[u8]]) -> Result<(), Problem> {
    const JSON: &str = "application/json";
    let code = match values {
        [] => ProblemCode::ContentTypeMissing,
        [value] => match check_media_type(value, JSON) {
            Ok(()) => return Ok(()),
            Err(code) => code,
        },
        _ => ProblemCode::ContentTypeUnsupported,
    };
    Err(Problem::header(Fault::new(code).with("expected", Arg::Name(JSON)), CONTENT_TYPE))
}

/// Checks that a body is a multipart form by its `Content-Type`; the boundary is
/// for the form's reader.
pub fn content_type_form(values: &[&[u8]]) -> Result<(), Problem> {
    const FORM: &str = "multipart/form-data";
    let code = match values {
        [] => ProblemCode::ContentTypeMissing,
        [value] if essence(value).is_some_and(|kind| kind.eq_ignore_ascii_case(FORM)) => {
            return Ok(());
        }
        _ => ProblemCode::ContentTypeUnsupported,
    };
    Err(Problem::header(Fault::new(code).with("expected", Arg::Name(FORM)), CONTENT_TYPE))
}

fn essence(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    Some(text.split(';').next()?.trim())
}

/// The media type, with no parameter but `charset=utf-8`.
fn check_media_type(value: &[u8], expected: &str) -> Result<(), ProblemCode> {
    let text = std::str::from_utf8(value).map_err(|_| ProblemCode::ContentTypeUnsupported)?;
    let mut parts = text.split(';').map(str::trim);
    if !parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case(expected)) {
        return Err(ProblemCode::ContentTypeUnsupported);
    }
    for parameter in parts.filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if !name.trim().eq_ignore_ascii_case("charset") {
            return Err(ProblemCode::ContentTypeUnsupported);
        }
        if !value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8") {
            return Err(ProblemCode::CharsetUnsupported);
        }
    }
    Ok(())
}

/// Refuses a compressed body: what a request says must be seen before it is
/// unpacked.
pub fn content_encoding_identity(values: &[&[u8]]) -> Result<(), Problem> {
    if values.iter().all(|value| value.eq_ignore_ascii_case(b"identity")) {
        return Ok(());
    }
    Err(Problem::header(ProblemCode::ContentEncodingUnsupported, CONTENT_ENCODING))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code<T>(result: Result<T, Problem>) -> Option<ProblemCode> {
        result.err().map(|problem| problem.code())
    }

    #[test]
    fn one_idempotency_key_of_visible_ascii() {
        assert_eq!(idempotency_key(&[b"order-1"]).expect("a key"), "order-1");
        assert_eq!(code(idempotency_key(&[])), Some(ProblemCode::IdempotencyKeyMissing));
        let long = [b'k'; IDEMPOTENCY_KEY_CHARS_MAX + 1];
        assert_eq!(code(idempotency_key(&[&long])), Some(ProblemCode::IdempotencyKeyTooLong));
        for bad in [vec![&b"a"[..], b"a"], vec![b""], vec![b"a b"], vec![b"\xff"]] {
            assert_eq!(code(idempotency_key(&bad)), Some(ProblemCode::IdempotencyKeyInvalid));
        }
    }

    #[test]
    fn waiting_is_asked_for_in_whole_seconds() {
        for (values, seconds) in [
            (vec![], 0),
            (vec![&b"wait=10"[..]], 10),
            (vec![b"respond-async, Wait = 30"], 30),
            (vec![b"respond-async", b"wait=\"5\""], 5),
            (vec![b"handling=strict"], 0),
            (vec![b"wait=0"], 0),
            (vec![b"wait=7; note=x"], 7),
            (vec![b"waiting=x"], 0),
        ] {
            assert_eq!(prefer_wait(&values).expect("seconds"), seconds);
        }
        for bad in [
            "wait",
            "wait=",
            "wait=31",
            "wait=-1",
            "wait=1.5",
            "wait=1,wait=2",
            "wait=1s",
            "wait=4294967296",
            "wait=+1",
        ] {
            assert_eq!(code(prefer_wait(&[bad.as_bytes()])), Some(ProblemCode::PreferInvalid), "{bad}");
        }
        assert_eq!(code(prefer_wait(&[b"wait=1", b"wait=1"])), Some(ProblemCode::PreferInvalid));
    }

    #[test]
    fn json_is_json_in_utf8() {
        for good in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
            "application/json;",
        ] {
            assert_eq!(code(content_type_json(&[good.as_bytes()])), None, "{good}");
        }
        assert_eq!(code(content_type_json(&[])), Some(ProblemCode::ContentTypeMissing));
        for bad in [
            "",
            "text/plain",
            "application/jsonx",
            "application/json, text/plain",
            "application/json; v=1",
            "text/json; charset=utf-8",
        ] {
            assert_eq!(code(content_type_json(&[bad.as_bytes()])), Some(ProblemCode::ContentTypeUnsupported), "{bad}");
        }
        let gbk = content_type_json(&[b"application/json; charset=gbk"]);
        assert_eq!(code(gbk), Some(ProblemCode::CharsetUnsupported));
        let twice = content_type_json(&[b"application/json", b"application/json"]);
        assert_eq!(code(twice), Some(ProblemCode::ContentTypeUnsupported));
    }

    #[test]
    fn forms_and_encodings() {
        assert_eq!(code(content_type_form(&[b"multipart/form-data; boundary=x"])), None);
        assert_eq!(code(content_type_form(&[b"multipart/mixed"])), Some(ProblemCode::ContentTypeUnsupported));
        assert_eq!(code(content_type_form(&[])), Some(ProblemCode::ContentTypeMissing));
        assert_eq!(code(content_encoding_identity(&[])), None);
        assert_eq!(code(content_encoding_identity(&[b"Identity"])), None);
        for bad in [&b"gzip"[..], b"br", b"identity, gzip", b""] {
            let problem = content_encoding_identity(&[bad]);
            assert_eq!(code(problem), Some(ProblemCode::ContentEncodingUnsupported));
        }
    }
}
