//! Tests of the rules about sequence numbers, with one partition's queue: the consequences of each
//! response.

mod doubts;
mod order;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{SeedableRng, rngs::StdRng};

use super::super::{
    Delivery,
    accumulator::{Appended, Partition},
    idempotence::{Identity, ProducerId},
    purge::PurgeScope,
    response::BatchDecision,
    sizes::Sizes,
    topics::parts_of,
};
use crate::producer::{
    batch_body::Body,
    batch_shared::BatchShared,
    record_entry::{RecordEntry, RecordReservation},
};
use crate::producer::{
    partition_queue::{PartitionQueue, Readiness, SenderRules},
    revocable_batch::RevocableBatch,
};
use crate::{
    cluster::{Backoff, RetryGrid, RevocableParts},
    error::{DeliveryStatus, Error, ErrorCode, ErrorKind},
    record::{Record, RecordMetadata},
    wire::{
        Compression,
        batch::{Compressor, ProducerStamp, SealedBatch, record_size_bound},
        produce::ProducePartitionResponse,
    },
};

const NODE: i32 = 1;

/// Hands the request with that batch to the socket.
fn written(revocable: &RevocableBatch) -> bool {
    [revocable.part()].into_iter().collect::<RevocableParts>().confirm_write()
}

/// A partition's queue in which every record is a separate batch.
struct Line {
    queue: PartitionQueue,
    partition: Arc<Partition>,
    batch_shared: Arc<BatchShared>,
    identity: Identity,
    rules: SenderRules,
    now: Instant,
    rng: StdRng,
    requests: Vec<(u64, SealedBatch)>,
    next: u64,
}

impl Line {
    fn new() -> Self {
        Self::with(Identity::Known(ProducerId { id: 9, epoch: 0 }))
    }

    fn with(identity: Identity) -> Self {
        let partition = Arc::new(Partition::new(0, "t".into(), 0, Arc::default()));
        Self {
            queue: PartitionQueue::new(partition.clone()),
            partition,
            batch_shared: Arc::new(BatchShared::new(1 << 20)),
            identity,
            rules: SenderRules {
                availability_timeout: None,
                acks: -1,
                retries: u32::MAX,
                max_in_flight: 5,
                max_request_size: 1 << 20,
                linger: Duration::ZERO,
                delivery_timeout: Duration::from_secs(120),
                backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(1)),
                grid: RetryGrid::default(),
            },
            now: Instant::now(),
            rng: StdRng::seed_from_u64(1),
            requests: Vec::new(),
            next: 0,
        }
    }

    fn send(&self) -> Delivery {
        self.send_into(Sizes::new(1))
    }

    /// Sends several records in one batch, behind all batches in flight.
    fn send_together(&self, records: usize) -> Vec<Delivery> {
        (0..records).map(|_| self.send_into(Sizes::new(10_000))).collect()
    }

    fn send_into(&self, sizes: Sizes) -> Delivery {
        let record = Record::to("t").with_value("x");
        let parts = parts_of(&record);
        let entry = RecordEntry { bound: record_size_bound(&parts) as u32, parts, timestamp: 0, sticky: None };
        let now = self.now;
        let take = |results: &Arc<_>, index| Delivery::new(Arc::clone(results), index, 0);
        match self.partition.lock_to_append().append(
            &entry,
            &mut RecordReservation::FromPool,
            sizes,
            &self.batch_shared,
            || now,
            take,
        ) {
            Appended::Done { taken, .. } => taken,
            _ => panic!("there is room"),
        }
    }

    fn readiness(&self) -> Readiness {
        self.queue.readiness(self.now, &self.rules, &self.identity, false, Some(NODE))
    }

    /// Sends the next batch that may be sent; returns the request and its stamp.
    fn drain(&mut self) -> Option<(u64, ProducerStamp)> {
        if let Readiness::At(at) = self.readiness() {
            self.now = at;
        }
        if self.readiness() != Readiness::Ready {
            return None;
        }
        let request = self.next;
        self.next += 1;
        let drained = self.queue.drain(request, NODE, self.now, &self.identity)?;
        assert!(written(&drained.revocable));
        let sealed = match drained.body {
            Body::Open(builder) => builder.seal(&mut Compressor::new(Compression::None).unwrap()).unwrap(),
            Body::Sealed(sealed) => sealed,
            Body::Lent(_) => panic!("a lent batch was drained"),
        };
        self.requests.push((request, sealed));
        Some((request, drained.stamp))
    }

    /// Sends the next batch, and asserts its epoch and sequence.
    #[track_caller]
    fn drain_as(&mut self, epoch: i16, sequence: i32) -> u64 {
        let (request, stamp) = self.drain().expect("something may go");
        assert_eq!((stamp.producer_epoch, stamp.base_sequence), (epoch, sequence));
        request
    }

    fn answer(&mut self, request: u64, answer: BatchDecision) {
        let at = self.requests.iter().position(|(id, _)| *id == request).unwrap();
        let (_, sealed) = self.requests.remove(at);
        let effects = self.queue.handle_decision(request, Ok(sealed), answer, self.now, &self.rules, &mut self.rng);
        if effects.needs_new_id {
            self.identity = Identity::Unknown;
        }
    }

    fn refuse(&mut self, request: u64, code: ErrorCode) {
        self.answer(request, BatchDecision::read(said(code, -1), "t[0]"));
    }

    fn written(&mut self, request: u64, offset: i64) {
        self.answer(request, BatchDecision::read(said(ErrorCode::NONE, offset), "t[0]"));
    }

    fn lose(&mut self, request: u64) {
        let error = Error::new(ErrorKind::Network, "reset").with_status(DeliveryStatus::PossiblyPersisted);
        self.answer(request, BatchDecision::failed(&error));
    }
}

fn said(code: ErrorCode, base_offset: i64) -> ProducePartitionResponse<'static> {
    ProducePartitionResponse {
        topic: "t",
        topic_id: uuid::Uuid::nil(),
        partition: 0,
        error: code,
        base_offset,
        log_append_time_ms: -1,
        log_start_offset: 0,
        record_errors: Vec::new(),
        error_message: None,
        current_leader: None,
    }
}

/// Returns the result, which must be available.
#[track_caller]
fn result(delivery: Delivery) -> Result<RecordMetadata, Error> {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match std::future::Future::poll(std::pin::pin!(delivery), &mut cx) {
        std::task::Poll::Ready(result) => result,
        std::task::Poll::Pending => panic!("there is no result yet"),
    }
}

#[track_caller]
fn status(delivery: Delivery) -> Option<DeliveryStatus> {
    result(delivery).expect_err("it failed").delivery_status()
}

/// Returns a partition that the broker knows, with `count` batches in flight, and their records.
fn in_flight(count: usize) -> (Line, Vec<u64>, Vec<Delivery>) {
    let mut line = Line::new();
    let first = line.send();
    let request = line.drain_as(0, 0);
    line.written(request, 0);
    result(first).unwrap();
    let deliveries: Vec<_> = (0..count).map(|_| line.send()).collect();
    let requests = (1..=count as i32).map(|sequence| line.drain_as(0, sequence)).collect();
    (line, requests, deliveries)
}

#[test]
fn allows_five_batches_in_flight_per_partition() {
    let (mut line, requests, deliveries) = in_flight(5);
    let sixth = line.send();
    assert_eq!(line.readiness(), Readiness::Blocked);
    line.written(requests[0], 1);
    let request = line.drain_as(0, 6);
    line.written(request, 6);
    for (at, request) in requests.iter().enumerate().skip(1) {
        line.written(*request, at as i64 + 1);
    }
    for delivery in deliveries.into_iter().chain([sixth]) {
        result(delivery).unwrap();
    }
}

#[test]
fn first_batch_of_partition_goes_alone() {
    let mut line = Line::new();
    let (_first, _second) = (line.send(), line.send());
    let request = line.drain_as(0, 0);
    assert_eq!(line.readiness(), Readiness::Blocked);
    line.written(request, 0);
    line.drain_as(0, 1);
}

#[test]
fn rejected_batches_are_resent_in_order_alone() {
    let (mut line, requests, deliveries) = in_flight(3);
    let _later = line.send();
    line.refuse(requests[2], ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    line.refuse(requests[0], ErrorCode::NOT_ENOUGH_REPLICAS);
    let first = line.drain_as(0, 1);
    line.now += Duration::from_secs(2);
    assert_eq!(line.readiness(), Readiness::Blocked, "only the lowest is sent");
    line.refuse(requests[1], ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    line.now += Duration::from_secs(2);
    assert_eq!(line.readiness(), Readiness::Blocked);
    line.written(first, 1);
    for sequence in 2..=3 {
        let request = line.drain_as(0, sequence);
        assert_eq!(line.readiness() == Readiness::Blocked, sequence == 2);
        line.written(request, i64::from(sequence));
    }
    deliveries.into_iter().for_each(|delivery| drop(result(delivery).unwrap()));
    line.drain_as(0, 4);
}

#[test]
fn new_batches_wait_behind_resent_batch() {
    // A broker recognizes only the last five batches.
    let (mut line, requests, _deliveries) = in_flight(1);
    line.lose(requests[0]);
    let again = line.drain_as(0, 1);
    let _later = line.send();
    assert_eq!(line.readiness(), Readiness::Blocked);
    line.written(again, 1);
    line.drain_as(0, 2);
}

#[test]
fn next_expected_out_of_order_bumps_epoch() {
    let (mut line, requests, deliveries) = in_flight(1);
    line.refuse(requests[0], ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    let request = line.drain_as(1, 0);
    line.written(request, 1);
    deliveries.into_iter().for_each(|delivery| drop(result(delivery).unwrap()));
}

#[test]
fn epoch_bump_waits_for_requests_in_flight() {
    let (mut line, requests, _deliveries) = in_flight(2);
    line.refuse(requests[0], ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    assert_eq!(line.drain(), None, "the second is still on its way under the old epoch");
    line.refuse(requests[1], ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    let request = line.drain_as(1, 0);
    line.written(request, 1);
    line.drain_as(1, 1);
}

#[test]
fn duplicate_after_possible_write_is_success() {
    let (mut line, requests, deliveries) = in_flight(1);
    line.lose(requests[0]);
    let again = line.drain_as(0, 1);
    line.refuse(again, ErrorCode::DUPLICATE_SEQUENCE_NUMBER);
    for delivery in deliveries {
        assert_eq!(result(delivery).unwrap().offset, None);
    }
}

#[test]
fn duplicate_of_unwritten_batch_bumps_epoch() {
    // Another batch has these sequences, so this one is not in the log.
    let (mut line, requests, deliveries) = in_flight(1);
    line.refuse(requests[0], ErrorCode::DUPLICATE_SEQUENCE_NUMBER);
    let again = line.drain_as(1, 0);
    line.written(again, 5);
    for delivery in deliveries {
        assert_eq!(result(delivery).unwrap().offset, Some(5));
    }
}

#[test]
fn duplicate_without_sequence_is_success() {
    // Without sequences there is no evidence against the error, and sending the record again could
    // duplicate it.
    let mut line = Line::with(Identity::Anonymous);
    let delivery = line.send();
    let (request, stamp) = line.drain().unwrap();
    assert_eq!(stamp, ProducerStamp::NONE);
    line.refuse(request, ErrorCode::DUPLICATE_SEQUENCE_NUMBER);
    assert_eq!(result(delivery).unwrap().offset, None);
}

#[test]
fn duplicate_result_follows_earlier_records() {
    let mut line = Line::with(Identity::Anonymous);
    let (first, second) = (line.send(), line.send());
    let (one, _) = line.drain().unwrap();
    let (other, _) = line.drain().unwrap();
    line.refuse(other, ErrorCode::DUPLICATE_SEQUENCE_NUMBER);
    assert!(second.try_result().is_none(), "the first has none yet");
    line.written(one, 7);
    assert_eq!(result(first).unwrap().offset, Some(7));
    assert_eq!(result(second).unwrap().offset, None);
}

#[test]
fn duplicate_after_storage_error_is_success() {
    // The disk failed while the leader waited for its followers, which may have the batch.
    let (mut line, requests, deliveries) = in_flight(1);
    line.refuse(requests[0], ErrorCode::KAFKA_STORAGE_ERROR);
    let again = line.drain_as(0, 1);
    line.refuse(again, ErrorCode::DUPLICATE_SEQUENCE_NUMBER);
    deliveries.into_iter().for_each(|delivery| drop(result(delivery).unwrap()));
}

#[test]
fn sequence_is_not_reused_after_storage_error() {
    let (mut line, requests, deliveries) = in_flight(1);
    line.rules.retries = 0;
    line.refuse(requests[0], ErrorCode::KAFKA_STORAGE_ERROR);
    for delivery in deliveries {
        assert_eq!(status(delivery), Some(DeliveryStatus::NotPersisted));
    }
    let _later = line.send();
    line.drain_as(1, 0);
}

#[test]
fn last_rejected_batch_frees_its_sequence() {
    for code in [ErrorCode::NOT_ENOUGH_REPLICAS, ErrorCode::TOPIC_AUTHORIZATION_FAILED, ErrorCode::INVALID_RECORD] {
        let (mut line, requests, deliveries) = in_flight(1);
        line.rules.retries = 0;
        line.refuse(requests[0], code);
        for delivery in deliveries {
            assert_eq!(status(delivery), Some(DeliveryStatus::NotPersisted), "{code}");
        }
        let _later = line.send();
        line.drain_as(0, 1);
    }
}

#[test]
fn permanent_error_before_other_batches_bumps_epoch() {
    let (mut line, requests, mut deliveries) = in_flight(3);
    line.refuse(requests[0], ErrorCode::INVALID_RECORD);
    assert_eq!(status(deliveries.remove(0)), Some(DeliveryStatus::NotPersisted));
    line.refuse(requests[1], ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    line.refuse(requests[2], ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    for sequence in 0..2 {
        let request = line.drain_as(1, sequence);
        line.written(request, 1 + i64::from(sequence));
    }
    deliveries.into_iter().for_each(|delivery| drop(result(delivery).unwrap()));
}

#[test]
fn unknown_producer_id_bumps_epoch_without_loss() {
    let (mut line, requests, deliveries) = in_flight(2);
    for request in requests {
        line.refuse(request, ErrorCode::UNKNOWN_PRODUCER_ID);
    }
    for sequence in 0..2 {
        let request = line.drain_as(1, sequence);
        line.written(request, i64::from(sequence));
    }
    deliveries.into_iter().for_each(|delivery| drop(result(delivery).unwrap()));
}

#[test]
fn unknown_producer_id_does_not_duplicate_batch() {
    let (mut line, requests, deliveries) = in_flight(1);
    line.lose(requests[0]);
    let again = line.drain_as(0, 1);
    // The batch was in the log, and the broker has lost the producer's state.
    line.refuse(again, ErrorCode::UNKNOWN_PRODUCER_ID);
    for delivery in deliveries {
        assert_eq!(status(delivery), Some(DeliveryStatus::PossiblyPersisted));
    }
    let _later = line.send();
    line.drain_as(1, 0);
}

#[test]
fn unknown_producer_id_retries_before_epoch_bump() {
    let (mut line, requests, _deliveries) = in_flight(1);
    let moving = || {
        let response = ProducePartitionResponse { log_start_offset: -1, ..said(ErrorCode::UNKNOWN_PRODUCER_ID, -1) };
        BatchDecision::read(response, "t[0]")
    };
    line.answer(requests[0], moving());
    let again = line.drain_as(0, 1);
    line.answer(again, moving());
    line.drain_as(1, 0);
}

#[test]
fn invalid_producer_epoch_bumps_unless_possibly_written() {
    let (mut line, requests, deliveries) = in_flight(1);
    line.refuse(requests[0], ErrorCode::INVALID_PRODUCER_EPOCH);
    let again = line.drain_as(1, 0);
    line.written(again, 1);
    deliveries.into_iter().for_each(|delivery| drop(result(delivery).unwrap()));

    let (mut line, requests, deliveries) = in_flight(1);
    line.lose(requests[0]);
    let again = line.drain_as(0, 1);
    line.refuse(again, ErrorCode::INVALID_PRODUCER_EPOCH);
    for delivery in deliveries {
        assert_eq!(status(delivery), Some(DeliveryStatus::PossiblyPersisted));
    }
    let _later = line.send();
    line.drain_as(1, 0);
}

#[test]
fn exhausted_epoch_requests_new_producer_id() {
    let mut line = Line::with(Identity::Known(ProducerId { id: 9, epoch: i16::MAX }));
    let first = line.send();
    let request = line.drain_as(i16::MAX, 0);
    line.written(request, 0);
    result(first).unwrap();
    let deliveries = [line.send(), line.send()];
    let requests = [line.drain_as(i16::MAX, 1), line.drain_as(i16::MAX, 2)];
    for request in requests {
        line.refuse(request, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    }
    assert!(matches!(line.identity, Identity::Unknown), "a new id is asked for");
    assert_eq!(line.drain(), None);
    line.now += Duration::from_secs(2);
    assert_eq!(line.readiness(), Readiness::NoProducerId);
    line.identity = Identity::Known(ProducerId { id: 10, epoch: 0 });
    let (request, stamp) = line.drain().unwrap();
    assert_eq!((stamp.producer_id, stamp.producer_epoch, stamp.base_sequence), (10, 0, 0));
    assert_eq!(line.readiness(), Readiness::Blocked, "the broker does not know this id: the first goes alone");
    line.written(request, 1);
    let request = line.drain_as(0, 1);
    line.written(request, 2);
    deliveries.into_iter().for_each(|delivery| drop(result(delivery).unwrap()));
}

#[test]
fn old_sequences_finish_before_new_producer_id() {
    let (mut line, requests, _deliveries) = in_flight(1);
    let _later = line.send();
    line.identity = Identity::Known(ProducerId { id: 10, epoch: 0 });
    assert_eq!(line.readiness(), Readiness::Blocked);
    line.refuse(requests[0], ErrorCode::NOT_ENOUGH_REPLICAS);
    let (again, stamp) = line.drain().unwrap();
    assert_eq!((stamp.producer_id, stamp.base_sequence), (9, 1), "it keeps its numbers");
    line.written(again, 1);
    let (_, stamp) = line.drain().unwrap();
    assert_eq!((stamp.producer_id, stamp.base_sequence), (10, 0));
}

#[test]
fn expired_batch_blocks_while_sequence_is_uncertain() {
    let (mut line, requests, mut deliveries) = in_flight(2);
    line.now += Duration::from_secs(121);
    let (now, rules) = (line.now, line.rules.clone());
    line.queue.expire(now, &rules, None);
    for delivery in deliveries.drain(..) {
        assert_eq!(status(delivery), Some(DeliveryStatus::PossiblyPersisted));
    }
    let _later = line.send();
    assert_eq!(line.readiness(), Readiness::Ready, "nothing has failed yet as far as the numbers go");
    line.lose(requests[0]);
    assert_eq!(line.readiness(), Readiness::Blocked);
    // The second was acknowledged, so the first was written too.
    line.written(requests[1], 2);
    line.drain_as(0, 3);

    let (mut line, requests, _deliveries) = in_flight(2);
    line.now += Duration::from_secs(121);
    let (now, rules) = (line.now, line.rules.clone());
    line.queue.expire(now, &rules, None);
    line.lose(requests[0]);
    line.lose(requests[1]);
    let _later = line.send();
    line.drain_as(1, 0);
}

#[test]
fn invalid_offset_does_not_panic() {
    for offset in [i64::MAX, i64::MIN, -1, -7] {
        let (mut line, requests, deliveries) = in_flight(1);
        line.written(requests[0], offset);
        for delivery in deliveries {
            assert_eq!(result(delivery).unwrap().offset, (offset >= 0).then_some(offset));
        }
        let _later = line.send();
        line.drain_as(0, 2);
    }
}

#[test]
fn alternating_leader_hints_do_not_cause_loop() {
    let (mut line, requests, _deliveries) = in_flight(1);
    line.refuse(requests[0], ErrorCode::NOT_LEADER_OR_FOLLOWER);
    let mut attempts = 0;
    // Each response names the other broker, without any time between them.
    for round in 0..20 {
        let leader = NODE + 1 + round % 2;
        let readiness = line.queue.readiness(line.now, &line.rules, &line.identity, false, Some(leader));
        if readiness != Readiness::Ready {
            continue;
        }
        attempts += 1;
        let drained = line.queue.drain(100 + round as u64, leader, line.now, &line.identity).unwrap();
        assert!(written(&drained.revocable));
        let Body::Sealed(sealed) = drained.body else { panic!("it was sealed before") };
        let answer = BatchDecision::read(said(ErrorCode::NOT_LEADER_OR_FOLLOWER, -1), "t[0]");
        line.queue.handle_decision(100 + round as u64, Ok(sealed), answer, line.now, &line.rules, &mut line.rng);
    }
    assert_eq!(attempts, 1, "two brokers that point at each other are asked without end");
}
