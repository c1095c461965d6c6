//! When a message is tried again.

use std::time::Duration;

/// Delays after the first failure, the second, and so on; their sum is a little over three days.
const DELAYS: [Duration; 13] = [
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(2 * 60),
    Duration::from_secs(10 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(60 * 60),
    Duration::from_secs(2 * 60 * 60),
    Duration::from_secs(4 * 60 * 60),
    Duration::from_secs(8 * 60 * 60),
    Duration::from_secs(12 * 60 * 60),
    Duration::from_secs(16 * 60 * 60),
    Duration::from_secs(16 * 60 * 60),
    Duration::from_secs(16 * 60 * 60),
];
/// A delay is made longer by up to this share of it, never shorter: the sum is a promise.
const JITTER: f64 = 0.2;
/// What a receiver's `Retry-After` is heard up to.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The delays between attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule(Vec<Duration>);

impl Default for Schedule {
    fn default() -> Self {
        Self(DELAYS.to_vec())
    }
}

impl Schedule {
    /// Delays of one's own.
    #[must_use]
    pub const fn new(delays: Vec<Duration>) -> Self {
        Self(delays)
    }

    /// The delay after so many failures (from one on); `None`: there is no further attempt. `jitter` is drawn
    /// from 0 to 1. A receiver's `retry_after` makes a delay longer, up to a day, and never shorter.
    #[must_use]
    pub fn delay_after(&self, failures: u32, jitter: f64, retry_after: Option<Duration>) -> Option<Duration> {
        let at = usize::try_from(failures).ok()?.checked_sub(1)?;
        let delay = self.0.get(at)?;
        let asked = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
        let jitter = if jitter.is_nan() { 0.0 } else { jitter.clamp(0.0, 1.0) };
        Some(delay.mul_f64(1.0 + JITTER * jitter).max(asked))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span(schedule: &Schedule, jitter: impl Fn(u32) -> f64) -> Duration {
        (1..).map_while(|failures| schedule.delay_after(failures, jitter(failures), None)).sum()
    }

    #[test]
    fn attempts_go_on_for_three_days_and_end() {
        let schedule = Schedule::default();
        let day = Duration::from_secs(24 * 60 * 60);
        assert!(span(&schedule, |_| 0.0) >= 3 * day);
        assert!(span(&schedule, |_| 1.0) <= 4 * day);
        assert_eq!(schedule.delay_after(14, 0.0, Some(day)), None);
        assert_eq!(schedule.delay_after(0, 0.0, None), None);
    }

    proptest! {
        #[test]
        fn delays_grow_and_a_receiver_only_lengthens_them(
            failures in 1_u32..20, jitter in -1.0_f64..2.0, asked in 0_u64..1_000_000
        ) {
            let schedule = Schedule::default();
            let asked = Duration::from_secs(asked);
            let own = schedule.delay_after(failures, jitter, None);
            let told = schedule.delay_after(failures, jitter, Some(asked));
            prop_assert_eq!(own.is_some(), told.is_some());
            if let (Some(own), Some(told)) = (own, told) {
                prop_assert_eq!(told, own.max(asked.min(RETRY_AFTER_MAX)));
                prop_assert!(own >= DELAYS[failures as usize - 1]);
                if let Some(next) = schedule.delay_after(failures + 1, 0.0, None) {
                    prop_assert!(next.mul_f64(1.0 + JITTER) >= own);
                }
            }
        }
    }
}
