//! Groups that move between the protocols: a classic one while a member of the consumer protocol
//! joins it, and back when only classic members are left (KIP-848). Committed offsets stay.

use std::time::Instant;

use super::{Group, GroupSettings, JoinOutcome, Member, Phase};
use crate::{
    error::ErrorCode,
    testkit::state::consumer_group::{ClassicMember, ConsumerGroup, ConsumerGroupSettings, Moved, Picture},
};

impl Group {
    /// Returns true if the group is one of the consumer protocol.
    pub(crate) fn is_consumer(&self) -> bool {
        self.consumer.is_some()
    }

    pub(crate) fn consumer(&mut self) -> Option<&mut ConsumerGroup> {
        self.consumer.as_deref_mut()
    }

    /// Converts the group to the consumer protocol, with its present members.
    pub(crate) fn upgrade(
        &mut self,
        metadata: &Picture,
        settings: &ConsumerGroupSettings,
    ) -> Result<&mut ConsumerGroup, ErrorCode> {
        if self.consumer.is_none() {
            let moves = settings.migrates && self.protocol_type.as_deref() == Some("consumer");
            if !self.members.is_empty() && !moves {
                return Err(ErrorCode::GROUP_ID_NOT_FOUND);
            }
            let members = self.members.iter().map(|member| Moved {
                id: member.id.clone(),
                instance: member.instance.clone(),
                client_id: member.client_id.clone(),
                rebalance_timeout: member.rebalance_timeout,
                expires: member.expires,
                member: ClassicMember { session_timeout: member.session_timeout, protocols: member.protocols.clone() },
                assignment: member.assignment.clone(),
            });
            let generation = if self.members.is_empty() { 0 } else { self.generation };
            let consumer = ConsumerGroup::from_classic(generation, members.collect(), metadata);
            self.consumer = Some(Box::new(consumer.ok_or(ErrorCode::GROUP_ID_NOT_FOUND)?));
            self.let_go();
        }
        self.consumer.as_deref_mut().ok_or(ErrorCode::GROUP_ID_NOT_FOUND)
    }

    /// Ends all waits, so that the members come again.
    fn let_go(&mut self) {
        for at in 0..self.members.len() {
            self.fail_sync(at, ErrorCode::REBALANCE_IN_PROGRESS);
        }
        for member in std::mem::take(&mut self.members) {
            if let Some(ticket) = member.joining {
                self.joins.insert(ticket, JoinOutcome::error(ErrorCode::REBALANCE_IN_PROGRESS, member.id));
            }
        }
        self.phase = Phase::Empty;
        self.pending.clear();
        (self.leader, self.protocol) = (None, None);
    }

    /// Converts the group back to the classic protocol: at once if it has no members, otherwise
    /// with its classic members, which rebalance.
    pub(crate) fn downgrade(&mut self, now: Instant, metadata: &Picture, settings: &GroupSettings) {
        let Some(consumer) = self.consumer.take() else { return };
        let (generation, members) = consumer.into_classic(metadata);
        self.generation = generation;
        if members.is_empty() {
            return;
        }
        self.protocol_type = Some("consumer".to_owned());
        self.members = members
            .into_iter()
            .map(|moved| Member {
                id: moved.id,
                instance: moved.instance,
                client_id: moved.client_id,
                session_timeout: moved.member.session_timeout,
                rebalance_timeout: moved.rebalance_timeout,
                protocols: moved.member.protocols,
                assignment: moved.assignment,
                expires: moved.expires,
                joining: None,
                syncing: None,
                synced: true,
            })
            .collect();
        self.leader = self.members.first().map(|member| member.id.clone());
        self.protocol = self.select_protocol();
        self.phase = Phase::Stable { until: None };
        self.rebalance(now, settings);
    }
}
