use std::{path::PathBuf, sync::Arc, time::Duration};

use ottla::{
    Admin, Consumer, Error, ErrorKind, Producer, Record,
    consumer::OffsetReset,
    net::Network,
    security::{Security, Tls},
    testkit::{self, Cluster, Options, certificates},
};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) async fn cluster(options: Options) -> Cluster {
    let cluster = Cluster::start(options.in_memory()).await.unwrap();
    cluster.create_topic("orders", 2).unwrap();
    cluster
}

/// Starts brokers under TLS.
pub(crate) async fn tls_cluster(tls: testkit::Tls) -> Cluster {
    cluster(Options::new().tls(tls)).await
}

/// Returns users that the brokers accept.
pub(crate) fn users() -> testkit::Sasl {
    testkit::Sasl::new().user("alice", "wonder").user("büro,=", "pässwörd,=")
}

/// Returns a configuration that trusts the test authority.
pub(crate) fn trusting() -> Tls {
    Tls::new().ca_pem(certificates::AUTHORITY)
}

pub(crate) async fn admin(cluster: &Cluster, security: Security) -> Admin {
    cluster.admin().security(security).build().await.unwrap()
}

/// Produces, consumes in a group and asks for metadata.
pub(crate) async fn works(bootstrap: &str, network: Arc<dyn Network>, security: Security) {
    let admin = Admin::builder(bootstrap).network(network.clone()).security(security.clone()).build().await.unwrap();
    assert_eq!(admin.list_topics().await.unwrap().len(), 1);
    let producer =
        Producer::builder(bootstrap).network(network.clone()).security(security.clone()).build().await.unwrap();
    for n in 0..20 {
        producer.send(Record::to("orders").with_key(n.to_string()).with_value("shipped")).await.unwrap().await.unwrap();
    }
    let consumer = Consumer::builder(bootstrap).network(network).security(security).group("g");
    let consumer = consumer.auto_offset_reset(OffsetReset::Earliest).build().await.unwrap();
    consumer.subscribe(["orders"]).unwrap();
    for _ in 0..20 {
        let record = tokio::time::timeout(60 * SECOND, consumer.recv()).await.unwrap().unwrap().unwrap();
        assert_eq!(record.value.as_deref(), Some(&b"shipped"[..]));
    }
    consumer.close(10 * SECOND).await.unwrap();
    producer.close(10 * SECOND).await.unwrap();
}

/// Checks that producer, consumer and admin fail within nine seconds with errors of the kind
/// `Authentication`, and returns the admin's error.
pub(crate) async fn refused(cluster: &Cluster, security: Security) -> Error {
    let began = tokio::time::Instant::now();
    let (bootstrap, network) = (cluster.bootstrap(), cluster.network());
    let error = admin(cluster, security.clone()).await.list_topics().await.unwrap_err();

    let producer = Producer::builder(bootstrap.clone()).network(network.clone()).security(security.clone());
    let producer = producer.build().await.unwrap();
    let produced = producer.send(Record::to("orders").with_value("x")).await.unwrap().await.unwrap_err();
    let consumer = Consumer::builder(&bootstrap).network(network).security(security).group("g").build().await.unwrap();
    consumer.subscribe(["orders"]).unwrap();
    let consumed = consumer.recv().await.unwrap().unwrap_err();
    for error in [&error, &produced, &consumed] {
        assert_eq!(error.kind(), ErrorKind::Authentication, "{error:?}");
        assert!(!error.is_retriable(), "{error:?}");
        assert!(error.to_string().contains("127.0.0.1"), "{error}");
        let shown = format!("{error} {error:?}");
        for secret in ["wonder", "PRIVATE", "hunter2"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
    assert!(began.elapsed() < 9 * SECOND, "the errors came late: {:?}", began.elapsed());
    error
}

/// A file that is deleted at the end of the test.
pub(crate) struct TempFile(pub(crate) PathBuf);

impl TempFile {
    pub(crate) fn new(name: &str, text: &str) -> Self {
        let unique = format!("ottla-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(unique);
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    pub(crate) fn write(&self, text: &str) {
        std::fs::write(&self.0, text).unwrap();
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
