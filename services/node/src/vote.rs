//! Whether this node votes at the next height. The ledger thread keeps it for whoever asks.

use thiserror::Error;

/// Why a node does not vote. Its own and nobody else's: the others see a member that is silent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoVote {
    /// Its domain is not in the member set.
    #[error("it is not a member in force: it follows without a vote")]
    NotAMember,
    /// Under its domain the member set has keys that are not in its key folder: those of another
    /// member by mistake, or of the time before it left and joined again.
    #[error(
        "the member set has other keys under its domain than its key folder holds ({}): it follows without a vote. \
         Restore the key files that the members know, or have them remove this member and join again",
        .0.join(", ")
    )]
    OtherKeys(Vec<&'static str>),
    /// Up to this height it may have voted already in a way that its data do not show.
    #[error("it may have voted up to height {0} already, beyond its data: it follows without a vote up to there")]
    MayHaveVoted(u64),
    /// The others have decided without it.
    #[error("the others have gone on without it: it follows without a vote until it has caught up")]
    LeftBehind,
    /// Too few of the others have said what they have seen of it.
    #[error("it waits for a quorum of members to say what they have seen of it")]
    Unwitnessed,
}
