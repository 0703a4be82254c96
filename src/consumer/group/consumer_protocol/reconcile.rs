//! How a member comes from what it owns to what it may own: it gives up first, tells the
//! coordinator when that is done, and takes what is free for it by then.
//!
//! Sans-IO.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::{
    Action, AttemptId, ConsumerMembership, OwnedPartition,
    membership::{MemberState, PendingRevocation},
};
use crate::{
    error::clean,
    log::{event, several},
    record::TopicPartition,
};

/// How long before the rebalance timeout the reader's time is up.
const MARGIN: Duration = Duration::from_secs(5);

impl ConsumerMembership {
    /// Goes as far as it can from what is owned to what may be. Whatever it lacks (the reader, a
    /// topic's name) calls it again when it is there.
    pub(super) fn reconcile(&mut self, now: Instant) {
        if self.revoking.is_some() || !matches!(self.state, MemberState::Member) {
            return;
        }
        let stays = |partition: &TopicPartition, owned: &OwnedPartition| {
            let allowed = self.target.get(&owned.topic_id);
            !self.leaving && allowed.is_some_and(|allowed| allowed.contains(&partition.partition))
        };
        let gone = self.owned.iter().filter(|(partition, owned)| !stays(partition, owned));
        let gone: Vec<TopicPartition> = gone.map(|(partition, _)| partition.clone()).collect();
        if !gone.is_empty() {
            return self.revoke(gone);
        }
        self.revoking_since = None;
        if std::mem::take(&mut self.leaving) && !self.subscribed {
            return self.leave();
        }
        self.add_assigned();
        let (target, owned) = (&self.target, &self.owned);
        self.names.retain(|id, _| target.contains_key(id) || owned.values().any(|owned| owned.topic_id == *id));
        if self.must_report_owned() && self.unresolved().next().is_none() {
            self.heartbeat.due = now;
        }
    }

    fn add_assigned(&mut self) {
        let mut added = Vec::new();
        for (id, partitions) in &self.target {
            let Some(name) = self.names.get(id) else { continue };
            let all = partitions.iter().map(|&number| TopicPartition::new(name.clone(), number));
            // A topic that was made anew waits here until its former self is given up.
            added.extend(all.filter(|partition| !self.owned.contains_key(partition)).map(|partition| (partition, *id)));
        }
        if added.is_empty() && !(self.unannounced && self.unresolved().next().is_none()) {
            return;
        }
        self.unannounced = false;
        if !added.is_empty() {
            self.ownerships += 1;
        }
        let since = self.ownerships;
        let gained = added
            .iter()
            .map(|(partition, topic_id)| (partition.clone(), OwnedPartition { topic_id: *topic_id, since }));
        self.own(|owned| owned.extend(gained));
        let partitions: Vec<_> = added.into_iter().map(|(partition, _)| partition).collect();
        if !partitions.is_empty() {
            event!(
                INFO, self.settings.origin, member = &*clean(&self.member_id), generation = self.epoch,
                partitions = %several(&partitions), count = partitions.len(), "partitions are assigned"
            );
        }
        self.actions.push_back(Action::Assigned { partitions });
    }

    fn revoke(&mut self, partitions: Vec<TopicPartition>) {
        // The coordinator may have decided so in an answer that was lost. What is given up later
        // than it waits is with two.
        let since = *self.revoking_since.get_or_insert(self.heartbeat.decided);
        // And it has to hear of it in time.
        let timeout = self.settings.max_poll_interval;
        let deadline = since + timeout - MARGIN.min(timeout / 8);
        let reason = if self.leaving { "the consumer unsubscribed" } else { "the coordinator assigns them to others" };
        event!(
            INFO, self.settings.origin, member = &*clean(&self.member_id), generation = self.epoch, reason,
            partitions = %several(&partitions), count = partitions.len(),
            "partitions are revoked: the reader is asked to finish with them"
        );
        let ticket = self.ticket();
        self.actions.push_back(Action::Revoke { ticket, partitions: partitions.clone() });
        self.revoking = Some(PendingRevocation { ticket, partitions, deadline });
    }

    /// The consumer has given up what it was asked to.
    pub(crate) fn revoked(&mut self, now: Instant, ticket: AttemptId) {
        if let Some(given_up) = self.revoking.take_if(|giving_up| giving_up.ticket == ticket) {
            self.forget(&given_up.partitions);
            self.report_and_reconcile(now);
        }
    }

    /// What the reader did not finish in time is lost to it, before the coordinator loses patience
    /// with the member.
    pub(super) fn enforce_revocation_deadline(&mut self, now: Instant) {
        if let Some(late) = self.revoking.take_if(|giving_up| now >= giving_up.deadline) {
            self.warn_of_loss(&late.partitions, &self.poll_interval_message());
            self.forget(&late.partitions);
            self.actions.push_back(Action::Lost { partitions: late.partitions });
            self.report_and_reconcile(now);
        }
    }

    fn forget(&mut self, partitions: &[TopicPartition]) {
        self.own(|owned| partitions.iter().for_each(|partition| _ = owned.remove(partition)));
    }

    /// Others may wait for what was given up.
    fn report_and_reconcile(&mut self, now: Instant) {
        self.heartbeat.due = now;
        self.reconcile(now);
        self.tick(now);
    }

    /// Everything is gone, perhaps to others.
    pub(super) fn report_lost(&mut self, cause: &str) {
        let partitions: Vec<_> = self.owned.keys().cloned().collect();
        if !partitions.is_empty() {
            self.warn_of_loss(&partitions, cause);
            self.own(BTreeMap::clear);
            self.actions.push_back(Action::Lost { partitions });
        }
    }

    /// Topics that we may read, but whose names are not known yet.
    pub(crate) fn unresolved(&self) -> impl Iterator<Item = Uuid> + '_ {
        self.target.keys().filter(|id| !self.names.contains_key(id)).copied()
    }

    /// The cluster looks different; `name_of` says how a topic is called, if it is known.
    pub(crate) fn names_known(&mut self, now: Instant, name_of: impl Fn(Uuid) -> Option<Arc<str>>) {
        let state: Vec<_> = self.unresolved().filter_map(|id| Some((id, name_of(id)?))).collect();
        if !state.is_empty() {
            self.names.extend(state);
            self.reconcile(now);
            self.tick(now);
        }
    }
}
