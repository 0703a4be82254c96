//! Clients that are closed, or dropped without closing: every call ends, with an error that says
//! why.

use ottla::{ErrorKind, Offset, Record, admin::NewTopic};

use crate::common::*;

#[tokio::test(start_paused = true)]
async fn closed_producer_rejects_calls_without_hanging() {
    let cluster = cluster().await;
    cluster.create_topic("t", 1).unwrap();
    let producer = producer(&cluster).build().await.unwrap();
    let clone = producer.clone();
    let delivery = producer.send(Record::to("t").with_value("0")).await.unwrap();
    producer.close(10 * SECOND).await.unwrap();
    in_time(delivery).await.unwrap();
    refused(clone.send(Record::to("t").with_value("1")).await, ErrorKind::Closed, &["closed"]);
    assert_eq!(clone.try_send(Record::to("t").with_value("1")).unwrap_err().error().kind(), ErrorKind::Closed);
    refused(in_time(clone.partitions_for("t")).await, ErrorKind::Closed, &["closed"]);
    assert_eq!(in_time(clone.flush(SECOND)).await, 0);
    in_time(clone.close(SECOND)).await.unwrap();
    assert_eq!(log(&cluster, "t", 0), [0]);
}

#[tokio::test(start_paused = true)]
async fn dropped_producer_still_delivers_accepted_records() {
    let cluster = cluster().await;
    cluster.create_topic("t", 1).unwrap();
    let producer = producer(&cluster).linger(SECOND).build().await.unwrap();
    let deliveries = [0, 1].map(|n| producer.try_send(Record::to("t").with_value(n.to_string())).unwrap());
    drop(producer);
    for delivery in deliveries {
        in_time(delivery).await.unwrap();
    }
    assert_eq!(log(&cluster, "t", 0), [0, 1]);
}

#[test]
fn deliveries_fail_closed_after_runtime_ends() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let first = runtime();
    let (delivery, producer) = first.block_on(async {
        let cluster = cluster().await;
        let producer = producer(&cluster).build().await.unwrap();
        (producer.send(Record::to("t").with_value("0")).await.unwrap(), producer)
    });
    drop(first);
    runtime().block_on(async {
        refused(in_time(delivery).await, ErrorKind::Closed, &[]);
        refused(in_time(producer.send(Record::to("t").with_value("1"))).await, ErrorKind::Closed, &[]);
        in_time(producer.close(SECOND)).await.ok();
    });
}

#[tokio::test(start_paused = true)]
async fn closed_consumer_rejects_calls_without_hanging() {
    let cluster = cluster().await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..3);
    let (closed, at) = (ErrorKind::Closed, || tp("t", 0));
    for subscribed in [false, true] {
        let consumer = consumer(&cluster).group("g").build().await.unwrap();
        if subscribed {
            consumer.subscribe(["t"]).unwrap();
            drop(consumer.poll(SECOND).await.unwrap());
        } else {
            consumer.assign([(at(), Offset::Beginning)]).unwrap();
            assert_eq!(numbers(&consumer, 1).await, [0]);
        }
        consumer.close(10 * SECOND).await.unwrap();
        assert!(in_time(consumer.recv()).await.is_none());
        refused(in_time(consumer.poll(60 * SECOND)).await, closed, &[]);
        refused(consumer.assign([(at(), Offset::Beginning)]), closed, &[]);
        refused(consumer.subscribe(["t"]), closed, &[]);
        refused(consumer.unsubscribe(), closed, &[]);
        refused(consumer.seek(&at(), 0), closed, &[]);
        refused(consumer.pause([&at()]), closed, &[]);
        refused(consumer.resume([&at()]), closed, &[]);
        refused(in_time(consumer.commit()).await, closed, &[]);
        refused(in_time(consumer.commit_offsets([(at(), 1)])).await, closed, &[]);
        refused(in_time(consumer.committed([at()])).await, closed, &[]);
        refused(in_time(consumer.beginning_offsets([at()])).await, closed, &[]);
        refused(in_time(consumer.partitions_for("t")).await, closed, &[]);
        refused(in_time(consumer.list_topics()).await, closed, &[]);
        assert!(consumer.assignment().is_empty() && consumer.position(&at()).is_none());
        in_time(consumer.close(SECOND)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn closed_admin_rejects_calls_without_hanging() {
    let cluster = cluster().await;
    let admin = admin(&cluster).build().await.unwrap();
    admin.list_topics().await.unwrap();
    let closed = ErrorKind::Closed;
    admin.clone().close();
    refused(in_time(admin.list_topics()).await, closed, &[]);
    refused(in_time(admin.describe_topics(["t"])).await, closed, &[]);
    refused(in_time(admin.describe_cluster()).await, closed, &[]);
    let created = in_time(admin.create_topics([NewTopic::new("t", 1)])).await;
    refused(created.and_then(|results| results.into_result()), closed, &[]);
    let deleted = in_time(admin.delete_topics(["t"])).await;
    refused(deleted.and_then(|results| results.into_result()), closed, &[]);
    admin.close();
}
