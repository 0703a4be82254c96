//! The few requests that the fixture encodes by hand.
//!
//! The fixture must not depend on the client that it tests, and starting a JVM for every request
//! takes seconds. These versions are old enough for every broker that is started here and new
//! enough for the newest (KIP-896).

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::Error;

/// Timeout of one attempt; callers that wait for a cluster ask again.
const ATTEMPT: Duration = Duration::from_secs(5);
const CREATE_TIMEOUT_MS: i32 = 20_000;
const MAX_FRAME: usize = 64 * 1024 * 1024;

/// The cluster's state, as a broker knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterView {
    /// Ids of the brokers that are registered and not fenced.
    pub brokers: Vec<i32>,
    /// The requested topics.
    pub topics: Vec<TopicView>,
}

/// One topic of a [`ClusterView`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicView {
    /// Its name.
    pub name: String,
    /// Kafka's error code, 0 for none.
    pub error: i16,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionView>,
}

/// One partition of a [`TopicView`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionView {
    /// Its number.
    pub partition: i32,
    /// Kafka's error code, 0 for none.
    pub error: i16,
    /// The leading broker; -1 for none.
    pub leader: i32,
    /// The brokers that keep a copy.
    pub replicas: Vec<i32>,
    /// The brokers with a complete copy.
    pub in_sync: Vec<i32>,
}

/// Requests one broker's view (Metadata version 1).
pub(crate) async fn metadata(broker: SocketAddr, topics: &[&str]) -> Result<ClusterView, Error> {
    let mut body = Writer::default();
    body.i32(count(topics.len()));
    for topic in topics {
        body.string(topic);
    }
    let answer = call(broker, 3, 1, body).await?;
    let mut reader = Reader(&answer);
    let read = |r: &mut Reader<'_>| -> Option<ClusterView> {
        let brokers = r.array(|r| {
            let id = r.i32()?;
            r.string()?;
            r.i32()?;
            r.string()?;
            Some(id)
        })?;
        r.i32()?;
        let topics = r.array(|r| {
            let error = r.i16()?;
            let name = r.string()?.unwrap_or_default();
            r.take(1)?;
            let mut partitions = r.array(|r| {
                Some(PartitionView {
                    error: r.i16()?,
                    partition: r.i32()?,
                    leader: r.i32()?,
                    replicas: r.array(Reader::i32)?,
                    in_sync: r.array(Reader::i32)?,
                })
            })?;
            partitions.sort_by_key(|partition| partition.partition);
            Some(TopicView { name, error, partitions })
        })?;
        Some(ClusterView { brokers, topics })
    };
    read(&mut reader).ok_or_else(|| garbled("Metadata", &answer))
}

/// Creates a topic (CreateTopics version 2). Any broker forwards it to the controller.
pub(crate) async fn create_topic(
    broker: SocketAddr,
    name: &str,
    partitions: i32,
    replicas: i16,
    configs: &[(&str, &str)],
) -> Result<(), Error> {
    let mut body = Writer::default();
    body.i32(1);
    body.string(name);
    body.i32(partitions);
    body.i16(replicas);
    body.i32(0);
    body.i32(count(configs.len()));
    for (key, value) in configs {
        body.string(key);
        body.string(value);
    }
    body.i32(CREATE_TIMEOUT_MS);
    body.0.push(0);
    let answer = call(broker, 19, 2, body).await?;
    let mut reader = Reader(&answer);
    let read = |r: &mut Reader<'_>| -> Option<Vec<(i16, String)>> {
        r.i32()?;
        r.array(|r| {
            r.string()?;
            Some((r.i16()?, r.string()?.unwrap_or_default()))
        })
    };
    match read(&mut reader).as_deref() {
        Some([(0, _)]) => Ok(()),
        Some([(code, message)]) => {
            Err(Error::Refused { what: format!("creating topic {name}"), code: *code, message: message.clone() })
        }
        _ => Err(garbled("CreateTopics", &answer)),
    }
}

/// Sets properties of a group (IncrementalAlterConfigs version 0; of groups since Kafka 4.0).
pub(crate) async fn configure_group(broker: SocketAddr, group: &str, configs: &[(&str, &str)]) -> Result<(), Error> {
    /// `ConfigResource.Type.GROUP`, and `OpType.SET`.
    const GROUP: u8 = 32;
    const SET: u8 = 0;
    let mut body = Writer::default();
    body.i32(1);
    body.0.push(GROUP);
    body.string(group);
    body.i32(count(configs.len()));
    for (key, value) in configs {
        body.string(key);
        body.0.push(SET);
        body.string(value);
    }
    body.0.push(0);
    let answer = call(broker, 44, 0, body).await?;
    let mut reader = Reader(&answer);
    let read = |r: &mut Reader<'_>| -> Option<Vec<(i16, String)>> {
        r.i32()?;
        r.array(|r| {
            let (code, message) = (r.i16()?, r.string()?.unwrap_or_default());
            r.take(1)?;
            r.string()?;
            Some((code, message))
        })
    };
    match read(&mut reader).as_deref() {
        Some([(0, _)]) => Ok(()),
        Some([(code, message)]) => {
            Err(Error::Refused { what: format!("configuring group {group}"), code: *code, message: message.clone() })
        }
        _ => Err(garbled("IncrementalAlterConfigs", &answer)),
    }
}

/// Requests the active controller (DescribeQuorum version 0; brokers forward it since Kafka 3.3).
pub(crate) async fn controller(broker: SocketAddr) -> Result<i32, Error> {
    let mut body = Writer::default();
    // Flexible version, so the header and every structure in the body end with (no) tagged fields,
    // and lengths count from 1.
    body.0.push(0);
    body.0.push(2);
    body.compact_string("__cluster_metadata");
    body.0.push(2);
    body.i32(0);
    body.0.extend([0, 0, 0]);
    let answer = call(broker, 55, 0, body).await?;
    let mut reader = Reader(&answer);
    let read = |r: &mut Reader<'_>| -> Option<(i16, i32)> {
        r.take(1)?;
        let error = r.i16()?;
        if error != 0 {
            return Some((error, -1));
        }
        let topics = r.take(1)?[0];
        let name = r.take(1)?[0].checked_sub(1)?;
        r.take(usize::from(name))?;
        let partitions = r.take(1)?[0];
        let (_index, error, leader) = (r.i32()?, r.i16()?, r.i32()?);
        (topics == 2 && partitions == 2).then_some((error, leader))
    };
    match read(&mut reader) {
        Some((0, leader)) => Ok(leader),
        Some((code, _)) => Err(Error::Refused { what: "finding the controller".into(), code, message: String::new() }),
        None => Err(garbled("DescribeQuorum", &answer)),
    }
}

fn garbled(what: &str, answer: &[u8]) -> Error {
    Error::Garbled { what: format!("a broker's answer to {what}"), answer: format!("{answer:02x?}") }
}

fn count(len: usize) -> i32 {
    i32::try_from(len).unwrap_or(i32::MAX)
}

/// Sends one request on a connection of its own and returns the body of the response.
async fn call(broker: SocketAddr, api_key: i16, version: i16, body: Writer) -> Result<Vec<u8>, Error> {
    let mut request = Writer::default();
    request.i16(api_key);
    request.i16(version);
    request.i32(1);
    request.string("fixture");
    request.0.extend(body.0);
    let exchange = async {
        let mut stream = TcpStream::connect(broker).await?;
        stream.write_all(&count(request.0.len()).to_be_bytes()).await?;
        stream.write_all(&request.0).await?;
        let length = usize::try_from(stream.read_i32().await?).unwrap_or(usize::MAX);
        if !(4..=MAX_FRAME).contains(&length) {
            return Err(std::io::Error::other(format!("a frame of {length} bytes")));
        }
        stream.read_i32().await?;
        let mut answer = vec![0; length - 4];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    };
    let what = || format!("asking {broker} (api key {api_key})");
    match timeout(ATTEMPT, exchange).await {
        Ok(answer) => answer.map_err(Error::io(what())),
        Err(_) => Err(Error::TimedOut { what: what(), after: ATTEMPT, log: String::new() }),
    }
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn i16(&mut self, value: i16) {
        self.0.extend(value.to_be_bytes());
    }

    fn i32(&mut self, value: i32) {
        self.0.extend(value.to_be_bytes());
    }

    fn string(&mut self, value: &str) {
        self.i16(i16::try_from(value.len()).unwrap_or(i16::MAX));
        self.0.extend(value.as_bytes());
    }

    /// Writes a text of less than 127 bytes.
    fn compact_string(&mut self, value: &str) {
        self.0.push(u8::try_from(value.len() + 1).unwrap_or(u8::MAX));
        self.0.extend(value.as_bytes());
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    fn i16(&mut self) -> Option<i16> {
        Some(i16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn i32(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn string(&mut self) -> Option<Option<String>> {
        let Ok(len) = usize::try_from(self.i16()?) else {
            return Some(None);
        };
        Some(Some(String::from_utf8_lossy(self.take(len)?).into_owned()))
    }

    fn array<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let len = self.i32()?.max(0);
        (0..len).map(|_| item(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reader_rejects_lengths_beyond_its_end() {
        let mut reader = Reader(&[0, 5, b'a']);
        assert_eq!(reader.string(), None);
        let mut reader = Reader(&[0x7f, 0xff, 0xff, 0xff, 1]);
        assert_eq!(reader.array(Reader::i32), None);
    }
}
