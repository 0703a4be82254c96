//! Checks the records that a consumer received, independently of the client and the network.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use protocol_tests::transact::{Ending, Transaction};

/// Maximum number of errors that are described.
const EXAMPLES: usize = 10;

/// All records that a consumer has received so far.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    /// Per partition: the offset after the last record.
    pub(crate) next: Vec<i64>,
    /// Per partition: a hash of all offsets and values in their order.
    digests: Vec<DefaultHasher>,
    pub(crate) records: u64,
    pub(crate) wrong: u64,
    pub(crate) examples: Vec<String>,
    /// By producer and transaction: number of records in each partition.
    transactions: HashMap<(usize, u64), Vec<u32>>,
    /// By producer and partition: the last transaction with a record.
    last: HashMap<(usize, usize), u64>,
}

impl Seen {
    pub(crate) fn new(partitions: usize) -> Self {
        Self { next: vec![0; partitions], digests: vec![DefaultHasher::new(); partitions], ..Self::default() }
    }

    pub(crate) fn blame(&mut self, what: String) {
        self.wrong += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(what);
        }
    }

    /// Notes a received record; in a log without `gaps` every offset holds one.
    pub(crate) fn record(&mut self, partition: i32, offset: i64, value: &[u8], gaps: bool) {
        let Some(at) = usize::try_from(partition).ok().filter(|at| *at < self.next.len()) else {
            return self.blame(format!("a record of partition {partition}"));
        };
        let expected = std::mem::replace(&mut self.next[at], offset + 1);
        if offset < expected {
            self.blame(format!("[{at}]@{offset} arrived after {}", expected - 1));
        } else if offset > expected && !gaps {
            self.blame(format!("[{at}]: {expected} to {} were skipped", offset - 1));
        }
        self.records += 1;
        (offset, value).hash(&mut self.digests[at]);
        if gaps {
            self.of_transaction(at, offset, value);
        }
    }

    fn of_transaction(&mut self, at: usize, offset: i64, value: &[u8]) {
        let text = std::str::from_utf8(value).unwrap_or_default();
        let numbers: Vec<u64> = text.split(':').filter_map(|part| part.parse().ok()).collect();
        let [producer, transaction, partition, number] = numbers[..] else {
            return self.blame(format!("[{at}]@{offset} holds something else: {text:.40}"));
        };
        let producer = producer as usize;
        let partitions = self.next.len();
        let counts = self.transactions.entry((producer, transaction)).or_insert_with(|| vec![0; partitions]);
        let expected = u64::from(counts[at]);
        counts[at] += 1;
        let before = self.last.insert((producer, at), transaction);
        if partition as usize != at || number != expected || before.is_some_and(|before| before > transaction) {
            self.blame(format!("[{at}]@{offset} is {text}, expected number {expected}, after transaction {before:?}"));
        }
    }

    /// Compares the received records with the results of the transactions.
    pub(crate) fn judge(&mut self, ended: &[Transaction]) {
        let mut transactions = std::mem::take(&mut self.transactions);
        for Transaction { ending, producer, number, counts } in ended {
            let none = vec![0; counts.len()];
            let got = transactions.remove(&(*producer, *number)).unwrap_or_else(|| none.clone());
            let right = match ending {
                Ending::Committed => got == *counts,
                Ending::Aborted => got == none,
                Ending::Unknown => got == *counts || got == none,
            };
            if !right {
                self.blame(format!("{producer}:{number} {ending:?} with {counts:?}, of which {got:?} arrived"));
            }
        }
        for (transaction, counts) in transactions {
            self.blame(format!("{counts:?} of {transaction:?}, which is not reported"));
        }
    }

    /// Returns a hash of everything, for comparison with another consumer's.
    pub(crate) fn digest(&self) -> Vec<u64> {
        self.digests.iter().map(DefaultHasher::finish).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_skipped_and_duplicate_offsets_as_wrong() {
        let mut seen = Seen::new(1);
        (0..3).for_each(|offset| seen.record(0, offset, b"v", false));
        assert_eq!((seen.wrong, seen.records), (0, 3));
        let other = seen.clone();
        assert_eq!(seen.digest(), other.digest());
        seen.record(0, 4, b"v", false);
        seen.record(0, 4, b"v", false);
        assert_eq!(seen.wrong, 2, "{:?}", seen.examples);
        assert_ne!(seen.digest(), other.digest());
    }

    #[test]
    fn partial_or_aborted_transactions_are_wrong() {
        let of = |ending, counts: &[u32]| Transaction { ending, producer: 1, number: 7, counts: counts.to_vec() };
        let mut seen = Seen::new(2);
        seen.record(0, 5, b"1:7:0:0", true);
        seen.record(1, 2, b"1:7:1:0", true);
        seen.record(0, 9, b"1:7:0:1", true);
        assert_eq!(seen.wrong, 0, "{:?}", seen.examples);
        for (ended, wrong) in [
            (of(Ending::Committed, &[2, 1]), 0),
            (of(Ending::Unknown, &[2, 1]), 0),
            (of(Ending::Committed, &[2, 2]), 1),
            (of(Ending::Aborted, &[2, 1]), 1),
        ] {
            let mut seen = seen.clone();
            seen.judge(&[ended]);
            assert_eq!(seen.wrong, wrong, "{:?}", seen.examples);
        }
        seen.judge(&[]);
        assert_eq!(seen.wrong, 1, "it is not reported");
        seen.record(0, 10, b"1:6:0:0", true);
        assert_eq!(seen.wrong, 2, "{:?}", seen.examples);
    }
}
