//! A production deployment of the tests' own: `deploy/native/stack.sh` with real Kafka, PostgreSQL and
//! Redis, four nodes, two committers and two gateways, each a process that a test may kill.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal};
use serde_json::Value;
use tokio::process::Command;

use crate::{Api, binary, client, repository};

/// Roles as the script names them.
pub const NODES: [&str; 4] = ["node-archive", "node-court", "node-notary", "node-operator"];
pub const COMMITTERS: [&str; 2] = ["committer-0", "committer-1"];
pub const GATEWAYS: [&str; 2] = ["gateway-0", "gateway-1"];
pub const COURIER: &str = "courier-0";

/// Other programs may have taken a port meanwhile.
const STARTS_TRIED: u32 = 5;
/// How long a killed process may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// A running stack. Stopped when dropped.
pub struct Stack {
    folder: tempfile::TempDir,
    /// The same API at both gateways: the sandbox's, if there is a live network too.
    pub gateways: [Api; 2],
    /// The live network's.
    pub live: Option<[Api; 2]>,
    /// Read interfaces of the nodes.
    pub nodes: Vec<Api>,
    pub policy: PathBuf,
}

impl Stack {
    /// Starts everything on ports of its own.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(&[], None).await
    }

    /// With a live network beside the sandbox.
    pub async fn start_live() -> anyhow::Result<Self> {
        Self::start_with(&["--live"], None).await
    }

    /// With another filter of what is logged.
    pub async fn start_logging(filter: &str) -> anyhow::Result<Self> {
        Self::start_with(&[], Some(filter)).await
    }

    async fn start_with(options: &[&str], logging: Option<&str>) -> anyhow::Result<Self> {
        let mut last = String::new();
        for attempt in 0..STARTS_TRIED {
            let folder = tempfile::Builder::new().prefix("chopmark-stack.").tempdir_in("/var/tmp")?;
            // PostgreSQL runs as a user of its own.
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711))?;
            // Below the ports that the system hands out.
            let base = 20_000 + (std::process::id() + attempt * 17) % 60 * 200;
            let base = base.to_string();
            let arguments = [&["start", "--port-base", &base], options].concat();
            let mut command = command("stack.sh", folder.path(), &arguments);
            if let Some(filter) = logging {
                command.env("CHOPMARK_LOG", filter);
            }
            let started = command.output().await.context("run stack.sh")?;
            if started.status.success() {
                return Self::of(folder);
            }
            last = String::from_utf8_lossy(&started.stderr).into_owned();
            let _stopped = script("stack.sh", folder.path(), &["stop"]).await?;
            if !last.contains("taken") && !last.contains("listen on") {
                break;
            }
        }
        bail!("the stack does not start: {last}")
    }

    fn of(folder: tempfile::TempDir) -> anyhow::Result<Self> {
        let described: Value = serde_json::from_slice(&fs::read(folder.path().join("dev.json"))?)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (http, key) = (client()?, text(&described["api_key"]));
        let api = |base: String, key: &str| Api { base, key: key.to_owned(), http: http.clone() };
        let gateways = |described: &Value| {
            let (first, key) = (text(&described["base_url"]), text(&described["api_key"]));
            let mut second = reqwest::Url::parse(&first)?;
            let port = second.port().context("a port")? + 1;
            let _set = second.set_port(Some(port));
            let second = second.as_str().trim_end_matches('/').to_owned();
            anyhow::Ok([api(first, &key), api(second, &key)])
        };
        let live = match fs::read(folder.path().join("live.json")) {
            Ok(live) => Some(gateways(&serde_json::from_slice(&live)?)?),
            Err(_) => None,
        };
        let nodes = described["nodes"].as_array().into_iter().flatten();
        Ok(Self {
            gateways: gateways(&described)?,
            live,
            nodes: nodes.map(|node| api(text(&node["read_url"]), &key)).collect(),
            policy: text(&described["policy_path"]).into(),
            folder,
        })
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// SIGKILL to a role; one that does not run is left alone.
    pub async fn kill(&self, role: &str) -> anyhow::Result<()> {
        self.kill_by(&self.folder().join(format!("{role}.pid"))).await
    }

    /// Starts roles again, and waits until they are well.
    pub async fn start_again(&self, roles: &[&str]) -> anyhow::Result<()> {
        self.run("stack.sh", &[&["start"], roles].concat()).await
    }

    /// Clean stop of a role.
    pub async fn stop_role(&self, role: &str) -> anyhow::Result<()> {
        self.run("stack.sh", &["stop", role]).await
    }

    /// SIGKILL to `kafka`, `postgres` or `redis`.
    pub async fn kill_server(&self, server: &str) -> anyhow::Result<()> {
        self.kill_by(&self.servers().join(format!("{server}.pid"))).await
    }

    /// Starts a server again, and waits until it answers.
    pub async fn start_server(&self, server: &str) -> anyhow::Result<()> {
        let started = script("servers.sh", &self.servers(), &["start", server]).await?;
        ensure!(started.status.success(), "{server}: {}", String::from_utf8_lossy(&started.stderr));
        Ok(())
    }

    /// Empties the cache, if it is there.
    pub async fn flush_redis(&self) -> anyhow::Result<()> {
        Command::new("redis-cli").args(["-u", &self.server("REDIS")?, "FLUSHALL"]).output().await?;
        Ok(())
    }

    /// Gives Prometheus these alert rules in place of its own.
    pub fn set_rules(&self, rules: &str) -> anyhow::Result<()> {
        fs::write(self.servers().join("prometheus/rules/alerts.yaml"), rules)?;
        let pid = fs::read_to_string(self.servers().join("prometheus.pid"))?;
        Ok(rustix::process::kill_process(Pid::from_raw(pid.trim().parse()?).context("a pid")?, Signal::HUP)?)
    }

    /// Kills a server and starts it again with a variable in its environment.
    pub async fn restart_server(&self, server: &str, (variable, value): (&str, &Path)) -> anyhow::Result<()> {
        self.kill_server(server).await?;
        let mut command = command("servers.sh", &self.servers(), &["start", server]);
        let started = command.env(variable, value).output().await?;
        ensure!(started.status.success(), "{server}: {}", String::from_utf8_lossy(&started.stderr));
        Ok(())
    }

    /// Address of a server, by its name in `servers.env`.
    pub fn server(&self, name: &str) -> anyhow::Result<String> {
        let text = fs::read_to_string(self.servers().join("servers.env"))?;
        let addresses = text.lines().filter_map(|line| line.split_once('='));
        let found = addresses.into_iter().find(|(known, _)| *known == name).map(|(_, address)| address.to_owned());
        found.with_context(|| format!("servers.env names no {name}"))
    }

    /// `chopmark admin` with these arguments; what it printed, or what it said of its failure.
    pub async fn admin(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.admin_of("admin.toml", arguments).await
    }

    /// The same with another configuration of the stack.
    pub async fn admin_of(&self, config: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let config = self.folder().join(config);
        let mut command = Command::new(binary());
        let output = command.arg("admin").args(arguments).arg("--config").arg(config).output().await?;
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
    }

    /// The tenant of the stack's API key.
    pub const TENANT: &str = "ten_native";

    /// Adds a tenant, with the approval of all members.
    pub async fn add_tenant(&self, tenant: &str) -> anyhow::Result<()> {
        let key = |node: &str| format!("net/{}.localhost/keys/governance.pem", node.trim_start_matches("node-"));
        let keys = NODES.map(|node| self.folder().join(key(node)).display().to_string());
        let approvals = keys.iter().flat_map(|key| ["--approve-with", key]);
        let arguments: Vec<&str> = ["tenant", "create", tenant].into_iter().chain(approvals).collect();
        self.admin(&arguments).await.map(drop)
    }

    /// Runs SQL in the deployment's database, as the server's superuser.
    pub async fn sql(&self, statements: &str) -> anyhow::Result<()> {
        let server = self.server("POSTGRES")?;
        let url = format!("{}/chopmark", server.trim_end_matches("/postgres"));
        let mut command = Command::new("psql");
        command.args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--command", statements]).arg(url);
        let output = command.output().await.context("run psql")?;
        ensure!(output.status.success(), "{statements}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Log of a role, for what a failure has to show.
    pub fn log(&self, role: &str) -> String {
        fs::read_to_string(self.folder().join(format!("{role}.log"))).unwrap_or_default()
    }

    /// Folder of the servers.
    pub fn servers(&self) -> PathBuf {
        self.folder().join("servers")
    }

    async fn run(&self, name: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let output = script(name, self.folder(), arguments).await?;
        ensure!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    async fn kill_by(&self, file: &Path) -> anyhow::Result<()> {
        let Ok(text) = fs::read_to_string(file) else { return Ok(()) };
        let pid = Pid::from_raw(text.trim().parse()?).context("a pid")?;
        if rustix::process::kill_process(pid, Signal::KILL).is_err() {
            return Ok(());
        }
        // Nobody here is its parent; it is gone when its program is.
        let program = format!("/proc/{}/exe", text.trim());
        let asked = Instant::now();
        while fs::read_link(&program).is_ok() {
            ensure!(asked.elapsed() < KILL_TIMEOUT, "{} is still there", file.display());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

async fn script(name: &str, folder: &Path, arguments: &[&str]) -> anyhow::Result<Output> {
    command(name, folder, arguments).output().await.with_context(|| format!("run {name}"))
}

fn command(name: &str, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(repository().join("deploy/native").join(name));
    command.args(arguments).arg("--data").arg(folder).env("CHOPMARK", binary());
    // What runs on must not hold the pipes of whoever started it.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

impl Drop for Stack {
    fn drop(&mut self) {
        let mut command = std::process::Command::new(repository().join("deploy/native/stack.sh"));
        command.arg("stop").arg("--data").arg(self.folder.path()).env("CHOPMARK", binary());
        let _stopped = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if std::thread::panicking() {
            // The logs are what explains it.
            self.folder.disable_cleanup(true);
            eprintln!("the stack's logs are in {}", self.folder.path().display());
        }
    }
}
