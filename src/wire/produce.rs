//! Produce, written and read by hand: the request is a list of chunks in which the batches are not copied.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    batch::{ProducerStamp, SealedBatch},
    fetch::{NodeEndpoint, read_endpoints, read_leader, read_topic},
    read::Reader,
    write::{put_length, put_no_tags, put_string},
};
use crate::error::{ErrorCode, Result};

/// One partition's batch in a request.
#[derive(Debug)]
pub(crate) struct ProducePartition<'a> {
    pub(crate) partition: i32,
    pub(crate) batch: &'a SealedBatch,
    pub(crate) stamp: ProducerStamp,
}

/// One topic in a request; `id` is what Produce v13 and newer ask for instead of the name.
#[derive(Debug)]
pub(crate) struct ProduceTopic<'a> {
    pub(crate) name: &'a Arc<str>,
    pub(crate) id: uuid::Uuid,
    pub(crate) partitions: Vec<ProducePartition<'a>>,
}

/// The versions that are written and read here.
pub(crate) const PRODUCE_VERSIONS: (i16, i16) = (3, 13);

/// The first version with compact lengths and tagged fields.
const FLEXIBLE: i16 = 9;
/// The first version whose answers name the records at fault (KIP-467).
const RECORD_ERRORS: i16 = 8;
/// The first version whose answers name new leaders (KIP-951).
const LEADER_HINTS: i16 = 10;
/// The first version with topic ids in the place of names.
const TOPIC_IDS: i16 = 13;

/// Writes the request's body as chunks to be written one after the other: what is between the batches is in buffers of
/// its own, the batches' bodies are shared. `head` may hold bytes already (a header); the body comes behind them.
///
/// # Errors
/// `InvalidArgument` for a name of more than 32,767 bytes or a batch of more than 2 GiB.
pub(crate) fn encode_produce(
    mut head: BytesMut,
    version: i16,
    transactional_id: Option<&str>,
    acks: i16,
    timeout_ms: i32,
    topics: &[ProduceTopic<'_>],
) -> Result<Vec<Bytes>> {
    let flexible = version >= FLEXIBLE;
    let out = &mut head;
    let mut chunks = Vec::with_capacity(1 + 2 * topics.iter().map(|topic| topic.partitions.len()).sum::<usize>());
    put_string(out, transactional_id, flexible)?;
    out.put_i16(acks);
    out.put_i32(timeout_ms);
    put_length(out, topics.len(), flexible)?;
    for topic in topics {
        if version >= TOPIC_IDS {
            out.put_slice(topic.id.as_bytes());
        } else {
            put_string(out, Some(topic.name), flexible)?;
        }
        put_length(out, topic.partitions.len(), flexible)?;
        for partition in &topic.partitions {
            out.put_i32(partition.partition);
            put_length(out, partition.batch.size(), flexible)?;
            out.put_slice(&partition.batch.header(partition.stamp));
            chunks.push(out.split().freeze());
            chunks.push(partition.batch.body().clone());
            put_no_tags(out, flexible);
        }
        put_no_tags(out, flexible);
    }
    put_no_tags(out, flexible);
    if !out.is_empty() {
        chunks.push(head.freeze());
    }
    Ok(chunks)
}

/// The answer to a Produce request.
#[derive(Debug, Default)]
pub(crate) struct ProduceResponse {
    pub(crate) partitions: Vec<ProducePartitionResponse>,
    pub(crate) throttle_time_ms: i32,
    /// Brokers named by leader hints (KIP-951): node, host, port, rack.
    pub(crate) node_endpoints: Vec<NodeEndpoint>,
}

/// The answer for one partition.
#[derive(Debug)]
pub(crate) struct ProducePartitionResponse {
    /// The topic's name, empty from v13 on.
    pub(crate) topic: String,
    /// The topic's id, nil before v13.
    pub(crate) topic_id: uuid::Uuid,
    pub(crate) partition: i32,
    pub(crate) error: ErrorCode,
    pub(crate) base_offset: i64,
    /// −1 unless the topic uses LogAppendTime.
    pub(crate) log_append_time_ms: i64,
    pub(crate) log_start_offset: i64,
    /// Records that the broker found at fault, by index in the batch (KIP-467).
    pub(crate) record_errors: Vec<(i32, Option<String>)>,
    pub(crate) error_message: Option<String>,
    /// (leader id, leader epoch), where the broker names the new leader (v10 and newer).
    pub(crate) current_leader: Option<(i32, i32)>,
}

/// Reads the body of the answer.
///
/// # Errors
/// `Protocol` for bytes that are not such an answer; nothing is reserved by the lengths they say.
pub(crate) fn decode_produce(body: Bytes, version: i16) -> Result<ProduceResponse> {
    let mut reader = Reader::new(&body);
    read_response(&mut reader, version)
        .map_err(|error| error.context(format_args!("Produce version {version} response")))
}

fn read_response(reader: &mut Reader<'_>, version: i16) -> Result<ProduceResponse> {
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

fn read_partition(
    reader: &mut Reader<'_>,
    version: i16,
    topic: &str,
    topic_id: uuid::Uuid,
) -> Result<ProducePartitionResponse> {
    let flexible = version >= FLEXIBLE;
    let mut partition = ProducePartitionResponse {
        topic: topic.to_owned(),
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
