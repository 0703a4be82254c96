//! OffsetFetch 1–10: of one group, or of several (v8); of the partitions named, or of all that have
//! a commit; topics by name, or by id (v10). A partition without a commit is answered with −1 and
//! no error, and with `require_stable` (v7, KIP-447) one whose transaction has not ended with
//! UNSTABLE_OFFSET_COMMIT.

use uuid::Uuid;

use super::{Call, Context, Step, Subject, text};
use crate::{
    error::{ErrorCode, Result},
    record::TopicPartition,
    testkit::state::{State, group::Committed},
    wire::messages::{
        OffsetFetchRequest, OffsetFetchResponse,
        offset_fetch_request::{OffsetFetchRequestTopic, OffsetFetchRequestTopics},
        offset_fetch_response::{
            OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
            OffsetFetchResponseTopic, OffsetFetchResponseTopics,
        },
    },
};

pub(crate) struct OffsetFetch(pub(crate) OffsetFetchRequest);

/// The part of a request for one group: topics with partitions, or all.
struct Asked {
    group: String,
    topics: Option<Vec<(Named, Vec<i32>)>>,
    /// The member that asks (v9), and its epoch.
    member: Option<String>,
    epoch: i32,
}

/// A topic by its name, which is empty if only the id was given and no topic has it.
struct Named {
    name: String,
    id: Uuid,
}

/// A topic and the commit found for each of its partitions.
type TopicFound = (Named, Vec<(i32, Result<Option<Committed>, ErrorCode>)>);

struct Found {
    error: ErrorCode,
    topics: Vec<TopicFound>,
}

impl OffsetFetch {
    fn asked(&self, state: &State, version: i16) -> Vec<Asked> {
        if version >= 8 {
            let named = |topic: &OffsetFetchRequestTopics| {
                let known = state.topics.name_of(topic.topic_id).map_or(&*topic.name, |name| &**name);
                (Named { name: known.to_owned(), id: topic.topic_id }, topic.partition_indexes.clone())
            };
            let groups = self.0.groups.iter().map(|group| Asked {
                group: group.group_id.to_string(),
                member: group.member_id.as_ref().map(ToString::to_string),
                epoch: group.member_epoch,
                topics: group.topics.as_ref().map(|topics| topics.iter().map(named).collect()),
            });
            return groups.collect();
        }
        let named = |topic: &OffsetFetchRequestTopic| {
            (Named { name: topic.name.to_string(), id: Uuid::nil() }, topic.partition_indexes.clone())
        };
        let topics = self.0.topics.as_ref().map(|topics| topics.iter().map(named).collect());
        vec![Asked { group: self.0.group_id.to_string(), topics, member: None, epoch: -1 }]
    }
}

impl Call for OffsetFetch {
    fn subject(&self, state: &State, _broker: i32) -> Subject {
        let version = if self.0.groups.is_empty() { 1 } else { 8 };
        let asked = self.asked(state, version);
        let topics = asked.iter().flat_map(|asked| asked.topics.iter().flatten());
        let partitions =
            topics.flat_map(|(topic, indexes)| indexes.iter().map(|&index| TopicPartition::new(&*topic.name, index)));
        Subject { partitions: partitions.collect(), group: asked.first().map(|asked| asked.group.clone()) }
    }

    fn act(&mut self, context: &mut Context<'_>) -> Result<Step> {
        let version = context.head.version;
        let mut response = OffsetFetchResponse { throttle_time_ms: context.throttle(), ..Default::default() };
        for asked in self.asked(context.state, version) {
            let stable = version >= 7 && self.0.require_stable;
            let (group, found) = (asked.group.clone(), find(context, asked, stable));
            if version >= 8 {
                response.groups.push(OffsetFetchResponseGroup {
                    group_id: text(group),
                    error_code: found.error.code(),
                    topics: found.topics.into_iter().map(|topic| newer(topic, version)).collect(),
                });
            } else {
                if version >= 2 {
                    response.error_code = found.error.code();
                }
                response.topics = found.topics.into_iter().map(|topic| older(topic, version)).collect();
            }
        }
        context.reply(&response)
    }

    fn wakes(&self) -> bool {
        false
    }
}

fn find(context: &mut Context<'_>, asked: Asked, stable: bool) -> Found {
    let refused = context.refused().map_or_else(|| context.check_group(&asked.group), Err);
    let refused = refused.and_then(|()| match context.state.consumer_group(&asked.group, context.now) {
        Some((group, ..)) => group.may_fetch(context.now, asked.member.as_deref(), asked.epoch),
        None => Ok(()),
    });
    let error = context.spoiled(refused.err().unwrap_or_default());
    if !error.is_ok() {
        // Versions 0 and 1 can report it at the partitions only.
        let named = asked.topics.into_iter().flatten().filter(|_| context.head.version < 2);
        let topics = named.map(|(topic, indexes)| (topic, indexes.iter().map(|&index| (index, Err(error))).collect()));
        return Found { error, topics: topics.collect() };
    }
    let group = context.state.groups.get(&asked.group);
    let is_unstable = |topic: &str, partition: i32| {
        stable && group.is_some_and(|group| group.offsets.pending().of(topic, partition).is_some())
    };
    let topics = match asked.topics {
        Some(topics) => topics
            .into_iter()
            .map(|(topic, indexes)| {
                let found = indexes.iter().map(|&index| {
                    let committed = group.and_then(|group| group.offsets.get(&topic.name, index)).cloned();
                    match context.verdict.for_partition(&topic.name, index) {
                        Some(injected) => (index, Err(injected.code)),
                        None if topic.name.is_empty() && context.head.version >= 10 => {
                            (index, Err(ErrorCode::UNKNOWN_TOPIC_ID))
                        }
                        None if is_unstable(&topic.name, index) => (index, Err(ErrorCode::UNSTABLE_OFFSET_COMMIT)),
                        None => (index, Ok(committed)),
                    }
                });
                let found = found.collect();
                (topic, found)
            })
            .collect(),
        None => {
            let mut topics: Vec<TopicFound> = Vec::new();
            for (topic, index, committed) in group.into_iter().flat_map(|group| group.offsets.iter()) {
                let unstable = is_unstable(topic, index).then_some(ErrorCode::UNSTABLE_OFFSET_COMMIT);
                let found = (index, unstable.map_or_else(|| Ok(Some(committed.clone())), Err));
                match topics.last_mut() {
                    Some((last, partitions)) if last.name == topic => partitions.push(found),
                    _ => {
                        let id = context.state.topics.get(topic).map_or(Uuid::nil(), |topic| topic.id);
                        topics.push((Named { name: topic.to_owned(), id }, vec![found]));
                    }
                }
            }
            topics
        }
    };
    Found { error, topics }
}

/// Returns the values for a partition without a commit.
fn nothing() -> Committed {
    Committed { offset: -1, leader_epoch: -1, metadata: String::new() }
}

fn older((topic, found): TopicFound, version: i16) -> OffsetFetchResponseTopic {
    let partitions = found.into_iter().map(|(index, found)| {
        let error = found.as_ref().err().copied().unwrap_or_default();
        let committed = found.ok().flatten().unwrap_or_else(nothing);
        OffsetFetchResponsePartition {
            partition_index: index,
            committed_offset: committed.offset,
            committed_leader_epoch: if version >= 5 { committed.leader_epoch } else { -1 },
            metadata: Some(text(committed.metadata)),
            error_code: error.code(),
        }
    });
    OffsetFetchResponseTopic { name: text(topic.name), partitions: partitions.collect() }
}

fn newer((topic, found): TopicFound, version: i16) -> OffsetFetchResponseTopics {
    let partitions = found.into_iter().map(|(index, found)| {
        let error = found.as_ref().err().copied().unwrap_or_default();
        let committed = found.ok().flatten().unwrap_or_else(nothing);
        OffsetFetchResponsePartitions {
            partition_index: index,
            committed_offset: committed.offset,
            committed_leader_epoch: committed.leader_epoch,
            metadata: Some(text(committed.metadata)),
            error_code: error.code(),
        }
    });
    let partitions = partitions.collect();
    if version >= 10 {
        OffsetFetchResponseTopics { topic_id: topic.id, partitions, ..Default::default() }
    } else {
        OffsetFetchResponseTopics { name: text(topic.name), partitions, ..Default::default() }
    }
}
