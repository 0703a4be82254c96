//! What decides, driven by hand: no brokers, no time but what the test says.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::Bytes;
use proptest::prelude::*;
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

const PARTITIONS: i32 = 3;
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
        queued_bytes: 3000,
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
        diverging_epoch: None,
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

    fn metadata(&self) -> Metadata {
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
            Plan::Wait(_) => None,
            Plan::Fetch { request, reserved, .. } => {
                let session = self.sessions.entry(node).or_default();
                if request.session_epoch == 0 {
                    session.clear();
                }
                for forgotten in request.forgotten.iter().flat_map(|topic| &topic.partitions) {
                    session.remove(forgotten);
                }
                for asked in request.topics.iter().flat_map(|topic| &topic.partitions) {
                    session.insert(asked.partition, *asked);
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
    fn recommend(&mut self, node: i32) {
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

    fn fail(&mut self, node: i32) {
        if self.waiting.remove(&node).is_some() {
            let error = crate::Error::new(crate::ErrorKind::Network, "gone");
            self.inbox.with(|assignment| assignment.fetch_failed(node, &error, self.now));
        }
    }

    /// Every question is answered: logs keep all that was read.
    fn answer_questions(&mut self) {
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
    fn poll(&self, max: usize) -> Records {
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

#[test]
fn a_broker_is_asked_for_what_it_leads_and_then_for_what_changed() {
    let mut world = World::new(Rules { partition_bytes: 100_000, queued_bytes: 1 << 30, ..rules() });
    let first = world.send(0).unwrap();
    assert_eq!((World::asked(&first), first.session_epoch), (vec![(0, 0), (2, 0)], 0));
    assert!(world.send(0).is_none(), "one at a time");
    assert_eq!(World::asked(&world.send(1).unwrap()), [(1, 0)]);
    world.answer(0, 2);
    let second = world.send(0).unwrap();
    assert_eq!((World::asked(&second), second.session_epoch), (vec![(0, 8), (2, 8)], 1));
    world.answer(0, 0);
    assert_eq!(World::asked(&world.send(0).unwrap()), []);
}

#[test]
fn a_partition_that_has_its_fill_leaves_the_session_until_half_is_read() {
    let mut world = World::new(Rules { partition_bytes: 200, queued_bytes: 1 << 30, ..rules() });
    world.send(1).unwrap();
    world.answer(1, 8);
    assert!(world.send(1).is_none(), "nothing else to ask for");
    for offset in 0..17 {
        assert_eq!(world.take(), Some((tp("t", 1), offset)));
    }
    let mut again = None;
    for offset in 17..32 {
        again = again.or_else(|| world.send(1).map(|request| (offset, World::asked(&request))));
        assert_eq!(world.take(), Some((tp("t", 1), offset)));
    }
    let (offset, asked) = again.expect("room again before all was read");
    assert!(offset > 17 && asked == [(1, 32)], "{offset} {asked:?}");
}

#[test]
fn an_answer_that_comes_after_a_seek_is_stale() {
    let mut world = World::new(rules());
    world.send(1).unwrap();
    world.inbox.control(|assignment| assignment.seek(&tp("t", 1), Offset::At(40)).unwrap());
    world.answer(1, 1);
    assert_eq!(world.take(), None);
    assert_eq!(World::asked(&world.send(1).unwrap()), [(1, 40)]);
    world.answer(1, 1);
    assert_eq!(world.take(), Some((tp("t", 1), 40)));
}

#[test]
fn a_seek_to_the_same_offset_does_not_take_the_old_answer_twice() {
    let mut world = World::new(rules());
    world.send(1).unwrap();
    world.inbox.control(|assignment| assignment.seek(&tp("t", 1), Offset::At(0)).unwrap());
    world.answer(1, 1);
    assert_eq!(world.take(), None, "of the positioning before");
    world.send(1).unwrap();
    world.answer(1, 1);
    assert_eq!(world.take(), Some((tp("t", 1), 0)));
}

#[test]
fn a_nearer_replica_is_read_from_until_it_fails() {
    let mut world = World::new(rules());
    world.send(1).unwrap();
    world.answer_head(1, FetchPartitionResponse { preferred_read_replica: 0, ..head(1, ErrorCode::NONE) });
    assert!(world.send(1).is_none());
    assert_eq!(World::asked(&world.send(0).unwrap()), [(0, 0), (1, 0), (2, 0)]);
    // A follower that lags has no say about offsets.
    world.answer_head(0, head(1, ErrorCode::OFFSET_OUT_OF_RANGE));
    assert_eq!(World::asked(&world.send(1).unwrap()), [], "its leader's session still has it at 0");
    world.answer(1, 1);
    assert_eq!(world.take(), Some((tp("t", 1), 0)), "the position stayed");
}

#[test]
fn error_answers_say_who_leads_now() {
    let mut world = World::new(rules());
    world.send(1).unwrap();
    let head = FetchPartitionResponse { current_leader: Some((0, 5)), ..head(1, ErrorCode::NOT_LEADER_OR_FOLLOWER) };
    let hints = world.answer_head(1, head);
    assert_eq!(hints, Hints { refresh: true, leaders: vec![(tp("t", 1), 0, 5)] });
    assert!(world.send(1).is_none(), "it waits, or for the news");
    world.now += SECOND;
    assert!(world.send(1).is_some());
    world.answer(1, 1);
    assert_eq!(world.take(), Some((tp("t", 1), 0)));
}

#[test]
fn an_election_is_looked_into_before_reading_on() {
    let mut world = World::new(rules());
    world.send(1).unwrap();
    world.answer(1, 1);
    world.move_leader(1);
    let question = world.inbox.with(|assignment| assignment.questions(world.now));
    let [Question::Epochs(0, asked)] = &question[..] else { panic!("{question:?}") };
    assert_eq!((asked[0].what, asked[0].leader_epoch), ((4, 1), 2));
    let request = world.send(0).unwrap();
    assert!(!World::asked(&request).iter().any(|(partition, _)| *partition == 1), "not before it is answered");
    // The log lost offsets from 2 on: what was read ahead beyond that is dropped.
    assert_eq!(world.take(), Some((tp("t", 1), 0)));
    world.inbox.control(|assignment| assignment.epoch_answer(&asked[0], Ok((1, 2)), world.now));
    assert_eq!(world.take(), None);
    world.answer(0, 0);
    assert!(World::asked(&world.send(0).unwrap()).contains(&(1, 1)), "from what was handed out");
}

#[test]
fn a_batch_that_does_not_fit_is_asked_for_with_more_room() {
    let mut world = World::new(rules());
    let request = world.send(1).unwrap();
    let charge = world.waiting.remove(&1).unwrap();
    let cut = batch(0, 50, Sort::Plain).slice(..200);
    let walk = walk(cut, IsolationLevel::ReadUncommitted, &[]);
    world.respond(1, vec![Arrived { head: head(1, ErrorCode::NONE), walk }], charge);
    let again = world.send(1).unwrap();
    let max = |request: &FetchRequest| request.topics[0].partitions[0].max_bytes;
    assert_eq!((max(&request), max(&again)), (300, 600));
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Send(i32),
    Answer(i32, i64),
    Fail(i32),
    /// Sends the reader to the other broker (KIP-392).
    Recommend(i32),
    /// Waits until recommendations expire.
    Age,
    Take(usize),
    /// Polls so many, reads only so many of them, and pauses or seeks this partition while they are held.
    Poll(usize, usize, Option<(i32, bool)>),
    Seek(i32, i64),
    Pause(i32, bool),
    MoveLeader(i32),
    Wait,
}

fn op() -> impl Strategy<Value = Op> {
    let partition = 0..PARTITIONS;
    prop_oneof![
        4 => (0..2).prop_map(Op::Send),
        4 => (0..2, 0..4i64).prop_map(|(node, batches)| Op::Answer(node, batches)),
        1 => (0..2).prop_map(Op::Fail),
        2 => (0..2).prop_map(Op::Recommend),
        1 => Just(Op::Age),
        4 => (1..9usize).prop_map(Op::Take),
        3 => (1..20usize, 0..20usize, prop::option::of((partition.clone(), any::<bool>())))
            .prop_map(|(max, read, act)| Op::Poll(max, read, act)),
        1 => (partition.clone(), 0..60i64).prop_map(|(partition, to)| Op::Seek(partition, to)),
        2 => (partition.clone(), any::<bool>()).prop_map(|(partition, on)| Op::Pause(partition, on)),
        1 => partition.prop_map(Op::MoveLeader),
        1 => Just(Op::Wait),
    ]
}

/// What each partition is to hand out next, and whether it may.
struct Model {
    next: Vec<i64>,
    paused: Vec<bool>,
    count: Vec<usize>,
}

impl Model {
    fn handed(&mut self, partition: &TopicPartition, offset: i64) {
        let i = partition.partition as usize;
        assert_eq!(offset, self.next[i], "{partition}: in order, none skipped, none twice");
        self.next[i] += 1;
        self.count[i] += 1;
    }
}

fn run(world: &mut World, model: &mut Model, op: Op) {
    match op {
        Op::Send(node) => _ = world.send(node),
        Op::Answer(node, batches) => world.answer(node, batches),
        Op::Fail(node) => world.fail(node),
        Op::Recommend(node) => world.recommend(node),
        Op::Age => {
            world.now += 301 * SECOND;
            world.tell();
        }
        Op::Take(count) => {
            for _ in 0..count {
                let Some((partition, offset)) = world.take() else { break };
                assert!(!model.paused[partition.partition as usize], "{partition} is paused");
                model.handed(&partition, offset);
            }
        }
        Op::Poll(max, read, act) => {
            let records = world.poll(max);
            assert!(records.len() <= max);
            let mut iter = records.iter();
            for record in iter.by_ref().take(read) {
                assert!(!model.paused[record.partition() as usize], "it is paused");
                model.handed(record.topic_partition(), record.offset());
            }
            match act {
                Some((partition, true)) => run(world, model, Op::Seek(partition, 11)),
                Some((partition, false)) => run(world, model, Op::Pause(partition, true)),
                None => {}
            }
            // What is in hand may be read on while paused, but not after a seek: then the model's next has changed.
            let i = act.map(|(partition, _)| partition);
            for record in iter.take(2) {
                assert!(
                    !(act.is_some_and(|(_, seek)| seek) && i == Some(record.partition())),
                    "withheld after the seek"
                );
                model.handed(record.topic_partition(), record.offset());
            }
        }
        Op::Seek(partition, to) => {
            world.inbox.control(|assignment| assignment.seek(&tp("t", partition), Offset::At(to)).unwrap());
            model.next[partition as usize] = to;
        }
        Op::Pause(partition, on) => {
            world.inbox.control(|assignment| assignment.pause(&tp("t", partition), on).unwrap());
            model.paused[partition as usize] = on;
        }
        Op::MoveLeader(partition) => world.move_leader(partition),
        Op::Wait => world.now += SECOND,
    }
    world.answer_questions();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Whatever happens in whatever order: each partition hands out its records in order, none skipped, none twice, none
    /// while paused; and once things go well again, every partition goes on.
    #[test]
    fn every_record_is_handed_out_once_in_order(ops in prop::collection::vec(op(), 1..120)) {
        let mut world = World::new(rules());
        let all = PARTITIONS as usize;
        let mut model = Model { next: vec![0; all], paused: vec![false; all], count: vec![0; all] };
        for op in ops {
            run(&mut world, &mut model, op);
        }
        for partition in 0..PARTITIONS {
            run(&mut world, &mut model, Op::Pause(partition, false));
        }
        model.count = vec![0; all];
        for _ in 0..60 {
            run(&mut world, &mut model, Op::Wait);
            for node in 0..2 {
                run(&mut world, &mut model, Op::Send(node));
                run(&mut world, &mut model, Op::Answer(node, 1));
            }
            run(&mut world, &mut model, Op::Take(20));
        }
        prop_assert!(model.count.iter().all(|count| *count > 20), "all go on: {:?}", model.count);
        // Everything that was charged is given back, but for what still waits.
        drop(std::mem::take(&mut world.waiting));
        world.inbox.control(|assignment| assignment.end(None));
        prop_assert_eq!(world.inbox.with(|assignment| assignment.budget.used()), 0);
    }
}
