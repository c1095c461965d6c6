//! Damage while a node runs and before it starts: it is never served, keeps the node from signing,
//! and heals.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use chopmark_node::{LocalPeer, Node, NodeError, NodeHandle, Part, PeerTiles, fsck::fsck};
use ledger_core::{
    digests::Algorithm,
    entry::entry_id,
    merkle::{LeafIndex, TreeSize},
    tile::{TileKind, TilePath},
};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    alone::{copy_folder, rebuild_root, segment_in},
    support::{Consortium, Place, TENANT, content, covered, evidence},
};

/// How a peer behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Away,
    /// Bytes of the right form: those of another tile.
    Junk,
    Sound,
}

/// A peer that serves the tiles of a folder.
struct FolderPeer {
    log: PathBuf,
    mood: Mutex<Mood>,
    asked: AtomicUsize,
}

impl FolderPeer {
    fn of(place: &Place, mood: Mood) -> Arc<Self> {
        let log = place.folder.path().join("copy");
        if !log.exists() {
            copy_folder(&place.data().join("log"), &log);
        }
        Arc::new(Self { log, mood: Mutex::new(mood), asked: AtomicUsize::new(0) })
    }

    fn is(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl PeerTiles for FolderPeer {
    fn name(&self) -> &str {
        "peer.test"
    }

    fn tile(&self, path: &TilePath) -> Result<Vec<u8>, String> {
        let mood = *self.mood.lock();
        self.asked.fetch_add(1, Ordering::Relaxed);
        let index = match mood {
            Mood::Away => return Err("away".to_owned()),
            Mood::Junk => path.index ^ 1,
            Mood::Sound => path.index,
        };
        fs::read(self.log.join(TilePath { index, ..*path }.path())).map_err(|error| error.to_string())
    }
}

/// A network of one member with `size` entries, closed.
async fn filled(size: u64) -> Place {
    let place = Place::new();
    let node = place.open().unwrap();
    place.tenant(&node.handle()).await;
    place.fill(&node.handle(), size).await;
    node.close();
    place
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = at % bytes.len();
    bytes[at] ^= 4;
    fs::write(path, bytes).unwrap();
}

/// Waits for something that comes, however slow the machine.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}");
}

async fn healed(handle: &NodeHandle) {
    until("it heals", || handle.damaged().is_empty()).await;
    assert_eq!(handle.failure(), None);
}

/// Decides one more entry, and gives the node time to sign that it would not need.
async fn does_not_sign(place: &Place, handle: &NodeHandle, number: u64) {
    let before = handle.published().unwrap().note;
    let ended = place.submit(handle, vec![evidence(handle, number, number)]).await;
    assert!(ended[0].result.is_ok(), "it still decides");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(handle.published().unwrap().note, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_bundle_comes_from_a_peer_and_keeps_the_node_from_signing() {
    let mut place = filled(700).await;
    let peer = FolderPeer::of(&place, Mood::Away);
    place.peer_tiles = vec![peer.clone()];
    let path = place.data().join("log/tile/entries/001");
    let sound = fs::read(&path).unwrap();
    let tile = TilePath { kind: TileKind::Entries, index: 1, width: 256 };
    for (number, how) in (700..).zip(["flipped", "truncated", "deleted", "empty", "another"]) {
        peer.is(Mood::Away);
        let node = place.open().unwrap();
        let handle = node.handle();
        match how {
            "flipped" => flip(&path, 20_000),
            "truncated" => fs::write(&path, &sound[..sound.len() - 1]).unwrap(),
            "deleted" => fs::remove_file(&path).unwrap(),
            "empty" => fs::write(&path, []).unwrap(),
            _ => drop(fs::copy(place.data().join("log/tile/entries/000"), &path).unwrap()),
        }
        for width in [1, 255, 256] {
            let refused = handle.tile(TilePath { width, ..tile }).unwrap_err();
            assert!(
                matches!(refused, NodeError::DamagedPart { part: Part::Tile(TileKind::Entries, 1), .. }),
                "{refused}"
            );
        }
        assert_eq!(handle.damaged(), [Part::Tile(TileKind::Entries, 1)], "{how}");
        does_not_sign(&place, &handle, number).await;
        // What is sound is served all the while.
        assert!(handle.tile(TilePath { index: 0, ..tile }).unwrap().is_some());
        assert!(handle.receipt(LeafIndex(3)).unwrap().is_some());

        peer.is(Mood::Junk);
        let asked = peer.asked();
        until("junk is refused", || peer.asked() > asked).await;
        assert_eq!(handle.damaged(), [Part::Tile(TileKind::Entries, 1)]);
        assert!(handle.tile(tile).is_err());
        peer.is(Mood::Sound);
        healed(&handle).await;
        assert_eq!(handle.tile(tile).unwrap().unwrap(), sound);
        assert_eq!(fs::read(&path).unwrap(), sound);
        covered(&handle, number + 1).await;
        assert_eq!(rebuild_root(&handle), handle.published().unwrap().root);
        drop(handle);
        node.close();
        assert_eq!(fsck(&place.data(), Some(&place.guard())).unwrap().findings, [], "{how}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_peer_is_asked_where_one_serves_junk() {
    let mut place = filled(700).await;
    let (liar, sound) = (FolderPeer::of(&place, Mood::Junk), FolderPeer::of(&place, Mood::Sound));
    place.peer_tiles = vec![liar.clone(), sound.clone()];
    let node = place.open().unwrap();
    for (round, bundle) in [0, 1].into_iter().enumerate() {
        let path = TilePath { kind: TileKind::Entries, index: bundle, width: 256 };
        let file = place.data().join("log").join(path.path());
        let bytes = fs::read(&file).unwrap();
        flip(&file, 100);
        assert!(node.handle().entry(LeafIndex(bundle * 256 + 100)).is_ok(), "its bytes are not the flipped ones");
        assert!(node.handle().tile(path).is_err());
        healed(&node.handle()).await;
        assert_eq!(fs::read(&file).unwrap(), bytes);
        assert_eq!(sound.asked(), round + 1);
    }
    // It is not asked first again.
    assert_eq!(liar.asked(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn hash_tiles_of_every_level_are_made_again_from_below() {
    let place = filled(65_536 + 700).await;
    let files = ["tile/0/000", "tile/0/255", "tile/0/257", "tile/1/000"];
    for (round, file) in files.iter().enumerate() {
        let path = place.data().join("log").join(file);
        let sound = fs::read(&path).unwrap();
        let tile = TilePath::parse(file).unwrap();
        let node = place.open().unwrap();
        let handle = node.handle();
        for how in ["flipped", "truncated", "deleted"] {
            match how {
                "flipped" => flip(&path, 1000 * round + 77),
                "truncated" => fs::write(&path, &sound[..4096]).unwrap(),
                _ => fs::remove_file(&path).unwrap(),
            }
            if let Ok(bytes) = handle.tile(tile) {
                assert_eq!(bytes.unwrap(), sound);
            }
            healed(&handle).await;
            assert_eq!(fs::read(&path).unwrap(), sound, "{file} {how}");
            assert_eq!(handle.tile(tile).unwrap().unwrap(), sound);
        }
        drop(handle);
        node.close();
    }
    // Tile and the tile below it at once, with nothing but the bundle left; then the bundle too.
    let path = ["tile/1/000", "tile/0/001", "tile/entries/001"].map(|file| place.data().join("log").join(file));
    let sound = path.clone().map(|file| fs::read(file).unwrap());
    let mut place = place;
    let receipt = {
        let node = place.open().unwrap();
        node.handle().receipt(LeafIndex(300)).unwrap().unwrap()
    };
    let damage = || {
        flip(&path[1], 3000);
        fs::remove_file(&path[0]).unwrap();
    };
    for bundle in ["sound", "damaged"] {
        let node;
        if bundle == "sound" {
            // Before the start, which needs the upper one.
            damage();
            node = place.open().unwrap();
        } else {
            place.peer_tiles = vec![FolderPeer::of(&place, Mood::Sound)];
            node = place.open().unwrap();
            flip(&path[2], 3000);
            damage();
        }
        let handle = node.handle();
        match handle.receipt(LeafIndex(300)) {
            Ok(found) => assert_eq!(found.as_ref(), Some(&receipt)),
            Err(error) => assert!(matches!(error, NodeError::DamagedPart { .. }), "{error}"),
        }
        let is_back = || path.iter().zip(&sound).all(|(file, sound)| fs::read(file).is_ok_and(|bytes| bytes == *sound));
        let read = || handle.receipt(LeafIndex(300)).is_ok_and(|found| found.as_ref() == Some(&receipt));
        until(bundle, || read() && is_back()).await;
        healed(&handle).await;
        drop(handle);
        node.close();
        assert_eq!(fsck(&place.data(), Some(&place.guard())).unwrap().findings, [], "bundle {bundle}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_that_nobody_reads_is_found_and_healed() {
    let mut place = filled(1_100).await;
    let peer = FolderPeer::of(&place, Mood::Sound);
    place.peer_tiles = vec![peer.clone()];
    let files = ["tile/entries/000", "tile/entries/002", "tile/0/003"].map(|file| place.data().join("log").join(file));
    let sound = files.clone().map(|file| fs::read(file).unwrap());
    flip(&files[0], 5);
    fs::remove_file(&files[1]).unwrap();
    let node = place.open().unwrap();
    flip(&files[2], 5);
    until("the scrub finds all", || {
        files.iter().zip(&sound).all(|(file, sound)| fs::read(file).is_ok_and(|is| is == *sound))
    })
    .await;
    healed(&node.handle()).await;
    // The hash tile was made here.
    assert_eq!(peer.asked(), 2);
    place.fill(&node.handle(), 1_101).await;
    node.close();
    assert_eq!(fsck(&place.data(), Some(&place.guard())).unwrap().findings, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_node_heals_from_its_block_log_and_refuses_to_start_without_its_edge() {
    let place = filled(700).await;
    let bundle = place.data().join("log/tile/entries/001");
    let sound = fs::read(&bundle).unwrap();
    let tile = TilePath { kind: TileKind::Entries, index: 1, width: 256 };
    // A hash tile alone is made again before the node is open.
    fs::remove_file(place.data().join("log/tile/0/001")).unwrap();
    let node = place.open().unwrap();
    let handle = node.handle();
    healed(&handle).await;
    place.fill(&handle, 701).await;
    for (round, how) in ["flipped", "deleted"].into_iter().enumerate() {
        if how == "flipped" {
            flip(&bundle, 9)
        } else {
            fs::remove_file(&bundle).unwrap()
        }
        assert!(matches!(handle.tile(tile), Err(NodeError::DamagedPart { .. })), "{how}");
        healed(&handle).await;
        assert_eq!(handle.tile(tile).unwrap().unwrap(), sound, "{how}");
        place.fill(&handle, 702 + round as u64).await;
    }
    // With the block log damaged as well it stays as it is: not served, and not signed over.
    let segment = segment_in(&place.data().join("blocks"));
    let block = handle.blocks(2, 1).unwrap()[0].block.encode();
    let bytes = fs::read(&segment).unwrap();
    let at = bytes.windows(block.len()).position(|window| window == block).unwrap() + block.len() / 2;
    flip(&segment, at);
    flip(&bundle, 9);
    assert!(handle.tile(tile).is_err());
    does_not_sign(&place, &handle, 703).await;
    assert_eq!((handle.damaged(), handle.failure()), (vec![Part::Tile(TileKind::Entries, 1)], None));
    assert!(handle.tile(tile).is_err());
    flip(&segment, at);
    healed(&handle).await;
    covered(&handle, 704).await;
    drop(handle);
    node.close();
    assert_eq!(fsck(&place.data(), Some(&place.guard())).unwrap().findings, []);

    flip(&bundle, 9);
    flip(&place.data().join("log/tile/0/001"), 9);
    let refused = place.open().err().unwrap().to_string();
    assert!(refused.contains("do not lead to the root") && refused.contains("fsck"), "{refused}");
    fs::write(&bundle, sound).unwrap();
    let node = place.open().unwrap();
    healed(&node.handle()).await;
    place.fill(&node.handle(), 705).await;
}

/// Stands for several nodes: the first one serves junk, the next one what it has.
struct Several {
    sound: Arc<LocalPeer>,
    blamed: AtomicBool,
}

impl PeerTiles for Several {
    fn name(&self) -> &str {
        "several.test"
    }

    fn tile(&self, path: &TilePath) -> Result<Vec<u8>, String> {
        let mut bytes = self.sound.tile(path)?;
        bytes[0] ^= u8::from(!self.blamed.load(Ordering::Relaxed));
        Ok(bytes)
    }

    fn blame(&self) {
        self.blamed.store(true, Ordering::Relaxed);
    }
}

/// Is away, and says that the process is to end.
struct LastCall {
    stop: watch::Sender<bool>,
}

impl PeerTiles for LastCall {
    fn name(&self) -> &str {
        "gone.test"
    }

    fn tile(&self, _: &TilePath) -> Result<Vec<u8>, String> {
        self.stop.send_replace(true);
        Err("away".to_owned())
    }
}

struct Together {
    consortium: Consortium,
    local: Vec<Arc<LocalPeer>>,
}

impl Together {
    fn new(count: usize) -> Self {
        let mut consortium = Consortium::new(count);
        let local: Vec<Arc<LocalPeer>> =
            consortium.members.iter().map(|place| Arc::new(LocalPeer::new(place.domain.clone()))).collect();
        for (at, place) in consortium.members.iter_mut().enumerate() {
            let others = local.iter().enumerate().filter(|(other, _)| *other != at);
            place.peer_tiles = others.map(|(_, peer)| Arc::clone(peer) as Arc<dyn PeerTiles>).collect();
        }
        Self { consortium, local }
    }

    fn open(&self, at: usize) -> Node {
        let node = self.consortium.open(at);
        self.local[at].connect(&node.handle());
        node
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_heals_from_the_others_while_it_runs_and_at_the_start() {
    let together = Together::new(2);
    let mut nodes = vec![together.open(0), together.open(1)];
    let handles: Vec<NodeHandle> = nodes.iter().map(Node::handle).collect();
    together.consortium.tenant(&handles).await;
    together.consortium.fill(&handles, 0..600).await;
    let log = together.consortium.members[0].data().join("log");
    let files = ["tile/entries/000", "tile/0/000", "tile/entries/001", "tile/0/001"].map(|file| log.join(file));
    let sound = files.clone().map(|file| fs::read(file).unwrap());
    // Tile and bundle at once: nothing here says any more what it was.
    flip(&files[0], 333);
    flip(&files[1], 333);
    let tile = TilePath { kind: TileKind::Entries, index: 0, width: 256 };
    assert!(matches!(handles[0].tile(tile), Err(NodeError::DamagedPart { .. })));
    assert!(
        matches!(handles[0].entry(LeafIndex(10)), Err(NodeError::DamagedPart { .. }))
            || handles[0].damaged().is_empty()
    );
    healed(&handles[0]).await;
    assert_eq!(handles[0].tile(tile).unwrap().unwrap(), sound[0]);
    until("the tile is healed too", || handles[0].receipt(LeafIndex(10)).is_ok_and(|receipt| receipt.is_some())).await;
    healed(&handles[0]).await;
    assert_eq!(fs::read(&files[1]).unwrap(), sound[1]);
    together.consortium.fill(&handles, 600..610).await;
    drop(handles);

    // The same at the start, where the edge needs what is gone.
    nodes.remove(0).close();
    for file in &files {
        fs::remove_file(file).unwrap();
    }
    nodes.insert(0, together.open(0));
    let handles: Vec<NodeHandle> = nodes.iter().map(Node::handle).collect();
    let back = || files.iter().zip(&sound).all(|(file, sound)| fs::read(file).is_ok_and(|bytes| bytes == *sound));
    until("all are back", back).await;
    healed(&handles[0]).await;
    // Two of two are the quorum: it signs again.
    together.consortium.fill(&handles, 610..620).await;
    assert_eq!(rebuild_root(&handles[0]), handles[0].published().unwrap().root);
    assert_eq!(handles[0].published().unwrap().size, TreeSize(623));
    drop(handles);
    nodes.into_iter().for_each(Node::close);
    let member = &together.consortium.members[0];
    assert_eq!(fsck(&member.data(), Some(&member.guard())).unwrap().findings, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_needs_its_peers_asks_another_and_ends_when_it_is_to() {
    let mut together = Together::new(2);
    let mut nodes = vec![together.open(0), together.open(1)];
    let handles: Vec<NodeHandle> = nodes.iter().map(Node::handle).collect();
    together.consortium.tenant(&handles).await;
    together.consortium.fill(&handles, 0..600).await;
    drop(handles);
    nodes.remove(0).close();
    let log = together.consortium.members[0].data().join("log/tile");
    let lose_edge = || {
        for file in ["entries/001", "0/001"] {
            fs::remove_file(log.join(file)).unwrap();
        }
    };
    lose_edge();
    let sound = Arc::clone(&together.local[1]);
    let several = Several { sound: Arc::clone(&sound), blamed: AtomicBool::new(false) };
    together.consortium.members[0].peer_tiles = vec![Arc::new(several)];
    let node = together.open(0);
    healed(&node.handle()).await;
    until("both are back", || log.join("0/001").exists() && log.join("entries/001").exists()).await;
    node.close();

    lose_edge();
    let member = &mut together.consortium.members[0];
    member.peer_tiles = vec![Arc::new(LastCall { stop: member.stop.clone() })];
    assert!(matches!(member.open(), Err(NodeError::Stopped)));
    // Nothing is changed by a start that was ended.
    member.stop.send_replace(false);
    member.peer_tiles = vec![sound];
    let node = together.open(0);
    healed(&node.handle()).await;
    together.consortium.fill(&[node.handle(), nodes[0].handle()], 600..601).await;
}

/// Keyspaces of an index by name.
type Keyspaces<'a> = dyn Fn(&str) -> fjall::Keyspace + 'a;

type Change<'a> = &'a dyn Fn(&Keyspaces<'_>);

/// Opens the index beside the node, which must be closed.
fn with_index(place: &Place, change: impl FnOnce(&Keyspaces<'_>)) {
    let db = fjall::Database::builder(place.data().join("derived")).open().unwrap();
    change(&|name| db.keyspace(name, fjall::KeyspaceCreateOptions::default).unwrap());
    db.persist(fjall::PersistMode::SyncAll).unwrap();
}

fn key_of(number: u64) -> Vec<u8> {
    let digest = Algorithm::Sha256.digest(&content(number));
    [&[Algorithm::Sha256.number()][..], &digest.0].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_index_is_never_answered_from_and_heals() {
    let place = filled(700).await;
    // Entry 3 holds file 3 and so on; file 5 stands twice.
    let node = place.open().unwrap();
    let again = place.submit(&node.handle(), vec![evidence(&node.handle(), 9_005, 5)]).await;
    assert_eq!(again[0].result, Ok(700));
    covered(&node.handle(), 701).await;
    let id = entry_id(&node.handle().entry(LeafIndex(50)).unwrap().unwrap());
    node.close();
    let at = |index: u64| index.to_be_bytes();
    let damages: [(&str, Change<'_>); 5] = [
        ("another position", &|index| index("digest").insert(key_of(5), at(4)).unwrap()),
        ("a position beyond the end", &|index| index("digest").insert(key_of(5), at(1 << 40)).unwrap()),
        ("a second position too many", &|index| {
            index("digest_more").insert([key_of(5), at(77).to_vec()].concat(), []).unwrap();
        }),
        ("a lost position", &|index| index("digest").remove(key_of(5)).unwrap()),
        ("an id elsewhere", &|index| index("digest").insert([&[0][..], &id.0].concat(), at(51)).unwrap()),
    ];
    for (what, damage) in damages {
        with_index(&place, damage);
        assert!(!fsck(&place.data(), None).unwrap().findings.is_empty(), "{what}");
        let node = place.open().unwrap();
        let handle = node.handle();
        let digest = Algorithm::Sha256.digest(&content(5));
        let find = || handle.find(Algorithm::Sha256, &digest, LeafIndex(0), 10).map(|found| found.indexes);
        let truth = vec![LeafIndex(5), LeafIndex(700)];
        // A position that is lost shows to the scrub alone; everything else to the first reader.
        if what != "a lost position" {
            if let Ok(found) = find() {
                assert_eq!(found, truth, "{what}");
            }
            if let Ok(found) = handle.find_entry(&id) {
                assert_eq!(found, Some(LeafIndex(50)), "{what}");
            }
        }
        until(what, || find().is_ok_and(|found| found == truth)).await;
        until(what, || handle.find_entry(&id).is_ok_and(|found| found == Some(LeafIndex(50)))).await;
        healed(&handle).await;
        drop(handle);
        node.close();
        assert_eq!(fsck(&place.data(), Some(&place.guard())).unwrap().findings, [], "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_blocks_and_checkpoints_in_the_index_heal() {
    let place = Place::new();
    let node = place.open().unwrap();
    place.tenant(&node.handle()).await;
    for size in [10, 20, 30, 40] {
        place.fill(&node.handle(), size).await;
    }
    let block = node.handle().block_of(LeafIndex(25)).unwrap();
    let receipt = node.handle().receipt(LeafIndex(25)).unwrap();
    assert!(block.is_some() && receipt.is_some());
    node.close();
    for keyspace in ["height_by_size", "checkpoint"] {
        // Another one that is there, one that is not there yet, none.
        for wrong in [Some(-1), Some(1_000_000), None] {
            with_index(&place, |index| {
                let index = index(keyspace);
                let value = index.get(30_u64.to_be_bytes()).unwrap().unwrap();
                let value = u64::from_be_bytes(value.as_ref().try_into().unwrap());
                match wrong {
                    None => index.remove(30_u64.to_be_bytes()).unwrap(),
                    Some(by) => {
                        index.insert(30_u64.to_be_bytes(), value.wrapping_add_signed(by).to_be_bytes()).unwrap()
                    }
                }
            });
            let node = place.open().unwrap();
            let handle = node.handle();
            let refused = if keyspace == "checkpoint" {
                handle.receipt(LeafIndex(25)).unwrap_err()
            } else {
                handle.block_of(LeafIndex(25)).unwrap_err()
            };
            assert!(matches!(refused, NodeError::DamagedPart { .. }), "{refused}");
            healed(&handle).await;
            assert_eq!(handle.block_of(LeafIndex(25)).unwrap(), block);
            assert_eq!(handle.receipt(LeafIndex(25)).unwrap(), receipt);
            drop(handle);
            node.close();
            assert_eq!(fsck(&place.data(), Some(&place.guard())).unwrap().findings, [], "{keyspace} {wrong:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_store_is_set_aside_and_made_anew() {
    let place = filled(300).await;
    let published = {
        let node = place.open().unwrap();
        node.handle().published().unwrap()
    };
    let copy = place.folder.path().join("derived.copy");
    copy_folder(&place.data().join("derived"), &copy);
    let files = files_in(&copy);
    let mut aside = 0;
    for file in files {
        let len = usize::try_from(fs::metadata(&file).unwrap().len()).unwrap();
        for at in [0, len / 3, len.saturating_sub(1)].into_iter().filter(|at| *at < len) {
            let derived = place.data().join("derived");
            fs::remove_dir_all(&derived).unwrap();
            copy_folder(&copy, &derived);
            let flipped = derived.join(file.strip_prefix(&copy).unwrap());
            flip(&flipped, at);
            let node = place.open().unwrap_or_else(|error| panic!("{} byte {at}: {error}", flipped.display()));
            assert_eq!(node.handle().published().unwrap().note, published.note);
            for index in [3, 100, 299] {
                let digest = Algorithm::Sha256.digest(&content(index));
                let found = node.handle().find(Algorithm::Sha256, &digest, LeafIndex(0), 10);
                assert_eq!(found.unwrap().indexes, [LeafIndex(index)], "{} byte {at}", flipped.display());
            }
            node.close();
            assert_eq!(
                fsck(&place.data(), Some(&place.guard())).unwrap().findings,
                [],
                "{} byte {at}",
                flipped.display()
            );
            let set_aside = place.data().join("derived.damaged");
            aside += usize::from(set_aside.exists());
            fs::remove_dir_all(set_aside).ok();
        }
    }
    assert!(aside > 0, "some of it is noticed by the store itself");
}

/// The newest manifest of a keyspace.
fn manifest(keyspace: &Path) -> PathBuf {
    let number = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().strip_prefix('v')?.parse::<u64>().ok();
    let files = fs::read_dir(keyspace).unwrap().map(|item| item.unwrap().path());
    files.filter(|path| number(path).is_some()).max_by_key(number).unwrap()
}

/// fjall asserts what its manifests say, and a panic while it opens cannot be caught.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_manifest_of_the_store_is_noticed_before_it_is_read() {
    let place = filled(30).await;
    let (derived, set_aside) = (place.data().join("derived"), place.data().join("derived.damaged"));
    place.open().unwrap().close();
    assert!(!set_aside.exists(), "a sound one is left alone");
    let keyspaces: Vec<_> = fs::read_dir(derived.join("keyspaces")).unwrap().map(|item| item.unwrap().path()).collect();
    assert!(keyspaces.len() > 5, "{keyspaces:?}");
    for keyspace in &keyspaces {
        for file in [keyspace.join("current"), manifest(keyspace)] {
            let sound = fs::read(&file).unwrap();
            for at in (0..sound.len()).step_by(3) {
                flip(&file, at);
                let error = fsck(&place.data(), Some(&place.guard())).unwrap_err().to_string();
                assert!(
                    error.contains("index") && (error.contains("manifest") || error.contains("checksum")),
                    "{error}"
                );
                fs::write(&file, &sound).unwrap();
            }
        }
    }
    for keyspace in &keyspaces {
        // The number of levels.
        flip(&manifest(keyspace), 8);
        place.open().unwrap().close();
        assert!(set_aside.exists());
        fs::remove_dir_all(&set_aside).unwrap();
        assert_eq!(fsck(&place.data(), Some(&place.guard())).unwrap().findings, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_has_lost_a_part_of_itself_is_made_anew() {
    let place = filled(30).await;
    let (derived, older) = (place.data().join("derived"), place.folder.path().join("derived.older"));
    copy_folder(&derived, &older);
    let node = place.open().unwrap();
    place.fill(&node.handle(), 50).await;
    node.close();
    let set_aside = place.data().join("derived.damaged");
    // The high-water mark is gone, and all else is there.
    with_index(&place, |index| index("meta").remove("applied").unwrap());
    place.open().unwrap().close();
    assert!(set_aside.exists());
    fs::remove_dir_all(&set_aside).unwrap();
    // Some of the state is gone, and blocks wait to be replayed on it: which of the two is damaged
    // shows when the index is made from the blocks alone.
    fs::remove_dir_all(&derived).unwrap();
    copy_folder(&older, &derived);
    with_index(&place, |index| index("state").remove(ledger_core::state::key::tenant(TENANT)).unwrap());
    let refused = place.open().map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("it does not follow from the index, start again"), "{refused}");
    place.open().unwrap().close();
    assert!(set_aside.exists());
    assert_eq!(fsck(&place.data(), Some(&place.guard())).unwrap().findings, []);
}

/// Damage in the tables, while they are read: the store notices by their checksums.
#[tokio::test(flavor = "multi_thread")]
async fn damage_in_the_tables_of_the_store_is_never_answered_from() {
    let place = filled(700).await;
    with_index(&place, |index| {
        for name in ["state", "digest", "height_by_size", "checkpoint"] {
            index(name).rotate_memtable_and_wait().unwrap();
        }
    });
    let (derived, copy) = (place.data().join("derived"), place.folder.path().join("derived.copy"));
    copy_folder(&derived, &copy);
    let tables = files_in(&copy).into_iter().filter(|file| file.parent().unwrap().ends_with("tables"));
    let (mut number, mut noticed) = (700, BTreeSet::new());
    for table in tables {
        let len = usize::try_from(fs::metadata(&table).unwrap().len()).unwrap();
        for at in (0..6).map(|part| len * part / 6 + 40) {
            fs::remove_dir_all(&derived).unwrap();
            copy_folder(&copy, &derived);
            let mut node = place.open().unwrap();
            flip(&derived.join(table.strip_prefix(&copy).unwrap()), at);
            // Twice at the most: the second start has a new store.
            for attempt in 0..2 {
                let handle = node.handle();
                let mut refused = false;
                for index in (3..700).step_by(20).map(LeafIndex) {
                    let digest = Algorithm::Sha256.digest(&content(index.0));
                    match handle.find(Algorithm::Sha256, &digest, LeafIndex(0), 10) {
                        Ok(found) => assert_eq!(found.indexes, [index], "{} byte {at}", table.display()),
                        Err(_) => refused = true,
                    }
                    match (handle.block_of(index), handle.receipt(index)) {
                        (Ok(block), Ok(receipt)) => assert!(block.is_some() && receipt.is_some()),
                        _ => refused = true,
                    }
                }
                match place.try_submit(&handle, vec![evidence(&handle, number, number)]).await {
                    Ok(ended) => assert_eq!(ended[0].result, Ok(number), "{} byte {at}", table.display()),
                    Err(_) => refused = true,
                }
                if !refused {
                    covered(&handle, number + 1).await;
                    break;
                }
                assert!(handle.failure().is_some() && attempt == 0, "{} byte {at}", table.display());
                noticed.insert(table.clone());
                drop(handle);
                node.close();
                node = place.open().unwrap();
                assert!(place.data().join("derived.damaged").exists());
            }
            node.close();
            number += 1;
        }
    }
    assert!(noticed.len() >= 2, "{noticed:?}");
    fs::remove_dir_all(&derived).unwrap();
    place.open().unwrap().close();
    assert_eq!(fsck(&place.data(), Some(&place.guard())).unwrap().findings, []);
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let (mut files, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = open.pop() {
        for item in fs::read_dir(folder).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() { open.push(path) } else { files.push(path) }
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_old_block_is_reported_and_the_node_goes_on() {
    let place = Place::new();
    let node = place.open().unwrap();
    place.tenant(&node.handle()).await;
    for size in [10, 20, 30] {
        place.fill(&node.handle(), size).await;
    }
    node.close();
    let node = place.open().unwrap();
    let handle = node.handle();
    let segment = segment_in(&place.data().join("blocks"));
    // In the middle of the second block's payload.
    let second = handle.blocks(2, 1).unwrap()[0].block.encode();
    let bytes = fs::read(&segment).unwrap();
    let at = bytes.windows(second.len()).position(|window| window == second).unwrap();
    flip(&segment, at + second.len() / 2);
    assert!(handle.blocks(2, 1).is_err());
    assert_eq!(handle.damaged(), [Part::Block(2)]);
    assert!(handle.blocks(3, 1).is_ok());
    place.fill(&handle, 31).await;
    assert_eq!((handle.published().unwrap().size, handle.failure()), (TreeSize(31), None));
    assert_eq!(handle.damaged(), [Part::Block(2)]);
    // Put back by a person.
    flip(&segment, at + second.len() / 2);
    healed(&handle).await;
    assert!(handle.blocks(2, 1).is_ok());
}
