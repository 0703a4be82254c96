//! CreateTopics 2–7: by number of partitions and replicas, or by assignment of replicas (only their
//! number counts). Configurations are stored, and `message.timestamp.type` and `max.message.bytes`
//! take effect. Only validates on request. Any broker serves it.

use std::collections::BTreeMap;

use super::{Call, Context, Step, Subject, text};
use crate::{
    error::{ErrorCode, Result},
    record::TopicPartition,
    testkit::state::State,
    wire::messages::{
        CreateTopicsRequest, CreateTopicsResponse,
        create_topics_request::CreatableTopic,
        create_topics_response::{CreatableTopicConfigs, CreatableTopicResult},
    },
};

pub(crate) struct CreateTopics(pub(crate) CreateTopicsRequest);

impl Call for CreateTopics {
    fn subject(&self, _state: &State, _broker: i32) -> Subject {
        let partitions = self.0.topics.iter().map(|topic| TopicPartition::new(topic.name.as_str(), -1)).collect();
        Subject { partitions, group: None }
    }

    fn act(&mut self, context: &mut Context<'_>) -> Result<Step> {
        let mut response = CreateTopicsResponse { throttle_time_ms: context.throttle(), ..Default::default() };
        for topic in &self.0.topics {
            let name = topic.name.as_str();
            let twice = self.0.topics.iter().filter(|other| other.name == topic.name).count() > 1;
            let made = match context.refused_partition(name, -1) {
                Some(code) => Err(code),
                None if twice => Err(ErrorCode::INVALID_REQUEST),
                None => create(context, topic, self.0.validate_only),
            };
            let mut result = CreatableTopicResult { name: text(name), ..Default::default() };
            let error = made.err().unwrap_or_default();
            let error = context.spoiled_partition(name, -1, error);
            result.error_code = error.code();
            if !error.is_ok() {
                result.error_message = Some(text(error.message()));
            } else if context.head.version >= 5 {
                fill_in(&mut result, context.state, name, context.head.version);
            }
            response.topics.push(result);
        }
        context.reply(&response)
    }
}

fn create(context: &mut Context<'_>, topic: &CreatableTopic, validate_only: bool) -> Result<(), ErrorCode> {
    let assigned = !topic.assignments.is_empty();
    let partitions = match topic.num_partitions {
        -1 if assigned => i32::try_from(topic.assignments.len()).map_err(|_| ErrorCode::INVALID_PARTITIONS)?,
        -1 => context.state.options.default_partitions,
        _ if assigned => return Err(ErrorCode::INVALID_REQUEST),
        count => count,
    };
    let replication = match topic.replication_factor {
        -1 if assigned => topic.assignments.first().and_then(|replicas| i16::try_from(replicas.broker_ids.len()).ok()),
        -1 => None,
        factor => Some(factor),
    };
    context.state.check_new_topic(&topic.name, partitions, replication)?;
    if !validate_only {
        let configs: BTreeMap<String, String> = topic
            .configs
            .iter()
            .filter_map(|config| Some((config.name.to_string(), config.value.as_ref()?.to_string())))
            .collect();
        context.state.create_topic(&topic.name, partitions, replication, configs)?;
    }
    Ok(())
}

fn fill_in(result: &mut CreatableTopicResult, state: &State, name: &str, version: i16) {
    let Some(topic) = state.topics.get(name) else { return };
    if version >= 7 {
        result.topic_id = topic.id;
    }
    result.num_partitions = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
    let replicas = topic.partitions.first().map_or(0, |partition| partition.replicas.len());
    result.replication_factor = i16::try_from(replicas).unwrap_or(i16::MAX);
    let configs = topic.configs.iter().map(|(name, value)| CreatableTopicConfigs {
        name: text(name.as_str()),
        value: Some(text(value.as_str())),
        config_source: 1,
        ..Default::default()
    });
    result.configs = Some(configs.collect());
}
