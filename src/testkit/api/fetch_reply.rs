//! The response to Fetch, encoded by hand so that the log's batches are sent without being copied.

use bytes::{BufMut, Bytes, BytesMut};

use super::{Context, Step};
use crate::{error::ErrorCode, testkit::state::sessions::Key};

/// The response for one partition.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) error: ErrorCode,
    /// The high watermark; −1 if unknown.
    pub(super) end: i64,
    /// The last stable offset; −1 if unknown.
    pub(super) stable: i64,
    pub(super) start: i64,
    /// Parts of batches, together `size` bytes.
    pub(super) records: Vec<Bytes>,
    pub(super) size: usize,
    /// The aborted transactions that concern these batches: producer and first offset.
    pub(super) aborted: Vec<(i64, i64)>,
    /// Epoch and end offset at which the reader's log and this one diverge (KIP-595).
    pub(super) diverging: Option<(i32, i64)>,
    /// The replica that the reader should go to (KIP-392); −1: none.
    pub(super) preferred: i32,
    /// The leader and its epoch, if the reader asked the wrong broker (KIP-951).
    pub(super) leader: Option<(i32, i32)>,
}

impl Default for Answer {
    fn default() -> Self {
        Self {
            error: ErrorCode::NONE,
            end: -1,
            stable: -1,
            start: 0,
            records: Vec::new(),
            size: 0,
            aborted: Vec::new(),
            diverging: None,
            preferred: -1,
            leader: None,
        }
    }
}

impl Answer {
    pub(super) fn refused(error: ErrorCode) -> Self {
        Self { error, start: -1, ..Self::default() }
    }
}

pub(super) struct FetchReply<'a, 'c> {
    pub(super) context: &'a mut Context<'c>,
    pub(super) session_id: i32,
    pub(super) read_committed: bool,
}

impl FetchReply<'_, '_> {
    /// Encodes a response that consists of one error.
    pub(super) fn write_error(self, error: ErrorCode) -> Step {
        self.finish(error, Vec::new())
    }

    /// Encodes the partitions in their order; consecutive partitions of one topic share its entry,
    /// as with Kafka.
    pub(super) fn write(self, entries: Vec<(&Key, Answer)>) -> Step {
        self.finish(ErrorCode::NONE, entries)
    }

    fn finish(self, error: ErrorCode, entries: Vec<(&Key, Answer)>) -> Step {
        let version = self.context.head.version;
        let mut out = Pieces { head: self.context.begin_reply(), done: Vec::new(), flexible: version >= 12 };
        out.head.put_i32(self.context.throttle());
        if version >= 7 {
            out.head.put_i16(error.code());
            out.head.put_i32(self.session_id);
        }
        let leaders: Vec<i32> = entries.iter().filter_map(|(_, answer)| Some(answer.leader?.0)).collect();
        let mut topics: Vec<(&Key, Vec<(i32, Answer)>)> = Vec::new();
        for (key, answer) in entries {
            match topics.last_mut() {
                Some((last, partitions)) if last.topic == key.topic && last.id == key.id => {
                    partitions.push((key.partition, answer));
                }
                _ => topics.push((key, vec![(key.partition, answer)])),
            }
        }
        out.count(topics.len());
        for (key, partitions) in topics {
            if version >= 13 {
                out.head.put_slice(key.id.as_bytes());
            } else {
                out.text(&key.topic);
            }
            out.count(partitions.len());
            for (partition, answer) in partitions {
                self.partition(&mut out, version, partition, answer);
            }
            out.no_tags();
        }
        if version >= 16 && !leaders.is_empty() {
            self.endpoints(&mut out, leaders);
        } else {
            out.no_tags();
        }
        Step::Reply(out.finish())
    }

    fn partition(&self, out: &mut Pieces, version: i16, partition: i32, answer: Answer) {
        out.head.put_i32(partition);
        out.head.put_i16(answer.error.code());
        out.head.put_i64(answer.end);
        out.head.put_i64(answer.stable);
        if version >= 5 {
            out.head.put_i64(answer.start);
        }
        // Null if the reader does not ask for aborted transactions.
        match (self.read_committed, out.flexible) {
            (true, _) => {
                out.count(answer.aborted.len());
                for (producer_id, first_offset) in answer.aborted {
                    out.head.put_i64(producer_id);
                    out.head.put_i64(first_offset);
                    out.no_tags();
                }
            }
            (false, true) => out.head.put_u8(0),
            (false, false) => out.head.put_i32(-1),
        }
        if version >= 11 {
            out.head.put_i32(answer.preferred);
        }
        out.count(answer.size);
        for piece in answer.records {
            out.splice(piece);
        }
        if !out.flexible {
            return;
        }
        out.varint(usize::from(answer.diverging.is_some()) + usize::from(answer.leader.is_some()));
        if let Some((epoch, end_offset)) = answer.diverging {
            out.head.put_slice(&[0, 13]);
            out.head.put_i32(epoch);
            out.head.put_i64(end_offset);
            out.no_tags();
        }
        if let Some((leader, epoch)) = answer.leader {
            out.head.put_slice(&[1, 9]);
            out.head.put_i32(leader);
            out.head.put_i32(epoch);
            out.no_tags();
        }
    }

    /// Writes the response's only tagged field: the endpoints of the leaders that it names.
    fn endpoints(&self, out: &mut Pieces, mut leaders: Vec<i32>) {
        leaders.sort_unstable();
        leaders.dedup();
        let known: Vec<_> = leaders.into_iter().filter_map(|id| self.context.state.broker(id)).collect();
        let mut field = Pieces { head: BytesMut::new(), done: Vec::new(), flexible: true };
        field.count(known.len());
        for broker in known {
            field.head.put_i32(broker.id);
            field.text(&broker.host);
            field.head.put_i32(i32::from(broker.port));
            match &broker.rack {
                Some(rack) => field.text(rack),
                None => field.head.put_u8(0),
            }
            field.no_tags();
        }
        out.head.put_slice(&[1, 0]);
        out.varint(field.head.len());
        out.head.put_slice(&field.head);
    }
}

/// A response in parts: encoded bytes, with shared bytes between them.
struct Pieces {
    head: BytesMut,
    done: Vec<Bytes>,
    flexible: bool,
}

impl Pieces {
    /// Writes a count or a length before its elements or bytes.
    fn count(&mut self, count: usize) {
        if self.flexible {
            self.varint(count + 1);
        } else {
            self.head.put_i32(i32::try_from(count).unwrap_or(i32::MAX));
        }
    }

    fn text(&mut self, text: &str) {
        if self.flexible {
            self.varint(text.len() + 1);
        } else {
            self.head.put_i16(i16::try_from(text.len()).unwrap_or(i16::MAX));
        }
        self.head.put_slice(text.as_bytes());
    }

    fn varint(&mut self, mut value: usize) {
        while value >= 0x80 {
            self.head.put_u8((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.head.put_u8(value as u8);
    }

    fn no_tags(&mut self) {
        if self.flexible {
            self.head.put_u8(0);
        }
    }

    /// Adds shared bytes, unless copying them is cheaper.
    fn splice(&mut self, piece: Bytes) {
        const WORTH_SHARING: usize = 1024;
        if piece.len() < WORTH_SHARING {
            self.head.put_slice(&piece);
            return;
        }
        self.done.push(self.head.split().freeze());
        self.done.push(piece);
    }

    fn finish(mut self) -> Vec<Bytes> {
        self.done.push(self.head.split().freeze());
        let length: usize = self.done.iter().map(Bytes::len).sum::<usize>().saturating_sub(4);
        let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        if let Some(first) = self.done.first_mut() {
            let mut with_length = first.to_vec();
            if let Some(place) = with_length.first_chunk_mut::<4>() {
                *place = length;
            }
            *first = with_length.into();
        }
        self.done
    }
}
