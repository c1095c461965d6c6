//! The faults: for each name, how to bring it about.

use std::{fs, os::unix::fs::symlink, process::Command, time::Duration};

use chopmark_domain::{
    auth::ApiKey,
    ports::{PortResult, Random},
};
use chopmark_tests::binary;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use serde_json::{Value, json};

use crate::{
    bench::{Bench, Draft, text},
    fakes::{self, FakeRedis, PASSWORD, Redis},
};

/// One fault.
pub(crate) struct Case {
    /// Findings that have to be there; others may follow from the same fault.
    pub(crate) names: &'static [&'static str],
    /// What it starts from.
    pub(crate) configuration: &'static str,
    pub(crate) seed: Seed,
}

type Seed = fn(&Bench, &mut Draft);

const GATEWAY: &str = "gateway-0";
const COMMITTER: &str = "committer-0";
const COURIER: &str = "courier-0";
const ADMIN: &str = "admin";

pub(crate) fn all() -> Vec<Case> {
    let sections: [&[(&'static [&'static str], &'static str, Seed)]; 6] =
        [CONFIGURATION, MACHINE, DATABASE, KAFKA, CACHE, NODES];
    let case = |&(names, configuration, seed): &(_, _, _)| Case { names, configuration, seed };
    sections.into_iter().flatten().map(case).collect()
}

/// The configuration and what it names.
const CONFIGURATION: &[(&[&str], &str, Seed)] = &[
    (&["config-missing"], GATEWAY, |bench, draft| draft.path = Some(bench.path("nowhere.toml").into())),
    (&["config-unreadable"], GATEWAY, |_, draft| draft.raw = Some(b"# \xff\n".to_vec())),
    (&["config-syntax"], GATEWAY, |_, draft| draft.raw = Some(b"[ledger\n".to_vec())),
    (&["config-unknown-key"], GATEWAY, |_, draft| draft.set("gateway.lisen", "127.0.0.1:0")),
    (&["config-invalid"], GATEWAY, |_, draft| draft.set("ledger.nodes", 7)),
    (&["config-invalid"], COMMITTER, |_, draft| {
        draft.table["ledger"].as_table_mut().unwrap().remove("submitter_key_file").unwrap();
    }),
    (&["config-table-missing"], GATEWAY, |_, draft| {
        draft.table.remove("kafka").unwrap();
    }),
    (&["config-password-exposed"], GATEWAY, |bench, draft| {
        draft.set("database.url", format!("postgres://chopmark_app:{PASSWORD}@{}/chopmark", bench.postgres()));
        draft.mode = 0o644;
    }),
    (&["genesis-unusable"], GATEWAY, |_, draft| draft.set("ledger.genesis", "gateway-0.toml")),
    (&["api-key-network"], GATEWAY, |bench, draft| {
        let key = ApiKey::generate("live", &Zeros).unwrap();
        draft.arguments = vec!["--api-key-file".to_owned(), bench.file("live.key", key.reveal(), 0o600)];
    }),
    (&["secret-missing"], GATEWAY, |_, draft| draft.set("secrets.ids_key_file", "nowhere.key")),
    (&["secret-exposed"], GATEWAY, |bench, draft| {
        draft.set("secrets.ids_key_file", bench.file("exposed.key", "0".repeat(64), 0o640));
    }),
    (&["secret-malformed"], COURIER, |bench, draft| {
        draft.set("secrets.ids_key_file", bench.file("malformed.key", PASSWORD, 0o600));
    }),
    (&["submitter-key-unknown"], COMMITTER, |_, draft| {
        draft.set("ledger.submitter_key_file", "net/operator.localhost/keys/governance.pem");
    }),
    (&["tls-file-unusable"], COURIER, |_, draft| draft.set("webhooks.ca_files", vec!["courier-0.toml"])),
    (&["tls-expired"], COURIER, |bench, draft| draft.set("webhooks.ca_files", vec![certificate(bench, -1)])),
    (&["tls-expires-soon"], COURIER, |bench, draft| draft.set("webhooks.ca_files", vec![certificate(bench, 10)])),
];

/// The machine that the role runs on.
const MACHINE: &[(&[&str], &str, Seed)] = &[
    (&["listener-taken"], GATEWAY, |_, draft| draft.set("gateway.internal", format!("127.0.0.1:{}", fakes::junk()))),
    (&["listener-unusable"], COMMITTER, |_, draft| draft.set("committer.internal", "192.0.2.1:8080")),
    (&["listener-shared"], GATEWAY, |_, draft| {
        let listen = draft.table["gateway"]["listen"].clone();
        draft.set("gateway.internal", listen);
    }),
    (&["folder-unusable"], GATEWAY, |_, draft| draft.set("gateway.originals", "gateway-0.toml/originals")),
    (&["folder-read-only"], GATEWAY, |bench, draft| draft.mount = Some(("ro,size=1m", bench.path("originals")))),
    (&["disk-full"], GATEWAY, |bench, draft| draft.mount = Some(("size=8m", bench.path("originals")))),
    (&["disk-low"], GATEWAY, |bench, draft| draft.mount = Some(("size=1g", bench.path("originals")))),
    (&["open-files-few"], GATEWAY, |_, draft| draft.files = 512),
    (&["open-files-low"], GATEWAY, |_, draft| draft.files = 2048),
    (&["clock-skew"], GATEWAY, |bench, draft| {
        draft.set("cache.url", FakeRedis { seconds: now(bench) - 3600, ..well(bench) }.start());
    }),
    (&["clock-skew"], COMMITTER, |bench, draft| {
        a_node_says(bench, draft, |status| status["time_ms"] = json!(status["time_ms"].as_u64().unwrap() + 3_600_000));
    }),
];

/// PostgreSQL. The last one starts the server anew.
const DATABASE: &[(&[&str], &str, Seed)] = &[
    (&["database-url"], GATEWAY, |_, draft| draft.set("database.url", format!("mysql://u:{PASSWORD}@127.0.0.1:1/d"))),
    (&["database-unreachable"], GATEWAY, |_, draft| database_at(draft, fakes::closed())),
    (&["database-hangs"], COURIER, |_, draft| {
        let (silent, port) = fakes::silent();
        database_at(draft, port);
        draft.keep(silent);
    }),
    (&["database-other-protocol"], GATEWAY, |_, draft| database_at(draft, fakes::junk())),
    (&["database-tls"], GATEWAY, |bench, draft| {
        draft.set("database.url", format!("postgres://chopmark_app@{}/chopmark?sslmode=require", bench.postgres()))
    }),
    (&["database-authentication"], GATEWAY, |bench, draft| {
        draft.set("database.url", format!("postgres://nobody@{}/chopmark", bench.postgres()))
    }),
    (&["database-missing"], GATEWAY, |bench, draft| {
        draft.set("database.url", format!("postgres://chopmark_app@{}/nowhere", bench.postgres()));
    }),
    (&["database-full"], ADMIN, |_, draft| {
        draft.sql =
            (&["ALTER ROLE chopmark_admin CONNECTION LIMIT 0"], &["ALTER ROLE chopmark_admin CONNECTION LIMIT -1"]);
    }),
    (&["database-connections-few"], ADMIN, |_, draft| {
        draft.sql =
            (&["ALTER ROLE chopmark_admin CONNECTION LIMIT 5"], &["ALTER ROLE chopmark_admin CONNECTION LIMIT -1"]);
    }),
    (&["database-schema-behind"], GATEWAY, |_, draft| {
        draft.sql = (
            &["CREATE TABLE moved AS SELECT * FROM __diesel_schema_migrations ORDER BY version DESC LIMIT 1;
               DELETE FROM __diesel_schema_migrations WHERE version IN (SELECT version FROM moved)"],
            &["INSERT INTO __diesel_schema_migrations SELECT * FROM moved; DROP TABLE moved"],
        );
    }),
    (&["database-schema-newer"], GATEWAY, |_, draft| {
        draft.sql = (
            &["INSERT INTO __diesel_schema_migrations (version) VALUES ('9999')"],
            &["DELETE FROM __diesel_schema_migrations WHERE version = '9999'"],
        );
    }),
    (&["database-role-privileged"], GATEWAY, |bench, draft| {
        draft.set("database.url", format!("postgres://postgres@{}/chopmark", bench.postgres()))
    }),
    (&["database-role-privileged"], ADMIN, |bench, draft| {
        draft.set("database.url", format!("postgres://chopmark_owner@{}/chopmark", bench.postgres()))
    }),
    (&["database-role-privileged"], COMMITTER, |_, draft| {
        draft.sql = (&["ALTER ROLE chopmark_committer BYPASSRLS"], &["ALTER ROLE chopmark_committer NOBYPASSRLS"]);
    }),
    (&["database-role-other"], GATEWAY, |bench, draft| {
        draft.set("database.url", format!("postgres://chopmark_committer@{}/chopmark", bench.postgres()))
    }),
    (&["database-rls-unforced"], GATEWAY, |_, draft| {
        draft.sql =
            (&["ALTER TABLE tenants NO FORCE ROW LEVEL SECURITY"], &["ALTER TABLE tenants FORCE ROW LEVEL SECURITY"]);
    }),
    (&["database-encoding"], GATEWAY, |bench, draft| {
        draft.sql = (&["CREATE DATABASE ascii TEMPLATE template0 ENCODING 'SQL_ASCII'"], &["DROP DATABASE ascii"]);
        draft.set("database.url", format!("postgres://chopmark_app@{}/ascii", bench.postgres()));
    }),
    (&["database-synchronous-commit"], GATEWAY, |_, draft| {
        draft.sql = (
            &["ALTER DATABASE chopmark SET synchronous_commit = off"],
            &["ALTER DATABASE chopmark RESET synchronous_commit"],
        );
    }),
    (&["database-fsync-off"], GATEWAY, |_, draft| {
        draft.sql = (
            &["ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()"],
            &["ALTER SYSTEM RESET fsync", "SELECT pg_reload_conf()"],
        );
    }),
    (&["database-unknown"], GATEWAY, |_, draft| {
        draft.sql = (
            &["REVOKE SELECT ON pg_catalog.pg_database FROM PUBLIC"],
            &["GRANT SELECT ON pg_catalog.pg_database TO PUBLIC"],
        );
    }),
    (&["database-messages"], GATEWAY, |bench, draft| {
        // A language by its name alone: no other than C need be installed.
        let locales = bench.stack.folder().join("locales");
        fs::create_dir(&locales).unwrap();
        symlink("/usr/lib/locale/C.utf8", locales.join("de_DE.utf8")).unwrap();
        draft.locales = Some(locales);
        draft.sql = (
            &["ALTER ROLE chopmark_app SET lc_messages = 'de_DE.utf8'"],
            &["ALTER ROLE chopmark_app SET lc_messages = 'C'"],
        );
    }),
];

/// Kafka.
const KAFKA: &[(&[&str], &str, Seed)] = &[
    (&["kafka-settings"], GATEWAY, |_, draft| draft.set("kafka.partitions", 0)),
    (&["kafka-durability-low", "kafka-topic-missing"], GATEWAY, |bench, draft| {
        live(bench, draft);
        draft.set("kafka.create_topics", false);
    }),
    (&["kafka-unreachable"], GATEWAY, |_, draft| brokers(draft, &format!("127.0.0.1:{}", fakes::closed()))),
    (&["kafka-hangs"], COMMITTER, |_, draft| {
        let (silent, port) = fakes::silent();
        brokers(draft, &format!("127.0.0.1:{port}"));
        draft.keep(silent);
    }),
    (&["kafka-other-protocol"], GATEWAY, |_, draft| brokers(draft, &format!("127.0.0.1:{}", fakes::junk()))),
    (&["kafka-tls"], GATEWAY, |bench, draft| draft.set("kafka.tls.ca", authority(bench))),
    (&["kafka-authentication"], GATEWAY, |bench, draft| {
        brokers(draft, &bench.stack.server("KAFKA_SECURE").unwrap());
        draft.set("kafka.tls.ca", authority(bench));
        draft.set("kafka.sasl.mechanism", "SCRAM-SHA-512");
        draft.set("kafka.sasl.user", "chopmark");
        draft.set("kafka.sasl.password_file", bench.file("kafka.password", PASSWORD, 0o600));
    }),
    (&["kafka-partitions"], COMMITTER, |_, draft| draft.set("kafka.partitions", 5)),
    (&["kafka-replicas"], GATEWAY, |_, draft| draft.set("kafka.replicas", 3)),
    (&["kafka-min-insync-replicas"], GATEWAY, |_, draft| {
        draft.set("kafka.replicas", 2);
        draft.set("kafka.min_insync_replicas", 2);
    }),
    (
        &["kafka-cleanup-policy", "kafka-retention", "kafka-unclean-election", "kafka-message-bytes"],
        GATEWAY,
        |bench, draft| {
            live(bench, draft);
            draft.topic = Some(&[
                ("cleanup.policy", "compact"),
                ("retention.ms", "3600000"),
                ("unclean.leader.election.enable", "true"),
                ("max.message.bytes", "1000"),
            ]);
        },
    ),
];

/// Redis.
const CACHE: &[(&[&str], &str, Seed)] = &[
    (&["cache-url"], GATEWAY, |_, draft| draft.set("cache.url", format!("http://:{PASSWORD}@127.0.0.1:1"))),
    (&["cache-unreachable"], GATEWAY, |_, draft| {
        draft.set("cache.url", format!("redis://127.0.0.1:{}", fakes::closed()))
    }),
    (&["cache-hangs"], GATEWAY, |_, draft| {
        let (silent, port) = fakes::silent();
        draft.set("cache.url", format!("redis://127.0.0.1:{port}"));
        draft.keep(silent);
    }),
    (&["cache-other-protocol"], GATEWAY, |_, draft| {
        draft.set("cache.url", format!("redis://127.0.0.1:{}", fakes::junk()))
    }),
    (&["cache-tls"], GATEWAY, |_, draft| {
        // A Redis without TLS would say nothing at all to this.
        draft.set("cache.url", format!("rediss://127.0.0.1:{}", fakes::junk()));
    }),
    (&["cache-authentication"], GATEWAY, |bench, draft| {
        let redis = Redis::start(bench.stack.folder(), &["--requirepass", "another"]);
        draft.set("cache.url", format!("redis://:{PASSWORD}@127.0.0.1:{}", redis.port));
        draft.keep(redis);
    }),
    (&["cache-authentication"], GATEWAY, |bench, draft| {
        let redis = Redis::start(bench.stack.folder(), &["--requirepass", "another"]);
        draft.set("cache.url", format!("redis://127.0.0.1:{}", redis.port));
        draft.keep(redis);
    }),
    (&["cache-evicts"], GATEWAY, |bench, draft| {
        let options = ["--maxmemory", "64mb", "--maxmemory-policy", "volatile-lru"];
        let redis = Redis::start(bench.stack.folder(), &options);
        draft.set("cache.url", format!("redis://127.0.0.1:{}", redis.port));
        draft.keep(redis);
    }),
    (&["cache-version-old"], GATEWAY, |bench, draft| {
        draft.set("cache.url", FakeRedis { version: "4.0.14", ..well(bench) }.start())
    }),
    (&["cache-read-only"], GATEWAY, |bench, draft| {
        draft.set("cache.url", FakeRedis { role: "slave", ..well(bench) }.start())
    }),
    (&["cache-unknown"], GATEWAY, |bench, draft| {
        draft.set("cache.url", FakeRedis { shows_settings: false, ..well(bench) }.start())
    }),
];

/// The members' nodes.
const NODES: &[(&[&str], &str, Seed)] = &[
    (&["node-unreachable"], COMMITTER, |_, draft| node_at(draft, 0, &format!("http://127.0.0.1:{}", fakes::closed()))),
    (&["node-hangs"], GATEWAY, |_, draft| {
        let (silent, port) = fakes::silent();
        node_at(draft, 0, &format!("http://127.0.0.1:{port}"));
        draft.keep(silent);
    }),
    (&["node-other-protocol"], GATEWAY, |bench, draft| node_at(draft, 0, &bench.stack.nodes[0].base)),
    (&["node-other-protocol"], ADMIN, |_, draft| node_at(draft, 0, &format!("http://127.0.0.1:{}", fakes::junk()))),
    (&["node-other-chain"], GATEWAY, |bench, draft| live(bench, draft)),
    (&["node-other-chain"], COMMITTER, |bench, draft| {
        a_node_says(bench, draft, |status| status["chain"] = json!("00".repeat(32)))
    }),
    (&["node-repeated"], GATEWAY, |bench, draft| node_at(draft, 1, &fakes::node(&bench.status))),
    (&["node-version"], GATEWAY, |bench, draft| a_node_says(bench, draft, |status| status["version"] = json!("0.0.1"))),
    (&["node-stopped"], GATEWAY, |bench, draft| {
        a_node_says(bench, draft, |status| status["failure"] = json!("the disk is gone"))
    }),
    (&["node-not-voting"], GATEWAY, |bench, draft| {
        a_node_says(bench, draft, |status| status["no_vote"] = json!("it has other keys"))
    }),
    (&["node-behind"], GATEWAY, |bench, draft| {
        a_node_says(bench, draft, |status| status["height"] = json!(status["height"].as_u64().unwrap() + 1000))
    }),
    (&["node-damaged"], GATEWAY, |bench, draft| a_node_says(bench, draft, |status| status["damaged"] = json!(1))),
    (&["node-equivocations"], GATEWAY, |bench, draft| {
        a_node_says(bench, draft, |status| status["equivocations"] = json!(1))
    }),
    (&["nodes-below-quorum"], COMMITTER, |_, draft| {
        node_at(draft, 0, &format!("http://127.0.0.1:{}", fakes::closed()));
        node_at(draft, 1, &format!("http://127.0.0.1:{}", fakes::closed()));
    }),
];

/// The only randomness that a key needs here.
struct Zeros;

impl Random for Zeros {
    fn fill(&self, out: &mut [u8]) -> PortResult<()> {
        out.fill(0);
        Ok(())
    }
}

/// Unix seconds, by the clock of a node at the beginning: a few minutes ago at most.
fn now(bench: &Bench) -> u64 {
    bench.status["time_ms"].as_u64().unwrap() / 1000
}

/// A certificate that ends in so many days; its path.
fn certificate(bench: &Bench, days: i64) -> String {
    let ends = now(bench).checked_add_signed(days * 86_400).unwrap();
    let mut parameters = CertificateParams::new(vec!["authority.example".to_owned()]).unwrap();
    parameters.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(ends);
    let certificate = parameters.self_signed(&KeyPair::generate().unwrap()).unwrap();
    bench.file(&format!("ends-{days}.pem"), certificate.pem(), 0o600)
}

fn database_at(draft: &mut Draft, port: u16) {
    draft.set("database.url", format!("postgres://chopmark_app:{PASSWORD}@127.0.0.1:{port}/chopmark"));
}

fn brokers(draft: &mut Draft, broker: &str) {
    draft.set("kafka.brokers", vec![broker]);
}

/// The authority of the broker's certificate.
fn authority(bench: &Bench) -> String {
    text(&bench.stack.servers().join("kafka/tls/ca.pem"))
}

/// The genesis of a live network, which the deployment is not of.
fn live(bench: &Bench, draft: &mut Draft) {
    let folder = bench.stack.folder().join("live");
    if !folder.exists() {
        let mut command = Command::new(binary());
        command.args([
            "network",
            "init",
            "--live",
            "--domain",
            "live.example",
            "--member",
            "one.example=127.0.0.1:19000",
        ]);
        let output = command.arg(&folder).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    draft.set("ledger.genesis", text(&folder.join("one.example/node/genesis.json")));
}

/// A Redis in which nothing is wrong but that its clock stands still; the cases about it are short.
fn well(bench: &Bench) -> FakeRedis {
    FakeRedis { version: "7.0.15", role: "master", seconds: now(bench), shows_settings: true }
}

/// Another address in place of a node's.
fn node_at(draft: &mut Draft, at: usize, url: &str) {
    draft.table["ledger"]["nodes"][at] = url.into();
}

/// The first node is one that says something else of itself.
fn a_node_says(bench: &Bench, draft: &mut Draft, change: impl Fn(&mut Value)) {
    let mut status = bench.status.clone();
    change(&mut status);
    node_at(draft, 0, &fakes::node(&status));
}
