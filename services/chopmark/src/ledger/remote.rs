//! The ledger ports over nodes elsewhere, by their internal interfaces.
//!
//! Reads go to one node as long as it answers. Whoever has no answer soon asks the next one too and
//! takes the first answer, so that a node that hangs costs a moment and not a time limit.
//! Submissions go to all of them; operation ids make that safe. What a node says is believed here as
//! what a database says: a committer checks every block for itself before it projects it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use chopmark_domain::ports::{
    BlockRef, DigestHits, LedgerBlock, LedgerReader, LedgerReceipt, LedgerStatus, LedgerWriter, PortError, PortResult,
    SubmitResult,
};
use ledger_core::{
    Hash32, SigningKey, batch::Submission, digests::Algorithm, genesis::Genesis, merkle::LeafIndex,
    operation::SignedOperation, tile::TilePath,
};
use reqwest::{Client, Response, StatusCode};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use super::{
    PORT, merged,
    wire::{
        self, ANSWER_BYTES_MAX, BLOCKS_BYTES_MAX, BlockRefView, EndedView, HitsView, ReceiptView, RefusalView,
        StatusView, WAIT_MS_MAX,
    },
    without,
};
use crate::network::peering::{self, bounded};

/// After this another node is asked too: many times what an answer takes on a local network.
const HEDGE_AFTER: Duration = Duration::from_millis(400);
/// How long one node may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to decide a submission; the committer gives up before that.
const SUBMIT_TIMEOUT: Duration = Duration::from_secs(70);

/// The nodes, as those see them who read.
#[derive(Clone)]
pub(crate) struct RemoteReader(Arc<Nodes>);

/// The nodes, as a committer sees them.
#[derive(Clone)]
pub(crate) struct RemoteWriter {
    nodes: Arc<Nodes>,
    submitter: SigningKey,
}

struct Nodes {
    http: Client,
    /// Base URLs of internal interfaces.
    urls: Vec<String>,
    genesis: Genesis,
    chain: Hash32,
    /// The one that answered last, by its place in `urls`.
    preferred: AtomicUsize,
    /// What the last status said.
    well: AtomicBool,
    /// Of nodes that are away, too: statements that they signed are still about.
    statement_keys: Mutex<BTreeMap<usize, Vec<String>>>,
}

impl RemoteReader {
    /// `urls` are those of internal interfaces, without a path; at least one. Nothing is asked yet.
    pub(crate) fn new(urls: &[String], genesis: Genesis) -> anyhow::Result<Self> {
        if urls.is_empty() {
            bail!("nodes is empty: name at least one node's internal interface");
        }
        let urls = urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        Ok(Self(Arc::new(Nodes {
            http: peering::http()?,
            urls,
            chain: genesis.chain_id(),
            genesis,
            preferred: AtomicUsize::new(0),
            well: AtomicBool::new(true),
            statement_keys: Mutex::default(),
        })))
    }

    pub(crate) fn writer(&self, submitter: SigningKey) -> RemoteWriter {
        RemoteWriter { nodes: Arc::clone(&self.0), submitter }
    }

    async fn json<T: DeserializeOwned + Send + 'static>(&self, ask: Ask) -> PortResult<Option<T>> {
        self.0.ask(ask, |bytes| Ok(serde_json::from_slice(bytes)?)).await
    }

    async fn present<T: DeserializeOwned + Send + 'static>(&self, path: String) -> PortResult<T> {
        let found = self.json(Ask::new(path)).await?;
        found.ok_or_else(|| PortError::Unavailable { port: PORT, reason: "an answer without content".to_owned() })
    }
}

/// One question.
#[derive(Clone)]
struct Ask {
    /// Below `/internal/v1/ledger/{chain}/`.
    path: String,
    hedge_after: Duration,
    timeout: Duration,
    bytes_max: usize,
    /// Somebody knows that it exists: one that has nothing is behind, and another is asked.
    exists: bool,
}

impl Ask {
    const fn new(path: String) -> Self {
        let (hedge_after, timeout, bytes_max) = (HEDGE_AFTER, ANSWER_TIMEOUT, ANSWER_BYTES_MAX);
        Self { path, hedge_after, timeout, bytes_max, exists: false }
    }

    fn existing(path: String) -> Self {
        Self { exists: true, ..Self::new(path) }
    }
}

impl Nodes {
    /// Asks one node after the other until one answers. `None`: the answer is that there is nothing.
    async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        ask: Ask,
        read: fn(&[u8]) -> anyhow::Result<T>,
    ) -> PortResult<Option<T>> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut order = (0..self.urls.len()).map(|step| (first + step) % self.urls.len());
        let (mut asked, mut reasons, mut is_nothing) = (JoinSet::new(), Vec::new(), false);
        loop {
            let next = order.next();
            if let Some(at) = next {
                let (nodes, ask) = (Arc::clone(self), ask.clone());
                asked.spawn(async move { (at, nodes.ask_one(at, &ask, read).await) });
            }
            let answer = if next.is_some() {
                let Ok(answer) = tokio::time::timeout(ask.hedge_after, asked.join_next()).await else { continue };
                answer
            } else {
                asked.join_next().await
            };
            match answer {
                Some(Ok((_, Ok(None)))) if ask.exists => is_nothing = true,
                Some(Ok((at, Ok(found)))) => {
                    self.preferred.store(at, Ordering::Relaxed);
                    return Ok(found);
                }
                Some(Ok((at, Err(error)))) => reasons.push(format!("{}: {error:#}", self.urls[at])),
                Some(Err(error)) => reasons.push(error.to_string()),
                None if is_nothing => return Ok(None),
                None => return Err(PortError::Unavailable { port: PORT, reason: reasons.join("; ") }),
            }
        }
    }

    async fn ask_one<T>(
        &self,
        at: usize,
        ask: &Ask,
        read: fn(&[u8]) -> anyhow::Result<T>,
    ) -> anyhow::Result<Option<T>> {
        let url = format!("{}/internal/v1/ledger/{}/{}", self.urls[at], self.chain, ask.path);
        let answer = self.http.get(url).timeout(ask.timeout).send().await?;
        match answer.status() {
            StatusCode::OK => Ok(Some(read(&bounded(answer, ask.bytes_max).await?)?)),
            StatusCode::NO_CONTENT => Ok(None),
            StatusCode::NOT_FOUND => bail!("it is not a node of this network, or of another version"),
            status => bail!("{status}: {}", refusal(answer).await.title),
        }
    }
}

async fn refusal(answer: Response) -> RefusalView {
    let body = bounded(answer, ANSWER_BYTES_MAX).await.unwrap_or_default();
    serde_json::from_slice(&body).unwrap_or_default()
}

#[async_trait]
impl LedgerReader for RemoteReader {
    fn is_well(&self) -> bool {
        self.0.well.load(Ordering::Relaxed)
    }

    async fn status(&self) -> PortResult<LedgerStatus> {
        let view: StatusView = self.present("status".to_owned()).await?;
        self.0.well.store(view.well, Ordering::Relaxed);
        Ok(view.status())
    }

    async fn blocks(&self, from: u64, max: usize) -> PortResult<Vec<LedgerBlock>> {
        let ask = Ask { bytes_max: BLOCKS_BYTES_MAX, ..Ask::new(format!("blocks?from={from}&max={max}")) };
        let found = self.0.ask(ask, wire::decode_blocks).await?;
        Ok(found.unwrap_or_default())
    }

    async fn block_of(&self, index: LeafIndex) -> PortResult<Option<BlockRef>> {
        let found: Option<BlockRefView> = self.json(Ask::existing(format!("entries/{}/block", index.0))).await?;
        Ok(found.map(Into::into))
    }

    async fn entry(&self, index: LeafIndex) -> PortResult<Option<Vec<u8>>> {
        self.0.ask(Ask::existing(format!("entries/{}", index.0)), |bytes| Ok(bytes.to_vec())).await
    }

    async fn receipt(&self, index: LeafIndex) -> PortResult<Option<LedgerReceipt>> {
        let ask = Ask::existing(format!("entries/{}/receipt", index.0));
        self.0.ask(ask, |bytes| serde_json::from_slice::<ReceiptView>(bytes)?.try_into()).await
    }

    async fn find_digest(
        &self,
        algorithm: Algorithm,
        digest: &Hash32,
        from: LeafIndex,
        max: usize,
    ) -> PortResult<DigestHits> {
        let path = format!("digests/{}/{digest}?from={}&max={max}", algorithm.as_str(), from.0);
        Ok(self.present::<HitsView>(path).await?.into())
    }

    async fn find_entry(&self, id: &Hash32) -> PortResult<Option<LeafIndex>> {
        let found: Option<u64> = self.json(Ask::new(format!("ids/{id}"))).await?;
        Ok(found.map(LeafIndex))
    }

    async fn not_found_statement(&self, algorithm: Algorithm, digest: &Hash32) -> PortResult<String> {
        self.present(format!("digests/{}/{digest}/absence", algorithm.as_str())).await
    }

    async fn tile(&self, path: TilePath) -> PortResult<Option<Vec<u8>>> {
        self.0.ask(Ask::new(path.path()), |bytes| Ok(bytes.to_vec())).await
    }

    async fn policy(&self) -> PortResult<String> {
        self.present("policy".to_owned()).await
    }

    async fn policies(&self) -> PortResult<BTreeMap<u64, String>> {
        self.present("policies".to_owned()).await
    }

    fn origin(&self) -> String {
        self.0.genesis.origin.clone()
    }

    async fn statement_keys(&self) -> PortResult<Vec<String>> {
        let mut asked = JoinSet::new();
        for at in 0..self.0.urls.len() {
            let nodes = Arc::clone(&self.0);
            let read = |bytes: &[u8]| Ok(serde_json::from_slice(bytes)?);
            let ask = Ask { timeout: HEDGE_AFTER, ..Ask::new("statement-keys".to_owned()) };
            asked.spawn(async move { (at, nodes.ask_one::<Vec<String>>(at, &ask, read).await) });
        }
        let answers = asked.join_all().await;
        let mut known = self.0.statement_keys.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(answers.into_iter().filter_map(|(at, keys)| Some((at, keys.ok()??))));
        if known.is_empty() {
            return Err(PortError::Unavailable { port: PORT, reason: "no node tells its statement key".to_owned() });
        }
        Ok(known.values().flatten().cloned().collect())
    }

    async fn wait_beyond(&self, height: u64, timeout: Duration) -> PortResult<()> {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).min(WAIT_MS_MAX);
        let limit = Duration::from_millis(timeout_ms) + HEDGE_AFTER;
        let path = format!("wait?beyond={height}&timeout_ms={timeout_ms}");
        let ask = Ask { hedge_after: limit, timeout: limit + ANSWER_TIMEOUT, ..Ask::new(path) };
        self.0.ask::<()>(ask, |_| Ok(())).await.map(|_| ())
    }
}

/// What one node made of a submission.
enum Posted {
    Ended(Vec<EndedView>),
    Malformed(Vec<(usize, String)>),
    Full,
    Refused(String),
}

impl Nodes {
    async fn post(&self, at: usize, submission: Vec<u8>) -> anyhow::Result<Posted> {
        let url = format!("{}/internal/v1/submissions", self.urls[at]);
        let answer = self.http.post(url).body(submission).timeout(SUBMIT_TIMEOUT).send().await?;
        let status = answer.status();
        if status == StatusCode::OK {
            return Ok(Posted::Ended(serde_json::from_slice(&bounded(answer, ANSWER_BYTES_MAX).await?)?));
        }
        let refusal = refusal(answer).await;
        match status {
            StatusCode::SERVICE_UNAVAILABLE if refusal.full => Ok(Posted::Full),
            StatusCode::UNPROCESSABLE_ENTITY if !refusal.malformed.is_empty() => {
                Ok(Posted::Malformed(refusal.malformed))
            }
            StatusCode::UNPROCESSABLE_ENTITY | StatusCode::BAD_REQUEST => Ok(Posted::Refused(refusal.title)),
            status => bail!("{status}: {}", refusal.title),
        }
    }
}

impl RemoteWriter {
    /// Posts to all nodes and returns what the first that can say has said; the others go on.
    async fn post_to_all(&self, submission: &[u8]) -> PortResult<Posted> {
        let mut asked = JoinSet::new();
        for at in 0..self.nodes.urls.len() {
            let (nodes, submission) = (Arc::clone(&self.nodes), submission.to_vec());
            asked.spawn(async move { (at, nodes.post(at, submission).await) });
        }
        let (mut is_full, mut refused, mut away) = (false, Vec::new(), Vec::new());
        while let Some(answer) = asked.join_next().await {
            let (at, posted) = answer.map_err(|error| PortError::Broken { port: PORT, reason: error.to_string() })?;
            let url = &self.nodes.urls[at];
            match posted {
                Ok(posted @ (Posted::Ended(_) | Posted::Malformed(_))) => {
                    asked.detach_all();
                    return Ok(posted);
                }
                Ok(Posted::Full) => is_full = true,
                Ok(Posted::Refused(reason)) => refused.push(format!("{url}: {reason}")),
                Err(error) => away.push(format!("{url}: {error:#}")),
            }
        }
        if is_full {
            return Err(PortError::Full(PORT));
        }
        // One that is away may take it when it is back.
        let is_final = away.is_empty();
        refused.append(&mut away);
        let reason = refused.join("; ");
        Err(if is_final {
            PortError::Broken { port: PORT, reason }
        } else {
            PortError::Unavailable { port: PORT, reason }
        })
    }
}

#[async_trait]
impl LedgerWriter for RemoteWriter {
    fn chain(&self) -> Hash32 {
        self.nodes.chain
    }

    async fn submit(&self, operations: Vec<SignedOperation>) -> PortResult<Vec<SubmitResult>> {
        let count = operations.len();
        let submission = Submission::sign(&self.nodes.chain, &self.submitter, operations.clone()).encode();
        match self.post_to_all(&submission).await? {
            Posted::Ended(ended) => {
                let results: Option<Vec<SubmitResult>> = ended.into_iter().map(result).collect();
                let results = results.filter(|results| results.len() == count).context("not one outcome for each");
                results.map_err(|error| PortError::Unavailable { port: PORT, reason: error.to_string() })
            }
            Posted::Malformed(faults) => {
                let (results, sound) = without(operations, faults);
                let ended = if sound.is_empty() { Vec::new() } else { self.submit(sound).await? };
                merged(results, ended)
            }
            Posted::Full => Err(PortError::Full(PORT)),
            Posted::Refused(reason) => Err(PortError::Broken { port: PORT, reason }),
        }
    }
}

fn result(EndedView { request, index, code }: EndedView) -> Option<SubmitResult> {
    let result = match (index, code) {
        (Some(index), None) => Ok(index),
        (None, Some(code)) => Err(code),
        _ => return None,
    };
    Some(SubmitResult::Ended { request, result })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use actix_web::{App, HttpResponse, HttpServer, web};
    use ledger_core::{
        genesis::Network,
        member::{Member, MemberSet},
        operation::V1,
        outcome::RejectionCode,
        policy::Policy,
    };

    use super::*;

    /// What a node of these tests does with whatever it is asked.
    #[derive(Clone, Copy, Debug)]
    enum Does {
        Hang,
        /// Another network's node, or an older one.
        NotFound,
        Nothing,
        Answer(&'static str),
        Refuse(u16, &'static str),
        /// Nobody listens.
        Away,
    }

    fn node(does: Does) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        if matches!(does, Does::Away) {
            return url;
        }
        let answer = move || async move {
            let json = |status: u16, body: &'static str| {
                let status = actix_web::http::StatusCode::from_u16(status).unwrap();
                HttpResponse::build(status).content_type("application/json").body(body)
            };
            match does {
                Does::Hang => std::future::pending().await,
                Does::NotFound | Does::Away => HttpResponse::NotFound().finish(),
                Does::Nothing => HttpResponse::NoContent().finish(),
                Does::Answer(body) => json(200, body),
                Does::Refuse(status, body) => json(status, body),
            }
        };
        let server = HttpServer::new(move || App::new().default_service(web::to(answer)));
        tokio::spawn(server.workers(1).disable_signals().listen(listener).unwrap().run());
        url
    }

    fn reader<const N: usize>(nodes: [Does; N]) -> RemoteReader {
        let key = |seed: u8| Hash32(SigningKey::from_bytes(&[seed; 32]).verifying_key().to_bytes());
        let member = Member {
            cosigner_key: key(1),
            domain: "a.example".to_owned(),
            governance_key: key(2),
            log_key: key(3),
            submitter_keys: vec![key(4)],
            validator_key: key(5),
        };
        let genesis = Genesis {
            members: MemberSet::new(vec![member]).unwrap(),
            network: Network::Sandbox,
            origin: "a.example/log".to_owned(),
            policy: Policy::default(),
            time: 0,
            v: V1,
        };
        RemoteReader::new(&nodes.map(node), genesis).unwrap()
    }

    fn preferred(reader: &RemoteReader) -> usize {
        reader.0.preferred.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn whoever_answers_is_asked_from_then_on() {
        for first in [Does::Hang, Does::NotFound, Does::Away, Does::Refuse(503, "{}"), Does::Answer("no JSON")] {
            let reader = reader([first, Does::Answer("\"the policy\"")]);
            assert_eq!(reader.policy().await.unwrap(), "the policy", "{first:?}");
            assert_eq!(preferred(&reader), 1, "{first:?}");
        }
    }

    #[tokio::test]
    async fn what_exists_is_looked_for_at_all_nodes() {
        let behind = reader([Does::Nothing, Does::Answer("the entry")]);
        assert_eq!(behind.entry(LeafIndex(0)).await.unwrap().unwrap(), b"the entry");
        let missing = reader([Does::Nothing, Does::Away]);
        assert_eq!(missing.entry(LeafIndex(0)).await.unwrap(), None);
        // What may well not exist is believed to be nowhere.
        let unknown = reader([Does::Nothing, Does::Answer("7")]);
        assert_eq!(unknown.find_entry(&Hash32::ZERO).await.unwrap(), None);
    }

    #[tokio::test]
    async fn nodes_that_are_all_away_are_named() {
        let reader = reader([Does::Away, Does::NotFound]);
        let error = reader.status().await.unwrap_err();
        assert!(matches!(error, PortError::Unavailable { .. }));
        for url in &reader.0.urls {
            assert!(error.to_string().contains(url), "{error}");
        }
    }

    #[tokio::test]
    async fn statement_keys_of_nodes_that_are_away_are_remembered() {
        let reader = reader([Does::Answer("[\"one\"]"), Does::Away]);
        reader.0.statement_keys.lock().unwrap().insert(1, vec!["two".to_owned()]);
        assert_eq!(reader.statement_keys().await.unwrap(), ["one", "two"]);
    }

    async fn submitted<const N: usize>(nodes: [Does; N], count: u8) -> PortResult<Vec<SubmitResult>> {
        let writer = reader(nodes).writer(SigningKey::from_bytes(&[4; 32]));
        let operation = |number| SignedOperation { operation: vec![number], signatures: Vec::new() };
        writer.submit((0..count).map(operation).collect()).await
    }

    #[tokio::test]
    async fn one_node_that_takes_a_submission_is_enough() {
        const ENDED: &str = r#"[{"request":"0000000000000000000000000000000000000000000000000000000000000000","index":7},
            {"request":"0000000000000000000000000000000000000000000000000000000000000000","code":"tenant_unknown"}]"#;
        for other in [Does::Away, Does::Hang, Does::Refuse(503, r#"{"title":"full","status":503,"full":true}"#)] {
            let results = submitted([other, Does::Answer(ENDED)], 2).await.unwrap();
            let ended = |result| SubmitResult::Ended { request: Hash32::ZERO, result };
            assert_eq!(results, [ended(Ok(7)), ended(Err(RejectionCode::TenantUnknown))], "{other:?}");
        }
        // Not one outcome for each.
        let error = submitted([Does::Answer(ENDED)], 3).await.unwrap_err();
        assert!(matches!(error, PortError::Unavailable { .. }), "{error}");
    }

    #[tokio::test]
    async fn refusals_of_submissions_are_told_apart() {
        const FULL: Does = Does::Refuse(503, r#"{"title":"full","status":503,"full":true}"#);
        const REFUSED: Does = Does::Refuse(422, r#"{"title":"not signed","status":422}"#);
        const MALFORMED: Does = Does::Refuse(422, r#"{"title":"1","status":422,"malformed":[[0,"too long"]]}"#);
        assert!(matches!(submitted([Does::Away, FULL], 1).await, Err(PortError::Full(_))));
        assert!(matches!(submitted([REFUSED, REFUSED], 1).await, Err(PortError::Broken { .. })));
        // The one that is away may take it when it is back.
        assert!(matches!(submitted([REFUSED, Does::Away], 1).await, Err(PortError::Unavailable { .. })));
        let results = submitted([MALFORMED], 1).await.unwrap();
        assert_eq!(results, [SubmitResult::Malformed("too long".to_owned())]);
    }
}
