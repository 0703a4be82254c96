//! Tests of responses that are well-formed and wrong: nothing panics, hangs or retries without
//! limit, and each record has exactly one result.

use std::sync::Arc;

use uuid::Uuid;

use super::*;
use crate::{
    DeliveryStatus, ErrorKind,
    error::ErrorCode,
    net::Network,
    testkit::tampered::tampered,
    wire::{
        ApiKey,
        byte_string::ByteString,
        messages::{
            ApiVersionsResponse, InitProducerIdResponse, MetadataResponse, ProduceResponse,
            api_versions_response::ApiVersion,
            produce_response::{LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse},
        },
    },
};

/// Maximum number of requests within a minute, for a client that waits for `retry.backoff.ms` or
/// longer between attempts.
const OFTEN: u64 = 200;

fn over(cluster: &Cluster, network: Arc<dyn Network>) -> ProducerBuilder {
    builder(cluster).network(network).delivery_timeout(Duration::from_secs(60))
}

fn partitions(response: &mut ProduceResponse) -> impl Iterator<Item = &mut PartitionProduceResponse> {
    response.responses.iter_mut().flat_map(|topic| &mut topic.partition_responses)
}

/// Sends some numbers in two steps, and returns the results.
async fn two_goes(producer: &Producer) -> Vec<Result<RecordMetadata, Error>> {
    let first = results(send_numbers(producer, 0..10).await).await;
    let second = results(send_numbers(producer, 10..20).await).await;
    first.into_iter().chain(second).collect()
}

#[track_caller]
fn all_in_the_log(cluster: &Cluster, results: Vec<Result<RecordMetadata, Error>>) {
    for result in results {
        result.unwrap();
    }
    assert_eq!(log(cluster, 0), numbers(0..20));
}

#[track_caller]
fn asked_seldom(cluster: &Cluster) {
    for key in [ApiKey::Produce, ApiKey::Metadata, ApiKey::InitProducerId, ApiKey::ApiVersions] {
        let asked = cluster.requests(key);
        assert!(asked <= OFTEN, "{key} was asked {asked} times");
    }
}

#[tokio::test(start_paused = true)]
async fn ignores_results_of_unrequested_partitions() {
    let cluster = cluster(2).await;
    let network = tampered(&cluster, ApiKey::Produce, |_, _, response: &mut ProduceResponse| {
        let mut strange = response.responses[0].clone();
        strange.topic_id = Uuid::from_u128(99);
        for topic in &mut response.responses {
            let refused = |index| PartitionProduceResponse { index, error_code: 29, ..Default::default() };
            let strangers = [1, 77, -5, i32::MAX, i32::MIN].map(refused);
            topic.partition_responses.splice(0..0, strangers);
        }
        response.responses.insert(0, strange);
        response.responses.push(TopicProduceResponse::default());
    });
    let producer = over(&cluster, network).build().await.unwrap();
    all_in_the_log(&cluster, two_goes(&producer).await);
    assert_eq!(cluster.requests(ApiKey::Produce), 2);
}

#[tokio::test(start_paused = true)]
async fn duplicate_partition_result_counts_once() {
    for (first, second) in [(0, 19), (19, 0), (0, 29), (7, 7)] {
        let cluster = cluster(1).await;
        let network = tampered(&cluster, ApiKey::Produce, move |round, _, response: &mut ProduceResponse| {
            // Every other response is correct.
            if round % 2 == 0 {
                let parts = &mut response.responses[0].partition_responses;
                let twin = PartitionProduceResponse { error_code: second, ..parts[0].clone() };
                parts[0].error_code = first;
                parts.push(twin);
            }
        });
        let producer = over(&cluster, network).build().await.unwrap();
        all_in_the_log(&cluster, two_goes(&producer).await);
        asked_seldom(&cluster);
    }
}

#[tokio::test(start_paused = true)]
async fn retries_partitions_missing_from_response() {
    for always in [false, true] {
        let cluster = cluster(1).await;
        let network = tampered(&cluster, ApiKey::Produce, move |round, _, response: &mut ProduceResponse| {
            if always || round % 3 == 0 {
                response.responses[0].partition_responses.clear();
            } else if round % 3 == 1 {
                response.responses.clear();
            }
        });
        let producer = over(&cluster, network).build().await.unwrap();
        if always {
            for result in results(send_numbers(&producer, 0..10).await).await {
                let error = result.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Timeout);
                assert_eq!(error.delivery_status(), Some(DeliveryStatus::PossiblyPersisted));
            }
            assert_eq!(log(&cluster, 0), numbers(0..10), "written once");
        } else {
            all_in_the_log(&cluster, two_goes(&producer).await);
        }
        asked_seldom(&cluster);
    }
}

#[tokio::test(start_paused = true)]
async fn negative_offsets_are_reported_as_none() {
    for offset in [-1, -7, i64::MIN, i64::MAX] {
        let cluster = cluster(1).await;
        let network = tampered(&cluster, ApiKey::Produce, move |_, _, response: &mut ProduceResponse| {
            for partition in partitions(response) {
                partition.base_offset = offset;
                partition.log_append_time_ms = offset;
                partition.log_start_offset = offset;
            }
        });
        let producer = over(&cluster, network).build().await.unwrap();
        let results = two_goes(&producer).await;
        if offset < 0 {
            assert!(results.iter().all(|result| result.as_ref().unwrap().offset.is_none()));
        }
        all_in_the_log(&cluster, results);
        assert_eq!(cluster.requests(ApiKey::Produce), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn unusable_api_versions_fail_records() {
    let ranges = [Some((9, 3)), Some((-5, -1)), Some((i16::MAX, i16::MIN)), Some((30_000, 31_000)), None];
    for range in ranges {
        let cluster = cluster(1).await;
        let network = tampered(&cluster, ApiKey::ApiVersions, move |_, _, response: &mut ApiVersionsResponse| {
            response.api_keys.retain(|api| api.api_key != ApiKey::Produce.code());
            response.api_keys.extend(range.map(|(min, max)| {
                let api = ApiVersion { api_key: ApiKey::Produce.code(), ..Default::default() };
                ApiVersion { min_version: min, max_version: max, ..api }
            }));
        });
        let producer = over(&cluster, network).build().await.unwrap();
        for result in two_goes(&producer).await {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnsupportedVersion, "{range:?}: {error}");
            assert_eq!(error.delivery_status(), Some(DeliveryStatus::NotPersisted));
        }
        assert_eq!(cluster.requests(ApiKey::Produce), 0);
        asked_seldom(&cluster);
    }
}

#[tokio::test(start_paused = true)]
async fn excessive_api_version_range_still_delivers() {
    let cluster = cluster(1).await;
    let network = tampered(&cluster, ApiKey::ApiVersions, |_, _, response: &mut ApiVersionsResponse| {
        for api in response.api_keys.iter_mut().filter(|api| api.api_key == ApiKey::Produce.code()) {
            (api.min_version, api.max_version) = (i16::MIN, i16::MAX);
        }
        let strange = ApiVersion { api_key: -3, min_version: 7, max_version: -7 };
        response.api_keys.push(strange);
    });
    let producer = over(&cluster, network).build().await.unwrap();
    all_in_the_log(&cluster, two_goes(&producer).await);
}

#[tokio::test(start_paused = true)]
async fn invalid_producer_id_is_never_used() {
    for (id, epoch) in [(-1, -1), (-1, 0), (5, -1), (i64::MIN, i16::MIN)] {
        for always in [false, true] {
            let cluster = cluster(1).await;
            let network =
                tampered(&cluster, ApiKey::InitProducerId, move |round, _, answer: &mut InitProducerIdResponse| {
                    if always || round < 3 {
                        answer.producer_id = id;
                        answer.producer_epoch = epoch;
                    }
                });
            let producer = over(&cluster, network).build().await.unwrap();
            if !always {
                all_in_the_log(&cluster, two_goes(&producer).await);
                continue;
            }
            for result in results(send_numbers(&producer, 0..10).await).await {
                let error = result.unwrap_err();
                assert_eq!(error.delivery_status(), Some(DeliveryStatus::NotPersisted), "{error}");
            }
            assert_eq!(cluster.requests(ApiKey::Produce), 0);
            asked_seldom(&cluster);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn changing_topic_id_limits_request_rate() {
    // Brokers do not know the topic by its id; by name it works.
    for by_name in [true, false] {
        let options = if by_name { Options::new().max_version(ApiKey::Produce, 12) } else { Options::new() };
        let cluster = cluster_with(options, 1).await;
        let network = tampered(&cluster, ApiKey::Metadata, |round, _, response: &mut MetadataResponse| {
            for topic in &mut response.topics {
                topic.topic_id = Uuid::from_u128(1000 + u128::from(round));
            }
        });
        let producer = over(&cluster, network).property("metadata.max.age.ms", "500").build().await.unwrap();
        if by_name {
            let mut deliveries = Vec::new();
            for number in 0..20 {
                deliveries.extend(send_numbers(&producer, number..number + 1).await);
                tokio::time::sleep(ms(300)).await;
            }
            all_in_the_log(&cluster, results(deliveries).await);
        } else {
            for result in results(send_numbers(&producer, 0..10).await).await {
                let error = result.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
                assert_eq!(error.delivery_status(), Some(DeliveryStatus::NotPersisted));
            }
            assert!(log(&cluster, 0).is_empty());
        }
        // In any case there is a request every half second.
        let asked = [ApiKey::Produce, ApiKey::Metadata].map(|key| cluster.requests(key));
        assert!(asked.iter().all(|asked| *asked <= OFTEN + 120), "{asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn ignores_leader_hints_to_unreachable_brokers() {
    let nowhere = [
        (99, None, 0),
        (99, Some("127.0.0.1"), 1),
        (99, Some(""), 0),
        (1, Some("127.0.0.1"), -1),
        (-1, Some("x"), 70_000),
    ];
    for (node, host, port) in nowhere {
        for always in [false, true] {
            let cluster = cluster_with(Options::new().brokers(2), 1).await;
            cluster.move_leader(TOPIC, 0, 1).unwrap();
            let epoch = cluster.leader_epoch(TOPIC, 0).unwrap() + 1;
            let network = tampered(&cluster, ApiKey::Produce, move |round, _, response: &mut ProduceResponse| {
                if !always && round >= 5 {
                    return;
                }
                for partition in partitions(response) {
                    partition.error_code = ErrorCode::NOT_LEADER_OR_FOLLOWER.code();
                    partition.base_offset = -1;
                    let leader = LeaderIdAndEpoch { leader_id: node, ..Default::default() };
                    partition.current_leader = LeaderIdAndEpoch { leader_epoch: epoch, ..leader };
                }
                response.node_endpoints.clear();
                response.node_endpoints.extend(host.map(|host| {
                    let endpoint = NodeEndpoint { node_id: node, ..Default::default() };
                    NodeEndpoint { host: ByteString::from_static(host), port, ..endpoint }
                }));
            });
            let producer = over(&cluster, network).build().await.unwrap();
            if always {
                for result in results(send_numbers(&producer, 0..10).await).await {
                    let error = result.unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
                    assert_eq!(error.delivery_status(), Some(DeliveryStatus::PossiblyPersisted));
                }
            } else {
                // A leader with an address and a newer epoch is believed until another is elected
                // after it.
                let elections = async {
                    tokio::time::sleep(ms(5000)).await;
                    cluster.move_leader(TOPIC, 0, 2).unwrap();
                    cluster.move_leader(TOPIC, 0, 1).unwrap();
                };
                let (results, ()) = tokio::join!(two_goes(&producer), elections);
                all_in_the_log(&cluster, results);
            }
            asked_seldom(&cluster);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn waits_while_leader_id_is_unknown() {
    for leader in [99, -7, i32::MIN] {
        let cluster = cluster(1).await;
        let network = tampered(&cluster, ApiKey::Metadata, move |round, _, response: &mut MetadataResponse| {
            if round < 10 {
                for partition in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                    partition.leader_id = leader;
                }
            }
        });
        let producer = over(&cluster, network).build().await.unwrap();
        all_in_the_log(&cluster, two_goes(&producer).await);
        asked_seldom(&cluster);
    }
}
