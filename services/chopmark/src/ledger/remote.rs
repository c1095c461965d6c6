//! The ledger ports over nodes elsewhere, by their internal interfaces.
//!
//! Reads go to one node: every second the newest among the well ones is chosen. Whoever has no answer
//! soon asks the next one too and takes the first answer, so that a node that hangs costs a moment and
//! not a time limit. What a node says is believed here as what a database says: a committer checks every
//! block for itself before it projects it.
//!
//! Submissions go to all of them; operation ids make that safe. An outcome, which lets a committer forget
//! an operation, is believed when so many nodes say it that one of them is honest.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::bail;
use async_trait::async_trait;
use bytes::Bytes;
use chopmark_domain::ports::{
    BlockRef, DigestHits, LedgerBlock, LedgerReader, LedgerReceipt, LedgerStatus, LedgerWriter, PortError, PortResult,
    SubmitResult,
};
use ledger_core::{
    Hash32, SigningKey, batch::Submission, digests::Algorithm, genesis::Genesis, member::faults_tolerated,
    merkle::LeafIndex, operation::SignedOperation, tile::TilePath,
};
use reqwest::{Client, Response, StatusCode};
use serde::de::DeserializeOwned;
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

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
/// The same for blocks, of which an answer may have many MiB, over a slow way.
const BLOCKS_TIMEOUT: Duration = Duration::from_secs(60);
const BLOCKS_HEDGE_AFTER: Duration = Duration::from_secs(5);
/// Between two looks at which node is the best to read from.
const CHOICE_AGE: Duration = Duration::from_secs(1);
/// How long it may take to decide a submission; the committer gives up before that.
const SUBMIT_TIMEOUT: Duration = Duration::from_secs(70);
/// Time for nodes to take a submission whose outcomes are known: whoever proposes next may need it.
const STRAGGLER_TIMEOUT: Duration = Duration::from_secs(5);
/// Submissions under way to one node: more than a committer has under way, so that only those to a node
/// that hangs reach it.
const POSTS_MAX: usize = 32;

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
    /// The one to read from, by its place in `urls`.
    preferred: AtomicUsize,
    /// When all were last compared.
    chosen: Mutex<Option<Instant>>,
    /// Nodes that have to agree on an outcome.
    witnesses: usize,
    posts: Vec<Arc<Semaphore>>,
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
        let urls: Vec<String> = urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        // Whoever names fewer nodes than it takes trusts those that it names.
        let witnesses = urls.len().min(faults_tolerated(genesis.members.len()) + 1);
        // Gateways begin at different nodes.
        let first = usize::try_from(RandomState::new().build_hasher().finish() % 1024).unwrap_or_default();
        Ok(Self(Arc::new(Nodes {
            http: peering::http()?,
            preferred: AtomicUsize::new(first % urls.len()),
            chosen: Mutex::default(),
            witnesses,
            posts: urls.iter().map(|_| Arc::new(Semaphore::new(POSTS_MAX))).collect(),
            urls,
            chain: genesis.chain_id(),
            genesis,
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

impl Nodes {
    /// Asks all nodes how they stand, and reads from the best of those that answer soon from now on.
    async fn choose(self: &Arc<Self>) -> PortResult<StatusView> {
        let mut asked = JoinSet::new();
        for at in 0..self.urls.len() {
            let nodes = Arc::clone(self);
            asked.spawn(async move {
                let read = |bytes: &[u8]| Ok(serde_json::from_slice::<StatusView>(bytes)?);
                (at, nodes.ask_one(at, &Ask::new("status".to_owned()), read).await)
            });
        }
        let first = self.preferred.load(Ordering::Relaxed);
        let rank = |at: usize, view: &StatusView| (view.well, view.checkpoint_height, at == first);
        let deadline = tokio::time::Instant::now() + HEDGE_AFTER;
        let (mut best, mut reasons): (Option<(usize, StatusView)>, _) = (None, Vec::new());
        loop {
            let answer = if best.is_some() {
                let Ok(answer) = tokio::time::timeout_at(deadline, asked.join_next()).await else { break };
                answer
            } else {
                asked.join_next().await
            };
            match answer {
                Some(Ok((at, Ok(Some(view))))) => {
                    if best.as_ref().is_none_or(|(of, best)| rank(at, &view) > rank(*of, best)) {
                        best = Some((at, view));
                    }
                }
                Some(Ok((at, Ok(None)))) => reasons.push(format!("{}: an answer without content", self.urls[at])),
                Some(Ok((at, Err(error)))) => reasons.push(format!("{}: {error:#}", self.urls[at])),
                Some(Err(error)) => reasons.push(error.to_string()),
                None => break,
            }
        }
        let unavailable = || PortError::Unavailable { port: PORT, reason: reasons.join("; ") };
        let (at, view) = best.ok_or_else(unavailable)?;
        self.preferred.store(at, Ordering::Relaxed);
        *self.chosen.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        Ok(view)
    }

    fn is_chosen(&self) -> bool {
        let chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        chosen.is_some_and(|at| at.elapsed() < CHOICE_AGE)
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
        let view = if self.0.is_chosen() { self.present("status".to_owned()).await? } else { self.0.choose().await? };
        self.0.well.store(view.well, Ordering::Relaxed);
        Ok(view.status())
    }

    async fn blocks(&self, from: u64, max: usize) -> PortResult<Vec<LedgerBlock>> {
        let path = format!("blocks?from={from}&max={max}");
        let (hedge_after, timeout) = (BLOCKS_HEDGE_AFTER, BLOCKS_TIMEOUT);
        let ask = Ask { bytes_max: BLOCKS_BYTES_MAX, hedge_after, timeout, ..Ask::new(path) };
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
    /// Nothing more will be said of it.
    Settled(Verdict),
    Full,
    Refused(String),
}

/// What honest nodes agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// An outcome for each operation.
    Ended(Vec<SubmitResult>),
    /// Positions of operations that can never be part of a block; the others were not looked at. The
    /// reasons are for people and may differ.
    Malformed(Vec<usize>),
}

impl Nodes {
    async fn post(&self, at: usize, submission: Bytes, count: usize) -> anyhow::Result<(Posted, RefusalView)> {
        let Ok(_place) = self.posts[at].try_acquire() else {
            bail!("{POSTS_MAX} submissions wait there already");
        };
        let url = format!("{}/internal/v1/submissions", self.urls[at]);
        let answer = self.http.post(url).body(submission).timeout(SUBMIT_TIMEOUT).send().await?;
        let status = answer.status();
        if status == StatusCode::OK {
            let ended: Vec<EndedView> = serde_json::from_slice(&bounded(answer, ANSWER_BYTES_MAX).await?)?;
            let results: Option<Vec<SubmitResult>> = ended.into_iter().map(result).collect();
            let Some(results) = results.filter(|results| results.len() == count) else {
                bail!("not one outcome for each operation");
            };
            return Ok((Posted::Settled(Verdict::Ended(results)), RefusalView::default()));
        }
        let refusal = refusal(answer).await;
        let posted = match status {
            StatusCode::SERVICE_UNAVAILABLE if refusal.full => Posted::Full,
            StatusCode::UNPROCESSABLE_ENTITY if !refusal.malformed.is_empty() => {
                let mut places: Vec<usize> = refusal.malformed.iter().map(|(place, _)| *place).collect();
                places.sort_unstable();
                places.dedup();
                if places.last().is_some_and(|last| *last >= count) {
                    bail!("it finds fault with an operation that it was not sent");
                }
                Posted::Settled(Verdict::Malformed(places))
            }
            StatusCode::UNPROCESSABLE_ENTITY | StatusCode::BAD_REQUEST => Posted::Refused(refusal.title.clone()),
            status => bail!("{status}: {}", refusal.title),
        };
        Ok((posted, refusal))
    }
}

impl RemoteWriter {
    /// Posts to all nodes until so many say the same that one of them is honest; the others have a moment
    /// to take it too. With it come the reasons of the malformed, as the last of them gives them.
    async fn post_to_all(&self, submission: Bytes, count: usize) -> PortResult<(Verdict, Vec<(usize, String)>)> {
        let (mut asked, settled) = (JoinSet::new(), CancellationToken::new());
        for at in 0..self.nodes.urls.len() {
            let (nodes, submission, settled) = (Arc::clone(&self.nodes), submission.clone(), settled.clone());
            asked.spawn(async move {
                let too_late = async {
                    settled.cancelled().await;
                    tokio::time::sleep(STRAGGLER_TIMEOUT).await;
                };
                tokio::select! {
                    posted = nodes.post(at, submission, count) => (at, posted),
                    () = too_late => (at, Err(anyhow::anyhow!("too late"))),
                }
            });
        }
        let (mut is_full, mut refused, mut away) = (false, Vec::new(), Vec::new());
        let mut verdicts: Vec<(Verdict, usize)> = Vec::new();
        while let Some(answer) = asked.join_next().await {
            let (at, posted) = answer.map_err(|error| PortError::Broken { port: PORT, reason: error.to_string() })?;
            let url = &self.nodes.urls[at];
            match posted {
                Ok((Posted::Settled(verdict), refusal)) => {
                    let place = verdicts.iter().position(|(known, _)| *known == verdict);
                    let place = place.unwrap_or_else(|| {
                        verdicts.push((verdict, 0));
                        verdicts.len() - 1
                    });
                    verdicts[place].1 += 1;
                    if verdicts[place].1 >= self.nodes.witnesses {
                        settled.cancel();
                        asked.detach_all();
                        return Ok((verdicts.swap_remove(place).0, refusal.malformed));
                    }
                }
                Ok((Posted::Full, _)) => is_full = true,
                Ok((Posted::Refused(reason), _)) => refused.push(format!("{url}: {reason}")),
                Err(error) => away.push(format!("{url}: {error:#}")),
            }
        }
        if !verdicts.is_empty() {
            // Too few can say, or they contradict each other; said again later, more will.
            let (needed, said) = (self.nodes.witnesses, verdicts.iter().map(|(_, nodes)| nodes).max());
            refused.append(&mut away);
            let others = refused.join("; ");
            let reason = format!("{} nodes agree on an outcome and {needed} have to; {others}", said.unwrap_or(&0));
            return Err(PortError::Unavailable { port: PORT, reason });
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
        match self.post_to_all(submission.into(), count).await? {
            (Verdict::Ended(results), _) => Ok(results),
            (Verdict::Malformed(places), mut reasons) => {
                // At least one is taken out, so that this ends.
                reasons.retain(|(place, _)| places.contains(place));
                let (results, sound) = without(operations, reasons);
                let ended = if sound.is_empty() { Vec::new() } else { self.submit(sound).await? };
                merged(results, ended)
            }
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

    /// Some nodes of a network with so many members; the first is read from.
    fn reader_among<const N: usize>(members: u8, nodes: [Does; N]) -> RemoteReader {
        let key = |seed: u8| Hash32(SigningKey::from_bytes(&[seed; 32]).verifying_key().to_bytes());
        let member = |at: u8| Member {
            cosigner_key: key(8 * at + 1),
            domain: format!("{}.example", char::from(b'a' + at)),
            governance_key: key(8 * at + 2),
            log_key: key(8 * at + 3),
            submitter_keys: vec![key(8 * at + 4)],
            validator_key: key(8 * at + 5),
        };
        let genesis = Genesis {
            members: MemberSet::new((0..members).map(member).collect()).unwrap(),
            network: Network::Sandbox,
            origin: "a.example/log".to_owned(),
            policy: Policy::default(),
            time: 0,
            v: V1,
        };
        let reader = RemoteReader::new(&nodes.map(node), genesis).unwrap();
        reader.0.preferred.store(0, Ordering::Relaxed);
        reader
    }

    fn reader_of<const N: usize>(nodes: [Does; N]) -> RemoteReader {
        reader_among(1, nodes)
    }

    fn preferred(reader: &RemoteReader) -> usize {
        reader.0.preferred.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn whoever_answers_is_asked_from_then_on() {
        for first in [Does::Hang, Does::NotFound, Does::Away, Does::Refuse(503, "{}"), Does::Answer("no JSON")] {
            let reader = reader_of([first, Does::Answer("\"the policy\"")]);
            assert_eq!(reader.policy().await.unwrap(), "the policy", "{first:?}");
            assert_eq!(preferred(&reader), 1, "{first:?}");
        }
    }

    #[tokio::test]
    async fn what_exists_is_looked_for_at_all_nodes() {
        let behind = reader_of([Does::Nothing, Does::Answer("the entry")]);
        assert_eq!(behind.entry(LeafIndex(0)).await.unwrap().unwrap(), b"the entry");
        let missing = reader_of([Does::Nothing, Does::Away]);
        assert_eq!(missing.entry(LeafIndex(0)).await.unwrap(), None);
        // What may well not exist is believed to be nowhere.
        let unknown = reader_of([Does::Nothing, Does::Answer("7")]);
        assert_eq!(unknown.find_entry(&Hash32::ZERO).await.unwrap(), None);
    }

    #[tokio::test]
    async fn nodes_that_are_all_away_are_named() {
        let reader = reader_of([Does::Away, Does::NotFound]);
        let error = reader.status().await.unwrap_err();
        assert!(matches!(error, PortError::Unavailable { .. }));
        for url in &reader.0.urls {
            assert!(error.to_string().contains(url), "{error}");
        }
    }

    #[tokio::test]
    async fn statement_keys_of_nodes_that_are_away_are_remembered() {
        let reader = reader_of([Does::Answer("[\"one\"]"), Does::Away]);
        reader.0.statement_keys.lock().unwrap().insert(1, vec!["two".to_owned()]);
        assert_eq!(reader.statement_keys().await.unwrap(), ["one", "two"]);
    }

    async fn submitted<const N: usize>(members: u8, nodes: [Does; N], count: u8) -> PortResult<Vec<SubmitResult>> {
        let writer = reader_among(members, nodes).writer(SigningKey::from_bytes(&[4; 32]));
        let operation = |number| SignedOperation { operation: vec![number], signatures: Vec::new() };
        writer.submit((0..count).map(operation).collect()).await
    }

    const ENDED: Does = Does::Answer(
        r#"[{"request":"0000000000000000000000000000000000000000000000000000000000000000","index":7},
            {"request":"0000000000000000000000000000000000000000000000000000000000000000","code":"tenant_unknown"}]"#,
    );
    const LIE: Does = Does::Answer(
        r#"[{"request":"0000000000000000000000000000000000000000000000000000000000000000","index":8},
            {"request":"0000000000000000000000000000000000000000000000000000000000000000","code":"tenant_unknown"}]"#,
    );
    const FULL: Does = Does::Refuse(503, r#"{"title":"full","status":503,"full":true}"#);
    const REFUSED: Does = Does::Refuse(422, r#"{"title":"not signed","status":422}"#);
    const MALFORMED: Does = Does::Refuse(422, r#"{"title":"1","status":422,"malformed":[[0,"too long"]]}"#);

    #[tokio::test]
    async fn an_outcome_is_believed_when_an_honest_node_is_among_those_who_say_it() {
        let ended = |result| SubmitResult::Ended { request: Hash32::ZERO, result };
        let expected = [ended(Ok(7)), ended(Err(RejectionCode::TenantUnknown))];
        // Of four members one may lie; another may be away, hang, or be full.
        for other in [Does::Away, Does::Hang, FULL, MALFORMED, LIE] {
            for nodes in [[other, ENDED, ENDED, ENDED], [ENDED, other, Does::Away, ENDED]] {
                assert_eq!(submitted(4, nodes, 2).await.unwrap(), expected, "{other:?}");
            }
        }
        // One node's word is none, whatever it says.
        for said in [ENDED, LIE, MALFORMED] {
            for others in [Does::Away, REFUSED, FULL] {
                let error = submitted(4, [others, said, others, others], 2).await.unwrap_err();
                assert!(matches!(error, PortError::Unavailable { .. }), "{said:?} {others:?}: {error}");
            }
        }
        let error = submitted(4, [ENDED, LIE, Does::Away, Does::Away], 2).await.unwrap_err();
        assert!(matches!(error, PortError::Unavailable { .. }), "{error}");
        // Where one's own node is all that is named, it is trusted.
        assert_eq!(submitted(4, [ENDED], 2).await.unwrap(), expected);
        // Not one outcome for each.
        let error = submitted(4, [ENDED; 4], 3).await.unwrap_err();
        assert!(matches!(error, PortError::Unavailable { .. }), "{error}");
    }

    #[tokio::test]
    async fn refusals_of_submissions_are_told_apart() {
        assert!(matches!(submitted(4, [Does::Away, FULL], 1).await, Err(PortError::Full(_))));
        assert!(matches!(submitted(4, [REFUSED, REFUSED], 1).await, Err(PortError::Broken { .. })));
        // The one that is away may take it when it is back.
        assert!(matches!(submitted(4, [REFUSED, Does::Away], 1).await, Err(PortError::Unavailable { .. })));
        let results = submitted(4, [MALFORMED, Does::Hang, MALFORMED], 1).await.unwrap();
        assert_eq!(results, [SubmitResult::Malformed("too long".to_owned())]);
        // Of what was not sent nothing can be malformed; repeating it would never end.
        const BEYOND: Does = Does::Refuse(422, r#"{"title":"1","status":422,"malformed":[[1,"too long"]]}"#);
        assert!(matches!(submitted(4, [BEYOND, BEYOND], 1).await, Err(PortError::Unavailable { .. })));
    }

    #[tokio::test]
    async fn a_node_that_hangs_holds_so_many_submissions_and_no_more() {
        let writer = reader_among(1, [Does::Hang, ENDED]).writer(SigningKey::from_bytes(&[4; 32]));
        let operations = || (0_u8..2).map(|number| SignedOperation { operation: vec![number], signatures: Vec::new() });
        let mut submissions = JoinSet::new();
        for _ in 0..POSTS_MAX {
            let writer = writer.clone();
            submissions.spawn(async move { writer.submit(operations().collect()).await.unwrap() });
        }
        submissions.join_all().await;
        writer.submit(operations().collect()).await.unwrap();
        assert_eq!(writer.nodes.posts[0].available_permits(), 0);
        assert_eq!(writer.nodes.posts[1].available_permits(), POSTS_MAX);
    }

    #[tokio::test]
    async fn the_newest_well_node_is_read_from() {
        const OLD: Does = Does::Answer(
            r#"{"height":5,"checkpoint_height":5,"size":9,"root":"0000000000000000000000000000000000000000000000000000000000000000","checkpoint":"","well":true}"#,
        );
        const NEW: Does = Does::Answer(
            r#"{"height":9,"checkpoint_height":9,"size":9,"root":"0000000000000000000000000000000000000000000000000000000000000000","checkpoint":"","well":true}"#,
        );
        const SICK: Does = Does::Answer(
            r#"{"height":9,"checkpoint_height":9,"size":9,"root":"0000000000000000000000000000000000000000000000000000000000000000","checkpoint":"","well":false}"#,
        );
        for (nodes, best) in [
            ([OLD, OLD, NEW], 2),
            ([SICK, OLD, Does::Away], 1),
            ([OLD, OLD, Does::Hang], 0),
            ([Does::Hang, NEW, NEW], 1),
        ] {
            let reader = reader_of(nodes);
            reader.status().await.unwrap();
            assert!(preferred(&reader) == best || (best == 1 && preferred(&reader) == 2), "{nodes:?}");
        }
        assert!(!{
            let sick = reader_of([SICK]);
            sick.status().await.unwrap();
            sick.is_well()
        });
    }
}
