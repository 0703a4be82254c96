//! Dead letters: records that could not be handled, sent to a topic of their own.

use std::sync::Arc;

use crate::{
    error::{Error, ErrorKind, Result},
    producer::Producer,
    record::{ConsumerRecord, Record},
    worker::exactly_once::outputs::Outputs,
};

const TOPIC: &str = "__ottla.errors.topic";
const PARTITION: &str = "__ottla.errors.partition";
const OFFSET: &str = "__ottla.errors.offset";
const MESSAGE: &str = "__ottla.errors.message";
const ATTEMPTS: &str = "__ottla.errors.attempts";
const GROUP: &str = "__ottla.errors.group";

/// The destination of dead letters.
#[derive(Clone, Debug)]
pub(super) struct DeadLetters {
    /// The producer; `None` if they are sent in the transaction of the records.
    pub(super) producer: Option<Producer>,
    pub(super) topic: Arc<str>,
    /// The group of the worker that could not handle them.
    pub(super) group: Option<Arc<str>>,
}

impl DeadLetters {
    /// Sends these records, and waits until all of them are in the log, or part of the transaction.
    pub(super) async fn send(
        &self,
        records: &[ConsumerRecord],
        error: &Error,
        attempts: u32,
        outputs: Option<&Outputs>,
    ) -> Result<()> {
        let Some(producer) = &self.producer else {
            let no_transaction = || Error::new(ErrorKind::Internal, "a dead letter has no transaction");
            let outputs = outputs.ok_or_else(no_transaction)?;
            for record in records {
                outputs.send(self.dead_letter(record, error, attempts)).await?;
            }
            return Ok(());
        };
        let mut deliveries = Vec::with_capacity(records.len());
        for record in records {
            deliveries.push(producer.send(self.dead_letter(record, error, attempts)).await?);
        }
        for delivery in deliveries {
            delivery.await?;
        }
        Ok(())
    }

    /// Returns the record unchanged, with headers for its origin and its error.
    fn dead_letter<'r>(&'r self, record: &'r ConsumerRecord, error: &Error, attempts: u32) -> Record<'r> {
        let letter = Record::forward(&self.topic, record)
            .with_header(TOPIC, record.topic.as_bytes())
            .with_header(PARTITION, record.partition.to_string())
            .with_header(OFFSET, record.offset.to_string())
            .with_header(MESSAGE, error.to_string())
            .with_header(ATTEMPTS, attempts.to_string());
        match &self.group {
            Some(group) => letter.with_header(GROUP, group.as_bytes()),
            None => letter,
        }
    }
}
