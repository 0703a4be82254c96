//! The order in which commits were requested.
//!
//! One attempt is sent at a time. Attempts of other commits are sent between the attempts of one
//! commit, so that an error of one does not block the others. To keep committed offsets monotonic,
//! each attempt skips partitions for which a later request has already succeeded. User commits and
//! auto-commits are also compared by offset. An auto-commit is skipped if a later user commit
//! succeeded, or if one with an equal or higher offset succeeded after the auto-commit was
//! requested. An auto-commit satisfies an earlier user commit if its offset is at least as high.
//!
//! Sans-IO.

use std::collections::HashMap;

use crate::record::TopicPartition;

/// A commit's place in the order of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CommitNumber {
    pub(crate) at: u64,
    /// True if the user requested it, false for an auto-commit.
    pub(crate) by_user: bool,
}

/// Origin of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommitOrigin {
    /// True if the user requested it, false for an auto-commit.
    pub(crate) by_user: bool,
    /// The latest seek epoch of any partition at the request: later positionings are not affected
    /// by it.
    pub(crate) seek_epoch: u64,
}

#[derive(Debug, Default)]
pub(crate) struct CommitOrder {
    last: u64,
    in_flight: usize,
    /// The last commits of each partition, as long as a commit is under way that they can be
    /// compared with.
    committed: HashMap<TopicPartition, LastCommits>,
}

/// The last successful commits of a partition.
#[derive(Debug, Default)]
struct LastCommits {
    by_user: Option<CompletedCommit>,
    auto: Option<CompletedCommit>,
}

#[derive(Clone, Copy, Debug)]
struct CompletedCommit {
    number: u64,
    offset: i64,
    /// The latest number that had been requested when it succeeded.
    seen: u64,
}

impl CommitOrder {
    /// Registers a commit; [`end`](Self::end) unregisters it.
    pub(crate) fn begin(&mut self, by_user: bool) -> CommitNumber {
        self.in_flight += 1;
        self.last += 1;
        CommitNumber { at: self.last, by_user }
    }

    pub(crate) fn end(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if self.in_flight == 0 {
            self.committed = HashMap::new();
        }
    }

    pub(crate) fn has_any_in_flight(&self) -> bool {
        self.in_flight > 0
    }

    /// Records a partition's committed offset for that number.
    pub(crate) fn committed(&mut self, partition: &TopicPartition, number: CommitNumber, offset: i64) {
        let done = CompletedCommit { number: number.at, offset, seen: self.last };
        let last = self.committed.entry(partition.clone()).or_default();
        let last = if number.by_user { &mut last.by_user } else { &mut last.auto };
        *last = Some(last.filter(|last| last.number > done.number).unwrap_or(done));
    }

    /// Returns true if a commit of that offset with that number need not be sent for a partition.
    pub(crate) fn is_satisfied(&self, partition: &TopicPartition, number: CommitNumber, offset: i64) -> bool {
        let Some(LastCommits { by_user, auto: by_itself }) = self.committed.get(partition) else { return false };
        let (own, other) = if number.by_user { (by_user, by_itself) } else { (by_itself, by_user) };
        let stands_for = |other: &CompletedCommit| match number.by_user {
            true => other.number > number.at && other.offset >= offset,
            false => other.number > number.at || (other.seen >= number.at && other.offset >= offset),
        };
        own.is_some_and(|own| own.number >= number.at) || other.as_ref().is_some_and(stands_for)
    }
}

#[cfg(test)]
mod tests {
    use crate::consumer::group::offsets::commit_order::*;

    #[test]
    fn later_commit_supersedes_earlier_until_all_end() {
        for by_user in [true, false] {
            let mut order = CommitOrder::default();
            let (t, u) = (TopicPartition::new("t", 0), TopicPartition::new("u", 0));
            let (first, second, third) = (order.begin(by_user), order.begin(by_user), order.begin(by_user));
            order.committed(&t, second, 5);
            order.committed(&t, first, 9);
            assert!(order.is_satisfied(&t, first, 9) && order.is_satisfied(&t, second, 5));
            assert!(!order.is_satisfied(&t, third, 1) && !order.is_satisfied(&u, first, 1));
            order.end();
            order.end();
            assert!(order.is_satisfied(&t, first, 9), "a commit is still under way");
            order.end();
            assert!(order.committed.is_empty() && !order.has_any_in_flight());
            assert!(!order.is_satisfied(&t, third, 1));
        }
    }

    #[test]
    fn automatic_commit_covers_earlier_lower_user_commit() {
        let mut order = CommitOrder::default();
        let t = TopicPartition::new("t", 0);
        let (asked, by_itself, later) = (order.begin(true), order.begin(false), order.begin(true));
        order.committed(&t, by_itself, 80);
        assert!(
            order.is_satisfied(&t, asked, 60) && order.is_satisfied(&t, asked, 80),
            "the committed offset would go back"
        );
        assert!(!order.is_satisfied(&t, asked, 81) && !order.is_satisfied(&t, later, 60));
    }

    #[test]
    fn user_commit_covers_lower_automatic_commit() {
        let mut order = CommitOrder::default();
        let t = TopicPartition::new("t", 0);
        let (asked, by_itself, later) = (order.begin(true), order.begin(false), order.begin(true));
        order.committed(&t, asked, 60);
        assert!(order.is_satisfied(&t, by_itself, 59), "an equal offset was committed after the request");
        assert!(!order.is_satisfied(&t, by_itself, 80), "the reader went on");
        order.committed(&t, later, 7);
        assert!(order.is_satisfied(&t, by_itself, 80), "a later user commit counts");
        let sought = order.begin(false);
        assert!(!order.is_satisfied(&t, sought, 5), "requested after that commit");
    }
}
