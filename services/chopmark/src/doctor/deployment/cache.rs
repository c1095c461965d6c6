//! The cache that gateways share.

use chopmark_cache::redis::examine::{REDIS_MAJOR_MIN, RedisExamination, RedisFault, examine};

use super::{Fault, Findings, clock::Asked};
use crate::{cli::DoctorRole, config::Configured};

const ABOUT: &str = "cache";

pub(super) async fn look(configured: &Configured, role: DoctorRole) -> Findings {
    let (true, Ok(url)) = (role == DoctorRole::Gateway, configured.cache()) else { return Findings::default() };
    if url.starts_with("memory:") {
        return Findings::default();
    }
    if !["redis:", "rediss:"].iter().any(|scheme| url.starts_with(scheme)) {
        return Findings::of(Fault::CacheUrl, ABOUT, "it begins with another scheme");
    }
    let asked = Asked::now();
    match examine(&url).await {
        Ok(found) => {
            let mut findings = found.time_ms.map(|theirs| asked.compare(ABOUT, theirs)).unwrap_or_default();
            findings.extend(weaknesses(&found));
            findings
        }
        Err(fault) => refused(fault),
    }
}

fn refused(fault: RedisFault) -> Findings {
    let (fault, reason) = match fault {
        RedisFault::Authentication(reason) => (Fault::CacheAuthentication, reason),
        RedisFault::Tls(reason) => (Fault::CacheTls, reason),
        RedisFault::Hangs(reason) => (Fault::CacheHangs, reason),
        RedisFault::OtherProtocol(reason) => (Fault::CacheOtherProtocol, reason),
        RedisFault::Away(reason) => (Fault::CacheUnreachable, reason),
        RedisFault::Url(reason) => (Fault::CacheUrl, reason),
    };
    Findings::of(fault, ABOUT, reason)
}

fn weaknesses(found: &RedisExamination) -> Findings {
    let mut findings = Findings::default();
    if found.major().is_some_and(|major| major < REDIS_MAJOR_MIN) {
        findings.add(Fault::CacheVersionOld, ABOUT, found.version.as_deref().unwrap_or_default());
    }
    if found.is_replica == Some(true) {
        findings.add(Fault::CacheReadOnly, ABOUT, "it is a replica");
    }
    if found.forgets() {
        let policy = found.policy.as_deref().unwrap_or_default();
        findings.add(Fault::CacheEvicts, ABOUT, format!("maxmemory-policy is {policy}"));
    }
    let silent = [
        ("its version", found.major().is_none()),
        ("its role", found.is_replica.is_none()),
        ("its time", found.time_ms.is_none()),
        ("maxmemory", found.maxmemory.is_none()),
        ("maxmemory-policy", found.policy.is_none()),
    ];
    let silent: Vec<_> = silent.into_iter().filter(|(_, is_silent)| *is_silent).map(|(what, _)| what).collect();
    if !silent.is_empty() {
        findings.add(Fault::CacheUnknown, ABOUT, format!("it does not say {}", silent.join(", ")));
    }
    findings
}
