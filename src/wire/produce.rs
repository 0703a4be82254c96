//! Produce, encoded and decoded by hand: the request is a list of chunks, and the batches are not
//! copied.

use bytes::{BufMut, BytesMut};
use smallvec::SmallVec;

use super::{
    batch::{BATCH_HEADER_SIZE, ProducerStamp, SealedBatch},
    fetch::{NodeEndpoint, read_endpoints, read_leader, read_topic},
    frame::Inserts,
    read::Reader,
    varint::MAX_32,
    write::{put_length, put_no_tags, put_string},
};
use crate::error::{ErrorCode, Result};

/// One partition's batch in a request. Produce v13 and newer use `topic_id` instead of the name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProducePart<'a> {
    pub(crate) topic: &'a str,
    pub(crate) topic_id: uuid::Uuid,
    pub(crate) partition: i32,
    pub(crate) batch: &'a SealedBatch,
    pub(crate) stamp: ProducerStamp,
}

/// The supported versions.
pub(crate) const PRODUCE_VERSIONS: (i16, i16) = (3, 13);

/// The first version with compact lengths and tagged fields.
const FLEXIBLE: i16 = 9;
/// The first version that names the records at fault in its responses (KIP-467).
const RECORD_ERRORS: i16 = 8;
/// The first version that names new leaders in its responses (KIP-951).
const LEADER_HINTS: i16 = 10;
/// The first version with topic ids instead of names.
const TOPIC_IDS: i16 = 13;

/// Writes the request's body after the bytes in `out` (a header). Returns the batches' bodies,
/// which are shared, with their positions in it.
///
/// The parts of a topic must be adjacent; later parts of the same name would be encoded as another
/// topic.
///
/// # Errors
/// `InvalidArgument` for a name of more than 32,767 bytes or a batch of more than 2 GiB.
pub(crate) fn encode_produce<'a>(
    out: &mut BytesMut,
    version: i16,
    transactional_id: Option<&str>,
    acks: i16,
    timeout_ms: i32,
    parts: impl Iterator<Item = ProducePart<'a>> + Clone,
) -> Result<Inserts> {
    let flexible = version >= FLEXIBLE;
    let (topics, batches, size) = measure(parts.clone());
    let mut bodies = Inserts::with_capacity(batches);
    put_string(out, transactional_id, flexible)?;
    out.put_i16(acks);
    out.put_i32(timeout_ms);
    put_length(out, topics, flexible)?;
    out.reserve(size);
    let mut rest = parts;
    while let Some(first) = rest.clone().next() {
        if version >= TOPIC_IDS {
            out.put_slice(first.topic_id.as_bytes());
        } else {
            put_string(out, Some(first.topic), flexible)?;
        }
        let count = rest.clone().take_while(|part| part.topic == first.topic).count();
        put_length(out, count, flexible)?;
        for part in rest.by_ref().take(count) {
            out.put_i32(part.partition);
            put_length(out, part.batch.size(), flexible)?;
            out.put_slice(&part.batch.header(part.stamp));
            bodies.push((out.len(), part.batch.body().clone()));
            put_no_tags(out, flexible);
        }
        put_no_tags(out, flexible);
    }
    put_no_tags(out, flexible);
    Ok(bodies)
}

/// Returns the number of topics, the number of batches, and an upper bound of the bytes after the
/// number of topics that are not in a batch's body.
fn measure<'a>(parts: impl Iterator<Item = ProducePart<'a>>) -> (usize, usize, usize) {
    let (mut topics, mut batches, mut size) = (0, 0, 2 * MAX_32);
    let mut last = None;
    for part in parts {
        batches += 1;
        // Its number, the length of its batch, the batch's header, no tags.
        size += 4 + MAX_32 + BATCH_HEADER_SIZE + 1;
        if last != Some(part.topic) {
            last = Some(part.topic);
            topics += 1;
            size += part.topic.len().max(16) + 2 * MAX_32 + 1;
        }
    }
    (topics, batches, size)
}

/// The response to a Produce request.
#[derive(Debug, Default)]
pub(crate) struct ProduceResponse<'a> {
    /// The partitions; up to four fit without an allocation.
    pub(crate) partitions: SmallVec<[ProducePartitionResponse<'a>; 4]>,
    pub(crate) throttle_time_ms: i32,
    /// Brokers that leader hints name (KIP-951): node, host, port, rack.
    pub(crate) node_endpoints: Vec<NodeEndpoint>,
}

/// The result of one partition.
#[derive(Debug)]
pub(crate) struct ProducePartitionResponse<'a> {
    /// The topic's name, empty from v13 on.
    pub(crate) topic: &'a str,
    /// The topic's id, nil before v13.
    pub(crate) topic_id: uuid::Uuid,
    pub(crate) partition: i32,
    pub(crate) error: ErrorCode,
    pub(crate) base_offset: i64,
    /// −1 unless the topic uses LogAppendTime.
    pub(crate) log_append_time_ms: i64,
    pub(crate) log_start_offset: i64,
    /// Records that the broker found invalid, by index in the batch (KIP-467).
    pub(crate) record_errors: Vec<(i32, Option<String>)>,
    pub(crate) error_message: Option<String>,
    /// (leader id, leader epoch), if the broker names the new leader (v10 and newer).
    pub(crate) current_leader: Option<(i32, i32)>,
}

/// Decodes the body of the response.
///
/// # Errors
/// `Protocol` for bytes that are not such a response; no length in them reserves memory.
pub(crate) fn decode_produce(body: &[u8], version: i16) -> Result<ProduceResponse<'_>> {
    let mut reader = Reader::new(body);
    read_response(&mut reader, version)
        .map_err(|error| error.context(format_args!("Produce version {version} response")))
}

fn read_response<'a>(reader: &mut Reader<'a>, version: i16) -> Result<ProduceResponse<'a>> {
    let flexible = version >= FLEXIBLE;
    let mut response = ProduceResponse::default();
    for _ in 0..reader.count(flexible)? {
        let (topic, topic_id) = read_topic(reader, version >= TOPIC_IDS, flexible)?;
        for _ in 0..reader.count(flexible)? {
            response.partitions.push(read_partition(reader, version, topic, topic_id)?);
        }
        reader.skip_tagged(flexible)?;
    }
    response.throttle_time_ms = reader.i32()?;
    reader.tagged(flexible, |tag, part| {
        if tag == 0 && version >= LEADER_HINTS {
            response.node_endpoints = read_endpoints(part)?;
        }
        Ok(())
    })?;
    reader.end()?;
    Ok(response)
}

fn read_partition<'a>(
    reader: &mut Reader<'a>,
    version: i16,
    topic: &'a str,
    topic_id: uuid::Uuid,
) -> Result<ProducePartitionResponse<'a>> {
    let flexible = version >= FLEXIBLE;
    let mut partition = ProducePartitionResponse {
        topic,
        topic_id,
        partition: reader.i32()?,
        error: ErrorCode::new(reader.i16()?),
        base_offset: reader.i64()?,
        log_append_time_ms: reader.i64()?,
        log_start_offset: if version >= 5 { reader.i64()? } else { -1 },
        record_errors: Vec::new(),
        error_message: None,
        current_leader: None,
    };
    if version >= RECORD_ERRORS {
        for _ in 0..reader.count(flexible)? {
            let error = (reader.i32()?, reader.string(flexible)?.map(str::to_owned));
            reader.skip_tagged(flexible)?;
            partition.record_errors.push(error);
        }
        partition.error_message = reader.string(flexible)?.map(str::to_owned);
    }
    reader.tagged(flexible, |tag, part| {
        if tag == 0 && version >= LEADER_HINTS {
            partition.current_leader = read_leader(part)?;
        }
        Ok(())
    })?;
    Ok(partition)
}

#[cfg(test)]
mod tests;
