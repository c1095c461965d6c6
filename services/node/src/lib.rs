//! A member's node: agrees on blocks, keeps them, signs checkpoints, serves proofs.
//!
//! One thread ([`ledger`]) owns everything that decides: it takes submissions from the
//! [`pool`], lets the [`consensus`] engine propose, re-execute and vote, appends the decided
//! block to the block log (the commit point), and signs checkpoints under the [`guard`].
//! A second thread ([`derive`]) brings tiles, index and state on disk up to date behind it.
//! Reads ([`handle`]) never wait for either.

pub mod consensus;
mod derive;
mod derived;
mod error;
pub mod fsck;
pub mod guard;
mod handle;
pub mod keys;
mod ledger;
mod open;
mod pool;
mod statement;
mod tail;
mod tiles;

pub use error::NodeError;
pub use handle::{
    BlockAt, ClockMs, DigestPositions, NodeHandle, Published, ReceiptAt, SUBMISSION_BYTES_MAX, SubmitError, Submitted,
};
pub use open::{Layout, Node, NodeConfig, POOL_BYTES_MAX, init, promise_of_data};
