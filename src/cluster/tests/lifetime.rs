use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use super::peer::{Asked, Reply, accept_agreed, brokers, connected, in_secs, listen, serve, settings, to};
use crate::{
    cluster::{Client, ConnectionKind, CoordinatorKind, Route},
    error::{ErrorCode, ErrorKind},
    net::MemoryNetwork,
    wire::{
        ApiKey,
        messages::{HeartbeatRequest, HeartbeatResponse},
    },
};

/// Answers the first metadata request, and no other.
fn one_answer() -> impl Fn(&Asked) -> Reply {
    let answered = AtomicBool::new(false);
    move |asked| match asked.key {
        ApiKey::Metadata if !answered.swap(true, Ordering::Relaxed) => Reply::Frame(asked.frame(&brokers(&[9092]))),
        _ => Reply::Silence,
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_last_clone_closes_connections() {
    let network = MemoryNetwork::new();
    let mut listener = listen(&network, 9092);
    let client = Client::new(settings(&network, &[9092])).unwrap();
    let mut link = accept_agreed(&mut listener).await;
    link.request().await.unwrap();
    let clone = client.clone();
    drop(client);
    assert!(link.silent_for(Duration::from_secs(1)).await);
    drop(clone);
    assert!(link.request().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn closing_ends_every_wait_and_is_idempotent() {
    let network = MemoryNetwork::new();
    let _peer = serve(listen(&network, 9092), one_answer());
    let client = connected(&network, &[9092]).await;
    let version = client.metadata().version;
    let waits = async {
        tokio::join!(
            client.send(to(9092, ConnectionKind::Main, 60), |_| HeartbeatRequest::default()),
            client.call(
                Route::Broker(9092),
                ConnectionKind::Group,
                in_secs(60),
                |_| HeartbeatRequest::default(),
                |response| ErrorCode::new(response.error_code)
            ),
            client.coordinator(CoordinatorKind::Group, "g", in_secs(60)),
            client.newer_metadata(version + 100, in_secs(60)),
            client.topic("orders", in_secs(60)),
        )
    };
    let close = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        client.close();
        client.close();
        tokio::time::Instant::now()
    };
    let ((send, call, coordinator, newer, topic), closed) = tokio::join!(waits, close);
    let kinds =
        [send.unwrap_err(), call.unwrap_err(), coordinator.unwrap_err(), newer.unwrap_err(), topic.unwrap_err()];
    for error in &kinds {
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    }
    assert_eq!(tokio::time::Instant::now(), closed, "no call waited for its deadline");
    let after = client.send(to(9092, ConnectionKind::Main, 60), |_| HeartbeatRequest::default()).await.unwrap_err();
    assert_eq!(after.kind(), ErrorKind::Closed);
}

/// This test has two runtimes, so it runs in real time; it ends as soon as the calls notice the end
/// of their runtime, which is the point of the test.
#[test]
fn dropped_runtime_ends_calls_from_another() {
    let network = MemoryNetwork::new();
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (peers, owners, callers) = (runtime(), runtime(), runtime());
    let entered = peers.enter();
    let _peer = serve(listen(&network, 9092), one_answer());
    drop(entered);
    let client = owners.block_on(connected(&network, &[9092]));
    let waiting = client.clone();
    let (send, newer, coordinator) =
        (
            callers.spawn({
                let client = waiting.clone();
                async move {
                    client.send(to(9092, ConnectionKind::Main, 600), |_| HeartbeatRequest::default()).await.map(drop)
                }
            }),
            callers.spawn({
                let client = waiting.clone();
                async move { client.newer_metadata(1_000_000, in_secs(600)).await.map(drop) }
            }),
            callers
                .spawn(async move { waiting.coordinator(CoordinatorKind::Group, "g", in_secs(600)).await.map(drop) }),
        );
    std::thread::sleep(Duration::from_millis(50));
    owners.shutdown_timeout(Duration::from_secs(10));
    callers.block_on(async {
        for call in [send, newer, coordinator] {
            assert_eq!(call.await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
        }
        let after =
            client.send(to(9092, ConnectionKind::Group, 600), |_| HeartbeatRequest::default()).await.unwrap_err();
        assert_eq!(after.kind(), ErrorKind::Closed);
    });
}

#[test]
fn client_creation_fails_without_runtime() {
    let error = Client::new(settings(&MemoryNetwork::new(), &[9092])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
}

/// Compiles only if no call holds a lock, or anything else that is bound to one thread, across an
/// await.
#[test]
fn calls_can_be_spawned() {
    fn spawnable<T: Send>(_: impl Fn(&'static Client) -> T) {}
    let route = || Route::Any;
    let check = |response: &HeartbeatResponse| ErrorCode::new(response.error_code);
    spawnable(|client| client.send(to(1, ConnectionKind::Main, 1), |_| HeartbeatRequest::default()));
    spawnable(|client| client.call(route(), ConnectionKind::Main, in_secs(1), |_| HeartbeatRequest::default(), check));
    spawnable(|client| client.coordinator(CoordinatorKind::Group, "g", in_secs(1)));
    spawnable(|client| client.topic("t", in_secs(1)));
    spawnable(|client| client.newer_metadata(0, in_secs(1)));
}
