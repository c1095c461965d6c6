use std::{
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use chopmark_consensus::Heard;
use ed25519_dalek::Signer as _;
use ledger_core::{
    SigningKey,
    batch::Submission,
    checkpoint::Checkpoint,
    codec::Writer,
    digests::{Algorithm, Digests},
    genesis::Network,
    hash::sha3_256,
    member::{Member, MemberSet},
    note::{Note, cosign, sign},
    operation::{
        Evidence, Operation, OperationSignature, OperationType, SignedOperation, TenantSet, TenantStatus, V1,
        approval_message,
    },
    policy::Policy,
    tile::TileKind,
    vote::{Certificate, CommitSignature, address, precommit},
};

use super::*;
use crate::{LocalPeer, keys::SigningKeys};

/// Far beyond what closing takes.
const HANGS_AFTER: Duration = Duration::from_secs(60);
const TENANT: &str = "ten_test";

/// A member's key: for the log, cosigning, voting, statements, the network, governing, submitting.
fn key(member: u8, which: u8) -> SigningKey {
    SigningKey::from_bytes(&[member * 10 + which; 32])
}

fn public(member: u8, which: u8) -> Hash32 {
    Hash32(key(member, which).verifying_key().to_bytes())
}

fn genesis(members: u8) -> Genesis {
    let member = |number| Member {
        cosigner_key: public(number, 1),
        domain: format!("member{number}.test"),
        governance_key: public(number, 5),
        log_key: public(number, 0),
        submitter_keys: vec![public(number, 6)],
        validator_key: public(number, 2),
    };
    Genesis {
        members: MemberSet::new((0..members).map(member).collect()).unwrap(),
        network: Network::Sandbox,
        origin: "sandbox.test/log".to_owned(),
        policy: Policy::default(),
        time: 1_790_000_000_000,
        v: V1,
    }
}

/// The first member's node, with a peer that is never there; each look at the clock is a second later.
fn config(folder: &Path) -> NodeConfig {
    let signing = SigningKeys { log: key(0, 0), cosigner: key(0, 1), validator: key(0, 2) };
    let time = AtomicU64::new(1_790_000_001_000);
    NodeConfig {
        data: folder.join("node"),
        guard: folder.join("guard"),
        keys: NodeKeys::in_memory(signing, key(0, 3), key(0, 4)),
        domain: "member0.test".to_owned(),
        clock: Arc::new(move || time.fetch_add(1_000, Ordering::Relaxed)),
        pool_bytes_max: POOL_BYTES_MAX,
        network: NetworkConfig { listen: ([127, 0, 0, 1], 0).into(), peers: Vec::new().into() },
        source: None,
        peer_tiles: vec![Arc::new(LocalPeer::new("away.test".to_owned()))],
        stop: watch::Sender::new(false).subscribe(),
    }
}

fn tenant(chain: Hash32, members: u8) -> SignedOperation {
    let operation = Operation::TenantSet(Box::new(TenantSet {
        chain,
        expires: 1_000_000,
        key: None,
        kind: OperationType::TenantSet,
        op: sha3_256(b"tenant"),
        replaces: Hash32::ZERO,
        request: sha3_256(b"tenant"),
        status: TenantStatus::Active,
        tenant: TENANT.to_owned(),
        tier: 1,
        v: V1,
    }))
    .encode();
    let message = approval_message(&chain, &operation);
    let approval = |member| {
        let signature = key(member, 5).sign(&message).to_bytes();
        OperationSignature { key: public(member, 5), signature }
    };
    SignedOperation { operation, signatures: (0..members).map(approval).collect() }
}

fn evidence(chain: Hash32, number: u64) -> SignedOperation {
    let content = number.to_be_bytes();
    let digests = Digests { sha256: Some(Algorithm::Sha256.digest(&content)), ..Digests::default() };
    let operation = Operation::Evidence(Box::new(Evidence {
        chain,
        commitment: None,
        digests: Some(digests),
        kind: OperationType::Evidence,
        media_type: None,
        op: sha3_256(&content),
        private: None,
        request: sha3_256(&content),
        size: Some(8),
        tenant: TENANT.to_owned(),
        v: V1,
    }));
    SignedOperation::unsigned(operation.encode())
}

/// Decides a block of these, with every member's precommit.
fn decide(ledger: &mut Ledger, operations: Vec<SignedOperation>) {
    let (chain, height) = (ledger.shared.chain, ledger.height());
    let submission = Submission::sign(&chain, &key(0, 6), operations);
    let _outcome = NodeHandle(Arc::clone(&ledger.shared)).enter(submission).unwrap();
    let value = ledger.propose(0, address(&public(0, 2))).unwrap().0.value;
    let signed = |member| CommitSignature {
        address: hex::encode(address(&public(member, 2))),
        signature: hex::encode(precommit(&chain, height, 0, &value, &key(member, 2))),
    };
    let members = u8::try_from(ledger.members().len()).unwrap();
    let mut signatures: Vec<CommitSignature> = (0..members).map(signed).collect();
    signatures.sort_by(|a, b| a.address.cmp(&b.address));
    ledger.decide(Certificate { height, round: 0, signatures, v: V1, value }).unwrap();
}

/// The ledger waits for room in the backlog, the thread behind it for a bundle, and nobody heals that.
#[test]
fn closing_ends_while_a_bundle_that_the_index_needs_is_unreadable() {
    let folder = tempfile::tempdir().unwrap();
    init(&folder.path().join("node"), &folder.path().join("guard"), &genesis(1)).unwrap();
    let opened = Opened::open(config(folder.path())).unwrap();
    let (shared, mut applied) = (Arc::clone(&opened.shared), opened.applied);
    let mut ledger = opened.ledger().unwrap();
    let chain = shared.chain;
    decide(&mut ledger, vec![tenant(chain, 1)]);
    for numbers in [0..250, 250..400, 400..700] {
        decide(&mut ledger, numbers.map(|number| evidence(chain, number)).collect());
    }
    assert_eq!(ledger.size(), TreeSize(703));
    // With the first block, all bundles that are full by now are written; the next mark lies within one.
    derive::step(&shared, &mut applied, 1).unwrap();
    let late = shared.backlog.hold_back(2);
    assert!(matches!(late[0], derive::Work::Block(_)));
    fs::write(shared.files.path(TileKind::Entries, 1), b"").unwrap();

    // Without the thread that repairs: alone, it would make the bundle anew from the block log.
    let mut node = Node { handle: NodeHandle(Arc::clone(&shared)), ledger: None, derive: None, repair: None };
    let behind = Arc::clone(&shared);
    node.derive = Some(spawn("derive", move || derive::run(&behind, applied)).unwrap());
    let behind = Arc::clone(&shared);
    node.ledger = Some(
        spawn("ledger", move || {
            let pushed = late.into_iter().try_for_each(|work| behind.backlog.push(work));
            assert!(pushed.is_err(), "there was room");
        })
        .unwrap(),
    );
    let give_up = Instant::now() + HANGS_AFTER;
    while shared.damage.parts().is_empty() {
        assert!(Instant::now() < give_up, "the index did not need it");
        thread::sleep(Duration::from_millis(5));
    }
    let (ended, end) = mpsc::sync_channel(1);
    thread::spawn(move || {
        node.close();
        ended.send(()).unwrap();
    });
    end.recv_timeout(HANGS_AFTER).expect("closing goes on for ever");

    // What the index lacks is replayed.
    drop((ledger, shared));
    let again = Opened::open(config(folder.path())).unwrap().ledger().unwrap();
    assert_eq!(again.size(), TreeSize(703));
}

/// A checkpoint with the signatures of both members, or the second one's alone.
fn checkpoint(size: TreeSize, root: Hash32, cosigned_by: &[u8]) -> String {
    let text = Checkpoint { origin: "sandbox.test/log".to_owned(), size, root }.text();
    let mut signatures = vec![sign("sandbox.test/log", &key(0, 0), &text).unwrap()];
    let cosignature = |member: &u8| {
        let name = format!("member{member}.test/cosigner");
        cosign(&name, &key(*member, 1), &text, 1_790_000_100).unwrap()
    };
    signatures.extend(cosigned_by.iter().map(cosignature));
    Note { text, signatures }.render()
}

/// A node that signed a size takes over a larger one from others, then hears the rest of the smaller.
#[test]
fn checkpoints_are_stored_once_and_only_grow() {
    let folder = tempfile::tempdir().unwrap();
    init(&folder.path().join("node"), &folder.path().join("guard"), &genesis(2)).unwrap();
    let mut ledger = Opened::open(config(folder.path())).unwrap().ledger().unwrap();
    let shared = Arc::clone(&ledger.shared);
    let chain = shared.chain;
    decide(&mut ledger, vec![tenant(chain, 2)]);
    let (small, small_root) = (ledger.size(), ledger.parent().frontier.root());
    decide(&mut ledger, vec![evidence(chain, 1)]);
    let (large, large_root) = (ledger.size(), ledger.parent().frontier.root());
    assert_eq!(ledger.signed(), large, "both were signed here");
    assert!(shared.published.load().is_none(), "one of two is no quorum");

    let published =
        || (shared.published.load().as_ref().as_ref().map(|last| last.size), shared.checkpoints.next_sequence());
    assert!(!ledger.take_checkpoint(&checkpoint(large, large_root, &[1])).unwrap());
    let note = checkpoint(large, large_root, &[0, 1]);
    for _ in 0..2 {
        assert!(ledger.take_checkpoint(&note).unwrap());
        assert_eq!(published(), (Some(large), 1));
    }
    let mut message = Writer::new();
    message.u8(1).bytes(checkpoint(small, small_root, &[1]).as_bytes());
    assert_eq!(ledger.message(message.as_slice()).unwrap(), Heard::Nothing);
    assert_eq!(published(), (Some(large), 1));
}
