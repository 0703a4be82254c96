//! Statistics of polls and rebalances, for metrics and status.
//!
//! Sans-IO.

use std::time::Instant;

use crate::consumer::observability::metrics::ConsumerMetrics;
use crate::histogram::Histogram;

/// Times at which a consumer was polled.
#[derive(Debug, Default)]
pub(crate) struct PollStats {
    last: Option<Instant>,
    between: Histogram,
}

impl PollStats {
    /// Records a poll.
    pub(crate) fn record_poll(&mut self, now: Instant) {
        if let Some(last) = self.last.replace(now) {
            self.between.record_micros(now.saturating_duration_since(last));
        }
    }

    /// Writes the statistics to `metrics`.
    pub(crate) fn write_to(&self, now: Instant, metrics: &mut ConsumerMetrics) {
        metrics.poll_interval_micros = self.between.clone();
        metrics.last_poll_age = self.last.map(|last| now.saturating_duration_since(last));
    }
}

/// Counts of partitions that a group assigned and revoked, and rebalance latencies.
#[derive(Debug, Default)]
pub(crate) struct RebalanceStats {
    assigned: (u64, u64),
    revoked: (u64, u64),
    lost: (u64, u64),
    latency: Histogram,
    last: Option<Instant>,
    /// Start of the rebalance that is under way.
    begun: Option<Instant>,
    /// True if partitions were assigned since the subscription, or since the consumer was last out
    /// of the group.
    pub(crate) member: bool,
}

impl RebalanceStats {
    /// Records that the consumer subscribes, for the first time or to other topics.
    pub(crate) fn subscribed(&mut self, now: Instant) {
        self.begun.get_or_insert(now);
    }

    /// Records that the consumer is no longer a member.
    pub(crate) fn left(&mut self) {
        (self.member, self.begun) = (false, None);
    }

    /// Records the end of a rebalance, and the number of partitions that it added.
    pub(crate) fn assigned(&mut self, partitions: usize, now: Instant) {
        count(&mut self.assigned, partitions);
        if let Some(begun) = self.begun.take() {
            self.latency.record_micros(now.saturating_duration_since(begun));
        }
        self.last = Some(now);
        self.member = true;
    }

    /// Records the revocation of that number of partitions.
    pub(crate) fn revoking(&mut self, partitions: usize, now: Instant) {
        count(&mut self.revoked, partitions);
        self.begun.get_or_insert(now);
    }

    /// Records the loss of that number of partitions.
    pub(crate) fn lost(&mut self, partitions: usize, now: Instant) {
        count(&mut self.lost, partitions);
        self.begun.get_or_insert(now);
        self.member = false;
    }

    /// Writes the statistics to `metrics`.
    pub(crate) fn write_to(&self, now: Instant, metrics: &mut ConsumerMetrics) {
        (metrics.rebalances, metrics.partitions_assigned) = self.assigned;
        (metrics.revocations, metrics.partitions_revoked) = self.revoked;
        (metrics.losses, metrics.partitions_lost) = self.lost;
        metrics.rebalance_latency_micros = self.latency.clone();
        metrics.last_rebalance_age = self.last.map(|last| now.saturating_duration_since(last));
    }
}

fn count((times, sum): &mut (u64, u64), partitions: usize) {
    *times += 1;
    *sum += partitions as u64;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::consumer::observability::group_stats::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn counts_rebalances_by_kind_and_measures_latency() {
        let (start, mut rebalances, mut metrics) =
            (Instant::now(), RebalanceStats::default(), ConsumerMetrics::default());
        rebalances.write_to(start, &mut metrics);
        assert_eq!(metrics, ConsumerMetrics::default());
        rebalances.subscribed(start);
        rebalances.assigned(3, start + SECOND);
        assert!(rebalances.member);
        rebalances.revoking(2, start + 10 * SECOND);
        rebalances.lost(1, start + 12 * SECOND);
        assert!(!rebalances.member, "out of the group");
        rebalances.assigned(0, start + 14 * SECOND);
        rebalances.write_to(start + 20 * SECOND, &mut metrics);
        assert_eq!((metrics.rebalances, metrics.partitions_assigned), (2, 3));
        assert_eq!((metrics.revocations, metrics.partitions_revoked), (1, 2));
        assert_eq!((metrics.losses, metrics.partitions_lost), (1, 1));
        assert_eq!(metrics.rebalance_latency_micros.sum(), 5_000_000);
        assert_eq!(metrics.last_rebalance_age, Some(6 * SECOND));
        rebalances.left();
        assert!(!rebalances.member);
    }

    #[test]
    fn poll_interval_starts_with_second_poll() {
        let (start, mut polls, mut metrics) = (Instant::now(), PollStats::default(), ConsumerMetrics::default());
        for second in [0, 1, 5] {
            polls.record_poll(start + second * SECOND);
        }
        polls.write_to(start + 8 * SECOND, &mut metrics);
        assert_eq!((metrics.poll_interval_micros.count(), metrics.poll_interval_micros.sum()), (2, 5_000_000));
        assert_eq!(metrics.last_poll_age, Some(3 * SECOND));
    }
}
