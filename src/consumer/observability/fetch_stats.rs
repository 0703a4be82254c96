//! Statistics of fetches, for metrics and status.
//!
//! Everything here is updated once for each response, under the lock of `ConsumerState`, which is
//! held then anyway.
//!
//! Sans-IO.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::consumer::{
    fetch::connection_id::FetchConnectionId,
    observability::{group_stats::RebalanceStats, metrics::ConsumerMetrics},
};
use crate::error::{Error, ErrorCode};

/// Statistics of a broker on one fetch connection.
#[derive(Debug, Default)]
pub(crate) struct BrokerFetchStats {
    /// Time at which the fetch in flight was sent.
    pub(crate) sent_at: Option<Instant>,
    /// Time by which it must be answered.
    pub(crate) due: Option<Instant>,
    /// The error of the last fetch, if it failed.
    pub(crate) error: Option<Error>,
    /// End of the throttle time that the broker asked for (KIP-219).
    pub(crate) throttled_until: Option<Instant>,
}

#[derive(Debug, Default)]
pub(crate) struct FetchStats {
    pub(crate) sums: ConsumerMetrics,
    /// Statistics by fetch connection.
    pub(crate) brokers: BTreeMap<FetchConnectionId, BrokerFetchStats>,
    pub(crate) rebalances: RebalanceStats,
}

impl FetchStats {
    /// Records that a fetch was sent, to be answered within that time.
    pub(crate) fn fetch_sent(&mut self, node: FetchConnectionId, timeout: Duration, now: Instant) {
        self.sums.fetches_in_flight += 1;
        let broker = self.brokers.entry(node).or_default();
        broker.sent_at = Some(now);
        broker.due = now.checked_add(timeout);
    }

    /// Records the response to a fetch, with its size in bytes.
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

    /// Records the result and the duration of a commit.
    pub(crate) fn commit_ended(&mut self, taken: bool, took: Duration) {
        if taken {
            self.sums.commits += 1;
            self.sums.commit_latency_micros.record_micros(took);
        } else {
            self.sums.commits_failed += 1;
        }
    }

    /// Records that a fetch got no response.
    pub(crate) fn fetch_failed(&mut self, node: FetchConnectionId, error: &Error) {
        let broker = self.brokers.entry(node).or_default();
        broker.sent_at = None;
        broker.error = Some(error.clone());
        self.sums.fetches += 1;
        self.sums.fetches_failed += 1;
        self.sums.fetches_in_flight = self.sums.fetches_in_flight.saturating_sub(1);
    }
}
