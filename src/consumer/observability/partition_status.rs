//! Finds the reason for which each partition waits, and reports partitions that make no progress.
//!
//! Sans-IO.

use crate::{
    consumer::{
        observability::{
            log_digest::Stall,
            metrics::{ConsumerMetrics, PartitionMetrics},
            wait_reason::{LATE, PartitionStatus, WaitReason, error_field},
        },
        state::ConsumerState,
        subscription::{fetch_position::FetchState, partition_state::PartitionState},
    },
    log::{event, several},
    record::TopicPartition,
};
use std::{
    collections::BTreeMap,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

impl ConsumerState {
    /// Returns the first reason that applies, and the time at which it ends by itself.
    fn waiting(&self, state: &PartitionState, now: Instant) -> (WaitReason, Option<Instant>) {
        let (waiting, until) = self.reason(state, now);
        (waiting, until.filter(|until| *until > now))
    }

    fn reason(&self, state: &PartitionState, now: Instant) -> (WaitReason, Option<Instant>) {
        let later = |at: Option<Instant>| at.is_some_and(|at| at > now);
        if state.revoking {
            return (WaitReason::Revoking, None);
        }
        if state.paused {
            return (WaitReason::Paused, None);
        }
        if state.awaits_listener {
            return (WaitReason::Listener, None);
        }
        if state.corruption.is_some() {
            return (WaitReason::Corrupt, None);
        }
        // Batches that the reader took over count like those that are buffered.
        let handed = state.progress.as_ref().map(|progress| progress.delivered());
        let ahead = matches!((state.position.state(), handed), (FetchState::Fetching { offset, .. }, Some(handed)) if offset > handed);
        if !state.queue.is_empty() || ahead || state.evicted {
            let (waits, reason) = match &state.split {
                Some(split) => (split.is_waiting(), WaitReason::PartitionStream),
                None => (self.reader_waits(), WaitReason::Reader),
            };
            if !waits {
                return (reason, None);
            }
            if !state.queue.is_empty() {
                return (WaitReason::Decompressing, None);
            }
        }
        let asks = state.position.state();
        if asks == FetchState::Stopped {
            return (WaitReason::NoOffset, None);
        }
        let Some((leader, _)) = state.leader else {
            let reason =
                if asks == FetchState::Initializing { WaitReason::FindingPosition } else { WaitReason::NoLeader };
            return (reason, None);
        };
        if later(state.position.not_before())
            && let Some(error) = &state.offsets.error
        {
            return (WaitReason::BackingOff(error.clone()), state.position.not_before());
        }
        if !matches!(asks, FetchState::Fetching { .. }) {
            // A retry is in flight; the error is shown until it succeeds.
            let waiting = state.offsets.error.clone().map_or(WaitReason::FindingPosition, WaitReason::BackingOff);
            return (waiting, None);
        }
        let id = state.connection_id().unwrap_or(leader.into());
        let node = self.connections.get(&id);
        let seen = self.stats.brokers.get(&id);
        if later(node.and_then(|node| node.not_before))
            && let Some(error) = seen.and_then(|seen| seen.error.as_ref())
        {
            return (WaitReason::BackingOff(error.clone()), node.and_then(|node| node.not_before));
        }
        let throttled = seen.and_then(|seen| seen.throttled_until);
        if later(throttled) {
            return (WaitReason::Throttled, throttled);
        }
        let asked = seen.and_then(|seen| seen.sent_at);
        // No fetch is in flight that could show if there are more records.
        if asked.is_none() && node.is_some_and(|node| node.quota.is_starved()) {
            return (WaitReason::Memory, None);
        }
        // A broker answers after `fetch.max.wait.ms` even without records, so a broker that is
        // overdue is not known to have none.
        let overdue = asked.is_some_and(|since| now.saturating_duration_since(since) > self.rules.max_wait + LATE);
        let doubtful = overdue || seen.is_some_and(|seen| seen.error.is_some());
        let end = state.offsets.end(self.rules.isolation);
        if !doubtful && end.is_some_and(|end| handed.is_some_and(|handed| handed >= end)) {
            return (WaitReason::Records, None);
        }
        (WaitReason::Fetching, asked.and(seen.and_then(|seen| seen.due)))
    }

    /// Observes every partition. Logs at DEBUG the reasons that changed. Logs at WARN the
    /// partitions that have made no progress for `patience` although they do not wait for the user:
    /// one line for each cause, repeated every minute. Logs one line at INFO when they make
    /// progress again.
    pub(crate) fn observe(&mut self, patience: Duration, now: Instant) {
        let mut stalls: BTreeMap<String, Stall> = BTreeMap::new();
        let (mut new, mut moving, mut longest) = (false, Vec::new(), Duration::ZERO);
        let partitions: Vec<TopicPartition> = self.partitions.keys().cloned().collect();
        for partition in partitions {
            let Some(state) = self.partitions.get(&partition) else { continue };
            let (waiting, _) = self.waiting(state, now);
            let at = progress_of(state);
            let Some(state) = self.partitions.get_mut(&partition) else { continue };
            let sample = &mut state.offsets.sample;
            let reason = waiting.name();
            let moved = sample.at != Some(at);
            if moved || sample.reason != reason {
                sample.since = Some(now);
            }
            if sample.reason != reason {
                event!(DEBUG, self.rules.origin, %partition, reason, error = error_field(&waiting), "the partition waits");
            }
            // Reasons may alternate (an attempt, a wait, an attempt …): that is no progress.
            if moved || waiting.is_for_user() || waiting.is_idle() {
                if sample.warned {
                    let stuck = sample.stuck.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
                    longest = longest.max(stuck);
                    moving.push(partition.clone());
                }
                (sample.stuck, sample.warned) = (Some(now), false);
            }
            (sample.at, sample.reason) = (Some(at), reason);
            let stuck = sample.stuck.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
            // A missing topic is reported as such, not by its partitions.
            if stuck < patience || self.wanted_topics.is_absent(&partition.topic) {
                continue;
            }
            new |= !sample.warned;
            let error = match waiting {
                WaitReason::BackingOff(error) => Some(error),
                _ => state.offsets.error.clone(),
            };
            let cause = match &error {
                Some(error) => error.code().map_or_else(|| format!("{:?}", error.kind()), |code| code.to_string()),
                None => reason.to_owned(),
            };
            let stall = stalls.entry(cause).or_default();
            stall.longest = stall.longest.max(stuck);
            stall.error = stall.error.take().or(error);
            stall.partitions.push(partition);
        }
        if !stalls.is_empty() && self.journal.is_due_for_stalls(new, now) {
            for (cause, stall) in &stalls {
                stall.write(cause, &self.rules.origin);
            }
            for partition in stalls.into_values().flat_map(|stall| stall.partitions) {
                if let Some(state) = self.partitions.get_mut(&partition) {
                    state.offsets.sample.warned = true;
                }
            }
        }
        if !moving.is_empty() {
            let (count, stalled_s) = (moving.len(), longest.as_secs());
            let partitions = several(&moving);
            event!(INFO, self.rules.origin, %partitions, count, stalled_s, "stalled partitions make progress again");
        }
        self.journal.write(&self.rules.origin, now);
    }

    /// Returns the status of every partition. A reason that [`observe`](Self::observe) has not seen
    /// yet counts from now on.
    pub(crate) fn status(&self, now: Instant) -> Vec<(TopicPartition, PartitionStatus)> {
        let status = |(partition, state): (&TopicPartition, &PartitionState)| {
            let (waiting, until) = self.waiting(state, now);
            let sample = &state.offsets.sample;
            let is_seen = sample.at == Some(progress_of(state)) && sample.reason == waiting.name();
            let since = sample.since.filter(|_| is_seen);
            let status = PartitionStatus {
                waiting,
                next_attempt_in: until.map(|until| until.saturating_duration_since(now)),
                waiting_for: since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since)),
                position: state.progress.as_ref().map(|progress| progress.delivered()),
                committed: state.committed,
                lag: self.lag(partition),
                buffered_bytes: state.queue.bytes() as u64,
                broker: state.broker,
                split_off: state.split.is_some(),
            };
            (partition.clone(), status)
        };
        self.partitions.iter().map(status).collect()
    }

    /// Returns the metrics that the state counts.
    pub(crate) fn metrics(&self, now: Instant) -> ConsumerMetrics {
        let mut metrics = self.stats.sums.clone();
        self.stats.rebalances.write_to(now, &mut metrics);
        metrics.buffered_bytes = self.budget.used() as u64;
        metrics.buffer_total_bytes = self.rules.queued_bytes as u64;
        let of = |(partition, state): (&TopicPartition, &PartitionState)| {
            let position = state.progress.as_ref().map(|progress| progress.delivered());
            let start = Some(state.offsets.log_start).filter(|start| *start >= 0);
            let lead = position.zip(start).map(|(position, start)| position.saturating_sub(start));
            let counted = PartitionMetrics {
                position,
                lag: self.lag(partition),
                lead: lead.map(|lead| u64::try_from(lead).unwrap_or(0)),
                buffered_bytes: state.queue.bytes() as u64,
                records_consumed: state.delivered.load(Relaxed),
                records_fetched: state.offsets.records,
                bytes_fetched: state.offsets.bytes,
                batches_fetched: state.offsets.batches,
            };
            (partition.clone(), counted)
        };
        metrics.partitions = self.partitions.iter().map(of).collect();
        metrics
    }
}

/// Returns how far a partition has come: the delivered and the fetched offset, −1 where unknown.
fn progress_of(state: &PartitionState) -> (i64, i64) {
    let delivered = state.progress.as_ref().map_or(-1, |progress| progress.delivered());
    let fetched = if let FetchState::Fetching { offset, .. } = state.position.state() { offset } else { -1 };
    (delivered, fetched)
}
