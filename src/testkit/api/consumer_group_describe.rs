//! ConsumerGroupDescribe 0–1 (KIP-848): groups of the consumer protocol with their epochs, members
//! and assignments.

use super::{Call, Context, Step, Subject, text};
use crate::{
    error::{ErrorCode, Result},
    record::TopicPartition,
    testkit::state::{
        State,
        consumer_group::{ConsumerGroupView, Picture},
    },
    wire::messages::{
        ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse,
        consumer_group_describe_response::{Assignment, DescribedGroup, Member, TopicPartitions},
    },
};

/// Kafka's value for operations that were not requested.
const NO_OPERATIONS: i32 = i32::MIN;

pub(crate) struct ConsumerGroupDescribe(pub(crate) ConsumerGroupDescribeRequest);

impl Call for ConsumerGroupDescribe {
    fn subject(&self, _state: &State, _broker: i32) -> Subject {
        self.0.group_ids.first().map_or_else(Subject::default, |group| Subject::of_group(group))
    }

    fn act(&mut self, context: &mut Context<'_>) -> Result<Step> {
        let version = context.head.version;
        let mut response = ConsumerGroupDescribeResponse { throttle_time_ms: context.throttle(), ..Default::default() };
        for name in &self.0.group_ids {
            let refused = context.refused().map_or_else(|| context.check_group(name), Err);
            let found = context.state.consumer_group(name, context.now).map(|(group, metadata, _)| {
                let view = group.view(&metadata);
                (view, metadata)
            });
            let mut described =
                DescribedGroup { group_id: name.clone(), authorized_operations: NO_OPERATIONS, ..Default::default() };
            let error = match (refused, found) {
                (Err(error), _) => error,
                (Ok(()), None) => ErrorCode::GROUP_ID_NOT_FOUND,
                (Ok(()), Some((view, metadata))) => {
                    fill_in(&mut described, view, &metadata, version);
                    ErrorCode::NONE
                }
            };
            described.error_code = context.spoiled(error).code();
            response.groups.push(described);
        }
        context.reply(&response)
    }

    fn wakes(&self) -> bool {
        false
    }
}

fn fill_in(described: &mut DescribedGroup, view: ConsumerGroupView, metadata: &Picture, version: i16) {
    described.group_state = text(view.state);
    described.group_epoch = view.epoch;
    described.assignment_epoch = view.assignment_epoch;
    described.assignor_name = text(view.assignor);
    let members = view.members.into_iter().map(|member| Member {
        member_id: text(member.member_id),
        instance_id: member.instance_id.map(text),
        member_epoch: member.epoch,
        client_id: text(member.client_id),
        client_host: text("/127.0.0.1"),
        subscribed_topic_names: member.names.iter().map(text).collect(),
        subscribed_topic_regex: (!member.regex.is_empty()).then(|| text(member.regex)),
        assignment: assignment(&member.assigned, metadata),
        target_assignment: assignment(&member.target, metadata),
        member_type: if version >= 1 { i8::from(!member.classic) } else { -1 },
        ..Default::default()
    });
    described.members = members.collect();
}

fn assignment(partitions: &[TopicPartition], metadata: &Picture) -> Assignment {
    let mut topics: Vec<TopicPartitions> = Vec::new();
    for partition in partitions {
        let name = text(&*partition.topic);
        match topics.iter_mut().find(|topic| topic.topic_name == name) {
            Some(topic) => topic.partitions.push(partition.partition),
            None => {
                let id = metadata.get(&partition.topic).map(|(id, _)| *id).unwrap_or_default();
                topics.push(TopicPartitions { topic_id: id, topic_name: name, partitions: vec![partition.partition] });
            }
        }
    }
    Assignment { topic_partitions: topics }
}
