//! Figures, not checks: `cargo test -p chopmark-queue throughput -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use chopmark_domain::ports::{Queue, QueueConsumer};

use crate::common::{message, newest, open};

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn rate(messages: u64, started: Instant) -> f64 {
    messages as f64 / started.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn throughput() {
    let scratch = tempfile::tempdir().unwrap();
    let queue = open(scratch.path());
    let batches: Vec<Vec<_>> =
        (0..300).map(|round| (0..1000).map(|at| message(at, round * 1000 + at, 290)).collect()).collect();
    eprintln!("{} bytes a message", batches[0][0].encode().len());
    let started = Instant::now();
    for batch in batches {
        queue.publish(batch).await.unwrap();
    }
    eprintln!("1 publisher, batches of 1000: {:.0} messages/s", rate(300_000, started));

    let mut consumer = queue.consumer().unwrap();
    let (started, mut count) = (Instant::now(), 0);
    while count < 300_000 {
        let deliveries = consumer.poll(4000, Duration::from_millis(50)).await.unwrap();
        count += deliveries.len();
        consumer.commit(&newest(&deliveries)).await.unwrap();
    }
    eprintln!("1 consumer, polls of 4000 with commits: {:.0} messages/s", rate(300_000, started));

    let (before, started) = (queue.stats(), Instant::now());
    let publishers: Vec<_> = (0..64)
        .map(|key| {
            let queue = queue.clone();
            tokio::spawn(async move {
                let mut slowest = Duration::ZERO;
                for serial in 0..500 {
                    let asked = Instant::now();
                    queue.publish(vec![message(key, serial, 290)]).await.unwrap();
                    slowest = slowest.max(asked.elapsed());
                }
                slowest
            })
        })
        .collect();
    let mut slowest = Duration::ZERO;
    for publisher in publishers {
        slowest = slowest.max(publisher.await.unwrap());
    }
    let appends = queue.stats().appends - before.appends;
    eprintln!(
        "64 publishers, one message each: {:.0} messages/s, {appends} syncs for 32000, slowest {slowest:?}",
        rate(32_000, started)
    );
}
