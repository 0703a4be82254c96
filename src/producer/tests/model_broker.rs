//! A broker as the producer's rules assume it: logs with leaders, and the sequence checks of Kafka.

use std::collections::{HashMap, VecDeque};

use crate::{
    error::ErrorCode,
    wire::{
        batch::{Decompressor, ProducerStamp, SealedBatch},
        produce::ProducePartitionResponse,
    },
};

/// One partition: its log, and its state of producers.
#[derive(Default)]
pub(super) struct Log {
    pub(super) leader: i32,
    /// The values of its records.
    pub(super) values: Vec<u64>,
    pub(super) producers: HashMap<i64, ProducerState>,
    /// Batches with more records are too large.
    pub(super) max_records: u32,
    /// True if an unknown producer has to begin at 0.
    pub(super) strict: bool,
}

pub(super) struct ProducerState {
    epoch: i16,
    last_sequence: i32,
    /// First sequence, record count and offset of the last five batches.
    recent: VecDeque<(i32, u32, i64)>,
}

fn advance(sequence: i32, records: u32) -> i32 {
    ((i64::from(sequence) + i64::from(records)) % (1 << 31)) as i32
}

impl Log {
    /// Appends a batch as a leader does; returns its offset.
    pub(super) fn append(&mut self, node: i32, batch: &SealedBatch, stamp: ProducerStamp) -> Result<i64, ErrorCode> {
        if self.leader != node {
            return Err(ErrorCode::NOT_LEADER_OR_FOLLOWER);
        }
        if batch.count() > self.max_records {
            return Err(ErrorCode::MESSAGE_TOO_LARGE);
        }
        let offset = self.values.len() as i64;
        if stamp.producer_id >= 0 {
            self.check_sequence(batch.count(), stamp, offset)?;
        }
        let records = batch.records(&mut Decompressor::default()).expect("the batch can be read");
        for record in records.iter() {
            let value = record.expect("the record can be read").value.expect("it has a value");
            self.values.push(u64::from_be_bytes(value.try_into().expect("8 bytes")));
        }
        Ok(offset)
    }

    /// Loses the state of its producers, except those with a batch of sequence 0 that may still be
    /// sent again: a repetition of that batch would be taken for a new producer, whatever the
    /// client does. After five later batches it is known to be acknowledged.
    pub(super) fn forget(&mut self) {
        self.producers.retain(|_, state| state.recent.len() < 5 || state.recent.iter().any(|(first, ..)| *first == 0));
    }

    fn check_sequence(&mut self, records: u32, stamp: ProducerStamp, offset: i64) -> Result<(), ErrorCode> {
        let (first, last) = (stamp.base_sequence, advance(stamp.base_sequence, records - 1));
        match self.producers.get_mut(&stamp.producer_id) {
            Some(state) if stamp.producer_epoch < state.epoch => return Err(ErrorCode::INVALID_PRODUCER_EPOCH),
            Some(state) if stamp.producer_epoch == state.epoch => {
                if state.recent.iter().any(|(known, count, _)| *known == first && *count == records) {
                    return Err(ErrorCode::DUPLICATE_SEQUENCE_NUMBER);
                }
                if advance(state.last_sequence, 1) != first {
                    return Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
                }
                state.last_sequence = last;
                state.recent.push_back((first, records, offset));
                if state.recent.len() > 5 {
                    state.recent.pop_front();
                }
                return Ok(());
            }
            Some(_) if first != 0 => return Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER),
            None if first != 0 && self.strict => return Err(ErrorCode::UNKNOWN_PRODUCER_ID),
            // Since 2.5 an unknown producer may begin at any sequence (KIP-360).
            _ => {}
        }
        let state = ProducerState {
            epoch: stamp.producer_epoch,
            last_sequence: last,
            recent: VecDeque::from([(first, records, offset)]),
        };
        self.producers.insert(stamp.producer_id, state);
        Ok(())
    }
}

pub(super) fn response(partition: i32, result: Result<i64, ErrorCode>) -> ProducePartitionResponse<'static> {
    ProducePartitionResponse {
        topic: super::model::TOPIC,
        topic_id: uuid::Uuid::nil(),
        partition,
        error: result.err().unwrap_or(ErrorCode::NONE),
        base_offset: result.unwrap_or(-1),
        log_append_time_ms: -1,
        log_start_offset: 0,
        record_errors: Vec::new(),
        error_message: None,
        current_leader: None,
    }
}
