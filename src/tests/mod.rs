//! Fixtures that the tests of several rooms share.

pub(crate) mod named_network;

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    TopicPartition,
    consumer::GroupProtocol,
    testkit::{Cluster, Options},
    wire::ApiKey,
};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// Makes two tests of each scenario, one for each group protocol: `classic::NAME` and
/// `consumer::NAME`. A scenario is a function that takes the protocol.
macro_rules! for_each_group_protocol {
    ($($scenario:ident),+ $(,)?) => {
        mod classic {
            $(#[tokio::test(start_paused = true)]
            async fn $scenario() {
                super::$scenario(crate::consumer::GroupProtocol::Classic).await;
            })+
        }
        mod consumer {
            $(#[tokio::test(start_paused = true)]
            async fn $scenario() {
                super::$scenario(crate::consumer::GroupProtocol::Consumer).await;
            })+
        }
    };
}
pub(crate) use for_each_group_protocol;

/// Starts a cluster on a network of its own.
pub(crate) async fn cluster(brokers: usize) -> Cluster {
    Cluster::start(Options::new().brokers(brokers).in_memory()).await.unwrap()
}

pub(crate) fn tp(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition::new(topic, partition)
}

/// Waits until the condition is true, ten minutes at most.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..60_000 {
        if condition() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came to it that {what}");
}

/// Returns the request by which a member of a group stays in it.
pub(crate) fn heartbeat(protocol: GroupProtocol) -> ApiKey {
    match protocol {
        GroupProtocol::Classic => ApiKey::Heartbeat,
        GroupProtocol::Consumer => ApiKey::ConsumerGroupHeartbeat,
    }
}

/// Returns the request by which a member joins a group.
pub(crate) fn join_request(protocol: GroupProtocol) -> ApiKey {
    match protocol {
        GroupProtocol::Classic => ApiKey::JoinGroup,
        GroupProtocol::Consumer => ApiKey::ConsumerGroupHeartbeat,
    }
}
