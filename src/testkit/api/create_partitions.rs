//! CreatePartitions 0–3: grows topics, or only validates on request. Any broker serves it.

use super::{Call, Context, Step, Subject, text};
use crate::{
    error::{ErrorCode, Result},
    record::TopicPartition,
    testkit::state::State,
    wire::messages::{
        CreatePartitionsRequest, CreatePartitionsResponse, create_partitions_response::CreatePartitionsTopicResult,
    },
};

pub(crate) struct CreatePartitions(pub(crate) CreatePartitionsRequest);

impl Call for CreatePartitions {
    fn subject(&self, _state: &State, _broker: i32) -> Subject {
        let partitions = self.0.topics.iter().map(|topic| TopicPartition::new(topic.name.as_str(), -1)).collect();
        Subject { partitions, group: None }
    }

    fn act(&mut self, context: &mut Context<'_>) -> Result<Step> {
        let mut response = CreatePartitionsResponse { throttle_time_ms: context.throttle(), ..Default::default() };
        for topic in &self.0.topics {
            let name = topic.name.as_str();
            let grown = match context.refused_partition(name, -1) {
                Some(code) => Err(code),
                None if self.0.validate_only => {
                    let present = context.state.topics.get(name).map(|topic| topic.partitions.len());
                    match present.map(|present| i32::try_from(present).is_ok_and(|present| topic.count > present)) {
                        Some(true) => Ok(()),
                        Some(false) => Err(ErrorCode::INVALID_PARTITIONS),
                        None => Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
                    }
                }
                None => context.state.grow_topic(name, topic.count),
            };
            let error = context.spoiled_partition(name, -1, grown.err().unwrap_or_default());
            let message = (!error.is_ok()).then(|| text(error.message()));
            response.results.push(CreatePartitionsTopicResult {
                name: text(name),
                error_code: error.code(),
                error_message: message,
            });
        }
        context.reply(&response)
    }
}
