//! What is asked of brokers, and what becomes of their answers.

use super::{
    SECOND, tp,
    world::{World, head, rules},
};
use crate::{
    ErrorCode, IsolationLevel,
    consumer::{
        arrivals::Arrived,
        arrivals::Hints,
        assignment::Rules,
        resolve::Question,
        test_batches::{Sort, batch},
        walk::walk,
    },
    record::Offset,
    wire::fetch::{FetchPartitionResponse, FetchRequest},
};

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
    assert_eq!(World::asked(&world.send(1).unwrap()), [(1, 0)], "its leader kept no session for nothing");
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
