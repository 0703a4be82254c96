//! The transactions of one pass.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use crate::Work;

/// The transactions of one pass, and the latency of each commit.
pub struct Transactions {
    end: Instant,
    size: u64,
    most: u64,
    sent: u64,
    latencies: Vec<Duration>,
}

impl Transactions {
    /// Begins a pass of that length. The last transaction begins before its end.
    pub fn start(work: &Work, time: Duration) -> Self {
        let (size, most) = (work.transaction, work.records);
        Self { end: Instant::now() + time, size, most, sent: 0, latencies: Vec::new() }
    }

    /// Returns the numbers of the records of the next transaction; `None` if the pass is over.
    pub fn next_records(&mut self) -> Option<Range<u64>> {
        let first = self.sent;
        if first == self.most || Instant::now() >= self.end {
            return None;
        }
        self.sent = first.saturating_add(self.size).min(self.most);
        Some(first..self.sent)
    }

    /// Notes a commit that succeeded. `since` is the time at which the program asked for it.
    pub fn committed(&mut self, since: Instant) {
        self.latencies.push(since.elapsed());
    }

    /// Returns the number of records, and the latencies of the commits.
    pub fn finish(self) -> (u64, Vec<Duration>) {
        (self.sent, self.latencies)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transactions(time: Duration, size: u64, most: u64) -> Transactions {
        Transactions { end: Instant::now() + time, size, most, sent: 0, latencies: Vec::new() }
    }

    #[test]
    fn last_transaction_has_remaining_records() {
        let mut pass = transactions(Duration::from_secs(60), 100, 250);
        for records in [0..100, 100..200, 200..250] {
            assert_eq!(pass.next_records(), Some(records));
            pass.committed(Instant::now());
        }
        assert_eq!(pass.next_records(), None);
        let (sent, latencies) = pass.finish();
        assert_eq!((sent, latencies.len()), (250, 3));
    }

    #[test]
    fn no_transaction_begins_after_end_of_pass() {
        assert_eq!(transactions(Duration::ZERO, 100, 250).next_records(), None);
    }
}
