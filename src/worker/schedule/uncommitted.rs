//! The part of one partition in the open transaction.
//!
//! Sans-IO.

use super::completion_target::CompletionTarget;

/// Records of a partition that were begun since the last commit.
#[derive(Debug)]
pub(super) struct Uncommitted<M> {
    /// The mark of all of its records.
    mark: M,
    /// Offset of the first record that was not committed before.
    start: i64,
    /// Slot after the last record that was begun.
    end: u64,
    /// Offset after the last record that is done together with all records before it.
    next: Option<i64>,
    /// True if records of another positioning were begun: the partition was sought meanwhile, so
    /// that no one offset stands for the records.
    is_mixed: bool,
}

impl<M: CompletionTarget> Uncommitted<M> {
    pub(super) fn new(mark: M, start: i64, end: u64) -> Self {
        Self { mark, start, end, next: None, is_mixed: false }
    }

    /// Adds records under that mark, up to that slot.
    pub(super) fn add(&mut self, mark: &M, end: u64) {
        self.is_mixed |= !self.mark.is_same(mark);
        self.end = self.end.max(end);
    }

    /// Completes the records before that offset.
    pub(super) fn complete(&mut self, mark: &M, next: i64) {
        if self.mark.is_same(mark) {
            self.next = Some(next);
        }
    }

    pub(super) fn start(&self) -> i64 {
        self.start
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Returns true if its records are still wanted from where they were read: the partition is
    /// owned, and was not sought.
    pub(super) fn is_whole(&self) -> bool {
        !self.is_mixed && !self.mark.is_over()
    }

    /// Returns the mark, and the offset to commit.
    pub(super) fn to_commit(&self) -> Option<(&M, i64)> {
        Some((&self.mark, self.next?))
    }

    /// Reports the committed offset to the consumer, and returns it.
    pub(super) fn commit(self) -> Option<i64> {
        let next = self.next?;
        self.mark.finish_to(next);
        Some(next)
    }
}
