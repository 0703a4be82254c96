use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::peer::{
    Asked, Reply, accept, accept_agreed, address, api_versions, brokers, connected, in_secs, listen, serve, settings,
    to,
};
use crate::{
    cluster::{Client, ConnectionKind},
    error::{DeliveryStatus, ErrorCode, ErrorKind},
    net::{BoxFuture, Endpoint, MemoryNetwork, Network, Stream},
    wire::{
        ApiKey,
        byte_string::ByteString,
        messages::{
            ApiVersionsRequest, ApiVersionsResponse, HeartbeatRequest, HeartbeatResponse,
            api_versions_response::{ApiVersion, FinalizedFeatureKey},
        },
    },
};

/// The in-memory network with two properties of a real one: names with several addresses, and hosts
/// that never answer.
#[derive(Clone, Debug, Default)]
struct Rough {
    inner: MemoryNetwork,
    attempts: Arc<AtomicUsize>,
}

impl Network for Rough {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<Endpoint>>> {
        Box::pin(async move {
            match host {
                "nowhere" => Err(io::Error::other("no such host")),
                "both" => Ok(vec![SocketAddr::new(IpAddr::from([0_u16; 8]), port).into(), address(port).into()]),
                _ => self.inner.resolve(host, port).await,
            }
        })
    }

    fn connect(&self, to: Endpoint) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        match to.port() {
            // This host drops all packets.
            1 => Box::pin(std::future::pending()),
            _ => self.inner.connect(to),
        }
    }
}

fn only_metadata(ports: &'static [u16]) -> impl Fn(&Asked) -> Reply {
    move |asked| match asked.key {
        ApiKey::Metadata => Reply::Frame(asked.frame(&brokers(ports))),
        _ => Reply::Silence,
    }
}

#[tokio::test(start_paused = true)]
async fn skips_unreachable_bootstrap_addresses() {
    let network = Rough::default();
    let _peer = serve(listen(&network.inner, 9092), only_metadata(&[9092]));
    for seed in 0..4 {
        let mut settings = settings(&network, &[1, 2, 9092]);
        settings.bootstrap_servers.push("nowhere:9092".to_owned());
        settings.seed = Some(seed);
        let client = Client::new(settings).unwrap();
        let metadata = client.newer_metadata(0, in_secs(5)).await.unwrap();
        assert!(metadata.brokers.contains_key(&9092));
        assert_eq!(metadata.controller, Some(9092));
    }
}

#[tokio::test(start_paused = true)]
async fn tries_every_address_of_host_name() {
    let network = Rough::default();
    let _peer = serve(listen(&network.inner, 9092), only_metadata(&[9092]));
    let mut settings = settings(&network, &[]);
    settings.bootstrap_servers = vec!["both:9092".to_owned()];
    let client = Client::new(settings).unwrap();
    client.newer_metadata(0, in_secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn timeout_error_names_addresses_and_causes() {
    let network = Rough::default();
    let mut settings = settings(&network, &[1, 2]);
    settings.bootstrap_servers.push("nowhere:3".to_owned());
    let client = Client::new(settings).unwrap();
    let error = client.topic("orders", in_secs(60)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    for part in
        ["no broker could be reached", "127.0.0.1:1: ", "127.0.0.1:2: ", "no listener on", "nowhere:3", "no such host"]
    {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(client.metadata_failure().unwrap().kind(), ErrorKind::Network);
    let error = client.newer_metadata(0, in_secs(1)).await.unwrap_err();
    assert!(error.to_string().contains("no broker could be reached"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn failing_addresses_are_tried_with_backoff() {
    let network = Rough::default();
    let _client = Client::new(settings(&network, &[2])).unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let attempts = network.attempts.load(Ordering::Relaxed);
    // At the maximum of a second each, apart from the jitter and the first ones.
    assert!((50..90).contains(&attempts), "{attempts}");
}

#[tokio::test(start_paused = true)]
async fn immediate_disconnect_does_not_cause_connection_loop() {
    let network = Rough::default();
    let _peer = serve(listen(&network.inner, 9092), |_| Reply::HangUp);
    let _client = Client::new(settings(&network, &[9092])).unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let attempts = network.attempts.load(Ordering::Relaxed);
    assert!((30..90).contains(&attempts), "{attempts}");
}

#[tokio::test(start_paused = true)]
async fn uses_api_versions_version_from_broker() {
    let network = MemoryNetwork::new();
    let mut listener = listen(&network, 9092);
    let client = Client::new(settings(&network, &[9092])).unwrap();
    let mut link = accept(&mut listener).await;
    let asked = link.request().await.unwrap();
    assert_eq!((asked.key, asked.version), (ApiKey::ApiVersions, 5));
    let request: ApiVersionsRequest = asked.decode();
    assert_eq!(&*request.client_software_name, "ottla");
    let apis = api_versions().api_keys.into_iter().map(|api| match api.api_key {
        18 => ApiVersion { max_version: 2, ..api },
        _ => api,
    });
    let refused = ApiVersionsResponse {
        error_code: ErrorCode::UNSUPPORTED_VERSION.code(),
        api_keys: apis.collect(),
        ..Default::default()
    };
    link.answer(&Asked { version: 0, ..asked }, &refused).await;
    let asked = link.request().await.unwrap();
    assert_eq!((asked.key, asked.version), (ApiKey::ApiVersions, 2));
    link.answer(&asked, &api_versions()).await;
    let asked = link.request().await.unwrap();
    assert_eq!(asked.key, ApiKey::Metadata);
    link.answer(&asked, &brokers(&[9092])).await;
    client.newer_metadata(0, in_secs(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn falls_back_to_version_zero_without_range() {
    let network = MemoryNetwork::new();
    let mut listener = listen(&network, 9092);
    let _client = Client::new(settings(&network, &[9092])).unwrap();
    let mut link = accept(&mut listener).await;
    let asked = link.request().await.unwrap();
    link.raw(&asked.frame_of(&[0, 35, 0, 0, 0, 0])).await;
    assert_eq!(link.request().await.unwrap().version, 0);
}

#[tokio::test(start_paused = true)]
async fn reconnects_with_version_zero_after_disconnect() {
    let network = MemoryNetwork::new();
    let mut listener = listen(&network, 9092);
    let _client = Client::new(settings(&network, &[9092])).unwrap();
    let mut link = accept(&mut listener).await;
    assert_eq!(link.request().await.unwrap().version, 5);
    drop(link);
    let mut link = accept(&mut listener).await;
    assert_eq!(link.request().await.unwrap().version, 0);
}

#[tokio::test(start_paused = true)]
async fn error_names_http_or_tls_peer() {
    let network = MemoryNetwork::new();
    for (port, bytes, name) in
        [(80, &b"HTTP/1.1 400 Bad Request"[..], "HTTP"), (443, &[0x15, 3, 1, 0, 2, 2, 10], "TLS")]
    {
        let mut listener = listen(&network, port);
        tokio::spawn(async move {
            while let Ok(stream) = listener.accept().await {
                let mut link = super::peer::Link(stream);
                link.request().await.unwrap();
                link.raw(bytes).await;
            }
        });
        let client = Client::new(settings(&network, &[port])).unwrap();
        let error = client.newer_metadata(0, in_secs(5)).await.unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn missing_common_version_fails_with_both_ranges() {
    let network = MemoryNetwork::new();
    let mut listener = listen(&network, 9092);
    let client = Client::new(settings(&network, &[9092])).unwrap();
    let mut link = accept(&mut listener).await;
    let asked = link.request().await.unwrap();
    let future = ApiVersion { api_key: 3, min_version: 50, max_version: 51 };
    link.answer(&asked, &ApiVersionsResponse { api_keys: vec![future], ..Default::default() }).await;
    let error = client.newer_metadata(0, in_secs(3600)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedVersion);
    assert!(error.to_string().contains("50 to 51"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn features_are_known_after_connecting() {
    let network = MemoryNetwork::new();
    let mut listener = listen(&network, 9092);
    let client = Client::new(settings(&network, &[9092])).unwrap();
    let mut link = accept(&mut listener).await;
    let asked = link.request().await.unwrap();
    let feature = FinalizedFeatureKey {
        name: ByteString::from_static("transaction.version"),
        max_version_level: 2,
        ..Default::default()
    };
    let response =
        ApiVersionsResponse { finalized_features_epoch: 9, finalized_features: vec![feature], ..api_versions() };
    link.answer(&asked, &response).await;
    let asked = link.request().await.unwrap();
    link.answer(&asked, &brokers(&[9092])).await;
    client.newer_metadata(0, in_secs(1)).await.unwrap();
    assert_eq!(client.feature_with_epoch("transaction.version"), Some((2, 9)));
    assert_eq!(client.feature_with_epoch("share.version"), None);
}

#[tokio::test(start_paused = true)]
async fn callers_share_connection_of_same_kind() {
    let network = MemoryNetwork::new();
    let peer = serve(listen(&network, 9092), only_metadata(&[9092, 9093]));
    let client = connected(&network, &[9092]).await;
    let mut listener = listen(&network, 9093);
    let calls = (0..10).map(|i| {
        let client = client.clone();
        let kind = if i < 5 { ConnectionKind::Group } else { ConnectionKind::Join };
        tokio::spawn(async move { client.send(to(9093, kind, 30), |_| HeartbeatRequest::default()).await })
    });
    let calls = calls.collect::<Vec<_>>();
    for _ in 0..2 {
        let mut link = accept_agreed(&mut listener).await;
        for _ in 0..5 {
            let asked = link.request().await.unwrap();
            link.answer(&asked, &HeartbeatResponse::default()).await;
        }
        // Kept open while the other one is served.
        tokio::spawn(async move { link.request().await.is_none() });
    }
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert!(!peer.is_finished());
}

#[tokio::test(start_paused = true)]
async fn connection_wait_is_limited_by_timeout() {
    let network = Rough::default();
    let _peer = serve(listen(&network.inner, 9092), only_metadata(&[9092, 1]));
    let client = connected(&network, &[9092]).await;
    let error = client.send(to(1, ConnectionKind::Main, 3), |_| HeartbeatRequest::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery_status()), (ErrorKind::Timeout, Some(DeliveryStatus::NotPersisted)));
    let error = client.send(to(7, ConnectionKind::Main, 3), |_| HeartbeatRequest::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery_status()), (ErrorKind::Network, Some(DeliveryStatus::NotPersisted)));
    assert!(error.to_string().contains("broker 7 is not in the cluster's metadata"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn rejects_missing_or_invalid_bootstrap_servers() {
    for servers in [vec![], vec!["localhost".to_owned()]] {
        let mut settings = settings(&MemoryNetwork::new(), &[]);
        settings.bootstrap_servers = servers;
        assert_eq!(Client::new(settings).unwrap_err().kind(), ErrorKind::Configuration);
    }
}
