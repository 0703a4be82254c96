//! Joining: admits members, and sends them the new generation when all have joined.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Group, GroupSettings, Member, Outcome, Phase, Ticket};
use crate::error::ErrorCode;
use crate::testkit::state::group::identity::MemberIdentity;

/// A JoinGroup request, whatever its version.
#[derive(Clone, Debug)]
pub(crate) struct JoinRequest {
    pub(crate) identity: MemberIdentity,
    pub(crate) client_id: String,
    pub(crate) protocol_type: String,
    pub(crate) protocols: Vec<(String, Bytes)>,
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    /// True if the version sends a new dynamic member back once, to rejoin with the id that it is
    /// given (v4, KIP-394).
    pub(crate) id_required: bool,
    /// True if the version lets the coordinator tell a static leader that came back to keep the
    /// assignment (v9, KIP-814).
    pub(crate) may_skip_assignment: bool,
    /// Id for a member that has none yet.
    pub(crate) new_id: String,
}

/// The response to a JoinGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JoinOutcome {
    pub(crate) error: ErrorCode,
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) leader: String,
    pub(crate) skip_assignment: bool,
    pub(crate) member_id: String,
    /// For the leader: id, instance and metadata of every member.
    pub(crate) members: Vec<(String, Option<String>, Bytes)>,
}

impl JoinOutcome {
    pub(crate) fn error(error: ErrorCode, member_id: impl Into<String>) -> Self {
        Self {
            error,
            generation: -1,
            protocol_type: None,
            protocol: None,
            leader: String::new(),
            skip_assignment: false,
            member_id: member_id.into(),
            members: Vec::new(),
        }
    }
}

impl Group {
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
        if !known || self.pending.contains_key(&request.identity.member_id) {
            let returns = request.identity.instance.is_some();
            if self.members.len() >= settings.max_size && !returns {
                return Err(ErrorCode::GROUP_MAX_SIZE_REACHED);
            }
        }
        if known && self.pending.remove(&request.identity.member_id).is_some() {
            let id = request.identity.member_id.clone();
            return Ok(self.add(now, id, request, settings));
        }
        if known {
            return self.rejoin(now, request, settings);
        }
        if let Some(instance) = &request.identity.instance {
            let id = request.new_id.clone();
            return match self.members.iter().position(|member| member.instance.as_ref() == Some(instance)) {
                Some(at) => self.replace_static(at, now, id, request, settings),
                None => Ok(self.add(now, id, request, settings)),
            };
        }
        let id = request.new_id.clone();
        if request.id_required {
            self.pending.insert(id.clone(), now + request.session_timeout);
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
        let others = |name: &str| {
            self.members
                .iter()
                .filter(|member| member.id != request.identity.member_id)
                .all(|member| member.protocols.iter().any(|(known, _)| known == name))
        };
        let common = request.protocols.iter().any(|(name, _)| others(name));
        if same_type && common { Ok(()) } else { Err(ErrorCode::INCONSISTENT_GROUP_PROTOCOL) }
    }

    fn add(
        &mut self,
        now: Instant,
        id: String,
        request: JoinRequest,
        settings: &GroupSettings,
    ) -> Outcome<JoinOutcome> {
        let ticket = self.ticket();
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type);
        }
        self.leader.get_or_insert_with(|| id.clone());
        self.came = true;
        self.members.push(Member {
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
        let at = self.check_identity(&request.identity)?;
        let id = request.identity.member_id.clone();
        let same = self.members.get(at).is_some_and(|member| member.protocols == request.protocols);
        let leads = self.is_leader(&id);
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
        let ticket = self.ticket();
        if let Some(member) = self.members.get_mut(at) {
            member.protocols = request.protocols;
            member.session_timeout = request.session_timeout;
            member.rebalance_timeout = request.rebalance_timeout;
            member.client_id = request.client_id;
            member.heard(now);
            if let Some(former) = member.joining.replace(ticket) {
                let outcome = JoinOutcome::error(ErrorCode::UNKNOWN_MEMBER_ID, member.id.clone());
                self.joins.insert(former, outcome);
            }
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
        let former = std::mem::replace(&mut member.id, id.clone());
        if let Some(ticket) = member.joining.take() {
            self.joins.insert(ticket, JoinOutcome::error(ErrorCode::FENCED_INSTANCE_ID, former.clone()));
        }
        self.fail_sync(at, ErrorCode::FENCED_INSTANCE_ID);
        let led = self.leader.as_ref() == Some(&former);
        if led {
            self.leader = Some(id.clone());
        }
        let ticket = self.await_join(at, now, request);
        let keeps_protocol = self.select_protocol() == self.protocol;
        if matches!(self.phase, Phase::Stable { .. }) && keeps_protocol {
            if let Some(member) = self.members.get_mut(at) {
                member.joining = None;
            }
            let mut outcome = self.current(&id, now);
            if led && may_skip {
                outcome.skip_assignment = true;
            } else if led {
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

    /// Returns the present generation as it is sent to a member.
    fn current(&mut self, member_id: &str, now: Instant) -> JoinOutcome {
        if let Some(member) = self.member_mut(member_id) {
            member.heard(now);
        }
        let members = if self.is_leader(member_id) {
            self.members.iter().map(|m| (m.id.clone(), m.instance.clone(), self.metadata_of(m))).collect()
        } else {
            Vec::new()
        };
        JoinOutcome {
            error: ErrorCode::NONE,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            member_id: member_id.to_owned(),
            members,
        }
    }

    /// Begins a rebalance, unless one is being prepared already.
    pub(super) fn rebalance(&mut self, now: Instant, settings: &GroupSettings) {
        let longest = self.members.iter().map(|member| member.rebalance_timeout).max().unwrap_or_default();
        match self.phase {
            Phase::Preparing { .. } => return,
            Phase::Empty => {
                let until = now + settings.initial_rebalance_delay.min(longest);
                self.phase = Phase::Preparing { until, first: Some(now + longest) };
                self.came = false;
                return;
            }
            Phase::Completing { .. } => {
                for at in 0..self.members.len() {
                    self.fail_sync(at, ErrorCode::REBALANCE_IN_PROGRESS);
                }
            }
            Phase::Stable { .. } => {}
        }
        self.phase = Phase::Preparing { until: now + longest, first: None };
    }

    /// Moves to the next generation once all members have joined.
    pub(super) fn try_complete(&mut self, now: Instant, settings: &GroupSettings) {
        let Phase::Preparing { until, first } = self.phase else { return };
        if self.members.is_empty() {
            self.next_generation(now);
        } else if first.is_some() {
            if until <= now {
                self.time_is_up(now, first, settings);
            }
        } else if self.pending.is_empty() && self.members.iter().all(|member| member.joining.is_some()) {
            self.next_generation(now);
        }
    }

    /// Ends the time for joining: dynamic members that did not join are removed, static ones are
    /// kept.
    pub(super) fn time_is_up(&mut self, now: Instant, first: Option<Instant>, settings: &GroupSettings) {
        if let Some(latest) = first
            && std::mem::take(&mut self.came)
            && now < latest
            && !settings.initial_rebalance_delay.is_zero()
        {
            let until = (now + settings.initial_rebalance_delay).min(latest);
            self.phase = Phase::Preparing { until, first };
            return;
        }
        self.members.retain(|member| member.joining.is_some() || member.instance.is_some());
        if !self.members.is_empty() && self.members.iter().all(|member| member.joining.is_none()) {
            // Only static members that are away: they stay until their sessions end.
            let longest = self.members.iter().map(|member| member.rebalance_timeout).max().unwrap_or_default();
            self.phase = Phase::Preparing { until: now + longest.max(Duration::from_millis(1)), first: None };
            return;
        }
        self.next_generation(now);
    }

    fn next_generation(&mut self, now: Instant) {
        self.generation += 1;
        self.elect();
        if self.members.is_empty() {
            self.phase = Phase::Empty;
            self.protocol = None;
            return;
        }
        self.protocol = self.select_protocol();
        let longest = self.members.iter().map(|member| member.rebalance_timeout).max().unwrap_or_default();
        self.phase = Phase::Completing { until: now + longest };
        for at in 0..self.members.len() {
            let Some(member) = self.members.get_mut(at) else { continue };
            member.synced = false;
            let Some(ticket) = member.joining.take() else { continue };
            let id = member.id.clone();
            let outcome = self.current(&id, now);
            self.joins.insert(ticket, outcome);
        }
    }

    /// Keeps the leader if it takes part; otherwise the first member that takes part leads.
    fn elect(&mut self) {
        let takes_part = |member: &&Member| member.joining.is_some();
        let leader = self.members.iter().filter(takes_part).find(|member| self.is_leader(&member.id));
        let next = leader.or_else(|| self.members.iter().find(takes_part)).or(self.members.first());
        self.leader = next.map(|member| member.id.clone());
    }

    /// Selects the protocol by vote: every member votes for the first of its protocols that all of
    /// them have.
    pub(super) fn select_protocol(&self) -> Option<String> {
        let common =
            |name: &str| self.members.iter().all(|member| member.protocols.iter().any(|(known, _)| known == name));
        let mut votes: Vec<(&str, usize)> = Vec::new();
        for member in &self.members {
            let Some((choice, _)) = member.protocols.iter().find(|(name, _)| common(name)) else { continue };
            match votes.iter_mut().find(|(name, _)| name == choice) {
                Some((_, count)) => *count += 1,
                None => votes.push((choice, 1)),
            }
        }
        let most = votes.iter().map(|&(_, count)| count).max()?;
        votes.iter().find(|&&(_, count)| count == most).map(|&(name, _)| name.to_owned())
    }
}
