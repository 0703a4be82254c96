//! Offsets that a group committed.
//!
//! Sans-IO.

use std::collections::BTreeMap;

/// A group's commit for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) offset: i64,
    /// −1 if the consumer did not know it.
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: String,
}

/// The last commit for each partition.
#[derive(Debug, Default)]
pub(crate) struct CommittedOffsets(BTreeMap<(String, i32), Committed>);

impl CommittedOffsets {
    pub(crate) fn commit(&mut self, topic: &str, partition: i32, committed: Committed) {
        self.0.insert((topic.to_owned(), partition), committed);
    }

    pub(crate) fn get(&self, topic: &str, partition: i32) -> Option<&Committed> {
        self.0.get(&(topic.to_owned(), partition))
    }

    /// Returns all commits, in the order of topics and partitions.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, i32, &Committed)> {
        self.0.iter().map(|((topic, partition), committed)| (topic.as_str(), *partition, committed))
    }

    /// Removes the commits for a topic that was deleted.
    pub(crate) fn forget_topic(&mut self, topic: &str) {
        self.0.retain(|(name, _), _| name != topic);
    }
}
