//! Tests of faults and dying brokers.

use tokio::time::{Duration, Instant};

use super::client::{Client, NOBODY, batch, cluster, outcomes, produce_request, text};
use crate::{
    ApiKey, ErrorCode,
    testkit::{Options, on, on_any_of},
    wire::messages::{ApiVersionsRequest, FindCoordinatorRequest, MetadataRequest, ProduceRequest},
};

#[tokio::test(start_paused = true)]
async fn error_fault_affects_only_its_partition() {
    let cluster = cluster(Options::new()).await;
    cluster.create_topic("t", 2).unwrap();
    let mut client = Client::to(&cluster, 1).await;
    let error = ErrorCode::KAFKA_STORAGE_ERROR;
    let fault = cluster.fault(on(ApiKey::Produce).partition("t", 0).times(2).error(error));
    let request = produce_request("t", &[(0, batch(NOBODY, &["a"])), (1, batch(NOBODY, &["b"]))], -1);
    for offset in 0..2 {
        let response = client.call(&request, 9).await;
        assert_eq!(outcomes(&response), [(0, error.code(), -1), (1, 0, offset)]);
    }
    assert_eq!(outcomes(&client.call(&request, 9).await), [(0, 0, 0), (1, 0, 2)]);
    assert_eq!(fault.hits(), 2);

    let after = ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND;
    let fault = cluster.fault(on(ApiKey::Produce).act_then_error(after).forever());
    let response = client.call(&request, 9).await;
    assert_eq!(outcomes(&response).iter().map(|outcome| outcome.1).collect::<Vec<_>>(), [after.code(); 2]);
    fault.clear();
    assert_eq!(outcomes(&client.call(&request, 9).await), [(0, 0, 2), (1, 0, 4)], "the batch is appended all the same");
}

#[tokio::test(start_paused = true)]
async fn connection_drops_before_or_after_request_handling() {
    let cluster = cluster(Options::new()).await;
    cluster.create_topic("t", 1).unwrap();
    let request = produce_request("t", &[(0, batch(NOBODY, &["a"]))], -1);
    for (fault, end) in [
        (on(ApiKey::Produce).drop_connection(), 0),
        (on(ApiKey::Produce).act_then_drop(), 1),
        (on(ApiKey::Produce).truncate_response(), 2),
    ] {
        let fault = cluster.fault(fault);
        let mut client = Client::to(&cluster, 1).await;
        assert!(client.try_call(&request, 9).await.is_none());
        assert_eq!((cluster.log_end("t", 0).unwrap(), fault.hits()), (end, 1));
    }
    cluster.fault(on(ApiKey::Produce).respond_garbage(&b"HTTP/1.1 400 Bad Request"[..]));
    let mut client = Client::to(&cluster, 1).await;
    client.send(&request, 9).await;
    client.send(&request, 9).await;
    assert_eq!(client.bytes(24).await, b"HTTP/1.1 400 Bad Request");
    assert!(client.receive::<ProduceRequest>(9).await.is_some(), "the connection stays open");
}

#[tokio::test(start_paused = true)]
async fn faults_delay_hang_and_throttle_responses() {
    let cluster = cluster(Options::new()).await;
    cluster.create_topic("t", 1).unwrap();
    let request = produce_request("t", &[(0, batch(NOBODY, &["a"]))], -1);
    let mut client = Client::to(&cluster, 1).await;
    let begun = Instant::now();
    let both = on(ApiKey::Produce).delay(Duration::from_secs(2)).delay_response(Duration::from_secs(1));
    cluster.fault(both.throttle(Duration::from_millis(70)));
    client.send(&request, 9).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.log_end("t", 0).unwrap(), 0);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(cluster.log_end("t", 0).unwrap(), 1);
    let response = client.receive::<ProduceRequest>(9).await.unwrap();
    assert_eq!((begun.elapsed(), response.throttle_time_ms), (Duration::from_secs(3), 70));

    let fault = cluster.fault(on_any_of([]).broker(1).hang().forever());
    client.send(&request, 9).await;
    fault.reached(1).await;
    let silence = tokio::time::timeout(Duration::from_secs(100), client.frame()).await;
    assert!(silence.is_err());
    let mut other = Client::to(&cluster, 1).await;
    other.send(&MetadataRequest::default(), 9).await;
    fault.reached(2).await;
    fault.clear();
    let mut other = Client::to(&cluster, 1).await;
    assert_eq!(other.call(&MetadataRequest { topics: None, ..Default::default() }, 9).await.topics.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn faults_apply_to_requests_without_partitions() {
    let cluster = cluster(Options::new()).await;
    let mut client = Client::to(&cluster, 1).await;
    cluster.fault(on(ApiKey::FindCoordinator).group("g").error(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS));
    let find = |group: &str| FindCoordinatorRequest { coordinator_keys: vec![text(group)], ..Default::default() };
    let other = client.call(&find("other"), 4).await;
    assert_eq!((other.coordinators[0].error_code, other.coordinators[0].node_id), (0, 1));
    let struck = client.call(&find("g"), 4).await;
    assert_eq!(struck.coordinators[0].error_code, ErrorCode::COORDINATOR_LOAD_IN_PROGRESS.code());
    for version in 0..=6 {
        let asked = FindCoordinatorRequest::default();
        let asked = if version < 4 {
            FindCoordinatorRequest { key: text("g"), ..asked }
        } else {
            FindCoordinatorRequest { coordinator_keys: vec![text("g")], ..asked }
        };
        let found = client.call(&asked, version).await;
        let node = if version < 4 { found.node_id } else { found.coordinators[0].node_id };
        assert_eq!(node, 1, "v{version}");
    }
    cluster.fault(on(ApiKey::ApiVersions).error(ErrorCode::UNSUPPORTED_VERSION));
    assert_eq!(client.call(&ApiVersionsRequest::default(), 2).await.error_code, 35);
}

#[tokio::test(start_paused = true)]
async fn killed_broker_moves_leaders_and_can_restart() {
    let cluster = cluster(Options::new().brokers(3)).await;
    cluster.create_topic("t", 3).unwrap();
    let mut first = Client::to(&cluster, 1).await;
    let mut second = Client::to(&cluster, 2).await;
    assert_eq!(first.produce("t", 0, batch(NOBODY, &["a"])).await, (0, 0));
    cluster.kill(1).await.unwrap();
    assert!(first.frame().await.is_none());
    assert!(Client::try_to(&cluster, 1).await.is_err());
    assert!(cluster.kill(1).await.is_err());
    assert_eq!((cluster.leader("t", 0).unwrap(), cluster.leader_epoch("t", 0).unwrap()), (Some(2), 1));
    assert_eq!(cluster.leader_epoch("t", 1).unwrap(), 0);
    let metadata = second.call(&MetadataRequest { topics: None, ..Default::default() }, 9).await;
    assert_eq!(metadata.brokers.len(), 2);
    assert_eq!(metadata.topics[0].partitions[0].offline_replicas[0], 1);
    assert_eq!(second.produce("t", 0, batch(NOBODY, &["b"])).await, (0, 1), "the broker's records are not lost");
    cluster.restart(1).await.unwrap();
    assert!(cluster.restart(1).await.is_err());
    let mut first = Client::to(&cluster, 1).await;
    assert_eq!(first.produce("t", 0, batch(NOBODY, &["c"])).await.0, ErrorCode::NOT_LEADER_OR_FOLLOWER.code());
    for broker in cluster.brokers() {
        cluster.kill(broker).await.unwrap();
    }
    assert_eq!(cluster.leader("t", 0).unwrap(), None);
    cluster.restart(3).await.unwrap();
    assert_eq!(cluster.leader("t", 0).unwrap(), Some(3));
}

#[tokio::test(start_paused = true)]
async fn disconnect_closes_only_current_connection() {
    let cluster = cluster(Options::new()).await;
    let mut client = Client::to(&cluster, 1).await;
    client.call(&ApiVersionsRequest::default(), 0).await;
    cluster.disconnect(1);
    assert!(client.frame().await.is_none());
    let mut client = Client::to(&cluster, 1).await;
    client.call(&ApiVersionsRequest::default(), 0).await;
    assert_eq!(cluster.requests(ApiKey::ApiVersions), 2);
    let journal = cluster.journal();
    assert_eq!(journal.iter().map(|seen| seen.connection).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(&*journal[0].client_id, "tests");
}
