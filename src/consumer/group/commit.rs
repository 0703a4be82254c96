//! Offsets to and from the group's coordinator: the requests, and what each answer means.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use kafka_protocol::{
    messages::{
        GroupId, OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse, TopicName,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics},
    },
    protocol::StrBytes,
};

use super::membership::{Identity, Standing};
use crate::{
    consumer::OffsetAndMetadata,
    error::{Error, ErrorCode, ErrorKind, Remedy, Result},
    record::TopicPartition,
};

/// A commit on its way: what is left of it, and in whose name it goes.
#[derive(Debug)]
pub(super) struct Commit {
    group_id: Arc<str>,
    instance_id: Option<Arc<str>>,
    /// `None` goes without a generation, as consumers do that are in no group.
    identity: Option<Identity>,
    left: BTreeMap<TopicPartition, OffsetAndMetadata>,
}

/// What an answer means for the commit.
#[derive(Debug)]
pub(super) enum Verdict {
    Done,
    /// What is left may be sent again; first the coordinator has to be found anew, if so said.
    Again {
        find_coordinator: bool,
        error: Error,
    },
    /// The commit has failed; `expelled` is what the membership has to hear.
    Failed {
        error: Error,
        expelled: Option<Error>,
    },
}

impl Commit {
    /// Takes a commit in the name of who we are now. Refuses what is not ours to commit.
    pub(super) fn new(
        group_id: Arc<str>,
        instance_id: Option<Arc<str>>,
        standing: &Standing,
        offsets: Vec<(TopicPartition, OffsetAndMetadata)>,
    ) -> Result<Self> {
        if let Some((partition, offset)) = offsets.iter().find(|(_, offset)| offset.offset < 0) {
            let message = format!("commit {partition}: an offset of {} is not allowed", offset.offset);
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let identity = match standing {
            Standing::Alone => None,
            Standing::Member { identity, owned } => {
                if let Some((partition, _)) = offsets.iter().find(|(partition, _)| !owned.contains(partition)) {
                    let message = format!("commit {partition} for group {group_id}: the partition is not owned");
                    return Err(Error::new(ErrorKind::NotAssigned, message));
                }
                Some(identity.clone())
            }
            Standing::Rebalancing => return Err(rebalancing(&group_id)),
            Standing::Out => {
                let message = format!("commit for group {group_id}: the consumer is out of the group");
                return Err(Error::new(ErrorKind::NotAssigned, message));
            }
            Standing::Ended(error) => return Err(error.clone()),
        };
        Ok(Self { group_id, instance_id, identity, left: offsets.into_iter().collect() })
    }

    pub(super) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// A commit never outlives the generation that it was made in: checked before each attempt.
    pub(super) fn check(&self, standing: &Standing) -> Result<()> {
        let current = match standing {
            Standing::Ended(error) => return Err(error.clone()),
            Standing::Alone => None,
            Standing::Member { identity, .. } => Some(identity),
            Standing::Rebalancing | Standing::Out => return Err(self.over()),
        };
        if current == self.identity.as_ref() { Ok(()) } else { Err(self.over()) }
    }

    fn over(&self) -> Error {
        let message = format!(
            "commit for group {}: the generation in which the partitions were owned is over, so they may be others' by \
             now; their records will be read again from what was committed before",
            self.group_id
        );
        Error::new(ErrorKind::NotAssigned, message)
    }

    pub(super) fn request(&self, version: i16) -> OffsetCommitRequest {
        let mut topics: BTreeMap<&Arc<str>, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
        for (partition, offset) in &self.left {
            let epoch = if version >= 6 { offset.leader_epoch.unwrap_or(-1) } else { -1 };
            topics.entry(&partition.topic).or_default().push(
                OffsetCommitRequestPartition::default()
                    .with_partition_index(partition.partition)
                    .with_committed_offset(offset.offset)
                    .with_committed_leader_epoch(epoch)
                    .with_committed_metadata(Some(StrBytes::from_string(offset.metadata.clone()))),
            );
        }
        let topics = topics
            .into_iter()
            .map(|(topic, partitions)| {
                OffsetCommitRequestTopic::default().with_name(topic_name(topic)).with_partitions(partitions)
            })
            .collect();
        let request = OffsetCommitRequest::default().with_group_id(group(&self.group_id)).with_topics(topics);
        let Some(identity) = &self.identity else {
            return request.with_generation_id_or_member_epoch(-1);
        };
        let instance_id = self.instance_id.as_deref().filter(|_| version >= 7);
        request
            .with_generation_id_or_member_epoch(identity.generation)
            .with_member_id(StrBytes::from_string(identity.member_id.to_string()))
            .with_group_instance_id(instance_id.map(|id| StrBytes::from_string(id.to_owned())))
    }

    /// Takes what was committed off what is left, and says how it goes on.
    pub(super) fn answered(&mut self, response: &OffsetCommitResponse) -> Verdict {
        let mut answers: HashMap<(&str, i32), ErrorCode> = HashMap::new();
        for topic in &response.topics {
            for partition in &topic.partitions {
                answers.insert((topic.name.as_str(), partition.partition_index), partition.error_code.into());
            }
        }
        let mut refused: BTreeMap<ErrorCode, BTreeSet<TopicPartition>> = BTreeMap::new();
        let mut unanswered = None;
        self.left.retain(|partition, _| match answers.get(&(&*partition.topic, partition.partition)) {
            Some(code) if code.is_ok() => false,
            Some(&code) => {
                refused.entry(code).or_default().insert(partition.clone());
                true
            }
            None => {
                unanswered = Some(partition.clone());
                true
            }
        });
        if let Some((&code, partitions)) = refused.iter().find(|(code, _)| !may_pass(**code)) {
            return self.failed(code, partitions);
        }
        if let Some(partition) = unanswered {
            let message = format!("commit {partition} for group {}: the answer leaves it out", self.group_id);
            return Verdict::Failed { error: Error::new(ErrorKind::Protocol, message), expelled: None };
        }
        match refused.first_key_value() {
            None => Verdict::Done,
            Some((&code, partitions)) => Verdict::Again {
                find_coordinator: refused.keys().any(|code| names_no_coordinator(*code)),
                error: self.error(code, partitions).retriable(true),
            },
        }
    }

    fn failed(&self, code: ErrorCode, partitions: &BTreeSet<TopicPartition>) -> Verdict {
        let said = self.error(code, partitions);
        match code {
            ErrorCode::REBALANCE_IN_PROGRESS => {
                Verdict::Failed { error: rebalancing(&self.group_id), expelled: Some(said) }
            }
            ErrorCode::FENCED_INSTANCE_ID => Verdict::Failed { error: said.clone(), expelled: Some(said) },
            ErrorCode::ILLEGAL_GENERATION | ErrorCode::UNKNOWN_MEMBER_ID => {
                let error = if self.identity.is_some() {
                    self.over()
                } else {
                    let message = format!(
                        "commit for group {}: the group has members, so only they can commit; subscribe, or use another \
                         group.id",
                        self.group_id
                    );
                    Error::new(ErrorKind::NotAssigned, message)
                };
                Verdict::Failed { error: error.with_source(said.clone()), expelled: Some(said) }
            }
            _ => Verdict::Failed { error: said, expelled: None },
        }
    }

    fn error(&self, code: ErrorCode, partitions: &BTreeSet<TopicPartition>) -> Error {
        Error::broker(code, format_args!("commit {} for group {}", Shown(partitions), self.group_id))
    }
}

/// Errors after which the same commit may be sent again, by the rules of Kafka's Java client.
fn may_pass(code: ErrorCode) -> bool {
    code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
        || code == ErrorCode::UNSTABLE_OFFSET_COMMIT
        || code == ErrorCode::COORDINATOR_LOAD_IN_PROGRESS
        || names_no_coordinator(code)
}

fn names_no_coordinator(code: ErrorCode) -> bool {
    code.remedy() == Remedy::FindCoordinator || code == ErrorCode::REQUEST_TIMED_OUT
}

fn rebalancing(group_id: &str) -> Error {
    let context = format_args!("commit for group {group_id}: commit what is still owned when the rebalance is through");
    Error::broker(ErrorCode::REBALANCE_IN_PROGRESS, context).retriable(true)
}

/// The first few partitions of many.
struct Shown<'a>(&'a BTreeSet<TopicPartition>);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const FEW: usize = 5;
        for (i, partition) in self.0.iter().take(FEW).enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{partition}")?;
        }
        if self.0.len() > FEW { write!(f, " and {} more", self.0.len() - FEW) } else { Ok(()) }
    }
}

fn group(group_id: &str) -> GroupId {
    GroupId(StrBytes::from_string(group_id.to_owned()))
}

fn topic_name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

/// Asks what the group has committed. Offsets of transactions that are still open count as not there yet (KIP-447).
pub(super) fn fetch_request(version: i16, group_id: &str, partitions: &[TopicPartition]) -> OffsetFetchRequest {
    let mut topics: BTreeMap<&str, BTreeSet<i32>> = BTreeMap::new();
    for partition in partitions {
        topics.entry(&partition.topic).or_default().insert(partition.partition);
    }
    let topics = topics.into_iter().map(|(topic, numbers)| (topic_name(topic), numbers.into_iter().collect()));
    let request = OffsetFetchRequest::default().with_require_stable(version >= 7);
    if version >= 8 {
        let topics = topics
            .map(|(name, numbers)| OffsetFetchRequestTopics::default().with_name(name).with_partition_indexes(numbers));
        let asked = OffsetFetchRequestGroup::default()
            .with_group_id(group(group_id))
            .with_member_epoch(-1)
            .with_topics(Some(topics.collect()));
        request.with_groups(vec![asked])
    } else {
        let topics = topics
            .map(|(name, numbers)| OffsetFetchRequestTopic::default().with_name(name).with_partition_indexes(numbers));
        request.with_group_id(group(group_id)).with_topics(Some(topics.collect()))
    }
}

/// One partition of an answer, whichever version said it.
struct Fetched<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    epoch: i32,
    metadata: Option<&'a StrBytes>,
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
