//! This machine's clock beside another's.

use super::{Fault, Findings};
use crate::system;

/// How far clocks may differ (design 4): beyond it blocks are refused.
const OFFSET_MS_MAX: u64 = 2_000;

/// The time before a question. The answer's time lies between it and the time after.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked(u64);

impl Asked {
    pub(super) fn now() -> Self {
        Self(system::now_ms())
    }

    /// `theirs` in Unix milliseconds. What the question took cannot make a difference where there is none.
    pub(super) fn compare(self, about: &str, theirs: u64) -> Findings {
        self.compare_at(system::now_ms(), about, theirs)
    }

    fn compare_at(self, now: u64, about: &str, theirs: u64) -> Findings {
        let (ahead, behind) = (self.0.saturating_sub(theirs), theirs.saturating_sub(now));
        if ahead.max(behind) <= OFFSET_MS_MAX {
            return Findings::default();
        }
        let way = if ahead > 0 { "ahead of" } else { "behind" };
        Findings::of(Fault::ClockSkew, about, format!("this clock is {} ms {way} that one", ahead.max(behind)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_answer_is_no_difference() {
        let found =
            |asked, now, theirs| Asked(asked).compare_at(now, "database", theirs).0.pop().map(|found| found.detail);
        assert_eq!(found(100_000, 160_000, 100_000), None);
        assert_eq!(found(100_000, 100_000, 102_000), None);
        assert!(found(100_000, 100_010, 102_011).unwrap().contains("2001 ms behind"));
        assert!(found(100_000, 100_010, 97_999).unwrap().contains("2001 ms ahead"));
    }
}
