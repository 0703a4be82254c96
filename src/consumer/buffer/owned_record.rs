//! Records that own their fields.

use crate::{
    consumer::{buffer::fetched_batch::DecodedRecords, subscription::delivery_progress::DeliveryProgress},
    record::{ConsumerRecord, Header},
    wire::batch::RecordView,
};

/// Returns a record that shares the bytes of its batch.
pub(crate) fn owned_record(
    progress: &DeliveryProgress,
    batch: &DecodedRecords,
    view: &RecordView<'_>,
) -> ConsumerRecord {
    let partition = progress.partition();
    let header = &batch.records.header;
    let share = |bytes: &[u8]| batch.records.share(bytes);
    ConsumerRecord {
        topic: partition.topic.clone(),
        partition: partition.partition,
        offset: view.offset,
        leader_epoch: (header.partition_leader_epoch >= 0).then_some(header.partition_leader_epoch),
        timestamp_millis: view.timestamp,
        timestamp_type: header.timestamp_type(),
        key: view.key.map(share),
        value: view.value.map(share),
        headers: view
            .headers
            .map(|(name, value)| Header { name: String::from_utf8_lossy(name).into_owned(), value: value.map(share) })
            .collect(),
    }
}
