//! What is fetched from which broker: one request at a time for each, of what its partitions have room for. Decides; does
//! no IO.

use std::{collections::HashMap, sync::Arc, time::Instant};

use super::{
    assignment::{Assignment, Partition},
    budget::Charge,
    fetch_session::{Verdict, Wish},
    position::{Start, State},
    settings::IsolationLevel,
    walk::{Step, Walk},
};
use crate::{
    error::{Error, ErrorCode, ErrorKind, Remedy},
    record::TopicPartition,
    wire::fetch::{FetchPartition, FetchPartitionResponse, FetchRequest},
};

/// The smallest fetch that is worth its round trip while there is something else to read.
const LEAST: usize = 16 * 1024;

/// What a broker's task is to do next.
#[derive(Debug)]
pub(super) enum Plan {
    /// To send this, with the bytes reserved that the answer may have.
    Fetch {
        request: Box<FetchRequest>,
        reserved: Charge,
        /// Whether some topic's id is not known, so that it can only be asked for by name.
        by_name: bool,
    },
    /// To wait until it is woken, or until then.
    Wait(Option<Instant>),
}

/// What came of one partition, and what its slice holds.
#[derive(Debug)]
pub(super) struct Arrived {
    /// Without its records.
    pub(super) head: FetchPartitionResponse,
    pub(super) walk: Walk,
}

/// What an answer asks of the cluster's metadata.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Hints {
    pub(super) refresh: bool,
    /// Partition, leader, epoch.
    pub(super) leaders: Vec<(TopicPartition, i32, i32)>,
}

impl Assignment {
    /// The next fetch from a broker.
    pub(super) fn plan(&mut self, id: i32, now: Instant) -> Plan {
        self.clock = Some(now);
        self.renew_wishes(id, now);
        let (min_bytes, max_bytes) = (self.rules.min_bytes, self.rules.max_bytes);
        let partition_bytes = usize::try_from(self.rules.partition_bytes).unwrap_or(0);
        let Some(node) = self.nodes.get_mut(&id) else { return Plan::Wait(None) };
        if let Some(at) = node.not_before.filter(|at| *at > now) {
            return Plan::Wait(Some(at));
        }
        if node.session.len() == 0 {
            return Plan::Wait(node.waiting.iter().map(|(at, _)| *at).min());
        }
        let most = usize::try_from(max_bytes).unwrap_or(0);
        let want = most.min(node.session.len().saturating_mul(partition_bytes)).max(1);
        let least = want.min(LEAST);
        let account = node.account.clone();
        let mut again = None;
        let Some(reserved) = account.reserve(want, least).or_else(|| {
            self.make_room(id);
            again = self.evict_unread(id, least, now);
            account.reserve(want, least)
        }) else {
            return Plan::Wait(again);
        };
        let Some(node) = self.nodes.get_mut(&id) else { return Plan::Wait(None) };
        let session = node.session.request();
        let granted = i32::try_from(reserved.bytes()).unwrap_or(i32::MAX);
        let by_name = node.session.has_nameless();
        let request = FetchRequest {
            max_wait_ms: i32::try_from(self.rules.max_wait.as_millis()).unwrap_or(i32::MAX),
            min_bytes: min_bytes.min(granted),
            max_bytes: granted,
            isolation_level: i8::from(self.rules.isolation == IsolationLevel::ReadCommitted),
            session_id: session.session_id,
            session_epoch: session.session_epoch,
            topics: session.topics,
            forgotten: session.forgotten,
            rack_id: self.rules.rack.clone().unwrap_or_default(),
        };
        Plan::Fetch { request: Box::new(request), reserved, by_name }
    }

    /// Brings the session up to date with what changed.
    fn renew_wishes(&mut self, id: i32, now: Instant) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let mut changed = std::mem::take(&mut node.changed);
        node.waiting.retain(|(at, partition)| {
            let due = *at <= now;
            if due {
                changed.insert(partition.clone());
            }
            !due
        });
        for partition in changed {
            let wish = self.wish(&partition, id, now);
            let waits = self.partitions.get(&partition).filter(|found| found.node == Some(id));
            let waits = waits.and_then(|found| found.position.not_before()).filter(|at| *at > now);
            let Some(node) = self.nodes.get_mut(&id) else { return };
            match wish {
                Some(wish) => node.session.want(partition, wish),
                None => {
                    node.session.forget(&partition);
                    if let Some(at) = waits {
                        node.waiting.push((at, partition));
                    }
                }
            }
        }
    }

    /// What is to be fetched of a partition from that broker now.
    fn wish(&mut self, partition: &TopicPartition, id: i32, now: Instant) -> Option<Wish> {
        let bound = self.queue_bound();
        let found = self.partitions.get_mut(partition)?;
        if found.node != Some(id) || found.paused || found.revoking || found.evicted {
            return None;
        }
        let fetch_offset = found.position.fetching(now)?;
        // Once it has its fill it is asked for again when half of that is read, so that it does not come and go.
        let queued = found.queue.bytes();
        found.full = if found.full { queued > bound / 2 } else { queued >= bound };
        if found.full {
            return None;
        }
        Some(Wish {
            topic_id: found.topic_id,
            generation: found.position.generation(),
            partition: FetchPartition {
                partition: partition.partition,
                current_leader_epoch: found.leader.map_or(-1, |(_, epoch)| epoch),
                fetch_offset,
                last_fetched_epoch: -1,
                log_start_offset: -1,
                max_bytes: found.fetch_bytes,
            },
        })
    }

    /// How much of one partition waits for its reader at most before it is fetched no further.
    pub(super) fn queue_bound(&self) -> usize {
        usize::try_from(self.rules.partition_bytes).unwrap_or(0).saturating_mul(2)
    }

    /// A broker's account is full: paused partitions give their bytes back, to be read anew when they go on, and what keeps
    /// a whole response for a small rest is copied out of it.
    fn make_room(&mut self, id: i32) {
        // Not while a question about its position is open.
        let idle =
            |found: &Partition| found.paused && matches!(found.position.state(), State::Fetch { .. } | State::Stopped);
        let mut evicted = Vec::new();
        for (partition, found) in self.partitions.iter_mut().filter(|(_, found)| found.node == Some(id) && idle(found))
        {
            if let Some(start) = found.queue.evict() {
                evicted.push((partition.clone(), start));
            }
        }
        for (partition, offset) in evicted {
            self.enter(&partition, State::Fetch { offset, epoch: -1 });
        }
        let mut pinned: HashMap<*const Charge, (usize, usize)> = HashMap::new();
        for (charge, needed) in self.partitions.values().flat_map(|found| found.queue.pinned()) {
            pinned.entry(Arc::as_ptr(charge)).or_insert((charge.bytes(), 0)).1 += needed;
        }
        pinned.retain(|_, (whole, needed)| *needed <= *whole / 4);
        if !pinned.is_empty() {
            for found in self.partitions.values_mut() {
                found.queue.copy_out(|charge| pinned.contains_key(&Arc::as_ptr(charge)));
            }
        }
    }

    /// A broker's answer came.
    pub(super) fn fetched(
        &mut self,
        id: i32,
        session_id: i32,
        error: ErrorCode,
        arrived: Vec<Arrived>,
        charge: Charge,
        now: Instant,
    ) -> Hints {
        let mut hints = Hints::default();
        let Some(node) = self.nodes.get_mut(&id) else { return hints };
        match node.session.answered(session_id, error) {
            Verdict::Sound => node.retries.reset(),
            Verdict::Renewed => return hints,
            Verdict::Failed(code) => {
                tracing::debug!(node = id, %code, "a fetch was refused");
                node.not_before = Some(now + node.retries.next(&mut self.rng));
                hints.refresh = code.remedy() == Remedy::RefreshMetadata;
                return hints;
            }
        }
        let charge = Arc::new(charge);
        for Arrived { head, walk } in arrived {
            let Some(node) = self.nodes.get(&id) else { break };
            let topic = if head.topic.is_empty() { node.session.name(&head.topic_id) } else { Some(&head.topic) };
            let Some(topic) = topic else { continue };
            let partition = TopicPartition { topic: topic.clone(), partition: head.partition };
            let Some(wish) = node.session.asked(&partition) else { continue };
            let asked_from = wish.partition.fetch_offset;
            let Some(found) = self.partitions.get(&partition) else { continue };
            // Positioned or routed anew since, or already read through another broker.
            let current = found.position.generation() == wish.generation
                && matches!(found.position.state(), State::Fetch { offset, .. } if offset == asked_from);
            if !current {
                continue;
            }
            self.saw(&partition, &head, &walk);
            if let Some((leader, epoch)) = head.current_leader.filter(|(leader, epoch)| *leader >= 0 && *epoch >= 0) {
                hints.leaders.push((partition.clone(), leader, epoch));
            }
            if head.error.is_ok() {
                self.partition_fetched(id, &partition, asked_from, &head, walk, &charge, now);
                self.look_for_end(&partition);
            } else {
                hints.refresh |= self.partition_failed(id, &partition, asked_from, head.error, now);
            }
        }
        self.plan_jobs();
        hints
    }

    /// A partition's slice of a sound answer.
    #[expect(clippy::too_many_arguments)]
    fn partition_fetched(
        &mut self,
        id: i32,
        partition: &TopicPartition,
        asked_from: i64,
        head: &FetchPartitionResponse,
        walk: Walk,
        charge: &Arc<Charge>,
        now: Instant,
    ) {
        let (replica_age, fetch_bytes) = (self.rules.replica_age, self.rules.partition_bytes);
        let Some(found) = self.partitions.get_mut(partition) else { return };
        found.reported = false;
        found.retries.reset();
        found.position.retry_now();
        if head.preferred_read_replica >= 0 && head.preferred_read_replica != id {
            found.replica = Some((head.preferred_read_replica, now + replica_age));
            self.reroute(partition);
            return;
        }
        if let Some((epoch, _)) = head.diverging_epoch {
            let State::Fetch { offset, epoch: read } = found.position.state() else { return };
            self.enter(partition, State::Validate { offset, epoch: if read >= 0 { read } else { epoch } });
            return;
        }
        if walk.too_small && found.fetch_bytes < i32::MAX {
            found.fetch_bytes = found.fetch_bytes.saturating_mul(2);
            self.touch(partition);
            return;
        }
        if walk.too_small {
            // The broker was asked for all that an answer can hold: what it has ends before the batch does.
            let error = Error::new(
                ErrorKind::Corrupt,
                format!("{partition}: the batch at offset {asked_from} announces more bytes than the broker has of it"),
            );
            found.fetch_bytes = fetch_bytes;
            found.queue.push_broken(error, asked_from);
            self.enter(partition, State::Stopped);
            self.queue_up(partition);
            self.wake_reader();
            return;
        }
        if walk.steps.is_empty() {
            return;
        }
        let broken = matches!(walk.steps.last(), Some(Step::Broken(_)));
        let offset = walk.next_offset.map_or(asked_from, |next| next.max(asked_from));
        found.fetch_bytes = fetch_bytes;
        found.queue.push(walk.steps, asked_from, charge);
        let State::Fetch { epoch: before, .. } = found.position.state() else { return };
        let epoch = if walk.leader_epoch >= 0 { walk.leader_epoch } else { before };
        self.enter(partition, if broken { State::Stopped } else { State::Fetch { offset, epoch } });
        self.queue_up(partition);
        self.wake_reader();
    }

    /// A partition's error in a sound answer; whether a new look at the metadata is needed.
    fn partition_failed(
        &mut self,
        id: i32,
        partition: &TopicPartition,
        asked_from: i64,
        code: ErrorCode,
        now: Instant,
    ) -> bool {
        tracing::debug!(%partition, node = id, %code, "a partition cannot be fetched");
        let Some(found) = self.partitions.get_mut(partition) else { return false };
        if found.replica.is_some_and(|(node, _)| node == id) {
            // A follower may lag or be gone; what it says of offsets counts for nothing against its leader.
            found.replica = None;
            self.reroute(partition);
            return code.remedy() == Remedy::RefreshMetadata;
        }
        match code {
            ErrorCode::OFFSET_OUT_OF_RANGE => {
                // The reader first gets what was read before.
                found.queue.push_out_of_range(asked_from);
                self.enter(partition, State::Stopped);
                self.queue_up(partition);
                self.wake_reader();
                return false;
            }
            ErrorCode::CORRUPT_MESSAGE => {
                let error = Error::broker(code, format_args!("fetch of {partition} at offset {asked_from}"));
                found.queue.push_broken(error, asked_from);
                self.enter(partition, State::Stopped);
                self.queue_up(partition);
                self.wake_reader();
                return false;
            }
            _ => {}
        }
        let wait = found.retries.next(&mut self.rng);
        found.position.retry_at(now + wait);
        let retriable = code.is_retriable() || code == ErrorCode::UNKNOWN_SERVER_ERROR;
        if !retriable && !std::mem::replace(&mut found.reported, true) {
            self.tell(partition, Error::broker(code, format_args!("fetch of {partition} at offset {asked_from}")));
        }
        self.touch(partition);
        code.remedy() == Remedy::RefreshMetadata
    }

    /// There was no answer.
    pub(super) fn fetch_failed(&mut self, id: i32, error: &Error, now: Instant) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.session.failed();
        let wait = node.retries.next(&mut self.rng);
        tracing::debug!(node = id, %error, ?wait, "a fetch failed");
        node.not_before = Some(now + wait);
        // A nearer replica that cannot be reached is no longer nearer.
        let away: Vec<_> = self
            .partitions
            .iter_mut()
            .filter(|(_, found)| found.replica.is_some_and(|(node, _)| node == id))
            .map(|(partition, found)| {
                found.replica = None;
                partition.clone()
            })
            .collect();
        for partition in away {
            self.reroute(&partition);
        }
    }

    /// The reader has come to where the broker has nothing (any more): starts anew, or tells it why not.
    pub(super) fn out_of_range(&mut self, partition: &TopicPartition, generation: u64) {
        let Some(found) = self.partitions.get(partition) else { return };
        if found.position.generation() == generation {
            let start = Start::of(self.rules.reset);
            let offset = found.lease.as_ref().map_or(-1, |lease| lease.handed());
            self.reset(partition, start, &format!("offset {offset} is not in the log (any more)"));
        }
    }
}
