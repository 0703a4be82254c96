//! DeleteTopics 1–6: by name, or by id (v6); takes effect at once and removes the committed offsets
//! as well. Any broker serves it.

use uuid::Uuid;

use super::{Call, Context, Step, Subject, text};
use crate::{
    error::{ErrorCode, Result},
    record::TopicPartition,
    testkit::state::State,
    wire::messages::{DeleteTopicsRequest, DeleteTopicsResponse, delete_topics_response::DeletableTopicResult},
};

pub(crate) struct DeleteTopics(pub(crate) DeleteTopicsRequest);

impl DeleteTopics {
    /// Returns every requested topic, with its name if it has one and the id in the request.
    fn wanted(&self, state: &State) -> Vec<(Option<String>, Uuid)> {
        let by_name = self.0.topic_names.iter().map(|name| (Some(name.to_string()), Uuid::nil()));
        let either = self.0.topics.iter().map(|topic| match &topic.name {
            Some(name) => (Some(name.to_string()), Uuid::nil()),
            None => (state.topics.name_of(topic.topic_id).map(ToString::to_string), topic.topic_id),
        });
        by_name.chain(either).collect()
    }
}

impl Call for DeleteTopics {
    fn subject(&self, state: &State, _broker: i32) -> Subject {
        let names = self.wanted(state).into_iter().filter_map(|(name, _)| name);
        Subject { partitions: names.map(|name| TopicPartition::new(name, -1)).collect(), group: None }
    }

    fn act(&mut self, context: &mut Context<'_>) -> Result<Step> {
        let version = context.head.version;
        let mut response = DeleteTopicsResponse { throttle_time_ms: context.throttle(), ..Default::default() };
        for (name, asked) in self.wanted(context.state) {
            let mut result = DeletableTopicResult::default();
            let error = match &name {
                None => ErrorCode::UNKNOWN_TOPIC_ID,
                Some(name) => match context.refused_partition(name, -1) {
                    Some(code) => code,
                    None => match context.state.delete_topic(name) {
                        Ok(topic) => {
                            if version >= 6 {
                                result.topic_id = topic.id;
                            }
                            context.spoiled_partition(name, -1, ErrorCode::NONE)
                        }
                        Err(error) => error,
                    },
                },
            };
            result.name = name.as_deref().map(text);
            result.error_code = error.code();
            if !error.is_ok() {
                if version >= 6 {
                    result.topic_id = asked;
                }
                if version >= 5 {
                    result.error_message = Some(text(error.message()));
                }
            }
            response.responses.push(result);
        }
        context.reply(&response)
    }
}
