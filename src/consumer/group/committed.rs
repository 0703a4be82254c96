//! What a group has committed: the question (OffsetFetch), and its answer in all versions.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::requests::text;
use crate::{
    consumer::OffsetAndMetadata,
    error::{Error, ErrorCode, ErrorKind, Result},
    record::TopicPartition,
    wire::{
        byte_string::ByteString,
        messages::{
            OffsetFetchRequest, OffsetFetchResponse,
            offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics},
        },
    },
};

/// Asks what the group has committed. Offsets of transactions that are still open count as not there yet (KIP-447).
pub(super) fn fetch_request(version: i16, group_id: &str, partitions: &[TopicPartition]) -> OffsetFetchRequest {
    let mut topics: BTreeMap<&str, BTreeSet<i32>> = BTreeMap::new();
    for partition in partitions {
        topics.entry(&partition.topic).or_default().insert(partition.partition);
    }
    let topics = topics.into_iter().map(|(topic, numbers)| (text(topic), numbers.into_iter().collect()));
    let request = OffsetFetchRequest { require_stable: version >= 7, ..Default::default() };
    if version >= 8 {
        let topics = topics.map(|(name, numbers)| OffsetFetchRequestTopics {
            name,
            partition_indexes: numbers,
            ..Default::default()
        });
        let asked = OffsetFetchRequestGroup {
            group_id: text(group_id),
            member_epoch: -1,
            topics: Some(topics.collect()),
            ..Default::default()
        };
        OffsetFetchRequest { groups: vec![asked], ..request }
    } else {
        let topics = topics.map(|(name, numbers)| OffsetFetchRequestTopic { name, partition_indexes: numbers });
        OffsetFetchRequest { group_id: text(group_id), topics: Some(topics.collect()), ..request }
    }
}

/// One partition of an answer, whichever version said it.
struct Fetched<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    epoch: i32,
    metadata: Option<&'a ByteString>,
    code: ErrorCode,
}

fn fetched<'a>(response: &'a OffsetFetchResponse, group_id: &str) -> (ErrorCode, Vec<Fetched<'a>>) {
    if let Some(group) = response.groups.iter().find(|group| group.group_id.as_str() == group_id) {
        let partitions = group.topics.iter().flat_map(|topic| topic.partitions.iter().map(move |p| (topic, p)));
        let read = partitions.map(|(topic, p)| Fetched {
            topic: &topic.name,
            partition: p.partition_index,
            offset: p.committed_offset,
            epoch: p.committed_leader_epoch,
            metadata: p.metadata.as_ref(),
            code: p.error_code.into(),
        });
        (group.error_code.into(), read.collect())
    } else {
        let partitions = response.topics.iter().flat_map(|topic| topic.partitions.iter().map(move |p| (topic, p)));
        let read = partitions.map(|(topic, p)| Fetched {
            topic: &topic.name,
            partition: p.partition_index,
            offset: p.committed_offset,
            epoch: p.committed_leader_epoch,
            metadata: p.metadata.as_ref(),
            code: p.error_code.into(),
        });
        (response.error_code.into(), read.collect())
    }
}

/// The error for which the whole question is to be asked again, or `NONE`.
pub(super) fn fetch_check(response: &OffsetFetchResponse, group_id: &str) -> ErrorCode {
    let (code, partitions) = fetched(response, group_id);
    if !code.is_ok() {
        return code;
    }
    // Before version 2 there is no code for the whole: each partition carries it.
    let retriable =
        |fetched: &&Fetched<'_>| fetched.code.is_retriable() && fetched.code != ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
    partitions.iter().find(retriable).map_or(ErrorCode::NONE, |fetched| fetched.code)
}

/// Reads the answer, which has to have every partition that was asked for: one that is left out must not be mistaken for
/// one that has no offset.
pub(super) fn fetch_answer(
    response: &OffsetFetchResponse,
    group_id: &str,
    asked: &[TopicPartition],
) -> Result<HashMap<TopicPartition, Option<OffsetAndMetadata>>> {
    let (code, partitions) = fetched(response, group_id);
    code.ok().map_err(|code| Error::broker(code, format_args!("offsets of group {group_id}")))?;
    let answers: HashMap<(&str, i32), Fetched<'_>> =
        partitions.into_iter().map(|fetched| ((fetched.topic, fetched.partition), fetched)).collect();
    asked
        .iter()
        .map(|partition| {
            let Some(fetched) = answers.get(&(&*partition.topic, partition.partition)) else {
                let message = format!("offset of {partition} in group {group_id}: the answer leaves it out");
                return Err(Error::new(ErrorKind::Protocol, message));
            };
            if let Err(code) = fetched.code.ok() {
                return Err(Error::broker(code, format_args!("offset of {partition} in group {group_id}")));
            }
            let committed = (fetched.offset >= 0).then(|| OffsetAndMetadata {
                offset: fetched.offset,
                leader_epoch: (fetched.epoch >= 0).then_some(fetched.epoch),
                metadata: fetched.metadata.map(ToString::to_string).unwrap_or_default(),
            });
            Ok((partition.clone(), committed))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::messages::offset_fetch_response::{
        OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
        OffsetFetchResponseTopic, OffsetFetchResponseTopics,
    };

    fn tp(topic: &str, partition: i32) -> TopicPartition {
        TopicPartition::new(topic, partition)
    }

    /// Offset 7 with epoch and text for `t[0]`, nothing for `t[1]`; the code is that of `t[1]`.
    fn old(code: ErrorCode) -> OffsetFetchResponse {
        let first = OffsetFetchResponsePartition {
            committed_offset: 7,
            committed_leader_epoch: 3,
            metadata: Some(ByteString::from_static("note")),
            ..Default::default()
        };
        let second = OffsetFetchResponsePartition {
            partition_index: 1,
            committed_offset: -1,
            committed_leader_epoch: -1,
            error_code: code.code(),
            ..Default::default()
        };
        let topic = OffsetFetchResponseTopic { name: text("t"), partitions: vec![first, second] };
        OffsetFetchResponse { topics: vec![topic], ..Default::default() }
    }

    fn new(code: ErrorCode) -> OffsetFetchResponse {
        let partitions = old(code).topics.remove(0).partitions.into_iter().map(|p| OffsetFetchResponsePartitions {
            partition_index: p.partition_index,
            committed_offset: p.committed_offset,
            committed_leader_epoch: p.committed_leader_epoch,
            metadata: p.metadata,
            error_code: p.error_code,
        });
        let topic =
            OffsetFetchResponseTopics { name: text("t"), partitions: partitions.collect(), ..Default::default() };
        let found = OffsetFetchResponseGroup { group_id: text("g"), topics: vec![topic], ..Default::default() };
        OffsetFetchResponse { groups: vec![found], ..Default::default() }
    }

    #[test]
    fn offsets_are_read_from_old_and_new_answers() {
        for response in [old(ErrorCode::NONE), new(ErrorCode::NONE)] {
            assert!(fetch_check(&response, "g").is_ok());
            let read = fetch_answer(&response, "g", &[tp("t", 0), tp("t", 1)]).unwrap();
            let expected = OffsetAndMetadata { offset: 7, leader_epoch: Some(3), metadata: "note".to_owned() };
            assert_eq!(read[&tp("t", 0)], Some(expected));
            assert_eq!(read[&tp("t", 1)], None);
        }
    }

    #[test]
    fn a_partition_that_is_left_out_is_an_error_and_not_no_offset() {
        let error = fetch_answer(&new(ErrorCode::NONE), "g", &[tp("t", 2)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol);
        let error = fetch_answer(&new(ErrorCode::NONE), "other", &[tp("t", 0)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol);
    }

    #[test]
    fn offsets_of_open_transactions_are_asked_for_again() {
        for response in [old(ErrorCode::UNSTABLE_OFFSET_COMMIT), new(ErrorCode::UNSTABLE_OFFSET_COMMIT)] {
            assert_eq!(fetch_check(&response, "g"), ErrorCode::UNSTABLE_OFFSET_COMMIT);
        }
        let unknown = new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        assert!(fetch_check(&unknown, "g").is_ok(), "asking again does not make a topic");
        assert!(fetch_answer(&unknown, "g", &[tp("t", 0), tp("t", 1)]).is_err());
        assert!(fetch_answer(&unknown, "g", &[tp("t", 0)]).is_ok());
    }

    #[test]
    fn an_error_of_the_whole_group_is_found_in_either_place() {
        let mut response = new(ErrorCode::NONE);
        response.groups[0].error_code = ErrorCode::NOT_COORDINATOR.code();
        assert_eq!(fetch_check(&response, "g"), ErrorCode::NOT_COORDINATOR);
        let response =
            OffsetFetchResponse { error_code: ErrorCode::GROUP_AUTHORIZATION_FAILED.code(), ..old(ErrorCode::NONE) };
        assert_eq!(fetch_check(&response, "g"), ErrorCode::GROUP_AUTHORIZATION_FAILED);
        let error = fetch_answer(&response, "g", &[tp("t", 0)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Authorization);
    }

    #[test]
    fn questions_name_the_group_where_their_version_has_it() {
        let asked = [tp("t", 1), tp("t", 0), tp("u", 5), tp("t", 1)];
        let request = fetch_request(7, "g", &asked);
        assert!(request.require_stable && request.groups.is_empty());
        let topics = request.topics.unwrap();
        assert_eq!(topics[0].partition_indexes, [0, 1]);
        assert_eq!(topics.len(), 2);
        let request = fetch_request(8, "g", &asked);
        assert_eq!(request.groups[0].topics.as_ref().unwrap()[1].partition_indexes, [5]);
        assert!(!fetch_request(6, "g", &asked).require_stable);
    }
}
