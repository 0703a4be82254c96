//! Makes room when a broker's memory quota is exhausted: drops buffered batches that are not being
//! read. They are fetched again later.
//!
//! Batches of paused partitions go first. Then, if a reader waits, those of readers that do not ask
//! for records: a stream that is not read blocks no other.
//!
//! Sans-IO.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::consumer::{
    buffer::{delivery_queue::DeliveryQueue, readers::Readers},
    fetch::{connection_id::FetchConnectionId, connections::FetchConnections, memory_budget::Reservation},
    subscription::{fetch_position::FetchState, partition_state::PartitionState, partitions::Partitions},
};
use crate::{log::event, record::TopicPartition};

/// Time without a request for records after which a reader's buffered batches may be evicted to
/// make room for others.
const ABSENT: Duration = Duration::from_secs(1);
/// If at most this part of a response (as its reciprocal) is still needed, it is copied out so that
/// the whole response can be released.
const REMAINDER: usize = 8;

/// Returns the brokers that may have to evict batches for a fetch of that many bytes from `broker`:
/// `broker` itself and, if the total budget is full, the brokers that exceed their share of it.
fn brokers_to_evict(broker: i32, bytes: usize, connections: &FetchConnections) -> Vec<i32> {
    let first = connections.get(&broker.into());
    let is_full = first.is_some_and(|connection| !connection.quota.total_has_room_for(bytes));
    let beyond = connections.iter().filter(|(_, connection)| is_full && connection.quota.exceeds_share());
    beyond.map(|(id, _)| id.broker).filter(|id| *id != broker).chain([broker]).collect()
}

/// Drops the buffered batches of paused partitions, which are fetched again on resume, and copies
/// out the small rests that keep whole responses in memory.
pub(super) fn evict_paused(
    id: FetchConnectionId,
    least: usize,
    partitions: &mut Partitions,
    connections: &mut FetchConnections,
) {
    let brokers = brokers_to_evict(id.broker, least, connections);
    // Skips partitions with an open offset request.
    let is_idle = |state: &PartitionState| {
        state.paused && matches!(state.position.state(), FetchState::Fetching { .. } | FetchState::Stopped)
    };
    let is_here = |state: &PartitionState| state.broker.is_some_and(|broker| brokers.contains(&broker));
    let mut evicted = Vec::new();
    for (partition, state) in partitions.iter_mut().filter(|(_, state)| is_here(state) && is_idle(state)) {
        evicted.extend(state.queue.evict(false).map(|offset| (partition.clone(), offset)));
    }
    for (partition, offset) in evicted {
        partitions.refetch_from(&partition, offset, connections);
    }
    copy_out_rests(id, partitions, connections);
}

/// Copies the small rests of a broker's responses out of them, so that these are released.
fn copy_out_rests(id: FetchConnectionId, partitions: &mut Partitions, connections: &FetchConnections) {
    let Some(connection) = connections.get(&id) else { return };
    // Responses with their size, and the bytes of each that are still needed.
    let mut responses: HashMap<*const Reservation, (usize, usize)> = HashMap::new();
    let here = partitions.states().filter(|state| state.broker == Some(id.broker));
    for (response, needed) in here.flat_map(|state| state.queue.pinned()) {
        responses.entry(Arc::as_ptr(response)).or_insert((response.bytes(), 0)).1 += needed;
    }
    let mut copied = 0;
    responses.retain(|_, (whole, needed)| {
        let is_small = *needed <= *whole / REMAINDER && connection.quota.has_room_for(copied + *needed);
        copied += if is_small { *needed } else { 0 };
        is_small
    });
    if !responses.is_empty() {
        for (_, state) in partitions.iter_mut() {
            state.queue.copy_out(|response| responses.contains_key(&Arc::as_ptr(response)));
        }
    }
}

/// Evicts the batches of readers that do not ask for records.
pub(super) struct UnreadEviction<'a> {
    pub(super) partitions: &'a mut Partitions,
    pub(super) connections: &'a mut FetchConnections,
    pub(super) delivery: &'a mut DeliveryQueue,
    pub(super) readers: &'a Readers,
}

impl UnreadEviction<'_> {
    /// Evicts batches of readers that have not asked for longer than [`ABSENT`], the longest absent
    /// first, until `least` bytes are free. Batches that were decompressed already go last. Returns
    /// the time at which to look again, if a reader is absent but not long enough yet.
    pub(super) fn make_room(&mut self, id: FetchConnectionId, least: usize, now: Instant) -> Option<Instant> {
        if !self.readers.common_waits(self.partitions.len()) && !self.readers.any_split_waits() {
            // All readers are busy with the batches that they have, and free them in time.
            return None;
        }
        let quota = self.connections.get(&id).map(|connection| connection.quota.clone())?;
        let unread = self.unread(&brokers_to_evict(id.broker, least, self.connections));
        let rounds = [false, true].into_iter().flat_map(|opened| unread.iter().map(move |unread| (opened, unread)));
        for (opened, (last_request, partition)) in rounds {
            if quota.has_room_to_fetch(least) {
                return None;
            }
            let is_absent_at = last_request.map(|last_request| last_request + ABSENT);
            if is_absent_at.is_some_and(|at| at > now) {
                return is_absent_at;
            }
            self.evict(partition, opened);
        }
        None
    }

    /// Returns the fetched partitions of these brokers that have batches for readers that do not
    /// wait, with the time of the reader's last request; the longest absent come first.
    fn unread(&self, brokers: &[i32]) -> Vec<(Option<Instant>, TopicPartition)> {
        let common_waits = self.readers.common_waits(self.partitions.len());
        let reader_waits = |partition: &TopicPartition| match self.readers.is_split(partition) {
            true => self.readers.split_waits(partition),
            false => common_waits,
        };
        let is_here = |state: &PartitionState| state.broker.is_some_and(|broker| brokers.contains(&broker));
        let is_buffered = |state: &PartitionState| {
            matches!(state.position.state(), FetchState::Fetching { .. }) && !state.queue.is_empty()
        };
        let unread = self
            .partitions
            .iter()
            .filter(|(partition, state)| is_here(state) && is_buffered(state) && !reader_waits(partition));
        let mut unread: Vec<_> =
            unread.map(|(partition, _)| (self.readers.last_request_for(partition), partition.clone())).collect();
        unread.sort_unstable();
        unread
    }

    fn evict(&mut self, partition: &TopicPartition, opened: bool) {
        let Some(state) = self.partitions.get_mut(partition) else { return };
        let Some(offset) = state.queue.evict(opened) else { return };
        event!(
            DEBUG, self.connections.rules.origin, %partition, offset,
            "evicted the unread batches of a partition to make room for others; they are fetched again when its reader \
             asks for records"
        );
        self.delivery.record_eviction(state);
        self.partitions.refetch_from(partition, offset, self.connections);
    }
}
