//! The caller's handle of a commit in the background.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind, Result};

/// A commit that runs in the background, from
/// [`Consumer::commit_async`](crate::consumer::Consumer::commit_async). Await it for its result, or
/// drop it: the commit is carried out all the same.
///
/// # Errors
/// Those of [`Consumer::commit_offsets`](crate::consumer::Consumer::commit_offsets); `Closed` if
/// the consumer ended before the commit.
#[derive(Debug)]
#[must_use = "a commit may fail: await it, or drop it if that does not matter"]
pub struct PendingCommit(oneshot::Receiver<Result<()>>);

/// The sender of a commit's result.
#[derive(Debug)]
pub(crate) struct CommitCompleter(oneshot::Sender<Result<()>>);

impl PendingCommit {
    pub(crate) fn new() -> (CommitCompleter, Self) {
        let (done, pending) = oneshot::channel();
        (CommitCompleter(done), Self(pending))
    }
}

impl CommitCompleter {
    /// Sends the result. Returns the error if the caller has dropped the [`PendingCommit`] and does
    /// not see it.
    pub(crate) fn complete(self, result: Result<()>) -> Option<Error> {
        self.0.send(result).err().and_then(Result::err)
    }
}

impl Future for PendingCommit {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = || Error::new(ErrorKind::Closed, "the consumer ended before it could commit");
        Pin::new(&mut self.0).poll(cx).map(|told| told.unwrap_or_else(|_| Err(ended())))
    }
}
