//! The slow walk over everything that is stored, so that damage is found that nobody reads.

use std::time::Duration;

use ledger_core::{
    merkle::LeafIndex,
    tile::{TILE_WIDTH, TileKind},
};

use crate::{
    NodeError,
    bugs::{Bug, has},
    damage::Part,
    derived::index_keys,
    handle::Shared,
    repair::unsound,
};

/// Pace of the walk over the tree: below 2 MiB/s where entries have 300 bytes.
const PAUSE: Duration = Duration::from_millis(50);
/// Rest after a whole walk.
const REST: Duration = Duration::from_secs(60 * 60);
/// Pace while blocks are being written behind.
const PAUSE_BUSY: Duration = Duration::from_secs(1);
/// After a read that failed for another reason than damage.
const PAUSE_FAILED: Duration = Duration::from_secs(60);
/// With more damaged keys than this the index is made anew as a whole.
const KEYS_MAX: usize = 1_000;

/// Where the walk is.
pub(crate) struct Scrub {
    /// Next bundle.
    next: u64,
    due: Duration,
}

impl Scrub {
    /// Begins at the first bundle, at once.
    pub(crate) const fn new() -> Self {
        Self { next: 0, due: Duration::ZERO }
    }

    /// When the next step is due.
    pub(crate) const fn due(&self) -> Duration {
        self.due
    }

    /// Checks one bundle with everything above it and in the index.
    pub(crate) fn step(&mut self, shared: &Shared, now: Duration) {
        self.due = now + if shared.backlog.is_idle() { PAUSE } else { PAUSE_BUSY };
        match self.check(shared) {
            Ok(true) => {
                self.next += 1;
                metrics::counter!("chopmark_node_scrubbed_bundles_total").increment(1);
            }
            Ok(false) => {
                self.next = 0;
                self.due = now + REST;
                metrics::counter!("chopmark_node_scrub_rounds_total").increment(1);
            }
            // What is damaged is noted, and heals; the walk goes on behind it.
            Err(NodeError::DamagedPart { part, reason }) => {
                shared.damage.note(part, &reason);
                self.next += 1;
            }
            Err(error) => {
                let error = shared.noted(error);
                tracing::warn!(%error, bundle = self.next, "the scrub cannot read");
                self.due = now + PAUSE_FAILED;
            }
        }
        metrics::gauge!("chopmark_node_scrub_bundle").set(self.next as f64);
    }

    /// Checks the next bundle, everything above it, and that the index has what it holds. `false` behind
    /// the last one.
    fn check(&self, shared: &Shared) -> Result<bool, NodeError> {
        let store = &shared.state.store;
        let applied = store.applied()?.map_or(0, |applied| applied.size.0);
        let (first, end) = (self.next * TILE_WIDTH, applied.min((self.next + 1) * TILE_WIDTH));
        if first >= end {
            return Ok(false);
        }
        // The incomplete bundle is no file: what the index has of it can be damaged all the same.
        if end - first == TILE_WIDTH {
            let tiles = unsound(shared, [(TileKind::Hashes(0), self.next), (TileKind::Entries, self.next)])?;
            if !tiles.is_empty() {
                return Ok(true);
            }
        }
        let entries = shared.tree().entries(first, end)?;
        let mut missing = 0;
        for (key, index) in index_keys(first, &entries) {
            let found = store.find(&key, LeafIndex(index), 1)?.contains(&LeafIndex(index));
            if !found && !has(Bug::ScrubSkipsTheIndex) {
                missing += 1;
                shared.damage.note(Part::Key(key), &format!("the index lacks entry {index}"));
            }
        }
        if missing > 0 && shared.damage.parts().iter().filter(|part| matches!(part, Part::Key(_))).count() > KEYS_MAX {
            store.mark("more keys are damaged than are healed one by one");
            shared.fail(&NodeError::Damaged("the index is wrecked; the next start makes it anew".to_owned()));
        }
        Ok(true)
    }
}
