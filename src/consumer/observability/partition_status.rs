//! The reason for which each partition waits, and the status and metrics of partitions.
//!
//! Sans-IO.

use crate::{
    consumer::{
        buffer::readers::Readers,
        fetch::{connections::FetchConnections, memory_budget::MemoryBudget},
        observability::{
            fetch_stats::FetchStats,
            metrics::{ConsumerMetrics, PartitionMetrics},
            wait_reason::{LATE, PartitionStatus, WaitReason},
        },
        subscription::{
            fetch_position::FetchState, partition_state::PartitionState, partitions::Partitions, rules::ConsumerRules,
        },
    },
    record::TopicPartition,
};
use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

/// The parts of a consumer's state that tell why a partition waits.
pub(crate) struct WaitReasons<'a> {
    pub(crate) rules: &'a ConsumerRules,
    pub(crate) connections: &'a FetchConnections,
    pub(crate) readers: &'a Readers,
    pub(crate) stats: &'a FetchStats,
    /// Number of assigned partitions.
    pub(crate) partitions: usize,
}

impl WaitReasons<'_> {
    /// Returns the first reason that applies, and the time at which it ends by itself.
    pub(super) fn of(
        &self,
        partition: &TopicPartition,
        state: &PartitionState,
        now: Instant,
    ) -> (WaitReason, Option<Instant>) {
        let reason = user_reason(state).or_else(|| self.reader_reason(partition, state));
        let (reason, until) = match reason {
            Some(reason) => (reason, None),
            None => position_reason(state, now).unwrap_or_else(|| self.fetch_reason(state, now)),
        };
        (reason, until.filter(|until| *until > now))
    }

    /// Returns the reason if buffered batches wait for their reader.
    fn reader_reason(&self, partition: &TopicPartition, state: &PartitionState) -> Option<WaitReason> {
        // Batches that the reader took over count like those that are buffered.
        let is_ahead = matches!(
            (state.position.state(), state.next_offset()),
            (FetchState::Fetching { offset, .. }, Some(delivered)) if offset > delivered
        );
        if state.queue.is_empty() && !is_ahead && !state.evicted {
            return None;
        }
        let (waits, reason) = match self.readers.is_split(partition) {
            true => (self.readers.split_waits(partition), WaitReason::PartitionStream),
            false => (self.readers.common_waits(self.partitions), WaitReason::Reader),
        };
        match waits {
            false => Some(reason),
            true => (!state.queue.is_empty()).then_some(WaitReason::Decompressing),
        }
    }

    /// Returns the reason of a partition that is fetched.
    fn fetch_reason(&self, state: &PartitionState, now: Instant) -> (WaitReason, Option<Instant>) {
        let id = state.connection_id().or(state.leader.map(|(leader, _)| leader.into()));
        let connection = id.and_then(|id| self.connections.get(&id));
        let seen = id.and_then(|id| self.stats.brokers.get(&id));
        let not_before = connection.and_then(|connection| connection.not_before);
        let error = seen.and_then(|seen| seen.error.as_ref());
        if not_before.is_some_and(|at| at > now)
            && let Some(error) = error
        {
            return (WaitReason::BackingOff(error.clone()), not_before);
        }
        let throttled_until = seen.and_then(|seen| seen.throttled_until);
        if throttled_until.is_some_and(|until| until > now) {
            return (WaitReason::Throttled, throttled_until);
        }
        let sent_at = seen.and_then(|seen| seen.sent_at);
        // No fetch is in flight that could show if there are more records.
        if sent_at.is_none() && connection.is_some_and(|connection| connection.quota.is_starved()) {
            return (WaitReason::Memory, None);
        }
        // A broker answers after `fetch.max.wait.ms` even without records, so a broker that is
        // overdue is not known to have none.
        let is_overdue = sent_at.is_some_and(|at| now.saturating_duration_since(at) > self.rules.max_wait + LATE);
        let end = state.offsets.end(self.rules.isolation.level());
        let is_at_end = end.is_some_and(|end| state.next_offset().is_some_and(|delivered| delivered >= end));
        if is_at_end && !is_overdue && error.is_none() {
            return (WaitReason::Records, None);
        }
        (WaitReason::Fetching, sent_at.and(seen.and_then(|seen| seen.due)))
    }
}

/// Returns the reason if the partition waits for its user, or for the group.
fn user_reason(state: &PartitionState) -> Option<WaitReason> {
    if state.revoking {
        Some(WaitReason::Revoking)
    } else if state.paused {
        Some(WaitReason::Paused)
    } else if state.awaits_listener {
        Some(WaitReason::Listener)
    } else {
        state.corruption.is_some().then_some(WaitReason::Corrupt)
    }
}

/// Returns the reason of a partition that has no position or no leader to fetch from, or that has
/// failed.
fn position_reason(state: &PartitionState, now: Instant) -> Option<(WaitReason, Option<Instant>)> {
    let fetch_state = state.position.state();
    if fetch_state == FetchState::Stopped {
        return Some((WaitReason::NoOffset, None));
    }
    if state.leader.is_none() {
        let is_initializing = fetch_state == FetchState::Initializing;
        return Some((if is_initializing { WaitReason::FindingPosition } else { WaitReason::NoLeader }, None));
    }
    let (error, not_before) = (state.offsets.error.as_ref(), state.position.not_before());
    match error {
        Some(error) if not_before.is_some_and(|at| at > now) => {
            Some((WaitReason::BackingOff(error.clone()), not_before))
        }
        _ if matches!(fetch_state, FetchState::Fetching { .. }) => None,
        // A retry is in flight; the error is shown until it succeeds.
        Some(error) => Some((WaitReason::BackingOff(error.clone()), None)),
        None => Some((WaitReason::FindingPosition, None)),
    }
}

/// Returns the status of every partition. A reason that the last observation has not seen counts
/// from now on.
pub(crate) fn status(
    partitions: &Partitions,
    reasons: &WaitReasons<'_>,
    now: Instant,
) -> Vec<(TopicPartition, PartitionStatus)> {
    let status = |(partition, state): (&TopicPartition, &PartitionState)| {
        let (waiting, until) = reasons.of(partition, state, now);
        let sample = &state.offsets.sample;
        let is_seen = sample.at == Some(progress_of(state)) && sample.reason == waiting.name();
        let since = sample.since.filter(|_| is_seen);
        let status = PartitionStatus {
            waiting,
            next_attempt_in: until.map(|until| until.saturating_duration_since(now)),
            waiting_for: since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since)),
            position: state.next_offset(),
            committed: state.commits.offset(),
            lag: state.lag(reasons.rules.isolation.level()),
            buffered_bytes: state.queue.bytes() as u64,
            broker: state.broker,
            split_off: reasons.readers.is_split(partition),
        };
        (partition.clone(), status)
    };
    partitions.iter().map(status).collect()
}

/// Returns the metrics that the consumer's state counts.
pub(crate) fn metrics(
    partitions: &Partitions,
    stats: &FetchStats,
    budget: &MemoryBudget,
    rules: &ConsumerRules,
    now: Instant,
) -> ConsumerMetrics {
    let mut metrics = stats.sums.clone();
    stats.rebalances.write_to(now, &mut metrics);
    metrics.buffered_bytes = budget.used() as u64;
    metrics.buffer_total_bytes = rules.queued_bytes as u64;
    let of = |(partition, state): (&TopicPartition, &PartitionState)| {
        let position = state.next_offset();
        let start = Some(state.offsets.log_start).filter(|start| *start >= 0);
        let lead = position.zip(start).map(|(position, start)| position.saturating_sub(start));
        let metrics = PartitionMetrics {
            position,
            lag: state.lag(rules.isolation.level()),
            lead: lead.map(|lead| u64::try_from(lead).unwrap_or(0)),
            buffered_bytes: state.queue.bytes() as u64,
            records_consumed: state.delivered.load(Relaxed),
            records_fetched: state.offsets.records,
            bytes_fetched: state.offsets.bytes,
            batches_fetched: state.offsets.batches,
        };
        (partition.clone(), metrics)
    };
    metrics.partitions = partitions.iter().map(of).collect();
    metrics
}

/// Returns how far a partition has come: the delivered and the fetched offset, −1 where unknown.
pub(super) fn progress_of(state: &PartitionState) -> (i64, i64) {
    let delivered = state.progress.as_ref().map_or(-1, |progress| progress.delivered());
    let fetched = if let FetchState::Fetching { offset, .. } = state.position.state() { offset } else { -1 };
    (delivered, fetched)
}
