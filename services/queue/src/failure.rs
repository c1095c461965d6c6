//! The port's errors, told by whichever adapter.

use std::error::Error;
use std::fmt::Write;

use chopmark_domain::ports::PortError;

/// Name of the port in its errors.
pub(crate) const PORT: &str = "queue";

pub(crate) fn unavailable(reason: impl Into<String>) -> PortError {
    PortError::Unavailable { port: PORT, reason: reason.into() }
}

pub(crate) fn broken(reason: impl Into<String>) -> PortError {
    PortError::Broken { port: PORT, reason: reason.into() }
}

/// The error and its sources, for the log.
pub(crate) fn describe(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a string cannot fail.
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}
