//! Single bits that flip in the files of one member, one at a time. It heals, or is not harmed, or
//! says what is damaged; it never serves other bytes, and the others lose nothing.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use chopmark_tests::{
    binary, fsck_by, long,
    members::{Load, Network},
    seeded, tally,
};
use rand::{RngExt as _, seq::IndexedRandom as _};

const MEMBER: usize = 3;
/// What a start may take, in steps of [`STEP`].
const STEPS_MAX: usize = 3000;
const STEP: Duration = Duration::from_millis(20);

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Blocks,
    Checkpoints,
    Tiles,
    Bundles,
    Derived,
    Proposals,
    EngineLog,
    Guard,
    Genesis,
}

impl Kind {
    fn of(path: &Path) -> Option<Self> {
        let path = path.to_str().unwrap();
        let kinds = [
            ("blocks/", Self::Blocks),
            ("checkpoints/", Self::Checkpoints),
            ("log/tile/entries/", Self::Bundles),
            ("log/tile/", Self::Tiles),
            ("derived/", Self::Derived),
            ("proposals/", Self::Proposals),
            ("wal/", Self::EngineLog),
            ("genesis.json", Self::Genesis),
        ];
        kinds.into_iter().find(|(prefix, _)| path.starts_with(prefix)).map(|(_, kind)| kind)
    }

    /// How a message that names the damage calls it.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Blocks => &["blocks", "block log"],
            Self::Checkpoints => &["checkpoint"],
            Self::Tiles | Self::Bundles => &["tile"],
            Self::Derived => &["derived", "the index"],
            Self::Proposals => &["proposals"],
            Self::EngineLog => &["wal"],
            Self::Guard => &["guard"],
            Self::Genesis => &["genesis"],
        }
    }
}

/// What came of a flip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Judgement {
    /// It runs, serves what it should, and its files are sound.
    Unharmed,
    /// It runs, serves nothing that is wrong, and `fsck` names the damage.
    NamedByFsck,
    /// It does not start, or has ended, and says why.
    Refused,
}

struct Flips {
    network: Network,
    /// The member's data as they were before any flip.
    sound: PathBuf,
    /// Full tiles and bundles by their paths under `/log`.
    served: BTreeMap<String, Vec<u8>>,
}

fn copy_folder(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success(), "copy {} to {}", from.display(), to.display());
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for item in fs::read_dir(folder).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

impl Flips {
    /// Four members with some full tiles; one of them was killed under load.
    async fn start() -> Self {
        let mut network = Network::start(4).await.unwrap();
        for first in (0..1200).step_by(300) {
            network.notarize_all(first..first + 300).await.unwrap();
        }
        network.check().await.unwrap();
        let load = Load::from(10_000);
        let kill = async {
            tokio::time::sleep(Duration::from_millis(700)).await;
            network.kill(MEMBER);
            load.stop();
        };
        tokio::join!(load.run(&network, 4), kill);
        let sound = network.folder.path().join("sound");
        copy_folder(&network.members[MEMBER].folder.join("node"), &sound);
        copy_folder(&network.members[MEMBER].guard, &sound.with_extension("guard"));
        let mut found = Vec::new();
        files(&sound.join("log"), &mut found);
        let served = |path: PathBuf| {
            let name = path.strip_prefix(sound.join("log")).unwrap().to_str().unwrap().to_owned();
            (name, fs::read(&path).unwrap())
        };
        let served: BTreeMap<_, _> = found.into_iter().map(served).collect();
        assert!(served.len() >= 4, "there are full tiles: {:?}", served.keys());
        Self { network, sound, served }
    }

    fn node(&self) -> PathBuf {
        self.network.members[MEMBER].folder.join("node")
    }

    /// Every file that holds something, by kind.
    fn targets(&self) -> BTreeMap<Kind, Vec<PathBuf>> {
        let mut found = Vec::new();
        files(&self.sound, &mut found);
        let mut targets: BTreeMap<Kind, Vec<PathBuf>> = BTreeMap::new();
        for path in found {
            let Some(kind) = Kind::of(path.strip_prefix(&self.sound).unwrap()) else { continue };
            if fs::metadata(&path).unwrap().len() > 0 {
                targets.entry(kind).or_default().push(self.node().join(path.strip_prefix(&self.sound).unwrap()));
            }
        }
        targets.insert(Kind::Guard, vec![self.network.members[MEMBER].guard.clone()]);
        targets
    }

    /// The data as before; the guard stays as new as it is.
    fn restore(&self) {
        fs::remove_dir_all(self.node()).unwrap();
        copy_folder(&self.sound, &self.node());
    }

    fn fsck(&self, guard: &Path) -> (i32, String) {
        fsck_by(&mut Command::new(binary()), &self.node(), guard.as_os_str()).unwrap()
    }

    /// Waits until the member has caught up to `size`, or serves at all where that is zero. Whether it
    /// did; it may end instead.
    async fn comes_up(&self, size: u64) -> anyhow::Result<bool> {
        for _ in 0..STEPS_MAX {
            if !self.network.is_running(MEMBER) {
                return Ok(false);
            }
            if self.network.size(MEMBER).await.is_some_and(|found| found >= size) {
                return Ok(true);
            }
            tokio::time::sleep(STEP).await;
        }
        let (other, own) = (self.network.status(0).await, self.network.status(MEMBER).await);
        let log = self.network.log(MEMBER);
        bail!("it runs, has not caught up to {size}, and does not say why: {own:?}, another: {other:?}, {log}")
    }

    /// Everything that the member serves is what it should be; what it does not serve is an error that
    /// it logs.
    async fn serves_nothing_wrong(&self) -> anyhow::Result<()> {
        for (path, sound) in &self.served {
            let url = format!("{}/log/{path}", self.network.members[MEMBER].read);
            // It may end while it is asked: then it has noticed.
            let Ok(answer) = self.network.http.get(url).send().await else { return Ok(()) };
            if answer.status().is_success() {
                let Ok(bytes) = answer.bytes().await else { return Ok(()) };
                ensure!(bytes == *sound, "{path} was served with other bytes");
            } else {
                ensure!(answer.status().is_server_error(), "{path}: {}", answer.status());
            }
        }
        Ok(())
    }

    /// Judges a flip: with the others, or by itself where a run has to be quick. An error is what must
    /// not be.
    async fn judge(&self, kind: Kind, with_the_others: bool) -> anyhow::Result<Judgement> {
        let said_before = self.network.log_len(MEMBER);
        // The guard of that time: the newest one remembers more than the data that were put back.
        let guard = self.sound.with_extension("guard");
        let found_before = (!with_the_others && kind != Kind::Guard).then(|| self.fsck(&guard));
        let size = if with_the_others { self.network.size(0).await.context("a size")? } else { 0 };
        self.network.spawn(MEMBER)?;
        let mut up = self.comes_up(size).await?;
        if up {
            self.serves_nothing_wrong().await?;
            if with_the_others {
                // What it found while it was asked makes it end a little later.
                tokio::time::sleep(Duration::from_millis(700)).await;
            }
            up = self.network.is_running(MEMBER);
        }
        let clean_end = up && self.network.stop_meanwhile(MEMBER).await.is_ok();
        let said = self.network.log_since(MEMBER, said_before);
        let named = |text: &str| kind.names().iter().any(|name| text.contains(name));
        if !clean_end {
            ensure!(named(&said), "it ended and named no damage: {said}");
            return Ok(Judgement::Refused);
        }
        let (code, text) = found_before.unwrap_or_else(|| self.fsck(&self.network.members[MEMBER].guard));
        if code == 0 {
            return Ok(Judgement::Unharmed);
        }
        ensure!(named(&text), "fsck names another file: {text}");
        Ok(Judgement::NamedByFsck)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn single_bits_that_flip_are_healed_or_named() {
    let mut random = seeded("single_bits_that_flip_are_healed_or_named");
    let mut flips = Flips::start().await;
    let targets = flips.targets();
    let kinds: Vec<Kind> = targets.keys().copied().collect();
    assert!(kinds.len() >= 8, "files of every kind: {kinds:?}");
    let count = if long() { 10_000 } else { 12 };
    let mut wrongs = Vec::new();
    let mut judgements: BTreeMap<(Kind, Judgement), u32> = BTreeMap::new();
    for number in 0..count {
        // Every kind gets its turn; where it strikes is drawn.
        let kind = kinds[number % kinds.len()];
        let path = targets[&kind].choose(&mut random).unwrap();
        let sound = fs::read(path).unwrap();
        let (at, bit) = (random.random_range(0..sound.len()), random.random_range(0..8));
        let mut flipped = sound.clone();
        flipped[at] ^= 1 << bit;
        fs::write(path, flipped).unwrap();
        let where_ = format!("bit {bit} of byte {at} of {} in {}", sound.len(), path.display());
        let with_the_others = !long() || number % 100 == 0;
        if with_the_others {
            // They do not need it. And a member with old data votes only above what it may have voted
            // on: at rest the next block comes with the next heartbeat.
            flips.network.notarize(20_000 + number as u64).await.unwrap();
        }
        match flips.judge(kind, with_the_others).await {
            Ok(judged) => {
                eprintln!("{where_}: {judged:?}");
                *judgements.entry((kind, judged)).or_default() += 1;
                if kind == Kind::Guard && judged == Judgement::Refused {
                    fs::write(path, &sound).unwrap();
                }
            }
            Err(wrong) => {
                eprintln!("{where_}: WRONG: {wrong:#}");
                wrongs.push(format!("{where_}: {wrong:#}"));
                flips.network.kill(MEMBER);
                if kind == Kind::Guard {
                    fs::write(path, &sound).unwrap();
                }
            }
        }
        flips.restore();
    }
    flips.network.spawn(MEMBER).unwrap();
    flips.network.check().await.unwrap();
    flips.network.check_nothing_invented().await.unwrap();
    let tallied = format!("{count} flips: {judgements:?}; {}", flips.network.tally());
    tally("single_bits_that_flip_are_healed_or_named", &tallied);
    flips.network.stop_and_check_files().unwrap();
    assert!(wrongs.is_empty(), "{} of {count} flips: {wrongs:#?}", wrongs.len());
}
