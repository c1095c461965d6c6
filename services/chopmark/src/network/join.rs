//! `chopmark network join`: the folder of a new member, or of an observer, for a network that runs.
//! It believes nobody but the chain id: the genesis has to hash to it, and everything after the
//! genesis is checked by following.

use std::{fs, io::Write as _, net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail, ensure};
use chopmark_node::keys::{self, NodeKeys};
use ledger_core::{genesis::Genesis, member::is_domain, operation::V1};

use super::{
    card::{Invitation, PeerCard},
    peering,
};
use crate::{
    cli::NetworkJoinArgs,
    member::{MemberFolder, NodeFile, NodeSection, private_folder},
    output::{Out, Usage, shown},
    secrets, system,
};

/// A genesis is a member list and a policy: below the size of two entries.
const GENESIS_BYTES_MAX: usize = 64 << 10;

pub(crate) async fn join(args: &NetworkJoinArgs, out: &mut Out) -> anyhow::Result<ExitCode> {
    if !is_domain(&args.domain) {
        bail!(Usage(format!("--domain {}: not a lower-case DNS name with a dot", args.domain)));
    }
    if args.listen.port() == 0 || args.listen.port() > u16::MAX - 3 {
        bail!(Usage(format!("--listen {}: the port has to leave room for three more above it", args.listen)));
    }
    if args.folder.exists() {
        bail!("{} exists already: a node joins once, in a new folder", shown(&args.folder));
    }
    let guard = args.folder.with_extension("guard");
    if guard.exists() {
        bail!("{} exists already: it belongs to another node", shown(&guard));
    }
    let from: Vec<String> = args.from.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
    let genesis = fetch_genesis(&from, args).await?;
    let unfinished = MemberFolder(args.folder.with_extension("new"));
    if unfinished.0.exists() {
        fs::remove_dir_all(&unfinished.0).with_context(|| format!("remove {}", shown(&unfinished.0)))?;
    }
    private_folder(&unfinished.0)?;
    keys::generate(&unfinished.keys())?;
    let port = |above: u16| SocketAddr::new(args.listen.ip(), args.listen.port() + above);
    let name = guard.file_name().context("the folder has a name")?;
    let node = NodeSection {
        domain: args.domain.clone(),
        listen: args.listen,
        read: port(1),
        internal: port(2),
        metrics: port(3),
        guard: PathBuf::from("..").join(name),
        advertised: None,
        read_url: args.read_url.clone(),
        sources: from,
        observer: args.observer,
    };
    let file = NodeFile { node, faults: None, peers: Vec::new() };
    secrets::write(&unfinished.config(), &toml::to_string(&file)?)?;
    let invitation = if args.observer { None } else { Some(invitation(&unfinished, &file, &genesis)?) };
    if let Some(invitation) = &invitation {
        let text = format!("{}\n", serde_json::to_string_pretty(invitation)?);
        secrets::write(&unfinished.invitation(), &text)?;
    }
    chopmark_node::init(&unfinished.node(), &guard, &genesis)?;
    fs::rename(&unfinished.0, &args.folder).context("name the folder")?;
    let folder = shown(&args.folder);
    writeln!(out, "{} of {} in {folder}", if args.observer { "observer" } else { "new member" }, genesis.origin)?;
    writeln!(out, "Run it:  chopmark node --data {folder}")?;
    if invitation.is_some() {
        writeln!(
            out,
            "Give {folder}/invitation.json to a member, over a channel that shows it comes from you. Once this node has \
             caught up, that member runs:  chopmark network propose add invitation.json --data DIR"
        )?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

async fn fetch_genesis(from: &[String], args: &NetworkJoinArgs) -> anyhow::Result<Genesis> {
    let http = peering::http()?;
    let mut failed = Vec::new();
    for url in from {
        let fetch = async {
            let answer = http.get(format!("{url}/peer/v1/genesis")).send().await?.error_for_status()?;
            let genesis = Genesis::parse(&peering::bounded(answer, GENESIS_BYTES_MAX).await?)?;
            let chain = genesis.chain_id();
            ensure!(chain == args.chain, "it serves the chain {chain}, not the one that was asked for");
            Ok(genesis)
        };
        match fetch.await {
            Ok(genesis) => return Ok(genesis),
            Err(error) => failed.push(format!("{url}: {error:#}")),
        }
    }
    bail!("no genesis of this chain: {}", failed.join("; "))
}

fn invitation(folder: &MemberFolder, file: &NodeFile, genesis: &Genesis) -> anyhow::Result<Invitation> {
    let member = keys::public_member(&folder.keys(), &file.node.domain)?;
    let network_key = NodeKeys::load(&folder.keys())?.network_key();
    let card = own_card(file, genesis, network_key);
    Ok(Invitation { card: card.sign(&keys::load(&folder.keys(), "governance")?), member, v: V1 })
}

/// How a node says that it is met; to be signed.
pub(crate) fn own_card(file: &NodeFile, genesis: &Genesis, network_key: ledger_core::Hash32) -> PeerCard {
    PeerCard {
        address: file.node.advertised.unwrap_or(file.node.listen),
        chain: genesis.chain_id(),
        domain: file.node.domain.clone(),
        network_key,
        read_url: file.node.read_url.clone().unwrap_or_else(|| format!("http://{}", file.node.read)),
        signature: String::new(),
        time: system::now_ms(),
        v: V1,
    }
}
