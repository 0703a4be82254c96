//! The error codes of an OffsetCommit response, and the consequence of each.
//!
//! Sans-IO.

use std::collections::HashMap;

use uuid::Uuid;

use crate::{
    error::{ErrorCode, Remedy},
    record::TopicPartition,
    wire::messages::OffsetCommitResponse,
};

/// Consequence of a code for the partition's offset, by the rules of Kafka's Java client
/// (`ConsumerCoordinator`, `CommitRequestManager`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CodeClass {
    Committed,
    /// The coordinator cannot commit it yet: it is sent again.
    NotReady,
    /// Another broker may be the coordinator: it is looked up, and the offset is sent again.
    NotCoordinator,
    /// The coordinator does not know the topic, by its name or by its id. If the caller waits for
    /// topics, the offset is sent again once newer metadata has the topic.
    UnknownTopic,
    /// The member's epoch is over (KIP-848): the offset is sent again in the next one, which a
    /// heartbeat brings.
    StaleEpoch,
    /// The coordinator does not accept the member, its generation, or a commit without a member.
    StaleMember,
    /// The offset is not committed; those of other partitions may be.
    Permanent,
}

impl CodeClass {
    /// Returns the class of a code; `is_member` if the commit was sent for a member of the group.
    pub(super) fn of(code: ErrorCode, is_member: bool) -> Self {
        match code {
            ErrorCode::NONE => Self::Committed,
            ErrorCode::COORDINATOR_LOAD_IN_PROGRESS | ErrorCode::UNSTABLE_OFFSET_COMMIT => Self::NotReady,
            ErrorCode::REQUEST_TIMED_OUT => Self::NotCoordinator,
            code if code.remedy() == Remedy::FindCoordinator => Self::NotCoordinator,
            code if is_unknown_topic(code) => Self::UnknownTopic,
            ErrorCode::STALE_MEMBER_EPOCH if is_member => Self::StaleEpoch,
            // Without a member, this code means that the group's type does not take the commit.
            ErrorCode::GROUP_ID_NOT_FOUND if is_member => Self::StaleMember,
            ErrorCode::ILLEGAL_GENERATION
            | ErrorCode::UNKNOWN_MEMBER_ID
            | ErrorCode::REBALANCE_IN_PROGRESS
            | ErrorCode::FENCED_INSTANCE_ID
            | ErrorCode::STALE_MEMBER_EPOCH => Self::StaleMember,
            _ => Self::Permanent,
        }
    }

    /// Returns true if the code is about the member, or about a commit without one.
    pub(super) fn concerns_membership(self) -> bool {
        matches!(self, Self::StaleEpoch | Self::StaleMember)
    }
}

/// Returns true if the coordinator does not know the topic, by its name or by its id.
pub(crate) fn is_unknown_topic(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION | ErrorCode::UNKNOWN_TOPIC_ID)
}

/// The code of each partition in a response. Up to version 9 topics are named; from version 10 on
/// they have only their id.
pub(super) struct ResponseCodes<'a>(HashMap<(&'a str, Uuid), HashMap<i32, ErrorCode>>);

impl<'a> ResponseCodes<'a> {
    pub(super) fn read(response: &'a OffsetCommitResponse) -> Self {
        let mut topics: HashMap<(&str, Uuid), HashMap<i32, ErrorCode>> = HashMap::new();
        for topic in &response.topics {
            let codes = topic.partitions.iter().map(|it| (it.partition_index, ErrorCode::from(it.error_code)));
            topics.entry((topic.name.as_str(), topic.topic_id)).or_default().extend(codes);
        }
        Self(topics)
    }

    /// Returns the code of a partition of the topic with that id (nil if it is not known); `None`
    /// if the response leaves the partition out.
    pub(super) fn of(&self, partition: &TopicPartition, topic_id: Uuid) -> Option<ErrorCode> {
        let by_name = self.0.get(&(&*partition.topic, Uuid::nil()));
        let topic = by_name.or_else(|| self.0.get(&("", topic_id)).filter(|_| !topic_id.is_nil()));
        topic?.get(&partition.partition).copied()
    }
}
