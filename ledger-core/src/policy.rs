//! The network's transfer policy, as data: what `policy.set` records.

use serde::{Deserialize, Serialize};

use crate::operation::integer53;

/// Who may receive collectibles, by residence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Residency {
    /// Anybody whose identity was verified.
    Any,
    /// Residents of mainland China only.
    Mainland,
}

/// Parameters of a policy version; durations count whole days of 24 hours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Block time (Unix ms) from which this version holds.
    #[serde(deserialize_with = "integer53")]
    pub effective_from: u64,
    /// Days from acquisition by mint to the first transfer.
    #[serde(deserialize_with = "integer53")]
    pub first_hold_days: u64,
    /// Minimum age of a holder in years.
    #[serde(deserialize_with = "integer53")]
    pub minimum_age: u64,
    /// Days from acquisition by transfer to the next transfer.
    #[serde(deserialize_with = "integer53")]
    pub next_hold_days: u64,
    /// Whether a recipient has to accept a transfer.
    pub recipient_confirmation: bool,
    /// Whether a redeemed item can no longer be transferred.
    pub redeemed_locked: bool,
    /// Residence required of a recipient.
    pub residency: Residency,
    /// Risk tiers in use, ascending, out of 1 to 3; tier 4 is never allowed.
    pub tiers: Vec<u8>,
    /// Transfers of one item in one day.
    #[serde(deserialize_with = "integer53")]
    pub transfers_per_item_per_day: u64,
    /// Transfers by one subject in one day.
    #[serde(deserialize_with = "integer53")]
    pub transfers_per_subject_per_day: u64,
    /// Counts up by one with every `policy.set`.
    #[serde(deserialize_with = "integer53")]
    pub version: u64,
}

/// Days that an item rests before a transfer: the default, not a constant of the ledger.
pub const DEFAULT_HOLD_DAYS: u64 = 180;

/// Longest rest, a hundred years: a number of days that milliseconds in 64 bits can hold.
pub const HOLD_DAYS_MAX: u64 = 36_500;

/// Highest minimum age in years.
pub const AGE_MAX: u64 = 150;

impl Default for Policy {
    fn default() -> Self {
        Self {
            effective_from: 0,
            first_hold_days: DEFAULT_HOLD_DAYS,
            minimum_age: 18,
            next_hold_days: DEFAULT_HOLD_DAYS,
            recipient_confirmation: true,
            redeemed_locked: true,
            residency: Residency::Any,
            tiers: vec![1, 2, 3],
            transfers_per_item_per_day: 1,
            transfers_per_subject_per_day: 3,
            version: 1,
        }
    }
}

impl Policy {
    /// Whether the parameters make sense in themselves.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.tiers.windows(2).all(|pair| pair[0] < pair[1])
            && self.tiers.iter().all(|tier| (1..=3).contains(tier))
            && self.first_hold_days.max(self.next_hold_days) <= HOLD_DAYS_MAX
            && self.minimum_age <= AGE_MAX
    }
}
