//! OffsetForLeaderEpoch 2–4 (KIP-101, KIP-320): the end of a leader epoch. The leader serves it and
//! checks the client's epoch.

use super::{Call, Context, Step, Subject, text};
use crate::{
    error::{ErrorCode, Result},
    record::TopicPartition,
    testkit::state::State,
    wire::messages::{
        OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
        offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult},
    },
};

pub(crate) struct OffsetForLeaderEpoch(pub(crate) OffsetForLeaderEpochRequest);

impl Call for OffsetForLeaderEpoch {
    fn subject(&self, _state: &State, _broker: i32) -> Subject {
        let partitions = self.0.topics.iter().flat_map(|topic| {
            topic.partitions.iter().map(|asked| TopicPartition::new(topic.topic.as_str(), asked.partition))
        });
        Subject { partitions: partitions.collect(), group: None }
    }

    fn act(&mut self, context: &mut Context<'_>) -> Result<Step> {
        let mut response = OffsetForLeaderEpochResponse { throttle_time_ms: context.throttle(), ..Default::default() };
        for topic in &self.0.topics {
            let name = topic.topic.as_str();
            let answers = topic.partitions.iter().map(|asked| {
                let found = match context.verdict.for_partition(name, asked.partition) {
                    Some(injected) => Err(injected.code),
                    None => end_of(context, name, asked.partition, asked.current_leader_epoch, asked.leader_epoch),
                };
                let error = found.err().unwrap_or_default();
                let (epoch, end_offset) = found.ok().flatten().unwrap_or((-1, -1));
                EpochEndOffset { error_code: error.code(), partition: asked.partition, leader_epoch: epoch, end_offset }
            });
            let answers = answers.collect();
            response.topics.push(OffsetForLeaderTopicResult { topic: text(name), partitions: answers });
        }
        context.reply(&response)
    }

    fn wakes(&self) -> bool {
        false
    }
}

fn end_of(
    context: &Context<'_>,
    topic: &str,
    index: i32,
    current: i32,
    epoch: i32,
) -> Result<Option<(i32, i64)>, ErrorCode> {
    let partition = context.state.topics.partition(topic, index).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
    partition.check_leader(context.broker, current)?;
    Ok(partition.log.end_of_epoch(epoch))
}
