//! From a dependency's failure to the problem that a caller reads. Logged here, once: what the
//! log keeps never reaches the caller.

use chopmark_api::{Problem, ProblemCode};

use crate::{ports::PortError, seal::SealError};

/// The problem of a port's failure.
pub(crate) fn port(error: &PortError) -> Problem {
    match error {
        PortError::Unavailable { .. } | PortError::DiskFull(_) => tracing::warn!(%error, "dependency away"),
        PortError::Full(_) => tracing::debug!(%error, "bound reached"),
        PortError::Broken { .. } => tracing::error!(%error, "invariant broken"),
    }
    match error {
        PortError::Unavailable { port, .. } => match *port {
            "queue" => ProblemCode::QueueUnavailable,
            "database" => ProblemCode::DatabaseUnavailable,
            "index" => ProblemCode::IndexRebuilding,
            "objects" => ProblemCode::ObjectStoreUnavailable,
            "keys" => ProblemCode::KeyProviderUnavailable,
            "ledger" => ProblemCode::LedgerUnavailable,
            _ => ProblemCode::InternalError,
        },
        PortError::Full("queue") => ProblemCode::QueueFull,
        PortError::Full(_) => ProblemCode::Overloaded,
        PortError::DiskFull(_) => ProblemCode::DiskFull,
        PortError::Broken { port: "ledger", .. } => ProblemCode::StoredDataDamaged,
        PortError::Broken { .. } => ProblemCode::InternalError,
    }
    .into()
}

/// The problem of something that cannot be unless we made a mistake.
pub(crate) fn broken(what: &'static str) -> Problem {
    tracing::error!(what, "invariant broken");
    ProblemCode::InternalError.into()
}

/// The problem of a failed seal.
pub(crate) fn seal(error: &SealError) -> Problem {
    match error {
        SealError::Random(error) => port(error),
        SealError::Open => broken("sealing"),
    }
}
