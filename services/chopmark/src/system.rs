//! The machine's clock and randomness behind the ports. Nothing else in the project reads them.

use std::time::{SystemTime, UNIX_EPOCH};

use chopmark_domain::ports::{Clock, PortError, PortResult, Random};

/// Clock and randomness of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct System;

/// Unix milliseconds; a clock before 1970 reads as 0.
#[expect(clippy::disallowed_methods, reason = "this is where the Clock port gets its time from")]
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Clock for System {
    fn now_ms(&self) -> u64 {
        now_ms()
    }
}

impl Random for System {
    fn fill(&self, out: &mut [u8]) -> PortResult<()> {
        getrandom::fill(out).map_err(|error| PortError::Broken { port: "random", reason: error.to_string() })
    }
}
