//! Fetch 4–18: long polling (min_bytes, max_wait), limits by request and by partition, which the
//! first batch may exceed (KIP-74), sessions (KIP-227), topic ids (v13), leader epochs (KIP-320),
//! diverging epochs (KIP-595), leader hints (KIP-951, v16), followers that serve and leaders that
//! send readers to them (KIP-392, v11), transactions (KIP-98): readers of committed records read as
//! far as the last stable offset and get the list of aborted transactions. Everything is replicated
//! at once, so the high watermark is the end of the log.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use uuid::Uuid;

use super::{
    Call, Context, Step, Subject,
    fetch_reply::{Answer, FetchReply},
    millis,
};
use crate::{
    error::{ErrorCode, Result},
    record::TopicPartition,
    testkit::{
        fault::Spot,
        state::{
            State,
            sessions::{Found, Key, Plan, SessionRequest, Wanted},
            sink::{END, Prepared},
            topics::Partition,
        },
    },
    wire::messages::FetchRequest,
};

/// Errors of the fetch session; a fault's error of this kind is not put at its partitions.
const OF_THE_SESSION: [ErrorCode; 3] = [
    ErrorCode::FETCH_SESSION_ID_NOT_FOUND,
    ErrorCode::INVALID_FETCH_SESSION_EPOCH,
    ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR,
];

pub(crate) struct Fetch {
    session_id: i32,
    request: Option<SessionRequest>,
    max_wait: Duration,
    min_bytes: usize,
    max_bytes: usize,
    read_committed: bool,
    /// The reader's rack; `None` before v11, where only leaders serve.
    rack: Option<Box<str>>,
    /// Set once the session has applied the request: the partitions to read, and the time until
    /// which the request waits.
    plan: Option<(Plan, Instant)>,
}

impl Fetch {
    pub(crate) fn new(request: FetchRequest, version: i16) -> Self {
        let by_id = version >= 13;
        let key = |name: &str, id: Uuid, partition: i32| match by_id {
            true => Key { topic: "".into(), id, partition },
            false => Key { topic: name.into(), id: Uuid::nil(), partition },
        };
        let wanted = request.topics.iter().flat_map(|topic| {
            topic.partitions.iter().map(|asked| {
                let wanted = Wanted {
                    offset: asked.fetch_offset,
                    current_leader_epoch: if version >= 9 { asked.current_leader_epoch } else { -1 },
                    last_fetched_epoch: if version >= 12 { asked.last_fetched_epoch } else { -1 },
                    max_bytes: asked.partition_max_bytes,
                };
                (key(&topic.topic, topic.topic_id, asked.partition), wanted)
            })
        });
        let wanted = wanted.collect();
        let forgotten = request
            .forgotten_topics_data
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(|&partition| key(&topic.topic, topic.topic_id, partition)));
        let forgotten = forgotten.collect();
        let (id, epoch) = if version >= 7 { (request.session_id, request.session_epoch) } else { (0, -1) };
        Self {
            session_id: id,
            request: Some(SessionRequest { id, epoch, by_id, wanted, forgotten }),
            max_wait: millis(request.max_wait_ms),
            min_bytes: usize::try_from(request.min_bytes).unwrap_or(0),
            max_bytes: usize::try_from(request.max_bytes).unwrap_or(0),
            read_committed: request.isolation_level == 1,
            rack: (version >= 11).then(|| request.rack_id.as_str().into()),
            plan: None,
        }
    }

    fn read_all(&self, context: &Context<'_>, plan: &Plan) -> Vec<(Option<Arc<str>>, Answer)> {
        let mut left = self.max_bytes;
        let mut nothing_yet = true;
        let mut found = Vec::with_capacity(plan.partitions.len());
        for (key, wanted) in &plan.partitions {
            let topic = topic_of(context.state, key);
            let answer = match &topic {
                Some(topic) => self.read(context, topic, key.partition, wanted, left, nothing_yet),
                None => Answer::refused(ErrorCode::UNKNOWN_TOPIC_ID),
            };
            nothing_yet &= answer.size == 0;
            left = left.saturating_sub(answer.size);
            found.push((topic, answer));
        }
        found
    }

    /// Reads one partition; `left` is the number of bytes that the response may still hold, which
    /// the first batch may exceed.
    fn read(
        &self,
        context: &Context<'_>,
        topic: &str,
        index: i32,
        wanted: &Wanted,
        left: usize,
        at_least_one: bool,
    ) -> Answer {
        let rack = self.rack.as_deref();
        let injected = context.verdict.for_partition(topic, index);
        if let Some(injected) = injected {
            return Answer::refused(injected.code);
        }
        let Some(partition) = context.state.topics.partition(topic, index) else {
            return Answer::refused(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        };
        let served = match rack {
            Some(_) => partition.check_replica(context.broker, wanted.current_leader_epoch),
            None => partition.check_leader(context.broker, wanted.current_leader_epoch),
        };
        if let Err(error) = served {
            return Answer::refused(error);
        }
        let log = &partition.log;
        let end = partition.end_at(context.broker);
        let stable = log.last_stable().min(end);
        let bounds = Answer { end, stable, start: log.start(), ..Answer::default() };
        if let Some(preferred) = rack.and_then(|rack| preferred(context, partition, wanted.offset, rack)) {
            return Answer { preferred, ..bounds };
        }
        let max_bytes = usize::try_from(wanted.max_bytes).unwrap_or(0).min(left);
        if let Some(sink) = &context.state.sink {
            return match sink.prepared(topic) {
                Some(prepared) if at_least_one || max_bytes > 0 => {
                    prepared_from(prepared, wanted.offset, max_bytes, at_least_one)
                }
                _ => Answer { end: 0, stable: 0, ..Answer::default() },
            };
        }
        if wanted.last_fetched_epoch >= 0 {
            match log.end_of_epoch(wanted.last_fetched_epoch) {
                None => return Answer::refused(ErrorCode::OFFSET_OUT_OF_RANGE),
                Some((epoch, end)) if epoch < wanted.last_fetched_epoch || end < wanted.offset => {
                    return Answer { diverging: Some((epoch, end)), ..bounds };
                }
                Some(_) => {}
            }
        }
        let readable = if self.read_committed { stable } else { end };
        match log.read(wanted.offset, end, readable, max_bytes, at_least_one) {
            Ok(slice) => {
                let aborted = match self.read_committed {
                    true => log.transactions().aborted_between(wanted.offset, slice.end),
                    false => Vec::new(),
                };
                Answer { records: slice.batches, size: slice.size, aborted, ..bounds }
            }
            Err(error) => Answer { error, ..bounds },
        }
    }

    fn answer(&self, context: &mut Context<'_>, plan: &Plan, found: Vec<(Option<Arc<str>>, Answer)>) -> Step {
        let mode = plan.mode;
        let mut answers = Vec::with_capacity(found.len());
        let mut news = Vec::with_capacity(found.len());
        for ((key, _), (topic, mut answer)) in plan.partitions.iter().zip(found) {
            if context.head.version >= 16
                && context.state.options.leader_hints
                && matches!(answer.error, ErrorCode::NOT_LEADER_OR_FOLLOWER | ErrorCode::FENCED_LEADER_EPOCH)
                && let Some(partition) = topic.and_then(|topic| context.state.topics.partition(&topic, key.partition))
            {
                answer.leader = Some((partition.leader, partition.leader_epoch));
            }
            if context.state.options.shuffle_aborted {
                context.state.shuffle(&mut answer.aborted);
            }
            let what = Found {
                has_data: answer.size > 0,
                error: !answer.error.is_ok() || answer.diverging.is_some() || answer.preferred >= 0,
                high_watermark: answer.end,
                log_start: answer.start,
            };
            news.push((key, what));
            answers.push((key, answer));
        }
        let Some(broker) = context.state.broker_mut(context.broker) else { return Step::Close };
        let told = broker.sessions.answer(mode, &news);
        let entries = answers.into_iter().zip(told).filter(|&(_, told)| told).map(|(entry, _)| entry).collect();
        FetchReply { context, session_id: mode.session_id(), read_committed: self.read_committed }.write(entries)
    }

    fn fail(&self, context: &mut Context<'_>, error: ErrorCode) -> Step {
        FetchReply { context, session_id: 0, read_committed: self.read_committed }.write_error(error)
    }
}

impl Call for Fetch {
    fn subject(&self, state: &State, broker: i32) -> Subject {
        let Some(request) = &self.request else { return Subject::default() };
        let remembered = state.broker(broker).into_iter().flat_map(|broker| broker.sessions.peek(self.session_id));
        let remembered = remembered.filter(|key| request.epoch > 0 && !request.forgotten.contains(key));
        let mut partitions: Vec<TopicPartition> = request
            .wanted
            .iter()
            .map(|(key, _)| key)
            .chain(remembered)
            .filter_map(|key| Some(TopicPartition::new(topic_of(state, key)?, key.partition)))
            .collect();
        partitions.sort();
        partitions.dedup();
        Subject { partitions, group: None }
    }

    fn act(&mut self, context: &mut Context<'_>) -> Result<Step> {
        if let Some(request) = self.request.take() {
            let whole = context.verdict.spot == Spot::Whole;
            if let Some(code) = context.refused().filter(|code| whole || OF_THE_SESSION.contains(code)) {
                return Ok(self.fail(context, code));
            }
            let (slots, now) = (context.state.options.fetch_sessions, context.now);
            let Some(broker) = context.state.broker_mut(context.broker) else { return Ok(Step::Close) };
            match broker.sessions.begin(request, slots, now) {
                Ok(plan) => self.plan = Some((plan, context.now + self.max_wait)),
                Err(error) => return Ok(self.fail(context, error)),
            }
        }
        let Some((plan, until)) = self.plan.take() else { return Ok(Step::Close) };
        let found = self.read_all(context, &plan);
        let size: usize = found.iter().map(|(_, answer)| answer.size).sum();
        let urgent = found
            .iter()
            .any(|(_, answer)| !answer.error.is_ok() || answer.diverging.is_some() || answer.preferred >= 0);
        if size >= self.min_bytes || urgent || found.is_empty() || context.now >= until {
            return Ok(self.answer(context, &plan, found));
        }
        self.plan = Some((plan, until));
        // The end of a transaction moves the last stable offset.
        let ends = context.state.transactions.deadline();
        Ok(Step::Wait(Some(ends.map_or(until, |ends| ends.min(until)))))
    }

    fn wakes(&self) -> bool {
        false
    }
}

fn topic_of(state: &State, key: &Key) -> Option<Arc<str>> {
    if key.topic.is_empty() { state.topics.name_of(key.id).cloned() } else { Some(Arc::from(&*key.topic)) }
}

/// Returns the replica to which the leader sends a reader of that rack: a follower there that is up
/// and has the offset.
fn preferred(context: &Context<'_>, partition: &Partition, offset: i64, rack: &str) -> Option<i32> {
    if partition.leader != context.broker {
        return None;
    }
    if let Some(preferred) = partition.preferred.filter(|_| !rack.is_empty()) {
        return Some(preferred).filter(|&preferred| preferred != partition.leader);
    }
    let is_near = |id: i32| {
        let broker = context.state.broker(id).filter(|broker| broker.up);
        broker.is_some_and(|broker| broker.rack.as_deref() == Some(rack))
    };
    if !context.state.options.rack_aware || rack.is_empty() || is_near(partition.leader) {
        return None;
    }
    let near = partition
        .replicas
        .iter()
        .copied()
        .filter(|&id| is_near(id) && (partition.log.start()..=partition.end_at(id)).contains(&offset));
    near.max_by_key(|&id| partition.end_at(id))
}

fn prepared_from(prepared: &Prepared, offset: i64, max_bytes: usize, at_least_one: bool) -> Answer {
    let mut answer = Answer { end: END, stable: END, ..Answer::default() };
    for (base_offset, rest) in prepared.from(offset.max(0), max_bytes, at_least_one) {
        answer.size += size_of::<i64>() + rest.len();
        answer.records.push(Bytes::copy_from_slice(&base_offset.to_be_bytes()));
        answer.records.push(rest);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::messages::fetch_request::{FetchPartition, FetchTopic};

    #[test]
    fn old_versions_ignore_sessions_and_topic_ids() {
        let partition = FetchPartition { partition: 3, current_leader_epoch: 9, ..Default::default() };
        let topic = FetchTopic { topic_id: Uuid::from_u128(5), partitions: vec![partition], ..Default::default() };
        let request = FetchRequest { session_id: 7, session_epoch: 7, topics: vec![topic], ..Default::default() };
        let old = Fetch::new(request.clone(), 6).request.unwrap();
        assert_eq!((old.id, old.epoch), (0, -1));
        assert_eq!(old.wanted[0].1.current_leader_epoch, -1);
        assert!(old.wanted[0].0.id.is_nil());
        let new = Fetch::new(request, 13).request.unwrap();
        assert_eq!((new.id, new.epoch), (7, 7));
        assert_eq!(new.wanted[0].0, Key { topic: "".into(), id: Uuid::from_u128(5), partition: 3 });
    }
}
