//! OffsetCommit 2–10: of members in their generation, or of consumers without membership into
//! groups without members; topics by name, or by id (v10).

use std::sync::Arc;

use super::{Call, Context, Step, Subject};
use crate::{
    error::{ErrorCode, Result},
    record::TopicPartition,
    testkit::state::{
        State,
        group::{Committed, MemberIdentity},
    },
    wire::messages::{
        OffsetCommitRequest, OffsetCommitResponse,
        offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
    },
};

/// `offset.metadata.max.bytes`
const MAX_METADATA: usize = 4096;

pub(crate) struct OffsetCommit(pub(crate) OffsetCommitRequest);

impl Call for OffsetCommit {
    fn subject(&self, state: &State, _broker: i32) -> Subject {
        let partitions = self.0.topics.iter().flat_map(|topic| {
            let name = state.topics.name_of(topic.topic_id).map_or(&*topic.name, |name| &**name);
            topic.partitions.iter().map(move |asked| TopicPartition::new(name, asked.partition_index))
        });
        Subject { partitions: partitions.collect(), group: Some(self.0.group_id.to_string()) }
    }

    fn act(&mut self, context: &mut Context<'_>) -> Result<Step> {
        let version = context.head.version;
        let allowed = self.allowed(context);
        let mut response = OffsetCommitResponse { throttle_time_ms: context.throttle(), ..Default::default() };
        for topic in &self.0.topics {
            let known = if version >= 10 {
                context.state.topics.name_of(topic.topic_id).cloned()
            } else {
                Some(Arc::from(&*topic.name))
            };
            let unknown = known.is_none();
            let name = &*known.unwrap_or_default();
            let mut answers = Vec::with_capacity(topic.partitions.len());
            for asked in &topic.partitions {
                let index = asked.partition_index;
                let metadata = asked.committed_metadata.as_ref().map(ToString::to_string).unwrap_or_default();
                let error = match (context.refused_partition(name, index), allowed) {
                    (Some(code), _) | (None, Err(code)) => code,
                    _ if unknown => ErrorCode::UNKNOWN_TOPIC_ID,
                    _ if context.state.topics.partition(name, index).is_none() => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                    _ if metadata.len() > MAX_METADATA => ErrorCode::OFFSET_METADATA_TOO_LARGE,
                    _ => {
                        let leader_epoch = if version >= 6 { asked.committed_leader_epoch } else { -1 };
                        let committed = Committed { offset: asked.committed_offset, leader_epoch, metadata };
                        let group = context.state.group_mut(&self.0.group_id, context.now);
                        group.offsets.commit(name, index, committed);
                        ErrorCode::NONE
                    }
                };
                let error = context.spoiled_partition(name, index, error);
                answers.push(OffsetCommitResponsePartition { partition_index: index, error_code: error.code() });
            }
            let (name, topic_id) = (topic.name.clone(), topic.topic_id);
            response.topics.push(OffsetCommitResponseTopic { name, topic_id, partitions: answers });
        }
        context.reply(&response)
    }

    fn wakes(&self) -> bool {
        false
    }
}

impl OffsetCommit {
    fn allowed(&self, context: &mut Context<'_>) -> Result<(), ErrorCode> {
        if let Some(code) = context.refused() {
            return Err(code);
        }
        context.check_group(&self.0.group_id)?;
        let identity = MemberIdentity {
            member_id: self.0.member_id.to_string(),
            instance: self.0.group_instance_id.as_ref().map(ToString::to_string),
        };
        let epoch = self.0.generation_id_or_member_epoch;
        if let Some((group, ..)) = context.state.consumer_group(&self.0.group_id, context.now) {
            return group.may_commit(context.now, &identity.member_id, epoch, context.head.version);
        }
        let settings = context.state.group_settings();
        let group = context.state.group_mut(&self.0.group_id, context.now);
        let allowed = group.classic.may_commit(context.now, &identity, epoch, &settings);
        // From version 9 on there is a separate error code for it.
        let unknown = context.head.version >= 9 && group.classic.is_unknown();
        allowed.map_err(|code| if unknown { ErrorCode::GROUP_ID_NOT_FOUND } else { code })
    }
}
