//! What a transactional producer has counted.

use std::time::Instant;

use super::{
    outcome::Outcome,
    status::{TransactionState, TransactionStatus},
};
use crate::histogram::Histogram;

/// Counts the transactions of a producer and the times of their phases, in
/// [`ProducerMetrics::transactions`](crate::producer::ProducerMetrics::transactions).
///
/// A phase is timed when it ends. Those without a request to wait for are left out.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct TransactionMetrics {
    /// Transactions that were begun.
    pub begun: u64,
    /// Transactions of these that were committed.
    pub committed: u64,
    /// Transactions that were aborted, by the program or because they have failed.
    pub aborted: u64,
    /// Transactions of which it is not known whether they were committed.
    pub unknown: u64,
    /// Microseconds of each initialization: the first one, and those that raise the epoch (Java:
    /// `txn-init-time-ns-total`).
    pub init_micros: Histogram,
    /// Microseconds from a commit to the last result of the transaction's records and offsets.
    pub flush_micros: Histogram,
    /// Microseconds from there to the coordinator's confirmation (Java: `txn-commit-time-ns-total`,
    /// which includes the former).
    pub commit_micros: Histogram,
    /// Microseconds from an abort or a failed commit to the coordinator's confirmation (Java:
    /// `txn-abort-time-ns-total`).
    pub abort_micros: Histogram,
}

/// A time in which the producer waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Initializing,
    Flushing,
    Committing,
    Aborting,
}

/// Counts from the states that the task publishes.
#[derive(Debug, Default)]
pub(crate) struct TransactionCounters {
    metrics: TransactionMetrics,
    phase: Option<(Phase, Instant)>,
}

impl TransactionCounters {
    /// Takes the state at this time.
    pub(crate) fn published(&mut self, status: &TransactionStatus, now: Instant) {
        self.metrics.begun = status.number;
        let phase = match status.state {
            TransactionState::Initializing => Some(Phase::Initializing),
            TransactionState::Flushing => Some(Phase::Flushing),
            TransactionState::Committing => Some(Phase::Committing),
            TransactionState::Draining | TransactionState::Aborting => Some(Phase::Aborting),
            TransactionState::Uninitialized
            | TransactionState::Ready
            | TransactionState::Open
            | TransactionState::Failed
            | TransactionState::Fatal(_) => None,
        };
        if phase == self.phase.map(|(phase, _)| phase) {
            return;
        }
        if let Some((ended, since)) = std::mem::replace(&mut self.phase, phase.map(|phase| (phase, now))) {
            let histogram = match ended {
                Phase::Initializing => &mut self.metrics.init_micros,
                Phase::Flushing => &mut self.metrics.flush_micros,
                Phase::Committing => &mut self.metrics.commit_micros,
                Phase::Aborting => &mut self.metrics.abort_micros,
            };
            histogram.record_micros(now.saturating_duration_since(since));
        }
    }

    /// Takes the outcome of another transaction.
    pub(crate) fn ended(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Committed => self.metrics.committed += 1,
            Outcome::Aborted(_) => self.metrics.aborted += 1,
            Outcome::Unknown(_) => self.metrics.unknown += 1,
        }
    }

    pub(crate) fn metrics(&self) -> TransactionMetrics {
        self.metrics.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::Error;

    #[test]
    fn phases_are_timed_when_they_end() {
        let mut counters = TransactionCounters::default();
        let mut now = Instant::now();
        let mut publish = |state, millis| {
            now += Duration::from_millis(millis);
            counters.published(&TransactionStatus { state, number: 1, ..TransactionStatus::uninitialized() }, now);
        };
        publish(TransactionState::Initializing, 0);
        publish(TransactionState::Open, 5);
        publish(TransactionState::Flushing, 100);
        publish(TransactionState::Flushing, 1);
        publish(TransactionState::Committing, 2);
        publish(TransactionState::Ready, 7);
        publish(TransactionState::Draining, 0);
        publish(TransactionState::Aborting, 4);
        publish(TransactionState::Ready, 5);
        for outcome in [Outcome::Committed, Outcome::Aborted(None), Outcome::Unknown(Error::timeout("x"))] {
            counters.ended(&outcome);
        }
        let metrics = counters.metrics();
        assert_eq!((metrics.begun, metrics.committed, metrics.aborted, metrics.unknown), (1, 1, 1, 1));
        let times = [&metrics.init_micros, &metrics.flush_micros, &metrics.commit_micros, &metrics.abort_micros];
        assert_eq!(times.map(Histogram::sum), [5_000, 3_000, 7_000, 9_000]);
        assert!(times.iter().all(|times| times.count() == 1));
    }
}
