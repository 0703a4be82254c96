//! Which broker each partition is read from, as the picture of the cluster changes. Decides; does
//! no IO.

use std::{
    collections::BTreeSet,
    sync::{Arc, Weak},
    time::Instant,
};

use super::{
    answer_size::AnswerSize,
    assignment::Assignment,
    budget::{Account, Charge},
    empty_answers::EmptyAnswers,
    fetch_session::FetchSession,
    lanes::Source,
    partition::Partition,
    position::Start,
};
use crate::{
    cluster::{Backoff, Metadata},
    error::ErrorCode,
    record::TopicPartition,
};

/// A broker that something is fetched from, over one connection.
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
    pub(super) empty_answers: EmptyAnswers,
    /// Reserved for the answer that is under way.
    pub(super) under_way: usize,
    /// What came last, as long as some of it waits for its reader.
    pub(super) last_answer: Weak<Charge>,
    /// About the largest batch of late, in bytes.
    pub(super) largest_batch: usize,
    pub(super) not_before: Option<Instant>,
    /// When the first of the partitions that are read here as from a replica nearby is to be asked
    /// of its leader again.
    pub(super) expiry: Option<Instant>,
    /// Not told our rack until then: it would send us to a replica that failed.
    pub(super) rackless_until: Option<Instant>,
    pub(super) retries: Backoff,
    /// Its present trouble was told to the reader.
    pub(super) reported: bool,
}

impl Node {
    /// A partition that is read here as from a replica nearby is to be asked of its leader again
    /// then.
    fn expire_at(&mut self, until: Instant) {
        self.expiry = Some(self.expiry.map_or(until, |expiry| expiry.min(until)));
    }
}

impl Assignment {
    /// There is a new picture of the cluster.
    pub(super) fn metadata_changed(&mut self, metadata: &Metadata, now: Instant) {
        self.has_metadata = true;
        self.unreachable_reported = false;
        self.unresolved_reported = false;
        self.brokers = metadata.brokers.keys().copied().collect();
        for partition in self.assigned() {
            self.update(&partition, metadata, now);
        }
        self.look_at_topics(metadata, now);
        self.settle_accounts();
    }

    /// Takes what the picture says of the topics that are asked for.
    pub(super) fn look_at_topics(&mut self, metadata: &Metadata, now: Instant) {
        let assigned = self.partitions.keys().map(|partition| partition.topic.clone()).collect();
        self.topics.look(metadata, assigned, now);
    }

    /// Takes what the picture says of a partition.
    pub(super) fn update(&mut self, partition: &TopicPartition, metadata: &Metadata, now: Instant) {
        let Some(found) = self.partitions.get_mut(partition) else { return };
        let Some(topic) = metadata.topic(&partition.topic) else { return };
        let id = topic.id;
        found.vanished = topic.error == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
        let leader = metadata.leader(&partition.topic, partition.partition);
        let before = found.leader;
        let made_anew = !found.topic_id.is_nil() && !id.is_nil() && found.topic_id != id;
        if !id.is_nil() {
            found.topic_id = id;
        }
        found.leader = leader;
        if leader.is_some_and(|(_, epoch)| epoch < found.checked) {
            // Epochs that begin anew without an id to tell the topics apart: what was checked says
            // nothing of these.
            found.checked = -1;
        }
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
            // Neither what the reader did not finish of the old topic nor what was committed says
            // anything of the new one.
            found.unfinished = None;
            found.committed = None;
            found.checked = -1;
            if let Some(lease) = found.lease.take() {
                lease.replace();
            }
            // Every record of the new topic is new to its reader, whatever the policy says of old
            // offsets.
            let start = Start::of(self.rules.reset).map(|_| Start::Earliest);
            self.reset(partition, start, "its topic was deleted and created again", None);
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
        let before = found.source();
        found.node = node;
        if node != before.map(|source| source.broker) {
            self.leave_source(before, partition);
            if let Some(id) = node {
                let to = self.lane_for(id);
                self.join_source(partition, to);
            }
            self.touch(partition);
        }
        let source = self.partitions.get(partition).and_then(Partition::source);
        if let (Some(until), Some(node)) = (until, source.and_then(|source| self.nodes.get_mut(&source))) {
            node.expire_at(until);
        }
    }

    /// Partitions whose leaders are to be asked again whether to read from this broker go back to
    /// them (KIP-392).
    pub(super) fn expire_nearby(&mut self, id: Source, now: Instant) {
        match self.nodes.get_mut(&id) {
            Some(node) if node.expiry.is_some_and(|at| at <= now) => node.expiry = None,
            _ => return,
        }
        let here = self.partitions.iter_mut().filter(|(_, found)| found.source() == Some(id));
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

    /// The replica nearby that a partition is read from failed: its leader is read from, and not
    /// told where we are for a while, so that it does not send us back at once.
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
        for (_, node) in self.nodes.iter_mut().filter(|(source, _)| source.broker == leader) {
            node.rackless_until = Some(node.rackless_until.map_or(until, |known| known.max(until)));
        }
    }

    /// A partition is fetched from there from now on.
    pub(super) fn join_source(&mut self, partition: &TopicPartition, to: Source) {
        let account = self.budget.account(to.broker, || (self.wake_for)(to.broker));
        let rackless_until = self.nodes.get(&to.broker.into()).and_then(|first| first.rackless_until);
        let node = self.nodes.entry(to).or_insert_with(|| {
            self.signals.driver = true;
            Node {
                session: FetchSession::default(),
                changed: BTreeSet::new(),
                waiting: Vec::new(),
                account: account.clone(),
                partitions: 0,
                answer_size: AnswerSize::default(),
                empty_answers: EmptyAnswers::default(),
                under_way: 0,
                last_answer: Weak::new(),
                largest_batch: 0,
                not_before: None,
                expiry: None,
                rackless_until,
                retries: self.rules.backoff.clone(),
                reported: false,
            }
        });
        node.account = account;
        node.partitions += 1;
        if let Some(found) = self.partitions.get_mut(partition) {
            found.lane = to.lane;
            if let Some(until) = found.nearby.until() {
                node.expire_at(until);
            }
        }
    }

    /// A partition is fetched from there no longer.
    pub(super) fn leave_source(&mut self, source: Option<Source>, partition: &TopicPartition) {
        let Some(id) = source else { return };
        if let Some(node) = self.nodes.get_mut(&id) {
            node.partitions = node.partitions.saturating_sub(1);
            if node.partitions == 0 {
                self.signals.nodes.insert(id);
            }
            node.changed.insert(partition.clone());
        }
        self.settle_accounts();
    }

    /// Brokers from which nothing is fetched any more give their shares to the others, once what
    /// came of them was read; the tasks of those that are gone then end.
    pub(super) fn settle_accounts(&mut self) {
        let read = self.nodes.iter().filter(|(_, node)| node.partitions > 0);
        let read: BTreeSet<i32> = read.map(|(source, _)| source.broker).collect();
        for source in self.nodes.keys().filter(|source| !read.contains(&source.broker)) {
            self.budget.leave(source.broker);
            if !self.brokers.contains(&source.broker) {
                self.signals.nodes.insert(*source);
            }
        }
    }

    /// What is to be fetched of a partition may have changed.
    pub(super) fn touch(&mut self, partition: &TopicPartition) {
        let source = self.partitions.get(partition).and_then(Partition::source);
        if let Some(id) = source
            && let Some(node) = self.nodes.get_mut(&id)
        {
            node.changed.insert(partition.clone());
            self.signals.nodes.insert(id);
        }
    }
}
