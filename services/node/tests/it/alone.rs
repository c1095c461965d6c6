//! A node of one member: what it commits, proves, survives and refuses.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::support::{Place, case_append, content, evidence};
use chopmark_node::{NodeError, NodeHandle, fsck::fsck};
use ledger_core::{
    Hash32,
    digests::{Algorithm, Digests},
    entry::entry_id,
    merkle::{Frontier, LeafIndex, TreeSize, leaf_hash},
    outcome::RejectionCode,
    tile::{TileKind, TilePath, decode_bundle, decode_hashes},
    verify::{FileFacts, Verdict, verify},
};

fn verdict(node: &NodeHandle, index: u64, number: u64) -> Verdict {
    let receipt = node.receipt(LeafIndex(index)).unwrap().unwrap();
    let entry = node.entry(LeafIndex(index)).unwrap().unwrap();
    let file = FileFacts { digests: Digests::of(&content(number)), size: content(number).len() as u64 };
    verify(Some(&file), &entry, receipt.receipt.render().as_bytes(), node.policy().unwrap().as_bytes())
}

/// Rebuilds the root of the newest checkpoint from nothing but served bundles and tiles.
pub(crate) fn rebuild_root(node: &NodeHandle) -> Hash32 {
    let size = node.published().unwrap().size;
    let mut tree = Frontier::new();
    for bundle in 0..size.0.div_ceil(256) {
        let width = u16::try_from((size.0 - bundle * 256).min(256)).unwrap();
        let path = |kind| TilePath { kind, index: bundle, width };
        let bytes = node.tile(path(TileKind::Entries)).unwrap().unwrap();
        let leaves: Vec<Hash32> =
            decode_bundle(&bytes, usize::from(width)).unwrap().into_iter().map(leaf_hash).collect();
        let tile = node.tile(path(TileKind::Hashes(0))).unwrap().unwrap();
        assert_eq!(decode_hashes(&tile, usize::from(width)).unwrap(), leaves);
        leaves.into_iter().for_each(|leaf| tree.push(leaf));
    }
    tree.root()
}

#[tokio::test(flavor = "multi_thread")]
async fn proves_every_entry_at_growing_sizes() {
    let place = Place::new();
    let node = place.open().unwrap();
    let handle = node.handle();
    assert_eq!(handle.published().unwrap().size, TreeSize(2));
    place.tenant(&handle).await;
    for size in [4, 7, 8, 255, 256, 257, 700] {
        place.fill(&handle, size).await;
        assert_eq!(handle.published().unwrap().size, TreeSize(size));
        for index in [3, size / 2 + 2, size - 1].into_iter().filter(|index| *index < size) {
            let Verdict::Valid(valid) = verdict(&handle, index, index) else {
                panic!("{}", verdict(&handle, index, index))
            };
            assert_eq!((valid.index.0, valid.cosigners, valid.witnesses), (index, 1, 1));
            assert!(matches!(verdict(&handle, index, index + 1), Verdict::Invalid(_)));
        }
        assert_eq!(rebuild_root(&handle), handle.published().unwrap().root);
    }
    assert_eq!(handle.receipt(LeafIndex(700)).unwrap(), None);
    // The first receipt of an entry stays its receipt.
    let before = handle.receipt(LeafIndex(5)).unwrap();
    place.fill(&handle, 900).await;
    assert_eq!(handle.receipt(LeafIndex(5)).unwrap(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_id_has_one_outcome_for_ever() {
    let place = Place::new();
    let node = place.open().unwrap();
    let handle = node.handle();
    let too_early = place.submit(&handle, vec![evidence(&handle, 1, 1)]).await;
    assert_eq!(too_early[0].result, Err(RejectionCode::TenantUnknown));
    place.tenant(&handle).await;
    let first = place.submit(&handle, vec![evidence(&handle, 2, 2), evidence(&handle, 3, 3)]).await;
    assert_eq!(first.iter().map(|ended| ended.result).collect::<Vec<_>>(), [Ok(3), Ok(4)]);
    let again = place
        .submit(
            &handle,
            vec![evidence(&handle, 3, 3), evidence(&handle, 4, 4), evidence(&handle, 4, 4), evidence(&handle, 2, 99)],
        )
        .await;
    assert_eq!(again.iter().map(|ended| ended.result).collect::<Vec<_>>(), [Ok(4), Ok(5), Ok(5), Ok(3)]);
    // The outcome names the request that got it, so the other caller sees the conflict.
    assert_eq!(again[3].request, first[0].request);
    let rejected = place.submit(&handle, vec![evidence(&handle, 1, 1)]).await;
    assert_eq!(rejected[0].result, Err(RejectionCode::TenantUnknown));
    drop(handle);
    node.close();
    let node = place.open().unwrap();
    let handle = node.handle();
    let after = place.submit(&handle, vec![evidence(&handle, 2, 2), evidence(&handle, 1, 1)]).await;
    assert_eq!(after[0].result, Ok(3));
    assert_eq!(after[1].result, Err(RejectionCode::TenantUnknown));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_of_rejections_alone_is_covered_by_the_checkpoint_before_it() {
    let place = Place::new();
    let node = place.open().unwrap();
    let handle = node.handle();
    place.tenant(&handle).await;
    let before = handle.published().unwrap();
    let append = case_append(&handle, 9);
    assert_eq!(place.submit(&handle, vec![append]).await[0].result, Err(RejectionCode::CaseUnknown));
    handle.wait_beyond(before.height, Duration::from_secs(10)).await;
    let after = handle.published().unwrap();
    assert_eq!((after.height, &after.note), (before.height + 1, &before.note));
    assert_eq!(handle.blocks(after.height, 9).unwrap().len(), 1);
    drop(handle);
    node.close();
    assert_eq!(place.open().unwrap().handle().published().unwrap(), after);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_is_found_at_every_position() {
    let place = Place::new();
    let node = place.open().unwrap();
    let handle = node.handle();
    place.tenant(&handle).await;
    for op in 10..13 {
        place.submit(&handle, vec![evidence(&handle, op, 7)]).await;
    }
    crate::support::covered(&handle, 6).await;
    let digest = Algorithm::Sha256.digest(&content(7));
    let expected: Vec<LeafIndex> = (3..6).map(LeafIndex).collect();
    assert_eq!(handle.find(Algorithm::Sha256, &digest, LeafIndex(0), 10).unwrap().indexes, expected);
    drop(handle);
    node.close();
    let node = place.open().unwrap();
    let handle = node.handle();
    assert_eq!(handle.find(Algorithm::Sha256, &digest, LeafIndex(0), 10).unwrap().indexes, expected);
    assert_eq!(handle.find(Algorithm::Sha256, &digest, LeafIndex(0), 2).unwrap().indexes, expected[..2]);
    assert_eq!(handle.find(Algorithm::Sha256, &digest, LeafIndex(4), 10).unwrap().indexes, expected[1..]);
    assert_eq!(handle.not_found(Algorithm::Sha256, &digest).unwrap(), None);
    assert!(handle.find(Algorithm::Sm3, &digest, LeafIndex(0), 10).unwrap().indexes.is_empty());
    let statement = handle.not_found(Algorithm::Sm3, &digest).unwrap().unwrap();
    assert!(statement.contains(&format!("digest sm3 {digest}\nsize 6\n")), "{statement}");
    let key = ledger_core::note::VerifierKey::parse(&handle.statement_key().unwrap()).unwrap();
    assert!(ledger_core::note::Note::parse(&statement).unwrap().verified_by(&key).unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_is_found_by_its_id() {
    let place = Place::new();
    let node = place.open().unwrap();
    let handle = node.handle();
    place.tenant(&handle).await;
    place.fill(&handle, 300).await;
    let id = |index| entry_id(&handle.entry(LeafIndex(index)).unwrap().unwrap());
    let ids: Vec<Hash32> = (0..300).map(id).collect();
    let check = |handle: &NodeHandle| {
        for (index, id) in (0..).zip(&ids) {
            assert_eq!(handle.find_entry(id).unwrap(), Some(LeafIndex(index)));
            // An id is not found as a digest, nor a digest as an id.
            assert!(handle.find(Algorithm::Sha3_256, id, LeafIndex(0), 1).unwrap().indexes.is_empty());
        }
        assert_eq!(handle.find_entry(&Algorithm::Sha256.digest(&content(7))).unwrap(), None);
    };
    check(&handle);
    drop(handle);
    node.close();
    assert_eq!(fsck(&place.data(), Some(&place.guard())).unwrap().findings, []);
    let node = place.open().unwrap();
    check(&node.handle());
    place.fill(&node.handle(), 301).await;
    let newest = entry_id(&node.handle().entry(LeafIndex(300)).unwrap().unwrap());
    assert_eq!(node.handle().find_entry(&newest).unwrap(), Some(LeafIndex(300)));
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_and_rebuild_give_the_same_ledger() {
    let place = Place::new();
    let node = place.open().unwrap();
    let handle = node.handle();
    place.tenant(&handle).await;
    place.fill(&handle, 1300).await;
    let (published, receipt) = (handle.published().unwrap(), handle.receipt(LeafIndex(600)).unwrap().unwrap());
    let blocks = handle.blocks(1, 1000).unwrap();
    drop(handle);
    node.close();
    assert_eq!(fsck(&place.data(), Some(&place.guard())).unwrap().findings, []);

    for lost in ["derived", "log", "nothing"] {
        match lost {
            "nothing" => {}
            // Tiles alone cannot be missing while the index vouches for them.
            "log" => {
                fs::remove_dir_all(place.data().join("log")).unwrap();
                fs::remove_dir_all(place.data().join("derived")).unwrap();
            }
            folder => fs::remove_dir_all(place.data().join(folder)).unwrap(),
        }
        let node = place.open().unwrap();
        let handle = node.handle();
        assert_eq!(handle.published().unwrap().note, published.note);
        assert_eq!(handle.receipt(LeafIndex(600)).unwrap().unwrap(), receipt);
        assert_eq!(rebuild_root(&handle), published.root);
        let again = handle.blocks(1, 1000).unwrap();
        assert_eq!(again.len(), blocks.len());
        for (a, b) in again.iter().zip(&blocks) {
            assert_eq!((a.block.encode(), &a.entries), (b.block.encode(), &b.entries));
        }
        let sizes: Vec<u64> = blocks.iter().map(|block| block.block.header.tree_size).collect();
        for index in [2, 3, 4, 255, 256, 700, 1299] {
            let height = sizes.iter().position(|size| *size > index).unwrap() as u64 + 1;
            assert_eq!(handle.block_of(LeafIndex(index)).unwrap().unwrap().0, height, "index {index}");
        }
        assert_eq!(handle.block_of(LeafIndex(1)).unwrap(), None);
        drop(handle);
        node.close();
        assert_eq!(fsck(&place.data(), Some(&place.guard())).unwrap().findings, [], "after losing {lost}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guard_refuses_an_older_copy_of_the_data() {
    let place = Place::new();
    let node = place.open().unwrap();
    place.tenant(&node.handle()).await;
    node.close();
    let copy = place.folder.path().join("copy");
    copy_folder(&place.data(), &copy);
    let node = place.open().unwrap();
    place.fill(&node.handle(), 10).await;
    node.close();
    fs::remove_dir_all(place.data()).unwrap();
    copy_folder(&copy, &place.data());
    let refused = place.open().err().unwrap().to_string();
    assert!(refused.contains("older copy") && refused.contains("adopt"), "{refused}");
    let report = fsck(&place.data(), Some(&place.guard())).unwrap();
    assert!(report.findings.iter().any(|finding| finding.file == place.guard()), "{:?}", report.findings);

    fs::rename(place.guard(), place.folder.path().join("guard.away")).unwrap();
    let refused = place.open().err().unwrap().to_string();
    assert!(refused.contains("missing") && refused.contains("adopt"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_cannot_share_a_directory() {
    let place = Place::new();
    let node = place.open().unwrap();
    let refused = place.open().err().unwrap();
    assert!(matches!(refused, NodeError::Guard { .. }) && refused.to_string().contains("in use"), "{refused}");
    assert!(fsck(&place.data(), None).is_err());
    node.close();
    place.open().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_to_tiles_is_detected_named_and_never_served() {
    let place = Place::new();
    let node = place.open().unwrap();
    place.tenant(&node.handle()).await;
    place.fill(&node.handle(), 1100).await;
    node.close();
    let files = ["log/tile/0/001", "log/tile/entries/002", "log/tile/0/003"];
    for (round, file) in files.iter().enumerate() {
        let path = place.data().join(file);
        let sound = fs::read(&path).unwrap();
        let mut damaged = sound.clone();
        let at = damaged.len() / 2 + round;
        damaged[at] ^= 1 << round;
        for bytes in [Some(damaged), None] {
            match bytes {
                Some(bytes) => fs::write(&path, bytes).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            let report = fsck(&place.data(), Some(&place.guard())).unwrap();
            assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
            assert_eq!(report.findings[0].file, path);
            let (name, index) = report.findings[0].at.unwrap();
            let tile = path.file_name().unwrap().to_str().unwrap().parse::<u64>().unwrap();
            assert!(name == "index" && (tile * 256..(tile + 1) * 256).contains(&index), "{index}");
            // Nothing else is served, whether or not it is healed meanwhile from what lies below.
            if let Ok(node) = place.open() {
                let handle = node.handle();
                let kind = if file.contains("entries") { TileKind::Entries } else { TileKind::Hashes(0) };
                let path = TilePath { kind, index: tile, width: 256 };
                for width in [1, 255, 256] {
                    // Its first items come from the same file.
                    match handle.tile(TilePath { width, ..path }) {
                        Ok(bytes) => assert!(sound.starts_with(&bytes.unwrap())),
                        Err(error) => assert!(error.to_string().contains("tile"), "{error}"),
                    }
                }
                assert_eq!(handle.failure(), None);
                drop(handle);
                node.close();
            }
            fs::write(&path, &sound).unwrap();
        }
    }
    assert_eq!(fsck(&place.data(), Some(&place.guard())).unwrap().findings, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_block_or_checkpoint_log_is_never_silent() {
    let place = Place::new();
    let node = place.open().unwrap();
    place.tenant(&node.handle()).await;
    for size in [5, 9, 14, 20] {
        place.fill(&node.handle(), size).await;
    }
    node.close();
    for folder in ["blocks", "checkpoints"] {
        let segment = segment_in(&place.data().join(folder));
        let sound = fs::read(&segment).unwrap();
        for at in (0..sound.len()).step_by(sound.len() / 40) {
            let mut damaged = sound.clone();
            damaged[at] ^= 0x10;
            fs::write(&segment, &damaged).unwrap();
            let report = fsck(&place.data(), Some(&place.guard())).unwrap();
            assert!(!report.findings.is_empty(), "{folder} byte {at}");
            fs::write(&segment, &sound).unwrap();
        }
    }
    assert_eq!(fsck(&place.data(), Some(&place.guard())).unwrap().findings, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_block_log_is_cut_and_a_lost_block_is_noticed() {
    let place = Place::new();
    let node = place.open().unwrap();
    place.tenant(&node.handle()).await;
    place.fill(&node.handle(), 30).await;
    node.close();
    let segment = segment_in(&place.data().join("blocks"));
    let sound = fs::read(&segment).unwrap();
    let mut torn = sound.clone();
    torn.extend((0..100).map(|byte| byte ^ 0x5a));
    fs::write(&segment, &torn).unwrap();
    let node = place.open().unwrap();
    assert_eq!(node.handle().published().unwrap().size, TreeSize(30));
    place.fill(&node.handle(), 31).await;
    node.close();
    // The last block was acknowledged: neither its loss nor one flipped bit in it is a torn write,
    // and what is left of it stays for whoever can repair it.
    let sound = fs::read(&segment).unwrap();
    let mut flipped = sound.clone();
    flipped[sound.len() - 200] ^= 1;
    for damaged in [&sound[..sound.len() - 10], &flipped] {
        fs::write(&segment, damaged).unwrap();
        let refused = place.open().err().unwrap();
        assert!(matches!(refused, NodeError::Log(segment_log::Error::Corrupt { .. })), "{refused}");
        assert_eq!(fs::read(&segment).unwrap(), damaged);
    }
    fs::write(&segment, &sound).unwrap();
    place.open().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_that_lacks_one_rejection_is_refused() {
    let place = Place::new();
    let node = place.open().unwrap();
    place.tenant(&node.handle()).await;
    node.close();
    let copy = place.folder.path().join("copy");
    copy_folder(&place.data(), &copy);
    let node = place.open().unwrap();
    let append = case_append(&node.handle(), 9);
    assert!(place.submit(&node.handle(), vec![append]).await[0].result.is_err());
    node.close();
    fs::remove_dir_all(place.data()).unwrap();
    copy_folder(&copy, &place.data());
    // The tree is the same in both, and the vote is one that a crash could have left.
    let refused = place.open().err().unwrap().to_string();
    assert!(refused.contains("older copy"), "{refused}");
    assert!(!fsck(&place.data(), Some(&place.guard())).unwrap().findings.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_checkpoints_are_noticed_and_never_signed_anew() {
    let place = Place::new();
    let node = place.open().unwrap();
    place.tenant(&node.handle()).await;
    place.fill(&node.handle(), 10).await;
    node.close();
    let segment = segment_in(&place.data().join("checkpoints"));
    let sound = fs::read(&segment).unwrap();
    fs::remove_file(&segment).unwrap();
    for derived in ["there", "moved away"] {
        if derived == "moved away" {
            fs::remove_dir_all(place.data().join("derived")).unwrap();
        }
        let report = fsck(&place.data(), Some(&place.guard())).unwrap();
        assert!(!report.findings.is_empty(), "derived {derived}");
        let refused = place.open().err().unwrap().to_string();
        assert!(refused.contains("checkpoint"), "{refused}");
        // What the refused start made in its place.
        for item in fs::read_dir(place.data().join("checkpoints")).unwrap() {
            fs::remove_file(item.unwrap().path()).unwrap();
        }
    }
    fs::write(&segment, &sound).unwrap();
    place.open().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_was_never_finished_is_made_anew() {
    let place = Place::new();
    let node = place.open().unwrap();
    place.tenant(&node.handle()).await;
    place.fill(&node.handle(), 10).await;
    node.close();
    let derived = place.data().join("derived");
    for marker in [None, Some(b"")] {
        // What a kill leaves between the journal and the marker.
        fs::remove_dir_all(&derived).unwrap();
        fs::create_dir(&derived).unwrap();
        fs::write(derived.join("0.jnl"), [0; 100]).unwrap();
        marker.into_iter().for_each(|marker| fs::write(derived.join("version"), marker).unwrap());
        assert_eq!(fsck(&place.data(), Some(&place.guard())).unwrap().findings, []);
        assert!(derived.join("0.jnl").exists(), "fsck changes nothing");
        let node = place.open().unwrap();
        assert_eq!(node.handle().published().unwrap().size, TreeSize(10));
        node.close();
    }
}

/// Readers that look up old blocks, while new ones are decided: they share locks with the writers.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_of_old_blocks_and_writers_do_not_wait_for_each_other() {
    let place = Place::new();
    let node = place.open().unwrap();
    place.tenant(&node.handle()).await;
    place.fill(&node.handle(), 300).await;
    node.close();
    let node = place.open().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..6)
        .map(|reader| {
            let (handle, stop) = (node.handle(), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut reads = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    let index = LeafIndex((reads * 7 + reader) % 300);
                    handle.block_of(index).unwrap();
                    handle.blocks(1 + reads % 2, 2).unwrap();
                    handle.receipt(index).unwrap();
                    reads += 1;
                }
                reads
            })
        })
        .collect();
    let handle = node.handle();
    for op in 1000..1200 {
        let one = place.submit(&handle, vec![evidence(&handle, op, op)]);
        let ended = tokio::time::timeout(Duration::from_secs(60), one).await.expect("the node still decides");
        assert!(ended[0].result.is_ok());
    }
    stop.store(true, Ordering::Relaxed);
    assert!(readers.into_iter().all(|reader| reader.join().unwrap() > 0));
}

pub(crate) fn segment_in(folder: &Path) -> std::path::PathBuf {
    let mut segments = fs::read_dir(folder).unwrap().map(|item| item.unwrap().path());
    segments.find(|path| path.extension().is_some_and(|extension| extension == "seg")).unwrap()
}

pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap() {
        let path = item.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            fs::copy(&path, target).unwrap();
        }
    }
}
