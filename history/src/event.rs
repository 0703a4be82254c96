//! The events of a history, one JSON object a line.
//!
//! Sans-IO.

use serde::{Deserialize, Serialize};

/// The version of the format. A version adds types of events or fields; a checker refuses a history
/// of a later version, because an event that it does not know could hide an anomaly.
pub const VERSION: u32 = 1;

/// One line of a history. The README of this crate documents each type and field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// The first line: the version of the format.
    History {
        /// [`VERSION`] of the writer.
        version: u32,
    },
    /// A remark, such as a fault that was injected. It is not checked.
    Note {
        /// The remark.
        text: String,
    },
    /// A producer is about to send a record.
    Send {
        /// The producer: one instance, from its creation to its end.
        client: String,
        /// The topic.
        topic: String,
        /// The partition; absent if the producer chooses it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        partition: Option<i32>,
        /// The record's id within the topic.
        value: String,
        /// An object that the record is a new version of. Transactions that write one key do so one
        /// after the other, by a rule of the program.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        /// The transaction; absent for a record without one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        transaction: Option<String>,
    },
    /// A record was acknowledged.
    Acknowledged {
        /// The producer.
        client: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset.
        offset: i64,
        /// The record's id.
        value: String,
    },
    /// A record failed and is certainly not in the log.
    Failed {
        /// The producer.
        client: String,
        /// The topic.
        topic: String,
        /// The record's id.
        value: String,
    },
    /// A record failed and is possibly in the log.
    Unknown {
        /// The producer.
        client: String,
        /// The topic.
        topic: String,
        /// The record's id.
        value: String,
    },
    /// A transaction begins.
    Begin {
        /// The producer.
        client: String,
        /// The transaction's id, which no other transaction of the history has.
        transaction: String,
    },
    /// A transaction is about to send an offset for a group.
    Offset {
        /// The transaction.
        transaction: String,
        /// The group.
        group: String,
        /// The topic that the group reads.
        topic: String,
        /// The partition.
        partition: i32,
        /// The position: the offset after the last record that was consumed.
        offset: i64,
    },
    /// A commit is about to be requested. It precedes the request, so that a transaction without
    /// this event is certainly not committed.
    Commit {
        /// The transaction.
        transaction: String,
    },
    /// The end of a transaction, as the program learned it.
    Outcome {
        /// The transaction.
        transaction: String,
        /// The end.
        outcome: Outcome,
    },
    /// A consumer's position in a partition changes by an assignment or a seek.
    Seek {
        /// The consumer.
        client: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The new position; absent if it is not known, as after an assignment by a group.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        offset: Option<i64>,
    },
    /// A consumer received records of a partition.
    Poll {
        /// The consumer.
        client: String,
        /// Its isolation level.
        isolation: Isolation,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The transaction whose work depends on these records.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        transaction: Option<String>,
        /// Offsets and ids, in the order of arrival.
        records: Vec<(i64, String)>,
    },
    /// A part of a partition's final content, as `read_committed` sees it. Parts are in the log's
    /// order; together they are the whole of it.
    Log {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Offsets and ids.
        records: Vec<(i64, String)>,
    },
    /// The ends of a partition's final log.
    LogEnd {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The last stable offset: the end for `read_committed`.
        last_stable_offset: i64,
        /// The high watermark: the end for `read_uncommitted`.
        high_watermark: i64,
    },
    /// The offset of a group that is committed at the end.
    CommittedOffset {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset.
        offset: i64,
    },
    /// A group copies a topic to another, each partition to the one of the same number, with equal
    /// ids, exactly once and in order.
    Copy {
        /// The topic that is read.
        from: String,
        /// The topic that is written.
        to: String,
        /// The group.
        group: String,
    },
}

/// The end of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The commit was confirmed.
    Committed,
    /// It certainly did not commit.
    Aborted,
    /// It may have committed.
    Unknown,
}

/// The isolation level of a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Only committed records.
    ReadCommitted,
    /// All records.
    ReadUncommitted,
}
