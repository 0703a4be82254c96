//! The ends of transactions: timeouts, and the markers that the coordinator writes into partitions
//! and groups.
//!
//! Nothing runs in the background. [`advance`] makes the changes that were due by now, each at its
//! own time, and is called before every act on the state. A request that waits for such a change
//! sets its timer by [`TransactionCoordinator::deadline`].
//!
//! Sans-IO.

use std::time::{Duration, Instant};

use super::{
    State,
    producers::Marker,
    topics::NO_LEADER,
    transaction_coordinator::{EndMarkers, Participants, TransactionCoordinator, TransactionVersion, Transition},
};

/// The feature that decides about the protocol of transactions (KIP-890).
pub(crate) const TRANSACTION_VERSION: &str = "transaction.version";

/// Time after which a marker is tried again that could not be written.
const RETRY: Duration = Duration::from_millis(100);

/// Makes all changes of transactions that were due by now; returns true if there were any.
#[inline]
pub(crate) fn advance(state: &mut State, now: Instant) -> bool {
    state.transactions.deadline().is_some_and(|at| at <= now) && make_due_changes(state, now)
}

fn make_due_changes(state: &mut State, now: Instant) -> bool {
    while let Some((id, at)) = state.transactions.next_change(now) {
        let coordinator = state.coordinator(&id);
        let markers = coordinator.and_then(|broker| state.transactions.markers(&id, broker));
        match markers {
            Some(markers) => {
                let left = write(state, &markers, at);
                state.transactions.markers_written(&id, left, now + RETRY);
            }
            None if coordinator.is_some() => transition(state, at, |transactions, at| transactions.fence(&id, at)),
            None => state.transactions.postpone(&id, now + RETRY),
        }
    }
    true
}

/// Acts on the coordinator, with what a transition of a transaction needs to know.
pub(crate) fn transition<T>(
    state: &mut State,
    now: Instant,
    act: impl FnOnce(&mut TransactionCoordinator, &mut Transition<'_>) -> T,
) -> T {
    let server_version = match state.options.features.get(TRANSACTION_VERSION) {
        Some(2..) => TransactionVersion::V2,
        _ => TransactionVersion::V1,
    };
    let markers_due = now + state.options.marker_delay;
    let State { transactions, next_producer_id, .. } = state;
    let mut new_producer_id = || {
        *next_producer_id += 1;
        *next_producer_id
    };
    let new_producer_id = &mut new_producer_id;
    act(transactions, &mut Transition { now, markers_due, server_version, new_producer_id })
}

/// Writes markers; returns the partitions without a leader and the groups without a coordinator.
/// Deleted topics need none, and a marker that is refused as too old is given up. A sink keeps no
/// records, and therefore no markers.
fn write(state: &mut State, markers: &EndMarkers, now: Instant) -> Participants {
    if state.sink.is_some() {
        return Participants::default();
    }
    let millis = state.millis(now);
    let marker = Marker {
        producer_id: markers.producer.id,
        epoch: markers.producer.epoch,
        coordinator_epoch: markers.coordinator_epoch,
        committed: markers.committed,
        raises_epoch: markers.version == TransactionVersion::V2,
    };
    let mut left = Participants::default();
    for participant in &markers.participants.partitions {
        match state.topics.partition_mut(&participant.topic, participant.partition) {
            Some(partition) if partition.leader == NO_LEADER => {
                left.partitions.insert(participant.clone());
            }
            Some(partition) => _ = partition.write_marker(&marker, millis),
            None => {}
        }
    }
    for group in &markers.participants.groups {
        match state.coordinator(group) {
            Some(_) => state.group_mut(group, now).offsets.end_transaction(&marker),
            None => _ = left.groups.insert(group.clone()),
        }
    }
    left
}
