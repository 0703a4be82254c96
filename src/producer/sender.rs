//! What is sent when, to whom: the decisions of a producer, without IO and without a clock of its
//! own.
//!
//! It is told of news, answers, metadata and the time; it gives out requests and [`Effect`]s. Each
//! partition that can send stands once in the ready queue of its leader. A request takes from the
//! front of that queue, one batch of each partition, and a partition with more to send goes to the
//! back; one that cannot go on leaves the queue until an event of its own lets it back, so it stops
//! nobody else.
//!
//! Sans-IO.

mod request;
pub(super) mod response_partitions;

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{SeedableRng, rngs::StdRng};
use uuid::Uuid;

use self::request::PartitionName;
pub(crate) use self::request::{Effect, ProduceRequest, RequestPart};
use super::{
    accumulator::Partition,
    counters::Counters,
    idempotence::{Identity, ProducerId},
    partitioner::{Availability, AvailabilityCheck},
    purge::PurgeScope,
    response::BatchDecision,
};
use crate::producer::batch_body::Body;
use crate::producer::partition_queue::{EpochEffects, PartitionQueue, Readiness, SenderRules};
use crate::producer::sender::response_partitions::ResponsePartitions;
use crate::{
    cluster::{Backoff, Metadata},
    error::{Error, ErrorKind},
    log::event,
    wire::{fetch::NodeEndpoint, produce::ProduceResponse},
};

/// What a request costs besides its batches, for each partition in it: more than enough for the
/// longest topic name.
const PARTITION_OVERHEAD: usize = 300;

/// The waits after a refused producer id, which double. Only a human can mend the usual causes.
const ID_BACKOFF: Duration = Duration::from_secs(1);
const ID_BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Requests whose room is kept for the next ones.
const SPARE: usize = 16;

#[derive(Debug, Default)]
struct SenderNode {
    ready: VecDeque<usize>,
    in_flight: usize,
    /// Whether it has answered since the last failure. One that has not gets one request at a time,
    /// so that batches grow instead of queueing up before a connection that may never come.
    established: bool,
}

#[derive(Debug)]
struct SenderSlot {
    queue: PartitionQueue,
    /// The ready queue that it stands in.
    ready_at: Option<i32>,
    /// The earliest timer that is set for its linger or backoff.
    wake: Option<Instant>,
    expiry: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SenderTimer {
    Wake,
    Expiry,
    /// Of a broker, not of a slot: whether data has waited too long for it.
    Availability(i32),
}

/// The sender of one producer.
#[derive(Debug)]
pub(crate) struct Sender {
    rules: SenderRules,
    identity: Identity,
    /// Waits between requests for a producer id that is refused, and the end of the present one.
    id_backoff: Backoff,
    ask_id_at: Option<Instant>,
    slots: Vec<Option<SenderSlot>>,
    nodes: HashMap<i32, SenderNode>,
    availability: Availability,
    next_request: u64,
    timers: BinaryHeap<Reverse<(Instant, SenderTimer, usize)>>,
    /// Slots that wait for the producer id.
    awaiting_producer_id: BTreeSet<usize>,
    hurry: bool,
    /// Why there is no metadata, for the errors of what expires meanwhile.
    cause: Option<Error>,
    effects: Vec<Effect>,
    rng: StdRng,
    /// Room for the parts of requests, and for the slots in one, used again and again.
    spare: Vec<Vec<RequestPart>>,
    taken: Vec<usize>,
    counters: Arc<Counters>,
}

impl Sender {
    pub(crate) fn new(rules: SenderRules, idempotent: bool, seed: u64, counters: Arc<Counters>) -> Self {
        Self {
            availability: Availability::new(rules.availability_timeout),
            rules,
            identity: if idempotent { Identity::Unknown } else { Identity::Anonymous },
            id_backoff: Backoff::new(ID_BACKOFF, ID_BACKOFF_MAX),
            ask_id_at: None,
            slots: Vec::new(),
            nodes: HashMap::new(),
            next_request: 0,
            timers: BinaryHeap::new(),
            awaiting_producer_id: BTreeSet::new(),
            hurry: false,
            cause: None,
            effects: Vec::new(),
            rng: StdRng::seed_from_u64(seed),
            spare: Vec::new(),
            taken: Vec::new(),
            counters,
        }
    }

    // ---- events

    /// A partition has a batch that was just begun, or a full one.
    pub(crate) fn partition_notified(&mut self, partition: &Arc<Partition>, now: Instant, metadata: &Metadata) {
        let slot = partition.slot;
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        if let Some(place) = self.slots.get_mut(slot)
            && place.is_none()
        {
            let queue = PartitionQueue::new(partition.clone());
            *place = Some(SenderSlot { queue, ready_at: None, wake: None, expiry: false });
        }
        self.schedule(slot, now, metadata);
    }

    /// Whether records wait for room in the buffer: then nothing lingers.
    pub(crate) fn set_hurry(&mut self, hurry: bool, now: Instant, metadata: &Metadata) {
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

    /// Takes the answer to [`Effect::AskProducerId`]. An error fails the records that wait for the
    /// id; records that come later wait for the next request, which follows after a backoff.
    pub(crate) fn producer_id(&mut self, answer: Result<ProducerId, Error>, now: Instant, metadata: &Metadata) {
        let refusal = match answer {
            Ok(id) => {
                self.identity = Identity::Known(id);
                self.id_backoff.reset();
                self.ask_id_at = None;
                None
            }
            Err(error) => {
                self.identity = Identity::Unknown;
                // Records that wait longer would expire without this cause.
                let wait = self.id_backoff.next(&mut self.rng).min(self.rules.delivery_timeout / 2);
                self.ask_id_at = Some(now + wait);
                Some(error)
            }
        };
        for slot in std::mem::take(&mut self.awaiting_producer_id) {
            if let Some(error) = &refusal
                && let Some(place) = self.slots.get_mut(slot).and_then(Option::as_mut)
            {
                let effects = place.queue.fail_waiting(error);
                self.after(slot, effects, now);
            }
            self.schedule(slot, now, metadata);
        }
    }

    /// A request ended. The response is `None` with acks=0: it was written, and nobody will say
    /// more.
    pub(crate) fn handle_response(
        &mut self,
        request: ProduceRequest,
        response: Result<Option<ProduceResponse<'_>>, Error>,
        now: Instant,
        metadata: &Metadata,
    ) {
        let ProduceRequest { id, node, mut parts } = request;
        self.counters.answered(&parts, &response);
        let known = self.nodes.entry(node).or_default();
        known.in_flight = known.in_flight.saturating_sub(1);
        // A request that was taken back says nothing of the broker.
        if !parts.iter().all(|part| part.withdrawn) {
            known.established = response.is_ok();
        }
        self.record_response(node, response.is_err(), now);
        let (mut answers, endpoints, failure) = match response {
            Ok(response) => {
                let response = response.unwrap_or_default();
                if response.throttle_time_ms > 0 {
                    self.effects.push(Effect::Throttle { node, millis: response.throttle_time_ms });
                }
                (ResponsePartitions::new(response.partitions), response.node_endpoints, None)
            }
            Err(error) => (ResponsePartitions::new([]), Vec::new(), Some(error)),
        };
        let acked = self.rules.acks != 0;
        let mut hints: Option<Arc<[NodeEndpoint]>> = None;
        let mut refresh = false;
        for (i, part) in parts.drain(..).enumerate() {
            let Some(place) = self.slots.get_mut(part.slot).and_then(Option::as_mut) else { continue };
            let name = PartitionName(&part);
            let answer = match (&failure, answers.take(i, &part)) {
                _ if part.withdrawn => BatchDecision::Withdrawn,
                (Some(error), _) => BatchDecision::failed(error),
                (None, Some(response)) => {
                    if let Some((leader, epoch)) = response.current_leader.filter(|(leader, _)| *leader >= 0) {
                        event!(
                            DEBUG,
                            self.counters.origin(),
                            topic = &*part.topic,
                            partition = part.partition,
                            node,
                            leader,
                            leader_epoch = epoch,
                            "the broker names another leader"
                        );
                        self.effects.push(Effect::LearnLeader {
                            topic: part.topic.clone(),
                            partition: part.partition,
                            leader,
                            epoch,
                            endpoints: hints.get_or_insert_with(|| Arc::from(&endpoints[..])).clone(),
                        });
                    }
                    BatchDecision::read(response, name)
                }
                (None, None) if acked => BatchDecision::missing(name),
                (None, None) => BatchDecision::Written { base_offset: None, log_append_millis: None },
            };
            refresh |= answer.asks_for_refresh();
            let body = match part.body {
                Ok(Body::Sealed(sealed)) => Ok(sealed),
                Ok(_) => Err(Error::new(ErrorKind::Internal, "a request came back without having been sealed")),
                Err(error) => Err(error),
            };
            let effects = place.queue.handle_decision(id, body, answer, now, &self.rules, &mut self.rng);
            self.after(part.slot, effects, now);
            self.schedule(part.slot, now, metadata);
        }
        if self.spare.len() < SPARE {
            self.spare.push(parts);
        }
        if answers.left() > 0
            && let Some(suppressed) = self.counters.admit_line("foreign partitions", now)
        {
            event!(
                WARN,
                self.counters.origin(),
                node,
                suppressed,
                "the broker answered for partitions that it was not asked about: these answers are ignored"
            );
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
            if let SenderTimer::Availability(node) = timer {
                match self.availability.look(node, now) {
                    AvailabilityCheck::Clogged => self.effects.push(Effect::Clogged { node, clogged: true }),
                    AvailabilityCheck::Again(at) => self.timers.push(Reverse((at, timer, slot))),
                    AvailabilityCheck::Nothing => {}
                }
                continue;
            }
            let Some(place) = self.slots.get_mut(slot).and_then(Option::as_mut) else { continue };
            match timer {
                SenderTimer::Wake if place.wake == Some(at) => place.wake = None,
                SenderTimer::Wake | SenderTimer::Availability(_) => continue,
                SenderTimer::Expiry => {
                    place.expiry = false;
                    let effects = place.queue.expire(now, &self.rules, self.cause.as_ref());
                    self.after(slot, effects, now);
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
    pub(crate) fn purge(&mut self, what: PurgeScope, now: Instant, metadata: &Metadata) -> usize {
        let mut records = 0;
        for slot in 0..self.slots.len() {
            let Some(place) = self.slots.get_mut(slot).and_then(Option::as_mut) else { continue };
            let (purged, effects) = place.queue.purge(what, now);
            records += purged;
            self.after(slot, effects, now);
            self.schedule(slot, now, metadata);
        }
        records
    }

    // ---- what comes of them

    /// The next request that can go out, if there is one.
    pub(crate) fn next_request(&mut self, now: Instant, metadata: &Metadata) -> Option<ProduceRequest> {
        let max = self.rules.max_in_flight;
        loop {
            let can_take = |node: &SenderNode| node.in_flight < if node.established { max } else { 1 };
            let ready = self.nodes.iter().filter(|(_, node)| !node.ready.is_empty() && can_take(node));
            let Some(node) = ready.map(|(id, _)| *id).min() else {
                self.record_waits(now);
                return None;
            };
            if let Some(request) = self.fill(node, now, metadata) {
                return Some(request);
            }
        }
    }

    /// Whatever is ready now waits for its broker.
    fn record_waits(&mut self, now: Instant) {
        if !self.availability.is_heeded() {
            return;
        }
        for (node, _) in self.nodes.iter().filter(|(_, node)| !node.ready.is_empty()) {
            if let Some(at) = self.availability.waits(*node, now) {
                self.timers.push(Reverse((at, SenderTimer::Availability(*node), 0)));
            }
        }
    }

    /// A request to a broker was answered, or failed.
    fn record_response(&mut self, node: i32, failed: bool, now: Instant) {
        if failed {
            // What was in it waits for the broker again.
            if let Some(at) = self.availability.waits(node, now) {
                self.timers.push(Reverse((at, SenderTimer::Availability(node), 0)));
            }
        } else if self.availability.answered(node) {
            self.effects.push(Effect::Clogged { node, clogged: false });
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

    /// Fills a request for a node from its ready queue. `None` when nothing in it could be sent
    /// after all; then the queue is empty.
    fn fill(&mut self, id: i32, now: Instant, metadata: &Metadata) -> Option<ProduceRequest> {
        let request = self.next_request;
        let mut parts = self.spare.pop().unwrap_or_default();
        let mut size = 0;
        let mut taken = std::mem::take(&mut self.taken);
        while let Some(slot) = self.nodes.get_mut(&id).and_then(|node| node.ready.pop_front()) {
            let Some(place) = self.slots.get_mut(slot).and_then(Option::as_mut) else { continue };
            if place.ready_at != Some(id) {
                // It has moved to another leader's queue since.
                continue;
            }
            let partition = place.queue.partition.clone();
            let topic = metadata.topic(&partition.topic);
            let leader = topic.and_then(|topic| topic.partition(partition.index)?.leader);
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
            let Some(drained) = place.queue.drain(request, id, now, &self.identity) else { continue };
            size += next;
            let topic_id = topic.map_or(Uuid::nil(), |topic| topic.id);
            parts.push(RequestPart {
                slot,
                topic: partition.topic.clone(),
                topic_id,
                partition: partition.index,
                body: Ok(drained.body),
                stamp: drained.stamp,
                revocable: drained.revocable,
                withdrawn: false,
                records: drained.records,
                attempt: drained.attempt,
                begun: drained.created,
            });
            taken.push(slot);
        }
        // Only now, so that a partition is in a request once.
        for slot in taken.drain(..) {
            self.schedule(slot, now, metadata);
        }
        self.taken = taken;
        if parts.is_empty() {
            self.spare.push(parts);
            return None;
        }
        if !parts.is_sorted_by(|a, b| a.topic <= b.topic) {
            parts.sort_unstable_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        }
        self.counters.drained(&parts, now);
        self.next_request += 1;
        self.nodes.entry(id).or_default().in_flight += 1;
        Some(ProduceRequest { id: request, node: id, parts })
    }

    /// Puts a partition where it belongs: into a ready queue, among those that wait for something,
    /// or nowhere.
    fn schedule(&mut self, slot: usize, now: Instant, metadata: &Metadata) {
        let Some(place) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        let partition = place.queue.partition.clone();
        let topic = metadata.topic(&partition.topic);
        let effects = topic.map_or_else(EpochEffects::default, |topic| place.queue.topic_id(topic.id));
        let leader = topic.and_then(|topic| topic.partition(partition.index)?.leader);
        let readiness = place.queue.readiness(now, &self.rules, &self.identity, self.hurry, leader);
        partition.load.set_again(place.queue.queued_batches());
        match readiness {
            Readiness::Empty => {}
            Readiness::Blocked => {
                // With all in flight that may be, it is the broker's answer that it waits for.
                if self.availability.is_heeded()
                    && let Some(node) = leader
                    && place.queue.is_in_flight_at(node)
                    && let Some(at) = self.availability.waits(node, now)
                {
                    self.timers.push(Reverse((at, SenderTimer::Availability(node), 0)));
                }
            }
            Readiness::At(at) => {
                if place.wake.is_none_or(|wake| at < wake) {
                    place.wake = Some(at);
                    self.timers.push(Reverse((at, SenderTimer::Wake, slot)));
                }
            }
            Readiness::NoProducerId => {
                self.awaiting_producer_id.insert(slot);
                if let Some(at) = self.ask_id_at.filter(|at| now < *at) {
                    if place.wake.is_none_or(|wake| at < wake) {
                        place.wake = Some(at);
                        self.timers.push(Reverse((at, SenderTimer::Wake, slot)));
                    }
                } else if matches!(self.identity, Identity::Unknown) {
                    self.identity = Identity::Asking;
                    self.effects.push(Effect::RequestProducerId);
                }
            }
            Readiness::Ready => match leader {
                Some(node) if place.ready_at != Some(node) => {
                    place.ready_at = Some(node);
                    self.nodes.entry(node).or_default().ready.push_back(slot);
                }
                Some(_) => {}
                None => {
                    self.effects.push(Effect::WantTopic(partition.topic.clone()));
                    self.effects.push(Effect::RefreshMetadata);
                }
            },
        }
        if !place.expiry
            && let Some(at) = place.queue.next_expiry(&self.rules)
        {
            place.expiry = true;
            self.timers.push(Reverse((at, SenderTimer::Expiry, slot)));
        }
        self.after(slot, effects, now);
    }

    fn reschedule_all(&mut self, now: Instant, metadata: &Metadata) {
        for slot in 0..self.slots.len() {
            self.schedule(slot, now, metadata);
        }
    }

    fn after(&mut self, slot: usize, effects: EpochEffects, now: Instant) {
        if effects.raised {
            self.counters.epoch_raised();
        }
        if let Some(producer) = effects.raised_to
            && let Some(place) = self.slots.get(slot).and_then(Option::as_ref)
            && let Some(suppressed) = self.counters.admit_line("epoch", now)
        {
            let partition = &place.queue.partition;
            event!(
                INFO,
                self.counters.origin(),
                topic = &*partition.topic,
                partition = partition.index,
                producer_id = producer.id,
                epoch = producer.epoch,
                suppressed,
                "the epoch was raised: batches whose place in the log is not certain are numbered anew"
            );
        }
        if effects.needs_new_id && matches!(self.identity, Identity::Known(_)) {
            self.identity = Identity::Unknown;
        }
    }

    /// The error of whoever is still waited for when the producer is closed.
    pub(crate) fn closing_error() -> Error {
        Error::new(ErrorKind::Closed, "the producer was closed before the record was acknowledged")
    }
}
