//! Produce in sink mode, at the lowest possible cost: the request is scanned in the buffer into
//! which it was read, none of it is copied or decoded, and of a batch only the count in its header
//! is read. A request that cannot plainly be acknowledged (acks=0, a partition that this broker
//! does not lead, bytes that are inconsistent) is handled like every other request.

use uuid::Uuid;

use super::versions;
use crate::{
    testkit::state::{State, sink::Received},
    wire::{ApiKey, batch::BATCH_HEADER_SIZE},
};

/// Position of the record count in a batch's header.
const RECORD_COUNT: usize = 57;

/// Acknowledges a Produce request, which is in `frame` without its length, by appending the whole
/// response to `out`. Returns `None`, and writes nothing, if the request cannot be acknowledged
/// this way.
pub(crate) fn acknowledge(frame: &[u8], state: &mut State, broker: i32, out: &mut Vec<u8>) -> Option<()> {
    let begin = out.len();
    let done = Walk { rest: frame }.answer(state, broker, out);
    match done {
        Some(mut received) => {
            let length = u32::try_from(out.len() - begin - 4).ok()?;
            out.get_mut(begin..begin + 4)?.copy_from_slice(&length.to_be_bytes());
            received.requests = 1;
            received.bytes = frame.len() as u64 + 4;
            if let Some(sink) = &mut state.sink {
                sink.received.add(&received);
            }
            state.journal.count(ApiKey::Produce);
        }
        None => out.truncate(begin),
    }
    done.map(|_| ())
}

/// The bytes of a request that are not scanned yet.
struct Walk<'a> {
    rest: &'a [u8],
}

impl<'a> Walk<'a> {
    fn answer(mut self, state: &State, broker: i32, out: &mut Vec<u8>) -> Option<Received> {
        let (key, version) = (self.short()?, self.short()?);
        let (min, max) = versions(ApiKey::Produce, &state.options)?;
        // The layout of later versions is not known here.
        if ApiKey::from_code(key) != Some(ApiKey::Produce) || !(min..=max.min(13)).contains(&version) {
            return None;
        }
        let flexible = version >= 9;
        let correlation = self.take(4)?;
        let client_id = self.short()?;
        self.take(usize::try_from(client_id).unwrap_or(0))?;
        self.tags(flexible)?;
        self.text(flexible)?;
        let acks = self.short()?;
        if !matches!(acks, -1 | 1) {
            return None;
        }
        self.take(4)?;

        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(correlation);
        if flexible {
            out.push(0);
        }
        let mut received = Received::default();
        let topics = self.count(flexible, out)?;
        for _ in 0..topics {
            let name = self.topic(version, out)?;
            let topic = match version {
                13.. => state.topics.get(state.topics.name_of(Uuid::from_slice(name).ok()?)?)?,
                _ => state.topics.get(std::str::from_utf8(name).ok()?)?,
            };
            let partitions = self.count(flexible, out)?;
            for _ in 0..partitions {
                let index = self.take(4)?;
                let partition = topic.partition(i32::from_be_bytes(index.try_into().ok()?))?;
                partition.check_leader(broker, -1).ok()?;
                let records = self.records(flexible)?;
                self.tags(flexible)?;
                received.batches += 1;
                received.record_bytes += records.len() as u64;
                received.records += u64::from(record_count(records)?);

                out.extend_from_slice(index);
                out.extend_from_slice(&[0; 2 + 8]); // no error, base offset 0
                out.extend_from_slice(&[0xff; 8]); // no append time
                if version >= 5 {
                    out.extend_from_slice(&[0xff; 8]); // no log start offset
                }
                match version {
                    ..8 => {}
                    // No errors of single records, no message, no tags.
                    8 => out.extend_from_slice(&[0, 0, 0, 0, 0xff, 0xff]),
                    _ => out.extend_from_slice(&[1, 0, 0]),
                }
            }
            self.tags(flexible)?;
            if flexible {
                out.push(0);
            }
        }
        self.tags(flexible)?;
        out.extend_from_slice(&[0; 4]); // no throttling
        if flexible {
            out.push(0);
        }
        self.rest.is_empty().then_some(received)
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn short(&mut self) -> Option<i16> {
        Some(i16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn int(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    /// Reads a length or a count, which is small here: five bytes at most.
    fn varint(&mut self) -> Option<usize> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let byte = *self.take(1)?.first()?;
            value |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// Skips tagged fields; a sink needs none of them.
    fn tags(&mut self, flexible: bool) -> Option<()> {
        if flexible {
            for _ in 0..self.varint()? {
                self.varint()?;
                let size = self.varint()?;
                self.take(size)?;
            }
        }
        Some(())
    }

    /// Reads text that may be null.
    fn text(&mut self, flexible: bool) -> Option<&'a [u8]> {
        let length = match flexible {
            true => self.varint()?.saturating_sub(1),
            false => usize::try_from(self.short()?).unwrap_or(0),
        };
        self.take(length)
    }

    fn records(&mut self, flexible: bool) -> Option<&'a [u8]> {
        let length = match flexible {
            true => self.varint()?.checked_sub(1)?,
            false => usize::try_from(self.int()?).ok()?,
        };
        self.take(length)
    }

    /// Reads the count of an array, and writes it in the same form for the response's array.
    fn count(&mut self, flexible: bool, out: &mut Vec<u8>) -> Option<usize> {
        let before = self.rest;
        let count = match flexible {
            true => self.varint()?.checked_sub(1)?,
            false => usize::try_from(self.int()?).ok()?,
        };
        out.extend_from_slice(before.get(..before.len() - self.rest.len())?);
        Some(count)
    }

    /// Reads the topic's name, or its id from v13 on, and copies it to the response.
    fn topic(&mut self, version: i16, out: &mut Vec<u8>) -> Option<&'a [u8]> {
        let before = self.rest;
        let name = match version {
            13.. => self.take(16)?,
            _ => self.text(version >= 9)?,
        };
        out.extend_from_slice(before.get(..before.len() - self.rest.len())?);
        Some(name)
    }
}

/// Returns the number of records in a batch's header; `None` if the header is incomplete.
fn record_count(records: &[u8]) -> Option<u32> {
    let header = records.get(..BATCH_HEADER_SIZE)?;
    Some(u32::from_be_bytes(header.get(RECORD_COUNT..)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use bytes::{BufMut, Bytes, BytesMut};

    use super::*;
    use crate::{
        testkit::{
            Options,
            api::{Context, Step, decode_call, decode_head, text},
            fault::Verdict,
            state::{Broker, sessions::Sessions},
        },
        wire::{
            batch::BATCH_HEADER_SIZE,
            message::{encode_body, encode_request_header},
            messages::{
                ProduceRequest,
                produce_request::{PartitionProduceData, TopicProduceData},
            },
        },
    };

    fn state() -> State {
        let broker = Broker { id: 1, host: "a".into(), port: 1, rack: None, up: true, sessions: Sessions::default() };
        let mut state = State::new(Options::new().sink(true), vec![broker], 0, Instant::now());
        state.create_topic("orders", 3, None, Default::default()).unwrap();
        state.create_topic("rows", 1, None, Default::default()).unwrap();
        state
    }

    fn batch(count: i32) -> Bytes {
        let mut batch = vec![7; BATCH_HEADER_SIZE + 100];
        batch[RECORD_COUNT..BATCH_HEADER_SIZE].copy_from_slice(&count.to_be_bytes());
        batch.into()
    }

    /// A request of two topics in wire format, without its length.
    fn request(state: &State, version: i16, acks: i16, last_partition: i32) -> Bytes {
        let data = |index, count| PartitionProduceData { index, records: Some(batch(count)) };
        let topic = |name: &str, partitions| {
            let topic = TopicProduceData { partition_data: partitions, ..Default::default() };
            match version {
                13.. => TopicProduceData { topic_id: state.topics.get(name).unwrap().id, ..topic },
                _ => TopicProduceData { name: text(name), ..topic },
            }
        };
        let topics =
            vec![topic("orders", vec![data(0, 10), data(last_partition, 20)]), topic("rows", vec![data(0, 3)])];
        let request = ProduceRequest {
            acks,
            timeout_ms: 30_000,
            transactional_id: (version % 2 == 0).then(|| text("me")),
            topic_data: topics,
        };
        let mut out = BytesMut::new();
        encode_request_header(&mut out, ApiKey::Produce, version, 77, "a client").unwrap();
        if version == 4 {
            // Null instead of a client id, in a header that is not flexible.
            out.truncate(8);
            out.put_i16(-1);
        }
        encode_body(&mut out, &request, version).unwrap();
        out.freeze()
    }

    /// Returns the response by way of the decoder and the encoder.
    fn long_way(mut frame: Bytes, state: &mut State) -> Vec<u8> {
        let head = decode_head(&mut frame).unwrap();
        let mut call = decode_call(&head, frame).unwrap();
        let verdict = Verdict::default();
        let gate = &mut crate::testkit::sasl::Gate::new(None);
        let mut context = Context { state, broker: 1, head: &head, now: Instant::now(), verdict: &verdict, gate };
        match call.act(&mut context).unwrap() {
            Step::Reply(pieces) => pieces.concat(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn response_matches_regular_path_in_every_version() {
        let mut state = state();
        let (min, max) = versions(ApiKey::Produce, &state.options).unwrap();
        assert!(max >= 13);
        for version in min..=13 {
            let frame = request(&state, version, -1, 2);
            let mut out = vec![9];
            acknowledge(&frame, &mut state, 1, &mut out).unwrap();
            assert_eq!(out[1..], long_way(frame, &mut state), "v{version}");
        }
    }

    #[test]
    fn counts_received_requests_batches_and_bytes() {
        let mut state = state();
        let mut bytes = 0;
        for version in [5, 13] {
            let frame = request(&state, version, 1, 1);
            bytes += frame.len() as u64 + 4;
            acknowledge(&frame, &mut state, 1, &mut Vec::new()).unwrap();
        }
        let record_bytes = 6 * (BATCH_HEADER_SIZE as u64 + 100);
        let expected = Received { requests: 2, batches: 6, records: 66, record_bytes, bytes };
        assert_eq!(state.sink.unwrap().received, expected);
        assert_eq!(state.journal.seen(ApiKey::Produce), 2);
    }

    #[test]
    fn leaves_unusual_requests_to_regular_path() {
        let mut state = state();
        let sound = request(&state, 11, -1, 2);
        let mut refused = vec![(request(&state, 11, 0, 2), 1), (request(&state, 11, -1, 3), 1), (sound.clone(), 2)];
        refused.extend((0..sound.len()).map(|end| (sound.slice(..end), 1)));
        let mut longer = BytesMut::from(&sound[..]);
        longer.put_u8(0);
        refused.push((longer.freeze(), 1));
        for (frame, broker) in refused {
            let mut out = vec![9];
            assert_eq!(acknowledge(&frame, &mut state, broker, &mut out), None);
            assert_eq!(out, [9]);
        }
        assert_eq!(state.sink.unwrap().received, Received::default());
    }
}
