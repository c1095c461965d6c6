//! Which port error a failure of SQLite is, and its transactions.

use chopmark_domain::ports::PortError;
use diesel::{SqliteConnection, result::Error as DieselError};

use crate::{PORT, failure::Failure};

pub(super) fn port_error(failure: Failure) -> PortError {
    match failure {
        Failure::Database(_) | Failure::Connect(_) => classify(failure.to_string()),
        Failure::Value(_) | Failure::Invariant(_) => failure.broken(),
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
