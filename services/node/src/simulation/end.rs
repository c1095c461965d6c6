//! What has to hold once all faults are over.

use std::{collections::BTreeMap, hash::Hasher as _, sync::Arc};

use chopmark_consensus::Application as _;
use ledger_core::{
    digests::Algorithm,
    merkle::LeafIndex,
    verify::{Verdict, verify},
};
use rand::RngExt as _;

use super::{
    checker::Fault,
    clients::content,
    disk::{self, Crash},
    profile::domain,
    world::{Node, World},
};
use crate::{NodeError, NodeHandle};

impl World {
    pub(super) fn standing(&self) -> String {
        let of = |(at, node): (usize, &Node)| match &node.running {
            None => format!("{at} is down"),
            Some(running) => {
                let shared = &running.ledger.shared;
                let published = shared.published.load().as_ref().as_ref().map(|published| published.size.0);
                format!(
                    "{at}{} at height {}, size {} of which {published:?} published, {} bytes in its pool; {}{}\n",
                    if running.engine.votes() { "" } else { " follows" },
                    running.ledger.parent().height,
                    running.ledger.parent().frontier.size().0,
                    shared.pool.bytes(),
                    running.engine.standing(),
                    node.damaged(),
                )
            }
        };
        let nodes: Vec<String> = self.nodes.iter().enumerate().map(of).collect();
        format!("{} operations without an answer; {}", self.pending.len(), nodes.join("; "))
    }

    pub(super) fn has_converged(&self) -> bool {
        let (height, size) = (self.checker.height(), self.checker.size());
        let is_up = |(at, node): (usize, &Node)| {
            let Some(running) = &node.running else { return false };
            let shared = &running.ledger.shared;
            let covered = shared
                .published
                .load()
                .as_ref()
                .as_ref()
                .is_some_and(|published| published.height == height && published.size == size);
            let member = self.checker.is_member(&domain(at));
            let sound = self.profile.liar == Some(at) || shared.damage.parts().is_empty();
            running.ledger.parent().height == height && shared.pool.is_empty() && (covered || !member) && sound
        };
        self.pending.is_empty() && self.nodes.iter().enumerate().all(is_up)
    }

    /// Everything is decided and published; what was promised is still there after a restart.
    pub(super) fn end(&mut self) -> Result<(), Fault> {
        for op in &self.operations {
            if self.checker.ended(op).is_none() {
                return Err(format!("{op} was answered and is not in the log"));
            }
        }
        self.heal()?;
        for at in (0..self.nodes.len()).filter(|at| self.is_honest(*at)).collect::<Vec<_>>() {
            self.check_node(at)?;
        }
        let at = self.random.random_range(0..self.nodes.len());
        if self.is_honest(at) {
            let height = self.checker.height();
            let place = self.nodes[at].place.clone();
            self.nodes[at].running = None;
            let image = disk::crash(&place, Crash::PowerLost).map_err(|error| error.to_string())?;
            let running = self.open(at, &image).map_err(|error| format!("node {at} does not start again: {error}"))?;
            if running.ledger.parent().height != height {
                return Err(format!("node {at} has lost blocks at rest"));
            }
            self.nodes[at].running = Some(running);
            self.check_node(at)?;
        }
        self.tally.heights = self.checker.height();
        self.tally.operations = self.operations.len();
        self.tally.trace = self.trace.finish();
        Ok(())
    }

    fn check_node(&mut self, at: usize) -> Result<(), Fault> {
        let Some(running) = &self.nodes[at].running else { return Err(format!("node {at} is down")) };
        let handle = NodeHandle(Arc::clone(&running.ledger.shared));
        let failed = |error: NodeError| format!("reading at node {at}: {error}");
        if handle.pool_bytes() != 0 {
            return Err(format!("the empty pool of node {at} has {} bytes", handle.pool_bytes()));
        }
        for height in 1..=running.ledger.parent().height {
            let block = running.ledger.decided(height).map_err(|error| error.to_string())?;
            let (bytes, certificate) = block.ok_or_else(|| format!("node {at} has lost block {height}"))?;
            self.checker.decided(at, height, &bytes, &certificate)?;
        }
        if handle.policies() != *self.checker.policies() {
            return Err(format!("node {at} has another history of policies"));
        }
        let log = &running.ledger.shared.checkpoints;
        let mut notes = BTreeMap::new();
        for record in log.iter_from(0) {
            let record = record.map_err(|error| error.to_string())?;
            let record = crate::handle::CheckpointRecord::decode(&record.payload).map_err(|error| error.to_string())?;
            let signed = record.signed().map_err(failed)?;
            notes.entry(signed.checkpoint.size.0).or_insert_with(Vec::new).push(record.note);
        }
        for (size, note) in self.checker.publications(at) {
            if !notes.get(size).is_some_and(|notes| notes.contains(note)) {
                return Err(format!("node {at} has lost a checkpoint of size {size} that it published"));
            }
        }
        if !self.checker.is_member(&domain(at)) {
            return Ok(());
        }
        let policies = handle.policies();
        let size = self.checker.size().0;
        for index in [size - 1, self.random.random_range(0..size)].map(LeafIndex) {
            let receipt = handle.receipt(index).map_err(failed)?;
            let receipt = receipt.ok_or_else(|| format!("node {at} has no receipt for entry {}", index.0))?;
            let entry = handle.entry(index).map_err(failed)?.ok_or("no entry")?;
            let (_, policy) = policies.range(..=receipt.size.0).next_back().ok_or("no policy")?;
            let verdict = verify(None, &entry, receipt.receipt.render().as_bytes(), policy.as_bytes());
            if !matches!(verdict, Verdict::Valid(_)) {
                return Err(format!("receipt of entry {} by node {at}: {verdict}", index.0));
            }
        }
        if let Some(op) = self.operations.iter().rev().find(|op| self.evidence.contains(op))
            && let Some(Ok(index)) = self.checker.ended(op)
        {
            let digest = content(op).sha3_256.ok_or("no digest")?;
            let found = handle.find(Algorithm::Sha3_256, &digest, LeafIndex(0), 10).map_err(failed)?;
            if found.indexes != [LeafIndex(index)] {
                return Err(format!("node {at} finds {op} at {:?} instead of {index}", found.indexes));
            }
        }
        Ok(())
    }
}
