//! The requests that the brokers serve, one file for each.
//!
//! A request is decoded into a [`Call`], which acts on the state once or, if it has to wait,
//! repeatedly until it has its response.

mod add_offsets_to_txn;
mod add_partitions_to_txn;
mod api_versions;
mod consumer_group_describe;
mod consumer_group_heartbeat;
mod create_partitions;
mod create_topics;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_groups;
mod describe_transactions;
mod end_txn;
mod fetch;
mod fetch_reply;
mod find_coordinator;
mod heartbeat;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_groups;
mod list_offsets;
mod list_transactions;
mod metadata;
mod offset_commit;
mod offset_fetch;
mod offset_for_leader_epoch;
mod produce;
mod produce_sink;
mod produce_verification;
mod sasl;
mod sync_group;
mod txn_offset_commit;

use std::{sync::Arc, time::Instant};

use bytes::{BufMut, Bytes, BytesMut};

pub(crate) use self::produce_sink::acknowledge;
use super::{
    fault::Verdict,
    options::Options,
    sasl::Gate,
    state::{State, group::Ticket},
};
use crate::{
    error::{Error, ErrorCode, ErrorKind, Result},
    record::TopicPartition,
    wire::{
        ApiKey,
        byte_string::ByteString,
        decoder::Decode,
        encoder::Encode,
        message::{decode_body, decode_request_header, encode_body, response_header_is_flexible},
        messages,
        protocol::{Message, Request},
    },
};

/// A request that is served: its versions, and its decoder.
pub(crate) struct Served {
    pub(crate) key: ApiKey,
    min: i16,
    max: i16,
    decode: fn(&Head, Bytes) -> Result<Box<dyn Call>>,
}

const fn served<R: Request>(decode: fn(&Head, Bytes) -> Result<Box<dyn Call>>) -> Served {
    let (min, max) = R::VERSIONS;
    Served { key: R::API, min, max, decode }
}

macro_rules! serve {
    ($($request:ident => $call:expr,)*) => {
        [$(served::<messages::$request>(|head, body| {
            let call = $call;
            Ok(Box::new(call(decode::<messages::$request>(head, body)?, head.version)))
        }),)*]
    };
}

/// The requests that are served.
pub(crate) static SERVED: [Served; 32] = serve![
    ProduceRequest => |request, _| produce::Produce::new(request),
    FetchRequest => fetch::Fetch::new,
    ListOffsetsRequest => |request, _| list_offsets::ListOffsets(request),
    MetadataRequest => |request, _| metadata::Metadata(request),
    OffsetCommitRequest => |request, _| offset_commit::OffsetCommit(request),
    OffsetFetchRequest => |request, _| offset_fetch::OffsetFetch(request),
    FindCoordinatorRequest => |request, _| find_coordinator::FindCoordinator(request),
    JoinGroupRequest => |request, _| join_group::JoinGroup::new(request),
    HeartbeatRequest => |request, _| heartbeat::Heartbeat(request),
    LeaveGroupRequest => |request, _| leave_group::LeaveGroup(request),
    SyncGroupRequest => |request, _| sync_group::SyncGroup::new(request),
    DescribeGroupsRequest => |request, _| describe_groups::DescribeGroups(request),
    ListGroupsRequest => |request, _| list_groups::ListGroups(request),
    ApiVersionsRequest => |request, _| api_versions::ApiVersions(request),
    CreateTopicsRequest => |request, _| create_topics::CreateTopics(request),
    DeleteTopicsRequest => |request, _| delete_topics::DeleteTopics(request),
    DeleteRecordsRequest => |request, _| delete_records::DeleteRecords(request),
    InitProducerIdRequest => |request, _| init_producer_id::InitProducerId(request),
    OffsetForLeaderEpochRequest => |request, _| offset_for_leader_epoch::OffsetForLeaderEpoch(request),
    AddPartitionsToTxnRequest => add_partitions_to_txn::AddPartitionsToTxn::new,
    AddOffsetsToTxnRequest => |request, _| add_offsets_to_txn::AddOffsetsToTxn(request),
    EndTxnRequest => |request, _| end_txn::EndTxn(request),
    TxnOffsetCommitRequest => |request, _| txn_offset_commit::TxnOffsetCommit(request),
    DescribeTransactionsRequest => |request, _| describe_transactions::DescribeTransactions(request),
    ListTransactionsRequest => |request, _| list_transactions::ListTransactions(request),
    CreatePartitionsRequest => |request, _| create_partitions::CreatePartitions(request),
    DeleteGroupsRequest => |request, _| delete_groups::DeleteGroups(request),
    DescribeClusterRequest => |request, _| describe_cluster::DescribeCluster(request),
    SaslHandshakeRequest => |request, _| sasl::SaslHandshake(request),
    SaslAuthenticateRequest => |request, _| sasl::SaslAuthenticate(request),
    ConsumerGroupHeartbeatRequest => |request, _| consumer_group_heartbeat::ConsumerGroupHeartbeat(request),
    ConsumerGroupDescribeRequest => |request, _| consumer_group_describe::ConsumerGroupDescribe(request),
];

/// Returns the versions of a request that the cluster offers; `None` if it does not serve the
/// request.
pub(crate) fn versions(key: ApiKey, options: &Options) -> Option<(i16, i16)> {
    let served = SERVED.iter().find(|served| served.key == key)?;
    let unlisted = if options.serves_listed_only && key != ApiKey::ApiVersions { -1 } else { served.max };
    let max = options.max_versions.get(&key).map_or(unlisted, |&cap| cap.min(served.max));
    (served.min <= max).then_some((served.min, max))
}

/// The fields that precede a request's body.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) key: ApiKey,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    pub(crate) client_id: Arc<str>,
}

/// A decoded request.
pub(crate) trait Call: Send {
    /// Returns the objects that the request concerns, for the journal and for faults.
    fn subject(&self, state: &State, broker: i32) -> Subject {
        let _ = (state, broker);
        Subject::default()
    }

    /// Returns the transactional id that the request names.
    fn transactional_id(&self) -> Option<&str> {
        None
    }

    /// Carries the request out. Called again after [`Step::Wait`] and [`Step::Postpone`].
    fn act(&mut self, context: &mut Context<'_>) -> Result<Step>;

    /// Returns true if other requests may wait for this one's changes.
    fn wakes(&self) -> bool {
        true
    }
}

/// The objects that a request concerns.
#[derive(Debug, Default)]
pub(crate) struct Subject {
    pub(crate) partitions: Vec<TopicPartition>,
    pub(crate) group: Option<String>,
}

impl Subject {
    pub(crate) fn of_group(group: &str) -> Self {
        Self { partitions: Vec::new(), group: Some(group.to_owned()) }
    }
}

/// The state and the connection on which a call acts.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) broker: i32,
    pub(crate) head: &'a Head,
    pub(crate) now: Instant,
    pub(crate) verdict: &'a Verdict,
    pub(crate) gate: &'a mut Gate,
}

/// The next step of a call.
#[derive(Debug)]
pub(crate) enum Step {
    /// The whole response, with its length first, to be written part by part.
    Reply(Vec<Bytes>),
    /// There is no response (acks=0).
    Silent,
    /// The connection has to be closed.
    Close,
    /// The call has to be made again when something changed, at the latest at that time.
    Wait(Option<Instant>),
    /// Like `Wait`, and nothing was changed yet.
    Postpone(Instant),
}

impl Context<'_> {
    /// Returns the error of a fault that replaces the request's execution.
    pub(crate) fn refused(&self) -> Option<ErrorCode> {
        self.verdict.for_request().filter(|injected| !injected.acts).map(|injected| injected.code)
    }

    /// Returns the error of a fault that follows the request's execution, or else `error`.
    pub(crate) fn spoiled(&self, error: ErrorCode) -> ErrorCode {
        self.verdict.for_request().filter(|injected| injected.acts).map_or(error, |injected| injected.code)
    }

    /// Returns the error for one partition, like [`refused`](Self::refused).
    pub(crate) fn refused_partition(&self, topic: &str, partition: i32) -> Option<ErrorCode> {
        let injected = self.verdict.for_partition(topic, partition);
        injected.filter(|injected| !injected.acts).map(|injected| injected.code)
    }

    /// Returns the error for one partition, like [`spoiled`](Self::spoiled).
    pub(crate) fn spoiled_partition(&self, topic: &str, partition: i32, error: ErrorCode) -> ErrorCode {
        let injected = self.verdict.for_partition(topic, partition);
        injected.filter(|injected| injected.acts).map_or(error, |injected| injected.code)
    }

    /// Returns `throttle_time_ms`.
    pub(crate) fn throttle(&self) -> i32 {
        i32::try_from(self.verdict.throttle.as_millis()).unwrap_or(i32::MAX)
    }

    /// Checks that this broker coordinates the group.
    pub(crate) fn check_group(&self, group: &str) -> Result<(), ErrorCode> {
        if group.is_empty() {
            Err(ErrorCode::INVALID_GROUP_ID)
        } else {
            self.state.check_coordinator(group, self.broker)
        }
    }

    /// Begins a response's frame, with room for its length and without a body.
    pub(crate) fn begin_reply(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(256);
        out.put_i32(0);
        out.put_i32(self.head.correlation_id);
        if response_header_is_flexible(self.head.key, self.head.version).unwrap_or_default() {
            out.put_u8(0);
        }
        out
    }

    /// Encodes a response.
    pub(crate) fn reply<T: Message + Encode>(&self, response: &T) -> Result<Step> {
        self.reply_in(response, self.head.version)
    }

    /// Encodes a response in the given version.
    pub(crate) fn reply_in<T: Message + Encode>(&self, response: &T, version: i16) -> Result<Step> {
        let mut out = self.begin_reply();
        encode_body(&mut out, response, version)
            .map_err(|error| Error::new(ErrorKind::Internal, format!("cannot write the response: {error}")))?;
        Ok(finish_reply(out))
    }
}

/// Fills in the length of a response that is in one part.
fn finish_reply(mut out: BytesMut) -> Step {
    let length = u32::try_from(out.len().saturating_sub(4)).unwrap_or(u32::MAX);
    if let Some(place) = out.first_chunk_mut::<4>() {
        *place = length.to_be_bytes();
    }
    Step::Reply(vec![out.freeze()])
}

/// Reads the header of a request and leaves its body.
pub(crate) fn decode_head(frame: &mut Bytes) -> Result<Head> {
    let (key, version, correlation_id, client_id) = decode_request_header(frame)?;
    Ok(Head { key, version, correlation_id, client_id: client_id.as_str().into() })
}

/// Decodes a request of a version that is served.
pub(crate) fn decode_call(head: &Head, body: Bytes) -> Result<Box<dyn Call>> {
    match SERVED.iter().find(|served| served.key == head.key) {
        Some(served) => (served.decode)(head, body),
        None => Err(Error::new(ErrorKind::UnsupportedVersion, format!("{} is not served", head.key))),
    }
}

/// Returns the response to ApiVersions in a version that is not served: encoded in version 0,
/// listing the versions that are (KIP-511).
pub(crate) fn refuse_api_versions(context: &Context<'_>) -> Result<Step> {
    api_versions::refuse(context)
}

fn decode<R: Request + Decode>(head: &Head, body: Bytes) -> Result<R> {
    decode_body(body, head.version).map_err(|error| error.context(format_args!("malformed {} request", head.key)))
}

/// Returns the error for a client of that version: clients that do not know PRODUCER_FENCED yet get
/// INVALID_PRODUCER_EPOCH (KIP-588).
fn fenced(error: ErrorCode, version: i16, knows_fenced: i16) -> ErrorCode {
    match error {
        ErrorCode::PRODUCER_FENCED if version < knows_fenced => ErrorCode::INVALID_PRODUCER_EPOCH,
        error => error,
    }
}

/// Converts text for a response.
fn text(value: impl Into<String>) -> ByteString {
    ByteString::from(value.into())
}

/// Converts a duration from a request; negative values count as 0.
fn millis(value: i32) -> std::time::Duration {
    std::time::Duration::from_millis(u64::try_from(value).unwrap_or(0))
}

/// The state of a call that has to wait for its group.
#[derive(Debug, Default)]
enum Progress {
    #[default]
    New,
    Waiting(Ticket),
}
