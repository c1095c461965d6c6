//! What goes wrong: crashes and restarts, older copies, partitions, clocks, and decisions that too
//! few have signed.

use std::path::Path;

use chopmark_consensus::Application as _;
use ledger_core::{
    member::faults_tolerated,
    vote::{Certificate, precommit},
};
use rand::{RngExt as _, seq::SliceRandom as _};

use super::{
    checker::Fault,
    damage::published_size,
    disk::{self, Crash, Image},
    engine::Wal,
    profile::{keys, public},
    world::{Event, STATUS_EVERY, World},
};
use crate::guard::Guard;

#[derive(Debug, Clone, Copy)]
pub(super) enum FaultKind {
    Crash(usize, Crash, Option<u32>),
    CrashAll(Crash),
    Split(u32),
    Join,
    Clock(usize, i64),
    /// The engine brings a decision that too few have signed.
    ShortCertificate(usize),
    /// Something that a node has stored is damaged.
    Damage(usize),
}

impl World {
    /// When what begins, what goes wrong, and when all faults are over.
    pub(super) fn plan(&mut self) {
        for node in 0..self.nodes.len() {
            let at = self.random.random_range(0..50_000);
            self.schedule(at, Event::Restart(node));
        }
        self.schedule(STATUS_EVERY, Event::Status);
        self.schedule(60_000, Event::Client);
        let end = self.random.random_range(1_000_000..4_000_000);
        let mut skewed: Vec<usize> = (0..self.profile.members).collect();
        skewed.shuffle(&mut self.random);
        // As many clocks are off as members may fail.
        let liars = usize::from(self.profile.liar.is_some());
        skewed.truncate(faults_tolerated(self.profile.members).saturating_sub(liars));
        for _ in 0..self.profile.faults {
            let at = self.random.random_range(50_000..end);
            let node = self.random.random_range(0..self.nodes.len());
            let crash = if self.random.random_bool(0.7) { Crash::PowerLost } else { Crash::Killed };
            let kind = match self.random.random_range(0..12) {
                0..=5 => {
                    let fuse = self.random.random_bool(0.8).then(|| self.random.random_range(0..24));
                    FaultKind::Crash(node, crash, fuse)
                }
                6 => FaultKind::CrashAll(crash),
                7 | 8 => {
                    let joined = at + self.random.random_range(100_000..1_500_000);
                    self.schedule(joined, Event::Fault(FaultKind::Join));
                    FaultKind::Split(self.random.random_range(1..(1 << self.nodes.len())))
                }
                9 | 10 => match skewed.last() {
                    Some(node) => FaultKind::Clock(*node, self.random.random_range(-20_000..20_000)),
                    None => FaultKind::Clock(node, self.random.random_range(-300..300)),
                },
                _ => FaultKind::ShortCertificate(node),
            };
            self.schedule(at, Event::Fault(kind));
        }
        let end = self.plan_damage(end);
        self.schedule(end, Event::End);
    }

    pub(super) fn fault(&mut self, fault: FaultKind) -> Result<(), Fault> {
        if self.calm {
            return Ok(());
        }
        match fault {
            FaultKind::Crash(at, crash, Some(steps)) => {
                disk::light(&self.nodes[at].place, steps, crash);
                Ok(())
            }
            FaultKind::Crash(at, crash, None) => self.crash(at, crash),
            FaultKind::CrashAll(crash) => (0..self.nodes.len()).try_for_each(|at| self.crash(at, crash)),
            FaultKind::Split(mask) => {
                for (at, group) in self.group.iter_mut().enumerate() {
                    *group = (mask >> at) & 1;
                }
                Ok(())
            }
            FaultKind::Join => {
                self.group.fill(0);
                Ok(())
            }
            FaultKind::Clock(at, offset) => {
                self.nodes[at].offset_ms = offset;
                Ok(())
            }
            FaultKind::ShortCertificate(at) => {
                self.nodes[at].short_certificate = true;
                Ok(())
            }
            FaultKind::Damage(at) => self.damage(at),
        }
    }

    /// An engine that brings a decision with too few signatures is not believed.
    pub(super) fn probe(&mut self, at: usize) -> Result<(), Fault> {
        if !self.nodes[at].short_certificate || !self.is_honest(at) {
            return Ok(());
        }
        let Some(running) = &mut self.nodes[at].running else { return Ok(()) };
        let kept: Vec<_> = (0..3).filter_map(|round| running.ledger.kept(round).ok()?.pop()).collect();
        let Some(judged) = kept.last() else { return Ok(()) };
        let height = judged.slot.height;
        let signers = running.ledger.members().quorum() - 1;
        let chain = self.genesis.chain_id();
        let signatures: Vec<_> = (0..signers)
            .map(|node| &keys(node).node.newest().validator)
            .map(|key| (public(key), precommit(&chain, height, 0, &judged.value, key)))
            .collect();
        let certificate = Certificate::new(height, 0, judged.value, &signatures);
        if running.ledger.decide(certificate).is_ok() {
            return Err(format!("node {at} decided height {height} with {signers} signatures"));
        }
        self.crash(at, Crash::Killed)
    }

    pub(super) fn crash(&mut self, at: usize, crash: Crash) -> Result<(), Fault> {
        // Whoever was told before the crash was told.
        self.answers(at)?;
        let Some(running) = self.nodes[at].running.take() else { return Ok(()) };
        let node = &mut self.nodes[at];
        node.image = disk::crash(&node.place, crash).map_err(|error| error.to_string())?;
        let unsynced = running.engine.wal.unsynced();
        let more = if crash == Crash::Killed { unsynced } else { self.random.random_range(0..=unsynced) };
        node.wal = running.engine.wal.after_crash(more);
        let guard = node.image.files.get(Path::new("guard")).and_then(|bytes| Guard::read(bytes));
        if self.profile.forgetful == Some(at) && !self.calm {
            node.wal = Wal::default();
            node.forgot = true;
        }
        node.forgot |= guard.is_some_and(|(_, promise)| !node.wal.has_all_of(&promise, &running.engine.own()));
        drop(running);
        disk::forget(&node.place);
        node.asked.clear();
        node.incarnation += 1;
        node.short_certificate = false;
        self.tally.crashes += 1;
        let pause = if self.calm { 1_000_000 } else { self.random.random_range(10_000..800_000) };
        self.schedule(self.now + pause, Event::Restart(at));
        Ok(())
    }

    pub(super) fn restart(&mut self, at: usize) -> Result<(), Fault> {
        if self.nodes[at].running.is_some() {
            return Ok(());
        }
        self.older_copy(at)?;
        let moved_away = self.random.random_bool(0.05);
        if moved_away {
            self.nodes[at].image.lose_derived();
        }
        self.wounds_at_start(at, moved_away)?;
        let image = self.nodes[at].image.clone();
        match self.open(at, &image) {
            Ok(mut running) => {
                let (promise, tip) = (self.promise(at), running.ledger.parent().height);
                if self.is_honest(at) {
                    self.checker.started(at, tip, &promise)?;
                    if running.ledger.signed().0 > published_size(&running) {
                        self.may_have_signed(at, &running)?;
                    }
                    let highest = self.checker.height();
                    if tip > highest {
                        // Decided in the moment of the crash.
                        running.seen = highest;
                    } else {
                        running.seen = 0;
                    }
                }
                let mut out = Vec::new();
                let started = running.engine.start(&mut running.ledger, self.now, &mut out);
                self.settle(at, &mut running, out, started.is_ok())?;
                self.nodes[at].running = Some(running);
                self.nodes[at].wake_at = 0;
                self.repair_starts(at);
                match started {
                    Err(_) if disk::has_crashed(&self.nodes[at].place) => self.crash(at, Crash::PowerLost),
                    Err(failure) => self.failed(at, failure),
                    Ok(()) => self.on_node(at, 5, |_, _, _| Ok(())),
                }
            }
            Err(error) => {
                let earlier = error.to_string().contains("set the clock right");
                if disk::has_crashed(&self.nodes[at].place) {
                    let place = self.nodes[at].place.clone();
                    self.nodes[at].image = disk::crash(&place, Crash::PowerLost).map_err(|error| error.to_string())?;
                } else if !earlier && self.is_honest(at) && !self.is_excused(at, &error) {
                    return Err(format!("node {at} does not start: {error}"));
                }
                disk::forget(&self.nodes[at].place);
                self.schedule(self.now + 700_000, Event::Restart(at));
                Ok(())
            }
        }
    }

    /// Takes a copy of a node's data now and then, and restores it later, with the newest guard.
    fn older_copy(&mut self, at: usize) -> Result<(), Fault> {
        // With more copies than members may fail, nobody would vote where they have voted.
        let others = self.nodes.iter().enumerate().any(|(other, node)| other != at && node.restored);
        let several = faults_tolerated(self.profile.members) > 0 && !others;
        if self.calm || !self.profile.older_copies || !(several || self.profile.members == 1) {
            return Ok(());
        }
        if several && self.random.random_bool(0.3) {
            // Nothing but the engine's log is lost.
            self.nodes[at].wal = Wal::default();
            self.nodes[at].restored = true;
            return Ok(());
        }
        match self.nodes[at].copy.take() {
            None => self.nodes[at].copy = Some((self.nodes[at].image.clone(), self.nodes[at].wal.clone())),
            Some((mut image, wal)) => {
                let guard = Path::new("guard");
                if let Some(newest) = self.nodes[at].image.files.get(guard) {
                    image.files.insert(guard.to_owned(), newest.clone());
                }
                if several {
                    (self.nodes[at].image, self.nodes[at].wal) = (image, wal);
                    self.nodes[at].restored = true;
                    self.checker.restored(at);
                } else {
                    self.refuses(at, &image)?;
                }
            }
        }
        Ok(())
    }

    /// Alone, nobody else has what an older copy lacks.
    fn refuses(&mut self, at: usize, image: &Image) -> Result<(), Fault> {
        let promise = image.files.get(Path::new("guard")).and_then(|bytes| Guard::read(bytes));
        let decided = promise.map_or(0, |(_, promise)| promise.decided);
        let opened = self.open(at, image);
        match opened {
            Ok(running) if running.ledger.parent().height < decided => {
                Err(format!("height {decided} was told of, and an older copy opened"))
            }
            Ok(_) | Err(_) => {
                disk::forget(&self.nodes[at].place);
                Ok(())
            }
        }
    }
}
