//! Problems: what a caller is told when a request is refused or a part of the
//! service is away (RFC 9457). A [`Problem`] holds a code and numbers, free of
//! language; [`Problem::render`] turns it into the document that is sent.
//!
//! Refuses to echo: arguments of texts are numbers and words of ours (see
//! [`Arg`]), and a name from the request is shown only where it looks like the
//! name of a member (see [`showable`]).

mod table;
mod template;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::lang::{Lang, Text};
use crate::time::Timestamp;

pub use table::{ProblemCode, Retry, Row, error_index, error_page};
pub use template::Arg;

/// The media type of a rendered problem.
pub const PROBLEM_MEDIA_TYPE: &str = "application/problem+json";

/// Faults listed in one problem: enough to correct any honest body in one go,
/// few enough that a hostile one cannot make the answer large.
pub const FAULTS_MAX: usize = 100;

/// The longest member name of a request that is shown; ours have at most 18
/// characters.
const SHOWN_NAME_CHARS_MAX: usize = 64;

/// One cause, with what its texts say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub code: ProblemCode,
    args: template::Args,
}

impl Fault {
    #[must_use]
    pub fn new(code: ProblemCode) -> Self {
        Self { code, args: Vec::new() }
    }

    /// Fills the blank of that name in the code's texts.
    #[must_use]
    pub fn with(mut self, name: &'static str, arg: Arg) -> Self {
        self.args.push((name, arg));
        self
    }

    /// As [`Fault::with`], for a count or a limit.
    #[must_use]
    pub fn limit(self, name: &'static str, limit: usize) -> Self {
        self.with(name, Arg::Number(u64::try_from(limit).unwrap_or(u64::MAX)))
    }

    /// Says where in the request the cause lies.
    #[must_use]
    pub fn at(self, place: Place) -> FieldError {
        FieldError { place, fault: self }
    }

    /// What is wrong, in that language.
    #[must_use]
    pub fn detail(&self, lang: Lang) -> String {
        self.fill(self.code.row().detail, lang)
    }

    /// What to do about it, in that language.
    #[must_use]
    pub fn fix(&self, lang: Lang) -> String {
        self.fill(self.code.row().fix, lang)
    }

    fn fill(&self, text: Text, lang: Lang) -> String {
        template::fill(text, &self.args, lang)
    }
}

impl From<ProblemCode> for Fault {
    fn from(code: ProblemCode) -> Self {
        Fault::new(code)
    }
}

/// The part of a request that a fault lies in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// JSON pointer (RFC 6901) into the body; empty for the whole body.
    Pointer(String),
    /// A path or query parameter.
    Parameter(Cow<'static, str>),
    Header(&'static str),
    /// A part of a multipart form.
    Part(Cow<'static, str>),
}

/// A fault and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    pub place: Place,
    pub fault: Fault,
}

/// A name from the request as it may be shown: only when it looks like the name
/// of a member, because people do put a name or a number where a key belongs.
#[must_use]
pub fn showable(name: &str) -> Option<&str> {
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let tame = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    (starts_well && name.len() <= SHOWN_NAME_CHARS_MAX && name.bytes().all(tame)).then_some(name)
}

/// A refusal or failure, ready to be rendered in either language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    fault: Fault,
    errors: Vec<FieldError>,
    earliest_at: Option<Timestamp>,
    retry_after_s: Option<u32>,
}

impl From<ProblemCode> for Problem {
    fn from(code: ProblemCode) -> Self {
        Fault::new(code).into()
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        Self { fault, errors: Vec::new(), earliest_at: None, retry_after_s: None }
    }
}

impl From<FieldError> for Problem {
    fn from(error: FieldError) -> Self {
        Problem::from_faults(vec![error])
    }
}

impl Problem {
    #[must_use]
    pub fn new(code: ProblemCode) -> Self {
        code.into()
    }

    /// One problem for all faults of a request: it takes the code that they
    /// share, or `several_faults` where they differ. The list must not be empty;
    /// an empty one is a fault of ours and says so.
    #[must_use]
    pub fn from_faults(mut errors: Vec<FieldError>) -> Self {
        let count = errors.len();
        errors.truncate(FAULTS_MAX);
        let fault = match errors.as_slice() {
            [] => Fault::new(ProblemCode::InternalError),
            [only] => only.fault.clone(),
            [first, rest @ ..] if rest.iter().all(|e| e.fault == first.fault) => first.fault.clone(),
            [first, rest @ ..] if rest.iter().all(|e| e.fault.code == first.fault.code) => Fault::new(first.fault.code),
            _ => Fault::new(ProblemCode::SeveralFaults).limit("count", count),
        };
        Self { errors, ..fault.into() }
    }

    #[must_use]
    pub fn header(fault: impl Into<Fault>, name: &'static str) -> Self {
        fault.into().at(Place::Header(name)).into()
    }

    #[must_use]
    pub fn parameter(fault: impl Into<Fault>, name: &'static str) -> Self {
        fault.into().at(Place::Parameter(name.into())).into()
    }

    #[must_use]
    pub fn part(fault: impl Into<Fault>, name: &'static str) -> Self {
        fault.into().at(Place::Part(name.into())).into()
    }

    #[must_use]
    pub fn pointer(fault: impl Into<Fault>, pointer: impl Into<String>) -> Self {
        fault.into().at(Place::Pointer(pointer.into())).into()
    }

    /// Names the first moment at which the same request could succeed.
    #[must_use]
    pub fn earliest_at(mut self, time: Timestamp) -> Self {
        self.earliest_at = Some(time);
        self
    }

    /// Replaces the table's waiting time.
    #[must_use]
    pub fn retry_after_s(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    #[must_use]
    pub fn code(&self) -> ProblemCode {
        self.fault.code
    }

    #[must_use]
    pub fn status(&self) -> u16 {
        self.code().status()
    }

    #[must_use]
    pub fn errors(&self) -> &[FieldError] {
        &self.errors
    }

    /// The value of `Retry-After` in seconds, where the answer carries one.
    #[must_use]
    pub fn retry_after(&self) -> Option<u32> {
        self.retry_after_s.or(match self.code().row().retry {
            Retry::After(seconds) => Some(seconds),
            Retry::Never | Retry::AtWill => None,
        })
    }

    /// The document that is sent.
    #[must_use]
    pub fn render(&self, lang: Lang, request_id: Option<&str>) -> ProblemBody {
        let row = self.code().row();
        ProblemBody {
            kind: format!("/errors/{}", row.code),
            title: lang.pick(row.title).to_owned(),
            status: row.status,
            detail: self.fault.detail(lang),
            code: row.code.into(),
            fix: self.fault.fix(lang),
            retryable: self.code().retryable(),
            request_id: request_id.map(str::to_owned),
            errors: self.errors.iter().map(|error| error.render(lang)).collect(),
            earliest_at: self.earliest_at,
            retry_after: self.retry_after(),
        }
    }
}

impl FieldError {
    fn render(&self, lang: Lang) -> ErrorBody {
        let mut body = ErrorBody {
            pointer: None,
            parameter: None,
            header: None,
            part: None,
            code: self.fault.code.as_str().into(),
            detail: self.fault.detail(lang),
            fix: self.fault.fix(lang),
        };
        match &self.place {
            Place::Pointer(pointer) => body.pointer = Some(pointer.clone()),
            Place::Parameter(name) => body.parameter = Some(name.to_string()),
            Place::Header(name) => body.header = Some((*name).to_owned()),
            Place::Part(name) => body.part = Some(name.to_string()),
        }
        body
    }
}

/// A problem document (RFC 9457, `application/problem+json`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemBody {
    /// The page that explains this problem.
    #[serde(rename = "type")]
    #[schema(example = "/errors/digest_bad_length")]
    pub kind: String,
    /// What kind of problem it is, in the caller's language.
    #[schema(example = "Digest has the wrong length")]
    pub title: String,
    /// The HTTP status.
    #[schema(example = 422)]
    pub status: u16,
    /// What is wrong with this request, in the caller's language.
    #[schema(example = "The digest is not 64 hexadecimal characters long.")]
    pub detail: String,
    /// The cause; one code per cause, never renamed.
    #[schema(value_type = ProblemCode)]
    pub code: Cow<'static, str>,
    /// What to do about it, in the caller's language.
    #[schema(example = "Send the whole 32-byte digest as 64 lower-case hexadecimal characters.")]
    pub fix: String,
    /// Whether the same request, unchanged, may succeed later.
    pub retryable: bool,
    /// Names this exchange in the logs of the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "req_5wq2r7m3zcta4")]
    pub request_id: Option<String>,
    /// Every fault found, with its place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<ErrorBody>,
    /// The first moment at which the same request could succeed, where time is
    /// the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub earliest_at: Option<Timestamp>,
    /// Seconds to wait; the `Retry-After` header says the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 2)]
    pub retry_after: Option<u32>,
}

/// One fault of a request; exactly one of `pointer`, `parameter`, `header` and
/// `part` says where it lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// JSON pointer (RFC 6901) into the body; empty for the whole body. A member
    /// whose name does not look like one is not named: the pointer then ends at
    /// the object around it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "/digests/sha256")]
    pub pointer: Option<String>,
    /// The path or query parameter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "cursor")]
    pub parameter: Option<String>,
    /// The header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "Idempotency-Key")]
    pub header: Option<String>,
    /// The part of a multipart form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "metadata")]
    pub part: Option<String>,
    /// The cause.
    #[schema(value_type = ProblemCode)]
    pub code: Cow<'static, str>,
    /// What is wrong here.
    #[schema(example = "The digest is not 64 hexadecimal characters long.")]
    pub detail: String,
    /// What to do about it.
    #[schema(example = "Send the whole 32-byte digest as 64 lower-case hexadecimal characters.")]
    pub fix: String,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_renders_in_both_languages() {
        for &code in ProblemCode::ALL {
            for lang in Lang::ALL {
                let body = Problem::new(code).render(lang, Some("req_1"));
                assert_eq!(body.kind, format!("/errors/{}", code.as_str()));
                assert_eq!(body.code, code.as_str());
                assert_eq!(body.status, code.status());
                assert_eq!(body.request_id.as_deref(), Some("req_1"));
                for text in [&body.title, &body.detail, &body.fix] {
                    assert!(!text.is_empty() && text.trim() == text, "{code:?} {text}");
                    assert!(!text.contains(['{', '}', '|']), "{code:?}: {text}");
                    assert!(!text.contains("  "), "{code:?}: {text}");
                    let chinese = text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c));
                    assert_eq!(chinese, lang == Lang::Zh, "{code:?}: {text}");
                }
                for sentence in [&body.detail, &body.fix] {
                    let end = if lang == Lang::En { '.' } else { '。' };
                    assert!(sentence.ends_with(end), "{code:?}: {sentence}");
                }
            }
        }
    }

    #[test]
    fn both_languages_have_the_same_blanks() {
        for &code in ProblemCode::ALL {
            let row = code.row();
            for text in [row.title, row.detail, row.fix] {
                let en: BTreeSet<_> = template::blanks(text.en).into_iter().collect();
                let zh: BTreeSet<_> = template::blanks(text.zh).into_iter().collect();
                assert_eq!(en, zh, "{code:?}");
            }
        }
    }

    #[test]
    fn codes_are_names_and_differ() {
        let mut seen = BTreeSet::new();
        for &code in ProblemCode::ALL {
            let name = code.as_str();
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
            assert!(seen.insert(name), "{name} twice");
            assert_eq!(ProblemCode::from_code(name), Some(code));
            assert_eq!(serde_json::to_value(code).expect("a string"), name);
        }
        assert_eq!(ProblemCode::from_code("no_such_code"), None);
    }

    #[test]
    fn titles_differ_so_that_a_reader_can_tell_causes_apart() {
        for lang in Lang::ALL {
            let titles: BTreeSet<_> = ProblemCode::ALL.iter().map(|code| lang.pick(code.row().title)).collect();
            assert_eq!(titles.len(), ProblemCode::ALL.len());
        }
    }

    #[test]
    fn statuses_agree_with_retrying() {
        for &code in ProblemCode::ALL {
            let waits = matches!(code.row().retry, Retry::After(_));
            match code.status() {
                429 | 503 => assert!(waits, "{code:?} must say how long to wait"),
                400..=500 => {}
                status => panic!("{code:?} has status {status}"),
            }
            assert_eq!(Problem::new(code).retry_after().is_some(), waits, "{code:?}");
        }
        let problem = Problem::new(ProblemCode::QueueFull).retry_after_s(9);
        assert_eq!(problem.retry_after(), Some(9));
    }

    #[test]
    fn faults_of_one_code_keep_it_and_others_are_several() {
        let long = |limit| Fault::new(ProblemCode::StringTooLong).limit("limit", limit);
        let at = |fault: Fault, pointer: &str| fault.at(Place::Pointer(pointer.to_owned()));

        let same = Problem::from_faults(vec![at(long(5), "/a"), at(long(5), "/b")]);
        assert_eq!(same.code(), ProblemCode::StringTooLong);
        assert!(same.render(Lang::En, None).detail.contains("more than 5 characters"));

        let alike = Problem::from_faults(vec![at(long(5), "/a"), at(long(6), "/b")]);
        assert_eq!(alike.code(), ProblemCode::StringTooLong);
        assert!(alike.render(Lang::En, None).detail.contains("the allowed number of"));

        let other = Fault::new(ProblemCode::StringEmpty);
        let mixed = Problem::from_faults(vec![at(long(5), "/a"), at(other, "/b")]);
        assert_eq!(mixed.code(), ProblemCode::SeveralFaults);
        assert!(mixed.render(Lang::En, None).detail.contains("at least 2 faults"));

        assert_eq!(Problem::from_faults(Vec::new()).code(), ProblemCode::InternalError);
    }

    #[test]
    fn long_lists_of_faults_are_cut() {
        let faults = (0..FAULTS_MAX * 2)
            .map(|i| Fault::new(ProblemCode::UnknownField).at(Place::Pointer(format!("/{i}"))))
            .collect();
        assert_eq!(Problem::from_faults(faults).errors().len(), FAULTS_MAX);
    }

    #[test]
    fn only_what_looks_like_a_member_is_shown() {
        for shown in ["titel", "SHA-256", "x.y", "_id", "a1"] {
            assert_eq!(showable(shown), Some(shown));
        }
        let long = "a".repeat(SHOWN_NAME_CHARS_MAX + 1);
        for hidden in ["", "13800138000", "张三", "a b", "a/b", "a~b", "a\n", "-x", &long] {
            assert_eq!(showable(hidden), None);
        }
    }
}
