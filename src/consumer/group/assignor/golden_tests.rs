//! Compares Ottla's assignors with Kafka's, in groups with members that join and leave at random.
//!
//! `assignors.golden` was printed by `protocol-tests/java/Assignors.java`.

use std::{collections::BTreeMap, sync::Arc};

use super::{GroupMember, GroupSubscription, PartitionRacks, RebalanceProtocol, named, withhold};
use crate::{consumer::group::classic::member_metadata, record::TopicPartition};

const GOLDEN: &str = include_str!("assignors.golden");

fn partitions(text: &str) -> Vec<TopicPartition> {
    let read = |part: &str| {
        let (topic, number) = part.split_once(':').unwrap();
        TopicPartition::new(topic, number.parse().unwrap())
    };
    if text == "-" { Vec::new() } else { text.split(',').map(read).collect() }
}

fn said(text: &str) -> Option<Arc<str>> {
    (text != "-").then(|| text.into())
}

fn member(assignor: &str, parts: &[&str]) -> GroupMember {
    let [id, instance_id, rack, topics, generation, had] = parts else { panic!("{parts:?}") };
    let (generation, had): (i32, _) = (generation.parse().unwrap(), partitions(had));
    let mut member = GroupMember {
        member_id: (*id).into(),
        instance_id: said(instance_id),
        rack: said(rack),
        topics: topics.split(',').map(Arc::from).collect(),
        ..GroupMember::default()
    };
    match assignor {
        "sticky" if generation >= 0 => {
            member.user_data = Some(member_metadata::encode_previous(&had, generation).unwrap());
            member.generation = Some(generation);
        }
        "cooperative-sticky" => {
            member.owned = had;
            member.generation = (generation >= 0).then_some(generation);
        }
        _ => {}
    }
    member
}

#[test]
fn assigns_as_java_assignors_do() {
    let mut differ = Vec::new();
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for case in GOLDEN.split("\n\n").filter(|case| !case.trim().is_empty()) {
        let (mut name, mut topics, mut members) = ("", BTreeMap::new(), Vec::new());
        let mut expected: BTreeMap<Arc<str>, Vec<TopicPartition>> = BTreeMap::new();
        for line in case.lines() {
            let parts: Vec<&str> = line.split(' ').collect();
            match parts[0] {
                "assignor" => name = parts[1],
                "topic" => {
                    let racks = |racks: &str| -> PartitionRacks {
                        racks.chars().filter(|rack| *rack != '-').map(|rack| rack.to_string().into()).collect()
                    };
                    topics.insert(parts[1].into(), parts[2].split(',').map(racks).collect());
                }
                "member" => members.push(member(name, &parts[1..])),
                "gives" => drop(expected.insert(parts[1].into(), partitions(parts[2]))),
                other => panic!("{other}"),
            }
        }
        let assignor = named(name).unwrap();
        let group = GroupSubscription::new(members, topics);
        let mut shares = assignor.assign(&group).unwrap();
        if assignor.protocol() == RebalanceProtocol::Cooperative {
            withhold(&group, &mut shares);
        }
        shares.values_mut().for_each(|share| share.sort_unstable());
        for id in expected.keys() {
            shares.entry(id.clone()).or_default();
        }
        *seen.entry(name).or_default() += 1;
        if shares != expected {
            differ.push(format!("{case}\nbut here: {shares:?}"));
        }
    }
    assert!(differ.is_empty(), "{} of {seen:?} differ, the first:\n{}", differ.len(), differ[0]);
    assert!(seen.len() == 4 && seen.values().all(|cases| *cases >= 80), "{seen:?}");
}
