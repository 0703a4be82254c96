//! Metadata 0–13: brokers, controller, topics by name or id (v10), partitions with leaders and epochs; makes topics that
//! are not there if both sides want it, but answers UNKNOWN_TOPIC_OR_PARTITION that once, as Kafka does.

use std::collections::BTreeMap;

use kafka_protocol::messages::{
    BrokerId, MetadataRequest, MetadataResponse,
    metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
};

use super::{Call, Context, Step, Subject, text, topic_name};
use crate::{
    error::{ErrorCode, Result},
    record::{TopicPartition, check_topic_name},
    testkit::{
        CLUSTER_ID,
        state::{
            State,
            topics::{NO_LEADER, Topic},
        },
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
        let mut response = MetadataResponse::default();
        response.throttle_time_ms = context.throttle();
        response.cluster_id = Some(text(CLUSTER_ID));
        response.controller_id = BrokerId(context.state.controller());
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
                                response.topics.push(unknown.with_topic_id(topic.topic_id));
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
    up.map(|broker| {
        MetadataResponseBroker::default()
            .with_node_id(BrokerId(broker.id))
            .with_host(text(broker.host.as_str()))
            .with_port(i32::from(broker.port))
            .with_rack(broker.rack.as_deref().map(text))
    })
    .collect()
}

fn failed(name: &str, error: ErrorCode, version: i16) -> MetadataResponseTopic {
    // Before v12 the name cannot be null.
    let name = (!name.is_empty() || version < 12).then(|| topic_name(name));
    MetadataResponseTopic::default().with_name(name).with_error_code(error.code())
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
    let ids = |ids: Vec<i32>| ids.into_iter().map(BrokerId).collect::<Vec<_>>();
    let partitions = (0..).zip(&topic.partitions).map(|(index, partition)| {
        let (live, dead): (Vec<i32>, Vec<i32>) = partition.replicas.iter().partition(|&&id| context.state.is_up(id));
        let error = match partition.leader {
            NO_LEADER => ErrorCode::LEADER_NOT_AVAILABLE,
            _ => ErrorCode::NONE,
        };
        MetadataResponsePartition::default()
            .with_error_code(context.spoiled_partition(&topic.name, index, error).code())
            .with_partition_index(index)
            .with_leader_id(BrokerId(partition.leader))
            .with_leader_epoch(partition.leader_epoch)
            .with_replica_nodes(ids(partition.replicas.clone()))
            .with_isr_nodes(ids(live))
            .with_offline_replicas(ids(dead))
    });
    MetadataResponseTopic::default()
        .with_name(Some(topic_name(&topic.name)))
        .with_topic_id(topic.id)
        .with_is_internal(topic.is_internal())
        .with_partitions(partitions.collect())
}
