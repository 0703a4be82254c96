//! ListOffsets and OffsetForLeaderEpoch: how they are written and read.

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

/// The timestamp that asks for the first offset.
pub(crate) const EARLIEST: i64 = -2;
/// The timestamp that asks for the offset behind the last record that may be read.
pub(crate) const LATEST: i64 = -1;

/// An offset that a broker named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListedOffset {
    /// −1: there is none.
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    /// −1 where not known.
    pub(crate) leader_epoch: i32,
}

/// What is asked about one partition: partition, epoch of the leader as we know it, and `T`.
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

/// Asks for the first offset at or behind each row's timestamp. The broker waits for offsets in
/// remote storage a little less long than the request lives, so that its answer is still heard.
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

/// What each partition's answer says.
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

/// Asks where each row's epoch ends.
pub(crate) fn epoch_ends(rows: &[QueryRow<i32>]) -> OffsetForLeaderEpochRequest {
    let topics = by_topic(rows, |(partition, current_epoch, epoch)| OffsetForLeaderPartition {
        partition: partition.partition,
        current_leader_epoch: *current_epoch,
        leader_epoch: *epoch,
    });
    let topics = topics.into_iter().map(|(name, partitions)| OffsetForLeaderTopic { topic: name, partitions });
    // −1 says that a consumer asks, which debug consumers (−2) may do of followers.
    OffsetForLeaderEpochRequest { replica_id: -1, topics: topics.collect() }
}

/// The epoch and its end that each partition's answer says.
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
