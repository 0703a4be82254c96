//! The consumer's membership, for offsets that a transactional producer commits.

use crate::consumer::{Consumer, background::shared::Mode, lock::lock};
use crate::{
    error::{Error, ErrorKind, Result},
    record::GroupMetadata,
};

impl Consumer {
    /// Returns the consumer's membership, with which a transactional producer commits offsets as
    /// part of a transaction (KIP-447): the group, the member with its generation or member epoch,
    /// and the partitions that it owns.
    ///
    /// Ask for it once in each transaction, before the transaction's first record is read, or at
    /// the latest before the work on the records begins. If the group gives their partitions to
    /// another member after that, the offsets are refused, and the transaction has to be aborted.
    /// Metadata that is asked for after the work would name the new generation, in which the
    /// records may be those of another member.
    ///
    /// A consumer that [assigns](Self::assign) its partitions itself is no member: its metadata has
    /// generation -1 and no member id, and the group coordinator does not detect that another
    /// consumer commits the same partitions.
    ///
    /// The consumer must not commit by itself: `enable.auto.commit` has to be `false`, because a
    /// commit outside of the transaction would count the records of an aborted transaction as done.
    /// For the same reason, do not [commit](Self::commit) offsets that are sent with transactions.
    ///
    /// ```
    /// # use ottla::{Record, consumer::OffsetReset, testkit::{Cluster, Options}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # cluster.create_topic("orders", 1)?;
    /// # cluster.append("orders", 0, &[Record::to("orders").with_value("shipped")])?;
    /// # let consumer = cluster.consumer().group("billing");
    /// # let consumer = consumer.auto_offset_reset(OffsetReset::Earliest);
    /// use std::time::Duration;
    ///
    /// let consumer = consumer.auto_commit(false).build().await?;
    /// consumer.subscribe(["orders"])?;
    /// let records = consumer.poll(Duration::from_secs(10)).await?;
    /// let group = consumer.group_metadata()?;
    /// println!("member {} in generation {}", group.member_id(), group.generation());
    /// // … begin a transaction, send the results of `records`, and the offsets with `group` …
    /// # assert_eq!((records.len(), group.group_id(), group.generation()), (1, "billing", 1));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// - `InvalidArgument` without a `group.id`.
    /// - `Configuration` with `enable.auto.commit`.
    /// - `NotAssigned` while the consumer reads no partitions. If it is
    ///   [retriable](Error::is_retriable), the consumer has not joined the group yet, or not again:
    ///   ask again when it has records to read. Kafka's Java client returns generation -1 then, and
    ///   brokers accept it even if other members have the partitions by now.
    /// - `Closed`; the error by which the membership has ended.
    pub fn group_metadata(&self) -> Result<GroupMetadata> {
        let group = self.shared.group("commit offsets in transactions")?;
        self.check_open()?;
        if self.shared.auto_commits() {
            return Err(Error::new(
                ErrorKind::Configuration,
                "offsets cannot be committed in transactions and automatically: set enable.auto.commit to false",
            ));
        }
        let mode = *lock(&self.shared.mode);
        match mode {
            Mode::Subscribed => group.member_metadata(),
            Mode::Assigned => Ok(group.metadata()),
            Mode::None => Err(Error::new(
                ErrorKind::NotAssigned,
                "the consumer reads no partitions, so there are no offsets to commit: subscribe or assign first",
            )),
        }
    }
}
