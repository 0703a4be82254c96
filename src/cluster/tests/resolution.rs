//! Tests of bootstrap servers with names that cannot be resolved, for ever or for a while
//! (KIP-909).

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    Admin, Consumer, DeliveryStatus, Error, ErrorKind, Producer, Record,
    net::{BoxFuture, Endpoint, MemoryNetwork, Network, Stream},
};

/// A network with a name service that knows no name until it is told to, or does not answer at all.
#[derive(Clone, Debug)]
struct Names {
    inner: Arc<dyn Network>,
    known: Arc<AtomicBool>,
    silent: bool,
}

impl Names {
    fn over(inner: Arc<dyn Network>) -> Self {
        Self { inner, known: Arc::default(), silent: false }
    }

    fn unknown() -> Self {
        Self::over(Arc::new(MemoryNetwork::new()))
    }
}

impl Network for Names {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<Endpoint>>> {
        Box::pin(async move {
            if self.silent {
                std::future::pending::<()>().await;
            }
            match self.known.load(Ordering::Relaxed) {
                true => self.inner.resolve(host, port).await,
                false => Err(io::Error::other("no such host")),
            }
        })
    }

    fn connect(&self, endpoint: Endpoint) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        self.inner.connect(endpoint)
    }
}

const BOUND: [(&str, &str); 2] =
    [("bootstrap.servers", "broker.example:9092"), ("bootstrap.resolve.timeout.ms", "5000")];

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Asserts that the error came when the time limit had passed, and says so.
fn overdue(error: &Error, began: Instant) {
    assert_eq!(error.kind(), ErrorKind::Resolution, "{error}");
    assert!(error.is_retriable() && !error.is_fatal());
    let waited = began.elapsed();
    // A reader checks once a second, after an attempt that failed.
    assert!((seconds(5)..seconds(8)).contains(&waited), "{waited:?}: {error}");
    let text = error.to_string();
    assert!(text.contains("bootstrap.resolve.timeout.ms (5000)"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn admin_calls_fail_at_resolve_timeout() {
    for silent in [false, true] {
        let network = Arc::new(Names { silent, ..Names::unknown() });
        let admin = Admin::builder("").properties(BOUND).network(network).build().await.unwrap();
        let began = Instant::now();
        let (listed, described) = tokio::join!(admin.list_topics(), admin.describe_cluster());
        let error = listed.unwrap_err();
        overdue(&error, began);
        assert!(silent || error.to_string().contains("no such host"), "{error}");
        overdue(&described.unwrap_err(), began);
        let again = Instant::now();
        assert_eq!(admin.list_topics().await.unwrap_err().kind(), ErrorKind::Resolution);
        assert_eq!(again.elapsed(), Duration::ZERO, "what is known is said at once");
    }
}

#[tokio::test(start_paused = true)]
async fn records_fail_at_resolve_timeout_unwritten() {
    let network = Arc::new(Names::unknown());
    let producer = Producer::builder("").properties(BOUND).network(network).build().await.unwrap();
    let began = Instant::now();
    let error = producer.send(Record::to("t").with_value("x")).await.unwrap().await.unwrap_err();
    overdue(&error, began);
    assert_eq!(error.delivery_status(), Some(DeliveryStatus::NotPersisted));
    overdue(&producer.partitions_for("t").await.unwrap_err(), began);
}

#[tokio::test(start_paused = true)]
async fn consumers_and_commits_end_at_resolve_timeout() {
    let network = Arc::new(Names::unknown());
    let builder = Consumer::builder("").group("g").properties(BOUND).network(network);
    let consumer = builder.build().await.unwrap();
    consumer.subscribe(["t"]).unwrap();
    let began = Instant::now();
    let received = tokio::time::timeout(seconds(60), consumer.recv()).await.expect("the reader hears of it");
    overdue(&received.unwrap().unwrap_err(), began);
    let committed = tokio::time::timeout(seconds(60), consumer.commit()).await.expect("the commit ends");
    assert!(committed.is_ok() || committed.is_err_and(|error| error.kind() == ErrorKind::Resolution));
}

#[tokio::test(start_paused = true)]
async fn calls_use_api_timeout_without_resolve_timeout() {
    let network = Arc::new(Names::unknown());
    let admin = Admin::builder("broker.example:9092").network(network).build().await.unwrap();
    let began = Instant::now();
    assert_eq!(admin.list_topics().await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(began.elapsed().as_secs(), 60);
}

#[cfg(feature = "testkit")]
#[tokio::test(start_paused = true)]
async fn client_recovers_when_names_are_known() {
    use crate::testkit::{Cluster, Options};

    let cluster = Cluster::start(Options::new().in_memory()).await.unwrap();
    let servers = cluster.bootstrap().replace("127.0.0.1", "broker.example");
    let network = Names::over(cluster.network());
    let pairs = [("bootstrap.servers", servers.as_str()), BOUND[1]];
    let admin = Admin::builder("").properties(pairs).network(Arc::new(network.clone())).build().await.unwrap();
    assert_eq!(admin.list_topics().await.unwrap_err().kind(), ErrorKind::Resolution);
    network.known.store(true, Ordering::Relaxed);
    tokio::time::sleep(seconds(5)).await;
    admin.list_topics().await.unwrap();
}
