//! A map that forgets its oldest half at a time: cheap, and bounded in entries and in age.

use std::{
    collections::HashMap,
    mem::swap,
    time::{Duration, Instant},
};

use ledger_core::hash::Hash32;

/// What is known of an operation id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) request: Hash32,
    pub(crate) durable: bool,
}

/// Two maps: what is written goes into the young one; when that is full or of age it becomes the old
/// one, and the old one is emptied.
///
/// Invariant: everything in the young map was written after everything in the old one, and is looked
/// at first; else an answer could go back to an older one. Reading moves nothing, so how long an
/// entry lives depends on when it was written alone: never beyond `since + 2 * age_max`.
pub(crate) struct Generations {
    young: HashMap<Hash32, Known>,
    old: HashMap<Hash32, Known>,
    since: Instant,
    entries_max: usize,
    age_max: Duration,
}

impl Generations {
    /// At most `entries_max` entries and `age_max` of time in each of two generations.
    pub(crate) fn new(entries_max: usize, age_max: Duration, now: Instant) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), since: now, entries_max: entries_max.max(1), age_max }
    }

    pub(crate) fn get(&mut self, id: &Hash32, now: Instant) -> Option<Known> {
        let age = now.saturating_duration_since(self.since);
        if age >= 2 * self.age_max {
            self.turn();
            self.turn();
            self.since = now;
        } else if age >= self.age_max {
            self.turn();
            self.since += self.age_max;
        }
        self.young.get(id).or_else(|| self.old.get(id)).copied()
    }

    /// Callers have just asked for `id` under the same lock.
    pub(crate) fn put(&mut self, id: Hash32, known: Known) {
        if self.young.len() >= self.entries_max && !self.young.contains_key(&id) {
            self.turn();
        }
        self.young.insert(id, known);
    }

    /// The emptied map keeps its memory: it is about to be filled again.
    fn turn(&mut self) {
        swap(&mut self.young, &mut self.old);
        self.young.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> Hash32 {
        Hash32([number; 32])
    }

    const FIRST: Known = Known { request: Hash32::ZERO, durable: false };
    const SECOND: Known = Known { request: Hash32::ZERO, durable: true };

    #[test]
    fn the_oldest_half_goes_first() {
        let now = Instant::now();
        let mut map = Generations::new(2, Duration::from_secs(60), now);
        for number in 1..=4 {
            map.put(id(number), FIRST);
        }
        assert!((1..=4).all(|number| map.get(&id(number), now).is_some()));
        map.put(id(5), FIRST);
        let kept: Vec<_> = (1..=5).filter(|number| map.get(&id(*number), now).is_some()).collect();
        assert_eq!(kept, [3, 4, 5]);
    }

    #[test]
    fn writing_anew_outlives_the_first_write() {
        let now = Instant::now();
        let mut map = Generations::new(2, Duration::from_secs(60), now);
        map.put(id(1), FIRST);
        map.put(id(2), FIRST);
        map.put(id(2), FIRST);
        map.put(id(3), FIRST);
        map.put(id(1), SECOND);
        assert_eq!(map.get(&id(1), now), Some(SECOND));
        map.put(id(4), FIRST);
        assert_eq!(map.get(&id(1), now), Some(SECOND));
        assert_eq!(map.get(&id(2), now), None);
    }

    #[test]
    fn everything_goes_in_time() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut map = Generations::new(9, Duration::from_secs(60), begin);
        map.put(id(1), FIRST);
        assert_eq!(map.get(&id(1), at(59)), Some(FIRST));
        assert_eq!(map.get(&id(1), at(110)), Some(FIRST));
        map.put(id(2), FIRST);
        assert_eq!(map.get(&id(1), at(120)), None);
        assert_eq!(map.get(&id(2), at(120)), Some(FIRST));
        assert_eq!(map.get(&id(2), at(500)), None);
    }
}
