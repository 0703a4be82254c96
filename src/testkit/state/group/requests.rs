//! The requests of a classic group's members.
//!
//! A request that waits holds a [`Ticket`] and asks for its outcome again whenever the group
//! changed or [`ClassicGroup::deadline`] has passed.
//!
//! Sans-IO.

use std::time::Instant;

use bytes::Bytes;

use super::{
    classic_group::{ClassicGroup, GroupSettings, Phase},
    identity::MemberIdentity,
    join::{JoinOutcome, JoinRequest},
    members::Member,
    sync::{SyncOutcome, SyncRequest},
    ticket::{Outcome, Ticket},
};
use crate::error::ErrorCode;

impl ClassicGroup {
    /// Lets a member join or rejoin.
    pub(crate) fn join(
        &mut self,
        now: Instant,
        request: JoinRequest,
        settings: &GroupSettings,
    ) -> Outcome<JoinOutcome> {
        self.advance(now, settings);
        let asked_with = request.identity.member_id.clone();
        match self.admit(now, request, settings) {
            Ok(outcome) => {
                self.try_complete(now, settings);
                match outcome {
                    Outcome::Wait(ticket) => match self.take_join(ticket) {
                        Some(outcome) => Outcome::Done(outcome),
                        None => Outcome::Wait(ticket),
                    },
                    done => done,
                }
            }
            Err(error) => Outcome::Done(JoinOutcome::error(error, asked_with)),
        }
    }

    /// Returns the outcome of a join that had to wait, once there is one.
    pub(crate) fn take_join(&mut self, ticket: Ticket) -> Option<JoinOutcome> {
        self.waits.take_join(ticket)
    }

    fn admit(
        &mut self,
        now: Instant,
        request: JoinRequest,
        settings: &GroupSettings,
    ) -> Result<Outcome<JoinOutcome>, ErrorCode> {
        if !(settings.min_session_timeout..=settings.max_session_timeout).contains(&request.session_timeout) {
            return Err(ErrorCode::INVALID_SESSION_TIMEOUT);
        }
        self.check_protocols(&request)?;
        let known = !request.identity.member_id.is_empty();
        if !known || self.members.is_reserved(&request.identity.member_id) {
            let returns = request.identity.instance.is_some();
            if self.members.len() >= settings.max_size && !returns {
                return Err(ErrorCode::GROUP_MAX_SIZE_REACHED);
            }
        }
        if known && self.members.release(&request.identity.member_id) {
            let id = request.identity.member_id.clone();
            return Ok(self.add(now, id, request, settings));
        }
        if known {
            return self.rejoin(now, request, settings);
        }
        let id = request.new_id.clone();
        if let Some(instance) = &request.identity.instance {
            return match self.members.index_of_instance(instance) {
                Some(at) => self.replace_static(at, now, id, request, settings),
                None => Ok(self.add(now, id, request, settings)),
            };
        }
        if request.id_required {
            self.members.reserve(id.clone(), now + request.session_timeout);
            return Ok(Outcome::Done(JoinOutcome::error(ErrorCode::MEMBER_ID_REQUIRED, id)));
        }
        Ok(self.add(now, id, request, settings))
    }

    fn check_protocols(&self, request: &JoinRequest) -> Result<(), ErrorCode> {
        if request.protocol_type.is_empty() || request.protocols.is_empty() {
            return Err(ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
        }
        if self.members.is_empty() {
            return Ok(());
        }
        let same_type = self.protocol_type.as_ref() == Some(&request.protocol_type);
        let id = &request.identity.member_id;
        let common = request.protocols.iter().any(|(name, _)| self.members.others_support(id, name));
        if same_type && common { Ok(()) } else { Err(ErrorCode::INCONSISTENT_GROUP_PROTOCOL) }
    }

    fn add(
        &mut self,
        now: Instant,
        id: String,
        request: JoinRequest,
        settings: &GroupSettings,
    ) -> Outcome<JoinOutcome> {
        let ticket = self.waits.ticket();
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type);
        }
        self.came = true;
        self.members.add(Member {
            id,
            instance: request.identity.instance,
            client_id: request.client_id,
            session_timeout: request.session_timeout,
            rebalance_timeout: request.rebalance_timeout,
            protocols: request.protocols,
            assignment: Bytes::new(),
            expires: now + request.session_timeout,
            joining: Some(ticket),
            syncing: None,
            synced: false,
        });
        self.rebalance(now, settings);
        Outcome::Wait(ticket)
    }

    fn rejoin(
        &mut self,
        now: Instant,
        request: JoinRequest,
        settings: &GroupSettings,
    ) -> Result<Outcome<JoinOutcome>, ErrorCode> {
        let at = self.members.check_identity(&request.identity)?;
        let id = request.identity.member_id.clone();
        let same = self.members.get(at).is_some_and(|member| member.protocols == request.protocols);
        let leads = self.members.is_leader(&id);
        match self.phase {
            Phase::Completing { .. } if same => return Ok(Outcome::Done(self.current(&id, now))),
            Phase::Stable { .. } if same && !leads => return Ok(Outcome::Done(self.current(&id, now))),
            Phase::Empty => return Err(ErrorCode::UNKNOWN_MEMBER_ID),
            _ => {}
        }
        let ticket = self.await_join(at, now, request);
        self.rebalance(now, settings);
        Ok(Outcome::Wait(ticket))
    }

    /// Makes a member wait for the rebalance to complete; an earlier wait of the member ends.
    fn await_join(&mut self, at: usize, now: Instant, request: JoinRequest) -> Ticket {
        let ticket = self.waits.ticket();
        if let Some(member) = self.members.get_mut(at) {
            member.protocols = request.protocols;
            member.session_timeout = request.session_timeout;
            member.rebalance_timeout = request.rebalance_timeout;
            member.client_id = request.client_id;
            member.heard(now);
            self.waits.fail_join(member, ErrorCode::UNKNOWN_MEMBER_ID);
            member.joining = Some(ticket);
        }
        ticket
    }

    /// Handles a static member that came back without its id: it takes over its own place, and in a
    /// stable group it continues with its assignment without a rebalance (KIP-345).
    fn replace_static(
        &mut self,
        at: usize,
        now: Instant,
        id: String,
        request: JoinRequest,
        settings: &GroupSettings,
    ) -> Result<Outcome<JoinOutcome>, ErrorCode> {
        let may_skip = request.may_skip_assignment;
        let Some(member) = self.members.get_mut(at) else { return Err(ErrorCode::UNKNOWN_MEMBER_ID) };
        self.waits.fail_join(member, ErrorCode::FENCED_INSTANCE_ID);
        self.waits.fail_sync(member, ErrorCode::FENCED_INSTANCE_ID);
        let Some((former, leads)) = self.members.rename(at, &id) else { return Err(ErrorCode::UNKNOWN_MEMBER_ID) };
        let ticket = self.await_join(at, now, request);
        let keeps_protocol = self.members.select_protocol() == self.protocol;
        if matches!(self.phase, Phase::Stable { .. }) && keeps_protocol {
            if let Some(member) = self.members.get_mut(at) {
                member.joining = None;
            }
            let mut outcome = self.current(&id, now);
            if leads && may_skip {
                outcome.skip_assignment = true;
            } else if leads {
                // An older client must not assign again, so its response names another member as
                // leader.
                outcome.leader = former;
                outcome.members.clear();
            }
            return Ok(Outcome::Done(outcome));
        }
        self.rebalance(now, settings);
        Ok(Outcome::Wait(ticket))
    }

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

    /// Returns the outcome of a sync that had to wait, once there is one.
    pub(crate) fn take_sync(&mut self, ticket: Ticket) -> Option<SyncOutcome> {
        self.waits.take_sync(ticket)
    }

    fn try_sync(&mut self, now: Instant, request: SyncRequest) -> Result<Outcome<SyncOutcome>, ErrorCode> {
        let at = self.check_member(&request.identity, request.generation)?;
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
                if let Some(member) = self.members.get_mut(at) {
                    self.waits.fail_sync(member, ErrorCode::UNKNOWN_MEMBER_ID);
                }
                self.mark_synced(at, now);
                let ticket = self.waits.ticket();
                if let Some(member) = self.members.get_mut(at) {
                    member.syncing = Some(ticket);
                }
                if !self.members.is_leader(&request.identity.member_id) {
                    return Ok(Outcome::Wait(ticket));
                }
                self.assign(now, until, request.assignments);
                Ok(self.take_sync(ticket).map_or(Outcome::Wait(ticket), Outcome::Done))
            }
        }
    }

    fn assign(&mut self, now: Instant, until: Instant, assignments: Vec<(String, Bytes)>) {
        for member in self.members.iter_mut() {
            let given = assignments.iter().find(|(id, _)| *id == member.id);
            member.assignment = given.map(|(_, assignment)| Bytes::copy_from_slice(assignment)).unwrap_or_default();
        }
        self.phase = Phase::Stable { until: Some(until) };
        for at in 0..self.members.len() {
            let Some(member) = self.members.get_mut(at) else { continue };
            let Some(ticket) = member.syncing.take() else { continue };
            member.heard(now);
            let outcome = self.assignment(at);
            self.waits.end_sync(ticket, outcome);
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

    /// Handles a heartbeat.
    pub(crate) fn heartbeat(
        &mut self,
        now: Instant,
        identity: &MemberIdentity,
        generation: i32,
        settings: &GroupSettings,
    ) -> Result<(), ErrorCode> {
        self.advance(now, settings);
        let at = self.check_member(identity, generation)?;
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
        if self.members.release(&identity.member_id) {
            self.try_complete(now, settings);
            return Ok(());
        }
        let at = match &identity.instance {
            Some(instance) if identity.member_id.is_empty() => {
                self.members.index_of_instance(instance).ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?
            }
            _ => self.members.check_identity(identity)?,
        };
        if let Some(id) = self.members.get(at).map(|member| member.id.clone()) {
            self.remove(&id, now, settings);
            self.try_complete(now, settings);
        }
        Ok(())
    }

    /// Checks whether that member, in that generation, may commit now. A negative generation is a
    /// consumer without membership, which may commit only while the group has no members.
    pub(crate) fn may_commit(
        &mut self,
        now: Instant,
        identity: &MemberIdentity,
        generation: i32,
        settings: &GroupSettings,
    ) -> Result<(), ErrorCode> {
        self.advance(now, settings);
        if self.members.is_empty() && generation < 0 {
            self.is_simple = true;
            return Ok(());
        }
        if self.is_unknown() {
            return Err(ErrorCode::ILLEGAL_GENERATION);
        }
        let at = self.check_member(identity, generation)?;
        if let Some(member) = self.members.get_mut(at) {
            member.heard(now);
        }
        match self.phase {
            Phase::Completing { .. } => Err(ErrorCode::REBALANCE_IN_PROGRESS),
            _ => Ok(()),
        }
    }

    /// Checks whether that member, in that generation, may commit offsets in a transaction now
    /// (KIP-447). A request that names neither a member nor a generation may do so at any time.
    pub(crate) fn may_commit_in_transaction(
        &mut self,
        now: Instant,
        identity: &MemberIdentity,
        generation: i32,
        settings: &GroupSettings,
    ) -> Result<(), ErrorCode> {
        self.advance(now, settings);
        if self.members.is_empty() && generation < 0 {
            self.is_simple = true;
            return Ok(());
        }
        if !identity.names_member(generation) {
            return Ok(());
        }
        if self.is_unknown() {
            return Err(ErrorCode::ILLEGAL_GENERATION);
        }
        self.check_member(identity, generation).map(drop)
    }

    /// Returns the place of the member that makes a request in the present generation.
    fn check_member(&self, identity: &MemberIdentity, generation: i32) -> Result<usize, ErrorCode> {
        let at = self.members.check_identity(identity)?;
        if generation == self.generation { Ok(at) } else { Err(ErrorCode::ILLEGAL_GENERATION) }
    }
}
