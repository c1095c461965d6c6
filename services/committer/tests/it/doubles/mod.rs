//! Doubles of the ports, and a world made of them.

mod fault;
mod ledger;
mod lying;
mod queue;
mod store;
mod world;

pub(crate) use fault::{Fault, Faulty, Mode};
pub(crate) use ledger::{GENESIS_TIME, Ledger, TENANT, certify, genesis, members_of, signed_checkpoint};
pub(crate) use lying::Lying;
pub(crate) use queue::{Consumer, MemoryQueue};
pub(crate) use store::MemoryStore;
pub(crate) use world::*;
