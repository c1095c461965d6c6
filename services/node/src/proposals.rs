//! Proposals that this node made or would vote for, durable until the height is decided: a vote
//! is for a hash, so what the hash stands for has to be here after a crash.

use std::{collections::BTreeMap, path::Path};

use chopmark_consensus::{PROPOSAL_BYTES_MAX, Slot};
use ledger_core::{
    Hash32,
    codec::{DecodeError, Reader, Writer},
    execute::Executed,
};
use segment_log::{Options, SegmentLog};

use crate::{
    NodeError,
    bugs::{Bug, has},
    disk,
};

/// Small: segments of decided heights are deleted.
const SEGMENT_BYTES: u64 = 16 << 20;

/// A kept proposal.
pub(crate) struct Kept {
    pub(crate) slot: Slot,
    pub(crate) bytes: Vec<u8>,
    /// Whether this node proposed it: never taken from what a peer says.
    pub(crate) own: bool,
    /// What its execution gave; made again after a restart.
    pub(crate) executed: Option<Executed>,
}

/// The kept proposals of the next height, by value.
pub(crate) struct Proposals {
    log: SegmentLog,
    kept: BTreeMap<Hash32, Kept>,
}

impl Proposals {
    /// Opens the log and reads those of `height`.
    pub(crate) fn open(path: &Path, height: u64) -> Result<Self, NodeError> {
        let options = Options { segment_bytes_max: SEGMENT_BYTES, ..disk::log_options() };
        let (log, _) = SegmentLog::open(path, options)?;
        let mut kept = BTreeMap::new();
        for record in log.iter_from(log.first_sequence()) {
            let record = record?;
            let damaged = |error: DecodeError| {
                NodeError::Damaged(format!("record {} in {}: {error}", record.sequence, path.display()))
            };
            let (value, proposal) = decode(&record.payload).map_err(damaged)?;
            if proposal.slot.height == height {
                kept.insert(value, proposal);
            }
        }
        Ok(Self { log, kept })
    }

    /// Keeps a proposal durably; one whose bytes are known is kept once.
    pub(crate) fn keep(&mut self, value: Hash32, kept: Kept) -> Result<(), NodeError> {
        if !self.kept.contains_key(&value) {
            if !has(Bug::ProposalsOnlyInMemory) {
                self.log.append(&[&encode(&value, &kept)])?;
            }
            // Durable after this line: what this node may vote for or has proposed.
            self.kept.insert(value, kept);
        }
        Ok(())
    }

    /// Lets go of the oldest rounds' until there is room for one more; never of what this node has
    /// proposed, nor of what it precommitted.
    pub(crate) fn make_room(&mut self, max: usize, locked: Option<&Hash32>) {
        while self.kept.len() >= max {
            let loose = self.kept.iter().filter(|(value, kept)| !kept.own && locked != Some(*value));
            let Some(oldest) = loose.min_by_key(|(_, kept)| kept.slot.round).map(|(value, _)| *value) else { return };
            self.kept.remove(&oldest);
        }
    }

    pub(crate) fn get(&self, value: &Hash32) -> Option<&Kept> {
        self.kept.get(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Hash32, &Kept)> {
        self.kept.iter()
    }

    pub(crate) fn take(&mut self, value: &Hash32) -> Option<Kept> {
        self.kept.remove(value)
    }

    /// The height is decided: nothing of it is needed any more.
    pub(crate) fn clear(&mut self) -> Result<(), NodeError> {
        if has(Bug::ProposalsOutliveTheirHeight) {
            return Ok(());
        }
        self.kept.clear();
        Ok(self.log.truncate_front(self.log.next_sequence())?)
    }
}

fn encode(value: &Hash32, kept: &Kept) -> Vec<u8> {
    let Slot { height, round, valid_round, proposer } = kept.slot;
    let mut writer = Writer::new();
    writer.u8(1).fixed(&value.0).u64(height).u32(round);
    writer.u8(u8::from(valid_round.is_some())).u32(valid_round.unwrap_or_default()).fixed(&proposer);
    writer.u8(u8::from(kept.own)).bytes(&kept.bytes);
    writer.finish()
}

fn decode(bytes: &[u8]) -> Result<(Hash32, Kept), DecodeError> {
    let mut reader = Reader::new(bytes);
    if reader.u8()? != 1 {
        return Err(DecodeError::Range("version"));
    }
    let value = Hash32(reader.array()?);
    let (height, round) = (reader.u64()?, reader.u32()?);
    let (locked, valid_round) = (reader.u8()?, reader.u32()?);
    let slot = Slot { height, round, valid_round: (locked == 1).then_some(valid_round), proposer: reader.array()? };
    let own = reader.u8()? == 1 && !has(Bug::ProposalsForgetWhoseTheyAre);
    let kept = Kept { slot, bytes: reader.bytes(PROPOSAL_BYTES_MAX)?.to_vec(), own, executed: None };
    reader.end()?;
    Ok((value, kept))
}
