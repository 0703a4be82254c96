//! Decides what a broker's answer means for a batch.
//!
//! Sans-IO.

use std::fmt;

use crate::{
    error::{DeliveryStatus, Error, ErrorCode, ErrorKind, Remedy, clean},
    wire::produce::ProducePartitionResponse,
};

/// The decision on a batch after an attempt.
#[derive(Debug)]
pub(crate) enum BatchDecision {
    Written {
        base_offset: Option<i64>,
        log_append_millis: Option<i64>,
    },
    /// Send it again, under its sequence numbers.
    Retry {
        error: Error,
        /// True if the attempt may have written it all the same.
        maybe_written: bool,
    },
    /// The broker already has a batch with these sequence numbers, so this attempt wrote nothing.
    Duplicate(Error),
    /// The broker expected other sequence numbers, so the batch is not in its log.
    OutOfOrder(Error),
    /// The broker does not know the producer (any more). `log_start` is −1 if it is not known.
    UnknownProducer {
        error: Error,
        log_start: i64,
    },
    /// The broker knows a newer epoch of this producer.
    StaleEpoch(Error),
    /// The batch is too large for the topic: smaller batches may be accepted.
    TooLarge(Error),
    /// Sending it again cannot help.
    Rejected {
        error: Error,
        maybe_written: bool,
        records: Vec<(i32, Option<String>)>,
    },
    /// The attempt was withdrawn before it was written, because records of it or of another batch
    /// in its request had been given up.
    Withdrawn,
}

impl BatchDecision {
    /// Reads a broker's answer for one partition. `place` is `"orders[3]"`.
    pub(crate) fn read(response: ProducePartitionResponse<'_>, place: impl fmt::Display) -> Self {
        let code = response.error;
        if code.is_ok() {
            return BatchDecision::Written {
                base_offset: (response.base_offset >= 0).then_some(response.base_offset),
                log_append_millis: (response.log_append_time_ms >= 0).then_some(response.log_append_time_ms),
            };
        }
        let mut error = Error::broker(code, format_args!("produce to {place}"));
        if let Some(message) = response.error_message.filter(|message| !message.is_empty()) {
            error = error.context(format_args!("\"{}\"", clean(&message)));
        }
        match code {
            ErrorCode::DUPLICATE_SEQUENCE_NUMBER => BatchDecision::Duplicate(error),
            ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER => BatchDecision::OutOfOrder(error),
            ErrorCode::UNKNOWN_PRODUCER_ID => {
                BatchDecision::UnknownProducer { error, log_start: response.log_start_offset }
            }
            ErrorCode::INVALID_PRODUCER_EPOCH => BatchDecision::StaleEpoch(error),
            ErrorCode::MESSAGE_TOO_LARGE | ErrorCode::RECORD_LIST_TOO_LARGE => BatchDecision::TooLarge(error),
            _ if code.is_retriable() => BatchDecision::Retry { error, maybe_written: may_be_written(code) },
            // An unknown server error, and a code that this client does not know, say nothing about
            // the log.
            _ => BatchDecision::Rejected {
                error,
                maybe_written: code == ErrorCode::UNKNOWN_SERVER_ERROR || !code.is_known(),
                records: response.record_errors,
            },
        }
    }

    /// Decides on a batch without an answer.
    pub(crate) fn failed(error: &Error) -> Self {
        let error = error.clone();
        let maybe_written = error.delivery_status() != Some(DeliveryStatus::NotPersisted);
        // A permanent error after the request was sent does not tell its fate: the next attempt
        // will.
        if maybe_written || error.is_retriable() || error.kind() == ErrorKind::Protocol {
            BatchDecision::Retry { error, maybe_written }
        } else {
            BatchDecision::Rejected { error, maybe_written, records: Vec::new() }
        }
    }

    /// Decides on a batch if the answer leaves out its partition.
    pub(crate) fn missing(place: impl fmt::Display) -> Self {
        let error = Error::new(
            ErrorKind::Protocol,
            format!("the broker's answer to a produce request has no entry for {place}"),
        );
        BatchDecision::Retry { error: error.with_retriable(true), maybe_written: true }
    }

    /// Returns true if the attempt may have written the batch although it failed.
    pub(crate) fn maybe_written(&self) -> bool {
        match self {
            BatchDecision::Retry { maybe_written, .. } | BatchDecision::Rejected { maybe_written, .. } => {
                *maybe_written
            }
            BatchDecision::Written { .. }
            | BatchDecision::Duplicate(_)
            | BatchDecision::OutOfOrder(_)
            | BatchDecision::UnknownProducer { .. }
            | BatchDecision::StaleEpoch(_)
            | BatchDecision::TooLarge(_)
            | BatchDecision::Withdrawn => false,
        }
    }

    /// Returns true if the broker may have recorded the sequence numbers of a batch that counts as
    /// not written.
    pub(crate) fn sequences_used(&self) -> bool {
        match self {
            BatchDecision::Retry { error, .. } => error.code() == Some(ErrorCode::KAFKA_STORAGE_ERROR),
            _ => false,
        }
    }

    /// Returns the error of an attempt that the broker refused, or that has no response.
    pub(crate) fn into_error(self) -> Error {
        match self {
            BatchDecision::Retry { error, .. }
            | BatchDecision::Duplicate(error)
            | BatchDecision::OutOfOrder(error)
            | BatchDecision::UnknownProducer { error, .. }
            | BatchDecision::StaleEpoch(error)
            | BatchDecision::TooLarge(error)
            | BatchDecision::Rejected { error, .. } => error,
            BatchDecision::Written { .. } | BatchDecision::Withdrawn => {
                Error::new(ErrorKind::Internal, "a batch failed that was not refused")
            }
        }
    }

    /// Returns true if the metadata may be wrong.
    pub(crate) fn asks_for_refresh(&self) -> bool {
        match self {
            BatchDecision::Retry { error, .. } => match error.code() {
                Some(code) => code.remedy() == Remedy::RefreshMetadata,
                None => true,
            },
            _ => false,
        }
    }
}

/// Returns true if a batch that was refused with a retriable code may be in the log all the same:
/// the leader appended it and its followers did not confirm in time, or it lost the leadership
/// while it waited.
///
/// KAFKA_STORAGE_ERROR counts as not written: the directory that might hold it is offline.
fn may_be_written(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::REQUEST_TIMED_OUT
            | ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND
            | ErrorCode::NOT_LEADER_OR_FOLLOWER
            | ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
            | ErrorCode::NETWORK_EXCEPTION
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(code: ErrorCode) -> ProducePartitionResponse<'static> {
        ProducePartitionResponse {
            topic: "t",
            topic_id: uuid::Uuid::nil(),
            partition: 0,
            error: code,
            base_offset: 7,
            log_append_time_ms: -1,
            log_start_offset: -1,
            record_errors: Vec::new(),
            error_message: None,
            current_leader: None,
        }
    }

    #[test]
    fn reads_success_and_duplicate_from_response() {
        let BatchDecision::Written { base_offset, log_append_millis } =
            BatchDecision::read(response(ErrorCode::NONE), "t[0]")
        else {
            panic!("not written");
        };
        assert_eq!((base_offset, log_append_millis), (Some(7), None));
        let duplicate = BatchDecision::read(response(ErrorCode::DUPLICATE_SEQUENCE_NUMBER), "t[0]");
        assert!(matches!(duplicate, BatchDecision::Duplicate(_)));
    }

    /// Returns the decision for a code: R sends the batch again, F fails it; + if it may be in the
    /// log; m if the metadata is refreshed. The other decisions depend on sequence number and
    /// epoch.
    fn done_about(code: ErrorCode) -> String {
        let answer = BatchDecision::read(response(code), "t[0]");
        let refresh = if answer.asks_for_refresh() { "m" } else { "" };
        let what = match answer {
            BatchDecision::Written { .. } => "written",
            BatchDecision::Retry { maybe_written: false, .. } => "R",
            BatchDecision::Retry { maybe_written: true, .. } => "R+",
            BatchDecision::Duplicate(_) => "duplicate",
            BatchDecision::OutOfOrder(_) => "out of order",
            BatchDecision::UnknownProducer { .. } => "unknown producer",
            BatchDecision::StaleEpoch(_) => "stale epoch",
            BatchDecision::TooLarge(_) => "split",
            BatchDecision::Rejected { maybe_written: false, .. } => "F",
            BatchDecision::Rejected { maybe_written: true, .. } => "F+",
            BatchDecision::Withdrawn => "withdrawn",
        };
        format!("{what}{refresh}")
    }

    #[test]
    fn classifies_every_produce_error_code() {
        let table = [
            (ErrorCode::NONE, "written"),
            (ErrorCode::UNKNOWN_SERVER_ERROR, "F+"),
            // Damaged in transit, if the checksum does not match.
            (ErrorCode::CORRUPT_MESSAGE, "R"),
            // The leader may have written it and lost the partition while it waited for its
            // followers.
            (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, "R+m"),
            (ErrorCode::LEADER_NOT_AVAILABLE, "Rm"),
            (ErrorCode::NOT_LEADER_OR_FOLLOWER, "R+m"),
            (ErrorCode::REQUEST_TIMED_OUT, "R+"),
            (ErrorCode::REPLICA_NOT_AVAILABLE, "Rm"),
            (ErrorCode::MESSAGE_TOO_LARGE, "split"),
            (ErrorCode::NETWORK_EXCEPTION, "R+m"),
            (ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, "R"),
            (ErrorCode::COORDINATOR_NOT_AVAILABLE, "R"),
            (ErrorCode::NOT_COORDINATOR, "R"),
            (ErrorCode::INVALID_TOPIC_EXCEPTION, "F"),
            (ErrorCode::RECORD_LIST_TOO_LARGE, "split"),
            (ErrorCode::NOT_ENOUGH_REPLICAS, "R"),
            (ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND, "R+"),
            (ErrorCode::INVALID_REQUIRED_ACKS, "F"),
            (ErrorCode::TOPIC_AUTHORIZATION_FAILED, "F"),
            (ErrorCode::CLUSTER_AUTHORIZATION_FAILED, "F"),
            (ErrorCode::INVALID_TIMESTAMP, "F"),
            (ErrorCode::UNSUPPORTED_VERSION, "F"),
            (ErrorCode::INVALID_REQUEST, "F"),
            (ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT, "F"),
            (ErrorCode::POLICY_VIOLATION, "F"),
            (ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, "out of order"),
            (ErrorCode::DUPLICATE_SEQUENCE_NUMBER, "duplicate"),
            (ErrorCode::INVALID_PRODUCER_EPOCH, "stale epoch"),
            (ErrorCode::INVALID_TXN_STATE, "F"),
            (ErrorCode::INVALID_PRODUCER_ID_MAPPING, "F"),
            (ErrorCode::CONCURRENT_TRANSACTIONS, "R"),
            (ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "F"),
            (ErrorCode::KAFKA_STORAGE_ERROR, "Rm"),
            (ErrorCode::UNKNOWN_PRODUCER_ID, "unknown producer"),
            (ErrorCode::FENCED_LEADER_EPOCH, "Rm"),
            (ErrorCode::UNKNOWN_LEADER_EPOCH, "R"),
            (ErrorCode::UNSUPPORTED_COMPRESSION_TYPE, "F"),
            (ErrorCode::INVALID_RECORD, "F"),
            (ErrorCode::THROTTLING_QUOTA_EXCEEDED, "R"),
            (ErrorCode::PRODUCER_FENCED, "F"),
            (ErrorCode::UNKNOWN_TOPIC_ID, "Rm"),
            (ErrorCode::INCONSISTENT_TOPIC_ID, "Rm"),
            (ErrorCode::TRANSACTION_ABORTABLE, "F"),
            (ErrorCode::new(9999), "F+"),
            (ErrorCode::new(-2), "F+"),
        ];
        for (code, expected) in table {
            assert_eq!(done_about(code), expected, "{code}");
        }
    }

    #[test]
    fn retriable_codes_mark_batch_possibly_written() {
        for (code, expected) in [
            (ErrorCode::NOT_ENOUGH_REPLICAS, false),
            (ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND, true),
            (ErrorCode::REQUEST_TIMED_OUT, true),
            (ErrorCode::KAFKA_STORAGE_ERROR, false),
        ] {
            let BatchDecision::Retry { maybe_written, .. } = BatchDecision::read(response(code), "t[0]") else {
                panic!("{code} is not retried");
            };
            assert_eq!(maybe_written, expected, "{code}");
        }
    }

    #[test]
    fn unsent_request_is_not_possibly_written() {
        let lost = Error::new(ErrorKind::Network, "refused").with_status(DeliveryStatus::NotPersisted);
        assert!(matches!(BatchDecision::failed(&lost), BatchDecision::Retry { maybe_written: false, .. }));
        let late = Error::new(ErrorKind::Timeout, "no answer").with_status(DeliveryStatus::PossiblyPersisted);
        assert!(matches!(BatchDecision::failed(&late), BatchDecision::Retry { maybe_written: true, .. }));
        let old = Error::new(ErrorKind::UnsupportedVersion, "no Produce").with_status(DeliveryStatus::NotPersisted);
        assert!(matches!(BatchDecision::failed(&old), BatchDecision::Rejected { .. }));
    }
}
