//! The other members' nodes. Which ones there are changes with the members, while the engine runs.

use std::net::SocketAddr;

use ledger_core::Hash32;
use tokio::sync::watch;

/// Another member's node, as this one finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The member.
    pub domain: String,
    /// Where it listens for members.
    pub address: SocketAddr,
    /// Public half of its network key: whoever answers there has to own it.
    pub network_key: Hash32,
}

/// The nodes that are let in, now and later.
#[derive(Debug, Clone)]
pub struct Peers(watch::Receiver<Vec<Peer>>);

impl Peers {
    /// Those that are let in now; from here on [`Peers::changed`] waits for others.
    pub fn now(&mut self) -> Vec<Peer> {
        self.0.borrow_and_update().clone()
    }

    /// Waits until there are others; for ever where they are fixed.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl From<watch::Receiver<Vec<Peer>>> for Peers {
    fn from(peers: watch::Receiver<Vec<Peer>>) -> Self {
        Self(peers)
    }
}

impl From<Vec<Peer>> for Peers {
    /// Peers that never change.
    fn from(peers: Vec<Peer>) -> Self {
        Self(watch::Sender::new(peers).subscribe())
    }
}
