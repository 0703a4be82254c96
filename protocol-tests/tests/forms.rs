//! Every form of a record and a batch that Ottla can write, in every codec, read by librdkafka
//! (kcat), Java's consumer and Kafka's own log dump: keys, values, headers and timestamps are
//! compared to the byte, and each batch's codec and checksum are checked.
//!
//! One topic has a partition for each way of writing, so that each of the other programs is started
//! once.

#![cfg(unix)]

mod common;

use std::time::Duration;

use ottla::{Producer, Record};
use protocol_tests::dump::{DumpedBatch, dump};
use protocol_tests::{Consumed, Kafka, Message, has_producer_ids, kcat::Kcat, or_skip, shared, unique};
use serde_json::Value as Json;

/// A way of writing: the codec that the batches must have, and the properties that select it.
#[derive(Clone, Copy)]
struct Way {
    codec: &'static str,
    properties: &'static [(&'static str, &'static str)],
}

impl Way {
    fn is_idempotent(&self) -> bool {
        has_producer_ids() && !self.properties.iter().any(|(name, _)| matches!(*name, "enable.idempotence" | "acks"))
    }
}

const IN_ORDER: (&str, &str) = ("max.in.flight.requests.per.connection", "1");

const WAYS: [Way; 12] = [
    Way { codec: "none", properties: &[] },
    Way { codec: "gzip", properties: &[("compression.type", "gzip")] },
    Way { codec: "gzip", properties: &[("compression.type", "gzip"), ("compression.gzip.level", "1")] },
    Way { codec: "gzip", properties: &[("compression.type", "gzip"), ("compression.gzip.level", "9")] },
    Way { codec: "snappy", properties: &[("compression.type", "snappy")] },
    Way { codec: "lz4", properties: &[("compression.type", "lz4")] },
    Way { codec: "lz4", properties: &[("compression.type", "lz4"), ("compression.lz4.level", "9")] },
    Way { codec: "zstd", properties: &[("compression.type", "zstd")] },
    Way { codec: "zstd", properties: &[("compression.type", "zstd"), ("compression.zstd.level", "-7")] },
    Way { codec: "zstd", properties: &[("compression.type", "zstd"), ("compression.zstd.level", "4")] },
    Way { codec: "none", properties: &[("enable.idempotence", "false"), ("acks", "all"), IN_ORDER] },
    Way { codec: "zstd", properties: &[("compression.type", "zstd"), ("acks", "1"), IN_ORDER] },
];

/// A record to be sent: the message, and its timestamp if it has its own.
type Form = (Message, Option<i64>);

/// Returns bytes that no codec can compress, without those that the other clients' text formats use
/// as separators.
fn noise(len: usize, mut seed: u64) -> Vec<u8> {
    let next = std::iter::repeat_with(move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed.to_be_bytes()[0]
    });
    next.filter(|byte| !matches!(byte, b'\n' | b'\r' | b',' | b'=' | 0x1a..=0x1f)).take(len).collect()
}

/// Returns every form.
fn forms() -> Vec<Form> {
    let text = |text: &str| Some(text.as_bytes().to_vec());
    let mut messages = Vec::new();
    // Keys and values: null, empty, text, bytes that are not text, and lengths around the one at
    // which a varint needs another byte.
    let bodies = [None, Some(Vec::new()), text("grüße, ключ"), Some(vec![0, 0xff, 0xfe, 0x80]), Some(noise(64, 1))];
    for key in &bodies {
        for value in &bodies {
            messages.push(Message { key: key.clone(), value: value.clone(), headers: Vec::new() });
        }
    }
    for len in [63, 64, 8_191, 8_192] {
        messages.push(Message::value(noise(len, len as u64)).key(noise(len, 7)));
    }
    // Larger than a batch, a block of snappy (32 KiB), a block of LZ4 (64 KiB) and one of zstd (128
    // KiB).
    messages.push(Message::value("words that repeat and so compress, ".repeat(9_000)).key(noise(20_000, 2)));
    messages.push(Message::value(noise(300_000, 3)));

    let header = |name: &str, value: Option<Vec<u8>>| (name.to_owned(), value);
    let headers = [
        vec![header("one", text("1"))],
        vec![header("null", None), header("empty", Some(Vec::new())), header("", text("nameless"))],
        vec![header("", Some(Vec::new()))],
        vec![header("again", text("first")), header("other", text("x")), header("again", text("second"))],
        vec![header("same", text("v")), header("same", text("v")), header("same", None)],
        vec![header("имя ✓", text("значение ✓")), header("bytes", Some(noise(200, 4)))],
        vec![header("zeros", Some(vec![0; 70])), header(&"long name ".repeat(30), Some(noise(9_000, 5)))],
        (0..200).map(|n| header(&format!("h{n}"), Some(noise(n % 9, 6)))).collect(),
    ];
    for headers in headers {
        for (key, value) in [(None, None), (Some(Vec::new()), text("v")), (text("k"), text("with headers"))] {
            messages.push(Message { key, value, headers: headers.clone() });
        }
    }
    let mut forms: Vec<Form> = messages.into_iter().map(|message| (message, None)).collect();
    // Not in order of time, so that some timestamp differences within a batch are negative, and
    // large.
    for timestamp in [0, 1_700_000_000_000, 1, 999_999_999_999, 1_700_000_000_001, 86_400_000] {
        forms.push((Message::value(format!("at {timestamp}")), Some(timestamp)));
    }
    forms
}

fn record<'a>(topic: &'a str, partition: i32, (message, timestamp): &'a Form) -> Record<'a> {
    let record = common::record(topic, message).with_partition(partition);
    match timestamp {
        Some(timestamp) => record.with_timestamp_millis(*timestamp),
        None => record,
    }
}

/// Sends to one partition and returns the records that the log must hold there, in order.
async fn write(kafka: &Kafka, topic: &str, partition: i32, way: &Way) -> Vec<Consumed> {
    let bootstrap = kafka.bootstrap();
    let mut properties = vec![("bootstrap.servers", bootstrap.as_str()), ("linger.ms", "100"), ("batch.size", "60000")];
    properties.extend(way.properties);
    if !way.is_idempotent() && !properties.iter().any(|(name, _)| *name == "acks") {
        properties.extend([("enable.idempotence", "false"), ("acks", "all"), IN_ORDER]);
    }
    let producer = Producer::from_properties(properties).await.unwrap();
    let mut sent = Vec::new();
    let mut note = |form: &Form, at: ottla::RecordMetadata| {
        sent.push(Consumed {
            partition: at.partition,
            offset: at.offset.unwrap(),
            timestamp: at.timestamp_millis,
            message: form.0.clone(),
        });
    };
    // Each form in a batch of its own.
    let forms = forms();
    for form in &forms {
        let delivery = producer.send(record(topic, partition, form)).await.unwrap();
        assert_eq!(producer.flush(Duration::from_secs(30)).await, 0);
        note(form, delivery.await.unwrap());
    }
    // Many records in one batch.
    let small = (0..3_000).map(|n| (Message::value(format!("small {n}")).key("k").header("n", format!("{n}")), None));
    let forms: Vec<Form> = forms.into_iter().chain(small).collect();
    let mut deliveries = Vec::new();
    for form in &forms {
        deliveries.push(producer.send(record(topic, partition, form)).await.unwrap());
    }
    for (form, delivery) in forms.iter().zip(deliveries) {
        note(form, delivery.await.unwrap());
    }
    producer.close(Duration::from_secs(10)).await.unwrap();
    sent
}

/// Writes in all of these ways, each to its own partition.
async fn write_all(kafka: &Kafka, topic: &str, ways: &[Way], configs: &[(&str, &str)]) -> Vec<Vec<Consumed>> {
    kafka.create_topic(topic, i32::try_from(ways.len()).unwrap(), 1, configs).await.unwrap();
    let mut written = Vec::new();
    for (partition, way) in (0..).zip(ways) {
        let sent = write(kafka, topic, partition, way).await;
        assert!(sent.iter().zip(0..).all(|(sent, offset)| (sent.partition, sent.offset) == (partition, offset)));
        if let Some((_, own)) = forms().iter().zip(&sent).find(|((_, timestamp), _)| *timestamp == Some(0)) {
            let kept = configs.iter().all(|(_, value)| *value != "LogAppendTime");
            assert_eq!(own.timestamp == 0, kept, "a timestamp is the record's own, or the broker's");
        }
        written.push(sent);
    }
    written
}

/// Compares the records that another client read with those that were written, and names the first
/// difference briefly.
fn same(who: &str, ways: &[Way], written: &[Vec<Consumed>], mut read: Vec<Consumed>) {
    read.sort_by_key(|record| (record.partition, record.offset));
    let brief = |record: Option<&Consumed>| format!("{record:?}").chars().take(600).collect::<String>();
    let mut read = read.into_iter();
    for expected in written.iter().flatten() {
        let found = read.next();
        let way = &ways[usize::try_from(expected.partition).unwrap()];
        assert!(
            found.as_ref() == Some(expected),
            "{who}, {} {:?}: expected\n{}\nand read\n{}",
            way.codec,
            way.properties,
            brief(Some(expected)),
            brief(found.as_ref()),
        );
    }
    assert!(read.next().is_none(), "{who} read more than was written");
}

/// Compares the output of Kafka's log dump for one log with the records that were written to it.
fn same_in_the_log(way: &Way, written: &[Consumed], log: &[DumpedBatch], append_time: bool) {
    let what = format!("{} {:?}", way.codec, way.properties);
    let idempotent = way.is_idempotent();
    for batch in log {
        let base = batch.base_offset;
        assert!(batch.is_valid, "{what}: the checksum of the batch at {base}");
        assert_eq!((batch.codec.as_str(), batch.append_time), (way.codec, append_time), "{what}: the batch at {base}");
        assert_eq!(batch.count, batch.records.len() as i64, "{what}: the batch at {base}");
        assert_eq!(batch.producer_id >= 0, idempotent, "{what}: the batch at {base}");
        assert_eq!(batch.base_sequence, if idempotent { base } else { -1 }, "{what}: the batch at {base}");
    }
    let mut records = log.iter().flat_map(|batch| &batch.records);
    for expected in written {
        let found = records.next().unwrap_or_else(|| panic!("{what}: the log ends before {}", expected.offset));
        let size = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(-1, |bytes| bytes.len() as i64);
        let names: Vec<&str> = expected.message.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            (found.offset, found.timestamp, found.key_size, found.value_size, found.header_names.as_str()),
            (
                expected.offset,
                expected.timestamp,
                size(&expected.message.key),
                size(&expected.message.value),
                names.join(",").as_str()
            ),
            "{what}"
        );
    }
    assert!(records.next().is_none(), "{what}: the log holds more");
    let forms = forms().len();
    assert!(log.len() > forms && log[..forms].iter().all(|batch| batch.count == 1), "{what}: batches of one");
    assert!(log.iter().any(|batch| batch.count > 200), "{what}: batches of many");
}

/// Reads with every client.
async fn everybody_reads(kafka: &Kafka, topic: &str, ways: &[Way], written: &[Vec<Consumed>], append_time: bool) {
    let count = written.iter().map(Vec::len).sum();
    let java = kafka.tools().consume(topic, count, &[]).await.unwrap();
    same("Kafka's console consumer", ways, written, java);

    let partitions: Vec<(&str, i32)> = (0..).zip(ways).map(|(partition, _)| (topic, partition)).collect();
    let logs = dump(&kafka.tools(), kafka.node(0), &partitions).await.unwrap();
    for ((way, written), log) in ways.iter().zip(written).zip(&logs) {
        same_in_the_log(way, written, log, append_time);
    }

    let Some(kcat) = or_skip(Kcat::find(kafka.bootstrap())) else { return };
    let theirs = kcat.consume(topic, &[("check.crcs", "true")]).await.unwrap();
    same("kcat", ways, &written.iter().map(|written| as_kcat_prints(written)).collect::<Vec<_>>(), theirs);
    let json = kcat_json(&kcat, topic).await;
    assert_eq!(json.lines().count(), written[0].len(), "kcat writes a line of JSON for each record");
    json.lines().for_each(|line| assert_json(line, written, append_time));
}

/// kcat prints the value of a header up to its first zero.
fn as_kcat_prints(written: &[Consumed]) -> Vec<Consumed> {
    let mut printed = written.to_vec();
    for (_, value) in printed.iter_mut().flat_map(|record| &mut record.message.headers) {
        if let Some(value) = value {
            let zero = value.iter().position(|byte| *byte == 0);
            value.truncate(zero.unwrap_or(value.len()));
        }
    }
    printed
}

async fn kcat_json(kcat: &Kcat, topic: &str) -> String {
    // One partition is enough: the differences between them were compared above.
    let args = ["-C", "-t", topic, "-p", "0", "-o", "beginning", "-e", "-q", "-J"];
    let output = kcat.run(&args, b"").await.unwrap();
    String::from_utf8_lossy(&output).into_owned()
}

/// Checks kcat's JSON line for one record: its metadata, and its text if all of it is plain.
fn assert_json(line: &str, written: &[Vec<Consumed>], append_time: bool) {
    let json: Json = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:.300}"));
    let offset = json["offset"].as_u64().and_then(|offset| usize::try_from(offset).ok());
    let record = offset.and_then(|offset| written[0].get(offset)).unwrap_or_else(|| panic!("{line:.300}"));
    let kind = if append_time { "logappend" } else { "create" };
    assert_eq!((&json["tstype"], &json["ts"]), (&kind.into(), &record.timestamp.into()), "{line:.300}");
    let plain = |bytes: &[u8]| bytes.iter().all(|byte| matches!(byte, b' ' | b'a'..=b'z' | b'0'..=b'9'));
    let text = |bytes: &Option<Vec<u8>>| match bytes {
        Some(bytes) => plain(bytes).then(|| Json::from(String::from_utf8_lossy(bytes))),
        None => Some(Json::Null),
    };
    let Message { key, value, headers } = &record.message;
    for (name, bytes) in [("key", key), ("payload", value)] {
        if let Some(text) = text(bytes) {
            assert_eq!(json.get(name), Some(&text), "{name} of {line:.300}");
        }
    }
    let header = |(name, value): &(String, Option<Vec<u8>>)| {
        Some([Json::from(name.as_str()), text(value).filter(|_| plain(name.as_bytes()))?])
    };
    // kcat writes the names and values of all headers in one array.
    let headers: Option<Vec<[Json; 2]>> = headers.iter().map(header).collect();
    if let Some(headers) = headers.filter(|headers| !headers.is_empty()) {
        assert_eq!(json["headers"], Json::from(headers.concat()), "headers of {line:.300}");
    }
}

#[tokio::test]
async fn other_clients_read_every_form_and_codec() {
    let Some(kafka) = shared().await else { return };
    let topic = unique("forms");
    // Records of 1970 would be older than any retention.
    let written = write_all(kafka, &topic, &WAYS, &[("retention.ms", "-1")]).await;
    everybody_reads(kafka, &topic, &WAYS, &written, false).await;
}

#[tokio::test]
async fn forms_are_read_with_log_append_time() {
    let Some(kafka) = shared().await else { return };
    let topic = unique("forms-append-time");
    let ways = [&WAYS[0..2], &WAYS[4..6], &WAYS[8..9]].concat();
    let written = write_all(kafka, &topic, &ways, &[("message.timestamp.type", "LogAppendTime")]).await;
    everybody_reads(kafka, &topic, &ways, &written, true).await;
}
