//! ConsumerGroupHeartbeat 0–1 (KIP-848): joins, continues and leaves. From v1 on members bring
//! their ids (KIP-1082) and may subscribe by an expression.

use super::{Call, Context, Step, Subject, millis, text};
use crate::{
    error::{ErrorCode, Result},
    testkit::state::{
        State,
        consumer_group::{Beat, Held, Reply, check},
        group::MemberIdentity,
    },
    wire::messages::{
        ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
        consumer_group_heartbeat_response::{Assignment, TopicPartitions},
    },
};

pub(crate) struct ConsumerGroupHeartbeat(pub(crate) ConsumerGroupHeartbeatRequest);

impl Call for ConsumerGroupHeartbeat {
    fn subject(&self, _state: &State, _broker: i32) -> Subject {
        Subject::of_group(&self.0.group_id)
    }

    fn act(&mut self, context: &mut Context<'_>) -> Result<Step> {
        let outcome = self.beat(context);
        let error = context.spoiled(outcome.as_ref().err().copied().unwrap_or_default());
        let mut response =
            ConsumerGroupHeartbeatResponse { throttle_time_ms: context.throttle(), ..Default::default() };
        response.error_code = error.code();
        if let (Ok(reply), true) = (outcome, error.is_ok()) {
            let interval = context.state.options.consumer_groups.heartbeat_interval.as_millis();
            response.member_id = Some(text(reply.member_id));
            response.member_epoch = reply.epoch;
            response.heartbeat_interval_ms = i32::try_from(interval).unwrap_or(i32::MAX);
            response.assignment = reply.assignment.map(assignment);
        }
        context.reply(&response)
    }
}

fn assignment(held: Held) -> Assignment {
    let topics = held
        .into_iter()
        .map(|(id, partitions)| TopicPartitions { topic_id: id, partitions: partitions.into_iter().collect() });
    Assignment { topic_partitions: topics.collect() }
}

impl ConsumerGroupHeartbeat {
    fn beat(&self, context: &mut Context<'_>) -> Result<Reply, ErrorCode> {
        if let Some(code) = context.refused() {
            return Err(code);
        }
        context.check_group(&self.0.group_id)?;
        let beat = self.read(context);
        check(&beat)?;
        let (now, name) = (context.now, &*self.0.group_id);
        if beat.epoch < 0 {
            let (group, _, _) = context.state.consumer_group(name, now).ok_or(ErrorCode::GROUP_ID_NOT_FOUND)?;
            let reply = group.leave(now, &beat.identity, beat.epoch);
            context.state.group_mut(name, now);
            return reply;
        }
        let (group, metadata, settings) = match beat.epoch {
            0 => context.state.upgraded_group(name, now)?,
            _ => context.state.consumer_group(name, now).ok_or(ErrorCode::GROUP_ID_NOT_FOUND)?,
        };
        group.heartbeat(now, beat, &metadata, &settings)
    }

    fn read(&self, context: &mut Context<'_>) -> Beat {
        let asked = &self.0;
        let owned = asked.topic_partitions.as_ref().map(|topics| {
            topics.iter().map(|topic| (topic.topic_id, topic.partitions.iter().copied().collect())).collect()
        });
        Beat {
            identity: MemberIdentity {
                member_id: asked.member_id.to_string(),
                instance: asked.instance_id.as_ref().map(ToString::to_string),
            },
            client_id: context.head.client_id.to_string(),
            epoch: asked.member_epoch,
            rebalance_timeout: (asked.rebalance_timeout_ms >= 0).then(|| millis(asked.rebalance_timeout_ms)),
            names: asked.subscribed_topic_names.as_ref().map(|names| names.iter().map(|n| n.to_string()).collect()),
            regex: asked.subscribed_topic_regex.as_ref().map(ToString::to_string),
            assignor: asked.server_assignor.as_ref().map(ToString::to_string),
            owned,
            id_required: context.head.version >= 1,
            new_id: context.state.new_member_id("member"),
        }
    }
}
