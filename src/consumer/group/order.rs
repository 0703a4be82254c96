//! In which order commits were asked for. Decides; does no IO.
//!
//! One attempt goes out at a time. Between the attempts of one commit others go, so that none waits for what is in the way
//! of another one alone. For that no partition goes back: what was committed of it for somebody who asked later is left out
//! of the next attempt. What is committed by itself gives way to whatever the user commits of a partition meanwhile, and
//! never stands for it.

use std::collections::HashMap;

use crate::record::TopicPartition;

/// When a commit was asked for, among others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Number {
    pub(super) at: u64,
    /// By the user, and not by the consumer itself.
    pub(super) by_user: bool,
}

#[derive(Debug, Default)]
pub(super) struct Order {
    last: u64,
    under_way: usize,
    /// For whom each partition was committed last, as long as there is somebody to compare that with.
    committed: HashMap<TopicPartition, Last>,
}

/// The last numbers that a partition was committed for.
#[derive(Debug, Default)]
struct Last {
    by_user: Option<u64>,
    by_itself: Option<u64>,
}

impl Order {
    /// A commit is asked for. [`ended`](Self::ended) says when nothing more comes of it.
    pub(super) fn begun(&mut self, by_user: bool) -> Number {
        self.under_way += 1;
        self.last += 1;
        Number { at: self.last, by_user }
    }

    pub(super) fn ended(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
        if self.under_way == 0 {
            self.committed = HashMap::new();
        }
    }

    pub(super) fn is_any_under_way(&self) -> bool {
        self.under_way > 0
    }

    /// A partition was committed for that number.
    pub(super) fn committed(&mut self, partition: &TopicPartition, number: Number) {
        let last = self.committed.entry(partition.clone()).or_default();
        let last = if number.by_user { &mut last.by_user } else { &mut last.by_itself };
        *last = (*last).max(Some(number.at));
    }

    /// Whether a commit with that number has nothing more to do for a partition.
    pub(super) fn is_through(&self, partition: &TopicPartition, number: Number) -> bool {
        let Some(last) = self.committed.get(partition) else { return false };
        let reached = |last: Option<u64>| last.is_some_and(|last| last >= number.at);
        if number.by_user { reached(last.by_user) } else { last.by_user.is_some() || reached(last.by_itself) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_later_counts_and_nothing_is_kept_for_nobody() {
        for by_user in [true, false] {
            let mut order = Order::default();
            let (t, u) = (TopicPartition::new("t", 0), TopicPartition::new("u", 0));
            let (first, second, third) = (order.begun(by_user), order.begun(by_user), order.begun(by_user));
            order.committed(&t, second);
            order.committed(&t, first);
            assert!(order.is_through(&t, first) && order.is_through(&t, second));
            assert!(!order.is_through(&t, third) && !order.is_through(&u, first));
            order.ended();
            order.ended();
            assert!(order.is_through(&t, first), "one of them may still ask");
            order.ended();
            assert!(order.committed.is_empty() && !order.is_any_under_way());
            assert!(!order.is_through(&t, third));
        }
    }

    #[test]
    fn what_the_user_commits_counts_before_what_is_committed_by_itself() {
        let mut order = Order::default();
        let t = TopicPartition::new("t", 0);
        let (asked, by_itself) = (order.begun(true), order.begun(false));
        order.committed(&t, by_itself);
        assert!(!order.is_through(&t, asked), "it does not stand for it");
        order.committed(&t, asked);
        let (by_itself, again) = (order.begun(false), order.begun(true));
        assert!(order.is_through(&t, by_itself), "it gives way");
        assert!(!order.is_through(&t, again));
    }
}
