//! Fetch, written and read by hand: the records of each partition are slices of the response.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::error::{ErrorCode, Result};

/// The versions that are written and read here.
pub(crate) const FETCH_VERSIONS: (i16, i16) = (4, 17);

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
    pub(crate) id: uuid::Uuid,
    pub(crate) partitions: Vec<FetchPartition>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FetchPartition {
    pub(crate) partition: i32,
    /// −1 where not known.
    pub(crate) current_leader_epoch: i32,
    pub(crate) fetch_offset: i64,
    /// −1 where not known (v12 and newer).
    pub(crate) last_fetched_epoch: i32,
    /// −1: not known.
    pub(crate) log_start_offset: i64,
    pub(crate) max_bytes: i32,
}

#[derive(Clone, Debug)]
pub(crate) struct ForgottenTopic {
    pub(crate) name: Arc<str>,
    pub(crate) id: uuid::Uuid,
    pub(crate) partitions: Vec<i32>,
}

/// Appends the request's body.
pub(crate) fn encode_fetch(out: &mut BytesMut, version: i16, request: &FetchRequest) {
    let _ = (out, version, request);
    unimplemented!()
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
    pub(crate) topic_id: uuid::Uuid,
    pub(crate) partition: i32,
    pub(crate) error: ErrorCode,
    pub(crate) high_watermark: i64,
    pub(crate) last_stable_offset: i64,
    pub(crate) log_start_offset: i64,
    /// (producer id, first offset); may be unsorted.
    pub(crate) aborted_transactions: Vec<(i64, i64)>,
    /// −1: none.
    pub(crate) preferred_read_replica: i32,
    /// (epoch, end offset) where the broker saw a divergence (KIP-595).
    pub(crate) diverging_epoch: Option<(i32, i64)>,
    /// (leader id, leader epoch), where the broker names the new leader.
    pub(crate) current_leader: Option<(i32, i32)>,
    /// A slice of the response.
    pub(crate) records: Bytes,
}

/// A broker named by an error response (KIP-951).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeEndpoint {
    pub(crate) node: i32,
    pub(crate) host: String,
    pub(crate) port: i32,
    pub(crate) rack: Option<String>,
}

/// Reads the body of the answer without copying records.
pub(crate) fn decode_fetch(body: Bytes, version: i16) -> Result<FetchResponse> {
    let _ = (body, version);
    unimplemented!()
}
