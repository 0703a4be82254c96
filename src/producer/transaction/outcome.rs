//! The end of a transaction, as the user is told it.
//!
//! Sans-IO.

use crate::error::{Error, ErrorKind};

/// The end of a transaction.
///
/// *Committed*: the coordinator confirmed the commit. *Aborted*: no commit was ever sent under this
/// id and epoch, or the only one was refused with a code that proves that it had no effect.
/// *Unknown*: everything else.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Committed,
    /// The first cause; `None` if the user aborted.
    Aborted(Option<Error>),
    Unknown(Error),
}

/// Returns the error of calls of a transaction that has failed because of `cause`.
pub(crate) fn transaction_failed(cause: &Error) -> Error {
    let message = format!("the transaction has failed, and can only be aborted: {cause}");
    Error::new(ErrorKind::TransactionFailed, message).with_source(cause.clone())
}

impl Outcome {
    /// Returns the outcome of a commit that will not be confirmed. `attempts` is the number of
    /// requests that a coordinator may have seen: after the first, an earlier one may have had an
    /// effect, because a coordinator also answers a retriable code when the commit was already in
    /// its log.
    pub(crate) fn of_refused_commit(attempts: u32, error: Error) -> Self {
        if attempts <= 1 { Self::Aborted(Some(error)) } else { Self::Unknown(error) }
    }
}
