//! Query strings, read as strictly as bodies: no unknown parameter, none twice,
//! every fault reported at once.

use crate::digest::{Algorithm, Hash32};
use crate::ids::EndpointId;
use crate::lang::Text;
use crate::limits::{self, EXTERNAL_ID_CHARS_MAX, PAGE_LIMIT_DEFAULT, PAGE_LIMIT_MAX, SEARCH_BYTES_MAX};
use crate::operation::OperationState;
use crate::page::Cursor;
use crate::problem::{Arg, Fault, FieldError, Place, Problem, ProblemCode, showable};
use crate::time::Timestamp;

/// Parameters looked at in one query. The longest documented one has seven, so
/// among this many one is unknown or repeated and the query is refused anyway.
const PARAMETERS_MAX: usize = 32;

/// Parameters of free text: form encoders write their spaces as `+`, and a plus as `%2B`.
const FREE_TEXT: [&str; 1] = ["external_id"];

/// The parameters of a query string, each known and given once.
#[derive(Clone, Debug, Default)]
pub struct Query {
    values: Vec<(&'static str, String)>,
}

impl Query {
    /// Reads a raw query string (without `?`) for an endpoint that knows these
    /// parameters. With none known it refuses every query.
    pub fn parse(raw: &str, known: &'static [&'static str]) -> Result<Self, Problem> {
        let mut query = Query::default();
        let mut faults = Vec::new();
        for pair in raw.split('&').filter(|pair| !pair.is_empty()).take(PARAMETERS_MAX) {
            if let Err(fault) = query.add(pair, known) {
                faults.push(fault);
            }
        }
        if faults.is_empty() { Ok(query) } else { Err(Problem::from_faults(faults)) }
    }

    fn add(&mut self, pair: &str, known: &'static [&'static str]) -> Result<(), FieldError> {
        let (raw_name, raw_value) = pair.split_once('=').unwrap_or((pair, ""));
        let given = decode(raw_name).unwrap_or_default();
        let Some(name) = known.iter().copied().find(|known| *known == given) else {
            let shown = showable(&given).unwrap_or("?").to_owned();
            let fault = Fault::new(ProblemCode::QueryParameterUnknown);
            let fault = if known.is_empty() { fault } else { fault.with("known", Arg::Names(known)) };
            return Err(fault.at(Place::Parameter(shown.into())));
        };
        if self.get(name).is_some() {
            return Err(at(ProblemCode::QueryParameterRepeated, name));
        }
        let value = if FREE_TEXT.contains(&name) { decode(&raw_value.replace('+', "%20")) } else { decode(raw_value) };
        let value = value.ok_or_else(|| invalid(name, UTF8))?;
        self.values.push((name, value));
        Ok(())
    }

    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.iter().find(|(given, _)| *given == name).map(|(_, value)| value.as_str())
    }
}

/// `cursor` and `limit` of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageQuery {
    pub cursor: Option<Cursor>,
    pub limit: u16,
}

impl Default for PageQuery {
    fn default() -> Self {
        Self { cursor: None, limit: PAGE_LIMIT_DEFAULT }
    }
}

impl PageQuery {
    pub const NAMES: &[&str] = &["cursor", "limit"];

    /// Reads a raw query string that has nothing else.
    pub fn parse(raw: &str) -> Result<Self, Problem> {
        let query = Query::parse(raw, Self::NAMES)?;
        let mut faults = Vec::new();
        let page = Self::read(&query, &mut faults);
        if faults.is_empty() { Ok(page) } else { Err(Problem::from_faults(faults)) }
    }

    fn read(query: &Query, faults: &mut Vec<FieldError>) -> Self {
        let mut page = Self::default();
        match query.get("cursor").map(|text| Cursor::parse(text.to_owned())).transpose() {
            Ok(cursor) => page.cursor = cursor,
            Err(problem) => faults.extend_from_slice(problem.errors()),
        }
        if let Some(text) = query.get("limit") {
            match parse_limit(text) {
                Some(limit) => page.limit = limit,
                None => faults.push(
                    Fault::new(ProblemCode::LimitOutOfRange)
                        .limit("limit", usize::from(PAGE_LIMIT_MAX))
                        .at(Place::Parameter("limit".into())),
                ),
            }
        }
        page
    }
}

/// `q` of a search: 1 to [`SEARCH_BYTES_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchQuery {
    pub q: String,
}

impl SearchQuery {
    pub const NAMES: &[&str] = &["q"];

    /// Reads a raw query string; a search for nothing is refused like one for too much.
    pub fn parse(raw: &str) -> Result<Self, Problem> {
        let query = Query::parse(raw, Self::NAMES)?;
        let q = query.get("q").unwrap_or_default();
        if !(1..=SEARCH_BYTES_MAX).contains(&q.len()) {
            return Err(invalid("q", SEARCH).into());
        }
        Ok(Self { q: q.to_owned() })
    }
}

/// The filters of `GET /v1/evidence`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EvidenceQuery {
    pub page: PageQuery,
    pub digest: Option<DigestFilter>,
    pub external_id: Option<String>,
    pub state: Option<OperationState>,
    /// Accepted at or after.
    pub from: Option<Timestamp>,
    /// Accepted before.
    pub to: Option<Timestamp>,
}

/// `sha256:9f86…`, or the digest alone for any algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DigestFilter {
    pub algorithm: Option<Algorithm>,
    pub digest: Hash32,
}

impl EvidenceQuery {
    pub const NAMES: &[&str] = &["cursor", "limit", "digest", "external_id", "state", "from", "to"];

    pub fn parse(raw: &str) -> Result<Self, Problem> {
        let query = Query::parse(raw, Self::NAMES)?;
        let mut faults = Vec::new();
        let mut take = Take { query: &query, faults: &mut faults };
        let filters = EvidenceQuery {
            digest: take.read("digest", parse_digest),
            external_id: take.read("external_id", parse_external_id),
            state: take.read("state", parse_state),
            from: take.read("from", parse_moment),
            to: take.read("to", parse_moment),
            page: PageQuery::read(&query, take.faults),
        };
        if let (Some(from), Some(to)) = (filters.from, filters.to)
            && from >= to
        {
            faults.push(at(ProblemCode::TimeRangeInvalid, "from"));
        }
        if faults.is_empty() { Ok(filters) } else { Err(Problem::from_faults(faults)) }
    }
}

/// The filters of `GET /v1/webhooks/deliveries`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveriesQuery {
    pub page: PageQuery,
    pub endpoint_id: Option<EndpointId>,
    /// `pending`, `delivered` or `dead`.
    pub state: Option<&'static str>,
    /// Of events at or after.
    pub from: Option<Timestamp>,
    /// Of events before.
    pub to: Option<Timestamp>,
}

impl DeliveriesQuery {
    pub const NAMES: &[&str] = &["cursor", "limit", "endpoint_id", "state", "from", "to"];

    pub fn parse(raw: &str) -> Result<Self, Problem> {
        let query = Query::parse(raw, Self::NAMES)?;
        let mut faults = Vec::new();
        let mut take = Take { query: &query, faults: &mut faults };
        let filters = DeliveriesQuery {
            endpoint_id: take.read("endpoint_id", parse_endpoint),
            state: take.read("state", parse_delivery_state),
            from: take.read("from", parse_moment),
            to: take.read("to", parse_moment),
            page: PageQuery::read(&query, take.faults),
        };
        if let (Some(from), Some(to)) = (filters.from, filters.to)
            && from >= to
        {
            faults.push(at(ProblemCode::TimeRangeInvalid, "from"));
        }
        if faults.is_empty() { Ok(filters) } else { Err(Problem::from_faults(faults)) }
    }
}

struct Take<'q> {
    query: &'q Query,
    faults: &'q mut Vec<FieldError>,
}

impl Take<'_> {
    fn read<T>(&mut self, name: &'static str, parse: fn(&str) -> Result<T, Fault>) -> Option<T> {
        match parse(self.query.get(name)?) {
            Ok(value) => Some(value),
            Err(fault) => {
                self.faults.push(fault.at(Place::Parameter(name.into())));
                None
            }
        }
    }
}

const UTF8: Text = Text::new("text", "文本");
const MOMENT: Text =
    Text::new("a time of RFC 3339 such as 2026-11-22T08:00:00.000Z", "形如 2026-11-22T08:00:00.000Z 的 RFC 3339 时间");
const SEARCH: Text = Text::new(
    "a height, leaf index, hash or member's domain of 1 to 253 bytes",
    "1 到 253 字节的区块高度、叶序号、哈希值或成员域名",
);
const STATE: Text = Text::new("one of accepted, committed, rejected", "accepted、committed、rejected 之一");

fn at(code: ProblemCode, name: &'static str) -> FieldError {
    Fault::new(code).at(Place::Parameter(name.into()))
}

fn expected(words: Text) -> Fault {
    Fault::new(ProblemCode::QueryParameterInvalid).with("expected", Arg::Words(words))
}

fn invalid(name: &'static str, words: Text) -> FieldError {
    expected(words).at(Place::Parameter(name.into()))
}

fn parse_digest(text: &str) -> Result<DigestFilter, Fault> {
    let (algorithm, digest) = match text.split_once(':') {
        Some((name, digest)) => (Some(name.parse()?), digest),
        None => (None, text),
    };
    Ok(DigestFilter { algorithm, digest: digest.parse()? })
}

fn parse_external_id(text: &str) -> Result<String, Fault> {
    limits::line::<EXTERNAL_ID_CHARS_MAX>(text).map(|()| text.to_owned())
}

fn parse_state(text: &str) -> Result<OperationState, Fault> {
    OperationState::from_name(text).ok_or_else(|| expected(STATE))
}

const DELIVERY_STATES: [&str; 3] = ["pending", "delivered", "dead"];
const DELIVERY_STATE: Text = Text::new("one of pending, delivered, dead", "pending、delivered、dead 之一");

fn parse_delivery_state(text: &str) -> Result<&'static str, Fault> {
    DELIVERY_STATES.into_iter().find(|state| *state == text).ok_or_else(|| expected(DELIVERY_STATE))
}

fn parse_endpoint(text: &str) -> Result<EndpointId, Fault> {
    text.parse().map_err(|_| Fault::new(ProblemCode::IdMalformed).with("expected", Arg::Name(EndpointId::FORM)))
}

fn parse_moment(text: &str) -> Result<Timestamp, Fault> {
    Timestamp::parse(text).ok_or_else(|| expected(MOMENT))
}

fn parse_limit(text: &str) -> Option<u16> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|limit| (1..=PAGE_LIMIT_MAX).contains(limit))
}

/// Undoes percent-encoding. A `+` stays a plus: times have one in their offset.
fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => hex_digit(bytes.next()?)? << 4 | hex_digit(bytes.next()?)?,
            plain => plain,
        });
    }
    String::from_utf8(out).ok()
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn fault(raw: &str) -> (ProblemCode, Vec<String>) {
        let problem = EvidenceQuery::parse(raw).expect_err("refused");
        let places = problem.errors().iter().map(|error| match &error.place {
            Place::Parameter(name) => name.to_string(),
            other => panic!("{other:?}"),
        });
        (problem.code(), places.collect())
    }

    #[test]
    fn filters_are_read() {
        let raw = format!(
            "digest=sha256%3A{DIGEST}&state=committed&limit=200&cursor=abc&external_id=%E5%90%88%20a\
             &from=2026-11-22T08:00:00Z&to=2026-11-22T16:00:01+08:00"
        );
        let query = EvidenceQuery::parse(&raw).expect("a query");
        let digest = query.digest.expect("a digest");
        assert_eq!(digest.algorithm, Some(Algorithm::Sha256));
        assert_eq!(digest.digest.to_string(), DIGEST);
        assert_eq!(query.external_id.as_deref(), Some("合 a"));
        assert_eq!(query.state, Some(OperationState::Committed));
        assert_eq!(query.page.limit, 200);
        assert!(query.from < query.to);
        assert_eq!(EvidenceQuery::parse("").expect("empty"), EvidenceQuery::default());
        let form = EvidenceQuery::parse("external_id=order+17%2B1").expect("a query");
        assert_eq!(form.external_id.as_deref(), Some("order 17+1"));
        let any = EvidenceQuery::parse(&format!("digest={DIGEST}")).expect("a query");
        assert_eq!(any.digest.expect("a digest").algorithm, None);
    }

    #[test]
    fn each_fault_names_its_parameter() {
        let upper = format!("digest={}", DIGEST.to_uppercase());
        for (raw, code, place) in [
            ("colour=red", ProblemCode::QueryParameterUnknown, "colour"),
            ("13800138000=1", ProblemCode::QueryParameterUnknown, "?"),
            ("%ff=1", ProblemCode::QueryParameterUnknown, "?"),
            ("limit=1&limit=1", ProblemCode::QueryParameterRepeated, "limit"),
            ("limit=0", ProblemCode::LimitOutOfRange, "limit"),
            ("limit=201", ProblemCode::LimitOutOfRange, "limit"),
            ("limit=-1", ProblemCode::LimitOutOfRange, "limit"),
            ("limit=%2B1", ProblemCode::LimitOutOfRange, "limit"),
            ("limit", ProblemCode::LimitOutOfRange, "limit"),
            ("limit=99999999999999999999", ProblemCode::LimitOutOfRange, "limit"),
            ("cursor=a%20b", ProblemCode::CursorInvalid, "cursor"),
            ("cursor=", ProblemCode::CursorInvalid, "cursor"),
            ("state=pending", ProblemCode::QueryParameterInvalid, "state"),
            ("from=yesterday", ProblemCode::QueryParameterInvalid, "from"),
            ("external_id=%", ProblemCode::QueryParameterInvalid, "external_id"),
            ("external_id=%e5%90", ProblemCode::QueryParameterInvalid, "external_id"),
            ("external_id=", ProblemCode::StringEmpty, "external_id"),
            ("external_id=%00", ProblemCode::StringBadCharacters, "external_id"),
            ("digest=abc", ProblemCode::DigestBadLength, "digest"),
            ("digest=md5:abc", ProblemCode::DigestAlgorithmUnknown, "digest"),
            (&upper, ProblemCode::DigestUpperCase, "digest"),
            ("from=2026-11-22T08:00:00Z&to=2026-11-22T08:00:00Z", ProblemCode::TimeRangeInvalid, "from"),
        ] {
            assert_eq!(fault(raw), (code, vec![place.to_owned()]), "{raw}");
        }
    }

    #[test]
    fn all_faults_are_reported_at_once() {
        let (code, places) = fault("state=x&limit=0&digest=zz");
        assert_eq!(code, ProblemCode::SeveralFaults);
        assert_eq!(places, ["digest", "state", "limit"]);
    }

    #[test]
    fn a_search_is_for_something_short() {
        let long = "a".repeat(SEARCH_BYTES_MAX);
        for good in ["4711", "court.example", &long] {
            assert_eq!(SearchQuery::parse(&format!("q={good}")).expect("a query").q, good);
        }
        for (bad, code) in [
            ("", ProblemCode::QueryParameterInvalid),
            ("q", ProblemCode::QueryParameterInvalid),
            ("q=", ProblemCode::QueryParameterInvalid),
            ("q=%ff", ProblemCode::QueryParameterInvalid),
            (&format!("q={long}a"), ProblemCode::QueryParameterInvalid),
            ("q=1&q=2", ProblemCode::QueryParameterRepeated),
            ("q=1&limit=2", ProblemCode::QueryParameterUnknown),
        ] {
            assert_eq!(SearchQuery::parse(bad).expect_err("refused").code(), code, "{bad}");
        }
    }

    #[test]
    fn an_endpoint_without_parameters_takes_none() {
        assert!(Query::parse("", &[]).is_ok());
        let problem = Query::parse("a=1", &[]).expect_err("refused");
        assert_eq!(problem.code(), ProblemCode::QueryParameterUnknown);
    }

    proptest::proptest! {
        #[test]
        fn any_query_is_read_or_refused(raw in ".*", tail in "[%&=a-z0-9]*") {
            let _ = EvidenceQuery::parse(&raw);
            let _ = EvidenceQuery::parse(&format!("digest={tail}&{raw}"));
        }
    }
}
