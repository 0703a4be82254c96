//! Which broker each partition is read from, as the picture of the cluster changes. Decides; does no IO.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use super::{
    answer_size::AnswerSize, assignment::Assignment, budget::Account, fetch_session::FetchSession, position::Start,
};
use crate::{
    cluster::{Backoff, Metadata},
    error::{Error, ErrorCode},
    record::TopicPartition,
};

/// A broker that something is fetched from.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) session: FetchSession,
    /// Partitions whose wish may have changed since the last request.
    pub(super) changed: BTreeSet<TopicPartition>,
    /// Partitions that wait before they are fetched again.
    pub(super) waiting: Vec<(Instant, TopicPartition)>,
    pub(super) account: Arc<Account>,
    pub(super) partitions: usize,
    pub(super) answer_size: AnswerSize,
    /// About the largest batch of late, in bytes.
    pub(super) largest_batch: usize,
    pub(super) not_before: Option<Instant>,
    /// When the first of the partitions that are read here as from a replica nearby is to be asked of its leader again.
    pub(super) expiry: Option<Instant>,
    /// Not told our rack until then: it would send us to a replica that failed.
    pub(super) rackless_until: Option<Instant>,
    pub(super) retries: Backoff,
    /// Its present trouble was told to the reader.
    pub(super) reported: bool,
}

impl Assignment {
    /// There is a new picture of the cluster.
    pub(super) fn metadata_changed(&mut self, metadata: &Metadata, now: Instant) {
        self.has_metadata = true;
        self.unreachable_reported = false;
        self.brokers = metadata.brokers.keys().copied().collect();
        for partition in self.assigned() {
            self.update(&partition, metadata, now);
        }
        self.settle_accounts();
    }

    /// Takes what the picture says of a partition.
    pub(super) fn update(&mut self, partition: &TopicPartition, metadata: &Metadata, now: Instant) {
        let Some(found) = self.partitions.get_mut(partition) else { return };
        let Some(topic) = metadata.topic(&partition.topic) else { return };
        let id = topic.id;
        found.vanished = topic.error == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
        if topic.error == ErrorCode::TOPIC_AUTHORIZATION_FAILED && !std::mem::replace(&mut found.reported, true) {
            self.tell(partition, Error::broker(topic.error, format_args!("read of {partition}")));
            return;
        }
        let leader = metadata.leader(&partition.topic, partition.partition);
        let before = found.leader;
        let made_anew = !found.topic_id.is_nil() && !id.is_nil() && found.topic_id != id;
        if !id.is_nil() {
            found.topic_id = id;
        }
        found.leader = leader;
        found.leaderless_since = if leader.is_some() { None } else { found.leaderless_since.or(Some(now)) };
        if leader.is_some() {
            found.reported &= leader == before;
        }
        if leader != before {
            found.position.retry_now();
            if let Some((_, epoch)) = leader {
                found.position.led_under(epoch);
            }
            self.signals.driver = true;
        }
        if made_anew {
            // Neither what the reader did not finish of the old topic nor what was committed says anything of the new one.
            found.unfinished = None;
            found.committed = None;
            found.checked = -1;
            if let Some(lease) = found.lease.take() {
                lease.replace();
            }
            // Every record of the new topic is new to its reader, whatever the policy says of old offsets.
            let start = Start::of(self.rules.reset).map(|_| Start::Earliest);
            self.reset(partition, start, "its topic was deleted and created again");
        } else {
            let state = found.position.state();
            if found.checked_first(state) != state {
                self.enter(partition, state);
            }
        }
        self.route(partition, metadata, now);
        self.touch(partition);
    }

    /// Decides which broker the partition is fetched from.
    fn route(&mut self, partition: &TopicPartition, metadata: &Metadata, now: Instant) {
        let Some(found) = self.partitions.get_mut(partition) else { return };
        let leader = found.leader.map(|(node, _)| node);
        let gone = |node| !metadata.brokers.contains_key(&node) || leader == Some(node);
        if found.nearby.node().is_some_and(gone) || found.nearby.expire(now) {
            found.nearby.leave();
        }
        self.reroute(partition);
    }

    /// The same, after the replica or the leader changed.
    pub(super) fn reroute(&mut self, partition: &TopicPartition) {
        let Some(found) = self.partitions.get_mut(partition) else { return };
        let leader = found.leader.map(|(node, _)| node);
        let node = leader.map(|leader| found.nearby.node().unwrap_or(leader));
        let until = found.nearby.until();
        let before = std::mem::replace(&mut found.node, node);
        if node != before {
            self.leave_node(before, partition);
            if let Some(id) = node {
                self.join_node(id);
            }
            self.touch(partition);
        }
        if let (Some(until), Some(node)) = (until, node.and_then(|id| self.nodes.get_mut(&id))) {
            node.expiry = Some(node.expiry.map_or(until, |expiry| expiry.min(until)));
        }
    }

    /// Partitions whose leaders are to be asked again whether to read from this broker go back to them (KIP-392).
    pub(super) fn expire_nearby(&mut self, id: i32, now: Instant) {
        match self.nodes.get_mut(&id) {
            Some(node) if node.expiry.is_some_and(|at| at <= now) => node.expiry = None,
            _ => return,
        }
        let here = self.partitions.iter_mut().filter(|(_, found)| found.node == Some(id));
        let (mut back, mut next) = (Vec::new(), None::<Instant>);
        for (partition, found) in here {
            if found.nearby.expire(now) {
                back.push(partition.clone());
            } else if let Some(until) = found.nearby.until() {
                next = Some(next.map_or(until, |next| next.min(until)));
            }
        }
        if let Some(node) = self.nodes.get_mut(&id) {
            node.expiry = next;
        }
        for partition in back {
            self.reroute(&partition);
        }
    }

    /// The replica nearby that a partition is read from failed: its leader is read from, and not told where we are for a
    /// while, so that it does not send us back at once.
    pub(super) fn leave_nearby(&mut self, partition: &TopicPartition, dead: bool, now: Instant) {
        let Some(found) = self.partitions.get_mut(partition) else { return };
        let again = found.nearby.fail(dead, now, &mut self.rng);
        if let Some((leader, _)) = found.leader {
            self.hide_rack(leader, again);
        }
        self.reroute(partition);
    }

    /// Does not tell a leader where we are until then, so that it serves us itself.
    pub(super) fn hide_rack(&mut self, leader: i32, until: Instant) {
        if let Some(node) = self.nodes.get_mut(&leader) {
            node.rackless_until = Some(node.rackless_until.map_or(until, |known| known.max(until)));
        }
    }

    fn join_node(&mut self, id: i32) {
        let account = self.budget.account(id, || (self.wake_for)(id));
        let node = self.nodes.entry(id).or_insert_with(|| {
            self.signals.driver = true;
            Node {
                session: FetchSession::default(),
                changed: BTreeSet::new(),
                waiting: Vec::new(),
                account: account.clone(),
                partitions: 0,
                answer_size: AnswerSize::default(),
                largest_batch: 0,
                not_before: None,
                expiry: None,
                rackless_until: None,
                retries: self.rules.backoff.clone(),
                reported: false,
            }
        });
        node.account = account;
        node.partitions += 1;
    }

    pub(super) fn leave_node(&mut self, node: Option<i32>, partition: &TopicPartition) {
        let Some(id) = node else { return };
        if let Some(node) = self.nodes.get_mut(&id) {
            node.partitions = node.partitions.saturating_sub(1);
            if node.partitions == 0 {
                self.signals.nodes.insert(id);
            }
            node.changed.insert(partition.clone());
        }
        self.settle_accounts();
    }

    /// Brokers from which nothing is fetched any more give their shares to the others, once what came of them was read; the
    /// tasks of those that are gone then end.
    pub(super) fn settle_accounts(&mut self) {
        for (id, _) in self.nodes.iter().filter(|(_, node)| node.partitions == 0) {
            self.budget.leave(*id);
            if !self.brokers.contains(id) {
                self.signals.nodes.insert(*id);
            }
        }
    }

    /// What is to be fetched of a partition may have changed.
    pub(super) fn touch(&mut self, partition: &TopicPartition) {
        let node = self.partitions.get(partition).and_then(|found| found.node);
        if let Some(id) = node
            && let Some(node) = self.nodes.get_mut(&id)
        {
            node.changed.insert(partition.clone());
            self.signals.nodes.insert(id);
        }
    }
}
