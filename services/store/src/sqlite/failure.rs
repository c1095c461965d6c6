//! What went wrong on a connection, and which port error that is.

use chopmark_domain::ports::PortError;
use diesel::{SqliteConnection, result::Error as DieselError};
use thiserror::Error;

use crate::{PORT, row::ValueError};

/// Why work on a connection did not succeed.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// SQLite refused or failed.
    #[error(transparent)]
    Database(#[from] DieselError),
    /// The file could not be opened.
    #[error(transparent)]
    Connect(#[from] diesel::ConnectionError),
    /// A value is outside of what the database or this version can hold.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// The call and the stored rows contradict each other.
    #[error("{0}")]
    Invariant(String),
}

impl From<Failure> for PortError {
    fn from(failure: Failure) -> Self {
        let reason = failure.to_string();
        match failure {
            Failure::Database(_) | Failure::Connect(_) => classify(reason),
            Failure::Value(_) | Failure::Invariant(_) => Self::Broken { port: PORT, reason },
        }
    }
}

/// The texts of the result codes that pass by themselves (SQLite's `sqlite3_errstr`, fixed for
/// decades). diesel hands on the text but not the code.
const PASSING: [&str; 8] = [
    "database is locked",
    "database table is locked",
    "database schema is locked",
    "disk I/O error",
    "unable to open database file",
    "attempt to write a readonly database",
    "out of memory",
    "interrupted",
];
const FULL: &str = "database or disk is full";

/// What is neither full nor known to pass counts as broken: a caller must not retry for ever what
/// nobody has thought about.
fn classify(reason: String) -> PortError {
    if reason.contains(FULL) {
        PortError::DiskFull(PORT)
    } else if PASSING.iter().any(|text| reason.contains(text)) {
        PortError::Unavailable { port: PORT, reason }
    } else {
        PortError::Broken { port: PORT, reason }
    }
}

/// Whether the file is held by somebody else right now.
pub(super) fn is_busy(error: &DieselError) -> bool {
    let text = error.to_string();
    ["database is locked", "database table is locked", "database schema is locked"]
        .iter()
        .any(|busy| text.contains(busy))
}

/// Runs `work` in one transaction that holds the write lock from its first statement on.
///
/// After a full disk SQLite has rolled back by itself, and diesel's own attempt to do so fails and
/// hides the cause; so the cause is kept here.
pub(super) fn write<T>(
    connection: &mut SqliteConnection,
    work: impl FnOnce(&mut SqliteConnection) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut cause = None;
    let result = connection.immediate_transaction(|connection| {
        work(connection).map_err(|failure| {
            cause = Some(failure);
            DieselError::RollbackTransaction
        })
    });
    result.map_err(|error| cause.unwrap_or(Failure::Database(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_sqlite_become_port_errors() {
        assert!(matches!(classify("database or disk is full".into()), PortError::DiskFull("database")));
        for text in PASSING {
            assert!(matches!(classify(text.into()), PortError::Unavailable { .. }), "{text}");
        }
        for text in ["database disk image is malformed", "file is not a database", "no such table: operations"] {
            assert!(matches!(classify(text.into()), PortError::Broken { .. }), "{text}");
        }
    }
}
