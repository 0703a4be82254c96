//! Scenarios of topics and regular expressions that members subscribe to.

use std::collections::BTreeSet;

use tokio::time::sleep;

use super::*;
use crate::tests::for_each_group_protocol;

for_each_group_protocol!(
    changing_subscription_changes_assignment_without_loss,
    regex_follows_created_and_deleted_topics,
    assigns_topic_when_created_and_recreated,
    regex_matches_ten_thousand_topics,
);

async fn changing_subscription_changes_assignment_without_loss(protocol: GroupProtocol) {
    let cluster = cluster(Options::new()).await;
    cluster.create_topic("u", 2).unwrap();
    let mut member = settled(&cluster, protocol).await;
    member.subscribe(&["u"]);
    member.owns(partitions("u", 0..2)).await;
    member.handle.subscribe(None);
    member.owns(BTreeSet::new()).await;
    sleep(SECOND).await;
    assert!(group(&cluster).members.is_empty());
    member.subscribe(&["t", "u"]);
    let mut both = partitions("t", 0..4);
    both.extend(partitions("u", 0..2));
    member.owns(both).await;
    assert_eq!(member.now().lost, 0);
}

async fn regex_follows_created_and_deleted_topics(protocol: GroupProtocol) {
    let cluster = cluster(Options::new()).await;
    let mut member = Member::joined(&cluster, protocol, &["^t", "^audit\\."]);
    member.owns(partitions("t", 0..4)).await;
    cluster.create_topic("audit.a", 1).unwrap();
    cluster.create_topic("other", 1).unwrap();
    let mut expected = partitions("t", 0..4);
    expected.extend(partitions("audit.a", 0..1));
    member.owns(expected.clone()).await;
    cluster.add_partitions("audit.a", 3).unwrap();
    expected.extend(partitions("audit.a", 0..3));
    member.owns(expected).await;
    cluster.delete_topic("audit.a").unwrap();
    member.owns(partitions("t", 0..4)).await;
    assert_eq!(member.now().lost, 0);
}

async fn assigns_topic_when_created_and_recreated(protocol: GroupProtocol) {
    let cluster = cluster(Options::new().auto_create(false)).await;
    let mut member = Member::joined(&cluster, protocol, &["later"]);
    member.until("an empty assignment", |heard| heard.assigned == 1).await;
    assert!(member.now().owned.is_empty());
    cluster.create_topic("later", 2).unwrap();
    member.owns(partitions("later", 0..2)).await;
    let revoked = member.now().revoked;
    cluster.delete_topic("later").unwrap();
    cluster.create_topic("later", 3).unwrap();
    member.owns(partitions("later", 0..3)).await;
    assert_eq!(member.now().revoked, revoked + 1, "what was there before was given up");
}

async fn regex_matches_ten_thousand_topics(protocol: GroupProtocol) {
    let cluster = cluster(Options::new()).await;
    for n in 0..10_000 {
        cluster.create_topic(&format!("many-{n}"), 1).unwrap();
    }
    let mut first = Member::joined(&cluster, protocol, &["^many-"]);
    first.owns_so_many(10_000).await;
    let mut second = Member::joined(&cluster, protocol, &["^many-[0-4]"]);
    second.until("a share, or none", |heard| heard.assigned > 0).await;
    sleep(SECOND * 100).await;
    let (first, second) = (first.now(), second.now());
    assert_eq!(first.owned.len() + second.owned.len(), 10_000);
    assert!(first.owned.is_disjoint(&second.owned));
    // Range gives a topic's only partition to the first of its members, all to one of the two.
    assert!(first.assigned > 1 || !second.owned.is_empty());
}
