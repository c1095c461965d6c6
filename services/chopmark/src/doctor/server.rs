//! The server: whether it runs, answers, is healthy, and whether the clock agrees with what was
//! signed.

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    time::Duration,
};

use chopmark_api::{network::HealthView, time::Timestamp};
use chopmark_node::guard::Guard;
use ledger_core::{
    policy_file::PolicyFile,
    verify::{SignedCheckpoint, rfc3339_seconds},
};
use rustix::process::{Pid, test_kill_process};

use super::Check;
use crate::{cli::guard_beside, client::Client, dev::DevFile, output::shown, system};

/// A server on this machine answers within milliseconds.
const TIMEOUT: Duration = Duration::from_secs(3);
/// How far clocks may differ (design 4): beyond it blocks are refused.
const CLOCK_SECONDS_MAX: u64 = 2;
/// This program was written after this moment, 2026-01-01: an earlier clock is not set.
const CLOCK_SECONDS_MIN: u64 = 1_767_225_600;
/// What `chopmark dev` asks for first.
const PORT_DEFAULT: u16 = 8080;

/// Whether the process that wrote the file still runs.
pub(super) fn is_alive(dev: &DevFile) -> bool {
    let pid = i32::try_from(dev.pid).ok().filter(|pid| *pid > 0).and_then(Pid::from_raw);
    // A process of another user may not be signalled, but is there.
    pid.is_some_and(|pid| !matches!(test_kill_process(pid), Err(rustix::io::Errno::SRCH)) && !is_zombie(dev.pid))
}

/// Dead, but still in the process table. Where there is no such table of files, nothing is.
fn is_zombie(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // `pid (name) state …`; the name may hold anything.
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X']))
}

pub(super) async fn look(data: &Path, dev: Option<&DevFile>, running: Option<&DevFile>) -> Vec<Check> {
    let Some(dev) = dev else {
        let unreadable = data.join("dev.json").exists();
        let state = (!unreadable).then(|| Check::ok("server", "not running: there is no dev.json"));
        return state.into_iter().chain([port(), clock(signed_last(data, None))]).collect();
    };
    if running.is_none() {
        let detail = format!("not running: process {} of dev.json is gone, it was killed or crashed", dev.pid);
        let fix = format!("start it again: chopmark dev --data {}; nothing that was accepted is lost", shown(data));
        return vec![Check::warn("server", detail, fix), port(), clock(signed_last(data, Some(dev)))];
    }
    let client = match Client::new(&dev.base_url, None) {
        Ok(client) => client,
        Err(error) => {
            let fix = "stop the server, remove dev.json, and start the server again";
            return vec![Check::fail("server", format!("{error:#}"), fix)];
        }
    };
    let answers = health(&client, dev).await;
    let signed = published_last(&client, dev).await;
    vec![answers, policy(dev), clock(signed)]
}

async fn health(client: &Client, dev: &DevFile) -> Check {
    const NAME: &str = "server";
    let answer = match client.probe("/health/ready", TIMEOUT).await {
        Ok(answer) => answer,
        Err(error) => {
            let fix = format!(
                "if process {} is not chopmark, remove dev.json and start the server; else look at its log, and stop it \
                 with `kill {}`",
                dev.pid, dev.pid
            );
            return Check::fail(NAME, format!("process {} runs, but does not answer: {error:#}", dev.pid), fix);
        }
    };
    let view: Option<HealthView> = answer.json().ok();
    let parts = view.iter().flat_map(|view| &view.checks);
    let away: Vec<String> = parts.filter_map(|part| Some(format!("{} ({})", part.name, part.code.as_ref()?))).collect();
    if answer.status.is_success() && away.is_empty() {
        return Check::ok(NAME, format!("ready at {}, process {}", client.base(), dev.pid));
    }
    let away = if away.is_empty() { format!("HTTP {}", answer.status) } else { away.join(", ") };
    let fix = format!("look at the server's log; each code is explained at {}/errors/<code>", client.base());
    if answer.status.is_success() {
        Check::warn(NAME, format!("{} is ready in part: {away}", client.base()), fix)
    } else {
        Check::fail(NAME, format!("{} is not ready: {away}", client.base()), fix)
    }
}

fn policy(dev: &DevFile) -> Check {
    let path = shown(&dev.policy_path);
    let text = std::fs::read_to_string(&dev.policy_path).map_err(|error| error.to_string());
    match text.and_then(|text| PolicyFile::parse(&text).map_err(|error| error.to_string())) {
        Ok(_) => Check::ok("policy", path),
        Err(error) => {
            let fix = "restart the server, which writes it again";
            Check::fail("policy", format!("{path}: {error}"), fix)
        }
    }
}

/// Time of the newest cosignature that the server shows.
async fn published_last(client: &Client, dev: &DevFile) -> Option<u64> {
    let note = client.probe("/log/checkpoint", TIMEOUT).await.ok()?;
    let policy = PolicyFile::parse(&std::fs::read_to_string(&dev.policy_path).ok()?).ok()?;
    let signed = SignedCheckpoint::parse(std::str::from_utf8(&note.body).ok()?).ok()?;
    signed.check_signatures(&policy).ok()?.times().last().copied()
}

/// Time of the last signature that the guard of a stopped node remembers.
fn signed_last(data: &Path, dev: Option<&DevFile>) -> Option<u64> {
    let guard = dev.map_or_else(|| guard_beside(data), |dev| dev.guard_path.clone());
    if !guard.exists() {
        return None;
    }
    Some(Guard::open(&guard).ok()?.promise().time).filter(|time| *time > 0)
}

fn clock(signed: Option<u64>) -> Check {
    let now = system::now_ms() / 1000;
    let shown = Timestamp::from_unix_ms(now * 1000);
    let fix = "set the clock, and keep it set: systemd-timesyncd, chrony or ntpd";
    if now < CLOCK_SECONDS_MIN {
        return Check::fail("clock", format!("{shown} is in the past"), fix);
    }
    match signed {
        Some(signed) if signed > now + CLOCK_SECONDS_MAX => {
            let detail = format!("{shown}, but the last checkpoint was signed at {}", rfc3339_seconds(signed));
            Check::fail("clock", detail, fix)
        }
        Some(signed) => Check::ok("clock", format!("{shown}; the last checkpoint: {}", rfc3339_seconds(signed))),
        None => Check::ok("clock", format!("{shown}; there is no checkpoint to compare it with")),
    }
}

fn port() -> Check {
    match TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], PORT_DEFAULT))) {
        Ok(_) => Check::ok("port", format!("{PORT_DEFAULT} is free")),
        Err(error) => {
            let fix = "nothing, or --listen: `chopmark dev` takes the next free one and names it in dev.json";
            Check::warn("port", format!("{PORT_DEFAULT} cannot be used: {error}"), fix)
        }
    }
}
