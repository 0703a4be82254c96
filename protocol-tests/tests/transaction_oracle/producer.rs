//! The requests of a transactional producer.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest, ProduceRequest,
        add_partitions_to_txn_request::AddPartitionsToTxnTopic,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType},
};

use crate::script::{Script, error, text};

/// The versions of the requests of one protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Protocol {
    pub(crate) name: &'static str,
    pub(crate) produce: i16,
    pub(crate) offsets: i16,
    pub(crate) end: i16,
    /// The producer adds partitions and groups itself.
    pub(crate) adds: bool,
}

pub(crate) const V1: Protocol = Protocol { name: "v1", produce: 11, offsets: 4, end: 4, adds: true };
pub(crate) const V2: Protocol = Protocol { name: "v2", produce: 12, offsets: 5, end: 5, adds: false };

impl Protocol {
    pub(crate) fn is_v2(self) -> bool {
        self == V2
    }
}

/// A producer, as it knows itself.
#[derive(Clone, Debug)]
pub(crate) struct Producer {
    pub(crate) name: &'static str,
    pub(crate) transactional_id: String,
    pub(crate) id: i64,
    pub(crate) epoch: i16,
    /// The sequence number of the next batch, whatever its partition.
    pub(crate) sequence: i32,
    pub(crate) protocol: Protocol,
    pub(crate) timeout_ms: i32,
}

impl Producer {
    /// Creates a producer with the scene's transactional id.
    pub(crate) fn new(script: &Script, name: &'static str, protocol: Protocol) -> Self {
        let transactional_id = script.name("tx");
        Self { name, transactional_id, id: -1, epoch: -1, sequence: 0, protocol, timeout_ms: 60_000 }
    }

    /// Returns the same producer with another epoch.
    pub(crate) fn at_epoch(&self, epoch: i16) -> Self {
        Self { epoch, ..self.clone() }
    }

    /// Returns a batch.
    pub(crate) fn batch(&self, records: i32, transactional: bool) -> Bytes {
        // Of the present, because a segment of the log ends when a marker is much newer than it.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970");
        let timestamp = i64::try_from(now.as_millis()).expect("a time before the year 292,278,994");
        let record = |at: i32| Record {
            transactional,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: self.id,
            producer_epoch: self.epoch,
            timestamp_type: TimestampType::Creation,
            offset: i64::from(at),
            sequence: self.sequence + at,
            timestamp,
            key: None,
            value: Some(Bytes::from_static(b"value")),
            headers: Default::default(),
        };
        let records: Vec<_> = (0..records).map(record).collect();
        let options = RecordEncodeOptions { version: 2, compression: Compression::None };
        let mut bytes = BytesMut::new();
        RecordBatchEncoder::encode(&mut bytes, &records, &options).expect("a batch");
        bytes.freeze()
    }

    /// Returns a Produce request.
    pub(crate) fn produce_request(&self, topic: &str, batches: Vec<(i32, Bytes)>) -> ProduceRequest {
        let batches = batches.into_iter();
        let data = batches
            .map(|(index, batch)| PartitionProduceData::default().with_index(index).with_records(Some(batch)))
            .collect();
        let topic = TopicProduceData::default().with_name(text(topic).into()).with_partition_data(data);
        let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic]);
        request.with_transactional_id(Some(text(&self.transactional_id).into()))
    }
}

/// The producer's requests. Each goes on with the identity of a successful answer.
impl Script {
    /// Sends InitProducerId as a new producer.
    pub(crate) async fn init(&mut self, producer: &mut Producer) {
        self.init_as(producer, (-1, -1), 5).await;
    }

    /// Sends InitProducerId with that id and epoch.
    pub(crate) async fn init_as(&mut self, producer: &mut Producer, own: (i64, i16), version: i16) {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(text(&producer.transactional_id).into()))
            .with_transaction_timeout_ms(producer.timeout_ms)
            .with_producer_id(own.0.into())
            .with_producer_epoch(own.1);
        let response = self.connection.call(&request, version).await;
        let asked = self.identity(own.0, own.1);
        let given = self.identity(response.producer_id.0, response.producer_epoch);
        if response.error_code == 0 {
            (producer.id, producer.epoch, producer.sequence) = (response.producer_id.0, response.producer_epoch, 0);
        }
        let step = format!("{}: InitProducerId {version} as {asked}", producer.name);
        self.note(step, format!("{}, {given}", error(response.error_code)));
    }

    /// Sends AddPartitionsToTxn; the answer has one code for each partition.
    pub(crate) async fn add_partitions(&mut self, producer: &Producer, partitions: &[i32], version: i16) {
        let topic = AddPartitionsToTxnTopic::default();
        let topic = topic.with_name(text(&self.topic()).into()).with_partitions(partitions.to_vec());
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(text(&producer.transactional_id).into())
            .with_v3_and_below_producer_id(producer.id.into())
            .with_v3_and_below_producer_epoch(producer.epoch)
            .with_v3_and_below_topics(vec![topic]);
        let response = self.connection.call(&request, version).await;
        let results = response.results_by_topic_v3_and_below.iter().flat_map(|topic| &topic.results_by_partition);
        let mut codes: Vec<_> = results
            .map(|result| format!("[{}] {}", result.partition_index, error(result.partition_error_code)))
            .collect();
        codes.sort();
        let who = self.whose(producer);
        self.note(format!("{who}: AddPartitionsToTxn {version} {partitions:?}"), codes.join(", "));
    }

    /// Sends AddOffsetsToTxn.
    pub(crate) async fn add_offsets(&mut self, producer: &Producer, group: &str, version: i16) {
        let group_id = if group.is_empty() { String::new() } else { self.name(group) };
        let request = AddOffsetsToTxnRequest::default()
            .with_transactional_id(text(&producer.transactional_id).into())
            .with_producer_id(producer.id.into())
            .with_producer_epoch(producer.epoch)
            .with_group_id(text(&group_id).into());
        let response = self.connection.call(&request, version).await;
        let who = self.whose(producer);
        self.note(format!("{who}: AddOffsetsToTxn {version} {group:?}"), error(response.error_code));
    }

    /// Sends Produce with batches as given.
    pub(crate) async fn produce_batches(
        &mut self,
        producer: &Producer,
        what: &str,
        request: &ProduceRequest,
        version: i16,
    ) -> bool {
        let response = self.connection.call(request, version).await;
        let partitions = response.responses.iter().flat_map(|topic| &topic.partition_responses);
        let mut answers: Vec<_> = partitions
            .clone()
            .map(|answer| format!("[{}] {} @{}", answer.index, error(answer.error_code), answer.base_offset))
            .collect();
        answers.sort();
        let all = partitions.clone().all(|answer| answer.error_code == 0);
        let who = self.whose(producer);
        self.note(format!("{who}: Produce {version} {what}"), answers.join(", "));
        all
    }

    /// Sends Produce with one batch of two records.
    pub(crate) async fn produce(&mut self, producer: &mut Producer, partition: i32) {
        let batch = producer.batch(2, true);
        let request = producer.produce_request(&self.topic(), vec![(partition, batch)]);
        let what = format!("[{partition}] at sequence {}", producer.sequence);
        if self.produce_batches(producer, &what, &request, producer.protocol.produce).await {
            producer.sequence += 2;
        }
    }

    /// Adds a partition if the protocol asks for it, and sends one batch.
    pub(crate) async fn send(&mut self, producer: &mut Producer, partition: i32) {
        if producer.protocol.adds {
            self.add_partitions(producer, &[partition], 3).await;
        }
        self.produce(producer, partition).await;
    }

    /// Sends EndTxn in the version of the producer's protocol.
    pub(crate) async fn end(&mut self, producer: &mut Producer, committed: bool) {
        self.end_in(producer, committed, producer.protocol.end).await;
    }

    /// Sends EndTxn in that version.
    pub(crate) async fn end_in(&mut self, producer: &mut Producer, committed: bool, version: i16) {
        let request = EndTxnRequest::default()
            .with_transactional_id(text(&producer.transactional_id).into())
            .with_producer_id(producer.id.into())
            .with_producer_epoch(producer.epoch)
            .with_committed(committed);
        let response = self.connection.call(&request, version).await;
        let who = self.whose(producer);
        let next = self.identity(response.producer_id.0, response.producer_epoch);
        if response.error_code == 0 && response.producer_id.0 >= 0 {
            (producer.id, producer.epoch, producer.sequence) = (response.producer_id.0, response.producer_epoch, 0);
        }
        let what = if committed { "commit" } else { "abort" };
        self.note(format!("{who}: EndTxn {version} {what}"), format!("{}, {next}", error(response.error_code)));
    }

    /// Sends EndTxn, and waits until the markers are written.
    pub(crate) async fn end_fully(&mut self, producer: &mut Producer, committed: bool) {
        self.end(producer, committed).await;
        self.until_ended(producer).await;
    }

    /// Returns the producer with its id and epoch.
    fn whose(&mut self, producer: &Producer) -> String {
        format!("{} as {}", producer.name, self.identity(producer.id, producer.epoch))
    }
}
