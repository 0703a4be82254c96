//! One call of the rebalance listener.

use crate::record::TopicPartition;
use tokio::sync::oneshot;

/// The event that a call reports to the listener.
#[derive(Debug)]
pub(crate) enum RebalanceCall {
    /// Assigned partitions, each with the seek epoch under which it is held back until the listener
    /// is done.
    Assigned(Vec<(TopicPartition, u64)>),
    Revoked {
        partitions: Vec<TopicPartition>,
        done: oneshot::Sender<()>,
    },
    Lost(Vec<TopicPartition>),
}
