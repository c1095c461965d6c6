//! A member's node: agrees on blocks, keeps them, cosigns checkpoints, serves proofs.
//!
//! One thread ([`ledger`]) owns everything that decides: it cuts batches from the [`pool`],
//! answers the [`chopmark_consensus`] engine (propose, judge, decide), appends the decided block to the
//! block log (the commit point), and signs checkpoints and votes under the [`guard`]. What a
//! quorum has cosigned ([`cosign`]) is published.
//! A second thread ([`derive`]) brings tiles, index and state on disk up to date behind it.
//! A third ([`repair`]) looks for damage and heals it.
//! Reads ([`handle`]) wait for none of them.

mod bugs;
pub mod clocks;
mod cosign;
mod damage;
mod derive;
mod derived;
mod disk;
pub mod equivocations;
mod error;
pub mod fsck;
pub mod guard;
mod handle;
pub mod keys;
mod ledger;
mod manifests;
mod open;
mod pool;
mod proposals;
mod rebuilding;
mod repair;
mod scrub;
#[cfg(test)]
mod simulation;
mod statement;
mod tail;
#[cfg(test)]
mod testing;
mod tiles;
mod vote;
mod witness;

pub use chopmark_consensus::{BlockSource, Followed, NetworkConfig, Peer, Peers, Proposal, SeenVote};
pub use cosign::LastCosignature;
pub use damage::Part;
pub use error::NodeError;
pub use handle::{
    BlockAt, ClockMs, DigestPositions, Governance, NodeHandle, Published, ReceiptAt, SUBMISSION_BYTES_MAX, SubmitError,
    Submitted,
};
pub use open::{Layout, Node, NodeConfig, POOL_BYTES_MAX, init, init_again, promise_of_data, restore};
pub use repair::{LocalPeer, PeerTiles};
pub use vote::NoVote;
pub use witness::Witness;
