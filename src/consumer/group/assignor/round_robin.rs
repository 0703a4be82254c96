//! The round-robin strategy: deals all partitions to the members in turn.
//!
//! Sans-IO.

use std::sync::Arc;

use super::{Assignments, Assignor, GroupMember, GroupSubscription};
use crate::error::BoxError;

/// `roundrobin`: deals all partitions of all topics to the members in turn, skipping members that
/// are not subscribed to the topic. The result is even if all have equal subscriptions; many
/// partitions may move when a member joins or leaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundRobinAssignor;

impl Assignor for RoundRobinAssignor {
    fn name(&self) -> &str {
        "roundrobin"
    }

    fn assign(&self, group: &GroupSubscription) -> Result<Assignments, BoxError> {
        let mut ordered: Vec<&GroupMember> = group.members.iter().collect();
        ordered.sort_by_key(|member| member.order());
        let mut assignments = Assignments::new();
        let mut next = 0;
        let topics: Vec<&Arc<str>> = group.topics.keys().collect();
        for partition in group.partitions(topics) {
            let turns = (0..ordered.len()).map(|turn| (next + turn) % ordered.len());
            let mut takers = turns.filter_map(|at| Some((at, *ordered.get(at)?)));
            let Some((at, member)) = takers.find(|(_, member)| member.wants(&partition.topic)) else {
                continue;
            };
            next = at + 1;
            assignments.entry(member.member_id.clone()).or_default().push(partition);
        }
        Ok(assignments)
    }
}
