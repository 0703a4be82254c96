//! Reading partitions again from their committed offsets.

use std::pin::pin;

use tokio::time::timeout_at;

use crate::consumer::Consumer;
use crate::{
    error::{Error, ErrorKind, Result},
    log::{event, several},
    record::TopicPartition,
};

impl Consumer {
    /// Reads these partitions again from their committed offsets, after a transaction that read
    /// their records was aborted or has an unknown outcome. As with [`seek`](Self::seek), buffered
    /// records are dropped: no record that was fetched before this call is delivered after it
    /// returns. Takes at most `default.api.timeout.ms`.
    ///
    /// An offset that is part of an open transaction is not used: the consumer requests it again,
    /// with a backoff, until the transaction has ended (UNSTABLE_OFFSET_COMMIT, KIP-447). That also
    /// covers the moment after the end of the caller's own transaction, in which the group does not
    /// yet have its offsets. Brokers before Kafka 2.5 return the last offset committed before the
    /// open transaction instead.
    ///
    /// A partition without a committed offset is read from where `auto.offset.reset` says.
    /// Partitions that are not assigned (any more) are skipped, and so are those that the group
    /// revokes meanwhile. A later [`seek`](Self::seek) of a partition takes precedence.
    ///
    /// ```
    /// # use ottla::{Record, consumer::OffsetReset, testkit::{Cluster, Options}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # cluster.create_topic("orders", 1)?;
    /// # cluster.append("orders", 0, &[Record::to("orders").with_value("shipped")])?;
    /// # let consumer = cluster.consumer().group("billing").auto_commit(false);
    /// # let consumer = consumer.auto_offset_reset(OffsetReset::Earliest).build().await?;
    /// # consumer.subscribe(["orders"])?;
    /// if let Some(record) = consumer.recv().await.transpose()? {
    ///     // … the transaction with the record's results was aborted …
    ///     consumer.rewind_to_committed([&record.topic_partition()]).await?;
    /// }
    /// let again = consumer.recv().await.transpose()?;
    /// # assert!(again.is_some_and(|record| record.offset == 0));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// After an error nothing from before the call is delivered either, and the consumer continues
    /// to request the committed offsets that are missing; it reads a partition as soon as it has
    /// the offset.
    /// - `Timeout`: not all offsets were known in time. [`Error::code`] is `UNSTABLE_OFFSET_COMMIT`
    ///   if a transaction has not ended, perhaps that of another producer.
    /// - `Authorization` and others as the broker answers, at once if they will not pass soon.
    /// - `InvalidArgument` without a `group.id`, and then nothing is done; `Closed`.
    ///
    /// # Cancel safety
    /// Once the future was polled, the partitions are rewound: dropping it only ends the wait. A
    /// future that is never polled does nothing.
    pub async fn rewind_to_committed<'a>(
        &self,
        partitions: impl IntoIterator<Item = &'a TopicPartition>,
    ) -> Result<()> {
        self.shared.group("read committed offsets")?;
        self.check_open()?;
        let deadline = self.shared.deadline();
        let buffer = &self.shared.buffer;
        let mut waiting = buffer.with_state_and_readers(|state| state.rewind_to_committed(partitions));
        // The caller reads nothing while it waits, so a revocation must not wait for it.
        buffer.release_held(&names(&waiting));
        event!(
            DEBUG, self.shared.client.origin(), partitions = %several(&names(&waiting)), count = waiting.len(),
            "partitions are read again from their committed offsets"
        );
        loop {
            let mut moved = pin!(buffer.position_waiters.notified());
            // Registers before the state is read, so that no change is missed.
            moved.as_mut().enable();
            buffer.with_state(|state| state.retain_rewinding(&mut waiting))?;
            if waiting.is_empty() {
                return self.check_open();
            }
            if timeout_at(deadline, moved).await.is_err() {
                return Err(self.rewind_timed_out(&waiting));
            }
        }
    }

    fn rewind_timed_out(&self, waiting: &[(TopicPartition, u64)]) -> Error {
        let cause = self.shared.buffer.with_state(|state| {
            waiting.iter().find_map(|(partition, _)| state.partitions.get(partition)?.offsets.error.clone())
        });
        let message = format!(
            "the committed offsets of {} partitions were not known within {} ms (default.api.timeout.ms), and are \
             requested further: {}",
            waiting.len(),
            self.shared.client.settings().default_api_timeout.as_millis(),
            several(&names(waiting))
        );
        match cause {
            Some(cause) => cause.context(message).with_kind(ErrorKind::Timeout).with_retriable(true),
            None => Error::new(ErrorKind::Timeout, format!("{message}: the coordinator has not answered")),
        }
    }
}

fn names(waiting: &[(TopicPartition, u64)]) -> Vec<&TopicPartition> {
    waiting.iter().map(|(partition, _)| partition).collect()
}
