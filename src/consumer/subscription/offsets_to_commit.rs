//! The offsets of partitions that are to be committed, and the progress of commits.
//!
//! Sans-IO.

use crate::consumer::{
    OffsetAndMetadata,
    group::{CommitEvent, CommittedOffset},
    subscription::{
        delivery_progress::DeliveryProgress, partition_commits::PartitionCommits, partition_state::PartitionState,
        partitions::Partitions,
    },
};
use crate::record::TopicPartition;

/// Handles the progress of a commit.
pub(crate) fn handle_commit_event(partitions: &mut Partitions, event: CommitEvent) {
    let mut each = |names: Vec<TopicPartition>, change: fn(&mut PartitionCommits)| {
        for partition in names {
            if let Some(state) = partitions.get_mut(&partition) {
                change(&mut state.commits);
            }
        }
    };
    match event {
        CommitEvent::Sent(names) => each(names, PartitionCommits::sent),
        CommitEvent::Refused(names) => each(names, PartitionCommits::refused),
        CommitEvent::Committed(committed) => {
            for CommittedOffset { partition, offset, topic_id, origin } in committed {
                if let Some(state) = partitions.get_mut(&partition).filter(|state| state.topic_id == topic_id) {
                    // A commit that was requested before the last reposition says nothing about the
                    // records that were read since.
                    let by_user = origin.by_user && origin.seek_epoch >= state.position.seek_epoch();
                    state.commits.committed(offset, by_user);
                }
            }
        }
    }
}

/// Returns true if the group is known to have that offset.
pub(crate) fn is_committed(partitions: &Partitions, partition: &TopicPartition, offset: &OffsetAndMetadata) -> bool {
    partitions.get(partition).is_some_and(|state| state.commits.is_committed(offset.offset))
}

/// Returns the completed offsets of these partitions (of all, without a list) that differ from the
/// known committed offsets. Omits a partition if the user has committed as much, or if `on_revoked`
/// was called for it, because the user has the last word on its offset there.
pub(crate) fn completed_offsets(
    partitions: &Partitions,
    only: Option<&[TopicPartition]>,
) -> Vec<(TopicPartition, OffsetAndMetadata)> {
    offsets(partitions, only, |_, state, progress| {
        let completed = progress.completed();
        let is_the_users = state.revocation_announced || state.commits.covers_by_user(completed);
        (!state.topic_missing && !is_the_users && !state.commits.is_committed(completed)).then_some(completed)
    })
}

/// Returns the delivered offsets of these partitions (of all, without a list), whatever is
/// committed. Without a list, records that the readers of split-off partitions (`is_split`) hold do
/// not count as delivered: only these readers know when they are done.
pub(crate) fn delivered_offsets(
    partitions: &Partitions,
    only: Option<&[TopicPartition]>,
    is_split: impl Fn(&TopicPartition) -> bool,
) -> Vec<(TopicPartition, OffsetAndMetadata)> {
    offsets(partitions, only, |partition, state, progress| {
        // A commit of the user is bound to the topic's id, if it has one, and may wait for the
        // topic.
        let is_bound = !state.topic_missing || !state.topic_id.is_nil();
        let counts_held = only.is_some() || !is_split(partition);
        is_bound.then(|| if counts_held { progress.delivered() } else { progress.completed() })
    })
}

/// Collects the offsets to commit of these partitions (of all, without a list), sorted. Offsets of
/// topics that do not exist (any more) must be omitted: they would be taken for offsets of the next
/// topic with that name, and records of that topic would be skipped.
fn offsets(
    partitions: &Partitions,
    only: Option<&[TopicPartition]>,
    offset: impl Fn(&TopicPartition, &PartitionState, &DeliveryProgress) -> Option<i64>,
) -> Vec<(TopicPartition, OffsetAndMetadata)> {
    let mut offsets = Vec::new();
    for (partition, state) in partitions.iter() {
        if only.is_none_or(|only| only.contains(partition))
            && let Some(progress) = &state.progress
            && let Some(offset) = offset(partition, state, progress)
        {
            offsets.push((partition.clone(), progress.to_commit(offset)));
        }
    }
    offsets.sort_by(|(one, _), (other, _)| one.cmp(other));
    offsets
}
