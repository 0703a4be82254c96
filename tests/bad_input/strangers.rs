//! Ports on which another server than Kafka listens: the error says so.

use std::{net::SocketAddr, sync::Arc};

use ottla::{Admin, Consumer, Error, Offset, Producer, Record, net::MemoryNetwork};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::*;

#[derive(Clone, Copy, Debug)]
enum Stranger {
    /// Answers any request with these bytes, and closes the connection.
    Says(&'static [u8]),
    /// Answers any request with these bytes, and leaves the connection open.
    SaysAndWaits(&'static [u8]),
    Hangs,
    Closes,
}

const PORT: u16 = 9092;

fn listen(network: &MemoryNetwork, stranger: Stranger) -> tokio::task::JoinHandle<()> {
    let mut listener = network.listen(SocketAddr::from(([127, 0, 0, 1], PORT))).unwrap();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok(mut stream) = listener.accept().await {
            let mut some = [0; 16];
            match stranger {
                Stranger::Closes => continue,
                Stranger::Hangs => kept.push(stream),
                Stranger::Says(bytes) | Stranger::SaysAndWaits(bytes) => {
                    // The client may have closed the connection already.
                    let _ = stream.read(&mut some).await;
                    let _ = stream.write_all(bytes).await;
                    if matches!(stranger, Stranger::SaysAndWaits(_)) {
                        kept.push(stream);
                    }
                }
            }
        }
    })
}

/// Returns the error of each client at such a port.
async fn told_by_all(stranger: Stranger) -> Vec<Error> {
    let network = MemoryNetwork::new();
    let server = listen(&network, stranger);
    let (address, network) = (format!("127.0.0.1:{PORT}"), Arc::new(network));
    let producer = Producer::builder(&*address).network(network.clone()).build().await.unwrap();
    let delivery = producer.send(Record::to("t").with_value("0")).await.unwrap();
    let assigned = Consumer::builder(&address).network(network.clone()).build().await.unwrap();
    assigned.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
    let subscribed = Consumer::builder(&address).network(network.clone()).group("g").build().await.unwrap();
    subscribed.subscribe(["t"]).unwrap();
    let admin = Admin::builder(&address).network(network).build().await.unwrap();
    let errors = vec![
        in_time(delivery).await.unwrap_err(),
        next(&assigned).await.unwrap_err(),
        next(&subscribed).await.unwrap_err(),
        in_time(admin.list_topics()).await.unwrap_err(),
        in_time(subscribed.partitions_for("t")).await.unwrap_err(),
    ];
    server.abort();
    errors
}

async fn all_say(stranger: Stranger, what: &str) {
    for (at, error) in told_by_all(stranger).await.into_iter().enumerate() {
        let text = error.to_string();
        assert!(text.contains("127.0.0.1:9092"), "{at}: {stranger:?}: {text}");
        assert!(text.contains(what), "{at}: {stranger:?}: {what:?} is missing in: {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn error_names_http_server() {
    all_say(Stranger::Says(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"), "HTTP").await;
}

#[tokio::test(start_paused = true)]
async fn error_names_tls_listener() {
    all_say(Stranger::Says(&[0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x0a]), "TLS").await;
}

#[tokio::test(start_paused = true)]
async fn silent_server_causes_timeout_error() {
    all_say(Stranger::Hangs, "took longer than").await;
}

#[tokio::test(start_paused = true)]
async fn reports_server_that_closes_connection() {
    all_say(Stranger::Closes, "closed the connection").await;
}

#[tokio::test(start_paused = true)]
async fn error_describes_bytes_of_other_protocol() {
    all_say(Stranger::SaysAndWaits(b"SSH-2.0-OpenSSH_9.9\r\n"), "are not those of a broker").await;
    all_say(Stranger::SaysAndWaits(&[0xff, 0xff, 0xff, 0xfe, 0]), "does not seem to speak the Kafka protocol").await;
    all_say(Stranger::Says(&[0, 0, 0, 2, 0xff, 0xff]), "ApiVersions").await;
    all_say(Stranger::SaysAndWaits(&[0, 0, 1, 0, 1]), "took longer than").await;
}

#[tokio::test]
async fn error_names_http_server_over_tcp() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 16]).await;
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let admin = Admin::builder(&address).default_api_timeout(2 * SECOND).build().await.unwrap();
    let error = admin.list_topics().await.unwrap_err().to_string();
    assert!(error.contains(&address) && error.contains("HTTP"), "{error}");
    server.abort();
}
