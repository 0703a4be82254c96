//! A consumer's metrics, as returned to the user.

use std::{collections::BTreeMap, time::Duration};

use crate::{cluster::BrokerMetrics, error::ErrorCode, histogram::Histogram, record::TopicPartition};

/// A consumer's metrics, from [`Consumer::metrics`](crate::Consumer::metrics): a snapshot that the
/// caller owns.
///
/// Counters start with the consumer and only grow; a rate is the difference of two snapshots
/// divided by the time between them (Java: `records-consumed-rate`, `bytes-consumed-rate`,
/// `fetch-rate` and all other `-rate` metrics), and [`Histogram::since`] gives the part of a
/// histogram between two snapshots. Values described with *now* are levels that rise and fall.
/// Nothing is counted per record: fetched records are counted with their batches, and delivered
/// ones with their reader's calls.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ConsumerMetrics {
    // ---- records
    /// Records that were delivered to a reader, counted at each delivery (Java:
    /// `records-consumed-total`). Those of a [`Records`](crate::consumer::Records) are counted when
    /// it is dropped.
    pub records_consumed: u64,

    // ---- fetched data
    /// Bytes of fetched batches that wait for their reader or that a request in flight may return,
    /// now: `queued.max.messages.kbytes` limits them.
    pub buffered_bytes: u64,
    /// The limit of `buffered_bytes`.
    pub buffer_total_bytes: u64,
    /// Records in each fetched batch, compacted ones included (Java: `records-per-request-avg`,
    /// which is per request). A batch that is fetched twice, because of a seek or an eviction, is
    /// counted twice. The sum is the number of records fetched.
    pub batch_records: Histogram,
    /// Bytes of each of these batches as fetched: with header, compressed. The sum is Java's
    /// `bytes-consumed-total`.
    pub batch_bytes: Histogram,
    /// Parts of responses that could not be read.
    pub corrupt: u64,

    // ---- fetches
    /// Fetch requests that ended, answered or not (Java: `fetch-total`).
    pub fetches: u64,
    /// Fetch requests without a readable response: the connection was lost, or the request timed
    /// out. They are part of `fetches`.
    pub fetches_failed: u64,
    /// Fetch requests in flight now (Java: part of `requests-in-flight`).
    pub fetches_in_flight: u64,
    /// Bytes of each fetch response, all partitions together (Java: `fetch-size-avg`,
    /// `fetch-size-max`).
    pub fetch_bytes: Histogram,
    /// By broker, microseconds from the time at which a fetch was passed to its connection to its
    /// response, including `fetch.max.wait.ms` and throttling (Java: `fetch-latency-avg`,
    /// `fetch-latency-max`).
    pub fetch_latency_micros: BTreeMap<i32, Histogram>,
    /// Number of errors that brokers returned for fetches, by error code, for whole requests or
    /// single partitions.
    pub errors: BTreeMap<ErrorCode, u64>,

    // ---- commits
    /// Commits that the broker accepted, automatic or by call (Java: `commit-total`).
    pub commits: u64,
    /// Commits that failed after all their retries.
    pub commits_failed: u64,
    /// Microseconds that each successful commit took, including all its retries (Java:
    /// `commit-latency-avg`, `commit-latency-max`).
    pub commit_latency_micros: Histogram,

    // ---- the group
    /// Completed rebalances, including the first one (Java: `rebalance-total`).
    pub rebalances: u64,
    /// Number of times that the group revoked partitions, which were given up once their reader had
    /// finished its records.
    pub revocations: u64,
    /// Number of times that partitions were lost: the group had already assigned them to other
    /// members.
    pub losses: u64,
    /// Partitions that the group assigned, counted at each assignment.
    pub partitions_assigned: u64,
    /// Partitions that the group revoked.
    pub partitions_revoked: u64,
    /// Partitions that were lost.
    pub partitions_lost: u64,
    /// Microseconds from the start of a rebalance (a subscription, a revocation or a loss of
    /// partitions) to its completion (Java: `rebalance-latency-avg`, `rebalance-latency-max`).
    pub rebalance_latency_micros: Histogram,
    /// Time since the last rebalance was completed (Java: `last-rebalance-seconds-ago`).
    pub last_rebalance_age: Option<Duration>,

    // ---- polls
    /// Microseconds between one [`poll`](crate::Consumer::poll) and the next, from start to start
    /// (Java: `time-between-poll-avg`, `time-between-poll-max`). `recv` and streams are called for
    /// each record and are not timed.
    pub poll_interval_micros: Histogram,
    /// Time since the last [`poll`](crate::Consumer::poll) began (Java: `last-poll-seconds-ago`).
    pub last_poll_age: Option<Duration>,

    // ---- partitions and brokers
    /// Metrics of each partition that is assigned now (Java: `assigned-partitions` is their
    /// number).
    pub partitions: BTreeMap<TopicPartition, PartitionMetrics>,
    /// Metrics of each broker. Bootstrap addresses have the ids −1, −2, …
    pub brokers: BTreeMap<i32, BrokerMetrics>,
    /// Age of the cluster metadata; `None` before the first (Java: `metadata-age`).
    pub metadata_age: Option<Duration>,
}

/// A partition's metrics since it was assigned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionMetrics {
    /// The next offset to be delivered, now.
    pub position: Option<i64>,
    /// Number of offsets between the position and the log's end, as of the last fetch response
    /// (Java: `records-lag`).
    pub lag: Option<u64>,
    /// Number of offsets between the log's start and the position (Java: `records-lead`).
    pub lead: Option<u64>,
    /// Bytes that wait for the reader now, as fetched (compressed).
    pub buffered_bytes: u64,
    /// Records that were delivered to a reader, counted at each delivery (Java:
    /// `records-consumed-total` by partition).
    pub records_consumed: u64,
    /// Records that were fetched.
    pub records_fetched: u64,
    /// Bytes of their batches, as fetched (compressed).
    pub bytes_fetched: u64,
    /// Fetched batches; their mean size is `bytes_fetched` divided by this.
    pub batches_fetched: u64,
}

impl ConsumerMetrics {
    /// Returns the largest known lag of a partition (Java: `records-lag-max`).
    pub fn max_lag(&self) -> Option<u64> {
        self.partitions.values().filter_map(|partition| partition.lag).max()
    }

    /// Returns the sum of all known lags.
    pub fn total_lag(&self) -> u64 {
        self.partitions.values().filter_map(|partition| partition.lag).fold(0, u64::saturating_add)
    }

    /// Returns the fetch latencies of all brokers together, in microseconds.
    pub fn all_fetch_latency_micros(&self) -> Histogram {
        let mut all = Histogram::default();
        self.fetch_latency_micros.values().for_each(|of_one| all.merge(of_one));
        all
    }
}
