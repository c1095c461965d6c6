//! What a member that lies makes its engine do, beside what any [`Application`] can ask for. Only
//! with the feature `byzantine`, for tests; a node never has it.
//!
//! [`Application`]: crate::Application

use std::{fmt, sync::Arc};

use ledger_core::Hash32;

use crate::Slot;

/// Gives the other value for one that was signed.
pub type OtherValue = Arc<dyn Fn(Hash32) -> Hash32 + Send + Sync>;

/// What the engine does wrong by itself, from its start to its end.
#[derive(Clone, Default)]
pub struct Misbehaviour {
    /// Every vote is followed by one for another value, signed as well.
    pub second_vote: Option<OtherValue>,
    /// Every proposal is followed by one of another value, signed as well.
    pub second_proposal: Option<OtherValue>,
    /// Votes are signed and sent to nobody.
    pub withholds_votes: bool,
    /// Proposals are signed and sent to nobody; their parts are sent.
    pub withholds_proposals: bool,
}

impl fmt::Debug for Misbehaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Misbehaviour")
            .field("second_vote", &self.second_vote.is_some())
            .field("second_proposal", &self.second_proposal.is_some())
            .field("withholds_votes", &self.withholds_votes)
            .field("withholds_proposals", &self.withholds_proposals)
            .finish()
    }
}

/// One message of a stream of parts, as it goes to the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForgedPart {
    /// Which stream.
    pub stream: Vec<u8>,
    /// Where in it.
    pub sequence: u64,
    /// What.
    pub content: ForgedContent,
}

/// What a forged part holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForgedContent {
    /// Opens a stream of so many bytes.
    Init(Slot, u32),
    /// Bytes of a proposal.
    Data(Vec<u8>),
    /// A message between ledgers, in the middle of a stream.
    Message(Vec<u8>),
    /// Ends a stream.
    Fin,
}
