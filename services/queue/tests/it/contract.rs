//! What every queue owes its users, whatever carries it. `contract_tests!` makes one test of each
//! function here for a [`Subject`], or none where the subject is `None`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chopmark_domain::ports::{Queue, QueueConsumer, QueuePosition};

use crate::common::{drain, identity, message, newest, serials, take, take_all};

/// A queue under test, with data of its own that outlives a restart.
#[async_trait]
pub(crate) trait Subject: Send {
    /// The producing side.
    fn queue(&self) -> Arc<dyn Queue>;
    /// The only member of the consumer group. The last one was dropped.
    async fn consumer(&self) -> Box<dyn QueueConsumer>;
    /// Ends everything and starts it again on the same data. Queue and consumers were dropped.
    async fn restart(&mut self);
    /// Puts bytes into the queue that are no message. Queue and consumers were dropped.
    async fn inject(&mut self, bytes: &[u8]);
    /// What was put aside: position, bytes, reason.
    async fn dead_letters(&self) -> Vec<(QueuePosition, Vec<u8>, String)>;
}

macro_rules! contract_tests {
    ($subject:expr; $($name:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(mut subject) = $subject {
                    crate::contract::$name(&mut subject).await;
                }
            }
        )*
    };
    ($subject:expr) => {
        contract_tests!($subject;
            messages_come_back_as_they_were, each_key_keeps_its_order, publishers_in_parallel_keep_theirs,
            what_is_not_committed_comes_again, a_commit_never_moves_back, a_commit_needs_a_delivery,
            poison_is_delivered_as_such, dead_letters_are_kept, a_poll_ends_early_when_full,
            a_poll_lingers_for_more, a_poll_returns_what_there_is, dropped_polls_lose_nothing, lag_counts_the_uncommitted,
            nothing_published_is_nothing,
        );
    };
}

pub(crate) async fn messages_come_back_as_they_were(subject: &mut dyn Subject) {
    let mut rich = message(3, 9, 700);
    rich.trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned();
    rich.sealed_private = vec![1; 2000];
    rich.external_index = Some(rich.op);
    let sent = vec![rich, message(3, 10, 8)];
    subject.queue().publish(sent.clone()).await.unwrap();
    let taken = take(subject.consumer().await.as_mut(), 2).await;
    assert_eq!(taken.into_iter().map(|delivery| delivery.message.unwrap()).collect::<Vec<_>>(), sent);
}

pub(crate) async fn each_key_keeps_its_order(subject: &mut dyn Subject) {
    let queue = subject.queue();
    for round in 0..20 {
        queue.publish((0..50).map(|at| message(at % 7, round * 50 + at, 100)).collect()).await.unwrap();
    }
    let taken = take(subject.consumer().await.as_mut(), 1000).await;
    let mut last = BTreeMap::new();
    for delivery in &taken {
        let (key, serial) = identity(delivery);
        assert!(last.insert(key, serial).is_none_or(|before| before < serial), "key {key}: {serial}");
    }
    assert!(taken.windows(2).all(|pair| pair[0].position != pair[1].position));
}

pub(crate) async fn publishers_in_parallel_keep_theirs(subject: &mut dyn Subject) {
    let tasks: Vec<_> = (0..16)
        .map(|key| {
            let queue = subject.queue();
            tokio::spawn(async move {
                for serial in 0..20 {
                    queue.publish(vec![message(key, serial, 50)]).await.unwrap();
                }
            })
        })
        .collect();
    let taken = take(subject.consumer().await.as_mut(), 320).await;
    for task in tasks {
        task.await.unwrap();
    }
    let mut next = BTreeMap::new();
    for delivery in &taken {
        let (key, serial) = identity(delivery);
        let expected: &mut u64 = next.entry(key).or_default();
        assert_eq!(serial, *expected, "key {key}");
        *expected += 1;
    }
}

pub(crate) async fn what_is_not_committed_comes_again(subject: &mut dyn Subject) {
    // One key, so that one partition holds them all.
    subject.queue().publish((0..100).map(|serial| message(1, serial, 50)).collect()).await.unwrap();
    let mut consumer = subject.consumer().await;
    let taken = take(consumer.as_mut(), 60).await;
    consumer.commit(&newest(&taken[..40])).await.unwrap();
    drop(consumer);

    let mut consumer = subject.consumer().await;
    assert_eq!(serials(&take(consumer.as_mut(), 60).await), (40..100).collect::<Vec<_>>());
    drop(consumer);

    subject.restart().await;
    let mut consumer = subject.consumer().await;
    let taken = take(consumer.as_mut(), 60).await;
    assert_eq!(serials(&taken), (40..100).collect::<Vec<_>>());
    consumer.commit(&newest(&taken)).await.unwrap();
    drop(consumer);

    subject.restart().await;
    subject.queue().publish(vec![message(1, 100, 50)]).await.unwrap();
    assert_eq!(serials(&take_all(subject.consumer().await.as_mut(), 1).await), [100]);
}

pub(crate) async fn a_commit_never_moves_back(subject: &mut dyn Subject) {
    subject.queue().publish((0..30).map(|serial| message(1, serial, 50)).collect()).await.unwrap();
    let mut consumer = subject.consumer().await;
    let taken = take(consumer.as_mut(), 30).await;
    for upto in [20, 10, 1] {
        consumer.commit(&newest(&taken[..upto])).await.unwrap();
    }
    consumer.commit(&[]).await.unwrap();
    drop(consumer);
    subject.restart().await;
    assert_eq!(serials(&take_all(subject.consumer().await.as_mut(), 10).await), (20..30).collect::<Vec<_>>());
}

pub(crate) async fn a_commit_needs_a_delivery(subject: &mut dyn Subject) {
    subject.queue().publish((0..10).map(|serial| message(1, serial, 50)).collect()).await.unwrap();
    let mut consumer = subject.consumer().await;
    let mut position = take(consumer.as_mut(), 5).await[4].position;
    position.offset += 1;
    consumer.commit(&[position]).await.unwrap_err();
    position.partition += 1000;
    consumer.commit(&[position]).await.unwrap_err();
    assert_eq!(consumer.lag().await.unwrap(), 10);
}

pub(crate) async fn poison_is_delivered_as_such(subject: &mut dyn Subject) {
    subject.queue().publish(vec![message(1, 0, 50)]).await.unwrap();
    subject.inject(b"no message").await;
    subject.queue().publish(vec![message(1, 1, 50)]).await.unwrap();
    let mut consumer = subject.consumer().await;
    let taken = take(consumer.as_mut(), 3).await;
    let poison: Vec<_> = taken.iter().filter_map(|delivery| delivery.message.as_ref().err()).collect();
    assert_eq!(poison.len(), 1);
    assert_eq!(poison[0].bytes, b"no message");
    assert!(!poison[0].reason.is_empty());
    consumer.commit(&newest(&taken)).await.unwrap();
    assert_eq!(consumer.lag().await.unwrap(), 0);
}

pub(crate) async fn dead_letters_are_kept(subject: &mut dyn Subject) {
    subject.inject(b"no message").await;
    let mut consumer = subject.consumer().await;
    let delivery = take(consumer.as_mut(), 1).await.remove(0);
    let poison = delivery.message.unwrap_err();
    consumer.dead_letter(delivery.position, &poison.bytes, "not readable: 不可读").await.unwrap();
    consumer.commit(&[delivery.position]).await.unwrap();
    drop(consumer);
    subject.restart().await;
    let expected = (delivery.position, b"no message".to_vec(), "not readable: 不可读".to_owned());
    assert_eq!(subject.dead_letters().await, [expected]);
    assert!(drain(subject.consumer().await.as_mut()).await.is_empty());
}

pub(crate) async fn a_poll_ends_early_when_full(subject: &mut dyn Subject) {
    let (queue, mut consumer) = (subject.queue(), subject.consumer().await);
    queue.publish((0..10).map(|serial| message(1, serial, 50)).collect()).await.unwrap();
    let started = Instant::now();
    assert_eq!(consumer.poll(10, Duration::from_secs(60)).await.unwrap().len(), 10);
    // Also when they come while it waits.
    let later = tokio::spawn(async move {
        for serial in 10..20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            queue.publish(vec![message(1, serial, 50)]).await.unwrap();
        }
    });
    assert_eq!(consumer.poll(10, Duration::from_secs(60)).await.unwrap().len(), 10);
    assert!(started.elapsed() < Duration::from_secs(30));
    later.await.unwrap();
}

pub(crate) async fn a_poll_lingers_for_more(subject: &mut dyn Subject) {
    let (queue, mut consumer) = (subject.queue(), subject.consumer().await);
    // Something before, so that a consumer that takes its time to begin has begun.
    queue.publish(vec![message(1, 9, 50)]).await.unwrap();
    take(consumer.as_mut(), 1).await;
    let (linger, started) = (Duration::from_millis(300), Instant::now());
    queue.publish(vec![message(1, 0, 50)]).await.unwrap();
    let later = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        queue.publish(vec![message(1, 1, 50)]).await.unwrap();
    });
    assert_eq!(serials(&consumer.poll(10, linger).await.unwrap()), [0, 1]);
    assert!(started.elapsed() >= linger);
    later.await.unwrap();
}

pub(crate) async fn a_poll_returns_what_there_is(subject: &mut dyn Subject) {
    let (queue, mut consumer) = (subject.queue(), subject.consumer().await);
    assert!(consumer.poll(10, Duration::from_millis(20)).await.unwrap().is_empty());
    queue.publish(vec![message(1, 0, 50), message(1, 1, 50), message(1, 2, 50)]).await.unwrap();
    assert_eq!(serials(&take(consumer.as_mut(), 2).await), [0, 1]);
    assert_eq!(serials(&take(consumer.as_mut(), 1).await), [2]);
}

/// A poll that is dropped at some await may not have moved on.
pub(crate) async fn dropped_polls_lose_nothing(subject: &mut dyn Subject) {
    let (queue, mut consumer) = (subject.queue(), subject.consumer().await);
    let publisher = tokio::spawn(async move {
        for serial in 0..200 {
            queue.publish(vec![message(1, serial, 50)]).await.unwrap();
        }
    });
    let (mut taken, until) = (Vec::new(), Instant::now() + crate::common::PATIENCE);
    for round in 0_u64.. {
        assert!(Instant::now() < until);
        let patience = Duration::from_micros(round * 37 % 400);
        let poll = consumer.poll(50, Duration::from_micros(100));
        if let Ok(deliveries) = tokio::time::timeout(patience, poll).await {
            taken.extend(serials(&deliveries.unwrap()));
        }
        if taken.len() >= 200 {
            break;
        }
    }
    assert_eq!(taken, (0..200).collect::<Vec<_>>());
    publisher.await.unwrap();
}

pub(crate) async fn lag_counts_the_uncommitted(subject: &mut dyn Subject) {
    let (queue, mut consumer) = (subject.queue(), subject.consumer().await);
    assert_eq!(consumer.lag().await.unwrap(), 0);
    queue.publish((0..10).map(|serial| message(1, serial, 50)).collect()).await.unwrap();
    assert_eq!(consumer.lag().await.unwrap(), 10);
    let taken = take(consumer.as_mut(), 4).await;
    consumer.commit(&newest(&taken)).await.unwrap();
    assert_eq!(consumer.lag().await.unwrap(), 6);
}

pub(crate) async fn nothing_published_is_nothing(subject: &mut dyn Subject) {
    subject.queue().publish(Vec::new()).await.unwrap();
    let mut consumer = subject.consumer().await;
    assert!(consumer.poll(0, Duration::ZERO).await.unwrap().is_empty());
    assert!(consumer.poll(10, Duration::ZERO).await.unwrap().is_empty());
}
