//! Plans the fetches from each broker: one request at a time over each connection, for the
//! partitions that have room for more.
//!
//! Sans-IO.

use std::time::Instant;

use crate::consumer::{
    buffer::{delivery_queue::DeliveryQueue, readers::Readers},
    fetch::{
        broker_selection::expire_preferred_replicas,
        connection::FetchConnection,
        connection_id::FetchConnectionId,
        connections::FetchConnections,
        eviction::{UnreadEviction, evict_paused},
        memory_budget::{BrokerQuota, Reservation},
        plan::FetchPlan,
        session::PartitionSpec,
    },
    subscription::{partition_state::PartitionState, partitions::Partitions, rules::ConsumerRules},
};
use crate::{
    record::TopicPartition,
    wire::fetch::{FetchPartition, FetchRequest},
};

/// Smallest fetch that is worth its round trip while there is other data to read, in bytes; with a
/// small share, that part of the share.
const LEAST: usize = 512 * 1024;
const LEAST_PART: usize = 32;

/// Number of responses of the largest size that fit into a broker's share of the memory.
const ANSWERS: usize = 8;
/// Usual limit of the bytes that a response has for a partition beside its batches.
const HEAD: usize = 64;

/// Returns the largest part of a broker's share that one response may use.
pub(crate) fn largest_response(quota: &BrokerQuota) -> usize {
    quota.limit() / ANSWERS
}

/// The parts of a consumer's state that decide which fetch is sent next.
pub(crate) struct FetchPlanner<'a> {
    pub(crate) rules: &'a ConsumerRules,
    pub(crate) partitions: &'a mut Partitions,
    pub(crate) connections: &'a mut FetchConnections,
    pub(crate) delivery: &'a mut DeliveryQueue,
    pub(crate) readers: &'a mut Readers,
    pub(crate) has_metadata: bool,
}

/// Sizes of a fetch in bytes, with room for the heads of its partitions.
struct FetchBytes {
    /// The size to reserve if there is room.
    wanted: usize,
    /// The smallest size that is worth a fetch.
    least: usize,
    /// The part of both that is for heads.
    heads: usize,
}

/// Reason for which no memory was reserved for a response.
enum Refusal {
    /// There is no room; it has to be looked for again when woken, or at that time.
    NoRoom(Option<Instant>),
    /// Fewer connections to the broker are used now, so that the fetch has to be planned again.
    FewerConnections,
}

impl FetchPlanner<'_> {
    /// Returns the next fetch over a connection.
    pub(crate) fn plan(&mut self, id: FetchConnectionId, now: Instant) -> FetchPlan {
        self.readers.set_clock(now);
        loop {
            expire_preferred_replicas(id, self.partitions, self.connections, now);
            self.update_session(id, now);
            let Some(connection) = self.connections.get_mut(&id) else { return FetchPlan::Wait(None) };
            if let Some(at) = connection.not_before.filter(|at| *at > now) {
                return FetchPlan::Wait(Some(at));
            }
            if connection.session.len() == 0 {
                return self.wait_or_end(id);
            }
            let bytes = FetchBytes::of(connection, self.rules);
            let was_refused = connection.quota.is_starved();
            match self.reserve(id, &bytes, now) {
                Ok(reserved) => {
                    if was_refused {
                        // Perhaps another connection was refused, which is not woken any more now.
                        self.connections.recheck_siblings(id);
                    }
                    return self.fetch(id, reserved, bytes.heads, now);
                }
                Err(Refusal::NoRoom(again)) => {
                    self.connections.record_exhausted_quota(id, self.partitions);
                    return FetchPlan::Wait(again);
                }
                // One connection is left, so this happens once.
                Err(Refusal::FewerConnections) => {}
            }
        }
    }

    /// Returns the plan of a connection over which nothing is to be fetched now.
    fn wait_or_end(&mut self, id: FetchConnectionId) -> FetchPlan {
        let Some(connection) = self.connections.get(&id) else { return FetchPlan::Wait(None) };
        if connection.partitions > 0 {
            return FetchPlan::Wait(connection.waiting.iter().map(|(at, _)| *at).min());
        }
        if self.connections.end_unused(id, self.has_metadata) { FetchPlan::End } else { FetchPlan::Wait(None) }
    }

    /// Reserves memory for a response. Makes room first if there is none.
    fn reserve(&mut self, id: FetchConnectionId, bytes: &FetchBytes, now: Instant) -> Result<Reservation, Refusal> {
        let Some(connection) = self.connections.get(&id) else { return Err(Refusal::NoRoom(None)) };
        let quota = connection.quota.clone();
        if let Some(reserved) = quota.reserve(bytes.wanted, bytes.least) {
            return Ok(reserved);
        }
        evict_paused(id, bytes.least, self.partitions, self.connections);
        let again = self.evict_unread(id, bytes.least, now);
        if let Some(reserved) = quota.reserve(bytes.wanted, bytes.least) {
            return Ok(reserved);
        }
        if !self.reader_starves(id.broker) {
            return Err(Refusal::NoRoom(again));
        }
        if self.connections.open_to(id.broker) > 1 {
            // The connection is not the reason why the reader waits.
            self.connections.keep(id.broker, 1, self.partitions);
            return Err(Refusal::FewerConnections);
        }
        // Data that cannot be read now (its partition is paused) occupies the memory: one fetch
        // exceeds the share, otherwise reading would stop.
        match self.connections.in_flight_on_siblings(id) {
            0 => Ok(quota.charge(bytes.least)),
            _ => Err(Refusal::NoRoom(again)),
        }
    }

    /// Returns the request of the session, for a response of the reserved size.
    fn fetch(&mut self, id: FetchConnectionId, reserved: Reservation, heads: usize, now: Instant) -> FetchPlan {
        let Some(connection) = self.connections.get_mut(&id) else { return FetchPlan::Wait(None) };
        let granted = reserved.bytes().saturating_sub(heads);
        connection.in_flight = reserved.bytes();
        connection.empty_responses.record_sent(now);
        connection.fetch_size.record_sent(granted, now);
        let session = connection.session.request();
        let max_bytes = i32::try_from(granted.max(1)).unwrap_or(i32::MAX);
        let rules = self.rules;
        let rack = rules.rack.as_ref().filter(|_| connection.rackless_until.is_none_or(|until| until <= now));
        let request = FetchRequest {
            max_wait_ms: i32::try_from(rules.max_wait.as_millis()).unwrap_or(i32::MAX),
            min_bytes: rules.min_bytes.min(max_bytes),
            max_bytes,
            isolation_level: i8::from(rules.isolation.is_read_committed()),
            session_id: session.session_id,
            session_epoch: session.session_epoch,
            topics: session.topics,
            forgotten: session.forgotten,
            rack_id: rack.cloned().unwrap_or_default(),
        };
        FetchPlan::Fetch { request: Box::new(request), reserved, by_name: connection.session.has_nameless() }
    }

    /// Updates the session with the changes since the last request.
    fn update_session(&mut self, id: FetchConnectionId, now: Instant) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let mut changed = std::mem::take(&mut connection.changed);
        connection.waiting.retain(|(at, partition)| {
            let due = *at <= now;
            if due {
                changed.insert(partition.clone());
            }
            !due
        });
        for partition in changed {
            let mut state = self.partitions.get_mut(&partition).filter(|state| state.connection_id() == Some(id));
            if let Some(spec) = state.as_mut().and_then(|state| partition_spec(&partition, state, now)) {
                connection.session.add(partition, spec);
                continue;
            }
            connection.session.remove(&partition);
            if let Some(at) = state.and_then(|state| state.position.not_before()).filter(|at| *at > now) {
                connection.waiting.push((at, partition));
            }
        }
    }

    /// Evicts batches of readers that do not ask for records, for a reader that waits. Returns the
    /// time at which to look again, if a reader is absent but not long enough yet.
    pub(crate) fn evict_unread(&mut self, id: FetchConnectionId, least: usize, now: Instant) -> Option<Instant> {
        UnreadEviction {
            partitions: self.partitions,
            connections: self.connections,
            delivery: self.delivery,
            readers: self.readers,
        }
        .make_room(id, least, now)
    }

    /// Returns true if a reader waits, no buffered data will end its wait, and a fetch from that
    /// broker may. Buffered data of other readers (of a partition with a stream of its own, or of
    /// all others) does not count.
    fn reader_starves(&self, broker: i32) -> bool {
        if self.delivery.running_jobs() > 0 {
            return false;
        }
        // Partitions that were paused or sought keep their turn until the reader comes to it, but
        // have nothing to deliver.
        let has_records = |partition: &TopicPartition| {
            let state = self.partitions.get(partition).filter(|_| !self.readers.is_split(partition));
            state.is_some_and(|state| state.is_deliverable() && !state.queue.is_empty())
        };
        let common_starves =
            || self.readers.common_waits(self.partitions.len()) && !self.delivery.turns().any(has_records);
        let split_starves = |(partition, state): (&TopicPartition, &PartitionState)| {
            state.broker == Some(broker) && state.queue.is_empty() && self.readers.split_waits(partition)
        };
        common_starves() || self.partitions.iter().any(split_starves)
    }
}

/// Returns the request for a partition, or `None` if it is not fetched now.
fn partition_spec(partition: &TopicPartition, state: &mut PartitionState, now: Instant) -> Option<PartitionSpec> {
    if !state.is_deliverable() || state.evicted {
        return None;
    }
    let fetch_offset = state.position.fetch_offset(now)?;
    // A partition that is full is fetched again once half of its data was read, so that it does not
    // join and leave the session all the time.
    let (queued, bound) = (state.queue.bytes(), state.queue_bound());
    state.full = if state.full { queued > bound / 2 } else { queued >= bound };
    if state.full {
        return None;
    }
    Some(PartitionSpec {
        topic_id: state.topic_id,
        seek_epoch: state.position.seek_epoch(),
        partition: FetchPartition {
            partition: partition.partition,
            current_leader_epoch: state.leader.map_or(-1, |(_, epoch)| epoch),
            fetch_offset,
            max_bytes: state.fetch_bytes,
        },
    })
}

impl FetchBytes {
    /// Returns the size of the next fetch over a connection.
    fn of(connection: &FetchConnection, rules: &ConsumerRules) -> Self {
        let quota = &connection.quota;
        // Several responses share the memory, so that the rest of one that is being read never
        // blocks the next ones.
        let max_bytes = usize::try_from(rules.max_bytes).unwrap_or(0);
        let most = max_bytes.min(largest_response(quota)).min(connection.fetch_size.bytes());
        let partitions = connection.session.len();
        let heads = HEAD.saturating_mul(partitions.saturating_add(2));
        // Each partition asks for that much at least, so the exact sum is needed only for few
        // partitions.
        let at_least = partitions.saturating_mul(usize::try_from(rules.partition_bytes).unwrap_or(0));
        let of_all = if at_least < most { connection.session.bytes() } else { at_least };
        // A broker sends at least one batch, whatever limit the fetch has; the next batch is
        // probably not larger than the recent ones.
        let batch = connection.largest_batch;
        let wanted = most.min(of_all).max(batch).max(1).saturating_add(heads);
        let least = LEAST.min(quota.limit() / LEAST_PART).max(batch).saturating_add(heads);
        Self { wanted, least: wanted.min(least), heads }
    }
}
