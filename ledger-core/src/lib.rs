//! The ledger of Chopmark: its formats, its tree, its state machine and its verifier.
//!
//! Pure: no clock, no network, no randomness, no async runtime, no storage. Callers bring the
//! time, the keys and a [`state::StateRead`]. Everything here is frozen the day the first court
//! holds a receipt; `schemas/vectors/` pins the bytes, `docs/FORMATS.md` explains them.

pub mod batch;
pub mod block;
pub mod checkpoint;
pub mod codec;
pub mod commitment;
pub mod digests;
pub mod entry;
pub mod equivocation;
pub mod execute;
pub mod genesis;
pub mod hash;
pub mod json;
pub mod member;
pub mod merkle;
pub mod note;
pub mod operation;
pub mod outcome;
pub mod policy;
pub mod policy_file;
pub mod receipt;
pub mod state;
pub mod tile;
pub mod verify;
pub mod vote;

pub use ed25519_dalek::{SigningKey, VerifyingKey};
pub use hash::Hash32;
