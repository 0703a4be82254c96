//! Produce 3–13 with acks 0, 1 and −1: one valid v2 batch per partition, checked as Kafka checks it
//! (size, magic, checksum, counts, codec, producer sequences), appended and answered at once, since
//! replication is pretended. For a partition that another broker leads, the response names the
//! leader (KIP-951, v10). With acks=0 an error closes the connection. A transaction begins with its
//! first batch, about which the transaction coordinator is asked.

use std::{collections::HashMap, sync::Arc, time::Instant};

use bytes::Bytes;
use uuid::Uuid;

use super::{
    Call, Context, Step, Subject,
    produce_verification::{TransactionalBatch, Verification, verify},
    text,
};
use crate::{
    error::{ErrorCode, Result},
    record::TopicPartition,
    testkit::state::{
        State,
        log::each_record,
        producers::{Admission, Stamp},
    },
    wire::{
        batch::{BATCH_HEADER_SIZE, BatchHeader, Batches},
        messages::{
            ProduceRequest, ProduceResponse,
            produce_response::{
                BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse,
                TopicProduceResponse,
            },
        },
    },
};

/// Attribute bits 0 to 2 of a batch compressed with zstd, which needs v7 (KIP-110).
const ZSTD: i16 = 4;

/// Attribute bit of a batch in a transaction, and the place of the attributes' lower byte.
const TRANSACTIONAL: u8 = 0x10;
const ATTRIBUTES: usize = 22;

pub(crate) struct Produce {
    acks: i16,
    topics: Vec<(String, Uuid, Vec<Sent>)>,
    transactional_id: Option<String>,
    /// True if a batch belongs to a transaction.
    is_transactional: bool,
    /// Time at which the coordinator was asked first.
    asked: Option<Instant>,
}

struct Sent {
    partition: i32,
    records: Bytes,
}

struct Appended {
    base_offset: i64,
    append_time: i64,
    log_start: i64,
}

impl Produce {
    pub(crate) fn new(request: ProduceRequest) -> Self {
        let transactional_id = request.transactional_id.map(|id| id.to_string());
        let topics = request.topic_data.into_iter().map(|topic| {
            let sent = topic
                .partition_data
                .into_iter()
                .map(|data| Sent { partition: data.index, records: data.records.unwrap_or_default() });
            (topic.name.to_string(), topic.topic_id, sent.collect())
        });
        let topics: Vec<(String, Uuid, Vec<Sent>)> = topics.collect();
        let is_transactional = topics.iter().flat_map(|(.., sent)| sent).any(Sent::is_transactional);
        Self { acks: request.acks, topics, transactional_id, is_transactional, asked: None }
    }

    /// Returns the batches that belong to transactions and can be read.
    fn transactional(&self, state: &State, version: i16) -> Vec<TransactionalBatch> {
        let mut batches = Vec::new();
        for (at, (.., sent)) in self.topics.iter().enumerate() {
            let Some(name) = self.resolve(at, state, version) else { continue };
            for sent in sent.iter().filter(|sent| sent.is_transactional()) {
                if let Ok(header) = BatchHeader::parse(&sent.records)
                    && header.producer_id >= 0
                {
                    let partition = TopicPartition::new(name.clone(), sent.partition);
                    batches.push(TransactionalBatch { partition, stamp: stamp_of(&header) });
                }
            }
        }
        batches
    }

    /// Asks the transaction coordinator, if a batch belongs to a transaction. A sink looks at no
    /// batch.
    fn verify(&mut self, context: &mut Context<'_>) -> Verification {
        if !self.is_transactional || context.state.sink.is_some() {
            return Verification::Done(HashMap::new());
        }
        let batches = self.transactional(context.state, context.head.version);
        let since = *self.asked.get_or_insert(context.now);
        verify(context, self.transactional_id.as_deref(), batches, since)
    }

    /// Returns the topic's name; topics are identified by id from v13 on.
    fn resolve(&self, at: usize, state: &State, version: i16) -> Option<Arc<str>> {
        let (name, id, _) = self.topics.get(at)?;
        if version >= 13 { state.topics.name_of(*id).cloned() } else { Some(Arc::from(name.as_str())) }
    }
}

impl Call for Produce {
    fn subject(&self, state: &State, _broker: i32) -> Subject {
        let mut partitions = Vec::new();
        for (name, id, sent) in &self.topics {
            let name =
                if name.is_empty() { state.topics.name_of(*id).cloned() } else { Some(Arc::from(name.as_str())) };
            let Some(name) = name else { continue };
            partitions.extend(sent.iter().map(|sent| TopicPartition::new(name.clone(), sent.partition)));
        }
        Subject { partitions, group: None }
    }

    fn transactional_id(&self) -> Option<&str> {
        self.transactional_id.as_deref()
    }

    fn act(&mut self, context: &mut Context<'_>) -> Result<Step> {
        let version = context.head.version;
        let (refused, unverified) = match self.verify(context) {
            Verification::Done(errors) => (None, errors),
            Verification::Refused(code) => (Some(code), HashMap::new()),
            Verification::Later(at) => return Ok(Step::Postpone(at)),
        };
        let unverified = |name: &Arc<str>, partition: i32| {
            let error = || unverified.get(&TopicPartition::new(name.clone(), partition)).copied();
            if unverified.is_empty() { refused } else { error() }
        };
        let mut failed = false;
        let mut response = ProduceResponse { throttle_time_ms: context.throttle(), ..Default::default() };
        for at in 0..self.topics.len() {
            let name = self.resolve(at, context.state, version);
            let Some((asked, id, sent)) = self.topics.get(at) else { continue };
            let mut answers = Vec::with_capacity(sent.len());
            for sent in sent {
                let answer = match &name {
                    Some(name) if context.state.sink.is_some() => sent.sink(context, name),
                    Some(name) => sent.answer(context, name, self.acks, unverified(name, sent.partition)),
                    None => refusal(sent.partition, ErrorCode::UNKNOWN_TOPIC_ID),
                };
                failed |= answer.error_code != 0;
                if let (true, Some(name)) = (version >= 10 && context.state.options.leader_hints, &name) {
                    answers.push(hint(answer, context, name, &mut response.node_endpoints));
                } else {
                    answers.push(answer);
                }
            }
            let topic = TopicProduceResponse { partition_responses: answers, ..Default::default() };
            response.responses.push(match version {
                13.. => TopicProduceResponse { topic_id: *id, ..topic },
                _ => TopicProduceResponse { name: text(asked), ..topic },
            });
        }
        match self.acks {
            0 if failed => Ok(Step::Close),
            0 => Ok(Step::Silent),
            _ => context.reply(&response),
        }
    }
}

impl Sent {
    fn is_transactional(&self) -> bool {
        self.records.get(ATTRIBUTES).is_some_and(|attributes| attributes & TRANSACTIONAL != 0)
    }

    /// Appends the batch, unless its transaction stands against it.
    fn answer(
        &self,
        context: &mut Context<'_>,
        topic: &str,
        acks: i16,
        unverified: Option<ErrorCode>,
    ) -> PartitionProduceResponse {
        if let Some(code) = context.refused_partition(topic, self.partition) {
            return PartitionProduceResponse {
                record_errors: record_errors(context, code),
                ..refusal(self.partition, code)
            };
        }
        if !matches!(acks, -1..=1) {
            return refusal(self.partition, ErrorCode::INVALID_REQUIRED_ACKS);
        }
        match unverified.map_or_else(|| self.append(context, topic), Err) {
            Ok(appended) => {
                let error = context.spoiled_partition(topic, self.partition, ErrorCode::NONE);
                if !error.is_ok() {
                    return refusal(self.partition, error);
                }
                PartitionProduceResponse {
                    index: self.partition,
                    base_offset: appended.base_offset,
                    log_append_time_ms: appended.append_time,
                    log_start_offset: appended.log_start,
                    ..Default::default()
                }
            }
            Err(error) => refusal(self.partition, error),
        }
    }

    fn append(&self, context: &mut Context<'_>, topic: &str) -> Result<Appended, ErrorCode> {
        let (version, broker) = (context.head.version, context.broker);
        let millis = context.state.millis(context.now);
        let options = &context.state.options;
        let (default_limit, strict) = (options.max_message_bytes, options.strict_producer_ids);
        let topic = context.state.topics.get_mut(topic).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
        let limit = topic.max_message_bytes().unwrap_or(default_limit);
        let append_time = topic.log_append_time().then_some(millis);
        let partition = topic.partition_mut(self.partition).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
        partition.check_leader(broker, -1)?;
        if self.records.len() > limit {
            return Err(ErrorCode::MESSAGE_TOO_LARGE);
        }
        let header = check(&self.records, version)?;
        let stamp = stamp_of(&header);
        let idempotent = header.producer_id >= 0;
        if idempotent
            && let Admission::Duplicate { base_offset, timestamp } = partition.producers.admit(&stamp, strict)?
        {
            let append_time = append_time.map_or(-1, |_| timestamp);
            return Ok(Appended { base_offset, append_time, log_start: partition.log.start() });
        }
        if idempotent && !header.is_transactional() && partition.log.transactions().is_open(header.producer_id) {
            return Err(ErrorCode::INVALID_TXN_STATE);
        }
        let appended = partition.log.append(&self.records, &header, partition.leader_epoch, append_time);
        let base_offset = appended.map_err(|_| ErrorCode::CORRUPT_MESSAGE)?;
        if idempotent {
            partition.producers.appended(&stamp, base_offset, millis);
        }
        let append_time = append_time.unwrap_or(-1);
        Ok(Appended { base_offset, append_time, log_start: partition.log.start() })
    }

    /// Answers as if the batch had been appended, without reading its records.
    fn sink(&self, context: &Context<'_>, topic: &str) -> PartitionProduceResponse {
        if let Some(code) = context.refused_partition(topic, self.partition) {
            return refusal(self.partition, code);
        }
        match context.state.topics.partition(topic, self.partition) {
            Some(partition) => match partition.check_leader(context.broker, -1) {
                Ok(()) => {
                    PartitionProduceResponse { index: self.partition, log_append_time_ms: -1, ..Default::default() }
                }
                Err(error) => refusal(self.partition, error),
            },
            None => refusal(self.partition, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
        }
    }
}

fn stamp_of(header: &BatchHeader) -> Stamp {
    Stamp {
        producer_id: header.producer_id,
        epoch: header.producer_epoch,
        first_sequence: header.base_sequence,
        count: header.record_count,
    }
}

fn refusal(partition: i32, error: ErrorCode) -> PartitionProduceResponse {
    PartitionProduceResponse {
        index: partition,
        error_code: error.code(),
        base_offset: -1,
        log_append_time_ms: -1,
        log_start_offset: -1,
        ..Default::default()
    }
}

/// Returns the records that are reported as invalid (KIP-467).
fn record_errors(context: &Context<'_>, code: ErrorCode) -> Vec<BatchIndexAndErrorMessage> {
    if code != ErrorCode::INVALID_RECORD || context.head.version < 8 {
        return Vec::new();
    }
    let named = |index: &i32| BatchIndexAndErrorMessage {
        batch_index: *index,
        batch_index_error_message: Some(text(format!("record {index} is invalid"))),
    };
    context.verdict.invalid_records.iter().map(named).collect()
}

/// Adds the new leader to an error for a client that asked the wrong broker.
fn hint(
    answer: PartitionProduceResponse,
    context: &Context<'_>,
    topic: &str,
    endpoints: &mut Vec<NodeEndpoint>,
) -> PartitionProduceResponse {
    if answer.error_code != ErrorCode::NOT_LEADER_OR_FOLLOWER.code() {
        return answer;
    }
    let Some(partition) = context.state.topics.partition(topic, answer.index) else { return answer };
    if let Some(leader) = context.state.broker(partition.leader)
        && endpoints.iter().all(|endpoint| endpoint.node_id != leader.id)
    {
        endpoints.push(NodeEndpoint {
            node_id: leader.id,
            host: text(leader.host.as_str()),
            port: i32::from(leader.port),
            rack: leader.rack.as_deref().map(text),
        });
    }
    PartitionProduceResponse {
        current_leader: LeaderIdAndEpoch { leader_id: partition.leader, leader_epoch: partition.leader_epoch },
        ..answer
    }
}

/// Makes the checks of a batch that need its bytes alone.
fn check(records: &Bytes, version: i16) -> Result<BatchHeader, ErrorCode> {
    const MAGIC: usize = 16;
    if records.len() < BATCH_HEADER_SIZE || records.get(MAGIC) != Some(&2) {
        return Err(ErrorCode::INVALID_RECORD);
    }
    let header = BatchHeader::parse(records).map_err(|_| ErrorCode::CORRUPT_MESSAGE)?;
    if header.size() > records.len() {
        return Err(ErrorCode::CORRUPT_MESSAGE);
    }
    if header.size() < records.len() {
        // Exactly one batch (KIP-98).
        return Err(ErrorCode::INVALID_RECORD);
    }
    if header.attributes & 7 == ZSTD && version < 7 {
        return Err(ErrorCode::UNSUPPORTED_COMPRESSION_TYPE);
    }
    let batch = Batches::new(records.clone()).next().and_then(Result::ok).ok_or(ErrorCode::CORRUPT_MESSAGE)?;
    batch.check_crc().map_err(|_| ErrorCode::CORRUPT_MESSAGE)?;
    let counts = header.record_count > 0 && header.last_offset_delta == header.record_count - 1;
    if !counts || header.is_control() {
        return Err(ErrorCode::INVALID_RECORD);
    }
    let count = each_record(records, &mut |_, _, _| ()).map_err(|_| ErrorCode::CORRUPT_MESSAGE)?;
    if i32::try_from(count) == Ok(header.record_count) { Ok(header) } else { Err(ErrorCode::INVALID_RECORD) }
}
