//! Follows the last topic, to see whether copies arrive.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ottla::{
    Consumer, Offset, TopicPartition,
    consumer::{IsolationLevel, OffsetReset, RecordRef},
};

use crate::Failure;

/// A consumer of a topic's committed records.
pub(crate) struct Tail {
    consumer: Consumer,
    patience: Duration,
    pub(crate) records: u64,
}

impl Tail {
    pub(crate) async fn follow(
        bootstrap: &str,
        topic: &str,
        partitions: usize,
        patience: Duration,
    ) -> Result<Self, Failure> {
        let consumer = Consumer::builder(bootstrap)
            .isolation_level(IsolationLevel::ReadCommitted)
            .auto_offset_reset(OffsetReset::None)
            .build()
            .await?;
        consumer.assign((0..partitions).map(|n| (TopicPartition::new(topic, n as i32), Offset::Beginning)))?;
        Ok(Self { consumer, patience, records: 0 })
    }

    /// Returns the ends of the topic at present.
    pub(crate) async fn ends(&self) -> Result<HashMap<TopicPartition, i64>, Failure> {
        Ok(self.consumer.end_offsets(self.consumer.assignment()).await?)
    }

    /// Waits until a record arrives that is after these ends.
    pub(crate) async fn passes(&mut self, ends: &HashMap<TopicPartition, i64>) -> Result<(), Failure> {
        let began = Instant::now();
        while self.read(ends).await? == 0 {
            if began.elapsed() > self.patience {
                return Err(format!("no copy arrives for {:?}, after {}", self.patience, self.records).into());
            }
        }
        Ok(())
    }

    /// Waits until the topic has at least that many records.
    pub(crate) async fn reaches(&mut self, records: u64) -> Result<(), Failure> {
        let (mut before, mut progress) = (self.records, Instant::now());
        while self.records < records {
            self.read(&HashMap::new()).await?;
            if self.records > before {
                (before, progress) = (self.records, Instant::now());
            }
            if progress.elapsed() > self.patience {
                return Err(
                    format!("no copy arrives after {} of {records} for {:?}", self.records, self.patience).into()
                );
            }
        }
        Ok(())
    }

    /// Reads on, and returns the number of records after these ends.
    async fn read(&mut self, ends: &HashMap<TopicPartition, i64>) -> Result<usize, Failure> {
        match self.consumer.poll(Duration::from_millis(300)).await {
            Ok(records) => {
                self.records += records.len() as u64;
                let is_later = |record: &RecordRef<'_>| {
                    ends.get(record.topic_partition()).is_none_or(|end| record.offset() >= *end)
                };
                Ok(records.iter().filter(is_later).count())
            }
            Err(error) if error.is_fatal() => Err(error.into()),
            Err(error) => {
                eprintln!("the last topic cannot be read at present: {error}");
                Ok(0)
            }
        }
    }
}
