//! The read interface of a member's node: what anybody may look up, without the operator.

use std::{net::TcpListener, sync::Arc};

use chopmark_domain::{id::IdIssuer, lookup::PublicLedger, ports::Random as _};
use chopmark_gateway::{Gateway, GatewayConfig, Stopper};
use chopmark_node::NodeHandle;
use tokio::{sync::Semaphore, task::JoinHandle};
use zeroize::Zeroizing;

use crate::{
    ledger::NodeReader,
    network::{
        board::Board,
        routes::{self, BLOCK_ANSWERS_MAX, PeerInterface},
    },
    system::System,
    telemetry::Metrics,
};

/// A running read interface.
pub(crate) struct Reader {
    stopper: Stopper,
    served: JoinHandle<std::io::Result<()>>,
}

impl Reader {
    /// Finishes what has begun, and stops.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.stopper.stop().await;
        Ok(self.served.await??)
    }
}

/// Serves a node on two listeners: one for the public, one for metrics and health.
pub(crate) fn serve(
    node: &NodeHandle,
    board: Option<Arc<Board>>,
    network: &str,
    (public, internal): (TcpListener, TcpListener),
    metrics: Metrics,
) -> anyhow::Result<Reader> {
    let (mut cursors, mut start) = (Zeroizing::new([0; 32]), [0; 8]);
    System.fill(cursors.as_mut())?;
    System.fill(&mut start)?;
    // Cursors end with the process; nobody keeps one.
    let ids = IdIssuer::new(cursors, network);
    let ledger = PublicLedger::new(network.to_owned(), node.chain(), ids, Arc::new(NodeReader::new(node.clone())));
    let config = GatewayConfig { workers: Some(1), ..GatewayConfig::default() };
    let gateway = Gateway::reader(Arc::new(ledger), u64::from_be_bytes(start), config, move || metrics.render());
    let answers = Arc::new(Semaphore::new(BLOCK_ANSWERS_MAX));
    let interface = PeerInterface { node: node.clone(), board, answers };
    let gateway = gateway.with_routes(move |config| routes::register(config, &interface));
    let serving = gateway.serve(public, internal)?;
    let stopper = serving.stopper();
    Ok(Reader { stopper, served: tokio::spawn(serving.run()) })
}
