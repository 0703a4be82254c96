//! Where a consumer reads from, as its user sees it and changes it.

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
    /// Reads a partition from that place on. What was read ahead is dropped, and what a poll's
    /// [`Records`](crate::consumer::Records) still hold of it is not given any more. What lies before the new
    /// place counts as done.
    ///
    /// # Errors
    /// `NotAssigned`; `InvalidArgument` for a negative offset; `Closed`.
    pub fn seek(&self, partition: &TopicPartition, offset: impl Into<Offset>) -> Result<()> {
        let offset = check_offset(partition, offset.into())?;
        self.check_open()?;
        self.shared.buffer.with_state_and_readers(|assignment| assignment.seek(partition, offset))
    }

    /// Reads these partitions from their first records on that are still there, as
    /// [`seek`](Self::seek) does. The offset is asked for in the background; until it is known,
    /// [`position`](Self::position) is `None`, and [`status`](Self::status) says what is in the
    /// way.
    ///
    /// # Errors
    /// `NotAssigned`, and then none of them is sought; `Closed`.
    pub fn seek_to_beginning<'a>(&self, partitions: impl IntoIterator<Item = &'a TopicPartition>) -> Result<()> {
        self.seek_all(partitions, FetchState::AwaitReset(ResetTarget::Earliest))
    }

    /// Reads these partitions from their ends on: only what is appended from now on. With
    /// `read_committed` that is from the last stable offset on. The rest as
    /// [`seek_to_beginning`](Self::seek_to_beginning).
    ///
    /// # Errors
    /// As [`seek_to_beginning`](Self::seek_to_beginning).
    pub fn seek_to_end<'a>(&self, partitions: impl IntoIterator<Item = &'a TopicPartition>) -> Result<()> {
        self.seek_all(partitions, FetchState::AwaitReset(ResetTarget::Latest))
    }

    /// Reads these partitions from their first records on whose timestamps are at or after that
    /// time, or from the end where there is none. The rest as
    /// [`seek_to_beginning`](Self::seek_to_beginning).
    ///
    /// # Errors
    /// As [`seek_to_beginning`](Self::seek_to_beginning).
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
        self.shared.buffer.with_state_and_readers(|assignment| {
            partitions.iter().try_for_each(|partition| assignment.get(partition).map(drop))?;
            partitions.iter().for_each(|partition| assignment.reposition(partition, to, true));
            Ok(())
        })
    }

    /// After a `Corrupt` error: goes on behind what cannot be read, and says from which offset. The
    /// records there are given up.
    ///
    /// One call gets past it, whatever is damaged. As a rule the batch says how far it reaches, or
    /// the next sound batch that came with it does. Where neither helps (the broker itself cannot
    /// read it, or nothing sound follows in one answer), what this gives is the least: the first
    /// offset that can be read is then searched for in the background, by fetches at offsets that
    /// are 1, 2, 4, … further on and then halve the rest, up to the log's end. Of two damages close
    /// to each other such a search may leave out what lies between them.
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
    /// `InvalidArgument` where the reader has not come to damage (or has sought since);
    /// `NotAssigned`; `Closed`.
    pub fn skip_corrupt(&self, partition: &TopicPartition) -> Result<i64> {
        self.check_open()?;
        self.shared.buffer.with_state_and_readers(|assignment| assignment.skip_corruption(partition))
    }

    /// How many offsets lie between the [`position`](Self::position) and the log's end (with
    /// `read_committed`, its last stable offset), as the broker said it with the last fetch; `None`
    /// where either is not known yet. Costs no request.
    pub fn lag(&self, partition: &TopicPartition) -> Option<u64> {
        self.shared.buffer.with_state(|assignment| assignment.lag(partition))
    }

    /// The offset of the next record of a partition that will be handed out; `None` for a partition
    /// that is not assigned or whose position is not known yet.
    pub fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.shared.buffer.with_state(|assignment| assignment.position(partition)).ok().flatten()
    }

    /// Hands out no more records of these partitions until they are [resumed](Self::resume). They
    /// stay assigned. A partition that is given up and comes back is not paused.
    ///
    /// # Errors
    /// `NotAssigned`, and then none of them is paused; `Closed`.
    pub fn pause<'a>(&self, partitions: impl IntoIterator<Item = &'a TopicPartition>) -> Result<()> {
        self.set_paused(partitions, true)
    }

    /// Goes on with paused partitions; nothing happens to others.
    ///
    /// # Errors
    /// `NotAssigned`, and then none of them is resumed; `Closed`.
    pub fn resume<'a>(&self, partitions: impl IntoIterator<Item = &'a TopicPartition>) -> Result<()> {
        self.set_paused(partitions, false)
    }

    fn set_paused<'a>(&self, partitions: impl IntoIterator<Item = &'a TopicPartition>, paused: bool) -> Result<()> {
        self.check_open()?;
        let partitions: Vec<_> = partitions.into_iter().collect();
        self.shared.buffer.with_state_and_readers(|assignment| {
            partitions.iter().try_for_each(|partition| assignment.get(partition).map(drop))?;
            partitions.iter().try_for_each(|partition| assignment.pause(partition, paused))
        })
    }

    /// The partitions that are paused, sorted.
    pub fn paused(&self) -> Vec<TopicPartition> {
        self.shared.buffer.with_state(|assignment| assignment.paused())
    }
}
