//! The records of a partition whose handler failed, and that come again in another transaction.
//!
//! Sans-IO.

use std::collections::BTreeMap;

use crate::error::Error;

/// What is done with failed records when they come again.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    /// The handler is called again.
    Retry,
    /// They are sent to the dead letter topic, because of this error.
    DeadLetter(Error),
    /// They count as done.
    Skip,
}

/// Records that failed together: one record, or a batch.
#[derive(Clone, Debug)]
pub(crate) struct FailedRange {
    /// Offset after the last one.
    pub(crate) end: i64,
    /// Number of handler calls so far.
    pub(crate) attempts: u32,
    /// Number of failed deliveries to the dead letter topic.
    pub(crate) undelivered: u32,
    pub(crate) fate: Fate,
}

/// Failed records by the offset of their first one. Ranges do not overlap.
#[derive(Debug, Default)]
pub(crate) struct FailedRecords(BTreeMap<i64, FailedRange>);

impl FailedRecords {
    /// Notes a failure of the records from `first` on. It replaces the one that is known of the
    /// same records.
    pub(crate) fn note(&mut self, first: i64, failed: FailedRange) {
        self.0.retain(|begin, known| known.end <= first || failed.end <= *begin);
        self.0.insert(first, failed);
    }

    /// Returns the failure of the record at that offset.
    pub(crate) fn at(&self, offset: i64) -> Option<&FailedRange> {
        let (_, failed) = self.0.range(..=offset).next_back()?;
        (offset < failed.end).then_some(failed)
    }

    /// Returns the offset before which a batch that begins at `first` has to end, so that all of
    /// its records have the same history.
    pub(crate) fn batch_end(&self, first: i64) -> i64 {
        match self.at(first) {
            Some(failed) => failed.end,
            None => self.0.range(first..).next().map_or(i64::MAX, |(begin, _)| *begin),
        }
    }

    /// Forgets failures of records before that offset, which are committed.
    pub(crate) fn forget_before(&mut self, offset: i64) {
        self.0.retain(|_, failed| failed.end > offset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(end: i64, attempts: u32) -> FailedRange {
        FailedRange { end, attempts, undelivered: 0, fate: Fate::Retry }
    }

    #[test]
    fn finds_failure_of_each_record_in_range() {
        let mut records = FailedRecords::default();
        records.note(5, failed(8, 1));
        let attempts = |records: &FailedRecords, offset| records.at(offset).map(|failed| failed.attempts);
        assert_eq!([4, 5, 7, 8].map(|offset| attempts(&records, offset)), [None, Some(1), Some(1), None]);
        records.note(5, failed(7, 2));
        assert_eq!([5, 6, 7].map(|offset| attempts(&records, offset)), [Some(2), Some(2), None]);
        records.forget_before(6);
        assert_eq!(attempts(&records, 6), Some(2), "its last record is not committed");
        records.forget_before(7);
        assert_eq!(attempts(&records, 6), None);
    }

    #[test]
    fn batch_ends_before_records_with_other_history() {
        let mut records = FailedRecords::default();
        assert_eq!(records.batch_end(0), i64::MAX);
        records.note(5, failed(8, 1));
        assert_eq!([0, 5, 6, 8].map(|first| records.batch_end(first)), [5, 8, 8, i64::MAX]);
        records.note(6, failed(9, 1));
        assert!(records.at(5).is_none(), "ranges do not overlap");
    }
}
