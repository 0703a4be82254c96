use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use super::peer::{
    Asked, Reply, accept, accept_agreed, address, api_versions, brokers, connected, in_secs, listen, serve, settings,
    to, topic,
};
use crate::{
    cluster::{Client, ConnectionKind},
    error::{ErrorCode, ErrorKind},
    net::MemoryNetwork,
    wire::{
        ApiKey,
        fetch::NodeEndpoint,
        messages::{
            ApiVersionsRequest, HeartbeatRequest, HeartbeatResponse, MetadataRequest, MetadataResponse,
            metadata_response::MetadataResponseTopic,
        },
    },
};

/// Answers metadata requests with the closure's result for the request and its number.
fn metadata(
    answer: impl Fn(&MetadataRequest, usize) -> MetadataResponse + Send + Sync + 'static,
) -> impl Fn(&Asked) -> Reply {
    let count = AtomicUsize::new(0);
    move |asked| match asked.key {
        ApiKey::Metadata => {
            let number = count.fetch_add(1, Ordering::Relaxed);
            Reply::Frame(asked.frame(&answer(&asked.decode(), number)))
        }
        _ => Reply::Silence,
    }
}

fn asked_names(request: &MetadataRequest) -> Option<Vec<String>> {
    let topics = request.topics.as_ref()?;
    Some(topics.iter().filter_map(|topic| Some(topic.name.as_ref()?.to_string())).collect())
}

#[tokio::test(start_paused = true)]
async fn waits_until_missing_topic_exists() {
    let network = MemoryNetwork::new();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let _peer = serve(
        listen(&network, 9092),
        metadata(move |request, number| {
            log.lock().unwrap().push(asked_names(request));
            let there = match number {
                0 => return brokers(&[9092]),
                1 => MetadataResponseTopic {
                    error_code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.code(),
                    ..topic("orders", &[])
                },
                2 => {
                    MetadataResponseTopic { error_code: ErrorCode::LEADER_NOT_AVAILABLE.code(), ..topic("orders", &[]) }
                }
                _ => topic("orders", &[(9092, 0)]),
            };
            MetadataResponse { topics: vec![there], ..brokers(&[9092]) }
        }),
    );
    let client = connected(&network, &[9092]).await;
    let metadata = client.topic("orders", in_secs(60)).await.unwrap();
    assert_eq!(metadata.leader("orders", 0), Some((9092, 0)));
    assert!(client.metadata_failure().is_none());
    assert_eq!(client.topic("orders", in_secs(0)).await.unwrap().version, metadata.version, "it is there by now");
    let asked = asked.lock().unwrap();
    assert_eq!(asked[0].as_deref(), Some(&[][..]));
    assert_eq!(asked.len(), 4);
    assert!(asked[1..].iter().all(|names| names.as_deref() == Some(&["orders".to_owned()][..])));
}

#[tokio::test(start_paused = true)]
async fn missing_topic_returns_unknown_topic_error() {
    let network = MemoryNetwork::new();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let _peer = serve(
        listen(&network, 9092),
        metadata(move |_, number| {
            counted.store(number, Ordering::Relaxed);
            let unknown = MetadataResponseTopic {
                error_code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.code(),
                ..topic("orders", &[])
            };
            MetadataResponse { topics: vec![unknown], ..brokers(&[9092]) }
        }),
    );
    let client = connected(&network, &[9092]).await;
    let error = client.topic("orders", in_secs(60)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownTopicOrPartition);
    assert!(error.to_string().contains("\"orders\""), "{error}");
    let count = count.load(Ordering::Relaxed);
    assert!((50..90).contains(&count), "{count} requests: about one a second, once backed off");
}

#[tokio::test(start_paused = true)]
async fn unauthorized_topic_fails_immediately_and_is_retried() {
    let network = MemoryNetwork::new();
    let _peer = serve(
        listen(&network, 9092),
        metadata(|request, number| {
            let Some(&[_]) = asked_names(request).as_deref() else { return brokers(&[9092]) };
            MetadataResponse {
                topics: vec![if number < 3 {
                    MetadataResponseTopic {
                        error_code: ErrorCode::TOPIC_AUTHORIZATION_FAILED.code(),
                        ..topic("secret", &[])
                    }
                } else {
                    topic("secret", &[(9092, 0)])
                }],
                ..brokers(&[9092])
            }
        }),
    );
    let client = connected(&network, &[9092]).await;
    for _ in 0..2 {
        let error = client.topic("secret", in_secs(3600)).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.code()),
            (ErrorKind::Authorization, Some(ErrorCode::TOPIC_AUTHORIZATION_FAILED))
        );
    }
    client.topic("secret", in_secs(10)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn uses_leader_from_response_immediately() {
    let network = MemoryNetwork::new();
    let _peer = serve(
        listen(&network, 9092),
        metadata(|_, _| MetadataResponse { topics: vec![topic("orders", &[(9092, 3)])], ..brokers(&[9092]) }),
    );
    let client = connected(&network, &[9092]).await;
    client.topic("orders", in_secs(10)).await.unwrap();
    let mut changes = client.metadata_changes();
    let seen = *changes.borrow_and_update();
    let endpoint = NodeEndpoint { node: 7, host: "127.0.0.1".to_owned(), port: 9093, rack: None };
    client.learn_leader("orders", 0, 7, 4, std::slice::from_ref(&endpoint));
    assert_eq!(client.metadata().leader("orders", 0), Some((7, 4)));
    assert!(*changes.borrow_and_update() > seen);
    let version = client.metadata().version;
    let next = client.newer_metadata(version, in_secs(10)).await.unwrap();
    assert_eq!(next.leader("orders", 0), Some((7, 4)), "the refresh still tells the old leader");
}

#[tokio::test(start_paused = true)]
async fn fetches_all_topics_when_requested() {
    let network = MemoryNetwork::new();
    let _peer = serve(
        listen(&network, 9092),
        metadata(|request, _| {
            let topics = ["a", "b"].map(|name| topic(name, &[(9092, 0)])).to_vec();
            MetadataResponse { topics: if request.topics.is_none() { topics } else { Vec::new() }, ..brokers(&[9092]) }
        }),
    );
    let client = connected(&network, &[9092]).await;
    client.want_all_topics(true);
    client.topic("b", in_secs(1)).await.unwrap();
    assert!(client.metadata().topic("a").is_some());
}

#[tokio::test(start_paused = true)]
async fn moved_broker_is_followed_on_new_connection() {
    let network = MemoryNetwork::new();
    let moved = Arc::new(AtomicUsize::new(9093));
    let port = Arc::clone(&moved);
    let _peer = serve(
        listen(&network, 9092),
        metadata(move |_, _| {
            let mut response = brokers(&[9092, 9093]);
            response.brokers[1].port = i32::try_from(port.load(Ordering::Relaxed)).unwrap();
            response
        }),
    );
    let client = connected(&network, &[9092]).await;
    let (mut old, mut new) = (listen(&network, 9093), listen(&network, 9094));
    let call = |client: &Client| {
        let client = client.clone();
        tokio::spawn(
            async move { client.send(to(9093, ConnectionKind::Group, 30), |_| HeartbeatRequest::default()).await },
        )
    };
    let first = call(&client);
    let mut link = accept_agreed(&mut old).await;
    let asked = link.request().await.unwrap();
    moved.store(9094, Ordering::Relaxed);
    client.newer_metadata(client.metadata().version, in_secs(10)).await.unwrap();
    let second = call(&client);
    let mut next = accept_agreed(&mut new).await;
    let asked_there = next.request().await.unwrap();
    link.answer(&asked, &crate::wire::messages::HeartbeatResponse::default()).await;
    next.answer(&asked_there, &crate::wire::messages::HeartbeatResponse::default()).await;
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    assert!(link.request().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn replaced_cluster_is_reached_by_rebootstrap() {
    let network = MemoryNetwork::new();
    let first = serve(listen(&network, 9092), metadata(|_, _| brokers(&[9093])));
    let known = serve(listen(&network, 9093), metadata(|_, _| brokers(&[9093])));
    let client = connected(&network, &[9092]).await;
    client.newer_metadata(client.metadata().version, in_secs(10)).await.unwrap();
    for gone in [first, known] {
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
    }
    let _second = serve(listen(&network, 9092), metadata(|_, _| brokers(&[9094])));
    let _other = serve(listen(&network, 9094), metadata(|_, _| brokers(&[9094])));
    let metadata = client.newer_metadata(client.metadata().version, in_secs(10)).await.unwrap();
    assert_eq!(metadata.brokers.keys().collect::<Vec<_>>(), [&9094]);
}

#[tokio::test(start_paused = true)]
async fn rebootstrap_required_error_causes_rebootstrap() {
    let network = MemoryNetwork::new();
    let _first =
        serve(listen(&network, 9092), metadata(|_, number| brokers(if number == 0 { &[9093] } else { &[9094] })));
    let stale = serve(
        listen(&network, 9093),
        metadata(|_, _| MetadataResponse { error_code: ErrorCode::REBOOTSTRAP_REQUIRED.code(), ..brokers(&[]) }),
    );
    let client = connected(&network, &[9092]).await;
    let metadata = client.newer_metadata(client.metadata().version, in_secs(10)).await.unwrap();
    assert_eq!(metadata.brokers.keys().collect::<Vec<_>>(), [&9094]);
    assert!(!stale.is_finished());
}

/// A cluster may take over the ids and addresses of another that still runs (KIP-1242).
#[tokio::test(start_paused = true)]
async fn connections_to_former_cluster_end() {
    let network = MemoryNetwork::new();
    let of = |cluster_id: &str| MetadataResponse { cluster_id: Some(cluster_id.into()), ..brokers(&[9094]) };
    let _bootstrap = serve(listen(&network, 9092), metadata(move |_, _| of("a")));
    let mut broker = listen(&network, 9094);
    let client = connected(&network, &[9092]).await;
    let asking = client.clone();
    let asking =
        tokio::spawn(
            async move { asking.send(to(9094, ConnectionKind::Main, 60), |_| HeartbeatRequest::default()).await },
        );
    let mut link = accept(&mut broker).await;
    let asked = link.request().await.unwrap();
    let agreement: ApiVersionsRequest = asked.decode();
    assert_eq!((agreement.cluster_id.as_deref(), agreement.node_id), (Some("a"), 9094));
    link.answer(&asked, &api_versions()).await;
    let asked = link.request().await.unwrap();
    link.answer(&asked, &HeartbeatResponse::default()).await;
    asking.await.unwrap().unwrap();
    for (cluster_id, ends) in [("a", false), ("b", true)] {
        let (client, version) = (client.clone(), client.metadata().version);
        let newer = tokio::spawn(async move { client.newer_metadata(version, in_secs(10)).await });
        let asked = link.request().await.unwrap();
        assert_eq!(asked.key, ApiKey::Metadata);
        link.answer(&asked, &of(cluster_id)).await;
        newer.await.unwrap().unwrap();
        assert_eq!(!link.silent_for(std::time::Duration::from_secs(5)).await, ends, "{cluster_id}");
    }
}

#[tokio::test(start_paused = true)]
async fn disabled_rebootstrap_uses_only_known_brokers() {
    let network = MemoryNetwork::new();
    let _peer = serve(listen(&network, 9092), metadata(|_, _| brokers(&[9093])));
    let mut settings = settings(&network, &[9092]);
    settings.metadata_rebootstrap_trigger = None;
    let client = Client::new(settings).unwrap();
    client.newer_metadata(0, in_secs(10)).await.unwrap();
    let error = client.newer_metadata(client.metadata().version, in_secs(600)).await.unwrap_err();
    assert!(error.to_string().contains(&address(9093).to_string()), "{error}");
    assert!(!error.to_string().contains("9092"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn frozen_broker_does_not_block_metadata_refresh() {
    let network = MemoryNetwork::new();
    let _first = serve(listen(&network, 9092), metadata(|_, _| brokers(&[9093, 9094])));
    let _frozen = serve(listen(&network, 9093), |_| Reply::Silence);
    let mut settings = settings(&network, &[9092]);
    settings.metadata_rebootstrap_trigger = None;
    let client = Client::new(settings).unwrap();
    let version = client.newer_metadata(0, in_secs(10)).await.unwrap().version;
    let late = serve(listen(&network, 9094), metadata(|_, _| brokers(&[9093, 9094, 9095])));
    // Occupied by a request that is never answered: the only open connection.
    let busy = client.clone();
    tokio::spawn(async move { busy.send(to(9093, ConnectionKind::Main, 600), |_| HeartbeatRequest::default()).await });
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let metadata = client.newer_metadata(version, in_secs(10)).await.unwrap();
    assert!(metadata.brokers.contains_key(&9095));
    assert!(!late.is_finished());
}
