//! In which order commits were asked for.
//!
//! One attempt goes out at a time. Between the attempts of one commit others go, so that none waits
//! for what is in the way of another one alone. For that no partition goes back: what was committed
//! of it for somebody who asked later is left out of the next attempt. Between what the user
//! commits and what is committed by itself the offsets count as well: the latter gives way to what
//! the user asked for later, or got through with meanwhile for as much, and stands for what the
//! user asked for earlier where it is as much.
//!
//! Sans-IO.

use std::collections::HashMap;

use crate::record::TopicPartition;

/// When a commit was asked for, among others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CommitNumber {
    pub(crate) at: u64,
    /// By the user, and not by the consumer itself.
    pub(crate) by_user: bool,
}

/// Who asks for a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommitOrigin {
    /// The user, and not the consumer itself.
    pub(crate) by_user: bool,
    /// The number of the last positioning of any partition: what is positioned later has nothing to
    /// do with it.
    pub(crate) seek_epoch: u64,
}

#[derive(Debug, Default)]
pub(crate) struct CommitOrder {
    last: u64,
    in_flight: usize,
    /// For whom each partition was committed last, as long as there is somebody to compare that
    /// with.
    committed: HashMap<TopicPartition, LastCommits>,
}

/// What a partition was committed for last.
#[derive(Debug, Default)]
struct LastCommits {
    by_user: Option<CompletedCommit>,
    auto: Option<CompletedCommit>,
}

#[derive(Clone, Copy, Debug)]
struct CompletedCommit {
    number: u64,
    offset: i64,
    /// The last number that had been asked for when it got through.
    seen: u64,
}

impl CommitOrder {
    /// A commit is asked for. [`ended`](Self::ended) says when nothing more comes of it.
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

    /// That offset of a partition was committed for that number.
    pub(crate) fn committed(&mut self, partition: &TopicPartition, number: CommitNumber, offset: i64) {
        let done = CompletedCommit { number: number.at, offset, seen: self.last };
        let last = self.committed.entry(partition.clone()).or_default();
        let last = if number.by_user { &mut last.by_user } else { &mut last.auto };
        *last = Some(last.filter(|last| last.number > done.number).unwrap_or(done));
    }

    /// Whether a commit of that offset with that number has nothing more to do for a partition.
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
            assert!(order.is_satisfied(&t, first, 9), "one of them may still ask");
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
        assert!(order.is_satisfied(&t, asked, 60) && order.is_satisfied(&t, asked, 80), "it would go back");
        assert!(!order.is_satisfied(&t, asked, 81) && !order.is_satisfied(&t, later, 60));
    }

    #[test]
    fn user_commit_covers_lower_automatic_commit() {
        let mut order = CommitOrder::default();
        let t = TopicPartition::new("t", 0);
        let (asked, by_itself, later) = (order.begin(true), order.begin(false), order.begin(true));
        order.committed(&t, asked, 60);
        assert!(order.is_satisfied(&t, by_itself, 59), "as much was committed since it was asked for");
        assert!(!order.is_satisfied(&t, by_itself, 80), "the reader went on");
        order.committed(&t, later, 7);
        assert!(order.is_satisfied(&t, by_itself, 80), "the user's later word");
        let sought = order.begin(false);
        assert!(!order.is_satisfied(&t, sought, 5), "asked for when that was known");
    }
}
