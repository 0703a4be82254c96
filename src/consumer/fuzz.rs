//! The decoders of this room, for the fuzzer.

use std::sync::Arc;

use bytes::Bytes;

use super::test_batches::{Sort, batch, marker};
use crate::consumer::{
    buffer::fetched_batch::{DecodeConfig, EncodedRecords, FetchedBatch},
    config::settings::IsolationLevel,
    fetch::{
        batch_scan::{ScannedEntry, scan_batches as walked},
        memory_budget::MemoryBudget,
    },
    group::classic::member_metadata::{MemberSubscription, decode_assignment, encode_assignment},
    subscription::delivery_progress::DeliveryProgress,
};
use crate::{record::TopicPartition, wire::batch::Decompressor};

/// One partition's slice of a fetch as its reader meets it: walked, and every batch opened. The
/// first byte says how many aborted transactions stand before it, and whether the reader wants to
/// know.
pub(crate) fn walk(input: &[u8]) {
    let Some((first, mut rest)) = input.split_first() else { return };
    let isolation = if first & 1 == 0 { IsolationLevel::ReadUncommitted } else { IsolationLevel::ReadCommitted };
    let mut aborted = Vec::new();
    for _ in 0..(first >> 1) % 8 {
        let Some(([producer, offset], behind)) = rest.split_first_chunk() else { break };
        aborted.push((i64::from(*producer), i64::from(*offset)));
        rest = behind;
    }
    let scan = walked(Bytes::copy_from_slice(rest), isolation, &aborted);
    assert!(!scan.too_small || scan.entries.is_empty());
    let quota = MemoryBudget::new(1 << 20).quota(1, || Box::new(|| ()));
    let mut decompressor = Decompressor::default();
    let decode_config = DecodeConfig { check_crcs: false, limit: 1 << 20, origin: crate::log::Origin::default() };
    let mut before = i64::MIN;
    for step in &scan.entries {
        match step {
            ScannedEntry::Batch(batch) => {
                let end = batch.header.next_offset();
                let reservation = Arc::new(quota.charge(batch.bytes().len()));
                let fetched = FetchedBatch {
                    progress: Arc::new(DeliveryProgress::new(TopicPartition::new("t", 0), 1, 5, 5, -1)),
                    start: 0,
                    end,
                    bytes: batch.bytes().len(),
                    content: EncodedRecords { batch: batch.clone(), reservation },
                };
                if let Ok(Some(decoded)) = fetched.decode_unguarded(&mut decompressor, &decode_config) {
                    assert!(decoded.left > 0);
                    for record in decoded.iter().map_while(Result::ok) {
                        assert!(record.offset >= 5 || record.offset < end);
                    }
                }
            }
            ScannedEntry::Skip(to) => {
                assert!(*to >= before);
                before = *to;
            }
            ScannedEntry::Corrupt { .. } => {}
        }
    }
    drop(scan);
    assert_eq!(quota.used(), 0);
}

pub(crate) fn walk_seeds() -> Vec<Vec<u8>> {
    let log = [
        batch(0, 2, Sort::Transaction(7)),
        batch(2, 1, Sort::Plain),
        batch(3, 2, Sort::Transaction(9)),
        marker(5, 7, false),
        marker(6, 9, true),
    ]
    .concat();
    vec![[&[0][..], &log].concat(), [&[3, 7, 0][..], &log].concat(), [&[5, 7, 0, 9, 3][..], &log].concat()]
}

/// Decodes the subscription and the assignment that members of a group write for each other.
pub(crate) fn group(input: &[u8]) {
    let (mut subscription, _) = MemberSubscription::read(input);
    if let Ok(bytes) = subscription.encode() {
        // What was understood is written as it was understood.
        let (mut again, trouble) = MemberSubscription::read(&bytes);
        assert!(trouble.is_none());
        again.owned.sort();
        subscription.owned.sort();
        assert_eq!(again, subscription);
    }
    if let Ok(partitions) = decode_assignment(input)
        && let Ok(bytes) = encode_assignment(&partitions)
    {
        let mut again = decode_assignment(&bytes).unwrap_or_default();
        let mut partitions = partitions;
        again.sort();
        partitions.sort();
        assert_eq!(again, partitions);
    }
}

pub(crate) fn group_seeds() -> Vec<Vec<u8>> {
    let subscription = MemberSubscription {
        topics: vec!["t1".into(), "t2".into()],
        user_data: Some(Bytes::from_static(b"data")),
        owned: vec![TopicPartition::new("t1", 0), TopicPartition::new("t2", 3)],
        generation: 5,
        rack: Some("r1".to_owned()),
    };
    let assigned = [TopicPartition::new("t1", 0), TopicPartition::new("t1", 1), TopicPartition::new("t2", 0)];
    [subscription.encode(), encode_assignment(&assigned)]
        .into_iter()
        .filter_map(Result::ok)
        .map(|b| b.to_vec())
        .collect()
}
