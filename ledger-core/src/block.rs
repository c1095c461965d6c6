//! Blocks: header, batch, verdicts, commit certificate, and their encodings.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    batch::{BATCH_BYTES_MAX, Batch, batch_hash},
    codec::{DecodeError, Reader, Writer},
    hash::{Hash32, tagged},
    json::{JsonError, from_canonical, to_canonical},
    operation::{Operation, OperationError, V1, integer53},
    outcome::{Outcome, RejectionCode, Verdict, outcomes_root},
    vote::{CERTIFICATE_BYTES_MAX, Certificate},
};

/// Largest header: all its fields are of fixed or bounded length.
pub const HEADER_BYTES_MAX: usize = 2048;
/// Every so many heights the header carries the digest of the whole state, that many heights
/// earlier; snapshots exist only there.
pub const STATE_DIGEST_INTERVAL: u64 = 10_000;

/// The height whose whole state the header of `height` must carry the digest of, if any.
#[must_use]
pub const fn state_digest_height(height: u64) -> Option<u64> {
    if height.is_multiple_of(STATE_DIGEST_INTERVAL) && height >= 2 * STATE_DIGEST_INTERVAL {
        Some(height - STATE_DIGEST_INTERVAL)
    } else {
        None
    }
}

/// What validators agree on; canonical JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Hash of the batch bytes.
    pub batch: Hash32,
    /// Chain id.
    pub chain: Hash32,
    /// Digest of the state changes.
    pub changes: Hash32,
    /// Height; the genesis is 0.
    #[serde(deserialize_with = "integer53")]
    pub height: u64,
    /// Hash of the member set in force.
    pub members: Hash32,
    /// Hash of the member set in force at the next height.
    pub next_members: Hash32,
    /// Root of the outcomes tree.
    pub outcomes: Hash32,
    /// Hash of the previous header; zeros at the genesis.
    pub previous: Hash32,
    /// Root of the log after this block.
    pub root: Hash32,
    /// Digest of the whole ordered state [`STATE_DIGEST_INTERVAL`] heights earlier, at its
    /// multiples from the second on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub state: Option<Hash32>,
    /// Block time, Unix ms; never before the previous block's.
    #[serde(deserialize_with = "integer53")]
    pub time: u64,
    /// Size of the log after this block.
    #[serde(deserialize_with = "integer53")]
    pub tree_size: u64,
    /// Version.
    pub v: V1,
}

impl Header {
    /// Canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        to_canonical(self)
    }

    /// Reads canonical bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        from_canonical(bytes)
    }

    /// Header hash: the consensus value.
    #[must_use]
    pub fn hash(&self) -> Hash32 {
        tagged("chopmark/header/v1", &[&self.encode()])
    }
}

/// A decided block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// What was agreed on.
    pub header: Header,
    /// The operations, encoded ([`Batch::encode`]).
    pub batch: Vec<u8>,
    /// What came of each operation, in the batch's order.
    pub verdicts: Vec<Verdict>,
    /// The quorum's signatures.
    pub certificate: Certificate,
}

/// Why bytes are not a block.
#[derive(Debug, Error)]
pub enum BlockError {
    /// Framing.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Header or certificate.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The batch is not the one that the header names.
    #[error("batch does not match the header")]
    Batch,
    /// An operation of the batch is malformed.
    #[error(transparent)]
    Operation(#[from] OperationError),
    /// The verdicts are not those that the header names.
    #[error("verdicts do not match the header")]
    Outcomes,
}

impl Block {
    /// The block's bytes in the block log and between nodes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(1).bytes(&self.header.encode()).bytes(&self.batch).count(self.verdicts.len());
        for verdict in &self.verdicts {
            match verdict {
                Verdict::Committed { index, entry } => writer.u8(0).u64(*index).fixed(&entry.0),
                Verdict::Rejected(code) => writer.u8(1).u8(code.number()),
            };
        }
        writer.bytes(&self.certificate.encode());
        writer.finish()
    }

    /// Reads a block and checks that header and batch belong together. Whether the verdicts do is
    /// checked by [`Self::outcomes`], the decision itself by [`Certificate::verify`].
    pub fn decode(bytes: &[u8]) -> Result<Self, BlockError> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != 1 {
            return Err(DecodeError::Range("block version").into());
        }
        let header = Header::parse(reader.bytes(HEADER_BYTES_MAX)?)?;
        let batch = reader.bytes(BATCH_BYTES_MAX)?.to_vec();
        let mut verdicts = Vec::new();
        for _ in 0..reader.count(BATCH_BYTES_MAX / 64)? {
            verdicts.push(match reader.u8()? {
                0 => Verdict::Committed { index: reader.u64()?, entry: Hash32(reader.array()?) },
                1 => {
                    let code = RejectionCode::from_number(reader.u8()?);
                    Verdict::Rejected(code.ok_or(DecodeError::Range("rejection code"))?)
                }
                _ => return Err(DecodeError::Range("verdict tag").into()),
            });
        }
        let certificate = Certificate::parse(reader.bytes(CERTIFICATE_BYTES_MAX)?)?;
        reader.end()?;
        if batch_hash(&batch) != header.batch {
            return Err(BlockError::Batch);
        }
        Ok(Self { header, batch, verdicts, certificate })
    }

    /// The operations.
    pub fn decode_batch(&self) -> Result<Batch, DecodeError> {
        Batch::decode(&self.batch)
    }

    /// The outcome of each operation in batch order, checked against the header's outcomes root:
    /// after this, every verdict is one that the quorum agreed on.
    pub fn outcomes(&self) -> Result<Vec<Outcome>, BlockError> {
        let batch = self.decode_batch()?;
        let operations: Vec<_> = batch.operations().collect();
        if operations.len() != self.verdicts.len() {
            return Err(BlockError::Outcomes);
        }
        let mut outcomes = Vec::with_capacity(operations.len());
        for (signed, verdict) in operations.into_iter().zip(&self.verdicts) {
            let common = Operation::parse(&signed.operation)?.common();
            outcomes.push(Outcome { op: common.op, request: common.request, verdict: *verdict });
        }
        if outcomes_root(&outcomes) == self.header.outcomes { Ok(outcomes) } else { Err(BlockError::Outcomes) }
    }
}
