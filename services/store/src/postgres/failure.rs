//! Which port error a failure of PostgreSQL is, and its transactions.

use chopmark_domain::ports::PortError;
use diesel::{
    PgConnection,
    connection::SimpleConnection as _,
    result::{DatabaseErrorKind, Error as DieselError},
};

use super::scope::Scope;
use crate::{PORT, failure::Failure};

/// A transaction that had to give way is run again so often. Writers take their rows in one order, so
/// that it should never have to.
const TRIES_MAX: u32 = 4;

/// The server's messages of what passes by itself. diesel hands on the text but not the code; the text
/// is English because [`super::connect`] refuses a session where it is not.
const PASSING: [&str; 11] = [
    "canceling statement due to",
    "canceling authentication due to",
    "deadlock detected",
    "terminating connection",
    "the database system is",
    "server closed the connection",
    "could not receive data from server",
    "could not send data to server",
    "too many clients already",
    "remaining connection slots",
    "out of memory",
];
const FULL: &str = "No space left on device";

/// What is neither full nor known to pass counts as broken: a caller must not retry for ever what
/// nobody has thought about.
pub(super) fn port_error(failure: Failure) -> PortError {
    let reason = failure.to_string();
    let passes = match &failure {
        Failure::Connect(_) => true,
        Failure::Database(DieselError::DatabaseError(kind, _)) => {
            // A server that has become a replica refuses to write until the way leads to the new one.
            matches!(
                kind,
                DatabaseErrorKind::ClosedConnection
                    | DatabaseErrorKind::UnableToSendCommand
                    | DatabaseErrorKind::SerializationFailure
                    | DatabaseErrorKind::ReadOnlyTransaction
            ) || PASSING.iter().any(|text| reason.contains(text))
        }
        Failure::Database(DieselError::BrokenTransactionManager) => true,
        Failure::Database(_) | Failure::Value(_) | Failure::Invariant(_) => false,
    };
    match failure {
        Failure::Database(_) | Failure::Connect(_) if reason.contains(FULL) => PortError::DiskFull(PORT),
        _ if passes => PortError::Unavailable { port: PORT, reason },
        failure => failure.broken(),
    }
}

/// Whether the server took everything back so that another transaction could go on.
fn gave_way(failure: &Failure) -> bool {
    match failure {
        Failure::Database(DieselError::DatabaseError(DatabaseErrorKind::SerializationFailure, _)) => true,
        Failure::Database(DieselError::DatabaseError(_, information)) => information.message() == "deadlock detected",
        _ => false,
    }
}

/// Runs `work` within the transaction that has begun on `connection`, for `scope`, and commits it. After
/// a failure the connection is dropped, and the server takes the transaction back.
///
/// A commit whose answer is lost may have happened: every call of the ports may be repeated.
pub(super) fn transact<T>(
    connection: &mut PgConnection,
    scope: &Scope,
    work: impl Fn(&mut PgConnection) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let attempt = |connection: &mut PgConnection| {
        scope.enter(connection)?;
        let value = work(connection)?;
        connection.batch_execute("COMMIT")?;
        Ok(value)
    };
    for _ in 1..TRIES_MAX {
        match attempt(connection) {
            Err(failure) if gave_way(&failure) => {
                tracing::warn!(error = %failure, "a database transaction gave way and is run again");
                connection.batch_execute("ROLLBACK; BEGIN")?;
            }
            result => return result,
        }
    }
    attempt(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: DatabaseErrorKind, text: &str) -> PortError {
        port_error(Failure::Database(DieselError::DatabaseError(kind, Box::new(text.to_owned()))))
    }

    #[test]
    fn texts_of_postgresql_become_port_errors() {
        let unknown = DatabaseErrorKind::Unknown;
        let full = "could not extend file \"base/5/16384\": No space left on device";
        assert!(matches!(error(unknown, full), PortError::DiskFull("database")));
        for text in PASSING {
            assert!(matches!(error(unknown, text), PortError::Unavailable { .. }), "{text}");
        }
        for text in ["permission denied for table operations", "invalid page in block 3 of relation base/5/16384"] {
            assert!(matches!(error(unknown, text), PortError::Broken { .. }), "{text}");
        }
        for (kind, passes) in [
            (DatabaseErrorKind::ClosedConnection, true),
            (DatabaseErrorKind::SerializationFailure, true),
            (DatabaseErrorKind::ReadOnlyTransaction, true),
            (DatabaseErrorKind::UniqueViolation, false),
            (DatabaseErrorKind::CheckViolation, false),
        ] {
            assert_eq!(matches!(error(kind, "x"), PortError::Unavailable { .. }), passes, "{kind:?}");
        }
    }
}
