//! In which order commits were asked for. Decides; does no IO.
//!
//! One attempt goes out at a time. Between the attempts of one commit others go, so that none waits
//! for what is in the way of another one alone. For that no partition goes back: what was committed
//! of it for somebody who asked later is left out of the next attempt. Between what the user
//! commits and what is committed by itself the offsets count as well: the latter gives way to what
//! the user asked for later, or got through with meanwhile for as much, and stands for what the
//! user asked for earlier where it is as much.

use std::collections::HashMap;

use crate::record::TopicPartition;

/// When a commit was asked for, among others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Number {
    pub(super) at: u64,
    /// By the user, and not by the consumer itself.
    pub(super) by_user: bool,
}

/// Who asks for a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    /// The user, and not the consumer itself.
    pub(crate) by_user: bool,
    /// The number of the last positioning of any partition: what is positioned later has nothing to
    /// do with it.
    pub(crate) positioned: u64,
}

#[derive(Debug, Default)]
pub(super) struct Order {
    last: u64,
    under_way: usize,
    /// For whom each partition was committed last, as long as there is somebody to compare that
    /// with.
    committed: HashMap<TopicPartition, Last>,
}

/// What a partition was committed for last.
#[derive(Debug, Default)]
struct Last {
    by_user: Option<Done>,
    by_itself: Option<Done>,
}

#[derive(Clone, Copy, Debug)]
struct Done {
    number: u64,
    offset: i64,
    /// The last number that had been asked for when it got through.
    seen: u64,
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

    /// That offset of a partition was committed for that number.
    pub(super) fn committed(&mut self, partition: &TopicPartition, number: Number, offset: i64) {
        let done = Done { number: number.at, offset, seen: self.last };
        let last = self.committed.entry(partition.clone()).or_default();
        let last = if number.by_user { &mut last.by_user } else { &mut last.by_itself };
        *last = Some(last.filter(|last| last.number > done.number).unwrap_or(done));
    }

    /// Whether a commit of that offset with that number has nothing more to do for a partition.
    pub(super) fn is_through(&self, partition: &TopicPartition, number: Number, offset: i64) -> bool {
        let Some(Last { by_user, by_itself }) = self.committed.get(partition) else { return false };
        let (own, other) = if number.by_user { (by_user, by_itself) } else { (by_itself, by_user) };
        let stands_for = |other: &Done| match number.by_user {
            true => other.number > number.at && other.offset >= offset,
            false => other.number > number.at || (other.seen >= number.at && other.offset >= offset),
        };
        own.is_some_and(|own| own.number >= number.at) || other.as_ref().is_some_and(stands_for)
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
            order.committed(&t, second, 5);
            order.committed(&t, first, 9);
            assert!(order.is_through(&t, first, 9) && order.is_through(&t, second, 5));
            assert!(!order.is_through(&t, third, 1) && !order.is_through(&u, first, 1));
            order.ended();
            order.ended();
            assert!(order.is_through(&t, first, 9), "one of them may still ask");
            order.ended();
            assert!(order.committed.is_empty() && !order.is_any_under_way());
            assert!(!order.is_through(&t, third, 1));
        }
    }

    #[test]
    fn what_is_committed_by_itself_stands_for_what_the_user_asked_for_before_where_it_is_as_much() {
        let mut order = Order::default();
        let t = TopicPartition::new("t", 0);
        let (asked, by_itself, later) = (order.begun(true), order.begun(false), order.begun(true));
        order.committed(&t, by_itself, 80);
        assert!(order.is_through(&t, asked, 60) && order.is_through(&t, asked, 80), "it would go back");
        assert!(!order.is_through(&t, asked, 81) && !order.is_through(&t, later, 60));
    }

    #[test]
    fn what_is_committed_by_itself_gives_way_to_the_user_but_does_not_get_lost() {
        let mut order = Order::default();
        let t = TopicPartition::new("t", 0);
        let (asked, by_itself, later) = (order.begun(true), order.begun(false), order.begun(true));
        order.committed(&t, asked, 60);
        assert!(order.is_through(&t, by_itself, 59), "as much was committed since it was asked for");
        assert!(!order.is_through(&t, by_itself, 80), "the reader went on");
        order.committed(&t, later, 7);
        assert!(order.is_through(&t, by_itself, 80), "the user's later word");
        let sought = order.begun(false);
        assert!(!order.is_through(&t, sought, 5), "asked for when that was known");
    }
}
