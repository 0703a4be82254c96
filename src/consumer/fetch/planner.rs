//! Plans the fetches from each broker: one request at a time over each connection, for the
//! partitions that have room for more.
//!
//! Sans-IO.

use std::{collections::HashMap, sync::Arc, time::Instant};

use crate::consumer::fetch::plan::{FetchPlan, SessionClose};
use crate::consumer::{
    buffer::split::SplitReader,
    config::settings::IsolationLevel,
    fetch::{
        connection_id::FetchConnectionId,
        memory_budget::{BrokerQuota, Reservation},
        session::{PartitionSpec, SessionRequest},
    },
    state::ConsumerState,
    subscription::{fetch_position::FetchState, partition_state::PartitionState},
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
/// If at most this part of a response (as its reciprocal) is still needed, it is copied out so that
/// the whole response can be released.
const REMAINDER: usize = 8;

/// Returns the largest part of a broker's share that one response may use.
pub(crate) fn largest_response(quota: &BrokerQuota) -> usize {
    quota.limit() / ANSWERS
}

fn session_close(broker: i32, session: SessionRequest) -> SessionClose {
    let request = FetchRequest {
        max_wait_ms: 0,
        min_bytes: 0,
        max_bytes: 1,
        isolation_level: 0,
        session_id: session.session_id,
        session_epoch: session.session_epoch,
        topics: Vec::new(),
        forgotten: Vec::new(),
        rack_id: String::new(),
    };
    SessionClose { broker, request }
}

impl ConsumerState {
    /// Returns the next fetch from a broker, over one of the connections to it.
    pub(crate) fn plan_fetch(&mut self, from: impl Into<FetchConnectionId>, now: Instant) -> FetchPlan {
        let id = from.into();
        self.clock = Some(now);
        self.expire_preferred_replicas(id, now);
        self.update_session(id, now);
        let (min_bytes, max_bytes) = (self.rules.min_bytes, self.rules.max_bytes);
        let partition_bytes = usize::try_from(self.rules.partition_bytes).unwrap_or(0);
        let Some(node) = self.connections.get_mut(&id) else { return FetchPlan::Wait(None) };
        if let Some(at) = node.not_before.filter(|at| *at > now) {
            return FetchPlan::Wait(Some(at));
        }
        if node.session.len() == 0 && node.partitions == 0 {
            return self.plan_session_close(id);
        }
        if node.session.len() == 0 {
            return FetchPlan::Wait(node.waiting.iter().map(|(at, _)| *at).min());
        }
        let quota = node.quota.clone();
        // Several responses share the memory, so that the rest of one that is being read never
        // blocks the next ones.
        let most = usize::try_from(max_bytes).unwrap_or(0).min(largest_response(&quota)).min(node.fetch_size.bytes());
        // A broker sends at least one batch, whatever limit the fetch has; the next batch is
        // probably not larger than the recent ones.
        let least = LEAST.min(quota.limit() / LEAST_PART).max(node.largest_batch);
        let asked = node.session.len();
        let heads = HEAD.saturating_mul(asked.saturating_add(2));
        // Each partition asks for that much at least, so the exact sum is needed only for few
        // partitions.
        let of_all = asked.saturating_mul(partition_bytes);
        let of_all = if of_all < most { node.session.bytes() } else { of_all };
        let want = most.min(of_all).max(node.largest_batch).max(1).saturating_add(heads);
        let least = want.min(least.saturating_add(heads));
        let refused = quota.is_starved();
        let mut reserved = quota.reserve(want, least);
        let mut again = None;
        if reserved.is_none() {
            self.evict_paused(id, least);
            again = self.evict_unread(id, least, now);
            reserved = quota.reserve(want, least);
        }
        // Data that cannot be read now (its partition is paused) occupies the memory: one fetch
        // exceeds the share, otherwise reading would stop.
        let starves = reserved.is_none() && self.reader_starves(id);
        if starves && self.has_several_connections(id.broker) {
            // The connection is not the reason why the reader waits.
            self.keep_connections(id.broker, 1);
            return self.plan_fetch(id, now);
        }
        let beyond = starves && self.in_flight_on_siblings(id) == 0;
        let Some(reserved) = reserved.or_else(|| beyond.then(|| quota.charge(least))) else {
            self.quota_exhausted(id);
            return FetchPlan::Wait(again);
        };
        if refused {
            // Perhaps another connection was refused, which is not woken any more now.
            self.recheck_siblings(id);
        }
        let Some(node) = self.connections.get_mut(&id) else { return FetchPlan::Wait(None) };
        node.in_flight = reserved.bytes();
        node.empty_responses.record_sent(now);
        node.fetch_size.record_sent(reserved.bytes().saturating_sub(heads), now);
        let session = node.session.request();
        let granted = i32::try_from(reserved.bytes().saturating_sub(heads).max(1)).unwrap_or(i32::MAX);
        let by_name = node.session.has_nameless();
        let rack = self.rules.rack.as_ref().filter(|_| node.rackless_until.is_none_or(|until| until <= now));
        let request = FetchRequest {
            max_wait_ms: i32::try_from(self.rules.max_wait.as_millis()).unwrap_or(i32::MAX),
            min_bytes: min_bytes.min(granted),
            max_bytes: granted,
            isolation_level: i8::from(self.rules.isolation == IsolationLevel::ReadCommitted),
            session_id: session.session_id,
            session_epoch: session.session_epoch,
            topics: session.topics,
            forgotten: session.forgotten,
            rack_id: rack.cloned().unwrap_or_default(),
        };
        FetchPlan::Fetch { request: Box::new(request), reserved, by_name }
    }

    /// Ends the session of a connection without partitions.
    fn plan_session_close(&mut self, id: FetchConnectionId) -> FetchPlan {
        let gone = self.has_metadata && !self.brokers.contains(&id.broker);
        let beside = self.connections.keys().any(|other| other.broker == id.broker && *other != id);
        let Some(node) = self.connections.get_mut(&id) else { return FetchPlan::End };
        if !gone && let Some(request) = node.session.closing() {
            node.session.closed();
            // The task of this connection does not send it: if the broker does not answer,
            // partitions that move here meanwhile would be blocked.
            self.session_closes.push(session_close(id.broker, request));
            self.signals.task = true;
        }
        let first = id.connection == 0;
        if first && (!gone || beside || node.quota.used() > 0) {
            return FetchPlan::Wait(None);
        }
        self.connections.remove(&id);
        self.stats.brokers.remove(&id);
        if first {
            self.budget.close_quota(id.broker);
            self.scaling.remove(&id.broker);
        } else {
            self.connection_ended(id.broker);
        }
        FetchPlan::End
    }

    /// Returns the requests that close sessions, and removes them.
    pub(crate) fn take_session_closes(&mut self) -> Vec<SessionClose> {
        std::mem::take(&mut self.session_closes)
    }

    /// Returns the requests that close all sessions that brokers have for this consumer. A broker
    /// that did not answer the last fetch is left out.
    pub(crate) fn end_sessions(&mut self) -> Vec<SessionClose> {
        let mut all = self.take_session_closes();
        for (id, node) in self.connections.iter_mut().filter(|(_, node)| node.session.is_established()) {
            if let Some(request) = node.session.closing() {
                node.session.closed();
                all.push(session_close(id.broker, request));
            }
        }
        all
    }

    /// Returns true if a reader waits, no buffered data will end its wait, and a fetch from that
    /// broker may. Buffered data of other readers (of a partition with a stream of its own, or of
    /// all others) does not count.
    fn reader_starves(&self, id: FetchConnectionId) -> bool {
        // Partitions that were paused or sought keep their turn until the reader comes to it, but
        // have nothing to deliver.
        let gives = |state: &PartitionState| {
            state.split.is_none() && !state.paused && !state.revoking && !state.queue.is_empty()
        };
        let gives = |partition| self.partitions.get(partition).is_some_and(gives);
        let common = self.reader_waits() && !self.rotation.iter().any(gives);
        let of_one = |state: &PartitionState| {
            let waits = state.split.as_ref().is_some_and(SplitReader::is_waiting);
            waits && state.broker == Some(id.broker) && state.queue.is_empty()
        };
        self.running_jobs == 0 && (common || self.partitions.values().any(of_one))
    }

    /// Updates the session with the changes since the last request.
    fn update_session(&mut self, id: FetchConnectionId, now: Instant) {
        let Some(node) = self.connections.get_mut(&id) else { return };
        let mut changed = std::mem::take(&mut node.changed);
        node.waiting.retain(|(at, partition)| {
            let due = *at <= now;
            if due {
                changed.insert(partition.clone());
            }
            !due
        });
        for partition in changed {
            let spec = self.partition_spec(&partition, id, now);
            let waits = self.partitions.get(&partition).filter(|state| state.connection_id() == Some(id));
            let waits = waits.and_then(|state| state.position.not_before()).filter(|at| *at > now);
            let Some(node) = self.connections.get_mut(&id) else { return };
            match spec {
                Some(spec) => node.session.add(partition, spec),
                None => {
                    node.session.remove(&partition);
                    if let Some(at) = waits {
                        node.waiting.push((at, partition));
                    }
                }
            }
        }
    }

    /// Returns the request for a partition from that broker, or `None` if it is not fetched now.
    fn partition_spec(
        &mut self,
        partition: &TopicPartition,
        id: FetchConnectionId,
        now: Instant,
    ) -> Option<PartitionSpec> {
        let state = self.partitions.get_mut(partition)?;
        if state.connection_id() != Some(id) || state.paused || state.revoking || state.evicted {
            return None;
        }
        let fetch_offset = state.position.fetch_offset(now)?;
        // A partition that is full is fetched again once half of its data was read, so that it does
        // not join and leave the session all the time.
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

    /// Makes room when a broker's quota is exhausted: drops the buffered batches of paused
    /// partitions, which are fetched again on resume, and copies out the small rests that keep
    /// whole responses in memory.
    fn evict_paused(&mut self, id: FetchConnectionId, least: usize) {
        // Skips partitions with an open offset request.
        let idle = |state: &PartitionState| {
            state.paused && matches!(state.position.state(), FetchState::Fetching { .. } | FetchState::Stopped)
        };
        let mut evicted = Vec::new();
        let makers = self.quotas_to_evict(id.broker, least);
        let here = |state: &PartitionState| state.broker.is_some_and(|node| makers.contains(&node));
        for (partition, state) in self.partitions.iter_mut().filter(|(_, state)| here(state) && idle(state)) {
            if let Some(start) = state.queue.evict(false) {
                evicted.push((partition.clone(), start));
            }
        }
        for (partition, offset) in evicted {
            self.refetch_from(&partition, offset);
        }
        let mut pinned: HashMap<*const Reservation, (usize, usize)> = HashMap::new();
        let here = self.partitions.values().filter(|state| state.broker == Some(id.broker));
        for (reservation, needed) in here.flat_map(|state| state.queue.pinned()) {
            pinned.entry(Arc::as_ptr(reservation)).or_insert((reservation.bytes(), 0)).1 += needed;
        }
        let Some(quota) = self.connections.get(&id).map(|node| node.quota.clone()) else { return };
        let mut copied = 0;
        pinned.retain(|_, (whole, needed)| {
            let small = *needed <= *whole / REMAINDER && quota.has_room_for(copied + *needed);
            copied += if small { *needed } else { 0 };
            small
        });
        if !pinned.is_empty() {
            for state in self.partitions.values_mut() {
                state.queue.copy_out(|reservation| pinned.contains_key(&Arc::as_ptr(reservation)));
            }
        }
    }
}
