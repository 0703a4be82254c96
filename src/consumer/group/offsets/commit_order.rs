//! The order in which commits were requested.
//!
//! One attempt is sent at a time. Attempts of other commits are sent between the attempts of one
//! commit, so that an error of one does not block the others. To keep committed offsets monotonic,
//! each attempt skips the partitions for which a completed commit satisfies the waiting one. It
//! does under these conditions:
//!
//! | waiting commit | completed commit | condition for the completed commit |
//! |---|---|---|
//! | by the user | by the user | it is the same commit, or was requested later |
//! | by the user | auto-commit | it was requested later, and its offset is at least as high |
//! | auto-commit | auto-commit | it is the same commit, or was requested later |
//! | auto-commit | by the user | it was requested later |
//! | auto-commit | by the user | it completed after that request, its offset is at least as high |
//!
//! The user's own commits may move the offset back, in the order of the calls. An auto-commit may
//! not move it back below a commit by the user, unless it was requested after that commit had
//! completed: then the reader has sought back since.
//!
//! For example, the user commits offset 60 as number 1, an auto-commit of 59 follows as number 2,
//! and number 1 completes first. Number 2 is satisfied, because it would move the committed offset
//! back. If it were an auto-commit of 80, it would not be, because the reader has gone on. Nor
//! would an auto-commit of 5 that is requested now, as number 3.
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
    last_requested: u64,
    in_flight: usize,
    /// The last commits of each partition, as long as a commit is under way that they can be
    /// compared with.
    completed: HashMap<TopicPartition, LastCommits>,
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
    /// The latest number that had been requested when it completed.
    completed_at: u64,
}

impl CompletedCommit {
    fn was_requested_after(&self, number: CommitNumber) -> bool {
        self.number > number.at
    }

    /// Returns true if it is that commit, or was requested after it.
    fn is_at_least(&self, number: CommitNumber) -> bool {
        self.number >= number.at
    }

    /// Returns true if it completed when that commit had already been requested.
    fn completed_after(&self, number: CommitNumber) -> bool {
        self.completed_at >= number.at
    }

    fn reaches(&self, offset: i64) -> bool {
        self.offset >= offset
    }
}

impl CommitOrder {
    /// Registers a commit; [`end`](Self::end) unregisters it.
    pub(crate) fn begin(&mut self, by_user: bool) -> CommitNumber {
        self.in_flight += 1;
        self.last_requested += 1;
        CommitNumber { at: self.last_requested, by_user }
    }

    pub(crate) fn end(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if self.in_flight == 0 {
            self.completed = HashMap::new();
        }
    }

    pub(crate) fn has_any_in_flight(&self) -> bool {
        self.in_flight > 0
    }

    /// Records a partition's committed offset for that number.
    pub(crate) fn committed(&mut self, partition: &TopicPartition, number: CommitNumber, offset: i64) {
        let completed = CompletedCommit { number: number.at, offset, completed_at: self.last_requested };
        let last = self.completed.entry(partition.clone()).or_default();
        let last = if number.by_user { &mut last.by_user } else { &mut last.auto };
        *last = Some(last.filter(|last| last.number > completed.number).unwrap_or(completed));
    }

    /// Returns true if a commit of that offset with that number need not be sent for a partition:
    /// see the table of this module.
    pub(crate) fn is_satisfied(&self, partition: &TopicPartition, number: CommitNumber, offset: i64) -> bool {
        let Some(LastCommits { by_user, auto }) = self.completed.get(partition) else { return false };
        if number.by_user {
            by_user.is_some_and(|user| user.is_at_least(number))
                || auto.is_some_and(|auto| auto.was_requested_after(number) && auto.reaches(offset))
        } else {
            auto.is_some_and(|auto| auto.is_at_least(number))
                || by_user.is_some_and(|user| {
                    user.was_requested_after(number) || (user.completed_after(number) && user.reaches(offset))
                })
        }
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
            assert!(order.completed.is_empty() && !order.has_any_in_flight());
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
