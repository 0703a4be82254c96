//! Encoding and decoding of ListOffsets and OffsetForLeaderEpoch.

use std::{collections::HashMap, time::Duration};

use crate::{
    error::ErrorCode,
    record::TopicPartition,
    wire::{
        byte_string::ByteString,
        messages::{
            ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
            list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
            offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
        },
    },
};

/// Timestamp that requests the first offset.
pub(crate) const EARLIEST: i64 = -2;
/// Timestamp that requests the offset after the last readable record.
pub(crate) const LATEST: i64 = -1;

/// An offset in a ListOffsets response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListedOffset {
    /// The offset; −1 if there is none.
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    /// The leader epoch; −1 if it is not known.
    pub(crate) leader_epoch: i32,
}

/// One partition of a request: the partition, the leader epoch that the client knows, and `T`.
pub(crate) type QueryRow<T> = (TopicPartition, i32, T);

/// Groups rows by topic, keeping their order.
fn by_topic<T: Clone, P>(rows: &[QueryRow<T>], make: impl Fn(&QueryRow<T>) -> P) -> Vec<(ByteString, Vec<P>)> {
    let mut topics: Vec<(ByteString, Vec<P>)> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for row in rows {
        let place = *places.entry(&row.0.topic).or_insert_with(|| {
            topics.push((ByteString::from(row.0.topic.to_string()), Vec::new()));
            topics.len() - 1
        });
        if let Some((_, partitions)) = topics.get_mut(place) {
            partitions.push(make(row));
        }
    }
    topics
}

/// Builds a request for the first offset at or after each row's timestamp. The broker waits for
/// offsets in remote storage for 9/10 of the request timeout, so that its response still arrives in
/// time.
pub(crate) fn list_offsets(rows: &[QueryRow<i64>], read_committed: bool, timeout: Duration) -> ListOffsetsRequest {
    let topics = by_topic(rows, |(partition, epoch, timestamp)| ListOffsetsPartition {
        partition_index: partition.partition,
        current_leader_epoch: *epoch,
        timestamp: *timestamp,
    });
    let topics = topics.into_iter().map(|(name, partitions)| ListOffsetsTopic { name, partitions });
    ListOffsetsRequest {
        replica_id: -1,
        isolation_level: i8::from(read_committed),
        topics: topics.collect(),
        timeout_ms: i32::try_from((timeout - timeout / 10).as_millis()).unwrap_or(i32::MAX),
    }
}

/// Returns the offset or error of each partition in the response.
pub(crate) fn listed_offsets(
    response: &ListOffsetsResponse,
) -> HashMap<TopicPartition, Result<ListedOffset, ErrorCode>> {
    let mut state = HashMap::new();
    for topic in &response.topics {
        let name: std::sync::Arc<str> = topic.name.as_str().into();
        for answer in &topic.partitions {
            let offset =
                ListedOffset { offset: answer.offset, timestamp: answer.timestamp, leader_epoch: answer.leader_epoch };
            let partition = TopicPartition { topic: name.clone(), partition: answer.partition_index };
            state.insert(partition, ErrorCode::new(answer.error_code).ok().map(|()| offset));
        }
    }
    state
}

/// Builds a request for the end of each row's epoch.
pub(crate) fn epoch_ends(rows: &[QueryRow<i32>]) -> OffsetForLeaderEpochRequest {
    let topics = by_topic(rows, |(partition, current_epoch, epoch)| OffsetForLeaderPartition {
        partition: partition.partition,
        current_leader_epoch: *current_epoch,
        leader_epoch: *epoch,
    });
    let topics = topics.into_iter().map(|(name, partitions)| OffsetForLeaderTopic { topic: name, partitions });
    // −1 marks a consumer; a debugging consumer (−2) may also ask followers.
    OffsetForLeaderEpochRequest { replica_id: -1, topics: topics.collect() }
}

/// Returns the epoch and its end offset, or the error, of each partition in the response.
pub(crate) fn ended_epochs(
    response: &OffsetForLeaderEpochResponse,
) -> HashMap<TopicPartition, Result<(i32, i64), ErrorCode>> {
    let mut state = HashMap::new();
    for topic in &response.topics {
        let name: std::sync::Arc<str> = topic.topic.as_str().into();
        for answer in &topic.partitions {
            let end = (answer.leader_epoch, answer.end_offset);
            let partition = TopicPartition { topic: name.clone(), partition: answer.partition };
            state.insert(partition, ErrorCode::new(answer.error_code).ok().map(|()| end));
        }
    }
    state
}

#[cfg(test)]
mod tests {
    use crate::consumer::background::list_offsets::*;

    #[test]
    fn request_groups_partitions_by_topic() {
        let rows = [
            (TopicPartition::new("a", 0), 1, EARLIEST),
            (TopicPartition::new("b", 3), -1, LATEST),
            (TopicPartition::new("a", 2), 7, 99),
        ];
        let request = list_offsets(&rows, true, Duration::from_secs(3));
        assert_eq!(request.timeout_ms, 2700);
        assert_eq!((request.isolation_level, request.replica_id, request.topics.len()), (1, -1, 2));
        let a: Vec<_> = request.topics[0].partitions.iter().map(|p| (p.partition_index, p.timestamp)).collect();
        assert_eq!((request.topics[0].name.as_str(), a), ("a", vec![(0, EARLIEST), (2, 99)]));
        assert_eq!(request.topics[0].partitions[1].current_leader_epoch, 7);
    }
}
