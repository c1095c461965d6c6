//! `chopmark network`: making a consortium, changing it, and watching it.

pub(crate) mod board;
pub(crate) mod card;
pub(crate) mod join;
pub(crate) mod peering;
pub(crate) mod proposal;
pub(crate) mod propose;
pub(crate) mod routes;
mod snapshot;
mod witness;

use std::{collections::BTreeMap, fmt, io::Write as _, net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};
use chopmark_node::{
    LastCosignature, Layout,
    clocks::is_off,
    equivocations,
    keys::{self, NodeKeys},
};
use ledger_core::{
    Hash32,
    genesis::{Genesis, Network},
    member::{MEMBERS_MAX, MemberSet, faults_tolerated, is_domain},
    operation::V1,
    policy::Policy,
};
use serde::{Deserialize, Serialize};

use crate::{
    cli::{NetworkCommand, NetworkEvidenceArgs, NetworkInitArgs, NetworkStatusArgs},
    member::{MemberFolder, NodeFile, NodeSection, PeerSection},
    output::{Out, Usage, plain, shown},
    secrets, system,
    unfinished::{Unfinished, private_folder},
};

/// What a node says of its network: members, and every policy so far.
const NETWORK_BYTES_MAX: usize = 4 << 20;
/// Blocks that a node may be behind without a warning: what is decided while it is asked, and more.
pub(crate) const LAG_MAX: u64 = 10;
/// How long a member may cosign nothing while others do: a slow one is behind by a second or two.
const MISSING_MS_MAX: u64 = 10_000;

pub(crate) async fn run(command: NetworkCommand, out: &mut Out) -> anyhow::Result<ExitCode> {
    match command {
        NetworkCommand::Init(args) => init(&args, out).map(|()| ExitCode::SUCCESS),
        NetworkCommand::Status(args) => status(&args, out).await,
        NetworkCommand::Evidence(args) => evidence(&args, out),
        NetworkCommand::Propose(args) => propose::propose(&args, out).await,
        NetworkCommand::Approve(args) => propose::approve(&args, out).await,
        NetworkCommand::Proposals(args) => propose::proposals(&args, out).await,
        NetworkCommand::Join(args) => join::join(&args, out).await,
        NetworkCommand::Snapshot(args) => snapshot::snapshot(&args, out).await,
        NetworkCommand::Restore(args) => snapshot::restore(&args, out).await,
    }
}

/// `DOMAIN=IP:PORT`: the node's address for members; the next three ports are for readers, for the
/// member's own committers, and for metrics.
struct NewMember {
    domain: String,
    listen: SocketAddr,
}

impl NewMember {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let refused = |why: &str| Usage(format!("--member {text}: {why}"));
        let (domain, address) = text.split_once('=').ok_or_else(|| refused("give DOMAIN=IP:PORT"))?;
        if !is_domain(domain) {
            return Err(refused("the domain is not a lower-case DNS name with a dot").into());
        }
        let listen: SocketAddr = address.parse().map_err(|_| refused("the address is not IP:PORT"))?;
        if listen.ip().is_unspecified() {
            return Err(refused("nobody can dial that address").into());
        }
        if listen.port() == 0 || listen.port() > u16::MAX - 3 {
            return Err(refused("the port has to leave room for three more above it").into());
        }
        Ok(Self { domain: domain.to_owned(), listen })
    }

    fn address(&self, above: u16) -> SocketAddr {
        SocketAddr::new(self.listen.ip(), self.listen.port() + above)
    }

    /// Where its node listens, and for whom.
    fn addresses(&self) -> [(&'static str, SocketAddr); 4] {
        [
            ("members", self.address(0)),
            ("readers", self.address(1)),
            ("committers", self.address(2)),
            ("metrics", self.address(3)),
        ]
    }
}

/// Refuses two nodes on one address: the second of them would not start.
fn refuse_shared_addresses(members: &[NewMember]) -> Result<(), Usage> {
    let listeners = members.iter().flat_map(|member| member.addresses().map(|(whom, at)| (at, &member.domain, whom)));
    let mut taken = BTreeMap::new();
    for (address, domain, whom) in listeners {
        if let Some((other, purpose)) = taken.insert(address, (domain, whom)) {
            return Err(Usage(format!(
                "--member {domain}: {address} would be its address for {whom}, and is that of {other} for {purpose}: \
                 each member takes four ports"
            )));
        }
    }
    Ok(())
}

/// One folder for each member, with its keys, the genesis and its configuration.
fn init(args: &NetworkInitArgs, out: &mut Out) -> anyhow::Result<()> {
    let mut members = args.members.iter().map(|text| NewMember::parse(text)).collect::<Result<Vec<_>, _>>()?;
    members.sort_by(|a, b| a.domain.cmp(&b.domain));
    if let Some(pair) = members.windows(2).find(|pair| pair[0].domain == pair[1].domain) {
        bail!(Usage(format!("--member {} stands twice", pair[0].domain)));
    }
    if members.len() > MEMBERS_MAX {
        bail!(Usage(format!("--member: {} of them, and a network has at most {MEMBERS_MAX}", members.len())));
    }
    refuse_shared_addresses(&members)?;
    if args.folder.exists() {
        bail!("{} exists already: a network is made once, in a new folder", args.folder.display());
    }
    let unfinished = Unfinished::folder(&args.folder)?;
    let folders: Vec<MemberFolder> =
        members.iter().map(|member| MemberFolder(unfinished.path().join(&member.domain))).collect();
    for folder in &folders {
        private_folder(&folder.0)?;
        keys::generate(&folder.keys())?;
    }
    let public = |(folder, member): (&MemberFolder, &NewMember)| keys::public_member(&folder.keys(), &member.domain);
    let set = folders.iter().zip(&members).map(public).collect::<Result<Vec<_>, _>>()?;
    let genesis = Genesis {
        members: MemberSet::new(set)?,
        network: if args.live { Network::Live } else { Network::Sandbox },
        origin: format!("{}/log", args.domain),
        policy: Policy::default(),
        time: system::now_ms(),
        v: V1,
    };
    // Reads its own writing: an origin or a set that no node would take is refused here.
    Genesis::parse(&genesis.encode())?;
    let peers = folders.iter().zip(&members).map(|(folder, member)| {
        Ok(PeerSection {
            domain: member.domain.clone(),
            address: member.listen,
            network_key: NodeKeys::load(&folder.keys())?.network_key(),
            read_url: format!("http://{}", member.address(1)),
        })
    });
    let peers = peers.collect::<anyhow::Result<Vec<_>>>()?;
    for (folder, member) in folders.iter().zip(&members) {
        let file = NodeFile {
            node: NodeSection {
                domain: member.domain.clone(),
                listen: member.listen,
                read: member.address(1),
                internal: member.address(2),
                metrics: member.address(3),
                guard: PathBuf::from("..").join(format!("{}.guard", member.domain)),
                advertised: None,
                read_url: None,
                sources: Vec::new(),
                observer: false,
            },
            peers: peers.iter().filter(|peer| peer.domain != member.domain).cloned().collect(),
            faults: None,
        };
        secrets::write(&folder.config(), &toml::to_string(&file)?)?;
        let guard = unfinished.path().join(format!("{}.guard", member.domain));
        chopmark_node::init(&folder.node(), &guard, &genesis)?;
    }
    unfinished.finish()?;
    writeln!(out, "network {} ({}), chain {}", genesis.origin, genesis.network.as_str(), genesis.chain_id())?;
    let count = members.len();
    writeln!(out, "{count} members, {} make a quorum, {} may fail", genesis.members.quorum(), faults_tolerated(count))?;
    if faults_tolerated(count) == 0 {
        writeln!(out, "warning: with fewer than four members not one may fail")?;
    }
    writeln!(
        out,
        "Give each member its folder below {} and its guard file, over a channel that you trust, and keep no copy: \
         the folder holds that member's private keys",
        shown(&args.folder)
    )?;
    writeln!(out, "Run each one:  chopmark node --data {}/DOMAIN", shown(&args.folder))?;
    out.flush()?;
    Ok(())
}

/// Every equivocation that the node has kept, as it is in the file.
fn evidence(args: &NetworkEvidenceArgs, out: &mut Out) -> anyhow::Result<ExitCode> {
    let layout = Layout(MemberFolder(args.data.clone()).node());
    if !layout.genesis().exists() {
        bail!("{} is no member's folder: there is no node/genesis.json in it", shown(&args.data));
    }
    let found = equivocations::read(&layout.equivocations())?;
    for one in &found {
        writeln!(out, "{}", serde_json::to_string(one)?)?;
    }
    out.flush()?;
    Ok(if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// What `/internal/v1/status` of a node says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NodeStatus {
    pub(crate) v: u64,
    pub(crate) member: String,
    pub(crate) chain: Hash32,
    pub(crate) height: u64,
    /// Newest quorum checkpoint.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) size: Option<u64>,
    /// Domains of those whose cosignatures made its quorum, with the time of each in Unix seconds.
    #[serde(default)]
    pub(crate) cosigned: Vec<(String, u64)>,
    /// The last cosignature of every member that this node has seen.
    #[serde(default)]
    pub(crate) cosignatures: Vec<ShownCosignature>,
    pub(crate) members: Vec<String>,
    /// Domains and read URLs of the other nodes that this one knows.
    #[serde(default)]
    pub(crate) urls: Vec<(String, String)>,
    /// Whether it votes at the next height.
    pub(crate) votes: bool,
    /// Why it does not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) no_vote: Option<String>,
    pub(crate) pool_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) failure: Option<String>,
    /// This node's clock less the median of the others'.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) clock_offset_ms: Option<i64>,
    /// Parts of the stored data that are damaged and not healed yet.
    #[serde(default)]
    pub(crate) damaged: usize,
    pub(crate) equivocations: usize,
    /// Its clock, Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) time_ms: Option<u64>,
    /// Version of its program.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) version: Option<String>,
}

/// The last cosignature of a member, as its neighbour has seen it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ShownCosignature {
    pub(crate) member: String,
    /// Tree size.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) size: Option<u64>,
    /// Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) time: Option<u64>,
    /// For so long it has cosigned nothing, while a quorum went on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) missing_ms: Option<u64>,
}

impl From<LastCosignature> for ShownCosignature {
    fn from(LastCosignature { domain, last, missing_ms }: LastCosignature) -> Self {
        Self { member: domain, size: last.map(|(size, _)| size.0), time: last.map(|(_, time)| time), missing_ms }
    }
}

impl ShownCosignature {
    /// What to say of a member that does not cosign.
    fn warning(&self) -> Option<String> {
        let missing = self.missing_ms.filter(|missing| *missing >= MISSING_MS_MAX)? / 1000;
        let last = match self.size.zip(self.time) {
            Some((size, time)) => format!("its last is of size {size}, {}", ledger_core::verify::rfc3339_seconds(time)),
            None => "none of it has been seen".to_owned(),
        };
        Some(format!("{} does not cosign what the others have published for {missing} s: {last}", self.member))
    }
}

/// A line of the report.
#[derive(Default, Serialize)]
struct MemberLine {
    member: String,
    reachable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<u64>,
    /// Blocks behind the highest of the nodes that answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    lag: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    /// Tree size and Unix seconds of the last cosignature that this node has seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    cosigned_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_cosignature: Option<u64>,
}

/// Asks this member's node by its internal interface, and the others by what they serve to readers.
async fn status(args: &NetworkStatusArgs, out: &mut Out) -> anyhow::Result<ExitCode> {
    let folder = MemberFolder(args.data.clone());
    let file = folder.read()?;
    let http = peering::http()?;
    let own = own_status(&http, &file).await;
    let mut warnings = match &own {
        Ok(status) => own_warnings(&file, status),
        Err(error) => vec![format!("this node does not answer: {error:#}")],
    };
    let mut lines = vec![MemberLine {
        member: file.node.domain.clone(),
        reachable: own.is_ok(),
        height: own.as_ref().ok().map(|status| status.height),
        size: own.as_ref().ok().and_then(|status| status.size),
        ..MemberLine::default()
    }];
    for (member, read_url) in others(&file, own.as_ref().ok()) {
        let seen = match read_url {
            Some(url) => public_network(&http, &url).await,
            None => Err(anyhow::anyhow!("nobody has told this node its address")),
        };
        if let Err(error) = &seen {
            warnings.push(format!("{member} does not answer: {error:#}"));
        }
        let (height, size) = seen.ok().unzip();
        lines.push(MemberLine { member, reachable: height.is_some(), height, size, ..MemberLine::default() });
    }
    let tip = lines.iter().filter_map(|line| line.height).max().unwrap_or_default();
    let cosignatures = own.map(|status| status.cosignatures).unwrap_or_default();
    for line in &mut lines {
        let last = cosignatures.iter().find(|last| last.member == line.member);
        line.cosigned_size = last.and_then(|last| last.size);
        line.last_cosignature = last.and_then(|last| last.time);
        line.lag = line.height.map(|height| tip - height);
        if let Some(lag) = line.lag.filter(|lag| *lag > LAG_MAX) {
            warnings.push(format!("{} is {lag} blocks behind", line.member));
        }
    }
    if args.json {
        out.json(&serde_json::json!({ "v": 1, "members": lines, "warnings": warnings }))?;
    } else {
        for line in &lines {
            writeln!(out, "{line}")?;
        }
        for warning in &warnings {
            writeln!(out, "warning: {}", plain(warning))?;
        }
    }
    out.flush()?;
    Ok(if warnings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

impl fmt::Display for MemberLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let Self { member, height, lag, size, cosigned_size, last_cosignature, .. } = self;
        write!(f, "{member}  height {}  lag {}  size {}  ", number(*height), number(*lag), number(*size))?;
        match last_cosignature {
            Some(time) => {
                write!(f, "cosigned {} at {}", number(*cosigned_size), ledger_core::verify::rfc3339_seconds(*time))
            }
            None => write!(f, "cosigned -"),
        }
    }
}

/// Every other member with its read URL, if it is known.
fn others(file: &NodeFile, own: Option<&NodeStatus>) -> Vec<(String, Option<String>)> {
    let Some(status) = own else {
        return peering::known_urls(file, Vec::new()).into_iter().map(|(domain, url)| (domain, Some(url))).collect();
    };
    let url = |domain: &String| status.urls.iter().find(|(known, _)| known == domain).map(|(_, url)| url.clone());
    let others = status.members.iter().filter(|domain| **domain != file.node.domain);
    others.map(|domain| (domain.clone(), url(domain))).collect()
}

/// What is to be said of this node, and of what it has seen.
fn own_warnings(file: &NodeFile, status: &NodeStatus) -> Vec<String> {
    let mut warnings = Vec::new();
    if status.damaged > 0 {
        let warning = "parts of the stored data are damaged and not healed yet: see the log of this node";
        warnings.push(format!("{} {warning}", status.damaged));
    }
    warnings.extend(status.failure.iter().map(|failure| format!("this node has stopped: {failure}")));
    if let Some(offset) = status.clock_offset_ms.filter(|offset| is_off(*offset)) {
        let way = if offset > 0 { "ahead of" } else { "behind" };
        let off = offset.unsigned_abs();
        warnings.push(format!("this node's clock is {off} ms {way} the others': repair its time service"));
    }
    if status.equivocations > 0 {
        warnings.push(format!("{} equivocations were seen: chopmark network evidence", status.equivocations));
    }
    match &status.no_vote {
        // Late cosignatures reach members only.
        None => warnings.extend(status.cosignatures.iter().filter_map(ShownCosignature::warning)),
        Some(_) if file.node.observer && !status.members.contains(&file.node.domain) => {}
        Some(reason) => warnings.push(format!("this node does not vote: {reason}")),
    }
    warnings
}

pub(crate) async fn own_status(http: &reqwest::Client, file: &NodeFile) -> anyhow::Result<NodeStatus> {
    Ok(status_at(http, &format!("http://{}", file.node.internal)).await?)
}

/// What the internal interface at `base`, which has no path, says of its node.
pub(crate) async fn status_at(http: &reqwest::Client, base: &str) -> reqwest::Result<NodeStatus> {
    let url = format!("{}/internal/v1/status", base.trim_end_matches('/'));
    http.get(url).send().await?.error_for_status()?.json().await
}

/// Height and size that a member serves to readers.
async fn public_network(http: &reqwest::Client, read_url: &str) -> anyhow::Result<(u64, u64)> {
    let answer = http.get(format!("{read_url}/v1/network")).send().await?.error_for_status()?;
    let body: serde_json::Value = serde_json::from_slice(&peering::bounded(answer, NETWORK_BYTES_MAX).await?)?;
    let number = |pointer: &str| body.pointer(pointer).and_then(serde_json::Value::as_u64);
    let height = number("/height").context("it does not name a height")?;
    Ok((height, number("/checkpoint/size").context("it does not name a size")?))
}
