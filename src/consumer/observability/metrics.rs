//! What a consumer has counted, as its user sees it.

use std::{collections::BTreeMap, time::Duration};

use crate::{cluster::BrokerMetrics, error::ErrorCode, histogram::Histogram, record::TopicPartition};

/// What a consumer has counted, from [`Consumer::metrics`]: a snapshot that is the caller's own.
///
/// Counts run from the consumer's start and only grow; a rate is the difference of two snapshots
/// over the time between them (Java: `records-consumed-rate`, `bytes-consumed-rate`, `fetch-rate`
/// and all other `-rate` metrics), and what a histogram saw in between is [`Histogram::since`].
/// What is called *now* is a level that goes up and down. Nothing is counted for each record:
/// fetched records are counted with their batches, and those that were handed out with their
/// reader's calls.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ConsumerMetrics {
    // ---- records
    /// Records that a reader was given, each time that it was given them (Java:
    /// `records-consumed-total`). Those of a [`Records`](crate::consumer::Records) are counted when it is
    /// dropped.
    pub records_consumed: u64,

    // ---- what was fetched
    /// Bytes of fetched batches that wait for their reader or that a request under way may bring,
    /// now: what `queued.max.messages.kbytes` bounds.
    pub buffered_bytes: u64,
    /// That bound.
    pub buffer_total_bytes: u64,
    /// Records in each batch that was fetched, compacted ones too (Java: `records-per-request-avg`,
    /// which it gives for requests). A batch that is fetched twice, because of a seek or for want
    /// of room, is counted twice. The sum is the number of records fetched.
    pub batch_records: Histogram,
    /// Bytes of each of these batches as they came: header included, compressed. The sum is Java's
    /// `bytes-consumed-total`.
    pub batch_bytes: Histogram,
    /// Slices of answers that could not be read.
    pub corrupt: u64,

    // ---- fetches
    /// Fetch requests that ended, answered or not (Java: `fetch-total`).
    pub fetches: u64,
    /// Of these, those that got no answer that could be read: the connection was lost, or the time
    /// was up.
    pub fetches_failed: u64,
    /// Fetch requests under way now (Java: part of `requests-in-flight`).
    pub fetches_in_flight: u64,
    /// Bytes of each answer to a fetch, all partitions together (Java: `fetch-size-avg`,
    /// `fetch-size-max`).
    pub fetch_bytes: Histogram,
    /// By broker, microseconds from when a fetch was given to its connection to its answer,
    /// `fetch.max.wait.ms` and throttling included (Java: `fetch-latency-avg`,
    /// `fetch-latency-max`).
    pub fetch_latency_micros: BTreeMap<i32, Histogram>,
    /// What brokers answered to fetches, of the whole or of single partitions, other than that all
    /// is well, and how often.
    pub errors: BTreeMap<ErrorCode, u64>,

    // ---- commits
    /// Commits that the broker took, by themselves or by call (Java: `commit-total`).
    pub commits: u64,
    /// Commits that failed for good, with all their retries.
    pub commits_failed: u64,
    /// Microseconds that a commit took that was taken, with all its retries (Java:
    /// `commit-latency-avg`, `commit-latency-max`).
    pub commit_latency_micros: Histogram,

    // ---- the group
    /// Rebalances that were completed, the first one among them (Java: `rebalance-total`).
    pub rebalances: u64,
    /// Times that the group took partitions back, which were given up once their reader was done
    /// with them.
    pub revocations: u64,
    /// Times that partitions were lost: the group had given them away already.
    pub losses: u64,
    /// Partitions that the group gave, each time that it gave them.
    pub partitions_assigned: u64,
    /// Partitions that it took back.
    pub partitions_revoked: u64,
    /// Partitions that were lost.
    pub partitions_lost: u64,
    /// Microseconds from the first sign of a rebalance (a subscription, partitions that are to be
    /// given up or are lost) to its completion (Java: `rebalance-latency-avg`,
    /// `rebalance-latency-max`).
    pub rebalance_latency_micros: Histogram,
    /// How long ago the last rebalance was completed (Java: `last-rebalance-seconds-ago`).
    pub last_rebalance_age: Option<Duration>,

    // ---- polls
    /// Microseconds between one [`poll`](Consumer::poll) and the next, from beginning to beginning
    /// (Java: `time-between-poll-avg`, `time-between-poll-max`). `recv` and streams are asked for
    /// each record and not timed.
    pub poll_interval_micros: Histogram,
    /// How long ago the last [`poll`](Consumer::poll) began (Java: `last-poll-seconds-ago`).
    pub last_poll_age: Option<Duration>,

    // ---- partitions and brokers
    /// The partitions that are assigned now (Java: `assigned-partitions` is their number).
    pub partitions: BTreeMap<TopicPartition, PartitionMetrics>,
    /// What was counted of each broker. Bootstrap addresses are −1, −2, …
    pub brokers: BTreeMap<i32, BrokerMetrics>,
    /// How old the picture of the cluster is; `None` before the first (Java: `metadata-age`).
    pub metadata_age: Option<Duration>,
}

/// What was counted of a partition since it was assigned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionMetrics {
    /// The next offset to be handed out, now.
    pub position: Option<i64>,
    /// How far that is behind the log's end, as the last fetch said it (Java: `records-lag`).
    pub lag: Option<u64>,
    /// How far it is ahead of the log's start (Java: `records-lead`).
    pub lead: Option<u64>,
    /// Bytes that wait for the reader, as they came, now.
    pub buffered_bytes: u64,
    /// Records of it that a reader was given, each time that it was given them (Java:
    /// `records-consumed-total` by partition).
    pub records_consumed: u64,
    /// Records that were fetched.
    pub records_fetched: u64,
    /// Bytes of their batches, as they came.
    pub bytes_fetched: u64,
    /// Batches that were fetched; their mean size is `bytes_fetched` through this.
    pub batches_fetched: u64,
}

impl ConsumerMetrics {
    /// The largest lag of a partition, as far as known (Java: `records-lag-max`).
    pub fn max_lag(&self) -> Option<u64> {
        self.partitions.values().filter_map(|partition| partition.lag).max()
    }

    /// The lags of all partitions together, as far as known.
    pub fn total_lag(&self) -> u64 {
        self.partitions.values().filter_map(|partition| partition.lag).fold(0, u64::saturating_add)
    }

    /// The latencies of all brokers together, in microseconds.
    pub fn all_fetch_latency_micros(&self) -> Histogram {
        let mut all = Histogram::default();
        self.fetch_latency_micros.values().for_each(|of_one| all.merge(of_one));
        all
    }
}
