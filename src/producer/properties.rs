//! The properties of a producer by name: Java's names, and librdkafka's where they differ.

use std::time::Duration;

use super::{
    partitioner,
    settings::{Acks, ProducerSettings},
};
use crate::config::{
    Property,
    parse::{
        BOOLEAN, MILLIS, boolean, millis, millis_or_unbounded, millis_with_fraction, number, one_of, text, within,
    },
    table,
};

/// The properties of a producer beside those of every client.
pub(crate) static PROPERTIES: &[Property<ProducerSettings>] = table! {
    "acks" | "request.required.acks", "all, -1, 0 or 1", |s, v| s.acks = acks(v)?;
    "batch.size", "bytes, 0 to 2147483647", |s, v| s.batch_size = within(v, 0..=2_147_483_647)?;
    "linger.ms" | "queue.buffering.max.ms", "milliseconds, 0 or more, also with a fraction",
        |s, v| s.linger = millis_with_fraction(v)?;
    "buffer.memory", "bytes, 1 or more, and no other size in queue.buffering.max.kbytes",
        |s, v| s.buffer_memory = buffer_memory(s, "queue.buffering.max.kbytes", number(v)?)?;
    "queue.buffering.max.kbytes", "kibibytes, 1 or more, and no other size in buffer.memory",
        |s, v| s.buffer_memory = buffer_memory(s, "buffer.memory", number::<usize>(v)?.checked_mul(1024)?)?;
    "max.block.ms", MILLIS, |s, v| s.max_block = millis(v)?;
    "delivery.timeout.ms" | "message.timeout.ms", "milliseconds, 1 or more; 0 for no bound",
        |s, v| s.delivery_timeout = Some(millis_or_unbounded(v)?);
    "max.request.size" | "message.max.bytes", "bytes, 1 to 2147483647",
        |s, v| s.max_request_size = within(v, 1..=2_147_483_647)?;
    "max.in.flight.requests.per.connection" | "max.in.flight", "1 or more",
        |s, v| s.max_in_flight = within(v, 1..=1_000_000)?;
    "enable.idempotence", BOOLEAN, |s, v| s.idempotence = Some(boolean(v)?);
    "retries" | "message.send.max.retries", "0 to 2147483647", |s, v| s.retries = within(v, 0..=2_147_483_647)?;
    "compression.type" | "compression.codec", "none, gzip, snappy, lz4 or zstd", |s, v| compression(s, v)?;
    "compression.gzip.level", "1 to 9, or -1", |s, v| s.compression.gzip_level = Some(number(v)?);
    "compression.lz4.level", "9", |s, v| s.compression.lz4_level = Some(number(v)?);
    "compression.zstd.level", "-7 to 4", |s, v| s.compression.zstd_level = Some(number(v)?);
    "compression.level", "a level of the codec, or -1", |s, v| s.compression.level = Some(number(v)?);
    "partitioner.class" | "partitioner", partitioner::NAMES,
        |s, v| s.partitioning.partitioner = partitioner::named(v)?;
    "partitioner.ignore.keys", BOOLEAN, |s, v| s.partitioning.ignore_keys = boolean(v)?;
    "partitioner.adaptive.partitioning.enable", BOOLEAN, |s, v| s.partitioning.adaptive = boolean(v)?;
    "partitioner.availability.timeout.ms", MILLIS, |s, v| s.partitioning.availability_timeout = millis(v)?;
    "partitioner.rack.aware", BOOLEAN, |s, v| s.partitioning.rack_aware = boolean(v)?;
};

/// The properties that only a transactional producer has.
pub(crate) static TRANSACTION_PROPERTIES: &[Property<ProducerSettings>] = table! {
    "transactional.id", "a name, the same after each restart",
        |s, v| if let Some(id) = text(v) { s.transactional_id = Some(id.into()) };
    "transaction.timeout.ms", "milliseconds, 1 to 2147483647",
        |s, v| s.transaction_timeout = Duration::from_millis(within(v, 1..=2_147_483_647)?);
};

/// Returns the size of the buffer, or `None` if the property's other name has set another size.
fn buffer_memory(settings: &ProducerSettings, other: &str, bytes: usize) -> Option<usize> {
    let contradicts = settings.client.given.has(other) && settings.buffer_memory != bytes;
    (!contradicts).then_some(bytes)
}

/// Sets the codec. `inherit` is librdkafka's default for a topic and means the codec of the
/// producer.
fn compression(settings: &mut ProducerSettings, value: &str) -> Option<()> {
    if value.trim().eq_ignore_ascii_case("inherit") { Some(()) } else { settings.compression.set_codec(value) }
}

fn acks(value: &str) -> Option<Acks> {
    one_of(value, &[("all", Acks::All), ("-1", Acks::All), ("0", Acks::None), ("1", Acks::Leader)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cluster::client_properties, config::apply, wire::Compression};

    fn applied(pairs: &[(&str, &str)]) -> crate::Result<ProducerSettings> {
        let mut settings = ProducerSettings::default();
        apply(&mut settings, &[PROPERTIES, client_properties()], pairs.iter().copied())?;
        Ok(settings)
    }

    #[test]
    fn accepts_java_and_librdkafka_property_names() {
        let java = applied(&[
            ("acks", "ALL"),
            ("linger.ms", "7"),
            ("delivery.timeout.ms", "90000"),
            ("retries", "3"),
            ("compression.type", "gzip"),
            ("compression.gzip.level", "4"),
            ("request.timeout.ms", "1000"),
        ]);
        #[cfg(feature = "gzip")]
        assert_eq!(java.as_ref().unwrap().clone().check().unwrap().compression, Compression::Gzip(4));
        let java = java.unwrap();
        let rd = applied(&[
            ("request.required.acks", "-1"),
            ("queue.buffering.max.ms", "7"),
            ("message.timeout.ms", "90000"),
            ("message.send.max.retries", "3"),
            ("queue.buffering.max.kbytes", "2"),
        ])
        .unwrap();
        assert_eq!((java.acks, java.linger, java.retries), (rd.acks, rd.linger, rd.retries));
        assert_eq!(java.delivery_timeout, Some(Duration::from_secs(90)));
        assert_eq!(rd.buffer_memory, 2048);
    }

    #[test]
    fn transaction_properties_have_bounds() {
        let applied = |pairs: &[(&str, &str)]| -> crate::Result<_> {
            let mut settings = ProducerSettings::default();
            apply(&mut settings, &[TRANSACTION_PROPERTIES, PROPERTIES, client_properties()], pairs.iter().copied())?;
            Ok((settings.transactional_id, settings.transaction_timeout))
        };
        let given = applied(&[("transactional.id", "t"), ("transaction.timeout.ms", "2147483647")]).unwrap();
        assert_eq!(given, (Some("t".into()), Duration::from_millis(2_147_483_647)));
        assert_eq!(applied(&[("transactional.id", " ")]).unwrap(), (None, Duration::from_secs(60)));
        for value in ["0", "-1", "2147483648", "1.5"] {
            let error = applied(&[("transaction.timeout.ms", value)]).unwrap_err().to_string();
            assert!(error.contains("milliseconds, 1 to 2147483647"), "{error}");
        }
        let error = applied(&[("transaction.two.phase.commit.enable", "true")]).unwrap_err().to_string();
        assert!(error.contains("KIP-939"), "{error}");
        applied(&[("transaction.two.phase.commit.enable", "false")]).unwrap();
    }

    #[test]
    fn accepts_value_formats_of_librdkafka() {
        let linger = |value| applied(&[("linger.ms", value)]).unwrap().linger;
        assert_eq!((linger("5.0"), linger("0.5")), (Duration::from_millis(5), Duration::from_micros(500)));
        let infinite = applied(&[("message.timeout.ms", "0")]).unwrap().check().unwrap();
        assert!(infinite.delivery_timeout > Duration::from_secs(86_400 * 365));
        assert_eq!(infinite.request_timeout, Duration::from_secs(30));
        applied(&[("compression.codec", "inherit")]).unwrap();
        let two = applied(&[("socket.timeout.ms", "60000"), ("request.timeout.ms", "7000")]);
        let two = two.unwrap().check().unwrap();
        assert_eq!((two.request_timeout, two.ack_timeout), (Duration::from_secs(60), Duration::from_secs(7)));
    }

    #[test]
    fn rejects_conflicting_buffer_sizes() {
        let (bytes, kbytes) = (("buffer.memory", "4096"), ("queue.buffering.max.kbytes", "4"));
        assert_eq!(applied(&[bytes, kbytes]).unwrap().buffer_memory, 4096);
        for pairs in [[("buffer.memory", "4097"), kbytes], [kbytes, ("buffer.memory", "1")]] {
            let error = applied(&pairs).unwrap_err().to_string();
            assert!(error.contains("buffer.memory") && error.contains("queue.buffering.max.kbytes"), "{error}");
        }
    }

    #[test]
    fn error_names_bad_value_or_property() {
        for (pair, part) in [
            (("acks", "2"), "all, -1, 0 or 1"),
            (("max.in.flight", "0"), "1 or more"),
            (("compression.type", "zip"), "none, gzip"),
            (("linger.msec", "1"), "linger.ms"),
        ] {
            let error = applied(&[pair]).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
