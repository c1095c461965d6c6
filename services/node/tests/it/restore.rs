//! A node that is made again behind its guard, from blocks that others kept.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use chopmark_node::{
    BlockSource, Followed, Node, NodeError, NodeHandle, Proposal, fsck::fsck, guard::Guard, init_again,
    promise_of_data, restore,
};
use ledger_core::{
    Hash32, block::Block, genesis::Genesis, hash::sha3_256, operation::SignedOperation, verify::SignedCheckpoint,
};
use segment_log::{OnTornTail, Options, SegmentLog};

use crate::{
    alone::{copy_folder, segment_in},
    support::{Consortium, Place, case_append, covered},
};

/// The blocks that a node had, up to a height.
struct Kept {
    blocks: Vec<Followed>,
    up_to: u64,
}

impl BlockSource for Kept {
    fn blocks(&self, height: u64) -> Vec<Followed> {
        let wanted = |block: &&Followed| (height..=self.up_to).contains(&block.proposal.header.height);
        self.blocks.iter().filter(wanted).cloned().collect()
    }

    fn blame(&self, _: &str) {}
}

/// A member whose data are to be lost, and what the network had decided by then.
struct Lost {
    consortium: Consortium,
    genesis: Genesis,
    blocks: Vec<Followed>,
    height: u64,
    /// The member's data when the network was at that height.
    older: (PathBuf, u64),
}

impl Lost {
    async fn new() -> Self {
        let consortium = Consortium::new(2);
        let older = consortium.members[0].folder.path().join("older");
        let (mut nodes, mut older_height) = (consortium.open_all(), 0);
        consortium.tenant(&handles(&nodes)).await;
        for number in 0..10 {
            if number == 5 {
                older_height = nodes[0].handle().height();
                nodes.into_iter().for_each(Node::close);
                copy_folder(&consortium.members[0].data(), &older);
                nodes = consortium.open_all();
            }
            consortium.fill(&handles(&nodes), number..number + 1).await;
        }
        // A block that adds nothing: its checkpoint is that of the block before.
        let rejected = SignedOperation::unsigned(case_append(&nodes[0].handle(), 100));
        assert!(consortium.submit(&handles(&nodes), vec![rejected]).await[0].result.is_err());
        consortium.fill(&handles(&nodes), 10..11).await;
        let handle = nodes[0].handle();
        let followed = handle.follow(1, usize::MAX).unwrap().into_iter().map(|(block, checkpoint)| {
            let Block { header, batch, certificate, .. } = Block::decode(&block).unwrap();
            Followed { proposal: Proposal { header, batch }, certificate, checkpoint }
        });
        let (blocks, height, genesis) = (followed.collect(), handle.height(), handle.genesis().clone());
        drop(handle);
        nodes.into_iter().for_each(Node::close);
        Self { consortium, genesis, blocks, height, older: (older, older_height) }
    }

    fn member(&self) -> &Place {
        &self.consortium.members[0]
    }

    fn init_again(&self) -> Result<(), NodeError> {
        init_again(&self.member().data(), &self.member().guard(), &self.genesis)
    }

    fn lose(&self) {
        fs::remove_dir_all(self.member().data()).unwrap();
    }

    /// Where the data end after a restore from the blocks up to a height.
    fn restore(&self, up_to: u64) -> Result<u64, NodeError> {
        self.restore_at(self.member(), self.blocks.clone(), up_to)
    }

    fn restore_at(&self, place: &Place, blocks: Vec<Followed>, up_to: u64) -> Result<u64, NodeError> {
        restore(place.config()?, self.genesis.chain_id(), Arc::new(Kept { blocks, up_to })).map(|(height, _)| height)
    }

    /// The member votes and signs again.
    async fn goes_on(&self) {
        let nodes = self.consortium.open_all();
        self.consortium.fill(&handles(&nodes), 50..52).await;
        nodes.into_iter().for_each(Node::close);
        let member = self.member();
        assert_eq!(fsck(&member.data(), Some(&member.guard())).unwrap().findings, []);
    }
}

fn handles(nodes: &[Node]) -> Vec<NodeHandle> {
    nodes.iter().map(Node::handle).collect()
}

fn is_damage(result: Result<u64, NodeError>) -> bool {
    matches!(result, Err(NodeError::Log(segment_log::Error::Corrupt { .. })))
}

fn cut(file: &Path, len: u64) {
    fs::OpenOptions::new().write(true).open(file).unwrap().set_len(len).unwrap();
}

/// What an append leaves that was not finished.
fn tear(file: &Path, len: u8) {
    let bytes = fs::read(file).unwrap();
    fs::write(file, [bytes, (0..len).map(|byte| byte ^ 0x5a).collect()].concat()).unwrap();
}

fn records(folder: PathBuf) -> Vec<Vec<u8>> {
    let options = Options { torn_tail: OnTornTail::Refuse, ..Options::default() };
    let (log, _) = SegmentLog::open(folder, options).unwrap();
    log.iter_from(log.first_sequence()).map(|record| record.unwrap().payload).collect()
}

/// Sizes in a node's checkpoint log: height and length of the note stand before each note.
fn checkpoint_sizes(place: &Place) -> Vec<u64> {
    let note = |record: Vec<u8>| String::from_utf8(record[1 + 8 + 4..].to_vec()).unwrap();
    let size = |record| SignedCheckpoint::parse(&note(record)).unwrap().checkpoint.size.0;
    records(place.data().join("checkpoints")).into_iter().map(size).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_lost_power_goes_on() {
    let lost = Lost::new().await;
    lost.lose();
    lost.init_again().unwrap();
    assert_eq!(lost.restore(lost.height - 3).unwrap(), lost.height - 3);
    let segment = segment_in(&lost.member().data().join("blocks"));
    // Power goes in the middle of the next append, and once more in the last one that is missing.
    tear(&segment, 100);
    assert_eq!(lost.restore(lost.height - 1).unwrap(), lost.height - 1);
    tear(&segment, 7);
    assert_eq!(lost.restore(lost.height).unwrap(), lost.height);

    // What has caught up was acknowledged as a whole, with or without an index that says so.
    let sound = fs::read(&segment).unwrap();
    fs::remove_dir_all(lost.member().data().join("derived")).unwrap();
    cut(&segment, sound.len() as u64 - 10);
    assert!(is_damage(lost.restore(lost.height)));
    assert_eq!(fs::read(&segment).unwrap(), sound[..sound.len() - 10], "it was left as it is");
    fs::write(&segment, sound).unwrap();
    lost.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_copy_had_is_never_an_unfinished_write() {
    let lost = Lost::new().await;
    let (older, height) = &lost.older;
    lost.lose();
    copy_folder(older, &lost.member().data());
    let segment = segment_in(&lost.member().data().join("blocks"));
    let had = fs::metadata(&segment).unwrap().len();
    assert_eq!(lost.restore(height + 1).unwrap(), height + 1);
    // Power goes in the middle of an append, and no index says what was there.
    let lose_index = || fs::remove_dir_all(lost.member().data().join("derived")).unwrap();
    lose_index();
    tear(&segment, 100);
    assert_eq!(lost.restore(height + 2).unwrap(), height + 2);
    lose_index();
    cut(&segment, had - 10);
    assert!(is_damage(lost.restore(lost.height)));
    assert_eq!(fs::metadata(&segment).unwrap().len(), had - 10, "it was left as it is");

    // A mark that cannot be read is not believed, and made again.
    let mark = lost.member().data().join("rebuilding");
    lost.lose();
    copy_folder(older, &lost.member().data());
    fs::write(&mark, b"CMREBLD1 and nothing").unwrap();
    assert_eq!(lost.restore(height + 1).unwrap(), height + 1);
    tear(&segment, 7);
    assert_eq!(lost.restore(lost.height).unwrap(), lost.height);
    assert!(!mark.exists());
    lost.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_guard_is_never_made_by_a_restore() {
    let lost = Lost::new().await;
    let guard = lost.member().guard();
    let kept = guard.with_extension("kept");
    fs::rename(&guard, &kept).unwrap();
    let is_missing = |result: Result<u64, NodeError>| {
        let refused = result.err().unwrap();
        assert!(matches!(&refused, NodeError::Guard { reason, .. } if reason.contains("is missing")), "{refused}");
        assert!(!guard.exists());
    };
    is_missing(lost.restore(lost.height));
    lost.lose();
    is_missing(lost.init_again().map(|()| 0));
    assert!(!lost.member().data().exists());
    // Nor is another network's taken.
    let stranger = Place::new();
    fs::rename(stranger.guard(), &guard).unwrap();
    assert!(matches!(lost.init_again(), Err(NodeError::Guard { .. })));
    fs::rename(&kept, &guard).unwrap();
    lost.init_again().unwrap();
    assert_eq!(lost.restore(lost.height).unwrap(), lost.height);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_history_than_the_signed_one_is_refused() {
    let lost = Lost::new().await;
    let member = lost.member();
    let mut promise = promise_of_data(&member.data()).unwrap();
    assert!(promise.size.0 > 0 && promise.root != Hash32::ZERO);
    promise.root = sha3_256(b"another history");
    Guard::adopt(&member.guard(), promise).unwrap();
    lost.lose();
    lost.init_again().unwrap();
    // Below the signed size nothing shows yet.
    let below = lost.height - 3;
    assert_eq!(lost.restore(below).unwrap(), below);
    for _ in 0..2 {
        let refused = lost.restore(lost.height).err().unwrap();
        let other = |reason: &str| reason.contains("another root for tree size");
        assert!(matches!(&refused, NodeError::Guard { reason, .. } if other(reason)), "{refused}");
    }
    assert!(member.open().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_decided_is_stored_once_and_within_bounds() {
    let lost = Lost::new().await;
    let sizes: Vec<u64> = lost.blocks.iter().map(|block| block.proposal.header.tree_size).collect();
    assert!(sizes.windows(2).any(|pair| pair[0] == pair[1]), "a block without entries: {sizes:?}");
    let observer = Place::observer(&lost.genesis);
    assert_eq!(lost.restore_at(&observer, lost.blocks.clone(), lost.height - 2).unwrap(), lost.height - 2);
    assert_eq!(lost.restore_at(&observer, lost.blocks.clone(), lost.height).unwrap(), lost.height);
    let stored = checkpoint_sizes(&observer);
    assert!(stored.windows(2).all(|pair| pair[0] < pair[1]), "{stored:?}");
    assert_eq!(stored.last(), sizes.last());
    // Nothing was voted on: no proposal was written down.
    assert_eq!(records(observer.data().join("proposals")).len(), 0);
    let node = observer.open().unwrap();
    covered(&node.handle(), *sizes.last().unwrap()).await;
    node.close();

    // A line of an unknown name is no fault in a checkpoint, up to what can be read back.
    let with_line = |len: usize| {
        let mut blocks = lost.blocks.clone();
        let block = blocks.iter_mut().find(|block| block.checkpoint.is_some()).unwrap();
        let height = block.proposal.header.height;
        let note = block.checkpoint.as_mut().unwrap();
        let line = |name: &str| format!("\u{2014} {name} AAAAAAAA\n");
        let name = "x".repeat(len - note.len() - line("").len());
        note.push_str(&line(&name));
        assert_eq!(note.len(), len);
        lost.restore_at(&Place::observer(&lost.genesis), blocks, height).map(|reached| (height, reached))
    };
    let (height, reached) = with_line(64 << 10).unwrap();
    assert_eq!(height, reached);
    let refused = with_line((64 << 10) + 1).err().unwrap().to_string();
    assert!(refused.contains("a checkpoint that does not hold"), "{refused}");
}
