//! The shapes of responses, and the walk that checks a response's lengths before anything is reserved by them.
//!
//! `kafka-protocol` reserves memory straight from an array's length, so that a frame of a few bytes could ask for
//! gigabytes. The walk goes over the bytes once and reserves nothing; afterwards every array is known to have as many
//! elements as it says, and decoding takes memory in proportion to the frame.

mod cluster;
mod configs;
mod groups;
mod offsets;
#[cfg(test)]
mod rewrite;
mod security;
mod share;
#[cfg(test)]
mod tests;
mod topics;
mod transactions;

#[cfg(test)]
pub(crate) use self::rewrite::{Rewrite, rewrite, strings};
use super::{ApiKey, read::Reader};
use crate::error::Result;

/// What a response consists of, in all versions.
#[derive(Debug)]
pub(super) struct Shape {
    /// The first version with compact lengths and tagged fields (KIP-482).
    flexible: i16,
    fields: &'static [Field],
}

/// One field, and the versions that have it.
#[derive(Clone, Copy, Debug)]
struct Field {
    name: &'static str,
    kind: Kind,
    since: i16,
    until: i16,
    /// The field stands among the tagged ones (of flexible versions only).
    tag: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// So many bytes.
    Fixed(usize),
    String,
    Bytes,
    Array(&'static Kind),
    Struct(&'static [Field]),
    /// A struct behind a byte that says whether it is there.
    Optional(&'static [Field]),
}

const NEVER: i16 = i16::MAX;

const BOOL: Kind = Kind::Fixed(1);
const INT8: Kind = Kind::Fixed(1);
const INT16: Kind = Kind::Fixed(2);
const INT32: Kind = Kind::Fixed(4);
const INT64: Kind = Kind::Fixed(8);
const FLOAT64: Kind = Kind::Fixed(8);
const UUID: Kind = Kind::Fixed(16);
const STRING: Kind = Kind::String;
const BYTES: Kind = Kind::Bytes;

const fn shape(flexible: i16, fields: &'static [Field]) -> Shape {
    Shape { flexible, fields }
}

const fn field(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, since: 0, until: i16::MAX, tag: None }
}

const fn array(of: &'static Kind) -> Kind {
    Kind::Array(of)
}

const fn fields(fields: &'static [Field]) -> Kind {
    Kind::Struct(fields)
}

const fn optional(fields: &'static [Field]) -> Kind {
    Kind::Optional(fields)
}

impl Field {
    const fn since(self, version: i16) -> Self {
        Self { since: version, ..self }
    }

    const fn until(self, version: i16) -> Self {
        Self { until: version, ..self }
    }

    const fn tagged(self, tag: u32) -> Self {
        Self { tag: Some(tag), ..self }
    }

    fn is_in(&self, version: i16) -> bool {
        (self.since..=self.until).contains(&version)
    }
}

impl Shape {
    /// The shape of the response to a request; none for Produce and Fetch, which have readers of their own, and for what
    /// no client asks.
    pub(super) fn of(key: ApiKey) -> Option<&'static Self> {
        Some(match key {
            ApiKey::ApiVersions => &cluster::API_VERSIONS,
            ApiKey::Metadata => &cluster::METADATA,
            ApiKey::DescribeCluster => &cluster::DESCRIBE_CLUSTER,
            ApiKey::FindCoordinator => &cluster::FIND_COORDINATOR,
            ApiKey::DescribeQuorum => &cluster::DESCRIBE_QUORUM,
            ApiKey::UpdateFeatures => &cluster::UPDATE_FEATURES,
            ApiKey::UnregisterBroker => &cluster::UNREGISTER_BROKER,
            ApiKey::AddRaftVoter => &cluster::ADD_RAFT_VOTER,
            ApiKey::RemoveRaftVoter => &cluster::REMOVE_RAFT_VOTER,
            ApiKey::DescribeTopicPartitions => &cluster::DESCRIBE_TOPIC_PARTITIONS,
            ApiKey::ListOffsets => &offsets::LIST_OFFSETS,
            ApiKey::OffsetForLeaderEpoch => &offsets::OFFSET_FOR_LEADER_EPOCH,
            ApiKey::OffsetCommit => &offsets::OFFSET_COMMIT,
            ApiKey::OffsetFetch => &offsets::OFFSET_FETCH,
            ApiKey::OffsetDelete => &offsets::OFFSET_DELETE,
            ApiKey::DeleteRecords => &offsets::DELETE_RECORDS,
            ApiKey::JoinGroup => &groups::JOIN_GROUP,
            ApiKey::SyncGroup => &groups::SYNC_GROUP,
            ApiKey::Heartbeat => &groups::HEARTBEAT,
            ApiKey::LeaveGroup => &groups::LEAVE_GROUP,
            ApiKey::DescribeGroups => &groups::DESCRIBE_GROUPS,
            ApiKey::ListGroups => &groups::LIST_GROUPS,
            ApiKey::DeleteGroups => &groups::DELETE_GROUPS,
            ApiKey::ConsumerGroupHeartbeat => &groups::CONSUMER_GROUP_HEARTBEAT,
            ApiKey::ConsumerGroupDescribe => &groups::CONSUMER_GROUP_DESCRIBE,
            ApiKey::InitProducerId => &transactions::INIT_PRODUCER_ID,
            ApiKey::AddPartitionsToTxn => &transactions::ADD_PARTITIONS_TO_TXN,
            ApiKey::AddOffsetsToTxn => &transactions::ADD_OFFSETS_TO_TXN,
            ApiKey::EndTxn => &transactions::END_TXN,
            ApiKey::TxnOffsetCommit => &transactions::TXN_OFFSET_COMMIT,
            ApiKey::WriteTxnMarkers => &transactions::WRITE_TXN_MARKERS,
            ApiKey::DescribeProducers => &transactions::DESCRIBE_PRODUCERS,
            ApiKey::DescribeTransactions => &transactions::DESCRIBE_TRANSACTIONS,
            ApiKey::ListTransactions => &transactions::LIST_TRANSACTIONS,
            ApiKey::CreateTopics => &topics::CREATE_TOPICS,
            ApiKey::DeleteTopics => &topics::DELETE_TOPICS,
            ApiKey::CreatePartitions => &topics::CREATE_PARTITIONS,
            ApiKey::ElectLeaders => &topics::ELECT_LEADERS,
            ApiKey::AlterPartitionReassignments => &topics::ALTER_PARTITION_REASSIGNMENTS,
            ApiKey::ListPartitionReassignments => &topics::LIST_PARTITION_REASSIGNMENTS,
            ApiKey::AlterReplicaLogDirs => &topics::ALTER_REPLICA_LOG_DIRS,
            ApiKey::DescribeLogDirs => &topics::DESCRIBE_LOG_DIRS,
            ApiKey::DescribeConfigs => &configs::DESCRIBE_CONFIGS,
            ApiKey::AlterConfigs => &configs::ALTER_CONFIGS,
            ApiKey::IncrementalAlterConfigs => &configs::INCREMENTAL_ALTER_CONFIGS,
            ApiKey::ListConfigResources => &configs::LIST_CONFIG_RESOURCES,
            ApiKey::DescribeClientQuotas => &configs::DESCRIBE_CLIENT_QUOTAS,
            ApiKey::AlterClientQuotas => &configs::ALTER_CLIENT_QUOTAS,
            ApiKey::GetTelemetrySubscriptions => &configs::GET_TELEMETRY_SUBSCRIPTIONS,
            ApiKey::PushTelemetry => &configs::PUSH_TELEMETRY,
            ApiKey::SaslHandshake => &security::SASL_HANDSHAKE,
            ApiKey::SaslAuthenticate => &security::SASL_AUTHENTICATE,
            ApiKey::DescribeAcls => &security::DESCRIBE_ACLS,
            ApiKey::CreateAcls => &security::CREATE_ACLS,
            ApiKey::DeleteAcls => &security::DELETE_ACLS,
            ApiKey::CreateDelegationToken => &security::CREATE_DELEGATION_TOKEN,
            ApiKey::RenewDelegationToken => &security::RENEW_DELEGATION_TOKEN,
            ApiKey::ExpireDelegationToken => &security::EXPIRE_DELEGATION_TOKEN,
            ApiKey::DescribeDelegationToken => &security::DESCRIBE_DELEGATION_TOKEN,
            ApiKey::DescribeUserScramCredentials => &security::DESCRIBE_USER_SCRAM_CREDENTIALS,
            ApiKey::AlterUserScramCredentials => &security::ALTER_USER_SCRAM_CREDENTIALS,
            ApiKey::ShareGroupHeartbeat => &share::SHARE_GROUP_HEARTBEAT,
            ApiKey::ShareGroupDescribe => &share::SHARE_GROUP_DESCRIBE,
            ApiKey::ShareFetch => &share::SHARE_FETCH,
            ApiKey::ShareAcknowledge => &share::SHARE_ACKNOWLEDGE,
            ApiKey::DescribeShareGroupOffsets => &share::DESCRIBE_SHARE_GROUP_OFFSETS,
            ApiKey::AlterShareGroupOffsets => &share::ALTER_SHARE_GROUP_OFFSETS,
            ApiKey::DeleteShareGroupOffsets => &share::DELETE_SHARE_GROUP_OFFSETS,
            _ => return None,
        })
    }

    /// Checks that a body is of this shape to its last byte.
    ///
    /// # Errors
    /// `Protocol`, naming the field and the byte.
    pub(super) fn check(&self, body: &[u8], version: i16) -> Result<()> {
        let mut reader = Reader::new(body);
        let walk = Walk { version, flexible: version >= self.flexible };
        walk.fields(self.fields, &mut reader)?;
        reader.end()
    }
}

#[derive(Clone, Copy)]
struct Walk {
    version: i16,
    flexible: bool,
}

impl Walk {
    fn fields(self, fields: &[Field], reader: &mut Reader<'_>) -> Result<()> {
        for field in fields.iter().filter(|field| field.tag.is_none() && field.is_in(self.version)) {
            self.value(&field.kind, reader).map_err(|error| error.context(field.name))?;
        }
        reader.tagged(self.flexible, |tag, part| {
            match fields.iter().find(|field| field.tag == Some(tag) && field.is_in(self.version)) {
                Some(field) => {
                    self.value(&field.kind, part).and_then(|()| part.end()).map_err(|error| error.context(field.name))
                }
                None => Ok(()),
            }
        })
    }

    fn value(self, kind: &Kind, reader: &mut Reader<'_>) -> Result<()> {
        match *kind {
            Kind::Fixed(size) => reader.range(size).map(drop),
            Kind::String => reader.string_bytes(self.flexible).map(drop),
            Kind::Bytes => reader.bytes(self.flexible).map(drop),
            Kind::Array(of) => {
                for _ in 0..reader.count(self.flexible)? {
                    self.value(of, reader)?;
                }
                Ok(())
            }
            Kind::Struct(fields) => self.fields(fields, reader),
            Kind::Optional(fields) => match reader.i8()? {
                1 => self.fields(fields, reader),
                _ => Ok(()),
            },
        }
    }
}
