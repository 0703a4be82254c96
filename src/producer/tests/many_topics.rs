//! Tests with ten thousand topics: everything is delivered, and the cost grows with their number
//! and not with its square.

use super::*;
use crate::{testkit::on, wire::ApiKey};

const TOPICS: usize = 10_000;

fn name(topic: usize) -> String {
    format!("team-{}.events-{topic}", topic % 31)
}

async fn round(producer: &Producer, what: &str) {
    let mut deliveries = Vec::new();
    for topic in 0..TOPICS {
        deliveries.push(producer.send(Record::to(name(topic)).with_value(what)).await.unwrap());
    }
    delivered(deliveries).await;
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_topics_need_few_requests() {
    let cluster = Cluster::start(Options::new().in_memory().brokers(3).auto_create(false)).await.unwrap();
    for topic in 0..TOPICS {
        cluster.create_topic(&name(topic), 1).unwrap();
    }
    let producer = producer(&cluster).await;
    round(&producer, "first").await;
    let asked = cluster.requests(ApiKey::Metadata);
    assert!(asked <= 20, "{asked} metadata requests for topics that all came at once");
    let produced = cluster.requests(ApiKey::Produce);
    assert!(produced <= 300, "{produced} requests for a record each of {TOPICS} topics at three brokers");
    // The table of topics is rebuilt for each metadata response, not for each topic.
    let editions = producer.0.shared.topics.editions();
    assert!(editions <= asked + 5, "{editions} tables were made");

    round(&producer, "second").await;
    assert!(cluster.requests(ApiKey::Metadata) <= asked + 3, "topics that are known are asked for again");
    assert!(cluster.requests(ApiKey::Produce) <= 2 * produced + 20);
    assert_eq!(producer.0.shared.topics.editions(), editions);
    for topic in 0..TOPICS {
        let values: Vec<_> = cluster.records(&name(topic), 0).unwrap().into_iter().map(|r| r.value.unwrap()).collect();
        assert_eq!(values, ["first", "second"], "{}", name(topic));
    }
    assert_eq!(producer.0.shared.topics.outstanding(|| producer.0.shared.batch_shared.completed_records()), 0);
    producer.close(Duration::from_secs(60)).await.unwrap();
    assert_eq!(producer.0.shared.batch_shared.buffer.free(), 32 << 20);
}

#[tokio::test(start_paused = true)]
async fn missing_topics_do_not_delay_others() {
    let cluster = Cluster::start(Options::new().in_memory().auto_create(false)).await.unwrap();
    const EACH: usize = 500;
    for topic in 0..EACH {
        cluster.create_topic(&name(topic), 1).unwrap();
    }
    let producer = builder(&cluster).max_block(ms(5000)).build().await.unwrap();
    let (mut there, mut missing) = (Vec::new(), Vec::new());
    for topic in 0..2 * EACH {
        let delivery = producer.send(Record::to(name(topic)).with_value("x")).await.unwrap();
        if topic < EACH { there.push(delivery) } else { missing.push(delivery) }
    }
    let began = tokio::time::Instant::now();
    delivered(there).await;
    assert!(began.elapsed() < ms(2000), "{:?}", began.elapsed());
    for result in results(missing).await {
        assert_eq!(result.unwrap_err().kind(), crate::ErrorKind::UnknownTopicOrPartition);
    }
    let asked = cluster.requests(ApiKey::Metadata);
    assert!(asked < 40, "{asked} metadata requests in five seconds");
}

#[tokio::test(start_paused = true)]
async fn many_topics_survive_disconnect_and_broker_death() {
    const SOME: usize = 2000;
    let cluster = Cluster::start(Options::new().in_memory().brokers(2).auto_create(false)).await.unwrap();
    for topic in 0..SOME {
        cluster.create_topic(&name(topic), 1).unwrap();
    }
    let producer = producer(&cluster).await;
    cluster.fault(on(ApiKey::Produce).times(2).act_then_drop());
    let mut deliveries = Vec::new();
    for topic in 0..SOME {
        deliveries.push(producer.send(Record::to(name(topic)).with_value("0")).await.unwrap());
    }
    tokio::time::sleep(ms(20)).await;
    cluster.kill(2).await.unwrap();
    for topic in 0..SOME {
        deliveries.push(producer.send(Record::to(name(topic)).with_value("1")).await.unwrap());
    }
    delivered(deliveries).await;
    for topic in 0..SOME {
        let values: Vec<_> = cluster.records(&name(topic), 0).unwrap().into_iter().map(|r| r.value.unwrap()).collect();
        assert_eq!(values, ["0", "1"], "{}", name(topic));
    }
    assert!(cluster.requests(ApiKey::Metadata) < 60, "{}", cluster.requests(ApiKey::Metadata));
}
