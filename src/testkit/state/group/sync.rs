//! Distribution of the leader's assignment.

use std::time::Instant;

use bytes::Bytes;

use super::{Group, GroupSettings, MemberIdentity, Outcome, Phase};
use crate::error::ErrorCode;

/// A SyncGroup request, whatever its version.
#[derive(Clone, Debug)]
pub(crate) struct SyncRequest {
    pub(crate) identity: MemberIdentity,
    pub(crate) generation: i32,
    /// The protocol that the member believes was selected (v5, KIP-559).
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    /// The leader's assignment for each member.
    pub(crate) assignments: Vec<(String, Bytes)>,
}

/// The response to a SyncGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyncOutcome {
    pub(crate) error: ErrorCode,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) assignment: Bytes,
}

impl SyncOutcome {
    pub(crate) fn error(error: ErrorCode) -> Self {
        Self { error, protocol_type: None, protocol: None, assignment: Bytes::new() }
    }
}

impl Group {
    /// Handles a SyncGroup: a member asks for its assignment, and the leader brings the assignments
    /// of all members.
    pub(crate) fn sync(
        &mut self,
        now: Instant,
        request: SyncRequest,
        settings: &GroupSettings,
    ) -> Outcome<SyncOutcome> {
        self.advance(now, settings);
        match self.try_sync(now, request) {
            Ok(outcome) => outcome,
            Err(error) => Outcome::Done(SyncOutcome::error(error)),
        }
    }

    fn try_sync(&mut self, now: Instant, request: SyncRequest) -> Result<Outcome<SyncOutcome>, ErrorCode> {
        let at = self.check_identity(&request.identity)?;
        self.check_generation(request.generation)?;
        let differs = |theirs: &Option<String>, ours: &Option<String>| theirs.is_some() && theirs != ours;
        if differs(&request.protocol_type, &self.protocol_type) || differs(&request.protocol, &self.protocol) {
            return Err(ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
        }
        match self.phase {
            Phase::Empty => Err(ErrorCode::UNKNOWN_MEMBER_ID),
            Phase::Preparing { .. } => Err(ErrorCode::REBALANCE_IN_PROGRESS),
            Phase::Stable { .. } => {
                self.mark_synced(at, now);
                Ok(Outcome::Done(self.assignment(at)))
            }
            Phase::Completing { until } => {
                self.fail_sync(at, ErrorCode::UNKNOWN_MEMBER_ID);
                self.mark_synced(at, now);
                let ticket = self.ticket();
                if let Some(member) = self.members.get_mut(at) {
                    member.syncing = Some(ticket);
                }
                if !self.is_leader(&request.identity.member_id) {
                    return Ok(Outcome::Wait(ticket));
                }
                self.assign(now, until, request.assignments);
                Ok(self.take_sync(ticket).map_or(Outcome::Wait(ticket), Outcome::Done))
            }
        }
    }

    fn assign(&mut self, now: Instant, until: Instant, assignments: Vec<(String, Bytes)>) {
        for member in &mut self.members {
            let given = assignments.iter().find(|(id, _)| *id == member.id);
            member.assignment = given.map(|(_, assignment)| Bytes::copy_from_slice(assignment)).unwrap_or_default();
        }
        self.phase = Phase::Stable { until: Some(until) };
        for at in 0..self.members.len() {
            let Some(member) = self.members.get_mut(at) else { continue };
            let Some(ticket) = member.syncing.take() else { continue };
            member.heard(now);
            let outcome = self.assignment(at);
            self.syncs.insert(ticket, outcome);
        }
        self.all_synced();
    }

    fn mark_synced(&mut self, at: usize, now: Instant) {
        if let Some(member) = self.members.get_mut(at) {
            member.synced = true;
            member.heard(now);
        }
        self.all_synced();
    }

    fn all_synced(&mut self) {
        if let Phase::Stable { until } = &mut self.phase
            && self.members.iter().all(|member| member.synced)
        {
            *until = None;
        }
    }

    fn assignment(&self, at: usize) -> SyncOutcome {
        SyncOutcome {
            error: ErrorCode::NONE,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: self.members.get(at).map(|member| member.assignment.clone()).unwrap_or_default(),
        }
    }

    /// Ends a member's wait for its assignment with an error.
    pub(super) fn fail_sync(&mut self, at: usize, error: ErrorCode) {
        if let Some(ticket) = self.members.get_mut(at).and_then(|member| member.syncing.take()) {
            self.syncs.insert(ticket, SyncOutcome::error(error));
        }
    }

    /// Removes members that did not sync within the rebalance timeout since the generation began.
    pub(super) fn drop_those_who_did_not_sync(&mut self, now: Instant, settings: &GroupSettings) {
        let late: Vec<String> =
            self.members.iter().filter(|member| !member.synced).map(|member| member.id.clone()).collect();
        if late.is_empty() {
            // All asked, but the leader brought nothing: only a new rebalance can help.
            self.rebalance(now, settings);
        }
        for id in late {
            self.remove(&id, now, settings);
        }
    }
}
