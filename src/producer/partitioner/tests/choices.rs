//! Tests the partition of a record with each partitioner.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use proptest::prelude::*;

use super::super::{
    BrokerUnavailable, Choice, Chooser, CustomPartitioner, Leader, PartitionChoice, PartitionLoad, Partitioner,
    Partitioning, TopicSnapshot, named,
};
use crate::{error::ErrorKind, record::Record};

pub(super) fn leader(node: i32, rack: Option<&str>) -> Leader {
    Leader { node: Some(node), rack: rack.map(Arc::from) }
}

fn chooser(partitioning: &Partitioning, leaders: Vec<Leader>) -> Chooser {
    let load = |_| Arc::new(PartitionLoad::default());
    Chooser::new(5, leaders, partitioning, None, load, |_| BrokerUnavailable::default(), None)
}

fn by(partitioner: Partitioner) -> Partitioning {
    Partitioning { partitioner, ..Partitioning::default() }
}

/// Returns the partition of a record with that key; `None` for any.
fn chosen(partitioning: &Partitioning, chooser: &Chooser, key: Option<&[u8]>) -> Option<usize> {
    let record = Record::to("t").with_value("v");
    let record = key.into_iter().fold(record, |record, key| record.with_key(key));
    match chooser.choose(&record, "t", partitioning, || {}) {
        Choice::Partition(partition) => Some(partition),
        Choice::Any => None,
        Choice::Refused(error) => panic!("{error}"),
    }
}

/// Uses the keys of librdkafka's tests/0048-partitioner.c, and the hashes that it expects of each
/// partitioner.
#[test]
fn assigns_keys_to_same_partitions_as_librdkafka() {
    let keys: [Option<&[u8]>; 5] = [
        None,
        Some(b""),
        Some(b"23456"),
        Some(b"this is another string with more length to it perhaps"),
        Some(b"hejsan"),
    ];
    let crc = [0xb1b4_51d7, 0xb015_0df7, 0xd077_037e];
    let murmur = [0x058d_780f, 0x4f77_03da, 0x5ec1_9395];
    let fnv = [0x27e6_f469, 0x155e_3e5f, 0x17b1_e27a];
    let expected = |null: Option<u32>, empty: Option<u32>, keys: [u32; 3]| {
        [null, empty].into_iter().chain(keys.map(Some)).collect::<Vec<_>>()
    };
    for (name, hashes) in [
        ("consistent", expected(Some(0), Some(0), crc)),
        ("consistent_random", expected(None, None, crc)),
        ("murmur2", expected(Some(0x106e_08d9), Some(0x106e_08d9), murmur)),
        ("murmur2_random", expected(None, Some(0x106e_08d9), murmur)),
        ("fnv1a", expected(Some(0x7ee3_623b), Some(0x7ee3_623b), fnv)),
        ("fnv1a_random", expected(None, Some(0x7ee3_623b), fnv)),
    ] {
        let partitioning = by(named(name).unwrap());
        for partitions in [1, 2, 7, 17, 1000] {
            let chooser = chooser(&partitioning, vec![leader(1, None); partitions]);
            for (key, hash) in keys.iter().zip(&hashes) {
                let partition = hash.map(|hash| hash as usize % partitions);
                assert_eq!(chosen(&partitioning, &chooser, *key), partition, "{name} {key:?} of {partitions}");
            }
        }
    }
}

#[test]
fn keyed_partition_is_independent_of_leaders() {
    let partitioning = by(Partitioner::Murmur2Random);
    let all = chooser(&partitioning, vec![leader(1, None); 3]);
    let one = chooser(&partitioning, vec![leader(1, None), Leader::default(), Leader::default()]);
    let none = chooser(&partitioning, vec![Leader::default(); 3]);
    for key in ["kafka", "a", "b", "c"] {
        let key = Some(key.as_bytes());
        let partition = chosen(&partitioning, &all, key);
        assert!(partition.is_some());
        assert_eq!(chosen(&partitioning, &one, key), partition);
        assert_eq!(chosen(&partitioning, &none, key), partition);
    }
}

#[test]
fn ignored_keys_do_not_choose_partition() {
    for partitioner in [Partitioner::Murmur2Random, Partitioner::ConsistentRandom, Partitioner::Fnv1aRandom] {
        let partitioning = Partitioning { ignore_keys: true, ..by(partitioner) };
        assert_eq!(chosen(&partitioning, &chooser(&partitioning, vec![leader(1, None); 3]), Some(b"kafka")), None);
    }
}

#[test]
fn round_robin_skips_partitions_without_leader() {
    let partitioning = by(Partitioner::RoundRobin);
    let turns = |chooser: &Chooser, n| -> Vec<_> {
        (0..n).map(|_| chosen(&partitioning, chooser, Some(b"kafka")).unwrap()).collect()
    };
    let all = chooser(&partitioning, vec![leader(1, None); 3]);
    assert_eq!(turns(&all, 5), [0, 1, 2, 0, 1]);
    // The topic changes, and the round continues.
    let leaders = vec![leader(1, None), Leader::default(), leader(2, None), leader(1, None)];
    let next =
        Chooser::new(5, leaders, &partitioning, None, |_| Arc::default(), |_| BrokerUnavailable::default(), Some(&all));
    assert_eq!(turns(&next, 4), [3, 0, 2, 3]);
    assert_eq!(
        turns(&chooser(&partitioning, vec![Leader::default(); 2]), 3),
        [0, 1, 0],
        "all partitions are used if none has a leader"
    );
}

#[test]
fn random_choice_is_even_among_available_partitions() {
    let partitioning = by(Partitioner::Random);
    let mut leaders = vec![leader(1, None); 5];
    leaders[2] = Leader::default();
    let chooser_of_all = chooser(&partitioning, leaders.clone());
    let mut counts = [0; 5];
    for _ in 0..4000 {
        counts[chosen(&partitioning, &chooser_of_all, Some(b"kafka")).unwrap()] += 1;
    }
    assert_eq!(counts[2], 0);
    assert!([0, 1, 3, 4].iter().all(|p| (850..1150).contains(&counts[*p])), "{counts:?}");
    let local = Partitioning { rack_aware: true, ..partitioning };
    leaders[4] = leader(2, Some("b"));
    let near = Chooser::new(5, leaders, &local, Some("b"), |_| Arc::default(), |_| BrokerUnavailable::default(), None);
    assert!((0..100).all(|_| chosen(&local, &near, None) == Some(4)));
}

#[test]
fn explicit_partition_overrides_every_partitioner() {
    #[derive(Debug)]
    struct Panics;
    impl CustomPartitioner for Panics {
        fn partition(&self, _: &Record<'_>, _: &TopicSnapshot<'_>) -> PartitionChoice {
            panic!("the partitioner is not called")
        }
    }
    let names = ["random", "consistent", "consistent_random", "murmur2", "murmur2_random", "fnv1a", "fnv1a_random"];
    let partitioners = names.map(|name| named(name).unwrap()).into_iter();
    for partitioner in partitioners.chain([Partitioner::RoundRobin, Partitioner::custom(Panics)]) {
        let partitioning = by(partitioner);
        let chooser = chooser(&partitioning, vec![leader(1, None); 3]);
        for partition in [2, 9] {
            let record = Record::to("t").with_key("kafka").with_partition(partition);
            let choice = chooser.choose(&record, "t", &partitioning, || panic!("no lock is released"));
            assert!(matches!(choice, Choice::Partition(p) if p == partition as usize), "{choice:?}");
        }
    }
}

#[test]
fn accepts_partitioner_names_of_librdkafka_and_java() {
    for (name, expected) in [
        ("MURMUR2", "murmur2"),
        (" fnv1a_random ", "fnv1a_random"),
        ("org.apache.kafka.clients.producer.RoundRobinPartitioner", "RoundRobinPartitioner"),
        ("RoundRobinPartitioner", "RoundRobinPartitioner"),
        ("org.apache.kafka.clients.producer.internals.DefaultPartitioner", "murmur2_random"),
        ("DefaultPartitioner", "murmur2_random"),
    ] {
        assert_eq!(format!("{:?}", named(name).unwrap()), expected);
    }
    for name in ["", "sticky", "com.example.RoundRobinPartitioner", "UniformStickyPartitioner"] {
        assert!(named(name).is_none(), "{name}");
    }
}

#[test]
fn rejects_contradictory_partitioner_settings() {
    let timeout = Duration::from_millis(7);
    let with = |change: fn(&mut Partitioning), partitioner: &str| {
        let mut partitioning = by(named(partitioner).unwrap());
        change(&mut partitioning);
        partitioning
    };
    let ignoring: fn(&mut Partitioning) = |p| p.ignore_keys = true;
    let rack: fn(&mut Partitioning) = |p| p.rack_aware = true;
    let patient: fn(&mut Partitioning) = |p| p.availability_timeout = Duration::from_millis(7);
    let mut rigid = with(patient, "murmur2_random");
    rigid.adaptive = false;
    for (partitioning, part) in [
        (with(ignoring, "consistent"), "partitioner.ignore.keys=true leaves the partitioner (consistent)"),
        (with(ignoring, "murmur2"), "(murmur2)"),
        (with(ignoring, "fnv1a"), "(fnv1a)"),
        (with(rack, "murmur2"), "partitioner.rack.aware=true has no effect with the partitioner murmur2"),
        (with(rack, "RoundRobinPartitioner"), "RoundRobinPartitioner"),
        (with(patient, "random"), "partitioner.availability.timeout.ms (7) has no effect with the partitioner random"),
        (with(patient, "fnv1a"), "fnv1a"),
        (rigid, "partitioner.availability.timeout.ms (7) needs partitioner.adaptive.partitioning.enable=true"),
    ] {
        let error = partitioning.check(Some("a")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains(part), "{error}");
    }
    for nowhere in [None, Some(""), Some(" ")] {
        let error = with(rack, "murmur2_random").check(nowhere).unwrap_err();
        assert!(error.to_string().contains("partitioner.rack.aware=true needs client.rack"), "{error}");
    }
    for partitioning in [
        by(Partitioner::default()),
        with(ignoring, "murmur2_random"),
        with(ignoring, "RoundRobinPartitioner"),
        with(rack, "random"),
        Partitioning { rack_aware: true, availability_timeout: timeout, ..Partitioning::default() },
    ] {
        partitioning.check(Some("a")).unwrap();
    }
}

proptest! {
    /// Every key has the same partition in every producer, and many keys cover all partitions.
    #[test]
    fn keys_map_stably_and_cover_all_partitions(partitions in 1usize..40, seed: u64) {
        for name in ["consistent", "murmur2_random", "fnv1a"] {
            let partitioning = by(named(name).unwrap());
            let one = chooser(&partitioning, vec![leader(1, None); partitions]);
            let other =
                Chooser::new(seed, vec![Leader::default(); partitions], &partitioning, Some("r"), |_| Arc::default(),
                    |_| BrokerUnavailable::default(), Some(&one));
            let mut seen = BTreeSet::new();
            for n in 0..partitions * 25 {
                let key = format!("{seed}-{n}");
                let partition = chosen(&partitioning, &one, Some(key.as_bytes())).unwrap();
                prop_assert!(partition < partitions);
                prop_assert_eq!(chosen(&partitioning, &other, Some(key.as_bytes())), Some(partition));
                seen.insert(partition);
            }
            prop_assert_eq!(seen.len(), partitions, "{} with {} partitions", name, partitions);
        }
    }
}
