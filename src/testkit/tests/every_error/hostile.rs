//! Brokers that misbehave in other ways than by error codes.

use std::{sync::Arc, time::Duration};

use crate::wire::messages::{
    ConsumerGroupHeartbeatResponse, FindCoordinatorResponse, InitProducerIdResponse, JoinGroupResponse,
    ListOffsetsResponse, MetadataResponse, SyncGroupResponse,
};
use crate::{
    ApiKey, ErrorCode,
    net::Network,
    testkit::{Cluster, Fault, on},
};

use super::{
    scenarios,
    stage::{Playing, Stage, TOPIC},
};
use crate::testkit::tampered::tampered;

/// A fault, and the network that the client is on.
type Trouble = (Option<Fault>, Arc<dyn Network>);

/// A broker's misbehaviour.
pub(super) struct Hostility {
    pub(super) name: &'static str,
    pub(super) play: fn(Stage) -> Playing,
    pub(super) make: fn(&Cluster) -> Trouble,
    /// A word that the user has to see; `None` if the client's work continues and there is nothing
    /// to report.
    pub(super) word: Option<&'static str>,
}

fn struck(cluster: &Cluster, fault: Fault) -> Trouble {
    (Some(fault.forever()), cluster.network())
}

pub(super) static HOSTILITIES: &[Hostility] = &[
    Hostility {
        name: "MEMBER_ID_REQUIRED without an id",
        play: scenarios::classic_member,
        make: |cluster| {
            let change = |_, _, answer: &mut JoinGroupResponse| {
                answer.error_code = ErrorCode::MEMBER_ID_REQUIRED.code();
                answer.member_id = "".into();
            };
            (None, tampered(cluster, ApiKey::JoinGroup, change))
        },
        word: Some("MEMBER_ID_REQUIRED"),
    },
    Hostility {
        name: "MEMBER_ID_REQUIRED with another id each time",
        play: scenarios::classic_member,
        make: |cluster| {
            let change = |n: u64, _, answer: &mut JoinGroupResponse| {
                answer.error_code = ErrorCode::MEMBER_ID_REQUIRED.code();
                answer.member_id = format!("m{n}").into();
            };
            (None, tampered(cluster, ApiKey::JoinGroup, change))
        },
        word: Some("MEMBER_ID_REQUIRED"),
    },
    Hostility {
        name: "an assignment without partitions",
        play: scenarios::classic_member,
        make: |cluster| {
            let change = |_, _, answer: &mut SyncGroupResponse| answer.assignment = Default::default();
            (None, tampered(cluster, ApiKey::SyncGroup, change))
        },
        word: None,
    },
    Hostility {
        name: "a coordinator that the metadata does not know",
        play: scenarios::classic_member,
        make: |cluster| {
            let change = |_, _, answer: &mut FindCoordinatorResponse| {
                for found in &mut answer.coordinators {
                    (found.node_id, found.port) = (99, 1);
                }
            };
            (None, tampered(cluster, ApiKey::FindCoordinator, change))
        },
        word: Some(""),
    },
    Hostility {
        name: "heartbeats every millisecond",
        play: scenarios::consumer_protocol_member,
        make: |cluster| {
            let change = |_, _, answer: &mut ConsumerGroupHeartbeatResponse| answer.heartbeat_interval_ms = 1;
            (None, tampered(cluster, ApiKey::ConsumerGroupHeartbeat, change))
        },
        word: None,
    },
    Hostility {
        name: "a member epoch of -1",
        play: scenarios::consumer_protocol_member,
        make: |cluster| {
            let change = |_, _, answer: &mut ConsumerGroupHeartbeatResponse| answer.member_epoch = -1;
            (None, tampered(cluster, ApiKey::ConsumerGroupHeartbeat, change))
        },
        word: Some("epoch"),
    },
    Hostility {
        name: "every second heartbeat fences the member",
        play: scenarios::consumer_protocol_member,
        make: |cluster| {
            let change = |n: u64, _, answer: &mut ConsumerGroupHeartbeatResponse| {
                if n % 2 == 1 {
                    answer.error_code = ErrorCode::FENCED_MEMBER_EPOCH.code();
                }
            };
            (None, tampered(cluster, ApiKey::ConsumerGroupHeartbeat, change))
        },
        word: Some("FENCED_MEMBER_EPOCH"),
    },
    Hostility {
        name: "fetches answered at once and empty",
        play: scenarios::assigned_consumer,
        make: |cluster| struck(cluster, on(ApiKey::Fetch).whole_response().error(ErrorCode::NONE)),
        word: None,
    },
    Hostility {
        name: "a start offset that is not in the log",
        play: scenarios::assigned_consumer,
        make: |cluster| {
            let change = |_, _, answer: &mut ListOffsetsResponse| {
                for partition in answer.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                    partition.offset = 1_000_000;
                }
            };
            (None, tampered(cluster, ApiKey::ListOffsets, change))
        },
        word: Some("OFFSET_OUT_OF_RANGE"),
    },
    Hostility {
        name: "leaders that change with each answer",
        play: scenarios::assigned_consumer,
        make: |cluster| {
            let change = |n: u64, _, answer: &mut MetadataResponse| {
                for partition in answer.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                    partition.leader_id = (n % 2) as i32 + 1;
                    partition.leader_epoch = n as i32;
                }
            };
            (None, tampered(cluster, ApiKey::Metadata, change))
        },
        word: Some(""),
    },
    Hostility {
        name: "leaders that change under a producer",
        play: scenarios::idempotent_producer,
        make: |cluster| {
            let change = |n: u64, _, answer: &mut MetadataResponse| {
                for partition in answer.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                    partition.leader_id = (n % 2) as i32 + 1;
                    partition.leader_epoch = n as i32;
                }
            };
            (None, tampered(cluster, ApiKey::Metadata, change))
        },
        word: None,
    },
    Hostility {
        name: "a producer id that is none",
        play: scenarios::idempotent_producer,
        make: |cluster| {
            let change = |_, _, answer: &mut InitProducerIdResponse| answer.producer_id = (-1).into();
            (None, tampered(cluster, ApiKey::InitProducerId, change))
        },
        word: Some("producer id"),
    },
    Hostility {
        name: "every connection closed after its first request",
        play: scenarios::idempotent_producer,
        make: |cluster| struck(cluster, on(ApiKey::ApiVersions).drop_connection()),
        word: Some(""),
    },
    Hostility {
        name: "connections closed behind Metadata",
        play: scenarios::classic_member,
        make: |cluster| struck(cluster, on(ApiKey::Metadata).drop_connection()),
        word: Some(""),
    },
    Hostility {
        name: "connections closed behind Produce",
        play: scenarios::idempotent_producer,
        make: |cluster| struck(cluster, on(ApiKey::Produce).drop_connection()),
        word: Some(""),
    },
    Hostility {
        name: "connections closed behind Produce without acks",
        play: scenarios::producer_without_acks,
        make: |cluster| struck(cluster, on(ApiKey::Produce).drop_connection()),
        word: None,
    },
    Hostility {
        name: "connections closed behind InitProducerId",
        play: scenarios::idempotent_producer,
        make: |cluster| struck(cluster, on(ApiKey::InitProducerId).drop_connection()),
        word: Some(""),
    },
    Hostility {
        name: "connections closed behind Fetch",
        play: scenarios::assigned_consumer,
        make: |cluster| struck(cluster, on(ApiKey::Fetch).drop_connection()),
        word: Some(""),
    },
    Hostility {
        name: "connections closed behind ListOffsets",
        play: scenarios::assigned_consumer,
        make: |cluster| struck(cluster, on(ApiKey::ListOffsets).drop_connection()),
        word: Some(""),
    },
    Hostility {
        name: "connections closed behind FindCoordinator",
        play: scenarios::classic_member,
        make: |cluster| struck(cluster, on(ApiKey::FindCoordinator).drop_connection()),
        word: Some(""),
    },
    Hostility {
        name: "connections closed behind JoinGroup",
        play: scenarios::classic_member,
        make: |cluster| struck(cluster, on(ApiKey::JoinGroup).drop_connection()),
        word: Some(""),
    },
    Hostility {
        name: "connections closed behind SyncGroup",
        play: scenarios::classic_member,
        make: |cluster| struck(cluster, on(ApiKey::SyncGroup).act_then_drop()),
        word: Some(""),
    },
    Hostility {
        name: "connections closed behind Heartbeat",
        play: scenarios::classic_member,
        make: |cluster| struck(cluster, on(ApiKey::Heartbeat).drop_connection()),
        word: Some(""),
    },
    Hostility {
        name: "connections closed behind OffsetFetch",
        play: scenarios::classic_member,
        make: |cluster| struck(cluster, on(ApiKey::OffsetFetch).drop_connection()),
        word: Some(""),
    },
    Hostility {
        name: "connections closed behind OffsetCommit",
        play: scenarios::classic_member,
        make: |cluster| struck(cluster, on(ApiKey::OffsetCommit).drop_connection()),
        word: Some(""),
    },
    Hostility {
        name: "connections closed behind ConsumerGroupHeartbeat",
        play: scenarios::consumer_protocol_member,
        make: |cluster| struck(cluster, on(ApiKey::ConsumerGroupHeartbeat).drop_connection()),
        word: Some(""),
    },
    Hostility {
        name: "a throttle of twenty days behind Fetch",
        play: scenarios::assigned_consumer,
        make: |cluster| struck(cluster, on(ApiKey::Fetch).throttle(FOR_EVER)),
        word: Some("throttle"),
    },
    Hostility {
        name: "a throttle of twenty days behind Produce",
        play: scenarios::idempotent_producer,
        make: |cluster| struck(cluster, on(ApiKey::Produce).throttle(FOR_EVER)),
        word: Some("throttle"),
    },
    Hostility {
        name: "a throttle of twenty days behind Heartbeat",
        play: scenarios::classic_member,
        make: |cluster| struck(cluster, on(ApiKey::Heartbeat).throttle(FOR_EVER)),
        word: Some(""),
    },
    Hostility {
        name: "a negative throttle",
        play: scenarios::assigned_consumer,
        make: |cluster| {
            let change = |_, _, answer: &mut ListOffsetsResponse| answer.throttle_time_ms = i32::MIN;
            (None, tampered(cluster, ApiKey::ListOffsets, change))
        },
        word: None,
    },
    Hostility {
        name: "sixty partitions that cannot be fetched",
        play: scenarios::consumer_of_many,
        make: |cluster| struck(cluster, on(ApiKey::Fetch).topic(TOPIC).error(ErrorCode::NOT_LEADER_OR_FOLLOWER)),
        word: Some("NOT_LEADER_OR_FOLLOWER"),
    },
    Hostility {
        name: "sixty partitions without a position",
        play: scenarios::consumer_of_many,
        make: |cluster| struck(cluster, on(ApiKey::ListOffsets).topic(TOPIC).error(ErrorCode::LEADER_NOT_AVAILABLE)),
        word: Some("LEADER_NOT_AVAILABLE"),
    },
    Hostility {
        name: "sixty partitions that are out of range",
        play: scenarios::consumer_of_many,
        make: |cluster| struck(cluster, on(ApiKey::Fetch).topic(TOPIC).error(ErrorCode::OFFSET_OUT_OF_RANGE)),
        word: Some("OFFSET_OUT_OF_RANGE"),
    },
    Hostility {
        name: "sixty partitions that cannot be written to",
        play: scenarios::producer_to_many,
        make: |cluster| struck(cluster, on(ApiKey::Produce).topic(TOPIC).error(ErrorCode::NOT_ENOUGH_REPLICAS)),
        word: Some("NOT_ENOUGH_REPLICAS"),
    },
];

const FOR_EVER: Duration = Duration::from_secs(20 * 86_400);
