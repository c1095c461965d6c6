//! `chopmark doctor --config`: looks at a deployment as one of its roles would find it when it starts, and
//! names every fault with cause and remedy. Changes nothing, and waits for nobody without a bound.

mod cache;
mod clock;
mod database;
mod fault;
mod files;
mod listeners;
mod nodes;
mod queue;
mod settings;
mod tls;

use std::{fmt, io::Write as _, path::Path, process::ExitCode, time::Duration};

use anyhow::bail;
use serde::Serialize;

use self::fault::{Entry, Fault, Severity};
use crate::{
    cli::{DoctorArgs, DoctorRole},
    config::Configured,
    output::{Out, Usage, plain, shown},
};

/// Longest look at one dependency: what any of them waits for by itself, and more.
const LOOK_TIMEOUT: Duration = Duration::from_secs(40);
/// Something could not be looked at, and nothing else is wrong.
pub(crate) const CANNOT_TELL: u8 = 2;

/// A fault where it was found.
#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    severity: Severity,
    /// Key of the configuration, file, node or topic.
    about: String,
    /// What was found. Never a secret.
    detail: String,
    cause: &'static str,
    fix: &'static str,
}

/// What has been found so far.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, fault: Fault, about: impl fmt::Display, detail: impl fmt::Display) {
        let Entry { name, severity, cause, fix } = fault.entry();
        let (about, detail) = (plain(&about.to_string()), plain(&detail.to_string()));
        self.0.push(Finding { name, severity, about, detail, cause, fix });
    }

    fn of(fault: Fault, about: impl fmt::Display, detail: impl fmt::Display) -> Self {
        let mut findings = Self::default();
        findings.add(fault, about, detail);
        findings
    }

    fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    fn has(&self, severity: Severity) -> bool {
        self.0.iter().any(|finding| finding.severity == severity)
    }

    fn code(&self) -> ExitCode {
        if self.has(Severity::Fail) {
            ExitCode::FAILURE
        } else if self.has(Severity::Unknown) {
            ExitCode::from(CANNOT_TELL)
        } else {
            ExitCode::SUCCESS
        }
    }
}

/// Lists all that may be found.
pub(super) fn list(json: bool, out: &mut Out) -> anyhow::Result<ExitCode> {
    let entries: Vec<Entry> = Fault::ALL.iter().map(|fault| fault.entry()).collect();
    if json {
        out.json(&entries)?;
    } else {
        for Entry { name, severity, cause, fix } in entries {
            writeln!(out, "{:<7} {name}\n        {cause}\n     -> {fix}", severity.as_str().to_uppercase())?;
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// Looks at everything that the role in `args`, or the only one of the file, needs.
pub(super) async fn run(config: &Path, args: &DoctorArgs, out: &mut Out) -> anyhow::Result<ExitCode> {
    let (role, findings) = match Configured::read(config) {
        Ok(configured) => {
            let role = role(&configured, args.role)?;
            (Some(role), look(&configured, role, args.api_key_file.as_deref()).await)
        }
        Err(error) => (args.role, settings::refused(config, &error)),
    };
    let code = findings.code();
    if args.json {
        let ok = !findings.has(Severity::Fail) && !findings.has(Severity::Unknown);
        let role = role.map(DoctorRole::as_str);
        out.json(
            &serde_json::json!({ "v": 1, "ok": ok, "config": shown(config), "role": role, "findings": findings.0 }),
        )?;
    } else {
        show(&findings, out)?;
    }
    out.flush()?;
    Ok(code)
}

/// A file for several roles does not say which of them runs here, and in the database each is another.
fn role(configured: &Configured, named: Option<DoctorRole>) -> anyhow::Result<DoctorRole> {
    if let Some(role) = named {
        return Ok(role);
    }
    let config = &configured.config;
    let there = [
        (DoctorRole::Gateway, config.gateway.is_some()),
        (DoctorRole::Committer, config.committer.is_some()),
        (DoctorRole::Courier, config.courier.is_some()),
    ];
    let mut there = there.into_iter().filter(|(_, is_there)| *is_there).map(|(role, _)| role);
    match (there.next(), there.next()) {
        (None, _) => Ok(DoctorRole::Admin),
        (Some(role), None) => Ok(role),
        (Some(_), Some(_)) => bail!(Usage("the file has tables for several roles: say which with --role".to_owned())),
    }
}

async fn look(configured: &Configured, role: DoctorRole, api_key: Option<&Path>) -> Findings {
    // Fails only where a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut findings = settings::look(configured, role, api_key);
    findings.extend(files::look(configured, role));
    findings.extend(tls::look(configured, role));
    findings.extend(listeners::look(configured, role).await);
    let sandbox = configured.sandbox().filter(|_| role == DoctorRole::Gateway);
    let beside = async {
        match &sandbox {
            Some(sandbox) => network(sandbox, role).await,
            None => Findings::default(),
        }
    };
    let (database, cache, network, beside) = tokio::join!(
        bounded(Fault::DatabaseHangs, "database", database::look(configured, role)),
        bounded(Fault::CacheHangs, "cache", cache::look(configured, role)),
        network(configured, role),
        beside,
    );
    for found in [database, cache, network, beside] {
        findings.extend(found);
    }
    findings
}

/// One network's part of queue and ledger.
async fn network(configured: &Configured, role: DoctorRole) -> Findings {
    let (genesis, nodes) = (configured.genesis().ok(), format!("{}.nodes", configured.ledger_table));
    let (mut queue, nodes) = tokio::join!(
        bounded(Fault::KafkaHangs, "kafka", queue::look(configured, role, genesis.as_ref())),
        bounded(Fault::NodeHangs, &nodes, nodes::look(configured, role, genesis.as_ref())),
    );
    queue.extend(nodes);
    queue
}

async fn bounded(hangs: Fault, about: &str, look: impl Future<Output = Findings>) -> Findings {
    match tokio::time::timeout(LOOK_TIMEOUT, look).await {
        Ok(findings) => findings,
        Err(_) => Findings::of(hangs, about, format!("no answer in {} s", LOOK_TIMEOUT.as_secs())),
    }
}

fn show(findings: &Findings, out: &mut Out) -> anyhow::Result<()> {
    for Finding { name, severity, about, detail, cause, fix } in &findings.0 {
        writeln!(out, "{:<7} {name}  {about}: {detail}", severity.as_str().to_uppercase())?;
        writeln!(out, "        {cause}\n     -> {fix}")?;
    }
    let count = |severity| findings.0.iter().filter(|finding| finding.severity == severity).count();
    let (failed, warned) = (count(Severity::Fail), count(Severity::Warn));
    writeln!(out, "{failed} failed, {warned} warnings, {} unknown", count(Severity::Unknown))?;
    Ok(())
}
