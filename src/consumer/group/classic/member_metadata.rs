//! The bytes that members of a classic consumer group exchange through the coordinator: each
//! member's subscription, and its assignment by the leader (ConsumerProtocol, versions 0 to 3).
//!
//! Newer versions only ever add fields at the end, so an unknown version is read up to the last
//! known field, as Kafka's own clients do. Some clients name a version and leave its last fields
//! out (sarama-cluster and kafka-go write version 1 without owned partitions): a field that is
//! missing at the end is absent.
//!
//! Sans-IO.

use std::{collections::BTreeMap, sync::Arc};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{
    error::{Error, ErrorKind, Result},
    record::{TopicPartition, check_topic_name},
};

/// Version that is written: 0 names topics, 1 adds owned partitions, 2 the generation, 3 the rack.
const VERSION: i16 = 3;

/// A member's subscription, for the leader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemberSubscription {
    pub(crate) topics: Vec<Arc<str>>,
    pub(crate) user_data: Option<Bytes>,
    /// The partitions that the member still owned when it joined; empty under the eager protocol.
    pub(crate) owned: Vec<TopicPartition>,
    /// The generation in which it owned them (KIP-792); −1 if there is none or it is not given.
    pub(crate) generation: i32,
    /// The member's `client.rack` (KIP-881).
    pub(crate) rack: Option<String>,
}

impl MemberSubscription {
    /// Encodes the subscription. Fails only if it has more than the format can hold.
    pub(crate) fn encode(&self) -> Result<Bytes> {
        let mut out = BytesMut::new();
        out.put_i16(VERSION);
        put_count(&mut out, self.topics.len())?;
        for topic in &self.topics {
            put_string(&mut out, topic)?;
        }
        put_bytes(&mut out, self.user_data.as_deref())?;
        put_partitions(&mut out, &self.owned)?;
        out.put_i32(self.generation);
        match &self.rack {
            Some(rack) => put_string(&mut out, rack)?,
            None => out.put_i16(-1),
        }
        Ok(out.freeze())
    }

    /// Reads any member's subscription as far as possible. The error says why it could not be read
    /// to its end: the fields and elements before that are used.
    pub(crate) fn read(bytes: &[u8]) -> (Self, Option<Error>) {
        let mut read = Self { generation: -1, ..Self::default() };
        let trouble = read.fill(&mut FieldReader { bytes, what: "subscription" }).err();
        (read, trouble)
    }

    fn fill(&mut self, reader: &mut FieldReader<'_>) -> Result<()> {
        let version = reader.version()?;
        let refused = reader.topics(&mut self.topics)?;
        if !reader.is_at_end() {
            self.user_data = reader.nullable_bytes()?;
        }
        if version >= 1 {
            reader.partitions(&mut self.owned)?;
        }
        if version >= 2 && !reader.is_at_end() {
            self.generation = reader.i32()?;
        }
        if version >= 3 && !reader.is_at_end() {
            self.rack = reader.nullable_string()?.map(str::to_owned);
        }
        refused.map_or(Ok(()), Err)
    }
}

/// Encodes one member's assignment.
pub(crate) fn encode_assignment(partitions: &[TopicPartition]) -> Result<Bytes> {
    let mut out = BytesMut::new();
    out.put_i16(VERSION);
    put_partitions(&mut out, partitions)?;
    put_bytes(&mut out, None)?;
    Ok(out.freeze())
}

/// Reads an assignment. A leader that assigns nothing to a member may leave the bytes out. The
/// partitions are followed by user data of the leader's assignor, which no assignor here reads.
///
/// # Errors
/// Kind `Protocol` if the partitions cannot all be read, because after a partial read no member
/// would consume the others.
pub(crate) fn decode_assignment(bytes: &[u8]) -> Result<Vec<TopicPartition>> {
    let mut partitions = Vec::new();
    if !bytes.is_empty() {
        let mut reader = FieldReader { bytes, what: "assignment" };
        reader.version()?;
        reader.partitions(&mut partitions)?;
    }
    Ok(partitions)
}

/// Encodes what the sticky strategy remembers: a member's partitions and their generation.
pub(crate) fn encode_previous(partitions: &[TopicPartition], generation: i32) -> Result<Bytes> {
    let mut out = BytesMut::new();
    put_partitions(&mut out, partitions)?;
    out.put_i32(generation);
    Ok(out.freeze())
}

/// Reads a remembered assignment; `None` if it cannot be read. An older version has no generation.
pub(crate) fn decode_previous(bytes: &[u8]) -> Option<(Vec<TopicPartition>, Option<i32>)> {
    let mut reader = FieldReader { bytes, what: "remembered assignment" };
    let mut partitions = Vec::new();
    reader.partitions(&mut partitions).ok()?;
    Some((partitions, reader.i32().ok()))
}

fn put_count(out: &mut BytesMut, count: usize) -> Result<()> {
    out.put_i32(i32::try_from(count).map_err(|_| too_long(count))?);
    Ok(())
}

fn put_string(out: &mut BytesMut, text: &str) -> Result<()> {
    out.put_i16(i16::try_from(text.len()).map_err(|_| too_long(text.len()))?);
    out.put_slice(text.as_bytes());
    Ok(())
}

fn put_bytes(out: &mut BytesMut, bytes: Option<&[u8]>) -> Result<()> {
    match bytes {
        None => out.put_i32(-1),
        Some(bytes) => {
            put_count(out, bytes.len())?;
            out.put_slice(bytes);
        }
    }
    Ok(())
}

/// Encodes partitions by topic, topics and numbers in order, so that equal sets give equal bytes.
fn put_partitions(out: &mut BytesMut, partitions: &[TopicPartition]) -> Result<()> {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for partition in partitions {
        topics.entry(&partition.topic).or_default().push(partition.partition);
    }
    put_count(out, topics.len())?;
    for (topic, mut numbers) in topics {
        numbers.sort_unstable();
        put_string(out, topic)?;
        put_count(out, numbers.len())?;
        for number in numbers {
            out.put_i32(number);
        }
    }
    Ok(())
}

fn too_long(length: usize) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("a length of {length} exceeds the limit of the group protocol"))
}

/// Reads fields from the front; every length is checked against the remaining bytes before memory
/// is reserved for it.
struct FieldReader<'a> {
    bytes: &'a [u8],
    what: &'static str,
}

impl<'a> FieldReader<'a> {
    fn version(&mut self) -> Result<i16> {
        let version = self.i16()?;
        if version < 0 { Err(self.malformed(format_args!("version {version}"))) } else { Ok(version) }
    }

    fn i16(&mut self) -> Result<i16> {
        self.bytes.try_get_i16().map_err(|_| self.truncated())
    }

    fn i32(&mut self) -> Result<i32> {
        self.bytes.try_get_i32().map_err(|_| self.truncated())
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or_else(|| self.truncated())?;
        self.bytes = rest;
        Ok(taken)
    }

    fn is_at_end(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Reads the count of an array, 0 if it is absent or null. It can be any number, so no memory
    /// may be reserved for it.
    fn count(&mut self) -> Result<i32> {
        if self.is_at_end() {
            return Ok(0);
        }
        match self.i32()? {
            -1 => Ok(0),
            count @ 0.. => Ok(count),
            count => Err(self.malformed(format_args!("a count of {count}"))),
        }
    }

    fn nullable_string(&mut self) -> Result<Option<&'a str>> {
        let length = self.i16()?;
        if length == -1 {
            return Ok(None);
        }
        let length = usize::try_from(length).map_err(|_| self.malformed(format_args!("a length of {length}")))?;
        let text = self.take(length)?;
        std::str::from_utf8(text).map(Some).map_err(|_| self.malformed(format_args!("text that is not UTF-8")))
    }

    fn string(&mut self) -> Result<&'a str> {
        self.nullable_string()?.ok_or_else(|| self.malformed(format_args!("a missing name")))
    }

    /// Reads topics. Names that no topic can have are left out, and the last of them is returned as
    /// an error.
    fn topics(&mut self, topics: &mut Vec<Arc<str>>) -> Result<Option<Error>> {
        let mut refused = None;
        for _ in 0..self.count()? {
            let topic = self.string()?;
            match check_topic_name(topic) {
                Ok(()) => topics.push(topic.into()),
                Err(error) => refused = Some(error),
            }
        }
        Ok(refused.map(|error| self.malformed(format_args!("an unusable name ({error})"))))
    }

    fn nullable_bytes(&mut self) -> Result<Option<Bytes>> {
        let length = self.i32()?;
        if length == -1 {
            return Ok(None);
        }
        let length = usize::try_from(length).map_err(|_| self.malformed(format_args!("a length of {length}")))?;
        self.take(length).map(|bytes| Some(Bytes::copy_from_slice(bytes)))
    }

    /// Reads partitions and appends them.
    fn partitions(&mut self, partitions: &mut Vec<TopicPartition>) -> Result<()> {
        for _ in 0..self.count()? {
            let topic: Arc<str> = self.string()?.into();
            // A count that is missing within an element means truncated bytes.
            let count = if self.is_at_end() { Err(self.truncated()) } else { self.count() };
            for _ in 0..count? {
                let partition = self.i32()?;
                if partition < 0 {
                    return Err(self.malformed(format_args!("a partition {partition}")));
                }
                partitions.push(TopicPartition { topic: topic.clone(), partition });
            }
        }
        Ok(())
    }

    fn truncated(&self) -> Error {
        self.malformed(format_args!("fewer bytes than it announces"))
    }

    fn malformed(&self, state: std::fmt::Arguments<'_>) -> Error {
        Error::new(ErrorKind::Protocol, format!("the {} of a group member cannot be read: it has {state}", self.what))
    }
}

#[cfg(test)]
mod tests {
    use crate::consumer::group::classic::member_metadata::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }

    /// Reads a subscription that is complete.
    #[track_caller]
    fn read(bytes: &[u8]) -> MemberSubscription {
        let (read, trouble) = MemberSubscription::read(bytes);
        assert!(trouble.is_none(), "{trouble:?}");
        read
    }

    const GOLDEN: &str = "0003000000020002743100027432ffffffff0000000200027431000000010000000000027432000000010000000100\
                          00000500027231";

    fn golden() -> MemberSubscription {
        MemberSubscription {
            topics: vec!["t1".into(), "t2".into()],
            user_data: None,
            owned: vec![TopicPartition::new("t1", 0), TopicPartition::new("t2", 1)],
            generation: 5,
            rack: Some("r1".to_owned()),
        }
    }

    #[test]
    fn subscription_matches_javas_serialized_bytes() {
        assert_eq!(golden().encode().unwrap(), hex(GOLDEN));
        assert_eq!(read(&hex(GOLDEN)), golden());
    }

    #[test]
    fn reads_older_subscription_versions() {
        let v0 = hex("0000000000010002743100000003616263");
        let v0 = read(&v0);
        assert_eq!(v0.topics, [Arc::from("t1")]);
        assert_eq!(v0.user_data.as_deref(), Some(&b"abc"[..]));
        assert_eq!((v0.owned.len(), v0.generation, v0.rack), (0, -1, None));
        let v1 = hex("00010000000100027431ffffffff00000001000274310000000200000000000000 01".replace(' ', "").as_str());
        let v1 = read(&v1);
        assert_eq!(v1.owned, [TopicPartition::new("t1", 0), TopicPartition::new("t1", 1)]);
        assert_eq!(v1.generation, -1);
    }

    #[test]
    fn reads_known_fields_of_newer_versions() {
        let mut newer = hex(GOLDEN);
        newer[1] = 9;
        newer.extend_from_slice(b"fields to come");
        assert_eq!(read(&newer), golden());
        let mut assignment = encode_assignment(&golden().owned).unwrap().to_vec();
        assignment[1] = 7;
        assignment.push(1);
        assert_eq!(decode_assignment(&assignment).unwrap(), golden().owned);
    }

    #[test]
    fn assignment_round_trips_sorted_by_partition() {
        let given = [TopicPartition::new("b", 1), TopicPartition::new("a", 3), TopicPartition::new("b", 0)];
        let bytes = encode_assignment(&given).unwrap();
        let expected = [TopicPartition::new("a", 3), TopicPartition::new("b", 0), TopicPartition::new("b", 1)];
        assert_eq!(decode_assignment(&bytes).unwrap(), expected);
        assert_eq!(encode_assignment(&[]).unwrap(), hex("000300000000ffffffff"));
        assert!(decode_assignment(&[]).unwrap().is_empty());
    }

    #[test]
    fn subscription_without_its_last_fields_is_read() {
        // Written by sarama-cluster and kafka-go: version 1 without owned partitions.
        for version in 0..=9 {
            let mut bytes = hex("0000000000020002743100027432");
            bytes[1] = version;
            let expected = MemberSubscription { topics: golden().topics, generation: -1, ..Default::default() };
            assert_eq!(read(&bytes), expected, "version {version} ends after the topics");
            bytes.extend(hex("ffffffff"));
            assert_eq!(read(&bytes), expected, "version {version} ends after null user data");
        }
        let whole = hex(GOLDEN);
        let owned = read(&whole[..whole.len() - 8]);
        assert_eq!((owned.owned, owned.generation, owned.rack), (golden().owned, -1, None));
        let generation = read(&whole[..whole.len() - 4]);
        assert_eq!((generation.generation, generation.rack), (5, None));
        assert_eq!(read(&hex("0001ffffffffffffffffffffffff")).topics, [] as [Arc<str>; 0], "arrays may be null");
    }

    #[test]
    fn damaged_subscription_keeps_fields_before_damage() {
        for (bytes, topics, owned) in [
            ("", 0, 0),
            ("00", 0, 0),
            ("ffff00000000", 0, 0),
            ("00007fffffff00027431", 1, 0),
            ("0000fffffffe", 0, 0),
            ("000000000001ffff", 0, 0),
            ("0000000000010002ffff", 0, 0),
            ("00000000000200027431000474", 1, 0),
            // A name that no topic can have, and one that is valid.
            ("00000000000200020a1b00027431ffffffff", 1, 0),
            ("0001000000010002743100000009", 1, 0),
            ("00010000000100027431ffffffff0000000200027431000000010000000500027432", 1, 1),
            ("00010000000100027431ffffffff00000001000274310000000200000005ffffffff", 1, 1),
            ("00020000000100027431ffffffff000000000000", 1, 0),
            ("00030000000100027431ffffffff0000000000000005000961", 1, 0),
        ] {
            let (read, trouble) = MemberSubscription::read(&hex(bytes));
            assert_eq!((read.topics.len(), read.owned.len()), (topics, owned), "{bytes}");
            assert_eq!(trouble.map(|trouble| trouble.kind()), Some(ErrorKind::Protocol), "{bytes}");
        }
    }

    #[test]
    fn assignment_may_end_after_its_partitions() {
        let whole = encode_assignment(&golden().owned).unwrap();
        let partitions = whole.len() - 4;
        for end in 0..=whole.len() {
            match decode_assignment(&whole[..end]) {
                Ok(read) if end == 0 || end == 2 => assert!(read.is_empty()),
                Ok(read) => assert!(end >= partitions && read == golden().owned, "cut at {end}: {read:?}"),
                Err(error) => assert!(end < partitions && error.kind() == ErrorKind::Protocol, "cut at {end}"),
            }
        }
        for bad in ["00", "ffff00000000", "00007fffffff", "0000fffffffe", "000000000001ffff", "00000000000100027431"] {
            assert!(decode_assignment(&hex(bad)).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn decodes_any_bytes_without_panic(bytes: Vec<u8>) {
            let _ = MemberSubscription::read(&bytes);
            let _ = decode_assignment(&bytes);
            let _ = decode_previous(&bytes);
        }

        #[test]
        fn encoded_subscription_decodes_to_same_value(
            topics in proptest::collection::vec("[a-z]{1,9}", 0..5),
            owned in proptest::collection::btree_set(("[a-z]{1,3}", 0..100i32), 0..9),
            user_data in proptest::option::of(proptest::collection::vec(0..255u8, 0..9)),
            generation: i32,
            rack in proptest::option::of("[a-z0-9]{0,9}"),
        ) {
            let subscription = MemberSubscription {
                topics: topics.into_iter().map(Arc::from).collect(),
                user_data: user_data.map(Bytes::from),
                owned: owned.into_iter().map(|(topic, number)| TopicPartition::new(topic, number)).collect(),
                generation,
                rack,
            };
            proptest::prop_assert_eq!(read(&subscription.encode().unwrap()), subscription);
        }

        #[test]
        fn truncated_subscription_keeps_complete_fields(
            topics in proptest::collection::vec("[a-z]{1,9}", 0..5),
            owned in proptest::collection::btree_set(("[a-z]{1,3}", 0..100i32), 0..9),
            user_data in proptest::option::of(proptest::collection::vec(0..255u8, 0..9)),
            version in 0..6u8,
        ) {
            let whole = MemberSubscription {
                topics: topics.into_iter().map(Arc::from).collect(),
                user_data: user_data.map(Bytes::from),
                owned: owned.into_iter().map(|(topic, number)| TopicPartition::new(topic, number)).collect(),
                generation: 7,
                rack: Some("r1".to_owned()),
            };
            let mut bytes = whole.encode().unwrap().to_vec();
            bytes[1] = version;
            for end in 0..bytes.len() {
                let (cut, _) = MemberSubscription::read(&bytes[..end]);
                proptest::prop_assert!(whole.topics.starts_with(&cut.topics));
                proptest::prop_assert!(whole.owned.starts_with(&cut.owned));
                proptest::prop_assert!(cut.owned.is_empty() || cut.topics == whole.topics);
                proptest::prop_assert!(cut.user_data.is_none() || cut.user_data == whole.user_data);
                proptest::prop_assert!(cut.generation == -1 || (cut.generation == 7 && cut.owned == whole.owned));
                proptest::prop_assert!(cut.rack.is_none(), "the last field is complete only at the end");
                let _ = decode_assignment(&bytes[..end]);
                let _ = decode_previous(&bytes[..end]);
            }
        }
    }
}
