//! The way from the owned partitions to the assigned ones: the member gives up first, reports that
//! to the coordinator, and then takes the partitions that are free by then.
//!
//! The coordinator's last assignment (`target`) is kept by topic id, whether or not the topic's
//! name is known yet, because the coordinator does not repeat it by itself.
//!
//! Sans-IO.

use std::{
    collections::BTreeMap,
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use uuid::Uuid;

use crate::{
    consumer::group::{actions::AttemptId, consumer_protocol::actions::PartitionsByTopicId, member_snapshot::Owned},
    record::TopicPartition,
};

/// Margin before the rebalance timeout at which the reader's time ends.
const MARGIN: Duration = Duration::from_secs(5);

/// The assigned and the owned partitions of a member.
#[derive(Debug)]
pub(super) struct Reconciliation {
    /// All partitions that the member may own, by the coordinator's last response.
    target: PartitionsByTopicId,
    /// The names of topics in `target` and `owned`, as far as they are known.
    names: BTreeMap<Uuid, Arc<str>>,
    owned: BTreeMap<TopicPartition, OwnedPartition>,
    /// `owned` in the form that the handles see.
    shown: Arc<Owned>,
    ownerships: u64,
    pub(super) revoking: Option<PendingRevocation>,
    /// Earliest time since which the coordinator waits for revoked partitions: several revocations
    /// may follow each other before a heartbeat reports that none is pending.
    revoking_since: Option<Instant>,
    /// The consumer unsubscribed, and may have dropped any of the owned partitions: all of them are
    /// given up, and then the member leaves the group unless it has subscribed again by then.
    leaving: bool,
    /// True until the consumer has received this membership's first assignment.
    unannounced: bool,
}

/// An owned partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OwnedPartition {
    pub(super) topic_id: Uuid,
    /// Grows each time that a partition becomes owned: records read in an earlier ownership period
    /// are not committed in this one.
    pub(super) since: u64,
}

/// Partitions that the consumer has to give up.
#[derive(Debug)]
pub(super) struct PendingRevocation {
    pub(super) attempt: AttemptId,
    partitions: Vec<TopicPartition>,
    pub(super) deadline: Instant,
}

impl Reconciliation {
    pub(super) fn new() -> Self {
        Self {
            target: PartitionsByTopicId::new(),
            names: BTreeMap::new(),
            owned: BTreeMap::new(),
            shown: Arc::default(),
            ownerships: 0,
            revoking: None,
            revoking_since: None,
            leaving: false,
            unannounced: true,
        }
    }

    // ---- owned partitions

    pub(super) fn owned(&self) -> &BTreeMap<TopicPartition, OwnedPartition> {
        &self.owned
    }

    /// Returns the owned partitions in the form that the handles see.
    pub(super) fn shown(&self) -> Arc<Owned> {
        self.shown.clone()
    }

    pub(super) fn owned_by_id(&self) -> PartitionsByTopicId {
        let mut owned = PartitionsByTopicId::new();
        for (partition, OwnedPartition { topic_id, .. }) in &self.owned {
            owned.entry(*topic_id).or_default().insert(partition.partition);
        }
        owned
    }

    /// Removes all partitions, and returns them.
    pub(super) fn lose_all(&mut self) -> Vec<TopicPartition> {
        let lost = self.owned.keys().cloned().collect();
        self.change_owned(BTreeMap::clear);
        lost
    }

    fn change_owned(&mut self, change: impl FnOnce(&mut BTreeMap<TopicPartition, OwnedPartition>)) {
        change(&mut self.owned);
        self.shown = Arc::new(self.owned.iter().map(|(partition, owned)| (partition.clone(), owned.since)).collect());
    }

    // ---- assigned partitions

    /// Takes over the coordinator's assignment.
    pub(super) fn set_target(&mut self, mut assignment: PartitionsByTopicId) {
        assignment.retain(|id, partitions| {
            partitions.retain(|partition| *partition >= 0);
            !id.is_nil() && !partitions.is_empty()
        });
        self.target = assignment;
    }

    /// Returns the ids of assigned topics without a known name.
    pub(super) fn unresolved(&self) -> impl Iterator<Item = Uuid> + '_ {
        self.target.keys().filter(|id| !self.names.contains_key(id)).copied()
    }

    pub(super) fn is_resolved(&self) -> bool {
        self.unresolved().next().is_none()
    }

    /// Adds the names of assigned topics, as far as `name_of` has them; returns true if there was
    /// one.
    pub(super) fn add_names(&mut self, name_of: impl Fn(Uuid) -> Option<Arc<str>>) -> bool {
        let names: Vec<_> = self.unresolved().filter_map(|id| Some((id, name_of(id)?))).collect();
        let is_new = !names.is_empty();
        self.names.extend(names);
        is_new
    }

    /// Returns true if the member owns its whole assignment.
    pub(super) fn is_complete(&self) -> bool {
        self.revoking.is_none() && !self.leaving && self.is_resolved()
    }

    // ---- giving up

    /// Makes the member give up everything, because the consumer unsubscribed.
    pub(super) fn begin_leaving(&mut self) {
        self.leaving = true;
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Returns the owned partitions that the member has to give up.
    pub(super) fn to_revoke(&self) -> Vec<TopicPartition> {
        let stays = |partition: &TopicPartition, owned: &OwnedPartition| {
            let allowed = self.target.get(&owned.topic_id);
            !self.leaving && allowed.is_some_and(|allowed| allowed.contains(&partition.partition))
        };
        let gone = self.owned.iter().filter(|(partition, owned)| !stays(partition, owned));
        gone.map(|(partition, _)| partition.clone()).collect()
    }

    /// Begins a revocation of an assignment that the coordinator decided at that time at the
    /// earliest. A partition that is given up after the coordinator's timeout may have two owners.
    pub(super) fn begin_revocation(
        &mut self,
        attempt: AttemptId,
        partitions: Vec<TopicPartition>,
        decided: Instant,
        timeout: Duration,
    ) {
        let since = *self.revoking_since.get_or_insert(decided);
        // The coordinator also has to be told in time.
        let deadline = since + timeout - MARGIN.min(timeout / 8);
        self.revoking = Some(PendingRevocation { attempt, partitions, deadline });
    }

    /// Removes the partitions that the consumer has given up; returns false if another revocation,
    /// or none, is awaited.
    pub(super) fn finish_revocation(&mut self, attempt: AttemptId) -> bool {
        let given_up = self.revoking.take_if(|revoking| revoking.attempt == attempt);
        given_up.inspect(|given_up| self.forget(&given_up.partitions)).is_some()
    }

    /// Removes the partitions that the reader has not completed in time, and returns them.
    pub(super) fn expire_revocation(&mut self, now: Instant) -> Option<Vec<TopicPartition>> {
        let late = self.revoking.take_if(|revoking| now >= revoking.deadline)?;
        self.forget(&late.partitions);
        Some(late.partitions)
    }

    fn forget(&mut self, partitions: &[TopicPartition]) {
        self.change_owned(|owned| partitions.iter().for_each(|partition| _ = owned.remove(partition)));
    }

    /// Records that nothing is left to give up; returns true if the consumer had unsubscribed.
    pub(super) fn end_revocations(&mut self) -> bool {
        self.revoking_since = None;
        mem::take(&mut self.leaving)
    }

    // ---- taking

    /// Takes the assigned partitions that are free and whose names are known. Returns those to
    /// announce to the consumer: the new ones, or an empty first assignment.
    pub(super) fn take_assigned(&mut self) -> Option<Vec<TopicPartition>> {
        let mut added = Vec::new();
        for (id, partitions) in &self.target {
            let Some(name) = self.names.get(id) else { continue };
            let all = partitions.iter().map(|&number| TopicPartition::new(name.clone(), number));
            // A topic that was created again waits here until the partitions of its predecessor are
            // given up.
            added.extend(all.filter(|partition| !self.owned.contains_key(partition)).map(|partition| (partition, *id)));
        }
        let is_first = self.unannounced && self.is_resolved();
        let announced = (is_first || !added.is_empty()).then(|| self.own(added));
        let (target, owned) = (&self.target, &self.owned);
        self.names.retain(|id, _| target.contains_key(id) || owned.values().any(|owned| owned.topic_id == *id));
        announced
    }

    fn own(&mut self, added: Vec<(TopicPartition, Uuid)>) -> Vec<TopicPartition> {
        self.unannounced = false;
        self.ownerships += u64::from(!added.is_empty());
        let since = self.ownerships;
        let gained = added
            .iter()
            .map(|(partition, topic_id)| (partition.clone(), OwnedPartition { topic_id: *topic_id, since }));
        self.change_owned(|owned| owned.extend(gained));
        added.into_iter().map(|(partition, _)| partition).collect()
    }

    /// Returns to the state before the first heartbeat of a membership. The numbers of ownerships
    /// go on.
    pub(super) fn reset(&mut self) {
        *self = Self { ownerships: self.ownerships, ..Self::new() };
    }
}
