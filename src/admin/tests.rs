//! Runs the calls against a cluster in the process, on its in-memory network and under paused time.

use std::time::Duration;

use super::*;
use crate::{
    error::{DeliveryStatus, ErrorCode, ErrorKind},
    testkit::{Cluster, Options, on},
    wire::ApiKey,
};

async fn cluster() -> Cluster {
    Cluster::start(Options::new().brokers(3).in_memory().seed(1)).await.unwrap()
}

async fn admin(cluster: &Cluster) -> Admin {
    cluster.admin().build().await.unwrap()
}

async fn created(admin: &Admin, topics: impl IntoIterator<Item = NewTopic>) -> Vec<Result<CreatedTopic>> {
    admin.create_topics(topics).await.unwrap().into_iter().map(|topic| topic.result).collect()
}

#[tokio::test(start_paused = true)]
async fn creates_lists_describes_and_deletes_topics() {
    let cluster = cluster().await;
    let admin = admin(&cluster).await;
    let topics = created(
        &admin,
        [
            NewTopic::new("orders", 6).replication_factor(2).config("retention.ms", "1000"),
            NewTopic::new("audit", -1),
            NewTopic::new("placed", 9).assignment(0, [1, 2]).assignment(1, [2, 3]),
        ],
    )
    .await;
    let orders = topics[0].as_ref().unwrap();
    assert_eq!((orders.name.as_str(), orders.partitions, orders.replication_factor), ("orders", Some(6), Some(2)));
    assert!(orders.id.is_some());
    assert!(topics[1].is_ok(), "{topics:?}");
    assert_eq!(topics[2].as_ref().unwrap().partitions, Some(2), "the assignment determines the number");

    let listed = admin.list_topics().await.unwrap();
    let names: Vec<_> = listed.iter().map(|topic| (topic.name.as_str(), topic.partitions, topic.internal)).collect();
    assert_eq!(names[1..], [("orders", 6, false), ("placed", 2, false)]);
    assert_eq!(listed[1].id, orders.id);

    let described = admin.describe_topics(["placed", "nowhere"]).await.unwrap();
    let placed = described.get("placed").unwrap().as_ref().unwrap();
    let second = &placed.partitions[1];
    assert_eq!((second.partition, second.leader), (1, cluster.leader("placed", 1).unwrap()));
    assert_eq!((second.replicas.len(), &second.isr), (2, &second.replicas));
    let nowhere = described.get("nowhere").unwrap().as_ref().unwrap_err();
    assert_eq!(nowhere.code(), Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
    assert!(cluster.leader("nowhere", 0).unwrap_or(None).is_none(), "the request has not created it");

    let deleted = admin.delete_topics(["orders", "nowhere"]).await.unwrap();
    assert!(deleted.get("orders").unwrap().is_ok());
    let error = deleted.get("nowhere").unwrap().as_ref().unwrap_err();
    assert_eq!((error.code(), error.delivery_status()), (Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION), None));
    assert_eq!(admin.list_topics().await.unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn describes_brokers_and_controller_of_cluster() {
    let cluster = cluster().await;
    let described = admin(&cluster).await.describe_cluster().await.unwrap();
    assert_eq!(described.brokers.iter().map(|broker| broker.id).collect::<Vec<_>>(), cluster.brokers());
    assert!(described.controller.is_some_and(|id| cluster.brokers().contains(&id)));
    assert!(described.brokers.iter().all(|broker| broker.port > 0 && !broker.host.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn error_of_one_topic_spares_others() {
    let cluster = cluster().await;
    cluster.create_topic("there", 1).unwrap();
    let topics = created(
        &admin(&cluster).await,
        [NewTopic::new("there", 1), NewTopic::new("fresh", 1), NewTopic::new("wide", 1).replication_factor(9)],
    )
    .await;
    let error = topics[0].as_ref().unwrap_err();
    assert_eq!((error.code(), error.delivery_status()), (Some(ErrorCode::TOPIC_ALREADY_EXISTS), None));
    assert!(topics[1].is_ok());
    assert_eq!(topics[2].as_ref().unwrap_err().code(), Some(ErrorCode::INVALID_REPLICATION_FACTOR));
}

#[tokio::test(start_paused = true)]
async fn retries_create_topics_while_not_controller() {
    let cluster = cluster().await;
    let fault = cluster.fault(on(ApiKey::CreateTopics).times(3).error(ErrorCode::NOT_CONTROLLER));
    let topics = created(&admin(&cluster).await, [NewTopic::new("orders", 1)]).await;
    assert!(topics[0].is_ok(), "{topics:?}");
    assert_eq!(fault.hits(), 3);
}

#[tokio::test(start_paused = true)]
async fn lost_response_makes_error_possibly_persisted() {
    let cluster = cluster().await;
    cluster.fault(on(ApiKey::CreateTopics).times(1).act_then_drop());
    let topics = created(&admin(&cluster).await, [NewTopic::new("orders", 1)]).await;
    let error = topics[0].as_ref().unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::TOPIC_ALREADY_EXISTS));
    assert_eq!(error.delivery_status(), Some(DeliveryStatus::PossiblyPersisted));

    cluster.fault(on(ApiKey::DeleteTopics).times(1).act_then_drop());
    let deleted = admin(&cluster).await.delete_topics(["orders"]).await.unwrap();
    let error = deleted.get("orders").unwrap().as_ref().unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
    assert_eq!(error.delivery_status(), Some(DeliveryStatus::PossiblyPersisted));
}

#[tokio::test(start_paused = true)]
async fn creates_topic_after_connection_drops_request() {
    let cluster = cluster().await;
    cluster.fault(on(ApiKey::CreateTopics).times(2).drop_connection());
    let topics = created(&admin(&cluster).await, [NewTopic::new("orders", 1)]).await;
    assert!(topics[0].is_ok(), "{topics:?}");
}

#[tokio::test(start_paused = true)]
async fn times_out_when_broker_never_responds() {
    let cluster = cluster().await;
    cluster.fault(on(ApiKey::CreateTopics).forever().hang());
    let admin = cluster
        .admin()
        .request_timeout(Duration::from_secs(5))
        .default_api_timeout(Duration::from_secs(20))
        .build()
        .await
        .unwrap();
    let topics = created(&admin, [NewTopic::new("orders", 1)]).await;
    let error = topics[0].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert_eq!(error.delivery_status(), Some(DeliveryStatus::PossiblyPersisted));
    assert!(error.to_string().starts_with("create topic orders: "), "{error}");
}

#[tokio::test(start_paused = true)]
async fn unreachable_cluster_causes_error_within_timeout() {
    let admin = Admin::builder("127.0.0.1:1")
        .network(cluster().await.network())
        .default_api_timeout(Duration::from_secs(3))
        .build()
        .await
        .unwrap();
    let topics = created(&admin, [NewTopic::new("orders", 1)]).await;
    let error = topics[0].as_ref().unwrap_err();
    assert_eq!(error.delivery_status(), Some(DeliveryStatus::NotPersisted), "{error}");
    assert!(admin.list_topics().await.unwrap_err().to_string().starts_with("list topics: "));
}

#[tokio::test(start_paused = true)]
async fn rejects_invalid_arguments_before_sending_requests() {
    let cluster = cluster().await;
    let admin = admin(&cluster).await;
    for topics in [vec![NewTopic::new("no spaces", 1)], vec![NewTopic::new("a", 1), NewTopic::new("a", 1)]] {
        assert_eq!(admin.create_topics(topics).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
    assert_eq!(admin.delete_topics([""]).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(admin.describe_topics([".."]).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert!(created(&admin, []).await.is_empty());
    assert_eq!(cluster.requests(ApiKey::CreateTopics), 0);
}

#[tokio::test(start_paused = true)]
async fn calls_after_close_return_closed_error() {
    let cluster = cluster().await;
    let admin = admin(&cluster).await;
    admin.list_topics().await.unwrap();
    admin.clone().close();
    assert_eq!(admin.list_topics().await.unwrap_err().kind(), ErrorKind::Closed);
    let topics = created(&admin, [NewTopic::new("orders", 1)]).await;
    assert_eq!(topics[0].as_ref().unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn build_rejects_invalid_or_missing_properties() {
    for (properties, part) in [
        (vec![("bootstrap.servers", "a:1"), ("request.timeout.mss", "1")], "did you mean `request.timeout.ms`?"),
        (vec![("bootstrap.servers", "a")], "no port"),
        (vec![("client.id", "a")], "bootstrap.servers is empty"),
        (vec![("bootstrap.servers", "a:1"), ("ssl.crl.location", "crl.pem")], "revoked"),
    ] {
        let error = Admin::from_properties(properties).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains(part), "{error}");
    }
    assert!(Admin::from_properties([("bootstrap.servers", "a:1")]).await.is_ok());
    let builder = Admin::builder("a:1").property("client.id", "x").properties([("request.timeout.mss", "1")]);
    assert!(builder.build().await.unwrap_err().to_string().contains("did you mean"));
    assert_eq!(Admin::builder("").build().await.unwrap_err().kind(), ErrorKind::Configuration);
}

#[test]
fn futures_of_all_operations_are_send() {
    fn check<T: Send>(_: &T) {}
    fn all(admin: &Admin) {
        check(&admin.create_topics([NewTopic::new("a", 1)]));
        check(&admin.delete_topics(["a"]));
        check(&admin.list_topics());
        check(&admin.describe_topics(["a"]));
        check(&admin.describe_cluster());
    }
    let _ = all;
}

#[tokio::test(start_paused = true)]
async fn all_clients_return_equal_partition_metadata() {
    let cluster = cluster().await;
    cluster.create_topic("orders", 4).unwrap();
    let (producer, consumer) = (cluster.producer().build().await.unwrap(), cluster.consumer().build().await.unwrap());
    let admin = admin(&cluster).await;
    let partitions = admin.partitions_for("orders").await.unwrap();
    assert_eq!(partitions.iter().map(|found| found.partition).collect::<Vec<_>>(), [0, 1, 2, 3]);
    let leader = cluster.leader("orders", 3).unwrap();
    assert_eq!((partitions[3].leader, partitions[3].replicas.len()), (leader, 3));
    assert_eq!(producer.partitions_for("orders").await.unwrap(), partitions);
    assert_eq!(consumer.partitions_for("orders").await.unwrap(), partitions);
    assert_eq!(admin.partitions_for("").await.unwrap_err().kind(), ErrorKind::InvalidArgument);
}
