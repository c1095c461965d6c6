//! The engine behind a thin trait of our own: nothing outside this module names an engine's
//! types, and certificates are in our encoding.

use ledger_core::{Hash32, block::Header, vote::Certificate};

use crate::NodeError;

/// A block that a proposer wants decided. Its value is the header's hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The header, after execution.
    pub header: Header,
    /// The encoded batch.
    pub batch: Vec<u8>,
}

/// What happened when the application was asked for a value.
#[derive(Debug)]
pub enum Next {
    /// Decide on this.
    Propose(Box<Proposal>),
    /// Nothing to decide: ask again.
    Idle,
    /// The node is shutting down.
    Stop,
}

/// What an engine drives: the ledger's side of agreement.
pub trait Application {
    /// Height to decide next.
    fn height(&self) -> u64;

    /// A value for this height and round. Waits for operations, but not beyond what the node's
    /// timers allow.
    fn propose(&mut self) -> Result<Next, NodeError>;

    /// Executes a proposal again and compares every field of its header. An error or `false`
    /// means no vote for it.
    fn validate(&mut self, proposal: &Proposal) -> Result<bool, NodeError>;

    /// Remembers the vote durably, then signs a precommit for `value`.
    fn precommit(&mut self, height: u64, round: u32, value: &Hash32) -> Result<(Hash32, [u8; 64]), NodeError>;

    /// Round to start with: one past the last round voted in, so that a restart never votes
    /// twice in one round.
    fn first_round(&self) -> u32;

    /// Makes a decided block durable and takes it over. When it returns, the block is final.
    fn decide(&mut self, proposal: Proposal, certificate: Certificate) -> Result<(), NodeError>;
}

/// An agreement engine.
pub trait Consensus {
    /// Drives `application` until it stops or fails.
    fn run(&mut self, application: &mut dyn Application) -> Result<(), NodeError>;
}

/// The engine of a network of one validator: every step of the larger ones, without messages.
#[derive(Debug, Default)]
pub struct Solo;

impl Consensus for Solo {
    fn run(&mut self, application: &mut dyn Application) -> Result<(), NodeError> {
        loop {
            let proposal = match application.propose()? {
                Next::Propose(proposal) => *proposal,
                Next::Idle => continue,
                Next::Stop => return Ok(()),
            };
            let (height, round) = (application.height(), application.first_round());
            if !application.validate(&proposal)? {
                return Err(NodeError::Diverged { height, field: "header" });
            }
            let value = proposal.header.hash();
            let precommit = application.precommit(height, round, &value)?;
            application.decide(proposal, Certificate::new(height, round, value, &[precommit]))?;
        }
    }
}
