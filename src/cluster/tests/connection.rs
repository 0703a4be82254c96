use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{io::duplex, task::JoinHandle};

use super::peer::{Link, api_versions};
use crate::{
    cluster::{
        RawRequest, connection::Connection, deadline::now, frames::FrameReader, pipeline::Limits, versions::Versions,
    },
    error::{DeliveryStatus, Error, ErrorKind, Result},
    wire::{
        ApiKey,
        message::encode_body,
        messages::{HeartbeatRequest, HeartbeatResponse},
    },
};

const LIMIT: usize = 8 * 1024 * 1024;

/// A connection, the peer's end of it, and the task that drives it.
fn pair(pipe: usize, max_in_flight: usize) -> (Arc<Connection>, Link, JoinHandle<Error>) {
    let (ours, theirs) = duplex(pipe);
    let limits = Limits { max_in_flight, max_idle: Duration::from_secs(540) };
    let versions = Versions::new("peer:9092".to_owned(), &api_versions());
    let (connection, driver) = Connection::new(
        "peer:9092".to_owned(),
        Box::new(ours),
        FrameReader::new(LIMIT),
        versions,
        "test".to_owned(),
        limits,
    );
    (Arc::new(connection), Link(theirs), tokio::spawn(driver))
}

async fn raw(connection: &Connection, chunks: Vec<Bytes>, secs: u64, answered: bool) -> Result<Bytes> {
    let deadline = now() + Duration::from_secs(secs);
    let write = |head: &mut bytes::BytesMut| {
        encode_body(head, &HeartbeatRequest::default(), 4)?;
        let inserts = chunks.into_iter().map(|chunk| (head.len(), chunk)).collect();
        Ok(RawRequest { inserts, answered, ..RawRequest::whole() })
    };
    connection.request(ApiKey::Heartbeat, 4, deadline, write).await
}

fn heartbeat(connection: &Arc<Connection>, secs: u64) -> JoinHandle<Result<Bytes>> {
    let connection = Arc::clone(connection);
    tokio::spawn(async move { raw(&connection, Vec::new(), secs, true).await })
}

fn told(error_code: i16) -> HeartbeatResponse {
    HeartbeatResponse { error_code, ..Default::default() }
}

fn code(body: &Bytes) -> i16 {
    i16::from_be_bytes([body[4], body[5]])
}

#[tokio::test(start_paused = true)]
async fn pipelined_responses_reach_their_callers() {
    let (connection, mut peer, _driver) = pair(1 << 16, 5);
    let calls = [1, 2, 3].map(|_| heartbeat(&connection, 30));
    let mut asked = Vec::new();
    for _ in 0..3 {
        asked.push(peer.request().await.unwrap());
    }
    for (i, asked) in (1..).zip(&asked) {
        peer.answer(asked, &told(i)).await;
    }
    for (i, call) in (1..).zip(calls) {
        assert_eq!(code(&call.await.unwrap().unwrap()), i);
    }
    assert_eq!(connection.load(), 0);
}

#[tokio::test(start_paused = true)]
async fn cancelled_call_does_not_affect_others() {
    let (connection, mut peer, _driver) = pair(1 << 16, 5);
    let dropped = heartbeat(&connection, 30);
    let first = peer.request().await.unwrap();
    dropped.abort();
    let kept = heartbeat(&connection, 30);
    let second = peer.request().await.unwrap();
    peer.answer(&first, &told(1)).await;
    peer.answer(&second, &told(2)).await;
    assert_eq!(code(&kept.await.unwrap().unwrap()), 2);
}

#[tokio::test(start_paused = true)]
async fn request_timeout_closes_connection_for_all_requests() {
    let (connection, mut peer, driver) = pair(1 << 16, 2);
    let late = heartbeat(&connection, 10);
    tokio::task::yield_now().await;
    let behind = heartbeat(&connection, 30);
    peer.request().await.unwrap();
    peer.request().await.unwrap();
    let unsent = heartbeat(&connection, 30);
    let late = late.await.unwrap().unwrap_err();
    assert_eq!((late.kind(), late.delivery_status()), (ErrorKind::Timeout, Some(DeliveryStatus::PossiblyPersisted)));
    assert!(late.to_string().contains("peer:9092") && late.to_string().contains("Heartbeat"), "{late}");
    let behind = behind.await.unwrap().unwrap_err();
    assert_eq!(
        (behind.kind(), behind.delivery_status()),
        (ErrorKind::Network, Some(DeliveryStatus::PossiblyPersisted))
    );
    assert_eq!(unsent.await.unwrap().unwrap_err().delivery_status(), Some(DeliveryStatus::NotPersisted));
    assert!(peer.request().await.is_none(), "the socket is closed");
    assert_eq!(driver.await.unwrap().kind(), ErrorKind::Network);
    let after = raw(&connection, Vec::new(), 30, true).await.unwrap_err();
    assert_eq!(after.delivery_status(), Some(DeliveryStatus::NotPersisted));
}

#[tokio::test(start_paused = true)]
async fn invalid_response_closes_with_protocol_error() {
    let bad: [(&[u8], &str); 6] = [
        (&[0, 0, 0, 5, 0x7f, 0, 0, 1, 0], "correlation id"),
        (&[0, 0, 0, 2, 0, 0], "Heartbeat"),
        (&[0xff, 0xff, 0xff, 0xff], "-1"),
        (&[0x7f, 0, 0, 0], "limit"),
        (b"HTTP/1.1 400 Bad Request\r\n", "HTTP"),
        (&[0x15, 3, 3, 0, 2, 2, 40], "TLS"),
    ];
    for (bytes, why) in bad {
        let (connection, mut peer, driver) = pair(1 << 16, 5);
        let call = heartbeat(&connection, 30);
        peer.request().await.unwrap();
        peer.raw(bytes).await;
        let error = call.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
        assert_eq!(error.delivery_status(), Some(DeliveryStatus::PossiblyPersisted));
        assert!(error.to_string().contains(why) && error.to_string().contains("peer:9092"), "{error}");
        driver.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn unrequested_response_closes_connection() {
    let (_connection, mut peer, driver) = pair(1 << 16, 5);
    peer.raw(&[0, 0, 0, 4, 0, 0, 0, 1]).await;
    assert_eq!(driver.await.unwrap().kind(), ErrorKind::Protocol);
}

#[tokio::test(start_paused = true)]
async fn partially_written_frame_is_not_persisted() {
    let (connection, mut peer, _driver) = pair(1024, 5);
    let whole = heartbeat(&connection, 30);
    let half = {
        let connection = Arc::clone(&connection);
        tokio::spawn(async move { raw(&connection, vec![Bytes::from(vec![7; 10_000])], 30, true).await })
    };
    peer.request().await.unwrap();
    drop(peer);
    assert_eq!(whole.await.unwrap().unwrap_err().delivery_status(), Some(DeliveryStatus::PossiblyPersisted));
    let half = half.await.unwrap().unwrap_err();
    assert_eq!((half.kind(), half.delivery_status()), (ErrorKind::Network, Some(DeliveryStatus::NotPersisted)));
}

#[tokio::test(start_paused = true)]
async fn chunks_keep_order_through_small_buffer() {
    let (connection, mut peer, _driver) = pair(100, 5);
    let chunks = (0..200).map(|i| Bytes::from(vec![i; usize::from(i)])).collect::<Vec<_>>();
    let expected = chunks.concat();
    let call = tokio::spawn(async move { raw(&connection, chunks, 30, true).await });
    let asked = peer.request().await.unwrap();
    assert!(asked.body.ends_with(&expected));
    peer.answer(&asked, &told(0)).await;
    call.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn request_without_response_returns_after_write() {
    let (connection, mut peer, _driver) = pair(1 << 16, 5);
    assert!(raw(&connection, vec![Bytes::from_static(b"records")], 30, false).await.unwrap().is_empty());
    let call = heartbeat(&connection, 30);
    assert!(peer.request().await.unwrap().body.ends_with(b"records"));
    let asked = peer.request().await.unwrap();
    peer.answer(&asked, &told(3)).await;
    assert_eq!(code(&call.await.unwrap().unwrap()), 3);
}

#[tokio::test(start_paused = true)]
async fn throttled_connection_delays_next_request() {
    let (connection, mut peer, _driver) = pair(1 << 16, 5);
    let call = heartbeat(&connection, 30);
    let asked = peer.request().await.unwrap();
    peer.answer(&asked, &HeartbeatResponse { throttle_time_ms: 1000, ..told(0) }).await;
    call.await.unwrap().unwrap();
    let call = heartbeat(&connection, 30);
    assert!(peer.silent_for(Duration::from_millis(999)).await);
    let asked = peer.request().await.unwrap();
    peer.answer(&asked, &told(0)).await;
    call.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn reads_responses_of_every_size_whole() {
    let (connection, mut peer, _driver) = pair(5000, 9);
    // Around the reader's buffer, around the size that it reserves at first, and far above.
    let sizes = [0, 1, 16_370, 16_380, 16_384, 40_000, 1_048_570, 1_048_590, 5_000_000];
    let calls = sizes.map(|_| heartbeat(&connection, 30));
    let mut frames = Vec::new();
    for (i, size) in (0_u8..).zip(sizes) {
        frames.extend_from_slice(&peer.request().await.unwrap().frame_of(&vec![i; size]));
    }
    peer.raw(&frames).await;
    for ((i, size), call) in (0_u8..).zip(sizes).zip(calls) {
        let body = call.await.unwrap().unwrap();
        assert_eq!(body.len(), size);
        assert!(body.iter().all(|byte| *byte == i));
    }
}

#[tokio::test(start_paused = true)]
async fn truncated_response_is_network_error() {
    for size in [100, 100_000] {
        let (connection, mut peer, _driver) = pair(1 << 20, 5);
        let call = heartbeat(&connection, 30);
        let asked = peer.request().await.unwrap();
        let frame = asked.frame_of(&vec![0; size]);
        peer.raw(&frame[..frame.len() - 1]).await;
        drop(peer);
        let error = call.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Network);
        assert!(error.to_string().contains("in the middle"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn unused_connection_closes_after_idle_time() {
    let (connection, mut peer, driver) = pair(1 << 16, 5);
    let call = heartbeat(&connection, 30);
    let asked = peer.request().await.unwrap();
    peer.answer(&asked, &told(0)).await;
    call.await.unwrap().unwrap();
    assert!(driver.await.unwrap().to_string().contains("connections.max.idle.ms"));
    assert!(!connection.is_usable());
    assert!(peer.request().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn retired_connection_closes_after_pending_responses() {
    let (connection, mut peer, driver) = pair(1 << 16, 5);
    let call = heartbeat(&connection, 30);
    let asked = peer.request().await.unwrap();
    connection.retire();
    tokio::task::yield_now().await;
    assert!(!driver.is_finished());
    peer.answer(&asked, &told(0)).await;
    call.await.unwrap().unwrap();
    assert!(driver.await.unwrap().to_string().contains("no longer needed"));
}
