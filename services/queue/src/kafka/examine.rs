//! What `chopmark doctor` asks of a cluster: whether it can be reached as the settings say, and all that is
//! wrong with the topics. Makes none, whatever the settings allow.

use chopmark_domain::ports::PortError;
use rdkafka::error::RDKafkaErrorCode;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::client::Names;
use super::settings::KafkaSettings;
use super::topic::{Cluster, Flaw, exact, flaws, how_to_make, wanted};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KafkaFault {
    /// The settings cannot work together, or a file of theirs cannot be used.
    Settings(String),
    /// The brokers do not take this user and password, or not by this mechanism.
    Authentication(String),
    /// No encrypted connection comes about.
    Tls(String),
    /// This user may not ask for the topic or its settings.
    Authorization(String),
    /// Somebody takes the connection, and says nothing.
    Hangs(String),
    /// Whoever answers speaks another protocol.
    OtherProtocol(String),
    /// Nobody answers.
    Away(String),
    /// There is no such topic, and the settings do not allow to make it.
    NoTopic {
        /// Its name.
        topic: String,
        /// How to make it.
        fix: String,
    },
    /// A topic could lose or mix up something.
    Topic {
        /// Its name.
        topic: String,
        /// What, and what to do.
        flaw: Flaw,
    },
}

/// Looks at the cluster and at the topics of `network`. Each of a few questions takes 10 s at most.
pub async fn examine(network: &str, settings: KafkaSettings) -> Vec<KafkaFault> {
    if let Err(reason) = settings.check() {
        return vec![KafkaFault::Settings(reason.to_owned())];
    }
    let (names, runtime) = (Names::new(network), Handle::current());
    let examined = spawn_blocking(move || match Cluster::new(&settings, runtime) {
        Ok(cluster) => faults(&names, &settings, &cluster),
        Err(error) => vec![KafkaFault::Settings(reason(error))],
    });
    examined.await.unwrap_or_else(|error| vec![KafkaFault::Away(error.to_string())])
}

fn faults(names: &Names, settings: &KafkaSettings, cluster: &Cluster<'_>) -> Vec<KafkaFault> {
    let mut faults = Vec::new();
    for (name, partitions) in wanted(names, settings) {
        match cluster.find(name) {
            Ok(Some(topic)) => {
                let flaws = flaws(&topic, exact(name, partitions, names), settings);
                faults.extend(flaws.into_iter().map(|flaw| KafkaFault::Topic { topic: name.to_owned(), flaw }));
            }
            Ok(None) if settings.create_topics => {}
            Ok(None) => {
                let fix = how_to_make(name, partitions, settings);
                faults.push(KafkaFault::NoTopic { topic: name.to_owned(), fix });
            }
            Err(error) => {
                faults.push(cause(cluster.heard(), reason(error)));
                // The next question would wait as long for the same answer.
                break;
            }
        }
    }
    faults
}

fn reason(error: PortError) -> String {
    match error {
        PortError::Unavailable { reason, .. } | PortError::Broken { reason, .. } => reason,
        other => other.to_string(),
    }
}

/// `heard` is the code and text of the last connection that failed.
fn cause(heard: Option<(Option<RDKafkaErrorCode>, String)>, failure: String) -> KafkaFault {
    let (code, said) = heard.unwrap_or_default();
    let says = |texts: &[&str]| texts.iter().any(|text| said.contains(text));
    match code {
        Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) => {
            KafkaFault::Authentication(failure)
        }
        Some(RDKafkaErrorCode::SSL) => KafkaFault::Tls(failure),
        _ if says(&["Invalid response size", "Protocol parse failure"]) => KafkaFault::OtherProtocol(failure),
        // librdkafka's guess, from how the connection ended.
        _ if says(&["incorrect security.protocol", "SSL handshake"]) => KafkaFault::Tls(failure),
        _ if said.is_empty() || says(&["ApiVersionRequest failed: Local: Timed out", "timed out"]) => {
            KafkaFault::Hangs(failure)
        }
        _ if failure.contains("authorization failed") => KafkaFault::Authorization(failure),
        _ => KafkaFault::Away(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_apart() {
        let cause = |code, said: &str| {
            let heard = (!said.is_empty()).then(|| (code, said.to_owned()));
            cause(heard, "ask: Metadata fetch error".to_owned())
        };
        let is = |fault: KafkaFault| std::mem::discriminant(&fault);
        let text = String::new;
        let transport = Some(RDKafkaErrorCode::BrokerTransportFailure);
        assert_eq!(is(cause(None, "")), is(KafkaFault::Hangs(text())));
        assert_eq!(
            is(cause(transport, "Connect to ipv4#127.0.0.1:1 failed: Connection refused")),
            is(KafkaFault::Away(text()))
        );
        assert_eq!(
            is(cause(Some(RDKafkaErrorCode::Authentication), "SASL authentication error")),
            is(KafkaFault::Authentication(text()))
        );
        assert_eq!(is(cause(Some(RDKafkaErrorCode::SSL), "SSL handshake failed")), is(KafkaFault::Tls(text())));
        assert_eq!(
            is(cause(transport, "Receive failed: Invalid response size 1213486160")),
            is(KafkaFault::OtherProtocol(text()))
        );
    }
}
