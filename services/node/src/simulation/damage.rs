//! Damage to what nodes have stored: files that rot between two events, positions that the index
//! loses, peers that serve something else. And what has to hold meanwhile: whatever a node serves is
//! right or an error, no file holds anything but the truth or the damage itself, nobody signs while
//! it knows of damage, and in the end everything is whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use ledger_core::{
    merkle::{LeafIndex, TreeSize},
    tile::{TILE_WIDTH, TileKind, TilePath},
    verify::{Verdict, verify},
};
use rand::{Rng, RngExt as _, SeedableRng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;

use super::{
    checker::Fault,
    disk,
    faults::FaultKind,
    peers::SimulatedPeer,
    profile::{Profile, domain},
    store::Contents,
    world::{Event, Node, Running, World},
};
use crate::{
    NodeError, NodeHandle, Part, PeerTiles, derived::index_keys, handle::CheckpointRecord, scrub::Scrub, tiles::full,
};

const KINDS: [TileKind; 2] = [TileKind::Hashes(0), TileKind::Entries];
/// Whole walks of all nodes in which everything has to heal.
const ROUNDS_MAX: usize = 4;

/// Share of the worlds in which something is damaged, of those without older copies.
const SHARE: f64 = 0.09;
/// Chance that a peer does not answer, before everything is calm: what cannot heal at once has to last.
const PEER_AWAY: f64 = 0.5;

/// Of the whole world.
pub(super) struct Damaging {
    /// Its own, so that a seed without damage is what it was.
    pub(super) random: ChaCha8Rng,
    /// Whether anything is damaged in this world.
    pub(super) happens: bool,
    /// Whose files stay whole: what it has published, the others can heal from. Nobody where a node is
    /// alone: it has its block log.
    whole: Option<usize>,
}

impl Damaging {
    /// Makes a world one with damage, or leaves it.
    pub(super) fn draw(seed: u64, always: bool, profile: &mut Profile) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(!seed);
        profile.older_copies &= !always;
        let happens = (!profile.older_copies && random.random_bool(SHARE)) || always;
        if happens {
            profile.submissions = random.random_range(7..12);
            profile.derive = profile.derive.max(0.2);
            if random.random_bool(0.7) {
                profile.large = random.random_range(256..300);
                profile.larges = random.random_range(1..3);
            }
        }
        let whole = (0..profile.members).find(|at| profile.nodes > 1 && profile.liar != Some(*at));
        Self { random, happens, whole }
    }
}

/// Of one node.
#[derive(Default)]
pub(super) struct Wounds {
    /// What the world made of files; nothing where it took one away.
    tiles: BTreeMap<(TileKind, u64), Option<Vec<u8>>>,
    /// Whether anything was ever damaged here.
    any: bool,
    /// What the node knows and has not healed.
    known: BTreeSet<Part>,
    /// What of that a restart must not make it forget.
    kept: BTreeSet<Part>,
    repair_at: u64,
}

/// Where a full tile or bundle lies in the folder of a node.
fn place_of(kind: TileKind, index: u64) -> String {
    format!("data/log/{}", full(kind, index).path())
}

/// Size of the newest checkpoint that a node shows.
pub(super) fn published_size(running: &Running) -> u64 {
    running.ledger.shared.published.load().as_ref().as_ref().map_or(0, |published| published.size.0)
}

fn harm(bytes: &[u8], random: &mut impl Rng) -> Option<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    match random.random_range(0..4) {
        0 => return None,
        1 => bytes.truncate(random.random_range(0..bytes.len())),
        _ => {
            let at = random.random_range(0..bytes.len());
            bytes[at] ^= 1 << random.random_range(0..8);
        }
    }
    Some(bytes)
}

/// Makes the index lose a position, or find something by what it does not hold.
fn harm_index(index: &mut Contents, random: &mut impl Rng) -> bool {
    let names = ["digest", "digest", "digest_more", "height_by_size", "checkpoint"];
    let name = names[random.random_range(0..names.len())];
    let Some(items) = index.get_mut(name) else { return false };
    let keys: Vec<Vec<u8>> = items.keys().cloned().collect();
    let (Some(key), Some(other)) = (keys.choose(random), keys.choose(random)) else { return false };
    if name == "digest" && random.random_bool(0.4) {
        let value = items[other].clone();
        items.insert(key.clone(), value) != Some(items[key].clone())
    } else {
        items.remove(key).is_some()
    }
}

impl World {
    /// When what is damaged, and when somebody reads first. Damage needs time to be met and to heal.
    pub(super) fn plan_damage(&mut self, end: u64) -> u64 {
        if !self.damaging.happens {
            return end;
        }
        let end = end + 2_000_000;
        for _ in 0..self.damaging.random.random_range(4..14) {
            let at = self.damaging.random.random_range(600_000..end);
            let node = self.damaging.random.random_range(0..self.nodes.len());
            self.schedule(at, Event::Fault(FaultKind::Damage(node)));
        }
        self.schedule(500_000, Event::Read);
        end
    }

    /// In a world with damage, submissions come until its end, so that there is something to sign.
    pub(super) fn has_something_to_submit(&mut self) -> bool {
        !self.damaging.happens || self.submissions < 5 || self.damaging.random.random_bool(0.25)
    }

    /// Something that is stored at a node is damaged.
    pub(super) fn damage(&mut self, at: usize) -> Result<(), Fault> {
        if !self.is_honest(at) {
            return Ok(());
        }
        let random = &mut self.damaging.random;
        let node = &mut self.nodes[at];
        let place = node.place.clone();
        if random.random_bool(0.3) {
            let harmed = if node.running.is_some() {
                harm_index(&mut disk::contents_of(&place).lock(), random)
            } else {
                harm_index(&mut node.image.index, random)
            };
            node.wounds.any |= harmed;
            return Ok(());
        }
        // Nobody heals what nobody can show: it has to be published where it stays whole.
        let bundles = match self.damaging.whole {
            Some(whole) if whole == at => 0,
            Some(whole) => self.published_size(whole) / TILE_WIDTH,
            None => self.checker.size().0 / TILE_WIDTH,
        };
        if bundles == 0 {
            return Ok(());
        }
        let random = &mut self.damaging.random;
        let index = random.random_range(0..bundles);
        // Often a tile and its bundle together: neither can be made from the other then.
        let kinds = [&KINDS[..1], &KINDS[1..], &KINDS[..]][random.random_range(0..3)];
        for kind in kinds {
            let (random, node) = (&mut self.damaging.random, &mut self.nodes[at]);
            let inside = place_of(*kind, index);
            let path = place.join(&inside);
            let bytes = match &node.running {
                Some(_) => std::fs::read(&path).ok(),
                None => node.image.files.get(Path::new(&inside)).cloned(),
            };
            let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else { continue };
            let harmed = harm(&bytes, random);
            if node.running.is_some() {
                disk::damage(&path, harmed.as_deref()).map_err(|error| error.to_string())?;
            } else {
                match harmed.clone() {
                    Some(bytes) => drop(node.image.files.insert(inside.into(), bytes)),
                    None => drop(node.image.files.remove(Path::new(&inside))),
                }
            }
            node.wounds.tiles.insert((*kind, index), harmed);
            node.wounds.any = true;
        }
        Ok(())
    }

    fn published_size(&self, at: usize) -> u64 {
        self.nodes[at].running.as_ref().map_or(0, published_size)
    }

    /// Whom a node can ask now. In a world without damage nobody is asked.
    pub(super) fn peers_of(&mut self, at: usize) -> Vec<Arc<dyn PeerTiles>> {
        let mut peers: Vec<Arc<dyn PeerTiles>> = Vec::new();
        if !self.damaging.happens {
            return peers;
        }
        for other in (0..self.nodes.len()).filter(|other| *other != at) {
            let loss = if self.calm { 0.0 } else { PEER_AWAY };
            let reached = self.group[at] == self.group[other] && !self.damaging.random.random_bool(loss);
            let running = self.nodes[other].running.as_ref().filter(|_| reached);
            let node = running.map(|running| NodeHandle(Arc::clone(&running.ledger.shared)));
            let lies = self.nodes[other].liar.is_some();
            peers.push(Arc::new(SimulatedPeer::new(domain(other), node, lies, self.damaging.random.random())));
        }
        peers
    }

    /// A pass of a node's repair.
    pub(super) fn repair(&mut self, at: usize, incarnation: u32) -> Result<(), Fault> {
        let node = &self.nodes[at];
        if node.incarnation != incarnation || node.wounds.repair_at > self.now {
            return Ok(());
        }
        let peers = self.peers_of(at);
        let mut next = None;
        self.on_node(at, 7, |running, now, _| {
            let now = Duration::from_micros(now);
            next = Some(running.repair.step(&running.ledger.shared, &peers, || now));
            Ok(())
        })?;
        if let Some(next) = next.filter(|_| self.nodes[at].incarnation == incarnation) {
            self.check_files(at)?;
            let node = &mut self.nodes[at];
            node.wounds.kept = node.wounds.known.clone();
            let next = u64::try_from(next.as_micros()).unwrap_or(u64::MAX).max(self.now + 1_000);
            node.wounds.repair_at = next;
            self.schedule(next, Event::Repair(at, incarnation));
        }
        Ok(())
    }

    /// Damage that was noted wakes the repair, and stays known to the world.
    pub(super) fn notice(&mut self) {
        if !self.damaging.happens {
            return;
        }
        for at in (0..self.nodes.len()).filter(|at| self.is_honest(*at)).collect::<Vec<_>>() {
            let node = &mut self.nodes[at];
            let Some(running) = &node.running else { continue };
            let damage = &running.ledger.shared.damage;
            let soon = self.now + self.damaging.random.random_range(1_000..300_000);
            node.wounds.known.extend(damage.parts());
            if damage.is_fresh() && node.wounds.repair_at > soon {
                node.wounds.repair_at = soon;
                let incarnation = node.incarnation;
                self.schedule(soon, Event::Repair(at, incarnation));
            }
        }
    }

    /// A node has just signed: nothing that it knows to be damaged may be so still.
    pub(super) fn may_have_signed(&self, at: usize, running: &Running) -> Result<(), Fault> {
        let damaged = self.nodes[at].wounds.known.iter().find(|part| !self.is_sound(at, running, part));
        damaged.map_or(Ok(()), |part| {
            Err(format!("node {at} signed size {}, and {part} is known to be damaged", running.ledger.signed().0))
        })
    }

    /// Whether a part is what it has to be, looked at past the node.
    fn is_sound(&self, at: usize, running: &Running, part: &Part) -> bool {
        let (shared, applied) = (&running.ledger.shared, running.applied);
        let store = &shared.state.store;
        match part {
            Part::Tile(kind, index) => {
                let stored = || std::fs::read(self.nodes[at].place.join(place_of(*kind, *index))).ok();
                shared.tree().is_in_memory(*kind, *index)
                    || stored().is_some_and(|bytes| Some(bytes) == self.checker.tile(&full(*kind, *index)))
            }
            Part::Key(key) => {
                let found = store.find(key, LeafIndex(0), usize::MAX).unwrap_or_default();
                let truth: Vec<LeafIndex> = self.checker.positions(key, applied.size.0);
                found == truth
            }
            Part::BlockOf(index) => {
                index.0 >= applied.size.0
                    || store.height_of(*index).ok().flatten() == Some(self.checker.height_of(*index))
            }
            Part::CheckpointOver(index) => {
                let size = |record: u64| {
                    let bytes = shared.checkpoints.read(record).ok()??;
                    Some(CheckpointRecord::decode(&bytes).ok()?.signed().ok()?.checkpoint.size.0)
                };
                let first = (0..applied.checkpoints).find(|record| size(*record).is_some_and(|size| size > index.0));
                store.checkpoint_over(*index).ok() == Some(first)
            }
            Part::Block(_) => true,
        }
    }

    /// Every file of full tiles and bundles holds the truth, or what the world made of it.
    pub(super) fn check_files(&mut self, at: usize) -> Result<(), Fault> {
        if !self.damaging.happens || !self.is_honest(at) {
            return Ok(());
        }
        let node = &mut self.nodes[at];
        let mut healed = Vec::new();
        for (kind, index) in KINDS.into_iter().flat_map(|kind| (0..4).map(move |index| (kind, index))) {
            let inside = place_of(kind, index);
            let bytes = match &node.running {
                Some(_) => std::fs::read(node.place.join(&inside)).ok(),
                None => node.image.files.get(Path::new(&inside)).cloned(),
            };
            let truth = self.checker.tile(&full(kind, index));
            if bytes.is_none() {
                continue;
            }
            // Without a truth: of a block that was decided in the moment of a crash.
            let is_wound = node.wounds.tiles.get(&(kind, index)) == Some(&bytes);
            if bytes == truth {
                healed.push((kind, index));
            } else if !is_wound && (truth.is_some() || node.running.is_some()) {
                return Err(format!("node {at} has written {inside}, and it is wrong"));
            }
        }
        if node.running.is_some() {
            // What is healed stays so, whatever happens to the machine.
            healed.iter().for_each(|part| drop(node.wounds.tiles.remove(part)));
        }
        let mut known = std::mem::take(&mut node.wounds.known);
        if let Some(running) = &self.nodes[at].running {
            let damage = &running.ledger.shared.damage;
            known.retain(|part| damage.contains(part) || !self.is_sound(at, running, part));
        }
        self.nodes[at].wounds.known = known;
        Ok(())
    }

    /// A stopped node starts: what is known stays known, unless index and tiles were moved away.
    pub(super) fn wounds_at_start(&mut self, at: usize, moved_away: bool) -> Result<(), Fault> {
        if moved_away {
            self.nodes[at].wounds.tiles.clear();
        }
        self.check_files(at)?;
        let wounds = &mut self.nodes[at].wounds;
        wounds.known = wounds.kept.clone();
        Ok(())
    }

    /// A node runs again.
    pub(super) fn repair_starts(&mut self, at: usize) {
        if self.damaging.happens && self.is_honest(at) {
            let soon = self.now + self.damaging.random.random_range(1_000..2_000_000);
            self.nodes[at].wounds.repair_at = soon;
            let incarnation = self.nodes[at].incarnation;
            self.schedule(soon, Event::Repair(at, incarnation));
        }
    }

    /// Whether a node that does not start is excused: too much of it is damaged, and nobody helps yet.
    pub(super) fn is_excused(&mut self, at: usize, error: &NodeError) -> bool {
        let damaged = matches!(error, NodeError::Damaged(_) | NodeError::DamagedPart { .. });
        let excused = damaged && !self.nodes[at].wounds.tiles.is_empty();
        if excused && self.damaging.whole.is_none() {
            // Alone, its operator does what the runbook says.
            self.nodes[at].image.lose_derived();
            self.nodes[at].wounds.tiles.clear();
        }
        excused
    }

    /// Somebody reads at some node, or its scrub walks.
    pub(super) fn read(&mut self) -> Result<(), Fault> {
        let again = self.now + self.damaging.random.random_range(50_000..400_000);
        self.schedule(again, Event::Read);
        let at = self.damaging.random.random_range(0..self.nodes.len());
        if !self.is_honest(at) || self.nodes[at].running.is_none() {
            return Ok(());
        }
        if self.damaging.random.random_bool(0.1) {
            return self.scrub(at);
        }
        let size = self.published_size(at);
        if size == 0 {
            return Ok(());
        }
        let index = LeafIndex(self.damaging.random.random_range(0..size));
        self.read_at(at, index).map(drop)
    }

    fn scrub(&mut self, at: usize) -> Result<(), Fault> {
        let (now, node) = (self.now, &mut self.nodes[at]);
        if let Some(running) = &mut node.running {
            running.repair.scrub = Scrub::new();
        }
        node.wounds.repair_at = now;
        let incarnation = node.incarnation;
        self.repair(at, incarnation)
    }

    /// Reads everything about an entry. Whether all of it was there.
    fn read_at(&mut self, at: usize, index: LeafIndex) -> Result<bool, Fault> {
        let Some(running) = &self.nodes[at].running else { return Ok(false) };
        let handle = NodeHandle(Arc::clone(&running.ledger.shared));
        let size = self.published_size(at);
        let (checker, wounded) = (&self.checker, self.nodes[at].wounds.any);
        let wrong = |what: &str| Err(format!("node {at} serves a wrong {what} of entry {}", index.0));
        let (mut whole, mut complete) = (true, true);
        let mut answer = |what: &str, answer: Result<bool, NodeError>| match answer {
            Ok(true) => Ok(()),
            Ok(false) => wrong(what),
            Err(NodeError::DamagedPart { .. } | NodeError::Damaged(_)) if wounded => {
                whole = false;
                Ok(())
            }
            Err(error) => Err(format!("node {at} serves no {what} of entry {}: {error}", index.0)),
        };
        let truth = checker.entry(index);
        answer("bytes", handle.entry(index).map(|entry| entry.as_deref() == truth))?;
        for kind in KINDS {
            let rest = size - index.0 / TILE_WIDTH * TILE_WIDTH;
            let most = u16::try_from(rest.min(TILE_WIDTH)).unwrap_or_default();
            let least = u16::try_from(index.0 % TILE_WIDTH + 1).unwrap_or_default();
            for width in BTreeSet::from([least, most]) {
                let path = TilePath { kind, index: index.0 / TILE_WIDTH, width };
                answer("tile", handle.tile(path).map(|tile| tile.is_some() && tile == checker.tile(&path)))?;
            }
        }
        let policies = handle.policies();
        let receipt = handle.receipt(index).map(|receipt| {
            let (Some(receipt), Some(entry)) = (receipt, truth) else { return false };
            let policy = policies.range(..=receipt.size.0).next_back();
            let text = receipt.receipt.render();
            policy.is_some_and(|(_, policy)| {
                matches!(verify(None, entry, text.as_bytes(), policy.as_bytes()), Verdict::Valid(_))
            })
        });
        answer("receipt", receipt)?;
        let block = handle.block_of(index).map(|block| block.map_or(0, |(height, _, _)| height));
        answer("block", block.map(|height| height == checker.height_of(index)))?;
        // A position that is lost is missed by the scrub alone; what is found has to be there.
        for (key, _) in index_keys(index.0, &[truth.unwrap_or_default().to_vec()]) {
            let found = handle.positions(&key, LeafIndex(0), TreeSize(size), usize::MAX);
            let truth = checker.positions(&key, size);
            let found = found.map(|found| {
                complete &= found == truth;
                found.iter().all(|found| truth.contains(found)) && (complete || wounded)
            });
            answer("position", found)?;
        }
        Ok(whole && complete)
    }

    /// Once all faults are over, everything heals: the scrubs walk, somebody reads everything, and in the
    /// end all files hold what they have to.
    pub(super) fn heal(&mut self) -> Result<(), Fault> {
        if !self.damaging.happens {
            return Ok(());
        }
        let nodes: Vec<usize> = (0..self.nodes.len()).filter(|at| self.is_honest(*at)).collect();
        let (mut left, mut now) = (String::new(), Duration::from_micros(self.now));
        for _ in 0..ROUNDS_MAX {
            left.clear();
            for at in nodes.iter().copied() {
                let peers = self.peers_of(at);
                let Some(running) = &mut self.nodes[at].running else { return Err(format!("node {at} is down")) };
                running.repair.scrub = Scrub::new();
                for _ in 0..self.checker.size().0 / TILE_WIDTH + 3 {
                    // Behind every pause that the repair makes by itself.
                    now += Duration::from_secs(61);
                    running.repair.step(&running.ledger.shared, &peers, || now);
                }
                self.check_files(at)?;
                for index in self.checker.ends(self.published_size(at)) {
                    if !self.read_at(at, index)? {
                        left = format!("entry {} at node {at} is not whole", index.0);
                    }
                }
                let Some(running) = &self.nodes[at].running else { return Err(format!("node {at} is down")) };
                if let Some(part) = running.ledger.shared.damage.parts().first() {
                    left = format!("{part} of node {at}");
                }
                let full = running.applied.size.0 / TILE_WIDTH;
                let is_whole = |(kind, index)| self.is_sound(at, running, &Part::Tile(kind, index));
                if !KINDS.into_iter().flat_map(|kind| (0..full).map(move |index| (kind, index))).all(is_whole) {
                    left = format!("files of node {at} differ");
                }
            }
            if left.is_empty() {
                return Ok(());
            }
        }
        Err(format!("not healed: {left}"))
    }
}

impl Node {
    /// What the node knows to be damaged, for the report of a run that got stuck.
    pub(super) fn damaged(&self) -> String {
        let parts = self.running.as_ref().map(|running| running.ledger.shared.damage.parts()).unwrap_or_default();
        parts.iter().map(|part| format!(", {part} is damaged")).collect()
    }
}
