//! What is sent when, to whom: the decisions of a producer, without IO and without a clock of its own.
//!
//! It is told of news, answers, metadata and the time; it gives out requests and [`Effect`]s. Each partition that can
//! send stands once in the ready queue of its leader. A request takes from the front of that queue, one batch of each
//! partition, and a partition with more to send goes to the back; one that cannot go on leaves the queue until an event
//! of its own lets it back, so it stops nobody else.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use rand::{SeedableRng, rngs::StdRng};
use uuid::Uuid;

use super::{
    accumulator::Partition,
    batch::Body,
    counters::Counters,
    idempotence::{Identity, ProducerId},
    purge::Purge,
    queue::{Aftermath, PartitionQueue, Readiness, Rules},
    response::Answer,
    ticket::Ticket,
};
use crate::{
    cluster::Metadata,
    error::{Error, ErrorKind},
    wire::{
        batch::{ProducerStamp, SealedBatch},
        fetch::NodeEndpoint,
        produce::{ProducePartitionResponse, ProduceResponse},
    },
};

/// What a request costs besides its batches, for each partition in it: more than enough for the longest topic name.
const PARTITION_OVERHEAD: usize = 300;

/// One Produce request to be sent.
#[derive(Debug)]
pub(crate) struct ProduceRequest {
    pub(crate) id: u64,
    pub(crate) node: i32,
    pub(crate) parts: Vec<Part>,
}

/// One partition's batch in a request.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) topic: Arc<str>,
    pub(crate) topic_id: Uuid,
    pub(crate) partition: i32,
    pub(crate) body: Body,
    pub(crate) stamp: ProducerStamp,
    pub(crate) ticket: Ticket,
    pub(crate) records: u32,
    pub(crate) attempt: u32,
    /// When the batch was begun, if it leaves for the first time.
    pub(crate) begun: Option<Instant>,
}

/// How a request ended.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) id: u64,
    /// The batches' bytes in the order of the request's parts; `Err` for what could not be sealed.
    pub(crate) bodies: Vec<Result<SealedBatch, Error>>,
    /// The parts that were left out when it was written, because their records had expired by then.
    pub(crate) withdrawn: Vec<bool>,
    /// `None` with acks=0: it was written, and nobody will say more.
    pub(crate) response: Result<Option<ProduceResponse>, Error>,
}

/// What the sender asks of the world besides requests.
#[derive(Debug)]
pub(crate) enum Effect {
    RefreshMetadata,
    WantTopic(Arc<str>),
    LearnLeader { topic: Arc<str>, partition: i32, leader: i32, epoch: i32, endpoints: Arc<[NodeEndpoint]> },
    Throttle { node: i32, millis: i32 },
    AskProducerId,
}

#[derive(Debug, Default)]
struct Node {
    ready: VecDeque<usize>,
    in_flight: usize,
    /// Whether it has answered since the last failure. One that has not gets one request at a time, so that batches grow
    /// instead of queueing up before a connection that may never come.
    warm: bool,
}

#[derive(Debug)]
struct Slot {
    queue: PartitionQueue,
    /// The ready queue that it stands in.
    ready_at: Option<i32>,
    /// The earliest timer that is set for its linger or backoff.
    wake: Option<Instant>,
    expiry: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Wake,
    Expiry,
}

#[derive(Debug)]
struct Outstanding {
    node: i32,
    /// Slot, topic id, and partition of each part.
    parts: Vec<(usize, Uuid)>,
}

/// The sender of one producer.
#[derive(Debug)]
pub(crate) struct Sender {
    rules: Rules,
    identity: Identity,
    slots: Vec<Option<Slot>>,
    nodes: HashMap<i32, Node>,
    requests: HashMap<u64, Outstanding>,
    next_request: u64,
    timers: BinaryHeap<Reverse<(Instant, Timer, usize)>>,
    /// Slots that have something to send and no leader to send it to.
    homeless: BTreeSet<usize>,
    /// Slots that wait for the producer id.
    nameless: BTreeSet<usize>,
    hurry: bool,
    /// Why there is no metadata, for the errors of what expires meanwhile.
    cause: Option<Error>,
    effects: Vec<Effect>,
    rng: StdRng,
    counters: Arc<Counters>,
}

impl Sender {
    pub(crate) fn new(rules: Rules, idempotent: bool, seed: u64, counters: Arc<Counters>) -> Self {
        Self {
            rules,
            identity: if idempotent { Identity::Unknown } else { Identity::Anonymous },
            slots: Vec::new(),
            nodes: HashMap::new(),
            requests: HashMap::new(),
            next_request: 0,
            timers: BinaryHeap::new(),
            homeless: BTreeSet::new(),
            nameless: BTreeSet::new(),
            hurry: false,
            cause: None,
            effects: Vec::new(),
            rng: StdRng::seed_from_u64(seed),
            counters,
        }
    }

    // ---- events

    /// A partition has a batch that was just begun, or a full one.
    pub(crate) fn notice(&mut self, partition: &Arc<Partition>, now: Instant, metadata: &Metadata) {
        let slot = partition.slot;
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        if let Some(place) = self.slots.get_mut(slot)
            && place.is_none()
        {
            let queue = PartitionQueue::new(partition.clone());
            *place = Some(Slot { queue, ready_at: None, wake: None, expiry: false });
        }
        self.schedule(slot, now, metadata);
    }

    /// Whether records wait for room in the buffer: then nothing lingers.
    pub(crate) fn hurry(&mut self, hurry: bool, now: Instant, metadata: &Metadata) {
        if hurry && !self.hurry {
            self.hurry = true;
            self.reschedule_all(now, metadata);
        }
        self.hurry = hurry;
    }

    /// Batches were flushed.
    pub(crate) fn flushed(&mut self, now: Instant, metadata: &Metadata) {
        self.reschedule_all(now, metadata);
    }

    /// There is a new picture of the cluster.
    pub(crate) fn metadata_changed(&mut self, now: Instant, metadata: &Metadata) {
        self.counters.keep_brokers(|id| metadata.brokers.contains_key(&id));
        self.nodes.retain(|id, node| metadata.brokers.contains_key(id) || node.in_flight > 0 || !node.ready.is_empty());
        self.reschedule_all(now, metadata);
    }

    /// What stands in the way of metadata at the moment, if anything does.
    pub(crate) fn set_cause(&mut self, cause: Option<Error>) {
        self.cause = cause;
    }

    /// The answer to [`Effect::AskProducerId`]; an error is for good.
    pub(crate) fn producer_id(&mut self, answer: Result<ProducerId, Error>, now: Instant, metadata: &Metadata) {
        match answer {
            Ok(id) => self.identity = Identity::Known(id),
            Err(error) => self.identity = Identity::Refused(error),
        }
        for slot in std::mem::take(&mut self.nameless) {
            self.schedule(slot, now, metadata);
        }
    }

    /// A request ended.
    pub(crate) fn answered(&mut self, answered: Answered, now: Instant, metadata: &Metadata) {
        let Some(request) = self.requests.remove(&answered.id) else { return };
        self.counters.answered(request.parts.len(), &answered);
        let node = self.nodes.entry(request.node).or_default();
        node.in_flight = node.in_flight.saturating_sub(1);
        node.warm = answered.response.is_ok();
        let (mut answers, endpoints, failure) = match answered.response {
            Ok(Some(response)) => {
                if response.throttle_time_ms > 0 {
                    self.effects.push(Effect::Throttle { node: request.node, millis: response.throttle_time_ms });
                }
                let endpoints: Arc<[NodeEndpoint]> = response.node_endpoints.into();
                (Answers::new(response.partitions), endpoints, None)
            }
            Ok(None) => (Answers::new(Vec::new()), Arc::from([]), None),
            Err(error) => (Answers::new(Vec::new()), Arc::from([]), Some(error)),
        };
        let acked = self.rules.acks != 0;
        let mut refresh = false;
        let parts = request.parts.into_iter().zip(answered.bodies).zip(answered.withdrawn);
        for (i, (((slot, topic_id), body), withdrawn)) in parts.enumerate() {
            let Some(place) = self.slots.get_mut(slot).and_then(Option::as_mut) else { continue };
            let partition = place.queue.partition.clone();
            let name = || format!("{}[{}]", partition.topic, partition.index);
            let answer = match (&failure, answers.take(i, &partition, topic_id)) {
                _ if withdrawn => Answer::Withdrawn,
                (Some(error), _) => Answer::failed(error),
                (None, Some(response)) => {
                    if let Some((leader, epoch)) = response.current_leader.filter(|(leader, _)| *leader >= 0) {
                        tracing::debug!(
                            topic = &*partition.topic,
                            partition = partition.index,
                            node = request.node,
                            leader,
                            leader_epoch = epoch,
                            "the broker names another leader"
                        );
                        self.effects.push(Effect::LearnLeader {
                            topic: partition.topic.clone(),
                            partition: partition.index,
                            leader,
                            epoch,
                            endpoints: endpoints.clone(),
                        });
                    }
                    Answer::read(response, &name())
                }
                (None, None) if acked => Answer::missing(&name()),
                (None, None) => Answer::Written { base_offset: None, log_append_millis: None },
            };
            refresh |= answer.asks_for_refresh();
            let aftermath = place.queue.answered(answered.id, body, answer, now, &self.rules, &mut self.rng);
            self.after(aftermath);
            self.schedule(slot, now, metadata);
        }
        if answers.left() > 0 {
            tracing::warn!(node = request.node, "the broker answered for partitions that it was not asked about");
        }
        if refresh {
            self.effects.push(Effect::RefreshMetadata);
        }
    }

    /// The time has come for some partitions.
    pub(crate) fn tick(&mut self, now: Instant, metadata: &Metadata) {
        while let Some(Reverse((at, timer, slot))) = self.timers.peek().copied()
            && at <= now
        {
            self.timers.pop();
            let Some(place) = self.slots.get_mut(slot).and_then(Option::as_mut) else { continue };
            match timer {
                Timer::Wake if place.wake == Some(at) => place.wake = None,
                Timer::Wake => continue,
                Timer::Expiry => {
                    place.expiry = false;
                    let aftermath = place.queue.expire(now, &self.rules, self.cause.as_ref());
                    self.after(aftermath);
                }
            }
            self.schedule(slot, now, metadata);
        }
    }

    /// Fails all there is, each batch with its own status.
    pub(crate) fn fail_all(&mut self, error: &Error) {
        for place in self.slots.iter_mut().flatten() {
            place.queue.fail_all(error);
        }
    }

    /// Fails what the user does not want any more; gives how many records that were.
    pub(crate) fn purge(&mut self, what: Purge, now: Instant, metadata: &Metadata) -> usize {
        let mut records = 0;
        for slot in 0..self.slots.len() {
            let Some(place) = self.slots.get_mut(slot).and_then(Option::as_mut) else { continue };
            let (purged, aftermath) = place.queue.purge(what, now);
            records += purged;
            self.after(aftermath);
            self.schedule(slot, now, metadata);
        }
        records
    }

    // ---- what comes of them

    /// The next request that can go out, if there is one.
    pub(crate) fn next_request(&mut self, now: Instant, metadata: &Metadata) -> Option<ProduceRequest> {
        let max = self.rules.max_in_flight;
        loop {
            let node = self
                .nodes
                .iter()
                .filter(|(_, node)| !node.ready.is_empty() && node.in_flight < if node.warm { max } else { 1 })
                .map(|(id, _)| *id)
                .min()?;
            if let Some(request) = self.fill(node, now, metadata) {
                return Some(request);
            }
        }
    }

    /// What else there is to do; called until it is empty.
    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// When [`tick`](Self::tick) is due.
    pub(crate) fn next_wake(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, ..))| *at)
    }

    /// Fills a request for a node from its ready queue. `None` when nothing in it could be sent after all; then the queue
    /// is empty.
    fn fill(&mut self, id: i32, now: Instant, metadata: &Metadata) -> Option<ProduceRequest> {
        let request = self.next_request;
        let mut parts: Vec<Part> = Vec::new();
        let mut places = Vec::new();
        let mut size = 0;
        let mut again = Vec::new();
        while let Some(slot) = self.nodes.get_mut(&id).and_then(|node| node.ready.pop_front()) {
            let Some(place) = self.slots.get_mut(slot).and_then(Option::as_mut) else { continue };
            if place.ready_at != Some(id) {
                // It has moved to another leader's queue since.
                continue;
            }
            let partition = place.queue.partition.clone();
            let leader = metadata.leader(&partition.topic, partition.index).map(|(leader, _)| leader);
            let readiness = place.queue.readiness(now, &self.rules, &self.identity, self.hurry, leader);
            if readiness != Readiness::Ready || leader != Some(id) {
                place.ready_at = None;
                self.schedule(slot, now, metadata);
                continue;
            }
            let next = place.queue.next_size().unwrap_or(0) + PARTITION_OVERHEAD;
            if !parts.is_empty() && size + next > self.rules.max_request_size {
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.ready.push_front(slot);
                }
                break;
            }
            place.ready_at = None;
            let Some(drained) = place.queue.drain(request, id, &self.identity) else { continue };
            size += next;
            let topic_id = metadata.topic(&partition.topic).map_or(Uuid::nil(), |topic| topic.id);
            parts.push(Part {
                topic: partition.topic.clone(),
                topic_id,
                partition: partition.index,
                body: drained.body,
                stamp: drained.stamp,
                ticket: drained.ticket,
                records: drained.records,
                attempt: drained.attempt,
                begun: drained.begun,
            });
            places.push((slot, topic_id));
            again.push(slot);
        }
        // Only now, so that a partition is in a request once.
        for slot in again {
            self.schedule(slot, now, metadata);
        }
        if parts.is_empty() {
            return None;
        }
        self.counters.drained(&parts, now);
        self.next_request += 1;
        self.nodes.entry(id).or_default().in_flight += 1;
        self.requests.insert(request, Outstanding { node: id, parts: places });
        Some(ProduceRequest { id: request, node: id, parts })
    }

    /// Puts a partition where it belongs: into a ready queue, among those that wait for something, or nowhere.
    fn schedule(&mut self, slot: usize, now: Instant, metadata: &Metadata) {
        let Some(place) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        let partition = place.queue.partition.clone();
        if let Identity::Refused(error) = &self.identity {
            let error = error.clone();
            place.queue.fail_all(&error);
            return;
        }
        let mut aftermath = Aftermath::default();
        if let Some(topic) = metadata.topic(&partition.topic) {
            aftermath = place.queue.topic_id(topic.id);
        }
        let leader = metadata.leader(&partition.topic, partition.index).map(|(leader, _)| leader);
        let readiness = place.queue.readiness(now, &self.rules, &self.identity, self.hurry, leader);
        self.homeless.remove(&slot);
        match readiness {
            Readiness::Empty | Readiness::Blocked => {}
            Readiness::At(at) => {
                if place.wake.is_none_or(|wake| at < wake) {
                    place.wake = Some(at);
                    self.timers.push(Reverse((at, Timer::Wake, slot)));
                }
            }
            Readiness::NoProducerId => {
                self.nameless.insert(slot);
                if matches!(self.identity, Identity::Unknown) {
                    self.identity = Identity::Asking;
                    self.effects.push(Effect::AskProducerId);
                }
            }
            Readiness::Ready => match leader {
                Some(node) if place.ready_at != Some(node) => {
                    place.ready_at = Some(node);
                    self.nodes.entry(node).or_default().ready.push_back(slot);
                }
                Some(_) => {}
                None => {
                    self.homeless.insert(slot);
                    self.effects.push(Effect::WantTopic(partition.topic.clone()));
                    self.effects.push(Effect::RefreshMetadata);
                }
            },
        }
        if !place.expiry
            && let Some(at) = place.queue.next_expiry(&self.rules)
        {
            place.expiry = true;
            self.timers.push(Reverse((at, Timer::Expiry, slot)));
        }
        self.after(aftermath);
    }

    fn reschedule_all(&mut self, now: Instant, metadata: &Metadata) {
        for slot in 0..self.slots.len() {
            self.schedule(slot, now, metadata);
        }
    }

    fn after(&mut self, aftermath: Aftermath) {
        if aftermath.raised {
            self.counters.epoch_raised();
        }
        if aftermath.needs_new_id && matches!(self.identity, Identity::Known(_)) {
            self.identity = Identity::Unknown;
        }
    }

    /// The error of whoever is still waited for when the producer is closed.
    pub(crate) fn closing_error() -> Error {
        Error::new(ErrorKind::Closed, "the producer was closed before the record was acknowledged")
    }
}

/// The partitions of a response, found by the order of the request or else by search.
struct Answers(Vec<Option<ProducePartitionResponse>>);

impl Answers {
    fn new(partitions: Vec<ProducePartitionResponse>) -> Self {
        Self(partitions.into_iter().map(Some).collect())
    }

    fn take(&mut self, guess: usize, partition: &Partition, topic_id: Uuid) -> Option<ProducePartitionResponse> {
        let is_it = |answer: &Option<ProducePartitionResponse>| {
            answer.as_ref().is_some_and(|answer| {
                answer.partition == partition.index
                    && (*answer.topic == *partition.topic
                        || (answer.topic.is_empty() && answer.topic_id == topic_id && !topic_id.is_nil()))
            })
        };
        let at = match self.0.get(guess) {
            Some(answer) if is_it(answer) => guess,
            _ => self.0.iter().position(is_it)?,
        };
        self.0.get_mut(at)?.take()
    }

    fn left(&self) -> usize {
        self.0.iter().filter(|answer| answer.is_some()).count()
    }
}
