//! Committed offsets, and the checks of a commit.

use std::time::Instant;

use super::{Group, GroupSettings, MemberIdentity, Phase};
use crate::error::ErrorCode;

/// A group's commit for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) offset: i64,
    /// −1 if the consumer did not know it.
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: String,
}

impl Group {
    /// Returns true if no member ever joined: the group is answered like one that does not exist.
    pub(crate) fn is_unknown(&self) -> bool {
        self.members.is_empty() && self.generation == 0
    }

    /// Checks whether that member, in that generation, may commit now. A negative generation is a
    /// consumer without membership, which may commit only while the group has no members.
    pub(crate) fn may_commit(
        &mut self,
        now: Instant,
        identity: &MemberIdentity,
        generation: i32,
        settings: &GroupSettings,
    ) -> Result<(), ErrorCode> {
        self.advance(now, settings);
        if self.members.is_empty() && generation < 0 {
            return Ok(());
        }
        if self.is_unknown() {
            return Err(ErrorCode::ILLEGAL_GENERATION);
        }
        let at = self.check_identity(identity)?;
        self.check_generation(generation)?;
        if let Some(member) = self.members.get_mut(at) {
            member.heard(now);
        }
        match self.phase {
            Phase::Completing { .. } => Err(ErrorCode::REBALANCE_IN_PROGRESS),
            _ => Ok(()),
        }
    }

    pub(crate) fn commit(&mut self, topic: &str, partition: i32, committed: Committed) {
        self.offsets.insert((topic.to_owned(), partition), committed);
    }

    pub(crate) fn committed(&self, topic: &str, partition: i32) -> Option<&Committed> {
        self.offsets.get(&(topic.to_owned(), partition))
    }

    /// Returns all commits, in the order of topics and partitions.
    pub(crate) fn all_committed(&self) -> impl Iterator<Item = (&str, i32, &Committed)> {
        self.offsets.iter().map(|((topic, partition), committed)| (topic.as_str(), *partition, committed))
    }

    /// Removes the commits for a topic that was deleted.
    pub(crate) fn forget_topic(&mut self, topic: &str) {
        self.offsets.retain(|(name, _), _| name != topic);
    }
}
