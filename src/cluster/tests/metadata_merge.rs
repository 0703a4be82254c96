use std::sync::Arc;

use uuid::Uuid;

use super::peer::{brokers, topic};
use crate::{
    cluster::{Metadata, metadata_merge::MetadataScope},
    error::ErrorCode,
    wire::{
        byte_string::ByteString,
        fetch::NodeEndpoint,
        messages::{MetadataResponse, metadata_response::MetadataResponseTopic},
    },
};

fn asked(names: &[&str]) -> MetadataScope {
    MetadataScope::Topics(names.iter().map(|name| Arc::from(*name)).collect())
}

fn response(topics: Vec<MetadataResponseTopic>) -> MetadataResponse {
    MetadataResponse { topics, ..brokers(&[1, 2, 3]) }
}

fn id(id: u128) -> Uuid {
    Uuid::from_u128(id)
}

fn all(_: &str) -> bool {
    true
}

fn metadata_with(topics: Vec<MetadataResponseTopic>) -> Metadata {
    Metadata::default().merged(response(topics), &MetadataScope::All, all)
}

fn unknown(name: &str) -> MetadataResponseTopic {
    MetadataResponseTopic { error_code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.code(), ..topic(name, &[]) }
}

#[test]
fn leader_epoch_never_decreases_per_topic_id() {
    let old = metadata_with(vec![MetadataResponseTopic { topic_id: id(1), ..topic("t", &[(1, 5), (2, 7)]) }]);
    assert_eq!(old.leader("t", 0), Some((1, 5)));
    assert_eq!(&*old.names[&id(1)], "t");
    let next = old.merged(
        response(vec![MetadataResponseTopic { topic_id: id(1), ..topic("t", &[(3, 4), (3, 8)]) }]),
        &asked(&["t"]),
        all,
    );
    assert_eq!(next.leader("t", 0), Some((1, 5)), "a broker that lags behind");
    assert_eq!(next.leader("t", 1), Some((3, 8)));
    assert_eq!(next.version, old.version + 1);
    let recreated = next.merged(
        response(vec![MetadataResponseTopic { topic_id: id(2), ..topic("t", &[(2, 0)]) }]),
        &asked(&["t"]),
        all,
    );
    assert_eq!(recreated.leader("t", 0), Some((2, 0)), "a recreated topic replaces the old one");
    assert_eq!(recreated.partition("t", 1), None);
    assert!(!recreated.names.contains_key(&id(1)));
}

#[test]
fn accepts_brokers_without_epochs_or_ids() {
    let old = metadata_with(vec![topic("t", &[(1, -1), (2, -1)])]);
    let next = old.merged(response(vec![topic("t", &[(3, -1), (3, -1)])]), &asked(&["t"]), all);
    assert_eq!(next.leader("t", 0), Some((3, -1)));
    let fewer = next.merged(response(vec![topic("t", &[(1, -1)])]), &asked(&["t"]), all);
    assert_eq!(fewer.topic("t").unwrap().partitions.len(), 1, "without an id it may be another topic");
}

#[test]
fn leaderless_partition_keeps_its_epoch() {
    let old = metadata_with(vec![MetadataResponseTopic { topic_id: id(1), ..topic("t", &[(1, 5)]) }]);
    let mut leaderless = MetadataResponseTopic { topic_id: id(1), ..topic("t", &[(-1, -1)]) };
    leaderless.partitions[0].error_code = ErrorCode::LEADER_NOT_AVAILABLE.code();
    let next = old.merged(response(vec![leaderless]), &asked(&["t"]), all);
    let partition = next.partition("t", 0).unwrap();
    assert_eq!((partition.leader, partition.leader_epoch), (None, 5));
    assert_eq!(partition.error, ErrorCode::LEADER_NOT_AVAILABLE);
    assert!(!next.topic("t").unwrap().is_settled());
    let stale = next.merged(
        response(vec![MetadataResponseTopic { topic_id: id(1), ..topic("t", &[(1, 4)]) }]),
        &asked(&["t"]),
        all,
    );
    assert_eq!(stale.leader("t", 0), None);
    let elected = next.merged(
        response(vec![MetadataResponseTopic { topic_id: id(1), ..topic("t", &[(2, 6)]) }]),
        &asked(&["t"]),
        all,
    );
    assert_eq!(elected.leader("t", 0), Some((2, 6)));
    assert!(elected.topic("t").unwrap().is_settled());
}

#[test]
fn partial_response_keeps_recently_added_partitions() {
    let old = metadata_with(vec![MetadataResponseTopic { topic_id: id(1), ..topic("t", &[(1, 0), (2, 0), (3, 0)]) }]);
    let next = old.merged(
        response(vec![MetadataResponseTopic { topic_id: id(1), ..topic("t", &[(1, 0)]) }]),
        &asked(&["t"]),
        all,
    );
    assert_eq!(next.leader("t", 2), Some((3, 0)));
    assert!(Arc::ptr_eq(old.topic("t").unwrap(), next.topic("t").unwrap()), "nothing changed");
    assert!(!next.differs_from(&old));
}

#[test]
fn returning_topic_keeps_its_leader_epochs() {
    let old = metadata_with(vec![MetadataResponseTopic { topic_id: id(1), ..topic("t", &[(1, 5)]) }]);
    for gone in [vec![unknown("t")], vec![]] {
        let gone = old.merged(response(gone), &asked(&["t"]), all);
        assert_eq!(gone.topic("t").unwrap().error, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        assert_eq!(gone.leader("t", 0), None);
        assert_eq!(gone.history.refused["t"], gone.version);
        let still = gone.merged(response(vec![unknown("t")]), &asked(&["t"]), all);
        let back = still.merged(
            response(vec![MetadataResponseTopic { topic_id: id(1), ..topic("t", &[(2, 4)]) }]),
            &asked(&["t"]),
            all,
        );
        assert_eq!(back.leader("t", 0), Some((1, 5)));
        assert!(back.history.refused.is_empty() && back.history.before.is_empty());
    }
}

#[test]
fn unrequested_topics_stay_while_wanted() {
    let old = metadata_with(vec![topic("a", &[(1, 0)]), topic("b", &[(1, 0)]), topic("c", &[(1, 0)])]);
    let next = old.merged(response(vec![topic("a", &[(2, 1)])]), &asked(&["a"]), |name| name != "c");
    assert_eq!(next.leader("a", 0), Some((2, 1)));
    assert_eq!(next.leader("b", 0), Some((1, 0)));
    assert!(next.topic("c").is_none());
    let all_topics = next.merged(response(vec![topic("a", &[(2, 1)])]), &MetadataScope::All, all);
    assert_eq!(all_topics.topic("b").unwrap().error, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
}

#[test]
fn other_cluster_discards_previous_metadata() {
    let named = |id| Some(ByteString::from_static(id));
    let old =
        MetadataResponse { cluster_id: named("one"), ..response(vec![topic("t", &[(1, 50)]), topic("u", &[(1, 50)])]) };
    let old = Metadata::default().merged(old, &MetadataScope::All, all);
    let new = MetadataResponse { cluster_id: named("two"), ..response(vec![topic("t", &[(2, 0)])]) };
    let next = old.merged(new, &asked(&["t"]), all);
    assert_eq!(next.leader("t", 0), Some((2, 0)));
    assert!(next.topic("u").is_none());
    assert_eq!(next.cluster_id.as_deref(), Some("two"));
}

#[test]
fn invalid_numbers_neither_allocate_nor_panic() {
    let mut wild = topic("t", &[(1, 0), (2, 0), (3, 0)]);
    wild.partitions[0].partition_index = i32::MAX;
    wild.partitions[1].partition_index = -1;
    wild.partitions[2].partition_index = 1;
    let mut said = response(vec![wild, topic("", &[(1, 0)])]);
    said.topics.push(MetadataResponseTopic { name: None, ..Default::default() });
    said.brokers[0].port = 70_000;
    said.brokers[1].node_id = -7;
    let next = Metadata::default().merged(MetadataResponse { controller_id: -1, ..said }, &MetadataScope::All, all);
    assert_eq!(next.topics.len(), 1);
    assert_eq!(next.topic("t").unwrap().partitions.len(), 3);
    assert_eq!(next.leader("t", 1), Some((3, 0)));
    assert_eq!(next.leader("t", 0), None);
    assert_eq!(next.brokers.keys().collect::<Vec<_>>(), [&3]);
    assert_eq!(next.controller, None);
}

#[test]
fn accepts_named_leader_only_with_newer_epoch() {
    let old = metadata_with(vec![MetadataResponseTopic { topic_id: id(1), ..topic("t", &[(1, 5)]) }]);
    let endpoint = |node| NodeEndpoint { node, host: "h".to_owned(), port: 9, rack: None };
    assert!(old.with_leader("t", 0, 2, 5, &[]).is_none(), "no newer epoch");
    assert!(old.with_leader("t", 0, 9, 6, &[]).is_none(), "the address of broker 9 is unknown");
    assert!(old.with_leader("t", 1, 2, 6, &[]).is_none());
    assert!(old.with_leader("t", 0, -1, 6, &[]).is_none());
    assert!(old.with_leader("u", 0, 2, 6, &[]).is_none());
    let next = old.with_leader("t", 0, 9, 6, &[endpoint(9)]).unwrap();
    assert_eq!(next.leader("t", 0), Some((9, 6)));
    assert_eq!((&*next.brokers[&9].host, next.version), ("h", old.version + 1));
    let back = next.merged(
        response(vec![MetadataResponseTopic { topic_id: id(1), ..topic("t", &[(1, 5)]) }]),
        &asked(&["t"]),
        all,
    );
    assert_eq!(back.leader("t", 0), Some((9, 6)), "older metadata does not take it back");
    assert!(old.with_brokers(&[endpoint(1)]).is_some(), "an address may change");
    assert!(next.with_brokers(&[endpoint(9)]).is_none());
}
