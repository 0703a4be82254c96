//! One partition between `send` and the sender.

use std::{sync::Arc, time::Instant};

use super::super::{
    accumulator::{Appended, Entry, News, Partition, Payment},
    batch::Ledger,
    queue::PartitionQueue,
    sizes::Sizes,
    topics::parts_of,
};
use crate::{
    error::{Error, ErrorKind},
    record::Record,
    wire::batch::record_size_bound,
};

fn append(partition: &Partition, ledger: &Arc<Ledger>) -> News {
    let record = Record::to("t").value("x");
    let parts = parts_of(&record);
    let bound = record_size_bound(&parts) as u32;
    let entry = Entry { parts, bound, timestamp: 0, sticky: None };
    match partition.hold().append(&entry, &mut Payment::Due, Sizes::new(1000), ledger, Instant::now, |_, _| ()) {
        Appended::Done { news, .. } => news,
        _ => panic!("there is room"),
    }
}

#[test]
fn what_comes_in_after_everything_failed_is_told_of() {
    let ledger = Arc::new(Ledger::new(1 << 20));
    let partition = Arc::new(Partition::new(0, "t".into(), 0, Arc::default()));
    let mut queue = PartitionQueue::new(partition.clone());
    assert!(matches!(append(&partition, &ledger), News::Opened(_)));
    queue.fail_all(&Error::new(ErrorKind::Closed, "the end"));
    // A sender that was past the gate already.
    assert!(matches!(append(&partition, &ledger), News::Opened(_)), "it would never get a result");
}
