//! What becomes of a broker's answer to a fetch: batches for the queues, news of leaders, trouble.
//! Decides; does no IO.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    answer_size::{Came, Pace, partition_bytes},
    assignment::Assignment,
    budget::Charge,
    fetch_session::Verdict,
    fetcher::largest_answer,
    lanes::{Lanes, Source},
    nearby::SHUNNED,
    partition::Partition,
    position::{Start, State},
    queue::is_heavy,
    resets::Pause,
    resolve::HUMAN,
    walk::{Step, Walk},
};
use crate::{
    error::{Error, ErrorCode, ErrorKind, Remedy},
    log::event,
    record::TopicPartition,
    wire::fetch::FetchPartitionResponse,
};

/// What came of one partition, and what its slice holds.
#[derive(Debug)]
pub(super) struct Arrived {
    /// Without its records.
    pub(super) head: FetchPartitionResponse,
    pub(super) walk: Walk,
}

impl Arrived {
    /// Neither records nor an error, nor another broker to read from.
    fn is_empty(&self) -> bool {
        self.head.error.is_ok() && self.walk.steps.is_empty() && self.head.preferred_read_replica < 0
    }
}

/// What an answer asks of the cluster's metadata.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Hints {
    pub(super) refresh: bool,
    /// Partition, leader, epoch.
    pub(super) leaders: Vec<(TopicPartition, i32, i32)>,
}

impl Assignment {
    /// A broker's answer came.
    pub(super) fn fetched(
        &mut self,
        from: impl Into<Source>,
        session_id: i32,
        error: ErrorCode,
        arrived: Vec<Arrived>,
        charge: Charge,
        now: Instant,
    ) -> Hints {
        let mut hints = Hints::default();
        let source = from.into();
        let id = source.broker;
        let beside = self.under_way_beside(source);
        self.wake_beside(source);
        let Some(node) = self.nodes.get_mut(&source) else { return hints };
        node.under_way = 0;
        match node.session.answered(session_id, error) {
            Verdict::Sound => {
                node.retries.reset();
                node.reported = false;
            }
            Verdict::Renewed => return hints,
            Verdict::Failed(code) => {
                event!(DEBUG, self.rules.origin, node = id, %code, "a fetch was refused");
                hints.refresh = code.remedy() == Remedy::RefreshMetadata;
                if source.lane > 0 {
                    self.keep_lanes(id, source.lane);
                    return hints;
                }
                let passes = code.is_retriable() || code == ErrorCode::UNKNOWN_SERVER_ERROR;
                self.node_failed(source, passes, Error::broker(code, format_args!("fetch from broker {id}")), now);
                return hints;
            }
        }
        let is_empty = arrived.iter().all(|arrived| arrived.is_empty());
        let max_wait = if self.rules.min_bytes > 0 { self.rules.max_wait } else { Duration::ZERO };
        if let Some(attempts) = node.empty_answers.answered(is_empty, max_wait, now) {
            // It does not wait for records as it was asked to, so the consumer does.
            node.not_before = Some(now + node.retries.after(attempts, &mut self.rng));
        }
        let largest = arrived.iter().map(|arrived| arrived.walk.largest).max().unwrap_or(0);
        let mut steps = arrived.iter().flat_map(|arrived| &arrived.walk.steps);
        let opens = steps.any(|step| matches!(step, Step::Batch(batch) if is_heavy(batch)));
        let waits = node.account.used().saturating_sub(charge.bytes()).saturating_sub(beside);
        // Over several connections answers come side by side: what others have just brought is not
        // what a slow reader left.
        let open = self.lanes.get(&id).map_or(1, Lanes::open);
        let left = node.last_answer.strong_count() > 0 || waits > charge.bytes().saturating_mul(open.into());
        let waits = match open {
            1 => waits,
            _ if left => usize::MAX,
            _ => 0,
        };
        let most = largest_answer(&node.account).min(usize::try_from(self.rules.max_bytes).unwrap_or(0));
        let pace = node.answer_size.answered(charge.bytes(), waits, most, now);
        if largest > 0 {
            node.largest_batch = largest.max(node.largest_batch / 8 * 7);
            node.account.set_opens(opens);
        }
        let busy = pace == Pace::Line && open == 1 && !self.somebody_waits();
        let pace = if busy { Pace::Other } else { pace };
        let charge = Arc::new(charge);
        if let Some(node) = self.nodes.get_mut(&source) {
            node.last_answer = Arc::downgrade(&charge);
        }
        for Arrived { head, walk } in arrived {
            let Some(node) = self.nodes.get(&source) else { break };
            let topic = if head.topic.is_empty() { node.session.name(&head.topic_id) } else { Some(&head.topic) };
            let Some(topic) = topic else { continue };
            let partition = TopicPartition { topic: topic.clone(), partition: head.partition };
            let Some(wish) = node.session.asked(&partition) else { continue };
            let (asked_from, leader_epoch) = (wish.partition.fetch_offset, wish.partition.current_leader_epoch);
            let Some(found) = self.partitions.get_mut(&partition) else { continue };
            // Positioned or routed anew since, or already read through another broker.
            let current = found.position.generation() == wish.generation
                && matches!(found.position.state(), State::Fetch { offset, .. } if offset == asked_from)
                // What an older leader read may be what a newer one, which was asked meanwhile, has
                // lost.
                && leader_epoch >= found.checked;
            if !current {
                continue;
            }
            // A broker that the partition was routed away from has no say in it; what it read is as
            // good as any.
            if found.source() != Some(source) && (!head.error.is_ok() || walk.steps.is_empty()) {
                continue;
            }
            if !walk.steps.is_empty() {
                found.checked_under(leader_epoch);
            }
            self.saw(&partition, &head, &walk);
            if let Some((leader, epoch)) = head.current_leader.filter(|(leader, epoch)| *leader >= 0 && *epoch >= 0) {
                hints.leaders.push((partition.clone(), leader, epoch));
            }
            if self.searched(id, &partition, asked_from, &head, &walk) {
                continue;
            }
            if head.error.is_ok() && head.preferred_read_replica >= 0 && head.preferred_read_replica != id {
                hints.refresh |= self.sent_elsewhere(id, &partition, head.preferred_read_replica, now);
            } else if head.error.is_ok() {
                self.partition_fetched(source, &partition, asked_from, walk, &charge, now);
                self.look_for_end(&partition);
            } else {
                hints.refresh |= self.partition_failed(id, &partition, asked_from, head.error, now);
            }
        }
        if session_id == 0 {
            self.refuses_session(source, now);
        }
        self.pace_of(source, pace, now);
        self.plan_jobs();
        hints
    }

    /// A broker recommends another replica of a partition (KIP-392); whether a new look at the
    /// metadata is needed.
    fn sent_elsewhere(&mut self, id: i32, partition: &TopicPartition, to: i32, now: Instant) -> bool {
        event!(DEBUG, self.rules.origin, %partition, node = id, to, "another replica is nearer");
        let known = self.brokers.contains(&to);
        let Some(found) = self.partitions.get_mut(partition) else { return false };
        let leads = found.leader.is_some_and(|(leader, _)| leader == id);
        if leads && known {
            let again = found.nearby.recommend(to, now + self.rules.replica_age, now);
            if let Some(again) = again {
                // It insists, though it was not told where we are: there is nobody else to read
                // from.
                found.position.retry_at(again.min(now + found.retries.next(&mut self.rng)));
            }
            self.reroute(partition);
            return false;
        }
        // Only a leader may say so, and only of a broker that there is.
        if leads {
            found.position.retry_at(now + found.retries.next(&mut self.rng));
            self.hide_rack(id, now + SHUNNED);
            self.touch(partition);
        } else {
            self.leave_nearby(partition, false, now);
        }
        true
    }

    /// A partition's slice of a sound answer.
    fn partition_fetched(
        &mut self,
        id: Source,
        partition: &TopicPartition,
        asked_from: i64,
        walk: Walk,
        charge: &Arc<Charge>,
        now: Instant,
    ) {
        let fetch_bytes = self.rules.partition_bytes;
        let node = self.nodes.get(&id).filter(|_| self.rules.partition_grows);
        let answer = node.map_or(0, |node| node.answer_size.bytes().min(largest_answer(&node.account)));
        let answer = i32::try_from(answer).unwrap_or(i32::MAX).min(self.rules.max_bytes);
        let Some(found) = self.partitions.get_mut(partition) else { return };
        let gained = walk.next_offset.is_none_or(|next| next > asked_from);
        if gained {
            found.reported = false;
            found.retries.reset();
        }
        found.position.retry_now();
        found.resets.clear();
        if found.nearby.node() == Some(id.broker) {
            found.nearby.served();
        }
        if walk.too_small && found.fetch_bytes < i32::MAX {
            found.fetch_bytes = found.fetch_bytes.saturating_mul(2);
            self.touch(partition);
            return;
        }
        if walk.too_small {
            // The broker was asked for all that an answer can hold: what it has ends before the
            // batch does.
            let error = Error::new(
                ErrorKind::Corrupt,
                format!("{partition}: the batch at offset {asked_from} announces more bytes than the broker has of it"),
            );
            found.fetch_bytes = fetch_bytes;
            found.queue.push_broken(error, asked_from, walk.sound);
            self.enter(partition, State::Stopped);
            self.queue_up(partition);
            self.wake_reader();
            return;
        }
        if walk.steps.is_empty() {
            return;
        }
        let broken = matches!(walk.steps.last(), Some(Step::Broken { .. }));
        if !broken && walk.next_offset.is_some_and(|next| next <= asked_from) {
            self.fell_behind(partition, asked_from, walk.next_offset.unwrap_or(0), now);
            return;
        }
        let offset = walk.next_offset.map_or(asked_from, |next| next.max(asked_from));
        found.fed = Some(now);
        let came = Came { bytes: walk.bytes, largest: walk.largest, waits: found.queue.bytes() };
        found.fetch_bytes = partition_bytes(found.fetch_bytes, came, fetch_bytes, answer);
        found.queue.push(walk.steps, asked_from, charge);
        let State::Fetch { epoch: before, .. } = found.position.state() else { return };
        let epoch = walk.epochs.last().map_or(before, |(_, epoch)| *epoch);
        for (from, epoch) in walk.epochs {
            found.lease.iter().for_each(|lease| lease.note_epoch(from, epoch));
        }
        self.enter(partition, if broken { State::Stopped } else { State::Fetch { offset, epoch } });
        self.queue_up(partition);
        self.wake_reader();
    }

    /// A broker answered with nothing but batches that lie before what was asked for.
    fn fell_behind(&mut self, partition: &TopicPartition, asked_from: i64, end: i64, now: Instant) {
        let Some(found) = self.partitions.get_mut(partition) else { return };
        let wait = found.retries.next(&mut self.rng);
        found.position.retry_at(now + wait);
        if !std::mem::replace(&mut found.reported, true) {
            let what =
                format!("{partition}: asked for offset {asked_from}, the broker gave batches that end before {end}");
            self.tell(partition, Error::new(ErrorKind::Corrupt, what));
        }
        self.touch(partition);
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
        event!(DEBUG, self.rules.origin, %partition, node = id, %code, "a partition cannot be fetched");
        let Some(found) = self.partitions.get_mut(partition) else { return false };
        if found.nearby.node() == Some(id) {
            // A follower may lag or be gone; what it says of offsets counts for nothing against its
            // leader.
            self.leave_nearby(partition, false, now);
            return code.remedy() == Remedy::RefreshMetadata;
        }
        match code {
            ErrorCode::OFFSET_OUT_OF_RANGE => {
                // The reader first gets what was read before.
                found.queue.push_out_of_range(asked_from);
                found.resets.refused(now);
                self.enter(partition, State::Stopped);
                self.queue_up(partition);
                self.wake_reader();
                return false;
            }
            ErrorCode::CORRUPT_MESSAGE => {
                let cause = Error::broker(code, format_args!("fetch of {partition} at offset {asked_from}"));
                let error = Error::new(ErrorKind::Corrupt, cause.to_string()).with_source(cause);
                found.queue.push_broken(error, asked_from, None);
                self.enter(partition, State::Stopped);
                self.queue_up(partition);
                self.wake_reader();
                return false;
            }
            _ => {}
        }
        let wait = found.retries.next(&mut self.rng);
        found.position.retry_at(self.grid.started(now).after(now, wait));
        let retriable = code.is_retriable() || code == ErrorCode::UNKNOWN_SERVER_ERROR;
        if !retriable && !std::mem::replace(&mut found.reported, true) {
            self.tell(partition, Error::broker(code, format_args!("fetch of {partition} at offset {asked_from}")));
        }
        self.touch(partition);
        code.remedy() == Remedy::RefreshMetadata
    }

    /// Asks a broker again later: soon if that may help, else seldom, and then the reader is told.
    fn node_failed(&mut self, id: Source, passes: bool, error: Error, now: Instant) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let wait = node.retries.next(&mut self.rng);
        node.not_before = Some(now + if passes { wait } else { HUMAN });
        if !passes && !std::mem::replace(&mut node.reported, true) {
            self.push_error(error);
        }
    }

    /// There was no answer.
    pub(super) fn fetch_failed(&mut self, from: impl Into<Source>, error: &Error, now: Instant) {
        let source = from.into();
        let id = source.broker;
        self.wake_beside(source);
        let Some(node) = self.nodes.get_mut(&source) else { return };
        event!(DEBUG, self.rules.origin, node = id, lane = source.lane, %error, "a fetch failed");
        node.under_way = 0;
        node.session.failed();
        if source.lane > 0 {
            return self.lane_failed(source, error, now);
        }
        let passes = error.is_retriable() || error.kind() == ErrorKind::Protocol;
        let told = error.clone().context(format_args!("fetch from broker {id}"));
        self.node_failed(source, passes, told, now);
        // A replica that does not answer is not near, whatever its leader thinks of it.
        let nearby = |found: &Partition| found.nearby.node() == Some(id) && found.source() == Some(source);
        let here = self.partitions.iter().filter(|(_, found)| nearby(found));
        let here: Vec<_> = here.map(|(partition, _)| partition.clone()).collect();
        for partition in here {
            self.leave_nearby(&partition, true, now);
        }
    }

    /// The reader has come to where the broker has nothing (any more): starts anew, or tells it why
    /// not.
    pub(super) fn out_of_range(&mut self, partition: &TopicPartition, generation: u64) {
        let Some(found) = self.partitions.get(partition) else { return };
        if found.position.generation() == generation {
            let start = Start::of(self.rules.reset);
            let offset = found.lease.as_ref().map_or(-1, |lease| lease.handed());
            let why = "its offset is not in the log (any more): OFFSET_OUT_OF_RANGE";
            self.reset(partition, start, why, Some(offset));
            if start.is_some() {
                self.pace_reset(partition, offset);
            }
        }
    }

    /// Lets a reset wait whose predecessor led to another OFFSET_OUT_OF_RANGE.
    fn pace_reset(&mut self, partition: &TopicPartition, offset: i64) {
        let Some(found) = self.partitions.get_mut(partition) else { return };
        let Some(Pause { since, wait, tell }) = found.resets.next(&mut self.rng) else { return };
        let what = format!("fetch of {partition} at offset {offset}, where auto.offset.reset led");
        let error = Error::broker(ErrorCode::OFFSET_OUT_OF_RANGE, what).with_retriable(true);
        found.seen.trouble = Some(error.clone());
        found.position.retry_at(self.grid.started(since).after(since, wait));
        let split = found.split.is_some();
        let told = self.vain_reset_told.is_some_and(|at| since < at + HUMAN);
        if !tell || (told && !split) {
            return;
        }
        self.vain_reset_told = Some(since);
        let error = error.context(format_args!(
            "{partition} is not read, and perhaps others: its leader refuses the offset that it names itself, and is asked \
             for another one, every {} s in the end",
            HUMAN.as_secs()
        ));
        event!(WARN, self.rules.origin, %partition, offset, %error, "positions are reset in vain");
        self.tell(partition, error);
    }
}
