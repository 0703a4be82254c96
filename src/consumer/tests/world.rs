//! The consumer's state, driven directly, for tests of plans: no brokers, and no time except the
//! test's.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::Bytes;
use rand::{SeedableRng, rngs::StdRng};
use uuid::Uuid;

use super::{
    SECOND,
    logs::{Form, Log},
    tp,
};
use crate::{
    ConsumerRecord, ErrorCode, TopicPartition,
    cluster::{Backoff, Broker, Metadata, PartitionMetadata, TopicMetadata},
    consumer::{
        IsolationLevel, OffsetReset,
        api::records::{Records, UnreadReturn},
        buffer::{
            fetch_buffer::{FetchBuffer, FetchWakers},
            fetched_batch::DecodeConfig,
            record_reader::RecordReader,
            split::SplitId,
        },
        config::isolation::Isolation,
        fetch::{
            batch_scan::scan_batches,
            memory_budget::Reservation,
            plan::FetchPlan,
            scanned::{MetadataHints, ScannedPartition},
        },
        lock::lock,
        state::ConsumerState,
        subscription::{
            fetch_position::{FetchState, ResetTarget},
            offset_query::{OffsetQuery, OffsetRequest},
            rules::ConsumerRules,
        },
    },
    record::Offset,
    wire::fetch::{FetchPartition, FetchPartitionResponse, FetchRequest},
};

pub(super) const PARTITIONS: i32 = 3;
/// The leader id of a partition without a leader.
const NOBODY: i32 = -1;

pub(super) fn rules() -> ConsumerRules {
    ConsumerRules {
        partition_eof: false,
        reset: OffsetReset::Earliest,
        isolation: Isolation::new(IsolationLevel::ReadUncommitted),
        min_bytes: 1,
        max_bytes: 1 << 20,
        max_wait: SECOND,
        partition_bytes: 300,
        partition_grows: false,
        queued_bytes: 3000,
        connections: 1,
        rack: None,
        backoff: Backoff::new(SECOND / 10, SECOND),
        replica_age: 300 * SECOND,
        grace_period: 10 * SECOND,
        max_decompressions: 1,
        topic_propagation: 30 * SECOND,
        origin: crate::log::Origin::default(),
    }
}

pub(super) fn head(partition: i32, error: ErrorCode) -> FetchPartitionResponse {
    FetchPartitionResponse {
        topic: "t".into(),
        topic_id: Uuid::nil(),
        partition,
        error,
        high_watermark: -1,
        last_stable_offset: -1,
        log_start_offset: -1,
        aborted_transactions: Vec::new(),
        preferred_read_replica: -1,
        current_leader: None,
        records: Bytes::new(),
    }
}

/// A broker's response to an offset request that has not been delivered yet.
enum Answer {
    Offset(OffsetQuery<ResetTarget>, Result<(i64, i32), ErrorCode>),
    Epoch(OffsetQuery<(i64, i32)>, Result<(i32, i64), ErrorCode>),
}

/// The state of a consumer, and simulated brokers.
pub(super) struct World {
    pub(super) buffer: Arc<FetchBuffer>,
    pub(super) now: Instant,
    /// The leader and epoch of each partition.
    pub(super) leaders: Vec<(i32, i32)>,
    pub(super) logs: Vec<Log>,
    brokers: Vec<i32>,
    /// Nil if brokers know no topic ids.
    pub(super) topic_id: Uuid,
    /// True if fetches use names, although brokers may know ids (Fetch up to v12).
    pub(super) by_name: bool,
    /// The partitions in each broker's session, by id (nil if they are requested by name).
    /// `waiting` holds the reservation of the fetch that waits for its response.
    sessions: HashMap<i32, BTreeMap<(Uuid, i32), FetchPartition>>,
    pub(super) waiting: HashMap<i32, Reservation>,
    answers: VecDeque<Answer>,
    /// Partitions with a reader of their own.
    pub(super) splits: BTreeMap<i32, (SplitId, Arc<Mutex<RecordReader>>)>,
    _runtime: tokio::runtime::Runtime,
}

impl World {
    pub(super) fn new(rules: ConsumerRules) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let wakers = Arc::new(FetchWakers::default());
        let state = ConsumerState::new(rules, StdRng::seed_from_u64(1), wakers.factory());
        let opening = DecodeConfig { check_crcs: true, limit: 1 << 20, origin: crate::log::Origin::default() };
        let buffer = FetchBuffer::new(state, wakers, opening, runtime.handle().clone());
        let leaders = (0..PARTITIONS).map(|partition| (partition % 2, 1)).collect();
        let world = Self {
            buffer,
            now: Instant::now(),
            leaders,
            logs: vec![Log::new(Form::Plain, 1); PARTITIONS as usize],
            brokers: vec![0, 1],
            topic_id: Uuid::nil(),
            by_name: true,
            sessions: HashMap::new(),
            waiting: HashMap::new(),
            answers: VecDeque::new(),
            splits: BTreeMap::new(),
            _runtime: runtime,
        };
        let metadata = world.metadata();
        world.buffer.with_state_and_readers(|state| {
            for partition in 0..PARTITIONS {
                state.assign(tp("t", partition), FetchState::at(Offset::At(0)), &metadata, world.now);
            }
        });
        world
    }

    pub(super) fn metadata(&self) -> Metadata {
        let partitions = self.leaders.iter().zip(0..).map(|(&(leader, leader_epoch), partition)| PartitionMetadata {
            partition,
            leader: Some(leader).filter(|leader| *leader != NOBODY),
            leader_epoch,
            replicas: vec![0, 1],
            isr: vec![0, 1],
            error: ErrorCode::NONE,
        });
        let topic = TopicMetadata {
            name: "t".into(),
            id: self.topic_id,
            internal: false,
            error: ErrorCode::NONE,
            partitions: partitions.collect(),
        };
        let mut metadata = Metadata::default();
        for &id in &self.brokers {
            metadata.brokers.insert(id, Broker { id, host: "h".to_owned(), port: 1, rack: None });
        }
        metadata.topics.insert("t".into(), Arc::new(topic));
        metadata
    }

    pub(super) fn move_leader(&mut self, partition: i32) {
        self.elect(partition, Some(1 - self.leaders[partition as usize].0.max(0)));
        self.tell();
    }

    /// Elects another leader for a partition, or none. The consumer is not informed.
    pub(super) fn elect(&mut self, partition: i32, broker: Option<i32>) {
        let (leader, epoch) = &mut self.leaders[partition as usize];
        (*leader, *epoch) = (broker.unwrap_or(NOBODY), *epoch + 1);
    }

    /// Elects a leader that has lost everything from that offset on.
    pub(super) fn cut(&mut self, partition: i32, broker: i32, at: i64) {
        self.elect(partition, Some(broker));
        let (_, epoch) = self.leaders[partition as usize];
        self.logs[partition as usize].cut(epoch, at);
    }

    /// Deletes the topic and creates it again.
    pub(super) fn make_anew(&mut self, forms: &[Form]) {
        self.topic_id = Uuid::from_u128(self.topic_id.as_u128() + 1);
        self.logs = forms.iter().map(|form| Log::new(*form, 0)).collect();
        self.leaders = (0..PARTITIONS).map(|partition| (partition % 2, 0)).collect();
        self.tell();
    }

    /// Removes a broker from the cluster.
    pub(super) fn drop_broker(&mut self, node: i32) {
        self.brokers.retain(|id| *id != node);
        self.tell();
    }

    /// Delivers new metadata.
    pub(super) fn tell(&mut self) {
        let metadata = self.metadata();
        self.buffer.with_state(|state| state.metadata_changed(&metadata, self.now));
    }

    /// Returns the next request to a broker, if one is ready.
    pub(super) fn send(&mut self, node: i32) -> Option<FetchRequest> {
        if self.waiting.contains_key(&node) {
            return None;
        }
        let (plan, closes) =
            self.buffer.with_state(|state| (state.plan_fetch(node, self.now), state.connections.take_session_closes()));
        for over in closes {
            self.sessions.remove(&over.broker);
        }
        match plan {
            FetchPlan::Wait(_) | FetchPlan::End => None,
            FetchPlan::Fetch { request, reserved, by_name } => {
                let session = self.sessions.entry(node).or_default();
                if request.session_epoch == 0 {
                    session.clear();
                }
                let by_name = by_name || self.by_name;
                let key = |id, partition| (if by_name { Uuid::nil() } else { id }, partition);
                for topic in &request.topics {
                    session.extend(topic.partitions.iter().map(|asked| (key(topic.id, asked.partition), *asked)));
                }
                for topic in request.forgotten_in(if by_name { 12 } else { 13 }).iter() {
                    topic.partitions.iter().for_each(|partition| _ = session.remove(&key(topic.id, *partition)));
                }
                self.waiting.insert(node, reserved);
                Some(*request)
            }
        }
    }

    /// Answers a broker's fetch with `batches` batches of each partition that it leads.
    pub(super) fn answer(&mut self, node: i32, batches: i64) {
        let Some(mut reservation) = self.waiting.remove(&node) else { return };
        let mut size = 0;
        let (leaders, logs, topic_id) = (&self.leaders, &mut self.logs, self.topic_id);
        // The leaders that the consumer knows.
        let known: Vec<_> = (0..PARTITIONS)
            .map(|partition| {
                self.buffer.with_state(|all| all.partitions.get(&tp("t", partition)).and_then(|state| state.leader))
            })
            .collect();
        let arrived = self.sessions[&node].iter().map(|(&(id, partition), asked)| {
            let (leader, epoch) = leaders[partition as usize];
            let head = |code| match id.is_nil() {
                true => head(partition, code),
                false => FetchPartitionResponse { topic: "".into(), topic_id: id, ..head(partition, code) },
            };
            let refused = if !id.is_nil() && id != topic_id {
                Some(ErrorCode::UNKNOWN_TOPIC_ID)
            } else if batches == 3 {
                // Three batches stand for a response that was read before the leader moved.
                None
            } else if leader != node {
                // A lagging follower's offset errors do not count, once it is known to be a
                // follower.
                let lags = batches == 2 && known[partition as usize] == Some((leader, epoch));
                Some(if lags { ErrorCode::OFFSET_OUT_OF_RANGE } else { ErrorCode::NOT_LEADER_OR_FOLLOWER })
            } else {
                Some(ErrorCode::FENCED_LEADER_EPOCH).filter(|_| asked.current_leader_epoch != epoch)
            };
            if let Some(code) = refused {
                let walk = scan_batches(Bytes::new(), IsolationLevel::ReadUncommitted, &[]);
                return ScannedPartition { head: head(code), scan: walk };
            }
            let bytes = logs[partition as usize].read(asked.fetch_offset, batches, asked.current_leader_epoch);
            size += bytes.len();
            let walk = scan_batches(bytes, IsolationLevel::ReadUncommitted, &[]);
            ScannedPartition { head: head(ErrorCode::NONE), scan: walk }
        });
        let arrived = arrived.collect();
        reservation.resize(size);
        self.respond(node, arrived, reservation);
    }

    /// Answers a broker's fetch with the other broker as preferred read replica, for each partition
    /// that it leads.
    pub(super) fn recommend(&mut self, node: i32) {
        let Some(mut reservation) = self.waiting.remove(&node) else { return };
        reservation.resize(0);
        let led =
            |id: &Uuid, partition| self.leaders[partition as usize].0 == node && (id.is_nil() || *id == self.topic_id);
        let led = self.sessions[&node].keys().filter(|(id, partition)| led(id, *partition));
        let arrived = led.map(|(id, partition)| {
            let topic = if id.is_nil() { "t" } else { "" };
            let head = FetchPartitionResponse {
                topic: topic.into(),
                topic_id: *id,
                preferred_read_replica: 1 - node,
                ..head(*partition, ErrorCode::NONE)
            };
            ScannedPartition { head, scan: scan_batches(Bytes::new(), IsolationLevel::ReadUncommitted, &[]) }
        });
        let arrived = arrived.collect();
        self.respond(node, arrived, reservation);
    }

    pub(super) fn respond(
        &mut self,
        node: i32,
        arrived: Vec<ScannedPartition>,
        reservation: Reservation,
    ) -> MetadataHints {
        let now = self.now;
        self.buffer
            .with_state(|state| state.handle_fetch_response(node, 7 + node, ErrorCode::NONE, arrived, reservation, now))
    }

    /// Answers a fetch with one partition's head.
    pub(super) fn answer_head(&mut self, node: i32, head: FetchPartitionResponse) -> MetadataHints {
        let reservation = self.waiting.remove(&node).expect("a request");
        let walk = scan_batches(Bytes::new(), IsolationLevel::ReadUncommitted, &[]);
        self.respond(node, vec![ScannedPartition { head, scan: walk }], reservation)
    }

    pub(super) fn fail(&mut self, node: i32) {
        if self.waiting.remove(&node).is_some() {
            let error = crate::Error::new(crate::ErrorKind::Network, "gone");
            self.buffer.with_state(|state| state.handle_fetch_failure(node, &error, self.now));
        }
    }

    /// Answers all offset requests.
    pub(super) fn answer_questions(&mut self) {
        self.ask();
        while self.deliver() {}
    }

    /// Sends all offset requests that are due to their brokers, which answer from the present state
    /// of their logs.
    pub(super) fn ask(&mut self) {
        let now = self.now;
        for question in self.buffer.with_state(|state| state.due_offset_requests(now)) {
            match question {
                OffsetRequest::Committed(_) => panic!("there is no group"),
                OffsetRequest::Offsets(node, asked) => {
                    for asked in asked {
                        let answer = self.log_of(node, &asked).map(|log| (0, log.epoch_at(0)));
                        self.answers.push_back(Answer::Offset(asked, answer));
                    }
                }
                OffsetRequest::Epochs(node, asked) => {
                    for asked in asked {
                        let answer = self.log_of(node, &asked).map(|log| log.end_of(asked.query.1));
                        self.answers.push_back(Answer::Epoch(asked, answer));
                    }
                }
            }
        }
    }

    fn log_of<T>(&self, node: i32, asked: &OffsetQuery<T>) -> Result<&Log, ErrorCode> {
        let at = asked.partition.partition as usize;
        let (leader, epoch) = self.leaders[at];
        match () {
            () if asked.leader_epoch != epoch => Err(ErrorCode::FENCED_LEADER_EPOCH),
            () if leader != node => Err(ErrorCode::NOT_LEADER_OR_FOLLOWER),
            () => Ok(&self.logs[at]),
        }
    }

    /// Delivers the next response to an offset request, if there is one.
    pub(super) fn deliver(&mut self) -> bool {
        let now = self.now;
        match self.answers.pop_front() {
            None => return false,
            Some(Answer::Offset(asked, answer)) => {
                self.buffer.with_state_and_readers(|state| state.handle_listed_offset(&asked, answer, now))
            }
            Some(Answer::Epoch(asked, answer)) => {
                self.buffer.with_state_and_readers(|state| state.handle_epoch_end(&asked, answer, now))
            }
        };
        true
    }

    /// Waits for decompressions on other threads.
    pub(super) fn settle(&self) {
        for _ in 0..60_000 {
            if self.buffer.with_state(|state| state.delivery.running_jobs()) == 0 {
                return;
            }
            std::thread::sleep(SECOND / 5000);
        }
        panic!("what is being opened never is");
    }

    /// Returns the next buffered record, as `recv` does.
    pub(super) fn take(&self) -> Option<(TopicPartition, i64)> {
        self.take_record(None).map(|record| (record.topic_partition(), record.offset))
    }

    /// Returns the next buffered record of the common reader or of a partition's own.
    pub(super) fn take_record(&self, of: Option<i32>) -> Option<ConsumerRecord> {
        let mut cx = Context::from_waker(Waker::noop());
        let next = match of.map(|partition| self.splits.get(&partition)) {
            Some(split) => self.buffer.poll_record(&mut lock(&split?.1), &mut cx),
            None => {
                let _reading = self.buffer.start_reading().unwrap();
                self.buffer.poll_record(&mut self.buffer.reader(), &mut cx)
            }
        };
        match next {
            Poll::Ready(Some(Ok(record))) => Some(record),
            Poll::Ready(other) => panic!("{other:?}"),
            Poll::Pending => None,
        }
    }

    /// Splits a partition off, or joins its stream again.
    pub(super) fn split(&mut self, partition: i32, on: bool) {
        match (on, self.splits.remove(&partition)) {
            (true, None) => {
                let split = self.buffer.split(&tp("t", partition), false).unwrap();
                self.splits.insert(partition, split);
            }
            (false, Some((id, reader))) => self.buffer.join_split(&id, &reader),
            (_, kept) => self.splits.extend(kept.map(|split| (partition, split))),
        }
    }

    /// Returns the records that `poll` would.
    pub(super) fn poll(&self, max: usize) -> Records {
        let reading = self.buffer.start_reading().unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        let portions = self.buffer.poll_slices(&mut self.buffer.reader(), max, &mut cx);
        match portions {
            Poll::Ready(portions) => {
                Records::new(portions.unwrap().unwrap(), UnreadReturn::Common(reading.into_owned_guard().unwrap()))
            }
            Poll::Pending => Records::empty(),
        }
    }

    pub(super) fn asked(request: &FetchRequest) -> Vec<(i32, i64)> {
        let partitions = request.topics.iter().flat_map(|topic| &topic.partitions);
        partitions.map(|asked| (asked.partition, asked.fetch_offset)).collect()
    }
}
