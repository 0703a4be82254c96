//! DeleteRecords 0–2: moves the start of partitions forward (−1: to the end). The leader serves it.

use super::{Call, Context, Step, Subject, text};
use crate::{
    error::{ErrorCode, Result},
    record::TopicPartition,
    testkit::state::State,
    wire::messages::{
        DeleteRecordsRequest, DeleteRecordsResponse,
        delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult},
    },
};

pub(crate) struct DeleteRecords(pub(crate) DeleteRecordsRequest);

impl Call for DeleteRecords {
    fn subject(&self, _state: &State, _broker: i32) -> Subject {
        let partitions = self.0.topics.iter().flat_map(|topic| {
            topic.partitions.iter().map(|asked| TopicPartition::new(topic.name.as_str(), asked.partition_index))
        });
        Subject { partitions: partitions.collect(), group: None }
    }

    fn act(&mut self, context: &mut Context<'_>) -> Result<Step> {
        let mut response = DeleteRecordsResponse { throttle_time_ms: context.throttle(), ..Default::default() };
        for topic in &self.0.topics {
            let name = topic.name.as_str();
            let mut results = Vec::with_capacity(topic.partitions.len());
            for asked in &topic.partitions {
                let index = asked.partition_index;
                let deleted = match context.refused_partition(name, index) {
                    Some(code) => Err(code),
                    None => delete(context, name, index, asked.offset),
                };
                let error = context.spoiled_partition(name, index, deleted.err().unwrap_or_default());
                results.push(DeleteRecordsPartitionResult {
                    partition_index: index,
                    low_watermark: deleted.unwrap_or(-1),
                    error_code: error.code(),
                });
            }
            response.topics.push(DeleteRecordsTopicResult { name: text(name), partitions: results });
        }
        context.reply(&response)
    }
}

fn delete(context: &mut Context<'_>, topic: &str, index: i32, offset: i64) -> Result<i64, ErrorCode> {
    let partition = context.state.topics.partition(topic, index).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
    partition.check_leader(context.broker, -1)?;
    context.state.delete_records(topic, index, offset)
}
