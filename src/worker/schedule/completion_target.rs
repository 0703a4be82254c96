//! The receiver of a partition's progress.
//!
//! Sans-IO.

/// Receives the progress of a partition, for its consumer.
pub(in crate::worker) trait CompletionTarget: Clone {
    /// Reports that all records before this offset are done.
    fn finish_to(&self, next: i64);
    /// Returns true if records under this mark are no longer wanted.
    fn is_over(&self) -> bool;
    /// Returns true if both stand for the same progress.
    fn is_same(&self, other: &Self) -> bool;
}
