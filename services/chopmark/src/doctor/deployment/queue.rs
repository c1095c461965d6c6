//! The cluster that gateways and committers meet in.

use chopmark_queue::{FlawKind, KafkaFault, KafkaSettings, kafka};
use ledger_core::genesis::{Genesis, Network};

use super::{Fault, Findings};
use crate::{cli::DoctorRole, config::Configured};

const ABOUT: &str = "kafka";

/// One broken disk and one restart at a time lose nothing from here on.
const REPLICAS_LIVE: u16 = 3;
const MIN_INSYNC_REPLICAS_LIVE: u16 = 2;

pub(super) async fn look(configured: &Configured, role: DoctorRole, genesis: Option<&Genesis>) -> Findings {
    let needs = matches!(role, DoctorRole::Gateway | DoctorRole::Committer);
    // Without a genesis nobody knows the names of the topics.
    let (true, Some(genesis), Ok(settings)) = (needs, genesis, configured.kafka()) else { return Findings::default() };
    let mut findings = durability(&settings, genesis.network);
    for fault in kafka::examine(genesis.network.as_str(), settings).await {
        name(fault, &mut findings);
    }
    findings
}

fn durability(settings: &KafkaSettings, network: Network) -> Findings {
    let (replicas, insync) = (settings.replicas, settings.min_insync_replicas);
    if network != Network::Live || (replicas >= REPLICAS_LIVE && insync >= MIN_INSYNC_REPLICAS_LIVE) {
        return Findings::default();
    }
    let detail = format!("replicas = {replicas}, min_insync_replicas = {insync}");
    Findings::of(Fault::KafkaDurabilityLow, ABOUT, detail)
}

fn name(fault: KafkaFault, findings: &mut Findings) {
    match fault {
        KafkaFault::Settings(reason) => findings.add(Fault::KafkaSettings, ABOUT, reason),
        KafkaFault::Authentication(reason) | KafkaFault::Authorization(reason) => {
            findings.add(Fault::KafkaAuthentication, ABOUT, reason);
        }
        KafkaFault::Tls(reason) => findings.add(Fault::KafkaTls, ABOUT, reason),
        KafkaFault::Hangs(reason) => findings.add(Fault::KafkaHangs, ABOUT, reason),
        KafkaFault::OtherProtocol(reason) => findings.add(Fault::KafkaOtherProtocol, ABOUT, reason),
        KafkaFault::Away(reason) => findings.add(Fault::KafkaUnreachable, ABOUT, reason),
        KafkaFault::NoTopic { topic, fix } => findings.add(Fault::KafkaTopicMissing, topic, fix),
        KafkaFault::Topic { topic, flaw } => {
            let fault = match flaw.kind {
                FlawKind::Partitions => Fault::KafkaPartitions,
                FlawKind::Replicas => Fault::KafkaReplicas,
                FlawKind::CleanupPolicy => Fault::KafkaCleanupPolicy,
                FlawKind::Retention => Fault::KafkaRetention,
                FlawKind::MinInsyncReplicas => Fault::KafkaMinInsyncReplicas,
                FlawKind::UncleanLeaderElection => Fault::KafkaUncleanElection,
                FlawKind::MessageBytes => Fault::KafkaMessageBytes,
            };
            findings.add(fault, topic, format!("{} (fix: {})", flaw.what, flaw.fix));
        }
    }
}
