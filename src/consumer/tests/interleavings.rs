//! Tests that in any order of events each record is delivered once and in order, and that after a
//! truncation records are delivered again from the diverging offset.

use std::collections::BTreeSet;

use proptest::prelude::*;
use uuid::Uuid;

use super::{
    SECOND,
    logs::Form,
    tp,
    world::{PARTITIONS, World, rules},
};
use crate::{TopicPartition, consumer::subscription::rules::ConsumerRules, record::Offset};

#[derive(Clone, Copy, Debug)]
enum Op {
    Send(i32),
    Answer(i32, i64),
    Fail(i32),
    /// Names the other broker as the preferred read replica (KIP-392).
    Recommend(i32),
    /// Waits until preferred read replicas expire.
    Age,
    Take(usize),
    /// Polls that number of records, reads only that number of them, and pauses or seeks this
    /// partition while they are held.
    Poll(usize, usize, Option<(i32, bool)>),
    Seek(i32, i64),
    Pause(i32, bool),
    MoveLeader(i32),
    /// Splits a partition off, or joins its stream again.
    Split(i32, bool),
    /// Reads from a partition's stream.
    TakeOf(i32, usize),
    /// Elects another broker, which may have lost that number of batches that were read, or none.
    /// The consumer is not informed.
    Elect(i32, Option<(i32, Option<i64>)>),
    /// Delivers new metadata.
    Tell,
    /// Deletes the topic and creates it again.
    MakeAnew,
    /// Delivers that number of responses to offset requests.
    Deliver(usize),
    /// Exhausts a broker's memory quota before a fetch: data that is not being read is evicted.
    Squeeze(i32),
    Wait,
}

fn op() -> impl Strategy<Value = Op> {
    let partition = 0..PARTITIONS;
    let lost = prop::option::of(0..4i64);
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
        1 => partition.clone().prop_map(Op::MoveLeader),
        1 => (partition.clone(), any::<bool>()).prop_map(|(partition, on)| Op::Split(partition, on)),
        2 => (partition.clone(), 1..9usize).prop_map(|(partition, count)| Op::TakeOf(partition, count)),
        2 => (partition, prop::option::weighted(0.8, (0..2, lost))).prop_map(|(partition, to)| Op::Elect(partition, to)),
        2 => Just(Op::Tell),
        1 => prop::bool::weighted(0.2).prop_map(|anew| if anew { Op::MakeAnew } else { Op::Tell }),
        4 => (1..4usize).prop_map(Op::Deliver),
        2 => (0..2).prop_map(Op::Squeeze),
        2 => Just(Op::Wait),
    ]
}

/// The records that one partition has to deliver.
#[derive(Clone, Debug, Default)]
struct Expected {
    next: i64,
    /// The offset where reading began; from there on, everything was delivered.
    begun: i64,
    paused: bool,
    /// Number of delivered records.
    count: usize,
    /// Offsets at which the log was cut since, unless a record of the present log behind them was
    /// delivered.
    cuts: BTreeSet<i64>,
    /// The first offset of the delivered records that are no longer in the log.
    stale: Option<i64>,
}

struct Model {
    partitions: Vec<Expected>,
    forms: Vec<Form>,
}

impl Model {
    fn of(&mut self, partition: &TopicPartition) -> &mut Expected {
        &mut self.partitions[partition.partition as usize]
    }

    fn handed(&mut self, world: &World, partition: &TopicPartition, offset: i64, epoch: Option<i32>) {
        let now = world.logs[partition.partition as usize].epoch_at(offset);
        let expected = self.of(partition);
        // From the offset of a cut, if more than that was read or fetched; otherwise in order, none
        // skipped, none twice.
        let again = offset < expected.next && expected.cuts.contains(&offset);
        if epoch == Some(now) {
            let on = match expected.stale {
                Some(stale) => again && offset <= stale,
                None => again || offset == expected.next,
            };
            assert!(on, "{partition}: offset {offset} of epoch {now} after {expected:?}");
            expected.stale = None;
            expected.cuts = expected.cuts.split_off(&(offset + 1));
        } else {
            // The record was read before it was lost.
            let lost = expected.cuts.first().is_some_and(|first| *first <= offset);
            let on = again || offset == expected.next;
            assert!(lost && on, "{partition}: offset {offset} of {epoch:?}, not {now}, after {expected:?}");
            expected.stale = Some(expected.stale.map_or(offset, |stale| stale.min(offset)));
        }
        expected.next = offset + 1;
        expected.count += 1;
    }

    fn sought(&mut self, partition: i32, to: i64) {
        let expected = &mut self.partitions[partition as usize];
        (expected.next, expected.begun, expected.stale) = (to, to, None);
    }

    fn cut(&mut self, partition: i32, at: i64) {
        let expected = &mut self.partitions[partition as usize];
        expected.cuts.insert(at);
        if at < expected.next && expected.begun < expected.next {
            let first = at.max(expected.begun);
            expected.stale = Some(expected.stale.map_or(first, |stale| stale.min(first)));
        }
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
        Op::Take(count) => take(world, model, None, count),
        Op::TakeOf(partition, count) => take(world, model, Some(partition), count),
        Op::Split(partition, on) => world.split(partition, on),
        Op::Poll(max, read, act) => {
            let records = world.poll(max);
            assert!(records.len() <= max);
            let mut iter = records.iter();
            for record in iter.by_ref().take(read) {
                assert!(!model.of(record.topic_partition()).paused, "it is paused");
                model.handed(world, record.topic_partition(), record.offset(), record.leader_epoch());
            }
            match act {
                Some((partition, true)) => run(world, model, Op::Seek(partition, 11)),
                Some((partition, false)) => run(world, model, Op::Pause(partition, true)),
                None => {}
            }
            // Records that the caller holds may be read while the partition is paused, but not
            // after a seek: then the model's next offset has changed.
            let i = act.map(|(partition, _)| partition);
            for record in iter.take(2) {
                assert!(
                    !(act.is_some_and(|(_, seek)| seek) && i == Some(record.partition())),
                    "withheld after the seek"
                );
                model.handed(world, record.topic_partition(), record.offset(), record.leader_epoch());
            }
        }
        Op::Seek(partition, to) => {
            world.buffer.with_state_and_readers(|state| state.seek(&tp("t", partition), Offset::At(to)).unwrap());
            model.sought(partition, to);
        }
        Op::Pause(partition, on) => {
            world.buffer.with_state_and_readers(|state| state.pause(&tp("t", partition), on).unwrap());
            model.partitions[partition as usize].paused = on;
        }
        Op::MoveLeader(partition) => world.move_leader(partition),
        Op::Elect(partition, None) => world.elect(partition, None),
        Op::Elect(partition, Some((broker, None))) => world.elect(partition, Some(broker)),
        Op::Elect(partition, Some((broker, Some(batches)))) => {
            let at = world.logs[partition as usize].before_end(batches);
            world.cut(partition, broker, at);
            model.cut(partition, at);
        }
        Op::Tell => world.tell(),
        Op::MakeAnew => {
            // Without ids the consumer cannot detect it.
            if !world.topic_id.is_nil() {
                world.make_anew(&model.forms);
                for expected in &mut model.partitions {
                    *expected = Expected { paused: expected.paused, count: expected.count, ..Expected::default() };
                }
            }
        }
        Op::Deliver(count) => (0..count).for_each(|_| _ = world.deliver()),
        Op::Squeeze(node) => {
            let quota = |world: &World| {
                world.buffer.with_state(|state| state.connections.get(&node.into()).map(|node| node.quota.clone()))
            };
            let full = quota(world).map(|quota| quota.charge(quota.limit()));
            world.now += 2 * SECOND;
            world.send(node);
            drop(full);
        }
        Op::Wait => world.now += SECOND,
    }
    world.ask();
    world.settle();
}

fn take(world: &World, model: &mut Model, of: Option<i32>, count: usize) {
    for _ in 0..count {
        world.settle();
        let Some(record) = world.take_record(of) else { break };
        let partition = record.topic_partition();
        assert!(!model.of(&partition).paused, "{partition} is paused");
        model.handed(world, &partition, record.offset, record.leader_epoch);
    }
}

/// Runs all operations, and then ends all faults: every partition continues, and all reserved
/// memory is returned.
fn hold(mut world: World, forms: Vec<Form>, ops: Vec<Op>) {
    world.logs = forms.iter().map(|form| super::logs::Log::new(*form, 1)).collect();
    let mut model = Model { partitions: vec![Expected::default(); PARTITIONS as usize], forms };
    for op in ops {
        run(&mut world, &mut model, op);
    }
    for partition in 0..PARTITIONS {
        run(&mut world, &mut model, Op::Pause(partition, false));
        run(&mut world, &mut model, Op::MoveLeader(partition));
    }
    model.partitions.iter_mut().for_each(|expected| expected.count = 0);
    for _ in 0..80 {
        run(&mut world, &mut model, Op::Wait);
        world.answer_questions();
        for node in 0..2 {
            run(&mut world, &mut model, Op::Send(node));
            run(&mut world, &mut model, Op::Answer(node, 1));
        }
        run(&mut world, &mut model, Op::Take(20));
        for partition in 0..PARTITIONS {
            run(&mut world, &mut model, Op::TakeOf(partition, 20));
        }
    }
    let well = |expected: &Expected| expected.count > 20 && expected.stale.is_none();
    assert!(model.partitions.iter().all(well), "all go on: {:?}", model.partitions);
    // All reserved memory is returned, except that of waiting fetches.
    drop(std::mem::take(&mut world.waiting));
    world.settle();
    world.buffer.with_state_and_readers(|state| state.end(None));
    world.splits.clear();
    assert_eq!(world.buffer.with_state(|state| state.connections.budget().used()), 0);
}

/// Creates a world; with `ids` 0, brokers know the topic by name only, with 1 by an id that Fetch
/// does not use, with 2 by its id.
fn world(rules: ConsumerRules, ids: u8) -> World {
    let mut world = World::new(rules);
    if ids > 0 {
        world.topic_id = Uuid::from_u128(1);
        world.by_name = ids == 1;
        world.tell();
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Each partition delivers its records in order, none skipped, none twice, none while paused,
    /// and after a truncation reads again from the diverging offset; once all faults end, every
    /// partition continues.
    #[test]
    fn every_record_is_delivered_once_in_order(ids in 0..3u8, ops in prop::collection::vec(op(), 1..120)) {
        hold(world(rules(), ids), vec![Form::Plain, Form::Small, Form::Plain], ops);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// Like `every_record_is_delivered_once_in_order`, but with batches that are decompressed in
    /// advance on other threads, and evicted if other readers need their memory.
    #[test]
    fn every_large_batch_record_is_delivered_once(ids in 0..3u8, ops in prop::collection::vec(op(), 1..80)) {
        let rules = ConsumerRules { partition_bytes: 60_000, queued_bytes: 600_000, max_decompressions: 2, ..rules() };
        hold(world(rules, ids), vec![Form::Heavy, Form::Heavy, Form::Plain], ops);
    }
}
