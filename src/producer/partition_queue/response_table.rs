//! The table of responses: the result of an attempt, and the doubt about the batch, decide on the
//! action.
//!
//! The table follows from the brokers' rules for sequence numbers (KIP-98, KIP-360):
//! - a broker drops a batch that it already has, if the batch comes under the same numbers; so a
//!   batch that may be in the log is sent again under its own numbers or not at all;
//! - a broker refuses a batch whose numbers do not come next, and numbers that no batch will carry
//!   leave a hole; the partition then continues under the next epoch, from number 0;
//! - under the next epoch a batch gets other numbers, so a batch that may be in the log could be
//!   written a second time.
//!
//! Java's `TransactionManager.canRetry` handles OUT_OF_ORDER_SEQUENCE_NUMBER and
//! UNKNOWN_PRODUCER_ID much like this table. It differs in that it sends a batch under the next
//! epoch even if the batch may be in the log, and in that UNKNOWN_PRODUCER_ID without a log start
//! never bumps the epoch.
//!
//! Sans-IO.

use crate::producer::{batch::Batch, response::BatchDecision};

/// The result of an attempt, as far as the action depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttemptResult {
    /// The broker has written the batch, or is not asked for a response (`acks=0`).
    Written,
    /// DUPLICATE_SEQUENCE_NUMBER: the log has a batch with these numbers.
    Duplicate,
    /// An error that another attempt may not meet, or no response.
    Retriable,
    /// The same, at the last attempt that `retries` allows.
    RetriesExhausted,
    /// OUT_OF_ORDER_SEQUENCE_NUMBER: the numbers are not those that come next.
    OutOfOrder(Predecessors),
    /// UNKNOWN_PRODUCER_ID: the broker has no state of the producer for this partition.
    UnknownProducer,
    /// The same at the first attempt that counts, without the start of the log, because the
    /// partition is being moved. A batch that is not in doubt is sent once more before the epoch is
    /// raised.
    UnknownProducerWhileMoving,
    /// INVALID_PRODUCER_EPOCH: the broker knows a newer epoch of the producer.
    StaleEpoch,
    /// The batch is too large for the topic, and can be split.
    TooLarge,
    /// The batch is too large for the topic. It has a single record, or its outcome is decided.
    TooLargeUnsplittable,
    /// An error that every attempt will meet.
    Rejected,
    /// The same, and the broker lists the records that caused it (KIP-467).
    RecordsRejected,
    /// The batch was withdrawn before the request was written.
    Withdrawn,
}

/// The numbered batches that were sent before a batch that a broker found out of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Predecessors {
    /// At least one is in flight or waits to be sent again.
    Outstanding,
    /// None is outstanding, but one failed that may have been written, or may still be.
    InDoubt,
    /// None is outstanding, and the fate of all is known.
    Settled,
}

/// The doubt about a batch after all its attempts, the last one included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// The batch has no numbers, because idempotence is off: no broker recognizes it.
    Unnumbered,
    /// No attempt can have written it, and none can have used its numbers.
    Unwritten,
    /// It counts as not written, but a broker may have recorded its numbers.
    NumbersUsed,
    /// An attempt may have written it.
    MaybeWritten,
    /// It may be in the log as a part of a larger batch, which was split after an attempt that may
    /// have written it.
    MaybeWrittenInWhole,
}

/// The action on a batch after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Acknowledges its numbers; its records are persisted.
    Persist,
    /// Sends it again after a backoff, under its numbers if it has any.
    Retry,
    /// Sends it again at once, under its numbers if it has any: the attempt does not count.
    Resend,
    /// Raises the epoch once nothing is in flight, and sends it again under new numbers. If it is
    /// in doubt by then, it fails instead.
    RaiseAndRetry,
    /// Like `RaiseAndRetry`, and records that neither this batch nor a later one is in the log.
    RaiseAndRetryUnwritten,
    /// Splits the batch in two, and sends both parts.
    Split,
    /// Fails its records.
    Fail,
    /// Fails its records, and raises the epoch once nothing is in flight.
    RaiseAndFail,
    /// Fails its records: those that the broker lists as invalid, and the others as retriable.
    FailRecords,
}

impl AttemptResult {
    /// Classifies the decision on a batch. `predecessors` is called only for a batch out of order.
    pub(super) fn of(
        decision: &BatchDecision,
        batch: &Batch,
        retries: u32,
        predecessors: impl FnOnce() -> Predecessors,
    ) -> Self {
        match decision {
            BatchDecision::Written { .. } => AttemptResult::Written,
            BatchDecision::Duplicate(_) => AttemptResult::Duplicate,
            BatchDecision::Retry { .. } if batch.attempts > retries => AttemptResult::RetriesExhausted,
            BatchDecision::Retry { .. } => AttemptResult::Retriable,
            BatchDecision::OutOfOrder(_) => AttemptResult::OutOfOrder(predecessors()),
            BatchDecision::UnknownProducer { log_start: -1, .. } if batch.attempts <= 1 => {
                AttemptResult::UnknownProducerWhileMoving
            }
            BatchDecision::UnknownProducer { .. } => AttemptResult::UnknownProducer,
            BatchDecision::StaleEpoch(_) => AttemptResult::StaleEpoch,
            BatchDecision::TooLarge(_) if batch.records() > 1 && !batch.is_decided() => AttemptResult::TooLarge,
            BatchDecision::TooLarge(_) => AttemptResult::TooLargeUnsplittable,
            BatchDecision::Rejected { records, .. } if records.is_empty() => AttemptResult::Rejected,
            BatchDecision::Rejected { .. } => AttemptResult::RecordsRejected,
            BatchDecision::Withdrawn => AttemptResult::Withdrawn,
        }
    }

    /// Returns true if the attempt counts towards `retries`. A batch out of order waits for the one
    /// before it, and a batch that is split or withdrawn was not refused for good.
    pub(super) fn counts(self) -> bool {
        match self {
            AttemptResult::OutOfOrder(_) | AttemptResult::TooLarge | AttemptResult::Withdrawn => false,
            AttemptResult::Written
            | AttemptResult::Duplicate
            | AttemptResult::Retriable
            | AttemptResult::RetriesExhausted
            | AttemptResult::UnknownProducer
            | AttemptResult::UnknownProducerWhileMoving
            | AttemptResult::StaleEpoch
            | AttemptResult::TooLargeUnsplittable
            | AttemptResult::Rejected
            | AttemptResult::RecordsRejected => true,
        }
    }
}

impl Doubt {
    /// Returns the doubt about a batch.
    pub(super) fn of(batch: &Batch) -> Self {
        match (batch.sequence, batch.maybe_written, batch.sequences_used) {
            (None, _, _) => Doubt::Unnumbered,
            (Some(_), true, _) if batch.whole_in_doubt => Doubt::MaybeWrittenInWhole,
            (Some(_), true, _) => Doubt::MaybeWritten,
            (Some(_), false, true) => Doubt::NumbersUsed,
            (Some(_), false, false) => Doubt::Unwritten,
        }
    }
}

/// Adds the doubt that an attempt leaves to that of earlier attempts.
pub(super) fn add_doubt(batch: &mut Batch, decision: &BatchDecision, result: AttemptResult) {
    batch.maybe_written |= decision.maybe_written();
    batch.sequences_used |= decision.sequences_used();
    if let AttemptResult::OutOfOrder(Predecessors::InDoubt | Predecessors::Settled) = result {
        // The numbers of a part do not come next either if the whole batch is in the log.
        batch.maybe_written |= batch.whole_in_doubt;
    }
}

/// Returns the action on a batch after an attempt with this result, if that doubt is left.
pub(super) fn action(result: AttemptResult, doubt: Doubt) -> Action {
    match result {
        AttemptResult::Written => Action::Persist,
        AttemptResult::Duplicate => match doubt {
            // No attempt can have written it: its numbers were used by something else.
            Doubt::Unwritten => Action::RaiseAndRetry,
            // The log has it, as far as the broker can tell: it recognizes the numbers, but has
            // forgotten the offset.
            Doubt::Unnumbered | Doubt::NumbersUsed | Doubt::MaybeWritten | Doubt::MaybeWrittenInWhole => {
                Action::Persist
            }
        },
        // Under its own numbers it cannot be written twice, whatever the doubt. Without numbers it
        // can: this is the risk of `enable.idempotence=false`.
        AttemptResult::Retriable => Action::Retry,
        AttemptResult::RetriesExhausted => Action::Fail,
        AttemptResult::OutOfOrder(predecessors) => out_of_order(predecessors, doubt),
        AttemptResult::UnknownProducer | AttemptResult::StaleEpoch => match doubt {
            Doubt::Unnumbered => Action::Fail,
            Doubt::Unwritten => Action::RaiseAndRetryUnwritten,
            // If the broker has recorded its numbers, a later batch may be in the log.
            Doubt::NumbersUsed => Action::RaiseAndRetry,
            // Under the next epoch it might be written a second time.
            Doubt::MaybeWritten | Doubt::MaybeWrittenInWhole => Action::RaiseAndFail,
        },
        AttemptResult::UnknownProducerWhileMoving => match doubt {
            Doubt::Unnumbered => Action::Fail,
            Doubt::Unwritten | Doubt::NumbersUsed => Action::Retry,
            Doubt::MaybeWritten | Doubt::MaybeWrittenInWhole => Action::RaiseAndFail,
        },
        AttemptResult::TooLarge => Action::Split,
        AttemptResult::TooLargeUnsplittable | AttemptResult::Rejected => Action::Fail,
        AttemptResult::RecordsRejected => Action::FailRecords,
        AttemptResult::Withdrawn => Action::Resend,
    }
}

fn out_of_order(predecessors: Predecessors, doubt: Doubt) -> Action {
    match (predecessors, doubt) {
        // A broker has no reason to refuse a batch without numbers as out of order.
        (Predecessors::Outstanding | Predecessors::InDoubt | Predecessors::Settled, Doubt::Unnumbered) => Action::Fail,
        // It comes next once the batches before it are written.
        (
            Predecessors::Outstanding,
            Doubt::Unwritten | Doubt::NumbersUsed | Doubt::MaybeWritten | Doubt::MaybeWrittenInWhole,
        ) => Action::Retry,
        // Brokers write numbers consecutively. If the batch before it is missing permanently, no
        // attempt can have written this one, or ever will. If that batch is in doubt, this holds
        // only for a batch that no attempt can have written.
        (Predecessors::Settled, Doubt::Unwritten | Doubt::NumbersUsed | Doubt::MaybeWritten)
        | (Predecessors::InDoubt, Doubt::Unwritten | Doubt::NumbersUsed) => Action::RaiseAndRetryUnwritten,
        // A batch before it may still arrive from a connection that was given up, and an earlier
        // attempt of this one after it.
        (Predecessors::InDoubt, Doubt::MaybeWritten) => Action::RaiseAndRetry,
        // The refusal may mean that the log has the whole batch.
        (Predecessors::InDoubt | Predecessors::Settled, Doubt::MaybeWrittenInWhole) => Action::Fail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOUBTS: [Doubt; 5] =
        [Doubt::Unnumbered, Doubt::Unwritten, Doubt::NumbersUsed, Doubt::MaybeWritten, Doubt::MaybeWrittenInWhole];

    const RESULTS: [AttemptResult; 15] = [
        AttemptResult::Written,
        AttemptResult::Duplicate,
        AttemptResult::Retriable,
        AttemptResult::RetriesExhausted,
        AttemptResult::OutOfOrder(Predecessors::Outstanding),
        AttemptResult::OutOfOrder(Predecessors::InDoubt),
        AttemptResult::OutOfOrder(Predecessors::Settled),
        AttemptResult::UnknownProducer,
        AttemptResult::UnknownProducerWhileMoving,
        AttemptResult::StaleEpoch,
        AttemptResult::TooLarge,
        AttemptResult::TooLargeUnsplittable,
        AttemptResult::Rejected,
        AttemptResult::RecordsRejected,
        AttemptResult::Withdrawn,
    ];

    /// Returns the actions for a result, one for each of [`DOUBTS`], and true if the attempt
    /// counts.
    fn expected(result: AttemptResult) -> ([Action; 5], bool) {
        use Action::*;
        // Unnumbered, Unwritten, NumbersUsed, MaybeWritten, MaybeWrittenInWhole.
        match result {
            AttemptResult::Written => ([Persist, Persist, Persist, Persist, Persist], true),
            AttemptResult::Duplicate => ([Persist, RaiseAndRetry, Persist, Persist, Persist], true),
            AttemptResult::Retriable => ([Retry, Retry, Retry, Retry, Retry], true),
            AttemptResult::RetriesExhausted => ([Fail, Fail, Fail, Fail, Fail], true),
            AttemptResult::OutOfOrder(Predecessors::Outstanding) => ([Fail, Retry, Retry, Retry, Retry], false),
            AttemptResult::OutOfOrder(Predecessors::InDoubt) => {
                ([Fail, RaiseAndRetryUnwritten, RaiseAndRetryUnwritten, RaiseAndRetry, Fail], false)
            }
            AttemptResult::OutOfOrder(Predecessors::Settled) => {
                ([Fail, RaiseAndRetryUnwritten, RaiseAndRetryUnwritten, RaiseAndRetryUnwritten, Fail], false)
            }
            AttemptResult::UnknownProducer => {
                ([Fail, RaiseAndRetryUnwritten, RaiseAndRetry, RaiseAndFail, RaiseAndFail], true)
            }
            AttemptResult::UnknownProducerWhileMoving => ([Fail, Retry, Retry, RaiseAndFail, RaiseAndFail], true),
            AttemptResult::StaleEpoch => {
                ([Fail, RaiseAndRetryUnwritten, RaiseAndRetry, RaiseAndFail, RaiseAndFail], true)
            }
            AttemptResult::TooLarge => ([Split, Split, Split, Split, Split], false),
            AttemptResult::TooLargeUnsplittable => ([Fail, Fail, Fail, Fail, Fail], true),
            AttemptResult::Rejected => ([Fail, Fail, Fail, Fail, Fail], true),
            AttemptResult::RecordsRejected => ([FailRecords, FailRecords, FailRecords, FailRecords, FailRecords], true),
            AttemptResult::Withdrawn => ([Resend, Resend, Resend, Resend, Resend], false),
        }
    }

    #[test]
    fn every_result_and_doubt_has_its_action() {
        for result in RESULTS {
            let (actions, counts) = expected(result);
            assert_eq!(DOUBTS.map(|doubt| action(result, doubt)), actions, "{result:?}");
            assert_eq!(result.counts(), counts, "{result:?}");
        }
    }
}
