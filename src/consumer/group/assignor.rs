//! Who gets which partition: decided by the group's leader, with one of the strategies that all members know.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::protocol::MemberSubscription;
use crate::record::TopicPartition;

/// A member as the leader sees it.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) subscription: MemberSubscription,
}

impl Member {
    /// The order of members in which every leader must arrive at the same assignment: static ones first, by their
    /// instance ids, so that they keep their place when they come back with another member id (KIP-345).
    pub(crate) fn order(&self) -> (bool, &str) {
        match &self.instance_id {
            Some(instance_id) => (false, instance_id),
            None => (true, &self.id),
        }
    }
}

/// A strategy of `partition.assignment.strategy`. Its members rebalance by the eager protocol: everything is given up before
/// joining anew.
pub(crate) trait Assignor: std::fmt::Debug + Send + Sync {
    /// Its name in the group protocol.
    fn name(&self) -> &'static str;

    /// Shares out the partitions of the topics that exist (`counts`: how many each has) among the members. Members that
    /// get nothing may be missing from the answer. Pure: the same input gives the same answer.
    fn assign(&self, members: &[Member], counts: &BTreeMap<Arc<str>, usize>) -> HashMap<String, Vec<TopicPartition>>;
}
