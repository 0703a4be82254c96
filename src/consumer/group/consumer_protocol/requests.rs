//! The request of the consumer protocol, and its response in the membership's types.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use crate::{
    consumer::group::{
        GroupSettings,
        classic::requests::text,
        consumer_protocol::{
            actions::{HeartbeatFields, HeartbeatResponse, PartitionsByTopicId},
            errors::has_left,
        },
    },
    error::{Error, ErrorCode, Result, clean},
    wire::messages::{
        ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
        consumer_group_heartbeat_request::TopicPartitions,
    },
};

/// First version in which coordinators match regular expressions (KIP-848 as of Kafka 4.0).
const EXPRESSIONS: i16 = 1;

/// Shortest heartbeat interval, even if the coordinator asks for a shorter one.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(250);

/// Returns true if the request's version can carry all fields of the heartbeat.
pub(super) fn supports(version: i16, beat: &HeartbeatFields) -> bool {
    version >= EXPRESSIONS || beat.regex.as_ref().is_none_or(|regex| regex.is_empty())
}

pub(super) fn heartbeat(
    version: i16,
    settings: &GroupSettings,
    remote_assignor: Option<&str>,
    beat: &HeartbeatFields,
) -> ConsumerGroupHeartbeatRequest {
    let names = |names: &BTreeSet<Arc<str>>| names.iter().map(|name| text(name)).collect();
    let rebalance_timeout = i32::try_from(settings.max_poll_interval.as_millis()).unwrap_or(i32::MAX);
    ConsumerGroupHeartbeatRequest {
        group_id: text(&settings.group_id),
        member_id: text(&beat.member_id),
        member_epoch: beat.epoch,
        // Brokers look up a static member by it in every heartbeat.
        instance_id: settings.group_instance_id.as_deref().map(text),
        rack_id: settings.client_rack.as_deref().filter(|rack| beat.full && !rack.is_empty()).map(text),
        rebalance_timeout_ms: if beat.full { rebalance_timeout } else { -1 },
        subscribed_topic_names: beat.names.as_ref().map(names),
        subscribed_topic_regex: beat.regex.as_deref().filter(|_| version >= EXPRESSIONS).map(text),
        server_assignor: remote_assignor.filter(|_| beat.full).map(text),
        topic_partitions: beat.owned.as_ref().map(partitions_by_topic_id),
    }
}

fn partitions_by_topic_id(held: &PartitionsByTopicId) -> Vec<TopicPartitions> {
    let topics = held
        .iter()
        .map(|(id, partitions)| TopicPartitions { topic_id: *id, partitions: partitions.iter().copied().collect() });
    topics.collect()
}

pub(super) fn read_heartbeat(
    response: ConsumerGroupHeartbeatResponse,
    node: i32,
    settings: &GroupSettings,
) -> Result<HeartbeatResponse> {
    check(&response, settings)?;
    let assignment = response.assignment.map(|assignment| {
        let mut held = PartitionsByTopicId::new();
        for topic in assignment.topic_partitions {
            held.entry(topic.topic_id).or_default().extend(topic.partitions);
        }
        held
    });
    Ok(HeartbeatResponse {
        node,
        member_id: response.member_id.map(|id| id.to_string()),
        epoch: response.member_epoch,
        interval: u64::try_from(response.heartbeat_interval_ms)
            .ok()
            .filter(|ms| *ms > 0)
            .map(|ms| Duration::from_millis(ms).max(SHORTEST_INTERVAL)),
        assignment,
    })
}

fn check(response: &ConsumerGroupHeartbeatResponse, settings: &GroupSettings) -> Result<()> {
    let told = response.error_message.as_ref().filter(|told| !told.is_empty());
    ErrorCode::from(response.error_code).ok().map_err(|code| {
        let group = &settings.group_id;
        match told {
            Some(told) => Error::broker(code, format_args!("heartbeat of group {group} ({})", clean(told))),
            None => Error::broker(code, format_args!("heartbeat of group {group}")),
        }
    })
}

/// Builds a heartbeat that leaves the group.
pub(super) fn leave(settings: &GroupSettings, member_id: &str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: text(&settings.group_id),
        member_id: text(member_id),
        member_epoch: epoch,
        instance_id: settings.group_instance_id.as_deref().map(text),
        rebalance_timeout_ms: -1,
        ..Default::default()
    }
}

/// Reads the response to a leave.
pub(super) fn read_leave(response: &ConsumerGroupHeartbeatResponse, settings: &GroupSettings) -> Result<()> {
    if has_left(response.error_code.into()) { Ok(()) } else { check(response, settings) }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::wire::byte_string::ByteString;

    fn settings() -> GroupSettings {
        GroupSettings {
            group_id: "g".into(),
            group_instance_id: Some("i".into()),
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(3),
            max_poll_interval: Duration::from_secs(300),
            assignors: crate::consumer::group::assignor::defaults(),
            client_rack: Some("r".to_owned()),
            exclude_internal_topics: true,
            origin: crate::log::Origin::default(),
        }
    }

    fn beat(full: bool) -> HeartbeatFields {
        HeartbeatFields {
            member_id: "m".into(),
            epoch: 4,
            full,
            names: full.then(|| ["t".into()].into()),
            regex: full.then(|| "a.*".into()),
            owned: full.then(|| [(Uuid::from_u128(7), [0, 2].into())].into()),
        }
    }

    #[test]
    fn sends_all_fields_only_when_full() {
        let request = heartbeat(1, &settings(), Some("range"), &beat(true));
        assert_eq!((request.member_id.as_str(), request.member_epoch), ("m", 4));
        assert_eq!(request.rebalance_timeout_ms, 300_000);
        assert_eq!(request.subscribed_topic_names.unwrap(), [text("t")]);
        assert_eq!(request.subscribed_topic_regex.as_deref(), Some("a.*"));
        assert_eq!(request.server_assignor.as_deref(), Some("range"));
        assert_eq!((request.instance_id.as_deref(), request.rack_id.as_deref()), (Some("i"), Some("r")));
        assert_eq!(request.topic_partitions.unwrap()[0].partitions, [0, 2]);

        let request = heartbeat(1, &settings(), Some("range"), &beat(false));
        assert_eq!((request.instance_id.as_deref(), request.rebalance_timeout_ms), (Some("i"), -1));
        assert!(request.subscribed_topic_names.is_none() && request.subscribed_topic_regex.is_none());
        assert!(request.server_assignor.is_none() && request.rack_id.is_none() && request.topic_partitions.is_none());
    }

    #[test]
    fn omits_regex_when_version_lacks_it() {
        assert!(!supports(0, &beat(true)) && supports(1, &beat(true)) && supports(0, &beat(false)));
        assert!(heartbeat(0, &settings(), None, &beat(true)).subscribed_topic_regex.is_none());
    }

    #[test]
    fn ignores_zero_or_negative_heartbeat_interval() {
        let response = ConsumerGroupHeartbeatResponse { member_epoch: 3, ..Default::default() };
        let answer = read_heartbeat(response.clone(), 1, &settings()).unwrap();
        assert_eq!((answer.interval, answer.assignment), (None, None));
        let response = ConsumerGroupHeartbeatResponse { heartbeat_interval_ms: -5, ..response };
        assert_eq!(read_heartbeat(response, 1, &settings()).unwrap().interval, None);
    }

    #[test]
    fn error_includes_message_from_broker() {
        let response = ConsumerGroupHeartbeatResponse {
            error_code: ErrorCode::UNSUPPORTED_ASSIGNOR.code(),
            error_message: Some(ByteString::from_static("use uniform, range")),
            ..Default::default()
        };
        let error = read_heartbeat(response, 1, &settings()).unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::UNSUPPORTED_ASSIGNOR));
        assert!(error.to_string().contains("use uniform, range"), "{error}");
    }

    #[test]
    fn leave_succeeds_when_member_is_unknown() {
        for code in [ErrorCode::NONE, ErrorCode::UNKNOWN_MEMBER_ID, ErrorCode::FENCED_INSTANCE_ID] {
            let response = ConsumerGroupHeartbeatResponse { error_code: code.code(), ..Default::default() };
            assert!(read_leave(&response, &settings()).is_ok(), "{code}");
        }
        let response =
            ConsumerGroupHeartbeatResponse { error_code: ErrorCode::NOT_COORDINATOR.code(), ..Default::default() };
        assert!(read_leave(&response, &settings()).is_err());
    }
}
