//! What is counted and remembered of fetches, for metrics and status.
//!
//! Everything here is added up once for each response, under the assignment's lock, which is held
//! then anyway.
//!
//! Sans-IO.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::consumer::{
    config::settings::IsolationLevel,
    fetch::connection_id::FetchConnectionId,
    observability::{group_stats::RebalanceStats, metrics::ConsumerMetrics},
};
use crate::error::{Error, ErrorCode};

/// What brokers last said of a partition.
#[derive(Debug)]
pub(crate) struct PartitionOffsets {
    pub(crate) high_watermark: i64,
    pub(crate) last_stable: i64,
    pub(crate) log_start: i64,
    /// At which offset the reader was told of the end.
    pub(crate) reported_end: i64,
    /// Why it cannot be read at present.
    pub(crate) error: Option<Error>,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) batches: u64,
    pub(crate) sample: ProgressSample,
}

impl Default for PartitionOffsets {
    fn default() -> Self {
        Self {
            high_watermark: -1,
            last_stable: -1,
            log_start: -1,
            reported_end: -1,
            error: None,
            records: 0,
            bytes: 0,
            batches: 0,
            sample: ProgressSample::default(),
        }
    }
}

impl PartitionOffsets {
    /// The partition is positioned anew.
    pub(crate) fn reset(&mut self) {
        self.reported_end = -1;
    }

    /// It is fetched from there on; what was told of the log's end and is fetched anew is told
    /// anew.
    pub(crate) fn fetched_from(&mut self, offset: i64) {
        if offset < self.reported_end {
            self.reported_end = -1;
        }
    }

    /// Behind the last record that can be read.
    pub(crate) fn end(&self, isolation: IsolationLevel) -> Option<i64> {
        let end = match isolation {
            IsolationLevel::ReadUncommitted => self.high_watermark,
            IsolationLevel::ReadCommitted => self.last_stable,
        };
        (end >= 0).then_some(end)
    }
}

/// What is remembered of a broker, as it is fetched from over one connection.
#[derive(Debug, Default)]
pub(crate) struct BrokerFetchStats {
    /// Since when a fetch is under way.
    pub(crate) sent_at: Option<Instant>,
    /// Until when it has to be answered.
    pub(crate) due: Option<Instant>,
    /// Why the last fetch failed, if it did.
    pub(crate) error: Option<Error>,
    /// It asked for silence until then (KIP-219).
    pub(crate) throttled_until: Option<Instant>,
}

#[derive(Debug, Default)]
pub(crate) struct FetchStats {
    pub(crate) sums: ConsumerMetrics,
    /// By the connection that is fetched over.
    pub(crate) brokers: BTreeMap<FetchConnectionId, BrokerFetchStats>,
    pub(crate) rebalances: RebalanceStats,
}

impl FetchStats {
    /// A fetch leaves, to be answered within that time.
    pub(crate) fn fetch_sent(&mut self, node: FetchConnectionId, timeout: Duration, now: Instant) {
        self.sums.fetches_in_flight += 1;
        let broker = self.brokers.entry(node).or_default();
        broker.sent_at = Some(now);
        broker.due = now.checked_add(timeout);
    }

    /// A fetch was answered, with so many bytes.
    pub(crate) fn fetch_answered(
        &mut self,
        node: FetchConnectionId,
        error: ErrorCode,
        bytes: usize,
        throttle: Duration,
        now: Instant,
    ) {
        let broker = self.brokers.entry(node).or_default();
        let took = broker.sent_at.take().map_or(Duration::ZERO, |asked| now.saturating_duration_since(asked));
        broker.error =
            (!error.is_ok()).then(|| Error::broker(error, format_args!("fetch from broker {}", node.broker)));
        broker.throttled_until = (!throttle.is_zero()).then(|| now + throttle);
        let sums = &mut self.sums;
        sums.fetches += 1;
        sums.fetches_in_flight = sums.fetches_in_flight.saturating_sub(1);
        sums.fetch_bytes.record(bytes as u64);
        sums.fetch_latency_micros.entry(node.broker).or_default().record_micros(took);
        if !error.is_ok() {
            *sums.errors.entry(error).or_default() += 1;
        }
    }

    /// A commit ended after so long.
    pub(crate) fn commit_ended(&mut self, taken: bool, took: Duration) {
        if taken {
            self.sums.commits += 1;
            self.sums.commit_latency_micros.record_micros(took);
        } else {
            self.sums.commits_failed += 1;
        }
    }

    /// A fetch got no answer.
    pub(crate) fn fetch_failed(&mut self, node: FetchConnectionId, error: &Error) {
        let broker = self.brokers.entry(node).or_default();
        broker.sent_at = None;
        broker.error = Some(error.clone());
        self.sums.fetches += 1;
        self.sums.fetches_failed += 1;
        self.sums.fetches_in_flight = self.sums.fetches_in_flight.saturating_sub(1);
    }
}

/// How far a partition had come when it was last looked at.
#[derive(Debug, Default)]
pub(crate) struct ProgressSample {
    /// Handed out, and fetched, up to there.
    pub(crate) at: Option<(i64, i64)>,
    pub(crate) reason: &'static str,
    /// For that reason, without progress, since then.
    pub(crate) since: Option<Instant>,
    /// Without progress, for whatever reasons that are not the user's, since then.
    pub(crate) stuck: Option<Instant>,
    /// The log was told of it.
    pub(crate) warned: bool,
}
