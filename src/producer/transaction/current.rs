//! The state of the transaction that runs.
//!
//! Sans-IO.

use std::time::Instant;

use super::{offsets::Offsets, outcome::Outcome, partitions::Partitions, protocol::Protocol, request::CallId};

/// The transaction that runs. Each begins with a new value, so that nothing of an older one is
/// left.
#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) number: u64,
    /// Fixed at its begin.
    pub(crate) protocol: Protocol,
    pub(crate) began: Instant,
    pub(crate) is_overdue: bool,
    /// True if the coordinator may know the transaction, so that it has to be ended there.
    pub(crate) is_started: bool,
    /// True once no record is without a result.
    pub(crate) is_idle: bool,
    /// True if the coordinator refused to commit: the abort that follows may find it ended.
    pub(crate) is_commit_refused: bool,
    /// Set as soon as it is decided; the abort may still run.
    pub(crate) outcome: Option<Outcome>,
    pub(crate) commit_call: Option<CallId>,
    pub(crate) abort_call: Option<CallId>,
    pub(crate) partitions: Partitions,
    pub(crate) offsets: Offsets,
}

impl Transaction {
    pub(crate) fn new(number: u64, protocol: Protocol, began: Instant) -> Self {
        Self {
            number,
            protocol,
            began,
            is_overdue: false,
            is_started: false,
            is_idle: false,
            is_commit_refused: false,
            outcome: None,
            commit_call: None,
            abort_call: None,
            partitions: Partitions::default(),
            offsets: Offsets::default(),
        }
    }

    /// Returns true if the coordinator has confirmed a partition or a group.
    pub(crate) fn has_added(&self) -> bool {
        self.partitions.has_added() || self.offsets.has_added()
    }
}
