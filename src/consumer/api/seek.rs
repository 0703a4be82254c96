//! Seeking, pausing and reading the position of partitions.

use std::time::SystemTime;

use crate::consumer::{
    Consumer,
    api::checks::check_offset,
    subscription::fetch_position::{FetchState, ResetTarget},
};
use crate::{
    error::Result,
    record::{Offset, TopicPartition, to_millis},
};

impl Consumer {
    /// Continues reading a partition at that offset. Buffered records are dropped, and
    /// [`Records`](crate::consumer::Records) of an earlier poll return no more records of the
    /// partition. Records before the new position count as done.
    ///
    /// ```
    /// # use ottla::{Offset, Record, TopicPartition, testkit::{Cluster, Options}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # cluster.create_topic("orders", 1)?;
    /// # cluster.append("orders", 0, &[Record::to("orders").with_value("shipped")])?;
    /// # let orders = TopicPartition::new("orders", 0);
    /// # let consumer = cluster.consumer().build().await?;
    /// # consumer.assign([(orders.clone(), Offset::Beginning)])?;
    /// if let Some(record) = consumer.recv().await.transpose()? {
    ///     consumer.seek(&record.topic_partition(), record.offset)?; // the same record again
    /// }
    /// let again = consumer.recv().await.transpose()?;
    /// # assert!(again.is_some_and(|record| record.offset == 0));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `NotAssigned`; `InvalidArgument` for a negative offset; `Closed`.
    pub fn seek(&self, partition: &TopicPartition, offset: impl Into<Offset>) -> Result<()> {
        let offset = check_offset(partition, offset.into())?;
        self.check_open()?;
        self.shared.buffer.with_state_and_readers(|state| state.seek(partition, offset))
    }

    /// Reads these partitions from their first available records, like [`seek`](Self::seek), but
    /// the offset is looked up in the background. Until it is known, [`position`](Self::position)
    /// is `None`, and [`status`](Self::status) shows what prevents the look-up.
    ///
    /// ```
    /// # use ottla::{Offset, Record, TopicPartition, testkit::{Cluster, Options}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # cluster.create_topic("orders", 1)?;
    /// # cluster.append("orders", 0, &[Record::to("orders").with_value("shipped")])?;
    /// # let orders = TopicPartition::new("orders", 0);
    /// # let consumer = cluster.consumer().build().await?;
    /// # consumer.assign([(orders.clone(), Offset::Beginning)])?;
    /// # consumer.recv().await.transpose()?;
    /// consumer.seek_to_beginning(&consumer.assignment())?;
    /// let first = consumer.recv().await.transpose()?;
    /// # assert!(first.is_some_and(|record| record.offset == 0));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `NotAssigned`, and then none of them is sought; `Closed`.
    pub fn seek_to_beginning<'a>(&self, partitions: impl IntoIterator<Item = &'a TopicPartition>) -> Result<()> {
        self.seek_all(partitions, FetchState::AwaitReset(ResetTarget::Earliest))
    }

    /// Reads these partitions from their ends, so only records that are appended from now on. With
    /// `read_committed` the end is the last stable offset. Otherwise like
    /// [`seek_to_beginning`](Self::seek_to_beginning).
    ///
    /// # Errors
    /// Those of [`seek_to_beginning`](Self::seek_to_beginning).
    pub fn seek_to_end<'a>(&self, partitions: impl IntoIterator<Item = &'a TopicPartition>) -> Result<()> {
        self.seek_all(partitions, FetchState::AwaitReset(ResetTarget::Latest))
    }

    /// Reads these partitions from their first records with a timestamp at or after that time, or
    /// from the end if there are none. Otherwise like
    /// [`seek_to_beginning`](Self::seek_to_beginning).
    ///
    /// ```
    /// # use ottla::{Offset, Record, TopicPartition, testkit::{Cluster, Options}};
    /// use std::time::{Duration, SystemTime};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # cluster.create_topic("orders", 1)?;
    /// # cluster.append("orders", 0, &[Record::to("orders").with_value("shipped")])?;
    /// # let orders = TopicPartition::new("orders", 0);
    /// # let consumer = cluster.consumer().build().await?;
    /// # consumer.assign([(orders.clone(), Offset::Beginning)])?;
    /// let yesterday = SystemTime::now() - Duration::from_secs(24 * 60 * 60);
    /// consumer.seek_to_timestamp(&consumer.assignment(), yesterday)?;
    /// let first = consumer.recv().await.transpose()?;
    /// # assert!(first.is_some_and(|record| record.offset == 0));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`seek_to_beginning`](Self::seek_to_beginning).
    pub fn seek_to_timestamp<'a>(
        &self,
        partitions: impl IntoIterator<Item = &'a TopicPartition>,
        time: SystemTime,
    ) -> Result<()> {
        self.seek_all(partitions, FetchState::AwaitReset(ResetTarget::At(to_millis(time))))
    }

    fn seek_all<'a>(&self, partitions: impl IntoIterator<Item = &'a TopicPartition>, to: FetchState) -> Result<()> {
        self.check_open()?;
        let partitions: Vec<_> = partitions.into_iter().collect();
        self.shared.buffer.with_state_and_readers(|state| {
            partitions.iter().try_for_each(|partition| state.partitions.assigned(partition).map(drop))?;
            partitions.iter().try_for_each(|partition| state.reposition(partition, to))
        })
    }

    /// Skips damaged records after a `Corrupt` error, and returns the offset from which reading
    /// continues. The skipped records are lost to this consumer.
    ///
    /// One call suffices, whatever the damage. As a rule the length of the batch is in its header,
    /// or the next sound batch in the same response shows it. If neither helps (the broker itself
    /// cannot read the batch, or no sound batch follows in one response), the returned offset is a
    /// lower bound: the first readable offset is then searched for in the background, by fetches at
    /// offsets that are 1, 2, 4, … further on and then halve the rest, up to the log's end. If two
    /// damaged places are close to each other, such a search may skip the records between them.
    ///
    /// ```no_run
    /// # async fn example(consumer: ottla::Consumer) -> ottla::Result<()> {
    /// use ottla::{ErrorKind, TopicPartition};
    ///
    /// while let Some(next) = consumer.recv().await {
    ///     match next {
    ///         Ok(record) => println!("{}", record.offset),
    ///         Err(error) if error.kind() == ErrorKind::Corrupt => {
    ///             let Some(at) = error.location().cloned() else { return Err(error) };
    ///             let next = consumer.skip_corrupt(&TopicPartition::new(at.topic, at.partition))?;
    ///             eprintln!("skipped offsets {} to {next}: {error}", at.offset);
    ///         }
    ///         Err(error) => return Err(error),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `InvalidArgument` if the reader has not reached damaged records (or has sought since);
    /// `NotAssigned`; `Closed`.
    pub fn skip_corrupt(&self, partition: &TopicPartition) -> Result<i64> {
        self.check_open()?;
        self.shared.buffer.with_state_and_readers(|state| state.skip_corruption(partition))
    }

    /// Returns the number of offsets between the [`position`](Self::position) and the log's end
    /// (with `read_committed`, its last stable offset), as of the broker's last fetch response;
    /// `None` if either is not known yet. Costs no request.
    pub fn lag(&self, partition: &TopicPartition) -> Option<u64> {
        self.shared.buffer.with_state(|state| state.lag(partition))
    }

    /// Returns the offset of the next record that a partition delivers; `None` for a partition that
    /// is not assigned or has no known position yet.
    ///
    /// ```
    /// # use ottla::{Offset, Record, TopicPartition, testkit::{Cluster, Options}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # cluster.create_topic("orders", 1)?;
    /// # cluster.append("orders", 0, &[Record::to("orders").with_value("shipped")])?;
    /// # let orders = TopicPartition::new("orders", 0);
    /// # let consumer = cluster.consumer().build().await?;
    /// # consumer.assign([(orders.clone(), Offset::Beginning)])?;
    /// consumer.recv().await.transpose()?;
    /// println!("next: {:?}, to read: {:?}", consumer.position(&orders), consumer.lag(&orders));
    /// # assert_eq!(consumer.position(&orders), Some(1));
    /// # Ok(()) }
    /// ```
    pub fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.shared.buffer.with_state(|state| state.partitions.get(partition)?.next_offset())
    }

    /// Stops delivering records of these partitions until they are [resumed](Self::resume). They
    /// stay assigned. A partition that is revoked and assigned again is not paused.
    ///
    /// ```
    /// # use ottla::{Offset, Record, TopicPartition, testkit::{Cluster, Options}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # cluster.create_topic("orders", 1)?;
    /// # cluster.append("orders", 0, &[Record::to("orders").with_value("shipped")])?;
    /// # let orders = TopicPartition::new("orders", 0);
    /// # let consumer = cluster.consumer().build().await?;
    /// # consumer.assign([(orders.clone(), Offset::Beginning)])?;
    /// consumer.pause([&orders])?; // a sink is full
    /// assert_eq!(consumer.paused(), [orders.clone()]);
    /// consumer.resume([&orders])?;
    /// let record = consumer.recv().await.transpose()?;
    /// # assert!(record.is_some());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `NotAssigned`, and then none of them is paused; `Closed`.
    pub fn pause<'a>(&self, partitions: impl IntoIterator<Item = &'a TopicPartition>) -> Result<()> {
        self.set_paused(partitions, true)
    }

    /// Resumes paused partitions; does nothing for partitions that are not paused.
    ///
    /// # Errors
    /// `NotAssigned`, and then none of them is resumed; `Closed`.
    pub fn resume<'a>(&self, partitions: impl IntoIterator<Item = &'a TopicPartition>) -> Result<()> {
        self.set_paused(partitions, false)
    }

    fn set_paused<'a>(&self, partitions: impl IntoIterator<Item = &'a TopicPartition>, paused: bool) -> Result<()> {
        self.check_open()?;
        let partitions: Vec<_> = partitions.into_iter().collect();
        self.shared.buffer.with_state_and_readers(|state| {
            partitions.iter().try_for_each(|partition| state.partitions.assigned(partition).map(drop))?;
            partitions.iter().try_for_each(|partition| state.pause(partition, paused))
        })
    }

    /// Returns the paused partitions, sorted.
    pub fn paused(&self) -> Vec<TopicPartition> {
        self.shared.buffer.with_state(|state| state.partitions.names_where(|state| state.paused))
    }
}
