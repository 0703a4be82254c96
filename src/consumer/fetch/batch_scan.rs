//! Scans one partition's slice of a fetch response, by the headers of its batches alone: which
//! batches are delivered, and the offset at which reading continues. Only transaction markers are
//! decompressed or copied.
//!
//! Sans-IO.

use std::collections::HashMap;

use bytes::Bytes;

use crate::consumer::config::settings::IsolationLevel;
use crate::{
    error::{Error, ErrorKind, Result},
    wire::batch::{Batches, ControlRecord, Decompressor, RawBatch},
};

/// Largest control batch that is read, in bytes; real markers have a dozen bytes.
const MARKER_LIMIT: usize = 64 * 1024;

/// One step of the scan, in log order.
#[derive(Debug)]
pub(crate) enum ScannedEntry {
    /// A batch to deliver.
    Batch(RawBatch),
    /// The offsets before this one are skipped: control batches, aborted records, batches that
    /// compaction emptied.
    Skip(i64),
    /// The slice cannot be read from here on; always the last step. `end` is the first offset after
    /// the unreadable part, if it is known.
    Corrupt { error: Error, end: Option<i64> },
}

/// Result of scanning a whole slice.
#[derive(Debug, Default)]
pub(crate) struct ScannedSlice {
    pub(crate) entries: Vec<ScannedEntry>,
    /// Offset at which reading continues; `None` if there was no whole batch.
    pub(crate) next_offset: Option<i64>,
    /// Leader epochs with the offset from which each applies, −1 if it is not known. Epochs of
    /// control batches and of skipped batches are included. Grows by one for each election.
    pub(crate) epochs: Vec<(i64, i32)>,
    /// The slice holds only the beginning of one batch, so the next fetch has to ask for more
    /// bytes.
    pub(crate) too_small: bool,
    /// If `too_small`: the first offset of a sound batch that lies inside the first batch's
    /// announced length, which shows that this length is wrong.
    pub(crate) resync_offset: Option<i64>,
    /// Size of the largest batch, in bytes.
    pub(crate) largest_batch: usize,
    /// Size of the slice in bytes, including the beginning of a batch that it cuts off.
    pub(crate) bytes: usize,
}

/// Scans a slice. `aborted` holds the aborted transactions that the broker lists for it, by
/// producer id and first offset, in any order.
pub(crate) fn scan_batches(records: Bytes, isolation: IsolationLevel, aborted: &[(i64, i64)]) -> ScannedSlice {
    let mut scan = ScannedSlice { bytes: records.len(), ..ScannedSlice::default() };
    let mut transactions = AbortedTransactions::new(aborted);
    let mut batches = Batches::new(records);
    while let Some(batch) = batches.next() {
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => {
                let end = batches.next_sound(scan.next_offset.map_or(0, |next| next.saturating_add(1)));
                scan.entries.push(ScannedEntry::Corrupt { error, end });
                return scan;
            }
        };
        let next = batch.header.next_offset();
        let wanted = match isolation {
            IsolationLevel::ReadUncommitted => Ok(!batch.header.is_control()),
            IsolationLevel::ReadCommitted => transactions.is_wanted(&batch),
        };
        let wanted = match wanted {
            Ok(wanted) => wanted,
            Err(error) => {
                scan.entries.push(ScannedEntry::Corrupt { error, end: Some(next) });
                return scan;
            }
        };
        let epoch = batch.header.partition_leader_epoch;
        if scan.epochs.last().is_none_or(|(_, last)| *last != epoch) {
            scan.epochs.push((batch.header.base_offset.max(scan.next_offset.unwrap_or(0)), epoch));
        }
        // A batch with lower offsets is an older part of the log: reading continues after the
        // highest offset seen.
        let next = scan.next_offset.map_or(next, |before| before.max(next));
        scan.next_offset = Some(next);
        scan.largest_batch = scan.largest_batch.max(batch.bytes().len());
        // The wrapper of an old message set does not say how many records it holds; a v2 batch
        // does, and may be empty.
        let empty = batch.header.magic == 2 && batch.header.record_count == 0;
        if wanted && !empty {
            scan.entries.push(ScannedEntry::Batch(batch));
        } else if let Some(ScannedEntry::Skip(to)) = scan.entries.last_mut() {
            *to = next;
        } else {
            scan.entries.push(ScannedEntry::Skip(next));
        }
    }
    scan.too_small = scan.next_offset.is_none() && batches.remaining() > 0;
    scan.resync_offset = if scan.too_small { batches.next_sound(0) } else { None };
    scan
}

/// Producers with an open transaction that is known to be aborted, at the scan's current offset
/// (KIP-98).
#[derive(Debug)]
struct AbortedTransactions {
    /// Transactions that begin at a later offset, the nearest last.
    ahead: Vec<(i64, i64)>,
    /// Producer ids, each with the first offset of its records that were left out.
    open: HashMap<i64, Option<i64>>,
}

impl AbortedTransactions {
    fn new(aborted: &[(i64, i64)]) -> Self {
        let mut ahead = aborted.to_vec();
        ahead.sort_unstable_by_key(|&(_, first_offset)| std::cmp::Reverse(first_offset));
        Self { ahead, open: HashMap::new() }
    }

    /// Advances to this batch and returns true if its records are delivered.
    fn is_wanted(&mut self, batch: &RawBatch) -> Result<bool> {
        let header = &batch.header;
        while let Some((producer_id, _)) = self.ahead.pop_if(|(_, first)| *first <= header.last_offset()) {
            self.open.entry(producer_id).or_default();
        }
        // Without an aborted transaction of this producer no marker changes the result.
        let Some(left_out) = self.open.get_mut(&header.producer_id) else { return Ok(!header.is_control()) };
        if header.is_control() {
            let end = ending(batch)?;
            let left_out = *left_out;
            if end.is_some() {
                self.open.remove(&header.producer_id);
            }
            // The abort marker is missing, or the broker's list is wrong: it is not known which of
            // the records left out were committed.
            if let (Some(ControlRecord::Commit { .. }), Some(first)) = (end, left_out) {
                let message = format!(
                    "the broker lists the transaction of producer {} with offset {first} as aborted, but the log \
                     commits it at offset {}",
                    header.producer_id, header.base_offset
                );
                return Err(Error::new(ErrorKind::Corrupt, message));
            }
            return Ok(false);
        }
        if header.is_transactional() {
            left_out.get_or_insert(header.base_offset);
        }
        Ok(!header.is_transactional())
    }
}

/// Returns how a control batch ends a transaction, or `None` if it does not end one.
fn ending(batch: &RawBatch) -> Result<Option<ControlRecord>> {
    batch.check_crc()?;
    let records = batch.records(&mut Decompressor::default(), MARKER_LIMIT)?;
    let Some(record) = records.iter().next() else { return Ok(None) };
    let record = ControlRecord::parse(&record?)?;
    Ok((!matches!(record, ControlRecord::Other(_))).then_some(record))
}

#[cfg(test)]
mod tests {
    use crate::consumer::fetch::batch_scan::*;
    use crate::{
        consumer::test_batches::{Sort, batch, marker},
        wire::batch::BatchHeader,
    };

    fn shown(scan: &ScannedSlice) -> String {
        let steps: Vec<_> = scan
            .entries
            .iter()
            .map(|step| match step {
                ScannedEntry::Batch(batch) => batch.header.base_offset.to_string(),
                ScannedEntry::Skip(to) => format!(">{to}"),
                ScannedEntry::Corrupt { end: Some(end), .. } => format!("!{end}"),
                ScannedEntry::Corrupt { end: None, .. } => "!".to_owned(),
            })
            .collect();
        format!("{} next {:?}", steps.join(" "), scan.next_offset)
    }

    fn read(parts: &[Bytes], isolation: IsolationLevel, aborted: &[(i64, i64)]) -> String {
        shown(&scan_batches(parts.concat().into(), isolation, aborted))
    }

    /// Offsets 0–1 of producer 7, aborted at 5; 2 without a transaction; 3–4 of producer 9,
    /// committed at 6; then producer 7 again at 7, committed at 8.
    fn log() -> Vec<Bytes> {
        vec![
            batch(0, 2, Sort::Transaction(7)),
            batch(2, 1, Sort::Plain),
            batch(3, 2, Sort::Transaction(9)),
            marker(5, 7, false),
            marker(6, 9, true),
            batch(7, 1, Sort::Transaction(7)),
            marker(8, 7, true),
        ]
    }

    #[test]
    fn read_uncommitted_skips_only_markers() {
        assert_eq!(read(&log(), IsolationLevel::ReadUncommitted, &[(7, 0)]), "0 2 3 >7 7 >9 next Some(9)");
    }

    #[test]
    fn read_committed_skips_aborted_until_marker() {
        assert_eq!(read(&log(), IsolationLevel::ReadCommitted, &[(7, 0)]), ">2 2 3 >7 7 >9 next Some(9)");
        assert_eq!(read(&log(), IsolationLevel::ReadCommitted, &[]), "0 2 3 >7 7 >9 next Some(9)");
    }

    #[test]
    fn aborted_list_may_be_unordered() {
        let log = [
            batch(0, 1, Sort::Transaction(1)),
            batch(1, 1, Sort::Transaction(2)),
            marker(2, 1, false),
            marker(3, 2, false),
            batch(4, 1, Sort::Transaction(1)),
            marker(5, 1, false),
            batch(6, 1, Sort::Plain),
        ];
        for aborted in [[(1, 0), (2, 1), (1, 4)], [(1, 4), (2, 1), (1, 0)], [(2, 1), (1, 4), (1, 0)]] {
            assert_eq!(read(&log, IsolationLevel::ReadCommitted, &aborted), ">6 6 next Some(7)");
        }
    }

    #[test]
    fn aborted_list_may_have_duplicates_and_extras() {
        let log = log();
        assert_eq!(
            read(&log, IsolationLevel::ReadCommitted, &[(7, 0), (7, 0), (99, 0), (5, 400)]),
            ">2 2 3 >7 7 >9 next Some(9)"
        );
        // A transaction that began before the slice and ended in it.
        assert_eq!(read(&log[3..], IsolationLevel::ReadCommitted, &[(7, 0)]), ">7 7 >9 next Some(9)");
    }

    #[test]
    fn missing_marker_extends_abort_or_is_error() {
        let mut log = log();
        log.remove(3);
        assert_eq!(read(&log, IsolationLevel::ReadCommitted, &[(7, 0)]), ">2 2 3 >8 !9 next Some(8)");
        let Some(ScannedEntry::Corrupt { error, .. }) =
            scan_batches(log.concat().into(), IsolationLevel::ReadCommitted, &[(7, 0)]).entries.pop()
        else {
            panic!()
        };
        assert!(
            error.to_string().contains("producer 7 with offset 0") && error.to_string().contains("offset 8"),
            "{error}"
        );
        *log.last_mut().unwrap() = marker(8, 7, false);
        assert_eq!(read(&log, IsolationLevel::ReadCommitted, &[(7, 0), (7, 7)]), ">2 2 3 >9 next Some(9)");
        // If no record was left out, the commit marker contradicts nothing.
        assert_eq!(
            read(&[marker(5, 7, true), batch(6, 1, Sort::Transaction(7))], IsolationLevel::ReadCommitted, &[(7, 0)]),
            ">6 6 next Some(7)"
        );
    }

    #[test]
    fn truncated_first_batch_asks_for_more_bytes() {
        let whole = batch(3, 2, Sort::Plain);
        let cut = [batch(0, 3, Sort::Plain), whole.slice(..whole.len() - 1)];
        assert_eq!(read(&cut, IsolationLevel::ReadUncommitted, &[]), "0 next Some(3)");
        let first = scan_batches(whole.slice(..whole.len() - 1), IsolationLevel::ReadUncommitted, &[]);
        assert!(first.too_small && first.entries.is_empty() && first.next_offset.is_none());
        assert!(!scan_batches(Bytes::new(), IsolationLevel::ReadUncommitted, &[]).too_small);
    }

    #[test]
    fn scan_stops_before_damaged_batch() {
        let mut bad = batch(3, 1, Sort::Plain).to_vec();
        bad[16] = 9;
        let read = read(&[batch(0, 3, Sort::Plain), bad.into()], IsolationLevel::ReadUncommitted, &[]);
        assert_eq!(read, "0 ! next Some(3)");
    }

    #[test]
    fn sound_batch_after_damage_reveals_its_end() {
        let mut bad = batch(3, 4, Sort::Plain).to_vec();
        bad[16] = 9;
        let parts = [batch(0, 3, Sort::Plain), bad.clone().into(), batch(7, 1, Sort::Plain)];
        assert_eq!(read(&parts, IsolationLevel::ReadUncommitted, &[]), "0 !7 next Some(3)");
        bad[16] = 2;
        bad[8..12].copy_from_slice(&i32::MAX.to_be_bytes());
        let parts: [Bytes; 2] = [bad.into(), batch(7, 1, Sort::Plain)];
        let cut = scan_batches(parts.concat().into(), IsolationLevel::ReadUncommitted, &[]);
        assert_eq!((cut.too_small, cut.resync_offset), (true, Some(7)));
    }

    #[test]
    fn skips_batches_emptied_by_compaction() {
        let mut emptied = batch(3, 4, Sort::Plain)[..61].to_vec();
        emptied[8..12].copy_from_slice(&49i32.to_be_bytes());
        emptied[57..61].copy_from_slice(&0i32.to_be_bytes());
        assert!(BatchHeader::parse(&emptied).is_ok());
        let read = read(&[batch(0, 3, Sort::Plain), emptied.into()], IsolationLevel::ReadUncommitted, &[]);
        assert_eq!(read, "0 >7 next Some(7)");
    }
}
