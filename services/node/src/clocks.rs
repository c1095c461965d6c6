//! How far this node's clock is from the clocks of the others.
//!
//! A fresh proposal bears its proposer's time, and only the member whose turn it is gets to stream
//! it: each one shows that member's clock, late by the way here. A proposer that is behind the
//! previous block takes that block's time, so a clock that is slow shows as one that is right.
//! The median over the others stands whatever a minority of them says.

use std::collections::BTreeMap;

use ledger_core::{member::MemberSet, vote::address};

/// A node further than this from the median of the others has a clock that needs repair: its
/// proposals get no votes, or it has no vote for those of the others.
pub const CLOCK_OFFSET_MAX_MS: u64 = 2_000;

/// The newest reading of each of the others, by validator address.
#[derive(Debug, Default)]
pub(crate) struct PeerClocks {
    /// This node's clock less the proposer's.
    offsets: BTreeMap<[u8; 20], i64>,
}

impl PeerClocks {
    /// A fresh proposal came.
    pub(crate) fn heard(&mut self, proposer: [u8; 20], time_ms: u64, now_ms: u64) {
        let signed = |time: u64| i64::try_from(time).unwrap_or(i64::MAX);
        self.offsets.insert(proposer, signed(now_ms) - signed(time_ms));
    }

    /// This node's clock less the median of the clocks of the other `members`; `None` until most of
    /// them have shown theirs. Of two in the middle the nearer one counts.
    pub(crate) fn offset_ms(&mut self, members: &MemberSet, own: &[u8; 20]) -> Option<i64> {
        let others: Vec<_> =
            members.iter().map(|member| address(&member.validator_key)).filter(|other| other != own).collect();
        self.offsets.retain(|known, _| others.contains(known));
        if self.offsets.len() * 2 <= others.len() {
            return None;
        }
        let mut sorted: Vec<i64> = self.offsets.values().copied().collect();
        sorted.sort_unstable();
        let middle = [sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]];
        middle.into_iter().min_by_key(|offset| offset.unsigned_abs())
    }
}

/// Whether a clock that is this far off is to be reported.
#[must_use]
pub const fn is_off(offset_ms: i64) -> bool {
    offset_ms.unsigned_abs() > CLOCK_OFFSET_MAX_MS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::members;

    #[test]
    fn one_liar_does_not_move_the_median() {
        let (members, alone) = (members(4), members(1));
        let addresses: Vec<_> = members.iter().map(|member| address(&member.validator_key)).collect();
        let [own, one, two, three] = addresses[..] else { panic!("four") };
        let mut clocks = PeerClocks::default();
        clocks.heard(one, 10_000, 610_000);
        assert_eq!(clocks.offset_ms(&members, &own), None, "one of three");
        clocks.heard(two, 10_100, 610_200);
        assert_eq!(clocks.offset_ms(&members, &own), Some(600_000));
        // A liar, and then another one, which is a majority of the others.
        clocks.heard(three, 700_000, 610_300);
        assert_eq!(clocks.offset_ms(&members, &own), Some(600_000));
        clocks.heard(two, 700_000, 610_400);
        assert_eq!(clocks.offset_ms(&members, &own), Some(-89_600));
        // Who is no member any more does not count.
        assert_eq!(clocks.offset_ms(&alone, &own), None);
    }

    #[test]
    fn what_is_off_is_what_gets_no_vote() {
        assert!(!is_off(2_000) && !is_off(-2_000) && is_off(2_001) && is_off(-2_001));
    }
}
