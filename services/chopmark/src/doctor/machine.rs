//! The machine: programs that the shell verifier needs, and limits.

use std::process::Command;

use rustix::process::{Resource, getrlimit};

use super::Check;

/// Below this a server of ordinary load runs out: connections, segments and tables are files.
pub(super) const FILES_MIN: u64 = 1024;
/// What load tests need.
pub(super) const FILES_COMFORTABLE: u64 = 4096;

pub(super) fn look() -> Vec<Check> {
    vec![openssl(), basenc(), files()]
}

fn openssl() -> Check {
    const NAME: &str = "openssl";
    const FIX: &str = "install OpenSSL 3 (Debian 12: apt-get install openssl); only the shell script verify.sh needs \
                       it, `chopmark verify` does not";
    let Some(text) = output_of("openssl", &["version"]) else {
        return Check::warn(NAME, "there is no openssl", FIX);
    };
    let version = text.strip_prefix("OpenSSL ").and_then(|rest| rest.split_whitespace().next());
    let major = version.and_then(|version| version.split('.').next()).and_then(|major| major.parse::<u32>().ok());
    match (version, major) {
        (Some(version), Some(3..)) => Check::ok(NAME, version.to_owned()),
        _ => Check::warn(NAME, format!("{} is not OpenSSL 3.0 or later", text.trim()), FIX),
    }
}

fn basenc() -> Check {
    if output_of("basenc", &["--version"]).is_some() {
        return Check::ok("basenc", "there");
    }
    let fix = "install GNU coreutils 8.31 or later; only the shell script verify.sh needs it";
    Check::warn("basenc", "there is no basenc", fix)
}

fn output_of(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

/// Files that this process may open at a time; `None` is no limit.
pub(super) fn open_files() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

fn files() -> Check {
    let limit = open_files();
    let fix = format!("ulimit -n {FILES_COMFORTABLE}, or LimitNOFILE in the service's unit");
    match limit {
        Some(limit) if limit < FILES_MIN => Check::fail("open files", format!("at most {limit}"), fix),
        Some(limit) if limit < FILES_COMFORTABLE => Check::warn("open files", format!("at most {limit}"), fix),
        Some(limit) => Check::ok("open files", format!("at most {limit}")),
        None => Check::ok("open files", "without limit"),
    }
}
