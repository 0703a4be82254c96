//! Tests of the producer's rules against a model of a broker, under every fault of the model, in
//! any interleaving: the records in the log are in order and there once, and every record has
//! exactly one accurate result.

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    super::{
        Delivery, DeliveryReports,
        accumulator::{Partition, SenderEvent},
        idempotence::{Identity, ProducerId},
        partitioner::Partitioning,
        purge::PurgeScope,
        sender::{Effect, ProduceRequest, Sender},
        sizes::Sizes,
        topics::{AdmittedRecord, AppendContext, Placement, TopicTimeout, Topics, parts_of},
    },
    model_broker::{Log, response},
};
use crate::producer::partition_queue::SenderRules;
use crate::producer::{batch_body::Body, batch_shared::BatchShared};
use crate::{
    cluster::{Backoff, Metadata, PartitionMetadata, RetryGrid, RevocableParts, TopicMetadata},
    error::{DeliveryStatus, Error, ErrorCode, ErrorKind},
    record::{Record, RecordMetadata},
    wire::{
        Compression,
        batch::{Compressor, ProducerStamp, SealedBatch, record_size_bound},
        produce::ProduceResponse,
    },
};

pub(super) const TOPIC: &str = "t";
const PARTITIONS: usize = 2;
const NODES: i32 = 3;

/// A request that has left the producer.
struct Sent {
    node: i32,
    /// The batches that the broker receives.
    parts: Vec<(i32, SealedBatch, ProducerStamp)>,
    /// `None` if its connection is gone.
    request: Option<ProduceRequest>,
    /// True if the request was handed to the socket. Until then it waits in the connection, and its
    /// batches can be withdrawn.
    written: bool,
}

/// Lets the connection hand a request to the socket. Returns false if a batch of it was withdrawn:
/// then it is not written.
fn hand_over(sent: &mut Sent) -> bool {
    let request = sent.request.as_mut().expect("its connection is there");
    if !sent.written {
        sent.written =
            request.parts.iter().map(|part| part.revocable.part()).collect::<RevocableParts>().confirm_write();
        for part in &mut request.parts {
            part.withdrawn = part.revocable.is_withdrawn();
        }
    }
    sent.written
}

/// A record that was sent: its partition, value, delivery and result.
type Sending = (usize, u64, Delivery, Option<Result<RecordMetadata, Error>>);

/// The faults that may occur in a run.
#[derive(Clone, Copy)]
struct Faults {
    disconnects: bool,
    refusals: bool,
    moves: bool,
    expiry: bool,
    small_batches: bool,
    purges: bool,
    /// Brokers lose the state of producers, and accept a producer without state only if it begins
    /// at 0, as before 2.5.
    forgets: bool,
}

struct World {
    rng: StdRng,
    now: Instant,
    faults: Faults,
    batch_shared: Arc<BatchShared>,
    topics: Topics,
    sender: Sender,
    metadata: Metadata,
    logs: Vec<Log>,
    /// Requests on each node's connection, in the order in which they were written.
    wires: HashMap<i32, VecDeque<Sent>>,
    /// Requests of connections that are gone, which the broker may still process.
    ghosts: Vec<Sent>,
    next_value: u64,
    deliveries: Vec<Sending>,
    reports: DeliveryReports,
}

fn topic_metadata(logs: &[Log]) -> TopicMetadata {
    let partition = |(index, log): (usize, &Log)| PartitionMetadata {
        partition: index as i32,
        leader: Some(log.leader),
        leader_epoch: 0,
        replicas: Vec::new(),
        isr: Vec::new(),
        error: ErrorCode::NONE,
    };
    TopicMetadata {
        name: TOPIC.into(),
        partitions: logs.iter().enumerate().map(partition).collect(),
        ..TopicMetadata::default()
    }
}

impl World {
    fn new(seed: u64, idempotent: bool, max_in_flight: usize, faults: Faults) -> Self {
        let rules = SenderRules {
            acks: -1,
            retries: u32::MAX,
            max_in_flight,
            max_request_size: 1 << 20,
            linger: Duration::from_millis(5),
            delivery_timeout: Duration::from_secs(20),
            availability_timeout: None,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(1)),
            grid: RetryGrid::default(),
        };
        let placement = Placement {
            sizes: Sizes::new(200),
            growth: Arc::default(),
            partitioning: Partitioning::default(),
            rack: None,
            seed,
            topic_timeout: TopicTimeout::new(Duration::from_secs(60), Duration::from_secs(60)),
        };
        let logs = (0..PARTITIONS)
            .map(|_| Log { leader: 0, max_records: u32::MAX, strict: faults.forgets, ..Log::default() })
            .collect();
        let batch_shared = Arc::new(BatchShared::new(1 << 30));
        let counters = batch_shared.counters.clone();
        let mut world = Self {
            reports: DeliveryReports::new(batch_shared.clone()),
            rng: StdRng::seed_from_u64(seed),
            now: Instant::now(),
            faults,
            batch_shared,
            topics: Topics::new(placement),
            sender: Sender::new(
                rules,
                if idempotent { Identity::Unknown } else { Identity::Anonymous },
                seed,
                counters,
            ),
            metadata: Metadata::default(),
            logs,
            wires: HashMap::new(),
            ghosts: Vec::new(),
            next_value: 0,
            deliveries: Vec::new(),
        };
        if faults.small_batches {
            world.change_limits();
        }
        // The first records wait for their topic.
        for _ in 0..world.rng.random_range(0..5) {
            world.send();
        }
        world.new_metadata();
        world
    }

    fn new_metadata(&mut self) {
        let topic = Arc::new(topic_metadata(&self.logs));
        self.metadata.version += 1;
        self.metadata.topics.insert(TOPIC.into(), topic);
        let now = self.now;
        let mut event = Vec::new();
        let tell = |partition: &Arc<Partition>, what| event.push((partition.clone(), what));
        self.topics.update(
            [TOPIC],
            &self.metadata,
            &mut AppendContext { shared: &self.batch_shared, clock: || now, notify: tell },
        );
        self.tell(event);
        self.sender.metadata_changed(now, &self.metadata);
    }

    fn tell(&mut self, event: Vec<(Arc<Partition>, SenderEvent)>) {
        for (partition, what) in event {
            if what != SenderEvent::None {
                self.sender.partition_notified(&partition, self.now, &self.metadata);
            }
        }
    }

    fn send(&mut self) {
        let partition = self.rng.random_range(0..PARTITIONS);
        let value = self.next_value;
        self.next_value += 1;
        let bytes = value.to_be_bytes();
        let record = Record::to(TOPIC).with_partition(partition as i32).with_value(&bytes).with_tag(value);
        let admitted = AdmittedRecord { bound: record_size_bound(&parts_of(&record)) as u32, timestamp: 0 };
        let now = self.now;
        let mut event = Vec::new();
        let tell = |partition: &Arc<Partition>, what| event.push((partition.clone(), what));
        let mut context = AppendContext { shared: &self.batch_shared, clock: || now, notify: tell };
        let placed = self.topics.place(&record, admitted, false, &mut context).expect("it is placed");
        self.tell(event);
        let delivery = Delivery::new(placed.results, placed.index, 0);
        self.deliveries.push((partition, value, delivery, None));
    }

    /// Sends the requests that the sender has ready, and carries out its actions.
    fn drain(&mut self) {
        while let Some(request) = self.sender.next_request(self.now, &self.metadata) {
            self.write(request);
        }
        for effect in self.sender.take_effects() {
            match effect {
                Effect::RequestProducerId => {
                    self.sender.producer_id(Ok(ProducerId { id: 7, epoch: 0 }), self.now, &self.metadata);
                }
                Effect::RefreshMetadata => {}
                other => panic!("{other:?} was not to be asked for"),
            }
        }
        // The requested actions may have made more requests ready.
        while let Some(request) = self.sender.next_request(self.now, &self.metadata) {
            self.write(request);
        }
    }

    fn write(&mut self, mut request: ProduceRequest) {
        let mut compressor = Compressor::new(Compression::None).expect("no codec");
        let mut parts = Vec::new();
        let connects = !self.faults.disconnects || self.rng.random_range(0..20) > 0;
        for part in &mut request.parts {
            let body = std::mem::replace(&mut part.body, Ok(Body::Lent(part.revocable.clone())));
            let sealed = match body.expect("nothing has failed yet") {
                Body::Open(builder) => builder.seal(&mut compressor).expect("it can be sealed"),
                Body::Sealed(sealed) => sealed,
                Body::Lent(_) => panic!("a lent batch was drained"),
            };
            part.body = Ok(Body::Sealed(sealed.clone()));
            if connects {
                parts.push((part.partition, sealed, part.stamp));
            }
        }
        let mut sent = Sent { node: request.node, parts, request: Some(request), written: false };
        if connects {
            if self.rng.random() {
                assert!(hand_over(&mut sent), "no batch can have been withdrawn yet");
            }
            self.wires.entry(sent.node).or_default().push_back(sent);
        } else {
            let error = Error::new(ErrorKind::Network, "refused").with_status(DeliveryStatus::NotPersisted);
            self.answer(sent, Err(error));
        }
    }

    /// Lets the broker answer the oldest request of a connection, unless a batch of it was
    /// withdrawn before it was written.
    fn answer_next(&mut self, node: i32) -> bool {
        let Some(mut sent) = self.wires.get_mut(&node).and_then(VecDeque::pop_front) else { return false };
        if hand_over(&mut sent) {
            let response = self.process(&sent);
            self.answer(sent, Ok(response));
        } else {
            let error = Error::new(ErrorKind::Timeout, "taken back").with_status(DeliveryStatus::NotPersisted);
            self.answer(sent, Err(error));
        }
        true
    }

    fn answer(&mut self, sent: Sent, response: Result<ProduceResponse<'_>, Error>) {
        let request = sent.request.expect("its connection is there");
        self.sender.handle_response(request, response.map(Some), self.now, &self.metadata);
    }

    /// Lets the broker process a request.
    fn process(&mut self, sent: &Sent) -> ProduceResponse<'static> {
        let mut out = ProduceResponse::default();
        for (partition, batch, stamp) in &sent.parts {
            let fate = if self.faults.refusals { self.rng.random_range(0..12) } else { 99 };
            let log = &mut self.logs[*partition as usize];
            let result = match fate {
                0 => Err(ErrorCode::NOT_ENOUGH_REPLICAS),
                1 => Err(ErrorCode::KAFKA_STORAGE_ERROR),
                2 => log.append(sent.node, batch, *stamp).and(Err(ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND)),
                3 => log.append(sent.node, batch, *stamp).and(Err(ErrorCode::REQUEST_TIMED_OUT)),
                _ => log.append(sent.node, batch, *stamp),
            };
            // A broker may leave a partition out, which counts as no response for it.
            if !(self.faults.refusals && self.rng.random_range(0..60) == 0) {
                out.partitions.push(response(*partition, result));
            }
        }
        if self.rng.random() {
            out.partitions.reverse();
        }
        out
    }

    /// Breaks a connection: the broker processes some of its requests now, some later, and some
    /// never.
    fn disconnect(&mut self, node: i32) {
        for sent in self.wires.remove(&node).unwrap_or_default() {
            let mut status = DeliveryStatus::NotPersisted;
            if sent.written {
                status = DeliveryStatus::PossiblyPersisted;
                match self.rng.random_range(0..3) {
                    0 => drop(self.process(&sent)),
                    1 => self.ghosts.push(Sent { node, parts: sent.parts.clone(), request: None, written: true }),
                    _ => {}
                }
            }
            let error = Error::new(ErrorKind::Network, "reset").with_status(status);
            self.answer(sent, Err(error));
        }
    }

    /// Changes `max.message.bytes` of each partition.
    fn change_limits(&mut self) {
        for log in &mut self.logs {
            log.max_records = if self.rng.random() { self.rng.random_range(1..6) } else { u32::MAX };
        }
    }

    /// Purges some of the records: asserts that they have their results at once, and that their
    /// number is the one that `purge` returns.
    fn purge(&mut self) {
        self.poll();
        let before = self.purged();
        let what = [PurgeScope::Queued, PurgeScope::InFlight, PurgeScope::All][self.rng.random_range(0..3)];
        let mut records = self.sender.purge(what, self.now, &self.metadata);
        if what != PurgeScope::InFlight {
            records += self.topics.fail_all_waiting(|topic| PurgeScope::error(topic));
        }
        self.poll();
        assert_eq!(self.purged() - before, records);
        if what == PurgeScope::All {
            assert!(self.deliveries.iter().all(|(.., result)| result.is_some()), "a purge left records behind");
        }
    }

    fn purged(&self) -> usize {
        let is_purged = |result: &Result<RecordMetadata, Error>| {
            result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Purged)
        };
        self.deliveries.iter().filter(|(.., result)| result.as_ref().is_some_and(is_purged)).count()
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..40 => self.send(),
            40..60 => self.now += Duration::from_millis(self.rng.random_range(0..10)),
            60..85 => {
                let node = self.rng.random_range(0..NODES);
                self.answer_next(node);
            }
            85..88 if self.faults.disconnects => {
                let node = self.rng.random_range(0..NODES);
                self.disconnect(node);
            }
            88..91 if self.faults.disconnects && !self.ghosts.is_empty() => {
                let ghost = self.rng.random_range(0..self.ghosts.len());
                let ghost = self.ghosts.swap_remove(ghost);
                drop(self.process(&ghost));
            }
            91..93 if self.faults.moves => {
                let partition = self.rng.random_range(0..PARTITIONS);
                self.logs[partition].leader = self.rng.random_range(0..NODES);
                if self.rng.random() {
                    self.new_metadata();
                }
            }
            93..95 if self.faults.moves => self.new_metadata(),
            95..96 if self.faults.expiry => self.now += Duration::from_secs(self.rng.random_range(1..15)),
            96..97 if self.faults.expiry => self.change_limits(),
            97..98 if self.faults.purges => self.purge(),
            98..99 if self.faults.forgets => {
                let partition = self.rng.random_range(0..PARTITIONS);
                self.logs[partition].forget();
            }
            _ => self.now += Duration::from_millis(self.rng.random_range(0..200)),
        }
        self.sender.tick(self.now, &self.metadata);
        self.drain();
        self.poll();
        self.check_counters();
    }

    fn poll(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        for (_, _, delivery, result) in self.deliveries.iter_mut().filter(|(.., result)| result.is_none()) {
            if let Poll::Ready(done) = Pin::new(delivery).poll(&mut cx) {
                *result = Some(done);
            }
        }
    }

    /// Asserts that the counters agree with the results, at any time.
    fn check_counters(&self) {
        let counted =
            self.batch_shared.counters.snapshot(|| self.topics.outstanding(|| self.batch_shared.completed_records()));
        let with = |status: Option<Option<DeliveryStatus>>| {
            let results = self.deliveries.iter().map(|(.., result)| result.as_ref());
            let statuses = results.map(|result| result.map(|result| result.as_ref().err()?.delivery_status()));
            statuses.filter(|of_one| *of_one == status).count() as u64
        };
        let wires = || self.wires.values().flatten();
        let expected = [
            ("sent", counted.records_sent, self.deliveries.len() as u64),
            ("outstanding", counted.records_outstanding, with(None)),
            ("acknowledged", counted.records_acknowledged, with(Some(None))),
            ("not persisted", counted.records_not_persisted, with(Some(Some(DeliveryStatus::NotPersisted)))),
            (
                "possibly persisted",
                counted.records_possibly_persisted,
                with(Some(Some(DeliveryStatus::PossiblyPersisted))),
            ),
            ("requests in flight", counted.requests_in_flight, wires().count() as u64),
            (
                "batches in flight",
                counted.batches_in_flight,
                wires().flat_map(|sent| &sent.request).map(|request| request.parts.len() as u64).sum(),
            ),
        ];
        for (what, counted, expected) in expected {
            assert_eq!(counted, expected, "{what}");
        }
        if counted.records_outstanding == 0 && counted.batches_in_flight == 0 {
            assert_eq!(counted.batches_queued, 0, "nothing is left");
        } else {
            assert!(counted.batches_queued <= counted.records_outstanding);
        }
    }

    /// Ends all faults: every remaining record must get its result.
    fn heal(&mut self) {
        self.faults = Faults {
            disconnects: false,
            refusals: false,
            moves: false,
            expiry: false,
            small_batches: false,
            purges: false,
            forgets: false,
        };
        self.new_metadata();
        for round in 0.. {
            assert!(round < 10_000, "the producer stalls");
            self.now += Duration::from_millis(20);
            self.sender.tick(self.now, &self.metadata);
            self.drain();
            for node in 0..NODES {
                while self.answer_next(node) {}
            }
            self.poll();
            self.check_counters();
            if self.deliveries.iter().all(|(.., result)| result.is_some()) {
                break;
            }
        }
        for ghost in std::mem::take(&mut self.ghosts) {
            drop(self.process(&ghost));
        }
    }

    /// Asserts that the results are accurate, with any settings.
    fn check_results(&self) {
        for (partition, value, _, result) in &self.deliveries {
            let values = &self.logs[*partition].values;
            match result.as_ref().expect("it has a result") {
                Ok(at) => {
                    assert_eq!(at.partition as usize, *partition);
                    match at.offset {
                        Some(offset) => assert_eq!(values[offset as usize], *value, "at its offset is another"),
                        None => assert!(values.contains(value), "an acknowledged record is not in the log"),
                    }
                }
                Err(error) => {
                    let status = error.delivery_status().expect("a failed record has a status");
                    if status == DeliveryStatus::NotPersisted {
                        assert!(!values.contains(value), "{value} is in the log though it is not persisted: {error}");
                    }
                }
            }
        }
        assert_eq!(self.batch_shared.buffer.free(), 1 << 30, "bytes were not given back");
        assert_eq!(self.topics.outstanding(|| self.batch_shared.completed_records()), 0);
    }

    /// Asserts that every record was reported once, with its own result, and those of a partition
    /// in the order of sending.
    fn check_reports(&mut self) {
        let in_order = self.purged() == 0;
        let mut next = [0; PARTITIONS];
        let mut seen = 0;
        while let Some(report) = self.reports.try_next() {
            let value = report.tag.expect("it was tagged");
            let (partition, _, delivery, result) = &self.deliveries[value as usize];
            assert_eq!(report.id, delivery.id());
            let same = match (&report.result, result.as_ref().expect("it has a result")) {
                (Ok(reported), Ok(told)) => reported == told,
                (Err(reported), Err(told)) => reported.to_string() == told.to_string(),
                _ => false,
            };
            assert!(same, "{:?} was reported of {result:?}", report.result);
            // A purge does not wait for earlier records.
            if in_order {
                assert!(value >= next[*partition], "the result of {value} came behind that of a later one");
                next[*partition] = value + 1;
            }
            seen += 1;
        }
        assert_eq!(seen, self.deliveries.len());
    }

    /// Asserts that the values of a partition are in the order of sending.
    fn check_order(&self) {
        for log in &self.logs {
            for pair in log.values.windows(2) {
                assert!(pair[0] < pair[1], "{} stands before {}", pair[0], pair[1]);
            }
        }
    }
}

const ALL: Faults = Faults {
    disconnects: true,
    refusals: true,
    moves: true,
    expiry: false,
    small_batches: true,
    purges: false,
    forgets: false,
};

fn run(seed: u64, steps: usize, idempotent: bool, max_in_flight: usize, faults: Faults) -> World {
    let mut world = World::new(seed, idempotent, max_in_flight, faults);
    for _ in 0..steps {
        world.step();
    }
    world.heal();
    world.check_reports();
    world.check_results();
    world
}

/// Runs the test with many seeds, and names the one that failed. `OTTLA_MODEL_RUNS=100` runs a
/// hundred times as many.
fn for_seeds(count: u64, test: impl Fn(u64) + std::panic::RefUnwindSafe) {
    let times = std::env::var("OTTLA_MODEL_RUNS").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    for seed in 0..count * times {
        if let Err(panic) = std::panic::catch_unwind(|| test(seed)) {
            eprintln!("seed {seed} failed");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn without_faults_all_is_delivered_in_order() {
    let none = Faults {
        disconnects: false,
        refusals: false,
        moves: false,
        expiry: false,
        small_batches: false,
        purges: false,
        forgets: false,
    };
    for_seeds(10, |seed| {
        for idempotent in [true, false] {
            let world = run(seed, 400, idempotent, 5, none);
            world.check_order();
            assert!(world.deliveries.iter().all(|(.., result)| matches!(result, Some(Ok(_)))));
        }
    });
}

#[test]
fn idempotence_delivers_once_in_order_despite_faults() {
    for_seeds(50, |seed| {
        let world = run(seed, 600, true, 5, ALL);
        world.check_order();
        for (.., result) in &world.deliveries {
            assert!(matches!(result, Some(Ok(_))), "nothing expired, and yet: {result:?}");
        }
    });
}

#[test]
fn expired_records_are_neither_duplicated_nor_reordered() {
    for_seeds(50, |seed| {
        let world = run(seed, 600, true, 5, Faults { expiry: true, ..ALL });
        world.check_order();
    });
}

#[test]
fn purged_records_are_neither_duplicated_nor_reordered() {
    for_seeds(50, |seed| {
        let world = run(seed, 600, true, 5, Faults { expiry: seed % 2 == 0, purges: true, ..ALL });
        world.check_order();
        for (.., result) in world.deliveries.iter().filter(|_| seed % 2 == 1) {
            let fine = result.as_ref().is_some_and(|result| match result {
                Ok(_) => true,
                // After a record that may have been written, others that may have been written have
                // to fail as well.
                Err(error) if error.kind() != ErrorKind::Purged => {
                    error.delivery_status() == Some(DeliveryStatus::PossiblyPersisted)
                }
                Err(_) => true,
            });
            assert!(fine, "{result:?}");
        }
    });
}

#[test]
fn lost_producer_state_neither_duplicates_nor_reorders() {
    for_seeds(50, |seed| {
        let world = run(seed, 600, true, 5, Faults { expiry: seed % 2 == 0, forgets: true, ..ALL });
        world.check_order();
        for (.., result) in world.deliveries.iter().filter(|_| seed % 2 == 1) {
            // If the broker lost the producer's state, a record in its log can neither be
            // recognized nor written again.
            if let Some(Err(error)) = result {
                assert_eq!(error.delivery_status(), Some(DeliveryStatus::PossiblyPersisted), "{error}");
            }
        }
    });
}

#[test]
fn results_are_accurate_without_idempotence() {
    for_seeds(20, |seed| {
        run(seed, 400, false, 5, Faults { expiry: true, purges: seed % 2 == 0, ..ALL });
    });
}

#[test]
fn one_in_flight_keeps_order_without_idempotence() {
    let refusals = Faults { disconnects: false, refusals: false, expiry: false, ..ALL };
    for_seeds(20, |seed| run(seed, 400, false, 1, refusals).check_order());
}
