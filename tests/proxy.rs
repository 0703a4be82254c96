//! A client reaches its brokers through a proxy that resolves their names.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use ottla::{
    ErrorKind, Producer, Record,
    net::{BoxFuture, Endpoint, Network, Stream, Tcp},
    testkit::{Cluster, Options},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

/// The name that only the proxy can resolve.
const NAME: &str = "kafka.internal";

/// HTTP CONNECT (RFC 9110), as much of it as a client needs.
#[derive(Debug)]
struct HttpProxy(SocketAddr);

impl Network for HttpProxy {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<Endpoint>>> {
        Box::pin(async move { Ok(vec![Endpoint::name(host, port)]) })
    }

    fn connect(&self, endpoint: Endpoint) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let mut stream = Tcp.connect(self.0.into()).await?;
            stream.write_all(format!("CONNECT {endpoint} HTTP/1.1\r\n\r\n").as_bytes()).await?;
            match head(&mut stream).await?.get(9..12) {
                Some("200") => Ok(stream),
                _ => Err(io::Error::other("the proxy refuses the connection")),
            }
        })
    }
}

async fn head(stream: &mut (impl AsyncReadExt + Unpin)) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < 8192 {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Serves CONNECT for ever, knows `NAME` to be this machine, and notes what it was asked for.
async fn proxy(listener: TcpListener, asked: Arc<Mutex<Vec<String>>>) {
    while let Ok((mut client, _)) = listener.accept().await {
        let asked = asked.clone();
        tokio::spawn(async move {
            let head = head(&mut client).await?;
            let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
            asked.lock().expect("no panic").push(target.clone());
            let Ok(mut broker) = TcpStream::connect(target.replace(NAME, "127.0.0.1")).await else {
                return client.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await;
            };
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            copy_bidirectional(&mut client, &mut broker).await.map(drop)
        });
    }
}

async fn start_proxy() -> (Arc<HttpProxy>, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let network = Arc::new(HttpProxy(listener.local_addr().expect("an address")));
    let asked = Arc::default();
    tokio::spawn(proxy(listener, Arc::clone(&asked)));
    (network, asked)
}

#[tokio::test]
async fn proxy_resolves_bootstrap_names() {
    let cluster = Cluster::start(Options::new()).await.expect("a cluster");
    cluster.create_topic("orders", 1).expect("a topic");
    let (network, asked) = start_proxy().await;
    let port = cluster.bootstrap().rsplit(':').next().expect("a port").to_owned();
    let producer = Producer::builder(format!("{NAME}:{port}")).network(network).build().await.expect("a producer");
    let sent = producer.send(Record::to("orders").with_value("shipped")).await.expect("in the buffer");
    assert_eq!(sent.await.expect("in the log").offset, Some(0));
    let asked = asked.lock().expect("no panic").clone();
    assert!(asked.contains(&format!("{NAME}:{port}")) && asked.contains(&format!("127.0.0.1:{port}")), "{asked:?}");
}

#[tokio::test]
async fn refusing_proxy_is_named_in_error() {
    let (network, _) = start_proxy().await;
    let builder = Producer::builder(format!("{NAME}:1")).network(network).property("max.block.ms", "3000");
    let producer = builder.build().await.expect("a producer");
    let delivery = producer.send(Record::to("orders").with_value("lost")).await;
    let error = match delivery {
        Ok(delivery) => delivery.await.expect_err("nothing is behind the proxy"),
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.to_string().contains("kafka.internal:1") && error.to_string().contains("proxy refuses"), "{error}");
}
