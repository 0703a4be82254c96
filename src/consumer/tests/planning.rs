//! Tests of the fetches that are planned, and of the handling of their responses.

use std::{sync::Arc, task::Waker};

use bytes::Bytes;
use rand::{SeedableRng, rngs::StdRng};

use super::{
    SECOND, tp,
    world::{World, head, rules},
};
use crate::{
    Compression, ErrorCode,
    consumer::{
        IsolationLevel,
        buffer::{
            fetch_buffer::FetchWakers,
            fetched_batch::{DecodeConfig, HEAVY},
            partition_buffer::Decompression,
        },
        fetch::{
            batch_scan::scan_batches,
            connection_id::FetchConnectionId,
            fetch_size::Bottleneck,
            plan::FetchPlan,
            scanned::{MetadataHints, ScannedPartition},
        },
        state::ConsumerState,
        subscription::{fetch_position::FetchState, offset_query::OffsetRequest, rules::ConsumerRules},
        test_batches::{Sort, batch, batch_of, built, noise},
    },
    record::Offset,
    wire::{
        batch::Decompressor,
        fetch::{FetchPartitionResponse, FetchRequest},
    },
};

#[test]
fn first_request_has_everything_later_only_changes() {
    let mut world = World::new(ConsumerRules { partition_bytes: 100_000, queued_bytes: 1 << 30, ..rules() });
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
fn full_partition_leaves_session_until_half_read() {
    let mut world = World::new(ConsumerRules { partition_bytes: 200, queued_bytes: 1 << 30, ..rules() });
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
fn drops_response_that_precedes_seek() {
    let mut world = World::new(rules());
    world.send(1).unwrap();
    world.buffer.with_state_and_readers(|state| state.seek(&tp("t", 1), Offset::At(40)).unwrap());
    world.answer(1, 1);
    assert_eq!(world.take(), None);
    assert_eq!(World::asked(&world.send(1).unwrap()), [(1, 40)]);
    world.answer(1, 1);
    assert_eq!(world.take(), Some((tp("t", 1), 40)));
}

#[test]
fn seek_to_same_offset_drops_older_response() {
    let mut world = World::new(rules());
    world.send(1).unwrap();
    world.buffer.with_state_and_readers(|state| state.seek(&tp("t", 1), Offset::At(0)).unwrap());
    world.answer(1, 1);
    assert_eq!(world.take(), None, "of the positioning before");
    world.send(1).unwrap();
    world.answer(1, 1);
    assert_eq!(world.take(), Some((tp("t", 1), 0)));
}

#[test]
fn reads_preferred_replica_until_it_fails() {
    let mut world = World::new(rules());
    world.send(1).unwrap();
    world.answer_head(1, FetchPartitionResponse { preferred_read_replica: 0, ..head(1, ErrorCode::NONE) });
    assert!(world.send(1).is_none());
    assert_eq!(World::asked(&world.send(0).unwrap()), [(0, 0), (1, 0), (2, 0)]);
    // Offset errors of a lagging follower are ignored.
    world.answer_head(0, head(1, ErrorCode::OFFSET_OUT_OF_RANGE));
    assert_eq!(World::asked(&world.send(1).unwrap()), [(1, 0)], "its leader kept no session for nothing");
    world.answer(1, 1);
    assert_eq!(world.take(), Some((tp("t", 1), 0)), "the position stayed");
}

#[test]
fn error_response_returns_leader_hint_and_refreshes() {
    let mut world = World::new(rules());
    world.send(1).unwrap();
    let head = FetchPartitionResponse { current_leader: Some((0, 5)), ..head(1, ErrorCode::NOT_LEADER_OR_FOLLOWER) };
    let hints = world.answer_head(1, head);
    assert_eq!(hints, MetadataHints { refresh: true, leaders: vec![(tp("t", 1), 0, 5)] });
    assert!(world.send(1).is_none(), "it waits for its time, or for new metadata");
    world.now += SECOND;
    assert!(world.send(1).is_some());
    world.answer(1, 1);
    assert_eq!(world.take(), Some((tp("t", 1), 0)));
}

#[test]
fn validates_position_before_reading_from_new_leader() {
    let mut world = World::new(rules());
    world.send(1).unwrap();
    world.answer(1, 1);
    world.move_leader(1);
    let question = world.buffer.with_state(|state| state.due_offset_requests(world.now));
    let [OffsetRequest::Epochs(0, asked)] = &question[..] else { panic!("{question:?}") };
    assert_eq!((asked[0].query, asked[0].leader_epoch), ((4, 1), 2));
    let request = world.send(0).unwrap();
    assert!(!World::asked(&request).iter().any(|(partition, _)| *partition == 1), "not before it is answered");
    // The log lost offsets from 2 on: buffered records beyond that are dropped.
    assert_eq!(world.take(), Some((tp("t", 1), 0)));
    world.buffer.with_state_and_readers(|state| state.handle_epoch_end(&asked[0], Ok((1, 2)), world.now));
    assert_eq!(world.take(), None);
    world.answer(0, 0);
    assert!(World::asked(&world.send(0).unwrap()).contains(&(1, 1)), "from what was handed out");
}

#[test]
fn truncated_batch_is_requested_with_more_bytes() {
    let mut world = World::new(rules());
    let request = world.send(1).unwrap();
    let reservation = world.waiting.remove(&1).unwrap();
    let cut = batch(0, 50, Sort::Plain).slice(..200);
    let walk = scan_batches(cut, IsolationLevel::ReadUncommitted, &[]);
    world.respond(1, vec![ScannedPartition { head: head(1, ErrorCode::NONE), scan: walk }], reservation);
    let again = world.send(1).unwrap();
    let max = |request: &FetchRequest| request.topics[0].partitions[0].max_bytes;
    assert_eq!((max(&request), max(&again)), (300, 600));
}

fn arrived(partition: i32, batches: &[Bytes]) -> ScannedPartition {
    let walk = scan_batches(batches.concat().into(), IsolationLevel::ReadUncommitted, &[]);
    ScannedPartition { head: head(partition, ErrorCode::NONE), scan: walk }
}

/// Returns the maximum bytes of each partition in a request that begins or continues a session.
fn sizes(request: &FetchRequest) -> Vec<(i32, i32)> {
    let partitions = request.topics.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|asked| (asked.partition, asked.max_bytes)).collect()
}

/// Answers broker 0's fetch with these batches of these partitions.
fn answer(world: &mut World, slices: &[(i32, &[Bytes])]) {
    let mut reservation = world.waiting.remove(&0).expect("a request");
    reservation.resize(slices.iter().flat_map(|(_, batches)| *batches).map(Bytes::len).sum());
    world.respond(0, slices.iter().map(|(partition, batches)| arrived(*partition, batches)).collect(), reservation);
}

#[test]
fn large_batch_raises_only_its_partition_limit() {
    let mut world = World::new(ConsumerRules { queued_bytes: 1 << 20, ..rules() });
    assert_eq!(sizes(&world.send(0).unwrap()), [(0, 300), (2, 300)]);
    let large = batch_of(0, 1, 2000);
    answer(&mut world, &[(0, std::slice::from_ref(&large)), (2, &[batch(0, 1, Sort::Plain)])]);
    while world.take().is_some() {}
    let asked = sizes(&world.send(0).unwrap());
    let [(0, more), (2, 300)] = asked[..] else { panic!("the other one is asked for as ever: {asked:?}") };
    assert!(more as usize > large.len(), "the next one may be as large, and need not come first: {more}");
    answer(&mut world, &[(0, &[batch(1, 1, Sort::Plain)])]);
    while world.take().is_some() {}
    assert_eq!(sizes(&world.send(0).unwrap()), [(0, 300)], "it was the only one");
}

/// Decompresses a batch like the job threads, and reports the result.
fn open(state: &mut ConsumerState, job: Decompression) {
    let Decompression { batch, expected } = job;
    let config = DecodeConfig { check_crcs: true, limit: 1 << 20, origin: crate::log::Origin::default() };
    let batch = batch.decode(&mut Decompressor::default(), &config);
    drop(expected);
    state.handle_decompressed(batch);
}

#[test]
fn finished_decompression_wakes_fetch_for_starved_reader() {
    let mut world = World::new(rules());
    let now = world.now;
    world.leaders = vec![(0, 1); 3];
    let heavy = |at| built(at, 1, Sort::Plain, Compression::Lz4, &(noise(40_000) + &"0".repeat(120_000)));
    let size = heavy(0).len();
    assert!(size > HEAVY && size < 50_000);
    let rules = ConsumerRules { queued_bytes: 16 * size, max_decompressions: 2, ..rules() };
    let mut state = ConsumerState::new(rules, StdRng::seed_from_u64(1), Arc::new(FetchWakers::default()).factory());
    let metadata = world.metadata();
    for partition in 0..2 {
        state.assign(tp("t", partition), FetchState::at(Offset::At(0)), &metadata, now);
    }
    let FetchPlan::Fetch { mut reserved, .. } = state.plan_fetch(0, now) else { panic!("a fetch") };
    reserved.resize(3 * size);
    let came = vec![arrived(0, &[heavy(0), heavy(1)]), arrived(1, &[heavy(0)])];
    state.handle_fetch_response(0, 7, ErrorCode::NONE, came, reserved, now);
    let mut jobs = state.take_wakeups().decompressions;
    let (slow, first) = (jobs.pop().unwrap(), jobs.pop().unwrap());
    assert_eq!((first.batch.progress.partition(), slow.batch.progress.partition()), (&tp("t", 0), &tp("t", 1)));
    open(&mut state, first);
    let second = state.take_wakeups().decompressions.pop().expect("the next of the same partition");
    open(&mut state, second);
    // The decompressed batches fill the broker's quota and are paused; for the one that is still
    // being decompressed there was a seek.
    state.pause(&tp("t", 0), true).unwrap();
    state.seek(&tp("t", 1), Offset::At(5)).unwrap();
    state.register_waker(Waker::noop());
    state.take_wakeups();
    assert!(matches!(state.plan_fetch(0, now), FetchPlan::Wait(None)));
    open(&mut state, slow);
    assert!(state.take_wakeups().connections.contains(&0.into()), "nothing else would ever wake its task");
    assert!(
        matches!(state.plan_fetch(0, now), FetchPlan::Fetch { .. }),
        "beyond the share, since the reader has nothing"
    );
}

#[test]
fn first_connection_to_removed_broker_ends_last() {
    let mut world = World::new(rules());
    let second = FetchConnectionId { broker: 0, connection: 1 };
    world.buffer.with_state(|state| {
        for partition in [0, 2] {
            state.connections.move_to(&tp("t", partition), second, &mut state.partitions);
        }
    });
    let now = world.now;
    let plan = |world: &World, from: FetchConnectionId| {
        world.buffer.with_state(|state| match state.plan_fetch(from, now) {
            FetchPlan::Fetch { .. } => "fetch",
            FetchPlan::Wait(_) => "wait",
            FetchPlan::End => "end",
        })
    };
    // The metadata is from before the broker existed; its partitions are there all the same.
    world.buffer.with_state(|state| {
        state.health.metadata_arrived();
        state.connections.forget_broker(0);
    });
    assert_eq!((plan(&world, 0.into()), plan(&world, second)), ("wait", "fetch"));
    world.drop_broker(0);
    world.leaders = vec![(1, 2); 3];
    world.tell();
    assert_eq!(plan(&world, 0.into()), "wait", "the second is still there");
    assert_eq!(plan(&world, second), "end");
    assert_eq!(plan(&world, 0.into()), "end");
}

/// Adds a second connection to a broker, with one of its two partitions.
fn with_a_second_connection(rules: ConsumerRules) -> (World, FetchConnectionId) {
    let world = World::new(ConsumerRules { connections: 2, ..rules });
    let second = FetchConnectionId { broker: 0, connection: 1 };
    world.buffer.with_state(|state| {
        state.connections.scaling.get_mut(&0).unwrap().add();
        state.connections.move_to(&tp("t", 2), second, &mut state.partitions);
    });
    (world, second)
}

#[test]
fn granted_connection_wakes_previously_refused_one() {
    let (world, second) =
        with_a_second_connection(ConsumerRules { queued_bytes: 1 << 20, max_bytes: 1 << 17, ..rules() });
    let now = world.now;
    world.buffer.with_state(|state| {
        let quota = state.connections.get(&second).unwrap().quota.clone();
        // Its batches are larger than the free memory.
        state.connections.get_mut(&0.into()).unwrap().largest_batch = 100_000;
        let taken = quota.charge(quota.limit() - quota.limit() / 16 - 50_000);
        assert!(matches!(state.plan_fetch(0, now), FetchPlan::Wait(None)) && quota.is_starved());
        state.take_wakeups();
        assert!(matches!(state.plan_fetch(second, now), FetchPlan::Fetch { .. }));
        assert!(!quota.is_starved(), "without that mark nothing else would wake the first");
        assert!(state.take_wakeups().connections.contains(&0.into()));
        drop(taken);
    });
}

#[test]
fn second_connection_needs_two_active_partitions() {
    let world = World::new(ConsumerRules { connections: 2, ..rules() });
    let (now, answers) = (world.now, 5);
    world.buffer.with_state(|state| {
        let full = |state: &mut ConsumerState, count: usize| {
            for _ in 0..count {
                let ConsumerState { connections, partitions, .. } = &mut *state;
                connections.record_bottleneck(0.into(), Bottleneck::Connection, partitions, now);
            }
            state.connections.scaling[&0].open()
        };
        state.partitions.get_mut(&tp("t", 0)).unwrap().last_data_at = Some(now);
        assert_eq!(full(state, answers), 1);
        state.partitions.get_mut(&tp("t", 2)).unwrap().last_data_at = Some(now);
        assert_eq!(full(state, answers - 1), 1, "counted from the beginning");
        assert_eq!(full(state, 1), 2);
    });
}

#[test]
fn waiting_partition_stream_wakes_starved_fetch() {
    let world = World::new(rules());
    let (now, (own, _reader)) = (world.now, world.buffer.split(&tp("t", 0), false).unwrap());
    world.buffer.with_state(|state| {
        let quota = state.connections.get(&0.into()).unwrap().quota.clone();
        // There is room for a partition's fetch size, but not for a batch as large as the last
        // ones.
        state.connections.get_mut(&0.into()).unwrap().largest_batch = 800;
        let _taken = quota.charge(quota.limit() - quota.limit() / 16 - 400);
        assert!(matches!(state.plan_fetch(0, now), FetchPlan::Wait(_)) && quota.is_starved());
        assert!(quota.has_room_to_fetch(300));
        state.take_wakeups();
        state.register_waker_for(Some(&own), Waker::noop());
        assert!(state.take_wakeups().connections.contains(&0.into()));
    });
}

#[test]
fn commit_of_deleted_topic_needs_topic_id() {
    let world = World::new(rules());
    world.buffer.with_state(|state| {
        let all = |state: &ConsumerState| state.delivered_offsets(None).len();
        let before = all(state);
        state.partitions.get_mut(&tp("t", 0)).unwrap().topic_missing = true;
        assert_eq!(all(state), before - 1, "it would be taken for an offset of its successor");
        state.partitions.get_mut(&tp("t", 0)).unwrap().topic_id = uuid::Uuid::from_u128(1);
        assert_eq!((all(state), state.completed_offsets(None).len()), (before, before - 1));
    });
}
