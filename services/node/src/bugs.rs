//! Deliberate bugs, each at the line that upholds an invariant. The simulation has to find every one
//! of them. Outside the unit tests none exists: `has` is a constant then.

macro_rules! bugs {
    ($($(#[doc = $what:literal])* $name:ident,)*) => {
        /// A slip that breaks a promise of the node.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Bug { $($(#[doc = $what])* $name,)* }

        #[cfg(test)]
        impl Bug {
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];

            /// Whether it shows only where something stored is damaged.
            pub(crate) const fn is_of_repair(self) -> bool {
                self as usize >= Self::SignsWhileDamaged as usize
            }
        }
    };
}

bugs! {
    /// The guard's record is written and not synced.
    GuardSkipsSync,
    /// Every record of the guard goes to the same place, so that a torn one takes the last with it.
    GuardWritesOneSlot,
    /// A torn record of the guard is believed.
    GuardSkipsChecksum,
    /// Of two sound records the guard takes the older one.
    GuardReadsOlderSlot,
    /// A vote makes the guard forget what checkpoint was signed.
    GuardForgetsCheckpoint,
    /// The guard lets a vote pass at a height or round that is over.
    GuardAllowsEarlierVote,
    /// The guard lets a second value pass at one step.
    GuardAllowsOtherValue,
    /// The guard forgets what this node is locked on.
    GuardForgetsLock,
    /// Votes for nil are signed past the guard.
    SignsNilUnremembered,
    /// Proposals are signed past the guard.
    SignsProposalUnremembered,
    /// Checkpoints are signed past the guard.
    SignsCheckpointUnremembered,
    /// Checkpoints are signed while the guard remembers more than the data show.
    SignsBeforeItCaughtUp,
    /// What is voted for is not written down.
    ProposalsOnlyInMemory,
    /// Proposals stay when their height is decided.
    ProposalsOutliveTheirHeight,
    /// After a restart a node takes its own proposal for another's.
    ProposalsForgetWhoseTheyAre,
    /// A proposer asked again makes another proposal.
    ProposesTwice,
    /// The proposer's clock is not held up by the block before.
    TimeRunsBackwards,
    /// A batch carries operations that have their outcome.
    CutsWhatHasItsOutcome,
    /// A proposal far ahead of the clock gets a vote.
    IgnoresTheClock,
    /// A header that execution does not confirm gets a vote.
    VotesForAnyHeader,
    /// A block is taken over without a quorum's signatures.
    DecidesWithoutCertificate,
    /// A decision that is known already is applied again.
    DecidesTwice,
    /// A change of members is not noticed when its block is decided.
    ForgetsPendingMembers,
    /// A change of members on its way is lost by a restart.
    RestartForgetsPendingMembers,
    /// A policy begins at the last size of the one before it.
    PolicyBeginsOneTooEarly,
    /// Submitters are told before the block is durable.
    AnswersBeforeTheBlockIsDurable,
    /// Submitters are told before the guard knows of the block.
    AnswersBeforeTheGuardKnows,
    /// Which sizes are signed depends on the local clock.
    DueByOwnClock,
    /// A checkpoint counts as complete with one cosignature less than a quorum.
    CosigningCountsOneTooMany,
    /// A checkpoint is published without counting and checking its signatures.
    PublishesWithoutQuorum,
    /// A cosignature counts for another root of the same size.
    CosigningTakesAnotherRoot,
    /// A cosignature that got lost is not sent again.
    CosigningNeverSendsAgain,
    /// A node that lacks cosignatures is not helped by those who have them.
    HelpsNobody,
    /// The published checkpoint does not move on to blocks without entries.
    EmptyBlocksStayUncovered,
    /// A submission is answered when some of its operations have ended.
    PoolAnswersInPart,
    /// Of several submissions with one operation only the first is answered.
    PoolTellsOneWaiter,
    /// The room of answered submissions is not given back.
    PoolLeaksRoom,
    /// An operation that was decided before is waited for.
    SubmittingForgetsWhatIsKnown,
    /// The high-water mark moves before the tiles are durable.
    MarkMovesBeforeTiles,
    /// The stored right edge is that of the mark before.
    EdgeOfTheMarkBefore,
    /// State of a newer block is dropped when an older one is written.
    SettlesWhatIsNewer,
    /// Tiles are not synced.
    TilesSkipSync,
    /// The folders of new tiles are not synced.
    TilesSkipFolderSync,
    /// The block log is not synced.
    BlockLogSkipsSync,
    /// The checkpoint log is not synced.
    CheckpointLogSkipsSync,
    /// A block is left out of the replay.
    ReplaySkipsABlock,
    /// Replayed blocks are answered from, and the guard does not know of them.
    ReplayStaysUnknownToTheGuard,
    /// A lone node starts on data that are older than its guard.
    OpensAnOlderCopyAlone,
    // From here on: bugs of repair.
    /// Checkpoints are signed while something is known to be damaged.
    SignsWhileDamaged,
    /// What is known to be damaged is forgotten by a restart.
    RestartForgetsDamage,
    /// What could not be healed counts as healed.
    ForgetsWhatIsNotHealed,
    /// A tile from a file is served without looking whether it leads to the root.
    ServesWhatIsDamaged,
    /// What a peer sends is written as it comes.
    RepairBelievesPeers,
    /// A tile that was made again is written in the place of its neighbour.
    RepairsTheTileBeside,
    /// A healed file is written over the damaged one, and not synced.
    HealsInPlace,
    /// The scrub does not look whether the index has what a bundle holds.
    ScrubSkipsTheIndex,
    /// What the index finds is not held against the entries.
    FindsWhatIsNotThere,
    /// The block that the index names is not held against the entry.
    NamesTheWrongBlock,
}

/// Whether this bug is there.
#[cfg(not(test))]
pub(crate) const fn has(_: Bug) -> bool {
    false
}

#[cfg(test)]
thread_local! {
    static SEEDED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Whether this bug is there.
#[cfg(test)]
pub(crate) fn has(bug: Bug) -> bool {
    SEEDED.get() == Some(bug)
}

/// Runs `body` with a bug on this thread.
#[cfg(test)]
pub(crate) fn with<T>(bug: Option<Bug>, body: impl FnOnce() -> T) -> T {
    SEEDED.set(bug);
    let result = body();
    SEEDED.set(None);
    result
}
