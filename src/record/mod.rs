//! The records that a program sends and receives, and the names of positions in the log.

mod deserializer;
mod forward;
mod group_metadata;
mod incoming;
mod marks;
mod offset_and_metadata;
mod outgoing;
mod payload;
mod topic;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) use deserializer::field_as;
pub use deserializer::{Deserializer, FieldContext, KafkaFormats};
pub use group_metadata::GroupMetadata;
pub use incoming::{ConsumerRecord, Header};
pub use offset_and_metadata::OffsetAndMetadata;
pub use outgoing::{Record, RecordMetadata};
pub use payload::Payload;
pub(crate) use topic::check_topic_name;
pub use topic::{Offset, TopicName, TopicPartition};

/// The origin of a record's timestamp (`message.timestamp.type` of the topic).
///
/// The list is complete: Kafka knows these two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimestampType {
    /// The producer set the timestamp when it sent the record.
    CreateTime,
    /// The broker set the timestamp when it appended the record.
    LogAppendTime,
}

/// Returns the milliseconds since the Unix epoch, negative before it.
pub(crate) fn to_millis(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => millis_of(after),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |millis| -millis),
    }
}

/// Returns the milliseconds of a time since the Unix epoch, as Kafka counts them.
#[inline]
pub(crate) fn millis_of(since: Duration) -> i64 {
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Returns the time that is this number of milliseconds after the Unix epoch, as near as the
/// platform can represent it.
pub(crate) fn from_millis(millis: i64) -> SystemTime {
    let distance = Duration::from_millis(millis.unsigned_abs());
    let time = if millis < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    time.unwrap_or(UNIX_EPOCH)
}
