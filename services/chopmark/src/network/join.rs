//! `chopmark network join`: the folder of a new member, or of an observer, for a network that runs.
//! It believes nobody but the chain id: the genesis has to hash to it, and everything after the
//! genesis is checked by following.

use std::{io::Write as _, net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail, ensure};
use chopmark_node::keys;
use ledger_core::{Hash32, genesis::Genesis, operation::V1};

use super::{
    card::{Invitation, PeerCard, fingerprint},
    peering,
};
use crate::{
    cli::{NetworkJoinArgs, guard_beside},
    member::{MemberFolder, NodeFile, NodeSection},
    output::{Out, Usage, shown},
    secrets, system,
    unfinished::Unfinished,
};

pub(crate) async fn join(args: &NetworkJoinArgs, out: &mut Out) -> anyhow::Result<ExitCode> {
    if args.listen.port() == 0 || args.listen.port() > u16::MAX - 3 {
        bail!(Usage(format!("--listen {}: the port has to leave room for three more above it", args.listen)));
    }
    if args.folder.exists() {
        bail!("{} exists already: a node joins once, in a new folder", shown(&args.folder));
    }
    if args.listen.ip().is_unspecified() && args.advertised.is_none() && !args.observer {
        bail!(Usage(format!("--listen {}: nobody can dial it; give --advertised too", args.listen)));
    }
    let guard = guard_beside(&args.folder);
    let http = peering::http()?;
    let (genesis, url) = fetch_genesis(&http, args).await?;
    // What a node says of the members may be wrong, or missing: the vote that takes a member in is
    // what decides. This spares an honest mistake the way there.
    let members = peering::members(&http, url).await.unwrap_or_default();
    ensure!(
        !members.contains(&args.domain),
        "{} is a member in force already: restore a node whose data were lost, or choose another domain",
        args.domain
    );
    let unfinished = Unfinished::folder(&args.folder)?;
    let made = MemberFolder(unfinished.path().to_owned());
    keys::generate(&made.keys())?;
    let port = |above: u16| SocketAddr::new(args.listen.ip(), args.listen.port() + above);
    let name = guard.file_name().context("the folder has a name")?;
    let node = NodeSection {
        domain: args.domain.clone(),
        listen: args.listen,
        read: port(1),
        internal: port(2),
        metrics: port(3),
        guard: PathBuf::from("..").join(name),
        advertised: args.advertised,
        read_url: args.read_url.clone(),
        sources: args.from.clone(),
        observer: args.observer,
    };
    let file = NodeFile { node, faults: None, peers: Vec::new() };
    secrets::write(&made.config(), &toml::to_string(&file)?)?;
    let invitation = if args.observer { None } else { Some(invitation(&made, &file, &genesis)?) };
    if let Some(invitation) = &invitation {
        let text = format!("{}\n", serde_json::to_string_pretty(invitation)?);
        secrets::write(&made.invitation(), &text)?;
    }
    chopmark_node::init(&made.node(), &guard, &genesis)?;
    unfinished.finish()?;
    let folder = shown(&args.folder);
    writeln!(out, "{} of {} in {folder}", if args.observer { "observer" } else { "new member" }, genesis.origin)?;
    writeln!(out, "Run it:  chopmark node --data {folder}")?;
    if let Some(invitation) = &invitation {
        writeln!(out, "All keys of this member: {}", fingerprint(&invitation.member))?;
        writeln!(
            out,
            "Give {folder}/invitation.json to a member, over a channel that shows it comes from you. Once this node has \
             caught up, that member runs:  chopmark network propose add invitation.json --data DIR"
        )?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// The genesis of the chain that was asked for, and the URL of the node that has it.
async fn fetch_genesis<'a>(http: &reqwest::Client, args: &'a NetworkJoinArgs) -> anyhow::Result<(Genesis, &'a str)> {
    let mut failed = Vec::new();
    for url in &args.from {
        let fetch = async {
            let genesis = peering::genesis(http, url).await?;
            let chain = genesis.chain_id();
            ensure!(chain == args.chain, "{url} serves the chain {chain}, not the one that was asked for");
            Ok(genesis)
        };
        match fetch.await {
            Ok(genesis) => return Ok((genesis, url)),
            Err(error) => failed.push(format!("{error:#}")),
        }
    }
    bail!("no genesis of this chain: {}", failed.join("; "))
}

fn invitation(folder: &MemberFolder, file: &NodeFile, genesis: &Genesis) -> anyhow::Result<Invitation> {
    let member = keys::public_member(&folder.keys(), &file.node.domain)?;
    let network = keys::load(&folder.keys(), "network")?;
    let card = own_card(file, genesis, Hash32(network.verifying_key().to_bytes()), system::now_ms());
    Ok(Invitation { card: card.sign(&keys::load(&folder.keys(), "governance")?, &network), member, v: V1 })
}

/// How a node says that it is met; to be signed.
pub(crate) fn own_card(file: &NodeFile, genesis: &Genesis, network_key: Hash32, time: u64) -> PeerCard {
    PeerCard {
        address: file.node.advertised.unwrap_or(file.node.listen),
        chain: genesis.chain_id(),
        domain: file.node.domain.clone(),
        network_key,
        read_url: file.node.read_url.clone().unwrap_or_else(|| format!("http://{}", file.node.read)),
        possession: String::new(),
        signature: String::new(),
        time,
        v: V1,
    }
}
