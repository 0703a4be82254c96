//! Counts the records that a reader has taken over but not delivered while it waits for a full
//! batch.
//!
//! Sans-IO.

use std::sync::Arc;

use crate::consumer::{
    buffer::fetched_batch::{BatchContent, FetchedBatch},
    fetch::memory_budget::BrokerQuota,
};

/// Reciprocal of the part of a broker's share that a reader may keep while it waits for more; the
/// rest is for batches that are fetched meanwhile.
const PART_OF_SHARE: usize = 4;

/// Counts of the records that wait with the reader.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    records: usize,
    /// Bytes by the quota to which they are charged: few entries, one for each broker.
    bytes: Vec<(Arc<BrokerQuota>, usize)>,
    /// True if an error or an end follows the records, which shows only when they are read.
    stops: bool,
}

impl Gathered {
    pub(crate) fn add(&mut self, batch: &FetchedBatch) {
        match &batch.content {
            BatchContent::Decoded(decoded) => {
                self.records += decoded.left;
                self.charge(decoded.quota(), batch.bytes.max(decoded.records.size()));
            }
            BatchContent::Encoded(encoded) => {
                // Records before `start` are not delivered. The number of records in a message
                // set's wrapper is not known yet.
                let all = usize::try_from(encoded.batch.header.record_count).unwrap_or(0).max(1);
                self.records += all.min(usize::try_from(batch.end - batch.start).unwrap_or(0));
                self.charge(encoded.reservation.quota(), batch.bytes);
            }
            BatchContent::Skip | BatchContent::Decompressing => {}
            BatchContent::Corrupt(_) | BatchContent::OutOfRange | BatchContent::LogEnd => self.stops = true,
        }
    }

    fn charge(&mut self, to: &Arc<BrokerQuota>, bytes: usize) {
        match self.bytes.iter_mut().find(|(quota, _)| Arc::ptr_eq(quota, to)) {
            Some((_, sum)) => *sum += bytes,
            None => self.bytes.push((to.clone(), bytes)),
        }
    }

    pub(crate) fn merge(&mut self, more: Self) {
        self.records += more.records;
        more.bytes.iter().for_each(|(quota, bytes)| self.charge(quota, *bytes));
        self.stops |= more.stops;
    }

    /// Returns the number of records that are missing until there are `records`; at least one.
    pub(crate) fn missing(&self, records: usize) -> usize {
        records.saturating_sub(self.records).max(1)
    }

    /// Returns true if waiting ends: there are `records` or more, or as many bytes as the reader
    /// may keep, or an error or end follows them.
    pub(crate) fn is_enough(&self, records: usize) -> bool {
        let full = |(quota, bytes): &(Arc<BrokerQuota>, usize)| *bytes >= quota.limit() / PART_OF_SHARE;
        self.records >= records || self.stops || self.bytes.iter().any(full)
    }
}
