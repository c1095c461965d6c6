//! The database, as the role logs in to it.

use chopmark_store::{
    ConnectFault, PostgresExamination, PostgresOpenError, PostgresRole, PostgresSettings, PostgresStore,
};

use super::{Fault, Findings, clock::Asked};
use crate::{cli::DoctorRole, config::Configured};

const ABOUT: &str = "database";

/// A database that acknowledges what its own disk has.
const DURABLE: [&str; 3] = ["on", "remote_write", "remote_apply"];

pub(super) async fn look(configured: &Configured, role: DoctorRole) -> Findings {
    // A URL that cannot be read is among the settings' findings.
    let Ok(url) = configured.database() else { return Findings::default() };
    if url.starts_with("sqlite:") {
        return Findings::default();
    }
    let settings = match PostgresSettings::new(&url, login(role)) {
        Ok(settings) => settings,
        Err(error) => return Findings::of(Fault::DatabaseUrl, ABOUT, error),
    };
    let asked = Asked::now();
    match PostgresStore::examine(settings).await {
        Ok(found) => {
            let mut findings = asked.compare(ABOUT, found.time_ms);
            findings.extend(weaknesses(&found));
            found.refusals.iter().for_each(|refusal| findings.add(fault(refusal), ABOUT, chain(refusal)));
            findings
        }
        Err(error) => Findings::of(fault(&error), ABOUT, chain(&error)),
    }
}

const fn login(role: DoctorRole) -> PostgresRole {
    match role {
        DoctorRole::Gateway => PostgresRole::Gateway,
        DoctorRole::Committer => PostgresRole::Committer,
        DoctorRole::Courier => PostgresRole::Courier,
        DoctorRole::Admin => PostgresRole::Admin,
    }
}

fn weaknesses(found: &PostgresExamination) -> Findings {
    let mut findings = Findings::default();
    if found.encoding != "UTF8" {
        findings.add(Fault::DatabaseEncoding, ABOUT, format!("the encoding is {}", found.encoding));
    }
    if !DURABLE.contains(&&*found.synchronous_commit) {
        let detail = format!("synchronous_commit is {}", found.synchronous_commit);
        findings.add(Fault::DatabaseSynchronousCommit, ABOUT, detail);
    }
    if found.connections_left < found.connections_wanted as u64 {
        let detail = format!("{} are left", found.connections_left);
        findings.add(Fault::DatabaseConnectionsFew, ABOUT, detail);
    }
    findings
}

fn fault(error: &PostgresOpenError) -> Fault {
    match error {
        PostgresOpenError::Connect(error) => match ConnectFault::of(error) {
            ConnectFault::Authentication => Fault::DatabaseAuthentication,
            ConnectFault::NoDatabase => Fault::DatabaseMissing,
            ConnectFault::Full => Fault::DatabaseFull,
            ConnectFault::Tls => Fault::DatabaseTls,
            ConnectFault::Hangs => Fault::DatabaseHangs,
            ConnectFault::OtherProtocol => Fault::DatabaseOtherProtocol,
            ConnectFault::Away => Fault::DatabaseUnreachable,
        },
        PostgresOpenError::Url(_) => Fault::DatabaseUrl,
        PostgresOpenError::Privileged { .. } => Fault::DatabaseRolePrivileged,
        PostgresOpenError::Role { .. } | PostgresOpenError::NoRole(_) => Fault::DatabaseRoleOther,
        PostgresOpenError::Unforced(_) => Fault::DatabaseRlsUnforced,
        PostgresOpenError::Behind { .. } => Fault::DatabaseSchemaBehind,
        PostgresOpenError::Newer(_) => Fault::DatabaseSchemaNewer,
        PostgresOpenError::Language(_) => Fault::DatabaseMessages,
        PostgresOpenError::NotDurable => Fault::DatabaseFsyncOff,
        PostgresOpenError::Query(_) | PostgresOpenError::Migration(_) | PostgresOpenError::Worker(_) => {
            Fault::DatabaseUnknown
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
