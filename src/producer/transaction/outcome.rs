//! The end of a transaction, as the user is told it.
//!
//! Sans-IO.

use super::planted::{self, Bug};
use crate::error::Error;

/// The end of a transaction, from
/// [`TransactionalProducer::last_outcome`](super::TransactionalProducer::last_outcome).
///
/// The list is complete.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The coordinator confirmed the commit.
    Committed,
    /// Nothing of the transaction is or will be visible to consumers with
    /// `isolation.level=read_committed`: no commit was ever sent, or the only one was refused with
    /// a code that proves that it had no effect. With the first cause, or `None` if the program
    /// aborted or dropped the transaction.
    Aborted(Option<Error>),
    /// A commit was sent and its effect is not known: the transaction is committed or aborted as a
    /// whole. With the error of the last attempt. Read the output, or the committed offsets of the
    /// group, before you do the work again.
    Unknown(Error),
}

impl Outcome {
    /// Returns the outcome of a commit that will not be confirmed. `attempts` is the number of
    /// requests that a coordinator may have seen: after the first, an earlier one may have had an
    /// effect, because a coordinator also answers a retriable code when the commit was already in
    /// its log.
    pub(crate) fn of_refused_commit(attempts: u32, error: Error) -> Self {
        if attempts <= 1 || planted::has(Bug::UnknownIsAborted) {
            Self::Aborted(Some(error))
        } else {
            Self::Unknown(error)
        }
    }
}
