//! A consortium of real processes, each `chopmark node`, with a proxy on every way between two.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey, pkcs8::DecodePrivateKey as _};
use ledger_core::{
    Hash32,
    batch::Submission,
    digests::{Algorithm, Digests},
    equivocation::Equivocation,
    genesis::Genesis,
    hash::sha3_256,
    operation::{
        Evidence, Operation, OperationSignature, OperationType, SignedOperation, TenantSet, TenantStatus, V1,
        approval_message,
    },
    tile::{TileKind, TilePath, decode_bundle},
    verify::{FileFacts, Verdict, verify},
};
use rand::RngExt as _;
use serde_json::Value;

use crate::{
    binary, client, own_address,
    proxy::{Direction, Link},
};

/// The tenant that everything is recorded for.
pub const TENANT: &str = "ten_test";
/// A tenant whose own key has to sign; a test registers it.
pub const KEYED_TENANT: &str = "ten_keyed";
/// How long a network may take to get on once a quorum is back.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(60);

/// One member.
pub struct Member {
    pub domain: String,
    pub folder: PathBuf,
    pub guard: PathBuf,
    pub read: String,
    pub internal: String,
    /// Where it listens for members; the proxies of the others lead here.
    pub listen: SocketAddr,
    child: Mutex<Option<Child>>,
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
    /// Members that run as processes; the test plays the others itself.
    present: Vec<usize>,
    /// Receipts found valid, by their number and the policy's digest: the verdict depends on nothing else.
    verified: Mutex<BTreeMap<(usize, Hash32), u64>>,
}

/// What the world outside was told.
#[derive(Default)]
pub struct Told {
    /// Number of an evidence → leaf index that a node acknowledged.
    pub committed: BTreeMap<u64, u64>,
    /// Number, entry and receipt as some node served them.
    pub receipts: Vec<(u64, Vec<u8>, Vec<u8>)>,
    /// Records of a load that were rejected, or not acknowledged in time.
    pub failures: Vec<String>,
}

/// Load that goes on over the faults; receipts are taken from all members in turn.
#[derive(Default)]
pub struct Load {
    pub stop: Arc<AtomicBool>,
    pub next: Arc<AtomicU64>,
}

impl Load {
    /// Load whose first record is `number`.
    pub fn from(number: u64) -> Self {
        Self { stop: Arc::default(), next: Arc::new(AtomicU64::new(number)) }
    }

    pub async fn run(&self, network: &Network, workers: usize) {
        let one = async || {
            while !self.stop.load(Ordering::Relaxed) {
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                let index = match network.notarize(number).await {
                    Ok(index) => index,
                    Err(error) => {
                        // `check` reports it.
                        if let Ok(mut told) = network.told.lock() {
                            told.failures.push(format!("{number}: {error:#}"));
                        }
                        return;
                    }
                };
                if number.is_multiple_of(7) {
                    let member = network.present[usize::try_from(number).unwrap_or_default() % network.present.len()];
                    network.take_receipt(member, number, index).await;
                }
            }
        };
        let mut all = Vec::new();
        for _ in 0..workers {
            all.push(one());
        }
        futures_util::future::join_all(all).await;
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Member {
    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

/// Evidence of file `number`, without a signature of the tenant.
pub fn evidence_of(chain: &Hash32, tenant: &str, number: u64) -> SignedOperation {
    let content = content(number);
    let operation = Operation::Evidence(Box::new(Evidence {
        chain: *chain,
        commitment: None,
        digests: Some(Digests { sha256: Some(Algorithm::Sha256.digest(&content)), ..Digests::default() }),
        media_type: None,
        op: op(number),
        private: None,
        request: sha3_256(&content),
        size: Some(content.len() as u64),
        tenant: tenant.to_owned(),
        kind: OperationType::Evidence,
        v: V1,
    }));
    SignedOperation::unsigned(operation.encode())
}

/// The tree size of a receipt's checkpoint: the line after the log's origin.
fn checkpoint_size(receipt: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(receipt).ok()?;
    let (_, checkpoint) = text.split_once("\n\n")?;
    checkpoint.lines().nth(1)?.parse().ok()
}

impl Network {
    /// Makes a network of `count` members and starts all of them.
    pub async fn start(count: usize) -> anyhow::Result<Self> {
        let mut network = Self::make(count, &[]).await?;
        network.start_members().await?;
        Ok(network)
    }

    /// Makes a network of `count` members and starts none. Those in `played` are the test's own.
    pub async fn make(count: usize, played: &[usize]) -> anyhow::Result<Self> {
        Self::make_at(&vec![IpAddr::V4(own_address()); count], played, true).await
    }

    /// The same with one member at each address, which all of them reach without a proxy.
    pub async fn make_direct(addresses: &[IpAddr]) -> anyhow::Result<Self> {
        Self::make_at(addresses, &[], false).await
    }

    async fn make_at(addresses: &[IpAddr], played: &[usize], proxied: bool) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let count = addresses.len();
        // Addresses may all be one: the ports of members differ.
        let at =
            |number: usize, port: usize| SocketAddr::new(addresses[number], u16::try_from(port).unwrap_or_default());
        let domains: Vec<String> = (0..count).map(|number| format!("member{number}.test")).collect();
        let listen = |number: usize| at(number, 26_600 + 10 * number);
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
            let mut config = fs::read_to_string(member.join("node.toml"))?;
            // Every way to another node goes through a proxy.
            for other in (0..count).filter(|other| proxied && *other != number) {
                let way = at(number, 27_000 + 10 * number + other);
                config = config.replace(&format!("address = \"{}\"", listen(other)), &format!("address = \"{way}\""));
                links.insert((number, other), Link::open(way, listen(other), u64::from(way.port())).await?);
            }
            fs::write(member.join("node.toml"), config)?;
            members.push(Member {
                domain: domain.clone(),
                guard: folder.path().join("net").join(format!("{domain}.guard")),
                folder: member,
                read: format!("http://{}", at(number, 26_601 + 10 * number)),
                internal: format!("http://{}", at(number, 26_602 + 10 * number)),
                listen: listen(number),
                child: Mutex::default(),
            });
        }
        let genesis = Genesis::parse(&fs::read(members[0].folder.join("node/genesis.json"))?)?;
        let submitter = key(&members[0].folder, "submitter")?;
        let present = (0..count).filter(|number| !played.contains(number)).collect();
        let told = Arc::default();
        Ok(Self {
            folder,
            members,
            links,
            http: client()?,
            genesis,
            submitter,
            told,
            present,
            verified: Mutex::default(),
        })
    }

    /// Starts every member that is not played, and registers the tenant.
    pub async fn start_members(&mut self) -> anyhow::Result<()> {
        for number in self.present.clone() {
            self.spawn(number)?;
        }
        self.register_tenant().await
    }

    /// Members that run as processes.
    pub fn present(&self) -> &[usize] {
        &self.present
    }

    /// Makes the folder of one more node with `network join`, and starts it. Its number.
    pub fn join(&mut self, domain: &str, observer: bool) -> anyhow::Result<usize> {
        let number = self.members.len();
        let ip = IpAddr::V4(own_address());
        let at = |port: usize| SocketAddr::new(ip, u16::try_from(port).unwrap_or_default());
        let folder = self.folder.path().join("net").join(domain);
        let mut join = Command::new(binary());
        join.args(["network", "join"]).arg(&folder).args(["--domain", domain]);
        join.arg("--listen").arg(at(26_600 + 10 * number).to_string()).arg("--from").arg(&self.members[0].read);
        join.arg("--chain").arg(self.genesis.chain_id().to_string()).args(observer.then_some("--observer"));
        let made = join.output()?;
        ensure!(made.status.success(), "network join: {}", String::from_utf8_lossy(&made.stderr));
        self.members.push(Member {
            domain: domain.to_owned(),
            guard: self.folder.path().join("net").join(format!("{domain}.guard")),
            folder,
            read: format!("http://{}", at(26_601 + 10 * number)),
            internal: format!("http://{}", at(26_602 + 10 * number)),
            listen: at(26_600 + 10 * number),
            child: Mutex::default(),
        });
        self.present.push(number);
        self.spawn(number)?;
        Ok(number)
    }

    /// Copies everything of a member that does not run, guard and keys too, as to a second machine
    /// with ports of its own. Its number.
    pub fn copy_member(&mut self, of: usize) -> anyhow::Result<usize> {
        let (number, net) = (self.members.len(), self.folder.path().join("net"));
        let (original, folder, guard) = (&self.members[of], net.join("copy"), net.join("copy.guard"));
        for (from, to) in [(&original.folder, &folder), (&original.guard, &guard)] {
            ensure!(Command::new("cp").arg("-a").arg(from).arg(to).status()?.success(), "cp to {}", to.display());
        }
        let path = folder.join("node.toml");
        let mut config = fs::read_to_string(&path)?.replace(&format!("{}.guard", original.domain), "copy.guard");
        let at = |above: u16| {
            let port = original.listen.port() + above;
            let own = SocketAddr::new(original.listen.ip(), u16::try_from(26_600 + 10 * number)? + above);
            Ok::<_, anyhow::Error>((SocketAddr::new(original.listen.ip(), port), own))
        };
        for above in 0..4 {
            let (theirs, own) = at(above)?;
            config = config.replace(&format!("\"{theirs}\""), &format!("\"{own}\""));
        }
        fs::write(&path, config)?;
        let copy = Member {
            domain: original.domain.clone(),
            guard,
            folder,
            read: format!("http://{}", at(1)?.1),
            internal: format!("http://{}", at(2)?.1),
            listen: at(0)?.1,
            child: Mutex::default(),
        };
        self.members.push(copy);
        self.present.push(number);
        Ok(number)
    }

    /// From now on nobody looks after this member.
    pub fn leave(&mut self, number: usize) {
        self.present.retain(|present| *present != number);
    }

    /// Looks after a member again that had left.
    pub fn come_back(&mut self, number: usize) {
        self.present.push(number);
    }

    /// Waits until a node serves at least `size` entries, without a look at its process.
    pub async fn serves(&self, member: usize, size: u64) -> anyhow::Result<()> {
        let give_up = Instant::now() + PROGRESS_TIMEOUT;
        while self.size(member).await.is_none_or(|found| found < size) {
            ensure!(
                Instant::now() < give_up,
                "{} does not reach {size}: {}",
                self.members[member].domain,
                self.log(member)
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Runs `chopmark network …` for a member: exit status, and what it said.
    pub fn command(&self, member: usize, arguments: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
        let mut command = Command::new(binary());
        let output = command.arg("network").args(arguments).arg("--data").arg(&self.members[member].folder).output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
    }

    /// Proposes a change as the first of these members, and has the others approve it until it is
    /// committed.
    pub async fn change(&self, members: &[usize], change: &[&str]) -> anyhow::Result<()> {
        let give_up = Instant::now() + PROGRESS_TIMEOUT;
        while !self.change_once(members, change, give_up).await? {
            ensure!(Instant::now() < give_up, "{change:?}: what it was to replace is replaced again and again");
        }
        Ok(())
    }

    /// `false`: a change before it came into force between question and answer, and nobody has the
    /// proposal any more.
    async fn change_once(&self, members: &[usize], change: &[&str], give_up: Instant) -> anyhow::Result<bool> {
        let propose = [&["propose"], change].concat();
        let said = loop {
            let (code, said) = self.command(members[0], &propose)?;
            if code == Some(0) {
                break said;
            }
            // The change before it comes into force within two heights; who lags is at work again soon.
            let passes =
                ["on its way already", "replaced meanwhile", "Not at work"].iter().any(|reason| said.contains(reason));
            ensure!(passes && Instant::now() < give_up, "{propose:?}: {said}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let id = said.lines().find_map(|line| line.strip_prefix("proposal ")).context("it names the proposal")?;
        let mut last = said.clone();
        for member in &members[1..] {
            loop {
                let (code, said) = self.command(*member, &["approve", id])?;
                if code == Some(0) {
                    last = said;
                    break;
                }
                ensure!(said.contains("arrives within seconds") && Instant::now() < give_up, "approve: {said}");
                // The proposer's own node had not seen the change before it yet.
                if !self.command(members[0], &["proposals", "--json"])?.1.contains(id) {
                    return Ok(false);
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        ensure!(last.contains("committed as entry"), "{change:?} is not committed: {last}");
        Ok(true)
    }

    /// Waits until a member's node says that these are the members in force.
    pub async fn in_force(&self, member: usize, domains: &[&str]) -> anyhow::Result<()> {
        let give_up = Instant::now() + PROGRESS_TIMEOUT;
        loop {
            let found = self.status(member).await.map(|status| status["members"].clone());
            if found.as_ref().is_ok_and(|found| *found == serde_json::json!(domains)) {
                return Ok(());
            }
            ensure!(
                Instant::now() < give_up,
                "{domains:?} are not in force at {member}: {found:?} {}",
                self.log(member)
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until a member's signature counts in a checkpoint that another one serves.
    pub async fn cosigns(&self, member: usize, seen_by: usize) -> anyhow::Result<()> {
        let (domain, give_up) = (&self.members[member].domain, Instant::now() + PROGRESS_TIMEOUT);
        let mut number = 2_000_000;
        loop {
            self.notarize(number + u64::try_from(member)? * 1_000).await?;
            let status = self.status(seen_by).await?;
            let signers = status["cosigned"].as_array().context("cosigners")?;
            if signers.iter().any(|signer| signer[0] == domain.as_str()) {
                return Ok(());
            }
            ensure!(Instant::now() < give_up, "{domain} does not cosign: {status} {}", self.log(member));
            number += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The policies that a member serves, by the first tree size of each.
    async fn policies(&self, member: usize) -> anyhow::Result<BTreeMap<u64, Vec<u8>>> {
        let read = &self.members[member].read;
        let network: Value =
            self.http.get(format!("{read}/v1/network")).send().await?.error_for_status()?.json().await?;
        let mut policies = BTreeMap::new();
        for policy in network["policies"].as_array().context("policies")? {
            let first = policy["first_size"].as_u64().context("a first size")?;
            let url = format!("{read}/log/policies/{first}");
            policies.insert(first, self.http.get(url).send().await?.error_for_status()?.bytes().await?.to_vec());
        }
        Ok(policies)
    }

    /// Starts a member's node; it is ready when it answers.
    pub fn spawn(&self, number: usize) -> anyhow::Result<()> {
        self.spawn_by(Command::new(binary()), number)
    }

    /// Starts it by a command that ends in the path of the binary under test.
    pub fn spawn_by(&self, mut command: Command, number: usize) -> anyhow::Result<()> {
        let member = &self.members[number];
        let log = fs::OpenOptions::new().create(true).append(true).open(member.folder.with_extension("log"))?;
        let child = command
            .args(["node", "--data"])
            .arg(&member.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        *member.child() = Some(child);
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(&self, number: usize) {
        let child = self.members[number].child().take();
        if let Some(mut child) = child {
            let _killed = child.kill();
            let _reaped = child.wait();
        }
    }

    /// SIGSTOP: it is still reached and answers nothing.
    pub fn freeze(&self, number: usize) -> anyhow::Result<()> {
        self.signal(number, rustix::process::Signal::STOP)
    }

    /// SIGCONT: it goes on where it stood.
    pub fn thaw(&self, number: usize) -> anyhow::Result<()> {
        self.signal(number, rustix::process::Signal::CONT)
    }

    fn signal(&self, number: usize, signal: rustix::process::Signal) -> anyhow::Result<()> {
        let pid = self.members[number].child().as_ref().map(rustix::process::Pid::from_child);
        Ok(rustix::process::kill_process(pid.context("it does not run")?, signal)?)
    }

    /// SIGTERM, and waits for a clean end.
    pub fn stop(&self, number: usize) -> anyhow::Result<()> {
        let Some(mut child) = self.members[number].child().take() else { return Ok(()) };
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM)?;
        let status = child.wait()?;
        ensure!(status.success(), "{} ended with {status}: {}", self.members[number].domain, self.log(number));
        Ok(())
    }

    /// The same, while other work of this task goes on.
    pub async fn stop_meanwhile(&self, number: usize) -> anyhow::Result<()> {
        let pid = self.members[number].child().as_ref().map(rustix::process::Pid::from_child);
        rustix::process::kill_process(pid.context("it does not run")?, rustix::process::Signal::TERM)?;
        let ended = self.ended(number).await;
        ensure!(ended == Some(true), "{} ended badly: {}", self.members[number].domain, self.log(number));
        Ok(())
    }

    /// Waits until a node has ended: whether it ended well. `None` if it has not in a minute.
    pub async fn ended(&self, number: usize) -> Option<bool> {
        let give_up = Instant::now() + PROGRESS_TIMEOUT;
        while Instant::now() < give_up {
            let status = self.members[number].child().as_mut()?.try_wait().ok()?;
            if let Some(status) = status {
                *self.members[number].child() = None;
                return Some(status.success());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        None
    }

    pub fn is_running(&self, number: usize) -> bool {
        self.members[number].child().as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
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

    /// Uneven links: each gets a bound of its own, up to `jitter`.
    pub fn jitter(&self, random: &mut impl rand::Rng, jitter: Duration) {
        self.links.values().for_each(|link| link.jitter(jitter.mul_f64(random.random())));
    }

    /// Holds back what one member sends to another, on whichever connection; the way back stays.
    pub fn stall(&self, from: usize, to: usize, stalled: bool) {
        for (link, direction) in [((from, to), Direction::Forth), ((to, from), Direction::Back)] {
            if let Some(link) = self.links.get(&link) {
                link.stall(direction, stalled);
            }
        }
    }

    /// One member loses its connections to another, which is not told.
    pub fn lose(&self, one: usize, other: usize) {
        for (link, direction) in [((one, other), Direction::Forth), ((other, one), Direction::Back)] {
            if let Some(link) = self.links.get(&link) {
                link.leave(direction);
            }
        }
    }

    /// Resets the connections between two members.
    pub fn reset(&self, one: usize, other: usize) {
        for link in [(one, other), (other, one)] {
            if let Some(link) = self.links.get(&link) {
                link.reset();
            }
        }
    }

    /// Every link is as good as new.
    pub fn calm(&self) {
        for link in self.links.values() {
            link.cut(false);
            link.delay(Duration::ZERO);
            link.jitter(Duration::ZERO);
            link.stall(Direction::Forth, false);
            link.stall(Direction::Back, false);
        }
    }

    /// What a long run was worth, for its tally.
    pub fn tally(&self) -> String {
        self.told.lock().map_or_else(
            |_| "a task has panicked".to_owned(),
            |told| format!("{} operations acknowledged, {} receipts taken", told.committed.len(), told.receipts.len()),
        )
    }

    /// The first record: it needs a quorum of members.
    pub async fn register_tenant(&self) -> anyhow::Result<()> {
        let index = self.submit(self.approved_tenant(TENANT, None)?).await?;
        ensure!(index == 2, "the tenant is entry {index}");
        Ok(())
    }

    /// A new tenant, approved by all members.
    pub fn approved_tenant(&self, tenant: &str, tenant_key: Option<Hash32>) -> anyhow::Result<SignedOperation> {
        let chain = self.genesis.chain_id();
        let operation = Operation::TenantSet(Box::new(TenantSet {
            chain,
            expires: 1_000_000,
            key: tenant_key,
            op: sha3_256(tenant.as_bytes()),
            replaces: Hash32::ZERO,
            request: sha3_256(tenant.as_bytes()),
            status: TenantStatus::Active,
            tenant: tenant.to_owned(),
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
        Ok(SignedOperation { operation, signatures })
    }

    /// Where a member reaches another one.
    pub fn way(&self, from: usize, to: usize) -> Option<SocketAddr> {
        self.links.get(&(from, to)).map(|link| link.address)
    }

    /// Submits to every node again and again until one acknowledges: the leaf index.
    pub async fn submit(&self, signed: SignedOperation) -> anyhow::Result<u64> {
        self.submit_all(vec![signed]).await?.first().copied().context("an outcome")
    }

    /// The same for several operations at once.
    pub async fn submit_all(&self, signed: Vec<SignedOperation>) -> anyhow::Result<Vec<u64>> {
        let submission = Submission::sign(&self.genesis.chain_id(), &self.submitter, signed).encode();
        let give_up = Instant::now() + PROGRESS_TIMEOUT;
        loop {
            let mut asked = tokio::task::JoinSet::new();
            for member in self.present.iter().map(|number| &self.members[*number]) {
                let request = self.http.post(format!("{}/internal/v1/submissions", member.internal));
                let request = request.body(submission.clone()).timeout(Duration::from_secs(20));
                asked.spawn(async move { request.send().await?.error_for_status()?.json::<Vec<Value>>().await });
            }
            while let Some(answer) = asked.join_next().await {
                if let Ok(answer) = answer? {
                    let index = |ended: &Value| ended["index"].as_u64().with_context(|| format!("rejected: {ended}"));
                    return answer.iter().map(index).collect();
                }
            }
            if Instant::now() > give_up {
                bail!("nothing was committed for {PROGRESS_TIMEOUT:?}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Records a file for each number at once; remembers what was acknowledged.
    pub async fn notarize_all(&self, numbers: std::ops::Range<u64>) -> anyhow::Result<()> {
        let chain = self.genesis.chain_id();
        let operations = numbers.clone().map(|number| evidence_of(&chain, TENANT, number)).collect();
        for (number, index) in numbers.zip(self.submit_all(operations).await?) {
            self.acknowledged(number, index)?;
        }
        Ok(())
    }

    fn acknowledged(&self, number: u64, index: u64) -> anyhow::Result<()> {
        if let Ok(mut told) = self.told.lock() {
            let before = told.committed.insert(number, index);
            ensure!(before.is_none_or(|before| before == index), "{number} stands at {before:?} and {index}");
        }
        Ok(())
    }

    /// Records file `number`; remembers what was acknowledged.
    pub async fn notarize(&self, number: u64) -> anyhow::Result<u64> {
        let index = self.submit(evidence_of(&self.genesis.chain_id(), TENANT, number)).await?;
        self.acknowledged(number, index)?;
        Ok(index)
    }

    /// Takes entry and receipt of a record from a member's node, as soon as it serves them: not before
    /// a quorum has cosigned, and never while it is away. Whether it came.
    pub async fn take_receipt(&self, member: usize, number: u64, index: u64) -> bool {
        let get = async |what: &str| {
            let url = format!("{}/v1/entries/{index}/{what}", self.members[member].read);
            let answer = self.http.get(url).send().await.ok()?.error_for_status().ok()?;
            Some(answer.bytes().await.ok()?.to_vec())
        };
        for _ in 0..20 {
            if let (Some(entry), Some(receipt)) = (get("entry").await, get("receipt").await) {
                if let Ok(mut told) = self.told.lock() {
                    told.receipts.push((number, entry, receipt));
                }
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    }

    /// A block with header and certificate, as a member's node serves it; `None` above its newest
    /// checkpoint.
    pub async fn block(&self, member: usize, height: u64) -> anyhow::Result<Option<Value>> {
        let url = format!("{}/v1/blocks/{height}", self.members[member].read);
        let answer = loop {
            let answer = self.http.get(&url).send().await?;
            match answer.status() {
                reqwest::StatusCode::NOT_FOUND => return Ok(None),
                // Readers share a limit.
                reqwest::StatusCode::TOO_MANY_REQUESTS => tokio::time::sleep(Duration::from_millis(100)).await,
                _ => break answer,
            }
        };
        Ok(Some(answer.error_for_status()?.json().await?))
    }

    /// Heights from `first` on that were proposed by `member` and decided, as `reader` serves them, and
    /// how many blocks there are.
    pub async fn decided_of(&self, member: usize, reader: usize, first: u64) -> anyhow::Result<(Vec<u64>, u64)> {
        let (mut found, mut height) = (Vec::new(), first);
        while let Some(block) = self.block(reader, height).await? {
            let round = block.pointer("/certificate/round").and_then(Value::as_u64).context("a round")?;
            // Members take turns in the order of their domains, which is that of their numbers.
            if (height + round) % self.members.len() as u64 == member as u64 {
                found.push(height);
            }
            height += 1;
        }
        Ok((found, height - first))
    }

    /// Whether a member's log says this.
    pub fn has_logged(&self, number: usize, what: &str) -> bool {
        let log = fs::read_to_string(self.members[number].folder.with_extension("log")).unwrap_or_default();
        log.contains(what)
    }

    /// Length of a member's log so far.
    pub fn log_len(&self, number: usize) -> usize {
        fs::read(self.members[number].folder.with_extension("log")).map_or(0, |log| log.len())
    }

    /// What a member has logged since the log was this long.
    pub fn log_since(&self, number: usize, len: usize) -> String {
        let log = fs::read(self.members[number].folder.with_extension("log")).unwrap_or_default();
        String::from_utf8_lossy(log.get(len..).unwrap_or_default()).into_owned()
    }

    /// Writes a table of faults into a member's configuration; in force from its next start on.
    pub fn rehearse(&self, number: usize, faults: &str) -> anyhow::Result<()> {
        let path = self.members[number].folder.join("node.toml");
        let config = fs::read_to_string(&path)?;
        let config = config.split("\n[faults]").next().unwrap_or_default();
        Ok(fs::write(&path, format!("{config}\n[faults]\n{faults}\n"))?)
    }

    /// A counter of a member's node; zero where it has not counted yet.
    pub async fn metric(&self, member: usize, name: &str) -> u64 {
        let listen = self.members[member].listen;
        let url = format!("http://{}/metrics", SocketAddr::new(listen.ip(), listen.port() + 3));
        let Ok(answer) = self.http.get(url).send().await else { return 0 };
        let text = answer.text().await.unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_default()
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
    pub async fn reaches(&self, members: &[usize], size: u64) -> anyhow::Result<()> {
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

    pub async fn entries(&self, member: usize, size: u64) -> anyhow::Result<Vec<Vec<u8>>> {
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

    /// What has to hold after every fault, with all members running that are not played: progress,
    /// no fork, nothing acknowledged lost or doubled, every receipt valid.
    pub async fn check(&mut self) -> anyhow::Result<u64> {
        self.check_but(&[]).await
    }

    /// [`Self::check`], with running members that may be behind: what they serve is what the others have.
    pub async fn check_but(&mut self, behind: &[usize]) -> anyhow::Result<u64> {
        let all: Vec<_> = self.present.iter().copied().filter(|member| !behind.contains(member)).collect();
        let number = 1_000_000 + self.told.lock().map(|told| told.committed.len() as u64).unwrap_or_default();
        let index = self.notarize(number).await.context("no progress after the fault")?;
        self.reaches(&all, index + 1).await?;
        for member in &all {
            ensure!(self.take_receipt(*member, number, index).await, "member {member} gives no receipt");
        }
        let mut shortest = u64::MAX;
        for member in &all {
            shortest = shortest.min(self.size(*member).await.context("a size")?);
        }
        let first = self.entries(all[0], shortest).await?;
        for member in &all[1..] {
            ensure!(self.entries(*member, shortest).await? == first, "fork: members {} and {member} differ", all[0]);
        }
        for member in behind {
            let size = self.size(*member).await.context("a size of one behind")?.min(shortest);
            let theirs = self.entries(*member, size).await?;
            ensure!(first.starts_with(&theirs), "fork: members {} and {member} differ", all[0]);
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
        let committed = match self.told.lock() {
            Ok(told) => {
                ensure!(told.failures.is_empty(), "not committed: {:?}", told.failures);
                told.committed.clone()
            }
            Err(_) => bail!("a task of this test has panicked"),
        };
        for (number, index) in &committed {
            let found = places.get(&op(*number).to_string());
            ensure!(found == Some(&vec![*index]), "{number} was acknowledged at {index} and stands at {found:?}");
        }
        for member in &all {
            self.receipt_times(*member).await?;
        }
        Ok(shortest)
    }

    /// Verifies every receipt that was handed out against a member's policy: by when each says that its
    /// record existed, in Unix seconds.
    pub async fn receipt_times(&self, member: usize) -> anyhow::Result<Vec<u64>> {
        let receipts = self.told.lock().map(|told| told.receipts.clone()).unwrap_or_default();
        let policies = self.policies(member).await?;
        let digests: BTreeMap<u64, Hash32> =
            policies.iter().map(|(first, policy)| (*first, sha3_256(policy))).collect();
        let Ok(mut verified) = self.verified.lock() else { bail!("a task of this test has panicked") };
        let mut times = Vec::new();
        for (place, (number, entry, receipt)) in receipts.iter().enumerate() {
            let size = checkpoint_size(receipt).context("a receipt names its size")?;
            let (first, digest) = digests.range(..=size).next_back().context("a policy")?;
            if let Some(time) = verified.get(&(place, *digest)) {
                times.push(*time);
                continue;
            }
            let content = content(*number);
            let file = FileFacts { digests: Digests::of(&content), size: content.len() as u64 };
            match verify(Some(&file), entry, receipt, &policies[first]) {
                Verdict::Valid(valid) => {
                    let time = valid.time.context("a receipt without a time")?;
                    verified.insert((place, *digest), time);
                    times.push(time);
                }
                verdict => bail!("receipt of {number}: {verdict}"),
            }
        }
        Ok(times)
    }

    /// Every record of the log is one that was submitted here. To be asked when no submission is
    /// under way that nobody waits for.
    pub async fn check_nothing_invented(&self) -> anyhow::Result<()> {
        let reader = self.present[0];
        let size = self.size(reader).await.context("a size")?;
        let told = self.told.lock().map(|told| told.committed.clone()).unwrap_or_default();
        let known: BTreeSet<String> = told.keys().map(|number| op(*number).to_string()).collect();
        for entry in self.entries(reader, size).await? {
            let entry: Value = serde_json::from_slice(&entry)?;
            if entry["type"] == "evidence" {
                ensure!(entry["op"].as_str().is_some_and(|op| known.contains(op)), "nobody submitted {entry}");
            }
        }
        Ok(())
    }

    /// What `chopmark network evidence` says of a member's node; each piece is checked with Ed25519.
    pub fn evidence(&self, number: usize) -> anyhow::Result<Vec<Equivocation>> {
        let mut command = Command::new(binary());
        let output = command.args(["network", "evidence", "--data"]).arg(&self.members[number].folder).output()?;
        let mut found = Vec::new();
        for line in String::from_utf8(output.stdout)?.lines() {
            let one: Equivocation = serde_json::from_str(line)?;
            ensure!(one.first != one.second, "no contradiction: {line}");
            let key = VerifyingKey::from_bytes(&one.key.0)?;
            for signed in [&one.first, &one.second] {
                let signature = Signature::from_slice(&hex::decode(&signed.signature)?)?;
                key.verify_strict(&hex::decode(&signed.message)?, &signature).context("evidence does not verify")?;
            }
            found.push(one);
        }
        ensure!(output.status.code() == Some(i32::from(!found.is_empty())), "exit code {:?}", output.status);
        Ok(found)
    }

    /// Stops all, and looks at every file of every member.
    pub fn stop_and_check_files(self) -> anyhow::Result<()> {
        for member in self.present.iter().map(|number| &self.members[*number]) {
            ensure!(!member.folder.join("node/equivocations.jsonl").exists(), "{} saw an equivocation", member.domain);
        }
        self.stop_and_fsck()
    }

    /// The same, where equivocations were to be seen.
    pub fn stop_and_fsck(self) -> anyhow::Result<()> {
        for number in self.present.clone() {
            self.stop(number)?;
        }
        for member in self.present.iter().map(|number| &self.members[*number]) {
            let (code, text) =
                crate::fsck_by(&mut Command::new(binary()), &member.folder.join("node"), member.guard.as_os_str())?;
            ensure!(code == 0, "{}: {text}", member.domain);
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
