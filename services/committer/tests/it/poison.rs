//! Messages that can never be processed: put aside with the reason, and nothing else.

use chopmark_domain::message::QueueMessage;
use ledger_core::Hash32;

use crate::doubles::{TENANT, World, case_open, evidence, message};

/// Publishes `poison` between two good messages and checks that it is put aside as `label`.
async fn check_put_aside(poison: impl FnOnce(&World) -> Vec<u8>, label: &str) {
    let world = World::new();
    world.publish(&world.evidence(1, 1));
    let bytes = poison(&world);
    world.queue.publish(0, bytes.clone());
    world.publish(&world.evidence(2, 2));
    world.submit_all().await;
    let dead = world.queue.dead();
    let [(position, kept, reason)] = dead.as_slice() else { panic!("one dead letter, not {}", dead.len()) };
    assert_eq!((position.offset, kept), (1, &bytes), "the letter has the message's own bytes");
    assert!(reason.starts_with(&format!("{label}: ")), "{reason}");
    assert!(!reason.contains("0303") && !reason.contains("ten_"), "a reason echoes no values: {reason}");
    [1, 2].into_iter().for_each(|op| world.check_ended_once(op));
    assert_eq!(world.store.rows(), 2, "poison has no row");
    assert_eq!(world.queue.committed(0), 3);
}

async fn check_changed(change: impl FnOnce(&mut QueueMessage), label: &str) {
    let changed = |world: &World| {
        let mut message = world.evidence(3, 3);
        change(&mut message);
        message.encode()
    };
    check_put_aside(changed, label).await;
}

fn replace(operation: &mut Vec<u8>, from: &str, to: &str) {
    let text = String::from_utf8(std::mem::take(operation)).unwrap();
    assert!(text.contains(from));
    *operation = text.replace(from, to).into_bytes();
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_message() {
    check_put_aside(|_| b"not a message".to_vec(), "undecodable").await;
    check_put_aside(|_| Vec::new(), "undecodable").await;
    let truncated = |world: &World| {
        let bytes = world.evidence(3, 3).encode();
        bytes[..bytes.len() - 1].to_vec()
    };
    check_put_aside(truncated, "undecodable").await;
}

#[tokio::test(start_paused = true)]
async fn operations_that_the_ledger_core_cannot_read() {
    check_changed(|message| message.operation = b"{}".to_vec(), "operation").await;
    check_changed(|message| message.operation.clear(), "operation").await;
    check_changed(|message| message.operation.push(b' '), "operation").await;
    check_changed(|message| replace(&mut message.operation, "4711", "4711.0"), "operation").await;
    check_changed(|message| replace(&mut message.operation, "4711", "\"0303\""), "operation").await;
    check_changed(|message| replace(&mut message.operation, "\"evidence\"", "\"mint\""), "operation").await;
    check_changed(|message| replace(&mut message.operation, "application/pdf", "PDF"), "operation").await;
}

#[tokio::test(start_paused = true)]
async fn a_message_and_its_operation_that_differ() {
    check_changed(|message| message.op = Hash32([4; 32]), "operation_id").await;
    check_changed(|message| message.request_digest = Hash32([4; 32]), "request").await;
    check_changed(|message| message.tenant = "ten_b2".to_owned(), "tenant").await;
    check_changed(|message| message.tenant.clear(), "tenant").await;
}

#[tokio::test(start_paused = true)]
async fn another_network_and_another_chain() {
    check_changed(|message| message.network = "live".to_owned(), "network").await;
    check_put_aside(|_| message(evidence(Hash32([8; 32]), TENANT, 3, 3)).encode(), "chain").await;
    check_put_aside(|_| message(case_open(Hash32::ZERO, 3)).encode(), "chain").await;
}

#[tokio::test(start_paused = true)]
async fn what_only_the_ledger_finds_malformed() {
    let world = World::new();
    world.ledger.call_malformed(2);
    world.publish_evidence(3);
    // The same bytes again, and other bytes under the same id, which the ledger can read.
    world.publish(&world.evidence(2, 2));
    world.publish(&world.evidence(2, 9));
    world.submit_all().await;
    assert_eq!(world.queue.dead_offsets(), [1, 3]);
    assert!(world.queue.dead().iter().all(|(_, _, reason)| reason.starts_with("malformed: ")));
    (1..=3).for_each(|op| world.check_ended_once(op));
    assert_eq!(world.ledger.outcome(&Hash32([2; 32])).unwrap().request, Hash32([9; 32]));
    assert_eq!(world.queue.committed(0), 5);
}

#[tokio::test(start_paused = true)]
async fn a_queue_of_nothing_but_poison_moves_on() {
    let world = World::new();
    (0..50).for_each(|_| world.queue.publish(0, b"poison".to_vec()));
    world.submit_all().await;
    assert_eq!(world.queue.dead_offsets().len(), 50);
    assert!(world.ledger.submissions().is_empty());
}
