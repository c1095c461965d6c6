//! `chopmark dev`: every role in one process over embedded adapters. The roles, ports and
//! formats are those of production; only the wiring is smaller.

use std::{
    io::Write as _,
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use chopmark_cache::{MemoryCache, MemoryQuotas};
use chopmark_committer::{ProjectConfig, ProjectLoop, SubmitConfig, SubmitLoop, SubmitPorts};
use chopmark_courier::egress::Egress;
use chopmark_domain::{
    Ports, Services, Settings, auth::ApiKey, endpoints::WebhookPorts, id::IdIssuer, ports::TenantStore as _,
    seal::KeyEncryptionKey,
};
use chopmark_gateway::{Gateway, GatewayConfig, ObjectOriginals};
use chopmark_node::{
    LocalPeer, NetworkConfig, Node, NodeConfig, NodeError, NodeHandle, POOL_BYTES_MAX, Peer, PeerTiles,
    keys::{self, NodeKeys},
};
use chopmark_queue::EmbeddedQueue;
use chopmark_store::SqliteStore;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    cli::DevArgs,
    committer::{self, Loops},
    config::WebhooksSection,
    courier::{self, Urls},
    ledger::{EmbeddedLedger, NodeReader},
    output::Out,
    place::{API_KEYS, IDS, KEK, MemberPlace, ORIGIN, Place},
    reader, secrets,
    signals::Signals,
    system::{self, System},
    telemetry, tenants,
};

/// The tenant of an embedded network.
const TENANT: &str = "ten_dev";
const NETWORK: &str = "sandbox";
/// How long a quorum of the members may take to meet for the first time.
const QUORUM_TIMEOUT: Duration = Duration::from_secs(60);
/// Ports tried after the one asked for.
const PORTS_TRIED: u16 = 100;

/// `dev.json`: what a script or a test needs to talk to a running `chopmark dev`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DevFile {
    pub(crate) v: u64,
    pub(crate) base_url: String,
    pub(crate) admin_url: String,
    pub(crate) metrics_url: String,
    pub(crate) api_key: String,
    pub(crate) tenant: String,
    pub(crate) network: String,
    pub(crate) origin: String,
    pub(crate) policy_path: PathBuf,
    pub(crate) data_dir: PathBuf,
    pub(crate) guard_path: PathBuf,
    pub(crate) pid: u32,
    pub(crate) nodes: Vec<DevNode>,
}

/// A member's node of a [`DevFile`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DevNode {
    pub(crate) member: String,
    pub(crate) read_url: String,
}

/// Runs until a signal or a fault stops it.
pub(crate) async fn run(args: DevArgs) -> anyhow::Result<ExitCode> {
    telemetry::start_logs(args.log_format)?;
    let metrics = telemetry::start_metrics("dev")?;
    let place = Place::new(&args.data, args.guard.as_deref())?;
    let metrics = metrics.with_folders(vec![place.data.clone()]);
    let random = Arc::new(System);
    place.make(random.as_ref(), args.members)?;
    let members = place.members(args.members);
    let nodes = open_nodes(&place, &members, args.listen.ip()).await?;
    let handles: Vec<NodeHandle> = nodes.iter().map(Node::handle).collect();
    let node = handles.first().context("a network has a member")?.clone();
    let submitter = keys::load(&place.keys(), "submitter")?;
    let ledger = Arc::new(EmbeddedLedger::new(handles.clone(), submitter)?);
    let store = Arc::new(SqliteStore::open(&format!("sqlite:{}", place.database().display())).await?);
    wait_for_quorum(&node).await?;
    // The tenant is in the database before the ledger has an entry of anybody.
    let born = ledger_core::entry::genesis_entries(node.genesis()).len() as u64;
    if node.published()?.size.0 > born && store.tenant(NETWORK, TENANT).await?.is_none() {
        bail!(
            "{} is empty, and the ledger is not: restore the database from a backup. It held the secret of the \
             tenant, without which a repeated request would be notarized twice, and the private part of every record",
            place.database().display()
        );
    }
    let queue = EmbeddedQueue::open(place.queue(), chopmark_queue::Config::new(NETWORK))?;

    let kek = KeyEncryptionKey::new(secrets::load(&place.secret(KEK))?);
    let ids = IdIssuer::new(secrets::load(&place.secret(IDS))?, NETWORK);
    let hashing_key = secrets::load(&place.secret(API_KEYS))?;
    // All members of an embedded network are this process, so all of them approve.
    let governance = members.iter().map(|member| keys::load(&member.keys, "governance"));
    let governance = governance.collect::<Result<Vec<_>, _>>()?;
    // The database first: once the ledger has a block, a database without tenant is a lost one.
    tenants::insert(store.as_ref(), &kek, random.as_ref(), TENANT, NETWORK, system::now_ms()).await?;
    tenants::register(ledger.as_ref(), node.height(), &governance, TENANT).await?;
    let key = load_or_draw_api_key(&place)?;
    tenants::ensure_key(store.as_ref(), &key, &hashing_key, TENANT, system::now_ms()).await?;

    let stop = CancellationToken::new();
    let reader = Arc::new(NodeReader::new(node.clone()));
    let mut loops = start_committer(&reader, &node, &ledger, &store, &queue, &stop)?;
    // Whoever tries webhooks out has a receiver on this machine.
    let own_machine = WebhooksSection::allowing(vec![
        IpNet::new_assert(IpAddr::from([127, 0, 0, 0]), 8),
        IpNet::new_assert(IpAddr::from(Ipv6Addr::LOCALHOST), 128),
    ]);
    let courier = courier::courier(store.clone(), (ids.clone(), kek.clone()), NETWORK, &own_machine, Vec::new())?;
    courier::start(&mut loops, courier, &stop);
    let ports = Ports {
        queue: Arc::new(queue.clone()),
        cache: Arc::new(MemoryCache::default()),
        quotas: Arc::new(MemoryQuotas::default()),
        store: store.clone(),
        projection: store.clone(),
        tenants: store.clone(),
        ledger: reader,
        clock: random.clone(),
        random: random.clone(),
        webhooks: WebhookPorts {
            store: store.clone(),
            urls: Arc::new(Urls(Egress::new(own_machine.allowed_networks.clone()))),
        },
        originals: Some(Arc::new(ObjectOriginals::in_folder(&place.originals(), random.clone())?)),
    };
    let services = Arc::new(Services::new(ports, Settings::new(NETWORK, node.chain(), ids, kek, hashing_key)));
    let public = listen(args.listen)?;
    let internal = listen(args.metrics_listen)?;
    let mut read_urls = vec![url(&public)?];
    let mut readers = Vec::new();
    for handle in handles.iter().skip(1) {
        let listener = TcpListener::bind((args.listen.ip(), 0)).context("listen for readers of a member's node")?;
        read_urls.push(url(&listener)?);
        let internal = TcpListener::bind((args.listen.ip(), 0)).context("listen for a member's metrics")?;
        readers.push(reader::serve(handle, None, NETWORK, (listener, internal), metrics.clone())?);
    }
    let file = DevFile {
        v: 1,
        base_url: url(&public)?,
        admin_url: url(&internal)?,
        metrics_url: url(&internal)?,
        api_key: key.reveal().to_owned(),
        tenant: TENANT.to_owned(),
        network: NETWORK.to_owned(),
        origin: ORIGIN.to_owned(),
        policy_path: place.policy(),
        data_dir: place.data.clone(),
        guard_path: place.guard.clone(),
        pid: std::process::id(),
        nodes: members
            .iter()
            .zip(read_urls)
            .map(|(member, read_url)| DevNode { member: member.domain.to_owned(), read_url })
            .collect(),
    };
    // Before anybody is told that it is ready: who reads that may stop it at once.
    let signals = Signals::listen()?;
    let gateway = Gateway::new(services, GatewayConfig::default(), move || metrics.render());
    let serving = gateway.serve(public, internal)?;
    let stopper = serving.stopper();
    let served = tokio::spawn(serving.run());
    std::fs::write(place.policy(), node.policy()?).context("write the policy")?;
    secrets::write(&place.dev_json(), &format!("{}\n", serde_json::to_string_pretty(&file)?))?;
    tracing::info!(base_url = file.base_url, "ready");
    greet(&file, &place, members.len())?;

    let ended = committer::wait_for_end(signals, &mut loops).await;
    // From here on nobody finds us; what was accepted is durable.
    let _gone = std::fs::remove_file(place.dev_json());
    stopper.stop().await;
    served.await??;
    for reader in readers {
        reader.stop().await?;
    }
    stop.cancel();
    while let Some(loop_ended) = loops.join_next().await {
        loop_ended??;
    }
    tokio::task::spawn_blocking(move || nodes.into_iter().for_each(Node::close)).await?;
    ended.map(|()| ExitCode::SUCCESS)
}

/// Opens the node of every member. Their addresses are drawn at each start: nobody outside this
/// process knows them.
async fn open_nodes(place: &Place, members: &[MemberPlace], ip: IpAddr) -> anyhow::Result<Vec<Node>> {
    let keys = members.iter().map(|member| NodeKeys::load(&member.keys)).collect::<Result<Vec<_>, _>>()?;
    let reserved = members.iter().map(|_| TcpListener::bind((ip, 0))).collect::<Result<Vec<_>, _>>();
    let reserved = reserved.context("reserve addresses for the members' nodes")?;
    let addresses = reserved.iter().map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>()?;
    drop(reserved);
    let peers: Vec<Peer> = addresses
        .iter()
        .zip(members.iter().zip(&keys))
        .map(|(address, (member, keys))| Peer {
            domain: member.domain.to_owned(),
            address: *address,
            network_key: keys.network_key(),
        })
        .collect();
    let local: Vec<Arc<LocalPeer>> =
        members.iter().map(|member| Arc::new(LocalPeer::new(member.domain.to_owned()))).collect();
    // All at once: one that lacks a tile at the start has it from another.
    let mut opening = Vec::with_capacity(members.len());
    for (at, ((member, keys), listen)) in members.iter().zip(keys).zip(addresses).enumerate() {
        let others: Vec<Peer> = peers.iter().filter(|peer| peer.address != listen).cloned().collect();
        let neighbours = local.iter().enumerate().filter(|(other, _)| *other != at);
        let peer_tiles = neighbours.map(|(_, peer)| Arc::clone(peer) as Arc<dyn PeerTiles>).collect();
        let config = NodeConfig {
            data: member.node.clone(),
            guard: member.guard.clone(),
            keys,
            domain: member.domain.to_owned(),
            clock: Arc::new(system::now_ms),
            pool_bytes_max: POOL_BYTES_MAX,
            network: NetworkConfig { listen, peers: others.into() },
            source: None,
            peer_tiles,
            stop: watch::Sender::new(false).subscribe(),
        };
        let own = Arc::clone(&local[at]);
        opening.push(tokio::task::spawn_blocking(move || {
            let node = Node::open(config)?;
            own.connect(&node.handle());
            Ok(node)
        }));
    }
    let mut nodes = Vec::with_capacity(members.len());
    for opening in opening {
        nodes.push(opened(place, opening.await?)?);
    }
    Ok(nodes)
}

fn opened(place: &Place, opened: Result<Node, NodeError>) -> anyhow::Result<Node> {
    opened.map_err(|error| match error {
        NodeError::Damaged(_) | NodeError::Diverged { .. } | NodeError::Log(_) => anyhow::anyhow!(
            "{error}. Nothing was repaired; `chopmark fsck {}` names what differs, and docs/runbooks/damage.md says \
             what can be made anew",
            place.data.display()
        ),
        error => error.into(),
    })
}

/// A new network has something to serve once a quorum has signed its first checkpoint.
async fn wait_for_quorum(node: &NodeHandle) -> anyhow::Result<()> {
    let give_up = Instant::now() + QUORUM_TIMEOUT;
    while let Err(error) = node.published() {
        if let Some(reason) = node.failure() {
            bail!("the node has stopped: {reason}");
        }
        if Instant::now() > give_up {
            return Err(error.into());
        }
        node.wait_published(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// What whoever started it needs next; the log goes to standard error.
fn greet(file: &DevFile, place: &Place, members: usize) -> anyhow::Result<()> {
    let mut out = Out::lock();
    writeln!(
        out,
        "Chopmark serves {} (sandbox, {}). The API key is in {}",
        file.base_url,
        if members == 1 { "one member".to_owned() } else { format!("{members} members") },
        place.dev_json().display()
    )?;
    writeln!(out, "Notarize a file:  chopmark submit FILE --dev {}", place.data.display())?;
    writeln!(out, "Verify it later:  chopmark verify FILE --policy {}", place.policy().display())?;
    out.flush()?;
    Ok(())
}

fn start_committer(
    reader: &Arc<NodeReader>,
    node: &NodeHandle,
    ledger: &Arc<EmbeddedLedger>,
    store: &Arc<SqliteStore>,
    queue: &EmbeddedQueue,
    stop: &CancellationToken,
) -> anyhow::Result<Loops> {
    let genesis = node.genesis().clone();
    let ports = SubmitPorts {
        consumer: Box::new(queue.consumer()?),
        store: store.clone(),
        ledger: ledger.clone(),
        clock: Arc::new(System),
    };
    let submit = SubmitLoop::new(ports, SubmitConfig::new(genesis.network));
    let project = ProjectLoop::new(reader.clone(), store.clone(), genesis, ProjectConfig::default());
    Ok(committer::start(submit, project, stop))
}

/// The API key of an embedded network: the same at every start, so that what a newcomer copied
/// into a terminal keeps working.
fn load_or_draw_api_key(place: &Place) -> anyhow::Result<ApiKey> {
    let path = place.secret("dev-api.key");
    if !path.exists() {
        let key = ApiKey::generate(NETWORK, &System)?;
        secrets::write(&path, key.reveal())?;
    }
    ApiKey::parse(secrets::read(&path)?.trim()).with_context(|| format!("{} holds no API key", path.display()))
}

/// Binds the address asked for, or the next free port after it.
fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    for step in 0..PORTS_TRIED {
        let Some(port) = address.port().checked_add(step) else { break };
        match TcpListener::bind(SocketAddr::new(address.ip(), port)) {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error).with_context(|| format!("listen on {address}")),
        }
    }
    bail!("no free port from {address} on; give another with --listen")
}

fn url(listener: &TcpListener) -> anyhow::Result<String> {
    Ok(format!("http://{}", listener.local_addr()?))
}
