//! A small group coordinator for model tests of the membership: Kafka's rules for one classic
//! group, nothing else.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    consumer::group::{
        GroupSettings,
        actions::AttemptId,
        classic::{
            actions::{JoinAnswer, JoinOutcome, JoinedMember, PROTOCOL_TYPE, SyncAnswer},
            tests::error,
        },
        member_snapshot::Identity,
    },
    error::{Error, ErrorCode},
};

/// Destination of a response: the test's member, and its attempt.
pub(super) type Address = (usize, AttemptId);

#[derive(Debug)]
pub(super) enum Reply {
    Joined(JoinOutcome),
    Synced(Result<SyncAnswer, Error>),
    Heartbeat(Result<(), Error>),
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Stable,
    Preparing { deadline: Instant },
    Completing,
}

#[derive(Debug)]
struct Known {
    seen: Instant,
    metadata: bytes::Bytes,
    joining: Option<Address>,
    syncing: Option<Address>,
    share: bytes::Bytes,
}

#[derive(Debug)]
pub(super) struct Coordinator {
    session: Duration,
    rebalance: Duration,
    phase: Phase,
    pub(super) generation: i32,
    members: BTreeMap<String, Known>,
    /// Member ids that were given out and not used yet.
    pending: BTreeMap<String, Instant>,
    leader: String,
    protocol: &'static str,
    names: u32,
    pub(super) replies: Vec<(Address, Reply)>,
}

impl Coordinator {
    pub(super) fn new(settings: &GroupSettings, protocol: &'static str) -> Self {
        Self {
            protocol,
            session: settings.session_timeout,
            rebalance: settings.max_poll_interval,
            phase: Phase::Stable,
            generation: 0,
            members: BTreeMap::new(),
            pending: BTreeMap::new(),
            leader: String::new(),
            names: 0,
            replies: Vec::new(),
        }
    }

    pub(super) fn is_stable(&self) -> bool {
        self.phase == Phase::Stable
    }

    /// Returns the time at which [`expire`](Self::expire) has something to do.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        let sessions = self.members.values().filter(|member| member.joining.is_none()).map(|member| member.seen);
        let lapse = sessions.chain(self.pending.values().copied()).map(|seen| seen + self.session).min();
        match self.phase {
            Phase::Preparing { deadline } => Some(lapse.map_or(deadline, |lapse| lapse.min(deadline))),
            _ => lapse,
        }
    }

    pub(super) fn expire(&mut self, now: Instant) {
        let session = self.session;
        self.pending.retain(|_, given| now < *given + session);
        let lapsed = |member: &Known| member.joining.is_none() && now >= member.seen + session;
        let gone: Vec<String> =
            self.members.iter().filter(|(_, member)| lapsed(member)).map(|(id, _)| id.clone()).collect();
        for id in gone {
            self.leave(now, &id);
        }
        if let Phase::Preparing { deadline } = self.phase
            && now >= deadline
        {
            self.members.retain(|_, member| member.joining.is_some());
            self.begin_generation(now);
        }
        self.begin_when_complete(now);
    }

    pub(super) fn join(&mut self, now: Instant, from: Address, member_id: &str, metadata: bytes::Bytes) {
        if member_id.is_empty() {
            self.names += 1;
            let name = format!("m{}", self.names);
            self.pending.insert(name.clone(), now);
            return self.replies.push((from, Reply::Joined(JoinOutcome::MemberIdRequired(name))));
        }
        if self.pending.remove(member_id).is_none() && !self.members.contains_key(member_id) {
            let refused = JoinOutcome::Failed(error(ErrorCode::UNKNOWN_MEMBER_ID));
            return self.replies.push((from, Reply::Joined(refused)));
        }
        let member = self.members.entry(member_id.to_owned()).or_insert_with(|| Known {
            seen: now,
            metadata: bytes::Bytes::new(),
            joining: None,
            syncing: None,
            share: bytes::Bytes::new(),
        });
        member.metadata = metadata;
        member.seen = now;
        member.joining = Some(from);
        self.rebalance(now);
        self.begin_when_complete(now);
    }

    pub(super) fn sync(
        &mut self,
        now: Instant,
        from: Address,
        identity: &Identity,
        assignments: Vec<(Arc<str>, bytes::Bytes)>,
    ) {
        if let Err(code) = self.check(identity) {
            return self.replies.push((from, Reply::Synced(Err(error(code)))));
        }
        let Some(member) = self.members.get_mut(&*identity.member_id) else { return };
        member.seen = now;
        match self.phase {
            Phase::Preparing { .. } => {
                let again = Err(error(ErrorCode::REBALANCE_IN_PROGRESS));
                return self.replies.push((from, Reply::Synced(again)));
            }
            _ => member.syncing = Some(from),
        }
        if *self.leader == *identity.member_id && self.phase == Phase::Completing {
            for (id, share) in assignments {
                if let Some(member) = self.members.get_mut(&*id) {
                    member.share = share;
                }
            }
            self.phase = Phase::Stable;
        }
        if self.phase == Phase::Stable {
            for member in self.members.values_mut() {
                if let Some(address) = member.syncing.take() {
                    member.seen = now;
                    let answer = SyncAnswer { protocol_type: None, protocol: None, assignment: member.share.clone() };
                    self.replies.push((address, Reply::Synced(Ok(answer))));
                }
            }
        }
    }

    pub(super) fn heartbeat(&mut self, now: Instant, from: Address, identity: &Identity) {
        let mut answer = self.check(identity).map_err(error);
        if answer.is_ok() {
            if let Some(member) = self.members.get_mut(&*identity.member_id) {
                member.seen = now;
            }
            if let Phase::Preparing { .. } = self.phase {
                answer = Err(error(ErrorCode::REBALANCE_IN_PROGRESS));
            }
        }
        self.replies.push((from, Reply::Heartbeat(answer)));
    }

    pub(super) fn leave(&mut self, now: Instant, member_id: &str) {
        self.pending.remove(member_id);
        if let Some(gone) = self.members.remove(member_id) {
            let refused = || error(ErrorCode::UNKNOWN_MEMBER_ID);
            self.replies.extend(gone.joining.map(|address| (address, Reply::Joined(JoinOutcome::Failed(refused())))));
            self.replies.extend(gone.syncing.map(|address| (address, Reply::Synced(Err(refused())))));
            self.rebalance(now);
        }
        self.begin_when_complete(now);
    }

    /// Moves the group to another broker: it knows the group, and restarts the time of every
    /// session.
    pub(super) fn moved(&mut self, now: Instant) {
        for member in self.members.values_mut() {
            member.seen = now;
            let lost = || error(ErrorCode::NOT_COORDINATOR);
            self.replies.extend(member.joining.take().map(|a| (a, Reply::Joined(JoinOutcome::Failed(lost())))));
            self.replies.extend(member.syncing.take().map(|a| (a, Reply::Synced(Err(lost())))));
        }
        self.rebalance(now);
    }

    fn check(&self, identity: &Identity) -> Result<(), ErrorCode> {
        if !self.members.contains_key(&*identity.member_id) {
            Err(ErrorCode::UNKNOWN_MEMBER_ID)
        } else if identity.generation != self.generation {
            Err(ErrorCode::ILLEGAL_GENERATION)
        } else {
            Ok(())
        }
    }

    fn rebalance(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Preparing { .. }) {
            for member in self.members.values_mut() {
                if let Some(address) = member.syncing.take() {
                    let again = Err(error(ErrorCode::REBALANCE_IN_PROGRESS));
                    self.replies.push((address, Reply::Synced(again)));
                }
            }
            self.phase = Phase::Preparing { deadline: now + self.rebalance };
        }
    }

    fn begin_when_complete(&mut self, now: Instant) {
        let complete = self.pending.is_empty() && self.members.values().all(|member| member.joining.is_some());
        if complete && matches!(self.phase, Phase::Preparing { .. }) {
            self.begin_generation(now);
        }
    }

    fn begin_generation(&mut self, now: Instant) {
        self.generation += 1;
        let Some(leader) = self.members.keys().next().cloned() else {
            self.phase = Phase::Stable;
            return;
        };
        self.phase = Phase::Completing;
        let all: Vec<JoinedMember> = self
            .members
            .iter()
            .map(|(id, member)| JoinedMember { id: id.clone(), instance_id: None, metadata: member.metadata.clone() })
            .collect();
        for (id, member) in &mut self.members {
            member.seen = now;
            member.share = bytes::Bytes::new();
            let leads = *id == leader;
            let answer = JoinAnswer {
                generation: self.generation,
                member_id: id.clone(),
                protocol_type: Some(PROTOCOL_TYPE.to_owned()),
                protocol: Some(self.protocol.to_owned()),
                leads,
                skip_assignment: false,
                members: if leads { all.clone() } else { Vec::new() },
            };
            self.replies
                .extend(member.joining.take().map(|address| (address, Reply::Joined(JoinOutcome::Member(answer)))));
        }
        self.leader = leader;
    }
}
