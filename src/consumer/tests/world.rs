//! What decides, driven by hand, for tests of plans: no brokers, no time but what the test says.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::Bytes;
use rand::{SeedableRng, rngs::StdRng};
use uuid::Uuid;

use super::{SECOND, tp};
use crate::{
    ErrorCode, IsolationLevel, OffsetReset, TopicPartition,
    cluster::{Backoff, Broker, Metadata, PartitionMetadata, TopicMetadata},
    consumer::{
        arrivals::{Arrived, Hints},
        assignment::{Assignment, Rules},
        budget::Charge,
        fetcher::Plan,
        inbox::{Inbox, Wakers},
        part::Opening,
        position::State,
        records::{Home, Records},
        resolve::Question,
        test_batches::{Sort, batch},
        walk::walk,
    },
    record::Offset,
    wire::fetch::{FetchPartition, FetchPartitionResponse, FetchRequest},
};

pub(super) const PARTITIONS: i32 = 3;
/// Records of a batch.
const BATCH: i64 = 4;

pub(super) fn rules() -> Rules {
    Rules {
        partition_eof: false,
        reset: OffsetReset::Earliest,
        isolation: IsolationLevel::ReadUncommitted,
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
        patience: 10 * SECOND,
        jobs: 1,
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

/// A consumer's inside, and brokers as it sees them.
pub(super) struct World {
    pub(super) inbox: Arc<Inbox>,
    pub(super) now: Instant,
    /// The leader and epoch of each partition.
    pub(super) leaders: Vec<(i32, i32)>,
    brokers: Vec<i32>,
    /// What each broker has been asked for, and the request that waits for its answer.
    sessions: HashMap<i32, BTreeMap<i32, FetchPartition>>,
    pub(super) waiting: HashMap<i32, Charge>,
    _runtime: tokio::runtime::Runtime,
}

impl World {
    pub(super) fn new(rules: Rules) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let wakers = Arc::new(Wakers::default());
        let assignment = Assignment::new(rules, StdRng::seed_from_u64(1), wakers.factory());
        let opening = Opening { check_crcs: true, limit: 1 << 20 };
        let inbox = Inbox::new(assignment, wakers, opening, runtime.handle().clone());
        let leaders = (0..PARTITIONS).map(|partition| (partition % 2, 1)).collect();
        let world = Self {
            inbox,
            now: Instant::now(),
            leaders,
            brokers: vec![0, 1],
            sessions: HashMap::new(),
            waiting: HashMap::new(),
            _runtime: runtime,
        };
        let metadata = world.metadata();
        world.inbox.control(|assignment| {
            for partition in 0..PARTITIONS {
                assignment.assign(tp("t", partition), State::at(Offset::At(0)), &metadata, world.now);
            }
        });
        world
    }

    pub(super) fn metadata(&self) -> Metadata {
        let partitions = self.leaders.iter().zip(0..).map(|(&(leader, leader_epoch), partition)| PartitionMetadata {
            partition,
            leader: Some(leader),
            leader_epoch,
            replicas: vec![0, 1],
            isr: vec![0, 1],
            error: ErrorCode::NONE,
        });
        let topic = TopicMetadata {
            name: "t".into(),
            id: Uuid::nil(),
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
        let (leader, epoch) = &mut self.leaders[partition as usize];
        (*leader, *epoch) = (1 - *leader, *epoch + 1);
        self.tell();
    }

    /// A broker is no longer part of the cluster.
    pub(super) fn drop_broker(&mut self, node: i32) {
        self.brokers.retain(|id| *id != node);
        self.tell();
    }

    /// There is a new picture of the cluster.
    pub(super) fn tell(&mut self) {
        let metadata = self.metadata();
        self.inbox.with(|assignment| assignment.metadata_changed(&metadata, self.now));
    }

    /// The next request to a broker, if it is to be sent.
    pub(super) fn send(&mut self, node: i32) -> Option<FetchRequest> {
        if self.waiting.contains_key(&node) {
            return None;
        }
        match self.inbox.with(|assignment| assignment.plan(node, self.now)) {
            Plan::Wait(_) | Plan::End => None,
            Plan::Close(_) => {
                self.sessions.remove(&node);
                None
            }
            Plan::Fetch { request, reserved, .. } => {
                let session = self.sessions.entry(node).or_default();
                if request.session_epoch == 0 {
                    session.clear();
                }
                for asked in request.topics.iter().flat_map(|topic| &topic.partitions) {
                    session.insert(asked.partition, *asked);
                }
                for forgotten in request.forgotten.iter().flat_map(|topic| &topic.partitions) {
                    session.remove(forgotten);
                }
                self.waiting.insert(node, reserved);
                Some(*request)
            }
        }
    }

    /// Answers a broker's request with `batches` of each partition that it leads.
    pub(super) fn answer(&mut self, node: i32, batches: i64) {
        let Some(mut charge) = self.waiting.remove(&node) else { return };
        let mut size = 0;
        let arrived = self.sessions[&node].values().map(|asked| {
            // Three batches were read before the leader moved.
            if self.leaders[asked.partition as usize].0 != node && batches != 3 {
                let walk = walk(Bytes::new(), IsolationLevel::ReadUncommitted, &[]);
                // A follower that lags has no say about offsets.
                let code =
                    if batches == 2 { ErrorCode::OFFSET_OUT_OF_RANGE } else { ErrorCode::NOT_LEADER_OR_FOLLOWER };
                return Arrived { head: head(asked.partition, code), walk };
            }
            let first = asked.fetch_offset - asked.fetch_offset.rem_euclid(BATCH);
            let bytes: Vec<Bytes> = (0..batches).map(|i| batch(first + i * BATCH, BATCH, Sort::Plain)).collect();
            let bytes = bytes.concat();
            size += bytes.len();
            let walk = walk(bytes.into(), IsolationLevel::ReadUncommitted, &[]);
            Arrived { head: head(asked.partition, ErrorCode::NONE), walk }
        });
        let arrived = arrived.collect();
        charge.resize(size);
        self.respond(node, arrived, charge);
    }

    /// Answers a broker's request by sending its reader to the other broker, for each partition that it leads.
    pub(super) fn recommend(&mut self, node: i32) {
        let Some(mut charge) = self.waiting.remove(&node) else { return };
        charge.resize(0);
        let led = self.sessions[&node].values().filter(|asked| self.leaders[asked.partition as usize].0 == node);
        let arrived = led.map(|asked| {
            let head =
                FetchPartitionResponse { preferred_read_replica: 1 - node, ..head(asked.partition, ErrorCode::NONE) };
            Arrived { head, walk: walk(Bytes::new(), IsolationLevel::ReadUncommitted, &[]) }
        });
        let arrived = arrived.collect();
        self.respond(node, arrived, charge);
    }

    pub(super) fn respond(&mut self, node: i32, arrived: Vec<Arrived>, charge: Charge) -> Hints {
        let now = self.now;
        self.inbox.with(|assignment| assignment.fetched(node, 7 + node, ErrorCode::NONE, arrived, charge, now))
    }

    /// Answers with one partition's head.
    pub(super) fn answer_head(&mut self, node: i32, head: FetchPartitionResponse) -> Hints {
        let charge = self.waiting.remove(&node).expect("a request");
        let walk = walk(Bytes::new(), IsolationLevel::ReadUncommitted, &[]);
        self.respond(node, vec![Arrived { head, walk }], charge)
    }

    pub(super) fn fail(&mut self, node: i32) {
        if self.waiting.remove(&node).is_some() {
            let error = crate::Error::new(crate::ErrorKind::Network, "gone");
            self.inbox.with(|assignment| assignment.fetch_failed(node, &error, self.now));
        }
    }

    /// Every question is answered: logs keep all that was read.
    pub(super) fn answer_questions(&mut self) {
        let now = self.now;
        self.inbox.control(|assignment| {
            for question in assignment.questions(now) {
                match question {
                    Question::Committed(_) => panic!("there is no group"),
                    Question::Offsets(_, asked) => {
                        for asked in asked {
                            assignment.offset_answer(&asked, Ok((0, 1)), now);
                        }
                    }
                    Question::Epochs(_, asked) => {
                        for asked in asked {
                            let (_, epoch) = asked.what;
                            assignment.epoch_answer(&asked, Ok((epoch, i64::MAX)), now);
                        }
                    }
                }
            }
        });
    }

    /// The next record that is there, as `recv` would give it.
    pub(super) fn take(&self) -> Option<(TopicPartition, i64)> {
        let _reading = self.inbox.read().unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        match self.inbox.reader().poll_record(&self.inbox, &mut cx) {
            Poll::Ready(Some(Ok(record))) => Some((record.topic_partition(), record.offset)),
            Poll::Ready(other) => panic!("{other:?}"),
            Poll::Pending => None,
        }
    }

    /// What `poll` would give.
    pub(super) fn poll(&self, max: usize) -> Records {
        let reading = self.inbox.read().unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        let portions = self.inbox.reader().poll_portions(max, &self.inbox, &mut cx);
        match portions {
            Poll::Ready(portions) => {
                Records::new(portions.unwrap().unwrap(), Home::Common(reading.into_owned().unwrap()))
            }
            Poll::Pending => Records::empty(),
        }
    }

    pub(super) fn asked(request: &FetchRequest) -> Vec<(i32, i64)> {
        let partitions = request.topics.iter().flat_map(|topic| &topic.partitions);
        partitions.map(|asked| (asked.partition, asked.fetch_offset)).collect()
    }
}
