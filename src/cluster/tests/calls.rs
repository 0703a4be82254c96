use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};

use super::peer::{Asked, Reply, brokers, connected, in_secs, listen, serve, to};
use crate::{
    cluster::{Client, ConnectionKind, CoordinatorKind, RawRequest, Route, VersionBounds},
    error::{DeliveryStatus, ErrorCode, ErrorKind, Result},
    net::MemoryNetwork,
    wire::{
        ApiKey,
        byte_string::ByteString,
        messages::{
            CreateTopicsRequest, CreateTopicsResponse, FindCoordinatorRequest, FindCoordinatorResponse,
            HeartbeatRequest, HeartbeatResponse, LeaveGroupRequest, LeaveGroupResponse,
            find_coordinator_response::Coordinator,
        },
    },
};

fn coordinator(asked: &Asked, node: u16, error: ErrorCode) -> Reply {
    let request: FindCoordinatorRequest = asked.decode();
    let found = request.coordinator_keys.into_iter().map(|key| Coordinator {
        key,
        error_code: error.code(),
        node_id: i32::from(node),
        host: ByteString::from_static("127.0.0.1"),
        port: i32::from(node),
        ..Default::default()
    });
    Reply::Frame(asked.frame(&FindCoordinatorResponse { coordinators: found.collect(), ..Default::default() }))
}

/// A broker that answers metadata requests itself, and all others by `reply`, which gets the number
/// of earlier requests with that key.
fn broker(reply: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) -> impl Fn(&Asked) -> Reply {
    let counts = [const { AtomicUsize::new(0) }; 93];
    move |asked| match asked.key {
        ApiKey::Metadata => Reply::Frame(asked.frame(&brokers(&[9092]))),
        key => {
            let number = counts[usize::try_from(key.code()).unwrap()].fetch_add(1, Ordering::Relaxed);
            reply(asked, number)
        }
    }
}

fn heartbeat(error: ErrorCode) -> HeartbeatResponse {
    HeartbeatResponse { error_code: error.code(), ..Default::default() }
}

async fn beat(client: &Client, secs: u64) -> Result<HeartbeatResponse> {
    let route = Route::Coordinator(CoordinatorKind::Group, Arc::from("g"));
    let check = |response: &HeartbeatResponse| ErrorCode::new(response.error_code);
    client.call(route, ConnectionKind::Group, in_secs(secs), |_| HeartbeatRequest::default(), check).await
}

#[tokio::test(start_paused = true)]
async fn concurrent_callers_share_one_coordinator_lookup() {
    let network = MemoryNetwork::new();
    let lookups = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&lookups);
    let _peer = serve(
        listen(&network, 9092),
        broker(move |asked, number| {
            counted.fetch_add(1, Ordering::Relaxed);
            match number {
                0 => Reply::Silence,
                _ => coordinator(asked, 9092, ErrorCode::NONE),
            }
        }),
    );
    let client = connected(&network, &[9092]).await;
    let gives_up = client.coordinator(CoordinatorKind::Group, "g", in_secs(1));
    let (gave_up, found, too) = tokio::join!(
        gives_up,
        client.coordinator(CoordinatorKind::Group, "g", in_secs(60)),
        client.coordinator(CoordinatorKind::Group, "g", in_secs(60)),
    );
    assert_eq!(gave_up.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!((found.unwrap(), too.unwrap()), (9092, 9092));
    assert_eq!(lookups.load(Ordering::Relaxed), 2, "the one that timed out, and the next");
    client.coordinator(CoordinatorKind::Group, "g", in_secs(1)).await.unwrap();
    assert_eq!(lookups.load(Ordering::Relaxed), 2, "kept");
    client.forget_coordinator(CoordinatorKind::Group, "g", 1);
    client.coordinator(CoordinatorKind::Group, "g", in_secs(1)).await.unwrap();
    assert_eq!(lookups.load(Ordering::Relaxed), 2, "another node is forgotten, not this one");
    client.forget_coordinator(CoordinatorKind::Group, "g", 9092);
    client.coordinator(CoordinatorKind::Group, "g", in_secs(1)).await.unwrap();
    assert_eq!(lookups.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn coordinator_lookup_retries_unless_unauthorized() {
    let network = MemoryNetwork::new();
    let _peer = serve(
        listen(&network, 9092),
        broker(|asked, number| {
            let request: FindCoordinatorRequest = asked.decode();
            match &*request.coordinator_keys[0] {
                "forbidden" => coordinator(asked, 0, ErrorCode::GROUP_AUTHORIZATION_FAILED),
                "never" => coordinator(asked, 0, ErrorCode::COORDINATOR_NOT_AVAILABLE),
                _ if number < 3 => coordinator(asked, 0, ErrorCode::COORDINATOR_NOT_AVAILABLE),
                _ => coordinator(asked, 9099, ErrorCode::NONE),
            }
        }),
    );
    let client = connected(&network, &[9092]).await;
    assert_eq!(client.coordinator(CoordinatorKind::Group, "g", in_secs(60)).await.unwrap(), 9099);
    assert_eq!(client.metadata().brokers[&9099].port, 9099, "its address is known from now on");
    let error = client.coordinator(CoordinatorKind::Group, "forbidden", in_secs(60)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authorization);
    assert!(error.to_string().contains("\"forbidden\""), "{error}");
    let error = client.coordinator(CoordinatorKind::Transaction, "never", in_secs(5)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("COORDINATOR_NOT_AVAILABLE"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn calls_follow_coordinator_that_moves_or_fails() {
    let network = MemoryNetwork::new();
    let first = broker(|asked, number| match (asked.key, number) {
        (ApiKey::FindCoordinator, 0) => coordinator(asked, 9092, ErrorCode::NONE),
        (ApiKey::FindCoordinator, _) => coordinator(asked, 9093, ErrorCode::NONE),
        (_, 0) => Reply::Frame(asked.frame(&heartbeat(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS))),
        (_, 1) => Reply::HangUp,
        _ => Reply::Frame(asked.frame(&heartbeat(ErrorCode::NOT_COORDINATOR))),
    });
    let _first = serve(listen(&network, 9092), first);
    let second = broker(|asked, _| Reply::Frame(asked.frame(&heartbeat(ErrorCode::UNKNOWN_MEMBER_ID))));
    let _second = serve(listen(&network, 9093), second);
    let client = connected(&network, &[9092]).await;
    let answer = beat(&client, 60).await.unwrap();
    assert_eq!(answer.error_code, ErrorCode::UNKNOWN_MEMBER_ID.code(), "what repeating does not cure is the caller's");
}

#[tokio::test(start_paused = true)]
async fn unreachable_coordinator_is_looked_up_again() {
    let network = MemoryNetwork::new();
    let first = broker(|asked, number| match asked.key {
        // There is no listener on this port.
        ApiKey::FindCoordinator if number == 0 => coordinator(asked, 9099, ErrorCode::NONE),
        ApiKey::FindCoordinator => coordinator(asked, 9092, ErrorCode::NONE),
        _ => Reply::Frame(asked.frame(&heartbeat(ErrorCode::NONE))),
    });
    let _first = serve(listen(&network, 9092), first);
    let client = connected(&network, &[9092]).await;
    beat(&client, 10).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn deadline_error_includes_last_broker_error() {
    let network = MemoryNetwork::new();
    let _peer = serve(
        listen(&network, 9092),
        broker(|asked, _| match asked.key {
            ApiKey::FindCoordinator => coordinator(asked, 9092, ErrorCode::NONE),
            _ => Reply::Frame(asked.frame(&heartbeat(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS))),
        }),
    );
    let client = connected(&network, &[9092]).await;
    let error = beat(&client, 10).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS));
    assert!(error.to_string().contains("deadline"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn silent_broker_times_out_with_request_name() {
    let network = MemoryNetwork::new();
    let _peer = serve(listen(&network, 9092), broker(|_, _| Reply::Silence));
    let client = connected(&network, &[9092]).await;
    let error = client.send(to(9092, ConnectionKind::Group, 5), |_| HeartbeatRequest::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery_status()), (ErrorKind::Timeout, Some(DeliveryStatus::PossiblyPersisted)));
    let check = |response: &LeaveGroupResponse| ErrorCode::new(response.error_code);
    let call =
        client.call(Route::Broker(9092), ConnectionKind::Group, in_secs(5), |_| LeaveGroupRequest::default(), check);
    let error = call.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("LeaveGroup"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn resends_to_new_controller_after_not_controller() {
    let network = MemoryNetwork::new();
    let asked_before = Arc::new(AtomicUsize::new(0));
    let refused = Arc::clone(&asked_before);
    let _first = serve(listen(&network, 9092), move |asked: &Asked| match asked.key {
        ApiKey::Metadata if refused.load(Ordering::Relaxed) > 0 => Reply::Frame(asked.frame(&brokers(&[9093, 9092]))),
        ApiKey::Metadata => Reply::Frame(asked.frame(&brokers(&[9092, 9093]))),
        _ => {
            refused.fetch_add(1, Ordering::Relaxed);
            let topic = crate::wire::messages::create_topics_response::CreatableTopicResult {
                error_code: ErrorCode::NOT_CONTROLLER.code(),
                ..Default::default()
            };
            Reply::Frame(asked.frame(&CreateTopicsResponse { topics: vec![topic], ..Default::default() }))
        }
    });
    let _second = serve(listen(&network, 9093), move |asked: &Asked| match asked.key {
        ApiKey::Metadata => Reply::Frame(asked.frame(&brokers(&[9093, 9092]))),
        _ => Reply::Frame(asked.frame(&CreateTopicsResponse::default())),
    });
    let client = connected(&network, &[9092]).await;
    let check =
        |response: &CreateTopicsResponse| response.topics.first().map_or(ErrorCode::NONE, |t| t.error_code.into());
    let build = |_| CreateTopicsRequest::default();
    client.call(Route::Controller, ConnectionKind::Main, in_secs(10), build, check).await.unwrap();
    assert!(asked_before.load(Ordering::Relaxed) >= 1);
}

#[tokio::test(start_paused = true)]
async fn raw_request_carries_inserts_and_version_cap() {
    let network = MemoryNetwork::new();
    let _peer = serve(
        listen(&network, 9092),
        broker(|asked, _| {
            assert_eq!((asked.key, asked.version, &asked.body[..]), (ApiKey::Produce, 11, &b"onetwothreefour"[..]));
            Reply::Frame(asked.frame_of(b"answer"))
        }),
    );
    let client = connected(&network, &[9092]).await;
    let attempt = crate::cluster::Attempt { versions: VersionBounds::at_most(11), ..to(9092, ConnectionKind::Main, 5) };
    let write = |version, body: &mut BytesMut| {
        assert_eq!(version, 11);
        let front = body.len();
        body.extend_from_slice(b"onethreefour");
        let inserts = [(front + 3, Bytes::from_static(b"two")), (front + 8, Bytes::new())];
        Ok(RawRequest { inserts: inserts.into_iter().collect(), ..RawRequest::whole() })
    };
    let response = client.send_raw(attempt, ApiKey::Produce, write).await.unwrap();
    assert_eq!((response.version, &response.body[..]), (11, &b"answer"[..]));
    client.throttle(9092, ConnectionKind::Main, 3000);
    let muted =
        client.send_raw(crate::cluster::Attempt { timeout: Duration::from_secs(2), ..attempt }, ApiKey::Produce, write);
    let error = muted.await.unwrap_err();
    assert_eq!((error.kind(), error.delivery_status()), (ErrorKind::Timeout, Some(DeliveryStatus::NotPersisted)));
    client.send_raw(attempt, ApiKey::Produce, write).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn malformed_response_is_possibly_persisted() {
    let network = MemoryNetwork::new();
    let _peer = serve(listen(&network, 9092), broker(|asked, _| Reply::Frame(asked.frame_of(&[1, 2, 3]))));
    let client = connected(&network, &[9092]).await;
    let error = client.send(to(9092, ConnectionKind::Main, 5), |_| HeartbeatRequest::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery_status()), (ErrorKind::Protocol, Some(DeliveryStatus::PossiblyPersisted)));
}
