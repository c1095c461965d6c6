//! A node that shows something else than the ledger behind it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use chopmark_domain::ports::{
    BlockRef, DigestHits, LedgerBlock, LedgerReader, LedgerReceipt, LedgerStatus, PortResult,
};
use ledger_core::{digests::Algorithm, hash::Hash32, merkle::LeafIndex, tile::TilePath};

use super::Ledger;

type Lie<T> = Box<dyn Fn(&Ledger, &mut T) + Send + Sync>;

pub(crate) struct Lying {
    ledger: Arc<Ledger>,
    blocks: Lie<Vec<LedgerBlock>>,
    status: Lie<LedgerStatus>,
    tile: Lie<(TilePath, Option<Vec<u8>>)>,
}

impl Lying {
    pub(crate) fn new(ledger: &Arc<Ledger>) -> Self {
        Self {
            ledger: Arc::clone(ledger),
            blocks: Box::new(|_, _| ()),
            status: Box::new(|_, _| ()),
            tile: Box::new(|_, _| ()),
        }
    }

    /// Lies about the block of this height.
    pub(crate) fn block(
        mut self,
        height: u64,
        lie: impl Fn(&Ledger, &mut LedgerBlock) + Send + Sync + 'static,
    ) -> Self {
        self.blocks = Box::new(move |ledger, blocks| {
            for block in blocks.iter_mut().filter(|block| block.block.header.height == height) {
                lie(ledger, block);
            }
        });
        self
    }

    pub(crate) fn blocks(mut self, lie: impl Fn(&Ledger, &mut Vec<LedgerBlock>) + Send + Sync + 'static) -> Self {
        self.blocks = Box::new(lie);
        self
    }

    pub(crate) fn status(mut self, lie: impl Fn(&Ledger, &mut LedgerStatus) + Send + Sync + 'static) -> Self {
        self.status = Box::new(lie);
        self
    }

    pub(crate) fn tile(
        mut self,
        lie: impl Fn(&Ledger, &mut (TilePath, Option<Vec<u8>>)) + Send + Sync + 'static,
    ) -> Self {
        self.tile = Box::new(lie);
        self
    }
}

#[async_trait]
impl LedgerReader for Lying {
    async fn status(&self) -> PortResult<LedgerStatus> {
        let mut status = self.ledger.status().await?;
        (self.status)(&self.ledger, &mut status);
        Ok(status)
    }

    async fn blocks(&self, from: u64, max: usize) -> PortResult<Vec<LedgerBlock>> {
        let mut blocks = self.ledger.blocks(from, max).await?;
        (self.blocks)(&self.ledger, &mut blocks);
        Ok(blocks)
    }

    async fn tile(&self, path: TilePath) -> PortResult<Option<Vec<u8>>> {
        let mut tile = (path, self.ledger.read_tile(path));
        (self.tile)(&self.ledger, &mut tile);
        Ok(tile.1)
    }

    async fn wait_beyond(&self, height: u64, timeout: Duration) -> PortResult<()> {
        self.ledger.wait_beyond(height, timeout).await
    }

    fn origin(&self) -> String {
        self.ledger.origin()
    }

    async fn policy(&self) -> PortResult<String> {
        self.ledger.policy().await
    }

    async fn policies(&self) -> PortResult<BTreeMap<u64, String>> {
        self.ledger.policies().await
    }

    async fn statement_keys(&self) -> PortResult<Vec<String>> {
        self.ledger.statement_keys().await
    }

    async fn block_of(&self, index: LeafIndex) -> PortResult<Option<BlockRef>> {
        self.ledger.block_of(index).await
    }

    async fn entry(&self, index: LeafIndex) -> PortResult<Option<Vec<u8>>> {
        self.ledger.entry(index).await
    }

    async fn receipt(&self, index: LeafIndex) -> PortResult<Option<LedgerReceipt>> {
        self.ledger.receipt(index).await
    }

    async fn find_digest(
        &self,
        algorithm: Algorithm,
        digest: &Hash32,
        from: LeafIndex,
        max: usize,
    ) -> PortResult<DigestHits> {
        self.ledger.find_digest(algorithm, digest, from, max).await
    }

    async fn find_entry(&self, id: &Hash32) -> PortResult<Option<LeafIndex>> {
        self.ledger.find_entry(id).await
    }

    async fn not_found_statement(&self, algorithm: Algorithm, digest: &Hash32) -> PortResult<String> {
        self.ledger.not_found_statement(algorithm, digest).await
    }
}
