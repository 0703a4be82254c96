//! Tests of topics, producing and fetching.

use bytes::Bytes;
use tokio::time::{Duration, Instant};
use uuid::Uuid;

use super::client::{Client, NOBODY, batch, cluster, outcomes, produce_request, text};
use crate::{
    ApiKey, ErrorCode, Record, TopicPartition,
    record::TimestampType,
    testkit::Options,
    wire::{
        batch::BatchHeader,
        messages::{
            ApiVersionsRequest, CreateTopicsRequest, DeleteTopicsRequest, FetchRequest, FetchResponse,
            InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, OffsetForLeaderEpochRequest, ProduceRequest,
            create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig},
            delete_topics_request::DeleteTopicState,
            fetch_request::{FetchPartition, FetchTopic, ForgottenTopic},
            fetch_response::PartitionData,
            list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
            metadata_request::MetadataRequestTopic,
            offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
            produce_request::{PartitionProduceData, TopicProduceData},
        },
        protocol::Message as _,
    },
};
#[cfg(feature = "zstd")]
use crate::{
    Compression,
    wire::batch::{BatchBuilder, Compressor, ProducerStamp, RecordParts},
};

fn fetch(name: &str, partitions: &[(i32, i64)]) -> FetchRequest {
    let partitions = partitions.iter().map(|&(partition, offset)| {
        let asked = FetchPartition { partition, fetch_offset: offset, ..Default::default() };
        FetchPartition { partition_max_bytes: 1 << 20, current_leader_epoch: -1, ..asked }
    });
    let topics = vec![FetchTopic { topic: text(name), partitions: partitions.collect(), ..Default::default() }];
    FetchRequest { max_bytes: 1 << 20, min_bytes: 1, session_epoch: -1, topics, ..Default::default() }
}

fn partitions(response: &FetchResponse) -> Vec<&PartitionData> {
    response.responses.iter().flat_map(|topic| &topic.partitions).collect()
}

fn size(partition: &PartitionData) -> usize {
    partition.records.as_ref().map_or(0, Bytes::len)
}

#[tokio::test(start_paused = true)]
async fn older_kafka_serves_listed_requests_only() {
    let old = [(ApiKey::Produce, 5), (ApiKey::Metadata, 5), (ApiKey::InitProducerId, 0)];
    let cluster = cluster(Options::new().max_versions(old)).await;
    let response = Client::to(&cluster, 1).await.call(&ApiVersionsRequest::default(), 0).await;
    let served: Vec<_> = response.api_keys.iter().map(|api| (api.api_key, api.max_version)).collect();
    let newest = ApiVersionsRequest::VERSIONS.1;
    assert_eq!(served, [(0, 5), (3, 5), (18, newest), (22, 0)]);

    cluster.create_topic("t", 1).unwrap();
    let producer = cluster.producer().build().await.unwrap();
    let sent = producer.send(Record::to("t").with_value("v")).await.unwrap();
    assert_eq!(sent.await.unwrap().offset, Some(0));
}

#[tokio::test(start_paused = true)]
async fn api_versions_falls_back_and_reports_features() {
    let cluster = cluster(Options::new().feature("transaction.version", 2).max_version(ApiKey::Fetch, 11)).await;
    let mut client = Client::to(&cluster, 1).await;
    let decent = ApiVersionsRequest {
        client_software_name: text("some-client"),
        client_software_version: text("1.0"),
        ..Default::default()
    };
    for version in 0..=4 {
        let asked = if version < 3 { ApiVersionsRequest::default() } else { decent.clone() };
        let response = client.call(&asked, version).await;
        assert_eq!(response.error_code, 0);
        let fetch = response.api_keys.iter().find(|api| api.api_key == ApiKey::Fetch.code()).unwrap();
        assert_eq!((fetch.min_version, fetch.max_version), (4, 11));
        if version >= 3 {
            assert_eq!(response.finalized_features[0].max_version_level, 2);
        }
    }
    let indecent = client.call(&ApiVersionsRequest::default(), 3).await;
    assert_eq!(indecent.error_code, ErrorCode::INVALID_REQUEST.code());

    // A version of the future: the response is in version 0.
    client.write(&[0, 0, 0, 11, 0, 18, 0, 99, 0, 0, 0, 77, 255, 255, 0]).await;
    let frame = client.frame().await.unwrap();
    assert_eq!(&frame[..], [0, 0, 0, 77, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 5]);
}

#[tokio::test(start_paused = true)]
async fn metadata_creates_topic_only_if_both_allow() {
    let cluster = cluster(Options::new().brokers(3).default_partitions(4).racks(["a", "b"])).await;
    let mut client = Client::to(&cluster, 2).await;
    for version in 0..=13 {
        let name = format!("topic-{version}");
        let asked = MetadataRequestTopic { name: Some(text(&name)), ..Default::default() };
        let request = MetadataRequest { topics: Some(vec![asked]), ..Default::default() };
        let first = client.call(&request, version).await;
        assert_eq!(first.topics[0].error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.code(), "v{version}");
        let second = client.call(&request, version).await;
        let found = &second.topics[0];
        assert_eq!((found.error_code, found.partitions.len()), (0, 4));
        let leaders: Vec<i32> = found.partitions.iter().map(|partition| partition.leader_id).collect();
        assert_eq!(leaders, [1, 2, 3, 1]);
        assert_eq!(second.brokers.len(), 3);
        if version >= 10 {
            let by_id = MetadataRequestTopic { topic_id: found.topic_id, name: None };
            let unknown = MetadataRequestTopic { topic_id: Uuid::from_u128(1), name: None };
            let request = MetadataRequest { topics: Some(vec![by_id, unknown]), ..Default::default() };
            let response = client.call(&request, version).await;
            assert_eq!(response.topics[0].name, Some(text(&name)));
            assert_eq!(response.topics[1].error_code, ErrorCode::UNKNOWN_TOPIC_ID.code());
        }
    }
    let asked = MetadataRequestTopic { name: Some(text("unwanted")), ..Default::default() };
    let request = MetadataRequest { topics: Some(vec![asked]), allow_auto_topic_creation: false, ..Default::default() };
    for _ in 0..2 {
        let response = client.call(&request, 9).await;
        assert_eq!(response.topics[0].error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.code());
    }
    let asked = MetadataRequestTopic { name: Some(text("not/a/name")), ..Default::default() };
    let response = client.call(&MetadataRequest { topics: Some(vec![asked]), ..Default::default() }, 9).await;
    assert_eq!(response.topics[0].error_code, ErrorCode::INVALID_TOPIC_EXCEPTION.code());
    let all = client.call(&MetadataRequest { topics: None, ..Default::default() }, 9).await;
    assert_eq!(all.topics.len(), 14);
}

#[tokio::test(start_paused = true)]
async fn topics_are_created_and_deleted() {
    let cluster = cluster(Options::new().brokers(2)).await;
    let mut client = Client::to(&cluster, 1).await;
    for version in 2..=7 {
        let name = format!("t{version}");
        let configs = vec![CreatableTopicConfig { name: text("max.message.bytes"), value: Some(text("100")) }];
        let wanted = CreatableTopic { name: text(&name), num_partitions: 3, ..Default::default() };
        let wanted = CreatableTopic { replication_factor: 2, configs, ..wanted };
        let request = CreateTopicsRequest { topics: vec![wanted.clone()], ..Default::default() };
        let only_look = CreateTopicsRequest { validate_only: true, ..request.clone() };
        assert_eq!(client.call(&only_look, version).await.topics[0].error_code, 0);
        assert_eq!(client.call(&request, version).await.topics[0].error_code, 0, "v{version}");
        let again = client.call(&request, version).await;
        assert_eq!(again.topics[0].error_code, ErrorCode::TOPIC_ALREADY_EXISTS.code());
        let greedy = CreatableTopic { name: text("greedy"), replication_factor: 3, ..wanted };
        let greedy = client.call(&CreateTopicsRequest { topics: vec![greedy], ..Default::default() }, version).await;
        assert_eq!(greedy.topics[0].error_code, ErrorCode::INVALID_REPLICATION_FACTOR.code());
    }
    let too_large = batch(NOBODY, &[&"x".repeat(100)]);
    assert_eq!(client.produce("t2", 0, too_large).await.0, ErrorCode::MESSAGE_TOO_LARGE.code());
    for version in 1..=5 {
        let request = DeleteTopicsRequest { topic_names: vec![text("t2")], ..Default::default() };
        let expected = if version == 1 { ErrorCode::NONE } else { ErrorCode::UNKNOWN_TOPIC_OR_PARTITION };
        assert_eq!(client.call(&request, version).await.responses[0].error_code, expected.code());
    }
    assert!(cluster.log_end("t2", 0).is_err());
    assert_eq!(cluster.log_end("t3", 2).unwrap(), 0);

    let all = client.call(&MetadataRequest { topics: None, ..Default::default() }, 12).await;
    let by_id = DeleteTopicState { name: None, topic_id: all.topics[0].topic_id };
    let unknown = DeleteTopicState { topic_id: Uuid::from_u128(1), ..by_id.clone() };
    let request = DeleteTopicsRequest { topics: vec![by_id, unknown], ..Default::default() };
    let deleted = client.call(&request, 6).await;
    assert_eq!(deleted.responses[0].name, Some(text("t3")));
    assert_eq!(deleted.responses[1].error_code, ErrorCode::UNKNOWN_TOPIC_ID.code());
    let placed = |partition: i32| CreatableReplicaAssignment { partition_index: partition, ..Default::default() };
    let placed: Vec<_> = (0..2).map(|p| CreatableReplicaAssignment { broker_ids: vec![1, 2], ..placed(p) }).collect();
    let wanted = CreatableTopic { name: text("placed"), num_partitions: -1, ..Default::default() };
    let wanted = CreatableTopic { replication_factor: -1, assignments: placed, ..wanted };
    let made = client.call(&CreateTopicsRequest { topics: vec![wanted], ..Default::default() }, 7).await;
    assert_eq!((made.topics[0].num_partitions, made.topics[0].replication_factor), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn produced_records_are_fetched_in_every_version() {
    let cluster = cluster(Options::new()).await;
    cluster.create_topic("t", 2).unwrap();
    let mut client = Client::to(&cluster, 1).await;
    let id = {
        let asked = MetadataRequestTopic { name: Some(text("t")), ..Default::default() };
        client.call(&MetadataRequest { topics: Some(vec![asked]), ..Default::default() }, 12).await.topics[0].topic_id
    };
    for version in 3..=13 {
        let data = PartitionProduceData { index: 1, records: Some(batch(NOBODY, &["a", "b"])) };
        let data = TopicProduceData { partition_data: vec![data], ..Default::default() };
        let data = if version >= 13 {
            TopicProduceData { topic_id: id, ..data }
        } else {
            TopicProduceData { name: text("t"), ..data }
        };
        let request = ProduceRequest { acks: -1, topic_data: vec![data], ..Default::default() };
        let response = client.call(&request, version).await;
        assert_eq!(outcomes(&response), [(1, 0, i64::from(version - 3) * 2)], "v{version}");
    }
    for version in 4..=18 {
        let mut request = fetch("t", &[(1, 3)]);
        if version >= 13 {
            request.topics[0] = FetchTopic { topic: text(""), topic_id: id, ..request.topics[0].clone() };
        }
        let response = client.call(&request, version).await;
        let found = partitions(&response);
        assert_eq!((found.len(), found[0].error_code, found[0].high_watermark), (1, 0, 22), "v{version}");
        let records = found[0].records.clone().unwrap();
        assert_eq!(BatchHeader::parse(&records).unwrap().base_offset, 2, "the batch that holds the offset comes first");
        assert_eq!(records.len(), 10 * batch(NOBODY, &["a", "b"]).len());
        if version >= 13 {
            request.topics[0].topic_id = Uuid::from_u128(1);
            let response = client.call(&request, version).await;
            assert_eq!(partitions(&response)[0].error_code, ErrorCode::UNKNOWN_TOPIC_ID.code());
        }
    }
    let values: Vec<_> = cluster.records("t", 1).unwrap().into_iter().map(|record| record.value.unwrap()).collect();
    assert_eq!(values[20..], ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn rejects_each_kind_of_invalid_batch() {
    let cluster = cluster(Options::new().max_message_bytes(200)).await;
    cluster.create_topic("t", 1).unwrap();
    let mut client = Client::to(&cluster, 1).await;
    let good = batch(NOBODY, &["a", "b"]);
    let changed = |at: usize, to: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = to;
        bytes
    };
    let resealed = |mut bytes: Vec<u8>| {
        let crc = crc_fast::crc32_iscsi(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes
    };
    let two = [good.clone(), good.clone()].concat();
    for (bad, error) in [
        (changed(65, 0xff), ErrorCode::CORRUPT_MESSAGE),
        (changed(16, 1), ErrorCode::INVALID_RECORD),
        (resealed(changed(60, 3)), ErrorCode::INVALID_RECORD),
        (resealed(changed(26, 3)), ErrorCode::INVALID_RECORD),
        (resealed(changed(22, 0x20)), ErrorCode::INVALID_RECORD),
        (good[..good.len() - 1].to_vec(), ErrorCode::CORRUPT_MESSAGE),
        (two, ErrorCode::INVALID_RECORD),
        (Vec::new(), ErrorCode::INVALID_RECORD),
        (batch(NOBODY, &[&"x".repeat(200)]).to_vec(), ErrorCode::MESSAGE_TOO_LARGE),
    ] {
        assert_eq!(client.produce("t", 0, bad.clone().into()).await.0, error.code(), "{bad:?}");
    }
    assert_eq!(client.produce("t", 1, good.clone()).await.0, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.code());
    let response = client.call(&produce_request("t", &[(0, good.clone())], 2), 9).await;
    assert_eq!(outcomes(&response)[0].1, ErrorCode::INVALID_REQUIRED_ACKS.code());
    assert_eq!(cluster.log_end("t", 0).unwrap(), 0);
    assert_eq!(client.produce("t", 0, good).await, (0, 0));
}

#[tokio::test(start_paused = true)]
async fn stores_uncompressed_batch_bytes_unchanged() {
    let cluster = cluster(Options::new()).await;
    cluster.create_topic("t", 1).unwrap();
    let mut client = Client::to(&cluster, 1).await;
    let plain = batch(NOBODY, &["a", "b"]);
    assert_eq!(client.produce("t", 0, plain.clone()).await, (0, 0));
    let response = client.call(&fetch("t", &[(0, 0)]), 11).await;
    let stored = partitions(&response)[0].records.clone().unwrap();
    assert_eq!(stored[16..], plain[16..], "all fields but offset and epoch are kept");
}

#[cfg(feature = "zstd")]
#[tokio::test(start_paused = true)]
async fn validates_compressed_batch_and_stores_it_unchanged() {
    let cluster = cluster(Options::new()).await;
    cluster.create_topic("t", 1).unwrap();
    let mut client = Client::to(&cluster, 1).await;
    let mut builder = BatchBuilder::with_capacity(100);
    for value in ["a", "b"] {
        builder.append(&RecordParts { key: None, value: Some(value.as_bytes()), record: None }, 1000);
    }
    let sealed = builder.seal(&mut Compressor::new(Compression::Zstd(1)).unwrap()).unwrap();
    let bytes = [&sealed.header(ProducerStamp::NONE)[..], sealed.body()].concat();
    assert_eq!(client.produce("t", 0, bytes.clone().into()).await, (0, 0));
    assert_eq!(cluster.records("t", 0).unwrap()[1].value.as_deref(), Some(&b"b"[..]));
    let response = client.call(&fetch("t", &[(0, 0)]), 11).await;
    assert_eq!(partitions(&response)[0].records.clone().unwrap()[16..], bytes[16..]);

    let old = client.call(&produce_request("t", &[(0, bytes.clone().into())], -1), 6).await;
    assert_eq!(outcomes(&old)[0].1, ErrorCode::UNSUPPORTED_COMPRESSION_TYPE.code());
    let mut lying = bytes;
    lying[60] = 3;
    lying[26] = 2;
    let crc = crc_fast::crc32_iscsi(&lying[21..]);
    lying[17..21].copy_from_slice(&crc.to_be_bytes());
    let (error, _) = client.produce("t", 0, lying.into()).await;
    assert!([ErrorCode::INVALID_RECORD, ErrorCode::CORRUPT_MESSAGE].contains(&ErrorCode::new(error)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn idempotent_producers_are_recognised() {
    let cluster = cluster(Options::new()).await;
    cluster.create_topic("t", 1).unwrap();
    let mut client = Client::to(&cluster, 1).await;
    let first = client.call(&InitProducerIdRequest { transactional_id: None, ..Default::default() }, 4).await;
    let second = client.call(&InitProducerIdRequest { transactional_id: None, ..Default::default() }, 0).await;
    assert_ne!(first.producer_id, second.producer_id);
    let id = first.producer_id;
    assert_eq!(client.produce("t", 0, batch((id, 0, 0), &["a", "b"])).await, (0, 0));
    assert_eq!(client.produce("t", 0, batch((id, 0, 2), &["c"])).await, (0, 2));
    assert_eq!(client.produce("t", 0, batch((id, 0, 0), &["a", "b"])).await, (0, 0), "known again");
    let gap = client.produce("t", 0, batch((id, 0, 4), &["e"])).await;
    assert_eq!(gap.0, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER.code());
    assert_eq!(client.produce("t", 0, batch((id, 1, 0), &["d"])).await, (0, 3));
    let old = client.produce("t", 0, batch((id, 0, 3), &["d"])).await;
    assert_eq!(old.0, ErrorCode::INVALID_PRODUCER_EPOCH.code());
    assert_eq!(cluster.records("t", 0).unwrap().len(), 4);
    cluster.forget_producers("t", 0).unwrap();
    assert_eq!(client.produce("t", 0, batch((id, 0, 9), &["x"])).await, (0, 4));
}

#[tokio::test(start_paused = true)]
async fn transactional_ids_fence_older_producers() {
    let cluster = cluster(Options::new()).await;
    let mut client = Client::to(&cluster, 1).await;
    let init = InitProducerIdRequest { transactional_id: Some(text("tx")), ..Default::default() };
    let init = InitProducerIdRequest { transaction_timeout_ms: 60_000, ..init };
    let first = client.call(&init, 2).await;
    let second = client.call(&init, 4).await;
    assert_eq!((second.producer_id, second.producer_epoch), (first.producer_id, first.producer_epoch + 1));
    let stale = InitProducerIdRequest { producer_id: first.producer_id, producer_epoch: first.producer_epoch, ..init };
    assert_eq!(client.call(&stale, 4).await.error_code, ErrorCode::PRODUCER_FENCED.code());
    assert_eq!(client.call(&stale, 3).await.error_code, ErrorCode::INVALID_PRODUCER_EPOCH.code());
}

#[tokio::test(start_paused = true)]
async fn acks_zero_error_closes_connection_without_response() {
    let cluster = cluster(Options::new()).await;
    cluster.create_topic("t", 1).unwrap();
    let mut client = Client::to(&cluster, 1).await;
    client.send(&produce_request("t", &[(0, batch(NOBODY, &["a"]))], 0), 9).await;
    assert_eq!(
        client.produce("t", 0, batch(NOBODY, &["b"])).await,
        (0, 1),
        "the next response answers the next request"
    );
    client.send(&produce_request("t", &[(5, batch(NOBODY, &["a"]))], 0), 9).await;
    assert!(client.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn fetch_waits_for_data_or_timeout() {
    let cluster = cluster(Options::new()).await;
    cluster.create_topic("t", 1).unwrap();
    let mut client = Client::to(&cluster, 1).await;
    let begun = Instant::now();
    let response = client.call(&FetchRequest { max_wait_ms: 500, ..fetch("t", &[(0, 0)]) }, 11).await;
    assert_eq!((size(partitions(&response)[0]), begun.elapsed()), (0, Duration::from_millis(500)));

    client.send(&FetchRequest { max_wait_ms: 60_000, min_bytes: 100, ..fetch("t", &[(0, 0)]) }, 11).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.append("t", 0, &[Record::to("t").with_value("short")]).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.append("t", 0, &[Record::to("t").with_value("enough")]).unwrap();
    let response = client.receive::<FetchRequest>(11).await.unwrap();
    assert_eq!(partitions(&response)[0].high_watermark, 2);
    assert_eq!(begun.elapsed(), Duration::from_millis(2500));

    let begun = Instant::now();
    let response = client.call(&FetchRequest { max_wait_ms: 60_000, ..fetch("t", &[(0, 7)]) }, 11).await;
    assert_eq!(partitions(&response)[0].error_code, ErrorCode::OFFSET_OUT_OF_RANGE.code());
    assert!(begun.elapsed().is_zero(), "errors are answered without waiting");
}

#[tokio::test(start_paused = true)]
async fn fetch_limits_always_allow_first_batch() {
    let cluster = cluster(Options::new()).await;
    cluster.create_topic("t", 2).unwrap();
    let record = [Record::to("t").with_value("0123456789")];
    for partition in [0, 0, 0, 1, 1] {
        cluster.append("t", partition, &record).unwrap();
    }
    let mut client = Client::to(&cluster, 1).await;
    let all = client.call(&fetch("t", &[(0, 0), (1, 0)]), 11).await;
    let one = size(partitions(&all)[0]) / 3;
    let sizes = |response: &FetchResponse| partitions(response).into_iter().map(size).collect::<Vec<_>>();
    assert_eq!(sizes(&all), [3 * one, 2 * one]);
    let limit =
        |bytes: usize| FetchRequest { max_bytes: i32::try_from(bytes).unwrap(), ..fetch("t", &[(0, 0), (1, 0)]) };
    assert_eq!(sizes(&client.call(&limit(1), 11).await), [one, 0]);
    assert_eq!(sizes(&client.call(&limit(4 * one + 5), 11).await), [3 * one, one]);
    let mut narrow = fetch("t", &[(0, 0), (1, 0)]);
    narrow.topics[0].partitions[0].partition_max_bytes = i32::try_from(2 * one).unwrap();
    narrow.topics[0].partitions[1].partition_max_bytes = 1;
    assert_eq!(sizes(&client.call(&narrow, 11).await), [2 * one, 0]);
}

#[tokio::test(start_paused = true)]
async fn fetch_session_returns_only_changed_partitions() {
    let cluster = cluster(Options::new()).await;
    cluster.create_topic("t", 3).unwrap();
    let mut client = Client::to(&cluster, 1).await;
    let first = client.call(&FetchRequest { session_epoch: 0, ..fetch("t", &[(0, 0), (1, 0), (2, 0)]) }, 11).await;
    assert_eq!(partitions(&first).len(), 3);
    let id = first.session_id;
    assert_ne!(id, 0);
    let next = |epoch: i32, changed: &[(i32, i64)]| {
        let mut request = FetchRequest { session_id: id, session_epoch: epoch, ..fetch("t", changed) };
        request.topics.retain(|topic| !topic.partitions.is_empty());
        request
    };
    assert!(client.call(&next(1, &[]), 11).await.responses.is_empty());
    cluster.append("t", 1, &[Record::to("t").with_value("a")]).unwrap();
    let news = client.call(&next(2, &[]), 11).await;
    assert_eq!(partitions(&news).iter().map(|found| found.partition_index).collect::<Vec<_>>(), [1]);
    assert!(client.call(&next(3, &[(1, 1)]), 11).await.responses.is_empty());
    let journal = cluster.journal();
    assert_eq!(journal.last().unwrap().partitions.len(), 3, "the journal knows the session's partitions");
    let wrong = client.call(&next(3, &[]), 11).await;
    assert_eq!(wrong.error_code, ErrorCode::INVALID_FETCH_SESSION_EPOCH.code());
    cluster.kill(1).await.unwrap();
    cluster.restart(1).await.unwrap();
    let mut client = Client::to(&cluster, 1).await;
    let lost = client.call(&next(4, &[]), 11).await;
    assert_eq!(lost.error_code, ErrorCode::FETCH_SESSION_ID_NOT_FOUND.code());
}

#[tokio::test(start_paused = true)]
async fn session_forgets_partitions_in_every_version() {
    let cluster = cluster(Options::new()).await;
    cluster.create_topic("t", 2).unwrap();
    let mut client = Client::to(&cluster, 1).await;
    let asked = MetadataRequestTopic { name: Some(text("t")), ..Default::default() };
    let metadata = client.call(&MetadataRequest { topics: Some(vec![asked]), ..Default::default() }, 12).await;
    let id = metadata.topics[0].topic_id;
    for version in 7..=18 {
        let by_id = version >= 13;
        let mut request = FetchRequest { session_epoch: 0, ..fetch("t", &[(0, 0), (1, 0)]) };
        let mut forgotten = ForgottenTopic { partitions: vec![0], ..Default::default() };
        if by_id {
            request.topics[0] = FetchTopic { topic: text(""), topic_id: id, ..request.topics[0].clone() };
            forgotten.topic_id = id;
        } else {
            forgotten.topic = text("t");
        }
        let session = client.call(&request, version).await.session_id;
        let less = FetchRequest { session_id: session, session_epoch: 1, topics: Vec::new(), ..request };
        client.call(&FetchRequest { forgotten_topics_data: vec![forgotten], ..less }, version).await;
        assert_eq!(cluster.journal().last().unwrap().partitions, [TopicPartition::new("t", 1)], "v{version}");
    }
}

#[tokio::test(start_paused = true)]
async fn list_offsets_finds_offset_by_timestamp() {
    let cluster = cluster(Options::new()).await;
    cluster.create_topic("t", 1).unwrap();
    for base in [1000, 3000, 2000] {
        let records: Vec<_> =
            (0..2).map(|i| Record::to("t").with_value("v").with_timestamp_millis(base + i * 10)).collect();
        cluster.append("t", 0, &records).unwrap();
    }
    let mut client = Client::to(&cluster, 1).await;
    for version in 1..=10 {
        for (time, offset) in [(-1, 6), (-2, 0), (0, 0), (1001, 1), (1011, 2), (3001, 3), (9999, -1)] {
            let asked = ListOffsetsPartition { timestamp: time, current_leader_epoch: -1, ..Default::default() };
            let asked = ListOffsetsTopic { name: text("t"), partitions: vec![asked] };
            let response =
                client.call(&ListOffsetsRequest { topics: vec![asked], ..Default::default() }, version).await;
            let found = &response.topics[0].partitions[0];
            assert_eq!((found.error_code, found.offset), (0, offset), "v{version}, time {time}");
        }
    }
    let asked = ListOffsetsPartition { timestamp: -3, current_leader_epoch: -1, ..Default::default() };
    let asked = ListOffsetsTopic { name: text("t"), partitions: vec![asked] };
    let response = client.call(&ListOffsetsRequest { topics: vec![asked], ..Default::default() }, 7).await;
    let found = &response.topics[0].partitions[0];
    assert_eq!((found.offset, found.timestamp), (3, 3010));
}

#[tokio::test(start_paused = true)]
async fn log_append_time_comes_from_broker() {
    let cluster = cluster(Options::new()).await;
    cluster.create_topic_with("t", 1, [("message.timestamp.type", "LogAppendTime")]).unwrap();
    let mut client = Client::to(&cluster, 1).await;
    let response = client.call(&produce_request("t", &[(0, batch(NOBODY, &["a"]))], -1), 9).await;
    let time = response.responses[0].partition_responses[0].log_append_time_ms;
    let record = cluster.records("t", 0).unwrap().remove(0);
    assert_eq!((record.timestamp_millis, record.timestamp_type), (time, TimestampType::LogAppendTime));
    assert!(time > 1_000_000_000_000);
}

#[tokio::test(start_paused = true)]
async fn leader_change_raises_epoch_and_redirects_clients() {
    let cluster = cluster(Options::new().brokers(3).replication_factor(2)).await;
    cluster.create_topic("t", 1).unwrap();
    let mut first = Client::to(&cluster, 1).await;
    let mut second = Client::to(&cluster, 2).await;
    let mut third = Client::to(&cluster, 3).await;
    assert_eq!(first.produce("t", 0, batch(NOBODY, &["a", "b"])).await, (0, 0));
    cluster.move_leader("t", 0, 2).unwrap();
    let refused = first.call(&produce_request("t", &[(0, batch(NOBODY, &["c"]))], -1), 10).await;
    let partition = &refused.responses[0].partition_responses[0];
    assert_eq!(partition.error_code, ErrorCode::NOT_LEADER_OR_FOLLOWER.code());
    assert_eq!((partition.current_leader.leader_id, partition.current_leader.leader_epoch), (2, 1));
    assert_eq!(refused.node_endpoints[0].node_id, 2);
    assert_eq!(second.produce("t", 0, batch(NOBODY, &["c"])).await, (0, 2));

    let mut request = fetch("t", &[(0, 0)]);
    let id = {
        let all = first.call(&MetadataRequest { topics: None, ..Default::default() }, 12).await;
        assert_eq!(all.topics[0].partitions[0].leader_epoch, 1);
        all.topics[0].topic_id
    };
    request.topics[0] = FetchTopic { topic: text(""), topic_id: id, ..request.topics[0].clone() };
    let refused = third.call(&request, 16).await;
    let partition = partitions(&refused)[0];
    assert_eq!(partition.error_code, ErrorCode::NOT_LEADER_OR_FOLLOWER.code());
    assert_eq!((partition.current_leader.leader_id, refused.node_endpoints[0].node_id), (2, 2));
    // A follower serves, but not a reader that still takes it for the leader.
    assert!(size(partitions(&first.call(&request, 16).await)[0]) > 0);
    request.topics[0].partitions[0].current_leader_epoch = 0;
    let fenced = first.call(&request, 16).await;
    assert_eq!(partitions(&fenced)[0].error_code, ErrorCode::FENCED_LEADER_EPOCH.code());
    assert_eq!(partitions(&fenced)[0].current_leader.leader_id, 2);
    for (epoch, error) in
        [(0, ErrorCode::FENCED_LEADER_EPOCH), (1, ErrorCode::NONE), (2, ErrorCode::UNKNOWN_LEADER_EPOCH)]
    {
        request.topics[0].partitions[0].current_leader_epoch = epoch;
        assert_eq!(partitions(&second.call(&request, 16).await)[0].error_code, error.code());
    }
    for (epoch, end) in [(0, (0, 2)), (1, (1, 3)), (2, (-1, -1))] {
        let asked = OffsetForLeaderPartition { leader_epoch: epoch, current_leader_epoch: 1, ..Default::default() };
        let asked = OffsetForLeaderTopic { topic: text("t"), partitions: vec![asked] };
        for version in 2..=4 {
            let request = OffsetForLeaderEpochRequest { topics: vec![asked.clone()], ..Default::default() };
            let response = second.call(&request, version).await;
            let found = &response.topics[0].partitions[0];
            assert_eq!((found.leader_epoch, found.end_offset), end);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn truncation_and_deletion_change_visible_log() {
    let cluster = cluster(Options::new()).await;
    cluster.create_topic("t", 1).unwrap();
    for i in 0..5 {
        cluster.append("t", 0, &[Record::to("t").with_value(i.to_string())]).unwrap();
    }
    assert_eq!(cluster.delete_records("t", 0, 1).unwrap(), 1);
    assert_eq!(cluster.truncate("t", 0, 3).unwrap(), 3);
    assert_eq!((cluster.log_start("t", 0).unwrap(), cluster.log_end("t", 0).unwrap()), (1, 3));
    assert_eq!(cluster.leader_epoch("t", 0).unwrap(), 1);
    cluster.append("t", 0, &[Record::to("t").with_value("new")]).unwrap();
    let mut client = Client::to(&cluster, 1).await;
    let mut request = fetch("t", &[(0, 4)]);
    request.topics[0].partitions[0].last_fetched_epoch = 0;
    let response = client.call(&request, 12).await;
    let diverging = &partitions(&response)[0].diverging_epoch;
    assert_eq!((diverging.epoch, diverging.end_offset), (0, 3));
    let values: Vec<_> = cluster.records("t", 0).unwrap().into_iter().map(|record| record.value.unwrap()).collect();
    assert_eq!(values, ["1", "2", "new"]);
}

#[tokio::test(start_paused = true)]
async fn sink_discards_records_and_serves_prepared_batches() {
    let prepared = vec![batch(NOBODY, &["a", "b", "c"]), batch(NOBODY, &["d", "e"])];
    let cluster = cluster(Options::new().sink(true).prepared("source", prepared.clone())).await;
    cluster.create_topic("t", 1).unwrap();
    let mut client = Client::to(&cluster, 1).await;
    assert_eq!(client.produce("t", 0, Bytes::from_static(b"not looked at")).await.0, 0);
    assert_eq!(cluster.log_end("t", 0).unwrap(), 0);
    let response = client.call(&FetchRequest { max_bytes: 1, ..fetch("source", &[(0, 13)]) }, 11).await;
    let records = partitions(&response)[0].records.clone().unwrap();
    assert_eq!(BatchHeader::parse(&records).unwrap().base_offset, 13);
    assert_eq!(records[8..], prepared[1][8..]);
}

#[tokio::test(start_paused = true)]
async fn leader_names_preferred_read_replica_in_rack() {
    let options = Options::new().brokers(3).racks(["a", "b", "c"]).rack_aware(true).replication_factor(2);
    let cluster = cluster(options).await;
    cluster.create_topic("t", 1).unwrap();
    let mut leader = Client::to(&cluster, 1).await;
    let mut follower = Client::to(&cluster, 2).await;
    leader.produce("t", 0, batch(NOBODY, &["a", "b"])).await;
    leader.produce("t", 0, batch(NOBODY, &["c"])).await;
    let from = |rack: &str, offset| FetchRequest { rack_id: text(rack), ..fetch("t", &[(0, offset)]) };
    for (rack, version, preferred) in [("b", 11, 2), ("b", 10, -1), ("a", 11, -1), ("c", 11, -1), ("", 11, -1)] {
        let rack = if version < 11 { "" } else { rack };
        let response = leader.call(&from(rack, 0), version).await;
        let partition = partitions(&response)[0];
        assert_eq!(partition.preferred_read_replica, preferred, "{rack} v{version}");
        assert_eq!(size(partition) > 0, preferred < 0, "no records in a response that names a preferred replica");
    }
    let refused = follower.call(&fetch("t", &[(0, 0)]), 10).await;
    assert_eq!(partitions(&refused)[0].error_code, ErrorCode::NOT_LEADER_OR_FOLLOWER.code(), "before v11");
    cluster.lag_follower("t", 0, 2, Some(2)).unwrap();
    let response = follower.call(&from("b", 0), 11).await;
    assert_eq!((partitions(&response)[0].high_watermark, partitions(&response)[0].error_code), (2, 0));
    let response = follower.call(&from("b", 3), 11).await;
    assert_eq!(partitions(&response)[0].error_code, ErrorCode::OFFSET_OUT_OF_RANGE.code());
    let response = leader.call(&from("b", 3), 11).await;
    assert_eq!(partitions(&response)[0].preferred_read_replica, -1, "the follower's copy ends before");
    cluster.prefer_replica("t", 0, Some(9)).unwrap();
    assert_eq!(partitions(&leader.call(&from("c", 0), 11).await)[0].preferred_read_replica, 9);
    cluster.prefer_replica("t", 0, None).unwrap();
    assert_eq!(partitions(&leader.call(&from("c", 0), 11).await)[0].preferred_read_replica, -1);
}
