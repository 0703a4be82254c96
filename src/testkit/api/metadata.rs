//! Metadata 0–13: brokers, controller, topics by name or id (v10), partitions with leaders and
//! epochs; creates missing topics if both the client and the cluster allow it, but answers
//! UNKNOWN_TOPIC_OR_PARTITION to that request, as Kafka does.

use std::collections::BTreeMap;

use super::{Call, Context, Step, Subject, text};
use crate::{
    error::{ErrorCode, Result},
    record::{TopicPartition, check_topic_name},
    testkit::state::{
        State,
        topics::{NO_LEADER, Topic},
    },
    wire::messages::{
        MetadataRequest, MetadataResponse,
        metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
    },
};

pub(crate) struct Metadata(pub(crate) MetadataRequest);

impl Call for Metadata {
    fn subject(&self, state: &State, _broker: i32) -> Subject {
        let topics = self.0.topics.iter().flatten();
        let named = topics.filter_map(|topic| match &topic.name {
            Some(name) => Some(std::sync::Arc::from(name.as_str())),
            None => state.topics.name_of(topic.topic_id).cloned(),
        });
        Subject { partitions: named.map(|name| TopicPartition::new(name, -1)).collect(), group: None }
    }

    fn act(&mut self, context: &mut Context<'_>) -> Result<Step> {
        let version = context.head.version;
        let mut response = MetadataResponse { throttle_time_ms: context.throttle(), ..Default::default() };
        response.cluster_id = Some(text(context.state.options.cluster_id.as_str()));
        response.controller_id = context.state.controller();
        response.brokers = brokers(context.state);
        if version >= 13
            && let Some(code) = context.refused()
        {
            response.error_code = code.code();
            return context.reply(&response);
        }
        let may_create = context.state.options.auto_create && (version < 4 || self.0.allow_auto_topic_creation);
        match self.0.topics.take() {
            Some(topics) if !(version == 0 && topics.is_empty()) => {
                for topic in topics {
                    let name = match &topic.name {
                        Some(name) => name.to_string(),
                        None => match context.state.topics.name_of(topic.topic_id) {
                            Some(name) => name.to_string(),
                            None => {
                                let unknown = failed("", ErrorCode::UNKNOWN_TOPIC_ID, version);
                                response.topics.push(MetadataResponseTopic { topic_id: topic.topic_id, ..unknown });
                                continue;
                            }
                        },
                    };
                    response.topics.push(one(context, &name, may_create && topic.name.is_some()));
                }
            }
            _ => {
                let names: Vec<_> = context.state.topics.iter().map(|topic| topic.name.clone()).collect();
                response.topics = names.iter().map(|name| one(context, name, false)).collect();
            }
        }
        context.reply(&response)
    }
}

fn brokers(state: &State) -> Vec<MetadataResponseBroker> {
    let up = state.brokers.iter().filter(|broker| broker.up);
    up.map(|broker| MetadataResponseBroker {
        node_id: broker.id,
        host: text(broker.host.as_str()),
        port: i32::from(broker.port),
        rack: broker.rack.as_deref().map(text),
    })
    .collect()
}

fn failed(name: &str, error: ErrorCode, version: i16) -> MetadataResponseTopic {
    // Before v12 the name cannot be null.
    let name = (!name.is_empty() || version < 12).then(|| text(name));
    MetadataResponseTopic { name, error_code: error.code(), ..Default::default() }
}

fn one(context: &mut Context<'_>, name: &str, may_create: bool) -> MetadataResponseTopic {
    let version = context.head.version;
    if let Some(code) = context.refused_partition(name, -1) {
        return failed(name, code, version);
    }
    if check_topic_name(name).is_err() {
        return failed(name, ErrorCode::INVALID_TOPIC_EXCEPTION, version);
    }
    if let Some(topic) = context.state.topics.get(name) {
        return describe(topic, context);
    }
    if may_create {
        let partitions = context.state.options.default_partitions;
        if let Err(error) = context.state.create_topic(name, partitions, None, BTreeMap::new()) {
            return failed(name, error, version);
        }
    }
    failed(name, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, version)
}

fn describe(topic: &Topic, context: &Context<'_>) -> MetadataResponseTopic {
    let partitions = (0..).zip(&topic.partitions).map(|(index, partition)| {
        let (live, dead): (Vec<i32>, Vec<i32>) = partition.replicas.iter().partition(|&&id| context.state.is_up(id));
        let error = match partition.leader {
            NO_LEADER => ErrorCode::LEADER_NOT_AVAILABLE,
            _ => ErrorCode::NONE,
        };
        MetadataResponsePartition {
            error_code: context.spoiled_partition(&topic.name, index, error).code(),
            partition_index: index,
            leader_id: partition.leader,
            leader_epoch: partition.leader_epoch,
            replica_nodes: partition.replicas.clone(),
            isr_nodes: live,
            offline_replicas: dead,
        }
    });
    MetadataResponseTopic {
        name: Some(text(&*topic.name)),
        topic_id: topic.id,
        is_internal: topic.is_internal(),
        partitions: partitions.collect(),
        ..Default::default()
    }
}
