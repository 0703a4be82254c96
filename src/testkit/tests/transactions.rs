//! Tests of the brokers' responses about transactions.

use super::{
    client::{Client, NOBODY, batch, cluster, text},
    transactional_producer::{TransactionalProducer, V2},
};
use crate::{
    ErrorCode, Record,
    testkit::{Cluster, Options},
    wire::{
        batch::Batches,
        messages::{
            FetchRequest, ListOffsetsRequest,
            fetch_request::{FetchPartition, FetchTopic},
            fetch_response::PartitionData,
            list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        },
    },
};

fn append(cluster: &Cluster, producer_id: i64, values: &[&str]) -> i64 {
    let records: Vec<_> = values.iter().map(|value| Record::to("t").with_value(*value)).collect();
    cluster.append_in_transaction("t", 0, producer_id, &records).unwrap()
}

/// Producer 7 at 0 and 1 and producer 8 at 2, aborted at 3 (8) and 4 (7); producer 7 again at 5,
/// committed at 6; a record without a producer id at 7; producer 9 from 8 on, still open.
async fn log(options: Options) -> Cluster {
    let cluster = cluster(options).await;
    cluster.create_topic("t", 1).unwrap();
    assert_eq!((append(&cluster, 7, &["a", "b"]), append(&cluster, 8, &["c"])), (0, 2));
    assert_eq!(cluster.end_transaction("t", 0, 8, false).unwrap(), 3);
    assert_eq!(cluster.end_transaction("t", 0, 7, false).unwrap(), 4);
    assert_eq!(append(&cluster, 7, &["d"]), 5);
    assert_eq!(cluster.end_transaction("t", 0, 7, true).unwrap(), 6);
    assert_eq!(cluster.append("t", 0, &[Record::to("t").with_value("e")]).unwrap(), 7);
    assert_eq!(append(&cluster, 9, &["f", "g"]), 8);
    cluster
}

pub(super) async fn fetch(client: &mut Client, version: i16, offset: i64, committed: bool) -> PartitionData {
    let asked = FetchPartition { partition: 0, fetch_offset: offset, ..Default::default() };
    let asked = FetchPartition { partition_max_bytes: 1 << 20, current_leader_epoch: -1, ..asked };
    let topics = vec![FetchTopic { topic: text("t"), partitions: vec![asked], ..Default::default() }];
    let request = FetchRequest { max_bytes: 1 << 20, session_epoch: -1, topics, ..Default::default() };
    let response = client.call(&FetchRequest { isolation_level: i8::from(committed), ..request }, version).await;
    response.responses[0].partitions[0].clone()
}

pub(super) fn aborted(partition: &PartitionData) -> Option<Vec<(i64, i64)>> {
    let list = partition.aborted_transactions.as_ref()?;
    Some(list.iter().map(|aborted| (aborted.producer_id, aborted.first_offset)).collect())
}

pub(super) fn offsets(partition: &PartitionData) -> Vec<i64> {
    Batches::new(partition.records.clone().unwrap_or_default()).map(|batch| batch.unwrap().header.base_offset).collect()
}

#[tokio::test(start_paused = true)]
async fn read_committed_stops_at_last_stable_offset() {
    let cluster = log(Options::new()).await;
    let mut client = Client::to(&cluster, 1).await;
    assert_eq!(cluster.last_stable_offset("t", 0).unwrap(), 8);
    for version in 4..=12 {
        let all = fetch(&mut client, version, 0, false).await;
        assert_eq!((all.high_watermark, all.last_stable_offset), (10, 8), "v{version}");
        assert_eq!((offsets(&all), aborted(&all)), (vec![0, 2, 3, 4, 5, 6, 7, 8], None));
        let committed = fetch(&mut client, version, 0, true).await;
        assert_eq!((committed.high_watermark, committed.last_stable_offset), (10, 8), "v{version}");
        assert_eq!(offsets(&committed), [0, 2, 3, 4, 5, 6, 7]);
        assert_eq!(aborted(&committed), Some(vec![(8, 2), (7, 0)]), "in the order of the markers");
    }
    let rest = fetch(&mut client, 11, 4, true).await;
    assert_eq!(aborted(&rest), Some(vec![(7, 0)]), "the other transaction ended before");
    let rest = fetch(&mut client, 11, 5, true).await;
    assert_eq!((offsets(&rest), aborted(&rest)), (vec![5, 6, 7], Some(vec![])));
    let open = fetch(&mut client, 11, 8, true).await;
    assert_eq!((offsets(&open), open.error_code), (vec![], 0));
    cluster.end_transaction("t", 0, 9, true).unwrap();
    let ended = fetch(&mut client, 11, 8, true).await;
    assert_eq!((offsets(&ended), ended.last_stable_offset), (vec![8, 10], 11));
}

#[tokio::test(start_paused = true)]
async fn aborted_transaction_list_may_be_shuffled() {
    let cluster = log(Options::new().shuffle_aborted(true)).await;
    let mut client = Client::to(&cluster, 1).await;
    let mut seen = Vec::new();
    for _ in 0..40 {
        seen.push(aborted(&fetch(&mut client, 11, 0, true).await).unwrap());
    }
    assert!(seen.contains(&vec![(8, 2), (7, 0)]) && seen.contains(&vec![(7, 0), (8, 2)]));
}

#[tokio::test(start_paused = true)]
async fn offsets_are_listed_by_isolation_level() {
    let cluster = log(Options::new()).await;
    let mut client = Client::to(&cluster, 1).await;
    let mut list = async |version: i16, timestamp: i64, committed: bool| {
        let asked = ListOffsetsPartition { partition_index: 0, timestamp, ..Default::default() };
        let asked = ListOffsetsPartition { current_leader_epoch: -1, ..asked };
        let topics = vec![ListOffsetsTopic { name: text("t"), partitions: vec![asked] }];
        let request = ListOffsetsRequest { topics, isolation_level: i8::from(committed), ..Default::default() };
        client.call(&request, version).await.topics[0].partitions[0].offset
    };
    for version in 2..=10 {
        assert_eq!((list(version, -1, false).await, list(version, -1, true).await), (10, 8), "v{version}");
        assert_eq!((list(version, -2, false).await, list(version, -2, true).await), (0, 0));
    }
    assert_eq!(list(1, -1, false).await, 10, "a version without levels");
    // The clock stands still: all records have the same timestamp except this one.
    cluster.append("t", 0, &[Record::to("t").with_value("h").with_timestamp_millis(i64::MAX / 2)]).unwrap();
    assert_eq!((list(7, i64::MAX / 2, false).await, list(7, i64::MAX / 2, true).await), (10, -1));
    assert_eq!((list(7, -3, false).await, list(7, -3, true).await), (10, -1));
}

#[tokio::test(start_paused = true)]
async fn transaction_starts_with_first_transactional_batch() {
    let cluster = cluster(Options::new()).await;
    cluster.create_topic("t", 1).unwrap();
    let mut producer = TransactionalProducer::init(&cluster, "tx", V2).await;
    let id = producer.producer_id;
    assert_eq!(producer.client.produce("t", 0, batch((id, 0, 0), &["a"])).await, (0, 0));
    producer.sequence = 1;
    assert_eq!(producer.produce("t", 0, &["a"]).await, (0, 1));
    assert_eq!(cluster.last_stable_offset("t", 0).unwrap(), 1);
    let outside = producer.client.produce("t", 0, batch((id, 0, 2), &["a"])).await;
    assert_eq!(outside.0, ErrorCode::INVALID_TXN_STATE.code());
    assert_eq!(producer.client.produce("t", 0, batch(NOBODY, &["a"])).await, (0, 2));
    assert_eq!(producer.end(true).await, 0);
    assert_eq!(cluster.log_end("t", 0).unwrap(), 4, "the marker");
    assert_eq!(producer.client.produce("t", 0, batch((id, 1, 0), &["a"])).await, (0, 4));
    assert_eq!(cluster.last_stable_offset("t", 0).unwrap(), 5);
    // Markers hold no records; aborted records are included.
    assert_eq!(cluster.records("t", 0).unwrap().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn truncation_and_deletion_update_transaction_state() {
    let cluster = log(Options::new()).await;
    let mut client = Client::to(&cluster, 1).await;
    cluster.truncate("t", 0, 4).unwrap();
    assert_eq!(cluster.last_stable_offset("t", 0).unwrap(), 0, "the lost marker reopens the transaction");
    assert_eq!(cluster.end_transaction("t", 0, 7, true).unwrap(), 4);
    let found = fetch(&mut client, 11, 0, true).await;
    assert_eq!(aborted(&found), Some(vec![(8, 2)]));
    append(&cluster, 7, &["x"]);
    cluster.delete_records("t", 0, 6).unwrap();
    assert_eq!(cluster.last_stable_offset("t", 0).unwrap(), 6, "no offset is before the log's start");
    assert!(!cluster.lose_batch("t", 0, 3).unwrap(), "a deleted batch cannot be removed");
    append(&cluster, 7, &["y"]);
    assert!(cluster.lose_batch("t", 0, 6).unwrap());
    assert!(offsets(&fetch(&mut client, 11, 6, false).await).is_empty());
}
