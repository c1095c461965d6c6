//! What is asked of every operation of the API, with what is another tenant's.

use serde_json::{Value, json};

use crate::{
    document::Operation,
    things::{FILE, KINDS, RECORDED, SHARED, Things},
};

/// What an answer must be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// The one that anybody gets who asks for what never existed: not even existence shows.
    Alike,
    /// With records of the caller's own alone.
    Own,
    /// What anybody may read: nothing private. [`PUBLIC`] says what it is.
    Public,
    /// Public, and perhaps no longer there: the log has grown meanwhile.
    PublicOrGone,
    /// Public, and without a record.
    Unrecorded,
}

/// The operations without a key, and what each may show of what tenants do.
pub(crate) const PUBLIC: [(&str, &str); 18] = [
    ("GET /errors", "nothing"),
    ("GET /errors/{code}", "nothing"),
    ("GET /health/live", "nothing"),
    ("GET /health/ready", "nothing"),
    ("GET /openapi.yaml", "nothing"),
    ("GET /log/checkpoint", "how many entries there are, of all tenants together"),
    ("GET /log/policies/{first_size}", "nothing"),
    ("GET /log/policy", "nothing"),
    (
        "GET /log/tile/{path}",
        "every entry: tenant, operation id, time; digests, or a commitment to them; links of cases",
    ),
    ("GET /v1/blocks", "when and how many operations were decided, of all tenants together"),
    ("GET /v1/blocks/{height}", "operation ids and keyed digests of requests, and how each ended"),
    ("GET /v1/entries/{id}", "an entry with block and checkpoint"),
    ("GET /v1/entries/{index}/entry", "an entry"),
    ("GET /v1/entries/{index}/proof", "an entry with its receipt, which has no opening"),
    ("GET /v1/entries/{index}/receipt", "that an entry is in the log, and no opening"),
    ("GET /v1/network", "members, and how many entries there are"),
    (
        "GET /v1/search",
        "which blocks and entries a digest, an entry id or a number leads to; never by an id of a tenant's",
    ),
    ("GET /v1/verify/{algorithm}/{digest}", "every entry with a digest, never by that of confidential evidence"),
];

/// The one of them that is a POST: as `GET /v1/verify/{algorithm}/{digest}`.
pub(crate) const PUBLIC_POST: &str = "POST /v1/verify/batch";

/// Whose ids are sent, to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// As their owner has them, to a gateway that looks at tags.
    Checked,
    /// As their owner has them, to one that does not.
    Credulous,
    /// With the tags that the caller's own would have; only what is asked for by an id.
    Tagged,
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
    pub(crate) idempotency_key: Option<String>,
    /// Media type and bytes.
    pub(crate) body: Option<(String, Vec<u8>)>,
    pub(crate) expect: Expect,
    /// What the request names; an answer may say it back.
    pub(crate) sent: Vec<String>,
}

impl Probe {
    fn of(operation: &Operation, expect: Expect) -> Self {
        let (method, path) = (operation.method.clone(), operation.path.clone());
        Self { method, path, idempotency_key: None, body: None, expect, sent: Vec::new() }
    }

    /// With a value in the path.
    fn at(mut self, name: &str, value: &str) -> Self {
        let place = format!("{{{name}}}");
        assert!(self.path.contains(&place), "{} has no {place}", self.path);
        self.path = self.path.replace(&place, value);
        self.sent.push(value.to_owned());
        self
    }

    /// With a parameter.
    fn with(mut self, name: &str, value: &str) -> Self {
        let sign = if self.path.contains('?') { '&' } else { '?' };
        self.path = format!("{}{sign}{name}={value}", self.path);
        self.sent.push(value.to_owned());
        self
    }

    fn named(mut self, idempotency_key: String) -> Self {
        self.idempotency_key = Some(idempotency_key);
        self
    }

    fn json(self, body: &Value) -> Self {
        self.sending("application/json", body.to_string().into_bytes())
    }

    fn sending(mut self, media_type: &str, body: Vec<u8>) -> Self {
        self.body = Some((media_type.to_owned(), body));
        self
    }

    /// The same as HEAD: as good a way to ask whether something is there.
    pub(crate) fn as_head(&self) -> Self {
        Self { method: "HEAD".to_owned(), ..self.clone() }
    }
}

/// Every probe of an operation, with `theirs` and for somebody who has `own`. `None`: nobody has thought
/// about this operation yet.
pub(crate) fn probes(operation: &Operation, theirs: &Things, own: &Things, look: Look) -> Option<Vec<Probe>> {
    let name = operation.name();
    Some(match name.as_str() {
        "GET /v1/evidence/{id}"
        | "GET /v1/evidence/{id}/receipt"
        | "GET /v1/evidence/{id}/entry"
        | "GET /v1/evidence/{id}/proof" => by_id(operation, &theirs.evidence),
        "GET /v1/operations/{id}" => by_id(operation, &theirs.operations),
        "GET /v1/cases/{id}" => case(operation, theirs, look),
        "POST /v1/cases/{id}/evidence" => links(operation, theirs, own),
        name if name.contains(" /v1/webhooks/") => hooks(operation, theirs, look),
        // What follows is not asked for by an id that has a tag.
        "GET /v1/evidence" if look != Look::Tagged => lists(operation, theirs, look),
        "POST /v1/evidence" | "POST /v1/evidence/batch" | "POST /v1/evidence/files" | "POST /v1/cases"
            if look != Look::Tagged =>
        {
            writes(operation, theirs)
        }
        "GET /v1/evidence"
        | "POST /v1/evidence"
        | "POST /v1/evidence/batch"
        | "POST /v1/evidence/files"
        | "POST /v1/cases" => Vec::new(),
        _ => return public(operation, theirs),
    })
}

fn by_id(operation: &Operation, ids: &[String]) -> Vec<Probe> {
    ids.iter().map(|id| Probe::of(operation, Expect::Alike).at("id", id)).collect()
}

fn case(operation: &Operation, theirs: &Things, look: Look) -> Vec<Probe> {
    let it = || Probe::of(operation, Expect::Alike).at("id", &theirs.case);
    let mut probes = vec![it(), it().with("limit", "200")];
    // A cursor is bound to its case: whoever could tag the case's id would have the cursor taken, and learn
    // what is known already, that it was once issued.
    if look != Look::Tagged {
        probes.push(it().with("cursor", &theirs.case_cursor));
    }
    probes
}

fn links(operation: &Operation, theirs: &Things, own: &Things) -> Vec<Probe> {
    let link = |key: &str, case: &str, evidence: &str| {
        let probe = Probe::of(operation, Expect::Alike).at("id", case).named(theirs.key(key));
        let mut probe = probe.json(&json!({ "evidence_id": evidence }));
        probe.sent.push(evidence.to_owned());
        probe
    };
    vec![
        link("link-1", &theirs.case, &theirs.evidence[0]),
        link("link-2", &theirs.case, &own.evidence[0]),
        link("link-3", &own.case, &theirs.evidence[0]),
    ]
}

fn lists(operation: &Operation, theirs: &Things, look: Look) -> Vec<Probe> {
    let list = |expect| Probe::of(operation, expect);
    let mut probes = vec![
        list(Expect::Own),
        list(Expect::Own).with("limit", "200"),
        list(Expect::Own).with("digest", &theirs.digest(SHARED)),
        // Without its tag a cursor is a place in a list, and the caller's own list has it too.
        list(if look == Look::Checked { Expect::Alike } else { Expect::Own }).with("cursor", &theirs.cursor),
    ];
    for state in ["accepted", "committed", "rejected"] {
        probes.push(list(Expect::Own).with("state", state));
    }
    for time in &theirs.times {
        probes.push(list(Expect::Own).with("from", time));
        probes.push(list(Expect::Own).with("to", time));
    }
    for kind in KINDS {
        probes.push(list(Expect::Alike).with("external_id", &theirs.external_id(kind)));
        if kind != SHARED {
            probes.push(list(Expect::Alike).with("digest", &theirs.digest(kind)));
            probes.push(list(Expect::Alike).with("digest", &format!("sha256:{}", theirs.digest(kind))));
        }
    }
    probes
}

/// The owner's idempotency keys: with the owner's own requests, and with another.
fn writes(operation: &Operation, theirs: &Things) -> Vec<Probe> {
    let write = || Probe::of(operation, Expect::Alike);
    match operation.path.as_str() {
        "/v1/evidence" => vec![
            write().named(theirs.key("plain")).json(&theirs.body("plain")),
            write().named(theirs.key(SHARED)).json(&theirs.body("plain")),
        ],
        "/v1/evidence/batch" => vec![write().json(&theirs.batch())],
        "/v1/evidence/files" => {
            let (media_type, form) = theirs.form();
            vec![write().named(theirs.key(FILE)).sending(&media_type, form)]
        }
        _ => vec![write().named(theirs.key("case")).json(&theirs.case_body())],
    }
}

fn hooks(operation: &Operation, theirs: &Things, look: Look) -> Vec<Probe> {
    let it = || Probe::of(operation, Expect::Alike);
    let at_endpoint = || it().at("id", &theirs.endpoint);
    let times = json!({ "from": "2020-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z" });
    let name = operation.name();
    match name.as_str() {
        "GET /v1/webhooks/endpoints" if look == Look::Tagged => Vec::new(),
        "GET /v1/webhooks/endpoints" => vec![Probe::of(operation, Expect::Own)],
        // A key names an endpoint of whoever uses it.
        "POST /v1/webhooks/endpoints" if look == Look::Tagged => Vec::new(),
        "POST /v1/webhooks/endpoints" => {
            let mut body = theirs.endpoint_body();
            body["events"] = json!(["no such event"]);
            vec![it().named(theirs.key("hook")).json(&body)]
        }
        "GET /v1/webhooks/endpoints/{id}" => vec![at_endpoint()],
        "PATCH /v1/webhooks/endpoints/{id}" => {
            vec![at_endpoint().json(&json!({})), at_endpoint().json(&json!({ "description": "mine now" }))]
        }
        "POST /v1/webhooks/endpoints/{id}/secret" => vec![at_endpoint().named(theirs.key("rotation")).json(&json!({}))],
        "POST /v1/webhooks/endpoints/{id}/test" => vec![at_endpoint().json(&json!({}))],
        "POST /v1/webhooks/endpoints/{id}/replay" => vec![at_endpoint().json(&times)],
        "GET /v1/webhooks/deliveries" => {
            let list = |expect| Probe::of(operation, expect);
            let mut probes = vec![list(Expect::Alike).with("endpoint_id", &theirs.endpoint)];
            if look != Look::Tagged {
                probes.push(list(Expect::Own).with("limit", "200"));
                let cursor = if look == Look::Checked { Expect::Alike } else { Expect::Own };
                probes.push(list(cursor).with("cursor", &theirs.delivery_cursor));
            }
            probes
        }
        "GET /v1/webhooks/deliveries/{id}" => vec![it().at("id", &theirs.delivery)],
        "POST /v1/webhooks/deliveries/{id}/replay" => vec![it().at("id", &theirs.delivery).json(&json!({}))],
        // Last: where nothing keeps anybody back, it is gone.
        "DELETE /v1/webhooks/endpoints/{id}" => vec![at_endpoint()],
        _ => panic!("nobody has thought about {name} yet"),
    }
}

fn public(operation: &Operation, theirs: &Things) -> Option<Vec<Probe>> {
    let ask = |expect| Probe::of(operation, expect);
    let each = |name: &str, values: &[u64]| {
        values.iter().map(|value| ask(Expect::Public).at(name, &value.to_string())).collect()
    };
    let name = operation.name();
    Some(match name.as_str() {
        "GET /errors"
        | "GET /health/live"
        | "GET /health/ready"
        | "GET /openapi.yaml"
        | "GET /log/checkpoint"
        | "GET /log/policy"
        | "GET /v1/network"
        | "GET /v1/blocks" => vec![ask(Expect::Public)],
        "GET /errors/{code}" => vec![
            ask(Expect::Public).at("code", "evidence_not_found"),
            ask(Expect::Alike).at("code", &theirs.external_id("plain")),
        ],
        "GET /log/policies/{first_size}" => vec![ask(Expect::PublicOrGone).at("first_size", "1")],
        "GET /log/tile/{path}" => theirs.indexes.iter().map(|index| tile(operation, *index)).collect(),
        "GET /v1/blocks/{height}" => each("height", &theirs.heights),
        "GET /v1/entries/{id}" => {
            let mut probes: Vec<_> = each("id", &theirs.indexes);
            probes.extend(theirs.entries.iter().map(|entry| ask(Expect::Public).at("id", entry)));
            probes
        }
        "GET /v1/entries/{index}/entry" | "GET /v1/entries/{index}/receipt" | "GET /v1/entries/{index}/proof" => {
            each("index", &theirs.indexes)
        }
        "GET /v1/search" => searches(operation, theirs),
        "GET /v1/verify/{algorithm}/{digest}" => {
            let verify = |expect, kind| ask(expect).at("algorithm", "sha256").at("digest", &theirs.digest(kind));
            let recorded = RECORDED.iter().map(|kind| verify(Expect::Public, kind));
            recorded.chain([verify(Expect::Unrecorded, "confidential")]).collect()
        }
        PUBLIC_POST => {
            let items = |kinds: &[&str]| {
                let item = |kind: &&str| json!({ "algorithm": "sha256", "digest": theirs.digest(kind) });
                json!({ "items": kinds.iter().map(item).collect::<Vec<_>>() })
            };
            let mut unrecorded = ask(Expect::Unrecorded).json(&items(&["confidential"]));
            unrecorded.sent.push(theirs.digest("confidential"));
            vec![ask(Expect::Public).json(&items(&RECORDED)), unrecorded]
        }
        _ => return None,
    })
}

/// The bundle that ended in an entry when the log was this long.
fn tile(operation: &Operation, index: u64) -> Probe {
    let (bundle, width) = (index / 256, index % 256 + 1);
    Probe::of(operation, Expect::PublicOrGone).at("path", &format!("entries/{bundle:03}.p/{width}"))
}

fn searches(operation: &Operation, theirs: &Things) -> Vec<Probe> {
    let search = |expect, text: &str| Probe::of(operation, expect).with("q", text);
    let ids = theirs.evidence.iter().chain(&theirs.operations).chain([&theirs.case]);
    let mut probes: Vec<_> = ids.map(|id| search(Expect::Alike, id)).collect();
    for kind in KINDS {
        for text in [theirs.title(kind), theirs.external_id(kind), theirs.key(kind)] {
            probes.push(search(Expect::Alike, &text));
        }
    }
    probes.push(search(Expect::Alike, &theirs.digest("confidential")));
    probes.extend(RECORDED.iter().map(|kind| search(Expect::Public, &theirs.digest(kind))));
    probes.extend(theirs.entries.iter().map(|entry| search(Expect::Public, entry)));
    probes
}
