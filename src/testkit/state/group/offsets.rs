//! Offsets that a group committed, in transactions and outside of them.
//!
//! Sans-IO.

use std::collections::BTreeMap;

use super::{
    committed::{Committed, Written},
    pending_offsets::PendingOffsets,
};
use crate::testkit::state::producers::Marker;

/// The last commit for each partition, and those of transactions that have not ended.
#[derive(Debug, Default)]
pub(crate) struct CommittedOffsets {
    committed: BTreeMap<(String, i32), Written>,
    pending: PendingOffsets,
    /// Number of commits of partitions so far.
    commits: u64,
}

impl CommittedOffsets {
    pub(crate) fn commit(&mut self, topic: &str, partition: i32, committed: Committed) {
        let written = self.written(committed);
        self.committed.insert((topic.to_owned(), partition), written);
    }

    /// Commits an offset in the transaction of a producer: it counts once the transaction is
    /// committed.
    pub(crate) fn commit_in_transaction(
        &mut self,
        (producer_id, epoch): (i64, i16),
        topic: &str,
        partition: i32,
        committed: Committed,
    ) {
        let written = self.written(committed);
        self.pending.store(producer_id, epoch, (topic.to_owned(), partition), written);
    }

    /// Ends the transaction of a producer. A commit that came after the transaction's own for the
    /// same partition stays.
    pub(crate) fn end_transaction(&mut self, marker: &Marker) {
        for (partition, written) in self.pending.end(marker) {
            if self.committed.get(&partition).is_none_or(|present| present.order < written.order) {
                self.committed.insert(partition, written);
            }
        }
    }

    /// Returns the offsets of transactions that have not ended.
    pub(crate) fn pending(&self) -> &PendingOffsets {
        &self.pending
    }

    pub(crate) fn get(&self, topic: &str, partition: i32) -> Option<&Committed> {
        self.committed.get(&(topic.to_owned(), partition)).map(|written| &written.committed)
    }

    /// Returns all commits, in the order of topics and partitions.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, i32, &Committed)> {
        self.committed.iter().map(|((topic, partition), written)| (topic.as_str(), *partition, &written.committed))
    }

    /// Removes the commits for a topic that was deleted.
    pub(crate) fn forget_topic(&mut self, topic: &str) {
        self.committed.retain(|(name, _), _| name != topic);
        self.pending.forget_topic(topic);
    }

    fn written(&mut self, committed: Committed) -> Written {
        self.commits += 1;
        Written { order: self.commits, committed }
    }
}
