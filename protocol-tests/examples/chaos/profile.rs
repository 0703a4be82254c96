//! The producers that send, and the form of their records.

use std::io::Write;

/// The way in which a producer chooses partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    /// Every partition in turn.
    Turns,
    /// By key.
    Keys,
    /// By the partitioner.
    Anywhere,
}

/// The API for sending records and for receiving their results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Means {
    /// `send`, and each record's own delivery.
    Deliveries,
    /// `send_batch`, and the deliveries of all its records at once.
    Batches,
    /// `send`, and the stream of reports.
    Stream,
    /// `send`, and the callback.
    Callback,
}

/// One kind of producer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Profile {
    pub(crate) name: &'static str,
    pub(crate) aim: Aim,
    pub(crate) means: Means,
    /// The codec with `--compression mixed`.
    pub(crate) codec: &'static str,
    /// Multiple of the size in the command line.
    pub(crate) times: usize,
    pub(crate) properties: &'static [(&'static str, &'static str)],
}

/// All kinds. Each tests a different risk: the records that it sends again, the time, and the
/// sequence numbers.
pub(crate) const PROFILES: [Profile; 7] = [
    Profile { name: "default", aim: Aim::Anywhere, means: Means::Deliveries, codec: "none", times: 1, properties: &[] },
    Profile {
        name: "packed",
        aim: Aim::Turns,
        means: Means::Batches,
        codec: "lz4",
        times: 5,
        properties: &[("batch.size", "65536"), ("linger.ms", "20")],
    },
    // Many small batches: usually five of each partition are in flight.
    Profile {
        name: "small",
        aim: Aim::Turns,
        means: Means::Stream,
        codec: "none",
        times: 1,
        properties: &[("batch.size", "1000"), ("linger.ms", "0")],
    },
    // Records expire: some before they are sent, some in flight.
    Profile {
        name: "short",
        aim: Aim::Turns,
        means: Means::Deliveries,
        codec: "snappy",
        times: 1,
        properties: &[("delivery.timeout.ms", "10000"), ("request.timeout.ms", "5000")],
    },
    // Sends batches again that a frozen broker still holds and will write.
    Profile {
        name: "impatient",
        aim: Aim::Turns,
        means: Means::Callback,
        codec: "none",
        times: 1,
        properties: &[("request.timeout.ms", "1500"), ("linger.ms", "1")],
    },
    // Both risks at once, and its epochs rise.
    Profile {
        name: "hasty",
        aim: Aim::Turns,
        means: Means::Stream,
        codec: "gzip",
        times: 1,
        properties: &[("delivery.timeout.ms", "2500"), ("request.timeout.ms", "1000"), ("batch.size", "2000")],
    },
    Profile { name: "keyed", aim: Aim::Keys, means: Means::Deliveries, codec: "zstd", times: 2, properties: &[] },
];

const KEYS: u64 = 97;

/// Writes the value of a record: its producer and number, repeated up to `size`, so that any wrong
/// byte is noticed.
pub(crate) fn write_value(producer: usize, number: u64, size: usize, value: &mut Vec<u8>) {
    value.clear();
    // Writing into a vector cannot fail.
    let _ = write!(value, "{producer}-{number}-");
    let own = value.len();
    while value.len() < size {
        let more = own.min(size - value.len());
        value.extend_from_within(..more);
    }
}

/// Returns the producer and the number of a value.
pub(crate) fn read_value(value: &[u8]) -> Option<(usize, u64)> {
    let mut parts = value.splitn(3, |byte| *byte == b'-');
    let mut part = || std::str::from_utf8(parts.next()?).ok();
    Some((part()?.parse().ok()?, part()?.parse().ok()?))
}

/// Returns the key of a record of a producer with keys.
pub(crate) fn key(number: u64) -> String {
    format!("key-{}", number % KEYS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_parse_back_and_have_requested_size() {
        let mut value = Vec::new();
        for size in [0, 5, 100, 1_000] {
            write_value(3, 1_234_567, size, &mut value);
            assert_eq!(read_value(&value), Some((3, 1_234_567)));
            assert_eq!(value.len(), size.max(10));
        }
        assert!(value.starts_with(b"3-1234567-3-1234567-3-"));
        assert_eq!(read_value(b"something else"), None);
    }
}
