//! Committed offsets, in transactions and outside of them, and the checks of a commit.

use std::time::Instant;

use super::{Committed, Group, GroupSettings, MemberIdentity, PendingOffsets, Phase, committed::Written};
use crate::{error::ErrorCode, testkit::state::producers::Marker};

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

    /// Checks whether that member, in that generation, may commit offsets in a transaction now
    /// (KIP-447). A request that names neither a member nor a generation may do so at any time.
    pub(crate) fn may_commit_in_transaction(
        &mut self,
        now: Instant,
        identity: &MemberIdentity,
        generation: i32,
        settings: &GroupSettings,
    ) -> Result<(), ErrorCode> {
        self.advance(now, settings);
        let names_member = generation >= 0 || !identity.member_id.is_empty() || identity.instance.is_some();
        if !names_member || (self.members.is_empty() && generation < 0) {
            return Ok(());
        }
        if self.is_unknown() {
            return Err(ErrorCode::ILLEGAL_GENERATION);
        }
        self.check_identity(identity)?;
        self.check_generation(generation)
    }

    pub(crate) fn commit(&mut self, topic: &str, partition: i32, committed: Committed) {
        let written = self.written(committed);
        self.offsets.insert((topic.to_owned(), partition), written);
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
        self.pending_offsets.store(producer_id, epoch, (topic.to_owned(), partition), written);
    }

    /// Ends the transaction of a producer. A commit that came after the transaction's own for the
    /// same partition stays.
    pub(crate) fn end_transaction(&mut self, marker: &Marker) {
        for (partition, written) in self.pending_offsets.end(marker) {
            if self.offsets.get(&partition).is_none_or(|present| present.order < written.order) {
                self.offsets.insert(partition, written);
            }
        }
    }

    /// Returns the offsets of transactions that have not ended.
    pub(crate) fn pending_offsets(&self) -> &PendingOffsets {
        &self.pending_offsets
    }

    pub(crate) fn committed(&self, topic: &str, partition: i32) -> Option<&Committed> {
        self.offsets.get(&(topic.to_owned(), partition)).map(|written| &written.committed)
    }

    /// Returns all commits, in the order of topics and partitions.
    pub(crate) fn all_committed(&self) -> impl Iterator<Item = (&str, i32, &Committed)> {
        self.offsets.iter().map(|((topic, partition), written)| (topic.as_str(), *partition, &written.committed))
    }

    /// Removes the commits for a topic that was deleted.
    pub(crate) fn forget_topic(&mut self, topic: &str) {
        self.offsets.retain(|(name, _), _| name != topic);
        self.pending_offsets.forget_topic(topic);
    }

    fn written(&mut self, committed: Committed) -> Written {
        self.commits += 1;
        Written { order: self.commits, committed }
    }
}
