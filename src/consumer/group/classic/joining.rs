//! Joining a generation: JoinGroup, the assignment by the leader, SyncGroup.
//!
//! Sans-IO.

use std::{collections::BTreeSet, mem, sync::Arc, time::Instant};

use bytes::Bytes;

use crate::{
    consumer::group::{
        GroupSettings,
        actions::AttemptId,
        classic::{
            actions::{
                Action, ClassicRequest, JoinAnswer, JoinOutcome, LeaveGroup, PROTOCOL_TYPE, SyncAnswer, TopicPartitions,
            },
            classic_membership::ClassicMembership,
            errors::{JoinErrorAction, join_error_action},
            leader::PendingAssignment,
            member_metadata::{self, MemberSubscription},
            member_state::{AfterRevocation, MemberState},
            owned_partitions::OwnedPartitions,
        },
        member_snapshot::Identity,
    },
    error::{Error, ErrorCode, Result, clean},
    log::{event, several},
    record::TopicPartition,
};

impl ClassicMembership {
    // ---- JoinGroup

    pub(super) fn join(&mut self, now: Instant, reason: &str) {
        reason.clone_into(&mut self.reason);
        self.send_join(now);
    }

    pub(super) fn send_join(&mut self, now: Instant) {
        if let Some(until) = self.retries.not_before(now) {
            self.state = MemberState::Backoff { until };
            return;
        }
        let Some(topics) = &self.topics else {
            return self.leave("the consumer unsubscribed");
        };
        self.joined_topics.clone_from(topics);
        if !self.owned.is_empty() && now >= self.session.rebalance_ends() {
            let ms = self.settings.max_poll_interval.as_millis();
            self.report_lost(&format!(
                "the group may have rebalanced without the member after max.poll.interval.ms ({ms} ms)"
            ));
        }
        let protocols = match protocols(&self.settings, &self.joined_topics, &self.owned) {
            Ok(protocols) => protocols,
            Err(error) => return self.raise_error(now, error),
        };
        self.session.join_sent(now);
        let (member_id, reason) = (self.identity.member_id.clone(), self.reason.clone());
        let attempt = self.actions.send(ClassicRequest::Join { member_id, protocols, reason });
        self.state = MemberState::Joining { attempt, sent: now };
    }

    pub(crate) fn joined(&mut self, now: Instant, attempt: AttemptId, outcome: JoinOutcome) {
        let sent = match self.state {
            MemberState::Joining { attempt: awaited, sent } if awaited == attempt => sent,
            _ => return self.leave_unwanted_member(outcome),
        };
        match outcome {
            JoinOutcome::Member(answer) => {
                self.session.join_confirmed(sent);
                self.enter(now, answer);
            }
            JoinOutcome::MemberIdRequired(member_id) => self.join_with_id(now, member_id.into()),
            JoinOutcome::Failed(error) => self.join_failed(now, error),
        }
    }

    /// Leaves with a member id from a response that is no longer awaited, because the group would
    /// wait for that member until its session times out.
    fn leave_unwanted_member(&mut self, outcome: JoinOutcome) {
        let member_id: Arc<str> = match outcome {
            JoinOutcome::Member(answer) => answer.member_id.into(),
            JoinOutcome::MemberIdRequired(member_id) => member_id.into(),
            JoinOutcome::Failed(_) => return,
        };
        if member_id != self.identity.member_id && self.settings.group_instance_id.is_none() {
            self.actions.push(Action::Leave(LeaveGroup { member_id, reason: "the consumer stopped joining" }));
        }
    }

    /// Joins again with the id that the coordinator gave out, at once the first time.
    fn join_with_id(&mut self, now: Instant, member_id: Arc<str>) {
        let is_first = self.identity.member_id.is_empty() && !member_id.is_empty();
        self.identity.member_id = member_id;
        if is_first {
            return self.send_join(now);
        }
        let context = format!("join group {} as member \"{}\"", self.settings.group_id, self.identity.member_id);
        self.retry_later(now);
        self.report_retriable(now, &Error::broker(ErrorCode::MEMBER_ID_REQUIRED, context));
    }

    fn enter(&mut self, now: Instant, answer: JoinAnswer) {
        self.identity = Identity { generation: answer.generation, member_id: answer.member_id.into() };
        let chosen = answer.protocol.as_deref();
        let assignor = self.settings.assignors.iter().find(|assignor| Some(assignor.name()) == chosen).cloned();
        let known_type = answer.protocol_type.as_deref().is_none_or(|name| name == PROTOCOL_TYPE);
        let (Some(assignor), true) = (assignor, known_type) else {
            let context = format!("join group {}: protocol {:?} was chosen", self.settings.group_id, answer.protocol);
            return self.raise_error(now, Error::broker(ErrorCode::INCONSISTENT_GROUP_PROTOCOL, context));
        };
        self.session.forget_heartbeat();
        if self.owned.is_empty() {
            self.session.begin(now);
            self.session.delay_heartbeat(now);
        }
        self.leader.stop();
        if answer.leads {
            let (members, keep) = (answer.members, answer.skip_assignment);
            self.look_up_partitions(PendingAssignment::new(assignor, members, keep, &self.settings.origin));
        } else {
            self.send_sync(now, assignor.name().into(), Vec::new());
        }
    }

    // ---- the assignment by the leader

    fn look_up_partitions(&mut self, assignment: PendingAssignment) {
        let attempt = self.actions.send(ClassicRequest::Count { topics: assignment.topics().clone() });
        self.state = MemberState::CountingPartitions { attempt, assignment };
    }

    /// Handles the partitions of the topics that the leader looked up; topics that do not exist are
    /// missing.
    pub(crate) fn partitions_counted(&mut self, now: Instant, attempt: AttemptId, counts: TopicPartitions) {
        if !matches!(&self.state, MemberState::CountingPartitions { attempt: awaited, .. } if *awaited == attempt) {
            return;
        }
        let MemberState::CountingPartitions { assignment, .. } =
            mem::replace(&mut self.state, MemberState::Unsubscribed)
        else {
            return;
        };
        let completed = assignment.complete(counts);
        self.leader.watch(completed.counts);
        match completed.assignments {
            Ok(assignments) => self.send_sync(now, completed.protocol, assignments),
            Err(error) => self.raise_error(now, error.context(format_args!("group {}", self.settings.group_id))),
        }
    }

    // ---- SyncGroup

    fn send_sync(&mut self, now: Instant, protocol: Arc<str>, assignments: Vec<(Arc<str>, Bytes)>) {
        if self.owned.is_empty() {
            self.session.begin(now);
        }
        let request = ClassicRequest::Sync { identity: self.identity.clone(), protocol: protocol.clone(), assignments };
        let attempt = self.actions.send(request);
        self.state = MemberState::Syncing { attempt, sent: now, protocol };
    }

    pub(crate) fn synced(&mut self, now: Instant, attempt: AttemptId, answer: Result<SyncAnswer>) {
        let (protocol, sent) = match &self.state {
            MemberState::Syncing { attempt: awaited, sent, protocol } if *awaited == attempt => {
                (protocol.clone(), *sent)
            }
            _ => return,
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return self.join_failed(now, error),
        };
        self.session.confirm_generation(sent);
        let is_consistent = answer.protocol_type.as_deref().is_none_or(|name| name == PROTOCOL_TYPE)
            && answer.protocol.as_deref().is_none_or(|name| name == &*protocol);
        if !is_consistent {
            let context = format!("sync group {}: protocol {:?}", self.settings.group_id, answer.protocol);
            return self.raise_error(now, Error::broker(ErrorCode::INCONSISTENT_GROUP_PROTOCOL, context));
        }
        match member_metadata::decode_assignment(&answer.assignment) {
            Ok(partitions) => self.accept_assignment(now, partitions.into_iter().collect()),
            Err(error) => self.raise_error(now, error.context(format_args!("group {}", self.settings.group_id))),
        }
    }

    fn accept_assignment(&mut self, now: Instant, assigned: BTreeSet<TopicPartition>) {
        if self.topics.as_ref() != Some(&self.joined_topics) {
            return self.retry_because(now, "subscription changed while joining");
        }
        let foreign: BTreeSet<&str> =
            assigned.iter().map(|p| &*p.topic).filter(|&topic| !self.joined_topics.contains(topic)).collect();
        if foreign.is_empty() {
            self.become_stable(now, assigned);
        } else {
            self.reject_foreign_topics(now, &foreign.into_iter().collect::<Vec<_>>());
        }
    }

    fn reject_foreign_topics(&mut self, now: Instant, foreign: &[&str]) {
        if let Some(suppressed) = self.raised_errors.admit(None, now) {
            event!(
                WARN, self.settings.origin, member = &*clean(&self.identity.member_id),
                generation = self.identity.generation, topics = %several(foreign), count = foreign.len(), suppressed,
                "the group's leader assigned topics that are not subscribed to: the assignment is rejected, and the \
                 member joins again"
            );
        }
        "assigned topics that are not subscribed to".clone_into(&mut self.reason);
        self.retry_later(now);
    }

    fn become_stable(&mut self, now: Instant, assigned: BTreeSet<TopicPartition>) {
        if let Some(lasting) = self.retries.joined(now) {
            self.log().join_succeeds_again(lasting);
        }
        self.retries.allow_quick();
        event!(
            INFO,
            self.settings.origin,
            member = &*clean(&self.identity.member_id),
            generation = self.identity.generation,
            count = assigned.len(),
            leader = self.leader.leads(),
            "joined a generation of the group"
        );
        self.state = MemberState::Stable;
        let change = self.owned.assign(assigned, self.identity.generation);
        if !change.taken.is_empty() {
            // Other members can own these partitions only after the member has joined without them.
            "gave up partitions that move to other members".clone_into(&mut self.reason);
            self.revoke(now, change.taken, AfterRevocation::Join);
        }
        if !change.added.is_empty() {
            self.log().assigned(&change.added);
        }
        self.actions.push(Action::Assigned { partitions: change.added });
    }

    // ---- failures

    /// Handles a failed JoinGroup or SyncGroup.
    fn join_failed(&mut self, now: Instant, error: Error) {
        let action = join_error_action(&error);
        if !matches!(action, JoinErrorAction::EndGroupIsFull | JoinErrorAction::End) {
            event!(DEBUG, self.settings.origin, %error, "joining failed");
            self.session.doubt_join();
        }
        match action {
            JoinErrorAction::EndGroupIsFull => {
                let group = &self.settings.group_id;
                self.end(
                    error.context(format_args!(
                        "group {group} has as many members as the brokers allow (group.max.size)"
                    )),
                );
            }
            JoinErrorAction::End => self.end(error),
            JoinErrorAction::JoinAsNewMember => {
                self.join_as_new_member(now, &error);
                self.report_retriable(now, &error);
            }
            JoinErrorAction::JoinWithoutGeneration => {
                self.identity.generation = -1;
                self.retry_because(now, "the generation was over");
                self.report_retriable(now, &error);
            }
            JoinErrorAction::JoinAgain => {
                self.retry_because(now, "the group rebalances again");
                self.report_retriable(now, &error);
            }
            JoinErrorAction::JoinAfterBackoff => {
                self.retry_later(now);
                self.report_retriable(now, &error);
            }
            JoinErrorAction::AwaitPoll => self.raise_error(now, error),
        }
    }

    /// Reports a temporary error to the log and the reader if joins fail for long.
    fn report_retriable(&mut self, now: Instant, error: &Error) {
        let failure = self.retries.failed(now, &self.settings.group_id, error);
        if let Some(lasting) = failure.log {
            self.log().join_fails(error, lasting);
        }
        if let Some(error) = failure.report {
            self.actions.report(error);
        }
    }

    /// Joins again at once, or after a backoff if that has been done a few times.
    pub(super) fn retry_because(&mut self, now: Instant, reason: &str) {
        reason.clone_into(&mut self.reason);
        if self.retries.admit_quick() {
            self.send_join(now);
        } else {
            self.retry_later(now);
        }
    }

    fn retry_later(&mut self, now: Instant) {
        self.state = MemberState::Backoff { until: self.retries.next_join(now, &mut self.rng) };
    }
}

/// Returns the member's subscription, encoded once for each assignor that may be chosen.
fn protocols(
    settings: &GroupSettings,
    topics: &BTreeSet<Arc<str>>,
    owned: &OwnedPartitions,
) -> Result<Vec<(Arc<str>, Bytes)>> {
    let last = owned.last_assignment();
    let subscription = MemberSubscription {
        topics: topics.iter().cloned().collect(),
        user_data: None,
        owned: owned.iter().cloned().collect(),
        // The generation of the owned partitions (or, eager, of the last ones), so that a claim
        // from before a missed rebalance does not count.
        generation: last.generation,
        rack: settings.client_rack.clone(),
    };
    let encoded = settings.assignors.iter().map(|assignor| {
        let user_data = assignor.user_data(topics, last);
        let encoded = MemberSubscription { user_data, ..subscription.clone() }.encode()?;
        Ok((assignor.name().into(), encoded))
    });
    encoded.collect()
}
