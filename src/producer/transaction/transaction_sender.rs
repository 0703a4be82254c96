//! A handle of a transaction for tasks that may outlive it.

use std::{fmt, sync::Arc};

use super::handle::TransactionHandle;
use crate::{
    error::Result,
    producer::{Deliveries, Delivery, TrySendError},
    record::Record,
};

/// Puts records into a transaction from spawned tasks:
/// [`Transaction::sender`](super::Transaction::sender) returns it.
///
/// It ends with the transaction. A call that is in progress then still belongs to the transaction:
/// `commit` and `abort` wait for it. Later calls are refused with
/// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) ("transaction 7 has ended"), or with
/// [`TransactionFailed`](crate::ErrorKind::TransactionFailed) if the transaction has failed.
/// It does not keep the producer open.
#[derive(Clone)]
pub struct TransactionSender {
    handle: Arc<TransactionHandle>,
    number: u64,
}

impl TransactionSender {
    pub(crate) fn new(handle: Arc<TransactionHandle>, number: u64) -> Self {
        Self { handle, number }
    }

    /// Puts a record into the transaction, like [`Transaction::send`](super::Transaction::send).
    ///
    /// # Errors
    /// Those of [`Transaction::send`](super::Transaction::send), and
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the transaction has ended. That
    /// one fails no transaction.
    ///
    /// # Cancel safety
    /// If the future is dropped before it is ready, the record was not sent, and the transaction
    /// goes on.
    pub async fn send(&self, record: Record<'_>) -> Result<Delivery> {
        let _call = self.handle.enter(self.number)?;
        self.handle.send(record).await
    }

    /// Puts a record into the transaction if there is room for it at once, like
    /// [`Transaction::try_send`](super::Transaction::try_send).
    ///
    /// # Errors
    /// Those of [`Transaction::try_send`](super::Transaction::try_send), and
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the transaction has ended.
    pub fn try_send<'a>(&self, record: Record<'a>) -> Result<Delivery, TrySendError<'a>> {
        match self.handle.enter(self.number) {
            Ok(_call) => self.handle.try_send(record),
            Err(error) => Err(TrySendError::new(record, error)),
        }
    }

    /// Puts several records into the transaction, in order, like
    /// [`Transaction::send_batch`](super::Transaction::send_batch).
    ///
    /// # Cancel safety
    /// If the future is dropped before it is ready, some records from the start of the iterator
    /// were sent and the rest were not.
    pub async fn send_batch<'a>(&self, records: impl IntoIterator<Item = Record<'a>>) -> Deliveries {
        match self.handle.enter(self.number) {
            Ok(_call) => self.handle.send_batch(records).await,
            Err(error) => Deliveries::refused(records.into_iter().count(), &error),
        }
    }

    /// Returns the number of the transaction.
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl fmt::Debug for TransactionSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionSender").field("number", &self.number).finish_non_exhaustive()
    }
}
