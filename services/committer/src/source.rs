//! The ledger as the project loop reads it: patient with a node that is away or behind, and
//! without trust in what it says.

use std::{sync::Arc, time::Duration};

use chopmark_domain::ports::{LedgerBlock, LedgerReader, LedgerStatus, PortError, PortResult};

use crate::{
    error::{CheckError, CommitterError},
    retry::Caller,
};

const PORT: &str = "ledger";

/// A reader and how it is called.
pub(crate) struct Source {
    pub(crate) reader: Arc<dyn LedgerReader>,
    pub(crate) caller: Caller,
    pub(crate) timeout: Duration,
}

impl Source {
    /// Newest published state.
    pub(crate) async fn status(&self) -> PortResult<LedgerStatus> {
        self.caller.call(PORT, self.timeout, || self.reader.status()).await
    }

    /// At most `max` blocks from `from` on; none if the node does not have them yet.
    pub(crate) async fn blocks(&self, from: u64, max: usize) -> Result<Vec<LedgerBlock>, CommitterError> {
        let blocks = self.caller.call(PORT, self.timeout, || self.reader.blocks(from, max)).await?;
        match blocks.get(max) {
            Some(extra) => Err(CheckError::Height(extra.block.header.height).at(from)),
            None => Ok(blocks),
        }
    }

    /// The block at `height`, which exists; waits for a node that is behind.
    pub(crate) async fn block(&self, height: u64) -> Result<LedgerBlock, CommitterError> {
        let mut patience = self.caller.patience(PORT);
        loop {
            if let Some(block) = self.blocks(height, 1).await?.pop() {
                let shown = block.block.header.height;
                return if shown == height { Ok(block) } else { Err(CheckError::Height(shown).at(height)) };
            }
            patience.after(behind(format!("block {height}"))).await?;
        }
    }

    /// Waits until a checkpoint covers a block above `height`, or for `timeout`; never less than the
    /// first pause, so that a node which contradicts itself is not asked in a tight loop.
    pub(crate) async fn wait_beyond(&self, height: u64, timeout: Duration) -> PortResult<()> {
        let limit = self.timeout.saturating_add(timeout);
        let wait = self.caller.call(PORT, limit, || self.reader.wait_beyond(height, timeout));
        let (waited, ()) = tokio::join!(wait, tokio::time::sleep(self.caller.retry.first));
        waited
    }
}

/// The node has not got as far as somebody else has.
pub(crate) fn behind(what: String) -> PortError {
    PortError::Unavailable { port: PORT, reason: format!("the node does not have {what} yet") }
}
