//! The addresses that the role listens on: free, or its own already.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
};

use super::{Fault, Findings};
use crate::{
    cli::DoctorRole,
    config::Configured,
    network::peering::{self, bounded},
};

/// What a role says of its health is a line.
const HEALTH_BYTES_MAX: usize = 4096;

pub(super) async fn look(configured: &Configured, role: DoctorRole) -> Findings {
    let mut findings = Findings::default();
    let listeners = listeners(configured, role);
    if let [(_, first), (key, second)] = &*listeners
        && first == second
    {
        findings.add(Fault::ListenerShared, key, format!("{second} twice"));
        return findings;
    }
    for (key, address) in listeners {
        match TcpListener::bind(address) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if !is_ours(address).await {
                    let detail = format!("{address} is taken, and not by a role of this program");
                    findings.add(Fault::ListenerTaken, key, detail);
                }
            }
            Err(error) => findings.add(Fault::ListenerUnusable, key, format!("{address}: {error}")),
        }
    }
    findings
}

fn listeners(configured: &Configured, role: DoctorRole) -> Vec<(&'static str, SocketAddr)> {
    let config = &configured.config;
    match role {
        DoctorRole::Gateway => {
            let both = config
                .gateway
                .iter()
                .flat_map(|section| [("gateway.listen", section.listen), ("gateway.internal", section.internal)]);
            both.collect()
        }
        DoctorRole::Committer => {
            config.committer.iter().map(|section| ("committer.internal", section.internal)).collect()
        }
        DoctorRole::Courier => config.courier.iter().map(|section| ("courier.internal", section.internal)).collect(),
        DoctorRole::Admin => Vec::new(),
    }
}

/// Whether whoever listens says that it is well, as our roles do.
async fn is_ours(mut address: SocketAddr) -> bool {
    match address {
        SocketAddr::V4(at) if at.ip().is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        SocketAddr::V6(at) if at.ip().is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    let Ok(http) = peering::http() else { return false };
    let Ok(answer) = http.get(format!("http://{address}/health/live")).send().await else { return false };
    let Ok(body) = bounded(answer, HEALTH_BYTES_MAX).await else { return false };
    serde_json::from_slice::<serde_json::Value>(&body).is_ok_and(|body| body["status"] == "ok")
}
