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
use ledger_core::{Hash32, block::Block, codec::Reader, genesis::Genesis, member::Member};
use reqwest::Response;
use tokio::{runtime::Handle, sync::watch};
use tokio_util::sync::CancellationToken;

use super::{
    NETWORK_BYTES_MAX,
    board::{Board, Notices},
    card::PeerCard,
    join::own_card,
};
use crate::{member::NodeFile, system};

/// How often the others are asked for what is new.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long a node may take to be reached.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a node may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// How long it may take to send blocks: a full one over 1 Mbit/s.
pub(crate) const BLOCKS_TIMEOUT: Duration = Duration::from_secs(60);
/// Others that are asked for a block, at most, before this node looks after itself again.
const ASKED_MAX: usize = 3;
/// Looks in a row that found others ahead and this node where it was.
const LEFT_BEHIND_LOOKS: u32 = 4;
/// Whoever did not answer is not asked for this long.
const AWAY_FOR: Duration = Duration::from_secs(5);
/// Whoever served something wrong is not asked for this long.
const BLAMED_FOR: Duration = Duration::from_secs(30);
/// A genesis is a member list and a policy: below the size of two entries.
const GENESIS_BYTES_MAX: usize = 64 << 10;
const NOTICES_BYTES_MAX: usize = 4 << 20;
/// What one answer with blocks may have: a full block, and more small ones.
pub(crate) const BLOCKS_BYTES_MAX: usize = 16 << 20;
/// Where an answer with blocks ends, if it has one already.
pub(crate) const BLOCKS_BYTES: usize = 1 << 20;

/// A client for other members' nodes.
pub(crate) fn http() -> anyhow::Result<reqwest::Client> {
    // Fails only where a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).timeout(ANSWER_TIMEOUT).no_proxy();
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
    /// Held by whoever looks: nobody looks twice at a time, however often a node is asked.
    pub(crate) looking: tokio::sync::Mutex<Behind>,
}

/// What was seen of others that are ahead.
#[derive(Default)]
pub(crate) struct Behind {
    height: u64,
    looks: u32,
}

/// What this node's own card is made of.
pub(crate) struct OwnCard {
    /// Folder of the keys, with the governance key unless it is kept elsewhere.
    pub(crate) keys: PathBuf,
    pub(crate) file: NodeFile,
}

/// The other nodes with their read URLs, by domain. Of two cards of a member the later in the order counts.
fn known_nodes(file: &NodeFile, cards: impl IntoIterator<Item = PeerCard>) -> BTreeMap<String, (Peer, String)> {
    let mut known = BTreeMap::new();
    for card in cards {
        let peer = Peer { domain: card.domain.clone(), address: card.address, network_key: card.network_key };
        known.insert(card.domain, (peer, card.read_url));
    }
    for peer in &file.peers {
        // What the operator says of the way to a node counts, unless it is another node by now.
        if known.get(&peer.domain).is_some_and(|(shown, _)| shown.network_key != peer.network_key) {
            continue;
        }
        known.insert(peer.domain.clone(), (peer.peer(), peer.read_url.clone()));
    }
    known.remove(&file.node.domain);
    known
}

/// Domains and read URLs of the other nodes.
pub(crate) fn known_urls(file: &NodeFile, cards: impl IntoIterator<Item = PeerCard>) -> Vec<(String, String)> {
    known_nodes(file, cards).into_iter().map(|(domain, (_, url))| (domain, url)).collect()
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
        let looks = async {
            loop {
                self.look_up().await;
                tokio::time::sleep(INTERVAL).await;
            }
        };
        tokio::select! {
            ((), ()) = async { tokio::join!(self.ask_witnesses(), looks) } => {}
            () = stop.cancelled() => {}
        }
    }

    /// Asks all others for cards and proposals, and takes over what holds.
    pub(crate) async fn look_up(&self) {
        // Whoever comes meanwhile gets what this look finds.
        let mut behind = self.looking.lock().await;
        if let Err(error) = self.look(&mut behind).await {
            tracing::warn!(%error, "the other members' nodes could not be looked up");
        }
    }

    async fn look(&self, behind: &mut Behind) -> anyhow::Result<()> {
        self.meet().await?;
        let mut ahead = Vec::new();
        let urls = self.urls.lock().map(|urls| urls.clone()).unwrap_or_default();
        let ask = |url: String| {
            let http = self.http.clone();
            async move { (notices(&http, &url).await, url) }
        };
        let mut asked: tokio::task::JoinSet<_> = urls.into_iter().map(ask).collect();
        while let Some(answer) = asked.join_next().await {
            if let Ok((Ok(notices), url)) = answer {
                if notices.height > self.node.height() {
                    ahead.push(url);
                }
                self.board.take(notices, &known_members(&self.node)?, &self.node.governance()?).await?;
            }
        }
        self.compare(behind, ahead).await?;
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
        let OwnCard { keys, file } = &self.own;
        let known = known_members(&self.node)?;
        let Some(own) = known.iter().find(|member| member.domain == file.node.domain) else { return Ok(()) };
        let chain = self.node.chain();
        let shown = self.board.notices().await.cards;
        if !anew && shown.iter().any(|card| card.is_of(&chain, own)) {
            return Ok(());
        }
        if let Some(key) = keys::find(keys, "governance", &[own.governance_key])? {
            let network = keys::load(keys, "network")?;
            // Later than what was shown before, also after a clock that ran ahead was set right.
            let before = shown.iter().filter(|card| card.domain == own.domain).map(|card| card.time + 1).max();
            let time = system::now_ms().max(before.unwrap_or_default());
            let public = Hash32(network.verifying_key().to_bytes());
            let card = own_card(file, self.node.genesis(), public, time).sign(&key, &network);
            self.board.take_card(card, &known).await?;
        }
        Ok(())
    }

    /// Follows, where others have gone on again and again and this node has not: they do not let it in,
    /// as when it missed its own removal. That they have gone on shows by the next block.
    async fn compare(&self, behind: &mut Behind, ahead: Vec<String>) -> anyhow::Result<()> {
        let height = self.node.height();
        if ahead.is_empty() || height != behind.height {
            *behind = Behind { height, looks: 0 };
            return Ok(());
        }
        behind.looks += 1;
        if behind.looks < LEFT_BEHIND_LOOKS {
            return Ok(());
        }
        let governance = self.node.governance()?;
        let pending = governance.pending.filter(|pending| pending.effective == height + 1);
        let members = pending.map_or(governance.members, |pending| pending.members);
        for url in ahead {
            let next =
                blocks(&self.http, &url, height + 1, ANSWER_TIMEOUT).await.unwrap_or_default().into_iter().next();
            let decided = |next: &Followed| {
                next.certificate.verify(&self.node.chain(), height + 1, &next.proposal.header.hash(), &members).is_ok()
            };
            if next.as_ref().is_some_and(decided) {
                tracing::warn!(url, height, "the other members have gone on without this node: it follows them");
                self.node.left_behind();
                *behind = Behind::default();
                return Ok(());
            }
        }
        Ok(())
    }

    /// Lets in the nodes of members, by configuration or card, and asks everybody that is known.
    async fn meet(&self) -> anyhow::Result<()> {
        let Notices { cards, proposals, .. } = self.board.notices().await;
        let proposed = proposals.into_iter().filter_map(|proposal| proposal.card);
        let known = known_nodes(&self.own.file, proposed.chain(cards));
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
        urls.sort();
        urls.dedup();
        if let Ok(mut shared) = self.urls.lock() {
            *shared = urls;
        }
        Ok(())
    }
}

/// What another node's board has.
pub(super) async fn notices(http: &reqwest::Client, url: &str) -> anyhow::Result<Notices> {
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
    turn: usize,
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
            if !urls.is_empty() {
                let turn = state.turn % urls.len();
                urls.rotate_left(turn);
            }
            urls.sort_by_key(|url| Some(url) != last.as_ref());
        }
        for url in urls.into_iter().take(ASKED_MAX) {
            match self.runtime.block_on(blocks(&self.http, &url, height, BLOCKS_TIMEOUT)) {
                // Next time others are asked first.
                Ok(blocks) if blocks.is_empty() => {
                    if let Ok(mut state) = self.state.lock() {
                        state.turn = state.turn.wrapping_add(1);
                        state.last = None;
                    }
                }
                Ok(blocks) => {
                    if let Ok(mut state) = self.state.lock() {
                        state.last = Some(url);
                    }
                    return blocks;
                }
                Err(error) => {
                    tracing::debug!(url, %error, "blocks could not be fetched");
                    if let Ok(mut state) = self.state.lock() {
                        state.blamed.insert(url, Instant::now() + AWAY_FOR);
                    }
                }
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

async fn blocks(http: &reqwest::Client, url: &str, height: u64, timeout: Duration) -> anyhow::Result<Vec<Followed>> {
    let blocks = raw_blocks(http, url, height, timeout).await?.into_iter();
    blocks.map(|(block, checkpoint)| followed(&block, checkpoint)).collect()
}

/// Reads a block and the checkpoint beside it; an empty one is none.
pub(crate) fn followed(block: &[u8], checkpoint: String) -> anyhow::Result<Followed> {
    let block = Block::decode(block).context("a block")?;
    let proposal = Proposal { header: block.header, batch: block.batch };
    let checkpoint = Some(checkpoint).filter(|note| !note.is_empty());
    Ok(Followed { proposal, certificate: block.certificate, checkpoint })
}

/// Domains of the members in force, as another node says.
pub(crate) async fn members(http: &reqwest::Client, url: &str) -> anyhow::Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Named {
        name: String,
    }
    #[derive(serde::Deserialize)]
    struct Members {
        members: Vec<Named>,
    }
    let answer = http.get(format!("{url}/v1/network")).send().await?.error_for_status()?;
    let network: Members = serde_json::from_slice(&bounded(answer, NETWORK_BYTES_MAX).await?)?;
    Ok(network.members.into_iter().map(|member| member.name).collect())
}

/// A genesis as another node serves it.
pub(crate) async fn genesis(http: &reqwest::Client, url: &str) -> anyhow::Result<Genesis> {
    let answer = http.get(format!("{url}/peer/v1/genesis")).send().await;
    let answer = answer.map_err(reqwest::Error::without_url).with_context(|| format!("{url} does not answer"))?;
    let status = answer.status();
    ensure!(
        status.is_success(),
        "{url} has no genesis to give (HTTP {status}): name the read address of a node, not its internal or metrics one"
    );
    let genesis = Genesis::parse(&bounded(answer, GENESIS_BYTES_MAX).await?);
    genesis.with_context(|| format!("{url} serves something else than a genesis"))
}

/// Encoded blocks from a height on, each with its checkpoint, as another node serves them.
pub(crate) async fn raw_blocks(
    http: &reqwest::Client,
    url: &str,
    height: u64,
    timeout: Duration,
) -> anyhow::Result<Vec<(Vec<u8>, String)>> {
    let request = http.get(format!("{url}/peer/v1/blocks/{height}")).timeout(timeout);
    let answer = request.send().await?.error_for_status()?;
    let body = bounded(answer, BLOCKS_BYTES_MAX).await?;
    let mut reader = Reader::new(&body);
    ensure!(reader.u8()? == 1, "an unknown version of blocks");
    let mut blocks = Vec::new();
    for _ in 0..reader.u32()? {
        let block = reader.bytes(body.len())?.to_vec();
        blocks.push((block, std::str::from_utf8(reader.bytes(body.len())?)?.to_owned()));
    }
    reader.end()?;
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
    };

    use ledger_core::{
        SigningKey, codec::Writer, execute::execute_genesis, genesis::Network, member::MemberSet, operation::V1,
        policy::Policy, vote::Certificate,
    };

    use super::*;

    /// A node that always answers with these blocks.
    fn serve(blocks: &[Vec<u8>]) -> String {
        let mut writer = Writer::new();
        writer.u8(1).u32(u32::try_from(blocks.len()).unwrap());
        blocks.iter().for_each(|block| {
            writer.bytes(block).bytes(b"");
        });
        let body = writer.finish();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let _request = stream.read(&mut [0; 4096]).unwrap();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                stream.write_all(&[head.as_bytes(), &body].concat()).unwrap();
            }
        });
        format!("http://{address}")
    }

    fn block() -> Block {
        let public = |which: u8| Hash32(SigningKey::from_bytes(&[which; 32]).verifying_key().to_bytes());
        let member = Member {
            cosigner_key: public(1),
            domain: "court.test".to_owned(),
            governance_key: public(2),
            log_key: public(3),
            submitter_keys: vec![public(4)],
            validator_key: public(5),
        };
        let header = execute_genesis(&Genesis {
            members: MemberSet::new(vec![member]).unwrap(),
            network: Network::Sandbox,
            origin: "sandbox.test/log".to_owned(),
            policy: Policy::default(),
            time: 1,
            v: V1,
        })
        .header;
        let certificate = Certificate { height: 0, round: 0, signatures: Vec::new(), v: V1, value: header.hash() };
        Block { header, batch: vec![0; 4], verdicts: Vec::new(), certificate }
    }

    #[tokio::test]
    async fn nodes_without_news_do_not_keep_the_one_that_has_some_from_being_asked() {
        let nothing = (0..ASKED_MAX).map(|_| serve(&[]));
        let urls: Vec<String> = nothing.chain([serve(&[block().encode()])]).collect();
        let source = HttpSource {
            runtime: Handle::current(),
            http: http().unwrap(),
            urls: Arc::new(Mutex::new(urls.clone())),
            state: Mutex::default(),
        };
        let count = urls.len();
        let found = tokio::task::spawn_blocking(move || (0..count).map(|_| source.blocks(1).len()).collect::<Vec<_>>());
        let found = found.await.unwrap();
        assert_eq!(found[0], 0, "so many are asked at a time");
        assert!(found[1..].contains(&1), "{found:?}");
    }
}
