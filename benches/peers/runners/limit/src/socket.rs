//! The one connection: the initial requests, then requests out and responses in.

use std::{
    collections::VecDeque,
    io::{BufReader, Read, Write},
    mem,
    net::TcpStream,
    time::Duration,
};

use peers_common::Failure;

use crate::request::{Producer, Request, Sent, put_header};

/// `max.in.flight.requests.per.connection`.
const IN_FLIGHT: usize = 5;
const METADATA: (i16, i16) = (3, 12);
const INIT_PRODUCER_ID: (i16, i16) = (22, 2);
/// Maximum size of a response; a larger one is an error.
const MAX_ANSWER: usize = 1 << 27;

pub struct Socket {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    answer: Vec<u8>,
    correlation: i32,
    in_flight: VecDeque<(i32, Sent)>,
    delivered: u64,
    topic_id: [u8; 16],
    partitions: usize,
    producer: Producer,
}

impl Socket {
    /// Connects, and requests the topic's metadata and a producer id.
    pub fn open(address: &str, topic: &str) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut socket = Self {
            reader: BufReader::with_capacity(1 << 16, stream.try_clone()?),
            stream,
            answer: Vec::new(),
            correlation: 0,
            in_flight: VecDeque::with_capacity(IN_FLIGHT),
            delivered: 0,
            topic_id: [0; 16],
            partitions: 0,
            producer: Producer { id: -1, epoch: -1 },
        };
        socket.ask_metadata(topic)?;
        socket.ask_producer_id()?;
        Ok(socket)
    }

    pub fn topic_id(&self) -> [u8; 16] {
        self.topic_id
    }

    pub fn partitions(&self) -> usize {
        self.partitions
    }

    pub fn producer(&self) -> Producer {
        self.producer
    }

    /// Returns the number of acknowledged records.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    fn ask_metadata(&mut self, topic: &str) -> Result<(), Failure> {
        let mut body = vec![1 + 1]; // one topic, by name
        body.extend([0; 16]);
        body.push(
            u8::try_from(topic.len() + 1).ok().filter(|length| *length < 0x80).ok_or("the topic's name is long")?,
        );
        body.extend(topic.as_bytes());
        body.extend([0; 4]); // no tagged fields; no creation, no operations; no tagged fields
        self.ask(METADATA, &body)?;
        let mut fields = Fields(&self.answer);
        fields.take(4)?;
        fields.tags()?;
        fields.take(4)?; // throttling
        let brokers = fields.count()?;
        if brokers != 1 {
            return Err(format!("{brokers} brokers, where the limit has one connection").into());
        }
        fields.take(4)?;
        fields.text()?;
        fields.take(4)?;
        fields.text()?;
        fields.tags()?;
        fields.text()?; // cluster
        fields.take(4)?; // controller
        fields.count()?;
        fields.no_error("Metadata")?;
        fields.text()?;
        self.topic_id.copy_from_slice(fields.take(16)?);
        fields.take(1)?;
        self.partitions = fields.count()?;
        Ok(())
    }

    fn ask_producer_id(&mut self) -> Result<(), Failure> {
        let mut body = vec![0]; // no transactional id
        body.extend(i32::MAX.to_be_bytes());
        body.push(0); // no tagged fields
        self.ask(INIT_PRODUCER_ID, &body)?;
        let mut fields = Fields(&self.answer);
        fields.take(4)?;
        fields.tags()?;
        fields.take(4)?; // throttling
        fields.no_error("InitProducerId")?;
        self.producer =
            Producer { id: i64::from_be_bytes(fields.array()?), epoch: i16::from_be_bytes(fields.array()?) };
        Ok(())
    }

    fn ask(&mut self, (key, version): (i16, i16), body: &[u8]) -> Result<(), Failure> {
        self.begin((key, version), body)?;
        self.read_frame()
    }

    /// Sends a request; `end` reads its response.
    pub fn begin(&mut self, (key, version): (i16, i16), body: &[u8]) -> Result<(), Failure> {
        let mut frame = vec![0; 4];
        put_header(&mut frame, key, version);
        frame.extend(body);
        let length = (frame.len() - 4) as i32;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        Ok(self.stream.write_all(&frame)?)
    }

    /// Reads a response into `answer` and reuses its buffer.
    pub fn end(&mut self, answer: &mut Vec<u8>) -> Result<(), Failure> {
        self.read_frame()?;
        mem::swap(answer, &mut self.answer);
        Ok(())
    }

    /// Sends the request, if it has any records. If too many are in flight, it reads the oldest
    /// response first.
    pub fn send(&mut self, request: &mut Request) -> Result<(), Failure> {
        while self.in_flight.len() >= IN_FLIGHT {
            self.read_answer()?;
        }
        let correlation = self.correlation;
        if let Some((bytes, sent)) = request.finish(correlation)? {
            self.correlation = correlation.wrapping_add(1);
            self.stream.write_all(bytes)?;
            self.in_flight.push_back((correlation, sent));
            request.clear();
        }
        Ok(())
    }

    pub fn read_all(&mut self) -> Result<(), Failure> {
        while !self.in_flight.is_empty() {
            self.read_answer()?;
        }
        Ok(())
    }

    /// Reads the response to the oldest request: it must contain each of its partitions, without an
    /// error.
    fn read_answer(&mut self) -> Result<(), Failure> {
        self.read_frame()?;
        let (correlation, mut sent) = self.in_flight.pop_front().ok_or("a response without a request")?;
        let mut fields = Fields(&self.answer);
        if i32::from_be_bytes(fields.array()?) != correlation {
            return Err("a response to another request".into());
        }
        fields.tags()?;
        for _ in 0..fields.count()? {
            if fields.take(16)? != self.topic_id {
                return Err("a response for another topic".into());
            }
            for _ in 0..fields.count()? {
                let partition = i32::from_be_bytes(fields.array()?);
                fields.no_error("Produce")?;
                fields.take(8 + 8 + 8)?; // offset, time, start of the log
                if fields.count()? != 0 {
                    return Err("records that the broker refused".into());
                }
                fields.text()?;
                fields.tags()?;
                let at = sent.iter().position(|(of, _)| *of == partition).ok_or("a response for another partition")?;
                self.delivered += u64::from(sent.swap_remove(at).1);
            }
            fields.tags()?;
        }
        if sent.is_empty() { Ok(()) } else { Err(format!("no response for {} partitions", sent.len()).into()) }
    }

    fn read_frame(&mut self) -> Result<(), Failure> {
        let mut length = [0; 4];
        self.reader.read_exact(&mut length)?;
        let length = usize::try_from(i32::from_be_bytes(length))?;
        if length > MAX_ANSWER {
            return Err(format!("a response of {length} bytes").into());
        }
        self.answer.resize(length, 0);
        self.reader.read_exact(&mut self.answer)?;
        Ok(())
    }
}

/// The fields of a response that were not read yet.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Failure> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or("a response ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        Ok(self.take(N)?.try_into()?)
    }

    pub fn varint(&mut self) -> Result<usize, Failure> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            value |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("a varint does not end".into())
    }

    /// Reads the length of an array; null counts as 0.
    pub fn count(&mut self) -> Result<usize, Failure> {
        Ok(self.varint()?.saturating_sub(1))
    }

    /// Reads a text, or null.
    pub fn text(&mut self) -> Result<&'a [u8], Failure> {
        let length = self.count()?;
        self.take(length)
    }

    pub fn tags(&mut self) -> Result<(), Failure> {
        for _ in 0..self.varint()? {
            self.varint()?;
            let size = self.varint()?;
            self.take(size)?;
        }
        Ok(())
    }

    pub fn no_error(&mut self, request: &str) -> Result<(), Failure> {
        match i16::from_be_bytes(self.array()?) {
            0 => Ok(()),
            code => Err(format!("{request} was answered with error {code}").into()),
        }
    }
}
