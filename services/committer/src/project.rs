//! The project loop: verified blocks → database.
//!
//! Invariant: a block reaches the database only after every check of [`crate::chain`] and only
//! if a checkpoint signed by a quorum covers it. Only [`ProjectLoop::follow`] projects. If an
//! unverified block were projected, a user would be shown a record that no court can verify.
//!
//! Durable is the database alone, one transaction per block with the cursor in it: dying between
//! any two lines leaves whole blocks, and the next life starts from the cursor.

use std::{convert::Infallible, sync::Arc, time::Instant};

use chopmark_domain::{
    ports::{LedgerBlock, LedgerReader, LedgerStatus, PortError, PortResult, ProjectionStore},
    record::{OperationState, ProjectedBlock, ProjectionCursor},
};
use ledger_core::{genesis::Genesis, member::MemberSet, merkle::TreeSize};
use metrics::{counter, gauge, histogram};
use tokio_util::sync::CancellationToken;

use crate::{
    chain::{Chain, Resumed, announced},
    checkpoint,
    config::ProjectConfig,
    error::{CheckError, CommitterError},
    metric::{self, gauge_value},
    retry::Caller,
    source::{Source, behind},
    tree::Tree,
};

/// Follows the ledger into the database.
pub struct ProjectLoop {
    source: Source,
    store: Arc<dyn ProjectionStore>,
    genesis: Genesis,
    config: ProjectConfig,
}

/// How far the newest checkpoint reaches.
struct Goal {
    status: LedgerStatus,
    /// Whether its note was verified.
    verified: bool,
}

/// Blocks verified together.
struct Group {
    /// The chain with them.
    chain: Chain,
    /// Members that decided the last of them.
    members: Arc<MemberSet>,
    blocks: Vec<ProjectedBlock>,
}

impl ProjectLoop {
    /// A loop that trusts `genesis` and nothing else.
    #[must_use]
    pub fn new(
        reader: Arc<dyn LedgerReader>,
        store: Arc<dyn ProjectionStore>,
        genesis: Genesis,
        config: ProjectConfig,
    ) -> Self {
        let caller = Caller { network: genesis.network, retry: config.retry };
        let source = Source { reader, caller, timeout: config.call_timeout };
        Self { source, store, genesis, config }
    }

    /// Runs until `stop`. An error means that a check failed or a port is broken: nothing more
    /// is projected, and a new loop starts from the cursor.
    pub async fn run(self, stop: CancellationToken) -> Result<(), CommitterError> {
        // Dropping the work at any await is harmless: see the module's text.
        let error = match stop.run_until_cancelled(self.follow()).await {
            None => return Ok(()),
            Some(Ok(never)) => match never {},
            Some(Err(error)) => error,
        };
        counter!(metric::STOPPED, "network" => self.network(), "loop" => "project", "cause" => error.label())
            .increment(1);
        tracing::error!(network = self.network(), cause = error.label(), %error, "project loop stopped");
        Err(error)
    }

    async fn follow(&self) -> Result<Infallible, CommitterError> {
        let mut chain = self.resume().await?;
        let mut goal = None;
        loop {
            gauge!(metric::PROJECTED_HEIGHT, "network" => self.network()).set(gauge_value(chain.height()));
            let Some(ahead) = self.goal_beyond(&chain, goal.take()).await? else { continue };
            let blocks = self.fetch(&chain, &ahead.status).await?;
            if blocks.is_empty() {
                self.source.wait_beyond(ahead.status.checkpoint_height, self.config.idle_wait).await?;
                continue;
            }
            let group = self.verify(chain.clone(), blocks).await?;
            goal = Some(self.check_covered(&group, ahead).await?);
            chain = if self.project(group.blocks).await? { group.chain } else { self.resume().await? };
        }
    }

    /// A checkpoint beyond the chain's tip; without one, waits and gives none.
    async fn goal_beyond(&self, chain: &Chain, known: Option<Goal>) -> Result<Option<Goal>, CommitterError> {
        if let Some(goal) = known.filter(|goal| goal.status.checkpoint_height > chain.height()) {
            return Ok(Some(goal));
        }
        let status = self.source.status().await?;
        gauge!(metric::CHECKPOINT_HEIGHT, "network" => self.network()).set(gauge_value(status.checkpoint_height));
        if status.checkpoint_height > chain.height() {
            return Ok(Some(Goal { status, verified: false }));
        }
        if status.checkpoint_height == chain.height() && tree_of(&status) != tip_of(chain) {
            return Err(CheckError::CheckpointRoot.at(chain.height()));
        }
        self.source.wait_beyond(chain.height(), self.config.idle_wait).await?;
        Ok(None)
    }

    async fn fetch(&self, chain: &Chain, goal: &LedgerStatus) -> Result<Vec<LedgerBlock>, CommitterError> {
        let covered = usize::try_from(goal.checkpoint_height - chain.height()).unwrap_or(usize::MAX);
        self.source.blocks(chain.height() + 1, covered.min(self.config.blocks_per_fetch.max(1))).await
    }

    /// Verifies blocks on a blocking thread: a full one is tens of milliseconds of hashing.
    async fn verify(&self, mut chain: Chain, blocks: Vec<LedgerBlock>) -> Result<Group, CommitterError> {
        let started = Instant::now();
        let work = move || {
            let (mut members, mut projected) = (Arc::clone(chain.members()), Vec::with_capacity(blocks.len()));
            for block in &blocks {
                let height = chain.height() + 1;
                let verified = chain.verify(block).map_err(|check| check.at(height))?;
                members = verified.members;
                projected.push(verified.projected);
            }
            Ok(Group { chain, members, blocks: projected })
        };
        let group = tokio::task::spawn_blocking(work).await.map_err(|_| CommitterError::Worker)?;
        histogram!(metric::VERIFY_SECONDS, "network" => self.network()).record(started.elapsed());
        group
    }

    /// Checks that the checkpoint covers the group, and the checkpoint itself.
    ///
    /// Where the group ends at the checkpoint, its header's root must be the checkpoint's. While
    /// catching up it ends earlier; then tiles must prove its tree a prefix of the checkpoint's.
    async fn check_covered(&self, group: &Group, mut goal: Goal) -> Result<Goal, CommitterError> {
        let (chain, height) = (&group.chain, goal.status.checkpoint_height);
        let at_goal = chain.height() == height;
        if !goal.verified {
            let members = if at_goal { Arc::clone(&group.members) } else { self.members_at(chain, height).await? };
            checkpoint::check(&goal.status, &self.genesis.origin, &members).map_err(|check| check.at(height))?;
            goal.verified = true;
        }
        let (tip, covering) = (tip_of(chain), tree_of(&goal.status));
        if !at_goal {
            self.source.prove_covered(chain.height(), tip, covering).await?;
        } else if tip != covering {
            return Err(CheckError::CheckpointRoot.at(height));
        }
        Ok(goal)
    }

    /// Members in force at `height`, which is beyond the chain's tip.
    async fn members_at(&self, chain: &Chain, height: u64) -> Result<Arc<MemberSet>, CommitterError> {
        let known = Arc::clone(chain.members());
        self.source.members_after(&self.genesis.chain_id(), known, chain.height(), height - 1).await
    }

    /// Projects verified blocks in order. `false`: the cursor is not where they end, because of
    /// another committer or of a reset.
    async fn project(&self, blocks: Vec<ProjectedBlock>) -> Result<bool, CommitterError> {
        let mut cursor = 0;
        for block in &blocks {
            if block.height <= cursor {
                continue;
            }
            let started = Instant::now();
            if self.database(|| self.store.project(block.clone())).await? {
                // Durable now: rows, links and the cursor on this block, together.
                histogram!(metric::PROJECT_SECONDS, "network" => self.network()).record(started.elapsed());
                histogram!(metric::PROJECTED_SECONDS, "network" => self.network()).record(metric::since(block.time));
                self.count(block);
                continue;
            }
            let Some(found) = self.cursor_after_refusal(block, &blocks).await? else { return Ok(false) };
            cursor = found;
        }
        Ok(true)
    }

    /// The cursor's height if it stands on one of `blocks`, the refused `block` or a later one.
    async fn cursor_after_refusal(
        &self,
        block: &ProjectedBlock,
        blocks: &[ProjectedBlock],
    ) -> Result<Option<u64>, CommitterError> {
        let cursor = self.cursor().await?;
        if cursor.map_or(0, |cursor| cursor.height) + 1 == block.height {
            let reason = format!("block {} follows the cursor and was refused", block.height);
            return Err(PortError::Broken { port: "database", reason }.into());
        }
        let Some(cursor) = cursor.filter(|cursor| cursor.height >= block.height) else { return Ok(None) };
        match blocks.iter().find(|block| block.height == cursor.height) {
            // Two blocks of one height, both verified: two histories.
            Some(same) if same.hash != cursor.hash => Err(CheckError::Cursor.at(cursor.height)),
            found => Ok(found.map(|same| same.height)),
        }
    }

    fn count(&self, block: &ProjectedBlock) {
        let committed = |state: &OperationState| matches!(state, OperationState::Committed(_));
        let committed = block.operations.iter().filter(|operation| committed(&operation.state)).count();
        let rejected = block.operations.len() - committed;
        for (state, count) in [("committed", committed), ("rejected", rejected)] {
            counter!(metric::PROJECTED, "network" => self.network(), "state" => state).increment(count as u64);
        }
    }

    /// The chain as of the cursor. Nothing but the cursor's header hash is taken on trust: the
    /// header must have it, the right edge read from tiles must have the header's root, and the
    /// members must have the hash that it names.
    async fn resume(&self) -> Result<Chain, CommitterError> {
        let genesis = Chain::genesis(&self.genesis);
        let Some(cursor) = self.cursor().await? else { return Ok(genesis) };
        let height = cursor.height;
        if height == 0 {
            return if cursor.hash == genesis.hash() { Ok(genesis) } else { Err(CheckError::Cursor.at(0)) };
        }
        let published = self.wait_for(&cursor).await?.size;
        let block = self.source.block(height).await?.block;
        let header = &block.header;
        let known = (header.chain, header.hash(), header.tree_size);
        if known != (self.genesis.chain_id(), cursor.hash, cursor.tree_size) {
            return Err(CheckError::Cursor.at(height));
        }
        let frontier = self.source.frontier(TreeSize(header.tree_size), published).await?;
        if frontier.root() != header.root {
            return Err(CheckError::Tiles.at(height));
        }
        let waiting = announced(&block).map_err(|check| check.at(height))?;
        let opens = self.opens_after(header.previous, height).await?;
        let known = Arc::clone(genesis.members());
        let members = self.source.members_after(&header.chain, known, 0, height).await?;
        if members.hash() != header.next_members {
            return Err(CheckError::MembersUnknown.at(height));
        }
        Ok(Chain::resume(&self.genesis, Resumed { header, frontier, members, opens, waiting }))
    }

    /// Whether the block before `height` decided a member set, whose first height is the next.
    async fn opens_after(&self, previous: ledger_core::Hash32, height: u64) -> Result<bool, CommitterError> {
        if height == 1 {
            return Ok(false);
        }
        let before = self.source.block(height - 1).await?.block;
        if before.header.hash() != previous {
            return Err(CheckError::Previous.at(height));
        }
        Ok(announced(&before).map_err(|check| check.at(height - 1))?.is_some())
    }

    /// The ledger's status, once the node is no longer behind the node that the cursor came from.
    async fn wait_for(&self, cursor: &ProjectionCursor) -> PortResult<LedgerStatus> {
        let mut patience = self.source.caller.patience("ledger");
        loop {
            let status = self.source.status().await?;
            if status.checkpoint_height >= cursor.height {
                return Ok(status);
            }
            patience.after(behind(format!("block {}", cursor.height))).await?;
        }
    }

    async fn cursor(&self) -> PortResult<Option<ProjectionCursor>> {
        self.database(|| self.store.cursor(self.network())).await
    }

    async fn database<T, F>(&self, call: impl Fn() -> F) -> PortResult<T>
    where
        F: Future<Output = PortResult<T>>,
    {
        self.source.caller.call("database", self.config.call_timeout, call).await
    }

    fn network(&self) -> &'static str {
        self.genesis.network.as_str()
    }
}

fn tip_of(chain: &Chain) -> Tree {
    Tree { size: chain.size(), root: chain.root() }
}

const fn tree_of(status: &LedgerStatus) -> Tree {
    Tree { size: status.size, root: status.root }
}
