//! Tests of Ottla with a real Kafka over every kind of security: TLS, client certificates, and
//! every mechanism.
#![cfg(unix)]

use std::{
    process::Command,
    time::{Duration, Instant},
};

use ottla::{
    Admin, Consumer, DeliveryStatus, ErrorCode, ErrorKind, Offset, Producer, Record, TopicPartition,
    consumer::OffsetReset,
    producer::ProducerBuilder,
    security::{AwsCredentials, AwsMskIam, Sasl, Security, Tls, UnsecuredToken},
};
use protocol_tests::{
    Error, Kafka, at_least, has_producer_ids, needs, or_skip,
    secured::{CERTIFICATES, PASSWORD, USER},
    unique,
};
use tokio::sync::OnceCell;

/// Returns the cluster that the tests of this file share.
async fn secured() -> Option<&'static Kafka> {
    static SHARED: OnceCell<Option<Kafka>> = OnceCell::const_new();
    SHARED.get_or_init(|| async { or_skip(Kafka::builder().secured().start().await) }).await.as_ref()
}

fn trusting() -> Tls {
    Tls::new().ca_pem(CERTIFICATES.authority)
}

/// Returns true if the brokers support SCRAM credentials, which KRaft does since KIP-900.
fn has_scram() -> bool {
    at_least("3.5")
}

fn mechanisms() -> Vec<Sasl> {
    let scram = || [Sasl::scram_sha_256(USER, PASSWORD), Sasl::scram_sha_512(USER, PASSWORD)];
    let mut all = vec![Sasl::plain(USER, PASSWORD), Sasl::oauth_bearer(UnsecuredToken::new(USER))];
    if has_scram() {
        all.extend(scram());
    }
    all
}

fn msk() -> Sasl {
    let credentials = AwsCredentials::new("AKIDEXAMPLE", "hunter2");
    Sasl::mechanism(AwsMskIam::new().region("eu-west-1").credentials(credentials))
}

/// Requests metadata, produces and consumes in a group, with the given clients.
async fn works(admin: Admin, producer: Producer, consumer: Consumer, topic: &str) {
    assert!(admin.list_topics().await.unwrap().iter().any(|found| &*found.name == topic));
    let mut deliveries = Vec::new();
    for n in 0..100 {
        deliveries.push(producer.send(Record::to(topic).with_value(format!("{n}"))).await.unwrap());
    }
    for delivery in deliveries {
        delivery.await.unwrap();
    }
    consumer.subscribe([topic]).unwrap();
    for n in 0..100 {
        let record = tokio::time::timeout(Duration::from_secs(120), consumer.recv()).await.unwrap().unwrap().unwrap();
        assert_eq!(record.value.as_deref(), Some(format!("{n}").as_bytes()));
    }
    consumer.close(Duration::from_secs(30)).await.unwrap();
    producer.close(Duration::from_secs(30)).await.unwrap();
}

fn producer(bootstrap: &str, security: Security) -> ProducerBuilder {
    Producer::builder(bootstrap).idempotence(has_producer_ids()).security(security)
}

/// Creates a consumer that reads from the beginning, in a group with the topic's name.
async fn group_consumer(bootstrap: &str, security: Security, topic: &str) -> Consumer {
    let consumer = Consumer::builder(bootstrap).security(security).group(topic);
    consumer.auto_offset_reset(OffsetReset::Earliest).build().await.unwrap()
}

async fn works_by_builder(kafka: &Kafka, listener: &str, security: Security) {
    let (topic, bootstrap) = (unique("builder"), kafka.bootstrap_of(listener).unwrap());
    kafka.create_topic(&topic, 1, 1, &[]).await.unwrap();
    let admin = Admin::builder(&bootstrap).security(security.clone()).build().await.unwrap();
    let producer = producer(&bootstrap, security.clone()).build().await.unwrap();
    let consumer = group_consumer(&bootstrap, security, &topic).await;
    works(admin, producer, consumer, &topic).await;
}

async fn works_by_properties(kafka: &Kafka, listener: &str, security: &[(&str, &str)]) {
    let (topic, bootstrap) = (unique("properties"), kafka.bootstrap_of(listener).unwrap());
    kafka.create_topic(&topic, 1, 1, &[]).await.unwrap();
    let mut all = vec![("bootstrap.servers", bootstrap.as_str())];
    all.extend_from_slice(security);
    let admin = Admin::from_properties(all.iter().copied()).await.unwrap();
    let idempotence = ("enable.idempotence", if has_producer_ids() { "true" } else { "false" });
    let producer = Producer::from_properties(all.iter().copied().chain([idempotence])).await.unwrap();
    let more = [("group.id", topic.as_str()), ("auto.offset.reset", "earliest")];
    let consumer = Consumer::from_properties(all.iter().copied().chain(more)).await.unwrap();
    works(admin, producer, consumer, &topic).await;
}

#[tokio::test]
async fn works_over_tls_and_mutual_tls() {
    let Some(kafka) = secured().await else { return };
    let mutual = || trusting().client_certificate_pem(CERTIFICATES.client, CERTIFICATES.client_key);
    for (listener, tls) in [
        ("TLS", trusting()),
        ("TLS", trusting().only_tls_1_2()),
        ("TLS", trusting().only_tls_1_3()),
        ("MUTUAL", mutual()),
        ("MUTUAL", mutual().only_tls_1_2()),
    ] {
        works_by_builder(kafka, listener, Security::ssl(tls)).await;
    }
    let ssl = ("security.protocol", "SSL");
    works_by_properties(kafka, "TLS", &[ssl, ("ssl.ca.pem", CERTIFICATES.authority)]).await;
    works_by_properties(
        kafka,
        "MUTUAL",
        &[
            ssl,
            ("ssl.truststore.type", "PEM"),
            ("ssl.truststore.certificates", CERTIFICATES.authority),
            ("ssl.keystore.type", "PEM"),
            ("ssl.keystore.certificate.chain", CERTIFICATES.client),
            ("ssl.keystore.key", CERTIFICATES.client_key),
        ],
    )
    .await;
}

#[tokio::test]
async fn every_mechanism_works_with_and_without_tls() {
    let Some(kafka) = secured().await else { return };
    for sasl in mechanisms() {
        works_by_builder(kafka, "SASL", Security::sasl_plaintext(sasl.clone())).await;
        works_by_builder(kafka, "BOTH", Security::sasl_ssl(sasl, trusting())).await;
    }
    let module = "org.apache.kafka.common.security";
    let login = |class: &str| format!("{module}.{class} required username=\"{USER}\" password=\"{PASSWORD}\";");
    let (plain, scram) = (login("plain.PlainLoginModule"), login("scram.ScramLoginModule"));
    let oauth =
        format!("{module}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"{USER}\";");
    for (mechanism, jaas) in
        [("PLAIN", &plain), ("SCRAM-SHA-256", &scram), ("SCRAM-SHA-512", &scram), ("OAUTHBEARER", &oauth)]
    {
        if mechanism.starts_with("SCRAM") && !has_scram() {
            continue;
        }
        let jaas = ("sasl.jaas.config", jaas.as_str());
        let sasl = ("sasl.mechanism", mechanism);
        works_by_properties(kafka, "SASL", &[("security.protocol", "SASL_PLAINTEXT"), sasl, jaas]).await;
        let tls = ("ssl.ca.pem", CERTIFICATES.authority);
        works_by_properties(kafka, "BOTH", &[("security.protocol", "SASL_SSL"), sasl, jaas, tls]).await;
    }
    let librdkafka = [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanisms", if has_scram() { "SCRAM-SHA-256" } else { "PLAIN" }),
        ("sasl.username", USER),
        ("sasl.password", PASSWORD),
    ];
    works_by_properties(kafka, "SASL", &librdkafka).await;
}

#[tokio::test]
async fn refusals_of_broker_fail_with_specific_error() {
    let Some(kafka) = secured().await else { return };
    for (listener, security, part) in [
        ("SASL", Security::sasl_plaintext(Sasl::plain(USER, "hunter2")), "refuses the credentials"),
        ("SASL", Security::sasl_plaintext(Sasl::scram_sha_256(USER, "hunter2")), "refuses the credentials"),
        ("BOTH", Security::sasl_ssl(Sasl::scram_sha_512("nobody", PASSWORD), trusting()), "refuses the credentials"),
        ("SASL", Security::sasl_plaintext(msk()), "no mechanism AWS_MSK_IAM"),
        ("TLS", Security::ssl(Tls::new()), "not issued by an authority"),
        ("MUTUAL", Security::ssl(trusting()), "certificate"),
        ("MUTUAL", Security::ssl(trusting().only_tls_1_2()), "certificate"),
        ("TLS", Security::plaintext(), "asks for TLS"),
        ("CLIENT", Security::sasl_plaintext(Sasl::plain(USER, PASSWORD)), "PLAINTEXT or SSL"),
    ] {
        // Kafka 2.8's alert for a missing certificate is damaged (OpenSSL cannot read it either).
        if listener == "MUTUAL" && !at_least("3.0") {
            continue;
        }
        let bootstrap = if listener == "CLIENT" { kafka.bootstrap() } else { kafka.bootstrap_of(listener).unwrap() };
        let error = Admin::builder(&bootstrap).security(security).build().await.unwrap().list_topics().await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Authentication, "{listener}: {error:?}");
        assert!(error.to_string().contains(part), "{part:?} is missing in: {error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
    for (listener, security, part) in
        [("CLIENT", Security::ssl(trusting()), "without TLS"), ("SASL", Security::plaintext(), "require SASL")]
    {
        let bootstrap = if listener == "CLIENT" { kafka.bootstrap() } else { kafka.bootstrap_of(listener).unwrap() };
        let admin = Admin::builder(&bootstrap).security(security).default_api_timeout(Duration::from_secs(5));
        let error = admin.build().await.unwrap().list_topics().await.unwrap_err();
        assert!(error.to_string().contains(part), "{part:?} is missing in: {error}");
    }
}

#[tokio::test]
async fn acl_denial_error_names_topic_or_group() -> Result<(), Error> {
    if !needs("3.2", "an authorizer without ZooKeeper (KIP-801)") {
        return Ok(());
    }
    // Only clients of the plain listener have permissions.
    let builder = Kafka::builder()
        .secured()
        .config("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")
        .config("super.users", "User:ANONYMOUS");
    let Some(kafka) = or_skip(builder.start().await) else { return Ok(()) };
    let (topic, bootstrap) = (unique("denied"), kafka.bootstrap_of("SASL").unwrap());
    kafka.create_topic(&topic, 1, 1, &[]).await?;
    let security = Security::sasl_plaintext(Sasl::plain(USER, PASSWORD));
    let producer = producer(&bootstrap, security.clone()).build().await.unwrap();
    // The send fails at once, and not at the delivery timeout.
    let delivery = producer.send(Record::to(&topic).with_value("x")).await.unwrap();
    let error = tokio::time::timeout(Duration::from_secs(60), delivery).await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Authorization, Some(ErrorCode::TOPIC_AUTHORIZATION_FAILED)));
    assert_eq!(error.delivery_status(), Some(DeliveryStatus::NotPersisted));
    assert!(error.to_string().contains(&topic), "{error}");
    let consumer = Consumer::builder(&bootstrap).security(security.clone()).group("denied");
    let consumer = consumer.build().await.unwrap();
    consumer.subscribe([topic.as_str()]).unwrap();
    let error = tokio::time::timeout(Duration::from_secs(60), consumer.recv()).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authorization, "{error}");
    assert!(error.to_string().contains("denied"), "{error}");
    let admin = Admin::builder(&bootstrap).security(security).build().await.unwrap();
    assert!(admin.list_topics().await.unwrap().is_empty(), "topics without permission are not listed");
    consumer.close(Duration::from_secs(30)).await.unwrap();
    producer.close(Duration::from_secs(30)).await.unwrap();
    Ok(())
}

/// Returns the serial number of the certificate that a listener presents.
fn serial_at(address: &str) -> String {
    let shown = Command::new("keytool").args(["-J-Duser.language=en", "-printcert", "-sslserver", address]).output();
    let shown = String::from_utf8(shown.unwrap().stdout).unwrap();
    let line = shown.lines().find(|line| line.contains("Serial number")).unwrap_or_else(|| panic!("{shown}"));
    line.trim().to_owned()
}

#[tokio::test]
async fn replacing_certificates_loses_no_record() -> Result<(), Error> {
    if !needs("3.0", "settings of brokers that are altered without ZooKeeper") {
        return Ok(());
    }
    let Some(kafka) = or_skip(Kafka::builder().secured().start().await) else { return Ok(()) };
    let (topic, bootstrap) = (unique("renewed"), kafka.bootstrap_of("MUTUAL").unwrap());
    kafka.create_topic(&topic, 1, 1, &[]).await?;
    let dir = std::env::temp_dir().join(unique("ottla-renewed"));
    std::fs::create_dir(&dir).unwrap();
    let [chain, key, config] = ["client.pem", "client.key", "broker.properties"].map(|name| dir.join(name));
    let identify = |certificate: &str, its_key: &str| {
        std::fs::write(&key, its_key).unwrap();
        std::fs::write(&chain, certificate).unwrap();
    };
    identify(CERTIFICATES.client, CERTIFICATES.client_key);
    let security = Security::ssl(trusting().client_certificate_files(&chain, &key));
    // Each burst needs a new connection, so that the certificates are presented again and again.
    let idle = Duration::from_secs(1);
    let producer = producer(&bootstrap, security.clone());
    let producer = producer.property("connections.max.idle.ms", idle.as_millis().to_string());
    let producer = producer.build().await.unwrap();
    let consumer = Consumer::builder(&bootstrap).security(security).build().await.unwrap();
    consumer.assign([(TopicPartition::new(&*topic, 0), Offset::Beginning)]).unwrap();
    let mut next = 0;
    let mut bursts = async || {
        for _ in 0..3 {
            let mut deliveries = Vec::new();
            for n in next..next + 100 {
                deliveries.push(producer.send(Record::to(&topic).with_value(n.to_string())).await.unwrap());
            }
            for delivery in deliveries {
                delivery.await.unwrap();
            }
            for n in next..next + 100 {
                let record = tokio::time::timeout(Duration::from_secs(60), consumer.recv()).await.unwrap();
                assert_eq!(record.unwrap().unwrap().value.as_deref(), Some(n.to_string().as_bytes()));
            }
            next += 100;
            tokio::time::sleep(2 * idle).await;
        }
    };
    bursts().await;
    let before = serial_at(&bootstrap);

    let name = |end: &str| format!("listener.name.mutual.ssl.keystore.{end}");
    let line = |end: &str, pem: &str| format!("{}={}\n", name(end), pem.replace('\n', "\\n"));
    let (certificate, its_key) = (CERTIFICATES.server_renewed, CERTIFICATES.server_renewed_key);
    let both = line("certificate.chain", certificate) + &line("key", its_key) + &line("type", "PEM");
    std::fs::write(&config, both).unwrap();
    let of_node = ["--entity-type", "brokers", "--entity-name", "0"];
    let alter = ["--alter", "--add-config-file", config.to_str().unwrap()];
    kafka.tools().configs(&[&of_node[..], &alter].concat()).await?;
    bursts().await;
    assert_ne!(serial_at(&bootstrap), before, "the broker shows another certificate");

    // Any certificate of the authority also works for a client.
    identify(certificate, its_key);
    bursts().await;
    let metrics = producer.metrics();
    assert_eq!((metrics.records_failed(), metrics.batches_retried), (0, 0));
    producer.close(Duration::from_secs(30)).await.unwrap();
    consumer.close(Duration::from_secs(30)).await.unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    Ok(())
}

/// Returns the duration of the traffic: 20 s, or the number of seconds in `OTTLA_REAUTH_SECONDS`.
fn span() -> Duration {
    let asked = std::env::var("OTTLA_REAUTH_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(asked.unwrap_or(20))
}

#[tokio::test]
async fn reauthentication_causes_no_failures_or_retries() -> Result<(), Error> {
    let builder = Kafka::builder().secured().config("connections.max.reauth.ms", "5000");
    let Some(kafka) = or_skip(builder.start().await) else { return Ok(()) };
    for (sasl, listener) in mechanisms().into_iter().zip(["SASL", "BOTH", "SASL", "BOTH"]) {
        let security = match listener {
            "SASL" => Security::sasl_plaintext(sasl),
            _ => Security::sasl_ssl(sasl, trusting()),
        };
        let (topic, bootstrap) = (unique("reauth"), kafka.bootstrap_of(listener).unwrap());
        kafka.create_topic(&topic, 3, 1, &[]).await?;
        let producer = producer(&bootstrap, security.clone()).build().await.unwrap();
        let consumer = group_consumer(&bootstrap, security, &topic).await;
        consumer.subscribe([topic.as_str()]).unwrap();
        // A broker may refuse the first records of a topic that it has only just learned of (2.8
        // does).
        for partition in 0..3 {
            let first = Record::to(&topic).with_partition(partition).with_value(format!("first of {partition}"));
            producer.send(first).await.unwrap().await.unwrap();
        }
        let retried = producer.metrics().batches_retried;
        let (until, mut sent, mut read) = (Instant::now() + span() / 4, 0_u64, 0_u64);
        let sending = async {
            let mut deliveries = Vec::new();
            while Instant::now() < until {
                let value = sent.to_string();
                deliveries.push(producer.send(Record::to(&topic).with_key(&value).with_value(&value)).await.unwrap());
                sent += 1;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            for delivery in deliveries {
                delivery.await.unwrap();
            }
            sent
        };
        let reading = async {
            let mut seen = std::collections::HashSet::new();
            loop {
                let record = consumer.recv().await.unwrap().unwrap();
                assert!(seen.insert(record.value.clone().unwrap()), "twice: {record:?}");
                read = seen.len() as u64;
                if record.value.as_deref() == Some(b"end") {
                    return;
                }
            }
        };
        let all = async {
            let sent = sending.await;
            // The last record of its partition; the ends of the other partitions are awaited below.
            producer.send(Record::to(&topic).with_value("end")).await.unwrap().await.unwrap();
            sent
        };
        let (sent, ()) = tokio::join!(all, reading);
        let deadline = Instant::now() + Duration::from_secs(60);
        let written = sent + 4;
        while read < written && Instant::now() < deadline {
            if let Ok(record) = tokio::time::timeout(Duration::from_secs(1), consumer.recv()).await {
                record.unwrap().unwrap();
                read += 1;
            }
        }
        let metrics = producer.metrics();
        eprintln!("{listener}: {sent} sent, {read} read, {} retried", metrics.batches_retried);
        assert_eq!((read, metrics.records_failed(), metrics.batches_retried), (written, 0, retried));
        consumer.close(Duration::from_secs(30)).await.unwrap();
        producer.close(Duration::from_secs(30)).await.unwrap();
    }
    Ok(())
}
