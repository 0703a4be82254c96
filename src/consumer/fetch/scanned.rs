//! A partition's part of a fetch response, after its batches were scanned.

use crate::{consumer::fetch::batch_scan::ScannedSlice, record::TopicPartition, wire::fetch::FetchPartitionResponse};

/// A partition's part of a fetch response, with the scan of its slice.
#[derive(Debug)]
pub(crate) struct ScannedPartition {
    /// The partition's response without its records.
    pub(crate) head: FetchPartitionResponse,
    pub(crate) scan: ScannedSlice,
}

impl ScannedPartition {
    /// Returns true if there are no records, no error and no other broker to read from.
    pub(crate) fn is_empty(&self) -> bool {
        self.head.error.is_ok() && self.scan.entries.is_empty() && self.head.preferred_read_replica < 0
    }
}

/// Changes of the cluster's metadata that a response implies.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct MetadataHints {
    pub(crate) refresh: bool,
    /// Partition, leader and leader epoch.
    pub(crate) leaders: Vec<(TopicPartition, i32, i32)>,
}
