//! One of everything that a tenant can have, and all by which somebody else could ask for it.

use chopmark_domain::id::{IdIssuer, IdKind, ResourceKey, base32, base32_decode};
use chopmark_tests::{Answer, Api, sha256};
use rand::{Rng, RngExt as _};
use serde_json::{Value, json};

/// How long an answer waits for the commit, in seconds.
const WAIT: u32 = 30;
/// What each piece of evidence is named by: one each of what can be sent, and one whose digest every
/// tenant of the test records.
pub(crate) const KINDS: [&str; 6] = ["plain", "confidential", SHARED, "first", "second", FILE];
pub(crate) const SHARED: &str = "shared";
pub(crate) const FILE: &str = "file";
/// The kinds whose digests stand on the ledger and are this tenant's alone.
pub(crate) const RECORDED: [&str; 4] = ["plain", "first", "second", FILE];
const BATCH: [&str; 2] = ["first", "second"];

/// What a tenant has. Every text that it chose holds its mark; the rest was given to it.
#[derive(Debug, Clone)]
pub(crate) struct Things {
    mark: String,
    pub(crate) tenant: String,
    /// In the order of [`KINDS`].
    pub(crate) evidence: Vec<String>,
    /// Of all writes, one of them rejected.
    pub(crate) operations: Vec<String>,
    pub(crate) case: String,
    /// Of the list of evidence.
    pub(crate) cursor: String,
    /// Of the links of the case.
    pub(crate) case_cursor: String,
    /// Entry ids.
    pub(crate) entries: Vec<String>,
    pub(crate) indexes: Vec<u64>,
    pub(crate) heights: Vec<u64>,
    /// When its evidence was accepted.
    pub(crate) times: Vec<String>,
    /// What opens the commitment of the confidential evidence, as its receipt writes it.
    opening: String,
    /// A webhook endpoint.
    pub(crate) endpoint: String,
    /// What was sent to it, or is to be.
    pub(crate) delivery: String,
    pub(crate) delivery_cursor: String,
    /// What signs to it.
    secret: String,
}

impl Things {
    /// Makes everything by the API of a tenant, and sees that the tenant itself reads all of it.
    pub(crate) async fn make(api: &Api, tenant: &str, random: &mut impl Rng) -> Self {
        let mut made = Self::nothing(tenant, random);
        for kind in ["plain", "confidential", SHARED] {
            made.take(&api.post("/v1/evidence", &made.key(kind), WAIT, &made.body(kind)).await.unwrap().body);
        }
        let answer = api.post("/v1/evidence/batch", "unused", WAIT, &made.batch()).await.unwrap().body;
        for item in answer["items"].as_array().unwrap_or_else(|| panic!("{answer}")) {
            made.take(item);
        }
        made.take(&made.send_file(api).await.body);
        let opened = api.post("/v1/cases", &made.key("case"), WAIT, &made.case_body()).await.unwrap().body;
        made.operations.push(text(&opened["operation"]["id"]));
        made.case = text(&opened["id"]);
        for operation in &made.operations {
            assert_eq!(api.ended(operation).await.unwrap()["state"], "committed");
        }
        made.hook(api).await;
        made.link(api).await;
        made.look(api).await;
        made
    }

    /// What nobody has and nobody ever had, of the same forms and lengths.
    pub(crate) fn invented(like: &Self, random: &mut impl Rng) -> Self {
        let mut id = |id: &String| format!("{}_{}", &id[..3], base32(&random.random::<[u8; 24]>()));
        let evidence = like.evidence.iter().map(&mut id).collect();
        let operations = like.operations.iter().map(&mut id).collect();
        let case = id(&like.case);
        let (endpoint, delivery) = (id(&like.endpoint), id(&like.delivery));
        let mut cursor = || base32(&random.random::<[u8; 16]>());
        let (cursor, case_cursor, delivery_cursor) = (cursor(), cursor(), cursor());
        let entries = like.entries.iter().map(|_| sha256(&random.random::<[u8; 32]>())).collect();
        let never = Self::nothing("ten_nobody", random);
        let made = Self { evidence, operations, case, cursor, case_cursor, entries, mark: never.mark, ..like.clone() };
        Self { endpoint, delivery, delivery_cursor, ..made }
    }

    /// The same under ids that carry the tags of another tenant: who could make such ids would get past
    /// the tags to the queries.
    pub(crate) fn tagged_for(&self, ids: &IdIssuer, tenant: &str) -> Self {
        let tagged = |id: &String| {
            let (prefix, body) = id.split_once('_').unwrap();
            let key = base32_decode(body).unwrap().first_chunk::<16>().copied().map(ResourceKey).unwrap();
            let kinds =
                [IdKind::Evidence, IdKind::Operation, IdKind::Case, IdKind::Endpoint, IdKind::Event, IdKind::Delivery];
            let kind = kinds.into_iter().find(|kind| kind.prefix() == prefix).unwrap();
            ids.issue(kind, tenant, &key)
        };
        let evidence = self.evidence.iter().map(tagged).collect();
        let operations = self.operations.iter().map(tagged).collect();
        let (endpoint, delivery) = (tagged(&self.endpoint), tagged(&self.delivery));
        Self { evidence, operations, case: tagged(&self.case), endpoint, delivery, ..self.clone() }
    }

    /// Nobody else may ever read these.
    pub(crate) fn private(&self) -> Vec<String> {
        let ids = self.evidence.iter().chain(&self.operations).chain([&self.case]).cloned();
        let confidential = [self.digest("confidential"), self.opening.clone()];
        let hooks = [self.endpoint.clone(), self.delivery.clone(), self.secret.clone()];
        ids.chain(confidential).chain(hooks).chain([self.mark.clone()]).collect()
    }

    /// Anybody reads these in the log; whoever asks for records of their own must not.
    pub(crate) fn recorded(&self) -> Vec<String> {
        let digests = RECORDED.iter().map(|kind| self.digest(kind));
        let others = self.entries.iter().chain(&self.times).chain([&self.tenant]);
        digests.chain(others.cloned()).collect()
    }

    /// A text of the tenant's own.
    fn own(&self, what: &str, kind: &str) -> String {
        format!("{}-{what}-{kind}", self.mark)
    }

    /// An idempotency key.
    pub(crate) fn key(&self, kind: &str) -> String {
        self.own("key", kind)
    }

    pub(crate) fn title(&self, kind: &str) -> String {
        self.own("title", kind)
    }

    pub(crate) fn external_id(&self, kind: &str) -> String {
        self.own("external", kind)
    }

    fn content(&self, kind: &str) -> String {
        if kind == SHARED { "what every tenant records".to_owned() } else { self.own("content", kind) }
    }

    pub(crate) fn digest(&self, kind: &str) -> String {
        sha256(self.content(kind).as_bytes())
    }

    /// The request for one piece of evidence.
    pub(crate) fn body(&self, kind: &str) -> Value {
        json!({
            "digests": { "sha256": self.digest(kind) },
            "title": self.title(kind),
            "external_id": self.external_id(kind),
            "provenance": { "source": self.own("source", kind), "notes": self.own("notes", kind) },
            "confidential": kind == "confidential",
        })
    }

    pub(crate) fn batch(&self) -> Value {
        let item = |kind: &&str| {
            let mut item = self.body(kind);
            item["idempotency_key"] = json!(self.key(kind));
            item
        };
        json!({ "items": BATCH.iter().map(item).collect::<Vec<_>>() })
    }

    pub(crate) fn case_body(&self) -> Value {
        json!({ "title": self.title("case"), "external_id": self.external_id("case") })
    }

    /// Media type and bytes of a form with a file whose original is kept.
    pub(crate) fn form(&self) -> (String, Vec<u8>) {
        let metadata = json!({
            "title": self.title(FILE), "external_id": self.external_id(FILE), "retain": true,
        });
        let body = format!(
            "--XX\r\nContent-Disposition: form-data; name=\"metadata\"\r\nContent-Type: application/json\r\n\r\n\
             {metadata}\r\n--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n{}\r\n--XX--\r\n",
            self.own("name", FILE),
            self.content(FILE),
        );
        ("multipart/form-data; boundary=XX".to_owned(), body.into_bytes())
    }

    fn nothing(tenant: &str, random: &mut impl Rng) -> Self {
        Self {
            mark: format!("kanarie{}", hex::encode(random.random::<[u8; 8]>())),
            tenant: tenant.to_owned(),
            evidence: Vec::new(),
            operations: Vec::new(),
            case: String::new(),
            cursor: String::new(),
            case_cursor: String::new(),
            entries: Vec::new(),
            indexes: Vec::new(),
            heights: Vec::new(),
            times: Vec::new(),
            opening: String::new(),
            endpoint: String::new(),
            delivery: String::new(),
            delivery_cursor: String::new(),
            secret: String::new(),
        }
    }

    /// Things without a deployment, for what needs only their forms.
    pub(crate) fn without_a_deployment(random: &mut impl Rng) -> Self {
        let (mut like, id) = (Self::nothing("ten_nobody", random), |prefix| format!("{prefix}_"));
        like.evidence = vec![id("evd"); KINDS.len()];
        like.operations = vec![id("opn")];
        like.case = id("cas");
        (like.endpoint, like.delivery) = (id("whe"), id("dlv"));
        like.entries = vec![String::new()];
        (like.indexes, like.heights, like.times) = (vec![1], vec![1], vec!["2026-01-01T00:00:00.000Z".to_owned()]);
        Self::invented(&like, random)
    }

    fn take(&mut self, accepted: &Value) {
        self.evidence.push(text(&accepted["id"]));
        self.operations.push(text(&accepted["operation"]["id"]));
    }

    async fn send_file(&self, api: &Api) -> Answer {
        let (media_type, form) = self.form();
        let request = api.http.post(format!("{}/v1/evidence/files", api.base)).bearer_auth(&api.key);
        let request = request.header("Idempotency-Key", self.key(FILE)).header("Prefer", format!("wait={WAIT}"));
        let answer = request.header("Content-Type", media_type).body(form).send().await.unwrap();
        let status = answer.status().as_u16();
        Answer { status, body: serde_json::from_str(&answer.text().await.unwrap()).unwrap() }
    }

    /// What would make an endpoint; nobody listens there.
    pub(crate) fn endpoint_body(&self) -> Value {
        json!({ "url": format!("http://127.0.0.1:9/{}", self.own("hook", "token")), "description": self.own("hook", "note") })
    }

    /// An endpoint that is told of what follows.
    async fn hook(&mut self, api: &Api) {
        let answer = api.post("/v1/webhooks/endpoints", &self.key("hook"), 0, &self.endpoint_body()).await.unwrap();
        self.endpoint = text(&answer.body["id"]);
        self.secret = text(&answer.body["secret"]);
        for _ in 0..2 {
            let test = format!("/v1/webhooks/endpoints/{}/test", self.endpoint);
            self.delivery = text(&api.post(&test, "unused", 0, &json!({})).await.unwrap().body["delivery_id"]);
        }
    }

    /// Two links, and one that the ledger rejects.
    async fn link(&mut self, api: &Api) {
        let path = format!("/v1/cases/{}/evidence", self.case);
        for (name, at, state) in [("link-1", 0, "committed"), ("link-2", 1, "committed"), ("link-3", 0, "rejected")] {
            let body = json!({ "evidence_id": self.evidence[at] });
            let linked = api.post(&path, &self.key(name), WAIT, &body).await.unwrap().body;
            let operation = text(&linked["operation"]["id"]);
            assert_eq!(api.ended(&operation).await.unwrap()["state"], state, "{name}");
            self.operations.push(operation);
        }
    }

    /// Reads back what is there, as whose it is.
    async fn look(&mut self, api: &Api) {
        for (kind, id) in KINDS.iter().zip(self.evidence.clone()) {
            let view = api.get(&format!("/v1/evidence/{id}")).await.unwrap().body;
            assert_eq!(view["title"], self.title(kind), "{view}");
            assert_eq!(view["digests"]["sha256"], self.digest(kind), "{view}");
            self.entries.push(text(&view["entry"]["id"]));
            self.times.push(text(&view["created_at"]));
            self.indexes.push(view["entry"]["index"].as_u64().unwrap());
            self.heights.push(view["block"]["height"].as_u64().unwrap());
        }
        let next = async |path: String| text(&api.get(&path).await.unwrap().body["next_cursor"]);
        self.cursor = next("/v1/evidence?limit=1".to_owned()).await;
        self.case_cursor = next(format!("/v1/cases/{}?limit=1", self.case)).await;
        self.delivery_cursor = next("/v1/webhooks/deliveries?limit=1".to_owned()).await;
        let (_, receipt) = api.bytes(&format!("/v1/evidence/{}/receipt", self.evidence[1])).await.unwrap();
        let receipt = String::from_utf8(receipt).unwrap();
        let opening = receipt.lines().find_map(|line| line.strip_prefix("extra "));
        self.opening = opening.expect("a receipt of confidential evidence has an opening").to_owned();
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}
