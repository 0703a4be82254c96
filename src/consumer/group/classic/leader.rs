//! The leader of a generation: it assigns the partitions, and watches for topics that change.
//!
//! Sans-IO.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;

use crate::{
    consumer::group::{
        assignor::{Assignor, GroupMember, PartitionRacks, share_out},
        classic::{
            actions::{JoinedMember, TopicPartitions},
            member_metadata::MemberSubscription,
        },
    },
    error::{Result, clean},
    log::{Origin, event},
};

/// The topics that the member assigned as the leader; none if it follows.
#[derive(Debug)]
pub(super) struct Leader {
    /// The partitions that the assignment was made from.
    counts: Option<TopicPartitions>,
    /// True if the places of replicas matter, as they do to members with a rack (KIP-881).
    uses_racks: bool,
}

impl Leader {
    pub(super) fn new(uses_racks: bool) -> Self {
        Self { counts: None, uses_racks }
    }

    pub(super) fn leads(&self) -> bool {
        self.counts.is_some()
    }

    pub(super) fn watch(&mut self, counts: TopicPartitions) {
        self.counts = Some(counts);
    }

    pub(super) fn stop(&mut self) {
        self.counts = None;
    }

    /// Returns true if the partitions of a watched topic have changed; `look` returns a topic's
    /// current ones.
    pub(super) fn sees_change(&self, look: impl Fn(&str) -> Option<Vec<PartitionRacks>>) -> bool {
        let differ = |before: &Vec<PartitionRacks>, now: Vec<PartitionRacks>| {
            before.len() != now.len() || (self.uses_racks && *before != now)
        };
        let mut watched = self.counts.iter().flatten();
        watched.any(|(topic, before)| differ(before, look(topic).unwrap_or_default()))
    }
}

/// An assignment that waits for the partitions of its topics.
#[derive(Debug)]
pub(super) struct PendingAssignment {
    assignor: Arc<dyn Assignor>,
    members: Vec<GroupMember>,
    /// The group keeps its assignment; the leader only watches the topics from now on (KIP-814).
    keep: bool,
    topics: BTreeSet<Arc<str>>,
}

/// A leader's assignment.
pub(super) struct CompletedAssignment {
    pub(super) protocol: Arc<str>,
    /// The encoded assignment of each member; empty if the group keeps its assignment.
    pub(super) assignments: Result<Vec<(Arc<str>, Bytes)>>,
    /// The partitions of all topics; a topic that does not exist has none.
    pub(super) counts: TopicPartitions,
}

impl PendingAssignment {
    /// Reads the members' subscriptions.
    pub(super) fn new(assignor: Arc<dyn Assignor>, members: Vec<JoinedMember>, keep: bool, origin: &Origin) -> Self {
        let members: Vec<GroupMember> = members.into_iter().map(|member| read_member(member, origin)).collect();
        let topics = members.iter().flat_map(|member| member.topics.iter().cloned()).collect();
        Self { assignor, members, keep, topics }
    }

    /// Returns the topics that the members subscribe to.
    pub(super) fn topics(&self) -> &BTreeSet<Arc<str>> {
        &self.topics
    }

    /// Assigns the partitions of these topics; topics that do not exist are missing.
    pub(super) fn complete(self, known: TopicPartitions) -> CompletedAssignment {
        let known: TopicPartitions = known.into_iter().filter(|(topic, _)| self.topics.contains(topic)).collect();
        let assignments =
            if self.keep { Ok(Vec::new()) } else { share_out(&*self.assignor, self.members, known.clone()) };
        let counts = self.topics.into_iter().map(|topic| {
            let partitions = known.get(&topic).cloned().unwrap_or_default();
            (topic, partitions)
        });
        CompletedAssignment { protocol: self.assignor.name().into(), assignments, counts: counts.collect() }
    }
}

/// Reads a member's subscription. If it is damaged, the member takes part with the readable fields,
/// so that the others are not affected.
fn read_member(member: JoinedMember, origin: &Origin) -> GroupMember {
    let (subscription, damage) = MemberSubscription::read(&member.metadata);
    if let Some(error) = damage {
        event!(
            WARN, *origin, member = &*clean(&member.id), topics = subscription.topics.len(), %error,
            "the subscription of a group member is damaged: the member gets partitions of the topics that could be read"
        );
    }
    GroupMember {
        member_id: member.id.into(),
        instance_id: member.instance_id.map(Arc::from),
        topics: subscription.topics,
        owned: subscription.owned,
        generation: (subscription.generation >= 0).then_some(subscription.generation),
        rack: subscription.rack.filter(|rack| !rack.is_empty()).map(Arc::from),
        user_data: subscription.user_data,
    }
}
