//! Membership: identities and their fences, heartbeats, leaving, and the removal of members that
//! are late.

use std::time::Instant;

use super::{Group, GroupSettings, JoinOutcome, Phase};
use crate::error::ErrorCode;
use crate::testkit::state::group::identity::MemberIdentity;

impl Group {
    /// Finds the member, unless it is unknown or another one has taken over its instance id.
    pub(super) fn check_identity(&self, identity: &MemberIdentity) -> Result<usize, ErrorCode> {
        if let Some(instance) = &identity.instance {
            let at = self.members.iter().position(|member| member.instance.as_ref() == Some(instance));
            let at = at.ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?;
            let same = self.members.get(at).is_some_and(|member| member.id == identity.member_id);
            return if same { Ok(at) } else { Err(ErrorCode::FENCED_INSTANCE_ID) };
        }
        self.index(&identity.member_id).ok_or(ErrorCode::UNKNOWN_MEMBER_ID)
    }

    pub(super) fn check_generation(&self, generation: i32) -> Result<(), ErrorCode> {
        if generation == self.generation { Ok(()) } else { Err(ErrorCode::ILLEGAL_GENERATION) }
    }

    /// Handles a heartbeat.
    pub(crate) fn heartbeat(
        &mut self,
        now: Instant,
        identity: &MemberIdentity,
        generation: i32,
        settings: &GroupSettings,
    ) -> Result<(), ErrorCode> {
        self.advance(now, settings);
        let at = self.check_identity(identity)?;
        self.check_generation(generation)?;
        if let Some(member) = self.members.get_mut(at) {
            member.heard(now);
        }
        match self.phase {
            Phase::Empty => Err(ErrorCode::UNKNOWN_MEMBER_ID),
            Phase::Preparing { .. } => Err(ErrorCode::REBALANCE_IN_PROGRESS),
            Phase::Completing { .. } | Phase::Stable { .. } => Ok(()),
        }
    }

    /// Removes a member. An administrator names only the instance of a static member.
    pub(crate) fn leave(
        &mut self,
        now: Instant,
        identity: &MemberIdentity,
        settings: &GroupSettings,
    ) -> Result<(), ErrorCode> {
        self.advance(now, settings);
        if self.pending.remove(&identity.member_id).is_some() {
            self.try_complete(now, settings);
            return Ok(());
        }
        let at = match &identity.instance {
            Some(instance) if identity.member_id.is_empty() => {
                let at = self.members.iter().position(|member| member.instance.as_ref() == Some(instance));
                at.ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?
            }
            _ => self.check_identity(identity)?,
        };
        if let Some(id) = self.members.get(at).map(|member| member.id.clone()) {
            self.remove(&id, now, settings);
            self.try_complete(now, settings);
        }
        Ok(())
    }

    /// Removes a member and lets the others share its partitions.
    pub(super) fn remove(&mut self, member_id: &str, now: Instant, settings: &GroupSettings) {
        let Some(at) = self.index(member_id) else { return };
        self.fail_sync(at, ErrorCode::UNKNOWN_MEMBER_ID);
        let member = self.members.remove(at);
        if let Some(ticket) = member.joining {
            self.joins.insert(ticket, JoinOutcome::error(ErrorCode::UNKNOWN_MEMBER_ID, member.id));
        }
        if self.is_leader(member_id) {
            self.leader = self.members.first().map(|member| member.id.clone());
        }
        self.rebalance(now, settings);
    }

    /// Forgets all members, and that there were any.
    pub(crate) fn forget_members(&mut self) {
        for at in 0..self.members.len() {
            self.fail_sync(at, ErrorCode::UNKNOWN_MEMBER_ID);
        }
        for member in self.members.drain(..) {
            if let Some(ticket) = member.joining {
                self.joins.insert(ticket, JoinOutcome::error(ErrorCode::UNKNOWN_MEMBER_ID, member.id));
            }
        }
        self.consumer = None;
        self.pending.clear();
        self.phase = Phase::Empty;
        self.generation = 0;
        self.leader = None;
        self.protocol = None;
        self.protocol_type = None;
    }

    /// Ends the waits of all members, which have to find the new coordinator. The generation and
    /// its assignment stay, because the new coordinator reads them from the log.
    pub(crate) fn coordinator_moved(&mut self) {
        for at in 0..self.members.len() {
            self.fail_sync(at, ErrorCode::NOT_COORDINATOR);
            if let Some(member) = self.members.get_mut(at)
                && let Some(ticket) = member.joining.take()
            {
                self.joins.insert(ticket, JoinOutcome::error(ErrorCode::NOT_COORDINATOR, member.id.clone()));
            }
        }
    }
}
