//! Reading from the log: alone over chosen partitions, or as a member of a group.
//!
//! A record's way in: `routes` says which broker a partition is read from (its leader, or a replica
//! `nearby`). `fetch_task` asks one broker for what `fetcher` plans (a session of `fetch_session`,
//! as much as `answer_size` says, bytes reserved in `budget`; over more than one connection where
//! `lanes` says so) and walks the headers of what came (`walk`); `arrivals` queues the batches of
//! each partition (`queue`) without copying them. The `reader` takes them in fair turns
//! (`handout`), opens them (`part`) and hands out their records: owned ones, many at once where it
//! waits for a full batch (`recv_batch`, `gathered`), or borrowed ones (`records`). Partitions that
//! are split off (`split`) have a reader of their own (`partition_stream`). How far it has come is
//! kept in a `lease`; where a partition is read from is found out in `position` and `resolve`,
//! behind damage in `search`. `consumer_task` asks the questions, follows the group and commits.

mod answer_size;
mod arrivals;
mod asked_commits;
mod assignment;
mod budget;
mod builder;
#[expect(clippy::module_inception, reason = "the consumer is the room's main thing")]
mod consumer;
mod consumer_status;
mod consumer_task;
mod empty_answers;
mod fetch_session;
mod fetch_task;
mod fetcher;
#[cfg(all(any(test, fuzzing), feature = "testkit"))]
pub(crate) mod fuzz;
mod gathered;
pub(crate) mod group;
mod hand;
mod handout;
mod inbox;
mod journal;
mod lanes;
mod lease;
mod leave_on_drop;
mod listener_task;
mod lookups;
mod metrics;
mod nearby;
mod offset_lookup;
mod offsets;
mod pace;
mod part;
mod partition;
mod partition_stream;
mod pending_commit;
mod position;
mod positioning;
mod positions;
mod properties;
mod questions_task;
mod queue;
mod reader;
mod rebalance_listener;
mod record_ref;
mod records;
mod recv_batch;
mod resets;
mod resolve;
mod routes;
mod search;
mod settings;
mod shared;
mod split;
mod status;
mod stream;
pub(crate) mod subscription;
#[cfg(any(test, all(fuzzing, feature = "testkit")))]
mod test_batches;
#[cfg(all(test, feature = "testkit"))]
mod tests;
mod trouble;
mod walk;
mod wanted_topics;
mod watch;

pub use builder::ConsumerBuilder;
pub use consumer::Consumer;
pub use consumer_status::{ConsumerStatus, GroupState, GroupStatus};
pub use group::assignor::{
    Assignments, Assignor, CooperativeStickyAssignor, GroupMember, GroupSubscription, LastAssignment, PartitionRacks,
    RangeAssignor, RebalanceProtocol, RoundRobinAssignor, StickyAssignor,
};
pub(crate) use hand::{CompletionMark, ManualPartitionReader, ManualReader, ManualReaderEvent, PartitionEnd};
pub use lookups::OffsetAndTimestamp;
pub use metrics::{ConsumerMetrics, PartitionMetrics};
pub use offsets::OffsetAndMetadata;
pub use partition_stream::PartitionStream;
pub use pending_commit::PendingCommit;
pub use rebalance_listener::{Assigned, ListenerResult, RebalanceListener, Revoked};
pub use record_ref::{RecordHeaders, RecordRef};
pub use records::{PartitionRecords, Records, RecordsIter};
pub use settings::{GroupProtocol, IsolationLevel, OffsetReset};
pub use status::{PartitionStatus, WaitReason};
pub use stream::RecordStream;
pub use wanted_topics::{TopicState, TopicStatus};
