//! Groups that move between the protocols: a classic one while a member of the consumer protocol
//! joins it, and back when only classic members are left (KIP-848). Committed offsets stay.
//!
//! Sans-IO.

use std::time::Instant;

use super::{Group, classic_group::GroupSettings, members::Member};
use crate::{
    error::ErrorCode,
    testkit::state::consumer_group::{ClassicMember, ConsumerGroup, ConsumerGroupSettings, Moved, Picture},
};

impl Group {
    /// Converts the group to the consumer protocol, with its present members.
    pub(crate) fn upgrade(
        &mut self,
        metadata: &Picture,
        settings: &ConsumerGroupSettings,
    ) -> Result<&mut ConsumerGroup, ErrorCode> {
        if self.consumer.is_none() {
            let classic = &mut self.classic;
            let moves = settings.migrates && classic.protocol_type.as_deref() == Some("consumer");
            if !classic.members.is_empty() && !moves {
                return Err(ErrorCode::GROUP_ID_NOT_FOUND);
            }
            let members = classic.members.iter().map(|member| Moved {
                id: member.id.clone(),
                instance: member.instance.clone(),
                client_id: member.client_id.clone(),
                rebalance_timeout: member.rebalance_timeout,
                expires: member.expires,
                member: ClassicMember { session_timeout: member.session_timeout, protocols: member.protocols.clone() },
                assignment: member.assignment.clone(),
            });
            let generation = if classic.members.is_empty() { 0 } else { classic.generation };
            let consumer = ConsumerGroup::from_classic(generation, members.collect(), metadata);
            self.consumer = Some(Box::new(consumer.ok_or(ErrorCode::GROUP_ID_NOT_FOUND)?));
            classic.dismiss(ErrorCode::REBALANCE_IN_PROGRESS);
        }
        self.consumer.as_deref_mut().ok_or(ErrorCode::GROUP_ID_NOT_FOUND)
    }

    /// Converts the group back to the classic protocol: at once if it has no members, otherwise
    /// with its classic members, which rebalance.
    pub(crate) fn downgrade(&mut self, now: Instant, metadata: &Picture, settings: &GroupSettings) {
        let Some(consumer) = self.consumer.take() else { return };
        let (generation, members) = consumer.into_classic(metadata);
        let members = members.into_iter().map(|moved| Member {
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
        });
        let members: Vec<_> = members.collect();
        if members.is_empty() {
            self.classic.generation = generation;
        } else {
            self.classic.take_over(now, generation, members, settings);
        }
    }
}
