//! From what failed below to what the port answers.

use chopmark_domain::ports::PortError;

pub(super) use crate::failure::{PORT, broken, describe, unavailable};

/// Why something cannot be done now. Unlike a [`PortError`] it can be told to many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    DiskFull,
    /// The system refused; it may not the next time.
    Unavailable(String),
    /// Durable data is not what it must be.
    Broken(String),
}

impl From<Failure> for PortError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::DiskFull => Self::DiskFull(PORT),
            Failure::Unavailable(reason) => Self::Unavailable { port: PORT, reason },
            Failure::Broken(reason) => Self::Broken { port: PORT, reason },
        }
    }
}

impl From<&segment_log::Error> for Failure {
    fn from(error: &segment_log::Error) -> Self {
        use segment_log::Error as E;
        match error {
            E::DiskFull { .. } => Self::DiskFull,
            E::Io { .. } | E::Locked { .. } | E::Poisoned { .. } => Self::Unavailable(describe(error)),
            E::Corrupt { .. }
            | E::Version { .. }
            | E::Gone { .. }
            | E::ReadOnly { .. }
            | E::RecordSize { .. }
            | E::Options(_) => Self::Broken(describe(error)),
        }
    }
}

pub(super) fn from_log(error: &segment_log::Error) -> PortError {
    Failure::from(error).into()
}
