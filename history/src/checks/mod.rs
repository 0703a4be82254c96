//! The checks, one kind of rule a file.
//!
//! Sans-IO.

mod copies;
mod cycles;
mod offsets;
mod order;
mod polls;
mod transactions;
mod writes;

use crate::history::{History, Place, Report, StepKind};
use crate::seen::Seen;
use crate::verdict::{Statistics, Verdict};

/// Judges a history.
pub fn check(history: &History) -> Verdict {
    let seen = Seen::new(history);
    let mut verdict = Verdict { valid: true, statistics: statistics(history), ..Verdict::default() };
    offsets::check(history, &seen, &mut verdict);
    writes::check(history, &seen, &mut verdict);
    transactions::check(history, &seen, &mut verdict);
    order::check(history, &seen, &mut verdict);
    polls::check(history, &seen, &mut verdict);
    cycles::check(history, &seen, &mut verdict);
    copies::check(history, &seen, &mut verdict);
    verdict.anomalies.sort_by_key(|anomaly| (anomaly.kind, anomaly.line));
    verdict
}

fn statistics(history: &History) -> Statistics {
    let count = |count: usize| count as u64;
    let transactions = &history.transactions;
    let acknowledged = |report: &Report| matches!(report, Report::Acknowledged(_));
    let committed = count(transactions.iter().filter(|of| of.is_committed()).count());
    let aborted = count(transactions.iter().filter(|of| of.is_aborted()).count());
    let polled = history.steps.iter().map(|step| match &step.kind {
        StepKind::Poll { records, .. } => count(records.len()),
        StepKind::Seek(_) => 0,
    });
    Statistics {
        events: history.events,
        sent: count(history.writes.len()),
        acknowledged: count(history.writes.iter().filter(|write| acknowledged(&write.report)).count()),
        transactions: count(transactions.len()),
        committed,
        aborted,
        unknown: count(transactions.len()) - committed - aborted,
        polled: polled.sum(),
        logged: history.logs.values().map(|log| count(log.records.len())).sum(),
    }
}

impl History {
    /// Describes a partition: `topic[3]`.
    fn describe(&self, place: Place) -> String {
        format!("{}[{}]", self.names.text(place.topic), place.partition)
    }

    /// Describes the transaction with that index.
    fn describe_transaction(&self, index: usize) -> &str {
        self.names.text(self.transactions[index].name)
    }
}
