//! Tests the choice of the partition for the next turn.

use std::sync::Arc;

use proptest::prelude::*;

use super::super::{
    load::{BrokerUnavailable, PartitionLoad},
    sticky::{Candidate, Preference, Sticky, turn_is_over},
};

const ADAPTIVE: Preference = Preference { adaptive: true, available: false, local: false };

fn candidates(partitions: impl IntoIterator<Item = u32>) -> Vec<Candidate> {
    let candidate =
        |partition| Candidate { partition, local: false, load: Arc::default(), clogged: BrokerUnavailable::default() };
    partitions.into_iter().map(candidate).collect()
}

/// Returns how many of `turns` turns each partition below `partitions` has.
fn turns(sticky: &Sticky, partitions: usize, turns: u32) -> Vec<u32> {
    let mut had = vec![0; partitions];
    for _ in 0..turns {
        had[sticky.current() as usize] += 1;
        sticky.leave(sticky.current());
    }
    had
}

fn load(candidates: &[Candidate], batches: &[usize]) {
    candidates.iter().zip(batches).for_each(|(candidate, batches)| candidate.load.set_accumulated(*batches));
}

#[test]
fn leaving_sticky_partition_switches_only_once() {
    let sticky = Sticky::new(7, candidates([0, 2, 3]), ADAPTIVE);
    for _ in 0..100 {
        let before = sticky.current();
        assert!([0, 2, 3].contains(&before), "{before} has no leader");
        sticky.leave(before);
        let after = sticky.current();
        assert_ne!(before, after);
        sticky.leave(before);
        assert_eq!(sticky.current(), after, "a turn that is over cannot be ended again");
    }
}

#[test]
fn selects_partitions_evenly_when_queues_are_equal() {
    for preference in [Preference::default(), ADAPTIVE] {
        let sticky = Sticky::new(1, candidates(0..5), preference);
        let turns = turns(&sticky, 5, 5000);
        assert!(turns.iter().all(|turns| (850..1150).contains(turns)), "{turns:?}");
    }
}

#[test]
fn single_partition_is_always_selected() {
    let one = Sticky::new(1, candidates([3]), ADAPTIVE);
    one.leave(3);
    assert_eq!(one.current(), 3);
    assert!(!one.has_choice());
}

#[test]
fn switches_partition_when_byte_limit_is_reached() {
    assert!(!turn_is_over(99, 100, true));
    assert!(turn_is_over(100, 100, true));
    assert!(!turn_is_over(150, 100, false));
    assert!(turn_is_over(200, 100, false));
}

#[test]
fn selects_partitions_with_long_queues_less_often() {
    let there = candidates(0..5);
    load(&there, &[5, 0, 3, 0, 0]);
    there[4].load.set_again(1);
    let sticky = Sticky::new(3, there.clone(), ADAPTIVE);
    let had = turns(&sticky, 5, 21_000);
    let expected = [1000, 6000, 3000, 6000, 5000];
    for (partition, (had, expected)) in had.iter().zip(expected).enumerate() {
        assert!(had.abs_diff(expected) < 350, "partition {partition} had {had} turns instead of {expected}");
    }
    // With few partitions the queues are read again at every turn.
    load(&there, &[0, 9, 9, 9, 9]);
    there[4].load.set_again(0);
    let had = turns(&sticky, 5, 14_000);
    assert!(had[0].abs_diff(10_000) < 350, "{had:?}");
    let even = Sticky::new(3, there, Preference::default());
    assert!(turns(&even, 5, 5000).iter().all(|turns| (850..1150).contains(turns)), "adaptive partitioning is off");
}

#[test]
fn refreshes_weights_of_many_partitions_periodically() {
    let there = candidates(0..1600);
    let sticky = Sticky::new(3, there.clone(), ADAPTIVE);
    // All queues but one become very long, which is noticed after at most a hundred turns.
    there.iter().skip(1).for_each(|candidate| candidate.load.set_accumulated(1_000_000));
    turns(&sticky, 1600, 101);
    let had = turns(&sticky, 1600, 1000);
    assert!(had[0] > 990, "{}", had[0]);
}

#[test]
fn skips_queued_partitions_of_unavailable_broker() {
    let clogged = BrokerUnavailable::default();
    let mut there = candidates(0..3);
    there[1].clogged = clogged.clone();
    there[2].clogged = clogged.clone();
    load(&there, &[4, 1, 0]);
    let available = Preference { available: true, ..ADAPTIVE };
    let sticky = Sticky::new(3, there.clone(), available);
    let had = turns(&sticky, 3, 1000);
    assert!(had.iter().all(|turns| *turns > 0), "{had:?}");
    clogged.set(true);
    sticky.leave(sticky.current());
    let had = turns(&sticky, 3, 1000);
    assert_eq!(had[1], 0, "{had:?}");
    assert!(had[2] > had[0], "no batch waits for the partition, so it is tried: {had:?}");
    load(&there, &[1, 0, 1]);
    sticky.leave(sticky.current());
    assert_eq!(turns(&sticky, 3, 1000)[2], 0);
    // If no partition is left, all are used.
    there[0].clogged = clogged.clone();
    load(&there, &[1, 1, 1]);
    let all = turns(&Sticky::new(3, there.clone(), available), 3, 3000);
    assert!(all.iter().all(|turns| (850..1150).contains(turns)), "{all:?}");
    clogged.set(false);
    there[0].clogged = BrokerUnavailable::default();
    assert!(turns(&sticky, 3, 1000).iter().all(|turns| *turns > 200), "the broker takes data again");
}

#[test]
fn prefers_available_partitions_in_same_rack() {
    let clogged = BrokerUnavailable::default();
    let mut there = candidates(0..4);
    for near in [1, 3] {
        there[near].local = true;
        there[near].clogged = clogged.clone();
    }
    load(&there, &[0, 3, 0, 1]);
    let preference = Preference { adaptive: true, available: true, local: true };
    let sticky = Sticky::new(3, there.clone(), preference);
    let had = turns(&sticky, 4, 4000);
    assert_eq!((had[0], had[2]), (0, 0));
    // Among local partitions the queues count: one against three.
    assert!(had[1].abs_diff(1000) < 150, "{had:?}");
    // Remote partitions are better than unavailable ones.
    clogged.set(true);
    sticky.leave(sticky.current());
    let had = turns(&sticky, 4, 1000);
    assert_eq!((had[1], had[3]), (0, 0));
    // If no partition is local, all are equal.
    there.iter_mut().for_each(|candidate| candidate.local = false);
    clogged.set(false);
    load(&there, &[0; 4]);
    let had = turns(&Sticky::new(3, there, preference), 4, 4000);
    assert!(had.iter().all(|turns| (850..1150).contains(turns)), "{had:?}");
}

#[test]
fn concurrent_switches_select_existing_partition() {
    let there = candidates([4, 5, 9]);
    let sticky = Sticky::new(3, there.clone(), ADAPTIVE);
    std::thread::scope(|scope| {
        for thread in 0..4usize {
            let (sticky, there) = (&sticky, &there);
            scope.spawn(move || {
                for n in 0..2000 {
                    let current = sticky.current();
                    assert!([4, 5, 9].contains(&current), "{current}");
                    there[thread % 3].load.set_accumulated(n % 4);
                    sticky.leave(current);
                }
            });
        }
    });
}

proptest! {
    /// Equal seeds and queues give equal turns, and only candidates have any.
    #[test]
    fn same_seed_selects_same_available_partitions(
        seed: u64,
        queues in prop::collection::vec((0usize..6, any::<bool>(), any::<bool>()), 1..40),
        adaptive: bool,
        available: bool,
        local: bool,
    ) {
        let preference = Preference { adaptive, available, local };
        let there: Vec<Candidate> = (0..)
            .zip(&queues)
            .map(|(n, (batches, local, clogged))| {
                let candidate = Candidate {
                    partition: n * 3,
                    local: *local,
                    load: Arc::new(PartitionLoad::default()),
                    clogged: BrokerUnavailable::default(),
                };
                candidate.load.set_accumulated(*batches);
                candidate.clogged.set(*clogged);
                candidate
            })
            .collect();
        let (one, other) = (Sticky::new(seed, there.clone(), preference), Sticky::new(seed, there.clone(), preference));
        for _ in 0..100 {
            prop_assert_eq!(one.current(), other.current());
            let at = (one.current() / 3) as usize;
            prop_assert!(one.current() % 3 == 0 && at < there.len());
            let (batches, is_local, clogged) = queues[at];
            let open = |(batches, _, clogged): &(usize, bool, bool)| !available || *batches == 0 || !clogged;
            let any_open = queues.iter().any(open);
            prop_assert!(open(&(batches, is_local, clogged)) || !any_open);
            let any_near = queues.iter().any(|queue| queue.1 && (open(queue) || !any_open));
            prop_assert!(!local || is_local || !any_near);
            one.leave(one.current());
            other.leave(other.current());
        }
    }
}
