//! Fetch, encoded and decoded by hand: the records of each partition are slices of the response.

use std::{borrow::Cow, collections::HashSet, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use super::{
    read::Reader,
    write::{put_length, put_no_tags, put_string},
};
use crate::error::{ErrorCode, Result};

/// The supported versions.
pub(crate) const FETCH_VERSIONS: (i16, i16) = (4, 18);

/// The first version with incremental sessions (KIP-227).
const SESSIONS: i16 = 7;
/// The first version with the consumer's rack (KIP-392).
const RACKS: i16 = 11;
/// The first version with compact lengths and tagged fields.
const FLEXIBLE: i16 = 12;
/// The first version with topic ids instead of names (KIP-516).
const TOPIC_IDS: i16 = 13;
/// The first version that omits a consumer's replica id (KIP-903). 17 and 18 add fields of replicas
/// only.
const REPLICA_STATE: i16 = 15;
/// The first version with the new leaders' addresses in its responses (KIP-951).
const ENDPOINTS: i16 = 16;

/// A Fetch request. Topics are by name before v13, by id from v13 on.
#[derive(Clone, Debug)]
pub(crate) struct FetchRequest {
    pub(crate) max_wait_ms: i32,
    pub(crate) min_bytes: i32,
    pub(crate) max_bytes: i32,
    /// 0: read_uncommitted, 1: read_committed.
    pub(crate) isolation_level: i8,
    pub(crate) session_id: i32,
    pub(crate) session_epoch: i32,
    pub(crate) topics: Vec<FetchTopic>,
    pub(crate) forgotten: Vec<ForgottenTopic>,
    pub(crate) rack_id: String,
}

#[derive(Clone, Debug)]
pub(crate) struct FetchTopic {
    pub(crate) name: Arc<str>,
    pub(crate) id: Uuid,
    pub(crate) partitions: Vec<FetchPartition>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FetchPartition {
    pub(crate) partition: i32,
    /// −1 if unknown.
    pub(crate) current_leader_epoch: i32,
    pub(crate) fetch_offset: i64,
    pub(crate) max_bytes: i32,
}

#[derive(Clone, Debug)]
pub(crate) struct ForgottenTopic {
    pub(crate) name: Arc<str>,
    pub(crate) id: Uuid,
    pub(crate) partitions: Vec<i32>,
}

impl FetchRequest {
    /// Returns the partitions to be forgotten, in that version. A topic that was deleted and
    /// created again is requested under its new id and forgotten under its old one. By name the two
    /// are the same topic, and a broker applies the forgotten topics last: it would forget a
    /// partition that the same request adds.
    pub(crate) fn forgotten_in(&self, version: i16) -> Cow<'_, [ForgottenTopic]> {
        if version >= TOPIC_IDS || self.forgotten.is_empty() {
            return Cow::Borrowed(&self.forgotten);
        }
        let asked: HashSet<(&str, i32)> = self
            .topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(|asked| (&*topic.name, asked.partition)))
            .collect();
        let left = self.forgotten.iter().map(|topic| {
            let partitions =
                topic.partitions.iter().copied().filter(|partition| !asked.contains(&(&*topic.name, *partition)));
            ForgottenTopic { name: topic.name.clone(), id: topic.id, partitions: partitions.collect() }
        });
        left.filter(|topic| !topic.partitions.is_empty()).collect()
    }
}

/// Appends the request's body.
///
/// # Errors
/// `InvalidArgument` for a name of more than 32,767 bytes.
pub(crate) fn encode_fetch(out: &mut BytesMut, version: i16, request: &FetchRequest) -> Result<()> {
    let flexible = version >= FLEXIBLE;
    if version < REPLICA_STATE {
        // The replica id of a consumer. In later versions it is a tagged field, which a consumer
        // omits.
        out.put_i32(-1);
    }
    out.put_i32(request.max_wait_ms);
    out.put_i32(request.min_bytes);
    out.put_i32(request.max_bytes);
    out.put_i8(request.isolation_level);
    if version >= SESSIONS {
        out.put_i32(request.session_id);
        out.put_i32(request.session_epoch);
    }
    put_length(out, request.topics.len(), flexible)?;
    for topic in &request.topics {
        put_topic(out, version, &topic.name, topic.id)?;
        put_length(out, topic.partitions.len(), flexible)?;
        for partition in &topic.partitions {
            put_partition(out, version, partition);
        }
        put_no_tags(out, flexible);
    }
    if version >= SESSIONS {
        let forgotten = request.forgotten_in(version);
        put_length(out, forgotten.len(), flexible)?;
        for topic in forgotten.iter() {
            put_topic(out, version, &topic.name, topic.id)?;
            put_length(out, topic.partitions.len(), flexible)?;
            for &partition in &topic.partitions {
                out.put_i32(partition);
            }
            put_no_tags(out, flexible);
        }
    }
    if version >= RACKS {
        put_string(out, Some(&request.rack_id), flexible)?;
    }
    put_no_tags(out, flexible);
    Ok(())
}

fn put_topic(out: &mut BytesMut, version: i16, name: &str, id: Uuid) -> Result<()> {
    if version >= TOPIC_IDS {
        out.put_slice(id.as_bytes());
        return Ok(());
    }
    put_string(out, Some(name), version >= FLEXIBLE)
}

fn put_partition(out: &mut BytesMut, version: i16, partition: &FetchPartition) {
    out.put_i32(partition.partition);
    if version >= 9 {
        out.put_i32(partition.current_leader_epoch);
    }
    out.put_i64(partition.fetch_offset);
    // The last fetched epoch and the log start offset, for followers. Consumers look up the end of
    // an epoch with OffsetForLeaderEpoch (KIP-320).
    if version >= 12 {
        out.put_i32(-1);
    }
    if version >= 5 {
        out.put_i64(-1);
    }
    out.put_i32(partition.max_bytes);
    put_no_tags(out, version >= FLEXIBLE);
}

#[derive(Debug, Default)]
pub(crate) struct FetchResponse {
    pub(crate) throttle_time_ms: i32,
    pub(crate) error: ErrorCode,
    pub(crate) session_id: i32,
    pub(crate) partitions: Vec<FetchPartitionResponse>,
    pub(crate) node_endpoints: Vec<NodeEndpoint>,
}

#[derive(Debug)]
pub(crate) struct FetchPartitionResponse {
    /// Empty from v13 on.
    pub(crate) topic: Arc<str>,
    /// Nil before v13.
    pub(crate) topic_id: Uuid,
    pub(crate) partition: i32,
    pub(crate) error: ErrorCode,
    pub(crate) high_watermark: i64,
    pub(crate) last_stable_offset: i64,
    pub(crate) log_start_offset: i64,
    /// (producer id, first offset); may be unsorted.
    pub(crate) aborted_transactions: Vec<(i64, i64)>,
    /// −1 for none.
    pub(crate) preferred_read_replica: i32,
    /// (leader id, leader epoch), if the broker names the new leader.
    pub(crate) current_leader: Option<(i32, i32)>,
    /// A slice of the response.
    pub(crate) records: Bytes,
}

/// A broker that an error response names (KIP-951).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeEndpoint {
    pub(crate) node: i32,
    pub(crate) host: String,
    pub(crate) port: i32,
    pub(crate) rack: Option<String>,
}

/// Decodes the body of the response without copying records.
///
/// # Errors
/// `Protocol` for bytes that are not such a response; no length in them reserves memory.
pub(crate) fn decode_fetch(body: Bytes, version: i16) -> Result<FetchResponse> {
    read_response(&body, version).map_err(|error| error.context(format_args!("Fetch version {version} response")))
}

fn read_response(body: &Bytes, version: i16) -> Result<FetchResponse> {
    let flexible = version >= FLEXIBLE;
    let reader = &mut Reader::new(body);
    let mut response = FetchResponse { throttle_time_ms: reader.i32()?, ..FetchResponse::default() };
    if version >= SESSIONS {
        response.error = ErrorCode::new(reader.i16()?);
        response.session_id = reader.i32()?;
    }
    for _ in 0..reader.count(flexible)? {
        let (name, id) = read_topic(reader, version >= TOPIC_IDS, flexible)?;
        let name = Arc::from(name);
        for _ in 0..reader.count(flexible)? {
            response.partitions.push(read_partition(reader, body, version, &name, id)?);
        }
        reader.skip_tagged(flexible)?;
    }
    reader.tagged(flexible, |tag, part| {
        if tag == 0 && version >= ENDPOINTS {
            response.node_endpoints = read_endpoints(part)?;
        }
        Ok(())
    })?;
    reader.end()?;
    Ok(response)
}

fn read_partition(
    reader: &mut Reader<'_>,
    body: &Bytes,
    version: i16,
    topic: &Arc<str>,
    topic_id: Uuid,
) -> Result<FetchPartitionResponse> {
    let flexible = version >= FLEXIBLE;
    let mut partition = FetchPartitionResponse {
        topic: topic.clone(),
        topic_id,
        partition: reader.i32()?,
        error: ErrorCode::new(reader.i16()?),
        high_watermark: reader.i64()?,
        last_stable_offset: reader.i64()?,
        log_start_offset: if version >= 5 { reader.i64()? } else { -1 },
        aborted_transactions: Vec::new(),
        preferred_read_replica: -1,
        current_leader: None,
        records: Bytes::new(),
    };
    for _ in 0..reader.count(flexible)? {
        let transaction = (reader.i64()?, reader.i64()?);
        reader.skip_tagged(flexible)?;
        partition.aborted_transactions.push(transaction);
    }
    if version >= RACKS {
        partition.preferred_read_replica = reader.i32()?;
    }
    if let Some(range) = reader.bytes(flexible)? {
        partition.records = body.slice(range);
    }
    reader.tagged(flexible, |tag, part| {
        if tag == 1 {
            partition.current_leader = read_leader(part)?;
        }
        Ok(())
    })?;
    Ok(partition)
}

/// Reads a topic's name (empty if there is an id) and id (nil if there is a name).
pub(super) fn read_topic<'a>(reader: &mut Reader<'a>, by_id: bool, flexible: bool) -> Result<(&'a str, Uuid)> {
    if by_id { Ok(("", reader.uuid()?)) } else { Ok((reader.text(flexible)?, Uuid::nil())) }
}

/// Reads a leader and its epoch; `None` if the broker does not know them.
pub(super) fn read_leader(reader: &mut Reader<'_>) -> Result<Option<(i32, i32)>> {
    let (leader, epoch) = (reader.i32()?, reader.i32()?);
    Ok((leader >= 0).then_some((leader, epoch)))
}

/// Reads the brokers in a tagged field of a flexible version.
pub(super) fn read_endpoints(reader: &mut Reader<'_>) -> Result<Vec<NodeEndpoint>> {
    let mut endpoints = Vec::new();
    for _ in 0..reader.count(true)? {
        endpoints.push(NodeEndpoint {
            node: reader.i32()?,
            host: reader.text(true)?.to_owned(),
            port: reader.i32()?,
            rack: reader.string(true)?.map(str::to_owned),
        });
        reader.skip_tagged(true)?;
    }
    Ok(endpoints)
}

#[cfg(test)]
mod tests;
