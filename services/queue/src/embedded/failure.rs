//! From what failed below to what the port answers.

use std::error::Error;
use std::fmt::Write;

use chopmark_domain::ports::PortError;

/// Name of the port in its errors.
pub(super) const PORT: &str = "queue";

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

pub(super) fn unavailable(reason: impl Into<String>) -> PortError {
    PortError::Unavailable { port: PORT, reason: reason.into() }
}

pub(super) fn broken(reason: impl Into<String>) -> PortError {
    PortError::Broken { port: PORT, reason: reason.into() }
}

pub(super) fn from_log(error: &segment_log::Error) -> PortError {
    Failure::from(error).into()
}

/// The error and its sources, for the log.
pub(super) fn describe(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a string cannot fail.
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}
