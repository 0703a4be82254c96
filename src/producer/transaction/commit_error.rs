//! A commit that was not confirmed.

use std::fmt;

use super::{
    action::Reply,
    failure::{aborted, unknown},
    handle::{TransactionHandle, Unanswered, unexpected},
    outcome::Outcome,
    shared::TransactionCall,
};
use crate::error::{DeliveryStatus, Error, Result};

/// A commit that was not confirmed, from [`Transaction::commit`](super::Transaction::commit).
///
/// The list is complete: the transaction is aborted, it may be committed, or it is still being
/// committed.
///
/// It borrows the producer, so that nothing else can be begun while a commit is pending. `?` turns
/// it into an [`Error`]; for another error type write `.map_err(ottla::Error::from)?`.
///
/// ```
/// # use ottla::testkit::{Cluster, Options};
/// use ottla::{Record, TransactionalProducer, producer::CommitError};
///
/// /// Returns true if the record is in the log, and false if the work has to be done again.
/// async fn ship(producer: &mut TransactionalProducer) -> ottla::Result<bool> {
///     let transaction = producer.begin().await?;
///     drop(transaction.send(Record::to("orders").with_value("shipped")).await?);
///     let mut result = transaction.commit().await;
///     loop {
///         result = match result {
///             Ok(()) => return Ok(true),
///             Err(CommitError::Aborted(error)) if error.is_abortable() => return Ok(false),
///             Err(CommitError::Aborted(error) | CommitError::Unknown(error)) => {
///                 return Err(error);
///             }
///             Err(CommitError::Pending(commit)) => {
///                 eprintln!("still waiting: {}", commit.cause());
///                 commit.wait().await
///             }
///         };
///     }
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> ottla::Result<()> {
/// # let cluster = Cluster::start(Options::new().in_memory()).await?;
/// # let mut producer = cluster.producer().transactional_id("shop").build().await?;
/// # assert!(ship(&mut producer).await?);
/// # Ok(()) }
/// ```
#[must_use]
pub enum CommitError<'p> {
    /// The transaction is aborted: nothing of it is or will be visible to consumers with
    /// `isolation.level=read_committed`. If the error [is fatal](Error::is_fatal), make a new
    /// producer; otherwise begin another transaction. In both cases do the work again.
    Aborted(Error),
    /// The commit was sent and its effect is not known: the transaction is committed or aborted as
    /// a whole. Read its output, or the committed offsets of its group, before you do the work
    /// again. If the error [is fatal](Error::is_fatal), make a new producer.
    Unknown(Error),
    /// The commit had no answer within `max.block.ms` and goes on:
    /// [`wait`](PendingCommit::wait) for it again.
    Pending(PendingCommit<'p>),
}

/// A commit that had no answer within `max.block.ms`. It goes on, also if this value is dropped:
/// then the next `begin` waits for it, and
/// [`last_outcome`](super::TransactionalProducer::last_outcome) tells its outcome.
#[must_use = "the commit goes on; wait for its outcome"]
pub struct PendingCommit<'p> {
    handle: &'p TransactionHandle,
    number: u64,
    cause: Error,
}

impl CommitError<'_> {
    /// Returns the error. Its [`delivery_status`](Error::delivery_status) is
    /// [`NotPersisted`](DeliveryStatus::NotPersisted) if the transaction is aborted, and otherwise
    /// [`PossiblyPersisted`](DeliveryStatus::PossiblyPersisted).
    pub fn error(&self) -> &Error {
        match self {
            Self::Aborted(error) | Self::Unknown(error) => error,
            Self::Pending(commit) => &commit.cause,
        }
    }

    /// Returns the recommended next step, in one sentence.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Aborted(error) if error.is_fatal() => "make a new producer and do the transaction's work again",
            Self::Aborted(_) => "begin another transaction and do the work again",
            Self::Unknown(error) if error.is_fatal() => {
                "read the output or the group's committed offsets, and make a new producer"
            }
            Self::Unknown(_) => "read the output or the group's committed offsets before you do the work again",
            Self::Pending(_) => "wait again: the commit goes on",
        }
    }
}

impl<'p> PendingCommit<'p> {
    /// Waits for the commit again, at most for `max.block.ms`.
    ///
    /// # Errors
    /// Those of [`Transaction::commit`](super::Transaction::commit).
    ///
    /// # Cancel safety
    /// The commit goes on, as when this value is dropped.
    pub async fn wait(self) -> Result<(), CommitError<'p>> {
        let reply = self.handle.ask(TransactionCall::Commit, self.handle.deadline()).await;
        committed(self.handle, self.number, reply)
    }

    /// Returns the reason for the wait, of kind `Timeout`.
    pub fn cause(&self) -> &Error {
        &self.cause
    }
}

/// Returns the result of a commit.
pub(crate) fn committed(
    handle: &TransactionHandle,
    number: u64,
    reply: Result<Reply, Unanswered>,
) -> Result<(), CommitError<'_>> {
    match reply {
        Ok(Reply::Ended(outcome)) => told(number, outcome),
        Ok(reply) => Err(CommitError::Unknown(unknown(number, unexpected(&reply)))),
        Err(Unanswered::TimedOut) => {
            let what = format!("transaction {number} was not committed");
            let cause = handle
                .timed_out(&what, "the commit goes on: wait again")
                .with_status(DeliveryStatus::PossiblyPersisted);
            Err(CommitError::Pending(PendingCommit { handle, number, cause }))
        }
        // The task may have published the outcome before it ended.
        Err(Unanswered::Ended(error)) => match handle.transactions().last_outcome() {
            Some((ended, outcome)) if ended == number => told(number, outcome),
            _ => Err(CommitError::Unknown(unknown(number, error))),
        },
    }
}

fn told<'p>(number: u64, outcome: Outcome) -> Result<(), CommitError<'p>> {
    match outcome {
        Outcome::Committed => Ok(()),
        Outcome::Aborted(cause) => Err(CommitError::Aborted(aborted(number, cause))),
        Outcome::Unknown(cause) => Err(CommitError::Unknown(unknown(number, cause))),
    }
}

impl fmt::Debug for CommitError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Aborted(_) => "Aborted",
            Self::Unknown(_) => "Unknown",
            Self::Pending(_) => "Pending",
        };
        f.debug_tuple(name).field(self.error()).finish()
    }
}

impl fmt::Display for CommitError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error().fmt(f)
    }
}

impl std::error::Error for CommitError<'_> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error().source()
    }
}

impl From<CommitError<'_>> for Error {
    /// Returns the error. A commit that is pending goes on.
    fn from(error: CommitError<'_>) -> Self {
        error.error().clone()
    }
}

impl fmt::Debug for PendingCommit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingCommit").field("number", &self.number).field("cause", &self.cause).finish()
    }
}
