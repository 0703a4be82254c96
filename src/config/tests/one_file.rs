//! Tests one file of properties with a producer, a consumer and an admin client.

use super::world::{KINDS, Kind, Warnings, build};
use crate::ErrorKind;

/// A file of a Java program.
const JAVA: &[(&str, &str)] = &[
    ("bootstrap.servers", "h:9092"),
    ("key.serializer", "org.apache.kafka.common.serialization.StringSerializer"),
    ("value.serializer", "org.apache.kafka.common.serialization.StringSerializer"),
    ("key.deserializer", "org.apache.kafka.common.serialization.StringDeserializer"),
    ("value.deserializer", "org.apache.kafka.common.serialization.StringDeserializer"),
    ("acks", "all"),
    ("batch.size", "65536"),
    ("linger.ms", "5"),
    ("retries", "2147483647"),
    ("enable.idempotence", "true"),
    ("max.in.flight.requests.per.connection", "5"),
    ("group.id", "billing"),
    ("auto.offset.reset", "earliest"),
    ("enable.auto.commit", "false"),
    ("default.api.timeout.ms", "60000"),
    ("receive.buffer.bytes", "65536"),
    ("metrics.num.samples", "2"),
];

/// A file of a program on librdkafka.
const RDKAFKA: &[(&str, &str)] = &[
    ("metadata.broker.list", "h:9092"),
    ("message.max.bytes", "1000000"),
    ("max.in.flight", "5"),
    ("socket.timeout.ms", "60000"),
    ("request.timeout.ms", "30000"),
    ("message.timeout.ms", "0"),
    ("linger.ms", "0.5"),
    ("metadata.max.age.ms", "900000"),
    ("topic.metadata.refresh.interval.ms", "300000"),
    ("group.id", ""),
    ("group.instance.id", ""),
    ("compression.codec", "inherit"),
    ("statistics.interval.ms", "1000"),
    ("queued.min.messages", "1000"),
    ("log_level", "6"),
    ("debug", "all"),
    ("api.version.request", "true"),
    ("enable.auto.offset.store", "true"),
];

#[tokio::test]
async fn same_file_builds_every_client_kind() {
    let warnings = Warnings::default();
    let _collecting = warnings.collect();
    for file in [JAVA, RDKAFKA] {
        for kind in KINDS {
            build(kind, file).await.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
            let told = warnings.take();
            assert_eq!(told.len(), 1, "{kind:?}: {told:#?}");
        }
    }
}

#[tokio::test]
async fn rejects_unsupported_security_and_delivery_settings() {
    for (kinds, name, value) in [
        (&KINDS[..], "ssl.crl.location", "/etc/crl.pem"),
        (&KINDS, "ssl.cipher.suites", "TLS_AES_256_GCM_SHA384"),
        (&KINDS, "sasl.kerberos.service.name", "kafka"),
        (&KINDS, "config.providers", "file"),
        (&KINDS, "config.providers.file.class", "x"),
        (&[Kind::Producer], "transactional.id", "t"),
        (&[Kind::Consumer], "enable.auto.offset.store", "false"),
    ] {
        for kind in kinds {
            let error = build(*kind, &[("bootstrap.servers", "h:9092"), (name, value)]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
            let text = error.to_string();
            assert!(text.contains(name) && !text.starts_with("unknown"), "{text}");
        }
    }
}
