//! A partition's part of a fetch response, after its batches were scanned.

use crate::{consumer::fetch::batch_scan::ScannedSlice, record::TopicPartition, wire::fetch::FetchPartitionResponse};

/// What came of one partition, and what its slice holds.
#[derive(Debug)]
pub(crate) struct ScannedPartition {
    /// Without its records.
    pub(crate) head: FetchPartitionResponse,
    pub(crate) scan: ScannedSlice,
}

impl ScannedPartition {
    /// Neither records nor an error, nor another broker to read from.
    pub(crate) fn is_empty(&self) -> bool {
        self.head.error.is_ok() && self.scan.entries.is_empty() && self.head.preferred_read_replica < 0
    }
}

/// What an answer asks of the cluster's metadata.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct MetadataHints {
    pub(crate) refresh: bool,
    /// Partition, leader, epoch.
    pub(crate) leaders: Vec<(TopicPartition, i32, i32)>,
}
