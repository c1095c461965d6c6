//! Black-box tests: the built binary, real files, real kills, HTTP as a customer speaks it.
//!
//! This library is the harness: a running `chopmark dev` in a temporary folder.

pub mod byzantine;
pub mod cables;
pub mod members;
pub mod proxy;
pub mod stack;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use ledger_core::{
    checkpoint::Checkpoint,
    note::Note,
    tile::{TileKind, TilePath, decode_bundle},
};
use serde_json::Value;

/// Path of the binary under test, built in the same target directory as this test.
pub fn binary() -> PathBuf {
    let mut path = std::env::current_exe().expect("the path of this test");
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    let path = path.join("chopmark");
    assert!(path.exists(), "{} is not built: run `cargo build -p chopmark` first", path.display());
    path
}

/// Root of the repository.
pub fn repository() -> PathBuf {
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("run by cargo"))
        .join("..")
        .canonicalize()
        .expect("the repository")
}

/// The API of a gateway.
#[derive(Clone)]
pub struct Api {
    pub base: String,
    pub key: String,
    pub http: reqwest::Client,
}

/// A running `chopmark dev`. Killed when dropped.
pub struct Dev {
    child: Child,
    api: Api,
    pub data: PathBuf,
    pub metrics: String,
    pub policy: PathBuf,
    /// Domain and read address of every member's node.
    pub nodes: Vec<(String, String)>,
}

/// An answer: status and JSON body (a string if it is no JSON).
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

/// How long a start may take on a busy machine before a test gives up.
const START_TIMEOUT: Duration = Duration::from_secs(60);

fn node(node: &Value) -> (String, String) {
    let text = |key: &str| node[key].as_str().unwrap_or_default().to_owned();
    (text("member"), text("read_url"))
}

impl Dev {
    /// Starts on the folder `data` and waits until it is ready.
    pub async fn start(data: &Path) -> anyhow::Result<Self> {
        Self::start_by(&mut Command::new(binary()), data, data).await
    }

    /// Starts a network of several members.
    pub async fn start_members(data: &Path, members: usize) -> anyhow::Result<Self> {
        Self::start_with(&mut Command::new(binary()), data, data, members).await
    }

    /// Starts by `command`, which ends in the path of the binary. `seen` is where this process finds
    /// the folder that the server calls `data`.
    async fn start_by(command: &mut Command, data: &Path, seen: &Path) -> anyhow::Result<Self> {
        Self::start_with(command, data, seen, 1).await
    }

    async fn start_with(command: &mut Command, data: &Path, seen: &Path, members: usize) -> anyhow::Result<Self> {
        let log = fs::OpenOptions::new().create(true).append(true).open(data.with_extension("log"))?;
        let address = own_address();
        let mut child = command
            .args(["dev", "--members", &members.to_string(), "--listen", &format!("{address}:18080")])
            .args(["--metrics-listen", &format!("{address}:18480"), "--data"])
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("start chopmark dev")?;
        let started = Instant::now();
        let file = loop {
            if let Some(status) = child.try_wait()? {
                let log = fs::read_to_string(data.with_extension("log")).unwrap_or_default();
                bail!("chopmark dev ended with {status}: {}", log.lines().rev().take(5).collect::<Vec<_>>().join("\n"));
            }
            let file =
                fs::read(seen.join("dev.json")).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
            if let Some(file) = file.filter(|file| file["pid"] == child.id()) {
                break file;
            }
            if started.elapsed() > START_TIMEOUT {
                let _ended = child.kill();
                bail!("chopmark dev is not ready after {START_TIMEOUT:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let text = |key: &str| file[key].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            child,
            api: Api { base: text("base_url"), key: text("api_key"), http: client()? },
            data: data.to_owned(),
            metrics: text("metrics_url"),
            policy: text("policy_path").into(),
            nodes: file["nodes"].as_array().into_iter().flatten().map(node).collect(),
        })
    }

    /// SIGKILL: nothing gets a chance to tidy up.
    pub fn kill(mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }

    /// SIGTERM, and waits for a clean end.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "chopmark dev ended with {status}");
        Ok(())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl std::ops::Deref for Dev {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

impl Api {
    /// POST of JSON with an idempotency key; `wait` seconds for the commit.
    pub async fn post(&self, path: &str, key: &str, wait: u32, body: &Value) -> reqwest::Result<Answer> {
        let request =
            self.http.post(format!("{}{path}", self.base)).bearer_auth(&self.key).header("Idempotency-Key", key);
        let request = if wait > 0 { request.header("Prefer", format!("wait={wait}")) } else { request };
        Answer::of(request.json(body).send().await?).await
    }

    /// GET with the API key.
    pub async fn get(&self, path: &str) -> reqwest::Result<Answer> {
        Answer::of(self.http.get(format!("{}{path}", self.base)).bearer_auth(&self.key).send().await?).await
    }

    /// GET without a key, as bytes.
    pub async fn public(&self, path: &str) -> reqwest::Result<(u16, Vec<u8>)> {
        let answer = self.http.get(format!("{}{path}", self.base)).send().await?;
        Ok((answer.status().as_u16(), answer.bytes().await?.to_vec()))
    }

    /// GET with the API key, as bytes.
    pub async fn bytes(&self, path: &str) -> reqwest::Result<(u16, Vec<u8>)> {
        let answer = self.http.get(format!("{}{path}", self.base)).bearer_auth(&self.key).send().await?;
        Ok((answer.status().as_u16(), answer.bytes().await?.to_vec()))
    }

    /// Evidence by its SHA-256 digest, waiting for the commit.
    pub async fn notarize(&self, key: &str, content: &[u8]) -> reqwest::Result<Answer> {
        self.post("/v1/evidence", key, 30, &evidence(content)).await
    }

    /// Records one file for each number, in batches, and waits until all are committed.
    pub async fn fill(&self, numbers: std::ops::Range<u64>) -> anyhow::Result<()> {
        let numbers: Vec<u64> = numbers.collect();
        let mut operations = Vec::new();
        for chunk in numbers.chunks(1000) {
            let item = |number: &u64| {
                let mut body = evidence(format!("file {number}").as_bytes());
                body["idempotency_key"] = Value::String(format!("fill-{number}"));
                body
            };
            let items: Vec<Value> = chunk.iter().map(item).collect();
            let answer = self.post("/v1/evidence/batch", "unused", 0, &serde_json::json!({ "items": items })).await?;
            ensure!(answer.status < 300, "{}", answer.body);
            let last = answer.body["items"][chunk.len() - 1]["operation"]["id"].as_str().context("an operation")?;
            operations.push(last.to_owned());
        }
        for operation in operations {
            ensure!(self.ended(&operation).await?["state"] == "committed", "{operation} is not committed");
        }
        Ok(())
    }

    /// Waits until an operation has ended; its view.
    pub async fn ended(&self, operation: &str) -> anyhow::Result<Value> {
        for _ in 0..3000 {
            let answer = self.get(&format!("/v1/operations/{operation}")).await?;
            if answer.status == 200 && answer.body["state"] != "accepted" {
                return Ok(answer.body);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("operation {operation} has not ended")
    }

    /// Every entry that the log serves, in order.
    pub async fn entries(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        let (_, note) = self.public("/log/checkpoint").await?;
        let note = Note::parse(std::str::from_utf8(&note)?)?;
        let size = Checkpoint::parse(&note.text)?.size.0;
        let mut entries = Vec::new();
        for bundle in 0..size.div_ceil(256) {
            let width = u16::try_from((size - bundle * 256).min(256))?;
            let path = TilePath { kind: TileKind::Entries, index: bundle, width }.path();
            let (status, bytes) = self.public(&format!("/log/{path}")).await?;
            ensure!(status == 200, "{path}: {status}");
            let bundle = decode_bundle(&bytes, usize::from(width)).map_err(|_| anyhow::anyhow!("{path}: no bundle"))?;
            entries.extend(bundle.into_iter().map(<[u8]>::to_vec));
        }
        Ok(entries)
    }

    /// The content of each key stands in the log at one position, and no content at two.
    pub async fn exactly_once(&self, keys: impl Iterator<Item = &String>) -> anyhow::Result<()> {
        let mut times: BTreeMap<String, u32> = BTreeMap::new();
        for entry in self.entries().await? {
            let entry: Value = serde_json::from_slice(&entry)?;
            if let Some(digest) = entry["digests"]["sha256"].as_str() {
                *times.entry(digest.to_owned()).or_default() += 1;
            }
        }
        for key in keys {
            let found = times.get(&sha256(key.as_bytes()));
            ensure!(found == Some(&1), "{key} was acknowledged and stands in the log {found:?} times");
        }
        let doubled = times.iter().find(|(_, times)| **times > 1);
        ensure!(doubled.is_none(), "one content at several positions: {doubled:?}");
        Ok(())
    }
}

/// A loopback address that no other server of this process gets: whoever still asks a killed server
/// must not reach the one of another test.
fn own_address() -> std::net::Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let [_, _, high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let [.., process] = std::process::id().to_be_bytes();
    std::net::Ipv4Addr::new(127, 64 + process % 128, high, low.max(1))
}

fn client() -> reqwest::Result<reqwest::Client> {
    // Several tests of one process install it; the first counts.
    let _installed_before = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().timeout(Duration::from_secs(60)).build()
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Answer {
    async fn of(answer: reqwest::Response) -> reqwest::Result<Self> {
        let status = answer.status().as_u16();
        let text = answer.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok(Self { status, body })
    }
}

/// A small file system in memory that only processes started by it see. Gone when dropped.
pub struct SmallDisk {
    holder: Child,
    mounted: PathBuf,
}

impl SmallDisk {
    /// Mounts it on `folder`; `None` if this user may not.
    pub fn mount(folder: &Path, mebibytes: u32) -> anyhow::Result<Option<Self>> {
        let script = format!("mount -t tmpfs -o size={mebibytes}m none \"$0\" && echo mounted && exec cat");
        let mut holder = Command::new("unshare")
            .args(["-m", "sh", "-c", &script])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("unshare")?;
        let mut line = String::new();
        let output = holder.stdout.take().context("output of unshare")?;
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line)?;
        if line != "mounted\n" {
            holder.wait()?;
            return Ok(None);
        }
        Ok(Some(Self { holder, mounted: folder.to_owned() }))
    }

    /// Where this process finds `path`, which lies on the disk.
    pub fn seen(&self, path: &Path) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.holder.id())).join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mounted
    }

    /// A command that sees the disk and ends in the path of the binary under test.
    pub fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-m", "-t", &self.holder.id().to_string()]).arg(binary());
        command
    }

    /// A server whose data lie on the disk.
    pub async fn start(&self, data: &Path) -> anyhow::Result<Dev> {
        Dev::start_by(&mut self.command(), data, &self.seen(data)).await
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _killed = self.holder.kill();
        let _reaped = self.holder.wait();
    }
}

/// Fills the file system of `path`, and leaves a little room: not every writer fails at once.
pub fn fill_up(path: &Path) {
    use std::io::Write as _;
    let mut file = fs::File::create(path).expect("a file");
    for block in [1 << 20, 1 << 12, 1] {
        while file.write_all(&vec![1; block]).is_ok() {}
    }
    let len = file.metadata().expect("its length").len();
    file.set_len(len - (64 << 10)).expect("room");
}

/// Request body of plain evidence with one digest.
pub fn evidence(content: &[u8]) -> Value {
    serde_json::json!({ "digests": { "sha256": sha256(content) }, "size": content.len() })
}

/// SHA-256 as hexadecimal text.
pub fn sha256(content: &[u8]) -> String {
    use sha2::Digest as _;
    hex::encode(sha2::Sha256::digest(content))
}

/// Runs V1, the shell verifier: its last line and exit code.
pub fn verify_sh(file: &Path, entry: &Path, receipt: &Path, policy: &Path) -> anyhow::Result<(String, i32)> {
    last_line(
        Command::new("bash").arg(repository().join("schemas/verifier/verify.sh")).args([file, entry, receipt, policy]),
    )
}

/// Runs `chopmark verify`: its last line and exit code.
pub fn verify(file: &Path, entry: &Path, receipt: &Path, policy: &Path) -> anyhow::Result<(String, i32)> {
    last_line(
        Command::new(binary())
            .arg("verify")
            .arg(file)
            .args(["--entry".as_ref(), entry.as_os_str(), "--receipt".as_ref(), receipt.as_os_str()])
            .args(["--policy".as_ref(), policy.as_os_str()]),
    )
}

/// Builds the Go verifier (V2) once and runs it.
pub fn verify_v2(file: &Path, entry: &Path, receipt: &Path, policy: &Path) -> anyhow::Result<(String, i32)> {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| {
        let program = binary().with_file_name("v2");
        let mut build = Command::new("go");
        build.args(["build", "-o"]).arg(&program).arg(".").current_dir(repository().join("tests/v2"));
        assert!(build.status().expect("go runs").success(), "go build of tests/v2");
        program
    });
    last_line(Command::new(program).args([file, entry, receipt, policy]))
}

/// Last line of a command's standard output, and its exit code.
pub fn last_line(command: &mut Command) -> anyhow::Result<(String, i32)> {
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let code = output.status.code().context("ended by a signal")?;
    Ok((text.lines().last().unwrap_or_default().to_owned(), code))
}

/// `chopmark fsck` over a data folder: exit code and output.
pub fn fsck(data: &Path) -> anyhow::Result<(i32, String)> {
    let mut guard = data.as_os_str().to_owned();
    guard.push(".guard");
    fsck_by(&mut Command::new(binary()), data, &guard)
}

/// `chopmark fsck` by a command that ends in the path of the binary.
pub fn fsck_by(command: &mut Command, data: &Path, guard: &std::ffi::OsStr) -> anyhow::Result<(i32, String)> {
    let output = command.arg("fsck").arg(data).arg("--guard").arg(guard).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Ok((output.status.code().context("ended by a signal")?, text))
}

/// A generator whose seed is printed, so that a failure can be run again with `SEED=…`. An ordinary run
/// takes the seed that belongs to the name, and so the same one every time: what a change did not cause
/// does not fail its checks. A long run draws a new one.
pub fn seeded(name: &str) -> rand_chacha::ChaCha8Rng {
    use rand::SeedableRng as _;
    use sha2::Digest as _;
    let own = || {
        let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(sha2::Sha256::digest(name));
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    };
    let given = std::env::var("SEED").ok().map(|seed| seed.parse().expect("SEED is a number"));
    let seed = given.unwrap_or_else(|| if long() { rand::random() } else { own() });
    tally(name, &format!("SEED={seed}"));
    rand_chacha::ChaCha8Rng::seed_from_u64(seed)
}

/// Prints what a test does and has done, for the note of a long run.
#[expect(clippy::print_stdout, reason = "seed and tally must be in the test's output")]
pub fn tally(name: &str, done: &str) {
    println!("{name}: {done}");
}

/// Whether the long runs were asked for.
pub fn long() -> bool {
    std::env::var("LONG").is_ok_and(|long| long == "1")
}
