//! The runbook of backup and restore (`docs/runbooks/backup.md`), drilled on a deployment: the database is lost
//! and comes back from an older backup; ledger and queue give what it does not have.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    process::Output,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use chopmark_tests::{
    Api, evidence, repository,
    stack::{COMMITTERS, COURIER, GATEWAYS, Stack},
};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer as _},
};
use serde_json::{Value, json};
use tokio::process::Command;

const TOPIC: &str = "chopmark.sandbox.operations.v1";
const GROUP: &str = "chopmark.sandbox.committers";
const KAFKA_TIMEOUT: Duration = Duration::from_secs(20);
/// A stopped committer is a member of its group until its session ends.
const GROUP_TIMEOUT: Duration = Duration::from_secs(60);
/// Clocks of producers and of this test are one; a second more costs nothing, since deliveries repeat harmlessly.
const SLACK_MS: i64 = 1000;
const RECORDS: u32 = 12;

/// A record with something that only the database has.
async fn record(api: &Api, number: u32) -> Value {
    let mut body = evidence(format!("record {number}").as_bytes());
    body["title"] = json!(format!("title {number}"));
    body["external_id"] = json!(format!("order-{number}"));
    let answer = api.post("/v1/evidence", &format!("record-{number}"), 30, &body).await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.body
}

/// The same record as it was told, whole.
async fn is_whole(api: &Api, number: u32, told: &Value) {
    let id = told["id"].as_str().unwrap();
    let give_up = Instant::now() + GROUP_TIMEOUT;
    let found = loop {
        let found = api.get(&format!("/v1/evidence/{id}")).await.unwrap();
        if found.status == 200 && found.body["state"] == "committed" && found.body["title"].is_string() {
            break found.body;
        }
        assert!(Instant::now() < give_up, "record {number}: {} {}", found.status, found.body);
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(found["title"], format!("title {number}"));
    let listed = api.get(&format!("/v1/evidence?external_id=order-{number}")).await.unwrap();
    assert_eq!(listed.body["items"][0]["id"], id, "{}", listed.body);
    // The queue has delivered it twice, and the ledger has it once.
    let again = record(api, number).await;
    assert_eq!((&again["id"], &again["entry"]), (&told["id"], &told["entry"]));
}

/// Unix milliseconds.
#[expect(clippy::disallowed_methods, reason = "a backup is taken at a time of the world's")]
fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

async fn run(command: &mut Command) -> Output {
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Step 5 of the runbook: what was accepted since is delivered again.
async fn deliver_again(stack: &Stack, since_ms: i64) {
    let brokers = stack.server("KAFKA").unwrap();
    let moved = tokio::task::spawn_blocking(move || {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &brokers).set("group.id", GROUP).set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create().unwrap();
        let metadata = consumer.fetch_metadata(Some(TOPIC), KAFKA_TIMEOUT).unwrap();
        let mut times = TopicPartitionList::new();
        for partition in metadata.topics()[0].partitions() {
            times.add_partition_offset(TOPIC, partition.id(), Offset::Offset(since_ms)).unwrap();
        }
        let found = consumer.offsets_for_times(times, KAFKA_TIMEOUT).unwrap();
        let mut offsets = TopicPartitionList::new();
        // A partition without anything since keeps its position.
        for element in found.elements().iter().filter(|element| matches!(element.offset(), Offset::Offset(_))) {
            offsets.add_partition_offset(TOPIC, element.partition(), element.offset()).unwrap();
        }
        let give_up = Instant::now() + GROUP_TIMEOUT;
        while let Err(error) = consumer.commit(&offsets, CommitMode::Sync) {
            assert!(Instant::now() < give_up, "the group's positions do not move: {error}");
            std::thread::sleep(Duration::from_millis(500));
        }
        offsets.count()
    });
    assert!(moved.await.unwrap() > 0, "nothing was accepted since the backup");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_from_an_older_backup_gets_the_rest_from_ledger_and_queue() {
    let stack = Stack::start().await.unwrap();
    let superuser = stack.server("POSTGRES").unwrap();
    let server = superuser.trim_end_matches("/postgres").to_owned();
    let (url, dump) = (format!("{server}/chopmark"), stack.folder().join("chopmark.dump"));
    let api = stack.gateways[0].clone();

    let mut told = Vec::new();
    for number in 0..RECORDS {
        told.push(record(&api, number).await);
    }
    let begun = now_ms();
    run(Command::new("pg_dump").arg("--format=custom").arg("--file").arg(&dump).arg(&url)).await;
    for number in RECORDS..2 * RECORDS {
        told.push(record(&api, number).await);
    }

    // The database is gone.
    for role in [&GATEWAYS[..], &COMMITTERS, &[COURIER]].concat() {
        stack.stop_role(role).await.unwrap();
    }
    run(Command::new("dropdb").args(["--force", "--maintenance-db", &superuser, "chopmark"])).await;

    let roles = repository().join("schemas/roles/postgres.sql");
    run(Command::new("psql").args(["--quiet", "--set", "ON_ERROR_STOP=1", "--file"]).arg(roles).arg(&superuser)).await;
    let create = ["--owner", "chopmark_owner", "--template", "template0", "--encoding", "UTF8", "chopmark"];
    run(Command::new("createdb").args(["--maintenance-db", &superuser]).args(create)).await;
    run(Command::new("pg_restore").args(["--exit-on-error", "--dbname", &url]).arg(&dump)).await;
    let owner = url.replace("//postgres@", "//chopmark_owner@");
    run(Command::new(chopmark_tests::binary()).args(["admin", "migrate", "--database", &owner])).await;
    deliver_again(&stack, begun - SLACK_MS).await;
    for roles in [&COMMITTERS[..], &[COURIER], &GATEWAYS] {
        stack.start_again(roles).await.unwrap();
    }

    for (number, told) in (0..).zip(&told) {
        is_whole(&stack.gateways[1], number, told).await;
    }
    record(&api, 2 * RECORDS).await;
    stack.gateways[0]
        .exactly_once((0..=2 * RECORDS).map(|number| format!("record {number}")).collect::<Vec<_>>().iter())
        .await
        .unwrap();
    // No role has more rights than before, and none lacks any.
    let doctor = Command::new(chopmark_tests::binary())
        .args(["doctor", "--config"])
        .arg(stack.folder().join("gateway-0.toml"))
        .output()
        .await
        .unwrap();
    assert!(doctor.status.success(), "{}", String::from_utf8_lossy(&doctor.stdout));
}
