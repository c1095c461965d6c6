//! The ledger ports over nodes in this process: signs submissions as the operator's submitter,
//! and moves disk reads off the async runtime. Over nodes elsewhere: [`remote`].

pub(crate) mod remote;
pub(crate) mod serve;
pub(crate) mod wire;

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use async_trait::async_trait;
use chopmark_domain::ports::{
    BlockRef, DigestHits, LedgerBlock, LedgerReader, LedgerReceipt, LedgerStatus, LedgerWriter, PortError, PortResult,
    SubmitResult,
};
use chopmark_node::{NoVote, NodeError, NodeHandle, SubmitError};
use ledger_core::{
    Hash32, SigningKey, batch::Submission, digests::Algorithm, merkle::LeafIndex, operation::SignedOperation,
    tile::TilePath,
};

/// Reads one node of this process.
#[derive(Clone)]
pub(crate) struct NodeReader {
    node: NodeHandle,
}

/// The nodes of this process as the ledger: read from the first, submitted to all.
#[derive(Clone)]
pub(crate) struct EmbeddedLedger {
    node: NodeHandle,
    others: Vec<NodeHandle>,
    submitter: SigningKey,
}

const PORT: &str = "ledger";

fn failed(error: &NodeError) -> PortError {
    let reason = error.to_string();
    match error {
        NodeError::Io { .. } | NodeError::Store(_) | NodeError::NothingPublished | NodeError::DamagedPart { .. } => {
            PortError::Unavailable { port: PORT, reason }
        }
        _ => PortError::Broken { port: PORT, reason },
    }
}

impl EmbeddedLedger {
    pub(crate) fn new(nodes: Vec<NodeHandle>, submitter: SigningKey) -> anyhow::Result<Self> {
        let mut nodes = nodes.into_iter();
        let node = nodes.next().context("a ledger has a node")?;
        Ok(Self { node, others: nodes.collect(), submitter })
    }
}

impl NodeReader {
    pub(crate) fn new(node: NodeHandle) -> Self {
        Self { node }
    }

    /// Runs a read on a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&NodeHandle) -> Result<T, NodeError> + Send + 'static,
    ) -> PortResult<T> {
        let node = self.node.clone();
        match tokio::task::spawn_blocking(move || read(&node)).await {
            Ok(result) => result.map_err(|error| failed(&error)),
            Err(error) => Err(PortError::Broken { port: PORT, reason: error.to_string() }),
        }
    }
}

#[async_trait]
impl LedgerWriter for EmbeddedLedger {
    fn chain(&self) -> Hash32 {
        self.node.chain()
    }

    async fn submit(&self, operations: Vec<SignedOperation>) -> PortResult<Vec<SubmitResult>> {
        let submission = Submission::sign(&self.node.chain(), &self.submitter, operations.clone());
        // To every node, so that whoever proposes next has it; operation ids make that safe.
        for other in &self.others {
            let (other, submission) = (other.clone(), submission.clone());
            tokio::spawn(async move {
                if let Err(error) = other.submit(submission).await {
                    tracing::debug!(%error, "another member's node did not take a submission");
                }
            });
        }
        match self.node.submit(submission).await {
            Ok(ended) => Ok(ended
                .into_iter()
                .map(|ended| SubmitResult::Ended { request: ended.request, result: ended.result })
                .collect()),
            Err(SubmitError::Malformed(faults)) => self.submit_sound(operations, faults).await,
            Err(SubmitError::Full) => Err(PortError::Full(PORT)),
            Err(SubmitError::Stopped(reason)) => Err(PortError::Unavailable { port: PORT, reason }),
            Err(SubmitError::Refused(reason)) => Err(PortError::Broken { port: PORT, reason: reason.to_owned() }),
        }
    }
}

impl EmbeddedLedger {
    /// Submits again without what can never be part of a block, and reports on all.
    async fn submit_sound(
        &self,
        operations: Vec<SignedOperation>,
        faults: Vec<(usize, String)>,
    ) -> PortResult<Vec<SubmitResult>> {
        let (results, sound) = without(operations, faults);
        let ended = if sound.is_empty() { Vec::new() } else { self.submit(sound).await? };
        merged(results, ended)
    }
}

/// Splits off operations (positions, reasons) that can never be part of a block: their results, with gaps
/// for the others, and the others.
fn without(
    operations: Vec<SignedOperation>,
    faults: Vec<(usize, String)>,
) -> (Vec<Option<SubmitResult>>, Vec<SignedOperation>) {
    let mut results: Vec<Option<SubmitResult>> = vec![None; operations.len()];
    for (at, reason) in faults {
        if let Some(result) = results.get_mut(at) {
            *result = Some(SubmitResult::Malformed(reason));
        }
    }
    let sound = operations.into_iter().zip(&results).filter(|(_, result)| result.is_none());
    let sound = sound.map(|(operation, _)| operation).collect();
    (results, sound)
}

/// Fills the gaps with the results of the others.
fn merged(results: Vec<Option<SubmitResult>>, ended: Vec<SubmitResult>) -> PortResult<Vec<SubmitResult>> {
    let mut ended = ended.into_iter();
    let results = results.into_iter().map(|result| result.or_else(|| ended.next())).collect::<Option<Vec<_>>>();
    results.ok_or_else(|| PortError::Broken { port: PORT, reason: "an operation without outcome".to_owned() })
}

#[async_trait]
impl LedgerReader for NodeReader {
    fn is_well(&self) -> bool {
        // A member that the others wait for in vain, until somebody repairs it.
        let is_silent = matches!(self.node.no_vote(), Some(NoVote::OtherKeys(_)));
        self.node.failure().is_none() && self.node.damaged().is_empty() && !is_silent
    }

    async fn status(&self) -> PortResult<LedgerStatus> {
        let published = self.node.published().map_err(|error| failed(&error))?;
        Ok(LedgerStatus {
            height: self.node.height(),
            checkpoint_height: published.height,
            size: published.size,
            root: published.root,
            checkpoint: published.note,
        })
    }

    async fn blocks(&self, from: u64, max: usize) -> PortResult<Vec<LedgerBlock>> {
        let blocks = self.read(move |node| node.blocks(from, max)).await?;
        Ok(blocks.into_iter().map(|at| LedgerBlock { block: at.block, entries: at.entries }).collect())
    }

    async fn block_of(&self, index: LeafIndex) -> PortResult<Option<BlockRef>> {
        let found = self.read(move |node| node.block_of(index)).await?;
        Ok(found.map(|(height, time, hash)| BlockRef { height, time, hash }))
    }

    async fn entry(&self, index: LeafIndex) -> PortResult<Option<Vec<u8>>> {
        self.read(move |node| node.entry(index)).await
    }

    async fn receipt(&self, index: LeafIndex) -> PortResult<Option<LedgerReceipt>> {
        let found = self.read(move |node| node.receipt(index)).await?;
        Ok(found.map(|at| LedgerReceipt {
            receipt: at.receipt,
            size: at.size,
            root: at.root,
            cosigners: at.cosigners,
            time: at.time,
        }))
    }

    async fn find_digest(
        &self,
        algorithm: Algorithm,
        digest: &Hash32,
        from: LeafIndex,
        max: usize,
    ) -> PortResult<DigestHits> {
        let digest = *digest;
        let found = self.read(move |node| node.find(algorithm, &digest, from, max)).await?;
        Ok(DigestHits { indexes: found.indexes, complete_to: found.complete_to })
    }

    async fn find_entry(&self, id: &Hash32) -> PortResult<Option<LeafIndex>> {
        let id = *id;
        self.read(move |node| node.find_entry(&id)).await
    }

    async fn not_found_statement(&self, algorithm: Algorithm, digest: &Hash32) -> PortResult<String> {
        let digest = *digest;
        let statement = self.read(move |node| node.not_found(algorithm, &digest)).await?;
        // Recorded between the caller's look-up and this one: the look-up is to be repeated.
        let recorded = || PortError::Unavailable { port: PORT, reason: "the digest was just recorded".to_owned() };
        statement.ok_or_else(recorded)
    }

    async fn tile(&self, path: TilePath) -> PortResult<Option<Vec<u8>>> {
        self.read(move |node| node.tile(path)).await
    }

    async fn policy(&self) -> PortResult<String> {
        self.node.policy().map_err(|error| failed(&error))
    }

    async fn policies(&self) -> PortResult<BTreeMap<u64, String>> {
        Ok(self.node.policies())
    }

    fn origin(&self) -> String {
        self.node.genesis().origin.clone()
    }

    async fn statement_keys(&self) -> PortResult<Vec<String>> {
        Ok(vec![self.node.statement_key().map_err(|error| failed(&error))?])
    }

    async fn wait_beyond(&self, height: u64, timeout: Duration) -> PortResult<()> {
        self.node.wait_beyond(height, timeout).await;
        Ok(())
    }
}
