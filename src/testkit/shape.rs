//! The shapes of requests, walked before they are decoded: the decoder reserves memory for as many elements as an array
//! says it has, so that what it says is checked against the bytes that are there first.

use crate::wire::ApiKey;

enum Kind {
    /// So many bytes.
    Fixed(usize),
    /// Text or bytes behind a length of two bytes (a varint in flexible versions).
    Text,
    /// Bytes behind a length of four bytes (a varint in flexible versions).
    Bytes,
    /// Structures with these fields.
    Array(&'static [Field]),
    /// Values of so many bytes, or texts for 0.
    Plain(usize),
}

struct Field {
    from: i16,
    to: i16,
    kind: Kind,
}

/// A field of all versions from the first one that is named, of those up to one, or of those between two.
macro_rules! f {
    ($from:literal, $kind:expr $(,)?) => {
        Field { from: $from, to: i16::MAX, kind: $kind }
    };
    (to $to:literal, $kind:expr $(,)?) => {
        Field { from: 0, to: $to, kind: $kind }
    };
    ($from:literal to $to:literal, $kind:expr $(,)?) => {
        Field { from: $from, to: $to, kind: $kind }
    };
}

use Kind::{Array, Bytes, Fixed, Plain, Text};

const CONFIGS: &[Field] = &[f!(0, Text), f!(0, Text)];
const PARTITION_IDS: Kind = Plain(4);
const TOPIC_AND_IDS: &[Field] = &[f!(0, Text), f!(0, PARTITION_IDS)];

/// The fields of a request in their order; `None` for one that the testkit does not serve.
fn fields(key: ApiKey) -> Option<&'static [Field]> {
    Some(match key {
        ApiKey::Produce => &[
            f!(3, Text),
            f!(0, Fixed(2)),
            f!(0, Fixed(4)),
            f!(0, Array(&[f!(to 12, Text), f!(13, Fixed(16)), f!(0, Array(&[f!(0, Fixed(4)), f!(0, Bytes)]))]),),
        ],
        ApiKey::Fetch => &[
            f!(to 14, Fixed(4)),
            f!(0, Fixed(4)),
            f!(0, Fixed(4)),
            f!(3, Fixed(4)),
            f!(4, Fixed(1)),
            f!(7, Fixed(4)),
            f!(7, Fixed(4)),
            f!(
                0,
                Array(&[
                    f!(to 12, Text),
                    f!(13, Fixed(16)),
                    f!(
                        0,
                        Array(&[
                            f!(0, Fixed(4)),
                            f!(9, Fixed(4)),
                            f!(0, Fixed(8)),
                            f!(12, Fixed(4)),
                            f!(5, Fixed(8)),
                            f!(0, Fixed(4)),
                        ]),
                    ),
                ]),
            ),
            f!(7, Array(&[f!(7 to 12, Text), f!(13, Fixed(16)), f!(7, PARTITION_IDS)])),
            f!(11, Text),
        ],
        ApiKey::ListOffsets => &[
            f!(0, Fixed(4)),
            f!(2, Fixed(1)),
            f!(0, Array(&[f!(0, Text), f!(0, Array(&[f!(0, Fixed(4)), f!(4, Fixed(4)), f!(0, Fixed(8))]))])),
            f!(10, Fixed(4)),
        ],
        ApiKey::Metadata => {
            &[f!(0, Array(&[f!(10, Fixed(16)), f!(0, Text)])), f!(4, Fixed(1)), f!(8 to 10, Fixed(1)), f!(8, Fixed(1))]
        }
        ApiKey::OffsetCommit => &[
            f!(0, Text),
            f!(1, Fixed(4)),
            f!(1, Text),
            f!(7, Text),
            f!(2 to 4, Fixed(8)),
            f!(
                0,
                Array(&[f!(0, Text), f!(0, Array(&[f!(0, Fixed(4)), f!(0, Fixed(8)), f!(6, Fixed(4)), f!(0, Text)]))])
            ),
        ],
        ApiKey::OffsetFetch => &[
            f!(to 7, Text),
            f!(to 7, Array(TOPIC_AND_IDS)),
            f!(8, Array(&[f!(8, Text), f!(9, Text), f!(9, Fixed(4)), f!(8, Array(TOPIC_AND_IDS))])),
            f!(7, Fixed(1)),
        ],
        ApiKey::SaslHandshake => &[f!(0, Text)],
        ApiKey::SaslAuthenticate => &[f!(0, Bytes)],
        ApiKey::FindCoordinator => &[f!(to 3, Text), f!(1, Fixed(1)), f!(4, Plain(0))],
        ApiKey::JoinGroup => &[
            f!(0, Text),
            f!(0, Fixed(4)),
            f!(1, Fixed(4)),
            f!(0, Text),
            f!(5, Text),
            f!(0, Text),
            f!(0, Array(&[f!(0, Text), f!(0, Bytes)])),
            f!(8, Text),
        ],
        ApiKey::Heartbeat => &[f!(0, Text), f!(0, Fixed(4)), f!(0, Text), f!(3, Text)],
        ApiKey::LeaveGroup => &[f!(0, Text), f!(to 2, Text), f!(3, Array(&[f!(3, Text), f!(3, Text), f!(5, Text)]))],
        ApiKey::SyncGroup => &[
            f!(0, Text),
            f!(0, Fixed(4)),
            f!(0, Text),
            f!(3, Text),
            f!(5, Text),
            f!(5, Text),
            f!(0, Array(&[f!(0, Text), f!(0, Bytes)])),
        ],
        ApiKey::DescribeGroups => &[f!(0, Plain(0)), f!(3, Fixed(1))],
        ApiKey::ListGroups => &[f!(4, Plain(0)), f!(5, Plain(0))],
        ApiKey::DeleteGroups => &[f!(0, Plain(0))],
        ApiKey::ApiVersions => &[f!(3, Text), f!(3, Text)],
        ApiKey::CreateTopics => &[
            f!(
                0,
                Array(&[
                    f!(0, Text),
                    f!(0, Fixed(4)),
                    f!(0, Fixed(2)),
                    f!(0, Array(&[f!(0, Fixed(4)), f!(0, PARTITION_IDS)])),
                    f!(0, Array(CONFIGS)),
                ]),
            ),
            f!(0, Fixed(4)),
            f!(1, Fixed(1)),
        ],
        ApiKey::DeleteTopics => &[f!(6, Array(&[f!(6, Text), f!(6, Fixed(16))])), f!(to 5, Plain(0)), f!(0, Fixed(4))],
        ApiKey::DeleteRecords => {
            &[f!(0, Array(&[f!(0, Text), f!(0, Array(&[f!(0, Fixed(4)), f!(0, Fixed(8))]))])), f!(0, Fixed(4))]
        }
        ApiKey::InitProducerId => &[f!(0, Text), f!(0, Fixed(4)), f!(3, Fixed(8)), f!(3, Fixed(2)), f!(6, Fixed(2))],
        ApiKey::OffsetForLeaderEpoch => &[
            f!(3, Fixed(4)),
            f!(0, Array(&[f!(0, Text), f!(0, Array(&[f!(0, Fixed(4)), f!(2, Fixed(4)), f!(0, Fixed(4))]))])),
        ],
        ApiKey::CreatePartitions => &[
            f!(0, Array(&[f!(0, Text), f!(0, Fixed(4)), f!(0, Array(&[f!(0, PARTITION_IDS)]))])),
            f!(0, Fixed(4)),
            f!(0, Fixed(1)),
        ],
        ApiKey::ConsumerGroupHeartbeat => &[
            f!(0, Text),
            f!(0, Text),
            f!(0, Fixed(4)),
            f!(0, Text),
            f!(0, Text),
            f!(0, Fixed(4)),
            f!(0, Plain(0)),
            f!(1, Text),
            f!(0, Text),
            f!(0, Array(&[f!(0, Fixed(16)), f!(0, PARTITION_IDS)])),
        ],
        ApiKey::ConsumerGroupDescribe => &[f!(0, Plain(0)), f!(0, Fixed(1))],
        ApiKey::DescribeCluster => &[f!(0, Fixed(1)), f!(1, Fixed(1)), f!(2, Fixed(1))],
        _ => return None,
    })
}

/// Whether a request's body has the shape that its key and version ask for, and no length says more than there is.
pub(crate) fn is_sound(body: &[u8], key: ApiKey, version: i16, flexible: bool) -> bool {
    let mut walk = Walk { rest: body, version, flexible };
    fields(key).is_some_and(|fields| walk.fields(fields).is_some())
}

struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
}

impl Walk<'_> {
    fn fields(&mut self, fields: &[Field]) -> Option<()> {
        let version = self.version;
        for field in fields.iter().filter(|field| (field.from..=field.to).contains(&version)) {
            match field.kind {
                Kind::Fixed(size) => self.skip(size)?,
                Kind::Text => self.text()?,
                Kind::Bytes => {
                    let length =
                        if self.flexible { self.compact()? } else { i64::from(i32::from_be_bytes(self.take()?)) };
                    self.skip(usize::try_from(length.max(0)).ok()?)?;
                }
                Kind::Array(of) => {
                    for _ in 0..self.count()? {
                        self.fields(of)?;
                    }
                }
                Kind::Plain(0) => {
                    for _ in 0..self.count()? {
                        self.text()?;
                    }
                }
                Kind::Plain(size) => {
                    let count = self.count()?;
                    self.skip(count.checked_mul(size)?)?;
                }
            }
        }
        if self.flexible {
            for _ in 0..self.varint()? {
                self.varint()?;
                let size = self.varint()?;
                self.skip(usize::try_from(size).ok()?)?;
            }
        }
        Some(())
    }

    /// The elements of an array: not more than there are bytes.
    fn count(&mut self) -> Option<usize> {
        let count = if self.flexible { self.compact()? } else { i64::from(i32::from_be_bytes(self.take()?)) };
        let count = usize::try_from(count.max(0)).ok()?;
        (count <= self.rest.len()).then_some(count)
    }

    fn text(&mut self) -> Option<()> {
        let length = if self.flexible { self.compact()? } else { i64::from(i16::from_be_bytes(self.take()?)) };
        self.skip(usize::try_from(length.max(0)).ok()?)
    }

    /// A length as flexible versions write it: one more than it is, 0 for null.
    fn compact(&mut self) -> Option<i64> {
        Some(i64::from(self.varint()?) - 1)
    }

    fn varint(&mut self) -> Option<u32> {
        let mut value: u32 = 0;
        for shift in (0..35).step_by(7) {
            let [byte] = self.take::<1>()?;
            value |= u32::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*taken)
    }

    fn skip(&mut self, size: usize) -> Option<()> {
        self.rest = self.rest.get(size..)?;
        Some(())
    }
}
