//! Where a partition can be read again behind damage that hides its own end: searched for in steps
//! that double until there is something to read, and then halve. So one call gets past any damage,
//! with a few fetches for each power of two of the offsets that it covers. Decides; does no IO.

use super::{assignment::Assignment, position::State, walk::Step, walk::Walk};
use crate::{error::ErrorCode, log::event, record::TopicPartition, wire::fetch::FetchPartitionResponse};

/// A search under way. Offsets up to `bad` cannot be read; from `good` on something can.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Search {
    bad: i64,
    good: Option<i64>,
    step: i64,
}

impl Search {
    /// What is at that offset cannot be read.
    pub(super) fn new(bad: i64) -> Self {
        Self { bad, good: None, step: 1 }
    }

    /// The offset to be tried next.
    fn probe(&self) -> i64 {
        match self.good {
            Some(good) => self.bad + (good - self.bad) / 2,
            None => self.bad.saturating_add(self.step),
        }
    }

    /// The first offset that can be read, once it is known.
    fn found(&self) -> Option<i64> {
        self.good.filter(|good| *good <= self.bad.saturating_add(1))
    }

    /// Nothing can be read at that offset.
    fn damaged(&mut self, at: i64) {
        self.bad = self.bad.max(at);
        self.step = self.step.saturating_mul(2);
    }

    /// The log can be read at `at`, where there is a batch that begins with offset `first`.
    fn sound(&mut self, at: i64, first: i64) {
        let from = first.min(at).max(self.bad.saturating_add(1));
        self.good = Some(self.good.map_or(from, |good| good.min(from)));
    }

    /// The damage reaches up to before that offset.
    fn ends_at(&mut self, end: i64) {
        (self.bad, self.good) = (end.saturating_sub(1), Some(end));
    }

    /// The log ends there, and whatever will come can be read.
    fn bound(&mut self, end: i64) {
        if self.good.is_none() && self.probe() >= end {
            self.good = Some(end.max(self.bad.saturating_add(1)));
        }
    }
}

impl Assignment {
    /// Begins to look for the first offset behind this one that can be read.
    pub(super) fn search(&mut self, partition: &TopicPartition, bad: i64) {
        self.begin(partition, State::Fetch { offset: bad.saturating_add(1), epoch: -1 }, false);
        if let Some(found) = self.partitions.get_mut(partition) {
            found.search = Some(Search::new(bad));
        }
        self.search_on(partition);
    }

    fn search_on(&mut self, partition: &TopicPartition) {
        let isolation = self.rules.isolation;
        let Some(found) = self.partitions.get_mut(partition) else { return };
        let Some(search) = &mut found.search else { return };
        if let Some(end) = found.seen.end(isolation) {
            search.bound(end);
        }
        let Some(offset) = search.found() else {
            let offset = search.probe();
            self.enter(partition, State::Fetch { offset, epoch: -1 });
            return;
        };
        event!(DEBUG, self.rules.origin, %partition, offset, "the damage ends here");
        found.search = None;
        found.queue.push_skip(offset);
        self.enter(partition, State::Fetch { offset, epoch: -1 });
        self.queue_up(partition);
        self.wake_reader_of(partition);
    }

    /// Takes an answer as an attempt to read behind damage, if that is what it is; whether it was.
    pub(super) fn searched(
        &mut self,
        id: i32,
        partition: &TopicPartition,
        at: i64,
        head: &FetchPartitionResponse,
        walk: &Walk,
    ) -> bool {
        let fetch_bytes = self.rules.partition_bytes;
        let Some(found) = self.partitions.get_mut(partition) else { return false };
        let more = walk.too_small && found.fetch_bytes < i32::MAX;
        let elsewhere = head.preferred_read_replica >= 0;
        // A replica nearby is left for its leader first, whatever is wrong with it.
        let nearby = found.nearby.node() == Some(id) && !head.error.is_ok();
        let Some(search) = found.search.as_mut().filter(|_| !nearby) else { return false };
        match head.error {
            ErrorCode::NONE if elsewhere || more => return false,
            ErrorCode::NONE => match (walk.steps.first(), walk.sound) {
                (Some(Step::Broken { end: Some(end), .. }), _) if *end > at => search.ends_at(*end),
                (None, Some(end)) if walk.too_small && end > at => search.ends_at(end),
                (None, _) if walk.too_small => search.damaged(at),
                (Some(Step::Broken { .. }), _) => search.damaged(at),
                (Some(Step::Batch(batch)), _) => search.sound(at, batch.header.base_offset),
                (Some(Step::Skip(_)) | None, _) => search.sound(at, at),
            },
            ErrorCode::CORRUPT_MESSAGE => search.damaged(at),
            // Behind the log's end there is no damage; and if it is the log's start that has moved,
            // this leads back to where the search began, and from there as the policy says.
            ErrorCode::OFFSET_OUT_OF_RANGE => search.sound(at, at),
            // It passes.
            _ => return false,
        }
        found.fetch_bytes = fetch_bytes;
        self.search_on(partition);
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Searches a log of `end` offsets in batches of `batch` of which those that overlap `damage`
    /// cannot be read. Gives what is found, and in how many fetches.
    fn run(damage: std::ops::Range<i64>, batch: i64, end: i64, knows_end: bool) -> (i64, usize) {
        let mut search = Search::new(damage.start);
        for fetches in 0.. {
            if knows_end {
                search.bound(end);
            }
            if let Some(found) = search.found() {
                return (found, fetches);
            }
            let at = search.probe();
            if at >= end {
                search.sound(at, at);
            } else if damage.contains(&at) {
                search.damaged(at);
            } else {
                search.sound(at, at / batch * batch);
            }
        }
        unreachable!()
    }

    #[test]
    fn the_end_of_the_log_is_the_end_of_the_search() {
        assert_eq!(run(10..15, 5, 15, true), (15, 3));
        let mut search = Search::new(10);
        search.bound(3);
        assert_eq!(search.found(), Some(11), "an end that lies before the damage says nothing");
    }

    #[test]
    fn damage_that_shows_its_end_needs_no_more_steps() {
        let mut search = Search::new(10);
        search.damaged(11);
        search.ends_at(400);
        assert_eq!(search.found(), Some(400));
    }

    proptest! {
        /// The first offset behind the damage is found, and in few steps.
        #[test]
        fn damage_is_left_behind_exactly(
            start in 0..1_000i64, batches in 1..40_000i64, batch in 1..500i64, more in 0..100i64, knows_end: bool,
        ) {
            let damage = start * batch..(start + batches) * batch;
            let end = damage.end + more * batch;
            let (found, fetches) = run(damage.clone(), batch, end, knows_end);
            prop_assert_eq!(found, damage.end);
            let bits = usize::try_from(64 - (batches * batch).leading_zeros()).unwrap();
            prop_assert!(fetches <= 2 * bits + 2, "{} fetches for {} bits", fetches, bits);
        }
    }
}
