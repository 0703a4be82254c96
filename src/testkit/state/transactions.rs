//! The transactions of one partition's log (KIP-98): the open ones, the aborted ones, and the last
//! stable offset.
//!
//! As in Kafka's `ProducerStateManager` and transaction index: a transaction begins with the first
//! transactional batch of its producer and ends with that producer's next marker. Aborted
//! transactions are listed in the order of their markers, which is not that of their first offsets.
//!
//! Sans-IO.

use std::collections::BTreeMap;

/// A transaction that has its marker in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Completed {
    producer_id: i64,
    first_offset: i64,
    marker: i64,
    aborted: bool,
}

/// The transactions of one log.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    /// The first offset of each open transaction, by its producer.
    open: BTreeMap<i64, i64>,
    /// Completed transactions, in the order of their markers.
    completed: Vec<Completed>,
}

impl Transactions {
    /// Notes that a transactional batch of that producer was appended.
    pub(crate) fn appended(&mut self, producer_id: i64, base_offset: i64) {
        self.open.entry(producer_id).or_insert(base_offset);
    }

    /// Notes that that producer's marker was appended. A marker without an open transaction changes
    /// nothing.
    pub(crate) fn ended(&mut self, producer_id: i64, marker: i64, aborted: bool) {
        if let Some(first_offset) = self.open.remove(&producer_id) {
            self.completed.push(Completed { producer_id, first_offset, marker, aborted });
        }
    }

    /// Returns true if that producer has an open transaction.
    pub(crate) fn is_open(&self, producer_id: i64) -> bool {
        self.open.contains_key(&producer_id)
    }

    /// Returns the first offset of the first open transaction.
    pub(crate) fn first_unstable(&self) -> Option<i64> {
        self.open.values().copied().min()
    }

    /// Returns the aborted transactions that may concern a reader of the offsets from `from` up to
    /// before `to`: producer and first offset of each.
    pub(crate) fn aborted_between(&self, from: i64, to: i64) -> Vec<(i64, i64)> {
        let concerned = |done: &&Completed| done.aborted && done.marker >= from && done.first_offset < to;
        self.completed.iter().filter(concerned).map(|done| (done.producer_id, done.first_offset)).collect()
    }

    /// Forgets everything from `end` on, which the log has lost: transactions that lost their
    /// markers are open again.
    pub(crate) fn truncated(&mut self, end: i64) {
        while let Some(last) = self.completed.pop_if(|done| done.marker >= end) {
            // An open transaction of the same producer is younger, and is lost itself.
            self.open.insert(last.producer_id, last.first_offset);
        }
        self.open.retain(|_, first_offset| *first_offset < end);
    }

    /// Forgets everything before `start`, which the log has lost.
    pub(crate) fn deleted_before(&mut self, start: i64) {
        self.completed.retain(|done| done.marker >= start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Producer 1 at 0, 2 at 1, 1 aborted at 3, 2 aborted at 4, 1 again at 5, committed at 6, 3
    /// open from 7 on.
    fn transactions() -> Transactions {
        let mut transactions = Transactions::default();
        transactions.appended(1, 0);
        transactions.appended(2, 1);
        transactions.appended(1, 2);
        transactions.ended(2, 3, true);
        transactions.ended(1, 4, true);
        transactions.appended(1, 5);
        transactions.ended(1, 6, false);
        transactions.appended(3, 7);
        transactions
    }

    #[test]
    fn aborted_transactions_are_ordered_by_marker_offset() {
        let transactions = transactions();
        assert_eq!(transactions.aborted_between(0, 10), [(2, 1), (1, 0)]);
        assert_eq!(transactions.aborted_between(0, 1), [(1, 0)], "the other transaction begins after the offsets read");
        assert_eq!(transactions.aborted_between(4, 10), [(1, 0)], "the other transaction ended before");
        assert_eq!(transactions.aborted_between(5, 10), []);
    }

    #[test]
    fn open_transaction_limits_last_stable_offset() {
        let mut transactions = transactions();
        assert_eq!(transactions.first_unstable(), Some(7));
        assert!(transactions.is_open(3) && !transactions.is_open(1));
        transactions.ended(3, 8, false);
        transactions.ended(3, 9, true);
        assert_eq!((transactions.first_unstable(), transactions.aborted_between(7, 10)), (None, vec![]));
    }

    #[test]
    fn truncation_reopens_transactions_without_their_markers() {
        let mut transactions = transactions();
        transactions.truncated(4);
        assert_eq!(transactions.first_unstable(), Some(0));
        assert_eq!(transactions.aborted_between(0, 10), [(2, 1)]);
        assert!(!transactions.is_open(3));
        transactions.truncated(0);
        assert_eq!(transactions.first_unstable(), None);
    }

    #[test]
    fn deletion_drops_aborted_transactions_before_start() {
        let mut transactions = transactions();
        transactions.deleted_before(4);
        assert_eq!(transactions.aborted_between(0, 10), [(1, 0)]);
    }
}
