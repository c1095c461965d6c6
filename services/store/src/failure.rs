//! What went wrong on a connection, whatever the database.

use chopmark_domain::ports::PortError;
use diesel::result::Error as DieselError;
use thiserror::Error;

use crate::{PORT, row::ValueError};

/// Why work on a connection did not succeed.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// The database refused or failed.
    #[error(transparent)]
    Database(#[from] DieselError),
    /// The database could not be opened or reached.
    #[error(transparent)]
    Connect(#[from] diesel::ConnectionError),
    /// A value is outside of what the database or this version can hold.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// The call and the stored rows contradict each other.
    #[error("{0}")]
    Invariant(String),
}

impl Failure {
    /// A failure that does not pass by itself.
    pub(crate) fn broken(self) -> PortError {
        PortError::Broken { port: PORT, reason: self.to_string() }
    }
}
