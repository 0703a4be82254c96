//! ListOffsets 1–10: the end (−1), the start (−2), the first record of the highest timestamp (−3),
//! the start of the local log (−4) or the end of the tiered one (−5, always empty), or the first
//! record not before a time. The leader serves it and checks the epoch. Readers of committed
//! records (v2) get the last stable offset as the end, and no record at or after it.

use super::{Call, Context, Step, Subject, text};
use crate::{
    error::{ErrorCode, Result},
    record::TopicPartition,
    testkit::state::{State, log::TimedOffset, sink::END},
    wire::messages::{
        ListOffsetsRequest, ListOffsetsResponse,
        list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
    },
};

pub(crate) struct ListOffsets(pub(crate) ListOffsetsRequest);

impl Call for ListOffsets {
    fn subject(&self, _state: &State, _broker: i32) -> Subject {
        let partitions = self.0.topics.iter().flat_map(|topic| {
            topic.partitions.iter().map(|asked| TopicPartition::new(topic.name.as_str(), asked.partition_index))
        });
        Subject { partitions: partitions.collect(), group: None }
    }

    fn act(&mut self, context: &mut Context<'_>) -> Result<Step> {
        let version = context.head.version;
        let committed = version >= 2 && self.0.isolation_level == 1;
        let mut response = ListOffsetsResponse { throttle_time_ms: context.throttle(), ..Default::default() };
        for topic in &self.0.topics {
            let name = topic.name.as_str();
            let answers = topic.partitions.iter().map(|asked| {
                let index = asked.partition_index;
                let epoch = if version >= 4 { asked.current_leader_epoch } else { -1 };
                let found = match context.verdict.for_partition(name, index) {
                    Some(injected) => Err(injected.code),
                    None => find(context, name, index, epoch, asked.timestamp, committed),
                };
                let mut answer = ListOffsetsPartitionResponse { partition_index: index, ..Default::default() };
                answer.error_code = found.as_ref().err().copied().unwrap_or_default().code();
                let found = found.unwrap_or(NOWHERE);
                answer.offset = found.offset;
                answer.timestamp = found.timestamp;
                answer.leader_epoch = if version >= 4 { found.leader_epoch } else { -1 };
                answer
            });
            let answers = answers.collect();
            response.topics.push(ListOffsetsTopicResponse { name: text(name), partitions: answers });
        }
        context.reply(&response)
    }

    fn wakes(&self) -> bool {
        false
    }
}

const NOWHERE: TimedOffset = TimedOffset { offset: -1, timestamp: -1, leader_epoch: -1 };

fn find(
    context: &Context<'_>,
    topic: &str,
    index: i32,
    epoch: i32,
    time: i64,
    committed: bool,
) -> Result<TimedOffset, ErrorCode> {
    let partition = context.state.topics.partition(topic, index).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
    partition.check_leader(context.broker, epoch)?;
    let log = &partition.log;
    let plain = |offset, leader_epoch| TimedOffset { offset, timestamp: -1, leader_epoch };
    if let Some(sink) = &context.state.sink {
        let end = sink.prepared(topic).map_or(0, |_| END);
        return Ok(plain(if time == -1 { end } else { 0 }, partition.leader_epoch));
    }
    let end = if committed { log.last_stable() } else { log.end() };
    let readable = |found: Option<TimedOffset>| found.filter(|found| found.offset < end);
    let at = match time {
        -1 => Some(plain(end, partition.leader_epoch)),
        -2 | -4 => Some(plain(log.start(), log.epoch_at(log.start()))),
        -3 => readable(log.at_max_time().map_err(|_| ErrorCode::CORRUPT_MESSAGE)?),
        -5 => None,
        time if time >= 0 => readable(log.at_time(time).map_err(|_| ErrorCode::CORRUPT_MESSAGE)?),
        _ => return Err(ErrorCode::UNSUPPORTED_VERSION),
    };
    Ok(at.unwrap_or(NOWHERE))
}
