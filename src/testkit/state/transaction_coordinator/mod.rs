//! The transaction coordinator: all transactional ids, and the time at which one of them changes
//! without a request.
//!
//! Sans-IO.

#[cfg(test)]
mod tests;
mod transactional_id;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use self::transactional_id::TransactionalId;
pub(crate) use self::transactional_id::{
    EndMarkers, Participants, ProducerIdAndEpoch, TransactionState, TransactionVersion, Transition,
};
use crate::{error::ErrorCode, record::TopicPartition};

/// A transaction, as a test or an administrator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransactionView {
    /// Kafka's name for the state: `Empty`, `Ongoing`, `PrepareCommit`, `PrepareAbort`,
    /// `CompleteCommit` or `CompleteAbort`.
    pub state: &'static str,
    /// The producer id.
    pub producer_id: i64,
    /// The producer's epoch.
    pub producer_epoch: i16,
    /// The partitions that the transaction has written to, and has no marker in yet.
    pub partitions: Vec<TopicPartition>,
    /// The groups for which the transaction has committed offsets, without a marker yet.
    pub groups: Vec<String>,
    /// `transaction.timeout.ms` of the producer.
    pub timeout: Duration,
    /// Time at which the last transaction began, by tokio's clock; `None` if there was none since
    /// InitProducerId.
    pub started: Option<Instant>,
}

/// All transactional ids.
#[derive(Debug, Default)]
pub(crate) struct TransactionCoordinator {
    ids: BTreeMap<String, TransactionalId>,
    /// Time at which the next of them changes without a request.
    deadline: Option<Instant>,
}

impl TransactionCoordinator {
    /// Returns the time at which [`next_change`](Self::next_change) has something to return.
    #[inline]
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Handles InitProducerId of a transactional id.
    pub(crate) fn init(
        &mut self,
        id: &str,
        expected: Option<ProducerIdAndEpoch>,
        timeout: Duration,
        transition: &mut Transition<'_>,
    ) -> Result<ProducerIdAndEpoch, ErrorCode> {
        let found = self.entry(id, transition.new_producer_id);
        let given = found.init(expected, timeout, transition);
        self.update_deadline();
        given
    }

    /// Adds partitions or groups to the transaction of an id.
    pub(crate) fn add(
        &mut self,
        id: &str,
        producer: ProducerIdAndEpoch,
        participants: Participants,
        now: Instant,
    ) -> Result<(), ErrorCode> {
        let found = self.ids.get_mut(id).ok_or(ErrorCode::INVALID_PRODUCER_ID_MAPPING)?;
        let added = found.add(producer, participants, now);
        self.update_deadline();
        added
    }

    /// Checks that a partition or group was added to the transaction of an id.
    pub(crate) fn verify(
        &self,
        id: &str,
        producer: ProducerIdAndEpoch,
        participant: &Participants,
    ) -> Result<(), ErrorCode> {
        self.ids.get(id).ok_or(ErrorCode::INVALID_PRODUCER_ID_MAPPING)?.verify(producer, participant)
    }

    /// Ends the transaction of an id.
    pub(crate) fn end(
        &mut self,
        id: &str,
        producer: ProducerIdAndEpoch,
        committed: bool,
        version: TransactionVersion,
        transition: &mut Transition<'_>,
    ) -> Result<Option<ProducerIdAndEpoch>, ErrorCode> {
        let found = self.ids.get_mut(id).ok_or(ErrorCode::INVALID_PRODUCER_ID_MAPPING)?;
        let ended = found.end(producer, committed, version, transition);
        self.update_deadline();
        ended
    }

    /// Returns the id whose deadline has passed first, with its deadline.
    pub(crate) fn next_change(&self, now: Instant) -> Option<(String, Instant)> {
        let due = |(id, found): (&String, &TransactionalId)| Some((found.deadline()?, id.clone()));
        let (at, id) = self.ids.iter().filter_map(due).min()?;
        (at <= now).then_some((id, at))
    }

    /// Aborts the transaction of an id if it is still open; its producer is fenced.
    pub(crate) fn fence(&mut self, id: &str, transition: &mut Transition<'_>) {
        if let Some(found) = self.ids.get_mut(id).filter(|found| found.state == TransactionState::Ongoing) {
            found.fence(transition);
        }
        self.update_deadline();
    }

    /// Returns the markers of an id's transaction if it is ending.
    pub(crate) fn markers(&mut self, id: &str, coordinator: i32) -> Option<EndMarkers> {
        self.ids.get_mut(id)?.markers(coordinator)
    }

    /// Notes that the markers were written, except to `left`.
    pub(crate) fn markers_written(&mut self, id: &str, left: Participants, retry_at: Instant) {
        if let Some(found) = self.ids.get_mut(id) {
            found.markers_written(left, retry_at);
        }
        self.update_deadline();
    }

    /// Puts the next change of an id off, because no broker is up that could make it.
    pub(crate) fn postpone(&mut self, id: &str, until: Instant) {
        if let Some(found) = self.ids.get_mut(id) {
            found.postpone(until);
        }
        self.update_deadline();
    }

    /// Sets the epoch of an id, which is created if necessary. Returns false while it has a
    /// transaction.
    pub(crate) fn set_epoch(&mut self, id: &str, epoch: i16, new_producer_id: &mut dyn FnMut() -> i64) -> bool {
        let found = self.entry(id, new_producer_id);
        let idle = found.participants.is_empty() && found.markers_due.is_none();
        if idle {
            found.set_epoch(epoch);
        }
        idle
    }

    /// Begins a transaction of an id, if none is open.
    pub(crate) fn assume_ongoing(&mut self, id: &str, now: Instant) {
        if let Some(found) = self.ids.get_mut(id) {
            found.assume_ongoing(now);
        }
    }

    /// Returns the transaction of an id as it is now.
    pub(crate) fn view(&self, id: &str) -> Option<TransactionView> {
        let found = self.ids.get(id)?;
        Some(TransactionView {
            state: found.state.name(),
            producer_id: found.producer.id,
            producer_epoch: found.producer.epoch,
            partitions: found.participants.partitions.iter().cloned().collect(),
            groups: found.participants.groups.iter().cloned().collect(),
            timeout: found.timeout,
            started: found.started,
        })
    }

    /// Returns all ids, in their order.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.ids.keys().map(String::as_str)
    }

    fn entry(&mut self, id: &str, new_producer_id: &mut dyn FnMut() -> i64) -> &mut TransactionalId {
        self.ids.entry(id.to_owned()).or_insert_with(|| TransactionalId::new(new_producer_id()))
    }

    fn update_deadline(&mut self) {
        self.deadline = self.ids.values().filter_map(TransactionalId::deadline).min();
    }
}
