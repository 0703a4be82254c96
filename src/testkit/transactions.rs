//! Transactions in a partition's log, written directly, without a request.

use super::{
    Cluster, batch,
    cluster::unknown_partition,
    shared::now,
    state::producers::{Admission, Stamp},
};
use crate::{
    error::{Error, ErrorKind, Result},
    record::Record,
    wire::{
        Compression,
        batch::{BatchHeader, ControlRecord, ProducerStamp, marker_batch},
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
        let (producer_epoch, _) = found.producers.next_of(producer_id);
        let coordinator_epoch = 0;
        let marker = match commit {
            true => ControlRecord::Commit { coordinator_epoch },
            false => ControlRecord::Abort { coordinator_epoch },
        };
        found
            .producers
            .admit_marker(producer_id, producer_epoch, coordinator_epoch)
            .map_err(|code| Error::broker(code, format_args!("end a transaction in {topic}[{partition}]")))?;
        let stamp = ProducerStamp { producer_id, producer_epoch, base_sequence: -1, transactional: true };
        let bytes = marker_batch(marker, 0, found.leader_epoch, stamp, millis)?;
        let header = BatchHeader::parse(&bytes)?;
        let offset = found.log.append(&bytes, &header, found.leader_epoch, None)?;
        found.producers.marked(producer_id, producer_epoch, coordinator_epoch);
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
}
