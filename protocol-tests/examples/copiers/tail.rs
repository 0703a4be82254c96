//! Follows the last topic, to see whether copies arrive.

use std::time::{Duration, Instant};

use ottla::{
    Consumer, Offset, TopicPartition,
    consumer::{IsolationLevel, OffsetReset},
};

use crate::Failure;

/// Time within which another copy has to arrive once the cluster is whole.
const PATIENCE: Duration = Duration::from_secs(240);

/// A consumer of a topic's committed records.
pub(crate) struct Tail {
    consumer: Consumer,
    pub(crate) records: u64,
}

impl Tail {
    pub(crate) async fn follow(bootstrap: &str, topic: &str, partitions: usize) -> Result<Self, Failure> {
        let consumer = Consumer::builder(bootstrap)
            .isolation_level(IsolationLevel::ReadCommitted)
            .auto_offset_reset(OffsetReset::None)
            .build()
            .await?;
        consumer.assign((0..partitions).map(|n| (TopicPartition::new(topic, n as i32), Offset::Beginning)))?;
        Ok(Self { consumer, records: 0 })
    }

    /// Reads what there is at present.
    pub(crate) async fn read_on(&mut self) -> Result<(), Failure> {
        loop {
            match self.consumer.poll(Duration::from_millis(300)).await {
                Ok(records) if records.is_empty() => return Ok(()),
                Ok(records) => self.records += records.len() as u64,
                Err(error) if error.is_fatal() => return Err(error.into()),
                Err(error) => eprintln!("the last topic cannot be read at present: {error}"),
            }
        }
    }

    /// Waits until the topic has at least that many records.
    pub(crate) async fn reaches(&mut self, records: u64) -> Result<(), Failure> {
        let (mut before, mut progress) = (self.records, Instant::now());
        while self.records < records {
            self.read_on().await?;
            if self.records > before {
                (before, progress) = (self.records, Instant::now());
            }
            if progress.elapsed() > PATIENCE {
                return Err(format!("no copy arrives after {} of {records} for {PATIENCE:?}", self.records).into());
            }
        }
        Ok(())
    }
}
