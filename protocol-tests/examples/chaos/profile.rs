//! The producers that send, and what their records look like.

use std::io::Write;

/// Where a producer's records go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    /// To every partition in turn.
    Turns,
    /// Where their keys say.
    Keys,
    /// Wherever the partitioner likes.
    Anywhere,
}

/// How records are handed over, and how their results are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Means {
    /// `send`, and each record's own delivery.
    Deliveries,
    /// `send_batch`, and the deliveries of all its records together.
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
    /// How many times the size that the command says.
    pub(crate) times: usize,
    pub(crate) properties: &'static [(&'static str, &'static str)],
}

/// All kinds. Each has a weak point of its own: what it sends again, when, and under which number.
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
    // Many small batches: five of each partition are in flight as a rule.
    Profile {
        name: "small",
        aim: Aim::Turns,
        means: Means::Stream,
        codec: "none",
        times: 1,
        properties: &[("batch.size", "1000"), ("linger.ms", "0")],
    },
    // Records expire: some before they were sent, some on the wire.
    Profile {
        name: "short",
        aim: Aim::Turns,
        means: Means::Deliveries,
        codec: "snappy",
        times: 1,
        properties: &[("delivery.timeout.ms", "10000"), ("request.timeout.ms", "5000")],
    },
    // Sends again what a frozen broker still holds and will write.
    Profile {
        name: "impatient",
        aim: Aim::Turns,
        means: Means::Callback,
        codec: "none",
        times: 1,
        properties: &[("request.timeout.ms", "1500"), ("linger.ms", "1")],
    },
    // Both at once, and its epochs go up.
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

/// The value of a record: who sent it and its number, and more of the same up to `size`, so that
/// any byte that is wrong is seen.
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

/// Who sent it, and its number.
pub(crate) fn read_value(value: &[u8]) -> Option<(usize, u64)> {
    let mut parts = value.splitn(3, |byte| *byte == b'-');
    let mut part = || std::str::from_utf8(parts.next()?).ok();
    Some((part()?.parse().ok()?, part()?.parse().ok()?))
}

/// The key of a record of a producer with keys.
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
