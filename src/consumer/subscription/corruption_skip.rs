//! Where a partition can be read again behind damage that hides its own end: searched for in steps
//! that double until there is something to read, and then halve. So one call gets past any damage,
//! with a few fetches for each power of two of the offsets that it covers.
//!
//! Sans-IO.

use crate::consumer::{
    fetch::batch_scan::{ScannedEntry, ScannedSlice},
    state::ConsumerState,
    subscription::fetch_position::FetchState,
};
use crate::{error::ErrorCode, log::event, record::TopicPartition, wire::fetch::FetchPartitionResponse};

/// A search under way. Offsets up to `bad` cannot be read; from `good` on something can.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CorruptionSkip {
    corrupt: i64,
    readable: Option<i64>,
    step: i64,
}

impl CorruptionSkip {
    /// What is at that offset cannot be read.
    pub(crate) fn new(bad: i64) -> Self {
        Self { corrupt: bad, readable: None, step: 1 }
    }

    /// The offset to be tried next.
    fn probe(&self) -> i64 {
        match self.readable {
            Some(good) => self.corrupt + (good - self.corrupt) / 2,
            None => self.corrupt.saturating_add(self.step),
        }
    }

    /// The first offset that can be read, once it is known.
    fn first_readable(&self) -> Option<i64> {
        self.readable.filter(|good| *good <= self.corrupt.saturating_add(1))
    }

    /// Nothing can be read at that offset.
    fn corrupt_at(&mut self, at: i64) {
        self.corrupt = self.corrupt.max(at);
        self.step = self.step.saturating_mul(2);
    }

    /// The log can be read at `at`, where there is a batch that begins with offset `first`.
    fn readable_at(&mut self, at: i64, first: i64) {
        let from = first.min(at).max(self.corrupt.saturating_add(1));
        self.readable = Some(self.readable.map_or(from, |good| good.min(from)));
    }

    /// The damage reaches up to before that offset.
    fn corruption_ends_at(&mut self, end: i64) {
        (self.corrupt, self.readable) = (end.saturating_sub(1), Some(end));
    }

    /// The log ends there, and whatever will come can be read.
    fn log_ends_at(&mut self, end: i64) {
        if self.readable.is_none() && self.probe() >= end {
            self.readable = Some(end.max(self.corrupt.saturating_add(1)));
        }
    }
}

impl ConsumerState {
    /// Begins to look for the first offset behind this one that can be read.
    pub(crate) fn start_corruption_skip(&mut self, partition: &TopicPartition, bad: i64) {
        self.reposition(partition, FetchState::Fetching { offset: bad.saturating_add(1), epoch: -1 }, false);
        if let Some(state) = self.partitions.get_mut(partition) {
            state.corruption_skip = Some(CorruptionSkip::new(bad));
        }
        self.continue_corruption_skip(partition);
    }

    fn continue_corruption_skip(&mut self, partition: &TopicPartition) {
        let isolation = self.rules.isolation;
        let Some(state) = self.partitions.get_mut(partition) else { return };
        let Some(search) = &mut state.corruption_skip else { return };
        if let Some(end) = state.offsets.end(isolation) {
            search.log_ends_at(end);
        }
        let Some(offset) = search.first_readable() else {
            let offset = search.probe();
            self.enter_fetch_state(partition, FetchState::Fetching { offset, epoch: -1 });
            return;
        };
        event!(DEBUG, self.rules.origin, %partition, offset, "the damage ends here");
        state.corruption_skip = None;
        state.queue.push_skip(offset);
        self.enter_fetch_state(partition, FetchState::Fetching { offset, epoch: -1 });
        self.enqueue_for_delivery(partition);
        self.wake_reader_of(partition);
    }

    /// Takes an answer as an attempt to read behind damage, if that is what it is; whether it was.
    pub(crate) fn handle_probe(
        &mut self,
        id: i32,
        partition: &TopicPartition,
        at: i64,
        head: &FetchPartitionResponse,
        scan: &ScannedSlice,
    ) -> bool {
        let fetch_bytes = self.rules.partition_bytes;
        let Some(state) = self.partitions.get_mut(partition) else { return false };
        let more = scan.too_small && state.fetch_bytes < i32::MAX;
        let elsewhere = head.preferred_read_replica >= 0;
        // A replica nearby is left for its leader first, whatever is wrong with it.
        let replica = state.preferred_replica.node() == Some(id) && !head.error.is_ok();
        let Some(search) = state.corruption_skip.as_mut().filter(|_| !replica) else { return false };
        match head.error {
            ErrorCode::NONE if elsewhere || more => return false,
            ErrorCode::NONE => match (scan.entries.first(), scan.resync_offset) {
                (Some(ScannedEntry::Corrupt { end: Some(end), .. }), _) if *end > at => search.corruption_ends_at(*end),
                (None, Some(end)) if scan.too_small && end > at => search.corruption_ends_at(end),
                (None, _) if scan.too_small => search.corrupt_at(at),
                (Some(ScannedEntry::Corrupt { .. }), _) => search.corrupt_at(at),
                (Some(ScannedEntry::Batch(batch)), _) => search.readable_at(at, batch.header.base_offset),
                (Some(ScannedEntry::Skip(_)) | None, _) => search.readable_at(at, at),
            },
            ErrorCode::CORRUPT_MESSAGE => search.corrupt_at(at),
            // Behind the log's end there is no damage; and if it is the log's start that has moved,
            // this leads back to where the search began, and from there as the policy says.
            ErrorCode::OFFSET_OUT_OF_RANGE => search.readable_at(at, at),
            // It passes.
            _ => return false,
        }
        state.fetch_bytes = fetch_bytes;
        self.continue_corruption_skip(partition);
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::consumer::subscription::corruption_skip::*;

    /// Searches a log of `end` offsets in batches of `batch` of which those that overlap `damage`
    /// cannot be read. Gives what is found, and in how many fetches.
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
        assert_eq!(search.first_readable(), Some(11), "an end that lies before the damage says nothing");
    }

    #[test]
    fn known_damage_end_needs_no_more_steps() {
        let mut search = CorruptionSkip::new(10);
        search.corrupt_at(11);
        search.corruption_ends_at(400);
        assert_eq!(search.first_readable(), Some(400));
    }

    proptest! {
        /// The first offset behind the damage is found, and in few steps.
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
