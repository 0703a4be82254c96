//! A group's committed offsets: OffsetFetch requests and responses in all versions.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use uuid::Uuid;

use crate::consumer::group::{
    classic::requests::text,
    member_snapshot::Identity,
    offsets::{commit::LAST_BY_NAME, commit_response::is_unknown_topic},
};
use crate::{
    cluster::Metadata,
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

/// A group's committed offset of each partition, `None` if there is none, or the error of this
/// partition.
pub(crate) type CommittedOffsets = HashMap<TopicPartition, Result<Option<OffsetAndMetadata>>>;

/// Ids of topics, by their names.
#[derive(Clone, Debug, Default)]
pub(crate) struct TopicIds(BTreeMap<Arc<str>, Uuid>);

impl TopicIds {
    /// Returns the ids of the partitions' topics; `None` if one was never known, so that the
    /// request has to name the topics.
    ///
    /// The id of a topic that is no longer in the metadata is remembered, because by name a later
    /// topic of the same name would be looked up.
    pub(crate) fn learn(&mut self, metadata: &Metadata, partitions: &[TopicPartition]) -> Option<Self> {
        for partition in partitions {
            if let Some(topic) = metadata.topic(&partition.topic).filter(|topic| !topic.id.is_nil()) {
                self.0.insert(partition.topic.clone(), topic.id);
            }
        }
        let id = |partition: &TopicPartition| Some((partition.topic.clone(), *self.0.get(&partition.topic)?));
        partitions.iter().map(id).collect::<Option<_>>().map(Self)
    }
}

/// A look-up of a group's committed offsets.
#[derive(Debug)]
pub(crate) struct FetchOffsets<'a> {
    pub(crate) group_id: &'a str,
    pub(crate) partitions: &'a [TopicPartition],
    pub(crate) ids: Option<TopicIds>,
    /// The member that asks, in a group of the consumer protocol: a fenced member gets no offsets
    /// (KIP-848).
    pub(crate) identity: Option<&'a Identity>,
}

impl FetchOffsets<'_> {
    fn known_id(&self, topic: &str) -> Option<Uuid> {
        self.ids.as_ref()?.0.get(topic).copied()
    }

    pub(crate) fn max_version(&self) -> Option<i16> {
        self.ids.is_none().then_some(LAST_BY_NAME)
    }

    /// Builds the request. From version 7 on, the offset of a partition that an open transaction
    /// commits is answered with UNSTABLE_OFFSET_COMMIT (KIP-447).
    pub(crate) fn request(&self, version: i16) -> OffsetFetchRequest {
        let mut topics: BTreeMap<&str, BTreeSet<i32>> = BTreeMap::new();
        for partition in self.partitions {
            topics.entry(&partition.topic).or_default().insert(partition.partition);
        }
        let require_stable = version >= 7;
        if version < 8 {
            let topics = topics.into_iter().map(|(topic, numbers)| OffsetFetchRequestTopic {
                name: text(topic),
                partition_indexes: numbers.into_iter().collect(),
            });
            let topics = Some(topics.collect());
            return OffsetFetchRequest { group_id: text(self.group_id), topics, require_stable, ..Default::default() };
        }
        let topics = topics.into_iter().map(|(topic, numbers)| OffsetFetchRequestTopics {
            name: text(topic),
            topic_id: self.known_id(topic).unwrap_or_default(),
            partition_indexes: numbers.into_iter().collect(),
        });
        let group = OffsetFetchRequestGroup {
            group_id: text(self.group_id),
            member_id: self.identity.map(|identity| text(&identity.member_id)),
            member_epoch: self.identity.map_or(-1, |identity| identity.generation),
            topics: Some(topics.collect()),
        };
        OffsetFetchRequest { groups: vec![group], require_stable, ..Default::default() }
    }
}

/// One partition of a response of any version.
struct Fetched<'a> {
    /// Empty from version 10 on, which has only the id.
    topic: &'a str,
    topic_id: Uuid,
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
            topic_id: topic.topic_id,
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
            topic_id: Uuid::nil(),
            partition: p.partition_index,
            offset: p.committed_offset,
            epoch: p.committed_leader_epoch,
            metadata: p.metadata.as_ref(),
            code: p.error_code.into(),
        });
        (response.error_code.into(), read.collect())
    }
}

/// Returns true if a retriable error concerns one partition alone, so that the others need not wait
/// for it: its topic is not known, or a transaction with its offset has not ended.
pub(crate) fn is_of_partition(code: ErrorCode) -> bool {
    is_unknown_topic(code) || code == ErrorCode::UNSTABLE_OFFSET_COMMIT
}

/// Returns the error for which the whole request is sent again, or `NONE`.
pub(crate) fn fetch_check(response: &OffsetFetchResponse, group_id: &str) -> ErrorCode {
    let (code, partitions) = fetched(response, group_id);
    if !code.is_ok() {
        return code;
    }
    // Before version 2 there is no code for the whole response: each partition carries it.
    let retriable = |fetched: &&Fetched<'_>| fetched.code.is_retriable() && !is_of_partition(fetched.code);
    partitions.iter().find(retriable).map_or(ErrorCode::NONE, |fetched| fetched.code)
}

/// Reads the offset of each requested partition. One that the response leaves out must not be
/// mistaken for one without an offset.
///
/// # Errors
/// The coordinator's error for the group.
pub(crate) fn fetch_answer(response: &OffsetFetchResponse, asked: &FetchOffsets<'_>) -> Result<CommittedOffsets> {
    let group_id = asked.group_id;
    let (code, partitions) = fetched(response, group_id);
    code.ok().map_err(|code| Error::broker(code, format_args!("offsets of group {group_id}")))?;
    let mut answers = HashMap::new();
    for fetched in partitions {
        answers.insert((fetched.topic, fetched.topic_id, fetched.partition), fetched);
    }
    let mut state = CommittedOffsets::new();
    for partition in asked.partitions {
        let by_name = answers.get(&(&*partition.topic, Uuid::nil(), partition.partition));
        let by_id = || answers.get(&("", asked.known_id(&partition.topic)?, partition.partition));
        let offset = match by_name.or_else(by_id) {
            Some(fetched) => fetched.offset(partition, group_id),
            None => {
                let message = format!("offset of {partition} in group {group_id}: missing in the response");
                Err(Error::new(ErrorKind::Protocol, message))
            }
        };
        state.insert(partition.clone(), offset);
    }
    Ok(state)
}

impl Fetched<'_> {
    fn offset(&self, partition: &TopicPartition, group_id: &str) -> Result<Option<OffsetAndMetadata>> {
        self.code.ok().map_err(|code| {
            let hint = match code {
                ErrorCode::UNSTABLE_OFFSET_COMMIT => ", which a transaction commits that has not ended",
                _ => "",
            };
            Error::broker(code, format_args!("offset of {partition} in group {group_id}{hint}"))
        })?;
        Ok((self.offset >= 0).then(|| OffsetAndMetadata {
            offset: self.offset,
            leader_epoch: (self.epoch >= 0).then_some(self.epoch),
            metadata: self.metadata.map(ToString::to_string).unwrap_or_default(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use crate::cluster::TopicMetadata;
    use crate::consumer::group::offsets::committed::*;
    use crate::wire::messages::offset_fetch_response::{
        OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
        OffsetFetchResponseTopic, OffsetFetchResponseTopics,
    };

    fn tp(topic: &str, partition: i32) -> TopicPartition {
        TopicPartition::new(topic, partition)
    }

    fn by_name<'a>(group_id: &'a str, partitions: &'a [TopicPartition]) -> FetchOffsets<'a> {
        FetchOffsets { group_id, partitions, ids: None, identity: None }
    }

    /// Offset 7 with epoch and metadata for `t[0]`, no offset for `t[1]`; the code is that of
    /// `t[1]`.
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
        let state = OffsetFetchResponseGroup { group_id: text("g"), topics: vec![topic], ..Default::default() };
        OffsetFetchResponse { groups: vec![state], ..Default::default() }
    }

    #[test]
    fn reads_offsets_from_old_and_new_versions() {
        for response in [old(ErrorCode::NONE), new(ErrorCode::NONE)] {
            assert!(fetch_check(&response, "g").is_ok());
            let read = fetch_answer(&response, &by_name("g", &[tp("t", 0), tp("t", 1)])).unwrap();
            let expected = OffsetAndMetadata { offset: 7, leader_epoch: Some(3), metadata: "note".to_owned() };
            assert_eq!(read[&tp("t", 0)].as_ref().unwrap(), &Some(expected));
            assert_eq!(read[&tp("t", 1)].as_ref().unwrap(), &None);
        }
    }

    #[test]
    fn partition_missing_in_response_is_error() {
        for (group_id, partition) in [("g", tp("t", 2)), ("other", tp("t", 0))] {
            let partitions = [partition];
            let read = fetch_answer(&new(ErrorCode::NONE), &by_name(group_id, &partitions)).unwrap();
            assert_eq!(read[&partitions[0]].as_ref().unwrap_err().kind(), ErrorKind::Protocol);
        }
    }

    #[test]
    fn partition_errors_block_no_other_partition() {
        for code in [ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, ErrorCode::UNSTABLE_OFFSET_COMMIT] {
            for response in [old(code), new(code)] {
                assert!(fetch_check(&response, "g").is_ok());
                let read = fetch_answer(&response, &by_name("g", &[tp("t", 0), tp("t", 1)])).unwrap();
                assert!(read[&tp("t", 0)].is_ok());
                assert_eq!(read[&tp("t", 1)].as_ref().unwrap_err().code(), Some(code));
            }
        }
        let loading = new(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
        assert_eq!(fetch_check(&loading, "g"), ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
    }

    #[test]
    fn unstable_offset_names_open_transaction() {
        let read = fetch_answer(&new(ErrorCode::UNSTABLE_OFFSET_COMMIT), &by_name("g", &[tp("t", 1)])).unwrap();
        let error = read[&tp("t", 1)].as_ref().unwrap_err();
        assert!(
            error.is_retriable() && error.to_string().contains("transaction commits that has not ended"),
            "{error}"
        );
    }

    #[test]
    fn reads_group_error_from_either_field() {
        let mut response = new(ErrorCode::NONE);
        response.groups[0].error_code = ErrorCode::NOT_COORDINATOR.code();
        assert_eq!(fetch_check(&response, "g"), ErrorCode::NOT_COORDINATOR);
        let response =
            OffsetFetchResponse { error_code: ErrorCode::GROUP_AUTHORIZATION_FAILED.code(), ..old(ErrorCode::NONE) };
        assert_eq!(fetch_check(&response, "g"), ErrorCode::GROUP_AUTHORIZATION_FAILED);
        let error = fetch_answer(&response, &by_name("g", &[tp("t", 0)])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Authorization);
    }

    #[test]
    fn encodes_group_as_request_version_allows() {
        let partitions = [tp("t", 1), tp("t", 0), tp("u", 5), tp("t", 1)];
        let asked = by_name("g", &partitions);
        assert_eq!(asked.max_version(), Some(9), "no ids, so by name");
        let request = asked.request(7);
        assert!(request.require_stable && request.groups.is_empty());
        let topics = request.topics.unwrap();
        assert_eq!(topics[0].partition_indexes, [0, 1]);
        assert_eq!(topics.len(), 2);
        let request = asked.request(8);
        assert_eq!(request.groups[0].topics.as_ref().unwrap()[1].partition_indexes, [5]);
        assert_eq!((&request.groups[0].member_id, request.groups[0].member_epoch), (&None, -1));
        assert!(!asked.request(6).require_stable);
    }

    fn metadata_with(topics: &[(&str, Uuid)]) -> Metadata {
        let topic = |(name, id): &(&str, Uuid)| {
            let name: Arc<str> = (*name).into();
            (name.clone(), Arc::new(TopicMetadata { name, id: *id, ..TopicMetadata::default() }))
        };
        Metadata { topics: topics.iter().map(topic).collect(), ..Metadata::default() }
    }

    #[test]
    fn uses_topic_ids_when_all_are_known() {
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let partitions = [tp("t", 0), tp("u", 0)];
        let mut known = TopicIds::default();
        assert!(known.learn(&metadata_with(&[("t", one)]), &partitions).is_none());
        assert!(known.learn(&metadata_with(&[("t", one), ("u", Uuid::nil())]), &partitions).is_none());
        let ids = known.learn(&metadata_with(&[("t", one), ("u", two)]), &partitions);
        let identity = Identity { generation: 4, member_id: "m".into() };
        let asked = FetchOffsets { ids, identity: Some(&identity), ..by_name("g", &partitions) };
        assert_eq!(asked.max_version(), None);
        let request = asked.request(10);
        let group = &request.groups[0];
        assert_eq!((group.member_id.as_deref(), group.member_epoch), (Some("m"), 4));
        let sent: Vec<_> = group.topics.iter().flatten().map(|topic| topic.topic_id).collect();
        assert_eq!(sent, [one, two]);
    }

    #[test]
    fn matches_offsets_by_topic_id() {
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let partitions = [tp("t", 0)];
        let ids = TopicIds::default().learn(&metadata_with(&[("t", one)]), &partitions);
        let asked = FetchOffsets { ids, ..by_name("g", &partitions) };
        let mut response = new(ErrorCode::NONE);
        (response.groups[0].topics[0].name, response.groups[0].topics[0].topic_id) = (text(""), one);
        let read = fetch_answer(&response, &asked).unwrap();
        assert_eq!(read[&tp("t", 0)].as_ref().unwrap().as_ref().unwrap().offset, 7);
        response.groups[0].topics[0].topic_id = two;
        let read = fetch_answer(&response, &asked).unwrap();
        let error = read[&tp("t", 0)].as_ref().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "another topic's offset is ignored");
    }

    #[test]
    fn unknown_topic_id_is_returned_to_caller() {
        let response = new(ErrorCode::UNKNOWN_TOPIC_ID);
        assert!(fetch_check(&response, "g").is_ok(), "the topic is looked up in the metadata first");
        let read = fetch_answer(&response, &by_name("g", &[tp("t", 1)])).unwrap();
        assert_eq!(read[&tp("t", 1)].as_ref().unwrap_err().code(), Some(ErrorCode::UNKNOWN_TOPIC_ID));
    }

    #[test]
    fn id_of_deleted_topic_is_remembered() {
        let (one, partitions) = (Uuid::from_u128(1), [tp("t", 0)]);
        let mut known = TopicIds::default();
        assert!(known.learn(&metadata_with(&[]), &partitions).is_none());
        known.learn(&metadata_with(&[("t", one)]), &partitions).unwrap();
        for gone in [metadata_with(&[]), metadata_with(&[("t", Uuid::nil())])] {
            let ids = known.learn(&gone, &partitions).expect("the id is known; by name it may be another topic");
            assert_eq!(ids.0["t"], one);
        }
    }
}
