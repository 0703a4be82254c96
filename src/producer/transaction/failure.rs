//! The errors of transactions that cannot commit.
//!
//! Sans-IO.

use std::fmt;

use crate::error::{DeliveryStatus, Error, ErrorCode, ErrorKind};

/// Returns the error for a code that a coordinator has answered. `context` names the request.
pub(crate) fn coordinator_error(code: ErrorCode, context: impl fmt::Display) -> Error {
    let error = Error::broker(code, context);
    if code != ErrorCode::INVALID_TRANSACTION_TIMEOUT {
        return error;
    }
    error.with_kind(ErrorKind::Configuration).context(
        "transaction.timeout.ms is above the broker's transaction.max.timeout.ms: lower the former or raise the latter",
    )
}

/// Returns the error of calls and records that fail because their transaction has failed.
pub(crate) fn transaction_failed(cause: Error) -> Error {
    if cause.is_abortable() {
        return cause;
    }
    let message = format!("the transaction has failed and cannot commit: {cause}");
    Error::because_of(ErrorKind::TransactionFailed, message, cause)
}

/// Returns the error of a commit whose outcome is aborted.
pub(crate) fn aborted(number: u64, cause: Option<Error>) -> Error {
    let cause = match cause {
        Some(cause) => cause.context(format_args!("transaction {number} was aborted")),
        None => Error::new(ErrorKind::TransactionAborted, format!("transaction {number} was aborted")),
    };
    cause.with_retriable(false).with_status(DeliveryStatus::NotPersisted)
}

/// Returns the error of a commit whose outcome is not known.
pub(crate) fn unknown(number: u64, cause: Error) -> Error {
    cause
        .context(format_args!(
            "transaction {number} may have been committed; read its output, or the committed offsets of its group, \
             before you do its work again"
        ))
        .with_retriable(false)
        .with_status(DeliveryStatus::PossiblyPersisted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_transaction_is_wrapped_once() {
        let cause = Error::broker(ErrorCode::PRODUCER_FENCED, "produce to orders[0]");
        let failed = transaction_failed(cause);
        assert!(failed.is_abortable() && !failed.is_fatal());
        assert_eq!(transaction_failed(failed.clone()).to_string(), failed.to_string());
    }

    #[test]
    fn errors_of_commit_say_what_is_known() {
        let failed = aborted(7, Some(transaction_failed(Error::timeout("no answer"))));
        assert!(failed.is_abortable() && !failed.is_retriable());
        assert_eq!(failed.delivery_status(), Some(DeliveryStatus::NotPersisted));
        assert!(failed.to_string().starts_with("transaction 7 was aborted: "), "{failed}");
        assert_eq!(aborted(7, None).kind(), ErrorKind::TransactionAborted);
        let unknown = unknown(7, Error::network("connection lost"));
        assert!(!unknown.is_retriable() && !unknown.is_abortable());
        assert_eq!(unknown.delivery_status(), Some(DeliveryStatus::PossiblyPersisted));
        assert!(unknown.to_string().contains("may have been committed"), "{unknown}");
    }
}
