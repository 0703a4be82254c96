//! Produce, written and read by hand: the request is a list of chunks in which the batches are not copied.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::batch::{ProducerStamp, SealedBatch};
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

/// Writes the request's body as chunks to be written one after the other: what is between the batches is in buffers of
/// its own, the batches' bodies are shared.
pub(crate) fn encode_produce(
    head: BytesMut,
    version: i16,
    transactional_id: Option<&str>,
    acks: i16,
    timeout_ms: i32,
    topics: &[ProduceTopic<'_>],
) -> Vec<Bytes> {
    let _ = (head, version, transactional_id, acks, timeout_ms, topics);
    unimplemented!()
}

/// The answer to a Produce request.
#[derive(Debug, Default)]
pub(crate) struct ProduceResponse {
    pub(crate) partitions: Vec<ProducePartitionResponse>,
    pub(crate) throttle_time_ms: i32,
    /// Brokers named by leader hints (KIP-951): node, host, port, rack.
    pub(crate) node_endpoints: Vec<super::fetch::NodeEndpoint>,
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
pub(crate) fn decode_produce(body: Bytes, version: i16) -> Result<ProduceResponse> {
    let _ = (body, version);
    unimplemented!()
}
