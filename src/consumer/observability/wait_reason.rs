//! Why each partition waits for what it waits for, and since when: so that a consumer cannot stand
//! still silently.
//!
//! Sans-IO.

use std::time::Duration;

use crate::error::Error;

/// How much later than asked for an answer to a fetch may come before it is thought to be in the
/// way.
pub(crate) const LATE: Duration = Duration::from_secs(5);

/// What a partition waits for: one reason at a time, the first that applies.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum WaitReason {
    /// For the user: it is [paused](crate::consumer::Consumer::pause).
    Paused,
    /// For the reader to be done with what it holds, so that the group can have the partition back.
    Revoking,
    /// For the user: the [rebalance listener](crate::consumer::RebalanceListener) has not said yet from where
    /// it is to be read.
    Listener,
    /// For the user: it cannot be read past damage. [Skip it](crate::consumer::Consumer::skip_corrupt), or
    /// seek.
    Corrupt,
    /// For the user: there is no offset to read from, and `auto.offset.reset` is `none`.
    /// [Seek](crate::consumer::Consumer::seek).
    NoOffset,
    /// For the partition to have a leader that is known. It may not exist.
    NoLeader,
    /// For an answer to where it is to be read from: the committed offset, the log's start or end,
    /// whether the log was truncated.
    FindingPosition,
    /// For the next attempt after this error, which [comes by
    /// itself](PartitionStatus::next_attempt_in), or for its answer.
    BackingOff(Error),
    /// For the broker that it is read from, which [asked for
    /// silence](PartitionStatus::next_attempt_in) (KIP-219: a quota is exceeded).
    Throttled,
    /// For the user: fetched records wait for the next `poll`, `recv` or stream item.
    Reader,
    /// For the user: fetched records wait for the [`PartitionStream`](crate::consumer::PartitionStream) that
    /// it was split off to, or for the handlers of a [`Worker`](crate::Worker).
    PartitionStream,
    /// For a fetched batch to be decompressed.
    Decompressing,
    /// For room: what was fetched and not read yet takes all that there is of
    /// `queued.max.messages.kbytes` for the broker that it is read from, so that no fetch is under
    /// way there.
    Memory,
    /// For the broker's answer to a fetch; [after so long](PartitionStatus::next_attempt_in)
    /// without one it is asked anew.
    Fetching,
    /// For records to be appended: all that there are were read.
    Records,
}

impl WaitReason {
    /// A word for it, for logs and labels.
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

    /// Whether it goes on only when the user does something: asks for records, resumes, seeks.
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

    /// Whether nothing is in the way.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self, Self::Records)
    }
}

/// A partition's status, from [`Consumer::status`](crate::consumer::Consumer::status).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PartitionStatus {
    /// What it waits for.
    pub waiting: WaitReason,
    /// For how long it has waited for that without getting any further, to about a second.
    pub waiting_for: Duration,
    /// How long that can last at most before the consumer tries again by itself, where it is known:
    /// how much is left of a back-off or a throttling, or of the time that a broker has to answer a
    /// fetch.
    pub next_attempt_in: Option<Duration>,
    /// The next offset to be handed out, where it is known.
    pub position: Option<i64>,
    /// The offset that is known to be committed.
    pub committed: Option<i64>,
    /// How far the position is behind the log's end, as the last fetch said it.
    pub lag: Option<u64>,
    /// Bytes that wait for the reader, as they came.
    pub buffered_bytes: u64,
    /// The broker that it is read from.
    pub broker: Option<i32>,
    /// Whether it is [split off](crate::consumer::Consumer::split_partition).
    pub split_off: bool,
}

pub(crate) fn error_field(waiting: &WaitReason) -> Option<tracing::field::DisplayValue<&Error>> {
    if let WaitReason::BackingOff(error) = waiting { Some(tracing::field::display(error)) } else { None }
}
