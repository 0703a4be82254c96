//! The consumer of an exactly-once worker.

use crate::consumer::{Consumer, IsolationLevel};
use crate::{
    error::{Error, ErrorKind, Result},
    record::Offset,
};

impl Consumer {
    /// Leaves the commits to transactions, and reads only committed records from now on. Records
    /// that were fetched before and not delivered are fetched again.
    ///
    /// # Errors
    /// `Configuration` without a `group.id`, and if `isolation.level=read_uncommitted` or
    /// `enable.auto.commit=true` was set explicitly. Then nothing is changed.
    pub(crate) fn commit_in_transactions(&self) -> Result<()> {
        let settings = &self.shared.settings;
        let refused = |message: &str| Err(Error::new(ErrorKind::Configuration, message));
        if self.shared.group.is_none() {
            return refused("an exactly-once worker commits the offsets of a group: set group.id of its consumer");
        }
        if settings.client.given.has("isolation.level") && settings.isolation_level == IsolationLevel::ReadUncommitted {
            return refused(
                "isolation.level=read_uncommitted does not fit an exactly-once worker, because it would handle records \
                 of aborted transactions: leave it out",
            );
        }
        if settings.client.given.has("enable.auto.commit") && settings.enable_auto_commit {
            return refused(
                "enable.auto.commit=true does not fit an exactly-once worker, which commits offsets in its \
                 transactions: leave it out",
            );
        }
        self.shared.commit_in_transactions();
        self.shared.buffer.with_state_and_readers(|state| {
            if self.shared.isolation.is_read_committed() {
                return Ok(());
            }
            self.shared.isolation.raise();
            let known = state.partitions.iter();
            let known: Vec<_> = known.filter_map(|(name, of)| Some((name.clone(), of.next_offset()?))).collect();
            known.iter().try_for_each(|(name, next)| state.seek(name, Offset::At(*next)))
        })
    }
}
