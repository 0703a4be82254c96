//! Tests of records without a fixed partition: they avoid brokers that accept no data, and prefer
//! those nearby.

use super::*;
use crate::{error::ErrorCode, testkit::on, wire::ApiKey};

/// Starts two brokers; broker 1 leads the even partitions, broker 2 the odd ones.
async fn two_brokers(options: Options, partitions: i32) -> Cluster {
    let cluster = cluster_with(options.brokers(2), partitions).await;
    for partition in 0..partitions {
        cluster.move_leader(TOPIC, partition, partition % 2 + 1).unwrap();
    }
    cluster
}

/// Configures batches of about three records, and a fifth of a second until a broker counts as
/// unavailable.
fn heedful(cluster: &Cluster) -> ProducerBuilder {
    builder(cluster).batch_size(300).linger(ms(1)).availability_timeout(ms(200))
}

/// Sends `count` records without a key, one in a millisecond. They need not be acknowledged.
async fn send_some(producer: &Producer, count: u32) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for _ in 0..count {
        deliveries.push(producer.send(Record::to(TOPIC).with_value(&[b'x'; 80])).await.unwrap());
        tokio::time::sleep(ms(1)).await;
    }
    deliveries
}

/// Returns the number of these records on each of the brokers.
async fn by_broker(results: Vec<Result<RecordMetadata, Error>>) -> [usize; 2] {
    let mut counts = [0; 2];
    for result in results {
        counts[(result.unwrap().partition % 2) as usize] += 1;
    }
    counts
}

/// Returns the number of these records that have no result, a while after they were sent.
async fn left_after(deliveries: &[Delivery], millis: u64) -> usize {
    tokio::time::sleep(ms(millis)).await;
    deliveries.iter().filter(|delivery| delivery.try_result().is_none()).count()
}

#[tokio::test(start_paused = true)]
async fn hanging_broker_is_skipped_until_it_recovers() {
    // With one partition on each broker, all requests in flight to a broker are of that partition.
    for partitions in [2, 8] {
        let cluster = two_brokers(Options::new(), partitions).await;
        let producer = heedful(&cluster).request_timeout(ms(10_000)).build().await.unwrap();
        let both = by_broker(results(send_some(&producer, 300).await).await).await;
        assert!(both.iter().all(|count| *count > 60), "{both:?}");

        let hang = cluster.fault(on(ApiKey::Produce).broker(2).times(1).hang());
        let stuck = send_some(&producer, 400).await;
        // Long before the request times out, all later records go to the other broker.
        let later = send_some(&producer, 400).await;
        assert_eq!(hang.hits(), 1);
        assert_eq!(left_after(&later, 100).await, 0, "{partitions} partitions: records went to the broker that hangs");
        let counts = by_broker(results(later).await).await;
        assert_eq!(counts, [400, 0], "{partitions} partitions");
        assert!(left_after(&stuck, 0).await > 0, "nothing was stuck, so nothing was shown");

        // The request times out and the next connection works: nothing is lost, and both brokers
        // get records again.
        delivered(stuck).await;
        let both = by_broker(results(send_some(&producer, 300).await).await).await;
        assert!(both.iter().all(|count| *count > 60), "{partitions} partitions: {both:?}");
        let all: i64 = (0..partitions).map(|partition| cluster.log_end(TOPIC, partition).unwrap()).sum();
        assert_eq!(all, 1400, "each record once");
    }
}

#[tokio::test(start_paused = true)]
async fn hanging_broker_is_used_without_availability_timeout() {
    let cluster = two_brokers(Options::new(), 2).await;
    let producer = heedful(&cluster).availability_timeout(Duration::ZERO).build().await.unwrap();
    results(send_some(&producer, 100).await).await;
    cluster.fault(on(ApiKey::Produce).broker(2).hang());
    drop(send_some(&producer, 400).await);
    let later = send_some(&producer, 400).await;
    assert!(left_after(&later, 100).await > 0, "the test above shows nothing");
}

#[tokio::test(start_paused = true)]
async fn keyed_records_still_reach_hanging_broker() {
    let cluster = two_brokers(Options::new(), 2).await;
    let producer = heedful(&cluster).request_timeout(ms(3000)).build().await.unwrap();
    results(send_some(&producer, 100).await).await;
    cluster.fault(on(ApiKey::Produce).broker(2).times(1).hang());
    drop(send_some(&producer, 600).await);
    let asked = producer.send(Record::to(TOPIC).with_partition(1).with_value("x")).await.unwrap();
    // murmur2("kafka") is odd.
    let keyed = producer.send(Record::to(TOPIC).with_key("kafka").with_value("x")).await.unwrap();
    let (asked, keyed) = (asked.await.unwrap(), keyed.await.unwrap());
    assert_eq!(asked.partition, 1);
    let other = producer.send(Record::to(TOPIC).with_key("kafka").with_value("x")).await.unwrap().await.unwrap();
    assert_eq!(keyed.partition, other.partition, "a key stays where it is");
}

#[tokio::test(start_paused = true)]
async fn dead_broker_is_skipped_without_loss() {
    let cluster = two_brokers(Options::new(), 4).await;
    let producer = heedful(&cluster).request_timeout(ms(2000)).build().await.unwrap();
    results(send_some(&producer, 100).await).await;
    // For the producer, its partitions keep their leader.
    cluster.fault(on(ApiKey::Metadata).forever().error(ErrorCode::LEADER_NOT_AVAILABLE));
    cluster.kill(2).await.unwrap();
    let stuck = send_some(&producer, 600).await;
    let later = send_some(&producer, 300).await;
    assert_eq!(left_after(&later, 100).await, 0, "records went to the broker that is dead");
    assert!(left_after(&stuck, 0).await > 0);
    cluster.clear_faults();
    cluster.restart(2).await.unwrap();
    delivered(stuck).await;
    let all: i64 = (0..4).map(|partition| cluster.log_end(TOPIC, partition).unwrap()).sum();
    assert_eq!(all, 1000);
}

/// Broker 1 is in rack `a`, broker 2 in rack `b`.
async fn racks(partitions: i32) -> Cluster {
    two_brokers(Options::new().racks(["a", "b"]), partitions).await
}

fn near(cluster: &Cluster, rack: &str) -> ProducerBuilder {
    builder(cluster).batch_size(300).linger(ms(1)).rack_aware(true).client_rack(rack)
}

#[tokio::test(start_paused = true)]
async fn prefers_leaders_in_same_rack() {
    let cluster = racks(8).await;
    for (rack, expected) in [("a", [300, 0]), ("b", [0, 300])] {
        let producer = near(&cluster, rack).build().await.unwrap();
        let results = results(send_some(&producer, 300).await).await;
        let partitions: std::collections::BTreeSet<_> = results.iter().flatten().map(|at| at.partition).collect();
        assert_eq!(partitions.len(), 4, "all partitions of the rack have their turns: {partitions:?}");
        assert_eq!(by_broker(results).await, expected, "rack {rack}");
    }
    // No leader is in that rack.
    let producer = near(&cluster, "c").build().await.unwrap();
    let both = by_broker(results(send_some(&producer, 300).await).await).await;
    assert!(both.iter().all(|count| *count > 60), "{both:?}");
    // A client rack alone changes nothing.
    let producer = near(&cluster, "a").rack_aware(false).build().await.unwrap();
    let both = by_broker(results(send_some(&producer, 300).await).await).await;
    assert!(both.iter().all(|count| *count > 60), "{both:?}");
}

#[tokio::test(start_paused = true)]
async fn follows_leader_changes_within_rack() {
    let cluster = racks(2).await;
    let producer = near(&cluster, "a").property("metadata.max.age.ms", "500").build().await.unwrap();
    assert_eq!(by_broker(results(send_some(&producer, 100).await).await).await, [100, 0]);
    cluster.move_leader(TOPIC, 0, 2).unwrap();
    cluster.move_leader(TOPIC, 1, 1).unwrap();
    results(send_some(&producer, 600).await).await;
    assert_eq!(by_broker(results(send_some(&producer, 100).await).await).await, [0, 100], "partition 1 is nearby now");
    cluster.move_leader(TOPIC, 1, 2).unwrap();
    results(send_some(&producer, 600).await).await;
    let both = by_broker(results(send_some(&producer, 300).await).await).await;
    assert!(both.iter().all(|count| *count > 60), "nothing is nearby any more: {both:?}");
}

#[tokio::test(start_paused = true)]
async fn hanging_local_broker_yields_to_remote() {
    let cluster = racks(4).await;
    let builder = near(&cluster, "a").availability_timeout(ms(200)).request_timeout(ms(10_000));
    let producer = builder.build().await.unwrap();
    assert_eq!(by_broker(results(send_some(&producer, 100).await).await).await, [100, 0]);
    cluster.fault(on(ApiKey::Produce).broker(1).times(1).hang());
    let stuck = send_some(&producer, 600).await;
    let later = send_some(&producer, 200).await;
    assert_eq!(left_after(&later, 100).await, 0, "records went to the broker that hangs");
    assert_eq!(by_broker(results(later).await).await, [0, 200]);
    delivered(stuck).await;
    assert_eq!(by_broker(results(send_some(&producer, 100).await).await).await, [100, 0], "and back again");
}

#[tokio::test(start_paused = true)]
async fn switches_partition_after_64_kib() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 4).unwrap();
    let producer = builder(&cluster).linger(Duration::from_secs(1)).build().await.unwrap();
    producer.partitions_for("t").await.unwrap();
    let value = [b'x'; 1000];
    for _ in 0..70 {
        drop(producer.send(Record::to("t").with_value(&value)).await.unwrap());
    }
    assert_eq!(producer.flush(Duration::from_secs(10)).await, 0);
    let mut counts: Vec<i64> = (0..4).map(|partition| cluster.log_end("t", partition).unwrap()).collect();
    counts.sort_unstable();
    // A record is counted with the maximum size that it may need, 1,030 bytes here.
    assert_eq!(counts, [0, 0, 6, 64]);
}
