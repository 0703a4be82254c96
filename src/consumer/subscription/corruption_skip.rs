//! Searches for the offset where a partition can be read again after damage that hides its own end:
//! in steps that double until there is something to read, and then halve. So one call gets past any
//! damage, with a few fetches for each power of two of the offsets that it covers.
//!
//! Sans-IO.

/// A search under way. Offsets up to `corrupt` cannot be read; the log can be read again at
/// `readable`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CorruptionSkip {
    corrupt: i64,
    readable: Option<i64>,
    step: i64,
}

impl CorruptionSkip {
    /// Starts a search after an offset that cannot be read.
    pub(crate) fn new(bad: i64) -> Self {
        Self { corrupt: bad, readable: None, step: 1 }
    }

    /// Returns the offset to fetch next.
    pub(crate) fn probe(&self) -> i64 {
        match self.readable {
            Some(good) => self.corrupt + (good - self.corrupt) / 2,
            None => self.corrupt.saturating_add(self.step),
        }
    }

    /// Returns the first offset that can be read, once it is known.
    pub(crate) fn first_readable(&self) -> Option<i64> {
        self.readable.filter(|good| *good <= self.corrupt.saturating_add(1))
    }

    /// Records that nothing can be read at that offset.
    pub(crate) fn corrupt_at(&mut self, at: i64) {
        self.corrupt = self.corrupt.max(at);
        self.step = self.step.saturating_mul(2);
    }

    /// Records that the log can be read at `at`, where a batch begins with offset `first`.
    pub(crate) fn readable_at(&mut self, at: i64, first: i64) {
        let from = first.min(at).max(self.corrupt.saturating_add(1));
        self.readable = Some(self.readable.map_or(from, |good| good.min(from)));
    }

    /// Records that the damage ends before that offset.
    pub(crate) fn corruption_ends_at(&mut self, end: i64) {
        (self.corrupt, self.readable) = (end.saturating_sub(1), Some(end));
    }

    /// Records that the log ends there; all records after its end will be readable.
    pub(crate) fn log_ends_at(&mut self, end: i64) {
        if self.readable.is_none() && self.probe() >= end {
            self.readable = Some(end.max(self.corrupt.saturating_add(1)));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::consumer::subscription::corruption_skip::*;

    /// Searches a log of `end` offsets in batches of `batch`, of which those that overlap `damage`
    /// cannot be read. Returns the offset found and the number of fetches.
    fn run(damage: std::ops::Range<i64>, batch: i64, end: i64, knows_end: bool) -> (i64, usize) {
        let mut search = CorruptionSkip::new(damage.start);
        for fetches in 0.. {
            if knows_end {
                search.log_ends_at(end);
            }
            if let Some(state) = search.first_readable() {
                return (state, fetches);
            }
            let at = search.probe();
            if at >= end {
                search.readable_at(at, at);
            } else if damage.contains(&at) {
                search.corrupt_at(at);
            } else {
                search.readable_at(at, at / batch * batch);
            }
        }
        unreachable!()
    }

    #[test]
    fn skip_ends_at_log_end() {
        assert_eq!(run(10..15, 5, 15, true), (15, 3));
        let mut search = CorruptionSkip::new(10);
        search.log_ends_at(3);
        assert_eq!(search.first_readable(), Some(11), "a log end before the damage is ignored");
    }

    #[test]
    fn known_damage_end_needs_no_more_steps() {
        let mut search = CorruptionSkip::new(10);
        search.corrupt_at(11);
        search.corruption_ends_at(400);
        assert_eq!(search.first_readable(), Some(400));
    }

    proptest! {
        /// The first offset after the damage is found, in few steps.
        #[test]
        fn skips_damage_exactly_in_few_fetches(
            start in 0..1_000i64, batches in 1..40_000i64, batch in 1..500i64, more in 0..100i64, knows_end: bool,
        ) {
            let damage = start * batch..(start + batches) * batch;
            let end = damage.end + more * batch;
            let (state, fetches) = run(damage.clone(), batch, end, knows_end);
            prop_assert_eq!(state, damage.end);
            let bits = usize::try_from(64 - (batches * batch).leading_zeros()).unwrap();
            prop_assert!(fetches <= 2 * bits + 2, "{} fetches for {} bits", fetches, bits);
        }
    }
}
