//! Consumers: read records of partitions that the program assigns, or as a member of a group.
//!
//! The path of a record:
//!
//! 1. `fetch/broker_selection` decides which broker a partition is read from: the leader, or a
//!    preferred read replica.
//! 2. `fetch/fetch_task` sends one broker the request that `fetch/planner` plans, with memory
//!    reserved in `fetch/memory_budget`. `fetch/connection_scaling` decides over how many
//!    connections.
//! 3. `fetch/batch_scan` reads the headers of the batches in the response, and
//!    `fetch/partition_response` appends the batches to the partition's `buffer/partition_buffer`
//!    without copying them.
//! 4. `buffer/record_reader` gets batches in turn over the partitions (`buffer/delivery_queue`),
//!    decodes them and returns their records.
//! 5. `subscription/delivery_progress` counts which records were delivered and which are completed;
//!    completed offsets are committed.
//!
//! `subscription/fetch_position` and `subscription/offset_resolution` determine the offset from
//! which a partition is read, and `background/consumer_task` sends the requests for that, follows
//! the group and commits. `state` owns the partitions and holds all of these together under one
//! lock.

mod api;
mod background;
mod buffer;
mod config;
mod fetch;
#[cfg(all(any(test, fuzzing), feature = "testkit"))]
pub(crate) mod fuzz;
pub(crate) mod group;
mod lock;
mod observability;
mod state;
mod subscription;
#[cfg(any(test, all(fuzzing, feature = "testkit")))]
mod test_batches;
#[cfg(all(test, feature = "testkit"))]
mod tests;

pub mod assignor {
    //! Assignors of the classic protocol (`partition.assignment.strategy`): the built-in ones, and
    //! the trait for a program's own.

    pub use super::group::assignor::{
        Assignments, Assignor, CooperativeStickyAssignor, GroupMember, GroupSubscription, LastAssignment,
        PartitionRacks, RangeAssignor, RebalanceProtocol, RoundRobinAssignor, StickyAssignor,
    };
}

pub use self::api::builder::ConsumerBuilder;
pub use self::api::consumer::Consumer;
pub use self::api::offset_queries::OffsetAndTimestamp;
pub use self::api::partition_stream::PartitionStream;
pub use self::api::pending_commit::PendingCommit;
pub use self::api::rebalance_listener::{Assigned, ListenerResult, RebalanceListener, Revoked};
pub use self::api::record_ref::{RecordHeaders, RecordRef};
pub use self::api::record_stream::RecordStream;
pub use self::api::records::{PartitionRecords, Records, RecordsIter};
pub(crate) use self::buffer::manual_reader::{CompletionMark, ManualPartitionReader, ManualReader, ManualReaderEvent};
pub use self::config::settings::{GroupProtocol, IsolationLevel, OffsetReset};
pub use self::observability::consumer_status::ConsumerStatus;
pub use self::observability::metrics::{ConsumerMetrics, PartitionMetrics};
pub use self::observability::wait_reason::{PartitionStatus, WaitReason};
pub use self::subscription::wanted_topics::{TopicState, TopicStatus};
pub(crate) use crate::consumer::buffer::partition_end::PartitionEnd;
pub use crate::consumer::group::status::{GroupState, GroupStatus};
pub use crate::record::OffsetAndMetadata;
