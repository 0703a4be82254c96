//! Tests of one partition between `send` and the sender.

use std::{sync::Arc, time::Instant};

use super::super::{
    accumulator::{Appended, Partition, SenderEvent},
    sizes::Sizes,
    topics::parts_of,
};
use crate::producer::partition_queue::PartitionQueue;
use crate::producer::{
    batch_shared::BatchShared,
    record_entry::{RecordEntry, RecordReservation},
};
use crate::{
    error::{Error, ErrorKind},
    record::Record,
    wire::batch::record_size_bound,
};

fn append(partition: &Partition, batch_shared: &Arc<BatchShared>) -> SenderEvent {
    let record = Record::to("t").with_value("x");
    let parts = parts_of(&record);
    let bound = record_size_bound(&parts) as u32;
    let entry = RecordEntry { parts, bound, timestamp: 0, sticky: None };
    match partition.lock_to_append().append(
        &entry,
        &mut RecordReservation::FromPool,
        Sizes::new(1000),
        batch_shared,
        Instant::now,
        |_, _| (),
    ) {
        Appended::Done { event, .. } => event,
        _ => panic!("there is room"),
    }
}

#[test]
fn append_after_failure_notifies_sender_again() {
    let batch_shared = Arc::new(BatchShared::new(1 << 20));
    let partition = Arc::new(Partition::new(0, "t".into(), 0, Arc::default()));
    let mut queue = PartitionQueue::new(partition.clone());
    assert!(matches!(append(&partition, &batch_shared), SenderEvent::BatchOpened(_)));
    queue.fail_all(&Error::new(ErrorKind::Closed, "the end"));
    // An append that had passed the check before the failure.
    assert!(matches!(append(&partition, &batch_shared), SenderEvent::BatchOpened(_)), "it would never get a result");
}
