//! `chopmark doctor`: looks at this machine and a data folder, or at a deployment by its configuration
//! ([`deployment`]), names causes and remedies. It changes nothing, and takes no lock that a starting server
//! would miss for longer than a moment.

mod deployment;
mod files;
mod machine;
mod member;
mod server;

use std::{io::Write as _, process::ExitCode};

use serde::Serialize;

pub(crate) use self::deployment::CANNOT_TELL;
use crate::{
    cli::DoctorArgs,
    client::dev_file,
    output::{Out, plain, shown},
};

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum Status {
    Ok,
    /// Works, but look at it.
    Warn,
    /// Does not work, or must not stay so.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    status: Status,
    /// What was found; the cause, where something is wrong.
    detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, detail: detail.into(), fix: None }
    }

    fn warn(name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, status: Status::Warn, detail: detail.into(), fix: Some(fix.into()) }
    }

    fn fail(name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, status: Status::Fail, detail: detail.into(), fix: Some(fix.into()) }
    }
}

/// Looks at everything.
pub(crate) async fn run(args: &DoctorArgs, out: &mut Out) -> anyhow::Result<ExitCode> {
    if args.findings {
        return deployment::list(args.json, out);
    }
    if let Some(config) = &args.config {
        return deployment::run(config, args, out).await;
    }
    let mut checks = Vec::new();
    let data = args.data.as_path();
    let dev = match dev_file(data) {
        Ok(dev) => dev,
        Err(error) => {
            let fix = "stop the server, remove the file, and start the server again";
            checks.push(Check::fail("dev.json", format!("{error:#}"), fix));
            None
        }
    };
    let running = dev.as_ref().filter(|dev| server::is_alive(dev));
    checks.extend(files::look(data, dev.as_ref(), running.is_some()));
    checks.extend(server::look(data, dev.as_ref(), running).await);
    checks.extend(member::look(data).await);
    checks.extend(machine::look());
    let sound = checks.iter().all(|check| check.status != Status::Fail);
    if args.json {
        out.json(&serde_json::json!({ "ok": sound, "data": shown(data), "checks": checks }))?;
    } else {
        show(out, &checks)?;
    }
    out.flush()?;
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(out: &mut Out, checks: &[Check]) -> anyhow::Result<()> {
    for check in checks {
        let word = match check.status {
            Status::Ok => "OK",
            Status::Warn => "WARN",
            Status::Fail => "FAIL",
        };
        writeln!(out, "{word:<5} {:<12} {}", check.name, plain(&check.detail))?;
        if let Some(fix) = &check.fix {
            writeln!(out, "{:<18} -> {}", "", plain(fix))?;
        }
    }
    let count = |status| checks.iter().filter(|check| check.status == status).count();
    writeln!(out, "\n{} failed, {} warnings", count(Status::Fail), count(Status::Warn))?;
    Ok(())
}
