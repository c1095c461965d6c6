//! How a node finds the others: what its configuration says, and the cards of members that the
//! ledger names. It looks again all the time, so that members come and go without a restart.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use chopmark_node::{BlockSource, Followed, NodeHandle, Peer, Proposal, keys};
use ledger_core::{Hash32, block::Block, codec::Reader, member::Member};
use reqwest::Response;
use tokio::{runtime::Handle, sync::watch};
use tokio_util::sync::CancellationToken;

use super::{
    board::{Board, Notices},
    join::own_card,
};
use crate::member::NodeFile;

/// How often the others are asked for what is new.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long a node may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Whoever served something wrong is not asked for this long.
const BLAMED_FOR: Duration = Duration::from_secs(30);
const NOTICES_BYTES_MAX: usize = 4 << 20;
/// What one answer with blocks may have: a full block, and more small ones.
pub(crate) const BLOCKS_BYTES_MAX: usize = 16 << 20;
/// Where an answer with blocks ends, if it has one already.
pub(crate) const BLOCKS_BYTES: usize = 4 << 20;

/// A client for other members' nodes.
pub(crate) fn http() -> anyhow::Result<reqwest::Client> {
    // Fails only where a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().timeout(ANSWER_TIMEOUT).no_proxy();
    Ok(client.redirect(reqwest::redirect::Policy::none()).build()?)
}

/// Reads an answer that may not be larger.
pub(crate) async fn bounded(mut answer: Response, bytes_max: usize) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        ensure!(body.len() + chunk.len() <= bytes_max, "an answer of more than {bytes_max} bytes");
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Where the others serve readers, shared with whoever asks them.
pub(crate) type Urls = Arc<Mutex<Vec<String>>>;

/// The others as this node knows them.
pub(crate) struct Peering {
    pub(crate) node: NodeHandle,
    pub(crate) own: OwnCard,
    pub(crate) board: Arc<Board>,
    pub(crate) http: reqwest::Client,
    pub(crate) peers: watch::Sender<Vec<Peer>>,
    pub(crate) urls: Urls,
}

/// What this node's own card is made of.
pub(crate) struct OwnCard {
    /// Folder of the keys, with the governance key unless it is kept elsewhere.
    pub(crate) keys: PathBuf,
    pub(crate) network_key: Hash32,
    pub(crate) file: NodeFile,
}

/// Members that count now, have counted until the last change, or are about to.
pub(crate) fn known_members(node: &NodeHandle) -> anyhow::Result<Vec<Member>> {
    let pending = node.governance()?.pending;
    let sets = node.member_sets();
    // The latest record of a member comes first.
    let sets = pending.map(|pending| pending.members).into_iter().chain(sets.into_iter().rev().take(2));
    Ok(sets.flat_map(|set| set.iter().cloned().collect::<Vec<_>>()).collect())
}

impl Peering {
    /// Looks for others until it is to stop.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        // Its addresses may be others than before it was stopped.
        if let Err(error) = self.show_card(true).await {
            tracing::warn!(%error, "this node cannot sign a new card; the others know it by what they have");
        }
        while !stop.is_cancelled() {
            if let Err(error) = self.look().await {
                tracing::warn!(%error, "the other members' nodes could not be looked up");
            }
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Asks all others for cards and proposals, and takes over what holds.
    pub(crate) async fn look(&self) -> anyhow::Result<()> {
        self.meet().await?;
        let urls = self.urls.lock().map(|urls| urls.clone()).unwrap_or_default();
        let ask = |url: String| {
            let http = self.http.clone();
            async move { notices(&http, &url).await }
        };
        let mut asked: tokio::task::JoinSet<_> = urls.into_iter().map(ask).collect();
        while let Some(answer) = asked.join_next().await {
            if let Ok(Ok(notices)) = answer {
                let mut known = known_members(&self.node)?;
                // A member that is to be added vouches for itself by what the members are to approve.
                known.extend(self.candidates().await);
                self.board.take(notices, &known, &self.node.governance()?).await?;
            }
        }
        let known = known_members(&self.node)?;
        // The card of a member that comes in outlives the proposal that brought it.
        for card in self.board.notices().await.proposals.into_iter().filter_map(|proposal| proposal.card) {
            self.board.take_card(card, &known).await?;
        }
        self.board.drop_ended(&self.node.governance()?).await?;
        if let Err(error) = self.show_card(false).await {
            tracing::debug!(%error, "this node cannot sign a new card");
        }
        self.meet().await
    }

    /// Shows the others how this node is met, under the governance key that counts now. A member whose
    /// governance key is kept elsewhere goes on with the card that was made with it before.
    async fn show_card(&self, anew: bool) -> anyhow::Result<()> {
        let OwnCard { keys, network_key, file } = &self.own;
        let known = known_members(&self.node)?;
        let Some(own) = known.iter().find(|member| member.domain == file.node.domain) else { return Ok(()) };
        let chain = self.node.chain();
        let shown = self.board.notices().await.cards;
        if !anew && shown.iter().any(|card| card.is_of(&chain, own)) {
            return Ok(());
        }
        if let Some(key) = keys::find(keys, "governance", &[own.governance_key])? {
            let card = own_card(file, self.node.genesis(), *network_key).sign(&key);
            self.board.take_card(card, &known).await?;
        }
        Ok(())
    }

    async fn candidates(&self) -> Vec<Member> {
        let proposals = self.board.notices().await.proposals;
        proposals
            .iter()
            .filter_map(super::proposal::Proposal::members)
            .flat_map(|set| set.iter().cloned().collect::<Vec<_>>())
            .collect()
    }

    /// Lets in the nodes of members, by configuration or card, and asks everybody that is known.
    async fn meet(&self) -> anyhow::Result<()> {
        let Notices { cards, proposals } = self.board.notices().await;
        let proposed = proposals.into_iter().filter_map(|proposal| proposal.card);
        let mut known: BTreeMap<String, (Peer, String)> = BTreeMap::new();
        for card in proposed.chain(cards) {
            let peer = Peer { domain: card.domain.clone(), address: card.address, network_key: card.network_key };
            known.insert(card.domain, (peer, card.read_url));
        }
        for peer in &self.own.file.peers {
            known.insert(peer.domain.clone(), (peer.peer(), peer.read_url.clone()));
        }
        known.remove(&self.own.file.node.domain);
        let members: BTreeSet<String> = known_members(&self.node)?.into_iter().map(|member| member.domain).collect();
        let peers: Vec<Peer> =
            known.values().filter(|(peer, _)| members.contains(&peer.domain)).map(|(peer, _)| peer.clone()).collect();
        self.peers.send_if_modified(|before| {
            let changed = *before != peers;
            *before = peers;
            changed
        });
        let mut urls: Vec<String> = known.into_values().map(|(_, url)| url).collect();
        urls.extend(self.own.file.node.sources.iter().cloned());
        urls.dedup();
        if let Ok(mut shared) = self.urls.lock() {
            *shared = urls;
        }
        Ok(())
    }
}

/// What another node's board has.
async fn notices(http: &reqwest::Client, url: &str) -> anyhow::Result<Notices> {
    let answer = http.get(format!("{url}/peer/v1/board")).send().await?.error_for_status()?;
    Ok(serde_json::from_slice(&bounded(answer, NOTICES_BYTES_MAX).await?)?)
}

/// Decided blocks from other nodes, over HTTP.
pub(crate) struct HttpSource {
    pub(crate) runtime: Handle,
    pub(crate) http: reqwest::Client,
    pub(crate) urls: Urls,
    /// Who was asked last, and who is not to be asked before a time.
    pub(crate) state: Mutex<SourceState>,
}

/// See [`HttpSource`].
#[derive(Default)]
pub(crate) struct SourceState {
    last: Option<String>,
    blamed: BTreeMap<String, Instant>,
}

impl BlockSource for HttpSource {
    fn blocks(&self, height: u64) -> Vec<Followed> {
        let mut urls = self.urls.lock().map(|urls| urls.clone()).unwrap_or_default();
        if let Ok(mut state) = self.state.lock() {
            state.blamed.retain(|_, until| *until > Instant::now());
            urls.retain(|url| !state.blamed.contains_key(url));
            // Whoever had something has more.
            let last = state.last.clone();
            urls.sort_by_key(|url| Some(url) != last.as_ref());
        }
        for url in urls {
            match self.runtime.block_on(blocks(&self.http, &url, height)) {
                Ok(blocks) if blocks.is_empty() => {}
                Ok(blocks) => {
                    if let Ok(mut state) = self.state.lock() {
                        state.last = Some(url);
                    }
                    return blocks;
                }
                Err(error) => tracing::debug!(url, %error, "blocks could not be fetched"),
            }
        }
        Vec::new()
    }

    fn blame(&self, reason: &str) {
        if let Ok(mut state) = self.state.lock()
            && let Some(url) = state.last.take()
        {
            tracing::warn!(url, reason, "what another node served does not hold; others are asked");
            metrics::counter!("chopmark_node_sources_blamed_total").increment(1);
            state.blamed.insert(url, Instant::now() + BLAMED_FOR);
        }
    }
}

async fn blocks(http: &reqwest::Client, url: &str, height: u64) -> anyhow::Result<Vec<Followed>> {
    let answer = http.get(format!("{url}/peer/v1/blocks/{height}")).send().await?.error_for_status()?;
    let body = bounded(answer, BLOCKS_BYTES_MAX).await?;
    let mut reader = Reader::new(&body);
    ensure!(reader.u8()? == 1, "an unknown version of blocks");
    let mut blocks = Vec::new();
    for _ in 0..reader.u32()? {
        let block = Block::decode(reader.bytes(body.len())?).context("a block")?;
        let note = std::str::from_utf8(reader.bytes(body.len())?)?.to_owned();
        let proposal = Proposal { header: block.header, batch: block.batch };
        let checkpoint = Some(note).filter(|note| !note.is_empty());
        blocks.push(Followed { proposal, certificate: block.certificate, checkpoint });
    }
    reader.end()?;
    Ok(blocks)
}
