//! A consortium of real processes, each `chopmark node`, with a proxy on every way between two.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use ed25519_dalek::{Signer as _, SigningKey, pkcs8::DecodePrivateKey as _};
use ledger_core::{
    Hash32,
    batch::Submission,
    digests::{Algorithm, Digests},
    genesis::Genesis,
    hash::sha3_256,
    operation::{
        Evidence, Operation, OperationSignature, OperationType, SignedOperation, TenantSet, TenantStatus, V1,
        approval_message,
    },
    tile::{TileKind, TilePath, decode_bundle},
    verify::{FileFacts, Verdict, verify},
};
use serde_json::Value;

use crate::{binary, client, own_address, proxy::Link};

const TENANT: &str = "ten_test";
/// How long a network may take to get on once a quorum is back.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(60);

/// One member.
pub struct Member {
    pub domain: String,
    pub folder: PathBuf,
    pub guard: PathBuf,
    pub read: String,
    pub internal: String,
    child: Option<Child>,
}

/// The whole network.
pub struct Network {
    pub folder: tempfile::TempDir,
    pub members: Vec<Member>,
    /// By (from, to).
    links: BTreeMap<(usize, usize), Link>,
    pub http: reqwest::Client,
    pub genesis: Genesis,
    submitter: SigningKey,
    pub told: Arc<Mutex<Told>>,
}

/// What the world outside was told.
#[derive(Default)]
pub struct Told {
    /// Number of an evidence → leaf index that a node acknowledged.
    pub committed: BTreeMap<u64, u64>,
    /// Number, entry and receipt as some node served them.
    pub receipts: Vec<(u64, Vec<u8>, Vec<u8>)>,
}

pub fn key(folder: &Path, name: &str) -> anyhow::Result<SigningKey> {
    let path = folder.join("keys").join(format!("{name}.pem"));
    let pem = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    SigningKey::from_pkcs8_pem(&pem).map_err(|_| anyhow::anyhow!("{} is no key", path.display()))
}

fn content(number: u64) -> Vec<u8> {
    format!("file {number}").into_bytes()
}

fn op(number: u64) -> Hash32 {
    sha3_256(&number.to_be_bytes())
}

impl Network {
    /// Makes a network of `count` members and starts all of them.
    pub async fn start(count: usize) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let ip = IpAddr::V4(own_address());
        let at = |port: usize| SocketAddr::new(ip, u16::try_from(port).unwrap_or_default());
        let domains: Vec<String> = (0..count).map(|number| format!("member{number}.test")).collect();
        let listen = |number: usize| at(26_600 + 10 * number);
        let mut init = Command::new(binary());
        init.args(["network", "init"]).arg(folder.path().join("net")).args(["--domain", "sandbox.test"]);
        for (number, domain) in domains.iter().enumerate() {
            init.arg("--member").arg(format!("{domain}={}", listen(number)));
        }
        let made = init.output()?;
        ensure!(made.status.success(), "network init: {}", String::from_utf8_lossy(&made.stderr));
        let mut links = BTreeMap::new();
        let mut members = Vec::new();
        for (number, domain) in domains.iter().enumerate() {
            let member = folder.path().join("net").join(domain);
            // Every way to another node goes through a proxy.
            let mut config = fs::read_to_string(member.join("node.toml"))?;
            for other in (0..count).filter(|other| *other != number) {
                let way = at(27_000 + 10 * number + other);
                config = config.replace(&format!("address = \"{}\"", listen(other)), &format!("address = \"{way}\""));
                links.insert((number, other), Link::open(way, listen(other)).await?);
            }
            fs::write(member.join("node.toml"), config)?;
            members.push(Member {
                domain: domain.clone(),
                guard: folder.path().join("net").join(format!("{domain}.guard")),
                folder: member,
                read: format!("http://{}", at(26_601 + 10 * number)),
                internal: format!("http://{}", at(26_602 + 10 * number)),
                child: None,
            });
        }
        let genesis = Genesis::parse(&fs::read(members[0].folder.join("node/genesis.json"))?)?;
        let submitter = key(&members[0].folder, "submitter")?;
        let mut network = Self { folder, members, links, http: client()?, genesis, submitter, told: Arc::default() };
        for number in 0..count {
            network.spawn(number)?;
        }
        network.register_tenant().await?;
        Ok(network)
    }

    /// Starts a member's node; it is ready when it answers.
    pub fn spawn(&mut self, number: usize) -> anyhow::Result<()> {
        let member = &mut self.members[number];
        let log = fs::OpenOptions::new().create(true).append(true).open(member.folder.with_extension("log"))?;
        let child = Command::new(binary())
            .args(["node", "--data"])
            .arg(&member.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        member.child = Some(child);
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(&mut self, number: usize) {
        if let Some(mut child) = self.members[number].child.take() {
            let _killed = child.kill();
            let _reaped = child.wait();
        }
    }

    /// SIGTERM, and waits for a clean end.
    pub fn stop(&mut self, number: usize) -> anyhow::Result<()> {
        let Some(mut child) = self.members[number].child.take() else { return Ok(()) };
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM)?;
        let status = child.wait()?;
        ensure!(status.success(), "{} ended with {status}: {}", self.members[number].domain, self.log(number));
        Ok(())
    }

    pub fn is_running(&mut self, number: usize) -> bool {
        self.members[number].child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// The end of a member's log.
    pub fn log(&self, number: usize) -> String {
        let text = fs::read_to_string(self.members[number].folder.with_extension("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(8).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Cuts every way between members of different groups.
    pub fn partition(&self, groups: &[&[usize]]) {
        let group = |number: usize| groups.iter().position(|group| group.contains(&number));
        for ((from, to), link) in &self.links {
            link.cut(group(*from) != group(*to));
        }
    }

    pub fn heal(&self) {
        self.links.values().for_each(|link| link.cut(false));
    }

    pub fn delay(&self, delay: Duration) {
        self.links.values().for_each(|link| link.delay(delay));
    }

    async fn register_tenant(&self) -> anyhow::Result<()> {
        let chain = self.genesis.chain_id();
        let operation = Operation::TenantSet(Box::new(TenantSet {
            chain,
            expires: 1_000_000,
            key: None,
            op: sha3_256(b"tenant"),
            replaces: Hash32::ZERO,
            request: sha3_256(b"tenant"),
            status: TenantStatus::Active,
            tenant: TENANT.to_owned(),
            tier: 3,
            kind: OperationType::TenantSet,
            v: V1,
        }))
        .encode();
        let message = approval_message(&chain, &operation);
        let mut signatures = Vec::new();
        for member in &self.members {
            let key = key(&member.folder, "governance")?;
            let signature = key.sign(&message).to_bytes();
            signatures.push(OperationSignature { key: Hash32(key.verifying_key().to_bytes()), signature });
        }
        let index = self.submit(SignedOperation { operation, signatures }).await?;
        ensure!(index == 2, "the tenant is entry {index}");
        Ok(())
    }

    /// Submits to every node again and again until one acknowledges: the leaf index.
    pub async fn submit(&self, signed: SignedOperation) -> anyhow::Result<u64> {
        let submission = Submission::sign(&self.genesis.chain_id(), &self.submitter, vec![signed]).encode();
        let give_up = Instant::now() + PROGRESS_TIMEOUT;
        loop {
            let mut asked = tokio::task::JoinSet::new();
            for member in &self.members {
                let request = self.http.post(format!("{}/internal/v1/submissions", member.internal));
                let request = request.body(submission.clone()).timeout(Duration::from_secs(20));
                asked.spawn(async move { request.send().await?.error_for_status()?.json::<Value>().await });
            }
            while let Some(answer) = asked.join_next().await {
                if let Ok(answer) = answer? {
                    let ended = &answer[0];
                    return ended["index"].as_u64().with_context(|| format!("it was rejected: {ended}"));
                }
            }
            if Instant::now() > give_up {
                bail!("nothing was committed for {PROGRESS_TIMEOUT:?}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Records file `number`; remembers what was acknowledged.
    pub async fn notarize(&self, number: u64) -> anyhow::Result<u64> {
        let content = content(number);
        let operation = Operation::Evidence(Box::new(Evidence {
            chain: self.genesis.chain_id(),
            commitment: None,
            digests: Some(Digests { sha256: Some(Algorithm::Sha256.digest(&content)), ..Digests::default() }),
            media_type: None,
            op: op(number),
            private: None,
            request: sha3_256(&content),
            size: Some(content.len() as u64),
            tenant: TENANT.to_owned(),
            kind: OperationType::Evidence,
            v: V1,
        }));
        let index = self.submit(SignedOperation::unsigned(operation.encode())).await?;
        if let Ok(mut told) = self.told.lock() {
            let before = told.committed.insert(number, index);
            ensure!(before.is_none_or(|before| before == index), "{number} stands at {before:?} and {index}");
        }
        Ok(index)
    }

    /// Takes entry and receipt of a record from a member's node, where it serves them by now.
    pub async fn take_receipt(&self, member: usize, number: u64, index: u64) {
        let get = async |what: &str| {
            let url = format!("{}/v1/entries/{index}/{what}", self.members[member].read);
            let answer = self.http.get(url).send().await.ok()?.error_for_status().ok()?;
            Some(answer.bytes().await.ok()?.to_vec())
        };
        if let (Some(entry), Some(receipt)) = (get("entry").await, get("receipt").await)
            && let Ok(mut told) = self.told.lock()
        {
            told.receipts.push((number, entry, receipt));
        }
    }

    /// Newest size under a quorum, as a member's node serves it; `None` while it does not answer.
    pub async fn size(&self, member: usize) -> Option<u64> {
        let url = format!("{}/internal/v1/status", self.members[member].internal);
        let status: Value = self.http.get(url).send().await.ok()?.json().await.ok()?;
        status["size"].as_u64()
    }

    pub async fn status(&self, member: usize) -> anyhow::Result<Value> {
        let url = format!("{}/internal/v1/status", self.members[member].internal);
        Ok(self.http.get(url).send().await?.error_for_status()?.json().await?)
    }

    /// Waits until these members serve at least `size` entries.
    pub async fn reaches(&mut self, members: &[usize], size: u64) -> anyhow::Result<()> {
        let give_up = Instant::now() + PROGRESS_TIMEOUT;
        for number in members {
            while self.size(*number).await.is_none_or(|found| found < size) {
                if !self.is_running(*number) {
                    bail!("{} has ended: {}", self.members[*number].domain, self.log(*number));
                }
                if Instant::now() > give_up {
                    let found = self.size(*number).await;
                    bail!("{} is at {found:?}, not {size}: {}", self.members[*number].domain, self.log(*number));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    async fn entries(&self, member: usize, size: u64) -> anyhow::Result<Vec<Vec<u8>>> {
        let mut entries = Vec::new();
        for index in 0..size.div_ceil(256) {
            let width = u16::try_from((size - index * 256).min(256))?;
            let path = TilePath { kind: TileKind::Entries, index, width };
            let url = format!("{}/log/{}", self.members[member].read, path.path());
            let bytes = self.http.get(&url).send().await?.error_for_status()?.bytes().await?;
            let bundle = decode_bundle(&bytes, usize::from(width)).map_err(|_| anyhow::anyhow!("{url}: no bundle"))?;
            entries.extend(bundle.into_iter().map(<[u8]>::to_vec));
        }
        Ok(entries)
    }

    /// What has to hold after every fault, with all members running: progress, no fork, nothing
    /// acknowledged lost or doubled, every receipt valid.
    pub async fn check(&mut self) -> anyhow::Result<u64> {
        let all: Vec<usize> = (0..self.members.len()).collect();
        let number = 1_000_000 + self.told.lock().map(|told| told.committed.len() as u64).unwrap_or_default();
        let index = self.notarize(number).await.context("no progress after the fault")?;
        self.reaches(&all, index + 1).await?;
        let mut shortest = u64::MAX;
        for member in &all {
            shortest = shortest.min(self.size(*member).await.context("a size")?);
        }
        let first = self.entries(0, shortest).await?;
        for member in &all[1..] {
            ensure!(self.entries(*member, shortest).await? == first, "fork: members 0 and {member} differ");
        }
        let mut places: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (index, entry) in (0_u64..).zip(&first) {
            let entry: Value = serde_json::from_slice(entry)?;
            if let Some(op) = entry["op"].as_str() {
                places.entry(op.to_owned()).or_default().push(index);
            }
        }
        let doubled = places.iter().find(|(_, places)| places.len() > 1);
        ensure!(doubled.is_none(), "an operation stands twice: {doubled:?}");
        let (committed, receipts) = match self.told.lock() {
            Ok(told) => (told.committed.clone(), told.receipts.clone()),
            Err(_) => bail!("a task of this test has panicked"),
        };
        for (number, index) in &committed {
            let found = places.get(&op(*number).to_string());
            ensure!(found == Some(&vec![*index]), "{number} was acknowledged at {index} and stands at {found:?}");
        }
        for member in &all {
            let url = format!("{}/log/policy", self.members[*member].read);
            let policy = self.http.get(url).send().await?.error_for_status()?.bytes().await?;
            for (number, entry, receipt) in &receipts {
                let content = content(*number);
                let file = FileFacts { digests: Digests::of(&content), size: content.len() as u64 };
                let verdict = verify(Some(&file), entry, receipt, &policy);
                ensure!(matches!(verdict, Verdict::Valid(_)), "receipt of {number}: {verdict}");
            }
        }
        Ok(shortest)
    }

    /// Stops all, and looks at every file of every member.
    pub fn stop_and_check_files(mut self) -> anyhow::Result<()> {
        for number in 0..self.members.len() {
            self.stop(number)?;
        }
        for member in &self.members {
            let (code, text) =
                crate::fsck_by(&mut Command::new(binary()), &member.folder.join("node"), member.guard.as_os_str())?;
            ensure!(code == 0, "{}: {text}", member.domain);
            ensure!(!member.folder.join("node/equivocations.jsonl").exists(), "{} saw an equivocation", member.domain);
        }
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for number in 0..self.members.len() {
            self.kill(number);
        }
    }
}
