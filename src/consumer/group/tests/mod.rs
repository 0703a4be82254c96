//! Tests of members against brokers, on the in-memory network under paused time. A scenario that
//! both group protocols know runs for both.

mod classic_only;
mod commits;
mod consumer_only;
mod cooperative;
mod faults;
mod member;
mod migration;
mod ownership;
mod static_members;
mod subscriptions;

use std::time::Duration;

use crate::{
    consumer::GroupProtocol,
    testkit::{Cluster, GroupView, Options},
    tests::SECOND,
};
use member::{Member, POLL_INTERVAL, one_owner_each, partitions, session, settings, soon};

/// Longer than any wait in these tests.
const LONG: Duration = Duration::from_secs(1_000);

/// Starts a cluster with the topic `t` of four partitions.
async fn cluster(options: Options) -> Cluster {
    let cluster = Cluster::start(options.in_memory()).await.unwrap();
    cluster.create_topic("t", 4).unwrap();
    cluster
}

/// Creates the only member of a group, and waits until it owns `t`.
async fn settled(cluster: &Cluster, protocol: GroupProtocol) -> Member {
    let mut member = Member::joined(cluster, protocol, &["t"]);
    member.owns(partitions("t", 0..4)).await;
    member
}

/// Creates two members that share `t`.
async fn two_settled(cluster: &Cluster, protocol: GroupProtocol) -> [Member; 2] {
    let [mut first, mut second] = [0; 2].map(|_| Member::joined(cluster, protocol, &["t"]));
    first.owns_so_many(2).await;
    second.owns_so_many(2).await;
    [first, second]
}

/// Returns the group; its generation is the group epoch in the consumer protocol.
fn group(cluster: &Cluster) -> GroupView {
    cluster.group("g").unwrap()
}
