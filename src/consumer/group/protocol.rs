//! The bytes that members of a classic consumer group leave with the coordinator for each other: what each is
//! subscribed to, and what the leader gave it (ConsumerProtocol, versions 0 to 3).
//!
//! The fields of newer versions are only ever added at the end, so a version that is not known is read as far as the
//! known fields go, as Kafka's own clients do.

use std::{collections::BTreeMap, sync::Arc};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{
    error::{Error, ErrorKind, Result},
    record::TopicPartition,
};

/// The version that is written: 0 names topics, 1 adds owned partitions, 2 the generation, 3 the rack.
const VERSION: i16 = 3;

/// What one member tells the leader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemberSubscription {
    pub(crate) topics: Vec<Arc<str>>,
    pub(crate) user_data: Option<Bytes>,
    /// What the member still owned when it joined; empty under the eager protocol.
    pub(crate) owned: Vec<TopicPartition>,
    /// The generation in which it owned that (KIP-792); −1 where it has none or does not say.
    pub(crate) generation: i32,
    /// Where the member runs (KIP-881).
    pub(crate) rack: Option<String>,
}

impl MemberSubscription {
    /// Writes it. Fails only where there is more than the format can hold.
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

    /// Reads what some member wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader { bytes, what: "subscription" };
        let version = reader.version()?;
        let topics = reader.strings()?;
        let user_data = reader.nullable_bytes()?;
        let owned = if version >= 1 { reader.partitions()? } else { Vec::new() };
        let generation = if version >= 2 { reader.i32()? } else { -1 };
        let rack = if version >= 3 { reader.nullable_string()?.map(str::to_owned) } else { None };
        Ok(Self { topics, user_data, owned, generation, rack })
    }
}

/// Writes what the leader gives to one member.
pub(crate) fn encode_assignment(partitions: &[TopicPartition]) -> Result<Bytes> {
    let mut out = BytesMut::new();
    out.put_i16(VERSION);
    put_partitions(&mut out, partitions)?;
    put_bytes(&mut out, None)?;
    Ok(out.freeze())
}

/// Reads what the leader gave. A leader that has nothing for a member may leave the bytes out altogether.
pub(crate) fn decode_assignment(bytes: &[u8]) -> Result<Vec<TopicPartition>> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut reader = Reader { bytes, what: "assignment" };
    reader.version()?;
    let partitions = reader.partitions()?;
    reader.nullable_bytes()?;
    Ok(partitions)
}

/// Writes what the sticky strategy remembers: what a member was given, and in which generation.
pub(super) fn encode_previous(partitions: &[TopicPartition], generation: i32) -> Result<Bytes> {
    let mut out = BytesMut::new();
    put_partitions(&mut out, partitions)?;
    out.put_i32(generation);
    Ok(out.freeze())
}

/// Reads that; `None` if it cannot be read. An older version has no generation.
pub(super) fn decode_previous(bytes: &[u8]) -> Option<(Vec<TopicPartition>, Option<i32>)> {
    let mut reader = Reader { bytes, what: "remembered assignment" };
    let partitions = reader.partitions().ok()?;
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

/// Partitions by topic, topics and numbers in order, so that the same set gives the same bytes.
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
    Error::new(ErrorKind::InvalidArgument, format!("a length of {length} is more than the group protocol can hold"))
}

/// Reads fields off the front; every length is held against what is left before anything is reserved for it.
struct Reader<'a> {
    bytes: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
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

    /// The count of an array whose elements take at least `least` bytes each.
    fn count(&mut self, least: usize) -> Result<usize> {
        let count = self.i32()?;
        match usize::try_from(count) {
            Ok(count) if count <= self.bytes.len() / least => Ok(count),
            Ok(_) => Err(self.truncated()),
            Err(_) => Err(self.malformed(format_args!("a count of {count}"))),
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

    fn strings(&mut self) -> Result<Vec<Arc<str>>> {
        let count = self.count(2)?;
        (0..count).map(|_| self.string().map(Arc::from)).collect()
    }

    fn nullable_bytes(&mut self) -> Result<Option<Bytes>> {
        let length = self.i32()?;
        if length == -1 {
            return Ok(None);
        }
        let length = usize::try_from(length).map_err(|_| self.malformed(format_args!("a length of {length}")))?;
        self.take(length).map(|bytes| Some(Bytes::copy_from_slice(bytes)))
    }

    fn partitions(&mut self) -> Result<Vec<TopicPartition>> {
        let mut partitions = Vec::new();
        for _ in 0..self.count(6)? {
            let topic: Arc<str> = self.string()?.into();
            for _ in 0..self.count(4)? {
                let partition = self.i32()?;
                if partition < 0 {
                    return Err(self.malformed(format_args!("a partition {partition}")));
                }
                partitions.push(TopicPartition { topic: topic.clone(), partition });
            }
        }
        Ok(partitions)
    }

    fn truncated(&self) -> Error {
        self.malformed(format_args!("fewer bytes than it announces"))
    }

    fn malformed(&self, found: std::fmt::Arguments<'_>) -> Error {
        Error::new(ErrorKind::Protocol, format!("the {} of a group member cannot be read: it has {found}", self.what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
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
    fn a_subscription_has_the_bytes_of_kafkas_own_serializer() {
        assert_eq!(golden().encode().unwrap(), hex(GOLDEN));
        assert_eq!(MemberSubscription::decode(&hex(GOLDEN)).unwrap(), golden());
    }

    #[test]
    fn older_versions_are_read() {
        let v0 = hex("0000000000010002743100000003616263");
        let read = MemberSubscription::decode(&v0).unwrap();
        assert_eq!(read.topics, [Arc::from("t1")]);
        assert_eq!(read.user_data.as_deref(), Some(&b"abc"[..]));
        assert_eq!((read.owned.len(), read.generation, read.rack), (0, -1, None));
        let v1 = hex("00010000000100027431ffffffff00000001000274310000000200000000000000 01".replace(' ', "").as_str());
        let read = MemberSubscription::decode(&v1).unwrap();
        assert_eq!(read.owned, [TopicPartition::new("t1", 0), TopicPartition::new("t1", 1)]);
        assert_eq!(read.generation, -1);
    }

    #[test]
    fn newer_versions_are_read_as_far_as_they_are_known() {
        let mut newer = hex(GOLDEN);
        newer[1] = 9;
        newer.extend_from_slice(b"fields to come");
        assert_eq!(MemberSubscription::decode(&newer).unwrap(), golden());
        let mut assignment = encode_assignment(&golden().owned).unwrap().to_vec();
        assignment[1] = 7;
        assignment.push(1);
        assert_eq!(decode_assignment(&assignment).unwrap(), golden().owned);
    }

    #[test]
    fn an_assignment_goes_round_sorted_by_topic_and_number() {
        let given = [TopicPartition::new("b", 1), TopicPartition::new("a", 3), TopicPartition::new("b", 0)];
        let bytes = encode_assignment(&given).unwrap();
        let expected = [TopicPartition::new("a", 3), TopicPartition::new("b", 0), TopicPartition::new("b", 1)];
        assert_eq!(decode_assignment(&bytes).unwrap(), expected);
        assert_eq!(encode_assignment(&[]).unwrap(), hex("000300000000ffffffff"));
        assert!(decode_assignment(&[]).unwrap().is_empty());
    }

    #[test]
    fn no_bytes_panic_and_every_cut_is_an_error() {
        let whole = hex(GOLDEN);
        for end in 0..whole.len() {
            let error = MemberSubscription::decode(&whole[..end]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol, "cut at {end}");
        }
        for bad in [
            "ffff00000000",
            "00007fffffff",
            "0000ffffffff",
            "000000000001ffff",
            "00000000000100ff",
            "0000000000010002ffff",
        ] {
            assert!(MemberSubscription::decode(&hex(bad)).is_err(), "{bad}");
            assert!(decode_assignment(&hex(bad)).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = MemberSubscription::decode(&bytes);
            let _ = decode_assignment(&bytes);
            let _ = decode_previous(&bytes);
        }

        #[test]
        fn what_is_written_is_read(
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
            proptest::prop_assert_eq!(MemberSubscription::decode(&subscription.encode().unwrap()).unwrap(), subscription);
        }
    }
}
