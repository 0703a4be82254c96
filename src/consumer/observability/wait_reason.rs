//! Reasons for which partitions wait, with their durations, so that no consumer stalls silently.
//!
//! Sans-IO.

use std::time::Duration;

use crate::error::Error;

/// Delay of a fetch response beyond `fetch.max.wait.ms` after which the broker is considered late.
pub(crate) const LATE: Duration = Duration::from_secs(5);

/// The reason for which a partition waits: one at a time, the first that applies.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum WaitReason {
    /// The user has [paused](crate::consumer::Consumer::pause) the partition.
    Paused,
    /// The group revokes the partition, and the reader still has to finish the records that it
    /// holds.
    Revoking,
    /// The user's [rebalance listener](crate::consumer::RebalanceListener) has not yet returned the
    /// offset from which to read the partition.
    Listener,
    /// The partition cannot be read past damage, and waits for the user: [skip
    /// it](crate::consumer::Consumer::skip_corrupt), or seek.
    Corrupt,
    /// There is no offset to read from, and `auto.offset.reset` is `none`. The partition waits for
    /// the user to [seek](crate::consumer::Consumer::seek).
    NoOffset,
    /// The partition has no known leader. It may not exist.
    NoLeader,
    /// A request for the position has no response yet: for the committed offset, the log's start or
    /// end, or a truncation check.
    FindingPosition,
    /// After this error the consumer waits for the next attempt, which it [makes by
    /// itself](PartitionStatus::next_attempt_in), or for its response.
    BackingOff(Error),
    /// The broker from which the partition is read [throttles the
    /// consumer](PartitionStatus::next_attempt_in) (KIP-219: a quota is exceeded).
    Throttled,
    /// Fetched records wait for the user's next `poll`, `recv` or stream item.
    Reader,
    /// Fetched records wait for the user to read the
    /// [`PartitionStream`](crate::consumer::PartitionStream) of the partition, or for the handlers
    /// of a [`Worker`](crate::Worker).
    PartitionStream,
    /// A fetched batch is being decompressed.
    Decompressing,
    /// Fetched records that are not read yet use up the share of `queued.max.messages.kbytes` of
    /// the broker from which the partition is read, so no fetch is in flight there.
    Memory,
    /// A fetch is in flight; [without a response within this
    /// time](PartitionStatus::next_attempt_in) it is sent again.
    Fetching,
    /// All records were read, and the partition waits for more to be appended.
    Records,
}

impl WaitReason {
    /// Returns a word for the reason, for logs and labels.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Revoking => "revoking",
            Self::Listener => "listener",
            Self::Corrupt => "corrupt",
            Self::NoOffset => "no_offset",
            Self::NoLeader => "no_leader",
            Self::FindingPosition => "finding_position",
            Self::BackingOff(_) => "backing_off",
            Self::Throttled => "throttled",
            Self::Reader => "reader",
            Self::PartitionStream => "partition_stream",
            Self::Decompressing => "decompressing",
            Self::Memory => "memory",
            Self::Fetching => "fetching",
            Self::Records => "records",
        }
    }

    /// Returns true if the partition continues only after the user acts: asks for records, resumes,
    /// seeks.
    pub fn is_for_user(&self) -> bool {
        matches!(
            self,
            Self::Paused
                | Self::Revoking
                | Self::Listener
                | Self::Corrupt
                | Self::NoOffset
                | Self::Reader
                | Self::PartitionStream
        )
    }

    /// Returns true if the partition is merely idle.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self, Self::Records)
    }
}

/// A partition's status, from [`Consumer::status`](crate::consumer::Consumer::status).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PartitionStatus {
    /// The reason for which it waits.
    pub waiting: WaitReason,
    /// Duration of the wait for that reason without progress, to about a second.
    pub waiting_for: Duration,
    /// Longest time until the consumer tries again by itself, if known: the rest of a backoff or a
    /// throttle time, or of the time that a broker has to answer a fetch.
    pub next_attempt_in: Option<Duration>,
    /// The next offset to be delivered, if known.
    pub position: Option<i64>,
    /// The last known committed offset.
    pub committed: Option<i64>,
    /// Number of offsets between the position and the log's end, as of the last fetch response.
    pub lag: Option<u64>,
    /// Bytes that wait for the reader, as fetched (compressed).
    pub buffered_bytes: u64,
    /// The broker from which it is read.
    pub broker: Option<i32>,
    /// True if it is [split off](crate::consumer::Consumer::split_partition).
    pub split_off: bool,
}

pub(crate) fn error_field(waiting: &WaitReason) -> Option<tracing::field::DisplayValue<&Error>> {
    if let WaitReason::BackingOff(error) = waiting { Some(tracing::field::display(error)) } else { None }
}
