//! A Redis that dies, hangs, forgets, is full, or is none: no call fails, none waits for long, and the cache
//! works again by itself.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use chopmark_cache::{RedisCache, RedisQuotas};
use chopmark_domain::{
    ports::{Claim, IdempotencyCache as _},
    quota::{Quotas as _, Rate, RateAnswer},
};
use ledger_core::hash::Hash32;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{claim, id, request, settle};

/// A call takes a second at most; this is for a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server of one test's own. Killed when dropped.
struct Server {
    folder: TempDir,
    port: u16,
    options: Vec<&'static str>,
    child: Option<Child>,
}

impl Server {
    /// `None`: Redis is not installed, and this is not where that is a failure.
    async fn start(options: &[&'static str]) -> Option<Self> {
        if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            assert!(std::env::var_os("CI").is_none(), "redis-server is not installed");
            eprintln!("SKIPPED: redis-server is not installed; scripts/setup.sh test does that");
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self { folder: tempfile::tempdir().unwrap(), port, options: options.to_vec(), child: None };
        server.run().await;
        Some(server)
    }

    async fn run(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--port", &self.port.to_string(), "--dir"]);
        command.arg(self.folder.path()).args(&self.options).stdout(Stdio::null());
        self.child = Some(command.spawn().unwrap());
        // It listens.
        for _ in 0..1000 {
            if std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("Redis does not start");
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().unwrap()), signal).unwrap();
    }

    fn ask(&self, arguments: &[&str]) {
        let port = self.port.to_string();
        let status = Command::new("redis-cli").args(["-p", &port]).args(arguments).stdout(Stdio::null()).status();
        assert!(status.unwrap().success());
    }

    fn cache(&self) -> RedisCache {
        RedisCache::new(&format!("redis://127.0.0.1:{}", self.port), &Hash32::ZERO).unwrap()
    }
}

/// Whatever happens to Redis, a gateway allows what its tenants may, and nothing without bound.
async fn counts_alone(quotas: &RedisQuotas, tenant: &str) {
    let calls = async {
        let mut passed = 0;
        for _ in 0..30 {
            passed += u32::from(matches!(quotas.request(tenant, Rate::new(1, 5)).await, RateAnswer::Passed { .. }));
        }
        let mut granted = 0;
        for _ in 0..30 {
            granted += quotas.records(tenant, 1, 10, 100).await;
        }
        (passed, granted)
    };
    let (passed, granted) = tokio::time::timeout(PATIENCE, calls).await.expect("calls end");
    assert!(passed >= 5, "{passed} requests passed");
    assert_eq!(granted, 100);
}

#[tokio::test]
async fn quotas_of_a_redis_that_is_away_or_hangs_are_counted_alone() {
    let Some(mut server) = Server::start(&[]).await else { return };
    let quotas = RedisQuotas::new(&format!("redis://127.0.0.1:{}", server.port), &Hash32::ZERO).unwrap();
    counts_alone(&quotas, "ten_1").await;
    server.signal(Signal::STOP);
    counts_alone(&quotas, "ten_2").await;
    server.signal(Signal::CONT);
    server.kill();
    counts_alone(&quotas, "ten_3").await;
    server.run().await;
    // It is asked again by itself: what another gateway has used is known.
    let other = RedisQuotas::new(&format!("redis://127.0.0.1:{}", server.port), &Hash32::ZERO).unwrap();
    let tries = async {
        for day in 1.. {
            let theirs = other.records("ten_4", day, 60, 100).await;
            if (theirs, quotas.records("ten_4", day, 60, 100).await) == (60, 40) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, tries).await.expect("it works again");
    server.ask(&["FLUSHALL"]);
    assert_eq!(quotas.records("ten_5", 1, 10, 100).await, 10);
    // Values that are none of ours.
    server.ask(&["SET", &format!("chopmark:{{{}}}:records:1:ten_6", Hash32::ZERO), "junk"]);
    server.ask(&["LPUSH", &format!("chopmark:{{{}}}:rate:ten_6", Hash32::ZERO), "junk"]);
    counts_alone(&quotas, "ten_6").await;
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Nothing is remembered, nothing fails, nobody waits for ever.
async fn is_of_no_use(cache: &RedisCache) {
    let calls = async {
        for number in 1000..1010 {
            settle(cache, number, 1).await;
            assert_eq!(claim(cache, number, 2).await, Claim::Unsettled);
        }
    };
    tokio::time::timeout(PATIENCE, calls).await.expect("calls end");
}

/// Waits until the cache remembers.
async fn works(cache: &RedisCache, at: u64) {
    let tries = async {
        loop {
            settle(cache, at, 1).await;
            if claim(cache, at, 1).await == Claim::Durable {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, tries).await.expect("it works by itself");
    assert_eq!(claim(cache, at, 2).await, Claim::Conflict);
}

#[tokio::test]
async fn a_server_that_dies_and_comes_back() {
    let Some(mut server) = Server::start(&[]).await else { return };
    let cache = server.cache();
    works(&cache, 1).await;
    server.kill();
    is_of_no_use(&cache).await;
    server.run().await;
    works(&cache, 2).await;
    // What it knew is gone, as after any FLUSHALL.
    assert_eq!(claim(&cache, 1, 2).await, Claim::Unsettled);
}

#[tokio::test]
async fn a_server_that_hangs() {
    let Some(server) = Server::start(&[]).await else { return };
    let cache = server.cache();
    works(&cache, 1).await;
    server.signal(Signal::STOP);
    is_of_no_use(&cache).await;
    server.signal(Signal::CONT);
    works(&cache, 2).await;
}

#[tokio::test]
async fn a_server_that_is_emptied_and_restarted_all_the_time() {
    let Some(server) = Server::start(&[]).await else { return };
    let (one, other) = (server.cache(), server.cache());
    works(&one, 1).await;
    for round in 10..60 {
        // Of two gateways, one holds the id as long as it is remembered.
        let answers = tokio::join!(claim(&one, round, 1), claim(&other, round, 2));
        assert!(
            matches!(answers, (Claim::Unsettled, Claim::Conflict) | (Claim::Conflict, Claim::Unsettled)),
            "{answers:?}"
        );
        server.ask(&["FLUSHALL"]);
        server.ask(&["SCRIPT", "FLUSH"]);
        assert_eq!(claim(&other, round, 2).await, Claim::Unsettled);
    }
}

#[tokio::test]
async fn a_server_without_memory() {
    let Some(server) = Server::start(&["--maxmemory", "1", "--maxmemory-policy", "noeviction"]).await else { return };
    is_of_no_use(&server.cache()).await;
    server.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    works(&server.cache(), 1).await;
}

#[tokio::test]
async fn a_server_that_wants_another_password() {
    let Some(server) = Server::start(&["--requirepass", "right"]).await else { return };
    is_of_no_use(&server.cache()).await;
    let url = |password: &str| format!("redis://:{password}@127.0.0.1:{}", server.port);
    is_of_no_use(&RedisCache::new(&url("wrong"), &Hash32::ZERO).unwrap()).await;
    works(&RedisCache::new(&url("right"), &Hash32::ZERO).unwrap(), 1).await;
}

#[tokio::test]
async fn a_server_that_is_none() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let _asked = connection.read(&mut [0; 1024]);
            let _answered = connection.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    is_of_no_use(&RedisCache::new(&url, &Hash32::ZERO).unwrap()).await;
    // Nobody there at all.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    is_of_no_use(&RedisCache::new(&format!("redis://{free}"), &Hash32::ZERO).unwrap()).await;
}

#[tokio::test]
async fn what_others_left_under_a_key_is_not_believed() {
    let Some(server) = Server::start(&[]).await else { return };
    let cache = server.cache();
    works(&cache, 1).await;
    // Values that are none of ours; and a type that GET refuses, after which the call counts as failed.
    let script = "for _, key in ipairs(redis.call('KEYS', '*')) do redis.call('SET', key, 'junk') end";
    server.ask(&["EVAL", script, "0"]);
    assert_eq!(claim(&cache, 1, 2).await, Claim::Unsettled);
    assert_eq!(claim(&cache, 1, 1).await, Claim::Conflict, "the claim has taken its place");
    let script =
        "for _, key in ipairs(redis.call('KEYS', '*')) do redis.call('DEL', key) redis.call('LPUSH', key, 1) end";
    server.ask(&["EVAL", script, "0"]);
    assert_eq!(claim(&cache, 1, 2).await, Claim::Unsettled);
}

#[tokio::test]
async fn ids_are_forgotten_in_time_and_ledgers_are_apart() {
    let Some(server) = Server::start(&[]).await else { return };
    let url = format!("redis://127.0.0.1:{}", server.port);
    let brief = RedisCache::with_time_to_live(&url, &Hash32::ZERO, Duration::from_millis(300)).unwrap();
    settle(&brief, 1, 1).await;
    let forgotten = async {
        while claim(&brief, 1, 1).await != Claim::Unsettled {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, forgotten).await.expect("it is forgotten");
    let (one, other) = (server.cache(), RedisCache::new(&url, &Hash32([1; 32])).unwrap());
    works(&one, 2).await;
    assert_eq!(claim(&other, 2, 2).await, Claim::Unsettled, "another ledger");
}

#[tokio::test]
async fn a_full_batch_takes_one_call() {
    let Some(server) = Server::start(&[]).await else { return };
    let cache = server.cache();
    works(&cache, 5000).await;
    let keys: Vec<(Hash32, Hash32)> = (0..1000).map(|number| (id(number), request(number))).collect();
    cache.settle(&keys).await.unwrap();
    assert!(cache.claim(&keys).await.unwrap().iter().all(|claim| *claim == Claim::Durable));
}

#[tokio::test]
async fn what_is_no_url_is_refused_without_repeating_it() {
    for url in ["", "postgres://u:secret@h", "redis://:secret@", "not a url secret"] {
        let error = RedisCache::new(url, &Hash32::ZERO).map(|_| ()).expect_err(url).to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
