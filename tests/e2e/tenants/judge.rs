//! Whether an answer gives anything away.

use std::{collections::BTreeSet, fmt, io::Read as _};

use serde_json::Value;

use crate::probes::{Expect, Probe};

/// Characters of an id after its prefix.
const ID_CHARS: usize = 39;
/// Prefixes of the ids of tenants' things.
const PREFIXES: [&str; 3] = ["evd_", "opn_", "cas_"];
/// Headers that may differ between any two answers. A server that refuses before it has read all of a body
/// closes the connection, and how much it has read is a matter of time.
const PASSING: [&str; 5] = ["connection", "date", "ratelimit", "ratelimit-policy", "x-request-id"];

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case, in order.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Everything in it that can be read, out of a zip too.
    fn text(&self) -> String {
        let headers: Vec<String> = self.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let mut text = headers.join("\n") + "\n\n";
        match zip::ZipArchive::new(std::io::Cursor::new(&self.body)) {
            Ok(mut files) => {
                for at in 0..files.len() {
                    let mut bytes = Vec::new();
                    files.by_index(at).unwrap().read_to_end(&mut bytes).unwrap();
                    text.push_str(&String::from_utf8_lossy(&bytes));
                }
            }
            Err(_) => text.push_str(&String::from_utf8_lossy(&self.body)),
        }
        text
    }

    /// Without what was sent: it is no news to whoever sent it.
    fn news(&self, probe: &Probe) -> String {
        let mut sent = probe.sent.clone();
        // The longest first: one may be a part of another.
        sent.sort_by_key(|text| std::cmp::Reverse(text.len()));
        sent.iter().filter(|text| !text.is_empty()).fold(self.text(), |text, sent| text.replace(sent, "…"))
    }

    /// The shape: without what was sent, ids, and what differs between any two answers.
    fn shape(&self, probe: &Probe) -> String {
        let headers = self.headers.iter().filter(|(name, _)| !PASSING.contains(&name.as_str())).cloned().collect();
        let text = Self { headers, ..self.clone() }.news(probe);
        let text = PREFIXES.iter().fold(text, |text, prefix| masked(&text, prefix, ID_CHARS));
        format!("{} {}", self.status, masked(&text, "req_", 0))
    }

    /// Ids in it, whole ones.
    pub(crate) fn ids(&self) -> BTreeSet<String> {
        let text = self.text();
        let found = PREFIXES.iter().flat_map(|prefix| {
            text.match_indices(prefix).map(|(at, _)| text[at..].chars().take(prefix.len() + ID_CHARS).collect())
        });
        found.collect()
    }
}

/// Without the letters and digits that follow a prefix, where there are at least so many.
fn masked(text: &str, prefix: &str, chars: usize) -> String {
    let mut parts = text.split(prefix);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let tail = part.trim_start_matches(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        let is_id = part.len() - tail.len() >= chars;
        out.push_str(prefix);
        out.push_str(if is_id { tail } else { part });
    }
    out
}

/// What the caller must not read, and what it may.
pub(crate) struct Rules<'a> {
    pub(crate) secrets: &'a [String],
    /// Ids of what the caller made itself.
    pub(crate) own: &'a BTreeSet<String>,
    /// The statuses that this caller must get, if only these are right.
    pub(crate) statuses: Option<&'a [u16]>,
}

/// What is wrong with an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// It has a secret of the owner's in it.
    Shows(String),
    /// It is another than that to the same question about what never existed: that one, and this one.
    Differs(String, String),
    /// It has records in it that are not the caller's, or none should be there.
    Lists(String),
    /// It has another status than it should have.
    Is(u16),
    /// The server failed.
    Fails(String),
}

impl What {
    /// Whether something was learned by it.
    pub(crate) const fn is_leak(&self) -> bool {
        matches!(self, Self::Shows(_) | Self::Differs(..) | Self::Lists(_))
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shows(secret) => write!(f, "shows {secret}"),
            Self::Differs(there, here) => {
                write!(f, "says, where there never was anything,\n{there}\nand here\n{here}\n")
            }
            Self::Lists(records) => write!(f, "lists {records}"),
            Self::Is(status) => write!(f, "is {status}"),
            Self::Fails(text) => write!(f, "fails: {text}"),
        }
    }
}

/// What is wrong with an answer; `never` is that to the same question about what never existed, by the
/// probe that asked it.
pub(crate) fn faults(probe: &Probe, answer: &Answer, never: Option<(&Probe, &Answer)>, rules: &Rules<'_>) -> Vec<What> {
    let news = answer.news(probe);
    let shown = rules.secrets.iter().filter(|secret| news.contains(*secret)).cloned();
    let mut faults: Vec<What> = shown.map(What::Shows).collect();
    if answer.status >= 500 {
        faults.push(What::Fails(answer.shape(probe)));
        return faults;
    }
    match rules.statuses {
        Some(statuses) if !statuses.contains(&answer.status) => faults.push(What::Is(answer.status)),
        Some(_) => {}
        None => faults.extend(unexpected(probe, answer, rules)),
    }
    match never.filter(|_| probe.expect == Expect::Alike) {
        Some((asked, never)) if never.status >= 500 => faults.push(What::Fails(never.shape(asked))),
        Some((asked, never)) => {
            let (here, there) = (answer.shape(probe), never.shape(asked));
            if here != there {
                faults.push(What::Differs(there, here));
            }
        }
        None => {}
    }
    faults
}

/// What is wrong by what was expected of those who may ask at all.
fn unexpected(probe: &Probe, answer: &Answer, rules: &Rules<'_>) -> Option<What> {
    let status = answer.status;
    match probe.expect {
        Expect::Alike => None,
        Expect::Public | Expect::Own | Expect::Unrecorded if status != 200 => Some(What::Is(status)),
        Expect::PublicOrGone if !matches!(status, 200 | 404) => Some(What::Is(status)),
        Expect::Public | Expect::PublicOrGone => None,
        Expect::Own => {
            let others: Vec<_> = answer.ids().difference(rules.own).cloned().collect();
            (!others.is_empty()).then(|| What::Lists(others.join(" ")))
        }
        Expect::Unrecorded => {
            let view = answer.json();
            let views = view["items"].as_array().cloned().unwrap_or_else(|| vec![view.clone()]);
            let is_empty = |view: &Value| view["records"].as_array().is_some_and(Vec::is_empty);
            (!views.iter().all(is_empty)).then(|| What::Lists(view.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, headers: Vec::new(), body: body.as_bytes().to_vec() }
    }

    fn probe(expect: Expect, sent: &str) -> Probe {
        let (method, path) = ("GET".to_owned(), "/".to_owned());
        Probe { method, path, idempotency_key: None, body: None, expect, sent: vec![sent.to_owned()] }
    }

    /// Each fault is one: a judge that finds none would let everything through.
    #[test]
    fn what_gives_something_away_is_a_fault() {
        let id = |letter: &str| format!("evd_{}", letter.repeat(ID_CHARS));
        let (theirs, never, own) = (id("a"), id("b"), id("c"));
        let (asked, invented) = (probe(Expect::Alike, &theirs), probe(Expect::Alike, &never));
        let (secrets, owned) = ([theirs.clone(), "title".to_owned()], BTreeSet::from([own.clone()]));
        let rules = |statuses| Rules { secrets: &secrets, own: &owned, statuses };
        let count = |here: &Answer, there: &Answer, statuses| {
            faults(&asked, here, Some((&invented, there)), &rules(statuses)).len()
        };
        let (here, there) = (format!("{theirs} req_aaa1"), format!("{never} req_bbb2"));
        assert_eq!(count(&answer(404, &here), &answer(404, &there), None), 0);
        assert_eq!(count(&answer(200, &here), &answer(404, &there), None), 1, "a status");
        assert_eq!(count(&answer(404, &here), &answer(404, &format!("{there}x y")), None), 1, "a shape");
        assert_eq!(count(&answer(404, "a title"), &answer(404, "a title"), None), 1, "a secret");
        assert_eq!(count(&answer(503, &here), &answer(503, &there), None), 1, "a failure");
        assert_eq!(count(&answer(404, &here), &answer(503, &there), None), 1, "a failure of what it is compared with");
        assert_eq!(count(&answer(404, &here), &answer(404, &there), Some(&[401])), 1, "no refusal");

        let one = |expect, body: &str| faults(&probe(expect, ""), &answer(200, body), None, &rules(None)).len();
        assert_eq!((one(Expect::Own, &own), one(Expect::Own, &never)), (0, 1), "another's record");
        assert_eq!(one(Expect::Unrecorded, r#"{"records":[]}"#), 0);
        assert_eq!(one(Expect::Unrecorded, r#"{"records":[1]}"#), 1);
        assert_eq!(one(Expect::Unrecorded, r#"{"items":[{"records":[]},{"records":[1]}]}"#), 1);
        assert_eq!(one(Expect::Public, "title"), 1, "a secret for everybody");
    }
}
