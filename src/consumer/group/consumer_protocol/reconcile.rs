//! Reconciles the owned partitions with the assigned ones: gives up first, reports that to the
//! coordinator, and then takes the partitions that are free by then.
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

/// Margin before the rebalance timeout at which the reader's time ends.
const MARGIN: Duration = Duration::from_secs(5);

impl ConsumerMembership {
    /// Reconciles as far as possible. It is called again when something that it waits for (the
    /// reader, a topic's name) is there.
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
            // A topic that was created again waits here until the partitions of its predecessor are
            // given up.
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
        // The coordinator may have decided this in a response that was lost. A partition that is
        // given up after the coordinator's timeout may have two owners.
        let since = *self.revoking_since.get_or_insert(self.heartbeat.decided);
        // The coordinator also has to be told in time.
        let timeout = self.settings.max_poll_interval;
        let deadline = since + timeout - MARGIN.min(timeout / 8);
        let reason = if self.leaving { "the consumer unsubscribed" } else { "the coordinator assigns them to others" };
        event!(
            INFO, self.settings.origin, member = &*clean(&self.member_id), generation = self.epoch, reason,
            partitions = %several(&partitions), count = partitions.len(),
            "partitions are revoked: the consumer waits until the reader has completed their records"
        );
        let attempt = self.attempt();
        self.actions.push_back(Action::Revoke { attempt, partitions: partitions.clone() });
        self.revoking = Some(PendingRevocation { attempt, partitions, deadline });
    }

    /// Records that the consumer has given up the revoked partitions.
    pub(crate) fn revoked(&mut self, now: Instant, attempt: AttemptId) {
        if let Some(given_up) = self.revoking.take_if(|giving_up| giving_up.attempt == attempt) {
            self.forget(&given_up.partitions);
            self.report_and_reconcile(now);
        }
    }

    /// Drops partitions that the reader has not completed in time, before the coordinator removes
    /// the member.
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

    /// Sends a heartbeat at once, because other members may wait for the partitions that were given
    /// up.
    fn report_and_reconcile(&mut self, now: Instant) {
        self.heartbeat.due = now;
        self.reconcile(now);
        self.tick(now);
    }

    /// Reports all partitions as lost, perhaps to other members.
    pub(super) fn report_lost(&mut self, cause: &str) {
        let partitions: Vec<_> = self.owned.keys().cloned().collect();
        if !partitions.is_empty() {
            self.warn_of_loss(&partitions, cause);
            self.own(BTreeMap::clear);
            self.actions.push_back(Action::Lost { partitions });
        }
    }

    /// Returns the ids of assigned topics without a known name.
    pub(crate) fn unresolved(&self) -> impl Iterator<Item = Uuid> + '_ {
        self.target.keys().filter(|id| !self.names.contains_key(id)).copied()
    }

    /// Handles new metadata; `name_of` returns a topic's name, if it is known.
    pub(crate) fn names_known(&mut self, now: Instant, name_of: impl Fn(Uuid) -> Option<Arc<str>>) {
        let state: Vec<_> = self.unresolved().filter_map(|id| Some((id, name_of(id)?))).collect();
        if !state.is_empty() {
            self.names.extend(state);
            self.reconcile(now);
            self.tick(now);
        }
    }
}
