//! Transactions: the coordinator as tests see and steer it, and transactions in a partition's log
//! that are written directly, without a request.

use std::time::Duration;

use super::{
    Cluster, batch,
    cluster::unknown_partition,
    shared::now,
    state::{
        markers::transition,
        producers::{Admission, Marker, Stamp},
        transaction_coordinator::TransactionView,
    },
};
use crate::{
    error::{Error, ErrorCode, ErrorKind, Result},
    record::Record,
    wire::{
        Compression,
        batch::{BatchHeader, ProducerStamp},
    },
};

impl Cluster {
    /// Appends records to a partition as one uncompressed batch of a producer's transaction, and
    /// returns the offset of the first. The batch continues the sequence and epoch that the
    /// partition knows of the producer. The producer's first batch begins the transaction, and
    /// readers of committed records do not read beyond it until [the transaction
    /// ends](Self::end_transaction).
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`, or `InvalidArgument` when there are no records or the producer id
    /// is negative.
    pub fn append_in_transaction(
        &self,
        topic: &str,
        partition: i32,
        producer_id: i64,
        records: &[Record<'_>],
    ) -> Result<i64> {
        let mut state = self.shared.lock();
        let millis = state.millis(now());
        let unknown = || unknown_partition(topic, partition);
        let found = state.topics.get_mut(topic).ok_or_else(unknown)?;
        let append_time = found.log_append_time().then_some(millis);
        let found = found.partition_mut(partition).ok_or_else(unknown)?;
        let (producer_epoch, base_sequence) = found.producers.next_of(producer_id);
        let stamp = ProducerStamp { producer_id, producer_epoch, base_sequence, transactional: true };
        let bytes = batch::build(records, Compression::None, millis, stamp)?;
        let header = BatchHeader::parse(&bytes)?;
        let stamp =
            Stamp { producer_id, epoch: producer_epoch, first_sequence: base_sequence, count: header.record_count };
        let admitted = found.producers.admit(&stamp, false);
        if producer_id < 0 || admitted != Ok(Admission::Append) {
            let message = format!("{topic}[{partition}]: producer {producer_id} cannot append: {admitted:?}");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let offset = found.log.append(&bytes, &header, found.leader_epoch, append_time)?;
        found.producers.appended(&stamp, offset, millis);
        drop(state);
        self.shared.ring();
        Ok(offset)
    }

    /// Appends the marker that ends that producer's transaction in a partition, and returns its
    /// offset. If no transaction is open the marker is written all the same, as by a coordinator
    /// that wrote it twice.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub fn end_transaction(&self, topic: &str, partition: i32, producer_id: i64, commit: bool) -> Result<i64> {
        let mut state = self.shared.lock();
        let millis = state.millis(now());
        let unknown = || unknown_partition(topic, partition);
        let found = state.topics.partition_mut(topic, partition).ok_or_else(unknown)?;
        let (epoch, _) = found.producers.next_of(producer_id);
        let marker = Marker { producer_id, epoch, coordinator_epoch: 0, committed: commit, raises_epoch: false };
        let offset = found.write_marker(&marker, millis)?;
        drop(state);
        self.shared.ring();
        Ok(offset)
    }

    /// Returns the partition's last stable offset: the first offset of its first open transaction,
    /// or its end.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`.
    pub fn last_stable_offset(&self, topic: &str, partition: i32) -> Result<i64> {
        self.look(topic, partition, |found| found.log.last_stable())
    }

    /// Returns the transaction of a transactional id as it is now; `None` if no producer has used
    /// the id.
    pub fn transaction(&self, transactional_id: &str) -> Option<TransactionView> {
        self.state().transactions.view(transactional_id)
    }

    /// Returns the offset that a transaction which has not ended has committed for a group and
    /// partition.
    pub fn pending_offset(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        let state = self.state();
        Some(state.groups.get(group)?.offsets.pending().of(topic, partition)?.offset)
    }

    /// Sets a finalized feature, as `kafka-features upgrade` and `downgrade` do; level 0 removes
    /// it. ApiVersions tells it to clients from now on, under a higher epoch of the features;
    /// connections stay open. The coordinator uses `transaction.version` for transactions that it
    /// ends on its own.
    pub fn set_feature(&self, name: &str, level: i16) {
        let mut state = self.state();
        match level {
            ..=0 => _ = state.options.features.remove(name),
            _ => _ = state.options.features.insert(name.to_owned(), level),
        }
        state.features_epoch += 1;
    }

    /// Sets the time between the end of a transaction at its coordinator and the writing of its
    /// markers, for transactions that end from now on
    /// ([`Options::marker_delay`](super::Options::marker_delay)).
    pub fn set_marker_delay(&self, delay: Duration) {
        self.state().options.marker_delay = delay;
    }

    /// Sets the epoch of a transactional id, which is created if necessary. The next
    /// InitProducerId gives out the epoch after it; from 32,766 on, the epochs are used up and the
    /// producer id changes.
    ///
    /// # Errors
    /// `Broker` with CONCURRENT_TRANSACTIONS while the id has a transaction.
    pub fn set_producer_epoch(&self, transactional_id: &str, epoch: i16) -> Result<()> {
        let set = |state: &mut super::state::State| {
            let set = transition(state, now(), |transactions, transition| {
                transactions.set_epoch(transactional_id, epoch, transition.new_producer_id)
            });
            if set { Ok(()) } else { Err(ErrorCode::CONCURRENT_TRANSACTIONS) }
        };
        self.change(set, || format!("set the epoch of {transactional_id}"))
    }
}
