//! What every keeper of quotas promises, with two handles as two gateways have them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use chopmark_cache::MemoryQuotas;
use chopmark_domain::quota::{Quotas, Rate, RateAnswer};

const TASKS: usize = 8;
const CALLS: usize = 200;

async fn a_rate_holds_over_all_gateways(gateways: [impl Quotas + 'static; 2]) {
    let (gateways, passed, begun) = (Arc::new(gateways), Arc::new(AtomicU64::new(0)), Instant::now());
    let rate = Rate::new(10, 50);
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (gateways, passed) = (Arc::clone(&gateways), Arc::clone(&passed));
            tokio::spawn(async move {
                for _ in 0..CALLS {
                    match gateways[task % 2].request("ten_one", rate).await {
                        RateAnswer::Passed { remaining } => {
                            assert!(remaining < 50, "{remaining} remain");
                            passed.fetch_add(1, Ordering::Relaxed);
                        }
                        RateAnswer::Refused { wait } => {
                            assert!(!wait.is_zero() && wait <= Duration::from_secs(5), "to wait {wait:?}");
                        }
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a task");
    }
    let (passed, most) = (passed.load(Ordering::Relaxed), 50 + 10 * (begun.elapsed().as_secs() + 1));
    assert!((50..=most).contains(&passed), "{passed} passed, at most {most} may");
}

async fn who_waits_passes_again([first, second]: [impl Quotas; 2]) {
    let rate = Rate::new(20, 1);
    assert_eq!(first.request("ten_one", rate).await, RateAnswer::Passed { remaining: 0 });
    // Another tenant has its own.
    assert_eq!(second.request("ten_two", rate).await, RateAnswer::Passed { remaining: 0 });
    for _ in 0..100 {
        match second.request("ten_one", rate).await {
            RateAnswer::Passed { .. } => return,
            RateAnswer::Refused { wait } => tokio::time::sleep(wait).await,
        }
    }
    panic!("never passed again");
}

async fn a_smaller_rate_makes_nobody_wait_longer_than_a_burst([first, second]: [impl Quotas; 2]) {
    let (generous, strict) = (Rate::new(1, 1000), Rate::new(1, 3));
    for _ in 0..500 {
        first.request("ten_one", generous).await;
    }
    for gateway in [&first, &second] {
        if let RateAnswer::Refused { wait } = gateway.request("ten_one", strict).await {
            assert!(wait <= Duration::from_secs(3), "to wait {wait:?}");
        }
    }
}

async fn a_day_has_its_records([first, second]: [impl Quotas; 2]) {
    assert_eq!(first.records("ten_one", 7, 60, 100).await, 60);
    assert_eq!(second.records("ten_one", 7, 60, 100).await, 40, "what is left is granted");
    assert_eq!(first.records("ten_one", 7, 1, 100).await, 0);
    assert_eq!(first.records("ten_one", 7, 1, 50).await, 0, "a quota made smaller than what is used");
    assert_eq!(first.records("ten_one", 7, 5, 103).await, 3, "a quota made larger");
    assert_eq!(second.records("ten_two", 7, 60, 100).await, 60, "tenants are apart");
    assert_eq!(second.records("ten_one", 8, 60, 100).await, 60, "days are apart");
    assert_eq!(second.records("ten_one", 8, 1, 0).await, 0);
    let large = u64::from(u32::MAX) * 1000;
    assert_eq!(second.records("ten_three", 8, 1000, large).await, 1000);
}

async fn records_at_once_are_counted_once(gateways: [impl Quotas + 'static; 2]) {
    let (gateways, granted) = (Arc::new(gateways), Arc::new(AtomicU64::new(0)));
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (gateways, granted) = (Arc::clone(&gateways), Arc::clone(&granted));
            tokio::spawn(async move {
                for _ in 0..CALLS {
                    let records = gateways[task % 2].records("ten_one", 1, 7, 5000).await;
                    granted.fetch_add(records, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a task");
    }
    assert_eq!(granted.load(Ordering::Relaxed), 5000);
}

macro_rules! contract {
    ($name:ident: $gateways:expr; $($test:ident)*) => {
        mod $name {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $test() {
                    let Some(gateways) = $gateways else { return };
                    super::$test(gateways).await;
                }
            )*
        }
    };
    ($name:ident: $gateways:expr) => {
        contract!($name: $gateways;
            a_rate_holds_over_all_gateways
            who_waits_passes_again
            a_smaller_rate_makes_nobody_wait_longer_than_a_burst
            a_day_has_its_records
            records_at_once_are_counted_once
        );
    };
}

/// One process; both handles are of it.
fn in_one_process() -> [MemoryQuotas; 2] {
    let quotas = MemoryQuotas::default();
    [quotas.clone(), quotas]
}

contract!(in_memory: Some(super::in_one_process()));
contract!(in_redis: crate::redis(|url, chain| {
    let quotas = || chopmark_cache::RedisQuotas::new(url, &chain).expect("a URL");
    [quotas(), quotas()]
}));
