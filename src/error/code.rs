//! The broker's error codes, and the action that each of them asks of a client.
//!
//! One table serves every room. It says whether the request may be sent again, and which look-up
//! has to be repeated first. Each room's own state machine decides the effect of a code on a batch,
//! a member or a transaction.

use std::fmt;

/// An error code of the Kafka protocol, with Kafka's own name.
///
/// Codes that this version of Ottla does not know keep their number.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ErrorCode(i16);

/// The action that a code asks for before the request may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remedy {
    /// A retry cannot succeed.
    None,
    /// Wait, then send the same request again.
    Retry,
    /// Refresh the cluster's metadata, then send the request again.
    RefreshMetadata,
    /// Look the coordinator up again, then send the request again.
    FindCoordinator,
}

struct Row {
    code: i16,
    name: &'static str,
    remedy: Remedy,
    message: &'static str,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $remedy:ident, $message:literal;)*) => {
        impl ErrorCode {
            $(#[doc = concat!("`", stringify!($code), "`: ", $message)] pub const $name: ErrorCode = ErrorCode($code);)*
        }
        static TABLE: &[Row] = &[
            $(Row { code: $code, name: stringify!($name), remedy: Remedy::$remedy, message: $message },)*
        ];
    };
}

impl ErrorCode {
    /// Makes the code with this number on the wire.
    pub const fn new(code: i16) -> Self {
        Self(code)
    }

    /// Returns the number on the wire.
    pub const fn code(self) -> i16 {
        self.0
    }

    /// Returns true if this is [`ErrorCode::NONE`], success.
    pub const fn is_ok(self) -> bool {
        self.0 == 0
    }

    /// Returns `Ok` for [`ErrorCode::NONE`], and the code as an error otherwise.
    pub const fn ok(self) -> Result<(), Self> {
        if self.is_ok() { Ok(()) } else { Err(self) }
    }

    /// Returns Kafka's name for the code, or `UNKNOWN` if this version does not know it.
    pub fn name(self) -> &'static str {
        self.row().map_or("UNKNOWN", |row| row.name)
    }

    /// Returns true if this version knows the code.
    pub(crate) fn is_known(self) -> bool {
        self.row().is_some()
    }

    /// Returns Kafka's explanation of the code.
    pub fn message(self) -> &'static str {
        self.row().map_or("an error code that this version of the client does not know", |row| row.message)
    }

    /// Returns the action that the code asks for before the request may be sent again.
    pub fn remedy(self) -> Remedy {
        self.row().map_or(Remedy::None, |row| row.remedy)
    }

    /// Returns true if the same request may succeed later, as Kafka's own clients classify the
    /// code.
    pub fn is_retriable(self) -> bool {
        self.remedy() != Remedy::None
    }

    fn row(self) -> Option<&'static Row> {
        let i = TABLE.binary_search_by_key(&self.0, |row| row.code).ok()?;
        TABLE.get(i)
    }
}

impl From<i16> for ErrorCode {
    fn from(code: i16) -> Self {
        Self(code)
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name(), self.0)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row() {
            Some(row) => f.write_str(row.name),
            None => write!(f, "error code {}", self.0),
        }
    }
}

// The rows are sorted by number, because the look-up is a binary search.
codes! {
    UNKNOWN_SERVER_ERROR = -1, None, "The server experienced an unexpected error when processing the request.";
    NONE = 0, None, "Success.";
    OFFSET_OUT_OF_RANGE = 1, None, "The requested offset is not within the range of offsets maintained by the server.";
    CORRUPT_MESSAGE = 2, Retry, "This message has failed its CRC checksum, exceeds the valid size, has a null key for a compacted topic, or is otherwise corrupt.";
    UNKNOWN_TOPIC_OR_PARTITION = 3, RefreshMetadata, "This server does not host this topic-partition.";
    INVALID_FETCH_SIZE = 4, None, "The requested fetch size is invalid.";
    LEADER_NOT_AVAILABLE = 5, RefreshMetadata, "There is no leader for this topic-partition as we are in the middle of a leadership election.";
    NOT_LEADER_OR_FOLLOWER = 6, RefreshMetadata, "For requests intended only for the leader, this error indicates that the broker is not the current leader. For requests intended for any replica, this error indicates that the broker is not a replica of the topic partition.";
    REQUEST_TIMED_OUT = 7, Retry, "The request timed out.";
    BROKER_NOT_AVAILABLE = 8, None, "The broker is not available.";
    REPLICA_NOT_AVAILABLE = 9, RefreshMetadata, "The replica is not available for the requested topic-partition. Produce/Fetch requests and other requests intended only for the leader or follower return NOT_LEADER_OR_FOLLOWER if the broker is not a replica of the topic-partition.";
    MESSAGE_TOO_LARGE = 10, None, "The request included a message larger than the max message size the server will accept.";
    STALE_CONTROLLER_EPOCH = 11, None, "The controller moved to another broker.";
    OFFSET_METADATA_TOO_LARGE = 12, None, "The metadata field of the offset request was too large.";
    NETWORK_EXCEPTION = 13, RefreshMetadata, "The server disconnected before a response was received.";
    COORDINATOR_LOAD_IN_PROGRESS = 14, Retry, "The coordinator is loading and hence can't process requests.";
    COORDINATOR_NOT_AVAILABLE = 15, FindCoordinator, "The coordinator is not available.";
    NOT_COORDINATOR = 16, FindCoordinator, "This is not the correct coordinator.";
    INVALID_TOPIC_EXCEPTION = 17, None, "The request attempted to perform an operation on an invalid topic.";
    RECORD_LIST_TOO_LARGE = 18, None, "The request included message batch larger than the configured segment size on the server.";
    NOT_ENOUGH_REPLICAS = 19, Retry, "Messages are rejected since there are fewer in-sync replicas than required.";
    NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20, Retry, "Messages are written to the log, but to fewer in-sync replicas than required.";
    INVALID_REQUIRED_ACKS = 21, None, "Produce request specified an invalid value for required acks.";
    ILLEGAL_GENERATION = 22, None, "Specified group generation id is not valid.";
    INCONSISTENT_GROUP_PROTOCOL = 23, None, "The group member's supported protocols are incompatible with those of existing members or first group member tried to join with empty protocol type or empty protocol list.";
    INVALID_GROUP_ID = 24, None, "The group id is invalid.";
    UNKNOWN_MEMBER_ID = 25, None, "The coordinator is not aware of this member.";
    INVALID_SESSION_TIMEOUT = 26, None, "The session timeout is not within the range allowed by the broker (as configured by group.min.session.timeout.ms and group.max.session.timeout.ms).";
    REBALANCE_IN_PROGRESS = 27, None, "The group is rebalancing, so a rejoin is needed.";
    INVALID_COMMIT_OFFSET_SIZE = 28, None, "The committing offset data size is not valid.";
    TOPIC_AUTHORIZATION_FAILED = 29, None, "Topic authorization failed.";
    GROUP_AUTHORIZATION_FAILED = 30, None, "Group authorization failed.";
    CLUSTER_AUTHORIZATION_FAILED = 31, None, "Cluster authorization failed.";
    INVALID_TIMESTAMP = 32, None, "The timestamp of the message is out of acceptable range.";
    UNSUPPORTED_SASL_MECHANISM = 33, None, "The broker does not support the requested SASL mechanism.";
    ILLEGAL_SASL_STATE = 34, None, "Request is not valid given the current SASL state.";
    UNSUPPORTED_VERSION = 35, None, "The version of API is not supported.";
    TOPIC_ALREADY_EXISTS = 36, None, "Topic with this name already exists.";
    INVALID_PARTITIONS = 37, None, "Number of partitions is below 1.";
    INVALID_REPLICATION_FACTOR = 38, None, "Replication factor is below 1 or larger than the number of available brokers.";
    INVALID_REPLICA_ASSIGNMENT = 39, None, "Replica assignment is invalid.";
    INVALID_CONFIG = 40, None, "Configuration is invalid.";
    NOT_CONTROLLER = 41, Retry, "This is not the correct controller for this cluster.";
    INVALID_REQUEST = 42, None, "This most likely occurs because of a request being malformed by the client library or the message was sent to an incompatible broker. See the broker logs for more details.";
    UNSUPPORTED_FOR_MESSAGE_FORMAT = 43, None, "The message format version on the broker does not support the request.";
    POLICY_VIOLATION = 44, None, "Request parameters do not satisfy the configured policy.";
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45, None, "The broker received an out of order sequence number.";
    DUPLICATE_SEQUENCE_NUMBER = 46, None, "The broker received a duplicate sequence number.";
    INVALID_PRODUCER_EPOCH = 47, None, "Producer attempted to produce with an old epoch.";
    INVALID_TXN_STATE = 48, None, "The producer attempted a transactional operation in an invalid state.";
    INVALID_PRODUCER_ID_MAPPING = 49, None, "The producer attempted to use a producer id which is not currently assigned to its transactional id.";
    INVALID_TRANSACTION_TIMEOUT = 50, None, "The transaction timeout is larger than the maximum value allowed by the broker (as configured by transaction.max.timeout.ms).";
    CONCURRENT_TRANSACTIONS = 51, Retry, "The producer attempted to update a transaction while another concurrent operation on the same transaction was ongoing.";
    TRANSACTION_COORDINATOR_FENCED = 52, None, "Indicates that the transaction coordinator sending a WriteTxnMarker is no longer the current coordinator for a given producer.";
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53, None, "Transactional Id authorization failed.";
    SECURITY_DISABLED = 54, None, "Security features are disabled.";
    OPERATION_NOT_ATTEMPTED = 55, None, "The broker did not attempt to execute this operation. This may happen for batched RPCs where some operations in the batch failed, causing the broker to respond without trying the rest.";
    KAFKA_STORAGE_ERROR = 56, RefreshMetadata, "Disk error when trying to access log file on the disk.";
    LOG_DIR_NOT_FOUND = 57, None, "The user-specified log directory is not found in the broker config.";
    SASL_AUTHENTICATION_FAILED = 58, None, "SASL Authentication failed.";
    UNKNOWN_PRODUCER_ID = 59, None, "This exception is raised by the broker if it could not locate the producer metadata associated with the producerId in question. This could happen if, for instance, the producer's records were deleted because their retention time had elapsed. Once the last records of the producerId are removed, the producer's metadata is removed from the broker, and future appends by the producer will return this exception.";
    REASSIGNMENT_IN_PROGRESS = 60, None, "A partition reassignment is in progress.";
    DELEGATION_TOKEN_AUTH_DISABLED = 61, None, "Delegation Token feature is not enabled.";
    DELEGATION_TOKEN_NOT_FOUND = 62, None, "Delegation Token is not found on server.";
    DELEGATION_TOKEN_OWNER_MISMATCH = 63, None, "Specified Principal is not valid Owner/Renewer.";
    DELEGATION_TOKEN_REQUEST_NOT_ALLOWED = 64, None, "Delegation Token requests are not allowed on PLAINTEXT/1-way SSL channels and on delegation token authenticated channels.";
    DELEGATION_TOKEN_AUTHORIZATION_FAILED = 65, None, "Delegation Token authorization failed.";
    DELEGATION_TOKEN_EXPIRED = 66, None, "Delegation Token is expired.";
    INVALID_PRINCIPAL_TYPE = 67, None, "Supplied principalType is not supported.";
    NON_EMPTY_GROUP = 68, None, "The group is not empty.";
    GROUP_ID_NOT_FOUND = 69, None, "The group id does not exist.";
    FETCH_SESSION_ID_NOT_FOUND = 70, Retry, "The fetch session ID was not found.";
    INVALID_FETCH_SESSION_EPOCH = 71, Retry, "The fetch session epoch is invalid.";
    LISTENER_NOT_FOUND = 72, RefreshMetadata, "There is no listener on the leader broker that matches the listener on which metadata request was processed.";
    TOPIC_DELETION_DISABLED = 73, None, "Topic deletion is disabled.";
    FENCED_LEADER_EPOCH = 74, RefreshMetadata, "The leader epoch in the request is older than the epoch on the broker.";
    UNKNOWN_LEADER_EPOCH = 75, Retry, "The leader epoch in the request is newer than the epoch on the broker.";
    UNSUPPORTED_COMPRESSION_TYPE = 76, None, "The requesting client does not support the compression type of given partition.";
    STALE_BROKER_EPOCH = 77, None, "Broker epoch has changed.";
    OFFSET_NOT_AVAILABLE = 78, Retry, "The leader high watermark has not caught up from a recent leader election so the offsets cannot be guaranteed to be monotonically increasing.";
    MEMBER_ID_REQUIRED = 79, None, "The group member needs to have a valid member id before actually entering a consumer group.";
    PREFERRED_LEADER_NOT_AVAILABLE = 80, RefreshMetadata, "The preferred leader was not available.";
    GROUP_MAX_SIZE_REACHED = 81, None, "The group has reached its maximum size.";
    FENCED_INSTANCE_ID = 82, None, "The broker rejected this static consumer since another consumer with the same group.instance.id has registered with a different member.id.";
    ELIGIBLE_LEADERS_NOT_AVAILABLE = 83, RefreshMetadata, "Eligible topic partition leaders are not available.";
    ELECTION_NOT_NEEDED = 84, RefreshMetadata, "Leader election not needed for topic partition.";
    NO_REASSIGNMENT_IN_PROGRESS = 85, None, "No partition reassignment is in progress.";
    GROUP_SUBSCRIBED_TO_TOPIC = 86, None, "Deleting offsets of a topic is forbidden while the consumer group is actively subscribed to it.";
    INVALID_RECORD = 87, None, "This record has failed the validation on broker and hence will be rejected.";
    UNSTABLE_OFFSET_COMMIT = 88, Retry, "There are unstable offsets that need to be cleared.";
    THROTTLING_QUOTA_EXCEEDED = 89, Retry, "The throttling quota has been exceeded.";
    PRODUCER_FENCED = 90, None, "There is a newer producer with the same transactionalId which fences the current one.";
    RESOURCE_NOT_FOUND = 91, None, "A request illegally referred to a resource that does not exist.";
    DUPLICATE_RESOURCE = 92, None, "A request illegally referred to the same resource twice.";
    UNACCEPTABLE_CREDENTIAL = 93, None, "Requested credential would not meet criteria for acceptability.";
    INCONSISTENT_VOTER_SET = 94, None, "Indicates that the either the sender or recipient of a voter-only request is not one of the expected voters.";
    INVALID_UPDATE_VERSION = 95, None, "The given update version was invalid.";
    FEATURE_UPDATE_FAILED = 96, None, "Unable to update finalized features due to an unexpected server error.";
    PRINCIPAL_DESERIALIZATION_FAILURE = 97, None, "Request principal deserialization failed during forwarding. This indicates an internal error on the broker cluster security setup.";
    SNAPSHOT_NOT_FOUND = 98, None, "Requested snapshot was not found.";
    POSITION_OUT_OF_RANGE = 99, None, "Requested position is not greater than or equal to zero, and less than the size of the snapshot.";
    UNKNOWN_TOPIC_ID = 100, RefreshMetadata, "This server does not host this topic ID.";
    DUPLICATE_BROKER_REGISTRATION = 101, None, "This broker ID is already in use.";
    BROKER_ID_NOT_REGISTERED = 102, None, "The given broker ID was not registered.";
    INCONSISTENT_TOPIC_ID = 103, RefreshMetadata, "The log's topic ID did not match the topic ID in the request.";
    INCONSISTENT_CLUSTER_ID = 104, None, "The clusterId in the request does not match that found on the server.";
    TRANSACTIONAL_ID_NOT_FOUND = 105, None, "The transactionalId could not be found.";
    FETCH_SESSION_TOPIC_ID_ERROR = 106, Retry, "The fetch session encountered inconsistent topic ID usage.";
    INELIGIBLE_REPLICA = 107, None, "The new ISR contains at least one ineligible replica.";
    NEW_LEADER_ELECTED = 108, None, "The AlterPartition request successfully updated the partition state but the leader has changed.";
    OFFSET_MOVED_TO_TIERED_STORAGE = 109, None, "The requested offset is moved to tiered storage.";
    FENCED_MEMBER_EPOCH = 110, None, "The member epoch is fenced by the group coordinator. The member must abandon all its partitions and rejoin.";
    UNRELEASED_INSTANCE_ID = 111, None, "The instance ID is still used by another member in the consumer group. That member must leave first.";
    UNSUPPORTED_ASSIGNOR = 112, None, "The assignor or its version range is not supported by the consumer group.";
    STALE_MEMBER_EPOCH = 113, None, "The member epoch is stale. The member must retry after receiving its updated member epoch via the ConsumerGroupHeartbeat API.";
    MISMATCHED_ENDPOINT_TYPE = 114, None, "The request was sent to an endpoint of the wrong type.";
    UNSUPPORTED_ENDPOINT_TYPE = 115, None, "This endpoint type is not supported yet.";
    UNKNOWN_CONTROLLER_ID = 116, None, "This controller ID is not known.";
    UNKNOWN_SUBSCRIPTION_ID = 117, None, "Client sent a push telemetry request with an invalid or outdated subscription ID.";
    TELEMETRY_TOO_LARGE = 118, None, "Client sent a push telemetry request larger than the maximum size the broker will accept.";
    INVALID_REGISTRATION = 119, None, "The controller has considered the broker registration to be invalid.";
    TRANSACTION_ABORTABLE = 120, None, "The server encountered an error with the transaction. The client can abort the transaction to continue using this transactional ID.";
    INVALID_RECORD_STATE = 121, None, "The record state is invalid. The acknowledgement of delivery could not be completed.";
    SHARE_SESSION_NOT_FOUND = 122, Retry, "The share session was not found.";
    INVALID_SHARE_SESSION_EPOCH = 123, Retry, "The share session epoch is invalid.";
    FENCED_STATE_EPOCH = 124, None, "The share coordinator rejected the request because the share-group state epoch did not match.";
    INVALID_VOTER_KEY = 125, None, "The voter key doesn't match the receiving replica's key.";
    DUPLICATE_VOTER = 126, None, "The voter is already part of the set of voters.";
    VOTER_NOT_FOUND = 127, None, "The voter is not part of the set of voters.";
    INVALID_REGULAR_EXPRESSION = 128, None, "The regular expression is not valid.";
    REBOOTSTRAP_REQUIRED = 129, None, "Client metadata is stale. The client should rebootstrap to obtain new metadata.";
    STREAMS_INVALID_TOPOLOGY = 130, None, "The supplied topology is invalid.";
    STREAMS_INVALID_TOPOLOGY_EPOCH = 131, None, "The supplied topology epoch is invalid.";
    STREAMS_TOPOLOGY_FENCED = 132, None, "The supplied topology epoch is outdated.";
    SHARE_SESSION_LIMIT_REACHED = 133, Retry, "The limit of share sessions has been reached.";
    GROUP_DELETION_FAILED = 134, None, "DeleteGroups could not complete; see the error message on the per-group result for details.";
    STREAMS_TOPOLOGY_DESCRIPTION_UPDATE_FAILED = 135, None, "The broker could not process the topology description update; see the error message for details.";
    CONTROLLER_ID_NOT_REGISTERED = 136, None, "The given controller ID was not registered.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_sorted_by_error_code() {
        assert!(TABLE.windows(2).all(|w| w[0].code < w[1].code));
    }

    #[test]
    fn maps_codes_to_names_and_remedies() {
        assert_eq!(ErrorCode::new(6), ErrorCode::NOT_LEADER_OR_FOLLOWER);
        assert_eq!(ErrorCode::new(6).to_string(), "NOT_LEADER_OR_FOLLOWER");
        assert_eq!(ErrorCode::NOT_LEADER_OR_FOLLOWER.remedy(), Remedy::RefreshMetadata);
        assert_eq!(ErrorCode::NOT_COORDINATOR.remedy(), Remedy::FindCoordinator);
        assert_eq!(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS.remedy(), Remedy::Retry);
        assert!(!ErrorCode::TOPIC_AUTHORIZATION_FAILED.is_retriable());
        assert!(!ErrorCode::new(31_000).is_retriable());
        assert_eq!(ErrorCode::new(31_000).to_string(), "error code 31000");
    }
}
