//! One tenant asks for what is another's, by every operation of the API and everything that names it:
//! nothing comes back. So it is while both fences between tenants stand, the application's checks and
//! row-level security in the database, and while either one is down. With both down the same probes find
//! what they look for, so that they would find it (ADR 0023).

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod document;
mod judge;
mod probes;
mod round;
mod things;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    time::Duration,
};

use chopmark_domain::id::IdIssuer;
use chopmark_tests::{Api, seeded, stack::Stack, tally};
use rand::Rng;
use serde_json::Value;

use self::{
    document::{Operation, operations},
    probes::{Look, PUBLIC, PUBLIC_POST, probes},
    round::{Fault, Keys, Round},
    things::Things,
};

const TEST: &str = "nothing_of_one_tenant_is_found_by_another";
const OWNER: &str = "ten_owner";
/// Tries to read a log that grows, and the pause between two.
const READS_MAX: u32 = 100;
const READ_PAUSE: Duration = Duration::from_millis(100);
/// Where another tenant's records come to light when nothing keeps them apart.
const GIVEN_AWAY: [&str; 8] = [
    "GET /v1/cases/{id}",
    "GET /v1/evidence",
    "GET /v1/evidence/{id}",
    "GET /v1/evidence/{id}/entry",
    "GET /v1/evidence/{id}/proof",
    "GET /v1/evidence/{id}/receipt",
    "GET /v1/operations/{id}",
    "POST /v1/cases/{id}/evidence",
];

#[test]
fn every_operation_is_probed() {
    let mut random = seeded("every_operation_is_probed");
    let [theirs, own] = [(); 2].map(|()| Things::without_a_deployment(&mut random));
    let operations = operations();
    assert!(operations.len() > 20, "the document lists {} operations", operations.len());
    for operation in &operations {
        let asked = probes(operation, &theirs, &own, Look::Checked);
        let asked = asked.unwrap_or_else(|| panic!("{}: no probe; add one to probes.rs", operation.name()));
        assert!(!asked.is_empty(), "{}: no probe", operation.name());
        for probe in asked {
            assert!(!probe.path.contains('{'), "{}: {}", operation.name(), probe.path);
        }
    }
    let listed: BTreeSet<String> = operations.iter().filter(|it| !it.is_keyed).map(Operation::name).collect();
    let known: BTreeSet<String> =
        PUBLIC.iter().map(|(name, _)| *name).chain([PUBLIC_POST]).map(str::to_owned).collect();
    assert_eq!(listed, known, "PUBLIC says what each operation without a key may show");
    let names: BTreeSet<String> = operations.iter().map(Operation::name).collect();
    assert!(GIVEN_AWAY.iter().all(|name| names.contains(*name)));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_one_tenant_is_found_by_another() {
    let mut random = seeded(TEST);
    let stack = Stack::start().await.unwrap();
    let owner = Owner::make(&stack, &mut random).await;
    let mut probers = Vec::new();
    for number in 1..=4 {
        probers.push(Prober::register(&stack, number).await);
    }
    let unfiltered = Unfiltered::open(&stack).await;
    let deployment = Deployment { stack: &stack, owner: &owner, operations: operations() };
    let [both, by_rows, by_checks, neither] = probers.try_into().unwrap_or_else(|_| unreachable!("there are four"));

    let views = owner.views().await;
    let faults = deployment.probe(&both, &stack.gateways, Look::Checked, &mut random).await;
    assert_eq!(said(&faults), "", "checks and row-level security");
    deployment.nodes_know_no_tenant(&mut random).await;

    let faults = deployment.probe(&by_rows, &unfiltered.gateways, Look::Credulous, &mut random).await;
    assert_eq!(said(&faults), "", "row-level security alone");

    // From here on no process opens the database: each would refuse it.
    stack.sql(&security("DISABLE")).await.unwrap();
    let faults = deployment.probe(&by_checks, &stack.gateways, Look::Checked, &mut random).await;
    assert_eq!(said(&faults), "", "the application's checks alone");
    assert_eq!(owner.views().await, views, "somebody else changed what is the owner's");

    // The probes find what there is to find.
    let faults = deployment.probe(&neither, &unfiltered.gateways, Look::Credulous, &mut random).await;
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    for fault in faults.iter().filter(|fault| fault.what.is_leak()) {
        *found.entry(&fault.operation).or_default() += 1;
    }
    let missed: Vec<_> = GIVEN_AWAY.iter().filter(|name| !found.contains_key(**name)).collect();
    assert_eq!(missed, Vec::<&&str>::new(), "neither; found only {found:?}");
    tally(TEST, &format!("with neither, leaks by operation: {found:?}"));

    stack.sql(&security("ENABLE")).await.unwrap();
    unfiltered.close().await;
}

/// Row-level security on or off, `ENABLE` or `DISABLE`, for all tables on which it is forced. To be forced
/// is another matter, and stays.
fn security(change: &str) -> String {
    format!(
        "DO $$ DECLARE wanted regclass; BEGIN
             FOR wanted IN SELECT oid FROM pg_class
                 WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND relforcerowsecurity
             LOOP EXECUTE format('ALTER TABLE %s {change} ROW LEVEL SECURITY', wanted); END LOOP;
         END $$"
    )
}

fn said(faults: &[Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// The tenant that is asked about.
struct Owner {
    things: Things,
    /// The first gateway, with its key.
    api: Api,
    /// A key that was taken back.
    revoked: String,
    reading: String,
    writing: String,
}

impl Owner {
    async fn make(stack: &Stack, random: &mut impl Rng) -> Self {
        stack.add_tenant(OWNER).await.unwrap();
        let revoked = make_key(stack, OWNER, &[]).await;
        let listed = stack.admin(&["key", "list", OWNER, "--json"]).await.unwrap();
        let listed: Value = serde_json::from_str(listed.lines().next().unwrap()).unwrap();
        stack.admin(&["key", "revoke", listed["key"].as_str().unwrap()]).await.unwrap();
        let api = Api { key: make_key(stack, OWNER, &[]).await, ..stack.gateways[0].clone() };
        Self {
            things: Things::make(&api, OWNER, random).await,
            api,
            revoked,
            reading: make_key(stack, OWNER, &["--scope", "read"]).await,
            writing: make_key(stack, OWNER, &["--scope", "write"]).await,
        }
    }

    /// What the owner reads of the things that others were after.
    async fn views(&self) -> Vec<Value> {
        let evidence = self.things.evidence.iter().map(|id| format!("/v1/evidence/{id}"));
        let paths = evidence.chain([format!("/v1/cases/{}", self.things.case), "/v1/evidence?limit=200".to_owned()]);
        let mut views = Vec::new();
        for path in paths {
            views.push(self.api.get(&path).await.unwrap().body);
        }
        // Nobody listens there, so that it changes; but it is there, and as the owner made it.
        let endpoint = format!("/v1/webhooks/endpoints/{}", self.things.endpoint);
        let endpoint = self.api.get(&endpoint).await.unwrap().body;
        views.extend(["url", "description", "state"].map(|name| endpoint[name].clone()));
        views
    }
}

async fn make_key(stack: &Stack, tenant: &str, more: &[&str]) -> String {
    stack.admin(&[&["key", "create", "--tenant", tenant], more].concat()).await.unwrap()
}

/// A tenant that spies upon the owner. One for each set of fences: what an earlier one has sent would no
/// longer be new.
struct Prober {
    tenant: String,
    key: String,
}

impl Prober {
    async fn register(stack: &Stack, number: u32) -> Self {
        let tenant = format!("ten_prober{number}");
        stack.add_tenant(&tenant).await.unwrap();
        Self { key: make_key(stack, &tenant, &[]).await, tenant }
    }
}

/// A deployment with an owner in it.
struct Deployment<'a> {
    stack: &'a Stack,
    owner: &'a Owner,
    operations: Vec<Operation>,
}

impl Deployment<'_> {
    /// All probes.
    async fn probe(&self, prober: &Prober, gateways: &[Api; 2], look: Look, random: &mut impl Rng) -> Vec<Fault> {
        let Prober { tenant, key } = prober;
        let own = Things::make(&Api { key: key.clone(), ..self.stack.gateways[1].clone() }, tenant, random).await;
        let never = Things::invented(&self.owner.things, random);
        let ids = self.ids();
        let [tagged, tagged_never] = [&self.owner.things, &never].map(|things| things.tagged_for(&ids, tenant));
        let mut round = Round::new(self.keys(Some(key.clone())), &self.owner.things, own);
        // A caller's own lists hold what it wrote: it reads first.
        let (reads, writes): (Vec<_>, Vec<_>) = self.operations.iter().partition(|it| it.method == "GET");
        for operation in reads.into_iter().chain(writes) {
            round.probe(&gateways[0], operation, (&self.owner.things, &never), look).await;
            round.probe(&gateways[1], operation, (&tagged, &tagged_never), Look::Tagged).await;
        }
        self.log_is_clean().await;
        tally(TEST, &format!("{tenant}, {look:?}: {} requests, {} faults", round.requests, round.faults.len()));
        round.faults
    }

    /// The read interface of a member's node, by somebody with an owner's key or without one.
    async fn nodes_know_no_tenant(&self, random: &mut impl Rng) {
        let never = Things::invented(&self.owner.things, random);
        let mut round = Round::new(self.keys(None), &self.owner.things, never.clone());
        for operation in &self.operations {
            round.probe(&self.stack.nodes[0], operation, (&self.owner.things, &never), Look::Checked).await;
        }
        assert_eq!(said(&round.faults), "", "a node");
        tally(TEST, &format!("a node: {} requests", round.requests));
    }

    /// The owner's records are in the log, and nothing private is.
    async fn log_is_clean(&self) {
        let entries = self.entries().await;
        let log = entries.iter().map(|entry| String::from_utf8_lossy(entry)).collect::<Vec<_>>().join("\n");
        assert!(log.contains(&self.owner.things.digest("plain")), "the owner's records are in the log");
        for secret in self.owner.things.private() {
            assert!(!log.contains(&secret), "{secret} is in the log");
        }
    }

    /// The log, which may grow while it is read: then again.
    async fn entries(&self) -> Vec<Vec<u8>> {
        for _ in 0..READS_MAX {
            if let Ok(entries) = self.stack.gateways[0].entries().await {
                return entries;
            }
            tokio::time::sleep(READ_PAUSE).await;
        }
        panic!("the log cannot be read")
    }

    fn keys(&self, other: Option<String>) -> Keys {
        let Owner { revoked, reading, writing, .. } = self.owner;
        Keys { other, revoked: revoked.clone(), reading: reading.clone(), writing: writing.clone() }
    }

    /// What the deployment's gateways make ids with.
    fn ids(&self) -> IdIssuer {
        let text = fs::read_to_string(self.stack.folder().join("secrets/ids.key")).unwrap();
        let mut key = [0; 32];
        hex::decode_to_slice(text.trim(), &mut key).unwrap();
        IdIssuer::new(key.into(), "sandbox")
    }
}

/// Gateways in this process whose own checks are off, before the same database, queue and nodes.
struct Unfiltered {
    gateways: [Api; 2],
    close: Box<dyn FnOnce() -> futures_util::future::BoxFuture<'static, ()>>,
}

impl Unfiltered {
    async fn open(stack: &Stack) -> Self {
        let serving = chopmark::unfiltered_gateway(&Self::configuration(stack)).await.unwrap();
        let (address, stopper) = (serving.public_address(), serving.stopper());
        let served = tokio::spawn(serving.run());
        let api = Api { base: format!("http://{address}"), ..stack.gateways[0].clone() };
        let close = async move {
            stopper.stop().await;
            served.await.unwrap().unwrap();
        };
        Self { gateways: [api.clone(), api], close: Box::new(|| Box::pin(close)) }
    }

    /// That of the first gateway, on ports that are free.
    fn configuration(stack: &Stack) -> PathBuf {
        let text = fs::read_to_string(stack.folder().join("gateway-0.toml")).unwrap();
        let line = |line: &str| match line.split_once(" = ") {
            Some((name @ ("listen" | "internal"), _)) => format!("{name} = \"127.0.0.1:0\"\n"),
            _ => format!("{line}\n"),
        };
        let path = stack.folder().join("unfiltered.toml");
        fs::write(&path, text.lines().map(line).collect::<String>()).unwrap();
        path
    }

    async fn close(self) {
        (self.close)().await;
    }
}
