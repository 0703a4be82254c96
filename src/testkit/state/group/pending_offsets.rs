//! Offsets that were committed in transactions which have not ended yet (KIP-98, KIP-447).
//!
//! Sans-IO.

use std::collections::{BTreeMap, HashMap};

use super::committed::{Committed, Written};
use crate::{error::ErrorCode, testkit::state::producers::Marker};

type Offsets = BTreeMap<(String, i32), Written>;

/// The offsets of one group, by the producers of their transactions.
#[derive(Debug, Default)]
pub(crate) struct PendingOffsets {
    pending: BTreeMap<i64, Offsets>,
    /// The last epoch that the group has seen of each producer.
    epochs: HashMap<i64, i16>,
}

impl PendingOffsets {
    /// Returns true if the transaction coordinator has to be asked before offsets of that producer
    /// are accepted, because they are the first of its transaction in this group.
    pub(crate) fn needs_verification(&self, producer_id: i64, epoch: i16) -> Result<bool, ErrorCode> {
        match self.epochs.get(&producer_id) {
            Some(&known) if epoch < known => Err(ErrorCode::INVALID_PRODUCER_EPOCH),
            Some(&known) => Ok(epoch != known || !self.pending.contains_key(&producer_id)),
            None => Ok(true),
        }
    }

    /// Stores an offset until the transaction ends.
    pub(super) fn store(&mut self, producer_id: i64, epoch: i16, partition: (String, i32), written: Written) {
        self.epochs.insert(producer_id, epoch);
        self.pending.entry(producer_id).or_default().insert(partition, written);
    }

    /// Ends a producer's transaction, and returns its offsets if it was committed. A marker of an
    /// older epoch changes nothing.
    pub(super) fn end(&mut self, marker: &Marker) -> Offsets {
        if self.epochs.get(&marker.producer_id).is_some_and(|&known| marker.epoch < known) {
            return Offsets::new();
        }
        self.epochs.insert(marker.producer_id, marker.epoch);
        let ended = self.pending.remove(&marker.producer_id).unwrap_or_default();
        if marker.committed { ended } else { Offsets::new() }
    }

    /// Returns the offset of a partition that a transaction has committed which has not ended.
    pub(crate) fn of(&self, topic: &str, partition: i32) -> Option<&Committed> {
        let key = (topic.to_owned(), partition);
        self.pending.values().find_map(|offsets| Some(&offsets.get(&key)?.committed))
    }

    /// Removes the offsets of a topic that was deleted.
    pub(super) fn forget_topic(&mut self, topic: &str) {
        for offsets in self.pending.values_mut() {
            offsets.retain(|(name, _), _| name != topic);
        }
    }
}
