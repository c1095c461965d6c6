//! A running deployment, and configurations that differ from its own in what a case says.

use std::{
    any::Any,
    collections::BTreeMap,
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use chopmark_tests::{binary, stack::Stack};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};
use serde_json::Value;

use crate::cases::Case;

/// What a case changes at a server may take a moment to hold everywhere.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(500);
/// Open files that no check minds.
const FILES: u32 = 4096;
/// A topic of a network that the deployment is not of.
const TOPIC: &str = "chopmark.live.operations.v1";

pub(crate) struct Bench {
    pub(crate) stack: Stack,
    /// What a node says of itself.
    pub(crate) status: Value,
    may_mount: bool,
}

/// A configuration as a case has it, and how doctor is run on it.
pub(crate) struct Draft {
    pub(crate) table: toml::Table,
    /// In place of the table.
    pub(crate) raw: Option<Vec<u8>>,
    pub(crate) mode: u32,
    /// In place of a file.
    pub(crate) path: Option<PathBuf>,
    pub(crate) arguments: Vec<String>,
    pub(crate) files: u32,
    /// A file system in memory over a folder, with these options.
    pub(crate) mount: Option<(&'static str, String)>,
    /// Statements, and those that take them back.
    pub(crate) sql: (&'static [&'static str], &'static [&'static str]),
    /// Settings with which [`TOPIC`] is made for the time of the case.
    pub(crate) topic: Option<&'static [(&'static str, &'static str)]>,
    /// A folder of locales with which the database server is started anew.
    pub(crate) locales: Option<PathBuf>,
    /// Servers that are needed until the end.
    pub(crate) kept: Vec<Box<dyn Any + Send>>,
}

/// What doctor said.
pub(crate) struct Report {
    pub(crate) code: i32,
    pub(crate) findings: Vec<Value>,
    pub(crate) text: String,
}

impl Report {
    pub(crate) fn names(&self) -> Vec<String> {
        self.findings.iter().map(|finding| finding["name"].as_str().unwrap().to_owned()).collect()
    }
}

impl Draft {
    /// The configuration of a process of the deployment.
    pub(crate) fn of(bench: &Bench, name: &str) -> Self {
        let text = fs::read_to_string(bench.stack.folder().join(format!("{name}.toml"))).unwrap();
        Self {
            table: text.parse().unwrap(),
            raw: None,
            mode: 0o600,
            path: None,
            arguments: Vec::new(),
            files: FILES,
            mount: None,
            sql: (&[], &[]),
            topic: None,
            locales: None,
            kept: Vec::new(),
        }
    }

    /// Sets `SECTION.KEY`, or a key of a table within: `kafka.tls.ca`.
    pub(crate) fn set(&mut self, key: &str, value: impl Into<toml::Value>) {
        let (tables, key) = key.rsplit_once('.').unwrap();
        let mut table = &mut self.table;
        for name in tables.split('.') {
            let entry = table.entry(name).or_insert_with(|| toml::Table::new().into());
            table = entry.as_table_mut().unwrap();
        }
        table.insert(key.to_owned(), value.into());
    }

    pub(crate) fn keep(&mut self, server: impl Any + Send) {
        self.kept.push(Box::new(server));
    }
}

impl Bench {
    pub(crate) async fn start() -> Self {
        let stack = Stack::start().await.unwrap();
        let text = fs::read_to_string(stack.folder().join("gateway-0.toml")).unwrap();
        let table: toml::Table = text.parse().unwrap();
        let node = table["ledger"]["nodes"][0].as_str().unwrap();
        let answer = stack.gateways[0].http.get(format!("{node}/internal/v1/status")).send().await.unwrap();
        let status: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        let mut mount = Command::new("unshare");
        mount.args(["-m", "mount", "-t", "tmpfs", "none"]).arg(stack.folder().join("originals"));
        let may_mount = mount.output().is_ok_and(|output| output.status.success());
        Self { stack, status, may_mount }
    }

    /// A path below the deployment's folder, as text.
    pub(crate) fn path(&self, name: &str) -> String {
        self.stack.folder().join(name).to_str().unwrap().to_owned()
    }

    /// Makes a file below the deployment's folder; its path.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>, mode: u32) -> String {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    /// Address of PostgreSQL, `HOST:PORT`.
    pub(crate) fn postgres(&self) -> String {
        self.stack.server("POSTGRES").unwrap().split(['@', '/']).nth(3).unwrap().to_owned()
    }

    /// Every fault that doctor may name, with its severity.
    pub(crate) fn listed(&self) -> BTreeMap<String, String> {
        let output = Command::new(binary()).args(["doctor", "--findings", "--json"]).output().unwrap();
        let listed: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        listed.iter().map(|entry| (text(&entry["name"]), text(&entry["severity"]))).collect()
    }

    /// What doctor says of a case. `None`: this user may not mount, and this is not where that is a failure.
    pub(crate) async fn seed(&self, case: &Case) -> Option<Report> {
        let mut draft = Draft::of(self, case.configuration);
        (case.seed)(self, &mut draft);
        if draft.mount.is_some() && !self.may_mount {
            assert!(env::var_os("CI").is_none(), "{:?} need a mount", case.names);
            eprintln!("SKIPPED: {:?}: this user may not mount", case.names);
            return None;
        }
        self.change(&draft).await;
        let is_named = |report: &Report| {
            let found = report.names();
            case.names.iter().all(|name| found.iter().any(|found| found == name))
        };
        let report = self.doctor_until(&draft, is_named).await;
        self.restore(&draft).await;
        Some(report)
    }

    async fn change(&self, draft: &Draft) {
        if let Some(locales) = &draft.locales {
            self.stack.restart_server("postgres", ("LOCPATH", locales)).await.unwrap();
        }
        for statements in draft.sql.0 {
            self.stack.sql(statements).await.unwrap();
        }
        if let Some(settings) = draft.topic {
            let mut topic = NewTopic::new(TOPIC, 4, TopicReplication::Fixed(1));
            for (name, value) in settings {
                topic = topic.set(name, value);
            }
            let made = self.kafka().create_topics(&[topic], &AdminOptions::new()).await.unwrap();
            assert!(made.iter().all(Result::is_ok), "{made:?}");
        }
    }

    async fn restore(&self, draft: &Draft) {
        for statements in draft.sql.1 {
            self.stack.sql(statements).await.unwrap();
        }
        if draft.topic.is_some() {
            self.kafka().delete_topics(&[TOPIC], &AdminOptions::new()).await.unwrap();
        }
    }

    fn kafka(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", self.stack.server("KAFKA").unwrap()).create().unwrap()
    }

    /// Runs doctor until `is_done`, or as often as it may be asked; the last report.
    pub(crate) async fn doctor_until(&self, draft: &Draft, is_done: impl Fn(&Report) -> bool) -> Report {
        let mut report = self.doctor(draft).await;
        for _ in 1..TRIES {
            if is_done(&report) {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            report = self.doctor(draft).await;
        }
        report
    }

    async fn doctor(&self, draft: &Draft) -> Report {
        let path = draft.path.clone().unwrap_or_else(|| {
            let text = draft.raw.clone().unwrap_or_else(|| toml::to_string(&draft.table).unwrap().into_bytes());
            self.file("case.toml", text, draft.mode).into()
        });
        let mut command = match &draft.mount {
            Some((options, folder)) => {
                let script = r#"mount -t tmpfs -o "$0" none "$1" && shift && exec "$@""#;
                let mut command = Command::new("unshare");
                command.args(["-m", "sh", "-c", script, options, folder, "sh"]);
                command
            }
            None => Command::new("sh"),
        };
        let limited = r#"ulimit -S -n "$0" && exec "$@""#;
        command.args(["-c", limited, &draft.files.to_string()]).arg(binary());
        command.args(["doctor", "--json", "--config"]).arg(path).args(&draft.arguments);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = [output.stdout.as_slice(), &output.stderr].map(String::from_utf8_lossy).concat();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {text}"));
        let findings = report["findings"].as_array().unwrap().clone();
        Report { code: output.status.code().unwrap(), findings, text }
    }
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
