//! Requests of transactions as messages of the protocol, and their responses as answers.
//!
//! Sans-IO.

use std::time::Duration;

use uuid::Uuid;

use super::request::Answer;
use crate::{
    error::ErrorCode,
    producer::idempotence::ProducerId,
    record::{GroupMetadata, OffsetAndMetadata, TopicPartition},
    wire::messages::{
        AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, EndTxnRequest, EndTxnResponse,
        InitProducerIdRequest, InitProducerIdResponse, TxnOffsetCommitRequest, TxnOffsetCommitResponse,
        add_partitions_to_txn_request::AddPartitionsToTxnTopic,
        txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic},
    },
};

/// The first version of EndTxn that answers the identity of the next transaction.
const ANSWERS_IDENTITY: i16 = 5;

/// The first version of TxnOffsetCommit that names topics by id (KIP-1319).
pub(crate) const OFFSETS_BY_ID: i16 = 6;

pub(crate) fn init_producer_id(id: &str, timeout: Duration, producer: Option<ProducerId>) -> InitProducerIdRequest {
    InitProducerIdRequest {
        transactional_id: Some(id.into()),
        transaction_timeout_ms: i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX),
        producer_id: producer.map_or(-1, |producer| producer.id),
        producer_epoch: producer.map_or(-1, |producer| producer.epoch),
    }
}

/// Returns the request for partitions that are sorted by topic.
pub(crate) fn add_partitions(
    id: &str,
    producer: ProducerId,
    partitions: &[TopicPartition],
) -> AddPartitionsToTxnRequest {
    let topics = partitions.chunk_by(|left, right| left.topic == right.topic).filter_map(|of_topic| {
        let partitions = of_topic.iter().map(|partition| partition.partition).collect();
        Some(AddPartitionsToTxnTopic { name: (&*of_topic.first()?.topic).into(), partitions })
    });
    AddPartitionsToTxnRequest {
        v3_and_below_transactional_id: id.into(),
        v3_and_below_producer_id: producer.id,
        v3_and_below_producer_epoch: producer.epoch,
        v3_and_below_topics: topics.collect(),
        ..AddPartitionsToTxnRequest::default()
    }
}

pub(crate) fn add_offsets(id: &str, producer: ProducerId, group: &str) -> AddOffsetsToTxnRequest {
    AddOffsetsToTxnRequest {
        transactional_id: id.into(),
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        group_id: group.into(),
    }
}

/// Returns the request for offsets that are sorted by topic. From version 6 on, topics are named by
/// the ids that `topic_id` returns.
pub(crate) fn txn_offset_commit(
    id: &str,
    producer: ProducerId,
    group: &GroupMetadata,
    offsets: &[(TopicPartition, OffsetAndMetadata)],
    topic_id: impl Fn(&str) -> Uuid,
    version: i16,
) -> TxnOffsetCommitRequest {
    let by_id = version >= OFFSETS_BY_ID;
    let topics = offsets.chunk_by(|(left, _), (right, _)| left.topic == right.topic).filter_map(|of_topic| {
        let name: &str = &of_topic.first()?.0.topic;
        let partitions = of_topic.iter().map(|(partition, at)| TxnOffsetCommitRequestPartition {
            partition_index: partition.partition,
            committed_offset: at.offset,
            committed_leader_epoch: if version >= 2 { at.leader_epoch.unwrap_or(-1) } else { -1 },
            committed_metadata: Some(at.metadata.as_str().into()),
        });
        Some(TxnOffsetCommitRequestTopic {
            name: if by_id { "".into() } else { name.into() },
            topic_id: if by_id { topic_id(name) } else { Uuid::nil() },
            partitions: partitions.collect(),
        })
    });
    TxnOffsetCommitRequest {
        transactional_id: id.into(),
        group_id: group.group_id().into(),
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        generation_id_or_member_epoch: group.generation(),
        member_id: group.member_id().into(),
        // An instance id without a membership says nothing, and older versions lack it.
        group_instance_id: group.instance_id().filter(|_| version >= 3).map(Into::into),
        topics: topics.collect(),
    }
}

pub(crate) fn end_txn(id: &str, producer: ProducerId, commit: bool) -> EndTxnRequest {
    EndTxnRequest {
        transactional_id: id.into(),
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        committed: commit,
    }
}

pub(crate) fn init_producer_id_answer(response: &InitProducerIdResponse) -> Answer {
    identity_answer(response.error_code, response.producer_id, response.producer_epoch)
}

pub(crate) fn end_txn_answer(response: &EndTxnResponse, version: i16) -> Answer {
    if version < ANSWERS_IDENTITY {
        return Answer::Code(response.error_code.into());
    }
    identity_answer(response.error_code, response.producer_id, response.producer_epoch)
}

fn identity_answer(code: i16, id: i64, epoch: i16) -> Answer {
    match ErrorCode::new(code) {
        ErrorCode::NONE => Answer::Assigned { id, epoch },
        code => Answer::Code(code),
    }
}

pub(crate) fn add_partitions_answer(response: &AddPartitionsToTxnResponse) -> Answer {
    let topics = response.results_by_topic_v3_and_below.iter();
    Answer::Partitions(
        topics
            .flat_map(|topic| {
                topic.results_by_partition.iter().map(|result| {
                    (TopicPartition::new(&*topic.name, result.partition_index), result.partition_error_code.into())
                })
            })
            .collect(),
    )
}

/// Returns the answer with the topics that were `asked`. A topic that the response names and the
/// request does not is left out.
pub(crate) fn txn_offset_commit_answer(
    response: &TxnOffsetCommitResponse,
    asked: &[(TopicPartition, OffsetAndMetadata)],
    topic_id: impl Fn(&str) -> Uuid,
    version: i16,
) -> Answer {
    let code_of = |partition: &TopicPartition| {
        let topic = response.topics.iter().find(|topic| {
            if version >= OFFSETS_BY_ID {
                topic.topic_id == topic_id(&partition.topic)
            } else {
                *topic.name == *partition.topic
            }
        })?;
        let result = topic.partitions.iter().find(|result| result.partition_index == partition.partition)?;
        Some((partition.clone(), result.error_code.into()))
    };
    Answer::Partitions(asked.iter().filter_map(|(partition, _)| code_of(partition)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::messages::{
        add_partitions_to_txn_response::{AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult},
        txn_offset_commit_response::{TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic},
    };

    const PRODUCER: ProducerId = ProducerId { id: 7, epoch: 3 };

    fn id_of(name: &str) -> Uuid {
        Uuid::from_u128(name.len() as u128)
    }

    fn offsets() -> Vec<(TopicPartition, OffsetAndMetadata)> {
        let at = |topic, partition| (TopicPartition::new(topic, partition), OffsetAndMetadata::new(5));
        vec![at("a", 0), at("a", 1), at("bb", 0)]
    }

    #[test]
    fn partitions_are_grouped_by_topic() {
        let partitions: Vec<_> = offsets().into_iter().map(|(partition, _)| partition).collect();
        let request = add_partitions("t", PRODUCER, &partitions);
        let topics: Vec<_> =
            request.v3_and_below_topics.iter().map(|topic| (&*topic.name, topic.partitions.clone())).collect();
        assert_eq!(topics, [("a", vec![0, 1]), ("bb", vec![0])]);
        assert_eq!((request.v3_and_below_producer_id, request.v3_and_below_producer_epoch), (7, 3));
        let result = AddPartitionsToTxnPartitionResult { partition_index: 1, partition_error_code: 51 };
        let topic = AddPartitionsToTxnTopicResult { name: "a".into(), results_by_partition: vec![result] };
        let response = AddPartitionsToTxnResponse { results_by_topic_v3_and_below: vec![topic], ..Default::default() };
        let Answer::Partitions(codes) = add_partitions_answer(&response) else { panic!("an answer by partition") };
        assert_eq!(codes, [(TopicPartition::new("a", 1), ErrorCode::CONCURRENT_TRANSACTIONS)]);
    }

    #[test]
    fn offsets_name_topics_by_id_from_version_six() {
        let group = GroupMetadata::without_member("g").with_generation("m", 4).with_instance_id(Some("i".into()));
        for (version, name, id) in [(5, "bb", Uuid::nil()), (6, "", id_of("bb"))] {
            let request = txn_offset_commit("t", PRODUCER, &group, &offsets(), id_of, version);
            assert_eq!((&*request.topics[1].name, request.topics[1].topic_id), (name, id));
            assert_eq!((request.generation_id_or_member_epoch, &*request.member_id), (4, "m"));
            assert_eq!(request.group_instance_id.as_deref(), Some("i"));
            let partition = TxnOffsetCommitResponsePartition { partition_index: 0, error_code: 3 };
            let topic = TxnOffsetCommitResponseTopic { name: name.into(), topic_id: id, partitions: vec![partition] };
            let response = TxnOffsetCommitResponse { topics: vec![topic], ..Default::default() };
            let answer = txn_offset_commit_answer(&response, &offsets(), id_of, version);
            let Answer::Partitions(codes) = answer else { panic!("an answer by partition") };
            let expected = (TopicPartition::new("bb", 0), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
            assert_eq!(codes, [expected], "the others are missing");
        }
    }

    #[test]
    fn end_of_transaction_answers_identity_from_version_five() {
        let response = EndTxnResponse { producer_id: 7, producer_epoch: 4, ..Default::default() };
        assert!(matches!(end_txn_answer(&response, 4), Answer::Code(ErrorCode::NONE)));
        assert!(matches!(end_txn_answer(&response, 5), Answer::Assigned { id: 7, epoch: 4 }));
        let refused = EndTxnResponse { error_code: 90, ..response };
        assert!(matches!(end_txn_answer(&refused, 5), Answer::Code(ErrorCode::PRODUCER_FENCED)));
        let request = end_txn("t", PRODUCER, true);
        assert_eq!((request.producer_id, request.producer_epoch, request.committed), (7, 3, true));
        assert_eq!(&*add_offsets("t", PRODUCER, "g").group_id, "g");
    }

    #[test]
    fn first_initialization_names_no_producer() {
        let request = init_producer_id("t", Duration::from_secs(60), None);
        assert_eq!((request.producer_id, request.producer_epoch, request.transaction_timeout_ms), (-1, -1, 60_000));
        let raised = init_producer_id("t", Duration::MAX, Some(PRODUCER));
        assert_eq!((raised.producer_id, raised.producer_epoch, raised.transaction_timeout_ms), (7, 3, i32::MAX));
        let response = InitProducerIdResponse { producer_id: 9, producer_epoch: 0, ..Default::default() };
        assert!(matches!(init_producer_id_answer(&response), Answer::Assigned { id: 9, epoch: 0 }));
    }
}
