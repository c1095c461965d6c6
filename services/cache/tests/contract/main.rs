//! What every idempotency cache promises. Caches may forget; the tests keep so few ids that none
//! has a reason to.

mod quotas;
mod redis_faults;

use std::{env, fs, path::Path, sync::Arc, time::Duration};

use chopmark_cache::MemoryCache;
use chopmark_domain::ports::{Claim, IdempotencyCache};
use ledger_core::hash::{Hash32, tagged};
use tokio::sync::Barrier;

fn id(number: u64) -> Hash32 {
    tagged("id", &[&number.to_be_bytes()])
}

fn request(number: u64) -> Hash32 {
    tagged("request", &[&number.to_be_bytes()])
}

async fn claim(cache: &impl IdempotencyCache, at: u64, by: u64) -> Claim {
    cache.claim(&[(id(at), request(by))]).await.expect("claim")[0]
}

async fn settle(cache: &impl IdempotencyCache, at: u64, by: u64) {
    cache.settle(&[(id(at), request(by))]).await.expect("settle");
}

async fn the_first_request_holds_the_id(cache: impl IdempotencyCache) {
    assert_eq!(claim(&cache, 1, 1).await, Claim::Unsettled);
    assert_eq!(claim(&cache, 1, 1).await, Claim::Unsettled);
    assert_eq!(claim(&cache, 1, 2).await, Claim::Conflict);
    assert_eq!(claim(&cache, 1, 1).await, Claim::Unsettled, "a conflict changes nothing");
    assert_eq!(claim(&cache, 2, 2).await, Claim::Unsettled, "ids are apart");
}

async fn a_settled_request_is_durable(cache: impl IdempotencyCache) {
    claim(&cache, 1, 1).await;
    settle(&cache, 1, 1).await;
    assert_eq!(claim(&cache, 1, 1).await, Claim::Durable);
    assert_eq!(claim(&cache, 1, 2).await, Claim::Conflict);
    settle(&cache, 1, 1).await;
    assert_eq!(claim(&cache, 1, 1).await, Claim::Durable);
}

async fn settling_needs_no_claim(cache: impl IdempotencyCache) {
    settle(&cache, 1, 1).await;
    assert_eq!(claim(&cache, 1, 1).await, Claim::Durable);
    assert_eq!(claim(&cache, 1, 2).await, Claim::Conflict);
}

async fn what_is_durable_outdoes_a_claim(cache: impl IdempotencyCache) {
    claim(&cache, 1, 1).await;
    settle(&cache, 1, 2).await;
    assert_eq!(claim(&cache, 1, 2).await, Claim::Durable);
    assert_eq!(claim(&cache, 1, 1).await, Claim::Conflict);
    settle(&cache, 1, 1).await;
    assert_eq!(claim(&cache, 1, 2).await, Claim::Durable, "of two durable requests the first stays");
}

async fn answers_come_in_the_order_asked(cache: impl IdempotencyCache) {
    settle(&cache, 1, 1).await;
    let keys =
        [(id(2), request(1)), (id(1), request(1)), (id(1), request(2)), (id(2), request(1)), (id(2), request(2))];
    let expected = [Claim::Unsettled, Claim::Durable, Claim::Conflict, Claim::Unsettled, Claim::Conflict];
    assert_eq!(cache.claim(&keys).await.expect("claim"), expected);
    assert_eq!(cache.claim(&[]).await.expect("claim"), []);
    cache.settle(&[]).await.expect("settle");
}

async fn of_two_requests_at_once_one_wins(cache: impl IdempotencyCache + 'static) {
    const TASKS: usize = 100;
    let cache = Arc::new(cache);
    for round in 0..50 {
        let barrier = Arc::new(Barrier::new(TASKS));
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let (cache, barrier) = (Arc::clone(&cache), Arc::clone(&barrier));
                tokio::spawn(async move {
                    barrier.wait().await;
                    let by = u64::from(task % 2 == 0);
                    (by, claim(cache.as_ref(), round, by).await)
                })
            })
            .collect();
        let mut answers = Vec::new();
        for task in tasks {
            answers.push(task.await.expect("a claim"));
        }
        let winner = answers.iter().find(|(_, claim)| *claim == Claim::Unsettled).expect("a winner").0;
        for (by, claim) in answers {
            let expected = if by == winner { Claim::Unsettled } else { Claim::Conflict };
            assert_eq!(claim, expected, "round {round}");
        }
    }
}

macro_rules! contract {
    ($name:ident: $cache:expr; $($test:ident)*) => {
        mod $name {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $test() {
                    let Some(cache) = $cache else { return };
                    super::$test(cache).await;
                }
            )*
        }
    };
    ($name:ident: $cache:expr) => {
        contract!($name: $cache;
            the_first_request_holds_the_id
            a_settled_request_is_durable
            settling_needs_no_claim
            what_is_durable_outdoes_a_claim
            answers_come_in_the_order_asked
            of_two_requests_at_once_one_wins
        );
    };
}

contract!(in_memory: Some(chopmark_cache::MemoryCache::default()));
contract!(in_redis: crate::redis(|url, chain| chopmark_cache::RedisCache::new(url, &chain).expect("a URL")));

/// Something in the Redis that the tests share, apart from those of all others. `None`: there is no
/// Redis, and this is not where that is a failure.
fn redis<T>(make: impl FnOnce(&str, Hash32) -> T) -> Option<T> {
    let Some(folder) = env::var_os("CHOPMARK_TEST_SERVERS") else {
        assert!(env::var_os("CI").is_none(), "CHOPMARK_TEST_SERVERS does not name the folder of the test servers");
        eprintln!("SKIPPED: no Redis: CHOPMARK_TEST_SERVERS is not set; scripts/test.sh sets it");
        return None;
    };
    let text = fs::read_to_string(Path::new(&folder).join("servers.env")).expect("servers.env");
    let url = text.lines().find_map(|line| line.strip_prefix("REDIS=")).expect("servers.env names Redis");
    Some(make(url, Hash32(rand::random())))
}

#[tokio::test]
async fn memory_is_bounded_and_keeps_the_newest() {
    const ENTRIES: u64 = 100;
    let cache = MemoryCache::new(100, Duration::from_secs(60));
    for number in 0..100 * ENTRIES {
        claim(&cache, number, 1).await;
    }
    let newest = 100 * ENTRIES - 1;
    assert_eq!(claim(&cache, newest, 2).await, Claim::Conflict, "the newest is remembered");
    let mut remembered = 0;
    for number in 0..100 * ENTRIES {
        remembered += u64::from(claim(&cache, number, 2).await == Claim::Conflict);
    }
    assert!(remembered <= 2 * ENTRIES, "{remembered} of {ENTRIES} are remembered");
}

#[tokio::test]
async fn memory_forgets_in_time() {
    let cache = MemoryCache::new(100, Duration::from_millis(50));
    claim(&cache, 1, 1).await;
    settle(&cache, 1, 1).await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(claim(&cache, 1, 2).await, Claim::Unsettled);
}
