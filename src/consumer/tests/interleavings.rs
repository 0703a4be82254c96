//! Whatever happens in whatever order, each record is handed out once and in order.

use proptest::prelude::*;

use super::{
    SECOND, tp,
    world::{PARTITIONS, World, rules},
};
use crate::{TopicPartition, record::Offset};

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
