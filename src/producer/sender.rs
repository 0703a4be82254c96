//! The sender: decides which batches are sent, when, and to which broker.
//!
//! It receives notifications, answers, metadata and the time, and returns requests and [`Effect`]s;
//! it has no clock of its own. Each partition that can send is once in the ready queue of its
//! leader. A request takes one batch of each partition from the front of that queue, and a
//! partition with more to send goes to the back. A partition that cannot continue leaves the queue
//! until one of its own events makes it ready again, so that it blocks no other partition.
//!
//! Sans-IO.

mod request;
pub(super) mod response_partitions;

use std::{
    cell::LazyCell,
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
    idempotence::{Identity, ProducerId, TransactionIdentity},
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
    wire::{
        fetch::NodeEndpoint,
        produce::{ProducePartitionResponse, ProduceResponse},
    },
};

/// Bytes of a request for each partition in addition to its batch: more than enough for the longest
/// topic name.
const PARTITION_OVERHEAD: usize = 300;

/// Backoff after a refused producer id; it doubles. The usual causes need an operator.
const ID_BACKOFF: Duration = Duration::from_secs(1);
const ID_BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Number of request buffers that are kept for reuse.
const SPARE: usize = 16;

#[derive(Debug, Default)]
struct SenderNode {
    ready: VecDeque<usize>,
    in_flight: usize,
    /// True if it has answered since the last failure. Otherwise it gets one request at a time, so
    /// that batches grow instead of queueing before a connection that may never come.
    established: bool,
}

#[derive(Debug)]
struct SenderSlot {
    queue: PartitionQueue,
    /// The node that has it in its ready queue.
    ready_at: Option<i32>,
    /// The earliest timer that is set for its linger or backoff.
    wake: Option<Instant>,
    expiry: bool,
}

impl SenderSlot {
    /// Sets a timer for its linger or backoff, unless an earlier one is set.
    fn wake_at(&mut self, at: Instant, slot: usize, timers: &mut Timers) {
        if self.wake.is_none_or(|wake| at < wake) {
            self.wake = Some(at);
            timers.push(Reverse((at, SenderTimer::Wake, slot)));
        }
    }
}

/// Timers, each with its slot.
type Timers = BinaryHeap<Reverse<(Instant, SenderTimer, usize)>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SenderTimer {
    Wake,
    Expiry,
    /// Timer of a broker, not of a slot: checks if data has waited too long for it.
    Availability(i32),
}

/// The sender of one producer.
#[derive(Debug)]
pub(crate) struct Sender {
    rules: SenderRules,
    identity: Identity,
    /// Backoff between refused requests for a producer id, and the end of the current one.
    id_backoff: Backoff,
    ask_id_at: Option<Instant>,
    slots: Vec<Option<SenderSlot>>,
    nodes: HashMap<i32, SenderNode>,
    availability: Availability,
    next_request: u64,
    timers: Timers,
    /// Slots that wait for the producer id.
    awaiting_producer_id: BTreeSet<usize>,
    hurry: bool,
    /// The error of every record that is not in flight: the transaction will not commit.
    failing: Option<Error>,
    /// True once a batch of the transaction was drained.
    transaction_started: bool,
    /// The reason why there is no metadata, for the errors of batches that expire meanwhile.
    cause: Option<Error>,
    effects: Vec<Effect>,
    rng: StdRng,
    /// Reused memory for the parts of requests, and for the slots in one.
    spare: Vec<Vec<RequestPart>>,
    taken: Vec<usize>,
    counters: Arc<Counters>,
}

impl Sender {
    pub(crate) fn new(rules: SenderRules, identity: Identity, seed: u64, counters: Arc<Counters>) -> Self {
        Self {
            availability: Availability::new(rules.availability_timeout),
            rules,
            identity,
            id_backoff: Backoff::new(ID_BACKOFF, ID_BACKOFF_MAX),
            ask_id_at: None,
            slots: Vec::new(),
            nodes: HashMap::new(),
            next_request: 0,
            timers: BinaryHeap::new(),
            awaiting_producer_id: BTreeSet::new(),
            hurry: false,
            failing: None,
            transaction_started: false,
            cause: None,
            effects: Vec::new(),
            rng: StdRng::seed_from_u64(seed),
            spare: Vec::new(),
            taken: Vec::new(),
            counters,
        }
    }

    // ---- events

    /// Handles a partition with a batch that was just begun, or a full one.
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

    /// Sets whether records wait for room in the buffer; if so, batches do not linger.
    pub(crate) fn set_hurry(&mut self, hurry: bool, now: Instant, metadata: &Metadata) {
        if hurry && !self.hurry {
            self.hurry = true;
            self.reschedule_all(now, metadata);
        }
        self.hurry = hurry;
    }

    /// Handles a flush of open batches.
    pub(crate) fn flushed(&mut self, now: Instant, metadata: &Metadata) {
        self.reschedule_all(now, metadata);
    }

    /// Handles new metadata.
    pub(crate) fn metadata_changed(&mut self, now: Instant, metadata: &Metadata) {
        self.counters.keep_brokers(|id| metadata.brokers.contains_key(&id));
        self.nodes.retain(|id, node| metadata.brokers.contains_key(id) || node.in_flight > 0 || !node.ready.is_empty());
        self.reschedule_all(now, metadata);
    }

    /// Sets the current obstacle to metadata, if any.
    pub(crate) fn set_cause(&mut self, cause: Option<Error>) {
        self.cause = cause;
    }

    /// Handles the answer to [`Effect::RequestProducerId`]. An error fails the records that wait
    /// for the id; later records wait for the next request, which follows after a backoff.
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

    /// Sends what is appended from now on in a transaction. Nothing of an earlier one may be
    /// outstanding.
    pub(crate) fn begin_transaction(&mut self, transaction: TransactionIdentity, now: Instant, metadata: &Metadata) {
        self.identity = Identity::Transactional(transaction);
        self.failing = None;
        self.transaction_started = false;
        for slot in std::mem::take(&mut self.awaiting_producer_id) {
            self.schedule(slot, now, metadata);
        }
    }

    /// Handles the answer to [`Effect::AddPartition`].
    pub(crate) fn partitions_added(&mut self, number: u64, slots: &[usize], now: Instant, metadata: &Metadata) {
        for slot in slots {
            if let Some(place) = self.slots.get_mut(*slot).and_then(Option::as_mut) {
                place.queue.added_to(number);
            }
            self.schedule(*slot, now, metadata);
        }
    }

    /// Fails the records that are not in flight, and all that come until the next transaction
    /// begins. Those in flight get the result of their request, but are not sent again.
    pub(crate) fn fail_transaction(&mut self, error: Error, now: Instant, metadata: &Metadata) {
        self.failing = Some(error);
        self.reschedule_all(now, metadata);
    }

    /// Returns `delivery.timeout.ms`.
    pub(crate) fn delivery_timeout(&self) -> Duration {
        self.rules.delivery_timeout
    }

    /// Returns the number of requests that have not ended.
    pub(crate) fn requests_in_flight(&self) -> usize {
        self.nodes.values().map(|node| node.in_flight).sum()
    }

    /// Handles the end of a request. The response is `None` with acks=0: the request was written,
    /// and there is no answer.
    pub(crate) fn handle_response(
        &mut self,
        request: ProduceRequest,
        response: Result<Option<ProduceResponse<'_>>, Error>,
        now: Instant,
        metadata: &Metadata,
    ) {
        let ProduceRequest { id, node, mut parts } = request;
        self.counters.answered(&parts, &response);
        self.record_response(node, &parts, response.is_ok(), now);
        let (response, failure) = match response {
            Ok(response) => (response.unwrap_or_default(), None),
            Err(error) => (ProduceResponse::default(), Some(error)),
        };
        if response.throttle_time_ms > 0 {
            self.effects.push(Effect::Throttle { node, millis: response.throttle_time_ms });
        }
        let mut partitions = ResponsePartitions::new(response.partitions);
        let endpoints: LazyCell<Arc<[NodeEndpoint]>, _> = LazyCell::new(|| response.node_endpoints.into());
        let mut refresh = false;
        for (i, part) in parts.drain(..).enumerate() {
            let answer = partitions.take(i, &part).filter(|_| !part.withdrawn);
            if let Some((leader, epoch)) = answer.as_ref().and_then(|answer| answer.current_leader)
                && leader >= 0
            {
                self.learn_leader(node, &part, leader, epoch, LazyCell::force(&endpoints).clone());
            }
            let decision = self.decision(&part, answer, failure.as_ref());
            refresh |= decision.asks_for_refresh();
            let body = match part.body {
                Ok(Body::Sealed(sealed)) => Ok(sealed),
                Ok(_) => Err(Error::new(ErrorKind::Internal, "a request came back without having been sealed")),
                Err(error) => Err(error),
            };
            let Some(place) = self.slots.get_mut(part.slot).and_then(Option::as_mut) else { continue };
            let effects = place.queue.handle_decision(id, body, decision, now, &self.rules, &mut self.rng);
            self.after(part.slot, effects, now);
            self.schedule(part.slot, now, metadata);
        }
        if self.spare.len() < SPARE {
            self.spare.push(parts);
        }
        if partitions.left() > 0 {
            self.log_foreign_partitions(node, now);
        }
        if refresh {
            self.effects.push(Effect::RefreshMetadata);
        }
    }

    /// Decides on a part of a request that has ended. `failure` is the error of the whole request.
    fn decision(
        &self,
        part: &RequestPart,
        answer: Option<ProducePartitionResponse<'_>>,
        failure: Option<&Error>,
    ) -> BatchDecision {
        if part.withdrawn {
            return BatchDecision::Withdrawn;
        }
        match (failure, answer) {
            (Some(error), _) => BatchDecision::failed(error),
            (None, Some(answer)) => BatchDecision::read(answer, PartitionName(part)),
            // The request was written, and the broker sends no response.
            (None, None) if self.rules.acks == 0 => {
                BatchDecision::Written { base_offset: None, log_append_millis: None }
            }
            (None, None) => BatchDecision::missing(PartitionName(part)),
        }
    }

    /// Handles a broker's hint that another one leads the partition (KIP-951).
    fn learn_leader(&mut self, node: i32, part: &RequestPart, leader: i32, epoch: i32, endpoints: Arc<[NodeEndpoint]>) {
        event!(
            DEBUG,
            self.counters.origin(),
            topic = &*part.topic,
            partition = part.partition,
            node,
            leader,
            leader_epoch = epoch,
            "the broker names another leader; the metadata is updated"
        );
        let (topic, partition) = (part.topic.clone(), part.partition);
        self.effects.push(Effect::LearnLeader { topic, partition, leader, epoch, endpoints });
    }

    fn log_foreign_partitions(&self, node: i32, now: Instant) {
        if let Some(suppressed) = self.counters.admit_line("foreign partitions", now) {
            event!(
                WARN,
                self.counters.origin(),
                node,
                suppressed,
                "the broker answered for partitions that were not in the request: these answers are ignored"
            );
        }
    }

    /// Handles the timers that are due.
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

    /// Fails all batches, each with its own status.
    pub(crate) fn fail_all(&mut self, error: &Error) {
        for place in self.slots.iter_mut().flatten() {
            place.queue.fail_all(error);
        }
    }

    /// Fails the records of a purge; returns their number.
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

    // ---- requests and effects

    /// Returns the next request to send, if there is one.
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

    /// Records that data waits for the brokers of all ready partitions.
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

    /// Records that a request to a broker was answered, or failed.
    fn record_response(&mut self, id: i32, parts: &[RequestPart], answered: bool, now: Instant) {
        let node = self.nodes.entry(id).or_default();
        node.in_flight = node.in_flight.saturating_sub(1);
        // A withdrawn request says nothing about the broker.
        if !parts.iter().all(|part| part.withdrawn) {
            node.established = answered;
        }
        if !answered {
            // The batches of the request wait for the broker again.
            if let Some(at) = self.availability.waits(id, now) {
                self.timers.push(Reverse((at, SenderTimer::Availability(id), 0)));
            }
        } else if self.availability.answered(id) {
            self.effects.push(Effect::Clogged { node: id, clogged: false });
        }
    }

    /// Returns the pending effects; called until there are none.
    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Returns the time at which [`tick`](Self::tick) is due.
    pub(crate) fn next_wake(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, ..))| *at)
    }

    /// Fills a request for a node from its ready queue. Returns `None` if nothing in the queue
    /// could be sent after all; the queue is then empty.
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
            if let Some(transaction) = self.identity.transaction()
                && !std::mem::replace(&mut self.transaction_started, true)
            {
                self.effects.push(Effect::TransactionStarted { number: transaction.number });
            }
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
        // Scheduled only now, so that a partition is in a request once.
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

    /// Puts a partition into the ready queue of its leader, sets its timers, or lets it wait for an
    /// event.
    fn schedule(&mut self, slot: usize, now: Instant, metadata: &Metadata) {
        let Some(place) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        let partition = place.queue.partition.clone();
        let topic = metadata.topic(&partition.topic);
        let mut effects = topic.map_or_else(EpochEffects::default, |topic| place.queue.topic_id(topic.id));
        if let Some(transaction) = self.identity.transaction() {
            if let Some(error) = &self.failing {
                effects.needs_coordinator |= place.queue.fail_waiting(error).needs_coordinator;
            } else if place.queue.wants_to_join(transaction) {
                let (topic, number) = (partition.topic.clone(), transaction.number);
                self.effects.push(Effect::AddPartition { number, topic, partition: partition.index, slot });
            }
        }
        let leader = topic.and_then(|topic| topic.partition(partition.index)?.leader);
        let readiness = place.queue.readiness(now, &self.rules, &self.identity, self.hurry, leader);
        partition.load.set_again(place.queue.queued_batches());
        match readiness {
            Readiness::Empty => {}
            Readiness::Blocked => {
                // With the maximum number of requests in flight, it waits for the broker's answer.
                if self.availability.is_heeded()
                    && let Some(node) = leader
                    && place.queue.is_in_flight_at(node)
                    && let Some(at) = self.availability.waits(node, now)
                {
                    self.timers.push(Reverse((at, SenderTimer::Availability(node), 0)));
                }
            }
            Readiness::At(at) => place.wake_at(at, slot, &mut self.timers),
            Readiness::NoProducerId => {
                self.awaiting_producer_id.insert(slot);
                if let Some(at) = self.ask_id_at.filter(|at| now < *at) {
                    place.wake_at(at, slot, &mut self.timers);
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
                "the epoch was raised, because the fate of batches is uncertain: waiting batches get new sequence \
                 numbers"
            );
        }
        if effects.needs_new_id && matches!(self.identity, Identity::Known(_)) {
            self.identity = Identity::Unknown;
        }
        if effects.needs_coordinator
            && let Some(transaction) = self.identity.transaction()
            && let Some(place) = self.slots.get(slot).and_then(Option::as_ref)
            && !self.identity.is_other_than(place.queue.producer())
        {
            let partition = &place.queue.partition;
            let (number, topic) = (transaction.number, partition.topic.clone());
            self.effects.push(Effect::EpochUsedUp { number, topic, partition: partition.index });
        }
    }

    /// Returns the error of records that are outstanding when the producer is closed.
    pub(crate) fn closing_error() -> Error {
        Error::new(ErrorKind::Closed, "the producer was closed before the record was acknowledged")
    }
}
