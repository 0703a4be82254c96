//! A member of the group: copies what it reads, each poll in one transaction.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use history::{Event, Outcome};
use ottla::{
    Consumer, DeliveryStatus, Record, RecordMetadata, TopicPartition, Transaction, TransactionalProducer,
    consumer::{GroupProtocol, IsolationLevel, OffsetReset},
    producer::CommitError,
    testkit::Cluster,
};

use crate::{
    Failure,
    run::{Dice, GROUP, INPUT, OUTPUT},
};

/// The history of a run, in the order of events.
#[derive(Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<Vec<Event>>>);

impl Recorder {
    pub(crate) fn add(&self, event: Event) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    fn result(&self, client: String, value: String, result: ottla::Result<RecordMetadata>) {
        let topic = OUTPUT.to_owned();
        self.add(match result {
            Ok(at) => {
                let (partition, offset) = (at.partition, at.offset.unwrap_or(-1));
                Event::Acknowledged { client, topic, partition, offset, value }
            }
            Err(error) if error.delivery_status() == Some(DeliveryStatus::NotPersisted) => {
                Event::Failed { client, topic, value }
            }
            Err(_) => Event::Unknown { client, topic, value },
        });
    }

    pub(crate) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One member, with its mishaps.
pub(crate) struct Copier {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) name: String,
    pub(crate) protocol: GroupProtocol,
    pub(crate) recorder: Recorder,
    pub(crate) dice: Dice,
    instances: u32,
    transactions: u32,
}

impl Copier {
    pub(crate) fn new(
        cluster: Arc<Cluster>,
        name: String,
        protocol: GroupProtocol,
        recorder: Recorder,
        dice: Dice,
    ) -> Self {
        Self { cluster, name, protocol, recorder, dice, instances: 0, transactions: 0 }
    }

    /// Copies until it is dropped. An instance ends by a crash, or with an error that is fatal.
    pub(crate) async fn run(mut self) {
        loop {
            self.instances += 1;
            // The next instance takes over, as the operator would start it.
            let _ = self.instance().await;
            tokio::time::sleep(Duration::from_millis(self.dice.roll(3_000))).await;
        }
    }

    async fn instance(&mut self) -> Result<(), Failure> {
        let producer = self.cluster.producer().request_timeout(Duration::from_secs(2));
        let producer = producer.delivery_timeout(Duration::from_secs(8)).max_request_size(20_000);
        let mut producer = producer.transactional_id(self.name.as_str()).build().await?;
        producer.init().await?;
        let consumer = self.cluster.consumer().group(GROUP).group_protocol(self.protocol).auto_commit(false);
        let consumer = consumer.isolation_level(IsolationLevel::ReadCommitted).auto_offset_reset(OffsetReset::Earliest);
        let mut consumer = consumer.max_poll_records(1 + self.dice.roll(15) as usize);
        if self.protocol == GroupProtocol::Classic {
            consumer = consumer.session_timeout(Duration::from_secs(6)).heartbeat_interval(Duration::from_secs(1));
        }
        // Shorter than the longest pause below, so that a member may lose its partitions meanwhile.
        let consumer = consumer.max_poll_interval(Duration::from_secs(8)).build().await?;
        consumer.subscribe([INPUT])?;
        loop {
            if self.dice.roll(15) == 0 {
                return Ok(()); // a crash: nothing is closed
            }
            self.copy(&consumer, &mut producer).await?;
        }
    }

    /// Copies the records of one poll.
    async fn copy(&mut self, consumer: &Consumer, producer: &mut TransactionalProducer) -> Result<(), Failure> {
        let records = consumer.poll(Duration::from_secs(1)).await?;
        let mut offsets: BTreeMap<TopicPartition, i64> = BTreeMap::new();
        let mut copies = Vec::new();
        for record in &records {
            offsets.insert(TopicPartition::new(record.topic(), record.partition()), record.offset() + 1);
            copies.push((record.partition(), String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned()));
        }
        drop(records);
        if copies.is_empty() {
            return Ok(());
        }
        let group = consumer.group_metadata()?;
        self.transactions += 1;
        let client = format!("{}/{}", self.name, self.instances);
        let transaction = format!("{client}/{}", self.transactions);
        let is_committed = {
            let open = producer.begin().await?;
            self.recorder.add(Event::Begin { client: client.clone(), transaction: transaction.clone() });
            self.send(&open, &copies, &client, &transaction).await;
            for (place, offset) in &offsets {
                let (topic, partition) = (place.topic.to_string(), place.partition);
                let (transaction, group) = (transaction.clone(), GROUP.to_owned());
                self.recorder.add(Event::Offset { transaction, group, topic, partition, offset: *offset });
            }
            // The rest of the group may rebalance meanwhile.
            if self.dice.roll(3) == 0 {
                tokio::time::sleep(Duration::from_millis(self.dice.roll(12_000))).await;
            }
            let sent = open.send_offsets(offsets.clone(), &group);
            if self.dice.roll(3) == 0 {
                // The caller gives up waiting: the offsets are part of the transaction all the same.
                let _ = tokio::time::timeout(Duration::from_millis(1), sent).await;
            } else {
                let _ = sent.await;
            }
            self.end(open, &transaction).await?
        };
        if !is_committed {
            consumer.rewind_to_committed(offsets.keys()).await?;
        }
        Ok(())
    }

    async fn send(&mut self, open: &Transaction<'_>, copies: &[(i32, String)], client: &str, transaction: &str) {
        for (partition, value) in copies {
            self.recorder.add(Event::Send {
                client: client.to_owned(),
                topic: OUTPUT.to_owned(),
                partition: Some(*partition),
                value: value.clone(),
                key: None,
                transaction: Some(transaction.to_owned()),
            });
            let mut record = Record::to(OUTPUT).with_partition(*partition).with_value(value.clone());
            if self.dice.roll(60) == 0 {
                record = record.with_key(vec![0; 30_000]); // too large
            }
            // The result of `commit` tells whether all were delivered; this only tells the history where.
            if let Ok(delivery) = open.send(record).await {
                let (recorder, client, value) = (self.recorder.clone(), client.to_owned(), value.clone());
                tokio::spawn(async move { recorder.result(client, value, delivery.await) });
            }
        }
    }

    /// Ends the transaction; returns true if it is committed.
    async fn end(&mut self, open: Transaction<'_>, transaction: &str) -> Result<bool, Failure> {
        match self.dice.roll(10) {
            0 => {
                self.outcome(transaction, Outcome::Aborted);
                open.abort().await?;
                return Ok(false);
            }
            1 => {
                self.outcome(transaction, Outcome::Aborted);
                drop(open);
                return Ok(false);
            }
            _ => {}
        }
        self.recorder.add(Event::Commit { transaction: transaction.to_owned() });
        let mut result = open.commit().await;
        loop {
            result = match result {
                Ok(()) => {
                    self.outcome(transaction, Outcome::Committed);
                    return Ok(true);
                }
                Err(CommitError::Aborted(error)) => {
                    self.outcome(transaction, Outcome::Aborted);
                    return if error.is_fatal() { Err(error.into()) } else { Ok(false) };
                }
                Err(CommitError::Unknown(error)) => {
                    self.outcome(transaction, Outcome::Unknown);
                    return if error.is_fatal() { Err(error.into()) } else { Ok(false) };
                }
                Err(CommitError::Pending(commit)) => commit.wait().await,
            };
        }
    }

    fn outcome(&self, transaction: &str, outcome: Outcome) {
        self.recorder.add(Event::Outcome { transaction: transaction.to_owned(), outcome });
    }
}
