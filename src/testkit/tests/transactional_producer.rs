//! A transactional producer that sends single requests, for tests of the brokers.

use super::client::{Client, cluster, produce_request, text, transactional_batch};
use crate::{
    record::GroupMetadata,
    testkit::{Cluster, Options},
    wire::messages::{
        AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest,
        InitProducerIdResponse, OffsetFetchRequest, ProduceRequest, TxnOffsetCommitRequest,
        add_partitions_to_txn_request::AddPartitionsToTxnTopic,
        offset_fetch_request::OffsetFetchRequestTopic,
        txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic},
    },
};

/// `transaction.timeout.ms`
pub(super) const TIMEOUT_MS: i32 = 60_000;

/// The versions of the requests of one protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Protocol {
    pub(super) produce: i16,
    pub(super) offsets: i16,
    pub(super) end: i16,
    pub(super) adds: bool,
}

pub(crate) const V1: Protocol = Protocol { produce: 11, offsets: 4, end: 4, adds: true };
pub(crate) const V2: Protocol = Protocol { produce: 12, offsets: 5, end: 5, adds: false };

/// A producer with one connection, to broker 1, which leads and coordinates everything in a cluster
/// of one broker.
pub(crate) struct TransactionalProducer {
    pub(super) client: Client,
    pub(super) id: &'static str,
    pub(super) producer_id: i64,
    pub(super) epoch: i16,
    /// The sequence number of the next batch, whatever its partition.
    pub(super) sequence: i32,
    pub(super) protocol: Protocol,
}

/// Starts a cluster with a topic `t` of two partitions, and a producer with the id `tx`.
pub(super) async fn started(options: Options, protocol: Protocol) -> (Cluster, TransactionalProducer) {
    let cluster = cluster(options).await;
    cluster.create_topic("t", 2).unwrap();
    let producer = TransactionalProducer::init(&cluster, "tx", protocol).await;
    (cluster, producer)
}

/// Returns the state of the transactions of `tx`, and the producer's epoch.
pub(super) fn state(cluster: &Cluster) -> (&'static str, i16) {
    let transaction = cluster.transaction("tx").unwrap();
    (transaction.state, transaction.producer_epoch)
}

impl TransactionalProducer {
    /// Connects, and gets a producer id.
    pub(crate) async fn init(cluster: &Cluster, id: &'static str, protocol: Protocol) -> Self {
        let client = Client::to(cluster, 1).await;
        let mut producer = Self { client, id, producer_id: -1, epoch: -1, sequence: 0, protocol };
        let given = producer.init_as(None, 5).await;
        assert_eq!(given.error_code, 0);
        (producer.producer_id, producer.epoch) = (given.producer_id, given.producer_epoch);
        producer
    }

    /// Sends InitProducerId, with the given id and epoch.
    pub(super) async fn init_as(&mut self, own: Option<(i64, i16)>, version: i16) -> InitProducerIdResponse {
        let (producer_id, producer_epoch) = own.unwrap_or((-1, -1));
        let request = InitProducerIdRequest {
            transactional_id: Some(text(self.id)),
            transaction_timeout_ms: TIMEOUT_MS,
            producer_id,
            producer_epoch,
        };
        self.client.call(&request, version).await
    }

    /// Sends AddPartitionsToTxn with one partition.
    pub(super) async fn add_partition(&mut self, topic: &str, partition: i32, version: i16) -> i16 {
        let topic = AddPartitionsToTxnTopic { name: text(topic), partitions: vec![partition] };
        let request = AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: text(self.id),
            v3_and_below_producer_id: self.producer_id,
            v3_and_below_producer_epoch: self.epoch,
            v3_and_below_topics: vec![topic],
            ..Default::default()
        };
        let response = self.client.call(&request, version).await;
        response.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code
    }

    /// Sends AddOffsetsToTxn.
    pub(super) async fn add_group(&mut self, group: &str, version: i16) -> i16 {
        let request = AddOffsetsToTxnRequest {
            transactional_id: text(self.id),
            producer_id: self.producer_id,
            producer_epoch: self.epoch,
            group_id: text(group),
        };
        self.client.call(&request, version).await.error_code
    }

    /// Returns a Produce request with one batch.
    pub(super) fn produce_request(&self, topic: &str, partition: i32, values: &[&str]) -> ProduceRequest {
        let batch = transactional_batch((self.producer_id, self.epoch, self.sequence), values);
        let request = produce_request(topic, &[(partition, batch)], -1);
        ProduceRequest { transactional_id: Some(text(self.id)), ..request }
    }

    /// Sends one batch; returns error and base offset.
    pub(super) async fn produce(&mut self, topic: &str, partition: i32, values: &[&str]) -> (i16, i64) {
        let request = self.produce_request(topic, partition, values);
        let response = self.client.call(&request, self.protocol.produce).await;
        let answer = &response.responses[0].partition_responses[0];
        if answer.error_code == 0 {
            self.sequence += i32::try_from(values.len()).unwrap();
        }
        (answer.error_code, answer.base_offset)
    }

    /// Adds a partition if the protocol asks for it, and sends one batch.
    pub(super) async fn send(&mut self, topic: &str, partition: i32, values: &[&str]) -> (i16, i64) {
        if self.protocol.adds {
            assert_eq!(self.add_partition(topic, partition, 3).await, 0);
        }
        self.produce(topic, partition, values).await
    }

    /// Returns a TxnOffsetCommit request for t[0], without a member.
    pub(super) fn offsets_request(&self, group: &str, offset: i64) -> TxnOffsetCommitRequest {
        let partition = TxnOffsetCommitRequestPartition { committed_offset: offset, ..Default::default() };
        let partition = TxnOffsetCommitRequestPartition { committed_metadata: Some(text("note")), ..partition };
        TxnOffsetCommitRequest {
            transactional_id: text(self.id),
            group_id: text(group),
            producer_id: self.producer_id,
            producer_epoch: self.epoch,
            topics: vec![TxnOffsetCommitRequestTopic {
                name: text("t"),
                partitions: vec![partition],
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    /// Commits an offset of t[0] in the transaction; returns the error.
    pub(super) async fn commit_offset(&mut self, group: &str, offset: i64) -> i16 {
        let request = self.offsets_request(group, offset);
        let response = self.client.call(&request, self.protocol.offsets).await;
        response.topics[0].partitions[0].error_code
    }

    /// Adds a group if the protocol asks for it, and commits an offset of t[0].
    pub(super) async fn send_offset(&mut self, group: &str, offset: i64) -> i16 {
        if self.protocol.adds {
            assert_eq!(self.add_group(group, 4).await, 0);
        }
        self.commit_offset(group, offset).await
    }

    /// Like [`send_offset`](Self::send_offset), for the consumer of that metadata.
    pub(crate) async fn send_offset_of(&mut self, consumer: &GroupMetadata, offset: i64) -> i16 {
        if self.protocol.adds {
            assert_eq!(self.add_group(consumer.group_id(), 4).await, 0);
        }
        let request = TxnOffsetCommitRequest {
            generation_id_or_member_epoch: consumer.generation(),
            member_id: text(consumer.member_id()),
            ..self.offsets_request(consumer.group_id(), offset)
        };
        let response = self.client.call(&request, self.protocol.offsets).await;
        response.topics[0].partitions[0].error_code
    }

    /// Returns an EndTxn request.
    pub(super) fn end_request(&self, committed: bool) -> EndTxnRequest {
        EndTxnRequest {
            transactional_id: text(self.id),
            producer_id: self.producer_id,
            producer_epoch: self.epoch,
            committed,
        }
    }

    /// Ends the transaction, and goes on with the id and epoch of the response.
    pub(crate) async fn end(&mut self, committed: bool) -> i16 {
        let response = self.client.call(&self.end_request(committed), self.protocol.end).await;
        if response.producer_id >= 0 {
            (self.producer_id, self.epoch, self.sequence) = (response.producer_id, response.producer_epoch, 0);
        }
        response.error_code
    }
}

/// Fetches the group's offset of t[0]; returns offset and error.
pub(super) async fn committed(client: &mut Client, group: &str, require_stable: bool) -> (i64, i16) {
    let topic = OffsetFetchRequestTopic { name: text("t"), partition_indexes: vec![0] };
    let request =
        OffsetFetchRequest { group_id: text(group), topics: Some(vec![topic]), require_stable, ..Default::default() };
    let response = client.call(&request, 7).await;
    let partition = &response.topics[0].partitions[0];
    (partition.committed_offset, partition.error_code)
}
