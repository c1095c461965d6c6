//! Four members' nodes in one process, with the real engine between them.

use std::time::Duration;

use crate::support::{Consortium, content, covered};
use chopmark_node::{NodeHandle, fsck::fsck};
use ledger_core::{
    digests::Digests,
    merkle::{LeafIndex, TreeSize},
    tile::{TileKind, TilePath},
    verify::{FileFacts, Verdict, verify},
};

/// Whether a receipt of one node holds under the policy of another, and under how many cosigners.
fn receipt_holds(node: &NodeHandle, policy_of: &NodeHandle, index: u64, number: u64) -> usize {
    let receipt = node.receipt(LeafIndex(index)).unwrap().unwrap();
    let entry = node.entry(LeafIndex(index)).unwrap().unwrap();
    let file = FileFacts { digests: Digests::of(&content(number)), size: content(number).len() as u64 };
    let policy = policy_of.policy().unwrap();
    let verdict = verify(Some(&file), &entry, receipt.receipt.render().as_bytes(), policy.as_bytes());
    assert!(matches!(verdict, Verdict::Valid(_)), "{verdict}");
    receipt.cosigners.0
}

/// All nodes have the same entries up to the shortest.
fn assert_no_fork(nodes: &[NodeHandle]) {
    let shortest = nodes.iter().map(|node| node.published().unwrap().size.0).min().unwrap();
    for index in 0..shortest {
        let entries: Vec<_> = nodes.iter().map(|node| node.entry(LeafIndex(index)).unwrap().unwrap()).collect();
        assert!(entries.windows(2).all(|pair| pair[0] == pair[1]), "entry {index} differs");
    }
    let full = shortest / 256;
    for index in 0..full {
        let path = TilePath { kind: TileKind::Entries, index, width: 256 };
        let tiles: Vec<_> = nodes.iter().map(|node| node.tile(path).unwrap().unwrap()).collect();
        assert!(tiles.windows(2).all(|pair| pair[0] == pair[1]), "bundle {index} differs");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn four_members_agree_and_any_receipt_holds_under_any_policy() {
    let consortium = Consortium::new(4);
    let nodes = consortium.open_all();
    let handles: Vec<NodeHandle> = nodes.iter().map(|node| node.handle()).collect();
    consortium.tenant(&handles).await;
    consortium.fill(&handles, 0..300).await;
    for handle in &handles {
        covered(handle, 303).await;
    }
    for handle in &handles {
        for policy_of in &handles {
            assert!(receipt_holds(handle, policy_of, 3, 0) >= 3);
            assert!(receipt_holds(handle, policy_of, 302, 299) >= 3);
        }
    }
    assert_no_fork(&handles);
    drop(handles);
    nodes.into_iter().for_each(chopmark_node::Node::close);
    for member in &consortium.members {
        assert_eq!(fsck(&member.data(), Some(&member.guard())).unwrap().findings, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_away_catches_up_and_signs_again() {
    let consortium = Consortium::new(4);
    let mut nodes = consortium.open_all();
    let handles: Vec<NodeHandle> = nodes.iter().map(|node| node.handle()).collect();
    consortium.tenant(&handles).await;
    consortium.fill(&handles, 0..20).await;
    drop(handles);
    nodes.remove(3).close();
    let three: Vec<NodeHandle> = nodes.iter().map(|node| node.handle()).collect();
    for batch in 0..5 {
        consortium.fill(&three, 20 + batch * 20..40 + batch * 20).await;
    }
    let size = three[0].published().unwrap().size;
    assert_eq!(size, TreeSize(123));
    let back = consortium.open(3);
    tokio::time::timeout(Duration::from_secs(60), covered(&back.handle(), size.0)).await.unwrap();
    assert_no_fork(&[three[0].clone(), back.handle()]);
    // With another one stopped, the one that came back is needed for the quorum.
    drop(three);
    nodes.remove(0).close();
    let now: Vec<NodeHandle> = nodes.iter().chain([&back]).map(|node| node.handle()).collect();
    consortium.fill(&now, 120..140).await;
    assert!(receipt_holds(&now[2], &now[0], 142, 139) >= 3);
}
