//! One call of the rebalance listener.

use crate::record::TopicPartition;
use tokio::sync::oneshot;

/// What the listener is to be told.
#[derive(Debug)]
pub(crate) enum RebalanceCall {
    /// With the number of the positioning in which each is held back until the listener is done.
    Assigned(Vec<(TopicPartition, u64)>),
    Revoked {
        partitions: Vec<TopicPartition>,
        done: oneshot::Sender<()>,
    },
    Lost(Vec<TopicPartition>),
}
