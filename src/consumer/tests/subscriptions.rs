//! Scenarios of subscriptions by name and by regular expression.

use super::*;
use crate::{ErrorKind, consumer::GroupState};

for_each_group_protocol!(
    new_topic_matching_regex_is_read,
    unmatched_regex_waits_for_matching_topic,
    regex_respects_exclude_internal_topics_setting,
    regexes_that_cannot_combine_still_match,
    regex_matches_ten_thousand_topics,
    recreated_topic_is_read_from_start,
);

async fn member(cluster: &Cluster, protocol: GroupProtocol, topics: &[&str]) -> Consumer {
    subscribed(group_builder(cluster, protocol).auto_commit_interval(SECOND), topics).await
}

async fn new_topic_matching_regex_is_read(protocol: GroupProtocol) {
    let cluster = cluster(1).await;
    cluster.create_topic("audit.a", 1).unwrap();
    cluster.create_topic("other", 1).unwrap();
    append(&cluster, "audit.a", 0, 0..1);
    append(&cluster, "other", 0, 99..100);
    let builder = group_builder(&cluster, protocol).property("metadata.max.age.ms", "5000");
    let consumer = subscribed(builder, &["^audit\\..*"]).await;
    assert_eq!(number(&next(&consumer).await), 0);
    cluster.create_topic("audit.b", 2).unwrap();
    append(&cluster, "audit.b", 1, 7..8);
    assert_eq!(number(&next(&consumer).await), 7);
    assert_eq!(consumer.assignment(), [tp("audit.a", 0), tp("audit.b", 0), tp("audit.b", 1)]);
    assert_eq!(consumer.assign([(tp("other", 0), 0)]).unwrap_err().kind(), ErrorKind::InvalidArgument);
    consumer.unsubscribe().unwrap();
    tokio::time::sleep(5 * SECOND).await;
    assert!(consumer.assignment().is_empty());
    consumer.assign([(tp("other", 0), Offset::Beginning)]).unwrap();
    assert_eq!(number(&next(&consumer).await), 99);
}

async fn unmatched_regex_waits_for_matching_topic(protocol: GroupProtocol) {
    let cluster = cluster(1).await;
    let builder = group_builder(&cluster, protocol).property("metadata.max.age.ms", "5000");
    let consumer = subscribed(builder, &["^none-.*"]).await;
    assert!(is_quiet(&consumer).await);
    assert!(matches!(consumer.status().group.unwrap().state, GroupState::NoTopics { .. }));
    cluster.create_topic("none-yet", 1).unwrap();
    append(&cluster, "none-yet", 0, 5..6);
    assert_eq!(number(&next(&consumer).await), 5);
    for bad in ["^(", "^[a-", "^a{999999}{999999}"] {
        assert_eq!(consumer.subscribe([bad]).unwrap_err().kind(), ErrorKind::InvalidArgument, "{bad}");
    }
    assert_eq!(consumer.assignment(), [tp("none-yet", 0)], "what cannot be subscribed to changes nothing");
}

async fn regex_respects_exclude_internal_topics_setting(protocol: GroupProtocol) {
    for exclude in ["true", "false"] {
        let cluster = cluster(1).await;
        for topic in ["t", "__consumer_offsets", "__mine"] {
            cluster.create_topic(topic, 1).unwrap();
        }
        let builder = group_builder(&cluster, protocol).property("exclude.internal.topics", exclude);
        let consumer = subscribed(builder.property("metadata.max.age.ms", "5000"), &["^.*", "^t$"]).await;
        assert!(is_quiet(&consumer).await);
        let mut expected = vec![tp("__mine", 0), tp("t", 0)];
        if exclude == "false" {
            expected.insert(0, tp("__consumer_offsets", 0));
        }
        assert_eq!(consumer.assignment(), expected, "{exclude}");
        cluster.create_topic("u", 1).unwrap();
        append(&cluster, "u", 0, 3..4);
        assert_eq!(number(&next(&consumer).await), 3, "what comes is found");
    }
}

/// Each subscription is valid alone, but together they would be refused.
async fn regexes_that_cannot_combine_still_match(protocol: GroupProtocol) {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    cluster.create_topic("u", 1).unwrap();
    for elements in [["^(?P<name>t)$", "^(?P<name>u)$"], ["^(?x)t$ # the first", "^u"], ["^[a-z&&[^a-s]]$", "^u"]] {
        let consumer = member(&cluster, protocol, &elements).await;
        assert!(is_quiet(&consumer).await);
        assert!(
            consumer.assignment().starts_with(&[tp("t", 0), tp("u", 0)]),
            "{elements:?}: {:?}",
            consumer.assignment()
        );
        consumer.close(10 * SECOND).await.unwrap();
    }
}

async fn regex_matches_ten_thousand_topics(protocol: GroupProtocol) {
    const TOPICS: usize = 10_000;
    let cluster = cluster(1).await;
    for n in 0..TOPICS {
        cluster.create_topic(&format!("many-{n:05}"), 1).unwrap();
    }
    let consumer = member(&cluster, protocol, &["^many-"]).await;
    let mut polls = 0;
    while consumer.assignment().len() < TOPICS {
        assert!(consumer.poll(SECOND).await.unwrap().is_empty());
        polls += 1;
        assert!(polls < 60, "{} are found", consumer.assignment().len());
    }
    append(&cluster, "many-09999", 0, 7..8);
    assert_eq!(number(&next(&consumer).await), 7);
    assert!(matches!(consumer.status().group.unwrap().state, GroupState::Stable { .. }));
}

async fn recreated_topic_is_read_from_start(protocol: GroupProtocol) {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..20);
    let consumer = member(&cluster, protocol, &["^t$"]).await;
    assert_eq!(numbers(&consumer, 20).await, (0..20).collect::<Vec<_>>());
    cluster.delete_topic("t").unwrap();
    cluster.create_topic("t", 2).unwrap();
    append(&cluster, "t", 0, 100..103);
    append(&cluster, "t", 1, 200..202);
    let mut state = Vec::new();
    while state.len() < 5 {
        match tokio::time::timeout(120 * SECOND, consumer.recv()).await.expect("records in time").unwrap() {
            Ok(record) => state.push(number(&record)),
            // While the topic does not exist.
            Err(error) => assert_eq!(error.kind(), ErrorKind::UnknownTopicOrPartition, "{error}"),
        }
    }
    state.sort_unstable();
    assert_eq!(state, [100, 101, 102, 200, 201]);
}
