//! Joining a generation: JoinGroup, the assignment by the leader, SyncGroup.
//!
//! Sans-IO.

use std::{collections::BTreeSet, mem, sync::Arc, time::Instant};

use bytes::Bytes;

use crate::consumer::group::classic::{
    Action, AfterRevocation, AttemptId, JoinAnswer, JoinOutcome, JoinedMember, MemberState, Membership, PROTOCOL_TYPE,
    SyncAnswer, TopicPartitions,
};
use crate::{
    consumer::group::{
        assignor::{GroupMember, LastAssignment, share_out},
        classic::member_metadata::{self, MemberSubscription},
    },
    error::{Error, ErrorCode, Result, clean},
    log::{Lasting, event, several},
    record::TopicPartition,
};

/// Number of retries without a wait: these errors ask for a new join at once, but it must not go on
/// forever.
const QUICK_RETRIES: u32 = 3;

impl Membership {
    pub(super) fn send_join(&mut self, now: Instant) {
        if let Some(until) = self.setbacks.join_not_before(now) {
            self.state = MemberState::Backoff { until };
            return;
        }
        let Some(topics) = &self.topics else {
            return self.leave("the consumer unsubscribed");
        };
        self.joined_topics.clone_from(topics);
        if !self.owned.is_empty() && now >= self.rebalance_ends() {
            let ms = self.settings.max_poll_interval.as_millis();
            self.report_lost(&format!(
                "the group may have rebalanced without the member after max.poll.interval.ms ({ms} ms)"
            ));
        }
        self.join_unconfirmed |= now + self.settings.session_timeout >= self.rebalance_ends();
        let protocols = match self.protocols() {
            Ok(protocols) => protocols,
            Err(error) => return self.raise_error(now, error),
        };
        let attempt = self.attempt();
        self.state = MemberState::Joining { attempt, sent: now };
        self.heartbeat.in_flight = None;
        self.actions.push_back(Action::Join {
            attempt,
            member_id: self.member_id.clone(),
            protocols,
            reason: self.reason.clone(),
        });
    }

    /// Returns the member's subscription, encoded once for each assignor that may be chosen.
    fn protocols(&self) -> Result<Vec<(Arc<str>, Bytes)>> {
        let subscription = MemberSubscription {
            topics: self.joined_topics.iter().cloned().collect(),
            user_data: None,
            owned: self.owned.keys().cloned().collect(),
            // The generation of the owned partitions (or, eager, of the last ones), so that a claim
            // from before a missed rebalance does not count.
            generation: self.last.generation,
            rack: self.settings.client_rack.clone(),
        };
        let encoded = self.settings.assignors.iter().map(|assignor| {
            let user_data = assignor.user_data(&self.joined_topics, &self.last);
            let encoded = MemberSubscription { user_data, ..subscription.clone() }.encode()?;
            Ok((assignor.name().into(), encoded))
        });
        encoded.collect()
    }

    fn send_sync(&mut self, now: Instant, protocol: Arc<str>, assignments: Vec<(Arc<str>, Bytes)>) {
        if self.owned.is_empty() {
            // All partitions that it assigns are assigned after this time.
            self.heartbeat.alive = now;
        }
        let attempt = self.attempt();
        self.state = MemberState::Syncing { attempt, sent: now, protocol: protocol.clone() };
        self.actions.push_back(Action::Sync { attempt, identity: self.identity(), protocol, assignments });
    }

    pub(crate) fn joined(&mut self, now: Instant, attempt: AttemptId, joined: JoinOutcome) {
        let sent = match self.state {
            MemberState::Joining { attempt: awaited, sent } if awaited == attempt => sent,
            _ => return self.leave_unwanted_member(joined),
        };
        match joined {
            JoinOutcome::Member(answer) => {
                // The generation, and any later rebalance, began after the coordinator had received
                // the request.
                self.heartbeat.settled = self.heartbeat.settled.max(sent);
                self.join_unconfirmed = false;
                self.enter(now, answer);
            }
            JoinOutcome::MemberIdRequired(member_id) => {
                let first = self.member_id.is_empty() && !member_id.is_empty();
                self.member_id = member_id.into();
                if first {
                    return self.send_join(now);
                }
                let context = format!("join group {} as member \"{}\"", self.settings.group_id, self.member_id);
                self.retry_later(now);
                self.report_retriable(now, Error::broker(ErrorCode::MEMBER_ID_REQUIRED, context));
            }
            JoinOutcome::Failed(error) => self.join_failed(now, error),
        }
    }

    /// Leaves with a member id from a response that is no longer awaited, because the group would
    /// wait for that member until its session times out.
    fn leave_unwanted_member(&mut self, joined: JoinOutcome) {
        let member_id: Arc<str> = match joined {
            JoinOutcome::Member(answer) => answer.member_id.into(),
            JoinOutcome::MemberIdRequired(member_id) => member_id.into(),
            JoinOutcome::Failed(_) => return,
        };
        if member_id != self.member_id && self.settings.group_instance_id.is_none() {
            self.actions.push_back(Action::Leave { member_id, reason: "the consumer stopped joining" });
        }
    }

    fn enter(&mut self, now: Instant, answer: JoinAnswer) {
        self.member_id = answer.member_id.into();
        self.generation = answer.generation;
        let chosen = answer.protocol.as_deref();
        let assignor = self.settings.assignors.iter().find(|assignor| Some(assignor.name()) == chosen).cloned();
        let known_type = answer.protocol_type.as_deref().is_none_or(|name| name == PROTOCOL_TYPE);
        let (Some(assignor), true) = (assignor, known_type) else {
            let context = format!("join group {}: protocol {:?} was chosen", self.settings.group_id, answer.protocol);
            return self.raise_error(now, Error::broker(ErrorCode::INCONSISTENT_GROUP_PROTOCOL, context));
        };
        self.heartbeat.in_flight = None;
        if self.owned.is_empty() {
            // Without owned partitions, the time that the response took does not matter.
            self.heartbeat.alive = now;
            self.heartbeat.due = now + self.settings.heartbeat_interval;
        }
        self.counts = None;
        if !answer.leads {
            return self.send_sync(now, assignor.name().into(), Vec::new());
        }
        let members: Vec<GroupMember> = answer.members.into_iter().map(|member| self.read_member(member)).collect();
        let topics: BTreeSet<Arc<str>> = members.iter().flat_map(|member| member.topics.iter().cloned()).collect();
        let attempt = self.attempt();
        self.actions.push_back(Action::Count { attempt, topics: topics.clone() });
        self.state =
            MemberState::CountingPartitions { attempt, assignor, members, keep: answer.skip_assignment, topics };
    }

    /// Reads a member's subscription. If it is damaged, the member takes part with the readable
    /// fields, so that the others are not affected.
    fn read_member(&self, member: JoinedMember) -> GroupMember {
        let (subscription, trouble) = MemberSubscription::read(&member.metadata);
        if let Some(error) = trouble {
            event!(
                WARN, self.settings.origin, member = &*clean(&member.id), topics = subscription.topics.len(), %error,
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

    /// Handles the partitions of the topics that the leader looked up; topics that do not exist are
    /// missing.
    pub(crate) fn partitions_counted(&mut self, now: Instant, attempt: AttemptId, counts: TopicPartitions) {
        if !matches!(&self.state, MemberState::CountingPartitions { attempt: awaited, .. } if *awaited == attempt) {
            return;
        }
        let MemberState::CountingPartitions { assignor, members, keep, topics, .. } =
            mem::replace(&mut self.state, MemberState::Unsubscribed)
        else {
            return;
        };
        let known: TopicPartitions = counts.into_iter().filter(|(topic, _)| topics.contains(topic)).collect();
        let assignments = if keep { Ok(Vec::new()) } else { share_out(&*assignor, members, known.clone()) };
        let counts = topics.into_iter().map(|topic| {
            let partitions = known.get(&topic).cloned().unwrap_or_default();
            (topic, partitions)
        });
        self.counts = Some(counts.collect());
        match assignments {
            Ok(assignments) => self.send_sync(now, assignor.name().into(), assignments),
            Err(error) => self.raise_error(now, error.context(format_args!("group {}", self.settings.group_id))),
        }
    }

    pub(crate) fn synced(&mut self, now: Instant, attempt: AttemptId, answer: Result<SyncAnswer, Error>) {
        let (protocol, sent) = match &self.state {
            MemberState::Syncing { attempt: awaited, sent, protocol } if *awaited == attempt => {
                (protocol.clone(), *sent)
            }
            _ => return,
        };
        match answer {
            Ok(answer) => {
                self.heartbeat.alive = self.heartbeat.alive.max(sent);
                self.heartbeat.settled = self.heartbeat.settled.max(sent);
                let consistent = answer.protocol_type.as_deref().is_none_or(|name| name == PROTOCOL_TYPE)
                    && answer.protocol.as_deref().is_none_or(|name| name == &*protocol);
                if !consistent {
                    let context = format!("sync group {}: protocol {:?}", self.settings.group_id, answer.protocol);
                    return self.raise_error(now, Error::broker(ErrorCode::INCONSISTENT_GROUP_PROTOCOL, context));
                }
                match member_metadata::decode_assignment(&answer.assignment) {
                    Ok(partitions) => self.become_stable(now, partitions.into_iter().collect()),
                    Err(error) => {
                        self.raise_error(now, error.context(format_args!("group {}", self.settings.group_id)))
                    }
                }
            }
            Err(error) => self.join_failed(now, error),
        }
    }

    fn become_stable(&mut self, now: Instant, assigned: BTreeSet<TopicPartition>) {
        if self.topics.as_ref() != Some(&self.joined_topics) {
            "subscription changed while joining".clone_into(&mut self.reason);
            return self.retry_soon(now);
        }
        let foreign: BTreeSet<&str> =
            assigned.iter().map(|p| &*p.topic).filter(|&topic| !self.joined_topics.contains(topic)).collect();
        if !foreign.is_empty() {
            let foreign: Vec<&str> = foreign.into_iter().collect();
            if let Some(suppressed) = self.raised_errors.admit(None, now) {
                event!(
                    WARN, self.settings.origin, member = &*clean(&self.member_id), generation = self.generation,
                    topics = %several(&foreign), count = foreign.len(), suppressed,
                    "the group's leader assigned topics that are not subscribed to: the assignment is rejected, and the \
                     member joins again"
                );
            }
            "assigned topics that are not subscribed to".clone_into(&mut self.reason);
            return self.retry_later(now);
        }
        if let Some(Lasting { duration, attempts }) = self.join_outage.ended(now) {
            event!(
                INFO,
                self.settings.origin,
                outage_s = duration.as_secs(),
                attempts,
                "the group can be joined again"
            );
        }
        event!(
            INFO,
            self.settings.origin,
            member = &*clean(&self.member_id),
            generation = self.generation,
            count = assigned.len(),
            leader = self.counts.is_some(),
            "joined a generation of the group"
        );
        self.state = MemberState::Stable;
        self.backoff.reset();
        self.quick_retries = 0;
        self.failing_since = None;
        self.assignments += 1;
        self.last = LastAssignment { partitions: assigned.iter().cloned().collect(), generation: self.generation };
        let taken: BTreeSet<TopicPartition> =
            self.owned.keys().filter(|partition| !assigned.contains(*partition)).cloned().collect();
        let added: Vec<TopicPartition> =
            assigned.into_iter().filter(|partition| !self.owned.contains_key(partition)).collect();
        let since = self.assignments;
        Arc::make_mut(&mut self.owned).extend(added.iter().map(|partition| (partition.clone(), since)));
        if !taken.is_empty() {
            // Other members can own these partitions only after the member has joined without them.
            "gave up partitions that move to other members".clone_into(&mut self.reason);
            self.revoke(now, taken, AfterRevocation::Join);
        }
        if !added.is_empty() {
            event!(
                INFO, self.settings.origin, member = &*clean(&self.member_id), generation = self.generation,
                partitions = %several(&added), count = added.len(), "partitions are assigned"
            );
        }
        self.actions.push_back(Action::Assigned { partitions: added });
    }

    pub(super) fn retry_soon(&mut self, now: Instant) {
        if self.quick_retries < QUICK_RETRIES {
            self.quick_retries += 1;
            self.send_join(now);
        } else {
            self.retry_later(now);
        }
    }

    pub(super) fn retry_later(&mut self, now: Instant) {
        self.state = MemberState::Backoff { until: now + self.backoff.next(&mut self.rng) };
    }
}
