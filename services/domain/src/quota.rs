//! What tenants may use: requests over time, records in a day.

use std::{num::NonZeroU32, time::Duration};

use async_trait::async_trait;

/// Milliseconds of a UTC day.
pub const DAY_MS: u64 = 86_400_000;

/// A rate: so many requests a second, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests a second, over time.
    pub per_second: NonZeroU32,
    /// Requests at once after a pause.
    pub burst: NonZeroU32,
}

impl Rate {
    /// A rate; zero counts as one.
    #[must_use]
    pub const fn new(per_second: u32, burst: u32) -> Self {
        Self { per_second: at_least_one(per_second), burst: at_least_one(burst) }
    }
}

const fn at_least_one(number: u32) -> NonZeroU32 {
    match NonZeroU32::new(number) {
        Some(number) => number,
        None => NonZeroU32::MIN,
    }
}

/// What a tenant may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Of all its keys together; `None`: what each of its keys may is all.
    pub rate: Option<Rate>,
    /// Records accepted in a UTC day; `None`: as many as it likes.
    pub records_per_day: Option<u64>,
}

/// Whether a request is within its tenant's rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateAnswer {
    /// It is; so many more would be at once.
    Passed {
        /// Of the burst.
        remaining: u32,
    },
    /// It is not, and will be after this time.
    Refused {
        /// Never zero.
        wait: Duration,
    },
}

/// Counts what tenants use, for all gateways that share it.
///
/// A short cut as the cache is: an adapter that cannot reach what it shares counts by itself, so that
/// for as long each gateway allows its own share, and whoever asks never fails or waits for it. What was
/// counted may be forgotten; a rate then begins with a full burst, and a day at zero.
#[async_trait]
pub trait Quotas: Send + Sync {
    /// Counts one request of a tenant, if its rate allows it.
    async fn request(&self, tenant: &str, rate: Rate) -> RateAnswer;

    /// Counts records of a tenant on a UTC day (days since 1970), as many of them as are left of `limit`,
    /// and returns that number.
    async fn records(&self, tenant: &str, day: u64, records: u64, limit: u64) -> u64;
}

/// The UTC day of a time in Unix ms, and the seconds until the next begins (at least 1).
#[must_use]
pub fn day_of(now_ms: u64) -> (u64, u32) {
    let seconds = (DAY_MS - now_ms % DAY_MS).div_ceil(1000);
    (now_ms / DAY_MS, u32::try_from(seconds).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_ends_at_midnight_utc() {
        assert_eq!(day_of(0), (0, 86_400));
        assert_eq!(day_of(DAY_MS - 1), (0, 1));
        assert_eq!(day_of(DAY_MS), (1, 86_400));
        assert_eq!(day_of(1_795_392_000_000), (20_780, 86_400));
    }
}
