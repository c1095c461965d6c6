//! What a node's internal interface and its clients say to each other: `GET
//! /internal/v1/ledger/{chain}/…`, one route for each call of [`LedgerReader`], and `POST
//! /internal/v1/submissions`. Nothing found is 204. [ADR 0019] says why it is so.
//!
//! [`LedgerReader`]: chopmark_domain::ports::LedgerReader
//! [ADR 0019]: ../../../../docs/adr/0019-roles-ask-nodes-over-http.md

use anyhow::{Context as _, ensure};
use chopmark_domain::ports::{BlockRef, DigestHits, LedgerBlock, LedgerReceipt, LedgerStatus};
use ledger_core::{
    Hash32,
    batch::BATCH_BYTES_MAX,
    block::Block,
    codec::{Reader, Writer},
    entry::ENTRY_BYTES_MAX,
    merkle::{LeafIndex, TreeSize},
    outcome::RejectionCode,
    receipt::Receipt,
};
use serde::{Deserialize, Serialize};

/// Where a node's answer with blocks ends, if it has one already.
pub(super) const BLOCKS_BYTES: usize = 16 << 20;
/// A full block and its entries beyond [`BLOCKS_BYTES`], none of which is larger than a batch and
/// what the ledger adds.
pub(super) const BLOCKS_BYTES_MAX: usize = BLOCKS_BYTES + 4 * BATCH_BYTES_MAX;
/// Longest answer of any other kind: the policies of a long history.
pub(super) const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Longest that a node lets a caller wait for a block.
pub(super) const WAIT_MS_MAX: u64 = 30_000;
/// Version of the encoding of blocks.
const BLOCKS_VERSION: u8 = 1;
pub(super) const BLOCKS_MAX: usize = 4096;
/// Most leaf indexes of a digest in one answer: several times what gateways ask for at once.
pub(super) const HITS_MAX: usize = 4096;
/// A block has an entry for each of its operations, and few of its own.
const ENTRIES_MAX: usize = BATCH_BYTES_MAX / 64;

#[derive(Serialize, Deserialize)]
pub(super) struct StatusView {
    pub(super) height: u64,
    pub(super) checkpoint_height: u64,
    pub(super) size: u64,
    pub(super) root: Hash32,
    pub(super) checkpoint: String,
    /// Whether the node decides and is sound: [`LedgerReader::is_well`].
    ///
    /// [`LedgerReader::is_well`]: chopmark_domain::ports::LedgerReader::is_well
    pub(super) well: bool,
}

impl StatusView {
    pub(super) fn new(status: LedgerStatus, well: bool) -> Self {
        let LedgerStatus { height, checkpoint_height, size, root, checkpoint } = status;
        Self { height, checkpoint_height, size: size.0, root, checkpoint, well }
    }

    pub(super) fn status(self) -> LedgerStatus {
        let Self { height, checkpoint_height, size, root, checkpoint, well: _ } = self;
        LedgerStatus { height, checkpoint_height, size: TreeSize(size), root, checkpoint }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct BlockRefView {
    pub(super) height: u64,
    pub(super) time: u64,
    pub(super) hash: Hash32,
}

impl From<BlockRef> for BlockRefView {
    fn from(BlockRef { height, time, hash }: BlockRef) -> Self {
        Self { height, time, hash }
    }
}

impl From<BlockRefView> for BlockRef {
    fn from(BlockRefView { height, time, hash }: BlockRefView) -> Self {
        Self { height, time, hash }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct ReceiptView {
    /// `tlog-proof@v1`
    pub(super) receipt: String,
    pub(super) size: u64,
    pub(super) root: Hash32,
    pub(super) cosigners: (usize, usize),
    pub(super) time: u64,
}

impl From<LedgerReceipt> for ReceiptView {
    fn from(LedgerReceipt { receipt, size, root, cosigners, time }: LedgerReceipt) -> Self {
        Self { receipt: receipt.render(), size: size.0, root, cosigners, time }
    }
}

impl TryFrom<ReceiptView> for LedgerReceipt {
    type Error = anyhow::Error;

    fn try_from(ReceiptView { receipt, size, root, cosigners, time }: ReceiptView) -> anyhow::Result<Self> {
        Ok(Self {
            receipt: Receipt::parse(&receipt).context("the receipt cannot be read")?,
            size: TreeSize(size),
            root,
            cosigners,
            time,
        })
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct HitsView {
    pub(super) indexes: Vec<u64>,
    pub(super) complete_to: u64,
}

impl From<DigestHits> for HitsView {
    fn from(DigestHits { indexes, complete_to }: DigestHits) -> Self {
        Self { indexes: indexes.into_iter().map(|index| index.0).collect(), complete_to: complete_to.0 }
    }
}

impl From<HitsView> for DigestHits {
    fn from(HitsView { indexes, complete_to }: HitsView) -> Self {
        Self { indexes: indexes.into_iter().map(LeafIndex).collect(), complete_to: TreeSize(complete_to) }
    }
}

/// Blocks to find: from a height on, so many at most.
#[derive(Serialize, Deserialize)]
pub(super) struct BlocksQuery {
    pub(super) from: u64,
    pub(super) max: usize,
}

/// Leaf indexes of a digest: from an index on, so many at most.
#[derive(Serialize, Deserialize)]
pub(super) struct HitsQuery {
    pub(super) from: u64,
    pub(super) max: usize,
}

/// What to wait for: a checkpoint above a height, for so long at most.
#[derive(Serialize, Deserialize)]
pub(super) struct WaitQuery {
    pub(super) beyond: u64,
    pub(super) timeout_ms: u64,
}

/// How one operation of a submission ended: with a leaf index, or with the code of a rejection.
#[derive(Serialize, Deserialize)]
pub(crate) struct EndedView {
    pub(crate) request: Hash32,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) code: Option<RejectionCode>,
}

/// Why there is no answer.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct RefusalView {
    pub(crate) title: String,
    pub(crate) status: u16,
    /// The pool is full: the same may be taken later.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub(crate) full: bool,
    /// Operations (positions, reasons) that can never be part of a block.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) malformed: Vec<(usize, String)>,
}

/// Version, count, then each block with its entries; not more than fit into [`BLOCKS_BYTES`], but one.
pub(super) fn encode_blocks(blocks: &[LedgerBlock]) -> Vec<u8> {
    let mut encoded: Vec<Vec<u8>> = Vec::with_capacity(blocks.len());
    let mut bytes = 0;
    for LedgerBlock { block, entries } in blocks {
        let mut writer = Writer::new();
        writer.bytes(&block.encode()).count(entries.len());
        for entry in entries {
            writer.bytes(entry);
        }
        let block = writer.finish();
        bytes += block.len();
        if bytes > BLOCKS_BYTES && !encoded.is_empty() {
            break;
        }
        encoded.push(block);
    }
    let mut writer = Writer::new();
    writer.u8(BLOCKS_VERSION).count(encoded.len());
    for block in &encoded {
        writer.fixed(block);
    }
    writer.finish()
}

pub(super) fn decode_blocks(bytes: &[u8]) -> anyhow::Result<Vec<LedgerBlock>> {
    let mut reader = Reader::new(bytes);
    let version = reader.u8()?;
    ensure!(version == BLOCKS_VERSION, "blocks of version {version}, which is not known here");
    let mut blocks = Vec::new();
    for _ in 0..reader.count(BLOCKS_MAX)? {
        let block = Block::decode(reader.bytes(BLOCKS_BYTES_MAX)?)?;
        let mut entries = Vec::new();
        for _ in 0..reader.count(ENTRIES_MAX)? {
            entries.push(reader.bytes(ENTRY_BYTES_MAX)?.to_vec());
        }
        blocks.push(LedgerBlock { block, entries });
    }
    reader.end()?;
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_cannot_be_read_are_refused() {
        assert!(decode_blocks(&encode_blocks(&[])).unwrap().is_empty());
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = encode_blocks(&[]);
            change(&mut bytes);
            decode_blocks(&bytes).is_err()
        };
        assert!(with(&|bytes| bytes[0] = BLOCKS_VERSION + 1), "another version");
        assert!(with(&|bytes| bytes.push(0)), "more than there is");
        assert!(with(&|bytes| *bytes.last_mut().unwrap() = 1), "fewer blocks than announced");
        assert!(with(&|bytes| bytes.truncate(2)), "torn");
    }
}
